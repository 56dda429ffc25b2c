//! Objects as streams of bytes, for what is read once and never kept.

use std::io::{self, Read};
use std::time::Duration;

use super::{PartOnItsWay, Remote, Stop, Version};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that are asked for at once. A reader holds two such parts.
const PART: u64 = 8 << 20;

/// Reads one version of an object from its start; the next part comes while one is read. Its errors
/// hold an [`mds::Error`](Error).
pub struct ObjectReader {
    remote: Remote,
    name: String,
    size: u64,
    /// Known when the first part is here.
    version: Option<Version>,
    /// Where the next part begins that has not been asked for.
    asked: u64,
    on_its_way: Option<PartOnItsWay>,
    /// Bytes that were handed out or are in `ready`.
    received: u64,
    ready: Vec<u8>,
    /// Bytes of `ready` that were handed out.
    taken: usize,
}

impl Remote {
    /// Reads the object `name` as a stream; `size` is what a listing or [`size`](Self::size) says of
    /// it, in bytes. It holds at most 16 MiB in memory, or all of the object if the remote gives whole
    /// objects alone or does not tell versions apart.
    pub fn reader(&self, name: &str, size: u64) -> ObjectReader {
        ObjectReader {
            remote: self.clone(),
            name: name.to_owned(),
            size,
            version: None,
            asked: 0,
            on_its_way: None,
            received: 0,
            ready: Vec::new(),
            taken: 0,
        }
    }
}

impl ObjectReader {
    /// Asks for the next part, if there is one.
    fn ask(&mut self) -> Result<()> {
        if self.on_its_way.is_none() && self.asked < self.size {
            let range = self.asked..self.size.min(self.asked + PART);
            self.asked = range.end;
            let (name, version) = (&self.name, self.version.clone());
            let part = self.remote.start_part(name, range, version, Duration::MAX)?;
            self.on_its_way = Some(part);
        }
        Ok(())
    }

    /// Gets the next part into `ready`, which is empty at the end.
    fn fill(&mut self) -> Result<()> {
        self.taken = 0;
        self.ready.clear();
        self.ask()?;
        let Some(part) = self.on_its_way.take() else { return Ok(()) };
        self.ready = match part.finish(&Stop::new())? {
            // Where versions cannot be told apart, two parts may be of different ones.
            Some((bytes, version)) if version.is_known() || bytes.len() as u64 == self.size => {
                self.check(version.size)?;
                self.version = Some(version);
                self.ask()?;
                bytes
            }
            _ if self.received == 0 => {
                let whole = self.remote.get(&self.name, self.size)?;
                self.check(whole.len() as u64)?;
                self.asked = self.size;
                whole
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Download,
                    format!("{} comes in parts no more", self.remote.object(&self.name)),
                    "try again",
                ));
            }
        };
        self.received += self.ready.len() as u64;
        Ok(())
    }

    fn check(&self, found: u64) -> Result<()> {
        if found == self.size {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Download,
            format!(
                "{} has {found} bytes where {} were to come",
                self.remote.object(&self.name),
                self.size
            ),
            "do not write over files that are being read; try again",
        ))
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() {
            self.fill().map_err(io::Error::other)?;
        }
        let rest = &self.ready[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::RemoteOptions;

    fn read(remote: &Remote, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        remote.reader("a", size).read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn objects_are_read_part_by_part() {
        let dir = tempfile::tempdir().unwrap();
        let remote = Remote::open(dir.path().to_str().unwrap(), RemoteOptions::default()).unwrap();
        for size in [0, 1, PART - 1, PART, PART + 1, 3 * PART + 7] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            std::fs::write(dir.path().join("a"), &bytes).unwrap();
            assert!(read(&remote, size).unwrap() == bytes, "{size}");
        }
        let error = read(&remote, PART).unwrap_err();
        let (found, path) = (3 * PART + 7, dir.path().join("a").display().to_string());
        assert_eq!(
            error.to_string(),
            format!(
                "{path} has {found} bytes where {PART} were to come; do not write over files that \
                 are being read; try again"
            )
        );
    }
}
