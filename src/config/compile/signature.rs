//! `provider` and `scheme`: signatures and the keys that may have made them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::checks::Auth;
use super::handshakes::{HandshakesAndAnswers, VERIFY_TOKEN};
use super::keys::{Kind, Written, WrittenList};
use super::routes::Scope;
use super::{Compiler, known_names, value};
use crate::config::near_presets;
use crate::config::spec::{CheckSpec, RouteSpec};
use crate::document::{At, Parsed, Place};
use crate::route::auth::{AuthPolicy, Check, Provider, Published, SignatureCheck, challenge};
use crate::route::policy::Sources;
use crate::scheme::catalog::{CatalogError, Preset, Selected};
use crate::scheme::handshake::{Answers, Handshake};
use crate::scheme::https_url::{HttpsUrl, KeyUrl};
use crate::scheme::keys::{Key, KeySet};
use crate::scheme::spec::{Ordered, SchemeSpec};
use crate::scheme::{Around, KeyKind, Params, Scheme};
use crate::units::{ByteSize, Span};

/// Above this a captured request stays good for longer than anybody remembers it.
const TOLERANCE_DOUBTFUL: Duration = Duration::from_hours(24);

/// How messages name the key that says how old a delivery may be.
const TOLERANCE: &str = "`tolerance`";

/// What the signatures of a route mean for the rest of it.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Whether any of them signs something: replays can be told from fresh deliveries.
    pub(super) signed: bool,
    /// Whether one of them may be the same for several deliveries, so that a new one could pass for a copy.
    pub(super) may_be_shared: bool,
    /// Whether one of them is a token that several events carry.
    pub(super) has_shared_token: bool,
    /// How long a delivery is fresh: past and future, the longest of all.
    pub(super) tolerance_both_ways: Option<Duration>,
    /// Largest body that a provider documents.
    pub(super) body_size_max: Option<ByteSize>,
    /// What a provider wants to read in answers: the first one that wants anything.
    pub(super) answers: Option<Arc<Answers>>,
    /// Methods that providers use.
    methods: Vec<(Place, Vec<String>)>,
    /// What schemes leave open.
    weaknesses: Vec<(Place, &'static str)>,
    /// Schemes that sign the URL with its host.
    of_hosts: Vec<Place>,
    /// How many checks have been reported as wrong, of which it is not known what they sign.
    missing: usize,
}

/// A scheme, ready for keys.
pub(super) struct Ready {
    pub(super) provider: Option<Arc<str>>,
    preset: Option<Arc<Preset>>,
    pub(super) params: Params,
    pub(super) scheme: Arc<Scheme>,
    pub(super) extras: HandshakesAndAnswers,
    place: Place,
    /// Whether it is as it was written. If not, which has been reported, it is what comes near, to find what else
    /// is wrong with the check.
    is_sound: bool,
}

/// What a preset becomes with the operator's `params` and tolerance.
struct Bound {
    scheme: Arc<Scheme>,
    extras: HandshakesAndAnswers,
    /// As [`Ready::is_sound`].
    is_sound: bool,
}

