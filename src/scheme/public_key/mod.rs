//! Public and private keys, as people and providers write them.
//!
//! | written | read as |
//! |---|---|
//! | PEM `PUBLIC KEY`, `RSA PUBLIC KEY`, `CERTIFICATE`, several blocks, also on one line | each block |
//! | base64 of one of these in DER, or the DER itself | one key |
//! | 32 bytes in hex or base64, `whpk_` and base64 | Ed25519 |
//! | a JWK or a JWKS | each key that signs |

use std::fmt;
use std::sync::Arc;

use data_encoding::{
    BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE,
};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::primitive::{self, Certificate, SigningKey, VerifyingKey};
pub use super::primitive::{KeyType, SignatureAlgorithm};
use crate::units::UnixTime;

/// Most keys in one text: a JWKS of 64 KiB holds about as many.
const MAX_KEYS: usize = 128;

/// A key to verify with. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey(Arc<Parts>);

struct Parts {
    key: VerifyingKey,
    /// Name that the provider gave it.
    kid: Option<String>,
    /// The algorithms that its JWK binds it to; `None` is every one that fits its type.
    only: Option<&'static [SignatureAlgorithm]>,
    certificate: Option<Certificate>,
}

/// A key to sign with. Cheap to clone.
#[derive(Clone)]
pub struct PrivateKey(Arc<Pair>);

struct Pair {
    signing: SigningKey,
    public: PublicKey,
}

impl PublicKey {
    /// Every key of a text. A JWKS may hold keys for other uses, which are left out; anything else
    /// that cannot be used is an error, and so is a text without a key.
    pub fn parse_all(written: &[u8]) -> Result<Vec<Self>, String> {
        let keys = read_all(written)?;
        if keys.len() > MAX_KEYS {
            return Err(format!("more than {MAX_KEYS} keys"));
        }
        Ok(keys)
    }

    /// From a DER certificate, whose facts it keeps.
    pub fn from_certificate(der: &[u8]) -> Result<Self, String> {
        let certificate = Certificate::parse(der)?;
        let key = VerifyingKey::from_spki(&certificate.spki)?;
        Ok(Self(Arc::new(Parts {
            key,
            kid: None,
            only: None,
            certificate: Some(certificate),
        })))
    }

    fn new(key: VerifyingKey) -> Self {
        Self::named(key, None, None)
    }

    fn named(
        key: VerifyingKey,
        kid: Option<String>,
        only: Option<&'static [SignatureAlgorithm]>,
    ) -> Self {
        Self(Arc::new(Parts {
            key,
            kid,
            only,
            certificate: None,
        }))
    }

    /// Name that the provider gave it: a JWK's `kid`.
    pub fn kid(&self) -> Option<&str> {
        self.0.kid.as_deref()
    }

    /// What it is a point or a modulus of.
    pub fn key_type(&self) -> KeyType {
        self.0.key.key_type()
    }

    /// Whether it may verify `algorithm`: by its type, and by what its JWK says.
    pub fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        self.0.key.fits(algorithm) && self.0.only.is_none_or(|only| only.contains(&algorithm))
    }

    /// Whether `signature` is one of `content` (in parts) by this key; `false` when the key does not
    /// fit the algorithm.
    pub fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        content: &[&[u8]],
        signature: &[u8],
    ) -> bool {
        self.fits(algorithm) && self.0.key.verify(algorithm, content, signature)
    }

    /// Whether one of `signatures` is.
    pub(super) fn verify_any<'s>(
        &self,
        algorithm: SignatureAlgorithm,
        content: &[&[u8]],
        signatures: impl Iterator<Item = &'s [u8]>,
    ) -> bool {
        self.fits(algorithm) && self.0.key.verify_any(algorithm, content, signatures)
    }

    /// Name where nobody gave one: the provider's, where it is short and plain, else the start of
    /// the key's SHA-256. Fit for logs, metric labels and header fields.
    pub fn default_id(&self) -> String {
        let is_plain = |kid: &&str| {
            (1..=64).contains(&kid.len())
                && kid
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        self.kid().filter(is_plain).map_or_else(
            || HEXLOWER.encode(self.fingerprint().first_chunk::<8>().unwrap_or(&[0; 8])),
            str::to_owned,
        )
    }

    /// SHA-256 of the key as `SubjectPublicKeyInfo`: the same however it was written.
    pub fn fingerprint(&self) -> [u8; 32] {
        primitive::digest(&[self.0.key.spki()])
    }

    /// The key as DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> &[u8] {
        self.0.key.spki()
    }

    /// First and last moment of the certificate it came in.
    pub fn validity(&self) -> Option<(UnixTime, UnixTime)> {
        let certificate = self.0.certificate.as_ref()?;
        Some((certificate.not_before, certificate.not_after))
    }

    /// DNS names of the certificate it came in.
    pub fn names(&self) -> &[String] {
        self.0
            .certificate
            .as_ref()
            .map_or(&[], |certificate| &certificate.names)
    }

    /// The certificate it came in.
    pub(super) fn certificate(&self) -> Option<&Certificate> {
        self.0.certificate.as_ref()
    }
}

