//! What presets bring beside their schemes: handshakes, and what they want to read in answers.

use std::sync::Arc;

use http::Method;

use super::signature::{Ready, params};
use super::{Compiler, value};
use crate::config::spec::CheckSpec;
use crate::document::{At, Place, TextOr};
use crate::scheme::KeyKind;
use crate::scheme::handshake::{Answers, Handshake};

/// The param that is a reference to a secret.
const VERIFY_TOKEN: &str = "verify_token";

/// What a preset brings beside its scheme.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    pub(super) handshakes: Arc<[Handshake]>,
    pub(super) answers: Arc<Answers>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            handshakes: Arc::new([]),
            answers: Arc::default(),
        }
    }
}

impl Compiler<'_, '_> {
    /// Methods that the handshakes of a route's presets come with. Mistakes are reported elsewhere.
    pub(super) fn handshake_methods(
        &mut self,
        verify: &At<TextOr<Vec<At<CheckSpec>>>>,
        taken: &[Method],
    ) -> Vec<Method> {
        let Some(TextOr::Full(checks)) = verify.get() else {
            return Vec::new();
        };
        let mut methods = Vec::new();
        for check in checks.iter().filter_map(At::get) {
            let choices = check.any.as_ref().and_then(At::get).into_iter().flatten();
            for check in choices.filter_map(At::get).chain([check]) {
                self.methods_of(check, &mut methods);
            }
        }
        methods.retain(|method| !taken.contains(method));
        methods
    }

    fn methods_of(&mut self, check: &CheckSpec, methods: &mut Vec<Method>) {
        let Some((reference, _)) = value(check.provider.as_ref()) else {
            return;
        };
        if let Some((_, manners)) = self.bound.get(reference).filter(|_| check.params.is_none()) {
            let own = manners.handshakes.iter().map(Handshake::method);
            let new = own.filter(|own| !methods.contains(own)).cloned();
            return methods.extend(new.collect::<Vec<_>>());
        }
        let known = self.presets.get(reference).cloned().flatten();
        let Some(selected) = known.or_else(|| self.catalog.find(reference).ok()) else {
            return;
        };
        let handshakes = selected.handshakes(&params(check.params.as_ref()));
        for handshake in handshakes.unwrap_or_default() {
            if !methods.contains(handshake.method()) {
                methods.push(handshake.method().clone());
            }
        }
        self.presets.insert(reference.clone(), Some(selected));
    }

    /// Gives handshakes their verify token, and warns of those that cannot be answered, and of a window
    /// that stands open.
    pub(super) fn handshakes(
        &mut self,
        spec: &CheckSpec,
        place: &Place,
        ready: &Ready,
    ) -> Option<Arc<[Handshake]>> {
        let handshakes = &ready.manners.handshakes;
        let takes_token = handshakes.iter().any(Handshake::takes_verify_token);
        let params = params(spec.params.as_ref());
        if handshakes.iter().any(Handshake::is_enrolment_open) {
            let window = self.key(&format!("{}.params.enrolment_window_open", place.path));
            let message = "the next secret that anybody sends is taken for the provider's";
            self.warn(
                &window,
                message,
                "close the window once the provider is enrolled",
            );
        }
        let Some(given) = params.get(VERIFY_TOKEN) else {
            let has_secrets = ready.scheme.key_kind() == KeyKind::Secret || spec.secrets.is_some();
            if takes_token && !has_secrets {
                let message = "without a verify token the provider's question cannot be answered";
                self.warn(place, message, "add `params: { verify_token: env:NAME }`");
            }
            return Some(Arc::clone(handshakes));
        };
        let at = self.key(&format!("{}.params.{VERIFY_TOKEN}", place.path));
        if !takes_token {
            let message = "no handshake of this preset has a verify token";
            self.warn(&at, message, "remove it");
            return Some(Arc::clone(handshakes));
        }
        let Some(reference) = given.as_str() else {
            self.error(
                &at,
                "a verify token is a reference",
                "such as `env:VERIFY_TOKEN`",
            );
            return None;
        };
        match self.resolver.secret(reference) {
            Ok(resolved) => {
                for warning in resolved.warnings {
                    self.doubt(&at, warning);
                }
                let own = handshakes.iter().cloned();
                let own = own.map(|own| own.with_verify_token(resolved.secret.clone()));
                Some(own.collect())
            }
            Err(trouble) => {
                self.trouble(&at, trouble);
                None
            }
        }
    }
}
