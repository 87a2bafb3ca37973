//! The data path: one file per stage.
//!
//! [`Gateway::open`] opens the record of a request, and [`Gateway::answer`] closes it: it runs [`Gateway::judge`], which
//! lists the stages in the order that a request meets them, and answers. No YAML, no files, no listening sockets here.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body::Body;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::clock::{self, Clock};
use crate::reason::Reason;
use crate::route::policy::Mode;
use crate::scheme::handshake::Reply;
use crate::settings::Plaintext;
use crate::shares::Shares;
use crate::telemetry::{Outcome, Telemetry};

pub mod admit;
pub mod body;
pub mod confirm;
pub mod connection;
pub mod echo;
pub mod enrolment;
pub mod forward;
pub mod handshake;
pub mod head;
pub mod headers;
pub mod keys;
pub mod outgoing;
pub mod password;
pub mod promise;
pub mod quota;
pub mod record;
pub mod rejection;
pub mod replay;
pub mod respond;
pub mod select;
pub mod snapshot;
pub mod verify;
pub mod well_formed;
pub mod whole;

use body::{BodyLimits, Hold, Received, Room};
use confirm::{Confirmations, TooMany};
use connection::Connection;
use forward::{Forwarding, Unread, UpstreamError};
use head::Head;
use outgoing::Outgoing;
use record::Record;
use rejection::{Form, Rejection};
use replay::{Claimed, Claims};
use respond::Answer;
use snapshot::{ListenerPolicy, RouteState, Snapshot};
use verify::{Presented, Proof};
use whole::{Case, Means};

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

/// What a request's head says of how it is sent: whether its connection can have another one.
struct Framing {
    version: Version,
    /// It waits for our word before it sends its body.
    expects: bool,
    /// A sender of old that says no length means that its body ends with the connection: what follows the head is no
    /// request (SECURITY SM-10).
    is_unframed: bool,
    /// It asks for what is no delivery to anybody.
    is_foreign: bool,
}

impl Framing {
    fn of(head: &http::request::Parts) -> Self {
        let has_length = head.headers.contains_key(header::CONTENT_LENGTH);
        Self {
            version: head.version,
            expects: head.headers.contains_key(header::EXPECT),
            is_unframed: head.version == Version::HTTP_10 && !has_length,
            is_foreign: !head::may_deliver(&head.method, &head.uri),
        }
    }

    /// Reads what is left of a body that is not too long, and says whether another request may follow it.
    async fn leaves_usable<B>(self, mut body: B, refused: Option<Reason>) -> bool
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let is_read = body.is_end_stream();
        if self.version == Version::HTTP_2 {
            // A reset of the stream would take the answer from senders that still send (SECURITY SM-17).
            if !is_read {
                tokio::spawn(body::linger(body));
            }
            return true;
        }
        let is_hopeless =
            refused.is_some_and(|reason| self.is_foreign || reason.leaves_framing_in_doubt());
        if is_hopeless || self.is_unframed {
            return false;
        }
        is_read || (!self.expects && body::is_discardable(&body) && body::discard(&mut body).await)
    }
}

/// A verified request on its way to the app.
struct Delivery {
    state: Arc<RouteState>,
    request: Outgoing,
    claims: Claims,
    doubt: Option<Reason>,
    answer_fields: AnswerFields,
    permit: admit::Permit,
    hold: Hold,
}

/// A request that goes nowhere.
struct Refusal {
    rejection: Rejection,
    /// The route that it would have gone to.
    state: Option<Arc<RouteState>>,
}

impl Refusal {
    fn of(state: Arc<RouteState>, rejection: Rejection) -> Self {
        Self {
            rejection,
            state: Some(state),
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            state: None,
        }
    }
}

/// Fields that a provider wants to read in the answer.
type AnswerFields = Vec<(HeaderName, HeaderValue)>;

