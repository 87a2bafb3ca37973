//! URLs that are called because a configuration or a request names them: https only, in the
//! narrowest form (SECURITY A-32, A-33, A-34, A-35).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::SignatureError;
use super::protocol::malformed;

/// Longest URL that is read.
const LENGTH_MAX: usize = 2048;
const PORT_DEFAULT: u16 = 443;

/// An https URL without user, fragment or anything that two readers could take apart differently.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpsUrl {
    host: Arc<str>,
    port: u16,
    target: Arc<str>,
}

/// Where keys are published, and what must hold for what is found there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyUrl {
    /// The document.
    pub url: HttpsUrl,
    /// Names of which the certificate that is found must carry one, up to a public root. Empty
    /// where keys are published as such.
    pub certificate_names: Vec<Arc<str>>,
    /// Which addresses its host may have.
    pub reach: Reach,
    /// JSON pointer to the keys, where the document is JSON around them.
    pub inside: Option<Arc<str>>,
}

/// Which addresses may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Any: the operator wrote this very URL.
    Any,
    /// Public ones only: a name that comes from elsewhere must not lead into the operator's network.
    Public,
}

/// Certificates whose URL stands in a header field.
#[derive(Clone, Debug)]
pub struct NamedKeyUrl {
    header: HeaderName,
    hosts: Vec<HostPattern>,
    certificate_names: Vec<Arc<str>>,
}

/// A host: exact, or `*.example.org` for one more label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPattern(String);

impl HttpsUrl {
    /// Reads a URL; the message says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > LENGTH_MAX {
            return Err("the URL is too long");
        }
        let rest = text
            .strip_prefix("https://")
            .ok_or("the URL is not https")?;
        let (authority, target) = match rest.find(['/', '?']) {
            Some(end) => rest.split_at_checked(end).unwrap_or((rest, "")),
            None => (rest, ""),
        };
        let is_visible = |byte: u8| byte.is_ascii_graphic() && !br##""#<>\^`{|}"##.contains(&byte);
        if !target.bytes().all(is_visible) {
            return Err("the URL has a fragment, or a character that does not stand in URLs");
        }
        let (host, port) = split_port(authority)?;
        let host = host.to_ascii_lowercase();
        if !is_host(&host) {
            return Err("the URL's host is not a plain host name or address");
        }
        let target = if target.starts_with('/') {
            target.into()
        } else {
            format!("/{target}").into()
        };
        Ok(Self {
            host: host.into(),
            port,
            target,
        })
    }

    /// As [`HttpsUrl::parse`], for a URL that a request names: written in the one usual way, without
    /// a port.
    pub fn parse_named(text: &str) -> Result<Self, &'static str> {
        let url = Self::parse(text)?;
        if url.port == PORT_DEFAULT && url.to_string() == text {
            Ok(url)
        } else {
            Err("the URL has a port, or is not written in the usual way")
        }
    }

    /// Host in lower case; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query; begins with `/`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Path, without the query.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(&self.target, |(path, _)| path)
    }

    /// The raw query.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Host, with the port where it is not the default one.
    pub fn authority(&self) -> String {
        match self.port {
            PORT_DEFAULT => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.target)
    }
}

fn split_port(authority: &str) -> Result<(&str, u16), &'static str> {
    let end_of_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (before, after) = authority
        .split_at_checked(end_of_host)
        .unwrap_or(("", authority));
    let Some(colon) = after.find(':') else {
        return Ok((authority, PORT_DEFAULT));
    };
    let (host, port) = authority
        .split_at_checked(before.len() + colon)
        .unwrap_or((authority, ""));
    let digits = port.strip_prefix(':').unwrap_or(port);
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if all_digits && port > 0 => Ok((host, port)),
        _ => Err("the URL's port is not a port"),
    }
}

/// A DNS name, an IPv4 address in its one usual form, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return matches!(address.parse(), Ok(IpAddr::V6(_)));
    }
    let mut labels = host.split('.');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // `127.1`, `0x7f.1` and `2130706433` are addresses to some resolvers: a last label that begins
    // with a digit is one only in the usual form.
    let is_number = host
        .rsplit('.')
        .next()
        .is_some_and(|last| last.starts_with(|first: char| first.is_ascii_digit()));
    host.len() <= 253
        && labels.all(is_label)
        && (!is_number || matches!(host.parse(), Ok(IpAddr::V4(_))))
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix("*.") {
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => self.0 == host,
        }
    }
}

impl KeyUrl {
    /// Keys at a URL that the operator wrote.
    pub fn of_operator(url: HttpsUrl) -> Self {
        Self {
            url,
            certificate_names: Vec::new(),
            reach: Reach::Any,
            inside: None,
        }
    }

    /// Keys at a URL that a preset names.
    pub fn of_preset(url: HttpsUrl, certificate_names: Vec<Arc<str>>) -> Self {
        Self {
            url,
            certificate_names,
            reach: Reach::Public,
            inside: None,
        }
    }
}

