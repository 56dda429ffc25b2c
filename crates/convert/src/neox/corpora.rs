//! The registry of corpora: those that GPT-NeoX knows by name, with what became of their sources, and
//! those of a user's own file.
//!
//! Most of GPT-NeoX's addresses are parts of the Pile at two hosts; one of them is gone, and the other took
//! the Pile down. Such a corpus can be had only from a copy, which `--mirror` names. `books3` was
//! withdrawn for good reason and is not listed.
//!
//! A registry of one's own is a file of JSON:
//!
//! ```json
//! {
//!   "mine": {
//!     "urls": ["https://host/a.jsonl.zst", "s3://bucket/b.jsonl.zst"],
//!     "sha256": ["<64 digits>", "<64 digits>"],
//!     "num_docs": 12000
//!   }
//! }
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use super::fetch::check_sha256;
use crate::error::{Error, ErrorKind, Result};
use crate::source::Split;

/// A corpus that is known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// What it is called.
    pub name: String,
    /// The folder in the data folder, and the beginning of the names of its datasets.
    pub folder: String,
    /// The addresses or paths of its files.
    pub urls: Vec<String>,
    /// The SHA-256 of each file, in hexadecimal digits; empty if they are not known.
    pub sha256: Vec<String>,
    /// How many documents it has, if that is known.
    pub num_docs: Option<u64>,
    /// Whether its files can be had.
    pub state: State,
}

/// What is known of the source of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is known against it.
    Listed,
    /// It may be gone, for this reason; it is tried.
    Uncertain(&'static str),
    /// It cannot be had, for this reason.
    Gone(&'static str),
    /// A user's own.
    Own,
}

const COMPONENTS: &str = "https://the-eye.eu/public/AI/pile_preliminary_components";

const PILE_TAKEN_DOWN: State = State::Gone("the-eye.eu took the Pile down");
const BMK_GONE: State = State::Gone("the host eaidata.bmk.sh is gone since 2023");
const PART_OF_PILE: State =
    State::Uncertain("a part of the Pile, which the-eye.eu took down: it may be gone with it");

/// The corpora of GPT-NeoX.
pub fn listed() -> Vec<Corpus> {
    let corpus = |name: &str, urls: Vec<String>, state| Corpus {
        name: name.to_owned(),
        folder: name.to_owned(),
        urls,
        sha256: Vec::new(),
        num_docs: None,
        state,
    };
    let one = |name: &str, url: &str, state| corpus(name, vec![url.to_owned()], state);
    let component =
        |name: &str, file: &str| one(name, &format!("{COMPONENTS}/{file}"), PART_OF_PILE);
    let pile = |parts: std::ops::Range<u32>| {
        parts.map(|i| format!("https://the-eye.eu/public/AI/pile/train/{i:02}.jsonl.zst")).collect()
    };
    // The host of GPT-NeoX's addresses had copies of these.
    let c4 = |folder: &str, files: u32| {
        let name = move |i| format!("c4-train.{i:05}-of-{files:05}.json.gz");
        (0..files).map(|i| format!("hf://datasets/allenai/c4/{folder}/{}", name(i))).collect()
    };
    vec![
        one("enwik8", "http://mattmahoney.net/dc/enwik8.zip", State::Listed).with_documents(1),
        corpus("c4", c4("en", 1024), State::Listed),
        corpus("c4_openwebtext", c4("realnewslike", 512), State::Listed),
        one(
            "openwebtext2",
            "hf://datasets/segyges/OpenWebText2/openwebtext2.jsonl.zst.tar",
            State::Listed,
        )
        .with_documents(17_103_000),
        one("enron", "http://eaidata.bmk.sh/data/enron_emails.jsonl.zst", BMK_GONE)
            .with_documents(517_401),
        one("github", "http://eaidata.bmk.sh/data/github_small.jsonl.zst", BMK_GONE),
        Corpus {
            folder: "pile_00".to_owned(),
            ..corpus("pile_subset", pile(0..1), PILE_TAKEN_DOWN)
        },
        corpus("pile", pile(0..30), PILE_TAKEN_DOWN),
        component("arxiv", "2020-09-08-arxiv-extracts-nofallback-until-2007-068.tar.gz"),
        component("europarl", "EuroParliamentProceedings_1996_2011.jsonl.zst"),
        component("freelaw", "FreeLaw_Opinions.jsonl.zst"),
        component("nih", "NIH_ExPORTER_awarded_grant_text.jsonl.zst"),
        component("pubmed", "PMC_extracts.tar.gz"),
        component("books1", "books1.tar.gz"),
        component("hackernews", "hn.tar.gz").with_documents(373_000),
        one(
            "stackexchange",
            &format!("{COMPONENTS}/stackexchange_dataset.tar"),
            State::Gone(
                "its .tar of archives is no kind of file that GPT-NeoX's reader knows, and the-eye.eu took \
                 the Pile down",
            ),
        ),
        component("ubuntu_irc", "ubuntu_irc_until_2020_9_1.jsonl.zst"),
        component("youtube_subtitles", "yt_subs.jsonl.zst"),
    ]
}

impl Corpus {
    fn with_documents(self, num_docs: u64) -> Self {
        Self { num_docs: Some(num_docs), ..self }
    }

    /// The name of the file at one of its addresses.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the address names none.
    pub fn file_name(url: &str) -> Result<String> {
        let name = if mds::storage::is_address(url) {
            // Its message ends with a remedy.
            mds::storage::split(url).map_err(|e| Error::invalid(e.to_string(), ""))?.1
        } else {
            Path::new(url).file_name().unwrap_or_default().to_string_lossy().into_owned()
        };
        let is_plain =
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        if is_plain {
            return Ok(name);
        }
        let shown = mds::redacted(url);
        Err(Error::invalid(format!("{shown} names no file"), "give the address of a file"))
    }
}

/// An entry of a registry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    urls: Vec<String>,
    #[serde(default)]
    sha256: Vec<String>,
    #[serde(default)]
    num_docs: Option<u64>,
}

