//! Causal attention, a block of queries at a time, as in FlashAttention (Dao et al. 2022): the scores of a block stay in
//! a cache, and the backward computes them again from the logarithm of each query's sum, which is all that is kept.
//! Keys after a block's last query are not looked at.

use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use super::function::{CpuTensor, Function, apply, contiguous, tensor};
use super::matrix::{Cores, Matrix, MatrixMut, Store};
use super::vector::{exp, max, sum, sum_of_pairs, vectorized};

/// Queries whose scores exist at the same time, in each thread.
const BLOCK: usize = 64;

/// Heads, and what scores are multiplied by. Each of `kv_heads` serves `heads / kv_heads` neighbouring heads of queries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) scale: f64,
}

/// Queries, keys and values beside one another, as one projection makes them.
///
/// # Shapes
///
/// - qkv: `[batch, seq, (heads + 2 · kv_heads) · head_dim]`
/// - output: `[batch, seq, heads · head_dim]`
pub(crate) fn packed_attention(attention: Attention, qkv: Tensor<3>) -> Tensor<3> {
    apply(Packed(attention), [qkv.into_dispatch()])
}

/// # Shapes
///
/// - q: `[batch, heads, seq, head_dim]`
/// - k, v: `[batch, kv_heads, seq, head_dim]`
/// - output: `[batch, heads, seq, head_dim]`
pub(crate) fn attention(
    attention: Attention,
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
) -> Tensor<4> {
    apply(Separate(attention), [q, k, v].map(Tensor::into_dispatch))
}

#[derive(Clone, Debug)]
struct Packed(Attention);

/// What the forward read, what it gave, and the logarithms of the sums, `[batch, heads, seq]`.
type Saved<const N: usize> = ([CpuTensor; N], CpuTensor, Vec<f32>);

impl Packed {
    /// Where queries, keys and values lie.
    fn places(&self, seq: usize) -> [Place; 3] {
        let Attention { heads, kv_heads, head_dim, .. } = self.0;
        let width = (heads + 2 * kv_heads) * head_dim;
        [0, heads, heads + kv_heads].map(|first| Place {
            offset: first * head_dim,
            batch: seq * width,
            head: head_dim,
            row: width,
        })
    }
}

impl Function<1> for Packed {
    type Saved = Saved<1>;

    fn forward(&self, [qkv]: [CpuTensor; 1]) -> (CpuTensor, Self::Saved) {
        let qkv = contiguous(qkv);
        let [batch, seq] = [0, 1].map(|dim| qkv.layout().shape()[dim]);
        let task = self.0.task(batch, seq);
        let inputs = self.places(seq).map(|place| Vectors { numbers: qkv.storage(), place });
        let (output, logsums) = task.forward(inputs);
        let output = tensor(output, [batch, seq, self.0.heads * self.0.head_dim]);
        (output.clone(), ([qkv], output, logsums))
    }

    fn backward(
        &self,
        ([qkv], output, logsums): Self::Saved,
        gradient: CpuTensor,
        _: [bool; 1],
    ) -> [Option<CpuTensor>; 1] {
        let shape = qkv.layout().shape().to_vec();
        let task = self.0.task(shape[0], shape[1]);
        let places = self.places(task.seq);
        let inputs = places.map(|place| Vectors { numbers: qkv.storage(), place });
        let gradient = contiguous(gradient);
        let [output, gradient] = [&output, &gradient]
            .map(|tensor| Vectors { numbers: tensor.storage(), place: task.place(task.heads) });
        let mut of_qkv = vec![0.0; shape.iter().product()];
        let first = of_qkv.as_mut_ptr();
        let gradients = places.map(|place| VectorsMut { first, place });
        task.backward(inputs, output, gradient, &logsums, gradients);
        [Some(tensor(of_qkv, shape))]
    }
}

#[derive(Clone, Debug)]
struct Separate(Attention);

impl Function<3> for Separate {
    type Saved = Saved<3>;

