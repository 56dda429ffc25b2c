//! Models of SentencePiece.
//!
//! The crate `sentencepiece-rs` reads a model and normalises texts as the model says. Of its searches those of
//! words and characters are used too. The other two are here, since the crate's byte-pair merges take time
//! quadratic in the length of a text, and its search of the best path rounds otherwise than SentencePiece
//! does, which shows in texts of more than 15,000 tokens.
//!
//! The source of both is SentencePiece 0.2.3, `unigram_model.cc` (`EncodeOptimized`) and `bpe_model.cc`. Older
//! versions round differently in long texts of unigram models.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use aho_corasick::{AhoCorasick, MatchKind};
use sentencepiece_rs::{ModelType, Piece, PieceType, SentencePieceProcessor};

use super::END_OF_TEXT;
use crate::error::{Error, ErrorKind, Result};

/// How much less likely than the least likely piece a character is that no piece has.
const UNKNOWN_PENALTY: f32 = 10.0;

/// What a piece that the user has asked for gets for each byte but the first: it is always taken.
const USER_DEFINED_BONUS: f64 = 0.1;

/// A sum beyond this begins anew, lest it lose its lower digits.
const RESET_THRESHOLD: f32 = 100_000.0;

/// A model of SentencePiece.
pub(super) struct SentencePiece {
    processor: SentencePieceProcessor,
    search: Search,
    /// The tokens of single bytes, in place of what is unknown.
    bytes: Option<Box<[u32; 256]>>,
    unknown: u32,
}

impl fmt::Debug for SentencePiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.processor.model();
        f.debug_tuple("SentencePiece").field(&model.model_type()).finish_non_exhaustive()
    }
}

enum Search {
    Unigram(Unigram),
    Pairs(Pairs),
    /// Words or characters.
    OfCrate,
}

/// A part of a normalised text, and the id of its piece.
type Token = (Range<usize>, u32);

impl SentencePiece {
    /// Reads the model in the file at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the file cannot be read, [`ErrorKind::Corrupt`] if it is no model.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let model = std::fs::read(path).map_err(|e| Error::io(e, "read", path))?;
        let corrupt = |problem: &dyn fmt::Display| {
            Error::new(
                ErrorKind::Corrupt,
                format!("{}: not a model of SentencePiece: {problem}", path.display()),
                "give the .model file that spm_train has written",
            )
        };
        let processor =
            SentencePieceProcessor::from_serialized_model(&model).map_err(|e| corrupt(&e))?;
        let model = processor.model();
        let pieces = model.pieces();
        let search = match model.model_type() {
            ModelType::Unigram => Search::Unigram(Unigram::of(pieces).map_err(|e| corrupt(&e))?),
            ModelType::Bpe => Search::Pairs(Pairs::of(pieces).map_err(|e| corrupt(&e))?),
            ModelType::Word | ModelType::Char => Search::OfCrate,
        };
        let (bytes, unknown) = (byte_ids(pieces), id_of(model.unk_id()));
        Ok(Self { processor, search, bytes, unknown })
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the model's table of normalisation gives what is not UTF-8.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let failed = |e| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the model of SentencePiece cannot encode a text: {e}"),
                "fetch or train the model again",
            )
        };
        let normalized = || self.processor.normalize(text).map_err(failed);
        match &self.search {
            Search::Unigram(unigram) => {
                let text = normalized()?;
                Ok(self.without_unknown(&text, unigram.best_path(&text, self.unknown)))
            }
            Search::Pairs(pairs) => {
                let text = normalized()?;
                Ok(self.without_unknown(&text, pairs.merged(&text, self.unknown)))
            }
            Search::OfCrate => {
                let ids = self.processor.encode_to_ids(text).map_err(failed)?;
                Ok(ids.into_iter().map(id_of).collect())
            }
        }
    }

    /// What is unknown becomes its bytes, or one token for as much of it as there is at a place.
    fn without_unknown(&self, text: &str, tokens: Vec<Token>) -> Vec<u32> {
        let mut ids = Vec::with_capacity(tokens.len());
        for (part, id) in tokens {
            match &self.bytes {
                _ if id != self.unknown => ids.push(id),
                Some(bytes) => ids.extend(text[part].bytes().map(|byte| bytes[usize::from(byte)])),
                None if ids.last() != Some(&self.unknown) => ids.push(id),
                None => {}
            }
        }
        ids
    }

    /// How many pieces there are.
    pub(super) fn vocab_size(&self) -> usize {
        self.processor.model().vocab_size()
    }

    /// What ends a document: the piece that GPT-NeoX uses, or what the model itself ends a text with.
    pub(super) fn end_of_document(&self) -> Option<u32> {
        let model = self.processor.model();
        model.try_piece_to_id(END_OF_TEXT).or(model.eos_id()).map(id_of)
    }
}

