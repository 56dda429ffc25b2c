//! Chats to token ids and labels, as GPT-NeoX's `preprocess_data_with_chat_template.py` makes them.
//!
//! A chat is a list of messages, `[{"role": "user", "content": "Hi"}, ...]`, which the chat template of the tokenizer makes
//! text of. A label is the id that is to be learned at its place, or -100. Which are learned is a choice of [`Learned`]; the
//! end-of-text token, if there is one, ends each chat.
//!
//! GPT-NeoX tokenises the chat up to each turn anew, and at times set all of it behind the turns before. Here what is new in
//! it is set there; a token that runs from one turn into the next belongs to the next. A template that changes what it wrote
//! for earlier turns is refused where labels are written by turns.

use serde_json::Value;

use super::chat_template::{ChatTemplate, Refusal};
use super::preprocess::{IGNORED, Row};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Which tokens of a chat are to be learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Learned {
    /// The model's turns.
    #[default]
    Turns,
    /// The last turn, if it is the model's.
    LastTurn,
    /// The end-of-text token alone, at which a reward model judges the chat.
    End,
    /// All: no labels are written.
    All,
}

/// What is written of what a chat is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewards {
    /// Whether it is true as Python takes it: 1 or -1, of type `int32`.
    Binary,
    /// The number that it is, of type `float32`.
    Numbers,
}

/// What makes ids of chats.
#[derive(Debug)]
pub struct ChatEncoder {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    role: String,
    learned: Learned,
    rewards: Option<(String, Rewards)>,
}

impl ChatEncoder {
    /// With the tokenizer at `path` and its template; `role` is that of the model's turns.
    ///
    /// # Errors
    /// Those of [`Tokenizer::load`]; [`NotFound`](crate::ErrorKind::NotFound) if it has no template, [`Corrupt`](crate::ErrorKind::Corrupt) if that cannot be
    /// run; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for [`Learned::End`] without an end-of-text token.
    pub fn load(path: &str, role: impl Into<String>, learned: Learned) -> Result<Self> {
        let tokenizer = Tokenizer::load(path)?;
        if learned == Learned::End && tokenizer.eos_id().is_none() {
            return Err(Error::invalid(
                format!("--for-rm needs an end-of-text token, which {} has not", tokenizer.name()),
                "name it as eos_token in tokenizer_config.json",
            ));
        }
        let template = ChatTemplate::load(path, &tokenizer)?;
        Ok(Self { tokenizer, template, role: role.into(), learned, rewards: None })
    }

    /// Writes for each document what it is worth, from the value under `key`.
    pub fn with_rewards(self, key: impl Into<String>, rewards: Rewards) -> Self {
        Self { rewards: Some((key.into(), rewards)), ..self }
    }

    /// Where the rewards are, and what is written of them.
    pub(super) fn rewards(&self) -> Option<(&str, Rewards)> {
        self.rewards.as_ref().map(|(key, rewards)| (key.as_str(), *rewards))
    }

    /// One more than the largest id.
    pub(super) fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    /// Whether there are labels.
    pub(super) fn has_labels(&self) -> bool {
        self.learned != Learned::All
    }

    /// The ids and labels of a chat; none of one without messages.
    ///
    /// # Errors
    /// What it is that is wrong: it is no chat, or not one for the template.
    pub(super) fn encode(&self, chat: &Value) -> Result<Row, Fault> {
        let messages = messages_of(chat)?;
        let (mut encoded, mut text) = (Row::default(), String::new());
        if messages.is_empty() {
            return Ok(encoded);
        }
        let last = messages.len() - 1;
        let ends = match self.learned {
            Learned::Turns | Learned::LastTurn => 0..=last,
            Learned::End | Learned::All => last..=last,
        };
        for end in ends {
            text = self.add_turn(messages, end, &text, &mut encoded)?;
        }
        if let Some(eos) = self.tokenizer.eos_id() {
            let is_learned =
                self.learned == Learned::End || encoded.labels.last() != Some(&IGNORED);
            encoded.ids.push(eos);
            encoded.labels.push(if is_learned { eos.into() } else { IGNORED });
        }
        if !self.has_labels() {
            encoded.labels.clear();
        }
        Ok(encoded)
    }

