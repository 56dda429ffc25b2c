//! Tasks of the reference's format, on a trained model with `evaluate --icl_tasks` and in training with `icl_tasks`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
#[path = "support/training.rs"]
mod training;
use training::{
    failure as refusal, records, small_dataset, small_recipe, succeed, train, workshop,
};

fn evaluate(arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_train")).with_file_name("evaluate");
    Command::new(program).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a failing call says, but for the line that names the model.
fn failure(arguments: &[&str]) -> String {
    let output = evaluate(arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output).lines().last().unwrap().to_owned()
}

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.display().to_string()
}

/// A small model of two steps in the save folder that is returned.
fn trained(folder: &Path) -> String {
    let dataset = small_dataset(folder);
    let recipe = small_recipe(folder, &dataset);
    succeed(&mut train(&recipe, &["max_duration=2ba", "save_interval=2ba"]));
    folder.join("checkpoints").display().to_string()
}

#[test]
fn tasks_are_evaluated_on_a_checkpoint_and_mistakes_are_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path());
    let colours = write(
        &folder.path().join("colours.jsonl"),
        "{\"query\": \"The sky is\", \"choices\": [\"blue\", \"made of wood\"], \"gold\": 0, \"category\": \"sky\"}\n\
         {\"query\": \"Grass is\", \"choices\": [\"green\", \"red\", \"a\"], \"gold\": 2, \"category\": \"earth\"}\n\
         {\"query\": \"Snow is\", \"choices\": [\"white\", \"black\"], \"gold\": 1, \"category\": \"sky\"}\n",
    );
    let kings = write(
        &folder.path().join("kings.jsonl"),
        "{\"context_options\": [\"A king\", \"A stone\"], \"continuation\": \"rules\", \"gold\": 0}\n\
         {\"context_options\": [\"The king\", \"The sea\"], \"continuation\": \"has waves\", \"gold\": 1}\n",
    );
    let texts = write(
        &folder.path().join("texts.jsonl"),
        "{\"context\": \"Once upon a\", \"continuation\": \"time\"}\n",
    );
    let tasks = write(
        &folder.path().join("tasks.yaml"),
        &format!(
            "icl_tasks:
- {{label: colours, dataset_uri: {colours}, num_fewshot: [0, 1], icl_task_type: multiple_choice, has_categories: true}}
- {{label: kings, dataset_uri: 'file://{kings}', num_fewshot: [1], icl_task_type: schema}}
- {{label: texts, dataset_uri: {texts}, num_fewshot: 0, icl_task_type: language_modeling}}
"
        ),
    );
    let file = folder.path().join("answers.jsonl");
    let answers = file.display().to_string();
    let call = [&*model, "--icl_tasks", &*tasks, "--icl_answers", &*answers];
    let output = evaluate(&call);
    assert!(output.status.success(), "{}", said(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = printed.lines().map(|line| line.split_once(": ").unwrap().0).collect();
    let choice = "InContextLearningMultipleChoiceAccuracy";
    let expected = [
        format!("metrics/colours/0-shot/earth/{choice}"),
        format!("metrics/colours/0-shot/sky/{choice}"),
        format!("metrics/colours/0-shot/{choice}"),
        format!("metrics/colours/1-shot/earth/{choice}"),
        format!("metrics/colours/1-shot/sky/{choice}"),
        format!("metrics/colours/1-shot/{choice}"),
        format!("metrics/kings/1-shot/{choice}"),
        "metrics/texts/0-shot/InContextLearningLMAccuracy".to_owned(),
    ];
    assert_eq!(names, expected);

    let lines = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3 + 3 + 2 + 1);
    let keys: Vec<_> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["task", "line", "examples", "scores", "gold", "correct"]);
    assert_eq!(lines[0]["task"], "colours/0-shot/earth");
    assert_eq!((&lines[0]["line"], &lines[0]["examples"]), (&json!(2), &json!([])));
    assert_eq!(lines[0]["scores"].as_array().unwrap().len(), 3);
    // Of the two questions about the sky, each is the other's example.
    assert_eq!((&lines[4]["line"], &lines[4]["examples"]), (&json!(1), &json!([3])));
    let score = |value: &Value| value.as_f64().unwrap();
    for line in &lines {
        // A model of two steps finds each of 4,096 tokens about as likely.
        for value in line["scores"].as_array().unwrap() {
            assert!((-14.0..-3.0).contains(&score(value)), "{line}");
        }
    }
    let right = |i: usize| f64::from(u8::from(lines[i]["correct"].as_bool().unwrap()));
    let sky = format!("metrics/colours/0-shot/sky/{choice}: {:.4}", (right(1) + right(2)) / 2.0);
    assert_eq!(printed.lines().nth(1).unwrap(), sky);

    // Once more, of a part, and after the loss where a dataset is named.
    let again =
        evaluate(&[&*model, "--icl_tasks", &*tasks, "--icl_limit", "1", "--batch_size", "1"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap().lines().count(), 8);
    let data = folder.path().join("c4").display().to_string();
    let both = ["--icl_tasks", &*tasks, "--data", &*data, "--split", "val", "--batches", "1"];
    let both = evaluate(&[&[&*model][..], &both].concat());
    let both = String::from_utf8(both.stdout).unwrap();
    assert!(
        both.starts_with("metrics/eval/LanguageCrossEntropy: ") && both.ends_with(&printed),
        "{both}"
    );

    // Mistakes.
    std::fs::write(
        &kings,
        "{\"context_options\": [\"A king\"], \"continuation\": \"rules\", \"gold\": 1}\n",
    )
    .unwrap();
    assert_eq!(
        failure(&call),
        format!(
            "error: `file://{kings}` line 1 has `gold` 1, but 1 `context_options`; the first is number 0"
        )
    );
    std::fs::write(&texts, b"{\"context\": \"a\", \"continuation\": \"b\"}\n\xff").unwrap();
    std::fs::write(
        &kings,
        "{\"context_options\": [\"A king\"], \"continuation\": \"rules\", \"gold\": 0}\n",
    )
    .unwrap();
    assert_eq!(
        failure(&call),
        format!("error: `{texts}` line 2 is not UTF-8; save the file as UTF-8")
    );
    std::fs::write(
        &texts,
        format!("{{\"context\": \"a\", \"continuation\": \"{}\"}}\n", "b ".repeat(40)),
    )
    .unwrap();
    assert!(
        failure(&call).starts_with(&format!("error: `{texts}` line 1 has a continuation of ")),
        "{}",
        failure(&call)
    );
    assert_eq!(
        failure(&[&*model, "--icl_tasks", &*tasks, "--max_seq_len", "33"]),
        "error: max_seq_len is 33, but the model has learned 32 positions; set it to at most 32"
    );
    std::fs::remove_file(&colours).unwrap();
    assert_eq!(
        failure(&call),
        format!("error: cannot read `{colours}`: No such file or directory (os error 2)")
    );
    let usage = evaluate(&[&model, "--icl_limit", "3"]);
    assert_eq!(usage.status.code(), Some(2), "{}", said(&usage));
}

