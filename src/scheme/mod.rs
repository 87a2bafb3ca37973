//! The signature engine: data in, verdict out.
//!
//! A [`Scheme`] is compiled from the preset language (`docs/presets.md`): what is signed, where the
//! signature stands, how it is written. The gateway, `verify`, `sign` and the hints all run this one
//! interpreter. It knows no provider by name, reads no clock and does no I/O.
//!
//! | to learn | read |
//! |---|---|
//! | what a request is | `message.rs` |
//! | what a preset may say | `spec.rs`; from file to [`Scheme`]: `catalog.rs`, `compile/` |
//! | how a request is judged | `verify/`, then `require.rs`, `timestamp.rs`, `jwt.rs` |
//! | where values are read | `locate.rs`, `parse.rs`, `multipart.rs` |
//! | what is signed | `template/`, `fields.rs`, `url_form.rs`, `when.rs`; what that covers: `coverage.rs` |
//! | what makes two deliveries the same | `delivery.rs` |
//! | keys, and where they are published | `keys.rs`, `public_key/`, `key_source.rs`, `published.rs` |
//! | protocols that are code | `aws_sns/`, `http_signature/`, `jws/`, `x5c/` |
//! | URL validations | `handshake/` |
//! | the inverse, and why a signature fails | `sign/`, `hints/`, `trace.rs` |
//! | the cryptography | `primitive/`, the only door to it |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use smallvec::SmallVec;

use crate::problem::Problem;
use crate::reason::Reason;
use crate::units::UnixTime;

pub mod aws_sns;
pub mod catalog;
mod charset;
mod compile;
mod coverage;
mod delivery;
mod fields;
mod gzip;
pub mod handshake;
pub mod hints;
pub mod http_signature;
pub mod https_url;
pub mod jws;
mod jwt;
mod key_source;
pub mod keys;
mod locate;
mod message;
mod multipart;
mod parse;
mod primitive;
pub mod protocol;
pub mod public_key;
pub mod published;
mod require;
pub mod sign;
pub mod spec;
mod strict_json;
mod structured;
mod template;
mod timestamp;
pub mod trace;
mod url_form;
mod verify;
mod when;
#[cfg(test)]
mod wycheproof;
pub mod x5c;

use aws_sns::AwsSns;
use charset::Charset;
pub use compile::Around;
use coverage::Loose;
pub use delivery::DeliveryNames;
use delivery::Identity;
use http_signature::HttpSignature;
use jwt::{ClaimPath, Jwt};
use key_source::KeySource;
use locate::{Location, Pointer};
pub use message::{Content, Message, SenderUrl};
use parse::{SecretForm, SignatureForm};
pub use primitive::digest;
use primitive::{Digest, Hash, Tag};
use public_key::{PrivateKey, PublicKey, SignatureAlgorithm};
use spec::{SchemeSpec, SecretEncoding, TimeUnit};
use template::Template;
use when::When;

/// What a preset asks for beside secrets, by name: texts, numbers, booleans or lists.
pub type Params = BTreeMap<String, serde_json::Value>;

/// Which kind of key a scheme verifies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// None: the provider proves nothing.
    None,
    /// `public_keys` (or `jwks_url`).
    Public,
    /// `secrets`.
    Secret,
}

/// What a verified signature proves.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Which key verified it; `None` where the scheme needs none.
    pub key_id: Option<Arc<str>>,
    /// The provider's id of the event, signed or not: for logs and `X-Hookward-Event-Id`.
    pub event_id: Option<Arc<str>>,
    /// The scheme's timestamp.
    pub signed_at: Option<UnixTime>,
    /// What of the scheme's contents was signed; of each item where they are signed one by one.
    signed: SmallVec<[SignedContent; 1]>,
    /// The HMAC of the content under each key that counts, where that is what the content is known by.
    tags: SmallVec<[Tag; 1]>,
}

/// One of the contents of a scheme, in one of the spellings of the URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SignedContent {
    content: usize,
    url: usize,
}

/// How far a timestamp may lie from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Into the past.
    pub past: Duration,
    /// Into the future.
    pub future: Duration,
}

/// Why a scheme refuses a request. `detail` is constant text for logs and `verify`, without any
/// byte of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct SignatureError {
    /// Row of the reason table.
    pub reason: Reason,
    /// What exactly was found.
    pub detail: &'static str,
}

