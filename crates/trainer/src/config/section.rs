//! Typed reading of one section: a wrong type is an error that names the key and shows its value.

use serde_json::{Map, Value};

use super::yaml::join;
use crate::error::{Error, Result};
use crate::time::{MOST, Time, Unit};

/// A section of the configuration and the path that leads to it.
///
/// Null counts as absent, so that an override `key=null` takes a value back.
#[derive(Clone)]
pub(super) struct Section<'a> {
    map: Option<&'a Map<String, Value>>,
    path: String,
}

impl<'a> Section<'a> {
    /// The whole configuration.
    pub(super) fn root(tree: &'a Value) -> Self {
        Self { map: tree.as_object(), path: String::new() }
    }

    /// The dotted path of `key` in this section.
    pub(super) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The dotted path of this section; empty for the whole configuration.
    pub(super) fn own_path(&self) -> &str {
        &self.path
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    /// The keys that have a value, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        let all = self.map.into_iter().flatten();
        all.filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// Whether the key has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The section under `key`; an absent one reads as empty.
    pub(super) fn section(&self, key: &str) -> Result<Self> {
        let map = match self.get(key) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => return Err(self.wrong_type(key, other, "a section of keys")),
        };
        Ok(Self { map, path: self.path(key) })
    }

    /// The sections under `key`: none where it is absent, one, or a list of them.
    pub(super) fn sections(&self, key: &str) -> Result<Vec<Self>> {
        let Some(Value::Array(list)) = self.get(key) else {
            return Ok(if self.has(key) { vec![self.section(key)?] } else { Vec::new() });
        };
        let section = |(index, value): (usize, &'a Value)| {
            let name = format!("{key}.{index}");
            match value {
                Value::Object(map) => Ok(Self { map: Some(map), path: self.path(&name) }),
                other => Err(self.wrong_type(&name, other, "a section of keys")),
            }
        };
        list.iter().enumerate().map(section).collect()
    }

    /// Refuses a value of the wrong kind; `expected` puts the right ones into words.
    pub(super) fn expect(
        &self,
        key: &str,
        expected: &str,
        is_right: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        self.typed(key, expected, |value| is_right(value).then_some(())).map(drop)
    }

    /// A text; a number is taken as it is written.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>> {
        self.typed(key, "a text", |value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    }

    /// A whole number of at least `least`.
    pub(super) fn whole(&self, key: &str, least: u64) -> Result<Option<u64>> {
        let expected = match least {
            0 => "a whole number such as 0 or 128",
            1 => "a whole number of at least 1",
            _ => "a whole number of at least 2",
        };
        self.typed(key, expected, |value| whole(value).filter(|n| *n >= least))
    }