impl NamedKeyUrl {
    /// `hosts` are exact names or `*.example.org`; the message names the one that is neither.
    pub fn new<'a>(
        header: HeaderName,
        hosts: impl IntoIterator<Item = &'a str>,
        certificate_names: Vec<Arc<str>>,
    ) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for host in hosts {
            let name = host.strip_prefix("*.").unwrap_or(host);
            if !is_host(name) || !name.contains('.') || name != name.to_ascii_lowercase() {
                return Err(format!("`{host}` is not a host name, nor `*.` before one"));
            }
            patterns.push(HostPattern(host.to_owned()));
        }
        if patterns.is_empty() {
            return Err("no host is allowed: name the hosts that publish the keys".to_owned());
        }
        Ok(Self {
            header,
            hosts: patterns,
            certificate_names,
        })
    }

    /// The field that holds the URL.
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// The URL that a request names, if it is one of the pinned hosts'.
    pub fn of(&self, headers: &HeaderMap) -> Result<KeyUrl, SignatureError> {
        let mut fields = headers.get_all(&self.header).iter();
        let (field, None) = (fields.next(), fields.next()) else {
            return Err(malformed(
                "the URL of the certificate stands more than once",
            ));
        };
        let field = field.ok_or(malformed("the URL of the certificate is missing"))?;
        let text = field
            .to_str()
            .or(Err(malformed("the URL of the certificate is not a URL")))?;
        let url = HttpsUrl::parse_named(text).map_err(malformed)?;
        if !self.hosts.iter().any(|host| host.matches(url.host())) {
            return Err(malformed(
                "the certificate is not at one of the provider's hosts",
            ));
        }
        Ok(KeyUrl::of_preset(url, self.certificate_names.clone()))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_read() {
        for (text, host, port, target) in [
            ("https://example.org", "example.org", 443, "/"),
            ("https://Example.ORG/a?b=c", "example.org", 443, "/a?b=c"),
            ("https://example.org:8443?x", "example.org", 8443, "/?x"),
            ("https://127.0.0.1:1/", "127.0.0.1", 1, "/"),
            ("https://[::1]:9/k", "[::1]", 9, "/k"),
            ("https://[2001:db8::1]/k", "[2001:db8::1]", 443, "/k"),
        ] {
            let url = HttpsUrl::parse(text).unwrap();
            assert_eq!(
                (url.host(), url.port(), url.target()),
                (host, port, target),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "",
            "http://example.org/",
            "HTTPS://example.org/",
            "https://",
            "https:///x",
            "https://user@example.org/",
            "https://example.org@evil.example/",
            "https://example.org:443@evil.example/",
            "https://example.org\\@evil.example/",
            "https://example.org#/x",
            "https://example.org/x#y",
            "https://example.org/a b",
            "https://example.org/\r\nHost: x",
            "https://example.org:0/",
            "https://example.org:/",
            "https://example.org:+1/",
            "https://example.org:99999/",
            "https://example..org/",
            "https://-a.example/",
            "https://ex%61mple.org/",
            "https://exämple.org/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://0x7f000001/",
            "https://127.0.0.01/",
            "https://[::1/",
            "https://[::1]x/",
            "https://[fe80::1%25eth0]/",
        ] {
            assert!(HttpsUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_names_only_the_pinned_hosts() {
        // SECURITY A-35
        let header = HeaderName::from_static("paypal-cert-url");
        let hosts = ["api.paypal.com", "*.sandbox.paypal.com"];
        let named = NamedKeyUrl::new(header.clone(), hosts, Vec::new()).unwrap();
        let of = |url: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header.clone(), HeaderValue::from_str(url).unwrap());
            named.of(&headers).map(|found| found.url.to_string())
        };
        for good in [
            "https://api.paypal.com/v1/certs/a",
            "https://api.sandbox.paypal.com/c",
        ] {
            assert_eq!(of(good).as_deref(), Ok(good));
        }
        for bad in [
            "https://api.paypal.com.evil.example/c",
            "https://evil-api.paypal.com/c",
            "https://api.paypal.com:8443/c",
            "https://api.paypal.com:443/c",
            "https://API.paypal.com/c",
            "https://api.paypal.com",
            "https://sandbox.paypal.com/c",
            "https://a.b.sandbox.paypal.com/c",
            "http://api.paypal.com/c",
            "https://api.paypal.com@evil.example/c",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        let mut twice = HeaderMap::new();
        for url in ["https://api.paypal.com/a", "https://api.paypal.com/b"] {
            twice.append(header.clone(), HeaderValue::from_static(url));
        }
        assert!(named.of(&twice).is_err());
        assert!(named.of(&HeaderMap::new()).is_err());
        for bad in ["*", "*.com", "com", "A.example", "*.*.example", ""] {
            assert!(
                NamedKeyUrl::new(header.clone(), [bad], Vec::new()).is_err(),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn reading_is_total(text in ".{0,80}", rest in ".{0,80}") {
            drop((HttpsUrl::parse(&text), HttpsUrl::parse(&format!("https://{rest}"))));
        }

        #[test]
        fn what_is_printed_reads_the_same(text in "https://[a-z0-9.\\[\\]:-]{1,20}[a-z/?=&]{0,10}") {
            if let Ok(url) = HttpsUrl::parse(&text) {
                prop_assert_eq!(HttpsUrl::parse(&url.to_string()), Ok(url));
            }
        }
    }
}
