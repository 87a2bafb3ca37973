//! The way to the apps: pooled connections, several servers, health, and one copy of each request.
//!
//! A request is sent again only when not a byte of it was taken: a delivery is never doubled.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, InvalidMessage, RootCertStore};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::resolve;
use super::tls::provider;
use super::trust;
use crate::clock;
use crate::gateway::forward::{BoxError, Exchange, Unread, Upstream, UpstreamBody, UpstreamError};
use crate::gateway::outgoing::Outgoing;
use crate::settings::{HealthCheck, ServerAddress, UpstreamSettings, UpstreamTls};

mod answer;
mod head;
mod sending;
mod stream;
mod wire;

use answer::Rest;
use stream::Stream;
use wire::{Answered, Connection, Failure};

/// Idle connections are dropped before the shortest keep-alive in use (gunicorn closes after 2 s),
/// or a request would meet a connection that is just being closed (SECURITY U-09).
const POOL_IDLE: Duration = Duration::from_millis(1500);
/// Idle connections kept for one server, in each worker.
const POOL_SIZE: usize = 64;
/// Connections are not used again past this age, so that a name's new address is (SECURITY U-18).
const POOL_AGE: Duration = Duration::from_secs(25);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Head start of an address before the next one is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);
/// What the system keeps for an app that does not take it, beyond what is on its way: a slow app is then seen to go on, while
/// with the usual megabytes it seems to stand still until a third of them is gone.
const UNSENT_BYTES: u32 = 128 << 10;
/// Between two attempts to connect to a unix socket whose queue is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);
/// How long a server that gave no answer is left alone, when there is another.
const PASSIVE_DOWN: Duration = Duration::from_secs(10);

/// The servers of one upstream, shared by all workers.
#[derive(Debug)]
pub struct Cluster {
    settings: UpstreamSettings,
    servers: Vec<Server>,
    next: AtomicUsize,
    started: Instant,
}

/// One server of an upstream.
#[derive(Debug)]
struct Server {
    id: u64,
    address: ServerAddress,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    /// What the last active check found.
    healthy: AtomicBool,
    /// Until when, in ms after `Cluster::started`, an answer that it did not give counts against it.
    down_until_ms: AtomicU64,
}

