//! In-context tasks: questions that a model answers without having been trained for them.
//!
//! A model answers by how likely it finds the candidates. Of a `multiple_choice` question and of a `schema` it takes the
//! one whose continuation has the highest mean log-probability per token (Brown et al. 2020, section 2.4; schemas:
//! Trinh and Le 2018); a `language_modeling` continuation is right if each token is the likeliest one after those before.
//! In a `generation_task_with_answers` it writes the answer itself, token by token the likeliest.
//! Before the question there may be solved examples of the same task, "shots".
//!
//! * `examples.rs` a task's file to candidates, the same for all types
//! * `prompt.rs` draws solved examples and makes the text and the tokens of a question
//! * `score.rs` what the model makes of a continuation
//! * `writing.rs` what it writes itself, and whether that is right
//!
//! [`Tasks`] are evaluated by the program `evaluate`, and during a run at its evaluations. Files, options and names of
//! metrics are those of llm-foundry; the list of tasks is read by [`config`](crate::config::IclTask). Solved examples are drawn by a generator of our own: the same in every run, but not
//! those that the reference draws.

mod examples;
mod prompt;
mod score;
mod writing;

use std::collections::BTreeMap;

use burn::module::Module;
use convert::tokenizer::Tokenizer;
use serde::Serialize;

use crate::config::{Config, IclTask, IclTaskType, ModelConfig};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::model::Gpt;
use examples::Example;
use prompt::{Prompts, Sequence};
use score::Score;
use writing::write;

/// Rows are sorted by length among those of so many batches.
const BATCHES_SORTED: usize = 8;

/// How tasks are evaluated.
#[derive(Clone, Copy, Debug)]
pub struct IclOptions {
    /// Rows that are computed together.
    pub rows: usize,
    /// The longest sequence of tokens, where a task does not say.
    pub max_seq_len: usize,
    /// Only the first questions of each task, or of each category.
    pub limit: IclLimit,
}

/// How many questions of each task, or of each category, are asked: the first of its file.
#[derive(Clone, Copy, Debug)]
pub enum IclLimit {
    /// All.
    None,
    /// So many.
    Questions(usize),
    /// As many as fill so many batches, in which each candidate takes a row; at least one for each.
    Batches(u64),
}

impl IclLimit {
    fn questions(self, examples: &[Example], rows: usize) -> usize {
        let limit = match self {
            Self::None => return examples.len(),
            Self::Questions(limit) => limit,
            Self::Batches(batches) => {
                let candidates = examples.first().map_or(1, |example| example.candidates.len());
                let batches = usize::try_from(batches).unwrap_or(usize::MAX);
                batches.saturating_mul((rows / candidates).max(1))
            }
        };
        limit.min(examples.len())
    }
}

/// What became of one task with one number of solved examples, or of one category of it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskResult {
    /// The label of the task.
    pub task: String,
    /// Solved examples before each question, as many as there are.
    pub shots: usize,
    /// Which of its categories, where it has some.
    pub category: Option<String>,
    /// What its accuracy is called.
    pub metric: &'static str,
    /// One for each question, in the order of the file.
    pub answers: Vec<Answer>,
}

/// What became of one question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Its line in the task's file, from 1.
    pub line: usize,
    /// The lines of the solved examples before it.
    pub examples: Vec<usize>,
    /// The mean log-probability per token of each candidate's continuation, in nats; none where the model writes the answer.
    pub scores: Vec<f64>,
    /// The candidate that is right.
    pub gold: usize,
    /// What the model wrote, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// Whether the model found it.
    pub correct: bool,
}

impl TaskResult {
    /// `TASK/3-shot`, or `TASK/3-shot/CATEGORY`.
    pub fn label(&self) -> String {
        label(&self.task, self.shots, self.category.as_deref())
    }

    /// The name of its accuracy in the reference: `metrics/TASK/3-shot/InContextLearningLMAccuracy`.
    pub fn name(&self) -> String {
        format!("metrics/{}/{}", self.label(), self.metric)
    }

