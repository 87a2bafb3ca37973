//! A request as it goes to an app: its head as bytes, written once, and the body as it came.

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, header};

use crate::scheme::Content;

/// A request as it goes to an upstream.
#[derive(Debug)]
pub struct Outgoing {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// Request line and header fields, as they go over an HTTP/1.1 connection.
    pub head: Head,
    /// The body as received: the same frames, uncopied.
    pub body: Content,
}

impl Outgoing {
    /// A request of the gateway's own: whether the app is well.
    pub fn probe(host: &HeaderValue, target: PathAndQuery) -> Self {
        let mut head = Head::new(&Method::GET, &target);
        head.push(&header::HOST, host);
        Self {
            method: Method::GET,
            target,
            head,
            body: Content::default(),
        }
    }
}

/// The head of a request (RFC 9112 sections 3 and 5). It is complete after each field, and only what cannot
/// end a field early can be written into it.
#[derive(Debug)]
pub struct Head(Vec<u8>);

/// Room for most heads, in bytes. It is among the sizes that the allocator has at hand.
const ROOM: usize = 1024;
const LINE_END: &[u8] = b"\r\n";

impl Head {
    /// One without fields.
    pub fn new(method: &Method, target: &PathAndQuery) -> Self {
        let mut bytes = Vec::with_capacity(ROOM);
        for part in [method.as_str(), " ", target.as_str(), " HTTP/1.1\r\n\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(bytes)
    }

    /// As it goes out, with the empty line that ends it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
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

    /// One more field.
    pub fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.field(name, [value.as_bytes()]);
    }

    /// One more field, whose value is a list.
    pub fn push_list<'a>(
        &mut self,
        name: &HeaderName,
        separator: &str,
        values: impl IntoIterator<Item = &'a HeaderValue>,
    ) {
        let mut before = "";
        let parts = values.into_iter().flat_map(|value| {
            let before = std::mem::replace(&mut before, separator).as_bytes();
            [before, value.as_bytes()]
        });
        self.field(name, parts);
    }

    /// One more field, unless `value` holds what no value may (RFC 9110 section 5.5). Text beyond ASCII goes as
    /// it is.
    pub fn push_text(&mut self, name: &HeaderName, value: &str) {
        let may_stand = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        if value.as_bytes().iter().all(may_stand) {
            self.field(name, [value.as_bytes()]);
        }
    }

    fn field<'a>(&mut self, name: &HeaderName, value: impl IntoIterator<Item = &'a [u8]>) {
        let Self(bytes) = self;
        bytes.truncate(bytes.len().saturating_sub(LINE_END.len()));
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        for part in value {
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(b"\r\n\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_complete_after_each_field() {
        let target = PathAndQuery::from_static("/a?b=c");
        let mut head = Head::new(&Method::POST, &target);
        assert_eq!(head.bytes(), b"POST /a?b=c HTTP/1.1\r\n\r\n");
        assert_eq!(head.fields().count(), 0);
        head.push(&header::HOST, &HeaderValue::from_static("app"));
        let values = ["1", "2"].map(HeaderValue::from_static);
        head.push_list(&header::COOKIE, "; ", &values);
        let empty = HeaderValue::from_static("");
        head.push(&header::REFERER, &empty);
        let text = "POST /a?b=c HTTP/1.1\r\nhost: app\r\ncookie: 1; 2\r\nreferer: \r\n\r\n";
        assert_eq!(std::str::from_utf8(head.bytes()).unwrap(), text);
        let fields: Vec<_> = head.fields().collect();
        let expected: [(&str, &[u8]); 3] =
            [("host", b"app"), ("cookie", b"1; 2"), ("referer", b"")];
        assert_eq!(fields, expected);
    }

    #[test]
    fn no_text_ends_a_field() {
        // SECURITY L-07
        let target = PathAndQuery::from_static("/");
        let mut head = Head::new(&Method::POST, &target);
        for value in ["a\r\nx: 1", "a\nb", "a\0", "\u{7f}"] {
            head.push_text(&header::REFERER, value);
        }
        head.push_text(&header::REFERER, "a\tb ~\u{e4}");
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields, [("referer", "a\tb ~\u{e4}".as_bytes())]);
    }
}
