//! Writing a dataset: samples are gathered into shards, compressed, hashed and published.
//!
//! Files appear under their final names only when they are complete, and `index.json` last of all.
//! A directory without an index is no dataset, so a run that dies leaves nothing that lies, and
//! [`Writer::resume`] goes on where it stopped.
//!
//! The caller's thread encodes samples; full shards are finished by threads of the writer. What
//! they write does not depend on how many they are.

mod output;
mod pool;
mod publish;
mod recover;
mod rows;
mod timings;

use std::num::NonZero;
use std::sync::{Arc, OnceLock};
use std::thread;

pub use output::Output;
pub use timings::Timings;

use crate::format::{
    Compression, Format, HashAlgorithm, Index, Schema, ShardBuilder, ShardConfig, ShardInfo, Value,
};
use crate::storage::{RemoteOptions, Stop};
use crate::{Error, ErrorKind, Result};
use output::Place;
use pool::Pool;
use publish::Publisher;

/// How to write a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterOptions {
    /// The layout of the samples. Default: MDS.
    pub format: Format,
    /// The compression of the shards. Default: none.
    pub compression: Option<Compression>,
    /// The hashes to record for every file, in ascending order of their names. Default: none.
    pub hashes: Vec<HashAlgorithm>,
    /// The largest size of a shard before compression, in bytes, below 4 GiB. `None` or 0 for no
    /// limit but that of the format. Default: 64 MiB.
    pub size_limit: Option<u64>,
    /// How many threads finish shards (hash, compress, write, upload) while the caller's encodes
    /// samples. With 1 the caller's thread does it all. `None` or 0 for one for each core, the
    /// default. The memory at its peak is below three times the size limit for each thread.
    pub threads: Option<usize>,
    /// Time limit and attempts of uploads. Default: those of downloads.
    pub remote: RemoteOptions,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            format: Format::Mds,
            compression: None,
            hashes: Vec::new(),
            size_limit: Some(1 << 26),
            threads: None,
            remote: RemoteOptions::default(),
        }
    }
}

impl From<ShardConfig> for WriterOptions {
    fn from(config: ShardConfig) -> Self {
        let ShardConfig { format, compression, hashes, size_limit } = config;
        Self { format, compression, hashes, size_limit, ..Self::default() }
    }
}

impl WriterOptions {
    /// What the shards repeat of it.
    fn config(&self, schema: &Schema) -> Result<ShardConfig> {
        HashAlgorithm::check_sorted(&self.hashes)?;
        let size_limit = self.size_limit.filter(|&limit| limit > 0);
        if let Some(limit) = size_limit.filter(|&limit| limit > u64::from(u32::MAX)) {
            return Err(Error::invalid(
                format!("the size limit of {limit} bytes is too large"),
                "give at most 4294967295: offsets in a shard have 32 bits",
            ));
        }
        self.format.check(schema)?;
        Ok(ShardConfig {
            format: self.format.clone(),
            compression: self.compression,
            hashes: self.hashes.clone(),
            size_limit,
        })
    }

    /// How many threads finish shards: [`threads`](Self#structfield.threads), or one for each core.
    pub fn threads(&self) -> usize {
        let all = || thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.filter(|&threads| threads > 0).unwrap_or_else(all)
    }
}

/// Writes samples into a new dataset.
///
/// [`finish`](Self::finish) completes the dataset. A writer that is dropped before removes what it
/// wrote on this machine (objects at a remote stay, without an index); [`abandon`](Self::abandon)
/// keeps the complete shards instead, for [`resume`](Self::resume). A writer that resumed keeps
/// them when dropped, since they hold the work of an earlier run. The parts of a large shard that was on
/// its way to a bucket are taken back, as [`put_file`](crate::storage::Remote::put_file) says.
///
/// Only one writer at a time may use a folder or an address. A folder is locked, and a second writer
/// refused (where the file system knows locks). At an address nothing locks it out, but of two that write different datasets one at most succeeds, and the other fails with
/// `AlreadyExists`: a writer looks before each upload whether an index has appeared, at the end whether
/// the remote has its shards in their sizes, and puts its index only where none is (on a plain web
/// server it looks, then puts). It does not see a shard of the other one that was on its way when the
/// index was put, or has the very same size, or lies on a web server, which lists nothing. Readers
/// notice such a shard by its size or, if the index has hashes, by them.
///
/// ```
/// use mds::format::{Encoding, Schema};
/// use mds::{Writer, WriterOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let parent = tempfile::tempdir()?;
/// # let dir = parent.path().join("train");
/// let schema = Schema::new([("id", Encoding::Int)])?;
/// let mut writer = Writer::create(&dir, schema.clone(), WriterOptions::default())?;
/// for id in 0..70 {
///     writer.write(&[id.into()])?;
/// }
/// writer.abandon()?; // or the machine stops
///
/// let mut writer = Writer::resume(&dir, schema, WriterOptions::default())?;
/// for id in writer.samples()..100 {
///     writer.write(&[(id as i64).into()])?;
/// }
/// assert_eq!(writer.finish()?.samples(), 100);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Writer {
    place: Place,
    pool: Pool,
    schema: Arc<Schema>,
    threads: usize,
    /// `None` once the last shard has been taken.
    builder: Option<ShardBuilder>,
    samples: u64,
    bytes: u64,
    /// Set when a shard could not be published: its samples are lost, so the dataset must not be
    /// completed without them.
    failed: bool,
    /// Whether the shards stay when this is dropped.
    keep: bool,
}

