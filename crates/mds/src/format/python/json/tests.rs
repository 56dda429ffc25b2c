use super::*;

fn loads(text: &str) -> Json {
    Json::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// Expected texts printed by Python 3.11: `json.dumps(json.loads(text))`.
#[test]
fn texts_are_those_of_python() {
    let cases = [
        ("null", "null"),
        (" [true,\tfalse\n,\r null ] ", "[true, false, null]"),
        ("-0", "0"),
        ("[0, -7, 123456789012345678901234567890]", "[0, -7, 123456789012345678901234567890]"),
        ("[-0.0, 1E5, 1e16, 1e-5]", "[-0.0, 100000.0, 1e+16, 1e-05]"),
        ("[1e999, -1e999]", "[Infinity, -Infinity]"),
        ("[NaN, Infinity, -Infinity]", "[NaN, Infinity, -Infinity]"),
        ("[]", "[]"),
        ("{ }", "{}"),
        (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
        (r#""\"\\\/\b\f\n\r\t""#, r#""\"\\/\b\f\n\r\t""#),
        ("\"\u{7f}é€😀\"", r#""\u007f\u00e9\u20ac\ud83d\ude00""#),
        (r#""a\u0041\uD83D\uDE00\u0000b""#, r#""aA\ud83d\ude00\u0000b""#),
    ];
    for (text, dumped) in cases {
        assert_eq!(loads(text).dumps(), dumped, "{text}");
    }
}

#[test]
fn keys_sort_by_code_points_at_every_level() {
    // UTF-16 would put the astral letter before the one of the private use area.
    let value =
        loads(r#"{"b": {"\ue000": 1, "\ud83d\ude00": 2, "Z": 3, "": 4}, "a": [{"y": 1, "x": 2}]}"#);
    assert_eq!(
        value.dumps_sorted(),
        r#"{"a": [{"x": 2, "y": 1}], "b": {"": 4, "Z": 3, "\ue000": 1, "\ud83d\ude00": 2}}"#
    );
}

#[test]
fn equal_keys_leave_the_last_value_at_the_first_place() {
    for extra in [0, 40] {
        let mut text = String::from(r#"{"b": 1, "a": 2, "b": 3"#);
        let mut expected = String::from(r#"{"b": 5, "a": 4"#);
        for i in 0..extra {
            text += &format!(r#", "k{i}": {i}"#);
            expected += &format!(r#", "k{i}": {i}"#);
        }
        text += r#", "a": 4, "b": 5}"#;
        expected += "}";
        assert_eq!(loads(&text).dumps(), expected);
    }
}

#[test]
fn what_python_refuses_is_refused_with_the_byte() {
    let value = "expected a value";
    let end = "expected the end of the text";
    let key = "expected a key in double quotes";
    let cases = [
        ("", value, 0),
        ("  ", value, 2),
        ("nul", value, 0),
        ("-", value, 0),
        ("+1", value, 0),
        (".5", value, 0),
        ("-NaN", value, 0),
        ("-Inf", value, 0),
        ("[-]", value, 1),
        ("[1,]", value, 3),
        ("\u{b}1", value, 0),
        ("\u{a0}1", value, 0),
        ("é", value, 0),
        ("{\"a\":", value, 5),
        ("01", end, 1),
        ("-01", end, 2),
        ("1.e5", end, 1),
        ("1.5e", end, 3),
        ("1e+", end, 1),
        ("1_0", end, 1),
        ("[] []", end, 3),
        ("[1 2]", "expected ',' or ']'", 3),
        ("[1", "expected ',' or ']'", 2),
        ("{\"a\":1", "expected ',' or '}'", 6),
        ("{", key, 1),
        ("{,}", key, 1),
        ("{1:2}", key, 1),
        ("{\"a\":1,}", key, 7),
        ("{\"a\" 1}", "expected ':'", 5),
        ("[\"a", "a string without an end starts", 1),
        ("\"a\t\"", "a control character stands in a string", 2),
        ("\"\\x\"", "there is no such escape", 1),
        ("\"\\", "there is no such escape", 1),
        ("\"\\u12\"", "expected four hexadecimal digits after the 'u'", 2),
        ("\"\\u+123\"", "expected four hexadecimal digits after the 'u'", 2),
        ("\"\\u12é4\"", "expected four hexadecimal digits after the 'u'", 2),
        ("\u{feff}1", "expected a value but there is a byte order mark", 0),
    ];
    for (text, what, byte) in cases {
        let error = Json::parse(text).unwrap_err();
        assert_eq!(error.to_string(), format!("{what} at byte {byte}"), "{text:?}");
    }
}

/// Expected texts printed by Python 3.11.
#[test]
fn half_surrogate_pairs_are_kept() {
    let cases = [
        (r#""\uD83D""#, r#""\ud83d""#),
        (r#"["\ud83dx\n", "\ud83d\u0041", 1]"#, r#"["\ud83dx\n", "\ud83dA", 1]"#),
        (r#""\ud83d\ud83d\ude00""#, r#""\ud83d\ud83d\ude00""#),
        (r#""\ude00\ud83d\"é""#, r#""\ude00\ud83d\"\u00e9""#),
        (r#"{"\ud83d": 1, "a": 2, "\ud83d": 3}"#, r#"{"\ud83d": 3, "a": 2}"#),
    ];
    for (text, dumped) in cases {
        let value = loads(text);
        assert_eq!(value.dumps(), dumped, "{text}");
        assert_eq!(value, loads(dumped), "{text}");
        assert_eq!(value.to_serde(), None, "{text}");
    }
    let value = loads(r#"{"\ude00": 1, "\ud83d\ude00": 2, "\ue000": 3, "\ud83d": 4}"#);
    assert_eq!(
        value.dumps_sorted(),
        r#"{"\ud83d": 4, "\ude00": 1, "\ue000": 3, "\ud83d\ude00": 2}"#
    );
    assert_eq!(
        Json::parse(r#""\ud83d\u12""#).unwrap_err().to_string(),
        "expected four hexadecimal digits after the 'u' at byte 8"
    );
}

#[test]
fn integers_have_at_most_4300_digits() {
    assert!(Json::parse(&format!("-{}", "1".repeat(4300))).is_ok());
    assert_eq!(
        Json::parse(&format!("[-{}]", "1".repeat(4301))).unwrap_err().to_string(),
        "an integer of 4301 digits, more than the 4300 that Python converts, starts at byte 1"
    );
}

#[test]
fn depth_is_limited() {
    let lists = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let text = lists(MAX_DEPTH);
    assert_eq!(loads(&text).dumps(), text);
    let error = Json::parse(&lists(MAX_DEPTH + 1)).unwrap_err();
    assert_eq!(error.to_string(), "the value is more than 1000 levels deep at byte 1000");
    assert!(Json::parse(&"[".repeat(100_000)).is_err());
    assert!(Json::parse(&lists(100_000)).is_err());
    assert!(Json::parse(&"{\"a\":".repeat(100_000)).is_err());
    // Levels count where they are open only.
    assert!(Json::parse(&format!("[{}1]", "[], ".repeat(2 * MAX_DEPTH))).is_ok());
}

#[test]
fn accessors_give_the_value_of_their_type() {
    let value = loads(r#"{"text": "x", "int": 3, "float": 0.5, "large": 1e2}"#);
    assert_eq!(value.get("text").and_then(Json::as_str), Some("x"));
    assert_eq!(value.get("int").and_then(Json::as_i64), Some(3));
    assert_eq!(value.get("int").and_then(Json::as_f64), Some(3.0));
    assert_eq!(value.get("float").and_then(Json::as_f64), Some(0.5));
    assert_eq!(value.get("large").and_then(Json::as_i64), None);
    assert_eq!(value.get("none"), None);
    assert_eq!(loads("[1]").get("text"), None);
    assert_eq!(loads(&"9".repeat(400)).as_f64(), None);
    assert_eq!(loads("true").as_i64(), None);
}

#[test]
fn serde_json_values_convert_both_ways() {
    let text = r#"{"b": [1, -1, 18446744073709551615, 1.5, null, true], "a": {"k": "é"}}"#;
    let serde: serde_json::Value = serde_json::from_str(text).unwrap();
    let value = Json::from(&serde);
    assert_eq!(value, loads(text));
    assert_eq!(value.to_serde(), Some(serde));
    for text in ["NaN", "[Infinity]", "18446744073709551616", "-9223372036854775809"] {
        assert_eq!(loads(text).to_serde(), None, "{text}");
    }
}
