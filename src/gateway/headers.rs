//! The head of the forwarded request and of its answer: what is dropped, remade and added.

use http::HeaderMap;
use http::header::{self, HeaderName};

/// Hops on the way here.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The id of a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A few names, each asked for with every field of every request: mostly the length alone tells that it is
/// none of them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    names: Vec<HeaderName>,
    /// A bit for each length, modulo 64.
    lengths: u64,
}

impl Names {
    /// Whether `name` is one of them, or reads like one.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.lengths & Self::bit(name) != 0 && self.names.iter().any(|own| read_alike(own, name))
    }

    fn bit(name: &HeaderName) -> u64 {
        1 << (name.as_str().len() % 64)
    }
}

impl FromIterator<HeaderName> for Names {
    fn from_iter<I: IntoIterator<Item = HeaderName>>(names: I) -> Self {
        let names: Vec<HeaderName> = names.into_iter().collect();
        let lengths = names.iter().map(Self::bit).fold(0, |all, own| all | own);
        Self { names, lengths }
    }
}

/// Whether some apps take the one for the other: CGI and what descends from it know letters and digits, and
/// have one sign for all else (SECURITY RT-33).
fn read_alike(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    let alike =
        |(a, b): (&u8, &u8)| a == b || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric());
    one.len() == other.len() && one.iter().zip(other).all(alike)
}

/// What `name` reads like where it holds other signs than `-`, see [`Names::contains`].
pub fn dashed(name: &HeaderName) -> Option<String> {
    let bytes = name.as_str().as_bytes();
    // Every byte of every name is looked at: of long ones sixteen at a time, those at the end perhaps twice.
    let has_odd = match bytes.last_chunk() {
        Some(last) => bytes.as_chunks().0.iter().any(has_odd) || has_odd(last),
        None => bytes.iter().any(|byte| is_plain(*byte) == 0),
    };
    has_odd.then(|| with_dashes(name.as_str()))
}

fn has_odd(bytes: &[u8; 16]) -> bool {
    bytes.iter().fold(1, |all, byte| all & is_plain(*byte)) == 0
}

/// 1 for small letters, digits and `-`, else 0: names have no large ones. A number and not a truth, so that the
/// processor compares many at once.
fn is_plain(byte: u8) -> u8 {
    let is_letter = byte.wrapping_sub(b'a') < 26;
    let is_digit = byte.wrapping_sub(b'0') < 10;
    u8::from(is_letter) | u8::from(is_digit) | u8::from(byte == b'-')
}

#[cold]
fn with_dashes(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// RFC 9110 7.6.1 and its older kin: fields of one connection only. `Expect` is settled here too.
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "expect"
            | "http2-settings"
            | "keep-alive"
            // No field of HTTP: as CGI's HTTP_PROXY it would say which proxy an app uses (CVE-2016-5385).
            | "proxy"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields by which proxies say who called and how.
pub fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "forwarded"
                | "cf-connecting-ip"
                | "cf-connecting-ipv6"
                | "client-cert"
                | "client-cert-chain"
                | "client-ip"
                | "fastly-client-ip"
                | "fly-client-ip"
                | "front-end-https"
                | "http-method-override"
                | "remote-user"
                | "true-client-ip"
                | "wl-proxy-client-ip"
                | "x-authenticated-user"
                | "x-azure-clientip"
                | "x-azure-socketip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-envoy-external-address"
                | "x-forwarded"
                | "x-host"
                | "x-http-host-override"
                | "x-http-method"
                | "x-http-method-override"
                | "x-method-override"
                | "x-original-forwarded-for"
                | "x-original-host"
                | "x-original-method"
                | "x-original-uri"
                | "x-original-url"
                | "x-real-ip"
                | "x-remote-user"
                | "x-request-id"
                | "x-rewrite-url"
                | "x-scheme"
                | "x-ssl-client-cert"
                | "x-ssl-client-verify"
                | "x-url-scheme"
        )
}

/// Fields that `Connection` lists as its own, but for `kept`.
pub fn listed_in_connection(headers: &HeaderMap, kept: &[HeaderName]) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !kept.contains(name))
        .collect()
}

