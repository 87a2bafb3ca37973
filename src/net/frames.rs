//! HTTP/2 seen from beside: the head of each frame, both ways, and nothing of it copied.
//!
//! h2 answers every PING and SETTINGS, however many come (CVE-2019-9512, -9515), and hyper tells
//! nobody what h2 refused before it was a request. [`Counted`] ends floods and counts refusals.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What stands before the first frame of a client (RFC 9113 3.4).
const PREFACE_BYTES: usize = 24;
/// RFC 9113 4.1.
const HEAD_BYTES: usize = 9;
/// A head and the longest part of a payload that is looked at: that of a GOAWAY.
const SEEN_BYTES: usize = HEAD_BYTES + 8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames without progress that may come at once, and how many more each second (SECURITY H2-12).
const SPARE_MAX: u32 = 1000;
const SPARE_PER_SECOND: u32 = 100;
/// What a request earns: its priority, its windows, its reset.
const EARNED_BY_REQUEST: u64 = 8;
/// What a frame of a body earns, for pings that measure the line.
const EARNED_BY_BODY: u64 = 1;
/// What a frame of an answer earns: both windows are opened again, in parts at times.
const EARNED_BY_ANSWER: u64 = 4;

/// The head of a frame, with the error code of those that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    length: u32,
    stream: u32,
    code: u32,
}

/// Finds the frames in a stream of bytes, however it is cut.
#[derive(Debug)]
struct Scan {
    seen: [u8; SEEN_BYTES],
    have: usize,
    skip: usize,
}

impl Scan {
    fn after(skip: usize) -> Self {
        Self {
            seen: [0; SEEN_BYTES],
            have: 0,
            skip,
        }
    }

    /// Between two frames.
    fn is_at_boundary(&self) -> bool {
        self.have == 0 && self.skip == 0
    }

    /// Tells of every frame whose head is complete with these bytes.
    fn scan(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let (skipped, rest) = bytes.split_at(self.skip.min(bytes.len()));
                self.skip -= skipped.len();
                bytes = rest;
                continue;
            }
            let wanted = self.wanted();
            let (taken, rest) = bytes.split_at((wanted - self.have).min(bytes.len()));
            for (own, byte) in self.seen.iter_mut().skip(self.have).zip(taken) {
                *own = *byte;
            }
            self.have += taken.len();
            bytes = rest;
            if self.have == self.wanted() {
                let frame = self.frame();
                self.skip = frame.length as usize + HEAD_BYTES - self.have;
                self.have = 0;
                tell(frame);
            }
        }
    }

    /// How many bytes of the present frame are looked at.
    fn wanted(&self) -> usize {
        if self.have < HEAD_BYTES {
            return HEAD_BYTES;
        }
        let frame = self.frame();
        let payload = match frame.kind {
            RST_STREAM => 4,
            GOAWAY => 8,
            _ => 0,
        };
        HEAD_BYTES + payload.min(frame.length as usize)
    }

    fn frame(&self) -> Frame {
        let [a, b, c, kind, flags, s0, s1, s2, s3, code @ ..] = self.seen;
        let [p0, p1, p2, p3, q0, q1, q2, q3] = code;
        let code = if kind == GOAWAY {
            [q0, q1, q2, q3]
        } else {
            [p0, p1, p2, p3]
        };
        Frame {
            kind,
            flags,
            length: u32::from_be_bytes([0, a, b, c]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1),
            code: u32::from_be_bytes(code),
        }
    }
}

/// How many frames without progress a client may still send.
#[derive(Debug)]
struct Patience {
    earned: u64,
    spare: u32,
    refilled: Instant,
}

impl Patience {
    fn new() -> Self {
        Self {
            earned: 0,
            spare: SPARE_MAX,
            refilled: Instant::now(),
        }
    }

    /// Whether there was any left for one more.
    fn spend(&mut self) -> bool {
        if let Some(left) = self.earned.checked_sub(1) {
            self.earned = left;
            return true;
        }
        if self.spare == 0 {
            self.refill();
        }
        let left = self.spare.checked_sub(1);
        self.spare = left.unwrap_or(0);
        left.is_some()
    }

    /// The clock is read only where the spare frames are gone.
    fn refill(&mut self) {
        let second = Duration::from_secs(1).as_nanos();
        let due = self.refilled.elapsed().as_nanos() * u128::from(SPARE_PER_SECOND) / second;
        let due = u32::try_from(due).unwrap_or(SPARE_MAX).min(SPARE_MAX);
        if due > 0 {
            self.spare = due;
            self.refilled = Instant::now();
        }
    }
}

/// Where refusals are counted, and what reached the gateway.
pub(super) trait Ledger {
    /// Requests that the gateway has got of this connection.
    fn begun(&self) -> u64;
    /// One more was refused before it was a request, or with it the whole connection.
    fn refused(&self);
}

/// What has passed over a connection.
#[derive(Debug)]
struct Traffic {
    received: Scan,
    sent: Scan,
    patience: Patience,
    last_stream: u32,
    opened: u64,
    unserved: u64,
}

