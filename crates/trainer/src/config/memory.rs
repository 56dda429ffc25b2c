//! What an optimizer step takes from the memory of its device, from the recipe alone: formulas, and nothing allocated.
//!
//! With `P` parameters ([`ModelConfig::n_params`]), `V` entries of the vocabulary, `C` = `d_model`, `F` hidden numbers of the
//! feed-forward, `H` heads, `L` blocks, and a microbatch of `B` rows of `T` tokens:
//!
//! | part | numbers | where they come from |
//! |---|---|---|
//! | weights | P | `model/gpt.rs` |
//! | moments | 2 P, or P | `optim/optimizer.rs`: what the optimizer averages |
//! | gradients | P, or 2 P | `train.rs`: those of a microbatch, and the sum of those before it where a step has several |
//! | activations, kept | L · [`block`] + 4 B T C | what automatic differentiation keeps from the forward for the backward: of the blocks, and of the final norm, its output and the gradient there (5 with dropout of the embeddings) |
//! | activations, recomputed | L B T C + [`block`] + 4 B T C | `recompute.rs`: the inputs of blocks, and one block at a time |
//! | working, at the head | 2 c V + 2 V C | `loss.rs`: logits and probabilities of `c` tokens at a time, at most [`CHUNK_TOKENS`] (3 c V if logits are capped), and the sum and the newest part of the gradient of the output projection |
//! | | c V + V C | the same on the CPU, where the gradient takes the place of the logits and products are added where they belong |
//! | | + V C on a GPU | a copy of the output projection, there also in the backward, where V is no multiple of 128: `model/gpt.rs` pads it |
//! | working, in a block | V C + B T F | that gradient, and the one inside the feed-forward; on the CPU also 2 B T C, those beside it and behind it |
//! | | or V C + B H T² | or the one at the probabilities of attention, where its scores are kept; Burn's products on the CPU allocate their result twice |
//!
//! A number is 4 bytes. In half precision (`precision: amp_bf16` on a GPU) what matrix products read and write is 2: then
//! these and a copy of their weights are kept in the place of 4-byte inputs.
//!
//! Not all of it exists at the same time. The most does when the backward begins, with all activations; or when it is in
//! the first block, with the gradients of all others; or when it ends, with all gradients.
//!
//! Left out is what does not grow with the model: the program, its threads, the tokenizer, rows read ahead; and on a GPU
//! what its allocator holds beside the tensors: what a device has is not asked for, so nothing is refused there. Evaluation
//! takes less than a step if `device_eval_batch_size` is not far above the microbatch. A checkpoint is copied to the host
//! from a GPU. On the CPU it shares weights and moments with the run until they are written: if that takes longer than to
//! the next step of the optimizer, those are in memory twice from there on until it is done.
//! On the CPU tests/step_memory.rs finds what is allocated within 7 % of this, and LOG.md what a process takes.

use indicatif::DecimalBytes;

use super::{Activation, BatchPlan, Config, FfnType, GeluKind, Microbatch, ModelConfig, Precision};
use crate::error::{Error, Result};
use crate::loss::CHUNK_TOKENS;
use crate::model::TENSOR_CORE_ROWS;
use crate::recompute::Activations;

/// Bytes of a parameter, a moment, a gradient, and of what norms, softmax and loss keep.
const FULL: f64 = 4.0;

/// Where a step is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The CPU: `crate::cpu` has fused operations for fp32; without them attention is differentiated operation by
    /// operation, and its scores are kept.
    Cpu,
    /// CUDA: fused attention has a backward of its own, which reads one number per query instead of the scores.
    Cuda,
}

/// How a step is computed, as far as its memory depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Rows of a microbatch.
    pub rows: usize,
    /// Tokens of a row.
    pub seq_len: usize,
    /// Microbatches of a step.
    pub microbatches: usize,
    /// Moments of each parameter.
    pub moments: usize,
    /// Where it is computed.
    pub engine: Engine,
    /// Whether matrix products are computed in half precision.
    pub is_half: bool,
    /// What becomes of activations until the backward.
    pub activations: Activations,
}

/// The bytes of each part of a step's memory, on one device; the module has the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepMemory {
    /// The parameters.
    pub weights: u64,
    /// Of a microbatch, and the sum of those before it where a step has several.
    pub gradients: u64,
    /// What the optimizer keeps.
    pub moments: u64,
    /// What is kept from the forward for the backward, if it is.
    pub kept: u64,
    /// The same if each block is computed again in the backward.
    pub recomputed: u64,
    /// What exists for a moment while all activations do.
    pub working: u64,
    /// The most at one time.
    pub peak: u64,
}

