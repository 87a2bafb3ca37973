//! Signatures with key pairs: Ed25519, ECDSA and RSA, in their strict forms only.
//!
//! A key is held as its canonical `SubjectPublicKeyInfo`, whatever it was written as: two spellings
//! of one key are one key.

use std::fmt;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, ParsedPublicKey,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents, VerificationAlgorithm,
};
use x509_parser::asn1_rs::{Integer, OctetString, Sequence};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};
use zeroize::Zeroizing;

/// Shortest RSA modulus that counts (SECURITY A-38).
const MIN_RSA_BITS: usize = 2048;
/// Longest RSA modulus that the library verifies with.
const MAX_RSA_BITS: usize = 8192;
/// Smallest public exponent that counts: 1 proves nothing, 3 forgives sloppy padding.
const MIN_RSA_EXPONENT: u64 = 65_537;

/// Object identifiers of keys (RFC 3279, RFC 4055, RFC 8410).
const ID_ED25519: &str = "1.3.101.112";
const ID_EC: &str = "1.2.840.10045.2.1";
const ID_RSA: &str = "1.2.840.113549.1.1.1";
const ID_RSA_PSS: &str = "1.2.840.113549.1.1.10";

/// How a private key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RFC 8032, without a context.
    Ed25519,
    /// ECDSA on P-256 with SHA-1, in ASN.1.
    EcdsaP256Sha1,
    /// ECDSA on P-256 with SHA-256, in ASN.1.
    EcdsaP256Sha256,
    /// ECDSA on P-256 with SHA-256, the two numbers one after the other (IEEE P1363).
    EcdsaP256Sha256Raw,
    /// ECDSA on P-384 with SHA-384, in ASN.1.
    EcdsaP384Sha384,
    /// ECDSA on P-384 with SHA-384, the two numbers one after the other (IEEE P1363).
    EcdsaP384Sha384Raw,
    /// RSA PKCS #1 v1.5 with SHA-1.
    RsaSha1,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RsaSha256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    RsaSha384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    RsaSha512,
    /// RSA PSS with SHA-256 and a salt of 32 bytes.
    RsaPssSha256,
    /// RSA PSS with SHA-384 and a salt of 48 bytes.
    RsaPssSha384,
    /// RSA PSS with SHA-512 and a salt of 64 bytes.
    RsaPssSha512,
}

/// What a key is a point or a modulus of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// A point of edwards25519.
    Ed25519,
    /// A point of NIST P-256.
    P256,
    /// A point of NIST P-384.
    P384,
    /// A modulus and an exponent.
    Rsa,
}

impl SignatureAlgorithm {
    /// The only keys that fit.
    pub const fn key_type(self) -> KeyType {
        match self {
            Self::Ed25519 => KeyType::Ed25519,
            Self::EcdsaP256Sha1 | Self::EcdsaP256Sha256 | Self::EcdsaP256Sha256Raw => KeyType::P256,
            Self::EcdsaP384Sha384 | Self::EcdsaP384Sha384Raw => KeyType::P384,
            Self::RsaSha1
            | Self::RsaSha256
            | Self::RsaSha384
            | Self::RsaSha512
            | Self::RsaPssSha256
            | Self::RsaPssSha384
            | Self::RsaPssSha512 => KeyType::Rsa,
        }
    }

