//! Configurations as users write them: recipes of the reference load unchanged, overrides reach
//! everything, and every mistake is one sentence that names the key and the remedy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use trainer::config::{
    ClippingType, Config, DeviceChoice, GradientClipping, GroupMethod, Microbatch, ModelConfig,
    OptimizerConfig, Precision, SchedulerName,
};
use trainer::time::Time;

/// A recipe as the source document's repository wrote them: YAML anchors, the `c4` loader, FSDP.
const OLD_RECIPE: &str = "
data_remote: &data_remote ./my-copy-c4
data_local: &data_local ./my-copy-c4
max_seq_len: &max_seq_len 2048
tokenizer_name: &tokenizer_name gpt2
run_name: gpt-125m
model:
  name: mosaic_gpt
  device: meta
  tokenizer_name: *tokenizer_name
  d_model: 768
  n_heads: 12
  n_layers: 12
  mlp_ratio: 4
  max_seq_len: *max_seq_len
  vocab_size: 50257
  init_std: 0.02
  attn_pdrop: 0.0
  resid_pdrop: 0.0
  emb_pdrop: 0.0
  attn_impl: flash
tokenizer:
  type: hftokenizer
  args:
    tokenizer_name: *tokenizer_name
    max_seq_len: *max_seq_len
train_loader:
  name: c4
  dataset:
    remote: *data_remote
    local: *data_local
    split: train
    shuffle: true
    prefetch: 1_000_000
    tokenizer_name: *tokenizer_name
    max_seq_len: *max_seq_len
    group_method: concat
  drop_last: true
  num_workers: 8
  pin_memory: true
  prefetch_factor: 2
  persistent_workers: true
  timeout: 0
eval_loader:
  name: c4
  eval_subset_num_batches: -1
  dataset:
    remote: *data_remote
    local: *data_local
    split: val
    shuffle: false
    prefetch: 1000
    tokenizer_name: *tokenizer_name
    max_seq_len: *max_seq_len
    group_method: truncate
  drop_last: false
  num_workers: 8
  pin_memory: true
  prefetch_factor: 2
  persistent_workers: true
  timeout: 0
scheduler:
  name: cosine_with_warmup
  t_warmup: 100ba
  alpha_f: 0.1
optimizer:
  name: decoupled_adamw
  lr: 6.0e-4
  betas:
  - 0.9
  - 0.95
  eps: 1.0e-08
  weight_decay: 0.0
max_duration: 4800ba
eval_interval: 500ba
global_train_batch_size: 256
grad_clip_norm: 1.0
seed: 17
device_eval_batch_size: 16
device_train_microbatch_size: 16
precision: bf16
fsdp_config:
  sharding_strategy: FULL_SHARD
  min_params: 1e8
  mixed_precision: DEFAULT
  activation_checkpointing: false
  verbose: true
progress_bar: true
log_to_console: true
callbacks:
  speed_monitor:
    window_size: 10
  lr_monitor: {}
  memory_monitor: {}
loggers:
  wandb: {}
";

/// The same with the names of the document's successors.
const NEWER: &[&str] = &[
    "global_seed=3",
    "seed=${global_seed}",
    "model.device=null",
    "model.init_device=meta",
    "model.loss_fn=fused_crossentropy",
    "train_loader.name=text",
    "eval_loader.name=text",
    "grad_clip_norm=null",
    "algorithms={gradient_clipping: {clipping_type: norm, clipping_threshold: 0.5}}",
    "precision=amp_bf16",
    "console_log_interval=10ba",
    "eval_subset_num_batches=20",
    "device_train_microbatch_size=auto",
    "save_folder=./{run_name}/checkpoints",
    "autoresume=true",
];

fn load(overrides: &[&str]) -> trainer::Result<Config> {
    let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    Config::from_yaml_str(OLD_RECIPE, &overrides)
}

fn message(overrides: &[&str]) -> String {
    load(overrides).expect_err("the configuration is wrong").to_string()
}

fn yamls() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../yamls")
}

#[test]
fn a_recipe_of_the_source_document_loads_unchanged() {
    let config = load(&[]).unwrap();
    assert_eq!(config.run_name, "gpt-125m");
    assert_eq!(config.model.n_params(), 125_226_240);
    assert_eq!(config.train_loader.dataset.remote.as_deref(), Some("./my-copy-c4"));
    assert_eq!(config.train_loader.dataset.group_method, GroupMethod::Concat);
    assert_eq!(config.train_loader.dataset.predownload, Some(1_000_000));
    let [eval] = &config.eval_loaders[..] else { panic!("one evaluation loader") };
    assert_eq!(eval.dataset.group_method, GroupMethod::Truncate);
    assert_eq!((eval.dataset.split.as_deref(), eval.dataset.shuffle), (Some("val"), false));
    assert_eq!((eval.drop_last, config.train_loader.drop_last), (false, true));
    assert_eq!(config.eval_subset_num_batches, None);
    assert_eq!(config.scheduler.name, SchedulerName::CosineWithWarmup);
    assert_eq!(config.optimizer.betas, [0.9, 0.95]);
    assert_eq!((config.optimizer.lr, config.optimizer.eps), (6e-4, Some(1e-8)));
    assert_eq!(config.max_duration, Time::batches(4800));
    assert_eq!(config.device_train_microbatch_size, Microbatch::Rows(16));
    assert_eq!((config.precision, config.device), (Precision::AmpBf16, DeviceChoice::Auto));
    assert_eq!(config.callbacks.speed_monitor.unwrap().window_size, 10);
    assert_eq!(
        config.notices,
        [
            "`model.device` has no effect here: weights are made on the training device",
            "`fsdp_config.sharding_strategy` has no effect here: this run has one device",
            "`loggers.wandb` has no effect here: scripts/wandb-upload uploads a finished metrics.jsonl",
        ]
    );
}

