//! The index of samples in files beside its dataset, so that it is computed once.
//!
//! Names and contents are those of GPT-NeoX:
//! `{prefix}_{name}_indexmap_{num_samples}ns_{sequence_length}sl_{seed}s_packedpi_ac_{doc,sample,shuffle}_idx.npy`.
//! These names do not change with the documents, or with how they are split, and GPT-NeoX goes on with
//! the files of before.
//!
//! So a fourth file, `.._fingerprint.json`, says what the three were computed of: a hash of the sizes of
//! the part's documents, which with the numbers in the names is all that the arrays depend on. It is
//! removed before one of them is replaced and written after all of them, so that it never stands beside
//! arrays of something else. Where it is missing, as beside those of GPT-NeoX, or another, the arrays
//! are computed again and replaced: by the same bytes, if they were right. GPT-NeoX does not look
//! at it, and reads what is written here. (Its files of version 1.0 have names that end after the
//! seed. They are left alone.)

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mds::durable;
use mds::format::HashAlgorithm;
use serde::Serialize;

use super::format::Sizes;
use super::npy::Array;
use super::reader::with_suffix;
use super::sample_index::{Extent, SampleIndex, Sampling};
use crate::error::{Error, Result};

/// The files of one index of samples.
///
/// Processes that share the files leave it to one of them to [`build`](Self::build), wait, and
/// [`open`](Self::open).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleCache {
    /// What comes before `_doc_idx.npy`.
    stem: PathBuf,
}

/// What the arrays were computed of.
#[derive(Serialize)]
struct Fingerprint<'a> {
    version: u32,
    first_sequence: usize,
    sequences: usize,
    sizes_xxh3_128: String,
    sequence_length: usize,
    num_samples: u64,
    seed: u32,
    packing: &'a str,
}

impl SampleCache {
    /// The files beside the dataset `prefix`, or beside anything else of that name in a folder that can
    /// be written to. `name` is that of the [`Part`](super::Part), or `train_0` and so on for
    /// one of several datasets.
    pub fn new(prefix: &Path, name: &str, sampling: &Sampling) -> Self {
        let Sampling { sequence_length, num_samples, seed, .. } = sampling;
        let stem =
            format!("_{name}_indexmap_{num_samples}ns_{sequence_length}sl_{seed}s_packedpi_ac");
        Self { stem: with_suffix(prefix, &stem) }
    }

    /// The paths of `doc_idx`, `sample_idx` and `shuffle_idx`.
    pub fn paths(&self) -> [PathBuf; 3] {
        ["_doc_idx.npy", "_sample_idx.npy", "_shuffle_idx.npy"]
            .map(|suffix| with_suffix(&self.stem, suffix))
    }

    /// The path of what says of which data the arrays are.
    pub fn fingerprint_path(&self) -> PathBuf {
        with_suffix(&self.stem, "_fingerprint.json")
    }

