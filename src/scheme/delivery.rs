//! What makes two deliveries the same.

use super::jws::Token;
use super::jwt::Jwt;
use super::locate::{View, find};
use super::parse::Presented;
use super::primitive::{Digest, digest};
use super::template::Scope;
use super::verify::{NO_TOKEN, render};
use super::{Content, Message, Proof, Scheme, SignatureError};

impl Scheme {
    /// What makes two deliveries the same: a digest of the signed event id, else of the canonical
    /// signed content. Unsigned ids never go in (SECURITY ). `None` where nothing is
    /// signed.
    pub fn delivery(&self, message: &Message<'_>) -> Option<[u8; 32]> {
        if !self.is_signed() {
            return None;
        }
        match &self.proof {
            Proof::AwsSns(sns) => return sns.delivery(message),
            Proof::HttpSignature(own) => return own.delivery(message),
            _ => {}
        }
        let fingerprint = self.with_views(message, |views| {
            let mut parts = Vec::new();
            for view in views {
                parts.push(self.fingerprint(*view)?);
            }
            Ok(parts)
        });
        let parts = fingerprint.ok()?;
        let parts: Vec<&[u8]> = parts.iter().map(<[u8; 32]>::as_slice).collect();
        Some(digest(&parts))
    }

    fn fingerprint(&self, view: View<'_>) -> Result<[u8; 32], SignatureError> {
        let presented = match &self.signature {
            Some(signature) => signature.read(view)?,
            None => Presented::default(),
        };
        let view = View {
            items: &presented.items,
            ..view
        };
        // An id that cannot be read is none: what was signed is known all the same.
        if self.event_id.iter().all(|place| self.covers_place(place))
            && let Ok(Some(id)) = find(&self.event_id, view)
        {
            return Ok(digest(&[b"event id", &id]));
        }
        if let Proof::Jwt(jwt) = &self.proof {
            return self.token_fingerprint(jwt, &presented, view);
        }
        let stamp = self.stamp(view)?;
        let id = self.signed_id(view)?;
        let scope = Scope {
            view,
            url: &self.url.first(view)?,
            without_path: false,
            timestamp: stamp.as_ref().map(|(text, _)| &**text),
            id: id.as_deref(),
            secret: Some(&[]),
        };
        let mut content = Vec::new();
        if let Some(parts) = self.contents.first() {
            render(parts, &scope, &mut content)?;
        }
        let body = match self.body_digest {
            Some(_) => Digest::Sha256.of(view
                .body
                .into_iter()
                .flat_map(Content::frames)
                .map(AsRef::as_ref)),
            None => Vec::new(),
        };
        Ok(digest(&[b"signed content", &content, &body]))
    }

    /// A token is known by what is signed in it, never by its text: the signature can be re-made.
    fn token_fingerprint(
        &self,
        jwt: &Jwt,
        presented: &Presented<'_>,
        view: View<'_>,
    ) -> Result<[u8; 32], SignatureError> {
        let text = presented.texts.first().ok_or(NO_TOKEN)?;
        let token = Token::parse(std::str::from_utf8(&text.value).map_err(|_bad| NO_TOKEN)?)?;
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