/// What an observing route holds against a request that it lets pass.
struct Doubts {
    mode: Mode,
    first: Option<Reason>,
}

impl Doubts {
    /// `Ok(None)` is a refusal that does not bite.
    fn weigh<T>(&mut self, verdict: Result<T, Rejection>) -> Result<Option<T>, Rejection> {
        match verdict {
            Ok(value) => Ok(Some(value)),
            Err(rejection) if self.mode == Mode::Observe && rejection.reason.is_observable() => {
                self.first.get_or_insert(rejection.reason);
                Ok(None)
            }
            Err(rejection) => Err(rejection),
        }
    }
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

    /// Requests between their head and the end of their answer.
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

    /// Counts a request that the HTTP library refused before it was one.
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
        let record = self.open(connection, &request);
        self.answer(connection, request, record)
    }

    /// Opens the record of a request that has come, whether or not anybody gets to answer it.
    pub fn open<B>(&self, connection: &Connection, request: &Request<B>) -> Record {
        let (client, method) = (connection.peer.ip(), request.method().clone());
        Record::open(&self.telemetry, &self.clock, client, method)
    }

    /// Answers the request of `record`.
    pub async fn answer<B>(
        &self,
        connection: &Connection,
        request: Request<B>,
        mut record: Record,
    ) -> Response<Answer>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let (parts, mut body) = request.into_parts();
        let framing = Framing::of(&parts);
        let is_head = parts.method == Method::HEAD;
        let mut spare = HeaderMap::new();
        let judged = self.judge(connection, parts, &mut body, &mut record, &mut spare);
        let judged = AssertUnwindSafe(judged)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(Rejection::new(Reason::Internal, "a stage panicked").into()));
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
        record.client_ip = connection.client_ip(listener, &parts.headers);
        if connection.is_trusted(listener) {
            record.keep_request_id(&parts.headers);
        }
        let head = head::admit_size(&parts, snapshot.limits.header_bytes)
            .and_then(|()| head::parse(parts, connection))?;
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
    fn reply(&self, mut reply: Reply, record: Record) -> Response<Answer> {
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

    /// Sends a delivery: once claimed, it is finished even if the sender hangs up.
    async fn deliver(&self, delivery: Box<Delivery>, record: Record) -> Response<Answer> {
        let request_id = record.request_id.clone();
        let finished = Finished {
            exchange: Some(Box::pin(exchange(delivery, record, self.cutoff.clone()))),
            deliveries: &self.deliveries,
            _counted: self.deliveries.token(),
        };
        AssertUnwindSafe(finished)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                let rejection = Rejection::new(Reason::Internal, "a delivery panicked");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                respond::refusal(&rejection, status, false, &request_id, HeaderMap::new())
            })
    }
}

/// A delivery under way. When its sender hangs up, what is left of it goes on in a task of its own.
struct Finished<'a> {
    /// `None` once it is done, and while it runs.
    exchange: Option<Pin<Box<dyn Future<Output = Response<Answer>> + Send>>>,
    deliveries: &'a TaskTracker,
    _counted: TaskTrackerToken,
}

impl Future for Finished<'_> {
    type Output = Response<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Answer>> {
        // Out while it runs: one that panics must not run on.
        let Some(mut exchange) = self.exchange.take() else {
            return Poll::Pending;
        };
        let polled = exchange.as_mut().poll(cx);
        if polled.is_pending() {
            self.exchange = Some(exchange);
        }
        polled
    }
}

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        if let (Some(exchange), Ok(runtime)) = (self.exchange.take(), Handle::try_current()) {
            self.deliveries.spawn_on(exchange, &runtime);
        }
    }
}

/// A request that has found its route.
struct Routed<'a> {
    gateway: &'a Gateway,
    snapshot: &'a Snapshot,
    listener: &'a ListenerPolicy,
    connection: &'a Connection,
    state: &'a Arc<RouteState>,
}

