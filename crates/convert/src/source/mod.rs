//! Where documents come from: files on this machine, at a remote or on the hub.
//!
//! [`files_of_split`], [`files_of_pile`], [`files_of`] and [`shards_of`] name the files of a source in the order in which
//! they are converted. A [`SourceFile`] has parts that can be read at the same time, and a part gives chunks of documents:
//!
//! | kind of file | a document is | parts |
//! |---|---|---|
//! | JSON lines, plain, gzip or zstd | a line | one |
//! | text, plain, gzip or zstd | the file | one |
//! | Parquet | a row | its row groups |
//! | indexed dataset (`.bin` and `.idx`) | a document of token ids | one |
//! | shard of a streaming dataset | a sample of text or of token ids | one |

pub(crate) mod chunk;
mod dataset;
mod files;
mod indexed;
mod lines;
mod parquet;
mod remote;
mod split;
mod text;

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mds::ScratchFolder;
use mds::format::{Index, ShardInfo};
use mds::storage::Remote;

use self::chunk::Chunk;
use self::lines::ChunkReader;
use crate::error::{Error, ErrorKind, Result};
use crate::hub::{Hub, HubFile};
use crate::manifest::Position;
use crate::progress::{Counted, Meter};
use crate::statistics::Statistics;

pub use chunk::{BadDocument, Raw, Unit};
pub(crate) use files::is_file;
pub(crate) use remote::open as open_remote;
pub use split::{NamedSplit, Shares, Split, Task};

/// The dataset that is read when no source is named.
pub const HUB_DATASET: &str = "allenai/c4";
/// Its English part.
pub const HUB_FOLDER: &str = "en";

/// How a file's bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// `None` if it is not a name of a file of JSON lines.
    fn of(name: &str) -> Option<Self> {
        let json = |name: &str| name.ends_with(".json") || name.ends_with(".jsonl");
        if name.ends_with(".txt.zst") {
            None
        } else if name.ends_with(".zst") {
            Some(Self::Zstd)
        } else {
            Self::with_ending(name, json)
        }
    }

    /// `None` if it is not a name of a text file.
    fn of_text(name: &str) -> Option<Self> {
        Self::with_ending(name, |name| name.ends_with(".txt"))
    }

    fn with_ending(name: &str, fits: impl Fn(&str) -> bool) -> Option<Self> {
        if fits(name) {
            Some(Self::Plain)
        } else if name.strip_suffix(".gz").is_some_and(&fits) {
            Some(Self::Gzip)
        } else if name.strip_suffix(".zst").is_some_and(fits) {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

/// What the files of a source hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// JSON objects, one a line.
    JsonLines,
    /// The same; of a folder the files with the hub's names, in itself or its `en`, if there are any.
    C4,
    /// Text; each file is a document.
    Text,
    /// Rows.
    Parquet {
        /// The name of the column with the text.
        column: String,
    },
    /// Documents of token ids in the format of GPT-NeoX and Megatron.
    Indexed,
}

impl Format {
    /// `None` if it is not a name of such a file.
    fn kind_of(&self, name: &str) -> Option<Kind> {
        match self {
            Self::JsonLines | Self::C4 => Packing::of(name).map(Kind::Lines),
            Self::Text => Packing::of_text(name).map(Kind::Text),
            Self::Parquet { column } => {
                name.ends_with(".parquet").then(|| Kind::Parquet(column.clone()))
            }
            Self::Indexed => name.ends_with(".bin").then_some(Kind::Indexed),
        }
    }

    /// How the names of such files end, for messages.
    fn endings(&self) -> &'static str {
        match self {
            Self::JsonLines | Self::C4 => ".json, .jsonl, .json.gz, .jsonl.gz or .zst",
            Self::Text => ".txt, .txt.gz or .txt.zst",
            Self::Parquet { .. } => ".parquet",
            Self::Indexed => ".bin",
        }
    }

    /// Whether the folders in a folder belong to the source.
    fn is_deep(&self) -> bool {
        *self == Self::Text
    }

    /// Whether a file or folder of this name is not meant: beside texts lie hidden notes of programs, such as `._a.txt` and
    /// `.ipynb_checkpoints`.
    fn leaves_out(&self, name: &str) -> bool {
        *self == Self::Text && name.starts_with('.')
    }

    /// Whether the path that a pattern matches has no name that is left out, but for those that the pattern names by their
    /// dot.
    fn takes(&self, path: &str, pattern: &str) -> bool {
        let named = |name: &str| {
            let mut parts = pattern.split('/').filter(|part| part.starts_with('.'));
            parts.any(|part| glob::Pattern::new(part).is_ok_and(|part| part.matches(name)))
        };
        path.split('/').all(|name| !self.leaves_out(name) || named(name))
    }
}

