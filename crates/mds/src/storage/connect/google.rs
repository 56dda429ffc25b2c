//! Google Cloud Storage.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

use super::environment::Environment;
use super::{allow_http_of, client, retries, s3, set, settings, unusable};
use crate::error::Result;
use crate::storage::RemoteOptions;
use crate::storage::location::Address;
use crate::storage::options::Names;

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
    for (name, value) in settings(environment, "GOOGLE_", &given, &NAMES) {
        match name.parse() {
            Ok(GoogleConfigKey::Client(key)) => client = set(client, key, value),
            Ok(key) => builder = builder.with_config(key, value),
            // A variable of Google's tools that says nothing here.
            Err(_) => {}
        }
    }
    let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    client = allow_http_of(client, endpoint.as_deref());
    let built = builder.with_client_options(client).with_retry(retries(options)).build();
    Ok(Arc::new(built.map_err(|e| unusable(address, &e))?))
}

#[cfg(test)]
mod tests {
    use super::super::super::options::OF_CLIENTS;
    use super::super::tests::{described, refusal};
    use super::*;

    #[test]
    fn every_name_is_one_of_object_store() {
        for name in NAMES.all.iter().chain(OF_CLIENTS) {
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
    fn names_are_checked() {
        assert_eq!(
            refusal("gs://b/c4?google_service_acount=x", &[]),
            "GCS has no option \"google_service_acount\", which gs://b/c4 carries; did you mean \
             service_account?"
        );
    }
}
