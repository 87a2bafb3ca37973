//! Text with `{SOURCE|FILTER}` in it: signed contents, claims, answers to handshakes.
//!
//! Parsed once; rendered piece by piece into a [`Sink`], so that a body goes into a MAC without
//! being copied.

use std::borrow::Cow;
use std::sync::Arc;

use super::fields::Fields;
use super::locate::{self, Location, Pointer, Unreadable, View};
use super::primitive::{Fingerprint, Mac};
use super::{Content, SignatureError, malformed};
use crate::reason::Reason;

mod coverage;
mod filter;
mod json_shape;

use filter::Filter;
pub(super) use filter::{form_encode, url_encode};
use json_shape::Shape;

/// A parsed template.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug)]
enum Segment {
    Literal(Box<str>),
    Value(Value),
}

/// `{SOURCE|FILTER...}`, `{SOURCE?}` when it may be absent.
#[derive(Clone, Debug)]
struct Value {
    source: Source,
    optional: bool,
    filters: Vec<Filter>,
}

#[derive(Clone, Debug)]
enum Source {
    Body,
    Fields(Arc<Fields>),
    Host,
    Id,
    Item(Box<str>),
    Json(Shape, Pointer),
    Method,
    Origin,
    Path,
    /// The path below that of a URL.
    PathBelow(Box<str>),
    Place(Location),
    Query,
    Scheme,
    Secret,
    Target,
    Text(Arc<Template>),
    Timestamp,
    Url,
}

/// What the words of a template stand for while it is parsed.
pub(super) trait Names {
    /// A param as text; `None` where the operator gave none.
    fn param(&mut self, name: &str) -> Option<String>;
    /// A template of `texts`.
    fn text(&mut self, name: &str) -> Option<Arc<Template>>;
    /// A list of `fields`.
    fn fields(&mut self, name: &str) -> Option<Arc<Fields>>;
}

/// What a template is rendered from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) view: View<'a>,
    /// The URL in the spelling that is being tried.
    pub(super) url: &'a str,
    /// Whether the path of a bare origin is left out.
    pub(super) without_path: bool,
    pub(super) timestamp: Option<&'a [u8]>,
    pub(super) id: Option<&'a [u8]>,
    pub(super) secret: Option<&'a [u8]>,
}

impl<'a> Scope<'a> {
    /// A request alone, its URL in one spelling: without what only signed content has.
    pub(super) fn new(view: View<'a>, url: &'a str) -> Self {
        Self {
            view,
            url,
            without_path: false,
            timestamp: None,
            id: None,
            secret: None,
        }
    }
}

/// A value that a template repeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeated<'t> {
    /// Where it stands; `None` where that is no single place.
    pub(super) place: Option<&'t Location>,
    /// Whether an HMAC is over it.
    pub(super) is_signed: bool,
}

