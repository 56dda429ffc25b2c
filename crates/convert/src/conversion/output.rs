//! The shards of a split being written: what the one thread does that keeps the order.

use mds::format::{DType, Encoding, Index, NdArray, Schema, ShardInfo, Value};
use mds::{Writer, WriterOptions};

use super::content::{Columns, Content, Document, Parsed, TokenEncoding, TokenOptions};
use crate::concat::{Concatenator, Cut, Pending};
use crate::error::{Error, Result};
use crate::manifest::Journal;
use crate::out_root::{Records, Unfinished};
use crate::statistics::Tally;

pub(super) struct Output {
    pub(super) writer: Writer,
    samples: Samples,
    /// Samples that come again, and are in the shards already.
    again: u64,
    /// How many samples are taken, if not all.
    pub(super) most: Option<u64>,
}

/// How samples are made of documents.
enum Samples {
    /// So many columns of text, of one document.
    Text(usize),
    Tokens(TokenSamples),
}

struct TokenSamples {
    /// `None`: a document is a sample.
    concat: Option<Concatenator>,
    encoding: TokenEncoding,
    sequence_id: bool,
}

impl Output {
    /// Begins the shards, or goes on after those that are there: `shards` at a remote.
    pub(super) fn open(
        place: &Unfinished,
        content: &Content,
        options: WriterOptions,
        shards: Vec<ShardInfo>,
    ) -> Result<Self> {
        let text = |columns: &[&str]| Schema::new(columns.iter().map(|&c| (c, Encoding::Str)));
        let (schema, samples) = match content {
            Content::Text => (text(&["text"])?, Samples::Text(1)),
            Content::PileRecords => (text(&["pile_set_name", "text"])?, Samples::Text(2)),
            Content::Records => (text(&["text", "timestamp", "url"])?, Samples::Text(3)),
            Content::Tokens(options) => {
                (token_schema(options)?, Samples::Tokens(TokenSamples::new(options)?))
            }
        };
        let writer = if place.records().is_remote() {
            Writer::resume_after(place.output(), schema, options, shards)?
        } else {
            Writer::resume(place.output(), schema, options)?
        };
        Ok(Self { writer, samples, again: 0, most: None })
    }

    /// Takes the samples after the first `samples`, and `pending` tokens before them.
    pub(super) fn resume(&mut self, samples: u64, pending: Pending) {
        self.again = self.writer.samples() - samples;
        if let Samples::Tokens(TokenSamples { concat: Some(concat), .. }) = &mut self.samples {
            concat.resume(pending);
        }
    }

    /// How many samples there have been.
    pub(super) fn samples(&self) -> u64 {
        self.writer.samples() - self.again
    }