    /// The share of questions that were answered right.
    pub fn accuracy(&self) -> f64 {
        let correct = self.answers.iter().filter(|answer| answer.correct).count();
        correct as f64 / self.answers.len() as f64
    }
}

fn label(task: &str, shots: usize, category: Option<&str>) -> String {
    match category {
        Some(category) => format!("{task}/{shots}-shot/{category}"),
        None => format!("{task}/{shots}-shot"),
    }
}

/// The accuracies of all results by name. After the categories of a task comes their mean, by the name of the task; as in
/// the reference's table each category weighs the same, however many questions it has.
pub fn accuracies(results: &[TaskResult]) -> Vec<(String, f64)> {
    let mut named = Vec::new();
    for group in results.chunk_by(|a, b| (&a.task, a.shots) == (&b.task, b.shots)) {
        named.extend(group.iter().map(|result| (result.name(), result.accuracy())));
        if group[0].category.is_some() {
            let mean = group.iter().map(TaskResult::accuracy).sum::<f64>() / group.len() as f64;
            let whole = TaskResult { category: None, answers: Vec::new(), ..group[0].clone() };
            named.push((whole.name(), mean));
        }
    }
    named
}

/// How far an evaluation has come.
#[derive(Clone, Copy, Debug)]
pub struct IclProgress<'a> {
    /// [`TaskResult::label`].
    pub label: &'a str,
    /// Questions that were answered.
    pub done: usize,
    /// Questions in all.
    pub total: usize,
}

/// Tasks whose files have been read, and whose questions a model can be asked.
#[derive(Debug)]
pub struct Tasks {
    tasks: Vec<(IclTask, Groups)>,
    tokenizer: Tokenizer,
    options: IclOptions,
}

/// The examples of each category, in the order of their names; all together where the task has none.
type Groups = BTreeMap<Option<String>, Vec<Example>>;

impl Tasks {
    /// Reads the files of `tasks`, and makes the prompts once, so that mistakes show at once.
    ///
    /// # Errors
    /// When a file cannot be read or a line of it is wrong, a question is longer than `model` can read, or the tokenizer
    /// is not the model's.
    pub fn open(
        tasks: &[IclTask],
        model: &ModelConfig,
        tokenizer: &Tokenizer,
        options: IclOptions,
    ) -> Result<Self> {
        if !tasks.is_empty() {
            check_vocabulary(model, tokenizer)?;
        }
        for task in tasks {
            check_length(model, task.max_seq_len.unwrap_or(options.max_seq_len))?;
        }
        let read = |task: &IclTask| Ok((task.clone(), by_category(task, examples::load(task)?)));
        let tasks = tasks.iter().map(read).collect::<Result<_>>()?;
        let opened = Self { tasks, tokenizer: tokenizer.clone(), options };
        for (task, examples) in opened.groups() {
            let shots = task.num_fewshot.iter().min().copied().unwrap_or(0);
            opened.prompts(task, examples, shots)?.check()?;
        }
        Ok(opened)
    }

