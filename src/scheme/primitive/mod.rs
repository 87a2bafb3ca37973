//! The one door to the cryptography of schemes.
//!
//! `mac.rs` is what both sides know a secret for, `public.rs` and `private.rs` what one side signs,
//! `certificate.rs` what a third side vouches for. Digests and comparisons are here.

use aws_lc_rs::digest as vectored;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use sha3::Keccak256;
use subtle::ConstantTimeEq;

mod algorithm;
mod certificate;
mod edwards;
mod mac;
mod private;
mod public;

pub use algorithm::{KeyType, SignatureAlgorithm};
pub(super) use certificate::{Certificate, Usage, anchor, verify_chain};
pub(super) use mac::{Hash, Mac, MacKey, Tag};
pub(super) use private::SigningKey;
pub(super) use public::VerifyingKey;

/// A plain digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    Keccak256,
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    /// The digest that templates call so.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "keccak256" => Self::Keccak256,
            "md5" => Self::Md5,
            "sha1" => Self::Sha1,
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            _ => return None,
        })
    }

    /// Bytes of a digest.
    pub(super) const fn tag_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Keccak256 | Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of parts, one after the other.
    pub(super) fn of<'a>(self, parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        if let Some(algorithm) = self.vectored() {
            return run_vectored(algorithm, parts);
        }
        match self {
            Self::Keccak256 => run::<Keccak256>(parts),
            Self::Md5 => run::<Md5>(parts),
            Self::Sha1 => run::<Sha1>(parts),
            Self::Sha256 => run::<Sha256>(parts),
            Self::Sha384 => run::<Sha384>(parts),
            Self::Sha512 => run::<Sha512>(parts),
        }
    }

    /// What aws-lc calls it, where that is the faster one.
    fn vectored(self) -> Option<&'static vectored::Algorithm> {
        let (hash, algorithm) = match self {
            Self::Keccak256 | Self::Md5 => return None,
            Self::Sha1 => (Hash::Sha1, &vectored::SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha256 => (Hash::Sha256, &vectored::SHA256),
            Self::Sha384 => (Hash::Sha384, &vectored::SHA384),
            Self::Sha512 => (Hash::Sha512, &vectored::SHA512),
        };
        hash.is_vectored().then_some(algorithm)
    }
}

fn run_vectored<'a>(
    algorithm: &'static vectored::Algorithm,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut state = vectored::Context::new(algorithm);
    for part in parts {
        state.update(part);
    }
    state.finish().as_ref().to_vec()
}

fn run<'a, D: sha2::Digest>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut state = D::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().as_slice().to_vec()
}

/// Whether two tags of public length are the same, in constant time.
pub(super) fn same_tag(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Whether two secrets are the same. Their digests are compared, so that neither the bytes nor the
/// length of the right one show in the time (SECURITY A-09).
pub(super) fn same_secret(a: &[u8], b: &[u8]) -> bool {
    Sha256::digest(a).ct_eq(&Sha256::digest(b)).into()
}

/// SHA-256 over parts that cannot run into each other: each is led by its length.
pub fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

/// A digest under way that tells contents apart. Of a body in it goes in its BLAKE3 digest, which takes a
/// third of the time of SHA-256 from 20 KiB on. Only of a body by itself: behind other bytes BLAKE3 cannot
/// hash several of its blocks at once, and is no faster.
pub(super) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Begins with a label; other labels, other digests.
    pub(super) fn labelled(label: &[u8]) -> Self {
        let mut sha = Sha256::new();
        sha.update((label.len() as u64).to_be_bytes());
        sha.update(label);
        Self(sha)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    /// The body, however it is cut into frames.
    pub(super) fn update_body<'a>(&mut self, frames: impl IntoIterator<Item = &'a [u8]>) {
        let mut body = blake3::Hasher::new();
        for frame in frames {
            body.update(frame);
        }
        self.update(body.finalize().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }

    #[test]
    fn a_fingerprint_depends_on_the_body_and_not_on_its_frames() {
        let of = |label: &[u8], before: &[u8], frames: &[&[u8]]| {
            let mut fingerprint = Fingerprint::labelled(label);
            fingerprint.update(before);
            fingerprint.update_body(frames.iter().copied());
            fingerprint.finish()
        };
        let one = of(b"l", b"1.", &[b"abc"]);
        assert_eq!(one, of(b"l", b"1.", &[b"a", b"", b"bc"]));
        assert_ne!(one, of(b"l", b"1.", &[b"abd"]));
        assert_ne!(one, of(b"l", b"1.a", &[b"bc"]));
        assert_ne!(one, of(b"m", b"1.", &[b"abc"]));
    }

    #[test]
    fn both_implementations_of_sha_agree() {
        let content: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for length in 0..=content.len() {
            let parts = || [&content[..length / 3], &[], &content[length / 3..length]];
            let pairs = [
                (run::<Sha1>(parts()), &vectored::SHA1_FOR_LEGACY_USE_ONLY),
                (run::<Sha256>(parts()), &vectored::SHA256),
                (run::<Sha384>(parts()), &vectored::SHA384),
                (run::<Sha512>(parts()), &vectored::SHA512),
            ];
            for (plain, algorithm) in pairs {
                assert_eq!(plain, run_vectored(algorithm, parts()), "{length} bytes");
            }
        }
    }

    #[test]
    fn digests_of_abc_in_two_frames() {
        let hex = |kind: Digest| HEXLOWER.encode(&kind.of([b"a".as_slice(), b"bc"]));
        assert_eq!(hex(Digest::Md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            hex(Digest::Sha1),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        assert_eq!(
            hex(Digest::Sha256),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(hex(Digest::Sha384).starts_with("cb00753f45a35e8bb5a03d699ac65007"));
        assert!(hex(Digest::Sha512).starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(
            hex(Digest::Keccak256),
            "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"
        );
    }
}
