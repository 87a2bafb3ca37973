//! Where a value stands in a request, and reading it from there.
//!
//! A value that stands twice is no value: apps differ in which one they take (SECURITY RT-24, RT-26).

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, Method};
use quick_xml::events::Event;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::multipart::{self, Form};
use super::{Content, Message, SenderUrl, SignatureError, malformed};
use crate::reason::Reason;

/// A place for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// The whole body.
    Body,
    Form(Box<str>),
    Header(HeaderName),
    /// An item of the signature's list.
    Item(Box<str>),
    Json(Pointer),
    Query(Box<str>),
    /// Local names of elements, from the root.
    Xml(Vec<String>),
}

/// A JSON pointer (RFC 6901), its tokens unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer(Vec<String>);

/// Why a value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It stands more than once.
    Twice,
    /// The body it should stand in is not what it says it is.
    Body,
    /// It should stand among more fields than are looked at.
    TooMany,
}

impl Unreadable {
    /// The refusal of a value that cannot be read: `twice` says what stands more than once, `body` which body
    /// cannot be read.
    pub(super) const fn refused(
        self,
        reason: Reason,
        twice: &'static str,
        body: &'static str,
    ) -> SignatureError {
        let detail = match self {
            Self::Twice => twice,
            Self::Body => body,
            Self::TooMany => TOO_MANY,
        };
        SignatureError::new(reason, detail)
    }
}

/// Name and value of an item in the signature's list.
pub(super) type Item<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The parts of a request that values are read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) method: &'a Method,
    pub(super) url: &'a SenderUrl,
    pub(super) headers: &'a HeaderMap,
    /// `None` before the body has been read.
    pub(super) body: Option<&'a Content>,
    /// What JSON pointers look into instead of the body.
    pub(super) json: Option<&'a [u8]>,
    pub(super) items: &'a [Item<'a>],
}

impl<'a> View<'a> {
    /// The head of a request whose body has not been read.
    pub(super) fn of_head(method: &'a Method, url: &'a SenderUrl, headers: &'a HeaderMap) -> Self {
        Self {
            method,
            url,
            headers,
            body: None,
            json: None,
            items: &[],
        }
    }

    /// A complete request.
    pub(super) fn of(message: &Message<'a>) -> Self {
        Self {
            body: Some(message.body),
            ..Self::of_head(message.method, message.url, message.headers)
        }
    }

    /// The body; an error where it has not been read.
    pub(super) fn body(&self) -> Result<&'a Content, SignatureError> {
        self.body.ok_or(malformed("the body has not been read"))
    }

    /// The complete request that it is a view of.
    pub(super) fn message(&self) -> Result<Message<'a>, SignatureError> {
        Ok(Message {
            method: self.method,
            url: self.url,
            headers: self.headers,
            body: self.body()?,
        })
    }

    /// What JSON pointers look into.
    pub(super) fn json_bytes(&self) -> Result<Cow<'a, [u8]>, Unreadable> {
        match (self.json, self.body) {
            (Some(json), _) => Ok(Cow::Borrowed(json)),
            (None, Some(body)) => Ok(body.joined()),
            (None, None) => Err(Unreadable::Body),
        }
    }
}

impl Location {
    /// A path of element names, `/Envelope/Body/Id`.
    pub(super) fn xml(path: &str) -> Option<Self> {
        let names: Vec<String> = path
            .strip_prefix('/')?
            .split('/')
            .map(str::to_owned)
            .collect();
        (!names.iter().any(String::is_empty)).then_some(Self::Xml(names))
    }

