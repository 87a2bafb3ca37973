//! What a connection waits for, and when it has waited too long.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::net::linger::{LingerTime, SILENCE_MAX};
use crate::settings::Limits;

/// Age at which a connection is retired, so that new certificates, limits and replicas reach clients that never
/// close.
const AGE_MAX: Duration = Duration::from_hours(1);
/// Up to this many seconds more, by the client's port: connections that began together do not all end together.
const AGE_SPREAD: u16 = 360;
/// Time that a new connection has for its first request, even in a drain: its client could not know (SECURITY S-08).
const FRESH_TIME: Duration = Duration::from_secs(2);
/// How long a draining HTTP/2 connection waits for the client to answer the shutdown ping. After that it closes as
/// soon as no request is under way.
const PING_ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long a connection that waits for its next request keeps its buffers.
const REST_AFTER: Duration = Duration::from_millis(100);

/// How serving a connection ended.
pub(super) enum End<T> {
    Finished(T),
    Overdue,
}

/// What a connection waits for, and since when.
#[derive(Debug)]
pub(super) struct Watch {
    started: Instant,
    age_max: Duration,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    /// A [`Phase`].
    phase: AtomicU8,
    /// When the phase began, in milliseconds after `started`.
    since_ms: AtomicU64,
    requests: AtomicUsize,
    next_id: AtomicU64,
    /// Since when the client has not taken the next part of an answer, by HTTP/2 stream: at most one for each
    /// (SECURITY DS-03, H2-13). Over HTTP/1.1 [`Self::stuck`] says it.
    untaken: Mutex<Vec<(u64, Instant)>>,
    /// Since when the client takes nothing of what is written; none while it does.
    stuck: Since,
    /// Whether the last answer was the app's, which may be long; over HTTP/2, whether any was.
    is_passed_back: AtomicBool,
    /// Whether the end of the connection is that of its last answer, which has no other.
    is_open_ended: AtomicBool,
    /// Whether the connection ends after the request under way, or at once where there is none.
    is_leaving: AtomicBool,
    /// Whether everything was sent, and only the client's end is waited for.
    is_lingering: AtomicBool,
    /// When the shutdown ping was sent to an HTTP/2 client; none before, and once it has answered.
    pinged: Since,
    /// When all that was written between two requests had been passed to the system, in milliseconds after `started`.
    flushed_ms: AtomicU64,
    /// Whether anything of a request has ever come.
    has_read: AtomicBool,
    /// Whether all that was written was passed to the system.
    is_flushed: AtomicBool,
    /// How often the connection had its turn.
    turns: AtomicU64,
}

/// What a connection without a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// The first head, or the rest of a later one.
    Head,
    /// The next request.
    Idle,
    /// The next request, for so long that the buffers were given back.
    Rest,
}

impl Phase {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Head,
            1 => Self::Idle,
            _ => Self::Rest,
        }
    }
}

/// A moment that may be none, as the milliseconds after the start of its connection plus one; 0 is none.
#[derive(Debug, Default)]
struct Since(AtomicU64);

