//! `upstreams`, and the upstreams that routes give as a URL.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Compiler, known_names, value};
use crate::config::certificate;
use crate::config::spec::{HealthSpec, Named, UpstreamSpec, UpstreamTlsSpec};
use crate::config::value::{is_server_url, path, server, server_name};
use crate::document::{At, FREE_KEYS, OneOrMany, Place};
use crate::route::UpstreamRef;
use crate::settings::{HealthCheck, ServerAddress, UpstreamSettings, UpstreamTls};

const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const HEALTH_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// Name of the upstream that answers with what it got.
const ECHO: &str = "echo";

/// Upstreams by name or URL, and which of them routes use.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    all: Vec<Upstream>,
    known: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Upstream {
    name: Arc<str>,
    /// `None` where it is wrong, which has been reported.
    settings: Option<UpstreamSettings>,
    /// Where it is named; `None` for one that a route gave as a URL.
    place: Option<Place>,
    is_used: bool,
}

impl Upstreams {
    fn add(&mut self, upstream: Upstream) {
        let name = Arc::clone(&upstream.name);
        self.known.insert(name, self.all.len());
        self.all.push(upstream);
    }

    /// The name of a known one, which is used from now on.
    fn take(&mut self, name: &str) -> Option<Arc<str>> {
        let upstream = self.all.get_mut(*self.known.get(name)?)?;
        upstream.is_used = true;
        Some(Arc::clone(&upstream.name))
    }

    /// All that are right.
    pub(super) fn into_settings(self) -> Vec<UpstreamSettings> {
        let all = self.all.into_iter();
        all.filter_map(|upstream| upstream.settings).collect()
    }
}

impl Compiler<'_, '_> {
    pub(super) fn upstreams(&mut self, spec: Option<&At<Named<UpstreamSpec>>>) -> Upstreams {
        let mut upstreams = Upstreams::default();
        let Some((Named(entries), _)) = value(spec) else {
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
            upstreams.add(Upstream {
                name: name.as_str().into(),
                settings: self.upstream(name, at),
                place: Some(place),
                is_used: false,
            });
        }
        upstreams
    }

    fn upstream(&mut self, name: &str, at: &At<UpstreamSpec>) -> Option<UpstreamSettings> {
        let (spec, place) = value(Some(at))?;
        let connect_timeout = self.positive_duration(spec.connect_timeout.as_ref());
        let timeout = self.positive_duration(spec.timeout.as_ref());
        let keepalive = value(spec.keepalive.as_ref()).is_none_or(|(keeps, _)| *keeps);
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
            keepalive,
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
                Ok(server) => {
                    self.server_in_doubt(text, &server, &place);
                    servers.push(server);
                }
                Err(message) => {
                    let hint = guess_url(text);
                    self.error(&place, message, hint.as_deref());
                }
            }
        }
        (servers.len() == items.len()).then_some(servers)
    }

    /// Refuses the gateway itself as an upstream, and warns of a socket whose place depends on the file's.
    fn server_in_doubt(&mut self, text: &str, server: &ServerAddress, place: &Place) {
        let (host, port) = match server {
            ServerAddress::Http { host, port } | ServerAddress::Https { host, port } => {
                (host, *port)
            }
            ServerAddress::Unix(path) => {
                if !text.trim_start_matches("unix:").starts_with('/') || is_short_of_a_slash(text) {
                    let message = format!(
                        "the path of the socket is not absolute: it is `{}`, from the configuration's folder on",
                        path.display()
                    );
                    self.warn(place, message, "such as `unix:/run/app.sock`");
                }
                return;
            }
        };
        let ip = match host.as_str() {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            host => host.parse::<IpAddr>().ok(),
        };
        let reaches = |own: &SocketAddr| {
            let (listens, ip) = (own.ip().to_canonical(), ip.map(|ip| ip.to_canonical()));
            let is_here = |ip: IpAddr| {
                // `[::]` takes IPv4 too, `0.0.0.0` no IPv6.
                let is_any = listens.is_unspecified() && (listens.is_ipv6() || ip.is_ipv4());
                listens == ip || (is_any && (ip.is_loopback() || ip.is_unspecified()))
            };
            own.port() == port && port != 0 && ip.is_some_and(is_here)
        };
        let own = self.own.iter().find(|(_, own)| reaches(own));
        if let Some((name, _)) = own {
            let message =
                format!("this is the address of the listener `{name}`: requests would go round");
            self.error(place, message, "write the address of your app");
        }
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
            let read = certificate::chain(self.resolver, file);
            tls.ca = self.trusted(read, file, &place);
            is_good &= tls.ca.is_some();
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
        let given = spec.client_cert.is_some() || spec.client_key.is_some();
        if given {
            tls.client = self.client_of_upstream(spec, place);
            is_good &= tls.client.is_some();
        }
        is_good.then_some(tls)
    }

    /// The certificate that an upstream is shown, and its key.
    fn client_of_upstream(
        &mut self,
        spec: &UpstreamTlsSpec,
        place: &Place,
    ) -> Option<(Vec<CertificateDer<'static>>, Arc<PrivateKeyDer<'static>>)> {
        let chain = match value(spec.client_cert.as_ref()) {
            Some((file, place)) => {
                let read = certificate::chain(self.resolver, file);
                self.trusted(read, file, &place)
            }
            None => None,
        };
        if spec.client_cert.is_none() {
            self.missing(&place.path, "client_cert", "it belongs to `client_key`");
        }
        if spec.client_key.is_none() {
            self.missing(&place.path, "client_key", "it belongs to `client_cert`");
        }
        let (key, key_place) = value(spec.client_key.as_ref())?;
        let key = self.key_of(chain.as_deref(), key, &key_place);
        chain.zip(key)
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
        if let Some(name) = upstreams.take(text) {
            return Some(UpstreamRef::Named(name));
        }
        if !is_server_url(text) {
            let named = upstreams.all.iter().filter(|own| own.place.is_some());
            let names = named.map(|own| &*own.name);
            let free = "keys that begin with `x-` are free, for anchors: no upstream is called so";
            let hint = Some(free.to_owned())
                .filter(|_| text.starts_with(FREE_KEYS))
                .or_else(|| guess_url(text))
                .or_else(|| known_names(text, names.chain([ECHO])));
            self.error(
                place,
                format!("there is no upstream `{text}`"),
                hint.as_deref(),
            );
            return None;
        }
        match server(text, self.base()) {
            Ok(server) => {
                self.server_in_doubt(text, &server, place);
                let name: Arc<str> = text.into();
                let settings = UpstreamSettings {
                    name: Arc::clone(&name),
                    servers: vec![server],
                    connect_timeout: CONNECT_TIMEOUT_DEFAULT,
                    timeout: TIMEOUT_DEFAULT,
                    keepalive: true,
                    health: None,
                    tls: UpstreamTls::default(),
                };
                upstreams.add(Upstream {
                    name: Arc::clone(&name),
                    settings: Some(settings),
                    place: None,
                    is_used: true,
                });
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
        for upstream in upstreams.all.iter().filter(|own| !own.is_used) {
            if let Some(place) = &upstream.place {
                self.warn(place, "no route uses this upstream", None);
            }
        }
    }
}

/// `unix://run/app.sock`: after the two slashes of a URL, the path has none of its own.
fn is_short_of_a_slash(text: &str) -> bool {
    let rest = text.strip_prefix("unix://");
    rest.is_some_and(|rest| !rest.starts_with('/'))
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
