//! Stage: what a request must prove. The only maker of [`Proof`].
//!
//! Twice around the same tree: once with the head alone, so that a request without credentials
//! never costs a body, and once with the body for the checks that need it.

use std::sync::Arc;

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::{SmallVec, smallvec};

use super::connection::CertificateNames;
use super::handshake;
use super::head::Head;
use super::headers::{decode_component, decoded_name};
use super::keys::Keyring;
use super::password::{PasswordError, Passwords};
use super::rejection::Rejection;
use crate::reason::Reason;
use crate::route::Route;
use crate::route::auth::{
    AuthPolicy, BasicCheck, Check, ClientCertCheck, Provider, SignatureCheck, TokenCheck,
    TokenLocation,
};
use crate::route::policy::ReplaysOf;
use crate::scheme::{Content, DeliveryNames, Evidence, Message, SenderUrl, digest};
use crate::units::UnixTime;

/// What a request has proved.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// The checks that held, as `X-Hookward-Verified` names them.
    pub checks: SmallVec<[HeaderValue; 1]>,
    /// Whose signature it is.
    pub provider: Option<Arc<Provider>>,
    /// Which key proved it: of several the one that signed, which says more than the one that merely opened
    /// the door.
    pub key_id: Option<Arc<str>>,
    /// All keys that had a part in it.
    pub keys: SmallVec<[Arc<str>; 1]>,
    /// Whether `key_id` is that of a signature.
    pub is_signed: bool,
    /// The provider's id of the event.
    pub event_id: Option<Arc<str>>,
    /// What makes two deliveries the same; none where that is not asked.
    pub names: DeliveryNames,
    /// Whether each name is that of an item, which may come with others the next time.
    pub has_items: bool,
    /// Fields that the provider wants to read in the answer.
    pub answer_fields: Vec<(HeaderName, HeaderValue)>,
}

/// A request as checks see it before its body.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its head.
    pub head: &'a Head,
    /// The route that took it.
    pub route: &'a Route,
    /// The URL that its sender called.
    pub url: &'a SenderUrl,
    /// Names in the client's certificate.
    pub client: Option<&'a CertificateNames>,
    /// Keys that were fetched for it.
    pub fetched: Option<&'a Keyring>,
}

impl<'a> Presented<'a> {
    /// The complete request, as schemes see it.
    pub fn message<'m>(&self, body: &'m Content) -> Message<'m>
    where
        'a: 'm,
    {
        Message {
            method: &self.head.method,
            url: self.url,
            headers: &self.head.headers,
            body,
        }
    }
}

/// How far the head alone has led, check by check.
#[derive(Debug)]
pub struct Progress(SmallVec<[Step; 1]>);

#[derive(Debug)]
enum Step {
    /// Refused, unless the request turns out to be a handshake that needs no signature.
    HandshakeOnly(Rejection),
    NeedsBody,
    Proven(Box<Proof>),
}

impl Progress {
    /// Whether the head alone has proved the check that `signature` is, or the `any` that it is a choice of.
    pub fn is_proven(&self, signature: &SignatureCheck, route: &Route) -> bool {
        let AuthPolicy::All(checks) = &route.auth else {
            return false;
        };
        let mut steps = checks.iter().zip(&self.0);
        steps.any(|(check, step)| check.holds(signature) && matches!(step, Step::Proven(_)))
    }
}

/// Judges what the head alone can tell.
pub async fn from_head(
    presented: Presented<'_>,
    passwords: &Passwords,
    now: UnixTime,
) -> Result<Progress, Rejection> {
    let AuthPolicy::All(checks) = &presented.route.auth else {
        return Ok(Progress(SmallVec::new()));
    };
    let mut steps = SmallVec::new();
    let mut unsigned = None;
    for check in checks {
        let step = match check {
            // Boxed, as most routes have none.
            Check::Any(choices) => {
                Box::pin(any_from_head(choices, presented, passwords, now)).await
            }
            check => one_from_head(check, presented, passwords, now).await,
        };
        match step {
            Ok(step) => steps.push(step),
            // Whoever lacks the credential too is told so first, in whatever order they are written.
            Err(refusal) if refusal.is_of_signature() => {
                unsigned.get_or_insert(refusal);
            }
            Err(refusal) => return Err(refusal),
        }
    }
    match unsigned {
        Some(refusal) => Err(refusal),
        None => Ok(Progress(steps)),
    }
}

/// Judges the rest, with the body.
pub fn from_message(
    progress: Progress,
    presented: Presented<'_>,
    body: &Content,
    now: UnixTime,
) -> Result<Proof, Rejection> {
    rest(progress, presented, body, now, None)
}

