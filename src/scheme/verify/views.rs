//! What of a request is judged: its body decoded, the JSON in it, or each item of it by itself.

use std::borrow::Cow;
use std::collections::HashSet;

use http::header;

use super::unreadable;
use crate::scheme::gzip::gunzip;
use crate::scheme::locate::{self, View, find};
use crate::scheme::{Content, Message, Proof, Scheme, SignatureError, malformed};

impl Scheme {
    /// Runs `judge` over the request, or over each item of its body that is signed by itself. Equal items are
    /// judged once.
    pub(in crate::scheme) fn with_views<T>(
        &self,
        message: &Message<'_>,
        judge: impl FnOnce(&[View<'_>]) -> Result<T, SignatureError>,
    ) -> Result<T, SignatureError> {
        let mut media_types = message.headers.get_all(header::CONTENT_TYPE).iter();
        if media_types.nth(1).is_some() {
            // The app may read the body as another type than the one verified here.
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
        // An item that comes a thousand times is verified once.
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

    /// Refuses a request in which an app may find another value than the one verified here, because the query and
    /// the headers that describe the body are not signed.
    pub(in crate::scheme) fn is_read_alike(&self, view: View<'_>) -> Result<(), SignatureError> {
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
    pub(in crate::scheme) fn decoded_body(
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
            // Some senders compress without saying so. gzip begins with these two bytes (RFC 1952 2.3.1).
            None | Some(b"identity") if message.body.joined().starts_with(&[0x1f, 0x8b]) => {
                gunzip(message.body).map(Some)
            }
            None | Some(b"identity") => Ok(None),
            Some(_) => Err(malformed(
                "the body has an encoding that the scheme does not know",
            )),
        }
    }
}
