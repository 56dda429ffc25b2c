//! `scheduler`, `optimizer` and `algorithms`: how gradients become the next parameters.

use serde::Serialize;

use super::read::required;
use super::section::Section;
use crate::error::{Error, Result};
use crate::time::{Time, Unit};

/// The learning-rate schedule; see [`crate::schedule`] for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SchedulerConfig {
    /// Which formula.
    pub name: SchedulerName,
    /// The length of the linear warm-up.
    pub t_warmup: Time,
    /// When the decay ends.
    pub t_max: Time,
    /// The multiplier at the end of the decay.
    pub alpha_f: f64,
    /// What only `inv_sqrt_with_warmup` has.
    #[serde(flatten)]
    pub inv_sqrt: Option<InverseSqrtConfig>,
}

/// A decay by the inverse square root of time, and the way down at the end of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InverseSqrtConfig {
    /// The time scale of the decay: three times this after the warm-up half of it is done.
    pub t_scale: Time,
    /// The length of the cool-down at the end.
    pub t_cooldown: Time,
    /// The multiplier that the decay tends to.
    pub alpha_f_decay: f64,
    /// The multiplier at the end of the cool-down.
    pub alpha_f_cooldown: f64,
}

impl SchedulerConfig {
    /// The schedule of the reference recipes, over the whole run.
    pub fn cosine_with_warmup(t_warmup: Time, alpha_f: f64) -> Self {
        let t_max = Time::new(1.0, Unit::Duration);
        Self { name: SchedulerName::CosineWithWarmup, t_warmup, t_max, alpha_f, inv_sqrt: None }
    }
}

/// The formulas of [`crate::schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerName {
    /// Half a cosine, from 1 to `alpha_f`.
    CosineWithWarmup,
    /// A straight line, from 1 to `alpha_f`.
    LinearDecayWithWarmup,
    /// No decay.
    ConstantWithWarmup,
    /// The inverse square root of time, then a straight line.
    InvSqrtWithWarmup,
}

/// The optimizer; see [`crate::optim`] for the formulas.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizerConfig {
    /// Which one.
    pub name: OptimizerName,
    /// The learning rate that the schedule multiplies.
    pub lr: f64,
    /// The decay rates of the moments; Lion uses the first for its step and the second for its moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment; Lion has neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// The fraction of every weight taken away per step at the full learning rate; of plain AdamW: that times the
    /// learning rate.
    pub weight_decay: f64,
}

/// The update rules of [`crate::optim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerName {
    /// AdamW whose decay follows the schedule's shape and not the learning rate.
    DecoupledAdamW,
    /// Lion with such a decay.
    DecoupledLionW,
    /// AdamW as PyTorch has it.
    AdamW,
}

impl Serialize for OptimizerName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl OptimizerName {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::DecoupledAdamW, Self::DecoupledLionW, Self::AdamW];

    /// The name in a recipe.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DecoupledAdamW => "decoupled_adamw",
            Self::DecoupledLionW => "decoupled_lionw",
            Self::AdamW => "adamw",
        }
    }

    /// The reference's name of it.
    pub fn class(self) -> &'static str {
        match self {
            Self::DecoupledAdamW => "DecoupledAdamW",
            Self::DecoupledLionW => "DecoupledLionW",
            Self::AdamW => "AdamW",
        }
    }

    /// The key under which the learning rate is logged.
    pub fn lr_key(self) -> &'static str {
        match self {
            Self::DecoupledAdamW => "lr-DecoupledAdamW/group0",
            Self::DecoupledLionW => "lr-DecoupledLionW/group0",
            Self::AdamW => "lr-AdamW/group0",
        }
    }

    /// Moments that it keeps of every parameter.
    pub fn moments(self) -> usize {
        match self {
            Self::DecoupledAdamW | Self::AdamW => 2,
            Self::DecoupledLionW => 1,
        }
    }
}

/// What is done beside the optimizer's step; an absent one is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Algorithms {
    /// How gradients are kept from being too large; `grad_clip_norm: 1.0` in older recipes.
    pub gradient_clipping: Option<GradientClipping>,
}

