//! Claims in this process: sharded, bounded, with expiry.
//!
//! One million places cost about 120 MB, 160 where most claims are released. Nothing is evicted inside its
//! window: a full store refuses (SECURITY DS-24).

use std::cmp::Reverse;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::collections::hash_map::{self, HashMap};
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

/// Moments of released claims that a shard keeps at least before it forgets them.
const RELEASED_MIN: usize = 64;

/// Claims of this process. Cheap to clone; clones share the claims.
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    entries_max: usize,
    entries: AtomicUsize,
    next_id: AtomicU64,
    shards: Vec<Mutex<Shard>>,
}

/// What a delivery is known by here: the first half of its key. Of 2^64 deliveries two could be taken for one; of a
/// million it saves a third of the memory.
type Name = [u8; 16];

/// A moment of the clock, in nanoseconds.
type Moment = u64;

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Name, Entry, foldhash::quality::RandomState>,
    /// When to look at which entry, soonest first: once for each claim. What has got more time since
    /// is then put back, so that a commit costs no search.
    due: BinaryHeap<Reverse<Due>>,
}

/// A moment at which the entry of a claim may be over.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Moment,
    id: u64,
    name: Name,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The claim that made it: another one must not settle it.
    id: u64,
    /// End of the lease, or of the window.
    until: Moment,
    delivered: bool,
}

/// A claim of this store.
#[derive(Debug)]
pub(super) struct MemoryClaim {
    store: MemoryStore,
    name: Name,
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
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }))
    }

    pub(super) fn claim(
        &self,
        key: DeliveryKey,
        lease: Duration,
        window: Duration,
    ) -> Result<Verdict<MemoryClaim>, StoreError> {
        let name = key.first_chunk().copied().unwrap_or_default();
        let now = self.0.now();
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            id,
            until: now.saturating_add(nanos(lease)),
            delivered: false,
        };
        let mut found = self.0.insert(&mut self.0.shard(&name), name, entry, now);
        if matches!(found, Err(StoreError::Full)) {
            self.0.expire_everywhere(now);
            found = self.0.insert(&mut self.0.shard(&name), name, entry, now);
        }
        Ok(match found? {
            Some(other) if other.delivered => Verdict::Duplicate,
            Some(other) => Verdict::InFlight {
                retry_after: Duration::from_nanos(other.until.saturating_sub(now)),
            },
            None => Verdict::New(MemoryClaim {
                store: self.clone(),
                name,
                id,
                window,
            }),
        })
    }
}

