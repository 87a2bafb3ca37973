//! The command line, by the real binary: exit codes, what goes to which stream, what people read.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

mod hints;
mod providers;
mod run;
mod send;
mod sign;
mod text;
mod validate;
mod verify;

/// A folder to run the binary in.
pub(crate) struct Shell {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            env: Vec::new(),
        }
    }

    /// With a file, in the same folder.
    pub(crate) fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.dir.path().join(name), content).unwrap();
        self
    }

    /// With an environment variable; nothing else of the outside is passed on.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn command<A: AsRef<std::ffi::OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .envs(self.env.clone());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.feed(args, b"")
    }

    /// With `input` on standard input.
    pub(crate) fn feed<A: AsRef<std::ffi::OsStr>>(&self, args: &[A], input: &[u8]) -> Ended {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads no input may be gone already.
        child.stdin.take().unwrap().write_all(input).ok();
        let output = child.wait_with_output().unwrap();
        Ended {
            code: output.status.code().expect("no signal ended it"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Data on standard output, and nothing but data.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the exit code; shows everything when it is another.
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self
    }

    /// A refusal to answer: exit 2, one line on standard error that holds `part`, no data.
    pub(crate) fn unable(self, part: &str) -> Self {
        let ended = self.code(2);
        assert_eq!(ended.stdout, "", "{ended:?}");
        assert!(ended.stderr.contains(part), "{ended:?}");
        ended
    }
}

/// Snapshots lie in `tests/snapshots`, as those of the library do.
pub(crate) fn snapshots(body: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(body);
}

/// A configuration with these routes.
pub(crate) fn config(routes: &str) -> String {
    format!(
        "version: 1\nlisteners:\n  https:\n    address: 127.0.0.1:0\n    tls: {{ self_signed: [localhost] }}\n\
         routes:\n{routes}"
    )
}
