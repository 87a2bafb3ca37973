//! The keys a check may hold: several at once, each with an id and perhaps an end.

use std::sync::Arc;

use super::primitive::{Hash, Mac, MacKey, same_secret};
use super::public_key::{PrivateKey, PublicKey};
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
    mac: Option<(Hash, MacKey)>,
}

/// What verifies, already decoded as the scheme wants it.
#[derive(Clone, Debug)]
pub enum Material {
    /// Bytes that both sides know.
    Secret(Secret),
    /// The half that anybody may know.
    Public(PublicKey),
    /// Both halves: only `sign` and `send` have such a key.
    Private(PrivateKey),
    /// Nothing: the scheme looks at no key, or the provider is yet to send one.
    None,
}

/// The keys of one check, in the order of the file. Never empty.
#[derive(Clone, Debug)]
pub struct KeySet(Box<[Key]>);

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

    /// A key that never counts, where a check has none.
    pub fn none() -> Self {
        Self {
            id: "none".into(),
            material: Material::None,
            not_after: Some(UnixTime::from_secs(0)),
            mac: None,
        }
    }

    /// A key to verify with.
    pub fn public(id: Arc<str>, key: PublicKey, not_after: Option<UnixTime>) -> Self {
        Self {
            id,
            material: Material::Public(key),
            not_after,
            mac: None,
        }
    }

    /// A key to sign with.
    pub fn private(id: Arc<str>, key: PrivateKey) -> Self {
        Self {
            id,
            material: Material::Private(key),
            not_after: None,
            mac: None,
        }
    }

    /// The bytes that both sides know, where it is such a key.
    pub fn secret_bytes(&self) -> Option<&[u8]> {
        match &self.material {
            Material::Secret(secret) => Some(secret.expose()),
            Material::Public(_) | Material::Private(_) | Material::None => None,
        }
    }

    /// Whether it counts at `now`.
    pub(super) fn is_usable(&self, now: UnixTime) -> bool {
        self.not_after.is_none_or(|end| now < end)
    }

    /// The bytes that both sides know; none for a key of two halves.
    pub(super) fn bytes(&self) -> &[u8] {
        self.secret_bytes().unwrap_or_default()
    }

    /// Begins the HMAC that the key is for.
    pub(super) fn prepare(&mut self, hash: Hash) {
        self.mac = Some((hash, MacKey::new(hash, self.bytes())));
    }

    /// An HMAC under this key, ready for content.
    pub(super) fn mac(&self, hash: Hash) -> Mac {
        match &self.mac {
            Some((own, key)) if *own == hash => key.begin(),
            _ => Mac::new(hash, self.bytes()),
        }
    }

    /// The half that verifies, where it is a key of two halves.
    pub fn public_key(&self) -> Option<&PublicKey> {
        match &self.material {
            Material::Secret(_) | Material::None => None,
            Material::Public(key) => Some(key),
            Material::Private(key) => Some(key.public()),
        }
    }

    /// The half that signs, where it is here.
    pub fn private_key(&self) -> Option<&PrivateKey> {
        match &self.material {
            Material::Secret(_) | Material::Public(_) | Material::None => None,
            Material::Private(key) => Some(key),
        }
    }
}

impl KeySet {
    /// `None` when there is no key: a check without keys must not exist.
    pub fn new(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then(|| Self(keys.into()))
    }

    /// Whether one of them is not a secret.
    pub fn has_public(&self) -> bool {
        self.0.iter().any(|key| key.public_key().is_some())
    }

    /// These keys and others.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        Self(self.0.iter().chain(&others.0).cloned().collect())
    }

    /// All keys, also those that no longer count.
    pub fn all(&self) -> &[Key] {
        &self.0
    }

    /// The keys that count at `now`.
    pub fn usable(&self, now: UnixTime) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| key.is_usable(now))
    }

    /// The usable key whose bytes are these, compared in constant time.
    pub fn matching(&self, given: &[u8], now: UnixTime) -> Option<&Key> {
        let is = |key: &&Key| {
            key.secret_bytes()
                .is_some_and(|secret| same_secret(secret, given))
        };
        // Whether the first or the last key fits takes the same time (SECURITY A-13).
        self.usable(now).filter(is).last()
    }

    /// The keys that were given: all but [`Key::none`].
    pub fn given(&self) -> impl Iterator<Item = &Key> {
        let is_given = |key: &&Key| !matches!(key.material, Material::None);
        self.0.iter().filter(is_given)
    }

    /// Ids of the keys that were given.
    pub fn ids(&self) -> impl Iterator<Item = Arc<str>> {
        self.given().map(|key| Arc::clone(&key.id))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Key");
        out.field("id", &self.id).field("material", &self.material);
        out.field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
