//! The counters of the routes: plain atomics beside each other, which become series when the page is made.
//!
//! A counter of the prometheus crate has its labels and an allocation for itself: the sixteen that a route
//! begins with, and one for each key, were 13 KB. Here they are 456 bytes, and an outcome or a class of
//! answers that no request had is not there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

use super::Outcome;
use super::metrics::fixed;
use super::series::{self, family, metric, number};
use crate::reason::Reason;
use crate::units::UnixTime;

/// The key label of a key that the configuration does not name (a provider's key set, a client
/// certificate).
pub const KEY_OTHER: &str = "_other";

/// The code label of an upstream that gave no answer.
pub const CODE_NONE: &str = "none";

/// Up to where the buckets of durations go. 3, 5 and 10 seconds are the deadlines after which providers
/// hang up.
const BUCKETS: [Duration; 15] = [
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Refusals that every route shows from the start, at zero.
const REASONS_KNOWN: &[Reason] = &[
    Reason::Internal,
    Reason::KeyUnavailable,
    Reason::Overloaded,
    Reason::StateUnavailable,
    Reason::RateLimited,
    Reason::CredentialMissing,
    Reason::CredentialInvalid,
    Reason::SignatureMissing,
    Reason::SignatureMalformed,
    Reason::SignatureMismatch,
    Reason::TimestampMissing,
    Reason::TimestampMalformed,
    Reason::TimestampStale,
    Reason::TimestampAhead,
];

/// The metrics with a route label, and the routes that ever were.
#[derive(Clone, Debug)]
pub(super) struct Routes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    descriptions: [Desc; 7],
    /// Those of routes that a reload removed stay.
    series: Mutex<HashMap<Arc<str>, Arc<Series>>>,
}

/// The counters of one route, as one configuration has it: a reload makes others over the same series.
#[derive(Debug)]
pub struct RouteMetrics {
    series: Arc<Series>,
    keys_used: KeyCounters,
}

/// By the id of a key, which the operator wrote.
type KeyCounters = HashMap<Arc<str>, Arc<AtomicU64>, foldhash::fast::RandomState>;

/// What is counted of one route name.
#[derive(Debug)]
struct Series {
    route: Arc<str>,
    /// Unix seconds.
    last_accepted: AtomicU64,
    outcomes: [OnceLock<Box<OutcomeSeries>>; Outcome::ALL.len()],
    keys_used: Mutex<KeyCounters>,
    keys_other: AtomicU64,
    upstream_durations: Durations,
    /// Exchanges without an answer.
    upstream_none: AtomicU64,
    /// Answers that broke off.
    upstream_broken: AtomicU64,
    /// Answers by their status: a row for each of 1xx to 9xx.
    upstream_answers: [OnceLock<Box<[AtomicU64; 100]>>; 9],
}

/// The requests that ended in one way.
#[derive(Debug, Default)]
struct OutcomeSeries {
    without_reason: AtomicU64,
    durations: Durations,
    reasons: OnceLock<Box<[AtomicU64; Reason::ALL.len()]>>,
}

/// A histogram. A page may have an observation in one of its numbers and not yet in the other.
#[derive(Debug, Default)]
struct Durations {
    /// How many fell between two bounds; the last is beyond them all.
    counts: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Routes {
    /// No route yet; `registry` shows those that come.
    pub(super) fn new(registry: &Registry) -> Self {
        let describe = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(ToString::to_string).collect();
            fixed(Desc::new(name.into(), help.into(), labels, HashMap::new()))
        };
        let descriptions = [
            describe(
                "hookward_requests_total",
                "Requests, by how they ended and why they were refused.",
                &["route", "outcome", "reason"],
            ),
            describe(
                "hookward_request_duration_seconds",
                "From a request's head to the head of its answer.",
                &["route", "outcome"],
            ),
            describe(
                "hookward_verification_key_used_total",
                "Requests that a key proved. One that has not risen for longer than the provider retries can be retired.",
                &["route", "key_id"],
            ),
            describe(
                "hookward_route_last_accepted_timestamp_seconds",
                "When a route last accepted a request, in Unix seconds; 0 before the first.",
                &["route"],
            ),
            describe(
                "hookward_upstream_requests_total",
                "Requests to upstreams, by the status they answered; `none` without an answer.",
                &["route", "code"],
            ),
            describe(
                "hookward_upstream_request_duration_seconds",
                "From the call of an upstream to the head of its answer, or to giving up.",
                &["route"],
            ),
            describe(
                "hookward_upstream_answers_broken_total",
                "Answers of upstreams that broke off after their head.",
                &["route"],
            ),
        ];
        let routes = Self(Arc::new(Inner {
            descriptions,
            series: Mutex::default(),
        }));
        fixed(registry.register(Box::new(routes.clone())));
        routes
    }

