//! YAML text to a tree of values: parsing, `key.sub=value` overrides and `${key.sub}` references.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use mds::storage::{Remote, RemoteOptions};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// More bytes than any recipe has.
const LARGEST: u64 = 16 << 20;
/// More references than any value of a recipe goes through.
const DEEPEST: usize = 64;
/// More than the references of any recipe come to: bytes of text, and as many for each other value.
const MOST: usize = 1 << 20;
/// What another value than a text counts.
const VALUE: usize = 16;

/// What a file is, and what to do without one, in messages.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    name: &'static str,
    remedy: &'static str,
}

pub(super) const CONFIGURATION: Kind =
    Kind { name: "configuration file", remedy: "start from one of the files in yamls/" };
pub(super) const TASKS: Kind =
    Kind { name: "file of tasks", remedy: "give a YAML file with a list `icl_tasks`" };

/// Parses YAML whose top level is a mapping; anchors, aliases and merge keys are expanded.
///
/// `origin` names the file in messages.
pub(super) fn parse(text: &str, origin: &str, kind: Kind) -> Result<Value> {
    let tree = parse_value(text).map_err(|reason| {
        Error::Config(format!("`{origin}` is not valid YAML: {reason}; correct it and run again"))
    })?;
    match tree {
        Value::Object(_) => Ok(tree),
        Value::Null => Err(Error::Config(format!("`{origin}` is empty; {}", kind.remedy))),
        _ => Err(Error::Config(format!(
            "`{origin}` is not a mapping of keys to values; {}",
            kind.remedy
        ))),
    }
}

/// Reads and parses the file at `path`, which may be an address.
pub(super) fn read(path: &Path, kind: Kind) -> Result<Value> {
    let given = path.to_string_lossy();
    let shown = mds::redacted(&given);
    let missing = || Error::Config(format!("there is no {} `{shown}`; {}", kind.name, kind.remedy));
    let text = if mds::storage::is_address(&given) {
        let (folder, name) = mds::storage::split(&given)?;
        let remote = Remote::open(&folder, RemoteOptions::default())?;
        let bytes = remote.get(&name, LARGEST).map_err(|error| match error.kind() {
            mds::ErrorKind::NotFound => missing(),
            _ => error.into(),
        })?;
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        let text = read_file(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => missing(),
            _ => Error::Io { action: "read", path: path.to_owned(), source },
        })?;
        if text.len() as u64 > LARGEST {
            return Err(Error::Config(format!(
                "`{shown}` has more than 16 MiB; start from one of the files in yamls/"
            )));
        }
        text
    };
    parse(&text, &shown, kind)
}

/// The file at `path`, or what shows that it is too large.
fn read_file(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// One YAML value, or the parser's reason in one line.
fn parse_value(text: &str) -> std::result::Result<Value, String> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map(numbers_with_exponent).map_err(|error| {
        let reason = error.to_string();
        let line = reason.lines().next().unwrap_or_default();
        // The parser's remedies are for who calls it, not for who writes YAML.
        line.replace(", set DuplicateKeyPolicy in Options if acceptable", "")
            .replace(
                " rejected by the configured policy",
                ", which no key takes (put a text in quotes),",
            )
            .trim()
            .to_owned()
    })
}

/// Reads `1e-4` and `1e9`, which YAML's rules leave as text, as the numbers they are meant to be.
fn numbers_with_exponent(value: Value) -> Value {
    match value {
        Value::String(text) if looks_like_exponent(&text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::from(number),
            _ => Value::String(text),
        },
        Value::Array(items) => items.into_iter().map(numbers_with_exponent).collect(),
        Value::Object(map) => Value::Object(
            map.into_iter().map(|(key, value)| (key, numbers_with_exponent(value))).collect(),
        ),
        other => other,
    }
}

fn looks_like_exponent(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.contains(['e', 'E'])
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, 'e' | 'E' | '.' | '+' | '-'))
}

