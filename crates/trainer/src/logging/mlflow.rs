//! MLflow, by its REST interface.
//!
//! A thread of its own sends what was logged, some seconds' worth at a time, so that a slow server holds up no step. A
//! server that cannot be reached at the start ends the run before it begins; one that fails later costs a warning, and
//! what it has missed is sent with the next records. `metrics.jsonl` has everything in any case.
//!
//! A run that is continued goes on in the run of MLflow whose id is in `mlflow_run.json` of the run folder.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value as Json, json};

use super::{Metric, Value};
use crate::config::{Address, Config, MlflowConfig};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// How long records are collected before they are sent.
const COLLECT: Duration = Duration::from_secs(5);
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long the end of a run waits for what is not sent yet.
const LAST_WAIT: Duration = Duration::from_secs(30);
/// What the server takes in one request.
const METRICS_AT_ONCE: usize = 1000;
const PARAMETERS_AT_ONCE: usize = 100;
/// The longest value of a parameter that every version of the server takes.
const LONGEST_PARAMETER: usize = 500;
/// The records that are kept while the server fails.
const KEPT_METRICS: usize = 1_000_000;

/// The id of the run, in the run folder.
const RUN_FILE: &str = "mlflow_run.json";

/// A run at a server.
#[derive(Debug)]
pub(super) struct Mlflow {
    records: Option<Sender<Vec<Json>>>,
    thread: Option<JoinHandle<()>>,
    /// Told to the thread when the records end.
    status: Sender<&'static str>,
}

impl Mlflow {
    /// Begins a run, or goes on with that of `folder` if the run `continues`.
    ///
    /// # Errors
    /// When the server is not named, cannot be reached, or refuses.
    pub(super) fn open(
        given: &MlflowConfig,
        config: &Config,
        folder: &Path,
        continues: bool,
    ) -> Result<Self> {
        let server = Server::of(given)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::io("start the threads for", "MLflow"))?;
        let run = runtime.block_on(server.begin(given, config, folder, continues))?;
        let (records, received) = mpsc::channel();
        let (status, last_status) = mpsc::channel();
        let mut sender = Feed { server, run, unsent: Vec::new(), has_warned: false };
        let work = move || {
            runtime.block_on(sender.run(&received));
            let status = last_status.try_recv().unwrap_or("FAILED");
            runtime.block_on(sender.end(status));
        };
        let thread = thread::Builder::new().name("train-mlflow".into()).spawn(work);
        let thread = thread.map_err(Error::io("start the threads for", "MLflow"))?;
        Ok(Self { records: Some(records), thread: Some(thread), status })
    }

    /// Hands over a record.
    pub(super) fn log<'a>(&self, at: &Timestamp, metrics: impl Iterator<Item = &'a Metric<'a>>) {
        let now = milliseconds();
        let metric = |(name, value): &Metric<'_>| {
            let value = match value {
                Value::Float(number) if number.is_finite() => Json::from(*number),
                // As JSON forms of protocol buffers write them: NaN, inf.
                Value::Float(number) => Json::from(number.to_string().replace("inf", "Infinity")),
                Value::Int(number) => Json::from(*number),
                Value::Text(_) => return None,
            };
            Some(json!({ "key": name, "value": value, "timestamp": now, "step": at.batch }))
        };
        if let Some(records) = &self.records {
            // A thread that is gone has said why.
            let _ = records.send(metrics.filter_map(metric).collect());
        }
    }

    /// Sends what is left and ends the run as a finished one.
    pub(super) fn finish(self) {
        let _ = self.status.send("FINISHED");
    }
}

impl Drop for Mlflow {
    fn drop(&mut self) {
        self.records = None;
        if let Some(thread) = self.thread.take() {
            // A panic there would be a defect, and was reported on stderr by the thread itself.
            let _ = thread.join();
        }
    }
}

/// The server, and who asks.
#[derive(Debug)]
struct Server {
    client: Client,
    /// `http://host:5000/api/2.0/mlflow/`
    root: String,
    address: Address,
}

