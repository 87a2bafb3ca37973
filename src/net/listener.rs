//! Listening sockets and the accept loops of one worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::{serve_http1, serve_http2};
use super::tls::TlsAcceptor;
use crate::gateway::Gateway;
use crate::gateway::connection::Connection;

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 1024;
/// First and longest pause when the system is out of descriptors (SECURITY DS-09).
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the accept loops of one listener share, in every worker.
#[derive(Debug)]
pub struct Endpoint {
    /// The listener's name.
    pub name: Arc<str>,
    /// Where it was bound, with the port that port 0 became.
    pub address: SocketAddr,
    /// Its TLS, swapped by a reload; `None` for plaintext.
    pub tls: ArcSwap<Option<TlsAcceptor>>,
    /// Stops accepting.
    pub closed: CancellationToken,
}

/// What all accept loops of a worker share.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The data path.
    pub gateway: Arc<Gateway>,
    /// All open connections of the program.
    pub connections: Arc<Connections>,
    /// The worker's connection tasks.
    pub tasks: TaskTracker,
    /// Ends keep-alive: finish what is under way, then close.
    pub drain: CancellationToken,
}

/// Counts open connections.
#[derive(Debug, Default)]
pub struct Connections(AtomicUsize);

/// One open connection; given back when dropped.
#[derive(Debug)]
struct ConnPermit(Worker);

/// Binds `address` so that each worker can have a socket of its own on it.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections until the endpoint is closed.
pub async fn accept(listener: TcpListener, endpoint: Arc<Endpoint>, worker: Worker) {
    let mut pause = PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            () = endpoint.closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE_MIN;
                let Some(permit) = ConnPermit::take(&worker) else {
                    continue;
                };
                let connection = serve(stream, peer, Arc::clone(&endpoint), worker.clone());
                worker.tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(listener = &*endpoint.name, %error, "cannot accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Errors of the connection that was to be accepted; the listener itself is fine (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl ConnPermit {
    fn take(worker: &Worker) -> Option<Self> {
        let metrics = &worker.gateway.telemetry().metrics;
        let open = worker.connections.0.fetch_add(1, Ordering::Relaxed);
        metrics.connections.inc();
        let permit = Self(worker.clone());
        if open >= worker.gateway.snapshot().limits.connections {
            metrics.connections_refused.inc();
            return None;
        }
        Some(permit)
    }
}

impl Drop for ConnPermit {
    fn drop(&mut self) {
        self.0.connections.0.fetch_sub(1, Ordering::Relaxed);
        self.0.gateway.telemetry().metrics.connections.dec();
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, endpoint: Arc<Endpoint>, worker: Worker) {
    if stream.set_nodelay(true).is_err() {
        return; // The peer has gone.
    }
    let Worker { gateway, drain, .. } = worker;
    let snapshot = gateway.snapshot();
    let limits = &snapshot.limits;
    let listener = Arc::clone(&endpoint.name);
    let tls = endpoint.tls.load_full();
    let Some(acceptor) = tls.as_ref() else {
        let connection = Connection {
            peer,
            listener,
            tls: None,
        };
        return serve_http1(stream, connection, Arc::clone(&gateway), limits, drain).await;
    };
    let handshake = tokio_rustls::TlsAcceptor::from(acceptor.config()).accept(stream);
    let stream = match timeout(limits.tls_handshake_timeout, Box::pin(handshake)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return gateway.telemetry().metrics.tls_handshake_failures.inc();
        }
        Err(_) => return gateway.telemetry().metrics.tls_handshake_failures.inc(),
    };
    let (_, session) = stream.get_ref();
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let facts = acceptor.facts(session);
    let connection = Connection {
        peer,
        listener,
        tls: Some(facts),
    };
    if is_h2 {
        serve_http2(stream, connection, Arc::clone(&gateway), limits, drain).await;
    } else {
        serve_http1(stream, connection, Arc::clone(&gateway), limits, drain).await;
    }
}
