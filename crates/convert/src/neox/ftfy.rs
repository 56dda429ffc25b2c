//! Texts repaired by ftfy, the user's own: `preprocess-data --ftfy`.
//!
//! ftfy makes right what a wrong encoding made of a text. What it gives follows from tables and heuristics that change from
//! release to release; no crate gives the same, and a copy of its code would not be welcome to its author. So ftfy itself
//! runs: each worker has a child, the `python3` of `PATH` (that of an activated virtual environment, if there is one) with
//! the script `ftfy.py` of this folder.
//!
//! ```text
//! request   length of a text in bytes (u64, little endian), the text in UTF-8
//! answer    `=`, length, the repaired text; or `!`, length, words that say what failed
//! ```
//!
//! The first answer comes unasked and is ftfy's version. Each request is answered before the next one, so that neither side
//! waits with a full pipe for the other. A child ends when its input is closed, within a text too, so that none outlives this
//! program, however that ends; Ctrl-C on a terminal does not reach it, since it is in a process group of its own.

use std::io::{self, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

const PYTHON: &str = "python3";
const SCRIPT: &str = include_str!("ftfy.py");

/// What an answer begins with.
const TEXT: u8 = b'=';
const FAILURE: u8 = b'!';

/// ftfy in as many processes as texts are repaired at a time.
#[derive(Debug)]
pub struct Ftfy {
    version: String,
    /// Those that repair nothing now.
    idle: Mutex<Vec<Python>>,
}

impl Ftfy {
    /// Starts ftfy for so many threads.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no `python3` or it has no ftfy, [`ErrorKind::Io`] if it ends at once.
    pub fn start(threads: usize) -> Result<Self> {
        // All at once, since each takes a while to import ftfy.
        let mut idle = (0..threads.max(1)).map(|_| Python::spawn()).collect::<Result<Vec<_>>>()?;
        let mut version = String::new();
        for child in &mut idle {
            version = child.version()?;
        }
        Ok(Self { version, idle: Mutex::new(idle) })
    }

    /// Its version, such as `6.3.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What `ftfy.fix_text` makes of a text.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if ftfy fails on this text, [`ErrorKind::Io`] if its process ended; those of
    /// [`Ftfy::start`] in a thread more than it was started for.
    pub fn fix_text(&self, text: &str) -> Result<String> {
        let taken = self.idle().pop();
        let mut child = match taken {
            Some(child) => child,
            None => {
                let mut child = Python::spawn()?;
                child.version()?;
                child
            }
        };
        let fixed = child.fix_text(text)?;
        self.idle().push(child);
        Ok(fixed)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Python>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One process.
#[derive(Debug)]
struct Python {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

enum Answer {
    Text(String),
    Failure(String),
}

impl Python {
    fn spawn() -> Result<Self> {
        let mut command = Command::new(PYTHON);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|e| {
            Error::new(
                ErrorKind::NotFound,
                format!("--ftfy needs {PYTHON}, which cannot be started: {e}"),
                "put one into PATH that has ftfy (pip install ftfy), or leave the flag out",
            )
        })?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(answers)) => {
                Ok(Self { child, requests, answers: BufReader::new(answers) })
            }
            _ => Err(Error::internal("a child process has no pipes")),
        }
    }

    /// ftfy's version, once after the start.
    fn version(&mut self) -> Result<String> {
        let problem = match self.answer() {
            Ok(Answer::Text(version)) => return Ok(version),
            Ok(Answer::Failure(words)) => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("--ftfy: the {PYTHON} of PATH has no ftfy: {words}"),
                    format!("run {PYTHON} -m pip install ftfy, or leave the flag out"),
                ));
            }
            Err(fault) => self.in_words(&fault),
        };
        Err(Error::new(
            ErrorKind::Io,
            format!("--ftfy: the {PYTHON} of PATH {problem} before it named the version of ftfy"),
            format!("make {PYTHON} -c \"import ftfy\" work, or leave the flag out"),
        ))
    }

    fn fix_text(&mut self, text: &str) -> Result<String> {
        let problem = match self.ask(text).and_then(|()| self.answer()) {
            Ok(Answer::Text(fixed)) => return Ok(fixed),
            Ok(Answer::Failure(words)) => {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("ftfy fails on it: {words}"),
                    "correct it, or take it out",
                ));
            }
            Err(fault) => self.in_words(&fault),
        };
        Err(Error::new(
            ErrorKind::Io,
            format!("the {PYTHON} that runs ftfy {problem} in place of repairing it"),
            "run the command again, and take the document out if that ends here too",
        ))
    }

    fn ask(&mut self, text: &str) -> io::Result<()> {
        self.requests.write_all(&(text.len() as u64).to_le_bytes())?;
        self.requests.write_all(text.as_bytes())
    }

    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is no answer.
    fn answer(&mut self) -> io::Result<Answer> {
        let (mut mark, mut length) = ([0], [0; 8]);
        self.answers.read_exact(&mut mark)?;
        let answer = match mark {
            [TEXT] => Answer::Text,
            [FAILURE] => Answer::Failure,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        self.answers.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        let mut text = Vec::new();
        // Memory is taken for what comes, not for what is said to come.
        let read = self.answers.by_ref().take(length).read_to_end(&mut text)?;
        if read as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        String::from_utf8(text).map(answer).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// What the process did, so that there is no answer: the rest of a clause.
    fn in_words(&mut self, fault: &io::Error) -> String {
        if fault.kind() == io::ErrorKind::InvalidData {
            return "wrote what is no answer".to_owned();
        }
        // Its pipes are closed a little before it is gone.
        for _ in 0..100 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return format!("ended ({status})");
            }
            thread::sleep(Duration::from_millis(10));
        }
        "closed its pipes".to_owned()
    }
}

/// Leaves no process behind, not even one that has ended and was not waited for.
impl Drop for Python {
    fn drop(&mut self) {
        // What fails here has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
