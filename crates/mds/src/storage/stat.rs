//! What is known of objects without reading them: how large they are, and which version is there.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use object_store::{ObjectMeta, ObjectStoreExt};

use super::upload::timely;
use super::{Remote, Root, Stop, connect, path_in};
use crate::error::{Error, Result};

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStat {
    /// Its size in bytes.
    pub bytes: u64,
    /// What is another once the object is written again, for people too: `etag TAG`, or `modified TIME` where a store
    /// gives no tags, in seconds since 1970; of a file, in nanoseconds. `None` if the store says neither.
    pub version: Option<String>,
}

impl ObjectStat {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        // Some stores write a tag with quotes in one answer and without in another.
        let etag = meta.e_tag.as_deref().map(|tag| format!("etag {}", tag.replace('"', "")));
        // A listing may tell fractions of the second that a single answer does not.
        let seconds = Some(meta.last_modified.timestamp()).filter(|&seconds| seconds != 0);
        let modified = || seconds.map(|seconds| format!("modified {seconds}"));
        Self { bytes: meta.size, version: etag.or_else(modified) }
    }

    fn of_file(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        let since = modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
        let version = since.map(|since| format!("modified {}", since.as_nanos()));
        Self { bytes: metadata.len(), version }
    }
}

impl Remote {
    /// What is known of the object `name`, `None` if there is no such object.
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn stat(&self, name: &str) -> Result<Option<ObjectStat>> {
        self.stat_until(name, &Stop::new())
    }

    /// What is known of all [`objects`](Self::objects), of stores by requests for many at a time.
    ///
    /// # Errors
    /// As [`folders_with`](Self::folders_with).
    pub fn stats(&self) -> Result<HashMap<String, ObjectStat>> {
        self.stats_until(&Stop::new())
    }

    /// [`stats`](Self::stats) that gives up when `stop` goes up.
    pub(super) fn stats_until(&self, stop: &Stop) -> Result<HashMap<String, ObjectStat>> {
        match &self.root {
            Root::Store(connection) => Ok(self.list(connection, stop)?.into_iter().collect()),
            Root::Folder(_) => {
                let known = |path: String| Ok(self.stat(&path)?.map(|stat| (path, stat)));
                self.objects()?.into_iter().filter_map(|path| known(path).transpose()).collect()
            }
        }
    }

    /// [`stat`](Self::stat) that gives up when `stop` goes up.
    pub(super) fn stat_until(&self, name: &str, stop: &Stop) -> Result<Option<ObjectStat>> {
        match &self.root {
            Root::Folder(folder) => {
                let path = path_in(folder, name);
                match std::fs::metadata(&path) {
                    Ok(metadata) => Ok(Some(ObjectStat::of_file(&metadata))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::io(error, format!("cannot read {}", path.display()))),
                }
            }
            Root::Store(connection) => {
                let (store, path) = (Arc::clone(&connection.store), connection.path(name));
                let limit = connect::request_limit(&self.options);
                let work = async move { timely(limit, store.head(&path)).await };
                match self.wait(work, stop)? {
                    Ok(found) => Ok(Some(ObjectStat::of(&found))),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(self.failed(&self.object(name), &error)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RemoteOptions;
    use super::*;

    #[test]
    fn a_tag_goes_before_the_time_and_either_may_be_missing() {
        let version = |e_tag: Option<&str>, seconds: i64, nanoseconds: u32| {
            let last_modified = std::time::UNIX_EPOCH
                + std::time::Duration::new(seconds.try_into().unwrap(), nanoseconds);
            let e_tag = e_tag.map(str::to_owned);
            let location = "a".into();
            let last_modified = last_modified.into();
            let meta = ObjectMeta { location, last_modified, size: 5, e_tag, version: None };
            let ObjectStat { bytes, version } = ObjectStat::of(&meta);
            assert_eq!(bytes, 5);
            version
        };
        assert_eq!(version(Some("\"0x8D\""), 9, 0).unwrap(), "etag 0x8D");
        assert_eq!(version(Some("0x8D"), 9, 0).unwrap(), "etag 0x8D");
        assert_eq!(version(Some("W/\"5-1\""), 9, 0).unwrap(), "etag W/5-1");
        assert_eq!(version(None, 9, 5_000_000).unwrap(), "modified 9");
        assert_eq!(version(None, 0, 0), None);
    }

    #[test]
    fn a_file_that_is_written_again_is_another_version() {
        let dir = tempfile::tempdir().unwrap();
        let remote = Remote::open(dir.path().to_str().unwrap(), RemoteOptions::default()).unwrap();
        assert_eq!(remote.stat("a/b").unwrap(), None);
        remote.put("a/b", "one").unwrap();
        let first = remote.stat("a/b").unwrap().unwrap();
        assert_eq!(remote.stats().unwrap(), HashMap::from([("a/b".to_owned(), first.clone())]));
        assert_eq!(first.bytes, 3);
        remote.put("a/b", "two").unwrap();
        let later = UNIX_EPOCH + std::time::Duration::new(1_800_000_000, 7);
        let file = std::fs::File::open(dir.path().join("a/b")).unwrap();
        file.set_modified(later).unwrap();
        let second = remote.stat("a/b").unwrap().unwrap();
        assert_eq!(second.version.as_deref(), Some("modified 1800000000000000007"));
        assert_ne!(first, second);
    }
}