/// The listed corpora and those of the registry in the file `registry`, which replace any of the same name.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if the file is no registry; failures of the disk.
pub fn registry(registry: Option<&Path>) -> Result<Vec<Corpus>> {
    let mut corpora = listed();
    let Some(path) = registry else { return Ok(corpora) };
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(e, "read", path))?;
    let wrong = |problem: String| {
        Error::new(
            ErrorKind::Corrupt,
            format!("{}: {problem}", path.display()),
            r#"write {"NAME": {"urls": ["https://..."], "sha256": ["..."], "num_docs": 1}}"#,
        )
    };
    let entries: BTreeMap<String, Entry> = serde_json::from_str(&text)
        .map_err(|e| wrong(format!("not a registry of corpora: {e}")))?;
    for (name, Entry { urls, sha256, num_docs }) in entries {
        if Split::new(name.as_str()).is_err() {
            return Err(wrong(format!("{name:?} cannot be the name of a folder")));
        }
        if urls.is_empty() || (!sha256.is_empty() && sha256.len() != urls.len()) {
            let (urls, sums) = (urls.len(), sha256.len());
            return Err(wrong(format!("{name} has {urls} urls and {sums} sha256")));
        }
        sha256.iter().try_for_each(|sum| check_sha256(sum))?;
        corpora.retain(|corpus| corpus.name != name);
        let folder = name.clone();
        corpora.push(Corpus { name, folder, urls, sha256, num_docs, state: State::Own });
    }
    Ok(corpora)
}

/// The corpus `name`.
///
/// # Errors
/// [`ErrorKind::NotFound`] with the names that are known.
pub fn find(corpora: Vec<Corpus>, name: &str) -> Result<Corpus> {
    let names: Vec<_> = corpora.iter().map(|corpus| corpus.name.clone()).collect();
    let lower = name.to_lowercase();
    let found = corpora.into_iter().find(|corpus| corpus.name == name || corpus.name == lower);
    found.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no corpus {name:?}: those known are {}", names.join(", ")),
            "choose one, or add it with --registry",
        )
    })
}

