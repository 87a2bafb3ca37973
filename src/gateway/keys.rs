//! Keys that providers publish: fetched when a check needs them, kept, and fetched anew before they
//! are too old.
//!
//! A request that needs keys waits for them, but not long; who cannot get them is refused with
//! `key_unavailable`. Requests choose neither when nor how often something is fetched: one fetch for
//! a URL at a time, one in [`RETRY_AFTER`] at most, [`UNASKED_MAX`] a minute for URLs that requests
//! name, of which one client spends [`UNASKED_BY_ONE_MAX`] (SECURITY DS-31). Keys that grow old are served while new ones come (SECURITY A-54).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::TrustAnchor;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::quota::ClientKey;
use crate::clock::Clock;
use crate::reason::Reason;
use crate::route::auth::{AuthPolicy, Published, SignatureCheck};
pub use crate::scheme::https_url::{HttpsUrl, KeyUrl, Reach};
use crate::scheme::keys::{Key, KeySet};
use crate::scheme::{Message, SignatureError, published};
use crate::telemetry::metrics::Metrics;

/// A fetch under way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + 'a>>;

/// The way to small documents on the web.
pub trait Fetch: fmt::Debug + Send + Sync {
    /// Reads what is at `url`, from an address within `reach`. Bounded in size and time.
    fn get<'a>(&'a self, url: &'a HttpsUrl, reach: Reach) -> Fetching<'a>;

    /// The authorities that the public trusts.
    fn roots(&self) -> &[TrustAnchor<'static>];
}

/// A document.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its bytes.
    pub body: Bytes,
    /// How long its server says that it holds.
    pub max_age: Option<Duration>,
}

/// Why a document cannot be had. For the operator, never for the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The answer is not 200 with plain content of a few KiB.
    #[error("the answer is not usable: {0}")]
    Answer(String),
    /// Its host has no address that may be called.
    #[error("its host has no public address")]
    Reach,
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
}

/// How long keys hold whose server does not say.
const FRESH_DEFAULT: Duration = Duration::from_hours(1);
/// Shortest time that keys hold, whatever their server says.
const FRESH_MIN: Duration = Duration::from_mins(5);
/// Longest time that keys hold, whatever their server says.
const FRESH_MAX: Duration = Duration::from_hours(24);
/// How long keys that no longer hold still serve while no newer ones can be had.
const STALE_MAX: Duration = Duration::from_hours(24);
/// Time between two fetches of one URL, failed ones too.
pub const RETRY_AFTER: Duration = Duration::from_secs(30);
/// How long a request waits for keys.
pub const WAIT_MAX: Duration = Duration::from_secs(4);
/// URLs that are remembered of those that requests name.
const ENTRIES_MAX: usize = 256;
/// Fetches at a time that requests cause.
const FETCHES_MAX: usize = 8;
/// Fetches at a time ahead of requests.
const FETCHES_AHEAD_MAX: usize = 4;
/// Fetches a minute, at one site, of URLs that are not the operator's own.
pub const UNASKED_MAX: usize = 30;
/// How many of those one client can cause: whoever makes up URLs leaves some to the provider's new one.
pub const UNASKED_BY_ONE_MAX: usize = 10;

/// Published keys by URL. Cheap to clone; clones share the keys.
#[derive(Clone, Debug)]
pub struct KeyCache(Arc<Inner>);

/// The published keys that a check wants for one request.
#[derive(Debug)]
pub struct Wanted {
    url: Result<KeyUrl, SignatureError>,
    key_id: Option<String>,
}

/// What the checks of a route that are published want for `message`, in the order of the file.
pub fn wanted(policy: &AuthPolicy, message: &Message<'_>) -> Vec<Wanted> {
    let of_check = |(check, published)| Wanted {
        url: key_url(check, published, message),
        key_id: check.scheme.wanted_key_id(message),
    };
    published_checks(policy).map(of_check).collect()
}

fn key_url(
    check: &SignatureCheck,
    published: &Published,
    message: &Message<'_>,
) -> Result<KeyUrl, SignatureError> {
    let url = match published {
        Published::At(url) => Some(url.clone()),
        Published::ByProvider => check.scheme.key_url(message)?,
    };
    url.ok_or(SignatureError {
        reason: Reason::KeyUnavailable,
        detail: "the request does not say where its key is",
    })
}

