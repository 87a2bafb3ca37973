//! The one place where hyper's servers are built, and where a connection's time is kept.
//!
//! hyper has no idle limit apart from its header limit, none for answers that nobody reads, and an
//! HTTP/2 connection that never speaks is open for ever (SECURITY DS-03, H2-15, H2-16): [`Watch`] ends
//! what waits too long.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::acme::Challenges;
use super::frames::{Counted, Tally};
use super::linger::{Linger, Patience, SILENCE_MAX, close};
use super::ready::behind_the_ready;
use super::strict::Strict;
use crate::clock;
use crate::gateway::Gateway;
use crate::gateway::connection::Connection;
use crate::gateway::forward::BoxError;
use crate::gateway::respond::{self, Answer};
use crate::reason::Reason;
use crate::settings::Limits;

/// A connection is retired at this age, and by its port a little later than others: certificates,
/// limits and the share of a replica then reach clients that never close.
const AGE_MAX: Duration = Duration::from_hours(1);
const AGE_SPREAD: u16 = 360;
/// Unread bytes of one stream; `Limits` has those of one connection, and how many streams it may have.
const STREAM_WINDOW: u32 = 65_535;
/// Bytes of an answer that wait for a slow reader, for each stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that may be reset before the connection is taken for an attack (SECURITY H2-06), by the client before they
/// were looked at; and by us, for what is wrong with them (SECURITY H2-07) or because they are more than a client may
/// have open: 300 that come at once are refused one by one (SECURITY H2-14).
const RESET_STREAMS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 512;
/// What a connection that has just been opened has for its first request, even when we are about to
/// stop: its sender could not know (SECURITY S-08).
const FRESH_TIME: Duration = Duration::from_secs(2);
/// Pings find dead peers; living ones are judged by [`Watch`].
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/2 connection that drains waits for the client to have seen that. Who does not answer the ping is
/// waited for no longer, from the first moment on at which it has no request under way: it would hold up a stop.
const UNHEARD_TIME: Duration = Duration::from_secs(5);
/// Time for an overdue HTTP/2 client to take its GOAWAY.
const GOAWAY_TIME: Duration = Duration::from_secs(1);
/// How long hyper keeps a connection that waits for its next request.
const REST_AFTER: Duration = Duration::from_millis(100);
/// h2 refuses header lists above so many times `header_bytes`; those between the two the gateway
/// itself refuses, with an answer and a record (SECURITY H2-10).
const HEADER_LIST_ROOM: u32 = 4;

/// Whom a connection serves, and with what.
#[derive(Debug)]
pub struct Serving {
    /// What is known of it.
    pub connection: Connection,
    /// The data path.
    pub gateway: Arc<Gateway>,
    /// Answers for ACME authorities, where they may ask: on plaintext.
    pub challenges: Option<Arc<Challenges>>,
}

/// How connections are told that the gateway stops.
#[derive(Clone, Debug, Default)]
pub struct Farewell {
    /// Every answer over HTTP/1.1 says that its connection closes, so that whoever keeps connections
    /// opens the next one to who stays. HTTP/2 needs no such time: its GOAWAY loses no request.
    pub said: CancellationToken,
    /// What waits for a request closes, the others after what is under way.
    pub meant: CancellationToken,
}

/// Serves HTTP/1.1 on `io` until one side ends it.
pub fn serve_http1<I>(
    io: I,
    serving: Serving,
    limits: &Limits,
    farewell: Farewell,
) -> impl Future<Output = ()> + Send + use<I>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::new(limits, serving.connection.peer.port()));
    let gateway = Arc::clone(&serving.gateway);
    let header_bytes = limits.header_bytes.as_usize();
    let Farewell { said, meant } = farewell;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // Who sends and leaves has sent all the same: without it hyper drops a request whose sender is gone.
        .half_close(true)
        .max_header_size(header_bytes)
        .max_buf_size((header_bytes + 8 * 1024).max(64 * 1024));
    let io = Watched {
        io: Strict::new(io),
        watch: Arc::clone(&watch),
        early: Bytes::new(),
        kind: Kind::Http1,
    };
    let service = service_fn(service(serving, Arc::clone(&watch), Some(said)));
    let mut conn = Conn::Resting(io, service);
    // Made before the future, which would keep room for what it is made of: a connection is that much.
    async move {
        let mut is_to_leave = false;
        let end = watch
            .guard(&meant, |cx, call| {
                is_to_leave |= call == Call::Drain;
                let polled = conn.poll(cx, call, &builder);
                // What has come is read first, and what has begun to come is waited for: hyper would end a connection
                // between two requests without a look at it.
                if polled.is_ready() || !is_to_leave || watch.is_within_head() {
                    return polled;
                }
                is_to_leave = false;
                let polled = conn.leave(cx);
                if polled.is_pending() && watch.is_done() {
                    return Poll::Ready(Ok(()));
                }
                polled
            })
            .await;
        count_refusal(&gateway, &end);
        count_timeout(&gateway, &end, &watch);
        let is_refused = matches!(&end, End::Finished(Err(error)) if error.is_parse());
        if is_refused || matches!(end, End::Finished(Ok(()))) {
            let patience = watch.patience().or(is_refused.then_some(Patience::SHORT));
            if let Some(io) = conn.into_io() {
                Box::pin(close(io.into_inner(), patience)).await;
            }
        }
    }
}

