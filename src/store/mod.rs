//! Replay claims: which deliveries were seen, and which are being forwarded right now.
//!
//! A delivery is claimed before it is forwarded, and the claim is then committed (the upstream took
//! it: the next attempt is a duplicate) or released (it did not: the next attempt passes). A claim
//! that meets neither, because of a crash, frees the delivery when its lease ends.

use std::time::Duration;

use crate::clock::Clock;

pub mod memory;

use memory::{MemoryClaim, MemoryStore};

/// What a delivery is known by: a digest of route and signed content or signed event id.
pub type DeliveryKey = [u8; 32];

/// Where claims are kept. Cheap to clone; clones share the claims.
#[derive(Clone, Debug)]
pub enum ReplayStore {
    /// In this process: forgotten when it ends, not shared with replicas.
    Memory(MemoryStore),
}

/// What a claim found.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// The first attempt, or the first after one that failed: it is ours to forward.
    New(Claim),
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
}

/// Why a claim could not be made or settled. The request must not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Every place is taken by a delivery inside its window; none is given up for another.
    #[error("the replay store is full")]
    Full,
}

impl ReplayStore {
    /// A store in this process with the default number of places.
    pub fn memory(clock: Clock) -> Self {
        Self::Memory(MemoryStore::new(clock, memory::ENTRIES_MAX_DEFAULT))
    }

    /// Claims a delivery: for `lease` while it is being forwarded, remembered for `window` once
    /// committed.
    #[expect(
        clippy::unused_async,
        reason = "a store of several replicas is asked over the network"
    )]
    pub async fn claim(
        &self,
        key: DeliveryKey,
        lease: Duration,
        window: Duration,
    ) -> Result<Verdict, StoreError> {
        match self {
            Self::Memory(store) => store.claim(key, lease, window),
        }
    }
}

impl Claim {
    /// The upstream took the delivery: until the window ends, further attempts are duplicates.
    #[expect(
        clippy::unused_async,
        reason = "a store of several replicas is asked over the network"
    )]
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.0 {
            Held::Memory(claim) => claim.commit(),
        }
    }

    /// The upstream did not take the delivery: the next attempt passes.
    #[expect(
        clippy::unused_async,
        reason = "a store of several replicas is asked over the network"
    )]
    pub async fn release(self) -> Result<(), StoreError> {
        match self.0 {
            Held::Memory(claim) => claim.release(),
        }
        Ok(())
    }
}
