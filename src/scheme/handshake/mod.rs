//! A provider's question whether a URL is ours, and what we answer; and what else a provider wants to
//! read in answers.
//!
//! An answer that repeats what its asker sent repeats only what `charset` lets through, and an HMAC is
//! made of nothing that could be signed content (SECURITY ). `compile.rs` refuses presets
//! that do otherwise.

use std::fmt;
use std::io;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::charset::Charset;
use super::https_url::HttpsUrl;
use super::keys::{Key, KeySet};
use super::locate::{Location, Pointer, View, find};
use super::primitive::same_secret;
use super::template::{Scope, Template};
use super::when::When;
use super::{Message, Require, Scheme, SenderUrl, SignatureError, UrlForm};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::units::UnixTime;

mod compile;

pub(super) use compile::{answers, handshakes};

/// Largest answer to a handshake: body and fields.
const REPLY_BYTES_MAX: usize = 8 * 1024;

/// A handshake of a preset, compiled.
#[derive(Clone, Debug)]
pub struct Handshake {
    name: Arc<str>,
    method: Method,
    when: When,
    proof: ProofForm,
    /// The values that the reply repeats, and what they may look like.
    charset: Vec<(Location, Charset)>,
    refuse_status: Option<StatusCode>,
    reply: ReplyForm,
    fetch: Option<Target>,
    verify_token: Option<Secret>,
    keeper: Option<Arc<dyn Keep>>,
}

impl Handshake {
    /// What it puts into an HMAC. A signature that it must have is no guard where it does not cover that.
    pub(super) fn challenges(&self) -> impl Iterator<Item = Charset> {
        challenges(self.reply.is_signed, &self.charset)
    }
}

/// What proves a handshake: all of it.
#[derive(Clone, Debug, Default)]
struct ProofForm {
    signature: bool,
    token: Option<Location>,
    require: Vec<Require>,
    enrolment: Option<Enrolment>,
}

/// A secret that the request brings.
#[derive(Clone, Debug)]
struct Enrolment {
    place: Location,
    is_signed: bool,
    /// Whether it is answered while the window is closed, its secret not taken.
    is_always_answered: bool,
    is_open: bool,
}

/// How the answer is made.
#[derive(Clone, Debug)]
struct ReplyForm {
    status: StatusCode,
    headers: Vec<(HeaderName, Template)>,
    body: BodyForm,
    /// Whether an HMAC goes in.
    is_signed: bool,
}

#[derive(Clone, Debug)]
enum BodyForm {
    Empty,
    Json(Vec<(String, Template)>),
    Text(Template),
}

/// A URL of the request that is called.
#[derive(Clone, Debug)]
struct Target {
    pointer: Pointer,
    /// Labels; `*` is any one.
    hosts: Vec<Vec<String>>,
}

/// The answer to a proven handshake.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Header fields, `Content-Type` among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body.
    pub body: Vec<u8>,
    /// A URL to GET, at one of the provider's hosts (SECURITY A-34).
    pub fetch: Option<HttpsUrl>,
    /// The secret that the request brought, for the operator.
    pub enrolled: Option<Enrolled>,
}

/// A secret that a request brought.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The secret.
    pub secret: Secret,
    /// Who keeps it; `None` leaves it to the operational log.
    pub keeper: Option<Arc<dyn Keep>>,
}

/// A place for a secret that a request brings. `Display` names it.
pub trait Keep: fmt::Debug + fmt::Display + Send + Sync {
    /// Keeps a secret; an error of the kind `AlreadyExists` where there is one.
    fn keep(&self, secret: &Secret) -> io::Result<()>;
}

/// What a provider wants to read in other answers.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Status of a refusal instead of 401.
    pub reject_status: Option<StatusCode>,
    /// Whether a refusal has no body.
    pub reject_empty: bool,
    /// Status of an acknowledged duplicate instead of 200.
    pub accept_status: Option<StatusCode>,
    /// Media type and body of an acknowledged duplicate.
    pub accept_body: Option<(HeaderValue, String)>,
    headers: Vec<(HeaderName, Template)>,
    charset: Vec<(Location, Charset)>,
    /// Whether an HMAC goes into the fields.
    is_signed: bool,
}

impl Answers {
    /// What they put into an HMAC, for whoever sends a captured delivery again.
    pub(super) fn challenges(&self) -> impl Iterator<Item = Charset> {
        challenges(self.is_signed, &self.charset)
    }
}

fn challenges(is_signed: bool, charset: &[(Location, Charset)]) -> impl Iterator<Item = Charset> {
    let charsets = charset.iter().filter(move |_| is_signed);
    charsets.map(|(_, charset)| charset.clone())
}

