//! Claims and rates in Redis, Valkey or a cluster of either: shared by every replica.
//!
//! Each operation is one Lua script on one key, so it is atomic, and safe in a cluster. All times are
//! the server's: no replica's clock decides. What is not known is refused, or with `on_failure:
//! local` judged by this replica alone.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use redis::{FromRedisValue, Script, ScriptInvocation};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::memory::{MemoryClaim, MemoryStore};
use super::{DeliveryKey, StoreError, Verdict};
use crate::settings::{OnFailure, RedisSettings};
use crate::telemetry::Seldom;
use crate::telemetry::metrics::{Metrics, StateOperation, StateResult};

mod cluster;
mod link;
mod unsettled;

use link::{Failure, Link, Server};
pub use unsettled::Unsettled;

/// Commits that wait for the server to come back, and as many releases; further ones are left to their lease.
const UNSETTLED_MAX: usize = 4096;
/// Between two attempts to settle: doubled up to the second.
const SETTLE_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// The longest for a commit: a stop waits for it.
const COMMIT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// `claim.lua`: what it answers.
type Claimed = (u8, i64);

/// What a delivery asks of the server, one after the other, while it is claimed: its first name, its others, the limit of
/// its route, and that it ended. Each may take the timeout, and the lease goes on meanwhile. Further limits of a route use
/// up what a lease has to spare.
const QUESTIONS: u32 = 4;

/// State in Redis. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    id: u64,
    server: Server,
    /// Where it is, without user and password; of a cluster, one of its nodes.
    address: String,
    is_cluster: bool,
    prefix: Arc<str>,
    timeout: Duration,
    /// What this replica claims and counts by while there is no server; `None` where it then refuses.
    local: Option<MemoryStore>,
    metrics: Arc<Metrics>,
    /// Makes the owners of this process unlike those of any other.
    process: Uuid,
    next_owner: AtomicU64,
    links_down: AtomicUsize,
    /// Another store took its place: claims under way settle, and nobody hears of it.
    retired: CancellationToken,
    /// That store, if it is one of this kind.
    successor: OnceLock<RedisStore>,
    /// Places for what is settled later. A release that finds none costs a lease, a commit that finds none another delivery.
    commits: Arc<Semaphore>,
    releases: Arc<Semaphore>,
    /// Commits, of every store of the process.
    unsettled: Unsettled,
    warned: Mutex<Warned>,
}

/// What was said of the server's not being there.
#[derive(Default)]
struct Warned {
    said: Seldom,
    /// Whether the operator was told since it was last there.
    is_told: bool,
    /// Why it was not there when somebody last asked it.
    cause: Option<String>,
}

/// A claim of this store.
pub(super) struct RedisClaim {
    store: RedisStore,
    delivery: DeliveryKey,
    owner: Arc<str>,
    lease: Duration,
    window: Duration,
    /// What the server knows of it.
    is_known: Known,
    local: Option<MemoryClaim>,
}

/// What the server knows of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It was never told.
    No,
    /// It was asked, and has not answered.
    Maybe,
    Yes,
}

/// A claim that has no answer yet. When none comes, because of a time-out or because the sender has
/// left, the server may have taken it all the same: once it was asked, it is then given back.
struct Pending {
    claim: Option<RedisClaim>,
    is_sent: AtomicBool,
}

