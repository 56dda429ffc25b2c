//! Writing a dataset: samples are gathered into shards, compressed, hashed and published.
//!
//! Files appear under their final names only when they are complete, and `index.json` last of all.
//! A directory without an index is no dataset, so a run that dies leaves nothing that lies.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::durable;
use crate::format::{
    Compression, FileInfo, HashAlgorithm, Index, RawShard, Schema, ShardBuilder, ShardConfig,
    ShardInfo, ShardName, Value,
};
use crate::{Error, ErrorKind, Result};

const INDEX: &str = "index.json";

/// How to write a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterOptions {
    /// The compression of the shards. Default: none.
    pub compression: Option<Compression>,
    /// The hashes to record for every file, in ascending order of their names. Default: none.
    pub hashes: Vec<HashAlgorithm>,
    /// The largest size of a shard before compression, in bytes, below 4 GiB. `None` or 0 for no
    /// limit but that of the format. Default: 64 MiB.
    pub size_limit: Option<u64>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { compression: None, hashes: Vec::new(), size_limit: Some(1 << 26) }
    }
}

/// Writes samples into a new dataset directory.
///
/// [`finish`](Self::finish) completes the dataset. A writer that is dropped before removes what it
/// wrote.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    /// The outermost directory that this writer created, if any.
    created: Option<PathBuf>,
    schema: Arc<Schema>,
    config: ShardConfig,
    /// `None` once the last shard has been taken.
    builder: Option<ShardBuilder>,
    /// The encoded sample at hand; kept to reuse its memory.
    sample: Vec<u8>,
    index: Index,
    samples: u64,
    bytes: u64,
    /// Set when a shard could not be published: its samples are lost, so the dataset must not be
    /// completed without them.
    failed: bool,
    finished: bool,
}

