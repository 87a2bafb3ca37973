//! The head of a request, from its bytes.
//!
//! Where lines, names and values begin and end is found here; what may stand in them is judged by the types of the
//! `http` crate. Its framing has one meaning, or it is no request: nothing is merged, dropped or repaired
//! (SECURITY SM-01 to SM-12, RT-20).

use std::ops::Range;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Uri, Version};
use memchr::memchr_iter;
use smallvec::SmallVec;

use super::body::Next;

/// Most fields of a head.
const FIELDS_MAX: usize = 100;
/// Longest request line, in bytes: twice what the gateway takes for a target.
const REQUEST_LINE_BYTES_MAX: usize = 16 * 1024;
/// Ends a head whose request line is longer, so that the gateway refuses its target (SECURITY DS-10).
const END_OF_HEAD: &[u8] =
    b" HTTP/1.1\r\nHost: target-too-long.invalid\r\nConnection: close\r\n\r\n";
/// Most names that a connection keeps between two heads, and the longest, in bytes: what a client sends is not kept
/// without a bound.
const NAMES_KEPT_MAX: usize = 32;
const NAME_BYTES_KEPT_MAX: usize = 64;
/// Most empty lines before a request (SECURITY SM-32).
const BLANK_LINES_MAX: u16 = 1000;

/// Why a head is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    Malformed(&'static str),
    TooLarge(&'static str),
}

/// A head, and what it says of itself.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    /// What comes behind it.
    pub(super) body: Next,
    /// Whether its sender wants to keep the connection (RFC 9112 9.3).
    pub(super) is_kept: bool,
    /// Whether it waits for our word before it sends the body (RFC 9110 10.1.1).
    pub(super) expects: bool,
}

/// The lines of a head, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The places of their line feeds.
    ends: SmallVec<[u32; 16]>,
    /// Bytes that were looked at.
    seen: usize,
    /// Bytes that were judged before all had come.
    judged: usize,
}

/// The names of the last head's fields, as they were spelt. A sender names the same ones in all requests of a connection:
/// each is taken apart once.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(Box<[u8]>, HeaderName)>);

impl Names {
    /// The name of the field at `place`, of which this is the line, and where it ends there.
    fn of_line(&mut self, place: usize, line: &[u8]) -> Result<(HeaderName, usize), BadHead> {
        if let Some((spelt, name)) = self.0.get(place)
            && let Some([b':', ..]) = line.strip_prefix(&**spelt)
        {
            return Ok((name.clone(), spelt.len()));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let colon = colon.ok_or(malformed("a field has no colon"))?;
        let spelt = line.get(..colon).unwrap_or_default();
        let name = HeaderName::from_bytes(spelt).map_err(|_bad| malformed("a name is no token"))?;
        if place < NAMES_KEPT_MAX && colon <= NAME_BYTES_KEPT_MAX {
            self.0.truncate(place);
            self.0.push((spelt.into(), name.clone()));
        }
        Ok((name, colon))
    }
}

/// How much of a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Come {
    Part,
    /// All of it, in so many bytes.
    Whole(usize),
    /// More of a request line than one may have.
    LongLine,
}

impl Lines {
    /// Whether no line has come whole.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Reads on in `input`, which begins with the head.
    pub(super) fn read(&mut self, input: &[u8], bytes_max: usize) -> Result<Come, BadHead> {
        let before = self.seen;
        for length in memchr_iter(b'\n', input.get(before..).unwrap_or_default()) {
            let end = before + length;
            let start = self.ends.last().map_or(0, |end| *end as usize + 1);
            let line = input.get(start..end).unwrap_or_default();
            if self.ends.is_empty() && end >= REQUEST_LINE_BYTES_MAX {
                return Ok(Come::LongLine);
            }
            self.seen = end + 1;
            if matches!(line, [] | [b'\r']) {
                let is_too_large = self.seen > bytes_max;
                let why = BadHead::TooLarge("the head is above `header_bytes`");
                return (!is_too_large).then_some(Come::Whole(self.seen)).ok_or(why);
            }
            if self.ends.len() > FIELDS_MAX {
                return Err(BadHead::TooLarge("the head has more than 100 fields"));
            }
            self.ends.push(u32::try_from(end).unwrap_or(u32::MAX));
        }
        self.seen = input.len();
        if self.ends.is_empty() && input.len() >= REQUEST_LINE_BYTES_MAX {
            return Ok(Come::LongLine);
        }
        if input.len() > bytes_max {
            return Err(BadHead::TooLarge("the head is above `header_bytes`"));
        }
        Ok(Come::Part)
    }