impl StepMemory {
    /// The memory of a step of `model`.
    pub fn new(model: &ModelConfig, step: &Step) -> Self {
        // In f64, which is exact up to 9 PB and overflows nowhere beyond.
        let [rows, seq, d, layers, vocab, hidden] = [
            step.rows,
            step.seq_len,
            model.d_model,
            model.n_layers,
            model.vocab_size,
            model.ffn_dim(),
        ]
        .map(|n| n as f64);
        let weights = FULL * model.n_params() as f64;
        let projection = FULL * vocab * d;
        let moments = step.moments as f64 * weights;
        let sum = if step.microbatches > 1 { weights } else { 0.0 };

        let residual = FULL * rows * seq * d;
        let block = block(model, step);
        let beside_the_blocks = if model.emb_pdrop > 0.0 { 5.0 } else { 4.0 } * residual;
        let kept = layers * block + beside_the_blocks;
        let inputs = layers * residual;

        let chunk = vocab * (CHUNK_TOKENS as f64).min(rows * seq);
        let (logits, projections) = match model.final_logit_softcapping {
            Some(_) => (3.0, 2.0),
            None if step.is_fused_on_cpu() => (1.0, 1.0),
            None => (2.0, 2.0),
        };
        let halves = if step.is_half { chunk + vocab * d } else { 0.0 };
        let at_head = FULL * logits * chunk + projections * projection + step.product() * halves;
        let copies = if step.engine == Engine::Cpu { 2.0 } else { 1.0 };
        let of_hidden = match step.is_fused_on_cpu() {
            true => rows * seq * (hidden + 2.0 * d),
            false => copies * rows * seq * hidden,
        };
        let product = of_hidden.max(copies * step.scores(model));
        let in_block = projection + step.product() * product;
        let is_padded =
            step.engine == Engine::Cuda && !model.vocab_size.is_multiple_of(TENSOR_CORE_ROWS);
        let padded = if is_padded { projection } else { 0.0 };

        let backward_begins = match step.activations {
            Activations::Kept => kept + at_head.max(in_block),
            Activations::Recomputed => {
                inputs + (beside_the_blocks + at_head).max(2.0 * residual + block + in_block)
            }
        };
        let in_first_block = residual + block + in_block + FULL * in_blocks(model);
        let of_gradients = backward_begins.max(in_first_block).max(weights);
        Self {
            weights: weights as u64,
            gradients: (weights + sum) as u64,
            moments: moments as u64,
            kept: kept as u64,
            recomputed: (inputs + block + beside_the_blocks) as u64,
            working: (at_head.max(in_block) + padded) as u64,
            peak: (weights + moments + sum + padded + of_gradients) as u64,
        }
    }
}

impl Step {
    /// Bytes of a number in a matrix product.
    fn product(&self) -> f64 {
        if self.is_half { 2.0 } else { FULL }
    }

    /// Pairs of a query and a key in all heads, where their scores are kept; none where attention is fused.
    fn scores(&self, model: &ModelConfig) -> f64 {
        let [rows, seq, heads] = [self.rows, self.seq_len, model.n_heads].map(|n| n as f64);
        let is_capped = model.attn_config.attn_logit_softcapping.is_some();
        let is_fused = match self.engine {
            Engine::Cuda => !self.composes_attention(model),
            Engine::Cpu => self.is_fused_on_cpu() && !is_capped && !self.composes_attention(model),
        };
        if is_fused { 0.0 } else { rows * heads * seq * seq }
    }

    /// Whether it is computed in `crate::cpu`, as far as that goes.
    fn is_fused_on_cpu(&self) -> bool {
        self.engine == Engine::Cpu && !self.is_half
    }

    /// Whether attention takes the composed route of `model/attention.rs`.
    fn composes_attention(&self, model: &ModelConfig) -> bool {
        let attention = &model.attn_config;
        let has_window = attention.sliding_window_size.is_some_and(|size| size + 1 < self.seq_len);
        let is_plain = !attention.alibi && !attention.attn_uses_sequence_id && !has_window;
        model.attn_impl == "torch" || !is_plain || model.attn_pdrop > 0.0
    }
}

/// Parameters of all blocks: all but the embeddings, the output projection and the final norm, which is little.
fn in_blocks(model: &ModelConfig) -> f64 {
    let tables = if model.tie_word_embeddings { 1 } else { 2 } * model.vocab_size
        + if model.learned_pos_emb { model.max_seq_len } else { 0 };
    model.n_params() as f64 - tables as f64 * model.d_model as f64
}

