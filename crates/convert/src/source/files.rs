//! Sources on this machine: a file, a folder or a glob pattern.

use std::path::{Path, PathBuf};

use super::{HUB_FOLDER, Packing, Place, SourceFile, Split};
use crate::error::{Error, ErrorKind, Result};

const KINDS: &str = ".json, .jsonl, .json.gz, .jsonl.gz or .zst";

/// What [`super::files_of_split`] does where there is a source.
pub(super) fn of_split(source: &str, split: Split, alone: bool) -> Result<Vec<SourceFile>> {
    let (paths, shown) = (candidates(source)?, mds::redacted(source));
    let split_of = |path: &PathBuf| Split::of_hub_name(&name_of(path));
    let chosen: Vec<PathBuf> =
        if paths.iter().any(|path| split_of(path).is_some()) && !(alone && paths.len() == 1) {
            paths.into_iter().filter(|path| split_of(path) == Some(split)).collect()
        } else if alone {
            paths
        } else {
            return Err(Error::invalid(
                format!("nothing in the file names of {shown} tells one split from another"),
                format!(
                    "name one split, such as --splits {split}, and convert each from its own files"
                ),
            ));
        };
    if chosen.is_empty() {
        let what = format!("{shown} holds no file of split {split} ({}*)", split.hub_prefix());
        return Err(Error::new(ErrorKind::NotFound, what, "name another source or other --splits"));
    }
    chosen.into_iter().map(describe).collect()
}

/// The files of JSON lines that `source` names, in name order.
fn candidates(source: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(source);
    if path.is_dir() {
        return in_folder(path);
    }
    if path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    // Somebody may give an address with its keys.
    let shown = mds::redacted(source);
    if mds::storage::is_address(source) {
        return Err(Error::invalid(
            format!("--source {shown} is an address, and --source takes files of this machine"),
            "copy them here and give their path, or leave --source out to read allenai/c4",
        ));
    }
    if !source.contains(['*', '?', '[']) {
        let what = format!("source {shown} not found");
        return Err(Error::new(ErrorKind::NotFound, what, "check the path"));
    }
    let pattern = glob::glob(source).map_err(|e| {
        Error::invalid(format!("--source {shown}: not a pattern: {e}"), "correct or quote it")
    })?;
    let mut paths = Vec::new();
    for entry in pattern {
        let path = entry.map_err(|e| Error::io(e.error().kind().into(), "read", e.path()))?;
        if path.is_file() && Packing::of(&name_of(&path)).is_some() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let what = format!("no file matches {shown} and ends in {KINDS}");
        return Err(Error::new(ErrorKind::NotFound, what, "check the pattern"));
    }
    paths.sort();
    Ok(paths)
}