    /// Adds what message `turn` adds to the text `before` it, and returns the new text.
    fn add_turn(
        &self,
        messages: &[Value],
        turn: usize,
        before: &str,
        encoded: &mut Row,
    ) -> Result<String, Fault> {
        let is_of_model = |message: &Value| message["role"] == self.role.as_str();
        // What begins a turn of the model belongs to the turn before: the model does not write it.
        let asks_for_reply = messages.get(turn + 1).is_some_and(is_of_model);
        let text =
            self.template.render(&messages[..=turn], asks_for_reply).map_err(Fault::of_refusal)?;
        if !text.starts_with(before) {
            return Err(Fault {
                what: format!(
                    "is written by the chat template in another way up to turn {} than up to the turn before",
                    turn + 1
                ),
                remedy: "use another template, or --no-mask or --for-rm, which need no turns",
            });
        }
        let ids = self
            .tokenizer
            .encode_bare(&text)
            .map_err(|e| Fault::of_chat(format!("has no ids: {e}")))?;
        let kept = ids.iter().zip(&encoded.ids).take_while(|(new, old)| new == old).count();
        encoded.ids.truncate(kept);
        encoded.labels.truncate(kept);
        let new = &ids[kept..];
        let is_learned = match self.learned {
            Learned::Turns => is_of_model(&messages[turn]),
            Learned::LastTurn => is_of_model(&messages[turn]) && turn + 1 == messages.len(),
            Learned::End => false,
            Learned::All => true,
        };
        encoded.labels.extend(new.iter().map(|&id| if is_learned { id.into() } else { IGNORED }));
        encoded.ids.extend(new);
        Ok(text)
    }
}

/// Why a chat has no ids: a clause without its subject, and what can be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) remedy: &'static str,
}

impl Fault {
    fn of_chat(what: String) -> Self {
        Self { what, remedy: "correct it, or take it out" }
    }

    fn of_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Chat(words) => {
                Self::of_chat(format!("is refused by the chat template: {words}"))
            }
            Refusal::Template(words) => Self {
                what: format!("cannot be written, since the chat template fails: {words}"),
                remedy: "put one that works beside tokenizer.json, as chat_template.jinja",
            },
        }
    }
}

