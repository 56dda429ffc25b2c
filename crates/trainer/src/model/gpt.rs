//! The model itself: embeddings, blocks, final norm, head.

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, FloatDType, Gradients as Graph, IndexingUpdateOp, Int, Tensor};

use super::block::{Block, KeysAndValues};
use super::init::Initializer;
use super::norm::Norm;
use super::parameters::flatten;
use super::{Dropout, Pass, collect_gradients};
use crate::config::ModelConfig;
use crate::device;
use crate::optim::Gradients;

/// The keys and values of the tokens that a model has seen.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    blocks: Vec<KeysAndValues>,
    /// How many tokens that are.
    tokens: usize,
}

/// A decoder-only transformer.
#[derive(Module, Debug)]
pub struct Gpt {
    /// Token embedding `[V, C]`; also the output projection where the head is tied.
    pub(crate) wte: Embedding,
    /// Position embedding `[S, C]`.
    wpe: Option<Embedding>,
    h: Vec<Block>,
    ln_f: Norm,
    /// The output projection `[V, C]` where it is not tied.
    lm_head: Option<Embedding>,
    #[module(skip)]
    config: ModelConfig,
    /// What matrix products are computed in; parameters are f32.
    #[module(skip)]
    dtype: FloatDType,
    /// The head's products have a multiple of so many rows: see [`Head`].
    #[module(skip)]
    head_rows: usize,
}

/// Rows that tensor cores take at once: with GPT-2's vocabulary 50,304 in the place of 50,257.
pub(crate) const TENSOR_CORE_ROWS: usize = 128;

impl Gpt {
    /// A model with fresh parameters from `seed`; trainable where `device` has autodiff.
    pub fn init(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        let mut init = Initializer::new(config, seed, device);
        // The order of these draws is what a seed means: see init.rs.
        Self {
            wte: init.embedding(config.vocab_size),
            wpe: config.learned_pos_emb.then(|| init.embedding(config.max_seq_len)),
            h: (0..config.n_layers).map(|_| Block::init(config, &mut init, device)).collect(),
            ln_f: Norm::init(config, config.d_model, device),
            lm_head: (!config.tie_word_embeddings).then(|| init.head()),
            config: config.clone(),
            dtype: FloatDType::F32,
            head_rows: if device::is_cpu(&device.clone().inner()) { 1 } else { TENSOR_CORE_ROWS },
        }
    }

    /// The same model, which computes its matrix products in `dtype`.
    #[must_use]
    pub fn computing_in(mut self, dtype: FloatDType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The same model, whose head is padded as on a device that wants a multiple of `rows`.
    #[cfg(test)]
    pub(crate) fn with_head_rows(mut self, rows: usize) -> Self {
        self.head_rows = rows;
        self
    }

    /// The configuration the model was made from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The activations that the head reads: embeddings, blocks, final norm.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, seq]`, ids below `vocab_size`; seq at most `max_seq_len` where positions are learned
    /// - output: `[batch, seq, d_model]`
    pub fn hidden(&self, tokens: Tensor<2, Int>, dropout: &mut Dropout) -> Tensor<3> {
        let looked_up = embed(&self.wte, self.wpe.as_ref(), tokens.clone(), 0); // [B, T, C]
        self.hidden_from(looked_up, &tokens, dropout)
    }

    /// The same, of what was [`looked_up`](Self::looked_up).
    pub(crate) fn hidden_from(
        &self,
        looked_up: Tensor<3>,
        tokens: &Tensor<2, Int>,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let pass = Pass::of(&self.config, self.dtype, tokens, 0);
        let x = self.embedded(looked_up, dropout);
        let block = |x, block: &Block| block.forward(x, &pass, None, dropout);
        self.normed(self.h.iter().fold(x, block))
    }

    /// Tokens `[B, T]` with their positions, `[B, T, C]`, where the graph begins: see [`Backward`].
    pub(crate) fn looked_up(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let (wte, wpe) = (self.wte.valid(), self.wpe.valid());
        Tensor::from_inner(embed(&wte, wpe.as_ref(), tokens.inner(), 0)).require_grad()
    }

    /// What the first block reads, of what was looked up, `[B, T, C]`.
    pub(crate) fn embedded(&self, looked_up: Tensor<3>, dropout: &mut Dropout) -> Tensor<3> {
        let x = shrink_gradient(looked_up, self.config.embedding_fraction);
        dropout.apply(x, self.config.emb_pdrop)
    }

    /// What the head reads, of what the last block gives, `[B, T, C]`.
    pub(crate) fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        self.ln_f.forward(x)
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.h
    }