fn published_checks(policy: &AuthPolicy) -> impl Iterator<Item = (&SignatureCheck, &Published)> {
    let checks = policy.signatures();
    checks.filter_map(|check| Some((check, check.published.as_ref()?)))
}

/// The keys that were fetched for one request: of each check that is published, in the order of the file.
#[derive(Debug, Default)]
pub struct Keyring(Vec<Result<KeySet, SignatureError>>);

impl Keyring {
    /// What `check` of `policy` verifies with: pinned keys, and those that its provider publishes.
    pub fn keys_of<'k>(
        &'k self,
        policy: &AuthPolicy,
        check: &'k SignatureCheck,
    ) -> Result<&'k KeySet, SignatureError> {
        let mut all = self.0.iter().zip(published_checks(policy));
        match all.find(|(_, (own, _))| std::ptr::eq(*own, check)) {
            Some((Ok(keys), _)) => Ok(keys),
            Some((Err(error), _)) => Err(*error),
            None => Ok(&check.keys),
        }
    }
}

#[derive(Debug)]
struct Inner {
    fetch: Arc<dyn Fetch>,
    clock: Clock,
    metrics: Arc<Metrics>,
    entries: Mutex<HashMap<KeyUrl, Arc<Entry>>>,
    running: Arc<Semaphore>,
    ahead: Semaphore,
    /// By site: who makes requests name URLs of one keeps no fetch from another.
    unasked: Mutex<HashMap<String, Window>>,
    uses: AtomicU64,
}

/// Who caused the fetches of the minute that began at `start`.
#[derive(Debug)]
struct Window {
    start: Duration,
    clients: Vec<ClientKey>,
}

impl Window {
    /// Takes one of the fetches that are left to `client`.
    fn take(&mut self, client: ClientKey) -> bool {
        let own = self.clients.iter().filter(|own| **own == client).count();
        let is_left = self.clients.len() < UNASKED_MAX && own < UNASKED_BY_ONE_MAX;
        if is_left {
            self.clients.push(client);
        }
        is_left
    }
}

#[derive(Debug)]
struct Entry {
    wanted: KeyUrl,
    state: Mutex<State>,
    /// Tells those who wait that a fetch has ended.
    ended: watch::Sender<()>,
    last_use: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    last_fetch: Option<Duration>,
    is_running: bool,
}

#[derive(Clone, Debug)]
struct Held {
    keys: Arc<KeySet>,
    since: Duration,
    fresh: Duration,
}

/// What is to be done for a request that wants keys.
enum Next {
    /// Nothing: here they are.
    Take(Arc<KeySet>),
    /// Take these, and let newer ones come.
    TakeAndRefresh(Arc<KeySet>),
    /// Wait for the fetch; if it fails, make do with what was there before.
    Wait(watch::Receiver<()>, Option<Arc<KeySet>>),
    /// The last fetch failed, and not long ago.
    GiveUp,
}

