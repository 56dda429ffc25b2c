//! Where in a recipe a section stands, so that messages after the reading can name its keys.

use std::fmt;

use super::yaml::join;

/// The dotted path of a section: `eval_loader.1`. Sections that say the same are equal wherever they stand.
#[derive(Clone, Debug, Default)]
pub struct Origin(String);

impl Origin {
    /// That of the section at `path`.
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The path of `key` there.
    pub fn key(&self, key: &str) -> String {
        join(&self.0, key)
    }
}

impl PartialEq for Origin {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