/// One file of a source.
#[derive(Debug, Clone)]
pub struct SourceFile {
    name: String,
    bytes: u64,
    /// What its listing tells this version of it from others by; nothing of files of this machine.
    version: Option<String>,
    kind: Kind,
    place: Place,
}

/// How a file is read.
#[derive(Debug, Clone)]
enum Kind {
    Lines(Packing),
    Text(Packing),
    /// With the name of the column.
    Parquet(String),
    Indexed,
    /// With the name of the column.
    Shard(Arc<ShardInfo>, String),
}

#[derive(Debug, Clone)]
enum Place {
    Local(PathBuf),
    /// A folder, and the path of the object in it.
    Remote(Remote, String),
    Hub(Hub, HubFile),
    /// The folder of a shard, which has names of its own.
    Folder(Remote),
}

/// The files of `split` in `source`, in name order; in `allenai/c4` on the hub if it is `None`.
///
/// `source` is a file, a folder or a glob pattern, or the address of one (a web server and the hub's
/// `hf://` list nothing, so that of one file). Where any file has one of the hub's names
/// (`c4-train.*`, `c4-validation.*`), in the folder itself or in its `en`, the split picks its
/// own; else it gets all files. `alone` says that no other split is asked for: files whose names
/// do not tell splits apart must not be copied into two of them, but into parts of one.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no such source or no file of the split in it,
/// [`ErrorKind::InvalidArgument`] if the files do not tell splits apart and the split is not alone,
/// [`ErrorKind::Hub`] if the hub or the remote fails.
pub fn files_of_split(
    source: Option<&str>,
    split: NamedSplit,
    alone: bool,
) -> Result<Vec<SourceFile>> {
    match source {
        Some(source) => files::of_split(source, split, alone),
        None => files_on_hub(split, HUB_FOLDER),
    }
}

/// The files of the Pile's `split` in `source`, in name order: those in its folder of this name, or called by it
/// (`val.jsonl.zst`); else all files of the source if the split is `alone`.
///
/// # Errors
/// As [`files_of_split`].
pub fn files_of_pile(source: &str, split: NamedSplit, alone: bool) -> Result<Vec<SourceFile>> {
    files::of_pile(source, split, alone)
}

/// The files of one format in `source`, in name order: a file, a folder or a glob pattern, or the address of one.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is none, [`ErrorKind::Hub`] if the remote fails.
pub fn files_of(source: &str, format: &Format) -> Result<Vec<SourceFile>> {
    files::candidates(source, format)
}

/// The shards of the streaming dataset in the folder `source`, a path or an address, of which `column` is read: `text` or
/// else `tokens` if it is `None`.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no dataset, [`ErrorKind::InvalidArgument`] if it has no such column,
/// [`ErrorKind::Hub`] if its index cannot be read.
pub fn shards_of(source: &str, column: Option<&str>) -> Result<Vec<SourceFile>> {
    dataset::shards(source, column)
}

/// What the dataset at `source` was made of, if one of these programs has made it.
///
/// # Errors
/// As the remote fails.
pub(crate) fn statistics_of(source: &str) -> Result<Option<Statistics>> {
    dataset::statistics(source)
}

