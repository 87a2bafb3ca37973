//! Stage: what takes the whole body: its syntax, the keys that it names, handshakes, signatures.
//!
//! This work grows with the body. Above [`AT_ONCE_BYTES_MAX`], or [`AT_ONCE_BYTES_DEAR`], it is done on
//! threads that serve no requests, on a few at a time, so that whoever sends large bodies slows down nobody
//! else (SECURITY DS-30). Below, it is done where the request is served: nothing is copied and nothing waits.

use std::net::IpAddr;
use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::admit;
use super::body::Received;
use super::connection::CertificateNames;
use super::handshake::{self, Question};
use super::head::Head;
use super::keys::{self, KeyCache, Keyring, Wanted};
use super::promise;
use super::rejection::Rejection;
use super::snapshot::RouteState;
use super::verify::{self, Presented, Progress, Proof};
use super::well_formed::Syntax;
use crate::clock::Clock;
use crate::reason::Reason;
use crate::scheme::handshake::Reply;
use crate::scheme::{Content, SenderUrl};
use crate::units::UnixTime;

/// Largest body that is judged where its request is served: about 0.2 ms of hashing.
pub const AT_ONCE_BYTES_MAX: usize = 256 * 1024;
/// The same where more is done with a body than to hash it: 2 ms of sorting keys, or of parsing XML.
pub const AT_ONCE_BYTES_DEAR: usize = 16 * 1024;

/// What of a request with a large body is given away, and comes back with the verdict.
#[derive(Debug)]
pub struct Case {
    /// `None` where an observing route lets pass what the head alone has shown to be wanting.
    pub progress: Option<Progress>,
    /// The body.
    pub received: Received,
    /// Whether it can be a handshake, by its head.
    pub could_be_handshake: bool,
}

/// The verdict on a request; `None` where there was nothing left to judge.
pub type Verdict = Result<Option<(Proof, Option<Box<Reply>>)>, Rejection>;

/// What judging takes beside the request.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// Published keys.
    pub keys: &'a KeyCache,
    /// The time of the verdict.
    pub clock: &'a Clock,
    /// Who a fetch of keys is counted for.
    pub client: IpAddr,
}

/// Judges a request where it is served.
pub async fn judge(
    presented: Presented<'_>,
    progress: Option<Progress>,
    content: &Content,
    could_be_handshake: bool,
    means: Means<'_>,
) -> Verdict {
    let wanted = prepare(presented, content)?;
    let fetched = if wanted.is_empty() {
        Keyring::default()
    } else {
        let policy = &presented.route.auth;
        Box::pin(means.keys.gather(policy, wanted, means.client)).await
    };
    let presented = Presented {
        fetched: Some(&fetched),
        ..presented
    };
    // Time may have passed while the body came in: the verdict is of the moment it is complete.
    let now = means.clock.now();
    conclude(presented, progress, content, could_be_handshake, now)
}

/// What comes before keys are fetched.
fn prepare(presented: Presented<'_>, content: &Content) -> Result<Vec<Wanted>, Rejection> {
    let Presented { head, route, .. } = presented;
    if route.body.well_formed {
        check_syntax(head, content)?;
    }
    Ok(keys::wanted(&route.auth, &presented.message(content)))
}

fn check_syntax(head: &Head, content: &Content) -> Result<(), Rejection> {
    let media_type = promise::media_type(&head.headers);
    let Some(syntax) = media_type.and_then(Syntax::of) else {
        return Ok(());
    };
    let judged = syntax.check(&content.contiguous());
    judged.map_err(|detail| Rejection::new(Reason::BodyMalformed, detail))
}

/// What comes once keys are there.
fn conclude(
    presented: Presented<'_>,
    progress: Option<Progress>,
    content: &Content,
    could_be_handshake: bool,
    now: UnixTime,
) -> Verdict {
    let Presented { head, route, .. } = presented;
    let found = could_be_handshake.then(|| handshake::find(presented, content));
    // Where another of `any` holds, what only looks like a signed handshake is a delivery.
    let is_delivery = |question: &Question<'_>| {
        let progress = progress.as_ref();
        progress.is_some_and(|progress| progress.is_proven(question.check(), route))
            && question.lacks_signature(presented, content, now)
    };
    let question = found.flatten().filter(|question| !is_delivery(question));
    if could_be_handshake && question.is_none() {
        admit::method(route, &head.method)?;
        promise::body(&route.body, &head.headers, false)?;
    }
    let Some(progress) = progress else {
        return Ok(None);
    };
    let (proof, reply) = if let Some(question) = question {
        let (proof, reply) = question.judge(progress, presented, content, now)?;
        (proof, Some(Box::new(reply)))
    } else {
        let proof = verify::from_message(progress, presented, content, now)?;
        (proof, None)
    };
    Ok(Some((proof, reply)))
}

