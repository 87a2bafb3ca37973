//! The data path without a process around it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use hookward::clock::Clock;
use hookward::config::{Environment, load_text};
use hookward::gateway::Gateway;
use hookward::gateway::echo::Echo;
use hookward::gateway::snapshot::{ListenerPolicy, RouteState, Snapshot};
use hookward::net::key_fetch::HttpsFetch;
use hookward::net::upstream::system_roots;
use hookward::settings::{Limits, Plaintext};
use hookward::store::ReplayStore;
use hookward::store::memory::MemoryStore;
use hookward::telemetry::Telemetry;
use hookward::telemetry::log::AccessLog;
use hookward::telemetry::metrics::Metrics;
use hookward::units::UnixTime;

/// A gateway in this process, with `echo` behind every route of a configuration; it remembers so many deliveries. What
/// it tells, and the clock it goes by.
pub fn data_path(text: &str, env: &Environment, entries_max: usize) -> (Gateway, AccessLog, Clock) {
    let loaded = load_text("hookward.yaml", text, Path::new(""), env);
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report));
    let telemetry = Telemetry::new(Metrics::new("test"), AccessLog::capture());
    let states = config.routes.routes().iter().map(|route| {
        let metrics = telemetry.metrics.route(&route.name, &route.auth.key_ids());
        RouteState::new(route, metrics, Arc::new(Echo))
    });
    let states = states.collect();
    let policy = ListenerPolicy {
        plaintext: Some(Plaintext::Allow),
        ..ListenerPolicy::default()
    };
    let listeners = HashMap::from([("http".into(), policy)]);
    let clock = Clock::manual(UnixTime::from_secs(1_800_000_000));
    let store = ReplayStore::Memory(MemoryStore::new(clock.clone(), entries_max));
    let snapshot = Snapshot::new(config.routes, Limits::default(), store, listeners, states);
    let fetch = Arc::new(HttpsFetch::new(system_roots));
    let log = telemetry.access.clone();
    let gateway = Gateway::new(snapshot, telemetry, clock.clone(), fetch).unwrap();
    (gateway, log, clock)
}
