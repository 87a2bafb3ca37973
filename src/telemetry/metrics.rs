//! The metrics of the program, with typed labels; those of its routes are in [`super::routes`].
//!
//! Labels come only from enums and configured names, so that no request can add a series
//! (SECURITY DS-27), and a request costs only atomics. The counters of a route that a reload removed stay
//! until the program ends: one that vanishes looks like a reset, and only the operator can make new ones.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::process::Process;
use super::routes::{RouteMetrics, Routes};
use crate::units::UnixTime;

/// The route label of requests that no route took.
pub const ROUTE_NONE: &str = "_none";

/// All metrics, in a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    routes: Routes,
    unrouted: Arc<RouteMetrics>,
    reloads: Reloads,
    key_fetch_success: IntCounter,
    key_fetch_failure: IntCounter,
    acme_order_success: IntCounter,
    acme_order_failure: IntCounter,
    acme_order_due: IntGaugeVec,
    certificates: Certificates,
    upstream_servers: IntGaugeVec,
    secret_ends: IntGaugeVec,
    /// Open connections of all data listeners.
    pub connections: IntGauge,
    connections_refused: [IntCounter; ConnectionLimit::ALL.len()],
    /// Times that the system gave no connection that had come: descriptors or memory had run out.
    pub accept_failures: IntCounter,
    /// Background tasks that were begun anew after a panic.
    pub task_restarts: IntCounter,
    /// Requests between their head and the end of their answer.
    pub requests_in_flight: IntGauge,
    /// Connections closed because they did not begin with the PROXY header of a trusted proxy.
    pub proxy_protocol_failures: IntCounter,
    /// TLS handshakes that failed or took too long.
    pub tls_handshake_failures: IntCounter,
    /// Connections closed because the head of a request did not come in time.
    pub header_timeouts: IntCounter,
    /// Connections closed because their client did not read in time.
    pub write_timeouts: IntCounter,
    /// The store of replay claims and rates.
    pub state: StateMetrics,
}

/// What a connection is refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectionLimit {
    /// `limits.connections`.
    All,
    /// `limits.connections_per_address`.
    PerAddress,
}

impl ConnectionLimit {
    const ALL: [Self; 2] = [Self::All, Self::PerAddress];

    /// Its key below `limits`: log field and metric label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::All => "connections",
            Self::PerAddress => "connections_per_address",
        }
    }
}

/// What a shared store of state is doing.
#[derive(Debug)]
pub struct StateMetrics {
    /// Whether it answers; 1 where state is kept in memory.
    pub available: IntGauge,
    /// Since when it has remembered, in Unix seconds; 0 where that is not known.
    pub since: IntGauge,
    operations: [[IntCounter; StateResult::ALL.len()]; StateOperation::ALL.len()],
}

/// What a shared store is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StateOperation {
    /// To take a delivery.
    Claim,
    /// To remember it.
    Commit,
    /// To give it back.
    Release,
    /// To take a request from a bucket.
    RateLimit,
}

/// How that went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StateResult {
    /// It answered.
    Success,
    /// It refused, or was not there.
    Failure,
    /// It did not answer in time.
    Timeout,
}

impl StateOperation {
    const ALL: [Self; 4] = [Self::Claim, Self::Commit, Self::Release, Self::RateLimit];

    const fn code(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Commit => "commit",
            Self::Release => "release",
            Self::RateLimit => "rate_limit",
        }
    }
}

impl StateResult {
    const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Timeout];

    const fn code(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
        }
    }
}

