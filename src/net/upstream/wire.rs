//! HTTP/1.1 towards an app: one connection, driven by the request that uses it.
//!
//! hyper's client runs every connection in a task of its own and talks to it over channels. A gateway
//! waits for the answer anyway, so here the request's own task writes and reads; that is most of what
//! forwarding costs. httparse reads the syntax; the framing is RFC 9112 section 6, and an answer that
//! leaves it in doubt is refused or ends its connection (SECURITY U-07, U-11 to U-14).

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::clock;
use crate::gateway::forward::UpstreamError;
use crate::gateway::outgoing::Outgoing;
use crate::net::ready::behind_the_ready;

/// Longest that the head of an answer may be.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most fields of an answer.
const FIELDS_MAX: usize = 100;
/// Longest line of a chunk's size with its extensions, and longest trailer section.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;
/// How long an app that has answered may leave the rest of the request lying before it is taken not to want it.
const STALL_MAX: Duration = Duration::from_secs(5);
/// Room that a read asks for.
const READ_BYTES: usize = 8 * 1024;
/// Slices of one write: the head and that many frames but one.
const SLICES: usize = 32;

/// Where the bytes go.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// A connection to a server, and since when it is open.
pub(super) struct Connection {
    stream: Stream,
    /// What came in and is not yet taken.
    input: BytesMut,
    /// Whether a request has been sent over it before.
    is_used: bool,
    pub(super) born: Instant,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// The connection closed before it took a byte: the request is as good as new.
    NotTaken,
    /// Its head did not come in time.
    Late,
    Gone(UpstreamError),
}

/// An answer's body on its way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    Chunked(Chunk),
    /// The connection's end ends it.
    Close,
}

/// Where in a chunked body the reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size,
    Data(u64),
    /// The line end behind the data.
    End,
    /// After the last chunk; so many bytes of the trailer section are read and dropped.
    Trailers(usize),
    Done,
}

/// The head of an answer, and its connection, which holds the rest.
pub(super) struct Answered {
    pub(super) head: Response<()>,
    pub(super) rest: Rest,
    /// Whether all of the request is on its way.
    pub(super) is_sent: bool,
}

/// The body of an answer that is still to be read.
pub(super) struct Rest {
    connection: Connection,
    framing: Framing,
    /// Whether the connection is good for another request once the body has ended.
    is_reusable: bool,
    /// What the app has not yet taken of the request that it answers. It is offered while the answer is read, or
    /// each could wait for the other.
    unsent: Option<VecDeque<Bytes>>,
}

fn aborted(why: &impl ToString) -> UpstreamError {
    UpstreamError::Aborted(why.to_string())
}

