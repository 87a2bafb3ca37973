//! The inverse of `verify/`: the request that the provider would send.

use std::borrow::Cow;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;

use super::keys::Key;
use super::locate::{Location, Pointer, View, find};
use super::parse::SignatureForm;
use super::primitive::{Digest, digest};
use super::template::{Scope, Template};
use super::{Message, Proof, Require, Scheme, SignatureError, parse};
use crate::units::UnixTime;

mod draft;
mod token;

pub use draft::Draft;
use draft::FORM_TYPE;

/// Why a request cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignError(pub String);

fn refuse<T>(message: impl Into<String>) -> Result<T, SignError> {
    Err(SignError(message.into()))
}

fn failed(error: SignatureError) -> SignError {
    SignError(error.detail.to_owned())
}

impl Scheme {
    /// Completes `draft` so that [`Scheme::verify`] accepts it at `now`: what the scheme reads and the
    /// draft lacks (timestamp, id, pinned values) is added, the signature last.
    pub fn sign(&self, mut draft: Draft, key: &Key, now: UnixTime) -> Result<Draft, SignError> {
        match &self.proof {
            Proof::AwsSns(_) if draft.is_form() => {
                return refuse("messages of SNS are JSON, and the request calls its body a form");
            }
            Proof::AwsSns(sns) => return sns.sign(draft, key, now),
            Proof::HttpSignature(own) => return own.sign(draft, key, now),
            Proof::None => return Ok(draft),
            Proof::Basic => {
                if !key.bytes().contains(&b':') {
                    return refuse("the secret lacks a `:`; write `user:password`");
                }
                let credentials = format!("Basic {}", BASE64.encode(key.bytes()));
                draft.put(&Location::Header(http::header::AUTHORIZATION), &credentials)?;
                return Ok(draft);
            }
            Proof::Digest(_) | Proof::Jwt(_) | Proof::Mac(_) | Proof::Public(_) | Proof::Token => {}
        }
        if let Some(each) = &self.each {
            return self.sign_each(each, draft, key, now);
        }
        let form = self
            .signature
            .as_ref()
            .ok_or_else(|| SignError("the scheme has no signature".to_owned()))?;
        let items = draft.items(form);
        let signing = Signing {
            scheme: self,
            form,
            key,
            now,
            draft,
            items,
        };
        signing.run()
    }
}

impl Scheme {
    /// Signs each item of the body by itself, in its place.
    fn sign_each(
        &self,
        each: &Pointer,
        mut draft: Draft,
        key: &Key,
        now: UnixTime,
    ) -> Result<Draft, SignError> {
        let wrong = || {
            let message = "each item of a JSON body is signed; give one that has some at `";
            SignError(format!("{message}{each}`"))
        };
        let mut json: Value = serde_json::from_slice(&draft.body).map_err(|_bad| wrong())?;
        let items = each.items_mut(&mut json).filter(|items| !items.is_empty());
        let one = Self {
            each: None,
            ..self.clone()
        };
        for item in items.ok_or_else(wrong)? {
            let of_item = Draft {
                body: item.to_string().into_bytes(),
                ..draft.clone()
            };
            let signed = one.sign(of_item, key, now)?;
            *item = serde_json::from_slice(&signed.body).map_err(|_bad| wrong())?;
        }
        draft.body = json.to_string().into_bytes();
        Ok(draft)
    }
}

/// A request while it is being signed.
struct Signing<'s> {
    scheme: &'s Scheme,
    form: &'s SignatureForm,
    key: &'s Key,
    now: UnixTime,
    draft: Draft,
    /// What else stands in the signature's list.
    items: Vec<(String, String)>,
}

