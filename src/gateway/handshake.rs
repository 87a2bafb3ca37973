//! Stage: a provider asks whether the URL is ours. Answered here; no such request reaches the app.
//!
//! Most of these requests are unsigned: the check that they belong to lets them pass to this stage
//! instead of refusing them for the missing signature. Every other check of the route holds as always.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::rejection::Rejection;
use super::verify::{self, Presented, Progress, Proof};
use crate::reason::Reason;
use crate::route::auth::SignatureCheck;
use crate::scheme::handshake::{Handshake, Reply};
use crate::scheme::{Content, Message, SenderUrl, SignatureError};
use crate::units::UnixTime;

/// A handshake, and the check that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    check: &'a SignatureCheck,
    handshake: &'a Handshake,
}

/// Whether a request can be a handshake, by its head.
pub fn could_be(presented: Presented<'_>) -> bool {
    let (method, url, headers) = head(presented);
    presented.route.auth.signatures().any(|check| {
        let mut all = check.handshakes.iter();
        all.any(|own| own.foretell(method, url, headers) != Some(false))
    })
}

/// What becomes of a request that `check` refuses by its head: nothing yet, where it may be a handshake
/// that needs no signature.
pub fn or_refuse(
    check: &SignatureCheck,
    presented: Presented<'_>,
    refusal: Rejection,
) -> Result<Rejection, Rejection> {
    let (method, url, headers) = head(presented);
    let told = |own: &Handshake| own.foretell(method, url, headers);
    let unsigned = |own: &Handshake| !own.needs_signature() && told(own) != Some(false);
    if check.handshakes.iter().any(unsigned) {
        return Ok(refusal);
    }
    match check.handshakes.iter().find(|own| told(own) == Some(true)) {
        Some(handshake) => Err(as_answer_to(handshake, refusal)),
        None => Err(refusal),
    }
}

fn head(presented: Presented<'_>) -> (&Method, &SenderUrl, &HeaderMap) {
    let head = presented.head;
    (&head.method, presented.url, &head.headers)
}

/// The handshake that a complete request is: the first one, in the order of the checks.
pub fn find<'a>(presented: Presented<'a>, body: &Content) -> Option<Question<'a>> {
    let message = presented.message(body);
    presented.route.auth.signatures().find_map(|check| {
        let mut all = check.handshakes.iter();
        let handshake = all.find(|own| own.is_meant(&message))?;
        Some(Question { check, handshake })
    })
}

impl<'a> Question<'a> {
    /// The check that it belongs to.
    pub fn check(self) -> &'a SignatureCheck {
        self.check
    }

    /// What the preset says of it.
    pub fn handshake(self) -> &'a Handshake {
        self.handshake
    }

    /// Whether it needs a signature, and has none that holds.
    pub fn lacks_signature(self, presented: Presented<'_>, body: &Content, now: UnixTime) -> bool {
        self.handshake.needs_signature()
            && verify::signature(self.check, &presented.message(body), presented, now).is_err()
    }

    /// Judges it: its proofs, and the other checks of the route.
    pub fn judge(
        self,
        progress: Progress,
        presented: Presented<'_>,
        body: &Content,
        now: UnixTime,
    ) -> Result<(Proof, Reply), Rejection> {
        let Self { check, handshake } = self;
        let message: Message<'_> = presented.message(body);
        let refused = |refusal| as_answer_to(handshake, refusal);
        let mut proof = if handshake.needs_signature() {
            verify::signature(check, &message, presented, now).map_err(refused)?
        } else {
            Proof {
                provider: check.provider.as_ref().map(Arc::clone),
                ..Proof::default()
            }
        };
        let others = verify::beside(check, progress, presented, body, now);
        proof.join(others.map_err(|refusal| refusal.empty(None))?);
        let reply = handshake.answer(&message, &check.scheme, &check.keys, now);
        let refusal = |error: SignatureError| refused(Rejection::from(error));
        Ok((proof, reply.map_err(refusal)?))
    }
}

/// A refusal as providers want it: without a body, with the preset's status for an absent proof.
fn as_answer_to(handshake: &Handshake, refusal: Rejection) -> Rejection {
    let is_unproven = refusal.reason == Reason::HandshakeInvalid || refusal.is_unauthorized();
    let status = handshake.refuse_status().filter(|_| is_unproven);
    refusal.empty(status)
}
