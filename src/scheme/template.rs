//! Text with `{SOURCE|FILTER}` in it: signed contents, claims, answers to handshakes.
//!
//! Parsed once; rendered piece by piece into a [`Sink`], so that a body goes into a MAC without
//! being copied.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use super::fields::Fields;
use super::locate::{self, Location, Pointer, Unreadable, View};
use super::primitive::{Digest, Fingerprint, Hash, Mac};
use super::{Content, SignatureError, malformed};
use crate::reason::Reason;

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

/// How a JSON value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Without blanks outside strings.
    Compact,
    /// As it stands.
    Raw,
    /// Compact, keys sorted.
    Sorted,
}

#[derive(Clone, Copy, Debug)]
enum Filter {
    Base64,
    Base64url,
    Crc32,
    Digest(Digest),
    EncodeUri,
    EncodeUriComponent,
    FormEncode,
    Hex,
    HexUpper,
    Hmac(Hash),
    JsonString,
    Lower,
    PercentDecode,
    Trim,
    Upper,
    UrlEncode,
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

    fn uses(&self, wanted: &dyn Fn(&Source) -> bool) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Literal(_) => false,
            Segment::Value(value) => {
                wanted(&value.source)
                    || matches!(&value.source, Source::Text(inner) if inner.uses(wanted))
            }
        })
    }

    /// Whether the whole body goes in.
    pub(super) fn covers_body(&self) -> bool {
        self.covers_any_body()
            || self.uses(&|source| matches!(source, Source::Fields(fields) if fields.is_of_body()))
    }

    /// Whether it ends in the secret as it is.
    pub(super) fn ends_in_secret(&self) -> bool {
        match self.segments.last() {
            Some(Segment::Value(value)) => {
                matches!(value.source, Source::Secret) && value.filters.is_empty()
            }
            _ => false,
        }
    }

    /// Whether nothing of a body can become a part of what stands beside it in a content of these texts.
    /// `has_id_form` says that the id has an end of its own; a time has, or it is another one; URLs and header
    /// fields have where a line ends between them and the body.
    pub(super) fn fix_body<'t>(texts: impl Iterator<Item = &'t Self>, has_id_form: bool) -> bool {
        let segments: Vec<&Segment> = texts.flat_map(|text| &text.segments).collect();
        let is_body = |segment: &&Segment| match segment {
            Segment::Literal(_) => false,
            Segment::Value(value) => matches!(value.source, Source::Body | Source::Json(..)),
        };
        let ends_line = |segment: &&Segment| match segment {
            Segment::Literal(text) => text.contains('\n'),
            Segment::Value(_) => false,
        };
        let body = segments.iter().position(is_body);
        let is_apart = |at: usize| {
            let body = body.unwrap_or(at);
            let between = segments.get(at.min(body)..at.max(body));
            between.is_some_and(|between| between.iter().any(ends_line))
        };
        segments
            .iter()
            .enumerate()
            .all(|(at, segment)| match segment {
                Segment::Literal(_) => true,
                Segment::Value(value) => {
                    value.is_fixed(has_id_form) || (value.is_of_one_line() && is_apart(at))
                }
            })
    }

    /// Whether the bytes of the body go in, not what is read in them.
    pub(super) fn is_over_bytes(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Body))
    }

    /// Whether only a form body goes in: another one is left out.
    pub(super) fn covers_only_form(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Fields(fields) if fields.is_of_form()))
    }

    /// Whether the whole body goes in, whatever it is.
    pub(super) fn covers_any_body(&self) -> bool {
        self.uses(&|source| match source {
            Source::Body => true,
            Source::Json(_, pointer) => pointer.is_root(),
            _ => false,
        })
    }

    /// Whether the query goes in, or fields of it, and nothing else of a request.
    pub(super) fn is_of_query(&self) -> bool {
        let of_query = |source: &Source| match source {
            Source::Query | Source::Place(Location::Query(_)) => true,
            Source::Fields(fields) => fields.is_of_query(),
            _ => false,
        };
        let of_none = |source: &Source| matches!(source, Source::Secret | Source::Text(_));
        self.uses(&of_query) && !self.uses(&|source| !of_query(source) && !of_none(source))
    }

    /// Whether JSON goes in with its keys in another order.
    pub(super) fn sorts_json(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Json(Shape::Sorted, _)))
    }

    /// Whether values of the JSON in the body go in.
    pub(super) fn reads_json(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Json(..) | Source::Place(Location::Json(_))))
    }

    /// The fields of a form that go in by themselves.
    pub(super) fn form_fields(&self) -> Vec<&str> {
        let sources = self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Value(value) => Some(&value.source),
        });
        sources
            .flat_map(|source| match source {
                Source::Place(place) => place.form_field().into_iter().collect(),
                Source::Text(inner) => inner.form_fields(),
                _ => Vec::new(),
            })
            .collect()
    }

    /// Whether the timestamp goes in.
    pub(super) fn covers_timestamp(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Timestamp))
    }

    /// Whether the id goes in.
    pub(super) fn covers_id(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Id))
    }

    /// Whether the host of the URL goes in.
    pub(super) fn covers_host(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Host | Source::Origin | Source::Url))
    }

    /// Whether it depends on how the URL is written: on a spelling, or on whether a bare path is.
    pub(super) fn depends_on_spelling(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Path | Source::Target | Source::Url))
    }

    /// Whether the secret goes in.
    pub(super) fn covers_secret(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Secret))
    }

    /// Whether the value at `place` goes in by itself.
    pub(super) fn covers(&self, place: &Location) -> bool {
        self.uses(&|source| match (source, place) {
            (Source::Place(own), place) => own == place,
            (Source::Json(_, own), Location::Json(pointer)) => own == pointer,
            _ => false,
        })
    }

    /// Whether the value at `place` goes in as one of pairs, see [`Fields::shows`].
    pub(super) fn shows_pair(&self, place: &Location) -> bool {
        let name = match place {
            Location::Form(name) => Some(&**name),
            Location::Json(pointer) => pointer.member(),
            _ => None,
        };
        self.uses(&|source| match (source, name) {
            (Source::Fields(fields), Some(name)) => fields.shows(name),
            _ => false,
        })
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

    /// Whether it ends where it did when it was signed, whatever stands beside it.
    fn is_fixed(&self, has_id_form: bool) -> bool {
        match &self.source {
            Source::Body
            | Source::Json(..)
            | Source::Method
            | Source::Secret
            | Source::Timestamp => true,
            Source::Id => has_id_form,
            Source::Text(inner) => Template::fix_body(std::iter::once(&**inner), has_id_form),
            _ => self.has_fixed_length(),
        }
    }

    /// Whether no line can end in it.
    fn is_of_one_line(&self) -> bool {
        let is_of_head = matches!(
            self.source,
            Source::Host
                | Source::Origin
                | Source::Path
                | Source::Place(Location::Header(_))
                | Source::Query
                | Source::Scheme
                | Source::Target
                | Source::Url
        );
        is_of_head && self.filters.is_empty()
    }

    /// Whether it is a digest, which is as long whatever it is of.
    fn has_fixed_length(&self) -> bool {
        let is_digest = |filter: &Filter| matches!(filter, Filter::Digest(_) | Filter::Hmac(_));
        self.filters.iter().any(is_digest)
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
            Self::Json(..) | Self::Place(Location::Json(_)) => {
                "a value of the JSON body".to_owned()
            }
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
            Pointer::parse(argument)
                .ok_or_else(|| format!("`{argument}` is no JSON pointer; it begins with `/`"))
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
                    .map_err(|_bad| format!("`{argument}` is no header name"))?,
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
                format!("`{argument}` is no path of element names; write `/Envelope/Body/Id`")
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

/// RFC 3986 2.3: everything but unreserved characters is escaped.
const RFC3986: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// `application/x-www-form-urlencoded` (WHATWG URL 5.2), a blank handled apart.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'*')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_');

/// `encodeURIComponent` of ECMAScript: RFC 2396 counted further marks as unreserved.
const URI_COMPONENT: &AsciiSet = &RFC3986
    .remove(b'!')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*');

/// `encodeURI` of ECMAScript: what parts of a URL are made of, and what separates them, is left.
const URI: &AsciiSet = &URI_COMPONENT
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'?')
    .remove(b'@');

/// RFC 3986 escapes.
pub(super) fn url_encode(bytes: &[u8]) -> String {
    percent_encode(bytes, RFC3986).to_string()
}

/// Form escapes, `+` for a blank.
pub(super) fn form_encode(bytes: &[u8]) -> String {
    percent_encode(bytes, FORM).to_string().replace("%20", "+")
}

impl Filter {
    fn parse(word: &str) -> Result<Self, String> {
        Ok(match word {
            "base64" => Self::Base64,
            "base64url" => Self::Base64url,
            "crc32" => Self::Crc32,
            "encode_uri" => Self::EncodeUri,
            "encode_uri_component" => Self::EncodeUriComponent,
            "form_encode" => Self::FormEncode,
            "hex" => Self::Hex,
            "hex_upper" => Self::HexUpper,
            "hmac_sha1" => Self::Hmac(Hash::Sha1),
            "hmac_sha256" => Self::Hmac(Hash::Sha256),
            "hmac_sha512" => Self::Hmac(Hash::Sha512),
            "json_string" => Self::JsonString,
            "lower" => Self::Lower,
            "percent_decode" => Self::PercentDecode,
            "trim" => Self::Trim,
            "upper" => Self::Upper,
            "url_encode" => Self::UrlEncode,
            _ => match Digest::named(word) {
                Some(digest) => Self::Digest(digest),
                None => return Err(format!("there is no filter `{word}`")),
            },
        })
    }

    fn apply_all(filters: &[Self], bytes: Vec<u8>, secret: Option<&[u8]>) -> Vec<u8> {
        filters
            .iter()
            .fold(bytes, |bytes, filter| filter.apply(&bytes, secret))
    }

    fn apply(self, bytes: &[u8], secret: Option<&[u8]>) -> Vec<u8> {
        match self {
            Self::Base64 => BASE64.encode(bytes).into_bytes(),
            Self::Base64url => BASE64URL_NOPAD.encode(bytes).into_bytes(),
            Self::Crc32 => crc32(bytes).to_string().into_bytes(),
            Self::Digest(digest) => digest.of([bytes]),
            Self::EncodeUri => percent_encode(bytes, URI).to_string().into_bytes(),
            Self::EncodeUriComponent => percent_encode(bytes, URI_COMPONENT)
                .to_string()
                .into_bytes(),
            Self::FormEncode => form_encode(bytes).into_bytes(),
            Self::Hex => HEXLOWER.encode(bytes).into_bytes(),
            Self::HexUpper => HEXUPPER.encode(bytes).into_bytes(),
            Self::Hmac(hash) => {
                let mut mac = Mac::new(hash, secret.unwrap_or_default());
                mac.update(bytes);
                mac.finish().into_vec()
            }
            Self::JsonString => {
                let text = String::from_utf8_lossy(bytes);
                serde_json::Value::from(text.as_ref())
                    .to_string()
                    .into_bytes()
            }
            Self::Lower => bytes.to_ascii_lowercase(),
            Self::PercentDecode => percent_decode(bytes).collect(),
            Self::Trim => bytes.trim_ascii().to_vec(),
            Self::Upper => bytes.to_ascii_uppercase(),
            Self::UrlEncode => url_encode(bytes).into_bytes(),
        }
    }
}

/// CRC-32 as zip and `PayPal` compute it (polynomial 0xEDB88320, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

impl Shape {
    fn write(self, raw: &str) -> Result<Vec<u8>, SignatureError> {
        match self {
            Self::Raw => Ok(raw.as_bytes().to_vec()),
            Self::Compact => Ok(compact(raw)),
            Self::Sorted => {
                // A member that stands twice would be written once (SECURITY DS-18).
                super::strict_json::parse(raw.as_bytes()).ok_or(malformed(
                    "the JSON that the signature covers cannot be read",
                ))?;
                let mut out = Vec::with_capacity(raw.len());
                sort_into(raw, &mut out)?;
                Ok(out)
            }
        }
    }
}

/// JSON without the blanks between its tokens.
fn compact(raw: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let (mut in_string, mut escaped) = (false, false);
    for byte in raw.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => continue,
            _ => {}
        }
        out.push(byte);
    }
    out
}