impl PartialEq for PublicKey {
    /// The same key, whatever it was written as and called.
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_type().name(), self.default_id())
    }
}

/// Why there is no signature by RSA with SHA-1.
pub(super) const SHA1_IS_NOT_SIGNED: &str =
    "RSA with SHA-1 is verified for old senders, but never signed";

impl PrivateKey {
    /// From PEM (PKCS #8, `RSA PRIVATE KEY`, `EC PRIVATE KEY`), the same as base64 DER or DER, or an
    /// Ed25519 seed in hex, in base64 or after `whsk_`. The message never repeats the key.
    pub fn parse(written: &[u8]) -> Result<Self, String> {
        let signing = read_private(written)?;
        let public = PublicKey::new(signing.verifying_key()?);
        Ok(Self(Arc::new(Pair { signing, public })))
    }

    /// The half to verify with.
    pub fn public(&self) -> &PublicKey {
        &self.0.public
    }

    /// A signature of `content` (in parts).
    pub fn sign(
        &self,
        algorithm: SignatureAlgorithm,
        content: &[&[u8]],
    ) -> Result<Vec<u8>, String> {
        if algorithm == SignatureAlgorithm::RsaSha1 {
            return Err(SHA1_IS_NOT_SIGNED.to_owned());
        }
        self.0.signing.sign(algorithm, content).ok_or_else(|| {
            let (has, wants) = (self.0.public.key_type(), algorithm.key_type());
            format!(
                "the scheme signs with {} keys, and this is an {} key",
                wants.name(),
                has.name()
            )
        })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[redacted], public {:?}", self.0.public)
    }
}

/// Reads public keys in whichever form they are written.
fn read_all(written: &[u8]) -> Result<Vec<PublicKey>, String> {
    let Ok(text) = std::str::from_utf8(written) else {
        return Ok(vec![from_der(written)?]);
    };
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err("no key".to_owned());
    }
    if text.contains("-----BEGIN") {
        let keys: Vec<_> = pem_blocks(text)?
            .iter()
            .map(|block| from_pem(block))
            .collect::<Result<_, _>>()?;
        return Ok(keys);
    }
    if text.starts_with('{') {
        return from_jwk_text(text);
    }
    if let Some(encoded) = text.strip_prefix("whpk_") {
        let point = bytes_of(encoded).ok_or("no base64 after `whpk_`")?;
        return Ok(vec![PublicKey::new(VerifyingKey::from_ed25519(&point)?)]);
    }
    if text.starts_with("whsk_") {
        return Err(private_in_place_of_public());
    }
    let bytes = bytes_of(text).ok_or(
        "neither PEM, base64, hex, a JWK nor a JWKS; write one of these forms of a public key",
    )?;
    Ok(vec![match bytes.len() {
        32 => PublicKey::new(VerifyingKey::from_ed25519(&bytes)?),
        _ => from_der(&bytes)?,
    }])
}

/// A key or certificate in DER: each has another shape.
fn from_der(der: &[u8]) -> Result<PublicKey, String> {
    let error = match VerifyingKey::from_spki(der) {
        Ok(key) => return Ok(PublicKey::new(key)),
        Err(error) => error,
    };
    if Certificate::parse(der).is_ok() {
        return PublicKey::from_certificate(der);
    }
    match VerifyingKey::from_rsa(der) {
        Ok(key) => Ok(PublicKey::new(key)),
        Err(_) if SigningKey::from_der(der).is_some() => Err(private_in_place_of_public()),
        Err(_) => Err(error),
    }
}

