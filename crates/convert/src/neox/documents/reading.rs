//! One file to its documents, whatever archive it is.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use zip::ZipArchive;
use zip::result::ZipError;

use super::input::Opened;
use super::{At, Content, Cut, Document, InputFile, Kind, LONGEST, Packing, Place};
use crate::error::{Error, ErrorKind, Result};

/// The largest dictionary of an xz archive is 64 MiB at the highest level of compression.
const XZ_MEMORY: u64 = 512 << 20;

const BUFFER: usize = 128 << 10;

/// Takes the documents one after the other; an error of it ends the reading.
pub(in crate::neox) type Sink<'a> = dyn FnMut(Document) -> Result<()> + 'a;

/// Hands the documents of `file` to `sink`.
///
/// # Errors
/// Those of `sink`; [`ErrorKind::Corrupt`] if the file is damaged or cut short, or a document too long;
/// failures of the disk; an error of some kind soon after the flag is set.
pub(in crate::neox) fn read(
    file: &InputFile,
    cut: Cut,
    cancel: &Arc<AtomicBool>,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let count: Arc<AtomicU64> = Arc::default();
    let stored =
        Stored { file: file.open()?, count: Arc::clone(&count), cancel: Arc::clone(cancel) };
    let name = file.name().into();
    let mut reading = Reading { name, kind: file.kind, cut, count, sink };
    match file.kind {
        Kind::JsonLines(packing) => {
            let lines = reading.unpacked(stored, packing)?;
            let lines = without_mark(lines).map_err(|e| reading.failed(e, None))?;
            reading.lines(lines, None, Content::Json)
        }
        Kind::JsonLinesTar => reading.tar(Box::new(BufReader::with_capacity(BUFFER, stored)), None),
        Kind::JsonList => {
            let list = reading.unpacked(stored, Packing::Zstd)?;
            let list = without_mark(list).map_err(|e| reading.failed(e, None))?;
            reading.json_list_or_lines(list)
        }
        Kind::Text => reading.text(BufReader::with_capacity(BUFFER, stored), None),
        Kind::Zip => reading.zip(stored),
        Kind::TarGz => {
            let archive = reading.unpacked(stored, Packing::Gzip)?;
            reading.tar(archive, None)
        }
        Kind::TarXz => {
            let buffered = BufReader::with_capacity(BUFFER, stored);
            let archive = unxz(buffered).map_err(|e| reading.failed(e, None))?;
            reading.tar(archive, None)
        }
        Kind::Records => {
            let records = reading.unpacked(stored, Packing::Zstd)?;
            reading.records(records)
        }
        Kind::GzipLines => {
            let lines = reading.unpacked(stored, Packing::Gzip)?;
            reading.lines(lines, None, Content::Text)
        }
    }
}

/// A file that counts what was read of it and ends when the flag is set.
struct Stored {
    file: Opened,
    count: Arc<AtomicU64>,
    cancel: Arc<AtomicBool>,
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::interrupted().into());
        }
        let read = self.file.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Seek for Stored {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[expect(
    clippy::disallowed_types,
    reason = "sources declare no size; they are read as streams, a document of limited size at a time"
)]
fn unzstd<'a>(packed: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)))
}

#[expect(clippy::disallowed_types, reason = "as for zstd")]
fn gunzip<'a>(packed: impl BufRead + 'a) -> Box<dyn BufRead + 'a> {
    let decoder = flate2::bufread::MultiGzDecoder::new(packed);
    Box::new(BufReader::with_capacity(BUFFER, decoder))
}

fn unxz<'a>(packed: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, XzDecoder::new_stream(packed, stream))))
}

/// What follows the mark that some programs begin files of UTF-8 with, and that is no JSON; all if there is none.
fn without_mark<R: BufRead>(mut reader: R) -> io::Result<Chain<Cursor<Vec<u8>>, R>> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut start = Vec::new();
    reader.by_ref().take(MARK.len() as u64).read_to_end(&mut start)?;
    if start == MARK {
        start.clear();
    }
    Ok(Cursor::new(start).chain(reader))
}

/// The reading of one file.
struct Reading<'a, 's> {
    name: Arc<str>,
    kind: Kind,
    cut: Cut,
    /// Bytes of the file, as it is stored, so far.
    count: Arc<AtomicU64>,
    sink: &'a mut Sink<'s>,
}

type Member = Option<Arc<str>>;

impl Reading<'_, '_> {
    fn unpacked(&self, stored: Stored, packing: Packing) -> Result<Box<dyn BufRead>> {
        let buffered = BufReader::with_capacity(BUFFER, stored);
        match packing {
            Packing::Plain => Ok(Box::new(buffered)),
            Packing::Gzip => Ok(gunzip(buffered)),
            Packing::Zstd => unzstd(buffered).map_err(|e| self.failed(e, None)),
        }
    }

