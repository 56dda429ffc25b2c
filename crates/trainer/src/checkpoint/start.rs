//! What a run takes over from a checkpoint: everything, or what `load_weights_only`, `load_strict_model_weights` and
//! `load_ignore_keys` leave of it.
//!
//! A run that continues its own (`autoresume`) takes everything: these keys are for the first start, as in the reference.
//!
//! `load_ignore_keys` are patterns for the reference's names of what a checkpoint holds, with `*` also for `/`. A pattern for a
//! part is one for all that is in it.
//!
//! | name | what the run has in its place |
//! |---|---|
//! | `state/model/PARAMETER` | the parameter as a new model has it |
//! | `state/optimizers/OPTIMIZER/state/PARAMETER/exp_avg`, `.../exp_avg_sq` | zero; without any moment the optimizer is new |
//! | `state/timestamp` | the beginning: duration, schedule and metrics count from there |
//! | `state/dataset_state` | the beginning of the training data |
//! | `state/callbacks` | callbacks that have seen nothing |

use std::collections::BTreeSet;

use burn::tensor::Device;
use glob::Pattern;

use super::{Checkpoint, Found, Place, SaveFolder, State};
use crate::config::Config;
use crate::data::{DataState, TrainData};
use crate::error::{Error, Result};
use crate::model::{Gpt, NamedTensor, ParameterError, by_name};
use crate::optim::{Moments, Optimizer};
use crate::watch;

const MODEL: &str = "state/model";
const OPTIMIZERS: &str = "state/optimizers";
const TIMESTAMP: &str = "state/timestamp";
const DATASET: &str = "state/dataset_state";
const CALLBACKS: &str = "state/callbacks";
/// What is not made of tensors.
const PARTS: [&str; 3] = [TIMESTAMP, DATASET, CALLBACKS];

/// The first moment of a parameter.
const FIRST: &str = "exp_avg";
/// The second.
const SECOND: &str = "exp_avg_sq";

/// Names of what is left out that are printed.
const SHOWN: usize = 5;

/// The checkpoint that a run starts from.
#[derive(Debug)]
pub(crate) struct Start {
    /// What is taken over of it.
    pub(crate) found: Found,
    /// Only the weights are.
    pub(crate) weights_only: bool,
    /// It is one that the run has saved, found by `autoresume`.
    is_own: bool,
    /// Its parameters must be those of the model, each of them.
    pub(super) is_strict: bool,
    /// Where they need not be: parameters of the model that it has not, and those that the model has not.
    missing: Vec<String>,
    superfluous: Vec<String>,
    /// The names that were left out.
    left_out: BTreeSet<String>,
}

impl Start {
    /// The whole of the run's own checkpoint.
    pub(crate) fn own(found: Found) -> Self {
        Self {
            found,
            weights_only: false,
            is_own: true,
            is_strict: true,
            missing: Vec::new(),
            superfluous: Vec::new(),
            left_out: BTreeSet::new(),
        }
    }

    /// With `autoresume` the newest of the run's own checkpoints, else that of `load_path`, if any.
    ///
    /// # Errors
    /// When there are checkpoints and none can be read, or a pattern of `load_ignore_keys` matches nothing.
    pub(crate) fn find(config: &Config, save_place: Option<&Place>) -> Result<Option<Self>> {
        if let (true, Some(place)) = (config.autoresume, save_place)
            && let Some(found) = SaveFolder::newest(place)?
        {
            return Ok(Some(Self::own(found)));
        }
        Self::loaded(config)
    }

