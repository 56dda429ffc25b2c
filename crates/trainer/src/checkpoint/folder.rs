//! Where checkpoints live: publishing them atomically, finding the newest, discarding the oldest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Checkpoint;
use crate::error::{Error, Result};
use crate::time::Timestamp;

const LATEST: &str = "latest";
/// Prefix of a checkpoint that is being written.
const WRITING: &str = ".writing-";
/// Prefix of a checkpoint that gives way to another of its name.
const REPLACED: &str = ".replaced-";
/// Prefix of a checkpoint that is being removed.
const DISCARDED: &str = ".discarded-";

/// A run's `save_folder`.
#[derive(Debug)]
pub struct CheckpointFolder {
    path: PathBuf,
    keep: Option<usize>,
    /// Checkpoints that are not this run's past, discarded once it has one of its own.
    replaced: Vec<PathBuf>,
    /// The folder itself, locked as long as this run lives: two runs would sweep each other's files.
    _lock: fs::File,
}

/// A checkpoint to continue from.
#[derive(Debug)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// What it holds.
    pub checkpoint: Checkpoint,
    /// Newer ones that were passed over, and why.
    pub notices: Vec<String>,
}

impl CheckpointFolder {
    /// The folder at `path`, made where it does not exist, for a run that starts, or goes on from its checkpoint
    /// `continues`. Of the checkpoints that it saves the newest `keep` are kept; `None` keeps all.
    ///
    /// Checkpoints that are not this run's past are discarded as soon as it has saved one of its own, if `overwrite`.
    ///
    /// # Errors
    /// When the folder cannot be made, another run uses it, or it holds checkpoints that are not this run's past and `overwrite` is not set.
    pub fn open(
        path: &Path,
        keep: Option<usize>,
        overwrite: bool,
        continues: Option<&Path>,
    ) -> Result<Self> {
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let lock = fs::File::open(path).map_err(Error::io("open", path))?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::Checkpoint(format!(
                "save_folder `{}` is in use by another run; wait for its end, or use another save_folder",
                path.display()
            )));
        }
        restore_replaced(path)?;
        let past = continues.and_then(position);
        let foreign: Vec<PathBuf> = list(path)?
            .into_iter()
            .filter(|(at, _)| Some(*at) > past)
            .map(|(_, path)| path)
            .collect();
        if let (Some(newest), false) = (foreign.last(), overwrite) {
            return Err(Error::Checkpoint(format!(
                "save_folder already holds the checkpoint `{}`; set autoresume=true to continue it, \
                 save_overwrite=true to replace it, or another save_folder",
                newest.display()
            )));
        }
        Ok(Self { path: path.to_owned(), keep, replaced: foreign, _lock: lock })
    }

    /// The newest complete checkpoint in `path`, `None` where there is no checkpoint at all.
    ///
    /// # Errors
    /// When there are checkpoints and all of them are damaged.
    pub fn newest(path: &Path) -> Result<Option<Found>> {
        restore_replaced(path)?;
        let mut problems = Vec::new();
        for (_, folder) in list(path)?.into_iter().rev() {
            match Checkpoint::load(&folder) {
                Ok(checkpoint) => {
                    let passed_over = |problem| format!("passed over: {problem}");
                    let notices = problems.into_iter().map(passed_over).collect();
                    return Ok(Some(Found { path: folder, checkpoint, notices }));
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        match problems.into_iter().next() {
            None => Ok(None),
            Some(problem) => Err(Error::Checkpoint(problem)),
        }
    }

    /// The checkpoint at `path`: a checkpoint's own folder, or a save folder, whose newest is taken.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn load(path: &Path) -> Result<Found> {
        if path.is_dir()
            && position(path).is_none()
            && !path.join(super::STATE_FILE).exists()
            && let Some(found) = Self::newest(path)?
        {
            return Ok(found);
        }
        let checkpoint = Checkpoint::load(path)?;
        Ok(Found { path: path.to_owned(), checkpoint, notices: Vec::new() })
    }

    /// Publishes `checkpoint` and discards what is no longer to be kept. Returns its folder.
    ///
    /// # Errors
    /// When a file cannot be written; the checkpoints that were there remain.
    pub fn save(&mut self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let name = name(&checkpoint.state.timestamp);
        let target = self.path.join(&name);
        let writing = self.path.join(format!("{WRITING}{name}"));
        remove(&writing).map_err(Error::io("remove", &writing))?;
        fs::create_dir(&writing).map_err(Error::io("create", &writing))?;
        if let Err(error) = checkpoint.write_files(&writing).and_then(|()| sync_folder(&writing)) {
            // On a full disk the half-written folder would keep it full.
            let _ = remove(&writing);
            return Err(Error::Checkpoint(format!(
                "{error}; the checkpoints before it are whole: make room in `{}` and continue with autoresume=true",
                self.path.display()
            )));
        }
        if target.exists() {
            // The same position again: after a resume from an older checkpoint, or a run that replaces another.
            // A folder cannot be renamed over another, so for an instant only the hidden name exists; a process that
            // dies then is made good by `restore_replaced`.
            let aside = self.path.join(format!("{REPLACED}{name}"));
            remove(&aside).map_err(Error::io("remove", &aside))?;
            fs::rename(&target, &aside).map_err(Error::io("rename", &target))?;
        }
        fs::rename(&writing, &target).map_err(Error::io("rename", &writing))?;
        sync_folder(&self.path)?;
        let latest = self.path.join(LATEST);
        mds::durable::replace(&latest, format!("{name}\n").as_bytes())
            .map_err(Error::io("write", &latest))?;
        self.discard(&target)?;
        Ok(target)
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
            // First out of sight in one step, so that a half-removed one is never taken for a checkpoint.
            if let Some(name) = path.file_name() {
                let hidden = self.path.join(format!("{DISCARDED}{}", name.to_string_lossy()));
                remove(&hidden).map_err(Error::io("remove", &hidden))?;
                match fs::rename(path, &hidden) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", path)(e));
                    }
                    _ => {}
                }
            }
        }
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

/// `ep0-ba20`
fn name(at: &Timestamp) -> String {
    format!("ep{}-ba{}", at.epoch, at.batch)
}

/// Batch and epoch of a checkpoint's folder name: the order in which checkpoints are made.
fn position(path: &Path) -> Option<(u64, u64)> {
    let (epoch, batch) = path.file_name()?.to_str()?.strip_prefix("ep")?.split_once("-ba")?;
    Some((batch.parse().ok()?, epoch.parse().ok()?))
}

/// The checkpoints in `folder`, oldest first; none where it does not exist.
fn list(folder: &Path) -> Result<Vec<((u64, u64), PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", folder)(e)),
    };
    let mut found: Vec<((u64, u64), PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            path.is_dir().then_some((position(&path)?, path))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Brings back checkpoints that were set aside for others which then never came.
fn restore_replaced(folder: &Path) -> Result<()> {
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

/// Removes a folder that may not be there.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes the names in `folder` durable.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        fs::File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("sync", folder))?;
    }
    Ok(())
}
