//! The signature engine: data in, verdict out.
//!
//! A [`Scheme`] is compiled from the preset language (`docs/presets.md`): what is signed, where the
//! signature stands, how it is written. The gateway, `verify`, `sign` and the hints all run this one
//! interpreter. It knows no provider by name, reads no clock and does no I/O.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::reason::Reason;
use crate::units::UnixTime;

pub mod aws_sns;
pub mod catalog;
pub mod http_signature;
pub mod https_url;
pub mod jws;
pub mod keys;
mod locate;
mod primitive;
pub mod protocol;
pub mod public_key;
pub mod published;
pub mod sign;
pub mod spec;
mod strict_json;
mod structured;
pub mod trace;
#[cfg(test)]
mod wycheproof;
pub mod x5c;

/// What a preset asks for beside secrets, by name: texts, numbers, booleans or lists.
pub type Params = std::collections::BTreeMap<String, serde_json::Value>;

/// Which kind of key a scheme verifies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// None: the provider proves nothing.
    None,
    /// `public_keys` (or `jwks_url`).
    Public,
    /// `secrets`.
    Secret,
}

/// A request as a scheme sees it: borrowed, complete, not yet trusted.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Request method.
    pub method: &'a Method,
    /// The URL as the sender wrote it.
    pub url: &'a SenderUrl,
    /// Header fields as received.
    pub headers: &'a HeaderMap,
    /// The body as received.
    pub body: &'a Content,
}

/// The URL that the sender called: what schemes that sign the URL sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderUrl {
    /// `https://hooks.example.org` or `https://hooks.example.org:8443`, without a trailing slash.
    pub origin: Arc<str>,
    /// Path and query as in the request line; begins with `/`.
    pub target: Arc<str>,
}

/// A body as it arrived: frames that are never copied, decoded or changed.
#[derive(Clone, Debug, Default)]
pub struct Content(Vec<Bytes>);

/// What a verified signature proves.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Which key verified it.
    pub key_id: Arc<str>,
    /// The provider's id of the event, signed or not: for logs and `X-Hookward-Event-Id`.
    pub event_id: Option<String>,
    /// The scheme's timestamp.
    pub signed_at: Option<UnixTime>,
    /// What makes two deliveries the same: a digest of the signed event id, else of the canonical
    /// signed content. Unsigned ids never go in (SECURITY ).
    pub fingerprint: Option<[u8; 32]>,
}

/// How far a timestamp may lie from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Into the past.
    pub past: Duration,
    /// Into the future.
    pub future: Duration,
}

/// Why a scheme refuses a request. `detail` is constant text for logs and `verify`, without any
/// byte of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct SignatureError {
    /// Row of the reason table.
    pub reason: Reason,
    /// What exactly was found.
    pub detail: &'static str,
}

/// A compiled scheme: nothing in it is left to interpret.
#[derive(Debug)]
pub struct Scheme {
    tolerance: Option<Tolerance>,
}

impl Scheme {
    /// Judges what the head alone can tell: an absent or unreadable signature is refused before a
    /// body byte is read. Passing says nothing yet.
    pub fn precheck(
        &self,
        _method: &Method,
        _url: &SenderUrl,
        _headers: &HeaderMap,
    ) -> Result<(), SignatureError> {
        unimplemented!()
    }

    /// Judges a complete request. Order: missing, malformed, timestamp missing or malformed,
    /// mismatch, and only then stale or ahead.
    pub fn verify(
        &self,
        _message: &Message<'_>,
        _keys: &keys::KeySet,
        _now: UnixTime,
    ) -> Result<Evidence, SignatureError> {
        unimplemented!()
    }

    /// As [`Scheme::verify`], noting each step.
    pub fn verify_traced(
        &self,
        _message: &Message<'_>,
        _keys: &keys::KeySet,
        _now: UnixTime,
        _trace: &mut trace::Trace,
    ) -> Result<Evidence, SignatureError> {
        unimplemented!()
    }

    /// Compiles a scheme that an operator wrote into a configuration.
    pub fn compile(_spec: &spec::SchemeSpec) -> Result<Self, Vec<crate::problem::Problem>> {
        unimplemented!()
    }

    /// Which kind of key it verifies with.
    pub fn key_kind(&self) -> KeyKind {
        unimplemented!()
    }

    /// A configured secret, decoded as this scheme wants it. The message never repeats the secret.
    pub fn secret_key(
        &self,
        _id: Arc<str>,
        _written: &[u8],
        _not_after: Option<UnixTime>,
    ) -> Result<keys::Key, String> {
        unimplemented!()
    }

    /// Public keys as written: PEM (key or certificate), base64 DER, raw hex or base64 Ed25519,
    /// `whpk_...`, a JWK or a JWKS.
    pub fn public_keys(&self, _id: Arc<str>, _written: &[u8]) -> Result<Vec<keys::Key>, String> {
        unimplemented!()
    }

    /// Largest body that the scheme's provider documents is in the preset; what else an operator must
    /// know: warnings such as an uncovered body, with the check that makes up for it.
    pub fn weaknesses(&self) -> Vec<&'static str> {
        unimplemented!()
    }

    /// The tolerance of its timestamp, when it has one and the signature covers it.
    pub fn signed_tolerance(&self) -> Option<Tolerance> {
        self.tolerance
    }

    /// Whether replays are worth looking for by default: it has a signed timestamp.
    pub fn carries_signature(&self) -> bool {
        unimplemented!()
    }

    /// Names of the header fields it reads, which must reach it and the upstream unchanged.
    pub fn header_names(&self) -> &[http::HeaderName] {
        unimplemented!()
    }

    /// Value of `WWW-Authenticate`'s scheme: `Signature`, `Bearer` or `Basic`.
    pub fn challenge(&self) -> &'static str {
        unimplemented!()
    }

    /// Whether the credential in `Authorization` or a query field is a bare secret that must be
    /// removed before forwarding: `token` and `basic` algorithms.
    pub fn is_bare_secret(&self) -> bool {
        unimplemented!()
    }
}

impl Content {
    /// From frames, in order.
    pub fn new(frames: Vec<Bytes>) -> Self {
        Self(frames)
    }

    /// The frames, in order.
    pub fn frames(&self) -> &[Bytes] {
        &self.0
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// One run of bytes; copies only when there are several frames.
    pub fn contiguous(&self) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            frames => frames.concat().into(),
        }
    }
}

impl From<&'static [u8]> for Content {
    fn from(bytes: &'static [u8]) -> Self {
        Self(vec![Bytes::from_static(bytes)])
    }
}
/// temp
pub fn digest(_: &[&[u8]]) -> [u8; 32] {
    unimplemented!()
}
impl keys::KeySet {
    /// temp
    pub fn matching(&self, _: &[u8], now: UnixTime) -> Option<&keys::Key> {
        self.usable(now).next()
    }
}
