//! What a dataset was made of: documents, bytes and tokens, in all, of each source and by length.
//!
//! A conversion writes it beside the index, as `statistics.json` for programs and `statistics.html` for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::conversion::SubsetFilter;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, TASK_ID};
use crate::source::Shares;

/// The file for programs.
pub const JSON_NAME: &str = "statistics.json";
/// The file for people.
pub const HTML_NAME: &str = "statistics.html";

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents.
    pub documents: u64,
    /// Bytes of their text in UTF-8; 0 of documents that came as token ids.
    pub bytes: u64,
    /// Their tokens, without those that are set between documents; 0 where text is not tokenised.
    pub tokens: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.tokens += other.tokens;
    }
}

/// Documents by length: bin 0 has those of length 0, bin `i` those from `2^(i-1)` to `2^i - 1`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram(Vec<u64>);

impl Histogram {
    fn add(&mut self, length: u64) {
        let bin = (u64::BITS - length.leading_zeros()) as usize;
        if self.0.len() <= bin {
            self.0.resize(bin + 1, 0);
        }
        self.0[bin] += 1;
    }

    fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum += count);
    }

    /// The least and the greatest length of each bin, and how many documents have one of these.
    pub fn bins(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let first = |bin: usize| if bin == 0 { 0 } else { 1 << (bin - 1) };
        self.0.iter().enumerate().map(move |(bin, &count)| {
            let last = if bin == 0 { 0 } else { first(bin) + (first(bin) - 1) };
            (first(bin), last, count)
        })
    }
}

/// Counts that grow while documents come, and that a run which goes on takes up again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) total: Counts,
    /// Of the subsets that documents name.
    subsets: BTreeMap<String, Counts>,
    /// Documents of each subset that was not wanted.
    left_out: BTreeMap<String, u64>,
    /// By tokens, or by bytes where text is not tokenised.
    lengths: Histogram,
    /// Of the file at hand.
    pub(crate) file: Counts,
}

impl Tally {
    /// Counts one document.
    pub(crate) fn add(&mut self, bytes: u64, tokens: Option<u64>, subset: Option<&str>) {
        let counts = Counts { documents: 1, bytes, tokens: tokens.unwrap_or(0) };
        self.total.add(counts);
        self.file.add(counts);
        self.lengths.add(tokens.unwrap_or(bytes));
        let Some(subset) = subset else { return };
        match self.subsets.get_mut(subset) {
            Some(sum) => sum.add(counts),
            None => {
                self.subsets.insert(subset.to_owned(), counts);
            }
        }
    }

    /// Subsets that a filter names and no document is of.
    pub(crate) fn missing(&self, filter: &SubsetFilter) -> Vec<String> {
        let only = filter.only.iter().filter(|name| !self.subsets.contains_key(*name));
        let except = filter.except.iter().filter(|name| !self.left_out.contains_key(*name));
        only.chain(except).cloned().collect()
    }

    /// The subsets that were not wanted.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = &str> {
        self.left_out.keys().map(String::as_str)
    }

    /// Counts documents of a subset that is not wanted.
    pub(crate) fn leave_out(&mut self, subset: &str, documents: u64) {
        *self.left_out.entry(subset.to_owned()).or_default() += documents;
    }
}

/// What a dataset was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// What the conversion was asked for, and its input.
    pub(crate) manifest: Manifest,
    /// Samples of the dataset.
    pub samples: u64,
    /// All documents.
    #[serde(flatten)]
    pub total: Counts,
    /// Bytes of text per token, where there are both.
    pub bytes_per_token: Option<f64>,
    /// Documents that could not be read and were skipped.
    pub skipped: u64,
    /// The first of them, and what was wrong with each.
    pub skipped_documents: Vec<String>,
    /// Tokens at the end that filled no sample.
    pub dropped_tokens: u64,
    /// Each file with what it holds; empty where each file is a document.
    pub files: BTreeMap<String, Counts>,
    /// Each subset that documents name.
    pub subsets: BTreeMap<String, Counts>,
    /// Documents of subsets that were not wanted.
    pub left_out: BTreeMap<String, u64>,
    /// What documents are measured by: `tokens` or `bytes`.
    pub lengths_in: String,
    /// Documents by length.
    pub lengths: Histogram,
}

