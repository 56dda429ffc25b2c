//! What a checkpoint stores of a loader: the reference's state dict and two fields more, as JSON.
//!
//! ```json
//! {"epoch":1,"sample_in_epoch":28,"num_canonical_nodes":2,"shuffle_seed":77,"initial_physical_nodes":1,
//!  "version":1,"index_fingerprint":"8d3f…"}
//! ```
//! The reference reads the first five and takes no notice of the others, so it goes on from here
//! as this loader goes on from there. Neither names ranks or workers: the world may change.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::dataset::StreamingDataset;
use crate::error::{Error, Result, shown};
use crate::order::State;

/// The version of the two fields that the reference's state dict has not.
const VERSION: u64 = 1;

/// A state is shorter than this many bytes: the reference keeps it in one page of shared memory.
const LIMIT: usize = 4096;

/// Where a loader stands, and in which dataset: what a checkpoint stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// The position, with the reference's field names.
    #[serde(flatten)]
    pub state: State,
    /// The version of this form, 1; `None` if the reference wrote the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The [fingerprint](StreamingDataset::index_fingerprint) of the dataset, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_fingerprint: Option<String>,
}

impl From<State> for Checkpoint {
    /// A position in a dataset that is not named, as the reference stores it.
    fn from(state: State) -> Self {
        Self { state, version: None, index_fingerprint: None }
    }
}

impl Checkpoint {
    /// The position `state` in `dataset`.
    pub(super) fn new(state: State, dataset: &StreamingDataset) -> Self {
        let index_fingerprint = Some(dataset.index_fingerprint().to_owned());
        Self { state, version: Some(VERSION), index_fingerprint }
    }

