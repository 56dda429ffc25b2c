//! Which tokens make each training sample: GPT-NeoX's "packed" index, number for number.
//!
//! The documents of a part are repeated for as many epochs as the samples take and shuffled, all epochs
//! together. Their tokens, one after the other, are cut into samples of `sequence_length` + 1 tokens
//! that overlap by one, since the last token of a sample is a label only; and the samples are
//! shuffled again. Three arrays say all of this:
//!
//! | array | entry | meaning |
//! | --- | --- | --- |
//! | `doc_idx` | E · documents | the document at each position of the shuffled epochs |
//! | `sample_idx` | S + 1 pairs | where each sample begins: a position in `doc_idx`, and a token of that document |
//! | `shuffle_idx` | S | the number in `sample_idx` of each sample |
//!
//! What is called a document here is a sequence of the dataset: GPT-NeoX does not look at documents
//! that are more than one. Source: its `gpt2_dataset.py`; the random numbers are those of
//! [`RandomState`].
//!
//! # One sample less
//! [`SampleIndex::len`] is S - 1, not S: GPT-NeoX takes the shorter of the two arrays, and one off each,
//! as if both ended with a boundary. Which sample is left out is a matter of the shuffle. A run that
//! asks for more samples than there are gets them from the first on again, and one that is to see what
//! GPT-NeoX shows must wrap at the same place.

use std::ops::Range;

use super::format::Sizes;
use super::npy::{Array, Layout, NpyType};
use super::random_state::RandomState;
use super::reader::IndexedDataset;
use crate::error::{Error, ErrorKind, Result};

/// What samples are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampling {
    /// The sequences of the dataset that are used, as [`Split::sequences`](super::Split::sequences)
    /// gives them.
    pub sequences: Range<usize>,
    /// Tokens that a sample trains on; it has one more.
    pub sequence_length: usize,
    /// Samples that there shall be at least. Whole epochs make more.
    pub num_samples: u64,
    /// The seed of both shuffles.
    pub seed: u32,
}

/// How large the arrays are going to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    epochs: usize,
    documents: Layout,
    samples: Layout,
    shuffle: Layout,
}

impl Extent {
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if no array could be that large, or none is made of nothing.
    pub(super) fn new(sizes: Sizes<'_>, sampling: &Sampling) -> Result<Self> {
        let Sampling { sequences, sequence_length, num_samples, .. } = sampling;
        if sequences.end > sizes.len() || sequences.end.saturating_sub(1) > i32::MAX as usize {
            return Err(Error::invalid(
                format!(
                    "samples are to be made of the sequences {} to {}, of {}",
                    sequences.start,
                    sequences.end,
                    sizes.len()
                ),
                "name sequences that the dataset has, below 2^31",
            ));
        }
        if *sequence_length == 0 {
            return Err(Error::invalid("samples are to have 0 tokens", "give a sequence length"));
        }
        let tokens: u64 = sizes.slice(sequences.clone()).iter().map(u64::from).sum();
        if tokens == 0 {
            return Err(Error::invalid(
                format!("the sequences {} to {} hold no token", sequences.start, sequences.end),
                "give this part of the split more documents",
            ));
        }
        // Neither 2^64 samples of 2^64 tokens nor one epoch more overflow; their documents may.
        let (tokens, length) = (u128::from(tokens), *sequence_length as u128);
        let epochs = (u128::from(*num_samples) * length + 1).div_ceil(tokens);
        let samples = (epochs * tokens - 1) / length;
        let entries = epochs.saturating_mul(sequences.len() as u128);
        let rows =
            |count: u128| usize::try_from(count).ok().filter(|&n| n <= isize::MAX as usize / 32);
        let (Some(epochs), Some(samples), Some(entries)) =
            (rows(epochs), rows(samples), rows(entries))
        else {
            return Err(Error::invalid(
                format!("{num_samples} samples take {epochs} epochs, which no memory can hold"),
                "ask for fewer samples",
            ));
        };
        if samples < 2 {
            return Err(Error::invalid(
                format!(
                    "the sequences {} to {} give one sample of {length} tokens, which is left out",
                    sequences.start, sequences.end
                ),
                "ask for two samples or more, or for shorter ones",
            ));
        }
        Ok(Self {
            epochs,
            documents: Layout { dtype: NpyType::I32, rows: entries, columns: 1 },
            samples: Layout {
                dtype: samples_type(samples, entries),
                rows: samples + 1,
                columns: 2,
            },
            shuffle: Layout { dtype: shuffle_type(samples), rows: samples, columns: 1 },
        })
    }

