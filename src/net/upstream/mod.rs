//! The way to the apps: pooled connections, several servers, their health.
//!
//! A request is sent again only when no write of it succeeded, so that no delivery is doubled; one whose method is
//! safe also when a kept connection closed without an answer.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::Response;
use rustix::io::Errno;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connect::{connect_any, connect_unix};
use super::limit_unsent;
use super::resolve;
use crate::clock;
use crate::gateway::forward::{Exchange, Unread, Upstream, UpstreamBody, UpstreamError};
use crate::gateway::outgoing::Outgoing;
use crate::settings::{HealthCheck, ServerAddress, UpstreamSettings};
use crate::telemetry::metrics::Metrics;

mod answer;
mod head;
mod health;
mod pool;
mod sending;
mod stream;
mod tls;
mod wire;

use answer::Rest;
use health::{Health, PASSIVE_DOWN};
use pool::take_idle;
use stream::Stream;
use tls::{LazyTls, tls_trouble};
use wire::{Answered, Connection, Failure};

/// Bytes of the answer to a health check that are read.
const PROBE_BODY_MAX: usize = 64 << 10;

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
    address: Arc<ServerAddress>,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    keeps_connections: bool,
    health: Arc<Health>,
    /// Whether it has closed a kept connection in the place of an answer: from then on the kernel is asked before one
    /// is used again, which costs a system call that others need not pay.
    closes_kept: AtomicBool,
}

/// The servers in the order in which a request tries them.
struct Candidates<'a> {
    servers: Vec<&'a Server>,
    /// Whether the first one has failed, and this request alone finds out whether it still does.
    is_trial: bool,
}

/// Ids of servers, never used twice in a process: the keys of the pools.
static NEXT_SERVER_ID: AtomicU64 = AtomicU64::new(0);