/// The ids of the pieces `<0x00>` to `<0xFF>`, if the model has them.
fn byte_ids(pieces: &[Piece]) -> Option<Box<[u32; 256]>> {
    let mut ids = Box::new([None; 256]);
    for (id, piece) in (0..).zip(pieces).filter(|(_, piece)| piece.kind == PieceType::Byte) {
        let digits = piece.piece.strip_prefix("<0x")?.strip_suffix('>')?;
        ids[usize::from(u8::from_str_radix(digits, 16).ok()?)] = Some(id);
    }
    let ids = ids.iter().copied().collect::<Option<Vec<u32>>>()?;
    ids.into_boxed_slice().try_into().ok()
}

fn id_of(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Whether a piece is one of a text: neither a control symbol nor a byte.
fn is_of_text(kind: PieceType) -> bool {
    matches!(kind, PieceType::Normal | PieceType::UserDefined | PieceType::Unused)
}

/// The pieces of a text are those whose probabilities have the greatest product.
struct Unigram {
    pieces: AhoCorasick,
    /// The id of each pattern of `pieces`, and the logarithm of its probability.
    scores: Vec<(u32, f32)>,
    unknown_score: f32,
}

/// The best path to a place in the text: the sum of its logarithms, its last piece and where that begins.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    id: u32,
    start: usize,
}

/// Where sums began anew last, at zero, and what they were there.
#[derive(Clone, Copy)]
struct Reset {
    at: usize,
    by: f32,
}

/// The best path to a place so far, as seen from the place where the piece looked at last begins.
#[derive(Default)]
struct Candidate {
    best: Option<Best>,
    seen_from: usize,
}

impl Candidate {
    /// Takes off the sum what it was at a reset that lies between.
    fn look_from(&mut self, start: usize, reset: Reset) {
        if let Some(best) = &mut self.best
            && self.seen_from < reset.at
            && reset.at <= start
        {
            best.score -= reset.by;
        }
        self.seen_from = start;
    }
}

impl Unigram {
    fn of(pieces: &[Piece]) -> Result<Self, aho_corasick::BuildError> {
        let normal = pieces.iter().filter(|piece| piece.kind == PieceType::Normal);
        let least = normal.map(|piece| piece.score).fold(f32::MAX, f32::min);
        let usable = (0..)
            .zip(pieces)
            .filter(|(_, piece)| matches!(piece.kind, PieceType::Normal | PieceType::UserDefined));
        let (mut patterns, mut scores) = (Vec::new(), Vec::new());
        for (id, piece) in usable {
            // The crate refuses empty pieces.
            let bonus = (USER_DEFINED_BONUS * (piece.piece.len() - 1) as f64) as f32;
            let is_wanted = piece.kind == PieceType::UserDefined;
            let score = if is_wanted { bonus } else { piece.score };
            patterns.push(piece.piece.as_str());
            scores.push((id, score));
        }
        let pieces = AhoCorasick::new(patterns)?;
        Ok(Self { pieces, scores, unknown_score: least - UNKNOWN_PENALTY })
    }

    fn best_path(&self, text: &str, unknown: u32) -> Vec<Token> {
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        best[0] = Some(Best { score: 0.0, id: unknown, start: 0 });
        let mut reset = Reset { at: 0, by: 0.0 };
        // In the order of their ends; of the same end, those that begin first.
        let mut matches = self.pieces.find_overlapping_iter(text).peekable();
        for (start, character) in text.char_indices() {
            let end = start + character.len_utf8();
            let mut last = Candidate::default();
            let mut consider = |id, score: f32, start: usize| {
                let score = score + best[start].map_or(0.0, |best| best.score);
                last.look_from(start, reset);
                if last.best.is_none_or(|best| score > best.score) {
                    last.best = Some(Best { score, id, start });
                }
            };
            let mut is_known = false;
            while let Some(piece) = matches.next_if(|piece| piece.end() <= end) {
                is_known |= piece.start() == start;
                let (id, score) = self.scores[piece.pattern()];
                consider(id, score, piece.start());
            }
            if !is_known {
                consider(unknown, self.unknown_score, start);
            }
            last.look_from(start, reset);
            best[end] = last.best.map(|best| {
                if best.score.abs() <= RESET_THRESHOLD {
                    return best;
                }
                reset = Reset { at: end, by: best.score };
                Best { score: 0.0, ..best }
            });
        }
        let mut tokens = Vec::new();
        let mut end = text.len();
        while end > 0
            && let Some(last) = best[end]
        {
            tokens.push((last.start..end, last.id));
            end = last.start;
        }
        tokens.reverse();
        tokens
    }
}

/// The pieces of a text are what is left of its characters when the neighbours are merged that make the
/// likeliest piece, as long as there are such.
struct Pairs {
    pieces: HashMap<Box<str>, (u32, f32, PieceType)>,
    /// Pieces that are not merged with others.
    user_defined: AhoCorasick,
}

/// A part of the text on the way; empty once it is merged into its neighbour.
struct Symbol {
    part: Range<usize>,
    before: Option<usize>,
    after: Option<usize>,
    is_frozen: bool,
}

