use std::fs;

use sha2::{Digest, Sha256};

use super::super::documents::{self, Cut, input_files};
use super::super::texts;
use super::*;

const TEXT: &str = "Hello world, it's 1234 \u{e9}\u{1f600}\n\n  déjà   vu\t!";

fn files(vocab: &str) -> TokenizerFiles {
    TokenizerFiles { vocab: Some(vocab.to_owned()), merges: None }
}

fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The two files in `folder`, changed.
fn gpt2_files(
    folder: &Path,
    change: impl Fn(String, String) -> (String, String),
) -> TokenizerFiles {
    let (vocab, merges) = gpt2_vocab_and_merges().unwrap();
    let (vocab, merges) = change(vocab, merges);
    let [vocab_file, merge_file] = ["vocab.json", "merges.txt"].map(|name| folder.join(name));
    std::fs::write(&vocab_file, vocab).unwrap();
    std::fs::write(&merge_file, merges).unwrap();
    TokenizerFiles { vocab: vocab_file.to_str().map(str::to_owned), merges: Some(merge_file) }
}

/// What `tests/fixtures/make_neox_tokenizers.py` has recorded.
struct Recorded {
    texts: Vec<String>,
    json: Value,
}

impl Recorded {
    fn read() -> Self {
        let json: Value =
            serde_json::from_str(&fs::read_to_string(fixture("neox_tokenizers.json")).unwrap())
                .unwrap();
        let texts = serde_json::from_value(json["strings"].clone()).unwrap();
        Self { texts, json }
    }

    /// Asserts that `tokenizer` gives the ids that `library` gave under this name.
    fn compare(&self, tokenizer: &NeoxTokenizer, library: &str, name: &str) {
        let expected = &self.json[library][name];
        let number = |key: &str| expected[key].as_i64().unwrap();
        assert_eq!(i64::try_from(tokenizer.vocab_size()).unwrap(), number("vocab_size"), "{name}");
        let end = tokenizer.end_of_document().ok().map(i64::from);
        assert_eq!(end, Some(number("end")).filter(|&end| end >= 0), "{name}");
        let ids: Vec<Vec<u32>> = serde_json::from_value(expected["ids"].clone()).unwrap();
        assert!(ids.len() == self.texts.len() && ids.len() > 200, "{name}");
        for (text, ids) in self.texts.iter().zip(ids) {
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{name}: {text:?}");
        }
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(name)
}

/// The bytes of a model that the script has trained.
fn model(name: &str) -> Vec<u8> {
    fs::read(fixture("sentencepiece").join(format!("{name}.model"))).unwrap()
}

/// A tokenizer of the model of these bytes.
fn sentence_piece(model: &[u8]) -> Result<NeoxTokenizer> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.model");
    fs::write(&path, model).unwrap();
    TokenizerType::Spm.load(&files(path.to_str().unwrap()))
}

#[test]
fn models_of_sentencepiece_give_its_ids() {
    let recorded = Recorded::read();
    let names: Vec<_> =
        recorded.json["sentencepiece"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names.len(), 10);
    for name in names {
        let tokenizer = sentence_piece(&model(&name)).unwrap();
        recorded.compare(&tokenizer, "sentencepiece", &name);
    }
}

#[test]
fn a_model_without_an_end_of_text_says_so() {
    let tokenizer = sentence_piece(&model("char")).unwrap();
    assert_eq!(
        tokenizer.end_of_document().unwrap_err().to_string(),
        "--append-eod needs the token <|endoftext|>, which the vocabulary does not have; leave \
         --append-eod out, or add the token to the tokenizer"
    );
}

