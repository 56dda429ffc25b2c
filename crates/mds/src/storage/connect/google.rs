//! Google Cloud Storage.

use std::sync::Arc;

use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, ClientOptions, HeaderValue, ObjectStore};
use serde::Deserialize;
use url::Url;

use super::environment::Environment;
use super::{
    allow_http_of, client, invalid, patient, retries, s3, set, settings, unusable, with_header,
};
use crate::error::{Error, Result};
use crate::storage::RemoteOptions;
use crate::storage::access::is_loopback;
use crate::storage::location::{Address, redact};
use crate::storage::options::Names;

/// The project that pays for requests to a bucket whose owner does not: an option of ours, since
/// `object_store` has none.
const USER_PROJECT: &str = "user_project";

/// The options of a GCS address, unless it carries HMAC keys: then they are those of S3.
pub(super) const NAMES: Names = Names {
    store: "GCS",
    prefixes: &["google_"],
    all: &[
        "service_account",
        "service_account_key",
        "application_credentials",
        "bearer_token",
        "skip_signature",
        "base_url",
        "allow_http",
        "service_account_path",
        USER_PROJECT,
    ],
    credentials: &[
        "service_account",
        "service_account_path",
        "service_account_key",
        "application_credentials",
        "bearer_token",
        "skip_signature",
    ],
};

/// The store of a GCS address.
pub(super) fn connect(
    environment: &Environment,
    address: &Address,
    options: &RemoteOptions,
) -> Result<Arc<dyn ObjectStore>> {
    let shown = address.shown();
    let hmac = |name: &str| address.options.iter().find(|(n, _)| s3::NAMES.plain(n) == name);
    if let (Some((_, key)), Some((_, secret))) = (hmac("access_key_id"), hmac("secret_access_key"))
    {
        let given = address.options.checked(&s3::NAMES, &shown)?;
        return s3::connect_to_google(key, secret, &given, address, options);
    }
    let given = address.options.checked(&NAMES, &shown)?;
    // As in the reference, these two win over whatever else the environment has.
    if let (Some(key), Some(secret)) = (environment.get("GCS_KEY"), environment.get("GCS_SECRET"))
        && !given.have_credentials(&NAMES)
    {
        return s3::connect_to_google(key, secret, &given, address, options);
    }
    let mut builder = GoogleCloudStorageBuilder::new().with_url(address.url.as_str());
    let mut client = client(options);
    if let Some(project) = given.get(USER_PROJECT) {
        client = paid_by(client, project, address)?;
    }
    for (name, value) in settings(environment, "GOOGLE_", &given, &NAMES) {
        match name.parse() {
            Ok(GoogleConfigKey::Client(key)) => client = set(client, key, value),
            Ok(key) => builder = builder.with_config(key, value),
            // A variable of Google's tools that says nothing here.
            Err(_) => {}
        }
    }
    client = match builder.get_config_value(&GoogleConfigKey::BaseUrl) {
        Some(endpoint) => allow_http_of(client, Some(&endpoint)),
        None => allow_http_of_account(client, &builder, address)?,
    };
    let built = builder
        .with_client_options(client)
        .with_http_connector(patient(options))
        .with_retry(retries(options))
        .build();
    Ok(Arc::new(built.map_err(|e| unusable(address, &e))?))
}

/// The same client, with the header that names who pays.
fn paid_by(client: ClientOptions, project: &str, address: &Address) -> Result<ClientOptions> {
    let value = HeaderValue::from_str(project)
        .map_err(|_| invalid(address, format!("{USER_PROJECT} is not the name of a project")))?;
    Ok(with_header(client, "x-goog-user-project", value))
}

/// Allows plain HTTP to an emulator that the service account names: one on this machine. Elsewhere
/// keys would go over the wire in the clear, so somebody has to say that it is meant.
fn allow_http_of_account(
    client: ClientOptions,
    builder: &GoogleCloudStorageBuilder,
    address: &Address,
) -> Result<ClientOptions> {
    let allowed = client.get_config_value(&ClientConfigKey::AllowHttp).unwrap_or_default();
    // As object_store reads it.
    let allowed = ["1", "true", "on", "yes", "y"].contains(&allowed.to_ascii_lowercase().as_str());
    let server = server_of_account(builder).filter(|server| server.scheme() == "http");
    match server {
        Some(server) if is_loopback(&server) => Ok(client.with_allow_http(true)),
        Some(server) if !allowed => Err(Error::invalid(
            format!(
                "the service account for {} names the server {}, which is plain http",
                address.shown(),
                redact(server.as_str())
            ),
            "give the option allow_http=true (GOOGLE_ALLOW_HTTP) if keys and data may be read on \
             the way, or the server's https address",
        )),
        _ => Ok(client),
    }
}

