//! The composition root: a configuration becomes running workers, and reloads and drains them.
//!
//! One thread with a runtime of its own per core serves requests; the main thread does all the
//! rest: signals, reloads, health checks, the admin listener.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::admin::{AdminState, Readiness};
use crate::cgroup::memory_limit;
use crate::clock::{Clock, Steps};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::net::acme::Keeping;
use crate::net::http::Shutdown;
use crate::net::key_fetch::HttpsFetch;
use crate::net::listener::LEAVE_TIME;
use crate::net::trust::system_roots;
use crate::reload::Reloader;
use crate::route::matcher::RouteTable;
use crate::route::policy::Mode;
use crate::settings::Limits;
use crate::systemd::{ServiceManager, State};
use crate::telemetry::Telemetry;

mod admin;
mod ends;
mod kept;
mod listeners;
mod stop;
mod workers;

use admin::AdminListener;
use ends::Ends;
use kept::Kept;
use listeners::{Running, policies};
use stop::Stop;
use workers::{Order, WorkerHandle, start_workers};

/// How often expired entries of maps are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// The end of `drain_timeout` in which the last answers leave: a tenth of it, at most this.
const CUTOFF_TIME: Duration = Duration::from_secs(1);
/// Target of the messages that are logged whatever `RUST_LOG` says: where the program listens, and that it is ready.
pub const START: &str = "hookward::start";

/// A listener and the address that it is bound to.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Its address, with the port that the system chose for port 0.
    pub address: SocketAddr,
}

/// The main thread's runtime, and the signals that it receives from when it is made: made before anything that takes
/// time, so that one that comes early does not kill the process.
#[derive(Debug)]
pub struct Main {
    runtime: Runtime,
    stop: Stop,
    hangup: Signal,
}

impl Main {
    /// Begins to receive signals. Starts no thread.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let within = runtime.enter();
        let (stop, hangup) = (Stop::listen()?, signal(SignalKind::hangup())?);
        drop(within);
        Ok(Self {
            runtime,
            stop,
            hangup,
        })
    }
}

/// Serves `config` until a signal ends it. `reloader` says when to load it anew, and from where;
/// `manager` is asked for sockets and told how it goes; `ready` is called once, when everything is
/// bound and requests are served.
pub fn run(
    main: Main,
    config: Config,
    mut reloader: Reloader,
    telemetry: Telemetry,
    manager: ServiceManager,
    ready: impl FnOnce(&[Bound]),
) -> anyhow::Result<()> {
    let Main {
        runtime,
        mut stop,
        hangup,
    } = main;
    let result = runtime.block_on(async {
        reloader.listen(hangup);
        note_memory(&config.limits);
        note_root();
        note_observers(&observers(&config.routes));
        let mut server = Server::start(config, telemetry, manager)?;
        tracing::info!(target: START, "ready");
        server.manager.tell(State::Ready);
        ready(&server.bound());
        server.supervise(&mut reloader, &mut stop).await;
        server.close().await;
        Ok(())
    });
    // A configuration that is being loaded must not delay the end.
    runtime.shutdown_background();
    result
}

/// Logs the limits where memory is short, because the defaults are then lower than in the documentation.
fn note_memory(limits: &Limits) {
    let Some(memory) = memory_limit().filter(|memory| Limits::within(*memory) != Limits::default())
    else {
        return;
    };
    let Limits {
        connections,
        requests_in_flight,
        body_memory,
        ..
    } = limits;
    tracing::info!(
        %memory, connections, requests_in_flight, %body_memory,
        "limits within the memory of the control group"
    );
}

fn note_root() {
    if rustix::process::geteuid().is_root() {
        tracing::warn!(
            "it runs as root: give it a user of its own; where it needs a port below 1024, a socket unit or CAP_NET_BIND_SERVICE gives it that"
        );
    }
}

/// Names of the routes that only observe.
fn observers(routes: &RouteTable) -> String {
    let observers = routes.routes().iter();
    let observers = observers.filter(|route| route.mode == Mode::Observe);
    let names: Vec<_> = observers.map(|route| &*route.name).take(20).collect();
    names.join(", ")
}

/// Logs the routes that only observe, so that nobody believes that they refuse.
fn note_observers(routes: &str) {
    if !routes.is_empty() {
        tracing::info!(
            routes,
            "these routes observe: nothing is refused there for who sent it"
        );
    }
}

