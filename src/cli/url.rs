//! URLs as a sender writes them. Kept to the letter: some providers sign the URL.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use anyhow::bail;

use crate::scheme::SenderUrl;

/// Splits `https://host[:port][/path][?query]`; a fragment never leaves the sender.
pub(super) fn parse(text: &str) -> anyhow::Result<SenderUrl> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if !is_http
        || !is_of_a_host(without_user(authority))
        || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        bail!(
            "`{}` is not a URL; write `https://hooks.example.org/path`",
            shown(text)
        );
    }
    let target = if target.starts_with('?') {
        format!("/{target}")
    } else {
        target.to_owned()
    };
    Ok(SenderUrl {
        origin: format!("{scheme}://{authority}").into(),
        target: target.into(),
    })
}

/// Host and port of a URL, as in `Host`.
pub(super) fn authority(url: &SenderUrl) -> &str {
    let authority = url
        .origin
        .split_once("://")
        .map_or("", |(_, authority)| authority);
    without_user(authority)
}

fn without_user(authority: &str) -> &str {
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// Whether it is a host, perhaps with a port: brackets stand around an IPv6 address, and nowhere else.
fn is_of_a_host(authority: &str) -> bool {
    let bracketed = authority.strip_prefix('[');
    if let Some((address, end)) = bracketed.and_then(|rest| rest.split_once(']')) {
        let address = address.split('%').next().unwrap_or_default();
        let is_end = end.is_empty() || end.starts_with(':');
        return is_end && address.parse::<Ipv6Addr>().is_ok();
    }
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    !host.is_empty() && !host.contains([':', '[', ']']) && !port.contains(['[', ']'])
}

/// The `user:password` of a URL, its escapes decoded, as curl takes it for Basic Auth.
pub(super) fn user_information(url: &SenderUrl) -> Option<Vec<u8>> {
    let (_, authority) = url.origin.split_once("://")?;
    let (user, _) = authority.rsplit_once('@')?;
    let user = percent_encoding::percent_decode_str(user).collect::<Vec<u8>>();
    let is_whole = user.contains(&b':');
    Some(if is_whole {
        user
    } else {
        [&user, &b":"[..]].concat()
    })
}

/// A URL for a message: without user and password, and without the values of its query.
pub(super) fn shown(text: &str) -> String {
    let (text, query) = match text.find(['?', '#']) {
        Some(mark) => (text.get(..mark).unwrap_or_default(), "?…"),
        None => (text, ""),
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        let text = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        return format!("{text}{query}");
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}://{}{path}{query}", without_user(authority))
}

/// The path and query of a URL as they stand in a request line. A scheme may add a query to a URL without a path.
pub(super) fn target(url: &SenderUrl) -> Cow<'_, str> {
    if url.target.starts_with('/') {
        Cow::Borrowed(&url.target)
    } else {
        Cow::Owned(format!("/{}", url.target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_kept_to_the_letter() {
        let split = |text| {
            let url = parse(text).unwrap();
            (url.origin.to_string(), url.target.to_string())
        };
        let owned = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            split("https://h.example:443/a%20b?x=1"),
            owned("https://h.example:443", "/a%20b?x=1")
        );
        assert_eq!(split("https://h.example"), owned("https://h.example", ""));
        assert_eq!(split("http://h?x#f"), owned("http://h", "/?x"));
        for wrong in [
            "",
            "h.example/a",
            "ftp://h/",
            "https:///a",
            "https://h/a b",
            "/a",
            "http://[::1/",
            "http://::1/",
            "http://[::1]8080/",
            "http://[h.example]/",
            "http://h]/",
            "http://u@/",
            "http://:80/",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_line_has_a_path() {
        for (written, sent) in [("", "/"), ("/a?b", "/a?b"), ("?b=1", "/?b=1")] {
            let url = SenderUrl {
                origin: "https://h".into(),
                target: written.into(),
            };
            assert_eq!(target(&url), sent);
        }
    }

    #[test]
    fn brackets_stand_around_an_address() {
        for whole in [
            "http://[::1]/",
            "http://u:[p@[::1]:8080",
            "http://[fe80::1%eth0]:80/",
            "http://[::1]:",
            "http://h.example:/[a]",
        ] {
            assert!(parse(whole).is_ok(), "{whole}");
        }
    }

    #[test]
    fn no_message_shows_what_a_url_may_hide() {
        for (text, seen) in [
            ("https://u:p@h:1/a?t=x#f", "https://h:1/a?…"),
            ("http:/u:p@h/a", "h/a"),
            ("https://h", "https://h"),
            ("https://h?t=a@b", "https://h?…"),
            ("https://u@v:p@h/", "https://h/"),
        ] {
            assert_eq!(shown(text), seen);
        }
        let error = parse("ftp://u:canary@h/?t=canary").unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
    }

    #[test]
    fn user_information_is_decoded() {
        let user = |text| user_information(&parse(text).unwrap());
        assert_eq!(user("https://u:p%40@h/"), Some(b"u:p@".to_vec()));
        assert_eq!(user("https://u@h/"), Some(b"u:".to_vec()));
        assert_eq!(user("https://h/a@b"), None);
    }

    #[test]
    fn user_information_is_no_part_of_host() {
        assert_eq!(
            authority(&parse("https://u:p@h.example:8443/").unwrap()),
            "h.example:8443"
        );
    }
}
