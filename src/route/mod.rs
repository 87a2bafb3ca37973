//! What the operator asked for, ready to use: routes, their checks and their limits.
//!
//! Plain data and matching; no I/O, no YAML. The gateway reads these, `config` builds them.

use std::sync::Arc;

use http::StatusCode;

use crate::scheme::handshake::Answers;
use crate::units::ByteSize;

pub mod auth;
pub mod matcher;
pub mod policy;

use auth::AuthPolicy;
use matcher::RouteMatch;
use policy::{BodyPolicy, ForwardPolicy, Mode, Quota, ReplayPolicy, Sources};

/// One route: which requests it takes, what they must prove and where they go.
#[derive(Debug)]
pub struct Route {
    /// Unique name: metric label, log field, `X-Hookward-Route`.
    pub name: Arc<str>,
    /// Host, path and methods.
    pub matches: RouteMatch,
    /// Enforce, or only observe.
    pub mode: Mode,
    /// Addresses that may call.
    pub sources: Sources,
    /// Rate limits.
    pub quotas: Box<[Quota]>,
    /// What a body may be.
    pub body: BodyPolicy,
    /// What a request must prove.
    pub auth: AuthPolicy,
    /// How a delivery that comes again is met; `None` when replays are not looked for.
    pub replay: Option<ReplayPolicy>,
    /// Where verified requests go: an upstream by its name, or the built-in echo.
    pub upstream: UpstreamRef,
    /// How the forwarded request differs from the one received.
    pub forward: ForwardPolicy,
    /// Status instead of 401, as the operator wants it.
    pub reject_status: Option<StatusCode>,
    /// What the provider wants to read in answers.
    pub answers: Arc<Answers>,
}

/// Where a route forwards to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamRef {
    /// The built-in upstream that answers with what it got.
    Echo,
    /// A named or inline upstream.
    Named(Arc<str>),
}

/// Body size where neither route nor preset says otherwise.
pub const BODY_SIZE_MAX_DEFAULT: ByteSize = ByteSize(1 << 20);