    pub(crate) fn dtype(&self) -> FloatDType {
        self.dtype
    }

    /// All gradients, in parameter order.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, seq]`
    /// - of_head: `[vocab_size, d_model]`, at the output projection
    pub(crate) fn gradients(
        &self,
        tokens: Tensor<2, Int>,
        backward: Backward,
        of_head: Tensor<2>,
    ) -> Gradients {
        let Backward { at_tables, of_blocks, of_norm } = backward;
        let [batch, seq, d_model] = at_tables.dims();
        let tokens = tokens.inner().reshape([batch * seq]); // [B·T]
        let (tied, untied) = match self.lm_head {
            None => (of_head, None),
            Some(_) => (of_head.zeros_like(), Some(flatten(of_head))),
        };
        let rows = at_tables.clone().reshape([batch * seq, d_model]); // [B·T, C]
        // Into the gradient that is there: a second one would be as large as the table.
        let of_tokens = tied.select_assign(0, tokens, rows, IndexingUpdateOp::Add); // [V, C]
        let of_positions = self.wpe.as_ref().map(|wpe| {
            let of_seen = at_tables.sum_dim(0).reshape([seq, d_model]); // [T, C]
            let [max_seq_len, _] = wpe.weight.dims();
            let unseen = Tensor::zeros([max_seq_len - seq, d_model], &of_seen.device());
            flatten(if seq == max_seq_len {
                of_seen
            } else {
                Tensor::cat(vec![of_seen, unseen], 0)
            })
        });
        let of_tables = [flatten(of_tokens)].into_iter().chain(of_positions);
        Gradients::new(of_tables.chain(of_blocks).chain(of_norm).chain(untied).collect())
    }

    /// The gradients of the final norm's parameters.
    pub(crate) fn collect_of_norm(&self, graph: &mut Graph) -> Vec<Tensor<1>> {
        collect_gradients(&self.ln_f, graph)
    }

    /// What [`hidden`](Self::hidden) gives for the tokens that `cache` has not seen yet, which it has seen then: to
    /// generate token by token.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, seq]`, those that the cache has seen first
    /// - output: `[batch, new, d_model]`
    pub fn hidden_of_new(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let (past, [_, seq]) = (cache.tokens, tokens.dims());
        cache.blocks.resize_with(self.h.len(), KeysAndValues::default);
        let pass = Pass::of(&self.config, self.dtype, &tokens, past);
        let new = tokens.narrow(1, past, seq - past); // [B, new]
        let mut x = embed(&self.wte, self.wpe.as_ref(), new, past); // [B, new, C]
        for (block, cache) in self.h.iter().zip(&mut cache.blocks) {
            x = block.forward(x, &pass, Some(cache), &mut Dropout::off());
        }
        cache.tokens = seq;
        self.normed(x)
    }

    /// What makes logits of activations.
    pub(crate) fn head(&self) -> Head<'_> {
        let weight = self.lm_head.as_ref().unwrap_or(&self.wte).weight.val();
        Head::new(weight, self.head_rows, &self.config, self.dtype)
    }

    /// The scores of every vocabulary entry. Training goes through [`loss`](crate::loss) instead, which never holds the
    /// logits of a whole batch.
    ///
    /// # Shapes
    ///
    /// - hidden: `[batch, seq, d_model]`
    /// - output: `[batch, seq, vocab_size]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [batch, seq, d_model] = hidden.dims();
        let hidden = hidden.reshape([batch * seq, d_model]); // [B·T, C]
        let head = self.head();
        let logits = head.of_vocabulary(1, head.logits(hidden)); // [B·T, V]
        logits.reshape([batch, seq, self.config.vocab_size]) // [B, T, V]
    }
}

