//! Where a dataset goes: a folder, a remote, or both.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::format::{Index, ShardInfo};
use crate::scratch::ScratchFolder;
use crate::storage::{Remote, RemoteOptions, Stop, is_address, redacted};
use crate::{Error, ErrorKind, Result};

/// Where a [`Writer`](super::Writer) puts its dataset.
///
/// A path is [`Local`](Self::Local); a text is [`Remote`](Self::Remote) if it reads
/// `scheme://...` or begins as the addresses do that only other tools write (`dbfs:/...`) or that
/// lack a slash (`s3:/...`), which [`Remote::open`] refuses by name; else `Local`. `Debug` shows addresses without their options.
#[derive(Clone, PartialEq, Eq)]
pub enum Output {
    /// A folder of this machine, created with its parents.
    Local(PathBuf),
    /// An address as in [`Remote::open`]. Each shard waits in a private temporary folder until it
    /// is uploaded.
    Remote(String),
    /// A folder of this machine, and an upload of every file in it.
    Both {
        /// The folder.
        local: PathBuf,
        /// The address.
        remote: String,
    },
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(local) => f.debug_tuple("Local").field(local).finish(),
            Self::Remote(remote) => f.debug_tuple("Remote").field(&redacted(remote)).finish(),
            Self::Both { local, remote } => {
                let mut shown = f.debug_struct("Both");
                shown.field("local", local).field("remote", &redacted(remote)).finish()
            }
        }
    }
}

impl From<PathBuf> for Output {
    fn from(path: PathBuf) -> Self {
        Self::Local(path)
    }
}

impl From<&PathBuf> for Output {
    fn from(path: &PathBuf) -> Self {
        Self::Local(path.clone())
    }
}

impl From<&Path> for Output {
    fn from(path: &Path) -> Self {
        Self::Local(path.to_path_buf())
    }
}

impl From<String> for Output {
    fn from(address: String) -> Self {
        if is_address(&address) { Self::Remote(address) } else { Self::Local(address.into()) }
    }
}

impl From<&str> for Output {
    fn from(address: &str) -> Self {
        Self::from(address.to_owned())
    }
}

/// An [`Output`] made ready.
#[derive(Debug)]
pub(super) struct Place {
    /// Where shards are written: the final folder or a temporary one.
    pub(super) folder: PathBuf,
    /// The outermost directory that was created, if any.
    created: Option<PathBuf>,
    /// The temporary folder, removed when this is dropped.
    staging: Option<ScratchFolder>,
    pub(super) remote: Option<Remote>,
}

impl Place {
    /// For a new dataset: a folder that is empty, a remote without an index.
    pub(super) fn create(output: Output, options: &RemoteOptions) -> Result<Self> {
        let (local, remote) = split(output, options)?;
        if let Some(remote) = &remote
            && remote.known_size(Index::FILE_NAME)?.is_some()
        {
            return Err(holds_a_dataset(remote));
        }
        match local {
            Some(folder) => {
                let created = prepare_directory(&folder)?;
                Ok(Self { folder, created, staging: None, remote })
            }
            None => {
                let staging = ScratchFolder::create("mds-uploading-").map_err(|e| {
                    Error::io(e, "cannot create a temporary folder for the shards to upload")
                })?;
                let folder = staging.path().to_path_buf();
                Ok(Self { folder, created: None, staging: Some(staging), remote })
            }
        }
    }

