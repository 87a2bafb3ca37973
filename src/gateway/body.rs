//! Stage: the only reader of request bodies. Exact bytes, a cap, a deadline, a shared budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

use super::rejection::Rejection;
use crate::reason::Reason;
use crate::scheme::Content;

/// A complete body and the room it takes.
#[derive(Debug)]
pub struct Received {
    /// The bytes, as they arrived.
    pub content: Content,
    /// Room in the budget, given back when dropped.
    pub hold: Hold,
}

/// What bounds the reading of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest body.
    pub size_max: u64,
    /// Longest time from head to last byte.
    pub timeout: Duration,
    /// All buffered bodies together.
    pub budget: u64,
}

/// Bytes of all buffered bodies.
#[derive(Debug, Default)]
pub struct Budget(AtomicU64);

/// The part of the budget that one body holds; grows with what has arrived, not with what was
/// promised (SECURITY DS-13).
#[derive(Debug)]
pub struct Hold {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// An empty hold.
    pub fn hold(self: &Arc<Self>) -> Hold {
        Hold {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }

    /// Bytes held by all bodies.
    pub fn used(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Hold {
    fn grow(&mut self, bytes: u64, max: u64) -> Result<(), Rejection> {
        let used = self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if used.saturating_add(bytes) > max {
            return Err(Rejection::new(
                Reason::Overloaded,
                "`body_memory` is used up",
            ));
        }
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Frames below this are gathered, so that a body of many tiny chunks takes its size and no more.
const FRAME_BYTES_MIN: usize = 1024;

/// Reads a body to its end. Trailers are dropped (SECURITY SM-24).
pub async fn read<B>(
    body: B,
    limits: BodyLimits,
    hold: Hold,
    cutoff: &CancellationToken,
) -> Result<Received, Rejection>
where
    B: Body<Data = Bytes>,
{
    if body.is_end_stream() {
        return Ok(Received {
            content: Content::default(),
            hold,
        });
    }
    tokio::select! {
        result = collect(body, limits, hold) => result,
        () = tokio::time::sleep(limits.timeout) => {
            Err(Rejection::new(Reason::BodyTimeout, "the body did not arrive within `body_timeout`"))
        }
        () = cutoff.cancelled() => {
            Err(Rejection::new(Reason::Draining, "the gateway stopped before the body was complete"))
        }
    }
}

async fn collect<B>(body: B, limits: BodyLimits, mut hold: Hold) -> Result<Received, Rejection>
where
    B: Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut frames = Vec::new();
    let mut small = BytesMut::new();
    let mut size = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_bad| {
            Rejection::new(
                Reason::BodyIncomplete,
                "the connection ended inside the body",
            )
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        size += data.len() as u64;
        if size > limits.size_max {
            return Err(Rejection::new(
                Reason::BodyTooLarge,
                "the body is above `max_size`",
            ));
        }
        hold.grow(data.len() as u64, limits.budget)?;
        if data.len() < FRAME_BYTES_MIN
            && !(frames.is_empty() && small.is_empty() && body.is_end_stream())
        {
            small.extend_from_slice(&data);
        } else {
            if !small.is_empty() {
                frames.push(small.split().freeze());
            }
            frames.push(data);
        }
    }
    if !small.is_empty() {
        frames.push(small.freeze());
    }
    Ok(Received {
        content: Content::new(frames),
        hold,
    })
}

/// Most that is read of a refused body to keep its connection usable (SECURITY SM-16, SM-17).
const DISCARD_BYTES_MAX: u64 = 64 * 1024;
/// Longest time spent on that.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(1);

/// Reads and forgets what is left of a refused body, when it is small. Whether nothing is left.
pub async fn discard<B>(body: B) -> bool
where
    B: Body<Data = Bytes>,
{
    let drained = drain(body, DISCARD_BYTES_MAX);
    tokio::time::timeout(DISCARD_TIME_MAX, drained)
        .await
        .unwrap_or(false)
}

/// Most that is read of a refused body so that its sender gets to read the answer.
const LINGER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads and forgets what is left of a refused body, for a short while.
pub async fn linger<B>(body: B)
where
    B: Body<Data = Bytes>,
{
    let drained = drain(body, LINGER_BYTES_MAX);
    // The answer is under way; how this ends changes nothing.
    drop(tokio::time::timeout(DISCARD_TIME_MAX, drained).await);
}

/// Reads and forgets up to `most` bytes. Whether nothing is left.
async fn drain<B>(body: B, most: u64) -> bool
where
    B: Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        size += frame.data_ref().map_or(0, |data| data.len() as u64);
        if size > most {
            return false;
        }
    }
    true
}

/// Whether [`discard`] has a chance: a body of known size above its bound is left unread.
pub fn is_discardable<B: Body>(body: &B) -> bool {
    body.size_hint().lower() <= DISCARD_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits {
        size_max: 4096,
        timeout: Duration::from_secs(5),
        budget: 8192,
    };

    fn chunks(sizes: Vec<usize>) -> impl Body<Data = Bytes> {
        let frames = sizes
            .into_iter()
            .map(|size| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; size]))));
        StreamBody::new(stream::iter(frames))
    }

    async fn judge(body: impl Body<Data = Bytes>, budget: &Arc<Budget>) -> Result<usize, Reason> {
        let cutoff = CancellationToken::new();
        let read = read(body, LIMITS, budget.hold(), &cutoff).await;
        read.map(|received| received.content.len())
            .map_err(|rejection| rejection.reason)
    }

    #[tokio::test]
    async fn sizes_and_budget() {
        // SECURITY DS-11, DS-12
        let budget = Arc::new(Budget::default());
        assert_eq!(judge(chunks(vec![1, 4095]), &budget).await, Ok(4096));
        assert_eq!(
            judge(chunks(vec![4096, 1]), &budget).await,
            Err(Reason::BodyTooLarge)
        );
        let mut other = budget.hold();
        other.grow(8000, 8192).unwrap();
        assert_eq!(
            judge(chunks(vec![200]), &budget).await,
            Err(Reason::Overloaded)
        );
        drop(other);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn tiny_chunks_are_gathered() {
        let budget = Arc::new(Budget::default());
        let cutoff = CancellationToken::new();
        let received = read(chunks(vec![1; 2000]), LIMITS, budget.hold(), &cutoff)
            .await
            .unwrap();
        assert_eq!(
            (received.content.len(), received.content.frames().len()),
            (2000, 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_cut() {
        // SECURITY DS-02
        let budget = Arc::new(Budget::default());
        let stalled = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        assert_eq!(judge(stalled, &budget).await, Err(Reason::BodyTimeout));
        let broken = StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(
            std::io::Error::other(""),
        )]));
        assert_eq!(judge(broken, &budget).await, Err(Reason::BodyIncomplete));
        let cutoff = CancellationToken::new();
        cutoff.cancel();
        let stalled = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        let drained = read(stalled, LIMITS, budget.hold(), &cutoff)
            .await
            .unwrap_err();
        assert_eq!(drained.reason, Reason::Draining);
    }
}
