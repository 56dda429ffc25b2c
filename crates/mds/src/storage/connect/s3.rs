//! S3 and all that speak it: MinIO, R2, Ceph, SeaweedFS, OCI, and GCS with HMAC keys.

use std::sync::Arc;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{HeaderMap, HeaderValue, ObjectStore};

use super::acl::WithAcl;
use super::environment::Environment;
use super::profile::Profile;
use super::{allow_http_of, client, patient, retries, set, settings, unusable};
use crate::error::{Error, Result};
use crate::storage::RemoteOptions;
use crate::storage::location::Address;
use crate::storage::options::{AddressOptions, Names};

/// The options of an S3 address. The bucket is in the address, time limits in [`RemoteOptions`].
pub(super) const NAMES: Names = Names {
    store: "S3",
    prefixes: &["aws_"],
    all: &[
        "endpoint",
        "region",
        "access_key_id",
        "secret_access_key",
        "skip_signature",
        "request_payer",
        "session_token",
        "virtual_hosted_style_request",
        "allow_http",
        "endpoint_url",
        "default_region",
        "token",
        "s3_express",
        "unsigned_payload",
        "checksum_algorithm",
        "disable_tagging",
        "disable_bulk_delete",
        "conditional_put",
        "copy_if_not_exists",
        "server_side_encryption",
        "sse_kms_key_id",
        "sse_bucket_key_enabled",
        "sse_customer_key_base64",
        "imdsv1_fallback",
        "metadata_endpoint",
        "container_credentials_relative_uri",
        "container_credentials_full_uri",
        "container_authorization_token_file",
        "web_identity_token_file",
        "role_arn",
        "role_session_name",
        "endpoint_url_sts",
    ],
    credentials: &[
        "access_key_id",
        "secret_access_key",
        "session_token",
        "token",
        "skip_signature",
        "container_credentials_relative_uri",
        "container_credentials_full_uri",
        "container_authorization_token_file",
        "web_identity_token_file",
        "role_arn",
    ],
};

/// The store of an S3 address.
pub(super) fn connect(
    environment: &Environment,
    address: &Address,
    options: &RemoteOptions,
) -> Result<Arc<dyn ObjectStore>> {
    let given = address.options.checked(&NAMES, &address.shown())?;
    let mut all = Vec::new();
    let mut add = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
    // The reference's own variables go first, so that the AWS tools' variables win over them.
    if let Some(endpoint) = environment.get("S3_ENDPOINT_URL") {
        add("endpoint", endpoint);
    }
    let payers = environment.get("MOSAICML_STREAMING_AWS_REQUESTER_PAYS").unwrap_or_default();
    let bucket = address.url.host_str().unwrap_or_default();
    if payers.split(',').any(|payer| payer.trim() == bucket) {
        add("request_payer", "true");
    }
    let mut rest = settings(environment, "AWS_", &given, &NAMES);
    if given.get("endpoint").or(given.get("endpoint_url")).is_some() {
        // The variable for S3 alone would win over the end point for all services.
        rest.retain(|(name, _)| name != "aws_endpoint_url_s3");
    }
    if !rest.iter().any(|(name, _)| NAMES.is_credential(name)) {
        match Profile::read(environment)? {
            Some(profile) => all.extend(profile.settings()),
            // The AWS tools' way to say that this machine has no role. Without it `object_store`
            // asks the cloud's metadata service for one.
            None if environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(is_true) => {
                all.push(("skip_signature".to_owned(), "true".to_owned()));
            }
            None => {}
        }
    }
    all.append(&mut rest);
    let builder = AmazonS3Builder::new().with_url(address.url.as_str());
    match environment.get("S3_CANNED_ACL") {
        None => Ok(Arc::new(build(builder, all, HeaderMap::new(), address, options)?)),
        Some(acl) => {
            let plain = build(builder.clone(), all.clone(), HeaderMap::new(), address, options)?;
            let maker = build(builder, all, acl_header(acl)?, address, options)?;
            Ok(Arc::new(WithAcl { plain: Arc::new(plain), maker }))
        }
    }
}

/// The header that gives a new object one of S3's canned access control lists. The server knows
/// which there are.
fn acl_header(acl: &str) -> Result<HeaderMap> {
    let value = HeaderValue::from_str(acl).map_err(|_| {
        Error::invalid(
            "S3_CANNED_ACL holds characters that no name of an access control list has",
            "set it to one such as bucket-owner-full-control, or unset it",
        )
    })?;
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-acl", value);
    Ok(headers)
}

/// GCS by its S3 interface, for the HMAC keys that the reference takes.
pub(super) fn connect_to_google(
    key: &str,
    secret: &str,
    given: &AddressOptions,
    address: &Address,
    options: &RemoteOptions,
) -> Result<Arc<dyn ObjectStore>> {
    let fixed = [
        ("endpoint", "https://storage.googleapis.com"),
        ("region", "auto"),
        ("access_key_id", key),
        ("secret_access_key", secret),
        // Google removes objects one by one.
        ("disable_bulk_delete", "true"),
    ];
    let all = fixed.into_iter().chain(given.iter());
    let all = all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let bucket = address.url.host_str().unwrap_or_default();
    let builder = AmazonS3Builder::new().with_bucket_name(bucket);
    Ok(Arc::new(build(builder, all, HeaderMap::new(), address, options)?))
}

