//! The data path: one file per stage.
//!
//! [`Gateway::open`] opens the record of a request, and [`Gateway::answer`] closes it: it runs [`Gateway::judge`], which
//! lists the stages in the order that a request meets them, and answers. No YAML, no files, no listening sockets here.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::reason::Reason;
use crate::scheme::handshake::Reply;
use crate::settings::Plaintext;
use crate::shares::Shares;
use crate::telemetry::{Outcome, Telemetry};

pub mod admit;
pub mod body;
pub mod confirm;
pub mod connection;
mod deliver;
pub mod echo;
pub mod enrolment;
pub mod forward;
mod framing;
pub mod handshake;
pub mod head;
pub mod headers;
pub mod keys;
pub mod outgoing;
pub mod password;
pub mod promise;
pub mod quota;
pub mod record;
mod refuse;
pub mod rejection;
pub mod replay;
pub mod respond;
mod routed;
pub mod select;
pub mod snapshot;
pub mod verify;
pub mod well_formed;
pub mod whole;

use confirm::{Confirmations, TooMany};
use connection::Connection;
use deliver::{AnswerFields, Delivery};
use framing::Framing;
use head::Head;
use record::Record;
use refuse::{Refusal, refuse};
use rejection::Rejection;
use respond::Answer;
use routed::Routed;
use snapshot::{ListenerPolicy, RouteState, Snapshot};

/// What lives across snapshots: the state that requests share.
#[derive(Debug)]
pub struct Gateway {
    snapshot: ArcSwap<Snapshot>,
    in_flight: Arc<admit::InFlight>,
    budget: Arc<body::Budget>,
    awaited: Arc<Shares>,
    keys: keys::KeyCache,
    passwords: password::Passwords,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    confirmations: Confirmations,
    aside: whole::Aside,
    deliveries: TaskTracker,
    cutoff: CancellationToken,
}

/// Where the stages lead a request that is not refused.
enum Ready {
    /// To the app.
    Forward(Box<Delivery>),
    /// Nowhere: the app has this delivery already.
    Acknowledge(Arc<RouteState>, AnswerFields),
    /// To the same URL over https.
    Redirect(HeaderValue),
    /// Nowhere: it was a handshake, and this is the answer.
    Reply(Box<Reply>),
}

impl Gateway {
    /// A gateway that judges by `snapshot`.
    ///
    /// Fails when the system has no randomness.
    pub fn new(
        snapshot: Snapshot,
        telemetry: Telemetry,
        clock: Clock,
        fetch: Arc<dyn keys::Fetch>,
    ) -> Result<Self, getrandom::Error> {
        let metrics = Arc::clone(&telemetry.metrics);
        let keys = keys::KeyCache::new(Arc::clone(&fetch), clock.clone(), metrics);
        prepare_keys(&keys, &snapshot);
        Ok(Self {
            keys,
            confirmations: Confirmations::new(fetch, clock.clone()),
            snapshot: ArcSwap::from_pointee(snapshot),
            in_flight: Arc::new(admit::InFlight::new(Arc::clone(&telemetry.metrics))),
            budget: Arc::default(),
            awaited: Arc::default(),
            passwords: password::Passwords::new()?,
            telemetry: Arc::new(telemetry),
            clock,
            aside: whole::Aside::default(),
            deliveries: TaskTracker::new(),
            cutoff: CancellationToken::new(),
        })
    }

    /// From here on requests are judged by `snapshot`; those under way finish by their own.
    pub fn swap(&self, snapshot: Snapshot) {
        prepare_keys(&self.keys, &snapshot);
        self.snapshot.store(Arc::new(snapshot));
    }

    /// What requests are judged by now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Metrics and access log.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Requests that were let in, until the end of the app's answer or their refusal.
    pub fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Waits until every delivery has its answer.
    pub async fn drain(&self) {
        self.deliveries.close();
        self.deliveries.wait().await;
    }

