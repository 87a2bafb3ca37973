//! The way to the apps: pooled connections, several servers, their health.
//!
//! A request is sent again only when no write of it succeeded, so that no delivery is doubled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::Response;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connect::{connect_any, connect_unix};
use super::resolve;
use crate::clock;
use crate::gateway::forward::{Exchange, Unread, Upstream, UpstreamBody, UpstreamError};
use crate::gateway::outgoing::Outgoing;
use crate::settings::{HealthCheck, ServerAddress, UpstreamSettings, UpstreamTls};

mod answer;
mod head;
mod pool;
mod sending;
mod stream;
mod tls;
mod wire;

use pool::take_idle;
use stream::Stream;
use tls::{LazyTls, tls_trouble};
use wire::{Answered, Connection, Failure};

/// Bytes that the system keeps for an app beyond what is on its way. With the usual megabytes, a slow app would seem
/// to stand still until it has read a third of them.
const UNSENT_BYTES: u32 = 128 << 10;
/// How long a server that gave no answer is asked last, when there are others.
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
    /// Until when a failure counts against it, in milliseconds after `Cluster::started`; 0 for none.
    down_until_ms: AtomicU64,
}

/// Ids of servers, never used twice in a process: the keys of the pools.
static NEXT_SERVER_ID: AtomicU64 = AtomicU64::new(0);

impl Cluster {
    /// Builds the servers of an upstream. What `before` knows of the health of the same servers is taken over, unless
    /// the health check is another one.
    pub fn new(settings: UpstreamSettings, before: Option<&Self>) -> anyhow::Result<Self> {
        let before = before.filter(|before| before.settings.health == settings.health);
        let known =
            |address: &ServerAddress| before?.servers.iter().find(|old| old.address == *address);
        let tls = LazyTls::default();
        let server = |address| Server::new(address, &settings.tls, &tls, known(address));
        let servers = settings.servers.iter().map(server);
        let servers = servers.collect::<anyhow::Result<_>>()?;
        Ok(Self {
            settings,
            servers,
            next: AtomicUsize::new(0),
            // What is taken over is in milliseconds after this.
            started: before.map_or_else(Instant::now, |before| before.started),
        })
    }

    /// What it was built from; a reload keeps a cluster whose settings did not change.
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Checks the health of the servers until `closed`. Returns at once when no check is configured.
    pub async fn watch(self: Arc<Self>, closed: CancellationToken) {
        let Some(check) = self.settings.health.clone() else {
            return;
        };
        // Each server is checked at its own pace, because one that hangs must not delay the others.
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

    /// Servers in the order to try: healthy ones round robin; then those that failed lately, longest ago first; then
    /// those that fail the health check.
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
            // Only a failure that was there when this request began is forgiven.
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
        // All failed, so none is worse than another: the first one to come back must not get all the load.
        for server in &self.servers {
            server.forgive(server.down_until_ms.load(Ordering::Relaxed));
        }
        Err(UpstreamError::Unreachable(refusal))
    }

    /// Asks one server, over a pooled connection or over a new one.
    async fn ask(
        &self,
        server: &Server,
        request: &mut Outgoing,
        wait: Duration,
    ) -> Result<Attempt, UpstreamError> {
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

/// What asking a server gave: its answer, or why nothing was sent.
type Attempt = Result<Response<UpstreamBody>, String>;

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

/// Sends a request over a connection; `None` when that closed before any of it was written.
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
            let body = pool::body(server.id, rest, wait);
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

impl Server {
    fn new(
        address: &ServerAddress,
        tls: &UpstreamTls,
        lazy: &LazyTls,
        known: Option<&Self>,
    ) -> anyhow::Result<Self> {
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
            healthy: AtomicBool::new(
                known.is_none_or(|known| known.healthy.load(Ordering::Relaxed)),
            ),
            down_until_ms: AtomicU64::new(
                known.map_or(0, |known| known.down_until_ms.load(Ordering::Relaxed)),
            ),
        })
    }

    /// Remembers what a check found, and logs it when it has changed.
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

    /// Forgets the failure at `mark`, if there was no other since. Mostly there is none: then nothing is written,
    /// because all workers read it.
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
                // A system without this option is no error: the app then seems to take more than it does.
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

/// One active health check; any answer from 200 to 399 means healthy.
async fn probe(
    server: &Server,
    check: &HealthCheck,
    connect_timeout: Duration,
) -> anyhow::Result<()> {
    let connection = server.connect(connect_timeout).await?;
    let host = server.address.authority().parse()?;
    let mut request = Outgoing::probe(&host, check.path.parse()?);
    let status = match connection.exchange(&mut request, check.interval).await {
        Ok(answered) => answered.head.status(),
        Err(Failure::NotTaken) => anyhow::bail!("it closed the connection at once"),
        Err(Failure::Late) => anyhow::bail!("no answer within {:?}", check.interval),
        Err(Failure::Gone(error)) => return Err(error.into()),
    };
    anyhow::ensure!(
        status.is_success() || status.is_redirection(),
        "it answered {status}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three servers, `started` ms before now.
    fn three(started_ms: u64) -> Cluster {
        let mut cluster = Cluster::new(settings_of_three(), None).unwrap();
        cluster.started -= Duration::from_millis(started_ms);
        cluster
    }

    fn settings_of_three() -> UpstreamSettings {
        let server = |port| ServerAddress::Http {
            host: "127.0.0.1".to_owned(),
            port,
        };
        UpstreamSettings {
            name: "app".into(),
            servers: [1, 2, 3].map(server).to_vec(),
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            health: None,
            tls: UpstreamTls::default(),
        }
    }

    /// What is known of each server: whether it is healthy, and until when it is left alone.
    fn known_of(cluster: &Cluster) -> Vec<(bool, u64)> {
        let known = |server: &Server| {
            (
                server.healthy.load(Ordering::Relaxed),
                server.down_until_ms.load(Ordering::Relaxed),
            )
        };
        cluster.servers.iter().map(known).collect()
    }

    #[tokio::test]
    async fn what_is_known_of_servers_outlives_their_settings() {
        let before = three(1000);
        before.servers[0].healthy.store(false, Ordering::Relaxed);
        before.servers[2]
            .down_until_ms
            .store(9000, Ordering::Relaxed);
        let mut settings = settings_of_three();
        settings.timeout *= 2;
        settings.servers.swap(0, 2);
        settings.servers[1] = ServerAddress::Unix("/run/app.sock".into());
        let after = Cluster::new(settings.clone(), Some(&before)).unwrap();
        assert_eq!(known_of(&after), [(true, 9000), (true, 0), (false, 0)]);
        assert_eq!(after.started, before.started);
        // Another check may find something else.
        settings.health = Some(HealthCheck {
            path: "/health".into(),
            interval: Duration::from_secs(1),
        });
        let after = Cluster::new(settings, Some(&before)).unwrap();
        assert_eq!(known_of(&after), [(true, 0); 3]);
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
}
