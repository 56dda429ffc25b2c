//! Web servers.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use object_store::ObjectStore;
use object_store::http::HttpBuilder;
use url::form_urlencoded;

use super::{authorized, client, invalid, patient, retries, unusable};
use crate::error::Result;
use crate::storage::RemoteOptions;
use crate::storage::location::Address;

/// The server of an `http` or `https` address.
pub(super) fn connect(address: &Address, options: &RemoteOptions) -> Result<Arc<dyn ObjectStore>> {
    let url = &address.url;
    let mut client = client(options).with_allow_http(url.scheme() == "http");
    // Sent as a header: libraries log the addresses that they connect to.
    if !url.username().is_empty() || url.password().is_some() {
        let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or("")));
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        client = authorized(client, &basic)
            .ok_or_else(|| invalid(address, "its user name cannot be sent"))?;
    }
    let built = HttpBuilder::new()
        .with_url(url.origin().ascii_serialization())
        .with_client_options(client)
        .with_http_connector(patient(options))
        .with_retry(retries(options))
        .build();
    Ok(Arc::new(built.map_err(|e| unusable(address, &e))?))
}

/// A part of a URL without its percent signs.
fn decoded(part: &str) -> String {
    let value = format!("v={}", part.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(value.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_and_passwords_are_decoded() {
        assert_eq!(decoded("a+b%20c&d=e%2Ff"), "a+b c&d=e/f");
        assert_eq!(decoded(""), "");
    }
}