/// Tells the servers of all upstreams apart, over reloads: the key of the pools.
static NEXT_SERVER_ID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Idle connections of this worker. A worker is one thread with one runtime, so nothing here is
    /// shared or locked.
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool {
    /// By server; there are few.
    servers: Vec<(u64, Vec<Idle>)>,
    /// Whether a task drops what gets too old.
    is_swept: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Cluster {
    /// Builds the servers of an upstream.
    pub fn new(settings: UpstreamSettings) -> anyhow::Result<Self> {
        let tls = LazyTls::default();
        let servers = settings
            .servers
            .iter()
            .map(|address| Server::new(address, &settings.tls, &tls))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            settings,
            servers,
            next: AtomicUsize::new(0),
            started: Instant::now(),
        })
    }

    /// What it was built from; a reload keeps a cluster whose settings did not change.
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Checks the health of the servers until `closed`. Returns at once when none is asked for.
    pub async fn watch(self: Arc<Self>, closed: CancellationToken) {
        let Some(check) = self.settings.health.clone() else {
            return;
        };
        // Each at its own pace: one that hangs must not hold up what is known of the others.
        let watches = self.servers.iter().map(|server| async {
            loop {
                let found = probe(server, &check, self.settings.connect_timeout).await;
                server.note_health(&self.settings.name, found);
                sleep(check.interval).await;
            }
        });
        tokio::select! {
            () = closed.cancelled() => {}
            _ = join_all(watches) => {}
        }
    }

    /// Servers in the order to try: round robin over the good ones, then the rest, for a server
    /// that is said to be down may be the only hope. Of those, the one that failed last comes last, and after them come those
    /// that their health check found bad.
    fn candidates(&self) -> Vec<&Server> {
        let count = self.servers.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count.max(1);
        let now_ms = self.now_ms();
        let (mut servers, mut bad): (Vec<_>, Vec<_>) = self
            .servers
            .iter()
            .cycle()
            .skip(first)
            .take(count)
            .partition(|server| server.is_up(now_ms));
        bad.sort_by_cached_key(|server| {
            let is_healthy = server.healthy.load(Ordering::Relaxed);
            let until_ms = server.down_until_ms.load(Ordering::Relaxed);
            (!is_healthy, until_ms.max(now_ms))
        });
        servers.append(&mut bad);
        servers
    }

    fn now_ms(&self) -> u64 {
        let age = clock::now().saturating_duration_since(self.started);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    async fn exchange(
        &self,
        request: &mut Outgoing,
        wait: Duration,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        if let [server] = self.servers.as_slice() {
            let asked = self.ask(server, request, wait).await?;
            return asked.map_err(UpstreamError::Unreachable);
        }
        let mut refusal = String::from("it has no servers");
        for server in self.candidates() {
            // What fails meanwhile is not forgiven for an answer to what was asked before.
            let mark = server.down_until_ms.load(Ordering::Relaxed);
            let asked = self.ask(server, request, wait).await;
            if matches!(asked, Ok(Ok(_))) {
                server.forgive(mark);
            } else {
                let down = u64::try_from(PASSIVE_DOWN.as_millis()).unwrap_or(u64::MAX);
                let until = self.now_ms().saturating_add(down);
                server.down_until_ms.store(until, Ordering::Relaxed);
            }
            match asked? {
                Ok(response) => return Ok(response),
                Err(why) => refusal = why,
            }
        }
        // With all of them away none is better than another: whichever comes back first must not get all the load.
        for server in &self.servers {
            server.forgive(server.down_until_ms.load(Ordering::Relaxed));
        }
        Err(UpstreamError::Unreachable(refusal))
    }

    /// Asks one server, over a connection that it has open or over a new one.
    async fn ask(
        &self,
        server: &Server,
        request: &mut Outgoing,
        wait: Duration,
    ) -> Result<Asked, UpstreamError> {
        while let Some(connection) = take_idle(server.id) {
            match send(server, connection, request, wait).await? {
                None => {}
                Some(response) => return Ok(Ok(response)),
            }
        }
        let connect_timeout = self.settings.connect_timeout;
        let refusal = match Box::pin(server.connect(connect_timeout)).await {
            Ok(connection) => match send(server, connection, request, wait).await? {
                Some(response) => return Ok(Ok(response)),
                None => format!("{}: closed at once", server.address),
            },
            Err(error) => format!("{}: {error:#}", server.address),
        };
        Ok(Err(refusal))
    }
}

/// What became of asking a server: its answer, or why nothing was sent.
type Asked = Result<Response<UpstreamBody>, String>;

impl Upstream for Cluster {
    fn send(&self, request: Outgoing, limit: Option<Duration>) -> Exchange<'_> {
        let wait = limit.unwrap_or(self.settings.timeout);
        Box::pin(async move {
            let mut request = request;
            self.exchange(&mut request, wait).await
        })
    }

    fn patience(&self, limit: Option<Duration>) -> Duration {
        let servers = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        let connects = self.settings.connect_timeout.saturating_mul(servers);
        limit
            .unwrap_or(self.settings.timeout)
            .saturating_add(connects)
    }
}

/// Sends a request over a connection; `None` when that closed before it took a byte.
async fn send(
    server: &Server,
    connection: Connection,
    request: &mut Outgoing,
    wait: Duration,
) -> Result<Option<Response<UpstreamBody>>, UpstreamError> {
    match connection.exchange(request, wait).await {
        Ok(Answered {
            mut head,
            rest,
            is_sent,
        }) => {
            if !is_sent {
                head.extensions_mut().insert(Unread);
            }
            let body = body(server.id, rest, wait);
            Ok(Some(head.map(|()| body)))
        }
        Err(Failure::NotTaken) => Ok(None),
        Err(Failure::Late) => {
            let late = UpstreamError::Timeout(format!("no answer within {wait:?}"));
            Err(late.of(&server.address))
        }
        Err(Failure::Gone(error)) => Err(error.of(&server.address)),
    }
}

/// The body of an answer. Its connection is given back once it has been read to the end; one that
/// never gets there is closed, so that no answer can be taken for another's (SECURITY U-07, U-14).
fn body(server: u64, mut rest: Rest, wait: Duration) -> UpstreamBody {
    match rest.whole() {
        Some(bytes) => {
            give_back(server, rest);
            UpstreamBody::Whole(bytes)
        }
        None => UpstreamBody::Streamed(UnsyncBoxBody::new(Paced {
            server,
            rest: Some(rest),
            wait,
            timer: None,
        })),
    }
}

