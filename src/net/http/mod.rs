//! The one place where hyper's servers are built, and where a connection's time is kept.
//!
//! hyper has no idle limit apart from its header limit, none for answers that nobody reads, and an
//! HTTP/2 connection that never speaks is open for ever (SECURITY DS-03, H2-15, H2-16): [`Watch`] ends
//! what waits too long.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::acme::Challenges;
use super::frames::{Counted, Tally};
use super::linger::{Patience, close};
use super::ready::behind_the_ready;
use super::strict::Strict;
use crate::clock;
use crate::gateway::Gateway;
use crate::gateway::connection::Connection;
use crate::gateway::respond::{self, Answer};
use crate::reason::Reason;
use crate::settings::Limits;

mod body;
mod conn;
mod io;
mod watch;

use body::{Tracked, Whole};
use conn::Conn;
use io::Watched;
use watch::{Call, End, Exchange, Watch};

/// Unread bytes of one stream; `Limits` has those of one connection, and how many streams it may have.
const STREAM_WINDOW: u32 = 65_535;
/// Bytes of an answer that wait for a slow reader, for each stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that may be reset before the connection is taken for an attack (SECURITY H2-06), by the client before they
/// were looked at; and by us, for what is wrong with them (SECURITY H2-07) or because they are more than a client may
/// have open: 300 that come at once are refused one by one (SECURITY H2-14).
const RESET_STREAMS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 512;
/// Pings find dead peers; living ones are judged by [`Watch`].
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an overdue HTTP/2 client to take its GOAWAY.
const GOAWAY_TIME: Duration = Duration::from_secs(1);
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
    let io = Watched::http1(Strict::new(io), Arc::clone(&watch));
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
    let watched = Watched::http2(io, Arc::clone(&watch));
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
                watch.is_heard();
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
                    let request = request.map(|body| Whole::new(body, !is_http1));
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
                exchange.is_passed_back(!is_own);
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

/// A request on its way through the gateway. Each time that it is polled is one turn.
struct ServiceFuture(Pin<Box<dyn Future<Output = Result<Response<Tracked>, Infallible>> + Send>>);

impl Future for ServiceFuture {
    type Output = Result<Response<Tracked>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        clock::turn(|| self.0.as_mut().poll(cx))
    }
}

/// A head that did not come in time is no request either.
fn count_timeout(gateway: &Gateway, end: &End, watch: &Watch) {
    // Who never says a word, as a probe, has begun none.
    let has_begun = watch.has_read();
    // Nor has who only did not answer the ping of a drain.
    let is_heard = !watch.is_unheard();
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
