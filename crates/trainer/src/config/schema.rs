//! Every key of a configuration, and what becomes of it: read, accepted without effect, or refused.
//!
//! The rule for options that are not supported: where ignoring one would change the trained model
//! it is refused by name; where it would not, it is accepted with a notice.

use serde_json::Value;

use super::yaml::join;
use crate::error::{Error, Result};

/// One key and its rule.
pub(super) struct Key {
    name: &'static str,
    rule: Rule,
}

enum Rule {
    /// Read by `read.rs`.
    Read,
    /// A section with these keys.
    Section(&'static [Key]),
    /// A section of sections with these keys, which have names of the user's own.
    Named(&'static [Key]),
    /// A section with these keys, or a list of such.
    OneOrMany(&'static [Key]),
    /// A section with any keys.
    Open,
    /// Accepted and of no consequence, not worth a notice: values that recipes carry as a record,
    /// and hints to another framework's loader.
    Silent,
    /// Accepted without effect, with a notice why.
    NoEffect(&'static str),
    /// Refused with the reason, except null and these values, which ask for nothing.
    Refused { harmless: &'static [&'static str], why: &'static str },
}

const fn read(name: &'static str) -> Key {
    Key { name, rule: Rule::Read }
}
const fn section(name: &'static str, keys: &'static [Key]) -> Key {
    Key { name, rule: Rule::Section(keys) }
}
const fn silent(name: &'static str) -> Key {
    Key { name, rule: Rule::Silent }
}
const fn no_effect(name: &'static str, why: &'static str) -> Key {
    Key { name, rule: Rule::NoEffect(why) }
}
const fn refused(name: &'static str, harmless: &'static [&'static str], why: &'static str) -> Key {
    Key { name, rule: Rule::Refused { harmless, why } }
}

const OFF: &[&str] = &["false"];
const ONE_DEVICE: &str = "this run has one device";
const NO_TRACKER: &str =
    "metrics go to metrics.jsonl, the loss curve, tensorboard, mlflow and prometheus";
const NO_CALLBACK: &str = "this callback is not supported; it does not change what is trained";
const SAME_RESULT: &str = "it chooses a faster kernel, not another result";
const NOT_CAUSAL: &str = "no token attends to a later one";
const FOR_ALL_STREAMS: &str = "it is set for all streams together, beside `streams`";
const NOT_YET: &str = "it is not supported yet";
const NO_GAUNTLET: &str = "accuracies are logged task by task, and no average over tasks is made";
const NO_PROGRAMS: &str = "programs that a model writes are not run";
const NO_HUB_ROWS: &str = "dataset_uri is a file of JSON lines, whose keys have fixed names";

/// The top level.
pub(super) const ROOT: &[Key] = &[
    read("data_remote"),
    read("data_local"),
    read("max_seq_len"),
    read("tokenizer_name"),
    // A variable that older recipes refer to.
    silent("num_canonical_nodes"),
    read("global_seed"),
    read("run_name"),
    read("run_folder"),
    Key { name: "variables", rule: Rule::Open },
    section("model", MODEL),
    section("tokenizer", TOKENIZER),
    Key { name: "train_loader", rule: Rule::OneOrMany(LOADER) },
    Key { name: "eval_loader", rule: Rule::OneOrMany(LOADER) },
    section("scheduler", SCHEDULER),
    section("optimizer", OPTIMIZER),
    section("algorithms", ALGORITHMS),
    read("max_duration"),
    read("eval_interval"),
    read("eval_first"),
    read("eval_subset_num_batches"),
    read("global_train_batch_size"),
    read("seed"),
    read("device_train_microbatch_size"),
    read("device_eval_batch_size"),
    read("grad_clip_norm"),
    read("accumulate_train_batch_on_tokens"),
    read("precision"),
    read("device"),
    section("fsdp_config", FSDP),
    no_effect("tp_config", ONE_DEVICE),
    no_effect("dist_timeout", ONE_DEVICE),
    read("progress_bar"),
    read("log_to_console"),
    read("console_log_interval"),
    silent("log_config"),
    no_effect("python_log_level", "RUST_LOG sets the level, for example RUST_LOG=debug"),
    section("callbacks", CALLBACKS),
    section("loggers", LOGGERS),
    read("save_folder"),
    read("save_interval"),
    read("save_num_checkpoints_to_keep"),
    read("save_overwrite"),
    no_effect("save_filename", "checkpoints have fixed names"),
    no_effect("save_latest_filename", "the newest checkpoint is found by itself"),
    read("save_weights_only"),
    refused("save_ignore_keys", &["[]"], NOT_YET),
    read("load_path"),
    read("load_weights_only"),
    read("load_ignore_keys"),
    read("load_strict_model_weights"),
    read("autoresume"),
    section("generate", GENERATE),
    refused("train_subset_num_batches", &["-1"], "set max_duration instead"),
    Key { name: "icl_tasks", rule: Rule::OneOrMany(ICL_TASK) },
    read("icl_tasks_str"),
    read("icl_subset_num_batches"),
    read("icl_seq_len"),
    refused("eval_gauntlet", &[], NO_GAUNTLET),
    refused("eval_gauntlet_str", &[], NO_GAUNTLET),
    refused("code_paths", &["[]"], "Python code cannot be loaded"),
    no_effect("compile_config", SAME_RESULT),
    no_effect("profiler", "there is no profiler yet"),
    no_effect("metadata", NO_TRACKER),
    no_effect("flatten_metadata", NO_TRACKER),
    silent("max_split_size_mb"),
    silent("expandable_segments"),
    silent("cuda_load_lazy"),
    silent("spin_dataloaders"),
    silent("matmul_precision"),
    // Values that the reference writes back into the configuration.
    silent("n_gpus"),
    silent("n_params"),
    silent("device_train_batch_size"),
    silent("device_train_grad_accum"),
];

const FSDP: &[Key] = &[
    no_effect("sharding_strategy", ONE_DEVICE),
    read("activation_checkpointing"),
    silent("activation_checkpointing_reentrant"),
    silent("activation_cpu_offload"),
    silent("backward_prefetch"),
    silent("backward_prefetch_limit"),
    silent("cpu_offload"),
    silent("flatten_parameters"),
    silent("forward_prefetch"),
    silent("forward_prefetch_limit"),
    silent("keep_low_precision_grads"),
    silent("limit_all_gathers"),
    silent("load_monolith_rank0_only"),
    silent("load_planner"),
    silent("min_params"),
    silent("mixed_precision"),
    silent("save_planner"),
    silent("sharded_ckpt_prefix_dir"),
    silent("state_dict_type"),
    silent("sync_module_states"),
    silent("use_orig_params"),
    silent("verbose"),
];

const MODEL: &[Key] = &[
    read("name"),
    no_effect("device", "weights are made on the training device"),
    no_effect("init_device", "weights are made on the training device"),
    silent("tokenizer_name"),
    silent("verbose"),
    read("d_model"),
    read("n_heads"),
    read("n_layers"),
    read("mlp_ratio"),
    read("expansion_ratio"),
    read("max_seq_len"),
    read("vocab_size"),
    read("init_std"),
    read("attn_pdrop"),
    read("resid_pdrop"),
    read("emb_pdrop"),
    read("attn_impl"),
    read("embedding_fraction"),
    section("attn_config", ATTENTION),
    silent("loss_fn"),
    read("alibi"),
    read("alibi_bias_max"),
    read("attn_qk_ln"),
    read("attn_clip_qkv"),
    read("softmax_scale"),
    refused("prefix_lm", OFF, NOT_CAUSAL),
    read("attn_uses_sequence_id"),
    read("no_bias"),
    read("logit_scale"),
    read("learned_pos_emb"),
    read("tie_word_embeddings"),
    read("param_init_fn"),
    section("init_config", INIT),
    read("norm_type"),
    read("norm_eps"),
    read("final_logit_softcapping"),
    silent("low_precision_layernorm"),
    section("ffn_config", FFN),
    refused("attention_bias", &["true"], "biases are left out all together; set no_bias"),
    refused("block_overrides", &[], "all blocks are alike"),
    silent("fc_type"),
    silent("use_cache"),
];

const ATTENTION: &[Key] = &[
    read("attn_type"),
    read("kv_n_heads"),
    read("attn_impl"),
    read("attn_pdrop"),
    read("alibi"),
    read("alibi_bias_max"),
    read("rope"),
    read("rope_theta"),
    silent("rope_impl"),
    section(
        "rope_dail_config",
        &[read("type"), silent("pos_idx_in_fp32"), silent("xpos_scale_base")],
    ),
    section(
        "rope_hf_config",
        &[
            read("type"),
            read("factor"),
            read("low_freq_factor"),
            read("high_freq_factor"),
            read("original_max_position_embeddings"),
        ],
    ),
    read("qk_ln"),
    read("qk_gn"),
    silent("fused_qkv"),
    read("clip_qkv"),
    read("softmax_scale"),
    read("attn_logit_softcapping"),
    refused("prefix_lm", OFF, NOT_CAUSAL),
    read("attn_uses_sequence_id"),
    read("sliding_window_size"),
];

const FFN: &[Key] = &[
    read("ffn_type"),
    read("ffn_hidden_size"),
    section("ffn_act_fn", &[read("name"), read("approximate")]),
    silent("fc_type"),
];

const INIT: &[Key] = &[
    read("name"),
    read("init_std"),
    read("init_div_is_residual"),
    read("emb_init_std"),
    read("emb_init_uniform_lim"),
    read("init_gain"),
    read("fan_mode"),
    read("init_nonlinearity"),
    silent("verbose"),
];

const TOKENIZER: &[Key] = &[
    silent("type"),
    read("name"),
    section("args", &[read("tokenizer_name"), silent("max_seq_len")]),
    section("kwargs", &[silent("model_max_length")]),
];

const LOADER: &[Key] = &[
    read("name"),
    section("dataset", DATASET),
    read("drop_last"),
    read("num_workers"),
    read("prefetch_factor"),
    read("eval_subset_num_batches"),
    read("label"),
    read("proportion"),
    silent("pin_memory"),
    silent("persistent_workers"),
    silent("timeout"),
    no_effect("seed", "dataset.shuffle_seed sets the order"),
];

const DATASET: &[Key] = &[
    read("remote"),
    read("local"),
    read("split"),
    read("shuffle"),
    read("shuffle_algo"),
    read("shuffle_seed"),
    read("shuffle_block_size"),
    read("num_canonical_nodes"),
    read("predownload"),
    read("prefetch"),
    read("cache_limit"),
    read("validate_hash"),
    read("keep_zip"),
    read("retry"),
    read("download_retry"),
    read("timeout"),
    read("download_timeout"),
    read("tokenizer_name"),
    read("max_seq_len"),
    read("group_method"),
    read("bos_text"),
    read("eos_text"),
    read("token_encoding_type"),
    silent("batch_size"),
    Key { name: "streams", rule: Rule::Named(STREAM) },
    read("epoch_size"),
    read("partition_algo"),
    read("sampling_method"),
    read("sampling_granularity"),
    read("batching_method"),
    refused("replication", &[], NOT_YET),
    read("eos_token_id"),
    read("bos_token_id"),
    silent("allow_unsafe_types"),
];

const STREAM: &[Key] = &[
    read("remote"),
    read("local"),
    read("split"),
    read("proportion"),
    read("repeat"),
    read("choose"),
    refused("download_retry", &[], FOR_ALL_STREAMS),
    refused("download_timeout", &[], FOR_ALL_STREAMS),
    refused("validate_hash", &[], FOR_ALL_STREAMS),
    refused("keep_zip", &[], FOR_ALL_STREAMS),
];

const SCHEDULER: &[Key] = &[
    read("name"),
    read("t_warmup"),
    read("t_max"),
    read("alpha_f"),
    read("t_scale"),
    read("t_cooldown"),
    read("alpha_f_decay"),
    read("alpha_f_cooldown"),
    no_effect(
        "scale_warmup",
        "it stretches the warm-up with the schedule, and no recipe stretches the schedule",
    ),
];

const OPTIMIZER: &[Key] = &[
    read("name"),
    read("lr"),
    read("betas"),
    read("eps"),
    read("weight_decay"),
    refused("amsgrad", OFF, NOT_YET),
];

const ALGORITHMS: &[Key] = &[
    section("gradient_clipping", &[read("clipping_type"), read("clipping_threshold")]),
    refused("alibi", &[], "it is part of the model; set model.attn_config.alibi=true"),
    no_effect("fused_layernorm", SAME_RESULT),
    no_effect("low_precision_layernorm", "normalisation is always done in fp32"),
    refused(
        "gated_linear_units",
        &[],
        "they are part of the model; set model.ffn_config.ffn_type=mptglu",
    ),
];

const CALLBACKS: &[Key] = &[
    section("speed_monitor", &[read("window_size"), read("gpu_flops_available")]),
    section("lr_monitor", &[]),
    section("memory_monitor", &[]),
    section("runtime_estimator", &[]),
    section(
        "optimizer_monitor",
        &[read("interval"), read("batch_log_interval"), read("log_optimizer_metrics")],
    ),
    section(
        "early_stopper",
        &[read("monitor"), read("dataloader_label"), read("patience"), read("min_delta")],
    ),
    section(
        "kill_loss_spike",
        &[
            read("log_only"),
            read("patience"),
            read("outlier_multiplier"),
            read("window_size"),
            read("loss_cap"),
        ],
    ),
    no_effect("scheduled_gc", NO_CALLBACK),
    no_effect("system_metrics_monitor", NO_CALLBACK),
    no_effect("memory_snapshot", NO_CALLBACK),
    no_effect("fdiff", NO_CALLBACK),
    no_effect("health_checker", NO_CALLBACK),
    no_effect("generate_callback", "set generate.prompt for a text at the end"),
    no_effect("mono_ckpt_saver", NO_CALLBACK),
    no_effect("fdiff_metrics", NO_CALLBACK),
    no_effect("mono_checkpoint_saver", NO_CALLBACK),
    no_effect("oom_observer", NO_CALLBACK),
    no_effect("eval_output_logging", NO_CALLBACK),
    no_effect("loss_perp_v_len", NO_CALLBACK),
    no_effect("env_logging", NO_CALLBACK),
    no_effect("nan_monitor", "a loss that is not a number always ends the run"),
    refused(
        "hf_checkpointer",
        &[],
        "a checkpoint becomes a model of transformers by `export-hf CHECKPOINT OUT`, during the run or after it",
    ),
    refused("run_timeout", &[], NOT_YET),
    refused("load_checkpoint", &[], "set load_path"),
    refused("async_eval", &[], NOT_YET),
    refused("curriculum_learning", &[], NOT_YET),
    refused("dataset_swap", &[], NOT_YET),
    refused("global_lr_scaling", &[], NOT_YET),
    refused("layer_freezing", &[], NOT_YET),
];

const LOGGERS: &[Key] = &[
    section("tensorboard", &[silent("log_dir"), silent("flush_interval")]),
    read("loss_curve"),
    no_effect("wandb", "scripts/wandb-upload uploads a finished metrics.jsonl"),
    section(
        "mlflow",
        &[
            read("tracking_uri"),
            read("experiment_name"),
            read("run_name"),
            Key { name: "tags", rule: Rule::Open },
            silent("flush_interval"),
            silent("logging_buffer_seconds"),
            silent("log_system_metrics"),
            silent("rank_zero_only"),
            silent("rename_metrics"),
            silent("resume"),
            silent("synchronous"),
        ],
    ),
    section("prometheus", &[read("address")]),
    no_effect("comet_ml", NO_TRACKER),
    no_effect("neptune", NO_TRACKER),
    no_effect("mosaicml", NO_TRACKER),
    no_effect("file", NO_TRACKER),
    no_effect("inmemory", NO_TRACKER),
    no_effect("slack", NO_TRACKER),
];

const GENERATE: &[Key] = &[
    read("prompt"),
    read("max_new_tokens"),
    read("temperature"),
    read("top_k"),
    read("top_p"),
    read("repetition_penalty"),
];

/// The top level of a file of in-context tasks.
const ICL_TASKS: &[Key] = &[
    Key { name: "icl_tasks", rule: Rule::OneOrMany(ICL_TASK) },
    Key { name: "variables", rule: Rule::Open },
];

const ICL_TASK: &[Key] = &[
    read("label"),
    read("dataset_uri"),
    read("num_fewshot"),
    read("icl_task_type"),
    read("prompt_string"),
    read("example_delimiter"),
    read("continuation_delimiter"),
    read("question_prelimiter"),
    read("has_categories"),
    read("fewshot_random_seed"),
    read("max_seq_len"),
    read("metric_names"),
    silent("batch_size"),
    silent("pad_tok_id"),
    refused("hf_loading_vars", &["{}"], NO_HUB_ROWS),
    refused("hf_parsing_map", &["{}"], NO_HUB_ROWS),
    read("cot_delimiter"),
    read("early_stopping_criteria"),
    read("do_normalization"),
    refused("generation_kwargs", &["{}"], "an answer is made of the likeliest tokens"),
    refused("pass_at_k", &[], NO_PROGRAMS),
    refused("generations_per_sample", &[], NO_PROGRAMS),
];

/// Checks every key of a file of in-context tasks.
///
/// # Errors
/// As [`check`].
pub(super) fn check_icl_tasks(tree: &Value) -> Result<()> {
    check_section(tree, ICL_TASKS, "", &mut Vec::new())
}

/// Checks every key of `tree` against the tables above, and returns the notices.
///
/// # Errors
/// An unknown key, with the nearest known one; an unsupported option that asks for something.
pub(super) fn check(tree: &Value) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    check_section(tree, ROOT, "", &mut notices)?;
    Ok(notices)
}

fn check_section(
    value: &Value,
    keys: &'static [Key],
    path: &str,
    notices: &mut Vec<String>,
) -> Result<()> {
    let Value::Object(map) = value else { return Ok(()) };
    for (name, value) in map {
        let full = join(path, name);
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            return Err(unknown_key(&full, name, keys));
        };
        match &key.rule {
            Rule::Section(keys) => check_section(value, keys, &full, notices)?,
            Rule::OneOrMany(keys) => match value {
                Value::Array(list) => {
                    for (index, value) in list.iter().enumerate() {
                        check_section(value, keys, &join(&full, &index.to_string()), notices)?;
                    }
                }
                one => check_section(one, keys, &full, notices)?,
            },
            Rule::Named(keys) => {
                let Value::Object(named) = value else { continue };
                for (name, value) in named {
                    check_section(value, keys, &join(&full, name), notices)?;
                }
            }
            Rule::NoEffect(why) if !is_harmless(value, OFF) => {
                notices.push(format!("`{full}` has no effect here: {why}"));
            }
            Rule::Refused { harmless, why } if !is_harmless(value, harmless) => {
                let remedy = match harmless.first() {
                    Some(only) => format!("remove the key or set it to {only}"),
                    None => "remove the key".to_owned(),
                };
                return Err(Error::Config(format!("`{full}` is refused: {why}; {remedy}")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_harmless(value: &Value, harmless: &[&str]) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => harmless.contains(&text.as_str()),
        other => harmless.contains(&other.to_string().as_str()),
    }
}

fn unknown_key(full: &str, name: &str, keys: &'static [Key]) -> Error {
    let prefix = full.strip_suffix(name).unwrap_or_default();
    // A key of the same section that is spelled nearly so, else one of this very name elsewhere.
    let near = nearest(name, keys.iter().map(|key| key.name)).map(|near| format!("{prefix}{near}"));
    let elsewhere = || {
        let mut found = Vec::new();
        find_everywhere(name, ROOT, "", &mut found);
        found.into_iter().next()
    };
    let hint = match near.or_else(elsewhere) {
        Some(hint) => format!("did you mean `{hint}`?"),
        None if prefix.is_empty() => {
            "correct or remove it, or put variables of your own under `variables`".to_owned()
        }
        None if keys.is_empty() => format!("`{}` takes no keys", prefix.trim_end_matches('.')),
        None => {
            let names: Vec<_> = keys.iter().filter(|k| k.is_offered()).map(|k| k.name).collect();
            format!("`{}` takes {}", prefix.trim_end_matches('.'), names.join(", "))
        }
    };
    Error::Config(format!("unknown key `{full}`; {hint}"))
}

impl Key {
    fn is_offered(&self) -> bool {
        matches!(
            self.rule,
            Rule::Read | Rule::Section(_) | Rule::OneOrMany(_) | Rule::Named(_) | Rule::Open
        )
    }
}

fn find_everywhere(name: &str, keys: &'static [Key], path: &str, found: &mut Vec<String>) {
    for key in keys {
        let full = join(path, key.name);
        if key.name == name && key.is_offered() {
            found.push(full.clone());
        }
        if let Rule::Section(keys) | Rule::OneOrMany(keys) = &key.rule {
            find_everywhere(name, keys, &full, found);
        }
    }
}

/// `; did you mean `key`?`, or nothing where no candidate comes near.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// The candidate fewest edits away, if those are at most a third of the name (and at least two
/// are allowed for).
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.replace('-', "_").to_lowercase();
    let allowed = (name.chars().count() / 3).max(2).min(name.chars().count().saturating_sub(1));
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