impl Statistics {
    /// Of a conversion that is complete.
    pub(crate) fn new(manifest: Manifest, tally: Tally, files: &[Counts]) -> Self {
        let files = manifest.file_names().zip(files);
        let mut statistics = Self {
            samples: 0,
            total: tally.total,
            bytes_per_token: None,
            skipped: 0,
            skipped_documents: Vec::new(),
            dropped_tokens: 0,
            files: files.map(|(name, &counts)| (name.to_owned(), counts)).collect(),
            subsets: tally.subsets,
            left_out: tally.left_out,
            lengths_in: String::new(),
            lengths: tally.lengths,
            manifest,
        };
        statistics.derive();
        statistics
    }

    /// What follows from the total.
    fn derive(&mut self) {
        let Counts { bytes, tokens, .. } = self.total;
        let ratio = bytes as f64 / tokens as f64;
        self.bytes_per_token = (bytes > 0 && tokens > 0).then_some(ratio);
        self.lengths_in = if tokens > 0 { "tokens" } else { "bytes" }.to_owned();
    }

    /// What the dataset was made with by this flag, if it was given.
    pub(crate) fn setting(&self, flag: &str) -> Option<&str> {
        self.manifest.settings().get(flag).map(String::as_str)
    }

    /// The number of the task that has written the dataset, if it is a part, and how the files were shared out.
    pub(crate) fn task(&self) -> Option<(usize, &Shares)> {
        Some((self.setting(TASK_ID)?.parse().ok()?, self.manifest.shares()?))
    }

    /// As `statistics.json` and `statistics.html` have it; `title` is for people.
    pub(crate) fn files(&self, title: &str) -> Result<[(&'static str, Vec<u8>); 2]> {
        let json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::internal(&format!("the statistics cannot be written: {e}")))?;
        Ok([(JSON_NAME, json), (HTML_NAME, self.to_html(title).into_bytes())])
    }

    /// Of several datasets that are one: the parts that tasks have written, in their order.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if they are not all of the same conversion.
    pub(crate) fn join(parts: Vec<Self>) -> Result<Self> {
        let mut parts = parts.into_iter();
        let Some(mut all) = parts.next() else {
            return Err(Error::internal("there are no parts to join"));
        };
        for part in parts {
            all.manifest.add(part.manifest)?;
            all.samples += part.samples;
            all.skipped += part.skipped;
            all.dropped_tokens += part.dropped_tokens;
            all.total.add(part.total);
            all.skipped_documents.extend(part.skipped_documents);
            all.files.extend(part.files);
            for (name, counts) in part.subsets {
                all.subsets.entry(name).or_default().add(counts);
            }
            for (name, documents) in part.left_out {
                *all.left_out.entry(name).or_default() += documents;
            }
            all.lengths.join(&part.lengths);
        }
        all.derive();
        Ok(all)
    }

    /// The page for people, complete in itself.
    pub fn to_html(&self, title: &str) -> String {
        let mut page = String::new();
        self.write_html(&mut page, &escaped(title)).map_or(String::new(), |()| page)
    }