    /// Whether reading it takes the body.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(
            self,
            Self::Body | Self::Form(_) | Self::Json(_) | Self::Xml(_)
        )
    }

    /// The field of a form that it is.
    pub(super) fn form_field(&self) -> Option<&str> {
        match self {
            Self::Form(name) => Some(name),
            _ => None,
        }
    }

    /// The values that stand here.
    fn values<'a>(&self, view: View<'a>) -> Result<Vec<Cow<'a, [u8]>>, Unreadable> {
        match self {
            Self::Body => Ok(view.body.map(Content::joined).into_iter().collect()),
            Self::Header(name) => {
                let fields = view.headers.get_all(name).iter();
                Ok(fields
                    .map(|field| Cow::Borrowed(field.as_bytes()))
                    .collect())
            }
            Self::Item(name) => {
                let own = view
                    .items
                    .iter()
                    .filter(|(own, _)| **own == *name.as_bytes());
                Ok(own.map(|(_, value)| Cow::Borrowed(&**value)).collect())
            }
            Self::Query(name) => {
                let query = view.url.query().unwrap_or_default();
                if hides(query, name) {
                    return Err(Unreadable::Twice);
                }
                field_values(query, name)
            }
            Self::Form(name) => {
                if view
                    .body
                    .is_some_and(|body| hides_in_form(view.headers, body, name))
                {
                    return Err(Unreadable::Twice);
                }
                let Form { fields, files } = form(view)?;
                if files.iter().any(|own| names_alike(own, name)) {
                    return Err(Unreadable::Body); // the signer sees a field, the app a file
                }
                let own = fields.into_iter().filter_map(|(own, value)| {
                    let is_own = is_called(&own, name).map(|is_own| is_own.then_some(value));
                    is_own.transpose()
                });
                own.map(|value| value.map(Cow::Owned)).collect()
            }
            Self::Json(pointer) => {
                let is_form = view.json.is_none() && is_form(view.headers);
                let is_empty = view.body.is_none_or(Content::is_empty);
                if is_form || (view.json.is_none() && is_empty) {
                    return Ok(Vec::new());
                }
                let value = pointer.read(&view.json_bytes()?)?;
                Ok(value
                    .map(|value| Cow::Owned(value.into_bytes()))
                    .into_iter()
                    .collect())
            }
            Self::Xml(path) => match view.body {
                Some(body) => xml_values(path, &body.joined()),
                None => Ok(Vec::new()),
            },
        }
    }
}

/// Whether a place has a value, whatever it is. What cannot be read is not there, a JSON key that stands twice
/// among it; of other places, what stands twice is there, and is refused where it is read.
pub(super) fn is_present(location: &Location, view: View<'_>) -> bool {
    match location {
        Location::Json(pointer) if view.json.is_some() || !is_form(view.headers) => {
            let json = view.json_bytes();
            json.is_ok_and(|json| matches!(pointer.raw(&json), Ok(Some(raw)) if *raw != *"null"))
        }
        _ => match find(std::slice::from_ref(location), view) {
            Ok(found) => found.is_some(),
            Err(Unreadable::Twice | Unreadable::TooMany) => true,
            Err(Unreadable::Body) => false,
        },
    }
}

/// The first of `locations` where anything stands; all that stands there.
pub(super) fn find_all<'a>(
    locations: &[Location],
    view: View<'a>,
) -> Result<Vec<Cow<'a, [u8]>>, Unreadable> {
    for location in locations {
        let values = location.values(view)?;
        if !values.is_empty() {
            return Ok(values);
        }
    }
    Ok(Vec::new())
}

/// As [`find_all`], for a value that stands once.
pub(super) fn find<'a>(
    locations: &[Location],
    view: View<'a>,
) -> Result<Option<Cow<'a, [u8]>>, Unreadable> {
    for location in locations {
        // By far the most common place, without a list.
        if let Location::Header(name) = location {
            let mut fields = view.headers.get_all(name).iter();
            match (fields.next(), fields.next()) {
                (None, _) => continue,
                (Some(field), None) => return Ok(Some(Cow::Borrowed(field.as_bytes()))),
                (Some(_), Some(_)) => return Err(Unreadable::Twice),
            }
        }
        let mut values = location.values(view)?;
        match values.len() {
            0 => {}
            1 => return Ok(values.pop()),
            _ => return Err(Unreadable::Twice),
        }
    }
    Ok(None)
}

/// An item of the signature's list, by name.
pub(super) fn item<'a>(
    items: &'a [Item<'a>],
    name: &str,
) -> Result<Option<Cow<'a, [u8]>>, Unreadable> {
    let mut own = items.iter().filter(|(own, _)| **own == *name.as_bytes());
    match (own.next(), own.next()) {
        (item, None) => Ok(item.map(|(_, value)| Cow::Borrowed(&**value))),
        (_, Some(_)) => Err(Unreadable::Twice),
    }
}

