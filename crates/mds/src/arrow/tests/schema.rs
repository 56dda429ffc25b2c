//! Columns to fields and back.

use super::schema;
use crate::ErrorKind;
use crate::arrow::ENCODING_KEY;
use crate::format::Schema;
use arrow_schema::{DataType, Field, Schema as ArrowSchema};
use std::collections::HashMap;
use std::sync::Arc;

#[test]
fn types_and_metadata_of_the_fields() {
    let fields = schema(&[
        ("a", "json"),
        ("b", "ndarray:float16:2,3"),
        ("c", "ndarray:int8:4"),
        ("d", "ndarray:uint64"),
        ("e", "list[pil]"),
        ("f", "str_float"),
        ("g", "ndarray:uint8:2147483648"),
    ])
    .to_arrow();
    let item = |data_type| Arc::new(Field::new("item", data_type, false));
    let expected = [
        (DataType::LargeUtf8, "json", Some(("arrow.json", ""))),
        (
            DataType::FixedSizeList(item(DataType::Float16), 6),
            "ndarray:float16:2,3",
            Some(("arrow.fixed_shape_tensor", r#"{"shape":[2,3]}"#)),
        ),
        (DataType::FixedSizeList(item(DataType::Int8), 4), "ndarray:int8:4", None),
        (DataType::LargeList(item(DataType::UInt64)), "ndarray:uint64", None),
        (DataType::LargeBinary, "list[pil]", None),
        (DataType::Float64, "str_float", None),
        (DataType::LargeBinary, "ndarray:uint8:2147483648", None),
    ];
    for (field, (data_type, name, extension)) in fields.fields().iter().zip(expected) {
        assert_eq!(*field.data_type(), data_type, "{name}");
        let metadata = field.metadata();
        assert_eq!(metadata[ENCODING_KEY], name);
        assert_eq!(metadata.len(), if extension.is_some() { 3 } else { 1 });
        if let Some((name, parameters)) = extension {
            assert_eq!(metadata["ARROW:extension:name"], name);
            assert_eq!(metadata["ARROW:extension:metadata"], parameters);
        }
    }
}

#[test]
fn types_without_an_encoding_are_refused() {
    let message = |data_type: DataType| {
        let field = Field::new("x", data_type, true);
        let error = Schema::from_arrow(&ArrowSchema::new(vec![field])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        error.to_string()
    };
    let text = |found: &str, remedy: &str| {
        format!("column x: no encoding holds the Arrow type {found}; {remedy}")
    };
    let time = "cast the column to int64, or to text, and note the unit";
    assert_eq!(
        message(DataType::Timestamp(arrow_schema::TimeUnit::Second, None)),
        text("Timestamp(s)", time)
    );
    assert_eq!(message(DataType::Date32), text("Date32", time));
    assert_eq!(
        message(DataType::Time64(arrow_schema::TimeUnit::Nanosecond)),
        text("Time64(ns)", time)
    );
    assert_eq!(
        message(DataType::Null),
        text("Null", "leave the column out, or give it a type and values")
    );
    let item = |data_type| Arc::new(Field::new("item", data_type, false));
    assert_eq!(
        message(DataType::ListView(item(DataType::Int8))),
        text(
            "ListView(non-null Int8)",
            "cast the column to numbers, text, binary, a list or a struct"
        )
    );
    assert_eq!(
        message(DataType::FixedSizeList(item(DataType::Int8), 0)),
        text("FixedSizeList(0 x non-null Int8)", "leave the column out: its lists are empty")
    );
    let nested = "cast what it holds to numbers, texts and booleans, which json can hold, nested \
                  at most 64 deep and under distinct names";
    assert_eq!(
        message(DataType::List(item(DataType::Binary))),
        text("List(non-null Binary)", nested)
    );
    let deep = (0..64).fold(DataType::Boolean, |inner, _| DataType::List(item(inner)));
    assert!(message(deep).ends_with(nested));
}

#[test]
fn metadata_chooses_the_encoding_if_the_type_allows() {
    let encoding = |data_type: DataType, metadata: &[(&str, &str)]| {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let field = Field::new("x", data_type, true).with_metadata(metadata);
        let schema = Schema::from_arrow(&ArrowSchema::new(vec![field]));
        schema.map(|schema| schema.columns()[0].encoding.to_string())
    };
    let item = || Arc::new(Field::new("item", DataType::Int8, true));
    let fixed = || DataType::FixedSizeList(item(), 6);
    let tensor = |parameters| {
        [
            ("ARROW:extension:name", "arrow.fixed_shape_tensor"),
            ("ARROW:extension:metadata", parameters),
        ]
    };
    let cases = [
        (DataType::Utf8View, vec![(ENCODING_KEY, "str_decimal")], "str_decimal"),
        (DataType::Int32, vec![(ENCODING_KEY, "str_decimal")], "str_decimal"),
        (DataType::Float64, vec![(ENCODING_KEY, "int")], "float64"),
        (DataType::Utf8, vec![(ENCODING_KEY, "ndarray:int8")], "str"),
        (fixed(), vec![(ENCODING_KEY, "ndarray:int8:2,3")], "ndarray:int8:2,3"),
        (fixed(), vec![(ENCODING_KEY, "ndarray:int8:2,2")], "ndarray:int8:6"),
        (DataType::LargeBinary, vec![(ENCODING_KEY, "jpeg")], "jpeg"),
        (DataType::Utf8, vec![("ARROW:extension:name", "arrow.json")], "json"),
        (fixed(), tensor(r#"{"shape": [3, 2]}"#).to_vec(), "ndarray:int8:3,2"),
        (fixed(), tensor(r#"{"shape": [3, 3]}"#).to_vec(), "ndarray:int8:6"),
        (fixed(), tensor(r#"{"shape": [3, 2], "permutation": [1, 0]}"#).to_vec(), "ndarray:int8:6"),
        (fixed(), tensor("no JSON").to_vec(), "ndarray:int8:6"),
    ];
    for (data_type, metadata, expected) in cases {
        assert_eq!(encoding(data_type, &metadata).unwrap(), expected, "{metadata:?}");
    }
    assert_eq!(
        encoding(DataType::LargeBinary, &[(ENCODING_KEY, "pkl")]).unwrap_err().to_string(),
        "column x: the field is marked as a Python pickle, and loading one can run any code; \
         declare the column as bytes, or, if its readers may trust it, as Encoding::Pickle in a \
         schema of your own"
    );
    let unknown = encoding(DataType::LargeBinary, &[(ENCODING_KEY, "bool")]).unwrap_err();
    assert!(unknown.to_string().starts_with("column x: there is no encoding \"bool\"; use bytes,"));
}