impl Compiler<'_, '_> {
    pub(super) fn signature(
        &mut self,
        spec: &CheckSpec,
        place: &Place,
        scope: Scope<'_>,
        facts: &mut Facts,
    ) -> Option<SignatureCheck> {
        self.tolerance(spec);
        // Keys are read before the scheme is known to be right, so that both are reported at once.
        let secrets = spec.secrets.as_ref();
        let secrets = secrets.map(|at| self.written(at, Kind::Secret, scope.route));
        let public_keys = spec.public_keys.as_ref();
        let public_keys = public_keys.map(|at| self.written(at, Kind::Public, scope.route));
        let jwks_url = spec.jwks_url.as_ref().map(|at| self.jwks_url(at));
        let ready = self.ready(spec, facts)?;
        let handshakes = ready.is_sound.then(|| self.handshakes(spec, place, &ready));
        let is_enrolling = ready
            .extras
            .handshakes
            .iter()
            .any(Handshake::is_enrolment_open);
        let published = match jwks_url {
            Some(url) => url.map(Published::At),
            // A pinned key replaces what the provider publishes.
            None if spec.public_keys.is_none() && ready.scheme.publishes_keys() => {
                Some(Published::ByProvider)
            }
            None => None,
        };
        let keys = match ready.scheme.key_kind() {
            // The provider is yet to send its secret.
            KeyKind::Secret if is_enrolling && secrets.is_none() => KeySet::new(vec![Key::none()])?,
            KeyKind::None => self.no_keys(spec, place, &ready, secrets)?,
            KeyKind::Secret => {
                let kinds = ["public_keys", "jwks_url"];
                self.unwanted(spec, &kinds, place, "verifies with `secrets`");
                if secrets.is_none() {
                    self.missing(
                        &place.path,
                        "secrets",
                        "such as `secrets: [env:WEBHOOK_SECRET]`",
                    );
                }
                self.keys(&ready, KeyKind::Secret, secrets?)?
            }
            KeyKind::Public => {
                // Values that each request must carry may be secrets beside the keys.
                let beside = if ready.scheme.takes_secrets_too() {
                    secrets.map(|list| self.keys(&ready, KeyKind::Secret, list))
                } else {
                    self.unwanted(spec, &["secrets"], place, "verifies with `public_keys`");
                    None
                };
                let keys = match public_keys {
                    Some(written) => self.keys(&ready, KeyKind::Public, written)?,
                    None if spec.jwks_url.is_some() || published.is_some() => {
                        KeySet::new(vec![Key::none()])?
                    }
                    None => {
                        let hint = "such as `public_keys: [file:key.pem]`, or `jwks_url`";
                        self.missing(&place.path, "public_keys", hint);
                        return None;
                    }
                };
                match beside {
                    Some(beside) => keys.and(&beside?),
                    None => keys,
                }
            }
        };
        Some(SignatureCheck {
            challenge: challenge(ready.scheme.challenge(), scope.route),
            provider: ready.provider.and_then(Provider::new).map(Arc::new),
            scheme: ready.scheme,
            keys,
            published,
            handshakes: handshakes??,
            answers: ready.extras.answers,
        })
    }

    /// The scheme that a check names or holds, noted.
    fn ready(&mut self, spec: &CheckSpec, facts: &mut Facts) -> Option<Ready> {
        let ready = match (&spec.provider, &spec.scheme) {
            (Some(provider), _) => self.preset(provider, spec, facts),
            (None, Some(scheme)) => self.own_scheme(scheme, spec),
            (None, None) => None,
        };
        match &ready {
            Some(ready) if ready.is_sound => facts.note(&ready.scheme, &ready.place),
            Some(_) | None => facts.miss(),
        }
        ready
    }

    /// Keys that are fetched while serving. What they are is only known then.
    fn jwks_url(&mut self, at: &At<String>) -> Option<KeyUrl> {
        let (text, place) = (at.get()?, at.place()?);
        match HttpsUrl::parse(text) {
            Ok(url) => Some(KeyUrl::of_operator(url)),
            Err(message) => {
                let hint = "such as `https://example.org/.well-known/jwks.json`";
                self.error(place, message, hint);
                None
            }
        }
    }

    /// The keys of a scheme without any: at most verify tokens, for the provider's question.
    fn no_keys(
        &mut self,
        spec: &CheckSpec,
        place: &Place,
        ready: &Ready,
        tokens: Option<WrittenList>,
    ) -> Option<KeySet> {
        let takes_token = takes_verify_token(ready);
        let kinds: &[_] = if takes_token {
            &["public_keys", "jwks_url"]
        } else {
            &["secrets", "public_keys", "jwks_url"]
        };
        self.unwanted(spec, kinds, place, "takes no keys");
        match tokens.filter(|_| takes_token) {
            Some(tokens) => self.keys(ready, KeyKind::Secret, tokens),
            None => KeySet::new(vec![Key::none()]),
        }
    }

    fn unwanted(&mut self, spec: &CheckSpec, keys: &[&str], place: &Place, what: &str) {
        for key in keys {
            let is_given = match *key {
                "secrets" => spec.secrets.is_some(),
                "public_keys" => spec.public_keys.is_some(),
                _ => spec.jwks_url.is_some(),
            };
            if is_given {
                let at = self.key(&format!("{}.{key}", place.path));
                self.error(
                    &at,
                    format!("this scheme {what}: `{key}` has no place here"),
                    "remove it",
                );
            }
        }
    }

