//! Scalars of the configuration that are more than text: addresses, networks, URLs, names.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;
use ipnet::{IpNet, Ipv4Net};
use rustls::pki_types::ServerName;

use crate::settings::{PublicUrl, ServerAddress};

/// A value that does not parse; the message says what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ValueError(String);

fn refuse<T>(message: String) -> Result<T, ValueError> {
    Err(ValueError(message))
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(pub(super) SocketAddr);

impl FromStr for Address {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(Self).or_else(|_| {
            let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
            let why = if !port.is_empty() && port.parse::<u16>().is_err() {
                format!("`{port}` is not a port")
            } else if !port.is_empty() && host.starts_with(|c: char| c.is_ascii_alphabetic()) {
                format!("`{host}` is a name, and it listens on addresses")
            } else {
                format!("`{text}` is not an address with a port")
            };
            refuse(format!(
                "{why}; write `127.0.0.1:8080`, `0.0.0.0:8443` or `\"[::]:8443\"`"
            ))
        })
    }
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network(pub(super) IpNet);

impl FromStr for Network {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let net = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match net {
            Ok(net) => Ok(Self(canonical(net))),
            Err(_) => refuse(format!(
                "`{text}` is not a network; write `192.0.2.0/24`, `2001:db8::/32` or `192.0.2.7`"
            )),
        }
    }
}

/// IPv4-mapped networks as IPv4: clients are compared in that form (SECURITY A-51).
fn canonical(net: IpNet) -> IpNet {
    let mapped = match net {
        IpNet::V6(v6) => v6
            .addr()
            .to_ipv4_mapped()
            .zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let v4 = mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    v4.map_or(net, IpNet::V4)
}

/// The URL that senders call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CalledUrl(pub(super) PublicUrl);

impl FromStr for CalledUrl {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
            return refuse(format!(
                "`{text}` is not a URL that senders call; write `https://hooks.example.org`"
            ));
        };
        no_credentials(rest).map_err(ValueError)?;
        if rest.contains(['?', '#']) {
            return refuse(format!("`{text}` has a query or fragment; leave it out"));
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        host_and_port(authority).map_err(|why| ValueError(format!("`{text}`: {why}")))?;
        if text
            .chars()
            .any(|c| c.is_ascii_control() || c == ' ' || !c.is_ascii())
        {
            return refuse(format!(
                "`{text}` is not a URL; escape what is not plain ASCII"
            ));
        }
        Ok(Self(PublicUrl {
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
            path: path.trim_end_matches('/').to_owned(),
        }))
    }
}

/// Refuses `user:password@`, without repeating it.
fn no_credentials(text: &str) -> Result<(), String> {
    if text.contains('@') {
        return Err("user and password cannot stand in a URL".to_owned());
    }
    Ok(())
}

/// Host (IPv6 without brackets) and port of an authority.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let authority: Authority = text
        .parse()
        .map_err(|_why| format!("`{text}` is not a host"))?;
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let after = text.strip_prefix(host).unwrap_or_default();
    let port = match after.strip_prefix(':') {
        Some(port) => {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0);
            Some(port.ok_or("the port is not within 1 and 65535")?)
        }
        None => None,
    };
    let is_name = |host: &str| {
        !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    match bare {
        Some(bare) if bare.parse::<std::net::Ipv6Addr>().is_ok() => Ok((bare.to_owned(), port)),
        None if is_name(host) => Ok((host.to_owned(), port)),
        _ => Err(format!("`{text}` is not a host")),
    }
}

/// Whether an `upstream` is a URL rather than a name.
pub(super) fn is_server_url(text: &str) -> bool {
    text.contains("://") || text.starts_with("unix:")
}

/// Parses `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:/PATH`.
pub(super) fn server(text: &str, base: &Path) -> Result<ServerAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() {
            Err("`unix:` needs the path of a socket: `unix:/run/app.sock`".to_owned())
        } else {
            Ok(ServerAddress::Unix(base.join(path)))
        };
    }
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
        return Err(format!(
            "`{text}` is not an upstream; write `http://HOST:PORT`, `https://HOST:PORT` or \
             `unix:/PATH`"
        ));
    };
    no_credentials(rest)?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(format!(
            "`{text}` has a path; only `forward.path` and `forward.strip_prefix` change the path"
        ));
    }
    let (host, port) = host_and_port(authority).map_err(|why| format!("`{text}`: {why}"))?;
    if scheme == "http" {
        Ok(ServerAddress::Http {
            host,
            port: port.unwrap_or(80),
        })
    } else {
        server_name(&host)?;
        Ok(ServerAddress::Https {
            host,
            port: port.unwrap_or(443),
        })
    }
}

