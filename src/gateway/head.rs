//! Stage: request line and headers become a [`Head`], or the request is malformed.
//!
//! `net/http` reads the bytes; what HTTP lets through and a gateway must not (rows SM and RT of
//! `docs/threats.md`) ends here.
//! Nothing is decoded, folded or repaired: what passes is forwarded as it came.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};

use super::connection::Connection;
use super::rejection::Rejection;
use crate::reason::Reason;
use crate::route::matcher::normalize_host;
use crate::units::ByteSize;

/// The part of a request before its body.
#[derive(Clone, Debug)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Path and query as in the request line; begins with `/`.
    pub target: PathAndQuery,
    /// The host that it is for.
    pub host: Arc<Host>,
    /// Header fields as received.
    pub headers: HeaderMap,
    /// HTTP version.
    pub version: Version,
}

/// A host that a request may name, and what it comes to on the connection it came over.
#[derive(Debug)]
pub struct Host {
    /// As received, with its port.
    pub value: HeaderValue,
    /// As it is compared: lower case, without port and trailing dot.
    pub name: String,
    /// Scheme and authority, as its sender would write them.
    pub origin: Arc<str>,
    /// Whether the certificate that SNI chose is good for it.
    is_covered: bool,
}

impl Host {
    fn new(authority: &Authority, connection: &Connection) -> Result<Self, Rejection> {
        let value = HeaderValue::from_str(authority.as_str())
            .map_err(|_bad| malformed("the host holds bytes that no host name has"))?;
        let name = normalize_host(authority.host());
        let tls = connection.tls.as_ref();
        let certificate = tls.and_then(|tls| tls.certificate.as_ref());
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(Self {
            is_covered: certificate.is_none_or(|certificate| certificate.covers(&name)),
            origin: format!("{scheme}://{authority}").into(),
            name,
            value,
        })
    }
}

impl Head {
    /// The raw path.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// The raw query.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }
}

/// Longest target, in bytes: far above what any provider sends.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Longest method, in bytes.
const METHOD_BYTES_MAX: usize = 32;
/// Longest host name, in bytes: RFC 1035 2.3.4 allows 253, a port adds six.
const HOST_BYTES_MAX: usize = 260;

/// Whether any route can take this method and target. Who sends others is no sender of webhooks, and
/// its connection is not kept.
pub fn may_deliver(method: &Method, uri: &Uri) -> bool {
    use Method as M;
    let known = [
        M::DELETE,
        M::GET,
        M::HEAD,
        M::OPTIONS,
        M::PATCH,
        M::POST,
        M::PUT,
    ];
    known.contains(method) && uri.path() != "*"
}

/// Judges the head of a request, and takes it out of `request`; leaves it as it is when it refuses it.
pub fn parse(request: &mut Parts, connection: &Connection) -> Result<Head, Rejection> {
    let Parts {
        method,
        uri,
        version,
        headers,
        ..
    } = request;
    let version = *version;
    if method.as_str().len() > METHOD_BYTES_MAX {
        return Err(malformed("the method is longer than 32 bytes"));
    }
    if *method == Method::CONNECT || (*method == Method::OPTIONS && uri.path() == "*") {
        return Err(not_allowed());
    }
    // Most requests have none of the fields that frame: to look for each of them costs more than this.
    let (mut is_framed, mut has_odd_names) = (false, false);
    for name in headers.keys() {
        if let Some(dashed) = super::headers::dashed(name) {
            reserved_name(&dashed)?;
            has_odd_names = true;
        }
        let frames = matches!(
            *name,
            header::CONNECTION | header::EXPECT | header::TRANSFER_ENCODING
        );
        is_framed |= frames;
    }
    if is_framed {
        framing(headers)?;
    }
    if has_odd_names {
        twin_names(headers)?;
    }
    if version == Version::HTTP_2 {
        untrimmed_values(headers)?;
        if headers
            .get_all(header::CONTENT_LENGTH)
            .iter()
            .nth(1)
            .is_some()
        {
            return Err(malformed("Content-Length stands more than once"));
        }
    }
    let says_plain = uri.scheme() == Some(&Scheme::HTTP);
    if version == Version::HTTP_2 && says_plain && connection.tls.is_some() {
        return Err(malformed("over TLS the scheme is `https`"));
    }
    let host = host(uri, version, headers, connection)?;
    let target = target(uri)?;
    if !host.is_covered {
        tracing::debug!(host = &*host.name, "outside the certificate that SNI chose");
        let detail = "the certificate that SNI chose does not cover this host";
        return Err(Rejection::new(Reason::HostMismatch, detail));
    }
    Ok(Head {
        method: std::mem::take(method),
        target,
        host,
        headers: std::mem::take(headers),
        version,
    })
}

