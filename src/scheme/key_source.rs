//! Where a provider publishes its keys.

use http::HeaderMap;

use super::https_url::{KeyUrl, NamedKeyUrl};
use super::jwt::{NO_TOKEN, presented_token};
use super::{Message, Proof, Scheme, SignatureError};

/// Where keys come from, beside the configuration.
#[derive(Clone, Debug)]
pub(super) enum KeySource {
    /// One URL, for all requests.
    Fixed(KeyUrl),
    /// The URL of a certificate, which a header field names.
    Named(NamedKeyUrl),
}

impl KeySource {
    /// A URL that a request names must be one of the provider's, also where pinned keys make its
    /// fetch needless (SECURITY A-35).
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), SignatureError> {
        match self {
            Self::Named(named) if headers.contains_key(named.header()) => {
                named.of(headers).map(drop)
            }
            Self::Fixed(_) | Self::Named(_) => Ok(()),
        }
    }
}

impl Scheme {
    /// Whether its provider publishes keys, so that none need be configured.
    pub fn publishes_keys(&self) -> bool {
        self.key_source.is_some() || matches!(self.proof, Proof::AwsSns(_))
    }

    /// The one URL of its provider's keys, where it does not depend on a request.
    pub fn fixed_key_url(&self) -> Option<&KeyUrl> {
        match &self.key_source {
            Some(KeySource::Fixed(url)) => Some(url),
            Some(KeySource::Named(_)) | None => None,
        }
    }

    /// The key that a request says it is signed with: which of a published set it wants. A hint; it
    /// proves nothing.
    pub fn wanted_key_id(&self, message: &Message<'_>) -> Option<String> {
        match (&self.proof, &self.signature) {
            (Proof::HttpSignature(own), _) => own.wanted_key_id(message.headers),
            (Proof::Jwt(_), Some(signature)) => {
                let key_id = self.with_views(message, |views| {
                    let view = views.first().ok_or(NO_TOKEN)?;
                    let presented = signature.read(*view)?;
                    Ok(presented_token(&presented)?.kid().map(str::to_owned))
                });
                key_id.ok().flatten()
            }
            _ => None,
        }
    }

    /// Where the keys for a request are published; `None` where the provider publishes none.
    pub fn key_url(&self, message: &Message<'_>) -> Result<Option<KeyUrl>, SignatureError> {
        match (&self.proof, &self.key_source) {
            (Proof::AwsSns(sns), _) => sns.key_url(message).map(Some),
            (_, Some(KeySource::Fixed(url))) => Ok(Some(url.clone())),
            (_, Some(KeySource::Named(named))) => named.of(message.headers).map(Some),
            (_, None) => Ok(None),
        }
    }
}
