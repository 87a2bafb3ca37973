//! Reads HTTP/1.1 before hyper does, so that framing has one meaning only.
//!
//! hyper repairs what the strictest servers refuse, and the gateway sees only the result: a length
//! beside a transfer coding is dropped, equal lengths are merged, a fragment is cut off the target
//! (SECURITY SM-01, SM-02, SM-11, RT-20). [`Strict`] follows the messages of a connection and puts
//! bytes that nobody accepts in the place of the first line whose framing is in doubt: hyper then answers 400
//! and closes. What hyper refuses by itself is left to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Is no method, field, chunk size or trailer, and ends a head, so that hyper does not wait for more.
const REFUSAL: &[u8] = b"\0\r\n\r\n";
/// Longest request line, in bytes: twice what the gateway takes for a target. hyper would refuse the head as too
/// large, without telling the gateway (SECURITY DS-10).
const REQUEST_LINE_BYTES_MAX: usize = 16 * 1024;
/// Ends a head whose request line is longer, so that the gateway refuses its target.
const END_OF_HEAD: &[u8] =
    b" HTTP/1.1\r\nHost: target-too-long.invalid\r\nConnection: close\r\n\r\n";
/// Most empty lines before a request. hyper passes over any number of them before the first
/// request of a connection (SECURITY SM-32).
const BLANK_LINES_MAX: u16 = 1000;
/// Longest line between the data of chunks, in bytes, because hyper takes any number of zeros and blanks. A size and
/// an extension of signed chunks need a hundred.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Longest line of a trailer section, in bytes.
const TRAILER_LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a chunk line that are free: eight hex digits and CRLF.
const CHUNK_LINE_BYTES_FREE: usize = 10;
/// Framing bytes (zeros, extensions, trailers) that a body may have: this many, and one more for each byte of data.
/// They cost time but no body limit counts them (SECURITY DS-15).
const FRAMING_BYTES_FREE: usize = 64 * 1024;

/// A stream of requests whose framing is beyond doubt.
#[derive(Debug)]
pub struct Strict<I> {
    io: I,
    reader: Reader,
    /// Why a line was refused, and what is still to be read in its place.
    refusal: Option<(Doubt, &'static [u8])>,
}

impl<I> Strict<I> {
    /// The requests that come over `io`.
    pub fn new(io: I) -> Self {
        Self {
            io,
            reader: Reader::default(),
            refusal: None,
        }
    }

    /// The stream as it is.
    pub fn into_inner(self) -> I {
        self.io
    }

