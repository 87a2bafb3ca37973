//! Stage: the only reader of request bodies. Exact bytes, a cap, a deadline, a shared budget.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use smallvec::SmallVec;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::rejection::Rejection;
use crate::clock;
use crate::reason::Reason;
use crate::scheme::Content;
use crate::shares::{Share, Shares};

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
    /// Bytes a second that must have come on average since [`GRACE`]; 0 for any.
    pub rate_min: u64,
}

/// Whose body is read, and how many of theirs may be waited for at once.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The client.
    pub address: IpAddr,
    /// Bodies that are awaited, by client.
    pub awaited: &'a Arc<Shares>,
    /// Most for this client.
    pub awaited_max: usize,
}

impl Sender<'_> {
    fn keep_waiting(&self) -> Result<Share, Rejection> {
        let share = self.awaited.take(self.address, self.awaited_max);
        let detail = "half of `requests_in_flight` waits for bodies of this address already";
        share.ok_or_else(|| Rejection::new(Reason::Overloaded, detail))
    }
}

/// Bytes of all buffered bodies.
#[derive(Debug, Default)]
pub struct Budget(AtomicU64);

/// The part of the budgets that one body holds; grows with what has arrived, not with what was
/// promised (SECURITY DS-13).
#[derive(Debug)]
pub struct Hold {
    of_all: Room,
    of_upstream: Option<Room>,
    bytes: u64,
}

/// A budget, and the most that all bodies in it may take.
#[derive(Debug)]
pub struct Room {
    /// What they take.
    pub budget: Arc<Budget>,
    /// Bytes.
    pub max: u64,
}

impl Budget {
    /// Bytes held by all bodies.
    pub fn used(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Hold {
    /// An empty one.
    pub fn new(of_all: Room, of_upstream: Option<Room>) -> Self {
        Self {
            of_all,
            of_upstream,
            bytes: 0,
        }
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Rejection> {
        let own = self.bytes;
        let has_room = self.of_all.take(bytes) <= self.of_all.max;
        // A large body may be alone beyond what several may have.
        let upstream_has = self.of_upstream.as_ref().is_none_or(|room| {
            let taken = room.take(bytes);
            taken <= room.max || taken == own.saturating_add(bytes)
        });
        self.bytes += bytes;
        let detail = match (has_room, upstream_has) {
            (true, true) => return Ok(()),
            (false, _) => "`body_memory` is used up",
            (true, false) => "what one upstream may have of `body_memory` is used up",
        };
        Err(Rejection::new(Reason::Overloaded, detail))
    }
}

impl Room {
    /// What all bodies take with so many bytes more.
    fn take(&self, bytes: u64) -> u64 {
        let used = self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        used.saturating_add(bytes)
    }

    fn give_back(&self, bytes: u64) {
        self.budget.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.of_all.give_back(self.bytes);
        if let Some(room) = &self.of_upstream {
            room.give_back(self.bytes);
        }
    }
}

/// How long a body may take before its rate counts: a line that stalls, as radio lines do, has time to
/// recover.
const GRACE: Duration = Duration::from_secs(10);

impl BodyLimits {
    /// When patience ends for a body that began at `start` and of which so much has come
    /// (SECURITY DS-02).
    fn deadline(&self, start: Instant, received: u64) -> Instant {
        let paid = received.checked_div(self.rate_min);
        let by_rate = paid.map_or(self.timeout, |secs| {
            GRACE.saturating_add(Duration::from_secs(secs))
        });
        start + self.timeout.min(by_rate)
    }
}

/// Frames below this are gathered, and all frames of a body that does not say its length: a frame that is kept keeps all
/// that was read with it, also what stood between the chunks, and a body is to take its size and little more
/// (SECURITY DS-12).
const FRAME_BYTES_MIN: usize = 12 * 1024;

/// Reads a body to its end, and says in `received` how far it came. Trailers are dropped
/// (SECURITY SM-24).
pub async fn read<B>(
    body: B,
    limits: BodyLimits,
    mut hold: Hold,
    sender: Sender<'_>,
    cutoff: &CancellationToken,
    received: &mut u64,
) -> Result<Received, Rejection>
where
    B: Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut frames = Gathered {
        is_measured: body.size_hint().exact().is_some(),
        ..Gathered::default()
    };
    let start = clock::now();
    // Made by the first wait: most bodies come with their head.
    let mut timer = None;
    let mut share = None;
    while !body.is_end_stream() {
        let here = poll_fn(|cx| Poll::Ready(body.as_mut().poll_frame(cx))).await;
        let frame = match here {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if share.is_none() {
                    share = Some(sender.keep_waiting()?);
                }
                let timer = timer.get_or_insert_with(|| {
                    Box::pin(sleep_until(limits.deadline(start, *received)))
                });
                wait(body.as_mut(), limits, start, *received, timer, cutoff).await?
            }
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|_bad| broken())?.into_data() else {
            continue;
        };
        *received += data.len() as u64;
        if *received > limits.size_max {
            let detail = "the body is above `max_size`";
            return Err(Rejection::new(Reason::BodyTooLarge, detail));
        }
        hold.grow(data.len() as u64)?;
        frames.take(data, body.is_end_stream());
    }
    Ok(Received {
        content: frames.into_content(),
        hold,
    })
}

/// The next frame, once it is there.
async fn wait<B>(
    mut body: Pin<&mut B>,
    limits: BodyLimits,
    start: Instant,
    received: u64,
    timer: &mut Pin<Box<Sleep>>,
    cutoff: &CancellationToken,
) -> Result<Option<Result<Frame<Bytes>, B::Error>>, Rejection>
where
    B: Body<Data = Bytes>,
{
    loop {
        tokio::select! {
            // What has come is taken first.
            biased;
            frame = poll_fn(|cx| body.as_mut().poll_frame(cx)) => return Ok(frame),
            () = timer.as_mut() => {
                let deadline = limits.deadline(start, received);
                if deadline <= timer.deadline() {
                    return Err(too_slow(start.elapsed() < limits.timeout));
                }
                timer.as_mut().reset(deadline);
            }
            () = cutoff.cancelled() => {
                let detail = "the gateway stopped before the body was complete";
                return Err(Rejection::new(Reason::Draining, detail));
            }
        }
    }
}

fn too_slow(by_rate: bool) -> Rejection {
    let detail = if by_rate {
        "the body came below `body_min_rate`"
    } else {
        "the body did not arrive within `body_timeout`"
    };
    Rejection::new(Reason::BodyTimeout, detail)
}

fn broken() -> Rejection {
    let detail =
        "the connection ended inside the body, or what stands between its chunks is in doubt";
    Rejection::new(Reason::BodyIncomplete, detail)
}

/// Frames of a body, the small ones together.
#[derive(Default)]
struct Gathered {
    frames: SmallVec<[Bytes; 1]>,
    small: BytesMut,
    /// Whether the body says its length, so that nothing stands between its bytes.
    is_measured: bool,
}

impl Gathered {
    fn take(&mut self, data: Bytes, is_last: bool) {
        let is_only = self.frames.is_empty() && self.small.is_empty() && is_last;
        let is_kept = self.is_measured && data.len() >= FRAME_BYTES_MIN;
        if !is_kept && !is_only {
            self.small.extend_from_slice(&data);
            return;
        }
        if !self.small.is_empty() {
            self.frames.push(self.small.split().freeze());
        }
        self.frames.push(data);
    }

