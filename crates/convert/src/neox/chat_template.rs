//! Chats to text, by the template that belongs to a tokenizer.
//!
//! A chat template is a program in the language Jinja, in `chat_template.jinja` beside the `tokenizer.json` or under
//! `chat_template` in its `tokenizer_config.json`. It gets the messages of a chat and writes what the model is to read, with
//! its marks of turns. It runs as in transformers' `apply_chat_template` without tools and documents, but for `strftime_now`:
//! there is no such function here, so that a chat gives the same text on every day (templates ask whether it is defined). A
//! template is refused that has Python's formatting of texts with `%`. The marks of `generation` have no effect.

mod generation;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use mds::format::python::float_repr;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind as Kind};
use minijinja::{
    Environment, ErrorKind as JinjaKind, Output, State, Value as Variable, context,
    escape_formatter,
};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::Tokenizer;

const FILE: &str = "chat_template.jinja";
const KEY: &str = "chat_template";

/// What the template has among those of the environment.
const NAME: &str = "chat";

/// Entries of `tokenizer_config.json` that a template can write by their names.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The template of a tokenizer, and the tokens that it can write by name.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    tokens: BTreeMap<&'static str, String>,
}

impl ChatTemplate {
    /// The template of the tokenizer that was loaded from `path`, which may be a name on the hub.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it has none, [`ErrorKind::Corrupt`] if it cannot be run.
    pub(super) fn load(path: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let config: Value = tokenizer
            .config_json()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let beside = Path::new(path);
        let folder = if beside.is_dir() { Some(beside) } else { beside.parent() };
        let file = folder.map(|folder| folder.join(FILE)).filter(|file| file.is_file());
        let source = match file {
            Some(file) => {
                Some(std::fs::read_to_string(&file).map_err(|e| Error::io(e, "read", &file))?)
            }
            None => of_config(&config).map(str::to_owned),
        };
        let Some(source) = source else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the tokenizer {} has no chat template", mds::redacted(path)),
                format!(
                    "put it beside tokenizer.json as {FILE}, or into tokenizer_config.json as {KEY:?}"
                ),
            ));
        };
        let token = |name| Some((name, content(config.get(name)?)?.to_owned()));
        let tokens = SPECIAL_TOKENS.into_iter().filter_map(token).collect();
        Self::new(source, tokens).map_err(|e| {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the chat template of {} cannot be read: {}",
                    mds::redacted(path),
                    in_words(&e)
                ),
                "correct it, or use the tokenizer of another model",
            )
        })
    }

    fn new(
        source: String,
        tokens: BTreeMap<&'static str, String>,
    ) -> Result<Self, minijinja::Error> {
        // As transformers sets it up.
        let mut environment = Environment::new();
        environment
            .set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.add_function("raise_exception", raise_exception);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(as_python_prints);
        environment.add_test("iterable", |value: &Variable| {
            matches!(value.kind(), Kind::String | Kind::Seq | Kind::Map | Kind::Iterable)
        });
        environment.add_test("sequence", |value: &Variable| {
            matches!(value.kind(), Kind::String | Kind::Seq | Kind::Map)
        });
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, generation::as_with(&source))?;
        Ok(Self { environment, tokens })
    }

    /// The text of a chat; with `asks_for_reply` what begins the next turn of the model follows.
    ///
    /// # Errors
    /// The chat is not one for the template, or the template cannot be run.
    pub(super) fn render(
        &self,
        messages: &[Value],
        asks_for_reply: bool,
    ) -> Result<String, Refusal> {
        let chat = context! {
            messages => Variable::from(Serde(messages)),
            add_generation_prompt => asks_for_reply,
            tools => (),
            documents => (),
            ..Variable::from(Serde(&self.tokens))
        };
        let template = self.environment.get_template(NAME);
        // The library panics where a loop is left within a `with` of its own.
        let render = AssertUnwindSafe(|| template.and_then(|template| template.render(chat)));
        let rendered = catch_unwind(render).map_err(|_| {
            Refusal::Template(
                "minijinja cannot run it, perhaps for a break or continue within a with".to_owned(),
            )
        })?;
        rendered.map_err(|e| match e.source() {
            Some(cause) if cause.is::<Raised>() => Refusal::Chat(cause.to_string()),
            _ => Refusal::Template(in_words(&e)),
        })
    }
}

/// Why a chat has no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// What the template says against it.
    Chat(String),
    /// What is wrong with the template.
    Template(String),
}

/// The template of a `tokenizer_config.json`: a text, or one of several that have names.
fn of_config(config: &Value) -> Option<&str> {
    match config.get(KEY)? {
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default")?;
            default["template"].as_str()
        }
        template => template.as_str(),
    }
}

/// `"</s>"`, or that of `{"content": "</s>", ...}`.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// What a template says with `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Raised {}

fn raise_exception(message: String) -> Result<Variable, minijinja::Error> {
    Err(minijinja::Error::new(JinjaKind::InvalidOperation, "raised").with_source(Raised(message)))
}

/// Writes what `{{ value }}` stands for.
fn as_python_prints(
    output: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Variable,
) -> Result<(), minijinja::Error> {
    match value.kind() {
        Kind::None => Ok(output.write_str("None")?),
        Kind::Bool => Ok(output.write_str(if value.is_true() { "True" } else { "False" })?),
        Kind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => Ok(output.write_str(&float_repr(number))?),
            Err(_) => escape_formatter(output, state, value),
        },
        _ => escape_formatter(output, state, value),
    }
}

