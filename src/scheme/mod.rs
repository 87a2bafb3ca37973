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

pub mod keys;

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
