//! The profile files of the AWS tools, which users of boto3 rely on and `object_store` does not
//! read: static keys, session token, region and end point.

use std::path::PathBuf;

use configparser::ini::Ini;

use super::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::regular;

/// Longer than anybody's.
const MAX_BYTES: u64 = 1 << 20;

/// What a profile says of S3.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Profile(Vec<(&'static str, String)>);

/// The keys that are looked at, and the option that each sets.
const KEYS: &[(&str, &str)] = &[
    ("aws_access_key_id", "access_key_id"),
    ("aws_secret_access_key", "secret_access_key"),
    ("aws_security_token", "session_token"),
    ("aws_session_token", "session_token"),
    ("region", "region"),
    ("endpoint_url", "endpoint"),
];

impl Profile {
    /// The profile that `AWS_PROFILE` names, else the default one; `None` if there is none.
    ///
    /// # Errors
    /// If the named profile does not exist or gives no keys, or a file cannot be read.
    pub(super) fn read(environment: &Environment) -> Result<Option<Self>> {
        let named = environment.get("AWS_PROFILE").or(environment.get("AWS_DEFAULT_PROFILE"));
        let name = named.unwrap_or("default");
        let credentials = load(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let config = load(environment, "AWS_CONFIG_FILE", "config")?;
        let mut sections = Vec::new();
        for (file, is_config) in [(credentials, false), (config, true)] {
            let map = file.map(|file| file.get_map_ref().clone()).unwrap_or_default();
            sections.extend(map.into_iter().filter(|(section, _)| {
                // [profile NAME] in one file, [NAME] in the other.
                let plain = match section.strip_prefix("profile ") {
                    Some(plain) if is_config => plain.trim().trim_matches('"'),
                    None if is_config && section != "default" => return false,
                    _ => section,
                };
                plain == name
            }));
        }
        if sections.is_empty() {
            return match named {
                None => Ok(None),
                Some(name) => Err(Error::invalid(
                    format!("there is no AWS profile {name:?}"),
                    "set AWS_PROFILE to one of ~/.aws/credentials or ~/.aws/config, or unset it",
                )),
            };
        }
        let value = |key: &str| sections.iter().find_map(|(_, section)| section.get(key)?.clone());
        let found: Vec<_> = KEYS
            .iter()
            .filter_map(|(key, option)| Some((*option, value(key).filter(|v| !v.is_empty())?)))
            .collect();
        let profile = Self(found);
        let has_keys = profile.0.iter().any(|(option, _)| *option == "access_key_id");
        let other = ["credential_process", "sso_session", "sso_start_url", "source_profile"];
        if !has_keys && let Some(other) = other.into_iter().find(|key| value(key).is_some()) {
            return Err(Error::unsupported(
                format!("the AWS profile {name:?} gets its keys by {other}"),
                "put them into the environment with: aws configure export-credentials --format env",
            ));
        }
        Ok(has_keys.then_some(profile))
    }

    pub(super) fn settings(self) -> impl Iterator<Item = (String, String)> {
        self.0.into_iter().map(|(option, value)| (option.to_owned(), value))
    }
}

/// One of the two files, `None` if it does not exist.
fn load(environment: &Environment, variable: &str, name: &str) -> Result<Option<Ini>> {
    let home = environment.get("HOME").map(PathBuf::from);
    let path = match (environment.get(variable), home) {
        (Some(path), home) => match (path.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        },
        (None, Some(home)) => home.join(".aws").join(name),
        (None, None) => return Ok(None),
    };
    let bytes = match regular::read_at_most(&path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(error, format!("cannot read {}", path.display()))),
    };
    let mut rules = Ini::new_cs().defaults();
    // Nested settings are indented below a key without a value.
    rules.multiline = true;
    // As in the AWS tools: a secret key may hold what begins a comment elsewhere.
    rules.enable_inline_comments = false;
    let mut file = Ini::new_from_defaults(rules);
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned());
    text.and_then(|text| file.read(text)).map_err(|reason| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("cannot read {} ({reason})", path.display()),
            "correct it, or name another file",
        )
    })?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::{described, refusal};
    use super::*;

    fn home(credentials: &str, config: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        home
    }

    fn settings(home: &Path, more: &[(&str, &str)]) -> Result<Option<Vec<(String, String)>>> {
        let variables = [&[("HOME", home.to_str().unwrap())], more].concat();
        Ok(Profile::read(&Environment::of(&variables))?.map(|p| p.settings().collect()))
    }

    const CREDENTIALS: &str = "\
# keys
[default]
aws_access_key_id = AKDEF
aws_secret_access_key = a/b+c==
[work]
aws_access_key_id=AKWORK
aws_secret_access_key=w:w=w#w;w
aws_session_token = tok
";
    const CONFIG: &str = "\
[default]
region = eu-west-1
s3 =
    addressing_style = path
    region = wrong