/// How a claim ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settlement {
    Commit,
    Release,
}

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("claim.lua")));
static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("commit.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release.lua")));
static RATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("rate.lua")));
static PROBE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("probe.lua")));
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl RedisStore {
    /// A store that begins to connect, in a runtime. The server need not be there. `memory` is what
    /// `on_failure: local` falls back to; `unsettled` has what is still to be told to the server.
    pub fn open(
        settings: &RedisSettings,
        memory: &MemoryStore,
        metrics: Arc<Metrics>,
        unsettled: &Unsettled,
    ) -> Result<Self, redis::RedisError> {
        let local = match settings.on_failure {
            OnFailure::Local => Some(memory.clone()),
            OnFailure::Reject => None,
        };
        let store = Self(Arc::new(Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            server: Server::new(settings)?,
            address: link::address(settings)?,
            is_cluster: settings.cluster,
            prefix: Arc::clone(&settings.prefix),
            timeout: settings.timeout,
            local,
            metrics,
            process: Uuid::now_v7(),
            next_owner: AtomicU64::new(0),
            links_down: AtomicUsize::new(0),
            retired: CancellationToken::new(),
            successor: OnceLock::new(),
            commits: Arc::new(Semaphore::new(UNSETTLED_MAX)),
            releases: Arc::new(Semaphore::new(UNSETTLED_MAX)),
            unsettled: unsettled.clone(),
            warned: Mutex::default(),
        }));
        // Whether the server is there shows before the first request.
        store.0.metrics.state.available.set(0);
        store.0.metrics.state.since.set(0);
        store.connect();
        Ok(store)
    }

    /// Begins this thread's connection, so that its first request need not wait for it.
    pub fn connect(&self) {
        drop(Link::of(&self.0));
    }

    /// Tells this store from every other of the process.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Another store takes its place: what it does from now on no longer shows. Commits that it could not tell its
    /// server are told to that of `successor`, which may be the same under a new password.
    pub fn retire(&self, successor: Option<&Self>) {
        if let Some(successor) = successor {
            self.0.successor.get_or_init(|| successor.clone());
        }
        self.0.retired.cancel();
    }

    /// This store, or the one that took its place.
    fn present(&self) -> &Self {
        let mut store = self;
        while let Some(next) = store.0.successor.get() {
            store = next;
        }
        store
    }

    /// Whether this replica goes on alone while there is no server.
    pub fn falls_back(&self) -> bool {
        self.0.local.is_some()
    }

    pub(super) async fn claim(
        &self,
        key: &DeliveryKey,
        lease: Duration,
        window: Duration,
    ) -> Result<Verdict<RedisClaim>, StoreError> {
        if self.0.unsettled.is_known(key) {
            return Ok(Verdict::Duplicate);
        }
        let (local, is_full) = match &self.0.local {
            None => (None, false),
            // What this replica has delivered itself it knows, whatever becomes of the server.
            Some(memory) => match memory.claim(*key, lease, window) {
                Ok(Verdict::New(claim)) => (Some(claim), false),
                Ok(Verdict::Duplicate) => return Ok(Verdict::Duplicate),
                Ok(Verdict::InFlight { retry_after }) => {
                    return Ok(Verdict::InFlight { retry_after });
                }
                Err(_full) => (None, true),
            },
        };
        let claim = self.0.name_claim(self, key, (lease, window), local);
        let invocation = claim.invocation();
        let mut pending = Pending {
            claim: Some(claim),
            is_sent: AtomicBool::new(false),
        };
        let asked = self.call(StateOperation::Claim, &invocation, &pending.is_sent);
        let answer: Result<Claimed, _> = asked.await;
        let found = match answer {
            Ok((0, _)) => pending.take(Known::Yes).map(Verdict::New),
            Ok((1, _)) => pending.give_up().map(|()| Verdict::Duplicate),
            Ok((_, left)) => pending.give_up().map(|()| Verdict::InFlight {
                retry_after: Duration::from_millis(left.try_into().unwrap_or(0)),
            }),
            Err(_) if pending.has_local() => {
                let is_known = pending.is_known();
                pending.take(is_known).map(Verdict::New)
            }
            Err(_) => None,
        };
        found.ok_or(if is_full {
            StoreError::Full
        } else {
            StoreError::Unavailable
        })
    }

    /// Takes one request from a bucket that all replicas share, or says how long to wait. `burst`
    /// may come at once, and one more each `period`.
    pub async fn take(
        &self,
        bucket: &str,
        period: Duration,
        burst: NonZeroU32,
    ) -> Result<Result<(), Duration>, StoreError> {
        let cost = period.as_nanos().max(1);
        let depth = cost.saturating_mul(u128::from(burst.get()));
        let mut invocation = RATE.key(format!("{}:rate:{bucket}", self.0.prefix));
        invocation.arg(micros(cost)).arg(micros(depth));
        let is_sent = AtomicBool::new(false);
        let asked = self.call(StateOperation::RateLimit, &invocation, &is_sent);
        let answer: Result<i64, _> = asked.await;
        match answer {
            Ok(0) => Ok(Ok(())),
            Ok(wait) => Ok(Err(Duration::from_micros(wait.try_into().unwrap_or(1)))),
            Err(_) => Err(StoreError::Unavailable),
        }
    }

    /// Runs a script within the time that a request may wait; counts and reports how it went.
    async fn call<T: FromRedisValue>(
        &self,
        operation: StateOperation,
        script: &ScriptInvocation<'_>,
        is_sent: &AtomicBool,
    ) -> Result<T, Failure> {
        let inner = &self.0;
        let asked = Link::of(inner);
        let answer = asked.run(script, inner.timeout, is_sent).await;
        let result = match &answer {
            Ok(_) => StateResult::Success,
            Err(Failure::Timeout(_)) => StateResult::Timeout,
            Err(Failure::Down | Failure::Refused(_)) => StateResult::Failure,
        };
        if !inner.is_retired() {
            inner.metrics.state.count(operation, result);
        }
        answer.inspect_err(|failure| inner.warn(failure))
    }

    async fn settle(&self, settlement: Settlement, claim: &RedisClaim) -> Result<(), Failure> {
        let key = self.0.key(&claim.delivery);
        let (invocation, operation) = match settlement {
            Settlement::Commit => {
                let mut invocation = COMMIT.key(key);
                invocation.arg(millis(claim.window));
                (invocation, StateOperation::Commit)
            }
            Settlement::Release => {
                let mut invocation = RELEASE.key(key);
                invocation.arg(&*claim.owner);
                (invocation, StateOperation::Release)
            }
        };
        let is_sent = AtomicBool::new(false);
        let asked = self.call(operation, &invocation, &is_sent);
        asked.await.map(|_: i64| ())
    }

    async fn settle_until_done(&self, settlement: Settlement, claim: &RedisClaim) {
        let (mut pause, most) = SETTLE_PAUSES;
        let most = match settlement {
            Settlement::Commit => COMMIT_PAUSE_MAX,
            Settlement::Release => most,
        };
        loop {
            let store = self.present();
            let link = Link::of(&store.0);
            tokio::select! {
                () = link.until_up() => {}
                // The next time its successor is asked instead, if it has one.
                () = store.0.retired.cancelled() => {}
            }
            let turn = link.turn().await;
            let settled = store.settle(settlement, claim).await;
            drop(turn);
            if settled.is_ok() {
                return;
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(most);
        }
    }

    /// Settles once the server is back, until it no longer matters. Says whether there was a place for it.
    fn settle_later(&self, settlement: Settlement, claim: RedisClaim) -> bool {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return false;
        };
        let Inner {
            commits,
            releases,
            unsettled,
            ..
        } = &*self.0;
        let (places, time) = match settlement {
            Settlement::Commit => (commits, claim.window),
            Settlement::Release => (releases, claim.lease),
        };
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else {
            return false;
        };
        let held = (settlement == Settlement::Commit).then(|| unsettled.hold(claim.delivery));
        let end = Instant::now() + time;
        let store = self.clone();
        let settled = async move {
            let (_permit, _held) = (permit, held);
            let settled = store.settle_until_done(settlement, &claim);
            // Past its time it no longer matters: the lease has ended, or the window has.
            timeout_at(end, settled).await.ok();
        };
        match settlement {
            Settlement::Commit => drop(unsettled.tasks().spawn_on(settled, &runtime)),
            // Nobody need wait for it: at the latest its lease will end.
            Settlement::Release => drop(runtime.spawn(settled)),
        }
        true
    }
}