/// Takes rendered bytes, in order.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn put_body(&mut self, body: &Content) {
        for frame in body.frames() {
            self.put(frame);
        }
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for Mac {
    fn put(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

impl Sink for Fingerprint {
    fn put(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }

    fn put_body(&mut self, body: &Content) {
        self.update_body(body.frames().iter().map(AsRef::as_ref));
    }
}

impl Template {
    /// Parses a template. The message says what is wrong in it.
    pub(super) fn parse(text: &str, names: &mut dyn Names) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, tail) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = tail.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = tail.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(after) = tail.strip_prefix('{') {
                let (inner, after) = after
                    .split_once('}')
                    .ok_or_else(|| format!("`{{{after}` lacks its `}}`"))?;
                match Value::parse(inner, names)? {
                    Parsed::Literal(text) => literal.push_str(&text),
                    Parsed::Value(value) => {
                        let before = std::mem::take(&mut literal);
                        segments
                            .extend((!before.is_empty()).then(|| Segment::Literal(before.into())));
                        segments.push(Segment::Value(value));
                    }
                }
                rest = after;
            } else {
                return Err("a `}` stands alone; write `}}` for the character itself".to_owned());
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal.into()));
        }
        Ok(Self { segments })
    }

    /// Writes it out. Fails where a value that must be there is not, or cannot be read.
    pub(super) fn render(
        &self,
        scope: &Scope<'_>,
        out: &mut impl Sink,
    ) -> Result<(), SignatureError> {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => out.put(text.as_bytes()),
                Segment::Value(value) => value.render(scope, out)?,
            }
        }
        Ok(())
    }

    /// As text: for claims and names.
    pub(super) fn text(&self, scope: &Scope<'_>) -> Result<Vec<u8>, SignatureError> {
        let mut out = Vec::new();
        self.render(scope, &mut out)?;
        Ok(out)
    }

    /// The first value that must be there and is not, as people call it: for `sign`.
    pub(super) fn lacks(&self, scope: &Scope<'_>) -> Option<String> {
        self.segments.iter().find_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Value(Value {
                source: Source::Text(inner),
                ..
            }) => inner.lacks(scope),
            Segment::Value(value) => {
                let absent = value.render(scope, &mut Vec::new()).is_err();
                absent.then(|| value.source.name())
            }
        })
    }

    /// The text, when nothing in it depends on the request.
    pub(super) fn literal(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [] => Some(""),
            [Segment::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The place whose value it is, where it is nothing else.
    pub(super) fn place(&self) -> Option<&Location> {
        match self.segments.as_slice() {
            [Segment::Value(value)] if value.filters.is_empty() => match &value.source {
                Source::Place(place) => Some(place),
                _ => None,
            },
            _ => None,
        }
    }

    /// Everything that is in it beside literals, `is_signed` where an HMAC is over the whole.
    pub(super) fn repeats<'t>(&'t self, is_signed: bool, out: &mut Vec<Repeated<'t>>) {
        for segment in &self.segments {
            let Segment::Value(value) = segment else {
                continue;
            };
            let is_hmac = |filter: &Filter| matches!(filter, Filter::Hmac(_));
            let is_signed = is_signed || value.filters.iter().any(is_hmac);
            match &value.source {
                Source::Text(inner) => inner.repeats(is_signed, out),
                Source::Place(place) => out.push(Repeated {
                    place: Some(place),
                    is_signed,
                }),
                _ => out.push(Repeated {
                    place: None,
                    is_signed,
                }),
            }
        }
    }

    /// Header fields that go in.
    pub(super) fn headers(&self, out: &mut Vec<http::HeaderName>) {
        for segment in &self.segments {
            match segment {
                Segment::Value(Value {
                    source: Source::Place(Location::Header(name)),
                    ..
                }) => {
                    out.push(name.clone());
                }
                Segment::Value(Value {
                    source: Source::Text(inner),
                    ..
                }) => inner.headers(out),
                Segment::Value(_) | Segment::Literal(_) => {}
            }
        }
    }
}

enum Parsed {
    Literal(String),
    Value(Value),
}

/// How it ends when a param is missing that a scheme wants.
pub(super) const NO_VALUE: &str = "` has no value here";

impl Value {
    fn parse(inner: &str, names: &mut dyn Names) -> Result<Parsed, String> {
        let mut words = inner.split('|');
        let source = words.next().unwrap_or_default();
        let (source, optional) = match source.strip_suffix('?') {
            Some(source) => (source, true),
            None => (source, false),
        };
        let filters = words.map(Filter::parse).collect::<Result<Vec<_>, _>>()?;
        if let Some(name) = source.strip_prefix("param:") {
            let value = match names.param(name) {
                Some(value) => value,
                None if optional => String::new(),
                None => return Err(format!("param `{name}{NO_VALUE}")),
            };
            let filtered = Filter::apply_all(&filters, value.into_bytes(), None);
            return String::from_utf8(filtered)
                .map(Parsed::Literal)
                .map_err(|_bad| format!("the filters of `{{{inner}}}` do not give text"));
        }
        let source = Source::parse(source, names)?;
        Ok(Parsed::Value(Self {
            source,
            optional,
            filters,
        }))
    }

