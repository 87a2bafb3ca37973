//! What a request must prove: a tree of checks. An open route is written out, never an empty list.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use crate::scheme::Scheme;
use crate::scheme::handshake::{Answers, Handshake};
use crate::scheme::https_url::KeyUrl;
use crate::scheme::keys::KeySet;
use crate::secret::Secret;
use crate::units::UnixTime;

/// The `verify` list of a route.
#[derive(Debug)]
pub enum AuthPolicy {
    /// Every check must hold. Never empty.
    All(Box<[Check]>),
    /// `verify: none`, written out by the operator.
    Open,
}

/// One item of a `verify` list.
#[derive(Debug)]
pub enum Check {
    /// One of these must hold. Never empty, never nested.
    Any(Vec<Self>),
    /// `Authorization: Basic`.
    Basic(BasicCheck),
    /// A client certificate.
    ClientCert(ClientCertCheck),
    /// A signature by a preset or a scheme of the operator's own.
    Signature(SignatureCheck),
    /// A static token.
    Token(TokenCheck),
}

/// How a 401 says what would let the request in (RFC 9110 11.6.1). It is written at load, so that a flood of
/// refusals costs little.
pub type Challenge = Arc<(HeaderName, HeaderValue)>;

/// The `WWW-Authenticate` of a scheme of authentication.
pub fn challenge(scheme: &'static str, realm: &str) -> Challenge {
    let realm = realm.replace(['"', '\\'], "");
    // One that is not ASCII is left out, as no two readers agree on its meaning.
    let value = Some(format!("{scheme} realm=\"{realm}\""))
        .filter(|value| value.is_ascii())
        .and_then(|value| HeaderValue::from_maybe_shared(Bytes::from(value)).ok())
        .unwrap_or(HeaderValue::from_static(scheme));
    Arc::new((header::WWW_AUTHENTICATE, value))
}

/// A token in query, header, bearer or path.
#[derive(Debug)]
pub struct TokenCheck {
    /// What a 401 asks for.
    pub challenge: Challenge,
    /// Where it stands.
    pub location: TokenLocation,
    /// Which values are right.
    pub keys: KeySet,
}

/// Where a token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenLocation {
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// A header of its own.
    Header(HeaderName),
    /// A `{name}` segment of the route's path.
    Path(Arc<str>),
    /// A query field, by its decoded name.
    Query(Arc<str>),
}

/// Users and their passwords.
#[derive(Debug)]
pub struct BasicCheck {
    /// What a 401 asks for, with the realm.
    pub challenge: Challenge,
    /// Known users. Never empty; names are unique.
    pub users: Vec<BasicUser>,
}

/// One user.
#[derive(Debug)]
pub struct BasicUser {
    /// User name; also the key id.
    pub name: Arc<str>,
    /// What the password is compared with.
    pub password: Password,
}

/// What a Basic password is compared with.
#[derive(Debug)]
pub enum Password {
    /// An Argon2id PHC string, checked for syntax and cost at load.
    Argon2(String),
    /// A bcrypt hash, as htpasswd writes them.
    Bcrypt(String),
    /// The password itself.
    Plain(Secret),
}

/// Client certificate names.
#[derive(Debug)]
pub struct ClientCertCheck {
    /// What a 401 asks for.
    pub challenge: Challenge,
    /// DNS names, IP addresses, e-mail addresses or URIs of which the certificate must carry one.
    pub san: Vec<String>,
}

/// A signature and the keys that may have made it.
#[derive(Debug)]
pub struct SignatureCheck {
    /// What a 401 asks for.
    pub challenge: Challenge,
    /// Preset name, without the scheme; `None` for a `scheme:` of the operator's own.
    pub provider: Option<Arc<Provider>>,
    /// What is signed and how.
    pub scheme: Arc<Scheme>,
    /// Which keys may have signed, of those that are configured.
    pub keys: KeySet,
    /// Where further keys are published.
    pub published: Option<Published>,
    /// How the provider asks whether the URL is ours.
    pub handshakes: Arc<[Handshake]>,
    /// What the provider wants to read in answers.
    pub answers: Arc<Answers>,
}

/// Who signs, by the name of the preset, as logs and forwarded requests have it.
#[derive(Debug)]
pub struct Provider {
    name: Arc<str>,
    /// Value of `X-Hookward-Provider`.
    pub value: HeaderValue,
    /// How `X-Hookward-Verified` names its signatures.
    pub label: HeaderValue,
}

