//! What a JSON Web Token must say beside being signed: its claims.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::jws::{JwsAlgorithm, Token};
use super::keys::KeySet;
use super::locate::{Pointer, View};
use super::parse::Presented;
use super::primitive::same_secret;
use super::spec::{BodyKind, ClaimTime};
use super::template::{Scope, Template};
use super::trace::Trace;
use super::verify::{cut, traced};
use super::when::When;
use super::x5c::{ChainRules, leaf_key};
use super::{Evidence, Scheme, SignatureError, Tolerance, malformed};
use crate::reason::Reason;
use crate::units::UnixTime;

pub(super) const NO_TOKEN: SignatureError = malformed("there is no token that can be read");

/// A token's rules.
#[derive(Clone, Debug)]
pub(super) struct Jwt {
    pub(super) algorithms: Vec<JwsAlgorithm>,
    pub(super) claims: Vec<Claim>,
    pub(super) detached: bool,
    /// Key from the chain in the token's header.
    pub(super) x5c: Option<ChainRules>,
}

/// What one claim must be.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) path: ClaimPath,
    /// The values that it may have; `None` where it need only be there.
    pub(super) equals: Option<Vec<Template>>,
    pub(super) ignore_case: bool,
    pub(super) time: Option<(ClaimTime, Duration)>,
    pub(super) optional: bool,
    pub(super) optional_when: Option<When>,
    pub(super) when: When,
}

impl Jwt {
    /// Whether a token vouches for the bytes of the body.
    pub(super) fn is_over_bytes(&self) -> bool {
        self.detached || self.claims.iter().any(Claim::is_over_bytes)
    }

    /// How old a token may be, where each says when it was made.
    pub(super) fn tolerance(&self) -> Option<Tolerance> {
        let demanded = self.claims.iter().filter(|claim| claim.is_demanded());
        let issued = demanded.filter_map(|claim| match claim.time {
            Some((ClaimTime::Issued, leeway)) => Some(leeway),
            _ => None,
        });
        issued.min().map(|leeway| Tolerance {
            past: leeway,
            future: leeway,
        })
    }
}

impl Scheme {
    /// A JSON Web Token.
    pub(super) fn token(
        &self,
        jwt: &Jwt,
        view: View<'_>,
        keys: &KeySet,
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<Evidence, SignatureError> {
        let signature = self.signature.as_ref().ok_or(NO_TOKEN)?;
        let presented = traced("signature", signature.read(view), trace)?;
        let agreed = signature.says_nothing_else(view, &presented);
        traced("places", agreed, trace)?;
        let token = traced("token", presented_token(&presented), trace)?;
        self.meets_requirements(view, keys, now, trace)?;
        let body = view.body()?;
        let frames: Vec<&[u8]> = body.frames().iter().map(AsRef::as_ref).collect();
        let detached = jwt.detached.then_some(frames.as_slice());
        let key = match &jwt.x5c {
            None => token.verify(&jwt.algorithms, keys, now, detached),
            Some(rules) => token.certificates().and_then(|chain| {
                let vouched = leaf_key(&chain, keys, rules, now)?;
                token.verify_by(&jwt.algorithms, &vouched.leaf, detached)?;
                Ok(vouched.root)
            }),
        };
        let key = traced("key", key, trace)?;
        if jwt.detached {
            return Ok(self.evidence(view, Some(key), None));
        }
        let claims = token.claims()?;
        let url = self.url.first(view)?;
        let scope = Scope::new(view, &url);
        let signed_at = traced("claims", jwt.judge(&claims, &scope, now), trace)?;
        let mut evidence = self.evidence(view, Some(key), signed_at);
        if let Some(path) = &self.event_id_claim {
            evidence.event_id = path.text(&claims).map(|text| cut(&text));
        }
        Ok(evidence)
    }
}

/// The JSON Web Token that a request carries; blanks around it are no part of it.
pub(super) fn presented_token<'p>(
    presented: &'p Presented<'_>,
) -> Result<Token<'p>, SignatureError> {
    let text = presented.texts.first().ok_or(NO_TOKEN)?;
    let text = std::str::from_utf8(text.value.trim_ascii()).map_err(|_bad| NO_TOKEN)?;
    Token::parse(text)
}

