//! Names, round trips, and files that lie.

use std::io::Write;

use super::*;
use crate::ErrorKind;

const REMEDY: &str = "fetch the shard again, or write it again from its source";

/// Each code at its default level.
const CODES: [Compression; 5] = [
    Compression::Br(None),
    Compression::Bz2(None),
    Compression::Gz(None),
    Compression::Snappy,
    Compression::Zstd(None),
];

/// Each code without a level and at each of its levels.
fn every_compression() -> Vec<Compression> {
    let mut all = CODES.to_vec();
    all.extend((0..=11).map(|level| Compression::Br(Some(level))));
    all.extend((1..=9).map(|level| Compression::Bz2(Some(level))));
    all.extend((0..=9).map(|level| Compression::Gz(Some(level))));
    all.extend((1..=22).map(|level| Compression::Zstd(Some(level))));
    all
}

/// Decompresses in both ways, which must agree.
fn decompress(compression: Compression, zip: &[u8], declared: u64) -> Result<Vec<u8>> {
    let whole = compression.decompress(zip, declared);
    let mut pieces = Vec::new();
    let in_pieces = compression.decompress_to(zip, declared, |piece| {
        pieces.extend_from_slice(piece);
        Ok(())
    });
    assert!(pieces.len() as u64 <= declared);
    match (&whole, in_pieces) {
        (Ok(whole), Ok(())) => assert_eq!(*whole, pieces),
        (Err(whole), Err(in_pieces)) => assert_eq!(whole.kind(), in_pieces.kind()),
        (whole, in_pieces) => panic!("{compression}: {whole:?} but {in_pieces:?}"),
    }
    whole
}

/// The text of the error, which must be `Corrupt`.
fn corrupt_text(compression: Compression, zip: &[u8], declared: u64) -> String {
    let error = decompress(compression, zip, declared).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{compression}: {error}");
    error.to_string()
}

fn not_valid_text(compression: Compression) -> String {
    format!("the compressed file is not valid {}; {REMEDY}", compression.extension())
}

fn holds_more_text(declared: u64) -> String {
    format!(
        "the compressed file holds more than the {declared} bytes that the index declares; \
         {REMEDY}"
    )
}

/// Bytes with runs, repeats and noise.
fn sample_bytes(len: u32) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(i >> 5) >> 3) as u8 & 0x3f).collect()
}

#[test]
fn names_round_trip() {
    let all = every_compression();
    // As many as the reference lists.
    assert_eq!(all.len(), 58);
    for compression in all {
        let name = compression.to_string();
        assert_eq!(name.parse::<Compression>().unwrap(), compression);
        assert_eq!(name.split(':').next(), Some(compression.extension()));
    }
    assert_eq!("gz:0".parse::<Compression>().unwrap(), Compression::Gz(Some(0)));
    assert_eq!(Compression::Br(Some(11)).to_string(), "br:11");
    assert_ne!(Compression::Br(Some(11)), Compression::Br(None));
}

#[test]
fn other_names_are_refused() {
    for name in ["lz4", "", "ZSTD", "zstd ", ":7", "gzip", "none"] {
        let error = name.parse::<Compression>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            format!(
                "there is no compression {name:?}; use br, bz2, gz, snappy or zstd, with a level \
                 where there is one (zstd:7), or no compression"
            )
        );
    }
    let levels = [
        ("br", "12", "use br:0 to br:11"),
        ("bz2", "0", "use bz2:1 to bz2:9"),
        ("bz2", "10", "use bz2:1 to bz2:9"),
        ("gz", "10", "use gz:0 to gz:9"),
        ("snappy", "0", "use snappy"),
        ("snappy", "1", "use snappy"),
        ("zstd", "0", "use zstd:1 to zstd:22"),
        ("zstd", "23", "use zstd:1 to zstd:22"),
    ];
    let spellings = ["", "07", "+7", "-1", "x", "7 ", "7:7", "99999999999"];
    let misspelt =
        levels.iter().flat_map(|(code, _, advice)| spellings.map(|level| (*code, level, *advice)));
    for (code, level, advice) in levels.into_iter().chain(misspelt) {
        let name = format!("{code}:{level}");
        let error = name.parse::<Compression>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            error.to_string(),
            format!("the compression {name:?} has no such level; {advice}")
        );
    }
}

