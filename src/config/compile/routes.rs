//! `routes`: names, what they match, and how their parts fit together.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Method, StatusCode};

use super::checks::Auth;
use super::upstreams::Upstreams;
use super::{Compiler, PLAIN_NAME, is_plain_name, known_names, value};
use crate::config::spec::{MatchSpec, ModeSpec, RejectSpec, RouteSpec};
use crate::config::value::unreachable;
use crate::document::{At, OneOrMany, Place};
use crate::route::auth::{AuthPolicy, Check};
use crate::route::matcher::{HostPattern, PathPattern, RouteMatch, RouteTable};
use crate::route::policy::{BodyPolicy, ForwardPolicy, Mode, Sources};
use crate::route::{BODY_SIZE_MAX_DEFAULT, Route, UpstreamRef};
use crate::settings::Limits;

/// Methods that a route can take: `CONNECT` and `TRACE` never are webhooks.
const METHODS: &[&str] = &["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
/// Errors after which no more routes are read: a million routes may fit into a file, but their errors not into
/// memory.
const ERRORS_MAX: usize = 10_000;
/// Longest target of a request; longer ones are answered 414.
const TARGET_BYTES_MAX: usize = 8 << 10;
/// Label of requests that no route takes.
const NO_ROUTE: &str = "_none";

/// What routes depend on beside themselves.
pub(super) struct World<'w> {
    pub(super) limits: &'w Limits,
    /// Whether any listener asks clients for a certificate.
    pub(super) asks_for_certificates: bool,
    /// Whether any listener with TLS takes the host that a request names for its own.
    pub(super) takes_any_host: bool,
    /// Whether any without it takes URLs to be of that host and `http://`, whatever a proxy in front was called by.
    pub(super) takes_plain_urls: bool,
}

/// What the checks of a route may refer to.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    pub(super) route: &'s str,
    /// `None` when the path has been reported as wrong.
    pub(super) path: Option<&'s PathPattern>,
    pub(super) world: &'s World<'s>,
}

/// A match with where it stands, for conflicts.
struct Taken {
    name: String,
    place: Place,
    matches: RouteMatch,
}

impl Compiler<'_, '_> {
    pub(super) fn routes(
        &mut self,
        spec: &At<Vec<At<RouteSpec>>>,
        world: &World<'_>,
        upstreams: &mut Upstreams,
    ) -> Vec<Arc<Route>> {
        let Some((items, place)) = self.required(spec, "", "routes") else {
            return Vec::new();
        };
        if items.is_empty() {
            self.warn(&place, "there is no route: every request gets 404", None);
        }
        self.names(items);
        let mut taken = Vec::new();
        let mut routes = Vec::new();
        for at in items {
            let Some((route, place)) = value(Some(at)) else {
                continue;
            };
            if self.errors >= ERRORS_MAX {
                let message = "there are too many errors: from here on, routes were not read";
                self.error(&place, message, None);
                return Vec::new();
            }
            let mut matches = self.matches(&route.matches, &place);
            if let Some(matches) = &mut matches {
                matches.handshakes = self.handshake_methods(&route.verify, &matches.methods);
            }
            if let Some(matches) = &matches {
                taken.push(Taken {
                    name: route.name.get().cloned().unwrap_or_default(),
                    place: self.key(&format!("{}.match", place.path)),
                    matches: matches.clone(),
                });
            }
            routes.extend(
                self.route(route, &place, matches, world, upstreams)
                    .map(Arc::new),
            );
        }
        self.conflicts(&taken);
        self.unused_upstreams(upstreams);
        routes
    }