/// The media type that a request says its body has, without parameters.
fn media_type(headers: &HeaderMap) -> &str {
    let field = headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    field
        .and_then(|field| field.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// Whether the body says that it is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let media_type = media_type(headers);
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") || is_multipart(headers)
}

fn is_multipart(headers: &HeaderMap) -> bool {
    media_type(headers).eq_ignore_ascii_case("multipart/form-data")
}

/// Whether all readers take a body for the JSON that it is: nothing says that it is a form, compressed or in another
/// charset.
pub(super) fn is_read_as_json(headers: &HeaderMap, body: &Content) -> bool {
    let content_type = headers.get(http::header::CONTENT_TYPE);
    // A media type that is not text, or that other readers end earlier (PHP at a comma), may be taken for any.
    let Some(content_type) = content_type.map_or(Some(""), |value| value.to_str().ok()) else {
        return false;
    };
    let main = content_type.split(';').next().unwrap_or_default().trim();
    let is_of_type = |byte: u8| byte.is_ascii_alphanumeric() || b"/+-._".contains(&byte);
    let body = || body.frames().iter().map(AsRef::as_ref);
    let is_encoded =
        |coding: &http::HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"identity");
    !is_form(headers)
        && !headers
            .get_all(http::header::CONTENT_ENCODING)
            .iter()
            .any(is_encoded)
        && main.bytes().all(is_of_type)
        && multipart::is_read_in_one_charset(content_type, body())
}

/// Most fields of a query or a form: enough for every provider, few enough to compare (DS-33).
const FIELDS_MAX: usize = 1000;

/// What is said of a request with more.
pub(super) const TOO_MANY: &str = "there are more fields than are looked at";

/// Name and value, decoded.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// The pairs of a form body in their order; none when it is no form. One with files has more than pairs.
pub(super) fn form_pairs(view: View<'_>) -> Result<Vec<Pair>, Unreadable> {
    let Form { fields, files } = form(view)?;
    if files.is_empty() {
        Ok(fields)
    } else {
        Err(Unreadable::Body)
    }
}

/// What a form body holds; nothing when it is no form.
fn form(view: View<'_>) -> Result<Form, Unreadable> {
    let Some(body) = view.body.filter(|_| is_form(view.headers)) else {
        return Ok(Form::default());
    };
    let bytes = body.joined();
    let content_type = view.headers.get(http::header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if is_multipart(view.headers) {
        let form = Form::read(content_type, &bytes).ok_or(Unreadable::Body)?;
        few(form.fields.len()).map(|()| form)
    } else {
        let text = std::str::from_utf8(&bytes).map_err(|_bad| Unreadable::Body)?;
        let fields = query_pairs(text)?;
        let mut values = fields.iter().map(|(_, value)| value.as_slice());
        if !multipart::is_read_in_one_charset(content_type, &mut values) {
            return Err(Unreadable::Body);
        }
        Ok(Form {
            fields,
            files: Vec::new(),
        })
    }
}

/// Refuses more fields than are looked at. Looking at some of them only would let the signer and the app see
/// different values.
fn few(count: usize) -> Result<(), Unreadable> {
    if count > FIELDS_MAX {
        Err(Unreadable::TooMany)
    } else {
        Ok(())
    }
}

/// Name and value of the fields of `a=1&b=2` as they are written.
pub(super) fn fields(text: &str) -> Result<impl Iterator<Item = (&str, &str)>, Unreadable> {
    let fields = || text.split('&').filter(|field| !field.is_empty());
    few(fields().take(FIELDS_MAX + 1).count())?;
    Ok(fields().map(|field| field.split_once('=').unwrap_or((field, ""))))
}

/// The pairs of `a=1&b=2` in their order, decoded.
pub(super) fn query_pairs(text: &str) -> Result<Vec<Pair>, Unreadable> {
    let pair = |(name, value)| (decode(name), decode(value));
    Ok(fields(text)?.map(pair).collect())
}

/// Decoded values of the fields called `name`.
fn field_values<'a>(text: &'a str, name: &str) -> Result<Vec<Cow<'a, [u8]>>, Unreadable> {
    let mut values = Vec::new();
    for (own, value) in fields(text)? {
        if is_called(&decode(own), name)? {
            values.push(Cow::Owned(decode(value)));
        }
    }
    Ok(values)
}

