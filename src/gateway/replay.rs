//! Stage: is this delivery new? Claim it, and commit or release the claim once the app answered.

use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::rejection::Rejection;
use super::verify::Proof;
use crate::reason::Reason;
use crate::route::policy::{OnDuplicate, ReplayPolicy};
use crate::scheme;
use crate::store::{Claim, ReplayStore, StoreError, Verdict};

/// What the store says about a delivery.
#[derive(Debug)]
pub enum Claimed {
    /// The app has it already; the sender may stop trying.
    Duplicate,
    /// It is ours to deliver.
    New(Claim),
    /// Replays are not looked for.
    Unclaimed,
}

/// Claims a verified delivery of `route`.
pub async fn claim(
    store: &ReplayStore,
    policy: Option<&ReplayPolicy>,
    route: &str,
    proof: &Proof,
    lease: Duration,
) -> Result<Claimed, Rejection> {
    let Some(policy) = policy.filter(|_| !proof.fingerprints.is_empty()) else {
        return Ok(Claimed::Unclaimed);
    };
    // The route is part of the key: one secret on two routes does not make them one.
    let mut parts: SmallVec<[&[u8]; 3]> = smallvec![&b"hookward delivery"[..], route.as_bytes()];
    parts.extend(proof.fingerprints.iter().map(<[u8; 32]>::as_slice));
    let key = scheme::digest(&parts);
    match store.claim(key, lease, policy.window).await {
        Ok(Verdict::New(claim)) => Ok(Claimed::New(claim)),
        Ok(Verdict::Duplicate) => match policy.on_duplicate {
            OnDuplicate::Acknowledge => Ok(Claimed::Duplicate),
            OnDuplicate::Reject => Err(Rejection::new(
                Reason::Replayed,
                "this delivery has been forwarded before",
            )),
        },
        Ok(Verdict::InFlight { retry_after }) => {
            let detail = "the same delivery is being forwarded right now";
            Err(Rejection::new(Reason::DeliveryInFlight, detail).retry_after(retry_after))
        }
        Err(error) => {
            // That the store is not there it says itself, and not for each request.
            if error != StoreError::Unavailable {
                tracing::error!(route, %error, "the replay store refused a claim");
            }
            Err(Rejection::new(
                Reason::StateUnavailable,
                "the replay store cannot take the claim",
            ))
        }
    }
}
