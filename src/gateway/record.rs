//! What is said of one request: one access event and its counters, closed exactly once.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use uuid::fmt::Hyphenated;
use uuid::{NoContext, Timestamp, Uuid};

use super::head::Head;
use super::headers::X_REQUEST_ID;
use super::rejection::Rejection;
use super::select;
use super::snapshot::{RouteState, Snapshot};
use super::verify::Proof;
use crate::clock::{self, Clock};
use crate::reason::{Fault, Reason};
use crate::route::auth::Provider;
use crate::store::StoreError;
use crate::telemetry::log::AccessEvent;
use crate::telemetry::metrics::ROUTE_NONE;
use crate::telemetry::routes::RouteMetrics;
use crate::telemetry::{Outcome, Telemetry};
use crate::units::UnixTime;

/// Facts of one request, gathered while it passes the stages.
///
/// When it is dropped without being closed, the sender has gone: it is closed as incomplete.
#[derive(Debug)]
pub struct Record {
    telemetry: Arc<Telemetry>,
    clock: Clock,
    started: Duration,
    closed: bool,
    /// Id in log, answer and forwarded request.
    pub request_id: HeaderValue,
    /// Route, once chosen.
    route: Option<Arc<RouteState>>,
    /// Client address.
    pub client_ip: IpAddr,
    /// Method.
    pub method: Method,
    path: Path,
    /// Body bytes received.
    pub bytes_in: u64,
    /// Status that the upstream answered.
    upstream_status: Option<u16>,
    provider: Option<Arc<Provider>>,
    event_id: Option<Arc<str>>,
    key_id: Option<Arc<str>>,
}

/// The path as it may be logged: without query, secrets masked.
#[derive(Debug)]
enum Path {
    Unknown,
    /// Masked already: no route says which parts are secret.
    Masked(String),
    /// To be masked by the route.
    OfRoute(PathAndQuery),
}

impl Record {
    /// Opens the record of a request from `client_ip`. In a box, because each
    /// future that it is moved into would keep room for it.
    pub fn open(
        telemetry: &Arc<Telemetry>,
        clock: &Clock,
        client_ip: IpAddr,
        method: Method,
    ) -> Box<Self> {
        Box::new(Self {
            telemetry: Arc::clone(telemetry),
            clock: clock.clone(),
            started: clock.monotonic(),
            closed: false,
            request_id: new_request_id(clock.now()),
            route: None,
            client_ip,
            method,
            path: Path::Unknown,
            bytes_in: 0,
            upstream_status: None,
            provider: None,
            event_id: None,
            key_id: None,
        })
    }

