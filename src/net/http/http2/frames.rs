//! Watches HTTP/2 as it passes: the head of each frame, both ways, without copying.
//!
//! h2 answers every PING and SETTINGS, however many come (CVE-2019-9512, -9515), and hyper does not say what h2
//! refused before it was a request. [`Counted`] ends floods, [`Tally`] counts refusals.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::reason::Reason;

/// Length of the preface before a client's first frame (RFC 9113 3.4).
const PREFACE_BYTES: usize = 24;
/// Length of a frame's head (RFC 9113 4.1).
const HEAD_BYTES: usize = 9;
/// Bytes of a frame that are looked at: its head, and at most the first eight of a GOAWAY.
const SEEN_BYTES: usize = HEAD_BYTES + 8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const STREAM_MAX: u32 = u32::MAX >> 1;

/// Longest header block that is nothing but a status (RFC 7541 6.2), behind two sizes of the table. Refusals of ours have
/// a request id: of what was refused, only h2's own 431 is one.
const STATUS_BYTES_MAX: u32 = 13;

const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames without progress that may come at once, and how many more each second (SECURITY H2-12).
const SPARE_MAX: u32 = 1000;
const SPARE_PER_SECOND: u32 = 100;
/// Frames without progress that each request allows: its priority, its windows, its reset.
const CREDIT_PER_REQUEST: u64 = 8;
/// Frames without progress that each frame of a body allows, for pings that measure the line.
const CREDIT_PER_BODY_FRAME: u64 = 1;
/// A frame that makes no progress counts once per this many bytes. Every frame that HTTP/2 defines for that fits in
/// one.
const FRAME_BYTES_FREE: u32 = 512;
/// Frames without progress that each frame of an answer allows: the client opens both windows again, in parts at
/// times.
const CREDIT_PER_ANSWER_FRAME: u64 = 4;

/// The head of a frame. Of a reset `words` begins with the error, of a GOAWAY it is the last stream and the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    length: u32,
    stream: u32,
    words: [u32; 2],
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

    /// Whether the next byte begins a frame.
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
        let [a, b, c, kind, flags, s0, s1, s2, s3, words @ ..] = self.seen;
        let [p0, p1, p2, p3, q0, q1, q2, q3] = words;
        Frame {
            kind,
            flags,
            length: u32::from_be_bytes([0, a, b, c]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & STREAM_MAX,
            words: [[p0, p1, p2, p3], [q0, q1, q2, q3]].map(u32::from_be_bytes),
        }
    }
}

/// How many frames without progress a client may still send (SECURITY H2-12).
#[derive(Debug)]
struct FrameCredit {
    earned: u64,
    spare: u32,
    refilled: Instant,
}

impl FrameCredit {
    fn new() -> Self {
        Self {
            earned: 0,
            spare: SPARE_MAX,
            refilled: Instant::now(),
        }
    }

    /// Takes one; `false` when none is left.
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

    /// Called only when the spare frames are gone, so that the clock is rarely read.
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

/// Counts what h2 was given; what did not become a request, h2 refused.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Heads of requests, without those refused because the client had too many streams open.
    heads: AtomicU64,
    /// Whether a frame or a header block has come only in part.
    is_within: AtomicBool,
    /// Whether a GOAWAY was sent: nothing that comes becomes a request any more.
    is_over: AtomicBool,
    /// Whether the connection ended because of an error of the client, not yet told.
    is_at_fault: AtomicBool,
    /// Heads that h2 itself has answered with 431.
    too_large: AtomicU64,
    /// Refusals that were told already, and how many of them were of heads that are too large.
    told: AtomicU64,
    told_too_large: AtomicU64,
}

impl Tally {
    /// Whether the last GOAWAY was sent: in a shutdown, once the client has answered the ping.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    /// Why h2 has refused requests since the last call; `begun` have become requests. h2 must have read all that it was
    /// given.
    pub(super) fn refusals(&self, begun: u64) -> impl Iterator<Item = Reason> {
        let (refused, too_large) = self.refused(begun);
        let reasons = move |index| {
            if index < too_large {
                Reason::HeaderTooLarge
            } else {
                Reason::MalformedRequest
            }
        };
        (0..refused).map(reasons)
    }

    /// How many since the last call, and how many of them because of their size.
    fn refused(&self, begun: u64) -> (u64, u64) {
        if self.is_over.load(Relaxed) {
            // The connection, with all that was in it, counts as one.
            return (u64::from(self.is_at_fault.swap(false, Relaxed)), 0);
        }
        if self.is_within.load(Relaxed) {
            return (0, 0);
        }
        let since = |all: u64, told: &AtomicU64| all.saturating_sub(told.swap(all, Relaxed));
        let refused = self.heads.load(Relaxed).saturating_sub(begun);
        let too_large = since(self.too_large.load(Relaxed), &self.told_too_large);
        (since(refused, &self.told), too_large)
    }

