//! Scheme × message × keys × now → evidence, or the reason why not.
//!
//! The order of judgement is fixed: missing, malformed, timestamp missing or malformed, mismatch, and
//! only then stale or ahead; so a wrong signature is never called a stale one.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, Method};
use smallvec::SmallVec;

use super::aws_sns::AwsSns;
use super::keys::{Key, KeySet};
use super::locate::{Location, Unreadable, View, find};
use super::parse::{Candidates, Offered, Presented, SignatureForm};
use super::primitive::{Hash, SignatureAlgorithm, Tag, same_tag};
use super::protocol::{Verified, note};
use super::public_key::SHA1_IS_NOT_SIGNED;
use super::template::Scope;
use super::timestamp::Stamp;
use super::trace::StepResult::{Failed, Ok as Fine, Skipped};
use super::trace::Trace;
use super::url_form::Spelling;
use super::{
    Evidence, Message, Part, Proof, Require, Scheme, SenderUrl, SignatureError, SignedContent,
    Timestamp, malformed,
};
use crate::reason::Reason;
use crate::units::UnixTime;

mod bare;
mod views;

use bare::basic_credentials;

/// Most signatures by key pairs that one request may offer: unlike an HMAC, each costs a computation of its own,
/// with Ed25519 one over the whole content (SECURITY DS-29).
const PUBLIC_CANDIDATES_MAX: usize = 4;

/// Longest event id that is passed on, in bytes.
const EVENT_ID_BYTES_MAX: usize = 256;

const NO_KEY: SignatureError = SignatureError::new(
    Reason::KeyUnavailable,
    "no key of the check counts: it has none, or all have passed `not_after`",
);

const MISMATCH: SignatureError = SignatureError::new(
    Reason::SignatureMismatch,
    "the signature is not of this content under any of the keys",
);

impl Scheme {
    /// Judges what the head alone can tell: an absent or unreadable signature is refused before a
    /// body byte is read. Passing says nothing yet.
    pub fn precheck(
        &self,
        method: &Method,
        url: &SenderUrl,
        headers: &HeaderMap,
    ) -> Result<(), SignatureError> {
        let view = View::of_head(method, url, headers);
        if self.each.is_some() {
            return Ok(());
        }
        match (&self.proof, &self.signature) {
            (Proof::AwsSns(_), _) => AwsSns::precheck(headers),
            (Proof::HttpSignature(own), _) => own.precheck(headers),
            (Proof::None, _) | (_, None) if !matches!(self.proof, Proof::Basic) => Ok(()),
            (Proof::Basic, _) | (_, None) => basic_credentials(headers).map(drop),
            (_, Some(signature)) if !signature.is_in_head() => Ok(()),
            (Proof::Token, Some(_)) => self.tokens(view).map(drop),
            (Proof::Jwt(_), Some(signature)) => signature.read(view).map(drop),
            (_, Some(signature)) => {
                let presented = signature.read(view)?;
                self.candidates(signature, &presented)?;
                let view = View {
                    items: &presented.items,
                    ..view
                };
                let in_head = |own: &Timestamp| !own.places.iter().any(Location::is_in_body);
                match self.timestamp.as_ref().filter(|own| in_head(own)) {
                    Some(timestamp) => timestamp.read(view).map(drop),
                    None => Ok(()),
                }
            }
        }
    }

    /// Judges a complete request.
    pub fn verify(
        &self,
        message: &Message<'_>,
        keys: &KeySet,
        now: UnixTime,
    ) -> Result<Evidence, SignatureError> {
        self.verify_traced(message, keys, now, &mut Trace::off())
    }