    fn forward(&self, inputs: [CpuTensor; 3]) -> (CpuTensor, Self::Saved) {
        let inputs = inputs.map(with_whole_rows);
        let [batch, heads, seq, head_dim] = [0, 1, 2, 3].map(|dim| inputs[0].layout().shape()[dim]);
        let task = self.0.task(batch, seq);
        let (output, logsums) = task.forward(inputs.each_ref().map(Vectors::of));
        // In memory as what reads it wants it: heads beside one another.
        let output = tensor(output, [batch, seq, heads, head_dim]).transpose(1, 2);
        (output.clone(), (inputs, output, logsums))
    }

    fn backward(
        &self,
        (inputs, output, logsums): Self::Saved,
        gradient: CpuTensor,
        _: [bool; 3],
    ) -> [Option<CpuTensor>; 3] {
        let [batch, seq] = [0, 2].map(|dim| inputs[0].layout().shape()[dim]);
        let (task, gradient) = (self.0.task(batch, seq), with_whole_rows(gradient));
        let heads = inputs.each_ref().map(|input| input.layout().shape()[1]);
        let mut numbers = heads.map(|heads| vec![0.0; batch * seq * heads * task.head_dim]);
        let [q, k, v] = &mut numbers;
        let gradients = [(q, heads[0]), (k, heads[1]), (v, heads[2])].map(|(numbers, heads)| {
            VectorsMut { first: numbers.as_mut_ptr(), place: task.place(heads) }
        });
        let [output, gradient] = [&output, &gradient].map(Vectors::of);
        task.backward(inputs.each_ref().map(Vectors::of), output, gradient, &logsums, gradients);
        let mut heads = heads.into_iter();
        numbers.map(|numbers| {
            let heads = heads.next()?;
            Some(tensor(numbers, [batch, seq, heads, task.head_dim]).transpose(1, 2))
        })
    }
}

/// The same tensor, with the numbers of each vector beside one another.
fn with_whole_rows(tensor: CpuTensor) -> CpuTensor {
    if tensor.layout().inner_stride() == 1 && tensor.layout().has_positive_strides() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// Where the vectors of all heads lie.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    /// From one row of the batch, one head, one token to the next.
    batch: usize,
    head: usize,
    row: usize,
}

impl Place {
    fn first(&self, batch: usize, head: usize, token: usize) -> usize {
        self.offset + batch * self.batch + head * self.head + token * self.row
    }
}

/// Vectors to read.
#[derive(Clone, Copy)]
struct Vectors<'a> {
    numbers: &'a [f32],
    place: Place,
}

impl<'a> Vectors<'a> {
    /// Those of a tensor `[batch, heads, seq, head_dim]`.
    fn of(tensor: &'a CpuTensor) -> Self {
        debug_assert_eq!(tensor.dtype(), DType::F32);
        let stride = |dim: usize| tensor.layout().strides()[dim].unsigned_abs();
        let place = Place {
            offset: tensor.layout().start_offset(),
            batch: stride(0),
            head: stride(1),
            row: stride(2),
        };
        Self { numbers: tensor.storage(), place }
    }

    /// The vector of one token.
    fn row(&self, batch: usize, head: usize, token: usize, head_dim: usize) -> &'a [f32] {
        &self.numbers[self.place.first(batch, head, token)..][..head_dim]
    }

    /// The vectors of some tokens, `[tokens, head_dim]`.
    fn rows(&self, batch: usize, head: usize, tokens: Tokens, head_dim: usize) -> Matrix<'a> {
        let numbers = &self.numbers[self.place.first(batch, head, tokens.0)..];
        Matrix::strided(numbers, tokens.1 - tokens.0, head_dim, self.place.row)
    }
}

/// From the first to before the second.
type Tokens = (usize, usize);

/// Vectors to write, by several threads: each writes other heads.
#[derive(Clone, Copy)]
struct VectorsMut {
    first: *mut f32,
    place: Place,
}

// SAFETY: it is only a pointer; who writes through it says why nobody else does.
unsafe impl Sync for VectorsMut {}
// SAFETY: as above.
unsafe impl Send for VectorsMut {}

