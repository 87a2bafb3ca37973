//! Listening sockets and the accept loops of one worker.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acme::Challenges;
use super::connections::{Connections, Place};
use super::http::{Serving, Shutdown, serve_http1, serve_http2};
use super::limit_unsent;
use super::proxy_protocol::{self, ProxyError};
use super::tls::TlsAcceptor;
use crate::gateway::Gateway;
use crate::gateway::connection::Connection;
use crate::gateway::snapshot::ListenerPolicy;
use crate::settings::Limits;
use crate::tasks::keep;
use crate::telemetry::SharedSeldom;
use crate::telemetry::metrics::ConnectionLimit;

/// Connections that the kernel may complete before we accept them.
const BACKLOG: i32 = 1024;
/// First and longest pause when the system is out of descriptors (SECURITY DS-09).
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Between the announcement of a shutdown and its beginning: TCP handshakes under way end in it, and clients that
/// send on a kept connection are told to open another. Shorter than the second after which TCP sends a lost SYN
/// again.
pub const LEAVE_TIME: Duration = Duration::from_millis(500);
/// From accept to the last byte of a PROXY header.
const PROXY_HEADER_TIME: Duration = Duration::from_secs(5);

/// What the accept loops of one listener share, in every worker.
#[derive(Debug)]
pub struct Endpoint {
    /// The listener's name.
    pub name: Arc<str>,
    /// The address that it is bound to, with the port that the system chose for port 0.
    pub address: SocketAddr,
    /// Its TLS, swapped by a reload; `None` for plaintext.
    pub tls: ArcSwapOption<TlsAcceptor>,
    /// Whether the service manager keeps its sockets open, for the process that listens next.
    pub is_kept_by_manager: bool,
    /// Stops accepting.
    pub closed: CancellationToken,
    /// The shutdown of its connections: that of the program, or its own where a reload removes it. HTTP/1.1
    /// connections take only `announced` from here: they outlive their listener.
    pub shutdown: Shutdown,
    /// When the log last said that nothing can be accepted.
    pub said_stuck: SharedSeldom,
    /// When the log last said that a connection was refused, by [`ConnectionLimit`].
    pub said_full: [SharedSeldom; 2],
}

impl Endpoint {
    /// Ends it, because a reload has removed or replaced it: no time passes between announcement and beginning.
    pub fn close(&self) {
        self.closed.cancel();
        self.shutdown.announced.cancel();
        self.shutdown.begun.cancel();
    }

    /// Says once in 10 s that a connection was refused.
    fn note_refusal(&self, limit: ConnectionLimit, client: IpAddr) {
        let said = self.said_full.get(limit as usize);
        if said.is_some_and(|said| said.is_due(Instant::now())) {
            let (listener, limit) = (&*self.name, limit.code());
            let message =
                "a connection was refused (said once in 10 s for each listener and limit)";
            tracing::warn!(listener, limit, %client, message);
        }
    }
}

/// What all accept loops of a worker share.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The data path.
    pub gateway: Arc<Gateway>,
    /// All open connections of the program.
    pub connections: Arc<Connections>,
    /// Answers for ACME authorities.
    pub challenges: Arc<Challenges>,
    /// Lets one TLS handshake of this worker compute at a time.
    pub handshakes: Arc<Semaphore>,
    /// The worker's connection tasks.
    pub tasks: TaskTracker,
    /// Tells connections that the program stops.
    pub shutdown: Shutdown,
}

/// Binds `address` so that each worker can have a socket of its own on it. Until [`listen`] it gets no connections, which
/// would be reset if it closed.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket_for(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// From here on the system gives connections to a socket of [`bind`].
pub fn listen(socket: &std::net::TcpListener) -> io::Result<()> {
    SockRef::from(socket).listen(BACKLOG)
}

/// Fails when a socket listens on `address`, even one of [`bind`].
pub fn nobody_listens(address: SocketAddr) -> io::Result<()> {
    socket_for(address)?.bind(&address.into())
}