/// The gateway of `config` without its listeners, for benches and tests, which bring their own requests. Nothing
/// checks its upstreams' health or sweeps its maps.
pub fn gateway(config: Config, telemetry: Telemetry) -> anyhow::Result<Gateway> {
    let clock = Clock::system();
    let mut kept = Kept::new(&telemetry, &clock, &config.limits);
    let clusters = kept.next_clusters(config.upstreams)?;
    let store = kept.next_store(&config.state)?;
    let snapshot = kept.snapshot(
        config.routes,
        config.limits,
        policies(&config.listeners),
        &clusters,
        &store,
    )?;
    let fetch = Arc::new(HttpsFetch::new(system_roots));
    Ok(Gateway::new(snapshot, telemetry, clock, fetch)?)
}

/// Everything that runs.
struct Server {
    gateway: Arc<Gateway>,
    kept: Kept,
    endpoints: HashMap<Arc<str>, Running>,
    workers: Vec<WorkerHandle>,
    admin: Arc<AdminState>,
    admin_listener: Option<AdminListener>,
    shutdown: Shutdown,
    limits: Limits,
    manager: ServiceManager,
    keeping: Keeping,
    issued: mpsc::UnboundedReceiver<()>,
    steps: Steps,
    clock: Clock,
    ends: Ends,
}

impl Server {
    fn start(
        config: Config,
        telemetry: Telemetry,
        manager: ServiceManager,
    ) -> anyhow::Result<Self> {
        let Config {
            admin,
            listeners,
            limits,
            state,
            upstreams,
            routes,
        } = config;
        let clock = Clock::system();
        let mut kept = Kept::new(&telemetry, &clock, &limits);
        let clusters = kept.next_clusters(upstreams)?;
        let store = kept.next_store(&state)?;
        let snapshot = kept.snapshot(
            routes,
            limits.clone(),
            policies(&listeners),
            &clusters,
            &store,
        )?;
        kept.keep_store(state, store);
        let (keeping, issued) = Keeping::new(&telemetry, &clock);
        let fetch = Arc::new(HttpsFetch::new(system_roots));
        let gateway = Gateway::new(snapshot, telemetry.clone(), clock.clone(), fetch)?;
        let gateway = Arc::new(gateway);
        let shutdown = Shutdown::default();
        let workers = start_workers(
            &gateway,
            &keeping.challenges,
            &shutdown,
            kept.unsettled.tasks(),
        )?;
        let mut server = Self {
            gateway,
            kept,
            endpoints: HashMap::new(),
            workers,
            admin: Arc::new(AdminState::new(telemetry)),
            admin_listener: None,
            shutdown,
            limits,
            manager,
            keeping,
            issued,
            steps: Steps::of(clock.clone()),
            clock,
            ends: Ends::default(),
        };
        server.note_ends();
        let plan = server.plan(listeners)?;
        let admin = server.plan_admin(admin)?;
        server.listen(&plan)?;
        server.kept.keep_clusters(clusters);
        server.apply_admin(admin);
        server.apply(plan);
        server.note_unclaimed();
        server.admin.set(Readiness::Ready);
        Ok(server)
    }

    /// Where requests are served.
    fn bound(&self) -> Vec<Bound> {
        let bound = |(name, running): (&Arc<str>, &Running)| Bound {
            listener: Arc::clone(name),
            address: running.endpoint.address,
        };
        self.endpoints.iter().map(bound).collect()
    }

