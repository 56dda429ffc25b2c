//! Prompts: solved examples, then the question, as text and as tokens.
//!
//! Everything here is as in the reference, to the space, since scores depend on it: solved examples and question are
//! tokenised apart, what comes before a continuation has no white space at its end, and the continuation begins with
//! the space that its tokenizer has in words (`" Paris"`).

use convert::tokenizer::Tokenizer;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::examples::Example;
use crate::config::{IclTask, IclTaskType};
use crate::error::{Error, Result};

/// By how much a chain of thought may be longer than any of the file, in tokens; the reference's number.
const THOUGHT_TOKENS: usize = 10;

const NOTHING_BEFORE: &str =
    "has nothing before its continuation; give it a text, or the task a prompt_string";

/// Context and continuation of one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) tokens: Vec<i32>,
    /// How many of them, at the end, are the continuation; less than all.
    pub(super) continuation: usize,
}

/// Makes the prompts of one task with one number of solved examples.
#[derive(Debug)]
pub(super) struct Prompts<'a> {
    pub(super) task: &'a IclTask,
    pub(super) tokenizer: &'a Tokenizer,
    /// Among which solved examples are drawn.
    pub(super) examples: &'a [Example],
    pub(super) shots: usize,
    pub(super) max_seq_len: usize,
    /// What continuations begin with.
    space: &'static str,
    generator: Pcg64,
}

impl<'a> Prompts<'a> {
    pub(super) fn new(
        task: &'a IclTask,
        tokenizer: &'a Tokenizer,
        examples: &'a [Example],
        shots: usize,
        max_seq_len: usize,
    ) -> Result<Self> {
        // Byte-pair encoders have words with their space; others put it there themselves.
        let space = if tokenizer.encode_bare(" a")?.len() == 1 { " " } else { "" };
        let generator = Pcg64::seed_from_u64(task.fewshot_random_seed);
        Ok(Self { task, tokenizer, examples, shots, max_seq_len, space, generator })
    }

    /// Makes the prompts of all questions and throws them away.
    ///
    /// # Errors
    /// What would be wrong with one of them, or with its answer.
    pub(super) fn check(mut self) -> Result<()> {
        let longest = match self.task.icl_task_type.generates() {
            true => Some(self.longest_answer()?),
            false => None,
        };
        for (own, question) in self.examples.iter().enumerate() {
            let solved = self.draw(own);
            match longest {
                Some(longest) => drop(self.unanswered(&solved, question, longest)?),
                None => drop(self.sequences(&solved, question)?),
            }
        }
        Ok(())
    }