fn invalid(why: &impl ToString) -> UpstreamError {
    UpstreamError::Invalid(why.to_string())
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            is_used: false,
            born: clock::now(),
        }
    }

    /// Whether an idle connection has ended, or says something that nobody asked for.
    pub(super) async fn is_stale(&mut self) -> bool {
        poll_fn(|cx| {
            let mut byte = [0];
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
            Poll::Ready(read.is_ready())
        })
        .await
    }

    /// Sends a request and reads the head of its answer, for which it waits so long. Where the app has said yes before it had
    /// all of the request, it then sends on for as long as the app takes more.
    pub(super) async fn exchange(
        mut self,
        request: &mut Outgoing,
        wait: Duration,
    ) -> Result<Answered, Failure> {
        let deadline = clock::now() + wait;
        behind_the_ready().await;
        if self.is_used && self.is_stale().await {
            return Err(Failure::NotTaken);
        }
        self.is_used = true;
        let Outgoing {
            method,
            head,
            body,
            spare,
            ..
        } = request;
        let mut sending = Sending::new(head.bytes(), body.frames());
        let mut broken = None;
        let answer = poll_fn(|cx| {
            if broken.is_none() {
                match sending.poll(cx, &mut self.stream) {
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                    Poll::Ready(Err(_)) if !sending.has_begun() => {
                        return Poll::Ready(Err(Failure::NotTaken));
                    }
                    // An app that refuses a request may answer before it has read all of it.
                    Poll::Ready(Err(error)) => broken = Some(error),
                }
            }
            let answered = self.poll_head(cx, broken.as_ref(), spare);
            Poll::Ready(Ok(ready!(answered).map_err(Failure::Gone)?))
        });
        let answer = timeout_at(deadline, answer).await;
        let mut answer = answer.unwrap_or(Err(Failure::Late))?;
        let framed = framing(&mut answer, method).map_err(Failure::Gone)?;
        let (framing, is_persistent) = framed;
        let mut is_sent = broken.is_none() && sending.is_done();
        // Who refuses need not read on. Who accepts has the delivery only with all of it.
        if !is_sent && broken.is_none() && answer.status().is_success() {
            // Well before an answer is given up: the app has given one.
            let stall_max = STALL_MAX.min(wait / 2);
            is_sent = self.send_on(&mut sending, body.len(), stall_max).await;
        }
        let is_left = broken.is_none() && !is_sent;
        Ok(Answered {
            head: answer,
            rest: Rest {
                connection: self,
                framing,
                is_reusable: is_sent && is_persistent,
                unsent: is_left.then(|| sending.left()),
            },
            is_sent,
        })
    }

    /// Sends on to an app that has answered already, and says whether that was all. What it says meanwhile is kept, up
    /// to the size of what it gets: it may want that to be read first.
    async fn send_on(
        &mut self,
        sending: &mut Sending<'_>,
        body_bytes: usize,
        stall_max: Duration,
    ) -> bool {
        let input_max = body_bytes.max(HEAD_BYTES_MAX);
        let mut has_ended = false;
        let mut patience = pin!(sleep(stall_max));
        poll_fn(|cx| {
            let before = sending.taken;
            match sending.poll(cx, &mut self.stream) {
                Poll::Ready(sent) => return Poll::Ready(sent.is_ok()),
                Poll::Pending if sending.taken > before => {
                    patience.as_mut().reset(clock::now() + stall_max);
                }
                Poll::Pending => {}
            }
            while !has_ended && self.input.len() < input_max {
                match self.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    // It may read on all the same.
                    Poll::Ready(Ok(0)) => has_ended = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => break,
                }
            }
            patience.as_mut().poll(cx).map(|()| false)
        })
        .await
    }

    /// The head of the final answer; interim ones are passed over (RFC 9110 15.2).
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        broken: Option<&io::Error>,
        spare: &mut HeaderMap,
    ) -> Poll<Result<Response<()>, UpstreamError>> {
        loop {
            if let Some(head) = answer_head(&mut self.input, spare)? {
                match head.status() {
                    StatusCode::SWITCHING_PROTOCOLS => {
                        return Poll::Ready(Err(invalid(&"101 to a request that asked for none")));
                    }
                    status if status.is_informational() => continue,
                    _ => return Poll::Ready(Ok(head)),
                }
            }
            if self.input.len() >= HEAD_BYTES_MAX {
                return Poll::Ready(Err(invalid(&"its head is longer than 64 KiB")));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => {
                    let why = broken.map_or_else(
                        || "it closed before its answer was complete".to_owned(),
                        ToString::to_string,
                    );
                    return Poll::Ready(Err(aborted(&why)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(aborted(broken.unwrap_or(&error)))),
            }
        }
    }

    /// Reads what there is; 0 is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(READ_BYTES);
        tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input)
    }
}

/// A request on its way out: the head and the frames of the body, none of them copied.
struct Sending<'a> {
    head: &'a [u8],
    frames: &'a [Bytes],
    /// Bytes that are out.
    taken: usize,
    is_flushed: bool,
    /// Bytes of the first of `frames` that are out.
    offset: usize,
}

