//! Names of shard files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::damage::{Damage, NameFault};
use super::text::Format;
use crate::{Error, Result};

/// The name of a file of a dataset, relative to the dataset's directory, with `/` between segments.
///
/// Names come from index files, which may be hostile, and are joined to local directories. So a
/// name is never absolute; no segment is empty, `.` or `..`; there is no backslash, no NUL or other
/// control character (those that turn the direction of writing among them), no drive letter; each segment has at most 240 bytes, which leaves room for
/// the suffix of a temporary name; all of it has at most 1024; and the file is neither `index.json` nor
/// hidden, since a cache's own files (locks, seals) begin with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardName(String);

/// Whether a character changes how the text around it is shown: control characters, and those that
/// reverse the direction of writing.
pub fn is_hostile_to_terminals(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// File systems take 255 bytes.
const MAX_SEGMENT_BYTES: usize = 240;
const MAX_NAME_BYTES: usize = 1024;

impl ShardName {
    /// Checks a name.
    ///
    /// # Errors
    /// `Corrupt` if it breaks one of the rules above.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        match broken_rule(&name) {
            None => Ok(Self(name)),
            Some(fault) => {
                let mut name = name;
                // Room for what is wrong with it in a message of bounded length.
                name.truncate(name.floor_char_boundary(2 * MAX_NAME_BYTES));
                Err(Damage::Name { name, fault }.into())
            }
        }
    }

    /// The name that the reference gives to shard `number`: `shard.00017.mds`.
    pub(crate) fn numbered(number: u64, format: &Format) -> Self {
        Self(format!("shard.{number:05}.{format}"))
    }

    /// The name of the compressed file, or of the file of offsets, beside this one.
    pub(crate) fn with_extension(&self, extension: &str) -> Self {
        Self(format!("{}.{extension}", self.0))
    }

    /// The name as it stands in the index.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the file in a local directory.
    pub fn join_to(&self, directory: &Path) -> PathBuf {
        let mut path = directory.to_path_buf();
        path.extend(self.0.split('/'));
        path
    }
}

fn broken_rule(name: &str) -> Option<NameFault> {
    let bytes = name.as_bytes();
    if name.is_empty() {
        return Some(NameFault::Empty);
    }
    if name.starts_with('/') {
        return Some(NameFault::Absolute);
    }
    if bytes.len() > 1 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' {
        return Some(NameFault::DriveLetter);
    }
    if name.contains('\\') {
        return Some(NameFault::Backslash);
    }
    if name.contains(is_hostile_to_terminals) {
        return Some(NameFault::ControlCharacter);
    }
    if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Some(NameFault::DotSegment);
    }
    if name.len() > MAX_NAME_BYTES || name.split('/').any(|s| s.len() > MAX_SEGMENT_BYTES) {
        return Some(NameFault::TooLong);
    }
    match name.rsplit('/').next() {
        Some("index.json") => Some(NameFault::Index),
        Some(file) if file.starts_with('.') => Some(NameFault::Hidden),
        _ => None,
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ShardName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_shards_are_taken() {
        let long = format!("{0}/{0}", "a".repeat(MAX_SEGMENT_BYTES));
        for name in
            ["shard.00000.mds", "00003/shard.00001.mds.zstd", "a b", "ü", "..a/b", ".a/b", &long]
        {
            assert_eq!(ShardName::new(name).unwrap().as_str(), name);
        }
        let name = ShardName::new("a/b.mds").unwrap();
        assert_eq!(name.join_to(Path::new("/data")), Path::new("/data").join("a").join("b.mds"));
        assert_eq!(ShardName::numbered(7, &Format::Mds).as_str(), "shard.00007.mds");
        assert_eq!(ShardName::numbered(123_456, &Format::CSV).as_str(), "shard.123456.csv");
        assert_eq!(name.with_extension("zstd").as_str(), "a/b.mds.zstd");
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        let cases = [
            ("", "is empty"),
            ("/etc/passwd", "is an absolute path"),
            ("C:x", "begins with a drive letter"),
            ("c:/x", "begins with a drive letter"),
            ("a\\b", "contains a backslash"),
            ("a\0b", "contains a control character"),
            ("a\nb", "contains a control character"),
            ("a\u{202e}sdm.b", "contains a control character"),
            ("\u{2067}a", "contains a control character"),
            ("..", "has an empty, `.` or `..` segment"),
            ("a/../../b", "has an empty, `.` or `..` segment"),
            ("./a", "has an empty, `.` or `..` segment"),
            ("a//b", "has an empty, `.` or `..` segment"),
            ("a/", "has an empty, `.` or `..` segment"),
            ("index.json", "is that of an index"),
            ("a/index.json", "is that of an index"),
            (".index.seal", "is that of a hidden file"),
            ("a/..b", "is that of a hidden file"),
        ];
        let long_segment = "a".repeat(MAX_SEGMENT_BYTES + 1);
        let long_name = "a/".repeat(600) + "b";
        let long = [(long_segment.as_str(), "is too long"), (&long_name, "is too long")];
        for (name, why) in cases.into_iter().chain(long) {
            assert_eq!(
                ShardName::new(name).unwrap_err().to_string(),
                format!(
                    "the shard name {name:?} {why}; do not use this dataset unless you trust it; \
                     correct its index.json"
                )
            );
        }
    }
}
