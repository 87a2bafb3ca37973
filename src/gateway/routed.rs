//! The stages of a request that has found its route, in the order that it meets them.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;

use super::body::{self, BodyLimits, Hold, Received, Room};
use super::connection::Connection;
use super::deliver::Delivery;
use super::forward::{self, Forwarding};
use super::head::{self, Head};
use super::record::Record;
use super::rejection::Rejection;
use super::replay::{self, Claimed, Claims};
use super::snapshot::{ListenerPolicy, RouteState, Snapshot};
use super::verify::{self, Presented, Proof};
use super::whole::{self, Case, Means};
use super::{Gateway, Ready, admit, enrolment, handshake, promise};
use crate::reason::Reason;
use crate::route::policy::Mode;
use crate::scheme::handshake::Reply;

/// A request that has found its route.
pub(super) struct Routed<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) snapshot: &'a Snapshot,
    pub(super) listener: &'a ListenerPolicy,
    pub(super) connection: &'a Connection,
    pub(super) state: &'a Arc<RouteState>,
}

/// What verification leads to.
struct Judged {
    received: Received,
    /// `None` where an observing route lets the request pass without one.
    proof: Option<Proof>,
    /// The answer to a handshake.
    reply: Option<Box<Reply>>,
}

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

impl Routed<'_> {
    /// The stages of a request that has its route, in order.
    pub(super) async fn judge<B>(
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
        let Judged {
            received,
            proof,
            reply,
        } = self.verify(head, body, record, &mut doubts).await?;
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
