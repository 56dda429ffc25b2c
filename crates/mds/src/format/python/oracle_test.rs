//! Compares with what Python printed: `tests/fixtures/make_python_text.py` wrote the expectations.

use serde_json::Value;

use super::*;

/// One line of the fixture: a kind, a text and what Python makes of it.
fn cases(kind: &str) -> impl Iterator<Item = Vec<Value>> {
    let fixture = include_str!("../../../../../tests/fixtures/python_text.jsonl");
    fixture
        .lines()
        .map(|line| serde_json::from_str::<Vec<Value>>(line).unwrap())
        .filter(move |case| case[0] == kind)
}

fn bits(case: &Value) -> u64 {
    u64::from_str_radix(case.as_str().unwrap(), 16).unwrap()
}

#[test]
fn floats() {
    let mut count = 0;
    for case in cases("repr") {
        let (bits, text) = (bits(&case[1]), case[2].as_str().unwrap());
        assert_eq!(float_repr(f64::from_bits(bits)), text, "{bits:016x}");
        assert_eq!(parse_float(text).map(f64::to_bits), Some(bits), "{text}");
        count += 1;
    }
    assert!(count >= 2000, "{count}");
}

#[test]
fn texts_of_floats() {
    let mut count = 0;
    for case in cases("float") {
        let text = case[1].as_str().unwrap();
        let expected = (!case[2].is_null()).then(|| bits(&case[2]));
        assert_eq!(parse_float(text).map(f64::to_bits), expected, "{text:?}");
        count += 1;
    }
    assert!(count >= 300, "{count}");
}

#[test]
fn decimals() {
    let mut count = 0;
    for case in cases("Decimal") {
        let text = case[1].as_str().unwrap();
        let value = Decimal::parse(text);
        assert_eq!(value.as_ref().ok().map(Decimal::as_str), case[2].as_str(), "{text:?}");
        if let Ok(value) = value {
            assert_eq!(Decimal::parse(value.as_str()).unwrap(), value);
        }
        count += 1;
    }
    assert!(count >= 500, "{count}");
}

#[test]
fn integers() {
    let mut count = 0;
    for case in cases("int") {
        let text = case[1].as_str().unwrap();
        let value = Integer::parse(text);
        assert_eq!(value.as_ref().ok().map(Integer::as_str), case[2].as_str(), "{text:?}");
        if let Ok(value) = value {
            assert_eq!(Integer::parse(value.as_str()).unwrap(), value);
        }
        count += 1;
    }
    assert!(count >= 300, "{count}");
}

/// The third item is the text of `dumps`, the fourth the one with sorted keys, if that is another.
#[test]
fn json() {
    let mut count = 0;
    for case in cases("json") {
        let text = case[1].as_str().unwrap();
        let value = Json::parse(text).ok();
        assert_eq!(value.as_ref().map(Json::dumps).as_deref(), case[2].as_str(), "{text:?}");
        let sorted = case.get(3).unwrap_or(&case[2]);
        assert_eq!(value.as_ref().map(Json::dumps_sorted).as_deref(), sorted.as_str(), "{text:?}");
        count += 1;
    }
    assert!(count >= 700, "{count}");
}
