//! A scratch folder and a program in it, as a user runs it: `convert-c4`, unless it is said otherwise.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder to work in, and commands that never leave this machine.
pub(crate) struct Workshop {
    folder: tempfile::TempDir,
    /// What is run where no program is named.
    main: &'static str,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        Self::of(env!("CARGO_BIN_EXE_convert-c4"))
    }

    /// A folder for the program at this path.
    pub(crate) fn of(main: &'static str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), main }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.program(self.main, args)
    }

    /// The program `convert`: a source and its flags.
    pub(crate) fn convert(&self, args: &[&str]) -> Output {
        self.program(env!("CARGO_BIN_EXE_convert"), args).output().unwrap()
    }

    /// `convert`, which must succeed.
    pub(crate) fn converted(&self, args: &[&str]) -> Output {
        let output = self.convert(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        output
    }

    /// The error message of `convert`, which must fail with code 1.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.convert(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        let errors = stderr(&output);
        let start = format!("convert {}: error: ", args[0]);
        let message = errors.lines().find_map(|line| line.strip_prefix(&start));
        message.unwrap_or_else(|| panic!("no error line: {errors}")).to_owned()
    }

    fn program(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .args(args)
            .env("HF_ENDPOINT", "http://127.0.0.1:1")
            .env("HOME", self.folder.path())
            .env_remove("XDG_CACHE_HOME")
            .env_remove("HF_TOKEN")
            .env_remove("RUST_LOG")
            .env_remove("SLURM_PROCID")
            .env_remove("SLURM_ARRAY_TASK_ID")
            .env_remove("OMPI_COMM_WORLD_RANK")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn succeed(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        output
    }

    /// Runs a command that must fail with code 1, and gives its error message.
    pub(crate) fn fail(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        let errors = stderr(&output);
        let begin = format!("{}: error: ", Path::new(self.main).file_name().unwrap().display());
        let message = errors.lines().find_map(|line| line.strip_prefix(&begin));
        message.unwrap_or_else(|| panic!("no error line: {errors}")).to_owned()
    }

    /// Nothing, finished or not, stands where the dataset should be.
    pub(crate) fn assert_nothing_written(&self, out_root: &str) {
        assert!(!self.path(out_root).exists(), "{:?}", entries(&self.path(out_root)));
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}
