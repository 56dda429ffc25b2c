//! Text to token ids and back.
//!
//! A [`Tokenizer`] is any byte-pair encoder in the Hugging Face `tokenizer.json` format: the
//! built-in `gpt2`, a file or folder, or a name on the hub. It is cheap to clone and shared by all
//! threads.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mds::format::HashAlgorithm;
use mds::storage::{Remote, RemoteOptions};
use serde_json::Value;
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

use crate::error::{Error, ErrorKind, Result};
use crate::hub::Hub;

/// GPT-2's vocabulary is part of the program, so that the default models need no network.
const GPT2: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/tokenizers/gpt2/tokenizer.json"));

const FILE: &str = "tokenizer.json";
const CONFIG_FILE: &str = "tokenizer_config.json";
/// Where older tokenizers have their special tokens.
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

/// More bytes than the file of any tokenizer has.
const LARGEST: u64 = 1 << 30;

/// What an end-of-text token is called when no `tokenizer_config.json` says so, in the order of
/// preference.
const END_OF_TEXT: [&str; 4] = ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"];

/// A tokenizer. Clones share one vocabulary.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    pipeline: PipelineTokenizer,
    vocab_size: usize,
    eos_id: Option<u32>,
    /// The files that it was read from.
    json: String,
    config: Option<String>,
}

