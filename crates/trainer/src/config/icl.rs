//! In-context tasks: the list `icl_tasks`, in a recipe or in a file of its own.

use std::path::Path;

use serde::Serialize;
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
    /// What the answer is, in the model's own words: `{"context": .., "answer": .., "aliases": [..]}`.
    Generation,
    /// The same under its older name, which has another metric.
    QuestionAnswering,
}

/// By the names that `icl_task_type` has for them.
const TASK_TYPES: &[(&str, IclTaskType)] = &[
    (IclTaskType::MultipleChoice.name(), IclTaskType::MultipleChoice),
    (IclTaskType::LanguageModeling.name(), IclTaskType::LanguageModeling),
    (IclTaskType::Schema.name(), IclTaskType::Schema),
    (IclTaskType::Generation.name(), IclTaskType::Generation),
    (IclTaskType::QuestionAnswering.name(), IclTaskType::QuestionAnswering),
];

impl IclTaskType {
    /// The name of its accuracy in the reference.
    pub fn metric(self) -> &'static str {
        match self {
            Self::MultipleChoice | Self::Schema => "InContextLearningMultipleChoiceAccuracy",
            Self::LanguageModeling => "InContextLearningLMAccuracy",
            Self::Generation => "InContextLearningGenerationExactMatchAccuracy",
            Self::QuestionAnswering => "InContextLearningQAAccuracy",
        }
    }

    /// Whether the model writes its answer, rather than finding one more or less likely.
    pub fn generates(self) -> bool {
        matches!(self, Self::Generation | Self::QuestionAnswering)
    }

    /// The name that `icl_task_type` has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MultipleChoice => "multiple_choice",
            Self::LanguageModeling => "language_modeling",
            Self::Schema => "schema",
            Self::Generation => "generation_task_with_answers",
            Self::QuestionAnswering => "question_answering",
        }
    }
}

impl Serialize for IclTaskType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seq_len: Option<usize>,
    /// What a task has whose answers are written.
    #[serde(flatten)]
    pub generation: Option<IclGeneration>,
}

/// How the answers that a model writes are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IclGeneration {
    /// Stands between the `chain_of_thought` of an example and its answer; what the model writes before it does not count.
    pub cot_delimiter: String,
    /// The answer ends before any of these, to the letter.
    pub early_stopping_criteria: Vec<String>,
    /// Compare without regard to case, punctuation, articles and white space.
    pub do_normalization: bool,
}

impl IclTask {
    /// The tasks of the YAML file at `path`, which may be an address.
    ///
    /// # Errors
    /// One sentence that names the file or key, what is wrong with it, and the remedy.
    pub fn load_all(path: &Path) -> Result<Vec<Self>> {
        Self::from_tree(&yaml::read(path, yaml::TASKS)?)
    }

    /// The same from YAML text.
    ///
    /// # Errors
    /// As [`IclTask::load_all`].
    pub fn from_yaml_str(text: &str) -> Result<Vec<Self>> {
        Self::from_tree(&yaml::parse(text, "tasks", yaml::TASKS)?)
    }

    fn from_tree(tree: &Value) -> Result<Vec<Self>> {
        let tree = yaml::interpolate(tree)?;
        schema::check_icl_tasks(&tree)?;
        let root = Section::root(&tree);
        root.expect("icl_tasks", "a list of tasks", |value| value.is_array() || value.is_object())?;
        let tasks = read_list(&root)?;
        if tasks.is_empty() {
            let example = "icl_tasks: [{label: copa, dataset_uri: copa.jsonl, ..}]";
            return Err(root.missing("icl_tasks", example));
        }
        Ok(tasks)
    }
}

/// The tasks of a recipe: a list, or the path of a file with one, which newer recipes name in `icl_tasks_str`.
pub(super) fn read_icl_tasks(root: &Section<'_>) -> Result<Vec<IclTask>> {
    let path = root.text("icl_tasks_str")?;
    root.expect("icl_tasks", "a list of tasks, or the path of a YAML file with one", |value| {
        value.is_array() || value.is_object() || value.is_string()
    })?;
    match (root.text("icl_tasks"), path) {
        (Ok(None), Some(path)) | (Ok(Some(path)), None) => IclTask::load_all(Path::new(&path)),
        (_, Some(_)) => Err(Error::Config(
            "`icl_tasks` and `icl_tasks_str` are both given; keep one of the two".into(),
        )),
        // Absent, or no text: a list.
        _ => read_list(root),
    }
}

fn read_list(root: &Section<'_>) -> Result<Vec<IclTask>> {
    let tasks: Vec<IclTask> =
        root.sections("icl_tasks")?.iter().map(read_task).collect::<Result<_>>()?;
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
        num_fewshot: read_num_fewshot(task)?,
        prompt_string: text("prompt_string", "")?,
        example_delimiter: text("example_delimiter", "\n")?,
        continuation_delimiter: text("continuation_delimiter", " ")?,
        question_prelimiter: text("question_prelimiter", "")?,
        has_categories: task.flag("has_categories")?.unwrap_or(false),
        fewshot_random_seed: task.whole("fewshot_random_seed", 0)?.unwrap_or(FEWSHOT_SEED),
        max_seq_len: task.size("max_seq_len", 2)?,
        generation: read_generation(task, icl_task_type)?,
    })
}

