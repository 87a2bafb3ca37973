//! HTTP/2 towards senders, by hyper.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::body::RequestBody;
use super::watch::{Call, End, ServedRequest, Watch};
use super::{Serving, Shutdown, count_timeout};
use crate::clock;
use crate::gateway::body::linger;
use crate::settings::Limits;

mod body;
mod frames;
mod io;

use body::AnswerBody;
use frames::{Counted, Tally};
use io::Watched;

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

/// Serves HTTP/2 on `io` until one side ends it.
pub async fn serve_http2<I>(io: I, serving: Serving, limits: Limits, shutdown: Shutdown)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::new(&limits, serving.connection.peer.port()));
    let serving = Arc::new(serving);
    let peer = serving.connection.peer;
    let service = service(Arc::clone(&serving), Arc::clone(&watch));
    let header_bytes = u32::try_from(limits.header_bytes.0).unwrap_or(u32::MAX);
    // Where memory is short, h2 takes no more than `header_bytes`.
    let room = if limits.http2_streams < Limits::default().http2_streams {
        1
    } else {
        HEADER_LIST_ROOM
    };
    let watched = Watched::new(io, Arc::clone(&watch));
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
                serving.gateway.refused_by_http(reason);
            }
            polled
        })
        .await;
    count_timeout(&serving, &end, &watch);
    if matches!(end, End::Overdue) {
        conn.as_mut().graceful_shutdown();
        let rest = poll_fn(|cx| {
            watch.begin_turn();
            conn.as_mut().poll(cx)
        });
        drop(timeout(GOAWAY_TIME, rest).await);
    }
}

/// The service of one connection: passes requests to the gateway, and tells the watch of each.
fn service(
    serving: Arc<Serving>,
    watch: Arc<Watch>,
) -> impl Fn(Request<Incoming>) -> ServiceFuture {
    move |request: Request<Incoming>| {
        let served = ServedRequest::begin(&watch);
        let serving = Arc::clone(&serving);
        let (parts, body) = request.into_parts();
        // Opened now, because hyper drops the future below when the connection breaks in the same turn.
        let record = serving.gateway.open(&serving.connection, &parts);
        ServiceFuture(Box::pin(async move {
            let (gateway, connection) = (&serving.gateway, &serving.connection);
            let mut body = RequestBody::of_stream(body);
            let response = gateway.answer(connection, parts, &mut body, record).await;
            // A reset of the stream would take the answer from senders that still send (SECURITY SM-17).
            if !body.is_end_stream() {
                tokio::spawn(linger(body));
            }
            // Answers leave at the same time: once one of them may be long, the connection stays marked.
            if !response.body().is_own() {
                served.watch.passes_back(true);
            }
            Ok(response.map(|body| AnswerBody::new(body, served)))
        }))
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