    /// Whether no more samples are taken.
    pub(super) fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.samples() >= most)
    }

    /// Tokens that wait to become a sample.
    pub(super) fn pending(&self) -> Pending {
        match &self.samples {
            Samples::Tokens(TokenSamples { concat: Some(concat), .. }) => concat.pending().clone(),
            _ => Pending::default(),
        }
    }

    /// Writes the samples of a chunk, and counts the documents that they are of.
    pub(super) fn write(&mut self, parsed: &Parsed, tally: &mut Tally) -> Result<()> {
        for (name, documents) in &parsed.left_out {
            tally.leave_out(name, *documents);
        }
        let mut start = 0;
        for (number, &Document { bytes, end, subset }) in parsed.documents.iter().enumerate() {
            if self.is_full() {
                return Ok(());
            }
            let subset = subset.and_then(|subset| parsed.subsets.get(subset));
            let tokens = match &parsed.columns {
                Columns::Text(texts) => {
                    self.write_text(&texts[number])?;
                    None
                }
                Columns::Ids(ids) => {
                    self.write_document(&ids[start..end])?;
                    Some((end - start) as u64)
                }
            };
            tally.add(bytes, tokens, subset.map(String::as_str));
            start = end;
        }
        Ok(())
    }

    /// Keeps the complete shards for another run.
    pub(super) fn abandon(self, journal: &mut Journal, records: &Records) -> Result<()> {
        // Shards of which there are no records here could not be gone on with.
        if records.is_remote() && !journal.has_records() {
            records.remove();
            return Ok(());
        }
        let shards = self.writer.abandon()?;
        if shards.is_empty() { Ok(()) } else { journal.write(shards, records) }
    }

    /// The index, once all shards are complete.
    pub(super) fn finish(self) -> Result<Index> {
        Ok(self.writer.finish()?)
    }

    fn write_text(&mut self, columns: &[String; 3]) -> Result<()> {
        let Samples::Text(count) = self.samples else { return Ok(()) };
        // In the order of the schema's columns, which is that of their names.
        let values = columns.each_ref().map(|text| Value::from(text.as_str()));
        self.write_sample(&values[..count])
    }

    fn write_document(&mut self, ids: &[u32]) -> Result<()> {
        let Self { writer, samples: Samples::Tokens(samples), again, most } = self else {
            return Ok(());
        };
        let mut result = Ok(());
        let TokenSamples { concat, encoding, sequence_id } = samples;
        let mut write = |ids: &[u32], sequence_ids: &dyn Fn() -> Vec<i32>| {
            let is_full = most.is_some_and(|most| writer.samples() - *again >= most);
            if result.is_err() || is_full {
                return;
            }
            if let Some(rest) = again.checked_sub(1) {
                *again = rest;
                return;
            }
            result = encoded(ids, *encoding).and_then(|tokens| {
                let sequence_ids = sequence_id.then(|| NdArray::from_i32(&sequence_ids()));
                let columns = sequence_ids.map(Value::NdArray).into_iter().chain([tokens]);
                Ok(writer.write(&columns.collect::<Vec<_>>())?)
            });
        };
        match concat {
            Some(concat) => {
                concat.push(ids, |sample: Cut<'_>| write(sample.ids, &|| sample.sequence_ids()));
            }
            None => write(ids, &|| vec![0; ids.len()]),
        }
        result
    }

    fn write_sample(&mut self, values: &[Value<'_>]) -> Result<()> {
        match self.again.checked_sub(1) {
            Some(rest) => self.again = rest,
            None => self.writer.write(values)?,
        }
        Ok(())
    }
}

impl TokenSamples {
    fn new(options: &TokenOptions) -> Result<Self> {
        let ids = |text: &str| match &options.tokenizer {
            Some(tokenizer) => tokenizer.encode_bare(text),
            None => Ok(Vec::new()),
        };
        let (bos, eos) = (ids(&options.bos_text)?, ids(&options.eos_text)?);
        let concat = options.length.map(|length| Concatenator::new(length, bos, eos, options.wrap));
        Ok(Self { concat, encoding: options.encoding, sequence_id: options.sequence_id })
    }
}

fn token_schema(options: &TokenOptions) -> mds::Result<Schema> {
    let array = |dtype| Encoding::NdArray { dtype: Some(dtype), shape: None };
    let tokens = match options.encoding {
        TokenEncoding::Int32 => array(DType::I32),
        TokenEncoding::Uint16 => array(DType::U16),
        TokenEncoding::Bytes => Encoding::Bytes,
    };
    let sequence_id = options.sequence_id.then(|| ("sequence_id", array(DType::I32)));
    Schema::new(sequence_id.into_iter().chain([("tokens", tokens)]))
}

/// The ids as the column stores them, `[length]`.
fn encoded(ids: &[u32], encoding: TokenEncoding) -> Result<Value<'static>> {
    if let Some(id) = ids.iter().find(|&&id| id > encoding.greatest()) {
        let encoding = encoding.as_str();
        return Err(Error::invalid(
            format!("there is a token id {id}, which --token_encoding {encoding} cannot hold"),
            "use a wider --token_encoding",
        ));
    }
    let array = |dtype, bytes: Vec<u8>| NdArray::new(dtype, vec![ids.len() as u64], bytes);
    Ok(match encoding {
        TokenEncoding::Int32 => {
            let bytes = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            Value::NdArray(array(DType::I32, bytes)?)
        }
        TokenEncoding::Uint16 => {
            let bytes = ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect();
            Value::NdArray(array(DType::U16, bytes)?)
        }
        TokenEncoding::Bytes => {
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| u64::from(id).to_le_bytes()).collect();
            Value::Bytes(bytes.into())
        }
    })
}