    fn into_content(mut self) -> Content {
        if !self.small.is_empty() {
            self.frames.push(self.small.freeze());
        }
        Content::new(self.frames)
    }
}

/// Most that is read of a refused body to keep its connection usable (SECURITY SM-16, SM-17).
const DISCARD_BYTES_MAX: u64 = 64 * 1024;
/// Longest time spent on what is left of a refused body.
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// Reads and forgets what is left of a refused body, when it is small. Whether nothing is left.
pub async fn discard<B>(body: B) -> bool
where
    B: Body<Data = Bytes>,
{
    let drained = drain(body, DISCARD_BYTES_MAX);
    tokio::time::timeout(LINGER_TIME_MAX, drained)
        .await
        .unwrap_or(false)
}

/// Most that is read of a refused body so that its sender gets to read the answer instead of meeting a reset (SECURITY SM-17).
pub const LINGER_BYTES_MAX: u64 = 64 << 20;

/// Reads and forgets what is left of a refused body, for a short while.
pub async fn linger<B>(body: B)
where
    B: Body<Data = Bytes>,
{
    let drained = drain(body, LINGER_BYTES_MAX);
    // The answer is under way; how this ends changes nothing.
    drop(tokio::time::timeout(LINGER_TIME_MAX, drained).await);
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
        timeout: Duration::from_secs(30),
        rate_min: 512,
    };

    fn hold(budget: &Arc<Budget>, max: u64) -> Hold {
        let budget = Arc::clone(budget);
        Hold::new(Room { budget, max }, None)
    }