/// Lays `key.sub=value` over the tree; the value is parsed as YAML, so lists and `{}` work.
///
/// Missing sections are created: whether the key exists at all is the schema's business. Indices
/// into lists (`optimizer.betas.0=0.95`) work where the list has that element.
pub(super) fn apply_overrides(tree: &mut Value, overrides: &[String]) -> Result<()> {
    for text in overrides {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Error::Config(format!(
                "`{}` is not an override; write key.sub=value, for example max_duration=100ba",
                mds::redacted(text)
            )));
        };
        let key = key.trim();
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(Error::Config(format!(
                "`{}` has no key before the `=`; write key.sub=value, for example max_duration=100ba",
                mds::redacted(text)
            )));
        }
        set(tree, key, override_value(value))?;
    }
    Ok(())
}

/// The value as YAML. Only brackets and braces make lists and sections, and what is not YAML by
/// itself is a text as it stands: `prompt=He said: "no"`.
fn override_value(text: &str) -> Value {
    let bracketed = text.trim_start().starts_with(['[', '{']);
    match parse_value(text) {
        Ok(Value::Array(_) | Value::Object(_)) if !bracketed => Value::String(text.to_owned()),
        Ok(value) => value,
        Err(_) => Value::String(text.to_owned()),
    }
}

fn set(tree: &mut Value, key: &str, value: Value) -> Result<()> {
    let mut place = tree;
    let mut path = String::new();
    for part in key.split('.') {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        place = match place {
            Value::Object(map) => map.entry(part).or_insert(Value::Null),
            Value::Array(items) => {
                let length = items.len();
                part.parse::<usize>().ok().and_then(|i| items.get_mut(i)).ok_or_else(|| {
                    Error::Config(format!(
                        "the override `{key}` asks for element `{part}` of `{path}`, a list of \
                         {length}; count from 0, or give the whole list: {path}=[...]"
                    ))
                })?
            }
            other => {
                return Err(Error::Config(format!(
                    "the override `{key}` cannot go below `{path}`, which is the value {}; give `{path}` itself a \
                     value",
                    mds::redacted(&other.to_string())
                )));
            }
        };
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(part);
    }
    *place = value;
    Ok(())
}

/// Replaces every `${key.sub}` by the value of that key.
///
/// A reference that is the whole value keeps the value's type; inside a longer text it is written
/// out. A referenced value may hold references itself; what they come to is limited.
pub(super) fn interpolate(tree: &Value) -> Result<Value> {
    Interpolation { root: tree, open: Vec::new(), taken: 0 }.value(tree, "")
}

struct Interpolation<'a> {
    root: &'a Value,
    /// The keys being resolved, to name a cycle.
    open: Vec<String>,
    /// What references have come to so far.
    taken: usize,
}

