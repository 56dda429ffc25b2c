//! Indexed datasets and their indexes of samples against files that numpy wrote, through the fixture that
//! `tests/fixtures/make_indexed.py` makes. Python is not needed to run this.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use convert::indexed::{Dtype, IndexedDataset, IndexedWriter, SampleCache, SampleIndex, Sampling};
use mds::format::HashAlgorithm;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    datasets: Vec<Dataset>,
    samplings: Vec<Case>,
}

#[derive(Deserialize)]
struct Dataset {
    dtype: String,
    documents: Vec<Vec<i64>>,
    bin: String,
    idx: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    sizes: Vec<usize>,
    first: usize,
    end: usize,
    sequence_length: usize,
    num_samples: u64,
    seed: u32,
    epochs: usize,
    sha256: Arrays,
    npy: Option<Arrays>,
    /// The tokens of each sample, where those of the dataset are 0, 1, 2 and so on.
    samples: Option<Vec<Vec<i64>>>,
}

/// Something about each of the three files.
#[derive(Deserialize)]
struct Arrays {
    doc_idx: String,
    sample_idx: String,
    shuffle_idx: String,
}

impl Arrays {
    fn in_order(&self) -> [&str; 3] {
        [&self.doc_idx, &self.sample_idx, &self.shuffle_idx]
    }
}

impl Case {
    fn sampling(&self) -> Sampling {
        Sampling {
            sequences: self.first..self.end,
            sequence_length: self.sequence_length,
            num_samples: self.num_samples,
            seed: self.seed,
        }
    }

    /// A dataset of documents of these sizes.
    fn write(&self, folder: &Path) -> IndexedDataset {
        let prefix = folder.join(&self.name);
        let mut writer = IndexedWriter::create(&prefix, Dtype::I32).unwrap();
        let mut next = 0;
        for &size in &self.sizes {
            let document: Vec<i64> = (next..).take(size).collect();
            next += size as i64;
            writer.write_document(&document).unwrap();
        }
        writer.finish().unwrap();
        IndexedDataset::open(prefix).unwrap()
    }
}

fn fixture() -> Fixture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/indexed.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn datasets_are_written_as_numpy_packs_them() {
    let types = [Dtype::U8, Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64, Dtype::U16];
    let fixture = fixture();
    assert_eq!(fixture.datasets.len(), 7);
    for dataset in fixture.datasets {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("set");
        let dtype = types.into_iter().find(|dtype| dtype.name() == dataset.dtype).unwrap();
        let mut writer = IndexedWriter::create(&prefix, dtype).unwrap();
        for document in &dataset.documents {
            writer.write_document(document).unwrap();
        }
        writer.finish().unwrap();
        let read = |suffix| hex(&std::fs::read(folder.path().join(suffix)).unwrap());
        assert_eq!(read("set.bin"), dataset.bin, "{dtype}");
        assert_eq!(read("set.idx"), dataset.idx, "{dtype}");
        let opened = IndexedDataset::open(&prefix).unwrap();
        let documents: Vec<_> = opened.documents().map(|document| document.to_vec()).collect();
        assert_eq!(documents, dataset.documents);
    }
}

#[test]
fn indexes_of_samples_are_saved_as_numpy_saves_them() {
    let fixture = fixture();
    assert_eq!(fixture.samplings.len(), 8);
    for case in fixture.samplings {
        let folder = tempfile::tempdir().unwrap();
        let (dataset, sampling) = (case.write(folder.path()), case.sampling());
        let cache = SampleCache::new(dataset.prefix(), "train", &sampling);
        let index = cache.build(dataset.sizes(), &sampling).unwrap();
        assert_eq!(index.num_epochs(), case.epochs, "{}", case.name);
        let files = cache.paths().map(|path| std::fs::read(path).unwrap());
        if let Some(npy) = &case.npy {
            assert_eq!(files.each_ref().map(|file| hex(file)), npy.in_order(), "{}", case.name);
        }
        let hashes = files.map(|file| HashAlgorithm::Sha256.hex(&file));
        assert_eq!(hashes, case.sha256.in_order(), "{}", case.name);
    }
}

#[test]
fn samples_have_the_tokens_of_the_joined_documents() {
    let fixture = fixture();
    let small: Vec<_> = fixture.samplings.iter().filter(|case| case.samples.is_some()).collect();
    assert_eq!(small.len(), 6);
    for case in small {
        let folder = tempfile::tempdir().unwrap();
        let dataset = case.write(folder.path());
        let index = SampleIndex::build(dataset.sizes(), &case.sampling()).unwrap();
        let samples = (0..index.len()).map(|i| index.tokens(&dataset, i).unwrap());
        assert_eq!(Some(samples.collect()), case.samples, "{}", case.name);
        // More samples than there are begin again.
        assert_eq!(
            index.tokens(&dataset, index.len() + 1).unwrap(),
            index.tokens(&dataset, 1).unwrap()
        );
    }
}

#[test]
fn a_rank_maps_what_another_has_built() {
    let fixture = fixture();
    let case = &fixture.samplings[0];
    let folder = tempfile::tempdir().unwrap();
    let (dataset, sampling) = (case.write(folder.path()), case.sampling());
    let cache = SampleCache::new(dataset.prefix(), "train", &sampling);
    assert!(cache.open(dataset.sizes(), &sampling).unwrap().is_none());
    cache.build(dataset.sizes(), &sampling).unwrap();
    let index = cache.open(dataset.sizes(), &sampling).unwrap().unwrap();
    let samples: Vec<_> = (0..index.len()).map(|i| index.tokens(&dataset, i).unwrap()).collect();
    assert_eq!(Some(&samples), case.samples.as_ref());
}
