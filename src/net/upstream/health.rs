//! What is known of a server: what its health check found, and when a request last got no answer from it.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;

use crate::clock;
use crate::telemetry::Seldom;

/// How long a server that gave no answer is asked last, when there are others.
pub(super) const PASSIVE_DOWN: Duration = Duration::from_secs(10);
/// Most of that for a server that fails again each time it is tried.
const PASSIVE_DOWN_MAX: Duration = Duration::from_mins(5);

/// What is known of one server. Times are in milliseconds after `Cluster::started`.
#[derive(Debug)]
pub(super) struct Health {
    /// What the last active check found.
    is_healthy: AtomicBool,
    /// Until when a failure counts against it; 0 for none.
    down_until_ms: AtomicU64,
    /// How many trials in a row have cost a delivery.
    lost_trials: AtomicU32,
    /// Whether a request got no answer, and none has since.
    has_failed: AtomicBool,
    /// Held by whoever changes what is told.
    told: Mutex<Told>,
}

/// What the operator is told.
#[derive(Debug, Default)]
struct Told {
    failures: Seldom,
    /// Whether the log said that it failed, and not yet that it answers.
    is_failing: bool,
    /// Whether requests get answers, on the metrics page.
    shown: Option<IntGauge>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            is_healthy: AtomicBool::new(true),
            down_until_ms: AtomicU64::new(0),
            lost_trials: AtomicU32::new(0),
            has_failed: AtomicBool::new(false),
            told: Mutex::default(),
        }
    }
}

impl Health {
    /// What the last active check found.
    pub(super) fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    /// Until when a failure counts against it; 0 for none.
    pub(super) fn down_until_ms(&self) -> u64 {
        self.down_until_ms.load(Ordering::Relaxed)
    }

    /// How many trials in a row have cost a delivery.
    pub(super) fn lost_trials(&self) -> u32 {
        self.lost_trials.load(Ordering::Relaxed)
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_healthy() && self.down_until_ms() == 0
    }

