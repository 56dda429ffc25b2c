//! Where metrics go beside files: MLflow (a real server, see `tests/servers/mlflow`), Prometheus, and the bridge to W&B.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "support/training.rs"]
mod training;
use training::{failure, records, repository, succeed, train, workshop};

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The body of the answer to a request for `path`; `None` where nobody listens.
fn get(authority: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(authority).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn prometheus_fetches_the_newest_values() {
    let (folder, recipe) = workshop();
    let address = format!("127.0.0.1:{}", port());
    let endpoint = format!("loggers.prometheus.address={address}");
    let endless =
        ["max_duration=1000000ba", "eval_interval=0ba", "save_folder=null", "autoresume=false"];
    let mut run = train(&recipe, &endless);
    let mut child = run.arg(&endpoint).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let page = loop {
        match get(&address, "/metrics").filter(|page| page.contains("loss_train_total")) {
            Some(page) => break page,
            None if Instant::now() > deadline => panic!("no metrics in a minute"),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let value = |name: &str| -> f64 {
        let start = format!("{name}{{run=\"small\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("{name} is not in {page}")).parse().unwrap()
    };
    assert!((5.0..12.0).contains(&value("loss_train_total")), "{page}");
    assert_eq!(value("sample"), 6.0 * value("batch"));
    assert!(
        page.contains("# TYPE loss_train_total gauge\n") && page.ends_with("# EOF\n"),
        "{page}"
    );

    // Another run cannot have the same address.
    let elsewhere = format!("run_folder={}/other", folder.path().display());
    let taken = failure(train(&recipe, &endless).args([&endpoint, &elsewhere]));
    let expected = format!(
        "error: `loggers.prometheus.address` is {address}, which cannot be listened at: Address already in use (os error \
         98); give another, for example 127.0.0.1:9400"
    );
    assert_eq!(taken, expected);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_server_of_mlflow_that_is_not_there_ends_the_run_before_it_begins() {
    let (folder, recipe) = workshop();
    let address = format!("http://127.0.0.1:{}", port());
    let uri = format!("loggers.mlflow.tracking_uri={address}");
    let last = failure(&mut train(&recipe, &[&uri]));
    let begins = format!("error: the MLflow server {address} cannot be used: ");
    let ends =
        "; check loggers.mlflow.tracking_uri and that the server runs, or leave loggers.mlflow out";
    assert!(last.starts_with(&begins) && last.ends_with(ends), "{last}");
    assert!(!folder.path().join("run/metrics.jsonl").exists());

    let mut no_server = train(&recipe, &["loggers.mlflow={}"]);
    assert_eq!(
        failure(no_server.env_remove("MLFLOW_TRACKING_URI")),
        "error: `loggers.mlflow.tracking_uri` is missing; set it or MLFLOW_TRACKING_URI to the address of a server, for \
         example http://127.0.0.1:5000"
    );
    assert_eq!(
        failure(&mut train(&recipe, &["loggers.mlflow.tracking_uri=./mlruns"])),
        "error: `loggers.mlflow.tracking_uri` is `./mlruns`; it must be the address of a server, which begins with http:// \
         or https://"
    );
}

/// What a run logs is what the server tells of it, also when the run was continued.
#[test]
#[ignore = "needs an MLflow server; tests/servers/mlflow starts one"]
fn mlflow_has_what_was_logged() {
    let address =
        std::env::var("MDS_MLFLOW").expect("tests/servers/mlflow says where the server is");
    let authority = address.strip_prefix("http://").unwrap();
    let (folder, recipe) = workshop();
    let run = |overrides: &[&str]| {
        let uri = format!("loggers.mlflow.tracking_uri={address}");
        let mlflow =
            ["loggers.mlflow.experiment_name=small models", "loggers.mlflow.tags={why: a test}"];
        succeed(train(&recipe, &mlflow).arg(uri).args(overrides));
    };
    run(&["max_duration=6ba", "save_interval=4ba", "eval_interval=3ba"]);
    let id_file = folder.path().join("run/mlflow_run.json");
    let id = std::fs::read_to_string(&id_file).unwrap();
    run(&["max_duration=9ba", "save_interval=4ba", "eval_interval=3ba"]);
    assert_eq!(std::fs::read_to_string(&id_file).unwrap(), id);

    let id: Value = serde_json::from_str(&id).unwrap();
    let id = id["run_id"].as_str().unwrap();
    let ask = |path: &str| -> Value {
        let body = get(authority, &format!("/api/2.0/mlflow/{path}")).unwrap();
        serde_json::from_str(&body).unwrap()
    };
    let told = ask(&format!("runs/get?run_id={id}"));
    let info = &told["run"]["info"];
    assert_eq!(
        (info["status"].as_str(), info["run_name"].as_str()),
        (Some("FINISHED"), Some("small"))
    );
    let pair = |key: &str, list: &str| {
        let all = told["run"]["data"][list].as_array().unwrap();
        all.iter().find(|entry| entry["key"] == key).map(|entry| entry["value"].clone())
    };
    assert_eq!(pair("why", "tags"), Some("a test".into()));
    assert_eq!(pair("model.d_model", "params"), Some("32".into()));

    let logged = records(folder.path());
    for name in ["loss/train/total", "metrics/eval/LanguageCrossEntropy", "trainer/batch_idx"] {
        let expected: Vec<(u64, f64)> = logged
            .iter()
            .filter_map(|record| Some((record["batch"].as_u64()?, record.get(name)?.as_f64()?)))
            .collect();
        let history = ask(&format!("metrics/get-history?run_id={id}&metric_key={name}"));
        let mut history: Vec<(u64, f64)> = history["metrics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|metric| (metric["step"].as_u64().unwrap_or(0), metric["value"].as_f64().unwrap()))
            .collect();
        history.sort_by_key(|(step, _)| *step);
        assert!(expected.len() >= 3);
        assert_eq!(history, expected, "{name}");
    }
}

#[test]
#[ignore = "needs the W&B client; tests/servers/mlflow installs it"]
fn a_finished_run_is_uploaded_to_wandb() {
    let programs =
        std::env::var("MDS_TRACKERS_BIN").expect("tests/servers/mlflow says where it is");
    let (folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["max_duration=5ba", "save_interval=5ba"]));
    let output = Command::new(Path::new(&programs).join("python"))
        .arg(repository().join("scripts/wandb-upload"))
        .arg(folder.path().join("run"))
        .arg("--checkpoints")
        .arg(folder.path().join("checkpoints"))
        .args(["--project", "small"])
        .current_dir(folder.path())
        .env("WANDB_MODE", "offline")
        .env("HOME", folder.path())
        .output()
        .unwrap();
    let (out, text) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(out.contains("uploaded 5 steps of "), "{out}{text}");
    let runs = std::fs::read_dir(folder.path().join("wandb")).unwrap().flatten();
    let logs = runs.flat_map(|run| std::fs::read_dir(run.path()).into_iter().flatten().flatten());
    let log =
        logs.map(|file| file.path()).find(|path| path.extension().is_some_and(|e| e == "wandb"));
    let log = std::fs::read(log.expect("the client writes a log of the run")).unwrap();
    for name in ["loss/train/total", "metrics/eval/LanguageCrossEntropy", "d_model"] {
        assert!(log.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
}