    /// One document for each line, with its end.
    fn lines(
        &mut self,
        mut reader: impl BufRead,
        member: Member,
        content: fn(Vec<u8>) -> Content,
    ) -> Result<()> {
        let mut number = 0;
        while let Some(line) = self.next_line(&mut reader, &member, number + 1)? {
            number += 1;
            let document = content(line);
            let is_blank = matches!(&document, Content::Json(line) if line.trim_ascii().is_empty());
            if !is_blank {
                self.emit(member.clone(), At::Line(number), document)?;
            }
        }
        Ok(())
    }

    fn next_line(
        &self,
        reader: &mut impl BufRead,
        member: &Member,
        number: u64,
    ) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let read = reader.take(LONGEST + 1).read_until(b'\n', &mut line);
        read.map_err(|e| self.failed(e, member.as_ref()))?;
        if line.len() as u64 > LONGEST {
            return Err(self.too_long(member.clone(), At::Line(number)));
        }
        Ok((!line.is_empty()).then_some(line))
    }

    /// A text that is one document, or is to be cut.
    fn text(&mut self, mut reader: impl BufRead, member: Member) -> Result<()> {
        if self.cut == Cut::Whole {
            let mut text = Vec::new();
            let read = reader.take(LONGEST + 1).read_to_end(&mut text);
            read.map_err(|e| self.failed(e, member.as_ref()))?;
            if text.len() as u64 > LONGEST {
                return Err(self.too_long(member, At::Start));
            }
            return self.emit_text(member, At::Start, text);
        }
        let (mut piece, mut begun, mut number) = (Vec::new(), 1, 0);
        while let Some(line) = self.next_line(&mut reader, &member, number + 1)? {
            number += 1;
            if self.cut == Cut::Lines {
                let without_end = line.strip_suffix(b"\n").unwrap_or(&line);
                let without_end = without_end.strip_suffix(b"\r").unwrap_or(without_end);
                if !without_end.trim_ascii().is_empty() {
                    self.emit_text(member.clone(), At::Line(number), without_end.to_vec())?;
                }
                continue;
            }
            if line.trim_ascii_start().starts_with(b"<page>") && !piece.is_empty() {
                let article = std::mem::take(&mut piece);
                self.emit_text(member.clone(), At::Line(begun), article)?;
                begun = number;
            }
            piece.extend_from_slice(&line);
            if piece.len() as u64 > LONGEST {
                return Err(self.too_long(member, At::Line(begun)));
            }
        }
        self.emit_text(member, At::Line(begun), piece)
    }

    fn zip(&mut self, stored: Stored) -> Result<()> {
        let mut archive = ZipArchive::new(stored).map_err(|e| self.failed_zip(e, None))?;
        for i in 0..archive.len() {
            let name: Member = archive.name_for_index(i).map(Into::into);
            let member = archive.by_index(i).map_err(|e| self.failed_zip(e, name.as_ref()))?;
            if member.is_dir() {
                continue;
            }
            self.text(BufReader::with_capacity(BUFFER, member), name)?;
        }
        Ok(())
    }

    /// The members of an archive; `outer` is the archive that it lies in.
    fn tar(&mut self, reader: Box<dyn BufRead + '_>, outer: Member) -> Result<()> {
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries().map_err(|e| self.failed(e, outer.as_ref()))? {
            let entry = entry.map_err(|e| self.failed(e, outer.as_ref()))?;
            if !entry.header().entry_type().is_file() || entry.size() == 0 {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let is_archive = self.kind == Kind::TarXz && name.ends_with(".xz");
            let name: Arc<str> = match &outer {
                Some(outer) => format!("{outer}/{name}").into(),
                None => name.into(),
            };
            let member = Some(Arc::clone(&name));
            let reader = BufReader::with_capacity(BUFFER, entry);
            if self.kind == Kind::JsonLinesTar {
                let failed = |e| self.failed(e, Some(&name));
                let lines = unzstd(reader).and_then(without_mark).map_err(failed)?;
                self.lines(lines, member, Content::Json)?;
            } else if is_archive && outer.is_none() {
                let inner = unxz(reader).map_err(|e| self.failed(e, Some(&name)))?;
                self.tar(inner, member)?;
            } else {
                self.text(reader, member)?;
            }
        }
        Ok(())
    }

    /// Texts behind their lengths.
    fn records(&mut self, mut reader: impl BufRead) -> Result<()> {
        let mut number = 0;
        while !reader.fill_buf().map_err(|e| self.failed(e, None))?.is_empty() {
            number += 1;
            let mut digits = [0; 16];
            reader.read_exact(&mut digits).map_err(|e| self.failed(e, None))?;
            let length = std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok());
            let Some(length) = length else {
                let place = self.place(None, At::Document(number));
                let found = String::from_utf8_lossy(&digits);
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("{place}: {found:?} is not a length of 16 digits"),
                    "fetch or write the file again",
                ));
            };
            if length > LONGEST {
                return Err(self.too_long(None, At::Document(number)));
            }
            let mut text = Vec::new();
            let read = (&mut reader).take(length).read_to_end(&mut text);
            if (read.map_err(|e| self.failed(e, None))? as u64) < length {
                return Err(self.failed(io::ErrorKind::UnexpectedEof.into(), None));
            }
            self.emit(None, At::Document(number), Content::Text(text))?;
        }
        Ok(())
    }

    fn json_list_or_lines(&mut self, mut reader: impl BufRead) -> Result<()> {
        loop {
            let buffer = reader.fill_buf().map_err(|e| self.failed(e, None))?;
            let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            match buffer.get(blank) {
                Some(b'[') => {
                    reader.consume(blank + 1);
                    return self.json_list(reader);
                }
                // The blanks stay, since they may be lines.
                Some(_) => return self.lines(reader, None, Content::Json),
                None if buffer.is_empty() => return Ok(()),
                None => reader.consume(blank),
            }
        }
    }

    /// The elements of a list whose bracket was read. Only where each ends is found here.
    fn json_list(&mut self, mut reader: impl BufRead) -> Result<()> {
        let (mut element, mut number, mut scan) = (Vec::new(), 0, Elements::default());
        loop {
            let buffer = reader.fill_buf().map_err(|e| self.failed(e, None))?;
            if buffer.is_empty() {
                return Err(self.failed(io::ErrorKind::UnexpectedEof.into(), None));
            }
            let (length, end) = scan.find_end(buffer);
            element.extend_from_slice(&buffer[..length]);
            reader.consume(length + usize::from(end.is_some()));
            if element.len() as u64 > LONGEST {
                return Err(self.too_long(None, At::Document(number + 1)));
            }
            let Some(end) = end else { continue };
            let is_empty_list = end == b']' && number == 0 && element.trim_ascii().is_empty();
            if !is_empty_list {
                number += 1;
                // One without anything in it is no JSON, and no document that is empty.
                let content = Content::Json(std::mem::take(&mut element));
                let place = self.place(None, At::Document(number));
                (self.sink)(Document { place, content })?;
            }
            if end == b']' {
                return self.nothing_more(reader);
            }
        }
    }

    /// Refuses what follows a list.
    fn nothing_more(&self, mut reader: impl BufRead) -> Result<()> {
        loop {
            let buffer = reader.fill_buf().map_err(|e| self.failed(e, None))?;
            if buffer.is_empty() {
                return Ok(());
            }
            if !buffer.trim_ascii().is_empty() {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("{}: something follows the list", self.name),
                    "write one list, or one object in each line",
                ));
            }
            let length = buffer.len();
            reader.consume(length);
        }
    }

    /// A whole text; in a file of text line ends are as Python reads them.
    fn emit_text(&mut self, member: Member, at: At, text: Vec<u8>) -> Result<()> {
        let text = if self.kind == Kind::Text { with_plain_line_ends(text) } else { text };
        self.emit(member, at, Content::Text(text))
    }

    fn emit(&mut self, member: Member, at: At, content: Content) -> Result<()> {
        let document = Document { place: self.place(member, at), content };
        if document.bytes() == 0 { Ok(()) } else { (self.sink)(document) }
    }

    fn place(&self, member: Member, at: At) -> Place {
        Place { file: Arc::clone(&self.name), member, at }
    }

    fn too_long(&self, member: Member, at: At) -> Error {
        let place = self.place(member, at);
        let remedy = if self.kind.is_of_texts() && self.cut == Cut::Whole {
            "cut it with --split-documents"
        } else {
            "cut it into several documents"
        };
        Error::new(
            ErrorKind::Corrupt,
            format!("{place}: a document is longer than 256 MiB"),
            remedy,
        )
    }

    fn failed(&self, error: io::Error, member: Option<&Arc<str>>) -> Error {
        let place = self.place(member.cloned(), At::Start).to_string();
        Error::from_read(error, &place, self.count.load(Ordering::Relaxed))
    }

    fn failed_zip(&self, error: ZipError, member: Option<&Arc<str>>) -> Error {
        match error {
            ZipError::Io(error) => self.failed(error, member),
            ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => {
                let place = self.place(member.cloned(), At::Start);
                let what = format!("{place}: {error}");
                Error::invalid(what, "pack it again with deflate and without a password")
            }
            error => self.failed(error.into(), member),
        }
    }
}

/// Where the elements of a JSON list end.
#[derive(Default)]
struct Elements {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Elements {
    /// How many of these bytes belong to the element that was begun, and what ends it, if anything does:
    /// a comma or the bracket of the list.
    fn find_end(&mut self, bytes: &[u8]) -> (usize, Option<u8>) {
        for (i, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b',' | b']' if self.depth == 0 => return (i, Some(byte)),
                b'[' | b'{' => self.depth += 1,
                // One brace too many is found when the element is parsed.
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        (bytes.len(), None)
    }
}

/// `\r\n` and `\r` become `\n`.
fn with_plain_line_ends(text: Vec<u8>) -> Vec<u8> {
    if !text.contains(&b'\r') {
        return text;
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.into_iter().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\r' {
            bytes.next_if_eq(&b'\n');
            plain.push(b'\n');
        } else {
            plain.push(byte);
        }
    }
    plain
}