fn nanos(duration: Duration) -> Moment {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl MemoryClaim {
    /// Also after the lease ended, and where another attempt has claimed the delivery meanwhile: the app has it.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        self.hold_until(self.window, |entry| {
            entry.delivered = true;
            true
        })
    }

    /// The lease begins anew, unless another attempt has claimed the delivery meanwhile.
    pub(super) fn renew(&self, lease: Duration) -> Result<(), StoreError> {
        self.hold_until(lease, |entry| entry.id == self.id && !entry.delivered)
    }

    /// Has the entry last for so long from now on, where `change` says so of the one that is there.
    fn hold_until(
        &self,
        time: Duration,
        change: impl Fn(&mut Entry) -> bool,
    ) -> Result<(), StoreError> {
        let inner = &self.store.0;
        let now = inner.now();
        let until = now.saturating_add(nanos(time));
        // One lock for both, or another attempt could claim it in between.
        let mut shard = inner.shard(&self.name);
        if let Some(entry) = shard.entries.get_mut(&self.name) {
            if change(entry) {
                entry.until = until;
            }
            return Ok(());
        }
        let mut entry = Entry {
            id: self.id,
            until,
            delivered: false,
        };
        change(&mut entry);
        inner.insert(&mut shard, self.name, entry, now).map(drop)
    }

    /// Unless the app has taken another attempt.
    pub(super) fn release(self) {
        let inner = &self.store.0;
        let mut shard = inner.shard(&self.name);
        if let hash_map::Entry::Occupied(entry) = shard.entries.entry(self.name)
            && entry.get().id == self.id
            && !entry.get().delivered
        {
            entry.remove();
            inner.entries.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Inner {
    fn now(&self) -> Moment {
        nanos(self.clock.monotonic())
    }

    fn shard(&self, name: &Name) -> MutexGuard<'_, Shard> {
        // A name is of a digest: any of its bytes spreads. Which of the locks it takes is all that is
        // decided here; the maps have hashers with keys of their own (SECURITY DS-22).
        let [first, ..] = name;
        #[expect(clippy::indexing_slicing, reason = "the remainder is below SHARDS")]
        let shard = &self.shards[usize::from(*first) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Inserts unless an entry that still counts is there; answers with that one.
    fn insert(
        &self,
        shard: &mut Shard,
        name: Name,
        entry: Entry,
        now: Moment,
    ) -> Result<Option<Entry>, StoreError> {
        let expired = shard.expire(now, EXPIRED_PER_CLAIM);
        self.entries.fetch_sub(expired, Ordering::Relaxed);
        let Shard { entries, due } = shard;
        match entries.entry(name) {
            hash_map::Entry::Occupied(other) if now < other.get().until => {
                return Ok(Some(*other.get()));
            }
            hash_map::Entry::Occupied(mut over) => {
                over.insert(entry);
            }
            hash_map::Entry::Vacant(place) => {
                let taken = self.entries.fetch_add(1, Ordering::Relaxed);
                if taken >= self.entries_max {
                    self.entries.fetch_sub(1, Ordering::Relaxed);
                    return Err(StoreError::Full);
                }
                place.insert(entry);
            }
        }
        due.push(Reverse(Due {
            at: entry.until,
            id: entry.id,
            name,
        }));
        shard.forget_released();
        Ok(None)
    }

    fn expire_everywhere(&self, now: Moment) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let expired = shard.expire(now, EXPIRED_PER_CLAIM);
            self.entries.fetch_sub(expired, Ordering::Relaxed);
        }
    }
}

impl Shard {
    /// Drops the moments of claims that were released, once they are as many as the others: an app that
    /// fails every delivery must not fill memory with them. Each is looked at once for one that was added.
    fn forget_released(&mut self) {
        let Self { entries, due } = self;
        if due.len() > 2 * entries.len() + RELEASED_MIN {
            due.retain(|Reverse(due)| entries.get(&due.name).is_some_and(|own| own.id == due.id));
        }
    }

    /// Looks at no more than `most` entries whose moment has come, and removes those whose time is over;
    /// says how many.
    fn expire(&mut self, now: Moment, most: usize) -> usize {
        let mut removed = 0;
        for _ in 0..most {
            let Some(first) = self.due.peek_mut().filter(|first| first.0.at <= now) else {
                break;
            };
            let Reverse(due) = PeekMut::pop(first);
            // Another claim of the same delivery has a moment of its own.
            let hash_map::Entry::Occupied(entry) = self.entries.entry(due.name) else {
                continue;
            };
            let Entry { id, until, .. } = *entry.get();
            if id != due.id {
                continue;
            }
            if until <= now {
                entry.remove();
                removed += 1;
            } else {
                self.due.push(Reverse(Due { at: until, ..due }));
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::UnixTime;

    const LEASE: Duration = Duration::from_secs(35);
    const WINDOW: Duration = Duration::from_mins(10);

    fn store() -> (MemoryStore, Clock) {
        let clock = Clock::manual(UnixTime::from_secs(1_800_000_000));
        (MemoryStore::new(clock.clone(), 1000), clock)
    }

    fn new(store: &MemoryStore, key: u8) -> MemoryClaim {
        match store.claim([key; 32], LEASE, WINDOW) {
            Ok(Verdict::New(claim)) => claim,
            other => panic!("{other:?}"),
        }
    }

    fn places(store: &MemoryStore) -> usize {
        store.0.entries.load(Ordering::Relaxed)
    }

    fn moments(store: &MemoryStore) -> usize {
        let count = |shard: &Mutex<Shard>| shard.lock().unwrap().due.len();
        store.0.shards.iter().map(count).sum()
    }

    #[test]
    fn released_claims_do_not_pile_up() {
        // SECURITY DS-24: within one lease, and without an entry that counts
        let (store, _) = store();
        for _ in 0..10_000 {
            new(&store, 1).release();
        }
        assert_eq!(places(&store), 0);
        assert!(moments(&store) <= RELEASED_MIN + 1, "{}", moments(&store));
    }

    #[test]
    fn a_lease_is_renewed_by_its_claim_alone() {
        let (store, clock) = store();
        let claim = new(&store, 1);
        for _ in 0..3 {
            clock.advance(LEASE * 3 / 4);
            claim.renew(LEASE).unwrap();
            new(&store, 65).release();
        }
        let other = store.claim([1; 32], LEASE, WINDOW).unwrap();
        assert!(matches!(other, Verdict::InFlight { .. }), "{other:?}");
        clock.advance(LEASE);
        let other = new(&store, 1);
        claim.renew(LEASE * 2).unwrap();
        clock.advance(LEASE);
        new(&store, 1).release();
        drop(other);
    }

    #[test]
    fn what_the_app_took_counts_whoever_has_the_claim_by_then() {
        let (store, clock) = store();
        let slow = new(&store, 1);
        clock.advance(LEASE);
        let other = new(&store, 1);
        slow.commit().unwrap();
        // The app failed this attempt: it has the delivery all the same.
        other.release();
        let again = store.claim([1; 32], LEASE, WINDOW).unwrap();
        assert!(matches!(again, Verdict::Duplicate), "{again:?}");
        clock.advance(WINDOW);
        new(&store, 65).release();
        assert_eq!(
            (places(&store), moments(&store)),
            (0, 1),
            "it ends with its window"
        );
    }

    #[test]
    fn a_committed_claim_outlives_its_lease_and_ends_with_its_window() {
        let (store, clock) = store();
        new(&store, 1).release();
        new(&store, 1).commit().unwrap();
        // Other claims of the shard look at what is due, long after the lease and before the window ends.
        clock.advance(LEASE * 2);
        new(&store, 65).commit().unwrap();
        let again = store.claim([1; 32], LEASE, WINDOW).unwrap();
        assert!(matches!(again, Verdict::Duplicate), "{again:?}");
        clock.advance(WINDOW);
        new(&store, 129).release();
        assert_eq!((places(&store), moments(&store)), (0, 1));
        new(&store, 1).release();
    }
}