/// What verification leads to.
struct Judged {
    received: Received,
    /// `None` where an observing route lets the request pass without one.
    proof: Option<Proof>,
    /// The answer to a handshake.
    reply: Option<Box<Reply>>,
}

impl Routed<'_> {
    /// The stages of a request that has its route, in order.
    async fn judge<B>(
        &self,
        head: &Head,
        body: &mut B,
        record: &mut Record,
    ) -> Result<Ready, Rejection>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let state = self.state;
        let mut doubts = Doubts {
            mode: state.route.mode,
            first: None,
        };
        let permit = self.admit(record.client_ip, &mut doubts).await?;
        let judged = self.verify(head, body, record, &mut doubts).await?;
        let Judged {
            received,
            proof,
            reply,
        } = judged;
        if let Some(proof) = &proof {
            record.verified(proof);
        }
        // Where anything is held against it, an observing route leaves the answer to the app.
        if let Some(mut reply) = reply.filter(|_| doubts.first.is_none()) {
            if let Some(enrolled) = reply.enrolled.take() {
                enrolment::hand_over(enrolled, &state.route.name).await?;
            }
            return Ok(Ready::Reply(reply));
        }
        let claims = match self.claim(proof.as_ref(), &mut doubts).await? {
            Claimed::Duplicate => {
                let fields = proof.map(|proof| proof.answer_fields).unwrap_or_default();
                return Ok(Ready::Acknowledge(Arc::clone(state), fields));
            }
            Claimed::New(claims) => claims,
        };
        // The route's limit is for verified requests that the app is to get: handshakes, duplicates, and what an
        // observing route only lets pass must not use it up.
        let mut held = replay::Held::new(claims);
        if doubts.first.is_none() {
            doubts.weigh(admit::quota(&state.route_limits, record.client_ip).await)?;
        }
        let proof = proof.unwrap_or_default();
        let request = forward::build(Forwarding {
            head,
            body: received.content,
            state,
            connection: self.connection,
            is_trusted: self.connection.is_trusted(self.listener),
            verdict: doubts.first.map_or(Ok(&proof), Err),
            request_id: &record.request_id,
        });
        let request = request
            .map_err(|reason| Rejection::new(reason, "the forwarded target cannot be built"))?;
        Ok(Ready::Forward(Box::new(Delivery {
            state: Arc::clone(state),
            request,
            claims: held.take(),
            doubt: doubts.first,
            answer_fields: proof.answer_fields,
            permit,
            hold: received.hold,
        })))
    }

    /// Sources, limits and room.
    async fn admit(&self, client: IpAddr, doubts: &mut Doubts) -> Result<admit::Permit, Rejection> {
        let Self {
            gateway,
            snapshot,
            state,
            ..
        } = self;
        doubts.weigh(admit::source(&state.route.sources, client))?;
        doubts.weigh(admit::quota(&state.client_limits, client).await)?;
        gateway.in_flight.admit(
            snapshot.limits.requests_in_flight,
            state.load.as_ref(),
            snapshot.upstream_max.requests,
        )
    }

    /// The checks by the head alone, the body, the checks that need it, and handshakes.
    async fn verify<B>(
        &self,
        head: &Head,
        body: &mut B,
        record: &mut Record,
        doubts: &mut Doubts,
    ) -> Result<Judged, Rejection>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Self {
            gateway,
            listener,
            connection,
            ..
        } = self;
        let route = &*self.state.route;
        let url = head::sender_url(head, listener.public_origin.as_ref());
        let client = connection.tls.as_ref().and_then(|tls| tls.client.as_ref());
        let presented = Presented {
            head,
            route,
            url: &url,
            client,
            fetched: None,
        };
        let could_be_handshake = handshake::could_be(presented);
        if !could_be_handshake {
            admit::method(route, &head.method)?;
        }
        let now = gateway.clock.now();
        let progress = verify::from_head(presented, &gateway.passwords, now).await;
        if progress.as_ref().is_err_and(Rejection::is_of_signature) {
            // A signature is of a body: one that would not be read is refused for that first.
            promise::body(&route.body, &head.headers, could_be_handshake)?;
        }
        let progress = doubts.weigh(progress)?;
        promise::body(&route.body, &head.headers, could_be_handshake)?;
        let mut received = self.receive(body, record).await?;
        let means = Means {
            keys: &gateway.keys,
            clock: &gateway.clock,
            client: record.client_ip,
        };
        let verdict = if received.content.len() <= self.state.at_once_bytes {
            let content = &received.content;
            whole::judge(presented, progress, content, could_be_handshake, means).await
        } else {
            let case = Case {
                progress,
                received,
                could_be_handshake,
            };
            let judged = gateway.aside.judge(presented, self.state, case, means);
            let (back, verdict) = Box::pin(judged).await?;
            received = back;
            verdict
        };
        let (proof, reply) = doubts.weigh(verdict)?.flatten().unzip();
        let reply = reply.flatten();
        Ok(Judged {
            received,
            proof,
            reply,
        })
    }

    /// The body, whole.
    async fn receive<B>(&self, body: &mut B, record: &mut Record) -> Result<Received, Rejection>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Self {
            gateway,
            snapshot,
            state,
            listener,
            ..
        } = self;
        let address = record.client_ip;
        // Who speaks for others is not one client.
        let is_proxy = listener.trusts(address);
        let awaited_max = snapshot.limits.awaited_bodies_of(address);
        let sender = body::Sender {
            address,
            awaited: &gateway.awaited,
            awaited_max: if is_proxy { usize::MAX } else { awaited_max },
        };
        let limits = BodyLimits {
            size_max: state.route.body.size_max.0,
            timeout: snapshot.limits.body_timeout,
            rate_min: snapshot.limits.body_min_rate.0,
        };
        let of_all = Room {
            budget: Arc::clone(&gateway.budget),
            max: snapshot.limits.body_memory.0,
        };
        let of_upstream = state.load.as_ref().map(|load| Room {
            budget: Arc::clone(&load.bodies),
            max: snapshot.upstream_max.body_bytes,
        });
        let hold = Hold::new(of_all, of_upstream);
        let received = &mut record.bytes_in;
        body::read(&mut *body, limits, hold, sender, &gateway.cutoff, received).await
    }

    /// The right to deliver, where the route looks for replays.
    async fn claim(
        &self,
        proof: Option<&Proof>,
        doubts: &mut Doubts,
    ) -> Result<Claimed, Rejection> {
        let Self {
            snapshot, state, ..
        } = self;
        let Some(proof) = proof else {
            return Ok(Claimed::New(Claims::new()));
        };
        let claimed = replay::claim(&snapshot.replay, state, proof).await;
        match doubts.weigh(claimed)? {
            Some(Claimed::Duplicate) if doubts.mode == Mode::Observe => {
                doubts.first.get_or_insert(Reason::Replayed);
                Ok(Claimed::New(Claims::new()))
            }
            Some(claimed) => Ok(claimed),
            None => Ok(Claimed::New(Claims::new())),
        }
    }
}

