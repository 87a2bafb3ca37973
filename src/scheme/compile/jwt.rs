//! The rules of a token: its algorithms and claims.

use std::time::Duration;

use super::{Compiler, TOLERANCE_DEFAULT, get};
use crate::document::At;
use crate::scheme::jws::JwsAlgorithm;
use crate::scheme::jwt::{Claim, ClaimPath, Jwt};
use crate::scheme::spec::{ClaimTime, JwtSpec};
use crate::scheme::x5c::ChainRules;

/// How far the clock of a token's maker may be ahead of ours (RFC 7519 section 4.1.5).
const NOT_BEFORE_LEEWAY: Duration = Duration::from_mins(1);

impl Compiler<'_> {
    pub(super) fn jwt(&mut self, at: &At<JwtSpec>, tolerance: Option<Duration>) -> Jwt {
        let mut jwt = Jwt {
            algorithms: Vec::new(),
            claims: Vec::new(),
            detached: false,
            x5c: None,
        };
        let Some(spec) = at.get() else { return jwt };
        for at in spec.algorithms.get().into_iter().flatten() {
            match at.get().and_then(|name| JwsAlgorithm::from_name(name)) {
                Some(algorithm) => jwt.algorithms.push(algorithm),
                None => self.error(
                    at,
                    "not an algorithm of tokens; write `HS256`, `RS256`, `ES256` ...",
                ),
            }
        }
        let symmetric = jwt
            .algorithms
            .iter()
            .filter(|own| own.is_symmetric())
            .count();
        if jwt.algorithms.is_empty() || (symmetric > 0 && symmetric < jwt.algorithms.len()) {
            self.error(
                at,
                "`algorithms` are one or more that verify with the same kind of key",
            );
        }
        for (name, at) in get(&spec.claims)
            .map(|all| all.0.as_slice())
            .unwrap_or_default()
        {
            let Some(claim) = at.get() else { continue };
            let meaning = get(&claim.time).copied();
            let fallback = match meaning {
                Some(ClaimTime::Issued) => tolerance.unwrap_or(TOLERANCE_DEFAULT),
                Some(ClaimTime::NotBefore) => NOT_BEFORE_LEEWAY,
                Some(ClaimTime::NotAfter) | None => Duration::ZERO,
            };
            let leeway = get(&claim.leeway).map_or(fallback, |parsed| parsed.0.0);
            jwt.claims.push(Claim {
                path: ClaimPath::new(name),
                equals: claim.equals.as_ref().map(|at| self.some_choices(at)),
                ignore_case: get(&claim.ignore_case).copied().unwrap_or_default(),
                time: meaning.map(|meaning| (meaning, leeway)),
                optional: get(&claim.optional).copied().unwrap_or_default(),
                optional_when: claim.optional_when.as_ref().map(|at| self.when(at)),
                when: claim
                    .when
                    .as_ref()
                    .map(|at| self.when(at))
                    .unwrap_or_default(),
            });
        }
        jwt.detached = get(&spec.detached).copied().unwrap_or_default();
        jwt.x5c = get(&spec.x5c).map(|own| ChainRules {
            leaf_oid: get(&own.leaf_oid).cloned(),
            intermediate_oid: get(&own.intermediate_oid).cloned(),
        });
        jwt
    }
}