impl Writer {
    /// Begins a new dataset of samples of `schema` at `out`. A folder is created, with its parents.
    ///
    /// # Errors
    /// `AlreadyExists` if the directory is not empty, another writer is at work in it, or the remote has an index,
    /// `InvalidArgument` if an option is out of range, and as the file system or the remote fails.
    pub fn create(out: impl Into<Output>, schema: Schema, options: WriterOptions) -> Result<Self> {
        let config = options.config(&schema)?;
        let place = Place::create(out.into(), &options.remote)?;
        Ok(Self::at(place, schema, config, options.threads()))
    }

    /// Goes on with a dataset whose writer died or was [abandoned](Self::abandon), with the same
    /// schema and options ([`threads`](WriterOptions#structfield.threads) and
    /// [`remote`](WriterOptions::remote) may differ). A folder that is empty or missing begins a
    /// new one.
    ///
    /// Every shard up to the first gap or damage is checked and kept; what lies beyond is removed,
    /// with the temporary files of the dead writer. [`samples`](Self::samples) then says how many
    /// samples are there: go on with the one of this number, and the dataset is byte for byte what
    /// it would have been. At a remote, shards that are there with the right size are not uploaded
    /// again. If the remote has the dataset whole, that of the folder can be completed, and gets no
    /// more samples.
    ///
    /// # Errors
    /// `AlreadyExists` if the dataset is complete, another writer is at work on it, or the remote holds another one;
    /// `InvalidArgument`, with the difference, if the shards were written with another schema or
    /// other options, and if `out` is a remote alone, which leaves nothing here to resume from;
    /// and as the file system or the remote fails.
    pub fn resume(out: impl Into<Output>, schema: Schema, options: WriterOptions) -> Result<Self> {
        let config = options.config(&schema)?;
        let place = Place::resume(out.into(), &options.remote)?;
        let shown = place.shown();
        let mut writer = Self::at(place, schema, config, options.threads());
        writer.keep = true;
        writer.recover().map_err(|error| error.in_dataset(shown))?;
        Ok(writer)
    }

    /// Goes on with a dataset at a remote alone whose writer died, after the shards that were
    /// [complete](Self::complete_shards) then; the rest is as in [`resume`](Self::resume). Of shards
    /// that are not there with the right size, those from the first of them on are left out, and
    /// written again.
    ///
    /// # Errors
    /// `AlreadyExists` if the remote has an index, `InvalidArgument` if `out` is no remote alone or
    /// the shards are not those of this schema and these options; and as the remote fails.
    pub fn resume_after(
        out: impl Into<Output>,
        schema: Schema,
        options: WriterOptions,
        mut shards: Vec<ShardInfo>,
    ) -> Result<Self> {
        let config = options.config(&schema)?;
        let place = Place::create(out.into(), &options.remote)?;
        let (false, Some(remote)) = (place.is_local(), place.remote.clone()) else {
            return Err(Error::invalid(
                "a folder is resumed from the shards in it",
                "use Writer::resume",
            ));
        };
        let mut writer = Self::at(place, schema, config, options.threads());
        let publisher = &writer.pool.publisher;
        for number in 0..shards.len() {
            let shard = &shards[number];
            let name = publisher.stored_name(&publisher.name(number as u64));
            if shard.schema() != &publisher.schema || shard.data().stored().basename != name {
                return Err(Error::invalid(
                    "the shard was written with another schema or other options",
                    "resume with those that the dataset was begun with",
                )
                .in_shard(&shard.data().stored().basename));
            }
            let mut is_there = true;
            for file in shard.files().map(|file| file.stored()) {
                is_there &= remote.known_size(file.basename.as_str())? == Some(file.bytes);
            }
            if !is_there {
                shards.truncate(number);
                break;
            }
        }
        let head = writer.builder.as_ref().map_or(0, |builder| builder.config_text().len() as u64);
        writer.samples = shards.iter().map(|shard| shard.samples).sum();
        // Of what a shard has beside its samples: their number, the offsets, the configuration.
        let beside = |shard: &ShardInfo| 4 * (shard.samples + 2) + head;
        let samples_of = |shard: &ShardInfo| shard.raw_data.bytes.saturating_sub(beside(shard));
        writer.bytes = shards.iter().map(samples_of).sum();
        writer.pool.resume_at(shards);
        Ok(writer)
    }