    /// The layouts of `doc_idx`, `sample_idx` and `shuffle_idx`.
    pub(super) const fn layouts(&self) -> [Layout; 3] {
        [self.documents, self.samples, self.shuffle]
    }
}

/// The type of `sample_idx`. GPT-NeoX looks at the samples only, so that its positions overflow from
/// 2^31 documents on.
const fn samples_type(samples: usize, entries: usize) -> NpyType {
    let is_short = 2 * (samples + 1) < i32::MAX as usize && entries <= i32::MAX as usize;
    if is_short { NpyType::I32 } else { NpyType::I64 }
}

/// The type of `shuffle_idx`.
const fn shuffle_type(samples: usize) -> NpyType {
    if samples < u32::MAX as usize - 1 { NpyType::U32 } else { NpyType::I64 }
}

/// The samples of a dataset, in the order of training.
#[derive(Debug)]
pub struct SampleIndex {
    sequence_length: usize,
    epochs: usize,
    documents: Array,
    samples: Array,
    shuffle: Array,
}

/// Part of a sample: tokens of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The number of the sequence in the dataset.
    pub sequence: usize,
    /// Which of its tokens.
    pub tokens: Range<usize>,
}

impl SampleIndex {
    /// Computes the samples of sequences of `sizes`. Takes the memory of its three arrays.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there are no such sequences, they hold no token, give fewer
    /// than two samples, or samples for which memory does not suffice.
    pub fn build(sizes: Sizes<'_>, sampling: &Sampling) -> Result<Self> {
        let extent = Extent::new(sizes, sampling)?;
        let mut random = RandomState::new(sampling.seed);

        let mut documents = room(extent.documents, "doc_idx")?;
        for _ in 0..extent.epochs {
            documents.extend(sampling.sequences.clone().map(|sequence| sequence as i32));
        }
        random.shuffle(&mut documents);

        let samples = extent.shuffle.rows;
        let length = sampling.sequence_length as u64;
        let starts = match extent.samples.dtype {
            NpyType::I64 => {
                let mut starts = room::<i64>(extent.samples, "sample_idx")?;
                cut(&documents, sizes, length, samples, |position, offset| {
                    starts.extend([position as i64, offset as i64]);
                });
                Array::from(starts)
            }
            _ => {
                let mut starts = room::<i32>(extent.samples, "sample_idx")?;
                cut(&documents, sizes, length, samples, |position, offset| {
                    starts.extend([position as i32, offset as i32]);
                });
                Array::from(starts)
            }
        };

        let shuffle = match extent.shuffle.dtype {
            NpyType::I64 => {
                let mut numbers = room::<i64>(extent.shuffle, "shuffle_idx")?;
                numbers.extend(0..samples as i64);
                random.shuffle(&mut numbers);
                Array::from(numbers)
            }
            _ => {
                let mut numbers = room::<u32>(extent.shuffle, "shuffle_idx")?;
                numbers.extend(0..samples as u32);
                random.shuffle(&mut numbers);
                Array::from(numbers)
            }
        };
        Ok(Self::of_arrays([documents.into(), starts.in_pairs(), shuffle], &extent, sampling))
    }

    /// An index of arrays that are laid out as `extent` says.
    pub(super) fn of_arrays(arrays: [Array; 3], extent: &Extent, sampling: &Sampling) -> Self {
        let [documents, samples, shuffle] = arrays;
        let sequence_length = sampling.sequence_length;
        Self { sequence_length, epochs: extent.epochs, documents, samples, shuffle }
    }

    pub(super) const fn arrays(&self) -> [&Array; 3] {
        [&self.documents, &self.samples, &self.shuffle]
    }

    /// How many samples there are: one less than were cut, as in GPT-NeoX.
    pub fn len(&self) -> u64 {
        self.shuffle.layout().rows as u64 - 1
    }

    /// Whether there are none, which no index is made of.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often the documents are gone through.
    pub const fn num_epochs(&self) -> usize {
        self.epochs
    }

    /// The document at each position of the shuffled epochs.
    pub fn doc_idx(&self) -> impl Iterator<Item = i64> {
        numbers(&self.documents)
    }

    /// Where each sample begins, and the last ends: position and token in turn.
    pub fn sample_idx(&self) -> impl Iterator<Item = i64> {
        numbers(&self.samples)
    }