    fn end(&self, is_at_fault: bool) {
        if !self.is_over.swap(true, Relaxed) {
            self.is_at_fault.store(is_at_fault, Relaxed);
        }
    }
}

/// What has passed over a connection.
#[derive(Debug)]
struct Traffic {
    received: Scan,
    sent: Scan,
    credit: FrameCredit,
    last_stream: u32,
    is_in_block: bool,
    tally: Arc<Tally>,
}

impl Traffic {
    fn new(tally: Arc<Tally>) -> Self {
        Self {
            received: Scan::after(PREFACE_BYTES),
            sent: Scan::after(0),
            credit: FrameCredit::new(),
            last_stream: 0,
            is_in_block: false,
            tally,
        }
    }

    /// Looks at what the client sent; `false` when it floods.
    fn receive(&mut self, bytes: &[u8]) -> bool {
        let Self {
            received,
            credit,
            last_stream,
            is_in_block,
            tally,
            ..
        } = self;
        let mut calm = true;
        received.scan(bytes, |frame| {
            let ends_block = frame.flags & END_HEADERS != 0;
            match frame.kind {
                HEADERS if frame.stream > *last_stream => {
                    *last_stream = frame.stream;
                    *is_in_block = !ends_block;
                    tally.heads.fetch_add(1, Relaxed);
                    credit.earned += CREDIT_PER_REQUEST;
                }
                DATA if frame.length > 0 => credit.earned += CREDIT_PER_BODY_FRAME,
                DATA if frame.flags & END_STREAM != 0 => {}
                // A part of a header block, whose size h2 bounds.
                CONTINUATION => *is_in_block &= !ends_block,
                // A long one counts for several, because it stays in memory with the bodies that were read with it.
                _ => {
                    for _ in 0..=frame.length / FRAME_BYTES_FREE {
                        calm &= credit.spend();
                    }
                }
            }
        });
        let is_within = *is_in_block || !received.is_at_boundary();
        tally.is_within.store(is_within, Relaxed);
        calm
    }

    /// Looks at what h2 sends.
    fn send(&mut self, bytes: &[u8]) {
        let Self {
            sent,
            credit,
            tally,
            ..
        } = self;
        sent.scan(bytes, |frame| match (frame.kind, frame.words) {
            (DATA, _) if frame.length > 0 => credit.earned += CREDIT_PER_ANSWER_FRAME,
            (RST_STREAM, [REFUSED_STREAM, _]) => {
                tally.heads.fetch_sub(1, Relaxed);
            }
            (HEADERS, _) if frame.flags & END_STREAM != 0 && frame.length <= STATUS_BYTES_MAX => {
                tally.too_large.fetch_add(1, Relaxed);
            }
            // A GOAWAY with the highest possible stream only announces the shutdown.
            (GOAWAY, [STREAM_MAX, NO_ERROR]) => {}
            (GOAWAY, [_, code]) => tally.end(code != NO_ERROR),
            _ => {}
        });
    }