fn from_pem(block: &Pem<'_>) -> Result<PublicKey, String> {
    match block.label {
        "PUBLIC KEY" => VerifyingKey::from_spki(&block.der).map(PublicKey::new),
        "RSA PUBLIC KEY" => VerifyingKey::from_rsa(&block.der)
            .or_else(|error| VerifyingKey::from_spki(&block.der).or(Err(error)))
            .map(PublicKey::new),
        "CERTIFICATE" | "X509 CERTIFICATE" => PublicKey::from_certificate(&block.der),
        label if label.ends_with("PRIVATE KEY") => Err(private_in_place_of_public()),
        _ => Err("a PEM block that is neither a public key nor a certificate".to_owned()),
    }
}

fn private_in_place_of_public() -> String {
    "a private key stands where a public one belongs".to_owned()
}

/// One block of a PEM text.
struct Pem<'a> {
    label: &'a str,
    der: Zeroizing<Vec<u8>>,
}

/// The blocks of a PEM text; what stands between them does not count. Line breaks may be missing or
/// written as `\n`, as environment variables often have them.
fn pem_blocks(text: &str) -> Result<Vec<Pem<'_>>, String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after
            .split_once("-----")
            .ok_or("a PEM block whose first line does not end")?;
        let end = format!("-----END {label}-----");
        let (body, after) = after
            .split_once(end.as_str())
            .ok_or("a PEM block without its last line")?;
        rest = after;
        if body.contains(':') {
            return Err("an encrypted PEM block; write it decrypted".to_owned());
        }
        let body = Zeroizing::new(body.replace("\\n", "").replace("\\r", ""));
        let der = bytes_of(&body).ok_or("a PEM block that is not base64")?;
        blocks.push(Pem { label, der });
    }
    Ok(blocks)
}

/// Bytes written in hex (of 32 or 64) or base64 of either alphabet, padded or not. Blanks do not count.
fn bytes_of(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text: Zeroizing<Vec<u8>> = Zeroizing::new(
        text.bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect(),
    );
    let is_hex = matches!(text.len(), 64 | 128) && text.iter().all(u8::is_ascii_hexdigit);
    let encodings = if is_hex {
        [HEXLOWER_PERMISSIVE].to_vec()
    } else {
        [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD].to_vec()
    };
    encodings
        .iter()
        .find_map(|encoding| encoding.decode(&text).ok())
        .filter(|bytes| !bytes.is_empty())
        .map(Zeroizing::new)
}

/// A JSON Web Key (RFC 7517), as far as it matters here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

/// A set of JWKs: those that cannot be read are left out like those of other uses.
#[derive(Deserialize)]
struct Jwks {
    keys: Vec<serde_json::Value>,
}

fn from_jwk_text(text: &str) -> Result<Vec<PublicKey>, String> {
    if let Ok(Jwks { keys }) = serde_json::from_str(text) {
        let read: Vec<_> = keys.into_iter().map(from_jwk_value).collect();
        let why = read.iter().find_map(|key| key.as_ref().err()).cloned();
        let usable: Vec<_> = read.into_iter().filter_map(Result::ok).collect();
        return match (usable.is_empty(), why) {
            (false, _) => Ok(usable),
            (true, Some(why)) => Err(format!("no usable key in the JWKS: {why}")),
            (true, None) => Err("a JWKS without keys".to_owned()),
        };
    }
    let jwk = serde_json::from_str(text).or(Err("JSON that is neither a JWK nor a JWKS"))?;
    Ok(vec![from_jwk(jwk)?])
}

fn from_jwk_value(value: serde_json::Value) -> Result<PublicKey, String> {
    from_jwk(serde_json::from_value(value).or(Err("a key that is not a JWK"))?)
}