#[test]
fn the_names_of_its_successors_load_too() {
    let config = load(NEWER).unwrap();
    assert_eq!(config.seed, 3);
    let clipping = GradientClipping { clipping_type: ClippingType::Norm, clipping_threshold: 0.5 };
    assert_eq!(config.algorithms.gradient_clipping, Some(clipping));
    assert_eq!((config.eval_subset_num_batches, config.autoresume), (Some(20), true));
    assert_eq!(config.save_folder.as_deref(), Some("./gpt-125m/checkpoints"));
    assert_eq!(config.device_train_microbatch_size, Microbatch::Auto);
}

#[test]
fn the_recipes_of_this_repository_load() {
    let config = Config::load(&yamls().join("125m.yaml"), &[]).unwrap();
    assert_eq!(config.model.n_params(), 125_226_240);
    let old = load(&[]).unwrap();
    assert_eq!(config.optimizer, old.optimizer);
    assert_eq!(config.scheduler, old.scheduler);
    assert_eq!(config.max_duration, old.max_duration);
    assert_eq!(config.global_train_batch_size, old.global_train_batch_size);
    assert_eq!(config.precision, old.precision);

    let config = Config::load(&yamls().join("quickstart.yaml"), &[]).unwrap();
    assert_eq!(config.model.vocab_size, 4096);
    assert!(config.notices.is_empty(), "{:?}", config.notices);
    assert!(config.save_folder.is_some());
    for entry in std::fs::read_dir(yamls()).unwrap() {
        let path = entry.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 60, "{} has {lines} lines", path.display());
        Config::load(&path, &[]).unwrap();
    }
}

/// What the nine recipes of the reference differ in, and what they have in common.
#[test]
fn the_sizes_of_the_reference_have_its_numbers() {
    for (name, shape, batch, rows, lr, steps, every, checkpointing) in [
        ("125m", (768, 12, 12), 256, 16, 6.0e-4, 4_800, 500, false),
        ("350m", (1024, 16, 24), 256, 8, 3.0e-4, 13_400, 1000, false),
        ("760m", (1536, 12, 24), 256, 4, 2.5e-4, 29_000, 2000, false),
        ("1b", (2048, 16, 24), 512, 16, 2.0e-4, 24_800, 2000, true),
        ("3b", (2560, 20, 32), 512, 8, 2.0e-4, 51_500, 5000, true),
        ("7b", (4096, 32, 32), 1024, 8, 1.2e-4, 63_900, 5000, true),
        ("13b", (5120, 40, 40), 1024, 8, 1.0e-4, 124_000, 5000, true),
        ("30b", (7168, 56, 48), 2048, 8, 1.0e-4, 143_100, 10_000, true),
        ("70b", (8192, 64, 80), 2048, 4, 8.0e-5, 333_800, 10_000, true),
    ] {
        let config = Config::load(&yamls().join(name).with_extension("yaml"), &[]).unwrap();
        let model = &config.model;
        assert_eq!((model.d_model, model.n_heads, model.n_layers), shape, "{name}");
        assert_eq!(config.run_name, format!("gpt-{name}"));
        assert_eq!(config.global_train_batch_size, batch, "{name}");
        assert_eq!(config.device_train_microbatch_size, Microbatch::Rows(rows), "{name}");
        assert_eq!(config.device_eval_batch_size, rows, "{name}");
        assert_eq!(config.optimizer.lr, lr, "{name}");
        assert_eq!(config.max_duration, Time::batches(steps), "{name}");
        assert_eq!(config.eval_interval, Time::batches(every), "{name}");
        assert_eq!(config.fsdp_config.activation_checkpointing, checkpointing, "{name}");
        // And what they have in common, with the oldest of them.
        let old = load(&[]).unwrap();
        assert_eq!((config.max_seq_len, config.seed), (2048, 17), "{name}");
        assert_eq!(config.scheduler, old.scheduler, "{name}");
        let lr = config.optimizer.lr;
        assert_eq!(config.optimizer, OptimizerConfig { lr, ..old.optimizer }, "{name}");
        assert_eq!(config.algorithms, old.algorithms, "{name}");
        assert_eq!(config.precision, Precision::AmpBf16, "{name}");
        let (d_model, n_heads, n_layers) = shape;
        let gpt = ModelConfig::mosaic_gpt(d_model, n_heads, n_layers, 2048, 50257);
        assert_eq!(*model, gpt, "{name}");
    }
}