/// The output projection. On a GPU it is padded by rows of zeros, here and nowhere else, which get no probability and no
/// gradient: below, `P` is the vocabulary `V` with them.
pub(crate) struct Head<'a> {
    /// `[P, C]`, f32
    pub(crate) weight: Tensor<2>,
    /// What is added to logits where there is padding, `[1, P]`: 0, and below every logit where it is.
    pub(crate) mask: Option<Tensor<2>>,
    pub(crate) config: &'a ModelConfig,
    pub(crate) dtype: FloatDType,
}

impl<'a> Head<'a> {
    /// Of `weight`, `[V, C]`, padded to a multiple of `rows`.
    fn new(weight: Tensor<2>, rows: usize, config: &'a ModelConfig, dtype: FloatDType) -> Self {
        let ([vocab_size, d_model], device) = (weight.dims(), weight.device());
        let padding = vocab_size.next_multiple_of(rows) - vocab_size;
        if padding == 0 {
            return Self { weight, mask: None, config, dtype };
        }
        // Logits that are squashed have a slope there too, which must be a number; exp(-200) is 0 in f32.
        let never = config.final_logit_softcapping.map_or(f64::NEG_INFINITY, |cap| -cap - 200.0);
        let zeros = Tensor::zeros([padding, d_model], &device);
        let (seen, unseen) = (Tensor::zeros([1, vocab_size], &device), [1, padding]);
        let mask = Tensor::cat(vec![seen, Tensor::full(unseen, never, &device)], 1); // [1, P]
        Self { weight: Tensor::cat(vec![weight, zeros], 0), mask: Some(mask), config, dtype }
    }

    /// The same, off the graph.
    pub(crate) fn inner(self) -> Self {
        Self { weight: self.weight.inner(), mask: self.mask.map(Tensor::inner), ..self }
    }

    /// `padded` without its padding along `dim`.
    pub(crate) fn of_vocabulary(&self, dim: usize, padded: Tensor<2>) -> Tensor<2> {
        match self.mask {
            Some(_) => padded.narrow(dim, 0, self.config.vocab_size),
            None => padded,
        }
    }

    /// `hidden · weightᵀ`, times `logit_scale`, squashed to `final_logit_softcapping`.
    ///
    /// # Shapes
    ///
    /// - hidden: `[tokens, d_model]`
    /// - output: `[tokens, P]`, f32
    pub(crate) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.clone().cast(self.dtype);
        let logits = hidden.cast(self.dtype).matmul(weight.transpose()).cast(FloatDType::F32); // [N, P]
        let logits = match self.config.logit_scale {
            Some(scale) => logits.mul_scalar(scale),
            None => logits,
        };
        let logits = match self.config.final_logit_softcapping {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        };
        match &self.mask {
            Some(mask) => logits + mask.clone(),
            None => logits,
        }
    }
}

/// What a backward gives below the head.
///
/// The graph begins at what the tables of tokens and positions gave, so that the gradient of a table is never a tensor
/// of its own beside that of the head.
#[derive(Debug)]
pub(crate) struct Backward {
    /// At what was looked up, `[B, T, C]`.
    pub(crate) at_tables: Tensor<3>,
    /// Of the blocks' parameters, in order.
    pub(crate) of_blocks: Vec<Tensor<1>>,
    /// Of the final norm's.
    pub(crate) of_norm: Vec<Tensor<1>>,
}

/// Tokens `[B, T]` with their positions from `past` on, `[B, T, C]`.
fn embed(
    wte: &Embedding,
    wpe: Option<&Embedding>,
    tokens: Tensor<2, Int>,
    past: usize,
) -> Tensor<3> {
    let [_, seq] = tokens.dims();
    let x = wte.forward(tokens); // [B, T, C]
    let Some(wpe) = wpe else { return x };
    let positions = wpe.weight.val(); // [S, C]
    let [max_seq_len, d_model] = positions.dims();
    let positions = if seq == max_seq_len { positions } else { positions.narrow(0, past, seq) }; // [T, C]
    x + positions.reshape([1, seq, d_model])
}

/// The value of `x`, with `fraction` of its gradient: x·f + stopgrad(x)·(1 − f).
fn shrink_gradient(x: Tensor<3>, fraction: f64) -> Tensor<3> {
    if fraction >= 1.0 {
        return x;
    }
    x.clone().mul_scalar(fraction) + x.detach().mul_scalar(1.0 - fraction)
}