    /// The digest that is signed; Ed25519 signs the content itself.
    fn digest(self) -> Option<&'static digest::Algorithm> {
        match self {
            Self::Ed25519 => None,
            Self::EcdsaP256Sha1 | Self::RsaSha1 => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            Self::EcdsaP256Sha256
            | Self::EcdsaP256Sha256Raw
            | Self::RsaSha256
            | Self::RsaPssSha256 => Some(&digest::SHA256),
            Self::EcdsaP384Sha384
            | Self::EcdsaP384Sha384Raw
            | Self::RsaSha384
            | Self::RsaPssSha384 => Some(&digest::SHA384),
            Self::RsaSha512 | Self::RsaPssSha512 => Some(&digest::SHA512),
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Ed25519 => &signature::ED25519,
            Self::EcdsaP256Sha1 => &signature::ECDSA_P256_SHA1_ASN1,
            Self::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
            Self::EcdsaP256Sha256Raw => &signature::ECDSA_P256_SHA256_FIXED,
            Self::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
            Self::EcdsaP384Sha384Raw => &signature::ECDSA_P384_SHA384_FIXED,
            Self::RsaSha1 => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Self::RsaSha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RsaSha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::RsaSha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        }
    }

    /// How RSA is padded when signing; SHA-1 is verified for old senders, never made.
    fn rsa_encoding(self) -> Option<&'static dyn RsaEncoding> {
        match self {
            Self::RsaSha256 => Some(&signature::RSA_PKCS1_SHA256),
            Self::RsaSha384 => Some(&signature::RSA_PKCS1_SHA384),
            Self::RsaSha512 => Some(&signature::RSA_PKCS1_SHA512),
            Self::RsaPssSha256 => Some(&signature::RSA_PSS_SHA256),
            Self::RsaPssSha384 => Some(&signature::RSA_PSS_SHA384),
            Self::RsaPssSha512 => Some(&signature::RSA_PSS_SHA512),
            Self::Ed25519
            | Self::EcdsaP256Sha1
            | Self::EcdsaP256Sha256
            | Self::EcdsaP256Sha256Raw
            | Self::EcdsaP384Sha384
            | Self::EcdsaP384Sha384Raw
            | Self::RsaSha1 => None,
        }
    }

    /// Whether the two numbers of ECDSA stand one after the other.
    const fn is_raw(self) -> bool {
        matches!(self, Self::EcdsaP256Sha256Raw | Self::EcdsaP384Sha384Raw)
    }

    fn digest_of(self, content: &[&[u8]]) -> Option<Digest> {
        let mut state = digest::Context::new(self.digest()?);
        for part in content {
            state.update(part);
        }
        Some(state.finish())
    }
}

impl KeyType {
    /// Name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::P256 => "ECDSA P-256",
            Self::P384 => "ECDSA P-384",
            Self::Rsa => "RSA",
        }
    }

    /// Any algorithm of keys of this type, to read them with.
    const fn reader(self) -> SignatureAlgorithm {
        match self {
            Self::Ed25519 => SignatureAlgorithm::Ed25519,
            Self::P256 => SignatureAlgorithm::EcdsaP256Sha256,
            Self::P384 => SignatureAlgorithm::EcdsaP384Sha384,
            Self::Rsa => SignatureAlgorithm::RsaSha256,
        }
    }
}

/// A public key that passed every check of its type.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::scheme) struct VerifyingKey {
    key_type: KeyType,
    /// The canonical `SubjectPublicKeyInfo`.
    spki: Vec<u8>,
    /// Whether its own declaration (`id-RSASSA-PSS`) keeps it from PKCS #1 v1.5.
    pss_only: bool,
}

impl VerifyingKey {
    /// From a DER `SubjectPublicKeyInfo` and nothing after it.
    pub(in crate::scheme) fn from_spki(der: &[u8]) -> Result<Self, String> {
        let unreadable = || "not a public key (SubjectPublicKeyInfo)".to_owned();
        let (rest, info) = SubjectPublicKeyInfo::from_der(der).or(Err(unreadable()))?;
        if !rest.is_empty() {
            return Err("bytes follow the public key".to_owned());
        }
        match info.algorithm.algorithm.to_id_string().as_str() {
            // RFC 8410 leaves one way to write it.
            ID_ED25519 => Self::from_ed25519(&info.subject_public_key.data)
                .and_then(|key| (key.spki == der).then_some(key).ok_or_else(unreadable)),
            ID_EC => Self::read(KeyType::P256, der)
                .or_else(|_| Self::read(KeyType::P384, der))
                .or(Err(
                    "not a point of P-256 or P-384, the curves that schemes use".to_owned(),
                )),
            ID_RSA => Self::read(KeyType::Rsa, der),
            ID_RSA_PSS => Self::from_rsa(&info.subject_public_key.data).map(|key| Self {
                pss_only: true,
                ..key
            }),
            _ => Err("neither an Ed25519, an ECDSA nor an RSA key".to_owned()),
        }
    }

    /// From the 32 bytes of RFC 8032.
    pub(in crate::scheme) fn from_ed25519(point: &[u8]) -> Result<Self, String> {
        let point: [u8; 32] = point
            .try_into()
            .or(Err("an Ed25519 key has 32 bytes".to_owned()))?;
        if !is_canonical(&point) || is_small_order(&point) {
            // Such a key verifies signatures of contents that nobody signed (SECURITY A-37).
            return Err("an Ed25519 point that no honest key is".to_owned());
        }
        Self::read(KeyType::Ed25519, &point)
    }