/// A limit on gradients; see [`crate::optim`] for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GradientClipping {
    /// What is limited.
    pub clipping_type: ClippingType,
    /// The limit.
    pub clipping_threshold: f64,
}

/// What a threshold limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClippingType {
    /// The norm over all gradients together.
    Norm,
    /// Every element.
    Value,
    /// The norm of each unit's gradient, as a multiple of the norm of its weights.
    Adaptive,
}

/// Reads `scheduler`.
pub(super) fn read_scheduler(scheduler: &Section<'_>) -> Result<SchedulerConfig> {
    let names = [
        ("cosine_with_warmup", SchedulerName::CosineWithWarmup),
        ("linear_decay_with_warmup", SchedulerName::LinearDecayWithWarmup),
        ("constant_with_warmup", SchedulerName::ConstantWithWarmup),
        ("inv_sqrt_with_warmup", SchedulerName::InvSqrtWithWarmup),
    ];
    let name = scheduler.choice("name", &names)?;
    let name = required(scheduler, "name", "name: cosine_with_warmup", name)?;
    let least = "a number of at least 0, for example 0.1";
    let alpha_f = scheduler.number("alpha_f", 0.0.., least)?.unwrap_or(0.0);
    let config = SchedulerConfig {
        name,
        t_warmup: required(scheduler, "t_warmup", "t_warmup: 100ba", scheduler.time("t_warmup")?)?,
        t_max: scheduler.time("t_max")?.unwrap_or(Time::new(1.0, Unit::Duration)),
        alpha_f,
        inv_sqrt: match name {
            SchedulerName::InvSqrtWithWarmup => Some(read_inv_sqrt(scheduler)?),
            _ => None,
        },
    };
    if config.inv_sqrt.is_none() {
        let foreign = ["t_scale", "t_cooldown", "alpha_f_decay", "alpha_f_cooldown"];
        if let Some(key) = foreign.into_iter().find(|key| scheduler.has(key)) {
            return Err(Error::Config(format!(
                "`{}` belongs to inv_sqrt_with_warmup; set scheduler.name to that, or remove the key",
                scheduler.path(key)
            )));
        }
        return Ok(config);
    }
    if alpha_f != 0.0 {
        return Err(Error::Config(format!(
            "`scheduler.alpha_f` is {alpha_f}, but inv_sqrt_with_warmup does not read it; set \
             scheduler.alpha_f_decay and scheduler.alpha_f_cooldown, and remove the key"
        )));
    }
    Ok(config)
}

fn read_inv_sqrt(scheduler: &Section<'_>) -> Result<InverseSqrtConfig> {
    let time = |key: &str, example| {
        let time = required(scheduler, key, example, scheduler.time(key)?)?;
        match time.unit {
            // As in the reference: a run that is meant to be prolonged would change its past.
            Unit::Duration => Err(Error::Config(format!(
                "`{}` is {time}, but inv_sqrt_with_warmup does not depend on how long the run is; \
                 give it in the unit of max_duration, for example 1000ba",
                scheduler.path(key)
            ))),
            _ => Ok(time),
        }
    };
    let share = |key| {
        let range = "a number from 0 to 1, for example 0.1";
        Ok::<_, Error>(scheduler.number(key, 0.0..=1.0, range)?.unwrap_or(0.0))
    };
    time("t_warmup", "t_warmup: 100ba")?;
    let config = InverseSqrtConfig {
        t_scale: time("t_scale", "t_scale: 1000ba")?,
        t_cooldown: time("t_cooldown", "t_cooldown: 500ba")?,
        alpha_f_decay: share("alpha_f_decay")?,
        alpha_f_cooldown: share("alpha_f_cooldown")?,
    };
    let InverseSqrtConfig { t_scale, alpha_f_decay, alpha_f_cooldown, .. } = config;
    if t_scale.is_zero() {
        return Err(Error::Config(format!(
            "`scheduler.t_scale` is {t_scale}, but the decay is measured by it; give it a length, for example 1000ba"
        )));
    }
    if alpha_f_decay < alpha_f_cooldown {
        return Err(Error::Config(format!(
            "`scheduler.alpha_f_cooldown` is {alpha_f_cooldown}, above scheduler.alpha_f_decay, which is \
             {alpha_f_decay}; the learning rate would rise in the cool-down: lower it to at most that"
        )));
    }
    Ok(config)
}