    /// Keeps the id that a trusted proxy gave, when it is one.
    pub fn keep_request_id(&mut self, headers: &HeaderMap) {
        if let Some(id) = headers.get(X_REQUEST_ID)
            && (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(u8::is_ascii_graphic)
        {
            self.request_id = id.clone();
        }
    }

    /// The request belongs to this route.
    pub fn routed(&mut self, snapshot: &Snapshot, state: &Arc<RouteState>, head: &Head) {
        self.route = Some(Arc::clone(state));
        self.path = if snapshot.routes.may_stray(&state.route) {
            let own = select::loggable_path(&state.route, head.path());
            Path::Masked(snapshot.routes.mask_unmatched(&own))
        } else {
            Path::OfRoute(head.target.clone())
        };
    }

    /// The request belongs to no route of `snapshot`.
    pub fn unrouted(&mut self, snapshot: &Snapshot, head: &Head) {
        let path = snapshot.routes.mask_unmatched(head.path());
        let (host, request_id) = (
            &*head.host.name,
            self.request_id.to_str().unwrap_or_default(),
        );
        tracing::debug!(host, path, request_id, "it belongs to no route");
        self.path = Path::Masked(path);
    }

    /// The request is refused by its head, before a route is looked for.
    pub fn path_only(&mut self, snapshot: &Snapshot, path: &str) {
        self.path = Path::Masked(snapshot.routes.mask_unmatched(path));
    }

    /// Name of the route, as logs and metrics have it.
    pub fn route_name(&self) -> &str {
        let route = self.route.as_ref();
        route.map_or(ROUTE_NONE, |state| &state.route.name)
    }

    fn metrics(&self) -> &RouteMetrics {
        match &self.route {
            Some(state) => &state.metrics,
            None => self.telemetry.metrics.unrouted(),
        }
    }

    /// The request proved this.
    pub fn verified(&mut self, proof: &Proof) {
        self.provider.clone_from(&proof.provider);
        self.event_id.clone_from(&proof.event_id);
        self.key_id.clone_from(&proof.key_id);
        for key in &proof.keys {
            self.metrics().key_used(key);
        }
    }

    /// Counts an exchange with the upstream, and keeps its status; `None` when it gave no answer.
    pub fn upstream(&mut self, status: Option<u16>, took: Duration) {
        self.metrics().upstream(status, took);
        self.upstream_status = status;
    }

    /// Time since it was opened.
    pub fn elapsed(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// Closes with the app's answer, in the turn that it came in; `doubt` is what an observing route held against
    /// the request.
    pub fn forwarded(mut self: Box<Self>, doubt: Option<Reason>, status: u16) {
        let outcome = if doubt.is_some() {
            Outcome::Observed
        } else {
            self.metrics().accepted(self.clock.now());
            Outcome::Forwarded
        };
        self.write(outcome, doubt, Some(status));
    }

    /// Closes as a duplicate, acknowledged.
    pub fn duplicate(mut self: Box<Self>, status: u16) {
        clock::look_again();
        self.metrics().accepted(self.clock.now());
        self.write(Outcome::Duplicate, None, Some(status));
    }

    /// Closes as a handshake, answered.
    pub fn handshake(mut self: Box<Self>, status: u16) {
        clock::look_again();
        self.write(Outcome::Handshake, None, Some(status));
    }

    /// Closes as refused, and says in the operator's log what only an operator can mend.
    pub fn refuse(mut self: Box<Self>, rejection: &Rejection, status: u16) {
        clock::look_again();
        let route = self.route_name();
        let request_id = self.request_id.to_str().unwrap_or_default();
        let Rejection { reason, detail, .. } = rejection;
        match reason.row().fault {
            Fault::Gateway if self.is_news(*reason, detail) => {
                tracing::error!(route, request_id, reason = reason.code(), "{detail}");
            }
            // Of what there is too little, the reason alone does not say.
            Fault::Load if *reason == Reason::Overloaded && self.is_news(*reason, detail) => {
                tracing::warn!(route, request_id, reason = reason.code(), "{detail}");
            }
            // Of an upstream's it is said where it is found, with the server.
            Fault::Gateway | Fault::Load | Fault::Sender | Fault::Upstream => {
                tracing::debug!(route, request_id, reason = reason.code(), "{detail}");
            }
        }
        self.write(Outcome::Rejected, Some(*reason), Some(status));
    }

    /// Says that the store will not learn how a claim ended.
    pub fn unsettled(&self, error: StoreError, is_taken: bool) {
        let (route, faults) = (self.route_name(), &self.telemetry.unsettled);
        let which = if is_taken { "taken" } else { "not taken" };
        if !faults.is_news(route, (Reason::StateUnavailable, which), clock::now()) {
            return;
        }
        let request_id = self.request_id.to_str().unwrap_or_default();
        if is_taken {
            let message = "the replay store will not know that the app took a delivery: once its lease ends, another attempt will be forwarded";
            tracing::error!(route, request_id, %error, message);
        } else {
            let message = "the replay store will not know that the app did not take a delivery: until its lease ends, further attempts are refused";
            tracing::error!(route, request_id, %error, message);
        }
    }

    /// Whether the operational log is to say this of it: once in 10 s for each route and cause, a bug each time.
    pub(super) fn is_news(&self, reason: Reason, detail: &'static str) -> bool {
        reason == Reason::Internal || {
            let faults = &self.telemetry.faults;
            faults.is_news(self.route_name(), (reason, detail), clock::now())
        }
    }

    fn write(&mut self, outcome: Outcome, reason: Option<Reason>, status: Option<u16>) {
        self.closed = true;
        let took = self.elapsed();
        self.metrics().count(outcome, reason);
        self.metrics().observe_duration(outcome, took);
        if !self.telemetry.access.is_on() {
            return;
        }
        let path = match (&self.path, &self.route) {
            (Path::Masked(path), _) => Some(Cow::Borrowed(&**path)),
            (Path::OfRoute(target), Some(state)) => {
                Some(select::loggable_path(&state.route, target.path()))
            }
            (Path::OfRoute(_), None) | (Path::Unknown, _) => None,
        };
        self.telemetry.access.write(&AccessEvent {
            timestamp: self.clock.now(),
            request_id: self.request_id.to_str().unwrap_or_default(),
            route: self.route_name(),
            provider: self.provider.as_deref().map(Provider::name),
            outcome,
            reason,
            status,
            client_ip: Some(self.client_ip),
            method: self.method.as_str(),
            path: path.as_deref(),
            bytes_in: self.bytes_in,
            event_id: self.event_id.as_deref(),
            key_id: self.key_id.as_deref(),
            upstream_status: self.upstream_status,
            duration: took,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        clock::look_again();
        // The sender left, or the task that would have closed it panicked.
        let (reason, status) = if std::thread::panicking() {
            (Reason::Internal, Some(Reason::Internal.row().status))
        } else {
            (Reason::BodyIncomplete, None)
        };
        self.write(Outcome::Rejected, Some(reason), status);
    }
}

/// Ids are cut from blocks of this size: one allocation for a hundred of them.
const ID_BLOCK_BYTES: usize = 4096;

thread_local! {
    static IDS: RefCell<BytesMut> = RefCell::default();
}

fn new_request_id(now: UnixTime) -> HeaderValue {
    let mut text = [0; Hyphenated::LENGTH];
    let millis = u64::try_from(now.millis()).unwrap_or_default();
    let nanos = u32::try_from(millis % 1000).unwrap_or_default() * 1_000_000;
    let moment = Timestamp::from_unix(NoContext, millis / 1000, nanos);
    let id = Uuid::new_v7(moment).hyphenated().encode_lower(&mut text);
    let bytes = IDS.with_borrow_mut(|block| {
        if block.capacity() < id.len() {
            *block = BytesMut::with_capacity(ID_BLOCK_BYTES);
        }
        block.extend_from_slice(id.as_bytes());
        block.split().freeze()
    });
    HeaderValue::from_maybe_shared(bytes).unwrap_or(HeaderValue::from_static("unknown"))
}
