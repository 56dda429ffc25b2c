//! One index over the datasets in the folders below: how a dataset that several writers made in
//! parts is read as one.
//!
//! ```text
//! root/00000/index.json, shard.00000.mds, ...        root/index.json lists 00000/shard.00000.mds,
//! root/00001/index.json, shard.00000.mds, ...   ->   ..., 00001/shard.00000.mds, ...
//! ```
//! No shard is moved, read or changed.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Index, IndexOptions, ShardInfo, ShardName};
use crate::storage::{Remote, RemoteOptions};

/// Pickles may be listed: nothing is read here but indexes.
const OPTIONS: IndexOptions = IndexOptions { pickle_bytes: true };

/// Writes `root/index.json` over all datasets in the folders below `root`, a path or a URL, in the
/// order of their names, and returns it. The text is the one that the reference's `merge_index`
/// writes. A folder that has an index is one part with all that lies below it. Symbolic links to
/// folders are not followed, as by the reference.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) if no folder below has an index, or one has shards that no index lists,
/// which would be left out ([`merge_parts`] takes the others),
/// [`AlreadyExists`](ErrorKind::AlreadyExists) if `root` holds shards of its own, or an index that
/// cannot be read and so may list some,
/// [`Unsupported`](ErrorKind::Unsupported) if the remote cannot list its folders (plain HTTP),
/// [`Corrupt`](ErrorKind::Corrupt) if an index is damaged; and as the file system or the remote
/// fails. `root/index.json` is then as it was.
///
/// ```
/// use mds::format::{Encoding, Schema};
/// use mds::{Writer, WriterOptions, merge_index};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// for part in ["00000", "00001"] {
///     let schema = Schema::new([("id", Encoding::Int)])?;
///     let mut writer = Writer::create(root.path().join(part), schema, WriterOptions::default())?;
///     writer.write(&[7.into()])?;
///     writer.finish()?;
/// }
/// let index = merge_index(&root.path().display().to_string(), Default::default())?;
/// assert_eq!(index.samples(), 2);
/// assert_eq!(index.shards[1].raw_data.basename.as_str(), "00001/shard.00000.mds");
/// # Ok(())
/// # }
/// ```
pub fn merge_index(root: &str, options: RemoteOptions) -> Result<Index> {
    let remote = Remote::open(root, options)?;
    let parts = remote.folders_with(Index::FILE_NAME)?;
    if parts.is_empty() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("no folder below {} has an index.json", remote.address()),
            "give the folder that holds the parts of the dataset, each in a folder of its own",
        ));
    }
    let index = listed_by(&remote, &parts)?;
    refuse_left_out(&remote, &parts, &index)?;
    publish(&remote, &index)
}

/// [`merge_index`] over the given folders below `root`, in the given order.
///
/// # Errors
/// As [`merge_index`], and [`NotFound`](ErrorKind::NotFound) if a part has no index, and
/// [`InvalidArgument`](ErrorKind::InvalidArgument) if one is given twice.
pub fn merge_parts(root: &str, parts: &[impl AsRef<str>], options: RemoteOptions) -> Result<Index> {
    let remote = Remote::open(root, options)?;
    let parts: Vec<_> =
        parts.iter().map(|part| part.as_ref().trim_end_matches('/').to_owned()).collect();
    let index = listed_by(&remote, &parts)?;
    publish(&remote, &index)
}