/// A socket for `address` that can be bound although connections there were closed just now.
fn socket_for(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Accepts connections until the endpoint is closed.
pub async fn accept(listener: TcpListener, endpoint: Arc<Endpoint>, worker: Worker) {
    tokio::select! {
        // Asked first, because connections that come after the end are for the process that listens next.
        biased;
        () = endpoint.closed.cancelled() => {}
        () = keep("accept", &worker.gateway.telemetry().metrics.task_restarts, || {
            accept_all(&listener, &endpoint, &worker)
        }) => {}
    }
    if endpoint.is_kept_by_manager {
        return; // Connections that wait in the socket are for the process that is started next.
    }
    if let Err(error) = turn_away(&listener) {
        tracing::debug!(%error, "connections cannot be turned away before the socket closes");
    }
    let leaving = accept_all(&listener, &endpoint, &worker);
    drop(timeout(LEAVE_TIME, leaving).await);
    if let Err(error) = accept_rest(listener, &endpoint, &worker) {
        tracing::debug!(%error, "nothing more is accepted");
    }
}

/// Drops the packets that begin connections (SYN), because Linux resets all connections that wait in a socket when it
/// closes, even if other sockets have its address, unless `net.ipv4.tcp_migrate_req` is set (SECURITY S-08). The
/// client asks again after a second, and whoever listens then answers.
fn turn_away(listener: &TcpListener) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Accepts the connections that wait in the socket, and closes it.
fn accept_rest(listener: TcpListener, endpoint: &Arc<Endpoint>, worker: &Worker) -> io::Result<()> {
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                take(TcpStream::from_std(stream)?, peer, endpoint, worker);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Accepts connections for ever.
async fn accept_all(listener: &TcpListener, endpoint: &Arc<Endpoint>, worker: &Worker) {
    let mut pause = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = None;
                take(stream, peer, endpoint, worker);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                worker.gateway.telemetry().metrics.accept_failures.inc();
                let wait = trouble(endpoint, &error, pause);
                pause = Some(wait);
                sleep(wait).await;
            }
        }
    }
}

/// Begins to serve a connection, if there is room for it.
fn take(stream: TcpStream, peer: SocketAddr, endpoint: &Arc<Endpoint>, worker: &Worker) {
    let metrics = &worker.gateway.telemetry().metrics;
    let limit = worker.gateway.snapshot().limits.connections;
    let Some(place) = worker.connections.enter(limit) else {
        metrics.connection_refused(ConnectionLimit::All);
        endpoint.note_refusal(ConnectionLimit::All, peer.ip());
        return;
    };
    let open = Open::count(Arc::clone(&worker.gateway));
    let accepted = Accepted {
        stream,
        peer,
        proxy: None,
        is_anonymous: false,
        place,
        endpoint: Arc::clone(endpoint),
        worker: worker.clone(),
    };
    worker.tasks.spawn(async move {
        // All that was needed to establish the connection is dropped before it is served, which may take an hour.
        if let Some(established) = Box::pin(accepted.establish()).await {
            established.served.await;
            drop(established.place);
        }
        drop(open);
    });
}

/// Counts one connection as open in the metrics until it is dropped.
struct Open(Arc<Gateway>);

impl Open {
    fn count(gateway: Arc<Gateway>) -> Self {
        gateway.telemetry().metrics.connections.inc();
        Self(gateway)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.telemetry().metrics.connections.dec();
    }
}

/// Descriptors or memory have run out: logs it now and then, and returns how long to wait, twice as long each time
/// (SECURITY DS-09).
fn trouble(endpoint: &Endpoint, error: &io::Error, before: Option<Duration>) -> Duration {
    if endpoint.said_stuck.is_due(Instant::now()) {
        tracing::error!(listener = &*endpoint.name, %error, "cannot accept connections");
    }
    before.map_or(PAUSE_MIN, |before| before * 2).min(PAUSE_MAX)
}

/// Whether the error is of the connection that was to be accepted, and not of the listener (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// A connection that was accepted, and what it is served with.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    /// The proxy whose PROXY header came first.
    proxy: Option<IpAddr>,
    /// Whether the PROXY header named no client.
    is_anonymous: bool,
    place: Place,
    endpoint: Arc<Endpoint>,
    worker: Worker,
}