impl StateMetrics {
    fn new(registry: &Registry) -> Self {
        let operations = counters(
            registry,
            "hookward_state_operations_total",
            "Calls of the shared store, by what they asked for and how they went.",
            &["operation", "result"],
        );
        let available = gauge(
            registry,
            "hookward_state_available",
            "Whether the store of replay claims and rates answers; always 1 for memory.",
        );
        available.set(1);
        Self {
            available,
            since: gauge(
                registry,
                "hookward_state_since_timestamp_seconds",
                "Since when the shared store has remembered, in Unix seconds; 0 while not known.",
            ),
            operations: StateOperation::ALL.map(|operation| {
                StateResult::ALL
                    .map(|result| operations.with_label_values(&[operation.code(), result.code()]))
            }),
        }
    }

    /// Counts a call.
    pub fn count(&self, operation: StateOperation, result: StateResult) {
        let row = self.operations.get(operation as usize);
        if let Some(counter) = row.and_then(|row| row.get(result as usize)) {
            counter.inc();
        }
    }
}

/// Attempts to load the configuration again.
#[derive(Debug)]
struct Reloads {
    /// Those that succeeded, and the others.
    attempts: [IntCounter; 2],
    last_successful: IntGauge,
}

impl Reloads {
    fn new(registry: &Registry) -> Self {
        let reloads = Self {
            attempts: results(
                registry,
                "hookward_config_reloads_total",
                "Attempts to load the configuration again.",
            ),
            last_successful: gauge(
                registry,
                "hookward_config_last_reload_successful",
                "1 where the last attempt to load the configuration succeeded, 0 where the one before it is still served.",
            ),
        };
        reloads.last_successful.set(1);
        reloads
    }
}

/// When those that are served begin and end.
#[derive(Debug)]
struct Certificates {
    not_before: IntGaugeVec,
    not_after: IntGaugeVec,
}

impl Certificates {
    fn new(registry: &Registry) -> Self {
        Self {
            not_before: gauges(
                registry,
                "hookward_tls_certificate_not_before_timestamp_seconds",
                "When a served certificate begins, in Unix seconds.",
                &["name"],
            ),
            not_after: gauges(
                registry,
                "hookward_tls_certificate_not_after_timestamp_seconds",
                "When a served certificate ends, in Unix seconds.",
                &["name"],
            ),
        }
    }
}

impl Metrics {
    /// Every metric, with the series that are known before any route is.
    pub fn new(version: &str) -> Self {
        let registry = Registry::new();
        let routes = Routes::new(&registry);
        Process::register(&registry);
        let [key_fetch_success, key_fetch_failure] = results(
            &registry,
            "hookward_key_fetches_total",
            "Attempts to fetch keys that a provider publishes.",
        );
        let [acme_order_success, acme_order_failure] = results(
            &registry,
            "hookward_acme_orders_total",
            "Attempts to get a certificate from an ACME authority.",
        );
        gauges(
            &registry,
            "hookward_build_info",
            "Always 1; the label says which version runs.",
            &["version"],
        )
        .with_label_values(&[version])
        .set(1);
        let unrouted = Arc::new(routes.route(ROUTE_NONE, &[]));
        Self {
            unrouted,
            routes,
            reloads: Reloads::new(&registry),
            key_fetch_success,
            key_fetch_failure,
            acme_order_success,
            acme_order_failure,
            acme_order_due: acme_order_due(&registry),
            certificates: Certificates::new(&registry),
            upstream_servers: upstream_servers(&registry),
            secret_ends: secret_ends(&registry),
            connections: gauge(
                &registry,
                "hookward_connections",
                "Open connections of all data listeners.",
            ),
            connections_refused: connections_refused(&registry),
            accept_failures: accept_failures(&registry),
            task_restarts: task_restarts(&registry),
            requests_in_flight: gauge(
                &registry,
                "hookward_requests_in_flight",
                "Requests that are being served.",
            ),
            proxy_protocol_failures: counter(
                &registry,
                "hookward_proxy_protocol_failures_total",
                "Connections closed because they did not begin with the PROXY header of a trusted proxy.",
            ),
            header_timeouts: counter(
                &registry,
                "hookward_header_timeouts_total",
                "Connections closed because the head of a request took longer than limits.header_timeout.",
            ),
            write_timeouts: counter(
                &registry,
                "hookward_write_timeouts_total",
                "Connections closed because the client read nothing of an answer for limits.write_timeout.",
            ),
            tls_handshake_failures: counter(
                &registry,
                "hookward_tls_handshake_failures_total",
                "TLS handshakes that had begun and failed, or took too long.",
            ),
            state: StateMetrics::new(&registry),
            registry,
        }
    }

