//! The composition root: a configuration becomes running workers, and reloads and drains them.
//!
//! One thread with a runtime of its own per core serves requests; the main thread does all the
//! rest: signals, reloads, health checks, the admin listener.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{self, AdminState, Readiness};
use crate::cgroup::memory_limit;
use crate::clock::{Clock, Steps};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::gateway::snapshot::ListenerPolicy;
use crate::net::acme::{Keeper, Keeping};
use crate::net::http::Farewell;
use crate::net::key_fetch::HttpsFetch;
use crate::net::listener::{Endpoint, LEAVE_TIME, bind, nobody_listens};
use crate::net::tls::{Certificate, Expiry, Origin, TlsAcceptor};
use crate::net::trust::system_roots;
use crate::reload::Reloader;
use crate::route::matcher::RouteTable;
use crate::route::policy::Mode;
use crate::settings::{CertificateSource, Limits, ListenerSettings, TlsSettings, Transport};
use crate::systemd::{ServiceManager, State};
use crate::tasks::keep;
use crate::telemetry::Telemetry;

mod kept;
mod stop;
mod workers;

use kept::Kept;
use stop::Stop;
use workers::{WorkerHandle, start_workers};

/// How often maps that only grow are swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// The end of `drain_timeout`, in which the last answers leave: a tenth of it, and no more than this.
const CUTOFF_TIME: Duration = Duration::from_secs(1);
/// Target of what is said at start, whatever `RUST_LOG` holds: where it listens, and that it serves.
pub const START: &str = "hookward::start";

/// A listener and where it was bound.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Its address, with the port that port 0 became.
    pub address: SocketAddr,
}

/// Serves `config` until a signal ends it. `reloader` says when to load it anew, and from where;
/// `manager` is asked for sockets and told how it goes; `ready` is called once, when everything is
/// bound and requests are served.
pub fn run(
    config: Config,
    mut reloader: Reloader,
    telemetry: Telemetry,
    manager: ServiceManager,
    ready: impl FnOnce(&[Bound]),
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        // Before anybody can know that it runs: a signal that comes at once must not kill it.
        let mut stop = Stop::listen()?;
        reloader.listen();
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
    // A load that is under way must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Says what the limits came to where memory is short: defaults are lower then than in the documentation.
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
            "it runs as root: give it a user of its own, and a port below 1024 by a socket unit or CAP_NET_BIND_SERVICE"
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

/// Nobody is to believe that a route refuses while it does not.
fn note_observers(routes: &str) {
    if !routes.is_empty() {
        tracing::info!(
            routes,
            "these routes observe: nothing is refused there for who sent it"
        );
    }
}

/// What `config` asks for behind its listeners, without them: a gateway for who brings the requests
/// along, as benches do. Nothing checks its upstreams' health or sweeps its maps.
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
    farewell: Farewell,
    limits: Limits,
    manager: ServiceManager,
    keeping: Keeping,
    issued: mpsc::UnboundedReceiver<()>,
    steps: Steps,
}

/// A listener at work.
struct Running {
    settings: ListenerSettings,
    endpoint: Arc<Endpoint>,
    /// Orders its certificates; ends when dropped.
    keeper: Option<AbortOnDropHandle<()>>,
}

/// The admin listener at work.
struct AdminListener {
    /// As configured, which may say port 0.
    address: SocketAddr,
    /// As it is.
    bound: SocketAddr,
    closed: CancellationToken,
}

/// A listener that is ready to go into force.
struct Planned {
    settings: ListenerSettings,
    change: Change,
}

/// What becomes of a listener's sockets and TLS.
enum Change {
    /// Both stay.
    Keep,
    /// New sockets, one for each worker.
    Open(Option<TlsAcceptor>, Vec<std::net::TcpListener>),
    /// The sockets stay.
    Swap(Option<TlsAcceptor>),
}