/// Whether a field is called `name`. Unreadable where it is not, but some readers would call it so.
fn is_called(own: &[u8], name: &str) -> Result<bool, Unreadable> {
    if *own == *name.as_bytes() {
        Ok(true)
    } else if names_alike(own, name) {
        Err(Unreadable::Twice)
    } else {
        Ok(false)
    }
}

/// Whether a query has a field that some readers take for `name`: they read it together with the form, and some of
/// them first.
pub(super) fn stands_in_query(query: &str, name: &str) -> Result<bool, Unreadable> {
    let mut is_there = hides(query, name);
    for (own, _) in fields(query)? {
        let own = decode(own);
        is_there |= *own == *name.as_bytes() || names_alike(&own, name);
    }
    Ok(is_there)
}

/// The same of a form that is written as a query is.
fn hides_in_form(headers: &HeaderMap, body: &Content, name: &str) -> bool {
    let is_written_so = is_form(headers) && !is_multipart(headers);
    is_written_so && std::str::from_utf8(&body.joined()).is_ok_and(|text| hides(text, name))
}

/// Whether a field called `name` stands behind a `;`, where some readers (Rack) begin another field.
fn hides(query: &str, name: &str) -> bool {
    let behind = |field: &str| {
        field.split(';').skip(1).any(|piece| {
            let own = decode(piece.split('=').next().unwrap_or_default());
            *own == *name.as_bytes() || names_alike(&own, name)
        })
    };
    query.contains(';') && query.split('&').any(behind)
}

/// Whether some readers take a field called `own` for `name`. PHP passes over blanks before it, ends it at a NUL,
/// takes `name[...]` for `name`, and has `_` for a blank, `.` and a lone `[`; Rack passes over brackets before it;
/// others do not tell cases apart.
fn names_alike(own: &[u8], name: &str) -> bool {
    let own = own.trim_ascii_start();
    if own.len() < name.len() {
        return false;
    }
    let own = own.split(|byte| *byte == 0).next().unwrap_or_default();
    let spelt = |byte: &u8| match byte {
        b' ' | b'.' | b'[' => b'_',
        byte => byte.to_ascii_lowercase(),
    };
    let is_name = |own: &[u8]| own.iter().map(spelt).eq(name.as_bytes().iter().map(spelt));
    let is_bracket = |byte: &u8| matches!(byte, b'[' | b']');
    let before_brackets = own.split(|byte| *byte == b'[').next().unwrap_or_default();
    let start = own.iter().position(|byte| !is_bracket(byte)).unwrap_or(0);
    let behind_brackets = own.get(start..).unwrap_or_default();
    let between_brackets = behind_brackets.split(is_bracket).next().unwrap_or_default();
    is_name(own) || is_name(before_brackets) || is_name(between_brackets)
}

