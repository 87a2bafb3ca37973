//! A captured request: one HTTP/1.1 message as bytes.
//!
//! Total: any bytes are either a request or an error (SECURITY Z-01, S-25). Nothing is repaired and
//! nothing of the body is interpreted: neither `Content-Length` nor `chunked` says where it ends.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A request that somebody captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Method.
    pub method: Method,
    /// Origin or absolute form, as written.
    pub target: String,
    /// Header fields, in order.
    pub headers: HeaderMap,
    /// Every byte after the empty line.
    pub body: Bytes,
}

/// Why bytes are not a request. The first line is 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an HTTP/1.1 request: line {line}: {what}")]
pub struct RequestError {
    line: usize,
    what: &'static str,
}

/// Most header fields: far above what any server takes.
const FIELDS_MAX: usize = 1_000;

/// Reads a request line, header lines (LF or CRLF), an empty line and the body.
pub fn parse(bytes: &[u8]) -> Result<Captured, RequestError> {
    let mut lines = Lines {
        rest: bytes,
        number: 0,
    };
    let first = lines.next()?;
    let (method, target) = request_line(first).map_err(|what| lines.error(what))?;
    let mut headers = HeaderMap::new();
    loop {
        let line = lines.next()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = field(line).map_err(|what| lines.error(what))?;
        if headers.len() >= FIELDS_MAX || headers.try_append(name, value).is_err() {
            return Err(lines.error("there are too many header fields"));
        }
    }
    Ok(Captured {
        method,
        target,
        headers,
        body: Bytes::copy_from_slice(lines.rest),
    })
}

/// What bytes are that are no request, where that can be seen.
pub(super) fn instead(bytes: &[u8]) -> Option<&'static str> {
    let trimmed = bytes.trim_ascii();
    let first_line = trimmed.split(|byte| *byte == b'\n').next();
    // Before the request curl prints what it does about the connection.
    let is_of_curl = |line: &[u8]| line.starts_with(b"> ") || line.starts_with(b"* ");
    if trimmed.is_empty() {
        Some("it is empty")
    } else if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        Some("it is UTF-16; save it as it was, or as UTF-8")
    } else if bytes.starts_with(b"\xef\xbb\xbf") {
        Some("it begins with a byte order mark; save it without one")
    } else if first_line.is_some_and(is_of_curl) {
        Some("these are lines of `curl -v`; leave `> ` out, and put the body behind an empty line")
    } else if trimmed.starts_with(b"HTTP/") {
        Some("it is an answer, and no request")
    } else if trimmed.starts_with(b"curl ") {
        Some("it is a command; what it sends is needed")
    } else if matches!(trimmed.first(), Some(b'{' | b'[' | b'<' | b'"')) {
        Some("it is a body alone; the request line and the headers are needed too")
    } else {
        None
    }
}

/// The lines of a head.
struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line, without its end.
    fn next(&mut self) -> Result<&'a [u8], RequestError> {
        self.number += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let Some((line, rest)) = end.and_then(|end| self.rest.split_at_checked(end)) else {
            return Err(self.error("there is no empty line after the headers"));
        };
        self.rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn error(&self, what: &'static str) -> RequestError {
        RequestError {
            line: self.number,
            what,
        }
    }
}

fn request_line(line: &[u8]) -> Result<(Method, String), &'static str> {
    const SHAPE: &str = "write `METHOD target HTTP/1.1`";
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(SHAPE);
    };
    if !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
        return Err(SHAPE);
    }
    let method = Method::from_bytes(method).map_err(|_ill_formed| "the method is not a token")?;
    let target = std::str::from_utf8(target).map_err(|_ill_formed| "the target is not UTF-8")?;
    let is_absolute = target.split_once("://").is_some_and(|(scheme, rest)| {
        let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        is_http && !rest.is_empty() && !rest.starts_with(['/', '?', '#'])
    });
    if !target.starts_with('/') && !is_absolute {
        return Err("the target is neither a path nor a URL");
    }
    if target.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("the target holds a control character");
    }
    Ok((method, target.to_owned()))
}

