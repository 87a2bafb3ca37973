//! The composition root: a configuration becomes running workers, and reloads and drains them.
//!
//! One thread with a runtime of its own per core serves requests; the main thread does all the
//! rest: signals, reloads, health checks, the admin listener.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState, Readiness};
use crate::clock::Clock;
use crate::config::Config;
use crate::gateway::echo::Echo;
use crate::gateway::forward::Upstream;
use crate::gateway::quota::Limiters;
use crate::gateway::snapshot::{CredentialFields, ListenerPolicy, RouteState, Snapshot};
use crate::gateway::{Gateway, lease};
use crate::net::listener::{Connections, Endpoint, Worker, accept, bind};
use crate::net::tls::TlsAcceptor;
use crate::net::upstream::Cluster;
use crate::reload::Reloader;
use crate::route::policy::QuotaKey;
use crate::route::{Route, UpstreamRef};
use crate::settings::{Limits, ListenerSettings, Transport};
use crate::store::ReplayStore;
use crate::telemetry::Telemetry;

/// Target of what is said at start, whatever `RUST_LOG` holds: where it listens, and that it serves.
pub const START: &str = "hookward::start";
/// How often maps that only grow are swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Time for the last answers to leave after the drain deadline.
const CUTOFF_TIME: Duration = Duration::from_secs(1);

/// A listener and where it was bound.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Its address, with the port that port 0 became.
    pub address: SocketAddr,
}

/// Serves `config` until a signal ends it. `reloader` says when to load it anew, and from where;
/// `ready` is called once, when everything is bound and requests are served.
pub fn run(
    config: Config,
    reloader: Reloader,
    telemetry: Telemetry,
    ready: impl FnOnce(&[Bound]),
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut server = Server::start(config, telemetry)?;
        tracing::info!(target: START, "ready");
        ready(&server.bound());
        let result = server.supervise(reloader).await;
        server.drain().await;
        result
    })
}

/// Everything that runs.
struct Server {
    gateway: Arc<Gateway>,
    living: Living,
    endpoints: HashMap<Arc<str>, Running>,
    workers: Vec<WorkerHandle>,
    admin: Arc<AdminState>,
    admin_closed: CancellationToken,
    drain: CancellationToken,
    limits: Limits,
}

/// What a reload keeps where its settings did not change.
struct Living {
    clusters: HashMap<Arc<str>, (Arc<Cluster>, CancellationToken)>,
    limiters: Limiters,
    telemetry: Telemetry,
}

/// A listener at work.
struct Running {
    settings: ListenerSettings,
    address: SocketAddr,
    endpoint: Arc<Endpoint>,
}

/// A thread that serves requests.
struct WorkerHandle {
    listen: mpsc::UnboundedSender<(std::net::TcpListener, Arc<Endpoint>)>,
    finished: oneshot::Receiver<()>,
}

impl Server {
    fn start(config: Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let mut living =
            Living { clusters: HashMap::new(), limiters: Limiters::new(clock.clone()), telemetry: telemetry.clone() };
        let Config { admin: admin_address, listeners, limits, upstreams, routes, .. } = config;
        living.keep_clusters(upstreams)?;
        let snapshot = living.snapshot(routes, limits.clone(), &listeners)?;
        let replay = ReplayStore::memory(clock.clone());
        let gateway = Arc::new(Gateway::new(snapshot, replay, telemetry.clone(), clock)?);
        let drain = CancellationToken::new();
        let admin = Arc::new(AdminState::new(telemetry));
        let workers = start_workers(&gateway, &drain)?;
        let mut server = Self {
            gateway,
            living,
            endpoints: HashMap::new(),
            workers,
            admin: Arc::clone(&admin),
            admin_closed: CancellationToken::new(),
            drain,
            limits,
        };
        let plan = server.plan(listeners)?;
        server.apply(plan);
        if let Some(address) = admin_address {
            let listener = bind(address).with_context(|| format!("cannot listen on {address}"))?;
            let address = listener.local_addr()?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(admin::serve(listener, admin, server.admin_closed.clone()));
            tracing::info!(target: START, listener = "admin", %address, "listening");
        }
        server.admin.set(Readiness::Ready);
        Ok(server)
    }

