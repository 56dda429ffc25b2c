//! A run's folder, locked as long as the run lives. One at a remote is written on this machine and uploaded now and then, as
//! long as no other run has [begun there](Mark).

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mds::UserCache;
use mds::storage::{Remote, RemoteOptions};

use crate::checkpoint::Mark;
use crate::config::Config;
use crate::error::{Error, Result};

/// `metrics.jsonl`
pub(super) const METRICS: &str = "metrics.jsonl";
/// The folder of event files.
pub(super) const EVENTS: &str = "tensorboard";
/// The picture.
pub(super) const CURVE: &str = "loss_curve.svg";
/// What a run locks. Not the folder itself, which may be the save folder, too, and that is locked for itself.
const LOCK: &str = ".lock";

/// Where a run's metrics go.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    remote: Option<(Remote, Mark)>,
    /// What of a run lies at the remote; locked as long as an upload goes on.
    there: Mutex<Vec<String>>,
    /// Given back by the system when the run ends, whatever it dies of.
    _lock: File,
}

impl RunFolder {
    /// The run folder of `config`, which is made if need be. What lies at a remote is fetched, so that a run can be
    /// continued on another machine.
    ///
    /// # Errors
    /// When it cannot be written, or another run on this machine writes to it.
    pub(super) fn open(config: &Config) -> Result<Self> {
        let remote = Remote::open(&config.run_folder, config.remote_options())?;
        if let Some(folder) = remote.folder() {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            let _lock = lock(folder, &folder.display())?;
            let path = folder.to_owned();
            return Ok(Self { path, remote: None, there: Mutex::default(), _lock });
        }
        let path = UserCache::open()?.outgoing(&remote)?;
        let _lock = lock(&path, &remote.address())?;
        let mark = mark_of_run(config)?;
        mark.put(&remote).map_err(|error| {
            Error::Config(format!("run_folder `{}` cannot be written: {error}", remote.address()))
        })?;
        let there: Vec<String> = remote.objects()?.into_iter().filter(is_of_run).collect();
        fetch(&remote, &there, &path)?;
        Ok(Self { path, remote: Some((remote, mark)), there: Mutex::new(there), _lock })
    }

    /// Where the files are on this machine.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The address, if it is another than where the files are.
    pub(super) fn remote(&self) -> Option<&str> {
        self.remote.as_ref().map(|(remote, _)| remote.address())
    }

    /// Makes the remote, if there is one, like the folder here, to which may be added meanwhile.
    ///
    /// # Errors
    /// When the upload fails, or another run has begun there: then nothing is touched.
    pub(super) fn upload(&self) -> Result<()> {
        let Some((remote, mark)) = &self.remote else { return Ok(()) };
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files_in(&self.path)?;
        let send = || {
            if !mark.is_last_at(remote)? {
                return Ok(false);
            }
            files.iter().try_for_each(|name| remote.put_file(name, &self.path.join(name)))?;
            let gone = there.iter().filter(|name| !files.contains(name));
            gone.into_iter().try_for_each(|name| remote.delete(name))?;
            Ok(true)
        };
        let is_own = send().map_err(|source| Error::Upload {
            what: "the run folder".to_owned(),
            address: remote.address().to_owned(),
            kept: self.path.clone(),
            then: "",
            source: Box::new(source),
        })?;
        if !is_own {
            return Err(Error::Config(format!(
                "run_folder `{}` was taken over by a run that began later, so this one ends; to go on, give it another \
                 run_folder",
                remote.address()
            )));
        }
        *there = files;
        Ok(())
    }
}

/// Locks the run folder at `path`, which messages call `shown`: two runs would write over each other's metrics.
fn lock(path: &Path, shown: &dyn std::fmt::Display) -> Result<File> {
    let path = path.join(LOCK);
    let lock = File::create(&path).map_err(Error::io("create", &path))?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        return Err(Error::Config(format!(
            "run_folder `{shown}` is in use by another run; wait for its end, or use another run_folder"
        )));
    }
    Ok(lock)
}

/// Makes the folder at `path` like the remote, where these files lie, unless what is here has only been added to since it
/// was uploaded.
fn fetch(remote: &Remote, there: &[String], path: &Path) -> Result<()> {
    let before = std::fs::read(path.join(METRICS)).unwrap_or_default();
    if !before.is_empty() && there.iter().any(|name| name == METRICS) {
        let uploaded = remote.get(METRICS, u64::MAX)?;
        if !uploaded.is_empty() && before.starts_with(&uploaded) {
            return Ok(());
        }
    }
    for file in files_in(path)? {
        let file = path.join(file);
        std::fs::remove_file(&file).map_err(Error::io("remove", &file))?;
    }
    for name in there {
        let file = path.join(name);
        let parent = file.parent().unwrap_or(path);
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let bytes = remote.get(name, u64::MAX)?;
        mds::durable::replace(&file, &bytes).map_err(Error::io("write", &file))?;
    }
    Ok(())
}

/// That of the run's save folder, which may be the same folder by another address, else a new one.
fn mark_of_run(config: &Config) -> Result<Mark> {
    let Some(address) = &config.save_folder else { return Ok(Mark::new()) };
    let remote = Remote::open(address, config.remote_options())?;
    if remote.folder().is_some() {
        return Ok(Mark::new());
    }
    Ok(Mark::here(&UserCache::open()?.outgoing(&remote)?)?.unwrap_or_else(Mark::new))
}

/// The files of a run in the folder at `path`, which may have others.
fn files_in(path: &Path) -> Result<Vec<String>> {
    let folder = Remote::open(&path.to_string_lossy(), RemoteOptions::default())?;
    Ok(folder.objects()?.into_iter().filter(is_of_run).collect())
}

/// Save folder and run folder may be one.
fn is_of_run(name: &String) -> bool {
    let is_event = name.strip_prefix(EVENTS).is_some_and(|rest| rest.starts_with('/'));
    is_event || name == METRICS || name == CURVE
}