impl RedisClaim {
    /// Claims it, or once it is ours begins its lease anew.
    fn invocation(&self) -> ScriptInvocation<'static> {
        let mut invocation = CLAIM.key(self.store.0.key(&self.delivery));
        invocation.arg(&*self.owner).arg(millis(self.lease));
        invocation
    }

    pub(super) async fn renew(&self, lease: Duration) -> Result<(), StoreError> {
        let here = self.local.as_ref().map(|local| local.renew(lease));
        if self.is_known != Known::Yes {
            return here.unwrap_or(Ok(()));
        }
        let (invocation, is_sent) = (self.invocation(), AtomicBool::new(false));
        let asked = self
            .store
            .call(StateOperation::Claim, &invocation, &is_sent);
        let answer: Result<Claimed, _> = asked.await;
        answer.map(drop).map_err(|_said| StoreError::Unavailable)
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.end(Settlement::Commit).await
    }

    pub(super) async fn release(self) -> Result<(), StoreError> {
        self.end(Settlement::Release).await
    }

    /// As [`RedisClaim::release`], in the background.
    pub(super) fn give_back(mut self) {
        if let Some(local) = self.local.take() {
            local.release();
        }
        if self.is_known != Known::No {
            // Without a place its lease frees it.
            let store = self.store.clone();
            store.settle_later(Settlement::Release, self);
        }
    }

    /// What the server did not take is told to it later: an error is that it will not be.
    async fn end(mut self, settlement: Settlement) -> Result<(), StoreError> {
        let here = self.local.take().map(|local| match settlement {
            Settlement::Commit => local.commit(),
            Settlement::Release => {
                local.release();
                Ok(())
            }
        });
        let store = self.store.clone();
        if self.is_known == Known::Yes && store.settle(settlement, &self).await.is_ok() {
            return Ok(());
        }
        let is_to_tell = settlement == Settlement::Commit || self.is_known != Known::No;
        if !is_to_tell || store.settle_later(settlement, self) {
            return Ok(());
        }
        // That it is known here keeps no other replica from it.
        here.unwrap_or(Ok(())).and(Err(StoreError::Unavailable))
    }
}