/// The youngest idle connection that is still young enough.
fn take_idle(server: u64) -> Option<Connection> {
    let now = clock::now();
    POOL.with_borrow_mut(|pool| {
        let (_, idle) = pool.servers.iter_mut().find(|(id, _)| *id == server)?;
        while let Some(Idle { connection, since }) = idle.pop() {
            if now.saturating_duration_since(since) > POOL_IDLE {
                idle.clear(); // What lies below is older still.
                return None;
            }
            if now.saturating_duration_since(connection.born) <= POOL_AGE {
                return Some(connection);
            }
        }
        None
    })
}

fn give_back(server: u64, rest: Rest) {
    let Some(connection) = rest.into_reusable() else {
        return;
    };
    POOL.with_borrow_mut(|pool| {
        if !std::mem::replace(&mut pool.is_swept, true) {
            tokio::spawn(sweep());
        }
        let idle = Idle {
            connection,
            since: clock::now(),
        };
        match pool.servers.iter_mut().find(|(id, _)| *id == server) {
            Some((_, pooled)) if pooled.len() < POOL_SIZE => pooled.push(idle),
            Some(_) => {}
            None => pool.servers.push((server, vec![idle])),
        }
    });
}

/// Closes idle connections that have become too old, until there is none left.
async fn sweep() {
    loop {
        sleep(POOL_IDLE).await;
        let is_empty = POOL.with_borrow_mut(|pool| {
            for (_, idle) in &mut pool.servers {
                idle.retain(|idle| idle.since.elapsed() <= POOL_IDLE);
            }
            pool.servers.retain(|(_, idle)| !idle.is_empty());
            pool.is_swept = !pool.servers.is_empty();
            !pool.is_swept
        });
        if is_empty {
            return;
        }
    }
}

/// Roots and client configuration, built once for the https servers of an upstream.
#[derive(Default)]
struct LazyTls(std::cell::OnceCell<Arc<ClientConfig>>);

impl LazyTls {
    fn get(&self, settings: &UpstreamTls) -> anyhow::Result<Arc<ClientConfig>> {
        if let Some(config) = self.0.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(client_config(settings)?);
        Ok(Arc::clone(self.0.get_or_init(|| config)))
    }
}

/// TLS towards an upstream: its own authorities, or the system's; never none.
fn client_config(settings: &UpstreamTls) -> anyhow::Result<ClientConfig> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &settings.ca {
        Some(certificates) => builder
            .dangerous()
            .with_custom_certificate_verifier(trust::servers(certificates)?),
        None => builder.with_root_certificates(system_roots()),
    };
    Ok(match &settings.client {
        Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
        None => builder.with_no_client_auth(),
    })
}

/// The authorities that the system trusts.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system root certificate cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// What went wrong with TLS towards a server, with what is mostly the reason.
fn tls_trouble(error: std::io::Error) -> anyhow::Error {
    let source = error.get_ref().and_then(|inner| inner.downcast_ref());
    match source {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            anyhow::anyhow!("it does not speak TLS; write `http://`")
        }
        Some(error) if trust::shows_authority(error) => anyhow::anyhow!(
            "its certificate is that of an authority (CA:TRUE), and not one of those in `tls.ca`: \
             give this very certificate there, or make one with \
             `-addext basicConstraints=critical,CA:FALSE`"
        ),
        _ => error.into(),
    }
}

impl Server {
    fn new(address: &ServerAddress, tls: &UpstreamTls, lazy: &LazyTls) -> anyhow::Result<Self> {
        let tls = match address {
            ServerAddress::Https { host, .. } => {
                let name = tls.server_name.as_ref().unwrap_or(host).clone();
                Some((ServerName::try_from(name)?, lazy.get(tls)?))
            }
            ServerAddress::Http { .. } | ServerAddress::Unix(_) => None,
        };
        Ok(Self {
            id: NEXT_SERVER_ID.fetch_add(1, Ordering::Relaxed),
            address: address.clone(),
            tls,
            healthy: AtomicBool::new(true),
            down_until_ms: AtomicU64::new(0),
        })
    }

    /// Remembers what a check found; says so when it is news.
    fn note_health(&self, upstream: &str, found: anyhow::Result<()>) {
        let healthy = found.is_ok();
        if self.healthy.swap(healthy, Ordering::Relaxed) == healthy {
            return;
        }
        let server = self.address.to_string();
        match found {
            Ok(()) => {
                self.forgive(self.down_until_ms.load(Ordering::Relaxed));
                tracing::info!(upstream, server, "server is healthy again");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(upstream, server, error, "server failed its health check");
            }
        }
    }

