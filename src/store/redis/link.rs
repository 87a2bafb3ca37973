//! The connections to the server: one for each thread that serves, each kept by a task.
//!
//! A request never connects. It finds its thread's connection up, or waits within its own deadline
//! while the first attempt or a reconnection is under way, or learns at once that there is none. So a
//! server that hangs costs the requests of one moment their deadline, and the later ones nothing.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisError,
    RedisResult, ScriptInvocation, TlsCertificates,
};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Inner;
use super::cluster::{self, Cluster};
use crate::settings::RedisSettings;

/// Longest time for a connection: TCP, TLS, authentication and the first answer.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Between two questions whether the server is there and writes.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// After a call failed and the server was found well: until it is asked again for another.
const DOUBT_INTERVAL: Duration = Duration::from_millis(100);
/// Between two attempts to connect: doubled up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Between two questions who the nodes of a cluster are, while all is well.
const LEARN_INTERVAL: Duration = Duration::from_mins(1);
/// Calls at once on a thread, after its client got stuck and until none fails.
const CAREFUL_CALLS: usize = 16;
/// A connection that held for so long is made anew at once.
const STEADY_TIME: Duration = Duration::from_secs(1);

/// Where the server is, ready to connect to.
pub(super) enum Server {
    Single(Client, AsyncConnectionConfig),
    Cluster(Cluster),
}

/// A connection; clones send over the same one.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A thread's connection, whatever its state.
pub(super) struct Link {
    status: watch::Receiver<Status>,
    /// Told when a connection has failed somebody.
    doubts: Arc<Notify>,
    signs: Arc<Signs>,
    /// Places for calls while there is need for care.
    places: Semaphore,
    /// Turns of what can wait: it leaves half of the places to requests.
    turns: Semaphore,
}

/// What calls and the keeper tell each other.
#[derive(Default)]
struct Signs {
    /// Whether a call was answered since the last probe.
    is_answered: AtomicBool,
    /// Whether one that was sent was not.
    is_failed: AtomicBool,
    /// Whether the last client of a cluster got stuck. It does so over many calls at once while a node is away.
    is_careful: AtomicBool,
}

#[derive(Clone)]
enum Status {
    Connecting,
    Up(Connection),
    Down,
}

/// Why a call had no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("there is no connection")]
    Down,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Refused(#[from] RedisError),
}

thread_local! {
    /// The links of this thread's runtime: one for each store that is in use.
    static LINKS: RefCell<Vec<(Weak<Inner>, Arc<Link>)>> = const { RefCell::new(Vec::new()) };
}

impl Server {
    pub(super) fn new(settings: &RedisSettings) -> RedisResult<Self> {
        let info = connection_info(settings.url.expose())?;
        let certificates = settings.ca.as_ref().map(|ca| TlsCertificates {
            client_tls: None,
            root_cert: Some(ca.to_vec()),
        });
        if settings.cluster {
            let cluster = Cluster::new(info, certificates, settings.timeout)?;
            return Ok(Self::Cluster(cluster));
        }
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(info, certificates)?,
            None => Client::open(info)?,
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIME))
            .set_response_timeout(Some(CONNECT_TIME.max(settings.timeout)));
        Ok(Self::Single(client, config))
    }

    async fn connect(&self) -> RedisResult<Connection> {
        Ok(match self {
            Self::Single(client, config) => {
                let connected = client.get_multiplexed_async_connection_with_config(config);
                Connection::Single(connected.await?)
            }
            Self::Cluster(cluster) => Connection::Cluster(cluster.connect().await?),
        })
    }

    fn connect_time(&self) -> Duration {
        match self {
            Self::Single(..) => CONNECT_TIME,
            Self::Cluster(_) => cluster::CONNECT_TIME_MAX,
        }
    }

    /// Looks who the nodes of a cluster are now.
    async fn learn(&self, connection: &mut Connection, deadline: Duration) {
        if let (Self::Cluster(cluster), Connection::Cluster(connection)) = (self, connection) {
            // Without an answer what is known stays.
            drop(timeout(deadline, cluster.learn(connection)).await);
        }
    }
}

/// Host and port, or path: what may be logged of a URL.
pub(super) fn address(settings: &RedisSettings) -> RedisResult<String> {
    Ok(connection_info(settings.url.expose())?.addr().to_string())
}

/// The parts of a URL. No error repeats it.
fn connection_info(url: &[u8]) -> RedisResult<ConnectionInfo> {
    std::str::from_utf8(url)
        .map_err(|_bad| RedisError::from((redis::ErrorKind::InvalidClientConfig, "not UTF-8")))?
        .into_connection_info()
}

impl Connection {
    fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    pub(super) async fn run<T: FromRedisValue>(
        &mut self,
        script: &ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        match self {
            Self::Single(connection) => script.invoke_async(connection).await,
            Self::Cluster(connection) => script.invoke_async(connection).await,
        }
    }
}