    /// The counters of a route, with every configured key at zero. Asking again for a name, as a
    /// reload does, gives the same series.
    pub(super) fn route(&self, name: &str, key_ids: &[Arc<str>]) -> RouteMetrics {
        let mut known = locked(&self.0.series);
        let series = Arc::clone(
            known
                .entry(name.into())
                .or_insert_with_key(|name| Arc::new(Series::new(Arc::clone(name)))),
        );
        drop(known);
        RouteMetrics {
            keys_used: series.keys(key_ids),
            series,
        }
    }
}

impl Collector for Routes {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let known: Vec<_> = locked(&self.0.series).values().cloned().collect();
        let [
            requests,
            durations,
            keys,
            accepted,
            answers,
            upstream,
            broken,
        ] = &self.0.descriptions;
        let each = |of: fn(&Series) -> Vec<Metric>| known.iter().flat_map(|it| of(it)).collect();
        // Besides us and the map, those of a configuration have it. A route that is gone does not fall silent.
        let served = known.iter().filter(|it| Arc::strong_count(it) > 2);
        let served = served.flat_map(|it| it.accepted()).collect();
        vec![
            family(requests, MetricType::COUNTER, each(Series::requests)),
            family(durations, MetricType::HISTOGRAM, each(Series::durations)),
            family(keys, MetricType::COUNTER, each(Series::used_keys)),
            family(accepted, MetricType::GAUGE, served),
            family(answers, MetricType::COUNTER, each(Series::answers)),
            family(upstream, MetricType::HISTOGRAM, each(Series::exchanges)),
            family(broken, MetricType::COUNTER, each(Series::broken)),
        ]
    }
}

impl RouteMetrics {
    /// Counts a request. `reason` is why it was refused or, observed, would have been.
    pub fn count(&self, outcome: Outcome, reason: Option<Reason>) {
        if let Some(series) = self.series.outcome(outcome) {
            series.count(reason);
        }
    }

    /// How long a request took, to the head of its answer.
    pub fn observe_duration(&self, outcome: Outcome, duration: Duration) {
        if let Some(series) = self.series.outcome(outcome) {
            series.durations.observe(duration);
        }
    }

    /// Counts a request that this key proved; one that is not configured counts as [`KEY_OTHER`].
    pub fn key_used(&self, key_id: &str) {
        match self.keys_used.get(key_id) {
            Some(counter) => add_one(counter),
            None => add_one(&self.series.keys_other),
        }
    }

    /// A request was accepted just now.
    pub fn accepted(&self, now: UnixTime) {
        let secs = u64::try_from(now.secs()).unwrap_or_default();
        self.series.last_accepted.store(secs, Ordering::Relaxed);
    }

    /// Counts a call of the upstream, and the status that it answered; without one, and where it is none, as
    /// [`CODE_NONE`].
    pub fn upstream(&self, status: Option<u16>, duration: Duration) {
        self.series.answered(status);
        self.series.upstream_durations.observe(duration);
    }

    /// Counts an answer that the upstream broke off after its head.
    pub fn answer_broken(&self) {
        add_one(&self.series.upstream_broken);
    }
}

impl Series {
    fn new(route: Arc<str>) -> Self {
        Self {
            route,
            last_accepted: AtomicU64::default(),
            outcomes: Default::default(),
            keys_used: Mutex::default(),
            keys_other: AtomicU64::default(),
            upstream_durations: Durations::default(),
            upstream_none: AtomicU64::default(),
            upstream_broken: AtomicU64::default(),
            upstream_answers: Default::default(),
        }
    }

