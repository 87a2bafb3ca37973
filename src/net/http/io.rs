//! A connection's bytes, and what they say of its client to the watch.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::watch::Watch;
use crate::net::linger::Linger;

/// Whether the bytes are line ends only, which mean nothing before a head (RFC 9112 2.2).
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// A stream that tells the watch when bytes come in, and when the client takes none.
#[derive(Debug)]
pub(super) struct Watched<I> {
    pub(super) io: I,
    pub(super) watch: Arc<Watch>,
    /// Bytes that were read before hyper asked for them.
    pub(super) early: Bytes,
    protocol: Protocol,
}

/// What bytes from the client mean, by protocol.
#[derive(Debug)]
enum Protocol {
    /// Between two requests they begin a head.
    Http1,
    /// They may be a ping's. The end of input is passed on one turn late, because h2 drops streams that it has not
    /// handed over yet once it sees it. `ended_in` is the turn in which it came.
    Http2 {
        ended_in: Option<u64>,
        linger: Option<Box<Linger>>,
    },
}

impl<I> Watched<I> {
    pub(super) fn http1(io: I, watch: Arc<Watch>) -> Self {
        Self::new(io, watch, Protocol::Http1)
    }

    pub(super) fn http2(io: I, watch: Arc<Watch>) -> Self {
        let protocol = Protocol::Http2 {
            ended_in: None,
            linger: None,
        };
        Self::new(io, watch, protocol)
    }

    fn new(io: I, watch: Arc<Watch>, protocol: Protocol) -> Self {
        Self {
            io,
            watch,
            early: Bytes::new(),
            protocol,
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
            self.watch.note_read();
        }
        let this = &mut *self;
        match &mut this.protocol {
            Protocol::Http1 if !is_blank(new) => this.watch.woken(),
            Protocol::Http2 { ended_in, .. }
                if new.is_empty() && buf.remaining() > 0 && result.is_ready() =>
            {
                let turn = this.watch.turn();
                if *ended_in.get_or_insert(turn) == turn {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            Protocol::Http1 | Protocol::Http2 { .. } => {}
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
        self.watch.note_unflushed();
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch.note_unflushed();
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch.note_write(&polled);
        self.watch.note_flush(matches!(polled, Poll::Ready(Ok(()))));
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        let this = &mut *self;
        // HTTP/1.1 lingers in `serve_http1`: hyper gives the connection back. One of HTTP/2 it never gives back.
        let Protocol::Http2 { linger, .. } = &mut this.protocol else {
            return Poll::Ready(Ok(()));
        };
        if linger.is_none() {
            let time = this.watch.linger_time();
            *linger = time.map(|time| Box::new(Linger::new(time)));
            this.watch.begin_linger();
        }
        match linger {
            Some(linger) => linger.poll(cx, &mut this.io).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}