impl Traffic {
    fn new() -> Self {
        Self {
            received: Scan::after(PREFACE_BYTES),
            sent: Scan::after(0),
            patience: Patience::new(),
            last_stream: 0,
            opened: 0,
            unserved: 0,
        }
    }

    /// Looks at what the client sent. Whether it may go on.
    fn receive(&mut self, bytes: &[u8]) -> bool {
        let Self {
            received,
            patience,
            last_stream,
            opened,
            ..
        } = self;
        let mut calm = true;
        received.scan(bytes, |frame| match frame.kind {
            HEADERS if frame.stream > *last_stream => {
                *last_stream = frame.stream;
                *opened += 1;
                patience.earned += EARNED_BY_REQUEST;
            }
            DATA if frame.length > 0 => patience.earned += EARNED_BY_BODY,
            DATA if frame.flags & END_STREAM != 0 => {}
            // Part of a header block, which h2 bounds.
            CONTINUATION => {}
            _ => calm &= patience.spend(),
        });
        calm
    }

    /// Looks at what h2 sends.
    fn send(&mut self, bytes: &[u8], ledger: &impl Ledger) {
        let Self {
            sent,
            patience,
            opened,
            unserved,
            ..
        } = self;
        sent.scan(bytes, |frame| match (frame.kind, frame.code) {
            (DATA, _) if frame.length > 0 => patience.earned += EARNED_BY_ANSWER,
            // A stream that never became a request, unless the gateway has got as many as there are.
            (RST_STREAM, PROTOCOL_ERROR | REFUSED_STREAM)
                if *opened > ledger.begun() + *unserved =>
            {
                *unserved += 1;
                if frame.code == PROTOCOL_ERROR {
                    ledger.refused();
                }
            }
            (GOAWAY, code) if code != NO_ERROR => ledger.refused(),
            _ => {}
        });
    }

    /// The last word to a client that floods, where a frame may begin.
    fn goodbye(&self) -> Option<[u8; SEEN_BYTES]> {
        if !self.sent.is_at_boundary() {
            return None;
        }
        let [s0, s1, s2, s3] = self.last_stream.to_be_bytes();
        let [c0, c1, c2, c3] = ENHANCE_YOUR_CALM.to_be_bytes();
        Some([
            0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, s0, s1, s2, s3, c0, c1, c2, c3,
        ])
    }
}

/// A connection whose frames are looked at as they pass.
#[derive(Debug)]
pub(super) struct Counted<I, L> {
    io: I,
    ledger: L,
    traffic: Traffic,
    is_over: bool,
}

impl<I, L> Counted<I, L> {
    pub(super) fn new(io: I, ledger: L) -> Self {
        Self {
            io,
            ledger,
            traffic: Traffic::new(),
            is_over: false,
        }
    }
}

impl<I: AsyncWrite + Unpin, L: Ledger> Counted<I, L> {
    /// Ends the connection: with a GOAWAY, if the client takes one now.
    fn end(&mut self, cx: &mut Context<'_>) -> io::Error {
        if !self.is_over {
            self.is_over = true;
            self.ledger.refused();
            if let Some(goodbye) = self.traffic.goodbye()
                && Pin::new(&mut self.io).poll_write(cx, &goodbye).is_ready()
            {
                // Whether it arrives changes nothing.
                let _flushed = Pin::new(&mut self.io).poll_flush(cx).is_ready();
            }
        }
        io::Error::other("a flood of frames that ask for no work")
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin, L: Ledger + Unpin> AsyncRead for Counted<I, L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over {
            return Poll::Ready(Err(self.end(cx)));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        if self.traffic.receive(new) {
            return polled;
        }
        buf.set_filled(before);
        Poll::Ready(Err(self.end(cx)))
    }
}

impl<I: AsyncWrite + Unpin, L: Ledger + Unpin> AsyncWrite for Counted<I, L> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self {
            io,
            ledger,
            traffic,
            ..
        } = self.get_mut();
        let polled = Pin::new(io).poll_write(cx, buf);
        if let Poll::Ready(Ok(length)) = &polled {
            traffic.send(buf.get(..*length).unwrap_or_default(), ledger);
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self {
            io,
            ledger,
            traffic,
            ..
        } = self.get_mut();
        let polled = Pin::new(io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(length)) = &polled {
            let mut left = *length;
            for buf in bufs {
                let (written, _) = buf.split_at(left.min(buf.len()));
                traffic.send(written, ledger);
                left -= written.len();
            }
        }
        polled
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// The bytes of these frames after a preface.
    fn after_preface(frames: &[Vec<u8>]) -> Vec<u8> {
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frames.concat(),
        ]
        .concat()
    }

    #[derive(Default)]
    struct Book {
        begun: Cell<u64>,
        refused: Cell<u64>,
    }

    impl Ledger for &Book {
        fn begun(&self) -> u64 {
            self.begun.get()
        }

