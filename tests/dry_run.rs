//! `train --dry_run`: what a run would be, from its recipe alone; and the refusal of what does not fit the machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use trainer::config::{Config, Engine};

#[path = "support/training.rs"]
mod training;
use training::{failure, repository, small_dataset, small_recipe, succeed, train};

fn recipe(name: &str) -> PathBuf {
    repository().join("yamls").join(name).with_extension("yaml")
}

/// `train --dry_run RECIPE OVERRIDES` in an empty folder, where no dataset and no tokenizer is found.
fn dry_run(flag: &str, recipe: &Path, overrides: &[&str]) -> Output {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.arg(flag).arg(recipe).args(overrides).stdin(Stdio::null());
    let output = succeed(command.current_dir(empty.path()));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "something was written");
    output
}

fn report(name: &str, overrides: &[&str]) -> String {
    String::from_utf8(dry_run("--dry_run", &recipe(name), overrides).stdout).unwrap()
}

/// What is printed below the recipe.
fn comments(report: &str) -> Vec<&str> {
    report.lines().filter_map(|line| line.strip_prefix("# ")).collect()
}

#[test]
fn every_size_has_its_published_count_of_parameters_at_once() {
    for (name, n_params, flops, steps, tokens) in [
        ("125m", "1.25e+08 (125226240)", 0.978, 4_800, 2_516_582_400),
        ("350m", "3.56e+08 (355871744)", 2.739, 13_400, 7_025_459_200),
        ("760m", "7.60e+08 (760300032)", 5.468, 29_000, 15_204_352_000),
        ("1b", "1.32e+09 (1315723264)", 9.102, 24_800, 26_004_684_800),
        ("3b", "2.65e+09 (2651553280)", 17.92, 51_500, 54_001_664_000),
        ("7b", "6.66e+09 (6658404352)", 43.17, 63_900, 134_008_012_800),
        ("13b", "1.29e+10 (12853386240)", 82.15, 124_000, 260_046_848_000),
        ("30b", "3.00e+10 (29974418432)", 188.3, 143_100, 600_204_902_400),
        ("70b", "6.49e+10 (64861528064)", 405.3, 333_800, 1_400_058_675_200_u64),
    ] {
        let began = Instant::now();
        let report = report(name, &["device=cuda"]);
        assert!(began.elapsed() < Duration::from_secs(1), "{name}: {:?}", began.elapsed());
        let comments = comments(&report);
        assert!(comments.contains(&&*format!("n_params={n_params}")), "{name}: {report}");
        let run = format!("{steps}ba: {steps} steps, {tokens} tokens (");
        assert!(comments.iter().any(|line| line.starts_with(&run)), "{name}: {report}");
        let given = comments.iter().find_map(|line| line.strip_prefix("flops_per_token=")).unwrap();
        let exact: f64 = given.split(['(', ')']).nth(1).unwrap().parse().unwrap();
        assert!((exact / 1e9 / flops - 1.0).abs() < 5e-4, "{name}: {exact}");
    }
}

#[test]
fn what_it_prints_is_the_resolved_recipe_and_its_figures() {
    let overrides = ["device=cuda", "max_duration=1e9tok", "scheduler.t_warmup=0.1dur"];
    let report = report("125m", &overrides);
    let resolved = Config::from_yaml_str(&report, &[]).unwrap();
    let config = Config::load(&recipe("125m"), &overrides.map(str::to_owned)).unwrap();
    assert_eq!(Config { notices: Vec::new(), ..config.clone() }, resolved);
    assert_eq!(
        comments(&report),
        [
            "note: `fsdp_config.sharding_strategy` has no effect here: this run has one device",
            "n_params=1.25e+08 (125226240)",
            "flops_per_token=9.78e+08 (977849856), forward and backward",
            "world size 1: device batch 256 rows, microbatch 16, grad_accum 16; 524288 tokens per step",
            "1000000000tok: 1908 steps, 1000341504 tokens (8.0 per parameter), 9.78e+17 FLOPs",
            "memory of a step on one device (cuda, matrix products in bf16):",
            "         500904960 bytes  500.90 MB  weights",
            "        1001809920 bytes    1.00 GB  gradients: of a microbatch, and the sum of those before it",
            "        1001809920 bytes    1.00 GB  moments",
            // 12 blocks that keep 46 · 768 + 4 · 12 bytes per token and 2 of each weight; 16 · 768 per token beside them.
            "       14483174400 bytes   14.48 GB  activations of a microbatch",
            "        2783989504 bytes    2.78 GB  activations of a microbatch with activation_checkpointing",
            // 512 · 50257 logits, probabilities and their halves, two gradients of the head, its half and its padded copy.
            "         797679104 bytes  797.68 MB  beside them: logits, or the largest gradient in a block",
            "       17284473344 bytes   17.28 GB  the most at one time",
        ]
    );
}