/// The registry as a text, a corpus in each line.
pub fn table(corpora: &[Corpus]) -> String {
    let mut table = String::new();
    for Corpus { name, urls, num_docs, state, .. } in corpora {
        let (word, why) = match state {
            State::Listed => ("listed", None),
            State::Uncertain(why) => ("uncertain", Some(why)),
            State::Gone(why) => ("gone", Some(why)),
            State::Own => ("own", None),
        };
        let documents = num_docs.map(|n| format!("{n} documents")).unwrap_or_default();
        let files = if urls.len() == 1 { "file" } else { "files" };
        let first = urls.first().map(|url| mds::redacted(url)).unwrap_or_default();
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "{name:<18} {word:<10} {:>5} {files:<5} {documents:>18}  {first}{why}",
            urls.len()
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_folders_and_files_are_told_apart() {
        let corpora = listed();
        let mut names: Vec<_> = corpora.iter().map(|corpus| corpus.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), corpora.len());
        assert!(!names.contains(&"books3"));
        for corpus in &corpora {
            let files = corpus.urls.iter().map(|url| Corpus::file_name(url).unwrap());
            let mut files: Vec<_> = files.collect();
            files.sort_unstable();
            files.dedup();
            assert_eq!(files.len(), corpus.urls.len(), "{}", corpus.name);
        }
        let c4 = find(corpora, "C4").unwrap();
        assert_eq!(c4.urls.len(), 1024);
        assert_eq!(c4.urls[1023], "hf://datasets/allenai/c4/en/c4-train.01023-of-01024.json.gz");
        assert_eq!(find(listed(), "pile_subset").unwrap().folder, "pile_00");
        assert_eq!(find(listed(), "pile").unwrap().urls.len(), 30);
    }

    #[test]
    fn the_table_says_what_became_of_each() {
        let table = table(&listed());
        let line =
            |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert_eq!(
            line("enron"),
            "enron              gone           1 file    517401 documents  \
             http://eaidata.bmk.sh/data/enron_emails.jsonl.zst (the host eaidata.bmk.sh is gone since \
             2023)"
        );
        assert_eq!(
            line("enwik8"),
            "enwik8             listed         1 file         1 documents  \
             http://mattmahoney.net/dc/enwik8.zip"
        );
    }

    #[test]
    fn a_registry_of_ones_own_adds_and_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            registry(Some(&path)).map_err(|e| e.to_string())
        };
        let sum = "ab".repeat(32);
        let corpora = read(&format!(
            r#"{{"mine": {{"urls": ["a.txt"], "sha256": ["{sum}"]}},
                "enron": {{"urls": ["s3://b/e.jsonl.zst"], "num_docs": 3}}}}"#
        ));
        let corpora = corpora.unwrap();
        assert_eq!(corpora.len(), listed().len() + 1);
        let enron = find(corpora.clone(), "enron").unwrap();
        assert_eq!((enron.state, enron.num_docs), (State::Own, Some(3)));
        assert_eq!(find(corpora, "mine").unwrap().sha256, [sum]);

        let refused = |text: &str| read(text).unwrap_err();
        let shown = path.display().to_string();
        let end =
            r#"; write {"NAME": {"urls": ["https://..."], "sha256": ["..."], "num_docs": 1}}"#;
        assert_eq!(
            refused(r#"{"mine": {"urls": []}}"#),
            format!("{shown}: mine has 0 urls and 0 sha256{end}")
        );
        assert_eq!(
            refused(r#"{"mine": {"urls": ["a", "b"], "sha256": ["c"]}}"#),
            format!("{shown}: mine has 2 urls and 1 sha256{end}")
        );
        assert_eq!(
            refused(r#"{"../mine": {"urls": ["a"]}}"#),
            format!("{shown}: \"../mine\" cannot be the name of a folder{end}")
        );
        assert_eq!(
            refused(r#"{"mine": {"urls": ["a"], "md5": ["c"]}}"#),
            format!(
                "{shown}: not a registry of corpora: unknown field `md5`, expected one of `urls`, \
                 `sha256`, `num_docs` at line 1 column 30{end}"
            )
        );
        assert_eq!(
            refused(r#"{"mine": {"urls": ["a"], "sha256": ["c"]}}"#),
            "\"c\" is no SHA-256: that has 64 hexadecimal digits; correct it, or leave it out"
        );
    }

    #[test]
    fn what_is_not_known_is_named_with_what_is() {
        let text = find(listed(), "books3").unwrap_err().to_string();
        assert!(text.starts_with("there is no corpus \"books3\": those known are enwik8, c4, "));
        assert!(text.ends_with("; choose one, or add it with --registry"), "{text}");
    }
}
