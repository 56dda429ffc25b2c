//! Checking every byte of a dataset that can be checked.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use mds::format::image::ImageFault;
use mds::format::{Compression, Damage, ShardFile, ShardInfo, Value};
use mds::storage::Remote;
use mds::{ErrorKind, Shard};

use super::{Failure, Source, fail, is_watched, progress, sentence, show};

pub(super) fn run(source: &Source, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    source.refuse_pickles(&[])?;
    let shards = &source.index.shards;
    let stored: u64 = shards.iter().map(ShardInfo::stored_bytes).fold(0, u64::saturating_add);
    let (bar, watched) = (progress::bytes(stored), is_watched());
    let mut bad = Vec::new();
    for shard in shards {
        let file = shard.stored();
        let line = match check(&source.remote, shard) {
            Ok(()) => (!watched).then(|| {
                format!(
                    "ok   {}  {}, {}",
                    file.basename,
                    show::count(shard.samples, "sample"),
                    show::count(shard.stored_bytes(), "byte")
                )
            }),
            Err(error) => {
                bad.push(file.basename.to_string());
                Some(format!("BAD  {}", sentence(&error.in_shard(&file.basename))))
            }
        };
        if let Some(line) = line {
            bar.suspend(|| writeln!(out, "{line}"))?;
        }
        bar.inc(shard.stored_bytes());
    }
    bar.finish_and_clear();
    if !bad.is_empty() {
        out.flush()?;
        return Ok(fail(&format!(
            "dataset {}: {} of {} damaged, missing or unreadable: {}; the lines above say what to do",
            source.remote.address(),
            bad.len(),
            show::count(shards.len() as u64, "shard"),
            bad.join(", ")
        )));
    }
    if shards.is_empty() {
        writeln!(out, "the index is sound and lists no shards: there is nothing to verify")?;
        return Ok(ExitCode::SUCCESS);
    }
    let hashes = if shards.iter().any(|shard| shard.stored().hashes.is_empty()) {
        " (index.json has no hashes for all shards: where there is none, only sizes, offsets and values were checked)"
    } else {
        ""
    };
    writeln!(
        out,
        "verified {}, {}, {}: all good{hashes}",
        show::count(shards.len() as u64, "shard"),
        show::count(source.index.samples(), "sample"),
        show::size(stored)
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a shard and checks its sizes, hashes and offsets, and that every value can be decoded, the
/// pixels of images included.
fn check(remote: &Remote, info: &ShardInfo) -> mds::Result<()> {
    let shard = Shard::fetch(remote, info)?;
    for sample in shard.samples()? {
        for (column, value) in sample.values()? {
            check_image(&value).map_err(|error| sample.located(error.in_column(column)))?;
        }
    }
    // Not to hold it while its files are read once more.
    drop(shard);
    let Some(folder) = remote.folder() else { return Ok(()) };
    info.files().try_for_each(|file| check_beside(remote, folder, file, info.compression))
}

/// Checks a compressed file that lies beside its raw one. Nobody reads it in this folder, but who
/// copies or streams from it does.
fn check_beside(
    remote: &Remote,
    folder: &Path,
    file: ShardFile<'_>,
    compression: Option<Compression>,
) -> mds::Result<()> {
    let (Some(zip), Some(compression)) = (file.zip, compression) else { return Ok(()) };
    let path = zip.basename.join_to(folder);
    if file.served_in(folder).zip.is_some() || !path.exists() {
        return Ok(());
    }
    let stored = remote.get(zip.basename.as_str(), zip.bytes)?;
    zip.verify(&stored)?;
    let unpacked = compression.decompress(&stored, file.raw.bytes)?;
    if unpacked == remote.get(file.raw.basename.as_str(), file.raw.bytes)? {
        return Ok(());
    }
    Err(mds::Error::new(
        ErrorKind::Corrupt,
        format!(
            "{} is what is read, but it is not what {} unpacks to",
            file.raw.basename.join_to(folder).display(),
            path.display()
        ),
        "remove the one that is wrong or write the dataset again",
    )
    .in_shard(&file.raw.basename))
}

fn check_image(value: &Value<'_>) -> mds::Result<()> {
    match value {
        Value::ImageFile(file) => match file.decode() {
            // A file that is more than is decoded here may be as it should be.
            Ok(_)
            | Err(
                ImageFault::SampleBits { .. }
                | ImageFault::Components { .. }
                | ImageFault::TooLarge { .. }
                | ImageFault::Scans { .. },
            ) => Ok(()),
            Err(fault) => Err(Damage::Image(fault).into()),
        },
        Value::List(values) => values.iter().try_for_each(check_image),
        _ => Ok(()),
    }
}
