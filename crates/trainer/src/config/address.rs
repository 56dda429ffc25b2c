//! Addresses as a recipe gives them. They may hold keys, which nobody else gets to see.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

/// A path or an address with its options. It reads as the text that was given; printed, stored and debugged it is
/// without what may be secret.
///
/// ```
/// use trainer::config::Address;
/// let address = Address::from("s3://bucket/c4?secret_access_key=xyz".to_owned());
/// assert!(address.ends_with("xyz"));
/// assert_eq!(format!("{address}, {address:?}"), "s3://bucket/c4, \"s3://bucket/c4\"");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Deref for Address {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mds::redacted(&self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&mds::redacted(&self.0), f)
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        mds::redacted(&self.0).serialize(serializer)
    }
}