/// At every evaluation, with the evaluation split or without one, from a list or a file.
#[test]
fn a_run_evaluates_its_tasks_with_its_splits() {
    let (folder, recipe) = workshop();
    let lines = "{\"context\": \"The king\", \"answer\": \"is\"}\n".repeat(9);
    let kings = write(&folder.path().join("kings.jsonl"), &lines);
    let texts = write(
        &folder.path().join("texts.jsonl"),
        "{\"query\": \"Once upon a\", \"choices\": [\"time\", \"king\"], \"gold\": 0}\n",
    );
    let tasks = format!(
        "icl_tasks=[{{label: kings, dataset_uri: {kings}, num_fewshot: [0, 1], icl_task_type: generation_task_with_answers}}, \
         {{label: texts, dataset_uri: {texts}, num_fewshot: 0, icl_task_type: multiple_choice}}]"
    );
    let short = ["max_duration=4ba", "eval_interval=2ba", "generate.prompt=null"];
    let output = succeed(&mut train(&recipe, &[&short[..], &[&tasks]].concat()));
    let names = [
        "metrics/kings/0-shot/InContextLearningGenerationExactMatchAccuracy",
        "metrics/kings/1-shot/InContextLearningGenerationExactMatchAccuracy",
        "metrics/texts/0-shot/InContextLearningMultipleChoiceAccuracy",
    ];
    let evaluated = |folder: &Path| -> Vec<(u64, Vec<f64>, bool)> {
        let of = |record: Value| {
            let accuracies: Vec<f64> =
                names.iter().filter_map(|n| record.get(n)?.as_f64()).collect();
            let has_loss = record.get("metrics/eval/LanguageCrossEntropy").is_some();
            (!accuracies.is_empty())
                .then(|| (record["batch"].as_u64().unwrap(), accuracies, has_loss))
        };
        records(folder).into_iter().filter_map(of).collect()
    };
    let found = evaluated(folder.path());
    assert_eq!(found.iter().map(|(batch, ..)| *batch).collect::<Vec<_>>(), [2, 4]);
    for (_, accuracies, has_loss) in &found {
        assert_eq!(accuracies.len(), 3);
        assert!(*has_loss && accuracies.iter().all(|a| (0.0..=1.0).contains(a)), "{accuracies:?}");
    }
    let text = said(&output);
    assert!(text.contains(&format!("{}: ", names[2])), "{text}");

    // A checkpoint says what its model was asked; a file and a run without a split give the same.
    let checkpoint = folder.path().join("checkpoints").display().to_string();
    let printed = evaluate(&[&checkpoint, "--batches", "1"]);
    assert!(printed.status.success(), "{}", said(&printed));
    let (again, recipe) = workshop();
    let list = write(&again.path().join("tasks.yaml"), &tasks.replacen('=', ": ", 1));
    let file = format!("icl_tasks={list}");
    succeed(&mut train(&recipe, &[&short[..], &[&file, "eval_loader=null"]].concat()));
    let bare = evaluated(again.path());
    assert_eq!(bare.len(), 2);
    for ((batch, accuracies, _), (same, without, has_loss)) in found.iter().zip(&bare) {
        assert_eq!((batch, accuracies, *has_loss), (same, without, false));
    }

    // Mistakes show before the first step.
    let refused = |overrides: &[&str]| refusal(&mut train(&recipe, overrides));
    assert_eq!(
        refused(&[&tasks, "icl_seq_len=33"]),
        "error: icl_seq_len 33 is longer than the 32 positions of the model; set it to at most that"
    );
    assert_eq!(
        refused(&[&tasks, "icl_tasks_str=tasks.yaml"]),
        "error: `icl_tasks` and `icl_tasks_str` are both given; keep one of the two"
    );
    assert_eq!(
        refused(&["eval_gauntlet={}"]),
        "error: `eval_gauntlet` is refused: accuracies are logged task by task, and no average over tasks is made; \
         remove the key"
    );
    assert_eq!(
        refused(&["icl_tasks=nowhere.yaml"]),
        "error: there is no file of tasks `nowhere.yaml`; give a YAML file with a list `icl_tasks`"
    );
    let long = format!("{{\"context\": \"a\", \"answer\": \"{}\"}}\n", "b ".repeat(40));
    std::fs::write(&kings, &long).unwrap();
    let said = refused(&[&tasks]);
    let expected = format!("error: the longest answer of `{kings}` takes ");
    assert!(said.starts_with(&expected) && said.contains("but at most 31 fit"), "{said}");
}
