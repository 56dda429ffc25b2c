//! What all tests of faults share: a dataset that can be checked byte by byte, the server before
//! it, the cache behind it, and programs that read it in processes of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mds::format::{Encoding, HashAlgorithm, Index, Schema};
use mds::{
    DatasetOptions, Loader, LoaderOptions, Sample, Stream, StreamingDataset, Writer, WriterOptions,
};

use crate::faultd::Faultd;
use crate::support::{files, within};

/// Long enough for a loaded machine, short enough to notice a hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How many times as much is to be done: 1, or `MDS_SOAK`.
pub(crate) fn soak() -> usize {
    std::env::var("MDS_SOAK").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1).max(1)
}

/// A folder in memory where the machine has one: tests that write many files need not wait for the
/// disk to sync each.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Numbers that look random, the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// The text of sample `id`: a few hundred letters that do not compress to nothing.
pub(crate) fn text(id: u64) -> String {
    let mut random = Random(id ^ 0x9e37_79b9_7f4a_7c15);
    let length = 300 + random.below(200);
    (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
}

/// How shards are stored.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) samples: u64,
    pub(crate) shard_bytes: u64,
    pub(crate) compression: Option<&'static str>,
    pub(crate) hashed: bool,
}

/// 30 shards of about 4 KB with hashes.
pub(crate) const SMALL: Shape =
    Shape { samples: 240, shard_bytes: 4000, compression: None, hashed: true };

/// Writes a dataset of this shape.
pub(crate) fn write(dir: &Path, shape: Shape) -> Index {
    let schema = Schema::new([("id", Encoding::Int), ("text", Encoding::Str)]).unwrap();
    let options = WriterOptions {
        compression: shape.compression.map(|code| code.parse().unwrap()),
        hashes: if shape.hashed { vec![HashAlgorithm::Xxh64] } else { vec![] },
        size_limit: Some(shape.shard_bytes),
        ..WriterOptions::default()
    };
    let mut writer = Writer::create(dir, schema, options).unwrap();
    for id in 0..shape.samples {
        writer.write(&[(id as i64).into(), text(id).as_str().into()]).unwrap();
    }
    writer.finish().unwrap()
}

/// Limits that let a test see the end of every wait.
pub(crate) fn options() -> DatasetOptions {
    let mut options = DatasetOptions::default();
    options.order.batch_size = Some(4);
    options.predownload = Some(64);
    options.download_timeout = Duration::from_secs(5);
    options.download_retry = 8;
    options
}

pub(crate) fn open(
    remote: &str,
    local: &Path,
    options: DatasetOptions,
) -> mds::Result<Arc<StreamingDataset>> {
    StreamingDataset::open(vec![Stream::cached(remote, local)], options)
}

/// Reads an epoch in order with a loader and compares every byte with the source.
pub(crate) fn check_epoch(dataset: Arc<StreamingDataset>, samples: u64) -> mds::Result<()> {
    let workers = LoaderOptions { num_workers: 2, prefetch_batches: 4 };
    let map =
        |sample: Sample| Ok((sample.value("id")?.into_owned(), sample.str("text")?.to_owned()));
    let mut loader = Loader::new(dataset, workers, map);
    let mut expected = 0..samples;
    while let Some(batch) = loader.next_batch()? {
        for (id, (number, found)) in batch.ids.iter().zip(&batch.items) {
            assert_eq!(Some(*id), expected.next(), "the order");
            assert_eq!(*number, mds::format::Value::Int(*id as i64));
            assert_eq!(*found, text(*id), "sample {id}");
        }
    }
    assert_eq!(expected.next(), None, "the epoch is short");
    Ok(())
}

/// Opens a dataset and reads an epoch of it.
pub(crate) fn read_epoch(
    remote: &str,
    local: &Path,
    options: DatasetOptions,
    samples: u64,
) -> mds::Result<()> {
    let dataset = open(remote, local, options)?;
    assert_eq!(dataset.num_samples(), samples, "{remote} is another dataset");
    check_epoch(dataset, samples)
}

/// A dataset in a folder that is served as the bucket `bucket`, and an empty cache.
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) root: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) server: Faultd,
    pub(crate) index: Index,
    pub(crate) shape: Shape,
    shared_memory: Vec<String>,
}

impl Scene {
    pub(crate) fn new(shape: Shape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("served").join("bucket");
        let index = write(&root, shape);
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        let server = Faultd::start(&dir.path().join("served"));
        let cache = dir.path().join("cache");
        Self { root, cache, server, index, shape, dir, shared_memory: shared_memory() }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url("bucket")
    }

    pub(crate) fn shards(&self) -> usize {
        self.index.shards.len()
    }

    /// Reads an epoch within [`LIMIT`].
    pub(crate) fn epoch(&self, options: DatasetOptions) -> mds::Result<()> {
        let (remote, cache, samples) = (self.url(), self.cache.clone(), self.shape.samples);
        within(LIMIT, move || read_epoch(&remote, &cache, options, samples))
    }

