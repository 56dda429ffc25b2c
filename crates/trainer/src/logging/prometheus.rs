//! The newest value of each metric, for Prometheus to fetch: `GET /metrics` in its text format.
//!
//! A metric is called as elsewhere with every character that Prometheus does not take replaced by an underscore:
//! `loss/train/total` is `loss_train_total{run="gpt-125m"}`.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use super::{Metric, Value};
use crate::config::PrometheusConfig;
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// The type of the answer.
const TEXT_FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Newest = Arc<Mutex<BTreeMap<String, f64>>>;

/// The server, as long as this lives.
#[derive(Debug)]
pub(super) struct Endpoint {
    newest: Newest,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens at the configured address.
    ///
    /// # Errors
    /// When that is taken, or not one of this machine.
    pub(super) fn open(given: &PrometheusConfig, run_name: &str) -> Result<Self> {
        let refused = |problem: &dyn std::fmt::Display| {
            Error::Config(format!(
                "`loggers.prometheus.address` is {}, which cannot be listened at: {problem}; give another, for example \
                 127.0.0.1:9400",
                given.address
            ))
        };
        let listener = TcpListener::bind(&given.address).map_err(|e| refused(&e))?;
        listener.set_nonblocking(true).map_err(|e| refused(&e))?;
        let newest = Newest::default();
        let page = Page { newest: Arc::clone(&newest), run_name: run_name.to_owned() };
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| refused(&e))?;
        let serve = async move {
            let page = Arc::new(page);
            let answer = move || async move { ([(CONTENT_TYPE, TEXT_FORMAT)], page.text()) };
            let routes = Router::new().route("/metrics", get(answer));
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            let server = axum::serve(listener, routes).with_graceful_shutdown(async {
                let _ = stopped.await;
            });
            if let Err(error) = server.await {
                tracing::warn!("metrics are no longer served to Prometheus: {error}");
            }
        };
        let thread = thread::Builder::new().name("train-prometheus".into());
        let thread = thread.spawn(move || runtime.block_on(serve)).map_err(|e| refused(&e))?;
        Ok(Self { newest, stop: Some(stop), thread: Some(thread) })
    }

    /// Replaces the values of these metrics, and of the position in the run.
    pub(super) fn log<'a>(&self, at: &Timestamp, metrics: impl Iterator<Item = &'a Metric<'a>>) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, count) in [("batch", at.batch), ("sample", at.sample), ("token", at.token)] {
            newest.insert(name.to_owned(), count as f64);
        }
        for (name, value) in metrics {
            match value {
                Value::Float(number) => newest.insert((*name).to_owned(), *number),
                Value::Int(number) => newest.insert((*name).to_owned(), *number as f64),
                Value::Text(_) => None,
            };
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic there would be a defect, and was reported on stderr by the thread itself.
            let _ = thread.join();
        }
    }
}

/// What is served.
#[derive(Clone, Debug)]
struct Page {
    newest: Newest,
    run_name: String,
}

impl Page {
    fn text(&self) -> String {
        let run = [("run".into(), self.run_name.clone().into())];
        let mut registry = Registry::with_labels(run.into_iter());
        registry.register_collector(Box::new(self.clone()));
        let mut page = String::new();
        // Writing to a text does not fail.
        let _ = text::encode(&mut page, &registry);
        page
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in newest.iter() {
            let gauge = ConstGauge::new(*value);
            let name = prometheus_name(name);
            let metric = encoder.encode_descriptor(&name, "", None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

/// Letters, digits, underscores and colons, no digit first.
fn prometheus_name(name: &str) -> String {
    let is_taken = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let replaced = name.chars().map(|c| if is_taken(c) { c } else { '_' });
    let first = name.starts_with(|c: char| c.is_ascii_digit()).then_some('_');
    first.into_iter().chain(replaced).collect()
}
