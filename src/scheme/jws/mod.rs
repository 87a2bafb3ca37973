//! Compact JSON Web Signatures (RFC 7515), as JWTs and over detached payloads.
//!
//! A token says how it is signed, and nothing of that is believed: it chooses among the algorithms
//! that the scheme pins, and a key verifies only what fits its type. Keys come from the configured
//! set; `jku`, `x5u`, `jwk` and, unless a scheme reads it, `x5c` in a header are never looked at.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Map, Value};

use super::keys::{Key, KeySet, Material};
use super::primitive::{Hash, Mac, same_tag};
use super::public_key::{PublicKey, SignatureAlgorithm};
use super::strict_json;
use super::{SignatureError, malformed};
use crate::reason::Reason;
use crate::units::UnixTime;

/// Longest header that is read, encoded: room for a certificate chain.
const MAX_HEADER: usize = 32 * 1024;
/// Longest signature that is read, encoded: RSA of 8192 bits.
const MAX_SIGNATURE: usize = 1366;

/// `alg` (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsAlgorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
}

/// What an algorithm is underneath.
enum Primitive {
    Hmac(Hash),
    Signature(SignatureAlgorithm),
}

impl JwsAlgorithm {
    /// Every one that there is; `none` is not among them.
    pub const ALL: [Self; 12] = [
        Self::EdDsa,
        Self::Es256,
        Self::Es384,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
    ];

    /// By its exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDsa); // its full name since RFC 9864
        }
        Self::ALL.into_iter().find(|own| own.name() == name)
    }

    /// Name in tokens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
        }
    }

    /// Whether a key is of its kind.
    pub fn fits(self, key: &PublicKey) -> bool {
        match self.primitive() {
            Primitive::Signature(algorithm) => key.fits(algorithm),
            Primitive::Hmac(_) => false,
        }
    }

    /// Whether both sides know the key.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }

    const fn primitive(self) -> Primitive {
        match self {
            Self::EdDsa => Primitive::Signature(SignatureAlgorithm::Ed25519),
            Self::Es256 => Primitive::Signature(SignatureAlgorithm::EcdsaP256Sha256Raw),
            Self::Es384 => Primitive::Signature(SignatureAlgorithm::EcdsaP384Sha384Raw),
            Self::Hs256 => Primitive::Hmac(Hash::Sha256),
            Self::Hs384 => Primitive::Hmac(Hash::Sha384),
            Self::Hs512 => Primitive::Hmac(Hash::Sha512),
            Self::Ps256 => Primitive::Signature(SignatureAlgorithm::RsaPssSha256),
            Self::Ps384 => Primitive::Signature(SignatureAlgorithm::RsaPssSha384),
            Self::Ps512 => Primitive::Signature(SignatureAlgorithm::RsaPssSha512),
            Self::Rs256 => Primitive::Signature(SignatureAlgorithm::RsaSha256),
            Self::Rs384 => Primitive::Signature(SignatureAlgorithm::RsaSha384),
            Self::Rs512 => Primitive::Signature(SignatureAlgorithm::RsaSha512),
        }
    }
}

