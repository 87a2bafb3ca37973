//! What the program reports about itself: metrics, the access log and the operational log.
//!
//! A request costs atomics and one copy into a bounded buffer; nothing here waits for a reader.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::reason::Reason;

mod line;
pub mod log;
pub mod lossy;
pub mod metrics;
mod process;
pub mod routes;
mod series;

use log::AccessLog;
use metrics::Metrics;

/// The handle given to everything that reports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// One event per request.
    pub access: AccessLog,
    /// What has been said of faults of the gateway's own and of upstreams, and of too little room.
    pub faults: Arc<Faults>,
    /// What has been said of claims that end without the store's knowing.
    pub unsettled: Arc<Faults>,
}

/// Lets something that goes on happening be said once in 10 s.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seldom {
    last: Option<Instant>,
}

impl Seldom {
    const SAY_AGAIN: Duration = Duration::from_secs(10);

    /// Whether it is to be said now: then it counts as said.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.is_past(now);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }

    fn is_past(self, now: Instant) -> bool {
        let since = self.last.map(|last| now.saturating_duration_since(last));
        since.is_none_or(|since| since >= Self::SAY_AGAIN)
    }
}

/// A [`Seldom`] for several threads.
#[derive(Debug, Default)]
pub struct SharedSeldom(Mutex<Seldom>);

impl SharedSeldom {
    /// Whether it is to be said now: then it counts as said.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut seldom = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seldom.is_due(now)
    }
}

/// Lets one line for each route and cause into the operator's log in 10 s, however many requests meet it: anybody can send
/// requests while a store is away.
#[derive(Debug, Default)]
pub struct Faults(Mutex<HashMap<String, HashMap<Fault, Seldom>>>);

/// A kind of line: one reason may have several causes.
type Fault = (Reason, &'static str);

impl Faults {
    /// Whether this one is to be said.
    pub fn is_news(&self, route: &str, fault: Fault, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_route) = said.get_mut(route) {
            return of_route.entry(fault).or_default().is_due(now);
        }
        // Routes that are gone leave nothing.
        said.retain(|_, of_route| of_route.values().any(|said| !said.is_past(now)));
        let of_route = said.entry(route.to_owned()).or_default();
        of_route.entry(fault).or_default().is_due(now)
    }
}

impl Telemetry {
    /// Joins the two: the metrics page shows how many events the access log lost.
    pub fn new(metrics: Metrics, access: AccessLog) -> Self {
        metrics.show(access.dropped());
        Self {
            metrics: Arc::new(metrics),
            access,
            faults: Arc::default(),
            unsettled: Arc::default(),
        }
    }
}

/// How a request ended, whatever its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Verified and passed to the upstream.
    Forwarded,
    /// Refused, or lost on the way to the upstream.
    Rejected,
    /// A provider's URL validation, answered.
    Handshake,
    /// A delivery that had already arrived, acknowledged.
    Duplicate,
    /// Would have been refused; forwarded because the route only observes.
    Observed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Forwarded,
        Self::Rejected,
        Self::Handshake,
        Self::Duplicate,
        Self::Observed,
    ];

    /// Stable name: log field and metric label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Rejected => "rejected",
            Self::Handshake => "handshake",
            Self::Duplicate => "duplicate",
            Self::Observed => "observed",
        }
    }

    /// Position in [`Outcome::ALL`], for tables of counters.
    const fn index(self) -> usize {
        self as usize
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position() {
        for (position, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index(), position);
        }
    }
}