impl Server {
    fn of(given: &MlflowConfig) -> Result<Self> {
        let from_environment = || std::env::var("MLFLOW_TRACKING_URI").ok().map(Address::from);
        let Some(address) = given.tracking_uri.clone().or_else(from_environment) else {
            return Err(Error::Config(
                "`loggers.mlflow.tracking_uri` is missing; set it or MLFLOW_TRACKING_URI to the address of a server, for \
                 example http://127.0.0.1:5000"
                    .to_owned(),
            ));
        };
        if !(address.starts_with("http://") || address.starts_with("https://")) {
            return Err(Error::Config(format!(
                "`loggers.mlflow.tracking_uri` is `{address}`; it must be the address of a server, which begins with \
                 http:// or https://"
            )));
        }
        let client = Client::builder().timeout(TIMEOUT).build().map_err(|e| {
            Error::Config(format!("`loggers.mlflow`: no client for HTTP can be made: {e}"))
        })?;
        let root = format!("{}/api/2.0/mlflow/", address.trim_end_matches('/'));
        Ok(Self { client, root, address })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.root));
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match (variable("MLFLOW_TRACKING_TOKEN"), variable("MLFLOW_TRACKING_USERNAME")) {
            (Some(token), _) => request.bearer_auth(token),
            (None, Some(name)) => request.basic_auth(name, variable("MLFLOW_TRACKING_PASSWORD")),
            (None, None) => request,
        }
    }

    async fn post(&self, path: &str, body: &Json) -> Result<Json, String> {
        answer(self.request(Method::POST, path).json(body).send().await).await
    }

    /// The id of the run to log to.
    async fn begin(
        &self,
        given: &MlflowConfig,
        config: &Config,
        folder: &Path,
        continues: bool,
    ) -> Result<String> {
        let failed = |problem: String| {
            Error::Config(format!(
                "the MLflow server {} cannot be used: {problem}; check loggers.mlflow.tracking_uri and that the server \
                 runs, or leave loggers.mlflow out",
                self.address
            ))
        };
        let file = folder.join(RUN_FILE);
        if let Some(run) = continues.then(|| earlier_run(&file)).flatten() {
            let update = json!({ "run_id": run, "status": "RUNNING" });
            self.post("runs/update", &update).await.map_err(failed)?;
            return Ok(run);
        }
        let experiment = self.experiment(&given.experiment_name).await.map_err(failed)?;
        let name = given.run_name.as_deref().unwrap_or(&config.run_name);
        let tags = given.tags.iter().map(|(key, value)| json!({ "key": key, "value": value }));
        let run = json!({
            "experiment_id": experiment,
            "run_name": name,
            "start_time": milliseconds(),
            "tags": tags.collect::<Vec<_>>(),
        });
        let made = self.post("runs/create", &run).await.map_err(failed)?;
        let run = made["run"]["info"]["run_id"].as_str().unwrap_or_default().to_owned();
        if run.is_empty() {
            return Err(failed(format!("it answers {made} and not with a run")));
        }
        for some in parameters(config).chunks(PARAMETERS_AT_ONCE) {
            let batch = json!({ "run_id": run, "params": some });
            self.post("runs/log-batch", &batch).await.map_err(failed)?;
        }
        let text = json!({ "run_id": run }).to_string();
        mds::durable::replace(&file, text.as_bytes()).map_err(Error::io("write", &file))?;
        Ok(run)
    }

    /// The id of the experiment `name`, which is made if need be.
    async fn experiment(&self, name: &str) -> Result<String, String> {
        let quoted: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let path = format!("experiments/get-by-name?experiment_name={quoted}");
        let found = match self.request(Method::GET, &path).send().await {
            Ok(answer) if answer.status() == StatusCode::NOT_FOUND => None,
            found => Some(answer(found).await?),
        };
        let id = match found {
            Some(found) => found["experiment"]["experiment_id"].clone(),
            None => {
                let made = self.post("experiments/create", &json!({ "name": name })).await?;
                made["experiment_id"].clone()
            }
        };
        id.as_str().map(str::to_owned).ok_or_else(|| format!("it has no id for experiment {name}"))
    }
}

