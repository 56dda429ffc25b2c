//! A task's file: each line of JSON to an [`Example`].

use std::path::Path;

use mds::storage::{Remote, RemoteOptions};
use serde_json::Value;

use crate::config::{Address, IclTask, IclTaskType};
use crate::error::{Error, Result};

/// More bytes than the file of any task has.
const LARGEST: u64 = 1 << 30;

/// A text and how it may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) context: String,
    pub(super) continuation: String,
}

/// One line of a task, whatever its type: candidates, of which one is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Example {
    /// Counted from 1, as editors do.
    pub(super) line: usize,
    pub(super) category: Option<String>,
    /// One alone where there is nothing to choose from.
    pub(super) candidates: Vec<Candidate>,
    pub(super) gold: usize,
}

impl Example {
    /// The right one.
    pub(super) fn solution(&self) -> &Candidate {
        &self.candidates[self.gold]
    }
}

/// The examples of `task`, in the order of its file.
///
/// # Errors
/// When the file cannot be read, holds nothing, or a line is not what the task's type needs.
pub(super) fn load(task: &IclTask) -> Result<Vec<Example>> {
    parse(&read(&task.dataset_uri)?, task)
}

fn read(uri: &Address) -> Result<String> {
    let bytes = if mds::storage::is_address(uri) {
        let (folder, name) = mds::storage::split(uri)?;
        Remote::open(&folder, RemoteOptions::default())?.get(&name, LARGEST)?
    } else {
        let path = Path::new(&**uri);
        std::fs::read(path).map_err(Error::io("read", path))?
    };
    String::from_utf8(bytes).map_err(|e| {
        let lines = e.as_bytes()[..e.utf8_error().valid_up_to()].split(|&b| b == b'\n').count();
        Error::Data(format!("`{uri}` line {lines} is not UTF-8; save the file as UTF-8"))
    })
}

fn parse(text: &str, task: &IclTask) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    for (i, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let wrong =
            |what: String| Error::Data(format!("`{}` line {} {what}", task.dataset_uri, i + 1));
        let row: Value = serde_json::from_str(row).map_err(|e| {
            let (reason, column) = (e.to_string(), e.column());
            let reason = reason.rsplit_once(" at line").map_or(&*reason, |(reason, _)| reason);
            wrong(format!("is not JSON: {reason} at column {column}; correct or remove it"))
        })?;
        let (candidates, gold) = candidates(&row, task.icl_task_type).map_err(wrong)?;
        let category = row.get("category").and_then(Value::as_str).map(str::to_owned);
        if task.has_categories && category.is_none() {
            return Err(wrong("has no `category`; give it one, or remove has_categories".into()));
        }
        examples.push(Example { line: i + 1, category, candidates, gold });
    }
    if examples.is_empty() {
        return Err(Error::Data(format!(
            "`{}` has not one line; name a file of JSON lines as dataset_uri",
            task.dataset_uri
        )));
    }
    Ok(examples)
}

/// The candidates of a row and which is right, or what is wrong with the row.
fn candidates(row: &Value, kind: IclTaskType) -> Result<(Vec<Candidate>, usize), String> {
    match kind {
        IclTaskType::MultipleChoice => {
            let (query, choices) = (text(row, "query", kind)?, texts(row, "choices", kind)?);
            let gold = gold(row, "choices", choices.len(), kind)?;
            let candidate = |choice| Candidate { context: query.clone(), continuation: choice };
            Ok((choices.into_iter().map(candidate).collect(), gold))
        }
        IclTaskType::LanguageModeling => {
            let context = text(row, "context", kind)?;
            Ok((vec![Candidate { context, continuation: text(row, "continuation", kind)? }], 0))
        }
        IclTaskType::Schema => {
            let (contexts, continuation) =
                (texts(row, "context_options", kind)?, text(row, "continuation", kind)?);
            let gold = gold(row, "context_options", contexts.len(), kind)?;
            let candidate = |context| Candidate { context, continuation: continuation.clone() };
            Ok((contexts.into_iter().map(candidate).collect(), gold))
        }
    }
}

/// A text without the white space around it. The reference leaves that of lists as it is.
fn text(row: &Value, key: &str, kind: IclTaskType) -> Result<String, String> {
    let text = row.get(key).and_then(Value::as_str);
    text.map(|text| text.trim().to_owned()).ok_or_else(|| lacks(key, "text", kind))
}