#[test]
fn the_flag_has_two_spellings_and_any_place() {
    let (recipe, overrides) = (recipe("1b"), ["device=cuda", "seed=3"]);
    let expected = dry_run("--dry_run", &recipe, &overrides).stdout;
    assert_eq!(dry_run("--dry-run", &recipe, &overrides).stdout, expected);
    let mut last = train(&recipe, &overrides);
    assert_eq!(succeed(last.arg("--dry_run")).stdout, expected);
}

#[test]
fn seventy_billion_parameters_are_planned_in_little_memory() {
    // 1 GB of addresses, for a model of 259 GB.
    let mut command = Command::new("sh");
    let recipe = recipe("70b");
    command.args(["-c", "ulimit -v 1000000 && exec \"$0\" --dry_run \"$1\" device=cpu"]);
    command.arg(env!("CARGO_BIN_EXE_train")).arg(recipe);
    let report = String::from_utf8(succeed(&mut command).stdout).unwrap();
    let comments = comments(&report);
    assert!(comments.contains(&"n_params=6.49e+10 (64861528064)"), "{report}");
    assert!(comments.iter().any(|line| line.starts_with("available here: ")), "{report}");
    let refused = "note: train refuses this here: a step takes about ";
    assert!(comments.last().unwrap().starts_with(refused), "{report}");
}

#[test]
fn epochs_are_not_counted_without_the_data() {
    let overrides =
        ["max_duration=2ep", "train_loader.dataset.group_method=truncate", "device=cuda"];
    let report = report("125m", &overrides);
    let expected = "2ep: how many steps that is depends on the data, which is not read here";
    assert!(comments(&report).contains(&expected), "{report}");
}

#[test]
fn what_is_wrong_with_a_recipe_is_said_without_training() {
    for (overrides, expected) in [
        (
            ["max_duration=1e9tok", "scheduler.t_warmup=100ba", "scheduler.t_max=1e9tok"],
            "error: scheduler.t_warmup is 100ba, but the schedule ends at 1000000000tok, and batches cannot be compared \
             with tokens; give both in one unit, or t_warmup in dur",
        ),
        (
            ["model.n_heads=7", "seed=1", "device=cuda"],
            "error: model.d_model 768 does not divide into 7 heads; make it a multiple of model.n_heads",
        ),
        (
            ["model.d_model=12000000000", "seed=1", "device=cuda"],
            "error: the model would have about 3e22 parameters; lower model.d_model, model.n_layers, model.vocab_size, \
             model.max_seq_len or the width of the feed-forward",
        ),
        (
            ["model.mlp_ratio=100000000000000000", "seed=1", "device=cuda"],
            "error: the model would have about 2e24 parameters; lower model.d_model, model.n_layers, model.vocab_size, \
             model.max_seq_len or the width of the feed-forward",
        ),
    ] {
        let mut command = train(&recipe("125m"), &overrides);
        assert_eq!(failure(command.arg("--dry_run")), expected);
    }
}