#[test]
fn what_is_no_model_of_sentencepiece_is_refused() {
    let refused = |bytes: &[u8]| {
        let error = sentence_piece(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        error.to_string()
    };
    let good = model("unigram_bytes");
    for bytes in [&b""[..], b"{\"model\": 1}", &good[..good.len() / 2], &[0xff; 64]] {
        let text = refused(bytes);
        assert!(text.contains("x.model: not a model of SentencePiece: "), "{text}");
        assert!(text.ends_with("; give the .model file that spm_train has written"), "{text}");
    }
}

/// Sums begin anew, and byte pairs are merged, in one text of 0.3 MB.
#[test]
fn long_texts_have_the_ids_of_sentencepiece() {
    let recorded = Recorded::read();
    let file = "../../data/c4-sample/en/c4-validation.00000-of-00001.json.gz";
    let mut texts = Vec::new();
    for file in input_files(fixture(file).to_str().unwrap()).unwrap() {
        let mut add = |document| {
            texts.push(texts::of(&document, &["text".to_owned()])?[0].clone().into_owned());
            Ok(())
        };
        documents::read(&file, Cut::Whole, &Arc::default(), &mut add).unwrap();
    }
    let text = texts.join("\n");
    for (name, expected) in recorded.json["sentencepiece"].as_object().unwrap() {
        let ids = sentence_piece(&model(name)).unwrap().encode(&text).unwrap();
        assert!(ids.len() > 40_000, "{name}: {}", ids.len());
        let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(expected["long"], sha256(ids), "{name}");
    }
}

#[test]
fn encodings_of_tiktoken_give_its_ids() {
    let recorded = Recorded::read();
    let load = |name: &str| TokenizerType::Tiktoken.load(&files(name)).unwrap();
    recorded.compare(&load("r50k_base"), "tiktoken", "r50k_base");
    for encoding in Encoding::all() {
        recorded.compare(&load(encoding.name()), "tiktoken", encoding.name());
    }
}

#[test]
fn vocabularies_of_tiktoken_are_those_that_openai_has_published() {
    let recorded = Recorded::read();
    for encoding in Encoding::all() {
        let mut digest = Sha256::new();
        // Beyond this there are special tokens alone, one of which has two names.
        for id in 0..u32::try_from(encoding.vocab_size.min(200_018)).unwrap() {
            if let Some(token) = encoding.token(id) {
                digest.update(u32::try_from(token.len()).unwrap().to_le_bytes());
                digest.update(token);
            }
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let name = encoding.name();
        assert_eq!(recorded.json["tiktoken"][name]["tokens"], digest, "{name}");
    }
}

#[test]
fn a_text_that_tiktoken_cannot_split_is_refused() {
    let tokenizer = TokenizerType::Tiktoken.load(&files("o200k_base")).unwrap();
    let error = tokenizer.encode(&" ".repeat(2_000_000)).unwrap_err().to_string();
    assert!(error.starts_with("o200k_base of tiktoken cannot split a text: "), "{error}");
    assert!(error.ends_with("; shorten its runs of blanks and newlines"), "{error}");
}

#[test]
fn the_files_of_gpt2_are_those_that_were_published() {
    let (vocab, merges) = gpt2_vocab_and_merges().unwrap();
    assert_eq!(sha256(&vocab), "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783");
    assert_eq!(sha256(&merges), "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5");
}

#[test]
fn every_way_to_gpt2_gives_its_ids() {
    let folder = tempfile::tempdir().unwrap();
    let two_files = gpt2_files(folder.path(), |vocab, merges| (vocab, merges));
    let expected = Tokenizer::load("gpt2").unwrap().encode(TEXT).unwrap();
    for (kind, files) in [
        (TokenizerType::HfGpt2, TokenizerFiles::default()),
        (TokenizerType::HfGpt2, files("gpt2")),
        (TokenizerType::Hf, files("gpt2")),
        (TokenizerType::Gpt2Bpe, two_files),
        (TokenizerType::Tiktoken, files("gpt2")),
        (TokenizerType::Tiktoken, files("r50k_base")),
    ] {
        let tokenizer = kind.load(&files).unwrap();
        assert_eq!(tokenizer.encode(TEXT).unwrap(), expected, "{kind:?}");
        assert_eq!(tokenizer.vocab_size(), 50_257);
        assert_eq!(tokenizer.end_of_document().unwrap(), 50_256);
        // What ends a document is a token in a text to some.
        let in_text = tokenizer.encode("a<|endoftext|>").unwrap();
        let is_token = in_text.contains(&50_256);
        let takes_tokens = matches!(kind, TokenizerType::HfGpt2 | TokenizerType::Hf);
        assert_eq!(is_token, takes_tokens, "{kind:?}: {in_text:?}");
    }
}

#[test]
fn bytes_are_their_own_ids() {
    let bytes = TokenizerType::CharLevel.load(&TokenizerFiles::default()).unwrap();
    assert_eq!(bytes.encode("a\u{e9}\u{1}").unwrap(), [97, 0xc3, 0xa9, 1]);
    assert_eq!((bytes.vocab_size(), bytes.end_of_document().unwrap()), (512, 0));
}

#[test]
fn what_is_missing_or_of_no_use_is_named() {
    let refused =
        |kind: TokenizerType, files: &TokenizerFiles| kind.load(files).unwrap_err().to_string();
    let none = TokenizerFiles::default();
    assert_eq!(
        refused(TokenizerType::Hf, &none),
        "HFTokenizer needs --vocab-file; give a tokenizer.json"
    );
    assert_eq!(
        refused(TokenizerType::Gpt2Bpe, &none),
        "GPT2BPETokenizer needs --vocab-file; give a vocab.json"
    );
    assert_eq!(
        refused(TokenizerType::Gpt2Bpe, &files("vocab.json")),
        "GPT2BPETokenizer needs --merge-file; give a merges.txt"
    );
    assert_eq!(
        refused(TokenizerType::CharLevel, &files("x")),
        "--vocab-file has no effect on CharLevelTokenizer; leave it out"
    );
    let merges = TokenizerFiles { merges: Some("merges.txt".into()), ..none.clone() };
    assert_eq!(
        refused(TokenizerType::HfGpt2, &merges),
        "--merge-file has no effect on HFGPT2Tokenizer; leave it out"
    );
    assert_eq!(
        refused(TokenizerType::Tiktoken, &none),
        "TiktokenTokenizer needs --vocab-file; give an encoding such as gpt2"
    );
    assert_eq!(
        refused(TokenizerType::Tiktoken, &files("cl100k")),
        "TiktokenTokenizer: tiktoken has no encoding \"cl100k\"; use one of gpt2, r50k_base, p50k_base, \
         p50k_edit, cl100k_base, o200k_base, o200k_harmony"
    );
    assert_eq!(
        refused(TokenizerType::Spm, &none),
        "SPMTokenizer needs --vocab-file; give a .model of SentencePiece"
    );
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let end = "give the two files that belong to a model of GPT-2";
    let refused = |change: fn(String, String) -> (String, String)| {
        let files = gpt2_files(folder.path(), change);
        TokenizerType::Gpt2Bpe.load(&files).unwrap_err().to_string()
    };
    let text = refused(|_, merges| ("[1]".into(), merges));
    assert!(
        text.starts_with(&format!("{}: not a vocabulary of tokens and ids: ", at("vocab.json"))),
        "{text}"
    );
    assert!(text.ends_with(end), "{text}");
    assert_eq!(
        refused(|vocab, merges| (vocab, merges.replace("\u{120} a\n", "\u{120}a\n"))),
        format!("{}, line 3: not a pair of tokens; {end}", at("merges.txt"))
    );
    let text = refused(|_, merges| (r#"{"a": 0}"#.into(), merges));
    let both = format!("{} and {}: not a usable tokenizer: ", at("vocab.json"), at("merges.txt"));
    assert!(text.starts_with(&both), "{text}");
}

#[test]
fn a_vocabulary_without_an_end_of_text_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let files = gpt2_files(folder.path(), |vocab, merges| {
        (vocab.replace("<|endoftext|>", "<|other|>"), merges)
    });
    let tokenizer = TokenizerType::Gpt2Bpe.load(&files).unwrap();
    assert_eq!(
        tokenizer.end_of_document().unwrap_err().to_string(),
        "--append-eod needs the token <|endoftext|>, which the vocabulary does not have; leave \
         --append-eod out, or add the token to the tokenizer"
    );
}