impl Tokenizer {
    /// Loads the tokenizer `name_or_path`:
    ///
    /// * `gpt2`, which is built in;
    /// * a path or an address ([`Remote::open`]) of a `tokenizer.json`, or of the folder that holds one;
    /// * else a name on the Hugging Face hub (`HF_ENDPOINT`, `HF_TOKEN`), fetched once into the
    ///   user's cache folder.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is nowhere, [`ErrorKind::Corrupt`] if it is not a tokenizer
    /// that this program can run, [`ErrorKind::Hub`] if the hub fails.
    pub fn load(name_or_path: &str) -> Result<Self> {
        if name_or_path == "gpt2" {
            return Self::from_json(GPT2, None, "gpt2", "the built-in tokenizer");
        }
        if mds::storage::is_address(name_or_path) {
            return Self::from_remote(name_or_path);
        }
        let path = Path::new(name_or_path);
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        if file.is_file() {
            return Self::from_file(&file, name_or_path);
        }
        if !is_hub_name(name_or_path) {
            let file = mds::redacted(&file.to_string_lossy());
            return Err(not_found(&mds::redacted(name_or_path), &format!("there is no {file}")));
        }
        let here = file;
        let file = fetch(name_or_path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => error,
            kind => Error::new(
                kind,
                format!(
                    "tokenizer {name_or_path:?} is not built in (gpt2 is), there is no {} here, and \
                     from the hub: {error}",
                    here.display()
                ),
                "or give the path of a tokenizer.json",
            ),
        })?;
        Self::from_file(&file, name_or_path)
    }

    fn from_file(file: &Path, name: &str) -> Result<Self> {
        let read = |path: &Path| std::fs::read_to_string(path);
        let json = read(file).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => {
                not_usable(&file.display().to_string(), "it is not text")
            }
            _ => Error::io(e, "read", file),
        })?;
        let beside = |name: &str| read(&file.with_file_name(name)).ok();
        let config = match (beside(CONFIG_FILE), beside(SPECIAL_TOKENS_FILE)) {
            (config, Some(tokens)) => Some(with_special_tokens(config, &tokens)),
            (config, None) => config,
        };
        Self::from_json(&json, config.as_deref(), name, &file.display().to_string())
    }

    fn from_remote(address: &str) -> Result<Self> {
        let (folder, name) = match mds::storage::split(address) {
            Ok((folder, name)) if name.ends_with(".json") => (folder, name),
            _ => (address.to_owned(), FILE.to_owned()),
        };
        let remote = Remote::open(&folder, RemoteOptions::default())?;
        let text =
            |name: &str| Ok(String::from_utf8_lossy(&remote.get(name, LARGEST)?).into_owned());
        let config = match text(CONFIG_FILE) {
            Err(error) if mds::Error::kind(&error) != mds::ErrorKind::NotFound => {
                return Err(error.into());
            }
            config => config.ok(),
        };
        let shown = mds::redacted(address);
        Self::from_json(&text(&name)?, config.as_deref(), &shown, &shown)
    }

    pub(crate) fn from_json(
        json: &str,
        config: Option<&str>,
        name: &str,
        origin: &str,
    ) -> Result<Self> {
        let corrupt = |problem: String| not_usable(origin, &problem);
        let value: Value = serde_json::from_str(json).map_err(|e| corrupt(e.to_string()))?;
        if let Some(model) = value.pointer("/model/type").and_then(Value::as_str)
            && model != "BPE"
        {
            return Err(corrupt(format!("its model is {model}, which is not a byte-pair encoder")));
        }
        let vocab_size =
            vocab_size(&value).ok_or_else(|| corrupt("it has no vocabulary".into()))?;
        let special = added_tokens(&value);
        let pipeline = pipeline(&value).map_err(|e| corrupt(name_component(&value, &e)))?;
        let id_of = |token: &str| special.iter().find(|(t, _)| t == token).map(|(_, id)| *id);
        let named = config.and_then(eos_token_of_config).and_then(|token| id_of(&token));
        let eos_id = named.or_else(|| END_OF_TEXT.iter().find_map(|token| id_of(token)));
        let inner = Inner {
            name: name.to_owned(),
            pipeline,
            vocab_size,
            eos_id,
            json: json.to_owned(),
            config: config.map(str::to_owned),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The ids of `text`, with whatever tokens the tokenizer itself puts around a text (GPT-2's
    /// puts none). Nothing is truncated or padded.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, true)
    }

    /// The ids of `text` alone, without the tokens that the tokenizer puts around a text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let mut tokens: Vec<PipelineToken> = Vec::with_capacity(text.len() / 4);
        self.inner
            .pipeline
            .encode_into(text, &options(add_special_tokens), &mut tokens)
            .map_err(|e| self.failed("encode a text", &e.to_string()))?;
        Ok(tokens.into_iter().map(u32::from).collect())
    }

    /// The text of `ids`, special tokens included. Bytes that are not UTF-8 (a sequence cut inside
    /// a character) become U+FFFD; ids that are not in the vocabulary are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let decoded = self.inner.pipeline.decode(ids, false);
        decoded.map_err(|e| self.failed("decode ids", &e.to_string()))
    }

    fn failed(&self, action: &str, problem: &str) -> Error {
        let what = format!("tokenizer {}: cannot {action}: {problem}", self.inner.name);
        Error::new(ErrorKind::Corrupt, what, "use another tokenizer")
    }

    /// One more than the largest id: the least number of rows of an embedding table.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// The id of the end-of-text token, if the tokenizer has one.
    pub fn eos_id(&self) -> Option<u32> {
        self.inner.eos_id
    }

    /// The end-of-text token itself, if the tokenizer has one.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn eos_text(&self) -> Result<Option<String>> {
        self.eos_id().map(|id| self.decode(&[id])).transpose()
    }

    /// The name or path that it was loaded by.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The name, and the hash that tells it from another one of this name: `gpt2 (xxh64 0123456789abcdef)`.
    pub fn described(&self) -> String {
        format!("{} (xxh64 {})", self.name(), HashAlgorithm::Xxh64.hex(self.json().as_bytes()))
    }

    /// The text of its `tokenizer.json`.
    pub fn json(&self) -> &str {
        &self.inner.json
    }

    /// The text of the `tokenizer_config.json` beside that, if there was one.
    pub fn config_json(&self) -> Option<&str> {
        self.inner.config.as_deref()
    }

    /// Whether [`Tokenizer::encode`] puts a token before or after each text.
    pub fn adds_special_tokens(&self) -> bool {
        self.inner.pipeline.get_post_processor().single.n_special() > 0
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("name", &self.inner.name)
            .field("vocab_size", &self.inner.vocab_size)
            .field("eos_id", &self.inner.eos_id)
            .finish_non_exhaustive()
    }
}

