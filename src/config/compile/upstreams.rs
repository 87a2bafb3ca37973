//! `upstreams`, and the upstreams that routes give as a URL.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{Compiler, known_names, value};
use crate::config::certificate;
use crate::config::spec::{HealthSpec, UpstreamSpec, UpstreamTlsSpec};
use crate::config::value::{is_server_url, path, server, server_name};
use crate::document::{At, OneOrMany, Place};
use crate::route::UpstreamRef;
use crate::scheme::spec::Ordered;
use crate::settings::{HealthCheck, ServerAddress, UpstreamSettings, UpstreamTls};

const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const HEALTH_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// Name of the upstream that answers with what it got.
const ECHO: &str = "echo";

/// Upstreams by name or URL, and which of them routes use.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    /// `None` where a named one is wrong, which has been reported.
    settings: Vec<(Arc<str>, Option<UpstreamSettings>)>,
    known: HashMap<Arc<str>, usize>,
    places: Vec<Place>,
    used: BTreeSet<usize>,
}

impl Upstreams {
    fn add(&mut self, name: Arc<str>, settings: Option<UpstreamSettings>) -> usize {
        let index = self.settings.len();
        self.known.insert(Arc::clone(&name), index);
        self.settings.push((name, settings));
        index
    }

    /// All that are right.
    pub(super) fn into_settings(self) -> Vec<UpstreamSettings> {
        self.settings
            .into_iter()
            .filter_map(|(_, settings)| settings)
            .collect()
    }
}

impl Compiler<'_, '_> {
    pub(super) fn upstreams(&mut self, spec: Option<&At<Ordered<UpstreamSpec>>>) -> Upstreams {
        let mut upstreams = Upstreams::default();
        let Some((Ordered(entries), _)) = value(spec) else {
            return upstreams;
        };
        for (name, at) in entries {
            let place = self.key(at.place().map_or("", |place| &place.path));
            if name == ECHO || is_server_url(name) || !super::is_plain_name(name) {
                let hint = if name == ECHO {
                    "`echo` is built in; choose another"
                } else {
                    super::PLAIN_NAME
                };
                self.error(
                    &place,
                    format!("`{name}` is not a name for an upstream"),
                    hint,
                );
            }
            let settings = self.upstream(name, at);
            upstreams.add(name.as_str().into(), settings);
            upstreams.places.push(place);
        }
        upstreams
    }

