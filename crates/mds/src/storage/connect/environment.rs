//! The variables that a connection may look at.

use std::collections::BTreeMap;

/// Environment variables, without those that are empty or not text. Not to be printed.
pub(super) struct Environment(BTreeMap<String, String>);

impl Environment {
    pub(super) fn of_this_process() -> Self {
        let text = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self(text.filter(|(_, value)| !value.is_empty()).collect())
    }

    #[cfg(test)]
    pub(super) fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The variables that begin with `prefix`, their names in lower case.
    pub(super) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (String, String)> {
        let named = self.0.iter().filter(move |(name, _)| name.starts_with(prefix));
        named.map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
    }
}
