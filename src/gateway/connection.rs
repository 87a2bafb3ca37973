//! What is known of a connection before its first request, and who the client behind it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue};

use super::head::Host;
use super::headers::X_FORWARDED_FOR;
use super::rejection::Rejection;
use super::snapshot::ListenerPolicy;
use crate::route::matcher::normalize_host;
use crate::shares::unbracketed;

/// One accepted connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket's other end: the client, or a proxy in front.
    pub peer: SocketAddr,
    /// Name of the listener that accepted it.
    pub listener: Arc<str>,
    /// Where that listened, if it is known.
    pub address: Option<SocketAddr>,
    /// What the listener's requests were judged by when it came: they still are once a reload has removed the listener.
    pub policy: Option<Arc<ListenerPolicy>>,
    /// Facts of the TLS handshake; `None` on plaintext.
    pub tls: Option<TlsFacts>,
    /// The proxy that introduced the connection, by the PROXY protocol.
    pub proxy: Option<IpAddr>,
    /// Whether the PROXY protocol named nobody: the proxy does not write forwarding headers, so that those of
    /// its connections are a stranger's (SECURITY SM-42).
    pub is_anonymous: bool,
    /// The peer's address as text.
    pub(super) peer_text: HeaderValue,
    pub(super) known_host: KnownHost,
}

/// The host that the last request was for. A sender names the same one in all requests of a connection:
/// it is taken apart once.
#[derive(Debug, Default)]
pub(super) struct KnownHost(Mutex<Option<Arc<Host>>>);

impl KnownHost {
    /// The host of which these are the bytes, by `parse` when it is another one than before.
    pub(super) fn get_or_parse(
        &self,
        bytes: &[u8],
        parse: impl FnOnce() -> Result<Host, Rejection>,
    ) -> Result<Arc<Host>, Rejection> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = known.as_ref().filter(|own| own.value.as_bytes() == bytes) {
            return Ok(Arc::clone(host));
        }
        let host = Arc::new(parse()?);
        *known = Some(Arc::clone(&host));
        Ok(host)
    }
}

/// What the TLS handshake established.
#[derive(Debug)]
pub struct TlsFacts {
    /// Names of the certificate that SNI chose; `None` when the default one was served for want of
    /// a match, for then the routes alone decide.
    pub certificate: Option<Arc<CertificateNames>>,
    /// Names in the client's certificate; `None` when it sent none.
    pub client: Option<CertificateNames>,
}

/// The names in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// DNS names, lower case; a wildcard keeps its `*`.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// E-mail addresses and URIs, as written.
    pub others: Vec<String>,
}

impl CertificateNames {
    /// Whether the certificate is good for `host` (normalized, without port). RFC 6125: a wildcard
    /// stands for one label.
    pub fn covers(&self, host: &str) -> bool {
        if let Ok(address) = unbracketed(host).parse::<IpAddr>() {
            return self.ips.contains(&address);
        }
        let suffix = host.find('.').and_then(|dot| host.get(dot..));
        self.dns.iter().any(|name| match name.strip_prefix('*') {
            Some(wildcard) => suffix == Some(wildcard),
            None => name == host,
        })
    }

    /// The hosts that both are good for.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let mut common = Self::default();
        for (one, another) in [(self, other), (other, self)] {
            let dns = one.dns.iter().filter(|name| another.covers(name));
            common.dns.extend(dns.cloned());
            let ips = one.ips.iter().filter(|ip| another.ips.contains(ip));
            common.ips.extend(ips);
        }
        common
    }

    /// Whether the certificate carries `name` literally: what a `client_cert` check asks.
    pub fn carries(&self, name: &str) -> bool {
        let dns = normalize_host(name);
        self.dns.contains(&dns)
            || self.others.iter().any(|own| own == name)
            || name
                .parse()
                .is_ok_and(|address: IpAddr| self.ips.contains(&address))
    }
}

