//! Checkpoints at a remote: written on this machine first, then uploaded, the file that makes them complete last.
//!
//! The [mark](Mark) of the run says whether the remote is still its own, and also whether a checkpoint that never
//! arrived, and is still on this machine, is the continuation of what lies there. One that is not, or that belongs to a
//! run which was taken over, is set aside: nothing but an arrival removes a copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mds::UserCache;
use mds::storage::Remote;

use super::folder::{self, CheckpointFolder};
use super::place::{Position, position};
use super::state::FileRecord;
use super::{
    Found, LATEST, MODEL_FILE, Mark, OPTIMIZER_FILE, Place, STATE_FILE, Snapshot, State, occupied,
};
use crate::error::{Error, Result};

/// Written and deleted, to see that both is allowed.
const PROBE: &str = ".probe";

/// A remote, open to be saved to.
#[derive(Debug)]
pub(super) struct RemoteFolder {
    remote: Remote,
    /// Where checkpoints are before they have arrived.
    staging: CheckpointFolder,
    /// This run's; until it has left it, that of the run before on this machine.
    mark: Option<Mark>,
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
    let mark = Mark::here(&staging)?;
    if mark.is_some() && mark == Mark::at(remote)? {
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
        let mark = Mark::here(&path)?;
        let mut folder =
            Self { remote: remote.clone(), staging, mark, keep, replaced, newest: None };
        folder.set_aside_all_but(continues)?;
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

    /// Keeps what never arrived, and is not what this run continues, from being taken for this run's.
    fn set_aside_all_but(&self, continues: Option<&Found>) -> Result<()> {
        let continued = match continues.map(|found| &found.place) {
            Some(Place::Folder(path)) => path.file_name(),
            _ => None,
        };
        for (_, path) in folder::list(self.staging.path())? {
            let name = path.file_name();
            if name == continued {
                continue;
            }
            let aside = self.staging.set_aside(&path)?;
            tracing::warn!(
                "the checkpoint {} did not arrive at {} and is not what this run continues from; it is kept in `{}` \
                 until you remove it",
                name.unwrap_or_default().display(),
                self.remote.address(),
                aside.display()
            );
        }
        Ok(())
    }

    /// As [`SaveFolder::save`](super::SaveFolder::save).
    pub(super) fn save(&mut self, snapshot: Snapshot) -> Result<String> {
        if !self.staging.is_there()? {
            self.make_staging_again()?;
        }
        let path = self.staging.save(snapshot)?;
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

    /// For a run whose folder on this machine was removed, as with the cache that it lies in: nothing was left there.
    fn make_staging_again(&mut self) -> Result<()> {
        let path = staging(&self.remote)?;
        self.staging = CheckpointFolder::staging(&path, self.remote.address())?;
        self.mark.as_ref().map_or(Ok(()), |mark| mark.write(&path))
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
                 kept in `{}` until you remove it: to go on, give it another save_folder and load_path={1}",
                self.remote.address(),
                self.staging.set_aside(path)?.display()
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

    /// Whether no other run has begun to save here. A mark that is gone is left anew: nobody else's is there, and whoever
    /// removed it has most likely removed the checkpoints with it.
    fn is_own(&mut self) -> mds::Result<bool> {
        let there = Mark::at(&self.remote)?;
        if let (Some(mark), None) = (&self.mark, &there) {
            tracing::warn!("{}", folder::removed(&self.remote.address()));
            mark.put(&self.remote)?;
            self.newest = None;
            return Ok(true);
        }
        Ok(there == self.mark)
    }

    /// Makes the remote this run's own, which shows that it can be written.
    fn leave_mark(&mut self) -> Result<()> {
        let mark = Mark::new();
        mark.write(self.staging.path())?;
        let deletes = self.keep.is_some() || !self.replaced.is_empty();
        let probe = || {
            mark.put(&self.remote)?;
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
        })?;
        self.mark = Some(mark);
        Ok(())
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