    /// As [`Scheme::verify`], noting each step.
    pub fn verify_traced(
        &self,
        message: &Message<'_>,
        keys: &KeySet,
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<Evidence, SignatureError> {
        self.with_views(message, |views| {
            if let (Some(_), Some(view)) = (&self.each, views.first()) {
                let of_all = |require: &&Require| require.each.is_some();
                let of_all = self.require.iter().filter(of_all);
                self.meets(of_all, *view, keys, now, trace)?;
            }
            let mut evidence: Option<Evidence> = None;
            for view in views {
                let own = self.judge(*view, keys, now, trace)?;
                match &mut evidence {
                    None => evidence = Some(own),
                    Some(first) => first.signed.extend(own.signed),
                }
            }
            evidence.ok_or(malformed("the body holds no item to verify"))
        })
    }

    fn judge(
        &self,
        view: View<'_>,
        keys: &KeySet,
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<Evidence, SignatureError> {
        match &self.proof {
            Proof::None => {
                trace.note("proof", Skipped, || {
                    "this provider proves nothing".to_owned()
                });
                Ok(self.evidence(view, None, None))
            }
            Proof::Basic => {
                let given = basic_credentials(view.headers);
                let given = traced("credentials", given, trace)?;
                self.bare(&[Cow::Owned(given)], view, keys, now, trace)
            }
            Proof::Token => {
                let given = traced("token", self.tokens(view), trace)?;
                self.bare(&given, view, keys, now, trace)
            }
            Proof::AwsSns(sns) => with_usable(keys, now, |keys| {
                sns.verify(&view.message()?, keys, now, trace)
            }),
            Proof::HttpSignature(own) => with_usable(keys, now, |keys| {
                own.verify(&view.message()?, keys, now, trace)
            }),
            Proof::Jwt(jwt) => self.token(jwt, view, keys, now, trace),
            Proof::Digest(_) | Proof::Mac(_) | Proof::Public(_) => {
                self.signed(view, keys, now, trace)
            }
        }
    }

    fn signed(
        &self,
        view: View<'_>,
        keys: &KeySet,
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<Evidence, SignatureError> {
        let signature = self
            .signature
            .as_ref()
            .ok_or(malformed("the scheme has no signature"))?;
        let presented = traced("signature", signature.read(view), trace)?;
        let view = View {
            items: &presented.items,
            ..view
        };
        let candidates = self.candidates(signature, &presented);
        let candidates = traced("encoding", candidates, trace)?;
        let stamp = traced("timestamp", self.stamp(view), trace)?;
        let id = traced("id", self.signed_id(view), trace)?;
        self.meets_requirements(view, keys, now, trace)?;
        if let Some(source) = &self.key_source {
            traced("key_url", source.check(view.headers), trace)?;
        }
        traced("body", self.body_is_covered(view), trace)?;

        let mut usable = keys.usable(now).peekable();
        usable.peek().ok_or(NO_KEY)?;
        let urls = self.spellings(view)?;
        let mut tags = self.identity.by_tag.then(SmallVec::new);
        let mut proven = None;
        for (position, key) in keys
            .all()
            .iter()
            .enumerate()
            .filter(|(_, key)| key.is_usable(now))
        {
            // Where keys and places are paired, a key counts for the signature in its own place only.
            let own: Cow<'_, [Offered<Tag>]> = if signature.paired {
                candidates
                    .iter()
                    .filter(|offered| offered.place == position)
                    .cloned()
                    .collect()
            } else {
                Cow::Borrowed(&candidates)
            };
            let scope = Scope {
                view,
                url: "",
                without_path: false,
                timestamp: stamp.as_ref().map(|(text, _)| &**text),
                id: id.as_deref(),
                secret: Some(key.bytes()),
            };
            let signed = self.signed_content(&scope, &urls, key, &own, tags.as_mut())?;
            note_key(trace, key, signed.is_some());
            // Whether the first or the last key fits takes the same time (SECURITY A-13).
            if let Some(signed) = signed {
                proven.get_or_insert((key, signed));
            }
        }
        let (key, signed) = proven.ok_or(MISMATCH)?;
        let signed_at = stamp.map(|(_, time)| time);
        if let (Some(timestamp), Some(time)) = (&self.timestamp, signed_at) {
            traced("freshness", timestamp.judge(time, now), trace)?;
        }
        let mut evidence = self.evidence(view, Some(key), signed_at);
        evidence.signed.push(signed);
        evidence.tags = tags.unwrap_or_default();
        Ok(evidence)
    }

    /// Which of the contents, in which of the spellings of the URL, is signed by `key`. A content that
    /// cannot be built is no content; only where none can is the request malformed.
    fn signed_content(
        &self,
        scope: &Scope<'_>,
        urls: &[Spelling],
        key: &Key,
        offered: &[Offered<Tag>],
        mut tags: Option<&mut SmallVec<[Tag; 1]>>,
    ) -> Result<Option<SignedContent>, SignatureError> {
        let mut verdict = Ok(None);
        let mut any_built = false;
        for (content, parts) in self.contents.iter().enumerate() {
            for (url, spelling) in urls.iter().enumerate() {
                let scope = Scope {
                    url: &spelling.url,
                    without_path: spelling.without_path,
                    ..*scope
                };
                match self.matches(parts, &scope, key, offered, tags.as_deref_mut()) {
                    Ok(true) => {
                        self.is_no_challenge(parts, &scope)?;
                        self.is_no_extension(parts, &scope)?;
                        return Ok(Some(SignedContent { content, url }));
                    }
                    Ok(false) => any_built = true,
                    Err(error) => verdict = Err(error),
                }
            }
        }
        if any_built { Ok(None) } else { verdict }
    }

    /// Refuses content that may be a length extension: with the plain hash of a secret and a content, anybody can
    /// append to the content. What they append begins with the padding of the hash, whose byte 0x80 cannot begin
    /// a character of UTF-8. A secret at the end of the content prevents it.
    fn is_no_extension(&self, parts: &[Part], scope: &Scope<'_>) -> Result<(), SignatureError> {
        let ends_in_secret = |part: &Part| part.when.is_certain() && part.text.ends_in_secret();
        if !matches!(self.proof, Proof::Digest(_)) || parts.last().is_some_and(ends_in_secret) {
            return Ok(());
        }
        let without_secret = Scope {
            secret: Some(&[]),
            ..*scope
        };
        let mut content = Vec::new();
        render(parts, &without_secret, &mut content)?;
        if std::str::from_utf8(&content).is_err() {
            return Err(malformed(
                "what is signed is not UTF-8, as what was appended to a plain hash",
            ));
        }
        Ok(())
    }

    /// Refuses content that a handshake would sign for anybody who asks (SECURITY A-46).
    fn is_no_challenge(&self, parts: &[Part], scope: &Scope<'_>) -> Result<(), SignatureError> {
        if self.challenges.is_empty() {
            return Ok(());
        }
        let mut content = Vec::new();
        render(parts, scope, &mut content)?;
        if self.challenges.iter().any(|own| own.fits(&content)) {
            return Err(SignatureError::new(
                Reason::SignatureMismatch,
                "a handshake signs this content for anybody, so it proves nothing",
            ));
        }
        Ok(())
    }

    fn matches(
        &self,
        parts: &[Part],
        scope: &Scope<'_>,
        key: &Key,
        offered: &[Offered<Tag>],
        tags: Option<&mut SmallVec<[Tag; 1]>>,
    ) -> Result<bool, SignatureError> {
        match &self.proof {
            // Anybody could make an HMAC without a secret.
            Proof::Digest(_) | Proof::Mac(_) if key.secret_bytes().is_none() => Ok(false),
            Proof::Mac(own) => {
                // One MAC for each hash that is offered: mostly one.
                let mut done: SmallVec<[(Hash, Tag); 1]> = SmallVec::new();
                let mut is_right = false;
                for Offered { hash, value, .. } in offered {
                    let hash = hash.unwrap_or(*own);
                    if !done.iter().any(|(known, _)| *known == hash) {
                        let mut mac = key.mac(hash);
                        render(parts, scope, &mut mac)?;
                        done.push((hash, mac.finish()));
                    }
                    let known = done.iter().find(|(known, _)| *known == hash);
                    is_right = known.is_some_and(|(_, tag)| same_tag(tag, value));
                    if is_right {
                        break;
                    }
                }
                if let Some(tags) = tags {
                    tags.extend(done.into_iter().map(|(_, tag)| tag));
                }
                Ok(is_right)
            }
            Proof::Digest(own) => {
                let mut content = Vec::new();
                render(parts, scope, &mut content)?;
                let tag = own.of([content.as_slice()]);
                Ok(offered.iter().any(|offered| same_tag(&tag, &offered.value)))
            }
            Proof::Public(algorithm) => {
                let Some(key) = key.public_key() else {
                    return Ok(false);
                };
                let mut content = Vec::new();
                render(parts, scope, &mut content)?;
                let signatures = offered.iter().map(|offered| offered.value.as_slice());
                Ok(key.verify_any(*algorithm, &[&content], signatures))
            }
            Proof::AwsSns(_)
            | Proof::Basic
            | Proof::HttpSignature(_)
            | Proof::Jwt(_)
            | Proof::None
            | Proof::Token => Ok(false),
        }
    }

    /// The signature over rendered content: what `sign` writes.
    pub(super) fn signature_over(
        &self,
        parts: &[Part],
        scope: &Scope<'_>,
        key: &Key,
    ) -> Result<Vec<u8>, SignatureError> {
        match &self.proof {
            Proof::Mac(hash) => {
                let prefixed = self.signature.as_ref().and_then(|own| own.prefixes.first());
                let mut mac = key.mac(prefixed.map_or(*hash, |(_, hash)| *hash));
                render(parts, scope, &mut mac)?;
                Ok(mac.finish().into_vec())
            }
            Proof::Digest(digest) => {
                let mut content = Vec::new();
                render(parts, scope, &mut content)?;
                Ok(digest.of([content.as_slice()]))
            }
            Proof::Public(algorithm) => {
                let key = key
                    .private_key()
                    .ok_or(malformed("this scheme signs with a private key"))?;
                let mut content = Vec::new();
                render(parts, scope, &mut content)?;
                key.sign(*algorithm, &[&content])
                    .map_err(|_told| match algorithm {
                        SignatureAlgorithm::RsaSha1 => malformed(SHA1_IS_NOT_SIGNED),
                        _ => malformed("the private key does not sign this scheme"),
                    })
            }
            Proof::AwsSns(_)
            | Proof::Basic
            | Proof::HttpSignature(_)
            | Proof::Jwt(_)
            | Proof::None
            | Proof::Token => Err(malformed("this scheme computes no signature over content")),
        }
    }

    /// The signatures that a request offers, as bytes.
    fn candidates(
        &self,
        signature: &SignatureForm,
        presented: &Presented<'_>,
    ) -> Result<Candidates, SignatureError> {
        let candidates =
            signature.decode(presented, |hash, length| self.is_length(hash, length))?;
        if matches!(self.proof, Proof::Public(_)) && candidates.len() > PUBLIC_CANDIDATES_MAX {
            return Err(malformed("more signatures are offered than are looked at"));
        }
        Ok(candidates)
    }

    /// Whether a signature of this many bytes can be one of this scheme (SECURITY A-07).
    fn is_length(&self, hash: Option<Hash>, length: usize) -> bool {
        match &self.proof {
            Proof::Mac(own) => hash.unwrap_or(*own).tag_bytes() == length,
            Proof::Digest(own) => own.tag_bytes() == length,
            Proof::AwsSns(_)
            | Proof::Basic
            | Proof::HttpSignature(_)
            | Proof::Jwt(_)
            | Proof::None
            | Proof::Public(_)
            | Proof::Token => true,
        }
    }

    pub(super) fn stamp<'a>(&self, view: View<'a>) -> Result<Option<Stamp<'a>>, SignatureError> {
        self.timestamp
            .as_ref()
            .map_or(Ok(None), |timestamp| timestamp.read(view))
    }