/// Removes the fields of one connection, those that `Connection` lists among them.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let is_of_connection = |name: &&HeaderName| is_hop_by_hop(name.as_str());
    let mut names: Vec<HeaderName> = headers.keys().filter(is_of_connection).cloned().collect();
    if names.contains(&header::CONNECTION) {
        names.extend(listed_in_connection(headers, &[]));
    }
    for name in names {
        headers.remove(name);
    }
}

/// Removes every field of a query whose decoded name is one of `names`; every other byte stays.
pub fn strip_query(target: &str, names: &[&str]) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    let secret = |field: &&str| names.contains(&decoded_name(field).as_str());
    let kept: Vec<&str> = query.split('&').filter(|field| !secret(field)).collect();
    if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    }
}

/// The decoded name of a `name=value` query field, `+` read as a blank.
pub fn decoded_name(field: &str) -> String {
    let name = field.split_once('=').map_or(field, |(name, _)| name);
    decode_component(name)
}

/// Percent-decoding with `+` for a blank, as forms and queries are written.
pub fn decode_component(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_leave_the_query_and_nothing_else_does() {
        // SECURITY RT-25, L-09
        for (before, after) in [
            ("/p?auth=TK", "/p"),
            ("/p?a=1&auth=TK&b=2", "/p?a=1&b=2"),
            ("/p?%61uth=TK&b=%zz", "/p?b=%zz"),
            ("/p?auth=1&auth=2&auth", "/p"),
            (
                "/p?AUTH=TK&auth[]=1&a;auth=1",
                "/p?AUTH=TK&auth[]=1&a;auth=1",
            ),
            ("/p?&&x", "/p?&&x"),
            ("/p", "/p"),
        ] {
            assert_eq!(strip_query(before, &["auth"]), after);
        }
    }

    #[test]
    fn a_sign_is_odd_wherever_it_stands() {
        // SECURITY RT-33
        let signs = (0..0x80_u8).filter(|byte| !byte.is_ascii_uppercase());
        let names = signs.filter_map(|byte| HeaderName::from_bytes(&[byte]).ok());
        for sign in names {
            let sign = sign.as_str();
            let is_plain = sign == "-" || sign.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let long = "a-z-0-9-m";
            for (before, after) in [
                ("", ""),
                ("x", ""),
                ("", "9"),
                ("az", "09"),
                (long, ""),
                ("", long),
                (long, long),
            ] {
                let name = HeaderName::try_from(format!("{before}{sign}{after}")).unwrap();
                let expected = (!is_plain).then(|| format!("{before}-{after}"));
                assert_eq!(dashed(&name), expected, "{name}");
            }
        }
    }

    #[test]
    fn names_are_known_by_more_than_their_length() {
        let listed = ["x-b", "authorization"].map(HeaderName::from_static);
        let names = Names::from_iter(listed.clone());
        assert!(listed.iter().all(|name| names.contains(name)));
        let long = HeaderName::from_bytes(&[b'x'; 67]).unwrap();
        for other in [HeaderName::from_static("x-a"), header::HOST, long] {
            assert!(!names.contains(&other), "{other}");
        }
        assert!(!Names::default().contains(&header::HOST));
        // SECURITY RT-33
        let odd = Names::from_iter(["x-b", "my_name"].map(HeaderName::from_static));
        for name in ["x_b", "x.b", "my-name", "my_name", "my~name"] {
            assert!(odd.contains(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["x1b", "x-c", "myname"] {
            assert!(!odd.contains(&HeaderName::from_static(name)), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_field_that_decodes_to_the_name_remains(query in "[a-z%0-9=&+;]{0,40}") {
            // SECURITY Z-05
            let stripped = strip_query(&format!("/p?{query}"), &["a"]);
            let rest = stripped.split_once('?').map_or("", |(_, query)| query);
            prop_assert!(rest.split('&').all(|field| decoded_name(field) != "a" || field.is_empty()));
        }
    }

    #[test]
    fn connection_lists_are_obeyed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Debug, X-Signature"),
            ("x-debug", "1"),
            ("x-signature", "1"),
            ("te", "trailers"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.insert("x-kept", HeaderValue::from_static("1"));
        // SECURITY RT-28
        let signed = [HeaderName::from_static("x-signature")];
        let listed = listed_in_connection(&headers, &signed);
        assert_eq!(listed, ["close", "x-debug"]);
        remove_hop_by_hop(&mut headers);
        let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-kept"]);
    }
}