        fn refused(&self) {
            self.refused.set(self.refused.get() + 1);
        }
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let bytes = after_preface(&[
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, 4, 1, &[0x83; 40]),
            frame(DATA, 1, 1, &[7; 300]),
            frame(RST_STREAM, 0, 3, &8_u32.to_be_bytes()),
            frame(RST_STREAM, 0, 5, &[9, 9]),
            frame(GOAWAY, 0, 0, b"\0\0\0\x05\0\0\0\x0bwith words"),
            frame(PING, 1, 0, &[1; 8]),
        ]);
        for step in 1..bytes.len() {
            let mut scan = Scan::after(PREFACE_BYTES);
            let mut found = Vec::new();
            for part in bytes.chunks(step) {
                scan.scan(part, |frame| found.push(frame));
            }
            let shown: Vec<_> = found.iter().map(|f| (f.kind, f.stream, f.length)).collect();
            assert_eq!(
                shown,
                [
                    (SETTINGS, 0, 0),
                    (HEADERS, 1, 40),
                    (DATA, 1, 300),
                    (RST_STREAM, 3, 4),
                    (RST_STREAM, 5, 2),
                    (GOAWAY, 0, 18),
                    (PING, 0, 8)
                ]
            );
            assert_eq!((found[3].code, found[5].code), (8, 11));
            assert!(scan.is_at_boundary());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_bring_nothing_have_a_rate() {
        // SECURITY H2-12
        let ping = frame(PING, 0, 0, &[0; 8]);
        let mut traffic = Traffic::new();
        assert!(traffic.receive(&after_preface(&[])));
        assert!((0..SPARE_MAX).all(|_| traffic.receive(&ping)));
        assert!(!traffic.receive(&ping));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!((0..2 * SPARE_PER_SECOND).all(|_| traffic.receive(&ping)));
        assert!(!traffic.receive(&ping));
        // A day of calm is no licence.
        tokio::time::advance(Duration::from_hours(24)).await;
        assert!((0..SPARE_MAX).all(|_| traffic.receive(&ping)));
        assert!(!traffic.receive(&ping));
    }

    #[tokio::test(start_paused = true)]
    async fn work_earns_the_frames_that_go_with_it() {
        let book = Book::default();
        let mut traffic = Traffic::new();
        assert!(traffic.receive(&after_preface(&[])));
        let window = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 64, 0]));
        // A large answer whose client opens both windows for each of its frames.
        for _ in 0..100_000 {
            traffic.send(&frame(DATA, 0, 1, &[0; 10]), &&book);
            assert!(traffic.receive(&window.concat()));
        }
        // Many requests, each with a priority, a window and a reset.
        for stream in (3..50_000).step_by(2) {
            let request = [
                frame(HEADERS, 4, stream, &[0; 20]),
                frame(2, 0, stream, &[0; 5]),
                window[1].clone(),
                frame(RST_STREAM, 0, stream, &[0; 4]),
            ];
            assert!(traffic.receive(&request.concat()));
        }
        assert_eq!(book.refused.get(), 0);
        // The head of a stream that is there already earns nothing.
        traffic.patience = Patience::new();
        let again = frame(HEADERS, 4, 3, &[0; 20]);
        assert!((0..SPARE_MAX).all(|_| traffic.receive(&again)));
        assert!(!traffic.receive(&again));
    }

    #[test]
    fn what_h2_refuses_is_counted_once() {
        // SECURITY H2-10
        let book = Book::default();
        let mut traffic = Traffic::new();
        let reset = |stream, code: u32| frame(RST_STREAM, 0, stream, &code.to_be_bytes());
        let head = |stream| frame(HEADERS, 4, stream, &[0; 20]);
        assert!(traffic.receive(&after_preface(&[head(1), head(3), head(5)])));
        book.begun.set(1);
        traffic.send(&reset(3, PROTOCOL_ERROR), &&book);
        traffic.send(&reset(5, REFUSED_STREAM), &&book);
        assert_eq!(book.refused.get(), 1);
        // The first is with the gateway, which has its own record of it.
        traffic.send(&reset(1, PROTOCOL_ERROR), &&book);
        traffic.send(&frame(GOAWAY, 0, 0, &[0; 8]), &&book);
        assert_eq!(book.refused.get(), 1);
        traffic.send(&frame(GOAWAY, 0, 0, b"\0\0\0\x01\0\0\0\x01"), &&book);
        assert_eq!(book.refused.get(), 2);
    }

    #[tokio::test]
    async fn a_flood_ends_with_a_goaway() {
        // SECURITY H2-12
        let book = Book::default();
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut server = Counted::new(server, &book);
        let ping = frame(PING, 0, 0, &[0; 8]);
        let flood = after_preface(&[frame(HEADERS, 4, 7, &[0; 20]), ping.repeat(1100)]);
        client.write_all(&flood).await.unwrap();
        let mut sink = Vec::new();
        assert!(server.read_to_end(&mut sink).await.is_err());
        assert!(server.read_u8().await.is_err());
        drop(server);
        sink.clear();
        client.read_to_end(&mut sink).await.unwrap();
        assert_eq!(sink, frame(GOAWAY, 0, 0, b"\0\0\0\x07\0\0\0\x0b"));
        assert_eq!(book.refused.get(), 1);
    }
}