impl<'a> Sending<'a> {
    fn new(head: &'a [u8], frames: &'a [Bytes]) -> Self {
        Self {
            head,
            frames,
            taken: 0,
            is_flushed: false,
            offset: 0,
        }
    }

    fn has_begun(&self) -> bool {
        self.taken > 0
    }

    /// What is not out yet.
    fn left(&self) -> VecDeque<Bytes> {
        let head = Some(self.head).filter(|head| !head.is_empty());
        let mut frames = self.frames.iter().cloned();
        let first = frames.next().map(|mut first| {
            first.advance(self.offset);
            first
        });
        let head = head.map(Bytes::copy_from_slice);
        head.into_iter().chain(first).chain(frames).collect()
    }

    fn is_done(&self) -> bool {
        self.is_flushed
    }

    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        while !self.head.is_empty() || !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut parts = slices.iter_mut();
            if let Some(slot) = parts.next() {
                *slot = IoSlice::new(self.head);
            }
            let mut skip = self.offset;
            for (slot, frame) in parts.zip(self.frames) {
                *slot = IoSlice::new(frame.get(skip..).unwrap_or_default());
                skip = 0;
            }
            match ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices)) {
                Ok(0) if !self.is_at_empty_frame() => {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Ok(sent) => self.advance(sent),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn is_at_empty_frame(&self) -> bool {
        let left = |frame: &Bytes| frame.len() == self.offset;
        self.head.is_empty() && self.frames.first().is_some_and(left)
    }

    fn advance(&mut self, sent: usize) {
        self.taken += sent;
        let of_head = sent.min(self.head.len());
        self.head = self.head.get(of_head..).unwrap_or_default();
        if !self.head.is_empty() {
            return;
        }
        let mut left = sent - of_head;
        while let Some((first, others)) = self.frames.split_first() {
            let open = first.len() - self.offset;
            if left < open {
                self.offset += left;
                return;
            }
            left -= open;
            self.offset = 0;
            self.frames = others;
        }
    }
}

/// Takes the head of an answer from the front of `input`; `None` while it is not complete. Its fields go into `spare`,
/// which is empty.
fn answer_head(
    input: &mut BytesMut,
    spare: &mut HeaderMap,
) -> Result<Option<Response<()>>, UpstreamError> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status =
        config.parse_response_with_uninit_headers(&mut parsed, input.as_ref(), &mut fields);
    // An alert of TLS: what it sends to who does not speak it.
    let is_tls = input.starts_with(&[0x15, 0x03]);
    let length = match status.map_err(|error| match error {
        _ if is_tls => invalid(&"it speaks TLS; write `https://`"),
        error => invalid(&error),
    })? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let code = parsed.code.unwrap_or_default();
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(code).map_err(|error| invalid(&error))?;
    if let Some(phrase) = parsed.reason.filter(|phrase| !phrase.is_empty())
        && head.status().canonical_reason() != Some(phrase)
        && let Ok(phrase) = ReasonPhrase::try_from(phrase.as_bytes())
    {
        head.extensions_mut().insert(phrase);
    }
    *head.version_mut() = match parsed.version {
        Some(0) => http::Version::HTTP_10,
        _ => http::Version::HTTP_11,
    };
    // Names and places of the values, so that the values are cut from the input without a copy.
    let start = input.as_ptr().addr();
    let mut places = SmallVec::<[_; 16]>::new();
    for field in parsed.headers.iter() {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| invalid(&error))?;
        let at = field.value.as_ptr().addr() - start;
        places.push((name, at..at + field.value.len()));
    }
    let bytes = input.split_to(length).freeze();
    let mut fields = std::mem::take(spare);
    fields.reserve(places.len());
    for (name, place) in places {
        let value =
            HeaderValue::from_maybe_shared(bytes.slice(place)).map_err(|error| invalid(&error))?;
        fields.append(name, value);
    }
    *head.headers_mut() = fields;
    Ok(Some(head))
}