    /// Refuses what is still waiting for its body, for its turn to be judged, or for the app: the drain deadline has come.
    pub fn cut_off(&self) {
        self.cutoff.cancel();
        self.aside.close();
    }

    /// Counts what was refused before it was a request.
    pub fn refused_by_http(&self, reason: Reason) {
        self.telemetry
            .metrics
            .unrouted()
            .count(Outcome::Rejected, Some(reason));
    }

    /// Answers one request, for who brings requests along, as benches do: [`Gateway::open`] and [`Gateway::answer`].
    pub fn handle<'a, B>(
        &'a self,
        connection: &'a Connection,
        request: Request<B>,
    ) -> impl Future<Output = Response<Answer>> + use<'a, B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let (parts, mut body) = request.into_parts();
        let record = self.open(connection, &parts);
        async move { self.answer(connection, parts, &mut body, record).await }
    }

    /// Opens the record of a request that has come, whether or not anybody gets to answer it.
    pub fn open(&self, connection: &Connection, request: &http::request::Parts) -> Box<Record> {
        let client = connection.peer.ip().to_canonical();
        let method = request.method.clone();
        Record::open(&self.telemetry, &self.clock, client, method)
    }

    /// Answers the request of `record`. What is left of its body then is the caller's to read, or to give up.
    pub fn answer<'a, B>(
        &'a self,
        connection: &'a Connection,
        parts: http::request::Parts,
        body: &'a mut B,
        mut record: Box<Record>,
    ) -> impl Future<Output = Response<Answer>> + use<'a, B>
    where
        B: Body<Data = Bytes> + Send + Unpin,
    {
        let framing = Framing::of(&parts);
        let is_head = parts.method == Method::HEAD;
        async move {
            let mut spare = HeaderMap::new();
            let judged = self.judge(connection, parts, body, &mut record, &mut spare);
            let judged = AssertUnwindSafe(judged)
                .catch_unwind()
                .await
                .unwrap_or_else(|_| {
                    Err(Rejection::new(Reason::Internal, "a stage panicked").into())
                });
            let mut refused = None;
            let mut response = match judged {
                Ok(Ready::Forward(delivery)) => self.deliver(delivery, record).await,
                Ok(Ready::Acknowledge(state, fields)) => {
                    let answers = &state.route.answers;
                    let response = respond::acknowledgement(answers, &record.request_id);
                    let response = respond::with_fields(response, fields);
                    record.duplicate(response.status().as_u16());
                    response
                }
                Ok(Ready::Reply(reply)) => self.reply(*reply, record),
                Ok(Ready::Redirect(location)) => {
                    let response = respond::redirect(location, &record.request_id);
                    let rejection = Rejection::new(Reason::HttpsRequired, "redirected to https");
                    record.refuse(&rejection, 308);
                    response
                }
                Err(refusal) => {
                    refused = Some(refusal.rejection.reason);
                    refuse(refusal, record, spare)
                }
            };
            if !framing.leaves_usable(body, refused).await {
                respond::close_connection(response.headers_mut());
            }
            if is_head {
                *response.body_mut() = Answer::default();
            }
            response
        }
    }

    /// The stages: everything that a request must pass before it goes anywhere. What is left of its head becomes that
    /// of its answer, which costs no memory then: by way of `spare`, where it is refused.
    async fn judge<B>(
        &self,
        connection: &Connection,
        parts: http::request::Parts,
        body: &mut B,
        record: &mut Record,
        spare: &mut HeaderMap,
    ) -> Result<Ready, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let snapshot = self.snapshot.load_full();
        let fallback = ListenerPolicy::default();
        let present = snapshot.listener(&connection.listener, connection.address);
        let listener = present.or(connection.policy.as_ref());
        let listener = listener.map_or(&fallback, |listener| &**listener);
        let head = read_head(&snapshot, listener, connection, parts, record)?;
        // A connection outlives its listener: plain HTTP passes only where that is written out now.
        match present.and_then(|listener| listener.plaintext) {
            _ if connection.tls.is_some() => {}
            Some(Plaintext::Allow) => {}
            None | Some(Plaintext::Reject) => {
                record.unrouted(&snapshot, &head);
                let detail = "plain HTTP on a listener that rejects it";
                return Err(Rejection::new(Reason::HttpsRequired, detail).into());
            }
            Some(Plaintext::Redirect) => {
                record.unrouted(&snapshot, &head);
                let location = redirect_target(&head, listener)?;
                return Ok(Ready::Redirect(location));
            }
        }
        if connection.is_disowned(listener) {
            record.path_only(&snapshot, head.path());
            let detail = "the proxy that introduced the connection is trusted no longer";
            return Err(Rejection::new(Reason::SourceDenied, detail)
                .closing()
                .into());
        }
        let found = select::select(&snapshot, &head);
        match &found {
            Ok(state) | Err((_, Some(state))) => record.routed(&snapshot, state, &head),
            Err((_, None)) => record.unrouted(&snapshot, &head),
        }
        let state = found.map_err(|(rejection, known)| Refusal {
            state: known.cloned(),
            ..rejection.into()
        })?;
        let routed = Routed {
            gateway: self,
            snapshot: &snapshot,
            listener,
            connection,
            state,
        };
        let mut ready = routed.judge(&head, body, record).await;
        let mut left = head.headers;
        left.clear();
        match &mut ready {
            Ok(Ready::Forward(delivery)) => delivery.request.spare = left,
            _ => *spare = left,
        }
        ready.map_err(|rejection| Refusal::of(Arc::clone(state), rejection))
    }

    /// Answers a handshake.
    fn reply(&self, mut reply: Reply, record: Box<Record>) -> Response<Answer> {
        match reply
            .fetch
            .take()
            .map(|url| self.confirmations.confirm(url))
        {
            // The provider does not ask again: a stop waits for it.
            Some(Ok(Some(call))) => drop(self.deliveries.spawn(call)),
            Some(Ok(None)) | None => {}
            Some(Err(TooMany)) => {
                let detail = "too many subscriptions are being confirmed";
                let rejection = Rejection::new(Reason::Overloaded, detail);
                return refuse(rejection.into(), record, HeaderMap::new());
            }
        }
        let status = reply.status.as_u16();
        let response = respond::handshake(reply, &record.request_id);
        record.handshake(status);
        response
    }
}