impl Signing<'_> {
    fn run(mut self) -> Result<Draft, SignError> {
        if self.scheme.covers_only_forms() {
            self.draft.take_for_form()?;
        }
        let place = self.fitting(&self.form.places)?;
        self.add_requirements()?;
        let text = match &self.scheme.proof {
            Proof::Token => {
                let text = String::from_utf8(self.key.bytes().to_vec())
                    .map_err(|error| SignError(format!("the token is not text: {error}")))?;
                self.prefixed(&place, text)
            }
            Proof::Jwt(jwt) => {
                let text = self.token(jwt)?;
                self.prefixed(&place, text)
            }
            _ => self.signature()?,
        };
        let text = match &self.form.base64_json {
            Some(pointer) => self.inside_json(pointer, &text)?,
            None => text,
        };
        self.put(&place, &text)?;
        Ok(self.draft)
    }

    /// What to do about a value that is signed and is not there.
    fn lacks(&self, name: &str) -> SignError {
        let is_hidden = name.contains("form field") && !self.draft.is_form();
        SignError(if is_hidden && !self.draft.body.is_empty() {
            format!(
                "the signature covers {name}, and nothing says that the body is a form: give `Content-Type: {FORM_TYPE}`"
            )
        } else {
            format!("the signature covers {name}; give it")
        })
    }

    /// The place among `places` that a request of this kind has: a form field only in a form.
    fn fitting(&self, places: &[Location]) -> Result<Location, SignError> {
        let fits = |place: &&Location| match place {
            Location::Form(_) => self.draft.is_form() || self.draft.body.is_empty(),
            Location::Json(_) => !self.scheme.json_from.is_empty() || !self.draft.is_form(),
            _ => true,
        };
        let place = places.iter().find(fits).or(places.first());
        place
            .cloned()
            .ok_or_else(|| SignError("the scheme has no place for a value".to_owned()))
    }

    /// A prefix such as `Bearer ` belongs to a header field; elsewhere a token is bare.
    fn prefixed(&self, place: &Location, text: String) -> String {
        match &self.form.prefix {
            Some(prefix) if matches!(place, Location::Header(_)) => format!("{prefix}{text}"),
            _ => text,
        }
    }

    /// The signature over the content, as the scheme writes it.
    fn signature(&mut self) -> Result<String, SignError> {
        if let Some(name) = &self.scheme.body_digest
            && !self.draft.body.is_empty()
            && !self.draft.is_form()
        {
            let hex = HEXLOWER.encode(&Digest::Sha256.of([self.draft.body.as_slice()]));
            self.draft
                .put(&Location::Query(name.as_str().into()), &hex)?;
        }
        let timestamp = self.add_timestamp()?;
        let id = self.add_id()?;
        let bytes = self.with_view(|view| {
            self.scheme.is_read_alike(view).map_err(failed)?;
            let is_bare = self.draft.body.is_empty();
            if !is_bare && self.scheme.signs_query_alone(view).map_err(failed)? {
                return refuse("such a request is signed by its query alone; give no body");
            }
            let scope = Scope {
                view,
                url: &self.scheme.url.first(view).map_err(failed)?,
                without_path: false,
                timestamp: timestamp.as_deref().map(str::as_bytes),
                id: id.as_deref().map(str::as_bytes),
                secret: Some(self.key.bytes()),
            };
            let parts = self.scheme.contents.first();
            let parts = parts.map(Vec::as_slice).unwrap_or_default();
            let lacking = || parts.iter().find_map(|part| part.text.lacks(&scope));
            let signed = self.scheme.signature_over(parts, &scope, self.key);
            signed.map_err(|error| match lacking() {
                Some(name) => self.lacks(&name),
                None => failed(error),
            })
        })?;
        Ok(self.form.write(&bytes, &self.items))
    }

    /// What must hold besides, where the draft lacks it.
    fn add_requirements(&mut self) -> Result<(), SignError> {
        for require in &self.scheme.require {
            let own = self.form.places.contains(&require.place);
            if require.optional || require.each.is_some() || (own && require.base64_json.is_some())
            {
                continue;
            }
            match &require.item {
                Some(item) if own => {
                    if !self.items.iter().any(|(name, _)| name == item) {
                        let wanted = self.wanted(require)?;
                        self.items.push((item.clone(), wanted));
                    }
                }
                _ if self.draft.find(&require.place).is_some() => {}
                Some(item) => {
                    let text = format!("{item}={}", self.wanted(require)?);
                    self.put(&require.place, &text)?;
                }
                None => {
                    let text = self.wanted(require)?;
                    self.put(&require.place, &text)?;
                }
            }
        }
        Ok(())
    }

    /// A value that a requirement holds for.
    fn wanted(&self, require: &Require) -> Result<String, SignError> {
        if !require.contains.is_empty() {
            return Ok(require.contains.join(&require.separator));
        }
        match require.equals.first() {
            Some(template) => self.render(template),
            None => refuse("a value that the scheme asks for has no one spelling; give it"),
        }
    }

    fn add_timestamp(&mut self) -> Result<Option<String>, SignError> {
        let Some(timestamp) = &self.scheme.timestamp else {
            return Ok(None);
        };
        let text = parse::write_time(timestamp.unit, self.now);
        self.given_or_added(&timestamp.places, text).map(Some)
    }

    fn add_id(&mut self) -> Result<Option<String>, SignError> {
        if self.scheme.id.is_empty() {
            return Ok(None);
        }
        let id = self.drawn_id();
        self.given_or_added(&self.scheme.id, id).map(Some)
    }

    /// An id that no other draft has.
    fn drawn_id(&self) -> String {
        let seed = digest(&[&self.now.millis().to_be_bytes(), &self.draft.body]);
        let hex = HEXLOWER.encode(&seed);
        let short = format!("msg_{}", hex.get(..24).unwrap_or_default());
        let half = hex.get(..32).unwrap_or_default().to_owned();
        let fits = |id: &String| self.scheme.id_form.holds(id.as_bytes());
        [short, half].into_iter().find(fits).unwrap_or(hex)
    }

    /// The value that stands at one of `places`; else `text`, which is put there.
    fn given_or_added(&mut self, places: &[Location], text: String) -> Result<String, SignError> {
        for place in places {
            let given = match place {
                Location::Item(name) => {
                    let own = self.items.iter().find(|(own, _)| **own == **name);
                    own.map(|(_, value)| value.clone())
                }
                place => self.draft.find(place),
            };
            if let Some(given) = given {
                return Ok(given);
            }
        }
        let place = self.fitting(places)?;
        self.put(&place, &text)?;
        Ok(text)
    }

    fn put(&mut self, place: &Location, value: &str) -> Result<(), SignError> {
        match (place, self.scheme.json_from.first()) {
            (Location::Item(name), _) => {
                self.items.push((name.to_string(), value.to_owned()));
                Ok(())
            }
            (Location::Json(pointer), Some(form)) => {
                let text = self.draft.find(form).unwrap_or_else(|| "{}".to_owned());
                let text = draft::with_value(text.as_bytes(), pointer, value)?;
                self.draft.put(form, &text)
            }
            (place, _) => self.draft.put(place, value),
        }
    }

    /// The signature inside base64 of JSON, beside what the scheme asks for there.
    fn inside_json(&self, pointer: &Pointer, text: &str) -> Result<String, SignError> {
        let mut json = draft::with_value(b"{}", pointer, text)?;
        for require in &self.scheme.require {
            if let Some(own) = &require.base64_json
                && self.form.places.contains(&require.place)
            {
                json = draft::with_value(json.as_bytes(), own, &self.wanted(require)?)?;
            }
        }
        Ok(BASE64.encode(json.as_bytes()))
    }

    fn render(&self, template: &Template) -> Result<String, SignError> {
        self.with_view(|view| {
            let url = self.scheme.url.first(view).map_err(failed)?;
            let scope = Scope {
                secret: Some(self.key.bytes()),
                ..Scope::new(view, &url)
            };
            let text = template
                .text(&scope)
                .map_err(|error| match template.lacks(&scope) {
                    Some(name) => SignError(format!("the scheme asks for {name}; give it")),
                    None => failed(error),
                })?;
            String::from_utf8(text).map_err(|error| SignError(error.to_string()))
        })
    }

    /// The draft as `verify` will see it.
    fn with_view<T>(
        &self,
        look: impl FnOnce(View<'_>) -> Result<T, SignError>,
    ) -> Result<T, SignError> {
        let headers = self.draft.header_map()?;
        let body = self.draft.content();
        let Draft { method, url, .. } = &self.draft;
        let message = Message {
            method,
            url,
            headers: &headers,
            body: &body,
        };
        let decoded = self.scheme.decoded_body(&message).map_err(failed)?;
        let items = self.items.iter().map(|(name, value)| {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            (Cow::Borrowed(name), Cow::Borrowed(value))
        });
        let items: Vec<_> = items.collect();
        let view = View {
            body: Some(decoded.as_ref().unwrap_or(&body)),
            items: &items,
            ..View::of(&message)
        };
        let json = find(&self.scheme.json_from, view)
            .map_err(|_bad| SignError("the form that holds the JSON cannot be read".to_owned()))?;
        look(View {
            json: json.as_deref(),
            ..view
        })
    }
}
