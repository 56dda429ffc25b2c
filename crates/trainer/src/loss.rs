//! Cross-entropy over the vocabulary, with its gradient, without the graph.
//!
//! The logits of a batch are by far its largest activation (`batch·seq × vocab`, 400 MB for 2,048 tokens of GPT-2's
//! vocabulary), and the usual log-softmax and gather keep several copies of them until the backward. So the head is
//! taken out of the graph: for a few hundred tokens at a time it computes the logits, their loss, and at once the
//! gradients with respect to the hidden states and to the output projection (the tied embedding, or one of its own),
//!
//! ```text
//! dlogits = (softmax(logits) − onehot(label)) · weight / tokens,   dhidden = dlogits · W,   dW = dlogitsᵀ · hidden
//! ```
//!
//! and throws the logits away. The rest of the model is then differentiated by Burn from `dhidden`: the gradient of
//! `sum(hidden · constant)` with respect to `hidden` is that constant.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::config::ModelConfig;
use crate::cpu;
use crate::data::{IGNORED, TokenBatch};
use crate::model::{Dropout, Gpt, Head};
use crate::optim::Gradients;
use crate::recompute::{Activations, kept_backward, recomputed_backward};

/// Tokens whose logits exist at the same time.
pub(crate) const CHUNK_TOKENS: usize = 512;

/// The token ids on `device`, `[rows, seq_len]`.
fn ids(batch: &TokenBatch, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(batch.tokens.clone(), [batch.rows, batch.seq_len]), device)
}

/// Loss and gradients of some rows.
///
/// The loss is the mean over the rows' targets, times `weight`: the share of the batch's targets (or rows) that these rows
/// have. Without a single target it is 0.
///
/// The loss stays on the device, `[1]`: reading it waits for the computation.
pub fn loss_and_gradients(
    model: &Gpt,
    batch: &TokenBatch,
    weight: f64,
    dropout: &mut Dropout,
    activations: Activations,
) -> (Tensor<1>, Gradients) {
    let head = model.head();
    let tokens = ids(batch, &head.weight.device());
    let scale = weight / batch.labelled().max(1) as f64;
    let head = head.inner();
    let mut of_loss = None;
    let of_hidden = |hidden: Tensor<3>| {
        let (loss, hidden_grad, head_grad) = head.gradients_at(hidden, &batch.labels, scale);
        of_loss = Some((loss, head_grad));
        hidden_grad
    };
    let backward = match activations {
        Activations::Kept => kept_backward(model, tokens.clone(), dropout, of_hidden),
        Activations::Recomputed => recomputed_backward(model, tokens.clone(), dropout, of_hidden),
    };
    let (loss, head_grad) = of_loss.expect("the head is asked once in each pass");
    (loss, model.gradients(tokens, backward, head_grad))
}

/// Sum of the losses of all targets, in nats, and their number; on a model without autodiff
/// ([`Module::valid`](burn::module::Module::valid)), so that no graph is recorded.
pub fn summed_loss(model: &Gpt, batch: &TokenBatch) -> (f64, u64) {
    let head = model.head();
    let hidden = model.hidden(ids(batch, &head.weight.device()), &mut Dropout::off()); // [B, T, C]
    let [rows, seq_len, d_model] = hidden.dims();
    let hidden = hidden.reshape([rows * seq_len, d_model]); // [B·T, C]
    let loss = match head.logit_scale_on_cpu(&hidden) {
        Some(scale) => cpu::summed_loss(hidden, head.weight.clone(), &batch.labels, scale),
        None => head.loss(hidden, &batch.labels).into_scalar::<f32>().into(),
    };
    (loss, batch.labelled() as u64)
}

