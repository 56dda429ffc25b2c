//! Shards to batches, and what is written of these.

use super::{Dataset, dataset, schema};
use crate::arrow::BatchRows;
use crate::format::image::{Image, ImageFile, ImageFormat, ImageMode};
use crate::format::{
    DType, Encoding, FileInfo, Format, Index, IndexOptions, Integer, Json, NdArray, Scalar, Schema,
    ShardConfig, ShardInfo, ShardName, Value,
};
use crate::{ErrorKind, Shard, ShardOptions, Writer, WriterOptions};
use arrow_array::{Float64Array, Int16Array, LargeListArray, LargeStringArray, RecordBatch};
use arrow_schema::{DataType, Schema as ArrowSchema};
use half::f16;
use std::fs;
use std::path::Path;
use std::sync::Arc;

const TYPES: [&str; 11] = [
    "uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "uint64", "int64",
    "float64",
];

/// Two samples with a column of every encoding.
fn every_encoding() -> Dataset {
    let mut columns: Vec<(String, String)> = [
        "bytes",
        "str",
        "int",
        "str_int",
        "str_float",
        "str_decimal",
        "json",
        "ndarray",
        "pil",
        "jpeg",
        "png",
        "jpeg_array",
        "jpegarray",
        "list[pil]",
        "list[jpeg]",
        "list[png]",
        "pkl",
    ]
    .into_iter()
    .map(|name| (name.to_owned(), name.to_owned()))
    .collect();
    for dtype in TYPES {
        columns.push((format!("scalar {dtype}"), dtype.to_owned()));
        columns.push((format!("list {dtype}"), format!("ndarray:{dtype}")));
        columns.push((format!("row {dtype}"), format!("ndarray:{dtype}:3")));
        columns.push((format!("tensor {dtype}"), format!("ndarray:{dtype}:2,1,2")));
    }
    let columns: Vec<_> = columns.iter().map(|(n, e)| (n.as_str(), e.as_str())).collect();
    let schema = schema(&columns);
    let samples: Vec<Vec<Value<'static>>> = (0..2)
        .map(|i| schema.columns().iter().map(|column| example(&column.encoding, i)).collect())
        .collect();
    Dataset::write(schema, |writer| samples.iter().try_for_each(|sample| writer.write(sample)))
        .unwrap()
}

fn example(encoding: &Encoding, i: u8) -> Value<'static> {
    let image = || {
        let pixels = vec![200 - i; 12];
        Image::new(2, 2, ImageMode::Rgb, pixels).unwrap()
    };
    let file = |format| Value::from(ImageFile::from_image(&image(), format).unwrap());
    match encoding {
        Encoding::Bytes => vec![0xff; i.into()].into(),
        Encoding::Pickle => vec![0x80, 4, i].into(),
        Encoding::Str => ["", "hé😀"][usize::from(i)].into(),
        Encoding::Int => Value::Int(i64::MIN + i64::from(i)),
        Encoding::Scalar(dtype) => Scalar::U8(100 + i).cast(*dtype).unwrap().into(),
        Encoding::StrInt => Integer::parse("123456789012345678901234567890").unwrap().into(),
        Encoding::StrFloat => [f64::NAN, 0.1][usize::from(i)].into(),
        Encoding::StrDecimal => "1.500".into(),
        Encoding::Json => Json::parse(r#"{"b": [1, null], "a": "é"}"#).unwrap().into(),
        Encoding::NdArray { dtype, shape } => {
            let dtype = dtype.unwrap_or(DType::F32);
            let list = vec![if i == 0 { 300 } else { 1 }];
            let shape = shape.clone().unwrap_or(list);
            let mut data = Vec::new();
            for n in 0..shape.iter().product() {
                Scalar::U8(n as u8 % 100 + i).cast(dtype).unwrap().write_le(&mut data);
            }
            NdArray::new(dtype, shape, data).unwrap().into()
        }
        Encoding::Image(e) => match e.name() {
            "pil" => image().into(),
            "png" => file(ImageFormat::Png),
            _ => file(ImageFormat::Jpeg),
        },
        Encoding::ImageList(e) => {
            Value::List(vec![example(&Encoding::Image(*e), i), example(&Encoding::Image(*e), 1)])
        }
        Encoding::JpegArray | Encoding::Jpegarray => Value::List(vec![file(ImageFormat::Jpeg)]),
        Encoding::NdArrayColon => NdArray::from_i32(&[i.into(), 2]).into(),
        Encoding::Float => 0.5.into(),
    }
}

