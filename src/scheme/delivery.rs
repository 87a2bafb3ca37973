//! What makes two deliveries the same.

use smallvec::SmallVec;

use super::jwt::Jwt;
use super::locate::{Location, View, find};
use super::parse::Presented;
use super::primitive::{Fingerprint, digest};
use super::template::Scope;
use super::verify::{presented_token, render};
use super::{Content, Evidence, Message, Proof, Scheme, SignatureError, SignedContent};

impl Scheme {
    /// What makes two deliveries the same: a digest of the signed event id, else of the content that
    /// was found signed. Unsigned ids never go in (SECURITY ). `None` where a verified
    /// request holds nothing to tell it by, as where nothing is signed.
    pub fn delivery(&self, message: &Message<'_>, evidence: &Evidence) -> Option<[u8; 32]> {
        if !self.is_signed() {
            return None;
        }
        match &self.proof {
            Proof::AwsSns(sns) => return sns.delivery(message),
            Proof::HttpSignature(own) => return own.delivery(message),
            _ => {}
        }
        let fingerprint = self.with_views(message, |views| {
            let mut parts: SmallVec<[[u8; 32]; 1]> = SmallVec::new();
            for (index, view) in views.iter().enumerate() {
                let signed = evidence.signed.get(index).copied().unwrap_or_default();
                parts.push(self.fingerprint(*view, signed)?);
            }
            Ok(parts)
        });
        let parts = fingerprint.ok()?;
        match parts.as_slice() {
            [one] => Some(*one),
            several => {
                let parts: Vec<&[u8]> = several.iter().map(<[u8; 32]>::as_slice).collect();
                Some(digest(&parts))
            }
        }
    }

    /// Whether the signature pins the value at `place`: no byte of it can become a neighbour's, or the
    /// other way round, under the same signature.
    fn pins(&self, place: &Location) -> bool {
        (place.is_in_body() && self.covers_body())
            || (self.id.contains(place) && self.id_form.is_delimited() && self.covers_place(place))
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
        // An id that cannot be read is none: what was signed is known all the same.
        if self.event_id.iter().all(|place| self.pins(place))
            && let Ok(Some(id)) = find(&self.event_id, view)
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
        let mut content = Fingerprint::labelled(b"signed content");
        if let Some(parts) = self.contents.get(signed.content) {
            render(parts, &scope, &mut content)?;
        }
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
        {
            return Ok(digest(&[b"event id", id.as_bytes()]));
        }
        Ok(digest(&[b"signed content", token.payload()]))
    }
}
