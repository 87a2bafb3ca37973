//! The end of a connection. What the peer still sends is read for a while, because the system resets a socket that is
//! closed over unread bytes, and the peer then loses what it has not read yet of the answer (SECURITY SM-17).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::clock;
use crate::gateway::body::{LINGER_BYTES_MAX, LINGER_TIME_MAX};

/// A peer that sends nothing for this long is waited for no longer. As nginx's `lingering_timeout`.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long a peer is still read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LingerTime {
    /// Until its next byte.
    silence: Duration,
    /// In all.
    most: Duration,
}

impl LingerTime {
    /// After an answer of ours, which is short.
    pub(super) const SHORT: Self = Self {
        silence: LINGER_TIME_MAX,
        most: LINGER_TIME_MAX,
    };

    /// After an answer of the app, which the peer may take `most` to read.
    pub(super) fn long(most: Duration) -> Self {
        Self {
            silence: SILENCE_MAX,
            most,
        }
    }
}

/// Reads and drops what a peer sends after the last answer.
#[derive(Debug)]
pub(super) struct Linger {
    time: LingerTime,
    end: Instant,
    left: u64,
    /// Made when there is something to wait for, because mostly the peer has ended already.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    pub(super) fn new(time: LingerTime) -> Self {
        Self {
            time,
            end: clock::now() + time.most,
            left: LINGER_BYTES_MAX,
            timer: None,
        }
    }

    /// Reads until the peer ends, sends nothing for too long, or has sent [`LINGER_BYTES_MAX`].
    pub(super) fn poll<I: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<()> {
        let mut room = [0; 4096];
        loop {
            let mut sink = ReadBuf::new(&mut room);
            let read = Pin::new(&mut *io).poll_read(cx, &mut sink);
            let next = self.end.min(clock::now() + self.time.silence);
            match read {
                Poll::Ready(Ok(())) if !sink.filled().is_empty() => {
                    self.left = self.left.saturating_sub(sink.filled().len() as u64);
                    if self.left == 0 || clock::now() >= self.end {
                        return Poll::Ready(());
                    }
                    if let Some(timer) = &mut self.timer {
                        timer.as_mut().reset(next);
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let timer = self
                        .timer
                        .get_or_insert_with(|| Box::pin(sleep_until(next)));
                    return timer.as_mut().poll(cx);
                }
            }
        }
    }
}

/// Ends our side, and waits for the peer's end if there is time for it.
pub(super) async fn close<I>(mut io: I, time: Option<LingerTime>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let most = time.map_or(LINGER_TIME_MAX, |time| time.most);
    let polite = async {
        io.shutdown().await?;
        if let Some(time) = time {
            let mut linger = Linger::new(time);
            std::future::poll_fn(|cx| linger.poll(cx, &mut io)).await;
        }
        io::Result::Ok(())
    };
    // It fails when the peer has gone first.
    drop(timeout(most, polite).await);
}