/// How the body is framed (RFC 9112 6.3), and whether the connection outlives it. Leaves no length in `head` that
/// another reader would refuse or take for a body's.
fn framing(head: &mut Response<()>, method: &Method) -> Result<(Framing, bool), UpstreamError> {
    let is_old = head.version() == http::Version::HTTP_10;
    let Said {
        coding,
        length,
        is_plain,
        is_closing,
    } = Said::by(head.headers());
    let is_persistent = !is_old && !is_closing;
    let status = head.status();
    match length {
        Length::Known(_) if is_plain && status != StatusCode::NO_CONTENT => {}
        Length::Known(length) if status != StatusCode::NO_CONTENT => {
            head.headers_mut()
                .insert(header::CONTENT_LENGTH, length.into());
        }
        Length::None => {}
        Length::Known(_) | Length::Several | Length::Bad => {
            head.headers_mut().remove(header::CONTENT_LENGTH);
        }
    }
    if status == StatusCode::NO_CONTENT {
        // It has no body, and who says one may send it all the same: that would be read as the next answer.
        let is_empty = matches!(length, Length::None | Length::Known(0));
        let is_clear = is_empty && matches!(coding, Coding::None);
        return Ok((Framing::Length(0), is_persistent && is_clear));
    }
    if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ok((Framing::Length(0), is_persistent));
    }
    match (coding, length) {
        (Coding::Chunked, length) if !is_old => {
            // With a length beside it, somebody in between may see another end: the connection is done.
            let is_persistent = is_persistent && length == Length::None;
            Ok((Framing::Chunked(Chunk::Size), is_persistent))
        }
        (Coding::Chunked | Coding::Other, _) => {
            Err(invalid(&"its Transfer-Encoding is not exactly `chunked`"))
        }
        (Coding::None, Length::None) => Ok((Framing::Close, false)),
        (Coding::None, Length::Known(length)) => Ok((Framing::Length(length), is_persistent)),
        (Coding::None, Length::Several) => Err(invalid(&"it has two Content-Lengths")),
        (Coding::None, Length::Bad) => Err(invalid(&"its Content-Length is not a number")),
    }
}

/// What the fields of a head say of its body's framing.
struct Said {
    coding: Coding,
    length: Length,
    /// Whether the length is written once, and as everybody writes it.
    is_plain: bool,
    is_closing: bool,
}

enum Coding {
    None,
    Chunked,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    None,
    Known(u64),
    Several,
    Bad,
}

impl Said {
    fn by(fields: &HeaderMap) -> Self {
        let mut said = Self {
            coding: Coding::None,
            length: Length::None,
            is_plain: true,
            is_closing: false,
        };
        for (name, value) in fields {
            let mut items = value
                .as_bytes()
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii);
            match *name {
                header::CONNECTION => {
                    said.is_closing |= items.any(|option| option.eq_ignore_ascii_case(b"close"));
                }
                header::CONTENT_LENGTH => {
                    let leads_with_zero = value.len() > 1 && value.as_bytes().starts_with(b"0");
                    said.is_plain = said.length == Length::None
                        && !leads_with_zero
                        && value.as_bytes().iter().all(u8::is_ascii_digit);
                    said.length = items.fold(said.length, Length::with);
                }
                header::TRANSFER_ENCODING => {
                    let is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
                    said.coding = match said.coding {
                        Coding::None if is_chunked => Coding::Chunked,
                        _ => Coding::Other,
                    };
                }
                _ => {}
            }
        }
        said
    }
}

impl Length {
    /// With one more that says the same, or not.
    fn with(self, text: &[u8]) -> Self {
        match (self, decimal(text)) {
            (Self::Bad, _) | (_, None) => Self::Bad,
            (Self::None, Some(length)) => Self::Known(length),
            (Self::Known(known), Some(length)) if known == length => self,
            (Self::Known(_) | Self::Several, Some(_)) => Self::Several,
        }
    }
}

