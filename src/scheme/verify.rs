//! Scheme × message × keys × now → evidence, or the reason why not.
//!
//! The order of judgement is fixed: missing, malformed, timestamp missing or malformed, mismatch, and
//! only then stale or ahead; so a wrong signature is never called a stale one.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use http::{HeaderMap, Method, header};
use smallvec::SmallVec;

use super::aws_sns::AwsSns;
use super::gzip::gunzip;
use super::jws::Token;
use super::jwt::Jwt;
use super::keys::{Key, KeySet};
use super::locate::{self, Location, Unreadable, View, find};
use super::parse::{Candidates, Offered, Presented, SignatureForm, length_of_prefix, skip};
use super::primitive::{Digest, Hash, SignatureAlgorithm, Tag, same_secret, same_tag};
use super::protocol::Verified;
use super::public_key::SHA1_IS_NOT_SIGNED;
use super::template::Scope;
use super::timestamp::Stamp;
use super::trace::StepResult::{Failed, Ok as Fine, Skipped};
use super::trace::Trace;
use super::url_form::Spelling;
use super::{
    Content, Evidence, Message, Part, Proof, Require, Scheme, SenderUrl, SignatureError,
    SignedContent, Timestamp, malformed, x5c,
};
use crate::reason::Reason;
use crate::units::UnixTime;

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

