//! The end of a connection. What its peer still says is read for a while: a socket that is closed over unread bytes is
//! reset by the system, which takes back what the peer has not read yet of the answer (SECURITY SM-17).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::clock;
use crate::gateway::body::{LINGER_BYTES_MAX, LINGER_TIME_MAX};

/// Without a word from the peer for so long, nothing more is expected of it. As nginx's `lingering_timeout`.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long the peer is listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until its next word.
    silence: Duration,
    /// In all.
    most: Duration,
}

impl Patience {
    /// After an answer of ours, which is short.
    pub(super) const SHORT: Self = Self {
        silence: LINGER_TIME_MAX,
        most: LINGER_TIME_MAX,
    };

    /// After an answer of the app, which its peer may take `most` to read.
    pub(super) fn long(most: Duration) -> Self {
        Self {
            silence: SILENCE_MAX,
            most,
        }
    }
}

/// A peer that is listened to for the last time.
#[derive(Debug)]
pub(super) struct Linger {
    patience: Patience,
    end: Instant,
    left: u64,
    /// Set once there is something to wait for: mostly the peer has ended already.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            end: clock::now() + patience.most,
            left: LINGER_BYTES_MAX,
            timer: None,
        }
    }

    /// Reads and forgets, until the peer ends, says nothing for too long, or has said enough.
    pub(super) fn poll<I: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<()> {
        let mut room = [0; 4096];
        loop {
            let mut sink = ReadBuf::new(&mut room);
            let read = Pin::new(&mut *io).poll_read(cx, &mut sink);
            let next = self.end.min(clock::now() + self.patience.silence);
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

/// Ends our side, and then, where there is patience, waits for the peer's end.
pub(super) async fn close<I>(mut io: I, patience: Option<Patience>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let most = patience.map_or(LINGER_TIME_MAX, |patience| patience.most);
    let polite = async {
        io.shutdown().await?;
        if let Some(patience) = patience {
            let mut linger = Linger::new(patience);
            std::future::poll_fn(|cx| linger.poll(cx, &mut io)).await;
        }
        io::Result::Ok(())
    };
    // The peer may have gone first; there is nobody to tell.
    drop(timeout(most, polite).await);
}