fn field(line: &[u8]) -> Result<(HeaderName, HeaderValue), &'static str> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err("a header line begins with white space");
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = colon
        .and_then(|colon| line.split_at_checked(colon))
        .ok_or("a header line has no colon")?;
    let value = value.strip_prefix(b":").unwrap_or(value);
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value
        .iter()
        .position(|byte| !is_blank(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !is_blank(byte))
        .map_or(start, |last| last + 1);
    let value = value.get(start..end).unwrap_or_default();
    let name =
        HeaderName::from_bytes(name).map_err(|_ill_formed| "a header name is not a token")?;
    let value = HeaderValue::from_bytes(value)
        .map_err(|_ill_formed| "a header value holds a control character")?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(request: &Captured, end: &str) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1{end}", request.method, request.target).into_bytes();
        for (name, value) in &request.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(end.as_bytes());
        }
        bytes.extend_from_slice(end.as_bytes());
        bytes.extend_from_slice(&request.body);
        bytes
    }

    fn requests() -> impl Strategy<Value = Captured> {
        let method = prop_oneof!["GET", "POST", "[A-Z]{1,12}"];
        let target = prop_oneof![
            "/[a-zA-Z0-9/._~%?&=+-]{0,40}",
            "https?://[a-z0-9.-]{1,20}(:[0-9]{1,5})?/[a-z0-9/?&=]{0,20}",
        ];
        // Inner blanks stay; the outer ones are no part of a value.
        let value = prop_oneof!["", "[!-~]", "[!-~][ -~\u{80}-\u{ff}]{0,30}[!-~]"];
        let fields = prop::collection::vec(("[a-zA-Z][a-zA-Z0-9_-]{0,20}", value), 0..8);
        (
            method,
            target,
            fields,
            prop::collection::vec(any::<u8>(), 0..64),
        )
            .prop_map(|(method, target, fields, body)| {
                let mut headers = HeaderMap::new();
                for (name, value) in fields {
                    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                    headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
                }
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                Captured {
                    method,
                    target,
                    headers,
                    body: body.into(),
                }
            })
    }

    /// What hyper's server makes of the same bytes; `None` when it refuses them.
    fn read_by_hyper(bytes: &[u8]) -> Option<(Method, String, HeaderMap)> {
        use tokio::io::AsyncWriteExt;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let seen = std::sync::Mutex::new(None);
        let service =
            hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
                let (parts, _) = request.into_parts();
                *seen.lock().unwrap() = Some((parts.method, parts.uri.to_string(), parts.headers));
                let answer = http::Response::new(http_body_util::Empty::<Bytes>::new());
                std::future::ready(Ok::<_, std::convert::Infallible>(answer))
            });
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let server = hyper_util::rt::TokioIo::new(server);
            let mut connection = hyper::server::conn::http1::Builder::new();
            connection
                .keep_alive(false)
                .serve_connection(server, service)
                .await
                .ok();
        });
        seen.into_inner().unwrap()
    }

    proptest! {
        // SECURITY Z-01
        #[test]
        fn it_reads_what_hyper_reads(request in requests(), crlf in any::<bool>()) {
            let printed = print(&Captured { body: Bytes::new(), ..request }, if crlf { "\r\n" } else { "\n" });
            let ours = parse(&printed).unwrap();
            if let Some((method, target, headers)) = read_by_hyper(&printed) {
                prop_assert_eq!((method, target, headers), (ours.method, ours.target, ours.headers));
            }
        }

        // SECURITY Z-01
        #[test]
        fn what_is_printed_parses_to_the_same(request in requests(), crlf in any::<bool>()) {
            let printed = print(&request, if crlf { "\r\n" } else { "\n" });
            prop_assert_eq!(parse(&printed), Ok(request));
        }

        // SECURITY S-25
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&bytes));
        }

        #[test]
        fn a_broken_request_is_a_request_or_an_error(
            request in requests(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<bool>(),
        ) {
            let mut printed = print(&request, "\r\n");
            let at = at.index(printed.len());
            printed[at] = byte;
            if cut {
                printed.truncate(at);
            }
            drop(parse(&printed));
        }
    }

    #[test]
    fn every_byte_after_the_empty_line_is_body() {
        assert!(read_by_hyper(b"POST /a HTTP/1.1\nHost: h\n\n").is_some());
        let parsed =
            parse(b"POST / HTTP/1.1\nContent-Length: 1\nHost:h\r\n\r\na\r\n\r\n\0b").unwrap();
        assert_eq!(&*parsed.body, b"a\r\n\r\n\0b");
        assert_eq!(parsed.headers["host"], "h");
    }

    #[test]
    fn what_is_no_request_is_named() {
        // SECURITY S-25
        for (bytes, part) in [
            (&b""[..], "line 1: there is no empty line"),
            (
                b"POST / HTTP/1.1\r\nHost: h\r\n",
                "line 3: there is no empty line",
            ),
            (b"\n\n", "line 1: write"),
            (b"POST / HTTP/2\n\n", "write `METHOD target HTTP/1.1`"),
            (b"POST  / HTTP/1.1\n\n", "write"),
            (b"PO\0ST / HTTP/1.1\n\n", "method"),
            (b"POST * HTTP/1.1\n\n", "neither a path nor a URL"),
            (b"CONNECT h:443 HTTP/1.1\n\n", "neither a path nor a URL"),
            (b"POST https:///a HTTP/1.1\n\n", "neither a path nor a URL"),
            (b"POST /\0 HTTP/1.1\n\n", "control"),
            (b"POST /\xff HTTP/1.1\n\n", "UTF-8"),
            (
                b"POST / HTTP/1.1\nHost\n\n",
                "line 2: a header line has no colon",
            ),
            (
                b"POST / HTTP/1.1\nA: b\n c\n\n",
                "line 3: a header line begins",
            ),
            (b"POST / HTTP/1.1\nA : b\n\n", "header name"),
            (b"POST / HTTP/1.1\nA: b\0\n\n", "header value"),
            (b"POST / HTTP/1.1\nA: b\rc\n\n", "header value"),
        ] {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let many = format!("POST / HTTP/1.1\n{}\n", "a:\n".repeat(1_001));
        assert!(
            parse(many.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("too many")
        );
    }
}
