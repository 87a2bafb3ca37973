//! The body of an answer, as it comes from a server.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::wire::{Connection, aborted, invalid};
use crate::gateway::forward::UpstreamError;

/// Longest line of a chunk's size with its extensions, and longest trailer section, in bytes.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;

/// How the end of an answer's body is known, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerFraming {
    /// This many bytes are left.
    Length(u64),
    Chunked(Chunk),
    /// It ends with the connection.
    Close,
}

/// What comes next in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Size,
    Data(u64),
    /// The end of line after the data.
    End,
    /// The trailer section, of which this many bytes were read and dropped.
    Trailers(usize),
    Done,
}

/// The body of an answer that is still to be read.
pub(super) struct Rest {
    pub(super) connection: Connection,
    pub(super) framing: AnswerFraming,
    /// Whether the connection is good for another request once the body has ended.
    pub(super) is_reusable: bool,
    /// What the app has not yet taken of the request. It is offered while the answer is read, because otherwise the
    /// app and we could wait for each other.
    pub(super) unsent: Option<VecDeque<Bytes>>,
}

/// A chunk's size line without its line end: hexadecimal digits, then perhaps extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?;
    let blanks = size
        .iter()
        .rev()
        .take_while(|byte| matches!(byte, b' ' | b'\t'));
    let size = size.get(..size.len() - blanks.count())?;
    if !(1..=16).contains(&size.len()) || !size.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

impl Rest {
    /// Whether the body has ended.
    pub(super) fn is_done(&self) -> bool {
        matches!(
            self.framing,
            AnswerFraming::Length(0) | AnswerFraming::Chunked(Chunk::Done)
        )
    }

    /// How many bytes are left, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self.framing {
            AnswerFraming::Length(left) => Some(left),
            AnswerFraming::Chunked(Chunk::Done) => Some(0),
            AnswerFraming::Chunked(_) | AnswerFraming::Close => None,
        }
    }

    /// The whole body, if it came with the head and its length is known.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        let AnswerFraming::Length(length) = self.framing else {
            return None;
        };
        let length = usize::try_from(length).ok()?;
        let input = &mut self.connection.input;
        (input.len() >= length).then(|| {
            self.framing = AnswerFraming::Length(0);
            input.split_to(length).freeze()
        })
    }

    /// The connection, if it is good for another request.
    pub(super) fn into_reusable(self) -> Option<Connection> {
        let is_clean = self.is_reusable && self.is_done() && self.connection.input.is_empty();
        is_clean.then_some(self.connection)
    }

    /// The next part of the body; `None` at its end.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        self.poll_unsent(cx);
        loop {
            match self.take() {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Step::Done) => return Poll::Ready(None),
                Ok(Step::More) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(self.connection.poll_fill(cx)) {
                Ok(0) if self.framing == AnswerFraming::Close => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(aborted(&"it closed inside its answer")))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(aborted(&error)))),
            }
        }
    }

    /// Offers the app what it has not yet taken of the request. Its answer shows whether it wanted it.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) {
        let Some(unsent) = &mut self.unsent else {
            return;
        };
        let mut stream = Pin::new(&mut self.connection.stream);
        while let Some(first) = unsent.front_mut() {
            if first.is_empty() {
                unsent.pop_front();
                continue;
            }
            match stream.as_mut().poll_write(cx, first) {
                Poll::Ready(Ok(taken @ 1..)) => first.advance(taken),
                Poll::Ready(Ok(0) | Err(_)) => unsent.clear(),
                Poll::Pending => return,
            }
        }
        if stream.poll_flush(cx).is_ready() {
            self.unsent = None;
        }
    }

    /// Takes the next part of the body from the bytes that were read.
    fn take(&mut self) -> Result<Step, UpstreamError> {
        let input = &mut self.connection.input;
        loop {
            match &mut self.framing {
                AnswerFraming::Length(0) | AnswerFraming::Chunked(Chunk::Done) => {
                    return Ok(Step::Done);
                }
                _ if input.is_empty() => return Ok(Step::More),
                AnswerFraming::Close => return Ok(Step::Data(input.split().freeze())),
                AnswerFraming::Length(left) => return Ok(Step::Data(up_to(input, left))),
                AnswerFraming::Chunked(Chunk::Data(left)) => {
                    let data = up_to(input, left);
                    if *left == 0 {
                        self.framing = AnswerFraming::Chunked(Chunk::End);
                    }
                    return Ok(Step::Data(data));
                }
                AnswerFraming::Chunked(chunk) => match line(input)? {
                    None => return Ok(Step::More),
                    Some(line) => *chunk = chunk.after(&line)?,
                },
            }
        }
    }
}

