//! What all optimizers have in common: decay, the order of a step, and the moments, which checkpoints hold.

use burn::tensor::{Bool, Device, Tensor, TensorData};

use super::adamw::AdamW;
use super::lion::Lion;
use super::{Gradients, StepNorms};
use crate::config::{OptimizerConfig, OptimizerName};
use crate::cpu;
use crate::model::{
    Gpt, NamedTensor, ParameterError, ParameterSpec, in_parameter_order, map_parameters,
};

/// The optimizer and its state.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    steps: u64,
    /// m of each parameter.
    first: Vec<Average>,
    /// v of each parameter; empty for Lion, which has none.
    second: Vec<Average>,
    specs: Vec<ParameterSpec>,
}

/// The optimizer's state on the host, for checkpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Steps taken.
    pub steps: u64,
    /// m of each parameter, under the parameter's name.
    pub first: Vec<NamedTensor>,
    /// v of each parameter, under the parameter's name; empty for Lion, which has none.
    pub second: Vec<NamedTensor>,
}

/// The update rule of one step.
enum Rule {
    AdamW(AdamW),
    Lion(Lion),
}

impl Optimizer {
    /// An optimizer for `model` with zero moments on `device`.
    pub fn new(config: OptimizerConfig, model: &Gpt, device: &Device) -> Self {
        let specs = model.parameters();
        let zeros = || -> Vec<Average> {
            let elements = specs.iter().map(|spec| spec.shape.iter().product::<usize>());
            elements.map(|elements| Average(Tensor::zeros([elements], device))).collect()
        };
        let first = zeros();
        let second = if config.name.moments() == 2 { zeros() } else { Vec::new() };
        Self { config, steps: 0, first, second, specs }
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
        self.take_step(model, gradients, lr, None, None)
    }

    /// The same, measured if `norms` are given, which takes more memory by one parameter, the largest, and some time. Where
    /// `broken`, `[1]`, is true parameters and moments stay as they are, which the host need not know.
    pub(crate) fn take_step(
        &mut self,
        model: Gpt,
        gradients: Gradients,
        lr: f64,
        broken: Option<Tensor<1, Bool>>,
        mut norms: Option<&mut StepNorms>,
    ) -> Gpt {
        self.steps += 1;
        let kept = 1.0 - self.decay(lr);
        let rule = self.rule(lr);
        let Self { first, second, .. } = self;
        let mut gradients = gradients.into_flat().into_iter();
        map_parameters(model, |index, parameter| {
            let Some(gradient) = gradients.next() else { return parameter };
            let before = norms.is_some().then(|| parameter.clone());
            let unbroken = broken.as_ref().map(|broken| {
                let moments = [first.get(index), second.get(index)];
                (
                    broken.clone(),
                    parameter.clone(),
                    moments.map(|moment| moment.map(Average::value)),
                )
            });
            let decayed = |parameter: Tensor<1>| {
                if kept == 1.0 { parameter } else { parameter.mul_scalar(kept) }
            };
            let after = match &rule {
                Rule::AdamW(rule) => {
                    let (first, second) = (&mut first[index], &mut second[index]);
                    if cpu::computes(&parameter) {
                        rule.step(kept, parameter, first, second, gradient)
                    } else {
                        decayed(parameter) - rule.update(first, second, gradient)
                    }
                }
                Rule::Lion(rule) => decayed(parameter) - rule.update(&mut first[index], gradient),
            };
            let after = match unbroken {
                None => after,
                Some((broken, parameter, [m, v])) => {
                    let broken = broken.expand(parameter.dims()); // [1] -> [elements]
                    let keep = |new: Tensor<1>, old| new.mask_where(broken.clone(), old);
                    for (moment, old) in [(first.get_mut(index), m), (second.get_mut(index), v)] {
                        if let (Some(moment), Some(old)) = (moment, old) {
                            let new = moment.take();
                            moment.put(keep(new, old));
                        }
                    }
                    keep(after, parameter)
                }
            };
            if let (Some(norms), Some(before)) = (&mut norms, before) {
                norms.take_in(before, &after, first[index].value());
            }
            after
        })
    }

    /// The share that a step with learning rate `lr` takes off every weight.
    fn decay(&self, lr: f64) -> f64 {
        let OptimizerConfig { name, lr: initial_lr, weight_decay, .. } = self.config;
        match name {
            OptimizerName::AdamW => lr * weight_decay,
            OptimizerName::DecoupledAdamW | OptimizerName::DecoupledLionW => {
                let relative_lr = if initial_lr == 0.0 { 1.0 } else { lr / initial_lr };
                relative_lr * weight_decay
            }
        }
    }

    fn rule(&self, lr: f64) -> Rule {
        match self.config.name {
            OptimizerName::DecoupledAdamW | OptimizerName::AdamW => {
                Rule::AdamW(AdamW::new(&self.config, self.steps, lr))
            }
            OptimizerName::DecoupledLionW => Rule::Lion(Lion::new(&self.config, lr)),
        }
    }