/// A compiled scheme: nothing in it is left to interpret.
#[derive(Clone, Debug)]
pub struct Scheme {
    proof: Proof,
    signature: Option<SignatureForm>,
    timestamp: Option<Timestamp>,
    id: Vec<Location>,
    id_form: IdForm,
    /// What a handshake of the preset signs for anybody who asks.
    challenges: Vec<Charset>,
    event_id: Vec<Location>,
    event_id_claim: Option<ClaimPath>,
    /// What may have been signed: mostly one; each is a list of parts.
    contents: Vec<Vec<Part>>,
    url: UrlForm,
    /// Whether a content depends on how the URL is written.
    signs_url: bool,
    require: Vec<Require>,
    body_digest: Option<String>,
    json_from: Vec<Location>,
    each: Option<Pointer>,
    body_decoded: bool,
    secret: SecretForm,
    key_source: Option<KeySource>,
    identity: Identity,
    loose: Loose,
}

/// How a signature proves its sender.
#[derive(Clone, Debug)]
enum Proof {
    /// The protocol of Amazon SNS.
    AwsSns(AwsSns),
    /// `Authorization: Basic`, the secret itself.
    Basic,
    /// A plain hash over content that holds the secret.
    Digest(Digest),
    /// HTTP Message Signatures.
    HttpSignature(Box<HttpSignature>),
    /// A JSON Web Token.
    Jwt(Box<Jwt>),
    /// An HMAC over the content.
    Mac(Hash),
    /// Not at all.
    None,
    /// A signature by a private key over the content.
    Public(SignatureAlgorithm),
    /// The secret itself.
    Token,
}

/// A part of the signed content.
#[derive(Clone, Debug)]
struct Part {
    text: Template,
    when: When,
}

/// The scheme's timestamp.
#[derive(Clone, Debug)]
struct Timestamp {
    places: Vec<Location>,
    unit: TimeUnit,
    optional: bool,
    /// `None` where the signature does not cover it.
    tolerance: Option<Tolerance>,
}

/// How `{url}` is written.
#[derive(Clone, Debug, Default)]
struct UrlForm {
    with_default_port: bool,
    without_port: bool,
    without_root_path: bool,
    decode: Vec<u8>,
    instead: Option<Template>,
}

/// What an id looks like that stands in signed content.
#[derive(Clone, Debug, Default)]
struct IdForm {
    /// A text that it must not contain.
    without: Option<String>,
    charset: Option<Charset>,
}

impl IdForm {
    fn holds(&self, id: &[u8]) -> bool {
        let contains = |text: &str| {
            text.is_empty() || id.windows(text.len()).any(|own| own == text.as_bytes())
        };
        !self.without.as_deref().is_some_and(contains)
            && self.charset.as_ref().is_none_or(|own| own.fits(id))
    }

    /// Whether the form says where the id ends.
    fn is_delimited(&self) -> bool {
        self.without.is_some() || self.charset.is_some()
    }
}

/// A value that must hold before the signature counts.
#[derive(Clone, Debug)]
struct Require {
    place: Location,
    base64_json: Option<Pointer>,
    item: Option<String>,
    separator: String,
    equals: Vec<Template>,
    /// Whether every secret of the check is a right value.
    secret: bool,
    contains: Vec<String>,
    /// A pointer with `*`: every value that it finds must hold.
    each: Option<Pointer>,
    optional: bool,
}

/// A refusal of what cannot be read, or is not as it must be.
const fn malformed(detail: &'static str) -> SignatureError {
    SignatureError::new(Reason::SignatureMalformed, detail)
}

impl SignatureError {
    const fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }
}

impl Tolerance {
    /// Inclusive at the limit, both ways (SECURITY A-17). The details say what was found stale or ahead.
    fn judge(
        self,
        time: UnixTime,
        now: UnixTime,
        stale: &'static str,
        ahead: &'static str,
    ) -> Result<(), SignatureError> {
        let millis = |limit: Duration| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let age = now.millis_since(time);
        let (reason, detail) = if age > millis(self.past) {
            (Reason::TimestampStale, stale)
        } else if age < millis(self.future).saturating_neg() {
            (Reason::TimestampAhead, ahead)
        } else {
            return Ok(());
        };
        Err(SignatureError::new(reason, detail))
    }
}

impl Scheme {
    /// Compiles a scheme that an operator wrote into a configuration, where `around` says.
    pub fn compile(
        spec: &SchemeSpec,
        tolerance: Option<Duration>,
        around: Around<'_>,
    ) -> Result<Self, Vec<Problem>> {
        compile::compile(spec, &Params::new(), tolerance, around)
    }

