//! Sources that are named: a file, a folder or a glob pattern, here or at a remote.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use mds::storage::is_address;

use super::{Format, HUB_FOLDER, NamedSplit, Place, SourceFile, remote};
use crate::error::{Error, ErrorKind, Result};

/// What [`super::files_of_split`] does where there is a source.
pub(super) fn of_split(source: &str, split: NamedSplit, alone: bool) -> Result<Vec<SourceFile>> {
    let (files, shown) = (candidates(source, &Format::C4)?, mds::redacted(source));
    // A file that is named itself may be any split.
    let is_named = files.len() == 1 && shown.ends_with(files[0].last_name());
    let chosen: Vec<SourceFile> =
        if files.iter().any(|file| file.split().is_some()) && !(alone && is_named) {
            files.into_iter().filter(|file| file.split() == Some(split.whole())).collect()
        } else if alone {
            files
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
    Ok(chosen)
}

/// What [`super::files_of_pile`] does.
pub(super) fn of_pile(source: &str, split: NamedSplit, alone: bool) -> Result<Vec<SourceFile>> {
    let whole = split.whole().as_str();
    // The name of a folder may look like a pattern.
    let is_folder = Path::new(source).is_dir();
    let is_file =
        !is_folder && (Format::JsonLines.kind_of(source).is_some() || source.contains(['*', '[']));
    if !is_file {
        let below = files_below(source, whole)?;
        if !below.is_empty() {
            return Ok(below);
        }
        let mut named = lines_of(source)?;
        named.retain(|file| stem_of(file) == whole);
        if !named.is_empty() {
            return Ok(named);
        }
    }
    if alone && (is_file || !tells_splits(source)?) {
        return candidates(source, &Format::JsonLines);
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!("{} has neither a folder {whole}/ nor a file {whole}.*", mds::redacted(source)),
        format!("name one split, such as --splits {split}, and convert each from its own files"),
    ))
}

/// The files of JSON lines in `source`, if there is such a thing.
fn lines_of(source: &str) -> Result<Vec<SourceFile>> {
    match candidates(source, &Format::JsonLines) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        files => files,
    }
}

/// Those in its folder `name`.
fn files_below(source: &str, name: &str) -> Result<Vec<SourceFile>> {
    let below = mds::storage::join(source, name);
    // What is not there must not be taken for a pattern.
    if Path::new(source).is_dir() && !Path::new(&below).is_dir() {
        return Ok(Vec::new());
    }
    lines_of(&below)
}

/// What comes before the first dot in the name of a file.
fn stem_of(file: &SourceFile) -> &str {
    file.last_name().split('.').next().unwrap_or_default()
}