/// Bytes that automatic differentiation keeps of one block, from its forward in `model/block.rs` to its backward.
///
/// | operation | keeps, per token |
/// |---|---|
/// | each norm | 2 C: the differences from the mean (or the input), and these divided by the deviation; on the CPU its input alone |
/// | norms of queries and keys | the same of their widths |
/// | dropout on each residual branch | C: its mask |
/// | limit on queries, keys and values | two masks of one byte for each |
/// | each linear layer | its input: C into attention, C out of it, C into the feed-forward, F out of it; on the CPU not the outputs of norms, where only one layer reads them |
/// | feed-forward | see [`feed_forward`] |
/// | attention | see [`attention`] |
///
/// The last three in the bytes of matrix products; in half precision also the copies of weights, and the gate has an input
/// of its own. Not counted is what attention hides of later tokens, one byte per pair, and what is one number per row of
/// a matrix.
fn block(model: &ModelConfig, step: &Step) -> f64 {
    let [rows, seq, d, kv, hidden] =
        [step.rows, step.seq_len, model.d_model, model.kv_dim(), model.ffn_dim()].map(|n| n as f64);
    let has_gate = model.ffn_config.ffn_type == FfnType::Glu;
    let of_norm = if step.engine == Engine::Cpu { 1.0 } else { 2.0 };
    let norms = 2.0 * of_norm * d;
    let norms_heads = model.attn_config.qk_ln || model.attn_config.qk_gn;
    let query_and_key_norms = if norms_heads { of_norm * (d + kv) } else { 0.0 };
    let masks = if model.resid_pdrop > 0.0 { 2.0 * d } else { 0.0 };
    let full = FULL * (norms + query_and_key_norms + masks);
    let limits = if model.attn_config.clip_qkv.is_some() { 2.0 * (d + 2.0 * kv) } else { 0.0 };

    let input_of_gate = if step.is_half && has_gate { d } else { 0.0 };
    // On the CPU what norms give is computed again, but for a gate, which reads it as well.
    let normed = match (step.is_fused_on_cpu(), has_gate) {
        (false, _) => 2.0 * d,
        (true, gate) => f64::from(u8::from(gate)) * d,
    };
    let inputs = normed + d + hidden + input_of_gate;
    let products = step.product() * (inputs + feed_forward(model, step));
    let weights = if step.is_half { in_blocks(model) / model.n_layers as f64 } else { 0.0 };
    rows * seq * (full + limits + products) + step.product() * weights + attention(model, step)
}

/// Numbers per token that are kept between the layers of the feed-forward, beside the input of the last layer. The
/// function keeps its input, and what it is composed of: the sigmoid, or the cube's sum and the tanh. A gate's product
/// keeps both factors. On the CPU, without a gate, the last layer keeps what the function reads in the place of its input.
fn feed_forward(model: &ModelConfig, step: &Step) -> f64 {
    if step.is_fused_on_cpu() && model.ffn_config.ffn_type == FfnType::Mlp {
        return 0.0;
    }
    let function = match model.ffn_config.ffn_act_fn {
        Activation::Gelu { approximate: GeluKind::None } | Activation::Relu => 1,
        Activation::Silu => 2,
        Activation::Gelu { approximate: GeluKind::Tanh } => 3,
    };
    let factors = match model.ffn_config.ffn_type {
        FfnType::Mlp => 0,
        FfnType::Glu => 2,
    };
    f64::from(function + factors) * model.ffn_dim() as f64
}

/// Bytes that are kept of attention, by the route that `model/attention.rs` takes:
///
/// * fused, with a backward of its own: queries, keys, values and the output, and one number per query and head. On the
///   CPU the output is what the next layer reads, and values are kept with the projection that they are part of.
/// * operation by operation: queries, keys and values, and for each query and key of a head the score without the
///   row's maximum, its exponential and the probability; with soft-capping the score before it, with dropout the mask.
///   The composed route repeats shared heads of keys and values, and has all but the probability in full precision.
fn attention(model: &ModelConfig, step: &Step) -> f64 {
    let [rows, seq, d, kv, heads] =
        [step.rows, step.seq_len, model.d_model, model.kv_dim(), model.n_heads].map(|n| n as f64);
    let (product, scores) = (step.product(), step.scores(model));
    if scores == 0.0 && step.is_fused_on_cpu() {
        let attention = &model.attn_config;
        let as_projected = !attention.rope && !attention.qk_ln && !attention.qk_gn;
        let queries_and_keys = if as_projected { 0.0 } else { d + kv };
        return rows * seq * FULL * (d + 2.0 * kv + queries_and_keys + heads);
    }
    if scores == 0.0 {
        return rows * seq * (product * (2.0 * d + 2.0 * kv) + FULL * heads);
    }
    let is_composed = step.composes_attention(model);
    let keys_and_values = if is_composed { 2.0 * d } else { 2.0 * kv };
    let softmax = if is_composed { FULL } else { product };
    let beside = [model.attn_config.attn_logit_softcapping.is_some(), model.attn_pdrop > 0.0];
    let beside = beside.into_iter().filter(|is_there| *is_there).count() as f64;
    product * rows * seq * (d + keys_and_values) + scores * ((2.0 + beside) * softmax + product)
}