    /// Reloads, sweeps and waits for the signal to stop; then drains.
    async fn supervise(&mut self, reloader: &mut Reloader, stop: &mut Stop) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                signal = stop.next() => {
                    tracing::info!(signal, "draining");
                    break;
                }
                Some(()) = self.issued.recv() => self.show_expiries(),
                _ = sweep.tick() => self.sweep(),
                config = reloader.next() => {
                    self.manager.tell(State::Reloading);
                    let result = config.and_then(|config| self.reload(config));
                    self.manager.tell(State::Ready);
                    if !reloader.ended(&result) {
                        continue;
                    }
                    self.kept.telemetry.metrics.config_reload(result.is_ok());
                    match result {
                        Ok(()) => tracing::info!("configuration reloaded"),
                        Err(error) => tracing::error!(
                            "configuration not reloaded, the last good one serves on: {error:#}"
                        ),
                    }
                }
            }
        }
        self.manager.tell(State::Stopping);
        self.admin.set(Readiness::Draining);
        self.shutdown.announced.cancel();
        tokio::select! {
            () = sleep(self.limits.drain_delay) => self.drain(stop).await,
            _ = stop.next() => tracing::warn!("second signal: stopping now"),
        }
    }

    /// What is done every [`SWEEP_INTERVAL`].
    fn sweep(&mut self) {
        self.kept.limiters.sweep();
        self.ends.look(self.clock.now());
        if let Some(seconds) = self.steps.last() {
            tracing::warn!(
                seconds,
                "the wall clock was set, or the machine slept: signed timestamps are judged by the new time"
            );
        }
    }

    /// Accepts no more connections and finishes the requests under way.
    async fn drain(&mut self, stop: &mut Stop) {
        for running in self.endpoints.values() {
            running.endpoint.closed.cancel();
        }
        let finished = self
            .workers
            .drain(..)
            .map(|worker| worker.finished)
            .collect::<Vec<_>>();
        let drained = async {
            sleep(LEAVE_TIME).await;
            self.shutdown.begun.cancel();
            for worker in finished {
                // This fails when the worker has panicked: there is nothing to wait for.
                drop(worker.await);
            }
            self.gateway.drain().await;
        };
        tokio::select! {
            () = drained => tracing::info!("drained"),
            _ = stop.next() => tracing::warn!("second signal: stopping now"),
            () = self.cut_off_when_overdue() => {
                let (unfinished, unsettled) = (self.gateway.in_flight(), self.kept.unsettled.tasks().len());
                if (unfinished, unsettled) == (0, 0) {
                    tracing::info!("drain deadline: no request is under way; connections that clients keep open, or still read from, are closed");
                } else {
                    let message = "drain deadline: stopping now; answers under way are cut off, and the replay store does not learn of what is not settled";
                    tracing::warn!(unfinished, unsettled, message);
                }
            }
        }
    }

    async fn cut_off_when_overdue(&self) {
        let last = CUTOFF_TIME.min(self.limits.drain_timeout / 10);
        sleep(self.limits.drain_timeout.saturating_sub(last)).await;
        let waiting = self.gateway.in_flight();
        if waiting > 0 {
            tracing::warn!(
                waiting,
                "drain deadline: of the requests under way, those that wait for their body or for the app are refused"
            );
        }
        self.gateway.cut_off();
        sleep(last).await;
    }

    /// Ends the admin listener and the health checks.
    async fn close(&self) {
        if let Some(admin) = &self.admin_listener {
            admin.closed.cancel();
        }
        for (_, closed) in self.kept.clusters.values() {
            closed.cancel();
        }
        // They notice in their next turn.
        tokio::task::yield_now().await;
    }

    /// Puts a new configuration into force as a whole. Everything that can fail comes first.
    fn reload(&mut self, config: Config) -> anyhow::Result<()> {
        let Config {
            admin,
            listeners,
            limits,
            state,
            upstreams,
            routes,
        } = config;
        let observers = observers(&routes);
        let clusters = self.kept.next_clusters(upstreams)?;
        let policies = policies(&listeners);
        let plan = self.plan(listeners)?;
        let admin = self.plan_admin(admin)?;
        self.listen(&plan)?;
        // From here on the new configuration shows in metrics, so sockets and files come before.
        let store = self.kept.next_store(&state)?;
        let snapshot = self
            .kept
            .snapshot(routes, limits.clone(), policies, &clusters, &store)?;
        if let Some(store) = store.shared() {
            for worker in &self.workers {
                // Where the store is the same, it has a connection. This fails when the worker has panicked.
                drop(worker.tell.send(Order::Connect(store.clone())));
            }
        }
        self.kept.keep_store(state, store);
        self.kept.keep_clusters(clusters);
        self.limits = limits;
        self.gateway.swap(snapshot);
        self.note_ends();
        self.apply_admin(admin);
        self.apply(plan);
        self.note_unclaimed();
        note_observers(&observers);
        Ok(())
    }

    /// Takes note of when the secrets of the routes end.
    fn note_ends(&mut self) {
        let snapshot = self.gateway.snapshot();
        let metrics = &self.kept.telemetry.metrics;
        self.ends
            .of_routes(&snapshot.routes, metrics, self.clock.now());
    }

    /// Warns of sockets of the service manager that no listener takes, because their clients wait for ever.
    fn note_unclaimed(&self) {
        let mut taken: Vec<_> = self.bound().iter().map(|bound| bound.address).collect();
        taken.extend(self.admin_listener.as_ref().map(|admin| admin.bound));
        for address in self.manager.unclaimed(&taken) {
            tracing::warn!(%address, "no listener takes this socket of the service manager");
        }
    }
}

/// The beginning of the message when a socket cannot be opened; the system's error follows.
fn cannot_listen(who: &str, address: SocketAddr) -> String {
    // Linux keeps these for root, unless `net.ipv4.ip_unprivileged_port_start` says otherwise.
    let hint = if (1..1024).contains(&address.port()) && !rustix::process::geteuid().is_root() {
        " (ports below 1024 need CAP_NET_BIND_SERVICE)"
    } else {
        ""
    };
    format!("{who} cannot listen on {address}{hint}")
}
