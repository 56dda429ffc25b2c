//! Parts of objects: one at a time for callers, several at a time for the cache.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::download::{Failure, PartOfObject, Sink, Version};
use super::{Remote, Root, Running, Stop, path_in};
use crate::error::{Error, Result};
use crate::regular;
use crate::shard::not_out_of;

impl Remote {
    /// Bytes `range` of the object `name`, `None` if the remote gives whole objects alone.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`Download`](crate::ErrorKind::Download) or, for a folder,
    /// [`Io`](crate::ErrorKind::Io) if the object ends before the range.
    pub fn get_range(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        if range.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let part = self.start_part(name, range, None, Duration::MAX)?;
        Ok(part.finish(&Stop::new())?.map(|(bytes, _)| bytes))
    }

    /// Has bytes `range` of the object `name` come, of the given version if there is one. Several
    /// parts may be on their way at a time.
    pub(crate) fn start_part(
        &self,
        name: &str,
        range: Range<u64>,
        version: Option<Version>,
        limit: Duration,
    ) -> Result<PartOnItsWay> {
        let running = match &self.root {
            Root::Folder(_) => None,
            Root::Store(connection) => {
                let (range, version) = (range.clone(), version.clone());
                Some(self.start(connection, name, |download| async move {
                    // What is late is given up: its channel closes.
                    let _ = tokio::time::timeout(limit, download.range(range, version)).await;
                })?)
            }
        };
        Ok(PartOnItsWay { remote: self.clone(), name: name.to_owned(), range, version, running })
    }
}

/// A part of an object that is asked for.
pub(crate) struct PartOnItsWay {
    remote: Remote,
    name: String,
    range: Range<u64>,
    version: Option<Version>,
    /// `None` where a folder has it.
    running: Option<Running>,
}

impl PartOnItsWay {
    /// Waits for the part: its bytes and the version that they are of. `None` if the remote gives
    /// whole objects alone.
    pub(crate) fn finish(self, stop: &Stop) -> Result<Option<(Vec<u8>, Version)>> {
        let Self { remote, name, range, version, running } = self;
        let mut sink = PartOfObject::from(range.start);
        let received = match (running, &remote.root) {
            (Some(running), _) => running.drain(&mut sink, stop)?,
            (None, Root::Folder(folder)) => {
                let path = not_out_of(folder, path_in(folder, &name))?;
                read_part(&path, &range, &mut sink)
                    .map_err(|e| Error::io(e, format!("cannot read {}", path.display())))?;
                match (&version, &sink.version) {
                    (Some(wanted), Some(found)) if wanted != found => Err(Failure::Changed),
                    _ => Ok(0),
                }
            }
            (None, Root::Store(_)) => Err(Failure::GivenUp),
        };
        match received {
            Ok(_) => Ok(sink.version.map(|version| (sink.bytes, version))),
            Err(Failure::NoRanges) => Ok(None),
            Err(failure) => {
                let length = range.end - range.start;
                Err(remote.not_received(&remote.object(&name), length, &failure))
            }
        }
    }
}

/// Reads a part of a file of this machine.
fn read_part(path: &Path, range: &Range<u64>, sink: &mut PartOfObject) -> io::Result<()> {
    let file = regular::open(path)?;
    let metadata = file.metadata()?;
    if range.end > metadata.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    sink.of(Version::of_file(&metadata));
    sink.bytes.resize(usize::try_from(range.end - range.start).map_err(io::Error::other)?, 0);
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut sink.bytes, range.start)
}
