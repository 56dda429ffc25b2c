//! The HTTP client of the Hugging Face hub, which looks where redirects lead.
//!
//! `object_store`'s own client follows whatever it is told, as long as an end point of `https`
//! stays with it; here the rules of [`access`](crate::storage::access) hold on each step of a way.

use std::time::Duration;

use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientConfigKey, ClientOptions, Error as StoreError};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Url};

use crate::storage::access::may_follow;
use crate::storage::location::redact;

/// As many as other clients follow.
const MAX_REDIRECTS: usize = 10;

/// Makes clients that follow only what [`may_follow`] allows.
#[derive(Debug)]
pub(super) struct CarefulConnector {
    /// Time limit for connecting and for each pause between two bytes.
    pub(super) timeout: Duration,
    /// A proxy would see what is meant for this machine, a token included.
    pub(super) is_loopback: bool,
}

impl HttpConnector for CarefulConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let mut client = Client::builder()
            .user_agent(concat!("mds/", env!("CARGO_PKG_VERSION")))
            .default_headers(options.get_default_headers().cloned().unwrap_or_default())
            .connect_timeout(self.timeout)
            .read_timeout(self.timeout)
            // A length is that of the object, as it is in object_store's own client.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .https_only(allow_http.as_deref() != Some("true"))
            .redirect(Policy::custom(follow));
        if self.is_loopback {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| StoreError::Generic {
            store: "HTTP client",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(client))
    }
}

fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many redirects");
    }
    match attempt.previous().last() {
        Some(from) if !may_follow(from, attempt.url()) => {
            let refused = RefusedRedirect::of(attempt.url());
            attempt.error(refused)
        }
        _ => attempt.follow(),
    }
}

/// A redirect that was not followed.
#[derive(Debug, thiserror::Error)]
#[error("it redirects to {to}, which is refused")]
pub(in crate::storage) struct RefusedRedirect {
    /// Without a query, which may be a signature.
    to: String,
}

impl RefusedRedirect {
    fn of(to: &Url) -> Self {
        Self { to: redact(to.as_str()) }
    }

    /// Whether such a redirect is what `error` is about.
    pub(in crate::storage) fn cause<'a>(
        error: &'a (dyn std::error::Error + 'static),
    ) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            cause = error.source();
        }
        None
    }
}
