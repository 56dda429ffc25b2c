//! Reading one shard: its file mapped into memory, its samples as slices of it.
//!
//! # Borrowed and owned
//! [`SampleRef`] borrows from the [`Shard`]: nothing is copied, values are slices of the mapped
//! file. [`Sample`] is the same with a share in the shard instead of a borrow, to be kept or sent
//! to other threads. [`Field`]s read columns of a known type without going through
//! [`Value`](crate::format::Value), and [`Shard::to_record_batch`] gives a shard to what speaks
//! Arrow.
//!
//! # What is checked when
//! [`Shard::open`] compares sizes with the index and, unless told not to, the quickest hash. The
//! table of offsets is checked as a whole at the first sample, once. The lengths within a sample
//! are checked whenever it is read, which costs a few nanoseconds; so do texts, which must be
//! UTF-8. No bytes, whatever they are, make the reading code panic or read outside of the file.
//!
//! # Why mapping is sound
//! The bytes of a mapped file must not change or vanish while the map lives. Files of a cache are
//! written under another name, renamed when complete, and from then on only ever unlinked, never
//! rewritten or truncated; an unlinked file lives on until it is unmapped. A dataset that is read
//! in place belongs to somebody else: that nobody truncates or rewrites its files meanwhile is a
//! condition of mapping them. Whoever cannot promise that sets [`ShardOptions::copy`], and the
//! file is read into memory, in which case a change is noticed by the hash or the size, or is
//! simply not seen.
//!
//! ```
//! use mds::format::{Encoding, Index, NdArray, Schema};
//! use mds::{Shard, ShardOptions, Writer, WriterOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let parent = tempfile::tempdir()?;
//! # let dir = parent.path().join("train");
//! let schema = Schema::new([("text", Encoding::Str), ("ids", "ndarray:int32".parse()?)])?;
//! let mut writer = Writer::create(&dir, schema, WriterOptions::default())?;
//! writer.write(&[NdArray::from_i32(&[5, 7]).into(), "two tokens".into()])?;
//! let index = writer.finish()?;
//!
//! let shard = Shard::open(&dir, &index.shards[0], ShardOptions::default())?;
//! let mut fields = shard.fields();
//! let (text, ids) = (fields.field::<str>("text"), fields.field::<[i32]>("ids"));
//! fields.build()?; // names everything that is not there or of another type
//! for sample in shard.samples()? {
//!     let text: &str = sample.get(text)?;
//!     let ids = sample.get(ids)?; // borrowed if the numbers happen to be aligned, else copied
//!     assert_eq!((text, ids.as_ref()), ("two tokens", &[5, 7][..]));
//! }
//! # Ok(())
//! # }
//! ```

mod field;
mod file;
mod sample;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    Damage, FileInfo, Format, HashAlgorithm, Schema, ShardFile, ShardInfo, ShardName, ShardTable,
};
use crate::storage::Remote;

pub use field::{Field, FieldType, Fields};
pub(crate) use file::{FileBytes, check_bytes, inside, map, not_out_of};
pub use sample::{Sample, SampleRef, Samples};

/// How a shard is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardOptions {
    /// Compare each file with one of its hashes in the index, where it has any: the one that is
    /// quickest to compute. Default: yes.
    pub validate_hash: bool,
    /// Read the file into memory instead of mapping it: for files that others may change.
    /// Default: no.
    pub copy: bool,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self { validate_hash: true, copy: false }
    }
}

impl ShardOptions {
    /// The same options without comparing hashes.
    #[must_use]
    pub const fn without_hashes(mut self) -> Self {
        self.validate_hash = false;
        self
    }

    /// The same options with the file read into memory.
    #[must_use]
    pub const fn copied(mut self) -> Self {
        self.copy = true;
        self
    }
}

/// A shard in memory. Cheap to share between threads.
#[derive(Debug)]
pub struct Shard {
    data: FileBytes,
    /// The file of offsets, for formats with one.
    meta: Option<FileBytes>,
    schema: Arc<Schema>,
    format: Format,
    name: ShardName,
    /// How messages call the dataset, if it is known.
    dataset: Option<String>,
    declared_samples: u64,
    /// Set at first use, when it has been checked.
    table: OnceLock<ShardTable>,
    /// Made at first use.
    without_data: OnceLock<Arc<Self>>,
}