/// Texts of the elements at a path of local names. A document type makes the body unreadable.
fn xml_values<'a>(path: &[String], body: &[u8]) -> Result<Vec<Cow<'a, [u8]>>, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_bad| Unreadable::Body)?;
    let mut reader = quick_xml::Reader::from_str(text);
    let (mut depth, mut matched) = (0_usize, 0_usize);
    let mut open: Option<String> = None;
    let mut values = Vec::new();
    loop {
        match reader.read_event().map_err(|_bad| Unreadable::Body)? {
            Event::DocType(_) => return Err(Unreadable::Body),
            Event::Start(tag) => {
                let name = tag.local_name();
                let wanted = path
                    .get(depth)
                    .is_some_and(|own| own.as_str() == name.as_ref());
                if matched == depth && wanted {
                    matched += 1;
                    if matched == path.len() {
                        open = Some(String::new());
                    }
                } else if open.is_some() {
                    return Err(Unreadable::Body); // elements inside what should be text
                }
                depth += 1;
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                if matched > depth {
                    matched = depth;
                    values.extend(
                        open.take()
                            .map(|text| Cow::Owned(text.trim().as_bytes().to_vec())),
                    );
                }
            }
            Event::Text(text) => {
                if let Some(open) = &mut open {
                    open.push_str(&text);
                }
            }
            Event::CData(text) => {
                if let Some(open) = &mut open {
                    open.push_str(&text);
                }
            }
            Event::GeneralRef(name) => {
                if let Some(open) = &mut open {
                    let known = quick_xml::escape::resolve_predefined_entity(&name);
                    match (known, name.resolve_char_ref()) {
                        (Some(text), _) => open.push_str(text),
                        (None, Ok(Some(c))) => open.push(c),
                        (None, _) => return Err(Unreadable::Body),
                    }
                }
            }
            Event::Eof => return Ok(values),
            _ => {}
        }
    }
}

/// Form decoding: `+` is a blank, `%xx` a byte.
pub(super) fn decode(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).collect()
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tokens = self.0.iter();
        tokens.try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

impl Pointer {
    /// Parses `/a/b~1c/0`; nothing is the whole document.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let tokens = text.strip_prefix('/')?.split('/');
        Some(Self(
            tokens
                .map(|token| token.replace("~1", "/").replace("~0", "~"))
                .collect(),
        ))
    }

    /// Whether it is the whole document.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of the document itself that it points to, where it goes no deeper.
    pub(super) fn member(&self) -> Option<&str> {
        match self.0.as_slice() {
            [key] => Some(key),
            _ => None,
        }
    }

    /// The raw text that it points to. A key that stands twice on the way, or once more in another case, makes
    /// the body unreadable: the app may read the other one (SECURITY DS-18).
    pub(super) fn raw(&self, body: &[u8]) -> Result<Option<Box<str>>, Unreadable> {
        // All of the body must be UTF-8, also what is skipped: then it is JSON to every reader, or to none.
        let text = std::str::from_utf8(body).map_err(|_bad| Unreadable::Body)?;
        let mut json = serde_json::Deserializer::from_str(text);
        let raw = Step(&self.0)
            .deserialize(&mut json)
            .map_err(|_bad| Unreadable::Body)?;
        json.end().map_err(|_bad| Unreadable::Body)?;
        Ok(raw.map(|raw| raw.get().into()))
    }

    /// The scalar it points to: the text of a string, else the literal as written.
    pub(super) fn read(&self, body: &[u8]) -> Result<Option<String>, Unreadable> {
        let Some(raw) = self.raw(body)? else {
            return Ok(None);
        };
        match raw.as_bytes().first() {
            Some(b'"') => serde_json::from_str(&raw)
                .map(Some)
                .map_err(|_bad| Unreadable::Body),
            Some(b'{' | b'[') => Err(Unreadable::Body),
            Some(b'n') | None => Ok(None),
            Some(_) => Ok(Some(raw.into())),
        }
    }

    /// Writes a value where it points to, making the objects on the way. `None` where something else
    /// stands there.
    pub(super) fn put(
        &self,
        json: &mut serde_json::Value,
        value: impl Into<serde_json::Value>,
    ) -> Option<()> {
        let mut at = json;
        for token in &self.0 {
            if at.is_null() {
                *at = serde_json::Value::Object(serde_json::Map::new());
            }
            at = match at {
                serde_json::Value::Object(members) => members
                    .entry(token.as_str())
                    .or_insert(serde_json::Value::Null),
                serde_json::Value::Array(items) => items.get_mut(index_of(token)?)?,
                _ => return None,
            };
        }
        *at = value.into();
        Some(())
    }

    /// The items that a pointer with `*` leads to, to be changed. `None` where one of them is missing.
    pub(super) fn items_mut<'v>(
        &self,
        json: &'v mut serde_json::Value,
    ) -> Option<Vec<&'v mut serde_json::Value>> {
        let mut found = vec![json];
        for token in &self.0 {
            let mut next = Vec::new();
            for value in found {
                match value {
                    serde_json::Value::Array(items) => match token.as_str() {
                        "*" => next.extend(items),
                        index => next.push(items.get_mut(index.parse::<usize>().ok()?)?),
                    },
                    serde_json::Value::Object(members) => next.push(members.get_mut(token)?),
                    _ => return None,
                }
            }
            found = next;
        }
        Some(found)
    }

    /// The raw values of every item that a pointer with `*` for all items of an array finds.
    pub(super) fn each(&self, body: &[u8]) -> Result<Vec<Box<str>>, Unreadable> {
        let mut parts = self.0.split(|token| token == "*");
        let first = Self(parts.next().unwrap_or_default().to_vec());
        let mut found = vec![first.raw(body)?.ok_or(Unreadable::Body)?];
        for tokens in parts {
            let pointer = Self(tokens.to_vec());
            let mut inner = Vec::new();
            for array in found {
                let items: Vec<&RawValue> =
                    serde_json::from_str(&array).map_err(|_bad| Unreadable::Body)?;
                for item in items {
                    inner.push(
                        pointer
                            .raw(item.get().as_bytes())?
                            .ok_or(Unreadable::Body)?,
                    );
                }
            }
            if inner.len() > FIELDS_MAX {
                return Err(Unreadable::Body);
            }
            found = inner;
        }
        Ok(found)
    }
}