    /// Where requests are served.
    fn bound(&self) -> Vec<Bound> {
        let bound = |(name, running): (&Arc<str>, &Running)| Bound {
            listener: Arc::clone(name),
            address: running.address,
        };
        self.endpoints.iter().map(bound).collect()
    }

    /// Reloads, sweeps and waits for the signal to stop.
    async fn supervise(&mut self, mut reloader: Reloader) -> anyhow::Result<()> {
        let mut stop = Stop::listen()?;
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                signal = stop.next() => {
                    tracing::info!(signal, "draining");
                    break;
                }
                _ = sweep.tick() => self.living.limiters.sweep(),
                config = reloader.next() => match config.and_then(|config| self.reload(config)) {
                    Ok(()) => {
                        self.living.telemetry.metrics.config_reload(true);
                        tracing::info!("configuration reloaded");
                    }
                    Err(error) => {
                        self.living.telemetry.metrics.config_reload(false);
                        tracing::error!("configuration not reloaded, the last good one serves on: {error:#}");
                    }
                },
            }
        }
        self.admin.set(Readiness::Draining);
        tokio::select! {
            () = sleep(self.limits.drain_delay) => {}
            _ = stop.next() => return Ok(()),
        }
        for running in self.endpoints.values() {
            running.endpoint.closed.cancel();
        }
        self.drain.cancel();
        let finished = self.workers.drain(..).map(|worker| worker.finished).collect::<Vec<_>>();
        let drained = async {
            for worker in finished {
                // A worker that panicked has nothing left to wait for.
                drop(worker.await);
            }
            self.gateway.drain().await;
        };
        tokio::select! {
            () = drained => tracing::info!("drained"),
            _ = stop.next() => tracing::warn!("second signal: stopping now"),
            () = self.cut_off_when_overdue() => tracing::warn!("drain deadline: stopping now"),
        }
        Ok(())
    }

    async fn cut_off_when_overdue(&self) {
        sleep(self.limits.drain_timeout).await;
        self.gateway.cut_off();
        sleep(CUTOFF_TIME).await;
    }

    async fn drain(&self) {
        self.admin_closed.cancel();
        for (_, closed) in self.living.clusters.values() {
            closed.cancel();
        }
        // Lets the admin listener and the health checks take notice.
        drop(timeout(Duration::from_millis(10), std::future::pending::<()>()).await);
    }

    /// Puts a new configuration into force as a whole: everything that can fail comes first.
    fn reload(&mut self, config: Config) -> anyhow::Result<()> {
        let Config { listeners, limits, upstreams, routes, .. } = config;
        let plan = self.plan(listeners)?;
        self.living.keep_clusters(upstreams)?;
        let settings: Vec<_> = plan.iter().map(|planned| planned.settings.clone()).collect();
        let snapshot = self.living.snapshot(routes, limits.clone(), &settings)?;
        self.limits = limits;
        self.gateway.swap(snapshot);
        self.apply(plan);
        Ok(())
    }

    /// Builds what the listeners need and binds the new ones; changes nothing that runs.
    fn plan(&self, listeners: Vec<ListenerSettings>) -> anyhow::Result<Vec<Planned>> {
        listeners.into_iter().map(|settings| self.plan_one(settings)).collect()
    }

    fn plan_one(&self, settings: ListenerSettings) -> anyhow::Result<Planned> {
        let running = self.endpoints.get(&settings.name);
        let tls = match &settings.transport {
            Transport::Plaintext(_) => Some(None),
            Transport::Tls(tls) => {
                let same = running.is_some_and(|running| running.settings.transport == settings.transport);
                if same {
                    None
                } else {
                    let acceptor = TlsAcceptor::new(tls)
                        .with_context(|| format!("TLS of listener `{}`", settings.name))?;
                    Some(Some(acceptor))
                }
            }
        };
        let bound = running.is_some_and(|running| running.settings.address == settings.address);
        let mut sockets = Vec::new();
        if !bound {
            let mut address = settings.address;
            for _ in &self.workers {
                let context = || format!("listener `{}` cannot listen on {address}", settings.name);
                let socket = bind(address).with_context(context)?;
                address = socket.local_addr()?;
                sockets.push(socket);
            }
        }
        Ok(Planned { settings, tls, sockets })
    }

    fn apply(&mut self, plan: Vec<Planned>) {
        let mut before = std::mem::take(&mut self.endpoints);
        for Planned { settings, tls, sockets } in plan {
            let name = Arc::clone(&settings.name);
            let kept = before.remove(&name).filter(|_| sockets.is_empty());
            let running = match kept {
                Some(running) => {
                    if let Some(tls) = tls {
                        running.endpoint.tls.store(Arc::new(tls));
                    }
                    Running { settings, ..running }
                }
                None => self.open(settings, tls.flatten(), sockets),
            };
            self.note_expiries(&running.endpoint);
            self.endpoints.insert(name, running);
        }
        for running in before.into_values() {
            running.endpoint.closed.cancel();
        }
    }

    fn open(
        &self,
        settings: ListenerSettings,
        tls: Option<TlsAcceptor>,
        sockets: Vec<std::net::TcpListener>,
    ) -> Running {
        let address = sockets.first().and_then(|socket| socket.local_addr().ok());
        let address = address.unwrap_or(settings.address);
        let endpoint = Arc::new(Endpoint {
            name: Arc::clone(&settings.name),
            tls: ArcSwap::from_pointee(tls),
            closed: CancellationToken::new(),
        });
        for (worker, socket) in self.workers.iter().zip(sockets) {
            // A worker only stops listening for work when the program ends.
            drop(worker.listen.send((socket, Arc::clone(&endpoint))));
        }
        tracing::info!(target: START, listener = &*settings.name, %address, "listening");
        Running { settings, address, endpoint }
    }

    fn note_expiries(&self, endpoint: &Endpoint) {
        if let Some(tls) = endpoint.tls.load().as_ref() {
            for expiry in tls.expiries() {
                let metrics = &self.living.telemetry.metrics;
                metrics.certificate_not_after(&expiry.name, expiry.not_after);
            }
        }
    }
}