    /// The order of the samples.
    pub fn shuffle_idx(&self) -> impl Iterator<Item = i64> {
        numbers(&self.shuffle)
    }

    /// The parts of sample `i`, together `sequence_length` + 1 tokens. From [`len`](Self::len) on the
    /// numbers begin again with the first sample.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the index is of other sequences than those of `sizes`, or damaged.
    pub fn pieces(&self, sizes: Sizes<'_>, i: u64) -> Result<Vec<Piece>> {
        let i = i % self.len();
        self.find_pieces(sizes, i as usize).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("sample {i} of the index of samples is not in the dataset"),
                "build the index of this dataset again",
            )
        })
    }

    /// The tokens of sample `i`, `sequence_length` + 1 of them.
    ///
    /// # Errors
    /// As [`pieces`](Self::pieces).
    pub fn tokens(&self, dataset: &IndexedDataset, i: u64) -> Result<Vec<i64>> {
        let mut tokens = Vec::with_capacity(self.sequence_length + 1);
        for piece in self.pieces(dataset.sizes(), i)? {
            if let Some(part) = dataset.sequence(piece.sequence)?.get(piece.tokens) {
                part.append_to(&mut tokens);
            }
        }
        Ok(tokens)
    }

    fn find_pieces(&self, sizes: Sizes<'_>, i: usize) -> Option<Vec<Piece>> {
        let number = |array: &Array, at: usize| usize::try_from(array.get(at)?).ok();
        let sample = number(&self.shuffle, i)?;
        let first = sample.checked_mul(2)?;
        let [from, from_token, to, to_token] =
            [0, 1, 2, 3].map(|at| number(&self.samples, first.checked_add(at)?));
        let (from, to, to_token) = (from?, to?, to_token?);

        let (mut pieces, mut begin) = (Vec::new(), from_token?);
        // Ends where too much was found, however far apart the numbers of a damaged file are.
        let mut left = self.sequence_length + 1;
        for position in from..=to {
            let sequence = number(&self.documents, position)?;
            let size = sizes.get(sequence)? as usize;
            let end = if position == to { to_token.checked_add(1)? } else { size };
            if end > size {
                return None;
            }
            left = left.checked_sub(end.checked_sub(begin)?)?;
            if begin < end {
                pieces.push(Piece { sequence, tokens: begin..end });
            }
            begin = 0;
        }
        (left == 0).then_some(pieces)
    }
}

fn numbers(array: &Array) -> impl Iterator<Item = i64> {
    (0..).map_while(|position| array.get(position))
}

/// Cuts the tokens of `documents`, one after the other, into `samples` samples of `length` + 1 tokens,
/// each of which begins with the last token of the one before it. `record` gets the position and the
/// token at which each begins, and that of the last token of all.
fn cut(
    documents: &[i32],
    sizes: Sizes<'_>,
    length: u64,
    samples: usize,
    mut record: impl FnMut(usize, u64),
) {
    let (mut position, mut offset) = (0, 0);
    record(position, offset);
    for _ in 0..samples {
        let mut needed = length + 1;
        // There is another document, since all have samples * length + 1 tokens together at least.
        while let Some(size) = sizes.get(documents[position] as usize) {
            let available = u64::from(size) - offset;
            if available >= needed {
                offset += needed - 1;
                break;
            }
            needed -= available;
            position += 1;
            offset = 0;
        }
        record(position, offset);
    }
}

/// An empty vector with room for all numbers of an array.
fn room<T>(layout: Layout, name: &str) -> Result<Vec<T>> {
    let numbers = layout.rows * layout.columns;
    let mut room = Vec::new();
    room.try_reserve_exact(numbers).map_err(|e| {
        Error::invalid(
            format!("{name} of {numbers} numbers does not fit into memory"),
            "ask for fewer samples",
        )
        .with_source(e)
    })?;
    Ok(room)
}

#[cfg(test)]
mod tests {
    use mds::format::HashAlgorithm;

    use super::*;

    fn le_bytes(sizes: &[u32]) -> Vec<[u8; 4]> {
        sizes.iter().map(|size| size.to_le_bytes()).collect()
    }

    fn sampling(sequences: Range<usize>, sequence_length: usize, num_samples: u64) -> Sampling {
        Sampling { sequences, sequence_length, num_samples, seed: 1234 }
    }