    /// The checkpoint of `load_path`, if there is one.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(crate) fn loaded(config: &Config) -> Result<Option<Self>> {
        let Some(address) = &config.load_path else { return Ok(None) };
        let mut found = Place::open(address, config.remote_options())?.load()?;
        let left_out = leave_out(&found.place, &mut found.checkpoint, &config.load_ignore_keys)?;
        Ok(Some(Self {
            weights_only: config.load_weights_only,
            is_own: false,
            is_strict: config.load_strict_model_weights,
            left_out,
            ..Self::own(found)
        }))
    }

    /// Whether the run goes on from the checkpoint's position.
    pub(crate) fn resumes(&self) -> bool {
        !self.weights_only && !self.left_out.contains(TIMESTAMP)
    }

    /// Checks that the run's configuration allows what is taken over, and hands out everything but tensors.
    ///
    /// # Errors
    /// The checkpoint is of another model, optimizer, dataset or number of devices.
    pub(crate) fn restore(
        &self,
        config: &Config,
        state: &mut State,
        data: &mut TrainData,
    ) -> Result<()> {
        let mut saved = self.found.checkpoint.state.clone();
        saved.check_model(self, &config.model)?;
        if self.weights_only {
            return Ok(());
        }
        saved.check_is_whole(self)?;
        if self.has_moments() {
            saved.check_optimizer(self, config.optimizer.name)?;
        }
        saved.check_world_size(self)?;
        let is_left_out = |part: &str| self.left_out.contains(part);
        if is_left_out(TIMESTAMP) {
            saved.begin_anew();
        }
        if is_left_out(DATASET) {
            saved.data = DataState::default();
        }
        if is_left_out(CALLBACKS) {
            saved.watch = watch::Memory::default();
        }
        data.restore(saved.data.clone()).map_err(|error| {
            Error::Checkpoint(format!("{error}, or {}", self.for_its_weights()))
        })?;
        state.continue_from(&saved);
        Ok(())
    }

    /// `model` with the checkpoint's parameters, which are taken out of it.
    ///
    /// # Errors
    /// When they are another model's.
    pub(crate) fn load_model(&mut self, model: Gpt) -> Result<Gpt> {
        let mut tensors = std::mem::take(&mut self.found.checkpoint.model);
        if self.leaves_out_of(MODEL) {
            let new = model.to_named_tensors();
            tensors.extend(new.into_iter().filter(|new| self.left_out.contains(&parameter(new))));
        }
        if !self.is_strict {
            tensors = self.fit(&model, tensors)?;
        }
        model.with_named_tensors(tensors).map_err(|error| self.refused(&error))
    }

    /// The parameters of `model`, those of `tensors` where there is one of the name; notes the rest.
    ///
    /// # Errors
    /// When there is none at all: then the model would be new without a checkpoint, too.
    fn fit(&mut self, model: &Gpt, tensors: Vec<NamedTensor>) -> Result<Vec<NamedTensor>> {
        let mut given = by_name(&model.parameters(), tensors);
        let mut fitted = model.to_named_tensors();
        for parameter in &mut fitted {
            match given.remove(&parameter.name) {
                Some(tensor) => *parameter = tensor,
                None => self.missing.push(parameter.name.clone()),
            }
        }
        self.superfluous = given.into_keys().collect();
        match self.missing.first().filter(|_| self.missing.len() == fitted.len()) {
            Some(first) => Err(Error::Checkpoint(format!(
                "the checkpoint `{}` has not one parameter of the configured model, for example no {first}, but {}; {}",
                self.found.place,
                first_of(&self.superfluous),
                self.without_it()
            ))),
            None => Ok(fitted),
        }
    }

    /// Gives `optimizer` the checkpoint's moments, if they are taken over; they are taken out of it.
    ///
    /// # Errors
    /// When they are another model's.
    pub(crate) fn load_moments(
        &mut self,
        optimizer: &mut Optimizer,
        device: &Device,
    ) -> Result<()> {
        if self.weights_only || !self.has_moments() {
            return Ok(());
        }
        let no_moments = Moments { steps: 0, first: Vec::new(), second: Vec::new() };
        let mut moments = std::mem::replace(&mut self.found.checkpoint.moments, no_moments);
        if self.leaves_out_of(OPTIMIZERS) {
            let class = self.found.checkpoint.state.optimizer_class().unwrap_or_default();
            let new = optimizer.to_moments();
            for (taken, new, kind) in
                [(&mut moments.first, new.first, FIRST), (&mut moments.second, new.second, SECOND)]
            {
                let is_left_out =
                    |new: &NamedTensor| self.left_out.contains(&moment(class, new, kind));
                taken.extend(new.into_iter().filter(is_left_out));
            }
        }
        optimizer.load_moments(moments, device).map_err(|error| self.refused(&error))
    }

    /// Where the checkpoint lies.
    pub(super) fn place(&self) -> &Place {
        &self.found.place
    }

    /// What to do without this checkpoint.
    pub(super) fn without_it(&self) -> &'static str {
        if self.is_own { "use another save_folder" } else { "give another load_path" }
    }

    /// What to do to have nothing but its weights.
    pub(super) fn for_its_weights(&self) -> &'static str {
        match self.is_own {
            true => {
                "take only its weights with load_path, load_weights_only=true and another save_folder"
            }
            false => "take only its weights with load_weights_only=true",
        }
    }

    /// Whether the parameter `name` is left out.
    pub(super) fn leaves_out_parameter(&self, name: &str) -> bool {
        self.left_out.contains(&format!("{MODEL}/{name}"))
    }

    /// Whether the moments of any parameter are taken over.
    fn has_moments(&self) -> bool {
        let moments = &self.found.checkpoint.moments;
        !(moments.first.is_empty() && moments.second.is_empty())
    }

    fn leaves_out_of(&self, part: &str) -> bool {
        self.left_out.iter().any(|name| name.starts_with(part))
    }

    fn refused(&self, error: &ParameterError) -> Error {
        Error::Checkpoint(format!(
            "the checkpoint `{}`: {error}; {}",
            self.found.place,
            self.without_it()
        ))
    }

    /// What is to be said of it at the beginning of the run.
    pub(crate) fn notes(&self, config: &Config) -> Vec<String> {
        let Found { place, checkpoint, notices } = &self.found;
        let mut notes: Vec<String> =
            notices.iter().map(|notice| format!("note: {notice}")).collect();
        let what = if self.weights_only { "weights" } else { "continuing" };
        let batch = checkpoint.state.timestamp.batch;
        notes.push(format!("{what} from {place} (batch {batch})"));
        if !self.left_out.is_empty() {
            notes.push(format!("note: load_ignore_keys: without {}", first_of(&self.left_out)));
        }
        for (names, what) in [
            (&self.missing, "not in the checkpoint, so as a new model has them"),
            (&self.superfluous, "in the checkpoint, but not in the model"),
        ] {
            if !names.is_empty() {
                let names = first_of(names);
                notes.push(format!("note: load_strict_model_weights: {what}: {names}"));
            }
        }
        let mut changes = checkpoint.state.changes(config);
        if self.weights_only {
            changes.retain(|change| !self.is_strict && change.starts_with("model."));
        }
        notes.extend(changes.iter().map(|change| format!("note: {change}")));
        notes
    }
}

