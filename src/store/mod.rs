//! Replay claims: which deliveries were seen, and which are being forwarded right now.
//!
//! A delivery is claimed before it is forwarded, and the claim is then committed (the upstream took
//! it: the next attempt is a duplicate) or released (it did not: the next attempt passes). A claim
//! that meets neither, because of a crash, frees the delivery when its lease ends.

use std::time::Duration;

use crate::clock::Clock;

pub mod memory;
pub mod redis;

use self::redis::{RedisClaim, RedisStore};
use memory::{MemoryClaim, MemoryStore};

/// What a delivery is known by: a digest of its signed event id, its signed content or its HMAC, marked with its route.
pub type DeliveryKey = [u8; 32];

/// Where claims are kept. Cheap to clone; clones share the claims.
#[derive(Clone, Debug)]
pub enum ReplayStore {
    /// In this process: forgotten when it ends, not shared with replicas.
    Memory(MemoryStore),
    /// In Redis: kept when this process ends, shared with replicas.
    Redis(RedisStore),
}

/// What a claim found.
#[derive(Debug)]
#[must_use]
pub enum Verdict<C = Claim> {
    /// The first attempt, or the first after one that failed: it is ours to forward.
    New(C),
    /// Delivered inside the window.
    Duplicate,
    /// Another attempt is being forwarded right now.
    InFlight {
        /// When its lease ends at the latest.
        retry_after: Duration,
    },
}

/// The right to forward a delivery. Dropped without [`commit`](Claim::commit) or
/// [`release`](Claim::release) it blocks further attempts until its lease ends.
#[derive(Debug)]
#[must_use = "commit it after a delivery, release it after a failure"]
pub struct Claim(Held);

#[derive(Debug)]
enum Held {
    Memory(MemoryClaim),
    Redis(Box<RedisClaim>),
}

/// Why a claim could not be made or settled. The request must not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Every place is taken by a delivery inside its window; none is given up for another.
    #[error("the replay store is full")]
    Full,
    /// The shared store gave no answer in time, or refused.
    #[error("the shared store is not available")]
    Unavailable,
}

impl ReplayStore {
    /// A store in this process with the default number of places.
    pub fn memory(clock: Clock) -> Self {
        Self::Memory(MemoryStore::new(clock, memory::ENTRIES_MAX_DEFAULT))
    }

    /// Claims a delivery: for `lease` while it is being forwarded, remembered for `window` once
    /// committed.
    // What waits for Redis is boxed, here and below: every request would carry the room for it.
    pub async fn claim(
        &self,
        key: DeliveryKey,
        lease: Duration,
        window: Duration,
    ) -> Result<Verdict, StoreError> {
        match self {
            Self::Memory(store) => {
                let found = store.claim(key, lease, window)?;
                Ok(found.map(|claim| Claim(Held::Memory(claim))))
            }
            Self::Redis(store) => {
                let found = Box::pin(store.claim(&key, lease, window)).await?;
                Ok(found.map(|claim| Claim(Held::Redis(Box::new(claim)))))
            }
        }
    }

    /// What replicas share, where they do.
    pub fn shared(&self) -> Option<&RedisStore> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(store) => Some(store),
        }
    }
}

impl<C> Verdict<C> {
    fn map<D>(self, make: impl FnOnce(C) -> D) -> Verdict<D> {
        match self {
            Self::New(claim) => Verdict::New(make(claim)),
            Self::Duplicate => Verdict::Duplicate,
            Self::InFlight { retry_after } => Verdict::InFlight { retry_after },
        }
    }
}

impl Claim {
    /// The upstream took the delivery: until the window ends, further attempts are duplicates.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.0 {
            Held::Memory(claim) => claim.commit(),
            Held::Redis(claim) => Box::pin(claim.commit()).await,
        }
    }

    /// The lease begins anew: the delivery is still under way. `lease` is that of the claim.
    pub async fn renew(&self, lease: Duration) -> Result<(), StoreError> {
        match &self.0 {
            Held::Memory(claim) => claim.renew(lease),
            Held::Redis(claim) => Box::pin(claim.renew(lease)).await,
        }
    }

    /// As [`Claim::release`], for those who cannot wait: a shared store learns of it a little later.
    pub fn give_back(self) {
        match self.0 {
            Held::Memory(claim) => claim.release(),
            Held::Redis(claim) => claim.give_back(),
        }
    }

    /// The upstream did not take the delivery: the next attempt passes.
    pub async fn release(self) -> Result<(), StoreError> {
        match self.0 {
            Held::Memory(claim) => {
                claim.release();
                Ok(())
            }
            Held::Redis(claim) => Box::pin(claim.release()).await,
        }
    }
}