    /// Nothing lies about that a dead or failed reader made.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_no_leftovers(&self.cache);
        let left = files(&self.dir.path().join("tmp"));
        assert!(left.is_empty(), "in the folder for temporary files: {:?}", left.keys());
        let new: Vec<_> =
            shared_memory().into_iter().filter(|name| !self.shared_memory.contains(name)).collect();
        assert!(new.is_empty(), "in shared memory: {new:?}");
    }

    /// What the cache holds is the remote's, whole and unchanged.
    #[track_caller]
    pub(crate) fn assert_cache_is_true(&self) {
        let source = files(&self.root);
        for (name, bytes) in shards_and_index(&self.cache) {
            match source.get(&name) {
                Some(expected) => assert!(bytes == *expected, "{name} differs from its source"),
                None => assert!(self.shape.compression.is_some(), "{name} is not of the dataset"),
            }
        }
    }

    /// A program of its own that does `task` with this scene's addresses.
    pub(crate) fn child(&self, task: &str) -> Command {
        self.child_at(task, &self.url(), &self.cache)
    }

    pub(crate) fn child_at(&self, task: &str, remote: &str, cache: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "in_a_child_process", "--nocapture", "--test-threads=1"])
            .env("MDS_FAULTS_TASK", task)
            .env("MDS_FAULTS_REMOTE", remote)
            .env("MDS_FAULTS_LOCAL", cache)
            .env("MDS_FAULTS_SAMPLES", self.shape.samples.to_string())
            .env("TMPDIR", self.dir.path().join("tmp"))
            .env("HOME", self.dir.path().join("tmp"))
            .env_remove("XDG_CACHE_HOME")
            // No test reaches a cloud.
            .envs([("GCE_METADATA_HOST", "127.0.0.1:1"), ("GCE_METADATA_IP", "127.0.0.1:1")])
            .env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// The settings of a client of S3 that is to talk to this scene's server.
    pub(crate) fn with_s3(&self, command: &mut Command) {
        command
            .env("AWS_ENDPOINT", self.server.url("").trim_end_matches('/'))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1");
    }
}

fn shared_memory() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/dev/shm") else { return vec![] };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    // Other programs of this machine make theirs, too.
    names.filter(|name| name.contains("mds")).collect()
}

/// Neither temporary nor lock files.
#[track_caller]
pub(crate) fn assert_no_leftovers(cache: &Path) {
    if !cache.exists() {
        return;
    }
    // Whoever has the dataset open holds a file that says so.
    let is_held = |name: &str| {
        name.contains(".used-") && File::open(cache.join(name)).is_ok_and(|f| f.try_lock().is_err())
    };
    let left: Vec<_> = files(cache)
        .into_keys()
        .filter(|name| name.ends_with(".part") || name.ends_with(".lock"))
        .filter(|name| !is_held(name))
        .collect();
    assert!(left.is_empty(), "in the cache: {left:?}");
}

/// The files of a cache that are not hidden.
pub(crate) fn shards_and_index(cache: &Path) -> Vec<(String, Vec<u8>)> {
    if !cache.exists() {
        return vec![];
    }
    let visible = |name: &String| !name.rsplit('/').next().unwrap_or(name).starts_with('.');
    files(cache).into_iter().filter(|(name, _)| visible(name)).collect()
}

/// Waits for a child that must end well and in time.
#[track_caller]
pub(crate) fn finish(mut child: Child, limit: Duration) {
    let started = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        if started.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("a child still ran after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a child process of these tests does.
pub(crate) fn run_task() {
    let Ok(task) = std::env::var("MDS_FAULTS_TASK") else { return };
    let variable = |name: &str| std::env::var(format!("MDS_FAULTS_{name}")).unwrap();
    let (remote, local) = (variable("REMOTE"), PathBuf::from(variable("LOCAL")));
    let samples: u64 = variable("SAMPLES").parse().unwrap();
    let words: Vec<&str> = task.split(' ').collect();
    match words[..] {
        ["epoch"] => read_epoch(&remote, &local, options(), samples).unwrap(),
        ["denied"] => crate::storms::expect_denied(&remote, &local),
        ["race", seconds, limit, readers] => crate::sharing::race(
            &remote,
            &local,
            Duration::from_secs(seconds.parse().unwrap()),
            limit.parse().unwrap(),
            readers.parse().unwrap(),
            samples,
        ),
        ["herd", ranks, of, first] => crate::herd::open_and_read(
            &remote,
            &local,
            ranks.parse().unwrap(),
            of.parse().unwrap(),
            first.parse().unwrap(),
        ),
        ["refused"] => crate::redirects::expect_refused(&remote, &local),
        ["upload"] => crate::uploads::upload_both_ways(&remote),
        ["secrets"] => crate::secrets::run_every_error_path(&remote, &local),
        _ => panic!("{task}"),
    }
}