    /// The tolerance of its timestamp, when it has one and the signature covers it.
    pub fn signed_tolerance(&self) -> Option<Tolerance> {
        match &self.proof {
            Proof::AwsSns(sns) => Some(sns.tolerance),
            Proof::HttpSignature(own) => Some(own.tolerance),
            Proof::Jwt(jwt) if self.covers_body() => jwt.tolerance(),
            _ => self.timestamp.as_ref()?.tolerance,
        }
    }

    /// Whether it is a token that several events may carry.
    pub fn is_shared_token(&self) -> bool {
        let is_token = matches!(self.proof, Proof::Jwt(_));
        is_token && !self.covers_body() && self.event_id_claim.is_none()
    }

    /// Which kind of key it verifies with.
    pub fn key_kind(&self) -> KeyKind {
        match &self.proof {
            Proof::None => KeyKind::None,
            Proof::Jwt(jwt) if !jwt.algorithms.iter().all(|own| own.is_symmetric()) => {
                KeyKind::Public
            }
            Proof::AwsSns(_) | Proof::Public(_) => KeyKind::Public,
            Proof::HttpSignature(own) if !own.takes_secret() => KeyKind::Public,
            Proof::Basic
            | Proof::Digest(_)
            | Proof::HttpSignature(_)
            | Proof::Jwt(_)
            | Proof::Mac(_)
            | Proof::Token => KeyKind::Secret,
        }
    }

    /// A configured secret, decoded as this scheme wants it. The message never repeats the secret.
    pub fn secret_key(
        &self,
        id: Arc<str>,
        written: &[u8],
        not_after: Option<UnixTime>,
    ) -> Result<keys::Key, String> {
        let secret = match &self.proof {
            Proof::HttpSignature(own) => own.secret(written)?,
            _ => crate::secret::Secret::new(self.secret.decode(written)?),
        };
        let mut key = keys::Key::secret(id, secret, not_after);
        if let Proof::Mac(hash) = self.proof {
            key.prepare(hash);
        }
        Ok(key)
    }

    /// Public keys as written: PEM (key or certificate), base64 DER, raw hex or base64 Ed25519,
    /// `whpk_...`, a JWK or a JWKS. Those that cannot verify this scheme are refused.
    pub fn public_keys(
        &self,
        id: &Arc<str>,
        written: &[u8],
        not_after: Option<UnixTime>,
    ) -> Result<Vec<keys::Key>, String> {
        let parsed = PublicKey::parse_all(written)?;
        let several = parsed.len() > 1;
        let mut keys = Vec::new();
        for key in parsed.into_iter().filter(|key| self.fits(key)) {
            let id = match key.kid() {
                Some(kid) if several => format!("{id}/{kid}").into(),
                _ => Arc::clone(id),
            };
            keys.push(keys::Key::public(id, key, not_after));
        }
        if keys.is_empty() {
            return Err("the key is of a kind that this scheme does not verify with".to_owned());
        }
        Ok(keys)
    }

    /// A private key, for `sign`: PKCS #8 in PEM.
    pub fn private_key(&self, id: Arc<str>, written: &[u8]) -> Result<keys::Key, String> {
        let key = PrivateKey::parse(written)?;
        if self.fits(key.public()) {
            Ok(keys::Key::private(id, key))
        } else {
            Err("the key is of a kind that this scheme does not sign with".to_owned())
        }
    }

    fn fits(&self, key: &PublicKey) -> bool {
        match &self.proof {
            Proof::AwsSns(_) => key.fits(SignatureAlgorithm::RsaSha256),
            Proof::HttpSignature(_) => true,
            Proof::Public(algorithm) => key.fits(*algorithm),
            Proof::Jwt(jwt) => jwt.x5c.is_some() || jwt.algorithms.iter().any(|own| own.fits(key)),
            Proof::Basic | Proof::Digest(_) | Proof::Mac(_) | Proof::None | Proof::Token => false,
        }
    }

    /// Whether it takes secrets beside public keys, for values that the request must carry.
    pub fn takes_secrets_too(&self) -> bool {
        self.key_kind() == KeyKind::Public && self.require.iter().any(|require| require.secret)
    }

    /// How a secret of this scheme is written.
    pub fn secret_encoding(&self) -> SecretEncoding {
        self.secret.encoding
    }

