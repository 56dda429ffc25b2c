//! `convert to_indexed`: samples to documents of an indexed dataset.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use indicatif::HumanCount;

use super::args::ToIndexedArgs;
use super::display::plural;
use super::stop::StopSignal;
use crate::error::{Error, ErrorKind, Result};
use crate::indexed::{Dtype, IndexedWriter};
use crate::manifest::Position;
use crate::pipeline::{Parse, ParsedChunks};
use crate::progress::Meter;
use crate::record::text_of;
use crate::source::chunk::{Joined, Raw};
use crate::source::{BadDocument, SourceFile, shards_of};
use crate::tokenizer::Tokenizer;

pub(super) fn run(args: &ToIndexedArgs, stop: &StopSignal) -> Result<()> {
    let files = shards_of(&args.path, args.column.as_deref())?;
    let tokenizer = args.tokenizer.as_deref().map(Tokenizer::load).transpose()?;
    let holds_ids = files.iter().any(SourceFile::holds_ids);
    if tokenizer.is_none() && !holds_ids {
        let remedy = "add --tokenizer gpt2, or the path of a tokenizer.json";
        return Err(Error::invalid("a column of text needs a tokenizer", remedy));
    }
    if tokenizer.is_some() && holds_ids {
        let remedy = "leave --tokenizer out, or name a column of text with --column";
        return Err(Error::invalid("a column of token ids needs no tokenizer", remedy));
    }
    let eod = match &tokenizer {
        Some(tokenizer) if args.append_eod => Some(tokenizer.eos_id().ok_or_else(|| {
            let what = format!("tokenizer {} has no end-of-text token", tokenizer.name());
            Error::invalid(what, "leave --append_eod out, or use another tokenizer")
        })?),
        _ => None,
    };
    let dtype = match &tokenizer {
        _ if args.uint16 => Dtype::U16,
        Some(tokenizer) => Dtype::for_vocab_size(tokenizer.vocab_size() as u64),
        None => Dtype::I32,
    };
    let mut writer = IndexedWriter::create(&args.output_prefix, dtype)?;
    let threads = args.num_workers.filter(|&n| n > 0);
    let threads = threads.or_else(|| thread::available_parallelism().ok().map(usize::from));
    let started = Instant::now();
    let (tokens, left_out) = stop.while_converting(|cancel| {
        let (meter, parse) = (Arc::<Meter>::default(), parser(tokenizer, eod));
        let from = Position::default();
        let mut chunks =
            ParsedChunks::start(files, from, parse, threads.unwrap_or(1), &meter, cancel);
        let (mut tokens, mut left_out) = (0, 0);
        while let Some((documents, _)) = chunks.next()? {
            for document in documents.iter() {
                if document.is_empty() {
                    left_out += 1;
                    continue;
                }
                writer.write_document(document)?;
                tokens += document.len() as u64;
            }
        }
        Ok::<_, Error>((tokens, left_out))
    })?;
    let documents = writer.num_documents();
    if documents == 0 {
        return Err(Error::new(
            ErrorKind::Empty,
            format!("{} holds no samples", mds::redacted(&args.path)),
            "give the folder of another dataset",
        ));
    }
    writer.finish()?;
    if left_out > 0 {
        eprintln!("{} without a token left out", plural(left_out, "sample"));
    }
    println!(
        "{} documents, {} tokens, in {:.1} s -> {}.bin and .idx",
        HumanCount(documents as u64),
        HumanCount(tokens),
        started.elapsed().as_secs_f64(),
        args.output_prefix.display()
    );
    Ok(())
}

/// The ids of each document of a chunk, with its end; none of one without any, which is left out, as GPT-NeoX does.
fn parser(tokenizer: Option<Tokenizer>, eod: Option<u32>) -> Arc<Parse<Joined<u32>>> {
    Arc::new(move |file, chunk| {
        let mut documents = Joined::default();
        for (number, raw) in chunk.documents() {
            let failed = |problem: String| {
                let (file, unit) = (file.to_owned(), chunk.unit());
                let bad = BadDocument { file, unit, number, problem };
                Error::new(ErrorKind::Corrupt, bad.to_string(), "correct the dataset")
            };
            let ids = match (raw, &tokenizer) {
                (Raw::Ids(ids), _) => ids.to_vec(),
                (raw, Some(tokenizer)) => tokenizer.encode(&text_of(raw).map_err(failed)?)?,
                (_, None) => return Err(failed("it is text, not token ids".to_owned())),
            };
            let end = eod.filter(|_| !ids.is_empty());
            documents.push(ids.into_iter().chain(end));
        }
        Ok(documents)
    })
}