    /// The first and the second moments, flat and shared with the optimizer.
    pub(crate) fn flat_moments(&self) -> [Vec<Tensor<1>>; 2] {
        [&self.first, &self.second].map(|averages| averages.iter().map(Average::value).collect())
    }

    /// The state, copied to the host.
    pub fn to_moments(&self) -> Moments {
        let named = |averages: &[Average]| {
            let averages = self.specs.iter().zip(averages);
            averages.map(|(spec, average)| spec.with_values(average.value())).collect()
        };
        Moments { steps: self.steps, first: named(&self.first), second: named(&self.second) }
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
        let first = in_parameter_order(&self.specs, moments.first)?;
        let second = in_parameter_order(&self.specs[..self.second.len()], moments.second)?;
        let on_device = |tensors: Vec<NamedTensor>| {
            let flat = tensors.into_iter().map(|tensor| {
                let len = tensor.values.len();
                Average(Tensor::from_data(TensorData::new(tensor.values, [len]), device))
            });
            flat.collect()
        };
        self.first = on_device(first);
        self.second = on_device(second);
        self.steps = moments.steps;
        Ok(())
    }
}

/// A running average of one parameter's gradients or of their squares, flat.
#[derive(Debug)]
pub(super) struct Average(Tensor<1>);

impl Average {
    /// Keeps the share `beta` of itself and takes in `value` for the rest.
    pub(super) fn take_in(&mut self, value: Tensor<1>, beta: f64) {
        let before = self.take();
        self.0 = before.mul_scalar(beta) + value.mul_scalar(1.0 - beta);
    }

    /// Itself, until [`put`](Self::put): taken out, it is unshared and can be updated in place.
    pub(super) fn take(&mut self) -> Tensor<1> {
        let device = self.0.device();
        std::mem::replace(&mut self.0, Tensor::empty([1], &device))
    }

    pub(super) fn put(&mut self, value: Tensor<1>) {
        self.0 = value;
    }

    pub(super) fn value(&self) -> Tensor<1> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny_config;

    const LR: f64 = 0.1;
    const WEIGHT_DECAY: f64 = 0.2;

