//! Where a dataset goes: a folder, a remote, or both.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::durable::{self, OutFolder};
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
    /// Where shards are written.
    pub(super) folder: PathBuf,
    holder: Holder,
    pub(super) remote: Option<Remote>,
}

/// What keeps other writers out of the folder of a [`Place`].
#[derive(Debug)]
enum Holder {
    Final(OutFolder),
    /// Removed when dropped.
    Temporary {
        _folder: ScratchFolder,
    },
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
                let holder = Holder::Final(OutFolder::create(&folder)?);
                Ok(Self { folder, holder, remote })
            }
            None => {
                let staging = ScratchFolder::create("mds-uploading-").map_err(|e| {
                    Error::io(e, "cannot create a temporary folder for the shards to upload")
                })?;
                let folder = staging.path().to_path_buf();
                Ok(Self { folder, holder: Holder::Temporary { _folder: staging }, remote })
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
        let holder = Holder::Final(OutFolder::open(&folder)?);
        Ok(Self { folder, holder, remote })
    }

    /// Whether the shards stay in a folder of this machine.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.holder, Holder::Final(_))
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
        let Holder::Final(folder) = &self.holder else { return Ok(()) };
        durable::write(&self.folder.join(Index::FILE_NAME), text.as_bytes())
            .and_then(|()| folder.sync())
            .map_err(|error| self.with_what_is_where(error, "the whole dataset"))
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
        if let Holder::Final(folder) = &self.holder {
            folder.remove_if_empty();
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