const fn invalid(detail: &'static str) -> SignatureError {
    SignatureError::new(Reason::HandshakeInvalid, detail)
}

const NO_SECRET: SignatureError = SignatureError::new(
    Reason::KeyUnavailable,
    "the answer is an HMAC, and the check has no secret that counts",
);

impl Handshake {
    /// Its name in the preset.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The method that it comes with.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Whether the route's scheme must have verified the request.
    pub fn needs_signature(&self) -> bool {
        self.proof.signature
    }

    /// Whether a verify token proves it: the param `verify_token`, else any secret of the check.
    pub fn takes_verify_token(&self) -> bool {
        self.proof.token.is_some()
    }

    /// Whether it takes a new secret just now.
    pub fn is_enrolment_open(&self) -> bool {
        self.proof.enrolment.as_ref().is_some_and(|own| own.is_open)
    }

    /// With the operator's verify token.
    #[must_use]
    pub fn with_verify_token(mut self, token: Secret) -> Self {
        self.verify_token = Some(token);
        self
    }

    /// Whether it can bring a secret.
    pub fn takes_secret(&self) -> bool {
        self.proof.enrolment.is_some()
    }

    /// With a place for the secret that it brings.
    #[must_use]
    pub fn with_keeper(mut self, keeper: Arc<dyn Keep>) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// Status where it is not proven, if the provider wants a certain one.
    pub fn refuse_status(&self) -> Option<StatusCode> {
        self.refuse_status
    }

    /// Whether a request is this handshake, by its head; `None` where the body decides.
    pub fn foretell(&self, method: &Method, url: &SenderUrl, headers: &HeaderMap) -> Option<bool> {
        self.when.foretell(View::of_head(method, url, headers))
    }

    /// Whether a complete request is this handshake. One that cannot be read is not.
    pub fn is_meant(&self, message: &Message<'_>) -> bool {
        self.when.holds(View::of(message)).unwrap_or(false)
    }

    /// Judges everything but the signature, which the caller has verified where it is needed, and makes
    /// the answer.
    pub fn answer(
        &self,
        message: &Message<'_>,
        scheme: &Scheme,
        keys: &KeySet,
        now: UnixTime,
    ) -> Result<Reply, SignatureError> {
        let view = View::of(message);
        if let Some(place) = &self.proof.token {
            self.token(place, view, keys, now)?;
        }
        for require in &self.proof.require {
            let held = require.holds(view, &UrlForm::default(), keys, now);
            held.or(Err(invalid(
                "a value that proves the handshake is not as it should be",
            )))?;
        }
        let enrolment = self.proof.enrolment.as_ref();
        let enrolled = match enrolment {
            Some(own) => own.take(message, scheme, now)?,
            None => None,
        };
        let keeper = self.keeper.clone();
        let enrolled = enrolled.map(|secret| Enrolled { secret, keeper });
        for (place, charset) in &self.charset {
            let value = find(std::slice::from_ref(place), view).ok().flatten();
            if !value.is_some_and(|value| charset.fits(&value)) {
                return Err(invalid("a value is not of the form that may be repeated"));
            }
        }
        let secret = keys.usable(now).find_map(Key::secret_bytes);
        let fetch = self.fetch.as_ref().map(|target| target.of(message));
        Ok(Reply {
            fetch: fetch.transpose()?,
            enrolled,
            ..self.reply.make(view, secret)?
        })
    }

    /// The verify token, compared in constant time (SECURITY A-48).
    fn token(
        &self,
        place: &Location,
        view: View<'_>,
        keys: &KeySet,
        now: UnixTime,
    ) -> Result<(), SignatureError> {
        let given = find(std::slice::from_ref(place), view);
        let given = given.ok().flatten().filter(|given| !given.is_empty());
        let given = given.ok_or(invalid("the verify token is missing or stands twice"))?;
        let is_right = match &self.verify_token {
            Some(token) => same_secret(token.expose(), &given),
            None => keys.matching(&given, now).is_some(),
        };
        if is_right {
            Ok(())
        } else {
            Err(invalid("the verify token is wrong"))
        }
    }
}