/// A connection that is ready to be served.
struct Established {
    place: Place,
    /// Serves it until one side ends it. Boxed, so that it takes only the memory that its protocol needs.
    served: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Accepted {
    /// Finds out who the peer is and which protocol it speaks; `None` when it must not be served.
    async fn establish(mut self) -> Option<Established> {
        // This fails when the peer has gone.
        self.stream.set_nodelay(true).ok()?;
        limit_unsent(&self.stream);
        let snapshot = self.worker.gateway.snapshot();
        let limits = &snapshot.limits;
        // A reload may just have removed the listener.
        let policy = snapshot.listener(&self.endpoint.name, Some(self.endpoint.address))?;
        let policy = Arc::clone(policy);
        if !self.introduce(&policy, limits).await {
            return None;
        }
        let tls = self.endpoint.tls.load_full();
        match &tls {
            None => Some(self.plaintext(policy, limits)),
            Some(acceptor) => self.secured(acceptor, policy, limits).await,
        }
    }

    /// Finds out who the peer is, and whether it may have one more connection.
    async fn introduce(&mut self, policy: &ListenerPolicy, limits: &Limits) -> bool {
        let gateway = Arc::clone(&self.worker.gateway);
        let metrics = &gateway.telemetry().metrics;
        let mut is_proxy = policy.trusts(self.peer.ip());
        if policy.proxy_protocol {
            let proxy = Some(self.peer.ip());
            match self.proxied(is_proxy).await {
                Ok(None) => (self.proxy, self.is_anonymous) = (proxy, true),
                Ok(Some(client)) => {
                    self.proxy = proxy;
                    self.peer = client;
                    is_proxy = false;
                }
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "no PROXY header");
                    if !matches!(error.downcast_ref(), Some(ProxyError::Silent)) {
                        metrics.proxy_protocol_failures.inc();
                    }
                    return false;
                }
            }
        }
        let address = self.peer.ip().to_canonical();
        let limit = limits.connections_of(address);
        if is_proxy || self.place.belongs_to(address, limit) {
            return true;
        }
        metrics.connection_refused(ConnectionLimit::PerAddress);
        self.endpoint
            .note_refusal(ConnectionLimit::PerAddress, address);
        false
    }

    /// The client that the PROXY header names. Nothing is read from a peer that may not send one.
    async fn proxied(&mut self, is_proxy: bool) -> anyhow::Result<Option<SocketAddr>> {
        anyhow::ensure!(is_proxy, "not a trusted proxy");
        let header = proxy_protocol::read(&mut self.stream);
        Ok(timeout(PROXY_HEADER_TIME, header).await??)
    }

    /// What is known of the connection before TLS.
    fn connection(&self, policy: Arc<ListenerPolicy>) -> Connection {
        let mut connection = Connection::new(self.peer, Arc::clone(&self.endpoint.name), None);
        connection.address = Some(self.endpoint.address);
        connection.policy = Some(policy);
        connection.proxy = self.proxy;
        connection.is_anonymous = self.is_anonymous;
        connection
    }

    fn plaintext(self, policy: Arc<ListenerPolicy>, limits: &Limits) -> Established {
        let connection = self.connection(policy);
        let shutdown = shutdown_http1(&self.endpoint, &self.worker);
        let Worker {
            gateway,
            challenges,
            ..
        } = self.worker;
        let service = Serving {
            connection,
            gateway,
            challenges: Some(challenges),
        };
        Established {
            place: self.place,
            served: Box::pin(serve_http1(
                self.stream,
                service,
                limits,
                shutdown,
                Some(cut),
            )),
        }
    }

    async fn secured(
        self,
        acceptor: &TlsAcceptor,
        policy: Arc<ListenerPolicy>,
        limits: &Limits,
    ) -> Option<Established> {
        let mut connection = self.connection(policy);
        let handshake = Box::pin(shake_hands(self.stream, acceptor, &self.worker));
        let handshake = timeout(limits.tls_handshake_timeout, handshake).await;
        let gateway = Arc::clone(&self.worker.gateway);
        let failed = |error: Option<io::Error>| {
            let why = error.map_or_else(|| "it took too long".to_owned(), |own| own.to_string());
            tracing::debug!(peer = %self.peer, error = why, "TLS handshake failed");
            gateway.telemetry().metrics.tls_handshake_failures.inc();
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream?,
            Ok(Err(error)) => {
                failed(Some(error));
                return None;
            }
            Err(_) => {
                failed(None);
                return None;
            }
        };
        let (_, session) = stream.get_ref();
        let is_h2 = session.alpn_protocol() == Some(b"h2");
        connection.tls = Some(acceptor.facts(session));
        let service = Serving {
            connection,
            gateway,
            challenges: None,
        };
        let served: Pin<Box<dyn Future<Output = ()> + Send>> = if is_h2 {
            // They end with their listener: a GOAWAY loses no request.
            let shutdown = self.endpoint.shutdown.clone();
            Box::pin(serve_http2(stream, service, limits.clone(), shutdown))
        } else {
            let shutdown = shutdown_http1(&self.endpoint, &self.worker);
            // Without a `close_notify`, its end says that something is missing (RFC 8446 6.1).
            Box::pin(serve_http1(stream, service, limits, shutdown, None))
        };
        Some(Established {
            place: self.place,
            served,
        })
    }
}