fn texts(row: &Value, key: &str, kind: IclTaskType) -> Result<Vec<String>, String> {
    let texts = row.get(key).and_then(Value::as_array);
    let texts = texts.and_then(|texts| {
        texts.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    texts.filter(|texts| !texts.is_empty()).ok_or_else(|| lacks(key, "list of texts", kind))
}

fn gold(row: &Value, of: &str, options: usize, kind: IclTaskType) -> Result<usize, String> {
    let gold = row.get("gold").and_then(Value::as_u64);
    let gold = gold.ok_or_else(|| lacks("gold", "number", kind))?;
    usize::try_from(gold)
        .ok()
        .filter(|gold| *gold < options)
        .ok_or_else(|| format!("has `gold` {gold}, but {options} `{of}`; the first is number 0"))
}

fn lacks(key: &str, what: &str, kind: IclTaskType) -> String {
    let row = match kind {
        IclTaskType::MultipleChoice => r#"{"query": "..", "choices": ["..", ".."], "gold": 0}"#,
        IclTaskType::LanguageModeling => r#"{"context": "..", "continuation": ".."}"#,
        IclTaskType::Schema => {
            r#"{"context_options": ["..", ".."], "continuation": "..", "gold": 0}"#
        }
    };
    format!("has no {what} `{key}`; a line of a {} task is {row}", kind.name())
}

#[cfg(test)]
mod tests {
    use super::super::tests::task;
    use super::*;

    fn parsed(kind: IclTaskType, text: &str) -> Vec<Example> {
        parse(text, &task(kind)).unwrap()
    }

    fn candidate(context: &str, continuation: &str) -> Candidate {
        Candidate { context: context.into(), continuation: continuation.into() }
    }

    #[test]
    fn every_type_is_candidates_of_which_one_is_right() {
        let text = r#"{"query": " Who? ", "choices": ["me", " you"], "gold": 1, "id": 3}"#;
        let expected = Example {
            line: 1,
            category: None,
            candidates: vec![candidate("Who?", "me"), candidate("Who?", " you")],
            gold: 1,
        };
        assert_eq!(parsed(IclTaskType::MultipleChoice, text), [expected]);

        let text = "\n{\"context\": \"To be or not to\", \"continuation\": \"be \\n\", \"category\": \"plays\"}\n\n";
        let expected = Example {
            line: 2,
            category: Some("plays".into()),
            candidates: vec![candidate("To be or not to", "be")],
            gold: 0,
        };
        assert_eq!(parsed(IclTaskType::LanguageModeling, text), [expected]);

        let text = r#"{"context_options": ["Cats ", "Dogs"], "continuation": "bark.", "gold": 1}"#;
        let expected = Example {
            line: 1,
            category: None,
            candidates: vec![candidate("Cats ", "bark."), candidate("Dogs", "bark.")],
            gold: 1,
        };
        assert_eq!(parsed(IclTaskType::Schema, text), [expected]);
    }

    #[test]
    fn mistakes_are_named_with_file_and_line() {
        use IclTaskType::{LanguageModeling, MultipleChoice, Schema};
        let good = r#"{"query": "Who?", "choices": ["me", "you"], "gold": 1}"#;
        for (kind, text, message) in [
            (
                MultipleChoice,
                format!("{good}\n\n{{\"query\": \"Who?"),
                "`t.jsonl` line 3 is not JSON: EOF while parsing a string at column 15; correct or remove it",
            ),
            (
                MultipleChoice,
                format!("{good}\n[1]"),
                "`t.jsonl` line 2 has no text `query`; a line of a multiple_choice task is {\"query\": \"..\", \
                 \"choices\": [\"..\", \"..\"], \"gold\": 0}",
            ),
            (
                MultipleChoice,
                r#"{"query": "", "choices": [], "gold": 0}"#.to_owned(),
                "`t.jsonl` line 1 has no list of texts `choices`; a line of a multiple_choice task is {\"query\": \"..\", \
                 \"choices\": [\"..\", \"..\"], \"gold\": 0}",
            ),
            (
                MultipleChoice,
                good.replace('1', "2"),
                "`t.jsonl` line 1 has `gold` 2, but 2 `choices`; the first is number 0",
            ),
            (
                LanguageModeling,
                r#"{"context": "To be", "continuation": 3}"#.to_owned(),
                "`t.jsonl` line 1 has no text `continuation`; a line of a language_modeling task is {\"context\": \"..\", \
                 \"continuation\": \"..\"}",
            ),
            (
                Schema,
                r#"{"context_options": ["a", "b"], "continuation": "c", "gold": "0"}"#.to_owned(),
                "`t.jsonl` line 1 has no number `gold`; a line of a schema task is {\"context_options\": [\"..\", \"..\"], \
                 \"continuation\": \"..\", \"gold\": 0}",
            ),
            (
                Schema,
                "\n".to_owned(),
                "`t.jsonl` has not one line; name a file of JSON lines as dataset_uri",
            ),
        ] {
            assert_eq!(parse(&text, &task(kind)).unwrap_err().to_string(), message);
        }
        let with_categories = IclTask { has_categories: true, ..task(MultipleChoice) };
        assert_eq!(
            parse(good, &with_categories).unwrap_err().to_string(),
            "`t.jsonl` line 1 has no `category`; give it one, or remove has_categories"
        );
    }
}