/// Each number is evaluated once, under a name of its own.
fn read_num_fewshot(task: &Section<'_>) -> Result<Vec<usize>> {
    let numbers = task
        .wholes("num_fewshot")?
        .ok_or_else(|| task.missing("num_fewshot", "num_fewshot: [0, 5]"))?;
    match (1..numbers.len()).find(|&i| numbers[..i].contains(&numbers[i])) {
        None => Ok(numbers),
        Some(i) => Err(Error::Config(format!(
            "`{}` has {} twice, which would give two metrics one name; remove one of them",
            task.path("num_fewshot"),
            numbers[i]
        ))),
    }
}

/// What only a task has whose answers are written.
fn read_generation(
    task: &Section<'_>,
    icl_task_type: IclTaskType,
) -> Result<Option<IclGeneration>> {
    if !icl_task_type.generates() {
        let keys = ["cot_delimiter", "early_stopping_criteria", "do_normalization"];
        return match keys.into_iter().find(|key| task.has(key)) {
            None => Ok(None),
            Some(key) => Err(Error::Config(format!(
                "`{}` is given, but the model writes nothing in a {} task; remove the key",
                task.path(key),
                icl_task_type.name()
            ))),
        };
    }
    let stops = task.texts("early_stopping_criteria")?.unwrap_or_default();
    if stops.iter().any(String::is_empty) {
        return Err(Error::Config(format!(
            "`{}` has an empty text, before which every answer would end; remove it",
            task.path("early_stopping_criteria")
        )));
    }
    Ok(Some(IclGeneration {
        cot_delimiter: task.text("cot_delimiter")?.unwrap_or_default(),
        early_stopping_criteria: stops,
        do_normalization: task.flag("do_normalization")?.unwrap_or(true),
    }))
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
- {label: gsm8k, dataset_uri: gsm8k.jsonl, num_fewshot: 3, icl_task_type: generation_task_with_answers,
   cot_delimiter: 'The answer is ', early_stopping_criteria: [\"\\n\\n\"], do_normalization: false}
- {label: trivia, dataset_uri: trivia.jsonl, num_fewshot: 3, icl_task_type: question_answering}
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
            generation: None,
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
        let gsm8k = IclTask {
            label: "gsm8k".into(),
            dataset_uri: "gsm8k.jsonl".to_owned().into(),
            icl_task_type: IclTaskType::Generation,
            question_prelimiter: String::new(),
            fewshot_random_seed: 1234,
            generation: Some(IclGeneration {
                cot_delimiter: "The answer is ".into(),
                early_stopping_criteria: vec!["\n\n".into()],
                do_normalization: false,
            }),
            ..winograd.clone()
        };
        let trivia = IclTask {
            label: "trivia".into(),
            dataset_uri: "trivia.jsonl".to_owned().into(),
            icl_task_type: IclTaskType::QuestionAnswering,
            generation: Some(IclGeneration {
                cot_delimiter: String::new(),
                early_stopping_criteria: Vec::new(),
                do_normalization: true,
            }),
            ..gsm8k.clone()
        };
        assert_eq!(tasks, [jeopardy, winograd, gsm8k, trivia]);
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
            ("icl_tasks: tasks.yaml".to_owned(), "`icl_tasks` is \"tasks.yaml\"; it must be a list of tasks"),
            (
                "icl_tasks: [{label: a, dataset_uri: a.jsonl, num_fewshot: [0, 5, 0], icl_task_type: schema}]".to_owned(),
                "`icl_tasks.0.num_fewshot` has 0 twice, which would give two metrics one name; remove one of them",
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
                 language_modeling, schema, generation_task_with_answers, question_answering; did you mean `multiple_choice`?",
            ),
            (
                format!("icl_tasks: [{{{task}, icl_task_type: schema, num_fewshots: 3}}]"),
                "unknown key `icl_tasks.0.num_fewshots`; did you mean `icl_tasks.0.num_fewshot`?",
            ),
            (
                format!("icl_tasks: [{{{task}, icl_task_type: schema, cot_delimiter: ' #### '}}]"),
                "`icl_tasks.0.cot_delimiter` is given, but the model writes nothing in a schema task; remove the key",
            ),
            (
                format!(
                    "icl_tasks: [{{{task}, icl_task_type: question_answering, early_stopping_criteria: ['']}}]"
                ),
                "`icl_tasks.0.early_stopping_criteria` has an empty text, before which every answer would end; remove it",
            ),
            (
                format!("icl_tasks: [{{{task}, icl_task_type: schema, pass_at_k: 1}}]"),
                "`icl_tasks.0.pass_at_k` is refused: programs that a model writes are not run; remove the key",
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
