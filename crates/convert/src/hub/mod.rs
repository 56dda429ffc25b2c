//! The Hugging Face hub: listings and files over HTTP, with the token kept where it belongs.
//!
//! The token is a password. It is sent to the endpoint's own origin only, over TLS (or to
//! this machine), and on the first request only: redirects, which lead to other people's
//! storage, are followed by hand and without it. The rules are in [`access`].

mod reader;

use std::sync::Arc;
use std::time::Duration;

use mds::storage::access;
use reqwest::header::{AUTHORIZATION, HeaderValue, LINK, LOCATION, RANGE};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
pub use reader::HubReader;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const MAX_REDIRECTS: usize = 10;
/// Silence for this long is a failed attempt.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Listings and tokenizers are a few megabytes; what is longer is not one of them.
const SMALL_LIMIT: usize = 256 << 20;
const MAX_PAGES: usize = 10_000;

/// How often and how fast a failed request is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts in all, at least 1; any progress of a download starts the count anew.
    pub attempts: u32,
    /// The pause after the first failure; it doubles each time.
    pub first_pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, first_pause: Duration::from_millis(500) }
    }
}

impl Retry {
    fn pause(self, failures: u32) -> Duration {
        self.first_pause * 2u32.saturating_pow(failures.saturating_sub(1)).min(64)
    }
}

/// A client of one hub endpoint. Clones share connections. All calls block; do not use it from
/// asynchronous code.
#[derive(Debug, Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Url,
    /// Marked sensitive, so that no log or error prints it.
    token: Option<HeaderValue>,
    retry: Retry,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// A file in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// The path within the repository, `en/c4-train.00000-of-01024.json.gz`.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The name that Git has for what is in it.
    pub oid: Option<String>,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    oid: Option<String>,
}

impl Hub {
    /// The hub that `HF_ENDPOINT` names (default <https://huggingface.co>), with the token in
    /// `HF_TOKEN` if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if a variable's value cannot work.
    pub fn from_env() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = variable("HF_ENDPOINT");
        let endpoint = endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
        Self::new(endpoint, variable("HF_TOKEN").as_deref(), Retry::default())
    }

    /// A client of `endpoint`, an `http` or `https` address.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the endpoint or the token cannot work.
    pub fn new(endpoint: &str, token: Option<&str>, retry: Retry) -> Result<Self> {
        let url = Url::parse(endpoint.trim_end_matches('/')).ok();
        let url = url.filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        let endpoint = url.ok_or_else(|| {
            Error::invalid(
                format!(
                    "HF_ENDPOINT is {:?}, which is not an http or https address",
                    mds::redacted(endpoint)
                ),
                format!("set it to one such as {DEFAULT_ENDPOINT}, or unset it"),
            )
        })?;
        let token = token.map(bearer).transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| hub_error(format!("cannot start the network thread: {e}")))?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("convert-c4/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        if access::is_loopback(&endpoint) {
            // A proxy would see what is meant for this machine, the token included.
            http = http.no_proxy();
        }
        let http =
            http.build().map_err(|e| hub_error(format!("cannot start an HTTP client: {e}")))?;
        if token.is_some() && !access::is_private(&endpoint) {
            let endpoint = shown(&endpoint);
            tracing::warn!("HF_TOKEN is not sent: {endpoint} is plain http and not this machine");
        }
        Ok(Self { inner: Arc::new(Inner { endpoint, token, retry, http, runtime }) })
    }

    /// The endpoint's host (and port, if it is not the scheme's own), as a folder name.
    pub fn host(&self) -> String {
        let host =
            self.inner.endpoint.host_str().unwrap_or("unknown").replace([':', '[', ']'], "_");
        self.inner.endpoint.port().map_or_else(|| host.clone(), |port| format!("{host}_{port}"))
    }

    /// The address of `path` below the endpoint, as messages print it: without a user name and a
    /// password.
    pub fn address(&self, path: &str) -> String {
        format!("{}/{path}", shown(&self.inner.endpoint).trim_end_matches('/'))
    }

    fn url(&self, path: &str) -> Result<Url> {
        let address = format!("{}/{path}", self.inner.endpoint.as_str().trim_end_matches('/'));
        let internal = |e| Error::internal(&format!("{}: {e}", self.address(path)));
        Url::parse(&address).map_err(internal)
    }

    /// The files of the folder `folder` (empty for the root) of a dataset repository, in the
    /// hub's order. `None` if there is no such folder.
    ///
    /// # Errors
    /// [`ErrorKind::Hub`] if the hub refuses, fails after all attempts, or answers nonsense.
    pub fn dataset_files(&self, repository: &str, folder: &str) -> Result<Option<Vec<HubFile>>> {
        let mut path = format!("api/datasets/{repository}/tree/main");
        if !folder.is_empty() {
            path = format!("{path}/{folder}");
        }
        let mut url = self.url(&path)?;
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some((body, next)) = self.read_page(&url)? else { return Ok(None) };
            let entries: Vec<TreeEntry> = serde_json::from_slice(&body).map_err(|e| {
                hub_error(format!("{}: the answer is not a file listing: {e}", shown(&url)))
            })?;
            let of_files = entries.into_iter().filter(|entry| entry.kind == "file");
            files.extend(of_files.map(|e| HubFile { path: e.path, bytes: e.size, oid: e.oid }));
            match next {
                Some(next) if access::same_origin(&next, &self.inner.endpoint) => url = next,
                Some(next) => {
                    let problem = format!("the next page is on another host, {}", shown(&next));
                    return Err(hub_error(format!("{}: {problem}", shown(&url))));
                }
                None => return Ok(Some(files)),
            }
        }
        Err(hub_error(format!("{}: the listing does not end", shown(&url))))
    }

    /// Opens a dataset repository's file for reading from its start.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the path makes no address. Nothing is requested before the first
    /// read.
    pub fn open_dataset_file(&self, repository: &str, file: &HubFile) -> Result<HubReader> {
        let url = self.url(&format!("datasets/{repository}/resolve/main/{}", file.path))?;
        Ok(HubReader::new(self.clone(), url, file.bytes))
    }

    /// The whole of a small file; `None` if it is not there.
    ///
    /// # Errors
    /// [`ErrorKind::Hub`] if the hub refuses or fails after all attempts.
    pub fn read_small(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.read_page(&self.url(path)?)?.map(|(body, _)| body))
    }

    /// A body and the address of the next page, if the answer names one.
    fn read_page(&self, url: &Url) -> Result<Option<(Vec<u8>, Option<Url>)>> {
        self.with_retries(url, || {
            self.inner.runtime.block_on(async {
                let Some(mut response) = self.request(url, 0).await? else { return Ok(None) };
                let next = next_page(&response, url);
                let mut body = Vec::new();
                while let Some(bytes) = response.chunk().await.map_err(Failure::transport)? {
                    body.extend_from_slice(&bytes);
                    if body.len() > SMALL_LIMIT {
                        let problem = "the answer is far longer than it should be";
                        return Err(Failure::Final(hub_error(format!(
                            "{}: {problem}",
                            shown(url)
                        ))));
                    }
                }
                Ok(Some((body, next)))
            })
        })
    }

    fn with_retries<T>(&self, url: &Url, mut attempt: impl FnMut() -> Attempt<T>) -> Result<T> {
        let mut failures = 0;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Temporary(problem)) => {
                    failures += 1;
                    if failures >= self.inner.retry.attempts {
                        return Err(gave_up(url, failures, &problem));
                    }
                    tracing::info!("{}: {problem}; trying again", shown(url));
                    std::thread::sleep(self.inner.retry.pause(failures));
                }
            }
        }
    }

    /// One attempt to get `url` from byte `from` on, through all its redirects. `None` is a 404.
    async fn request(&self, url: &Url, from: u64) -> Attempt<Option<Response>> {
        let inner = &self.inner;
        let mut at = url.clone();
        for hop in 0..=MAX_REDIRECTS {
            let mut request = inner.http.get(at.clone());
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if hop == 0
                && access::may_have_token(&inner.endpoint, &at)
                && let Some(token) = &inner.token
            {
                request = request.header(AUTHORIZATION, token.clone());
            }
            let response = request.send().await.map_err(Failure::transport)?;
            if !response.status().is_redirection() {
                return judge(response, url);
            }
            let target = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            let target = target.and_then(|target| at.join(target).ok());
            at = match target {
                Some(target) if access::may_follow(&at, &target) => target,
                Some(target) => {
                    let problem = format!("it redirects to {}, which is refused", shown(&target));
                    return Err(Failure::Final(hub_error(format!("{}: {problem}", shown(url)))));
                }
                None => {
                    let problem = "it redirects to nowhere";
                    return Err(Failure::Final(hub_error(format!("{}: {problem}", shown(url)))));
                }
            };
        }
        let problem = format!("more than {MAX_REDIRECTS} redirects");
        Err(Failure::Final(hub_error(format!("{}: {problem}", shown(url)))))
    }
}

