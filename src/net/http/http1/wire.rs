//! The bytes of a connection, in and out, and what they say of its client to the watch.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::body::{Incoming, Next, Step};
use super::head::{self, BadHead, Come, Head, Lines, Names};
use crate::gateway::forward::BoxError;
use crate::net::http::body::Source;
use crate::net::http::watch::Watch;

/// Bytes that a read has room for, for a head and a body of the usual size.
const READ_BYTES: usize = 8 * 1024;
/// Most bytes that a read of a body makes room for: three TLS records, because pieces of 16 KiB leave holes in the
/// heap that nothing closes. A piece is used up before the next is made.
const BODY_READ_BYTES: u64 = 48 * 1024;
/// Bytes of a first read after a rest. Most connections of a gateway wait, and must not keep buffers meanwhile.
const WAKING_BYTES: usize = 64;
/// Room below which a buffer is not worth a read.
const ROOM_MIN: usize = 4 * 1024;
/// Tells a client that waits for it to send its body (RFC 9110 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection.
#[derive(Debug)]
pub(super) struct Wire<I> {
    pub(super) io: I,
    pub(super) watch: Arc<Watch>,
    /// Bytes that were read and not yet used.
    input: BytesMut,
    /// The lines of the next head.
    lines: Lines,
    /// Empty lines before it.
    blank_lines: u16,
    names: Names,
    /// What is left of the body of the request under way.
    pub(super) body: Incoming,
    /// Whether its sender waits for a 100 before it sends the body.
    expects: bool,
    /// What is to be written, until all of it was.
    pub(super) output: Vec<u8>,
    /// Bytes of it that were written already.
    written: usize,
    /// Fields of a head that is done with: their memory is that of the next one.
    pub(super) spare: HeaderMap,
    /// Largest head, in bytes.
    head_bytes_max: usize,
}

/// Why no further request is read.
#[derive(Debug)]
pub(super) enum Stop {
    /// None has come for a while.
    Rest,
    /// The client has ended, or the last answer told it to.
    End,
    /// What has come is no request.
    Bad(BadHead),
    /// The connection broke, or ended inside a message.
    Broken,
}

impl<I> Wire<I> {
    pub(super) fn new(io: I, watch: Arc<Watch>, head_bytes_max: usize) -> Self {
        Self {
            io,
            watch,
            input: BytesMut::new(),
            lines: Lines::default(),
            names: Names::default(),
            blank_lines: 0,
            body: Incoming::new(Next::Nothing),
            expects: false,
            output: Vec::new(),
            written: 0,
            spare: HeaderMap::new(),
            head_bytes_max,
        }
    }

    /// Gives back the memory that a connection that waits does not need.
    pub(super) fn rest(&mut self) {
        self.input = BytesMut::new();
        self.names = Names::default();
        self.output = Vec::new();
        self.spare = HeaderMap::new();
    }

    /// Without the buffers.
    pub(super) fn into_io(self) -> I {
        self.io
    }