impl VectorsMut {
    /// # Safety
    /// The memory that `place` describes is there, and nobody else reads or writes these vectors during `'a`.
    unsafe fn rows<'a>(
        &self,
        batch: usize,
        head: usize,
        tokens: Tokens,
        head_dim: usize,
    ) -> MatrixMut<'a> {
        // SAFETY: as the caller says.
        unsafe {
            let first = self.first.add(self.place.first(batch, head, tokens.0));
            MatrixMut::from_raw(first, tokens.1 - tokens.0, head_dim, self.place.row)
        }
    }
}

/// Attention over a batch.
#[derive(Clone, Copy)]
struct Task {
    batch: usize,
    seq: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: f32,
}

impl Attention {
    fn task(&self, batch: usize, seq: usize) -> Task {
        let Self { heads, kv_heads, head_dim, scale } = *self;
        Task { batch, seq, heads, kv_heads, head_dim, scale: scale as f32 }
    }
}

impl Task {
    /// Where vectors lie in `[batch, seq, heads, head_dim]`.
    fn place(&self, heads: usize) -> Place {
        let row = heads * self.head_dim;
        Place { offset: 0, batch: self.seq * row, head: self.head_dim, row }
    }

    /// The blocks of queries.
    fn blocks(&self) -> impl Iterator<Item = Tokens> {
        let seq = self.seq;
        (0..seq).step_by(BLOCK).map(move |from| (from, (from + BLOCK).min(seq)))
    }