    /// The tasks of a run, which are evaluated with its splits.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn of_run(config: &Config, tokenizer: &Tokenizer) -> Result<Self> {
        let batches = config.icl_subset_num_batches.or(config.eval_subset_num_batches);
        let options = IclOptions {
            rows: config.device_eval_batch_size,
            max_seq_len: config.icl_seq_len.unwrap_or(config.max_seq_len),
            limit: batches.map_or(IclLimit::None, IclLimit::Batches),
        };
        Self::open(&config.icl_tasks, &config.model, tokenizer, options)
    }

    /// What is to be said of them before they are evaluated: which have fewer solved examples than were asked for. There
    /// are then as many as there are, as in the reference.
    pub fn notes(&self) -> Vec<String> {
        let too_few = |(task, examples): (&IclTask, &[Example])| {
            let most = task.num_fewshot.iter().max().copied()?;
            let there = examples.len() - 1;
            let category = examples[0].category.as_ref().filter(|_| task.has_categories);
            let of =
                category.map_or(String::new(), |category| format!(" of category `{category}`"));
            (most > there).then(|| {
                format!(
                    "`num_fewshot` of the task `{}` asks for {most} solved examples, but beside each question \
                     `{}` has {there} line(s){of}, so there are no more; its metrics are named {most}-shot all the same",
                    task.label, task.dataset_uri
                )
            })
        };
        self.groups().filter_map(too_few).collect()
    }

    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The answers of `model`, task by task; `None` if `interrupt` was asked before the end.
    ///
    /// # Errors
    /// When the model gives scores that are not numbers, or the tokenizer fails.
    pub fn evaluate(
        &self,
        model: &Gpt,
        interrupt: &Interrupt,
        mut on_progress: impl FnMut(IclProgress<'_>),
    ) -> Result<Option<Vec<TaskResult>>> {
        let model = model.valid();
        let mut results = Vec::new();
        for (task, groups) in &self.tasks {
            for &shots in &task.num_fewshot {
                for (category, examples) in groups {
                    let label = label(&task.label, shots, category.as_deref());
                    let prompts = self.prompts(task, examples, shots)?;
                    let report =
                        |done, total| on_progress(IclProgress { label: &label, done, total });
                    let answers = match task.icl_task_type.generates() {
                        true => write(&model, prompts, self.options, interrupt, report)?,
                        false => choose(&model, prompts, self.options, interrupt, report)?,
                    };
                    let Some(answers) = answers else { return Ok(None) };
                    results.push(TaskResult {
                        task: task.label.clone(),
                        shots,
                        category: category.clone(),
                        metric: task.icl_task_type.metric(),
                        answers,
                    });
                }
            }
        }
        Ok(Some(results))
    }

    fn groups(&self) -> impl Iterator<Item = (&IclTask, &[Example])> {
        self.tasks.iter().flat_map(|(task, groups)| {
            groups.values().map(move |examples| (task, examples.as_slice()))
        })
    }

    fn prompts<'a>(
        &'a self,
        task: &'a IclTask,
        examples: &'a [Example],
        shots: usize,
    ) -> Result<Prompts<'a>> {
        let max_seq_len = task.max_seq_len.unwrap_or(self.options.max_seq_len);
        Prompts::new(task, &self.tokenizer, examples, shots, max_seq_len)
    }
}

fn check_vocabulary(model: &ModelConfig, tokenizer: &Tokenizer) -> Result<()> {
    let vocab_size = model.vocab_size;
    if tokenizer.vocab_size() <= vocab_size {
        return Ok(());
    }
    Err(Error::Config(format!(
        "the tokenizer `{}` has ids up to {}, but the model has {vocab_size} tokens; give the tokenizer that the model was \
         trained with",
        mds::redacted(tokenizer.name()),
        tokenizer.vocab_size() - 1
    )))
}

/// Room for a token and the one that follows it, and where positions are learned, no more of them.
fn check_length(model: &ModelConfig, max_seq_len: usize) -> Result<()> {
    if max_seq_len < 2 {
        return Err(Error::Config(format!(
            "max_seq_len is {max_seq_len}, but a question and its answer take at least 2 tokens; set it to more"
        )));
    }
    let learned = model.max_seq_len;
    if !model.learned_pos_emb || max_seq_len <= learned {
        return Ok(());
    }
    Err(Error::Config(format!(
        "max_seq_len is {max_seq_len}, but the model has learned {learned} positions; set it to at most {learned}"
    )))
}

fn by_category(task: &IclTask, examples: Vec<Example>) -> Groups {
    let mut groups = Groups::new();
    for example in examples {
        let category = example.category.clone().filter(|_| task.has_categories);
        groups.entry(category).or_default().push(example);
    }
    groups
}