impl Enrolment {
    /// The secret that the request brings; `None` while the enrolment window is closed.
    fn take(
        &self,
        message: &Message<'_>,
        scheme: &Scheme,
        now: UnixTime,
    ) -> Result<Option<Secret>, SignatureError> {
        if !self.is_open && self.is_always_answered {
            return Ok(None);
        }
        if !self.is_open {
            return Err(invalid("the enrolment window is closed"));
        }
        let value = find(std::slice::from_ref(&self.place), View::of(message));
        let value = value.ok().flatten().filter(|value| !value.is_empty());
        let value = value.ok_or(invalid("the request brings no secret"))?;
        if self.is_signed {
            let key = scheme.secret_key("enrolled".into(), &value, None);
            let keys = key.ok().and_then(|key| KeySet::new(vec![key]));
            let keys = keys.ok_or(invalid("what the request brings is not a secret"))?;
            scheme.verify(message, &keys, now)?;
        }
        Ok(Some(Secret::new(value.into_owned())))
    }
}

impl ReplyForm {
    fn make(&self, view: View<'_>, secret: Option<&[u8]>) -> Result<Reply, SignatureError> {
        const UNABLE: SignatureError = invalid("the answer cannot be made of this request");
        if self.is_signed && secret.is_none() {
            return Err(NO_SECRET);
        }
        let scope = Scope {
            secret,
            ..Scope::new(view, "")
        };
        let text = |template: &Template| {
            let bytes = template.text(&scope).or(Err(UNABLE))?;
            String::from_utf8(bytes).or(Err(UNABLE))
        };
        let (media_type, body) = match &self.body {
            BodyForm::Empty => (None, String::new()),
            BodyForm::Text(template) => (Some("text/plain"), text(template)?),
            BodyForm::Json(members) => {
                let mut object = Vec::new();
                for (name, template) in members {
                    let (name, value) =
                        (serde_json::json!(name), serde_json::json!(text(template)?));
                    object.push(format!("{name}:{value}"));
                }
                (
                    Some("application/json"),
                    format!("{{{}}}", object.join(",")),
                )
            }
        };
        let mut headers = Vec::new();
        let mut size = body.len();
        for (name, template) in &self.headers {
            let value = HeaderValue::from_str(&text(template)?).or(Err(UNABLE))?;
            size += value.len();
            headers.push((name.clone(), value));
        }
        if size > REPLY_BYTES_MAX {
            return Err(invalid("the answer would be too long"));
        }
        let has_type = headers
            .iter()
            .any(|(name, _)| *name == http::header::CONTENT_TYPE);
        if let Some(media_type) = media_type.filter(|_| !has_type) {
            headers.push((
                http::header::CONTENT_TYPE,
                HeaderValue::from_static(media_type),
            ));
        }
        Ok(Reply {
            status: self.status,
            headers,
            body: body.into_bytes(),
            fetch: None,
            enrolled: None,
        })
    }
}

impl Target {
    /// The URL, where it leads to one of the hosts.
    fn of(&self, message: &Message<'_>) -> Result<HttpsUrl, SignatureError> {
        let body = message.body.joined();
        let url = self.pointer.read(&body).ok().flatten();
        let url = url.ok_or(invalid("the URL to call is missing"))?;
        let url = HttpsUrl::parse_named(&url).ok();
        url.filter(|url| self.admits(url))
            .ok_or(invalid("the URL to call is not one of the provider's"))
    }

    fn admits(&self, url: &HttpsUrl) -> bool {
        let labels: Vec<&str> = url.host().split('.').collect();
        let is_one_of = |wanted: &Vec<String>| {
            let mut pairs = wanted.iter().zip(&labels);
            wanted.len() == labels.len()
                && pairs.all(|(wanted, own)| wanted == "*" || wanted == own)
        };
        self.hosts.iter().any(is_one_of)
    }
}

impl Answers {
    /// The fields that an answer to this proven request has. A value that is absent, or not of the
    /// form that may be repeated, gives none.
    pub fn headers(
        &self,
        message: &Message<'_>,
        keys: &KeySet,
        now: UnixTime,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let view = View::of(message);
        let fits = |(place, charset): &(Location, Charset)| {
            let value = find(std::slice::from_ref(place), view).ok().flatten();
            value.is_some_and(|value| charset.fits(&value))
        };
        if self.headers.is_empty() || !self.charset.iter().all(fits) {
            return Vec::new();
        }
        let secret = keys.usable(now).find_map(Key::secret_bytes);
        if self.is_signed && secret.is_none() {
            return Vec::new();
        }
        let scope = Scope {
            secret,
            ..Scope::new(view, "")
        };
        let field = |(name, template): &(HeaderName, Template)| {
            let value = HeaderValue::from_bytes(&template.text(&scope).ok()?).ok()?;
            Some((name.clone(), value))
        };
        self.headers.iter().filter_map(field).collect()
    }
}