    /// The counters of these keys; those that are new begin at zero.
    fn keys(&self, ids: &[Arc<str>]) -> KeyCounters {
        let mut known = locked(&self.keys_used);
        ids.iter()
            .map(|id| {
                let counter = known.entry(Arc::clone(id)).or_default();
                (Arc::clone(id), Arc::clone(counter))
            })
            .collect()
    }

    fn outcome(&self, outcome: Outcome) -> Option<&OutcomeSeries> {
        let cell = self.outcomes.get(outcome.index())?;
        Some(cell.get_or_init(Box::default))
    }

    fn answered(&self, status: Option<u16>) {
        let code = status.unwrap_or_default();
        let row = usize::from(code / 100).checked_sub(1);
        match row.and_then(|row| self.upstream_answers.get(row)) {
            Some(row) => {
                let row = row.get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
                if let Some(counter) = row.get(usize::from(code % 100)) {
                    add_one(counter);
                }
            }
            None => add_one(&self.upstream_none),
        }
    }

    fn requests(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for (outcome, cell) in Outcome::ALL.iter().zip(&self.outcomes) {
            let series = cell.get();
            let mut show = |reason: &str, count: u64| {
                let labels = [
                    ("outcome", outcome.code()),
                    ("reason", reason),
                    ("route", &self.route),
                ];
                metrics.push(counter(&labels, count));
            };
            let count = series.map_or(0, |series| read(&series.without_reason));
            if count > 0 || *outcome == Outcome::Forwarded {
                show("none", count);
            }
            let counts = series.and_then(|series| series.reasons.get());
            for (index, reason) in Reason::ALL.iter().enumerate() {
                let count = counts.and_then(|counts| counts.get(index)).map_or(0, read);
                let known = *outcome == Outcome::Rejected && REASONS_KNOWN.contains(reason);
                if count > 0 || known {
                    show(reason.code(), count);
                }
            }
        }
        metrics
    }

    fn durations(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for (outcome, cell) in Outcome::ALL.iter().zip(&self.outcomes) {
            let labels = [("outcome", outcome.code()), ("route", &self.route)];
            let series = cell.get();
            let histogram = series.map_or_else(
                || Durations::default().histogram(),
                |it| it.durations.histogram(),
            );
            if histogram.get_sample_count() == 0 && *outcome != Outcome::Forwarded {
                continue;
            }
            metrics.push(metric(&labels, |metric| metric.set_histogram(histogram)));
        }
        metrics
    }

    fn used_keys(&self) -> Vec<Metric> {
        let known = locked(&self.keys_used);
        let mut counts: Vec<(&str, u64)> = known.iter().map(|(id, it)| (&**id, read(it))).collect();
        let others = read(&self.keys_other);
        // A configured key may have that name.
        match counts.iter_mut().find(|(id, _)| *id == KEY_OTHER) {
            Some((_, count)) => *count += others,
            None if others > 0 => counts.push((KEY_OTHER, others)),
            None => {}
        }
        let show = |(id, count)| counter(&[("key_id", id), ("route", &self.route)], count);
        counts.into_iter().map(show).collect()
    }

    fn accepted(&self) -> Vec<Metric> {
        let value = number(read(&self.last_accepted));
        vec![series::gauge(&[("route", &self.route)], value)]
    }

    fn answers(&self) -> Vec<Metric> {
        let show = |code: &str, count| counter(&[("code", code), ("route", &self.route)], count);
        let mut metrics = vec![show(CODE_NONE, read(&self.upstream_none))];
        let mut answered_ok = 0;
        for (hundred, row) in (1..).zip(&self.upstream_answers) {
            let cells = row.get().into_iter().flat_map(|row| row.iter());
            for (code, cell) in (hundred * 100..).zip(cells) {
                match read(cell) {
                    0 => {}
                    count if code == StatusCode::OK.as_u16() => answered_ok = count,
                    count => metrics.push(show(&code.to_string(), count)),
                }
            }
        }
        metrics.push(show(StatusCode::OK.as_str(), answered_ok));
        metrics
    }