#[test]
fn a_run_that_does_not_fit_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let small = small_recipe(folder.path(), &small_dataset(folder.path()));
    let began = Instant::now();
    let said = failure(&mut train(&small, &["model.d_model=16384", "model.n_layers=200"]));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // What is available is not the same twice.
    let (before, after) = said.split_once(" with a microbatch").unwrap();
    let (middle, remedy) = after.split_once(" are available").unwrap();
    assert_eq!(before, "error: a step takes about 12.89 TB of memory");
    assert_eq!(middle.rsplit_once(", but ").unwrap().0, " of 4 rows of 32 tokens");
    assert_eq!(
        remedy,
        "; take a smaller model or a shorter max_seq_len, or a machine with more memory"
    );
    assert!(!folder.path().join("run").exists() && !folder.path().join("checkpoints").exists());
}

/// The sentences themselves, with what is available given.
#[test]
fn a_refusal_names_both_figures_and_the_largest_microbatch_that_fits() {
    let config = |overrides: &[&str]| {
        let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
        Config::load(&recipe("125m"), &overrides).unwrap()
    };
    let refusal = |config: &Config, available: u64| {
        let plan = config.batch_plan(1).unwrap();
        config.plan_within(plan, Engine::Cpu, available).unwrap_err().to_string()
    };
    let whole = config(&[]);
    assert_eq!(
        refusal(&whole, 5_000_000_000),
        "a step takes about 15.26 GB of memory with a microbatch of 16 rows of 2048 tokens, but 5.00 GB are available; \
         set device_train_microbatch_size=3"
    );
    let checkpointing = "but 3.00 GB are available; set fsdp_config.activation_checkpointing=true and \
                         device_train_microbatch_size=4";
    assert!(refusal(&whole, 3_000_000_000).ends_with(checkpointing));
    assert_eq!(
        refusal(&whole, 2_000_000_000),
        "a step takes about 15.26 GB of memory with a microbatch of 16 rows of 2048 tokens, but 2.00 GB are available; \
         take a smaller model or a shorter max_seq_len, or a machine with more memory"
    );
    let one_row = config(&["device_train_microbatch_size=1", "global_train_batch_size=1"]);
    assert_eq!(
        refusal(&one_row, 2_500_000_000),
        "a step takes about 2.54 GB of memory with a microbatch of 1 row of 2048 tokens, but 2.50 GB are available; \
         set fsdp_config.activation_checkpointing=true"
    );

    // The remedy works, and is the least that does.
    let memory = |rows: usize| {
        let config = config(&[&format!("device_train_microbatch_size={rows}")]);
        let plan = config.batch_plan(1).unwrap();
        config.step_memory(&plan, Engine::Cpu).peak
    };
    for available in [memory(1), memory(3), memory(3) + 1, memory(15)] {
        let said = refusal(&whole, available);
        let rows = said.split_once("device_train_microbatch_size=").unwrap().1.parse().unwrap();
        assert!(memory(rows) <= available && available < memory(rows + 1), "{said}");
    }
    let plan = whole.batch_plan(1).unwrap();
    assert_eq!(whole.plan_within(plan.clone(), Engine::Cpu, memory(16)).unwrap(), plan);

    // What is to be found is found, by halves.
    let auto = config(&["device_train_microbatch_size=auto", "global_train_batch_size=24"]);
    let plan = auto.batch_plan(1).unwrap();
    let found = auto.plan_within(plan, Engine::Cpu, memory(4)).unwrap();
    assert_eq!((found.device_batch, found.microbatch, found.grad_accum), (24, 3, 8));
    assert_eq!(
        found.notice.as_deref(),
        Some(
            "device_train_microbatch_size is 3: 24 rows take about 21.31 GB of memory, and 5.43 GB are available"
        )
    );
    assert_eq!(
        refusal(&auto, 3_000_000_000),
        "a step takes about 3.04 GB of memory with a microbatch of 1 row of 2048 tokens, but 3.00 GB are available; \
         set fsdp_config.activation_checkpointing=true"
    );
}
