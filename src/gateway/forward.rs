//! Stage: the verified request goes to the app, once, and its answer comes back.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use http_body_util::combinators::UnsyncBoxBody;

use super::connection::Connection;
use super::head::Head;
use super::headers::{self, X_FORWARDED_FOR, X_REQUEST_ID};
use super::snapshot::RouteState;
use super::verify::Proof;
use crate::reason::Reason;
use crate::route::policy::PathRewrite;
use crate::scheme::Content;

/// Body of an upstream's answer.
#[derive(Debug)]
pub enum UpstreamBody {
    /// It came with its head.
    Whole(Bytes),
    /// It is still coming.
    Streamed(UnsyncBoxBody<Bytes, BoxError>),
}

/// A request as it goes to an upstream.
#[derive(Debug)]
pub struct Outgoing {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// Header fields in their order, those of the framing among them.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The body as received: the same frames, uncopied.
    pub body: Content,
}

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// An exchange under way.
pub type Exchange<'a> =
    Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, UpstreamError>> + Send + 'a>>;

impl Outgoing {
    /// A request of the gateway's own: whether the app is well.
    pub fn probe(host: HeaderValue, target: PathAndQuery) -> Self {
        Self {
            method: Method::GET,
            target,
            fields: vec![(header::HOST, host)],
            body: Content::default(),
        }
    }
}

