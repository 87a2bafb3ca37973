//! The head of the forwarded request and of its answer: what is dropped, remade and added.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

/// Hops on the way here.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The id of a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// RFC 9110 7.6.1 and its older kin: fields of one connection only. `Expect` is settled here too.
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "expect"
            | "http2-settings"
            | "keep-alive"
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
                | "x-real-ip"
                | "x-original-url"
                | "x-rewrite-url"
                | "x-http-method-override"
                | "x-request-id"
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
    for name in listed_in_connection(headers, &[]) {
        headers.remove(name);
    }
    let is_of_connection = |name: &&HeaderName| is_hop_by_hop(name.as_str());
    let names: Vec<HeaderName> = headers.keys().filter(is_of_connection).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Joins several `Cookie` fields of HTTP/2 for HTTP/1.1 (RFC 9113 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
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
