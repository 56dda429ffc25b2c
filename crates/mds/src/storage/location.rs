//! Addresses: what a user writes for a remote, and how it is shown in messages.

use std::path::{Path, PathBuf};

use url::Url;

use crate::error::{Error, Result};

/// Where a dataset lies: in a folder of this machine or behind a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A plain path or a `file://` URL.
    Folder(PathBuf),
    /// Any other URL.
    Url(Url),
}

impl Location {
    /// Reads an address: `scheme://...` is a URL, everything else a path.
    pub(crate) fn parse(address: &str) -> Result<Self> {
        if address.is_empty() {
            return Err(Error::invalid("the address of a remote is empty", "give a path or a URL"));
        }
        if !address.contains("://") {
            return Ok(Self::Folder(PathBuf::from(address)));
        }
        let url = Url::parse(address).map_err(|source| {
            Error::invalid(
                format!("the remote {} is not a URL ({source})", redact(address)),
                "write it as scheme://host/path or give a plain path",
            )
        })?;
        if url.query().is_some() || url.fragment().is_some() {
            let mut shown = url;
            shown.set_query(None);
            shown.set_fragment(None);
            return Err(Error::invalid(
                format!("the remote {} carries a query or a fragment", redact(shown.as_str())),
                "give the address of the folder alone and pass credentials by the environment",
            ));
        }
        if url.scheme() == "file" {
            return url.to_file_path().map(Self::Folder).map_err(|()| {
                Error::invalid(
                    format!("the remote {url} names another host"),
                    "write file:///absolute/path",
                )
            });
        }
        Ok(Self::Url(url))
    }

    /// The location of `split` below this one.
    pub(crate) fn join(self, split: Option<&str>) -> Self {
        let Some(split) = split.filter(|split| !split.is_empty()) else { return self };
        match self {
            Self::Folder(folder) => Self::Folder(folder.join(split)),
            Self::Url(mut url) => {
                let path = format!("{}/{split}", url.path().trim_end_matches('/'));
                url.set_path(&path);
                Self::Url(url)
            }
        }
    }

    /// The folder on this machine, if it is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Url(_) => None,
        }
    }

    /// The address without any password, for messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Url(url) => redact(url.as_str()),
        }
    }
}

/// Checks that `split` stays below its root: one or more plain names separated by `/`.
pub(crate) fn check_split(split: &str) -> Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let safe = !split.contains(['\\', ':', '\0', '?', '#']) && split.split('/').all(plain);
    if split.is_empty() || safe {
        return Ok(());
    }
    Err(Error::invalid(
        format!("the split {split:?} is not a plain folder name"),
        "name a folder below the root of the dataset, such as \"val\"",
    ))
}

/// Takes user names, passwords and query strings out of every URL in `text`.
pub(crate) fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '(' | ')' | '<' | '>'))
            .unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let url = url.split(['?', '#']).next().unwrap_or(url);
        let host = url.find('/').unwrap_or(url.len());
        match url[..host].rfind('@') {
            Some(user) => shown.push_str(&url[user + 1..]),
            None => shown.push_str(url),
        }
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_are_told_apart() {
        assert_eq!(Location::parse("./c4").unwrap(), Location::Folder("./c4".into()));
        assert_eq!(Location::parse("file:///a/b%20c").unwrap(), Location::Folder("/a/b c".into()));
        assert!(matches!(Location::parse("s3://bucket/x").unwrap(), Location::Url(_)));
    }

    #[test]
    fn splits_are_joined_with_one_slash() {
        for root in ["http://h/c4", "http://h/c4/"] {
            let joined = Location::parse(root).unwrap().join(Some("val"));
            assert_eq!(joined.shown(), "http://h/c4/val");
        }
        let joined = Location::parse("/c4").unwrap().join(Some("val"));
        assert_eq!(joined, Location::Folder("/c4/val".into()));
        assert_eq!(joined.clone().join(None), joined);
    }

    #[test]
    fn addresses_that_cannot_work_say_why() {
        let text = |address| Location::parse(address).unwrap_err().to_string();
        assert_eq!(text(""), "the address of a remote is empty; give a path or a URL");
        assert_eq!(
            text("https://u:secret@h/c4?sig=topsecret"),
            "the remote https://h/c4 carries a query or a fragment; \
             give the address of the folder alone and pass credentials by the environment"
        );
        assert_eq!(
            text("http://u:secret@[broken/"),
            "the remote http://[broken/ is not a URL (invalid IPv6 address); \
             write it as scheme://host/path or give a plain path"
        );
    }

    #[test]
    fn messages_hold_no_credentials() {
        assert_eq!(redact("at https://me:pw@host/a?token=x: no"), "at https://host/a no");
        assert_eq!(redact("two http://a@h, \"s3://b/c?d\" end"), "two http://h, \"s3://b/c\" end");
        assert_eq!(redact("nothing here"), "nothing here");
    }

    #[test]
    fn splits_stay_below_the_root() {
        for split in ["", "val", "a/b", "train_small"] {
            check_split(split).unwrap();
        }
        for split in ["..", "a/../b", "/abs", "a//b", "c:\\x", "a/", "."] {
            assert!(check_split(split).is_err(), "{split}");
        }
        assert_eq!(
            check_split("../x").unwrap_err().to_string(),
            "the split \"../x\" is not a plain folder name; \
             name a folder below the root of the dataset, such as \"val\""
        );
    }
}