    /// The output `[batch, seq, heads, head_dim]`, and of each query the logarithm of the sum of its scores'
    /// exponentials, `[batch, heads, seq]`.
    fn forward(&self, inputs: [Vectors<'_>; 3]) -> (Vec<f32>, Vec<f32>) {
        let mut output = vec![0.0; self.batch * self.seq * self.heads * self.head_dim];
        let mut logsums = vec![0.0; self.batch * self.heads * self.seq];
        let written = VectorsMut { first: output.as_mut_ptr(), place: self.place(self.heads) };
        let scores = || vec![0.0; BLOCK * self.seq];
        logsums.par_chunks_mut(self.seq.max(1)).enumerate().for_each_init(
            scores,
            |scores, (index, logsums)| {
                let (batch, head) = (index / self.heads, index % self.heads);
                for tokens in self.blocks() {
                    // SAFETY: `output` outlives this, and these vectors are this task's only.
                    let output = unsafe { written.rows(batch, head, tokens, self.head_dim) };
                    let logsums = &mut logsums[tokens.0..tokens.1];
                    self.forward_block([batch, head], tokens, inputs, output, logsums, scores);
                }
            },
        );
        (output, logsums)
    }

    fn forward_block(
        &self,
        [batch, head]: [usize; 2],
        tokens: Tokens,
        [q, k, v]: [Vectors<'_>; 3],
        mut output: MatrixMut<'_>,
        logsums: &mut [f32],
        scores: &mut [f32],
    ) {
        let (queries, keys) = (tokens.1 - tokens.0, tokens.1);
        let kv_head = head / (self.heads / self.kv_heads);
        let q = q.rows(batch, head, tokens, self.head_dim);
        let [k, v] = [k, v].map(|x| x.rows(batch, kv_head, (0, keys), self.head_dim));
        let scores = &mut scores[..queries * keys];
        MatrixMut::new(scores, queries, keys).set(q, k.t(), Store::Set, Cores::One);
        let mut sums = [0.0; BLOCK];
        vectorized(|| {
            for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                let (seen, later) = row.split_at_mut(tokens.0 + i + 1);
                let largest = max(seen) * self.scale;
                seen.iter_mut().for_each(|score| *score = exp(*score * self.scale - largest));
                later.fill(0.0);
                sums[i] = sum(seen, |weight| weight);
                logsums[i] = largest + sums[i].ln();
            }
        });
        output.set(Matrix::new(scores, queries, keys), v, Store::Set, Cores::One);
        for (i, sum) in sums[..queries].iter().enumerate() {
            output.row(i).iter_mut().for_each(|x| *x /= sum);
        }
    }

    /// The gradients at queries, keys and values, in memory that is zero so far.
    fn backward(
        &self,
        inputs: [Vectors<'_>; 3],
        output: Vectors<'_>,
        gradient: Vectors<'_>,
        logsums: &[f32],
        written: [VectorsMut; 3],
    ) {
        // A head of keys belongs to one task, with all heads of queries that it serves.
        let shared = self.heads / self.kv_heads;
        let scratch = || [(); 2].map(|()| vec![0.0; BLOCK * self.seq]);
        (0..self.batch * self.kv_heads).into_par_iter().for_each_init(scratch, |scratch, index| {
            let (batch, kv_head) = (index / self.kv_heads, index % self.kv_heads);
            for head in kv_head * shared..(kv_head + 1) * shared {
                let logsums = &logsums[(batch * self.heads + head) * self.seq..][..self.seq];
                for tokens in self.blocks() {
                    let [q, k, v] = written;
                    // SAFETY: the caller's memory outlives this, and these vectors are this task's only.
                    let gradients = unsafe {
                        [
                            q.rows(batch, head, tokens, self.head_dim),
                            k.rows(batch, kv_head, (0, tokens.1), self.head_dim),
                            v.rows(batch, kv_head, (0, tokens.1), self.head_dim),
                        ]
                    };
                    let heads = [batch, head, kv_head];
                    let logsums = &logsums[tokens.0..tokens.1];
                    self.backward_block(
                        heads, tokens, inputs, output, gradient, logsums, gradients, scratch,
                    );
                }
            }
        });
    }

    /// With the weights P = softmax(scale · q·kᵀ) and the gradient dO at the output O = P·v:
    ///
    /// ```text
    /// dv = Pᵀ·dO,   dP = dO·vᵀ,   dS = scale · P ∘ (dP − Σ dO∘O),   dq = dS·k,   dk = dSᵀ·q
    /// ```
    #[expect(clippy::too_many_arguments, reason = "one step of one loop")]
    fn backward_block(
        &self,
        [batch, head, kv_head]: [usize; 3],
        tokens: Tokens,
        [q, k, v]: [Vectors<'_>; 3],
        output: Vectors<'_>,
        gradient: Vectors<'_>,
        logsums: &[f32],
        [mut of_q, mut of_k, mut of_v]: [MatrixMut<'_>; 3],
        [weights, of_scores]: &mut [Vec<f32>; 2],
    ) {
        let (queries, keys, dim) = (tokens.1 - tokens.0, tokens.1, self.head_dim);
        let q = q.rows(batch, head, tokens, dim);
        let [k, v] = [k, v].map(|x| x.rows(batch, kv_head, (0, keys), dim));
        let of_output = gradient.rows(batch, head, tokens, dim);
        let weights = &mut weights[..queries * keys];
        let of_scores = &mut of_scores[..queries * keys];
        MatrixMut::new(weights, queries, keys).set(q, k.t(), Store::Set, Cores::One);
        MatrixMut::new(of_scores, queries, keys).set(of_output, v.t(), Store::Set, Cores::One);
        vectorized(|| {
            let rows = weights.chunks_exact_mut(keys).zip(of_scores.chunks_exact_mut(keys));
            for (i, (weights, of_scores)) in rows.enumerate() {
                let token = tokens.0 + i;
                let [output, gradient] = [output, gradient].map(|x| x.row(batch, head, token, dim));
                let mean = sum_of_pairs(output, gradient, |o, g| o * g);
                let (weights, later) = weights.split_at_mut(token + 1);
                let (of_scores, of_later) = of_scores.split_at_mut(token + 1);
                for (weight, of_score) in weights.iter_mut().zip(of_scores) {
                    *weight = exp(*weight * self.scale - logsums[i]);
                    *of_score = self.scale * *weight * (*of_score - mean);
                }
                later.fill(0.0);
                of_later.fill(0.0);
            }
        });
        let weights = Matrix::new(weights, queries, keys);
        let of_scores = Matrix::new(of_scores, queries, keys);
        of_v.set(weights.t(), of_output, Store::Add, Cores::One);
        of_k.set(of_scores.t(), q, Store::Add, Cores::One);
        of_q.set(of_scores, k, Store::Set, Cores::One);
    }
}
