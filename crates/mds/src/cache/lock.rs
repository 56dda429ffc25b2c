//! Locks between processes: `flock` on a small file that says who holds it.
//!
//! The kernel releases the lock when its holder dies, so nothing is ever left locked. The file is
//! removed with the lock; whoever locked a file that is no longer the one at its path tries again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::regular;
use crate::storage::Stop;

/// An exclusive lock on a path, released and removed when dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    path: PathBuf,
    /// Closing the file releases the lock.
    _file: File,
}

impl FileLock {
    /// Waits for the lock, at most `limit` and no longer than until `stop` goes up.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) names the process that holds the lock.
    pub(crate) fn acquire(path: &Path, limit: Duration, stop: &Stop) -> Result<Self> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            stop.check()?;
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(lock);
            }
            if started.elapsed() >= limit {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "waited {limit:?} for {}, which holds the lock {}",
                        holder(path),
                        path.display()
                    ),
                    "check what that process does, end it if it hangs, and try again",
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// The lock if nobody holds it.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let failed = |e| Error::io(e, format!("cannot lock {}", path.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = regular::open_own(&mut options, path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("cannot lock {} ({e})", path.display()),
                    "choose a local directory on a file system that has file locks",
                ));
            }
        }
        // The previous holder may have removed the file after it was opened here.
        if !is_still_at(&file, path) {
            return Ok(None);
        }
        // For the messages of those who wait, who do without it where the disk is full.
        let note = format!("process {} on {}", std::process::id(), host());
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()));
        Ok(Some(Self { path: path.to_path_buf(), _file: file }))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Removed before it is released: nobody else can hold it yet. A file that stays does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether `path` still leads to the open `file`.
pub(crate) fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn holder(path: &Path) -> String {
    let note = regular::read_at_most(path, 200).ok().and_then(|note| String::from_utf8(note).ok());
    match note {
        Some(note) if !note.is_empty() => note,
        _ => "another process".to_owned(),
    }
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "this host".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_wait_ends_and_says_for_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".x.lock");
        let held = FileLock::acquire(&path, Duration::ZERO, &Stop::new()).unwrap();
        let error = FileLock::acquire(&path, Duration::from_millis(20), &Stop::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(
            error.to_string(),
            format!(
                "waited 20ms for process {} on {}, which holds the lock {}; \
                 check what that process does, end it if it hangs, and try again",
                std::process::id(),
                host(),
                path.display()
            )
        );
        drop(held);
        assert!(!path.exists());
        FileLock::acquire(&path, Duration::ZERO, &Stop::new()).unwrap();
    }

    #[test]
    fn a_raised_stop_ends_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".x.lock");
        let stop = Stop::new();
        let _held = FileLock::acquire(&path, Duration::ZERO, &stop).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| FileLock::acquire(&path, Duration::from_secs(60), &stop));
            std::thread::sleep(Duration::from_millis(20));
            stop.raise();
            assert!(waiter.join().unwrap().is_err());
        });
    }

    #[test]
    fn only_one_holds_it_although_the_file_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".x.lock");
        let (inside, rounds) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = FileLock::acquire(&path, Duration::from_secs(60), &Stop::new())
                            .unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        rounds.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(rounds.into_inner(), 200);
    }
}