pub(super) const NO_TOKEN: SignatureError = malformed("there is no token that can be read");

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

    /// Runs `judge` over the request, or over each item of its body that is signed by itself: over those that are
    /// alike once.
    pub(super) fn with_views<T>(
        &self,
        message: &Message<'_>,
        judge: impl FnOnce(&[View<'_>]) -> Result<T, SignatureError>,
    ) -> Result<T, SignatureError> {
        let mut media_types = message.headers.get_all(header::CONTENT_TYPE).iter();
        if media_types.nth(1).is_some() {
            // The app may read the body as another thing than what is verified here.
            return Err(malformed("there is more than one Content-Type"));
        }
        let decoded = self.decoded_body(message)?;
        let body = decoded.as_ref().unwrap_or(message.body);
        let view = View {
            body: Some(body),
            ..View::of(message)
        };
        self.is_read_alike(view)?;
        let json = find(&self.json_from, view).map_err(unreadable)?;
        let view = View {
            json: json.as_deref(),
            ..view
        };
        let Some(each) = &self.each else {
            return judge(&[view]);
        };
        let bytes = view.json_bytes().map_err(unreadable)?;
        let items = each.each(&bytes).map_err(unreadable)?;
        // One that comes a thousand times is verified once.
        let mut seen = HashSet::new();
        let views: Vec<_> = items
            .iter()
            .filter(|item| seen.insert(self.likeness(item)))
            .map(|item| View {
                json: Some(item.as_bytes()),
                ..view
            })
            .collect();
        judge(&views)
    }

    /// What makes an item that is signed by itself the same as another: a text, however it is escaped; of a token,
    /// without the blanks around it.
    fn likeness<'i>(&self, item: &'i str) -> Cow<'i, str> {
        let Ok(text) = serde_json::from_str::<String>(item) else {
            return item.into();
        };
        let text = match self.proof {
            Proof::Jwt(_) => text.trim_ascii(),
            _ => &text,
        };
        serde_json::Value::from(text).to_string().into()
    }

    /// Refuses a request in which others may find another value than is verified here: nobody signed its query, nor
    /// what it says of its body.
    pub(super) fn is_read_alike(&self, view: View<'_>) -> Result<(), SignatureError> {
        for name in &self.loose.form_fields {
            let query = view.url.query().filter(|_| locate::is_form(view.headers));
            let query = query.unwrap_or_default();
            if locate::stands_in_query(query, name).map_err(unreadable)? {
                return Err(malformed("a field of the form stands in the query too"));
            }
        }
        let body = view.body.filter(|body| !body.is_empty());
        match body.filter(|_| self.loose.json) {
            Some(body) if !locate::is_read_as_json(view.headers, body) => Err(malformed(
                "the body is JSON, and the request says that it is a form, compressed or in another charset",
            )),
            _ => Ok(()),
        }
    }

    /// The body as it reads without its `Content-Encoding`, where the scheme signs that.
    pub(super) fn decoded_body(
        &self,
        message: &Message<'_>,
    ) -> Result<Option<Content>, SignatureError> {
        if !self.body_decoded {
            return Ok(None);
        }
        let mut codings = message.headers.get_all(header::CONTENT_ENCODING).iter();
        let coding = codings.next().map(http::HeaderValue::as_bytes);
        if codings.next().is_some() {
            return Err(malformed("there is more than one Content-Encoding"));
        }
        match coding.map(<[u8]>::to_ascii_lowercase).as_deref() {
            Some(b"gzip") => gunzip(message.body).map(Some),
            // Some senders do not say that they compress; gzip says it itself (RFC 1952 2.3.1).
            None | Some(b"identity") if message.body.joined().starts_with(&[0x1f, 0x8b]) => {
                gunzip(message.body).map(Some)
            }
            None | Some(b"identity") => Ok(None),
            Some(_) => Err(malformed(
                "the body has an encoding that the scheme does not know",
            )),
        }
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

    /// A JSON Web Token.
    fn token(
        &self,
        jwt: &Jwt,
        view: View<'_>,
        keys: &KeySet,
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<Evidence, SignatureError> {
        let signature = self.signature.as_ref().ok_or(NO_TOKEN)?;
        let presented = traced("signature", signature.read(view), trace)?;
        let agreed = signature.says_nothing_else(view, &presented);
        traced("places", agreed, trace)?;
        let token = traced("token", presented_token(&presented), trace)?;
        self.meets_requirements(view, keys, now, trace)?;
        let body = view.body()?;
        let frames: Vec<&[u8]> = body.frames().iter().map(AsRef::as_ref).collect();
        let detached = jwt.detached.then_some(frames.as_slice());
        let key = match &jwt.x5c {
            None => token.verify(&jwt.algorithms, keys, now, detached),
            Some(rules) => token.certificates().and_then(|chain| {
                let vouched = x5c::leaf_key(&chain, keys, rules, now)?;
                token.verify_by(&jwt.algorithms, &vouched.leaf, detached)?;
                Ok(vouched.root)
            }),
        };
        let key = traced("key", key, trace)?;
        if jwt.detached {
            return Ok(self.evidence(view, Some(key), None));
        }
        let claims = token.claims()?;
        let url = self.url.first(view)?;
        let scope = Scope::new(view, &url);
        let signed_at = traced("claims", jwt.judge(&claims, &scope, now), trace)?;
        let mut evidence = self.evidence(view, Some(key), signed_at);
        if let Some(path) = &self.event_id_claim {
            evidence.event_id = path.text(&claims).map(|text| cut(&text));
        }
        Ok(evidence)
    }

    /// A secret that is sent as it is.
    fn bare(
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
            // Where keys and places are paired, a signature in another place is none of this key's.
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

    /// Whoever has the plain hash of a secret and what follows it can go on hashing: what it appends begins with
    /// the padding of the hash, a byte 0x80 that is no beginning of a character. A secret at the end prevents it.
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
            // An HMAC under no secret could be made by anybody.
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

    /// The tokens that a request carries, without their prefix. Never none.
    fn tokens<'a>(&self, view: View<'a>) -> Result<Vec<Cow<'a, [u8]>>, SignatureError> {
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
    fn meets_requirements(
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

    /// Whether the provider signs nothing but the query of such a request.
    pub(super) fn signs_query_alone(&self, view: View<'_>) -> Result<bool, SignatureError> {
        let is_of_query = |part: &Part| part.text.is_of_query();
        let contents = self.contents.iter().filter(|_| self.loose.query);
        for parts in contents.filter(|parts| parts.iter().any(is_of_query)) {
            let mut is_alone = true;
            for part in parts.iter().filter(|part| !is_of_query(part)) {
                let is_there =
                    part.text.literal().is_none() && part.when.holds(view).map_err(unreadable)?;
                is_alone &= !is_there;
            }
            if is_alone {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The body against its digest in the URL; one that is no form where only forms are covered, as a captured
    /// signature of an empty one would be good for any; and any where the query alone is signed.
    fn body_is_covered(&self, view: View<'_>) -> Result<(), SignatureError> {
        const UNCOVERED: SignatureError = SignatureError::new(
            Reason::SignatureMismatch,
            "nothing that is signed covers the body",
        );
        let body = view.body()?;
        let is_form = || body.is_empty() || locate::is_form(view.headers);
        let Some(name) = &self.body_digest else {
            let is_uncovered = self.covers_only_forms() && !is_form()
                || !body.is_empty() && self.signs_query_alone(view)?;
            return if is_uncovered { Err(UNCOVERED) } else { Ok(()) };
        };
        let places = [Location::Query(name.as_str().into())];
        match find(&places, view).map_err(unreadable)? {
            None if is_form() => Ok(()),
            None => Err(UNCOVERED),
            Some(given) => {
                let own = Digest::Sha256.of(body.frames().iter().map(AsRef::as_ref));
                let given = HEXLOWER_PERMISSIVE.decode(&given).unwrap_or_default();
                if same_tag(&own, &given) {
                    Ok(())
                } else {
                    Err(SignatureError::new(
                        Reason::SignatureMismatch,
                        "the body is not that of the signed digest",
                    ))
                }
            }
        }
    }

    fn evidence(&self, view: View<'_>, key: Option<&Key>, signed_at: Option<UnixTime>) -> Evidence {
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

/// The JSON Web Token that a request carries; blanks around it are no part of it.
pub(super) fn presented_token<'p>(
    presented: &'p Presented<'_>,
) -> Result<Token<'p>, SignatureError> {
    let text = presented.texts.first().ok_or(NO_TOKEN)?;
    let text = std::str::from_utf8(text.value.trim_ascii()).map_err(|_bad| NO_TOKEN)?;
    Token::parse(text)
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
fn cut(id: &str) -> Arc<str> {
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

fn traced<T>(
    step: &'static str,
    result: Result<T, SignatureError>,
    trace: &mut Trace,
) -> Result<T, SignatureError> {
    match &result {
        Ok(_) => trace.note(step, Fine, String::new),
        Err(error) => trace.note(step, Failed, || error.detail.to_owned()),
    }
    result
}

fn note_key(trace: &mut Trace, key: &Key, right: bool) {
    let result = if right { Fine } else { Failed };
    trace.note("key", result, || {
        let verdict = if right { "matches" } else { "does not match" };
        format!("key `{}` {verdict}", key.id)
    });
}

pub(super) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// `user:password` of `Authorization: Basic` (RFC 7617).
fn basic_credentials(headers: &HeaderMap) -> Result<Vec<u8>, SignatureError> {
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
mod tests {
    use super::*;
    use crate::scheme::catalog::Catalog;
    use crate::scheme::public_key::PrivateKey;
    use crate::scheme::sign::Draft;
    use crate::scheme::{Params, SenderUrl};
    use crate::secret::Secret;

    /// The items of a body that are judged by themselves, as JSON.
    fn judged(scheme: &Scheme, body: &str) -> Vec<String> {
        let url = SenderUrl {
            origin: "https://localhost".into(),
            target: "/".into(),
        };
        let message = Message {
            method: &Method::POST,
            url: &url,
            headers: &HeaderMap::new(),
            body: &Content::from(body.as_bytes().to_vec()),
        };
        let json = |view: &View<'_>| String::from_utf8(view.json.unwrap().to_vec()).unwrap();
        let items = scheme.with_views(&message, |views| Ok(views.iter().map(json).collect()));
        items.unwrap()
    }

    #[test]
    fn items_that_are_alike_are_verified_once() {
        // SECURITY DS-30
        let adyen = Catalog::built_in().find("adyen/standard").unwrap();
        let scheme = adyen.bind(&Params::default(), None).unwrap();
        let (one, other) = (
            r#"{"NotificationRequestItem":1}"#,
            r#"{"NotificationRequestItem":2}"#,
        );
        let items = [one, one, other, one, other].join(", ");
        let body = format!(r#"{{"notificationItems":[{items}]}}"#);
        assert_eq!(judged(&scheme, &body), ["1", "2"]);
    }

    #[test]
    fn few_signatures_by_key_pairs_are_looked_at() {
        // SECURITY DS-29
        let url = SenderUrl {
            origin: "https://localhost".into(),
            target: "/".into(),
        };
        let offered = |version: &str, count: usize, bytes: usize| {
            let preset = format!("standard-webhooks/{version}");
            let selected = Catalog::built_in().find(&preset).unwrap();
            let scheme = selected.bind(&Params::default(), None).unwrap();
            let one = format!("{version},{}", BASE64.encode(&vec![0; bytes]));
            let mut headers = HeaderMap::new();
            let fields = [
                ("webhook-signature", vec![one; count].join(" ")),
                ("webhook-timestamp", "1700000000".to_owned()),
            ];
            for (name, value) in fields {
                headers.insert(name, value.parse().unwrap());
            }
            scheme.precheck(&Method::POST, &url, &headers).is_ok()
        };
        assert!(offered("v1a", 4, 64) && !offered("v1a", 5, 64));
        assert!(offered("v1", 16, 32) && !offered("v1", 17, 32));
    }

    fn graph() -> Scheme {
        let graph = Catalog::built_in().find("microsoft-graph-rich").unwrap();
        let ours = ["audience", "tenant"].map(|name| (name.to_owned(), "x".into()));
        graph.bind(&Params::from(ours), None).unwrap()
    }

    #[test]
    fn what_is_asked_of_a_whole_body_is_judged_once() {
        let scheme = graph();
        let size = rcgen::RsaKeySize::_2048;
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        let key = PrivateKey::parse(&pair.serialize_der()).unwrap();
        let key = Key::private("rsa".into(), key);
        let url = SenderUrl {
            origin: "https://localhost".into(),
            target: "/".into(),
        };
        let token = |secs: i64| {
            let draft = Draft {
                method: Method::POST,
                url: url.clone(),
                headers: Vec::new(),
                body: br#"{"validationTokens":[""]}"#.to_vec(),
            };
            let signed = scheme.sign(draft, &key, UnixTime::from_secs(secs)).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&signed.body).unwrap();
            body["validationTokens"][0].clone()
        };
        let tokens = [token(1_700_000_000), token(1_700_000_001)];
        assert_ne!(tokens[0], tokens[1]);
        let state = Key::secret("state".into(), Secret::new(b"s".to_vec()), None);
        let keys = KeySet::new(vec![key.clone(), state]).unwrap();
        for (state, holds) in [("s", true), ("t", false)] {
            let value = [serde_json::json!({ "clientState": state })];
            let body = serde_json::json!({ "validationTokens": tokens, "value": value });
            let body = Content::from(body.to_string().into_bytes());
            let message = Message {
                method: &Method::POST,
                url: &url,
                headers: &HeaderMap::new(),
                body: &body,
            };
            let mut trace = Trace::on();
            let now = UnixTime::from_secs(1_700_000_001);
            let verdict = scheme.verify_traced(&message, &keys, now, &mut trace);
            assert_eq!(verdict.is_ok(), holds, "{verdict:?}");
            let steps = trace.into_steps();
            assert_eq!(steps.iter().filter(|own| own.step == "require").count(), 1);
        }
    }

    #[test]
    fn tokens_that_are_alike_are_verified_once() {
        let scheme = graph();
        let items = r#""a.b.c", "a.\u0062.c", " a.b.c\n", "a.b.d", 1, "1""#;
        let body = format!(r#"{{"validationTokens":[{items}]}}"#);
        assert_eq!(judged(&scheme, &body).len(), 4);
    }
}
