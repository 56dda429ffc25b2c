//! `convert-c4` against a local server with the layout of the Hugging Face hub: listings in
//! pages, files behind a redirect to a second server, failures on the way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use convert::hub::{Hub, Retry};
use std::io::Read;

#[path = "support/shards.rs"]
mod shards;

const TOKEN: &str = "hf_secret_of_the_test";
const QUICK: Retry = Retry { attempts: 3, first_pause: Duration::from_millis(1) };

fn data(file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data").join(file)).unwrap()
}

/// What one server was asked: path with query, and headers.
type Log = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// How the storage server misbehaves, once for each file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// 503 once, then a connection that breaks in the middle, then the rest as asked for.
    Flaky,
    /// As flaky, and every answer is the whole file, whatever range was asked for.
    FlakyWithoutRanges,
    AlwaysDown,
    /// Each connection breaks after some bytes.
    Slow,
}

#[derive(Clone)]
struct Server {
    log: Log,
    /// Path to content.
    files: Arc<HashMap<String, Vec<u8>>>,
    storage: Option<SocketAddr>,
    fault: Fault,
    /// Whether the listing has the folder `en`.
    folder: &'static str,
}

struct World {
    runtime: tokio::runtime::Runtime,
    hub: SocketAddr,
    hub_log: Log,
    storage_log: Log,
    home: tempfile::TempDir,
}

impl World {
    fn new(fault: Fault, folder: &'static str) -> Self {
        Self::with(fault, folder, |_| {})
    }

    /// The same with other files.
    fn with(
        fault: Fault,
        folder: &'static str,
        change: impl Fn(&mut HashMap<String, Vec<u8>>),
    ) -> Self {
        let sample = |file: &str| data(&format!("c4-sample/en/{file}"));
        let mut files = HashMap::new();
        for file in [
            "c4-train.00000-of-00002.json.gz",
            "c4-train.00001-of-00002.json.gz",
            "c4-validation.00000-of-00001.json.gz",
        ] {
            files.insert(format!("{folder}{file}"), sample(file));
        }
        files.insert(format!("{folder}notes.json.gz"), b"not C4".to_vec());
        change(&mut files);
        let files = Arc::new(files);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (hub_log, storage_log) = (Log::default(), Log::default());
        let common = Server {
            log: Arc::clone(&storage_log),
            files: Arc::clone(&files),
            storage: None,
            fault,
            folder,
        };
        let storage = serve(&runtime, Router::new().fallback(store).with_state(common.clone()));
        let front = Server { log: Arc::clone(&hub_log), storage: Some(storage), ..common };
        let hub = serve(&runtime, Router::new().fallback(answer).with_state(front));
        Self { runtime, hub, hub_log, storage_log, home: tempfile::tempdir().unwrap() }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_convert-c4"))
            .current_dir(self.home.path())
            .args(args)
            .env("HF_ENDPOINT", self.endpoint())
            .env("HF_TOKEN", TOKEN)
            .env("HOME", self.home.path())
            .env_remove("XDG_CACHE_HOME")
            // A proxy must not see what is meant for this machine.
            .env("http_proxy", "http://127.0.0.1:1")
            .env("RUST_LOG", "debug")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn succeed(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        assert!(!errors.contains(TOKEN), "the token is in the log: {errors}");
        output
    }

    fn fail(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!errors.contains(TOKEN), "the token is in the log: {errors}");
        let mut lines = errors.lines();
        lines.find_map(|l| l.strip_prefix("convert-c4: error: ")).unwrap_or(&errors).to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Every request to the hub carried the token; none to the storage did, in any header.
    fn assert_token_stayed_at_the_hub(&self) {
        let hub = self.hub_log.lock().unwrap();
        assert!(!hub.is_empty());
        for (path, headers) in hub.iter() {
            assert_eq!(headers[header::AUTHORIZATION], format!("Bearer {TOKEN}"), "{path}");
        }
        let storage = self.storage_log.lock().unwrap();
        assert!(!storage.is_empty());
        for (path, headers) in storage.iter() {
            assert!(headers.get(header::AUTHORIZATION).is_none(), "{path}");
            assert!(!format!("{headers:?}").contains(TOKEN), "{path}: {headers:?}");
            assert!(!path.contains(TOKEN));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Servers end with their runtime; nothing to wait for.
        let empty = tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::mem::replace(&mut self.runtime, empty).shutdown_background();
    }
}

fn serve(runtime: &tokio::runtime::Runtime, router: Router) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, router).await });
    address
}