    fn write_html(&self, page: &mut String, title: &str) -> std::fmt::Result {
        write!(page, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
        write!(
            page,
            "<title>{title}</title>\n<style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        )?;
        let mut rows = vec![
            ("samples", grouped(self.samples)),
            ("documents", grouped(self.total.documents)),
            ("bytes of text", grouped(self.total.bytes)),
            ("tokens", grouped(self.total.tokens)),
        ];
        rows.extend(self.bytes_per_token.map(|ratio| ("bytes per token", format!("{ratio:.3}"))));
        rows.push(("skipped documents", grouped(self.skipped)));
        rows.push(("tokens dropped at the end", grouped(self.dropped_tokens)));
        write!(page, "<table>")?;
        for (name, value) in rows {
            write!(page, "<tr><th>{name}</th><td>{value}</td></tr>")?;
        }
        writeln!(page, "</table>")?;
        writeln!(page, "<h2>Documents by length in {}</h2>", self.lengths_in)?;
        self.write_histogram(page)?;
        write_table(page, "Subsets", &self.subsets, self.total)?;
        if !self.left_out.is_empty() {
            write!(page, "<h2>Subsets left out</h2>\n<table>")?;
            for (name, &documents) in &self.left_out {
                let (name, documents) = (escaped(name), grouped(documents));
                write!(page, "<tr><th>{name}</th><td>{documents} documents</td></tr>")?;
            }
            writeln!(page, "</table>")?;
        }
        write_table(page, "Files", &self.files, self.total)?;
        if !self.skipped_documents.is_empty() {
            write!(page, "<h2>Skipped documents</h2>\n<ul>")?;
            for document in &self.skipped_documents {
                write!(page, "<li>{}</li>", escaped(document))?;
            }
            writeln!(page, "</ul>")?;
        }
        write!(page, "<h2>Settings</h2>\n<table>")?;
        for (flag, value) in self.manifest.settings() {
            write!(page, "<tr><th>{}</th><td>{}</td></tr>", escaped(flag), escaped(value))?;
        }
        write!(page, "</table>\n</body></html>\n")
    }

    /// A bar for each power of two.
    fn write_histogram(&self, page: &mut String) -> std::fmt::Result {
        const BAR: u64 = 360;
        const ROW: usize = 20;
        let bins: Vec<_> = self.lengths.bins().skip_while(|&(.., count)| count == 0).collect();
        let most = bins.iter().map(|&(.., count)| count).max().unwrap_or(0).max(1);
        write!(page, "<svg width=\"760\" height=\"{}\" role=\"img\">", bins.len() * ROW)?;
        for (row, (first, last, count)) in bins.into_iter().enumerate() {
            let (y, width) = (row * ROW, (count * BAR).div_ceil(most));
            let range = if first == last {
                grouped(first)
            } else {
                format!("{} \u{2013} {}", grouped(first), grouped(last))
            };
            write!(page, "<text x=\"210\" y=\"{}\" text-anchor=\"end\">{range}</text>", y + 14)?;
            write!(page, "<rect x=\"220\" y=\"{}\" width=\"{width}\" height=\"15\"/>", y + 2)?;
            write!(page, "<text x=\"{}\" y=\"{}\">{}</text>", 228 + width, y + 14, grouped(count))?;
        }
        writeln!(page, "</svg>")
    }
}

const STYLE: &str = "body{font:15px system-ui,sans-serif;color:#333;max-width:60em;margin:2em auto;padding:0 1em}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.6em}table{border-collapse:collapse}\
th,td{padding:.2em .8em .2em 0;text-align:right;font-weight:normal;border-bottom:1px solid #eee}\
th{text-align:left}thead th{color:#777}svg{font-size:13px}rect{fill:#1f77b4}text{fill:#333}";

fn write_table(
    page: &mut String,
    title: &str,
    rows: &BTreeMap<String, Counts>,
    total: Counts,
) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    write!(page, "<h2>{title}</h2>\n<table><thead><tr><th>name</th><th>documents</th>")?;
    write!(page, "<th>bytes</th><th>tokens</th><th>share</th></tr></thead>")?;
    for (name, counts) in rows {
        // Of tokens where there are any, since they are what is trained on.
        let (part, whole) = match total.tokens {
            0 => (counts.bytes, total.bytes),
            tokens => (counts.tokens, tokens),
        };
        let share = 100.0 * part as f64 / (whole as f64).max(1.0);
        let [documents, bytes, tokens] =
            [counts.documents, counts.bytes, counts.tokens].map(grouped);
        write!(page, "<tr><th>{}</th><td>{documents}</td><td>{bytes}</td>", escaped(name))?;
        write!(page, "<td>{tokens}</td><td>{share:.2} %</td></tr>")?;
    }
    writeln!(page, "</table>")
}

fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_fall_into_powers_of_two() {
        let mut histogram = Histogram::default();
        [0, 1, 2, 3, 4, 7, 8].into_iter().for_each(|length| histogram.add(length));
        let bins: Vec<_> = histogram.bins().collect();
        assert_eq!(bins, [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 2), (8, 15, 1)]);
        histogram.add(u64::MAX);
        assert_eq!(histogram.bins().last(), Some((1 << 63, u64::MAX, 1)));
    }

    #[test]
    fn a_page_holds_no_markup_of_the_data() {
        let mut tally = Tally::default();
        tally.add(10, Some(4), Some("<b>&\"x\""));
        tally.leave_out("Books3", 7);
        let statistics = Statistics::new(Manifest::default(), tally, &[]);
        assert_eq!(statistics.bytes_per_token, Some(2.5));
        let page = statistics.to_html("a<b");
        assert!(page.contains("<h1>a&lt;b</h1>"), "{page}");
        assert!(page.contains("<th>&lt;b&gt;&amp;&quot;x&quot;</th><td>1</td><td>10</td><td>4</td><td>100.00 %</td>"), "{page}");
        assert!(page.contains("<th>Books3</th><td>7 documents</td>"), "{page}");
        assert!(page.contains("4 \u{2013} 7</text>"), "{page}");
    }
}