impl Head<'_> {
    /// The scaled loss of hidden states `[batch, seq, d_model]`, its gradient there, and at the head's weight.
    fn gradients_at(
        &self,
        hidden: Tensor<3>,
        labels: &[i32],
        scale: f64,
    ) -> (Tensor<1>, Tensor<3>, Tensor<2>) {
        let [rows, seq_len, d_model] = hidden.dims();
        let flat = hidden.reshape([rows * seq_len, d_model]); // [B·T, C]
        let (loss, hidden_grad, head_grad) = match self.logit_scale_on_cpu(&flat) {
            Some(logit_scale) => {
                let weight = self.weight.clone();
                cpu::loss_and_gradients(flat, weight, labels, logit_scale, scale)
            }
            None => self.loss_and_gradients(flat, labels, scale),
        };
        (loss, hidden_grad.reshape([rows, seq_len, d_model]), head_grad)
    }

    /// What logits are multiplied by, where [`cpu`] computes the loss of hidden states like these.
    fn logit_scale_on_cpu(&self, hidden: &Tensor<2>) -> Option<f64> {
        let is_capped = self.config.final_logit_softcapping.is_some();
        let is_plain = self.dtype == FloatDType::F32 && self.mask.is_none() && !is_capped;
        // There the largest logit is found before it is scaled.
        let scale = self.config.logit_scale.unwrap_or(1.0);
        (cpu::computes(hidden) && is_plain && scale > 0.0).then_some(scale)
    }

    /// # Shapes
    ///
    /// - hidden: `[tokens, d_model]`
    /// - output: the scaled loss `[1]`, its gradients `[tokens, d_model]` and `[vocab_size, d_model]`
    fn loss_and_gradients(
        &self,
        hidden: Tensor<2>,
        labels: &[i32],
        scale: f64,
    ) -> (Tensor<1>, Tensor<2>, Tensor<2>) {
        let mut loss = Tensor::zeros([1], &hidden.device());
        let mut hidden_grads = Vec::new();
        let mut weight_grad: Option<Tensor<2>> = None;
        for (start, labels) in chunks(labels) {
            let hidden = hidden.clone().narrow(0, start, labels.len()); // [N, C]
            let targets = Targets::new(labels, scale, &hidden.device());
            let (chunk_loss, probabilities, slope) = self.chunk(hidden.clone(), &targets);
            loss = loss + chunk_loss;

            // (softmax − onehot) · weight
            let minus_one = targets.weight.ones_like().neg(); // [N, 1]
            let logit_grad =
                probabilities.scatter(1, targets.label, minus_one, IndexingUpdateOp::Add); // [N, V]
            let logit_grad = slope.through(logit_grad * targets.weight).cast(self.dtype); // [N, V]
            let weight = self.weight.clone().cast(self.dtype); // [V, C]
            hidden_grads.push(logit_grad.clone().matmul(weight).cast(FloatDType::F32)); // [N, C]
            let grad = logit_grad.transpose().matmul(hidden.cast(self.dtype)); // [V, C]
            let grad = grad.cast(FloatDType::F32);
            weight_grad = Some(match weight_grad {
                Some(sum) => sum + grad,
                None => grad,
            });
        }
        let weight_grad = weight_grad.unwrap_or_else(|| self.weight.zeros_like());
        (loss, Tensor::cat(hidden_grads, 0), self.of_vocabulary(0, weight_grad))
    }

    /// Unscaled sum of the losses, `[1]`.
    fn loss(&self, hidden: Tensor<2>, labels: &[i32]) -> Tensor<1> {
        let device = hidden.device();
        chunks(labels).fold(Tensor::zeros([1], &device), |loss, (start, labels)| {
            let targets = Targets::new(labels, 1.0, &device);
            loss + self.chunk(hidden.clone().narrow(0, start, labels.len()), &targets).0
        })
    }

    /// Weighted sum of the losses `[1]` and the probabilities `[N, V]` of one chunk's tokens `[N, C]`.
    fn chunk(&self, hidden: Tensor<2>, targets: &Targets) -> (Tensor<1>, Tensor<2>, Slope) {
        let logits = self.logits(hidden); // [N, V]
        let slope = Slope::at(&logits, self.config);
        let largest = logits.clone().max_dim(1); // [N, 1]
        let of_label = logits.clone().gather(1, targets.label.clone()); // [N, 1]
        let probabilities = softmax(logits, 1); // [N, V]
        // The largest probability is exp(0) / Σ exp(logit − largest), so logsumexp = largest − ln(it): no second pass of
        // exponentials, and unlike ln(probability of the label) it never underflows.
        let logsumexp = largest - probabilities.clone().max_dim(1).log(); // [N, 1]
        let loss = (logsumexp - of_label) * targets.weight.clone(); // [N, 1]
        (loss.sum(), probabilities, slope)
    }
}

/// How much a logit grows with the product that it is made of.
struct Slope {
    scale: Option<f64>,
    /// `1 − tanh²` of what was squashed, `[N, V]`.
    capped: Option<Tensor<2>>,
}

impl Slope {
    fn at(logits: &Tensor<2>, config: &ModelConfig) -> Self {
        let tanh = |cap: f64| logits.clone().div_scalar(cap);
        let capped = config.final_logit_softcapping.map(|cap| -tanh(cap).square() + 1.0);
        Self { scale: config.logit_scale, capped }
    }

    /// The gradient at the products from that at the logits, `[N, V]`.
    fn through(self, gradient: Tensor<2>) -> Tensor<2> {
        let gradient = match self.capped {
            Some(slope) => gradient * slope,
            None => gradient,
        };
        match self.scale {
            Some(scale) => gradient.mul_scalar(scale),
            None => gradient,
        }
    }
}

