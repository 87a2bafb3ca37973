//! A JSON Web Token that says what its scheme asks for.

use serde_json::{Map, Value};

use super::{SignError, Signing, refuse};
use crate::scheme::jws::{self, Form, JwsAlgorithm};
use crate::scheme::jwt::{Claim, ClaimPath, Jwt};
use crate::scheme::locate::Location;
use crate::scheme::spec::ClaimTime;

/// How long a token lives that must say when it ends: long enough to be sent.
const LIFE_SECONDS: i64 = 60;

impl Signing<'_> {
    pub(super) fn token(&self, jwt: &Jwt) -> Result<String, SignError> {
        if jwt.x5c.is_some() {
            return refuse("the token needs a chain of certificates, which only the provider has");
        }
        let signs = |algorithm: &&JwsAlgorithm| match self.key.private_key() {
            Some(key) => algorithm.fits(key.public()),
            None => algorithm.is_symmetric(),
        };
        let Some(algorithm) = jwt.algorithms.iter().find(signs) else {
            return refuse("the key is of another kind than the algorithms of the scheme");
        };
        let mut header = Map::new();
        header.insert("typ".to_owned(), "JWT".into());
        if let Some(kid) = self.key.public_key().and_then(|key| key.kid()) {
            header.insert("kid".to_owned(), kid.into());
        }
        let (payload, form) = if jwt.detached {
            (self.draft.body.clone(), Form::Detached)
        } else {
            (self.claims(jwt)?.to_string().into_bytes(), Form::Attached)
        };
        jws::sign(*algorithm, &header, &payload, form, self.key).map_err(SignError)
    }

    /// Where the token is the whole body, the draft's body says further claims.
    fn claims(&self, jwt: &Jwt) -> Result<Value, SignError> {
        let is_body = self.form.places.first() == Some(&Location::Body);
        let given = serde_json::from_slice(&self.draft.body).ok();
        let given = given.filter(|given: &Value| is_body && given.is_object());
        let mut claims = given.unwrap_or_else(|| Value::Object(Map::new()));
        if let Value::Object(members) = &mut claims {
            members.insert("iat".to_owned(), self.now.secs().into());
        }
        for claim in &jwt.claims {
            let has = claims
                .as_object()
                .is_some_and(|members| claim.path.find(members).is_some());
            let written = claim.equals.is_none() && claim.time.is_none();
            if claim.optional || (has && written) || !self.is_asked(claim)? {
                continue;
            }
            let value = self.value_of(claim)?;
            put(&claim.path, &mut claims, value)?;
        }
        if let Some(path) = &self.scheme.event_id_claim {
            let has = claims
                .as_object()
                .is_some_and(|members| path.find(members).is_some());
            if !has {
                put(path, &mut claims, self.drawn_id().into())?;
            }
        }
        Ok(claims)
    }

    fn is_asked(&self, claim: &Claim) -> Result<bool, SignError> {
        self.with_view(|view| {
            let holds = claim.when.holds(view);
            holds.map_err(|_bad| {
                SignError("a claim depends on a body that cannot be read".to_owned())
            })
        })
    }

    fn value_of(&self, claim: &Claim) -> Result<Value, SignError> {
        if let Some((meaning, _)) = claim.time {
            let now = self.now.secs();
            return Ok(match meaning {
                ClaimTime::Issued | ClaimTime::NotBefore => now.into(),
                ClaimTime::NotAfter => now.saturating_add(LIFE_SECONDS).into(),
            });
        }
        let Some(wanted) = claim.equals.as_ref().and_then(|equals| equals.first()) else {
            return Ok(self.drawn_id().into());
        };
        Ok(match self.render(wanted)?.as_str() {
            "true" => true.into(),
            "false" => false.into(),
            text => text.into(),
        })
    }
}

fn put(path: &ClaimPath, claims: &mut Value, value: Value) -> Result<(), SignError> {
    path.pointer()
        .and_then(|pointer| pointer.put(claims, value))
        .ok_or_else(|| SignError("a claim lies inside one that is not an object".to_owned()))
}
