//! The keys a check may hold: several at once, each with an id and perhaps an end.

use std::sync::Arc;

use crate::secret::Secret;
use crate::units::UnixTime;

/// One secret.
#[derive(Clone, Debug)]
pub struct Key {
    /// Id in logs, metrics and `X-Hookward-Key-Id`.
    pub id: Arc<str>,
    /// Key bytes, already decoded as the scheme wants them.
    pub secret: Secret,
    /// From this moment on the key no longer counts.
    pub not_after: Option<UnixTime>,
}

/// The keys of one check, in the order of the file. Never empty.
#[derive(Clone, Debug)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// `None` when there is no key: a check without keys must not exist.
    pub fn new(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The keys that count at `now`.
    pub fn usable(&self, now: UnixTime) -> impl Iterator<Item = &Key> {
        self.0
            .iter()
            .filter(move |key| key.not_after.is_none_or(|end| now < end))
    }

    /// Ids of all keys.
    pub fn ids(&self) -> impl Iterator<Item = Arc<str>> {
        self.0.iter().map(|key| Arc::clone(&key.id))
    }
}