    /// From the coordinates of a point on P-256 or P-384.
    pub(in crate::scheme) fn from_point(
        key_type: KeyType,
        x: &[u8],
        y: &[u8],
    ) -> Result<Self, String> {
        let width = match key_type {
            KeyType::P256 => 32,
            KeyType::P384 => 48,
            KeyType::Ed25519 | KeyType::Rsa => 0,
        };
        if width == 0 || x.len() != width || y.len() != width {
            return Err("coordinates of another length than the curve's".to_owned());
        }
        Self::read(key_type, &[&[4], x, y].concat())
    }

    /// From a DER `RSAPublicKey` (PKCS #1).
    pub(in crate::scheme) fn from_rsa(der: &[u8]) -> Result<Self, String> {
        Self::read(KeyType::Rsa, der)
    }

    /// From a modulus and an exponent, big-endian.
    pub(in crate::scheme) fn from_modulus(n: &[u8], e: &[u8]) -> Result<Self, String> {
        let key = RsaPublicKeyComponents {
            n: without_leading_zeros(n),
            e: without_leading_zeros(e),
        };
        let parsed = key
            .to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)
            .or(Err("not an RSA key".to_owned()))?;
        Self::checked(KeyType::Rsa, &parsed)
    }

    fn read(key_type: KeyType, bytes: &[u8]) -> Result<Self, String> {
        let parsed = ParsedPublicKey::new(key_type.reader().verification(), bytes)
            .or(Err(format!("not a valid {} key", key_type.name())))?;
        Self::checked(key_type, &parsed)
    }

    fn checked(key_type: KeyType, parsed: &ParsedPublicKey) -> Result<Self, String> {
        let spki = parsed
            .as_der()
            .or(Err(format!("not a valid {} key", key_type.name())))?;
        if key_type == KeyType::Rsa {
            check_rsa(spki.as_ref())?;
        }
        Ok(Self {
            key_type,
            spki: spki.as_ref().to_vec(),
            pss_only: false,
        })
    }

    pub(in crate::scheme) fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The canonical `SubjectPublicKeyInfo`.
    pub(in crate::scheme) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Whether this key may verify `algorithm` at all.
    pub(in crate::scheme) fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        let is_pss = matches!(
            algorithm,
            SignatureAlgorithm::RsaPssSha256
                | SignatureAlgorithm::RsaPssSha384
                | SignatureAlgorithm::RsaPssSha512
        );
        algorithm.key_type() == self.key_type && (is_pss || !self.pss_only)
    }

    /// Whether `signature` is one of `content` (in parts) by this key.
    pub(in crate::scheme) fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        content: &[&[u8]],
        signature: &[u8],
    ) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        let library = algorithm.verification();
        match algorithm.digest_of(content) {
            Some(digest) => library
                .verify_digest_sig(&self.spki, &digest, signature)
                .is_ok(),
            None => {
                starts_with_honest_point(signature)
                    && library
                        .verify_sig(&self.spki, &content.concat(), signature)
                        .is_ok()
            }
        }
    }
}

/// A private key, for `sign`. Its bytes stay inside the library.
pub(in crate::scheme) struct SigningKey(Pair);

enum Pair {
    Ed25519(Ed25519KeyPair),
    /// ECDSA writes signatures in two forms; the library binds a pair to one of them.
    Ecdsa {
        key_type: KeyType,
        asn1: EcdsaKeyPair,
        raw: EcdsaKeyPair,
    },
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// From unencrypted PKCS #8, PKCS #1 (RSA) or SEC 1 (ECDSA), in DER.
    pub(in crate::scheme) fn from_der(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(der)
            .ok()
            .map(Pair::Ed25519)
            .or_else(|| ecdsa_pair(KeyType::P256, der))
            .or_else(|| ecdsa_pair(KeyType::P384, der))
            .or_else(|| rsa_pair(der))?;
        Some(Self(pair))
    }