    /// The counters of a route, with every configured key at zero. Asking again for a name, as a
    /// reload does, gives the same series.
    pub fn route(&self, name: &str, key_ids: &[Arc<str>]) -> Arc<RouteMetrics> {
        Arc::new(self.routes.route(name, key_ids))
    }

    /// The counters of requests that no route took.
    pub fn unrouted(&self) -> &Arc<RouteMetrics> {
        &self.unrouted
    }

    /// Counts a connection that was closed at once.
    pub fn connection_refused(&self, limit: ConnectionLimit) {
        if let Some(counter) = self.connections_refused.get(limit as usize) {
            counter.inc();
        }
    }

    /// Counts an attempt to load the configuration again.
    pub fn config_reload(&self, succeeded: bool) {
        let [success, failure] = &self.reloads.attempts;
        self.reloads.last_successful.set(succeeded.into());
        if succeeded { success } else { failure }.inc();
    }

    /// Counts an attempt to fetch keys that a provider publishes.
    pub fn key_fetch(&self, succeeded: bool) {
        if succeeded {
            self.key_fetch_success.inc();
        } else {
            self.key_fetch_failure.inc();
        }
    }

    /// Counts an attempt to get a certificate from an ACME authority.
    pub fn acme_order(&self, succeeded: bool) {
        if succeeded {
            self.acme_order_success.inc();
        } else {
            self.acme_order_failure.inc();
        }
    }

    /// Says when the next certificate of a listener is to be ordered: in the past while none can be had. `name`
    /// is that of its certificate.
    pub fn acme_order_due(&self, listener: &str, name: &str, due: UnixTime) {
        self.acme_order_due
            .with_label_values(&[listener, name])
            .set(due.secs());
    }

    /// Says when a served certificate begins and ends. `name` is a configured name.
    pub fn certificate(&self, name: &str, not_before: UnixTime, not_after: UnixTime) {
        let own = &self.certificates;
        for (gauge, time) in [(&own.not_before, not_before), (&own.not_after, not_after)] {
            gauge.with_label_values(&[name]).set(time.secs());
        }
    }

    /// Forgets the certificates before a reload names them again.
    pub fn reset_certificates(&self) {
        self.certificates.not_before.reset();
        self.certificates.not_after.reset();
        self.acme_order_due.reset();
    }

    /// Says when a configured secret ends. `key_id` is its id.
    pub fn secret(&self, route: &str, key_id: &str, not_after: UnixTime) {
        let gauge = self.secret_ends.with_label_values(&[route, key_id]);
        gauge.set(not_after.secs());
    }

    /// Forgets the secrets before a reload names them again.
    pub fn reset_secrets(&self) {
        self.secret_ends.reset();
    }

    /// Whether a server of an upstream answers.
    pub fn upstream_server(&self, upstream: &str, server: &str) -> IntGauge {
        self.upstream_servers.with_label_values(&[upstream, server])
    }

    /// Forgets a server that is no longer configured.
    pub fn forget_upstream_server(&self, upstream: &str, server: &str) {
        // It fails where the server was never shown.
        self.upstream_servers
            .remove_label_values(&[upstream, server])
            .ok();
    }

    /// Adds a counter that lives elsewhere to the page: once, or it panics.
    pub fn show(&self, counter: &IntCounter) {
        fixed(self.registry.register(Box::new(counter.clone())));
    }

    /// The page that Prometheus reads.
    pub fn render(&self) -> String {
        let mut page = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut page) {
            tracing::error!(%error, "cannot render the metrics");
        }
        page
    }
}