impl Connection {
    /// A connection from `peer` to `listener`.
    pub fn new(peer: SocketAddr, listener: Arc<str>, tls: Option<TlsFacts>) -> Self {
        let text = peer.ip().to_canonical().to_string();
        Self {
            peer,
            listener,
            address: None,
            policy: None,
            tls,
            proxy: None,
            is_anonymous: false,
            peer_text: HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
                .unwrap_or(HeaderValue::from_static("unknown")),
            known_host: KnownHost::default(),
        }
    }

    /// Whether a reload has taken its trust from the proxy that introduced the connection.
    pub fn is_disowned(&self, listener: &ListenerPolicy) -> bool {
        let may_introduce = |proxy| listener.proxy_protocol && listener.trusts(proxy);
        self.proxy.is_some_and(|proxy| !may_introduce(proxy))
    }

    /// Whether the peer is a proxy whose forwarding headers are believed.
    pub fn is_trusted(&self, listener: &ListenerPolicy) -> bool {
        !self.is_anonymous && listener.trusts(self.peer.ip())
    }

    /// The client: the peer, or, behind trusted proxies, the rightmost hop of `X-Forwarded-For` that
    /// is not one of them. What is not an address ends the walk (SECURITY RT-31).
    pub fn client_ip(&self, listener: &ListenerPolicy, headers: &HeaderMap) -> IpAddr {
        let mut client = self.peer.ip().to_canonical();
        if !self.is_trusted(listener) {
            return client;
        }
        let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = fields.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            let Some(address) = std::str::from_utf8(hop).ok().and_then(parse_hop) else {
                break;
            };
            client = address;
            if !listener.trusts(client) {
                break;
            }
        }
        client
    }
}

/// An address as proxies write it: with or without port, IPv6 with or without brackets.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| unbracketed(text).parse::<IpAddr>());
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &[&'static str]) -> String {
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        let connection = Connection::new(peer, "https".into(), None);
        let mut headers = HeaderMap::new();
        for field in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(field));
        }
        let listener = ListenerPolicy {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..ListenerPolicy::default()
        };
        connection.client_ip(&listener, &headers).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_hop() {
        // SECURITY RT-31, Z-06
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(
            client("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.1.1.1"]),
            "198.51.100.7"
        );
        assert_eq!(
            client("10.0.0.1", &["203.0.113.9", "198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(
            client("10.0.0.1", &["198.51.100.7, junk, 10.1.1.1"]),
            "10.1.1.1"
        );
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        for junk in ["[[198.51.100.7", "198.51.100.7]", "[2001:db8::1", "[[::1]]"] {
            assert_eq!(client("10.0.0.1", &[junk]), "10.0.0.1", "{junk}");
        }
        assert_eq!(client("10.0.0.1", &["10.1.1.1, 10.2.2.2"]), "10.1.1.1");
        assert_eq!(
            client("::ffff:10.0.0.1", &["::ffff:198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1");
    }

    #[test]
    fn what_two_certificates_have_in_common_both_cover() {
        let of = |dns: &[&str], ips: &[&str]| CertificateNames {
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            others: Vec::new(),
        };
        let one = of(&["a.example.org", "*.example.net"], &["192.0.2.1"]);
        let other = of(
            &["a.example.org", "b.example.org", "x.example.net"],
            &["192.0.2.1", "192.0.2.2"],
        );
        for common in [one.common(&other), other.common(&one)] {
            for host in ["a.example.org", "x.example.net", "192.0.2.1"] {
                assert!(common.covers(host), "{host}");
            }
            for host in ["b.example.org", "y.example.net", "192.0.2.2"] {
                assert!(!common.covers(host), "{host}");
            }
        }
    }

    #[test]
    fn a_wildcard_certificate_covers_one_label() {
        let names = CertificateNames {
            dns: vec!["*.example.org".to_owned(), "example.net".to_owned()],
            ips: vec!["192.0.2.1".parse().unwrap()],
            others: Vec::new(),
        };
        assert!(names.covers("hooks.example.org") && names.covers("example.net"));
        assert!(names.covers("192.0.2.1"));
        assert!(!names.covers("a.b.example.org") && !names.covers("example.org"));
        assert!(!names.covers("192.0.2.2"));
    }
}