/// All shards that the indexes of the parts list, with their names below the root.
fn listed_by(remote: &Remote, parts: &[String]) -> Result<Index> {
    refuse_shards_of_its_own(remote)?;
    let mut index = Index::default();
    let (mut given, mut owners) = (HashSet::new(), HashMap::new());
    for part in parts {
        // As a file in it would be: folders may be hidden, files may not.
        if ShardName::new(format!("{part}/shard")).is_err() {
            return Err(Error::invalid(
                format!("{part:?} is not a folder below {}", remote.address()),
                "give relative paths such as 00000 or a/b",
            ));
        }
        if !given.insert(part) {
            return Err(Error::invalid(
                format!("the folder {part} below {} is given twice", remote.address()),
                "give each folder once",
            ));
        }
        let text = remote.get(&format!("{part}/{}", Index::FILE_NAME), Index::MAX_BYTES)?;
        let located = |error: Error| {
            error.in_dataset(format!("{}/{part}", remote.address().trim_end_matches('/')))
        };
        for shard in Index::parse_with(&text, OPTIONS).map_err(located)?.shards {
            let shard = shard.below(part).map_err(located)?;
            let name = shard.raw_data.basename.clone();
            if let Some(other) = owners.insert(name, part).filter(|&other| other != part) {
                return Err(Error::invalid(
                    format!(
                        "the folders {other} and {part} below {} both list the shard {}",
                        remote.address(),
                        shard.raw_data.basename
                    ),
                    "give one of them",
                ));
            }
            index.shards.push(shard);
        }
    }
    if index.shards.is_empty() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the folders below {} hold no shards", remote.address()),
            "write samples to them first, or choose other folders",
        ));
    }
    Ok(index)
}

fn publish(remote: &Remote, index: &Index) -> Result<Index> {
    // Parsing it again finds what only the whole can have wrong.
    let text = index.to_merged_json();
    let index = Index::parse_with(text.as_bytes(), OPTIONS)
        .map_err(|error| error.in_dataset(remote.address()))?;
    remote.put(Index::FILE_NAME, text)?;
    Ok(index)
}

