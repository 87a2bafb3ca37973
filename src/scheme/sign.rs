//! The inverse of `verify.rs`: the request that the provider would send.

use std::borrow::Cow;

use data_encoding::{BASE64, HEXLOWER};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::keys::Key;
use super::locate::{Location, View, find};
use super::primitive::{Digest, digest};
use super::template::{Scope, form_encode};
use super::{Content, Proof, Scheme, SenderUrl, parse};
use crate::units::UnixTime;

/// A request to sign, and the signed one.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Method.
    pub method: Method,
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

fn refuse<T>(message: impl Into<String>) -> Result<T, SignError> {
    Err(SignError(message.into()))
}

impl Scheme {
    /// Completes `draft` so that [`Scheme::verify`] accepts it at `now`: what the scheme reads and the
    /// draft lacks (timestamp, id, pinned values) is added, the signature last.
    pub fn sign(&self, mut draft: Draft, key: &Key, now: UnixTime) -> Result<Draft, SignError> {
        match &self.proof {
            Proof::AwsSns(sns) => return sns.sign(draft, key, now),
            Proof::HttpSignature(own) => return own.sign(draft, key, now),
            Proof::None => return Ok(draft),
            _ => {}
        }
        if matches!(self.proof, Proof::Basic) {
            let credentials = BASE64.encode(key.bytes());
            draft.put(
                &Location::Header(http::header::AUTHORIZATION),
                &format!("Basic {credentials}"),
            )?;
            return Ok(draft);
        }
        if self.each.is_some() {
            return refuse(
                "each item of the body is signed by itself; sign the items at the sender",
            );
        }
        self.add_requirements(&mut draft)?;
        let signature = self
            .signature
            .as_ref()
            .ok_or_else(|| SignError("no signature".to_owned()))?;
        let place = signature
            .places
            .first()
            .ok_or_else(|| SignError("no place".to_owned()))?;
        if matches!(self.proof, Proof::Token) {
            let text = String::from_utf8(key.bytes().to_vec())
                .map_err(|_bad| SignError("the token is not text".to_owned()))?;
            let prefix = signature.prefix.as_deref().unwrap_or_default();
            draft.put(place, &format!("{prefix}{text}"))?;
            return Ok(draft);
        }
        if let Some(name) = &self.body_digest
            && !draft.body.is_empty()
            && !draft.is_form()
        {
            let hex = HEXLOWER.encode(&Digest::Sha256.of([draft.body.as_slice()]));
            draft.put(&Location::Query(name.as_str().into()), &hex)?;
        }
        let mut items = Vec::new();
        let timestamp = self.add_timestamp(&mut draft, now, &mut items)?;
        let id = self.add_id(&mut draft, now)?;
        let bytes = self.sign_content(&draft, key, timestamp.as_deref(), id.as_deref(), &items)?;
        let text = signature.write(&bytes, &items);
        draft.put(place, &text)?;
        Ok(draft)
    }

    fn add_requirements(&self, draft: &mut Draft) -> Result<(), SignError> {
        for require in self.require.iter().filter(|require| !require.optional) {
            if draft.find(&require.place).is_some() {
                continue;
            }
            let Some(wanted) = require
                .equals
                .first()
                .and_then(|template| template.literal())
            else {
                return refuse("a value that the scheme asks for depends on the request; give it");
            };
            let own = self
                .signature
                .as_ref()
                .is_some_and(|own| own.places.contains(&require.place));
            if require.base64_json.is_some() || own {
                continue; // stands in the signature's own value
            }
            let text = match &require.item {
                Some(item) => format!("{item}={wanted}"),
                None => wanted.to_owned(),
            };
            draft.put(&require.place, &text)?;
        }
        Ok(())
    }

    fn add_timestamp(
        &self,
        draft: &mut Draft,
        now: UnixTime,
        items: &mut Vec<(String, String)>,
    ) -> Result<Option<String>, SignError> {
        let Some(timestamp) = &self.timestamp else {
            return Ok(None);
        };
        let text = parse::write_time(timestamp.unit, now);
        for place in &timestamp.places {
            if let Some(given) = draft.find(place) {
                return Ok(Some(given));
            }
        }
        match timestamp.places.first() {
            Some(Location::Item(name)) => items.push((name.to_string(), text.clone())),
            Some(place) => draft.put(place, &text)?,
            None => {}
        }
        Ok(Some(text))
    }

