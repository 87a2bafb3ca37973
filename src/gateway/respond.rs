//! Stage: every answer that is not the app's own. Cannot fail, and tells a sender nothing that
//! helps to guess.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use memchr::memchr2;

use super::admit::Permit;
use super::body::Hold;
use super::forward::{BoxError, Unread, UpstreamBody};
use super::headers::{self, X_REQUEST_ID};
use super::rejection::Rejection;
use super::snapshot::RouteState;
use crate::clock;
use crate::scheme::handshake::{Answers, Reply};

/// Body of an answer. Holds what its request takes until its last byte is handed over.
#[derive(Debug, Default)]
pub struct Answer {
    kind: Kind,
    permit: Option<Permit>,
    hold: Option<Hold>,
    origin: Option<Origin>,
}

/// Whose answer it is that may yet break off.
#[derive(Debug)]
struct Origin {
    route: Arc<RouteState>,
    request_id: HeaderValue,
}

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Empty,
    Own(Bytes),
    Upstream(UnsyncBoxBody<Bytes, BoxError>),
}

impl Answer {
    fn own(text: impl Into<Bytes>) -> Self {
        Self {
            kind: Kind::Own(text.into()),
            permit: None,
            hold: None,
            origin: None,
        }
    }

    /// Whether none of it comes from the app.
    pub fn is_own(&self) -> bool {
        self.origin.is_none()
    }

    /// Keeps the request's place, and its part of the memory for bodies, until the body has been sent or given up.
    pub fn keep(&mut self, permit: Permit, hold: Option<Hold>) {
        self.permit = Some(permit);
        self.hold = hold;
    }

    /// What the log says when the upstream breaks it off.
    pub fn belongs_to(&mut self, route: Arc<RouteState>, request_id: &HeaderValue) {
        let request_id = request_id.clone();
        self.origin = Some(Origin { route, request_id });
    }

    /// The status is with the sender by now, and the delivery counts: what is left is to say so.
    fn breaks_off(&mut self, error: &BoxError) {
        let Some(Origin { route, request_id }) = self.origin.take() else {
            return;
        };
        route.metrics.answer_broken();
        let (name, request_id) = (&*route.route.name, request_id.to_str().unwrap_or_default());
        if route.said_broken.is_due(clock::now()) {
            let message = "the upstream broke off its answer (said once in 10 s for each route)";
            tracing::warn!(route = name, request_id, %error, message);
        } else {
            tracing::debug!(route = name, request_id, %error, "the upstream broke off its answer");
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Own(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Upstream(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(Some(Err(error))) = &polled {
                    self.breaks_off(error);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Own(_) => false,
            Kind::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Upstream(body) => body.size_hint(),
        }
    }
}

/// A refusal: RFC 9457 problem details that name the status and the request, never the check; or
/// nothing but the status, where that is what providers want. Its fields are put into `spare`, which is empty.
pub fn refusal(
    rejection: &Rejection,
    status: StatusCode,
    is_empty: bool,
    request_id: &HeaderValue,
    spare: HeaderMap,
) -> Response<Answer> {
    let body = if is_empty {
        Answer::default()
    } else {
        Answer::own(problem(status, request_id))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    *fields = spare;
    fields.reserve(FIELDS_OF_REFUSAL);
    if !is_empty {
        let kind = HeaderValue::from_static("application/problem+json");
        fields.insert(header::CONTENT_TYPE, kind);
    }
    if let Some(wait) = rejection.retry_after {
        fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds_up(wait)));
    }
    for (name, value) in rejection.fields.iter().map(|field| &**field) {
        fields.append(name, value.clone());
    }
    with_request_id(response, request_id)
}

/// Room for the fields of most refusals.
const FIELDS_OF_REFUSAL: usize = 6;

fn problem(status: StatusCode, request_id: &HeaderValue) -> String {
    let id = request_id.to_str().unwrap_or_default();
    // Only a trusted proxy can give one that needs it.
    let needs_escapes = memchr2(b'"', b'\\', id.as_bytes()).is_some();
    let escaped = needs_escapes.then(|| serde_json::Value::from(id).to_string());
    let unquoted = |text: &str| Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned());
    let escaped = escaped.and_then(|own| unquoted(&own));
    let id = escaped.as_deref().unwrap_or(id);
    // By hand: a flood of refusals must cost no more than it has to.
    let known = BEGINNINGS.get(usize::from(status.as_u16()));
    let known = known.map(|known| &**known.get_or_init(|| beginning(status)));
    let beginning = known.map_or_else(|| beginning(status).into(), Cow::Borrowed);
    let end = r#""}"#;
    let mut text = String::with_capacity(beginning.len() + id.len() + end.len());
    text.push_str(&beginning);
    text.push_str(id);
    text.push_str(end);
    text
}

/// Problem details up to the id of the request, by status.
static BEGINNINGS: [OnceLock<String>; 600] = [const { OnceLock::new() }; 600];

fn beginning(status: StatusCode) -> String {
    let title = status.canonical_reason().unwrap_or("Refused");
    let status = status.as_str();
    format!(r#"{{"type":"about:blank","title":"{title}","status":{status},"request_id":""#)
}

/// Whole seconds, rounded up, at least one.
fn seconds_up(wait: Duration) -> u64 {
    let partial = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(partial).max(1)
}

/// A duplicate is acknowledged, in the words that its provider takes for success: the sender may stop
/// trying.
pub fn acknowledgement(answers: &Answers, request_id: &HeaderValue) -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    if let Some((media_type, body)) = &answers.accept_body {
        response = Response::new(Answer::own(body.clone()));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type.clone());
    }
    *response.status_mut() = answers.accept_status.unwrap_or(StatusCode::OK);
    with_request_id(response, request_id)
}

