//! A connection's bytes, and what they say of its client to the watch.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::http::watch::Watch;
use crate::net::linger::Linger;

/// A stream that tells the watch when bytes come in, and when the client takes none.
#[derive(Debug)]
pub(super) struct Watched<I> {
    io: I,
    watch: Arc<Watch>,
    /// The turn in which the end of input came. It is passed on one turn late, because h2 drops streams that it has not
    /// handed over yet once it sees it.
    ended_in: Option<u64>,
    linger: Option<Box<Linger>>,
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, watch: Arc<Watch>) -> Self {
        Self {
            io,
            watch,
            ended_in: None,
            linger: None,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        let this = &mut *self;
        if !new.is_empty() {
            this.watch.note_read();
        } else if buf.remaining() > 0 && result.is_ready() {
            let turn = this.watch.turn();
            if *this.ended_in.get_or_insert(turn) == turn {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
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
        if this.linger.is_none() {
            let time = this.watch.linger_time();
            this.linger = time.map(|time| Box::new(Linger::new(time)));
            this.watch.begin_linger();
        }
        match &mut this.linger {
            Some(linger) => linger.poll(cx, &mut this.io).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}