impl Provider {
    /// The provider of a preset. `None` for a name that no header field can hold: presets have none.
    pub fn new(name: Arc<str>) -> Option<Self> {
        let value = HeaderValue::from_str(&name).ok()?;
        let label = HeaderValue::from_str(&format!("provider:{name}")).ok()?;
        Some(Self { name, value, label })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where keys are published.
#[derive(Debug)]
pub enum Published {
    /// At a URL that the operator wrote.
    At(KeyUrl),
    /// Where the provider of the scheme says.
    ByProvider,
}

impl SignatureCheck {
    /// Whether it verifies only with keys that have to be fetched: none is pinned.
    pub fn needs_fetch(&self) -> bool {
        self.published.is_some() && !self.keys.has_public()
    }

    /// How `X-Hookward-Verified` names this check.
    pub fn label(&self) -> HeaderValue {
        let provider = self.provider.as_ref();
        provider.map_or(HeaderValue::from_static("scheme"), |own| own.label.clone())
    }
}

impl Check {
    /// Whether it is this signature, or offers it as a choice.
    pub fn holds(&self, signature: &SignatureCheck) -> bool {
        match self {
            Self::Any(choices) => choices.iter().any(|choice| choice.holds(signature)),
            Self::Signature(own) => std::ptr::eq(own, signature),
            Self::Basic(_) | Self::ClientCert(_) | Self::Token(_) => false,
        }
    }

    /// What a 401 asks for; nothing of its own where there is a choice.
    pub fn challenge(&self) -> Option<&Challenge> {
        match self {
            Self::Any(_) => None,
            Self::Basic(check) => Some(&check.challenge),
            Self::ClientCert(check) => Some(&check.challenge),
            Self::Signature(check) => Some(&check.challenge),
            Self::Token(check) => Some(&check.challenge),
        }
    }

    /// How `X-Hookward-Verified` names this check.
    pub fn label(&self) -> HeaderValue {
        match self {
            Self::Any(_) => HeaderValue::from_static("any"),
            Self::Basic(_) => HeaderValue::from_static("basic"),
            Self::ClientCert(_) => HeaderValue::from_static("client_cert"),
            Self::Signature(check) => check.label(),
            Self::Token(_) => HeaderValue::from_static("token"),
        }
    }
}

impl AuthPolicy {
    /// Every check that is not itself a choice, in the order of the file.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        let checks = match self {
            Self::All(checks) => &**checks,
            Self::Open => &[],
        };
        checks.iter().flat_map(|check| match check {
            Check::Any(choices) => choices.as_slice(),
            check => std::slice::from_ref(check),
        })
    }

    /// Every signature that it may ask for, in the order of the file.
    pub fn signatures(&self) -> impl Iterator<Item = &SignatureCheck> {
        self.checks().filter_map(|check| match check {
            Check::Signature(check) => Some(check),
            Check::Any(_) | Check::Basic(_) | Check::ClientCert(_) | Check::Token(_) => None,
        })
    }

    /// Where keys are published that are the same for all requests: what can be fetched ahead.
    pub fn key_urls(&self) -> impl Iterator<Item = &KeyUrl> {
        self.signatures()
            .filter_map(|check| match &check.published {
                Some(Published::At(url)) => Some(url),
                Some(Published::ByProvider) => check.scheme.fixed_key_url(),
                None => None,
            })
    }

    /// Whether judging a body takes many times as long as hashing it.
    pub fn is_dear(&self) -> bool {
        self.signatures().any(|check| check.scheme.is_dear())
    }

    /// Whether a token of it stands in the path.
    pub fn takes_path_tokens(&self) -> bool {
        self.checks().any(|check| match check {
            Check::Token(token) => matches!(token.location, TokenLocation::Path(_)),
            _ => false,
        })
    }

    /// Whether a secret of it stands in the URL: in the path or in the query.
    pub fn takes_secrets_in_url(&self) -> bool {
        self.takes_path_tokens()
            || self.checks().any(|check| match check {
                Check::Token(token) => matches!(token.location, TokenLocation::Query(_)),
                Check::Signature(check) => !check.scheme.secret_query_fields().is_empty(),
                _ => false,
            })
    }

    /// The keys that end, and when.
    pub fn key_ends(&self) -> Vec<(Arc<str>, UnixTime)> {
        let mut ends = Vec::new();
        for check in self.checks() {
            let keys = match check {
                Check::Signature(check) => &check.keys,
                Check::Token(check) => &check.keys,
                Check::Any(_) | Check::Basic(_) | Check::ClientCert(_) => continue,
            };
            let given = keys.given();
            ends.extend(given.filter_map(|key| Some((Arc::clone(&key.id), key.not_after?))));
        }
        ends
    }

    /// Ids of every configured key, for the metric that shows which are in use.
    pub fn key_ids(&self) -> Vec<Arc<str>> {
        let mut ids = Vec::new();
        for check in self.checks() {
            match check {
                Check::Any(_) | Check::ClientCert(_) => {}
                Check::Basic(basic) => ids.extend(basic.users.iter().map(|u| Arc::clone(&u.name))),
                // What is fetched has names of its own, and what proves nothing has no key.
                Check::Signature(check)
                    if check.needs_fetch() || !check.scheme.proves_anything() => {}
                Check::Signature(check) => ids.extend(check.keys.ids()),
                Check::Token(check) => ids.extend(check.keys.ids()),
            }
        }
        ids
    }
}
