//! The bytes behind a head, until the next one: how long they are, and nothing else (RFC 9112 6 and 7).

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use super::head::is_field;

/// Longest line between the data of chunks, in bytes: others take any number of zeros and blanks. A size and an
/// extension of signed chunks need a hundred.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Longest line of a trailer section, in bytes.
const TRAILER_LINE_BYTES_MAX: usize = 16 * 1024;
/// Most trailers: as many as there may be fields in a head.
const TRAILERS_MAX: u8 = 100;
/// Bytes of a chunk line that are free: eight hex digits and CRLF.
const CHUNK_LINE_BYTES_FREE: usize = 10;
/// Framing bytes (zeros, extensions, trailers) that a body may have: this many, and one more for each byte of data.
/// They cost time but no body limit counts them (SECURITY DS-15).
const FRAMING_BYTES_FREE: usize = 64 * 1024;

/// What comes next behind a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next head.
    Nothing,
    /// This many bytes of the body.
    Data(u64),
    /// The size of a chunk.
    Size,
    /// This many bytes of a chunk.
    Chunk(u64),
    /// The end of line after a chunk.
    ChunkEnd,
    /// A trailer, of which there may be so many, or the end of the message.
    Trailer(u8),
    /// What nobody can tell.
    Broken,
}

/// The body of a request, as far as it is still to be read.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) next: Next,
    /// Framing bytes that it may still have.
    framing_left: usize,
}

/// What stands between the data of chunks is in doubt.
#[derive(Debug)]
pub(super) struct Doubtful;

/// A step through a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Data(Bytes),
    End,
    /// More has to come first.
    More,
}

impl Incoming {
    pub(super) fn new(next: Next) -> Self {
        Self {
            next,
            framing_left: FRAMING_BYTES_FREE,
        }
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.next == Next::Nothing
    }

    /// How many bytes are left, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self.next {
            Next::Nothing => Some(0),
            Next::Data(left) => Some(left),
            Next::Size | Next::Chunk(_) | Next::ChunkEnd | Next::Trailer(_) | Next::Broken => None,
        }
    }

    /// Takes the next part from what has come.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Step, Doubtful> {
        loop {
            match self.next {
                Next::Nothing => return Ok(Step::End),
                Next::Broken => return Err(Doubtful),
                _ if input.is_empty() => return Ok(Step::More),
                Next::Data(left) => {
                    let data = up_to(input, left);
                    self.next = match left - data.len() as u64 {
                        0 => Next::Nothing,
                        left => Next::Data(left),
                    };
                    return Ok(Step::Data(data));
                }
                Next::Chunk(left) => {
                    let data = up_to(input, left);
                    self.framing_left = self.framing_left.saturating_add(data.len());
                    self.next = match left - data.len() as u64 {
                        0 => Next::ChunkEnd,
                        left => Next::Chunk(left),
                    };
                    return Ok(Step::Data(data));
                }
                Next::Size | Next::ChunkEnd | Next::Trailer(_) => {
                    let Some(line) = self.line(input)? else {
                        return Ok(Step::More);
                    };
                    self.next = after(self.next, &line)?;
                }
            }
        }
    }

    /// The next line between chunks without its end, which is CRLF; `None` while it has not come. There is no CR in it.
    fn line(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, Doubtful> {
        let (most, free) = match self.next {
            Next::Trailer(_) => (TRAILER_LINE_BYTES_MAX, 0),
            _ => (CHUNK_LINE_BYTES_MAX, CHUNK_LINE_BYTES_FREE),
        };
        let end = memchr(b'\n', input);
        let length = end.map_or(input.len(), |end| end + 1);
        if length > most {
            return Err(Doubtful);
        }
        if end.is_none() {
            return Ok(None);
        }
        let cost = length.saturating_sub(free);
        self.framing_left = self.framing_left.checked_sub(cost).ok_or(Doubtful)?;
        let mut line = input.split_to(length);
        if !line.ends_with(b"\r\n") {
            return Err(Doubtful);
        }
        line.truncate(length - 2);
        if line.contains(&b'\r') {
            return Err(Doubtful);
        }
        Ok(Some(line))
    }
}

fn up_to(input: &mut BytesMut, left: u64) -> Bytes {
    let size = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    input.split_to(size).freeze()
}

/// What comes after this line.
fn after(next: Next, line: &[u8]) -> Result<Next, Doubtful> {
    match next {
        Next::Size => after_size(line),
        Next::ChunkEnd if line.is_empty() => Ok(Next::Size),
        Next::Trailer(_) if line.is_empty() => Ok(Next::Nothing),
        // Trailers are dropped (SECURITY SM-24), but must be fields.
        Next::Trailer(left @ 1..) if is_field(line) => Ok(Next::Trailer(left - 1)),
        _ => Err(Doubtful),
    }
}

/// Hexadecimal digits, then perhaps extensions (RFC 9112 7.1).
fn after_size(line: &[u8]) -> Result<Next, Doubtful> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit());
    let (digits, extension) = line
        .split_at_checked(end.unwrap_or(line.len()))
        .ok_or(Doubtful)?;
    let mut extension = extension
        .iter()
        .skip_while(|byte| matches!(byte, b' ' | b'\t'));
    if extension.next().is_some_and(|sign| *sign != b';') {
        return Err(Doubtful);
    }
    let digits = std::str::from_utf8(digits).map_err(|_not_hex| Doubtful)?;
    match u64::from_str_radix(digits, 16) {
        Ok(0) => Ok(Next::Trailer(TRAILERS_MAX)),
        Ok(size) => Ok(Next::Chunk(size)),
        Err(_empty_or_too_large) => Err(Doubtful),
    }
}
