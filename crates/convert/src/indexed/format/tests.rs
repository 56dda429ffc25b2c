//! The golden file, and one test for each way in which a file can be wrong.

use super::*;

/// The documents [1, 2, 3], [4] and [5, 6] as `uint16`: as GPT-NeoX writes them.
const GOLDEN: &str = "4d4d494449445800000100000000000000080300000000000000040000000000000003000000010000\
                      0002000000000000000000000006000000000000000800000000000000000000000000000001000000\
                      0000000002000000000000000300000000000000";
const BIN_BYTES: u64 = 12;

fn golden() -> Vec<u8> {
    let byte = |i| u8::from_str_radix(&GOLDEN[i..i + 2], 16).unwrap();
    (0..GOLDEN.len()).step_by(2).map(byte).collect()
}

/// The golden file with other bytes from `at` on.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = golden();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn refusal(file: impl AsRef<[u8]> + fmt::Debug, bin_bytes: u64) -> String {
    IndexFile::parse(file, bin_bytes).unwrap_err().to_string()
}

#[test]
fn the_golden_file_is_written_and_read() {
    let mut written = Vec::new();
    write_index(Dtype::U16, &[3, 1, 2], &[0, 1, 2, 3], &mut written).unwrap();
    assert_eq!(written, golden());
    assert_eq!(written.len(), 102);

    let index = IndexFile::parse(golden(), BIN_BYTES).unwrap();
    assert_eq!(index.dtype(), Dtype::U16);
    assert!(index.sizes().iter().eq([3, 1, 2]));
    assert_eq!(index.documents(), 3);
    assert_eq!(index.sequences_of(1), Some(1..2));
    assert_eq!(index.sequences_of(3), None);
    assert_eq!(index.sequences_of(usize::MAX), None);
    assert_eq!(index.bytes_of(1..2), Some(6..8));
    assert_eq!(index.bytes_of(1..3), Some(6..12));
    assert_eq!(index.bytes_of(2..2), Some(0..0));
    assert_eq!(index.bytes_of(2..4), None);
    assert!(!index.has_modes());
}

#[test]
fn every_type_has_its_code_and_size() {
    let of = |dtype: Dtype| (dtype.code(), dtype.name(), dtype.size());
    let expected = [
        (1, "uint8", 1),
        (2, "int8", 1),
        (3, "int16", 2),
        (4, "int32", 4),
        (5, "int64", 8),
        (8, "uint16", 2),
    ];
    assert_eq!(Dtype::ALL.map(of), expected);
    for dtype in Dtype::ALL {
        let mut file = Vec::new();
        write_index(dtype, &[2, 0, 1], &[0, 2, 2, 3], &mut file).unwrap();
        let index = IndexFile::parse(&file, 3 * dtype.size() as u64).unwrap();
        assert_eq!(index.dtype(), dtype);
        let sequences: Vec<_> = (0..3).map(|i| index.sequences_of(i).unwrap()).collect();
        assert_eq!(sequences, [0..2, 2..2, 2..3], "the document in the middle is empty");
    }
}

#[test]
fn vocabularies_below_65500_are_uint16() {
    assert_eq!(Dtype::for_vocab_size(50_257), Dtype::U16);
    assert_eq!(Dtype::for_vocab_size(65_499), Dtype::U16);
    assert_eq!(Dtype::for_vocab_size(65_500), Dtype::I32);
}

#[test]
fn modes_of_megatron_core_are_passed_over() {
    let file = [golden(), vec![0, 1, 0]].concat();
    let index = IndexFile::parse(&file, BIN_BYTES).unwrap();
    assert!(index.has_modes());
    assert_eq!(index.sequences_of(2), Some(2..3));
    assert_eq!(
        refusal([golden(), vec![0, 1]].concat(), BIN_BYTES),
        "byte 102: 2 bytes follow the document boundaries, where nothing or one for each of the \
         3 sequences may be; copy or write the dataset again"
    );
}

#[test]
fn merged_files_of_gpt_neox_have_a_document_for_each_sequence() {
    let mut file = Vec::new();
    write_index(Dtype::U16, &[3, 1, 2], &[0], &mut file).unwrap();
    let index = IndexFile::parse(&file, BIN_BYTES).unwrap();
    assert_eq!(index.documents(), 3);
    assert_eq!(index.sequences_of(2), Some(2..3));
    assert_eq!(index.sequences_of(3), None);
}

#[test]
fn an_empty_dataset_is_one() {
    let mut file = Vec::new();
    write_index(Dtype::I32, &[], &[0], &mut file).unwrap();
    let index = IndexFile::parse(&file, 0).unwrap();
    assert_eq!((index.sizes().len(), index.documents()), (0, 0));
    assert_eq!(index.bytes_of(0..0), Some(0..0));
}

#[test]
fn other_files_are_not_indexes() {
    let text = "byte 0: the file begins neither with MMIDIDX nor with TNTIDX and two zero bytes, as an index does; \
                check the path";
    assert_eq!(refusal(b"{\"text\": \"\"}", 0), text);
    assert_eq!(refusal(with(8, &[1]), BIN_BYTES), text);
    assert_eq!(
        refusal(with(9, &[2]), BIN_BYTES),
        "byte 9: the version is 2, not 1; write the dataset again as version 1"
    );
}