    fn build(sizes: &[u32], sampling: &Sampling) -> Result<SampleIndex> {
        SampleIndex::build(Sizes::of_bytes(&le_bytes(sizes)), sampling)
    }

    const SIZES: [u32; 8] = [7, 3, 12, 5, 1, 9, 20, 4];

    #[test]
    fn a_small_index_equals_gpt_neoxs() {
        let index = build(&SIZES, &sampling(0..8, 8, 14)).unwrap();
        assert_eq!(index.num_epochs(), 2);
        let documents: Vec<_> = index.doc_idx().collect();
        assert_eq!(documents, [5, 3, 0, 4, 6, 2, 2, 7, 1, 1, 0, 4, 5, 6, 3, 7]);
        let samples: Vec<_> = index.sample_idx().collect();
        assert_eq!(
            samples,
            [
                0, 0, 0, 8, 2, 2, 4, 2, 4, 10, 4, 18, 5, 6, 6, 2, 6, 10, 8, 2, 10, 4, 12, 4, 13, 3,
                13, 11, 13, 19, 15, 2
            ]
        );
        let shuffle: Vec<_> = index.shuffle_idx().collect();
        assert_eq!(shuffle, [9, 7, 4, 3, 11, 2, 13, 1, 12, 5, 0, 8, 14, 6, 10]);
        assert_eq!(index.len(), 14, "one less than there are");
    }

    #[test]
    fn a_larger_index_equals_gpt_neoxs() {
        // numpy's RandomState(7).randint(1, 400, 500).
        let mut random = RandomState::new(7);
        let sizes: Vec<_> = (0..500).map(|_| 1 + random.interval(398) as u32).collect();
        assert_eq!(sizes[..8], [176, 197, 26, 68, 212, 104, 349, 186]);
        assert_eq!(sizes.iter().sum::<u32>(), 101_386);

        let index = build(&sizes, &sampling(0..475, 128, 2000)).unwrap();
        assert_eq!(index.num_epochs(), 3);
        let hash = |bytes: Vec<u8>| HashAlgorithm::Sha256.hex(&bytes);
        let le = |numbers: &mut dyn Iterator<Item = i64>| {
            hash(numbers.flat_map(|number| (number as u32).to_le_bytes()).collect())
        };
        assert_eq!(index.doc_idx().count(), 1425);
        assert_eq!(
            le(&mut index.doc_idx()),
            "6f2e62eabafbb999c645a7ec5208f53e8270bf06ac97ec7b94195549615e874f"
        );
        assert_eq!(index.sample_idx().count(), 2 * 2247);
        assert_eq!(
            le(&mut index.sample_idx()),
            "33678dcb062596e1d1b1fe005332ed14bddb1edd59068783a2533913756b8ef7"
        );
        assert_eq!(index.shuffle_idx().count(), 2246);
        assert_eq!(
            le(&mut index.shuffle_idx()),
            "9c0c0eac7892bcf279fde81a749e2625208d101ec52cfb3389478b944c09239e"
        );
        assert_eq!(
            index.arrays().map(|array| array.layout().dtype),
            [NpyType::I32, NpyType::I32, NpyType::U32]
        );
    }

    #[test]
    fn wide_numbers_are_used_from_the_same_counts_on() {
        // 2 (S + 1) < 2^31 - 1
        assert_eq!(samples_type((1 << 30) - 2, 1), NpyType::I32);
        assert_eq!(samples_type((1 << 30) - 1, 1), NpyType::I64);
        assert_eq!(samples_type(2, (1 << 31) - 1), NpyType::I32);
        assert_eq!(samples_type(2, 1 << 31), NpyType::I64);
        assert_eq!(shuffle_type((1 << 32) - 3), NpyType::U32);
        assert_eq!(shuffle_type((1 << 32) - 2), NpyType::I64);
    }

    #[test]
    fn samples_are_the_joined_documents_cut_with_one_token_in_common() {
        let index = build(&SIZES, &sampling(1..7, 8, 20)).unwrap();
        let sizes = le_bytes(&SIZES);
        let sizes = Sizes::of_bytes(&sizes);
        let joined: Vec<(usize, usize)> = index
            .doc_idx()
            .flat_map(|document| {
                (0..SIZES[document as usize] as usize).map(move |token| (document as usize, token))
            })
            .collect();
        for (i, sample) in (0..index.len()).zip(index.shuffle_idx()) {
            let pieces = index.pieces(sizes, i).unwrap();
            let tokens = pieces.iter().flat_map(|piece| {
                let sequence = piece.sequence;
                piece.tokens.clone().map(move |token| (sequence, token))
            });
            let begin = sample as usize * 8;
            assert!(tokens.eq(joined[begin..=begin + 8].iter().copied()), "sample {i}");
        }
        assert_eq!(index.pieces(sizes, index.len()).unwrap(), index.pieces(sizes, 0).unwrap());
    }