/// A claim's name, or a JSON pointer into the claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimPath(String);

impl ClaimPath {
    pub(super) fn new(text: &str) -> Self {
        if text.starts_with('/') {
            Self(text.to_owned())
        } else {
            // A name may hold `/` and `~`, which a pointer escapes.
            Self(format!("/{}", text.replace('~', "~0").replace('/', "~1")))
        }
    }

    pub(super) fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let (first, rest) = match self.0.strip_prefix('/')?.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (self.0.strip_prefix('/')?, None),
        };
        let first = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
        let found = match rest {
            Some(rest) => first.pointer(&format!("/{rest}"))?,
            None => first,
        };
        (!found.is_null()).then_some(found)
    }

    /// Whether it is the claim of this name, which holds no sign that a pointer escapes.
    fn is_name(&self, name: &str) -> bool {
        self.0.strip_prefix('/') == Some(name)
    }

    /// As a pointer into the claims.
    pub(super) fn pointer(&self) -> Option<Pointer> {
        Pointer::parse(&self.0)
    }

    /// The claim as text.
    pub(super) fn text<'c>(&self, claims: &'c Map<String, Value>) -> Option<Cow<'c, str>> {
        self.find(claims).and_then(text_of)
    }
}

fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(_) | Value::Number(_) => Some(Cow::Owned(value.to_string())),
        Value::Array(_) | Value::Null | Value::Object(_) => None,
    }
}

const WRONG: SignatureError = SignatureError::new(
    Reason::SignatureMismatch,
    "a claim of the token is not what the check asks for",
);

