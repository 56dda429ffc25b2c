//! The memory that is computed from a recipe, beside what runs on the CPU take.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, FloatDType};
use trainer::config::{Config, Engine, Step, StepMemory};
use trainer::data::TokenBatch;
use trainer::interrupt::Interrupt;
use trainer::loss::loss_and_gradients;
use trainer::model::{Dropout, Gpt};

#[path = "support/training.rs"]
mod training;
use training::{records, small_dataset, small_recipe, succeed, train};

/// The system's allocator, counting the bytes that are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Held by who measures: the tests of a program share its memory.
static MEASURING: Mutex<()> = Mutex::new(());

/// The most that `work` has in use at one time beyond what there was before, in bytes. It is done twice, and the second time
/// counts: the first leaves behind what each thread keeps for matrix products, which is as large as the processor's
/// second cache.
fn most_in_use(work: impl Fn()) -> f64 {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    work();
    let before = IN_USE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    work();
    (MOST.load(Ordering::Relaxed) - before) as f64
}

fn count(bytes: usize) {
    let now = IN_USE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        count(size);
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A recipe whose steps take so much that the rest of the program does not count, without what is not a step:
/// evaluation, checkpoints, generated text.
const STEPS_ALONE: &[&str] = &[
    "eval_loader=null",
    "save_folder=null",
    "autoresume=false",
    "generate.prompt=null",
    "max_duration=1ba",
    "callbacks.memory_monitor={}",
];

fn load(recipe: &Path, overrides: &[&str]) -> Config {
    let overrides: Vec<_> = STEPS_ALONE.iter().chain(overrides).map(ToString::to_string).collect();
    Config::load(recipe, &overrides).unwrap()
}

fn computed(config: &Config) -> f64 {
    config.step_memory(&config.batch_plan(1).unwrap(), Engine::Cpu).peak as f64
}

/// What dominates is different in each.
const ACTIVATIONS: &[&str] = &[
    "max_seq_len=64",
    "model.d_model=256",
    "model.n_layers=6",
    "model.resid_pdrop=0",
    "model.emb_pdrop=0",
    "global_train_batch_size=32",
    "device_train_microbatch_size=32",
];
const SCORES: &[&str] = &[
    "max_seq_len=512",
    "model.d_model=64",
    "model.n_heads=16",
    "model.attn_pdrop=0.1",
    "global_train_batch_size=2",
    "device_train_microbatch_size=2",
];
const HIDDEN: &[&str] = &[
    "max_seq_len=128",
    "model.d_model=64",
    "model.mlp_ratio=16",
    "global_train_batch_size=64",
    "device_train_microbatch_size=64",
];
const INPUTS_OF_BLOCKS: &[&str] = &[
    "fsdp_config.activation_checkpointing=true",
    "max_seq_len=64",
    "model.d_model=128",
    "model.n_layers=32",
    "global_train_batch_size=64",
    "device_train_microbatch_size=64",
];
const STATE: &[&str] = &[
    "max_seq_len=32",
    "model.d_model=512",
    "model.n_heads=8",
    "model.n_layers=6",
    "global_train_batch_size=2",
    "device_train_microbatch_size=2",
];
const SUMMED_GRADIENTS: &[&str] = &[
    "optimizer={name: decoupled_lionw, lr: 1.0e-4}",
    "max_seq_len=32",
    "model.d_model=512",
    "model.n_heads=8",
    "model.n_layers=6",
    "global_train_batch_size=3",
    "device_train_microbatch_size=2",
];
/// Variants, each of which keeps something of its own.
const LLAMA: &[&str] = &[
    "model.name=mpt_causal_lm",
    "model.init_config={name: baseline_, init_std: 0.02}",
    "model.attn_config={attn_type: grouped_query_attention, kv_n_heads: 2, rope: true, qk_ln: true, clip_qkv: 6}",
    "model.ffn_config={ffn_type: mptglu, ffn_act_fn: {name: silu}}",
    "model.norm_type=rmsnorm",
    "model.no_bias=true",
    "model.learned_pos_emb=false",
    "model.tie_word_embeddings=false",
    "max_seq_len=64",
    "model.d_model=256",
    "model.n_heads=8",
    "model.n_layers=4",
    "global_train_batch_size=16",
    "device_train_microbatch_size=16",
];
const SOFT_CAPPED: &[&str] = &[
    "model.name=mpt_causal_lm",
    "model.init_config={name: baseline_, init_std: 0.02}",
    "model.attn_config={alibi: true, qk_gn: true, attn_logit_softcapping: 30}",
    "model.ffn_config={ffn_act_fn: {name: gelu, approximate: tanh}}",
    "model.final_logit_softcapping=20",
    "max_seq_len=128",
    "model.d_model=128",
    "model.n_heads=8",
    "model.n_layers=3",
    "global_train_batch_size=16",
    "device_train_microbatch_size=16",
];

/// Within 7 %, of which the tokenizer and what is read ahead are up to 3 % for models as small as these.
#[test]
fn what_is_computed_is_what_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = small_recipe(folder.path(), &small_dataset(folder.path()));
    for overrides in
        [ACTIVATIONS, SCORES, HIDDEN, INPUTS_OF_BLOCKS, STATE, SUMMED_GRADIENTS, LLAMA, SOFT_CAPPED]
    {
        let config = load(&recipe, overrides);
        let allocated = most_in_use(|| {
            trainer::train(&config, &Interrupt::default()).unwrap();
        });
        let share = allocated / computed(&config);
        println!(
            "{overrides:?}: {:.1} MB allocated, {share:.3} of what is computed",
            allocated / 1e6
        );
        assert!((0.97..1.07).contains(&share), "{share:.3} for {overrides:?}");
    }
}

