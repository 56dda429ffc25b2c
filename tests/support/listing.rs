//! What a bucket of S3 answers to the question what lies in it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};

/// The list of those `objects` that a query asks for.
pub(crate) fn listing(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or("");
    let prefix = decoded(prefix);
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>".to_owned();
    for (key, bytes) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let (size, tag) = (bytes.len(), tag(bytes));
        let _ = write!(
            xml,
            "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>{tag}</ETag>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        );
    }
    xml + "</ListBucketResult>"
}

/// The ETag of an object with these bytes.
pub(crate) fn tag(bytes: &[u8]) -> String {
    let mut hash = DefaultHasher::new();
    hash.write(bytes);
    format!("\"{:016x}\"", hash.finish())
}

/// `a%2Fb` is `a/b`.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex: Vec<u8> = if byte == b'%' { rest.by_ref().take(2).collect() } else { Vec::new() };
        let code = std::str::from_utf8(&hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.unwrap_or(byte));
    }
    String::from_utf8(bytes).unwrap()
}
