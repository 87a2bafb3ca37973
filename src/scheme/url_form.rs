//! How a provider writes the URL that it signs.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use super::locate::View;
use super::template::Scope;
use super::{Scheme, SenderUrl, SignatureError, UrlForm, malformed};

/// The spellings of a URL: mostly one.
pub(super) type Spellings = SmallVec<[Spelling; 1]>;

/// A spelling of the URL.
#[derive(Default)]
pub(super) struct Spelling {
    pub(super) url: String,
    pub(super) without_path: bool,
}

impl Scheme {
    /// Every spelling of the URL that may be in the content. Where it is in none, a single blank one.
    pub(super) fn spellings(&self, view: View<'_>) -> Result<Spellings, SignatureError> {
        if self.signs_url {
            self.url.spellings(view)
        } else {
            Ok(smallvec![Spelling::default()])
        }
    }
}

impl UrlForm {
    /// The spelling that the canonical content has.
    pub(super) fn first<'a>(&self, view: View<'a>) -> Result<Cow<'a, str>, SignatureError> {
        if let Some(instead) = &self.instead {
            let text = String::from_utf8(instead.text(&Scope::new(view, ""))?);
            return text
                .map(Cow::Owned)
                .map_err(|_bad| malformed("the URL is not UTF-8"));
        }
        Ok(Cow::Owned(self.spell(&view.url.origin, &view.url.target)))
    }

    /// Every spelling that the provider may have signed, the plain one first.
    fn spellings(&self, view: View<'_>) -> Result<Spellings, SignatureError> {
        let first = self.first(view)?.into_owned();
        let mut spellings = smallvec![Spelling {
            url: first,
            without_path: false,
        }];
        let SenderUrl { origin, target } = view.url;
        if self.without_root_path && &**target == "/" {
            let url = self.spell(origin, "");
            spellings.push(Spelling {
                url,
                without_path: true,
            });
        }
        let (scheme, rest) = origin.split_once("://").unwrap_or(("https", origin));
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let port = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let other = match port {
            None if self.with_default_port => {
                let port = if scheme == "http" { 80 } else { 443 };
                Some(format!("{host}:{port}"))
            }
            Some((name, _)) if self.without_port => Some(name.to_owned()),
            _ => None,
        };
        if let Some(host) = other {
            let url = self.spell(&format!("{scheme}://{host}{path}"), target);
            spellings.push(Spelling {
                url,
                without_path: false,
            });
        }
        Ok(spellings)
    }

    fn spell(&self, origin: &str, target: &str) -> String {
        let mut url = format!("{origin}{target}");
        for byte in &self.decode {
            let character = char::from(*byte).to_string();
            url = url.replace(&format!("%{byte:02X}"), &character);
            url = url.replace(&format!("%{byte:02x}"), &character);
        }
        url
    }
}
