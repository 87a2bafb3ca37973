//! The head of an answer: its syntax, and what it says of the body behind it.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;

use super::answer::{AnswerFraming, Chunk};
use super::wire::invalid;
use crate::gateway::forward::UpstreamError;

/// Most fields that an answer may have.
const FIELDS_MAX: usize = 100;

/// Takes the head of an answer from the front of `input`; `None` while it is not complete. Its fields go into
/// `spare`, which is empty.
pub(super) fn answer_head(
    input: &mut BytesMut,
    spare: &mut HeaderMap,
) -> Result<Option<Response<()>>, UpstreamError> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status =
        config.parse_response_with_uninit_headers(&mut parsed, input.as_ref(), &mut fields);
    // A TLS alert, which a TLS server sends to a client that does not speak TLS.
    let is_tls = input.starts_with(&[0x15, 0x03]);
    let length = match status.map_err(|error| match error {
        _ if is_tls => invalid(&"it speaks TLS; write `https://`"),
        error => invalid(&error),
    })? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let code = parsed.code.unwrap_or_default();
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(code).map_err(|error| invalid(&error))?;
    if let Some(phrase) = parsed.reason.filter(|phrase| !phrase.is_empty())
        && head.status().canonical_reason() != Some(phrase)
        && let Ok(phrase) = ReasonPhrase::try_from(phrase.as_bytes())
    {
        head.extensions_mut().insert(phrase);
    }
    *head.version_mut() = match parsed.version {
        Some(0) => http::Version::HTTP_10,
        _ => http::Version::HTTP_11,
    };
    // Names, and places of the values in the input, from which they are then cut without a copy.
    let start = input.as_ptr().addr();
    let mut places = SmallVec::<[_; 16]>::new();
    for field in parsed.headers.iter() {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| invalid(&error))?;
        let at = field.value.as_ptr().addr() - start;
        places.push((name, at..at + field.value.len()));
    }
    let bytes = input.split_to(length).freeze();
    let mut fields = std::mem::take(spare);
    fields.reserve(places.len());
    for (name, place) in places {
        let value =
            HeaderValue::from_maybe_shared(bytes.slice(place)).map_err(|error| invalid(&error))?;
        fields.append(name, value);
    }
    *head.headers_mut() = fields;
    Ok(Some(head))
}

/// How the body is framed (RFC 9112 6.3), and whether the connection outlives it. Removes or rewrites a length in
/// `head` that another reader would refuse, or take for that of a body.
pub(super) fn framing(
    head: &mut Response<()>,
    method: &Method,
) -> Result<(AnswerFraming, bool), UpstreamError> {
    let is_old = head.version() == http::Version::HTTP_10;
    let FramingFields {
        coding,
        length,
        is_plain,
        is_closing,
    } = FramingFields::by(head.headers());
    let is_persistent = !is_old && !is_closing;
    let status = head.status();
    match length {
        Length::Known(_) if is_plain && status != StatusCode::NO_CONTENT => {}
        Length::Known(length) if status != StatusCode::NO_CONTENT => {
            head.headers_mut()
                .insert(header::CONTENT_LENGTH, length.into());
        }
        Length::None => {}
        Length::Known(_) | Length::Several | Length::Bad => {
            head.headers_mut().remove(header::CONTENT_LENGTH);
        }
    }
    if status == StatusCode::NO_CONTENT {
        // It has no body. An app that announces one may send it, and it would be read as the next answer.
        let is_empty = matches!(length, Length::None | Length::Known(0));
        let is_clear = is_empty && matches!(coding, Coding::None);
        return Ok((AnswerFraming::Length(0), is_persistent && is_clear));
    }
    if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ok((AnswerFraming::Length(0), is_persistent));
    }
    match (coding, length) {
        (Coding::Chunked, length) if !is_old => {
            // With a length too, a proxy in between may see another end: the connection is not used again.
            let is_persistent = is_persistent && length == Length::None;
            Ok((AnswerFraming::Chunked(Chunk::Size), is_persistent))
        }
        (Coding::Chunked | Coding::Other, _) => {
            Err(invalid(&"its Transfer-Encoding is not exactly `chunked`"))
        }
        (Coding::None, Length::None) => Ok((AnswerFraming::Close, false)),
        (Coding::None, Length::Known(length)) => Ok((AnswerFraming::Length(length), is_persistent)),
        (Coding::None, Length::Several) => Err(invalid(&"it has two Content-Lengths")),
        (Coding::None, Length::Bad) => Err(invalid(&"its Content-Length is not a number")),
    }
}

/// What the fields of a head say of the framing of its body.
struct FramingFields {
    coding: Coding,
    length: Length,
    /// Whether the length is there once, in digits without leading zeros: then it can be passed on as it is.
    is_plain: bool,
    is_closing: bool,
}

enum Coding {
    None,
    Chunked,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    None,
    Known(u64),
    Several,
    Bad,
}