    fn add_id(&self, draft: &mut Draft, now: UnixTime) -> Result<Option<String>, SignError> {
        let Some(first) = self.id.first() else {
            return Ok(None);
        };
        for place in &self.id {
            if let Some(given) = draft.find(place) {
                return Ok(Some(given));
            }
        }
        let seed = digest(&[&now.millis().to_be_bytes(), &draft.body]);
        let hex = HEXLOWER.encode(&seed);
        let id = format!("msg_{}", hex.get(..24).unwrap_or_default());
        draft.put(first, &id)?;
        Ok(Some(id))
    }

    fn sign_content(
        &self,
        draft: &Draft,
        key: &Key,
        timestamp: Option<&str>,
        id: Option<&str>,
        items: &[(String, String)],
    ) -> Result<Vec<u8>, SignError> {
        let headers = draft.header_map()?;
        let body = Content::from(draft.body.clone());
        let items: Vec<_> = items
            .iter()
            .map(|(name, value)| {
                (
                    Cow::Borrowed(name.as_bytes()),
                    Cow::Borrowed(value.as_bytes()),
                )
            })
            .collect();
        let view = View {
            method: &draft.method,
            url: &draft.url,
            headers: &headers,
            body: Some(&body),
            json: None,
            items: &items,
        };
        let failed = |error: super::SignatureError| SignError(error.detail.to_owned());
        let json = find(&self.json_from, view)
            .map_err(|_bad| SignError("the form cannot be read".to_owned()))?;
        let view = View {
            json: json.as_deref(),
            ..view
        };
        let scope = Scope {
            view,
            url: &self.url.first(view).map_err(failed)?,
            without_path: false,
            timestamp: timestamp.map(str::as_bytes),
            id: id.map(str::as_bytes),
            secret: Some(key.bytes()),
        };
        let parts = self.contents.first().map(Vec::as_slice).unwrap_or_default();
        self.signature_over(parts, &scope, key).map_err(failed)
    }
}

impl Draft {
    fn is_form(&self) -> bool {
        self.header_map()
            .is_ok_and(|headers| super::locate::is_form(&headers))
    }

    fn header_map(&self) -> Result<HeaderMap, SignError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: HeaderName = name
                .parse()
                .map_err(|_bad| SignError(format!("`{name}` is not a header name")))?;
            let value = HeaderValue::from_str(value).map_err(|_bad| {
                SignError(format!("the value of `{name}` is not a header value"))
            })?;
            headers.append(name, value);
        }
        Ok(headers)
    }

    /// The value that stands at a place already.
    fn find(&self, place: &Location) -> Option<String> {
        let headers = self.header_map().ok()?;
        let body = Content::from(self.body.clone());
        let view = View {
            method: &self.method,
            url: &self.url,
            headers: &headers,
            body: Some(&body),
            json: None,
            items: &[],
        };
        let found = find(std::slice::from_ref(place), view).ok().flatten()?;
        String::from_utf8(found.into_owned()).ok()
    }

    /// Puts a value where the scheme reads it.
    fn put(&mut self, place: &Location, value: &str) -> Result<(), SignError> {
        match place {
            Location::Header(name) => {
                self.headers
                    .retain(|(own, _)| !own.eq_ignore_ascii_case(name.as_str()));
                self.headers.push((canonical(name), value.to_owned()));
            }
            Location::Query(name) => {
                let separator = if self.url.target.contains('?') {
                    '&'
                } else {
                    '?'
                };
                let (name, value) = (form_encode(name.as_bytes()), form_encode(value.as_bytes()));
                self.url.target = format!("{}{separator}{name}={value}", self.url.target).into();
            }
            Location::Form(name) => {
                if !self.body.is_empty() {
                    self.body.push(b'&');
                }
                let (name, value) = (form_encode(name.as_bytes()), form_encode(value.as_bytes()));
                self.body
                    .extend_from_slice(format!("{name}={value}").as_bytes());
                if !self
                    .headers
                    .iter()
                    .any(|(own, _)| own.eq_ignore_ascii_case("content-type"))
                {
                    let form = "application/x-www-form-urlencoded".to_owned();
                    self.headers.push(("Content-Type".to_owned(), form));
                }
            }
            Location::Json(pointer) => {
                let wrong =
                    || SignError("the body is not a JSON object to put the value in".to_owned());
                let mut json = serde_json::from_slice(&self.body).map_err(|_bad| wrong())?;
                pointer.put(&mut json, value).ok_or_else(wrong)?;
                self.body = json.to_string().into_bytes();
            }
            Location::Body => self.body = value.as_bytes().to_vec(),
            Location::Item(_) | Location::Xml(_) => {
                return refuse("the value stands inside the body; write it there");
            }
        }
        Ok(())
    }
}

/// `X-Hub-Signature-256` for `x-hub-signature-256`: as people write field names.
fn canonical(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}