/// Shards that no index lists are those of a writer that has not finished, of a part whose index was
/// lost, or of a dataset that came to a merged part later. The reference leaves the first two out and
/// says nothing.
fn refuse_left_out(remote: &Remote, parts: &[String], index: &Index) -> Result<()> {
    let folder_of = |shard: &ShardInfo| {
        shard.raw_data.basename.as_str().rsplit_once('/').map(|(folder, _)| folder.to_owned())
    };
    let listed: HashSet<String> = index.shards.iter().filter_map(folder_of).collect();
    // What is hidden is not meant.
    let is_hidden = |folder: &str| folder.split('/').any(|name| name.starts_with('.'));
    let folders = remote.folders_holding(&is_shard)?;
    let Some(folder) = folders.iter().find(|&f| !is_hidden(f) && !listed.contains(f)) else {
        return Ok(());
    };
    let is_of = |part: &&String| {
        folder.strip_prefix(part.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'))
    };
    let what = format!("the folder {folder} below {} has shards", remote.address());
    let (what, remedy) = match parts.iter().find(is_of) {
        Some(part) => (
            format!("{what} that the index.json of {part} does not list"),
            "merge that part again, or move those shards elsewhere; or name the parts to merge",
        ),
        None => (
            format!("{what} but no index.json"),
            "write or fetch that part again, or move it elsewhere; or name the parts to merge",
        ),
    };
    Err(Error::new(ErrorKind::NotFound, what, remedy))
}

/// Whether a file is called as writers call shards: `shard.00017.mds`.
fn is_shard(name: &str) -> bool {
    let number = name.strip_prefix("shard.").and_then(|rest| rest.split_once('.'));
    number.is_some_and(|(number, _)| {
        number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// An index that lists shards beside itself is not a merged one: writing over it would lose them.
fn refuse_shards_of_its_own(remote: &Remote) -> Result<()> {
    let text = match remote.get(Index::FILE_NAME, Index::MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let index = Index::parse_with(&text, OPTIONS).map_err(|unreadable| {
        Error::new(
            ErrorKind::AlreadyExists,
            format!("{} has an index.json that cannot be read", remote.address()),
            "remove it if it was merged of the folders below; else it may be all that knows of \
             shards beside it",
        )
        .with_source(unreadable)
    })?;
    if index.shards.iter().all(|shard| shard.raw_data.basename.as_str().contains('/')) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("{} holds a dataset of its own", remote.address()),
        "give the folder above it, or move its shards and its index into a folder below",
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::{Encoding, Schema};
    use crate::{Writer, WriterOptions};

    fn write(folder: &Path, ids: std::ops::Range<i64>) {
        let schema = Schema::new([("id", Encoding::Int)]).unwrap();
        let mut writer = Writer::create(folder, schema, WriterOptions::default()).unwrap();
        ids.for_each(|id| writer.write(&[id.into()]).unwrap());
        writer.finish().unwrap();
    }

    fn merged(root: &Path) -> Result<Index> {
        merge_index(root.to_str().unwrap(), RemoteOptions::default())
    }

    fn names(index: &Index) -> Vec<&str> {
        index.shards.iter().map(|shard| shard.raw_data.basename.as_str()).collect()
    }

    #[test]
    fn folders_are_merged_in_order_at_any_depth_and_again() {
        let root = tempfile::tempdir().unwrap();
        for (folder, ids) in [("b", 0..2), ("a/2", 2..3), ("a/10", 3..5)] {
            write(&root.path().join(folder), ids);
        }
        std::fs::create_dir(root.path().join("empty")).unwrap();
        let expected = ["a/10/shard.00000.mds", "a/2/shard.00000.mds", "b/shard.00000.mds"];
        for _ in 0..2 {
            let index = merged(root.path()).unwrap();
            assert_eq!(names(&index), expected);
            let text = std::fs::read_to_string(root.path().join("index.json")).unwrap();
            assert_eq!(text, index.to_merged_json());
        }
        // A part that was merged itself counts once.
        merged(&root.path().join("a")).unwrap();
        assert_eq!(names(&merged(root.path()).unwrap()), expected);
        let some = merge_parts(root.path().to_str().unwrap(), &["b/", "a/2"], Default::default());
        assert_eq!(names(&some.unwrap()), ["b/shard.00000.mds", "a/2/shard.00000.mds"]);
    }

    #[test]
    fn shards_without_an_index_are_not_left_out_in_silence() {
        let root = tempfile::tempdir().unwrap();
        let shown = root.path().display().to_string();
        for (folder, ids) in [("a", 0..2), ("b/c", 2..3)] {
            write(&root.path().join(folder), ids);
        }
        merged(root.path()).unwrap();
        let before = std::fs::read(root.path().join("index.json")).unwrap();
        std::fs::remove_file(root.path().join("b/c/index.json")).unwrap();
        let error = merged(root.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.to_string(),
            format!(
                "the folder b/c below {shown} has shards but no index.json; write or fetch that part \
                 again, or move it elsewhere; or name the parts to merge"
            )
        );
        assert_eq!(std::fs::read(root.path().join("index.json")).unwrap(), before);
        // Parts that are named are all that are meant, and so is what is not hidden.
        let some = merge_parts(&shown, &["a"], Default::default()).unwrap();
        assert_eq!(names(&some), ["a/shard.00000.mds"]);
        std::fs::rename(root.path().join("b"), root.path().join(".b")).unwrap();
        assert_eq!(names(&merged(root.path()).unwrap()), ["a/shard.00000.mds"]);
        // An index above them tells all.
        std::fs::rename(root.path().join(".b"), root.path().join("b")).unwrap();
        std::fs::remove_file(root.path().join("index.json")).unwrap();
        write(&root.path().join("d/e"), 3..5);
        merged(&root.path().join("d")).unwrap();
        std::fs::remove_file(root.path().join("d/e/index.json")).unwrap();
        std::fs::remove_dir_all(root.path().join("b")).unwrap();
        assert_eq!(
            names(&merged(root.path()).unwrap()),
            ["a/shard.00000.mds", "d/e/shard.00000.mds"]
        );
    }

    #[test]
    fn datasets_below_a_part_are_not_left_out_in_silence() {
        let root = tempfile::tempdir().unwrap();
        let shown = root.path().display().to_string();
        for (folder, ids) in [("g/a", 0..2), ("g/b", 2..3)] {
            write(&root.path().join(folder), ids);
        }
        merged(&root.path().join("g")).unwrap();
        // Written after its part was merged.
        write(&root.path().join("g/c"), 3..5);
        let remedy =
            "merge that part again, or move those shards elsewhere; or name the parts to merge";
        let error = merged(root.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.to_string(),
            format!(
                "the folder g/c below {shown} has shards that the index.json of g does not list; \
                 {remedy}"
            )
        );
        assert!(!root.path().join("index.json").exists());
        merged(&root.path().join("g")).unwrap();
        assert_eq!(merged(root.path()).unwrap().samples(), 5);
        // A dataset within another one.
        write(&root.path().join("g/b/d"), 5..6);
        assert_eq!(
            merged(root.path()).unwrap_err().to_string(),
            format!(
                "the folder g/b/d below {shown} has shards that the index.json of g does not list; \
                 {remedy}"
            )
        );
        let parts = ["g/a", "g/b", "g/b/d", "g/c"];
        assert_eq!(merge_parts(&shown, &parts, Default::default()).unwrap().samples(), 6);
    }

    #[test]
    fn parts_that_hold_the_same_shards_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let shown = root.path().display().to_string();
        write(&root.path().join("a/b"), 0..2);
        merged(&root.path().join("a")).unwrap();
        for (parts, expected) in [
            (["a", "a/"], "the folder a below ROOT is given twice; give each folder once"),
            (
                ["a", "a/b"],
                "the folders a and a/b below ROOT both list the shard a/b/shard.00000.mds; give one \
                 of them",
            ),
        ] {
            let error = merge_parts(&shown, &parts, Default::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert_eq!(error.to_string(), expected.replace("ROOT", &shown));
        }
        assert!(!root.path().join("index.json").exists());
    }

    #[test]
    fn what_cannot_be_merged_is_refused_and_nothing_changes() {
        let root = tempfile::tempdir().unwrap();
        let shown = root.path().display().to_string();
        assert_eq!(
            merged(root.path()).unwrap_err().to_string(),
            format!(
                "no folder below {shown} has an index.json; give the folder that holds the parts \
                 of the dataset, each in a folder of its own"
            )
        );
        write(&root.path().join("empty"), 0..0);
        assert_eq!(
            merged(root.path()).unwrap_err().to_string(),
            format!(
                "the folders below {shown} hold no shards; write samples to them first, or choose \
                 other folders"
            )
        );
        write(&root.path().join("a"), 0..2);
        let error = merge_parts(&shown, &["../x"], Default::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "\"../x\" is not a folder below {shown}; give relative paths such as 00000 or a/b"
            )
        );
        assert!(!root.path().join("index.json").exists());
        std::fs::write(root.path().join("a/index.json"), "{").unwrap();
        let error = merged(root.path()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("dataset {shown}/a: the index is")));

        // Nobody knows whether this one lists shards beside itself.
        std::fs::remove_dir_all(root.path().join("a")).unwrap();
        write(&root.path().join("a"), 0..2);
        std::fs::write(root.path().join("index.json"), "{").unwrap();
        let error = merged(root.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            error.to_string(),
            format!(
                "{shown} has an index.json that cannot be read; remove it if it was merged of the \
                 folders below; else it may be all that knows of shards beside it"
            )
        );
        assert_eq!(std::fs::read(root.path().join("index.json")).unwrap(), b"{");

        let own = tempfile::tempdir().unwrap();
        write(&own.path().join("x"), 0..1);
        write(&own.path().join("x/y"), 1..2);
        let shown = own.path().join("x").display().to_string();
        assert_eq!(
            merged(&own.path().join("x")).unwrap_err().to_string(),
            format!(
                "{shown} holds a dataset of its own; give the folder above it, or move its shards \
                 and its index into a folder below"
            )
        );
    }
}
