//! A connection's bytes, and what they say of its client to the watch.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::watch::Watch;
use crate::net::linger::Linger;

/// Whether there is nothing but ends of lines: before a head they are of no meaning (RFC 9112 2.2).
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// A stream that tells the watch when bytes come in, and when none go out.
#[derive(Debug)]
pub(super) struct Watched<I> {
    pub(super) io: I,
    pub(super) watch: Arc<Watch>,
    /// What was read before hyper asked.
    pub(super) early: Bytes,
    kind: Kind,
}

/// Whose bytes they are.
#[derive(Debug)]
enum Kind {
    /// Any of them begins a head, between two requests.
    Http1,
    /// It may be a ping's. Once the sender has ended, by a word or a reset, `h2` gives up requests that it has not yet
    /// handed over, and what it has of their bodies, so the end is told one turn late: this is the turn that it came in.
    Http2 {
        ended_in: Option<u64>,
        linger: Option<Box<Linger>>,
    },
}

impl<I> Watched<I> {
    pub(super) fn http1(io: I, watch: Arc<Watch>) -> Self {
        Self::new(io, watch, Kind::Http1)
    }

    pub(super) fn http2(io: I, watch: Arc<Watch>) -> Self {
        let kind = Kind::Http2 {
            ended_in: None,
            linger: None,
        };
        Self::new(io, watch, kind)
    }

    fn new(io: I, watch: Arc<Watch>, kind: Kind) -> Self {
        Self {
            io,
            watch,
            early: Bytes::new(),
            kind,
        }
    }
}

impl<I: AsyncRead + Unpin> Watched<I> {
    /// Waits for the first bytes of a request; `false` when the client has gone instead.
    pub(super) fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.early.is_empty() {
            return Poll::Ready(true);
        }
        let mut room = [0; 64];
        let mut early = ReadBuf::new(&mut room);
        loop {
            early.clear();
            let read = ready!(Pin::new(&mut *self).poll_read(cx, &mut early));
            let new = early.filled();
            if read.is_err() || new.is_empty() {
                return Poll::Ready(false);
            }
            if !is_blank(new) {
                self.early = Bytes::copy_from_slice(new);
                return Poll::Ready(true);
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let size = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(size));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        if !is_blank(new) {
            self.watch.reads();
        }
        let this = &mut *self;
        match &mut this.kind {
            Kind::Http1 if !is_blank(new) => this.watch.woken(),
            Kind::Http2 { ended_in, .. }
                if new.is_empty() && buf.remaining() > 0 && result.is_ready() =>
            {
                let turn = this.watch.turn();
                if *ended_in.get_or_insert(turn) == turn {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            Kind::Http1 | Kind::Http2 { .. } => {}
        }
        result
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watch.writes();
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch.writes();
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch.wrote(&polled);
        self.watch.flushes(matches!(polled, Poll::Ready(Ok(()))));
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        let this = &mut *self;
        // hyper gives an HTTP/1.1 connection back before it is closed, and one of HTTP/2 never.
        let Kind::Http2 { linger, .. } = &mut this.kind else {
            return Poll::Ready(Ok(()));
        };
        if linger.is_none() {
            let patience = this.watch.patience();
            *linger = patience.map(|patience| Box::new(Linger::new(patience)));
            this.watch.lingers();
        }
        match linger {
            Some(linger) => linger.poll(cx, &mut this.io).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}
