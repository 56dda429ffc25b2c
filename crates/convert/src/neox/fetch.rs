//! The files of a corpus, brought here: complete under their names, or not there.

use std::error::Error as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use mds::storage::{Remote, RemoteOptions};
use sha2::{Digest, Sha256};
use tempfile::TempPath;

use super::corpora::{Corpus, State};
use super::documents::is_known_kind;
use crate::error::{Error, ErrorKind, Result};
use crate::ordered::POLL;

/// A host that is gone is to be noticed soon, and a pause of one that is not to be outlived.
const ATTEMPTS: u32 = 4;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// What to do where a file cannot be had.
const OR_A_COPY: &str = "or name a copy with --mirror URL|PATH";

/// A file of a corpus, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// An address, or a path of this machine.
    from: String,
    name: String,
    sha256: Option<String>,
}

impl Source {
    /// The files of `corpus`, from `mirrors` if there are any: each is a file, or a folder that holds
    /// those of the corpus. `sha256` are what the files must have, in the same order.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the corpus can be had from a mirror alone, and there is none, or a mirror
    /// is not there; [`ErrorKind::InvalidArgument`] if the names or the numbers do not go together.
    pub fn of_corpus(corpus: &Corpus, mirrors: &[String], sha256: &[String]) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for (i, url) in corpus.urls.iter().enumerate().filter(|_| mirrors.is_empty()) {
            if let State::Gone(why) = corpus.state {
                return Err(gone(corpus, why));
            }
            found.push(Self::at(url.clone(), corpus.sha256.get(i))?);
        }
        for mirror in mirrors {
            found.extend(of_mirror(corpus, mirror)?);
        }
        if !sha256.is_empty() && sha256.len() != found.len() {
            return Err(Error::invalid(
                format!("--sha256 has {} sums for {} files", sha256.len(), found.len()),
                "give one for each file, in their order",
            ));
        }
        for (source, sum) in found.iter_mut().zip(sha256) {
            check_sha256(sum)?;
            source.sha256 = Some(sum.to_lowercase());
        }
        for (i, source) in found.iter().enumerate() {
            if found[..i].iter().any(|other| other.name == source.name) {
                let what = format!("two files of {} are called {}", corpus.name, source.name);
                return Err(Error::invalid(what, "rename one of them"));
            }
        }
        Ok(found)
    }

    fn at(from: String, sha256: Option<&String>) -> Result<Self> {
        let sha256 = sha256.map(|sum| sum.to_lowercase());
        Ok(Self { name: Corpus::file_name(&from)?, from, sha256 })
    }

    /// What it is called here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How messages call the place that it comes from.
    pub fn shown(&self) -> String {
        mds::redacted(&self.from)
    }

    /// Brings the file into `folder`, and says where it is. What is there already and has the right
    /// sum stays, unless `anew`; a file of this machine is checked and used where it is.
    ///
    /// # Errors
    /// [`ErrorKind::Hub`] if the source fails, [`ErrorKind::Corrupt`] if what came has another sum;
    /// failures of the disk; [`ErrorKind::Interrupted`] once the flag is set. Nothing has the file's
    /// name then that did not have it before.
    pub fn bring(&self, folder: &Path, anew: bool, cancel: &AtomicBool) -> Result<PathBuf> {
        if !mds::storage::is_address(&self.from) {
            let path = PathBuf::from(&self.from);
            return match self.other_sum(&path, cancel)? {
                Some(found) => Err(self.has_other_sum(&found, "check the path and the sum")),
                None => Ok(path),
            };
        }
        let target = folder.join(&self.name);
        if target.exists() && !anew {
            let shown = target.display();
            match self.other_sum(&target, cancel)? {
                Some(_) => eprintln!("{shown}: another SHA-256 than asked for, fetched again"),
                None => {
                    eprintln!("{shown}: there already");
                    return Ok(target);
                }
            }
        }
        self.fetch(&target, cancel)?;
        Ok(target)
    }

    fn fetch(&self, target: &Path, cancel: &AtomicBool) -> Result<()> {
        let folder = target.parent().unwrap_or(Path::new("."));
        let unwritable = |e| Error::io(e, "write", target);
        let draft = temporary(folder).map_err(unwritable)?;
        eprintln!("{}: from {}", target.display(), self.shown());
        self.download(&draft, target, cancel)?;
        if let Some(found) = self.other_sum(&draft, cancel)? {
            return Err(self.has_other_sum(&found, OR_A_COPY.trim_start_matches("or ")));
        }
        File::open(&draft).and_then(|file| file.sync_all()).map_err(unwritable)?;
        draft.persist(target).map_err(|e| unwritable(e.error))?;
        mds::durable::sync_directory(folder).map_err(unwritable)
    }

    /// Fills the file `draft` on a thread of its own, which Ctrl-C need not wait for.
    fn download(&self, draft: &Path, target: &Path, cancel: &AtomicBool) -> Result<()> {
        let options = RemoteOptions { attempts: ATTEMPTS, ..RemoteOptions::default() };
        let (folder, name) = mds::storage::split(&self.from).map_err(Error::of_remote)?;
        let remote = Remote::open(&folder, options).map_err(Error::of_remote)?;
        let (send, done) = channel();
        let into = draft.to_path_buf();
        thread::spawn(move || send.send(remote.get_file(&name, &into)));
        let mut said = Instant::now();
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::interrupted());
            }
            match done.recv_timeout(POLL) {
                Ok(Ok(bytes)) => {
                    eprintln!("{}: {} fetched", target.display(), HumanBytes(bytes));
                    return Ok(());
                }
                Ok(Err(error)) => return Err(self.not_fetched(error, target)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("the thread of a download died"));
                }
            }
            if said.elapsed() >= LINE_EVERY {
                said = Instant::now();
                let bytes = fs::metadata(draft).map_or(0, |metadata| metadata.len());
                eprintln!("{}: {} so far", target.display(), HumanBytes(bytes));
            }
        }
    }

    fn not_fetched(&self, error: mds::Error, target: &Path) -> Error {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause.and_then(io::Error::raw_os_error) {
            // Of this machine; its message has the temporary name.
            Some(code) if error.kind() == mds::ErrorKind::Io => {
                Error::io(io::Error::from_raw_os_error(code), "write", target)
            }
            _ => Error::new(ErrorKind::Hub, Error::of_remote(error).to_string(), OR_A_COPY),
        }
    }

    /// The SHA-256 of the file at `path`, if it is not the one asked for.
    fn other_sum(&self, path: &Path, cancel: &AtomicBool) -> Result<Option<String>> {
        let Some(wanted) = &self.sha256 else { return Ok(None) };
        let found = sha256_of(path, cancel)?;
        Ok((found != *wanted).then_some(found))
    }

    fn has_other_sum(&self, found: &str, remedy: &str) -> Error {
        let wanted = self.sha256.as_deref().unwrap_or_default();
        let what = format!("{} has the SHA-256 {found}, not {wanted}", self.shown());
        Error::new(ErrorKind::Corrupt, what, remedy)
    }
}