impl Cluster {
    /// Builds the servers of an upstream. What `before` knows of the health of the same servers is taken over, unless
    /// the health check is another one.
    pub fn new(settings: UpstreamSettings, before: Option<&Self>) -> anyhow::Result<Self> {
        let before = before.filter(|before| before.settings.health == settings.health);
        let known =
            |address: &ServerAddress| before?.servers.iter().find(|old| *old.address == *address);
        let tls = LazyTls::default();
        let server = |address| Server::new(address, &settings, &tls, known(address));
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

    /// Shows from now on on the metrics page whether its servers answer.
    pub fn show_on(&self, metrics: &Metrics) {
        for Server {
            address, health, ..
        } in &self.servers
        {
            let gauge = metrics.upstream_server(&self.settings.name, &address.to_string());
            health.show_on(Some(gauge));
        }
    }

    /// No longer does.
    pub fn hide(&self) {
        for Server { health, .. } in &self.servers {
            health.show_on(None);
        }
    }

    /// Checks the health of the servers until `closed`. Returns at once when no check is configured.
    pub async fn watch(self: Arc<Self>, closed: CancellationToken) {
        let Some(check) = self.settings.health.clone() else {
            return;
        };
        // Each server is checked at its own pace, because one that hangs must not delay the others.
        let watches = self.servers.iter().map(|server| async {
            loop {
                let begun = Instant::now();
                let found = probe(server, &check, self.settings.connect_timeout).await;
                if !found.as_ref().is_err_and(is_ours) {
                    server
                        .health
                        .note_check(&self.settings.name, &server.address, found);
                }
                sleep_until(begun + check.interval).await;
            }
        });
        tokio::select! {
            () = closed.cancelled() => {}
            _ = join_all(watches) => {}
        }
    }

    /// Servers in the order to try: one whose time after a failure has passed, where no other request tries it; good
    /// ones round robin; then those that failed lately, longest ago first; then those that fail the health check.
    /// `trial` is how long one of them can take to answer.
    fn candidates(&self, trial: Duration) -> Candidates<'_> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let now_ms = self.now_ms();
        let (mut servers, mut bad): (Vec<_>, Vec<_>) = self
            .servers
            .iter()
            .partition(|server| server.health.is_up());
        // Each kind by itself: the good neighbour of a bad one must not get the share of both.
        for servers in [&mut servers, &mut bad] {
            let count = servers.len().max(1);
            servers.rotate_left(turn % count);
        }
        bad.sort_by_cached_key(|Server { health, .. }| {
            (!health.is_healthy(), health.down_until_ms().max(now_ms))
        });
        // Where none is good, all requests ask those that failed anyway.
        let tried = if servers.is_empty() {
            None
        } else {
            bad.iter()
                .position(|server| server.health.begins_trial(now_ms, trial))
        };
        if let Some(place) = tried {
            servers.insert(0, bad.remove(place));
        }
        servers.append(&mut bad);
        Candidates {
            servers,
            is_trial: tried.is_some(),
        }
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
        let name = &*self.settings.name;
        if let [server] = self.servers.as_slice() {
            let asked = self.ask(server, request, wait).await;
            match &asked {
                Ok(Ok(_)) => server.health.note_answer(name, &server.address),
                Err(UpstreamError::Exhausted(_)) => {}
                Ok(Err(_)) | Err(_) => server.health.note_failure(),
            }
            return asked?.map_err(UpstreamError::Unreachable);
        }
        let mut refusal = String::from("it has no servers");
        let Candidates {
            servers,
            mut is_trial,
        } = self.candidates(wait.saturating_add(self.settings.connect_timeout));
        for server in servers {
            let Server {
                health, address, ..
            } = server;
            // Only a failure that was there when this request began is forgiven.
            let mark = health.down_until_ms();
            let lost_before = health.lost_trials();
            let asked = self.ask(server, request, wait).await;
            match &asked {
                Ok(Ok(_)) => {
                    health.note_answer(name, address);
                    health.forgive(mark);
                }
                // Nothing was lost by it, and a server that is only restarted is to be back soon.
                Ok(Err(why)) => {
                    health.note_passed_over(name, address, why);
                    health.is_down_for(PASSIVE_DOWN, self.now_ms());
                }
                Err(UpstreamError::Exhausted(_)) => {}
                Err(_) => {
                    health.note_failure();
                    if is_trial {
                        health.count_lost_trial(lost_before);
                    }
                    health.is_down_for(health.time_off(), self.now_ms());
                }
            }
            is_trial = false;
            match asked? {
                Ok(response) => return Ok(response),
                Err(why) => refusal = why,
            }
        }
        // All failed, so none is worse than another: the first one to come back must not get all the load.
        for Server { health, .. } in &self.servers {
            health.forgive(health.down_until_ms());
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
        let (begun, mut wait) = (clock::now(), wait);
        while let Some(connection) = take_idle(server.id) {
            match send(server, connection, request, wait).await? {
                Ok(response) => return Ok(Ok(response)),
                Err(Unanswered::NotTaken) => {}
                // Once, and not over another connection that may be closing too.
                Err(Unanswered::Lost) => {
                    wait = wait.saturating_sub(clock::now().saturating_duration_since(begun));
                    break;
                }
            }
        }
        let connect_timeout = self.settings.connect_timeout;
        let refusal = match Box::pin(server.connect(connect_timeout)).await {
            Ok(connection) => match send(server, connection, request, wait).await? {
                Ok(response) => return Ok(Ok(response)),
                Err(_) => format!("{}: closed at once", server.address),
            },
            Err(error) if is_ours(&error) => {
                let exhausted = UpstreamError::Exhausted(format!("{error:#}"));
                return Err(exhausted.of(&server.address));
            }
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
            if !self.settings.keepalive {
                request.head.ends_connection();
            }
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

/// Whether this process has run out of descriptors or the system of memory: no server is at fault (SECURITY DS-09).
fn is_ours(error: &anyhow::Error) -> bool {
    const ALL: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
    causes.any(|cause: &io::Error| {
        let code = cause.raw_os_error();
        code.is_some_and(|code| ALL.map(Errno::raw_os_error).contains(&code))
    })
}

/// Why a request that got no answer may be sent again.
enum Unanswered {
    /// The connection closed before any of it was written.
    NotTaken,
    /// The connection closed instead of an answer, and the method is safe.
    Lost,
}

/// Sends a request over a connection.
async fn send(
    server: &Server,
    connection: Connection,
    request: &mut Outgoing,
    wait: Duration,
) -> Result<Result<Response<UpstreamBody>, Unanswered>, UpstreamError> {
    let asks_kernel = server.closes_kept.load(Ordering::Relaxed);
    match connection.exchange(request, wait, asks_kernel).await {
        Ok(Answered {
            mut head,
            mut rest,
            is_sent,
        }) => {
            rest.is_reusable &= server.keeps_connections;
            if !is_sent {
                head.extensions_mut().insert(Unread);
            }
            let body = pool::body(server.id, &server.address, rest, wait);
            Ok(Ok(head.map(|()| body)))
        }
        Err(Failure::NotTaken) => Ok(Err(Unanswered::NotTaken)),
        Err(Failure::Lost(error)) => {
            server.closes_kept.store(true, Ordering::Relaxed);
            // RFC 9110 9.2.2: only what is safe may be sent twice.
            if request.method.is_safe() {
                return Ok(Err(Unanswered::Lost));
            }
            Err(error.of(&server.address))
        }
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
        settings: &UpstreamSettings,
        lazy: &LazyTls,
        known: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let tls = &settings.tls;
        let tls = match address {
            ServerAddress::Https { host, .. } => {
                let name = tls.server_name.as_ref().unwrap_or(host).clone();
                Some((ServerName::try_from(name)?, lazy.get(tls)?))
            }
            ServerAddress::Http { .. } | ServerAddress::Unix(_) => None,
        };
        Ok(Self {
            id: NEXT_SERVER_ID.fetch_add(1, Ordering::Relaxed),
            address: Arc::new(address.clone()),
            tls,
            keeps_connections: settings.keepalive,
            // One for both: what requests that are still under way find out counts as well.
            health: known
                .map(|known| Arc::clone(&known.health))
                .unwrap_or_default(),
            closes_kept: AtomicBool::new(
                known.is_some_and(|known| known.closes_kept.load(Ordering::Relaxed)),
            ),
        })
    }

    /// A new connection within `limit`; the error says what took longer.
    async fn connect(&self, limit: Duration) -> anyhow::Result<Connection> {
        let deadline = clock::now() + limit;
        let found = match &*self.address {
            ServerAddress::Unix(_) => Vec::new(),
            ServerAddress::Http { host, port } | ServerAddress::Https { host, port } => {
                let patience = resolve::PATIENCE.min(limit / 2);
                let found = resolve::addresses(host, *port, patience);
                let found = timeout_at(deadline, found).await;
                found.map_err(|_elapsed| {
                    anyhow::anyhow!("the resolver does not answer for its name")
                })??
            }
        };
        let connected = timeout_at(deadline, self.connect_to(&found)).await;
        connected.map_err(|_elapsed| anyhow::anyhow!("connect timeout"))?
    }

    async fn connect_to(&self, addresses: &[SocketAddr]) -> anyhow::Result<Connection> {
        let stream = match &*self.address {
            ServerAddress::Unix(path) => Stream::Unix(connect_unix(path).await?),
            ServerAddress::Http { .. } | ServerAddress::Https { .. } => {
                let stream = connect_any(addresses).await?;
                stream.set_nodelay(true)?;
                limit_unsent(&stream);
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
    let deadline = clock::now() + check.interval;
    let status = match connection
        .exchange(&mut request, check.interval, false)
        .await
    {
        Ok(answered) => {
            // To close while the app still writes would reset its connection.
            timeout_at(deadline, read_off(answered.rest)).await.ok();
            answered.head.status()
        }
        Err(Failure::NotTaken) => anyhow::bail!("it closed the connection at once"),
        Err(Failure::Late) => anyhow::bail!("no answer within {:?}", check.interval),
        Err(Failure::Lost(error) | Failure::Gone(error)) => return Err(error.into()),
    };
    anyhow::ensure!(
        status.is_success() || status.is_redirection(),
        "it answered {status}"
    );
    Ok(())
}

/// Reads the body of an answer that nobody wants to its end, unless it is large.
async fn read_off(mut rest: Rest) {
    let mut left = PROBE_BODY_MAX;
    while let Some(Ok(part)) = poll_fn(|cx| rest.poll_data(cx)).await
        && left > part.len()
    {
        left -= part.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::UpstreamTls;

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
            keepalive: true,
            health: None,
            tls: UpstreamTls::default(),
        }
    }

    /// The numbers of the servers in the order in which the next request tries them.
    fn order_of(cluster: &Cluster) -> Vec<u64> {
        let first = cluster.servers[0].id;
        let candidates = cluster.candidates(PASSIVE_DOWN).servers;
        candidates.iter().map(|server| server.id - first).collect()
    }

    /// What is known of each server: whether it is healthy, and until when it is left alone.
    fn known_of(cluster: &Cluster) -> Vec<(bool, u64)> {
        let known = |Server { health, .. }: &Server| (health.is_healthy(), health.down_until_ms());
        cluster.servers.iter().map(known).collect()
    }

    #[tokio::test]
    async fn what_is_known_of_servers_outlives_their_settings() {
        let mut before = three(1000);
        before.servers[0].health = Arc::new(Health::found(false, 0));
        before.servers[2].health = Arc::new(Health::found(true, 9000));
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
        let mut cluster = three(1000);
        cluster.servers[0].health = Arc::new(Health::found(true, 90_000));
        cluster.servers[1].health = Arc::new(Health::found(false, 0));
        cluster.servers[2].health = Arc::new(Health::found(true, 80_000));
        for _ in 0..3 {
            assert_eq!(order_of(&cluster), [2, 0, 1]);
        }
    }

    #[tokio::test]
    async fn one_request_tries_a_server_whose_time_off_has_passed() {
        // SECURITY U-17
        let mut cluster = three(1000);
        cluster.servers[1].health = Arc::new(Health::found(true, 500));
        let failed = &cluster.servers[1];
        let trial = Duration::from_secs(30);
        let tried = cluster.candidates(trial);
        assert!(tried.is_trial && tried.servers[0].id == failed.id);
        for _ in 0..6 {
            let others = cluster.candidates(trial);
            assert!(!others.is_trial && others.servers[2].id == failed.id);
        }
        let mark = failed.health.down_until_ms();
        assert!(mark >= 31_000, "as long as it can take: {mark}");
        failed.health.forgive(mark);
        assert!(failed.health.is_up());
    }

    #[tokio::test]
    async fn the_share_of_a_bad_server_goes_to_all_others_alike() {
        // SECURITY U-17
        let mut cluster = three(1000);
        cluster.servers[0].health = Arc::new(Health::found(true, 90_000));
        let first: Vec<u64> = (0..6).map(|_| order_of(&cluster)[0]).collect();
        assert_eq!(first, [1, 2, 1, 2, 1, 2]);
    }

    #[tokio::test]
    async fn where_no_server_is_good_none_is_on_trial() {
        // SECURITY U-17
        let mut cluster = three(1000);
        for server in &mut cluster.servers {
            server.health = Arc::new(Health::found(true, 500));
        }
        let first: Vec<u64> = (0..3).map(|_| order_of(&cluster)[0]).collect();
        assert_eq!(first, [0, 1, 2], "they share the work");
        assert!(!cluster.candidates(PASSIVE_DOWN).is_trial);
    }
}