/// Recipes of the reference as they were a month later, with one more variable and a seed beside each dataset.
#[test]
fn recipes_with_a_seed_beside_the_dataset_load_too() {
    let config =
        load(&["num_canonical_nodes=8", "train_loader.seed=17", "eval_loader.seed=17"]).unwrap();
    let notice = "`train_loader.seed` has no effect here: dataset.shuffle_seed sets the order";
    assert!(config.notices.iter().any(|n| n == notice), "{:?}", config.notices);
}

#[test]
fn an_override_of_a_variable_reaches_every_reference() {
    let overrides = ["max_seq_len=128", "data_remote=/data/c4", "tokenizer_name=/tok"];
    let overrides = overrides.map(String::from);
    let config = Config::load(&yamls().join("125m.yaml"), &overrides).unwrap();
    let eval = &config.eval_loaders[0].dataset;
    let train = config.train_loader.dataset;
    assert_eq!(config.model.max_seq_len, 128);
    assert_eq!((train.max_seq_len, eval.max_seq_len), (128, 128));
    assert_eq!(train.remote.as_deref(), Some("/data/c4"));
    assert_eq!(eval.remote.as_deref(), Some("/data/c4"));
    assert_eq!(&*config.tokenizer_name, "/tok");
}

#[test]
fn a_cache_limit_is_bytes_or_a_size() {
    let limit = |value: &str| {
        let key = format!("train_loader.dataset.cache_limit={value}");
        Config::load(&yamls().join("125m.yaml"), &[key]).map(|c| c.train_loader.dataset.cache_limit)
    };
    assert_eq!(limit("3000").unwrap(), Some(3000));
    assert_eq!(limit("10gb").unwrap(), Some(10 << 30));
    assert_eq!(
        limit("much").unwrap_err().to_string(),
        "`train_loader.dataset.cache_limit` is \"much\"; it must be a number of bytes or a size such as 10gb"
    );
}

#[test]
fn overrides_take_lists_sections_and_null() {
    let config = load(&[
        "optimizer.betas=[0.8, 0.99]",
        "callbacks={}",
        "callbacks.lr_monitor={}",
        "eval_loader=null",
        "generate.prompt=He said: \"no\"",
        "train_loader.dataset.split=val",
        "optimizer.lr=1e-3",
    ])
    .unwrap();
    assert_eq!(config.optimizer.betas, [0.8, 0.99]);
    assert!(config.callbacks.lr_monitor.is_some() && config.callbacks.speed_monitor.is_none());
    assert!(config.eval_loaders.is_empty());
    assert_eq!(config.generate.prompt.as_deref(), Some("He said: \"no\""));
    assert_eq!(config.train_loader.dataset.split.as_deref(), Some("val"));
    assert_eq!(config.optimizer.lr, 1e-3);
}

#[test]
fn the_resolved_configuration_loads_to_itself() {
    let others = &[
        "optimizer={name: decoupled_lionw, lr: 1.0e-4}",
        "scheduler={name: inv_sqrt_with_warmup, t_warmup: 9ba, t_scale: 9ba, t_cooldown: 9ba}",
        "grad_clip_norm=null",
        "algorithms={gradient_clipping: {clipping_type: adaptive, clipping_threshold: 0.01}}",
    ];
    let callbacks =
        &["callbacks={optimizer_monitor: {}, kill_loss_spike: {log_only: false, window_size: 9}, \
         early_stopper: {monitor: BitsPerByte, dataloader_label: eval, patience: 0.1dur}}"];
    for overrides in [&[][..], NEWER, others, callbacks] {
        let config = load(overrides).unwrap();
        let text = config.to_yaml();
        let again = Config::from_yaml_str(&text, &[]).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let forget_notices = |config: Config| Config { notices: Vec::new(), ..config };
        assert_eq!(forget_notices(again), forget_notices(config), "{text}");
    }
}

/// A list of training loaders is one loader of streams, in words as in effect.
#[test]
fn training_loaders_of_a_list_are_streams() {
    let list = "train_loader=[{label: web, proportion: 3, dataset: {split: train, shuffle: false}}, \
                {proportion: 1, dataset: {remote: b, shuffle: false}}]";
    let streams = "train_loader={dataset: {shuffle: false, streams: {web: {remote: ./my-copy-c4, local: ./my-copy-c4, \
                   split: train, proportion: 3}, '1': {remote: b, proportion: 1}}}}";
    let config = load(&[list, "eval_loader=null"]).unwrap();
    let expected = load(&[streams, "eval_loader=null"]).unwrap();
    assert_eq!(config.train_loader, expected.train_loader);
    let again = Config::from_yaml_str(&config.to_yaml(), &[]).unwrap();
    assert_eq!(again.train_loader, config.train_loader);
    let one = load(&["train_loader=[{dataset: {split: train, group_method: concat}}]"]).unwrap();
    assert!(one.train_loader.dataset.streams.is_empty());
}

