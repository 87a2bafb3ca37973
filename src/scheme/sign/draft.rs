//! A request to sign, and how values are put into it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;

use super::{SignError, refuse};
use crate::scheme::locate::{self, Location, Pointer, View, find};
use crate::scheme::parse::SignatureForm;
use crate::scheme::template::form_encode;
use crate::scheme::{Content, SenderUrl};

/// Media type of a form.
pub(super) const FORM_TYPE: &str = "application/x-www-form-urlencoded";

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

impl Draft {
    /// Whether the body says that it is a form.
    pub(super) fn is_form(&self) -> bool {
        self.header_map()
            .is_ok_and(|headers| locate::is_form(&headers))
    }

    /// Calls a body that nothing is said of a form; refuses one that is said to be another thing.
    pub(super) fn take_for_form(&mut self) -> Result<(), SignError> {
        if self.body.is_empty() || self.is_form() {
            return Ok(());
        }
        if self.header_map()?.contains_key(header::CONTENT_TYPE) {
            return refuse(format!(
                "of a body only the fields of a form are signed; give it as `{FORM_TYPE}`"
            ));
        }
        self.put_header(&header::CONTENT_TYPE, FORM_TYPE);
        Ok(())
    }

    pub(super) fn content(&self) -> Content {
        Content::from(self.body.clone())
    }

    pub(super) fn header_map(&self) -> Result<HeaderMap, SignError> {
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
    pub(super) fn find(&self, place: &Location) -> Option<String> {
        let headers = self.header_map().ok()?;
        let body = self.content();
        let view = View {
            body: Some(&body),
            ..View::of_head(&self.method, &self.url, &headers)
        };
        let found = find(std::slice::from_ref(place), view).ok().flatten()?;
        String::from_utf8(found.into_owned()).ok()
    }

    /// What the list of a signature holds beside signatures, where the draft has such a list: how one
    /// gives what only the list can say.
    pub(super) fn items(&self, form: &SignatureForm) -> Vec<(String, String)> {
        let given = form.places.first().and_then(|place| self.find(place));
        match (&form.list, given) {
            (Some(list), Some(given)) => list.other_items(&given),
            _ => Vec::new(),
        }
    }

    /// Puts a value where the scheme reads it, instead of one that stands there.
    pub(super) fn put(&mut self, place: &Location, value: &str) -> Result<(), SignError> {
        match place {
            Location::Header(name) => self.put_header(name, value),
            Location::Query(name) => {
                let (path, query) = match self.url.target.split_once('?') {
                    Some((path, query)) => (path, query),
                    None => (&*self.url.target, ""),
                };
                self.url.target = format!("{path}?{}", with_field(query, name, value)).into();
            }
            Location::Form(name) => {
                let form = std::str::from_utf8(&self.body).ok();
                let form = form.filter(|_| self.body.is_empty() || self.is_form());
                let Some(form) = form else {
                    return refuse(format!(
                        "`{name}` stands in a form; give the body as `{FORM_TYPE}`"
                    ));
                };
                self.body = with_field(form, name, value).into_bytes();
                if !self.is_form() {
                    self.put_header(&header::CONTENT_TYPE, FORM_TYPE);
                }
            }
            Location::Json(pointer) => {
                self.body = with_value(&self.body, pointer, value)?.into_bytes();
            }
            Location::Body => self.body = value.as_bytes().to_vec(),
            Location::Xml(path) => {
                if self.find(place).as_deref() != Some(value) {
                    let path = path.join("/");
                    return refuse(format!(
                        "the value stands at `/{path}` of an XML body; give one that has it there"
                    ));
                }
            }
            Location::Item(_) => {
                return refuse("the value stands in the signature's list; write it there");
            }
        }
        Ok(())
    }

    fn put_header(&mut self, name: &HeaderName, value: &str) {
        self.headers
            .retain(|(own, _)| !own.eq_ignore_ascii_case(name.as_str()));
        self.headers.push((canonical(name), value.to_owned()));
    }
}

/// `a=1&b=2` with another value of `name`.
fn with_field(fields: &str, name: &str, value: &str) -> String {
    let is_own = |field: &str| {
        let own = field.split_once('=').map_or(field, |(own, _)| own);
        locate::decode(own) == name.as_bytes()
    };
    let others = fields
        .split('&')
        .filter(|field| !field.is_empty() && !is_own(field));
    let mut all: Vec<String> = others.map(str::to_owned).collect();
    let (name, value) = (form_encode(name.as_bytes()), form_encode(value.as_bytes()));
    all.push(format!("{name}={value}"));
    all.join("&")
}

/// A JSON object with a text where a pointer leads.
pub(super) fn with_value(json: &[u8], pointer: &Pointer, value: &str) -> Result<String, SignError> {
    let wrong = || SignError("the body is not a JSON object to put the value in".to_owned());
    let json = if json.is_empty() { b"{}" } else { json };
    let mut json: Value = serde_json::from_slice(json).map_err(|_bad| wrong())?;
    pointer.put(&mut json, value).ok_or_else(wrong)?;
    Ok(json.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(target: &str, media_type: &str, body: &str) -> Draft {
        let url = SenderUrl {
            origin: "https://hooks.example.org".into(),
            target: target.into(),
        };
        let headers = vec![("content-type".to_owned(), media_type.to_owned())];
        Draft {
            method: Method::POST,
            url,
            headers,
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_value_replaces_the_one_that_stands_there() {
        let mut request = draft(
            "/hook?a=1&%73ig=old&b=2",
            "application/json",
            "{\"sig\":\"old\"}",
        );
        request.put(&Location::Query("sig".into()), "new").unwrap();
        assert_eq!(&*request.url.target, "/hook?a=1&b=2&sig=new");
        request
            .put(&Location::Json(Pointer::parse("/sig").unwrap()), "new")
            .unwrap();
        assert_eq!(request.body, b"{\"sig\":\"new\"}");
        request
            .put(&Location::Header(header::CONTENT_TYPE), "text/plain")
            .unwrap();
        assert_eq!(
            request.headers,
            [("Content-Type".to_owned(), "text/plain".to_owned())]
        );
    }

    #[test]
    fn a_form_field_needs_a_form() {
        let place = Location::Form("sig".into());
        let mut form = draft("/", "application/x-www-form-urlencoded", "sig=old&a=%26");
        form.put(&place, "a b").unwrap();
        assert_eq!(form.body, b"a=%26&sig=a+b");
        let mut json = draft("/", "application/json", "{}");
        assert!(
            json.put(&place, "x")
                .unwrap_err()
                .0
                .contains("`sig` stands in a form")
        );
        let mut empty = draft("/", "text/plain", "");
        empty.put(&place, "x").unwrap();
        assert!(empty.is_form());
        assert_eq!(empty.body, b"sig=x");
    }
}
