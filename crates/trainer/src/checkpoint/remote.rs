//! Checkpoints at a remote: written on this machine first, then uploaded, the file that makes them complete last.
//!
//! No lock can be held at a bucket that a killed run would give back. So a run leaves its mark there (`.run`) when it
//! begins, and looks before each save whether it is still its own: of two runs with one save folder the one that began
//! later goes on, and the other stops. What the mark is also says whether a checkpoint that never arrived, and is still
//! on this machine, is the continuation of what lies there.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use mds::storage::Remote;
use mds::{ErrorKind, UserCache};

use super::folder::{self, CheckpointFolder};
use super::place::{Position, position};
use super::state::FileRecord;
use super::{
    Checkpoint, Found, LATEST, MODEL_FILE, OPTIMIZER_FILE, Place, STATE_FILE, State, occupied,
};
use crate::error::{Error, Result};

/// The mark of the run that saves here, at the remote and on this machine.
const MARK: &str = ".run";
/// Written and deleted, to see that both is allowed.
const PROBE: &str = ".probe";

/// A remote, open to be saved to.
#[derive(Debug)]
pub(super) struct RemoteFolder {
    remote: Remote,
    /// Where checkpoints are before they have arrived.
    staging: CheckpointFolder,
    /// What this run's mark says.
    mark: Vec<u8>,
    keep: Option<usize>,
    /// Checkpoints that are not this run's past, discarded once it has one of its own.
    replaced: Vec<String>,
    /// The newest one of this run: its name, and what its files of tensors are.
    newest: Option<(String, BTreeMap<String, FileRecord>)>,
}

/// A folder at the remote that is called like a checkpoint.
#[derive(Debug)]
struct Listed {
    at: Position,
    name: String,
    /// Its objects, by their names in the save folder.
    objects: Vec<String>,
}

/// Where checkpoints for `remote` are written before they are uploaded.
pub(super) fn staging(remote: &Remote) -> Result<PathBuf> {
    Ok(UserCache::open()?.outgoing(remote)?)
}

/// The complete checkpoints at `remote`, oldest first.
pub(super) fn complete(remote: &Remote) -> Result<Vec<Place>> {
    let listed = list(remote)?.into_iter().filter(Listed::is_complete);
    listed.map(|listed| Ok(Place::Remote(remote.below(&listed.name)?))).collect()
}

/// The same with those that are still on this machine, if they continue what is there.
pub(super) fn with_unsent(remote: &Remote) -> Result<Vec<Place>> {
    let mut places = complete(remote)?;
    let staging = staging(remote)?;
    let mark = mark_in(&staging)?;
    if mark.is_some() && mark == mark_at(remote)? {
        folder::restore_replaced(&staging)?;
        places.extend(folder::list(&staging)?.into_iter().map(|(_, path)| Place::Folder(path)));
        // Stable: of two at one position the one on this machine is the later.
        places.sort_by_key(Place::position);
    }
    Ok(places)
}

impl RemoteFolder {
    /// As [`SaveFolder::open`](super::SaveFolder::open).
    pub(super) fn open(
        remote: &Remote,
        keep: Option<usize>,
        overwrite: bool,
        continues: Option<&Found>,
    ) -> Result<Self> {
        let path = staging(remote)?;
        let staging = CheckpointFolder::staging(&path, remote.address())?;
        let past = continues.and_then(|found| found.place.position());
        let replaced: Vec<String> = list(remote)?
            .into_iter()
            .filter(|listed| Some(listed.at) > past && listed.is_complete())
            .map(|listed| listed.name)
            .collect();
        if let (Some(newest), false) = (replaced.last(), overwrite) {
            return Err(occupied(&format!("{}/{newest}", remote.address())));
        }
        let mark = mark_in(&path)?.unwrap_or_default();
        let mut folder =
            Self { remote: remote.clone(), staging, mark, keep, replaced, newest: None };
        if let Some(Found { place, checkpoint, .. }) = continues
            && let Some(name) = place.name()
        {
            match place {
                Place::Remote(_) => folder.newest = Some((name, checkpoint.state.files.clone())),
                // It never arrived, and still may.
                Place::Folder(path) => folder.send(&name, path)?,
            }
        }
        folder.leave_mark()?;
        Ok(folder)
    }

    /// As [`SaveFolder::save`](super::SaveFolder::save).
    pub(super) fn save(&mut self, checkpoint: &Checkpoint) -> Result<String> {
        let path = self.staging.save(checkpoint)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.send(&name, &path)?;
        self.discard(&name).map_err(|error| {
            let address = self.remote.address();
            Error::Checkpoint(format!(
                "the checkpoint `{address}/{name}` is saved, but older ones could not be removed: {error}"
            ))
        })?;
        Ok(format!("{}/{name}", self.remote.address().trim_end_matches('/')))
    }

