//! The committed sample and tokenizers are what `data/README.md` says they are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use convert::tokenizer::Tokenizer;
use serde_json::Value;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
}

fn documents(file: &str) -> Vec<Value> {
    let path = data().join("c4-sample/en").join(file);
    #[expect(clippy::disallowed_types, reason = "the committed sample is small")]
    let decoder = flate2::read::MultiGzDecoder::new(File::open(path).unwrap());
    let lines = BufReader::new(decoder).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

fn training() -> Vec<Value> {
    let mut all = documents("c4-train.00000-of-00002.json.gz");
    all.extend(documents("c4-train.00001-of-00002.json.gz"));
    all
}

fn held_out() -> Vec<Value> {
    documents("c4-validation.00000-of-00001.json.gz")
}

fn text(document: &Value) -> &str {
    document["text"].as_str().unwrap()
}

/// `http://.../2ws2610.txt#hamlet-004` is of the work `hamlet`.
fn work(document: &Value) -> &str {
    let (_, fragment) = document["url"].as_str().unwrap().split_once('#').unwrap();
    fragment.rsplit_once('-').unwrap().0
}

#[test]
fn documents_have_the_keys_and_the_sizes_of_c4() {
    let (train, val) = (training(), held_out());
    for document in train.iter().chain(&val) {
        let keys: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["text", "timestamp", "url"]);
        assert_eq!(document["timestamp"], "2008-10-29T00:00:00Z");
        assert!((500..6000).contains(&text(document).len()), "{}", document["url"]);
    }
    let bytes = |side: &[Value]| side.iter().map(|d| text(d).len()).sum::<usize>();
    assert!((1_700_000..4_000_000).contains(&bytes(&train)), "{}", bytes(&train));
    assert!((200_000..500_000).contains(&bytes(&val)), "{}", bytes(&val));
    let urls: HashSet<&str> =
        train.iter().chain(&val).map(|d| d["url"].as_str().unwrap()).collect();
    assert_eq!(urls.len(), train.len() + val.len());
}

#[test]
fn no_work_stands_on_both_sides() {
    let works = |side: &[Value]| side.iter().map(|d| work(d).to_owned()).collect::<BTreeSet<_>>();
    let (train, val) = (works(&training()), works(&held_out()));
    assert_eq!(val.iter().collect::<Vec<_>>(), ["macbeth", "much_ado_about_nothing", "tempest"]);
    assert_eq!(train.len(), 31);
    assert!(train.is_disjoint(&val));
    // One source address per work, so no second edition either.
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    for document in training().iter().chain(&held_out()) {
        let (source, _) = document["url"].as_str().unwrap().split_once('#').unwrap();
        let first = sources.entry(source.to_owned()).or_insert_with(|| work(document).to_owned());
        assert_eq!(first, work(document));
    }
    assert_eq!(sources.len(), train.len() + val.len());
}

/// A First Folio edition under another title would escape the test of names. Spelling differs
/// between editions, so words are compared by their consonants, which mostly survive: two editions
/// of one play then share hundreds of runs, two plays none.
#[test]
fn no_passage_stands_on_both_sides() {
    fn runs(side: &[Value], length: usize, key: impl Fn(&str) -> String) -> HashSet<String> {
        let mut runs = HashSet::new();
        for document in side {
            let words = text(document).split(|c: char| !c.is_ascii_alphabetic() && c != '\'');
            let words: Vec<String> = words.map(&key).filter(|w| !w.is_empty()).collect();
            runs.extend(words.windows(length).map(|run| run.join(" ")));
        }
        runs
    }
    let exact = |word: &str| word.to_ascii_lowercase();
    let skeleton = |word: &str| {
        let mut word = word.to_ascii_lowercase();
        word.retain(|c| c.is_ascii_alphabetic() && !"aeiouyvwhj".contains(c));
        word
    };
    let (train, val) = (training(), held_out());
    let shared = |length, key: &dyn Fn(&str) -> String| {
        let train = runs(&train, length, key);
        runs(&val, length, key).into_iter().filter(|run| train.contains(run)).count()
    };
    assert_eq!(shared(16, &exact), 0);
    assert_eq!(shared(12, &skeleton), 0);
    // The measure itself works: within the training side, halves of one play share such runs.
    let again = runs(&train[..1], 12, skeleton);
    assert!(again.iter().any(|run| runs(&train, 12, skeleton).contains(run)));
}

#[test]
fn the_bodies_hold_no_boilerplate() {
    for document in training().iter().chain(&held_out()) {
        let lower = text(document).to_ascii_lowercase();
        for word in
            ["gutenberg", "etext", "copyright", "public domain", "www.", "by william shakes"]
        {
            assert!(!lower.contains(&format!(" {word}")), "{word} in {}", document["url"]);
        }
    }
}

#[test]
fn tokenizers_have_their_sizes_and_known_ids() {
    let gpt2 = Tokenizer::load(data().join("tokenizers/gpt2").to_str().unwrap()).unwrap();
    assert_eq!((gpt2.vocab_size(), gpt2.eos_id()), (50_257, Some(50_256)));
    assert_eq!(gpt2.encode("Hello world").unwrap(), [15496, 995]);

    let path = data().join("tokenizers/quickstart/tokenizer.json");
    let quickstart = Tokenizer::load(path.to_str().unwrap()).unwrap();
    assert_eq!((quickstart.vocab_size(), quickstart.eos_id()), (4096, Some(0)));
    assert_eq!(quickstart.encode("<|endoftext|>").unwrap(), [0]);
    for document in held_out() {
        let ids = quickstart.encode(text(&document)).unwrap();
        assert_eq!(quickstart.decode(&ids).unwrap(), text(&document));
        let ratio = text(&document).len() as f64 / ids.len() as f64;
        assert!(ratio > 2.0, "{ratio} bytes a token in {}", document["url"]);
    }
}

/// Entries for names that only the held-out works hold would mean that they were trained on.
#[test]
fn the_quickstart_vocabulary_knows_training_text_only() {
    let json = std::fs::read(data().join("tokenizers/quickstart/tokenizer.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let all: String = training().iter().map(|d| format!("{}\n", text(d))).collect();
    let vocabulary = json["model"]["vocab"].as_object().unwrap();
    let ascii = vocabulary.keys().filter(|entry| entry.len() > 1 && entry.is_ascii());
    for entry in ascii.filter(|entry| *entry != "<|endoftext|>") {
        assert!(all.contains(entry.as_str()), "{entry}");
    }
    for name in ["Macbeth", "Prospero", "Benedick", "Caliban", "Dogberry", "Macduff"] {
        assert!(!vocabulary.contains_key(&format!("\u{120}{name}")), "{name}");
    }
}

/// Recorded from the Python library by `tests/fixtures/make_token_ids.py`.
#[test]
fn ids_equal_those_of_the_python_library() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/token_ids.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    assert!(cases.len() > 300);
    for name in ["gpt2", "quickstart"] {
        let folder = data().join("tokenizers").join(name);
        let tokenizer = Tokenizer::load(folder.to_str().unwrap()).unwrap();
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let expected: Vec<u32> = case[name]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_u64().unwrap() as u32)
                .collect();
            assert_eq!(tokenizer.encode(text).unwrap(), expected, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&expected).unwrap(), text, "{name}");
        }
    }
}