impl KeyCache {
    /// An empty cache.
    pub fn new(fetch: Arc<dyn Fetch>, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            fetch,
            clock,
            metrics,
            entries: Mutex::default(),
            running: Arc::new(Semaphore::new(FETCHES_MAX)),
            ahead: Semaphore::new(FETCHES_AHEAD_MAX),
            unasked: Mutex::default(),
            uses: AtomicU64::new(0),
        }))
    }

    /// The keys at `wanted`. With a `key_id` that is not among them, they are fetched anew first: the
    /// provider may have a new key since. Whether one of them fits is the scheme's to say. `client` is who
    /// a fetch is counted for.
    pub async fn keys(
        &self,
        wanted: &KeyUrl,
        key_id: Option<&str>,
        client: IpAddr,
    ) -> Result<Arc<KeySet>, SignatureError> {
        let unavailable = |detail| SignatureError {
            reason: Reason::KeyUnavailable,
            detail,
        };
        let crowded = "too many key URLs are remembered";
        let entry = self.entry(wanted).ok_or(unavailable(crowded))?;
        let (mut ended, before) = match self.next(&entry, key_id) {
            Next::Take(keys) => return Ok(keys),
            Next::TakeAndRefresh(keys) => {
                // What is held still serves.
                self.start(&entry, client).ok();
                return Ok(keys);
            }
            Next::GiveUp => return Err(unavailable("the keys could not be fetched just now")),
            Next::Wait(ended, before) => match self.start(&entry, client) {
                Ok(()) => (ended, before),
                Err(why) => return before.ok_or(unavailable(why)),
            },
        };
        // Whoever started the fetch may have gone; its end is told all the same.
        let in_time = timeout(WAIT_MAX, ended.changed()).await.is_ok();
        let now = self.0.clock.monotonic();
        let after = entry.state().held.clone();
        let after = after
            .filter(|held| in_time && held.serves(now))
            .map(|held| held.keys);
        after
            .or(before)
            .ok_or(unavailable("the keys cannot be fetched"))
    }

    /// Gets what the checks of `policy` [`wanted`] for a request.
    pub async fn gather(
        &self,
        policy: &AuthPolicy,
        wanted: Vec<Wanted>,
        client: IpAddr,
    ) -> Keyring {
        let mut fetched = Vec::with_capacity(wanted.len());
        for (wanted, (check, _)) in wanted.into_iter().zip(published_checks(policy)) {
            fetched.push(self.of_check(check, wanted, client).await);
        }
        Keyring(fetched)
    }

    async fn of_check(
        &self,
        check: &SignatureCheck,
        wanted: Wanted,
        client: IpAddr,
    ) -> Result<KeySet, SignatureError> {
        let Wanted { url, key_id } = wanted;
        match self.keys(&url?, key_id.as_deref(), client).await {
            Ok(keys) => Ok(check.keys.and(&keys)),
            Err(_) if !check.needs_fetch() => Ok(check.keys.clone()),
            Err(error) => Err(error),
        }
    }

    /// Fetches the URLs of a new configuration, the operator's own and those that presets fix, ahead of the first
    /// request: [`FETCHES_AHEAD_MAX`] at a time, by places that no request needs. Forgets the operator's of the one before.
    pub fn prepare(&self, all: &HashSet<&KeyUrl>) {
        lock(&self.0.entries).retain(|url, entry| !entry.is_of_operator() || all.contains(url));
        for wanted in all {
            let Some(entry) = self.entry(wanted) else {
                continue;
            };
            if let Next::Wait(..) | Next::TakeAndRefresh(_) = self.next(&entry, None) {
                tokio::spawn(Arc::clone(&self.0).fetch_ahead(entry));
            }
        }
    }

    /// The entry of a URL. When all places are taken, the one that was not asked for the longest
    /// makes room: one without keys first. The operator's own need no place: the configuration says how many they are.
    fn entry(&self, wanted: &KeyUrl) -> Option<Arc<Entry>> {
        let inner = &self.0;
        let last_use = inner.uses.fetch_add(1, Ordering::Relaxed);
        let mut entries = lock(&inner.entries);
        if let Some(entry) = entries.get(wanted) {
            entry.last_use.store(last_use, Ordering::Relaxed);
            return Some(Arc::clone(entry));
        }
        let of_requests = |entry: &&Arc<Entry>| !entry.is_of_operator();
        if wanted.reach != Reach::Any && entries.values().filter(of_requests).count() >= ENTRIES_MAX
        {
            let movable = entries.values().filter(|entry| entry.is_movable());
            let oldest = movable.min_by_key(|entry| {
                (
                    entry.state().held.is_some(),
                    entry.last_use.load(Ordering::Relaxed),
                )
            });
            let oldest = oldest?.wanted.clone();
            entries.remove(&oldest);
        }
        let entry = Arc::new(Entry {
            wanted: wanted.clone(),
            state: Mutex::default(),
            ended: watch::Sender::new(()),
            last_use: AtomicU64::new(last_use),
        });
        entries.insert(wanted.clone(), Arc::clone(&entry));
        Some(entry)
    }

    fn next(&self, entry: &Entry, key_id: Option<&str>) -> Next {
        let now = self.0.clock.monotonic();
        let state = entry.state();
        let may_fetch = state.is_running || state.may_fetch(now);
        let wait = |before| Next::Wait(entry.ended.subscribe(), before);
        match &state.held {
            Some(held) => {
                let age = now.saturating_sub(held.since);
                let keys = Arc::clone(&held.keys);
                if !held.serves(now) {
                    return if may_fetch { wait(None) } else { Next::GiveUp };
                }
                let lacks = key_id.is_some_and(|key_id| lacks_key(&keys, key_id));
                // On a quiet route they may be long withdrawn.
                let is_over = age >= held.fresh;
                if (lacks || is_over) && may_fetch {
                    wait(Some(keys))
                } else if age >= held.fresh / 5 * 4 && may_fetch {
                    Next::TakeAndRefresh(keys)
                } else {
                    Next::Take(keys)
                }
            }
            None if may_fetch => wait(None),
            None => Next::GiveUp,
        }
    }

    /// Starts a fetch in a task of its own, unless one is under way or has just ended, or says why it may not be.
    fn start(&self, entry: &Arc<Entry>, client: IpAddr) -> Result<(), &'static str> {
        let inner = Arc::clone(&self.0);
        let now = inner.clock.monotonic();
        let mut state = entry.state();
        if state.is_running || !state.may_fetch(now) {
            return Ok(());
        }
        let permit = Arc::clone(&inner.running)
            .try_acquire_owned()
            .map_err(|_none| "too many keys are being fetched at once")?;
        if !entry.is_of_operator() && !inner.may_fetch_unasked(entry.wanted.url.host(), client, now)
        {
            return Err("too many key URLs of requests have been fetched just now");
        }
        let running = Running::of(entry, &mut state, now);
        tokio::spawn(async move {
            inner.fetch(&running.0).await;
            drop((running, permit));
        });
        Ok(())
    }
}