/// As [`from_message`], without the check that a handshake belongs to.
pub fn beside(
    check: &SignatureCheck,
    progress: Progress,
    presented: Presented<'_>,
    body: &Content,
    now: UnixTime,
) -> Result<Proof, Rejection> {
    rest(progress, presented, body, now, Some(check))
}

fn rest(
    progress: Progress,
    presented: Presented<'_>,
    body: &Content,
    now: UnixTime,
    without: Option<&SignatureCheck>,
) -> Result<Proof, Rejection> {
    let AuthPolicy::All(checks) = &presented.route.auth else {
        return Ok(Proof::default());
    };
    let message = presented.message(body);
    let mut proof: Option<Proof> = None;
    for (check, step) in checks.iter().zip(progress.0) {
        if without.is_some_and(|without| check.holds(without)) {
            continue;
        }
        let part = match (step, check) {
            (Step::HandshakeOnly(refusal), _) => return Err(refusal),
            (Step::Proven(part), _) => *part,
            (Step::NeedsBody, Check::Any(choices)) => {
                let judged = choices.iter().filter_map(|choice| match choice {
                    Check::Signature(check) => Some(signature(check, &message, presented, now)),
                    _ => None,
                });
                first_that_holds(judged).map_err(|refusal| offering(choices, refusal))?
            }
            (Step::NeedsBody, Check::Signature(check)) => {
                signature(check, &message, presented, now)?
            }
            (Step::NeedsBody, _) => return Err(internal()),
        };
        match &mut proof {
            None => proof = Some(part),
            Some(proof) => proof.join(part),
        }
    }
    Ok(proof.unwrap_or_default())
}

fn internal() -> Rejection {
    Rejection::new(Reason::Internal, "a check was left without its verdict")
}

fn proven(check: &Check, key_id: Option<Arc<str>>) -> Step {
    Step::Proven(Box::new(Proof::of(check, key_id)))
}