/// Whether the files of the folder `source`, or folders in it, are called by splits of the Pile.
fn tells_splits(source: &str) -> Result<bool> {
    let own = lines_of(source)?;
    for split in [NamedSplit::Train, NamedSplit::Val, NamedSplit::Test].map(NamedSplit::as_str) {
        let is_here = own.iter().any(|file| stem_of(file) == split);
        if is_here || !files_below(source, split)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The files of a format that `source` names, in name order.
pub(super) fn candidates(source: &str, format: &Format) -> Result<Vec<SourceFile>> {
    if is_address(source) {
        let there = remote::open(source)?;
        return match there.folder() {
            Some(folder) => here(&folder.to_string_lossy(), format),
            None => remote::candidates(source, &there, format),
        };
    }
    here(source, format)
}

fn here(source: &str, format: &Format) -> Result<Vec<SourceFile>> {
    paths(source, format)?.into_iter().map(|path| describe(path, format)).collect()
}

fn paths(source: &str, format: &Format) -> Result<Vec<PathBuf>> {
    let path = Path::new(source);
    if path.is_dir() {
        return in_folder(path, format);
    }
    if path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    if let Some(bin) = bin_of(source, format) {
        return Ok(vec![bin]);
    }
    if !source.contains(['*', '?', '[']) {
        let what = format!("source {source} not found");
        return Err(Error::new(ErrorKind::NotFound, what, "check the path"));
    }
    let pattern = glob::glob(source).map_err(|e| {
        Error::invalid(format!("{source} is not a pattern: {e}"), "correct or quote it")
    })?;
    let mut paths = Vec::new();
    for entry in pattern {
        let path = entry.map_err(|e| Error::io(e.error().kind().into(), "read", e.path()))?;
        let is_meant = format.takes(&path.to_string_lossy(), source);
        if is_meant && format.kind_of(&name_of(&path)).is_some() && is_file(&path)? {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let what = format!("no file matches {source} and ends in {}", format.endings());
        return Err(Error::new(ErrorKind::NotFound, what, "check the pattern"));
    }
    paths.sort();
    Ok(paths)
}

/// Indexed datasets are called by what comes before `.bin`.
fn bin_of(prefix: &str, format: &Format) -> Option<PathBuf> {
    let bin = PathBuf::from(format!("{prefix}.bin"));
    (*format == Format::Indexed && bin.is_file()).then_some(bin)
}

/// The folder's files that are meant.
fn in_folder(folder: &Path, format: &Format) -> Result<Vec<PathBuf>> {
    let mut found = list(folder, format)?;
    if *format == Format::C4 {
        let nested = folder.join(HUB_FOLDER);
        let nested = if nested.is_dir() { list(&nested, format)? } else { Vec::new() };
        found = meant(found, nested, |path| name_of(path));
    }
    if found.is_empty() {
        let (folder, endings) = (folder.display(), format.endings());
        let what = format!("folder {folder} holds no file that ends in {endings}");
        return Err(Error::new(ErrorKind::NotFound, what, "check the path"));
    }
    Ok(found)
}

/// The files with the hub's names among a folder's own, or else among those in its `en`, or else all
/// of its own.
pub(super) fn meant<T>(own: Vec<T>, nested: Vec<T>, name: impl Fn(&T) -> String) -> Vec<T> {
    let is_of_hub = |file: &T| NamedSplit::of_hub_name(&name(file)).is_some();
    match [&own, &nested].map(|files| files.iter().any(is_of_hub)) {
        [true, _] => own.into_iter().filter(is_of_hub).collect(),
        [false, true] => nested.into_iter().filter(is_of_hub).collect(),
        [false, false] => own,
    }
}

/// The files of a format in a folder, and in those below it if the format is deep.
fn list(folder: &Path, format: &Format) -> Result<Vec<PathBuf>> {
    let mut found = Listing::default();
    found.walk(folder, format)?;
    // Folders that are there go before links to them, and none is read twice: links may lead round in a circle.
    while let Some(link) = found.links.pop_first() {
        found.walk(&link, format)?;
    }
    found.files.sort();
    Ok(found.files)
}

#[derive(Default)]
struct Listing {
    files: Vec<PathBuf>,
    /// To folders that were not walked yet.
    links: BTreeSet<PathBuf>,
    /// The folders that were walked, without links in their paths.
    seen: HashSet<PathBuf>,
}

impl Listing {
    fn walk(&mut self, folder: &Path, format: &Format) -> Result<()> {
        let failed = |e| Error::io(e, "list", folder);
        if !self.seen.insert(folder.canonicalize().map_err(failed)?) {
            return Ok(());
        }
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
            let name = name_of(&path);
            if format.leaves_out(&name) {
                continue;
            }
            let is_link = kind.is_symlink();
            if format.is_deep() && (kind.is_dir() || is_link && path.is_dir()) {
                if is_link {
                    self.links.insert(path);
                } else {
                    self.walk(&path, format)?;
                }
            } else if format.kind_of(&name).is_some() && (kind.is_file() || is_file(&path)?) {
                self.files.push(path);
            }
        }
        Ok(())
    }
}

/// Whether what a folder lists or a pattern matches is a file, and not a folder.
///
/// # Errors
/// With its name if it is neither, or a link that leads to nothing: it would be missed in silence.
pub(crate) fn is_file(path: &Path) -> Result<bool> {
    let metadata = match (std::fs::metadata(path), std::fs::read_link(path)) {
        (Err(e), Ok(target)) if e.kind() == std::io::ErrorKind::NotFound => {
            let what = format!("{} is a link to {}", path.display(), target.display());
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{what}, which is not there"),
                "mend it, or take it out",
            ));
        }
        (metadata, _) => metadata.map_err(|e| Error::io(e, "open", path))?,
    };
    if metadata.is_file() || metadata.is_dir() {
        return Ok(metadata.is_file());
    }
    Err(Error::invalid(
        format!("{} is neither a file nor a folder", path.display()),
        "take it out, or name the files that are meant",
    ))
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn describe(path: PathBuf, format: &Format) -> Result<SourceFile> {
    let kind = format.kind_of(&name_of(&path)).ok_or_else(|| {
        let what = format!("{} is not a kind of file that can be read", path.display());
        Error::invalid(what, format!("give it a name that ends in {}", format.endings()))
    })?;
    let metadata = std::fs::metadata(&path).map_err(|e| Error::io(e, "open", &path))?;
    Ok(SourceFile {
        name: path.display().to_string(),
        bytes: metadata.len(),
        version: None,
        kind,
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

    fn names(source: &str, split: NamedSplit, alone: bool) -> Result<Vec<String>, String> {
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
            let train = names(source, NamedSplit::Train, false).unwrap();
            assert_eq!(train, ["c4-train.0.json.gz", "c4-train.1.json.gz"]);
            assert_eq!(names(source, NamedSplit::Val, true).unwrap(), ["c4-validation.0.json.gz"]);
            let pattern = format!("{source}/{prefix}*.json*");
            assert_eq!(names(&pattern, NamedSplit::Train, true).unwrap(), train);
        }
    }

    #[test]
    fn other_names_are_all_taken_but_for_one_split_only() {
        let dir = folder(&["b.jsonl", "a.json", "c.jsonl.zst", "notes.txt", "sub/d.json"]);
        let source = dir.path().to_str().unwrap();
        assert_eq!(
            names(source, NamedSplit::Val, true).unwrap(),
            ["a.json", "b.jsonl", "c.jsonl.zst"]
        );
        assert_eq!(
            names(source, NamedSplit::Train, false).unwrap_err(),
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
        assert_eq!(names(file.to_str().unwrap(), NamedSplit::Val, true).unwrap().len(), 1);
        let text = dir.path().join("a.txt");
        assert_eq!(
            names(text.to_str().unwrap(), NamedSplit::Val, true).unwrap_err(),
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
            names(source, NamedSplit::Val, true).unwrap_err(),
            format!(
                "{source} holds no file of split val (c4-validation.*); name another source or \
                 other --splits"
            )
        );
        assert_eq!(
            names(&format!("{source}/empty"), NamedSplit::Val, true).unwrap_err(),
            format!(
                "folder {source}/empty holds no file that ends in .json, .jsonl, .json.gz, \
                 .jsonl.gz or .zst; check the path"
            )
        );
        assert_eq!(
            names(&format!("{source}/no"), NamedSplit::Val, true).unwrap_err(),
            format!("source {source}/no not found; check the path")
        );
        assert_eq!(
            names(&format!("{source}/*.jsonl"), NamedSplit::Val, true).unwrap_err(),
            format!(
                "no file matches {source}/*.jsonl and ends in .json, .jsonl, .json.gz, .jsonl.gz \
                 or .zst; check the pattern"
            )
        );
    }
}