    /// From the 32 bytes of RFC 8032.
    pub(in crate::scheme) fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        Some(Self(Pair::Ed25519(pair)))
    }

    /// The public half.
    pub(in crate::scheme) fn verifying_key(&self) -> Result<VerifyingKey, String> {
        match &self.0 {
            Pair::Ed25519(pair) => VerifyingKey::from_ed25519(pair.public_key().as_ref()),
            Pair::Ecdsa { key_type, raw, .. } => {
                VerifyingKey::read(*key_type, raw.public_key().as_ref())
            }
            Pair::Rsa(pair) => VerifyingKey::from_rsa(pair.public_key().as_ref()),
        }
    }

    /// A signature of `content` (in parts); `None` when the key does not fit.
    pub(in crate::scheme) fn sign(
        &self,
        algorithm: SignatureAlgorithm,
        content: &[&[u8]],
    ) -> Option<Vec<u8>> {
        match &self.0 {
            Pair::Ed25519(pair) if algorithm == SignatureAlgorithm::Ed25519 => pair
                .try_sign(&content.concat())
                .ok()
                .map(|signature| signature.as_ref().to_vec()),
            Pair::Ecdsa {
                key_type,
                asn1,
                raw,
            } if algorithm.key_type() == *key_type => {
                let pair = if algorithm.is_raw() { raw } else { asn1 };
                let digest = widened(&algorithm.digest_of(content)?, *key_type)?;
                let signature = pair.sign_digest(&digest).ok()?;
                Some(signature.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let digest = algorithm.digest_of(content)?;
                pair.sign_digest(algorithm.rsa_encoding()?, &digest, &mut signature)
                    .ok()?;
                Some(signature)
            }
            Pair::Ed25519(_) | Pair::Ecdsa { .. } => None,
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn ecdsa_pair(key_type: KeyType, der: &[u8]) -> Option<Pair> {
    let (asn1, raw): (
        &'static EcdsaSigningAlgorithm,
        &'static EcdsaSigningAlgorithm,
    ) = match key_type {
        KeyType::P256 => (
            &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        ),
        KeyType::P384 => (
            &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        ),
        KeyType::Ed25519 | KeyType::Rsa => return None,
    };
    Some(Pair::Ecdsa {
        key_type,
        asn1: EcdsaKeyPair::from_private_key_der(asn1, der).ok()?,
        raw: EcdsaKeyPair::from_private_key_der(raw, der).ok()?,
    })
}

fn rsa_pair(der: &[u8]) -> Option<Pair> {
    let pair = RsaKeyPair::from_pkcs8(der)
        .or_else(|_| RsaKeyPair::from_der(der))
        .or_else(|error| RsaKeyPair::from_der(&inside_pss_pkcs8(der).ok_or(error)?))
        .ok()?;
    Some(Pair::Rsa(pair))
}

/// The RSA key inside a PKCS #8 that declares `id-RSASSA-PSS`, which the library does not open.
fn inside_pss_pkcs8(der: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (_, sequence) = Sequence::from_der(der).ok()?;
    let (rest, _version) = Integer::from_der(&sequence.content).ok()?;
    let (rest, algorithm) = AlgorithmIdentifier::from_der(rest).ok()?;
    let (_, key) = OctetString::from_der(rest).ok()?;
    (algorithm.algorithm.to_id_string() == ID_RSA_PSS)
        .then(|| Zeroizing::new(key.as_ref().to_vec()))
}

/// A digest as wide as the library wants it for the curve. ECDSA signs a digest as a number, so that zeros
/// before SHA-1's twenty bytes change nothing (FIPS 186-5 section 6.4.1).
fn widened(digest: &Digest, key_type: KeyType) -> Option<Digest> {
    let wanted = key_type.reader().digest()?;
    let missing = wanted.output_len().checked_sub(digest.as_ref().len())?;
    let bytes = [&vec![0; missing], digest.as_ref()].concat();
    Digest::import_less_safe(&bytes, wanted).ok()
}

/// Size and exponent of an RSA key (SECURITY A-38).
fn check_rsa(spki: &[u8]) -> Result<(), String> {
    let unreadable = || "not a valid RSA key".to_owned();
    let (_, info) = SubjectPublicKeyInfo::from_der(spki).or(Err(unreadable()))?;
    let Ok(Parsed::RSA(key)) = info.parsed() else {
        return Err(unreadable());
    };
    let bits = bits_of(key.modulus);
    if bits < MIN_RSA_BITS {
        return Err(format!(
            "an RSA key of {bits} bits, and fewer than {MIN_RSA_BITS} are forgeable"
        ));
    }
    if bits > MAX_RSA_BITS {
        return Err(format!("an RSA key of more than {MAX_RSA_BITS} bits"));
    }
    match key.try_exponent() {
        Ok(exponent) if exponent >= MIN_RSA_EXPONENT => Ok(()),
        Ok(exponent) => Err(format!(
            "an RSA key with exponent {exponent}, and less than {MIN_RSA_EXPONENT} is forgeable"
        )),
        Err(_) => Err(unreadable()),
    }
}

/// Number of bits of a big-endian number.
fn bits_of(number: &[u8]) -> usize {
    let number = without_leading_zeros(number);
    number.first().map_or(0, |first| {
        number.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or(0)
    })
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The library takes any 32 bytes as the first half of an Ed25519 signature that the equation gives;
/// of a point of small order, the equation says nothing about the key's owner.
fn starts_with_honest_point(signature: &[u8]) -> bool {
    signature
        .first_chunk::<32>()
        .is_some_and(|point| is_canonical(point) && !is_small_order(point))
}

/// p - 1 of edwards25519, little-endian; also the `y` of the point of order 2.
const P_MINUS_1: [u8; 32] = {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xec;
    bytes[31] = 0x7f;
    bytes
};

/// Whether `y` is below the field's prime: its only spelling.
fn is_canonical(point: &[u8; 32]) -> bool {
    y_of(point).iter().rev().le(P_MINUS_1.iter().rev())
}

/// Whether eight times the point is the neutral element: `y` is 0, 1, -1 or that of order 8.
fn is_small_order(point: &[u8; 32]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let y = y_of(point);
    let is_0_or_1 = matches!(y, [0 | 1, rest @ ..] if rest.iter().all(|byte| *byte == 0));
    is_0_or_1 || y == P_MINUS_1 || ORDER_8.contains(&y)
}

/// The point without the sign of `x`.
fn y_of(point: &[u8; 32]) -> [u8; 32] {
    let mut y = *point;
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    y
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::Pkcs8V1Der;
    use data_encoding::HEXLOWER_PERMISSIVE as HEX;

    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        HEX.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    /// RFC 8032 section 7.1, tests 1 to 3: secret, public, message, signature.
    const RFC_8032: [(&str, &str, &str, &str); 3] = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];

    #[test]
    fn rfc_8032() {
        for (seed, public, message, signature) in RFC_8032 {
            let key = SigningKey::from_seed(&hex(seed)).unwrap();
            let verifying = VerifyingKey::from_ed25519(&hex::<32>(public)).unwrap();
            assert!(key.verifying_key().unwrap() == verifying);
            let message = HEX.decode(message.as_bytes()).unwrap();
            let made = key.sign(SignatureAlgorithm::Ed25519, &[&message]);
            assert_eq!(made.unwrap(), hex::<64>(signature));
            let parts: Vec<&[u8]> = message.chunks(1).collect();
            assert!(verifying.verify(SignatureAlgorithm::Ed25519, &parts, &hex::<64>(signature)));
        }
    }

    /// RFC 6979 appendix A.2.5: P-256 with SHA-1 over `sample`.
    #[test]
    fn rfc_6979_ecdsa_with_sha_1() {
        let key = VerifyingKey::from_point(
            KeyType::P256,
            &hex::<32>("60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"),
            &hex::<32>("7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"),
        )
        .unwrap();
        let r = "61340C88C3AAEBEB4F6D667F672CA9759A6CCAA9FA8811313039EE4A35471D32";
        let s = "6D7F147DAC089441BB2E2FE8F7A3FA264B9C475098FDCF6E00D7C996E1B8B7EB";
        let signature: [u8; 70] = hex(&format!("30440220{r}0220{s}"));
        let verify = |algorithm, content| key.verify(algorithm, &[content], &signature);
        assert!(verify(SignatureAlgorithm::EcdsaP256Sha1, b"sample"));
        assert!(!verify(SignatureAlgorithm::EcdsaP256Sha1, b"Sample"));
        assert!(!verify(SignatureAlgorithm::EcdsaP256Sha256, b"sample"));
    }

    /// The 8 points of small order, the sign of x both ways, and their spellings above the prime.
    const SMALL_ORDER: [&str; 14] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];

    #[test]
    fn ed25519_keys_of_small_order_are_no_keys() {
        for point in SMALL_ORDER {
            assert!(
                VerifyingKey::from_ed25519(&hex::<32>(point)).is_err(),
                "{point}"
            );
            let spki = [
                hex::<12>("302a300506032b6570032100").as_slice(),
                &hex::<32>(point),
            ]
            .concat();
            assert!(VerifyingKey::from_spki(&spki).is_err(), "{point}");
        }
    }

    /// Why they are none: under the neutral element, one signature is of every content, and the
    /// library alone says so. When it no longer does, the check above can go.
    #[test]
    fn the_library_alone_believes_the_neutral_element() {
        let neutral = hex::<32>(SMALL_ORDER[2]);
        let signature = [neutral, [0; 32]].concat();
        for content in [b"a".as_slice(), b"b"] {
            let verdict = signature::ED25519.verify_sig(&neutral, content, &signature);
            assert!(verdict.is_ok());
        }
    }

    #[test]
    fn ed25519_keys_above_the_prime_are_no_keys() {
        for last in ["ef", "f0", "ff"] {
            let point = format!("{last}{}7f", "ff".repeat(30));
            assert!(
                VerifyingKey::from_ed25519(&hex::<32>(&point)).is_err(),
                "{point}"
            );
        }
    }

    /// SECURITY A-37: s + L is the same number to a lax verifier; R of small order says nothing.
    #[test]
    fn ed25519_signatures_have_one_spelling() {
        let (_, public, message, signature) = RFC_8032[2];
        let key = VerifyingKey::from_ed25519(&hex::<32>(public)).unwrap();
        let message = HEX.decode(message.as_bytes()).unwrap();
        let verify =
            |signature: &[u8]| key.verify(SignatureAlgorithm::Ed25519, &[&message], signature);
        let signature: [u8; 64] = hex(signature);
        assert!(verify(&signature));
        let order: [u8; 32] =
            hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0u16;
        let mut more = signature;
        for (digit, added) in more[32..].iter_mut().zip(order) {
            carry += u16::from(*digit) + u16::from(added);
            *digit = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        assert!(!verify(&more));
        for point in SMALL_ORDER {
            assert!(!verify(
                &[hex::<32>(point).as_slice(), &signature[32..]].concat()
            ));
        }
        assert!(!verify(&[0; 64]));
        for length in [0, 1, 32, 63] {
            assert!(!verify(&signature[..length]), "{length}");
        }
        assert!(!verify(&[signature.as_slice(), &[0]].concat()));
    }

    /// SECURITY A-38.
    #[test]
    fn weak_rsa_keys_are_no_keys() {
        let modulus = |bytes: usize| {
            let mut modulus = vec![0xc5; bytes];
            *modulus.last_mut().unwrap() = 1;
            modulus
        };
        let why = |modulus: &[u8], exponent: &[u8]| {
            VerifyingKey::from_modulus(modulus, exponent)
                .err()
                .unwrap_or_default()
        };
        assert_eq!(why(&modulus(256), &[1, 0, 1]), "");
        assert_eq!(
            why(&[[0].as_slice(), &modulus(256)].concat(), &[0, 1, 0, 1]),
            ""
        );
        assert!(why(&modulus(64), &[1, 0, 1]).contains("512 bits"));
        assert!(why(&modulus(128), &[1, 0, 1]).contains("1024 bits"));
        assert!(why(&modulus(255), &[1, 0, 1]).contains("2040 bits"));
        let short_by_one = [&[0x7f], &modulus(256)[1..]].concat();
        assert!(why(&short_by_one, &[1, 0, 1]).contains("2047 bits"));
        for exponent in [[1].as_slice(), &[3], &[17], &[2], &[0], &[]] {
            assert_ne!(why(&modulus(256), exponent), "", "{exponent:?}");
        }
        assert_ne!(why(&modulus(2048), &[1, 0, 1]), "");
        assert_ne!(why(&[], &[1, 0, 1]), "");
    }

    #[test]
    fn points_off_the_curve_are_no_keys() {
        let from = |x: &[u8], y: &[u8]| VerifyingKey::from_point(KeyType::P256, x, y);
        assert!(from(&[1; 32], &[1; 32]).is_err());
        assert!(from(&[0; 32], &[0; 32]).is_err());
        assert!(from(&[1; 31], &[1; 33]).is_err());
        assert!(VerifyingKey::from_point(KeyType::Rsa, &[], &[]).is_err());
    }

    const ALL: [SignatureAlgorithm; 13] = [
        SignatureAlgorithm::Ed25519,
        SignatureAlgorithm::EcdsaP256Sha1,
        SignatureAlgorithm::EcdsaP256Sha256,
        SignatureAlgorithm::EcdsaP256Sha256Raw,
        SignatureAlgorithm::EcdsaP384Sha384,
        SignatureAlgorithm::EcdsaP384Sha384Raw,
        SignatureAlgorithm::RsaSha1,
        SignatureAlgorithm::RsaSha256,
        SignatureAlgorithm::RsaSha384,
        SignatureAlgorithm::RsaSha512,
        SignatureAlgorithm::RsaPssSha256,
        SignatureAlgorithm::RsaPssSha384,
        SignatureAlgorithm::RsaPssSha512,
    ];

    fn made(key_type: KeyType) -> SigningKey {
        let ecdsa = |algorithm| {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            SigningKey::from_der(pair.to_pkcs8v1().unwrap().as_ref()).unwrap()
        };
        match key_type {
            KeyType::Ed25519 => SigningKey::from_seed(&[7; 32]).unwrap(),
            KeyType::P256 => ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyType::P384 => ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyType::Rsa => {
                let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
                SigningKey(Pair::Rsa(pair))
            }
        }
    }

    #[test]
    fn what_is_signed_verifies_and_as_nothing_else() {
        for key_type in [KeyType::Ed25519, KeyType::P256, KeyType::P384, KeyType::Rsa] {
            let key = made(key_type);
            let public = key.verifying_key().unwrap();
            let stranger = made(key_type).verifying_key().unwrap();
            for algorithm in ALL {
                let signature = key.sign(algorithm, &[b"con", b"", b"tent"]);
                let may =
                    algorithm.key_type() == key_type && algorithm != SignatureAlgorithm::RsaSha1;
                assert_eq!(signature.is_some(), may, "{key_type:?} {algorithm:?}");
                let Some(signature) = signature else { continue };
                for other in ALL {
                    let holds = public.verify(other, &[b"content"], &signature);
                    assert_eq!(holds, other == algorithm, "{algorithm:?} as {other:?}");
                }
                assert!(!public.verify(algorithm, &[b"Content"], &signature));
                let same = stranger == public;
                assert_eq!(stranger.verify(algorithm, &[b"content"], &signature), same);
            }
        }
    }

    #[test]
    fn an_rsa_key_declared_for_pss_does_nothing_else() {
        let key = made(KeyType::Rsa);
        let public = key.verifying_key().unwrap();
        let (_, info) = SubjectPublicKeyInfo::from_der(public.spki()).unwrap();
        let bits = [[0].as_slice(), &info.subject_public_key.data].concat();
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
        let id = hex::<13>("300b06092a864886f70d01010a");
        let inner = [&id, [3, 0x82].as_slice(), &length(&bits), &bits].concat();
        let spki = [[0x30, 0x82].as_slice(), &length(&inner), &inner].concat();
        let declared = VerifyingKey::from_spki(&spki).unwrap();
        let holds = |algorithm| {
            let signature = key.sign(algorithm, &[b"content"]).unwrap();
            declared.verify(algorithm, &[b"content"], &signature)
        };
        assert!(holds(SignatureAlgorithm::RsaPssSha512));
        assert!(!holds(SignatureAlgorithm::RsaSha256));
    }

    /// RFC 9421's own test key is written so.
    #[test]
    fn a_private_rsa_key_may_declare_itself_for_pss() {
        let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let plain = hex::<15>("300d06092a864886f70d0101010500");
        let pss = hex::<13>("300b06092a864886f70d01010a");
        let at = pkcs8
            .as_ref()
            .windows(15)
            .position(|bytes| bytes == plain)
            .unwrap();
        let (start, rest) = pkcs8.as_ref().split_at(at);
        let mut declared = [start, &pss, &rest[15..]].concat();
        let length = u16::try_from(declared.len() - 4).unwrap().to_be_bytes();
        declared[2..4].copy_from_slice(&length);
        let key = SigningKey::from_der(&declared).unwrap();
        let same = VerifyingKey::from_rsa(pair.public_key().as_ref()).unwrap();
        assert!(key.verifying_key().unwrap() == same);
    }
}