#[test]
fn a_typo_is_answered_with_the_nearest_key() {
    assert_eq!(
        message(&["max_seq_length=128"]),
        "unknown key `max_seq_length`; did you mean `max_seq_len`?"
    );
    assert_eq!(
        message(&["optimizer.weight_decy=0.1"]),
        "unknown key `optimizer.weight_decy`; did you mean `optimizer.weight_decay`?"
    );
    assert_eq!(
        message(&["train_loader.dataset.max_seqlen=9"]),
        "unknown key `train_loader.dataset.max_seqlen`; did you mean \
         `train_loader.dataset.max_seq_len`?"
    );
    assert_eq!(
        message(&["model.max_seq_len=${max_seq_lenn}"]),
        "`model.max_seq_len` refers to `${max_seq_lenn}`, but there is no key `max_seq_lenn`; did \
         you mean `max_seq_len`?"
    );
}

#[test]
fn a_global_batch_that_does_not_divide_is_one_sentence() {
    let config = load(&[]).unwrap();
    assert_eq!(
        config.batch_plan(12).unwrap_err().to_string(),
        "global_train_batch_size 256 does not divide by the 12 devices of this run; set it to a \
         multiple of 12, for example 252"
    );
    assert_eq!(
        load(&["global_train_batch_size=3"]).unwrap().batch_plan(8).unwrap_err().to_string(),
        "global_train_batch_size 3 does not divide by the 8 devices of this run; set it to a \
         multiple of 8, for example 8"
    );
}

#[test]
fn batches_are_split_over_devices_and_passes() {
    let plan = |global: usize, micro: &str, world: usize| {
        let global = format!("global_train_batch_size={global}");
        let micro = format!("device_train_microbatch_size={micro}");
        load(&[&global, &micro]).unwrap().batch_plan(world).unwrap()
    };
    let even = plan(256, "16", 8);
    assert_eq!((even.device_batch, even.microbatch, even.grad_accum), (32, 16, 2));
    assert_eq!((even.microbatches(32), even.notice), (vec![16, 16], None));

    let uneven = plan(48, "11", 1);
    assert_eq!((uneven.microbatch, uneven.grad_accum), (11, 5));
    assert_eq!(uneven.microbatches(48), [11, 11, 11, 11, 4]);

    let clamped = plan(8, "16", 2);
    assert_eq!((clamped.microbatch, clamped.grad_accum), (4, 1));
    assert_eq!(
        clamped.notice.as_deref(),
        Some(
            "device_train_microbatch_size 16 is larger than the device's batch of 4 rows; 4 is used"
        )
    );
    let auto = plan(8, "auto", 2);
    assert_eq!((auto.microbatch, auto.grad_accum), (4, 1));
}