impl Proof {
    fn of(check: &Check, key_id: Option<Arc<str>>) -> Self {
        Self {
            checks: smallvec![check.label()],
            keys: key_id.iter().cloned().collect(),
            key_id,
            ..Self::default()
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.checks.extend(other.checks);
        self.provider = self.provider.take().or(other.provider);
        self.event_id = self.event_id.take().or(other.event_id);
        // Of two checks the first key may have the same id: it counts once.
        for key in other.keys {
            if !self.keys.contains(&key) {
                self.keys.push(key);
            }
        }
        self.key_id = if other.is_signed && !self.is_signed {
            other.key_id.or(self.key_id.take())
        } else {
            self.key_id.take().or(other.key_id)
        };
        self.is_signed |= other.is_signed;
        self.names = joined(&self.names, &other.names);
        self.has_items |= other.has_items;
        self.answer_fields.extend(other.answer_fields);
    }
}

/// Names of a delivery that two signatures prove: of each two names one.
fn joined(some: &DeliveryNames, others: &DeliveryNames) -> DeliveryNames {
    if some.is_empty() || others.is_empty() {
        return some.iter().chain(others).copied().collect();
    }
    let with_each = |one| others.iter().map(move |other| digest(&[one, other]));
    some.iter().flat_map(|name| with_each(name)).collect()
}

async fn any_from_head(
    choices: &[Check],
    presented: Presented<'_>,
    passwords: &Passwords,
    now: UnixTime,
) -> Result<Step, Rejection> {
    let mut needs_body = false;
    let mut is_handshake_only = false;
    let mut refusals = Vec::new();
    for choice in choices {
        match one_from_head(choice, presented, passwords, now).await {
            Ok(Step::Proven(proof)) => return Ok(Step::Proven(proof)),
            Ok(Step::NeedsBody) => needs_body = true,
            Ok(Step::HandshakeOnly(refusal)) => {
                is_handshake_only = true;
                refusals.push(Err(refusal));
            }
            Err(refusal) => refusals.push(Err(refusal)),
        }
    }
    if needs_body {
        return Ok(Step::NeedsBody);
    }
    match first_that_holds(refusals) {
        Ok(proof) => Ok(Step::Proven(Box::new(proof))),
        Err(refusal) => {
            let refusal = offering(choices, refusal);
            if is_handshake_only {
                Ok(Step::HandshakeOnly(refusal))
            } else {
                Err(refusal)
            }
        }
    }
}

/// A 401 names every way in (RFC 9110 11.6.1), not only the one that failed last.
fn offering(choices: &[Check], mut refusal: Rejection) -> Rejection {
    if !refusal.is_unauthorized() {
        return refusal;
    }
    refusal.fields.clear();
    for challenge in choices.iter().filter_map(Check::challenge) {
        if !refusal.fields.contains(challenge) {
            refusal.fields.push(Arc::clone(challenge));
        }
    }
    refusal
}

/// Judges one check that needs no body, outside of serving: for `hookward verify`.
pub async fn head_alone(
    check: &Check,
    presented: Presented<'_>,
    passwords: &Passwords,
    now: UnixTime,
) -> Result<Proof, Rejection> {
    match one_from_head(check, presented, passwords, now).await? {
        Step::Proven(proof) => Ok(*proof),
        Step::HandshakeOnly(refusal) => Err(refusal),
        Step::NeedsBody => Err(internal()),
    }
}

/// The first proof; else the refusal that says most: one about a credential that was there.
pub fn first_that_holds(
    judged: impl IntoIterator<Item = Result<Proof, Rejection>>,
) -> Result<Proof, Rejection> {
    let mut refusal: Option<Rejection> = None;
    for verdict in judged {
        match verdict {
            Ok(proof) => return Ok(proof),
            Err(other) => {
                let absent = |rejection: &Rejection| {
                    matches!(
                        rejection.reason,
                        Reason::CredentialMissing | Reason::SignatureMissing
                    )
                };
                if refusal
                    .as_ref()
                    .is_none_or(|first| absent(first) && !absent(&other))
                {
                    refusal = Some(other);
                }
            }
        }
    }
    Err(refusal.unwrap_or_else(internal))
}

async fn one_from_head(
    check: &Check,
    presented: Presented<'_>,
    passwords: &Passwords,
    now: UnixTime,
) -> Result<Step, Rejection> {
    let Head {
        method, headers, ..
    } = presented.head;
    match check {
        Check::Any(_) => Err(internal()),
        Check::Basic(basic_check) => {
            let user = basic(basic_check, presented, passwords).await?;
            Ok(proven(check, Some(user)))
        }
        Check::ClientCert(names) => {
            client_cert(names, presented)?;
            Ok(proven(check, None))
        }
        Check::Signature(signature) => {
            let judged = signature.scheme.precheck(method, presented.url, headers);
            let Err(error) = judged else {
                return Ok(Step::NeedsBody);
            };
            let refusal = Rejection::from(error).challenged(&signature.challenge);
            handshake::or_refuse(signature, presented, refusal).map(Step::HandshakeOnly)
        }
        Check::Token(token_check) => {
            let key_id = token(token_check, presented, now)?;
            Ok(proven(check, Some(key_id)))
        }
    }
}

/// Judges a signature, with the body.
pub(super) fn signature(
    check: &SignatureCheck,
    message: &Message<'_>,
    presented: Presented<'_>,
    now: UnixTime,
) -> Result<Proof, Rejection> {
    let keys = match &presented.fetched {
        Some(fetched) => fetched.keys_of(&presented.route.auth, check),
        None => Ok(&check.keys),
    };
    let verdict = keys.and_then(|keys| check.scheme.verify(message, keys, now));
    let mut evidence =
        verdict.map_err(|error| Rejection::from(error).challenged(&check.challenge))?;
    // Only a route that looks for replays pays for telling deliveries apart.
    let mut names = None;
    if presented
        .route
        .replay
        .is_some_and(|policy| match policy.of {
            ReplaysOf::Signed => true,
            ReplaysOf::SignedWithTime => check.scheme.signed_tolerance().is_some(),
        })
    {
        if presented.route.auth.signatures().nth(1).is_some() {
            evidence.forget_tags();
        }
        names = check.scheme.delivery(message, &evidence);
        if names.is_none() && check.scheme.is_signed() {
            return Err(Rejection::new(
                Reason::SignatureMalformed,
                "nothing in it tells this delivery from others, which `replay` needs",
            ));
        }
    }
    let Evidence {
        key_id, event_id, ..
    } = evidence;
    let proves = check.scheme.proves_anything();
    Ok(Proof {
        checks: proves.then(|| check.label()).into_iter().collect(),
        provider: check.provider.clone(),
        keys: key_id.iter().cloned().collect(),
        key_id,
        is_signed: check.scheme.is_signed(),
        event_id,
        names: names.unwrap_or_default(),
        has_items: check.scheme.signs_items(),
        answer_fields: check.answers.headers(message, &check.keys, now),
    })
}

fn token(
    check: &TokenCheck,
    presented: Presented<'_>,
    now: UnixTime,
) -> Result<Arc<str>, Rejection> {
    let refuse = |reason, detail| Err(Rejection::new(reason, detail).challenged(&check.challenge));
    let presented_token = match find_token(&check.location, presented) {
        Ok(Some(token)) if !token.is_empty() => token,
        Ok(_) => return refuse(Reason::CredentialMissing, "the token is missing"),
        Err(detail) => return refuse(Reason::CredentialInvalid, detail),
    };
    if check.keys.usable(now).next().is_none() {
        return refuse(
            Reason::KeyUnavailable,
            "every token of the route has passed `not_after`",
        );
    }
    match check.keys.matching(&presented_token, now) {
        Some(key) => Ok(Arc::clone(&key.id)),
        None => refuse(
            Reason::CredentialInvalid,
            "the token is none of the route's",
        ),
    }
}

/// The token as presented; an error when it stands more than once (SECURITY RT-24, RT-27).
fn find_token(
    location: &TokenLocation,
    presented: Presented<'_>,
) -> Result<Option<Vec<u8>>, &'static str> {
    let head = presented.head;
    match location {
        TokenLocation::Bearer => {
            let Some(field) = single(&head.headers, &header::AUTHORIZATION)? else {
                return Ok(None);
            };
            match split_scheme(field.as_bytes()) {
                (scheme, token) if scheme.eq_ignore_ascii_case(b"bearer") => {
                    Ok(Some(token.to_vec()))
                }
                _ => Ok(None),
            }
        }
        TokenLocation::Header(name) => {
            Ok(single(&head.headers, name)?.map(|field| field.as_bytes().to_vec()))
        }
        TokenLocation::Path(name) => {
            let raw = presented.route.matches.path.param(name, head.path());
            Ok(raw.map(|raw| percent_encoding::percent_decode_str(raw).collect()))
        }
        TokenLocation::Query(name) => {
            let fields = head.query().unwrap_or_default().split('&');
            let mut values = fields.filter(|field| *decoded_name(field) == **name);
            let value = values.next().map(|field| {
                let value = field.split_once('=').map_or("", |(_, value)| value);
                decode_component(value).into_bytes()
            });
            match values.next() {
                Some(_) => Err("the token stands in the query more than once"),
                None => Ok(value),
            }
        }
    }
}

fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, &'static str> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next();
    match fields.next() {
        Some(_) => Err("the credential stands in more than one field"),
        None => Ok(field),
    }
}

/// `Basic abc` is `Basic` and `abc`; RFC 9110 11.4 allows more than one blank between them.
fn split_scheme(field: &[u8]) -> (&[u8], &[u8]) {
    let end = field
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(field.len());
    let (scheme, rest) = field.split_at(end);
    (scheme, rest.trim_ascii_start())
}

async fn basic(
    check: &BasicCheck,
    presented: Presented<'_>,
    passwords: &Passwords,
) -> Result<Arc<str>, Rejection> {
    let refuse = |reason, detail| Rejection::new(reason, detail).challenged(&check.challenge);
    let invalid = |detail| refuse(Reason::CredentialInvalid, detail);
    let field = single(&presented.head.headers, &header::AUTHORIZATION).map_err(invalid)?;
    let missing = || refuse(Reason::CredentialMissing, "Basic credentials are missing");
    let (scheme, encoded) = split_scheme(field.ok_or_else(missing)?.as_bytes());
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(missing());
    }
    // RFC 7617: user-id, colon, password; the first colon splits.
    let decoded = BASE64
        .decode(encoded)
        .map_err(|_bad| invalid("Basic credentials are not base64"))?;
    let colon = decoded.iter().position(|byte| *byte == b':');
    let (user, password) = colon
        .and_then(|colon| decoded.split_at_checked(colon))
        .and_then(|(user, rest)| Some((std::str::from_utf8(user).ok()?, rest.get(1..)?)))
        .ok_or_else(|| invalid("Basic credentials are not `user:password`"))?;
    passwords
        .check(check, user, password)
        .await
        .map_err(|error| match error {
            PasswordError::Wrong => invalid("user or password is wrong"),
            PasswordError::Busy => {
                Rejection::new(Reason::Overloaded, "too many passwords are being checked")
            }
        })
}

fn client_cert(check: &ClientCertCheck, presented: Presented<'_>) -> Result<(), Rejection> {
    let refuse = |reason, detail| Err(Rejection::new(reason, detail).challenged(&check.challenge));
    let Some(names) = presented.client else {
        return refuse(Reason::CredentialMissing, "the client sent no certificate");
    };
    if check.san.iter().any(|name| names.carries(name)) {
        return Ok(());
    }
    refuse(
        Reason::CredentialInvalid,
        "the client's certificate carries none of the names",
    )
}
