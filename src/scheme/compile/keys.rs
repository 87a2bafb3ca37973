//! How secrets are written, and where public keys are published.

use super::{Compiler, get, problem};
use crate::document::{At, OneOrMany};
use crate::problem::Problem;
use crate::scheme::https_url::{HttpsUrl, KeyUrl, NamedKeyUrl, Reach};
use crate::scheme::key_source::KeySource;
use crate::scheme::parse::SecretForm;
use crate::scheme::spec::{KeyUrlSpec, SchemeSpec};

impl Compiler<'_> {
    pub(super) fn key_source(&mut self, at: &At<KeyUrlSpec>) -> Option<KeySource> {
        let spec = at.get()?;
        let inside = spec.json.as_ref().and_then(|at| self.text(at));
        if let Some(url) = &spec.url {
            if !self.is_set(url) {
                return None; // the operator gives the URL, or keys
            }
            let is_written = url.get().is_some_and(|text| text.contains("{param:"));
            let text = self.text(url)?;
            return match HttpsUrl::parse(&text) {
                Ok(parsed) => {
                    let mut key_url = KeyUrl::of_preset(parsed, Vec::new());
                    // A URL that the operator wrote may be in the operator's own network.
                    if is_written {
                        key_url.reach = Reach::Any;
                    }
                    key_url.inside = inside.map(Into::into);
                    Some(KeySource::Fixed(key_url))
                }
                Err(message) => {
                    let hint = is_written.then(|| {
                        format!("it reads `{text}`; give the param an `example` that makes it one")
                    });
                    let problem = problem(url.place(), message);
                    self.problems.push(Problem { hint, ..problem });
                    None
                }
            };
        }
        let header = spec.header.as_ref().and_then(|at| self.header(at));
        let Some(header) = header else {
            self.error(at, "keys are at one `url`, or at one that a `header` names");
            return None;
        };
        let hosts: Vec<String> = get(&spec.hosts)
            .into_iter()
            .flatten()
            .filter_map(|at| self.text(at))
            .collect();
        let names =
            get(&spec.certificate_name).map(|OneOrMany(all)| all.iter().collect::<Vec<_>>());
        let names: Vec<_> = names
            .unwrap_or_default()
            .into_iter()
            .filter_map(|at| self.text(at))
            .map(Into::into)
            .collect();
        if names.is_empty() {
            self.error(at, "a URL that a request names needs `certificate_name`");
        }
        match NamedKeyUrl::new(header, hosts.iter().map(String::as_str), names) {
            Ok(named) => Some(KeySource::Named(named)),
            Err(message) => {
                self.error(at, message);
                None
            }
        }
    }

    pub(super) fn secret(&mut self, spec: &SchemeSpec) -> SecretForm {
        let Some(secret) = get(&spec.secret) else {
            return SecretForm::default();
        };
        let prefixes = get(&secret.prefix).map(|OneOrMany(all)| all.iter().collect::<Vec<_>>());
        SecretForm {
            encoding: get(&secret.encoding).copied().unwrap_or_default(),
            prefixes: prefixes
                .unwrap_or_default()
                .into_iter()
                .filter_map(|at| self.text(at))
                .collect(),
            transform: get(&secret.transform).copied(),
        }
    }
}
