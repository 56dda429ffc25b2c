//! Trained models away from their runs: `generate`, `evaluate` and `export-hf`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::Value;
use trainer::model::Dropout;
use trainer::pretrained::Pretrained;
#[path = "support/training.rs"]
mod training;
use training::{small_dataset, small_recipe, succeed, train};

fn program(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_BIN_EXE_train")).with_file_name(name))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Trains a small model for two steps; returns its save folder.
fn trained(folder: &Path, overrides: &[&str]) -> String {
    let dataset = small_dataset(folder);
    let recipe = small_recipe(folder, &dataset);
    let save_folder = folder.join("checkpoints").display().to_string();
    let mut command = train(&recipe, &["max_duration=2ba", "save_interval=2ba"]);
    command.arg(format!("save_folder={save_folder}"));
    command.arg(format!("run_folder={}", folder.join("run").display()));
    succeed(command.args(overrides));
    save_folder
}

#[test]
fn a_checkpoint_generates_and_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path(), &[]);
    let run = |arguments: &[&str]| {
        let output = program("generate").arg(&model).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let greedy = ["--prompt", "The king", "--temperature", "0", "--max_new_tokens", "5"];
    let text = run(&greedy);
    assert!(text.starts_with("The king") && text.len() > "The king\n".len(), "{text:?}");
    assert_eq!(run(&greedy), text);
    let drawn = |seed| run(&["--prompt", "The king", "--seed", seed, "--top-p", "0.9"]);
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));

    let output = program("evaluate").arg(&model).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let logged = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let logged: Value = serde_json::from_str(logged.lines().last().unwrap()).unwrap();
    let logged = &logged["metrics/eval/LanguageCrossEntropy"];
    let line = lines.lines().next().unwrap();
    let loss: f64 =
        line.strip_prefix("metrics/eval/LanguageCrossEntropy: ").unwrap().parse().unwrap();
    assert!((loss - logged.as_f64().unwrap()).abs() < 1e-4, "{loss} is not {logged}");
}

/// ALiBi and rotations go on past what the model has seen; learned positions end there.
#[test]
fn models_that_learn_no_positions_are_evaluated_on_longer_rows() {
    for positions in ["alibi", "rope"] {
        let folder = tempfile::tempdir().unwrap();
        let attention = format!("model.attn_config={{{positions}: true}}");
        let model = trained(folder.path(), &[&attention]);
        let evaluated = |length: &str| {
            let output = program("evaluate").args([&*model, "--max_seq_len", length]).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{}", said(&output));
            let lines = String::from_utf8(output.stdout.clone()).unwrap();
            let loss: f64 =
                lines.lines().next().unwrap().rsplit_once(": ").unwrap().1.parse().unwrap();
            (loss, said(&output).matches("note: ").count(), said(&output))
        };
        let (short, notes, _) = evaluated("32");
        assert_eq!(notes, 0);
        let (long, _, text) = evaluated("80");
        let note = "note: rows of 80 tokens are longer than the 32 that the model was trained on\n";
        assert!(text.contains(note), "{text}");
        assert!((long - short).abs() < 0.5 && long != short, "{positions}: {long}, {short}");
        let output = program("evaluate").args([&*model, "--max_seq_len", "1"]).output().unwrap();
        let error = "error: --max_seq_len is 1; rows of this model have at least 2 tokens\n";
        assert!(said(&output).ends_with(error), "{}", said(&output));
    }
}