    fn at(place: Place, schema: Schema, config: ShardConfig, threads: usize) -> Self {
        let schema = Arc::new(schema);
        let builder = ShardBuilder::new(&schema, config.clone());
        let publisher = Publisher {
            folder: place.folder.clone(),
            local: place.is_local(),
            remote: place.remote.clone(),
            schema: Arc::clone(&schema),
            config,
            stop: Stop::new(),
            published: OnceLock::new(),
            timings: Arc::default(),
        };
        Self {
            place,
            pool: Pool::new(publisher, threads),
            schema,
            threads,
            builder: Some(builder),
            samples: 0,
            bytes: 0,
            failed: false,
            keep: false,
        }
    }

    fn recover(&mut self) -> Result<()> {
        let Some(builder) = &mut self.builder else { return Err(unusable()) };
        let publisher = &self.pool.publisher;
        let mut recovered = recover::recover(publisher, builder.config_text(), self.threads)?;
        if let Some(remote) = &publisher.remote
            && recover::is_published(remote, &recovered.entries)?
        {
            publisher.published.get_or_init(|| recovered.entries.clone());
        }
        self.samples = recovered.entries.iter().map(|entry| entry.samples).sum();
        self.bytes = recovered.bytes;
        // The last shard may have been closed early, by `finish`: it is filled again. Its file
        // stays until the new one takes its place.
        if let Some((raw, table)) = recovered.last {
            builder.restore(&raw, &table)?;
            recovered.entries.pop();
        }
        recover::upload_missing(publisher, &recovered.entries)?;
        self.pool.resume_at(recovered.entries);
        Ok(())
    }