fn from_jwk(jwk: Jwk) -> Result<PublicKey, String> {
    if jwk.kty == "oct" {
        return Err("a JWK of type `oct` is a secret, not a public key".to_owned());
    }
    if jwk.d.is_some() {
        return Err(private_in_place_of_public());
    }
    if jwk
        .purpose
        .as_deref()
        .is_some_and(|purpose| purpose != "sig")
    {
        return Err("a JWK whose `use` is not `sig`".to_owned());
    }
    if jwk
        .key_ops
        .as_ref()
        .is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
    {
        return Err("a JWK whose `key_ops` leave out `verify`".to_owned());
    }
    let only = match jwk.alg.as_deref() {
        None => None,
        Some(alg) => Some(bound_to(alg).ok_or("a JWK with an `alg` that signs nothing here")?),
    };
    let key = jwk_key(&jwk)?;
    if only.is_some_and(|only| !only.iter().any(|algorithm| key.fits(*algorithm))) {
        return Err("a JWK whose `alg` is not one of its type".to_owned());
    }
    Ok(PublicKey::named(key, jwk.kid, only))
}

fn jwk_key(jwk: &Jwk) -> Result<VerifyingKey, String> {
    let number = |member: &Option<String>, name: &str| {
        member
            .as_ref()
            .and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok())
            .ok_or_else(|| format!("a JWK without a base64url `{name}`"))
    };
    match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("OKP", Some("Ed25519")) => VerifyingKey::from_ed25519(&number(&jwk.x, "x")?),
        ("EC", Some("P-256")) => {
            VerifyingKey::from_point(KeyType::P256, &number(&jwk.x, "x")?, &number(&jwk.y, "y")?)
        }
        ("EC", Some("P-384")) => {
            VerifyingKey::from_point(KeyType::P384, &number(&jwk.x, "x")?, &number(&jwk.y, "y")?)
        }
        ("RSA", _) => VerifyingKey::from_modulus(&number(&jwk.n, "n")?, &number(&jwk.e, "e")?),
        ("OKP" | "EC", _) => Err("a JWK on another curve than Ed25519, P-256 or P-384".to_owned()),
        _ => Err("a JWK of another type than OKP, EC or RSA".to_owned()),
    }
}

/// What a JWK's `alg` lets its key do, inside and outside of tokens.
fn bound_to(alg: &str) -> Option<&'static [SignatureAlgorithm]> {
    use SignatureAlgorithm as A;
    Some(match alg {
        "EdDSA" | "Ed25519" => &[A::Ed25519],
        "ES256" => &[A::EcdsaP256Sha256, A::EcdsaP256Sha256Raw],
        "ES384" => &[A::EcdsaP384Sha384, A::EcdsaP384Sha384Raw],
        "RS256" => &[A::RsaSha256],
        "RS384" => &[A::RsaSha384],
        "RS512" => &[A::RsaSha512],
        "PS256" => &[A::RsaPssSha256],
        "PS384" => &[A::RsaPssSha384],
        "PS512" => &[A::RsaPssSha512],
        _ => return None,
    })
}

/// Reads a private key in whichever form it is written.
fn read_private(written: &[u8]) -> Result<SigningKey, String> {
    let unusable = || "not a private key of Ed25519, ECDSA P-256 or P-384, or RSA from 2048 bits";
    let Ok(text) = std::str::from_utf8(written) else {
        return Ok(SigningKey::from_der(written).ok_or_else(unusable)?);
    };
    let text = text.trim_ascii();
    if text.contains("-----BEGIN") {
        let blocks = pem_blocks(text)?;
        let block = blocks
            .iter()
            .find(|block| block.label.ends_with("PRIVATE KEY"))
            .ok_or("a PEM text without a private key")?;
        if block.label == "ENCRYPTED PRIVATE KEY" {
            return Err("an encrypted private key; write it decrypted".to_owned());
        }
        return Ok(SigningKey::from_der(&block.der).ok_or_else(unusable)?);
    }
    let bytes = bytes_of(text.strip_prefix("whsk_").unwrap_or(text))
        .ok_or("neither PEM, base64 nor hex; write one of these forms of a private key")?;
    let key = match (bytes.first_chunk::<32>(), bytes.len()) {
        (Some(seed), 32) => SigningKey::from_seed(seed),
        (Some(seed), 64) => SigningKey::from_seed(seed).filter(|key| {
            key.verifying_key().ok().as_ref()
                == bytes
                    .get(32..)
                    .and_then(|public| VerifyingKey::from_ed25519(public).ok())
                    .as_ref()
        }),
        _ => SigningKey::from_der(&bytes),
    };
    Ok(key.ok_or_else(unusable)?)
}

#[cfg(test)]
mod tests;
