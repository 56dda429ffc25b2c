//! Addresses: what a user writes for a remote, and how it is shown in messages.

use std::fmt;
use std::path::{Path, PathBuf};

use object_store::ObjectStoreScheme;
use percent_encoding::percent_decode_str;
use url::Url;

use super::options::AddressOptions;
use crate::error::{Error, Result};

/// What other tools read and this crate does not, each with what to use in its place.
const READ_BY_OTHERS: &[(&str, &str)] = &[
    (
        "oci:",
        "use the S3 endpoint of the namespace: s3://BUCKET/PATH?region=REGION&endpoint=\
         https://NAMESPACE.compat.objectstorage.REGION.oraclecloud.com, with a customer secret key",
    ),
    (
        "sftp:",
        "mount the folder with sshfs and give its path, serve it by http, or copy the dataset to \
         an object store",
    ),
    (
        "dbfs:",
        "on Databricks give the mounted path, /dbfs/... or /Volumes/...; elsewhere the s3://, \
         gs:// or abfss:// address of the storage below it",
    ),
    (
        "azure-dl:",
        "use abfss://FILESYSTEM@ACCOUNT.dfs.core.windows.net/PATH, or az://FILESYSTEM/PATH",
    ),
    ("alipan:", "copy the dataset to a folder or to an object store with an S3 endpoint"),
];

/// The scheme of an address that other tools read, and what to use instead. With any number of
/// slashes: the reference writes `dbfs:/path`, and one that was forgotten makes no folder of it.
fn read_by_others(address: &str) -> Option<&'static (&'static str, &'static str)> {
    READ_BY_OTHERS.iter().find(|(scheme, _)| {
        address.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })
}

fn refuse_what_others_read(address: &str) -> Result<()> {
    match read_by_others(address) {
        None => Ok(()),
        Some((_, instead)) => Err(Error::unsupported(
            format!("the remote {} is of a kind that is not read or written", redacted(address)),
            *instead,
        )),
    }
}

/// The schemes of addresses, but for `file`: with two slashes behind the colon.
const SCHEMES: &[&str] =
    &["s3:", "gs:", "az:", "azure:", "abfs:", "abfss:", "file:", "hf:", "http:", "https:"];

/// The scheme of an address that has too few slashes, with its colon, and the rest. Taken for a
/// path, it would make a folder whose name holds the keys in its query.
fn lacks_slashes(address: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = address.split_at(address.find(':')? + 1);
    let is_known = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    (is_known && !rest.starts_with("//")).then_some((scheme, rest))
}

fn refuse_too_few_slashes(address: &str) -> Result<()> {
    let Some((scheme, _)) = lacks_slashes(address) else { return Ok(()) };
    let shown = redacted(address);
    let path = shown.get(scheme.len()..).unwrap_or_default();
    // A file's address has no host.
    let path =
        if scheme.eq_ignore_ascii_case("file:") { path } else { path.trim_start_matches('/') };
    Err(Error::invalid(
        format!("the remote {shown} has too few slashes for an address"),
        format!("write {scheme}//{path}, or ./{scheme}... for a folder of this name"),
    ))
}

/// Whether a text is meant as the address of a remote and not as a path, be it one that is refused
/// in the end.
pub fn is_address(text: &str) -> bool {
    text.contains("://") || read_by_others(text).is_some() || lacks_slashes(text).is_some()
}

/// Whether the query of an address is a list of options. That of a web server is part of what is
/// asked for, and a folder of such objects has no address.
fn takes_options(url: &Url) -> bool {
    match url.scheme() {
        "file" | "http" => false,
        "https" => is_cloud(url),
        _ => true,
    }
}

/// Whether the part before the `@` is no secret: a container, or what a web server is told.
fn takes_user(url: &Url) -> bool {
    let container = matches!(url.scheme(), "abfs" | "abfss" | "az") && url.password().is_none();
    container || (matches!(url.scheme(), "http" | "https") && !is_cloud(url))
}

/// Whether a web address is one of a cloud's own, which is then spoken to as such.
fn is_cloud(url: &Url) -> bool {
    url.scheme() == "https"
        && !matches!(ObjectStoreScheme::parse(url), Ok((ObjectStoreScheme::Http, _)) | Err(_))
}