/// The body of a good answer, or in words what is wrong.
async fn answer(answer: Result<Response, reqwest::Error>) -> Result<Json, String> {
    // The address may hold a password.
    let words = |e: reqwest::Error| {
        let e = e.without_url();
        let cause = std::error::Error::source(&e).map(|cause| format!(": {cause}"));
        format!("{e}{}", cause.unwrap_or_default())
    };
    let answer = answer.map_err(words)?;
    let status = answer.status();
    let text = answer.text().await.map_err(words)?;
    if !status.is_success() {
        let said = serde_json::from_str::<Json>(&text).ok();
        let said = said.and_then(|said| Some(said["message"].as_str()?.to_owned()));
        return Err(format!(
            "it answers {status}{}",
            said.map_or(String::new(), |m| format!(" ({m})"))
        ));
    }
    serde_json::from_str(&text).map_err(|e| format!("its answer is no JSON ({e})"))
}

fn earlier_run(file: &Path) -> Option<String> {
    let saved: Json = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(saved["run_id"].as_str()?.to_owned())
}

/// The resolved recipe, a parameter for each leaf: `model.d_model`.
fn parameters(config: &Config) -> Vec<Json> {
    fn leaves(path: &str, value: &Json, found: &mut Vec<Json>) {
        match value {
            Json::Object(map) => {
                for (key, value) in map {
                    let dot = if path.is_empty() { "" } else { "." };
                    leaves(&format!("{path}{dot}{key}"), value, found);
                }
            }
            leaf => {
                let text = leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned);
                let text: String = text.chars().take(LONGEST_PARAMETER).collect();
                found.push(json!({ "key": path, "value": text }));
            }
        }
    }
    let mut found = Vec::new();
    leaves("", &serde_json::to_value(config).unwrap_or_default(), &mut found);
    found
}

/// What the thread does.
struct Feed {
    server: Server,
    run: String,
    unsent: Vec<Json>,
    has_warned: bool,
}

impl Feed {
    /// Sends records until there come no more.
    async fn run(&mut self, records: &Receiver<Vec<Json>>) {
        let mut sent = Instant::now();
        loop {
            match records.recv_timeout(COLLECT.saturating_sub(sent.elapsed())) {
                Ok(metrics) if self.unsent.len() < KEPT_METRICS => self.unsent.extend(metrics),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if sent.elapsed() >= COLLECT {
                self.send().await;
                sent = Instant::now();
            }
        }
    }

    /// Sends what there is; what fails stays.
    async fn send(&mut self) -> bool {
        while !self.unsent.is_empty() {
            let count = self.unsent.len().min(METRICS_AT_ONCE);
            let batch = json!({ "run_id": self.run, "metrics": self.unsent[..count] });
            if let Err(problem) = self.server.post("runs/log-batch", &batch).await {
                if !self.has_warned {
                    tracing::warn!(
                        "the MLflow server {} fails: {problem}; what it misses is sent later, and is in metrics.jsonl",
                        self.server.address
                    );
                }
                self.has_warned = true;
                return false;
            }
            self.has_warned = false;
            self.unsent.drain(..count);
        }
        true
    }

    async fn end(&mut self, status: &str) {
        let deadline = Instant::now() + LAST_WAIT;
        while !self.send().await {
            if Instant::now() >= deadline {
                tracing::warn!(
                    "the MLflow server {} has not got {} values, which are in metrics.jsonl",
                    self.server.address,
                    self.unsent.len()
                );
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let update = json!({ "run_id": self.run, "status": status, "end_time": milliseconds() });
        if let Err(problem) = self.server.post("runs/update", &update).await {
            tracing::warn!("the MLflow server {} fails: {problem}", self.server.address);
        }
    }
}

/// Milliseconds since 1970, as the server counts.
fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