#[test]
fn mistakes_are_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().display().to_string();
    let fails = |name: &str, arguments: &[&str]| {
        let output = program(name).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    let no_state = format!(
        "error: there is no checkpoint `{nothing}`; give a folder like ep0-ba100, or the save_folder that holds it\n"
    );
    assert_eq!(fails("generate", &[&nothing, "--prompt", "x"]), no_state);
    assert_eq!(fails("evaluate", &[&nothing]), no_state);
    assert_eq!(fails("export-hf", &[&nothing, "out"]), no_state);

    let model = trained(folder.path(), &[]);
    assert_eq!(
        fails("generate", &[&model, "--prompt", "x", "--tokenizer", "gpt2"]),
        "error: the tokenizer `gpt2` has ids up to 50256, but the model knows 4096; use the one that the model was \
         trained with\n"
    );
    let too_long = fails("evaluate", &[&model, "--max_seq_len", "64"]);
    let error = "error: --max_seq_len is 64; rows of this model have from 2 to 32 tokens\n";
    assert!(too_long.ends_with(error), "{too_long}");
    for flag in [["--top_p", "0"], ["--top_k", "0"], ["--temperature", "nan"]] {
        let output =
            program("generate").args([&model, "--prompt", "x"]).args(flag).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    }

    for (name, flag, example) in
        [("generate", "--top_k", 50), ("evaluate", "--batch_size", 8), ("evaluate", "--batches", 8)]
    {
        let output = program(name).args([&*model, flag, "0"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert_eq!(
            said(&output).lines().next().unwrap(),
            format!(
                "error: invalid value '0' for '{flag} <N>': it must be a whole number of at least 1, for example {example}"
            )
        );
    }

    // What an older version has let pass.
    let checkpoint = format!("{model}/ep0-ba2");
    let state = Path::new(&checkpoint).join("state.json");
    let saved = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, saved.replace("\"rope_theta\": 10000.0", "\"rope_theta\": 500.0"))
        .unwrap();
    assert_eq!(
        fails("generate", &[&checkpoint, "--prompt", "x"]),
        format!(
            "error: the checkpoint `{checkpoint}` was made by a recipe that is refused: \
             `model.attn_config.rope_theta` is 500.0, but `model.attn_config.rope` is false; set \
             `model.attn_config.rope` to true, or remove the key\n"
        )
    );

    for kind in ["llama", "mpt"] {
        let config = serde_json::json!({ "model_type": kind }).to_string();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let unread = format!(
            "error: the model `{nothing}` is of the family {kind}, which is written by export-hf, but not read again; give \
             the checkpoint that it was exported from\n"
        );
        assert_eq!(fails("generate", &[&nothing, "--prompt", "x"]), unread);
        assert_eq!(fails("evaluate", &[&nothing]), unread);
    }
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "t5"}"#).unwrap();
    assert_eq!(
        fails("generate", &[&nothing, "--prompt", "x"]),
        format!(
            "error: the model `{nothing}`: config.json says model_type t5, not gpt2; give a GPT-2 that transformers \
             saved with save_pretrained\n"
        )
    );
}