/// The files of `split` in the folder `subset` of `allenai/c4` on the hub, in name order.
///
/// # Errors
/// As [`files_of_split`].
pub fn files_on_hub(split: NamedSplit, subset: &str) -> Result<Vec<SourceFile>> {
    let hub = Hub::from_env()?;
    let mut files = Vec::new();
    // Mirrors of the English part alone have its files at the top.
    let folders = if subset == HUB_FOLDER { &[HUB_FOLDER, ""][..] } else { &[subset] };
    for &folder in folders {
        let listed = hub.dataset_files(HUB_DATASET, folder)?.unwrap_or_default();
        files.extend(listed.into_iter().filter_map(|file| {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            let packing = Packing::of(name)?;
            (NamedSplit::of_hub_name(name) == Some(split.whole())).then(|| SourceFile {
                name: file.path.clone(),
                bytes: file.bytes,
                version: file.oid.as_ref().map(|oid| format!("oid {oid}")),
                kind: Kind::Lines(packing),
                place: Place::Hub(hub.clone(), file),
            })
        }));
        if !files.is_empty() {
            break;
        }
    }
    if files.is_empty() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "{} holds no {}*.json.gz, {}",
                hub.address(&format!("datasets/{HUB_DATASET}")),
                split.hub_prefix(),
                if folders.len() > 1 {
                    format!("with or without {subset}/")
                } else {
                    format!("in {subset}/")
                }
            ),
            "check HF_ENDPOINT, or read local files with --source",
        ));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

