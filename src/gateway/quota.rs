//! Rate limits: how often one client, or a whole route, may ask.
//!
//! The arithmetic is governor's; the map of clients is ours, because governor's grows with every
//! address that ever asked. Here the clients of all limits share a fixed number of places, and those
//! that find none share one bucket: a flood of addresses costs neither memory nor the limit
//! (SECURITY DS-23). IPv6 clients count by /64, of which one sender has as many addresses as it likes;
//! those that stand for an IPv4 address count by that.
//!
//! Where replicas share state, the same arithmetic runs in the store, by the store's clock.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};

use crate::clock::Clock;
use crate::route::policy::{Quota, QuotaKey};
use crate::shares;
use crate::store::redis::RedisStore;

/// Clients that a limiter of its own remembers.
pub const CLIENTS_MAX: usize = 1_000_000;

const SHARDS: usize = 64;

type Direct = RateLimiter<NotKeyed, InMemoryState, Monotonic, NoOpMiddleware<Nanos>>;
type PerClient = RateLimiter<ClientKey, ClientStore, Monotonic, NoOpMiddleware<Nanos>>;

/// Every limiter in use. One quota of one route has one limiter, which a reload keeps when neither
/// changed; what no route holds any more is dropped.
#[derive(Debug)]
pub struct Limiters {
    clock: Clock,
    places: Arc<Places>,
    limiters: Mutex<Known>,
}

/// Limiters by route, quota and shared store.
type Known = HashMap<(Arc<str>, Quota, Option<u64>), Weak<Limiter>>;

/// One quota at work.
#[derive(Debug)]
pub struct Limiter {
    key: QuotaKey,
    kind: Kind,
    /// Where replicas count together; `kind` then counts only while that store is not there.
    shared: Option<Shared>,
}

/// A quota that replicas share.
#[derive(Debug)]
struct Shared {
    store: RedisStore,
    /// Names the route and the quota: a changed quota is another one.
    name: String,
    period: Duration,
    burst: NonZeroU32,
}

/// Why a limit refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is used up for so long: always more than nothing.
    Spent(Duration),
    /// The shared store does not say.
    Unavailable,
}

#[derive(Debug)]
enum Kind {
    Direct(Direct),
    PerClient(PerClient),
}

impl Limiters {
    /// No limiter yet; all that come share so many places for clients.
    pub fn new(clock: Clock, clients_max: usize) -> Self {
        Self {
            clock,
            places: Arc::new(Places::new(clients_max)),
            limiters: Mutex::default(),
        }
    }

    /// The limiter of a quota of a route: the one in use, if a route still holds it. With `store` it
    /// counts there.
    pub fn get(&self, route: &Arc<str>, quota: &Quota, store: Option<&RedisStore>) -> Arc<Limiter> {
        let mut limiters = self.lock();
        let id = store.map(RedisStore::id);
        let known = limiters.entry((Arc::clone(route), *quota, id)).or_default();
        known.upgrade().unwrap_or_else(|| {
            let mut made = Limiter::build(quota, &self.clock, &self.places);
            made.shared = store.map(|store| Shared::new(store.clone(), route, quota));
            let made = Arc::new(made);
            *known = Arc::downgrade(&made);
            made
        })
    }

    /// Forgets clients whose bucket is full again and limiters that no route holds. For a timer,
    /// about every 10 seconds; holds no lock that a request waits for longer than one shard takes.
    pub fn sweep(&self) {
        let mut live = Vec::new();
        self.lock().retain(|_, limiter| {
            live.extend(limiter.upgrade());
            limiter.strong_count() > 0
        });
        for limiter in live {
            limiter.sweep();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.limiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limiter {
    /// A limiter of its own, on the machine's clock.
    pub fn new(quota: &Quota) -> Self {
        let places = Arc::new(Places::new(CLIENTS_MAX));
        Self::build(quota, &Clock::system(), &places)
    }

    fn build(quota: &Quota, clock: &Clock, places: &Arc<Places>) -> Self {
        let clock = Monotonic(clock.clone());
        let kind = match quota.key {
            QuotaKey::Route => {
                let state = InMemoryState::default();
                Kind::Direct(RateLimiter::new(convert(quota), state, clock))
            }
            QuotaKey::ClientIp => {
                let state = ClientStore::new(Arc::clone(places));
                Kind::PerClient(RateLimiter::new(convert(quota), state, clock))
            }
        };
        Self {
            key: quota.key,
            kind,
            shared: None,
        }
    }

    /// Takes one request of `client` (without meaning where the whole route counts).
    pub async fn check(&self, client: IpAddr) -> Result<(), Refused> {
        let Some(shared) = &self.shared else {
            return self.check_here(client).map_err(Refused::Spent);
        };
        // Boxed, as most limits need no room for it.
        match Box::pin(shared.check(self.key, client)).await {
            Some(checked) => checked.map_err(Refused::Spent),
            None if shared.store.falls_back() => self.check_here(client).map_err(Refused::Spent),
            None => Err(Refused::Unavailable),
        }
    }

    fn check_here(&self, client: IpAddr) -> Result<(), Duration> {
        let (refused, clock) = match &self.kind {
            Kind::Direct(limiter) => (limiter.check().err(), limiter.clock()),
            Kind::PerClient(limiter) => {
                let refused = limiter.check_key(&ClientKey::of(client)).err();
                (refused, limiter.clock())
            }
        };
        refused.map_or(Ok(()), |until| {
            let wait = until.wait_time_from(clock.now());
            Err(wait.max(Duration::from_nanos(1)))
        })
    }

    fn sweep(&self) {
        if let Kind::PerClient(limiter) = &self.kind {
            limiter.retain_recent();
        }
    }
}

impl Shared {
    fn new(store: RedisStore, route: &str, quota: &Quota) -> Self {
        let period = quota.period();
        let burst = quota.burst;
        let key = match quota.key {
            QuotaKey::ClientIp => "client_ip",
            QuotaKey::Route => "route",
        };
        Self {
            store,
            name: format!("{route}:{key}:{}:{burst}", period.as_nanos()),
            period,
            burst,
        }
    }

    /// `None` when the store does not say.
    async fn check(&self, key: QuotaKey, client: IpAddr) -> Option<Result<(), Duration>> {
        let checked = match key {
            QuotaKey::Route => self.store.take(&self.name, self.period, self.burst).await,
            QuotaKey::ClientIp => {
                let bucket = format!("{}:{}", self.name, ClientKey::of(client));
                self.store.take(&bucket, self.period, self.burst).await
            }
        };
        checked.ok()
    }
}

fn convert(quota: &Quota) -> governor::Quota {
    // `None` only for a period of zero.
    governor::Quota::with_period(quota.period())
        .unwrap_or_else(|| governor::Quota::per_second(quota.rate.count))
        .allow_burst(quota.burst)
}

/// Our clock, as governor reads it.
#[derive(Clone, Debug)]
struct Monotonic(Clock);

impl GovernorClock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.monotonic().into()
    }
}

/// What a client is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ClientKey {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl ClientKey {
    pub(super) fn of(client: IpAddr) -> Self {
        match shares::network(client) {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64;
                Self::V6(u64::try_from(network).unwrap_or_default())
            }
        }
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => Ipv4Addr::from_bits(*address).fmt(f),
            Self::V6(network) => Ipv6Addr::from_bits(u128::from(*network) << 64).fmt(f),
        }
    }
}

