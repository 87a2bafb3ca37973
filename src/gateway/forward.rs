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
use super::headers::{self, Names, X_FORWARDED_FOR, X_REQUEST_ID};
use super::outgoing::{HeadWriter, Outgoing};
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

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// An exchange under way.
pub type Exchange<'a> =
    Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, UpstreamError>> + Send + 'a>>;

/// Marks an answer (in its extensions) that came before the app had taken all of the request.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

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
    #[error("the upstream did not answer in time: {0}")]
    Timeout(String),
    /// No connection, because descriptors or memory have run out on this side.
    #[error("the gateway has nothing left to connect with: {0}")]
    Exhausted(String),
    /// No connection.
    #[error("no server of the upstream can be reached: {0}")]
    Unreachable(String),
}

impl UpstreamError {
    /// With the server that it is about.
    #[must_use]
    pub fn of(self, server: &impl fmt::Display) -> Self {
        let about = |why: &str| format!("{server}: {why}");
        match self {
            Self::Aborted(why) => Self::Aborted(about(&why)),
            Self::Exhausted(why) => Self::Exhausted(about(&why)),
            Self::Invalid(why) => Self::Invalid(about(&why)),
            Self::Timeout(why) => Self::Timeout(about(&why)),
            Self::Unreachable(why) => Self::Unreachable(about(&why)),
        }
    }

    /// Row of the reason table.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Aborted(_) => Reason::UpstreamAborted,
            Self::Exhausted(_) => Reason::Overloaded,
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
    pub head: &'a Head,
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
    let target = rewritten(&head.target, state)?;
    let mut fields = Fields {
        head: HeadWriter::new(&head.method, &target),
        replaced: &state.replaced,
    };
    let host = &head.host.value;
    fields.push(&header::HOST, host);
    let received = received_fields(&mut fields.head, &head.headers, state, is_trusted);

    let bodiless = matches!(head.method, Method::GET | Method::HEAD) && body.is_empty();
    if !bodiless {
        // Whatever is removed: without it the body would be the app's next request.
        let length = body.len().to_string();
        fields.head.push_text(&header::CONTENT_LENGTH, &length);
    }
    let hops = is_trusted.then(|| head.headers.get_all(X_FORWARDED_FOR));
    let hops = hops.into_iter().flatten().filter(|hop| !hop.is_empty());
    fields.push_list(&X_FORWARDED_FOR, ", ", hops.chain([&connection.peer_text]));
    if !received.forwarded_proto {
        let is_tls = connection.tls.is_some();
        fields.push_text(&X_FORWARDED_PROTO, if is_tls { "https" } else { "http" });
    }
    if !received.forwarded_host {
        fields.push(&X_FORWARDED_HOST, host);
    }
    fields.push(&X_REQUEST_ID, request_id);
    add_evidence(&mut fields, state, verdict);

    let mut written = fields.head;
    for (name, value) in &state.route.forward.set_headers {
        written.push(name, value);
    }
    Ok(Outgoing {
        method: head.method.clone(),
        target,
        head: written.end(),
        body,
        spare: HeaderMap::new(),
    })
}

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_HOOKWARD_EVENT_ID: HeaderName = HeaderName::from_static("x-hookward-event-id");
const X_HOOKWARD_KEY_ID: HeaderName = HeaderName::from_static("x-hookward-key-id");
const X_HOOKWARD_PROVIDER: HeaderName = HeaderName::from_static("x-hookward-provider");
const X_HOOKWARD_ROUTE: HeaderName = HeaderName::from_static("x-hookward-route");
const X_HOOKWARD_VERIFIED: HeaderName = HeaderName::from_static("x-hookward-verified");

/// The head being written, for what the gateway adds: not what the operator removes or sets.
struct Fields<'a> {
    head: HeadWriter,
    replaced: &'a Names,
}

impl Fields<'_> {
    fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        if !self.replaced.contains(name) {
            self.head.push(name, value);
        }
    }

    fn push_text(&mut self, name: &HeaderName, value: &str) {
        if !self.replaced.contains(name) {
            self.head.push_text(name, value);
        }
    }

    fn push_list<'v>(
        &mut self,
        name: &HeaderName,
        separator: &str,
        values: impl IntoIterator<Item = &'v HeaderValue>,
    ) {
        if !self.replaced.contains(name) {
            self.head.push_list(name, separator, values);
        }
    }
}

/// What was among the received fields that went on.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    forwarded_host: bool,
    forwarded_proto: bool,
    cookies: bool,
}

/// The fields of the request that the app may see as they came.
fn received_fields(
    head: &mut HeadWriter,
    received: &HeaderMap,
    state: &RouteState,
    is_trusted: bool,
) -> Passed {
    let listed = headers::listed_in_connection(received, &state.credentials.signed);
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
            && !state.withheld.contains(name)
            && !listed.contains(name)
    };
    let mut passed = Passed::default();
    for (name, value) in received {
        if !passes(name) {
            continue;
        }
        match *name {
            // HTTP/2 may cut it into several fields (RFC 9113 8.2.3).
            header::COOKIE if std::mem::replace(&mut passed.cookies, true) => {}
            header::COOKIE => head.push_list(name, "; ", received.get_all(name)),
            _ => head.push(name, value),
        }
        if is_trusted {
            passed.forwarded_host |= name == X_FORWARDED_HOST;
            passed.forwarded_proto |= name == X_FORWARDED_PROTO;
        }
    }
    passed
}

fn add_evidence(fields: &mut Fields<'_>, state: &RouteState, verdict: Result<&Proof, Reason>) {
    if let Some(name) = &state.name_value {
        fields.push(&X_HOOKWARD_ROUTE, name);
    }
    let proof = match verdict {
        Ok(proof) => proof,
        Err(reason) => {
            return fields.push_text(&X_HOOKWARD_VERIFIED, &format!("no; reason={reason}"));
        }
    };
    if !proof.checks.is_empty() {
        fields.push_list(&X_HOOKWARD_VERIFIED, ", ", &proof.checks);
    }
    if let Some(provider) = &proof.provider {
        fields.push(&X_HOOKWARD_PROVIDER, &provider.value);
    }
    if let Some(key_id) = &proof.key_id {
        fields.push_text(&X_HOOKWARD_KEY_ID, key_id);
    }
    if let Some(event_id) = &proof.event_id {
        fields.push_text(&X_HOOKWARD_EVENT_ID, event_id);
    }
}

/// The target for the upstream: path rewritten, query kept but for its token.
fn rewritten(target: &PathAndQuery, state: &RouteState) -> Result<PathAndQuery, Reason> {
    let forward = &state.route.forward;
    let keeps_query = forward.keep_credentials || state.credentials.query.is_empty();
    if keeps_query && matches!(forward.path, PathRewrite::Keep) {
        return Ok(target.clone());
    }
    let path = target.path();
    let path = match &forward.path {
        PathRewrite::Keep => Cow::Borrowed(path),
        PathRewrite::Replace(path) => Cow::Borrowed(&**path),
        PathRewrite::StripPrefix(prefix) => match path.strip_prefix(&**prefix) {
            // An app could take what follows two slashes for a host (SECURITY A-44).
            Some(rest) if rest.starts_with("//") => return Err(Reason::MalformedRequest),
            Some("") => Cow::Borrowed("/"),
            Some(rest) if rest.starts_with('/') => Cow::Borrowed(rest),
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