/// A reset is the only end of a plaintext connection that says that something is missing.
fn cut(stream: &TcpStream) {
    // This fails when the peer has gone.
    stream.set_zero_linger().ok();
}

/// The shutdown of HTTP/1.1 connections. A reload that removes their listener only announces it: they close with
/// their next answer, or when idle.
fn shutdown_http1(endpoint: &Endpoint, worker: &Worker) -> Shutdown {
    Shutdown {
        announced: endpoint.shutdown.announced.clone(),
        begun: worker.shutdown.begun.clone(),
    }
}

/// A TLS handshake; `None` for that of an ACME authority, which only wants to see a certificate, and where there is none.
///
/// The expensive part begins when the whole `ClientHello` is there. One handshake of this worker computes at a time,
/// and all other tasks have a turn after each, so that a flood of handshakes slows down handshakes, not requests
/// (SECURITY DS-05). A handshake that waits for the network delays no other.
async fn shake_hands(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    worker: &Worker,
) -> io::Result<Option<Box<TlsStream<TcpStream>>>> {
    if !matches!(stream.peek(&mut [0]).await, Ok(1..)) {
        // A probe of the port, which may also end by a reset: no handshake has begun.
        return Ok(None);
    }
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let proof = worker.challenges.tls(&hello.client_hello());
    let is_proof = proof.is_some();
    let turn = worker.handshakes.acquire().await;
    let turn = turn.map_err(io::Error::other)?;
    let handshake = hello.into_stream(proof.unwrap_or_else(|| acceptor.config()));
    tokio::task::yield_now().await;
    drop(turn);
    // Boxed, because it is a kilobyte and is moved several times.
    let mut stream = Box::new(handshake.await?);
    if is_proof {
        stream.shutdown().await?;
        return Ok(None);
    }
    let (socket, _) = stream.get_ref();
    // We send nothing after the client's last message, so the system would delay its acknowledgement, and a client
    // that waits for that before it writes on (Nagle's algorithm) would lose 40 ms.
    socket.set_quickack(true).ok();
    Ok(Some(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_only_bound_takes_no_connections_with_it() {
        // SECURITY S-20
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&first).unwrap();
        let address = first.local_addr().unwrap();
        let planned = bind(address).unwrap();
        let connect = || std::net::TcpStream::connect(address).unwrap();
        let _waiting: Vec<_> = (0..100).map(|_| connect()).collect();
        drop(planned);
        for _ in 0..100 {
            first.accept().unwrap();
        }
    }

    #[test]
    fn a_burst_of_connections_waits_for_its_turn() {
        // SECURITY DS-34: with the usual backlog of 128 the rest would be dropped and tried again
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&listener).unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(900); // before a lost SYN is sent again
        let connect = || std::net::TcpStream::connect_timeout(&address, patience).unwrap();
        let _waiting: Vec<_> = (0..400).map(|_| connect()).collect();
    }
}