    /// Maps the files, if they were computed for `sampling` of sequences of `sizes`.
    ///
    /// # Errors
    /// As [`SampleIndex::build`], without memory; failures of the disk.
    pub fn open(&self, sizes: Sizes<'_>, sampling: &Sampling) -> Result<Option<SampleIndex>> {
        let extent = Extent::new(sizes, sampling)?;
        let path = self.fingerprint_path();
        match fs::read(&path) {
            Ok(found) if found == fingerprint(sizes, sampling)? => self.map(&extent, sampling),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(e, "read", &path)),
        }
    }

    /// Maps the files, after computing and writing them where they are missing or of something else.
    ///
    /// # Errors
    /// As [`SampleIndex::build`]; failures of the disk.
    pub fn build(&self, sizes: Sizes<'_>, sampling: &Sampling) -> Result<SampleIndex> {
        if let Some(index) = self.open(sizes, sampling)? {
            return Ok(index);
        }
        let index = SampleIndex::build(sizes, sampling)?;
        let path = self.fingerprint_path();
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(e, "remove", &path));
            }
            _ => {}
        }
        for (array, path) in index.arrays().into_iter().zip(self.paths()) {
            array.save(&path)?;
        }
        durable::replace(&path, &fingerprint(sizes, sampling)?)
            .map_err(|e| Error::io(e, "write", &path))?;
        // The mapped files take no memory of this process alone. Another that replaces them at this
        // moment leaves the computed arrays.
        let extent = Extent::new(sizes, sampling)?;
        Ok(self.map(&extent, sampling)?.unwrap_or(index))
    }

    fn map(&self, extent: &Extent, sampling: &Sampling) -> Result<Option<SampleIndex>> {
        let [documents, samples, shuffle] = self.paths();
        let [of_documents, of_samples, of_shuffle] = extent.layouts();
        let arrays = (
            Array::open(&documents, of_documents)?,
            Array::open(&samples, of_samples)?,
            Array::open(&shuffle, of_shuffle)?,
        );
        let (Some(documents), Some(samples), Some(shuffle)) = arrays else { return Ok(None) };
        Ok(Some(SampleIndex::of_arrays([documents, samples, shuffle], extent, sampling)))
    }
}

