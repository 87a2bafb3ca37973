//! The threads that serve requests: one for each core, each with a runtime, sockets and upstream connections of its
//! own.

use std::sync::Arc;
use std::thread;

use anyhow::Context;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::gateway::Gateway;
use crate::net::acme::Challenges;
use crate::net::connections::Connections;
use crate::net::http::Shutdown;
use crate::net::listener::{Endpoint, Worker, accept};
use crate::store::redis::RedisStore;

/// A thread that serves requests.
pub(super) struct WorkerHandle {
    pub(super) tell: mpsc::UnboundedSender<Order>,
    pub(super) finished: oneshot::Receiver<()>,
}

/// What a worker is told to do.
pub(super) enum Order {
    /// Serve the connections of a socket.
    Listen(std::net::TcpListener, Arc<Endpoint>),
    /// Begin its connection to a shared store, so that no request waits for it.
    Connect(RedisStore),
}

/// Starts one thread for each core that the process may use.
pub(super) fn start_workers(
    gateway: &Arc<Gateway>,
    challenges: &Arc<Challenges>,
    shutdown: &Shutdown,
    settling: &TaskTracker,
) -> anyhow::Result<Vec<WorkerHandle>> {
    let count = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let connections = Arc::new(Connections::default());
    (0..count)
        .map(|index| {
            let worker = Worker {
                gateway: Arc::clone(gateway),
                connections: Arc::clone(&connections),
                challenges: Arc::clone(challenges),
                handshakes: Arc::new(Semaphore::new(1)),
                tasks: TaskTracker::new(),
                shutdown: shutdown.clone(),
            };
            start_worker(index, worker, settling.clone())
        })
        .collect()
}

fn start_worker(
    index: usize,
    worker: Worker,
    settling: TaskTracker,
) -> anyhow::Result<WorkerHandle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (tell, mut orders) = mpsc::unbounded_channel();
    let (done, finished) = oneshot::channel();
    let serve = async move {
        if let Some(store) = worker.gateway.snapshot().replay.shared() {
            store.connect();
        }
        loop {
            tokio::select! {
                () = worker.shutdown.begun.cancelled() => break,
                next = orders.recv() => match next {
                    None => break,
                    Some(Order::Connect(store)) => store.connect(),
                    Some(Order::Listen(socket, endpoint)) => match tokio::net::TcpListener::from_std(socket) {
                        Ok(listener) => {
                            worker.tasks.spawn(accept(listener, endpoint, worker.clone()));
                        }
                        Err(error) => tracing::error!(%error, "a socket cannot be listened on"),
                    },
                },
            }
        }
        worker.tasks.close();
        worker.tasks.wait().await;
        worker.gateway.drain().await;
        settling.close();
        settling.wait().await;
        // This fails when the main thread has stopped waiting.
        done.send(()).ok();
    };
    thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || runtime.block_on(serve))
        .context("cannot start a worker thread")?;
    Ok(WorkerHandle { tell, finished })
}
