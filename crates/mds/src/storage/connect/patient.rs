//! The HTTP client of stores that are written to: it gives a request time to send its body.
//!
//! The time limit on the first byte of an answer runs while the body of the request is sent, and
//! nobody is told how much of it has gone. So a request gets as much more time as its body takes on
//! the slowest connection that is not called stalled.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use tokio::time::timeout;

/// A connection that takes fewer bytes than this in a second has stalled.
const SLOWEST: u64 = 100_000;

/// How much longer than others a request may take whose body has so many bytes.
pub(super) fn time_to_send(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / SLOWEST)
}

/// Makes clients that wait for what they send.
#[derive(Debug)]
pub(super) struct PatientConnector {
    /// Time limit for the first byte of an answer, when all of the body has been sent.
    pub(super) timeout: Duration,
}

impl HttpConnector for PatientConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(PatientClient {
            usual: ReqwestConnector::default().connect(options)?,
            patient: OnceLock::new(),
            options: options.clone().with_read_timeout_disabled(),
            timeout: self.timeout,
        }))
    }
}

#[derive(Debug)]
struct PatientClient {
    /// Has the time limit for every request.
    usual: HttpClient,
    /// Has none. Made when first needed: most remotes are only read.
    patient: OnceLock<HttpClient>,
    options: ClientOptions,
    timeout: Duration,
}

impl PatientClient {
    fn patient(&self) -> Result<&HttpClient, HttpError> {
        if let Some(client) = self.patient.get() {
            return Ok(client);
        }
        let made = ReqwestConnector::default().connect(&self.options);
        let client = made.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        Ok(self.patient.get_or_init(|| client))
    }
}

#[async_trait]
impl HttpService for PatientClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let bytes = request.body().content_length() as u64;
        if bytes < SLOWEST {
            return self.usual.execute(request).await;
        }
        let answer = self.patient()?.execute(request);
        let answer = timeout(self.timeout + time_to_send(bytes), answer).await;
        answer.unwrap_or_else(|late| Err(HttpError::new(HttpErrorKind::Timeout, late)))
    }
}