    #[test]
    fn empty_documents_are_passed_over() {
        let sizes = [0, 0, 5, 0, 4, 0];
        let index = build(&sizes, &sampling(0..6, 4, 6)).unwrap();
        let bytes = le_bytes(&sizes);
        for i in 0..index.len() {
            let pieces = index.pieces(Sizes::of_bytes(&bytes), i).unwrap();
            assert!(pieces.iter().all(|piece| !piece.tokens.is_empty()));
            assert_eq!(pieces.iter().map(|piece| piece.tokens.len()).sum::<usize>(), 5);
        }
    }

    #[test]
    fn an_index_of_other_documents_is_refused() {
        let index = build(&SIZES, &sampling(0..8, 8, 14)).unwrap();
        let other = le_bytes(&[7, 3, 12, 5, 1, 9]);
        let refused: Vec<_> = (0..index.len())
            .filter_map(|i| index.pieces(Sizes::of_bytes(&other), i).err())
            .collect();
        assert!(!refused.is_empty());
        assert_eq!(
            refused[0].to_string(),
            "sample 2 of the index of samples is not in the dataset; build the index of this dataset \
             again"
        );
    }

    #[test]
    fn damaged_numbers_are_refused() {
        let extent =
            Extent::new(Sizes::of_bytes(&le_bytes(&SIZES)), &sampling(0..8, 8, 14)).unwrap();
        let bytes = le_bytes(&SIZES);
        for damage in [-1, i32::MAX, 8, i32::MIN] {
            let arrays = [
                Array::from(vec![damage; 16]),
                Array::from(vec![damage; 32]).in_pairs(),
                Array::from(vec![i64::from(damage); 15]),
            ];
            let index = SampleIndex::of_arrays(arrays, &extent, &sampling(0..8, 8, 14));
            assert!(index.pieces(Sizes::of_bytes(&bytes), 3).is_err());
        }
        // Far apart, and each document exists.
        let arrays = [
            Array::from(vec![1; 1 << 20]),
            Array::from([vec![0, 0], vec![i32::MAX; 30]].concat()).in_pairs(),
            Array::from(vec![0_u32; 15]),
        ];
        let index = SampleIndex::of_arrays(arrays, &extent, &sampling(0..8, 8, 14));
        assert!(index.pieces(Sizes::of_bytes(&bytes), 0).is_err());
    }

    #[test]
    fn samples_that_cannot_be_made_are_refused() {
        let refusal = |sampling| build(&SIZES, &sampling).unwrap_err().to_string();
        assert_eq!(
            refusal(sampling(2..9, 8, 14)),
            "samples are to be made of the sequences 2 to 9, of 8; name sequences that the dataset \
             has, below 2^31"
        );
        assert_eq!(
            refusal(sampling(0..8, 0, 14)),
            "samples are to have 0 tokens; give a sequence length"
        );
        assert_eq!(
            refusal(sampling(3..3, 8, 14)),
            "the sequences 3 to 3 hold no token; give this part of the split more documents"
        );
        assert_eq!(
            refusal(sampling(0..8, 60, 1)),
            "the sequences 0 to 8 give one sample of 60 tokens, which is left out; ask for two samples \
             or more, or for shorter ones"
        );
        assert_eq!(
            refusal(sampling(0..8, usize::MAX, u64::MAX)),
            format!(
                "18446744073709551615 samples take {} epochs, which no memory can hold; ask for fewer \
                 samples",
                (u128::from(u64::MAX) * u128::from(u64::MAX) + 1).div_ceil(61)
            )
        );
        let most = sampling(0..3, usize::MAX, u64::MAX);
        let error = build(&[0, 1, 0], &most).unwrap_err().to_string();
        assert!(error.ends_with("epochs, which no memory can hold; ask for fewer samples"));
        assert_eq!(
            refusal(sampling(0..8, 8, 1 << 54)),
            "doc_idx of 18900352534538480 numbers does not fit into memory; ask for fewer samples"
        );
    }
}
