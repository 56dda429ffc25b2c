//! Which sequences of a dataset are for training, validation and tests: `949,50,1`.
//!
//! The three parts are ranges of sequences, in this order. As GPT-NeoX computes them: each weight is
//! divided by the sum of all, and gives a number of sequences, rounded half to even; where the three
//! numbers do not add up to all sequences, the difference is taken from every boundary.
//!
//! A dataset of one document gives everything to training, so that nothing is evaluated. GPT-NeoX does
//! not say so; [`Split::notices`] does.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::{Error, Result};

/// What a part of a dataset is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is what it is named after")]
pub enum Part {
    Train,
    Valid,
    Test,
}

impl Part {
    /// All parts, in their order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    /// The name in GPT-NeoX's configurations and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The weights of the three parts.
///
/// ```
/// use convert::indexed::{Part, Split};
///
/// let split: Split = "949,50,1".parse()?;
/// assert_eq!(split.sequences(Part::Valid, 500), 475..500);
/// # Ok::<(), convert::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    text: String,
    /// Their sum is above 0.
    weights: [f64; 3],
}

impl FromStr for Split {
    type Err = Error;

    /// Reads up to three weights, with `,` or else `/` between them; those that are not there are 0.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: String| Error::invalid(what, "write weights such as 949,50,1");
        let separator = if text.contains(',') { ',' } else { '/' };
        let mut weights = [0.0; 3];
        for (i, part) in text.split(separator).enumerate() {
            let Some(weight) = weights.get_mut(i) else {
                return Err(wrong(format!("split {text:?} has more than three weights")));
            };
            let number = part.trim().parse().ok();
            let number = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
            *weight = number.ok_or_else(|| {
                wrong(format!("split {text:?}: {:?} is not a number from 0 on", part.trim()))
            })?;
        }
        let sum: f64 = weights.iter().sum();
        if !(sum > 0.0 && sum.is_finite()) {
            return Err(wrong(format!("split {text:?} has weights that add up to {sum}")));
        }
        Ok(Self { text: text.to_owned(), weights })
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Split {
    /// Where the parts of `sequences` sequences begin, and where the last ends.
    pub fn boundaries(&self, sequences: usize) -> [usize; 4] {
        let sum: f64 = self.weights.iter().sum();
        let mut ends = [0_i64; 4];
        for (i, weight) in self.weights.iter().enumerate() {
            // Python's round, of numbers far below 2^53.
            ends[i + 1] = ends[i] + (weight / sum * sequences as f64).round_ties_even() as i64;
        }
        let excess = ends[3] - sequences as i64;
        // GPT-NeoX would count from the end, where a boundary comes to lie before the first sequence.
        let ends = ends.map(|end| usize::try_from(end - excess).unwrap_or(0));
        [0, ends[1], ends[2], ends[3]]
    }

    /// The sequences of one part.
    pub fn sequences(&self, part: Part, sequences: usize) -> Range<usize> {
        let boundaries = self.boundaries(sequences);
        boundaries[part as usize]..boundaries[part as usize + 1]
    }

    /// A sentence for each part that has a weight and gets nothing.
    pub fn notices(&self, sequences: usize) -> Vec<String> {
        let weighty = Part::ALL.into_iter().filter(|&part| self.weights[part as usize] > 0.0);
        let empty = weighty.filter(|&part| self.sequences(part, sequences).is_empty());
        let remedy = "cut the text into more documents, or name a dataset for each part";
        let documents = if sequences == 1 { "the only document" } else { "the documents" };
        empty
            .map(|part| {
                format!("split {self} gives none of {documents} ({sequences}) to {part}; {remedy}")
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boundaries(split: &str, sequences: usize) -> [usize; 4] {
        split.parse::<Split>().unwrap().boundaries(sequences)
    }

    #[test]
    fn boundaries_are_those_of_gpt_neox() {
        for split in ["949,50,1", "949/50/1", " 949, 50, 1 ", "94.9,5,.1"] {
            assert_eq!(boundaries(split, 0), [0, 0, 0, 0]);
            assert_eq!(boundaries(split, 1), [0, 1, 1, 1]);
            assert_eq!(boundaries(split, 2), [0, 2, 2, 2]);
            assert_eq!(boundaries(split, 10), [0, 10, 10, 10]);
            assert_eq!(boundaries(split, 500), [0, 475, 500, 500]);
            assert_eq!(boundaries(split, 517_401), [0, 491_014, 516_884, 517_401]);
        }
        assert_eq!(boundaries("995,4,1", 500), [0, 498, 500, 500]);
    }

    #[test]
    fn weights_that_are_not_given_are_0() {
        assert_eq!(boundaries("1", 7), [0, 7, 7, 7]);
        assert_eq!(boundaries("1,1", 8), [0, 4, 8, 8]);
        assert_eq!(boundaries("1,1", 5), [0, 3, 5, 5], "halves give 2 each, and 1 is left over");
        assert_eq!(boundaries("0,0,1", 5), [0, 0, 0, 5]);
    }

    #[test]
    fn no_boundary_lies_before_the_first_sequence() {
        assert_eq!(boundaries("0,1,1", 3), [0, 0, 1, 3]);
    }

    #[test]
    fn parts_are_named_ranges() {
        let split: Split = "949,50,1".parse().unwrap();
        assert_eq!(split.to_string(), "949,50,1");
        let parts = Part::ALL.map(|part| (part.name(), split.sequences(part, 517_401)));
        let expected =
            [("train", 0..491_014), ("valid", 491_014..516_884), ("test", 516_884..517_401)];
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_part_that_gets_nothing_is_named() {
        let split: Split = "949,50,1".parse().unwrap();
        assert_eq!(
            split.notices(1),
            [
                "split 949,50,1 gives none of the only document (1) to valid; cut the text into more \
                 documents, or name a dataset for each part",
                "split 949,50,1 gives none of the only document (1) to test; cut the text into more \
                 documents, or name a dataset for each part",
            ]
        );
        assert_eq!(
            split.notices(500),
            ["split 949,50,1 gives none of the documents (500) to test; cut the text into more \
              documents, or name a dataset for each part"]
        );
        assert!(split.notices(517_401).is_empty());
        assert!("1,0,0".parse::<Split>().unwrap().notices(1).is_empty());
    }

    #[test]
    fn splits_that_cannot_work_are_refused() {
        let refusal = |text: &str| text.parse::<Split>().unwrap_err().to_string();
        assert_eq!(
            refusal("1,2,3,4"),
            "split \"1,2,3,4\" has more than three weights; write weights such as 949,50,1"
        );
        assert_eq!(
            refusal("949,fifty,1"),
            "split \"949,fifty,1\": \"fifty\" is not a number from 0 on; write weights such as 949,50,1"
        );
        assert_eq!(
            refusal("1,-1"),
            "split \"1,-1\": \"-1\" is not a number from 0 on; write weights such as 949,50,1"
        );
        assert_eq!(
            refusal("0/0/0"),
            "split \"0/0/0\" has weights that add up to 0; write weights such as 949,50,1"
        );
        assert!(refusal("").contains("\"\" is not a number from 0 on"));
        assert!(refusal("nan").contains("is not a number from 0 on"));
        assert!(refusal("1e308,1e308").contains("add up to inf"));
    }
}