    /// The state as JSON, which the reference's `load_state_dict` takes as well.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it has 4,096 bytes or more, as
    /// only a made-up fingerprint can.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string(self)
            .map_err(|error| unreadable("cannot be written as JSON").with_source(error))?;
        check_length(&text)?;
        Ok(text)
    }

    /// Reads a state, written by [`to_json`](Self::to_json) or by the reference.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) names the field that is missing or
    /// cannot be, and refuses versions that this library does not know.
    pub fn from_json(text: &str) -> Result<Self> {
        check_length(text)?;
        let fields = serde_json::from_str(text).map_err(|error| {
            unreadable(&format!("is no JSON object ({error})")).with_source(error)
        })?;
        Self::from_fields(&fields)
    }

    fn from_fields(fields: &Map<String, Value>) -> Result<Self> {
        // First of all: another version may have other fields.
        let version = optional(fields, "version", number)?;
        check_version(version)?;
        Ok(Self {
            state: State {
                epoch: epoch(fields)?,
                sample_in_epoch: required(fields, "sample_in_epoch")?,
                num_canonical_nodes: required(fields, "num_canonical_nodes")?,
                shuffle_seed: required(fields, "shuffle_seed")?,
                initial_physical_nodes: optional(fields, "initial_physical_nodes", number)?,
            },
            version,
            index_fingerprint: optional(fields, "index_fingerprint", text)?,
        })
    }

    /// Refuses what `dataset` cannot go on from, and gives notice of what cannot be checked.
    pub(super) fn check(&self, dataset: &StreamingDataset) -> Result<()> {
        check_version(self.version)?;
        let own = dataset.index_fingerprint();
        match &self.index_fingerprint {
            None => {
                tracing::warn!(
                    "the state does not name its dataset: it is taken to be of the one with index {own}"
                );
                Ok(())
            }
            Some(saved) if saved == own => Ok(()),
            Some(saved) => Err(Error::invalid(
                format!(
                    "the checkpoint was made with another dataset (index {}) \
                     than this one (index {own})",
                    shown(saved)
                ),
                "resume with the dataset of the checkpoint or start afresh",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Checkpoint {
    /// As [`Checkpoint::from_json`], within any document.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        Self::from_fields(&fields).map_err(serde::de::Error::custom)
    }
}

fn check_length(text: &str) -> Result<()> {
    if text.len() < LIMIT {
        return Ok(());
    }
    Err(unreadable(&format!("has {} bytes, but the most is {}", text.len(), LIMIT - 1)))
}

fn check_version(version: Option<u64>) -> Result<()> {
    match version {
        None | Some(VERSION) => Ok(()),
        Some(other) => Err(Error::invalid(
            format!("the state has version {other}, and this library knows version {VERSION}"),
            "resume with the version of the library that wrote the state, or start afresh",
        )),
    }
}

/// The epoch, counted from 0. Until its first batch is asked for the reference says -1, and no
/// samples, of a run that stands at the beginning of epoch 0.
fn epoch(fields: &Map<String, Value>) -> Result<u64> {
    let is = |name: &str, number: i64| fields.get(name).and_then(Value::as_i64) == Some(number);
    if is("epoch", -1) && is("sample_in_epoch", 0) {
        return Ok(0);
    }
    required(fields, "epoch")
}

fn required(fields: &Map<String, Value>, name: &str) -> Result<u64> {
    match fields.get(name) {
        Some(value) => number(name, value),
        None => Err(unreadable(&format!("has no field {name}"))),
    }
}

/// A field that may be missing, or null as a `None` of Python.
fn optional<T>(
    fields: &Map<String, Value>,
    name: &str,
    read: fn(&str, &Value) -> Result<T>,
) -> Result<Option<T>> {
    fields.get(name).filter(|value| !value.is_null()).map(|value| read(name, value)).transpose()
}

fn number(name: &str, value: &Value) -> Result<u64> {
    value.as_u64().ok_or_else(|| {
        unreadable(&format!(
            "has the field {name} {}, not a whole number from 0 to {}",
            shown(value),
            u64::MAX
        ))
    })
}

fn text(name: &str, value: &Value) -> Result<String> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| unreadable(&format!("has the field {name} {}, not a text", shown(value))))
}

fn unreadable(what: &str) -> Error {
    Error::invalid(
        format!("the state {what}"),
        "give the state dict of a loader or of mosaicml-streaming as it was saved",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "{\"epoch\":1,\"sample_in_epoch\":28,\"num_canonical_nodes\":2,\
                         \"shuffle_seed\":77,\"initial_physical_nodes\":1";

    fn saved() -> State {
        State {
            epoch: 1,
            sample_in_epoch: 28,
            num_canonical_nodes: 2,
            shuffle_seed: 77,
            initial_physical_nodes: Some(1),
        }
    }

    #[test]
    fn the_text_is_the_reference_s_and_two_fields() {
        let checkpoint = Checkpoint {
            state: saved(),
            version: Some(1),
            index_fingerprint: Some("0123abc".to_owned()),
        };
        let text = format!("{SAVED},\"version\":1,\"index_fingerprint\":\"0123abc\"}}");
        assert_eq!(checkpoint.to_json().unwrap(), text);
        assert_eq!(Checkpoint::from_json(&text).unwrap(), checkpoint);
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).unwrap(), checkpoint);
        // As the reference writes it.
        let text = r#"{"epoch": 1, "initial_physical_nodes": 1, "num_canonical_nodes": 2, "sample_in_epoch": 28, "shuffle_seed": 77}"#;
        assert_eq!(Checkpoint::from_json(text).unwrap(), Checkpoint::from(saved()));
        assert_eq!(Checkpoint::from(saved()).to_json().unwrap(), format!("{SAVED}}}"));
    }

    #[test]
    fn fields_that_cannot_be_are_named() {
        let remedy = "give the state dict of a loader or of mosaicml-streaming as it was saved";
        let range = "not a whole number from 0 to 18446744073709551615";
        let cases = [
            (
                r#""sample_in_epoch":28"#,
                r#""sample_in_epoch":-4"#,
                format!("has the field sample_in_epoch -4, {range}"),
            ),
            (
                r#""sample_in_epoch":28"#,
                r#""sample_in_epoch":2.5"#,
                format!("has the field sample_in_epoch 2.5, {range}"),
            ),
            (r#""epoch":1"#, r#""epoch":"1""#, format!("has the field epoch \"1\", {range}")),
            (r#""epoch":1"#, r#""epoch":null"#, format!("has the field epoch null, {range}")),
            (r#""epoch":1"#, r#""epoch":-1"#, format!("has the field epoch -1, {range}")),
            (r#""epoch":1,"#, "", "has no field epoch".to_owned()),
            (r#""sample_in_epoch":28,"#, "", "has no field sample_in_epoch".to_owned()),
            (r#""num_canonical_nodes":2,"#, "", "has no field num_canonical_nodes".to_owned()),
            (r#""shuffle_seed":77,"#, "", "has no field shuffle_seed".to_owned()),
            (
                r#""shuffle_seed":77"#,
                r#""shuffle_seed":36893488147419103232"#,
                format!("has the field shuffle_seed 3.6893488147419103e+19, {range}"),
            ),
            (
                r#""initial_physical_nodes":1"#,
                r#""initial_physical_nodes":[1]"#,
                format!("has the field initial_physical_nodes [1], {range}"),
            ),
            (
                r#""epoch":1"#,
                r#""epoch":1,"version":"1""#,
                format!("has the field version \"1\", {range}"),
            ),
            (
                r#""epoch":1"#,
                r#""epoch":1,"index_fingerprint":7"#,
                "has the field index_fingerprint 7, not a text".to_owned(),
            ),
        ];
        for (from, to, what) in cases {
            let text = format!("{SAVED}}}").replace(from, to);
            let error = Checkpoint::from_json(&text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
            assert_eq!(error.to_string(), format!("the state {what}; {remedy}"));
            let error = serde_json::from_str::<Checkpoint>(&text).unwrap_err();
            assert!(error.to_string().starts_with(&format!("the state {what}")), "{error}");
        }
        assert_eq!(
            Checkpoint::from_json("[1]").unwrap_err().to_string(),
            format!(
                "the state is no JSON object (invalid type: sequence, expected a map at line 1 column 0); \
                 {remedy}"
            )
        );
    }

    #[test]
    fn old_and_foreign_states_need_not_have_every_field() {
        let old = r#"{"epoch":0,"sample_in_epoch":4,"num_canonical_nodes":8,"shuffle_seed":9}"#;
        assert_eq!(Checkpoint::from_json(old).unwrap().state.initial_physical_nodes, None);
        let null = format!("{SAVED}}}").replace(":1}", ":null}");
        assert_eq!(Checkpoint::from_json(&null).unwrap().state.initial_physical_nodes, None);
        let more = format!("{SAVED},\"mood\":\"well\"}}");
        assert_eq!(Checkpoint::from_json(&more).unwrap(), saved().into());
    }

    #[test]
    fn the_reference_s_state_before_its_first_batch_is_the_beginning() {
        let text = format!("{SAVED}}}").replace(":28", ":0").replace("\"epoch\":1", "\"epoch\":-1");
        let beginning = State { epoch: 0, sample_in_epoch: 0, ..saved() };
        assert_eq!(Checkpoint::from_json(&text).unwrap().state, beginning);
    }

    #[test]
    fn unknown_versions_are_refused_whatever_their_fields() {
        for version in [0, 2] {
            assert_eq!(
                Checkpoint::from_json(&format!("{{\"version\":{version}}}"))
                    .unwrap_err()
                    .to_string(),
                format!(
                    "the state has version {version}, and this library knows version 1; \
                     resume with the version of the library that wrote the state, or start afresh"
                )
            );
        }
    }

    #[test]
    fn states_are_short() {
        let mut checkpoint = Checkpoint::from(saved());
        let rest = format!("{SAVED},\"index_fingerprint\":\"\"}}").len();
        checkpoint.index_fingerprint = Some("f".repeat(4095 - rest));
        let text = checkpoint.to_json().unwrap();
        assert_eq!(text.len(), 4095);
        assert_eq!(Checkpoint::from_json(&text).unwrap(), checkpoint);

        let message = "the state has 4096 bytes, but the most is 4095; \
                       give the state dict of a loader or of mosaicml-streaming as it was saved";
        checkpoint.index_fingerprint = Some("f".repeat(4096 - rest));
        assert_eq!(checkpoint.to_json().unwrap_err().to_string(), message);
        let text = format!("{text} ");
        assert_eq!(Checkpoint::from_json(&text).unwrap_err().to_string(), message);
    }
}
