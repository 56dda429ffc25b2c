//! What the flags of tokens ask for, checked against one another and against the source.

use serde_json::Value as Json;

use super::args::OutputArgs;
use super::job::SourceOptions;
use crate::conversion::{LENGTH, TOKENIZER, TokenEncoding, TokenOptions};
use crate::error::{Error, Result};
use crate::statistics::Statistics;
use crate::tokenizer::Tokenizer;

/// Settings of llm-foundry's tokenizers that change no ids.
const IDLE_KWARGS: [&str; 4] = ["model_max_length", "use_fast", "trust_remote_code", "legacy"];

/// What `--concat_tokens`, `--tokenizer` and their like ask for.
///
/// # Errors
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if they do not go together, or not with what the source holds.
pub(super) fn tokens(
    program: &str,
    args: &OutputArgs,
    source: &SourceOptions,
) -> Result<Option<TokenOptions>> {
    let holds_ids = source.holds_ids;
    let marks = [
        ("--bos_text", args.bos_text.is_some()),
        ("--eos_text", args.eos_text.is_some()),
        ("--use_tokenizer_eos", args.use_tokenizer_eos),
    ];
    let given = |flags: &[(&'static str, bool)]| {
        flags.iter().find(|(_, given)| *given).map(|(flag, _)| *flag)
    };
    if args.concat_tokens.is_none() {
        let makes_ids = args.tokenizer.is_some() && !holds_ids;
        let others = [
            ("--tokenizer", args.tokenizer.is_some() && holds_ids),
            ("--tokenizer_kwargs", args.tokenizer_kwargs.is_some() && !makes_ids),
            ("--no_wrap", args.no_wrap),
            ("--sequence_id", args.sequence_id),
            (
                "--token_encoding",
                args.token_encoding != TokenEncoding::Int32 && !makes_ids && !holds_ids,
            ),
        ];
        if let Some(flag) = given(&marks).or_else(|| given(&others)) {
            let samples =
                if makes_ids || holds_ids { "samples that are documents" } else { "text samples" };
            return Err(Error::invalid(
                format!("{flag} has no effect on {samples}"),
                format!("add --concat_tokens N, or leave {flag} out"),
            ));
        }
        if !makes_ids && !holds_ids {
            return Ok(None);
        }
    }
    check_kwargs(args.tokenizer_kwargs.as_deref())?;
    let made_of = source.made_of.as_ref().filter(|_| holds_ids);
    let documents = match made_of.filter(|_| args.concat_tokens.is_some()) {
        Some(made_of) => of_documents(made_of, args, given(&marks))?,
        None => None,
    };
    let tokenizer = match &args.tokenizer {
        Some(name) => Some(Tokenizer::load(name)?),
        None if !holds_ids => {
            return Err(Error::invalid(
                "--concat_tokens needs a tokenizer",
                "add --tokenizer gpt2, or the path of a tokenizer.json",
            ));
        }
        None => None,
    };
    if tokenizer.is_none()
        && let Some(flag) = given(&marks)
    {
        return Err(Error::invalid(
            format!("{flag} needs a tokenizer, which makes tokens of it"),
            "add --tokenizer, the one that the source was made with",
        ));
    }
    if let Some(made_with) = documents {
        check_tokenizer(made_with, tokenizer.as_ref())?;
    }
    let mut eos_text = args.eos_text.clone().unwrap_or_default();
    if let Some(tokenizer) = tokenizer.as_ref().filter(|_| args.use_tokenizer_eos) {
        eos_text = tokenizer.eos_text()?.ok_or_else(|| {
            Error::invalid(
                format!("tokenizer {} has no end-of-text token", tokenizer.name()),
                "name one with --eos_text instead of --use_tokenizer_eos",
            )
        })?;
    }
    let options = TokenOptions {
        tokenizer,
        length: args.concat_tokens,
        bos_text: args.bos_text.clone().unwrap_or_default(),
        eos_text,
        wrap: !args.no_wrap,
        encoding: args.token_encoding,
        sequence_id: args.sequence_id,
        source_settings: [TOKENIZER, LENGTH]
            .into_iter()
            .filter_map(|flag| Some((flag, made_of?.setting(flag)?.to_owned())))
            .collect(),
    };
    // Of ids whose tokenizer is known it is known, too, whether it sets marks around each document.
    for warning in options.check(holds_ids && documents.is_none())? {
        eprintln!("{program}: warning: {warning}");
    }
    Ok(Some(options))
}

fn check_kwargs(given: Option<&str>) -> Result<()> {
    let Some(text) = given else { return Ok(()) };
    let Ok(Json::Object(settings)) = serde_json::from_str(text) else {
        return Err(Error::invalid(
            format!("--tokenizer_kwargs {text} is not a JSON object"),
            "write it as '{\"model_max_length\": 2048}'",
        ));
    };
    match settings.keys().find(|key| !IDLE_KWARGS.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Error::invalid(
            format!("--tokenizer_kwargs has {key:?}, which this program does not know"),
            format!(
                "save the tokenizer with that setting and give its tokenizer.json; {} are taken",
                IDLE_KWARGS.join(", ")
            ),
        )),
    }
}

/// The tokenizer of a dataset of ids, if its samples are documents, which marks are set between. Refuses what means documents
/// if they are not.
fn of_documents<'a>(
    made_of: &'a Statistics,
    args: &OutputArgs,
    mark: Option<&'static str>,
) -> Result<Option<&'a str>> {
    let is_cut = made_of.setting(LENGTH).is_some();
    if let Some(mark) = mark.filter(|_| is_cut) {
        return Err(Error::invalid(
            format!(
                "{mark} would stand in the middle of documents, since the samples of the source were cut before"
            ),
            "leave it out: what stands between documents is in the samples",
        ));
    }
    if is_cut && args.sequence_id {
        return Err(Error::invalid(
            "--sequence_id needs to know where documents begin, which samples that were cut before do not tell",
            "leave it out, or convert the text again",
        ));
    }
    Ok(made_of.setting(TOKENIZER).filter(|_| !is_cut))
}

/// Refuses marks by another tokenizer than that of the ids between which they are to stand, and none at all.
fn check_tokenizer(made_with: &str, tokenizer: Option<&Tokenizer>) -> Result<()> {
    let Some(tokenizer) = tokenizer else {
        return Err(Error::invalid(
            format!(
                "the source holds ids of documents by tokenizer {made_with}, and a mark between them is missing"
            ),
            "give that --tokenizer, and with it a mark, e.g. --eos_text '<|endoftext|>', unless it sets some by itself",
        ));
    };
    let given = tokenizer.described();
    // Wherever they lie, the same one has the same hash.
    if hash_of(&given) == hash_of(made_with) {
        return Ok(());
    }
    Err(Error::invalid(
        format!("the source holds ids by tokenizer {made_with}, not {given}"),
        "give that --tokenizer",
    ))
}

fn hash_of(described: &str) -> &str {
    described.rsplit_once(' ').map_or(described, |(_, hash)| hash)
}
