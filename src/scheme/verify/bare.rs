//! Secrets that are sent as they are: tokens and Basic credentials.

use std::borrow::Cow;

use data_encoding::BASE64;
use http::{HeaderMap, header};

use super::{NO_KEY, note_key};
use crate::reason::Reason;
use crate::scheme::keys::KeySet;
use crate::scheme::locate::{Location, View, find};
use crate::scheme::parse::{length_of_prefix, skip};
use crate::scheme::primitive::same_secret;
use crate::scheme::trace::Trace;
use crate::scheme::{Evidence, Scheme, SignatureError};
use crate::units::UnixTime;

impl Scheme {
    /// A secret that is sent as it is.
    pub(super) fn bare(
        &self,
        given: &[Cow<'_, [u8]>],
        view: View<'_>,
        keys: &KeySet,
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<Evidence, SignatureError> {
        let mut usable = keys.usable(now).peekable();
        usable.peek().ok_or(NO_KEY)?;
        let mut proven = None;
        for key in usable {
            let is = |given: &Cow<'_, [u8]>| {
                key.secret_bytes()
                    .is_some_and(|secret| same_secret(secret, given))
            };
            let right = given.iter().all(is);
            note_key(trace, key, right);
            if right {
                proven.get_or_insert(key);
            }
        }
        let key = proven.ok_or(SignatureError::new(
            Reason::CredentialInvalid,
            "the credential is none of the check's",
        ))?;
        self.meets_requirements(view, keys, now, trace)?;
        Ok(self.evidence(view, Some(key), None))
    }

    /// The tokens that a request carries, without their prefix. Never none.
    pub(super) fn tokens<'a>(&self, view: View<'a>) -> Result<Vec<Cow<'a, [u8]>>, SignatureError> {
        let missing = SignatureError::new(Reason::CredentialMissing, "the token is missing");
        let signature = self.signature.as_ref().ok_or(missing)?;
        let mut tokens = Vec::new();
        for place in &signature.places {
            let value = find(std::slice::from_ref(place), view).map_err(|why| {
                why.refused(
                    Reason::CredentialInvalid,
                    "the token stands more than once",
                    "the token's body cannot be read",
                )
            })?;
            let Some(value) = value else { continue };
            // A prefix such as `Bearer ` belongs to a header field; elsewhere the token is bare.
            let prefix = signature
                .prefix
                .as_ref()
                .filter(|_| matches!(place, Location::Header(_)));
            let token = match prefix.map(|prefix| length_of_prefix(prefix, &value)) {
                None => value,
                Some(Some(length)) => skip(value, length),
                Some(None) if signature.prefix_optional => value,
                Some(None) => {
                    let detail = "the token is not written as the scheme writes it";
                    return Err(SignatureError::new(Reason::CredentialInvalid, detail));
                }
            };
            if !token.is_empty() {
                tokens.push(token);
            }
        }
        if tokens.is_empty() {
            Err(missing)
        } else {
            Ok(tokens)
        }
    }
}

/// `user:password` of `Authorization: Basic` (RFC 7617).
pub(super) fn basic_credentials(headers: &HeaderMap) -> Result<Vec<u8>, SignatureError> {
    let missing = SignatureError::new(Reason::CredentialMissing, "Basic credentials are missing");
    let invalid = |detail| SignatureError::new(Reason::CredentialInvalid, detail);
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next().ok_or(missing)?;
    if fields.next().is_some() {
        return Err(invalid("the credential stands in more than one field"));
    }
    let field = field.as_bytes();
    let blank = field
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(field.len());
    let (scheme, encoded) = field.split_at(blank);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(missing);
    }
    let decoded = BASE64
        .decode(encoded.trim_ascii_start())
        .map_err(|_bad| invalid("Basic credentials are not base64"))?;
    if decoded.contains(&b':') {
        Ok(decoded)
    } else {
        Err(invalid("Basic credentials lack a `:`"))
    }
}
