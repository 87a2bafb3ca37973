//! How many deliveries a second a store of state can claim and commit, and how many requests it can
//! count. `cargo bench --bench state` starts a `redis-server` of its own on the loopback.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may panic and prints what it measured"
)]

use std::net::TcpListener;
use std::num::NonZeroU32;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hookward::clock::Clock;
use hookward::secret::Secret;
use hookward::settings::{OnFailure, RedisSettings, StoreUrl};
use hookward::store::memory::MemoryStore;
use hookward::store::redis::{RedisStore, Unsettled};
use hookward::store::{ReplayStore, Verdict};
use hookward::telemetry::metrics::Metrics;

const TIME: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(35);
/// So short that the memory store is never full.
const WINDOW: Duration = Duration::from_secs(1);

fn main() {
    let server = Server::start();
    println!("threads  at once  what                         a second");
    for (threads, at_once) in [(1, 1), (1, 64), (2, 64), (2, 256)] {
        let memory = || ReplayStore::Memory(MemoryStore::new(Clock::system(), 50_000_000));
        let shared = || ReplayStore::Redis(server.open());
        for (what, counted) in [
            (
                "memory: claim + commit",
                measure(threads, at_once, memory, deliver),
            ),
            (
                "redis: claim + commit",
                measure(threads, at_once, shared, deliver),
            ),
            (
                "redis: one shared limit",
                measure(threads, at_once, || server.open(), take),
            ),
        ] {
            let rate = counted / TIME.as_secs();
            println!("{threads:7}  {at_once:7}  {what:27}  {rate:8}");
        }
    }
}

/// One delivery: a claim and its commit.
async fn deliver(store: ReplayStore, number: u64) {
    let mut key = [0; 32];
    for (byte, own) in key.iter_mut().zip(number.to_be_bytes()) {
        *byte = own;
    }
    match store.claim(key, LEASE, WINDOW).await.expect("a claim") {
        Verdict::New(claim) => claim.commit().await.expect("a commit"),
        Verdict::Duplicate | Verdict::InFlight { .. } => {}
    }
}

/// One request of one of 1,000 clients.
async fn take(store: RedisStore, number: u64) {
    let bucket = format!("bench:{}", number % 1000);
    let burst = NonZeroU32::MAX;
    let taken = store.take(&bucket, Duration::from_micros(1), burst).await;
    taken.expect("an answer").expect("room");
}

/// How often `operation` was done on so many threads, each with a runtime as a worker has one.
fn measure<S, O, F>(threads: usize, at_once: usize, open: O, operation: F) -> u64
where
    S: Clone + Send + 'static,
    O: Fn() -> S,
    F: AsyncFn(S, u64) + Copy + Send + 'static,
{
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let main = runtime();
    let store = main.block_on(async { open() });
    let counters = Arc::new(Counters::default());
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (store, counters) = (store.clone(), Arc::clone(&counters));
            thread::spawn(move || {
                let tasks = tokio::task::LocalSet::new();
                let end = Instant::now() + TIME;
                for _ in 0..at_once {
                    let (store, counters) = (store.clone(), Arc::clone(&counters));
                    tasks.spawn_local(repeat(store, counters, end, operation));
                }
                runtime().block_on(tasks);
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker");
    }
    counters.done.load(Ordering::Relaxed)
}

#[derive(Default)]
struct Counters {
    next: AtomicU64,
    done: AtomicU64,
}

async fn repeat<S: Clone>(
    store: S,
    counters: Arc<Counters>,
    end: Instant,
    operation: impl AsyncFn(S, u64),
) {
    while Instant::now() < end {
        let number = counters.next.fetch_add(1, Ordering::Relaxed);
        operation(store.clone(), number).await;
        counters.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// A `redis-server` that keeps nothing on disk; killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("its number").port();
        drop(socket);
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self {
            child,
            url: format!("redis://127.0.0.1:{port}"),
        }
    }

    fn open(&self) -> RedisStore {
        let settings = RedisSettings {
            url: StoreUrl::new(Secret::new(self.url.clone().into_bytes()), [0; 32]),
            cluster: false,
            ca: None,
            prefix: "bench".into(),
            timeout: Duration::from_secs(10),
            on_failure: OnFailure::Reject,
        };
        let memory = MemoryStore::new(Clock::system(), 1);
        RedisStore::open(
            &settings,
            &memory,
            Arc::new(Metrics::new("bench")),
            &Unsettled::default(),
        )
        .expect("a store")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
