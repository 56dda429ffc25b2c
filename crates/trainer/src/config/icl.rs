//! In-context tasks: the list `icl_tasks`, in a file of its own.

use std::path::Path;

use serde_json::Value;

use super::section::Section;
use super::{Address, schema, yaml};
use crate::error::{Error, Result};

/// Draws the examples of a task that names no seed, as in the reference.
const FEWSHOT_SEED: u64 = 1234;

/// What a line of a task asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IclTaskType {
    /// Which of some continuations follows a text: `{"query": .., "choices": [..], "gold": 0}`.
    MultipleChoice,
    /// How a text goes on, to the letter: `{"context": .., "continuation": ..}`.
    LanguageModeling,
    /// Which of some texts a continuation follows: `{"context_options": [..], "continuation": .., "gold": 0}`.
    Schema,
}

/// By the names that `icl_task_type` has for them.
const TASK_TYPES: &[(&str, IclTaskType)] = &[
    (IclTaskType::MultipleChoice.name(), IclTaskType::MultipleChoice),
    (IclTaskType::LanguageModeling.name(), IclTaskType::LanguageModeling),
    (IclTaskType::Schema.name(), IclTaskType::Schema),
];

impl IclTaskType {
    /// The name of its accuracy in the reference.
    pub fn metric(self) -> &'static str {
        match self {
            Self::MultipleChoice | Self::Schema => "InContextLearningMultipleChoiceAccuracy",
            Self::LanguageModeling => "InContextLearningLMAccuracy",
        }
    }

    /// The name that `icl_task_type` has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MultipleChoice => "multiple_choice",
            Self::LanguageModeling => "language_modeling",
            Self::Schema => "schema",
        }
    }
}

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct IclTask {
    /// Names it in its metrics.
    pub label: String,
    /// Its file of JSON lines: a path or an address.
    pub dataset_uri: Address,
    /// What its lines ask.
    pub icl_task_type: IclTaskType,
    /// How many solved examples come before a question; the task is evaluated once for each of these numbers.
    pub num_fewshot: Vec<usize>,
    /// Stands once before everything else.
    pub prompt_string: String,
    /// Stands between examples.
    pub example_delimiter: String,
    /// Stands between the text of an example and its continuation.
    pub continuation_delimiter: String,
    /// Stands before the text of every example: `"Question: "`.
    pub question_prelimiter: String,
    /// Whether each `category` of the lines is evaluated by itself.
    pub has_categories: bool,
    /// Draws the solved examples.
    pub fewshot_random_seed: u64,
    /// The longest sequence of tokens, where that is not the model's.
    pub max_seq_len: Option<usize>,
}

impl IclTask {
    /// The tasks of the YAML file at `path`, which may be an address.
    ///
    /// # Errors
    /// One sentence that names the file or key, what is wrong with it, and the remedy.
    pub fn load_all(path: &Path) -> Result<Vec<Self>> {
        Self::from_tree(&yaml::read(path)?)
    }

    /// The same from YAML text.
    ///
    /// # Errors
    /// As [`IclTask::load_all`].
    pub fn from_yaml_str(text: &str) -> Result<Vec<Self>> {
        Self::from_tree(&yaml::parse(text, "tasks")?)
    }

    fn from_tree(tree: &Value) -> Result<Vec<Self>> {
        let tree = yaml::interpolate(tree)?;
        schema::check_icl_tasks(&tree)?;
        let root = Section::root(&tree);
        let tasks: Vec<Self> =
            root.sections("icl_tasks")?.iter().map(read_task).collect::<Result<_>>()?;
        if tasks.is_empty() {
            let example = "icl_tasks: [{label: copa, dataset_uri: copa.jsonl, ..}]";
            return Err(root.missing("icl_tasks", example));
        }
        for (i, task) in tasks.iter().enumerate() {
            if let Some(first) = tasks[..i].iter().position(|other| other.label == task.label) {
                return Err(Error::Config(format!(
                    "`icl_tasks.{first}` and `icl_tasks.{i}` have the same label `{}`, which names their metrics; \
                     give them two",
                    task.label
                )));
            }
        }
        Ok(tasks)
    }
}

fn read_task(task: &Section<'_>) -> Result<IclTask> {
    let label = task.text("label")?.ok_or_else(|| task.missing("label", "label: copa"))?;
    let dataset_uri = task
        .text("dataset_uri")?
        .ok_or_else(|| task.missing("dataset_uri", "dataset_uri: tasks/copa.jsonl"))?;
    let icl_task_type = task
        .choice("icl_task_type", TASK_TYPES)?
        .ok_or_else(|| task.missing("icl_task_type", "icl_task_type: multiple_choice"))?;
    check_metrics(task, icl_task_type)?;
    let text = |key: &str, default: &str| -> Result<String> {
        Ok(task.text(key)?.unwrap_or_else(|| default.to_owned()))
    };
    Ok(IclTask {
        label,
        dataset_uri: dataset_uri.into(),
        icl_task_type,
        num_fewshot: task
            .wholes("num_fewshot")?
            .ok_or_else(|| task.missing("num_fewshot", "num_fewshot: [0, 5]"))?,
        prompt_string: text("prompt_string", "")?,
        example_delimiter: text("example_delimiter", "\n")?,
        continuation_delimiter: text("continuation_delimiter", " ")?,
        question_prelimiter: text("question_prelimiter", "")?,
        has_categories: task.flag("has_categories")?.unwrap_or(false),
        fewshot_random_seed: task.whole("fewshot_random_seed", 0)?.unwrap_or(FEWSHOT_SEED),
        max_seq_len: task.size("max_seq_len", 2)?,
    })
}