/// The folder's files with the hub's names, or else those in its `en`, or else all of its files.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let own = list(folder)?;
    let nested = folder.join(HUB_FOLDER);
    let nested = if nested.is_dir() { list(&nested)? } else { Vec::new() };
    for paths in [&own, &nested] {
        let hub: Vec<PathBuf> = paths
            .iter()
            .filter(|path| Split::of_hub_name(&name_of(path)).is_some())
            .cloned()
            .collect();
        if !hub.is_empty() {
            return Ok(hub);
        }
    }
    if own.is_empty() {
        let what = format!("folder {} holds no file that ends in {KINDS}", folder.display());
        return Err(Error::new(ErrorKind::NotFound, what, "check the path"));
    }
    Ok(own)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(e, "list", folder);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && Packing::of(&name_of(&path)).is_some() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn describe(path: PathBuf) -> Result<SourceFile> {
    let packing = Packing::of(&name_of(&path)).ok_or_else(|| {
        let what = format!("{} is not a kind of file that can be read", path.display());
        Error::invalid(what, format!("give it a name that ends in {KINDS}"))
    })?;
    let metadata = std::fs::metadata(&path).map_err(|e| Error::io(e, "open", &path))?;
    Ok(SourceFile {
        name: path.display().to_string(),
        bytes: metadata.len(),
        packing,
        place: Place::Local(path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn names(source: &str, split: Split, alone: bool) -> Result<Vec<String>, String> {
        let files = of_split(source, split, alone).map_err(|e| e.to_string())?;
        Ok(files.iter().map(|f| f.name.rsplit('/').next().unwrap().to_owned()).collect())
    }

    #[test]
    fn a_split_picks_its_own_files_with_or_without_en() {
        for prefix in ["", "en/"] {
            let files =
                ["c4-train.1.json.gz", "c4-train.0.json.gz", "c4-validation.0.json.gz", "x.json"];
            let files: Vec<String> = files.iter().map(|f| format!("{prefix}{f}")).collect();
            let dir = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
            let source = dir.path().to_str().unwrap();
            let train = names(source, Split::Train, false).unwrap();
            assert_eq!(train, ["c4-train.0.json.gz", "c4-train.1.json.gz"]);
            assert_eq!(names(source, Split::Val, true).unwrap(), ["c4-validation.0.json.gz"]);
            let pattern = format!("{source}/{prefix}*.json*");
            assert_eq!(names(&pattern, Split::Train, true).unwrap(), train);
        }
    }

    #[test]
    fn other_names_are_all_taken_but_for_one_split_only() {
        let dir = folder(&["b.jsonl", "a.json", "c.jsonl.zst", "notes.txt", "sub/d.json"]);
        let source = dir.path().to_str().unwrap();
        assert_eq!(names(source, Split::Val, true).unwrap(), ["a.json", "b.jsonl", "c.jsonl.zst"]);
        assert_eq!(
            names(source, Split::Train, false).unwrap_err(),
            format!(
                "nothing in the file names of {source} tells one split from another; name one \
                 split, such as --splits train, and convert each from its own files"
            )
        );
    }

    #[test]
    fn a_file_named_by_itself_is_taken_for_any_one_split() {
        let dir = folder(&["c4-train.0.json.gz", "a.txt"]);
        let file = dir.path().join("c4-train.0.json.gz");
        assert_eq!(names(file.to_str().unwrap(), Split::Val, true).unwrap().len(), 1);
        let text = dir.path().join("a.txt");
        assert_eq!(
            names(text.to_str().unwrap(), Split::Val, true).unwrap_err(),
            format!(
                "{} is not a kind of file that can be read; give it a name that ends in \
                 .json, .jsonl, .json.gz, .jsonl.gz or .zst",
                text.display()
            )
        );
    }

    #[test]
    fn a_source_without_files_is_named_with_a_remedy() {
        let dir = folder(&["c4-train.0.json.gz", "c4-train.1.json.gz", "empty/x.txt"]);
        let source = dir.path().to_str().unwrap();
        assert_eq!(
            names(source, Split::Val, true).unwrap_err(),
            format!(
                "{source} holds no file of split val (c4-validation.*); name another source or \
                 other --splits"
            )
        );
        assert_eq!(
            names(&format!("{source}/empty"), Split::Val, true).unwrap_err(),
            format!(
                "folder {source}/empty holds no file that ends in .json, .jsonl, .json.gz, \
                 .jsonl.gz or .zst; check the path"
            )
        );
        assert_eq!(
            names(&format!("{source}/no"), Split::Val, true).unwrap_err(),
            format!("source {source}/no not found; check the path")
        );
        for (address, shown) in [
            ("s3://me:pw@b/c4?secret_access_key=x", "s3://b/c4"),
            ("s3:/b/c4?secret_access_key=x", "s3:/b/c4"),
            ("dbfs:/x", "dbfs:/x"),
        ] {
            assert_eq!(
                names(address, Split::Val, true).unwrap_err(),
                format!(
                    "--source {shown} is an address, and --source takes files of this machine; \
                     copy them here and give their path, or leave --source out to read allenai/c4"
                )
            );
        }
        assert_eq!(
            names(&format!("{source}/*.jsonl"), Split::Val, true).unwrap_err(),
            format!(
                "no file matches {source}/*.jsonl and ends in .json, .jsonl, .json.gz, .jsonl.gz \
                 or .zst; check the pattern"
            )
        );
    }
}