impl Since {
    fn set(&self, ms: u64) {
        self.0.store(ms.saturating_add(1), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The milliseconds.
    fn get(&self) -> Option<u64> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

impl Watch {
    pub(super) fn new(limits: &Limits, port: u16) -> Self {
        Self {
            started: clock::now(),
            age_max: AGE_MAX + Duration::from_secs(u64::from(port % AGE_SPREAD)),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: limits.write_timeout,
            phase: AtomicU8::new(Phase::Head as u8),
            since_ms: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            untaken: Mutex::default(),
            stuck: Since::default(),
            is_passed_back: AtomicBool::new(false),
            is_open_ended: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            is_lingering: AtomicBool::new(false),
            pinged: Since::default(),
            flushed_ms: AtomicU64::new(0),
            has_read: AtomicBool::new(false),
            is_flushed: AtomicBool::new(true),
            turns: AtomicU64::new(0),
        }
    }

    fn enter(&self, phase: Phase) {
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
        self.set_phase(phase);
    }

    fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Relaxed))
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The shutdown ping is sent: the client's answer shows that it knows that the connection drains.
    pub(super) fn begin_ping(&self) {
        self.pinged.set(self.now_ms());
    }

    pub(super) fn begin_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests so far.
    pub(super) fn begun(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        let age = clock::now().saturating_duration_since(self.started);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    /// A part of a request came.
    pub(super) fn note_read(&self) {
        self.has_read.store(true, Ordering::Relaxed);
    }

    /// Whether anything of a request has ever come.
    fn has_read(&self) -> bool {
        self.has_read.load(Ordering::Relaxed)
    }

    /// How often the connection had its turn.
    pub(super) fn turn(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Something is written, and not yet flushed.
    pub(super) fn note_unflushed(&self) {
        self.is_flushed.store(false, Ordering::Relaxed);
    }

    /// A flush was tried; `is_flushed` is whether it is complete.
    pub(super) fn note_flush(&self, is_flushed: bool) {
        let was_flushed = self.is_flushed.swap(is_flushed, Ordering::Relaxed);
        // A request under way ends later.
        if is_flushed && !was_flushed && self.requests.load(Ordering::Relaxed) == 0 {
            self.flushed_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Everything was sent: only the client's end is waited for.
    pub(super) fn begin_linger(&self) {
        self.is_lingering.store(true, Ordering::Relaxed);
    }

    /// The client has answered the shutdown ping.
    pub(super) fn end_ping(&self) {
        self.pinged.clear();
    }

    /// Whether the client has yet to answer the shutdown ping.
    pub(super) fn is_pinging(&self) -> bool {
        self.pinged.get().is_some()
    }

    /// Notes whether the client takes what is written.
    pub(super) fn note_write<T>(&self, polled: &Poll<T>) {
        let was_stuck = self.stuck.get().is_some();
        match polled {
            Poll::Pending if !was_stuck => self.stuck.set(self.now_ms()),
            Poll::Ready(_) if was_stuck => self.stuck.clear(),
            _ => {}
        }
    }

    /// Bytes came while no request was being served: the next head has begun.
    pub(super) fn woken(&self) {
        let waiting = self.phase() != Phase::Head;
        if waiting && self.requests.load(Ordering::Relaxed) == 0 {
            self.enter(Phase::Head);
        }
    }

    /// The connection ends after the request under way.
    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// Whether the connection has waited for long enough to give its buffers back.
    pub(super) fn is_resting(&self) -> bool {
        self.phase() == Phase::Rest
    }

    /// A head has come whole; returns a number of its own for the request.
    pub(super) fn begin_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A request was answered.
    pub(super) fn end_request(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.enter(Phase::Idle);
        }
    }

    /// Whether the last answer is the app's.
    pub(super) fn passes_back(&self, is_passed_back: bool) {
        self.is_passed_back.store(is_passed_back, Ordering::Relaxed);
    }

    /// Only the end of the connection will end the answer.
    pub(super) fn ends_with_its_connection(&self) {
        self.is_open_ended.store(true, Ordering::Relaxed);
    }

    /// Whether a head is due: the first one of the connection, or one that has begun.
    pub(super) fn waits_for_head(&self) -> bool {
        self.phase() == Phase::Head && self.requests.load(Ordering::Relaxed) == 0
    }

    /// Whether the beginning of a request has come, and not all of its head.
    pub(super) fn is_within_head(&self) -> bool {
        self.waits_for_head() && self.has_read.load(Ordering::Relaxed)
    }

    /// Whether the end of the connection is that of its last answer.
    pub(super) fn is_open_ended(&self) -> bool {
        self.is_open_ended.load(Ordering::Relaxed)
    }

    /// Whether the client takes nothing of what is written for it.
    pub(super) fn is_unread(&self) -> bool {
        self.stuck.get().is_some() || !self.untaken().is_empty()
    }

    /// When the wait for the client ends; `None` while only we or the app are waited for.
    fn deadline(&self) -> Option<Deadline> {
        if self.is_lingering.load(Ordering::Relaxed) {
            return None;
        }
        let end = |at| Deadline {
            at,
            is_of_rest: false,
        };
        let at = |ms| self.started + Duration::from_millis(ms);
        let stuck = self.stuck.get().map(at);
        if self.requests.load(Ordering::Relaxed) > 0 {
            let untaken = self.untaken().iter().map(|(_, since)| *since).min();
            let longest = untaken.into_iter().chain(stuck).min();
            return longest.map(|since| end(since + self.write_timeout));
        }
        let since = at(self.since_ms.load(Ordering::Relaxed));
        let pinged = self.pinged.get();
        let unanswered = pinged.map(|since| at(since) + PING_ANSWER_TIME);
        let limit = match self.phase() {
            Phase::Head => self.header_timeout,
            Phase::Idle if self.may_rest() && unanswered.is_none() => {
                return Some(Deadline {
                    at: since + REST_AFTER,
                    is_of_rest: true,
                });
            }
            Phase::Idle | Phase::Rest => self.idle_timeout,
        };
        let write = stuck.map(|since| since + self.write_timeout);
        let ends = write.into_iter().chain(unanswered).chain([since + limit]);
        ends.min().map(end)
    }

    /// How long to read on after the last byte was sent: as long as the client may still be reading an answer, or why
    /// its connection ends.
    pub(super) fn linger_time(&self) -> Option<LingerTime> {
        let flushed = self.flushed_ms.load(Ordering::Relaxed);
        let since = self.since_ms.load(Ordering::Relaxed).max(flushed);
        let idle = Duration::from_millis(self.now_ms().saturating_sub(since));
        if !self.has_read() || idle >= SILENCE_MAX {
            None
        } else if self.is_passed_back.load(Ordering::Relaxed) {
            Some(LingerTime::long(self.write_timeout))
        } else {
            Some(LingerTime::SHORT)
        }
    }

    /// Whether there is nothing left to write, and giving the buffers back is worth it.
    fn may_rest(&self) -> bool {
        self.is_flushed.load(Ordering::Relaxed) && self.idle_timeout > REST_AFTER
    }

    fn untaken(&self) -> MutexGuard<'_, Vec<(u64, Instant)>> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drives a connection until it ends or has waited too long. `poll` is told once to drain, and called again when
    /// [`Self::is_resting`] begins.
    pub(super) async fn guard<T>(
        &self,
        drain: &CancellationToken,
        mut poll: impl FnMut(&mut Context<'_>, Call) -> Poll<T>,
    ) -> End<T> {
        let mut drained = pin!(async {
            drain.cancelled().await;
            sleep_until(self.started + FRESH_TIME).await;
        });
        let mut retired = pin!(sleep_until(self.started + self.age_max));
        let mut draining = false;
        // Begins with the shorter time, because bringing a timer forward wakes the thread that it runs on.
        let mut timer = pin!(sleep(self.header_timeout.min(REST_AFTER)));
        let mut waker = None;
        poll_fn(|cx| {
            self.begin_turn();
            // While the waker is the same, asking whether they are due is cheaper than polling them.
            let is_new = !waker
                .as_ref()
                .is_some_and(|known| cx.waker().will_wake(known));
            if is_new {
                waker = Some(cx.waker().clone());
            }
            let is_due = is_new || drain.is_cancelled() || retired.is_elapsed();
            let begin = !draining
                && is_due
                && (drained.as_mut().poll(cx).is_ready() | retired.as_mut().poll(cx).is_ready());
            draining |= begin;
            let mut call = if begin { Call::Drain } else { Call::Go };
            loop {
                if let Poll::Ready(result) = clock::turn(|| poll(cx, call)) {
                    return Poll::Ready(End::Finished(result));
                }
                let Some(deadline) = self.deadline() else {
                    return Poll::Pending;
                };
                // Mostly the deadline moves away: the timer is set again only when it has fired too early.
                if timer.deadline() > deadline.at {
                    timer.as_mut().reset(deadline.at);
                }
                ready!(timer.as_mut().poll(cx));
                while timer.deadline() < deadline.at {
                    timer.as_mut().reset(deadline.at);
                    ready!(timer.as_mut().poll(cx));
                }
                if !deadline.is_of_rest {
                    return Poll::Ready(End::Overdue);
                }
                self.set_phase(Phase::Rest);
                call = Call::Go;
            }
        })
        .await
    }
}

/// What a connection is told when it is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Go,
    /// Finish the request under way, then end.
    Drain,
}

/// When a wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline {
    at: Instant,
    /// Whether the connection then rests; else it ends.
    is_of_rest: bool,
}

/// A request being served, until the body of its answer is dropped.
#[derive(Debug)]
pub(super) struct ServedRequest {
    pub(super) watch: Arc<Watch>,
    id: u64,
}

impl ServedRequest {
    pub(super) fn begin(watch: &Arc<Watch>) -> Self {
        Self {
            watch: Arc::clone(watch),
            id: watch.begin_request(),
        }
    }

    /// A part of the answer is handed to hyper: from here on the client is waited for.
    pub(super) fn hands_over(&self) {
        let now = clock::now();
        let mut untaken = self.watch.untaken();
        match untaken.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, since)) => *since = now,
            None => untaken.push((self.id, now)),
        }
    }