/// Where a dataset lies: in a folder of this machine or behind a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A plain path or a `file://` URL.
    Folder(PathBuf),
    /// Any other URL.
    Url(Box<Address>),
}

/// A URL and the options in its query, kept apart so that the URL can be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without a query; it may hold a password.
    pub(super) url: Url,
    pub(super) options: AddressOptions,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.shown(), self.options)
    }
}

impl Address {
    /// The address without its options and without any password, for messages.
    pub(super) fn shown(&self) -> String {
        redact(self.url.as_str())
    }

    /// The options that name the server, if any does: ` endpoint=http://127.0.0.1:9000`.
    pub(super) fn server(&self) -> String {
        let names_server =
            |name: &str| name.ends_with("endpoint") || name.ends_with("account_name");
        let options = self.options.iter().filter(|(name, _)| names_server(name));
        options.map(|(name, value)| format!(" {name}={}", redact(value))).collect()
    }
}

impl Location {
    /// Reads an address: `scheme://...` is a URL, everything else a path.
    pub(crate) fn parse(address: &str) -> Result<Self> {
        if address.is_empty() {
            return Err(Error::invalid("the address of a remote is empty", "give a path or a URL"));
        }
        refuse_what_others_read(address)?;
        refuse_too_few_slashes(address)?;
        if !address.contains("://") {
            return Ok(Self::Folder(PathBuf::from(address)));
        }
        let mut url = Url::parse(address).map_err(|source| {
            Error::invalid(
                format!("the remote {} is not a URL ({source})", redacted(address)),
                "write it as scheme://host/path or give a plain path",
            )
        })?;
        let query = url.query().map(str::to_owned);
        let has_fragment = url.fragment().is_some();
        url.set_query(None);
        url.set_fragment(None);
        let shown = redact(url.as_str());
        if has_fragment || (query.is_some() && !takes_options(&url)) {
            return Err(Error::invalid(
                format!("the remote {shown} carries a query or a fragment"),
                "give the address of the folder alone and pass credentials by the environment",
            ));
        }
        if url.scheme() == "file" {
            return url.to_file_path().map(Self::Folder).map_err(|()| {
                Error::invalid(
                    format!("the remote {shown} names another host"),
                    "write file:///absolute/path",
                )
            });
        }
        if (!url.username().is_empty() || url.password().is_some()) && !takes_user(&url) {
            return Err(Error::invalid(
                format!("the remote {shown} carries a user name or a password"),
                "give keys as options, such as ?access_key_id=...&secret_access_key=..., or by \
                 the environment",
            ));
        }
        let options = AddressOptions::parse(query.as_deref().unwrap_or_default(), &shown)?;
        Ok(Self::Url(Box::new(Address { url, options })))
    }

