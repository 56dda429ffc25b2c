//! Secrets appear in no error and no log record, at any level, whatever fails.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mds::format::{Encoding, Schema};
use mds::storage::RemoteOptions;
use mds::{DatasetOptions, Output, Writer, WriterOptions};

use crate::faultd::Fault;
use crate::scene::{LIMIT, SMALL, Scene, Shape, check_epoch, finish, open, options};

/// What each folder of the server does.
const FOLDERS: [(&str, Fault); 9] = [
    ("f400/", Fault::Refusal(400, "InvalidRequest")),
    ("f401/", Fault::Status(401)),
    ("f403/", Fault::Refusal(403, "SignatureDoesNotMatch")),
    ("f404/", Fault::Refusal(404, "NoSuchKey")),
    ("f500/", Fault::Refusal(500, "InternalError")),
    ("reset/", Fault::Reset),
    ("silent/", Fault::Silence),
    ("loop/", Fault::RedirectLoop),
    ("page/", Fault::ErrorPage),
];

/// One way to sign in: the remote, the settings, and what must never be seen.
struct Login {
    remote: String,
    settings: Vec<(&'static str, String)>,
    secrets: Vec<&'static str>,
}

#[test]
fn secrets_never_logged() {
    let scene = Scene::new(Shape { samples: 24, ..SMALL });
    scene.server.by_path(&FOLDERS);
    let server = scene.server.url("").trim_end_matches('/').to_owned();
    let host = server.trim_start_matches("http://").to_owned();
    let token = scene.dir.path().join("token");
    std::fs::write(&token, "sEcRetOfTheTokenFile").unwrap();
    let token = token.display().to_string();
    let settings = |pairs: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    };
    let aws = |pairs: &[(&'static str, &str)]| {
        let mut all = settings(pairs);
        all.extend(settings(&[
            ("AWS_ENDPOINT", &server),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
        ]));
        all
    };
    let azure = |pairs: &[(&'static str, &str)]| {
        let mut all = settings(pairs);
        all.extend(settings(&[
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_ENDPOINT", &server),
            ("AZURE_ALLOW_HTTP", "true"),
        ]));
        all
    };
    let sas = "sv=2026-01-01&sp=r&sig=sEcRetSignature%2Fx%3D";
    let pem = "-----BEGIN PRIVATE KEY-----\\nsEcRetPem\\n-----END PRIVATE KEY-----\\n";
    let account = format!(
        "{{\"type\":\"service_account\",\"client_email\":\"a@b.c\",\"private_key_id\":\"1\",\
         \"private_key\":\"{pem}\"}}"
    );
    let logins = [
        Login {
            remote: "s3://bucket".into(),
            settings: aws(&[
                ("AWS_ACCESS_KEY_ID", "AKIATEST"),
                ("AWS_SECRET_ACCESS_KEY", "sEcRetKey/x+y="),
                ("AWS_SESSION_TOKEN", "sEcRetSessionToken=="),
            ]),
            secrets: vec!["sEcRetKey", "sEcRetSession"],
        },
        Login {
            remote: "s3://bucket".into(),
            settings: aws(&[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &scene.server.url("credentials")),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
            ]),
            secrets: vec!["sEcRetOfTheTokenFile", "secret-of-the-agent", "token-"],
        },
        Login {
            remote: "s3://bucket".into(),
            settings: aws(&[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
                ("AWS_ROLE_ARN", "arn:aws:iam::1:role/test"),
                ("AWS_ENDPOINT_URL_STS", "https://127.0.0.1:1"),
            ]),
            secrets: vec!["sEcRetOfTheTokenFile"],
        },
        Login {
            remote: "az://bucket".into(),
            settings: azure(&[("AZURE_STORAGE_SAS_TOKEN", sas)]),
            secrets: vec!["sEcRetSignature"],
        },
        Login {
            remote: "az://bucket".into(),
            settings: azure(&[("AZURE_STORAGE_ACCOUNT_KEY", "c0VjUmV0QXp1cmVLZXk=")]),
            secrets: vec!["c0VjUmV0QXp1cmVLZXk", "sEcRetAzureKey"],
        },
        Login {
            remote: "gs://bucket".into(),
            settings: settings(&[("GOOGLE_SERVICE_ACCOUNT_KEY", &account)]),
            secrets: vec!["sEcRetPem"],
        },
        Login {
            remote: format!("http://me:sEcRetPassword@{host}/bucket"),
            settings: vec![],
            secrets: vec!["sEcRetPassword", "bWU6c0VjUmV0UGFzc3dvcmQ"],
        },
        Login {
            remote: format!("http://{host}/bucket?token=sEcRetQuery"),
            settings: vec![],
            secrets: vec!["sEcRetQuery"],
        },
    ];
    let children: Vec<_> = logins
        .iter()
        .enumerate()
        .map(|(number, login)| {
            let cache = scene.dir.path().join(format!("cache{number}"));
            let mut child = scene.child_at("secrets", &login.remote, &cache);
            child.env("MDS_FAULTS_SECRETS", login.secrets.join("\t"));
            child.envs(login.settings.iter().map(|(name, value)| (name, value)));
            child.spawn().unwrap()
        })
        .collect();
    let results: Vec<_> = children
        .into_iter()
        .map(|child| std::thread::spawn(move || finish(child, LIMIT)))
        .collect();
    let failed = results.into_iter().filter_map(|result| result.join().err()).count();
    assert_eq!(failed, 0, "see above what was said where");
    scene.assert_nothing_left();
}

/// Collects log records.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// In a process of its own: reads and writes in every folder and looks for the secrets in all that
/// was said.
pub(crate) fn run_every_error_path(remote: &str, local: &Path) {
    let log = Log::default();
    let writer = {
        let log = log.clone();
        move || log.clone()
    };
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(writer)
        .init();
    let quick = DatasetOptions {
        download_timeout: Duration::from_millis(400),
        download_retry: 2,
        ..options()
    };
    let mut said = String::new();
    let mut errors = vec![];
    let (base, query) = match remote.split_once('?') {
        Some((base, query)) => (base, format!("?{query}")),
        None => (remote, String::new()),
    };
    for (folder, _) in FOLDERS {
        let address = format!("{base}/{}{query}", folder.trim_end_matches('/'));
        if let Err(error) = open(&address, &local.join(folder), quick.clone()) {
            errors.push(error);
        }
        let schema = Schema::new([("x", Encoding::Int)]).unwrap();
        let remote = RemoteOptions { timeout: quick.download_timeout, attempts: 1 };
        let options = WriterOptions { threads: Some(1), remote, ..WriterOptions::default() };
        let written = Writer::create(Output::Remote(address), schema, options)
            .and_then(|mut writer| writer.write(&[1.into()]).and_then(|()| writer.finish()));
        if let Err(error) = written {
            errors.push(error);
        }
    }
    let dataset = open(remote, local, quick);
    said.push_str(&format!("{dataset:?}\n"));
    match dataset {
        Ok(dataset) => {
            if let Err(error) = check_epoch(dataset, 24) {
                errors.push(error);
            }
        }
        Err(error) => errors.push(error),
    }
    assert!(errors.len() > FOLDERS.len(), "{errors:?}");
    for error in &errors {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            said.push_str(&format!("{error}\n{error:#}\n{error:?}\n{error:#?}\n"));
            cause = error.source();
        }
    }
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    if !query.is_empty() || remote.starts_with("gs:") {
        // Refused before anything is sent.
    } else {
        assert!(log.contains("TRACE") && log.lines().count() > 50, "little was recorded: {log}");
    }
    let secrets = std::env::var("MDS_FAULTS_SECRETS").unwrap();
    // One line for each module that says one.
    let mut leaks = BTreeMap::new();
    for (what, text) in [("an error", &said), ("the log", &log)] {
        for line in text.lines() {
            if let Some(secret) = secrets.split('\t').find(|secret| line.contains(secret)) {
                let module = line.split(' ').find(|word| word.contains("::")).unwrap_or_default();
                leaks.entry((what, secret, module)).or_insert(line);
            }
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}