impl Link {
    /// This thread's link of a store, opened when there is none yet.
    pub(super) fn of(store: &Arc<Inner>) -> Arc<Self> {
        LINKS.with_borrow_mut(|links| {
            let known = links
                .iter()
                .find(|(other, _)| std::ptr::eq(other.as_ptr(), Arc::as_ptr(store)));
            if let Some((_, link)) = known.filter(|(_, link)| link.is_kept()) {
                return Arc::clone(link);
            }
            links.retain(|(other, link)| other.strong_count() > 0 && link.is_kept());
            let link = Arc::new(Self::open(store));
            links.push((Arc::downgrade(store), Arc::clone(&link)));
            link
        })
    }

    /// Whether its keeper is at work; one that panicked is followed by another (SECURITY S-16).
    fn is_kept(&self) -> bool {
        self.status.has_changed().is_ok()
    }

    fn open(store: &Arc<Inner>) -> Self {
        let (status, seen) = watch::channel(Status::Connecting);
        let doubts = Arc::new(Notify::new());
        let signs = Arc::new(Signs::default());
        let keeper = Keeper {
            store: Arc::downgrade(store),
            status,
            doubts: Arc::clone(&doubts),
            signs: Arc::clone(&signs),
            is_down: false,
        };
        tokio::spawn(keeper.run());
        Self {
            status: seen,
            doubts,
            signs,
            places: Semaphore::new(CAREFUL_CALLS),
            turns: Semaphore::new(CAREFUL_CALLS / 2),
        }
    }

    /// Runs a script. `is_sent` says from when on the server may have run it, whatever is answered.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        deadline: Duration,
        is_sent: &AtomicBool,
    ) -> Result<T, Failure> {
        let mut is_single = false;
        let asked = async {
            let _place = self.place().await;
            let mut status = self.status.clone();
            status.mark_unchanged();
            let mut connection = self.connection().await.ok_or(Failure::Down)?;
            is_single = !connection.is_cluster();
            is_sent.store(true, Ordering::Relaxed);
            match connection.run(script).await {
                // It had been closed, which shows when it is used: the server itself may be well. Its scripts may run twice.
                Err(error) if is_single && error.is_connection_dropped() => {
                    self.doubts.notify_one();
                    // An error is the end of the keeper.
                    drop(status.changed().await);
                    let mut next = self.connection().await.ok_or(Failure::Down)?;
                    Ok(next.run(script).await?)
                }
                answer => Ok(answer?),
            }
        };
        let answer = timeout(deadline, asked)
            .await
            .unwrap_or(Err(Failure::Timeout(deadline)));
        if answer.is_ok() {
            self.signs.is_answered.store(true, Ordering::Relaxed);
        } else if is_sent.load(Ordering::Relaxed) {
            self.signs.is_failed.store(true, Ordering::Relaxed);
        }
        // It may be the call and not the connection: its keeper looks. A cluster's client mends its own connections,
        // and one node that fails is not all of them.
        if is_single && answer.is_err() {
            self.doubts.notify_one();
        }
        answer
    }

    /// Waits for a place, where not all may go at once.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        if self.signs.is_careful.load(Ordering::Relaxed) {
            self.places.acquire().await.ok()
        } else {
            None
        }
    }

    /// Waits until it is the turn of what can wait: however much does, few go at once.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// Waits for a connection, however long there is none.
    pub(super) async fn until_up(&self) {
        let mut status = self.status.clone();
        // An error is the end of the keeper, and with it of the thread.
        drop(
            status
                .wait_for(|status| matches!(status, Status::Up(_)))
                .await,
        );
    }

    async fn connection(&self) -> Option<Connection> {
        if let Status::Up(connection) = &*self.status.borrow() {
            return Some(connection.clone());
        }
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| !matches!(status, Status::Connecting));
        match &*settled.await.ok()? {
            Status::Up(connection) => Some(connection.clone()),
            Status::Connecting | Status::Down => None,
        }
    }
}

/// What keeps a link up until its store is gone.
struct Keeper {
    store: Weak<Inner>,
    status: watch::Sender<Status>,
    doubts: Arc<Notify>,
    signs: Arc<Signs>,
    is_down: bool,
}