    /// Judges what has come of a head that is not whole: what is in doubt already is not waited for. Looks again when a
    /// line has ended, or twice as much has come, so that bytes that come one by one cost little.
    pub(super) fn judge(&mut self, input: &[u8]) -> Result<(), BadHead> {
        let lines_end = self.ends.last().map_or(0, |end| *end as usize + 1);
        if lines_end <= self.judged && input.len() < 2 * self.judged {
            return Ok(());
        }
        self.judged = input.len();
        let (lines, part) = input.split_at_checked(lines_end).unwrap_or_default();
        if lines.is_empty() {
            return may_begin_request(part)
                .then_some(())
                .ok_or(malformed("its beginning is none of a request line"));
        }
        let mut so_far = Self {
            ends: self.ends.clone(),
            ..Self::default()
        };
        let bytes = Bytes::copy_from_slice(lines);
        so_far.head(&bytes, &mut Names::default(), HeaderMap::new())?;
        may_begin_field(part)
            .then_some(())
            .ok_or(malformed("the beginning of a line is none of a field"))
    }

    /// Takes apart the head that was read, which `bytes` are. Its fields go into `spare`, which is empty.
    pub(super) fn head(
        &mut self,
        bytes: &Bytes,
        names: &mut Names,
        spare: HeaderMap,
    ) -> Result<Head, BadHead> {
        let ends = std::mem::take(self).ends;
        let mut ends = ends.iter().map(|end| *end as usize);
        let mut line_end = ends.next().unwrap_or_default();
        let mut parts = request_line(bytes, line_end)?;
        let is_new = parts.version == Version::HTTP_11;
        let mut said = Said {
            framing: None,
            is_kept: is_new,
            is_closed: false,
            expects: false,
        };
        let mut fields = spare;
        fields.reserve(ends.len());
        for (place, end) in ends.enumerate() {
            let start = line_end + 1;
            let line = without_cr(bytes.get(start..end).unwrap_or_default());
            let (name, colon) = names.of_line(place, line)?;
            let value = line.get(colon + 1..).unwrap_or_default();
            said.note(&name, value)?;
            let place = trimmed(value, start + line.len());
            let value = HeaderValue::from_maybe_shared(bytes.slice(place));
            fields.append(
                name,
                value.map_err(|_bad| malformed("a value has other bytes than text"))?,
            );
            line_end = end;
        }
        parts.headers = fields;
        if !is_new && matches!(said.framing, Some(Next::Size)) {
            return Err(malformed("HTTP/1.0 has no Transfer-Encoding"));
        }
        Ok(Head {
            parts,
            body: said.framing.unwrap_or(Next::Nothing),
            is_kept: said.is_kept && !said.is_closed,
            expects: said.expects && is_new,
        })
    }
}

fn malformed(why: &'static str) -> BadHead {
    BadHead::Malformed(why)
}

/// How many of the bytes before a head are empty lines, which mean nothing (RFC 9112 2.2). `before` is how many came
/// already.
pub(super) fn blank(input: &[u8], before: &mut u16) -> Result<usize, BadHead> {
    let mut rest = input;
    while let [b'\n', left @ ..] | [b'\r', b'\n', left @ ..] = rest {
        rest = left;
        *before += 1;
        if *before > BLANK_LINES_MAX {
            return Err(malformed("there are too many empty lines before it"));
        }
    }
    Ok(input.len() - rest.len())
}

/// The head of a request whose line is longer than its limit: with as much of the target as is within, so that the
/// gateway refuses that.
pub(super) fn too_long(input: &[u8]) -> Result<Head, BadHead> {
    let room = REQUEST_LINE_BYTES_MAX - END_OF_HEAD.len();
    let within = input.get(..room).unwrap_or(input);
    let bytes = Bytes::from([within, END_OF_HEAD].concat());
    let mut lines = Lines::default();
    lines.read(&bytes, usize::MAX)?;
    let mut head = lines.head(&bytes, &mut Names::default(), HeaderMap::new())?;
    head.body = Next::Broken;
    Ok(head)
}