/// Checks a name that a certificate can carry.
pub(super) fn server_name(name: &str) -> Result<(), String> {
    match ServerName::try_from(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{name}` is neither a DNS name nor an address")),
    }
}

/// Checks a path as it stands in a request line: begins with `/`, no query, only what can occur.
pub(super) fn path(text: &str) -> Result<(), String> {
    let literal =
        text.starts_with('/') && !text.contains(['?', '#']) && text.parse::<Uri>().is_ok();
    if !literal {
        return Err(format!(
            "`{text}` is not a path; it begins with `/` and has no query"
        ));
    }
    match unreachable(text) {
        Some(why) => Err(format!("`{text}`: {why}")),
        None => Ok(()),
    }
}

/// Why no request can have this path: such requests are refused before they are routed.
pub(super) fn unreachable(path: &str) -> Option<&'static str> {
    if path.starts_with("//") {
        return Some("paths that begin with two slashes are refused, so this never matches");
    }
    path.split('/').find_map(unreachable_segment)
}

fn unreachable_segment(segment: &str) -> Option<&'static str> {
    if segment.contains('\\') {
        return Some("paths with a backslash are refused, so this never matches");
    }
    let dots = segment.replace("%2e", ".").replace("%2E", ".");
    if matches!(dots.as_str(), "." | "..") {
        return Some("paths with dot segments are refused, so this never matches");
    }
    if !segment.is_ascii() {
        return Some("other characters than ASCII arrive percent-encoded, so this never matches");
    }
    let mut escapes = segment.split('%').skip(1);
    let bad = |escape: &str| {
        let hex = escape
            .get(..2)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        hex.is_none_or(|hex| hex == "00")
    };
    escapes
        .any(bad)
        .then_some("`%` must begin an escape such as `%20`, and not `%00`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let base = Path::new("/etc/hookward");
        for (text, printed) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://app", "http://app:80"),
            ("https://app.example/", "https://app.example:443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:///run/app.sock", "unix:/run/app.sock"),
            ("unix:app.sock", "unix:/etc/hookward/app.sock"),
        ] {
            assert_eq!(server(text, base).unwrap().to_string(), printed);
        }
        for text in [
            "",
            "app",
            "localhost:3000",
            "ftp://app",
            "http://",
            "http://:80",
            "http://app:0",
            "http://app:70000",
            "http://app:",
            "http://u:p@app",
            "http://app/path",
            "http://app?q",
            "http://a b",
            "https://a_b..c",
            "unix:",
            "http://[::1",
            "http://[app]",
        ] {
            assert!(server(text, base).is_err(), "{text}");
        }
    }

    #[test]
    fn public_urls() {
        for (text, origin) in [
            ("https://hooks.example.org", "https://hooks.example.org"),
            (
                "https://hooks.example.org:8443/",
                "https://hooks.example.org:8443",
            ),
            ("http://[::1]:80/a/b/", "http://[::1]:80/a/b"),
        ] {
            assert_eq!(text.parse::<CalledUrl>().unwrap().0.origin(), origin);
        }
        for text in [
            "",
            "hooks.example.org",
            "ftp://a",
            "https://",
            "https://a?b",
            "https://u@a",
        ] {
            assert!(text.parse::<CalledUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, printed) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().0.to_string(), printed);
        }
        for text in ["", "any", "10.0.0.0/33", "10.0.0", "*"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn paths() {
        for text in ["/", "/a/b.php", "/a%20b", "/a//b", "/..a"] {
            assert_eq!(path(text), Ok(()));
        }
        for text in [
            "", "a", "/a?b", "/a b", "/a/../b", "/%2e%2E", "/%", "/%zz", "/%00", "/é", "//a",
            "/a\\b",
        ] {
            assert!(path(text).is_err(), "{text}");
        }
    }
}
