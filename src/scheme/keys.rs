//! The keys a check may hold: several at once, each with an id and perhaps an end.

use std::sync::Arc;

use super::primitive::{Hash, Mac, same_secret};
use crate::secret::Secret;
use crate::units::UnixTime;

/// One key.
#[derive(Clone)]
pub struct Key {
    /// Id in logs, metrics and `X-Hookward-Key-Id`.
    pub id: Arc<str>,
    /// What verifies.
    pub material: Material,
    /// From this moment on the key no longer counts.
    pub not_after: Option<UnixTime>,
    /// An HMAC under it, begun: the key's own blocks are hashed once, not for each request.
    mac: Option<(Hash, Mac)>,
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
            mac: None,
        }
    }

    /// The bytes that both sides know; none for a public key.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.material {
            Material::Secret(secret) => secret.expose(),
        }
    }

    /// Begins the HMAC that the key is for.
    pub(super) fn prepare(&mut self, hash: Hash) {
        self.mac = Some((hash, Mac::new(hash, self.bytes())));
    }

    /// The HMAC that was begun.
    pub(super) fn prepared(&self, hash: Hash) -> Option<&Mac> {
        self.mac
            .as_ref()
            .filter(|(own, _)| *own == hash)
            .map(|(_, mac)| mac)
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

    /// The usable key whose bytes are these, compared in constant time.
    pub fn matching(&self, given: &[u8], now: UnixTime) -> Option<&Key> {
        self.usable(now).find(|key| same_secret(key.bytes(), given))
    }

    /// Ids of all keys.
    pub fn ids(&self) -> impl Iterator<Item = Arc<str>> {
        self.0.iter().map(|key| Arc::clone(&key.id))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Key");
        out.field("id", &self.id)
            .field("material", &self.material)
            .field("not_after", &self.not_after);
        out.finish_non_exhaustive()
    }
}