/// Parameters that no memory holds; below, the formulas of whole numbers do not overflow.
const TOO_MANY: f64 = 1e17;

impl ModelConfig {
    /// Refuses sizes that cannot even be counted.
    pub(crate) fn check_size(&self) -> Result<()> {
        let [d, ratio, layers, vocab, positions] =
            [self.d_model, self.mlp_ratio, self.n_layers, self.vocab_size, self.max_seq_len]
                .map(|n| n as f64);
        let hidden = self.ffn_config.ffn_hidden_size.map_or(ratio * d, |hidden| hidden as f64);
        let about = layers * d * (4.0 * d + 3.0 * hidden) + d * (2.0 * vocab + positions);
        if about < TOO_MANY {
            return Ok(());
        }
        Err(Error::Config(format!(
            "the model would have about {about:.0e} parameters; lower model.d_model, model.n_layers, model.vocab_size, \
             model.max_seq_len or the width of the feed-forward"
        )))
    }
}

impl Config {
    /// The memory of this run's steps on one device, split into microbatches as `plan` says.
    pub fn step_memory(&self, plan: &BatchPlan, engine: Engine) -> StepMemory {
        StepMemory::new(&self.model, &self.step(plan, plan.microbatch, engine))
    }

    fn step(&self, plan: &BatchPlan, rows: usize, engine: Engine) -> Step {
        Step {
            rows,
            seq_len: self.train_loader.dataset.max_seq_len,
            microbatches: plan.device_batch.div_ceil(rows),
            moments: self.optimizer.name.moments(),
            engine,
            // As `device::arithmetic` decides.
            is_half: engine == Engine::Cuda && self.precision != Precision::Fp32,
            activations: self.activations(),
        }
    }

    /// `plan` if its steps take at most the `available` bytes; with `device_train_microbatch_size: auto` the microbatch is
    /// halved until they do, for a CPU's allocator ends the process where that of a GPU reports what can be tried anew.
    ///
    /// # Errors
    /// Both figures, and what would fit, if anything would.
    pub fn plan_within(
        &self,
        mut plan: BatchPlan,
        engine: Engine,
        available: u64,
    ) -> Result<BatchPlan> {
        let asked = self.step(&plan, plan.microbatch, engine);
        let needed = StepMemory::new(&self.model, &asked).peak;
        if needed <= available {
            return Ok(plan);
        }
        let fits = |rows, activations| {
            let step = Step { activations, ..self.step(&plan, rows, engine) };
            StepMemory::new(&self.model, &step).peak <= available
        };
        let is_auto = self.device_train_microbatch_size == Microbatch::Auto;
        let mut rows = asked.rows;
        while is_auto && rows > 1 {
            rows = rows.div_ceil(2);
            if fits(rows, asked.activations) {
                plan.notice = Some(format!(
                    "device_train_microbatch_size is {rows}: {} rows take about {} of memory, and {} are available",
                    asked.rows,
                    DecimalBytes(needed),
                    DecimalBytes(available)
                ));
                return Ok(plan.with_microbatch(rows));
            }
        }

        let most_rows = |activations| match fits(asked.rows, activations) {
            true => Some(asked.rows),
            // Below that every microbatch is one of several, so that fewer rows take less.
            false => largest(asked.rows, |rows| fits(rows, activations)),
        };
        let checkpointing = "set fsdp_config.activation_checkpointing=true";
        let remedy = match (most_rows(asked.activations), most_rows(Activations::Recomputed)) {
            (Some(rows), _) => format!("set device_train_microbatch_size={rows}"),
            (None, Some(rows)) if is_auto || rows == asked.rows => checkpointing.to_owned(),
            (None, Some(rows)) => {
                format!("{checkpointing} and device_train_microbatch_size={rows}")
            }
            (None, None) => {
                "take a smaller model or a shorter max_seq_len, or a machine with more memory"
                    .to_owned()
            }
        };
        // What was tried last.
        let needed = StepMemory::new(&self.model, &self.step(&plan, rows, engine)).peak;
        let tokens = asked.seq_len;
        let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
        Err(Error::Config(format!(
            "a step takes about {} of memory with a microbatch of {rows} of {tokens} tokens, but {} are available; {remedy}",
            DecimalBytes(needed),
            DecimalBytes(available),
        )))
    }
}

/// The largest number from 1 to below `end` that `fits`, where any smaller one fits as well.
fn largest(end: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut below, mut end) = (0, end);
    while end - below > 1 {
        let middle = below + (end - below) / 2;
        if fits(middle) { below = middle } else { end = middle }
    }
    (below > 0).then_some(below)
}