    fn anybody(awaited: &Arc<Shares>) -> Sender<'_> {
        Sender {
            address: IpAddr::from([192, 0, 2, 1]),
            awaited,
            awaited_max: 1,
        }
    }

    fn chunks(sizes: Vec<usize>) -> impl Body<Data = Bytes> {
        let frames = sizes
            .into_iter()
            .map(|size| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; size]))));
        StreamBody::new(stream::iter(frames))
    }

    async fn judge(body: impl Body<Data = Bytes>, budget: &Arc<Budget>) -> Result<usize, Reason> {
        let cutoff = CancellationToken::new();
        let awaited = Arc::default();
        let read = read(
            body,
            LIMITS,
            hold(budget, 8192),
            anybody(&awaited),
            &cutoff,
            &mut 0,
        )
        .await;
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
        let mut other = hold(&budget, 8192);
        other.grow(8000).unwrap();
        assert_eq!(
            judge(chunks(vec![200]), &budget).await,
            Err(Reason::Overloaded)
        );
        drop(other);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_upstream_has_its_part_or_one_large_body() {
        // SECURITY DS-12, DS-14
        let (all, part) = (Arc::new(Budget::default()), Arc::new(Budget::default()));
        let room = |budget: &Arc<Budget>, max| {
            let budget = Arc::clone(budget);
            Room { budget, max }
        };
        let hold = || Hold::new(room(&all, 8192), Some(room(&part, 6144)));
        let mut large = hold();
        large.grow(4096).unwrap();
        large.grow(4096).unwrap();
        large.grow(1).unwrap_err();
        drop(large);
        let (mut first, mut second) = (hold(), hold());
        first.grow(4096).unwrap();
        second.grow(2048).unwrap();
        assert_eq!(second.grow(1).unwrap_err().reason, Reason::Overloaded);
        let mut of_another = Hold::new(room(&all, 8192), None);
        of_another.grow(2047).unwrap();
        drop((first, second, of_another));
        assert_eq!((all.used(), part.used()), (0, 0));
    }

    #[tokio::test]
    async fn tiny_chunks_are_gathered() {
        let budget = Arc::new(Budget::default());
        let cutoff = CancellationToken::new();
        let body = chunks(vec![1; 2000]);
        let awaited = Arc::default();
        let received = read(
            body,
            LIMITS,
            hold(&budget, 8192),
            anybody(&awaited),
            &cutoff,
            &mut 0,
        )
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
        let awaited = Arc::default();
        let drained = read(
            stalled,
            LIMITS,
            hold(&budget, 8192),
            anybody(&awaited),
            &cutoff,
            &mut 0,
        )
        .await
        .unwrap_err();
        assert_eq!(drained.reason, Reason::Draining);
    }

    /// A body of so many frames of so many bytes, one a second; then it ends, or never does.
    fn dripping(frames: usize, bytes: usize, ends: bool) -> impl Body<Data = Bytes> {
        let drip = move |left: usize| async move {
            if left == 0 && ends {
                return None;
            }
            let wait = if left == 0 { 3600 } else { 1 };
            tokio::time::sleep(Duration::from_secs(wait)).await;
            let frame = Frame::data(Bytes::from(vec![b'x'; bytes]));
            Some((Ok::<_, std::io::Error>(frame), left.saturating_sub(1)))
        };
        StreamBody::new(stream::unfold(frames, drip))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_below_the_rate_is_cut_before_its_deadline() {
        // SECURITY DS-02
        async fn cut(body: impl Body<Data = Bytes>, limits: BodyLimits) -> (u64, u64) {
            let (start, mut received) = (Instant::now(), 0);
            let (budget, cutoff) = (Arc::new(Budget::default()), CancellationToken::new());
            let awaited = Arc::default();
            let sender = anybody(&awaited);
            let read = read(
                body,
                limits,
                hold(&budget, 1 << 20),
                sender,
                &cutoff,
                &mut received,
            )
            .await;
            assert_eq!(read.unwrap_err().reason, Reason::BodyTimeout);
            (start.elapsed().as_secs(), received)
        }
        let limits = BodyLimits {
            size_max: 1 << 20,
            ..LIMITS
        };
        // A byte a second is of no use after the grace; what came at once is paid for in advance.
        assert_eq!(cut(dripping(100, 1, true), limits).await, (10, 10));
        assert_eq!(cut(dripping(1, 4096, false), limits).await, (18, 4096));
        // Above the rate the total deadline holds, and without one it alone.
        assert_eq!(cut(dripping(100, 2000, true), limits).await, (30, 60_000));
        let any = BodyLimits {
            rate_min: 0,
            ..limits
        };
        assert_eq!(cut(dripping(100, 1, false), any).await.0, 30);
        // A line that stalls within the grace and then recovers passes.
        let budget = Arc::new(Budget::default());
        assert_eq!(judge(dripping(8, 100, true), &budget).await, Ok(800));
    }
}