enum Step {
    Data(Bytes),
    Done,
    More,
}

fn up_to(input: &mut BytesMut, left: &mut u64) -> Bytes {
    let size = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= size as u64;
    input.split_to(size).freeze()
}

/// The next line without its CRLF; `None` while it is not complete.
fn line(input: &mut BytesMut) -> Result<Option<BytesMut>, UpstreamError> {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) if end < CHUNK_LINE_BYTES_MAX => {
            let mut line = input.split_to(end);
            input.advance(1);
            if line.last() != Some(&b'\r') {
                return Err(invalid(&"a line of its chunked body ends without CR"));
            }
            line.truncate(line.len() - 1);
            Ok(Some(line))
        }
        None if input.len() < CHUNK_LINE_BYTES_MAX => Ok(None),
        _ => Err(invalid(&"a line of its chunked body is longer than 4 KiB")),
    }
}

impl Chunk {
    /// What comes after this line.
    fn after(self, line: &[u8]) -> Result<Self, UpstreamError> {
        match self {
            Self::Size => match chunk_size(line) {
                Some(0) => Ok(Self::Trailers(0)),
                Some(size) => Ok(Self::Data(size)),
                None => Err(invalid(&"a chunk of its body has no size")),
            },
            Self::End if line.is_empty() => Ok(Self::Size),
            Self::End => Err(invalid(&"a chunk of its body is longer than its size")),
            Self::Trailers(_) if line.is_empty() => Ok(Self::Done),
            Self::Trailers(read) if read + line.len() < CHUNK_LINE_BYTES_MAX => {
                Ok(Self::Trailers(read + line.len() + 2))
            }
            Self::Trailers(_) => Err(invalid(&"its trailers are longer than 4 KiB")),
            Self::Data(_) | Self::Done => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::net::UnixStream;

    use super::*;
    use crate::net::upstream::stream::Stream;

    /// What a chunked body reads as, cut into pieces of `step` bytes.
    async fn dechunked(wire: &str, step: usize) -> Result<String, UpstreamError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut rest = Rest {
            connection: Connection::new(Stream::Unix(ours)),
            framing: AnswerFraming::Chunked(Chunk::Size),
            is_reusable: true,
            unsent: None,
        };
        let mut read = Vec::new();
        for piece in wire.as_bytes().chunks(step) {
            assert_eq!(theirs.try_write(piece).unwrap(), piece.len());
            let mut ended = false;
            let one = poll_fn(|cx| match rest.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    read.extend_from_slice(&data);
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
                Poll::Ready(None) => {
                    ended = true;
                    Poll::Ready(Ok(()))
                }
                Poll::Pending => Poll::Pending,
            });
            let waited = tokio::time::timeout(Duration::from_millis(20), one).await;
            if let Ok(Err(error)) = waited {
                return Err(error);
            }
            if ended {
                break;
            }
        }
        assert!(rest.is_done());
        Ok(String::from_utf8(read).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn chunked_bodies() {
        // SECURITY U-11
        let wire = "4;x=\"y\"\r\nWiki\r\n00A \r\npedia-text\r\n0\r\nTrailer: 1\r\n\r\n";
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(dechunked(wire, step).await.unwrap(), "Wikipedia-text");
        }
        for bad in [
            "4\nWiki\n0\n\n",
            "4\r\nWikix\r\n0\r\n\r\n",
            "g\r\n",
            "-1\r\n",
            "4\x0c\r\nWiki\r\n0\r\n\r\n",
            "\r\n",
            "11111111111111111\r\n",
        ] {
            assert!(dechunked(bad, 1000).await.is_err(), "{bad:?}");
        }
        let long = format!("1;{}\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX));
        assert!(dechunked(&long, 10_000).await.is_err());
    }
}
