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
            ID_ED25519 => Self::from_ed25519(&info.subject_public_key.data),
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
