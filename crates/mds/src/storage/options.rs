//! The options in the query of an address: `s3://bucket/c4?region=us-east-1&skip_signature=true`.
//!
//! The names are `object_store`'s own, with or without the prefix of their cloud. Values may be
//! secrets, so nothing here prints one.

use std::fmt;

use crate::error::{Error, Result};

/// The options of one address, in its order. `Debug` shows the names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct AddressOptions(Vec<(String, String)>);

impl fmt::Debug for AddressOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl AddressOptions {
    /// Reads the query of a URL. `shown` is how messages call the address.
    pub(super) fn parse(query: &str, shown: &str) -> Result<Self> {
        // A plus sign is one: keys in base64 are full of them, and no option holds a space.
        let query = query.replace('+', "%2B");
        let mut options: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let name = name.to_ascii_lowercase();
            if value.is_empty() {
                return Err(Error::invalid(
                    format!("the option {} of {shown} has no value", quoted(&name)),
                    "write it as name=value, with & between two options, and %26 for an & in a \
                     value",
                ));
            }
            options.push((name, value.into_owned()));
        }
        Ok(Self(options))
    }

    /// The value of an option, by its name without a prefix.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The options with the prefix taken off their names.
    ///
    /// # Errors
    /// If a name is none of `names`, or given twice.
    pub(super) fn checked(&self, names: &Names, shown: &str) -> Result<Self> {
        let mut checked = Self::default();
        for (given, value) in &self.0 {
            let name = names.plain(given);
            if !names.all.contains(&name) && !OF_CLIENTS.contains(&name) {
                return Err(unknown(given, names, shown));
            }
            if checked.get(name).is_some() {
                return Err(Error::invalid(
                    format!("the option {name} of {shown} is given twice"),
                    "keep one",
                ));
            }
            checked.0.push((name.to_owned(), value.clone()));
        }
        Ok(checked)
    }

    /// Whether one of the options says who is asking.
    pub(super) fn have_credentials(&self, names: &Names) -> bool {
        self.0.iter().any(|(name, _)| names.credentials.contains(&name.as_str()))
    }

    /// `text` without any value of these options that could be a secret: in errors of libraries.
    pub(super) fn scrub(&self, mut text: String) -> String {
        for (name, value) in &self.0 {
            // What every address may show, and what is too short to be told from other words.
            if !HARMLESS.contains(&name.as_str()) && value.len() > 3 {
                let encoded: String =
                    url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
                text = text.replace(value, "***").replace(&encoded, "***");
            }
        }
        text
    }
}

/// Options whose values help in messages and are no secrets.
const HARMLESS: &[&str] = &[
    "account_name",
    "allow_http",
    "endpoint",
    "region",
    "request_payer",
    "skip_signature",
    "user_project",
    "virtual_hosted_style_request",
];

/// Options of the HTTP client, which every kind of store knows.
pub(super) const OF_CLIENTS: &[&str] = &[
    "allow_invalid_certificates",
    "disable_system_certificates",
    "default_content_type",
    "http1_only",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_url",
    "proxy_ca_certificate",
    "proxy_excludes",
    "randomize_addresses",
    "user_agent",
];

/// The option names that a kind of store knows.
#[derive(Debug)]
pub(super) struct Names {
    /// How messages call the store.
    pub(super) store: &'static str,
    /// What may stand before a name; the longest first.
    pub(super) prefixes: &'static [&'static str],
    /// All names, without a prefix and without those of every client.
    pub(super) all: &'static [&'static str],
    /// Those that say who is asking. Given one, no credentials come from elsewhere.
    pub(super) credentials: &'static [&'static str],
}

impl Names {
    /// A name without its prefix.
    pub(super) fn plain<'a>(&self, name: &'a str) -> &'a str {
        self.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
    }

    /// Whether `name`, with or without its prefix, says who is asking.
    pub(super) fn is_credential(&self, name: &str) -> bool {
        self.credentials.contains(&self.plain(name))
    }
}

fn unknown(given: &str, names: &Names, shown: &str) -> Error {
    let near = |name: &&&str| strsim::damerau_levenshtein(name, names.plain(given));
    let remedy = match names.all.iter().chain(OF_CLIENTS).min_by_key(near) {
        Some(nearest) if near(&nearest) <= 1 + nearest.len() / 4 => {
            format!("did you mean {nearest}?")
        }
        _ => format!("the most used are: {}", names.all[..names.all.len().min(6)].join(", ")),
    };
    Error::invalid(
        format!("{} has no option {}, which {shown} carries", names.store, quoted(given)),
        remedy,
    )
}

/// A name that a stranger may have chosen, or that may be a secret in the wrong place.
fn quoted(name: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match name.len() <= 40 && name.chars().all(is_name) {
        true => format!("{name:?}"),
        false => "that is not a name".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        store: "S3",
        prefixes: &["aws_"],
        all: &["access_key_id", "secret_access_key", "endpoint", "region", "skip_signature"],
        credentials: &["access_key_id", "secret_access_key"],
    };

    fn checked(query: &str) -> Result<AddressOptions> {
        AddressOptions::parse(query, "s3://b").and_then(|given| given.checked(&NAMES, "s3://b"))
    }

    #[test]
    fn names_come_with_or_without_their_prefix_and_values_as_they_are() {
        let options = checked("AWS_REGION=x&secret_access_key=a+b/c%2B%26==&endpoint=http://h:1");
        let options = options.unwrap();
        assert_eq!(options.get("region"), Some("x"));
        assert_eq!(options.get("secret_access_key"), Some("a+b/c+&=="));
        assert_eq!(options.get("endpoint"), Some("http://h:1"));
        assert!(options.have_credentials(&NAMES));
        assert!(!checked("region=x").unwrap().have_credentials(&NAMES));
    }

    #[test]
    fn options_that_cannot_work_are_named() {
        let text = |query| checked(query).unwrap_err().to_string();
        assert_eq!(
            text("acess_key_id=x"),
            "S3 has no option \"acess_key_id\", which s3://b carries; did you mean access_key_id?"
        );
        assert_eq!(
            text("sig=x"),
            "S3 has no option \"sig\", which s3://b carries; the most used are: access_key_id, \
             secret_access_key, endpoint, region, skip_signature"
        );
        assert_eq!(
            text("region=a&aws_region=b"),
            "the option region of s3://b is given twice; keep one"
        );
        assert_eq!(
            text("region"),
            "the option \"region\" of s3://b has no value; write it as name=value, with & between \
             two options, and %26 for an & in a value"
        );
        assert!(!text("wJalrXUtnFEMI/K7MDENG=1").contains("XUtn"));
    }

    #[test]
    fn values_are_not_shown() {
        let options = checked("secret_access_key=a/very+secret&region=us-east-1").unwrap();
        assert_eq!(format!("{options:?}"), r#"["secret_access_key", "region"]"#);
        let text = "key a/very+secret or a%2Fvery%2Bsecret in us-east-1".to_owned();
        assert_eq!(options.scrub(text), "key *** or *** in us-east-1");
    }
}
