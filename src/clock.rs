//! The only reader of the wall clock. Everything that judges time takes a [`Clock`] or a `UnixTime`.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::units::UnixTime;

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::NONE) };
}

/// What was read of the machine's clocks in this turn.
#[derive(Clone, Copy)]
struct Turn {
    is_on: bool,
    now: Option<Instant>,
    wall: Option<UnixTime>,
}

impl Turn {
    const NONE: Self = Self {
        is_on: false,
        now: None,
        wall: None,
    };
}

/// Runs one turn of a task, in which time stands still until somebody wants to [`look_again`]: the machine's
/// clocks are read once. A request wants to know the time twenty times, and its turns take microseconds.
pub fn turn<T>(run: impl FnOnce() -> T) -> T {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            TURN.set(Turn::NONE);
        }
    }
    if TURN.get().is_on {
        return run();
    }
    TURN.set(Turn {
        is_on: true,
        ..Turn::NONE
    });
    let _end = End;
    run()
}

/// Has the next look in this turn be at the clocks themselves: for what measures the turn.
pub fn look_again() {
    TURN.set(Turn {
        is_on: TURN.get().is_on,
        ..Turn::NONE
    });
}

/// This moment, for deadlines and durations; that of the turn, in a [`turn`].
pub fn now() -> Instant {
    let turn = TURN.get();
    turn.now.unwrap_or_else(|| {
        let now = Instant::now();
        if turn.is_on {
            TURN.set(Turn {
                now: Some(now),
                ..turn
            });
        }
        now
    })
}

/// Wall-clock time of this moment, for what only tells it; what judges by it takes a [`Clock`].
pub fn wall() -> UnixTime {
    let turn = TURN.get();
    turn.wall.unwrap_or_else(|| {
        #[expect(clippy::disallowed_methods, reason = "this is the door")]
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        let wall = UnixTime::from_millis(millis);
        if turn.is_on {
            TURN.set(Turn {
                wall: Some(wall),
                ..turn
            });
        }
        wall
    })
}

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
        Self(Source::System { start: now() })
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
            Source::System { .. } => wall(),
            Source::Manual { millis } => UnixTime::from_millis(millis.load(Ordering::Relaxed)),
        }
    }

    /// Time since some fixed moment; never goes back. What leases and windows are measured with.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { start } => now().saturating_duration_since(*start),
            Source::Manual { millis } => {
                Duration::from_millis(millis.load(Ordering::Relaxed).try_into().unwrap_or(0))
            }
        }
    }

    /// Milliseconds by which the wall clock is ahead of the monotonic one: it changes when the wall
    /// clock is set.
    fn lead(&self) -> i64 {
        let monotonic = i64::try_from(self.monotonic().as_millis()).unwrap_or(i64::MAX);
        self.now().millis().saturating_sub(monotonic)
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { millis } = &self.0 {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(by, Ordering::Relaxed);
        }
    }
}

/// Least that a wall clock which is kept in step by small corrections does not move between two looks.
const STEP_MIN_MS: i64 = 2000;

/// Notices when the wall clock was set (SECURITY S-06).
#[derive(Debug)]
pub struct Steps {
    clock: Clock,
    lead: i64,
}

impl Steps {
    /// Those of `clock`, from now on.
    pub fn of(clock: Clock) -> Self {
        let lead = clock.lead();
        Self { clock, lead }
    }

    /// Seconds by which it was set forward, or back, since the last look.
    pub fn last(&mut self) -> Option<i64> {
        let lead = self.clock.lead();
        let step = lead.saturating_sub(self.lead);
        self.lead = lead;
        (step.saturating_abs() >= STEP_MIN_MS).then_some(step / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_in_a_turn_and_goes_on_after_it() {
        let clock = Clock::system();
        let read = || (clock.monotonic(), now());
        let pass = || {
            let before = Instant::now();
            while before.elapsed() < Duration::from_micros(10) {
                std::hint::spin_loop();
            }
        };
        let (first, last) = turn(|| {
            let first = read();
            pass();
            // A turn inside is part of it.
            let inner = turn(read);
            pass();
            assert_eq!(inner, first);
            (first, read())
        });
        assert_eq!(first, last);
        turn(|| {
            let first = read();
            pass();
            look_again();
            let last = read();
            assert!(last > first);
            pass();
            assert_eq!(read(), last);
        });
        pass();
        assert!(read() > last && now() > last.1);
        // One that panics ends as well.
        let panicked = std::panic::catch_unwind(|| turn(|| panic!("as if by a bug")));
        assert!(panicked.is_err());
        let before = read();
        pass();
        assert!(read() > before);
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_once() {
        // SECURITY S-06
        let mut steps = Steps::of(Clock::system());
        assert_eq!(steps.last(), None);
        for (ahead, seconds) in [(-172_800_000, 172_800), (3_600_000, -3600)] {
            steps.lead += ahead;
            let found = steps.last().unwrap();
            assert!((found - seconds).abs() <= 1, "{found}");
            assert_eq!(steps.last(), None);
        }
        steps.lead = i64::MAX;
        assert!(steps.last().is_some());
    }
}
