use serde_json::json;

use super::*;

fn message(tree: Value) -> String {
    check(&tree).unwrap_err().to_string()
}

#[test]
fn an_unknown_key_names_the_nearest_one_at_any_depth() {
    for (tree, expected) in [
        (json!({"max_durations": 1}), "unknown key `max_durations`; did you mean `max_duration`?"),
        (
            json!({"model": {"d_modle": 1}}),
            "unknown key `model.d_modle`; did you mean `model.d_model`?",
        ),
        (
            json!({"train_loader": {"dataset": {"grup_method": 1}}}),
            "unknown key `train_loader.dataset.grup_method`; did you mean \
             `train_loader.dataset.group_method`?",
        ),
        (json!({"save-interval": 1}), "unknown key `save-interval`; did you mean `save_interval`?"),
        // Right name, wrong place.
        (json!({"t_warmup": 1}), "unknown key `t_warmup`; did you mean `scheduler.t_warmup`?"),
        (
            json!({"my_own_thing": 1}),
            "unknown key `my_own_thing`; correct or remove it, or put variables of your own \
             under `variables`",
        ),
        (
            json!({"generate": {"xyz": 1}}),
            "unknown key `generate.xyz`; `generate` takes prompt, max_new_tokens, \
             temperature, top_k, top_p, repetition_penalty",
        ),
        (
            json!({"callbacks": {"lr_monitor": {"xyz": 1}}}),
            "unknown key `callbacks.lr_monitor.xyz`; `callbacks.lr_monitor` takes no keys",
        ),
    ] {
        assert_eq!(message(tree), expected);
    }
    assert_eq!(check(&json!({"variables": {"any": {"thing": 1}}})).unwrap().len(), 0);
}

#[test]
fn what_would_change_the_result_is_refused_by_name() {
    assert_eq!(
        message(json!({"model": {"prefix_lm": true}})),
        "`model.prefix_lm` is refused: no token attends to a later one; remove the key or set it to false"
    );
    assert_eq!(
        message(json!({"algorithms": {"gated_linear_units": {}}})),
        "`algorithms.gated_linear_units` is refused: they are part of the model; set \
         model.ffn_config.ffn_type=mptglu; remove the key"
    );
    let harmless = json!({"model": {"alibi": false, "softmax_scale": null,
        "attn_config": {"attn_type": "multihead_attention"}}, "train_subset_num_batches": -1});
    assert_eq!(check(&harmless).unwrap(), Vec::<String>::new());
}

#[test]
fn what_would_not_is_accepted_with_a_notice() {
    let tree = json!({"fsdp_config": {"sharding_strategy": "FULL_SHARD", "min_params": 1e8},
                      "loggers": {"wandb": {}}, "train_loader": {"pin_memory": true}});
    assert_eq!(
        check(&tree).unwrap(),
        [
            "`fsdp_config.sharding_strategy` has no effect here: this run has one device",
            "`loggers.wandb` has no effect here: scripts/wandb-upload uploads a finished metrics.jsonl"
        ]
    );
}

#[test]
fn no_section_lists_a_key_twice() {
    fn visit(keys: &'static [Key], path: &str) {
        for (i, key) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|k| k.name != key.name), "{path}.{}", key.name);
            if let Rule::Section(keys) = &key.rule {
                visit(keys, &join(path, key.name));
            }
        }
    }
    visit(ROOT, "");
}