#[test]
fn wrong_types_and_values_name_the_key() {
    for (overrides, expected) in [
        (
            &["model.d_model=wide"][..],
            "`model.d_model` is \"wide\"; it must be a whole number of at least 1",
        ),
        (
            &["optimizer.betas=[0.9]"],
            "`optimizer.betas` is [0.9]; it must be two numbers from 0 up to 1, for example \
             [0.9, 0.95]",
        ),
        (&["progress_bar=yes"], "`progress_bar` is \"yes\"; it must be true or false"),
        (
            &["max_duration=ten"],
            "`max_duration`: `ten` is not a time; write a number and one of ep, ba, sp, tok, dur, \
             for example 500ba or 0.1dur",
        ),
        (&["model=gpt"], "`model` is \"gpt\"; it must be a section of keys"),
        (
            &["scheduler.name=cosine_with_warmups"],
            "`scheduler.name` is `cosine_with_warmups`; it must be one of cosine_with_warmup, \
             linear_decay_with_warmup, constant_with_warmup, inv_sqrt_with_warmup; did you mean \
             `cosine_with_warmup`?",
        ),
        (
            &["scheduler.t_scale=10ba"],
            "`scheduler.t_scale` belongs to inv_sqrt_with_warmup; set scheduler.name to that, or \
             remove the key",
        ),
        (
            &[
                "scheduler={name: inv_sqrt_with_warmup, t_warmup: 0.1dur, t_scale: 10ba, t_cooldown: 0ba}",
            ],
            "`scheduler.t_warmup` is 0.1dur, but inv_sqrt_with_warmup does not depend on how long \
             the run is; give it in the unit of max_duration, for example 1000ba",
        ),
        (
            &[
                "scheduler={name: inv_sqrt_with_warmup, t_warmup: 9ba, t_scale: 0ba, t_cooldown: 0ba}",
            ],
            "`scheduler.t_scale` is 0ba, but the decay is measured by it; give it a length, for \
             example 1000ba",
        ),
        (
            &[
                "scheduler={name: inv_sqrt_with_warmup, t_warmup: 9ba, t_scale: 9ba, t_cooldown: 9ba}",
                "scheduler.alpha_f_cooldown=0.5",
            ],
            "`scheduler.alpha_f_cooldown` is 0.5, above scheduler.alpha_f_decay, which is 0; the \
             learning rate would rise in the cool-down: lower it to at most that",
        ),
        (
            &[
                "scheduler={name: inv_sqrt_with_warmup, t_warmup: 9ba, t_scale: 9ba, t_cooldown: 9ba}",
                "scheduler.alpha_f=0.5",
            ],
            "`scheduler.alpha_f` is 0.5, but inv_sqrt_with_warmup does not read it; set \
             scheduler.alpha_f_decay and scheduler.alpha_f_cooldown, and remove the key",
        ),
        (
            &["optimizer.name=sgd"],
            "`optimizer.name` is `sgd`; it must be one of decoupled_adamw, decoupled_lionw, adamw",
        ),
        (
            &["optimizer.name=decoupled_lionw"],
            "`optimizer.eps` is 0.00000001, but decoupled_lionw has no eps; remove the key",
        ),
        (
            &["optimizer.lr=nan"],
            "`optimizer.lr` is \"nan\"; it must be a number of at least 0, for example 6.0e-4",
        ),
        (
            &["optimizer.lr=1e40"],
            "`optimizer.lr` is 1e+40, which fp32 cannot hold; it must be a number of at least 0, for example 6.0e-4",
        ),
        (
            &["scheduler.alpha_f=.inf"],
            "`scheduler.alpha_f` is \".inf\"; it must be a number of at least 0, for example 0.1",
        ),
        (
            &["optimizer.betas=[0.9, .nan]"],
            "`optimizer.betas` is \"[0.9, .nan]\"; it must be two numbers from 0 up to 1, for example [0.9, 0.95]",
        ),
        (
            &["optimizer.weight_decay=-1"],
            "`optimizer.weight_decay` is -1; it must be a number of at least 0, for example 0.00001",
        ),
        (
            &["optimizer={name: adamw, lr: 0.1, weight_decay: -1}"],
            "`optimizer.weight_decay` is -1; it must be a number of at least 0, for example 0.01",
        ),
        (
            &["max_duration=1e300ba"],
            "`max_duration`: `1e300ba` is more batches than can be counted; give at most 9007199254740992ba",
        ),
        (
            &["max_duration=99999999999999999999"],
            "`max_duration`: `1e+20ep` is more epochs than can be counted; give at most 9007199254740992ep",
        ),
        (
            &["max_duration=9e15ba"],
            "`max_duration` is 9000000000000000ba in batches of 256 rows, which is more tokens than can be counted; \
             lower one of the two",
        ),
        (
            &["save_interval=0ba"],
            "`save_interval` is 0ba, which is never; give it a length in ba, sp, tok, ep or dur, for example 1000ba, or \
             1dur for the end of the run only",
        ),
        (
            &["console_log_interval=0"],
            "`console_log_interval` is 0ep, which is never; give it a length in ba, sp, tok, ep or dur, for example \
             10ba, or 1dur for the end of the run only",
        ),
        (&["optimizer.lr=null"], "`optimizer.lr` is missing; set it, for example `lr: 6.0e-4`"),
        (
            &["max_duration=null"],
            "`max_duration` is missing; set it, for example `max_duration: 4800ba`",
        ),
        (
            &["model.n_heads=7"],
            "model.d_model 768 does not divide into 7 heads; make it a multiple of model.n_heads",
        ),
        (
            &["model.max_seq_len=64"],
            "train_loader.dataset.max_seq_len 2048 is longer than the 64 positions of the model; \
             raise model.max_seq_len or shorten the rows",
        ),
        (
            &["max_duration=1ep"],
            "`max_duration` is 1ep, but a train_loader with group_method concat has no epochs; \
             count batches, samples or tokens, for example 1000ba",
        ),
        (
            &["eval_loader.dataset.tokenizer_name=other"],
            "`tokenizer_name` is `gpt2`, but `eval_loader.dataset.tokenizer_name` is `other`; a \
             run has one tokenizer: set both to ${tokenizer_name}",
        ),
        (
            &["autoresume=true"],
            "autoresume is true but there is no save_folder to resume from; set save_folder, for \
             example ./runs/{run_name}/checkpoints",
        ),
        (&["seed=4294967296"], "`seed` is 4294967296; it must be below 4294967296, for example 17"),
        (
            &["model.alibi=true", "model.attn_config.alibi=false"],
            "`model.attn_config.alibi` is false, but `model.alibi` is true; keep one of the two",
        ),
        (
            &["model.mlp_ratio=2", "model.expansion_ratio=8"],
            "`model.mlp_ratio` is 2, but `model.expansion_ratio` is 8; keep one of the two",
        ),
        (
            &["model.attn_config.alibi=true", "model.attn_config.rope=true"],
            "`model.attn_config.rope` is true, but `model.attn_config.alibi` is true, too; keep one of the two",
        ),
        (
            &["model.attn_config.attn_uses_sequence_id=true"],
            "`model.attn_config.attn_uses_sequence_id` is true, but `train_loader.dataset` has neither eos_token_id nor \
             bos_token_id to tell documents apart by; set one, for example eos_token_id: 50256",
        ),
        (
            &["train_loader.dataset.eos_token_id=99999999"],
            "train_loader.dataset tells documents apart by the token 99999999, but model.vocab_size is 50257; give the \
             tokenizer's own eos_token_id or bos_token_id",
        ),
        (
            &["model.attn_config.rope_theta=500000"],
            "`model.attn_config.rope_theta` is 500000, but `model.attn_config.rope` is false; set \
             `model.attn_config.rope` to true, or remove the key",
        ),
        (
            &["model.attn_config.rope_hf_config={type: linear, factor: 2}"],
            "`model.attn_config.rope_hf_config.type` is linear, but `model.attn_config.rope` is false; set \
             `model.attn_config.rope` to true, or remove the key",
        ),
        (
            &["model.alibi_bias_max=4", "model.attn_config.alibi_bias_max=4"],
            "`model.attn_config.alibi_bias_max` is 4, but `model.attn_config.alibi` is false; set \
             `model.attn_config.alibi` to true, or remove the key",
        ),
        (
            &["model.attn_config.rope=true", "model.attn_config.rope_hf_config={factor: 2.5}"],
            "`model.attn_config.rope_hf_config.factor` is 2.5, but `model.attn_config.rope_hf_config.type` is \
             no_scaling; set the type to linear, dynamic or llama3, or remove the key",
        ),
        (
            &[
                "model.attn_config.rope=true",
                "model.attn_config.rope_hf_config={type: linear, factor: 2.5, low_freq_factor: 1}",
            ],
            "`model.attn_config.rope_hf_config.low_freq_factor` is 1, but \
             `model.attn_config.rope_hf_config.type` is linear; set the type to llama3, or remove the key",
        ),
        (
            &["model.init_config.init_gain=1"],
            "`model.init_config.init_gain` is 1, but `model.init_config.name` is baseline_, which does not read it; \
             change the scheme, or remove the key",
        ),
        (
            &["model.init_config={name: small_init_, fan_mode: fan_out}"],
            "`model.init_config.fan_mode` is fan_out, but `model.init_config.name` is small_init_, which does not read \
             it; change the scheme, or remove the key",
        ),
        (
            &["model.init_config={name: xavier_normal_, init_gain: 1}", "model.init_std=0.01"],
            "`model.init_std` is 0.01, but `model.init_config.name` is xavier_normal_, which does not read it; change \
             the scheme, or remove the key",
        ),
        (
            &["callbacks.optimizer_monitor.interval=0ba"],
            "`callbacks.optimizer_monitor.interval` is 0ba, which is never; give it a length, for example 10ba, or \
             remove the callback",
        ),
        (
            &["callbacks.hf_checkpointer={save_interval: 100ba}"],
            "`callbacks.hf_checkpointer` is refused: a checkpoint becomes a model of transformers by `export-hf \
             CHECKPOINT OUT`, during the run or after it; remove the key",
        ),
        (&["global_seed=3"], "`seed` is 17, but `global_seed` is 3; keep one of the two"),
        (
            &["train_loader.dataset.predownload=7"],
            "`train_loader.dataset.predownload` is 7, but `train_loader.dataset.prefetch` is 1000000; keep one of the \
             two",
        ),
        (
            &[
                "eval_loader=[{label: a/b, dataset: {split: val}}, {label: c, dataset: {split: val}}]",
            ],
            "`eval_loader.0.label` is `a/b`, but it is a part of the names of metrics; give it a word without `/`",
        ),
        (
            &[
                "eval_loader=[{label: a, dataset: {split: val}}, {label: '', dataset: {split: val}}]",
            ],
            "`eval_loader.1.label` is ``, but it is a part of the names of metrics; give it a word without `/`",
        ),
        (
            &["optimizer.eps=0"],
            "`optimizer.eps` is 0; it must be a number above 0, without which a weight that has no gradient becomes \
             NaN, for example 1e-8",
        ),
        (
            &["device_train_microbatch_size=foo"],
            "`device_train_microbatch_size` is \"foo\"; it must be a whole number of at least 1, or auto",
        ),
        (
            &["eval_loader.proportion=0.5"],
            "`eval_loader.proportion` is given, but only the loaders of a list `train_loader` are mixed by proportion; \
             remove it",
        ),
        (
            &["train_loader=[]"],
            "`train_loader` is an empty list; give it a loader, for example `train_loader: {name: text, dataset: {split: \
             train}}`",
        ),
        (
            &["train_loader=null"],
            "`train_loader` is missing; set it, for example `train_loader: {name: text, dataset: {split: train}}`",
        ),
        (
            &[
                "eval_loader=[{label: a, dataset: {split: val}}, {label: b, dataset: {split: val, max_seq_len: 9999}}]",
            ],
            "eval_loader.1.dataset.max_seq_len 9999 is longer than the 2048 positions of the model; raise \
             model.max_seq_len or shorten the rows",
        ),
        (
            &[
                "eval_loader=[{label: a, dataset: {split: val}}, {label: b, dataset: {eos_token_id: 1, bos_token_id: 2}}]",
            ],
            "`eval_loader.1.dataset.eos_token_id` and `eval_loader.1.dataset.bos_token_id` are both given; documents are \
             told apart by one of them: remove the other",
        ),
        (
            &[
                "eval_loader=[{label: a, dataset: {split: val}}, {label: b, dataset: {eos_token_id: 1}}]",
            ],
            "`eval_loader.1.dataset` tells documents apart by another token than `train_loader.dataset`; give both the \
             same eos_token_id or bos_token_id",
        ),
        (
            &["load_path=a", "load_strict_model_weights=false"],
            "load_strict_model_weights is false, but the moments of a checkpoint's optimizer are those of exactly its \
             parameters; set load_weights_only=true, too",
        ),
        (
            &["icl_tasks=3"],
            "`icl_tasks` is 3; it must be a list of tasks, or the path of a YAML file with one",
        ),
        (
            &["train_loader=[{dataset: {remote: a}}, {dataset: {remote: b, shuffle: false}}]"],
            "`train_loader.1.dataset.shuffle` is not that of the first loader, but the loaders of a list are mixed into \
             one; they may differ in label, proportion, dataset.remote, dataset.local and dataset.split: make the rest \
             alike",
        ),
        (
            &["train_loader=[{label: x, dataset: {remote: a}}, {label: x, dataset: {remote: b}}]"],
            "`train_loader.1.label` is `x`, as that of a loader before; give each its own",
        ),
        (
            &["train_loader=[{dataset: {remote: a}}, {dataset: {streams: {b: {remote: b}}}}]"],
            "`train_loader.1.dataset.streams` is given, but each loader of a list is a stream already; list it with the \
             others",
        ),
        (
            &["run_folder=./runs/{foo}/{run_name}"],
            "`run_folder` holds {foo}, which stands for nothing; only {run_name} and {rank} are replaced",
        ),
        (
            &["model.prefix_lm=true"],
            "`model.prefix_lm` is refused: no token attends to a later one; remove the key or set it to \
             false",
        ),
        (
            &["algorithms.gradient_clipping.clipping_type=adaptive"],
            "`algorithms.gradient_clipping.clipping_threshold` is missing; set it, for example \
             `clipping_threshold: 1.0`",
        ),
        (
            &["algorithms={gradient_clipping: {clipping_type: adaptive, clipping_threshold: 1.0}}"],
            "`grad_clip_norm` is 1, but `algorithms.gradient_clipping` asks for another clipping; \
             keep one of the two",
        ),
        (
            &["algorithms.gradient_clipping.clipping_type=norms"],
            "`algorithms.gradient_clipping.clipping_type` is `norms`; it must be one of norm, \
             value, adaptive; did you mean `norm`?",
        ),
    ] {
        assert_eq!(message(overrides), expected);
    }
}

