//! The real text that benches read.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The texts of the documents that the repository has for training: 4 MB.
#[expect(clippy::disallowed_types, reason = "files of this repository, whose size is known")]
pub(crate) fn documents() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/c4-sample/en");
    let mut documents = Vec::new();
    for name in ["c4-train.00000-of-00002.json.gz", "c4-train.00001-of-00002.json.gz"] {
        let file = File::open(folder.join(name)).expect("the sample is in the repository");
        for line in BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines() {
            let row: serde_json::Value =
                serde_json::from_str(&line.expect("sound gzip")).expect("lines of JSON");
            documents.push(row["text"].as_str().expect("documents have a text").to_owned());
        }
    }
    documents
}
