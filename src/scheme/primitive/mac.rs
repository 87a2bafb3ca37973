//! HMAC: what both sides know a secret for.

use aws_lc_rs::hmac as vectored;
use hmac::{Hmac, KeyInit, Mac as _};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use smallvec::SmallVec;

/// A hash under HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheme) enum Hash {
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// Bytes of a tag.
    pub(in crate::scheme) const fn tag_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Whether aws-lc has faster code for it than `sha1` and `sha2` on this processor. Where there are instructions
    /// for SHA-1 and SHA-256, both are equally fast. Where there are none, as in Intel's servers before 2021,
    /// aws-lc's vector code takes 55 to 60 % of the time of portable code, for SHA-512 75 % (docs/performance.md).
    pub(super) fn is_vectored(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Md5 => false,
            Self::Sha1 | Self::Sha256 => !std::arch::is_x86_feature_detected!("sha"),
            Self::Sha384 | Self::Sha512 => true,
        };
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// A tag, or what is offered as one: room for the longest, and a heap for signatures by key pairs.
pub(in crate::scheme) type Tag = SmallVec<[u8; 64]>;

/// A secret that is ready for its HMACs.
#[derive(Clone)]
pub(in crate::scheme) enum MacKey {
    Plain(Box<Plain>),
    Vectored(Box<vectored::Key>),
}

/// An HMAC under way.
#[expect(
    clippy::large_enum_variant,
    reason = "the usual one costs no allocation; the other is four times as large"
)]
pub(in crate::scheme) enum Mac {
    Plain(Plain),
    Vectored(Box<vectored::Context>),
}

/// By portable code, or the processor's instructions for SHA.
#[derive(Clone)]
pub(in crate::scheme) enum Plain {
    Md5(Hmac<Md5>),
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl MacKey {
    pub(in crate::scheme) fn new(hash: Hash, secret: &[u8]) -> Self {
        match algorithm(hash).filter(|_| hash.is_vectored()) {
            Some(algorithm) => Self::Vectored(Box::new(vectored::Key::new(algorithm, secret))),
            None => Self::Plain(Box::new(Plain::new(hash, secret))),
        }
    }

    /// An HMAC without content yet.
    pub(in crate::scheme) fn begin(&self) -> Mac {
        match self {
            Self::Plain(mac) => Mac::Plain((**mac).clone()),
            Self::Vectored(key) => Mac::Vectored(Box::new(vectored::Context::with_key(key))),
        }
    }
}

impl Mac {
    pub(in crate::scheme) fn new(hash: Hash, secret: &[u8]) -> Self {
        MacKey::new(hash, secret).begin()
    }

    pub(in crate::scheme) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(mac) => mac.update(bytes),
            Self::Vectored(mac) => mac.update(bytes),
        }
    }

    /// The whole tag; never a shortened one.
    pub(in crate::scheme) fn finish(self) -> Tag {
        match self {
            Self::Plain(mac) => mac.finish(),
            Self::Vectored(mac) => Tag::from_slice(mac.sign().as_ref()),
        }
    }
}

impl Plain {
    fn new(hash: Hash, secret: &[u8]) -> Self {
        match hash {
            Hash::Md5 => Self::Md5(keyed(secret)),
            Hash::Sha1 => Self::Sha1(keyed(secret)),
            Hash::Sha256 => Self::Sha256(keyed(secret)),
            Hash::Sha384 => Self::Sha384(keyed(secret)),
            Hash::Sha512 => Self::Sha512(keyed(secret)),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(mac) => mac.update(bytes),
            Self::Sha1(mac) => mac.update(bytes),
            Self::Sha256(mac) => mac.update(bytes),
            Self::Sha384(mac) => mac.update(bytes),
            Self::Sha512(mac) => mac.update(bytes),
        }
    }

    fn finish(self) -> Tag {
        match self {
            Self::Md5(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha1(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha256(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha384(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha512(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
        }
    }
}

/// What aws-lc calls it.
fn algorithm(hash: Hash) -> Option<vectored::Algorithm> {
    Some(match hash {
        Hash::Md5 => return None,
        Hash::Sha1 => vectored::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => vectored::HMAC_SHA256,
        Hash::Sha384 => vectored::HMAC_SHA384,
        Hash::Sha512 => vectored::HMAC_SHA512,
    })
}

#[expect(
    clippy::expect_used,
    reason = "HMAC takes keys of any length (RFC 2104 section 3)"
)]
fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("a key of any length")
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    proptest! {
        /// Whichever of the two a processor gets, the tags are the same.
        #[test]
        fn both_implementations_agree(
            secret in vec(any::<u8>(), 0..200),
            content in vec(any::<u8>(), 0..400),
            cut in any::<Index>(),
        ) {
            let (first, second) = content.split_at(cut.index(content.len() + 1));
            for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512] {
                let mut plain = Plain::new(hash, &secret);
                plain.update(first);
                plain.update(second);
                let key = vectored::Key::new(algorithm(hash).unwrap(), &secret);
                let mut mac = MacKey::Vectored(Box::new(key)).begin();
                mac.update(first);
                mac.update(second);
                prop_assert_eq!(plain.finish(), mac.finish(), "{:?}", hash);
            }
        }
    }

    #[test]
    fn rfc_4231_and_rfc_2202_case_2() {
        let tag = |hash: Hash| {
            let mut mac = Mac::new(hash, b"Jefe");
            mac.update(b"what do ya want ");
            mac.update(b"for nothing?");
            let tag = mac.finish();
            assert_eq!(tag.len(), hash.tag_bytes());
            HEXLOWER.encode(&tag)
        };
        assert_eq!(tag(Hash::Md5), "750c783e6ab0b503eaa86e310a5db738");
        assert_eq!(tag(Hash::Sha1), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert!(tag(Hash::Sha256).starts_with("5bdcc146bf60754e6a042426089575c7"));
        assert!(tag(Hash::Sha384).starts_with("af45d2e376484031617f78d2b58a6b1b"));
        assert!(tag(Hash::Sha512).starts_with("164b7a7bfcf819e2e395fbe73b56e0a3"));
    }
}