    fn keys(&mut self, ready: &Ready, kind: KeyKind, list: WrittenList) -> Option<KeySet> {
        if !ready.is_sound {
            // What a key has to look like may depend on what is wrong.
            return None;
        }
        if kind == KeyKind::Secret {
            self.credentials(ready, &list);
        }
        let scheme = &ready.scheme;
        let mut is_good = list.is_complete;
        let mut keys = Vec::new();
        for Written {
            id,
            bytes,
            not_after,
            place,
        } in list.keys
        {
            let decoded = match kind {
                KeyKind::Public => scheme.public_keys(&id, bytes.expose(), not_after),
                KeyKind::Secret | KeyKind::None => scheme
                    .secret_key(id, bytes.expose(), not_after)
                    .map(|key| vec![key]),
            };
            match decoded {
                Ok(decoded) => keys.extend(decoded),
                Err(message) => {
                    is_good = false;
                    match kind {
                        KeyKind::Public => self.error(&place, message, None),
                        KeyKind::None | KeyKind::Secret => {
                            self.undecodable(ready, bytes.expose(), &place, message);
                        }
                    }
                }
            }
        }
        if is_good { KeySet::new(keys) } else { None }
    }

    fn tolerance(&mut self, spec: &CheckSpec) -> Option<Duration> {
        let tolerance = self.positive_duration(spec.tolerance.as_ref())?;
        if tolerance > TOLERANCE_DOUBTFUL
            && let Some(place) = spec.tolerance.as_ref().and_then(At::place)
        {
            let message = format!("a captured request stays good for {}", Span(tolerance));
            self.warn(place, message, "providers need minutes");
        }
        Some(tolerance)
    }

    // === presets ===

    fn preset(&mut self, at: &At<String>, spec: &CheckSpec, facts: &mut Facts) -> Option<Ready> {
        let (reference, place) = value(Some(at))?;
        let selected = self.find(reference, &place)?;
        let preset = &selected.preset.spec;
        let size = preset
            .max_size
            .as_ref()
            .and_then(At::get)
            .map(|Parsed(size)| *size);
        facts.body_size_max = facts.body_size_max.max(size);
        let methods = preset.methods.iter().filter_map(At::get).flatten();
        let methods: Vec<_> = methods.filter_map(|method| method.get().cloned()).collect();
        if !methods.is_empty() {
            facts.methods.push((place.clone(), methods));
        }
        let Bound {
            scheme,
            extras,
            is_sound,
        } = self.bind(reference, &selected, spec, &place)?;
        if preset.answers.is_some() {
            facts
                .answers
                .get_or_insert_with(|| Arc::clone(&extras.answers));
        }
        let name = reference.split('/').next().unwrap_or(reference);
        Some(Ready {
            provider: Some(name.into()),
            preset: Some(Arc::clone(&selected.preset)),
            params: params(spec.params.as_ref()),
            scheme,
            extras,
            place,
            is_sound,
        })
    }

    fn find(&mut self, reference: &str, place: &Place) -> Option<Selected> {
        if let Some(Some(known)) = self.presets.get(reference) {
            return Some(known.clone());
        }
        let found = match self.catalog.find(reference) {
            Ok(found) => Some(found),
            Err(CatalogError::Broken(report)) => {
                self.broken_preset(&report);
                None
            }
            Err(CatalogError::UnknownProvider { name }) => {
                let near = near_presets(&name, &self.catalog);
                let hint = near.unwrap_or_else(|| {
                    "`hookward providers` lists them; `scheme` describes one of your own".to_owned()
                });
                self.error(place, format!("there is no preset `{name}`"), hint.as_str());
                None
            }
            Err(CatalogError::UnknownScheme {
                provider,
                name,
                known,
            }) => {
                let hint = known_names(&name, known.iter().map(String::as_str));
                self.error(
                    place,
                    format!("preset `{provider}` has no scheme `{name}`"),
                    hint.as_deref(),
                );
                None
            }
        };
        self.presets.insert(reference.to_owned(), found.clone());
        found
    }

