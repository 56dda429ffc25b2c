//! From an address and the environment to an object store.
//!
//! A setting comes from the options of the address, else from the environment variables that the
//! cloud's own tools use, else (S3) from the profile files of the AWS tools. Who gives credentials
//! as options gets none from elsewhere, so that no key of one account meets a token of another.

mod acl;
mod azure;
mod environment;
mod google;
mod hub;
mod patient;
mod profile;
mod redirects;
mod s3;
mod web;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, HeaderMap, HeaderValue, ObjectStore,
    ObjectStoreScheme, RetryConfig,
};

use super::RemoteOptions;
use super::location::Address;
use super::options::{AddressOptions, Names};
use crate::error::{Error, ErrorKind, Result};
use environment::Environment;
use patient::{PatientConnector, time_to_send};
pub(super) use redirects::RefusedRedirect;

/// The longest pause between two attempts.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The shortest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(500);

const KNOWN: &str = "use a path, file://, s3://, gs://, az://, hf://, http:// or https://";

/// The longest that one request may take until its next byte, all its attempts and the pauses
/// between them included.
pub(super) fn request_limit(options: &RemoteOptions) -> Duration {
    (options.timeout + LONGEST_PAUSE).saturating_mul(options.attempts)
}

/// The same for a request that sends so many bytes.
pub(super) fn upload_limit(options: &RemoteOptions, bytes: u64) -> Duration {
    let timeout = options.timeout.saturating_add(time_to_send(bytes));
    request_limit(&RemoteOptions { timeout, ..options.clone() })
}

/// A dataset's place in a store.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The path of the dataset in it.
    pub(super) prefix: ObjectPath,
    pub(super) service: Service,
}

impl Connection {
    /// The path of an object of the dataset.
    pub(super) fn path(&self, name: &str) -> ObjectPath {
        let name = match (self.service, ObjectPath::parse(name)) {
            // The client of web servers encodes names by itself; `from` would encode them twice.
            (Service::Web, Ok(name)) => name,
            _ => ObjectPath::from(name),
        };
        self.prefix.parts().chain(name.parts()).collect()
    }
}

/// What a store speaks, where that matters to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// S3, GCS or Azure.
    Cloud,
    /// A web server: cannot list.
    Web,
    /// The Hugging Face hub: cannot list, and takes nothing.
    Hub,
}

/// The store behind `address`. Connects to nothing yet.
pub(super) fn connect(address: &Address, options: &RemoteOptions) -> Result<Connection> {
    connect_in(&Environment::of_this_process(), address, options)
}

fn connect_in(
    environment: &Environment,
    address: &Address,
    options: &RemoteOptions,
) -> Result<Connection> {
    let url = &address.url;
    if url.scheme() == "hf" {
        return hub::connect(environment, address, options);
    }
    let (scheme, path) = ObjectStoreScheme::parse(url).map_err(|_| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the remote {} has an address that is not known", address.shown()),
            KNOWN,
        )
    })?;
    let cloud = |store| (store, Service::Cloud);
    let prefix = path.clone();
    let (store, service) = match scheme {
        ObjectStoreScheme::AmazonS3 => cloud(s3::connect(environment, address, options)?),
        ObjectStoreScheme::GoogleCloudStorage => {
            cloud(google::connect(environment, address, options)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let (store, prefix) = azure::connect(environment, address, prefix, options)?;
            return Ok(Connection { store, prefix, service: Service::Cloud });
        }
        ObjectStoreScheme::Http => (web::connect(address, options)?, Service::Web),
        _ => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the remote {} is not one that datasets are read from", url.scheme()),
                KNOWN,
            ));
        }
    };
    Ok(Connection { store, prefix: path, service })
}

/// An error for settings that `object_store` refuses.
fn unusable(address: &Address, error: &object_store::Error) -> Error {
    invalid(address, super::reason(error, &address.options))
}

fn invalid(address: &Address, reason: impl Display) -> Error {
    Error::invalid(
        format!("cannot use the remote {} ({reason})", address.shown()),
        "check the address, its options and the cloud settings in the environment",
    )
}

