//! The one door to standard output and standard error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use super::ExitStatus;

/// What a verb prints. Data is kept until the verb has ended and is then written at once, so that
/// a verb that could not answer leaves nothing half said.
#[derive(Debug, Default)]
pub(super) struct Output {
    data: Vec<u8>,
}

impl Output {
    /// A line of data.
    pub(super) fn line(&mut self, text: impl Display) {
        self.bytes(text.to_string().as_bytes());
        self.bytes(b"\n");
    }

    /// Data as it is.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }

    /// Data for machines.
    pub(super) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer_pretty(&mut self.data, value)?;
        self.data.push(b'\n');
        Ok(())
    }

    /// A line for the person in front, at once. Nobody has to be listening.
    #[expect(
        clippy::unused_self,
        reason = "one writer for both, so that a verb cannot print else"
    )]
    pub(super) fn note(&self, text: impl Display) {
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// Writes the data. A reader that has gone away (`| head`) had what it wanted.
    pub(super) fn finish(self, status: ExitStatus) -> ExitStatus {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(&self.data).and_then(|()| stdout.flush()) {
            Ok(()) => status,
            Err(error) if error.kind() == ErrorKind::BrokenPipe => status,
            Err(error) => {
                self.note(format_args!(
                    "error: cannot write to standard output: {error}"
                ));
                ExitStatus::Unable
            }
        }
    }
}