    fn bind(
        &mut self,
        reference: &str,
        selected: &Selected,
        spec: &CheckSpec,
        place: &Place,
    ) -> Option<Bound> {
        let tolerance =
            value(spec.tolerance.as_ref()).map(|(Parsed(Span(tolerance)), _)| *tolerance);
        let is_plain = tolerance.is_none() && spec.params.is_none();
        let whole = |(scheme, extras)| Bound {
            scheme,
            extras,
            is_sound: true,
        };
        if is_plain && let Some(bound) = self.bound.get(reference) {
            return Some(whole(bound.clone()));
        }
        self.params_in_doubt(spec);
        let params = params(spec.params.as_ref());
        match bound(selected, &params, tolerance) {
            Ok(bound) => {
                if is_plain {
                    self.bound.insert(reference.to_owned(), bound.clone());
                }
                Some(whole(bound))
            }
            Err(mut messages) => {
                let none = Params::new();
                if !params.is_empty() && !selected.is_chosen_by_param() {
                    // Where a param is wrong, nothing was said of the tolerance yet.
                    let mut more = bound(selected, &none, tolerance).err().unwrap_or_default();
                    more.retain(|told| told.contains(TOLERANCE) && !messages.contains(told));
                    messages.append(&mut more);
                }
                for message in messages {
                    let place = self.culprit(spec, place, &message);
                    self.error(&place, message, None);
                }
                let near = match bound(selected, &params, None) {
                    Err(_) if !selected.is_chosen_by_param() => bound(selected, &none, None),
                    near => near,
                };
                let near = near.ok().map(whole);
                near.map(|near| Bound {
                    is_sound: false,
                    ..near
                })
            }
        }
    }

    /// Warns of references: but for the verify token, a param is its value.
    fn params_in_doubt(&mut self, spec: &CheckSpec) {
        let Some((Ordered(params), _)) = value(spec.params.as_ref()) else {
            return;
        };
        for (name, at) in params {
            if let Some((serde_json::Value::String(text), place)) = value(Some(at))
                && name != VERIFY_TOKEN
            {
                self.reference_outside(text, &place);
            }
        }
    }

    /// What a message about a preset is about: the param that it names, the tolerance, or the preset.
    fn culprit(&self, spec: &CheckSpec, preset: &Place, message: &str) -> Place {
        let is_about = |name: &str| message.contains(&format!("`{name}`"));
        if let Some((_, place)) = value(spec.tolerance.as_ref())
            && message.contains(TOLERANCE)
        {
            return place;
        }
        let Some((Ordered(params), place)) = value(spec.params.as_ref()) else {
            return preset.clone();
        };
        let named = params.iter().find(|(name, _)| is_about(name));
        self.key(&named.map_or_else(
            || place.path.to_string(),
            |(name, _)| format!("{}.{name}", place.path),
        ))
    }

    // === schemes of the operator's own ===

    fn own_scheme(&mut self, at: &At<Box<SchemeSpec>>, spec: &CheckSpec) -> Option<Ready> {
        let (scheme, place) = value(Some(at))?;
        let key = self.key(&place.path);
        if let Some(params) = spec.params.as_ref().and_then(At::place) {
            let params = self.key(&params.path);
            let message = "`params` are for presets; write the values into the scheme";
            self.error(&params, message, None);
        }
        let algorithm = self.required(&scheme.algorithm, &place.path, "algorithm");
        let has_algorithm = algorithm.is_some();
        let own = scheme
            .timestamp
            .as_ref()
            .and_then(At::get)
            .and_then(|own| own.tolerance.as_ref());
        if let Some(tolerance) = spec.tolerance.as_ref().and_then(At::place)
            && own.is_some()
        {
            self.error(
                tolerance,
                "the scheme's timestamp has a `tolerance` already",
                "remove one",
            );
        }
        let tolerance = value(spec.tolerance.as_ref());
        let tolerance = tolerance.map(|(Parsed(Span(tolerance)), _)| *tolerance);
        let at_tolerance = spec.tolerance.as_ref().and_then(At::place);
        let around = Around {
            scheme: Some(&key),
            tolerance: at_tolerance,
        };
        let mut is_sound = true;
        let scheme = Scheme::compile(scheme, tolerance, around).or_else(|mut problems| {
            // A missing algorithm has been reported, at its place.
            problems.retain(|problem| has_algorithm || !problem.path.is_empty());
            self.problems.extend(problems);
            is_sound = false;
            Scheme::compile(scheme, None, around)
        });
        Some(Ready {
            provider: None,
            preset: None,
            params: Params::new(),
            scheme: Arc::new(scheme.ok()?),
            extras: HandshakesAndAnswers::default(),
            place: key,
            is_sound,
        })
    }

    // === weaknesses ===

