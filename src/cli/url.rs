//! URLs as a sender writes them. Kept to the letter: some providers sign the URL.

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
        || authority.is_empty()
        || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        bail!("`{text}` is not a URL; write `https://hooks.example.org/path`");
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
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// The path and query of a URL as they stand in a request line.
pub(super) fn target(url: &SenderUrl) -> &str {
    if url.target.is_empty() {
        "/"
    } else {
        &url.target
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
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn user_information_is_no_part_of_host() {
        assert_eq!(
            authority(&parse("https://u:p@h.example:8443/").unwrap()),
            "h.example:8443"
        );
    }
}