    /// The columns, in the order in which [`write`](Self::write) takes their values.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Adds a sample: one value for each column, in the order of [`Schema::columns`].
    ///
    /// # Errors
    /// `InvalidArgument`, naming sample and column, if a value does not fit; the writer can go on
    /// without this sample. As the file system or the remote fails, if a shard, be it an earlier
    /// one, cannot be published, and `AlreadyExists` if another program has completed a dataset at the
    /// remote meanwhile; the writer then refuses to go on.
    pub fn write(&mut self, values: &[Value<'_>]) -> Result<()> {
        let result = self.check_usable().and_then(|()| self.encode(values));
        result.map_err(|error| error.in_dataset(self.place.shown()))
    }

    /// Encodes a sample right behind those of the shard at hand, and moves it if it belongs to the
    /// next one.
    fn encode(&mut self, values: &[Value<'_>]) -> Result<()> {
        let Some(builder) = self.builder.as_mut() else { return Err(unusable()) };
        let format = &self.pool.publisher.config.format;
        let length = builder
            .encode(|out| format.append_sample(&self.schema, values, out))
            .map_err(|error| error.at_sample(self.samples))?;
        if builder.rolls_over(length) || builder.check_size(length).is_err() {
            let sample = builder.tail(length);
            return self.append(&sample);
        }
        builder.count(length);
        self.samples += 1;
        self.bytes += length as u64;
        Ok(())
    }

    /// Adds several samples, encoded on as many threads as the writer has. This pays where
    /// encoding takes long: JSON, numbers as text, images. The dataset is the same as with
    /// [`write`](Self::write) for each row.
    ///
    /// # Errors
    /// As [`write`](Self::write). The rows before the one at fault have been added, it and those
    /// after it have not; [`samples`](Self::samples) tells how many there are.
    pub fn write_rows<'v>(&mut self, rows: &[impl AsRef<[Value<'v>]> + Sync]) -> Result<()> {
        self.add_rows(rows).map_err(|error| error.in_dataset(self.place.shown()))
    }

    fn add_rows<'v>(&mut self, rows: &[impl AsRef<[Value<'v>]> + Sync]) -> Result<()> {
        self.check_usable()?;
        let schema = Arc::clone(&self.schema);
        let format = self.pool.publisher.config.format.clone();
        rows::encode(&format, &schema, rows, self.threads, |encoded| {
            encoded.samples().try_for_each(|sample| self.append(sample))?;
            match encoded.refused.take() {
                Some(error) => Err(error.at_sample(self.samples)),
                None => self.check_usable(),
            }
        })
    }

    /// Adds a sample that is encoded already, such as one read from a shard with the same columns.
    /// Only the sizes of its columns are checked, or a line of text as a whole.
    ///
    /// # Errors
    /// `Corrupt`, naming the sample, if the bytes are not a sample of these columns; the writer can
    /// go on without it. Else as [`write`](Self::write).
    pub fn write_encoded(&mut self, sample: &[u8]) -> Result<()> {
        let result = self.check_usable().and_then(|()| {
            let checked = match &self.pool.publisher.config.format {
                Format::Mds => self.schema.column_bytes(sample, 0).map(drop),
                // A line must be parsed to be checked.
                text => text.decode_sample(&self.schema, sample).map(drop),
            };
            checked.map_err(|error| error.at_sample(self.samples))?;
            self.append(sample)
        });
        result.map_err(|error| error.in_dataset(self.place.shown()))
    }

    /// Refuses to go on after a failure, and reports one that nobody has seen yet.
    fn check_usable(&mut self) -> Result<()> {
        if self.failed || self.builder.is_none() {
            return Err(unusable());
        }
        self.pool.check().inspect_err(|_| self.failed = true)
    }

    /// The steps of [`ShardBuilder::push`], but a full shard is handed in before the next one takes
    /// memory.
    fn append(&mut self, sample: &[u8]) -> Result<()> {
        let Some(builder) = self.builder.as_mut() else { return Err(unusable()) };
        builder.check_size(sample.len()).map_err(|error| error.at_sample(self.samples))?;
        if builder.rolls_over(sample.len()) {
            let shard = builder.take();
            let submitted = self.pool.submit(shard);
            submitted.inspect_err(|_| self.failed = true)?;
            self.pool.spares().for_each(|shard| builder.recycle(shard));
        }
        builder.add(sample);
        self.samples += 1;
        self.bytes += sample.len() as u64;
        Ok(())
    }

    /// The number of samples written so far, those that a resumed writer found included.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The size of the encoded samples written so far, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entries of the shards that are complete, in order, up to the first that is not: what
    /// [`resume_after`](Self::resume_after) goes on from.
    ///
    /// # Errors
    /// As the file system or the remote fails, if a shard could not be published.
    pub fn complete_shards(&mut self) -> Result<Vec<ShardInfo>> {
        self.pool.done().map_err(|error| error.in_dataset(self.place.shown()))
    }

    /// What this writer spends its time on; the times grow as it works.
    pub fn timings(&self) -> Arc<Timings> {
        Arc::clone(&self.pool.publisher.timings)
    }

    /// Publishes the last shard and then the index, which makes the output a dataset.
    ///
    /// # Errors
    /// As the file system or the remote fails; there is then no index. With a folder and a remote
    /// the index goes to the remote first: if only the folder's cannot be written, the remote is
    /// complete. The shards in the folder then stay for [`resume`](Self::resume), and the error
    /// says what is where. `AlreadyExists` if another program has written to the remote meanwhile.
    pub fn finish(mut self) -> Result<Index> {
        let index = self.complete().map_err(|error| error.in_dataset(self.place.shown()))?;
        self.keep = true;
        Ok(index)
    }

    fn complete(&mut self) -> Result<Index> {
        self.check_usable()?;
        if let Some(shard) = self.builder.take().and_then(|mut builder| builder.take_last()) {
            self.pool.submit(shard).inspect_err(|_| self.failed = true)?;
        }
        let shards = self.pool.finish().inspect_err(|_| self.failed = true)?;
        let index = Index { shards };
        let published = self.place.publish_index(&index, &self.pool.publisher.stop);
        published.inspect_err(|_| {
            self.place.remove_index();
            // The remote may have all of it: then the folder lacks no more than the index.
            self.keep |= self.place.is_both();
        })?;
        Ok(index)
    }

    /// A function that stops this writer from another thread: an upload that is on its way is then given
    /// up, and [`write`](Self::write) (from the next shard on) and [`finish`](Self::finish) return an
    /// error soon.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let stop = self.pool.publisher.stop.clone();
        move || stop.raise()
    }

    /// Stops without an index and leaves the complete shards for [`resume`](Self::resume) or
    /// [`resume_after`](Self::resume_after), which takes the entries that this returns, as an
    /// error elsewhere in a program may ask for. Waits for the shards in work; the samples of the
    /// shard at hand are dropped.
    ///
    /// # Errors
    /// As the file system or the remote fails, if a shard in work cannot be published. Those
    /// before it are there.
    pub fn abandon(mut self) -> Result<Vec<ShardInfo>> {
        self.keep = true;
        self.pool.finish().map_err(|error| error.in_dataset(self.place.shown()))
    }
}

impl Drop for Writer {
    /// Removes the shards of a dataset that was not completed, and the directories that were
    /// created for it. Failures are ignored: without an index the files are no dataset.
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        self.pool.publisher.stop.raise();
        self.pool.close();
        // The index went first, in `complete`: there must never be one without its shards.
        (0..self.pool.submitted()).for_each(|number| self.pool.publisher.remove(number));
        self.place.remove_directories();
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
