//! Batches into datasets.

use super::{Dataset, schema};
use crate::ErrorKind;
use crate::arrow::BatchRows;
use crate::format::{DType, Json, NdArray, Scalar, Schema, Value};
use arrow_array::builder::{
    Int32Builder, LargeListBuilder, ListBuilder, MapBuilder, StringBuilder,
};
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array,
    LargeBinaryArray, ListArray, NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
    UInt64Array,
};
use arrow_buffer::i256;
use arrow_schema::{DataType, Field};
use std::sync::Arc;

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn one(array: impl Array + 'static) -> RecordBatch {
    batch([("x", Arc::new(array))])
}

/// Why a batch cannot be written to columns, without the folder, and how many rows were.
fn refusal(columns: &[(&str, &str)], batch: &RecordBatch) -> (String, u64) {
    let mut rows = 0;
    let mut text = String::new();
    Dataset::write(schema(columns), |writer| {
        let error = writer.write_batch(batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        rows = writer.samples();
        text = error.to_string();
        if let Some(dataset) = &error.position().dataset {
            text = text.replace(&format!("dataset {dataset}, "), "");
        }
        Ok(())
    })
    .unwrap();
    (text, rows)
}

/// What the writer makes of a batch whose columns follow from its types.
fn written(batch: &RecordBatch) -> (Vec<String>, Vec<Vec<Value<'static>>>) {
    let schema = Schema::from_arrow(&batch.schema()).unwrap();
    let names = schema.columns().iter().map(|c| c.encoding.to_string()).collect();
    let dataset = Dataset::write(schema, |writer| writer.write_batch(batch)).unwrap();
    let shard = dataset.shard();
    let samples = shard
        .samples()
        .unwrap()
        .map(|sample| sample.decode().unwrap().into_iter().map(Value::into_owned).collect());
    (names, samples.collect())
}

#[test]
fn batches_of_other_programs_are_written() {
    let lists = |rows: Vec<Option<Vec<Option<i32>>>>| {
        ListArray::from_iter_primitive::<Int32Type, _, _>(rows)
    };
    let structs = StructArray::from(vec![
        (
            Arc::new(Field::new("a", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("b", DataType::Utf8, false)),
            Arc::new(StringArray::from(vec!["é", "y"])) as ArrayRef,
        ),
    ]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.keys().append_value("k");
    map.values().append_value(5);
    map.append(true).unwrap();
    map.append(true).unwrap();
    let mut nested = LargeListBuilder::new(ListBuilder::new(Int32Builder::new()));
    nested.append_value([Some([Some(1), None]), None]);
    nested.append_value::<_, [Option<i32>; 0]>([]);
    let tensor = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        vec![Some(vec![Some(1), Some(2)]), Some(vec![Some(3), Some(4)])],
        2,
    );
    let keys: DictionaryArray<Int8Type> = vec!["q", "p"].into_iter().collect();
    let decimals = Decimal128Array::from(vec![150, 1]).with_precision_and_scale(20, 7).unwrap();
    let wide = arrow_array::Decimal256Array::from(vec![i256::from(7), i256::from(-7)])
        .with_precision_and_scale(40, -2)
        .unwrap();
    let batch = batch([
        ("a text", Arc::new(StringArray::from(vec!["one", "two"]))),
        ("b view", Arc::new(StringViewArray::from(vec!["a text longer than twelve bytes", ""]))),
        ("c list", Arc::new(lists(vec![Some(vec![Some(1), Some(-2)]), Some(vec![Some(3)])]))),
        ("d dictionary", Arc::new(keys)),
        ("e bool", Arc::new(BooleanArray::from(vec![true, false]))),
        ("f bytes", Arc::new(BinaryArray::from(vec![&b"\xff"[..], b""]))),
        ("g fixed", Arc::new(tensor)),
        ("h decimal", Arc::new(decimals)),
        ("i wide", Arc::new(wide)),
        ("j struct", Arc::new(structs)),
        ("k map", Arc::new(map.finish())),
        ("l nested", Arc::new(nested.finish())),
        ("m i64", Arc::new(Int64Array::from(vec![i64::MIN, 5]))),
        ("n u64", Arc::new(UInt64Array::from(vec![u64::MAX, 5]))),
        ("o f32", Arc::new(Float32Array::from(vec![1.5, -0.0]))),
    ]);
    let (names, samples) = written(&batch);
    assert_eq!(
        names,
        [
            "str",
            "str",
            "ndarray:int32",
            "str",
            "uint8",
            "bytes",
            "ndarray:int32:2",
            "str_decimal",
            "str_decimal",
            "json",
            "json",
            "json",
            "int",
            "uint64",
            "float32",
        ]
    );
    let decimal = |text| Value::Decimal(crate::format::Decimal::parse(text).unwrap());
    let json = |text| Value::Json(Json::parse(text).unwrap());
    let pair = |a: i32, b: i32| Value::from(NdArray::from_i32(&[a, b]));
    assert_eq!(
        samples[0],
        [
            "one".into(),
            "a text longer than twelve bytes".into(),
            pair(1, -2),
            "q".into(),
            Scalar::U8(1).into(),
            vec![0xff].into(),
            pair(1, 2),
            decimal("0.0000150"),
            decimal("7E+2"),
            json(r#"{"a": 1, "b": "é"}"#),
            json(r#"{"k": 5}"#),
            json("[[1, null], null]"),
            Value::Int(i64::MIN),
            Scalar::U64(u64::MAX).into(),
            Scalar::F32(1.5).into(),
        ]
    );
    assert_eq!(samples[1][1], "".into());
    assert_eq!(samples[1][2], NdArray::from_i32(&[3]).into());
    assert_eq!(samples[1][3], "p".into());
    assert_eq!(samples[1][6], pair(3, 4));
    assert_eq!(samples[1][7], decimal("1E-7"));
    assert_eq!(samples[1][9], json(r#"{"a": null, "b": "y"}"#));
    assert_eq!(samples[1][10], json("{}"));
    assert_eq!(samples[1][11], json("[]"));
}

#[test]
fn declared_columns_take_what_loses_nothing() {
    let columns = [
        ("a", "float32"),
        ("b", "int8"),
        ("c", "ndarray:uint16:2,1"),
        ("d", "str_int"),
        ("e", "str"),
        ("f", "json"),
        ("g", "str_decimal"),
        ("h", "ndarray"),
        ("i", "str_float"),
    ];
    let list = |items: [Option<i32>; 2]| {
        ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(items.to_vec())])
    };
    let batch = batch([
        ("i", Arc::new(Float32Array::from(vec![0.1f32])) as ArrayRef),
        ("h", Arc::new(list([Some(1), Some(2)]))),
        ("g", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("f", Arc::new(StringArray::from(vec!["[1,2]"]))),
        ("e", Arc::new(BinaryArray::from(vec!["é".as_bytes()]))),
        ("d", Arc::new(StringArray::from(vec!["+0_42"]))),
        ("c", Arc::new(list([Some(65535), Some(0)]))),
        ("b", Arc::new(UInt64Array::from(vec![127]))),
        ("a", Arc::new(Float64Array::from(vec![0.5]))),
    ]);
    let dataset = Dataset::write(schema(&columns), |writer| writer.write_batch(&batch)).unwrap();
    let shard = dataset.shard();
    let sample = shard.sample(0).unwrap();
    let array = NdArray::new(DType::U16, vec![2, 1], vec![255, 255, 0, 0]).unwrap();
    assert_eq!(sample.value("a").unwrap(), Scalar::F32(0.5).into());
    assert_eq!(sample.value("b").unwrap(), Scalar::I8(127).into());
    assert_eq!(sample.value("c").unwrap(), array.into());
    assert_eq!(sample.str("d").unwrap(), "42");
    assert_eq!(sample.str("e").unwrap(), "é");
    assert_eq!(sample.str("f").unwrap(), "[1,2]");
    assert_eq!(sample.str("g").unwrap(), "18446744073709551615");
    assert_eq!(sample.value("h").unwrap(), NdArray::from_i32(&[1, 2]).into());
    assert_eq!(sample.str("i").unwrap(), "0.10000000149011612");
}

#[test]
fn other_columns_are_refused() {
    let batch = batch([
        ("a", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
        ("c", Arc::new(Int32Array::from(vec![1]))),
        ("a", Arc::new(Int32Array::from(vec![1]))),
    ]);
    assert_eq!(
        refusal(&[("a", "int"), ("b", "str")], &batch),
        (
            "the batch has no column \"b\", and has the column \"c\", which the dataset has not, \
             and has the column \"a\" twice; give the columns a, b, each once"
                .to_owned(),
            0
        )
    );
}

#[test]
fn nulls_are_refused_before_any_row() {
    let remedy = "fill the nulls with a value, or drop the rows, before writing";
    let text =
        format!("column x: row 1 of the batch: the value is null, and MDS has no nulls; {remedy}");
    let plain = Int32Array::from(vec![Some(1), None]);
    assert_eq!(refusal(&[("x", "int")], &one(plain)), (text.clone(), 0));
    // The key is there, but the value that it names is null.
    let values = StringArray::from(vec![Some("a"), None]);
    let keys = Int8Array::from(vec![0, 1]);
    let dictionary = DictionaryArray::<Int8Type>::new(keys, Arc::new(values));
    assert_eq!(refusal(&[("x", "str")], &one(dictionary)), (text, 0));
}

#[test]
fn types_that_do_not_fit_are_refused_before_any_row() {
    let text = |encoding: &str, found: &str, natural: &str| {
        let text = format!(
            "column x: the encoding {encoding} does not take the Arrow type {found}; cast the \
             column to {natural}, or declare another encoding"
        );
        (text, 0)
    };
    let floats = one(Float64Array::from(vec![1.0]));
    assert_eq!(refusal(&[("x", "int")], &floats), text("int", "Float64", "Int64"));
    assert_eq!(refusal(&[("x", "str")], &floats), text("str", "Float64", "LargeUtf8"));
    assert_eq!(refusal(&[("x", "jpeg")], &floats), text("jpeg", "Float64", "LargeBinary"));
    let bytes = one(BinaryArray::from(vec![&b"12345678"[..]]));
    // Bytes are stored as they are, so those of a number would not be checked.
    assert_eq!(refusal(&[("x", "int")], &bytes), text("int", "Binary", "Int64"));
    let dates = one(Date32Array::from(vec![1]));
    assert_eq!(refusal(&[("x", "json")], &dates), text("json", "Date32", "LargeUtf8"));
}

#[test]
fn values_that_do_not_fit_name_their_row() {
    let cases: Vec<(&str, RecordBatch, &str)> = vec![
        (
            "uint8",
            one(Int32Array::from(vec![255, 256])),
            "the int32 256 is no uint8; declare the column with int32, or round its numbers before",
        ),
        (
            "float32",
            one(Float64Array::from(vec![0.5, 0.1])),
            "the float64 0.1 is no float32; declare the column with float64, or round its numbers \
             before",
        ),
        (
            "float64",
            one(Int64Array::from(vec![1 << 53, (1 << 53) + 1])),
            "the int64 9007199254740993 is no float64; declare the column with int64, or round \
             its numbers before",
        ),
        (
            "int",
            one(UInt64Array::from(vec![1, u64::MAX])),
            "the encoding int does not take the uint64 18446744073709551615; give an integer from \
             -9223372036854775808 to 9223372036854775807",
        ),
        (
            "str",
            one(BinaryArray::from(vec![&b"a"[..], b"\xff"])),
            "the text is not UTF-8 from its byte 0 on; give text in UTF-8, or declare the column as \
             bytes",
        ),
        (
            "json",
            one(StringArray::from(vec!["1", "{"])),
            "the text is not JSON: expected a key in double quotes at byte 1; correct the text, or give the value \
             itself",
        ),
        (
            "ndarray:int8",
            one(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                Some(vec![Some(1)]),
                Some(vec![Some(1), Some(200)]),
            ])),
            "item 1 of the list: the int32 200 is no int8; declare the column with int32, or \
             round its numbers before",
        ),
        (
            "ndarray:int32",
            one(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                Some(vec![Some(1)]),
                Some(vec![Some(1), None]),
            ])),
            "item 1 of the list is null; fill the nulls of the list with a number, or drop them",
        ),
        (
            "ndarray:int32",
            one(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                Some(vec![Some(1)]),
                Some(vec![]),
            ])),
            "the array has the shape [0]; give arrays of 1 to 63 dimensions and at least one \
             element",
        ),
        (
            "ndarray:int32:1",
            one(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                Some(vec![Some(1)]),
                Some(vec![Some(1), Some(2)]),
            ])),
            "the encoding takes arrays of shape [1], but the value has [2]; reshape the array, or \
             declare the column without a shape",
        ),
    ];
    for (encoding, batch, expected) in cases {
        assert_eq!(
            refusal(&[("x", encoding)], &batch),
            (format!("sample 1, column x: row 1 of the batch: {expected}"), 1),
            "{encoding}"
        );
    }
}

