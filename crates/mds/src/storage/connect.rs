//! From a URL and the environment to an object store.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig,
};
use url::{Position, Url};

use super::{RemoteOptions, redact};
use crate::error::{Error, ErrorKind, Result};

const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The longest that one request may take until its next byte, all its attempts and the pauses
/// between them included.
pub(super) fn request_limit(options: &RemoteOptions) -> Duration {
    (options.timeout + LONGEST_PAUSE).saturating_mul(options.attempts)
}

/// The store behind `url` and the path of the dataset in it. Connects to nothing yet.
pub(super) fn connect(
    url: &Url,
    options: &RemoteOptions,
) -> Result<(Arc<dyn ObjectStore>, ObjectPath)> {
    let (scheme, path) = ObjectStoreScheme::parse(url).map_err(|_| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the remote {} has an address that is not known", redact(url.as_str())),
            "use a path, file://, s3://, gs://, az://, http:// or https://",
        )
    })?;
    let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match scheme {
        ObjectStoreScheme::AmazonS3 => s3(url, options).map(|s| Arc::new(s) as _),
        ObjectStoreScheme::GoogleCloudStorage => google(url, options).map(|s| Arc::new(s) as _),
        ObjectStoreScheme::MicrosoftAzure => azure(url, options).map(|s| Arc::new(s) as _),
        ObjectStoreScheme::Http => HttpBuilder::new()
            .with_url(&url[..Position::BeforePath])
            .with_client_options(client(options).with_allow_http(url.scheme() == "http"))
            .with_retry(retries(options))
            .build()
            .map(|s| Arc::new(s) as _),
        _ => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the remote {} is not one that datasets are read from", url.scheme()),
                "use a path, file://, s3://, gs://, az://, http:// or https://",
            ));
        }
    };
    let store = store.map_err(|e| {
        Error::invalid(
            format!("cannot use the remote {} ({})", redact(url.as_str()), super::reason(&e)),
            "check the address and the cloud settings in the environment",
        )
    })?;
    Ok((store, path))
}

fn s3(url: &Url, options: &RemoteOptions) -> object_store::Result<impl ObjectStore + use<>> {
    let mut builder = AmazonS3Builder::new().with_url(url.as_str());
    let mut client = client(options);
    // The reference's own variable goes first, so that the AWS tools' variables win over it.
    if let Some(endpoint) = variable("S3_ENDPOINT_URL") {
        builder = builder.with_endpoint(endpoint);
    }
    for (name, value) in variables("AWS_") {
        match name.parse() {
            Ok(AmazonS3ConfigKey::Client(key)) => client = set(client, key, value),
            Ok(key) => builder = builder.with_config(key, value),
            Err(_) => {}
        }
    }
    builder.with_client_options(client).with_retry(retries(options)).build()
}

fn google(url: &Url, options: &RemoteOptions) -> object_store::Result<impl ObjectStore + use<>> {
    let mut builder = GoogleCloudStorageBuilder::new().with_url(url.as_str());
    let mut client = client(options);
    for (name, value) in variables("GOOGLE_") {
        match name.parse() {
            Ok(GoogleConfigKey::Client(key)) => client = set(client, key, value),
            Ok(key) => builder = builder.with_config(key, value),
            Err(_) => {}
        }
    }
    builder.with_client_options(client).with_retry(retries(options)).build()
}

fn azure(url: &Url, options: &RemoteOptions) -> object_store::Result<impl ObjectStore + use<>> {
    let mut builder = MicrosoftAzureBuilder::new().with_url(url.as_str());
    let mut client = client(options);
    // The reference's names of the two variables.
    if let Some(account) = variable("AZURE_ACCOUNT_NAME") {
        builder = builder.with_account(account);
    }
    if let Some(key) = variable("AZURE_ACCOUNT_ACCESS_KEY") {
        builder = builder.with_access_key(key);
    }
    for (name, value) in variables("AZURE_") {
        match name.parse() {
            Ok(AzureConfigKey::Client(key)) => client = set(client, key, value),
            Ok(key) => builder = builder.with_config(key, value),
            Err(_) => {}
        }
    }
    builder.with_client_options(client).with_retry(retries(options)).build()
}

/// No limit on a whole download, which may be large; one on every pause in it.
fn client(options: &RemoteOptions) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(options.timeout)
        .with_read_timeout(options.timeout)
}

/// Only what decides whether a server can be talked to at all comes from the environment: the
/// time limits are the caller's.
fn set(client: ClientOptions, key: ClientConfigKey, value: String) -> ClientOptions {
    match key {
        ClientConfigKey::Timeout
        | ClientConfigKey::ConnectTimeout
        | ClientConfigKey::ReadTimeout => client,
        key => client.with_config(key, value),
    }
}

fn retries(options: &RemoteOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(500),
            max_backoff: LONGEST_PAUSE,
            base: 2.0,
        },
        max_retries: options.attempts.saturating_sub(1) as usize,
        retry_timeout: request_limit(options),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The environment variables that begin with `prefix`, their names in lower case.
fn variables(prefix: &str) -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(move |(name, value)| {
        let name = name.to_str().filter(|name| name.starts_with(prefix))?.to_ascii_lowercase();
        Some((name, value.into_string().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &str) -> String {
        let url = Url::parse(address).unwrap();
        connect(&url, &RemoteOptions::default()).unwrap_err().to_string()
    }

    #[test]
    fn the_path_of_a_url_is_the_prefix_in_its_store() {
        let url = Url::parse("http://127.0.0.1:9/c4/val").unwrap();
        let (_, prefix) = connect(&url, &RemoteOptions::default()).unwrap();
        assert_eq!(prefix.as_ref(), "c4/val");
    }

    #[test]
    fn unknown_schemes_list_the_known_ones() {
        assert_eq!(
            refusal("gopher://h/c4"),
            "the remote gopher://h/c4 has an address that is not known; \
             use a path, file://, s3://, gs://, az://, http:// or https://"
        );
    }
}