impl SourceFile {
    /// How messages name the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn last_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default()
    }

    /// What its name says of the split that it belongs to.
    fn split(&self) -> Option<NamedSplit> {
        NamedSplit::of_hub_name(self.last_name())
    }

    /// Its size as stored, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is another once the file is written again, as far as that can be told without reading it: when it was changed
    /// last, what a listing tells its version by, and of a shard what its index says of it.
    pub(crate) fn version(&self) -> Option<String> {
        let version = match (&self.place, &self.kind) {
            (Place::Local(path), Kind::Indexed) => {
                joined([modified(path), modified(&path.with_extension("idx"))])
            }
            (Place::Local(path), _) => modified(path),
            (Place::Folder(folder), Kind::Shard(shard, _)) => match folder.folder() {
                Some(folder) => dataset::modified(folder, shard),
                None => self.version.clone(),
            },
            _ => self.version.clone(),
        };
        match &self.kind {
            Kind::Shard(shard, _) => joined([version, Some(dataset::entry(shard))]),
            _ => version,
        }
    }

    /// The files of this machine that it is read from, its index included; none of what lies elsewhere.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        match (&self.place, &self.kind) {
            (Place::Local(path), Kind::Indexed) => vec![path.clone(), path.with_extension("idx")],
            (Place::Local(path), _) => vec![path.clone()],
            (Place::Folder(remote), Kind::Shard(shard, _)) => {
                let Some(folder) = remote.folder() else { return Vec::new() };
                let data = shard.data().served_in(folder).stored().basename.join_to(folder);
                vec![data, folder.join(Index::FILE_NAME)]
            }
            _ => Vec::new(),
        }
    }

    /// Whether a document of it is a list of token ids, and not text.
    pub fn holds_ids(&self) -> bool {
        match &self.kind {
            Kind::Lines(_) | Kind::Text(_) | Kind::Parquet(_) => false,
            Kind::Indexed => true,
            Kind::Shard(shard, column) => dataset::holds_ids(shard, column),
        }
    }

    /// Whether it is one document, so that there may be very many of its kind.
    pub(crate) fn is_document(&self) -> bool {
        matches!(self.kind, Kind::Text(_))
    }

    /// Reads all documents on this thread, in order, with their numbers: of lines from 1, else from 0.
    ///
    /// # Errors
    /// As the file, the remote or the hub fails, and if what is read breaks the rules of its format.
    pub fn for_each(&self, mut each: impl FnMut(u64, Raw<'_>)) -> Result<()> {
        let meter = Arc::default();
        for part in self.parts(Position::default())? {
            for chunk in part.chunks(&meter)? {
                chunk?.0.documents().for_each(|(number, raw)| each(number, raw));
            }
        }
        Ok(())
    }

    /// The parts from `from` on, in order. They can be read at the same time.
    pub(crate) fn parts(&self, from: Position) -> Result<Vec<Part>> {
        let name: Arc<str> = self.name().into();
        match &self.kind {
            Kind::Lines(packing) => {
                let (file, packing) = (self.clone(), *packing);
                Ok(vec![Part::new(name, move |meter| file.lines(packing, from, meter))])
            }
            // Its only document lies before.
            Kind::Text(_) if from.units > 0 => Ok(Vec::new()),
            Kind::Text(packing) => {
                let (file, packing) = (self.clone(), *packing);
                Ok(vec![Part::new(name, move |meter| {
                    let (reader, failed) = file.reader(packing, meter)?;
                    let chunk = text::chunk(reader)
                        .map_err(failed)
                        .or_else(|e| text::unreadable(e, &file.name));
                    let end = Position { units: 1, ..from };
                    Ok(Box::new(std::iter::once(chunk.map(|chunk| (chunk, end)))) as Chunks)
                })])
            }
            Kind::Parquet(column) => {
                let (path, held) = self.fetched(&[""])?;
                parquet::parts(&parquet::ParquetFile { name, path, held }, column, from)
            }
            Kind::Indexed => {
                let (path, held) = self.fetched(&["", ".idx"])?;
                Ok(vec![indexed::part(name, path.with_extension(""), held, from)])
            }
            Kind::Shard(shard, column) => match &self.place {
                Place::Folder(folder) => {
                    let (folder, shard) = (folder.clone(), Arc::clone(shard));
                    Ok(vec![dataset::part(name, folder, shard, column.clone(), from)])
                }
                _ => Err(Error::internal("a shard is in no folder")),
            },
        }
    }

    /// Whether what lies before `place` is what it was. That can be told of files of lines; else nothing may lie there.
    pub(crate) fn begins_like(&self, place: Position) -> Result<bool> {
        match self.kind {
            _ if place.units == 0 => Ok(true),
            Kind::Lines(packing) => {
                let (mut reader, failed) = self.reader(packing, &Arc::default())?;
                let (read, hash) = lines::hash_of(&mut reader, place.offset).map_err(failed)?;
                Ok(read == place.offset && hash.digest() == place.prefix)
            }
            _ => Ok(false),
        }
    }

    fn lines(&self, packing: Packing, from: Position, meter: &Arc<Meter>) -> Result<Chunks> {
        let (reader, failed) = self.reader(packing, meter)?;
        let mut reader = ChunkReader::new(reader);
        reader.skip(from.offset, from.units).map_err(&failed)?;
        if from.offset > 0 && reader.place().2 != from.prefix {
            return Err(Error::invalid(
                format!(
                    "{} does not begin with the {} lines that were converted of it",
                    self.name, from.units
                ),
                "put the old file back to go on with it, or begin anew with --restart",
            ));
        }
        Ok(Box::new(std::iter::from_fn(move || {
            let lines = reader.place().1;
            let chunk =
                reader.next().map_err(|e| failed(e).after(Unit::Line, lines)).transpose()?;
            let (offset, units, prefix) = reader.place();
            Some(chunk.map(|chunk| (chunk, Position { file: from.file, offset, units, prefix })))
        })))
    }

    /// Opens it for reading, uncompressed; its stored bytes are counted by `meter`. What failed reads mean is said by the
    /// function.
    #[expect(
        clippy::disallowed_types,
        reason = "sources declare no size; they are read as a stream, a line at a time"
    )]
    fn reader(
        &self,
        packing: Packing,
        meter: &Arc<Meter>,
    ) -> Result<(Box<dyn Read>, impl Fn(std::io::Error) -> Error + use<>)> {
        let stored: Box<dyn Read> = match &self.place {
            Place::Local(path) => {
                Box::new(std::fs::File::open(path).map_err(|e| Error::io(e, "open", path))?)
            }
            Place::Remote(folder, path) => Box::new(folder.reader(path, self.bytes)),
            Place::Hub(hub, file) => Box::new(hub.open_dataset_file(HUB_DATASET, file)?),
            Place::Folder(_) => return Err(Error::internal("a shard is read as a stream")),
        };
        let count: Arc<AtomicU64> = Arc::default();
        let counted =
            Counted { inner: stored, meter: Arc::clone(meter), count: Arc::clone(&count) };
        let name = self.name.clone();
        let failed = move |e| Error::from_read(e, &name, count.load(Ordering::Relaxed));
        let buffered = BufReader::with_capacity(128 << 10, counted);
        let reader: Box<dyn Read> = match packing {
            Packing::Plain => Box::new(buffered),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
            Packing::Zstd => {
                Box::new(zstd::stream::read::Decoder::with_buffer(buffered).map_err(&failed)?)
            }
        };
        Ok((reader, failed))
    }

    /// The path of the file on this machine, to which a remote one is copied with its siblings: those whose names end
    /// otherwise. The copies go when the folder is dropped.
    fn fetched(&self, endings: &[&str]) -> Result<(PathBuf, Option<Arc<ScratchFolder>>)> {
        let (folder, object) = match &self.place {
            Place::Local(path) => return Ok((path.clone(), None)),
            Place::Remote(folder, object) => (folder, object),
            _ => return Err(Error::internal("a file of the hub is read from the middle")),
        };
        let copies = ScratchFolder::create("convert-fetched-")
            .map_err(|e| Error::io(e, "create a folder in", &std::env::temp_dir()))?;
        let last = Path::new(object).file_name().unwrap_or_default();
        let path = copies.path().join(last);
        for ending in endings {
            let (object, path) = match ending.strip_prefix('.') {
                None => (object.clone(), path.clone()),
                Some(extension) => {
                    let object = Path::new(object).with_extension(extension);
                    (object.to_string_lossy().into_owned(), path.with_extension(extension))
                }
            };
            folder.get_file(&object, &path).map_err(Error::of_remote)?;
        }
        Ok((path, Some(Arc::new(copies))))
    }
}