/// Answers to all questions, or to the first, chosen by their scores; `None` if `interrupt` was asked.
fn choose(
    model: &Gpt,
    mut prompts: Prompts<'_>,
    options: IclOptions,
    interrupt: &Interrupt,
    mut report: impl FnMut(usize, usize),
) -> Result<Option<Vec<Answer>>> {
    let total = options.limit.questions(prompts.examples, options.rows);
    let mut answers = Vec::with_capacity(total);
    while answers.len() < total {
        let (mut questions, mut asked): (Vec<Vec<Sequence>>, Vec<Vec<usize>>) = Default::default();
        let mut sequences = 0;
        while answers.len() + asked.len() < total && sequences < BATCHES_SORTED * options.rows {
            let own = answers.len() + asked.len();
            let solved = prompts.draw(own);
            let question = prompts.sequences(&solved, &prompts.examples[own])?;
            sequences += question.len();
            questions.push(question);
            asked.push(solved.iter().map(|example| example.line).collect());
        }
        let Some(scores) = score::score(model, &questions, options.rows, interrupt)? else {
            return Ok(None);
        };
        for (lines, scores) in asked.into_iter().zip(scores) {
            let example = &prompts.examples[answers.len()];
            answers.push(judge(prompts.task.icl_task_type, example, lines, &scores));
        }
        report(answers.len(), total);
    }
    Ok(Some(answers))
}

