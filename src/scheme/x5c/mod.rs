//! Certificate chains: a key is believed because a pinned root vouches for it.

use rustls::pki_types::TrustAnchor;

use super::keys::{Key, KeySet};
use super::primitive::{Certificate, Usage, anchor, verify_chain};
use super::public_key::PublicKey;
use super::{SignatureError, malformed};
use crate::reason::Reason;
use crate::units::UnixTime;

/// Certificates in a token: leaf, intermediate and root.
const CHAIN: usize = 3;
/// Most certificates that a fetched chain may have.
const MAX_FETCHED: usize = 8;
const NO_ROOT: &str = "the chain does not lead to a trusted root";

/// What certificates of a chain must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainRules {
    /// Object identifier of an extension of the leaf, such as `1.2.840.113635.100.6.11.1`.
    pub leaf_oid: Option<String>,
    /// Object identifier of an extension of the intermediate.
    pub intermediate_oid: Option<String>,
}

/// A leaf that a pinned root vouches for.
#[derive(Clone, Debug)]
pub struct Vouched<'k> {
    /// The leaf's key.
    pub leaf: PublicKey,
    /// The configured root.
    pub root: &'k Key,
}

/// The leaf's key of a chain in a token's header, which must lead to one of `roots` at `now`:
/// exactly leaf, intermediate and root, all within their validity. `roots` are pinned certificates,
/// or pinned keys that the chain's last certificate must be about.
pub fn leaf_key<'k>(
    chain: &[Vec<u8>],
    roots: &'k KeySet,
    rules: &ChainRules,
    now: UnixTime,
) -> Result<Vouched<'k>, SignatureError> {
    if chain.len() != CHAIN {
        return Err(malformed("the chain is not leaf, intermediate and root"));
    }
    let read: Vec<Certificate> = chain
        .iter()
        .map(|der| Certificate::parse(der).map_err(malformed))
        .collect::<Result<_, _>>()?;
    let [leaf, intermediate, last] = read.as_slice() else {
        return Err(malformed("the chain is not leaf, intermediate and root"));
    };
    if !has(leaf, rules.leaf_oid.as_deref()) {
        return Err(mismatch("the leaf is made for something else"));
    }
    if !has(intermediate, rules.intermediate_oid.as_deref()) {
        return Err(mismatch("the intermediate is made for something else"));
    }
    let key = PublicKey::from_certificate(&leaf.der).or(Err(malformed(
        "the leaf's key is of no kind that signs here",
    )))?;
    let mut why = mismatch(NO_ROOT);
    for root in roots.usable(now) {
        match lead_to(root, leaf, intermediate, last, now) {
            Ok(()) => return Ok(Vouched { leaf: key, root }),
            Err(detail) => why = mismatch(detail),
        }
    }
    Err(why)
}

/// Whether leaf and intermediate lead to this root and to no other.
fn lead_to(
    root: &Key,
    leaf: &Certificate,
    intermediate: &Certificate,
    last: &Certificate,
    now: UnixTime,
) -> Result<(), &'static str> {
    let pinned = root.public_key().ok_or("the root is not a public key")?;
    let about_pinned = PublicKey::from_certificate(&last.der).is_ok_and(|last| last == *pinned);
    if !about_pinned {
        return Err(NO_ROOT);
    }
    let trusted = pinned.certificate().unwrap_or(last);
    if !trusted.is_valid_at(now) {
        return Err("the root is not within its validity");
    }
    let trust = anchor(&trusted.der).ok_or("the root is not a certificate of an authority")?;
    let path = verify_chain(&leaf.der, &[&intermediate.der], &[trust], Usage::Any, now)?;
    // A leaf straight under the root would make the intermediate decoration.
    if path == [intermediate.der.as_slice()] {
        Ok(())
    } else {
        Err("the leaf is not from the intermediate")
    }
}

/// The key of a fetched certificate, which must be a server's of this DNS name, and lead to one of
/// `roots` over the certificates that came after it, at `now`. All in DER, leaf first.
pub fn certificate_valid_for(
    chain: &[Vec<u8>],
    name: &str,
    roots: &[TrustAnchor<'_>],
    now: UnixTime,
) -> Result<PublicKey, String> {
    let (leaf, between) = chain.split_first().ok_or("no certificate")?;
    if chain.len() > MAX_FETCHED {
        return Err(format!("more than {MAX_FETCHED} certificates"));
    }
    let between: Vec<&[u8]> = between.iter().map(Vec::as_slice).collect();
    verify_chain(leaf, &between, roots, Usage::Server(name), now)?;
    PublicKey::from_certificate(leaf)
}

fn has(certificate: &Certificate, oid: Option<&str>) -> bool {
    oid.is_none_or(|oid| certificate.has_extension(oid))
}

const fn mismatch(detail: &'static str) -> SignatureError {
    SignatureError::new(Reason::SignatureMismatch, detail)
}

#[cfg(test)]
mod tests;
