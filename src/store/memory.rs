//! Claims in this process: sharded, bounded, with expiry.
//!
//! One million places cost about 200 MB at worst. Nothing is evicted inside its window: a full store
//! refuses (SECURITY DS-24).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{DeliveryKey, StoreError, Verdict};
use crate::clock::Clock;

/// Deliveries remembered at once.
pub const ENTRIES_MAX_DEFAULT: usize = 1_000_000;

const SHARDS: usize = 64;

/// Expired entries that one claim removes on its way: enough that a shard shrinks faster than it
/// grows, few enough that nobody waits for it.
const EXPIRED_PER_CLAIM: usize = 16;

/// Claims of this process. Cheap to clone; clones share the claims.
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    entries_max: usize,
    entries: AtomicUsize,
    next_id: AtomicU64,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<DeliveryKey, Entry>,
    /// One item for each entry, soonest first. Ids make equal moments distinct.
    expiry: BTreeMap<(Duration, u64), DeliveryKey>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The claim that made it: another one must not settle it.
    id: u64,
    /// End of the lease, or of the window.
    until: Duration,
    delivered: bool,
}

/// A claim of this store.
#[derive(Debug)]
pub(super) struct MemoryClaim {
    store: MemoryStore,
    key: DeliveryKey,
    id: u64,
    window: Duration,
}

impl MemoryStore {
    /// A store with so many places.
    pub fn new(clock: Clock, entries_max: usize) -> Self {
        Self(Arc::new(Inner {
            clock,
            entries_max,
            entries: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }))
    }

    /// Places taken.
    pub fn len(&self) -> usize {
        self.0.entries.load(Ordering::Relaxed)
    }

    /// Whether no place is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn claim(
        &self,
        key: DeliveryKey,
        lease: Duration,
        window: Duration,
    ) -> Result<Verdict<MemoryClaim>, StoreError> {
        let now = self.0.clock.monotonic();
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            id,
            until: now.saturating_add(lease),
            delivered: false,
        };
        let mut found = self.0.insert(key, entry, now);
        if matches!(found, Err(StoreError::Full)) {
            self.0.expire_everywhere(now);
            found = self.0.insert(key, entry, now);
        }
        Ok(match found? {
            Some(other) if other.delivered => Verdict::Duplicate,
            Some(other) => Verdict::InFlight {
                retry_after: other.until.saturating_sub(now),
            },
            None => Verdict::New(MemoryClaim {
                store: self.clone(),
                key,
                id,
                window,
            }),
        })
    }
}

impl MemoryClaim {
    /// Also after the lease ended, as long as nobody else claimed the delivery meanwhile.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        let inner = &self.store.0;
        let now = inner.clock.monotonic();
        let delivered = Entry {
            id: self.id,
            until: now.saturating_add(self.window),
            delivered: true,
        };
        let mut shard = inner.shard(&self.key);
        match shard.entries.get(&self.key) {
            Some(entry) if entry.id == self.id => {
                shard.remove(&self.key);
                shard.insert(self.key, delivered);
                Ok(())
            }
            _ => {
                drop(shard);
                inner.insert(self.key, delivered, now).map(drop)
            }
        }
    }

    pub(super) fn release(self) {
        let inner = &self.store.0;
        let mut shard = inner.shard(&self.key);
        let ours = shard
            .entries
            .get(&self.key)
            .is_some_and(|e| e.id == self.id);
        if ours {
            shard.remove(&self.key);
            inner.entries.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Inner {
    fn shard(&self, key: &DeliveryKey) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(key) % (SHARDS as u64);
        let index = usize::try_from(index).unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "the remainder is below SHARDS")]
        let shard = &self.shards[index];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Inserts unless an entry that still counts is there; answers with that one.
    fn insert(
        &self,
        key: DeliveryKey,
        entry: Entry,
        now: Duration,
    ) -> Result<Option<Entry>, StoreError> {
        let mut shard = self.shard(&key);
        let expired = shard.expire(now, EXPIRED_PER_CLAIM);
        self.entries.fetch_sub(expired, Ordering::Relaxed);
        match shard.entries.get(&key).copied() {
            Some(other) if now < other.until => return Ok(Some(other)),
            Some(_) => shard.remove(&key),
            None => {
                let taken = self.entries.fetch_add(1, Ordering::Relaxed);
                if taken >= self.entries_max {
                    self.entries.fetch_sub(1, Ordering::Relaxed);
                    return Err(StoreError::Full);
                }
            }
        }
        shard.insert(key, entry);
        Ok(None)
    }

    fn expire_everywhere(&self, now: Duration) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let expired = shard.expire(now, EXPIRED_PER_CLAIM);
            self.entries.fetch_sub(expired, Ordering::Relaxed);
        }
    }
}

impl Shard {
    fn insert(&mut self, key: DeliveryKey, entry: Entry) {
        self.entries.insert(key, entry);
        self.expiry.insert((entry.until, entry.id), key);
    }

    fn remove(&mut self, key: &DeliveryKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.expiry.remove(&(entry.until, entry.id));
        }
    }

    /// Removes at most `most` entries whose time is over; says how many.
    fn expire(&mut self, now: Duration, most: usize) -> usize {
        for removed in 0..most {
            match self.expiry.first_entry() {
                Some(first) if first.key().0 <= now => {
                    self.entries.remove(&first.remove());
                }
                _ => return removed,
            }
        }
        most
    }
}