/// Whether readers that do not tell cases apart, such as Go's, take `key` for `name`. They know more letters
/// than ASCII: to them a long s is an s.
pub(super) fn reads_alike(key: &str, name: &str) -> bool {
    fn folded(text: &str) -> impl Iterator<Item = char> {
        let upper = text.chars().flat_map(char::to_uppercase);
        upper.flat_map(char::to_lowercase)
    }
    // Most keys begin with another letter.
    if let ([first, ..], [wanted, ..]) = (key.as_bytes(), name.as_bytes())
        && first.is_ascii()
        && wanted.is_ascii()
        && !first.eq_ignore_ascii_case(wanted)
    {
        return false;
    }
    if key.is_ascii() && name.is_ascii() {
        key.eq_ignore_ascii_case(name)
    } else {
        folded(key).eq(folded(name))
    }
}

/// An index is written in one way (RFC 6901 4): no sign, no leading zero.
fn index_of(token: &str) -> Option<usize> {
    let index = token.parse::<usize>().ok()?;
    (index.to_string() == token).then_some(index)
}

/// The tokens of a pointer that are still to be followed.
#[derive(Clone, Copy)]
struct Step<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<Box<RawValue>>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            return de::Deserialize::deserialize(json).map(Some);
        }
        json.deserialize_any(self)
    }
}

