//! AdamW with decoupled weight decay.
//!
//! For step t (from 1), in this order:
//!
//! ```text
//! p ← p · (1 − (lr_t / lr_initial) · wd)          only if wd ≠ 0; before the update
//! m ← β1·m + (1 − β1)·g
//! v ← β2·v + (1 − β2)·g²
//! p ← p − lr_t / (1 − β1ᵗ) · m / (√v / √(1 − β2ᵗ) + eps)
//! ```
//!
//! Decay follows the shape of the schedule and not the size of the learning rate, so `wd` is the share of a weight
//! lost per step at the peak: values above 1e-3 are far stronger here than in the coupled form. It applies to every
//! parameter, norms, biases and embeddings included.

use burn::tensor::{Device, Tensor, TensorData};

use super::Gradients;
use crate::config::OptimizerConfig;
use crate::model::{Gpt, NamedTensor, ParameterError, ParameterSpec, map_parameters};

/// The optimizer and its state.
#[derive(Debug)]
pub struct DecoupledAdamW {
    config: OptimizerConfig,
    steps: u64,
    moments: Vec<Moment>,
    specs: Vec<ParameterSpec>,
}

/// First and second moment of one parameter, flat.
#[derive(Debug)]
struct Moment {
    first: Tensor<1>,
    second: Tensor<1>,
}

/// The optimizer's state on the host, for checkpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Steps taken.
    pub steps: u64,
    /// m of each parameter, under the parameter's name.
    pub first: Vec<NamedTensor>,
    /// v of each parameter, under the parameter's name.
    pub second: Vec<NamedTensor>,
}

impl DecoupledAdamW {
    /// An optimizer for `model` with zero moments on `device`.
    pub fn new(config: OptimizerConfig, model: &Gpt, device: &Device) -> Self {
        let specs = model.parameters();
        let zeros =
            |spec: &ParameterSpec| Tensor::zeros([spec.shape.iter().product::<usize>()], device);
        let moments =
            specs.iter().map(|spec| Moment { first: zeros(spec), second: zeros(spec) }).collect();
        Self { config, steps: 0, moments, specs }
    }

    /// The hyperparameters.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step with learning rate `lr` and returns the updated model.
    pub fn step(&mut self, model: Gpt, gradients: Gradients, lr: f64) -> Gpt {
        self.steps += 1;
        let OptimizerConfig { lr: initial_lr, betas: [beta1, beta2], eps, weight_decay, .. } =
            self.config;
        let t = self.steps.min(i32::MAX as u64) as i32;
        let step_size = lr / (1.0 - beta1.powi(t));
        let second_correction = (1.0 - beta2.powi(t)).sqrt();
        let relative_lr = if initial_lr == 0.0 { 1.0 } else { lr / initial_lr };
        let kept = 1.0 - relative_lr * weight_decay;

        let mut gradients = gradients.into_flat().into_iter();
        let moments = &mut self.moments;
        map_parameters(model, |index, parameter| {
            let Some(gradient) = gradients.next() else { return parameter };
            let parameter =
                if weight_decay == 0.0 { parameter } else { parameter.mul_scalar(kept) };
            moments[index].update(gradient, beta1, beta2);
            let Moment { first, second } = &moments[index];
            let denominator = second.clone().sqrt().div_scalar(second_correction).add_scalar(eps);
            parameter - first.clone().div(denominator).mul_scalar(step_size)
        })
    }

    /// The state, copied to the host.
    pub fn to_moments(&self) -> Moments {
        let named = |part: fn(&Moment) -> &Tensor<1>| {
            let moments = self.specs.iter().zip(&self.moments);
            moments.map(|(spec, moment)| spec.with_values(part(moment).clone())).collect()
        };
        Moments { steps: self.steps, first: named(|m| &m.first), second: named(|m| &m.second) }
    }

    /// Replaces the state.
    ///
    /// # Errors
    ///
    /// The moments are not those of exactly this model's parameters; the state is unchanged then.
    pub fn load_moments(
        &mut self,
        moments: Moments,
        device: &Device,
    ) -> Result<(), ParameterError> {
        let first = crate::model::in_parameter_order(&self.specs, moments.first)?;
        let second = crate::model::in_parameter_order(&self.specs, moments.second)?;
        let flat = |tensor: NamedTensor| {
            let len = tensor.values.len();
            Tensor::from_data(TensorData::new(tensor.values, [len]), device)
        };
        self.moments = first
            .into_iter()
            .zip(second)
            .map(|(first, second)| Moment { first: flat(first), second: flat(second) })
            .collect();
        self.steps = moments.steps;
        Ok(())
    }
}

