//! What the file server that fails as it is told takes: whole objects and, as S3 has them, objects in
//! parts. An object is there when all of it has come, and not before.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{Asked, Fault, Request, Shared, cut, knows, locked, refuse, status};

/// A request that was served as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) method: String,
    /// The path without its leading slash.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Taken {
    /// Whether the signature of the request covers a header.
    pub(crate) fn signs(&self, header: &str) -> bool {
        let authorization = self.headers.get("authorization").map_or("", String::as_str);
        let signed = authorization.split("SignedHeaders=").nth(1).unwrap_or_default();
        signed.split(',').next().unwrap_or_default().split(';').any(|name| name == header)
    }
}

/// Uploads in parts that are not complete: their parts by number, by the upload's own number.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    open: BTreeMap<usize, BTreeMap<usize, Vec<u8>>>,
    begun: usize,
    pub(super) taken: Vec<Taken>,
}

/// Serves a request that changes something. `pending` is what was read of its body.
pub(super) async fn take(
    stream: &mut TcpStream,
    pending: &mut Vec<u8>,
    request: &Request,
    shared: &Shared,
) -> io::Result<()> {
    let length = request.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    *locked(&shared.requests).entry(request.path.clone()).or_default() += 1;
    let known = knows(request, shared);
    let fault = known.then(|| locked(&shared.plan).choose(&request.path, Asked::Upload)).flatten();
    match fault {
        Some(Fault::ResetInBody | Fault::Truncated | Fault::Stall) => {
            read(stream, pending, length / 2).await?;
        }
        Some(Fault::Slow(pace)) => read_slowly(stream, pending, length, pace).await?,
        _ => read(stream, pending, length).await?,
    }
    match fault {
        Some(Fault::Reset | Fault::ResetInBody) => {
            stream.set_zero_linger()?;
            return Err(cut());
        }
        Some(Fault::Truncated) => return Err(cut()),
        Some(Fault::Stall | Fault::Silence) => {
            sleep(Duration::from_secs(600)).await;
            return Err(cut());
        }
        _ => {}
    }
    let body: Vec<u8> = pending.drain(..length).collect();
    match fault {
        _ if !known => refuse(stream, 403, "ExpiredToken").await,
        Some(Fault::Status(code)) => status(stream, code, "").await,
        Some(Fault::Refusal(code, text)) => refuse(stream, code, text).await,
        _ => {
            let (code, answer) = apply(request, body, shared);
            if fault == Some(Fault::LostAnswer) {
                stream.set_zero_linger()?;
                return Err(cut());
            }
            let extra = "etag: \"of the test\"\r\n";
            super::status_with(stream, code, extra, &answer).await
        }
    }
}

async fn read(stream: &mut TcpStream, pending: &mut Vec<u8>, length: usize) -> io::Result<()> {
    while pending.len() < length {
        if stream.read_buf(pending).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn read_slowly(
    stream: &mut TcpStream,
    pending: &mut Vec<u8>,
    length: usize,
    pace: u64,
) -> io::Result<()> {
    let piece = usize::try_from(pace / 20).unwrap().max(1);
    let mut wanted = 0;
    while wanted < length {
        wanted = length.min(wanted + piece);
        read(stream, pending, wanted).await?;
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Does what is asked for. Returns the status and the answer.
fn apply(request: &Request, body: Vec<u8>, shared: &Shared) -> (u16, String) {
    let Request { method, path, query, headers } = request;
    let mut uploads = locked(&shared.uploads);
    uploads.taken.push(Taken {
        method: method.clone(),
        path: path.clone(),
        query: query.clone(),
        headers: headers.clone(),
    });
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(n, _)| *n == name).map(|(_, value)| value.parse().unwrap())
    };
    let (id, part): (Option<usize>, Option<usize>) =
        (parameter("uploadId"), parameter("partNumber"));
    let file = shared.root.join(path);
    match (method.as_str(), id, part) {
        ("PUT", None, None) if headers.contains_key("if-none-match") && file.exists() => {
            (412, String::new())
        }
        ("PUT", None, None) => {
            store(&file, &body);
            (200, String::new())
        }
        ("POST", None, None) if query.starts_with("uploads") => {
            uploads.begun += 1;
            let id = uploads.begun;
            uploads.open.insert(id, BTreeMap::new());
            let answer = format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
                 </InitiateMultipartUploadResult>"
            );
            (200, answer)
        }
        ("PUT", Some(id), Some(part)) => match uploads.open.get_mut(&id) {
            Some(parts) => {
                parts.insert(part, body);
                (200, String::new())
            }
            None => (404, String::new()),
        },
        ("POST", Some(id), None) => match uploads.open.remove(&id) {
            Some(parts) => {
                let whole: Vec<u8> = parts.into_values().flatten().collect();
                store(&file, &whole);
                let answer = "<CompleteMultipartUploadResult><ETag>x</ETag>\
                              </CompleteMultipartUploadResult>";
                (200, answer.to_owned())
            }
            // Completed before, when the answer was lost: S3 gives the same one again.
            None if file.is_file() => {
                let answer = "<CompleteMultipartUploadResult><ETag>x</ETag>\
                              </CompleteMultipartUploadResult>";
                (200, answer.to_owned())
            }
            None => (404, String::new()),
        },
        ("DELETE", Some(id), None) => {
            uploads.open.remove(&id);
            (204, String::new())
        }
        ("DELETE", None, None) => {
            let _ = std::fs::remove_file(file);
            (204, String::new())
        }
        ("POST", None, None) if query.starts_with("delete") => {
            let body = String::from_utf8(body).unwrap();
            let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
            let mut answer = "<DeleteResult>".to_owned();
            for (key, _) in keys {
                let _ = std::fs::remove_file(file.join(key));
                answer.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
            }
            (200, answer + "</DeleteResult>")
        }
        _ => (405, String::new()),
    }
}

/// Puts an object in place.
fn store(file: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let part = file.with_extension("unfinished");
    std::fs::write(&part, bytes).unwrap();
    std::fs::rename(part, file).unwrap();
}