    /// For a dataset that was begun before in a folder of this machine.
    pub(super) fn resume(output: Output, options: &RemoteOptions) -> Result<Self> {
        let (local, remote) = split(output, options)?;
        let Some(folder) = local else {
            return Err(Error::invalid(
                "a dataset that goes to a remote alone cannot be resumed without the entries of its \
                 shards",
                "keep them (complete_shards) and use resume_after, write to a local folder too, or \
                 write the dataset again",
            ));
        };
        if folder.join(Index::FILE_NAME).exists() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the dataset {} is complete", folder.display()),
                "read it, or choose another folder for a new one",
            ));
        }
        let created = durable::create_directory(&folder).map_err(|e| cannot_use(e, &folder))?;
        Ok(Self { folder, created, staging: None, remote })
    }

    /// Whether the shards stay in a folder of this machine.
    pub(super) fn is_local(&self) -> bool {
        self.staging.is_none()
    }

    /// What the dataset is called in messages.
    pub(super) fn shown(&self) -> String {
        match &self.remote {
            Some(remote) if !self.is_local() => remote.address().to_owned(),
            _ => self.folder.display().to_string(),
        }
    }

    /// Puts the index in place, which makes the shards a dataset: at the remote first, so that a
    /// folder with an index says that all is done.
    pub(super) fn publish_index(&self, index: &Index, stop: &Stop) -> Result<()> {
        let text = index.to_json();
        if let Some(remote) = &self.remote {
            check_uploads(remote, index, stop)?;
            let put = remote.put_new_until(Index::FILE_NAME, text.clone().into(), stop);
            let is_there = put.map_err(|error| {
                self.with_what_is_where(error, "all shards and perhaps the index")
            })?;
            if !is_there {
                return Err(holds_a_dataset(remote));
            }
        }
        if !self.is_local() {
            return Ok(());
        }
        self.publish_index_here(&text)
            .map_err(|error| self.with_what_is_where(error, "the whole dataset"))
    }

    fn publish_index_here(&self, text: &str) -> Result<()> {
        durable::write(&self.folder.join(Index::FILE_NAME), text.as_bytes())?;
        // Make the new directories themselves last, not only what is in them.
        let synced =
            self.created.as_ref().map(|created| durable::sync_created(&self.folder, created));
        synced.unwrap_or(Ok(())).map_err(|error| {
            Error::io(error, format!("cannot complete the directory {}", self.folder.display()))
        })
    }

    /// Whether the same shards go to a folder of this machine and to a remote.
    pub(super) fn is_both(&self) -> bool {
        self.is_local() && self.remote.is_some()
    }

    /// Says how far a dataset at two places is whose index could not be written.
    fn with_what_is_where(&self, error: Error, there: &str) -> Error {
        match &self.remote {
            Some(remote) if self.is_local() => error.within(format!(
                "the remote {} has {there}, and {} all shards without an index, from which the \
                 writer can be resumed",
                remote.address(),
                self.folder.display()
            )),
            _ => error,
        }
    }

    /// Removes the index, if there is one.
    pub(super) fn remove_index(&self) {
        let _ = fs::remove_file(self.folder.join(Index::FILE_NAME));
    }

    /// Removes the directories that were created, if nobody has put anything there.
    pub(super) fn remove_directories(&self) {
        let Some(created) = &self.created else { return };
        for directory in self.folder.ancestors() {
            if fs::remove_dir(directory).is_err() || directory == created {
                return;
            }
        }
    }
}

pub(super) fn holds_a_dataset(remote: &Remote) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("the remote {} holds a dataset", remote.address()),
        "choose another one, or delete it first if its data may go",
    )
}

/// Compares the sizes of the shards at a remote with the index, where the remote can tell them:
/// another program may have written over them.
fn check_uploads(remote: &Remote, index: &Index, stop: &Stop) -> Result<()> {
    let listed = match remote.folder() {
        // What else lies in the folder does not matter.
        Some(_) => None,
        None if !remote.can_list() => return Ok(()),
        None => match remote.sizes_until(stop) {
            // Who may write need not be allowed to list.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
            sizes => Some(sizes?),
        },
    };
    for file in index.shards.iter().flat_map(ShardInfo::files).map(|file| file.stored()) {
        let name = &file.basename;
        let found = match &listed {
            Some(sizes) => sizes.get(name.as_str()).copied(),
            None => remote.size(name.as_str())?,
        };
        if found != Some(file.bytes) {
            let found = found.map_or("nothing".to_owned(), |bytes| format!("{bytes} bytes"));
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "the remote {} has {found} where {} bytes were uploaded",
                    remote.address(),
                    file.bytes
                ),
                "another program has written there too: write to another address",
            )
            .in_shard(name));
        }
    }
    Ok(())
}

fn split(output: Output, options: &RemoteOptions) -> Result<(Option<PathBuf>, Option<Remote>)> {
    let open = |address: String| Remote::open(&address, options.clone());
    Ok(match output {
        Output::Local(folder) => (Some(folder), None),
        Output::Remote(address) => (None, Some(open(address)?)),
        Output::Both { local, remote } => (Some(local), Some(open(remote)?)),
    })
}

/// Makes sure that `dir` is an empty directory. Returns the outermost directory that it created.
fn prepare_directory(dir: &Path) -> Result<Option<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(None),
            Some(_) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the directory {} is not empty", dir.display()),
                "choose another one, or delete it first if its data may go",
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            durable::create_directory(dir).map_err(|error| cannot_use(error, dir))
        }
        Err(error) => Err(cannot_use(error, dir)),
    }
}

fn cannot_use(error: io::Error, dir: &Path) -> Error {
    Error::io(error, format!("cannot use the directory {}", dir.display()))
}