impl Inner {
    /// Fetches once there is a place, unless a request was first.
    async fn fetch_ahead(self: Arc<Self>, entry: Arc<Entry>) {
        // The semaphore is never closed.
        let _permit = self.ahead.acquire().await;
        if let Some(running) = Running::begin(&entry, self.clock.monotonic()) {
            self.fetch(&running.0).await;
        }
    }

    async fn fetch(&self, entry: &Entry) {
        let wanted = &entry.wanted;
        let fetched = self.fetch.get(&wanted.url, wanted.reach).await;
        let max_age = fetched.as_ref().ok().and_then(|fetched| fetched.max_age);
        let read = fetched
            .map_err(|error| error.to_string())
            .and_then(|fetched| {
                published::read(wanted, &fetched.body, self.fetch.roots(), self.clock.now())
            });
        self.metrics.key_fetch(read.is_ok());
        let url = format!("https://{}{}", wanted.url.authority(), wanted.url.path());
        match read {
            Ok(keys) => {
                let ids: Vec<_> = keys.ids().collect();
                tracing::info!(url, keys = ids.join(" "), "keys fetched");
                let fresh = max_age.unwrap_or(FRESH_DEFAULT);
                entry.state().held = Some(Held {
                    keys: Arc::new(keys),
                    since: self.clock.monotonic(),
                    fresh: fresh.clamp(FRESH_MIN, FRESH_MAX),
                });
            }
            Err(error) => tracing::warn!(url, error, "keys not fetched"),
        }
    }

    fn may_fetch_unasked(&self, host: &str, client: IpAddr, now: Duration) -> bool {
        let mut windows = lock(&self.unasked);
        windows.retain(|_, window| now.saturating_sub(window.start) < Duration::from_mins(1));
        let window = windows.entry(site(host).to_owned()).or_insert(Window {
            start: now,
            clients: Vec::new(),
        });
        window.take(ClientKey::of(client))
    }
}

/// The last two labels of a host. Presets fix at least these, so sites are as few as presets.
fn site(host: &str) -> &str {
    let mut dots = host.rmatch_indices('.');
    match dots.nth(1) {
        Some((dot, _)) => host.get(dot + 1..).unwrap_or(host),
        None => host,
    }
}

impl Held {
    /// Whether it may still be used, for want of anything newer.
    fn serves(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) < self.fresh.saturating_add(STALE_MAX)
    }
}

impl State {
    fn may_fetch(&self, now: Duration) -> bool {
        self.last_fetch
            .is_none_or(|last| now.saturating_sub(last) >= RETRY_AFTER)
    }
}

/// A fetch under way; its end is told also when the task is dropped half-way.
struct Running(Arc<Entry>);