    /// Uploads the checkpoint `name`, which lies in `path`, and removes it here.
    fn send(&mut self, name: &str, path: &Path) -> Result<()> {
        let state = State::read(&Place::Folder(path.to_owned()))?;
        let arrived = self.is_own().and_then(|own| match own {
            true => self.upload(name, path, &state).map(|()| true),
            false => Ok(false),
        });
        match arrived {
            Ok(true) => self.staging.remove(path),
            Ok(false) => Err(Error::Checkpoint(format!(
                "save_folder `{}` was taken over by a run that began later, so this one ends; its checkpoint {name} is \
                 in `{}`: to go on, give it another save_folder and load_path={1}",
                self.remote.address(),
                path.display()
            ))),
            Err(source) => Err(Error::Upload {
                what: format!("the checkpoint {name}"),
                address: self.remote.address().to_owned(),
                kept: path.to_owned(),
                then: "; on this machine autoresume=true uploads it and continues from it",
                source: Box::new(source),
            }),
        }
    }

    fn upload(&mut self, name: &str, path: &Path, state: &State) -> mds::Result<()> {
        let at_remote = |file: &str| format!("{name}/{file}");
        let newest = Some((name.to_owned(), state.files.clone()));
        // One that is saved again without another step has the same tensors: then it is whole at every instant.
        if newest != self.newest {
            if self.remote.size(&at_remote(STATE_FILE))?.is_some() {
                self.remote.delete(&at_remote(STATE_FILE))?;
            }
            for file in [MODEL_FILE, OPTIMIZER_FILE] {
                self.remote.put_file(&at_remote(file), &path.join(file))?;
            }
        }
        self.remote.put_file(&at_remote(STATE_FILE), &path.join(STATE_FILE))?;
        self.newest = newest;
        self.remote.put(LATEST, format!("{name}\n"))
    }

    /// Removes replaced, surplus and incomplete checkpoints, but never `newest`.
    fn discard(&mut self, newest: &str) -> mds::Result<()> {
        let replaced = std::mem::take(&mut self.replaced);
        let mut kept = 0;
        for listed in list(&self.remote)?.into_iter().rev() {
            let surplus = self.keep.is_some_and(|keep| kept >= keep);
            if listed.name == newest {
                kept += 1;
            } else if replaced.contains(&listed.name) || !listed.is_complete() || surplus {
                self.remove(&listed)?;
            } else {
                kept += 1;
            }
        }
        Ok(())
    }

    /// Removes a checkpoint, the file that makes it complete first.
    fn remove(&self, listed: &Listed) -> mds::Result<()> {
        let (state, tensors): (Vec<&String>, Vec<&String>) =
            listed.objects.iter().partition(|object| object.ends_with(STATE_FILE));
        state.into_iter().chain(tensors).try_for_each(|object| self.remote.delete(object))
    }

    /// Whether no other run has begun to save here.
    fn is_own(&self) -> mds::Result<bool> {
        Ok(mark_at(&self.remote)?.is_none_or(|mark| mark == self.mark))
    }

    /// Makes the remote this run's own, which shows that it can be written.
    fn leave_mark(&mut self) -> Result<()> {
        // The standard library's keys for hash maps are random, and that is random enough.
        let random = || RandomState::new().hash_one(std::process::id());
        self.mark = format!("{:016x}{:016x}\n", random(), random()).into_bytes();
        let path = self.staging.path().join(MARK);
        mds::durable::replace(&path, &self.mark).map_err(Error::io("write", &path))?;
        let deletes = self.keep.is_some() || !self.replaced.is_empty();
        let probe = || {
            self.remote.put(MARK, self.mark.clone())?;
            if let Some((newest, _)) = &self.newest {
                // A run that died may have come just to here.
                self.remote.put(LATEST, format!("{newest}\n"))?;
            }
            if deletes {
                self.remote.put(PROBE, "")?;
                self.remote.delete(PROBE)?;
            }
            Ok(())
        };
        probe().map_err(|error: mds::Error| {
            let address = self.remote.address();
            Error::Checkpoint(format!("save_folder `{address}` cannot be saved to: {error}"))
        })
    }
}

impl Listed {
    fn is_complete(&self) -> bool {
        let state = format!("{}/{STATE_FILE}", self.name);
        self.objects.contains(&state)
    }
}

/// What lies at `remote` and is called like a checkpoint, oldest first.
fn list(remote: &Remote) -> mds::Result<Vec<Listed>> {
    let mut found: BTreeMap<(Position, String), Vec<String>> = BTreeMap::new();
    for object in remote.objects()? {
        let Some((name, _)) = object.split_once('/') else { continue };
        let Some(at) = position(name) else { continue };
        found.entry((at, name.to_owned())).or_default().push(object);
    }
    Ok(found.into_iter().map(|((at, name), objects)| Listed { at, name, objects }).collect())
}

fn mark_at(remote: &Remote) -> mds::Result<Option<Vec<u8>>> {
    match remote.get(MARK, 1000) {
        Ok(mark) => Ok(Some(mark)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn mark_in(staging: &Path) -> Result<Option<Vec<u8>>> {
    let path = staging.join(MARK);
    match std::fs::read(&path) {
        Ok(mark) => Ok(Some(mark)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}
