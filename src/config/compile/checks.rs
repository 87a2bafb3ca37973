//! `verify`: which checks a route has.

use std::sync::Arc;

use http::HeaderName;

use super::keys::Kind;
use super::routes::Scope;
use super::signature::Facts;
use super::{Compiler, known_names, value, values};
use crate::config::spec::{CheckSpec, ClientCertSpec, TokenSpec};
use crate::document::{At, Place, TextOr};
use crate::route::auth::{
    AuthPolicy, Check, ClientCertCheck, TokenCheck, TokenLocation, challenge,
};
use crate::scheme::keys::{Key, KeySet};

/// What a route must prove, and what follows from it for the rest of the route.
pub(super) struct Auth {
    /// `None` when something about the checks has been reported as wrong.
    pub(super) policy: Option<AuthPolicy>,
    pub(super) facts: Facts,
}

const KINDS: &str = "write one of `token`, `basic`, `provider`, `scheme`, `client_cert` and `any`";

impl Compiler<'_, '_> {
    pub(super) fn auth(
        &mut self,
        at: &At<TextOr<Vec<At<CheckSpec>>>>,
        route: &str,
        scope: Scope<'_>,
    ) -> Option<Auth> {
        let hint = "list what a request must prove; an open route must say `verify: none`";
        let Some(place) = at.place() else {
            self.missing(route, "verify", hint);
            return None;
        };
        let items = match at.get()? {
            TextOr::Text(text) if text == "none" => {
                return Some(Auth {
                    policy: Some(AuthPolicy::Open),
                    facts: Facts::default(),
                });
            }
            TextOr::Text(text) => {
                let message = format!("`{text}` is neither a list of checks nor `none`");
                let hint =
                    format!("such as `verify: [{{ provider: {text}, secrets: [env:SECRET] }}]`");
                let is_provider = self.catalog.find(text).is_ok();
                self.error(place, message, is_provider.then_some(hint.as_str()));
                return None;
            }
            TextOr::Full(items) => items,
        };
        if items.is_empty() {
            self.error(place, "the list of checks is empty", hint);
            return None;
        }
        let mut facts = Facts::default();
        let checks: Box<[_]> = items
            .iter()
            .filter_map(|item| self.check(item, scope, &mut facts))
            .collect();
        let is_complete = checks.len() == items.len();
        // A key that is missing makes the check fail, and says nothing about what the scheme needs.
        facts.is_complete().then_some(Auth {
            policy: is_complete.then_some(AuthPolicy::All(checks)),
            facts,
        })
    }

    fn check(&mut self, at: &At<CheckSpec>, scope: Scope<'_>, facts: &mut Facts) -> Option<Check> {
        let Some((spec, place)) = value(Some(at)) else {
            facts.miss();
            return None;
        };
        if self.is_one_kind(spec, &place) {
            self.of_kind(spec, &place, scope, facts)
        } else {
            facts.miss();
            None
        }
    }

    /// Reports an item that is not a check, or several in one.
    fn is_one_kind(&mut self, spec: &CheckSpec, place: &Place) -> bool {
        let kinds = [
            ("token", spec.token.is_some()),
            ("basic", spec.basic.is_some()),
            ("provider", spec.provider.is_some()),
            ("scheme", spec.scheme.is_some()),
            ("client_cert", spec.client_cert.is_some()),
            ("any", spec.any.is_some()),
        ];
        let given: Vec<_> = kinds
            .iter()
            .filter(|(_, given)| *given)
            .map(|(name, _)| *name)
            .collect();
        if let [_, second, ..] = given.as_slice() {
            let key = self.key(&format!("{}.{second}", place.path));
            let message = format!("one item holds several checks: `{}`", given.join("`, `"));
            self.error(
                &key,
                message,
                "begin each check with `-`: all of the list must hold",
            );
            return false;
        }
        if given.is_empty() {
            self.error(place, "this item is not a check", KINDS);
            return false;
        }
        if spec.provider.is_some() || spec.scheme.is_some() {
            return true;
        }
        for (name, given) in [
            ("secrets", spec.secrets.is_some()),
            ("public_keys", spec.public_keys.is_some()),
            ("jwks_url", spec.jwks_url.is_some()),
            ("params", spec.params.is_some()),
            ("tolerance", spec.tolerance.is_some()),
        ] {
            if given {
                let key = self.key(&format!("{}.{name}", place.path));
                let message = format!("`{name}` belongs to `provider` or `scheme`");
                let hint = spec
                    .token
                    .as_ref()
                    .filter(|_| name == "secrets")
                    .map(|_| "write it within `token`");
                self.error(&key, message, hint);
            }
        }
        true
    }

    fn of_kind(
        &mut self,
        spec: &CheckSpec,
        place: &Place,
        scope: Scope<'_>,
        facts: &mut Facts,
    ) -> Option<Check> {
        if let Some(token) = &spec.token {
            self.token(token, scope).map(Check::Token)
        } else if let Some(basic) = &spec.basic {
            self.basic(basic, scope).map(Check::Basic)
        } else if let Some(client_cert) = &spec.client_cert {
            self.client_cert(client_cert, scope).map(Check::ClientCert)
        } else if let Some(choices) = &spec.any {
            self.any(choices, scope, facts).map(Check::Any)
        } else {
            self.signature(spec, place, scope, facts)
                .map(Check::Signature)
        }
    }