impl FramingFields {
    fn by(fields: &HeaderMap) -> Self {
        let mut found = Self {
            coding: Coding::None,
            length: Length::None,
            is_plain: true,
            is_closing: false,
        };
        for (name, value) in fields {
            let mut items = value
                .as_bytes()
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii);
            match *name {
                header::CONNECTION => {
                    found.is_closing |= items.any(|option| option.eq_ignore_ascii_case(b"close"));
                }
                header::CONTENT_LENGTH => {
                    let leads_with_zero = value.len() > 1 && value.as_bytes().starts_with(b"0");
                    found.is_plain = found.length == Length::None
                        && !leads_with_zero
                        && value.as_bytes().iter().all(u8::is_ascii_digit);
                    found.length = items.fold(found.length, Length::with);
                }
                header::TRANSFER_ENCODING => {
                    let is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
                    found.coding = match found.coding {
                        Coding::None if is_chunked => Coding::Chunked,
                        _ => Coding::Other,
                    };
                }
                _ => {}
            }
        }
        found
    }
}

impl Length {
    /// Together with one more length.
    fn with(self, text: &[u8]) -> Self {
        match (self, decimal(text)) {
            (Self::Bad, _) | (_, None) => Self::Bad,
            (Self::None, Some(length)) => Self::Known(length),
            (Self::Known(known), Some(length)) if known == length => self,
            (Self::Known(_) | Self::Several, Some(_)) => Self::Several,
        }
    }
}

/// Digits and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(text: &str) -> Result<Option<Response<()>>, UpstreamError> {
        answer_head(&mut BytesMut::from(text), &mut HeaderMap::new())
    }

    fn framed(text: &str, method: &Method) -> Result<(AnswerFraming, bool), UpstreamError> {
        framing(&mut head_of(text)?.unwrap(), method)
    }

    #[test]
    fn a_length_that_goes_on_is_one_that_everybody_reads_alike() {
        // SECURITY U-11, U-13
        for (status, method, fields, expected) in [
            ("200 OK", Method::POST, "Content-Length: 5", Some("5")),
            (
                "200 OK",
                Method::POST,
                "Content-Length: 5\r\nContent-Length: 5",
                Some("5"),
            ),
            ("200 OK", Method::POST, "Content-Length: 5, 5", Some("5")),
            ("200 OK", Method::POST, "Content-Length: 005", Some("5")),
            ("200 OK", Method::POST, "Content-Length: 0", Some("0")),
            ("200 OK", Method::HEAD, "Content-Length: 5,5", Some("5")),
            ("200 OK", Method::HEAD, "Content-Length: 5, 6", None),
            ("200 OK", Method::HEAD, "Content-Length: x", None),
            ("204 No Content", Method::POST, "Content-Length: 5", None),
            (
                "304 Not Modified",
                Method::GET,
                "Content-Length: 5",
                Some("5"),
            ),
        ] {
            let mut head = head_of(&format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n"))
                .unwrap()
                .unwrap();
            framing(&mut head, &method).unwrap();
            let lengths: Vec<_> = head
                .headers()
                .get_all(header::CONTENT_LENGTH)
                .iter()
                .collect();
            let expected: Vec<_> = expected.into_iter().collect();
            assert_eq!(lengths, expected, "{status} {fields}");
        }
    }

    #[test]
    fn heads_are_taken_whole_and_leave_the_rest() {
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\n\r\nrest");
        let head = answer_head(&mut input, &mut HeaderMap::new());
        let head = head.unwrap().unwrap();
        assert_eq!(input, "rest");
        let values: Vec<_> = head.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert!(head_of("HTTP/1.1 200 OK\r\nX-A: 1\r\n").unwrap().is_none());
        assert!(head_of("SMTP 200\r\n\r\n").is_err());
    }

    #[test]
    fn framings() {
        // SECURITY U-11, U-13, U-14
        let post = Method::POST;
        for (fields, expected) in [
            ("Content-Length: 5", (AnswerFraming::Length(5), true)),
            (
                "Content-Length: 5\r\ncontent-length: 5",
                (AnswerFraming::Length(5), true),
            ),
            (
                "Content-Length: 5\r\nConnection: x, Close",
                (AnswerFraming::Length(5), false),
            ),
            (
                "Transfer-Encoding: Chunked",
                (AnswerFraming::Chunked(Chunk::Size), true),
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                (AnswerFraming::Chunked(Chunk::Size), false),
            ),
            ("X-A: 1", (AnswerFraming::Close, false)),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert_eq!(framed(&text, &post).unwrap(), expected, "{fields}");
        }
        for fields in [
            "Content-Length: 5, 6",
            "Content-Length: +5",
            "Content-Length: ",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert!(framed(&text, &post).is_err(), "{fields}");
        }
        let none = (AnswerFraming::Length(0), true);
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framed(length, &Method::HEAD).unwrap(), none);
        let unchanged = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framed(unchanged, &post).unwrap(), none);
        for (fields, is_kept) in [
            ("X-A: 1", true),
            ("Content-Length: 0", true),
            ("Content-Length: 5", false),
            ("Transfer-Encoding: chunked", false),
        ] {
            let text = format!("HTTP/1.1 204 No Content\r\n{fields}\r\n\r\n");
            let expected = (AnswerFraming::Length(0), is_kept);
            assert_eq!(framed(&text, &post).unwrap(), expected, "{fields}");
        }
        let old = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(
            framed(old, &post).unwrap(),
            (AnswerFraming::Length(5), false)
        );
    }
}