/// Whether the model is right; of equal scores the first counts, as in the reference.
fn judge(kind: IclTaskType, example: &Example, examples: Vec<usize>, scores: &[Score]) -> Answer {
    let correct = match kind {
        IclTaskType::LanguageModeling => scores[example.gold].greedy,
        _ => {
            let best = (0..scores.len()).reduce(|best, next| {
                if scores[next].mean_log_prob > scores[best].mean_log_prob { next } else { best }
            });
            best == Some(example.gold)
        }
    };
    let scores = scores.iter().map(|score| score.mean_log_prob).collect();
    Answer { line: example.line, examples, scores, gold: example.gold, written: None, correct }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;

    use super::*;
    use crate::config::ModelConfig;

    /// A task with the file `t.jsonl` and all defaults.
    pub(super) fn task(kind: IclTaskType) -> IclTask {
        let yaml = format!(
            "icl_tasks: [{{label: t, dataset_uri: t.jsonl, num_fewshot: 0, icl_task_type: {}}}]",
            kind.name()
        );
        IclTask::from_yaml_str(&yaml).unwrap().remove(0)
    }

    pub(super) fn quickstart() -> Tokenizer {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/tokenizers/quickstart");
        Tokenizer::load(path.to_str().unwrap()).unwrap()
    }

    fn model(init_std: f64) -> Gpt {
        let config = ModelConfig { init_std, ..ModelConfig::mosaic_gpt(16, 2, 2, 64, 4096) };
        Gpt::init(&config, 5, &Device::flex())
    }

    fn options() -> IclOptions {
        IclOptions { rows: 3, max_seq_len: 64, limit: IclLimit::None }
    }

    /// The results of a model on a task with these lines.
    pub(super) fn results(
        model: &Gpt,
        task: IclTask,
        lines: &[&str],
        options: IclOptions,
    ) -> Vec<TaskResult> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let task = IclTask { dataset_uri: path.display().to_string().into(), ..task };
        let tasks = Tasks::open(&[task], model.config(), &quickstart(), options).unwrap();
        tasks.evaluate(model, &Interrupt::default(), |_| {}).unwrap().unwrap()
    }

    const CHOICES: [&str; 4] = [
        r#"{"query": "The king", "choices": ["is", "was here", "has"], "gold": 0, "category": "kings"}"#,
        r#"{"query": "The dog", "choices": ["barks", "was there", "has"], "gold": 1, "category": "dogs"}"#,
        r#"{"query": "A cat", "choices": ["the", "a"], "gold": 0, "category": "cats"}"#,
        r#"{"query": "A dog and", "choices": ["the", "a"], "gold": 1, "category": "dogs"}"#,
    ];

    /// All tokens are equally likely: every score is −ln 4096, the first candidate is taken, and the likeliest
    /// continuation is token 0 again and again.
    #[test]
    fn a_model_that_knows_nothing_takes_the_first() {
        let choices = task(IclTaskType::MultipleChoice);
        let result = results(&model(0.0), choices, &CHOICES, options()).remove(0);
        assert_eq!(result.name(), "metrics/t/0-shot/InContextLearningMultipleChoiceAccuracy");
        for score in result.answers.iter().flat_map(|answer| &answer.scores) {
            assert!((score + 4096f64.ln()).abs() < 1e-5, "{score}");
        }
        let correct: Vec<bool> = result.answers.iter().map(|answer| answer.correct).collect();
        assert_eq!(correct, [true, false, true, false]);
        assert_eq!(result.accuracy(), 0.5);

        let texts = [
            r#"{"context": "The king", "continuation": "is"}"#,
            r#"{"context": "The king", "continuation": "<|endoftext|>"}"#,
        ];
        let mut language = task(IclTaskType::LanguageModeling);
        let result = results(&model(0.0), language.clone(), &texts, options()).remove(0);
        assert_eq!(result.name(), "metrics/t/0-shot/InContextLearningLMAccuracy");
        assert_eq!(result.accuracy(), 0.0);
        // Token 0 is that of the end of a text, but the second continuation begins with a space.
        let tokenizer = quickstart();
        assert_eq!(tokenizer.encode_bare("<|endoftext|>").unwrap(), [0]);
        language.num_fewshot = vec![0, 1];
        let labels = results(&model(0.0), language, &texts, options());
        let labels: Vec<_> = labels.iter().map(TaskResult::label).collect();
        assert_eq!(labels, ["t/0-shot", "t/1-shot"]);
    }

    #[test]
    fn the_best_score_is_the_choice_in_both_directions() {
        let model = model(1.0);
        let choices = task(IclTaskType::MultipleChoice);
        let result = results(&model, choices, &CHOICES, options()).remove(0);
        let schema = [
            r#"{"context_options": ["The king", "The dog", "It"], "continuation": "barks", "gold": 0}"#,
            r#"{"context_options": ["The king", "The dog", "It"], "continuation": "barks", "gold": 1}"#,
            r#"{"context_options": ["The king", "The dog", "It"], "continuation": "barks", "gold": 2}"#,
        ];
        let schema = results(&model, task(IclTaskType::Schema), &schema, options()).remove(0);
        // Whatever it takes, of the same question with each answer for the right one it has one right.
        assert_eq!(schema.accuracy(), 1.0 / 3.0);
        for answer in result.answers.iter().chain(&schema.answers) {
            let gold = answer.scores[answer.gold];
            assert_eq!(
                answer.correct,
                answer.scores.iter().all(|score| *score <= gold),
                "{answer:?}"
            );
        }
        assert_eq!(schema.name(), "metrics/t/0-shot/InContextLearningMultipleChoiceAccuracy");
    }

    #[test]
    fn a_limit_in_batches_counts_the_rows_of_candidates() {
        let of = |candidates: usize| {
            let line = format!(
                "{{\"query\": \"The\", \"choices\": {:?}, \"gold\": 0}}",
                vec!["a"; candidates]
            );
            let batch = IclOptions { limit: IclLimit::Batches(2), ..options() };
            let choices = task(IclTaskType::MultipleChoice);
            results(&model(1.0), choices, &[&*line; 7], batch)[0].answers.len()
        };
        // Of three rows.
        assert_eq!([1, 2, 3, 5].map(of), [6, 2, 2, 2]);
    }

    #[test]
    fn a_run_repeats_and_a_limit_takes_the_first() {
        let model = model(1.0);
        let shots = IclTask { num_fewshot: vec![2], ..task(IclTaskType::MultipleChoice) };
        let all = results(&model, shots.clone(), &CHOICES, options());
        assert_eq!(results(&model, shots.clone(), &CHOICES, options()), all);
        assert!(all[0].answers.iter().all(|answer| answer.examples.len() == 2));
        let first = IclOptions { limit: IclLimit::Questions(2), ..options() };
        let first = results(&model, shots, &CHOICES, first);
        assert_eq!(first[0].answers.len(), 2);
        for (first, all) in first[0].answers.iter().zip(&all[0].answers) {
            assert_eq!((first.line, &first.examples), (all.line, &all.examples));
        }
    }

    #[test]
    fn categories_are_evaluated_by_themselves_in_order() {
        let task = IclTask {
            has_categories: true,
            num_fewshot: vec![1],
            ..task(IclTaskType::MultipleChoice)
        };
        let results = results(&model(1.0), task, &CHOICES, options());
        let found: Vec<_> = results
            .iter()
            .map(|result| {
                let line = |answer: &Answer| (answer.line, answer.examples.clone());
                (result.label(), result.answers.iter().map(line).collect::<Vec<_>>())
            })
            .collect();
        let expected = [
            ("t/1-shot/cats".to_owned(), vec![(3, vec![])]),
            ("t/1-shot/dogs".to_owned(), vec![(2, vec![4]), (4, vec![2])]),
            ("t/1-shot/kings".to_owned(), vec![(1, vec![])]),
        ];
        assert_eq!(found, expected);

        let named = accuracies(&results);
        let mean = (0..3).map(|i| results[i].accuracy()).sum::<f64>() / 3.0;
        let whole = "metrics/t/1-shot/InContextLearningMultipleChoiceAccuracy";
        assert_eq!(named[3], (whole.to_owned(), mean));
        assert_eq!(named[1].0, "metrics/t/1-shot/dogs/InContextLearningMultipleChoiceAccuracy");
        assert_eq!((named.len(), named[1].1), (4, results[1].accuracy()));
    }

    #[test]
    fn too_few_solved_examples_are_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        std::fs::write(&path, CHOICES.join("\n")).unwrap();
        let notes = |has_categories, num_fewshot: &[usize]| {
            let task = IclTask {
                dataset_uri: path.display().to_string().into(),
                has_categories,
                num_fewshot: num_fewshot.to_vec(),
                ..task(IclTaskType::MultipleChoice)
            };
            let opened = Tasks::open(&[task], model(1.0).config(), &quickstart(), options());
            let notes = opened.unwrap().notes();
            notes
                .into_iter()
                .map(|note| note.replace(&path.display().to_string(), "t.jsonl"))
                .collect::<Vec<_>>()
        };
        assert_eq!(notes(false, &[0, 3]), [""; 0]);
        assert_eq!(
            notes(false, &[0, 4]),
            [
                "`num_fewshot` of the task `t` asks for 4 solved examples, but beside each question `t.jsonl` has 3 \
              line(s), so there are no more; its metrics are named 4-shot all the same"
            ]
        );
        assert_eq!(
            notes(true, &[1]),
            ["cats", "kings"].map(|category| format!(
                "`num_fewshot` of the task `t` asks for 1 solved examples, but beside each question `t.jsonl` has 0 \
                 line(s) of category `{category}`, so there are no more; its metrics are named 1-shot all the same"
            ))
        );
    }

    #[test]
    fn what_the_model_cannot_read_is_refused() {
        let refused = |tokenizer: &Tokenizer, max_seq_len| {
            let options = IclOptions { max_seq_len, ..options() };
            let tasks = [task(IclTaskType::Schema)];
            let opened = Tasks::open(&tasks, model(1.0).config(), tokenizer, options);
            opened.unwrap_err().to_string()
        };
        assert_eq!(
            refused(&Tokenizer::load("gpt2").unwrap(), 64),
            "the tokenizer `gpt2` has ids up to 50256, but the model has 4096 tokens; give the tokenizer that the model was \
             trained with"
        );
        assert_eq!(
            refused(&quickstart(), 65),
            "max_seq_len is 65, but the model has learned 64 positions; set it to at most 64"
        );
        assert_eq!(
            refused(&quickstart(), 0),
            "max_seq_len is 0, but a question and its answer take at least 2 tokens; set it to more"
        );
        assert_eq!(
            refused(&quickstart(), 64),
            "cannot read `t.jsonl`: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn an_interrupt_ends_it() {
        let interrupt = Interrupt::default();
        interrupt.ask();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        std::fs::write(&path, CHOICES.join("\n")).unwrap();
        let tasks = [IclTask {
            dataset_uri: path.display().to_string().into(),
            ..task(IclTaskType::MultipleChoice)
        }];
        let model = model(1.0);
        let tasks = Tasks::open(&tasks, model.config(), &quickstart(), options()).unwrap();
        assert_eq!(tasks.evaluate(&model, &interrupt, |_| {}).unwrap(), None);
    }
}
