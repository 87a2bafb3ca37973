//! The keys a check may hold: several at once, each with an id and perhaps an end.

use std::sync::Arc;

use crate::secret::Secret;
use crate::units::UnixTime;

/// One key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Id in logs, metrics and `X-Hookward-Key-Id`.
    pub id: Arc<str>,
    /// What verifies.
    pub material: Material,
    /// From this moment on the key no longer counts.
    pub not_after: Option<UnixTime>,
}

/// What verifies, already decoded as the scheme wants it.
#[derive(Clone, Debug)]
pub enum Material {
    /// Bytes that both sides know.
    Secret(Secret),
}

/// The keys of one check, in the order of the file. Never empty.
#[derive(Clone, Debug)]
pub struct KeySet(Vec<Key>);

impl Key {
    /// A key of bytes that both sides know, as they are.
    pub fn secret(id: Arc<str>, secret: Secret, not_after: Option<UnixTime>) -> Self {
        Self {
            id,
            material: Material::Secret(secret),
            not_after,
        }
    }
}

impl KeySet {
    /// `None` when there is no key: a check without keys must not exist.
    pub fn new(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// All keys, also those that no longer count.
    pub fn all(&self) -> &[Key] {
        &self.0
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