#[test]
fn every_encoding_comes_back_byte_for_byte() {
    let dataset = every_encoding();
    let shard = dataset.shard();
    assert_eq!(shard.schema().columns().len(), 17 + 4 * 11);
    let batch = shard.to_record_batch().unwrap();
    assert_eq!(*batch.schema(), shard.schema().to_arrow());
    assert!(batch.schema().fields().iter().all(|field| !field.is_nullable()));

    let again =
        Dataset::write(shard.schema().clone(), |writer| writer.write_batch(&batch)).unwrap();
    assert_eq!(again.bytes(), dataset.bytes());

    // Slices begin elsewhere in their buffers.
    let halves = Dataset::write(shard.schema().clone(), |writer| {
        writer.write_batch(&batch.slice(0, 1))?;
        writer.write_batch(&batch.slice(1, 1))
    });
    assert_eq!(halves.unwrap().bytes(), dataset.bytes());

    // The fields alone restore the columns, except for pickles, which only their user may declare.
    let fields = batch.schema();
    let fields = fields.fields().iter().filter(|field| field.name() != "pkl").cloned();
    let restored = Schema::from_arrow(&ArrowSchema::new(fields.collect::<Vec<_>>())).unwrap();
    let columns = shard.schema().columns().iter().filter(|column| column.name != "pkl");
    assert_eq!(restored.columns(), columns.cloned().collect::<Vec<_>>());
}

#[test]
fn values_in_a_batch_are_those_of_the_samples() {
    let dataset = dataset(
        &[("f", "str_float"), ("h", "float16"), ("l", "ndarray:int16"), ("t", "str")],
        &[
            &[
                f64::INFINITY.into(),
                Scalar::F16(f16::from_f32(1.5)).into(),
                NdArray::new(DType::I16, vec![2], vec![1, 0, 255, 255]).unwrap().into(),
                "a".into(),
            ],
            &[
                0.1.into(),
                Scalar::F16(f16::from_f32(-2.0)).into(),
                NdArray::new(DType::I16, vec![1], vec![7, 0]).unwrap().into(),
                "".into(),
            ],
        ],
    );
    let found = dataset.shard().to_record_batch().unwrap();
    let column = |i: usize| found.column(i).as_any();
    let floats = column(0).downcast_ref::<Float64Array>().unwrap();
    assert_eq!(floats.values().to_vec(), [f64::INFINITY, 0.1]);
    let halves = column(1).downcast_ref::<arrow_array::Float16Array>().unwrap();
    assert_eq!(halves.values().to_vec(), [f16::from_f32(1.5), f16::from_f32(-2.0)]);
    let lists = column(2).downcast_ref::<LargeListArray>().unwrap();
    assert_eq!(lists.value_offsets(), [0, 2, 3]);
    let items = lists.values().as_any().downcast_ref::<Int16Array>().unwrap();
    assert_eq!(items.values().to_vec(), [1, -1, 7]);
    let texts = column(3).downcast_ref::<LargeStringArray>().unwrap();
    assert_eq!(texts.iter().flatten().collect::<Vec<_>>(), ["a", ""]);
}

#[test]
fn empty_shards_make_empty_batches() {
    let columns: Vec<_> = TYPES.iter().map(|name| (*name, *name)).collect();
    let columns = [&columns[..], &[("l", "ndarray:int8"), ("t", "ndarray:int8:2"), ("s", "str")]];
    let schema = Arc::new(schema(&columns.concat()));
    let (config, text) = (ShardConfig::default(), [0, 0, 0, 0, 8, 0, 0, 0]);
    let info = FileInfo::of(ShardName::numbered(0, &Format::Mds), &text, &[]);
    let info = ShardInfo::new(Arc::clone(&schema), &config, (info, None), None, 0);
    let shard = Shard::from_bytes(text.to_vec(), None, &info).unwrap();
    let batch = shard.to_record_batch().unwrap();
    assert_eq!((batch.num_rows(), &*batch.schema()), (0, &schema.to_arrow()));
    let empty = Dataset::write((*schema).clone(), |writer| writer.write_batch(&batch)).unwrap();
    assert!(empty.index.shards.is_empty());
}

/// A shard of two files, as the formats of text have.
fn text_shard(format: Format, columns: &[(&str, &str)], lines: &[&str]) -> Shard {
    let schema = Arc::new(schema(columns));
    let mut data = format.header(&schema).into_bytes();
    let mut meta = (lines.len() as u32).to_le_bytes().to_vec();
    for line in lines {
        meta.extend((data.len() as u32).to_le_bytes());
        data.extend(line.as_bytes());
    }
    meta.extend((data.len() as u32).to_le_bytes());
    let file =
        |bytes: &[u8], name: &str| (FileInfo::of(ShardName::new(name).unwrap(), bytes, &[]), None);
    let config = ShardConfig { format, ..ShardConfig::default() };
    let files = (file(&data, "s"), Some(file(&meta, "s.meta")));
    let info = ShardInfo::new(schema, &config, files.0, files.1, lines.len() as u32);
    Shard::from_bytes(data, Some(meta), &info).unwrap()
}