/// What becomes of the admin listener.
enum AdminChange {
    Close,
    Keep,
    Open(SocketAddr, std::net::TcpListener),
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
        let farewell = Farewell::default();
        let workers = start_workers(&gateway, &keeping.challenges, &farewell, &kept.settling)?;
        let mut server = Self {
            gateway,
            kept,
            endpoints: HashMap::new(),
            workers,
            admin: Arc::new(AdminState::new(telemetry)),
            admin_listener: None,
            farewell,
            limits,
            manager,
            keeping,
            issued,
            steps: Steps::of(clock),
        };
        let plan = server.plan(listeners)?;
        let admin = server.plan_admin(admin)?;
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
        self.farewell.said.cancel();
        tokio::select! {
            () = sleep(self.limits.drain_delay) => self.drain(stop).await,
            _ = stop.next() => tracing::warn!("second signal: stopping now"),
        }
    }

    /// What has to be looked at now and then.
    fn sweep(&mut self) {
        self.kept.limiters.sweep();
        if let Some(seconds) = self.steps.last() {
            tracing::warn!(
                seconds,
                "the wall clock was set, or the machine slept: signed timestamps are judged by the new time"
            );
        }
    }

    /// Takes no more connections and finishes what is under way.
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
            self.farewell.meant.cancel();
            for worker in finished {
                // A worker that panicked has nothing left to wait for.
                drop(worker.await);
            }
            self.gateway.drain().await;
        };
        tokio::select! {
            () = drained => tracing::info!("drained"),
            _ = stop.next() => tracing::warn!("second signal: stopping now"),
            () = self.cut_off_when_overdue() => {
                let (unfinished, unsettled) = (self.gateway.in_flight(), self.kept.settling.len());
                let message = "drain deadline: stopping now; answers under way are cut off, and the replay store does not learn of what is not settled";
                tracing::warn!(unfinished, unsettled, message);
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

    /// Ends what serves no requests.
    async fn close(&self) {
        if let Some(admin) = &self.admin_listener {
            admin.closed.cancel();
        }
        for (_, closed) in self.kept.clusters.values() {
            closed.cancel();
        }
        // Lets the admin listener and the health checks take notice.
        tokio::task::yield_now().await;
    }

    /// Puts a new configuration into force as a whole: everything that can fail comes first.
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
        // From here on it shows in metrics, so that all that depends on the machine comes before.
        let store = self.kept.next_store(&state)?;
        let snapshot = self
            .kept
            .snapshot(routes, limits.clone(), policies, &clusters, &store)?;
        self.kept.keep_store(state, store);
        self.kept.keep_clusters(clusters);
        self.limits = limits;
        self.gateway.swap(snapshot);
        self.apply_admin(admin);
        self.apply(plan);
        note_observers(&observers);
        Ok(())
    }

    /// Builds what the listeners need and binds the new ones; changes nothing that runs.
    fn plan(&self, listeners: Vec<ListenerSettings>) -> anyhow::Result<Vec<Planned>> {
        let addresses = self.endpoints.values().map(|own| own.endpoint.address);
        let mut own_ports: Vec<u16> = addresses.map(|address| address.port()).collect();
        let mut planned = Vec::with_capacity(listeners.len());
        for settings in listeners {
            let port = settings.address.port();
            planned.push(self.plan_one(settings, &own_ports)?);
            own_ports.push(port);
        }
        Ok(planned)
    }

    fn plan_one(&self, settings: ListenerSettings, own_ports: &[u16]) -> anyhow::Result<Planned> {
        let running = self.endpoints.get(&settings.name);
        let running = running.filter(|running| running.settings.address == settings.address);
        let tls = || match &settings.transport {
            Transport::Plaintext(_) => Ok(None),
            Transport::Tls(tls) => {
                let built = self.tls(&settings.name, tls);
                let built = built.with_context(|| format!("TLS of listener `{}`", settings.name));
                built.map(Some)
            }
        };
        let change = match running {
            Some(running) if running.settings.transport == settings.transport => Change::Keep,
            Some(_) => Change::Swap(tls()?),
            None => Change::Open(tls()?, self.sockets(&settings, own_ports)?),
        };
        Ok(Planned { settings, change })
    }

    /// TLS of a listener, with the best certificate that is there where they are ordered.
    fn tls(&self, listener: &str, settings: &TlsSettings) -> anyhow::Result<TlsAcceptor> {
        let acceptor = TlsAcceptor::new(settings)?;
        if let CertificateSource::Acme(acme) = &settings.certificates {
            let served = self.served(listener);
            self.keeping.restore(acme, &acceptor, served)?;
        }
        Ok(acceptor)
    }

    /// What an ordered certificate of a listener may take the place of: its own certificates, and those that
    /// were ordered for others.
    fn served(&self, listener: &str) -> Vec<Certificate> {
        let mut served = Vec::new();
        for (name, running) in &self.endpoints {
            let tls = running.endpoint.tls.load();
            let certificates = tls.as_ref().as_ref().map(TlsAcceptor::certificates);
            let certificates = certificates.into_iter().flatten();
            served.extend(certificates.filter(|certificate| {
                **name == *listener || matches!(certificate.origin(), Origin::Authority(_))
            }));
        }
        served
    }

    /// A socket for each worker, all on one address; or one for all that the manager opened.
    fn sockets(
        &self,
        settings: &ListenerSettings,
        own_ports: &[u16],
    ) -> anyhow::Result<Vec<std::net::TcpListener>> {
        let mut address = settings.address;
        let mut sockets = Vec::with_capacity(self.workers.len());
        // Sockets of our own are no surprise.
        let is_ours =
            own_ports.contains(&address.port()) || self.manager.holds(&settings.name, address);
        let is_taken = |error: &std::io::Error| error.kind() == ErrorKind::AddrInUse;
        // Afterwards, this process does.
        let is_shared = !is_ours && nobody_listens(address).is_err_and(|error| is_taken(&error));
        for _ in &self.workers {
            let context = || cannot_listen(&format!("listener `{}`", settings.name), address);
            let passed = self.manager.listener(&settings.name, address);
            let socket = passed
                .unwrap_or_else(|| bind(address))
                .with_context(context)?;
            // With port 0 the first one decides.
            address = socket.local_addr()?;
            sockets.push(socket);
        }
        if is_shared {
            tracing::warn!(
                listener = &*settings.name,
                %address,
                "another process of the same user listens on this address already: both get a part of the connections"
            );
        }
        Ok(sockets)
    }

    fn apply(&mut self, plan: Vec<Planned>) {
        let mut before = std::mem::take(&mut self.endpoints);
        for Planned { settings, change } in plan {
            let name = Arc::clone(&settings.name);
            let (endpoint, keeper) = match (change, before.remove(&name)) {
                (Change::Open(tls, sockets), old) => {
                    let endpoint = self.open(&settings, tls, sockets);
                    if let Some(old) = old {
                        old.endpoint.closed.cancel();
                        old.endpoint.leaving.cancel();
                        old.endpoint.left.cancel();
                    }
                    let keeper = self.keeper(&settings, &endpoint);
                    (endpoint, keeper)
                }
                (Change::Keep, Some(running)) => (running.endpoint, running.keeper),
                (Change::Swap(tls), Some(running)) => {
                    running.endpoint.tls.store(Arc::new(tls));
                    let keeper = self.keeper(&settings, &running.endpoint);
                    (running.endpoint, keeper)
                }
                // Only what runs is planned to be kept.
                (Change::Keep | Change::Swap(_), None) => continue,
            };
            let running = Running {
                settings,
                endpoint,
                keeper,
            };
            self.endpoints.insert(name, running);
        }
        for running in before.into_values() {
            let listener = &*running.settings.name;
            tracing::info!(target: START, listener, "no longer listening");
            running.endpoint.closed.cancel();
            running.endpoint.leaving.cancel();
            running.endpoint.left.cancel();
        }
        self.show_expiries();
    }

    /// What keeps a listener's certificates fresh, if that is our task.
    fn keeper(
        &self,
        settings: &ListenerSettings,
        endpoint: &Arc<Endpoint>,
    ) -> Option<AbortOnDropHandle<()>> {
        let acme = settings.acme()?.clone();
        let (endpoint, keeping) = (Arc::clone(endpoint), self.keeping.clone());
        let metrics = Arc::clone(&self.kept.telemetry.metrics);
        let kept = async move {
            let begin = || {
                let (acme, endpoint) = (acme.clone(), Arc::clone(&endpoint));
                Keeper::new(acme, endpoint, keeping.clone()).keep()
            };
            keep("acme", &metrics.task_restarts, begin).await;
        };
        Some(AbortOnDropHandle::new(tokio::spawn(kept)))
    }

    fn show_expiries(&self) {
        let metrics = &self.kept.telemetry.metrics;
        metrics.reset_certificates();
        let mut expiries = Vec::new();
        for running in self.endpoints.values() {
            expiries.extend(self.note_expiries(running));
        }
        for first in earliest(expiries) {
            metrics.certificate(&first.name, first.not_before, first.not_after);
        }
    }

    fn open(
        &self,
        settings: &ListenerSettings,
        tls: Option<TlsAcceptor>,
        sockets: Vec<std::net::TcpListener>,
    ) -> Arc<Endpoint> {
        let address = sockets.first().and_then(|socket| socket.local_addr().ok());
        let address = address.unwrap_or(settings.address);
        let endpoint = Arc::new(Endpoint {
            name: Arc::clone(&settings.name),
            address,
            tls: ArcSwap::from_pointee(tls),
            held: self.manager.holds(&settings.name, settings.address),
            closed: CancellationToken::new(),
            leaving: self.farewell.said.child_token(),
            left: self.farewell.meant.child_token(),
            complained: Mutex::default(),
        });
        for (worker, socket) in self.workers.iter().zip(sockets) {
            // A worker only stops listening for work when the program ends.
            drop(worker.listen.send((socket, Arc::clone(&endpoint))));
        }
        tracing::info!(target: START, listener = &*settings.name, %address, "listening");
        endpoint
    }

    fn plan_admin(&self, address: Option<SocketAddr>) -> anyhow::Result<AdminChange> {
        let running = self.admin_listener.as_ref().map(|admin| admin.address);
        match address {
            None => Ok(AdminChange::Close),
            Some(_) if running == address => Ok(AdminChange::Keep),
            Some(address) => {
                let context = || cannot_listen("the admin listener", address);
                let passed = self.manager.listener("admin", address);
                // A second process would answer every other probe and scrape of the first.
                let alone = || match running {
                    None => nobody_listens(address).and_then(|()| bind(address)),
                    Some(_) => bind(address),
                };
                let socket = passed.unwrap_or_else(alone);
                Ok(AdminChange::Open(address, socket.with_context(context)?))
            }
        }
    }

    fn apply_admin(&mut self, change: AdminChange) {
        let (address, socket) = match change {
            AdminChange::Keep => return,
            AdminChange::Close => {
                if self.admin_listener.is_some() {
                    tracing::info!(target: START, listener = "admin", "no longer listening");
                }
                (None, None)
            }
            AdminChange::Open(address, socket) => (Some(address), Some(socket)),
        };
        if let Some(old) = self.admin_listener.take() {
            old.closed.cancel();
        }
        let listener = socket.map(tokio::net::TcpListener::from_std);
        let (address, listener) = match (address, listener) {
            (Some(address), Some(Ok(listener))) => (address, listener),
            (_, Some(Err(error))) => {
                return tracing::error!(%error, "the admin socket cannot be listened on");
            }
            (None, _) | (_, None) => return,
        };
        let closed = CancellationToken::new();
        let bound = listener.local_addr().unwrap_or(address);
        let (listener, state) = (Arc::new(listener), Arc::clone(&self.admin));
        let (shutdown, metrics) = (closed.clone(), Arc::clone(&self.kept.telemetry.metrics));
        tokio::spawn(async move {
            let begin =
                || admin::serve(Arc::clone(&listener), Arc::clone(&state), shutdown.clone());
            keep("admin", &metrics.task_restarts, begin).await;
        });
        tracing::info!(target: START, listener = "admin", address = %bound, "listening");
        self.admin_listener = Some(AdminListener {
            address,
            bound,
            closed,
        });
    }

    /// A socket that nobody accepts from leaves its clients waiting: that must not be silent.
    fn note_unclaimed(&self) {
        let mut taken: Vec<_> = self.bound().iter().map(|bound| bound.address).collect();
        taken.extend(self.admin_listener.as_ref().map(|admin| admin.bound));
        for address in self.manager.unclaimed(&taken) {
            tracing::warn!(%address, "no listener takes this socket of the service manager");
        }
    }

    /// Shows when an order is due, and gives when the certificates end: listeners may share their names.
    fn note_expiries(&self, running: &Running) -> Vec<Expiry> {
        let metrics = &self.kept.telemetry.metrics;
        let tls = running.endpoint.tls.load();
        let Some(tls) = tls.as_ref() else {
            return Vec::new();
        };
        if let Some(acme) = running.settings.acme()
            && let Some(due) = tls.order_due()
        {
            let name = acme.domains.first().map_or("acme", String::as_str);
            metrics.acme_order_due(&running.settings.name, name, due);
        }
        tls.expiries()
    }
}