impl Pending {
    /// It is ours.
    fn take(&mut self, is_known: Known) -> Option<RedisClaim> {
        let mut claim = self.claim.take()?;
        claim.is_known = is_known;
        Some(claim)
    }

    /// It is somebody else's.
    fn give_up(&mut self) -> Option<()> {
        let mut claim = self.claim.take()?;
        if let Some(local) = claim.local.take() {
            local.release();
        }
        Some(())
    }

    fn has_local(&self) -> bool {
        let claim = self.claim.as_ref();
        claim.is_some_and(|claim| claim.local.is_some())
    }

    /// While there is no answer.
    fn is_known(&self) -> Known {
        if self.is_sent.load(Ordering::Relaxed) {
            Known::Maybe
        } else {
            Known::No
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let is_known = self.is_known();
        if let Some(claim) = self.take(is_known) {
            claim.give_back();
        }
    }
}

impl Inner {
    fn name_claim(
        &self,
        store: &RedisStore,
        key: &DeliveryKey,
        (lease, window): (Duration, Duration),
        local: Option<MemoryClaim>,
    ) -> RedisClaim {
        let number = self.next_owner.fetch_add(1, Ordering::Relaxed);
        RedisClaim {
            store: store.clone(),
            delivery: *key,
            owner: format!("{}:{number}", self.process.simple()).into(),
            lease: lease + QUESTIONS * self.timeout,
            window,
            is_known: Known::No,
            local,
        }
    }

    /// What the server calls a delivery.
    fn key(&self, delivery: &DeliveryKey) -> String {
        let name = BASE64URL_NOPAD.encode(delivery);
        format!("{}:claim:{name}", self.prefix)
    }

    fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    fn probe(&self) -> ScriptInvocation<'static> {
        PROBE.key(format!("{}:since", self.prefix))
    }

    fn remembers_since(&self, since: i64) {
        if !self.is_retired() {
            self.metrics.state.since.set(since);
        }
    }

    fn link_up(&self) {
        if self.links_down.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::take(&mut warned.is_told) && !self.is_retired() {
                tracing::info!("the shared state is available again");
            }
        }
    }

    fn link_down(&self) {
        self.links_down.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows whether every link is up.
    fn note(&self) {
        if self.is_retired() {
            return;
        }
        let is_up = self.links_down.load(Ordering::Relaxed) == 0;
        self.metrics.state.available.set(i64::from(is_up));
    }

    /// Says that the server is not there: one line in ten seconds, whatever the number of requests.
    fn warn(&self, failure: &Failure) {
        if self.is_retired() {
            return;
        }
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(failure, Failure::Down) || warned.cause.is_none() {
            warned.cause = Some(failure.to_string());
        }
        if !warned.said.is_due(Instant::now()) {
            return;
        }
        warned.is_told = true;
        let failure = warned.cause.clone().unwrap_or_default();
        drop(warned);
        let server = &*self.address;
        // A server that does not know a command repeats it, and the first one holds the password.
        let failure = failure.split(", with args").next().unwrap_or_default();
        let message = match (self.is_cluster, self.local.is_some()) {
            (false, false) => {
                "the shared state is not available: requests that need it are refused"
            }
            (false, true) => {
                "the shared state is not available: this replica claims and counts on its own"
            }
            (true, false) => {
                "a node or more of the shared state's cluster are not available: requests that need them are refused"
            }
            (true, true) => {
                "a node or more of the shared state's cluster are not available: this replica claims and counts what is theirs on its own"
            }
        };
        // Of a cluster it is the node that the configuration names, which need not be one of those.
        if self.is_cluster {
            tracing::warn!(cluster = server, failure, message);
        } else {
            tracing::warn!(server, failure, message);
        }
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The server's address holds a password.
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RedisClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisClaim").finish_non_exhaustive()
    }
}

/// Up to a half more, so that what failed together is not tried again together.
fn jittered(pause: Duration) -> Duration {
    let part = getrandom::u32().unwrap_or_default() % 500;
    pause + pause * part / 1000
}