    fn refuse(&mut self, doubt: Doubt, left: &'static [u8], buf: &mut ReadBuf<'_>) {
        let room = left.len().min(buf.remaining());
        let (now, later) = left.split_at_checked(room).unwrap_or_default();
        buf.put_slice(now);
        self.refusal = Some((doubt, later));
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Strict<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.refusal {
            // The request is being answered, and nothing follows it. hyper would take an end for a client that has
            // gone.
            Some((Doubt::TooLong, [])) => return Poll::Pending,
            Some((doubt, left)) => {
                self.refuse(doubt, left, buf);
                return Poll::Ready(Ok(()));
            }
            None => {}
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if let Err(Refused { doubt, passed }) = self.reader.read(new) {
            buf.set_filled(before + passed);
            let instead = match doubt {
                Doubt::Framing => REFUSAL,
                Doubt::TooLong => END_OF_HEAD,
            };
            self.refuse(doubt, instead, buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Strict<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A line was refused; this many of the bytes just read still pass.
#[derive(Debug)]
struct Refused {
    doubt: Doubt,
    passed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// The framing that the line says is in doubt.
    Framing,
    /// The request line is longer than its limit.
    TooLong,
}

/// The line that was just read is in doubt.
struct Doubtful;

/// Where in a message the stream is.
#[derive(Debug, Default)]
struct Reader {
    next: Next,
    /// The beginning of a line whose end has not come. In a head hyper bounds it, because it stops reading.
    line: Vec<u8>,
    /// Framing bytes that this body may still have.
    framing_left: usize,
    /// Empty lines since the last request.
    blank_lines: u16,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    RequestLine,
    Field(RequestFraming),
    /// This many bytes of a body.
    Body(u64),
    ChunkSize,
    /// This many bytes of a chunk.
    Chunk(u64),
    ChunkEnd,
    Trailer,
}

/// The framing of a request's body, by the fields so far.
#[derive(Clone, Copy, Debug)]
enum RequestFraming {
    Nothing,
    Length(u64),
    Chunked,
}

impl Reader {
    fn read(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let passed = bytes.len() - rest.len();
            if let Some(room) = self.room_of_request_line(rest) {
                let within = rest.get(..room).unwrap_or_default();
                // hyper would cut a fragment off, and the rest may be a target within the limit.
                let has_fragment = self.line.contains(&b'#') || within.contains(&b'#');
                let (doubt, room) = if has_fragment {
                    (Doubt::Framing, 0)
                } else {
                    (Doubt::TooLong, room)
                };
                return Err(Refused {
                    doubt,
                    passed: passed + room,
                });
            }
            let refused = Refused {
                doubt: Doubt::Framing,
                passed,
            };
            let taken = match self.next {
                Next::Body(left) => self.skip(left, rest, Next::Body, Next::RequestLine),
                Next::Chunk(left) => {
                    let taken = self.skip(left, rest, Next::Chunk, Next::ChunkEnd);
                    self.framing_left = self.framing_left.saturating_add(taken);
                    taken
                }
                _ => self.read_line(rest).map_err(|Doubtful| refused)?,
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// If the request line gets too long in `rest`: how many bytes of `rest` are within its limit.
    fn room_of_request_line(&self, rest: &[u8]) -> Option<usize> {
        if !matches!(self.next, Next::RequestLine) {
            return None;
        }
        let room = REQUEST_LINE_BYTES_MAX.saturating_sub(self.line.len());
        let within = rest.get(..room)?;
        memchr(b'\n', within).is_none().then_some(room)
    }

    /// Skips bytes of a body; returns how many of `rest` they are.
    fn skip(&mut self, left: u64, rest: &[u8], more: fn(u64) -> Next, then: Next) -> usize {
        let taken = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        let left = left.saturating_sub(taken as u64);
        self.next = if left > 0 { more(left) } else { then };
        taken
    }

    /// Reads to the end of the line, or keeps its beginning; returns how many bytes of `rest` that took.
    fn read_line(&mut self, rest: &[u8]) -> Result<usize, Doubtful> {
        let end = memchr(b'\n', rest);
        let taken = end.map_or(rest.len(), |end| end + 1);
        let part = rest.get(..taken).unwrap_or_default();
        let is_before_head = matches!(self.next, Next::RequestLine);
        let in_head = is_before_head || matches!(self.next, Next::Field(_));
        if !in_head {
            let most = match self.next {
                Next::Trailer => TRAILER_LINE_BYTES_MAX,
                _ => CHUNK_LINE_BYTES_MAX,
            };
            if self.line.len() + taken > most {
                return Err(Doubtful);
            }
            if end.is_some() {
                let free = match self.next {
                    Next::Trailer => 0,
                    _ => CHUNK_LINE_BYTES_FREE,
                };
                let cost = (self.line.len() + taken).saturating_sub(free);
                self.framing_left = self.framing_left.checked_sub(cost).ok_or(Doubtful)?;
            }
        }
        if end.is_none() {
            self.line.extend_from_slice(part);
        } else if self.line.is_empty() {
            if !matches!(self.next, Next::Field(_)) || may_matter(part) {
                self.next = after(self.next, part)?;
            }
        } else {
            self.line.extend_from_slice(part);
            self.next = after(self.next, &self.line)?;
            // Gives its memory back, because most connections wait.
            self.line = Vec::new();
        }
        if in_head && matches!(self.next, Next::ChunkSize) {
            self.framing_left = FRAMING_BYTES_FREE;
        }
        if is_before_head && end.is_some() {
            self.count_blank_line()?;
        }
        Ok(taken)
    }

    /// Counts the line before, where it was empty and no request line; too many are in doubt.
    fn count_blank_line(&mut self) -> Result<(), Doubtful> {
        let is_blank = matches!(self.next, Next::RequestLine);
        self.blank_lines = if is_blank { self.blank_lines + 1 } else { 0 };
        if self.blank_lines > BLANK_LINES_MAX {
            return Err(Doubtful);
        }
        Ok(())
    }
}

/// Whether a line among the fields could end the head, or be one of the two fields that frame. The first byte tells
/// that nearly all are neither.
fn may_matter(line: &[u8]) -> bool {
    matches!(
        line.first(),
        Some(b'\r' | b'\n' | b'C' | b'c' | b'T' | b't')
    )
}

/// What comes after `line`, which ends with a line feed.
fn after(next: Next, line: &[u8]) -> Result<Next, Doubtful> {
    match next {
        Next::RequestLine => after_request_line(line),
        Next::Field(framing) => after_field(framing, line),
        Next::ChunkSize => after_chunk_size(line),
        Next::ChunkEnd if line == b"\r\n" => Ok(Next::ChunkSize),
        Next::Trailer if line == b"\r\n" => Ok(Next::RequestLine),
        Next::Trailer => without_end(line).map(|_trailer| Next::Trailer),
        Next::ChunkEnd | Next::Body(_) | Next::Chunk(_) => Err(Doubtful),
    }
}

/// A line of a head without its end, which may be a line feed alone (RFC 9112 2.2).
fn of_head(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A line between chunks without its end, which is CRLF. It has no CR inside.
fn without_end(line: &[u8]) -> Result<&[u8], Doubtful> {
    let line = line.strip_suffix(b"\r\n").ok_or(Doubtful)?;
    if line.contains(&b'\r') {
        return Err(Doubtful);
    }
    Ok(line)
}

fn after_request_line(line: &[u8]) -> Result<Next, Doubtful> {
    let line = of_head(line);
    if line.is_empty() {
        return Ok(Next::RequestLine);
    }
    // No form of target has a fragment (RFC 9112 3.2). A method may have a `#` in its name.
    let target = line.splitn(2, |byte| *byte == b' ').last();
    if target.is_none_or(|target| target.contains(&b'#')) {
        return Err(Doubtful);
    }
    Ok(Next::Field(RequestFraming::Nothing))
}

fn after_field(framing: RequestFraming, line: &[u8]) -> Result<Next, Doubtful> {
    let line = of_head(line);
    if line.is_empty() {
        return Ok(match framing {
            RequestFraming::Chunked => Next::ChunkSize,
            RequestFraming::Nothing | RequestFraming::Length(0) => Next::RequestLine,
            RequestFraming::Length(length) => Next::Body(length),
        });
    }
    let framing = match (framed_by(line), framing) {
        (None, framing) => framing,
        (Some(framing), RequestFraming::Nothing) => framing?,
        // Both fields, or one of them twice.
        (Some(_), RequestFraming::Length(_) | RequestFraming::Chunked) => return Err(Doubtful),
    };
    Ok(Next::Field(framing))
}

/// The framing that a field says; `None` for other fields.
fn framed_by(line: &[u8]) -> Option<Result<RequestFraming, Doubtful>> {
    if let Some(value) = value_of(b"content-length", line) {
        Some(length(unpadded(value)).map(RequestFraming::Length))
    } else if let Some(value) = value_of(b"transfer-encoding", line) {
        let chunked = unpadded(value).eq_ignore_ascii_case(b"chunked");
        Some(chunked.then_some(RequestFraming::Chunked).ok_or(Doubtful))
    } else {
        None
    }
}

/// What follows the colon, if the field has this name.
fn value_of<'l>(name: &[u8], line: &'l [u8]) -> Option<&'l [u8]> {
    match line.split_at_checked(name.len())? {
        (own, [b':', value @ ..]) if own.eq_ignore_ascii_case(name) => Some(value),
        _ => None,
    }
}

/// A value without the spaces around it. Tabs stay: not every server trims them.
fn unpadded(mut value: &[u8]) -> &[u8] {
    while let [b' ', inner @ ..] | [inner @ .., b' '] = value {
        value = inner;
    }
    value
}

fn length(digits: &[u8]) -> Result<u64, Doubtful> {
    let only_digits = digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| only_digits);
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or(Doubtful)
}

fn after_chunk_size(line: &[u8]) -> Result<Next, Doubtful> {
    let line = without_end(line)?;
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit());
    let (digits, extension) = line
        .split_at_checked(end.unwrap_or(line.len()))
        .ok_or(Doubtful)?;
    let extension = extension.trim_ascii_start();
    if !extension.is_empty() && !extension.starts_with(b";") {
        return Err(Doubtful);
    }
    let digits = std::str::from_utf8(digits).map_err(|_not_hex| Doubtful)?;
    match u64::from_str_radix(digits, 16) {
        Ok(0) => Ok(Next::Trailer),
        Ok(size) => Ok(Next::Chunk(size)),
        Err(_empty_or_too_large) => Err(Doubtful),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    /// What comes through when at most `step` bytes are read at a time.
    async fn through(bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut sender, io) = duplex(step);
        let bytes = bytes.to_vec();
        let writer = tokio::spawn(async move { sender.write_all(&bytes).await });
        let mut passed = Vec::new();
        Strict::new(io).read_to_end(&mut passed).await.unwrap();
        drop(writer.await.unwrap());
        passed
    }

    const STEPS: [usize; 5] = [1, 2, 3, 7, 100_000];

    #[tokio::test]
    async fn messages_pass_as_they_are() {
        // SECURITY SM-13, SM-20, SM-23, SM-26, SM-32, SM-33
        let messages = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "M#SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\nPOST / HTTP/1.1\nHost: a\ncontent-length:  03 \n\nabc",
            "POST / HTTP/1.1\r\nContent-Length: 36\r\n\r\nContent-Length: 1\r\nContent-Length: 2",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding:chunked\r\n\r\n\
             0003 ;a=\"b\"\r\n#\n\r\r\nA\t\r\n0123456789\r\n000\r\nContent-Length: 3\r\n\r\n",
        ];
        let all = messages.concat();
        for step in STEPS {
            for message in messages {
                assert_eq!(through(message.as_bytes(), step).await, message.as_bytes());
            }
            assert_eq!(through(all.as_bytes(), step).await, all.as_bytes());
        }
    }

    #[tokio::test]
    async fn nothing_passes_from_the_first_line_in_doubt() {
        // SECURITY SM-01 to SM-06, SM-11, SM-12, SM-18, SM-21, SM-22, SM-25, RT-20, DS-15
        let long = format!(
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n|{}1\r\n",
            "0".repeat(CHUNK_LINE_BYTES_MAX)
        );
        let refused = [
            "|POST /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "|POST  #b HTTP/1.1\r\nHost: a\r\n\r\n",
            "|#\r\nHost: a\r\n\r\n",
            "P / HTTP/1.1\r\nContent-Length: 3\r\n|Content-Length: 3\r\n\r\nabc",
            "P / HTTP/1.1\r\nContent-Length: 3\r\n|transfer-encoding: chunked\r\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: y\r\n|CONTENT-LENGTH:\r\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n|Transfer-Encoding: chunked\r\n\r\n",
            "P / HTTP/1.1\r\n|Transfer-Encoding: gzip, chunked\r\n\r\n",
            "P / HTTP/1.1\r\n|Transfer-Encoding: \tchunked\r\n\r\n",
            "P / HTTP/1.1\r\n|Content-Length: +3\r\n\r\nabc",
            "P / HTTP/1.1\r\n|Content-Length: 3\t\r\n\r\nabc",
            "P / HTTP/1.1\r\n|Content-Length:\r\n\r\nabc",
            "P / HTTP/1.1\r\n|Content-Length: 18446744073709551616\r\n\r\nabc",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n|0x3\r\nabc\r\n0\r\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n|\r\nabc\r\n0\r\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n|3 3\r\nabc\r\n0\r\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n|3\nabc\r\n0\r\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n|2;\n45\r\nab\r\n0\r\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n|10000000000000000\r\nab",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc|d\r\n0\r\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n|X: y\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n|X: \ry\r\n\r\n",
            "P / HTTP/1.1\r\n\r\nP / HTTP/1.1\r\nContent-Length: 1\r\n|Content-Length: 1\r\n\r\n",
            &long,
        ];
        for text in refused {
            let (before, line) = text.split_once('|').unwrap();
            for step in STEPS {
                let passed = through(format!("{before}{line}").as_bytes(), step).await;
                let passed = passed.strip_suffix(REFUSAL).expect("it is refused");
                let broken = passed.strip_prefix(before.as_bytes()).expect("no more");
                // Of a line that came in pieces the beginning is through; never its end.
                assert!(line.as_bytes().starts_with(broken) && !broken.contains(&b'\n'));
            }
        }
    }

    #[tokio::test]
    async fn a_request_line_without_end_is_ended() {
        // SECURITY DS-10
        let line = format!("POST /{}", "a".repeat(100_000));
        let (within, _) = line.split_at(REQUEST_LINE_BYTES_MAX);
        let expected = [within.as_bytes(), END_OF_HEAD].concat();
        for step in [100, 8 * 1024, 200_000] {
            let (mut sender, io) = duplex(step);
            let text = line.clone();
            let writer = tokio::spawn(async move { sender.write_all(text.as_bytes()).await });
            let mut strict = Strict::new(io);
            let mut passed = vec![0; expected.len()];
            strict.read_exact(&mut passed).await.unwrap();
            assert!(passed == expected, "{step} bytes at a time");
            let more = strict.read_u8();
            assert!(timeout(Duration::from_millis(1), more).await.is_err());
            writer.abort();
        }
    }
}