/// As Python's `json.dumps` with `ensure_ascii=False`.
fn to_json(value: Variable, options: Kwargs) -> Result<Variable, minijinja::Error> {
    let failed =
        |e| minijinja::Error::new(JinjaKind::BadSerialization, "cannot be JSON").with_source(e);
    let text = match options.get::<Option<usize>>("indent")? {
        None => written(&value, Spaced),
        Some(width) => {
            let indent = " ".repeat(width);
            written(&value, serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes()))
        }
    };
    // What is not ASCII is written as it is.
    if options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false) {
        return Err(minijinja::Error::new(
            JinjaKind::InvalidOperation,
            "tojson cannot ensure_ascii",
        ));
    }
    options.assert_all_used()?;
    Ok(Variable::from_safe_string(text.map_err(failed)?))
}

fn written(value: &Variable, formatter: impl Formatter) -> serde_json::Result<String> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, formatter))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Blanks behind commas and colons and numbers as Python writes them.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
    ) -> std::io::Result<()> {
        to.write_all(b": ")
    }

    fn write_f64<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        number: f64,
    ) -> std::io::Result<()> {
        to.write_all(float_repr(number).as_bytes())
    }
}

/// What went wrong, and in which line of the template.
fn in_words(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} in its line {line}"),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `tests/fixtures/make_chat_templates.py` had transformers make.
    const EXPECTED: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/chat_templates.json"
    ));

    fn template(source: &str) -> Result<ChatTemplate, String> {
        let tokens = [("bos_token", "<s>".to_owned()), ("eos_token", "</s>".to_owned())];
        ChatTemplate::new(source.to_owned(), tokens.into()).map_err(|e| in_words(&e))
    }

    #[test]
    fn chats_are_written_as_transformers_writes_them() {
        let expected: Value = serde_json::from_str(EXPECTED).unwrap();
        let cases = expected["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 56);
        for case in cases {
            let [source, chat] = ["template", "chat"].map(|kind| {
                let name = case[kind].as_str().unwrap();
                &expected[format!("{kind}s")][name]
            });
            let template = template(source.as_str().unwrap()).unwrap();
            let asks_for_reply = case["add_generation_prompt"] == true;
            match template.render(chat.as_array().unwrap(), asks_for_reply) {
                Ok(text) => assert_eq!(Value::from(text), case["text"], "{case}"),
                Err(Refusal::Chat(words)) => {
                    assert_eq!(Value::from(words), case["refused"], "{case}")
                }
                Err(refusal) => panic!("{refusal:?}: {case}"),
            }
        }
    }

    #[test]
    fn a_template_that_cannot_be_run_says_where() {
        assert_eq!(
            template("{% for message in messages %}\n{{ message.content }").map(drop),
            Err("unexpected `}`, expected end of variable block in its line 2".to_owned())
        );
        let unknown = template("a\n{{ 'b' | nothing }}").unwrap();
        assert_eq!(
            unknown.render(&[], false),
            Err(Refusal::Template("filter nothing is unknown in its line 2".to_owned()))
        );
    }

    #[test]
    fn indented_json_is_that_of_python() {
        let template = template("{{ [{'a': 1, 'b': []}] | tojson(indent=2) }}").unwrap();
        let text = "[\n  {\n    \"a\": 1,\n    \"b\": []\n  }\n]";
        assert_eq!(template.render(&[], false), Ok(text.to_owned()));
    }

    #[test]
    fn the_template_of_a_tokenizer_is_in_its_config_or_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let gpt2 = Tokenizer::load("gpt2").unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        put("tokenizer.json", gpt2.json());
        let path = folder.path().to_str().unwrap();
        let rendered = || {
            let tokenizer = Tokenizer::load(path).unwrap();
            let template = ChatTemplate::load(path, &tokenizer).map_err(|e| e.to_string())?;
            template.render(&[], false).map_err(|refusal| format!("{refusal:?}"))
        };
        assert_eq!(
            rendered(),
            Err(format!(
                "the tokenizer {path} has no chat template; put it beside tokenizer.json as chat_template.jinja, or \
                 into tokenizer_config.json as \"chat_template\""
            ))
        );
        put(
            "tokenizer_config.json",
            r#"{"chat_template": "one {{ eos_token }}", "eos_token": {"content": "<end>"}}"#,
        );
        assert_eq!(rendered().as_deref(), Ok("one <end>"));
        let named = r#"{"chat_template": [{"name": "tools", "template": "x"}, {"name": "default", "template": "two"}]}"#;
        put("tokenizer_config.json", named);
        assert_eq!(rendered().as_deref(), Ok("two"));
        put("special_tokens_map.json", r#"{"bos_token": "<begin>", "eos_token": "<other>"}"#);
        let both = r#"{"chat_template": "{{ bos_token }} {{ eos_token }}", "eos_token": "<end>"}"#;
        put("tokenizer_config.json", both);
        assert_eq!(rendered().as_deref(), Ok("<begin> <end>"));
        put("chat_template.jinja", "three");
        assert_eq!(rendered().as_deref(), Ok("three"));
        put("chat_template.jinja", "{% if %}");
        let refused = rendered().unwrap_err();
        assert!(
            refused.starts_with(&format!("the chat template of {path} cannot be read: ")),
            "{refused}"
        );
        assert!(
            refused.ends_with(" in its line 1; correct it, or use the tokenizer of another model"),
            "{refused}"
        );
    }
}
