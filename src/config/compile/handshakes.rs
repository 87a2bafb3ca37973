//! What presets bring beside their schemes: handshakes, and what they want to read in answers.

use std::sync::Arc;

use http::Method;

use super::signature::{Ready, params};
use super::{Compiler, value};
use crate::config::secret_file::SecretFile;
use crate::config::spec::CheckSpec;
use crate::document::{At, Place, TextOr};
use crate::scheme::handshake::{Answers, Handshake, Keep};
use crate::scheme::{KeyKind, Params};

/// The param that is a reference to a secret.
pub(super) const VERIFY_TOKEN: &str = "verify_token";

/// The param that names the file for a secret that a provider sends.
const ENROLMENT_FILE: &str = "enrolment_file";

/// What a preset brings beside its scheme.
#[derive(Clone, Debug)]
pub(super) struct HandshakesAndAnswers {
    pub(super) handshakes: Arc<[Handshake]>,
    pub(super) answers: Arc<Answers>,
}

impl Default for HandshakesAndAnswers {
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
        if let Some((_, extras)) = self.bound.get(reference).filter(|_| check.params.is_none()) {
            let own = extras.handshakes.iter().map(Handshake::method);
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

    /// Gives handshakes what the operator says of them, and warns of those that cannot be answered, and
    /// of a window that stands open.
    pub(super) fn handshakes(
        &mut self,
        spec: &CheckSpec,
        place: &Place,
        ready: &Ready,
    ) -> Option<Arc<[Handshake]>> {
        let params = params(spec.params.as_ref());
        let handshakes = self.with_enrolment(&ready.extras.handshakes, &params, place)?;
        self.with_verify_token(handshakes, &params, spec, place, ready)
    }

    /// With the file for a secret that the provider sends.
    fn with_enrolment(
        &mut self,
        handshakes: &Arc<[Handshake]>,
        params: &Params,
        place: &Place,
    ) -> Option<Arc<[Handshake]>> {
        let is_open = handshakes.iter().any(Handshake::is_enrolment_open);
        if is_open {
            let window = self.key(&format!("{}.params.enrolment_window_open", place.path));
            let message = "the next secret that anybody sends is taken for the provider's";
            self.warn(
                &window,
                message,
                "close the window once the provider is enrolled",
            );
        }
        let Some(given) = params.get(ENROLMENT_FILE) else {
            return Some(Arc::clone(handshakes));
        };
        let at = self.key(&format!("{}.params.{ENROLMENT_FILE}", place.path));
        if !handshakes.iter().any(Handshake::takes_secret) {
            self.warn(
                &at,
                "no handshake of this preset brings a secret",
                "remove it",
            );
            return Some(Arc::clone(handshakes));
        }
        let Some(path) = given.as_str().filter(|path| !path.is_empty()) else {
            self.error(&at, "this is the path of a file", "such as `asana.secret`");
            return None;
        };
        let full = self.resolver.place(path);
        if full
            .parent()
            .is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
        {
            let message =
                format!("`{path}` lies in a folder that is not there, so no secret can be kept");
            self.warn(&at, message, "make it before the window is used");
        }
        let file = SecretFile::new(full);
        if is_open && file.is_taken() {
            let message = "there is such a file already, so no secret is taken";
            let hint = format!("write `secrets: [file:{path}]` and close the window");
            self.warn(&at, message, hint.as_str());
        }
        let file: Arc<dyn Keep> = Arc::new(file);
        let own = handshakes.iter().cloned();
        Some(own.map(|own| own.with_keeper(Arc::clone(&file))).collect())
    }

    /// With the verify token.
    fn with_verify_token(
        &mut self,
        handshakes: Arc<[Handshake]>,
        params: &Params,
        spec: &CheckSpec,
        place: &Place,
        ready: &Ready,
    ) -> Option<Arc<[Handshake]>> {
        let takes_token = handshakes.iter().any(Handshake::takes_verify_token);
        let Some(given) = params.get(VERIFY_TOKEN) else {
            let has_secrets = ready.scheme.key_kind() == KeyKind::Secret || spec.secrets.is_some();
            if takes_token && !has_secrets {
                let message = "without a verify token the provider's question cannot be answered";
                self.warn(place, message, "add `params: { verify_token: env:NAME }`");
            }
            return Some(handshakes);
        };
        let at = self.key(&format!("{}.params.{VERIFY_TOKEN}", place.path));
        if !takes_token {
            let message = "no handshake of this preset has a verify token";
            self.warn(&at, message, "remove it");
            return Some(handshakes);
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
            Err(finding) => {
                self.finding(&at, finding);
                None
            }
        }
    }
}