    pub(super) fn signed_id<'a>(
        &self,
        view: View<'a>,
    ) -> Result<Option<Cow<'a, [u8]>>, SignatureError> {
        if self.id.is_empty() {
            return Ok(None);
        }
        let id = find(&self.id, view).map_err(unreadable)?;
        let id = id
            .filter(|id| !id.is_empty())
            .ok_or(malformed("the id that is signed is missing"))?;
        if self.id_form.holds(&id) {
            Ok(Some(id))
        } else {
            Err(malformed(
                "the id does not look as it must for the signed content to be unambiguous",
            ))
        }
    }

    /// Requirements of the whole body are judged once, not for each item that is signed by itself.
    pub(super) fn meets_requirements(
        &self,
        view: View<'_>,
        keys: &KeySet,
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<(), SignatureError> {
        let is_own = |require: &&Require| self.each.is_none() || require.each.is_none();
        let own = self.require.iter().filter(is_own);
        self.meets(own, view, keys, now, trace)
    }

    fn meets<'r>(
        &self,
        mut requirements: impl Iterator<Item = &'r Require>,
        view: View<'_>,
        keys: &KeySet,
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<(), SignatureError> {
        requirements.try_for_each(|require| {
            traced("require", require.holds(view, &self.url, keys, now), trace)
        })
    }

    pub(super) fn evidence(
        &self,
        view: View<'_>,
        key: Option<&Key>,
        signed_at: Option<UnixTime>,
    ) -> Evidence {
        // An id that cannot be read decides nothing unless it is signed, and then `delivery` falls
        // back to the whole content.
        let event_id = self
            .event_id(view)
            .map(|id| cut(&String::from_utf8_lossy(&id)));
        Evidence {
            key_id: key.map(|key| key.id.clone()),
            event_id,
            signed_at,
            signed: SmallVec::new(),
            tags: SmallVec::new(),
        }
    }
}

