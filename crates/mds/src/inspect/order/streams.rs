//! Streams as they are written on the command line.

use std::str::FromStr;

use mds::format::parse_size;
use mds::order::Weight;

/// The reference's size limit of a shard: what a shard of a list weighs unless it is said.
pub(super) const SHARD_BYTES: u64 = 1 << 26;

/// More shards than this are a slip of the pen.
const MOST_SHARDS: u64 = 10_000_000;

/// What a stream is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dataset {
    /// The address of a dataset.
    Remote(String),
    /// Samples in each shard, and how they were given.
    Sizes { given: String, sizes: Vec<u64> },
}

/// One stream: `REMOTE` or `sizes=20000x10,8892`, with `,proportion=`, `,repeat=`, `,choose=` and
/// `,bytes=` behind it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StreamSpec {
    pub(super) dataset: Dataset,
    /// Bytes of the largest shard of a list; the others are in proportion.
    pub(super) bytes: u64,
    pub(super) weight: Weight,
}

impl StreamSpec {
    /// A dataset taken whole.
    pub(super) fn remote(address: String) -> Self {
        Self { dataset: Dataset::Remote(address), bytes: SHARD_BYTES, weight: Weight::Natural }
    }

    /// A list of shards taken whole.
    pub(super) fn sizes(dataset: Dataset, bytes: u64) -> Self {
        Self { dataset, bytes, weight: Weight::Natural }
    }
}

impl FromStr for StreamSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut rest, mut weight, mut bytes) = (text, None, None);
        // From the right, since an address may hold commas and equals signs of its own.
        while let Some((before, last)) = rest.rsplit_once(',') {
            let Some((key, value)) = last.split_once('=') else { break };
            let given = match key {
                "proportion" => Weight::Proportion(number(key, value)?),
                "repeat" => Weight::Repeat(number(key, value)?),
                "choose" => Weight::Choose(number(key, value)?),
                "bytes" if bytes.is_none() => {
                    bytes = Some(parse_size(value).map_err(|e| e.to_string())?);
                    rest = before;
                    continue;
                }
                _ => break,
            };
            if weight.replace(given).is_some() {
                return Err("a stream takes one of proportion, repeat and choose".to_owned());
            }
            rest = before;
        }
        let dataset = match rest.strip_prefix("sizes=") {
            Some(sizes) => parse_sizes(sizes)?,
            None if bytes.is_some() => {
                return Err("bytes= belongs to sizes=; a dataset's own sizes are known".to_owned());
            }
            None if rest.is_empty() => {
                return Err("give a REMOTE, or sizes= and a list of shard sizes".to_owned());
            }
            None => Dataset::Remote(rest.to_owned()),
        };
        let (bytes, weight) = (bytes.unwrap_or(SHARD_BYTES), weight.unwrap_or_default());
        Ok(Self { dataset, bytes, weight })
    }
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{key}={value} is not a number that {key} can be"))
}

/// Reads a list of shard sizes such as `20000x18243,8892`.
pub(super) fn parse_sizes(text: &str) -> Result<Dataset, String> {
    let mut sizes = Vec::new();
    for part in text.split(',') {
        let (size, count) = part.split_once('x').unwrap_or((part, "1"));
        let parsed = size.trim().parse::<u64>().ok().zip(count.trim().parse::<u64>().ok());
        let (size, count) = parsed.ok_or_else(|| {
            format!("{part:?} is not SAMPLES or SAMPLESxSHARDS, such as 8892 or 20000x18243")
        })?;
        if count > MOST_SHARDS - (sizes.len() as u64).min(MOST_SHARDS) {
            return Err(format!("a list of more than {MOST_SHARDS} shards"));
        }
        sizes.extend(std::iter::repeat_n(size, count as usize));
    }
    Ok(Dataset::Sizes { given: format!("sizes={text}"), sizes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> StreamSpec {
        text.parse().unwrap()
    }

    fn refused(text: &str) -> String {
        text.parse::<StreamSpec>().unwrap_err()
    }

    #[test]
    fn streams_are_a_dataset_or_sizes_and_a_weight() {
        assert_eq!(parsed("s3://b/a,b=c"), StreamSpec::remote("s3://b/a,b=c".to_owned()));
        let half = StreamSpec {
            weight: Weight::Proportion(0.5),
            ..StreamSpec::remote("./a,b".to_owned())
        };
        assert_eq!(parsed("./a,b,proportion=0.5"), half);
        let sizes = parsed("sizes=10x2, 3,bytes=1kb,choose=7");
        assert_eq!((sizes.bytes, sizes.weight), (1024, Weight::Choose(7)));
        let Dataset::Sizes { given, sizes } = sizes.dataset else { panic!("a list") };
        assert_eq!((given.as_str(), sizes), ("sizes=10x2, 3", vec![10, 10, 3]));
        assert_eq!(parsed("sizes=5,repeat=1.5").weight, Weight::Repeat(1.5));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(
            refused("./a,repeat=2,choose=1"),
            "a stream takes one of proportion, repeat and choose"
        );
        assert_eq!(refused("./a,choose=1.5"), "choose=1.5 is not a number that choose can be");
        assert_eq!(
            refused("sizes=3x"),
            "\"3x\" is not SAMPLES or SAMPLESxSHARDS, such as 8892 or 20000x18243"
        );
        assert_eq!(refused("sizes=1x9000000,1x1000001"), "a list of more than 10000000 shards");
        assert_eq!(
            refused("./a,bytes=3"),
            "bytes= belongs to sizes=; a dataset's own sizes are known"
        );
        assert_eq!(refused(",repeat=2"), "give a REMOTE, or sizes= and a list of shard sizes");
        assert!(refused("sizes=3,bytes=x").starts_with("\"x\" is not a size in bytes"));
    }
}