/// The settings of a store, those that win last: what the variables that begin with `prefix` say,
/// but for what would mix with credentials in `given`, then `given`.
fn settings(
    environment: &Environment,
    prefix: &str,
    given: &AddressOptions,
    names: &Names,
) -> Vec<(String, String)> {
    let own = given.have_credentials(names);
    let from_outside =
        environment.with_prefix(prefix).filter(|(name, _)| !(own && names.is_credential(name)));
    let from_address = given.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    from_outside.chain(from_address).collect()
}

/// No limit on a whole download, which may be large; one on every pause in it.
fn client(options: &RemoteOptions) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(options.timeout)
        .with_read_timeout(options.timeout)
}

/// Gives requests of that client the time to send what they have.
fn patient(options: &RemoteOptions) -> PatientConnector {
    PatientConnector { timeout: options.timeout }
}

/// The same client with a header of credentials, which goes to the first host alone: redirects to
/// others lose it.
fn authorized(client: ClientOptions, credentials: &str) -> Option<ClientOptions> {
    let mut value = HeaderValue::from_str(credentials).ok()?;
    value.set_sensitive(true);
    Some(with_header(client, "authorization", value))
}

/// The same client with this header on every request, and no other.
fn with_header(client: ClientOptions, name: &'static str, value: HeaderValue) -> ClientOptions {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    client.with_default_headers(headers)
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

/// Allows plain HTTP if an end point is written so: nobody does that by accident.
fn allow_http_of(client: ClientOptions, endpoint: Option<&str>) -> ClientOptions {
    match endpoint.is_some_and(|endpoint| endpoint.trim_start().starts_with("http://")) {
        true => client.with_allow_http(true),
        false => client,
    }
}

fn retries(options: &RemoteOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: FIRST_PAUSE, max_backoff: LONGEST_PAUSE, base: 2.0 },
        max_retries: options.attempts.saturating_sub(1) as usize,
        // Whoever sends a request limits its time, by its size. This is above the limit for any shard.
        retry_timeout: upload_limit(options, u64::from(u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Location;
    use super::*;

    /// Connects with the given variables and no others.
    pub(super) fn connection(address: &str, variables: &[(&str, &str)]) -> Result<Connection> {
        let Location::Url(address) = Location::parse(address)? else { panic!("{address}") };
        connect_in(&Environment::of(variables), &address, &RemoteOptions::default())
    }

    /// What `object_store` says of the store, which shows its settings.
    pub(super) fn described(address: &str, variables: &[(&str, &str)]) -> String {
        format!("{:?}", connection(address, variables).unwrap().store)
    }

    pub(super) fn refusal(address: &str, variables: &[(&str, &str)]) -> String {
        connection(address, variables).err().unwrap().to_string()
    }

    #[test]
    fn the_path_of_a_url_is_the_prefix_in_its_store() {
        let prefix = |address| connection(address, &[]).unwrap().prefix.to_string();
        assert_eq!(prefix("http://127.0.0.1:9/c4/val"), "c4/val");
        assert_eq!(prefix("s3://b/c4/v%20al?skip_signature=true"), "c4/v al");
        assert_eq!(prefix("https://acc.r2.cloudflarestorage.com/b/c4?skip_signature=1"), "c4");
    }

    #[test]
    fn unknown_schemes_list_the_known_ones() {
        assert_eq!(
            refusal("gopher://h/c4", &[]),
            "the remote gopher://h/c4 has an address that is not known; \
             use a path, file://, s3://, gs://, az://, hf://, http:// or https://"
        );
    }

    #[test]
    fn a_value_that_cannot_work_is_not_shown() {
        let error = refusal(
            "s3://b/c4?access_key_id=AK&secret_access_key=x&skip_signature=maybe-secret",
            &[],
        );
        assert_eq!(
            error,
            "cannot use the remote s3://b/c4 (Generic Config error: failed to parse \
             \"maybe-secret\" as boolean); check the address, its options and the cloud settings \
             in the environment"
        );
        let error = refusal("az://c/c4?account_name=acc&account_key=not+base64!secret", &[]);
        assert!(!error.contains("secret"), "{error}");
    }
}