    /// Remembers what a check found, and logs it when it has changed.
    pub(super) fn note_check(
        &self,
        upstream: &str,
        server: &dyn Display,
        found: anyhow::Result<()>,
    ) {
        let is_healthy = found.is_ok();
        let was_healthy = self.is_healthy.swap(is_healthy, Ordering::Relaxed);
        if was_healthy != is_healthy {
            self.show(&self.lock());
        }
        match found {
            Ok(()) => {
                if !was_healthy {
                    self.forgive(self.down_until_ms());
                    tracing::info!(upstream, %server, "server is healthy again");
                }
                self.note_answer(upstream, server);
            }
            Err(_) if !was_healthy => {}
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(upstream, %server, error, "server failed its health check");
            }
        }
    }

    /// A request or a check got its answer. Said where it was said that one got none.
    pub(super) fn note_answer(&self, upstream: &str, server: &dyn Display) {
        if !self.has_failed.load(Ordering::Relaxed) {
            return;
        }
        let mut told = self.lock();
        self.has_failed.store(false, Ordering::Relaxed);
        self.show(&told);
        let is_news = std::mem::take(&mut told.is_failing);
        drop(told);
        if is_news {
            tracing::info!(upstream, %server, "server answers again");
        }
    }

    /// A request got no answer, and its sender is told so.
    pub(super) fn note_failure(&self) {
        self.fails();
    }

    /// A request goes to another server instead. Said where the last one had got its answer.
    pub(super) fn note_passed_over(&self, upstream: &str, server: &dyn Display, why: &str) {
        if self.fails() {
            let message = "server cannot be reached: others are asked before it";
            tracing::warn!(upstream, %server, error = why, message);
        }
    }

    /// Whether that is news: it did not before, nor in the last 10 s, for a server may come and go.
    fn fails(&self) -> bool {
        if self.has_failed.load(Ordering::Relaxed) {
            return false;
        }
        let mut told = self.lock();
        let had_failed = self.has_failed.swap(true, Ordering::Relaxed);
        self.show(&told);
        let is_news = !had_failed && told.failures.is_due(clock::now());
        told.is_failing |= is_news;
        is_news
    }

    /// Shows on `gauge`, from now on, whether requests get answers; nowhere without one.
    pub(super) fn show_on(&self, gauge: Option<IntGauge>) {
        let mut told = self.lock();
        told.shown = gauge;
        self.show(&told);
    }

    fn show(&self, told: &Told) {
        if let Some(gauge) = &told.shown {
            let is_up = self.is_healthy() && !self.has_failed.load(Ordering::Relaxed);
            gauge.set(is_up.into());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the failure at `mark`, if there was no other since. Mostly there is none: then nothing is written,
    /// because all workers read it.
    pub(super) fn forgive(&self, mark: u64) {
        if mark != 0 && self.moves_down_time(mark, 0) {
            self.lost_trials.store(0, Ordering::Relaxed);
        }
    }

    /// Whether its time after a failure has passed and this request is the one that tries it. The others leave it
    /// alone for as long as that can take: it may hang.
    pub(super) fn begins_trial(&self, now_ms: u64, trial: Duration) -> bool {
        let mark = self.down_until_ms();
        self.is_healthy()
            && (1..=now_ms).contains(&mark)
            && self.moves_down_time(mark, after(now_ms, trial))
    }

    /// Changes `down_until_ms` from `mark`; `false` if it was no longer that.
    fn moves_down_time(&self, mark: u64, until_ms: u64) -> bool {
        let until = &self.down_until_ms;
        let moved = until.compare_exchange(mark, until_ms, Ordering::Relaxed, Ordering::Relaxed);
        moved.is_ok()
    }

    pub(super) fn is_down_for(&self, time: Duration, now_ms: u64) {
        let until_ms = after(now_ms, time);
        self.down_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Counts a trial that cost a delivery; those that began when as many had failed count once.
    pub(super) fn count_lost_trial(&self, before: u32) {
        let lost = &self.lost_trials;
        let more = before.saturating_add(1);
        lost.compare_exchange(before, more, Ordering::Relaxed, Ordering::Relaxed)
            .ok();
    }

    /// How long it is left alone after a failure that cost a delivery: twice as long after each trial that did.
    pub(super) fn time_off(&self) -> Duration {
        let time = PASSIVE_DOWN.saturating_mul(2_u32.saturating_pow(self.lost_trials()));
        time.min(PASSIVE_DOWN_MAX)
    }
}

/// This much later, in milliseconds.
fn after(now_ms: u64, time: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Health {
        /// One that a check found so, and that has failed until then.
        pub(crate) fn found(is_healthy: bool, down_until_ms: u64) -> Self {
            Self {
                is_healthy: AtomicBool::new(is_healthy),
                down_until_ms: AtomicU64::new(down_until_ms),
                ..Self::default()
            }
        }
    }

    #[test]
    fn what_is_shown_is_what_was_found_last() {
        let health = Health::default();
        let gauge = IntGauge::new("up", "Whether it answers.").unwrap();
        health.show_on(Some(gauge.clone()));
        let (name, server) = ("app", &"http://app");
        // However soon one follows the other.
        for _ in 0..3 {
            health.note_passed_over(name, server, "refused");
            assert_eq!(gauge.get(), 0);
            health.note_answer(name, server);
            assert_eq!(gauge.get(), 1);
        }
        health.note_failure();
        health.note_check(name, server, Ok(()));
        assert_eq!(gauge.get(), 1, "a check is an answer too");
        health.note_failure();
        health.note_check(name, server, Err(anyhow::anyhow!("it answered 503")));
        health.note_answer(name, server);
        assert_eq!(gauge.get(), 0, "the check counts");
        health.note_check(name, server, Ok(()));
        assert_eq!(gauge.get(), 1);
        health.show_on(None);
        health.note_failure();
        assert_eq!(gauge.get(), 1, "another one is shown there now");
    }

    #[test]
    fn a_failure_is_not_forgiven_for_an_older_request() {
        let health = Health::default();
        let when_it_was_asked = health.down_until_ms();
        health.is_down_for(Duration::from_secs(90), 0);
        health.forgive(when_it_was_asked);
        assert_eq!(health.down_until_ms(), 90_000);
        health.forgive(80_000);
        assert_eq!(health.down_until_ms(), 90_000, "it failed again");
        health.forgive(90_000);
        assert!(health.is_up());
    }

    #[test]
    fn trials_that_cost_deliveries_become_rare() {
        // SECURITY U-17
        let health = Health::default();
        let mut times = Vec::new();
        for lost in 0..8 {
            times.push(health.time_off().as_secs());
            // Two that were under way at the same time.
            health.count_lost_trial(lost);
            health.count_lost_trial(lost);
        }
        assert_eq!(times, [10, 20, 40, 80, 160, 300, 300, 300]);
        health.is_down_for(health.time_off(), 1000);
        health.forgive(301_000);
        assert_eq!(health.time_off(), PASSIVE_DOWN);
    }
}