    /// The client has taken what there was.
    pub(super) fn is_taken(&self) {
        self.watch.untaken().retain(|(id, _)| *id != self.id);
    }
}

impl Drop for ServedRequest {
    fn drop(&mut self) {
        self.is_taken();
        self.watch.end_request();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a watch over a connection that is always pending ends it, and whether it drained first.
    async fn end_of(watch: &Watch) -> (Duration, bool) {
        let drained = AtomicBool::new(false);
        let never = CancellationToken::new();
        let end = watch.guard(&never, |_, call| {
            drained.fetch_or(call == Call::Drain, Ordering::Relaxed);
            Poll::<()>::Pending
        });
        assert!(matches!(end.await, End::Overdue));
        (watch.started.elapsed(), drained.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_told_to_end_at_its_age() {
        let limits = Limits {
            idle_timeout: AGE_MAX * 2,
            ..Limits::default()
        };
        let watch = Watch::new(&limits, 7);
        assert_eq!(watch.age_max, AGE_MAX + Duration::from_secs(7));
        watch.enter(Phase::Idle);
        assert_eq!(end_of(&watch).await, (AGE_MAX * 2, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_just_opened_has_time_for_its_first_request() {
        // SECURITY S-08
        let watch = Watch::new(&Limits::default(), 0);
        let drain = CancellationToken::new();
        drain.cancel();
        let end = watch.guard(&drain, |_, call| {
            if call == Call::Drain {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        assert!(matches!(end.await, End::Finished(())));
        assert_eq!(watch.started.elapsed(), FRESH_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_does_not_take_ends_its_connection() {
        // SECURITY DS-03, H2-13
        let watch = Arc::new(Watch::new(&Limits::default(), 0));
        let slow = ServedRequest::begin(&watch);
        let quick = ServedRequest::begin(&watch);
        assert_eq!(watch.deadline(), None, "the app is being waited for");
        slow.hands_over();
        tokio::time::advance(Duration::from_secs(20)).await;
        quick.hands_over();
        quick.is_taken();
        assert_eq!(end_of(&watch).await, (Duration::from_secs(30), false));
        drop(slow);
        assert_eq!(watch.deadline(), None);
        drop(quick);
        assert!(watch.deadline().is_some(), "the next request is waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_in_the_socket_ends_its_connection() {
        // SECURITY DS-03
        let watch = Watch::new(&Limits::default(), 0);
        watch.enter(Phase::Idle);
        watch.note_write(&Poll::<()>::Pending);
        tokio::time::advance(Duration::from_secs(10)).await;
        watch.note_write(&Poll::<()>::Pending);
        assert_eq!(end_of(&watch).await, (Duration::from_secs(30), false));
        watch.note_write(&Poll::Ready(()));
        assert_eq!(end_of(&watch).await, (Duration::from_secs(75), false));
    }
}
