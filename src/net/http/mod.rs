//! The one place where hyper's servers are built, and where a connection's time is kept.
//!
//! hyper has no idle limit apart from its header limit, none for answers that nobody reads, and an
//! HTTP/2 connection that never speaks is open for ever (SECURITY DS-03, H2-15, H2-16): [`Watch`] ends
//! what waits too long.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
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
use super::linger::{LingerTime, close};
use super::ready::after_ready_tasks;
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

use body::{AnswerBody, RequestBody};
use conn::Conn;
use io::Watched;
use watch::{Call, End, ServedRequest, Watch};

/// Bytes of one stream that may wait to be read. `Limits` has those of a connection, and how many streams it may
/// have.
const STREAM_WINDOW: u32 = 65_535;
/// Bytes of an answer that may wait for a slow reader, for each stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that the client may reset before we have looked at them; more are taken for an attack (SECURITY H2-06).
const RESET_STREAMS_MAX: usize = 20;
/// Streams that we may reset, because something is wrong with them (SECURITY H2-07) or because the client has too
/// many open; more are taken for an attack. 300 streams that come at once are refused one by one (SECURITY H2-14).
const LOCAL_RESETS_MAX: usize = 512;
/// Pings find dead peers; living ones are judged by [`Watch`].
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an overdue HTTP/2 client to take its GOAWAY.
const GOAWAY_TIME: Duration = Duration::from_secs(1);
/// h2 refuses header lists above this many times `header_bytes`. Those in between are refused by the gateway, with an
/// answer and a record (SECURITY H2-10).
const HEADER_LIST_ROOM: u32 = 4;

/// What a connection is served with.
#[derive(Debug)]
pub struct Serving {
    /// What is known of the connection.
    pub connection: Connection,
    /// The data path.
    pub gateway: Arc<Gateway>,
    /// Answers for ACME authorities, which ask on plaintext connections only.
    pub challenges: Option<Arc<Challenges>>,
}

/// Tells connections that the gateway stops, or that their listener does.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// From here on every HTTP/1.1 answer says that its connection closes, so that clients open the next one to a
    /// replica that stays. HTTP/2 needs no such time: its GOAWAY loses no request.
    pub announced: CancellationToken,
    /// From here on connections that wait for a request close, and the others after the requests under way.
    pub begun: CancellationToken,
}

impl Shutdown {
    /// A part of this shutdown that can also begin by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            announced: self.announced.child_token(),
            begun: self.begun.child_token(),
        }
    }
}

/// Serves HTTP/1.1 on `io` until one side ends it. An answer that only the end of the connection ends, as HTTP/1.0 has
/// them, must not look whole when it is cut: then `cut` is called before `io` is dropped, unless the program ends.
/// There is none where the end of `io` tells by itself.
pub fn serve_http1<I>(
    io: I,
    serving: Serving,
    limits: &Limits,
    shutdown: Shutdown,
    cut: Option<fn(&I)>,
) -> impl Future<Output = ()> + Send + use<I>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::new(limits, serving.connection.peer.port()));
    let gateway = Arc::clone(&serving.gateway);
    let peer = serving.connection.peer;
    let header_bytes = limits.header_bytes.as_usize();
    let Shutdown { announced, begun } = shutdown;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A client may close its half after sending; without this hyper drops the request.
        .half_close(true)
        .max_header_size(header_bytes)
        .max_buf_size((header_bytes + 8 * 1024).max(64 * 1024));
    let io = Watched::http1(Strict::new(io), Arc::clone(&watch));
    let service = service_fn(service(serving, Arc::clone(&watch), Some(announced)));
    let mut conn = Conn::Resting(io, service);
    // Made before the future, which would keep room for the parts too: each open connection would cost that much
    // more.
    async move {
        let mut has_to_leave = false;
        let end = watch
            .guard(&begun, |cx, call| {
                has_to_leave |= call == Call::Drain;
                let polled = conn.poll(cx, call, &builder);
                // Read what has come, and wait for the rest of a head that has begun, because hyper ends a connection
                // between two requests without reading.
                if polled.is_ready() || !has_to_leave || watch.is_within_head() {
                    return polled;
                }
                has_to_leave = false;
                let polled = conn.leave(cx);
                if polled.is_pending() && watch.is_done() {
                    return Poll::Ready(Ok(()));
                }
                polled
            })
            .await;
        count_refusal(&gateway, peer, &end);
        count_timeout(&gateway, peer, &end, &watch);
        let is_refused = matches!(&end, End::Finished(Err(error)) if error.is_parse());
        let is_whole = matches!(end, End::Finished(Ok(())));
        if watch.is_open_ended() && !is_whole {
            // SECURITY U-04
            if let Some((cut, io)) = cut.zip(conn.into_io()) {
                cut(&io.into_inner());
            }
        } else if is_refused || is_whole {
            let time = watch
                .linger_time()
                .or(is_refused.then_some(LingerTime::SHORT));
            if let Some(io) = conn.into_io() {
                Box::pin(close(io.into_inner(), time)).await;
            }
        }
    }
}