#[test]
fn text_formats_make_batches() {
    let columns = [("f", "float"), ("i", "int"), ("s", "str")];
    let shards = [
        text_shard(Format::CSV, &columns, &["0.5,-7,one\n", "nan,8,\n"]),
        text_shard(
            Format::JSON,
            &columns,
            &["{\"f\": 0.5, \"i\": -7, \"s\": \"one\"}\n", "{\"f\": NaN, \"i\": 8, \"s\": \"\"}\n"],
        ),
    ];
    for shard in shards {
        let found = shard.to_record_batch().unwrap();
        let types: Vec<_> = found.columns().iter().map(|c| c.data_type().clone()).collect();
        assert_eq!(types, [DataType::Float64, DataType::Int64, DataType::LargeUtf8]);
        assert_eq!(Schema::from_arrow(&found.schema()).unwrap(), *shard.schema());
        check_rows(&shard, &found);
    }
    let shard = text_shard(Format::CSV, &columns, &["0.5,7,a\n", "0.5,9223372036854775808,b\n"]);
    assert_eq!(
        shard.to_record_batch().unwrap_err().to_string(),
        "shard s, sample 1, column i: the integer 9223372036854775808 is beyond the 64 bits of \
         Arrow's Int64; read the shard sample by sample"
    );
}

/// Encodes each row and compares it with its sample.
fn check_rows(shard: &Shard, batch: &RecordBatch) {
    let rows = BatchRows::new(shard.schema(), batch).unwrap();
    assert_eq!(rows.len(), shard.len());
    let (mut values, mut encoded) = (Vec::new(), Vec::new());
    for sample in shard.samples().unwrap() {
        rows.read(sample.position(), &mut values).unwrap();
        shard.format().encode_sample(shard.schema(), &values, &mut encoded).unwrap();
        assert_eq!(encoded, sample.encoded(), "{} {}", shard.name(), sample.position());
    }
}

#[test]
fn reference_datasets_come_back_byte_for_byte() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(std::env::var_os("MDS_GOLDEN_DIR").unwrap_or("tests/golden".into()));
    let Ok(cases) = fs::read_dir(root.join("mds")) else { return };
    let (mut written, mut refused) = (0, 0);
    for case in cases {
        let data = case.unwrap().path().join("data");
        let Ok(text) = fs::read(data.join("index.json")) else { continue };
        let index = Index::parse_with(&text, IndexOptions { pickle_bytes: true }).unwrap();
        let open = |info| Shard::open(&data, info, ShardOptions::default()).unwrap();
        let shards: Vec<_> = index.shards.iter().map(open).collect();
        if shards.iter().any(has_several_dimensions) {
            let error = shards.iter().find_map(|shard| shard.to_record_batch().err()).unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{data:?}: {error}");
            refused += 1;
            continue;
        }
        let batches: Vec<_> = shards.iter().map(|shard| shard.to_record_batch().unwrap()).collect();
        for (shard, batch) in shards.iter().zip(&batches) {
            check_rows(shard, batch);
        }
        let Some(first) = index.shards.first() else { continue };
        // The parts of a merged dataset were written one by one, those of text by other writers.
        if first.format == Format::Mds && index.to_json().as_bytes() == text {
            let ShardConfig { hashes, size_limit, .. } = first.config();
            let options = WriterOptions { hashes, size_limit, ..WriterOptions::default() };
            let dir = tempfile::tempdir().unwrap();
            let mut writer =
                Writer::create(dir.path(), (**first.schema()).clone(), options).unwrap();
            batches.iter().for_each(|batch| writer.write_batch(batch).unwrap());
            check_written(&writer.finish().unwrap(), dir.path(), &shards, &index);
            written += 1;
        }
    }
    assert!(written > 40, "{written} written, {refused} refused");
}

