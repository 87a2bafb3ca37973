//! HMAC: what both sides know a secret for.

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
}

/// A tag, or what is offered as one: room for the longest, and a heap for signatures by key pairs.
pub(in crate::scheme) type Tag = SmallVec<[u8; 64]>;

/// An HMAC under way.
#[derive(Clone)]
pub(in crate::scheme) enum Mac {
    Md5(Hmac<Md5>),
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl Mac {
    pub(in crate::scheme) fn new(hash: Hash, key: &[u8]) -> Self {
        match hash {
            Hash::Md5 => Self::Md5(keyed(key)),
            Hash::Sha1 => Self::Sha1(keyed(key)),
            Hash::Sha256 => Self::Sha256(keyed(key)),
            Hash::Sha384 => Self::Sha384(keyed(key)),
            Hash::Sha512 => Self::Sha512(keyed(key)),
        }
    }

    pub(in crate::scheme) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(mac) => mac.update(bytes),
            Self::Sha1(mac) => mac.update(bytes),
            Self::Sha256(mac) => mac.update(bytes),
            Self::Sha384(mac) => mac.update(bytes),
            Self::Sha512(mac) => mac.update(bytes),
        }
    }

    /// The whole tag; never a shortened one.
    pub(in crate::scheme) fn finish(self) -> Tag {
        match self {
            Self::Md5(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha1(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha256(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha384(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha512(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
        }
    }
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

    use super::*;

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
