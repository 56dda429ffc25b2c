//! The files that documents are read from, on this machine or at a remote.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use mds::ScratchFolder;
use mds::storage::Remote;

use super::{KINDS, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{is_file, open_remote};

/// A file that documents are read from.
#[derive(Debug, Clone)]
pub struct InputFile {
    name: String,
    place: Place,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
enum Place {
    Local(PathBuf),
    Remote { folder: Remote, object: String, bytes: u64 },
}

impl InputFile {
    /// The file at `path` on this machine, by its name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if that is not of a kind that can be read.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let name = path.display().to_string();
        let kind = kind_of(&path).ok_or_else(|| unknown_kind(&name))?;
        Ok(Self { name, place: Place::Local(path), kind })
    }

    /// Its path, or its address without any password.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its documents are whole texts, which a [`Cut`](super::Cut) concerns.
    pub fn can_be_cut(&self) -> bool {
        self.kind.is_of_texts()
    }

    /// Opens it for reading. An archive that is not read from its beginning to its end is copied from a remote first.
    ///
    /// # Errors
    /// Failures of the disk and of the remote.
    pub(super) fn open(&self) -> Result<Opened> {
        let open = |path: &Path| File::open(path).map_err(|e| Error::io(e, "open", path));
        match &self.place {
            Place::Local(path) => Ok(Opened::File { file: open(path)?, _copy: None }),
            Place::Remote { folder, object, .. } if self.kind == Kind::Zip => {
                let copies = ScratchFolder::create("preprocess-data-")
                    .map_err(|e| Error::io(e, "create a folder in", &std::env::temp_dir()))?;
                let path = copies.path().join("copy.zip");
                folder.get_file(object, &path).map_err(Error::of_remote)?;
                Ok(Opened::File { file: open(&path)?, _copy: Some(copies) })
            }
            Place::Remote { folder, object, bytes } => {
                Ok(Opened::Object(Box::new(folder.reader(object, *bytes))))
            }
        }
    }
}

/// A file that is read.
pub(super) enum Opened {
    /// The copy of a remote file goes with its folder.
    File {
        file: File,
        _copy: Option<ScratchFolder>,
    },
    Object(Box<dyn Read>),
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File { file, .. } => file.read(buffer),
            Self::Object(object) => object.read(buffer),
        }
    }
}

impl Seek for Opened {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File { file, .. } => file.seek(to),
            Self::Object(_) => Err(io::ErrorKind::NotSeekable.into()),
        }
    }
}

/// The files that `--input` names: paths and addresses with commas between them, in this order. Of a folder these are
/// its files of kinds that can be read, by name; not those of folders in it.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no such file, [`ErrorKind::InvalidArgument`] if it is of another kind; failures of
/// the remote.
pub fn input_files(input: &str) -> Result<Vec<InputFile>> {
    let mut files = Vec::new();
    for part in input.split(',').filter(|part| !part.is_empty()) {
        let path = Path::new(part);
        if mds::storage::is_address(part) {
            files.extend(at_remote(part)?);
        } else if path.is_dir() {
            files.extend(in_folder(path)?);
        } else if path.exists() {
            files.push(InputFile::new(path)?);
        } else {
            let what = format!("--input {part} not found");
            return Err(Error::new(ErrorKind::NotFound, what, "check the path"));
        }
    }
    if files.is_empty() {
        return Err(Error::invalid(
            "--input names no file",
            "give a file, a folder or a list of them",
        ));
    }
    Ok(files)
}

fn in_folder(folder: &Path) -> Result<Vec<InputFile>> {
    let failed = |e| Error::io(e, "list", folder);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if kind_of(&path).is_some() && is_file(&path)? {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(no_files(&folder.display().to_string()));
    }
    paths.sort();
    paths.into_iter().map(InputFile::new).collect()
}

/// The object at `address`, or those of a folder of that name.
fn at_remote(address: &str) -> Result<Vec<InputFile>> {
    // The address of a bucket alone has no last name.
    let file = mds::storage::split(address).ok().filter(|(_, name)| Kind::of(name).is_some());
    if let Some((folder, name)) = file {
        let folder = open_remote(&folder)?;
        let bytes = folder.size(&name).map_err(Error::of_remote)?.ok_or_else(|| {
            let what = format!("--input {} not found", mds::redacted(address));
            Error::new(ErrorKind::NotFound, what, "check the address")
        })?;
        return Ok(vec![of_object(&folder, name, bytes)?]);
    }
    let folder = open_remote(address)?;
    if !folder.can_list() {
        return Err(unknown_kind(folder.address()));
    }
    let all = folder.sizes().map_err(Error::of_remote)?.into_iter();
    let mut objects: Vec<_> =
        all.filter(|(name, _)| !name.contains('/') && Kind::of(name).is_some()).collect();
    if objects.is_empty() {
        return Err(no_files(folder.address()));
    }
    objects.sort();
    objects.into_iter().map(|(name, bytes)| of_object(&folder, name, bytes)).collect()
}

fn of_object(folder: &Remote, object: String, bytes: u64) -> Result<InputFile> {
    let name = format!("{}/{object}", folder.address().trim_end_matches('/'));
    let kind = Kind::of(&object).ok_or_else(|| unknown_kind(&name))?;
    Ok(InputFile { name, place: Place::Remote { folder: folder.clone(), object, bytes }, kind })
}

fn kind_of(path: &Path) -> Option<Kind> {
    Kind::of(&path.file_name()?.to_string_lossy())
}

fn unknown_kind(name: &str) -> Error {
    Error::invalid(
        format!("{name} is not a kind of file that can be read"),
        format!("give it a name that ends in {KINDS}"),
    )
}

fn no_files(folder: &str) -> Error {
    let what = format!("folder {folder} holds no file that ends in {KINDS}");
    Error::new(ErrorKind::NotFound, what, "check the path")
}