/// `metric_names` may say what is measured anyway.
fn check_metrics(task: &Section<'_>, icl_task_type: IclTaskType) -> Result<()> {
    let known = icl_task_type.metric();
    match task.texts("metric_names")?.unwrap_or_default().iter().find(|name| *name != known) {
        None => Ok(()),
        Some(other) => Err(Error::Config(format!(
            "`{}` asks for `{other}`, but of a {} task only {known} is measured; remove that name",
            task.path("metric_names"),
            icl_task_type.name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_the_reference_is_read_with_its_defaults() {
        let tasks = IclTask::from_yaml_str(
            "
variables: {data: ./local_data}
icl_tasks:
-
  label: jeopardy
  dataset_uri: ${variables.data}/jeopardy_all.jsonl
  num_fewshot: [0, 3]
  icl_task_type: language_modeling
  continuation_delimiter: \"\\nAnswer: \"
  has_categories: true
- {label: winograd, dataset_uri: 's3://bucket/winograd.jsonl', num_fewshot: 3, icl_task_type: schema,
   metric_names: [InContextLearningMultipleChoiceAccuracy], fewshot_random_seed: 7, question_prelimiter: 'Q: '}
",
        )
        .unwrap();
        let jeopardy = IclTask {
            label: "jeopardy".into(),
            dataset_uri: "./local_data/jeopardy_all.jsonl".to_owned().into(),
            icl_task_type: IclTaskType::LanguageModeling,
            num_fewshot: vec![0, 3],
            prompt_string: String::new(),
            example_delimiter: "\n".into(),
            continuation_delimiter: "\nAnswer: ".into(),
            question_prelimiter: String::new(),
            has_categories: true,
            fewshot_random_seed: 1234,
            max_seq_len: None,
        };
        let winograd = IclTask {
            label: "winograd".into(),
            dataset_uri: "s3://bucket/winograd.jsonl".to_owned().into(),
            icl_task_type: IclTaskType::Schema,
            num_fewshot: vec![3],
            continuation_delimiter: " ".into(),
            question_prelimiter: "Q: ".into(),
            has_categories: false,
            fewshot_random_seed: 7,
            ..jeopardy.clone()
        };
        assert_eq!(tasks, [jeopardy, winograd]);
    }

    #[test]
    fn mistakes_are_named() {
        let task = "label: a, dataset_uri: a.jsonl, num_fewshot: [0]";
        for (yaml, message) in [
            (
                "icl_task: []".to_owned(),
                "unknown key `icl_task`; did you mean `icl_tasks`?",
            ),
            (
                "variables: {}\nicl_tasks: []".to_owned(),
                "`icl_tasks` is missing; set it, for example `icl_tasks: [{label: copa, dataset_uri: copa.jsonl, ..}]`",
            ),
            (
                "icl_tasks: [3]".to_owned(),
                "`icl_tasks.0` is 3; it must be a section of keys",
            ),
            (
                format!("icl_tasks: [{{{task}}}]"),
                "`icl_tasks.0.icl_task_type` is missing; set it, for example `icl_task_type: multiple_choice`",
            ),
            (
                format!("icl_tasks: [{{{task}, icl_task_type: multiple_choices}}]"),
                "`icl_tasks.0.icl_task_type` is `multiple_choices`; it must be one of multiple_choice, \
                 language_modeling, schema; did you mean `multiple_choice`?",
            ),
            (
                format!("icl_tasks: [{{{task}, icl_task_type: schema, num_fewshots: 3}}]"),
                "unknown key `icl_tasks.0.num_fewshots`; did you mean `icl_tasks.0.num_fewshot`?",
            ),
            (
                format!("icl_tasks: [{{{task}, icl_task_type: schema, cot_delimiter: ' #### '}}]"),
                "`icl_tasks.0.cot_delimiter` is refused: tasks that generate text are not supported yet; remove the key",
            ),
            (
                format!(
                    "icl_tasks: [{{{task}, icl_task_type: schema, metric_names: [InContextLearningLMAccuracy]}}]"
                ),
                "`icl_tasks.0.metric_names` asks for `InContextLearningLMAccuracy`, but of a schema task only \
                 InContextLearningMultipleChoiceAccuracy is measured; remove that name",
            ),
            (
                "icl_tasks: [{label: a, dataset_uri: a.jsonl, num_fewshot: [-1], icl_task_type: schema}]".to_owned(),
                "`icl_tasks.0.num_fewshot` is [-1]; it must be whole numbers, for example [0, 5]",
            ),
            (
                format!("icl_tasks: [{{{task}, icl_task_type: schema}}, {{{task}, icl_task_type: schema}}]"),
                "`icl_tasks.0` and `icl_tasks.1` have the same label `a`, which names their metrics; give them two",
            ),
        ] {
            assert_eq!(IclTask::from_yaml_str(&yaml).unwrap_err().to_string(), message);
        }
    }
}