#[test]
fn floats_are_refused_since_two_programs_disagree_on_them() {
    assert_eq!(
        refusal(with(17, &[6]), BIN_BYTES),
        "byte 17: dtype code 6 is float32 to GPT-NeoX and float64 to Megatron-core, so that the \
         file does not say what its numbers are; write tokens as integers"
    );
    assert_eq!(
        refusal(with(17, &[7]), BIN_BYTES),
        "byte 17: dtype code 7 is float64 to GPT-NeoX and float32 to Megatron-core, so that the \
         file does not say what its numbers are; write tokens as integers"
    );
    assert_eq!(
        refusal(with(17, &[9]), BIN_BYTES),
        "byte 17: dtype code 9 is unknown; those known are 1 uint8, 2 int8, 3 int16, 4 int32, \
         5 int64, 8 uint16; copy or write the dataset again"
    );
}

#[test]
fn files_that_end_early_say_what_is_missing() {
    let header = "the file ends within its header of 34 bytes; copy or write the dataset again";
    for length in [0, 5, 33] {
        assert_eq!(refusal(&golden()[..length], BIN_BYTES), format!("byte {length}: {header}"));
    }
    for length in [34, 101] {
        assert_eq!(
            refusal(&golden()[..length], BIN_BYTES),
            format!(
                "byte {length}: the file ends here, where 3 sequences and 4 document boundaries \
                 need 102 bytes; copy or write the dataset again"
            )
        );
    }
}

#[test]
fn counts_that_no_file_holds_are_refused_before_anything_is_allocated() {
    for (at, counts) in [
        (18, "18446744073709551615 sequences and 4 document boundaries"),
        (26, "3 sequences and 18446744073709551615 document boundaries"),
    ] {
        assert_eq!(
            refusal(with(at, &[0xFF; 8]), BIN_BYTES),
            format!(
                "byte 18: {counts} need more bytes than a file can have; copy or write the \
                 dataset again"
            )
        );
    }
    // The product of 12 fits, the sum does not.
    let sequences = (u64::MAX / 12).to_le_bytes();
    assert!(refusal(with(18, &sequences), BIN_BYTES).contains("than a file can have"));
    assert_eq!(
        refusal(with(18, &(1_u64 << 40).to_le_bytes()), BIN_BYTES),
        "byte 102: the file ends here, where 1099511627776 sequences and 4 document boundaries \
         need 13194139533378 bytes; copy or write the dataset again"
    );
}

#[test]
fn sequences_must_lie_one_after_the_other_and_fill_bin() {
    assert_eq!(
        refusal(with(38, &(-1_i32).to_le_bytes()), BIN_BYTES),
        "byte 38: sequence 1 has -1 tokens; copy or write the dataset again"
    );
    assert_eq!(
        refusal(with(54, &7_u64.to_le_bytes()), BIN_BYTES),
        "byte 54: sequence 1 begins at byte 7 of .bin, where those before it end at byte 6; copy \
         or write the dataset again"
    );
    assert_eq!(
        refusal(with(46, &(-2_i64).to_le_bytes()), BIN_BYTES),
        "byte 46: sequence 0 begins at byte -2 of .bin, where those before it end at byte 0; copy \
         or write the dataset again"
    );
    assert_eq!(
        refusal(golden(), 10),
        "byte 62: sequence 2 ends at byte 12 of .bin, which has 10 bytes; copy or write the \
         dataset again"
    );
    assert_eq!(
        refusal(golden(), 14),
        "byte 46: the 3 sequences end at byte 12 of .bin, which has 14 bytes; copy or write the \
         dataset again"
    );
}

#[test]
fn documents_must_follow_one_another_and_end_with_the_sequences() {
    assert_eq!(
        refusal(with(26, &[0; 8]), BIN_BYTES).split(';').next(),
        Some(
            "byte 70: 32 bytes follow the document boundaries, where nothing or one for each of \
             the 3 sequences may be"
        )
    );
    let mut none = golden();
    none.truncate(70);
    none[26] = 0;
    assert_eq!(
        refusal(none, BIN_BYTES),
        "byte 26: there are 0 document boundaries, where the first is always 0; copy or write the \
         dataset again"
    );
    assert_eq!(
        refusal(with(70, &[1]), BIN_BYTES),
        "byte 70: document 0 begins at sequence 1, not 0; copy or write the dataset again"
    );
    assert_eq!(
        refusal(with(78, &[3]), BIN_BYTES),
        "byte 86: document boundary 2 is sequence 2, before the one before it, 3; copy or write \
         the dataset again"
    );
    assert_eq!(
        refusal(with(94, &[2]), BIN_BYTES),
        "byte 94: the last document ends with sequence 2, and there are 3; copy or write the \
         dataset again"
    );
    assert_eq!(
        refusal(with(94, &[4]), BIN_BYTES),
        "byte 94: the last document ends with sequence 4, and there are 3; copy or write the \
         dataset again"
    );
}

#[test]
fn no_change_of_a_byte_and_no_cut_is_more_than_refused() {
    for at in 0..golden().len() {
        for bits in 0..=u8::MAX {
            let mut file = golden();
            file[at] ^= bits;
            if let Ok(index) = IndexFile::parse(file, BIN_BYTES) {
                let documents = 0..index.documents();
                let sequences = documents.map(|i| index.sequences_of(i).unwrap());
                assert!(sequences.into_iter().all(|s| index.bytes_of(s).unwrap().end <= 12));
            }
        }
        assert!(IndexFile::parse(&golden()[..at], BIN_BYTES).is_err());
    }
}