    fn upstream(&mut self, name: &str, at: &At<UpstreamSpec>) -> Option<UpstreamSettings> {
        let (spec, place) = value(Some(at))?;
        let connect_timeout = self.positive_duration(spec.connect_timeout.as_ref());
        let timeout = self.positive_duration(spec.timeout.as_ref());
        let health = spec.health.as_ref().map(|at| self.health(at));
        let servers = self.servers(&spec.servers, &place.path);
        let is_https = |server: &ServerAddress| matches!(server, ServerAddress::Https { .. });
        let tls = match value(spec.tls.as_ref()) {
            None => Some(UpstreamTls::default()),
            Some((tls, tls_place)) => {
                if servers
                    .as_ref()
                    .is_some_and(|servers| !servers.iter().any(is_https))
                {
                    let key = self.key(&tls_place.path);
                    self.warn(&key, "no server is `https`: `tls` has no effect", None);
                }
                self.upstream_tls(tls, &tls_place)
            }
        };
        let health = match health {
            None => None,
            Some(health) => Some(health?),
        };
        Some(UpstreamSettings {
            name: name.into(),
            servers: servers?,
            connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT_DEFAULT),
            timeout: timeout.unwrap_or(TIMEOUT_DEFAULT),
            health,
            tls: tls?,
        })
    }

    fn servers(&mut self, at: &At<OneOrMany<String>>, parent: &str) -> Option<Vec<ServerAddress>> {
        let (OneOrMany(items), place) = self.required(at, parent, "servers")?;
        if items.is_empty() {
            self.error(
                &place,
                "there is no server",
                "such as `[http://127.0.0.1:3000]`",
            );
            return None;
        }
        let mut servers = Vec::new();
        for item in items {
            let Some((text, place)) = value(Some(item)) else {
                continue;
            };
            match server(text, self.base()) {
                Ok(server) if servers.contains(&server) => {
                    self.error(&place, format!("`{text}` stands here twice"), None);
                }
                Ok(server) => servers.push(server),
                Err(message) => {
                    let hint = guess_url(text);
                    self.error(&place, message, hint.as_deref());
                }
            }
        }
        (servers.len() == items.len()).then_some(servers)
    }

    fn health(&mut self, at: &At<HealthSpec>) -> Option<HealthCheck> {
        let (spec, place) = value(Some(at))?;
        let interval = self.positive_duration(spec.interval.as_ref());
        let (text, place) = self.required(&spec.path, &place.path, "path")?;
        if let Err(message) = path(text) {
            self.error(&place, message, None);
            return None;
        }
        Some(HealthCheck {
            path: text.clone(),
            interval: interval.unwrap_or(HEALTH_INTERVAL_DEFAULT),
        })
    }

    fn upstream_tls(&mut self, spec: &UpstreamTlsSpec, place: &Place) -> Option<UpstreamTls> {
        let mut is_good = true;
        let mut tls = UpstreamTls::default();
        if let Some((file, place)) = value(spec.ca.as_ref()) {
            match certificate::chain(self.resolver, file) {
                Ok(authorities) => tls.ca = Some(authorities),
                Err(trouble) => {
                    self.trouble(&place, trouble);
                    is_good = false;
                }
            }
        }
        if let Some((name, place)) = value(spec.server_name.as_ref()) {
            match server_name(name) {
                Ok(()) => tls.server_name = Some(name.clone()),
                Err(message) => {
                    self.error(&place, message, None);
                    is_good = false;
                }
            }
        }
        match (
            value(spec.client_cert.as_ref()),
            value(spec.client_key.as_ref()),
        ) {
            (None, None) => {}
            (Some((cert, cert_place)), Some((key, key_place))) => {
                let identity = match certificate::chain(self.resolver, cert) {
                    Ok(chain) => certificate::identity(self.resolver, &chain, key)
                        .map_err(|e| (e, key_place)),
                    Err(trouble) => Err((trouble, cert_place)),
                };
                match identity {
                    Ok(identity) => tls.client = Some((identity.chain, identity.key)),
                    Err((trouble, place)) => {
                        self.trouble(&place, trouble);
                        is_good = false;
                    }
                }
            }
            (Some(_), None) if spec.client_key.is_none() => {
                self.missing(&place.path, "client_key", "it belongs to `client_cert`");
            }
            (None, Some(_)) if spec.client_cert.is_none() => {
                self.missing(&place.path, "client_cert", "it belongs to `client_key`");
            }
            (Some(_), None) | (None, Some(_)) => is_good = false,
        }
        is_good.then_some(tls)
    }

    /// What a route's `upstream` stands for.
    pub(super) fn upstream_ref(
        &mut self,
        text: &str,
        place: &Place,
        upstreams: &mut Upstreams,
    ) -> Option<UpstreamRef> {
        if text == ECHO {
            return Some(UpstreamRef::Echo);
        }
        if let Some((name, index)) = upstreams.known.get_key_value(text) {
            upstreams.used.insert(*index);
            return Some(UpstreamRef::Named(Arc::clone(name)));
        }
        if !is_server_url(text) {
            let names = upstreams.places.len();
            let names = upstreams
                .settings
                .iter()
                .take(names)
                .map(|(name, _)| &**name);
            let hint = guess_url(text).or_else(|| known_names(text, names.chain([ECHO])));
            self.error(
                place,
                format!("there is no upstream `{text}`"),
                hint.as_deref(),
            );
            return None;
        }
        match server(text, self.base()) {
            Ok(server) => {
                let name: Arc<str> = text.into();
                let settings = UpstreamSettings {
                    name: Arc::clone(&name),
                    servers: vec![server],
                    connect_timeout: CONNECT_TIMEOUT_DEFAULT,
                    timeout: TIMEOUT_DEFAULT,
                    health: None,
                    tls: UpstreamTls::default(),
                };
                upstreams.add(Arc::clone(&name), Some(settings));
                Some(UpstreamRef::Named(name))
            }
            Err(message) => {
                self.error(place, message, None);
                None
            }
        }
    }

    /// Warns of named upstreams that no route uses.
    pub(super) fn unused_upstreams(&mut self, upstreams: &Upstreams) {
        for (index, place) in upstreams.places.iter().enumerate() {
            if !upstreams.used.contains(&index) {
                self.warn(place, "no route uses this upstream", None);
            }
        }
    }
}

/// A URL, for an address that was written without its scheme.
fn guess_url(text: &str) -> Option<String> {
    let url = if text.starts_with('/') {
        format!("unix:{text}")
    } else if text.contains(':') && !is_server_url(text) {
        format!("http://{text}")
    } else {
        return None;
    };
    server(&url, std::path::Path::new("/"))
        .is_ok()
        .then(|| format!("did you mean `{url}`?"))
}