[profile work]
region = us-west-2
endpoint_url = http://127.0.0.1:9000
[profile \"so so\"]
sso_session = x
[work]
region = not this one
";

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn the_named_profile_is_read_from_both_files() {
        let home = home(CREDENTIALS, CONFIG);
        assert_eq!(
            settings(home.path(), &[]).unwrap(),
            pairs(&[
                ("access_key_id", "AKDEF"),
                ("secret_access_key", "a/b+c=="),
                ("region", "eu-west-1")
            ])
        );
        let work = pairs(&[
            ("access_key_id", "AKWORK"),
            ("secret_access_key", "w:w=w#w;w"),
            ("session_token", "tok"),
            ("region", "us-west-2"),
            ("endpoint", "http://127.0.0.1:9000"),
        ]);
        assert_eq!(settings(home.path(), &[("AWS_PROFILE", "work")]).unwrap(), work);
        let moved = tempfile::tempdir().unwrap();
        std::fs::rename(home.path().join(".aws/credentials"), moved.path().join("c")).unwrap();
        assert_eq!(settings(home.path(), &[]).unwrap(), None, "a region alone is no profile");
        let path = moved.path().join("c");
        let file =
            [("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap()), ("AWS_PROFILE", "work")];
        assert_eq!(settings(home.path(), &file).unwrap(), work);
        assert_eq!(settings(Path::new("/nowhere"), &[]).unwrap(), None);
    }

    #[test]
    fn profiles_that_cannot_work_say_why() {
        let home = home(CREDENTIALS, CONFIG);
        let text =
            |profile| settings(home.path(), &[("AWS_PROFILE", profile)]).unwrap_err().to_string();
        assert_eq!(
            text("none"),
            "there is no AWS profile \"none\"; set AWS_PROFILE to one of ~/.aws/credentials or \
             ~/.aws/config, or unset it"
        );
        assert_eq!(
            text("so so"),
            "the AWS profile \"so so\" gets its keys by sso_session; put them into the environment \
             with: aws configure export-credentials --format env"
        );
        std::fs::write(home.path().join(".aws/config"), "[broken\nsecret=x").unwrap();
        assert_eq!(
            text("work"),
            format!(
                "cannot read {}/.aws/config (line 1: Found opening bracket for section name but no \
                 closing bracket); correct it, or name another file",
                home.path().display()
            )
        );
    }

    #[test]
    fn keys_of_a_profile_are_used_when_there_are_no_others() {
        let home = home(CREDENTIALS, CONFIG);
        let home = ("HOME", home.path().to_str().unwrap());
        let store = described("s3://b/c4", &[home, ("AWS_PROFILE", "work")]);
        assert!(
            store.contains("AKWORK") && store.contains("\"http://127.0.0.1:9000/b\""),
            "{store}"
        );
        assert!(store.contains("us-west-2") && store.contains("Parsed(true)"), "{store}");
        let store = described("s3://b/c4?region=mine", &[home]);
        assert!(store.contains("AKDEF") && store.contains("\"mine\""), "{store}");
        let own = [home, ("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "x")];
        let store = described("s3://b/c4", &own);
        assert!(store.contains("AKENV") && !store.contains("eu-west-1"), "{store}");
        let store = described("s3://b/c4?access_key_id=AKOPT&secret_access_key=x", &[home]);
        assert!(store.contains("AKOPT") && !store.contains("eu-west-1"), "{store}");
        assert!(refusal("s3://b/c4", &[home, ("AWS_PROFILE", "none")]).contains("no AWS profile"));
    }
}
