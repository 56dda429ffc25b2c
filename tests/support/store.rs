//! A server that datasets are written to.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, Response, StatusCode, Uri};

/// An HTTP server on a free port of 127.0.0.1 that keeps what is PUT.
pub(crate) struct Store {
    pub(crate) url: String,
    pub(crate) shared: Arc<Shared>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) objects: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(crate) puts: Mutex<Vec<String>>,
    /// What a PUT of a path that contains the text is answered.
    refusal: Mutex<Option<(&'static str, StatusCode)>>,
}

impl Store {
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/data", listener.local_addr().unwrap());
        let state = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let router = Router::new()
                    .fallback(answer)
                    .layer(DefaultBodyLimit::disable())
                    .with_state(state);
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_millis(10));
        });
        Self { url, shared, _stop: stop }
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.shared.objects.lock().unwrap().clone()
    }

    pub(crate) fn take_puts(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.puts.lock().unwrap())
    }

    pub(crate) fn refuse(&self, refusal: Option<(&'static str, StatusCode)>) {
        *self.shared.refusal.lock().unwrap() = refusal;
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response<Body> {
    let name = uri.path().trim_start_matches("/data/").to_owned();
    let status = |code: StatusCode| Response::builder().status(code).body(Body::empty()).unwrap();
    match method {
        Method::PUT => {
            if let Some((part, code)) = *shared.refusal.lock().unwrap()
                && name.contains(part)
            {
                return status(code);
            }
            shared.puts.lock().unwrap().push(name.clone());
            shared.objects.lock().unwrap().insert(name, body.to_vec());
            status(StatusCode::CREATED)
        }
        Method::GET | Method::HEAD => match shared.objects.lock().unwrap().get(&name) {
            Some(bytes) => Response::builder()
                .header("content-length", bytes.len())
                .header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                .body(Body::from(bytes.clone()))
                .unwrap(),
            None => status(StatusCode::NOT_FOUND),
        },
        Method::DELETE => {
            let removed = shared.objects.lock().unwrap().remove(&name);
            status(removed.map_or(StatusCode::NOT_FOUND, |_| StatusCode::NO_CONTENT))
        }
        _ => status(StatusCode::METHOD_NOT_ALLOWED),
    }
}