    fn broken(&self) -> Vec<Metric> {
        vec![counter(
            &[("route", &self.route)],
            read(&self.upstream_broken),
        )]
    }

    fn exchanges(&self) -> Vec<Metric> {
        let histogram = self.upstream_durations.histogram();
        vec![metric(&[("route", &self.route)], |metric| {
            metric.set_histogram(histogram);
        })]
    }
}

impl OutcomeSeries {
    fn count(&self, reason: Option<Reason>) {
        let Some(reason) = reason else {
            return add_one(&self.without_reason);
        };
        let zeroes = || Box::new(std::array::from_fn(|_| AtomicU64::new(0)));
        if let Some(counter) = self.reasons.get_or_init(zeroes).get(reason.index()) {
            add_one(counter);
        }
    }
}

impl Durations {
    fn observe(&self, duration: Duration) {
        let bucket = BUCKETS.iter().take_while(|bound| duration > **bound);
        if let Some(counter) = self.counts.get(bucket.count()) {
            add_one(counter);
        }
        let micros = duration
            .saturating_add(Duration::from_nanos(500))
            .as_micros();
        let micros = u64::try_from(micros).unwrap_or_default();
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn histogram(&self) -> Histogram {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BUCKETS.len());
        let (within, beyond) = self.counts.split_at(BUCKETS.len());
        for (bound, counter) in BUCKETS.iter().zip(within) {
            count += read(counter);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        count += beyond.iter().map(read).sum::<u64>();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(Duration::from_micros(read(&self.micros)).as_secs_f64());
        histogram
    }
}

fn counter(labels: &[(&str, &str)], count: u64) -> Metric {
    series::counter(labels, number(count))
}

fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(registry: &Registry) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_sums_are_rounded_to_microseconds() {
        let registry = Registry::new();
        let route = Routes::new(&registry).route("github", &[]);
        for nanos in [3_000_000_000, 3_000_000_001, 31_000_000_000, 1_600] {
            route.observe_duration(Outcome::Forwarded, Duration::from_nanos(nanos));
        }
        let page = page(&registry);
        for line in [
            r#"_bucket{outcome="forwarded",route="github",le="0.001"} 1"#,
            r#"_bucket{outcome="forwarded",route="github",le="2.5"} 1"#,
            r#"_bucket{outcome="forwarded",route="github",le="3"} 2"#,
            r#"_bucket{outcome="forwarded",route="github",le="5"} 3"#,
            r#"_bucket{outcome="forwarded",route="github",le="30"} 3"#,
            r#"_bucket{outcome="forwarded",route="github",le="+Inf"} 4"#,
            r#"_sum{outcome="forwarded",route="github"} 37.000002"#,
            r#"_count{outcome="forwarded",route="github"} 4"#,
        ] {
            let line = format!("hookward_request_duration_seconds{line}\n");
            assert!(page.contains(&line), "{line}{page}");
        }
    }

    #[test]
    fn no_series_stands_on_the_page_twice() {
        let registry = Registry::new();
        let routes = Routes::new(&registry);
        let route = routes.route("github", &["_other".into(), "one".into()]);
        let unused = r#"{key_id="_other",route="github"} 0"#;
        assert!(page(&registry).contains(unused));
        route.key_used("_other");
        route.key_used("one");
        route.key_used("from the provider");
        routes
            .route("github", &["one".into(), "two".into()])
            .key_used("one");
        for code in [99, 100, 200, 204, 599, 999, 1000, u16::MAX] {
            route.upstream(Some(code), Duration::ZERO);
        }
        let page = page(&registry);
        let count = |series: &str| {
            let lines: Vec<_> = page.lines().filter(|line| line.contains(series)).collect();
            let [line] = *lines else {
                panic!("{series}: {lines:?}");
            };
            line.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(count(r#"{key_id="_other""#), "2");
        assert_eq!(count(r#"{key_id="one""#), "2");
        assert_eq!(count(r#"{key_id="two""#), "0");
        assert_eq!(count(r#"{code="none""#), "3");
        for code in [100, 200, 204, 599, 999] {
            assert_eq!(count(&format!(r#"{{code="{code}""#)), "1");
        }
    }
}