    /// The location of `split` below this one.
    pub(crate) fn join(self, split: Option<&str>) -> Self {
        let Some(split) = split.filter(|split| !split.is_empty()) else { return self };
        match self {
            Self::Folder(folder) => Self::Folder(folder.join(split)),
            Self::Url(mut address) => {
                let path = format!("{}/{split}", address.url.path().trim_end_matches('/'));
                address.url.set_path(&path);
                Self::Url(address)
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
            Self::Url(address) => address.shown(),
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

/// The address of a folder below another one, with the same options.
///
/// ```
/// assert_eq!(mds::storage::join("s3://bucket/c4?region=x", "val"), "s3://bucket/c4/val?region=x");
/// assert_eq!(mds::storage::join("./c4/", "val"), "./c4/val");
/// ```
pub fn join(address: &str, folder: &str) -> String {
    let end = if address.contains("://") { address.find('?') } else { None };
    let (base, options) = address.split_at(end.unwrap_or(address.len()));
    format!("{}/{folder}{options}", base.trim_end_matches('/'))
}

/// The folder of an object and the name of the object in it, decoded: the reverse of [`join`].
///
/// # Errors
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the address ends with its host or has too
/// few slashes, [`Unsupported`](crate::ErrorKind::Unsupported) if only other tools read it.
///
/// ```
/// let (folder, name) = mds::storage::split("s3://bucket/runs/small.yaml?region=x")?;
/// assert_eq!((folder.as_str(), name.as_str()), ("s3://bucket/runs?region=x", "small.yaml"));
/// # Ok::<(), mds::Error>(())
/// ```
pub fn split(address: &str) -> Result<(String, String)> {
    // Here, because the folder alone would not tell which address was given.
    refuse_what_others_read(address)?;
    refuse_too_few_slashes(address)?;
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = if start > 0 { address.find('?') } else { None };
    let (base, options) = address.split_at(end.unwrap_or(address.len()));
    match base.get(start..).and_then(|path| path.rsplit_once('/')) {
        Some((folder, name)) if !name.is_empty() => {
            let name = match start {
                0 => name.to_owned(),
                _ => percent_decode_str(name).decode_utf8_lossy().into_owned(),
            };
            Ok((format!("{}{folder}{options}", &base[..start]), name))
        }
        _ => Err(Error::invalid(
            format!("the address {} names no file", redacted(address)),
            "give that of a file, such as s3://bucket/runs/small.yaml",
        )),
    }
}

/// An address as it may be stored and printed: without its options, its user name and its
/// password. Plain paths stay as they are. In a text that is no address, each line ends where the
/// options of one begin: what they hold may have quotes and spaces.
///
/// ```
/// assert_eq!(mds::redacted("s3://bucket/c4?secret_access_key=xyz"), "s3://bucket/c4");
/// assert_eq!(mds::redacted("https://me:secret@host/c4"), "https://host/c4");
/// assert_eq!(mds::redacted("/data/c4?"), "/data/c4?");
/// ```
pub fn redacted(address: &str) -> String {
    // With one slash or none it may hold a password all the same.
    let others = read_by_others(address).map(|(scheme, _)| address.split_at(scheme.len()));
    if let Some((scheme, rest)) = others.or_else(|| lacks_slashes(address)) {
        let path = rest.trim_start_matches('/');
        let slashes = &rest[..rest.len() - path.len()];
        let end = path.find(['?', '#']).unwrap_or(path.len());
        let shown = redact(&format!("://{}", &path[..end]));
        return format!("{scheme}{slashes}{}", shown.trim_start_matches("://"));
    }
    match address.find("://") {
        // All that follows is the query: unlike in running text, it may hold quotes and spaces.
        Some(at) if address[..at].chars().all(is_of_scheme) => {
            let end = address.find(['?', '#']).unwrap_or(address.len());
            redact(&address[..end])
        }
        Some(_) => address.split_inclusive('\n').map(redacted_line).collect(),
        None => address.to_owned(),
    }
}

fn is_of_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-.".contains(c)
}

/// A line of a text, up to the first option of an address in it.
fn redacted_line(line: &str) -> String {
    let address = line.find("://").unwrap_or(line.len());
    let query = line[address..].find('?').map(|at| address + at);
    match query.filter(|&query| line[query..].contains('=')) {
        Some(query) => {
            let end = if line.ends_with('\n') { "\n" } else { "" };
            format!("{}{end}", redact(&line[..query]))
        }
        None => redact(line),
    }
}

/// `text` about the arguments of a command line, as it may be printed: each argument that is or
/// holds an address is [`redacted`] as a whole, whatever its options hold.
pub fn redacted_about(text: &str, arguments: impl IntoIterator<Item = String>) -> String {
    let mut found: Vec<(String, String)> = Vec::new();
    for argument in arguments {
        // Of `--flag=value`, messages may have the value alone.
        let value = argument.split_once('=').filter(|_| argument.starts_with('-'));
        let value = value.map_or(argument.as_str(), |(_, value)| value);
        let shown = redacted_argument(value);
        if shown != value {
            found.push((value.to_owned(), shown));
        }
    }
    // One may be the beginning of another.
    found.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    let text =
        found.iter().fold(text.to_owned(), |text, (value, shown)| text.replace(value, shown));
    redacted(&text)
}

/// An argument in which an address may stand behind something else, as in `remote=s3://bucket/c4`.
fn redacted_argument(argument: &str) -> String {
    let lacks_slashes = || lacks_slashes(argument).is_some() || read_by_others(argument).is_some();
    let Some(at) = argument.find("://").filter(|_| !lacks_slashes()) else {
        return redacted(argument);
    };
    let before = argument[..at].trim_end_matches(is_of_scheme);
    format!("{before}{}", redacted(&argument[before.len()..]))
}

/// Takes user names, passwords and query strings out of every URL in `text`, where they are written
/// as libraries do: without quotes and spaces.
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
        // The name of an Azure container stands where others have the name of the user.
        let is_container = ["abfs://", "abfss://", "az://"].iter().any(|s| before.ends_with(s));
        // A password with a slash in it ends what parsers take for the host.
        let is_port = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit());
        let torn = url[..host].split_once(':').is_some_and(|(_, rest)| !is_port(rest));
        let searched = if torn { url } else { &url[..host] };
        match searched.rfind('@') {
            Some(user) if !is_container || url[..user].contains(':') => {
                shown.push_str(&url[user + 1..]);
            }
            _ => shown.push_str(url),
        }
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn paths_and_urls_are_told_apart() {
        assert_eq!(Location::parse("./c4").unwrap(), Location::Folder("./c4".into()));
        assert_eq!(Location::parse("file:///a/b%20c").unwrap(), Location::Folder("/a/b c".into()));
        assert!(matches!(Location::parse("s3://bucket/x").unwrap(), Location::Url(_)));
    }

    #[test]
    fn an_object_is_told_from_its_folder() {
        let of = |address| split(address).map(|(folder, name)| format!("{folder} {name}"));
        assert_eq!(of("http://h/a/b.yaml").unwrap(), "http://h/a b.yaml");
        assert_eq!(
            of("s3://b/a.yaml?endpoint=http://h/x").unwrap(),
            "s3://b?endpoint=http://h/x a.yaml"
        );
        assert_eq!(of("file:///a.yaml").unwrap(), "file:// a.yaml");
        assert_eq!(of("http://h/a%20b/c%20d.yaml").unwrap(), "http://h/a%20b c d.yaml");
        assert_eq!(of("/a/c%20d.yaml").unwrap(), "/a c%20d.yaml");
        for address in ["s3://b", "s3://b/", "s3://b?x=/y"] {
            let text = of(address).unwrap_err().to_string();
            let shown = redacted(address);
            assert_eq!(
                text,
                format!(
                    "the address {shown} names no file; give that of a file, such as s3://bucket/runs/small.yaml"
                )
            );
        }
        for address in ["s3:/b/a.yaml?secret=x", "dbfs:/a.yaml"] {
            let refused = Location::parse(address).unwrap_err().to_string();
            assert_eq!(of(address).unwrap_err().to_string(), refused);
        }
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
    fn options_stay_with_the_address_and_out_of_sight() {
        let location = Location::parse("s3://b/c4/?secret_access_key=topsecret&region=x").unwrap();
        let joined = location.join(Some("val"));
        assert_eq!(joined.shown(), "s3://b/c4/val");
        assert_eq!(format!("{joined:?}"), r#"Url(s3://b/c4/val ["secret_access_key", "region"])"#);
        let Location::Url(address) = &joined else { panic!("{joined:?}") };
        assert_eq!(address.options.get("secret_access_key"), Some("topsecret"));
        assert_eq!(address.url.as_str(), "s3://b/c4/val");
        // Plain HTTP has none, but for the clouds' own addresses.
        Location::parse("https://bucket.s3.eu-west-1.amazonaws.com/c4?region=x").unwrap();
        assert!(Location::parse("http://h/c4?region=x").is_err());
        assert!(Location::parse("file:///c4?region=x").is_err());
        assert!(Location::parse("s3://b/c4#x").is_err());
    }

    #[test]
    fn what_others_read_is_refused_by_name() {
        for address in
            ["oci://b@n/x", "sftp://me:hunter2@h/x", "dbfs:/x", "dbfs://x", "DBFS:/Volumes"]
                .into_iter()
                .chain(["oci:/b/x", "oci:b/x", "sftp:/me:hunter2@h/x", "sftp:h", "dbfs:x"])
        {
            let error = Location::parse(address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{address}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let text = |address| Location::parse(address).unwrap_err().to_string();
        assert_eq!(
            text("oci://bucket@ns/c4"),
            "the remote oci://ns/c4 is of a kind that is not read or written; use the S3 endpoint \
             of the namespace: s3://BUCKET/PATH?region=REGION&endpoint=\
             https://NAMESPACE.compat.objectstorage.REGION.oraclecloud.com, with a customer secret \
             key"
        );
        assert_eq!(
            text("azure-dl://fs/c4"),
            "the remote azure-dl://fs/c4 is of a kind that is not read or written; use \
             abfss://FILESYSTEM@ACCOUNT.dfs.core.windows.net/PATH, or az://FILESYSTEM/PATH"
        );
        assert_eq!(
            text("alipan:///c4"),
            "the remote alipan:///c4 is of a kind that is not read or written; copy the dataset to \
             a folder or to an object store with an S3 endpoint"
        );
        assert_eq!(
            text("s3://KEY:secret@bucket/c4"),
            "the remote s3://bucket/c4 carries a user name or a password; give keys as options, \
             such as ?access_key_id=...&secret_access_key=..., or by the environment"
        );
        // A folder may be called so.
        assert_eq!(Location::parse("./sftp:x").unwrap(), Location::Folder("./sftp:x".into()));
    }

    #[test]
    fn an_address_is_cut_at_its_query_whatever_that_holds() {
        let address = "gs://b/c4?service_account_key={\"private_key\": \"top secret\"}";
        assert_eq!(redacted(address), "gs://b/c4");
        assert_eq!(
            redacted("abfss://data@acc.dfs.core.windows.net/c4?sas_token=x"),
            "abfss://data@acc.dfs.core.windows.net/c4"
        );
        assert_eq!(redacted("./a?b"), "./a?b");
        assert_eq!(redacted("sftp:/me:pw@h/c4?x=y"), "sftp:/h/c4");
        assert_eq!(redacted("dbfs:/mnt/c4"), "dbfs:/mnt/c4");
        assert_eq!(redacted("s3://KEY:sec/ret@bucket/c4"), "s3://bucket/c4");
        assert_eq!(redacted("http://h:80/a@b"), "http://h:80/a@b");
    }

    #[test]
    fn an_address_with_too_few_slashes_is_no_folder() {
        let refused = |address: &str| {
            assert!(is_address(address), "{address}");
            let error = Location::parse(address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{address}");
            error.to_string()
        };
        assert_eq!(
            refused("file:/a/b"),
            "the remote file:/a/b has too few slashes for an address; write file:///a/b, or \
             ./file:... for a folder of this name"
        );
        for shown in ["s3:/bucket/x", "s3:bucket/x"] {
            let address = format!("{shown}?endpoint=http://h&secret_access_key=TopSecret");
            assert_eq!(
                refused(&address),
                format!(
                    "the remote {shown} has too few slashes for an address; write \
                     s3://bucket/x, or ./s3:... for a folder of this name"
                )
            );
        }
        for scheme in ["gs", "AZ", "azure", "abfs", "abfss", "hf", "http", "https"] {
            let text = refused(&format!("{scheme}:/me:hunter2@h/x?sig=hunter2"));
            assert!(text.contains(&format!("write {scheme}://h/x,")), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        for path in ["./s3:/x", "s3", "s3/x", "/s3:/x", "c4:x"] {
            assert_eq!(Location::parse(path).unwrap(), Location::Folder(path.into()));
        }
    }

    #[test]
    fn a_text_about_arguments_holds_nothing_of_their_options() {
        let key = "gs://b/c4?service_account_key={\"private_key\":\n \"top secret\"}";
        let given = ["--out", "gs://b/c4?x=y", key, "--at=s3:/b?x=top secret"].map(str::to_owned);
        let about = |text: &str| redacted_about(text, given.clone());
        assert_eq!(
            about(&format!("error: '{key}' found\n\nUsage")),
            "error: 'gs://b/c4' found\n\nUsage"
        );
        assert_eq!(about("error: 'gs://b/c4?x=y' found"), "error: 'gs://b/c4' found");
        assert_eq!(about("bad 's3:/b?x=top secret'"), "bad 's3:/b'");
        assert_eq!(about("bad --out; see --help?"), "bad --out; see --help?");
        let stream = format!("remote={key},repeat=x");
        assert_eq!(
            redacted_about(&format!("no '{stream}'\nHelp"), [stream]),
            "no 'remote=gs://b/c4'\nHelp"
        );
        // Of a text alone, the rest of the line goes.
        assert_eq!(redacted(&format!("a {} b\nc", key.replace('\n', ""))), "a gs://b/c4\nc");
        assert_eq!(redacted("is s3://b/c4 there? yes"), "is s3://b/c4 there? yes");
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