impl Shard {
    /// Opens a shard of the dataset in the directory `dir`: maps its raw file, or, where there is
    /// none, unpacks the compressed one into memory, as [`ShardFile::served_in`] chooses.
    ///
    /// # Errors
    /// `NotFound` if a file is not there, `Corrupt` if one does not agree with the index or leads
    /// out of the directory, and as the file system fails. The shard is named.
    pub fn open(dir: impl AsRef<Path>, info: &ShardInfo, options: ShardOptions) -> Result<Self> {
        let dir = dir.as_ref();
        let read = |file: ShardFile<'_>| {
            let file = file.served_in(dir);
            FileBytes::read(dir, file, info.compression, options)
                .map_err(|error| error.in_shard(&file.stored().basename))
        };
        let data = read(info.data())?;
        let meta = info.meta().map(read).transpose()?;
        Ok(Self::from_files(data, meta, info))
    }

    /// A whole shard of the dataset at `remote`, in memory, with every size and every hash that its
    /// index records checked. In a folder of this machine, the same files are read as by
    /// [`open`](Self::open).
    ///
    /// # Errors
    /// `Corrupt` if a file does not agree with the index, and as the remote fails.
    pub fn fetch(remote: &Remote, info: &ShardInfo) -> Result<Self> {
        let raw = |file: ShardFile<'_>| {
            let file = remote.folder().map_or(file, |folder| file.served_in(folder));
            let FileInfo { basename, bytes, .. } = file.stored();
            let stored = remote.get(basename.as_str(), *bytes).map_err(|e| e.in_shard(basename))?;
            file.stored().verify(&stored)?;
            let (Some(_), Some(compression)) = (file.zip, info.compression) else {
                return Ok(stored);
            };
            let raw = compression.decompress(&stored, file.raw.bytes)?;
            file.raw.verify(&raw)?;
            Ok::<_, Error>(raw)
        };
        let data = raw(info.data())?;
        let meta = info.meta().map(raw).transpose()?;
        Self::from_bytes(data, meta, info)
    }

    /// A shard from the bytes of its raw files: the data and, for formats with one, the offsets.
    ///
    /// # Errors
    /// `Corrupt` if their sizes are not those in `info`.
    pub fn from_bytes(data: Vec<u8>, meta: Option<Vec<u8>>, info: &ShardInfo) -> Result<Self> {
        let files = [Some(&data), meta.as_ref()];
        for (bytes, file) in files.into_iter().flatten().zip(info.files()) {
            check_bytes(bytes, file.raw, false)
                .map_err(|damage| Error::from(damage).in_shard(&file.raw.basename))?;
        }
        Ok(Self::from_files(FileBytes::Owned(data), meta.map(FileBytes::Owned), info))
    }

    /// The raw files of a shard in the folder of a cache; `None` if they are not there.
    pub(crate) fn open_cached(
        folder: &Path,
        info: &ShardInfo,
        options: ShardOptions,
    ) -> Result<Option<Self>> {
        let data = inside(folder, &info.raw_data.basename)?;
        let meta = info.raw_meta.as_ref().map(|meta| inside(folder, &meta.basename)).transpose()?;
        Self::open_raw(&data, meta.as_deref(), info, options, true)
    }

    /// The raw files at these paths, as they lie in a cache; `None` if one is not there.
    pub(crate) fn open_raw(
        data: &Path,
        meta: Option<&Path>,
        info: &ShardInfo,
        options: ShardOptions,
        hold: bool,
    ) -> Result<Option<Self>> {
        let Some(bytes) = FileBytes::map_raw(data, &info.raw_data, options, hold)? else {
            return Ok(None);
        };
        let meta = match (meta, &info.raw_meta) {
            (Some(path), Some(file)) => match FileBytes::map_raw(path, file, options, hold)? {
                Some(bytes) => Some(bytes),
                None => return Ok(None),
            },
            _ => None,
        };
        let shard = Self::from_files(bytes, meta, info);
        shard.table()?;
        Ok(Some(shard))
    }

    fn from_files(data: FileBytes, meta: Option<FileBytes>, info: &ShardInfo) -> Self {
        Self {
            data,
            meta,
            schema: Arc::clone(info.schema()),
            format: info.format.clone(),
            name: info.raw_data.basename.clone(),
            dataset: None,
            declared_samples: info.samples,
            table: OnceLock::new(),
            without_data: OnceLock::new(),
        }
    }

    /// A shard that is here for its columns and names only.
    pub(crate) fn without_bytes(info: &ShardInfo) -> Self {
        Self::from_files(FileBytes::Owned(Vec::new()), None, info)
    }

    /// The columns and names of this shard, for samples that are copied out of it.
    fn without_data(&self) -> Arc<Self> {
        let without_data = || Self {
            data: FileBytes::Owned(Vec::new()),
            meta: None,
            schema: Arc::clone(&self.schema),
            format: self.format.clone(),
            name: self.name.clone(),
            dataset: self.dataset.clone(),
            declared_samples: self.declared_samples,
            table: OnceLock::new(),
            without_data: OnceLock::new(),
        };
        Arc::clone(self.without_data.get_or_init(|| Arc::new(without_data())))
    }

    /// The same shard, whose errors name the dataset that it belongs to.
    pub(crate) fn of_dataset(mut self, shown: &str) -> Self {
        self.dataset = Some(shown.to_owned());
        self
    }

    /// Adds to an error where this shard is.
    fn located(&self, error: Error) -> Error {
        let error = error.in_shard(&self.name);
        match &self.dataset {
            Some(dataset) => error.in_dataset(dataset),
            None => error,
        }
    }

    /// The columns, in the order of their values.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The layout of the samples.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The name of the raw data file, as in the index.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The raw data file.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// The number of samples that the index declares; it is compared with the file's at the first
    /// sample.
    pub fn len(&self) -> usize {
        // Below 2^32, as checked when the index was parsed.
        self.declared_samples as usize
    }

    /// Whether the shard has no samples, which is legal.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The table of offsets, checked when it is first asked for.
    ///
    /// # Errors
    /// `Corrupt`, with the byte, if it is damaged.
    pub fn table(&self) -> Result<&ShardTable> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = self.parse_table().map_err(|error| self.located(error))?;
        Ok(self.table.get_or_init(|| table))
    }

    fn parse_table(&self) -> Result<ShardTable> {
        let Some(meta) = &self.meta else {
            return ShardTable::parse(&self.data, self.declared_samples);
        };
        let table = ShardTable::parse_meta(meta, self.declared_samples, self.data.len() as u64)?;
        let header = self.format.header(&self.schema);
        match self.data.get(..table.first_offset()) {
            Some(found) if found == header.as_bytes() => Ok(table),
            _ => Err(Error::from(Damage::HeaderLine).at_byte(0)),
        }
    }

    /// Sample `position` of the shard, counted from 0.
    ///
    /// # Errors
    /// `NotFound` if there is no such sample, `Corrupt` if the table of offsets is damaged.
    pub fn sample(&self, position: usize) -> Result<SampleRef<'_>> {
        let bytes = self.table()?.sample(&self.data, position);
        let bytes = bytes.map_err(|error| self.located(error))?;
        prefetch(bytes);
        Ok(SampleRef::new(self, position, bytes))
    }

    /// All samples in order, as slices of the file.
    ///
    /// # Errors
    /// `Corrupt` if the table of offsets is damaged.
    pub fn samples(&self) -> Result<Samples<'_>> {
        Ok(Samples::new(self, self.table()?))
    }

    /// Sample `position` with a share in the shard, which stays in memory as long as it lives.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn owned_sample(self: &Arc<Self>, position: usize) -> Result<Sample> {
        self.sample(position)?;
        Ok(Sample::new(Arc::clone(self), position, position as u64))
    }

    /// Starts a list of columns to read by their type.
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.schema)
    }
}