impl Jwt {
    /// Judges the claims; answers with when the token was made, where it says so.
    pub(super) fn judge(
        &self,
        claims: &Map<String, Value>,
        scope: &Scope<'_>,
        now: UnixTime,
    ) -> Result<Option<UnixTime>, SignatureError> {
        let mut late = None;
        // Which of `TIMES` a claim of the preset judges.
        let mut judged = [false; TIMES.len()];
        for claim in &self.claims {
            if !holds(&claim.when, scope.view)? {
                continue;
            }
            for (is_judged, (name, _)) in judged.iter_mut().zip(TIMES) {
                *is_judged |= claim.time.is_some() && claim.path.is_name(name);
            }
            match claim.judge(claims, scope, now) {
                Ok(()) => {}
                // A wrong claim says more than one that is merely late.
                Err(error) if is_of_time(error.reason) => late = late.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        // RFC 7519 4.1.4 and 4.1.5: where they are, they count, whether or not a preset names them.
        for ((name, meaning), is_judged) in TIMES.into_iter().zip(judged) {
            let value = claims.get(name).filter(|value| !value.is_null());
            let Some(value) = value.filter(|_| !is_judged) else {
                continue;
            };
            match judge_time(value, meaning, LEEWAY, now) {
                Ok(()) => {}
                Err(error) if is_of_time(error.reason) => late = late.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        match late {
            Some(error) => Err(error),
            None => Ok(ClaimPath::new("iat").find(claims).and_then(time_of)),
        }
    }
}

/// Times that count wherever a token has them.
const TIMES: [(&str, ClaimTime); 2] = [("exp", ClaimTime::NotAfter), ("nbf", ClaimTime::NotBefore)];

/// How far clocks may differ, for times that a preset does not name: as for every signed timestamp.
const LEEWAY: Duration = Duration::from_mins(5);

fn is_of_time(reason: Reason) -> bool {
    matches!(reason, Reason::TimestampStale | Reason::TimestampAhead)
}

fn holds(when: &When, view: View<'_>) -> Result<bool, SignatureError> {
    when.holds(view)
        .map_err(|_bad| malformed("the body that a claim depends on cannot be read"))
}

impl Claim {
    /// Whether every token must have it, whatever the request; that of an empty body may be excused.
    fn is_demanded(&self) -> bool {
        let only_of_empty = |when: &When| when.body == Some(BodyKind::Empty);
        self.when.is_certain()
            && !self.optional
            && self.optional_when.as_ref().is_none_or(only_of_empty)
    }

    /// Whether it must be there and is a digest of the bytes of the body.
    fn is_over_bytes(&self) -> bool {
        self.is_demanded() && self.equals_are(Template::is_over_bytes)
    }

    /// Whether it must be there and is a digest of the body.
    pub(super) fn covers_body(&self) -> bool {
        self.is_demanded() && self.equals_are(Template::covers_body)
    }

    /// Whether it is made of the URL.
    pub(super) fn covers_url(&self) -> bool {
        self.equals_are(Template::covers_url)
    }

    /// Whether there are values that it may have, and each is as `wanted`.
    fn equals_are(&self, wanted: impl Fn(&Template) -> bool) -> bool {
        let equals = self.equals.as_deref().unwrap_or_default();
        !equals.is_empty() && equals.iter().all(wanted)
    }

    fn judge(
        &self,
        claims: &Map<String, Value>,
        scope: &Scope<'_>,
        now: UnixTime,
    ) -> Result<(), SignatureError> {
        let Some(value) = self.path.find(claims) else {
            let excused = match &self.optional_when {
                Some(when) => holds(when, scope.view)?,
                None => false,
            };
            return if self.optional || excused {
                Ok(())
            } else {
                Err(WRONG)
            };
        };
        if let Some((meaning, leeway)) = self.time {
            return judge_time(value, meaning, leeway, now);
        }
        let given: Vec<Cow<'_, str>> = match value {
            Value::Array(items) => items.iter().filter_map(text_of).collect(),
            value => text_of(value).into_iter().collect(),
        };
        let Some(equals) = &self.equals else {
            return if given.is_empty() { Err(WRONG) } else { Ok(()) };
        };
        for wanted in equals {
            let wanted = wanted.text(scope)?;
            let is = |given: &Cow<'_, str>| {
                if self.ignore_case {
                    given.as_bytes().eq_ignore_ascii_case(&wanted)
                } else {
                    same_secret(given.as_bytes(), &wanted)
                }
            };
            if given.iter().any(is) {
                return Ok(());
            }
        }
        Err(WRONG)
    }
}

/// Seconds since 1970, whole or not (RFC 7519 section 2).
fn time_of(value: &Value) -> Option<UnixTime> {
    if let Some(seconds) = value.as_i64() {
        return Some(UnixTime::from_secs(seconds));
    }
    let millis = value.as_f64()? * 1000.0;
    let sane = (0.0..9e15).contains(&millis);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range was just checked"
    )]
    sane.then(|| UnixTime::from_millis(millis as i64))
}

fn judge_time(
    value: &Value,
    meaning: ClaimTime,
    leeway: Duration,
    now: UnixTime,
) -> Result<(), SignatureError> {
    let time = time_of(value).ok_or(SignatureError::new(
        Reason::TimestampMalformed,
        "a time in the token is not a number of seconds",
    ))?;
    let leeway = i64::try_from(leeway.as_millis()).unwrap_or(i64::MAX);
    let age = now.millis_since(time);
    let (stale, ahead) = match meaning {
        ClaimTime::Issued => (age > leeway, age < leeway.saturating_neg()),
        ClaimTime::NotAfter => (age >= leeway.max(1), false),
        ClaimTime::NotBefore => (false, age < leeway.saturating_neg()),
    };
    if stale {
        return Err(SignatureError::new(
            Reason::TimestampStale,
            "the token is out of date",
        ));
    }
    if ahead {
        return Err(SignatureError::new(
            Reason::TimestampAhead,
            "the token is from the future",
        ));
    }
    Ok(())
}