    /// A large eps shows where it is added, a strong decay shows that it comes first.
    fn config(name: OptimizerName) -> OptimizerConfig {
        let eps = (name != OptimizerName::DecoupledLionW).then_some(0.3);
        OptimizerConfig { name, lr: LR, betas: [0.9, 0.95], eps, weight_decay: WEIGHT_DECAY }
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

    /// One element and its moments in f64.
    #[derive(Clone)]
    struct Element {
        p: f64,
        m: f64,
        v: f64,
        t: i32,
    }

    impl Element {
        fn adamw(&mut self, g: f64, lr: f64, decay: f64) {
            self.t += 1;
            self.p *= 1.0 - decay;
            self.m = 0.9 * self.m + 0.1 * g;
            self.v = 0.95 * self.v + 0.05 * g * g;
            let denominator = self.v.sqrt() / (1.0 - 0.95f64.powi(self.t)).sqrt() + 0.3;
            self.p -= lr / (1.0 - 0.9f64.powi(self.t)) * self.m / denominator;
        }

        fn lion(&mut self, g: f64, lr: f64, decay: f64) {
            self.p *= 1.0 - decay;
            let mixed = 0.9 * self.m + 0.1 * g;
            self.p -= lr * if mixed == 0.0 { 0.0 } else { mixed.signum() };
            self.m = 0.95 * self.m + 0.05 * g;
        }
    }

    /// Takes five steps, one of them at learning rate 0, beside `rule` in f64, which is given g and the learning rate.
    fn follows(name: OptimizerName, rule: impl Fn(&mut Element, f64, f64)) -> Moments {
        let (mut model, device) = tiny();
        let mut optimizer = Optimizer::new(config(name), &model, &device);
        let mut elements: Vec<Element> = model.to_named_tensors()[0]
            .values
            .iter()
            .map(|&p| Element { p: p.into(), m: 0.0, v: 0.0, t: 0 })
            .collect();
        for (gradient, lr) in [(0.0, 0.1), (0.5, 0.0), (-2.0, 0.05), (0.25, 0.1), (1.0, 0.02)] {
            model =
                optimizer.step(model.clone(), constant_gradients(&model, gradient, &device), lr);
            elements.iter_mut().for_each(|element| rule(element, gradient, lr));
        }
        for (p, element) in model.to_named_tensors()[0].values.iter().zip(&elements) {
            assert!((f64::from(*p) - element.p).abs() < 1e-6, "{p} against {}", element.p);
        }
        let moments = optimizer.to_moments();
        assert_eq!(moments.steps, 5);
        assert!((f64::from(moments.first[0].values[0]) - elements[0].m).abs() < 1e-6);
        if let Some(second) = moments.second.first() {
            assert!((f64::from(second.values[0]) - elements[0].v).abs() < 1e-6);
        }
        moments
    }

    #[test]
    fn decoupled_adamw_decays_by_the_shape_of_the_schedule() {
        follows(OptimizerName::DecoupledAdamW, |e, g, lr| e.adamw(g, lr, lr / LR * WEIGHT_DECAY));
    }

    #[test]
    fn plain_adamw_decays_by_the_learning_rate() {
        follows(OptimizerName::AdamW, |e, g, lr| e.adamw(g, lr, lr * WEIGHT_DECAY));
    }

    #[test]
    fn lion_moves_by_the_sign_and_has_one_moment() {
        let moments = follows(OptimizerName::DecoupledLionW, |e, g, lr| {
            e.lion(g, lr, lr / LR * WEIGHT_DECAY);
        });
        assert_eq!((moments.first.len(), moments.second.len()), (28, 0));
    }

    #[test]
    fn a_step_with_learning_rate_zero_moves_only_the_moments() {
        for name in OptimizerName::ALL {
            let (model, device) = tiny();
            let before = model.to_named_tensors();
            let mut optimizer = Optimizer::new(config(name), &model, &device);
            let gradients = constant_gradients(&model, 1.0, &device);
            let model = optimizer.step(model, gradients, 0.0);
            assert_eq!(model.to_named_tensors(), before);
            assert!(optimizer.to_moments().first[0].values[0] > 0.0);
        }
    }

    #[test]
    fn a_restored_optimizer_continues_bit_for_bit() {
        for name in OptimizerName::ALL {
            let (model, device) = tiny();
            let mut optimizer = Optimizer::new(config(name), &model, &device);
            let model =
                optimizer.step(model.clone(), constant_gradients(&model, 0.3, &device), 1e-2);
            let mut restored = Optimizer::new(config(name), &model, &device);
            restored.load_moments(optimizer.to_moments(), &device).unwrap();
            let gradients = constant_gradients(&model, -0.1, &device);
            let a = optimizer.step(model.clone(), gradients.clone(), 1e-2).to_named_tensors();
            let b = restored.step(model, gradients, 1e-2).to_named_tensors();
            assert_eq!(a, b);
            assert_eq!(optimizer.to_moments(), restored.to_moments());
        }
    }

    #[test]
    fn a_measured_step_is_the_same_step() {
        let norm =
            |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        for name in OptimizerName::ALL {
            let (model, device) = tiny();
            let gradients = || constant_gradients(&model, 0.3, &device);
            let new = || Optimizer::new(config(name), &model, &device);
            let (mut optimizer, mut measured) = (new(), new());
            let expected = optimizer.step(model.clone(), gradients(), 0.05).to_named_tensors();
            let mut norms = StepNorms::default();
            let after =
                measured.take_step(model.clone(), gradients(), 0.05, None, Some(&mut norms));
            assert_eq!(after.to_named_tensors(), expected);

            let before = model.to_named_tensors();
            let first = optimizer.to_moments().first;
            let [(_, moment), (_, param), (_, update)] = norms.read();
            for index in 0..expected.len() {
                let (after, before) = (&expected[index].values, &before[index].values);
                let change: Vec<f32> = after.iter().zip(before).map(|(a, b)| a - b).collect();
                for (measured, expected) in [
                    (moment[index], norm(&first[index].values)),
                    (param[index], norm(after)),
                    (update[index], norm(&change)),
                ] {
                    assert!(
                        (measured - expected).abs() <= 1e-5 * expected,
                        "{measured} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_broken_step_changes_nothing() {
        for name in OptimizerName::ALL {
            let (model, device) = tiny();
            let mut optimizer = Optimizer::new(config(name), &model, &device);
            let mut steps = |model: Gpt, value: f64, broken: bool| {
                let gradients = constant_gradients(&model, value, &device);
                let broken = Tensor::<1, Bool>::from_data([broken], &device);
                let model = optimizer.take_step(model, gradients, 0.05, Some(broken), None);
                let Moments { first, second, .. } = optimizer.to_moments();
                (model.clone(), model.to_named_tensors(), first, second)
            };
            let (model, parameters, first, second) = steps(model, 0.3, false);
            let (_, after, ..) = steps(model.clone(), 0.1, false);
            assert!(after != parameters);
            let (_, _, first_before, second_before) = steps(model.clone(), 0.2, false);
            let broken = steps(model, f64::NAN, true);
            assert_eq!((broken.1, broken.2, broken.3), (parameters, first_before, second_before));
            assert!(broken.0.to_named_tensors().len() == first.len().max(second.len()));
        }
    }

    #[test]
    fn moments_of_another_kind_of_optimizer_are_refused() {
        let (model, device) = tiny();
        let mut adamw = Optimizer::new(config(OptimizerName::AdamW), &model, &device);
        let mut lion = Optimizer::new(config(OptimizerName::DecoupledLionW), &model, &device);
        assert_eq!(
            adamw.load_moments(lion.to_moments(), &device).unwrap_err().to_string(),
            "tensor wte.weight is missing"
        );
        assert_eq!(
            lion.load_moments(adamw.to_moments(), &device).unwrap_err().to_string(),
            "tensor h.0.attn.c_attn.bias belongs to no parameter of the configured model"
        );
    }
}