fn gone(corpus: &Corpus, why: &str) -> Error {
    let files = match corpus.urls.as_slice() {
        [url] => Corpus::file_name(url).unwrap_or_default(),
        urls => format!("its {} files", urls.len()),
    };
    Error::new(
        ErrorKind::NotFound,
        format!("{} cannot be had from its source: {why}", corpus.name),
        format!("name a copy of {files} with --mirror URL|PATH"),
    )
}

/// The files of a mirror: itself, or those of the corpus in it.
fn of_mirror(corpus: &Corpus, mirror: &str) -> Result<Vec<Source>> {
    let is_address = mds::storage::is_address(mirror);
    let is_folder = if is_address {
        !Corpus::file_name(mirror).is_ok_and(|name| is_known_kind(&name))
    } else {
        Path::new(mirror).is_dir()
    };
    if !is_folder {
        if !is_address && !Path::new(mirror).is_file() {
            return Err(not_there(mirror));
        }
        return Ok(vec![Source::at(mirror.to_owned(), None)?]);
    }
    let in_mirror = |(i, url): (usize, &String)| {
        let name = Corpus::file_name(url)?;
        let from = if is_address {
            mds::storage::join(mirror, &name)
        } else {
            Path::new(mirror).join(name).to_string_lossy().into_owned()
        };
        if !is_address && !Path::new(&from).is_file() {
            return Err(not_there(&from));
        }
        Source::at(from, corpus.sha256.get(i))
    };
    corpus.urls.iter().enumerate().map(in_mirror).collect()
}

fn not_there(mirror: &str) -> Error {
    let what = format!("--mirror {mirror} not found");
    Error::new(ErrorKind::NotFound, what, "check the path")
}

/// A file in `folder` that is removed unless it gets another name.
fn temporary(folder: &Path) -> io::Result<TempPath> {
    let mut options = tempfile::Builder::new();
    options.prefix(".").suffix(".part");
    #[cfg(unix)]
    {
        // Temporary files are private by default; a corpus is as readable as the umask allows.
        use std::os::unix::fs::PermissionsExt;
        options.permissions(fs::Permissions::from_mode(0o666));
    }
    Ok(options.tempfile_in(folder)?.into_temp_path())
}

fn sha256_of(path: &Path, cancel: &AtomicBool) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(e, "open", path))?;
    let (mut sum, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::interrupted());
        }
        match file.read(&mut buffer).map_err(|e| Error::io(e, "read", path))? {
            0 => return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => sum.update(&buffer[..read]),
        }
    }
}

/// Refuses what cannot be the SHA-256 of a file.
pub(super) fn check_sha256(sum: &str) -> Result<()> {
    if sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(Error::invalid(
        format!("{sum:?} is no SHA-256: that has 64 hexadecimal digits"),
        "correct it, or leave it out",
    ))
}