#[test]
fn levels_that_do_not_exist_are_refused_by_the_compressor_too() {
    for (compression, text) in [
        (
            Compression::Br(Some(12)),
            "the compression \"br:12\" has no such level; use br:0 to br:11",
        ),
        (
            Compression::Bz2(Some(0)),
            "the compression \"bz2:0\" has no such level; use bz2:1 to bz2:9",
        ),
        (
            Compression::Gz(Some(10)),
            "the compression \"gz:10\" has no such level; use gz:0 to gz:9",
        ),
        (
            Compression::Zstd(Some(-1)),
            "the compression \"zstd:-1\" has no such level; use zstd:1 to zstd:22",
        ),
    ] {
        let error = compression.compress(b"text").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn files_round_trip_at_every_level() {
    let inputs = [Vec::new(), vec![7], sample_bytes(50_000)];
    for compression in every_compression() {
        for raw in &inputs {
            let zip = compression.compress(raw).unwrap();
            assert_eq!(compression.compress(raw).unwrap(), zip, "{compression} is not repeatable");
            let back = decompress(compression, &zip, raw.len() as u64).unwrap();
            assert!(back == *raw, "{compression}, {} bytes", raw.len());
            assert_eq!(back.capacity(), raw.len(), "{compression}");
            if raw.len() > 100 && compression != Compression::Gz(Some(0)) {
                assert!(zip.len() < raw.len(), "{compression}");
            }
        }
    }
}

/// The default levels are the reference's.
#[test]
fn no_level_is_the_default_level() {
    let raw = sample_bytes(50_000);
    for (default, level) in [
        (Compression::Br(None), Compression::Br(Some(11))),
        (Compression::Bz2(None), Compression::Bz2(Some(9))),
        (Compression::Gz(None), Compression::Gz(Some(9))),
        (Compression::Zstd(None), Compression::Zstd(Some(3))),
    ] {
        assert_eq!(default.compress(&raw).unwrap(), level.compress(&raw).unwrap());
    }
}

#[test]
fn zstd_is_one_frame_with_its_size() {
    let raw = sample_bytes(10_000);
    let zip = Compression::Zstd(None).compress(&raw).unwrap();
    let size = zstd::zstd_safe::get_frame_content_size(&zip).unwrap();
    assert_eq!(size, Some(raw.len() as u64));
    assert_eq!(zstd::zstd_safe::find_frame_compressed_size(&zip).unwrap(), zip.len());
}

/// Python's header but for the time: no flags, the level's hint, an unknown operating system.
#[test]
fn the_header_of_gzip_holds_no_time() {
    for (level, hint) in [(Some(0), 0), (Some(5), 0), (Some(1), 4), (Some(9), 2), (None, 2)] {
        let zip = Compression::Gz(level).compress(b"text").unwrap();
        assert_eq!(zip[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, hint, 0xff]);
    }
}

/// Several members, and frames without a size, are legal input.
#[test]
fn other_writers_files_are_read() {
    let frame = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).unwrap();
    let zip = [frame(b"one, "), frame(b"two")].concat();
    assert_eq!(decompress(Compression::Zstd(None), &zip, 8).unwrap(), b"one, two");
    for compression in [Compression::Gz(None), Compression::Bz2(None)] {
        let member = |bytes: &[u8]| compression.compress(bytes).unwrap();
        let zip = [member(b"one, "), member(b""), member(b"two")].concat();
        assert_eq!(decompress(compression, &zip, 8).unwrap(), b"one, two");
        // The second member is as untrusted as the first.
        assert_eq!(corrupt_text(compression, &zip, 5), holds_more_text(5));
        assert_eq!(
            corrupt_text(compression, &zip[..zip.len() - 1], 8),
            not_valid_text(compression)
        );
    }
}

#[test]
fn wrong_sizes_are_corrupt() {
    for compression in CODES {
        let zip = compression.compress(&[7; 1000]).unwrap();
        for declared in [1001, 100_000] {
            assert_eq!(
                corrupt_text(compression, &zip, declared),
                format!(
                    "the compressed file holds 1000 bytes, but the index declares {declared}; \
                     {REMEDY}"
                )
            );
        }
        for declared in [0, 1, 999] {
            assert_eq!(corrupt_text(compression, &zip, declared), holds_more_text(declared));
        }
        for declared in [1 << 32, u64::MAX] {
            assert_eq!(
                corrupt_text(compression, &zip, declared),
                format!(
                    "the index declares a raw size of {declared} bytes, more than any shard can \
                     have; fetch index.json again, or write the dataset again"
                )
            );
        }
    }
}

#[test]
fn files_that_are_something_else_are_not_valid() {
    for compression in CODES {
        let zip = compression.compress(&sample_bytes(1000)).unwrap();
        let text = not_valid_text(compression);
        assert_eq!(corrupt_text(compression, &zip[..zip.len() - 1], 1000), text);
        for garbage in [&b"x"[..], b"\0", b"\0\0\0\0", b"no member starts like this"] {
            let longer = [&zip, garbage].concat();
            assert_eq!(corrupt_text(compression, &longer, 1000), text, "{garbage:?}");
        }
        if compression != Compression::Snappy {
            assert_eq!(corrupt_text(compression, b"neither of them", 1000), text);
        }
    }
    // The first bytes of a block of Snappy are its size, whatever they are.
    assert_eq!(
        corrupt_text(Compression::Snappy, b"neither of them", 1000),
        format!("the compressed file holds 110 bytes, but the index declares 1000; {REMEDY}")
    );
    assert_eq!(
        corrupt_text(Compression::Snappy, b"neither of them", 110),
        not_valid_text(Compression::Snappy)
    );
}

/// A file cut anywhere is refused, and a file with a flipped bit is refused or gives bytes of the
/// declared size (Brotli, Snappy and our Zstandard carry no check sum; the index has hashes).
#[test]
fn damage_is_refused_and_never_panics() {
    let raw = sample_bytes(700);
    let declared = raw.len() as u64;
    for compression in CODES {
        let zip = compression.compress(&raw).unwrap();
        for end in 0..zip.len() {
            corrupt_text(compression, &zip[..end], declared);
        }
        for bit in 0..zip.len() * 8 {
            let mut flipped = zip.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match decompress(compression, &flipped, declared) {
                Ok(back) => assert_eq!(back.len(), raw.len()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
            if matches!(compression, Compression::Gz(_) | Compression::Bz2(_))
                && let Ok(back) = decompress(compression, &flipped, declared)
            {
                assert_eq!(back, raw, "{compression} has check sums, but bit {bit} went unseen");
            }
        }
    }
}

/// Bytes at random, behind a beginning that leads the decoder past its header.
#[test]
fn noise_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    for compression in CODES {
        let zip = compression.compress(&sample_bytes(5000)).unwrap();
        for round in 0..2000 {
            let mut bytes = zip[..round % zip.len().min(64)].to_vec();
            for _ in 0..round % 50 {
                bytes.extend(noise());
            }
            if let Ok(back) = decompress(compression, &bytes, 5000) {
                assert_eq!(back.len(), 5000);
            }
        }
    }
}

/// A stream with a large window, an extension that lets a decoder allocate 1 GiB, is not Brotli.
#[test]
fn large_windows_of_brotli_are_refused() {
    let params = brotli::enc::BrotliEncoderParams {
        quality: 5,
        lgwin: 28,
        large_window: true,
        ..Default::default()
    };
    let mut encoder = brotli::CompressorWriter::with_params(Vec::new(), 1 << 12, &params);
    encoder.write_all(&sample_bytes(1000)).unwrap();
    let zip = encoder.into_inner();
    let br = Compression::Br(None);
    assert_eq!(corrupt_text(br, &zip, 1000), not_valid_text(br));
}

/// A small file that declares gigabytes, in agreement with its index, is given no memory to clear.
#[test]
fn blocks_of_snappy_are_not_believed() {
    // 4294967295 as a varint, then a literal of one byte.
    let zip = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 7];
    let snappy = Compression::Snappy;
    assert_eq!(corrupt_text(snappy, &zip, u64::from(u32::MAX)), not_valid_text(snappy));
}

/// 64 MiB of zeros in a file that is far smaller.
fn bomb(compression: Compression) -> Vec<u8> {
    let fast = match compression {
        Compression::Br(_) => Compression::Br(Some(5)),
        other => other,
    };
    fast.compress(&vec![0; 64 << 20]).unwrap()
}

#[test]
fn bombs_stop_at_the_declared_size() {
    for compression in CODES {
        let zip = bomb(compression);
        // Snappy copies at most 64 bytes at a time, so that its bombs are weak.
        let limit = if compression == Compression::Snappy { 4 << 20 } else { 100_000 };
        assert!(zip.len() < limit, "{compression}: {}", zip.len());
        for declared in [0, 1000, (64 << 20) - 1] {
            assert_eq!(corrupt_text(compression, &zip, declared), holds_more_text(declared));
        }
    }
}

/// The peak of resident memory, in a process of its own, while each bomb of 64 MiB is refused.
#[test]
#[cfg(target_os = "linux")]
fn bombs_take_no_memory() {
    const CHILD: &str = "MDS_TEST_BOMB";
    const NAME: &str = "format::compression::tests::bombs_take_no_memory";
    let Some(path) = std::env::var_os(CHILD) else {
        let dir = tempfile::tempdir().unwrap();
        for compression in CODES {
            let path = dir.path().join(compression.to_string());
            std::fs::write(&path, bomb(compression)).unwrap();
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", NAME])
                .env(CHILD, &path)
                .output()
                .unwrap();
            assert!(child.status.success(), "{compression}: {child:?}");
        }
        return;
    };
    let path = std::path::PathBuf::from(path);
    let name = path.file_name().unwrap().to_str().unwrap();
    let compression: Compression = name.parse().unwrap();
    let zip = std::fs::read(&path).unwrap();
    let before = peak_kib();
    assert_eq!(corrupt_text(compression, &zip, 1000), holds_more_text(1000));
    // The window of Brotli is the largest: it may be 16 MiB, and is 4 MiB here.
    let grown = peak_kib() - before;
    assert!(grown < 20 << 10, "{compression} took {grown} KiB");
}

#[cfg(target_os = "linux")]
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}