/// What the operational log counts its losses with.
pub(super) fn log_dropped() -> IntCounter {
    fixed(IntCounter::new(
        "hookward_log_dropped_total",
        "Lines of the operational log lost because standard error was closed, full or too slow.",
    ))
}

/// What the access log counts its losses with.
pub(super) fn access_log_dropped() -> IntCounter {
    fixed(IntCounter::new(
        "hookward_access_log_dropped_total",
        "Access events lost because standard output was closed, full or too slow.",
    ))
}

fn acme_order_due(registry: &Registry) -> IntGaugeVec {
    gauges(
        registry,
        "hookward_acme_order_due_timestamp_seconds",
        "When the next certificate is to be ordered, in Unix seconds; 0 while senders may refuse what is served.",
        &["listener", "name"],
    )
}

fn accept_failures(registry: &Registry) -> IntCounter {
    counter(
        registry,
        "hookward_accept_failures_total",
        "Connections that the system could not hand over, because descriptors or memory had run out.",
    )
}

fn upstream_servers(registry: &Registry) -> IntGaugeVec {
    gauges(
        registry,
        "hookward_upstream_server_up",
        "1 where a server answers, 0 where its last health check failed or a request got no answer since one did.",
        &["upstream", "server"],
    )
}

fn secret_ends(registry: &Registry) -> IntGaugeVec {
    gauges(
        registry,
        "hookward_secret_not_after_timestamp_seconds",
        "When a secret ends, in Unix seconds; only of those that do.",
        &["route", "key_id"],
    )
}

fn task_restarts(registry: &Registry) -> IntCounter {
    counter(
        registry,
        "hookward_task_restarts_total",
        "Background tasks that were begun anew after a panic: a bug.",
    )
}

fn connections_refused(registry: &Registry) -> [IntCounter; ConnectionLimit::ALL.len()] {
    let refused = counters(
        registry,
        "hookward_connections_refused_total",
        "Connections closed at once, by the key of limits that says so.",
        &["limit"],
    );
    ConnectionLimit::ALL.map(|limit| refused.with_label_values(&[limit.code()]))
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::new(name, help))
}

/// Counters of attempts that succeeded, and of those that failed.
fn results(registry: &Registry, name: &str, help: &str) -> [IntCounter; 2] {
    let counters = counters(registry, name, help, &["result"]);
    ["success", "failure"].map(|result| counters.with_label_values(&[result]))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::new(name, help))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let metric = fixed(made);
    fixed(registry.register(Box::new(metric.clone())));
    metric
}

