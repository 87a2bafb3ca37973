//! `forward`: how the forwarded request differs from the one received.

use http::uri::Authority;
use http::{HeaderName, HeaderValue, header};

use super::{Compiler, value};
use crate::config::spec::{Fields, ForwardSpec};
use crate::config::value::path;
use crate::document::At;
use crate::route::matcher::PathPattern;
use crate::route::policy::{ForwardPolicy, PathRewrite};

/// Fields that frame a message or belong to one connection: the gateway alone writes them.
const OWN_FIELDS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What the gateway says about a request; the app believes it.
const EVIDENCE: &str = "x-hookward-";

impl Compiler<'_, '_> {
    pub(super) fn forward(
        &mut self,
        at: Option<&At<ForwardSpec>>,
        route: Option<&PathPattern>,
    ) -> ForwardPolicy {
        let Some((spec, _)) = value(at) else {
            return ForwardPolicy::default();
        };
        ForwardPolicy {
            path: self.path_rewrite(spec, route),
            timeout: self.positive_duration(spec.timeout.as_ref()),
            set_headers: self.set_headers(spec.set_headers.as_ref()),
            remove_headers: self.remove_headers(spec),
            keep_credentials: value(spec.keep_credentials.as_ref()).is_some_and(|(keep, _)| *keep),
        }
    }

    fn path_rewrite(&mut self, spec: &ForwardSpec, route: Option<&PathPattern>) -> PathRewrite {
        match (value(spec.path.as_ref()), value(spec.strip_prefix.as_ref())) {
            (None, None) => PathRewrite::Keep,
            (Some(_), Some((_, place))) => {
                self.error(
                    &place,
                    "`path` and `strip_prefix` exclude each other",
                    "remove one",
                );
                PathRewrite::Keep
            }
            (Some((text, place)), None) => {
                if let Err(message) = path(text) {
                    self.error(&place, message, None);
                } else if text.contains("/{") {
                    let message =
                        "braces stand for themselves here: nothing of the request's path is put in";
                    let hint = "leave `path` out, or remove its beginning with `strip_prefix`";
                    self.warn(&place, message, hint);
                }
                PathRewrite::Replace(text.as_str().into())
            }
            (None, Some((text, place))) => {
                let prefix = text.trim_end_matches('/');
                if let Err(message) = path(text) {
                    self.error(&place, message, None);
                } else if prefix.is_empty() || prefix.contains('{') {
                    self.error(
                        &place,
                        format!("`{text}` is not a literal prefix that could be removed"),
                        None,
                    );
                } else if route.is_some_and(|route| !begins_with(route.as_str(), prefix)) {
                    let message = format!("no path of this route begins with `{prefix}`");
                    self.error(&place, message, "it must be the beginning of `match.path`");
                }
                PathRewrite::StripPrefix(prefix.into())
            }
        }
    }

    fn set_headers(&mut self, at: Option<&At<Fields>>) -> Vec<(HeaderName, HeaderValue)> {
        let Some((Fields(fields), place)) = value(at) else {
            return Vec::new();
        };
        let mut set = Vec::new();
        for (name, at) in fields {
            let key = self.key(&format!("{}.{name}", place.path));
            let Ok(parsed) = name.parse::<HeaderName>() else {
                self.error(
                    &key,
                    format!("`{name}` is not the name of a header field"),
                    None,
                );
                continue;
            };
            let like = read_as(&parsed);
            if OWN_FIELDS.contains(&&*like) || like.starts_with(EVIDENCE) {
                self.error(&key, format!("only the gateway itself sets `{name}`"), None);
            }
            if set.iter().any(|(other, _)| read_as(other) == like) {
                let message = format!(
                    "`{name}` stands here twice; case does not count, nor does another sign for `-`"
                );
                self.error(&key, message, None);
            }
            let Some((text, place)) = value(Some(at)) else {
                continue;
            };
            if parsed == header::HOST && !is_host(text) {
                self.error(&place, format!("`{text}` is not a host name"), None);
            }
            self.reference_outside(text, &place);
            if let Ok(value) = HeaderValue::from_str(text) {
                set.push((parsed, value));
            } else {
                let message = "a header value has no line ends and no other control characters";
                self.error(&place, message, None);
            }
        }
        set
    }

    fn remove_headers(&mut self, spec: &ForwardSpec) -> Vec<HeaderName> {
        let mut removed = Vec::new();
        for (name, place) in super::values(spec.remove_headers.as_ref()).unwrap_or_default() {
            let Ok(parsed) = name.parse::<HeaderName>() else {
                let message = format!("`{name}` is not the name of a header field");
                self.error(&place, message, None);
                continue;
            };
            if name.contains('*') {
                let message =
                    format!("`*` stands for itself: no other field than `{name}` is removed");
                self.warn(&place, message, "there are no wildcards; list each field");
            }
            let like = read_as(&parsed);
            if parsed == header::HOST || OWN_FIELDS.contains(&&*like) {
                self.error(&place, format!("`{name}` cannot be removed"), None);
            } else if like.starts_with(EVIDENCE) {
                let message = format!("`{name}` cannot be removed");
                let hint = "it tells the app what was verified; what senders write in its place never gets there";
                self.error(&place, message, hint);
            } else {
                removed.push(parsed);
            }
        }
        removed
    }
}

/// The name that some apps take it for, and that it stands for when headers are removed and set (SECURITY RT-33).
fn read_as(name: &HeaderName) -> String {
    let name = name.as_str();
    name.replace(|sign: char| !sign.is_ascii_alphanumeric(), "-")
}

/// Whether it can stand in `Host`: a name or an address, and a port (RFC 9110 section 7.2).
fn is_host(text: &str) -> bool {
    let authority = text.parse::<Authority>();
    authority.is_ok_and(|authority| !authority.host().is_empty() && !text.contains('@'))
}

/// Whether every path of the pattern begins with the segments of `prefix`.
fn begins_with(pattern: &str, prefix: &str) -> bool {
    pattern
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
