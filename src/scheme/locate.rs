//! Where a value stands in a request, and reading it from there.
//!
//! A value that stands twice is no value: apps differ in which one they take (SECURITY RT-24, RT-26).

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName};
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Content;

/// A place for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Form(String),
    Header(HeaderName),
    Json(Pointer),
    Query(String),
}

/// A JSON pointer (RFC 6901), its tokens unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer(pub(super) Vec<String>);

/// Why a value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It stands more than once.
    Twice,
    /// The body it should stand in is not what it says it is.
    Body,
}

/// The parts of a request that values are read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) target: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// `None` before the body has been read.
    pub(super) body: Option<&'a Content>,
}

impl Location {
    /// Whether reading it takes the body.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self, Self::Form(_) | Self::Json(_))
    }

    /// The values that stand here: more than one only for a header that is a list.
    fn values<'a>(&self, view: View<'a>) -> Result<Vec<Cow<'a, [u8]>>, Unreadable> {
        match self {
            Self::Header(name) => {
                let fields = view.headers.get_all(name).iter();
                Ok(fields
                    .map(|field| Cow::Borrowed(field.as_bytes()))
                    .collect())
            }
            Self::Query(name) => {
                let query = view.target.split_once('?').map_or("", |(_, query)| query);
                Ok(field_values(query, name))
            }
            Self::Form(name) => {
                let Some(body) = view.body.filter(|_| is_form(view.headers)) else {
                    return Ok(Vec::new());
                };
                let bytes = body.contiguous();
                let text = std::str::from_utf8(&bytes).map_err(|_| Unreadable::Body)?;
                Ok(field_values(text, name)
                    .into_iter()
                    .map(|v| Cow::Owned(v.into_owned()))
                    .collect())
            }
            Self::Json(pointer) => {
                let Some(body) = view.body.filter(|_| !is_form(view.headers)) else {
                    return Ok(Vec::new());
                };
                let value = pointer.read(&body.contiguous())?;
                Ok(value
                    .map(|value| Cow::Owned(value.into_bytes()))
                    .into_iter()
                    .collect())
            }
        }
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
    let mut values = find_all(locations, view)?;
    match values.len() {
        0 | 1 => Ok(values.pop()),
        _ => Err(Unreadable::Twice),
    }
}

/// Whether the body says that it is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let field = headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = field
        .and_then(|field| field.split(';').next())
        .unwrap_or_default();
    media_type
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Decoded values of the fields called `name`.
fn field_values<'a>(fields: &'a str, name: &str) -> Vec<Cow<'a, [u8]>> {
    let pairs = fields.split('&').filter(|field| !field.is_empty());
    pairs
        .map(|field| field.split_once('=').unwrap_or((field, "")))
        .filter(|(own, _)| decode(own) == name.as_bytes())
        .map(|(_, value)| Cow::Owned(decode(value)))
        .collect()
}

/// Form decoding: `+` is a blank, `%xx` a byte.
pub(super) fn decode(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).collect()
}

impl Pointer {
    /// Parses `/a/b~1c/0`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let tokens = text.strip_prefix('/')?.split('/');
        Some(Self(
            tokens
                .map(|token| token.replace("~1", "/").replace("~0", "~"))
                .collect(),
        ))
    }

    /// The scalar it points to: the text of a string, else the literal as written. A key that
    /// stands twice on the way makes the body unreadable (SECURITY DS-18).
    pub(super) fn read(&self, body: &[u8]) -> Result<Option<String>, Unreadable> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let raw = Step(&self.0)
            .deserialize(&mut json)
            .map_err(|_| Unreadable::Body)?;
        json.end().map_err(|_| Unreadable::Body)?;
        let Some(raw) = raw else { return Ok(None) };
        match raw.get().as_bytes().first() {
            Some(b'"') => serde_json::from_str(raw.get())
                .map(Some)
                .map_err(|_| Unreadable::Body),
            Some(b'{' | b'[') => Err(Unreadable::Body),
            Some(b'n') | None => Ok(None),
            Some(_) => Ok(Some(raw.get().to_owned())),
        }
    }
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
        let wanted = token.parse::<usize>().ok();
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
        for absent in ["/x", "/a/1", "/id/x", "/n/0", "/z"] {
            assert_eq!(read(absent, body), Ok(None), "{absent}");
        }
        assert_eq!(read("/a", body), Err(Unreadable::Body));
        assert_eq!(read("/id", "{\"id\":1,\"id\":2}"), Err(Unreadable::Body));
        assert_eq!(read("/id", "{\"id\":1}x"), Err(Unreadable::Body));
        assert_eq!(read("/id", "not json"), Err(Unreadable::Body));
        assert_eq!(read("/id", &"[".repeat(100_000)), Err(Unreadable::Body));
    }

    #[test]
    fn fields_decode_to_their_name() {
        let values = |name| field_values("a=1&%61=2&b=x+y%21&c", name);
        assert_eq!(values("a").len(), 2);
        assert_eq!(values("b"), [&b"x y!"[..]]);
        assert_eq!(values("c"), [&b""[..]]);
        assert!(values("A").is_empty());
    }
}
