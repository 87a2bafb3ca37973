//! The ways to sign with a private key, and which keys fit them.

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::{self, RsaEncoding, VerificationAlgorithm};

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
    pub(super) fn digest(self) -> Option<&'static digest::Algorithm> {
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

    /// As the library calls it.
    pub(super) fn verification(self) -> &'static dyn VerificationAlgorithm {
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
    pub(super) fn rsa_encoding(self) -> Option<&'static dyn RsaEncoding> {
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
    pub(super) const fn is_raw(self) -> bool {
        matches!(self, Self::EcdsaP256Sha256Raw | Self::EcdsaP384Sha384Raw)
    }

    /// The digest of content in parts.
    pub(super) fn digest_of(self, content: &[&[u8]]) -> Option<Digest> {
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
    pub(super) const fn reader(self) -> SignatureAlgorithm {
        match self {
            Self::Ed25519 => SignatureAlgorithm::Ed25519,
            Self::P256 => SignatureAlgorithm::EcdsaP256Sha256,
            Self::P384 => SignatureAlgorithm::EcdsaP384Sha384,
            Self::Rsa => SignatureAlgorithm::RsaSha256,
        }
    }
}