/// Fetches the keys that requests will want, so that the first of them need not wait.
fn prepare_keys(keys: &keys::KeyCache, snapshot: &Snapshot) {
    for state in snapshot.states() {
        for url in state.route.auth.key_urls() {
            keys.prepare(url);
        }
    }
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

fn refuse(refusal: Refusal, record: Record, spare: HeaderMap) -> Response<Answer> {
    let Refusal {
        mut rejection,
        state,
    } = refusal;
    let route = state.as_ref().map(|state| &*state.route);
    let answers = route.map(|route| &*route.answers);
    let (mut is_empty, of_handshake) = match rejection.form {
        Form::Empty(status) => (true, status),
        Form::Problem => (answers.is_some_and(|answers| answers.reject_empty), None),
    };
    // What the operator wrote wins over what the provider wants, and that over the table.
    let of_operator = route.and_then(|route| route.reject_status);
    let of_provider = answers.and_then(|answers| answers.reject_status);
    let status = of_operator
        .filter(|_| rejection.is_unauthorized())
        .or(of_handshake)
        .or(of_provider.filter(|_| rejection.is_unauthorized()))
        .or_else(|| StatusCode::from_u16(rejection.reason.row().status).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(route) = route.filter(|_| status == StatusCode::METHOD_NOT_ALLOWED)
        && rejection.fields.is_empty()
    {
        rejection.fields = select::method_not_allowed([route]).fields;
    }
    // These have no content (RFC 9110 15.3.5 and 15.3.6).
    is_empty |= matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    let response = respond::refusal(&rejection, status, is_empty, &record.request_id, spare);
    record.refuse(&rejection, status.as_u16());
    response
}

/// One exchange with the app; commits the claim when the app took the delivery, else releases it.
async fn exchange(
    delivery: Box<Delivery>,
    mut record: Record,
    cutoff: CancellationToken,
) -> Response<Answer> {
    let Delivery {
        state,
        request,
        claims,
        doubt,
        answer_fields,
        permit,
        hold,
    } = *delivery;
    if cutoff.is_cancelled() {
        // Sent now, it would be refused before it is answered.
        replay::settle(claims, false, &record).await;
        let detail = "the drain deadline came before it was sent";
        let refusal = Refusal::of(state, Rejection::new(Reason::Draining, detail));
        return refuse(refusal, record, HeaderMap::new());
    }
    clock::look_again();
    let started = record.elapsed();
    let answer = tokio::select! {
        biased;
        answer = state.upstream.send(request, state.route.forward.timeout) => answer,
        () = cutoff.cancelled() => {
            Err(UpstreamError::Timeout("it was not waited for beyond `limits.drain_timeout`".into()))
        }
        never = replay::Renewal::new(&claims, state.lease) => match never {},
    };
    let took = record.elapsed().saturating_sub(started);
    let is_unread = answer
        .as_ref()
        .is_ok_and(|answer| answer.extensions().get::<Unread>().is_some());
    // What the app has yet to take is still in memory.
    let hold = Some(hold).filter(|_| is_unread);
    let said_yes = answer
        .as_ref()
        .is_ok_and(|answer| answer.status().is_success());
    if said_yes && is_unread {
        let (route, request_id) = (&*state.route.name, record.request_id.to_str().unwrap_or(""));
        let message = "the app said yes before it had read all of a delivery: another attempt will be forwarded";
        tracing::warn!(route, request_id, message);
    }
    replay::settle(claims, said_yes && !is_unread, &record).await;
    match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            record.upstream(Some(status), took);
            let mut response = respond::passed_back(answer);
            response.body_mut().keep(permit, hold);
            response
                .body_mut()
                .belongs_to(&state.route.name, &record.request_id);
            let response = respond::with_fields(response, answer_fields);
            record.forwarded(doubt, status);
            response
        }
        Err(error) => {
            record.upstream(None, took);
            failed(&error, state, record)
        }
    }
}

/// The answer where the app gave none.
fn failed(error: &UpstreamError, state: Arc<RouteState>, record: Record) -> Response<Answer> {
    let (route, request_id) = (&*state.route.name, record.request_id.to_str().unwrap_or(""));
    let rejection = Rejection::new(error.reason(), "the delivery failed");
    let reason = rejection.reason.code();
    if record.is_news(&rejection) {
        let message = "a delivery failed (said once in 10 s for each route and reason)";
        tracing::warn!(route, request_id, reason, %error, message);
    } else {
        tracing::debug!(route, request_id, reason, %error, "a delivery failed");
    }
    refuse(Refusal::of(state, rejection), record, HeaderMap::new())
}