/// The encoder that a `tokenizer.json` of any version describes, or why there is none.
fn pipeline(tokenizer: &Value) -> Result<PipelineTokenizer, String> {
    let mut canonical = tokenizer.clone();
    tokenizers::canonicalize_value(&mut canonical).map_err(|e| e.to_string())?;
    let pipeline = tokenizers::from_json(&canonical.to_string()).map_err(|e| e.to_string())?;
    // Some components say only when they are used that they cannot be.
    let mut tokens = Vec::new();
    pipeline.encode_into("a", &options(false), &mut tokens).map_err(|e| e.to_string())?;
    pipeline.decode(PipelineToken::cast_slice(&tokens), false).map_err(|e| e.to_string())?;
    Ok(pipeline)
}

fn options(add_special_tokens: bool) -> EncodeOptions {
    EncodeOptions {
        add_special_tokens,
        encode_special_tokens: false,
        padding: Override::Off,
        truncation: Override::Off,
    }
}

/// `problem`, and of which component it is: the one without which there is an encoder. The
/// encoder's own words name it only at times, and go on to how it was compiled.
fn name_component(tokenizer: &Value, problem: &str) -> String {
    let end = [". ", "; ", ": enable "].iter().filter_map(|mark| problem.find(mark)).min();
    let problem = &problem[..end.unwrap_or(problem.len())];
    for slot in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        let Some(component) = tokenizer.get(slot).filter(|component| !component.is_null()) else {
            continue;
        };
        let mut without = tokenizer.clone();
        without[slot] = Value::Null;
        if pipeline(&without).is_ok() {
            return format!("its {slot} {}: {problem}", component_types(component));
        }
    }
    problem.to_owned()
}

/// `Lowercase`, or `Sequence of NFC, Lowercase`.
fn component_types(component: &Value) -> String {
    let own = component.get("type").and_then(Value::as_str).unwrap_or("of no type");
    let lists = component.as_object().into_iter().flat_map(|fields| fields.values());
    let members = lists.filter_map(Value::as_array).flatten();
    let members: Vec<String> =
        members.filter(|m| m.get("type").is_some()).map(component_types).collect();
    if members.is_empty() { own.to_owned() } else { format!("{own} of {}", members.join(", ")) }
}

/// One more than the largest id of the model and of the added tokens.
fn vocab_size(tokenizer: &Value) -> Option<usize> {
    let vocab = tokenizer.get("model")?.get("vocab")?;
    let in_model = match vocab {
        Value::Object(entries) => entries.values().filter_map(Value::as_u64).max().map(|id| id + 1),
        Value::Array(entries) => Some(entries.len() as u64),
        _ => None,
    }?;
    let added = added_tokens(tokenizer).iter().map(|(_, id)| u64::from(*id) + 1).max();
    usize::try_from(in_model.max(added.unwrap_or(0))).ok()
}

fn added_tokens(tokenizer: &Value) -> Vec<(String, u32)> {
    let entries = tokenizer.get("added_tokens").and_then(Value::as_array);
    let entry = |token: &Value| {
        let content = token.get("content")?.as_str()?;
        Some((content.to_owned(), u32::try_from(token.get("id")?.as_u64()?).ok()?))
    };
    entries.map(|all| all.iter().filter_map(entry).collect()).unwrap_or_default()
}

fn not_usable(origin: &str, problem: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{origin}: not a usable tokenizer: {problem}"),
        "use a tokenizer.json of a byte-pair encoder, as the Hugging Face libraries save it",
    )
}

/// A `tokenizer_config.json` with those special tokens that it does not have itself.
fn with_special_tokens(config: Option<String>, tokens: &str) -> String {
    let object = |text: &str| serde_json::from_str::<serde_json::Map<String, Value>>(text).ok();
    let mut whole = object(tokens).unwrap_or_default();
    whole.extend(config.as_deref().and_then(object).unwrap_or_default());
    Value::Object(whole).to_string()
}

