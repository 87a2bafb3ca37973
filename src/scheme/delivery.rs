//! What makes two deliveries the same.

use std::borrow::Cow;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, header};
use smallvec::SmallVec;

use super::jwt::{Jwt, presented_token};
use super::locate::{Location, View, find};
use super::parse::Presented;
use super::primitive::{Fingerprint, Hash, digest};
use super::template::{Scope, Template};
use super::verify::render;
use super::{Content, Evidence, Message, Part, Proof, Scheme, SignatureError, SignedContent};

/// Header fields that make a body a form.
static FORM: LazyLock<HeaderMap> = LazyLock::new(|| {
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    HeaderMap::from_iter([(header::CONTENT_TYPE, form)])
});

/// Header fields that do not.
static NO_FORM: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

/// Names of a delivery: two requests are the same delivery where they share one, or all where those are of items.
///
/// Mostly it is one name. Content that is known by its HMAC has one for each key that counts, so that the
/// provider may sign it again with the next secret. Where items are signed each by itself, nobody signed which
/// of them come together, and each has a name.
pub type DeliveryNames = SmallVec<[[u8; 32]; 1]>;

/// What a scheme says of how its deliveries are known: told when it is loaded, not for each of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity {
    /// An HMAC tells what it signs from all else, so that nothing need be hashed again for that.
    pub(super) by_tag: bool,
    /// The signature covers the provider's id of the event, where a request has one.
    signed_event_id: bool,
    /// That id is read from the bytes of the body alone.
    in_bytes: bool,
    /// How content that has no HMAC is read for its name.
    reading: Reading,
}

/// How signed content is read for its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    /// As one text: the same bytes may be one content as the body and another as a value in it, or beside it.
    #[default]
    Whole,
    /// With the body by its frames, where it is always the same part of one content.
    ByFrames,
}

impl Evidence {
    /// Names the delivery by its content instead of by its HMAC, because another check may accept the same content
    /// with another key or hash.
    pub fn forget_tags(&mut self) {
        self.tags.clear();
    }
}

impl Scheme {
    /// What makes two deliveries the same: a digest of the signed event id, else of the content that
    /// was found signed. Unsigned ids never go in (SECURITY ). `None` where a verified
    /// request holds nothing to tell it by, as where nothing is signed.
    pub fn delivery(&self, message: &Message<'_>, evidence: &Evidence) -> Option<DeliveryNames> {
        if !self.is_signed() {
            return None;
        }
        match &self.proof {
            Proof::AwsSns(sns) => return sns.delivery(message).map(one),
            Proof::HttpSignature(own) => return own.delivery(message).map(one),
            _ => {}
        }
        if !evidence.tags.is_empty() && !self.identity.signed_event_id {
            return Some(evidence.tags.iter().map(|tag| named_by(tag)).collect());
        }
        let names = self.with_views(message, |views| {
            let name = |(index, view): (usize, &View<'_>)| {
                let signed = evidence.signed.get(index).copied().unwrap_or_default();
                self.fingerprint(*view, signed)
            };
            views.iter().enumerate().map(name).collect()
        });
        names.ok()
    }

    /// Whether each item of a body is signed by itself, and so has a name by itself.
    pub fn signs_items(&self) -> bool {
        self.each.is_some()
    }

    pub(super) fn identity(&self) -> Identity {
        let mut ids = self.event_id.iter();
        Identity {
            by_tag: self.has_one_tag(),
            signed_event_id: !self.event_id.is_empty() && ids.all(|place| self.pins(place)),
            reading: match self.contents.as_slice() {
                [parts] if parts.len() == 1 && self.fixes_body() => Reading::ByFrames,
                _ => Reading::Whole,
            },
            in_bytes: self.event_id.iter().any(Location::is_in_body) && self.signs_bytes(),
        }
    }

    /// Whether it signs by an HMAC with SHA-256 or longer, the only one that a key makes of a request.
    fn has_one_tag(&self) -> bool {
        matches!(
            self.proof,
            Proof::Mac(Hash::Sha256 | Hash::Sha384 | Hash::Sha512)
        ) && self.contents.len() == 1
            && !self.signs_url
            && self.each.is_none()
            && self
                .signature
                .as_ref()
                .is_some_and(|own| own.prefixes.is_empty() && !own.paired)
    }

