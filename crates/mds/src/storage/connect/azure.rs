//! Azure Blob Storage and Data Lake.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::path::Path as ObjectPath;

use super::environment::Environment;
use super::{allow_http_of, client, invalid, patient, retries, set, settings, unusable};
use crate::error::Result;
use crate::storage::RemoteOptions;
use crate::storage::location::Address;
use crate::storage::options::Names;

/// The options of an Azure address. The container is in the address.
pub(super) const NAMES: Names = Names {
    store: "Azure",
    prefixes: &["azure_storage_", "azure_"],
    all: &[
        "account_name",
        "account_key",
        "sas_token",
        "endpoint",
        "skip_signature",
        "bearer_token",
        "allow_http",
        "access_key",
        "master_key",
        "sas_key",
        "token",
        "client_id",
        "client_secret",
        "tenant_id",
        "authority_id",
        "authority_host",
        "use_emulator",
        "use_azure_cli",
        "use_fabric_endpoint",
        "msi_endpoint",
        "identity_endpoint",
        "object_id",
        "msi_resource_id",
        "federated_token_file",
        "credential_type",
        "encryption_key",
        "disable_tagging",
    ],
    credentials: &[
        "account_key",
        "access_key",
        "master_key",
        "account_access_key",
        "sas_token",
        "sas_key",
        "bearer_token",
        "token",
        "client_id",
        "client_secret",
        "tenant_id",
        "authority_id",
        "federated_token_file",
        "use_azure_cli",
        "skip_signature",
        "credential_type",
    ],
};

/// The store of an Azure address and the path in it.
///
/// The reference writes to `azure://container/blob` and reads from `azure://host/container/blob`,
/// the host being the account's. A container's name has no dot, so the two can be told apart.
pub(super) fn connect(
    environment: &Environment,
    address: &Address,
    mut path: ObjectPath,
    options: &RemoteOptions,
) -> Result<(Arc<dyn ObjectStore>, ObjectPath)> {
    let given = address.options.checked(&NAMES, &address.shown())?;
    let url = &address.url;
    let host = url.host_str().unwrap_or_default();
    let mut builder = MicrosoftAzureBuilder::new();
    let mut of_host = Vec::new();
    if url.scheme() != "https" && url.username().is_empty() && host.contains('.') {
        let account = host.split('.').next().unwrap_or_default();
        let mut parts = path.parts();
        let Some(container) = parts.next() else {
            return Err(invalid(address, "it names an account and no container"));
        };
        builder = builder.with_container_name(container.as_ref());
        of_host.push(("account_name".to_owned(), account.to_owned()));
        of_host.push(("endpoint".to_owned(), format!("https://{host}")));
        let rest = parts.collect();
        path = rest;
    } else {
        builder = builder.with_url(url.as_str());
    }
    let mut client = client(options);
    // The reference's names of the two variables.
    if let Some(account) = environment.get("AZURE_ACCOUNT_NAME") {
        builder = builder.with_account(account);
    }
    if let Some(key) = environment.get("AZURE_ACCOUNT_ACCESS_KEY")
        && !given.have_credentials(&NAMES)
    {
        builder = builder.with_access_key(key);
    }
    let mut all = settings(environment, "AZURE_", &Default::default(), &NAMES);
    all.retain(|(name, _)| !(given.have_credentials(&NAMES) && NAMES.is_credential(name)));
    all.extend(of_host);
    all.extend(given.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    for (name, value) in all {
        match name.parse() {
            Ok(AzureConfigKey::Client(key)) => client = set(client, key, value),
            Ok(key) => builder = builder.with_config(key, value),
            // A variable of Azure's tools that says nothing here.
            Err(_) => {}
        }
    }
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    client = allow_http_of(client, endpoint.as_deref());
    let built = builder
        .with_client_options(client)
        .with_http_connector(patient(options))
        .with_retry(retries(options))
        .build();
    Ok((Arc::new(built.map_err(|e| unusable(address, &e))?), path))
}

#[cfg(test)]
mod tests {
    use super::super::super::options::OF_CLIENTS;
    use super::super::tests::{connection, described, refusal};
    use super::*;

    const KEY: &str = "account_key=c2VjcmV0";

    #[test]
    fn every_name_is_one_of_object_store() {
        for name in NAMES.all.iter().chain(OF_CLIENTS) {
            assert!(name.parse::<AzureConfigKey>().is_ok(), "{name}");
        }
    }

    #[test]
    fn both_forms_of_the_reference_and_those_of_other_tools() {
        let cases = [
            (format!("azure://c/x/y?account_name=acc&{KEY}"), "acc"),
            (format!("azure://acc.blob.core.windows.net/c/x/y?{KEY}"), "acc"),
            (format!("azure://acc.blob.core.chinacloudapi.cn/c/x/y?{KEY}"), "acc"),
            (format!("az://c/x/y?azure_storage_account_name=acc&{KEY}"), "acc"),
            (format!("abfss://c@acc.dfs.core.windows.net/x/y?{KEY}"), "acc"),
            (format!("abfs://c/x/y?account_name=acc&{KEY}"), "acc"),
            (format!("https://acc.blob.core.windows.net/c/x/y?{KEY}"), "acc"),
        ];
        for (address, account) in cases {
            let connection = connection(&address, &[]).unwrap();
            assert_eq!(connection.prefix.as_ref(), "x/y", "{address}");
            let store = format!("{:?}", connection.store);
            assert!(store.contains(&format!("account: \"{account}\"")), "{address}: {store}");
            assert!(store.contains("container: \"c\""), "{address}: {store}");
        }
        let store = described(&format!("azure://acc.blob.core.chinacloudapi.cn/c?{KEY}"), &[]);
        assert!(store.contains("acc.blob.core.chinacloudapi.cn"), "{store}");
        assert_eq!(
            refusal("azure://acc.blob.core.windows.net/", &[]),
            "cannot use the remote azure://acc.blob.core.windows.net/ (it names an account and no \
             container); check the address, its options and the cloud settings in the environment"
        );
    }

    #[test]
    fn the_references_variables_and_the_options_over_them() {
        let variables =
            [("AZURE_ACCOUNT_NAME", "envacc"), ("AZURE_ACCOUNT_ACCESS_KEY", "not base 64!")];
        assert!(described("az://c/x?sas_token=sig%3Dx", &variables).contains("\"envacc\""));
        // The key of the environment is not even looked at.
        let store = described(&format!("az://c/x?account_name=mine&{KEY}"), &variables);
        assert!(store.contains("\"mine\"") && !store.contains("envacc"), "{store}");
    }
}