    fn render(&self, scope: &Scope<'_>, out: &mut impl Sink) -> Result<(), SignatureError> {
        if self.filters.is_empty() {
            return self.render_source(scope, out);
        }
        if let (Source::Body, Some((Filter::Digest(digest), rest))) =
            (&self.source, self.filters.split_first())
        {
            let body = scope.view.body.ok_or(UNREAD)?;
            let bytes = digest.of(body.frames().iter().map(AsRef::as_ref));
            out.put(&Filter::apply_all(rest, bytes, scope.secret));
            return Ok(());
        }
        let mut bytes = Vec::new();
        self.render_source(scope, &mut bytes)?;
        out.put(&Filter::apply_all(&self.filters, bytes, scope.secret));
        Ok(())
    }

    fn render_source(&self, scope: &Scope<'_>, out: &mut impl Sink) -> Result<(), SignatureError> {
        let view = &scope.view;
        let url = view.url;
        let found: Option<Cow<'_, [u8]>> = match &self.source {
            Source::Body => {
                out.put_body(view.body.ok_or(UNREAD)?);
                return Ok(());
            }
            Source::Fields(fields) => {
                let written = fields.write(*view).map_err(unreadable)?;
                Some(Cow::Owned(written))
            }
            Source::Host => Some(Cow::Borrowed(url.host().as_bytes())),
            Source::Id => scope.id.map(Cow::Borrowed),
            Source::Item(name) => locate::item(view.items, name).map_err(unreadable)?,
            Source::Json(shape, pointer) => {
                let body = view.json_bytes().map_err(unreadable)?;
                let raw = pointer.raw(&body).map_err(unreadable)?;
                match raw {
                    Some(raw) => Some(Cow::Owned(shape.write(&raw)?)),
                    None => None,
                }
            }
            Source::Method => Some(Cow::Borrowed(view.method.as_str().as_bytes())),
            Source::Origin => Some(Cow::Borrowed(url.origin.as_bytes())),
            Source::Path | Source::Target if scope.without_path => Some(Cow::Borrowed(b"")),
            Source::Path => Some(Cow::Borrowed(url.path().as_bytes())),
            Source::PathBelow(base) => match path_below(url.path(), base) {
                Some(path) => Some(Cow::Owned(path.into_bytes())),
                None => {
                    return Err(malformed(
                        "the path is not below the URL that the sender signs from",
                    ));
                }
            },
            Source::Place(place) => {
                locate::find(std::slice::from_ref(place), *view).map_err(unreadable)?
            }
            Source::Query => Some(Cow::Borrowed(url.query().unwrap_or_default().as_bytes())),
            Source::Scheme => Some(Cow::Borrowed(url.scheme().as_bytes())),
            Source::Secret => scope.secret.map(Cow::Borrowed),
            Source::Target => Some(Cow::Borrowed(url.target.as_bytes())),
            Source::Text(inner) => return inner.render(scope, out),
            Source::Timestamp => scope.timestamp.map(Cow::Borrowed),
            Source::Url => Some(Cow::Borrowed(scope.url.as_bytes())),
        };
        match found {
            Some(bytes) => out.put(&bytes),
            None if self.optional => {}
            None => return Err(malformed("a value that the signature covers is missing")),
        }
        Ok(())
    }
}

const UNREAD: SignatureError = malformed("the signature covers a body that has not been read");

fn unreadable(why: Unreadable) -> SignatureError {
    why.refused(
        Reason::SignatureMalformed,
        "a value that the signature covers stands twice",
        "the body that a signed value stands in cannot be read",
    )
}

impl Source {
    /// As people call it.
    fn name(&self) -> String {
        match self {
            Self::Item(name) => format!("the item `{name}` of the signature's list"),
            Self::Place(Location::Form(name)) => format!("the form field `{name}`"),
            Self::Place(Location::Header(name)) => format!("the header `{name}`"),
            Self::Place(Location::Query(name)) => format!("the query field `{name}`"),
            Self::Place(Location::Json(pointer)) => {
                format!("the value `{pointer}` of the JSON body")
            }
            Self::Json(..) => "a value of the JSON body".to_owned(),
            Self::Place(Location::Xml(_)) => "an element of the XML body".to_owned(),
            _ => "a value that is not there".to_owned(),
        }
    }

