//! Whose a folder at a remote is.
//!
//! No lock can be held at a bucket that a killed run would give back. So a run leaves its mark there when it begins, and
//! looks before each upload whether it is still its own: of two runs with one folder the one that began later goes on,
//! and the other stops.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use mds::ErrorKind;
use mds::storage::Remote;

use super::Place;
use crate::error::{Error, Result};

/// The name of the mark, at a remote and on this machine.
const MARK: &str = ".run";

/// What a run writes into the folders at remotes that it uploads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark(Vec<u8>);

impl Mark {
    /// One that no other run has.
    pub(crate) fn new() -> Self {
        // The standard library's keys for hash maps are random, and that is random enough.
        let random = || RandomState::new().hash_one(std::process::id());
        Self(format!("{:016x}{:016x}\n", random(), random()).into_bytes())
    }

    /// That of the run that began last at `remote`.
    pub(crate) fn at(remote: &Remote) -> mds::Result<Option<Self>> {
        match remote.get(MARK, 1000) {
            Ok(mark) => Ok(Some(Self(mark))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// That of the run that began last on this machine and has its copies in `folder`.
    pub(crate) fn here(folder: &Path) -> Result<Option<Self>> {
        Ok(Place::Folder(folder.to_owned()).read(MARK)?.map(Self))
    }

    /// Makes `remote` the folder of the run with this mark.
    pub(crate) fn put(&self, remote: &Remote) -> mds::Result<()> {
        remote.put(MARK, self.0.clone())
    }

    /// The same with a folder of this machine.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MARK);
        mds::durable::replace(&path, &self.0).map_err(Error::io("write", &path))
    }

    /// Whether no other run has begun at `remote` since.
    pub(crate) fn is_last_at(&self, remote: &Remote) -> mds::Result<bool> {
        Ok(Self::at(remote)?.is_none_or(|mark| mark == *self))
    }
}
