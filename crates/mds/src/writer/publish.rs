//! Finishing one shard: compressed, hashed, written, uploaded. Runs on any thread.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::output::holds_a_dataset;
use super::timings::Timings;
use crate::durable;
use crate::format::{FileInfo, Index, RawShard, Schema, ShardConfig, ShardInfo, ShardName};
use crate::storage::{Remote, Stop};
use crate::{Error, Result};

/// What finishing a shard takes.
#[derive(Debug)]
pub(super) struct Publisher {
    /// Where the files are written.
    pub(super) folder: PathBuf,
    /// Whether they stay there.
    pub(super) local: bool,
    /// Where they are uploaded.
    pub(super) remote: Option<Remote>,
    pub(super) schema: Arc<Schema>,
    pub(super) config: ShardConfig,
    /// Ends the work early.
    pub(super) stop: Stop,
    /// The shards in the index that the remote had already when this writer was resumed. They may be
    /// uploaded again.
    pub(super) published: OnceLock<Vec<ShardInfo>>,
    pub(super) timings: Arc<Timings>,
}

/// The entries of one file: as it is, and compressed.
pub(super) struct Stored {
    pub(super) raw: FileInfo,
    pub(super) zip: Option<FileInfo>,
}

impl Stored {
    /// The one that the dataset stores.
    fn stored(&self) -> &FileInfo {
        self.zip.as_ref().unwrap_or(&self.raw)
    }
}

impl Publisher {
    /// Puts the files of shard `number` in place and returns its entry. `zip` is memory for the
    /// compressed form, to be used again.
    pub(super) fn publish(
        &self,
        number: u64,
        shard: &RawShard,
        zip: &mut Vec<u8>,
    ) -> Result<ShardInfo> {
        let name = self.name(number);
        // The offsets first: where the data file is, the shard is complete.
        let meta = shard.meta.as_ref().map(|meta| self.publish_file(meta_name(&name), meta, zip));
        let meta = meta.transpose()?;
        let data = self.publish_file(name, shard.file(), zip)?;
        Ok(self.entry(data, meta, shard.samples))
    }

    /// The entry of a shard with these files.
    pub(super) fn entry(&self, data: Stored, meta: Option<Stored>, samples: u32) -> ShardInfo {
        let pair = |file: Stored| (file.raw, file.zip);
        let (data, meta) = (pair(data), meta.map(pair));
        ShardInfo::new(Arc::clone(&self.schema), &self.config, data, meta, samples)
    }

    /// The name of the raw data file of shard `number`.
    pub(super) fn name(&self, number: u64) -> ShardName {
        ShardName::numbered(number, &self.config.format)
    }

    /// The names of the files that are stored for shard `number`: the data and, for formats with
    /// one, the offsets.
    pub(super) fn stored_names(&self, number: u64) -> impl Iterator<Item = ShardName> {
        let data = self.name(number);
        let meta = self.config.format.has_meta().then(|| self.stored_name(&meta_name(&data)));
        std::iter::once(self.stored_name(&data)).chain(meta)
    }

    /// The name under which a raw file called `name` is stored.
    pub(super) fn stored_name(&self, name: &ShardName) -> ShardName {
        match self.config.compression {
            Some(compression) => name.with_extension(compression.extension()),
            None => name.clone(),
        }
    }

    /// Compresses, hashes, writes and uploads one file of a shard.
    fn publish_file(&self, name: ShardName, bytes: &[u8], zip: &mut Vec<u8>) -> Result<Stored> {
        self.stop.check()?;
        let zip = match self.config.compression {
            None => None,
            Some(compression) => {
                let compressed =
                    self.timings.while_compressing(|| compression.compress_into(bytes, zip));
                compressed.map_err(|error| error.in_shard(&name))?;
                Some(zip.as_slice())
            }
        };
        self.stop.check()?;
        let files = self.timings.while_hashing(|| self.describe(name, bytes, zip));
        let stored = &files.stored();
        let written = self.timings.while_writing(|| {
            self.write(&stored.basename, zip.unwrap_or(bytes))?;
            self.upload(stored)
        });
        written.map_err(|error| error.in_shard(&stored.basename))?;
        Ok(files)
    }

    /// The entries of a file from its bytes and its compressed bytes.
    pub(super) fn describe(&self, name: ShardName, bytes: &[u8], zip: Option<&[u8]>) -> Stored {
        let hashes = &self.config.hashes;
        let zip = zip.map(|zip| FileInfo::of(self.stored_name(&name), zip, hashes));
        Stored { raw: FileInfo::of(name, bytes, hashes), zip }
    }

    fn write(&self, name: &ShardName, bytes: &[u8]) -> Result<()> {
        let path = name.join_to(&self.folder);
        if self.local {
            return durable::write(&path, bytes);
        }
        // Nobody but this process reads it, and it is gone once it is uploaded.
        fs::write(&path, bytes)
            .map_err(|error| Error::io(error, format!("cannot write {}", path.display())))
    }

    /// Uploads a file that is in place, unless the remote has become another program's dataset.
    pub(super) fn upload(&self, file: &FileInfo) -> Result<()> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let there = remote.known_size_until(Index::FILE_NAME, &self.stop)?;
        if there.is_some() && !self.is_published(file) {
            return Err(holds_a_dataset(remote));
        }
        let path = file.basename.join_to(&self.folder);
        remote.put_file_until(file.basename.as_str(), &path, &self.stop)?;
        if !self.local {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    fn is_published(&self, file: &FileInfo) -> bool {
        let mut files = self.published.get().into_iter().flatten().flat_map(ShardInfo::files);
        files.any(|published| published.stored() == file)
    }

    /// Removes the files of shard `number` from the folder, if they are there.
    pub(super) fn remove(&self, number: u64) {
        for name in self.stored_names(number) {
            let _ = fs::remove_file(name.join_to(&self.folder));
        }
    }
}

/// The name of the file of offsets beside a data file.
pub(super) fn meta_name(data: &ShardName) -> ShardName {
    data.with_extension("meta")
}
