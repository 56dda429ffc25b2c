//! Answers that the model writes, and whether they are right.
//!
//! It writes what is likeliest, token by token, until a stop or the end of the text, and at most as much as the longest
//! right answer takes. As in the reference, what is compared is the part of the text before the first stop and after the last delimiter of a
//! chain of thought; it is right if it begins with an answer. Both are normalised before, as those of TriviaQA are (Joshi
//! et al. 2017): in lower case, without punctuation and articles, with one space between words.

use super::prompt::Prompts;
use super::{Answer, IclOptions};
use crate::config::IclGeneration;
use crate::error::Result;
use crate::generate::likeliest;
use crate::interrupt::Interrupt;
use crate::model::Gpt;

/// Answers to all questions, or to the first; `None` if `interrupt` was asked.
pub(super) fn write(
    model: &Gpt,
    mut prompts: Prompts<'_>,
    options: IclOptions,
    interrupt: &Interrupt,
    mut report: impl FnMut(usize, usize),
) -> Result<Option<Vec<Answer>>> {
    let total = options.limit.questions(prompts.examples, options.rows);
    let Some(how) = &prompts.task.generation else { return Ok(Some(Vec::new())) };
    let longest = prompts.longest_answer()?;
    let mut answers = Vec::with_capacity(total);
    for (own, example) in prompts.examples[..total].iter().enumerate() {
        if interrupt.is_asked() {
            return Ok(None);
        }
        let solved = prompts.draw(own);
        let prompt = prompts.unanswered(&solved, example, longest)?;
        let stops = |new: &[u32]| {
            let text = prompts.tokenizer.decode(new)?;
            Ok(how.early_stopping_criteria.iter().any(|stop| text.contains(stop.as_str())))
        };
        let written = likeliest(model, prompts.tokenizer, &prompt, longest, stops)?;
        let written = prompts.written(&written)?;
        answers.push(Answer {
            line: example.line,
            examples: solved.iter().map(|example| example.line).collect(),
            scores: Vec::new(),
            gold: example.gold,
            correct: is_right(&written, &example.answers, how),
            written: Some(written),
        });
        report(answers.len(), total);
    }
    Ok(Some(answers))
}

/// Whether `text` is one of `answers`.
fn is_right(text: &str, answers: &[String], how: &IclGeneration) -> bool {
    let stop = how.early_stopping_criteria.iter().filter_map(|stop| text.find(stop.as_str())).min();
    let text = &text[..stop.unwrap_or(text.len())];
    let text = match how.cot_delimiter.as_str() {
        "" => text,
        delimiter => text.rsplit(delimiter).next().unwrap_or(text),
    };
    let read = |text: &str| if how.do_normalization { normalised(text) } else { text.to_owned() };
    let text = read(text);
    answers.iter().any(|answer| text.starts_with(&read(answer)))
}