/// An HTTP/1.1 connection. hyper holds two buffers of 8 KiB or more for as long as it lives, so a
/// connection that waits for its next request is taken out of its hands: most connections of a gateway
/// wait.
enum Conn<I, S>
where
    S: Service<Request<Incoming>, Response = Response<Tracked>, Error = Infallible>,
{
    /// hyper speaks. Boxed: waiting connections do without the room.
    Speaking(Box<http1::Connection<TokioIo<Watched<I>>, S>>),
    /// Nothing is under way.
    Resting(Watched<I>, S),
    Over,
}

impl<I, S> Conn<I, S>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Tracked>, Error = Infallible>,
    S::Future: Send + Unpin + 'static,
    S: Unpin,
{
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut call: Call,
        builder: &http1::Builder,
    ) -> Poll<hyper::Result<()>> {
        loop {
            match self {
                Self::Speaking(conn) => {
                    let polled = conn.poll_without_shutdown(cx);
                    if polled.is_ready() || call != Call::Rest {
                        return polled;
                    }
                    self.rest();
                    call = Call::Go;
                }
                Self::Resting(io, _) => {
                    if !ready!(io.poll_early(cx)) {
                        return Poll::Ready(Ok(()));
                    }
                    if let Self::Resting(io, service) = std::mem::replace(self, Self::Over) {
                        let conn = builder.serve_connection(TokioIo::new(io), service);
                        *self = Self::Speaking(Box::new(conn));
                    }
                }
                Self::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Ends the connection after the request that is under way, if there is one.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match self {
            Self::Speaking(conn) => {
                Pin::new(&mut **conn).graceful_shutdown();
                conn.poll_without_shutdown(cx)
            }
            Self::Resting(..) | Self::Over => Poll::Ready(Ok(())),
        }
    }

    /// Takes the connection from hyper, which has nothing of it left to write: [`Watch::may_rest`].
    fn rest(&mut self) {
        match std::mem::replace(self, Self::Over) {
            Self::Speaking(conn) => {
                let parts = conn.into_parts();
                let mut io = parts.io.into_inner();
                // The beginning of a head that came with the request before: hyper gets it back at once.
                // An empty one is not kept, for it would hold the whole buffer.
                if !is_blank(&parts.read_buf) {
                    io.early = parts.read_buf;
                    io.watch.woken();
                }
                *self = Self::Resting(io, parts.service);
            }
            other => *self = other,
        }
    }

    fn into_io(self) -> Option<I> {
        match self {
            Self::Speaking(conn) => Some(conn.into_parts().io.into_inner().io),
            Self::Resting(io, _) => Some(io.io),
            Self::Over => None,
        }
    }
}

/// Serves HTTP/2 on `io` until one side ends it.
pub async fn serve_http2<I>(io: I, serving: Serving, limits: Limits, farewell: Farewell)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::new(&limits, serving.connection.peer.port()));
    let gateway = Arc::clone(&serving.gateway);
    let service = service(serving, Arc::clone(&watch), None);
    let header_bytes = u32::try_from(limits.header_bytes.0).unwrap_or(u32::MAX);
    // Where memory is short, heads get no more than their due.
    let room = if limits.http2_streams < Limits::default().http2_streams {
        1
    } else {
        HEADER_LIST_ROOM
    };
    let watched = Watched {
        io,
        watch: Arc::clone(&watch),
        early: Bytes::new(),
        kind: Kind::Http2 {
            ended_in: None,
            linger: None,
        },
    };
    let tally = Arc::new(Tally::default());
    let io = TokioIo::new(Counted::new(watched, Arc::clone(&tally)));
    let mut conn = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(limits.http2_window)
            .max_header_list_size(header_bytes.saturating_mul(room))
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .max_local_error_reset_streams(LOCAL_RESETS_MAX)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(io, service_fn(service))
    );
    let end = watch
        .guard(&farewell.meant, |cx, call| {
            if call == Call::Drain {
                conn.as_mut().graceful_shutdown();
                watch.asks_whether_heard();
            }
            let polled = conn.as_mut().poll(cx);
            if tally.is_over() {
                watch.unheard_ms.store(0, Ordering::Relaxed);
            }
            for _ in 0..tally.refusals(watch.begun()) {
                gateway.refused_by_http(Reason::MalformedRequest);
            }
            polled
        })
        .await;
    count_timeout(&gateway, &end, &watch);
    if matches!(end, End::Overdue) {
        conn.as_mut().graceful_shutdown();
        let rest = poll_fn(|cx| {
            watch.begin_turn();
            conn.as_mut().poll(cx)
        });
        drop(timeout(GOAWAY_TIME, rest).await);
    }
}