#[expect(
    clippy::expect_used,
    reason = "names are constants; every test would fail"
)]
pub(super) fn fixed<T>(made: prometheus::Result<T>) -> T {
    made.expect("metric names are valid and unique")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reason::Reason;
    use crate::telemetry::Outcome;
    use crate::telemetry::Telemetry;
    use crate::telemetry::log::AccessLog;

    fn keys() -> Vec<Arc<str>> {
        vec!["2026-09".into(), "secrets[1]".into()]
    }

    fn series(page: &str) -> usize {
        page.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[test]
    fn the_page() {
        let telemetry = Telemetry::new(Metrics::new("0.0.0"), AccessLog::capture());
        let metrics = &telemetry.metrics;
        let route = metrics.route("github", &keys());
        route.count(Outcome::Forwarded, None);
        route.observe_duration(Outcome::Forwarded, Duration::from_millis(40));
        route.key_used("2026-09");
        route.key_used("from the provider");
        route.accepted(UnixTime::from_secs(1_700_000_000));
        route.upstream(Some(200), Duration::from_millis(30));
        route.upstream(None, Duration::from_secs(10));
        route.answer_broken();
        metrics.upstream_server("app", "http://app:3000").set(1);
        metrics.secret("github", "2026-09", UnixTime::from_secs(1_800_000_000));
        metrics
            .unrouted()
            .count(Outcome::Rejected, Some(Reason::RouteNotFound));
        metrics.config_reload(false);
        let at = UnixTime::from_secs;
        metrics.certificate("https", at(1_790_000_000), at(1_800_000_000));
        metrics.acme_order_due(
            "public",
            "hooks.example.org",
            UnixTime::from_secs(1_790_000_000),
        );
        insta::with_settings!({ snapshot_path => "../../tests/snapshots", prepend_module_to_snapshot => false }, {
            let page = metrics.render();
            // What is the system's differs from run to run.
            let own: Vec<_> = page.lines().filter(|line| !line.contains("process_")).collect();
            insta::assert_snapshot!("metrics_page", own.join("\n"));
        });
    }

    #[test]
    fn known_series_start_at_zero() {
        let metrics = Metrics::new("0.0.0");
        metrics.route("github", &keys());
        let page = metrics.render();
        for series in [
            r#"hookward_requests_total{outcome="forwarded",reason="none",route="github"} 0"#,
            r#"hookward_requests_total{outcome="forwarded",reason="none",route="_none"} 0"#,
            r#"hookward_verification_key_used_total{key_id="secrets[1]",route="github"} 0"#,
            r#"hookward_config_reloads_total{result="failure"} 0"#,
            r#"hookward_config_reloads_total{result="success"} 0"#,
            r#"hookward_request_duration_seconds_bucket{outcome="forwarded",route="github",le="3"} 0"#,
        ] {
            assert!(page.lines().any(|line| line == series), "{series}\n{page}");
        }
        for reason in [Reason::SignatureMismatch, Reason::RateLimited] {
            let series = format!(
                r#"hookward_requests_total{{outcome="rejected",reason="{reason}",route="github"}} 0"#
            );
            assert!(page.contains(&series), "{series}");
        }
    }

    #[test]
    fn a_reload_keeps_the_counts() {
        let metrics = Metrics::new("0.0.0");
        metrics.route("github", &[]).count(Outcome::Duplicate, None);
        metrics
            .route("github", &keys())
            .count(Outcome::Duplicate, None);
        let line = r#"{outcome="duplicate",reason="none",route="github"} 2"#;
        assert!(metrics.render().contains(line));
    }

    #[test]
    fn a_route_that_is_gone_keeps_its_counts_and_does_not_fall_silent() {
        let metrics = Metrics::new("0.0.0");
        let accepted = r#"hookward_route_last_accepted_timestamp_seconds{route="github"} 7"#;
        let counted =
            r#"hookward_requests_total{outcome="duplicate",reason="none",route="github"} 1"#;
        let route = metrics.route("github", &[]);
        route.count(Outcome::Duplicate, None);
        route.accepted(UnixTime::from_secs(7));
        let page = metrics.render();
        assert!(page.contains(accepted) && page.contains(counted), "{page}");
        drop(route);
        let page = metrics.render();
        assert!(!page.contains(accepted) && page.contains(counted), "{page}");
        let _back = metrics.route("github", &[]);
        assert!(metrics.render().contains(accepted));
    }

    #[test]
    fn no_request_adds_series_without_end() {
        // SECURITY DS-27
        let metrics = Metrics::new("0.0.0");
        let route = metrics.route("github", &keys());
        let count = || {
            for outcome in Outcome::ALL {
                route.count(outcome, None);
                route.observe_duration(outcome, Duration::ZERO);
                for reason in Reason::ALL {
                    route.count(outcome, Some(*reason));
                }
            }
            for code in 0..=u16::MAX {
                route.upstream(Some(code), Duration::ZERO);
            }
            series(&metrics.render())
        };
        let first = count();
        route.key_used("one");
        route.key_used("another");
        assert_eq!(count(), first + 1);
        assert!(first < 2_000, "{first}");
    }
}