/// The target, and a header list as RFC 9113 6.5.2 counts it. h2 refuses too large ones as well, but tells nobody: its
/// own limit stands above this one. Over HTTP/1.1 `net/http/http1` has counted already.
pub fn admit_size(parts: &Parts, max: ByteSize) -> Result<(), Rejection> {
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    // Before anything is made of the rest: of a line without end there is none (`net/http/http1/head.rs`).
    admit_target(target)?;
    if parts.version != Version::HTTP_2 {
        return Ok(());
    }
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + 32);
    let size = fields.sum::<usize>() + target;
    if size as u64 > max.0 {
        let detail = "the header list is above `header_bytes`";
        return Err(Rejection::new(Reason::HeaderTooLarge, detail));
    }
    Ok(())
}

fn admit_target(bytes: usize) -> Result<(), Rejection> {
    if bytes > TARGET_BYTES_MAX {
        let detail = "the target is longer than 8 KiB";
        return Err(Rejection::new(Reason::UriTooLong, detail));
    }
    Ok(())
}

fn malformed(detail: &'static str) -> Rejection {
    Rejection::new(Reason::MalformedRequest, detail)
}

fn not_allowed() -> Rejection {
    let mut rejection = Rejection::new(
        Reason::MethodNotAllowed,
        "this method makes no webhook delivery",
    );
    let allow = (header::ALLOW, HeaderValue::from_static("POST"));
    rejection.fields.push(Arc::new(allow));
    rejection
}

/// The host that the sender means, from exactly one source.
fn host(
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    connection: &Connection,
) -> Result<Arc<Host>, Rejection> {
    let mut fields = headers.get_all(header::HOST).iter();
    let field = fields.next().map(HeaderValue::as_bytes);
    if fields.next().is_some() {
        return Err(malformed("Host stands more than once"));
    }
    let in_target = uri.authority().map(|own| own.as_str().as_bytes());
    let bytes = match (field, in_target) {
        (None, None) => return Err(malformed("Host is missing")),
        // RFC 9112 3.2: an HTTP/1.1 request carries Host even when its target is absolute.
        (None, Some(_)) if version < Version::HTTP_2 => {
            return Err(malformed("Host is missing"));
        }
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (Some(field), Some(target)) => {
            if parse_authority(field)? != parse_authority(target)? {
                return Err(malformed("Host and the target's authority differ"));
            }
            field
        }
    };
    connection.known_host.get_or_parse(bytes, || {
        let authority = parse_authority(bytes)?;
        Host::new(&authority, connection)
    })
}

/// Judges what a request names as its host, with or without a port.
pub fn admit_host(authority: &str) -> Result<(), Rejection> {
    parse_authority(authority.as_bytes()).map(drop)
}

fn parse_authority(bytes: &[u8]) -> Result<Authority, Rejection> {
    let ill_formed = || malformed("Host is not a host name");
    if bytes.is_empty() || bytes.len() > HOST_BYTES_MAX {
        return Err(ill_formed());
    }
    let authority = Authority::try_from(bytes).map_err(|_bad| ill_formed())?;
    let (text, host) = (authority.as_str(), authority.host());
    let port = text.strip_prefix(host).ok_or_else(ill_formed)?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && !host.split_terminator('.').any(str::is_empty)
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        });
    if host_ok && port_ok {
        Ok(authority)
    } else {
        Err(ill_formed())
    }
}