/// Digits and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A chunk's size line without its line end: hexadecimal digits, then perhaps extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
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
            Framing::Length(0) | Framing::Chunked(Chunk::Done)
        )
    }

    /// How much is left, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(left) => Some(left),
            Framing::Chunked(Chunk::Done) => Some(0),
            Framing::Chunked(_) | Framing::Close => None,
        }
    }

    /// The whole body, where it came with the head and its end is known.
    pub(super) fn whole(&mut self) -> Option<Bytes> {
        let Framing::Length(length) = self.framing else {
            return None;
        };
        let length = usize::try_from(length).ok()?;
        let input = &mut self.connection.input;
        (input.len() >= length).then(|| {
            self.framing = Framing::Length(0);
            input.split_to(length).freeze()
        })
    }

    /// The connection, where it is good for another request.
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
                Ok(0) if self.framing == Framing::Close => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(aborted(&"it closed inside its answer")))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(aborted(&error)))),
            }
        }
    }

    /// Offers the app what it has not yet taken of the request. Whether it wants it shows in its answer.
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

    /// What can be taken from what came in.
    fn take(&mut self) -> Result<Step, UpstreamError> {
        let input = &mut self.connection.input;
        loop {
            match &mut self.framing {
                Framing::Length(0) | Framing::Chunked(Chunk::Done) => return Ok(Step::Done),
                _ if input.is_empty() => return Ok(Step::More),
                Framing::Close => return Ok(Step::Data(input.split().freeze())),
                Framing::Length(left) => return Ok(Step::Data(up_to(input, left))),
                Framing::Chunked(Chunk::Data(left)) => {
                    let data = up_to(input, left);
                    if *left == 0 {
                        self.framing = Framing::Chunked(Chunk::End);
                    }
                    return Ok(Step::Data(data));
                }
                Framing::Chunked(chunk) => match line(input)? {
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
    /// What comes after a line.
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

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn head_of(text: &str) -> Result<Option<Response<()>>, UpstreamError> {
        answer_head(&mut BytesMut::from(text), &mut HeaderMap::new())
    }

    fn framed(text: &str, method: &Method) -> Result<(Framing, bool), UpstreamError> {
        framing(&mut head_of(text)?.unwrap(), method)
    }

    #[test]
    fn a_length_that_goes_on_is_one_that_everybody_reads_alike() {
        // SECURITY U-11, U-13
        for (status, method, fields, expected) in [
            ("200 OK", Method::POST, "Content-Length: 5", Some("5")),
            (
                "200 OK",
                Method::POST,
                "Content-Length: 5\r\nContent-Length: 5",
                Some("5"),
            ),
            ("200 OK", Method::POST, "Content-Length: 5, 5", Some("5")),
            ("200 OK", Method::POST, "Content-Length: 005", Some("5")),
            ("200 OK", Method::POST, "Content-Length: 0", Some("0")),
            ("200 OK", Method::HEAD, "Content-Length: 5,5", Some("5")),
            ("200 OK", Method::HEAD, "Content-Length: 5, 6", None),
            ("200 OK", Method::HEAD, "Content-Length: x", None),
            ("204 No Content", Method::POST, "Content-Length: 5", None),
            (
                "304 Not Modified",
                Method::GET,
                "Content-Length: 5",
                Some("5"),
            ),
        ] {
            let mut head = head_of(&format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n"))
                .unwrap()
                .unwrap();
            framing(&mut head, &method).unwrap();
            let lengths: Vec<_> = head
                .headers()
                .get_all(header::CONTENT_LENGTH)
                .iter()
                .collect();
            let expected: Vec<_> = expected.into_iter().collect();
            assert_eq!(lengths, expected, "{status} {fields}");
        }
    }

    #[test]
    fn heads_are_taken_whole_and_leave_the_rest() {
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\n\r\nrest");
        let head = answer_head(&mut input, &mut HeaderMap::new());
        let head = head.unwrap().unwrap();
        assert_eq!(input, "rest");
        let values: Vec<_> = head.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert!(head_of("HTTP/1.1 200 OK\r\nX-A: 1\r\n").unwrap().is_none());
        assert!(head_of("SMTP 200\r\n\r\n").is_err());
    }

    #[test]
    fn framings() {
        // SECURITY U-11, U-13, U-14
        let post = Method::POST;
        for (fields, expected) in [
            ("Content-Length: 5", (Framing::Length(5), true)),
            (
                "Content-Length: 5\r\ncontent-length: 5",
                (Framing::Length(5), true),
            ),
            (
                "Content-Length: 5\r\nConnection: x, Close",
                (Framing::Length(5), false),
            ),
            (
                "Transfer-Encoding: Chunked",
                (Framing::Chunked(Chunk::Size), true),
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                (Framing::Chunked(Chunk::Size), false),
            ),
            ("X-A: 1", (Framing::Close, false)),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert_eq!(framed(&text, &post).unwrap(), expected, "{fields}");
        }
        for fields in [
            "Content-Length: 5, 6",
            "Content-Length: +5",
            "Content-Length: ",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert!(framed(&text, &post).is_err(), "{fields}");
        }
        let none = (Framing::Length(0), true);
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framed(length, &Method::HEAD).unwrap(), none);
        let unchanged = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framed(unchanged, &post).unwrap(), none);
        for (fields, is_kept) in [
            ("X-A: 1", true),
            ("Content-Length: 0", true),
            ("Content-Length: 5", false),
            ("Transfer-Encoding: chunked", false),
        ] {
            let text = format!("HTTP/1.1 204 No Content\r\n{fields}\r\n\r\n");
            let expected = (Framing::Length(0), is_kept);
            assert_eq!(framed(&text, &post).unwrap(), expected, "{fields}");
        }
        let old = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framed(old, &post).unwrap(), (Framing::Length(5), false));
    }

    /// What a chunked body reads as, cut into pieces of `step` bytes.
    async fn dechunked(wire: &str, step: usize) -> Result<String, UpstreamError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut rest = Rest {
            connection: Connection::new(Stream::Unix(ours)),
            framing: Framing::Chunked(Chunk::Size),
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

    #[tokio::test]
    async fn what_is_ready_goes_first() {
        let turns = Arc::new(Mutex::new(Vec::new()));
        let tasks = ["a", "b"].map(|own| {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move {
                turns.lock().unwrap().push(format!("{own} judged"));
                behind_the_ready().await;
                turns.lock().unwrap().push(format!("{own} written"));
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        let turns = turns.lock().unwrap();
        assert_eq!(*turns, ["a judged", "b judged", "a written", "b written"]);
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
            "\r\n",
            "11111111111111111\r\n",
        ] {
            assert!(dechunked(bad, 1000).await.is_err(), "{bad:?}");
        }
        let long = format!("1;{}\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX));
        assert!(dechunked(&long, 10_000).await.is_err());
    }

    #[test]
    fn partial_writes_lose_and_double_nothing() {
        let frames = [
            Bytes::from_static(b"abc"),
            Bytes::new(),
            Bytes::from_static(b"defg"),
        ];
        for step in 1..=10 {
            let mut sending = Sending::new(b"HEAD", &frames);
            let mut rounds = 0;
            while !sending.head.is_empty() || !sending.frames.is_empty() {
                let head = sending.head.len();
                let body: usize = sending.frames.iter().map(Bytes::len).sum();
                let left = head + body - sending.offset;
                sending.advance(step.min(left));
                rounds += 1;
                assert!(rounds < 20);
            }
            assert_eq!(sending.offset, 0);
        }
    }
}