/// The service of one connection: the gateway, with the watch told of each request. Once `leaving`,
/// answers say that the connection closes.
fn service(
    serving: Serving,
    watch: Arc<Watch>,
    leaving: Option<CancellationToken>,
) -> impl Fn(Request<Incoming>) -> ServiceFuture {
    let is_http1 = leaving.is_some();
    let shared = Arc::new((serving, leaving));
    move |request: Request<Incoming>| {
        let version = request.version();
        let exchange = Exchange::begin(&watch);
        let shared = Arc::clone(&shared);
        let (serving, _) = &*shared;
        let challenges = serving.challenges.as_ref();
        let challenge = challenges.and_then(|challenges| challenges.http(&request));
        // An authority that looks whether a name is ours is no sender: it has no record. All others have one at once,
        // for hyper drops what follows when the connection breaks in the same turn.
        let next = match challenge {
            Some(answer) => Err(respond::challenge(answer)),
            None => Ok((serving.gateway.open(&serving.connection, &request), request)),
        };
        ServiceFuture(Box::pin(async move {
            let (serving, leaving) = &*shared;
            let mut response = match next {
                Err(challenge) => challenge,
                Ok((record, request)) => {
                    let request = request.map(|body| Whole {
                        body,
                        is_http2: !is_http1,
                        has_ended: false,
                    });
                    let (gateway, connection) = (&serving.gateway, &serving.connection);
                    gateway.answer(connection, request, record).await
                }
            };
            // Those to forwarded requests come in a row already, and HTTP/2 gathers its own.
            if is_http1 && response.body().is_own() {
                behind_the_ready().await;
            }
            if is_http1 && response.status().canonical_reason().is_none() {
                // hyper would write `<none>`.
                let extensions = response.extensions_mut();
                extensions.get_or_insert_with(|| ReasonPhrase::from_static(b"Status"));
            }
            let is_leaving = leaving.as_ref();
            if is_leaving.is_some_and(CancellationToken::is_cancelled) {
                respond::close_connection(response.headers_mut());
            }
            if version == Version::HTTP_10 {
                settle_old(&mut response);
            }
            // Answers over HTTP/2 leave at the same time, and one of them may be long.
            let is_own = response.body().is_own();
            if is_http1 || !is_own {
                let passed_back = &exchange.watch.is_passed_back;
                passed_back.store(!is_own, Ordering::Relaxed);
            }
            Ok(response.map(|body| Tracked::new(body, exchange)))
        }))
    }
}

/// Says `close` to a sender of old where the connection closes: what has no length ends with it. hyper would add the
/// `keep-alive` that it asked for to an answer of HTTP/1.1, whatever that says.
fn settle_old(response: &mut Response<Answer>) {
    if response.body().size_hint().exact().is_none() {
        respond::close_connection(response.headers_mut());
    }
    if response.headers().contains_key(header::CONNECTION) {
        *response.version_mut() = Version::HTTP_10;
    }
}

/// A request's body, which ends where its sender ended it. hyper takes a stream that was reset with `NO_ERROR` for
/// one that came to its end; RFC 9113 8.1 has only servers do that, and of a request it is the half.
struct Whole {
    body: Incoming,
    is_http2: bool,
    /// Of a chunked body, hyper does not say by itself that it has.
    has_ended: bool,
}