const NOT_THE_JSON: SignatureError =
    malformed("the body is not the JSON that the signature covers");

/// Writes compact JSON with the keys of every object sorted by bytes, every scalar as it stands. `raw` is JSON,
/// no deeper than `serde_json` reads, in which no key stands twice.
fn sort_into(raw: &str, out: &mut Vec<u8>) -> Result<(), SignatureError> {
    let end = sort_value(raw, out)?;
    end.trim().is_empty().then_some(()).ok_or(NOT_THE_JSON)
}

/// Writes the value at the beginning of `json`, and gives back what follows it. Each byte is read once; members
/// that are not in order are moved once for each object around them.
fn sort_value<'j>(json: &'j str, out: &mut Vec<u8>) -> Result<&'j str, SignatureError> {
    let json = json.trim_start();
    let Some(open @ (b'{' | b'[')) = json.as_bytes().first().copied() else {
        let (scalar, rest) = split_scalar(json)?;
        out.extend_from_slice(scalar.as_bytes());
        return Ok(rest);
    };
    let close = if open == b'{' { '}' } else { ']' };
    out.push(open);
    let begin = out.len();
    let mut members: Vec<(Cow<'_, str>, Range<usize>)> = Vec::new();
    let mut rest = json.get(1..).unwrap_or_default().trim_start();
    let mut is_first = true;
    while !rest.starts_with(close) {
        if !is_first {
            rest = rest.strip_prefix(',').ok_or(NOT_THE_JSON)?;
            out.push(b',');
        }
        if open == b'{' {
            let (key, value) = split_scalar(rest.trim_start())?;
            let key: Cow<'_, str> = serde_json::from_str(key).map_err(|_bad| NOT_THE_JSON)?;
            let start = out.len();
            let written = serde_json::Value::from(key.as_ref()).to_string();
            out.extend_from_slice(written.as_bytes());
            out.push(b':');
            let value = value.trim_start().strip_prefix(':').ok_or(NOT_THE_JSON)?;
            rest = sort_value(value, out)?;
            members.push((key, start..out.len()));
        } else {
            rest = sort_value(rest, out)?;
        }
        rest = rest.trim_start();
        is_first = false;
    }
    if !members.is_sorted_by(|(a, _), (b, _)| a <= b) {
        order(members, begin, out);
    }
    out.push(close as u8);
    Ok(rest.get(1..).unwrap_or_default())
}

