//! Stage: is this delivery new? Claim it, and commit or release the claim once the app answered.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::record::Record;
use super::rejection::Rejection;
use super::snapshot::RouteState;
use super::verify::Proof;
use crate::clock;
use crate::reason::Reason;
use crate::route::policy::OnDuplicate;
use crate::scheme;
use crate::store::{Claim, DeliveryKey, ReplayStore, StoreError, Verdict};

/// The claims of one delivery, one under each of its names.
pub type Claims = SmallVec<[Claim; 1]>;

/// What the store says about a delivery.
#[derive(Debug)]
pub enum Claimed {
    /// The app has it already; the sender may stop trying.
    Duplicate,
    /// It is ours to deliver. Without a claim where replays are not looked for.
    New(Claims),
}

/// Claims a verified delivery of a route.
pub async fn claim(
    store: &ReplayStore,
    state: &RouteState,
    proof: &Proof,
) -> Result<Claimed, Rejection> {
    let mut found = Found::default();
    let Some(policy) = &state.route.replay else {
        return Ok(Claimed::New(found.held.take()));
    };
    let keys = keys(&state.delivery_mark, proof);
    let claim = |key: &DeliveryKey| store.claim(*key, state.lease, policy.window);
    let mut others = keys.iter();
    // Whoever has the first name gets the others too, or two copies could refuse each other. Those are claimed at the
    // same time: one after the other, a lease could end before the last is there.
    if let Some(first) = others.next() {
        found.note(claim(first).await);
    }
    if !found.is_over {
        let mut asked: FuturesUnordered<_> = others.map(claim).collect();
        // Each at once, for the sender may hang up before the last, and what is ours is then given back.
        while let Some(verdict) = asked.next().await {
            found.note(verdict);
        }
    }
    let Found {
        mut held,
        known,
        refused,
        ..
    } = found;
    // Of items that come together some may be new: acknowledged, they would be lost.
    let is_known = if proof.has_items {
        known == keys.len()
    } else {
        known > 0
    };
    if is_known && !keys.is_empty() {
        return match policy.on_duplicate {
            OnDuplicate::Acknowledge => Ok(Claimed::Duplicate),
            OnDuplicate::Reject => Err(Rejection::new(
                Reason::Replayed,
                "this delivery has been forwarded before",
            )),
        };
    }
    refused.map_or_else(|| Ok(Claimed::New(held.take())), Err)
}

/// What the store says about the names of a delivery.
#[derive(Default)]
struct Found {
    held: Held,
    /// How many the app has already.
    known: usize,
    refused: Option<Rejection>,
    /// Whether nothing that is said of further names could change what becomes of it.
    is_over: bool,
}

impl Found {
    fn note(&mut self, verdict: Result<Verdict, StoreError>) {
        match verdict {
            Ok(Verdict::New(claim)) => self.held.0.push(claim),
            Ok(Verdict::Duplicate) => self.known += 1,
            Ok(Verdict::InFlight { retry_after }) => {
                let detail = "the same delivery is being forwarded right now";
                let refusal = Rejection::new(Reason::DeliveryInFlight, detail);
                self.refused = Some(refusal.retry_after(retry_after));
                self.is_over = true;
            }
            Err(error) => {
                self.refused = Some(unclaimable(error));
                self.is_over |= error == StoreError::Unavailable;
            }
        }
    }
}

fn unclaimable(error: StoreError) -> Rejection {
    let detail = match error {
        StoreError::Full => "the replay store is full: it cannot take the claim",
        StoreError::Unavailable => "the replay store cannot take the claim",
    };
    Rejection::new(Reason::StateUnavailable, detail)
}

/// Claims of what is not yet on its way. Given back when it ends there: it was refused, or the sender hung up.
#[derive(Default)]
pub(super) struct Held(Claims);

impl Held {
    pub(super) fn new(claims: Claims) -> Self {
        Self(claims)
    }

    pub(super) fn take(&mut self) -> Claims {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for claim in self.take() {
            claim.give_back();
        }
    }
}

/// Keeps claims while their delivery is under way: their leases are for the wait for the answer, and an app that has given
/// one may take longer to read the rest of the request.
///
/// It has no timer, which each request would pay for. The exchange is polled whenever the app reads on, and ends when it
/// has not done so for a while; that is less than the half of a lease that is left when a renewal is due.
pub(super) struct Renewal<'a> {
    claims: &'a Claims,
    lease: Duration,
    due: Instant,
    asked: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

impl<'a> Renewal<'a> {
    pub(super) fn new(claims: &'a Claims, lease: Duration) -> Self {
        Self {
            claims,
            lease,
            due: clock::now() + lease / 2,
            asked: None,
        }
    }
}

impl Future for Renewal<'_> {
    type Output = Infallible;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Infallible> {
        let Self {
            claims,
            lease,
            due,
            asked,
        } = &mut *self;
        if asked.is_none() && clock::now() >= *due {
            *due = clock::now() + *lease / 2;
            let (claims, lease) = (*claims, *lease);
            *asked = Some(Box::pin(async move {
                // What fails is tried again half a lease later.
                join_all(claims.iter().map(|claim| claim.renew(lease))).await;
            }));
        }
        if let Some(under_way) = asked
            && under_way.as_mut().poll(cx).is_ready()
        {
            *asked = None;
        }
        Poll::Pending
    }
}

/// Commits the claims of a delivery that the app took, and releases those of another.
pub async fn settle(claims: Claims, is_taken: bool, record: &Record) {
    let settle = async |claim: Claim| {
        let settled = if is_taken {
            claim.commit().await
        } else {
            claim.release().await
        };
        if let Err(error) = settled {
            record.unsettled(error, is_taken);
        }
    };
    let mut claims = claims.into_iter();
    if let Some(first) = claims.next() {
        settle(first).await;
    }
    join_all(claims.map(settle)).await;
}

/// What sets the deliveries of a route apart from those of others: one secret on two routes does not make them one
/// (SECURITY A-25). It goes into each name by XOR: both are digests, and nobody finds two names that differ as two marks do.
pub(super) fn mark(route: &str) -> [u8; 32] {
    scheme::digest(&[b"hookward delivery", route.as_bytes()])
}

/// Under what a delivery is claimed: in the same order by whoever claims it, and none twice, or it would
/// meet itself.
fn keys(mark: &[u8; 32], proof: &Proof) -> SmallVec<[DeliveryKey; 1]> {
    let key = |name: &[u8; 32]| {
        let mut key = *name;
        key.iter_mut()
            .zip(mark)
            .for_each(|(byte, own)| *byte ^= own);
        key
    };
    let mut keys: SmallVec<[DeliveryKey; 1]> = proof.names.iter().map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