/// Origin form, or absolute form over http or https; a path that means the same to everyone.
pub fn target(uri: &Uri) -> Result<PathAndQuery, Rejection> {
    if uri
        .scheme_str()
        .is_some_and(|scheme| !matches!(scheme, "http" | "https"))
    {
        return Err(malformed("the target's scheme is neither http nor https"));
    }
    let target = uri
        .path_and_query()
        .filter(|target| target.as_str().starts_with('/'));
    let target = target.ok_or_else(|| malformed("the target is neither a path nor a URL"))?;
    if !target.as_str().is_ascii() {
        return Err(malformed("the target holds bytes that no URL has"));
    }
    admit_target(target.as_str().len())?;
    // SECURITY A-44, RT-13, RT-16: made whole with a base, as apps do, these name another host.
    if target.path().starts_with("//") {
        return Err(malformed(
            "the path begins with two slashes, after which some read a host",
        ));
    }
    // Nearly all paths: nothing in them could be read as anything else.
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_');
    if !target.path().as_bytes().iter().all(is_plain) {
        for segment in target.path().split('/') {
            segment_is_plain(segment.as_bytes())?;
        }
    }
    Ok(target.clone())
}

/// Refuses what is read differently: dot segments in any spelling, controls, backslashes, bad escapes.
fn segment_is_plain(segment: &[u8]) -> Result<(), Rejection> {
    let mut decoded = Vec::with_capacity(if segment.contains(&b'%') {
        segment.len()
    } else {
        0
    });
    let mut plain = segment;
    if segment.contains(&b'%') {
        let mut bytes = segment.iter().copied();
        while let Some(byte) = bytes.next() {
            let byte = if byte == b'%' {
                let hex = |digit: Option<u8>| (digit? as char).to_digit(16);
                let (high, low) = (hex(bytes.next()), hex(bytes.next()));
                let value = high
                    .zip(low)
                    .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or_else(|| malformed("the path holds a `%` that is no escape"))?
            } else {
                byte
            };
            decoded.push(byte);
        }
        plain = &decoded;
    }
    if segment.contains(&b'\\') {
        return Err(malformed(
            "the path holds a backslash, which some read as a slash",
        ));
    }
    if plain.iter().any(u8::is_ascii_control) {
        return Err(malformed("the path holds a control character"));
    }
    // `..;x` is a parent to servlet containers (SECURITY RT-15). An escaped separator can hide one.
    let mut names = plain.split(|byte| matches!(byte, b'/' | b'\\'));
    let is_dots = |name: &[u8]| {
        let name = name.split(|byte| *byte == b';').next().unwrap_or(name);
        matches!(name, b"." | b"..")
    };
    if names.any(is_dots) {
        return Err(malformed("the path holds a dot segment"));
    }
    Ok(())
}

/// RFC 9112 6: one `Transfer-Encoding`, exactly `chunked`; `Connection` lists names, and none of what
/// frames, routes or identifies (SECURITY SM-03, SM-04, SM-05, RT-28, RT-29); `Expect` stands once.
fn framing(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() {
            return Err(malformed("Transfer-Encoding is not exactly `chunked`"));
        }
    }
    if headers.get_all(header::EXPECT).iter().nth(1).is_some() {
        return Err(malformed("Expect stands more than once"));
    }
    for field in headers.get_all(header::CONNECTION) {
        for option in field.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii().to_ascii_lowercase();
            if !option.is_empty() && HeaderName::from_bytes(&option).is_err() {
                return Err(malformed("Connection names what is no field name"));
            }
            let protected = matches!(
                option.as_slice(),
                b"host"
                    | b"content-length"
                    | b"content-type"
                    | b"transfer-encoding"
                    | b"authorization"
                    | b"forwarded"
            );
            if protected
                || option.starts_with(b"x-forwarded-")
                || option.starts_with(b"x-hookward-")
            {
                return Err(malformed(
                    "Connection names a field that must not be dropped",
                ));
            }
        }
    }
    Ok(())
}

/// Refuses `Content_Length`, `X.Hookward.Verified` and their like: apps that read these signs as `-` would take
/// them for the real ones.
fn reserved_name(dashed: &str) -> Result<(), Rejection> {
    let reserved = super::headers::is_hop_by_hop(dashed)
        || super::headers::is_forwarding(dashed)
        || dashed.starts_with("x-hookward-")
        || matches!(dashed, "content-length" | "host");
    if reserved {
        Err(malformed(
            "a reserved field name is spelt with other signs than `-`",
        ))
    } else {
        Ok(())
    }
}

