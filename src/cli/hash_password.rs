//! `hookward hash-password`: what a `password_hash` is made of.

use std::io::{self, IsTerminal};

use anyhow::bail;
use zeroize::Zeroizing;

use super::ExitStatus;
use super::input;
use super::output::Output;
use crate::password_hash::hash_password;

/// Hash a password from standard input with Argon2id
///
/// One trailing newline is dropped. Prints a PHC string for `password_hash` of a Basic user.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, output: &mut Output) -> anyhow::Result<ExitStatus> {
    if io::stdin().is_terminal() {
        output.note("type the password, which is shown, then Enter and Ctrl-D");
    }
    let read = Zeroizing::new(input::read_stdin()?);
    let password = without_newline(&read);
    if password.is_empty() {
        bail!("the password is empty");
    }
    output.line(hash_password(password).map_err(anyhow::Error::msg)?);
    Ok(ExitStatus::Success)
}

/// Without one trailing LF or CRLF.
fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes_without_lf = bytes.strip_suffix(b"\n");
    bytes_without_lf.map_or(bytes, |bytes| bytes.strip_suffix(b"\r").unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_is_dropped() {
        for (read, password) in [
            (&b"p"[..], &b"p"[..]),
            (b"p\n", b"p"),
            (b"p\r\n", b"p"),
            (b"p\n\n", b"p\n"),
            (b" p ", b" p "),
            (b"p\r", b"p\r"),
            (b"\n", b""),
        ] {
            assert_eq!(without_newline(read), password);
        }
    }
}