/// Where large bodies are judged: so many at a time, of all workers together.
#[derive(Clone, Debug)]
pub struct Aside(Arc<Semaphore>);

/// What of a request goes along to another thread.
struct Belongings {
    head: Head,
    state: Arc<RouteState>,
    url: SenderUrl,
    client: Option<CertificateNames>,
}

impl Belongings {
    fn presented<'a>(&'a self, fetched: Option<&'a Keyring>) -> Presented<'a> {
        Presented {
            head: &self.head,
            route: &self.state.route,
            url: &self.url,
            client: self.client.as_ref(),
            fetched,
        }
    }
}

impl Default for Aside {
    /// One for each core: beside them every worker gets its half at least.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores)))
    }
}

impl Aside {
    /// As [`judge`], on threads that serve no requests. The body goes along with its part of the
    /// budget: who hangs up meanwhile does not make room that is still taken.
    pub async fn judge(
        &self,
        presented: Presented<'_>,
        state: &Arc<RouteState>,
        case: Case,
        means: Means<'_>,
    ) -> Result<(Received, Verdict), Rejection> {
        let belongings = Belongings {
            head: presented.head.clone(),
            state: Arc::clone(state),
            url: presented.url.clone(),
            client: presented.client.cloned(),
        };
        let prepared = self.run(move || {
            let wanted = prepare(belongings.presented(None), &case.received.content);
            (belongings, case, wanted)
        });
        let (belongings, case, wanted) = prepared.await?;
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(rejection) => return Ok((case.received, Err(rejection))),
        };
        let policy = &presented.route.auth;
        let fetched = Box::pin(means.keys.gather(policy, wanted, means.client)).await;
        let now = means.clock.now();
        self.run(move || {
            let Case {
                progress,
                received,
                could_be_handshake,
            } = case;
            let presented = belongings.presented(Some(&fetched));
            let content = &received.content;
            let verdict = conclude(presented, progress, content, could_be_handshake, now);
            (received, verdict)
        })
        .await
    }

    /// Refuses what waits for a place, from now on: the gateway stops.
    pub(super) fn close(&self) {
        self.0.close();
    }

    /// Waits for a place, and for what is done there. A panic goes on in the request it belongs to.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Rejection> {
        let stopping = || Rejection::new(Reason::Draining, "the gateway stops");
        let place = Arc::clone(&self.0).acquire_owned().await;
        let place = place.map_err(|_closed| stopping())?;
        let task = spawn_blocking(move || {
            let done = work();
            // Not before: a sender that hangs up must not free the thread that still works.
            drop(place);
            done
        });
        match task.await {
            Ok(done) => Ok(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_cancelled) => Err(stopping()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::mpsc;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    fn one_place() -> Aside {
        Aside(Arc::new(Semaphore::new(1)))
    }

    #[tokio::test]
    async fn a_panic_goes_on_where_it_belongs_and_frees_its_place() {
        // SECURITY DS-30, S-16
        let aside = one_place();
        for _ in 0..3 {
            let work = aside.run(|| assert!(std::hint::black_box(false), "as if by a bug"));
            assert!(AssertUnwindSafe(work).catch_unwind().await.is_err());
        }
        assert_eq!(aside.run(|| 7).await.map_err(|r| r.reason), Ok(7));
    }

    #[tokio::test]
    async fn who_hangs_up_keeps_the_place_that_is_still_worked_at() {
        // SECURITY DS-30
        let aside = one_place();
        let (begun, has_begun) = oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let first = aside.run(move || {
            begun.send(()).unwrap();
            released.recv().unwrap_err()
        });
        let mut first = Box::pin(first);
        assert!(first.as_mut().now_or_never().is_none());
        has_begun.await.unwrap();
        drop(first);
        // One waits, leaves, and takes nothing along.
        let mut second = Box::pin(aside.run(|| ()));
        for _ in 0..10 {
            assert!(second.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        drop(second);
        let mut third = Box::pin(aside.run(|| 3));
        assert!(third.as_mut().now_or_never().is_none());
        drop(release);
        assert_eq!(third.await.map_err(|r| r.reason), Ok(3));
    }
}