/// Refuses `X_Topic` beside `X-Topic`: what is verified is the one, and such apps may read the other.
fn twin_names(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut seen = HashSet::new();
    for name in headers.keys() {
        let dashed = super::headers::dashed(name);
        if !seen.insert(dashed.map_or(Cow::Borrowed(name.as_str()), Cow::Owned)) {
            return Err(malformed(
                "two field names differ only in signs that some read alike",
            ));
        }
    }
    Ok(())
}

/// HTTP/1.1 trims values, HTTP/2 does not: a value with outer blanks would be two values (RT-35).
fn untrimmed_values(headers: &HeaderMap) -> Result<(), Rejection> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let untrimmed =
        |value: &HeaderValue| blank(value.as_bytes().first()) || blank(value.as_bytes().last());
    if headers.values().any(untrimmed) {
        return Err(malformed("a field value begins or ends with a blank"));
    }
    Ok(())
}

/// The URL as the sender wrote it.
pub fn sender_url(head: &Head, public_origin: Option<&Arc<str>>) -> crate::scheme::SenderUrl {
    crate::scheme::SenderUrl {
        origin: Arc::clone(public_origin.unwrap_or(&head.host.origin)),
        target: head.target.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::gateway::connection::{CertificateNames, TlsFacts};

    fn connection() -> Connection {
        Connection::new(([192, 0, 2, 1], 1).into(), "https".into(), None)
    }

    /// One whose certificate is for `a.example.org`.
    fn connection_with_certificate() -> Connection {
        let names = CertificateNames {
            dns: vec!["a.example.org".to_owned()],
            ..Default::default()
        };
        let tls = TlsFacts {
            certificate: Some(Arc::new(names)),
            client: None,
        };
        Connection::new(connection().peer, "https".into(), Some(tls))
    }

    fn judge(target: &str, headers: &[(&str, &str)]) -> Result<Head, Reason> {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parse(&mut parts, &connection()).map_err(|rejection| rejection.reason)
    }

    const HOST: (&str, &str) = ("host", "hooks.example.org");
    const BAD: Result<(), Reason> = Err(Reason::MalformedRequest);

    #[test]
    fn hosts() {
        // SECURITY RT-01, RT-02, RT-03, RT-04, RT-05, RT-06, RT-12
        assert_eq!(judge("/a", &[]).map(drop), BAD);
        assert_eq!(judge("/a", &[HOST, HOST]).map(drop), BAD);
        for host in [
            "", "a, b", "a/b", "u@h", "h:99999", "h:1x", "h:+1", "[::1", "[x]", "a b", "a..b?c",
            "a..b", "a..", ".a", ".",
        ] {
            assert_eq!(judge("/a", &[("host", host)]).map(drop), BAD, "{host:?}");
        }
        for (host, name) in [
            ("Hooks.Example.ORG.", "hooks.example.org"),
            ("hooks.example.org:8443", "hooks.example.org"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:db8::1]:443", "[2001:db8::1]"),
        ] {
            assert_eq!(judge("/a", &[("host", host)]).unwrap().host.name, name);
        }
        assert_eq!(judge("http://other.example.org/a", &[HOST]).map(drop), BAD);
        assert_eq!(
            judge("http://u@hooks.example.org/a", &[HOST]).map(drop),
            BAD
        );
        assert_eq!(judge("ftp://hooks.example.org/a", &[HOST]).map(drop), BAD);
        assert_eq!(judge("http://hooks.example.org?a", &[HOST]).map(drop), BAD);
        assert_eq!(
            judge("https://hooks.example.org/a?b", &[HOST])
                .unwrap()
                .target,
            "/a?b"
        );
    }

    #[test]
    fn paths() {
        // SECURITY RT-13, RT-14, RT-15, RT-16, RT-17, RT-18, RT-19
        for path in [
            "/a/../b",
            "/a/./b",
            "/..",
            "/a/%2e%2e/b",
            "/a/%2E./b",
            "/a/..;x/b",
            "/a/%2e;/b",
            "/%00",
            "/%0a",
            "/%0d",
            "/%7f",
            "/%zz",
            "/%",
            "/%a",
            "/a/..%2fb",
            "/a/..%5cb",
            "/\u{fc}",
            "/a?\u{fc}",
            "//evil/p",
            "//",
            "/\\evil/p",
            "/a\\b",
        ] {
            assert_eq!(judge(path, &[HOST]).map(drop), BAD, "{path}");
        }
        for path in [
            "/a//b",
            "/a%2fb",
            "/a?b=//c\\d",
            "/a/...",
            "/a;x=1/b",
            "/%252e%252e/",
            "/%68ooks",
            "/a?%zz",
        ] {
            assert_eq!(judge(path, &[HOST]).unwrap().target, path);
        }
        let long = format!("/{}", "a".repeat(TARGET_BYTES_MAX));
        assert_eq!(judge(&long, &[HOST]).map(drop), Err(Reason::UriTooLong));
    }

    #[test]
    fn framing_and_reserved_names() {
        // SECURITY SM-03, SM-04, SM-05, SM-08, RT-28, RT-29, RT-33
        for header in [
            ("transfer-encoding", "gzip, chunked"),
            ("transfer-encoding", "chunked, chunked"),
            ("transfer-encoding", "identity"),
            ("connection", "close, Host"),
            ("connection", "transfer-encoding"),
            ("connection", "content-type"),
            ("connection", "\"close\""),
            ("connection", "close x"),
            ("connection", "x-forwarded-for"),
            ("content_length", "3"),
            ("transfer_encoding", "chunked"),
            ("x_forwarded_for", "192.0.2.9"),
            ("x_hookward_verified", "token"),
            ("x-hookward_verified", "token"),
            ("x.hookward.verified", "token"),
            ("x-hookward~verified", "token"),
            ("x.forwarded.for", "192.0.2.9"),
        ] {
            assert_eq!(judge("/a", &[HOST, header]).map(drop), BAD, "{header:?}");
        }
        let twice = [
            HOST,
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked"),
        ];
        assert_eq!(judge("/a", &twice).map(drop), BAD);
        let expect = ("expect", "100-continue");
        assert_eq!(judge("/a", &[HOST, expect, expect]).map(drop), BAD);
        assert!(judge("/a", &[HOST, ("transfer-encoding", "Chunked")]).is_ok());
        assert!(judge("/a", &[HOST, ("my_header", "1"), ("my-other", "1")]).is_ok());
        for name in ["x_topic", "x.topic"] {
            let twins = [HOST, ("x-topic", "signed"), (name, "other")];
            assert_eq!(judge("/a", &twins).map(drop), BAD, "{name}");
        }
    }

    #[test]
    fn a_connection_remembers_no_other_host_than_its_last() {
        // SECURITY RT-05, RT-11
        let connection = connection_with_certificate();
        let judge = |host: &str| {
            let request = Request::post("/").header("host", host).body(()).unwrap();
            let head = parse(&mut request.into_parts().0, &connection);
            head.map(|head| (head.host.name.clone(), head.host.origin.to_string()))
                .map_err(|rejection| rejection.reason)
        };
        let own = |host: &str| Ok(("a.example.org".to_owned(), format!("https://{host}")));
        for _ in 0..2 {
            assert_eq!(judge("a.example.org"), own("a.example.org"));
            assert_eq!(judge("A.example.org:8443"), own("A.example.org:8443"));
            assert_eq!(judge("b.example.org"), Err(Reason::HostMismatch));
            assert_eq!(judge("b.example.org"), Err(Reason::HostMismatch));
            assert_eq!(judge("a.example.org/"), Err(Reason::MalformedRequest));
        }
    }

    #[test]
    fn a_host_outside_the_chosen_certificate_is_misdirected() {
        // SECURITY RT-11
        let connection = connection_with_certificate();
        for (host, expected) in [
            ("a.example.org", Ok(())),
            ("b.example.org", Err(Reason::HostMismatch)),
        ] {
            let (mut parts, ()) = Request::post("/")
                .header("host", host)
                .body(())
                .unwrap()
                .into_parts();
            assert_eq!(
                parse(&mut parts, &connection)
                    .map(drop)
                    .map_err(|r| r.reason),
                expected
            );
        }
    }
}