    /// A GOAWAY for a client that floods; `None` in the middle of another frame.
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
pub(super) struct Counted<I> {
    io: I,
    traffic: Traffic,
    is_over: bool,
}

impl<I> Counted<I> {
    pub(super) fn new(io: I, tally: Arc<Tally>) -> Self {
        Self {
            io,
            traffic: Traffic::new(tally),
            is_over: false,
        }
    }
}

impl<I: AsyncWrite + Unpin> Counted<I> {
    /// Ends the connection, with a GOAWAY if it can be written now.
    fn end(&mut self, cx: &mut Context<'_>) -> io::Error {
        if !self.is_over {
            self.is_over = true;
            self.traffic.tally.end(true);
            if let Some(goodbye) = self.traffic.goodbye()
                && Pin::new(&mut self.io).poll_write(cx, &goodbye).is_ready()
            {
                // Whether it arrives makes no difference.
                let _flushed = Pin::new(&mut self.io).poll_flush(cx).is_ready();
            }
        }
        io::Error::other("a flood of frames that ask for no work")
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Counted<I> {
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

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { io, traffic, .. } = self.get_mut();
        let polled = Pin::new(io).poll_write(cx, buf);
        if let Poll::Ready(Ok(length)) = &polled {
            traffic.send(buf.get(..*length).unwrap_or_default());
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, traffic, .. } = self.get_mut();
        let polled = Pin::new(io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(length)) = &polled {
            let mut left = *length;
            for buf in bufs {
                let (written, _) = buf.split_at(left.min(buf.len()));
                traffic.send(written);
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

    /// Traffic after the preface.
    fn traffic() -> Traffic {
        let mut traffic = Traffic::new(Arc::default());
        assert!(traffic.receive(&after_preface(&[])));
        traffic
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
            assert_eq!((found[3].words[0], found[5].words), (8, [5, 11]));
            assert!(scan.is_at_boundary());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_bring_nothing_have_a_rate() {
        // SECURITY H2-12
        let ping = frame(PING, 0, 0, &[0; 8]);
        let mut traffic = traffic();
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
        let mut traffic = traffic();
        let window = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 64, 0]));
        // A large answer whose client opens both windows for each of its frames.
        for _ in 0..100_000 {
            traffic.send(&frame(DATA, 0, 1, &[0; 10]));
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
        // The head of a stream that is there already earns nothing.
        traffic.credit = FrameCredit::new();
        let again = frame(HEADERS, 4, 3, &[0; 20]);
        assert!((0..SPARE_MAX).all(|_| traffic.receive(&again)));
        assert!(!traffic.receive(&again));
    }

    #[test]
    fn what_never_became_a_request_is_told_once() {
        // SECURITY H2-10
        let mut traffic = traffic();
        let tally = Arc::clone(&traffic.tally);
        let head = |flags, stream| frame(HEADERS, flags, stream, &[0; 20]);
        assert!(traffic.receive(&[head(4, 1), head(4, 3), head(4, 5)].concat()));
        traffic.send(&frame(RST_STREAM, 0, 5, &REFUSED_STREAM.to_be_bytes()));
        assert_eq!((tally.refused(1), tally.refused(1)), ((1, 0), (0, 0)));
        // Not before its head is complete: frame by frame, byte by byte.
        let block = [head(0, 7), frame(CONTINUATION, 4, 7, &[0; 20])].concat();
        let (most, last) = block.split_at(block.len() - 1);
        for byte in most {
            assert!(traffic.receive(&[*byte]));
            assert_eq!(tally.refused(1), (0, 0));
        }
        assert!(traffic.receive(last));
        assert_eq!((tally.refused(2), tally.refused(2)), ((0, 0), (0, 0)));
        // The end of a connection counts for all that was in it.
        assert!(traffic.receive(&head(4, 9)));
        let goaway = |last: u32, code: u32| {
            let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
            frame(GOAWAY, 0, 0, &payload)
        };
        traffic.send(&goaway(STREAM_MAX, NO_ERROR));
        traffic.send(&goaway(9, 1));
        traffic.send(&goaway(9, 1));
        assert_eq!((tally.refused(2), tally.refused(2)), ((1, 0), (0, 0)));
    }

    #[test]
    fn a_head_that_is_too_large_is_told_as_such() {
        // SECURITY H2-10
        let mut traffic = traffic();
        let tally = Arc::clone(&traffic.tally);
        let head = |stream| frame(HEADERS, 4, stream, &[0; 20]);
        assert!(traffic.receive(&[head(1), head(3), head(5)].concat()));
        // An answer of ours, which has more than a status, and h2's own.
        traffic.send(&frame(HEADERS, 5, 1, &[0x88; 40]));
        traffic.send(&frame(HEADERS, 5, 3, b"\x48\x03431"));
        traffic.send(&frame(RST_STREAM, 0, 5, &1_u32.to_be_bytes()));
        let reasons: Vec<_> = tally.refusals(1).collect();
        assert_eq!(reasons, [Reason::HeaderTooLarge, Reason::MalformedRequest]);
        assert_eq!(tally.refusals(1).count(), 0);
    }

    #[test]
    fn what_comes_after_an_orderly_end_is_nobodys_fault() {
        let mut traffic = traffic();
        traffic.send(&frame(GOAWAY, 0, 0, &[0; 8]));
        assert!(traffic.receive(&frame(HEADERS, 4, 1, &[0; 20])));
        assert_eq!(traffic.tally.refused(0), (0, 0));
    }

    #[tokio::test]
    async fn a_flood_ends_with_a_goaway() {
        // SECURITY H2-12
        let tally = Arc::new(Tally::default());
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut server = Counted::new(server, Arc::clone(&tally));
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
        assert_eq!((tally.refused(0), tally.refused(0)), ((1, 0), (0, 0)));
    }
}