impl Interpolation<'_> {
    fn value(&mut self, value: &Value, path: &str) -> Result<Value> {
        Ok(match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(key, value)| Ok((key.clone(), self.value(value, &join(path, key))?)))
                    .collect::<Result<_>>()?,
            ),
            Value::Array(items) => Value::Array(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, value)| self.value(value, &join(path, &i.to_string())))
                    .collect::<Result<_>>()?,
            ),
            Value::String(text) if text.contains("${") => self.text(text, path)?,
            other => other.clone(),
        })
    }

    fn text(&mut self, text: &str, path: &str) -> Result<Value> {
        let mut written = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start..].find('}') else {
                return Err(Error::Config(format!(
                    "`{path}` has a reference without its closing brace; write ${{key.sub}}"
                )));
            };
            let key = rest[start + 2..start + length].trim();
            let value = self.reference(key, path)?;
            if start == 0 && length + 1 == text.len() {
                return Ok(value);
            }
            written.push_str(&rest[..start]);
            match value {
                Value::String(text) => written.push_str(&text),
                Value::Array(_) | Value::Object(_) => {
                    return Err(Error::Config(format!(
                        "`{path}` refers to `${{{key}}}` in a text, but `{key}` is a section or a list and \
                         cannot be written into one; refer to a single value"
                    )));
                }
                other => written.push_str(&other.to_string()),
            }
            rest = &rest[start + length + 1..];
        }
        written.push_str(rest);
        Ok(Value::String(written))
    }

    fn reference(&mut self, key: &str, path: &str) -> Result<Value> {
        if let Some(first) = self.open.iter().position(|open| open == key) {
            let mut cycle: Vec<_> = self.open[first..].iter().map(|k| format!("`{k}`")).collect();
            cycle.push(format!("`{key}`"));
            return Err(Error::Config(format!(
                "references go in a circle: {}; give one of them a value",
                cycle.join(" -> ")
            )));
        }
        let Some(value) = lookup(self.root, key) else {
            // Up to another reference's brace it may be the rest of an address with its keys.
            if key.contains(['$', '?', '&', '=']) || mds::redacted(key) != key {
                return Err(Error::Config(format!(
                    "`{path}` has a reference that is no key; write ${{key.sub}}"
                )));
            }
            let mut known = Vec::new();
            collect_keys(self.root, "", &mut known);
            let hint = super::schema::did_you_mean(key, known.iter().map(String::as_str));
            return Err(Error::Config(format!(
                "`{path}` refers to `${{{key}}}`, but there is no key `{key}`{hint}"
            )));
        };
        let too_much = |what: &str| {
            Error::Config(format!(
                "`{path}` refers to `${{{key}}}`, and the references of the recipe {what}; write values out"
            ))
        };
        if self.open.len() == DEEPEST {
            return Err(too_much(&format!("go through more than {DEEPEST} keys")));
        }
        self.open.push(key.to_owned());
        let resolved = self.value(value, key)?;
        self.open.pop();
        self.taken += size(&resolved);
        if self.taken > MOST {
            return Err(too_much("come to more than a megabyte"));
        }
        Ok(resolved)
    }
}

/// What `value` counts towards [`MOST`].
fn size(value: &Value) -> usize {
    VALUE
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum(),
            _ => 0,
        }
}

/// The value at `key.sub`, with list indices.
fn lookup<'a>(tree: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(tree, |place, part| match place {
        Value::Object(map) => map.get(part),
        Value::Array(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
        _ => None,
    })
}

fn collect_keys(tree: &Value, path: &str, into: &mut Vec<String>) {
    if let Value::Object(map) = tree {
        for (key, value) in map {
            let path = join(path, key);
            collect_keys(value, &path, into);
            into.push(path);
        }
    }
}

