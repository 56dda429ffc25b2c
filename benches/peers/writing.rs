//! Writing the text as a dataset of the columns `id`, `text` and `url`.

use std::fs;
use std::path::Path;
use std::time::Instant;

use mds::format::{Compression, Encoding, HashAlgorithm, Schema, Value};
use mds::{Writer, WriterOptions};
use serde_json::json;

use crate::Result;
use crate::input::{Document, Documents};
use crate::limits::{Object, object};

/// Writes all documents of `input` into the new folder `out`, with the writer's defaults but for
/// compression and hashes.
///
/// The clock runs from the making of the writer to the end of `finish`; the documents are in
/// memory before, and were written once before, so that the machine has the memory at hand. With
/// `memory` they are read one by one and written once, so that what the process takes beyond its
/// size at the start is the writer's.
pub(crate) fn write(
    input: &Path,
    out: &Path,
    compression: Option<Compression>,
    hashes: Vec<HashAlgorithm>,
    memory: bool,
) -> Result<Object> {
    let schema =
        Schema::new([("id", Encoding::Int), ("text", Encoding::Str), ("url", Encoding::Str)])?;
    let options = WriterOptions { compression, hashes, ..WriterOptions::default() };
    let shard_bytes = options.size_limit;
    let mut documents = Documents::open(input)?;
    let mut document = Document::default();
    let all = if memory { Vec::new() } else { Documents::open(input)?.read_all()? };
    let before = status_kib("VmRSS")?;

    if !memory {
        let mut writer = Writer::create(out, schema.clone(), options.clone())?;
        write_documents(&mut writer, &all)?;
        writer.finish()?;
        fs::remove_dir_all(out)?;
    }

    let start = Instant::now();
    let mut writer = Writer::create(out, schema, options)?;
    write_documents(&mut writer, &all)?;
    let mut id = 0;
    while memory && documents.next_into(&mut document)? {
        write_document(&mut writer, id, &document)?;
        id += 1;
    }
    let (samples, bytes) = (writer.samples(), writer.bytes());
    let index = writer.finish()?;
    let seconds = start.elapsed().as_secs_f64();

    let mut result = object(json!({
        "seconds": seconds,
        "samples": samples,
        "bytes": bytes,
        "stored_bytes": index.shards.iter().map(|shard| shard.stored().bytes).sum::<u64>(),
    }));
    if memory {
        let cores = std::thread::available_parallelism()?;
        result.insert("threads".into(), json!(cores));
        result.insert("shard_bytes".into(), json!(shard_bytes));
        let peak = status_kib("VmHWM")?.saturating_sub(before);
        result.insert("peak_bytes".into(), json!(peak << 10));
    }
    Ok(result)
}

fn write_documents(writer: &mut Writer, documents: &[Document]) -> Result<()> {
    for (id, document) in documents.iter().enumerate() {
        write_document(writer, id as i64, document)?;
    }
    Ok(())
}

fn write_document(writer: &mut Writer, id: i64, document: &Document) -> Result<()> {
    let (text, url) = (document.text.as_str(), document.url.as_str());
    Ok(writer.write(&[Value::Int(id), text.into(), url.into()])?)
}

/// A field of this process's `/proc/self/status`, in KiB.
fn status_kib(field: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("there is no such field in /proc/self/status")?.parse()?)
}