/// As in the reference; the run is evaluated at its end all the same.
#[test]
fn an_eval_interval_of_zero_is_never() {
    for zero in ["eval_interval=0", "eval_interval=0ba", "eval_interval=0dur"] {
        assert_eq!(load(&[zero]).unwrap().eval_interval, Time::batches(0), "{zero}");
    }
}

/// What `overrides` add to the notices.
fn notices(overrides: &[&str]) -> Vec<String> {
    let had = load(&[]).unwrap().notices;
    let mut notices = load(overrides).unwrap().notices;
    notices.retain(|notice| !had.contains(notice));
    notices
}

#[test]
fn a_kernel_that_is_gone_is_noted_once() {
    let deprecated = "attn_impl triton is deprecated, as in llm-foundry: the fused attention is used, as with flash";
    assert_eq!(notices(&["model.attn_impl=triton"]), [deprecated]);
    let both = ["model.attn_impl=triton", "model.attn_config.attn_impl=triton"];
    assert_eq!(notices(&both), [deprecated]);
    assert_eq!(notices(&["model.attn_impl=torch"]), [""; 0]);
}

#[test]
fn keys_about_what_is_not_asked_for_are_noted() {
    assert_eq!(
        notices(&[
            "load_ignore_keys=[state/optimizers/*]",
            "load_strict_model_weights=false",
            "icl_seq_len=9",
            "icl_subset_num_batches=2"
        ]),
        [
            "`load_ignore_keys` has no effect here: there is no load_path",
            "`load_strict_model_weights` has no effect here: there is no load_path",
            "`icl_subset_num_batches` has no effect here: there are no icl_tasks",
            "`icl_seq_len` has no effect here: there are no icl_tasks",
        ]
    );
    let idle = ["load_ignore_keys=[]", "icl_subset_num_batches=-1", "icl_seq_len=null"];
    assert_eq!(notices(&idle), [""; 0]);
    let task =
        "icl_tasks=[{label: a, dataset_uri: a.jsonl, num_fewshot: 0, icl_task_type: schema}]";
    let asked_for = [
        "load_ignore_keys=[state/optimizers/*]",
        "load_path=runs/a",
        task,
        "icl_seq_len=9",
        "icl_subset_num_batches=2",
    ];
    assert_eq!(notices(&asked_for), [""; 0]);
}