/// `"eos_token": "</s>"` or `"eos_token": {"content": "</s>", ...}`.
fn eos_token_of_config(json: &str) -> Option<String> {
    let config: Value = serde_json::from_str(json).ok()?;
    let token = config.get("eos_token")?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// Whether it can be the name of a repository on the hub: `NAME` or `OWNER/NAME`.
fn is_hub_name(name: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && !p.starts_with('.')
            && !p.contains("..")
            && p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let parts: Vec<&str> = name.split('/').collect();
    parts.len() <= 2 && parts.iter().all(|p| part(p)) && !name.ends_with(".json")
}

fn not_found(name: &str, tried: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("tokenizer {name:?} not found: it is not built in (gpt2 is), and {tried}"),
        "give the path of a tokenizer.json or of the folder that holds one",
    )
}

/// The hub's `tokenizer.json` of the repository `name`, from the cache or the network.
fn fetch(name: &str) -> Result<PathBuf> {
    let hub = Hub::from_env()?;
    let folder = cache_folder()?.join(hub.host()).join(name);
    let file = folder.join(FILE);
    if file.is_file() {
        return Ok(file);
    }
    let url = format!("{name}/resolve/main/{FILE}");
    let Some(json) = hub.read_small(&url)? else {
        let place = hub.address(&url);
        return Err(not_found(name, &format!("there is no {name} here and no {place}")));
    };
    // The config first: a tokenizer.json in the cache means that all of it is there.
    if let Some(config) = hub.read_small(&format!("{name}/resolve/main/{CONFIG_FILE}"))? {
        publish(&folder.join(CONFIG_FILE), &config)?;
    }
    publish(&file, &json)?;
    Ok(file)
}

fn cache_folder() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let base = base.ok_or_else(|| {
        Error::invalid("no folder to keep the tokenizer in", "set HOME or XDG_CACHE_HOME")
    })?;
    Ok(base.join("mds").join("tokenizers"))
}

