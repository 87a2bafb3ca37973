//! Public keys of Ed25519, ECDSA and RSA, and signatures in their strict forms only.
//!
//! A key is held as its canonical `SubjectPublicKeyInfo`, whatever it was written as: two spellings
//! of one key are one key.

use std::borrow::Cow;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::algorithm::{KeyType, SignatureAlgorithm};
use super::edwards;

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
pub(super) const ID_RSA_PSS: &str = "1.2.840.113549.1.1.10";

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
        if !edwards::is_honest(&point) {
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

    pub(super) fn read(key_type: KeyType, bytes: &[u8]) -> Result<Self, String> {
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
        self.verify_any(algorithm, content, std::iter::once(signature))
    }

    /// Whether one of `signatures` is of `content` (in parts) by this key.
    pub(in crate::scheme) fn verify_any<'s>(
        &self,
        algorithm: SignatureAlgorithm,
        content: &[&[u8]],
        mut signatures: impl Iterator<Item = &'s [u8]>,
    ) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        let library = algorithm.verification();
        if let Some(digest) = algorithm.digest_of(content) {
            return signatures.any(|signature| {
                let verdict = library.verify_digest_sig(&self.spki, &digest, signature);
                verdict.is_ok()
            });
        }
        let content = match content {
            [one] => Cow::Borrowed(*one),
            parts => Cow::Owned(parts.concat()),
        };
        signatures.any(|signature| {
            edwards::starts_honest(signature)
                && library.verify_sig(&self.spki, &content, signature).is_ok()
        })
    }
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::VerificationAlgorithm as _;
    use data_encoding::HEXLOWER_PERMISSIVE as HEX;

    use super::*;
    use crate::scheme::primitive::private::SigningKey;

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
}
