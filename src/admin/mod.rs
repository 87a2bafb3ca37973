//! The admin listener: how the gateway is, for orchestrators and Prometheus.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 while the process can answer at all |
//! | `/readyz` | 200 while it wants requests; 503 while it starts and while it drains |
//! | `/metrics` | every metric, as Prometheus text |
//!
//! `GET` and `HEAD` only. It has its own limits, and nothing here leads to a data listener.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

mod metrics;
mod probes;

pub use probes::Readiness;

use crate::telemetry::Telemetry;
use probes::ReadinessCell;

/// Connections at once; further ones are closed.
const CONNECTIONS_MAX: usize = 64;

/// For a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// For a whole connection, the slowest reader of the answer included. Each carries one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when the system has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Descriptors kept back for probes, which must not fail when senders have taken all the others.
const SPARES: usize = 8;

/// What the admin listener shows.
#[derive(Debug)]
pub struct AdminState {
    readiness: ReadinessCell,
    telemetry: Telemetry,
}

impl AdminState {
    /// Begins as [`Readiness::Starting`].
    pub fn new(telemetry: Telemetry) -> Self {
        Self {
            readiness: ReadinessCell::default(),
            telemetry,
        }
    }

    /// Says how the gateway is from now on.
    pub fn set(&self, readiness: Readiness) {
        self.readiness.set(readiness);
    }

    /// How the gateway is.
    pub fn readiness(&self) -> Readiness {
        self.readiness.get()
    }
}

/// Serves until `shutdown`. Cancel it last, so that probes see the drain.
pub async fn serve(
    listener: Arc<TcpListener>,
    state: Arc<AdminState>,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let spares = Arc::new(Spares::of(Arc::clone(&listener)));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(_) if spares.give_up_one() => continue,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            continue;
        };
        let connection = connection(stream, Arc::clone(&state));
        let (shutdown, spares) = (shutdown.clone(), Arc::clone(&spares));
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                _late = tokio::time::timeout(CONNECTION_TIMEOUT, connection) => {}
            }
            drop(permit);
            spares.fill();
        });
    }
}

/// Descriptors that are open for nothing but to be closed when the program has no other left: the
/// next connection gets the place of one, and gives it back (SECURITY DS-09).
struct Spares {
    listener: Arc<TcpListener>,
    held: Mutex<Vec<OwnedFd>>,
}

impl Spares {
    fn of(listener: Arc<TcpListener>) -> Self {
        let spares = Self {
            listener,
            held: Mutex::default(),
        };
        spares.fill();
        spares
    }

    fn fill(&self) {
        let mut held = self.lock();
        while held.len() < SPARES
            && let Ok(copy) = self.listener.as_fd().try_clone_to_owned()
        {
            held.push(copy);
        }
    }

    /// Makes room for one connection; `false` when none is left.
    fn give_up_one(&self) -> bool {
        self.lock().pop().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connection(stream: TcpStream, state: Arc<AdminState>) {
    let service = service_fn(|request| {
        let answer = answer(&request, &state);
        async { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection broke");
    }
}

fn answer(request: &Request<Incoming>, state: &AdminState) -> Response<Full<Bytes>> {
    let known = match request.uri().path() {
        "/livez" => probes::live,
        "/readyz" => probes::ready,
        "/metrics" => metrics::page,
        _ => return text(StatusCode::NOT_FOUND, "not found\n"),
    };
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return known(state);
    }
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    let allowed = HeaderValue::from_static("GET, HEAD");
    answer.headers_mut().insert(ALLOW, allowed);
    answer
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let body = Bytes::from_static(body.as_bytes());
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, media_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