    /// Warns of what a signature does not cover, unless another check of the route makes up for it.
    pub(super) fn weaknesses(&mut self, spec: &RouteSpec, auth: &Auth, sources: &Sources) {
        let Some(AuthPolicy::All(checks)) = &auth.policy else {
            return;
        };
        let vouches = |check: &Check| match check {
            Check::Basic(_) | Check::ClientCert(_) | Check::Token(_) => true,
            Check::Any(_) | Check::Signature(_) => false,
        };
        let is_known = sources.is_selective() || checks.iter().any(vouches);
        for (place, weakness) in &auth.facts.weaknesses {
            let is_made_up_for = if weakness.contains("`replay`") {
                spec.replay.is_some()
            } else {
                is_known
            };
            if !is_made_up_for {
                self.warn(place, *weakness, None);
            }
        }
    }

    /// Warns where the sender of a request chooses the host that the signature is checked with
    /// (SECURITY A-42).
    pub(super) fn hosts_of_urls(&mut self, facts: &Facts) {
        for place in &facts.of_hosts {
            self.warn(
                place,
                "the signature covers the URL, and the request itself says with which host",
                Some("set `public_url` on the listeners, or `match.host` on the route"),
            );
        }
    }

    /// Warns where the URL that the signature is checked with begins with `http://`: what the sender called need not,
    /// for a proxy may have ended its TLS.
    pub(super) fn plain_urls(&mut self, facts: &Facts) {
        for place in &facts.of_hosts {
            self.warn(
                place,
                "the signature covers the URL, and on a listener without `tls` that begins with `http://` and the request's Host",
                Some("set `public_url` on the listeners to what senders call"),
            );
        }
    }

    /// Warns when a route takes none of the methods that a provider calls with.
    pub(super) fn methods_of_presets(&mut self, facts: &Facts, taken: &[Method]) {
        for (place, methods) in &facts.methods {
            if !taken
                .iter()
                .any(|own| methods.iter().any(|method| own.as_str() == method))
            {
                let list = methods.join("`, `");
                let message =
                    format!("this provider sends `{list}`, which the route does not take");
                self.warn(place, message, "write it into `match.methods`");
            }
        }
    }
}

/// What a scheme is with `params` and `tolerance`, and what comes with it; else what is wrong with them.
fn bound(
    selected: &Selected,
    params: &Params,
    tolerance: Option<Duration>,
) -> Result<(Arc<Scheme>, HandshakesAndAnswers), Vec<String>> {
    let scheme = selected.bind(params, tolerance)?;
    let extras = HandshakesAndAnswers {
        handshakes: selected.handshakes(params)?.into(),
        answers: Arc::new(selected.answers(params)?),
    };
    Ok((Arc::new(scheme), extras))
}

/// Whether the provider proves itself by a token when it asks whether the URL is ours.
fn takes_verify_token(ready: &Ready) -> bool {
    let mut handshakes = ready.extras.handshakes.iter();
    handshakes.any(Handshake::takes_verify_token)
}

impl Ready {
    /// What the preset says of the secret.
    pub(super) fn about_secret(&self) -> Option<&str> {
        let preset = self.preset.as_ref()?;
        preset.spec.secret.get().map(String::as_str)
    }
}

impl Facts {
    /// A check has been reported that says nothing of itself.
    pub(super) fn miss(&mut self) {
        self.missing += 1;
    }

    /// Whether they are those of every check.
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    fn note(&mut self, scheme: &Scheme, place: &Place) {
        self.signed |= scheme.is_signed();
        self.may_be_shared |= scheme.is_signed() && !scheme.tells_deliveries_apart();
        self.has_shared_token |= scheme.is_shared_token();
        if let Some(tolerance) = scheme.signed_tolerance() {
            let both = tolerance.past.saturating_add(tolerance.future);
            self.tolerance_both_ways = self.tolerance_both_ways.max(Some(both));
        }
        self.of_hosts
            .extend(scheme.signs_host().then(|| place.clone()));
        self.weaknesses.extend(
            scheme
                .weaknesses()
                .into_iter()
                .map(|text| (place.clone(), text)),
        );
    }
}

/// Params as written.
pub(super) fn params(at: Option<&At<Ordered<serde_json::Value>>>) -> Params {
    let Some((Ordered(params), _)) = value(at) else {
        return BTreeMap::new();
    };
    let given = params
        .iter()
        .filter_map(|(name, at)| Some((name.clone(), at.get()?.clone())));
    given.collect()
}