/// What a protocol that is code finds with the keys that count at `now`.
fn with_usable(
    keys: &KeySet,
    now: UnixTime,
    verify: impl FnOnce(&[&Key]) -> Result<(usize, Verified), SignatureError>,
) -> Result<Evidence, SignatureError> {
    let usable: Vec<&Key> = keys.usable(now).collect();
    let (index, verified) = verify(&usable)?;
    Ok(Evidence {
        key_id: usable.get(index).map(|key| Arc::clone(&key.id)),
        event_id: verified.event_id.as_deref().map(cut),
        signed_at: verified.signed_at,
        signed: SmallVec::new(),
        tags: SmallVec::new(),
    })
}

/// An event id as it is passed on: not longer than any provider's.
pub(super) fn cut(id: &str) -> Arc<str> {
    let end = id.floor_char_boundary(EVENT_ID_BYTES_MAX);
    id.get(..end).unwrap_or_default().into()
}

pub(super) fn unreadable(why: Unreadable) -> SignatureError {
    why.refused(
        Reason::SignatureMalformed,
        "a value that the scheme reads stands twice",
        "the body that the scheme reads from cannot be read",
    )
}

pub(super) fn traced<T>(
    step: &'static str,
    result: Result<T, SignatureError>,
    trace: &mut Trace,
) -> Result<T, SignatureError> {
    note(trace, step, result, |_| String::new())
}

fn note_key(trace: &mut Trace, key: &Key, right: bool) {
    let result = if right { Fine } else { Failed };
    trace.note("key", result, || {
        let verdict = if right { "matches" } else { "does not match" };
        format!("key `{}` {verdict}", key.id)
    });
}

pub(super) fn render(
    parts: &[Part],
    scope: &Scope<'_>,
    out: &mut impl super::template::Sink,
) -> Result<(), SignatureError> {
    for part in parts {
        if part.when.holds(scope.view).map_err(unreadable)? {
            part.text.render(scope, out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
