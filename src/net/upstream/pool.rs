//! Idle connections of a worker, and the bodies of answers that give them back.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::{Instant, Sleep, sleep};

use super::answer::Rest;
use super::wire::Connection;
use crate::clock;
use crate::gateway::forward::{BoxError, UpstreamBody, UpstreamError};
use crate::settings::ServerAddress;

/// How long a connection may be idle. Shorter than the shortest keep-alive in use (gunicorn closes after 2 s),
/// because a request could meet a connection that the app is just closing (SECURITY U-09).
const POOL_IDLE: Duration = Duration::from_millis(1500);
/// Idle connections kept for one server, in each worker.
const POOL_SIZE: usize = 64;
/// Age after which a connection is not used again, so that a new address of its name comes into use (SECURITY U-18).
const POOL_AGE: Duration = Duration::from_secs(25);

thread_local! {
    /// Idle connections of this worker, which is one thread: nothing is shared or locked.
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool {
    /// By the id of the server. A list, because there are few.
    servers: Vec<(u64, Vec<Idle>)>,
    /// Whether [`sweep`] runs.
    is_swept: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// The body of an answer. Read to its end, it gives its connection back; else the connection is closed, so that no
/// answer can be taken for another's (SECURITY U-07, U-14).
pub(super) fn body(
    server: u64,
    address: &Arc<ServerAddress>,
    mut rest: Rest,
    wait: Duration,
) -> UpstreamBody {
    match rest.take_whole() {
        Some(bytes) => {
            give_back(server, rest);
            UpstreamBody::Whole(bytes)
        }
        None => UpstreamBody::Streamed(UnsyncBoxBody::new(Paced {
            server,
            address: Arc::clone(address),
            rest: Some(rest),
            wait,
            timer: None,
        })),
    }
}

/// The youngest idle connection that is still young enough.
pub(super) fn take_idle(server: u64) -> Option<Connection> {
    let now = clock::now();
    POOL.with_borrow_mut(|pool| {
        let (_, idle) = pool.servers.iter_mut().find(|(id, _)| *id == server)?;
        while let Some(Idle { connection, since }) = idle.pop() {
            if now.saturating_duration_since(since) > POOL_IDLE {
                idle.clear(); // The others are older still.
                return None;
            }
            if now.saturating_duration_since(connection.born) <= POOL_AGE {
                return Some(connection);
            }
        }
        None
    })
}

fn give_back(server: u64, rest: Rest) {
    let Some(connection) = rest.into_reusable() else {
        return;
    };
    POOL.with_borrow_mut(|pool| {
        if !std::mem::replace(&mut pool.is_swept, true) {
            tokio::spawn(sweep());
        }
        let idle = Idle {
            connection,
            since: clock::now(),
        };
        match pool.servers.iter_mut().find(|(id, _)| *id == server) {
            Some((_, pooled)) if pooled.len() < POOL_SIZE => pooled.push(idle),
            Some(_) => {}
            None => pool.servers.push((server, vec![idle])),
        }
    });
}

/// Closes idle connections that have become too old, until there is none left.
async fn sweep() {
    loop {
        sleep(POOL_IDLE).await;
        let is_empty = POOL.with_borrow_mut(|pool| {
            for (_, idle) in &mut pool.servers {
                idle.retain(|idle| idle.since.elapsed() <= POOL_IDLE);
            }
            pool.servers.retain(|(_, idle)| !idle.is_empty());
            pool.is_swept = !pool.servers.is_empty();
            !pool.is_swept
        });
        if is_empty {
            return;
        }
    }
}

/// The body of an answer, each of whose parts must come within `wait`. Trailers are not passed on.
struct Paced {
    server: u64,
    address: Arc<ServerAddress>,
    /// `None` once it has ended.
    rest: Option<Rest>,
    wait: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(rest) = &mut this.rest else {
            return Poll::Ready(None);
        };
        let data = match rest.poll_data(cx) {
            Poll::Ready(data) => data,
            Poll::Pending => {
                let wait = this.wait;
                let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
                ready!(timer.as_mut().poll(cx));
                let late = format!("no more of its answer within {wait:?}");
                Some(Err(UpstreamError::Timeout(late)))
            }
        };
        this.timer = None;
        match data {
            Some(Ok(data)) => {
                if rest.is_done() {
                    this.end();
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => {
                this.rest = None;
                Poll::Ready(Some(Err(error.of(&this.address).into())))
            }
            None => {
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            None => SizeHint::with_exact(0),
            Some(rest) => rest
                .length()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Paced {
    fn end(&mut self) {
        if let Some(rest) = self.rest.take() {
            give_back(self.server, rest);
        }
    }
}