/// The contents of the fourth file.
fn fingerprint(sizes: Sizes<'_>, sampling: &Sampling) -> Result<Vec<u8>> {
    let Sampling { sequences, sequence_length, num_samples, seed } = sampling;
    let sizes = sizes.slice(sequences.clone());
    let fingerprint = Fingerprint {
        version: 1,
        first_sequence: sequences.start,
        sequences: sequences.len(),
        sizes_xxh3_128: HashAlgorithm::Xxh3_128.hex(sizes.as_bytes()),
        sequence_length: *sequence_length,
        num_samples: *num_samples,
        seed: *seed,
        packing: "packed",
    };
    let mut json = serde_json::to_vec_pretty(&fingerprint)
        .map_err(|e| Error::internal("a fingerprint is no JSON").with_source(e))?;
    json.push(b'\n');
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [u32; 8] = [7, 3, 12, 5, 1, 9, 20, 4];

    fn sampling() -> Sampling {
        Sampling { sequences: 0..8, sequence_length: 8, num_samples: 14, seed: 1234 }
    }

    fn bytes(sizes: &[u32]) -> Vec<[u8; 4]> {
        sizes.iter().map(|size| size.to_le_bytes()).collect()
    }

    fn files(cache: &SampleCache) -> [Vec<u8>; 3] {
        cache.paths().map(|path| fs::read(path).unwrap())
    }

    #[test]
    fn files_have_gpt_neoxs_names() {
        let cache = SampleCache::new(Path::new("data/enwik8/a.b"), "train", &sampling());
        let stem = "data/enwik8/a.b_train_indexmap_14ns_8sl_1234s_packedpi_ac";
        let names = ["doc_idx.npy", "sample_idx.npy", "shuffle_idx.npy"];
        assert_eq!(cache.paths(), names.map(|name| PathBuf::from(format!("{stem}_{name}"))));
        let fingerprint = format!("{stem}_fingerprint.json");
        assert_eq!(cache.fingerprint_path(), PathBuf::from(fingerprint));
    }

    #[test]
    fn what_was_built_is_opened_without_building() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = bytes(&SIZES);
        let sizes = Sizes::of_bytes(&bytes);
        let cache = SampleCache::new(&folder.path().join("set"), "train", &sampling());
        assert!(cache.open(sizes, &sampling()).unwrap().is_none());

        let computed = SampleIndex::build(sizes, &sampling()).unwrap();
        let built = cache.build(sizes, &sampling()).unwrap();
        let opened = cache.open(sizes, &sampling()).unwrap().unwrap();
        for index in [built, opened] {
            assert!(index.doc_idx().eq(computed.doc_idx()));
            assert!(index.sample_idx().eq(computed.sample_idx()));
            assert!(index.shuffle_idx().eq(computed.shuffle_idx()));
            assert_eq!((index.len(), index.num_epochs()), (14, 2));
        }
        assert_eq!(
            fs::read_to_string(cache.fingerprint_path()).unwrap(),
            format!(
                "{{\n  \"version\": 1,\n  \"first_sequence\": 0,\n  \"sequences\": 8,\n  \
                 \"sizes_xxh3_128\": \"{}\",\n  \"sequence_length\": 8,\n  \"num_samples\": 14,\n  \
                 \"seed\": 1234,\n  \"packing\": \"packed\"\n}}\n",
                HashAlgorithm::Xxh3_128.hex(bytes.as_flattened())
            )
        );
        // A second build takes the files as they are: numbers that were changed stay.
        let shuffle = &cache.paths()[2];
        let mut changed = fs::read(shuffle).unwrap();
        changed[128] ^= 1;
        fs::write(shuffle, &changed).unwrap();
        let again = cache.build(sizes, &sampling()).unwrap();
        assert_ne!(again.shuffle_idx().next(), computed.shuffle_idx().next());
    }

    #[test]
    fn files_of_other_data_or_another_split_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = [bytes(&SIZES), bytes(&[7, 3, 12, 5, 1, 9, 4, 20])];
        let [sizes, others] = [&bytes[0], &bytes[1]].map(|bytes| Sizes::of_bytes(bytes));
        // The same names and sizes of files: two documents changed places, or the part moved.
        let moved = Sampling { sequences: 1..8, ..sampling() };
        let cache = SampleCache::new(&folder.path().join("set"), "train", &sampling());
        assert_eq!(cache, SampleCache::new(&folder.path().join("set"), "train", &moved));
        for (sizes, sampling) in [(sizes, sampling()), (others, sampling()), (sizes, moved)] {
            assert!(cache.open(sizes, &sampling).unwrap().is_none());
            let computed = SampleIndex::build(sizes, &sampling).unwrap();
            let built = cache.build(sizes, &sampling).unwrap();
            assert!(built.sample_idx().eq(computed.sample_idx()));
            assert!(cache.open(sizes, &sampling).unwrap().is_some());
        }
    }

    #[test]
    fn files_of_gpt_neox_are_computed_again_and_equal() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = bytes(&SIZES);
        let sizes = Sizes::of_bytes(&bytes);
        let cache = SampleCache::new(&folder.path().join("set"), "valid", &sampling());
        cache.build(sizes, &sampling()).unwrap();
        let right = files(&cache);
        fs::remove_file(cache.fingerprint_path()).unwrap();
        // Stale in one file.
        fs::write(&cache.paths()[0], &right[2]).unwrap();
        assert!(cache.open(sizes, &sampling()).unwrap().is_none());
        cache.build(sizes, &sampling()).unwrap();
        assert_eq!(files(&cache), right);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
    }

    #[test]
    fn files_that_are_cut_short_or_gone_are_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = bytes(&SIZES);
        let sizes = Sizes::of_bytes(&bytes);
        let cache = SampleCache::new(&folder.path().join("set"), "test", &sampling());
        cache.build(sizes, &sampling()).unwrap();
        let right = files(&cache);
        for (path, whole) in cache.paths().iter().zip(&right) {
            fs::write(path, &whole[..whole.len() - 4]).unwrap();
            assert!(cache.open(sizes, &sampling()).unwrap().is_none());
            cache.build(sizes, &sampling()).unwrap();
            assert_eq!(files(&cache), right);
            fs::remove_file(path).unwrap();
            cache.build(sizes, &sampling()).unwrap();
            assert_eq!(files(&cache), right);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = bytes(&SIZES);
        let prefix = folder.path().join("none").join("set");
        let cache = SampleCache::new(&prefix, "train", &sampling());
        let error = cache.build(Sizes::of_bytes(&bytes), &sampling()).unwrap_err().to_string();
        let path = cache.paths()[0].display().to_string();
        assert!(error.starts_with(&format!("cannot write {path}: ")), "{error}");
        assert!(error.ends_with("; check the path"), "{error}");
    }
}