    fn parse(text: &str, names: &mut dyn Names) -> Result<Self, String> {
        let (word, argument) = match text.split_once(':') {
            Some((word, argument)) => (word, Some(argument)),
            None => (text, None),
        };
        let plain = match word {
            "body" => Some(Self::Body),
            "host" => Some(Self::Host),
            "id" => Some(Self::Id),
            "method" => Some(Self::Method),
            "origin" => Some(Self::Origin),
            "path" => Some(Self::Path),
            "query" if argument.is_none() => Some(Self::Query),
            "scheme" => Some(Self::Scheme),
            "secret" => Some(Self::Secret),
            "target" => Some(Self::Target),
            "timestamp" => Some(Self::Timestamp),
            "url" => Some(Self::Url),
            _ => None,
        };
        match (plain, argument) {
            (Some(source), None) => return Ok(source),
            (Some(_), Some(_)) => return Err(format!("`{word}` takes no `:`")),
            (None, _) => {}
        }
        let argument = argument.ok_or_else(|| unknown(word))?;
        let pointer = || {
            Pointer::parse(argument).ok_or_else(|| {
                format!("`{argument}` is not a JSON pointer (RFC 6901); it begins with `/`")
            })
        };
        Ok(match word {
            "fields" => Self::Fields(
                names
                    .fields(argument)
                    .ok_or_else(|| format!("there are no `fields` `{argument}`"))?,
            ),
            "form" => Self::Place(Location::Form(argument.into())),
            "header" => Self::Place(Location::Header(
                argument
                    .parse()
                    .map_err(|_bad| format!("`{argument}` is not a header name"))?,
            )),
            "item" => Self::Item(argument.into()),
            "json" => Self::Place(Location::Json(pointer()?)),
            "json_compact" => Self::Json(Shape::Compact, pointer()?),
            "json_raw" => Self::Json(Shape::Raw, pointer()?),
            "json_sorted" => Self::Json(Shape::Sorted, pointer()?),
            "path_below" => {
                let url = names.param(argument).unwrap_or_default();
                let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                let path = rest
                    .find('/')
                    .and_then(|at| rest.get(at..))
                    .unwrap_or_default();
                Self::PathBelow(path.trim_end_matches('/').into())
            }
            "query" => Self::Place(Location::Query(argument.into())),
            "text" => Self::Text(
                names
                    .text(argument)
                    .ok_or_else(|| format!("there is no `texts` entry `{argument}`"))?,
            ),
            "xml" => Self::Place(Location::xml(argument).ok_or_else(|| {
                format!("`{argument}` is not a path of elements; write `/Envelope/Body/Id`")
            })?),
            _ => return Err(unknown(word)),
        })
    }
}

/// The path without `base`, without a slash at its end, `&` escaped: what Atlassian's query hash is over.
fn path_below(path: &str, base: &str) -> Option<String> {
    let below = path.strip_prefix(base)?;
    if !below.is_empty() && !below.starts_with('/') {
        return None;
    }
    let below = below.trim_end_matches('/');
    Some(if below.is_empty() {
        "/".to_owned()
    } else {
        below.replace('&', "%26")
    })
}

/// Every word that can begin a `{...}`.
const WORDS: &[&str] = &[
    "body",
    "fields",
    "form",
    "header",
    "host",
    "id",
    "item",
    "json",
    "json_compact",
    "json_raw",
    "json_sorted",
    "method",
    "origin",
    "param",
    "path",
    "path_below",
    "query",
    "scheme",
    "secret",
    "target",
    "text",
    "timestamp",
    "url",
    "xml",
];

fn unknown(word: &str) -> String {
    match crate::problem::suggest(word, WORDS.iter().copied()) {
        Some(close) => format!("`{{{word}}}` is unknown; did you mean `{{{close}}}`?"),
        None => format!("`{{{word}}}` is unknown; known are {}", WORDS.join(", ")),
    }
}