impl Writer {
    /// Creates `dir`, with its parents, to write samples of `schema` into it.
    ///
    /// # Errors
    /// `AlreadyExists` if the directory is not empty, `InvalidArgument` if an option is out of
    /// range, and as the file system fails.
    pub fn create(dir: impl AsRef<Path>, schema: Schema, options: WriterOptions) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let WriterOptions { compression, hashes, size_limit } = options;
        HashAlgorithm::check_sorted(&hashes)?;
        let size_limit = size_limit.filter(|&limit| limit > 0);
        if let Some(limit) = size_limit.filter(|&limit| limit > u64::from(u32::MAX)) {
            return Err(Error::invalid(
                format!("the size limit of {limit} bytes is too large"),
                "give at most 4294967295: offsets in a shard have 32 bits",
            ));
        }
        let created = prepare_directory(&dir)?;
        let config = ShardConfig { compression, hashes, size_limit, ..ShardConfig::default() };
        Ok(Self {
            dir,
            created,
            builder: Some(ShardBuilder::new(&schema, config.clone())),
            schema: Arc::new(schema),
            config,
            sample: Vec::new(),
            index: Index::default(),
            samples: 0,
            bytes: 0,
            failed: false,
            finished: false,
        })
    }

    /// The columns, in the order in which [`write`](Self::write) takes their values.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Adds a sample: one value for each column, in the order of [`Schema::columns`].
    ///
    /// # Errors
    /// `InvalidArgument`, naming sample and column, if a value does not fit; the writer can go on
    /// without this sample. As the file system fails, if a shard cannot be published; the writer
    /// then refuses to go on.
    pub fn write(&mut self, values: &[Value<'_>]) -> Result<()> {
        self.write_values(values).map_err(|error| {
            let error = error.in_dataset(self.dir.display());
            if error.kind() == ErrorKind::InvalidArgument {
                error.at_sample(self.samples)
            } else {
                error
            }
        })
    }

    fn write_values(&mut self, values: &[Value<'_>]) -> Result<()> {
        let Some(builder) = self.builder.as_mut().filter(|_| !self.failed) else {
            return Err(unusable());
        };
        self.schema.encode_sample(values, &mut self.sample)?;
        let full = builder.push(&self.sample)?;
        if let Some(shard) = full {
            self.publish_or_fail(shard)?;
        }
        self.samples += 1;
        self.bytes += self.sample.len() as u64;
        Ok(())
    }

    /// The number of samples written so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The size of the encoded samples written so far, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Publishes the last shard and then the index, which makes the directory a dataset.
    ///
    /// # Errors
    /// As the file system fails; there is then no index.
    pub fn finish(mut self) -> Result<Index> {
        self.complete().map_err(|error| error.in_dataset(self.dir.display()))?;
        self.finished = true;
        Ok(std::mem::take(&mut self.index))
    }

    fn complete(&mut self) -> Result<()> {
        let Some(builder) = self.builder.take().filter(|_| !self.failed) else {
            return Err(unusable());
        };
        if let Some(shard) = builder.finish() {
            self.publish_or_fail(shard)?;
        }
        durable::write(&self.dir.join(INDEX), self.index.to_json().as_bytes())?;
        self.sync_created_directories().map_err(|error| {
            Error::io(error, format!("cannot complete the directory {}", self.dir.display()))
        })
    }

    /// Makes the new directories themselves last, not only what is in them.
    fn sync_created_directories(&self) -> io::Result<()> {
        let Some(created) = &self.created else { return Ok(()) };
        for directory in self.dir.ancestors().take_while(|path| path.starts_with(created)) {
            match directory.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => durable::sync_directory(parent)?,
                _ => durable::sync_directory(Path::new("."))?,
            }
        }
        Ok(())
    }

    fn publish_or_fail(&mut self, shard: RawShard) -> Result<()> {
        match self.publish(&shard) {
            Ok(info) => {
                self.index.shards.push(info);
                if let Some(builder) = &mut self.builder {
                    builder.recycle(shard);
                }
                Ok(())
            }
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }

    /// Writes the file of a shard: the compressed one if there is a compression, else the raw one.
    fn publish(&self, shard: &RawShard) -> Result<ShardInfo> {
        let hashes = &self.config.hashes;
        let name = ShardName::numbered(self.index.shards.len() as u64);
        let zip = self.config.compression.map(|compression| compression.compress(&shard.bytes));
        let zip = zip.transpose().map_err(|error| error.in_shard(&name))?;
        let zip_data = zip.as_ref().zip(self.config.compression).map(|(zip, compression)| {
            FileInfo::of(name.with_extension(compression.extension()), zip, hashes)
        });
        let raw_data = FileInfo::of(name, &shard.bytes, hashes);
        let info = ShardInfo::new(
            Arc::clone(&self.schema),
            &self.config,
            (raw_data, zip_data),
            None,
            shard.samples,
        );
        let basename = &info.stored().basename;
        durable::write(&basename.join_to(&self.dir), zip.as_ref().unwrap_or(&shard.bytes))
            .map_err(|error| error.in_shard(basename))?;
        Ok(info)
    }
}

impl Drop for Writer {
    /// Removes the shards of a dataset that was not completed, and the directories that were
    /// created for it. Failures are ignored: without an index the files are no dataset.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // The index goes first: there must never be one without its shards.
        if self.builder.is_none() {
            let _ = fs::remove_file(self.dir.join(INDEX));
        }
        for shard in &self.index.shards {
            let _ = fs::remove_file(shard.stored().basename.join_to(&self.dir));
        }
        let Some(created) = &self.created else { return };
        for directory in self.dir.ancestors() {
            // Fails, and should, if anybody else has put something there.
            if fs::remove_dir(directory).is_err() || directory == created {
                return;
            }
        }
    }
}

/// Makes sure that `dir` is an empty directory. Returns the outermost directory that it created.
fn prepare_directory(dir: &Path) -> Result<Option<PathBuf>> {
    let cannot = |error| Error::io(error, format!("cannot use the directory {}", dir.display()));
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(None),
            Some(_) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the directory {} is not empty", dir.display()),
                "choose another one, or delete it first if its data may go",
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
            let created = dir.ancestors().take_while(missing).last().map(Path::to_path_buf);
            fs::create_dir_all(dir).map_err(cannot)?;
            Ok(created)
        }
        Err(error) => Err(cannot(error)),
    }
}

fn unusable() -> Error {
    Error::new(
        ErrorKind::Io,
        "the writer has lost a shard that it could not write",
        "correct the earlier failure and write the dataset again",
    )
}

#[cfg(test)]
mod tests;