/// A token that can be read. Nothing in it is trusted before [`Token::verify`].
#[derive(Clone, Debug)]
pub struct Token<'a> {
    algorithm: JwsAlgorithm,
    header: Map<String, Value>,
    /// The header as it is signed: encoded.
    encoded_header: &'a str,
    /// The payload as it is signed: encoded. Empty where it is detached.
    encoded_payload: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Reads a token: three parts in canonical base64url, a header of JSON without repeated names,
    /// with an `alg` that signs and without `crit` (no extension of it is understood).
    pub fn parse(text: &'a str) -> Result<Self, SignatureError> {
        let parts: Vec<_> = text.splitn(4, '.').collect();
        let [encoded_header, encoded_payload, encoded_signature] = *parts.as_slice() else {
            return Err(malformed("not a token of three parts"));
        };
        if encoded_header.len() > MAX_HEADER || encoded_signature.len() > MAX_SIGNATURE {
            return Err(malformed("a token with a part that is too long"));
        }
        let Some(Value::Object(header)) =
            decode(encoded_header).and_then(|bytes| strict_json::parse(&bytes))
        else {
            return Err(malformed(
                "the token's header is not base64url of a JSON object",
            ));
        };
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(malformed(
                "the token needs an extension that is not understood",
            ));
        }
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(JwsAlgorithm::from_name)
            .ok_or(malformed("the token names no algorithm that signs"))?;
        let payload =
            decode(encoded_payload).ok_or(malformed("the token's payload is not base64url"))?;
        let signature = decode(encoded_signature)
            .filter(|signature| !signature.is_empty())
            .ok_or(malformed("the token's signature is not base64url"))?;
        Ok(Self {
            algorithm,
            header,
            encoded_header,
            encoded_payload,
            payload,
            signature,
        })
    }

    /// The algorithm that the token names.
    pub fn algorithm(&self) -> JwsAlgorithm {
        self.algorithm
    }

    /// The name of the key that the token was signed with, where it says one.
    pub fn kid(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }

    /// The header's members, not trusted.
    pub fn header(&self) -> &Map<String, Value> {
        &self.header
    }

    /// The bytes of the payload. Empty where it is detached.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload as the claims of a JWT: a JSON object without repeated names.
    pub fn claims(&self) -> Result<Map<String, Value>, SignatureError> {
        match strict_json::parse(&self.payload) {
            Some(Value::Object(claims)) => Ok(claims),
            _ => Err(malformed("the token's payload is not a JSON object")),
        }
    }

    /// The certificates in the header (`x5c`), leaf first, in DER: for [`super::x5c::leaf_key`],
    /// which believes only what leads to a pinned root.
    pub fn certificates(&self) -> Result<Vec<Vec<u8>>, SignatureError> {
        let chain = self
            .header
            .get("x5c")
            .and_then(Value::as_array)
            .ok_or(malformed("the token carries no certificate chain"))?;
        chain
            .iter()
            .map(|item| BASE64.decode(item.as_str()?.as_bytes()).ok())
            .collect::<Option<_>>()
            .ok_or(malformed("the token's certificate chain is not base64"))
    }

    /// Which of `keys` signed the token, by an algorithm of `allowed`. `detached` is the payload that
    /// a token of the form `header..signature` is over (RFC 7515 appendix F), in parts.
    ///
    /// Where the token names its key, keys of other names are left out; keys without a name are not.
    pub fn verify<'k>(
        &self,
        allowed: &[JwsAlgorithm],
        keys: &'k KeySet,
        now: UnixTime,
        detached: Option<&[&[u8]]>,
    ) -> Result<&'k Key, SignatureError> {
        self.check_algorithm(allowed)?;
        let encoded = self.encode_payload(detached)?;
        let mut usable = keys.usable(now).peekable();
        if usable.peek().is_none() {
            return Err(SignatureError::new(
                Reason::KeyUnavailable,
                "every key has ended",
            ));
        }
        // Every key is tried, so that the time does not tell which one it was (SECURITY A-13).
        usable
            .filter(|key| self.may_be_by(key) && self.is_signed_by(key, &encoded))
            .fold(None, |first, key| first.or(Some(key)))
            .ok_or(MISMATCH)
    }

    /// As [`Token::verify`], by one key that was proven otherwise: the leaf of a chain.
    pub fn verify_by(
        &self,
        allowed: &[JwsAlgorithm],
        key: &PublicKey,
        detached: Option<&[&[u8]]>,
    ) -> Result<(), SignatureError> {
        self.check_algorithm(allowed)?;
        let encoded = self.encode_payload(detached)?;
        let holds = match self.algorithm.primitive() {
            Primitive::Signature(algorithm) => {
                key.verify(algorithm, &self.signed(&encoded), &self.signature)
            }
            Primitive::Hmac(_) => false,
        };
        if holds { Ok(()) } else { Err(MISMATCH) }
    }

    fn check_algorithm(&self, allowed: &[JwsAlgorithm]) -> Result<(), SignatureError> {
        if allowed.contains(&self.algorithm) {
            Ok(())
        } else {
            Err(malformed(
                "the token's algorithm is not one of the scheme's",
            ))
        }
    }

    /// The payload as it is signed.
    fn encode_payload(&self, detached: Option<&[&[u8]]>) -> Result<String, SignatureError> {
        match detached {
            None => Ok(self.encoded_payload.to_owned()),
            Some(_) if !self.encoded_payload.is_empty() => Err(malformed(
                "the token has a payload of its own, where it must have none",
            )),
            Some(parts) => Ok(encode_parts(parts)),
        }
    }

    fn signed<'s>(&'s self, encoded_payload: &'s str) -> [&'s [u8]; 3] {
        [
            self.encoded_header.as_bytes(),
            b".",
            encoded_payload.as_bytes(),
        ]
    }

    /// Whether the names of token and key let it be this key.
    fn may_be_by(&self, key: &Key) -> bool {
        let named = key.public_key().and_then(PublicKey::kid);
        match (named, self.kid()) {
            (Some(named), Some(kid)) => named == kid,
            (None, _) | (_, None) => true,
        }
    }

    fn is_signed_by(&self, key: &Key, encoded_payload: &str) -> bool {
        let content = self.signed(encoded_payload);
        match (self.algorithm.primitive(), &key.material) {
            (Primitive::Hmac(hash), Material::Secret(secret)) => {
                same_tag(&tag(hash, secret.expose(), &content), &self.signature)
            }
            (Primitive::Signature(algorithm), Material::Public(_) | Material::Private(_)) => key
                .public_key()
                .is_some_and(|key| key.verify(algorithm, &content, &self.signature)),
            (Primitive::Hmac(_), Material::Public(_) | Material::Private(_) | Material::None)
            | (Primitive::Signature(_), Material::Secret(_) | Material::None) => false,
        }
    }
}