#[test]
fn callbacks_have_the_defaults_of_the_reference() {
    let config = load(&[
        "callbacks={optimizer_monitor: {}, kill_loss_spike: {}, early_stopper: {monitor: Perplexity, \
         dataloader_label: train, patience: 0.25dur}}",
    ])
    .unwrap();
    let monitor = config.callbacks.optimizer_monitor.unwrap();
    assert_eq!((monitor.interval, monitor.log_optimizer_metrics), (Time::batches(10), true));
    let spike = config.callbacks.kill_loss_spike.unwrap();
    assert_eq!((spike.log_only, spike.patience, spike.window_size), (true, 4, 100));
    assert_eq!((spike.outlier_multiplier, spike.loss_cap), (2.0, 10.0));
    let stopper = config.callbacks.early_stopper.unwrap();
    assert_eq!((stopper.patience, stopper.min_delta), (Time::batches(1200), 0.0));
}

#[test]
fn an_early_stopper_that_cannot_work_is_one_sentence() {
    for (stopper, more, expected) in [
        (
            "monitor: Perplexity",
            "",
            "`callbacks.early_stopper.dataloader_label` is missing; set it, for example \
             `dataloader_label: eval`",
        ),
        (
            "monitor: Accuracy, dataloader_label: eval",
            "",
            "`callbacks.early_stopper.monitor` is `Accuracy`; it must be one of \
             LanguageCrossEntropy, LanguagePerplexity, BitsPerByte",
        ),
        (
            "monitor: Perplexity, dataloader_label: train",
            "",
            "`callbacks.early_stopper.patience` is 1ep, but a train_loader with group_method concat \
             has no epochs; count batches, samples or tokens, for example 1000ba",
        ),
        (
            "monitor: BitsPerByte, dataloader_label: eval, patience: 9ba",
            "eval_interval=0ba",
            "callbacks.early_stopper watches evaluations, but the run has none before its end; set \
             eval_loader and eval_interval, or callbacks.early_stopper.dataloader_label=train",
        ),
    ] {
        let stopper = format!("callbacks={{early_stopper: {{{stopper}}}}}");
        let more = if more.is_empty() { "seed=17" } else { more };
        assert_eq!(message(&[&stopper, more]), expected);
    }
}

