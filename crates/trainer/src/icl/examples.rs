//! A task's file: each line of JSON to an [`Example`].

use std::path::Path;

use mds::storage::{Remote, RemoteOptions};
use serde_json::{Value, json};

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
    /// Where the model writes the answer: the right ones.
    pub(super) answers: Vec<String>,
    /// What stands before an answer, to show how it is found.
    pub(super) reasoning: String,
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
    let wrong = |line: usize, what: String| {
        Error::Data(format!("`{}` line {line} {what}", task.dataset_uri))
    };
    let mut rows = Vec::new();
    for (i, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let row: Value = serde_json::from_str(row).map_err(|e| {
            let (reason, column) = (e.to_string(), e.column());
            let reason = reason.rsplit_once(" at line").map_or(&*reason, |(reason, _)| reason);
            wrong(i + 1, format!("is not JSON: {reason} at column {column}; correct or remove it"))
        })?;
        rows.push((i + 1, row));
    }
    if rows.is_empty() {
        return Err(Error::Data(format!(
            "`{}` has not one line; name a file of JSON lines as dataset_uri",
            task.dataset_uri
        )));
    }
    // One line with a chain of thought makes it a file of such, as in the reference.
    let reasons = rows.iter().any(|(_, row)| row.get("chain_of_thought").is_some());
    let example = |(line, row): (usize, Value)| {
        let category = row.get("category").and_then(Value::as_str).map(str::to_owned);
        if task.has_categories && category.is_none() {
            let what = "has no `category`; give it one, or remove has_categories";
            return Err(wrong(line, what.into()));
        }
        let example = example(&row, task, reasons).map_err(|what| wrong(line, what))?;
        Ok(Example { line, category, ..example })
    };
    rows.into_iter().map(example).collect()
}

/// What a row asks, or what is wrong with it. `reasons`: an answer comes after a chain of thought.
fn example(row: &Value, task: &IclTask, reasons: bool) -> Result<Example, String> {
    let kind = task.icl_task_type;
    let of = |candidates, gold| Example {
        line: 0,
        category: None,
        candidates,
        gold,
        answers: Vec::new(),
        reasoning: String::new(),
    };
    match kind {
        IclTaskType::MultipleChoice => {
            let (query, choices) = (text(row, "query", kind)?, texts(row, "choices", kind)?);
            let gold = gold(row, "choices", choices.len(), kind)?;
            let candidate = |choice| Candidate { context: query.clone(), continuation: choice };
            Ok(of(choices.into_iter().map(candidate).collect(), gold))
        }
        IclTaskType::LanguageModeling => {
            let context = text(row, "context", kind)?;
            let continuation = text(row, "continuation", kind)?;
            Ok(of(vec![Candidate { context, continuation }], 0))
        }
        IclTaskType::Schema => {
            let (contexts, continuation) =
                (texts(row, "context_options", kind)?, text(row, "continuation", kind)?);
            let gold = gold(row, "context_options", contexts.len(), kind)?;
            let candidate = |context| Candidate { context, continuation: continuation.clone() };
            Ok(of(contexts.into_iter().map(candidate).collect(), gold))
        }
        IclTaskType::Generation | IclTaskType::QuestionAnswering => {
            let (context, answer) = (text(row, "context", kind)?, text(row, "answer", kind)?);
            let mut answers = vec![answer];
            if row.get("aliases").is_some_and(|aliases| *aliases != json!([])) {
                answers.extend(texts(row, "aliases", kind)?);
            }
            let thought = row.get("chain_of_thought").and_then(Value::as_str).unwrap_or_default();
            let delimiter = task.generation.iter().map(|generation| &*generation.cot_delimiter);
            let reasoning = match reasons {
                true => std::iter::once(thought.trim()).chain(delimiter).collect(),
                false => String::new(),
            };
            let continuation = format!("{reasoning}{}", answers[0]);
            Ok(Example { answers, reasoning, ..of(vec![Candidate { context, continuation }], 0) })
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
        IclTaskType::Generation | IclTaskType::QuestionAnswering => {
            r#"{"context": "..", "answer": "..", "aliases": [".."]}"#
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

    fn example(line: usize, candidates: Vec<Candidate>, gold: usize) -> Example {
        let (answers, reasoning) = (Vec::new(), String::new());
        Example { line, category: None, candidates, gold, answers, reasoning }
    }

    #[test]
    fn every_type_is_candidates_of_which_one_is_right() {
        let text = r#"{"query": " Who? ", "choices": ["me", " you"], "gold": 1, "id": 3}"#;
        let expected = example(1, vec![candidate("Who?", "me"), candidate("Who?", " you")], 1);
        assert_eq!(parsed(IclTaskType::MultipleChoice, text), [expected]);

        let text = "\n{\"context\": \"To be or not to\", \"continuation\": \"be \\n\", \"category\": \"plays\"}\n\n";
        let expected = Example {
            category: Some("plays".into()),
            ..example(2, vec![candidate("To be or not to", "be")], 0)
        };
        assert_eq!(parsed(IclTaskType::LanguageModeling, text), [expected]);

        let text = r#"{"context_options": ["Cats ", "Dogs"], "continuation": "bark.", "gold": 1}"#;
        let expected = example(1, vec![candidate("Cats ", "bark."), candidate("Dogs", "bark.")], 1);
        assert_eq!(parsed(IclTaskType::Schema, text), [expected]);

        let text = r#"{"context": "2 + 2 = ", "answer": " 4", "aliases": ["four", "IV"]}"#;
        let expected = Example {
            answers: vec!["4".into(), "four".into(), "IV".into()],
            ..example(1, vec![candidate("2 + 2 =", "4")], 0)
        };
        assert_eq!(parsed(IclTaskType::Generation, text), [expected]);
    }

    #[test]
    fn a_chain_of_thought_stands_before_the_answer_of_every_line() {
        let text = r#"{"context": "1 + 1", "answer": "2", "aliases": []}
                      {"context": "2 + 2", "answer": "4", "chain_of_thought": "Twice two. "}"#;
        let mut task = task(IclTaskType::QuestionAnswering);
        task.generation.as_mut().unwrap().cot_delimiter = " So: ".into();
        let continuations: Vec<_> = parse(text, &task)
            .unwrap()
            .into_iter()
            .map(|example| (example.solution().continuation.clone(), example.answers))
            .collect();
        let expected = [(" So: 2", "2"), ("Twice two. So: 4", "4")];
        let owned = |(text, answer): (&str, &str)| (text.to_owned(), vec![answer.to_owned()]);
        assert_eq!(continuations, expected.map(owned));
        // Without any there is nothing to divide.
        let without = r#"{"context": "1 + 1", "answer": "2"}"#;
        assert_eq!(parse(without, &task).unwrap()[0].solution().continuation, "2");
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
                IclTaskType::Generation,
                r#"{"context": "a", "answer": "b", "aliases": "c"}"#.to_owned(),
                "`t.jsonl` line 1 has no list of texts `aliases`; a line of a generation_task_with_answers task is \
                 {\"context\": \"..\", \"answer\": \"..\", \"aliases\": [\"..\"]}",
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
