//! The places that tests/remotes.rs runs on: a folder, and the servers of tests/servers/run.

use std::future::Future;
use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use mds::storage::{Remote, RemoteOptions};
use tokio::runtime::Runtime;
use url::form_urlencoded;

/// Those of tests/servers/run; they open nothing but servers of 127.0.0.1.
pub(crate) const S3_SECRET: &str = "SKTEST123456";
pub(crate) const AZURE_SECRET: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Stands in the service account's file, which the servers do not look at.
const GOOGLE_SECRET: &str = "google-private-key";

/// A place where datasets are kept, with a folder of its own for each test.
pub(crate) struct Backend {
    /// The address of the test's folder, without options.
    root: String,
    /// The options, with their question mark.
    options: String,
    /// The options of somebody who may not come in, if the place has doors.
    pub(crate) strangers: Vec<String>,
    /// Parts of the options that nobody may see again.
    pub(crate) secrets: Vec<&'static str>,
    /// Where files are brought for a place that is good for reading alone.
    uploads: Option<String>,
    _folder: Option<tempfile::TempDir>,
}

impl Backend {
    fn new(root: String, options: &str) -> Self {
        let secrets = Vec::new();
        let strangers = Vec::new();
        let options = options.to_owned();
        Self { root, options, strangers, secrets, uploads: None, _folder: None }
    }

    /// A folder of this machine.
    pub(crate) fn folder(_test: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap().to_owned();
        Self { _folder: Some(folder), ..Self::new(root, "") }
    }

    /// SeaweedFS.
    pub(crate) fn s3(test: &str) -> Self {
        let end = format!("?endpoint={}&region=us-east-1", server("s3"));
        Self {
            secrets: vec![S3_SECRET],
            strangers: vec![
                format!("{end}&access_key_id=AKTEST&secret_access_key=wrongsecret"),
                format!("{end}&access_key_id=AKNOBODY&secret_access_key={S3_SECRET}"),
                format!("{end}&skip_signature=true"),
            ],
            ..Self::new(
                format!("s3://bucket/{test}"),
                &format!("{end}&access_key_id=AKTEST&aws_secret_access_key={S3_SECRET}"),
            )
        }
    }

    /// SeaweedFS by way of the S3 interface that GCS has for HMAC keys.
    pub(crate) fn gcs_hmac(test: &str) -> Self {
        let end = format!("?endpoint={}", server("s3"));
        let keys = format!("{end}&access_key_id=AKTEST&secret_access_key=");
        Self {
            secrets: vec![S3_SECRET],
            strangers: vec![format!("{keys}wrongsecret")],
            ..Self::new(format!("gs://bucket/{test}"), &format!("{keys}{S3_SECRET}"))
        }
    }

    /// SeaweedFS behind a translator of headers: the real client of GCS, but not GCS.
    pub(crate) fn gcs_translated(test: &str) -> Self {
        static TRANSLATOR: OnceLock<String> = OnceLock::new();
        let address = TRANSLATOR.get_or_init(|| start_translator(server("s3")));
        Self {
            secrets: vec![GOOGLE_SECRET],
            ..Self::new(format!("gs://open/{test}"), &google_options(address))
        }
    }

    /// fake-gcs-server, which `object_store` can read from alone.
    pub(crate) fn gcs(test: &str) -> Self {
        let address = server("gcs");
        Self {
            secrets: vec![GOOGLE_SECRET],
            uploads: Some(format!("{address}/upload/storage/v1/b/bucket/o?uploadType=media&name=")),
            ..Self::new(format!("gs://bucket/{test}"), &google_options(&address))
        }
    }

    /// Azurite.
    pub(crate) fn azure(test: &str) -> Self {
        let end = format!("?endpoint={}/devstoreaccount1", server("azure"));
        let account = format!("{end}&account_name=devstoreaccount1");
        Self {
            secrets: vec![AZURE_SECRET],
            strangers: vec![
                format!("{account}&account_key=d3Jvbmc="),
                format!("{account}&skip_signature=true"),
            ],
            ..Self::new(
                format!("az://bucket/{test}"),
                &format!("{account}&azure_storage_account_key={AZURE_SECRET}"),
            )
        }
    }

    /// The address of a folder below the test's own.
    pub(crate) fn address(&self, path: &str) -> String {
        self.address_with(path, &self.options)
    }

    pub(crate) fn address_with(&self, path: &str, options: &str) -> String {
        format!("{}/{path}{options}", self.root)
    }

    /// The same address as messages have it.
    pub(crate) fn shown(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }

    pub(crate) fn remote(&self, path: &str) -> Remote {
        Remote::open(&self.address(path), RemoteOptions::default()).unwrap()
    }

    pub(crate) fn is_folder(&self) -> bool {
        self._folder.is_some()
    }

    /// Whether a writer can write to it.
    pub(crate) fn takes_writers(&self) -> bool {
        self.uploads.is_none()
    }

    /// Puts an object there, by the place's own means if it is for reading alone.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let Some(uploads) = &self.uploads else {
            self.remote("").put(name, bytes.to_vec()).unwrap();
            return;
        };
        let folder = self.root.trim_start_matches("gs://bucket/");
        let name: String =
            form_urlencoded::byte_serialize(format!("{folder}/{name}").as_bytes()).collect();
        let url = format!("{uploads}{}", name.replace('+', "%20"));
        let body = bytes.to_vec();
        let status = block_on(async move {
            client().post(url).body(body).send().await.unwrap().status().as_u16()
        });
        assert_eq!(status, 200);
    }
}

/// A service account whose tokens nobody asks for, at a server of this machine.
fn google_options(address: &str) -> String {
    let account = format!(
        r#"{{"gcs_base_url":"{address}","disable_oauth":true,"client_email":"","private_key":"{GOOGLE_SECRET}","private_key_id":""}}"#
    );
    let account: String = form_urlencoded::byte_serialize(account.as_bytes()).collect();
    format!("?google_service_account_key={account}&allow_http=true")
}

/// The address of one of the servers of tests/servers/run.
fn server(name: &str) -> String {
    let servers = std::env::var("MDS_TEST_SERVERS")
        .expect("this test needs real servers; run it by: make test-servers");
    let servers: serde_json::Value = serde_json::from_str(&servers).unwrap();
    servers[name].as_str().unwrap_or_else(|| panic!("there is no {name} server")).to_owned()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

fn block_on<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    runtime().block_on(work)
}

/// NOT GCS: passes on what the client of GCS says to an S3 server that lets everybody in, and
/// changes the few headers in which the two XML interfaces differ.
fn start_translator(s3: String) -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    runtime().spawn(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        sender.send(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let router = Router::new().fallback(translate).with_state((client(), s3));
        axum::serve(listener, router).await.unwrap();
    });
    receiver.recv().unwrap()
}

async fn translate(
    State((client, s3)): State<(reqwest::Client, String)>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let url = format!("{s3}{}", parts.uri);
    let mut headers = parts.headers;
    for only_here in ["authorization", "host"] {
        headers.remove(only_here);
    }
    if headers.remove("x-goog-if-generation-match").is_some_and(|wanted| wanted == "0") {
        headers.insert("if-none-match", "*".parse().unwrap());
    }
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let answer =
        client.request(parts.method, url).headers(headers).body(body).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        response = response.header(name, value);
    }
    let response = response.header("x-goog-generation", "1");
    response.body(Body::from_stream(answer.bytes_stream())).unwrap()
}