/// Within 30 % for models as small as these: the program itself, and what the allocator keeps for the next step.
#[test]
fn what_is_computed_is_near_what_the_process_takes() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = small_recipe(folder.path(), &small_dataset(folder.path()));
    // Of activations twice as many, so that the program, some 50 MB, is as small a part as of the others.
    let twice = ["global_train_batch_size=64", "device_train_microbatch_size=64"];
    let activations = [ACTIVATIONS, &twice].concat();
    for shape in [&activations, SCORES, SUMMED_GRADIENTS] {
        let overrides: Vec<_> = STEPS_ALONE.iter().chain(shape).copied().collect();
        succeed(&mut train(&recipe, &overrides));
        let records = records(folder.path());
        let peaks = records.iter().filter_map(|r| r["memory/peak_resident_mem"].as_f64());
        let resident = 1e9 * peaks.fold(0.0, f64::max);
        let share = resident / computed(&load(&recipe, shape));
        println!("{shape:?}: {:.1} MB resident, {share:.3} of what is computed", resident / 1e6);
        assert!((1.0..1.3).contains(&share), "{share:.3} for {shape:?}");
    }
}

/// On a GPU matrix products are computed in half precision; here they can be, too, so that what is kept is the same.
/// Some 5 % less than computed in the smaller of the two models.
#[test]
fn half_precision_is_counted_as_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = small_recipe(folder.path(), &small_dataset(folder.path()));
    for shape in [ACTIVATIONS, LLAMA] {
        // Quickly done, since it is not a type that the CPU computes in.
        let short: Vec<_> = shape.iter().copied().chain(["model.n_layers=1"]).collect();
        let config = load(&recipe, &short);
        let rows = config.global_train_batch_size;
        let step = Step {
            rows,
            seq_len: config.max_seq_len,
            microbatches: 1,
            moments: 0,
            engine: Engine::Cpu,
            is_half: true,
            activations: config.activations(),
        };
        let computed = StepMemory::new(&config.model, &step);
        let model = Gpt::init(&config.model, 17, &Device::flex().autodiff());
        let model = model.computing_in(FloatDType::BF16);
        let mut batch = TokenBatch::new(config.max_seq_len);
        (0..rows).for_each(|row| batch.push(&vec![row as i32; config.max_seq_len], 0));
        let allocated = most_in_use(|| {
            let mut dropout = Dropout::training(17, 0, 0);
            drop(loss_and_gradients(&model, &batch, 1.0, &mut dropout, step.activations));
        });
        let share = allocated / (computed.peak - computed.weights) as f64;
        println!("{shape:?}: {:.1} MB allocated, {share:.3} of what is computed", allocated / 1e6);
        assert!((0.94..1.04).contains(&share), "{share:.3} for {shape:?}");
    }
}
