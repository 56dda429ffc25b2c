//! Checkpoints in a folder of this machine: publishing them atomically, listing them, discarding the oldest.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::place::{Position, position};
use super::{LATEST, Snapshot, occupied};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// Prefix of a checkpoint that is being written.
const WRITING: &str = ".writing-";
/// Prefix of a checkpoint that gives way to another of its name.
const REPLACED: &str = ".replaced-";
/// Prefix of a checkpoint that is being removed.
const DISCARDED: &str = ".discarded-";
/// Follows the name of a checkpoint that was not sent where it belongs and is the user's now.
const UNSENT: &str = "-unsent";

/// A folder of this machine, open to be saved to.
#[derive(Debug)]
pub(super) struct CheckpointFolder {
    path: PathBuf,
    keep: Option<usize>,
    overwrite: bool,
    /// Checkpoints that are not this run's past, discarded once it has one of its own.
    replaced: Vec<PathBuf>,
    /// The folder itself, locked as long as this run lives: two runs would sweep each other's files.
    lock: fs::File,
}

impl CheckpointFolder {
    /// As [`SaveFolder::open`](super::SaveFolder::open), for a run that has come to `past`.
    pub(super) fn open(
        path: &Path,
        keep: Option<usize>,
        overwrite: bool,
        past: Option<Position>,
    ) -> Result<Self> {
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let lock = lock(path, &path.display())?;
        let foreign: Vec<PathBuf> = list(path)?
            .into_iter()
            .filter(|(at, _)| Some(*at) > past)
            .map(|(_, path)| path)
            .collect();
        if let (Some(newest), false) = (foreign.last(), overwrite) {
            return Err(occupied(&newest.display()));
        }
        Ok(Self { path: path.to_owned(), keep, overwrite, replaced: foreign, lock })
    }