/// Whole milliseconds, at least one: no key may live for ever.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Nanoseconds as microseconds with their fraction.
fn micros(nanos: u128) -> String {
    format!("{}.{:03}", nanos / 1000, nanos % 1000)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use futures_util::future::join_all;

    use super::*;
    use crate::clock::Clock;
    use crate::secret::Secret;
    use crate::settings::StoreUrl;

    const LEASE: Duration = Duration::from_secs(35);
    const WINDOW: Duration = Duration::from_mins(10);

    /// A store whose server takes connections and then says nothing.
    fn hanging() -> (RedisStore, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let settings = RedisSettings {
            url: StoreUrl::new(Secret::new(url.into_bytes()), [0; 32]),
            cluster: false,
            ca: None,
            prefix: "test".into(),
            timeout: Duration::from_millis(10),
            on_failure: OnFailure::Reject,
        };
        let memory = MemoryStore::new(Clock::system(), 1000);
        let metrics = Arc::new(Metrics::new("test"));
        let store = RedisStore::open(&settings, &memory, metrics, &Unsettled::default()).unwrap();
        (store, listener)
    }

    fn claim(store: &RedisStore, is_known: Known) -> RedisClaim {
        let claim = store.0.name_claim(store, &[1; 32], (LEASE, WINDOW), None);
        RedisClaim { is_known, ..claim }
    }

    #[tokio::test]
    async fn what_was_never_sent_is_not_given_back() {
        let (store, _listener) = hanging();
        let keys: Vec<DeliveryKey> = (0..100).map(|key| [key; 32]).collect();
        let asked = keys.iter().map(|key| store.claim(key, LEASE, WINDOW));
        for found in join_all(asked).await {
            assert_eq!(found.err(), Some(StoreError::Unavailable));
        }
        assert_eq!(store.0.releases.available_permits(), UNSETTLED_MAX);
        // Nor is one that only this replica knew.
        claim(&store, Known::No).release().await.unwrap();
        claim(&store, Known::No).give_back();
        assert_eq!(store.0.releases.available_permits(), UNSETTLED_MAX);
        claim(&store, Known::Maybe).give_back();
        assert_eq!(store.0.releases.available_permits(), UNSETTLED_MAX - 1);
    }

    #[tokio::test]
    async fn a_lease_has_room_for_what_is_asked_of_the_server() {
        // SECURITY S-03
        let (store, _listener) = hanging();
        let claim = claim(&store, Known::Yes);
        assert_eq!(claim.lease, LEASE + Duration::from_millis(40));
    }

    #[tokio::test]
    async fn what_the_server_is_yet_to_be_told_is_known_here() {
        // SECURITY S-03, S-04
        let (store, _listener) = hanging();
        let again = async |key| store.claim(&[key; 32], LEASE, WINDOW).await;
        assert_eq!(again(1).await.err(), Some(StoreError::Unavailable));
        claim(&store, Known::Yes).commit().await.unwrap();
        assert!(matches!(again(1).await, Ok(Verdict::Duplicate)));
        assert_eq!(again(2).await.err(), Some(StoreError::Unavailable));
    }

    #[tokio::test]
    async fn commits_have_places_that_no_release_takes() {
        // SECURITY S-04
        let (store, _listener) = hanging();
        let most = u32::try_from(UNSETTLED_MAX).unwrap();
        let _released = store.0.releases.acquire_many(most).await.unwrap();
        claim(&store, Known::Yes).commit().await.unwrap();
        // Without a place, the store will not know, and that is said.
        let lost = claim(&store, Known::Yes).release().await;
        assert_eq!(lost, Err(StoreError::Unavailable));
        let _committed = store.0.commits.acquire_many(most - 1).await.unwrap();
        let lost = claim(&store, Known::Yes).commit().await;
        assert_eq!(lost, Err(StoreError::Unavailable));
        // Nor do other replicas, where this one remembers it.
        let memory = MemoryStore::new(Clock::system(), 1000);
        let Ok(Verdict::New(here)) = memory.claim([1; 32], LEASE, WINDOW) else {
            panic!("nobody else has it");
        };
        let lost = RedisClaim {
            local: Some(here),
            ..claim(&store, Known::No)
        };
        assert_eq!(lost.commit().await, Err(StoreError::Unavailable));
    }

    #[test]
    fn what_failed_together_is_tried_again_apart() {
        let (first, most) = SETTLE_PAUSES;
        for pause in [first, most] {
            for _ in 0..100 {
                let wait = jittered(pause);
                assert!((pause..pause * 3 / 2).contains(&wait), "{wait:?}");
            }
        }
    }
}