    fn names(&mut self, items: &[At<RouteSpec>]) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for at in items {
            let Some((name, place)) = at.get().and_then(|route| value(Some(&route.name))) else {
                continue;
            };
            let message = format!("`{name}` is not a name for a route");
            if name == NO_ROUTE {
                let hint = "requests that no route takes are logged and counted by it";
                self.error(&place, message, hint);
            } else if !is_plain_name(name) {
                self.error(&place, message, PLAIN_NAME);
            }
            if let Some(line) = seen.get(name.as_str()) {
                let message = format!("the route in line {line} is called `{name}` already");
                self.error(
                    &place,
                    message,
                    "names are metric labels: each may stand once",
                );
            }
            seen.entry(name).or_insert(place.mark.line);
        }
    }

    /// Routes that are equally specific for the same requests: neither could be said to win.
    fn conflicts(&mut self, taken: &[Taken]) {
        let probes = taken
            .iter()
            .map(|taken| Arc::new(probe(&taken.matches)))
            .collect();
        let Err(conflicts) = RouteTable::build(probes) else {
            return;
        };
        for conflict in conflicts {
            let (Some(first), Some(second)) =
                (taken.get(conflict.first), taken.get(conflict.second))
            else {
                continue;
            };
            let message = format!(
                "routes `{}` (line {}) and `{}` match the same requests, none more specific than the other",
                first.name, first.place.mark.line, second.name
            );
            self.error(
                &second.place,
                message,
                "change host, path or methods of one of them",
            );
        }
    }

    fn route(
        &mut self,
        spec: &RouteSpec,
        place: &Place,
        matches: Option<RouteMatch>,
        world: &World<'_>,
        upstreams: &mut Upstreams,
    ) -> Option<Route> {
        let path = &place.path;
        let name: Option<Arc<str>> = self
            .required(&spec.name, path, "name")
            .map(|(name, _)| name.as_str().into());
        let sources = self.sources(spec);
        let quotas = self.quotas(spec.rate_limits.as_ref());
        let scope = Scope {
            route: name.as_deref().unwrap_or("?"),
            path: matches.as_ref().map(|matches| &matches.path),
            world,
        };
        let auth = self.auth(&spec.verify, path, scope);
        if let Some(auth) = &auth {
            self.open_door(spec, auth, &sources);
            self.unproven(spec, auth, &sources);
            self.weaknesses(spec, auth, &sources);
            if let Some(matches) = &matches {
                self.methods_of_presets(&auth.facts, &matches.methods);
                if world.takes_plain_urls {
                    self.plain_urls(&auth.facts);
                } else if world.takes_any_host && matches.host == HostPattern::Any {
                    self.hosts_of_urls(&auth.facts);
                }
            }
        }
        let facts = auth.as_ref().map(|auth| &auth.facts);
        let body = self.body(spec.body.as_ref(), facts, world.limits, place);
        let replay = self.replay(spec.replay.as_ref(), facts);
        let upstream = self.upstream_of(&spec.upstream, path, upstreams);
        let forward = self.forward(spec.forward.as_ref(), scope.path);
        let reject_status = self.reject_status(spec.on_reject.as_ref());
        let answers = facts.and_then(|facts| facts.answers.clone());
        Some(Route {
            name: name?,
            matches: matches?,
            mode: match value(spec.mode.as_ref()) {
                None | Some((ModeSpec::Enforce, _)) => Mode::Enforce,
                Some((ModeSpec::Observe, _)) => Mode::Observe,
            },
            sources,
            quotas,
            body,
            auth: auth?.policy?,
            replay,
            upstream: upstream?,
            forward,
            reject_status,
            answers: answers.unwrap_or_default(),
        })
    }

    fn matches(&mut self, at: &At<MatchSpec>, route: &Place) -> Option<RouteMatch> {
        let (spec, place) = self.required(at, &route.path, "match")?;
        let host = match value(spec.host.as_ref()) {
            None => Some(HostPattern::Any),
            Some((host, place)) => match HostPattern::parse(host) {
                Ok(host) => Some(host),
                Err(problem) => {
                    self.error(&place, problem.to_string(), None);
                    None
                }
            },
        };
        let methods = match &spec.methods {
            None => Some(vec![Method::POST]),
            Some(at) => self.methods(at),
        };
        let (text, place) = self.required(&spec.path, &place.path, "path")?;
        let path = match PathPattern::parse(text) {
            Ok(path) => path,
            Err(problem) => {
                self.error(&place, problem.to_string(), None);
                return None;
            }
        };
        if text.len() > TARGET_BYTES_MAX {
            let message =
                "longer than the 8 KiB that a request's path may have, so this never matches";
            self.error(&place, message, None);
        } else if let Some(why) = unreachable(text) {
            self.error(&place, format!("`{text}`: {why}"), None);
        }
        let is_pattern = |part: &&str| part.contains('*') || part.starts_with(':');
        let pattern = text
            .split('/')
            .filter(|part| !part.starts_with('{'))
            .find(is_pattern);
        if let Some(part) = pattern {
            let message = format!("`{part}` stands for these characters and nothing else");
            let hint = "write `{name}` for one segment, `{*rest}` at the end for all that follows";
            self.warn(&place, message, hint);
        }
        Some(RouteMatch {
            host: host?,
            path,
            methods: methods?,
            handshakes: Vec::new(),
        })
    }

    fn methods(&mut self, at: &At<OneOrMany<String>>) -> Option<Vec<Method>> {
        let (OneOrMany(items), place) = value(Some(at))?;
        if items.is_empty() {
            self.error(
                &place,
                "no method is taken, so no request",
                "such as `[POST]`",
            );
            return None;
        }
        let mut methods = Vec::new();
        for item in items {
            let Some((text, place)) = value(Some(item)) else {
                continue;
            };
            let known = METHODS
                .iter()
                .find(|known| *known == text)
                .and_then(|known| known.parse().ok());
            match known {
                Some(method) if methods.contains(&method) => {
                    self.error(&place, format!("`{text}` stands here twice"), None);
                }
                Some(method) => methods.push(method),
                None => {
                    let hint = known_names(&text.to_ascii_uppercase(), METHODS.iter().copied());
                    self.error(
                        &place,
                        format!("`{text}` is not a method of webhooks"),
                        hint.as_deref(),
                    );
                }
            }
        }
        (methods.len() == items.len()).then_some(methods)
    }

    fn sources(&mut self, spec: &RouteSpec) -> Sources {
        let allow = self.networks(spec.allow_ips.as_ref());
        if let Some((OneOrMany(items), place)) = value(spec.allow_ips.as_ref())
            && items.is_empty()
        {
            let hint = "leave `allow_ips` out to let any address call";
            self.error(
                &place,
                "no address may call, so no request is let through",
                hint,
            );
        }
        let deny = self.networks(spec.deny_ips.as_ref()).unwrap_or_default();
        let sources = Sources { allow, deny };
        // An `allow_ips` that is empty or wrong has been reported.
        let is_known = sources.allow.as_ref().is_none_or(|nets| !nets.is_empty());
        if let Some((_, place)) = value(spec.deny_ips.as_ref())
            && is_known
            && sources.admits_nobody()
        {
            let message = "no address is left that may call, so no request is let through";
            self.warn(&place, message, "`deny_ips` goes before `allow_ips`");
        }
        sources
    }

    fn upstream_of(
        &mut self,
        at: &At<String>,
        path: &str,
        upstreams: &mut Upstreams,
    ) -> Option<UpstreamRef> {
        let (text, place) = self.required(at, path, "upstream")?;
        self.upstream_ref(text, &place, upstreams)
    }

    fn reject_status(&mut self, spec: Option<&At<RejectSpec>>) -> Option<StatusCode> {
        let (spec, place) = value(spec)?;
        let (status, place) = self.required(&spec.status, &place.path, "status")?;
        match *status {
            200..=299 => {
                let message = "senders will take this for success and not try again";
                self.warn(&place, message, "answer from 400 to 599");
            }
            400..=599 => {}
            _ => {
                self.error(
                    &place,
                    format!("{status} is not a status for a refusal"),
                    "write one from 400 to 599",
                );
                return None;
            }
        }
        StatusCode::from_u16(u16::try_from(*status).ok()?).ok()
    }

    /// Refuses checks that every request passes: a route may be open only where it says so.
    fn unproven(&mut self, spec: &RouteSpec, auth: &Auth, sources: &Sources) {
        if let Some(AuthPolicy::All(checks)) = &auth.policy
            && checks.iter().all(admits_everybody)
            && !sources.is_selective()
            && let Some(place) = spec.verify.place().cloned()
        {
            let message = "everybody can call this route: its provider proves nothing";
            let hint = "add a `token` or another check beside it, or `allow_ips`; a route that is to be open says \
                        `verify: none`";
            self.error(&place, message, hint);
        }
    }

    /// Warns of a route that nothing protects.
    fn open_door(&mut self, spec: &RouteSpec, auth: &Auth, sources: &Sources) {
        if let Some(AuthPolicy::Open) = auth.policy
            && !sources.is_selective()
            && let Some(place) = spec.verify.place().cloned()
        {
            let message = "nothing protects this route: everybody can call it";
            self.warn(&place, message, "add a check, or `allow_ips`");
        }
    }
}

/// Whether any request at all would pass it. A provider that at least asks whether the URL is ours gets a warning
/// instead.
fn admits_everybody(check: &Check) -> bool {
    let is_open = |check: &Check| match check {
        Check::Signature(check) => check.scheme.admits_everybody(),
        _ => false,
    };
    match check {
        Check::Signature(own) => is_open(check) && own.handshakes.is_empty(),
        Check::Any(choices) => choices.iter().any(is_open),
        Check::Basic(_) | Check::ClientCert(_) | Check::Token(_) => false,
    }
}

/// A route that only matches: conflicts are found also between routes that are wrong otherwise.
fn probe(matches: &RouteMatch) -> Route {
    Route {
        name: Arc::from(""),
        matches: matches.clone(),
        mode: Mode::Enforce,
        sources: Sources::default(),
        quotas: Box::default(),
        body: BodyPolicy {
            size_max: BODY_SIZE_MAX_DEFAULT,
            content_types: None,
            well_formed: false,
        },
        auth: AuthPolicy::Open,
        replay: None,
        upstream: UpstreamRef::Echo,
        forward: ForwardPolicy::default(),
        reject_status: None,
        answers: Arc::default(),
    }
}
