//! The data path without a process around it.

use std::path::Path;
use std::sync::Arc;

use hookward::clock::Clock;
use hookward::config::{Config, Environment, load_text};
use hookward::gateway::Gateway;
use hookward::gateway::echo::Echo;
use hookward::gateway::forward::Upstream;
use hookward::gateway::keys::Fetch;
use hookward::gateway::snapshot::{ListenerPolicy, RouteState, Snapshot};
use hookward::net::key_fetch::HttpsFetch;
use hookward::net::trust::system_roots;
use hookward::settings::{ListenerSettings, Transport};
use hookward::store::ReplayStore;
use hookward::store::memory::{ENTRIES_MAX_DEFAULT, MemoryStore};
use hookward::telemetry::Telemetry;
use hookward::telemetry::log::AccessLog;
use hookward::telemetry::metrics::Metrics;
use hookward::units::UnixTime;

/// A configuration in which nothing is wrong.
pub fn loaded(text: &str, env: &Environment) -> Config {
    let loaded = load_text("hookward.yaml", text, Path::new(""), env);
    loaded.config.unwrap_or_else(|| panic!("{}", loaded.report))
}

/// What is around a gateway in this process.
pub struct World {
    /// The app behind every route.
    pub upstream: Arc<dyn Upstream>,
    /// Where keys are fetched.
    pub web: Arc<dyn Fetch>,
    /// When it starts.
    pub start: UnixTime,
    /// Deliveries that it remembers.
    pub entries_max: usize,
}

impl Default for World {
    fn default() -> Self {
        Self {
            upstream: Arc::new(Echo),
            web: Arc::new(HttpsFetch::new(system_roots)),
            start: UnixTime::from_secs(1_800_000_000),
            entries_max: ENTRIES_MAX_DEFAULT,
        }
    }
}

/// A gateway in this process that keeps what it tells, and the clock it goes by.
pub fn data_path(config: Config, world: World) -> (Gateway, Clock) {
    let telemetry = Telemetry::new(Metrics::new("test"), AccessLog::capture());
    let states = config.routes.routes().iter().map(|route| {
        let metrics = telemetry.metrics.route(&route.name, &route.auth.key_ids());
        RouteState::new(route, metrics, Arc::clone(&world.upstream))
    });
    let states = states.collect();
    let policy = |listener: ListenerSettings| {
        let plaintext = match listener.transport {
            Transport::Plaintext(plaintext) => Some(plaintext),
            Transport::Tls(_) => None,
        };
        let policy = ListenerPolicy {
            plaintext,
            ..ListenerPolicy::default()
        };
        (listener.name, policy)
    };
    let policies = config.listeners.into_iter().map(policy).collect();
    let clock = Clock::manual(world.start);
    let store = ReplayStore::Memory(MemoryStore::new(clock.clone(), world.entries_max));
    let snapshot = Snapshot::new(config.routes, config.limits, store, policies, states);
    let gateway = Gateway::new(snapshot, telemetry, clock.clone(), world.web).unwrap();
    (gateway, clock)
}