/// The answer to a handshake. Nothing in it is a page, whatever it repeats (SECURITY A-47).
pub fn handshake(reply: Reply, request_id: &HeaderValue) -> Response<Answer> {
    let body = if reply.body.is_empty() {
        Answer::default()
    } else {
        Answer::own(reply.body)
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    let fields = response.headers_mut();
    fields.extend(reply.headers);
    fields.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    with_request_id(response, request_id)
}

/// What an ACME authority asks for (RFC 8555 section 8.3).
pub fn challenge(answer: Bytes) -> Response<Answer> {
    let mut response = Response::new(Answer::own(answer));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// 308 keeps method and body (RFC 9110 15.4.9), so a POST stays a POST.
pub fn redirect(location: HeaderValue, request_id: &HeaderValue) -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    with_request_id(response, request_id)
}

/// The app's own answer, whatever its status, unchanged but for the fields of one connection.
pub fn passed_back(response: Response<UpstreamBody>) -> Response<Answer> {
    let (mut parts, body) = response.into_parts();
    if parts.headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112 6.3: it overrides a length, which is then of nothing (SECURITY U-11).
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    headers::remove_hop_by_hop(&mut parts.headers);
    parts.version = http::Version::HTTP_11;
    // Its phrase stays, for HTTP/1.1.
    parts.extensions.remove::<Unread>();
    let kind = match body {
        UpstreamBody::Whole(body) if body.is_empty() => Kind::Empty,
        UpstreamBody::Whole(body) => Kind::Own(body),
        UpstreamBody::Streamed(body) => Kind::Upstream(body),
    };
    let answer = Answer {
        kind,
        permit: None,
        hold: None,
        origin: None,
    };
    Response::from_parts(parts, answer)
}

/// With the fields that the provider wants to read, in place of the app's own.
pub fn with_fields(
    mut response: Response<Answer>,
    fields: Vec<(HeaderName, HeaderValue)>,
) -> Response<Answer> {
    for (name, value) in fields {
        response.headers_mut().insert(name, value);
    }
    response
}

fn with_request_id(mut response: Response<Answer>, request_id: &HeaderValue) -> Response<Answer> {
    response
        .headers_mut()
        .insert(X_REQUEST_ID, request_id.clone());
    response
}

/// Says `Connection: close`: after what makes a connection unsafe to keep.
pub fn close_connection(fields: &mut HeaderMap) {
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_details_are_json_whatever_the_id() {
        // SECURITY L-01
        for id in ["0198c0de-0000-7000-8000-000000000000", r#"a"b\c"#, r#"a""#] {
            let text = problem(
                StatusCode::UNAUTHORIZED,
                &HeaderValue::from_str(id).unwrap(),
            );
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            let expected = serde_json::json!({
                "type": "about:blank", "title": "Unauthorized", "status": 401, "request_id": id,
            });
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn retry_after_is_whole_seconds_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(seconds_up(Duration::from_millis(millis)), seconds);
        }
    }
}