/// The messages of a chat.
fn messages_of(chat: &Value) -> Result<&[Value], Fault> {
    let messages =
        chat.as_array().filter(|all| all.iter().all(|message| message["role"].is_string()));
    messages.map(Vec::as_slice).ok_or_else(|| {
        Fault::of_chat("is no list of messages, each with a \"role\" and a \"content\"".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEMPLATE: &str = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}\
                            {% if add_generation_prompt %}<assistant>{% endif %}";

    /// GPT-2 with a template, and with marks that are one token each.
    fn load(template: &str, learned: Learned) -> Result<ChatEncoder> {
        load_with(template, learned, true)
    }

    fn load_with(template: &str, learned: Learned, has_end: bool) -> Result<ChatEncoder> {
        let folder = tempfile::tempdir().unwrap();
        let mut tokenizer: Value =
            serde_json::from_str(Tokenizer::load("gpt2").unwrap().json()).unwrap();
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        for (id, mark) in (50_257..).zip(["<user>", "<assistant>"]) {
            added.push(json!({"id": id, "content": mark, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true}));
        }
        added.retain(|token| has_end || token["content"] != "<|endoftext|>");
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let config = json!({"chat_template": template}).to_string();
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        ChatEncoder::load(folder.path().to_str().unwrap(), "assistant", learned)
    }

    fn chat() -> Value {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        json!([
            turn("user", "a"),
            turn("assistant", "b"),
            turn("user", "c"),
            turn("assistant", "d e")
        ])
    }

    /// `<user>a<assistant>b<user>c<assistant>d e` and the end of text.
    const IDS: [u32; 10] = [50_257, 64, 50_258, 65, 50_257, 66, 50_258, 67, 304, 50_256];

    #[test]
    fn labels_are_those_of_the_turns_that_are_learned() {
        let labelled = |learned| {
            let row = load(TEMPLATE, learned).unwrap().encode(&chat()).unwrap();
            assert_eq!(row.ids, IDS);
            row.labels
        };
        // The mark of the model's turn is set for it, and the next mark of the user is not its own.
        let turns = [-100, -100, -100, 65, -100, -100, -100, 67, 304, 50_256];
        assert_eq!(labelled(Learned::Turns), turns);
        let last = [-100, -100, -100, -100, -100, -100, -100, 67, 304, 50_256];
        assert_eq!(labelled(Learned::LastTurn), last);
        let end = [-100, -100, -100, -100, -100, -100, -100, -100, -100, 50_256];
        assert_eq!(labelled(Learned::End), end);
        assert_eq!(labelled(Learned::All), [0; 0]);
    }

    #[test]
    fn a_chat_that_the_user_ends_has_an_end_that_is_not_learned() {
        let chat = json!([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]);
        let row = load(TEMPLATE, Learned::Turns).unwrap().encode(&chat).unwrap();
        assert_eq!(row.ids, [50_258, 64, 50_257, 65, 50_256]);
        // Nothing was before the first mark that could ask for it.
        assert_eq!(row.labels, [50_258, 64, -100, -100, -100]);
    }

    #[test]
    fn a_token_that_runs_into_the_next_turn_belongs_to_it() {
        let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        // ` the` and `re` are two tokens, and ` there` is one.
        let chat = json!([turn("user", "a the"), turn("assistant", "re")]);
        let row = load(template, Learned::Turns).unwrap().encode(&chat).unwrap();
        assert_eq!(row.ids, [64, 612, 50_256]);
        assert_eq!(row.labels, [-100, 612, 50_256]);
    }

    #[test]
    fn a_tokenizer_without_an_end_of_text_ends_nothing() {
        let row = load_with(TEMPLATE, Learned::Turns, false).unwrap().encode(&chat()).unwrap();
        assert_eq!(row.ids, IDS[..9]);
        let refused = load_with(TEMPLATE, Learned::End, false).unwrap_err().to_string();
        assert!(refused.starts_with("--for-rm needs an end-of-text token, which "), "{refused}");
        assert!(
            refused.ends_with(" has not; name it as eos_token in tokenizer_config.json"),
            "{refused}"
        );
    }

    #[test]
    fn what_is_no_chat_or_not_for_the_template_is_refused() {
        let encoder = load(TEMPLATE, Learned::Turns).unwrap();
        assert_eq!(encoder.encode(&json!([])).unwrap(), Row::default());
        for other in [json!("text"), json!(null), json!([1]), json!([{"content": "no role"}])] {
            assert_eq!(
                encoder.encode(&other).unwrap_err().what,
                "is no list of messages, each with a \"role\" and a \"content\""
            );
        }
        let shortens = "{{ messages[-1].content }}";
        assert_eq!(
            load(shortens, Learned::Turns).unwrap().encode(&chat()).unwrap_err().what,
            "is written by the chat template in another way up to turn 2 than up to the turn before"
        );
        let raises = "{{ raise_exception('no turns, please') }}";
        assert_eq!(
            load(raises, Learned::Turns).unwrap().encode(&chat()).unwrap_err().what,
            "is refused by the chat template: no turns, please"
        );
        // minijinja 3.1 panics there.
        let leaves =
            "{% for m in messages %}{% with x = 1 %}{% continue %}{% endwith %}{% endfor %}";
        assert_eq!(
            load(leaves, Learned::All).unwrap().encode(&chat()).unwrap_err().what,
            "cannot be written, since the chat template fails: minijinja cannot run it, perhaps for a break or continue within a with"
        );
        let fault =
            load("{{ messages.none() }}", Learned::All).unwrap().encode(&chat()).unwrap_err();
        assert_eq!(
            (fault.what.as_str(), fault.remedy),
            (
                "cannot be written, since the chat template fails: sequence has no method named none in its line 1",
                "put one that works beside tokenizer.json, as chat_template.jinja"
            )
        );
    }
}