/// Whether a token is over its own payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `header.payload.signature`.
    Attached,
    /// `header..signature`.
    Detached,
}

/// A token over `payload`, by a key that fits `algorithm`. `header` holds what shall stand there
/// beside `alg`, such as `typ` and `kid`.
pub fn sign(
    algorithm: JwsAlgorithm,
    header: &Map<String, Value>,
    payload: &[u8],
    form: Form,
    key: &Key,
) -> Result<String, String> {
    let mut members = header.clone();
    members.insert("alg".to_owned(), algorithm.name().into());
    let header = BASE64URL_NOPAD.encode(Value::Object(members).to_string().as_bytes());
    let payload = BASE64URL_NOPAD.encode(payload);
    let content = [header.as_bytes(), b".", payload.as_bytes()];
    let signature = match (algorithm.primitive(), &key.material) {
        (Primitive::Hmac(hash), Material::Secret(secret)) => tag(hash, secret.expose(), &content),
        (Primitive::Signature(algorithm), Material::Private(key)) => {
            key.sign(algorithm, &content)?
        }
        (Primitive::Hmac(_), Material::Public(_) | Material::Private(_) | Material::None) => {
            return Err(format!("{} signs with a secret", algorithm.name()));
        }
        (Primitive::Signature(_), Material::Secret(_) | Material::Public(_) | Material::None) => {
            return Err(format!("{} signs with a private key", algorithm.name()));
        }
    };
    let signature = BASE64URL_NOPAD.encode(&signature);
    Ok(match form {
        Form::Attached => format!("{header}.{payload}.{signature}"),
        Form::Detached => format!("{header}..{signature}"),
    })
}

const MISMATCH: SignatureError =
    SignatureError::new(Reason::SignatureMismatch, "no key verifies the token");

/// Canonical base64url without padding; no other spelling counts (SECURITY A-14).
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

/// base64url over parts, as if they were one.
fn encode_parts(parts: &[&[u8]]) -> String {
    let alphabet = BASE64URL_NOPAD;
    let mut encoded = String::new();
    let mut writer = alphabet.new_encoder(&mut encoded);
    for part in parts {
        writer.append(part);
    }
    writer.finalize();
    encoded
}

fn tag(hash: Hash, secret: &[u8], content: &[&[u8]]) -> Vec<u8> {
    let mut mac = Mac::new(hash, secret);
    for part in content {
        mac.update(part);
    }
    mac.finish().into_vec()
}

#[cfg(test)]
mod tests;
