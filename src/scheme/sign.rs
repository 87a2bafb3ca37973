//! The inverse of `verify.rs`: the request that the provider would send.

use super::keys::Key;
use super::{Scheme, SenderUrl};
use crate::units::UnixTime;

/// A request to sign: what the operator gave.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Method.
    pub method: http::Method,
    /// The URL as the sender calls it.
    pub url: SenderUrl,
    /// Header fields, in order.
    pub headers: Vec<(String, String)>,
    /// Body bytes.
    pub body: Vec<u8>,
}

/// Why a request cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignError(pub String);

impl Scheme {
    /// Completes `draft` so that [`Scheme::verify`] accepts it at `now`: timestamp, id and signature
    /// are added where they are absent. Ids are drawn from `seed`.
    pub fn sign(&self, _draft: Draft, _key: &Key, _now: UnixTime) -> Result<Draft, SignError> {
        unimplemented!()
    }
}
