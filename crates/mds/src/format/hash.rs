//! The hash functions that an index may list for each file.

use std::fmt;
use std::str::FromStr;

use digest::Digest;
use xxhash_rust::{xxh3, xxh32, xxh64};

use crate::{Error, Result};

/// A hash function, named as in `index.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the function that it is named after")]
pub enum HashAlgorithm {
    Blake2b,
    Blake2s,
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
    Sha512,
    /// The same function as [`Xxh3_128`](Self::Xxh3_128) under another name.
    Xxh128,
    Xxh32,
    Xxh3_128,
    Xxh3_64,
    Xxh64,
}

impl HashAlgorithm {
    /// Every function, in the order of the names.
    pub const ALL: [Self; 17] = [
        Self::Blake2b,
        Self::Blake2s,
        Self::Md5,
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha3_224,
        Self::Sha3_256,
        Self::Sha3_384,
        Self::Sha3_512,
        Self::Sha512,
        Self::Xxh128,
        Self::Xxh32,
        Self::Xxh3_128,
        Self::Xxh3_64,
        Self::Xxh64,
    ];

    /// The name in `index.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blake2b => "blake2b",
            Self::Blake2s => "blake2s",
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha3_224 => "sha3_224",
            Self::Sha3_256 => "sha3_256",
            Self::Sha3_384 => "sha3_384",
            Self::Sha3_512 => "sha3_512",
            Self::Sha512 => "sha512",
            Self::Xxh128 => "xxh128",
            Self::Xxh32 => "xxh32",
            Self::Xxh3_128 => "xxh3_128",
            Self::Xxh3_64 => "xxh3_64",
            Self::Xxh64 => "xxh64",
        }
    }

    /// The digest of `bytes` in lower-case hexadecimal. The xxh functions use seed 0 and their
    /// canonical (big-endian) form.
    pub fn hex(self, bytes: &[u8]) -> String {
        match self {
            Self::Blake2b => digest::<blake2::Blake2b512>(bytes),
            Self::Blake2s => digest::<blake2::Blake2s256>(bytes),
            Self::Md5 => digest::<md5::Md5>(bytes),
            Self::Sha1 => digest::<sha1::Sha1>(bytes),
            Self::Sha224 => digest::<sha2::Sha224>(bytes),
            Self::Sha256 => digest::<sha2::Sha256>(bytes),
            Self::Sha384 => digest::<sha2::Sha384>(bytes),
            Self::Sha3_224 => digest::<sha3::Sha3_224>(bytes),
            Self::Sha3_256 => digest::<sha3::Sha3_256>(bytes),
            Self::Sha3_384 => digest::<sha3::Sha3_384>(bytes),
            Self::Sha3_512 => digest::<sha3::Sha3_512>(bytes),
            Self::Sha512 => digest::<sha2::Sha512>(bytes),
            Self::Xxh128 | Self::Xxh3_128 => format!("{:032x}", xxh3::xxh3_128(bytes)),
            Self::Xxh32 => format!("{:08x}", xxh32::xxh32(bytes, 0)),
            Self::Xxh3_64 => format!("{:016x}", xxh3::xxh3_64(bytes)),
            Self::Xxh64 => format!("{:016x}", xxh64::xxh64(bytes, 0)),
        }
    }

    /// Checks a list for writing: the reference takes only lists in ascending order.
    pub(crate) fn check_sorted(hashes: &[Self]) -> Result<()> {
        let names: Vec<_> = hashes.iter().map(|hash| hash.name()).collect();
        if names.is_sorted() {
            return Ok(());
        }
        let mut sorted = names.clone();
        sorted.sort_unstable();
        Err(Error::invalid(
            format!("the hashes {} are not in ascending order", names.join(",")),
            format!("write {}", sorted.join(",")),
        ))
    }
}

fn digest<D: Digest>(bytes: &[u8]) -> String {
    hex::encode(D::digest(bytes))
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashAlgorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|hash| hash.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|hash| hash.name()).collect();
            Error::unsupported(
                format!("there is no hash {name:?}"),
                format!("use one of {}", names.join(", ")),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_abc() {
        // From Python's hashlib and xxhash.
        let cases = [
            ("md5", "900150983cd24fb0d6963f7d28e17f72"),
            ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
            ("sha3_224", "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"),
            ("blake2s", "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"),
            ("xxh32", "32d153ff"),
            ("xxh64", "44bc2cf5ad770999"),
            ("xxh3_64", "78af5f94892f3950"),
            ("xxh128", "06b05ab6733a618578af5f94892f3950"),
            ("xxh3_128", "06b05ab6733a618578af5f94892f3950"),
        ];
        for (name, hex) in cases {
            assert_eq!(name.parse::<HashAlgorithm>().unwrap().hex(b"abc"), hex, "{name}");
        }
    }

    #[test]
    fn digests_have_the_full_length() {
        let lengths = [128, 64, 32, 40, 56, 64, 96, 56, 64, 96, 128, 128, 32, 8, 32, 16, 16];
        for (hash, length) in HashAlgorithm::ALL.into_iter().zip(lengths) {
            assert_eq!(hash.hex(b"").len(), length, "{hash}");
            assert_eq!(hash.name().parse::<HashAlgorithm>().unwrap(), hash);
        }
    }

    #[test]
    fn lists_must_ascend() {
        use HashAlgorithm::{Sha1, Xxh64};
        assert!(HashAlgorithm::check_sorted(&[Sha1, Sha1, Xxh64]).is_ok());
        assert_eq!(
            HashAlgorithm::check_sorted(&[Xxh64, Sha1]).unwrap_err().to_string(),
            "the hashes xxh64,sha1 are not in ascending order; write sha1,xxh64"
        );
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        assert_eq!(
            "crc32".parse::<HashAlgorithm>().unwrap_err().to_string(),
            "there is no hash \"crc32\"; use one of blake2b, blake2s, md5, sha1, sha224, sha256, \
             sha384, sha3_224, sha3_256, sha3_384, sha3_512, sha512, xxh128, xxh32, xxh3_128, \
             xxh3_64, xxh64"
        );
    }
}