    /// Forgets a failure, if there was no other since. Mostly there is none: then nothing is written that all workers
    /// read.
    fn forgive(&self, mark: u64) {
        if mark != 0 {
            let until = &self.down_until_ms;
            until
                .compare_exchange(mark, 0, Ordering::Relaxed, Ordering::Relaxed)
                .ok();
        }
    }

    fn is_up(&self, now_ms: u64) -> bool {
        self.healthy.load(Ordering::Relaxed) && self.down_until_ms.load(Ordering::Relaxed) <= now_ms
    }

    /// A new connection within `limit`; the error says what took longer.
    async fn connect(&self, limit: Duration) -> anyhow::Result<Connection> {
        let deadline = clock::now() + limit;
        let found = match &self.address {
            ServerAddress::Unix(_) => Vec::new(),
            ServerAddress::Http { host, port } | ServerAddress::Https { host, port } => {
                let found = timeout_at(deadline, resolve::addresses(host, *port)).await;
                found.map_err(|_elapsed| {
                    anyhow::anyhow!("the resolver does not answer for its name")
                })??
            }
        };
        let connected = timeout_at(deadline, self.connect_to(&found)).await;
        connected.map_err(|_elapsed| anyhow::anyhow!("connect timeout"))?
    }

    async fn connect_to(&self, addresses: &[SocketAddr]) -> anyhow::Result<Connection> {
        let stream = match &self.address {
            ServerAddress::Unix(path) => Stream::Unix(connect_unix(path).await?),
            ServerAddress::Http { .. } | ServerAddress::Https { .. } => {
                let stream = connect_any(addresses).await?;
                stream.set_nodelay(true)?;
                // Where it is not known, the app only seems to take more than it does.
                SockRef::from(&stream)
                    .set_tcp_notsent_lowat(UNSENT_BYTES)
                    .ok();
                match &self.tls {
                    None => Stream::Tcp(stream),
                    Some((name, config)) => {
                        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                        let stream = connector.connect(name.clone(), stream).await;
                        let stream = stream.map_err(tls_trouble)?;
                        Stream::Tls(Box::new(stream))
                    }
                }
            }
        };
        Ok(Connection::new(stream))
    }
}

/// Connects to a unix socket, and waits where its queue is full, as TCP does by itself.
async fn connect_unix(path: &Path) -> std::io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                sleep(QUEUE_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// Connects to a host by its name.
pub(super) async fn connect_tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    connect_any(&resolve::addresses(host, port).await?).await
}

/// Connects to whichever address of a name answers: one after the other, each with a head start, so
/// that dead ones cost little of the time for connecting (SECURITY U-18).
async fn connect_any(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let addresses = addresses.get(..ADDRESSES_MAX).unwrap_or(addresses);
    let connected = first_of(addresses, TcpStream::connect).await;
    connected.unwrap_or_else(|| Err(std::io::Error::other("the name has no address")))
}

/// The first of `addresses` at which an attempt succeeds, else what the last one says; `None` where there are none.
pub(super) async fn first_of<T, E, F: Future<Output = Result<T, E>>>(
    addresses: &[SocketAddr],
    attempt: impl Fn(SocketAddr) -> F,
) -> Option<Result<T, E>> {
    let mut addresses = alternating(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        match addresses.next() {
            Some(address) => attempts.push(attempt(address)),
            None if attempts.is_empty() => return failure.map(Err),
            None => {}
        }
        let more = addresses.len() > 0;
        tokio::select! {
            Some(connected) = attempts.next() => match connected {
                Ok(stream) => return Some(Ok(stream)),
                Err(error) => failure = Some(error),
            },
            () = sleep(HEAD_START), if more => {}
        }
    }
}

/// IPv6 and IPv4 in turn, the preferred one first: one family may be dead altogether.
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .iter()
        .partition(|address| address.is_ipv6() == preferred);
    let longest = first.len().max(second.len());
    (0..longest)
        .flat_map(|index| [first.get(index), second.get(index)])
        .flatten()
        .copied()
        .collect()
}