/// Two symbols that make a piece.
struct Merge {
    score: f32,
    left: usize,
    right: usize,
    part: Range<usize>,
}

impl Ord for Merge {
    /// The greatest is the next to be done: that of the highest score, and of these the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Merge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Merge {}

/// The merges that made a piece which is not to be used, by that piece.
type Undo<'t> = HashMap<&'t str, usize>;

impl Pairs {
    fn of(pieces: &[Piece]) -> Result<Self, aho_corasick::BuildError> {
        let user_defined = pieces.iter().filter(|piece| piece.kind == PieceType::UserDefined);
        let user_defined = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(user_defined.map(|piece| &piece.piece))?;
        let of_text = (0..).zip(pieces).filter(|(_, piece)| is_of_text(piece.kind));
        let entry = |(id, piece): (u32, &Piece)| {
            (piece.piece.as_str().into(), (id, piece.score, piece.kind))
        };
        Ok(Self { pieces: of_text.map(entry).collect(), user_defined })
    }

    fn merged(&self, text: &str, unknown: u32) -> Vec<Token> {
        let mut symbols = self.symbols(text);
        let (mut merges, mut undo) = (BinaryHeap::new(), Undo::new());
        for right in 1..symbols.len() {
            merges.extend(self.merge(text, &symbols, Some(right - 1), Some(right), &mut undo));
        }
        while let Some(Merge { left, right, part, .. }) = merges.pop() {
            let [a, b] = [&symbols[left].part, &symbols[right].part];
            // One of them has become part of another since.
            if a.is_empty() || b.is_empty() || a.start != part.start || b.end != part.end {
                continue;
            }
            let after = symbols[right].after;
            symbols[right].part = part.end..part.end;
            symbols[left].part = part;
            symbols[left].after = after;
            if let Some(after) = after {
                symbols[after].before = Some(left);
            }
            let before = symbols[left].before;
            merges.extend(self.merge(text, &symbols, before, Some(left), &mut undo));
            merges.extend(self.merge(text, &symbols, Some(left), after, &mut undo));
        }
        let mut tokens = Vec::new();
        for symbol in symbols.into_iter().filter(|symbol| !symbol.part.is_empty()) {
            self.undone(text, symbol.part, unknown, &undo, &mut tokens);
        }
        tokens
    }

    /// The characters of a text, and the pieces in it that are not merged.
    fn symbols(&self, text: &str) -> Vec<Symbol> {
        let mut parts: Vec<(Range<usize>, bool)> = Vec::new();
        let add_characters = |range: Range<usize>, parts: &mut Vec<_>| {
            let characters = text[range.clone()].char_indices();
            parts.extend(characters.map(|(at, character)| {
                let start = range.start + at;
                (start..start + character.len_utf8(), false)
            }));
        };
        let mut end = 0;
        for piece in self.user_defined.find_iter(text) {
            add_characters(end..piece.start(), &mut parts);
            parts.push((piece.range(), true));
            end = piece.end();
        }
        add_characters(end..text.len(), &mut parts);
        let last = parts.len().saturating_sub(1);
        let symbol = |(i, (part, is_frozen)): (usize, (Range<usize>, bool))| {
            let (before, after) = (i.checked_sub(1), (i < last).then_some(i + 1));
            Symbol { part, before, after, is_frozen }
        };
        parts.into_iter().enumerate().map(symbol).collect()
    }

    /// The merge of two neighbours, if they make a piece.
    fn merge<'t>(
        &self,
        text: &'t str,
        symbols: &[Symbol],
        left: Option<usize>,
        right: Option<usize>,
        undo: &mut Undo<'t>,
    ) -> Option<Merge> {
        let (left, right) = left.zip(right)?;
        let [a, b] = [&symbols[left], &symbols[right]];
        if a.is_frozen || b.is_frozen {
            return None;
        }
        let part = a.part.start..b.part.end;
        let &(_, score, kind) = self.pieces.get(&text[part.clone()])?;
        if kind == PieceType::Unused {
            undo.insert(&text[part.clone()], a.part.len());
        }
        Some(Merge { score, left, right, part })
    }

    /// Adds a part of the text, or, if its piece is not to be used, the two that made it.
    fn undone(
        &self,
        text: &str,
        part: Range<usize>,
        unknown: u32,
        undo: &Undo<'_>,
        tokens: &mut Vec<Token>,
    ) {
        let found = self.pieces.get(&text[part.clone()]);
        let is_unused = found.is_some_and(|(_, _, kind)| *kind == PieceType::Unused);
        match undo.get(&text[part.clone()]).filter(|_| is_unused) {
            Some(left) => {
                let middle = part.start + left;
                self.undone(text, part.start..middle, unknown, undo, tokens);
                self.undone(text, middle..part.end, unknown, undo, tokens);
            }
            None => tokens.push((part, found.map_or(unknown, |(id, ..)| *id))),
        }
    }
}