/// Of certificates with one name, the first to end.
fn earliest(mut expiries: Vec<Expiry>) -> Vec<Expiry> {
    expiries.sort_by(|a, b| (&a.name, a.not_after).cmp(&(&b.name, b.not_after)));
    expiries.dedup_by(|later, first| later.name == first.name);
    expiries
}

/// What requests are judged by that come over these listeners.
fn policies(listeners: &[ListenerSettings]) -> HashMap<Arc<str>, ListenerPolicy> {
    let policy = |listener: &ListenerSettings| {
        let plaintext = match &listener.transport {
            Transport::Plaintext(plaintext) => Some(*plaintext),
            Transport::Tls(_) => None,
        };
        let policy = ListenerPolicy {
            address: Some(listener.address),
            plaintext,
            public_origin: listener.public_url.as_ref().map(|url| url.origin().into()),
            trusted_proxies: listener.trusted_proxies.clone(),
            proxy_protocol: listener.proxy_protocol,
        };
        (Arc::clone(&listener.name), policy)
    };
    listeners.iter().map(policy).collect()
}

/// What is said where a socket cannot be had, before the system's own words.
fn cannot_listen(who: &str, address: SocketAddr) -> String {
    // Linux keeps these for root, unless `net.ipv4.ip_unprivileged_port_start` says otherwise.
    let hint = if (1..1024).contains(&address.port()) && !rustix::process::geteuid().is_root() {
        " (ports below 1024 need CAP_NET_BIND_SERVICE)"
    } else {
        ""
    };
    format!("{who} cannot listen on {address}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::UnixTime;

    #[test]
    fn of_certificates_with_one_name_the_first_to_end_is_shown() {
        let at = UnixTime::from_secs;
        let expiry = |name: &str, end| Expiry {
            name: name.into(),
            not_before: at(end - 5),
            not_after: at(end),
        };
        for ends in [[7, 9], [9, 7]] {
            let expiries = vec![expiry("a", ends[0]), expiry("b", 8), expiry("a", ends[1])];
            let shown: Vec<_> = earliest(expiries)
                .into_iter()
                .map(|first| (first.name, first.not_before, first.not_after))
                .collect();
            assert_eq!(
                shown,
                [("a".into(), at(2), at(7)), ("b".into(), at(3), at(8))]
            );
        }
    }
}
