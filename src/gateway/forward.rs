//! Stage: the verified request goes to the app, once, and its answer comes back.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::connection::Connection;
use super::head::Head;
use super::headers;
use super::snapshot::RouteState;
use super::verify::Proof;
use crate::reason::Reason;
use crate::route::Route;
use crate::route::policy::PathRewrite;
use crate::scheme::Content;

/// Body of an upstream's answer.
pub type UpstreamBody = UnsyncBoxBody<Bytes, BoxError>;
/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// An exchange under way.
pub type Exchange<'a> =
    Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, UpstreamError>> + Send + 'a>>;

/// An app behind the gateway.
pub trait Upstream: fmt::Debug + Send + Sync {
    /// Sends a request once and waits for the head of its answer. `timeout` bounds that wait and
    /// each wait within the answer; `None` leaves it to the upstream's own.
    fn send(&self, request: Request<Frames>, timeout: Option<Duration>) -> Exchange<'_>;

    /// Longest time that [`Upstream::send`] takes.
    fn patience(&self, timeout: Option<Duration>) -> Duration;
}

/// Why an upstream gave no answer. The detail is for the operator, never for the sender.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The connection broke before the head of the answer.
    #[error("the upstream broke the connection: {0}")]
    Aborted(String),
    /// What came back is not HTTP, or not an answer.
    #[error("the upstream's answer is not valid: {0}")]
    Invalid(String),
    /// No answer in time.
    #[error("the upstream did not answer within {0:?}")]
    Timeout(Duration),
    /// No connection.
    #[error("no server of the upstream can be reached: {0}")]
    Unreachable(String),
}

impl UpstreamError {
    /// Row of the reason table.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Aborted(_) => Reason::UpstreamAborted,
            Self::Invalid(_) => Reason::UpstreamInvalid,
            Self::Timeout(_) => Reason::UpstreamTimeout,
            Self::Unreachable(_) => Reason::UpstreamUnreachable,
        }
    }
}

/// A received body on its way to the upstream: the same frames, uncopied.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    frames: VecDeque<Bytes>,
    left: u64,
}

impl Frames {
    /// The frames of `content`.
    pub fn new(content: &Content) -> Self {
        let frames: VecDeque<Bytes> = content
            .frames()
            .iter()
            .filter(|frame| !frame.is_empty())
            .cloned()
            .collect();
        let left = frames.iter().map(|frame| frame.len() as u64).sum();
        Self { frames, left }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = self.frames.pop_front();
        self.left -= frame.as_ref().map_or(0, |frame| frame.len() as u64);
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// What the forwarded request is made of.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// The head as received.
    pub head: Head,
    /// The body as received.
    pub body: &'a Content,
    /// The route and what lives beside it.
    pub state: &'a RouteState,
    /// The connection it came over.
    pub connection: &'a Connection,
    /// Whether the peer's forwarding headers are believed.
    pub is_trusted: bool,
    /// What it proved, or the reason why an observing route lets it pass all the same.
    pub verdict: Result<&'a Proof, Reason>,
    /// Its id.
    pub request_id: &'a HeaderValue,
}

/// Builds the forwarded request: the same bytes, under a head that only the gateway can write.
pub fn build(forwarding: Forwarding<'_>) -> Result<Request<Frames>, Reason> {
    let uri = rewritten(&forwarding.head.target, forwarding.state)?;
    let mut request = Request::new(Frames::new(forwarding.body));
    *request.method_mut() = forwarding.head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = head_fields(forwarding);
    Ok(request)
}

fn head_fields(forwarding: Forwarding<'_>) -> HeaderMap {
    let Forwarding {
        head,
        body,
        state,
        connection,
        is_trusted,
        verdict,
        request_id,
    } = forwarding;
    let Head {
        method,
        host,
        headers: mut fields,
        ..
    } = head;
    let route = &*state.route;
    let forwarded_for = forwarded_for(&fields, connection, is_trusted);

    headers::remove_hop_by_hop(&mut fields, &state.credentials.signed);
    headers::remove_where(&mut fields, |name| {
        name.starts_with("x-hookward-") || (!is_trusted && headers::is_forwarding(name))
    });
    headers::join_cookies(&mut fields);
    if !route.forward.keep_credentials {
        if state.credentials.authorization {
            fields.remove(header::AUTHORIZATION);
        }
        for name in &state.credentials.headers {
            fields.remove(name);
        }
    }
    fields.remove(header::CONTENT_LENGTH);
    let bodiless = matches!(method, http::Method::GET | http::Method::HEAD) && body.is_empty();
    if !bodiless {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }

    let proto = if connection.tls.is_some() {
        "https"
    } else {
        "http"
    };
    fields.insert("x-forwarded-for", forwarded_for);
    fields
        .entry("x-forwarded-proto")
        .or_insert(HeaderValue::from_static(proto));
    fields
        .entry("x-forwarded-host")
        .or_insert_with(|| host.clone());
    fields.insert("x-request-id", request_id.clone());
    fields.insert(header::HOST, host);
    add_evidence(&mut fields, route, verdict);

    for name in &route.forward.remove_headers {
        fields.remove(name);
    }
    for (name, value) in &route.forward.set_headers {
        fields.insert(name.clone(), value.clone());
    }
    fields
}

fn forwarded_for(fields: &HeaderMap, connection: &Connection, is_trusted: bool) -> HeaderValue {
    let peer = connection.peer.ip().to_canonical().to_string();
    let mut chain: Vec<&[u8]> = Vec::new();
    if is_trusted {
        chain.extend(
            fields
                .get_all("x-forwarded-for")
                .iter()
                .map(HeaderValue::as_bytes),
        );
    }
    chain.push(peer.as_bytes());
    HeaderValue::from_bytes(&chain.join(&b", "[..]))
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn add_evidence(fields: &mut HeaderMap, route: &Route, verdict: Result<&Proof, Reason>) {
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(HeaderName::from_static(name), value);
        }
    };
    put("x-hookward-route", &route.name);
    let proof = match verdict {
        Ok(proof) => proof,
        Err(reason) => return put("x-hookward-verified", &format!("no; reason={reason}")),
    };
    if !proof.checks.is_empty() {
        put("x-hookward-verified", &proof.checks.join(", "));
    }
    if let Some(provider) = &proof.provider {
        put("x-hookward-provider", provider);
    }
    if let Some(key_id) = &proof.key_id {
        put("x-hookward-key-id", key_id);
    }
    if let Some(event_id) = &proof.event_id {
        put("x-hookward-event-id", event_id);
    }
}

/// The target for the upstream: path rewritten, query kept but for its token.
fn rewritten(target: &PathAndQuery, state: &RouteState) -> Result<Uri, Reason> {
    let route = &*state.route;
    let path = target.path();
    let path = match &route.forward.path {
        PathRewrite::Keep => Cow::Borrowed(path),
        PathRewrite::Replace(path) => Cow::Borrowed(&**path),
        PathRewrite::StripPrefix(prefix) => match path.strip_prefix(&**prefix) {
            // One slash, or an app could take what follows for a host (SECURITY A-44).
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                Cow::Owned(format!("/{}", rest.trim_start_matches('/')))
            }
            _ => Cow::Borrowed(path),
        },
    };
    let target = match target.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let target = if route.forward.keep_credentials || state.credentials.query.is_empty() {
        target
    } else {
        let names: Vec<&str> = state.credentials.query.iter().map(Arc::as_ref).collect();
        headers::strip_query(&target, &names)
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target.try_into().map_err(|_bad| Reason::Internal)?);
    Uri::from_parts(parts).map_err(|_bad| Reason::Internal)
}