/// Articles are left out before runs of white space are made one.
fn normalised(text: &str) -> String {
    let is_punctuation =
        |c: char| c.is_ascii_punctuation() || matches!(c, '\u{2018}' | '\u{2019}' | '\u{b4}');
    let lower = text.to_lowercase();
    let plain: String = lower.chars().map(|c| if is_punctuation(c) { ' ' } else { c }).collect();
    let mut kept = String::new();
    // An article is a whole word, which other signs than letters and digits delimit.
    for piece in plain.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
        let rest = if matches!(word, "a" | "an" | "the") { &piece[word.len()..] } else { piece };
        if rest.len() < piece.len() {
            kept.push(' ');
        }
        kept.push_str(rest);
    }
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::tests::{quickstart, results, task};
    use super::*;
    use crate::config::{IclTask, IclTaskType, ModelConfig};
    use crate::icl::{IclLimit, TaskResult};
    use crate::model::NamedTensor;

    /// A model whose blocks add nothing: after each text of a pair, one token, the other is the likeliest, and after every
    /// other token the end of the text.
    fn chain(pairs: &[(&str, &str)]) -> Gpt {
        let (width, vocab_size) = (8, 4096);
        let config = ModelConfig {
            init_std: 0.0,
            tie_word_embeddings: false,
            learned_pos_emb: false,
            ..ModelConfig::mosaic_gpt(width, 1, 1, 24, vocab_size)
        };
        // The `i`th pair has the `i`th number of the width: the norm leaves it the largest, and of zeros zeros.
        let table = |texts: &[&str]| {
            let mut values = vec![0.0; vocab_size * width];
            for (i, text) in texts.iter().enumerate() {
                let ids = quickstart().encode_bare(text).unwrap();
                assert_eq!(ids.len(), 1, "{text:?} is {ids:?}");
                values[ids[0] as usize * width + i] = 1.0;
            }
            values
        };
        let (before, after): (Vec<&str>, Vec<&str>) = pairs.iter().copied().unzip();
        let model = Gpt::init(&config, 1, &Device::flex());
        let named = |tensor: NamedTensor| {
            let values = match &*tensor.name {
                "transformer.wte.weight" => table(&before),
                "lm_head.weight" => table(&after),
                _ => tensor.values,
            };
            NamedTensor { values, ..tensor }
        };
        let tensors = model.to_named_tensors().into_iter().map(named).collect();
        model.with_named_tensors(tensors).unwrap()
    }

    fn options() -> IclOptions {
        IclOptions { rows: 2, max_seq_len: 24, limit: IclLimit::None }
    }

    fn written(result: &TaskResult) -> Vec<(&str, bool)> {
        let answers = result.answers.iter();
        answers.map(|a| (a.written.as_deref().unwrap_or_default(), a.correct)).collect()
    }

    #[test]
    fn the_likeliest_text_is_written_until_its_end_a_stop_or_the_length_of_the_longest_answer() {
        let model = chain(&[(" is", " the"), (" the", " king"), (" has", ","), (",", ",")]);
        let lines = [
            r#"{"context": "What he is", "answer": "a queen of all", "aliases": ["King", "x"]}"#,
            r#"{"context": "What she is", "answer": "queen"}"#,
            r#"{"context": "What it has", "answer": "no"}"#,
        ];
        let longest = quickstart().encode("a queen of all").unwrap().len();
        assert!(longest > 3, "{longest}");
        let generation = task(IclTaskType::Generation);
        let result = results(&model, generation.clone(), &lines, options()).remove(0);
        assert_eq!(result.name(), "metrics/t/0-shot/InContextLearningGenerationExactMatchAccuracy");
        let commas = ",".repeat(longest);
        assert_eq!(written(&result), [(" the king", true), (" the king", false), (&commas, false)]);
        assert_eq!(result.accuracy(), 1.0 / 3.0);
        assert!(result.answers.iter().all(|answer| answer.scores.is_empty()));

        let mut stopped = IclTask { icl_task_type: IclTaskType::QuestionAnswering, ..generation };
        stopped.generation.as_mut().unwrap().early_stopping_criteria = vec![",,".into()];
        stopped.continuation_delimiter = " has ".into();
        let batch = IclOptions { limit: IclLimit::Batches(1), ..options() };
        let result = results(&model, stopped, &lines[1..], batch).remove(0);
        assert_eq!(result.name(), "metrics/t/0-shot/InContextLearningQAAccuracy");
        assert_eq!(written(&result), [(",,", false), (",,", false)]);
    }

    #[test]
    fn prompts_leave_room_for_the_longest_answer() {
        let tokenizer = quickstart();
        let lines = [
            r#"{"context": "is is is is is is is is is", "answer": "the king"}"#,
            r#"{"context": "What it is", "answer": "the king", "chain_of_thought": "It is so"}"#,
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let mut task = task(IclTaskType::Generation);
        task.dataset_uri = path.display().to_string().into();
        task.generation.as_mut().unwrap().cot_delimiter = "So ".into();
        let examples = super::super::examples::load(&task).unwrap();
        let prompts =
            |max_seq_len| Prompts::new(&task, &tokenizer, &examples, 0, max_seq_len).unwrap();
        let longest = prompts(100).longest_answer().unwrap();
        assert_eq!(longest, tokenizer.encode("It is soSo the king").unwrap().len() + 10);
        let whole = prompts(100).unanswered(&[], &examples[0], longest).unwrap();
        assert_eq!(whole, tokenizer.encode_bare("is is is is is is is is is").unwrap());
        let cut = prompts(longest + 3).unanswered(&[], &examples[0], longest).unwrap();
        assert_eq!(cut, whole[whole.len() - 3..]);
        assert_eq!(
            prompts(longest).longest_answer().unwrap_err().to_string(),
            format!(
                "the longest answer of `{}` takes {longest} tokens, but at most {} fit after one of context; shorten it, \
                 or evaluate a model with a longer max_seq_len",
                path.display(),
                longest - 1
            )
        );
        // A solved example shows how its answer is found.
        let solved = prompts(100).unanswered(&[&examples[1]], &examples[0], longest).unwrap();
        let text = tokenizer.decode(&solved).unwrap();
        assert_eq!(text, "What it is It is soSo the king\nis is is is is is is is is");
    }

    fn how() -> IclGeneration {
        IclGeneration {
            cot_delimiter: String::new(),
            early_stopping_criteria: Vec::new(),
            do_normalization: true,
        }
    }

    fn right(text: &str, answers: &[&str], how: &IclGeneration) -> bool {
        let answers: Vec<String> = answers.iter().map(ToString::to_string).collect();
        is_right(text, &answers, how)
    }

    /// Worked out by hand from the reference's steps.
    #[test]
    fn texts_are_normalised_as_triviaqa_does() {
        for (text, expected) in [
            ("The  Beatles!", "beatles"),
            ("an_apple a day", "apple day"),
            ("AC/DC's \u{2018}Thunderstruck\u{2019}", "ac dc s thunderstruck"),
            ("A", ""),
            // Not articles: parts of words.
            ("Theatre, Anna; 4a", "theatre anna 4a"),
            // A dash that is not ASCII stays, but delimits words.
            ("Rome\u{2014}the city", "rome\u{2014} city"),
            ("\tU.S.A.\n", "u s"),
            ("\u{c9}MILE", "\u{e9}mile"),
        ] {
            assert_eq!(normalised(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_right_if_it_begins_with_an_answer() {
        assert!(right(" The Eiffel Tower, in Paris", &["Big Ben", "Eiffel tower"], &how()));
        assert!(!right(" It is the Eiffel Tower", &["Eiffel tower"], &how()));
        assert!(!right("", &["4"], &how()));
        // As in the reference: 42 begins with 4.
        assert!(right("42", &["4"], &how()));
        let exact = IclGeneration { do_normalization: false, ..how() };
        assert!(right("Paris.", &["Paris"], &exact));
        assert!(!right(" Paris.", &["Paris"], &exact));
        assert!(!right("paris", &["Paris"], &exact));
    }

    #[test]
    fn what_follows_a_stop_and_what_precedes_the_delimiter_do_not_count() {
        let how = IclGeneration {
            cot_delimiter: "The answer is ".into(),
            early_stopping_criteria: vec!["Question:".into(), "\n\n".into()],
            do_normalization: false,
        };
        let text = "2 and 2. The answer is 5, no. The answer is 4\n\nQuestion: The answer is 7";
        assert!(right(text, &["4"], &how));
        assert!(!right(text, &["5"], &how) && !right(text, &["7"], &how));
        // Without the delimiter all of it counts.
        assert!(right("4 Question: 5", &["4 "], &how));
        assert!(!right("Question: 4", &["4"], &how));
        // A stop is no regular expression.
        let dots = IclGeneration { early_stopping_criteria: vec!["..".into()], ..how };
        assert!(right("4..5", &["4"], &dots) && !right("4..5", &["4."], &dots));
    }
}