    /// A number of bytes, or a size such as `10gb`.
    pub(super) fn bytes(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a number of bytes or a size such as 10gb", |value| {
            let bytes = match value {
                Value::String(text) => mds::format::parse_size(text).ok(),
                _ => whole(value),
            };
            bytes.filter(|bytes| *bytes > 0)
        })
    }

    /// [`Self::whole`] as a size in memory.
    pub(super) fn size(&self, key: &str, least: u64) -> Result<Option<usize>> {
        Ok(self.whole(key, least)?.and_then(|n| usize::try_from(n).ok()))
    }

    /// A size of at least 1, `None` for `auto` or where it is absent.
    pub(super) fn size_or_auto(&self, key: &str) -> Result<Option<usize>> {
        let size =
            self.typed(key, "a whole number of at least 1, or auto", |value| match value {
                Value::String(text) if text == "auto" => Some(None),
                _ => whole(value).filter(|n| *n > 0).map(|n| usize::try_from(n).ok()),
            })?;
        Ok(size.flatten())
    }

    /// A number that may be negative.
    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.typed(key, "a whole number such as -1 or 3", |value| {
            value.as_i64().or_else(|| whole(value).and_then(|n| i64::try_from(n).ok()))
        })
    }

    /// A number in `range`, which `expected` puts into words, and in that of fp32.
    pub(super) fn number(
        &self,
        key: &str,
        range: impl std::ops::RangeBounds<f64>,
        expected: &str,
    ) -> Result<Option<f64>> {
        self.typed(key, expected, |value| {
            value.as_f64().filter(|n| range.contains(n) && (*n as f32).is_finite())
        })
    }

    /// A list of whole numbers, not empty; one number is a list of one.
    pub(super) fn wholes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.typed(key, "whole numbers, for example [0, 5]", |value| {
            let size = |value: &Value| usize::try_from(whole(value)?).ok();
            match value {
                Value::Array(values) if values.is_empty() => None,
                Value::Array(values) => values.iter().map(size).collect(),
                one => size(one).map(|one| vec![one]),
            }
        })
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.typed(key, "a list of texts", |value| {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            match value {
                Value::Array(values) => values.iter().map(text).collect(),
                one => text(one).map(|one| vec![one]),
            }
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// An option turned on by `key: {}` or `key: true`.
    pub(super) fn switch(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "{} or true, or false", |value| {
            value.as_bool().or_else(|| value.is_object().then_some(true))
        })
    }

    /// A pair of numbers in [0, 1).
    pub(super) fn betas(&self, key: &str) -> Result<Option<[f64; 2]>> {
        self.typed(key, "two numbers from 0 up to 1, for example [0.9, 0.95]", |value| {
            let numbers: Vec<f64> = value.as_array()?.iter().filter_map(Value::as_f64).collect();
            <[f64; 2]>::try_from(numbers).ok().filter(|b| b.iter().all(|b| (0.0..1.0).contains(b)))
        })
    }

    /// Two numbers, the lower first; one number stands for the interval around 0.
    pub(super) fn interval(&self, key: &str) -> Result<Option<[f64; 2]>> {
        self.typed(key, "two numbers, the lower first, for example [-0.1, 0.1]", |value| {
            if let Some(limit) = value.as_f64() {
                return Some([-limit.abs(), limit.abs()]);
            }
            let numbers: Vec<f64> = value.as_array()?.iter().filter_map(Value::as_f64).collect();
            <[f64; 2]>::try_from(numbers).ok().filter(|[low, high]| low <= high)
        })
    }

    /// A duration; a bare whole number counts epochs.
    pub(super) fn time(&self, key: &str) -> Result<Option<Time>> {
        let expected = "a time such as 500ba, 1ep, 1000000tok or 0.1dur";
        let parse = |text: &str| match text.parse() {
            Ok(time) => Ok(Some(time)),
            Err(error) => Err(Error::Config(format!("`{}`: {error}", self.path(key)))),
        };
        match self.get(key) {
            Some(Value::String(text)) => parse(text),
            Some(Value::Number(number)) if number.as_f64().is_some_and(|n| n > MOST) => {
                parse(&format!("{number}ep"))
            }
            _ => self.typed(key, expected, |value| {
                whole(value).map(|epochs| Time::new(epochs as f64, Unit::Epoch))
            }),
        }
    }

    /// One of `choices`, by name.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&'static str, T)],
    ) -> Result<Option<T>> {
        let Some(name) = self.text(key)? else { return Ok(None) };
        if let Some((_, value)) = choices.iter().find(|(choice, _)| *choice == name) {
            return Ok(Some(*value));
        }
        let hint = super::schema::did_you_mean(&name, choices.iter().map(|(choice, _)| *choice));
        let names: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
        Err(Error::Config(format!(
            "`{}` is `{}`; it must be one of {}{hint}",
            self.path(key),
            mds::redacted(&name),
            names.join(", ")
        )))
    }

    /// The error for a required key that is absent.
    pub(super) fn missing(&self, key: &str, example: &str) -> Error {
        Error::Config(format!("`{}` is missing; set it, for example `{example}`", self.path(key)))
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(self.wrong_type(key, value, expected)),
            },
        }
    }

    fn wrong_type(&self, key: &str, value: &Value, expected: &str) -> Error {
        let shown = mds::redacted(&value.to_string());
        let is_infinite = value.as_f64().is_some_and(|n| !(n as f32).is_finite());
        let beyond = if is_infinite { ", which fp32 cannot hold" } else { "" };
        Error::Config(format!("`{}` is {shown}{beyond}; it must be {expected}", self.path(key)))
    }
}

/// A whole number, also where it is written as a float (`1e9`).
fn whole(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=MOST).contains(n));
    value.as_u64().or_else(|| float().map(|n| n as u64))
}
