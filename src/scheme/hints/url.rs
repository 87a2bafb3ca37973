//! URLs: what proxies and consoles make of the address that the sender called.

use super::{Hint, Trial};
use crate::scheme::SenderUrl;

pub(super) fn explain(trial: &Trial<'_>) -> Option<Hint> {
    let own = trial.case.message.url;
    let parts = Parts::of(own)?;
    // A `public_url` may stand for it, while senders call another name.
    let headers = trial.case.message.headers;
    let host = headers.get(http::header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let called = host.and_then(|host| Parts::at(host, own));
    let mut forms = vec![(0_usize, parts)];
    forms.extend(called.map(|parts| (1, parts)));
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// The same target at another host.
    fn at(host: &str, url: &SenderUrl) -> Option<Self> {
        let (scheme, _) = url.origin.split_once("://")?;
        Self::of(&SenderUrl {
            origin: format!("{scheme}://{host}").into(),
            target: url.target.clone(),
        })
    }

    fn is_https(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("https")
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

/// What a change makes; nothing where it changes nothing.
fn changed(parts: &Parts, change: impl FnOnce(&mut Parts)) -> Vec<Parts> {
    let mut other = parts.clone();
    change(&mut other);
    if other == *parts {
        Vec::new()
    } else {
        vec![other]
    }
}

fn scheme(parts: &Parts) -> Vec<Parts> {
    let other = if parts.is_https() { "http" } else { "https" };
    changed(parts, |own| other.clone_into(&mut own.scheme))
}

fn port(parts: &Parts) -> Vec<Parts> {
    let standard = if parts.is_https() { "443" } else { "80" };
    let written = ["", standard].into_iter();
    let all = written.flat_map(|port| changed(parts, |own| port.clone_into(&mut own.port)));
    all.collect()
}

fn trailing_slash(parts: &Parts) -> Vec<Parts> {
    changed(parts, |own| {
        if own.path.ends_with('/') {
            own.path.pop();
        } else {
            own.path.push('/');
        }
    })
}

fn query(parts: &Parts) -> Vec<Parts> {
    changed(parts, |own| own.query.clear())
}

fn path_case(parts: &Parts) -> Vec<Parts> {
    changed(parts, |own| own.path.make_ascii_lowercase())
}

fn decoded_path(parts: &Parts) -> Vec<Parts> {
    let decoded = percent_encoding::percent_decode_str(&parts.path).decode_utf8();
    let decoded = decoded.map(std::borrow::Cow::into_owned).ok();
    decoded.map_or_else(Vec::new, |path| changed(parts, |own| own.path = path))
}

fn host_case(parts: &Parts) -> Vec<Parts> {
    changed(parts, |own| own.host.make_ascii_lowercase())
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