impl Body for Whole {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None if self.is_http2 && !self.body.is_end_stream() => {
                Poll::Ready(Some(Err("the stream was reset".into())))
            }
            frame => {
                self.has_ended |= frame.is_none();
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request on its way through the gateway. Each time that it is polled is one turn.
struct ServiceFuture(Pin<Box<dyn Future<Output = Result<Response<Tracked>, Infallible>> + Send>>);

impl Future for ServiceFuture {
    type Output = Result<Response<Tracked>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        clock::turn(|| self.0.as_mut().poll(cx))
    }
}

/// How a connection ended.
enum End {
    Finished(hyper::Result<()>),
    Overdue,
}

/// A head that did not come in time is no request either.
fn count_timeout(gateway: &Gateway, end: &End, watch: &Watch) {
    // Who never says a word, as a probe, has begun none.
    let has_begun = watch.has_read.load(Ordering::Relaxed);
    // Nor has who only did not answer the ping of a drain.
    let is_heard = watch.unheard_ms.load(Ordering::Relaxed) == 0;
    if matches!(end, End::Overdue) && has_begun && is_heard && watch.waits_for_head() {
        gateway.telemetry().metrics.header_timeouts.inc();
    }
}

/// What hyper refused never reached the gateway: it is counted here.
fn count_refusal(gateway: &Gateway, end: &End) {
    let End::Finished(Err(error)) = end else {
        return;
    };
    if error.is_parse_too_large() {
        gateway.refused_by_http(Reason::HeaderTooLarge);
    } else if error.is_parse() {
        gateway.refused_by_http(Reason::MalformedRequest);
    }
}

/// What a connection waits for, and since when.
#[derive(Debug)]
struct Watch {
    started: Instant,
    age_max: Duration,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    phase: AtomicU8,
    since_ms: AtomicU64,
    requests: AtomicUsize,
    next_id: AtomicU64,
    /// Since when the client has left the next part of an answer lying, by exchange: as many as
    /// there are streams (SECURITY DS-03, H2-13).
    untaken: Mutex<Vec<(u64, Instant)>>,
    /// Since when the client takes nothing of what is written, one more than milliseconds; 0 while
    /// it does.
    stuck_ms: AtomicU64,
    /// Whether an answer was the app's, which may be long.
    is_passed_back: AtomicBool,
    /// Whether all is said, and only the client's end is waited for.
    is_lingering: AtomicBool,
    /// Since when an HTTP/2 client has been asked whether it knows that the connection drains, one more than milliseconds;
    /// 0 before, and once it has answered.
    unheard_ms: AtomicU64,
    /// When all that was written was on its way.
    flushed_ms: AtomicU64,
    /// Whether anything of a request has ever come.
    has_read: AtomicBool,
    /// Whether all that hyper has written is on its way.
    is_flushed: AtomicBool,
    /// How often the connection had its turn.
    turns: AtomicU64,
}

/// Waiting for the first head, or in the middle of a later one.
const PHASE_HEAD: u8 = 0;
/// Waiting between requests.
const PHASE_IDLE: u8 = 1;
/// Waiting between requests for so long that buffers are given back.
const PHASE_REST: u8 = 2;

impl Watch {
    fn new(limits: &Limits, port: u16) -> Self {
        Self {
            started: clock::now(),
            age_max: AGE_MAX + Duration::from_secs(u64::from(port % AGE_SPREAD)),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: limits.write_timeout,
            phase: AtomicU8::new(PHASE_HEAD),
            since_ms: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            untaken: Mutex::default(),
            stuck_ms: AtomicU64::new(0),
            is_passed_back: AtomicBool::new(false),
            is_lingering: AtomicBool::new(false),
            unheard_ms: AtomicU64::new(0),
            flushed_ms: AtomicU64::new(0),
            has_read: AtomicBool::new(false),
            is_flushed: AtomicBool::new(true),
            turns: AtomicU64::new(0),
        }
    }