/// Start and labels of each chunk.
fn chunks(labels: &[i32]) -> impl Iterator<Item = (usize, &[i32])> {
    labels.chunks(CHUNK_TOKENS).enumerate().map(|(i, chunk)| (i * CHUNK_TOKENS, chunk))
}

/// One chunk's labels on the device.
struct Targets {
    /// `[N, 1]`; 0 where there is no target.
    label: Tensor<2, Int>,
    /// `[N, 1]`; the scale, or 0 where there is no target.
    weight: Tensor<2>,
}

impl Targets {
    fn new(labels: &[i32], scale: f64, device: &Device) -> Self {
        let shape = [labels.len(), 1];
        let label: Vec<i32> = labels.iter().map(|&label| label.max(0)).collect();
        let weight: Vec<f32> =
            labels.iter().map(|&label| if label == IGNORED { 0.0 } else { scale as f32 }).collect();
        Self {
            label: Tensor::from_data(TensorData::new(label, shape), device),
            weight: Tensor::from_data(TensorData::new(weight, shape), device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny_config;
    use burn::module::Module;
    use burn::tensor::activation::log_softmax;

    use crate::model::collect_gradients;

    fn config() -> ModelConfig {
        ModelConfig {
            vocab_size: 31,
            max_seq_len: 300,
            d_model: 16,
            init_std: 0.2,
            ..tiny_config()
        }
    }

    /// 3 rows of 300 tokens: more than one chunk, the last one not full, some labels ignored.
    fn batch() -> TokenBatch {
        let tokens: Vec<i32> = (0..900).map(|i| (i * i + 7 * i) % 31).collect();
        let mut batch = TokenBatch::new(300);
        tokens.chunks(300).for_each(|row| batch.push(row, 0));
        batch.labels[4] = IGNORED;
        batch
    }

    /// The textbook way: log-softmax and gather on the graph.
    fn on_the_graph(model: &Gpt, batch: &TokenBatch) -> (f32, Vec<Vec<f32>>) {
        let device = model.wte.weight.device();
        let logits = model.logits(model.hidden(ids(batch, &device), &mut Dropout::off()));
        let log_probabilities = log_softmax(logits.reshape([900, 31]), 1);
        let targets = Targets::new(&batch.labels, 1.0, &device.clone().inner());
        let label = Tensor::from_inner(targets.label);
        let weight = Tensor::from_inner(targets.weight);
        let loss = (log_probabilities.gather(1, label) * weight)
            .sum()
            .neg()
            .div_scalar(batch.labelled() as f64);
        let mut gradients = loss.backward();
        let gradients = collect_gradients(model, &mut gradients);
        (
            loss.into_scalar::<f32>(),
            gradients.into_iter().map(|g| g.into_data().try_to_vec().unwrap()).collect(),
        )
    }

    #[test]
    fn loss_and_gradients_equal_those_of_log_softmax_on_the_graph() {
        for logit_scale in [None, Some(3.0), Some(-3.0)] {
            agrees_with_the_graph(&ModelConfig { logit_scale, ..config() });
        }
    }

    fn agrees_with_the_graph(config: &ModelConfig) {
        let model = Gpt::init(config, 3, &Device::flex().autodiff());
        let batch = batch();
        let (expected_loss, expected) = on_the_graph(&model, &batch);
        let (loss, gradients) =
            loss_and_gradients(&model, &batch, 1.0, &mut Dropout::off(), Activations::Kept);
        assert!((loss.into_scalar::<f32>() - expected_loss).abs() < 1e-6 * expected_loss);
        for ((gradient, expected), spec) in
            gradients.into_flat().into_iter().zip(&expected).zip(model.parameters())
        {
            let gradient: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
            let worst =
                gradient.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-6, "{}: largest difference {worst}", spec.name);
        }
    }

    /// bf16 has 8 bits: each product is off by up to 0.4 %, sums of many by less.
    #[test]
    fn bf16_is_near_fp32_and_its_gradients_are_fp32() {
        for attn_impl in ["flash", "torch"] {
            let mut config = ModelConfig { attn_impl: attn_impl.into(), ..config() };
            config.attn_config.rope = true;
            config.attn_config.qk_ln = true;
            let model = Gpt::init(&config, 3, &Device::flex().autodiff());
            let compute = |model: &Gpt| {
                let activations = Activations::Kept;
                let (loss, gradients) =
                    loss_and_gradients(model, &batch(), 1.0, &mut Dropout::off(), activations);
                (loss.into_scalar::<f32>(), gradients)
            };
            let (loss, gradients) = compute(&model);
            let (half_loss, half) = compute(&model.computing_in(FloatDType::BF16));
            assert!(loss != half_loss && (loss - half_loss).abs() < 5e-3 * loss, "{half_loss}");
            let distance = gradients.clone().accumulate(half.clone().scaled(-1.0)).global_norm();
            assert!(distance < 0.03 * gradients.global_norm(), "gradients are off by {distance}");
            let types = half.into_flat().into_iter().map(|gradient| gradient.dtype());
            assert!(types.into_iter().all(|dtype| dtype == burn::tensor::DType::F32));
        }
    }

    /// Rows of zeros below the head change nothing: neither loss and gradients, nor logits, nor what parameters there are.
    #[test]
    fn a_padded_head_computes_the_same() {
        let capped = ModelConfig { final_logit_softcapping: Some(0.5), ..config() };
        let untied = ModelConfig { tie_word_embeddings: false, logit_scale: Some(0.7), ..config() };
        for config in [config(), capped, untied] {
            let model = Gpt::init(&config, 3, &Device::flex().autodiff());
            let padded = model.clone().with_head_rows(16);
            assert_eq!(padded.head().weight.dims(), [32, 16]);
            assert_eq!(padded.to_named_tensors(), model.to_named_tensors());
            let compute = |model: &Gpt| {
                let activations = Activations::Kept;
                loss_and_gradients(model, &batch(), 1.0, &mut Dropout::off(), activations)
            };
            let ((loss, expected), (padded_loss, gradients)) = (compute(&model), compute(&padded));
            assert!((loss.clone() - padded_loss).abs().into_scalar::<f32>() < 1e-6);
            for (gradient, expected) in gradients.into_flat().into_iter().zip(expected.into_flat())
            {
                assert_eq!(gradient.dims(), expected.dims());
                assert!((gradient - expected).abs().max().into_scalar::<f32>() < 1e-6);
            }
            let (model, padded) = (model.valid(), padded.valid());
            assert!(
                (summed_loss(&padded, &batch()).0 - summed_loss(&model, &batch()).0).abs() < 1e-3
            );
            let hidden = || model.hidden(ids(&batch(), &Device::flex()), &mut Dropout::off());
            let difference = padded.logits(hidden()) - model.logits(hidden());
            assert!(difference.abs().max().into_scalar::<f32>() < 1e-6);
        }
    }

    #[test]
    fn two_weighted_microbatches_make_the_gradient_of_the_batch() {
        let model = Gpt::init(&config(), 3, &Device::flex().autodiff());
        let mut batch = batch();
        batch.labels[4] = 0; // now each row has as many targets, so weights by rows are exact
        let rows = |from: usize, to: usize| {
            let weight = (to - from) as f64 / 3.0;
            loss_and_gradients(
                &model,
                &batch.slice(from..to),
                weight,
                &mut Dropout::off(),
                Activations::Kept,
            )
        };
        let (loss, whole) = rows(0, 3);
        let ((loss_a, a), (loss_b, b)) = (rows(0, 2), rows(2, 3));
        assert!((loss - loss_a - loss_b).into_scalar::<f32>().abs() < 1e-6);
        let sum = a.accumulate(b);
        for (whole, sum) in whole.into_flat().into_iter().zip(sum.into_flat()) {
            let worst = (whole - sum).abs().max().into_scalar::<f32>();
            assert!(worst < 2e-6, "largest difference {worst}");
        }
    }

    #[test]
    fn evaluation_counts_targets_and_agrees_with_training() {
        let model = Gpt::init(&config(), 3, &Device::flex());
        let batch = batch();
        let (sum, count) = summed_loss(&model, &batch);
        assert_eq!(count, 896);
        let trained = Gpt::init(&config(), 3, &Device::flex().autodiff());
        let (mean, _) =
            loss_and_gradients(&trained, &batch, 1.0, &mut Dropout::off(), Activations::Kept);
        assert!((sum / 896.0 - f64::from(mean.into_scalar::<f32>())).abs() < 1e-5);
    }

    #[test]
    fn the_loss_stays_finite_where_a_probability_underflows() {
        let weight = Tensor::from_floats([[100.0], [-100.0]], &Device::flex());
        let head = Head { weight, mask: None, config: &tiny_config(), dtype: FloatDType::F32 };
        let hidden = Tensor::from_floats([[3.0]], &Device::flex());
        let loss = head.loss(hidden.clone(), &[1]).into_scalar::<f32>();
        let on_cpu = cpu::summed_loss(hidden, head.weight, &[1], 1.0);
        assert_eq!((loss, on_cpu), (600.0, 600.0));
    }
}