    /// Takes the next head from what has come.
    fn take_head(&mut self) -> Result<Option<Head>, BadHead> {
        if self.lines.is_empty() {
            let blank = head::blank(&self.input, &mut self.blank_lines)?;
            if blank > 0 {
                self.input.advance(blank);
                self.lines = Lines::default();
            }
        }
        let head = match self.lines.read(&self.input, self.head_bytes_max)? {
            Come::Part => {
                self.lines.judge(&self.input)?;
                return Ok(None);
            }
            Come::LongLine => head::too_long(&self.input)?,
            Come::Whole(length) => {
                let bytes = self.input.split_to(length).freeze();
                let spare = std::mem::take(&mut self.spare);
                self.lines.head(&bytes, &mut self.names, spare)?
            }
        };
        self.blank_lines = 0;
        self.body = Incoming::new(head.body);
        self.expects = head.expects && !self.body.has_ended();
        Ok(Some(head))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Wire<I> {
    /// Waits for the first bytes of a head, for which there need not be a buffer.
    pub(super) fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let mut room = [0; WAKING_BYTES];
        let mut new = ReadBuf::new(&mut room);
        match Pin::new(&mut self.io).poll_read(cx, &mut new) {
            Poll::Ready(Ok(())) if !new.filled().is_empty() => {
                self.input.reserve(READ_BYTES);
                self.input.extend_from_slice(new.filled());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => Poll::Ready(Err(Stop::End)),
            // What had come was read.
            Poll::Pending if self.watch.is_leaving() => Poll::Ready(Err(Stop::End)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits for the next head.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Stop>> {
        loop {
            match self.take_head() {
                Ok(Some(head)) => {
                    self.watch.note_read();
                    return Poll::Ready(Ok(head));
                }
                Ok(None) => {}
                Err(bad) => return Poll::Ready(Err(Stop::Bad(bad))),
            }
            // Half of an empty line means as little as a whole one.
            let has_begun = !matches!(&*self.input, [] | [b'\r']);
            if has_begun {
                self.watch.note_read();
                self.watch.woken();
            } else if self.watch.is_resting() && self.input.is_empty() {
                return Poll::Ready(Err(Stop::Rest));
            }
            match self.poll_fill(cx, READ_BYTES) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) if has_begun => return Poll::Ready(Err(Stop::Broken)),
                Poll::Ready(_) => return Poll::Ready(Err(Stop::End)),
                // What has come was read; the rest of a head that has begun is waited for.
                Poll::Pending if self.watch.is_leaving() && !self.watch.is_within_head() => {
                    return Poll::Ready(Err(Stop::End));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Reads what has come, up to `most` bytes or what there is room for already; 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < ROOM_MIN.min(most) {
            self.input.reserve(most);
        }
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input)
    }

    /// Writes all of `output`, and `more` behind it.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        more: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        loop {
            let own = self.output.get(self.written..).unwrap_or_default();
            let mut io = Pin::new(&mut self.io);
            let polled = match (own, &**more) {
                ([], []) => {
                    self.output.clear();
                    self.written = 0;
                    return Poll::Ready(Ok(()));
                }
                (one, []) | ([], one) => io.as_mut().poll_write(cx, one),
                (own, more) => {
                    let both = [io::IoSlice::new(own), io::IoSlice::new(more)];
                    io.as_mut().poll_write_vectored(cx, &both)
                }
            };
            self.watch.note_unflushed();
            self.watch.note_write(&polled);
            let size = match ready!(polled)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                size => size,
            };
            let of_own = size.min(own.len());
            self.written += of_own;
            more.advance(size - of_own);
        }
    }

    /// Passes all that was written to the system.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch.note_write(&polled);
        self.watch.note_flush(matches!(polled, Poll::Ready(Ok(()))));
        polled
    }

    /// Writes and flushes all of `output`.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx, &mut Bytes::new()))?;
        self.poll_flush(cx)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + Send> Source for Wire<I> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            match self.body.take(&mut self.input) {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Step::End) => return Poll::Ready(None),
                Ok(Step::More) => {}
                Err(_doubtful) => {
                    return Poll::Ready(Some(Err(self.broken("its framing is in doubt"))));
                }
            }
            if std::mem::take(&mut self.expects) {
                self.output.extend_from_slice(CONTINUE);
            }
            if !self.output.is_empty()
                && let Err(error) = ready!(self.poll_sent(cx))
            {
                self.body.next = Next::Broken;
                return Poll::Ready(Some(Err(error.into())));
            }
            let most = self.body.length().unwrap_or(READ_BYTES as u64);
            let most = usize::try_from(most.min(BODY_READ_BYTES)).unwrap_or(READ_BYTES);
            match ready!(self.poll_fill(cx, most)) {
                Ok(1..) => {}
                Ok(0) => {
                    return Poll::Ready(Some(Err(self.broken("the connection ended inside it"))));
                }
                Err(error) => {
                    self.body.next = Next::Broken;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.body.has_ended()
    }

    fn length(&self) -> Option<u64> {
        self.body.length()
    }
}

impl<I> Wire<I> {
    fn broken(&mut self, why: &'static str) -> BoxError {
        self.body.next = Next::Broken;
        why.into()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;
    use crate::settings::Limits;

    /// The other end of what sends `bytes`, at most `step` at a time.
    fn sent(bytes: &[u8], step: usize) -> Wire<DuplexStream> {
        let (mut sender, io) = duplex(step);
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            // It fails where not all of it is read.
            drop(sender.write_all(&bytes).await);
            drop(sender.shutdown().await);
        });
        Wire::new(io, Arc::new(Watch::new(&Limits::default(), 0)), 32 * 1024)
    }