macro_rules! leads_nowhere {
    ($($visit:ident $ty:ty;)+) => {
        $(fn $visit<E: de::Error>(self, _: $ty) -> Result<Self::Value, E> { Ok(None) })+
    };
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<Box<RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some((token, rest)) = self.0.split_first() else {
            return Ok(None);
        };
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if *key != **token {
                if reads_alike(&key, token) {
                    return Err(de::Error::custom("a key is spelt in another case"));
                }
                map.next_value::<IgnoredAny>()?;
            } else if found.is_some() {
                return Err(de::Error::custom("a key stands twice"));
            } else {
                found = Some(map.next_value_seed(Step(rest))?);
            }
        }
        Ok(found.flatten())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Some((token, rest)) = self.0.split_first() else {
            return Ok(None);
        };
        let wanted = index_of(token);
        let mut found = None;
        let mut index = 0;
        loop {
            if Some(index) == wanted {
                match seq.next_element_seed(Step(rest))? {
                    Some(value) => found = value,
                    None => break,
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
            index += 1;
        }
        Ok(found)
    }

    leads_nowhere! {
        visit_bool bool;
        visit_i64 i64;
        visit_u64 u64;
        visit_f64 f64;
        visit_str &str;
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pointer: &str, body: &str) -> Result<Option<String>, Unreadable> {
        Pointer::parse(pointer).unwrap().read(body.as_bytes())
    }

    #[test]
    fn pointers() {
        let body = r#"{"id":"evt_\u0031","n":1700000000123,"a":[{"b/c":true}],"z":null}"#;
        assert_eq!(read("/id", body), Ok(Some("evt_1".to_owned())));
        assert_eq!(read("/n", body), Ok(Some("1700000000123".to_owned())));
        assert_eq!(read("/a/0/b~1c", body), Ok(Some("true".to_owned())));
        // RFC 6901 4: an index has one spelling.
        for text in ["", "/a/0/b~1c", "/~01/*"] {
            assert_eq!(Pointer::parse(text).unwrap().to_string(), text);
        }
        for absent in [
            "/x",
            "/a/1",
            "/id/x",
            "/n/0",
            "/z",
            "/a/00/b~1c",
            "/a/+0/b~1c",
            "/a/-/b~1c",
        ] {
            assert_eq!(read(absent, body), Ok(None), "{absent}");
        }
        assert_eq!(read("/a", body), Err(Unreadable::Body));
        assert_eq!(read("/id", "{\"id\":1,\"id\":2}"), Err(Unreadable::Body));
        // SECURITY DS-18: to Go these are all the same key.
        for other in ["ID", "Id", "\u{131}d"] {
            let body = format!("{{\"id\":1,\"{other}\":2}}");
            assert_eq!(read("/id", &body), Err(Unreadable::Body), "{other}");
            assert_eq!(
                read(&format!("/{other}"), "{\"id\":1}"),
                Err(Unreadable::Body)
            );
        }
        let long_s = "{\"items\":[],\"item\u{17f}\":[2]}";
        assert_eq!(read("/items/0", long_s), Err(Unreadable::Body));
        assert_eq!(
            read("/id", "{\"id\":1,\"x\":{\"ID\":2},\"ids\":3}"),
            Ok(Some("1".to_owned()))
        );
        assert_eq!(read("/id", "{\"id\":1}x"), Err(Unreadable::Body));
        assert_eq!(read("/id", "not json"), Err(Unreadable::Body));
        let id = Pointer::parse("/id").unwrap();
        assert_eq!(
            id.read(b"{\"id\":\"1\",\"x\":\"\xff\"}"),
            Err(Unreadable::Body)
        );
        assert_eq!(read("/id", &"[".repeat(100_000)), Err(Unreadable::Body));
    }

    #[test]
    fn fields_decode_to_their_name() {
        let values = |name| field_values("a=1&%61=2&b=x+y%21&c", name).unwrap();
        assert_eq!(values("a").len(), 2);
        assert_eq!(values("b"), [&b"x y!"[..]]);
        assert_eq!(values("c"), [&b""[..]]);
        // Not what PHP, or who does not tell cases apart, would call so too.
        for other in ["A", "+a", "%20a", "a%00x", "a[]", "a[x]"] {
            let text = format!("a=1&{other}=2");
            assert_eq!(field_values(&text, "a"), Err(Unreadable::Twice), "{other}");
            assert_eq!(field_values(&text, "b").unwrap().len(), 0);
        }
        for other in ["a.b", "a+b", "a[b", "A_B"] {
            let text = format!("a_b=1&{other}=2");
            assert_eq!(
                field_values(&text, "a_b"),
                Err(Unreadable::Twice),
                "{other}"
            );
        }
        assert_eq!(
            field_values("a=1&ab=2&_a=3&a_=4&%C3%A4=5", "a")
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn fields_that_are_too_many_are_refused_and_never_left_out() {
        // SECURITY DS-33
        let filled = |count: usize| format!("a=1{}", "&b".repeat(count - 1));
        assert_eq!(field_values(&filled(FIELDS_MAX), "a").unwrap().len(), 1);
        assert_eq!(query_pairs(&filled(FIELDS_MAX)).unwrap().len(), FIELDS_MAX);
        let hidden = filled(FIELDS_MAX) + "&a=2";
        assert_eq!(field_values(&hidden, "a"), Err(Unreadable::TooMany));
        assert_eq!(query_pairs(&hidden), Err(Unreadable::TooMany));
    }
}