    fn enter(&self, phase: u8) {
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// The client is asked, by a ping, whether it knows that the connection drains.
    fn asks_whether_heard(&self) {
        let now = self.now_ms().saturating_add(1);
        self.unheard_ms.store(now, Ordering::Relaxed);
    }

    fn begin_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests so far.
    fn begun(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        let age = clock::now().saturating_duration_since(self.started);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes whether the client takes what is written.
    fn wrote<T>(&self, polled: &Poll<T>) {
        let was_stuck = self.stuck_ms.load(Ordering::Relaxed) > 0;
        if polled.is_pending() != was_stuck {
            let since = if was_stuck {
                0
            } else {
                self.now_ms().saturating_add(1)
            };
            self.stuck_ms.store(since, Ordering::Relaxed);
        }
    }

    /// Bytes came while no request was being served: the next head has begun.
    fn woken(&self) {
        let waiting = self.phase.load(Ordering::Relaxed) != PHASE_HEAD;
        if waiting && self.requests.load(Ordering::Relaxed) == 0 {
            self.enter(PHASE_HEAD);
        }
    }

    /// Whether no request is under way, and of no answer anything is left to write.
    fn is_done(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && self.is_flushed.load(Ordering::Relaxed)
    }

    /// Whether a head is due: the first one of the connection, or one that has begun.
    fn waits_for_head(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == PHASE_HEAD
            && self.requests.load(Ordering::Relaxed) == 0
    }

    /// Whether the beginning of a request has come, and not all of its head.
    fn is_within_head(&self) -> bool {
        self.waits_for_head() && self.has_read.load(Ordering::Relaxed)
    }

    /// When the wait ends; `None` while nothing is waited for but ourselves and the app.
    fn deadline(&self) -> Option<Deadline> {
        if self.is_lingering.load(Ordering::Relaxed) {
            return None;
        }
        let end = |at| Deadline {
            at,
            is_of_rest: false,
        };
        let at = |ms| self.started + Duration::from_millis(ms);
        let stuck = self.stuck_ms.load(Ordering::Relaxed).checked_sub(1).map(at);
        if self.requests.load(Ordering::Relaxed) > 0 {
            let untaken = self.untaken().iter().map(|(_, since)| *since).min();
            let longest = untaken.into_iter().chain(stuck).min();
            return longest.map(|since| end(since + self.write_timeout));
        }
        let since = at(self.since_ms.load(Ordering::Relaxed));
        let unheard = self.unheard_ms.load(Ordering::Relaxed).checked_sub(1);
        let unheard = unheard.map(|since| at(since) + UNHEARD_TIME);
        let limit = match self.phase.load(Ordering::Relaxed) {
            PHASE_HEAD => self.header_timeout,
            PHASE_IDLE if self.may_rest() && unheard.is_none() => {
                return Some(Deadline {
                    at: since + REST_AFTER,
                    is_of_rest: true,
                });
            }
            _ => self.idle_timeout,
        };
        let write = stuck.map(|since| since + self.write_timeout);
        let ends = write.into_iter().chain(unheard).chain([since + limit]);
        ends.min().map(end)
    }

    /// How long the client is listened to once all is said: as long as it may still be reading an answer.
    fn patience(&self) -> Option<Patience> {
        let flushed = self.flushed_ms.load(Ordering::Relaxed);
        let since = self.since_ms.load(Ordering::Relaxed).max(flushed);
        let idle = Duration::from_millis(self.now_ms().saturating_sub(since));
        if self.begun() == 0 || idle >= SILENCE_MAX {
            None
        } else if self.is_passed_back.load(Ordering::Relaxed) {
            Some(Patience::long(self.write_timeout))
        } else {
            Some(Patience::SHORT)
        }
    }

    /// Whether nothing would be lost with hyper's buffers.
    fn may_rest(&self) -> bool {
        self.is_flushed.load(Ordering::Relaxed) && self.idle_timeout > REST_AFTER
    }

    fn untaken(&self) -> MutexGuard<'_, Vec<(u64, Instant)>> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drives a connection until it ends or has waited too long. `poll` is told once when to drain,
    /// and to rest after each request that no other follows at once.
    async fn guard(
        &self,
        drain: &CancellationToken,
        mut poll: impl FnMut(&mut Context<'_>, Call) -> Poll<hyper::Result<()>>,
    ) -> End {
        let mut drained = pin!(async {
            drain.cancelled().await;
            sleep_until(self.started + FRESH_TIME).await;
        });
        let mut retired = pin!(sleep_until(self.started + self.age_max));
        let mut draining = false;
        // Set for the rest at once: to bring a timer forward wakes the thread that it runs on.
        let mut timer = pin!(sleep(self.header_timeout.min(REST_AFTER)));
        let mut waker = None;
        poll_fn(|cx| {
            self.begin_turn();
            // Once it is known whom to wake, looking is cheaper than polling.
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
                // Mostly the deadline moves away: the timer is set again when it has fired too early.
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
                self.phase.store(PHASE_REST, Ordering::Relaxed);
                call = Call::Rest;
            }
        })
        .await
    }
}

/// What a connection is told when it is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Go,
    /// Finish what is under way, then end.
    Drain,
    /// Nothing has come for a while.
    Rest,
}

/// When something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline {
    at: Instant,
    /// Only the rest of the connection, not its end.
    is_of_rest: bool,
}

/// A request being served, until its answer's body is done with.
#[derive(Debug)]
struct Exchange {
    watch: Arc<Watch>,
    id: u64,
}

impl Exchange {
    fn begin(watch: &Arc<Watch>) -> Self {
        watch.requests.fetch_add(1, Ordering::Relaxed);
        Self {
            watch: Arc::clone(watch),
            id: watch.next_id.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// A part of the answer is handed over: from here on the client is waited for.
    fn hands_over(&self) {
        let now = clock::now();
        let mut untaken = self.watch.untaken();
        match untaken.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, since)) => *since = now,
            None => untaken.push((self.id, now)),
        }
    }