    /// What a connection has: `METHOD target [name: value]... body` of each request, and how it ends.
    async fn read(bytes: &[u8], step: usize) -> (Vec<String>, String) {
        let mut wire = sent(bytes, step);
        let mut requests = Vec::new();
        loop {
            let head = match poll_fn(|cx| wire.poll_head(cx)).await {
                Ok(head) => head,
                Err(end) => return (requests, format!("{end:?}")),
            };
            let fields = head.parts.headers.iter();
            let fields =
                fields.map(|(name, value)| format!(" [{name}: {}]", value.to_str().unwrap()));
            let fields = fields.collect::<String>();
            let shown = format!("{} {}{fields}", head.parts.method, head.parts.uri);
            let mut body = Vec::new();
            while let Some(data) = poll_fn(|cx| wire.poll_data(cx)).await {
                match data {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(error) => return (requests, format!("in a body: {error}")),
                }
            }
            requests.push(format!("{shown} {}", String::from_utf8(body).unwrap()));
        }
    }

    const STEPS: [usize; 5] = [1, 2, 3, 7, 100_000];

    #[tokio::test]
    async fn messages_are_read_alike_however_they_are_cut() {
        // SECURITY SM-13, SM-20, SM-23, SM-24, SM-26, SM-32, SM-33
        let messages = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / [host: a] "),
            (
                "M#SEARCH /b HTTP/1.1\r\nhOST:a\r\n\r\n",
                "M#SEARCH /b [host: a] ",
            ),
            // A name that goes on where the last one at its place ended, or ends before.
            ("GET /c HTTP/1.1\r\nhOSTs:b\r\n\r\n", "GET /c [hosts: b] "),
            (
                "GET /d HTTP/1.1\r\nhOST: c\r\nhOSTs:d\r\n\r\n",
                "GET /d [host: c] [hosts: d] ",
            ),
            (
                "\r\n\nPOST / HTTP/1.1\nX-A: \t b  c \t\ncontent-length:  03 \n\nabc",
                "POST / [x-a: b  c] [content-length: 03] abc",
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 36\r\n\r\nContent-Length: 1\r\nContent-Length: 2",
                "POST / [content-length: 36] Content-Length: 1\r\nContent-Length: 2",
            ),
            (
                "POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
                "POST / [content-length: 0] ",
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
                "POST / [transfer-encoding: Chunked] ",
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding:chunked\r\n\r\n\
                 0003 ;a=\"b\"\r\n#\n\r\r\nA\t\r\n0123456789\r\n000\r\nContent-Length: 3\r\n\r\n",
                "POST / [transfer-encoding: chunked] #\n\r0123456789",
            ),
        ];
        let (all, expected): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        for step in STEPS {
            let (requests, end) = read(all.concat().as_bytes(), step).await;
            assert_eq!(requests, expected, "{step} bytes at a time");
            assert_eq!(end, "End");
        }
    }

    /// Heads in doubt, and why.
    const BAD_HEADS: &[(&str, &str)] = &[
        ("POST /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "a fragment"),
        ("POST  /a HTTP/1.1\r\n\r\n", "no method, target and version"),
        ("POST /a HTTP/1.1 \r\n\r\n", "no method, target and version"),
        ("POST\t/a HTTP/1.1\r\n\r\n", "no method, target and version"),
        ("#\r\nHost: a\r\n\r\n", "no method, target and version"),
        ("POST /a\x7f HTTP/1.1\r\n\r\n", "a control character"),
        ("POST /a HTTP/1.2\r\n\r\n", "the version"),
        ("P@ST /a HTTP/1.1\r\n\r\n", "the method is no token"),
        ("POST a/b HTTP/1.1\r\n\r\n", "the target is no URI"),
        (
            "P / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            "twice",
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            "twice",
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            "twice",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: y\r\nCONTENT-LENGTH:0\r\n\r\n",
            "twice",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "twice",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "not exactly",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: \tchunked\r\n\r\n",
            "not exactly",
        ),
        (
            "P / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 has no",
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
            "not a number",
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 3\t\r\n\r\nabc",
            "not a number",
        ),
        ("P / HTTP/1.1\r\nContent-Length:\r\n\r\nabc", "not a number"),
        (
            "P / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\nabc",
            "not a number",
        ),
        (
            "P / HTTP/1.1\r\nX: y\r\n z: 1\r\n\r\n",
            "a name is no token",
        ),
        ("P / HTTP/1.1\r\nX : y\r\n\r\n", "a name is no token"),
        ("P / HTTP/1.1\r\n: y\r\n\r\n", "a name is no token"),
        ("P / HTTP/1.1\r\nX\r\n\r\n", "no colon"),
        ("P / HTTP/1.1\r\nX: y\rz\r\n\r\n", "other bytes than text"),
        ("P / HTTP/1.1\r\nX: y\r\r\n\r\n", "other bytes than text"),
        ("P / HTTP/1.1\r\nX: \0\r\n\r\n", "other bytes than text"),
    ];

    #[tokio::test]
    async fn nothing_is_read_behind_a_head_in_doubt() {
        // SECURITY SM-01 to SM-07, SM-09, SM-11, SM-12, SM-27 to SM-31, RT-20
        let many = format!("P / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(101));
        let large = format!("P / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(33_000));
        let sizes = [
            (&*many, "more than 100 fields"),
            (&*large, "above `header_bytes`"),
        ];
        for (text, why) in BAD_HEADS.iter().copied().chain(sizes) {
            for step in STEPS {
                let (requests, end) = read(text.as_bytes(), step).await;
                assert_eq!(requests, [""; 0], "{text:?}");
                // Of a part of a line less can be said.
                let says_why = end.contains(why) || step < text.len();
                assert!(end.starts_with("Bad") && says_why, "{text:?}: {end}");
            }
        }
    }

    /// Why what has come is no beginning of a request; `None` while it may become one.
    async fn judged(bytes: &[u8], head_bytes_max: usize) -> Option<String> {
        let (mut sender, io) = duplex(100_000);
        let mut wire = Wire::new(
            io,
            Arc::new(Watch::new(&Limits::default(), 0)),
            head_bytes_max,
        );
        sender.write_all(bytes).await.unwrap();
        let head = timeout(Duration::from_millis(1), poll_fn(|cx| wire.poll_head(cx)));
        head.await.ok().map(|head| format!("{head:?}"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_become_a_request_is_not_waited_for() {
        // SECURITY SM-09, SM-27 to SM-31, DS-01
        for (before, lines) in [
            (
                "",
                vec![
                    "P",
                    "POST ",
                    "POST /a",
                    "POST /a ",
                    "POST /a HTTP/1",
                    "POST /a HTTP/1.1\r",
                    "\r",
                    "\r\n\r",
                ],
            ),
            (
                "P / HTTP/1.1\r\n",
                vec!["", "X-A", "X:", "X: \u{e4}", "X: b\t\r", "\r"],
            ),
            (
                "P / HTTP/1.1\r\nX: a\r\n",
                vec!["", "Content-Length: ", "Y", "\r"],
            ),
        ] {
            for line in lines {
                assert_eq!(
                    judged(format!("{before}{line}").as_bytes(), 1000).await,
                    None,
                    "{line:?}"
                );
            }
        }
        for (before, lines) in [
            (
                "",
                vec![
                    "/",
                    "{\"a\":1}",
                    "\x16\x03\x01",
                    "\rP",
                    "P@ST",
                    "POST\t/a",
                    "POST  /",
                    "POST /\x01",
                    "POST /#",
                    "POST / F",
                    "POST / HTTP/2",
                    "POST / HTTP/1.1 ",
                    "POST / HTTP/1.1\rX",
                ],
            ),
            (
                "P / HTTP/1.1\r\n",
                vec![" ", "\x01", "A b", "\rX", ":", "A: \x01", "A: b\rX"],
            ),
            (
                "P / HTTP/1.1\r\nX: a\r\n",
                vec!["\t", "Y\x7f", "Content-Length: 1\r\ncontent-length: 1\r\n"],
            ),
        ] {
            for line in lines {
                let end = judged(format!("{before}{line}").as_bytes(), 1000).await;
                assert!(end.is_some_and(|end| end.contains("Malformed")), "{line:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_too_large_is_not_waited_for() {
        // SECURITY DS-10
        for begun in [
            format!("POST /{}", "a".repeat(1000)),
            format!("P / HTTP/1.1\r\nX: {}", "a".repeat(1000)),
        ] {
            let end = judged(begun.as_bytes(), 1000).await;
            assert!(end.is_some_and(|end| end.contains("TooLarge")), "{begun:?}");
        }
    }

    #[tokio::test]
    async fn nothing_is_read_behind_chunks_in_doubt() {
        // SECURITY SM-18, SM-21, SM-22, SM-25, DS-15
        let long = format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(256));
        let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(101));
        for chunks in [
            "0x3\r\nabc\r\n0\r\n\r\n",
            "\r\nabc\r\n0\r\n\r\n",
            "3 3\r\nabc\r\n0\r\n\r\n",
            "3\x0c\r\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "2;\n45\r\nab\r\n0\r\n\r\n",
            "10000000000000000\r\nab",
            "3\r\nabcd\r\n0\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX: \ry\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            &long,
            &trailers,
        ] {
            let text = format!("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            for step in STEPS {
                let (requests, end) = read(text.as_bytes(), step).await;
                assert_eq!(requests, [""; 0], "{chunks:?}");
                assert_eq!(end, "in a body: its framing is in doubt", "{chunks:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_ends_early_is_no_request() {
        // SECURITY SM-15
        for step in STEPS {
            for head in ["P", "P / HTTP/1.1\r\n", "P / HTTP/1.1\r\nX: y\r\n"] {
                let (requests, end) = read(head.as_bytes(), step).await;
                assert_eq!((requests, &*end), (vec![], "Broken"), "{head:?}");
            }
            for body in [
                "Content-Length: 3\r\n\r\nab",
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            ] {
                let (requests, end) =
                    read(format!("P / HTTP/1.1\r\n{body}").as_bytes(), step).await;
                let why = "in a body: the connection ended inside it";
                assert_eq!((requests, &*end), (vec![], why), "{body:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_request_line_without_end_is_a_target_that_is_too_long() {
        // SECURITY DS-10
        let line = format!("POST /{}", "a".repeat(100_000));
        for step in [100, 8 * 1024, 200_000] {
            let mut wire = sent(line.as_bytes(), step);
            let head = poll_fn(|cx| wire.poll_head(cx)).await.unwrap();
            assert!(head.parts.uri.path().len() > 15_000);
            assert!(!head.is_kept);
            assert!(!wire.has_ended(), "what follows is not the next request");
        }
        let (requests, end) = read(format!("{line}#").as_bytes(), 200_000).await;
        assert_eq!(
            (requests, &*end),
            (vec![], "in a body: its framing is in doubt")
        );
    }

    #[tokio::test]
    async fn no_number_of_empty_lines_is_waited_for() {
        // SECURITY SM-32
        let request = "GET / HTTP/1.1\r\n\r\n";
        for (lines, expected) in [("\r\n".repeat(1000), 2), ("\r\n".repeat(1001), 1)] {
            for step in STEPS {
                let (requests, _) =
                    read(format!("{request}{lines}{request}").as_bytes(), step).await;
                assert_eq!(requests.len(), expected);
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_is_waited_for_is_asked_for() {
        let (mut sender, io) = duplex(1000);
        let mut wire = Wire::new(io, Arc::new(Watch::new(&Limits::default(), 0)), 1000);
        let head = "POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
        sender.write_all(head.as_bytes()).await.unwrap();
        poll_fn(|cx| wire.poll_head(cx)).await.unwrap();
        let waited = timeout(Duration::from_millis(1), poll_fn(|cx| wire.poll_data(cx)));
        assert!(waited.await.is_err());
        let mut word = [0; CONTINUE.len()];
        tokio::io::AsyncReadExt::read_exact(&mut sender, &mut word)
            .await
            .unwrap();
        assert_eq!(word, CONTINUE);
        sender.write_all(b"abc").await.unwrap();
        let data = poll_fn(|cx| wire.poll_data(cx)).await.unwrap().unwrap();
        assert_eq!(data, "abc");
    }
}