/// A listener that is ready to go into force.
struct Planned {
    settings: ListenerSettings,
    /// New TLS; outer `None` keeps the one that runs.
    tls: Option<Option<TlsAcceptor>>,
    /// New sockets, one per worker; empty when the ones that run are kept.
    sockets: Vec<std::net::TcpListener>,
}

impl Living {
    /// Builds the upstreams, keeping those whose settings did not change.
    fn keep_clusters(
        &mut self,
        upstreams: Vec<crate::settings::UpstreamSettings>,
    ) -> anyhow::Result<()> {
        let mut next = HashMap::new();
        for settings in upstreams {
            let name = Arc::clone(&settings.name);
            let kept = self.clusters.get(&name);
            let entry = match kept.filter(|(cluster, _)| *cluster.settings() == settings) {
                Some((cluster, closed)) => (Arc::clone(cluster), closed.clone()),
                None => {
                    let cluster = Cluster::new(settings)
                        .with_context(|| format!("upstream `{name}`"))?;
                    (Arc::new(cluster), CancellationToken::new())
                }
            };
            next.insert(name, entry);
        }
        for (name, (cluster, closed)) in &next {
            let is_new = self.clusters.get(name).is_none_or(|(old, _)| !Arc::ptr_eq(old, cluster));
            if is_new {
                tokio::spawn(Arc::clone(cluster).watch(closed.clone()));
            }
        }
        for (name, (cluster, closed)) in std::mem::replace(&mut self.clusters, next) {
            let is_gone =
                self.clusters.get(&name).is_none_or(|(new, _)| !Arc::ptr_eq(new, &cluster));
            if is_gone {
                closed.cancel();
            }
        }
        Ok(())
    }

