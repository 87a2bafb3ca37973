//! Private keys of Ed25519, ECDSA and RSA: what `sign` and `send` sign with.

use std::fmt;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use x509_parser::asn1_rs::{Integer, OctetString, Sequence};
use x509_parser::prelude::FromDer;
use x509_parser::x509::AlgorithmIdentifier;
use zeroize::Zeroizing;

use super::algorithm::{KeyType, SignatureAlgorithm};
use super::public::{ID_RSA_PSS, VerifyingKey};

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

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use data_encoding::HEXLOWER_PERMISSIVE as HEX;
    use x509_parser::x509::SubjectPublicKeyInfo;

    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        HEX.decode(text.as_bytes()).unwrap().try_into().unwrap()
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