/// When a plain file was changed last.
fn modified(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let since = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("modified {}", since.as_nanos()))
}

/// One version of what is made of several files, as far as theirs are known.
fn joined(versions: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let known: Vec<String> = versions.into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join(", "))
}

/// The chunks of a part, and where each ends.
pub(crate) type Chunks = Box<dyn Iterator<Item = Result<(Chunk, Position)>>>;

/// What a thread reads.
pub(crate) struct Part {
    /// The name of its file.
    pub(crate) name: Arc<str>,
    open: Box<Open>,
}

type Open = dyn FnOnce(&Arc<Meter>) -> Result<Chunks> + Send;

impl Part {
    fn new(
        name: Arc<str>,
        open: impl FnOnce(&Arc<Meter>) -> Result<Chunks> + Send + 'static,
    ) -> Self {
        Self { name, open: Box::new(open) }
    }

    /// Its chunks; `meter` counts stored bytes.
    pub(crate) fn chunks(self, meter: &Arc<Meter>) -> Result<Chunks> {
        (self.open)(meter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_packing_and_the_split() {
        for (name, packing) in [
            ("a.json", Some(Packing::Plain)),
            ("a.jsonl", Some(Packing::Plain)),
            ("a.json.gz", Some(Packing::Gzip)),
            ("a.jsonl.gz", Some(Packing::Gzip)),
            ("a.jsonl.zst", Some(Packing::Zstd)),
            ("a.zst", Some(Packing::Zstd)),
            ("a.gz", None),
            ("a.txt", None),
            ("json", None),
        ] {
            assert_eq!(Packing::of(name), packing, "{name}");
        }
        let of = NamedSplit::of_hub_name;
        assert_eq!(of("c4-train.00000-of-01024.json.gz"), Some(NamedSplit::Train));
        assert_eq!(of("c4-validation.00000-of-00008.json.gz"), Some(NamedSplit::Val));
        assert_eq!(of("c4-train.00000-of-01024.json.gz.lock"), None);
        assert_eq!(of("train.json"), None);
    }
}