/// Reads `optimizer`, with the defaults of the reference: those of Composer, of llm-foundry and of PyTorch, in this order.
pub(super) fn read_optimizer(
    optimizer: &Section<'_>,
    notices: &mut Vec<String>,
) -> Result<OptimizerConfig> {
    let choices = OptimizerName::ALL.map(|name| (name.as_str(), name));
    let name = optimizer.choice("name", &choices)?.unwrap_or(OptimizerName::DecoupledAdamW);
    let (betas, weight_decay, has_eps) = match name {
        OptimizerName::DecoupledAdamW => ([0.9, 0.95], 1e-5, true),
        OptimizerName::DecoupledLionW => ([0.9, 0.99], 0.0, false),
        OptimizerName::AdamW => ([0.9, 0.999], 1e-2, true),
    };
    let least = "a number of at least 0, for example 6.0e-4";
    let lr = required(optimizer, "lr", "lr: 6.0e-4", optimizer.number("lr", 0.0.., least)?)?;
    let usual = format!("a number of at least 0, for example {weight_decay}");
    let weight_decay = optimizer.number("weight_decay", 0.0.., &usual)?.unwrap_or(weight_decay);
    if weight_decay >= 1e-3 && name != OptimizerName::AdamW {
        notices.push(format!(
            "optimizer.weight_decay {weight_decay} takes that fraction of every weight per step, \
             whatever lr is: a value for plain AdamW must be multiplied by lr"
        ));
    }
    // A weight whose gradients were all 0, as those of a token that never occurs, would become 0 / 0.
    let eps = "a number above 0, without which a weight that has no gradient becomes NaN, for example 1e-8";
    let eps = optimizer.number("eps", f64::from(f32::MIN_POSITIVE).., eps)?;
    if let (Some(eps), false) = (eps, has_eps) {
        return Err(Error::Config(format!(
            "`optimizer.eps` is {eps}, but {} has no eps; remove the key",
            name.as_str()
        )));
    }
    Ok(OptimizerConfig {
        name,
        lr,
        betas: optimizer.betas("betas")?.unwrap_or(betas),
        eps: has_eps.then(|| eps.unwrap_or(1e-8)),
        weight_decay,
    })
}

/// Reads `algorithms.gradient_clipping`, or its older form `grad_clip_norm`.
pub(super) fn read_clipping(root: &Section<'_>) -> Result<Option<GradientClipping>> {
    let types = [
        ("norm", ClippingType::Norm),
        ("value", ClippingType::Value),
        ("adaptive", ClippingType::Adaptive),
    ];
    let threshold = |section: &Section<'_>, key| {
        section.number(key, f64::MIN_POSITIVE.., "a number above 0, for example 1.0")
    };
    let algorithms = root.section("algorithms")?;
    let newer = match algorithms.has("gradient_clipping") {
        false => None,
        true => {
            let section = algorithms.section("gradient_clipping")?;
            let (key, example) = ("clipping_threshold", "clipping_threshold: 1.0");
            Some(GradientClipping {
                clipping_type: section
                    .choice("clipping_type", &types)?
                    .unwrap_or(ClippingType::Norm),
                clipping_threshold: required(&section, key, example, threshold(&section, key)?)?,
            })
        }
    };
    let older = threshold(root, "grad_clip_norm")?.map(|norm| GradientClipping {
        clipping_type: ClippingType::Norm,
        clipping_threshold: norm,
    });
    match (older, newer) {
        (Some(older), Some(newer)) if older != newer => Err(Error::Config(format!(
            "`grad_clip_norm` is {}, but `algorithms.gradient_clipping` asks for another clipping; keep one of the two",
            older.clipping_threshold
        ))),
        _ => Ok(newer.or(older)),
    }
}
