//! Files that a command is given: whole, but never without an end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use crate::config;

/// Largest request, body or password that a command reads; a device file has no end.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Reads a file, or standard input for `-`.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        return read_stdin();
    }
    let context = || format!("cannot read {}", path.display());
    // A folder can be opened, and not be read.
    let in_words = |error: io::Error| anyhow!("{}: {}", context(), config::reason(&error));
    let file = File::open(path).map_err(in_words)?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(in_words(io::ErrorKind::IsADirectory.into()));
    }
    limited(file).with_context(context)
}

/// Reads standard input to its end.
pub(super) fn read_stdin() -> anyhow::Result<Vec<u8>> {
    limited(io::stdin().lock()).context("cannot read standard input")
}

fn limited(input: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if read as u64 > INPUT_BYTES_MAX {
        bail!("it is larger than 64 MiB");
    }
    Ok(bytes)
}