    /// The folder at `path` for checkpoints on their way to `address`. None gives way to another: what does not arrive
    /// is [set aside](Self::set_aside).
    pub(super) fn staging(path: &Path, address: &str) -> Result<Self> {
        let lock = lock(path, &address)?;
        let (keep, overwrite, replaced) = (None, false, Vec::new());
        Ok(Self { path: path.to_owned(), keep, overwrite, replaced, lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folder that was opened still lies there: it may have been removed or moved while the run goes on.
    pub(super) fn is_there(&self) -> Result<bool> {
        let file = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let opened = self.lock.metadata().map_err(Error::io("read", &self.path))?;
        match fs::metadata(&self.path) {
            Ok(there) => Ok(file(there) == file(opened)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("read", &self.path)(error)),
        }
    }

    /// Opens the folder again if it was removed, and makes it where there is none: for a run that has come to `past`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn make_again(&mut self, past: Position) -> Result<()> {
        if self.is_there()? {
            return Ok(());
        }
        *self = Self::open(&self.path, self.keep, self.overwrite, Some(past))?;
        tracing::warn!("{}", removed(&self.path.display()));
        Ok(())
    }

    /// Publishes `snapshot` and discards what is no longer to be kept. Returns its folder.
    ///
    /// # Errors
    /// When a file cannot be written; the checkpoints that were there remain.
    pub(super) fn save(&mut self, snapshot: Snapshot) -> Result<PathBuf> {
        let name = name(&snapshot.state.timestamp);
        let target = self.path.join(&name);
        let saved = self.publish(snapshot, &name, &target).and_then(|()| self.discard(&target));
        saved.map_err(|error| self.not_saved(&name, &error))?;
        Ok(target)
    }

    /// Writes `snapshot` and gives it its `name`, which is then that of the newest.
    fn publish(&self, snapshot: Snapshot, name: &str, target: &Path) -> Result<()> {
        let writing = self.path.join(format!("{WRITING}{name}"));
        if let Err(error) = write(snapshot, &writing) {
            // On a full disk the half-written folder would keep it full.
            let _ = remove(&writing);
            return Err(error);
        }
        if target.exists() {
            // The same position again: after a resume from an older checkpoint, or a run that replaces another.
            // A folder cannot be renamed over another, so for an instant only the hidden name exists; a process that
            // dies then is made good by `restore_replaced`.
            let aside = self.path.join(format!("{REPLACED}{name}"));
            remove(&aside).map_err(Error::io("remove", &aside))?;
            fs::rename(target, &aside).map_err(Error::io("rename", target))?;
        }
        fs::rename(&writing, target).map_err(Error::io("rename", &writing))?;
        sync_folder(&self.path)?;
        self.name_latest(name)
    }

    /// Has `latest` say `name`. What a process that dies leaves of that is swept like the rest.
    fn name_latest(&self, name: &str) -> Result<()> {
        let latest = self.path.join(LATEST);
        let writing = self.path.join(format!("{WRITING}{LATEST}"));
        let replace = || {
            let mut file = fs::File::create(&writing)?;
            file.write_all(format!("{name}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&writing, &latest)
        };
        replace().map_err(Error::io("write", &latest))?;
        sync_folder(&self.path)
    }

    fn not_saved(&self, name: &str, error: &Error) -> Error {
        // A file that was just written is gone before the folder that somebody removes.
        let is_gone =
            matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
        if is_gone || matches!(self.is_there(), Ok(false)) {
            return Error::Checkpoint(format!(
                "the checkpoint {name}, or all of save_folder `{}`, was removed or moved while it was saved; the \
                 checkpoints before it may be gone, too: put back what is missing and continue with autoresume=true",
                self.path.display()
            ));
        }
        let remedy = match error {
            Error::Io { source, .. } if is_full(source.kind()) => {
                format!("make room in `{}`", self.path.display())
            }
            _ => "mend that".to_owned(),
        };
        Error::Checkpoint(format!(
            "{error}; the checkpoints before it are whole: {remedy} and continue with autoresume=true"
        ))
    }

    /// Removes replaced and surplus checkpoints and what dead processes left, but never `newest`.
    fn discard(&mut self, newest: &Path) -> Result<()> {
        let mut surplus = std::mem::take(&mut self.replaced);
        let mut kept = list(&self.path)?;
        kept.retain(|(_, path)| path != newest && !surplus.contains(path));
        if let Some(keep) = self.keep {
            let others = keep.saturating_sub(1);
            surplus.extend(kept.drain(..kept.len().saturating_sub(others)).map(|(_, path)| path));
        }
        for path in surplus.iter().filter(|path| *path != newest) {
            self.hide(path)?;
        }
        self.sweep()
    }

    /// Removes the checkpoint `path` of this folder.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        self.hide(path)?;
        self.sweep()
    }

    /// Renames the checkpoint `path` of this folder so that no run lists or removes it. Returns where it is then.
    pub(super) fn set_aside(&self, path: &Path) -> Result<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut aside = self.path.join(format!("{name}{UNSENT}"));
        let mut number = 1;
        while aside.exists() {
            number += 1;
            aside = self.path.join(format!("{name}{UNSENT}-{number}"));
        }
        fs::rename(path, &aside).map_err(Error::io("rename", path))?;
        sync_folder(&self.path)?;
        Ok(aside)
    }

    /// Takes a checkpoint out of sight in one step, so that a half-removed one is never taken for one.
    fn hide(&self, path: &Path) -> Result<()> {
        let Some(name) = path.file_name() else { return Ok(()) };
        let hidden = self.path.join(format!("{DISCARDED}{}", name.to_string_lossy()));
        remove(&hidden).map_err(Error::io("remove", &hidden))?;
        match fs::rename(path, &hidden) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
            _ => Ok(()),
        }
    }

    /// Removes what is out of sight.
    fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path).map_err(Error::io("read", &self.path))?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if [WRITING, REPLACED, DISCARDED].iter().any(|prefix| name.starts_with(prefix)) {
                remove(&entry.path()).map_err(Error::io("remove", entry.path()))?;
            }
        }
        Ok(())
    }
}