/// Weights as others save them: in 16 bits, and in forms that are not read.
#[test]
fn other_forms_of_weights_are_read_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path(), &[]);
    let out = folder.path().join("hf");
    let hf = out.display().to_string();
    let exported = program("export-hf").args([&model, &hf]).output().unwrap();
    assert!(exported.status.success(), "{}", said(&exported));
    let weights = out.join("model.safetensors");
    let evaluated = |model: &str| {
        let data = folder.path().join("c4").display().to_string();
        let arguments = ["--data", &*data, "--split", "val", "--batches", "2"];
        program("evaluate").arg(model).args(arguments).output().unwrap()
    };
    let loss = |output: &Output| -> f64 {
        let printed = String::from_utf8_lossy(&output.stdout);
        let line = printed.lines().next().unwrap();
        line.rsplit_once(": ").unwrap().1.parse().unwrap()
    };
    let full = loss(&evaluated(&hf));
    let bytes = std::fs::read(&weights).unwrap();
    for (dtype, half) in [
        (safetensors::Dtype::BF16, DType::BF16),
        (safetensors::Dtype::F16, DType::F16),
        (safetensors::Dtype::F64, DType::F64),
    ] {
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let converted: Vec<_> = file
            .iter()
            .map(|(name, view)| {
                let shape = view.shape().to_vec();
                let data =
                    TensorData::from_bytes_vec(view.data().to_vec(), shape.clone(), DType::F32);
                (name.to_owned(), shape, data.convert_dtype(half).bytes().to_vec())
            })
            .collect();
        let views = converted.iter().map(|(name, shape, data)| {
            (name, safetensors::tensor::TensorView::new(dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize_to_file(views, None, &weights).unwrap();
        let output = evaluated(&hf);
        match dtype {
            safetensors::Dtype::F64 => {
                let error = said(&output);
                let start =
                    format!("error: the model `{hf}`: model.safetensors holds transformer.");
                let end = " as F64, not F32, F16 or BF16; give a GPT-2 that transformers saved with save_pretrained\n";
                assert!(error.starts_with(&start) && error.ends_with(end), "{error}");
            }
            _ => {
                let half = loss(&output);
                assert!((half - full).abs() < 0.01 && half > 0.0, "{half} is not {full}");
            }
        }
    }
    std::fs::write(&weights, &bytes).unwrap();
    let config = std::fs::read_to_string(out.join("config.json")).unwrap();
    for (positions, described) in [("1000000000", "32000156544"), ("9000000000000000", "more")] {
        let config =
            config.replace("\"n_positions\": 32", &format!("\"n_positions\": {positions}"));
        std::fs::write(out.join("config.json"), config).unwrap();
        assert_eq!(
            said(&evaluated(&hf)),
            format!(
                "error: the model `{hf}`: config.json describes {described} parameters, but model.safetensors holds \
                 157568; give a GPT-2 that transformers saved with save_pretrained\n"
            )
        );
    }
    std::fs::write(out.join("config.json"), config).unwrap();
    std::fs::rename(&weights, out.join("pytorch_model.bin")).unwrap();
    assert_eq!(
        said(&evaluated(&hf)),
        format!(
            "error: the model `{hf}` has its weights in pytorch_model.bin, which is Python's pickle and not read; load \
             it in transformers, and save it with save_pretrained(.., safe_serialization=True, \
             max_shard_size='100GB')\n"
        )
    );
    std::fs::remove_file(out.join("pytorch_model.bin")).unwrap();
    let error = said(&evaluated(&hf));
    let expected = format!("error: there is no model.safetensors in `{hf}`; check the path\n");
    assert_eq!(error, expected);
    // What only flags say is mended by flags.
    let nowhere = program("evaluate").args([&*model, "--data", &*hf, "--split", "none"]).output();
    let error = said(&nowhere.unwrap());
    assert!(error.ends_with("(--data, --split)\n") && !error.contains("recipe"), "{error}");
}

#[test]
fn a_gpt2_that_was_exported_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path(), &[]);
    let out = folder.path().join("hf").display().to_string();
    let export = || program("export-hf").args([&model, &out]).output().unwrap();
    let output = export();
    assert!(output.status.success(), "{}", said(&output));
    let mut files: Vec<_> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(files, expected);
    let config = std::fs::read_to_string(folder.path().join("hf/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["architectures"][0], "GPT2LMHeadModel");

    // Read again by our own import, it writes the same text.
    let text = |model: &str| {
        let arguments = ["--prompt", "The king", "--temperature", "0", "--max_new_tokens", "8"];
        let output = program("generate").arg(model).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        output.stdout
    };
    assert_eq!(text(&out), text(&model));

    let again = export();
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        said(&again),
        format!(
            "error: `{out}` holds a config.json already; give another folder, or remove that file\n"
        )
    );
    // Nor is a file that is somebody else's replaced.
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("tokenizer.json"), "mine").unwrap();
    let output = program("export-hf").arg(&model).arg(&other).output().unwrap();
    assert_eq!(
        said(&output),
        format!(
            "error: `{}` holds a tokenizer.json already; give another folder, or remove that file\n",
            other.display()
        )
    );
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn what_no_family_computes_is_not_exported() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path(), &["model.attn_config.qk_ln=true"]);
    let out = folder.path().join("hf").display().to_string();
    let output = program("export-hf").args([&model, &out]).output().unwrap();
    assert_eq!(
        said(&output),
        "error: the model cannot be exported: the nearest architecture of transformers is GPT-2, which does not know \
         its `model.attn_config.qk_ln`; models of GPT-2's, MPT's and Llama's kind can\n"
    );
    assert!(!Path::new(&out).exists());
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path(), &["model.attn_config.alibi=true"]);
    let output = program("export-hf").args([&model, &out]).output().unwrap();
    assert_eq!(
        said(&output),
        "error: the model cannot be exported: the nearest architecture of transformers is MPT, which needs \
         `model.no_bias: true`; models of GPT-2's, MPT's and Llama's kind can\n"
    );
}

/// A recipe says where its tokenizer is from where it is run; its checkpoints are used anywhere.
#[test]
fn a_checkpoint_knows_its_tokenizer_from_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path(), &["tokenizer_name=data/tokenizers/quickstart"]);
    for (name, arguments) in [
        ("generate", &["--prompt", "The", "--max_new_tokens", "1"][..]),
        ("evaluate", &[]),
        ("export-hf", &["hf"]),
    ] {
        let mut command = program(name);
        let output = command.arg(&model).args(arguments).current_dir(folder.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{name}: {}", said(&output));
    }
}

/// The logits of a few rows of tokens, for `make conformance`, which compares them with those of transformers.
#[test]
#[ignore = "for make conformance, which names a model and a file"]
fn logits_for_transformers() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let found = Pretrained::load(&variable("MDS_MODEL"), None, &Device::flex()).unwrap();
    let (rows, seq) = (2, 16);
    let ids: Vec<i32> = (0..rows * seq).map(|i| (i * 37 + 11) % 4096).collect();
    let shape = [rows as usize, seq as usize];
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids.clone(), shape), &Device::flex());
    let logits = found.model.logits(found.model.hidden(tokens, &mut Dropout::off()));
    let logits: Vec<f32> = logits.into_data().try_to_vec().unwrap();
    let rows_of = |row: &[f32]| row.chunks(4096).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let logits: Vec<_> = logits.chunks(shape[1] * 4096).map(rows_of).collect();
    let tokens: Vec<_> = ids.chunks(shape[1]).collect();
    let json = serde_json::json!({ "tokens": tokens, "logits": logits });
    std::fs::write(variable("MDS_LOGITS"), json.to_string()).unwrap();
}
