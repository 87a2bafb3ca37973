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
            (Primitive::Hmac(_), Material::Public(_) | Material::Private(_))
            | (Primitive::Signature(_), Material::Secret(_)) => false,
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
        (Primitive::Hmac(_), Material::Public(_) | Material::Private(_)) => {
            return Err(format!("{} signs with a secret", algorithm.name()));
        }
        (Primitive::Signature(_), Material::Secret(_) | Material::Public(_)) => {
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scheme::public_key::PrivateKey;
    use crate::secret::Secret;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    /// RFC 7515 appendix A.1 to A.3: one payload under three algorithms.
    const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const HS256_HEADER: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
    const HS256_TAG: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const HS256_KEY: &str =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const RS256_JWK: &str = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
    const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    const ES256_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    /// RFC 8037 appendix A.4.
    const EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    const EDDSA_JWK: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn hs256() -> String {
        format!("{HS256_HEADER}.{PAYLOAD}.{HS256_TAG}")
    }

    fn secret(id: &str, bytes: &[u8]) -> Key {
        Key::secret(id.into(), Secret::new(bytes.to_vec()), None)
    }

    fn hs256_keys() -> KeySet {
        let key = BASE64URL_NOPAD.decode(HS256_KEY.as_bytes()).unwrap();
        KeySet::new(vec![
            secret("other", b"another secret"),
            secret("rfc", &key),
        ])
        .unwrap()
    }

    fn public(written: &str) -> KeySet {
        let keys = PublicKey::parse_all(written.as_bytes()).unwrap();
        let keys = keys
            .into_iter()
            .map(|key| Key::public(key.default_id().into(), key, None));
        KeySet::new(keys.collect()).unwrap()
    }

    /// The key's id, or why there is none.
    fn judge(token: &str, allowed: &[JwsAlgorithm], keys: &KeySet) -> Result<String, Reason> {
        Token::parse(token)
            .and_then(|token| {
                token
                    .verify(allowed, keys, NOW, None)
                    .map(|key| key.id.to_string())
            })
            .map_err(|error| error.reason)
    }

    /// A token whose header says what it likes, with a right HMAC of the RFC's key.
    fn with_header(header: &str) -> String {
        let header = BASE64URL_NOPAD.encode(header.as_bytes());
        let keys = hs256_keys();
        let content = [header.as_bytes(), b".", PAYLOAD.as_bytes()];
        let tag = tag(
            Hash::Sha256,
            keys.all()[1].secret_bytes().unwrap(),
            &content,
        );
        format!("{header}.{PAYLOAD}.{}", BASE64URL_NOPAD.encode(&tag))
    }

    #[test]
    fn rfc_examples_hold() {
        assert_eq!(
            judge(&hs256(), &[JwsAlgorithm::Hs256], &hs256_keys()),
            Ok("rfc".to_owned())
        );
        for (token, algorithm, jwk) in [
            (RS256, JwsAlgorithm::Rs256, RS256_JWK),
            (ES256, JwsAlgorithm::Es256, ES256_JWK),
            (EDDSA, JwsAlgorithm::EdDsa, EDDSA_JWK),
        ] {
            assert!(
                judge(token, &[algorithm], &public(jwk)).is_ok(),
                "{algorithm:?}"
            );
        }
        let claims = Token::parse(RS256).unwrap().claims().unwrap();
        assert_eq!(claims["iss"], "joe");
    }

    #[test]
    fn no_character_may_change() {
        let token = hs256();
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(
                judge(&changed, &JwsAlgorithm::ALL, &hs256_keys()).is_err(),
                "{at}"
            );
            let cut = token.split_at(at).0;
            assert!(
                judge(cut, &JwsAlgorithm::ALL, &hs256_keys()).is_err(),
                "{at}"
            );
        }
    }

    /// SECURITY A-29, A-30 and the shapes of Wycheproof's JWS set.
    #[test]
    fn odd_shapes_are_malformed() {
        let good = hs256();
        for token in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            format!("{HS256_HEADER}.{PAYLOAD}"),
            format!("{HS256_HEADER}.{PAYLOAD}."),
            format!(".{PAYLOAD}.{HS256_TAG}"),
            format!("{PAYLOAD}.{HS256_TAG}"),
            format!("{good}."),
            format!("{good}.foo"),
            format!("{good}.a.b"), // a JWE has five parts
            format!(" {good}"),
            format!("{good}="),
            format!(
                "{HS256_HEADER}.{PAYLOAD}.{}l",
                HS256_TAG.trim_end_matches('k')
            ), // bits after the last byte
            format!("{HS256_HEADER}=.{PAYLOAD}.{HS256_TAG}"),
            format!("{HS256_HEADER}.{PAYLOAD}?.{HS256_TAG}"),
            format!("{HS256_HEADER}.{PAYLOAD}. {HS256_TAG}"),
            format!("{HS256_HEADER}.{PAYLOAD}.{}", "A".repeat(MAX_SIGNATURE + 2)),
            format!("{}.{PAYLOAD}.{HS256_TAG}", "A".repeat(MAX_HEADER + 4)),
            format!(
                r#"{{"payload":"{PAYLOAD}","protected":"{HS256_HEADER}","signature":"{HS256_TAG}"}}"#
            ),
        ] {
            let verdict = judge(&token, &JwsAlgorithm::ALL, &hs256_keys());
            assert_eq!(verdict, Err(Reason::SignatureMalformed), "{token:.80}");
        }
    }

    #[test]
    fn headers_that_are_not_understood_are_malformed() {
        assert!(
            judge(
                &with_header(r#"{"alg":"HS256"}"#),
                &JwsAlgorithm::ALL,
                &hs256_keys()
            )
            .is_ok()
        );
        // SECURITY A-28, A-29
        for header in [
            "{}",
            "[]",
            r#""HS256""#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":""}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":"HS256 "}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":null}"#,
            r#"{"alg":"HS256","alg":"HS256"}"#,
            r#"{"alg":"none","alg":"HS256"}"#,
            r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
            r#"{"alg":"HS256","crit":[]}"#,
            r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
            r#"{"alg":"HS256","b64":false}"#,
            r#"{"alg":"HS256""#,
            r#"{"alg":"HS256"}{}"#,
        ] {
            let verdict = judge(&with_header(header), &JwsAlgorithm::ALL, &hs256_keys());
            assert_eq!(verdict, Err(Reason::SignatureMalformed), "{header}");
        }
    }

    #[test]
    fn only_pinned_algorithms_count() {
        let pinned = [JwsAlgorithm::Rs256, JwsAlgorithm::Hs512];
        assert_eq!(
            judge(&hs256(), &pinned, &hs256_keys()),
            Err(Reason::SignatureMalformed)
        );
        assert_eq!(
            judge(&hs256(), &[], &hs256_keys()),
            Err(Reason::SignatureMalformed)
        );
    }

    /// SECURITY A-29: the public key's bytes are no secret.
    #[test]
    fn a_public_key_is_never_an_hmac_secret() {
        let keys = public(RS256_JWK);
        let key = keys.all()[0].public_key().unwrap();
        let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256"}"#);
        let content = [header.as_bytes(), b".", PAYLOAD.as_bytes()];
        for bytes in [key.spki(), RS256_JWK.as_bytes(), b""] {
            let tag = tag(Hash::Sha256, bytes, &content);
            let token = format!("{header}.{PAYLOAD}.{}", BASE64URL_NOPAD.encode(&tag));
            assert_eq!(
                judge(&token, &JwsAlgorithm::ALL, &keys),
                Err(Reason::SignatureMismatch)
            );
        }
    }

    #[test]
    fn a_secret_is_never_a_public_key() {
        let jwk = KeySet::new(vec![secret("jwk", RS256_JWK.as_bytes())]).unwrap();
        assert_eq!(
            judge(RS256, &JwsAlgorithm::ALL, &jwk),
            Err(Reason::SignatureMismatch)
        );
    }

    #[test]
    fn a_jwk_verifies_only_its_own_algorithm() {
        let jwk = |alg: &str| public(&RS256_JWK.replace('{', &format!(r#"{{"alg":"{alg}","#)));
        assert!(judge(RS256, &JwsAlgorithm::ALL, &jwk("RS256")).is_ok());
        for alg in ["RS384", "RS512", "PS256"] {
            let verdict = judge(RS256, &JwsAlgorithm::ALL, &jwk(alg));
            assert_eq!(verdict, Err(Reason::SignatureMismatch), "{alg}");
        }
    }

    /// SECURITY A-31: a token that brings its own key, by value or by address, is signed by nobody.
    #[test]
    fn keys_in_the_token_are_not_looked_at() {
        let stranger =
            PrivateKey::parse(&[b"whsk_", BASE64.encode(&[7; 32]).as_bytes()].concat()).unwrap();
        let point = BASE64URL_NOPAD.encode(&stranger.public().spki()[12..]);
        for member in [
            serde_json::json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": point}}),
            serde_json::json!({"jku": "https://attacker.example/jwks.json"}),
            serde_json::json!({"x5u": "https://attacker.example/cert.pem"}),
            serde_json::json!({"x5c": ["MIIB"]}),
            serde_json::json!({"kid": "../../../../dev/null"}),
            serde_json::json!({"kid": "https://attacker.example/key"}),
            serde_json::json!({"kid": {"a": 1}}),
        ] {
            let header = member.as_object().unwrap();
            let key = Key::private("stranger".into(), stranger.clone());
            let token = sign(JwsAlgorithm::EdDsa, header, b"{}", Form::Attached, &key).unwrap();
            let verdict = judge(&token, &JwsAlgorithm::ALL, &public(EDDSA_JWK));
            assert_eq!(verdict, Err(Reason::SignatureMismatch), "{member}");
        }
    }

    #[test]
    fn a_named_key_is_taken_for_tokens_of_its_name_only() {
        let private = PrivateKey::parse(&[b'1'; 64]).unwrap();
        let key = Key::private("own".into(), private.clone());
        let jwk = |kid: &str| {
            let point = BASE64URL_NOPAD.encode(&private.public().spki()[12..]);
            public(&format!(
                r#"{{"kty":"OKP","crv":"Ed25519","x":"{point}","kid":"{kid}"}}"#
            ))
        };
        let token = |kid: Option<&str>| {
            let mut header = Map::new();
            kid.map(|kid| header.insert("kid".to_owned(), kid.into()));
            sign(JwsAlgorithm::EdDsa, &header, b"{}", Form::Attached, &key).unwrap()
        };
        let judge = |kid, keys: &KeySet| judge(&token(kid), &[JwsAlgorithm::EdDsa], keys);
        assert_eq!(judge(Some("a"), &jwk("a")), Ok("a".to_owned()));
        assert_eq!(judge(Some("b"), &jwk("a")), Err(Reason::SignatureMismatch));
        assert_eq!(judge(None, &jwk("a")), Ok("a".to_owned()));
        let nameless = KeySet::new(vec![key.clone()]).unwrap();
        assert_eq!(judge(Some("b"), &nameless), Ok("own".to_owned()));
    }

    #[test]
    fn a_key_that_has_ended_does_not_count() {
        let mut keys = hs256_keys().all().to_vec();
        keys[1].not_after = Some(NOW);
        let partly = KeySet::new(keys.clone()).unwrap();
        assert_eq!(
            judge(&hs256(), &JwsAlgorithm::ALL, &partly),
            Err(Reason::SignatureMismatch)
        );
        keys[0].not_after = Some(NOW);
        let wholly = KeySet::new(keys).unwrap();
        assert_eq!(
            judge(&hs256(), &JwsAlgorithm::ALL, &wholly),
            Err(Reason::KeyUnavailable)
        );
    }

    #[test]
    fn detached_payloads_may_be_in_parts() {
        let key = secret("own", &[1; 32]);
        let keys = KeySet::new(vec![key.clone()]).unwrap();
        let body = b"{\"a\":1}".as_slice();
        let token = sign(JwsAlgorithm::Hs256, &Map::new(), body, Form::Detached, &key).unwrap();
        assert!(token.contains(".."));
        let verify = |token: &str, parts: Option<&[&[u8]]>| {
            Token::parse(token)?
                .verify(&[JwsAlgorithm::Hs256], &keys, NOW, parts)
                .map(|_| ())
        };
        assert_eq!(verify(&token, Some(&[body])), Ok(()));
        for at in 0..=body.len() {
            let (start, end) = body.split_at(at);
            assert_eq!(verify(&token, Some(&[start, b"", end])), Ok(()));
        }
        assert_eq!(verify(&token, Some(&[b"{}"])), Err(MISMATCH));
        assert_eq!(verify(&token, None), Err(MISMATCH));
        let whole = sign(JwsAlgorithm::Hs256, &Map::new(), body, Form::Attached, &key).unwrap();
        assert_eq!(verify(&whole, None), Ok(()));
        let reason = verify(&whole, Some(&[body])).unwrap_err().reason;
        assert_eq!(reason, Reason::SignatureMalformed);
    }

    #[test]
    fn claims_are_one_json_object_of_one_meaning() {
        let key = secret("own", &[1; 32]);
        for payload in [
            r#"{"aud":"a","aud":"b"}"#,
            "[]",
            "1",
            "",
            "{} {}",
            "\u{feff}{}",
        ] {
            let token = sign(
                JwsAlgorithm::Hs256,
                &Map::new(),
                payload.as_bytes(),
                Form::Attached,
                &key,
            );
            let claims = Token::parse(&token.unwrap()).unwrap().claims();
            assert_eq!(
                claims.unwrap_err().reason,
                Reason::SignatureMalformed,
                "{payload}"
            );
        }
    }

    #[test]
    fn signing_says_which_key_it_wants() {
        let private = Key::private("own".into(), PrivateKey::parse(&[b'1'; 64]).unwrap());
        let sign = |algorithm, key: &Key| {
            sign(algorithm, &Map::new(), b"{}", Form::Attached, key).unwrap_err()
        };
        assert_eq!(
            sign(JwsAlgorithm::Hs256, &private),
            "HS256 signs with a secret"
        );
        assert_eq!(
            sign(JwsAlgorithm::Es256, &secret("own", b"x")),
            "ES256 signs with a private key"
        );
        assert!(sign(JwsAlgorithm::Es256, &private).contains("ECDSA P-256"));
    }

    #[test]
    fn a_header_cannot_say_another_algorithm_than_it_is_signed_with() {
        let key = secret("own", &[1; 32]);
        let mut header = Map::new();
        header.insert("alg".to_owned(), "none".into());
        let token = sign(JwsAlgorithm::Hs256, &header, b"{}", Form::Attached, &key).unwrap();
        assert_eq!(
            Token::parse(&token).unwrap().algorithm(),
            JwsAlgorithm::Hs256
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}", header in "\\PC{0,80}") {
            prop_assert!(Token::parse(&text).is_err());
            prop_assert!(judge(&with_header(&header), &JwsAlgorithm::ALL, &public(EDDSA_JWK)).is_err());
        }

        #[test]
        fn what_is_signed_verifies(payload: Vec<u8>, bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
            let key = secret("own", &bytes);
            for algorithm in [JwsAlgorithm::Hs256, JwsAlgorithm::Hs384, JwsAlgorithm::Hs512] {
                let token = sign(algorithm, &Map::new(), &payload, Form::Attached, &key).unwrap();
                let keys = KeySet::new(vec![key.clone()]).unwrap();
                prop_assert_eq!(judge(&token, &[algorithm], &keys), Ok("own".to_owned()));
                let token = Token::parse(&token).unwrap();
                prop_assert_eq!(token.payload(), payload.as_slice());
            }
        }
    }
}