/// What is to be said of a save folder that the run makes again.
pub(super) fn removed(shown: &dyn std::fmt::Display) -> String {
    format!(
        "save_folder `{shown}` was removed or moved during the run, with the checkpoints in it; it is made again for those \
         from here on"
    )
}

/// Writes `snapshot` into the new folder `writing`, all of it to the disk.
fn write(snapshot: Snapshot, writing: &Path) -> Result<()> {
    remove(writing).map_err(Error::io("remove", writing))?;
    fs::create_dir(writing).map_err(Error::io("create", writing))?;
    snapshot.write_files(writing)?;
    sync_folder(writing)
}

/// Whether there is no more room for a file.
fn is_full(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}

/// `ep0-ba20`
fn name(at: &Timestamp) -> String {
    format!("ep{}-ba{}", at.epoch, at.batch)
}

/// Locks the folder at `path`, which messages call `shown`, and makes good what dead runs left half done.
fn lock(path: &Path, shown: &dyn std::fmt::Display) -> Result<fs::File> {
    let lock = fs::File::open(path).map_err(Error::io("open", path))?;
    if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
        return Err(Error::Checkpoint(format!(
            "save_folder `{shown}` is in use by another run; wait for its end, or use another save_folder"
        )));
    }
    restore_replaced(path)?;
    Ok(lock)
}

/// The checkpoints in `folder`, oldest first; none where it does not exist.
pub(super) fn list(folder: &Path) -> Result<Vec<(Position, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", folder)(e)),
    };
    let mut found: Vec<(Position, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            path.is_dir().then_some((position(entry.file_name().to_str()?)?, path))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Brings back checkpoints that were set aside for others which then never came.
pub(super) fn restore_replaced(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(original) = name.to_str().and_then(|name| name.strip_prefix(REPLACED)) else {
            continue;
        };
        let original = folder.join(original);
        if !original.exists() {
            fs::rename(entry.path(), &original).map_err(Error::io("rename", entry.path()))?;
        }
    }
    Ok(())
}

/// Removes a folder or a file that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes the names in `folder` durable.
fn sync_folder(folder: &Path) -> Result<()> {
    mds::durable::sync_directory(folder).map_err(Error::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_folder_that_goes_away_during_a_save_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("checkpoints");
        let yaml = "{max_seq_len: 8, tokenizer_name: gpt2, data_remote: ./c4, train_loader: {name: text}, model: \
                    {d_model: 8, n_heads: 1, n_layers: 1, vocab_size: 9}, optimizer: {lr: 0.1}, scheduler: {name: \
                    constant_with_warmup, t_warmup: 0ba}, max_duration: 9ba, global_train_batch_size: 2}";
        let config = Config::from_yaml_str(yaml, &[]).unwrap();
        let snapshot = |batch| {
            let at = Timestamp { batch, ..Timestamp::default() };
            Snapshot { state: State::new(&config, at), model: Vec::new(), moments: Vec::new() }
        };
        let mut folder = CheckpointFolder::open(&path, None, false, None).unwrap();
        folder.save(snapshot(1)).unwrap();
        let moved = root.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        assert_eq!(
            folder.save(snapshot(2)).unwrap_err().to_string(),
            format!(
                "the checkpoint ep0-ba2, or all of save_folder `{}`, was removed or moved while it was saved; the \
                 checkpoints before it may be gone, too: put back what is missing and continue with autoresume=true",
                path.display()
            )
        );
        fs::rename(&moved, &path).unwrap();
        folder.save(snapshot(2)).unwrap();
        let saved: Vec<Position> = list(&path).unwrap().into_iter().map(|(at, _)| at).collect();
        assert_eq!(saved, [(1, 0), (2, 0)]);
    }
}