    /// The event id. In a body whose bytes are signed it is read from those alone, as JSON where they begin
    /// like it and else as a form where they can be one: a Content-Type that nobody signed must not make
    /// another delivery of them, nor one value in them pass for another. An id that is empty or cannot be
    /// read is none.
    pub(super) fn event_id<'a>(&self, view: View<'a>) -> Option<Cow<'a, [u8]>> {
        let id = if self.identity.in_bytes {
            self.event_id_in_bytes(view).map(Cow::Owned)
        } else {
            find(&self.event_id, view).ok().flatten()
        };
        id.filter(|id| !id.is_empty())
    }

    fn event_id_in_bytes(&self, view: View<'_>) -> Option<Vec<u8>> {
        let body = view.body?.joined();
        let mut places = self.event_id.iter().chain(&self.json_from);
        let is_json = || matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
        let is_form = places.any(|place| matches!(place, Location::Form(_)))
            && !is_json()
            && !body.starts_with(b"--")
            && body.iter().all(u8::is_ascii_graphic);
        let bytes = View {
            headers: if is_form { &FORM } else { &NO_FORM },
            json: view.json.filter(|_| self.each.is_some()),
            ..view
        };
        let json = first(&self.json_from, view, bytes);
        let bytes = View {
            json: bytes.json.or(json.as_deref()),
            ..bytes
        };
        first(&self.event_id, view, bytes)
    }

    /// Whether the signature of each request is over the bytes of the body, or over all of the JSON in them,
    /// and not over fields that could be written otherwise.
    fn signs_bytes(&self) -> bool {
        let is_over_bytes = |part: &Part| {
            let is_over_json = || self.json_from.is_empty() && part.text.covers_any_body();
            part.when.is_certain() && (part.text.is_over_bytes() || is_over_json())
        };
        if let Proof::Jwt(jwt) = &self.proof {
            return jwt.is_over_bytes();
        }
        let mut contents = self.contents.iter();
        !self.contents.is_empty() && contents.all(|parts| parts.iter().any(is_over_bytes))
    }

    /// Whether the signature pins the value at `place`: no byte of it can become a neighbour's, or the
    /// other way round, under the same signature.
    fn pins(&self, place: &Location) -> bool {
        let covers_all = match &self.proof {
            // A body that holds a token holds other values beside it.
            Proof::Jwt(jwt) => jwt.is_over_bytes(),
            _ => self.covers_body_around(place),
        };
        (place.is_in_body() && covers_all && self.fixes_body())
            || (self.id.contains(place) && self.id_form.is_delimited() && self.covers_place(place))
    }

    /// Whether the body begins and ends where it did when it was signed: beside a URL, or a value that nothing
    /// ends, a byte of it can be moved there under the same signature.
    fn fixes_body(&self) -> bool {
        let has_id_form = self.id_form.is_delimited();
        let mut contents = self.contents.iter();
        contents.all(|parts| Template::fix_body(parts.iter().map(|part| &part.text), has_id_form))
    }

    fn fingerprint(
        &self,
        view: View<'_>,
        signed: SignedContent,
    ) -> Result<[u8; 32], SignatureError> {
        let presented = match &self.signature {
            Some(signature) => signature.read(view)?,
            None => Presented::default(),
        };
        let view = View {
            items: &presented.items,
            ..view
        };
        // Without an id that can be read, the signed content names the delivery.
        if self.identity.signed_event_id
            && let Some(id) = self.event_id(view)
        {
            return Ok(digest(&[b"event id", &id]));
        }
        if let Proof::Jwt(jwt) = &self.proof {
            return self.token_fingerprint(jwt, &presented, view);
        }
        let stamp = self.stamp(view)?;
        let id = self.signed_id(view)?;
        let spellings = self.spellings(view)?;
        let spelling = spellings.get(signed.url);
        let scope = Scope {
            view,
            url: spelling.map_or("", |own| &own.url),
            without_path: spelling.is_some_and(|own| own.without_path),
            timestamp: stamp.as_ref().map(|(text, _)| &**text),
            id: id.as_deref(),
            secret: Some(&[]),
        };
        let Some(parts) = self.contents.get(signed.content) else {
            return Ok(digest(&[b"signed content"]));
        };
        if self.identity.reading == Reading::Whole {
            let mut content = Vec::new();
            render(parts, &scope, &mut content)?;
            return Ok(digest(&[b"signed content", &content]));
        }
        let mut content = Fingerprint::labelled(b"signed content");
        render(parts, &scope, &mut content)?;
        Ok(content.finish())
    }

    /// A token is known by what is signed in it, never by its text: the signature can be re-made.
    fn token_fingerprint(
        &self,
        jwt: &Jwt,
        presented: &Presented<'_>,
        view: View<'_>,
    ) -> Result<[u8; 32], SignatureError> {
        let token = presented_token(presented)?;
        if jwt.detached {
            let body = view.body.map(Content::joined).unwrap_or_default();
            return Ok(digest(&[b"signed content", &body]));
        }
        let claims = token.claims()?;
        if let Some(id) = self
            .event_id_claim
            .as_ref()
            .and_then(|path| path.text(&claims))
            .filter(|id| !id.is_empty())
        {
            return Ok(digest(&[b"event id", id.as_bytes()]));
        }
        Ok(digest(&[b"signed content", token.payload()]))
    }
}

fn one(name: [u8; 32]) -> DeliveryNames {
    DeliveryNames::from_buf([name])
}

/// The first value that can be read: in a body as `in_body` shows it, elsewhere in `view`.
fn first(places: &[Location], view: View<'_>, in_body: View<'_>) -> Option<Vec<u8>> {
    places.iter().find_map(|place| {
        let view = if place.is_in_body() { in_body } else { view };
        let found = find(std::slice::from_ref(place), view).ok().flatten()?;
        Some(found.into_owned())
    })
}

/// Hashed, because a store need not know the tag.
fn named_by(tag: &[u8]) -> [u8; 32] {
    digest(&[b"tag", tag])
}
