//! Runs `mds-inspect` as a user does.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;

pub(crate) fn inspect(args: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mds-inspect"));
    // A machine's own cloud settings and proxies must not decide a test.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let foreign = ["AWS_", "GOOGLE_", "AZURE_", "GCS_", "HF_", "S3_", "RUST_LOG"];
        if foreign.iter().any(|prefix| name.starts_with(prefix))
            || name.to_ascii_lowercase().ends_with("_proxy")
        {
            command.env_remove(name);
        }
    }
    command.args(args).timeout(Duration::from_secs(60));
    Run(command)
}

pub(crate) struct Run(pub(crate) Command);

pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn output(mut self) -> Output {
        let output = self.0.output().unwrap();
        Output {
            code: output.status.code().expect("the program was killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// How it ends when nobody reads what it prints.
    #[cfg(unix)]
    pub(crate) fn closed(self) -> Output {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        self.printing_to(writer.into())
    }

    /// How it ends when it prints to something else.
    pub(crate) fn printing_to(self, out: std::process::Stdio) -> Output {
        let mut command = std::process::Command::new(self.0.get_program());
        command.args(self.0.get_args());
        for (name, value) in self.0.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.stdout(out).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        Output {
            code: output.status.code().expect("the program was killed"),
            out: String::new(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What it prints when all is well.
    #[track_caller]
    pub(crate) fn succeeds(self) -> String {
        let Output { code, out, err } = self.output();
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out
    }

    /// The one line that it prints to standard error when the dataset cannot be read.
    #[track_caller]
    pub(crate) fn fails(self) -> String {
        let Output { code, out, err } = self.output();
        assert_eq!(code, 1, "{out}{err}");
        let line = err.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "{err}");
        line.to_owned()
    }
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
