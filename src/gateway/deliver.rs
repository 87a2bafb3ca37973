//! Stage: one exchange with the app, which its sender cannot undo by leaving.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::body::Hold;
use super::forward::{Unread, UpstreamError};
use super::outgoing::Outgoing;
use super::record::Record;
use super::refuse::{Refusal, refuse};
use super::rejection::Rejection;
use super::replay::{self, Claims};
use super::respond::{self, Answer};
use super::snapshot::RouteState;
use super::{Gateway, admit};
use crate::clock;
use crate::reason::Reason;

/// A verified request on its way to the app.
pub(super) struct Delivery {
    pub(super) state: Arc<RouteState>,
    pub(super) request: Outgoing,
    pub(super) claims: Claims,
    pub(super) doubt: Option<Reason>,
    pub(super) answer_fields: AnswerFields,
    pub(super) permit: admit::Permit,
    pub(super) hold: Hold,
}

/// Fields that a provider wants to read in the answer.
pub(super) type AnswerFields = Vec<(HeaderName, HeaderValue)>;

impl Gateway {
    /// Sends a delivery: once claimed, it is finished even if the sender hangs up.
    pub(super) async fn deliver(
        &self,
        delivery: Box<Delivery>,
        record: Box<Record>,
    ) -> Response<Answer> {
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

/// Says that the app has not read what it took for delivered: once in 10 s for each route.
fn note_unread(state: &RouteState, record: &Record) {
    let what = "the app answered 2xx before it had read all of a delivery";
    if !record.is_news(Reason::UpstreamAborted, what) {
        return;
    }
    let (route, request_id) = (&*state.route.name, record.request_id.to_str().unwrap_or(""));
    let then = match state.route.replay {
        Some(_) => ": another attempt will be forwarded",
        None => "",
    };
    tracing::warn!(route, request_id, "{what}{then}");
}

/// One exchange with the app; commits the claim when the app took the delivery, else releases it.
async fn exchange(
    delivery: Box<Delivery>,
    mut record: Box<Record>,
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
        note_unread(&state, &record);
    }
    replay::settle(claims, said_yes && !is_unread, &record).await;
    match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            record.upstream(Some(status), took);
            let mut response = respond::passed_back(answer);
            response.body_mut().keep(permit, hold);
            response.body_mut().belongs_to(state, &record.request_id);
            let response = respond::with_fields(response, answer_fields);
            record.forwarded(doubt, status);
            response
        }
        Err(error) => {
            // What was never asked did not fail.
            if !matches!(error, UpstreamError::Exhausted(_)) {
                record.upstream(None, took);
            }
            failed(&error, state, record)
        }
    }
}

/// The answer where the app gave none.
fn failed(error: &UpstreamError, state: Arc<RouteState>, record: Box<Record>) -> Response<Answer> {
    let (route, request_id) = (&*state.route.name, record.request_id.to_str().unwrap_or(""));
    let rejection = Rejection::new(error.reason(), "the delivery failed");
    let reason = rejection.reason.code();
    if record.is_news(rejection.reason, rejection.detail) {
        let message = "a delivery failed (said once in 10 s for each route and reason)";
        tracing::warn!(route, request_id, reason, %error, message);
    } else {
        tracing::debug!(route, request_id, reason, %error, "a delivery failed");
    }
    refuse(Refusal::of(state, rejection), record, HeaderMap::new())
}