    /// The client has taken what there was.
    fn is_taken(&self) {
        self.watch.untaken().retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.is_taken();
        if self.watch.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.watch.enter(PHASE_IDLE);
        }
    }
}

/// An answer's body that tells the watch when it is asked for more, and when it is done with. hyper
/// asks when it has room, which it gets when the client reads.
#[derive(Debug)]
struct Tracked {
    body: Answer,
    exchange: Exchange,
    /// Why the app's answer ends here. hyper hears of it one turn later: it gives up all at once, and the head that it
    /// has not yet written with it.
    broken: Option<BoxError>,
}

impl Tracked {
    fn new(body: Answer, exchange: Exchange) -> Self {
        exchange.hands_over();
        Self {
            body,
            exchange,
            broken: None,
        }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => self.exchange.hands_over(),
            Poll::Ready(None | Some(Err(_))) | Poll::Pending => self.exchange.is_taken(),
        }
        if let Poll::Ready(Some(Err(error))) = polled {
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether there is nothing but ends of lines: before a head they are of no meaning (RFC 9112 2.2).
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// A stream that tells the watch when bytes come in, and when none go out.
#[derive(Debug)]
struct Watched<I> {
    io: I,
    watch: Arc<Watch>,
    /// What was read before hyper asked.
    early: Bytes,
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

impl<I: AsyncRead + Unpin> Watched<I> {
    /// Waits for the first bytes of a request; `false` when the client has gone instead.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
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
            self.watch.has_read.store(true, Ordering::Relaxed);
        }
        let this = &mut *self;
        match &mut this.kind {
            Kind::Http1 if !is_blank(new) => this.watch.woken(),
            Kind::Http2 { ended_in, .. }
                if new.is_empty() && buf.remaining() > 0 && result.is_ready() =>
            {
                let turn = this.watch.turns.load(Ordering::Relaxed);
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
        self.watch.is_flushed.store(false, Ordering::Relaxed);
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch.is_flushed.store(false, Ordering::Relaxed);
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
        let is_flushed = matches!(polled, Poll::Ready(Ok(())));
        let was_flushed = self.watch.is_flushed.swap(is_flushed, Ordering::Relaxed);
        if is_flushed && !was_flushed {
            let now = self.watch.now_ms();
            self.watch.flushed_ms.store(now, Ordering::Relaxed);
        }
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
            this.watch.is_lingering.store(true, Ordering::Relaxed);
        }
        match linger {
            Some(linger) => linger.poll(cx, &mut this.io).map(Ok),
            None => Poll::Ready(Ok(())),
        }
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
            Poll::Pending
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
        watch.enter(PHASE_IDLE);
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
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        });
        assert!(matches!(end.await, End::Finished(Ok(()))));
        assert_eq!(watch.started.elapsed(), FRESH_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_does_not_take_ends_its_connection() {
        // SECURITY DS-03, H2-13
        let watch = Arc::new(Watch::new(&Limits::default(), 0));
        let slow = Exchange::begin(&watch);
        let quick = Exchange::begin(&watch);
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
        watch.enter(PHASE_IDLE);
        watch.wrote(&Poll::<()>::Pending);
        tokio::time::advance(Duration::from_secs(10)).await;
        watch.wrote(&Poll::<()>::Pending);
        assert_eq!(end_of(&watch).await, (Duration::from_secs(30), false));
        watch.wrote(&Poll::Ready(()));
        assert_eq!(end_of(&watch).await, (Duration::from_secs(75), false));
    }
}