#[test]
fn a_missing_file_is_named() {
    let missing = Path::new("yamls/nowhere.yaml");
    assert_eq!(
        Config::load(missing, &[]).unwrap_err().to_string(),
        "there is no configuration file `yamls/nowhere.yaml`; start from one of the files in yamls/"
    );
}

/// The resolved recipe is printed and stored; keys in addresses are in neither.
#[test]
fn options_of_addresses_are_not_written() {
    let keys = "access_key_id=AK&secret_access_key=topsecret&region=x";
    let addresses = ["data_remote", "save_folder", "load_path", "run_folder", "tokenizer_name"]
        .map(|key| format!("{key}=s3://bucket/{key}?{keys}"));
    let config = Config::load(&yamls().join("125m.yaml"), &addresses).unwrap();
    let remote = config.train_loader.dataset.remote.as_deref();
    assert_eq!(remote, addresses[0].strip_prefix("data_remote="));
    let (yaml, json) = (config.to_yaml(), serde_json::to_string(&config).unwrap());
    for text in [yaml, json, format!("{config:?}"), format!("{config:#?}")] {
        for key in ["data_remote", "save_folder", "load_path", "run_folder", "tokenizer_name"] {
            assert!(text.contains(&format!("s3://bucket/{key}")), "{key} is not in {text}");
        }
        assert!(!text.contains("topsecret") && !text.contains('?'), "{text}");
    }
}

#[test]
fn a_value_that_cannot_be_is_shown_without_keys() {
    for (given, expected) in [
        (
            "data_remote=[s3://bucket/c4?token=topsecret]",
            // Cut where the options begin: where a text ends them is not known.
            "`data_remote` is [\"s3://bucket/c4; it must be a text",
        ),
        (
            "device=s3://bucket/c4?token=topsecret",
            "`device` is `s3://bucket/c4`; it must be one of auto, cpu, cuda, gpu",
        ),
        (
            "s3://bucket/c4?topsecret",
            "`s3://bucket/c4` is not an override; write key.sub=value, for example max_duration=100ba",
        ),
    ] {
        assert_eq!(message(&[given]), expected);
    }
}

#[test]
fn what_cannot_be_listed_keeps_no_run() {
    for (given, shown) in [
        ("save_folder=https://host/run", "`save_folder` is `https://host/run`"),
        ("save_folder=hf://datasets/org/name/run", "`save_folder` is `hf://datasets/org/name/run`"),
        ("run_folder=http://me:topsecret@host/run", "`run_folder` is `http://host/run`"),
    ] {
        assert_eq!(
            message(&[given]),
            format!(
                "{shown}, but what a run keeps must be listed to be found again, which web servers and the Hugging \
                 Face hub do not offer; give a folder, or a bucket by s3://, gs:// or az://"
            )
        );
    }
    assert_eq!(
        message(&["load_path=sftp://host/run"]),
        "`load_path`: the remote sftp://host/run is of a kind that is not read or written; mount the folder with \
         sshfs and give its path, serve it by http, or copy the dataset to an object store"
    );
}