/// Puts the members that were written from `begin` on in order, with commas between them.
fn order(mut members: Vec<(Cow<'_, str>, Range<usize>)>, begin: usize, out: &mut Vec<u8>) {
    members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let mut ordered = Vec::with_capacity(out.len().saturating_sub(begin));
    for (index, (_, range)) in members.into_iter().enumerate() {
        if index > 0 {
            ordered.push(b',');
        }
        ordered.extend_from_slice(out.get(range).unwrap_or_default());
    }
    out.truncate(begin);
    out.append(&mut ordered);
}

/// A string, number or word at the beginning of valid JSON, and what follows it.
fn split_scalar(json: &str) -> Result<(&str, &str), SignatureError> {
    let bytes = json.as_bytes();
    let end = if bytes.first() == Some(&b'"') {
        let mut is_escaped = false;
        let closing = bytes.iter().skip(1).position(|byte| match byte {
            _ if std::mem::take(&mut is_escaped) => false,
            b'\\' => {
                is_escaped = true;
                false
            }
            byte => *byte == b'"',
        });
        closing.map(|at| at + 2)
    } else {
        let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        Some(bytes.iter().position(is_end).unwrap_or(bytes.len()))
    };
    end.and_then(|end| json.split_at_checked(end))
        .ok_or(NOT_THE_JSON)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(raw: &str) -> Result<String, SignatureError> {
        let written = Shape::Sorted.write(raw)?;
        Ok(String::from_utf8(written).unwrap())
    }

    #[test]
    fn keys_are_sorted_and_scalars_stay() {
        for (raw, expected) in [
            ("{}", "{}"),
            (" [ ] ", "[]"),
            ("{\"b\":1,\"a\":2}", "{\"a\":2,\"b\":1}"),
            (
                "{ \"z\" : [ {\"y\": 1.50 , \"x\":null}, true ] , \"a\": \"}, \\\"\" }",
                "{\"a\":\"}, \\\"\",\"z\":[{\"x\":null,\"y\":1.50},true]}",
            ),
            (
                "{\"\\u0062\":1,\"a\":{\"d\":{},\"c\":[]}}",
                "{\"a\":{\"c\":[],\"d\":{}},\"b\":1}",
            ),
            ("\"\\u00e4\"", "\"\\u00e4\""),
            ("-1e2", "-1e2"),
        ] {
            assert_eq!(sorted(raw).as_deref(), Ok(expected), "{raw}");
        }
        // SECURITY DS-18
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "1 2",
        ] {
            assert!(sorted(bad).is_err(), "{bad}");
        }
        let deep = |levels: usize| "{\"b\":0,\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
        let written = sorted(&deep(100)).unwrap();
        assert!(written.starts_with("{\"a\":{\"a\":") && written.ends_with(",\"b\":0},\"b\":0}"));
        assert!(sorted(&deep(200)).is_err());
    }
}
