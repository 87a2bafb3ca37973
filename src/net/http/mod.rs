//! Connections of senders: HTTP/1.1 by ourselves, HTTP/2 by hyper, and the time that both may take.
//!
//! An HTTP library has no idle limit apart from its header limit, none for answers that nobody reads, and an HTTP/2
//! connection that never speaks is open for ever (SECURITY DS-03, H2-15, H2-16): [`Watch`] ends what waits too long.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::acme::Challenges;
use crate::gateway::Gateway;
use crate::gateway::connection::Connection;

mod body;
mod http1;
mod http2;
mod watch;

pub use http1::serve_http1;
pub use http2::serve_http2;
use watch::{End, Watch};

/// What a connection is served with.
#[derive(Debug)]
pub struct Serving {
    /// What is known of the connection.
    pub connection: Connection,
    /// The data path.
    pub gateway: Arc<Gateway>,
    /// Answers for ACME authorities, which ask on plaintext connections only.
    pub challenges: Option<Arc<Challenges>>,
}

/// Tells connections that the gateway stops, or that their listener does.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// From here on every HTTP/1.1 answer says that its connection closes, so that clients open the next one to a
    /// replica that stays. HTTP/2 needs no such time: its GOAWAY loses no request.
    pub announced: CancellationToken,
    /// From here on connections that wait for a request close, and the others after the requests under way.
    pub begun: CancellationToken,
}

impl Shutdown {
    /// A part of this shutdown that can also begin by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            announced: self.announced.child_token(),
            begun: self.begun.child_token(),
        }
    }
}

/// Counts what the client was waited for too long: a head, or that it reads.
fn count_timeout<T>(serving: &Serving, end: &End<T>, watch: &Watch) {
    if !matches!(end, End::Overdue) {
        return;
    }
    let peer = serving.connection.peer;
    let metrics = &serving.gateway.telemetry().metrics;
    // A client that never sent a byte, as a probe, has begun no head. Nor has one that only did not answer the
    // shutdown ping.
    if watch.is_unread() {
        tracing::debug!(%peer, "the client did not read its answer in time");
        metrics.write_timeouts.inc();
    } else if watch.is_within_head() && !watch.is_pinging() {
        tracing::debug!(%peer, "the head of a request did not come in time");
        metrics.header_timeouts.inc();
    }
}