fn build(
    mut builder: AmazonS3Builder,
    settings: Vec<(String, String)>,
    headers: HeaderMap,
    address: &Address,
    options: &RemoteOptions,
) -> Result<AmazonS3> {
    let mut client = client(options).with_default_headers(headers);
    // Few objects are deleted, and not everything that speaks S3 takes many in one request.
    builder = builder.with_disable_bulk_delete(true);
    for (name, value) in settings {
        match name.parse() {
            Ok(AmazonS3ConfigKey::Client(key)) => client = set(client, key, value),
            Ok(key) => builder = builder.with_config(key, value),
            // A variable of the AWS tools that says nothing here.
            Err(_) => {}
        }
    }
    for key in [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint] {
        client = allow_http_of(client, builder.get_config_value(&key).as_deref());
    }
    let built = builder
        .with_client_options(client)
        .with_http_connector(patient(options))
        .with_retry(retries(options))
        .build();
    built.map_err(|e| unusable(address, &e))
}

fn is_true(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text == "1"
}

#[cfg(test)]
mod tests {
    use super::super::super::options::OF_CLIENTS;
    use super::super::tests::{described, refusal};
    use super::*;

    const KEYS: &str = "access_key_id=AK&secret_access_key=SK";

    #[test]
    fn every_name_is_one_of_object_store() {
        for name in NAMES.all.iter().chain(OF_CLIENTS) {
            assert!(name.parse::<AmazonS3ConfigKey>().is_ok(), "{name}");
            let long = format!("aws_{name}");
            assert!(long.parse::<AmazonS3ConfigKey>().is_ok(), "{long}");
        }
        assert!(NAMES.credentials.iter().all(|name| NAMES.all.contains(name)));
    }

    #[test]
    fn options_win_over_the_environment_and_credentials_do_not_mix() {
        let variables = [
            ("AWS_REGION", "from-env"),
            ("AWS_ACCESS_KEY_ID", "ENVKEY"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_SESSION_TOKEN", "envtoken"),
            ("S3_ENDPOINT_URL", "https://reference.example"),
            ("AWS_IGNORED", "x"),
        ];
        let store = described("s3://b/c4", &variables);
        assert!(store.contains("from-env") && store.contains("ENVKEY"), "{store}");
        assert!(store.contains("https://reference.example/b"), "{store}");
        assert!(store.contains("token: Some"), "{store}");
        let store = described(&format!("s3://b/c4?{KEYS}&region=mine"), &variables);
        assert!(store.contains("\"mine\"") && store.contains("AK"), "{store}");
        assert!(!store.contains("ENVKEY") && store.contains("token: None"), "{store}");
    }

    #[test]
    fn an_endpoint_decides_about_plain_http_and_path_style() {
        let store = described(&format!("s3://b/c4?{KEYS}&endpoint=http://127.0.0.1:9/"), &[]);
        assert!(store.contains("\"http://127.0.0.1:9/b\""), "{store}");
        assert!(store.contains("allow_http: Parsed(true)"), "{store}");
        let store = described(&format!("s3://b/c4?{KEYS}&endpoint=https://minio.example"), &[]);
        assert!(store.contains("allow_http: Parsed(false)"), "{store}");
    }

    #[test]
    fn the_end_point_of_the_address_wins_over_all_variables() {
        let variables = [
            ("S3_ENDPOINT_URL", "https://one.example"),
            ("AWS_ENDPOINT_URL", "https://two.example"),
            ("AWS_ENDPOINT_URL_S3", "https://three.example"),
        ];
        let end = |count: usize, query: &str| {
            described(&format!("s3://b/c4?{KEYS}{query}"), &variables[..count])
        };
        for (count, expected) in [(1, "one"), (2, "two"), (3, "three")] {
            let store = end(count, "");
            assert!(store.contains(&format!("\"https://{expected}.example/b\"")), "{store}");
            let store = end(count, "&endpoint_url=https://mine.example");
            assert!(store.contains("\"https://mine.example/b\""), "{store}");
        }
    }

    #[test]
    fn public_and_requester_pays_buckets() {
        let store = described("s3://b/c4?skip_signature=true", &[("AWS_ACCESS_KEY_ID", "half")]);
        assert!(store.contains("skip_signature: true"), "{store}");
        let store = described("s3://b/c4", &[("AWS_EC2_METADATA_DISABLED", "true")]);
        assert!(store.contains("skip_signature: true"), "{store}");
        let payers = ("MOSAICML_STREAMING_AWS_REQUESTER_PAYS", "a, b");
        for (bucket, pays) in [("b", true), ("c", false)] {
            let store = described(&format!("s3://{bucket}/c4?{KEYS}"), &[payers]);
            assert!(store.contains(&format!("request_payer: {pays}")), "{store}");
        }
        let store = described(&format!("s3://c/c4?{KEYS}&request_payer=true"), &[]);
        assert!(store.contains("request_payer: true"), "{store}");
    }

    #[test]
    fn an_acl_is_a_header_of_what_makes_objects() {
        let store = described(&format!("s3://b/c4?{KEYS}"), &[("S3_CANNED_ACL", "public-read")]);
        let (plain, maker) = store.split_once("maker: ").unwrap();
        assert!(maker.contains("\"x-amz-acl\": \"public-read\""), "{maker}");
        assert!(!plain.contains("x-amz-acl"), "{plain}");
        assert_eq!(
            refusal(&format!("s3://b/c4?{KEYS}"), &[("S3_CANNED_ACL", "a\nb")]),
            "S3_CANNED_ACL holds characters that no name of an access control list has; set it to \
             one such as bucket-owner-full-control, or unset it"
        );
    }

    #[test]
    fn names_are_checked_and_suggested() {
        assert_eq!(
            refusal("s3://b/c4?acces_key_id=AK", &[]),
            "S3 has no option \"acces_key_id\", which s3://b/c4 carries; did you mean \
             access_key_id?"
        );
    }
}
