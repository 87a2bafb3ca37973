//! The only reader of clocks. Everything that judges time takes a [`Clock`] or a `UnixTime`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::units::UnixTime;

/// Time since the machine's start (`CLOCK_MONOTONIC`): what service managers compare with theirs.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// Wall-clock and monotonic time; by hand in tests.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: Instant },
    Manual { millis: Arc<AtomicI64> },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System {
            start: Instant::now(),
        })
    }

    /// A clock that stands at `now` until [`Clock::advance`] moves it.
    pub fn manual(now: UnixTime) -> Self {
        Self(Source::Manual {
            millis: Arc::new(AtomicI64::new(now.millis())),
        })
    }

    /// Wall-clock time: what timestamps and `not_after` are judged against. Follows clock jumps.
    pub fn now(&self) -> UnixTime {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the door")]
            Source::System { .. } => {
                let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
                    Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
                    Err(before) => {
                        -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX)
                    }
                };
                UnixTime::from_millis(millis)
            }
            Source::Manual { millis } => UnixTime::from_millis(millis.load(Ordering::Relaxed)),
        }
    }

    /// Time since some fixed moment; never goes back. What leases and windows are measured with.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { start } => start.elapsed(),
            Source::Manual { millis } => {
                Duration::from_millis(millis.load(Ordering::Relaxed).try_into().unwrap_or(0))
            }
        }
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { millis } = &self.0 {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(by, Ordering::Relaxed);
        }
    }
}
