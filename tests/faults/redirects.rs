//! Where the hub may send its readers: never from `https` to plain `http`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mds::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::scene::{LIMIT, SMALL, Scene, Shape, finish, open, options};

/// Not secrets: an authority that signed one certificate, for 127.0.0.1, whose key is beside it.
const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/tls");

/// A server that sends whoever asks for an object to the one of the same name at `to`.
fn redirecting(to: String, tls: bool) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let acceptor = tls.then(acceptor);
    // It ends with the process of the test.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                match &acceptor {
                    None => answer(stream, &to).await,
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => answer(stream, &to).await,
                        Err(_) => continue,
                    },
                }
            }
        });
    });
    format!("http{}://{address}", if tls { "s" } else { "" })
}

fn acceptor() -> TlsAcceptor {
    let file = |name: &str| std::fs::read(Path::new(TLS).join(name)).unwrap();
    let certificate = CertificateDer::from_pem_slice(&file("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&file("key.pem")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()))
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, to: &str) {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap();
    let name = path.rsplit('/').next().unwrap();
    let head = format!(
        "HTTP/1.1 302 Found\r\nlocation: {to}/{name}?signature=secret\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Reads the dataset of a hub in a process of its own, which knows the authority of these tests.
fn read(scene: &Scene, task: &str, endpoint: &str) {
    let mut command = scene.child_at(task, "hf://datasets/org/name", &scene.cache);
    for proxy in
        ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
    {
        command.env_remove(proxy);
    }
    command
        .env("SSL_CERT_FILE", Path::new(TLS).join("ca.pem"))
        .env_remove("SSL_CERT_DIR")
        .env("HF_ENDPOINT", endpoint)
        .env("HF_TOKEN", "hf_secret")
        .env("MDS_FAULTS_REFUSED", scene.url());
    finish(command.spawn().unwrap(), LIMIT);
}

#[test]
fn the_hub_does_not_lead_from_https_to_http() {
    let scene = Scene::new(Shape { samples: 24, ..SMALL });
    let tls = redirecting(scene.url(), true);
    // From the start, and after a way through this machine on which plain http is allowed.
    let to_tls = redirecting(format!("{tls}/x"), false);
    for endpoint in [&tls, &to_tls] {
        read(&scene, "refused", endpoint);
        scene.assert_nothing_left();
    }
    assert!(scene.server.requests().is_empty(), "{:?}", scene.server.requests());
    // Nobody in between: from this machine to itself.
    read(&scene, "epoch", &redirecting(scene.url(), false));
    scene.assert_cache_is_true();
}

/// In a process of its own.
pub(crate) fn expect_refused(remote: &str, local: &Path) {
    let error = open(remote, local, options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download, "{error}");
    let to = std::env::var("MDS_FAULTS_REFUSED").unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "hf://datasets/org/name/index.json was not downloaded: it redirects to {to}/index.json, \
             which is refused; check HF_ENDPOINT: what begins with https does not go on without it, \
             and nothing leads from elsewhere into this machine"
        )
    );
}