    fn snapshot(
        &mut self,
        routes: crate::route::matcher::RouteTable,
        limits: Limits,
        listeners: &[ListenerSettings],
    ) -> anyhow::Result<Snapshot> {
        let states = routes
            .routes()
            .iter()
            .map(|route| self.state(route))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let policies = listeners
            .iter()
            .map(|listener| {
                let plaintext = match &listener.transport {
                    Transport::Plaintext(plaintext) => Some(*plaintext),
                    Transport::Tls(_) => None,
                };
                let policy = ListenerPolicy {
                    plaintext,
                    public_origin: listener.public_url.as_ref().map(|url| url.origin().into()),
                    trusted_proxies: listener.trusted_proxies.clone(),
                };
                (Arc::clone(&listener.name), policy)
            })
            .collect();
        Ok(Snapshot::new(routes, limits, policies, states))
    }

    fn state(&mut self, route: &Arc<Route>) -> anyhow::Result<RouteState> {
        let metrics = self.telemetry.metrics.route(&route.name, &route.auth.key_ids());
        let mut client_limits = Vec::new();
        let mut route_limits = Vec::new();
        for quota in &route.quotas {
            let limiter = self.limiters.get(&route.name, quota);
            match quota.key {
                QuotaKey::ClientIp => client_limits.push(limiter),
                QuotaKey::Route => route_limits.push(limiter),
            }
        }
        let upstream: Arc<dyn Upstream> = match &route.upstream {
            UpstreamRef::Echo => Arc::new(Echo),
            UpstreamRef::Named(name) => {
                let (cluster, _) = self
                    .clusters
                    .get(name)
                    .with_context(|| format!("route `{}` names no upstream `{name}`", route.name))?;
                Arc::<Cluster>::clone(cluster)
            }
        };
        Ok(RouteState {
            lease: lease(upstream.patience(route.forward.timeout)),
            credentials: CredentialFields::of(&route.auth),
            route: Arc::clone(route),
            metrics,
            client_limits,
            route_limits,
            upstream,
        })
    }
}

fn start_workers(
    gateway: &Arc<Gateway>,
    drain: &CancellationToken,
) -> anyhow::Result<Vec<WorkerHandle>> {
    let count = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let connections = Arc::new(Connections::default());
    (0..count)
        .map(|index| {
            let worker = Worker {
                gateway: Arc::clone(gateway),
                connections: Arc::clone(&connections),
                tasks: TaskTracker::new(),
                drain: drain.clone(),
            };
            start_worker(index, worker)
        })
        .collect()
}

fn start_worker(index: usize, worker: Worker) -> anyhow::Result<WorkerHandle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (listen, mut listeners) =
        mpsc::unbounded_channel::<(std::net::TcpListener, Arc<Endpoint>)>();
    let (done, finished) = oneshot::channel();
    let serve = async move {
        loop {
            tokio::select! {
                () = worker.drain.cancelled() => break,
                next = listeners.recv() => match next {
                    None => break,
                    Some((socket, endpoint)) => match tokio::net::TcpListener::from_std(socket) {
                        Ok(listener) => {
                            tokio::spawn(accept(listener, endpoint, worker.clone()));
                        }
                        Err(error) => tracing::error!(%error, "a socket cannot be listened on"),
                    },
                },
            }
        }
        worker.tasks.close();
        worker.tasks.wait().await;
        worker.gateway.drain().await;
        // The main thread may have stopped waiting.
        done.send(()).ok();
    };
    thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || runtime.block_on(serve))
        .context("cannot start a worker thread")?;
    Ok(WorkerHandle { listen, finished })
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