#[test]
fn maps_with_a_key_twice_are_refused() {
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for value in [1, 2] {
        map.keys().append_value("k");
        map.values().append_value(value);
    }
    map.append(true).unwrap();
    assert_eq!(
        refusal(&[("x", "json")], &one(map.finish())).0,
        "sample 0, column x: row 0 of the batch: the map has the key \"k\" twice; keep one value \
         for each key"
    );
}

#[test]
fn json_beyond_its_memory_is_refused() {
    let text = "sample 0, column x: row 0 of the batch: the value takes more than 1073741824 bytes \
                of memory as JSON; split it over several rows or columns";
    // Arrow takes no memory for them.
    let items = 1 << 26;
    let field = Arc::new(Field::new("item", DataType::Null, true));
    let nulls = FixedSizeListArray::new(field, items, Arc::new(NullArray::new(1 << 26)), None);
    assert_eq!(refusal(&[("x", "json")], &one(nulls)).0, text);
}

#[test]
fn rows_that_are_not_there_are_refused() {
    let batch = one(Int32Array::from(vec![1]));
    let rows = BatchRows::new(&schema(&[("x", "int")]), &batch).unwrap();
    assert_eq!(
        rows.read(1, &mut Vec::new()).unwrap_err().to_string(),
        "there is no row 1; the batch has 1 rows, counted from 0"
    );
}

#[test]
fn stored_forms_are_written_as_they_are() {
    let bytes = LargeBinaryArray::from(vec![&[8u8, 1 << 2, 2, 7, 9][..]]);
    let dataset =
        Dataset::write(schema(&[("x", "ndarray")]), |writer| writer.write_batch(&one(bytes)));
    let (dataset, array) =
        (dataset.unwrap(), NdArray::new(DType::U8, vec![2], vec![7, 9]).unwrap());
    assert_eq!(dataset.shard().sample(0).unwrap().value("x").unwrap(), array.into());
}