/// Places for clients, shared by all limiters.
#[derive(Debug)]
struct Places {
    most: usize,
    taken: AtomicUsize,
}

impl Places {
    fn new(most: usize) -> Self {
        let taken = AtomicUsize::new(0);
        Self { most, taken }
    }

    fn take(&self) -> bool {
        let free = |taken| (taken < self.most).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, free)
            .is_ok()
    }

    fn give_back(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::Relaxed);
    }
}

/// The clients of one limiter.
struct ClientStore {
    places: Arc<Places>,
    /// Spreads clients over the shards: odd, and drawn for each limit.
    spread: u64,
    /// Made for the first client: 3.6 KB, and many routes have none.
    shards: OnceLock<Box<[Mutex<Clients>]>>,
    /// Shared by those who find no place.
    overflow: InMemoryState,
}

type Clients = HashMap<ClientKey, Nanos>;

impl ClientStore {
    fn new(places: Arc<Places>) -> Self {
        Self {
            places,
            spread: RandomState::new().hash_one(SHARDS) | 1,
            shards: OnceLock::new(),
            overflow: InMemoryState::default(),
        }
    }

    fn shard(&self, key: &ClientKey) -> MutexGuard<'_, Clients> {
        // Which of the locks it takes is all that is decided here; the maps have hashers of their own.
        let bits = match *key {
            ClientKey::V4(address) => u64::from(address),
            ClientKey::V6(network) => network,
        };
        let spread = bits.wrapping_mul(self.spread);
        let index = (spread >> 32) % (SHARDS as u64);
        let index = usize::try_from(index).unwrap_or_default();
        let new = || (0..SHARDS).map(|_| Mutex::default()).collect();
        #[expect(clippy::indexing_slicing, reason = "the remainder is below SHARDS")]
        let shard = &self.shards.get_or_init(new)[index];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Clients>> {
        let shards = self.shards.get().into_iter().flatten();
        shards.map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StateStore for ClientStore {
    type Key = ClientKey;

    fn measure_and_replace<T, F, E>(&self, key: &ClientKey, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shard(key);
        if let Some(state) = shard.get_mut(key) {
            let (result, next) = measure(Some(*state))?;
            *state = next;
            return Ok(result);
        }
        if self.places.take() {
            let measured = measure(None);
            match &measured {
                Ok((_, next)) => drop(shard.insert(*key, *next)),
                Err(_) => self.places.give_back(1),
            }
            return measured.map(|(result, _)| result);
        }
        drop(shard);
        self.overflow
            .measure_and_replace(&NotKeyed::NonKey, measure)
    }
}

impl ShrinkableKeyedStateStore<ClientKey> for ClientStore {
    fn retain_recent(&self, drop_below: Nanos) {
        for mut shard in self.each() {
            let before = shard.len();
            shard.retain(|_, state| *state > drop_below);
            self.places.give_back(before - shard.len());
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
    }

    fn len(&self) -> usize {
        self.each().map(|shard| shard.len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.each().all(|shard| shard.is_empty())
    }
}

impl Drop for ClientStore {
    fn drop(&mut self) {
        self.places.give_back(self.len());
    }
}

impl fmt::Debug for ClientStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_as_the_ipv4_one_that_it_stands_for() {
        let key = |address: &str| ClientKey::of(address.parse().unwrap());
        let own = key("192.0.2.1");
        assert_eq!(own, ClientKey::V4(0xc000_0201));
        for address in ["::ffff:192.0.2.1", "64:ff9b::192.0.2.1"] {
            assert_eq!(key(address), own, "{address}");
        }
        assert_eq!(key("64:ff9b:1::1"), ClientKey::V6(0x0064_ff9b_0001_0000));
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
    }
}