/// An app behind the gateway.
pub trait Upstream: fmt::Debug + Send + Sync {
    /// Sends a request once and waits for the head of its answer. `timeout` bounds that wait and
    /// each wait within the answer; `None` leaves it to the upstream's own.
    fn send(&self, request: Outgoing, timeout: Option<Duration>) -> Exchange<'_>;

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

/// What the forwarded request is made of.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// The head as received.
    pub head: Head,
    /// The body as received.
    pub body: Content,
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
pub fn build(forwarding: Forwarding<'_>) -> Result<Outgoing, Reason> {
    let Forwarding {
        head,
        body,
        state,
        connection,
        is_trusted,
        verdict,
        request_id,
    } = forwarding;
    let target = rewritten(head.target, state)?;
    let forwarded_for = forwarded_for(&head.headers, connection, is_trusted);
    let mut fields = Vec::with_capacity(head.headers.len() + FIELDS_ADDED);
    fields.push((header::HOST, head.host.value.clone()));
    received_fields(&mut fields, head.headers, state, is_trusted);

    let bodiless = matches!(head.method, Method::GET | Method::HEAD) && body.is_empty();
    if !bodiless {
        fields.push((header::CONTENT_LENGTH, HeaderValue::from(body.len())));
    }
    let proto = if connection.tls.is_some() {
        "https"
    } else {
        "http"
    };
    fields.push((X_FORWARDED_FOR, forwarded_for));
    if !has(&fields, &X_FORWARDED_PROTO) {
        fields.push((X_FORWARDED_PROTO, HeaderValue::from_static(proto)));
    }
    if !has(&fields, &X_FORWARDED_HOST) {
        fields.push((X_FORWARDED_HOST, head.host.value.clone()));
    }
    fields.push((X_REQUEST_ID, request_id.clone()));
    add_evidence(&mut fields, state, verdict);

    let forward = &state.route.forward;
    if !forward.remove_headers.is_empty() || !forward.set_headers.is_empty() {
        let is_set = |name: &HeaderName| forward.set_headers.iter().any(|(own, _)| own == name);
        fields.retain(|(name, _)| !forward.remove_headers.contains(name) && !is_set(name));
        fields.extend(forward.set_headers.iter().cloned());
    }
    Ok(Outgoing {
        method: head.method,
        target,
        fields,
        body,
    })
}

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Room for the fields that the gateway adds.
const FIELDS_ADDED: usize = 12;

type Fields = Vec<(HeaderName, HeaderValue)>;

fn has(fields: &Fields, name: &HeaderName) -> bool {
    fields.iter().any(|(own, _)| own == name)
}

/// The fields of the request that the app may see as they came.
fn received_fields(
    fields: &mut Fields,
    mut received: HeaderMap,
    state: &RouteState,
    is_trusted: bool,
) {
    let listed = headers::listed_in_connection(&received, &state.credentials.signed);
    headers::join_cookies(&mut received);
    let credentials = Some(&state.credentials).filter(|_| !state.route.forward.keep_credentials);
    let is_credential = |name: &HeaderName| {
        credentials.is_some_and(|own| {
            (own.authorization && name == header::AUTHORIZATION) || own.headers.contains(name)
        })
    };
    // What the gateway writes itself is left out too.
    let is_ours = |name: &HeaderName| {
        matches!(*name, header::HOST | header::CONTENT_LENGTH)
            || matches!(name.as_str(), "x-forwarded-for" | "x-request-id")
            || name.as_str().starts_with("x-hookward-")
    };
    let passes = |name: &HeaderName| {
        !headers::is_hop_by_hop(name.as_str())
            && !is_ours(name)
            && (is_trusted || !headers::is_forwarding(name.as_str()))
            && !is_credential(name)
            && !listed.contains(name)
    };
    let mut is_passed = false;
    for (name, value) in received {
        match name {
            Some(name) => {
                is_passed = passes(&name);
                if is_passed {
                    fields.push((name, value));
                }
            }
            // One more value of the same name.
            None if is_passed => {
                if let Some((name, _)) = fields.last() {
                    fields.push((name.clone(), value));
                }
            }
            None => {}
        }
    }
}

fn forwarded_for(fields: &HeaderMap, connection: &Connection, is_trusted: bool) -> HeaderValue {
    let peer = &connection.peer_text;
    if !is_trusted {
        return peer.clone();
    }
    let mut chain = Vec::new();
    for value in fields.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.as_bytes());
    HeaderValue::from_maybe_shared(Bytes::from(chain))
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn add_evidence(fields: &mut Fields, state: &RouteState, verdict: Result<&Proof, Reason>) {
    let mut put = |name: &'static str, value: Option<HeaderValue>| {
        fields.extend(value.map(|value| (HeaderName::from_static(name), value)));
    };
    let text = |value: &str| HeaderValue::from_str(value).ok();
    put("x-hookward-route", state.name_value.clone());
    let proof = match verdict {
        Ok(proof) => proof,
        Err(reason) => {
            return put("x-hookward-verified", text(&format!("no; reason={reason}")));
        }
    };
    match proof.checks.as_slice() {
        [] => {}
        [check] => put("x-hookward-verified", Some(check.clone())),
        checks => {
            let checks: Vec<&[u8]> = checks.iter().map(HeaderValue::as_bytes).collect();
            let checks = HeaderValue::from_bytes(&checks.join(&b", "[..]));
            put("x-hookward-verified", checks.ok());
        }
    }
    let provider = proof.provider.as_ref();
    put("x-hookward-provider", provider.map(|own| own.value.clone()));
    put("x-hookward-key-id", proof.key_id.as_deref().and_then(text));
    put(
        "x-hookward-event-id",
        proof.event_id.as_deref().and_then(text),
    );
}

/// The target for the upstream: path rewritten, query kept but for its token.
fn rewritten(target: PathAndQuery, state: &RouteState) -> Result<PathAndQuery, Reason> {
    let forward = &state.route.forward;
    let keeps_query = forward.keep_credentials || state.credentials.query.is_empty();
    if keeps_query && matches!(forward.path, PathRewrite::Keep) {
        return Ok(target);
    }
    let path = target.path();
    let path = match &forward.path {
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
    let target = if keeps_query {
        target
    } else {
        let names: Vec<&str> = state.credentials.query.iter().map(Arc::as_ref).collect();
        headers::strip_query(&target, &names)
    };
    target.try_into().map_err(|_bad| Reason::Internal)
}