/// The server that the key of a service account names. What is wrong with a key says
/// `object_store`.
fn server_of_account(builder: &GoogleCloudStorageBuilder) -> Option<Url> {
    #[derive(Deserialize)]
    struct Account {
        gcs_base_url: String,
    }
    let file = builder.get_config_value(&GoogleConfigKey::ServiceAccount);
    let text = match file {
        Some(path) => std::fs::read_to_string(path).ok()?,
        None => builder.get_config_value(&GoogleConfigKey::ServiceAccountKey)?,
    };
    let account: Account = serde_json::from_str(&text).ok()?;
    Url::parse(&account.gcs_base_url).ok()
}

#[cfg(test)]
mod tests {
    use super::super::super::options::OF_CLIENTS;
    use super::super::tests::{described, refusal};
    use super::*;

    #[test]
    fn every_name_is_one_of_object_store() {
        for name in NAMES.all.iter().chain(OF_CLIENTS).filter(|&&name| name != USER_PROJECT) {
            assert!(name.parse::<GoogleConfigKey>().is_ok(), "{name}");
            let long = format!("google_{name}");
            assert!(long.parse::<GoogleConfigKey>().is_ok(), "{long}");
        }
    }

    #[test]
    fn hmac_keys_go_through_the_s3_interface() {
        let variables = [("GCS_KEY", "GOOGAK"), ("GCS_SECRET", "x"), ("AWS_ACCESS_KEY_ID", "AK")];
        let store = described("gs://b/c4", &variables);
        assert!(store.contains("\"https://storage.googleapis.com/b\""), "{store}");
        assert!(store.contains("GOOGAK") && !store.contains("\"AK\""), "{store}");
        let store = described(
            "gs://b/c4?access_key_id=MINE&secret_access_key=x&endpoint=http://127.0.0.1:9",
            &variables,
        );
        assert!(store.contains("\"http://127.0.0.1:9/b\"") && store.contains("MINE"), "{store}");
        // Other credentials in the address win over the variables.
        let store = described("gs://b/c4?bearer_token=x", &variables);
        assert!(!store.contains("GOOGAK"), "{store}");
    }

    #[test]
    fn a_service_account_may_name_an_emulator_on_this_machine() {
        let key = |server: &str| {
            let key = format!(
                r#"{{"private_key": "k", "private_key_id": "i", "client_email": "e",
                "disable_oauth": true, "gcs_base_url": "{server}"}}"#
            );
            format!("gs://b/c4?service_account_key={}", key.replace(['\n', ' '], ""))
        };
        let allows = |address: &str, variables: &[(&str, &str)]| {
            described(address, variables).contains("allow_http: Parsed(true)")
        };
        assert!(allows(&key("http://127.0.0.1:4443"), &[]));
        assert!(allows(&key("http://localhost:4443"), &[]));
        assert!(!allows(&key("https://gcs.example"), &[]));
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = key("http://[::1]:4443");
        std::fs::write(&file, text.split_once('=').unwrap().1).unwrap();
        let path = file.path().to_str().unwrap();
        assert!(allows("gs://b/c4", &[("GOOGLE_SERVICE_ACCOUNT", path)]));
        let far = key("http://me:pw@gcs.example");
        assert_eq!(
            refusal(&far, &[]),
            "the service account for gs://b/c4 names the server http://gcs.example/, which is \
             plain http; give the option allow_http=true (GOOGLE_ALLOW_HTTP) if keys and data may \
             be read on the way, or the server's https address"
        );
        assert!(described(&format!("{far}&allow_http=yes"), &[]).contains("Deferred(\"yes\")"));
    }

    #[test]
    fn who_pays_is_named_in_a_header() {
        let store = described("gs://b/c4?user_project=my-project-1", &[]);
        assert!(store.contains("\"x-goog-user-project\": \"my-project-1\""), "{store}");
        assert!(!described("gs://b/c4", &[]).contains("user-project"));
        assert_eq!(
            refusal("gs://b/c4?user_project=a%0Ab", &[]),
            "cannot use the remote gs://b/c4 (user_project is not the name of a project); check \
             the address, its options and the cloud settings in the environment"
        );
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(
            refusal("gs://b/c4?google_service_acount=x", &[]),
            "GCS has no option \"google_service_acount\", which gs://b/c4 carries; did you mean \
             service_account?"
        );
    }
}
