//! Why a request was refused: causes that a second computation proved.
//!
//! Each hint is the engine's own verdict on a variant of the request or of a key. What no variant
//! makes right is not guessed at. Pure: no I/O, no clocks; for `hookward verify`, never for serving.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::keys::{Key, KeySet};
use super::{Content, Evidence, Message, Scheme, SenderUrl, SignatureError};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::units::UnixTime;

mod body;
mod field;
mod json;
mod key;
mod moment;
mod url;

/// A proven cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// Stable name.
    pub code: &'static str,
    /// What was found and what to do; never a secret.
    pub message: String,
}

/// A refused request and what may explain it.
#[derive(Debug)]
pub struct Case<'a> {
    /// What it was judged by.
    pub scheme: &'a Scheme,
    /// The request.
    pub message: Message<'a>,
    /// Keys it was judged with, also those that no longer count.
    pub keys: &'a [Key],
    /// The secrets as an operator wrote them, where they are known.
    pub written: &'a [Secret],
    /// Keys of other owners.
    pub others: &'a [Foreign],
    /// Other schemes of the same preset.
    pub siblings: &'a [Sibling],
    /// When it was judged.
    pub now: UnixTime,
}

/// A key that belongs elsewhere.
#[derive(Debug)]
pub struct Foreign {
    /// The owner, as a message names it.
    pub owner: String,
    /// The key.
    pub key: Key,
}

/// Another scheme of the same preset, with the same keys.
#[derive(Debug)]
pub struct Sibling {
    /// `NAME/SCHEME`.
    pub name: String,
    /// The scheme.
    pub scheme: Scheme,
    /// The keys as this scheme reads them.
    pub keys: KeySet,
}

/// Bytes that one search may hash: a few seconds. A body of a usual size never comes near; a large one
/// is tried with the likeliest causes.
const TRIED_BYTES_MAX: usize = 1 << 30;
/// What a variant costs beside its body.
const TRIAL_BYTES_MIN: usize = 4 << 10;

/// Every cause that can be proven, the likeliest first; one for each code.
pub fn search(case: &Case<'_>) -> Vec<Hint> {
    let Some(keys) = lasting(case.keys) else {
        return Vec::new();
    };
    let budget = Cell::new(TRIED_BYTES_MAX);
    let trial = Trial { case, keys, budget };
    if trial.is_right(&case.message) {
        // The signature is right: only time stands against it, or a key's end.
        return [key::expired(&trial), moment::explain(&trial)]
            .into_iter()
            .flatten()
            .collect();
    }
    let mut hints = Vec::new();
    hints.extend(sibling(&trial));
    hints.extend(key::explain(&trial));
    hints.extend(body::explain(&trial));
    hints.extend(url::explain(&trial));
    hints.extend(field::explain(&trial));
    hints
}

impl Hint {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The means to try a variant.
struct Trial<'a> {
    case: &'a Case<'a>,
    /// The keys of the case, those included that no longer count.
    keys: KeySet,
    /// Bytes that may still be hashed.
    budget: Cell<usize>,
}

impl Trial<'_> {
    /// Whether the signature of `message` is right, be its time as it may.
    fn is_right(&self, message: &Message<'_>) -> bool {
        self.is_right_with(message, &self.keys)
    }

    fn is_right_with(&self, message: &Message<'_>, keys: &KeySet) -> bool {
        let cost = message.body.len().saturating_add(TRIAL_BYTES_MIN);
        let Some(left) = self.budget.get().checked_sub(cost) else {
            return false;
        };
        self.budget.set(left);
        is_right(&self.case.scheme.verify(message, keys, self.case.now))
    }

    fn with_body(&self, body: &[u8]) -> bool {
        let body = Content::new(vec![Bytes::copy_from_slice(body)]);
        self.is_right(&Message {
            body: &body,
            ..self.case.message
        })
    }

    fn with_url(&self, url: &SenderUrl) -> bool {
        self.is_right(&Message {
            url,
            ..self.case.message
        })
    }

    fn with_headers(&self, headers: &HeaderMap) -> bool {
        self.is_right(&Message {
            headers,
            ..self.case.message
        })
    }

    /// With a header field replaced, whatever stood there.
    fn with_field(&self, name: &HeaderName, value: &[u8]) -> bool {
        let Ok(value) = HeaderValue::from_bytes(value) else {
            return false;
        };
        let mut headers = self.case.message.headers.clone();
        headers.insert(name.clone(), value);
        self.with_headers(&headers)
    }

    /// With this secret alone: as the bytes it is, or as the scheme reads it.
    fn with_secret(&self, bytes: &[u8]) -> bool {
        let raw = Key::secret("tried".into(), Secret::new(bytes.to_vec()), None);
        let read = self.case.scheme.secret_key("tried".into(), bytes, None);
        let mut keys = std::iter::once(raw).chain(read.ok());
        keys.any(|key| {
            KeySet::new(vec![key]).is_some_and(|keys| self.is_right_with(&self.case.message, &keys))
        })
    }
}

/// A wrong signature is never reported as a stale one.
fn is_right(verdict: &Result<Evidence, SignatureError>) -> bool {
    match verdict {
        Ok(_) => true,
        Err(error) => matches!(
            error.reason,
            Reason::TimestampAhead | Reason::TimestampStale
        ),
    }
}

/// The same keys without an end.
fn lasting<'k>(keys: impl IntoIterator<Item = &'k Key>) -> Option<KeySet> {
    let lasting = keys.into_iter().map(|key| {
        let mut key = key.clone();
        key.not_after = None;
        key
    });
    KeySet::new(lasting.collect())
}

fn sibling(trial: &Trial<'_>) -> Option<Hint> {
    let Case {
        message,
        siblings,
        now,
        ..
    } = trial.case;
    let right = siblings
        .iter()
        .find(|sibling| is_right(&sibling.scheme.verify(message, &sibling.keys, *now)))?;
    Some(Hint::new(
        "other_scheme",
        format!(
            "the request is right by the scheme `{0}`; use `provider: {0}`",
            right.name
        ),
    ))
}

/// A name for the key at a place: for keys that have an id of their own.
fn quoted(id: &Arc<str>) -> String {
    format!("`{id}`")
}