    /// Whether it is signed: replays can be told from fresh deliveries.
    pub fn is_signed(&self) -> bool {
        let by_itself = matches!(
            self.proof,
            Proof::AwsSns(_) | Proof::HttpSignature(_) | Proof::Jwt(_)
        );
        by_itself || !self.contents.is_empty()
    }

    /// Names of the header fields it reads, which must reach it and the upstream unchanged.
    pub fn header_names(&self) -> Vec<HeaderName> {
        let mut names = Vec::new();
        let mut add = |places: &[Location]| {
            names.extend(places.iter().filter_map(|place| match place {
                Location::Header(name) => Some(name.clone()),
                _ => None,
            }));
        };
        if let Some(signature) = &self.signature {
            add(&signature.places);
        }
        if let Some(timestamp) = &self.timestamp {
            add(&timestamp.places);
        }
        add(&self.id);
        add(&self.event_id);
        for require in &self.require {
            add(std::slice::from_ref(&require.place));
        }
        for part in self.contents.iter().flatten() {
            part.text.headers(&mut names);
            names.extend(part.when.headers().cloned());
        }
        match &self.proof {
            Proof::Basic => names.push(http::header::AUTHORIZATION),
            Proof::HttpSignature(own) => names.extend(own.header_names()),
            _ => {}
        }
        names
    }

    /// Header fields that hold bare secrets.
    pub fn secret_header_fields(&self) -> Vec<HeaderName> {
        let places = self
            .signature
            .iter()
            .filter(|_| self.is_bare_secret())
            .flat_map(|signature| &signature.places);
        let mut names: Vec<HeaderName> = places
            .filter_map(|place| match place {
                Location::Header(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        if matches!(self.proof, Proof::Basic) {
            names.push(http::header::AUTHORIZATION);
        }
        names
    }

    /// Query fields that hold bare secrets.
    pub fn secret_query_fields(&self) -> Vec<Arc<str>> {
        if !self.is_bare_secret() {
            return Vec::new();
        }
        let places = self
            .signature
            .iter()
            .flat_map(|signature| &signature.places);
        places
            .filter_map(|place| match place {
                Location::Query(name) => Some(Arc::from(&**name)),
                _ => None,
            })
            .collect()
    }

    /// Scheme of `WWW-Authenticate`: `Signature`, `Bearer` or `Basic`.
    pub fn challenge(&self) -> &'static str {
        match &self.proof {
            Proof::Basic => "Basic",
            Proof::Jwt(_) | Proof::Token => "Bearer",
            Proof::AwsSns(_)
            | Proof::Digest(_)
            | Proof::HttpSignature(_)
            | Proof::Mac(_)
            | Proof::None
            | Proof::Public(_) => "Signature",
        }
    }

    /// Whether it asks its sender for any proof.
    pub fn proves_anything(&self) -> bool {
        !matches!(self.proof, Proof::None)
    }

    /// Whether any request at all would satisfy it.
    pub fn admits_everybody(&self) -> bool {
        !self.proves_anything() && self.require.is_empty()
    }

    /// Whether it carries the secret itself, which must be removed before a request is forwarded.
    pub fn is_bare_secret(&self) -> bool {
        matches!(self.proof, Proof::Basic | Proof::Token)
    }

    /// What this scheme leaves open, each with the check that makes up for it.
    pub fn weaknesses(&self) -> Vec<&'static str> {
        let mut weaknesses = Vec::new();
        match &self.proof {
            Proof::None => weaknesses.push(
                "the provider proves nothing; add a `token` in the URL or `allow_ips`",
            ),
            Proof::Basic | Proof::Token => weaknesses.push(
                "the secret is sent as it is and the body is not covered; add `allow_ips` where the \
                 provider publishes its addresses",
            ),
            Proof::AwsSns(_) => {}
            Proof::Digest(_)
            | Proof::HttpSignature(_)
            | Proof::Jwt(_)
            | Proof::Mac(_)
            | Proof::Public(_) => {
                if !self.covers_body() {
                    weaknesses.push(
                        "the signature does not cover the body; add a `token` in the URL or \
                         `allow_ips`",
                    );
                }
                if self.timestamp.as_ref().is_some_and(|own| own.tolerance.is_none()) {
                    weaknesses.push(
                        "the timestamp is not signed, so a captured request stays good; set `replay`",
                    );
                }
            }
        }
        weaknesses
    }
}