/// Method, target and version (RFC 9112 3), of the line that ends at `end`.
fn request_line(bytes: &Bytes, end: usize) -> Result<Parts, BadHead> {
    let line = without_cr(bytes.get(..end).unwrap_or_default());
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed(
            "the request line is no method, target and version",
        ));
    };
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return Err(malformed("the version is neither HTTP/1.1 nor HTTP/1.0")),
    };
    if target.iter().any(is_odd) {
        return Err(malformed(
            "the target has a fragment or a control character",
        ));
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method =
        Method::from_bytes(method).map_err(|_bad| malformed("the method is no token"))?;
    let at = method.len() + 1;
    let target = bytes.slice(at..at + target.len());
    parts.uri = Uri::from_maybe_shared(target).map_err(|_bad| malformed("the target is no URI"))?;
    parts.version = version;
    Ok(parts)
}

/// No form of target has a fragment (RFC 9112 3.2), which the type of targets would cut off.
fn is_odd(byte: &u8) -> bool {
    matches!(byte, 0..=b' ' | b'#' | 0x7f)
}

/// Whether a request line can begin so.
fn may_begin_request(part: &[u8]) -> bool {
    let mut words = without_cr(part).splitn(3, |byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let is_method = |method: &[u8]| Method::from_bytes(method).is_ok();
    let is_target =
        |target: &[u8]| !target.iter().any(is_odd) && (version.is_none() || !target.is_empty());
    let is_version = |version| b"HTTP/1.1".starts_with(version) || b"HTTP/1.0".starts_with(version);
    method.is_none_or(|method| method.is_empty() && target.is_none() || is_method(method))
        && target.is_none_or(is_target)
        && version.is_none_or(is_version)
}

/// Whether this is a whole field, as those of a trailer section are.
pub(super) fn is_field(line: &[u8]) -> bool {
    line.contains(&b':') && may_begin_field(line)
}

/// Whether a field can begin so.
fn may_begin_field(part: &[u8]) -> bool {
    let mut halves = without_cr(part).splitn(2, |byte| *byte == b':');
    let (name, value) = (halves.next().unwrap_or_default(), halves.next());
    (name.is_empty() && value.is_none() || HeaderName::from_bytes(name).is_ok())
        && value.is_none_or(|value| HeaderValue::from_bytes(value).is_ok())
}

/// Where the value is without the blanks around it, which ends at `end`.
fn trimmed(mut value: &[u8], end: usize) -> Range<usize> {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    let start = end - value.len();
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    start..start + value.len()
}

/// Lines of a head may end with a line feed alone (RFC 9112 2.2).
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What the fields say of the message itself.
struct Said {
    /// What comes behind the head, if a field says so.
    framing: Option<Next>,
    is_kept: bool,
    is_closed: bool,
    expects: bool,
}

impl Said {
    /// Takes note of a field with the blanks around its value.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), BadHead> {
        let framing = match *name {
            header::CONTENT_LENGTH => length(unpadded(value))?,
            header::TRANSFER_ENCODING if unpadded(value).eq_ignore_ascii_case(b"chunked") => {
                Next::Size
            }
            header::TRANSFER_ENCODING => {
                return Err(malformed("Transfer-Encoding is not exactly `chunked`"));
            }
            header::CONNECTION => {
                let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                self.is_closed |= options
                    .clone()
                    .any(|own| own.eq_ignore_ascii_case(b"close"));
                self.is_kept |= options.any(|own| own.eq_ignore_ascii_case(b"keep-alive"));
                return Ok(());
            }
            header::EXPECT => {
                self.expects |= value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
                return Ok(());
            }
            _ => return Ok(()),
        };
        if self.framing.replace(framing).is_some() {
            return Err(malformed("it says twice how long its body is"));
        }
        Ok(())
    }
}

/// A value without the spaces around it. Tabs stay: not every server trims them.
fn unpadded(mut value: &[u8]) -> &[u8] {
    while let [b' ', inner @ ..] | [inner @ .., b' '] = value {
        value = inner;
    }
    value
}

fn length(digits: &[u8]) -> Result<Next, BadHead> {
    let only_digits = digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| only_digits);
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(0) => Ok(Next::Nothing),
        Some(length) => Ok(Next::Data(length)),
        None => Err(malformed("Content-Length is not a number")),
    }
}