/// One active health check: any answer from 200 to 399 is health.
async fn probe(
    server: &Server,
    check: &HealthCheck,
    connect_timeout: Duration,
) -> anyhow::Result<()> {
    let exchange = async {
        let connection = server.connect(connect_timeout).await?;
        let host = server.address.authority().parse()?;
        let mut request = Outgoing::probe(&host, check.path.parse()?);
        match connection.exchange(&mut request, check.interval).await {
            Ok(answered) => Ok(answered.head.status()),
            Err(Failure::NotTaken) => Err(anyhow::anyhow!("it closed the connection at once")),
            Err(Failure::Late) => Err(anyhow::anyhow!("no answer within {:?}", check.interval)),
            Err(Failure::Gone(error)) => Err(error.into()),
        }
    };
    let patience = connect_timeout + check.interval;
    let answered = timeout(patience, exchange).await;
    let status = answered.with_context(|| format!("no answer within {patience:?}"))??;
    anyhow::ensure!(
        status.is_success() || status.is_redirection(),
        "it answered {status}"
    );
    Ok(())
}

/// An answer's body that must keep coming: each wait is bounded. Trailers are not passed on.
struct Paced {
    server: u64,
    /// `None` once it has ended.
    rest: Option<Rest>,
    wait: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(rest) = &mut this.rest else {
            return Poll::Ready(None);
        };
        let data = match rest.poll_data(cx) {
            Poll::Ready(data) => data,
            Poll::Pending => {
                let wait = this.wait;
                let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
                ready!(timer.as_mut().poll(cx));
                let late = format!("no more of its answer within {wait:?}");
                Some(Err(UpstreamError::Timeout(late)))
            }
        };
        this.timer = None;
        match data {
            Some(Ok(data)) => {
                if rest.is_done() {
                    this.end();
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => {
                this.rest = None;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            None => SizeHint::with_exact(0),
            Some(rest) => rest
                .length()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Paced {
    fn end(&mut self) {
        if let Some(rest) = self.rest.take() {
            give_back(self.server, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        // SECURITY U-18
        let found = addresses(&["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1"]);
        let tried = addresses(&["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1"]);
        assert_eq!(alternating(&found), tried);
        let one = addresses(&["192.0.2.1:1", "192.0.2.2:1"]);
        assert_eq!(alternating(&one), one);
        assert!(alternating(&[]).is_empty());
    }

    /// Three servers, `started` ms before now.
    fn three(started_ms: u64) -> Cluster {
        let server = |port| ServerAddress::Http {
            host: "127.0.0.1".to_owned(),
            port,
        };
        let settings = UpstreamSettings {
            name: "app".into(),
            servers: [1, 2, 3].map(server).to_vec(),
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            health: None,
            tls: UpstreamTls::default(),
        };
        let mut cluster = Cluster::new(settings).unwrap();
        cluster.started -= Duration::from_millis(started_ms);
        cluster
    }

    #[tokio::test]
    async fn a_server_that_is_found_bad_comes_after_those_that_failed() {
        let cluster = three(1000);
        let [one, two, three] = &cluster.servers[..] else {
            panic!("{cluster:?}");
        };
        let order = || -> Vec<u64> { cluster.candidates().iter().map(|s| s.id - one.id).collect() };
        one.down_until_ms.store(90_000, Ordering::Relaxed);
        two.healthy.store(false, Ordering::Relaxed);
        three.down_until_ms.store(80_000, Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(order(), [2, 0, 1]);
        }
    }

    #[tokio::test]
    async fn a_failure_is_not_forgiven_for_an_older_request() {
        let cluster = three(1000);
        let [server, ..] = &cluster.servers[..] else {
            panic!("{cluster:?}");
        };
        let mark = || server.down_until_ms.load(Ordering::Relaxed);
        let when_it_was_asked = mark();
        server.down_until_ms.store(90_000, Ordering::Relaxed);
        server.forgive(when_it_was_asked);
        assert_eq!(mark(), 90_000);
        server.forgive(80_000);
        assert_eq!(mark(), 90_000, "it failed again");
        server.forgive(90_000);
        assert!(mark() == 0 && server.is_up(cluster.now_ms()));
    }

    #[tokio::test]
    async fn a_name_without_a_living_address_says_why() {
        let refused = connect_tcp("127.0.0.1", 1).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_unix_socket_with_a_full_queue_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queue = Vec::new();
        while let Ok(waiting) = UnixStream::connect(&path).await {
            queue.push(waiting);
        }
        let mut late = std::pin::pin!(connect_unix(&path));
        let early = timeout(QUEUE_PAUSE * 3, &mut late).await;
        assert!(early.is_err(), "there was room after {}", queue.len());
        listener.accept().await.unwrap();
        late.await.unwrap();
    }
}