impl Running {
    fn of(entry: &Arc<Entry>, state: &mut State, now: Duration) -> Self {
        state.is_running = true;
        state.last_fetch = Some(now);
        Self(Arc::clone(entry))
    }

    /// `None` when one is under way or has just ended.
    fn begin(entry: &Arc<Entry>, now: Duration) -> Option<Self> {
        let mut state = entry.state();
        let may_begin = !state.is_running && state.may_fetch(now);
        may_begin.then(|| Self::of(entry, &mut state, now))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state().is_running = false;
        self.0.ended.send_replace(());
    }
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether the operator wrote its URL.
    fn is_of_operator(&self) -> bool {
        self.wanted.reach == Reach::Any
    }

    fn is_movable(&self) -> bool {
        !self.is_of_operator() && !self.state().is_running
    }
}

/// Whether none of the keys has this name, though some have names.
fn lacks_key(keys: &KeySet, key_id: &str) -> bool {
    let names = |key: &Key| {
        key.public_key()
            .and_then(|key| key.kid().map(str::to_owned))
    };
    let mut names = keys.all().iter().filter_map(names).peekable();
    names.peek().is_some() && names.all(|name| name != key_id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;
    use crate::units::UnixTime;

    /// A web on which each answer is written before it is given.
    #[derive(Debug, Default)]
    struct Web {
        answers: Mutex<HashMap<String, Result<Fetched, FetchError>>>,
        fetches: AtomicUsize,
        /// Answers wait for it, when it is there.
        gate: Option<Notify>,
    }

    impl Fetch for Web {
        fn get<'a>(&'a self, url: &'a HttpsUrl, _: Reach) -> Fetching<'a> {
            Box::pin(async move {
                self.fetches.fetch_add(1, Ordering::Relaxed);
                if let Some(gate) = &self.gate {
                    gate.notified().await;
                }
                let answers = lock(&self.answers);
                let missing = || Err(FetchError::Answer("404".to_owned()));
                answers
                    .get(&url.to_string())
                    .cloned()
                    .unwrap_or_else(missing)
            })
        }

        fn roots(&self) -> &[TrustAnchor<'static>] {
            &[]
        }
    }

    impl Web {
        fn answer(&self, url: &KeyUrl, answer: Result<Fetched, FetchError>) {
            lock(&self.answers).insert(url.url.to_string(), answer);
        }

        fn fetches(&self) -> usize {
            self.fetches.load(Ordering::Relaxed)
        }
    }

    struct Bench {
        cache: KeyCache,
        web: Arc<Web>,
        clock: Clock,
        metrics: Arc<Metrics>,
    }

    fn bench(web: Web) -> Bench {
        let (web, clock) = (
            Arc::new(web),
            Clock::manual(UnixTime::from_secs(1_700_000_000)),
        );
        let metrics = Arc::new(Metrics::new("0.0.0"));
        let fetch: Arc<dyn Fetch> = Arc::<Web>::clone(&web);
        Bench {
            cache: KeyCache::new(fetch, clock.clone(), Arc::clone(&metrics)),
            web,
            clock,
            metrics,
        }
    }

    fn at(path: &str, reach: Reach) -> KeyUrl {
        let url = HttpsUrl::parse(&format!("https://keys.example.org/{path}")).unwrap();
        KeyUrl {
            reach,
            ..KeyUrl::of_operator(url)
        }
    }

    fn jwks(kid: &str, max_age: Option<u64>) -> Fetched {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let jwk = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x });
        Fetched {
            body: serde_json::json!({ "keys": [jwk] }).to_string().into(),
            max_age: max_age.map(Duration::from_secs),
        }
    }

    fn ids(keys: Result<Arc<KeySet>, SignatureError>) -> Result<String, Reason> {
        let ids = keys.map(|keys| keys.ids().collect::<Vec<_>>().join(" "));
        ids.map_err(|error| error.reason)
    }

    impl Bench {
        async fn keys(&self, wanted: &KeyUrl, key_id: Option<&str>) -> Result<String, Reason> {
            ids(self.cache.keys(wanted, key_id, CLIENT).await)
        }
    }

    /// Lets what was spawned run.
    async fn settle() {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const UNAVAILABLE: Result<&str, &Reason> = Err(&Reason::KeyUnavailable);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn fetched_once_and_kept() {
        let bench = bench(Web::default());
        let wanted = at("a", Reach::Any);
        bench.web.answer(&wanted, Ok(jwks("a", None)));
        for _ in 0..3 {
            assert_eq!(bench.keys(&wanted, None).await.as_deref(), Ok("a"));
        }
        bench.clock.advance(FRESH_DEFAULT.saturating_sub(SECOND));
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), Ok("a"));
        assert_eq!(bench.web.fetches(), 1);
        let page = bench.metrics.render();
        assert!(
            page.contains("hookward_key_fetches_total{result=\"success\"} 1"),
            "{page}"
        );
    }

    #[tokio::test]
    async fn a_crowd_shares_one_fetch() {
        // SECURITY DS-31
        let bench = bench(Web {
            gate: Some(Notify::new()),
            ..Web::default()
        });
        let wanted = at("a", Reach::Public);
        bench.web.answer(&wanted, Ok(jwks("a", None)));
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (cache, wanted) = (bench.cache.clone(), wanted.clone());
                tokio::spawn(async move { ids(cache.keys(&wanted, None, CLIENT).await) })
            })
            .collect();
        settle().await;
        // The one that started it leaves; the others are served all the same.
        tasks[0].abort();
        bench.web.gate.as_ref().unwrap().notify_one();
        for task in tasks.into_iter().skip(1) {
            assert_eq!(task.await.unwrap().as_deref(), Ok("a"));
        }
        assert_eq!(bench.web.fetches(), 1);
    }

    #[tokio::test]
    async fn a_failure_is_remembered_for_a_while() {
        let bench = bench(Web::default());
        let wanted = at("a", Reach::Public);
        for _ in 0..10 {
            let keys = bench.cache.keys(&wanted, Some("random"), CLIENT).await;
            assert_eq!(ids(keys).as_deref(), UNAVAILABLE);
        }
        assert_eq!(bench.web.fetches(), 1);
        bench.web.answer(&wanted, Ok(jwks("a", None)));
        bench
            .clock
            .advance(RETRY_AFTER.saturating_sub(Duration::from_millis(1)));
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), UNAVAILABLE);
        bench.clock.advance(Duration::from_millis(1));
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), Ok("a"));
        assert_eq!(bench.web.fetches(), 2);
        let page = bench.metrics.render();
        assert!(
            page.contains("hookward_key_fetches_total{result=\"failure\"} 1"),
            "{page}"
        );
    }

    #[tokio::test]
    async fn a_new_key_of_the_provider_is_found() {
        // SECURITY A-54, DS-31
        let bench = bench(Web::default());
        let wanted = at("a", Reach::Any);
        bench.web.answer(&wanted, Ok(jwks("old", None)));
        assert_eq!(bench.keys(&wanted, Some("old")).await.as_deref(), Ok("old"));
        bench.web.answer(&wanted, Ok(jwks("new", None)));
        // Not within half a minute of the last fetch, whatever a request asks for.
        for kid in ["new", "x", "y"] {
            assert_eq!(bench.keys(&wanted, Some(kid)).await.as_deref(), Ok("old"));
        }
        bench.clock.advance(RETRY_AFTER);
        assert_eq!(bench.keys(&wanted, Some("old")).await.as_deref(), Ok("old"));
        assert_eq!(bench.keys(&wanted, Some("new")).await.as_deref(), Ok("new"));
        assert_eq!(bench.web.fetches(), 2);
        // A look for a key that is nowhere costs nobody the keys that are.
        bench.web.answer(&wanted, Err(FetchError::Reach));
        bench.clock.advance(RETRY_AFTER);
        assert_eq!(
            bench.keys(&wanted, Some("random")).await.as_deref(),
            Ok("new")
        );
    }

    #[tokio::test]
    async fn old_keys_serve_while_new_ones_come_and_not_for_ever() {
        let bench = bench(Web::default());
        let wanted = at("a", Reach::Any);
        bench.web.answer(&wanted, Ok(jwks("old", Some(600))));
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), Ok("old"));
        bench.web.answer(&wanted, Ok(jwks("new", Some(600))));
        bench.clock.advance(Duration::from_mins(8));
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), Ok("old"));
        settle().await;
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), Ok("new"));
        // Past their time, as after a silence, the request waits for what is true now.
        bench.web.answer(&wanted, Ok(jwks("newer", Some(600))));
        bench.clock.advance(Duration::from_mins(10));
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), Ok("newer"));
        // The provider is away: what was there last serves on, for a day.
        bench.web.answer(&wanted, Err(FetchError::Reach));
        bench.clock.advance(STALE_MAX + Duration::from_secs(599));
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), Ok("newer"));
        bench.clock.advance(RETRY_AFTER);
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), UNAVAILABLE);
    }

    #[tokio::test]
    async fn how_long_keys_hold_is_bounded() {
        let bench = bench(Web::default());
        let (brief, long) = (at("brief", Reach::Any), at("long", Reach::Any));
        bench.web.answer(&brief, Ok(jwks("a", Some(0))));
        bench.web.answer(&long, Ok(jwks("a", Some(u64::MAX))));
        for wanted in [&brief, &long] {
            assert_eq!(bench.keys(wanted, None).await.as_deref(), Ok("a"));
        }
        bench
            .clock
            .advance((FRESH_MIN / 5 * 4).saturating_sub(SECOND));
        assert_eq!(bench.keys(&brief, None).await.as_deref(), Ok("a"));
        settle().await;
        assert_eq!(bench.web.fetches(), 2);
        bench.clock.advance(FRESH_MAX);
        assert_eq!(bench.keys(&long, None).await.as_deref(), Ok("a"));
        settle().await;
        assert_eq!(bench.web.fetches(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long() {
        let bench = bench(Web {
            gate: Some(Notify::new()),
            ..Web::default()
        });
        let started = tokio::time::Instant::now();
        let keys = bench.cache.keys(&at("a", Reach::Any), None, CLIENT).await;
        assert_eq!(ids(keys).as_deref(), UNAVAILABLE);
        assert_eq!(started.elapsed(), WAIT_MAX);
    }

    #[tokio::test]
    async fn urls_that_requests_name_are_bounded() {
        // SECURITY DS-31
        let bench = bench(Web::default());
        let (own, good) = (at("own", Reach::Any), at("good", Reach::Public));
        for wanted in [&own, &good] {
            bench.web.answer(wanted, Ok(jwks("a", None)));
            assert_eq!(bench.keys(wanted, None).await.as_deref(), Ok("a"));
        }
        for n in 0..ENTRIES_MAX * 2 {
            let wanted = at(&format!("random/{n}"), Reach::Public);
            let client = IpAddr::from([198, 51, 100, u8::try_from(n % 250).unwrap()]);
            let keys = bench.cache.keys(&wanted, None, client).await;
            assert_eq!(ids(keys).as_deref(), UNAVAILABLE);
        }
        assert_eq!(bench.web.fetches(), 1 + UNASKED_MAX);
        assert_eq!(lock(&bench.cache.0.entries).len(), 1 + ENTRIES_MAX);
        // What is known stays known, and the operator's own URLs are fetched all the same.
        for wanted in [&own, &good] {
            assert_eq!(bench.keys(wanted, None).await.as_deref(), Ok("a"));
        }
        let other = at("other", Reach::Any);
        bench.web.answer(&other, Ok(jwks("b", None)));
        assert_eq!(bench.keys(&other, None).await.as_deref(), Ok("b"));
        // A minute later there is room for others.
        bench.clock.advance(Duration::from_mins(1));
        let late = at("late", Reach::Public);
        bench.web.answer(&late, Ok(jwks("c", None)));
        assert_eq!(bench.keys(&late, None).await.as_deref(), Ok("c"));
    }

    /// Requests of one client, each with a URL of its own that has no keys.
    async fn flood(cache: &KeyCache, client: IpAddr) {
        for n in 0..UNASKED_MAX * 2 {
            let wanted = at(&format!("{client}/{n}"), Reach::Public);
            assert!(cache.keys(&wanted, None, client).await.is_err());
        }
    }

    #[tokio::test]
    async fn who_makes_up_urls_leaves_fetches_to_others() {
        // SECURITY DS-31
        let bench = bench(Web::default());
        flood(&bench.cache, CLIENT).await;
        assert_eq!(bench.web.fetches(), UNASKED_BY_ONE_MAX);
        // All addresses of an IPv6 network are one client.
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:1"] {
            flood(&bench.cache, address.parse().unwrap()).await;
        }
        assert_eq!(bench.web.fetches(), 2 * UNASKED_BY_ONE_MAX);
        // The provider's new URL is fetched, and then at hand for everybody.
        let fresh = at("fresh", Reach::Public);
        bench.web.answer(&fresh, Ok(jwks("a", None)));
        let provider = IpAddr::from([203, 0, 113, 9]);
        for client in [provider, CLIENT] {
            let keys = bench.cache.keys(&fresh, None, client).await;
            assert_eq!(ids(keys).as_deref(), Ok("a"));
        }
        // The operator's own URLs are nobody's share.
        let own = at("own", Reach::Any);
        bench.web.answer(&own, Ok(jwks("b", None)));
        assert_eq!(bench.keys(&own, None).await.as_deref(), Ok("b"));
    }

    #[tokio::test]
    async fn prepared_keys_are_at_hand() {
        let bench = bench(Web::default());
        let wanted = at("a", Reach::Any);
        bench.web.answer(&wanted, Ok(jwks("a", None)));
        bench.cache.prepare(&HashSet::from([&wanted]));
        bench.cache.prepare(&HashSet::from([&wanted]));
        settle().await;
        bench.web.answer(&wanted, Err(FetchError::Reach));
        assert_eq!(bench.keys(&wanted, None).await.as_deref(), Ok("a"));
        assert_eq!(bench.web.fetches(), 1);
    }

    #[tokio::test]
    async fn the_urls_of_a_configuration_are_all_fetched_and_forgotten_with_it() {
        let bench = bench(Web::default());
        let urls: Vec<_> = (0..ENTRIES_MAX + FETCHES_MAX)
            .map(|n| at(&format!("own/{n}"), Reach::Any))
            .collect();
        for url in &urls {
            bench.web.answer(url, Ok(jwks("a", None)));
        }
        bench.cache.prepare(&urls.iter().collect());
        settle().await;
        assert_eq!(bench.web.fetches(), urls.len());
        for url in &urls {
            assert_eq!(bench.keys(url, None).await.as_deref(), Ok("a"));
        }
        bench.cache.prepare(&HashSet::from([&urls[0]]));
        assert_eq!(lock(&bench.cache.0.entries).len(), 1);
        assert_eq!(bench.web.fetches(), urls.len());
    }

    #[tokio::test(start_paused = true)]
    async fn fetches_ahead_take_no_place_from_those_of_requests() {
        let bench = bench(Web {
            gate: Some(Notify::new()),
            ..Web::default()
        });
        let urls: Vec<_> = (0..100)
            .map(|n| at(&format!("own/{n}"), Reach::Any))
            .collect();
        bench.cache.prepare(&urls.iter().collect());
        settle().await;
        assert_eq!(bench.web.fetches(), FETCHES_AHEAD_MAX);
        // Nobody answers: whoever asks for one that waits for its turn has it fetched at once.
        let waits = |url: &&KeyUrl| {
            let entry = bench.cache.entry(url);
            entry.is_none_or(|entry| !entry.state().is_running)
        };
        let waiting: Vec<_> = urls.iter().filter(waits).take(2).collect();
        let named = at("named", Reach::Public);
        for (asked, url) in waiting.into_iter().chain([&named]).enumerate() {
            assert_eq!(bench.keys(url, None).await.as_deref(), UNAVAILABLE);
            assert!(bench.web.fetches() > FETCHES_AHEAD_MAX + asked);
        }
    }

    #[test]
    fn a_worker_that_ends_leaves_nobody_waiting() {
        let bench = bench(Web {
            gate: Some(Notify::new()),
            ..Web::default()
        });
        let wanted = at("a", Reach::Any);
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let first = runtime();
        first.block_on(async {
            bench.cache.prepare(&HashSet::from([&wanted]));
            settle().await;
        });
        drop(first);
        assert!(!bench.cache.entry(&wanted).unwrap().state().is_running);
        bench.clock.advance(RETRY_AFTER);
        bench.web.answer(&wanted, Ok(jwks("a", None)));
        bench.web.gate.as_ref().unwrap().notify_one();
        let keys = runtime().block_on(bench.keys(&wanted, None));
        assert_eq!(keys.as_deref(), Ok("a"));
    }
}