impl Drop for Keeper {
    /// The one that takes its place after a panic counts anew.
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade().filter(|_| self.is_down) {
            store.links_down.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Keeper {
    async fn run(mut self) {
        let (first, most) = PAUSES;
        let mut pause = first;
        let mut brief = 0;
        while let Some(store) = self.store.upgrade() {
            let connected = connect(&store).await;
            let failure = match connected {
                Ok((connection, doubt)) => {
                    self.up(&store, &connection, doubt.as_ref());
                    drop(store);
                    let since = Instant::now();
                    let failure = self.hold(connection).await;
                    brief += 1;
                    if since.elapsed() >= STEADY_TIME {
                        (pause, brief) = (first, 0);
                    }
                    if brief <= 1 {
                        // Nothing is wrong yet: requests wait for the new one.
                        self.status.send_replace(Status::Connecting);
                        continue;
                    }
                    failure
                }
                Err(failure) => {
                    drop(store);
                    Some(failure)
                }
            };
            self.down(failure.as_ref());
            sleep(pause).await;
            pause = (pause * 2).min(most);
        }
    }

    fn up(&mut self, store: &Inner, connection: &Connection, doubt: Option<&Failure>) {
        match doubt {
            None => self.well(store),
            Some(_) => self.unwell(store, doubt),
        }
        self.status.send_replace(Status::Up(connection.clone()));
    }

    fn down(&mut self, failure: Option<&Failure>) {
        self.status.send_replace(Status::Down);
        if let Some(store) = self.store.upgrade() {
            self.unwell(&store, failure);
        }
    }

    fn well(&mut self, store: &Inner) {
        if std::mem::take(&mut self.is_down) {
            store.link_up();
        }
        store.note();
    }

    fn unwell(&mut self, store: &Inner, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            store.warn(failure);
        }
        if !std::mem::replace(&mut self.is_down, true) {
            store.link_down();
        }
        store.note();
    }

    /// Until the server no longer answers; says why, if it knows. Where a call failed, it is asked at once.
    async fn hold(&mut self, mut connection: Connection) -> Option<Failure> {
        let mut learnt = None;
        loop {
            if self.is_to_learn(learnt) {
                let store = self.store.upgrade()?;
                store.server.learn(&mut connection, store.timeout).await;
                learnt = Some(Instant::now());
            }
            let is_doubted = tokio::select! {
                () = self.doubts.notified() => true,
                () = sleep(PROBE_INTERVAL) => false,
            };
            let store = self.store.upgrade()?;
            if is_doubted {
                // Who comes now waits for what is found, rather than for an answer that may not come.
                self.status.send_replace(Status::Connecting);
            }
            let is_answered = self.signs.is_answered.swap(false, Ordering::Relaxed);
            let is_failed = self.signs.is_failed.swap(false, Ordering::Relaxed);
            let found = probe(&store, &mut connection, store.timeout).await;
            if is_doubted && found.is_ok() {
                self.status.send_replace(Status::Up(connection.clone()));
                // A key that nobody can read must not have every other call wait.
                sleep(DOUBT_INTERVAL).await;
            }
            let is_stuck = match &mut connection {
                Connection::Cluster(cluster) if found.is_err() && !is_answered => {
                    !cluster::answers(cluster, store.timeout).await
                }
                Connection::Cluster(_) | Connection::Single(_) => false,
            };
            match found {
                Ok(()) => {
                    if self.is_down {
                        // It may be another node that answers now.
                        learnt = None;
                    }
                    if !is_failed {
                        self.signs.is_careful.store(false, Ordering::Relaxed);
                    }
                    self.well(&store);
                }
                // Whatever became of the nodes: another client takes its place once it is there.
                Err(failure) if is_stuck => {
                    self.unwell(&store, Some(&failure));
                    self.signs.is_careful.store(true, Ordering::Relaxed);
                    match connect(&store).await {
                        Ok((next, doubt)) => {
                            self.up(&store, &next, doubt.as_ref());
                            (connection, learnt) = (next, None);
                        }
                        Err(failure) => return Some(failure),
                    }
                }
                // The other nodes go on, and the client looks for the missing one.
                Err(failure) if connection.is_cluster() => self.unwell(&store, Some(&failure)),
                Err(failure) => return Some(failure),
            }
        }
    }

    fn is_to_learn(&self, learnt: Option<Instant>) -> bool {
        !self.is_down && learnt.is_none_or(|last| last.elapsed() >= LEARN_INTERVAL)
    }
}

/// A connection, and what is wrong with it all the same: of a cluster, only one node may be.
async fn connect(store: &Inner) -> Result<(Connection, Option<Failure>), Failure> {
    let most = store.server.connect_time();
    let connected = timeout(most, store.server.connect()).await;
    let mut connection = connected.map_err(|_late| Failure::Timeout(most))??;
    let probed = probe(store, &mut connection, store.timeout.min(CONNECT_TIME)).await;
    match probed {
        Ok(()) => Ok((connection, None)),
        Err(failure) if connection.is_cluster() => Ok((connection, Some(failure))),
        Err(failure) => Err(failure),
    }
}

async fn probe(
    store: &Inner,
    connection: &mut Connection,
    deadline: Duration,
) -> Result<(), Failure> {
    let script = store.probe();
    let asked = timeout(deadline, connection.run(&script)).await;
    let since = asked.map_err(|_late| Failure::Timeout(deadline))??;
    store.remembers_since(since);
    Ok(())
}
