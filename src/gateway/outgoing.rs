//! A request as it goes to an app: its head as bytes, written once, and the body as it came.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::scheme::Content;

/// A request as it goes to an upstream.
#[derive(Debug)]
pub struct Outgoing {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// Request line and header fields, as they go over an HTTP/1.1 connection.
    pub head: WrittenHead,
    /// The body as received: the same frames, uncopied.
    pub body: Content,
    /// Room for the fields of the answer: what is left of the head that came in.
    pub spare: HeaderMap,
}

/// What health checks call themselves in the app's log.
const PROBE_AGENT: &str = concat!("hookward/", env!("CARGO_PKG_VERSION"), " (health check)");

impl Outgoing {
    /// A request of the gateway's own, over a connection of its own: whether the app is well.
    pub fn probe(host: &HeaderValue, target: PathAndQuery) -> Self {
        let mut head = HeadWriter::new(&Method::GET, &target);
        head.push(&header::HOST, host);
        head.push_text(&header::USER_AGENT, PROBE_AGENT);
        head.push_text(&header::CONNECTION, "close");
        Self {
            method: Method::GET,
            target,
            head: head.end(),
            body: Content::default(),
            spare: HeaderMap::new(),
        }
    }
}

/// The head of a request, as bytes.
#[derive(Debug)]
pub struct WrittenHead(Vec<u8>);

/// Writes the head of a request (RFC 9112 sections 3 and 5). Only what cannot end a field early can be written.
#[derive(Debug)]
pub struct HeadWriter(Vec<u8>);

/// Room for most heads, in bytes. It is among the sizes that the allocator has at hand.
const ROOM: usize = 1024;

impl WrittenHead {
    /// As it goes out, with the empty line that ends it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds that the connection ends with the answer.
    pub fn ends_connection(&mut self) {
        let Self(bytes) = self;
        bytes.truncate(bytes.len().saturating_sub(b"\r\n".len()));
        bytes.extend_from_slice(b"connection: close\r\n\r\n");
    }

    /// The fields in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let lines = self.0.split(|byte| *byte == b'\n').skip(1);
        lines.filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, rest) = line.split_at(colon);
            Some((std::str::from_utf8(name).ok()?, rest.strip_prefix(b": ")?))
        })
    }
}

impl HeadWriter {
    /// Begins with the request line.
    pub fn new(method: &Method, target: &PathAndQuery) -> Self {
        let mut bytes = Vec::with_capacity(ROOM);
        for part in [method.as_str(), " ", target.as_str(), " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(bytes)
    }

    /// Ends with an empty line.
    pub fn end(self) -> WrittenHead {
        let Self(mut bytes) = self;
        bytes.extend_from_slice(b"\r\n");
        WrittenHead(bytes)
    }

    /// One more field.
    pub fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.field(name, value.as_bytes());
    }

    /// One more field, whose value is a list.
    pub fn push_list<'a>(
        &mut self,
        name: &HeaderName,
        separator: &str,
        values: impl IntoIterator<Item = &'a HeaderValue>,
    ) {
        let Self(bytes) = self;
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        let mut before = "";
        for value in values {
            bytes.extend_from_slice(before.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
            before = separator;
        }
        bytes.extend_from_slice(b"\r\n");
    }

    /// One more field, unless `value` holds what no value may (RFC 9110 section 5.5). Text beyond ASCII goes as
    /// it is.
    pub fn push_text(&mut self, name: &HeaderName, value: &str) {
        let may_stand = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        if value.as_bytes().iter().all(may_stand) {
            self.field(name, value.as_bytes());
        }
    }

    fn field(&mut self, name: &HeaderName, value: &[u8]) {
        let (Self(bytes), name) = (self, name.as_str());
        // Once, and not for each part.
        bytes.reserve(name.len() + value.len() + 4);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_its_line_its_fields_and_an_empty_line() {
        let target = PathAndQuery::from_static("/a?b=c");
        let head = HeadWriter::new(&Method::POST, &target).end();
        assert_eq!(head.bytes(), b"POST /a?b=c HTTP/1.1\r\n\r\n");
        assert_eq!(head.fields().count(), 0);
        let mut head = HeadWriter::new(&Method::POST, &target);
        head.push(&header::HOST, &HeaderValue::from_static("app"));
        let values = ["1", "2"].map(HeaderValue::from_static);
        head.push_list(&header::COOKIE, "; ", &values);
        let empty = HeaderValue::from_static("");
        head.push(&header::REFERER, &empty);
        let head = head.end();
        let text = "POST /a?b=c HTTP/1.1\r\nhost: app\r\ncookie: 1; 2\r\nreferer: \r\n\r\n";
        assert_eq!(std::str::from_utf8(head.bytes()).unwrap(), text);
        let mut last = WrittenHead(head.bytes().to_vec());
        last.ends_connection();
        let text = text.replace("referer: \r\n", "referer: \r\nconnection: close\r\n");
        assert_eq!(std::str::from_utf8(last.bytes()).unwrap(), text);
        let fields: Vec<_> = head.fields().collect();
        let expected: [(&str, &[u8]); 3] =
            [("host", b"app"), ("cookie", b"1; 2"), ("referer", b"")];
        assert_eq!(fields, expected);
    }

    #[test]
    fn no_text_ends_a_field() {
        // SECURITY L-07
        let target = PathAndQuery::from_static("/");
        let mut head = HeadWriter::new(&Method::POST, &target);
        for value in ["a\r\nx: 1", "a\nb", "a\0", "\u{7f}"] {
            head.push_text(&header::REFERER, value);
        }
        head.push_text(&header::REFERER, "a\tb ~\u{e4}");
        let head = head.end();
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields, [("referer", "a\tb ~\u{e4}".as_bytes())]);
    }
}