/// Compares a dataset without compression in `dir` with the shards of its original.
fn check_written(again: &Index, dir: &Path, shards: &[Shard], index: &Index) {
    // The header of a compressed shard names its compression and so is longer.
    let compressed = index.shards.iter().any(|info| info.compression.is_some());
    if !compressed {
        assert_eq!(*again, *index);
    }
    let open = |info| Shard::open(dir, info, ShardOptions::default()).unwrap();
    let again: Vec<_> = again.shards.iter().map(open).collect();
    let samples = |shards: &[Shard]| -> Vec<Vec<u8>> {
        let samples = shards.iter().flat_map(|shard| shard.samples().unwrap());
        samples.map(|sample| sample.encoded().to_vec()).collect()
    };
    assert_eq!(samples(&again), samples(shards));
    for (again, shard) in again.iter().zip(shards).filter(|_| !compressed) {
        assert!(again.bytes() == shard.bytes(), "{}", shard.name());
    }
}

/// Whether a list of Arrow cannot hold some array of the shard.
fn has_several_dimensions(shard: &Shard) -> bool {
    let lists =
        |encoding: &Encoding| matches!(encoding, Encoding::NdArray { dtype: Some(_), shape: None });
    let columns = shard.schema().columns().iter().filter(|column| lists(&column.encoding));
    let names: Vec<_> = columns.map(|column| &column.name).collect();
    shard.samples().unwrap().any(|sample| {
        names.iter().any(|name| {
            let value = sample.value(name).unwrap();
            value.as_ndarray().is_some_and(|array| array.shape.len() > 1)
        })
    })
}

/// A shard of samples in their stored form.
fn shard_of(schema: &Arc<Schema>, samples: &[&[u8]]) -> Shard {
    let head = 4 * (samples.len() + 2);
    let mut bytes = (samples.len() as u32).to_le_bytes().to_vec();
    let mut at = head;
    for sample in samples {
        bytes.extend((at as u32).to_le_bytes());
        at += sample.len();
    }
    bytes.extend((at as u32).to_le_bytes());
    bytes.extend(samples.concat());
    let info = FileInfo::of(ShardName::numbered(0, &Format::Mds), &bytes, &[]);
    let count = samples.len() as u32;
    let info =
        ShardInfo::new(Arc::clone(schema), &ShardConfig::default(), (info, None), None, count);
    Shard::from_bytes(bytes, None, &info).unwrap()
}

#[test]
fn texts_that_stand_for_nothing_are_damage() {
    for encoding in ["str_int", "str_decimal", "json"] {
        let shard =
            shard_of(&Arc::new(schema(&[("s", encoding)])), &[b"\x01\0\0\x001", b"\x01\0\0\0x"]);
        let error = shard.to_record_batch().unwrap_err();
        let expected = shard.sample(1).unwrap().decode().unwrap_err();
        assert_eq!(error.to_string(), expected.to_string());
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn damage_is_located_as_by_the_samples() {
    // One sample: the length of the text, the number, the text.
    let schema = Arc::new(schema(&[("n", "str_float"), ("s", "str")]));
    let shard = |samples: &[&[u8]]| shard_of(&schema, samples);
    let good = b"\x01\0\0\0\x01\0\0\x001a";
    for bad in [
        &b"\x01\0\0\0\x01\0\0\x001\xff"[..], // not UTF-8
        b"\x01\0\0\0\x01\0\0\x00xa",         // not a number
        b"\x01\0\0\0\x02\0\0\x001a",         // cut short
        b"\x01\0\0\0",                       // without its lengths
        b"\x01\0\0\0\x01\0\0\x001ab",        // left over
    ] {
        let shard = shard(&[good, bad, good]);
        let error = shard.to_record_batch().unwrap_err();
        let expected = shard.sample(1).unwrap().decode().unwrap_err();
        assert_eq!(error.to_string(), expected.to_string());
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    // Two halves of a character make a text together, but not apart.
    let split = shard(&[b"\x01\0\0\0\x01\0\0\x001\xc3", b"\x01\0\0\0\x01\0\0\x001\xa9"]);
    let error = split.to_record_batch().unwrap_err();
    let expected = split.sample(0).unwrap().decode().unwrap_err();
    assert_eq!(error.to_string(), expected.to_string());
}

#[test]
fn arrays_of_several_dimensions_need_a_fixed_shape() {
    let list = NdArray::new(DType::U8, vec![2], vec![1, 2]).unwrap();
    let square = NdArray::new(DType::U8, vec![2, 1], vec![1, 2]).unwrap();
    let dataset = dataset(&[("x", "ndarray:uint8")], &[&[list.into()], &[square.into()]]);
    assert_eq!(
        dataset.shard().to_record_batch().unwrap_err().to_string(),
        "shard shard.00000.mds, sample 1, column x: the array has the shape [2, 1], and a list of \
         Arrow has one dimension; declare the column with a fixed shape, or read the shard sample \
         by sample"
    );
}