/// `path.key`, or `key` at the top.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn load(text: &str, overrides: &[&str]) -> Result<Value> {
        let mut tree = parse(text, "test.yaml", CONFIGURATION)?;
        let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
        apply_overrides(&mut tree, &overrides)?;
        interpolate(&tree)
    }

    #[test]
    fn scalars_have_the_types_a_recipe_means() {
        let tree = load(
            "{a: 6.0e-4, b: 1e-4, c: 1e9, d: 500ba, e: true, f: 'true', g: null, h: -1, i: no, \
             j: 1_000, k: 0.1dur, l: ~, m: 'e', n: 2e}",
            &[],
        )
        .unwrap();
        assert_eq!(
            tree,
            json!({"a": 6.0e-4, "b": 1e-4, "c": 1e9, "d": "500ba", "e": true, "f": "true",
                   "g": null, "h": -1, "i": "no", "j": 1000, "k": "0.1dur", "l": null, "m": "e",
                   "n": "2e"})
        );
    }

    #[test]
    fn anchors_aliases_and_merge_keys_are_expanded() {
        let tree = load("base: &b {x: 1, y: 2}\ncopy: *b\nmore: {<<: *b, y: 3}", &[]).unwrap();
        assert_eq!(tree["copy"], json!({"x": 1, "y": 2}));
        assert_eq!(tree["more"], json!({"x": 1, "y": 3}));
    }

    #[test]
    fn overrides_are_yaml_and_reach_references() {
        let tree = load(
            "n: 1\nm: {k: '${n}', t: 'run-${n}-${m.k}', list: [1, '${n}']}",
            &[
                "n=7",
                "m.new.deep=[a, 2]",
                "m.list.0=5",
                "empty={}",
                "q=a: b: c",
                "r=x: \"y\"",
                "none=",
            ],
        )
        .unwrap();
        assert_eq!(
            tree,
            json!({"n": 7, "m": {"k": 7, "t": "run-7-7", "list": [5, 7], "new": {"deep": ["a", 2]}},
                   "empty": {}, "q": "a: b: c", "r": "x: \"y\"", "none": null})
        );
    }

    #[test]
    fn a_reference_keeps_the_type_and_may_be_a_section() {
        let tree = load("a: {b: [1, 2.5]}\nc: ${a}\nd: ${a.b.1}\ne: ${f}\nf: ${d}", &[]).unwrap();
        assert_eq!(tree["c"], json!({"b": [1, 2.5]}));
        assert_eq!(tree["d"], json!(2.5));
        assert_eq!(tree["e"], json!(2.5));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, overrides, message) in [
            (
                "a: ${b}\nb: ${c}\nc: ${b}",
                &[][..],
                "references go in a circle: `b` -> `c` -> `b`; give one of them a value",
            ),
            (
                "max_seq_len: 1\nm: {n: '${max_seq_lne}'}",
                &[],
                "`m.n` refers to `${max_seq_lne}`, but there is no key `max_seq_lne`; did you \
                 mean `max_seq_len`?",
            ),
            (
                "a: '${b'\nb: 1",
                &[],
                "`a` has a reference without its closing brace; write ${key.sub}",
            ),
            (
                "a: '${b/run?secret_access_key=xyz&region=${c}'\nb: 1\nc: 2",
                &[],
                "`a` has a reference that is no key; write ${key.sub}",
            ),
            (
                "a: 'x${b}'\nb: [1]",
                &[],
                "`a` refers to `${b}` in a text, but `b` is a section or a list and cannot be written into \
                 one; refer to a single value",
            ),
            (
                "a: 1",
                &["a"],
                "`a` is not an override; write key.sub=value, for example max_duration=100ba",
            ),
            (
                "a: 1",
                &["=3"],
                "`=3` has no key before the `=`; write key.sub=value, for example \
                 max_duration=100ba",
            ),
            (
                "a: 1",
                &["a.b=3"],
                "the override `a.b` cannot go below `a`, which is the value 1; give `a` itself a \
                 value",
            ),
            (
                "a: [1, 2]",
                &["a.2=3"],
                "the override `a.2` asks for element `2` of `a`, a list of 2; count from 0, or \
                 give the whole list: a=[...]",
            ),
            (
                "lr: .nan",
                &[],
                "`test.yaml` is not valid YAML: non-finite float `.nan`, which no key takes (put a text in quotes), at \
                 line 1, column 5; correct it and run again",
            ),
            ("", &[], "`test.yaml` is empty; start from one of the files in yamls/"),
            (
                "- a",
                &[],
                "`test.yaml` is not a mapping of keys to values; start from one of the files in \
                 yamls/",
            ),
        ] {
            assert_eq!(load(text, overrides).unwrap_err().to_string(), message);
        }
        let broken = load("a: [1\nb: 2", &[]).unwrap_err().to_string();
        assert!(broken.starts_with("`test.yaml` is not valid YAML: "), "{broken}");
        assert!(!broken.contains('\n'), "{broken}");
        let twice = load("a: 1\na: 2", &[]).unwrap_err().to_string();
        assert!(twice.contains("duplicate"), "{twice}");
    }
}
