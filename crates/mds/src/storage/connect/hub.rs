//! Datasets of the Hugging Face hub, read by HTTP: `hf://datasets/ORG/NAME[@REVISION]/path`.

use std::sync::Arc;

use object_store::ClientOptions;
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use url::Url;

use super::environment::Environment;
use super::redirects::CarefulConnector;
use super::{Connection, Service, authorized, client, retries, unusable};
use crate::error::{Error, Result};
use crate::storage::RemoteOptions;
use crate::storage::access::{is_loopback, is_private};
use crate::storage::location::Address;
use crate::storage::options::Names;

const ENDPOINT: &str = "https://huggingface.co";

pub(super) const NAMES: Names = Names {
    store: "the Hugging Face hub",
    prefixes: &["hf_"],
    all: &["token", "endpoint"],
    credentials: &["token"],
};

/// The repository as a store of its files.
pub(super) fn connect(
    environment: &Environment,
    address: &Address,
    options: &RemoteOptions,
) -> Result<Connection> {
    let given = address.options.checked(&NAMES, &address.shown())?;
    let endpoint = given.get("endpoint").or(environment.get("HF_ENDPOINT")).unwrap_or(ENDPOINT);
    let endpoint = Url::parse(endpoint.trim_end_matches('/')).ok();
    let endpoint = endpoint.filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    let endpoint = endpoint.ok_or_else(|| {
        Error::invalid(
            format!("the end point of {} is not an http or https address", address.shown()),
            format!("set HF_ENDPOINT to one such as {ENDPOINT}, or unset it"),
        )
    })?;
    let (base, prefix) = place(&endpoint, &address.url).ok_or_else(|| {
        Error::invalid(
            format!("the remote {} does not name a dataset of the hub", address.shown()),
            "write it as hf://datasets/ORG/NAME/path, or hf://datasets/ORG/NAME@REVISION/path",
        )
    })?;
    let mut client = client(options).with_allow_http(endpoint.scheme() == "http");
    // Only where nobody in between can read it.
    if let Some(token) = given.get("token").or(environment.get("HF_TOKEN"))
        && is_private(&endpoint)
    {
        client = with_token(client, token)?;
    }
    let connector =
        CarefulConnector { timeout: options.timeout, is_loopback: is_loopback(&endpoint) };
    let builder = HttpBuilder::new().with_url(base).with_client_options(client);
    let builder = builder.with_retry(retries(options)).with_http_connector(connector);
    let store = builder.build().map_err(|e| unusable(address, &e))?;
    Ok(Connection { store: Arc::new(store), prefix, service: Service::Hub })
}

/// The address below which the files of a revision are, and the path of the dataset there.
fn place(endpoint: &Url, url: &Url) -> Option<(String, ObjectPath)> {
    let mut parts = url.path().trim_start_matches('/').splitn(3, '/');
    let (owner, name) = (parts.next()?, parts.next()?);
    // A revision such as refs%2Fconvert%2Fparquet stays encoded, as the hub has it.
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    if url.host_str() != Some("datasets") || [owner, name, revision].contains(&"") {
        return None;
    }
    let base = endpoint.as_str().trim_end_matches('/');
    let base = format!("{base}/datasets/{owner}/{name}/resolve/{revision}");
    Some((base, ObjectPath::from_url_path(parts.next().unwrap_or_default()).ok()?))
}

fn with_token(client: ClientOptions, token: &str) -> Result<ClientOptions> {
    authorized(client, &format!("Bearer {}", token.trim())).ok_or_else(|| {
        Error::invalid(
            "the token of the Hugging Face hub holds characters that no token has",
            "set HF_TOKEN to a token from the hub's settings, or unset it",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{connection, described, refusal};
    use super::*;

    #[test]
    fn addresses_name_a_repository_a_revision_and_a_folder() {
        let url = |text| Url::parse(text).unwrap();
        let found = |text| place(&url("https://h/x"), &url(text)).unwrap();
        let (base, prefix) = found("hf://datasets/allenai/c4/mds/en%20x");
        assert_eq!(base, "https://h/x/datasets/allenai/c4/resolve/main");
        assert_eq!(prefix.as_ref(), "mds/en x");
        let (base, prefix) = found("hf://datasets/a/b@refs%2Fconvert%2Fmds");
        assert_eq!(base, "https://h/x/datasets/a/b/resolve/refs%2Fconvert%2Fmds");
        assert_eq!(prefix.as_ref(), "");
        for wrong in ["hf://datasets/c4", "hf://models/a/b", "hf://datasets/a/@x/y", "hf://a/b"] {
            assert_eq!(
                refusal(wrong, &[]),
                format!(
                    "the remote {wrong} does not name a dataset of the hub; write it as \
                     hf://datasets/ORG/NAME/path, or hf://datasets/ORG/NAME@REVISION/path"
                )
            );
        }
    }

    #[test]
    fn the_token_is_marked_and_goes_to_private_end_points_only() {
        let token = ("HF_TOKEN", "hf_secret");
        assert_eq!(connection("hf://datasets/a/b", &[token]).unwrap().service, Service::Hub);
        let sent = |endpoint| {
            let store = described("hf://datasets/a/b", &[token, ("HF_ENDPOINT", endpoint)]);
            assert!(!store.contains("hf_secret"), "{store}");
            store.contains("authorization")
        };
        assert!(sent("https://huggingface.co/"));
        assert!(sent("http://127.0.0.1:9"));
        assert!(!sent("http://mirror.example"));
        assert_eq!(
            refusal("hf://datasets/a/b", &[("HF_ENDPOINT", "mirror")]),
            "the end point of hf://datasets/a/b is not an http or https address; set HF_ENDPOINT \
             to one such as https://huggingface.co, or unset it"
        );
    }
}