/// Has the processor fetch the beginning of a sample, all lines at once. A sample read at random is
/// in no cache of the processor, which itself only goes on fetching once it has seen a few misses.
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        const LINE: usize = 64;
        const LINES: usize = 128;
        for line in bytes.chunks(LINE).take(LINES) {
            // SAFETY: SSE, which has the instruction, is part of x86-64. It is a hint that reads
            // nothing, and the address is inside of a slice anyway.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// The recorded hash that is quickest to compute; one is enough to find damage.
pub(crate) fn quickest_hash(info: &FileInfo) -> Option<(HashAlgorithm, &str)> {
    const QUICK: [&str; 7] = ["xxh3_64", "xxh3_128", "xxh128", "xxh64", "xxh32", "sha1", "blake2b"];
    let rank = |name: &str| QUICK.iter().position(|quick| *quick == name).unwrap_or(QUICK.len());
    info.hashes
        .iter()
        .filter_map(|(name, hex)| Some((rank(name), name.parse().ok()?, hex.as_str())))
        .min_by_key(|(rank, ..)| *rank)
        .map(|(_, algorithm, hex)| (algorithm, hex))
}

/// A file that is in the index but not where it should be.
pub(crate) fn missing(path: &Path) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("{} does not exist, although index.json lists it", path.display()),
        "copy the file there or write the dataset again",
    )
}