    /// Draws the solved examples of the question `own`: different ones, never itself, fewer where there are no more.
    /// Asked for the questions in their order, it gives the same ones in every run.
    pub(super) fn draw(&mut self, own: usize) -> Vec<&'a Example> {
        let others = self.examples.len() - 1;
        let mut drawn: Vec<usize> = Vec::with_capacity(self.shots.min(others));
        while drawn.len() < self.shots.min(others) {
            // The upper half of the product is uniform below `others`, but for less than others / 2^64.
            let below = (u128::from(self.generator.next_u64()) * others as u128) >> 64;
            let index = below as usize;
            let index = if index < own { index } else { index + 1 };
            if !drawn.contains(&index) {
                drawn.push(index);
            }
        }
        drawn.into_iter().map(|index| &self.examples[index]).collect()
    }

    /// The sequences of a question's candidates after `solved` examples.
    ///
    /// # Errors
    /// When a continuation is empty or too long, there is nothing before it, or the tokenizer fails.
    pub(super) fn sequences(
        &self,
        solved: &[&Example],
        question: &Example,
    ) -> Result<Vec<Sequence>> {
        let preamble_text = self.preamble(solved);
        let preamble = self.preamble_ids(&preamble_text)?;
        let candidates = question.candidates.iter().map(|candidate| {
            let context = self.context(&preamble_text, &candidate.context);
            let mut tokens = preamble.clone();
            tokens.extend(self.tokenizer.encode_bare(&context)?);
            let continuation = self.continuation(&candidate.continuation);
            let continuation = self.tokenizer.encode_bare(&continuation)?;
            self.sequence(tokens, &continuation, question.line)
        });
        candidates.collect()
    }

    /// What the model reads of a question before it writes, cut on the left to leave room for `answer` tokens.
    ///
    /// # Errors
    /// When there is nothing to read, or the tokenizer fails.
    pub(super) fn unanswered(
        &self,
        solved: &[&Example],
        question: &Example,
        answer: usize,
    ) -> Result<Vec<u32>> {
        let preamble = self.preamble(solved);
        let mut ids = self.preamble_ids(&preamble)?;
        let context = self.context(&preamble, &question.solution().context);
        ids.extend(self.tokenizer.encode_bare(&context)?);
        if ids.is_empty() {
            return Err(self.wrong(question.line, NOTHING_BEFORE));
        }
        let too_long = (ids.len() + answer).saturating_sub(self.max_seq_len);
        Ok(ids.split_off(too_long))
    }

    /// The tokens that the longest right answer takes, a few more where a chain of thought comes before it, which may be
    /// longer than any of the file.
    ///
    /// # Errors
    /// When a sequence has no room for it, or the tokenizer fails.
    pub(super) fn longest_answer(&self) -> Result<usize> {
        let mut longest = 1;
        for Example { answers, reasoning, .. } in self.examples {
            for answer in answers {
                longest =
                    longest.max(self.tokenizer.encode(&format!("{reasoning}{answer}"))?.len());
            }
        }
        let has_thoughts = self.task.generation.iter().any(|g| !g.cot_delimiter.is_empty());
        longest += if has_thoughts { THOUGHT_TOKENS } else { 0 };
        if longest >= self.max_seq_len {
            return Err(Error::Data(format!(
                "the longest answer of `{}` takes {longest} tokens, but at most {} fit after one of context; shorten it, \
                 or evaluate a model with a longer max_seq_len",
                self.task.dataset_uri,
                self.max_seq_len - 1
            )));
        }
        Ok(longest)
    }

    /// What the model wrote, as the reference reads it: a tokenizer that has no words with their space loses the first one.
    pub(super) fn written(&self, ids: &[u32]) -> Result<String> {
        let lost = if self.space.is_empty() { " " } else { "" };
        Ok(format!("{lost}{}", self.tokenizer.decode(ids)?))
    }

    fn wrong(&self, line: usize, what: &str) -> Error {
        Error::Data(format!("`{}` line {line} {what}", self.task.dataset_uri))
    }

    /// The prompt string and the solved examples.
    fn preamble(&self, solved: &[&Example]) -> String {
        let mut text = self.task.prompt_string.clone();
        let IclTask { example_delimiter, continuation_delimiter, question_prelimiter, .. } =
            self.task;
        for example in solved.iter().map(|example| example.solution()) {
            let delimiter = if text.is_empty() { "" } else { &**example_delimiter };
            let (before, after) = match self.task.icl_task_type {
                IclTaskType::Schema => (&**question_prelimiter, delimiter),
                _ => (delimiter, &**question_prelimiter),
            };
            text.push_str(before);
            text.push_str(after);
            text.push_str(&example.context);
            text.push_str(continuation_delimiter);
            text.push_str(&example.continuation);
        }
        text
    }

    /// With the tokens that the tokenizer puts around a text, but for one that ends it.
    fn preamble_ids(&self, preamble: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode(preamble)?;
        if ids.len() > 1 && ids.last().copied() == self.tokenizer.eos_id() {
            ids.pop();
        }
        Ok(ids)
    }

    /// The text between the preamble and a continuation.
    fn context(&self, preamble: &str, context: &str) -> String {
        let IclTask { example_delimiter, continuation_delimiter, question_prelimiter, .. } =
            self.task;
        match (self.task.icl_task_type, preamble.is_empty()) {
            (IclTaskType::Schema, true) => format!("{question_prelimiter}{context}"),
            (IclTaskType::Schema, false) => {
                let end = continuation_delimiter.trim_end();
                format!("{question_prelimiter}{example_delimiter}{context}{end}")
            }
            (_, first) => {
                let start = if first { "" } else { &**example_delimiter };
                let text = format!("{start}{question_prelimiter}{context}{continuation_delimiter}");
                text.trim_end().to_owned()
            }
        }
    }

    fn continuation(&self, text: &str) -> String {
        let space = if text.starts_with(' ') { "" } else { self.space };
        format!("{space}{text}")
    }

    /// Cut on the left to `max_seq_len`.
    fn sequence(&self, context: Vec<u32>, continuation: &[u32], line: usize) -> Result<Sequence> {
        if continuation.is_empty() {
            return Err(self.wrong(line, "has an empty continuation; give every candidate a text"));
        }
        if context.is_empty() {
            return Err(self.wrong(line, NOTHING_BEFORE));
        }
        if continuation.len() >= self.max_seq_len {
            let what = format!(
                "has a continuation of {} tokens, but at most {} fit after one of context; remove it, or evaluate a \
                 model with a longer max_seq_len",
                continuation.len(),
                self.max_seq_len - 1
            );
            return Err(self.wrong(line, &what));
        }
        let ids = context.iter().chain(continuation);
        let too_long = (context.len() + continuation.len()).saturating_sub(self.max_seq_len);
        let tokens = ids.skip(too_long).map(|&id| id as i32).collect();
        Ok(Sequence { tokens, continuation: continuation.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::Candidate;
    use super::super::tests::{quickstart, task};
    use super::*;

    /// Example `i` of a task: `q0` goes on as `a0` or as `b0`.
    fn example(i: usize, gold: usize) -> Example {
        let candidate = |context: String, continuation: String| Candidate { context, continuation };
        let candidates = vec![
            candidate(format!("q{i}"), format!("a{i}")),
            candidate(format!("q{i}"), format!("b{i}")),
        ];
        let (answers, reasoning) = (Vec::new(), String::new());
        Example { line: i + 1, category: None, candidates, gold, answers, reasoning }
    }

    fn examples(count: usize) -> Vec<Example> {
        (0..count).map(|i| example(i, i % 2)).collect()
    }

    /// Each candidate's context and continuation, as text.
    fn texts(task: &IclTask, solved: &[&Example], question: &Example) -> Vec<(String, String)> {
        let tokenizer = quickstart();
        let prompts = Prompts::new(task, &tokenizer, &[], 0, 500).unwrap();
        let sequences = prompts.sequences(solved, question).unwrap();
        let text = |ids: &[i32]| {
            let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
            tokenizer.decode(&ids).unwrap()
        };
        let split = |s: &Sequence| {
            let (context, continuation) = s.tokens.split_at(s.tokens.len() - s.continuation);
            (text(context), text(continuation))
        };
        sequences.iter().map(split).collect()
    }

    fn pairs(context: &str, continuations: [&str; 2]) -> Vec<(String, String)> {
        continuations.iter().map(|c| (context.to_owned(), (*c).to_owned())).collect()
    }

    #[test]
    fn a_question_follows_its_solved_examples() {
        let all = examples(3);
        let mut task = task(IclTaskType::MultipleChoice);
        assert_eq!(texts(&task, &[], &all[0]), pairs("q0", [" a0", " b0"]));

        task.prompt_string = "Answer.".into();
        task.question_prelimiter = "Q: ".into();
        task.continuation_delimiter = "\nA: ".into();
        task.example_delimiter = "\n\n".into();
        assert_eq!(
            texts(&task, &[&all[1], &all[2]], &all[0]),
            pairs("Answer.\n\nQ: q1\nA: b1\n\nQ: q2\nA: a2\n\nQ: q0\nA:", [" a0", " b0"])
        );
        // Without a prompt nothing stands before the first example.
        task.prompt_string.clear();
        assert_eq!(
            texts(&task, &[&all[1]], &all[0]),
            pairs("Q: q1\nA: b1\n\nQ: q0\nA:", [" a0", " b0"])
        );
    }

    #[test]
    fn a_schema_has_its_delimiters_as_the_reference_has_them() {
        let candidate =
            |context: &str| Candidate { context: context.into(), continuation: "bark".into() };
        let example =
            Example { candidates: vec![candidate("Cats"), candidate("Dogs")], ..example(0, 1) };
        let task = task(IclTaskType::Schema);
        let pair = |context: &str| (context.to_owned(), " bark".to_owned());
        assert_eq!(texts(&task, &[], &example), [pair("Cats"), pair("Dogs")]);
        assert_eq!(
            texts(&task, &[&example, &example], &example),
            [pair("Dogs bark\nDogs bark\nCats"), pair("Dogs bark\nDogs bark\nDogs")]
        );
    }

    #[test]
    fn draws_repeat_are_different_and_never_the_question_itself() {
        let (tokenizer, all, task) = (quickstart(), examples(6), task(IclTaskType::MultipleChoice));
        let draws = |task: &IclTask, shots| -> Vec<Vec<usize>> {
            let mut prompts = Prompts::new(task, &tokenizer, &all, shots, 500).unwrap();
            (0..6).map(|own| prompts.draw(own).iter().map(|e| e.line - 1).collect()).collect()
        };
        let three = draws(&task, 3);
        assert_eq!(draws(&task, 3), three);
        assert_ne!(draws(&IclTask { fewshot_random_seed: 1, ..task.clone() }, 3), three);
        for (own, drawn) in three.iter().enumerate() {
            let mut different = drawn.clone();
            different.sort_unstable();
            different.dedup();
            assert!(different.len() == 3 && !drawn.contains(&own), "{own}: {drawn:?}");
        }
        // All others, where more are asked for.
        for (own, mut drawn) in draws(&task, 10).into_iter().enumerate() {
            drawn.sort_unstable();
            assert_eq!(drawn, (0..6).filter(|&i| i != own).collect::<Vec<_>>());
        }
        let mut prompts = Prompts::new(&task, &tokenizer, &all, 1, 500).unwrap();
        let mut counts = [0; 6];
        (0..6000).for_each(|_| counts[prompts.draw(2)[0].line - 1] += 1);
        assert_eq!(counts[2], 0);
        assert!([0, 1, 3, 4, 5].iter().all(|&i| (1100..1300).contains(&counts[i])), "{counts:?}");
    }

    #[test]
    fn what_is_too_long_loses_its_beginning() {
        let (tokenizer, task, all) = (quickstart(), task(IclTaskType::MultipleChoice), examples(2));
        let sequences = |max_seq_len| {
            let prompts = Prompts::new(&task, &tokenizer, &all, 1, max_seq_len).unwrap();
            prompts.sequences(&[&all[1]], &all[0])
        };
        let whole = sequences(500).unwrap();
        let cut = sequences(5).unwrap();
        for (whole, cut) in whole.iter().zip(&cut) {
            assert!(whole.tokens.len() > 5);
            assert_eq!(cut.tokens, whole.tokens[whole.tokens.len() - 5..]);
            assert_eq!(cut.continuation, whole.continuation);
        }
        let continuation = whole[0].continuation;
        assert_eq!(
            sequences(continuation).unwrap_err().to_string(),
            format!(
                "`t.jsonl` line 1 has a continuation of {continuation} tokens, but at most {} fit after one of context; \
                 remove it, or evaluate a model with a longer max_seq_len",
                continuation - 1
            )
        );
    }

    #[test]
    fn what_has_no_probability_is_refused() {
        let (tokenizer, task) = (quickstart(), task(IclTaskType::LanguageModeling));
        let refused = |context: &str, continuation: &str| {
            let candidate =
                Candidate { context: context.into(), continuation: continuation.into() };
            let example = Example { line: 7, candidates: vec![candidate], ..example(0, 0) };
            let prompts = Prompts::new(&task, &tokenizer, &[], 0, 500).unwrap();
            prompts.sequences(&[], &example).unwrap_err().to_string()
        };
        assert_eq!(
            refused("", "be"),
            "`t.jsonl` line 7 has nothing before its continuation; give it a text, or the task a prompt_string"
        );
        let prompts = Prompts::new(&task, &tokenizer, &[], 0, 500).unwrap();
        assert_eq!(
            prompts.sequence(vec![1], &[], 7).unwrap_err().to_string(),
            "`t.jsonl` line 7 has an empty continuation; give every candidate a text"
        );
    }
}