type Attempt<T> = Result<T, Failure>;

/// Whether another attempt can help.
enum Failure {
    Temporary(String),
    Final(Error),
}

impl Failure {
    /// A connection that failed, broke or fell silent. The address is left out: after a redirect it
    /// can carry a signature.
    fn transport(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        Self::Temporary(text)
    }
}

fn judge(response: Response, url: &Url) -> Attempt<Option<Response>> {
    let status = response.status();
    match status {
        _ if status.is_success() => Ok(Some(response)),
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::Final(Error::new(
            ErrorKind::Hub,
            format!("{} answers {status}", shown(url)),
            "check the name, and set HF_TOKEN to a token that may read it",
        ))),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Err(Failure::Temporary(format!("it answers {status}")))
        }
        _ if status.is_server_error() => Err(Failure::Temporary(format!("it answers {status}"))),
        _ => Err(Failure::Final(hub_error(format!("{} answers {status}", shown(url))))),
    }
}

/// The target of `Link: <...>; rel="next"`, which may be relative to `url`.
fn next_page(response: &Response, url: &Url) -> Option<Url> {
    let values = response.headers().get_all(LINK).iter().filter_map(|v| v.to_str().ok());
    let mut links = values.flat_map(|value| value.split(','));
    links.find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters.split(';').any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next"));
        if next { url.join(target).ok() } else { None }
    })
}

fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
        Error::invalid("HF_TOKEN holds characters that no token has", "set it again or unset it")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// An address as messages print it: a query may hold a signature, user information a password.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn hub_error(what: String) -> Error {
    Error::new(
        ErrorKind::Hub,
        what,
        "check HF_ENDPOINT and the network, or use files of this machine",
    )
}

fn gave_up(url: &Url, attempts: u32, problem: &str) -> Error {
    hub_error(format!("{}: {problem} (gave up after {attempts} attempts)", shown(url)))
}