/// The hub: a listing of two pages, and a redirect for each file.
async fn answer(State(server): State<Server>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().to_string();
    server.log.lock().unwrap().push((path.clone(), request.headers().clone()));
    let tree = format!("/api/datasets/allenai/c4/tree/main/{}", server.folder);
    let tree = tree.trim_end_matches('/');
    if let Some(query) = path.strip_prefix(tree) {
        let mut names: Vec<&String> = server.files.keys().collect();
        // The hub sorts by name; a converter must not rely on it.
        names.sort_by(|a, b| b.cmp(a));
        let entry = |name: &&String| {
            let mut oid = std::hash::DefaultHasher::new();
            std::hash::Hasher::write(&mut oid, &server.files[*name]);
            format!(
                "{{\"type\":\"file\",\"oid\":\"{:x}\",\"size\":{},\"path\":\"{name}\"}}",
                std::hash::Hasher::finish(&oid),
                server.files[*name].len()
            )
        };
        let folder = "{\"type\":\"directory\",\"oid\":\"0\",\"size\":0,\"path\":\"more\"}";
        return match query {
            "" => {
                let link = format!("<http://{}{tree}?cursor=2>; rel=\"next\"", host(&request));
                let page: Vec<String> =
                    names[..2].iter().map(entry).chain([folder.into()]).collect();
                ([(header::LINK, link)], format!("[{}]", page.join(","))).into_response()
            }
            "?cursor=2" => {
                let page: Vec<String> = names[2..].iter().map(entry).collect();
                format!("[{}]", page.join(",")).into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        };
    }
    if let Some(file) = path.strip_prefix("/datasets/allenai/c4/resolve/main/") {
        let storage = server.storage.unwrap();
        let target = format!("http://{storage}/blobs/{file}?X-Amz-Signature=signature");
        return (StatusCode::FOUND, [(header::LOCATION, target)]).into_response();
    }
    match path.as_str() {
        "/acme/tok/resolve/main/tokenizer.json" => {
            data("tokenizers/quickstart/tokenizer.json").into_response()
        }
        "/acme/private/resolve/main/tokenizer.json" => StatusCode::UNAUTHORIZED.into_response(),
        "/loop" => (StatusCode::FOUND, [(header::LOCATION, "/loop")]).into_response(),
        "/away" => (StatusCode::FOUND, [(header::LOCATION, "file:///etc/passwd")]).into_response(),
        "/own" => (StatusCode::FOUND, [(header::LOCATION, "/landed")]).into_response(),
        "/landed" => "here".into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn host(request: &Request) -> String {
    request.headers()[header::HOST].to_str().unwrap().to_owned()
}

/// The storage behind the hub: signed addresses, ranges, and faults.
async fn store(State(server): State<Server>, request: Request) -> Response {
    let uri = request.uri().clone();
    let path = uri.path().to_owned();
    let before = {
        let mut log = server.log.lock().unwrap();
        log.push((uri.path_and_query().unwrap().to_string(), request.headers().clone()));
        log.iter().filter(|(seen, _)| seen.starts_with(&path)).count() - 1
    };
    let name = path.trim_start_matches("/blobs/");
    let (Some(content), Some("X-Amz-Signature=signature")) = (server.files.get(name), uri.query())
    else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let range = request.headers().get(header::RANGE).map(|v| v.to_str().unwrap().to_owned());
    let from: usize = range
        .as_deref()
        .filter(|_| server.fault != Fault::FlakyWithoutRanges)
        .map_or(0, |r| r.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let rest = content[from..].to_vec();
    let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let flaky = matches!(server.fault, Fault::Flaky | Fault::FlakyWithoutRanges);
    if server.fault == Fault::AlwaysDown || (flaky && before == 0) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let cut = match server.fault {
        Fault::Slow if rest.len() > 50_000 => Some(50_000),
        _ if flaky && before == 1 => Some(rest.len() / 2),
        _ => None,
    };
    let Some(cut) = cut else { return (status, rest).into_response() };
    // The pause lets the first piece leave before the connection breaks.
    let pieces = futures::stream::iter([
        Ok(rest[..cut].to_vec()),
        Err(std::io::Error::other("the server dies")),
    ]);
    let pieces = futures::StreamExt::then(pieces, async |piece| {
        if piece.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        piece
    });
    (status, [(header::CONTENT_LENGTH, rest.len())], Body::from_stream(pieces)).into_response()
}

/// What a local conversion of the same files gives.
fn assert_equals_local(world: &World, folder: &str, split: &str) {
    let local = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/c4-sample");
    let status = Command::new(env!("CARGO_BIN_EXE_convert-c4"))
        .args(["--splits", split, "--source"])
        .arg(source)
        .arg("--out_root")
        .arg(local.path().join("c4"))
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .output()
        .unwrap()
        .status;
    assert!(status.success());
    let expected = shards::read_strings(&local.path().join("c4").join(split));
    assert_eq!(shards::read_strings(&world.path(folder).join(split)), expected);
}

#[test]
fn c4_is_read_from_the_hub_and_the_token_stays_there() {
    for folder in ["en/", ""] {
        let world = World::new(Fault::None, folder);
        world.succeed(&["--out_root", "c4", "--splits", "train", "val"]);
        assert_equals_local(&world, "c4", "train");
        assert_equals_local(&world, "c4", "val");
        world.assert_token_stayed_at_the_hub();
        let log = world.storage_log.lock().unwrap();
        let mut files: Vec<&str> = log.iter().map(|(path, _)| path.as_str()).collect();
        files.sort_unstable();
        assert_eq!(files.len(), 3, "each file once, and nothing else: {files:?}");
    }
}

/// The listing tells that a file is another, though it has the same size.
#[test]
fn another_file_of_the_hub_is_another_input() {
    let (old, new) = (
        World::new(Fault::None, "en/"),
        World::with(Fault::None, "en/", |files| {
            let train = files.get_mut("en/c4-train.00001-of-00002.json.gz").unwrap();
            // The time in the header of gzip, which changes nothing else.
            train[4] ^= 1;
        }),
    );
    let args = ["--out_root", "out", "--splits", "train", "val"];
    old.succeed(&args);
    let said = String::from_utf8(old.succeed(&args).stdout).unwrap();
    assert_eq!(said.matches(" is complete, of the same input and settings\n").count(), 2, "{said}");
    fs::rename(old.path("out"), new.path("out")).unwrap();
    assert_eq!(
        new.fail(&args),
        "out/train exists already, made with en/c4-train.00001-of-00002.json.gz as it was before it \
         changed; make it again with --reprocess, or write to another place"
    );
}

#[test]
fn downloads_survive_failures_and_go_on_where_they_broke() {
    for fault in [Fault::Flaky, Fault::FlakyWithoutRanges, Fault::Slow] {
        let world = World::new(fault, "en/");
        world.succeed(&["--out_root", "c4", "--splits", "val"]);
        assert_equals_local(&world, "c4", "val");
        world.assert_token_stayed_at_the_hub();
        let log = world.storage_log.lock().unwrap();
        let ranges: Vec<_> =
            log.iter().map(|(_, headers)| headers.get(header::RANGE).is_some()).collect();
        assert_eq!(ranges, [false, fault == Fault::Slow, true], "the last asks for the rest only");
    }
}

#[test]
fn a_hub_that_stays_down_is_given_up_and_nothing_is_left() {
    let world = World::new(Fault::AlwaysDown, "en/");
    let message = world.fail(&["--out_root", "c4", "--splits", "val"]);
    assert_eq!(
        message,
        format!(
            "{}/datasets/allenai/c4/resolve/main/en/c4-validation.00000-of-00001.json.gz: it \
             answers 503 Service Unavailable at byte 0 (gave up after 5 attempts); check \
             HF_ENDPOINT and the network, or use files of this machine",
            world.endpoint()
        )
    );
    assert!(!world.path("c4").exists());
    assert_eq!(world.storage_log.lock().unwrap().len(), 5);
}

#[test]
fn a_hub_without_the_dataset_is_named() {
    let world = World::new(Fault::None, "fr/");
    assert_eq!(
        world.fail(&["--out_root", "c4", "--splits", "val"]),
        format!(
            "{}/datasets/allenai/c4 holds no c4-validation.*.json.gz, with or without en/; check \
             HF_ENDPOINT, or read local files with --source",
            world.endpoint()
        )
    );
    assert!(!world.path("c4").exists());
}

#[test]
fn an_endpoint_that_is_no_address_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_convert-c4"))
        .args(["--out_root", "/nonexistent/c4", "--splits", "val"])
        .env("HF_ENDPOINT", "huggingface.co")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "convert-c4: error: HF_ENDPOINT is \"huggingface.co\", which is not an http or https \
         address; set it to one such as https://huggingface.co, or unset it\n"
    );
}

#[test]
fn redirects_are_bounded_checked_and_never_carry_the_token() {
    let world = World::new(Fault::None, "en/");
    let hub = Hub::new(&world.endpoint(), Some(TOKEN), QUICK).unwrap();
    let refused = |path: &str| hub.read_small(path).unwrap_err().to_string();
    let remedy = "check HF_ENDPOINT and the network, or use files of this machine";
    let endpoint = world.endpoint();
    assert_eq!(refused("loop"), format!("{endpoint}/loop: more than 10 redirects; {remedy}"));
    assert_eq!(
        refused("away"),
        format!("{endpoint}/away: it redirects to file:///etc/passwd, which is refused; {remedy}")
    );
    assert_eq!(hub.read_small("nothing").unwrap(), None);

    // Not even to the hub's own next address.
    world.hub_log.lock().unwrap().clear();
    assert_eq!(hub.read_small("own").unwrap().unwrap(), b"here");
    let log = world.hub_log.lock().unwrap();
    let with_token = |n: usize| log[n].1.contains_key(header::AUTHORIZATION);
    assert_eq!((log[0].0.as_str(), with_token(0)), ("/own", true));
    assert_eq!((log[1].0.as_str(), with_token(1)), ("/landed", false));
}

#[test]
fn a_file_that_changed_since_its_listing_is_an_error() {
    let world = World::new(Fault::None, "en/");
    let hub = Hub::new(&world.endpoint(), None, QUICK).unwrap();
    let files = hub.dataset_files("allenai/c4", "en").unwrap().unwrap();
    assert_eq!(files.len(), 4);
    let mut file = files[0].clone();
    let size = file.bytes;
    for (claimed, problem) in [
        (size + 1, format!("the answer ends early at byte {size} (gave up after 3 attempts)")),
        (size - 1, format!("it is longer than the {} bytes of its listing", size - 1)),
    ] {
        file.bytes = claimed;
        let mut reader = hub.open_dataset_file("allenai/c4", &file).unwrap();
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(&problem), "{error}");
    }
}

#[test]
fn tokenizers_come_from_the_hub_once() {
    let world = World::new(Fault::None, "en/");
    fs::write(world.path("x.jsonl"), "{\"text\":\"to be or not to be\"}\n").unwrap();
    let args = |root, tokenizer| {
        [
            "--source",
            "x.jsonl",
            "--out_root",
            root,
            "--splits",
            "val",
            "--concat_tokens",
            "4",
            "--tokenizer",
            tokenizer,
            "--eos_text",
            "<|endoftext|>",
        ]
    };
    world.succeed(&args("one", "acme/tok"));
    let asked =
        |log: &Log| log.lock().unwrap().iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let first = asked(&world.hub_log);
    assert_eq!(
        first,
        ["/acme/tok/resolve/main/tokenizer.json", "/acme/tok/resolve/main/tokenizer_config.json"]
    );
    world.succeed(&args("two", "acme/tok"));
    assert_eq!(asked(&world.hub_log), first, "the second run reads the cache");
    let folder = format!(".cache/mds/tokenizers/127.0.0.1_{}/acme/tok", world.hub.port());
    let cached = fs::read(world.path(&folder).join("tokenizer.json")).unwrap();
    assert_eq!(cached, data("tokenizers/quickstart/tokenizer.json"));
    assert_eq!(shards::read_ids(&world.path("one/val")), shards::read_ids(&world.path("two/val")));

    let endpoint = world.endpoint();
    assert_eq!(
        world.fail(&args("three", "acme/none")),
        format!(
            "tokenizer \"acme/none\" not found: it is not built in (gpt2 is), and there is no \
             acme/none here and no {endpoint}/acme/none/resolve/main/tokenizer.json; give the path \
             of a tokenizer.json or of the folder that holds one"
        )
    );
    assert_eq!(
        world.fail(&args("three", "acme/private")),
        format!(
            "tokenizer \"acme/private\" is not built in (gpt2 is), there is no acme/private here, and from the hub: \
             {endpoint}/acme/private/resolve/main/tokenizer.json answers 401 Unauthorized; check \
             the name, and set HF_TOKEN to a token that may read it; or give the path of a tokenizer.json"
        )
    );
    assert!(!world.path("three").exists());
}
