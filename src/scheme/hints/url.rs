//! URLs: what proxies and consoles make of the address that the sender called.

use super::{Hint, Trial};
use crate::scheme::SenderUrl;

pub(super) fn explain(trial: &Trial<'_>) -> Option<Hint> {
    let own = trial.case.message.url;
    let parts = Parts::of(own)?;
    let mut forms = vec![(0_usize, parts)];
    for change in CHANGES {
        let changed: Vec<_> = forms
            .iter()
            .flat_map(|(count, parts)| {
                change(parts)
                    .into_iter()
                    .map(move |parts| (count + 1, parts))
            })
            .collect();
        forms.extend(changed);
    }
    // The form with the fewest changes explains best.
    forms.sort_by_key(|(count, _)| *count);
    let mut urls: Vec<SenderUrl> = Vec::new();
    for (_, parts) in forms {
        let url = parts.url();
        if url != *own && !urls.contains(&url) {
            urls.push(url);
        }
    }
    let right = urls.into_iter().find(|url| trial.with_url(url))?;
    Some(Hint::new(
        "url_form",
        format!(
            "the signature matches for another form of the URL, `{}{}`; set the listener's \
             `public_url` (or `--url`) to what the sender calls",
            right.origin, right.target
        ),
    ))
}

/// A URL, taken apart.
#[derive(Clone, Debug)]
struct Parts {
    scheme: String,
    host: String,
    port: String,
    path: String,
    query: String,
}

impl Parts {
    fn of(url: &SenderUrl) -> Option<Self> {
        let (scheme, authority) = url.origin.split_once("://")?;
        // An IPv6 address has colons of its own.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
            _ => (authority, ""),
        };
        let (path, query) = match url.target.find('?') {
            Some(mark) => url.target.split_at_checked(mark)?,
            None => (&*url.target, ""),
        };
        let [scheme, host, port, path, query] =
            [scheme, host, port, path, query].map(str::to_owned);
        Some(Self {
            scheme,
            host,
            port,
            path,
            query,
        })
    }

    fn url(&self) -> SenderUrl {
        let Self {
            scheme,
            host,
            port,
            path,
            query,
        } = self;
        let colon = if port.is_empty() { "" } else { ":" };
        SenderUrl {
            origin: format!("{scheme}://{host}{colon}{port}").into(),
            target: format!("{path}{query}").into(),
        }
    }
}

/// One change each; none where it would change nothing.
const CHANGES: &[fn(&Parts) -> Vec<Parts>] = &[
    scheme,
    port,
    trailing_slash,
    query,
    path_case,
    decoded_path,
    host_case,
];

fn scheme(parts: &Parts) -> Vec<Parts> {
    let other = if parts.scheme.eq_ignore_ascii_case("https") {
        "http"
    } else {
        "https"
    };
    vec![Parts {
        scheme: other.to_owned(),
        ..parts.clone()
    }]
}

fn port(parts: &Parts) -> Vec<Parts> {
    let standard = if parts.scheme.eq_ignore_ascii_case("https") {
        "443"
    } else {
        "80"
    };
    let written = if parts.port.is_empty() {
        vec![standard]
    } else {
        vec!["", standard]
    };
    written
        .into_iter()
        .map(|port| Parts {
            port: port.to_owned(),
            ..parts.clone()
        })
        .collect()
}

fn trailing_slash(parts: &Parts) -> Vec<Parts> {
    let path = match parts.path.strip_suffix('/') {
        Some(path) => path.to_owned(),
        None => format!("{}/", parts.path),
    };
    vec![Parts {
        path,
        ..parts.clone()
    }]
}

fn query(parts: &Parts) -> Vec<Parts> {
    if parts.query.is_empty() {
        return Vec::new();
    }
    vec![Parts {
        query: String::new(),
        ..parts.clone()
    }]
}

fn path_case(parts: &Parts) -> Vec<Parts> {
    let path = parts.path.to_ascii_lowercase();
    if path == parts.path {
        Vec::new()
    } else {
        vec![Parts {
            path,
            ..parts.clone()
        }]
    }
}

fn decoded_path(parts: &Parts) -> Vec<Parts> {
    let decoded = percent_encoding::percent_decode_str(&parts.path).decode_utf8();
    let path = decoded.map_or_else(|_| parts.path.clone(), std::borrow::Cow::into_owned);
    if path == parts.path {
        Vec::new()
    } else {
        vec![Parts {
            path,
            ..parts.clone()
        }]
    }
}

fn host_case(parts: &Parts) -> Vec<Parts> {
    let host = parts.host.to_ascii_lowercase();
    if host == parts.host {
        Vec::new()
    } else {
        vec![Parts {
            host,
            ..parts.clone()
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_url_again() {
        for (origin, target) in [
            ("https://h.example:8443", "/a/?x=1"),
            ("http://[::1]", "/"),
            ("http://[::1]:80", ""),
            ("https://h", "/a?b?c"),
        ] {
            let url = SenderUrl {
                origin: origin.into(),
                target: target.into(),
            };
            assert_eq!(Parts::of(&url).unwrap().url(), url);
        }
    }
}
