//! `/livez` and `/readyz`.
//!
//! Live means that the process can answer: nothing outside it, so that an upstream's failure never
//! restarts the gateway. Ready means that it wants requests: not before its first configuration is
//! served, all through reloads (a bad file changes nothing), and not from the first moment of a drain.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::{AdminState, text};

/// Whether the gateway wants requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Readiness {
    /// Not yet.
    #[default]
    Starting,
    /// Yes.
    Ready,
    /// No more.
    Draining,
}

/// A [`Readiness`] that many read and one sets.
#[derive(Debug, Default)]
pub(super) struct ReadinessCell(AtomicU8);

impl ReadinessCell {
    pub(super) fn set(&self, readiness: Readiness) {
        self.0.store(readiness as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Readiness {
        let stored = self.0.load(Ordering::Relaxed);
        [Readiness::Starting, Readiness::Ready]
            .into_iter()
            .find(|readiness| *readiness as u8 == stored)
            .unwrap_or(Readiness::Draining)
    }
}

pub(super) fn live(_: &AdminState) -> Response<Full<Bytes>> {
    text(StatusCode::OK, "ok\n")
}

pub(super) fn ready(state: &AdminState) -> Response<Full<Bytes>> {
    match state.readiness() {
        Readiness::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Readiness::Ready => text(StatusCode::OK, "ready\n"),
        Readiness::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}