/// Writes `path` so that it is there whole or not at all.
fn publish(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(e, "create", folder))?;
    mds::durable::replace(path, content).map_err(|e| Error::io(e, "write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: fn() = || {
        fn shared_by_threads<T: Send + Sync + Clone>() {}
        shared_by_threads::<Tokenizer>();
    };

    #[test]
    fn gpt2_is_built_in() {
        let gpt2 = Tokenizer::load("gpt2").unwrap();
        assert_eq!(gpt2.vocab_size(), 50257);
        assert_eq!(gpt2.eos_id(), Some(50256));
        assert!(!gpt2.adds_special_tokens());
        assert_eq!(gpt2.encode("Hello world").unwrap(), [15496, 995]);
        assert_eq!(gpt2.encode("<|endoftext|>").unwrap(), [50256]);
        assert!(gpt2.encode("").unwrap().is_empty());
        assert_eq!(gpt2.decode(&[15496, 995, 50256]).unwrap(), "Hello world<|endoftext|>");
    }

    /// A template that puts `<s>` before and `</s>` after, as Llama's does, and a config file.
    #[test]
    fn tokens_around_a_text_and_the_config_are_honoured() {
        let mut json: Value = serde_json::from_str(GPT2).unwrap();
        json["post_processor"] = serde_json::json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<|endoftext|>":
                {"id": "<|endoftext|>", "ids": [50256], "tokens": ["<|endoftext|>"]}}
        });
        json["truncation"] = serde_json::json!(
            {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        json["added_tokens"].as_array_mut().unwrap().push(serde_json::json!(
            {"id": 50260, "content": "<stop>", "single_word": false, "lstrip": false,
             "rstrip": false, "normalized": false, "special": true}));
        let config = r#"{"eos_token": {"content": "<stop>"}}"#;
        let tokenizer =
            Tokenizer::from_json(&json.to_string(), Some(config), "t", "t.json").unwrap();
        assert!(tokenizer.adds_special_tokens());
        assert_eq!(tokenizer.encode("Hello world").unwrap(), [50256, 15496, 995]);
        assert_eq!(tokenizer.encode_bare("Hello world").unwrap(), [15496, 995]);
        assert_eq!(tokenizer.eos_id(), Some(50260));
        assert_eq!(tokenizer.vocab_size(), 50261);
    }

    #[test]
    fn files_that_are_not_tokenizers_are_refused_with_a_reason() {
        let refused = |json: &str| Tokenizer::from_json(json, None, "t", "t.json").unwrap_err();
        assert_eq!(
            refused("{}").to_string(),
            "t.json: not a usable tokenizer: it has no vocabulary; use a tokenizer.json of a \
             byte-pair encoder, as the Hugging Face libraries save it"
        );
        for json in ["", "[1]", "{\"model\": 3}", r#"{"model": {"vocab": {"a": 0}}}"#] {
            assert_eq!(refused(json).kind(), ErrorKind::Corrupt, "{json}");
        }
    }

    /// GPT-2's file with `slot` replaced.
    fn with(slot: &str, component: Value) -> String {
        let mut json: Value = serde_json::from_str(GPT2).unwrap();
        json[slot] = component;
        json.to_string()
    }

    #[test]
    fn a_component_that_cannot_be_run_is_refused_by_its_name() {
        use serde_json::json;
        let word_piece = json!({"type": "WordPiece", "vocab": {"a": 0, "[UNK]": 1},
            "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9});
        let unigram = json!({"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 0});
        let custom = json!({"type": "Custom"});
        let steps = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, custom]});
        let digits = json!({"type": "Split", "behavior": "Isolated", "invert": false,
            "pattern": {"Regex": "[0-9](?=x)"}});
        for (slot, component, problem) in [
            ("model", word_piece, "its model is WordPiece, which is not a byte-pair encoder"),
            ("model", unigram, "its model is Unigram, which is not a byte-pair encoder"),
            ("model", custom.clone(), "its model is Custom, which is not a byte-pair encoder"),
            (
                "normalizer",
                steps,
                "its normalizer Sequence of NFC, Custom: the slim JSON reader does not support the \
                 `Custom` normalizer",
            ),
            (
                "pre_tokenizer",
                custom.clone(),
                "its pre_tokenizer Custom: the slim JSON reader does not support the `Custom` \
                 pre-tokenizer",
            ),
            (
                "pre_tokenizer",
                digits,
                "its pre_tokenizer Split: this `Split` pattern needs a system-regex backend",
            ),
            (
                "post_processor",
                custom.clone(),
                "its post_processor Custom: the slim JSON reader does not support the `Custom` \
                 post-processor",
            ),
            (
                "decoder",
                custom,
                "its decoder Custom: the slim JSON reader does not support the `Custom` decoder",
            ),
        ] {
            let json = with(slot, component);
            assert_eq!(
                Tokenizer::from_json(&json, None, "t", "t.json").unwrap_err().to_string(),
                format!(
                    "t.json: not a usable tokenizer: {problem}; use a tokenizer.json of a \
                     byte-pair encoder, as the Hugging Face libraries save it"
                )
            );
        }
    }

    #[test]
    fn hub_names_are_told_from_paths() {
        for name in ["gpt2", "facebook/opt-125m", "EleutherAI/gpt-neox-20b", "t5.1"] {
            assert!(is_hub_name(name), "{name}");
        }
        for path in
            ["", "/tmp/x", "./gpt2", "../x", "a/b/c", "x/..", "a b", "tok.json", "a//b", "~/x"]
        {
            assert!(!is_hub_name(path), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_not_there_is_named_with_a_remedy() {
        assert_eq!(
            Tokenizer::load("./nowhere/tokenizer.json").unwrap_err().to_string(),
            "tokenizer \"./nowhere/tokenizer.json\" not found: it is not built in (gpt2 is), and \
             there is no ./nowhere/tokenizer.json; give the path of a tokenizer.json or of the \
             folder that holds one"
        );
    }
}