    fn any(
        &mut self,
        at: &At<Vec<At<CheckSpec>>>,
        scope: Scope<'_>,
        facts: &mut Facts,
    ) -> Option<Vec<Check>> {
        let (items, place) = value(Some(at))?;
        if items.is_empty() {
            self.error(&place, "none of these can hold: the list is empty", KINDS);
            facts.miss();
            return None;
        }
        let mut checks = Vec::new();
        for item in items {
            if let Some(nested) = item.get().and_then(|spec| spec.any.as_ref()) {
                let place = nested.place().unwrap_or(&place);
                self.error(
                    place,
                    "`any` cannot stand within `any`",
                    "write its checks into the outer one",
                );
            } else {
                checks.extend(self.check(item, scope, facts));
            }
        }
        (checks.len() == items.len()).then_some(checks)
    }

    fn token(&mut self, at: &At<TokenSpec>, scope: Scope<'_>) -> Option<TokenCheck> {
        let (spec, place) = value(Some(at))?;
        let location = self.token_location(spec, &place, scope);
        if spec.secrets.place().is_none() {
            self.missing(
                &place.path,
                "secrets",
                "such as `secrets: [env:WEBHOOK_TOKEN]`",
            );
        }
        let written = self.written(&spec.secrets, Kind::Secret, scope.route);
        if !written.is_complete {
            return None;
        }
        let keys = written
            .keys
            .into_iter()
            .map(|key| Key::secret(key.id, key.bytes, key.not_after));
        let keys = KeySet::new(keys.collect())?;
        Some(TokenCheck {
            challenge: challenge("Bearer", scope.route),
            location: location?,
            keys,
        })
    }

    fn token_location(
        &mut self,
        spec: &TokenSpec,
        place: &Place,
        scope: Scope<'_>,
    ) -> Option<TokenLocation> {
        let given = [
            spec.query.is_some(),
            spec.header.is_some(),
            spec.bearer.is_some(),
            spec.path.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            let key = self.key(&place.path);
            let message = "a token stands in one place";
            self.error(
                &key,
                message,
                "write one of `query: NAME`, `header: NAME`, `bearer: true` and `path: NAME`",
            );
            return None;
        }
        if let Some((name, place)) = value(spec.query.as_ref()) {
            if name.is_empty() {
                self.error(&place, "the name of the query field is empty", None);
            }
            return Some(TokenLocation::Query(name.as_str().into()));
        }
        if let Some((name, place)) = value(spec.header.as_ref()) {
            let parsed = name.parse::<HeaderName>().ok();
            if parsed.is_none() {
                // What follows may be the token.
                let (name, rest) = name.split_once(':').unwrap_or((name, ""));
                let mark = if rest.is_empty() { "" } else { ":…" };
                self.error(
                    &place,
                    format!("`{name}{mark}` is not the name of a header field"),
                    "such as `header: X-Token`; the token itself stands in `secrets`",
                );
            }
            return parsed.map(TokenLocation::Header);
        }
        if let Some((bearer, place)) = value(spec.bearer.as_ref()) {
            if !bearer {
                self.error(
                    &place,
                    "`bearer: false` says nowhere",
                    "write `bearer: true`, or another place",
                );
            }
            return Some(TokenLocation::Bearer);
        }
        let (name, place) = value(spec.path.as_ref())?;
        let path = scope.path?;
        let param = path.params().find(|param| ***param == **name);
        if param.is_none() {
            let params: Vec<&str> = path.params().map(Arc::as_ref).collect();
            let hint = known_names(name, params.iter().copied())
                .unwrap_or_else(|| format!("write one segment of `match.path` as `{{{name}}}`"));
            self.error(
                &place,
                format!("`match.path` has no `{{{name}}}`"),
                hint.as_str(),
            );
        }
        param.map(|param| TokenLocation::Path(Arc::clone(param)))
    }

    fn client_cert(
        &mut self,
        at: &At<ClientCertSpec>,
        scope: Scope<'_>,
    ) -> Option<ClientCertCheck> {
        let (spec, place) = value(Some(at))?;
        if !scope.world.asks_for_certificates {
            let key = self.key(&place.path);
            let message = "no TLS listener asks for client certificates, so no request could pass";
            self.error(
                &key,
                message,
                "add `client_ca: FILE` to the `tls` of a listener",
            );
        }
        let (list, place) = self.required(&spec.san, &place.path, "san")?;
        if list.0.is_empty() {
            self.error(
                &place,
                "the list of names is empty, so no request could pass",
                None,
            );
            return None;
        }
        let mut san = Vec::new();
        for (name, place) in values(Some(&spec.san))? {
            if name.trim().is_empty() || name.contains('*') {
                self.error(
                    &place,
                    format!("`{name}` is not a name in a certificate; names are compared whole"),
                    None,
                );
            } else {
                self.labelled_name(name, &place);
                san.push(name.clone());
            }
        }
        (san.len() == list.0.len()).then(|| ClientCertCheck {
            challenge: challenge("ClientCertificate", scope.route),
            san,
        })
    }

    /// Warns of a name as tools print it, with its kind before it.
    fn labelled_name(&mut self, name: &str, place: &Place) {
        const LABELS: &[&str] = &["DNS:", "IP:", "IP Address:", "URI:", "email:"];
        let is_subject = ["CN=", "/CN=", "subject="];
        if is_subject.iter().any(|start| name.starts_with(start)) {
            let message =
                "the subject of a certificate is not looked at, so that none has this name";
            self.warn(place, message, "write a name of its subjectAltName");
        }
        let mut labels = LABELS.iter();
        if let Some(rest) = labels.find_map(|label| name.strip_prefix(label)) {
            let message = "names are compared whole, and no certificate has this one";
            let hint = format!("write `{}`", rest.trim());
            self.warn(place, message, hint.as_str());
        }
    }
}
