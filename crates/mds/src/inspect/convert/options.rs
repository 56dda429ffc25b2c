//! The flags, checked as far as they can be without the source.

use std::borrow::Cow;
use std::str::FromStr;

use mds::format::{Compression, Format, HashAlgorithm};
use parquet::basic::{BrotliLevel, Compression as Codec, GzipLevel, ZstdLevel};

use super::{Failure, Flags, Target};

/// What to do with a thing that the source has too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice<T> {
    /// As the source has it.
    Keep,
    Set(T),
}

impl<T> Choice<T> {
    pub(super) fn or(self, kept: T) -> T {
        match self {
            Self::Keep => kept,
            Self::Set(value) => value,
        }
    }
}

/// The value of a flag that `none` switches off.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrNone<T>(Option<T>);

impl OrNone<()> {
    pub(super) fn parse<T: FromStr>(text: &str) -> Result<OrNone<T>, T::Err> {
        if text == "none" {
            Ok(OrNone(None))
        } else {
            text.parse().map(|value| OrNone(Some(value)))
        }
    }
}

/// A separator or a line end.
pub(super) fn text(given: &str) -> Result<String, String> {
    match unescape(given) {
        text if text.is_empty() => Err("give at least one character".to_owned()),
        text => Ok(text),
    }
}

/// The offsets in a shard have 32 bits.
pub(super) const MAX_SHARD_BYTES: u64 = u32::MAX as u64;

pub(super) struct Options {
    to: Option<Target>,
    pub(super) compression: Choice<Option<Compression>>,
    pub(super) hashes: Choice<Vec<HashAlgorithm>>,
    pub(super) size_limit: Choice<Option<u64>>,
    /// Sorted; all columns if empty.
    pub(super) columns: Vec<String>,
    separator: Option<String>,
    newline: Option<String>,
    pub(super) threads: Option<usize>,
}

impl Options {
    pub(super) fn check(flags: &Flags) -> Result<Self, Failure> {
        let compression = match flags.compression {
            None => Choice::Keep,
            Some(OrNone(compression)) => Choice::Set(compression),
        };
        let hashes = match flags.hashes.as_slice() {
            [] => Choice::Keep,
            [OrNone(None)] => Choice::Set(Vec::new()),
            names => {
                let Some(mut hashes) = names.iter().map(|name| name.0).collect::<Option<Vec<_>>>()
                else {
                    return Err(usage("--hashes none goes with no other hash"));
                };
                // An index lists them by their names.
                hashes.sort_by_key(|hash| hash.name());
                hashes.dedup();
                Choice::Set(hashes)
            }
        };
        let size_limit = match flags.size_limit {
            None => Choice::Keep,
            Some(size) if size > MAX_SHARD_BYTES && flags.to != Some(Target::Parquet) => {
                return Err(Failure::Usage(format!(
                    "--size_limit: a shard has at most {MAX_SHARD_BYTES} bytes, but {size} were \
                     given; give less, or 0 for no limit"
                )));
            }
            Some(size) => Choice::Set(Some(size).filter(|&size| size > 0)),
        };
        let mut columns = flags.columns.clone();
        columns.sort();
        columns.dedup();
        Ok(Self {
            to: flags.to,
            compression,
            hashes,
            size_limit,
            columns,
            separator: flags.separator.clone(),
            newline: flags.newline.clone(),
            threads: flags.threads,
        })
    }

    /// The format to write, of a source that has this one; `None` for Parquet.
    pub(super) fn format(&self, source: Option<&Format>) -> Result<Option<Format>, Failure> {
        let name = match (self.to, source) {
            (Some(Target::Parquet), _) => {
                if self.separator.is_some() || self.newline.is_some() {
                    return Err(usage("--separator and --newline are for text formats"));
                }
                if matches!(&self.hashes, Choice::Set(hashes) if !hashes.is_empty()) {
                    return Err(usage("--hashes are for datasets; Parquet files record none"));
                }
                return Ok(None);
            }
            (Some(Target::Mds), _) => "mds",
            (Some(Target::Json), _) => "json",
            (Some(Target::Csv), _) => "csv",
            (Some(Target::Tsv), _) => "tsv",
            (Some(Target::Xsv), _) => "xsv",
            (None, Some(format)) => format.name(),
            (None, None) => "mds",
        };
        let same = source.filter(|format| format.name() == name);
        let kept = |given: &Option<String>, kept: Option<&str>| {
            given.clone().or_else(|| kept.map(str::to_owned)).map(Cow::Owned)
        };
        let newline = kept(&self.newline, same.and_then(Format::newline));
        let newline = newline.unwrap_or(Cow::Borrowed("\n"));
        if name != "xsv" && self.separator.is_some() {
            return Err(usage("--separator is for --to xsv"));
        }
        Ok(Some(match name {
            "json" => Format::Json { newline },
            "csv" => Format::Csv { newline },
            "tsv" => Format::Tsv { newline },
            "xsv" => {
                let separator = kept(&self.separator, same.and_then(Format::separator));
                let separator =
                    separator.ok_or_else(|| usage("--to xsv needs a --separator, such as '|'"))?;
                Format::Xsv { separator, newline }
            }
            _ if self.newline.is_some() => return Err(usage("--newline is for text formats")),
            _ => Format::Mds,
        }))
    }

    /// The compression of the columns in Parquet files.
    pub(super) fn codec(&self) -> mds::Result<Codec> {
        let no_level = |error: parquet::errors::ParquetError| {
            mds::Error::new(
                mds::ErrorKind::InvalidArgument,
                format!("Parquet has no such level of compression: {error}"),
                "use another level, or none for the default",
            )
        };
        let compression = match self.compression {
            Choice::Keep => Some(Compression::Zstd(None)),
            Choice::Set(compression) => compression,
        };
        Ok(match compression {
            None => Codec::UNCOMPRESSED,
            Some(Compression::Snappy) => Codec::SNAPPY,
            Some(Compression::Zstd(level)) => {
                Codec::ZSTD(ZstdLevel::try_new(level.unwrap_or(3)).map_err(no_level)?)
            }
            Some(Compression::Gz(level)) => match level {
                Some(level) => Codec::GZIP(GzipLevel::try_new(level).map_err(no_level)?),
                None => Codec::GZIP(GzipLevel::default()),
            },
            Some(Compression::Br(level)) => match level {
                Some(level) => Codec::BROTLI(BrotliLevel::try_new(level).map_err(no_level)?),
                None => Codec::BROTLI(BrotliLevel::default()),
            },
            Some(other) => {
                return Err(mds::Error::new(
                    mds::ErrorKind::InvalidArgument,
                    format!("Parquet has no compression {other}"),
                    "use zstd, snappy, gz or br, with a level as in zstd:7, or none",
                ));
            }
        })
    }
}

fn usage(what: &str) -> Failure {
    Failure::Usage(what.to_owned())
}

/// `\n`, `\r`, `\t` and `\\` as what they stand for; other backslashes stay.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let escaped = match (c, rest.clone().next()) {
            ('\\', Some('n')) => Some('\n'),
            ('\\', Some('r')) => Some('\r'),
            ('\\', Some('t')) => Some('\t'),
            ('\\', Some('\\')) => Some('\\'),
            _ => None,
        };
        if escaped.is_some() {
            rest.next();
        }
        plain.push(escaped.unwrap_or(c));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_separators_are_understood() {
        assert_eq!(unescape(r"\r\n"), "\r\n");
        assert_eq!(unescape(r"a\\n\t|\x\"), "a\\n\t|\\x\\");
    }
}