/// Fetches the keys that requests will want, so that the first of them need not wait.
fn prepare_keys(keys: &keys::KeyCache, snapshot: &Snapshot) {
    let states = snapshot.states();
    keys.prepare(
        &states
            .flat_map(|state| state.route.auth.key_urls())
            .collect(),
    );
}

/// Parses the head, and notes in `record` whose address the request has, which id a trusted proxy gave it, and the path
/// of one that it refuses. No part of the future that calls it, which would keep room for `parts` twice.
fn read_head(
    snapshot: &Snapshot,
    listener: &ListenerPolicy,
    connection: &Connection,
    mut parts: http::request::Parts,
    record: &mut Record,
) -> Result<Head, Rejection> {
    record.client_ip = connection.client_ip(listener, &parts.headers);
    if connection.is_trusted(listener) {
        record.keep_request_id(&parts.headers);
    }
    head::admit_size(&parts, snapshot.limits.header_bytes)?;
    head::parse(&mut parts, connection).inspect_err(|_refused| {
        if let Some(target) = parts.uri.path_and_query() {
            record.path_only(snapshot, target.path());
        }
    })
}

/// The same target over https, on the host that the operator named, else the one asked for.
fn redirect_target(head: &Head, listener: &ListenerPolicy) -> Result<HeaderValue, Rejection> {
    let origin = match &listener.public_origin {
        Some(origin) => origin.replacen("http://", "https://", 1),
        None => format!("https://{}", head.host.name),
    };
    HeaderValue::from_str(&format!("{origin}{}", head.target))
        .map_err(|_bad| Rejection::new(Reason::MalformedRequest, "the target cannot be a Location"))
}
