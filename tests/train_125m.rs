//! The 125M recipe as it stands, on what `convert-c4 --splits val` writes: GPT-2's tokenizer and the full model, two
//! steps on the CPU.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/training.rs"]
mod training;
use training::{records, repository, small_dataset, succeed, train};

#[test]
fn the_125m_recipe_takes_two_steps_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = small_dataset(folder.path());
    std::fs::remove_dir_all(dataset.join("train")).unwrap();
    let recipe = repository().join("yamls/125m.yaml");
    let output = succeed(&mut train(
        &recipe,
        &[
            &format!("data_remote={}", dataset.display()),
            "train_loader.dataset.split=val",
            &format!("run_folder={}/run", folder.path().display()),
            "save_folder=null",
            "autoresume=false",
            "max_seq_len=128",
            "global_train_batch_size=1",
            "device_train_microbatch_size=1",
            "device_eval_batch_size=1",
            "eval_subset_num_batches=2",
            "max_duration=2ba",
            "device=cpu",
        ],
    ));
    let text = String::from_utf8_lossy(&output.stderr);
    // 125,226,240 with 2,048 positions; 1,920 positions of 768 fewer here.
    assert!(text.contains("n_params=1.24e+08 (123751680)"), "{text}");
    let records = records(folder.path());
    let losses: Vec<f64> = records.iter().filter_map(|r| r["loss/train/total"].as_f64()).collect();
    assert_eq!(losses.len(), 2);
    // A fresh model is near ln 50257 = 10.82.
    assert!(losses.iter().all(|loss| (10.5..11.5).contains(loss)), "{losses:?}");
    assert!(records.iter().any(|r| r.get("metrics/eval/LanguageCrossEntropy").is_some()));
}