/// Serves HTTP/2 on `io` until one side ends it.
pub async fn serve_http2<I>(io: I, serving: Serving, limits: Limits, shutdown: Shutdown)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::new(&limits, serving.connection.peer.port()));
    let gateway = Arc::clone(&serving.gateway);
    let peer = serving.connection.peer;
    let service = service(serving, Arc::clone(&watch), None);
    let header_bytes = u32::try_from(limits.header_bytes.0).unwrap_or(u32::MAX);
    // Where memory is short, h2 takes no more than `header_bytes`.
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
        .guard(&shutdown.begun, |cx, call| {
            if call == Call::Drain {
                conn.as_mut().graceful_shutdown();
                watch.begin_ping();
            }
            let polled = conn.as_mut().poll(cx);
            if tally.is_over() {
                watch.end_ping();
            }
            for reason in tally.refusals(watch.begun()) {
                tracing::debug!(%peer, reason = reason.code(), "HTTP/2: refused before it was a request");
                gateway.refused_by_http(reason);
            }
            polled
        })
        .await;
    count_timeout(&gateway, peer, &end, &watch);
    if matches!(end, End::Overdue) {
        conn.as_mut().graceful_shutdown();
        let rest = poll_fn(|cx| {
            watch.begin_turn();
            conn.as_mut().poll(cx)
        });
        drop(timeout(GOAWAY_TIME, rest).await);
    }
}

/// The service of one connection: passes requests to the gateway, and tells the watch of each. Once `announced` is
/// cancelled, answers say that the connection closes; there is none for HTTP/2.
fn service(
    serving: Serving,
    watch: Arc<Watch>,
    announced: Option<CancellationToken>,
) -> impl Fn(Request<Incoming>) -> ServiceFuture {
    let is_http1 = announced.is_some();
    let shared = Arc::new((serving, announced));
    move |request: Request<Incoming>| {
        let version = request.version();
        let served = ServedRequest::begin(&watch);
        let shared = Arc::clone(&shared);
        let (serving, _) = &*shared;
        let challenges = serving.challenges.as_ref();
        let challenge = challenges.and_then(|challenges| challenges.http(&request));
        // An ACME authority that checks a name is not a sender and gets no record. All others get theirs now, because
        // hyper drops the future below when the connection breaks in the same turn. Their body is wrapped here too: the
        // future would keep room for both requests.
        let next = match challenge {
            Some(answer) => Err(respond::challenge(answer)),
            None => Ok((
                serving.gateway.open(&serving.connection, &request),
                request.map(|body| RequestBody::new(body, !is_http1)),
            )),
        };
        ServiceFuture(Box::pin(async move {
            let (serving, announced) = &*shared;
            let mut response = match next {
                Err(challenge) => challenge,
                Ok((record, request)) => {
                    let (gateway, connection) = (&serving.gateway, &serving.connection);
                    gateway.answer(connection, request, record).await
                }
            };
            // Answers of apps come in a row already, and HTTP/2 gathers its answers itself.
            if is_http1 && response.body().is_own() {
                after_ready_tasks().await;
            }
            if is_http1 && response.status().canonical_reason().is_none() {
                // hyper would write `<none>`.
                let extensions = response.extensions_mut();
                extensions.get_or_insert_with(|| ReasonPhrase::from_static(b"Status"));
            }
            let announced = announced.as_ref();
            if announced.is_some_and(CancellationToken::is_cancelled) {
                respond::close_connection(response.headers_mut());
            }
            if version == Version::HTTP_10 {
                answer_as_http10(&mut response, &served);
            }
            // HTTP/2 answers leave at the same time: once one of them may be long, the connection stays marked.
            let is_own = response.body().is_own();
            if is_http1 || !is_own {
                served.is_passed_back(!is_own);
            }
            Ok(response.map(|body| AnswerBody::new(body, served)))
        }))
    }
}

/// For HTTP/1.0 clients: says `close` when the body has no length, and answers as HTTP/1.0, because hyper would add
/// the client's `keep-alive` to an HTTP/1.1 answer.
fn answer_as_http10(response: &mut Response<Answer>, served: &ServedRequest) {
    if response.body().size_hint().exact().is_none() {
        served.ends_with_its_connection();
        respond::close_connection(response.headers_mut());
    }
    if response.headers().contains_key(header::CONNECTION) {
        *response.version_mut() = Version::HTTP_10;
    }
}

/// A request on its way through the gateway. Each poll is one turn of [`clock::turn`].
struct ServiceFuture(
    Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>,
);

impl Future for ServiceFuture {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        clock::turn(|| self.0.as_mut().poll(cx))
    }
}

/// Counts what the client was waited for too long: a head, or that it reads.
fn count_timeout(gateway: &Gateway, peer: SocketAddr, end: &End, watch: &Watch) {
    if !matches!(end, End::Overdue) {
        return;
    }
    let metrics = &gateway.telemetry().metrics;
    // A client that never sent a byte, as a probe, has begun no head. Nor has one that only did not answer the
    // shutdown ping.
    if watch.is_unread() {
        tracing::debug!(%peer, "the client did not read its answer in time");
        metrics.write_timeouts.inc();
    } else if watch.is_within_head() && !watch.is_pinging() {
        tracing::debug!(%peer, "the head of a request did not come in time");
        metrics.header_timeouts.inc();
    }
}

/// Counts what hyper refused, because it never reached the gateway.
fn count_refusal(gateway: &Gateway, peer: SocketAddr, end: &End) {
    let End::Finished(Err(error)) = end else {
        return;
    };
    let reason = if error.is_parse_too_large() {
        Reason::HeaderTooLarge
    } else if error.is_parse() {
        Reason::MalformedRequest
    } else {
        return;
    };
    let why = error.source().map(ToString::to_string);
    tracing::debug!(%peer, reason = reason.code(), %error, why, "HTTP/1.1: refused before it was a request");
    gateway.refused_by_http(reason);
}