impl Moment {
    fn update(&mut self, gradient: Tensor<1>, beta1: f64, beta2: f64) {
        let device = gradient.device();
        // Taken out so that they are unshared and updated in place.
        let first = std::mem::replace(&mut self.first, Tensor::empty([1], &device));
        let second = std::mem::replace(&mut self.second, Tensor::empty([1], &device));
        let squared = gradient.clone().square();
        self.first = first.mul_scalar(beta1) + gradient.mul_scalar(1.0 - beta1);
        self.second = second.mul_scalar(beta2) + squared.mul_scalar(1.0 - beta2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny_config;

    fn hyperparameters() -> OptimizerConfig {
        OptimizerConfig {
            name: "decoupled_adamw".into(),
            lr: 1e-2,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 1e-5,
        }
    }

    /// The update rule in f64, one element at a time.
    struct Reference {
        p: f64,
        m: f64,
        v: f64,
        t: i32,
    }

    impl Reference {
        fn step(&mut self, g: f64, lr: f64, c: &OptimizerConfig) {
            self.t += 1;
            self.p *= 1.0 - lr / c.lr * c.weight_decay;
            self.m = c.betas[0] * self.m + (1.0 - c.betas[0]) * g;
            self.v = c.betas[1] * self.v + (1.0 - c.betas[1]) * g * g;
            let denominator = self.v.sqrt() / (1.0 - c.betas[1].powi(self.t)).sqrt() + c.eps;
            self.p -= lr / (1.0 - c.betas[0].powi(self.t)) * self.m / denominator;
        }
    }

    fn tiny() -> (Gpt, Device) {
        let device = Device::flex().autodiff();
        (Gpt::init(&tiny_config(), 1, &device), Device::flex())
    }

    fn constant_gradients(model: &Gpt, value: f64, device: &Device) -> Gradients {
        let flat = model.parameters().into_iter().map(|spec| {
            Tensor::<1>::ones([spec.shape.iter().product::<usize>()], device).mul_scalar(value)
        });
        Gradients::new(flat.collect())
    }

    #[test]
    fn steps_follow_the_rule_with_decay_and_a_large_eps() {
        // A large eps shows where it is added, a strong decay shows that it comes first.
        let config = OptimizerConfig { lr: 0.1, eps: 0.3, weight_decay: 0.2, ..hyperparameters() };
        let (mut model, device) = tiny();
        let mut optimizer = DecoupledAdamW::new(config.clone(), &model, &device);
        let mut reference: Vec<Reference> = model.to_named_tensors()[0]
            .values
            .iter()
            .map(|&p| Reference { p: p.into(), m: 0.0, v: 0.0, t: 0 })
            .collect();
        for (gradient, lr) in [(0.5, 0.0), (-2.0, 0.05), (0.25, 0.1), (1.0, 0.02)] {
            model =
                optimizer.step(model.clone(), constant_gradients(&model, gradient, &device), lr);
            reference.iter_mut().for_each(|r| r.step(gradient, lr, &config));
        }
        for (p, r) in model.to_named_tensors()[0].values.iter().zip(&reference) {
            assert!((f64::from(*p) - r.p).abs() < 1e-6, "{p} against {}", r.p);
        }
        let moments = optimizer.to_moments();
        assert_eq!(moments.steps, 4);
        assert!((f64::from(moments.first[0].values[0]) - reference[0].m).abs() < 1e-6);
        assert!((f64::from(moments.second[0].values[0]) - reference[0].v).abs() < 1e-6);
    }

    #[test]
    fn a_step_with_learning_rate_zero_moves_only_the_moments() {
        let (model, device) = tiny();
        let before = model.to_named_tensors();
        let mut optimizer = DecoupledAdamW::new(
            OptimizerConfig { weight_decay: 0.1, ..hyperparameters() },
            &model,
            &device,
        );
        let gradients = constant_gradients(&model, 1.0, &device);
        let model = optimizer.step(model, gradients, 0.0);
        assert_eq!(model.to_named_tensors(), before);
        assert!(optimizer.to_moments().first[0].values[0] > 0.0);
    }

    #[test]
    fn a_restored_optimizer_continues_bit_for_bit() {
        let (model, device) = tiny();
        let mut optimizer = DecoupledAdamW::new(hyperparameters(), &model, &device);
        let model = optimizer.step(model.clone(), constant_gradients(&model, 0.3, &device), 1e-2);
        let mut restored = DecoupledAdamW::new(hyperparameters(), &model, &device);
        restored.load_moments(optimizer.to_moments(), &device).unwrap();
        let gradients = constant_gradients(&model, -0.1, &device);
        let a = optimizer.step(model.clone(), gradients.clone(), 1e-2).to_named_tensors();
        let b = restored.step(model, gradients, 1e-2).to_named_tensors();
        assert_eq!(a, b);
        assert_eq!(optimizer.to_moments(), restored.to_moments());
    }
}