/// The first of `names`, and how many more there are.
fn first_of<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    let first = &names[..names.len().min(SHOWN)];
    let more = match names.len() - first.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", first.join(", "))
}

/// Takes out of `checkpoint` the tensors that any of `patterns` matches. Returns the names of all that one matches.
fn leave_out(
    place: &Place,
    checkpoint: &mut Checkpoint,
    patterns: &[String],
) -> Result<BTreeSet<String>> {
    let class = checkpoint.state.optimizer_class().unwrap_or_default().to_owned();
    let Checkpoint { model, moments, .. } = checkpoint;
    let names = model.iter().map(parameter);
    let names = names.chain(moments.first.iter().map(|tensor| moment(&class, tensor, FIRST)));
    let names = names.chain(moments.second.iter().map(|tensor| moment(&class, tensor, SECOND)));
    let mut names: Vec<String> = names.chain(PARTS.map(str::to_owned)).collect();
    names.sort();
    let mut left_out = BTreeSet::new();
    for text in patterns {
        // All that is in a part is the part.
        let pattern = pattern(text.strip_suffix("/*").unwrap_or(text))?;
        let matches: Vec<_> = names.iter().filter(|name| is_in(&pattern, name)).collect();
        if matches.is_empty() {
            return Err(Error::Checkpoint(format!(
                "`load_ignore_keys` has `{text}`, but nothing in the checkpoint `{place}` is called so; there is {}",
                kinds(&names).join(", ")
            )));
        }
        left_out.extend(matches.into_iter().cloned());
    }
    model.retain(|tensor| !left_out.contains(&parameter(tensor)));
    moments.first.retain(|tensor| !left_out.contains(&moment(&class, tensor, FIRST)));
    moments.second.retain(|tensor| !left_out.contains(&moment(&class, tensor, SECOND)));
    Ok(left_out)
}

/// One of `load_ignore_keys`.
fn pattern(text: &str) -> Result<Pattern> {
    Pattern::new(text).map_err(|error| {
        Error::Config(format!(
            "`load_ignore_keys` has `{text}`, which is no pattern: {}; write for example state/optimizers/*",
            error.msg
        ))
    })
}

/// Whether `pattern` matches `name` or a part that it is in.
fn is_in(pattern: &Pattern, name: &str) -> bool {
    let parts = name.match_indices('/').map(|(end, _)| &name[..end]);
    parts.chain([name]).any(|part| pattern.matches(part))
}

/// The first name of each kind.
fn kinds(names: &[String]) -> Vec<&str> {
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for name in names {
        // Parameters have the same kinds of names, moments differ in their last part.
        let kind = match name.split('/').nth(1) {
            Some("optimizers") => name.rsplit('/').next(),
            part => part,
        };
        let kind = kind.unwrap_or_default();
        if kinds.iter().all(|(seen, _)| *seen != kind) {
            kinds.push((kind, name));
        }
    }
    kinds.into_iter().map(|(_, name)| name).collect()
}

/// The name of a parameter.
fn parameter(tensor: &NamedTensor) -> String {
    format!("{MODEL}/{}", tensor.name)
}

/// The name of a moment.
fn moment(class: &str, tensor: &NamedTensor, kind: &str) -> String {
    format!("{OPTIMIZERS}/{class}/state/{}/{kind}", tensor.name)
}
