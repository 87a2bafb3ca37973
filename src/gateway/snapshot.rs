//! Everything a request reads: immutable, swapped whole by a reload.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::admit::Load;
use super::forward::Upstream;
use super::headers::Names;
use super::quota::Limiter;
use super::{replay, whole};
use crate::route::auth::{Check, TokenLocation};
use crate::route::matcher::RouteTable;
use crate::route::{Route, auth};
use crate::settings::{Limits, Plaintext, UpstreamMax};
use crate::store::ReplayStore;
use crate::telemetry::SharedSeldom;
use crate::telemetry::routes::RouteMetrics;

/// What the requests of one moment are judged by.
#[derive(Debug)]
pub struct Snapshot {
    /// Which route takes a request.
    pub routes: RouteTable,
    /// Sizes and times.
    pub limits: Limits,
    /// Where deliveries are claimed.
    pub replay: ReplayStore,
    /// So that an app that hangs takes nothing away from requests for another one.
    pub upstream_max: UpstreamMax,
    listeners: ByName<Arc<ListenerPolicy>>,
    states: ByName<Arc<RouteState>>,
}

/// By a name that the operator wrote. Requests only look up: none can make names collide.
type ByName<T> = HashMap<Arc<str>, T, foldhash::fast::RandomState>;

/// What a listener adds to the judgement.
#[derive(Debug, Default)]
pub struct ListenerPolicy {
    /// Where it listens, as the operator wrote it.
    pub address: Option<SocketAddr>,
    /// What plain HTTP gets; `None` on a TLS listener.
    pub plaintext: Option<Plaintext>,
    /// Scheme and authority that senders call, with a path prefix if there is one.
    pub public_origin: Option<Arc<str>>,
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each connection must come from one of them and begin with a PROXY header.
    pub proxy_protocol: bool,
}

impl ListenerPolicy {
    /// Whether an address is that of a proxy whose forwarding headers are believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// A route with what lives beside it.
#[derive(Debug)]
pub struct RouteState {
    /// What the operator asked for.
    pub route: Arc<Route>,
    /// Its name as `X-Hookward-Route` has it.
    pub name_value: Option<HeaderValue>,
    /// Its counters.
    pub metrics: Arc<RouteMetrics>,
    /// Rate limits by client address.
    pub client_limits: Vec<Arc<Limiter>>,
    /// Rate limits of the whole route.
    pub route_limits: Vec<Arc<Limiter>>,
    /// Where it forwards to.
    pub upstream: Arc<dyn Upstream>,
    /// What the requests for it hold; `None` where it answers by itself.
    pub load: Option<Arc<Load>>,
    /// Longest until the app's answer: how long a replay claim is leased. A shared store adds its own waits.
    pub lease: Duration,
    /// Largest body that is judged where its request is served.
    pub at_once_bytes: usize,
    /// What its deliveries are known by beside their names.
    pub delivery_mark: [u8; 32],
    /// The fields that its checks read.
    pub credentials: CredentialFields,
    /// When the log last said that the app broke off an answer.
    pub said_broken: SharedSeldom,
    /// Header fields that the operator removes or sets.
    pub replaced: Names,
    /// Those, and the credentials that the app is not to see.
    pub withheld: Names,
}

/// The fields that checks read: those with bare secrets, which the app need not see, and those of
/// signatures, which it may want to check again.
#[derive(Clone, Debug, Default)]
pub struct CredentialFields {
    /// Whether `Authorization` goes.
    pub authorization: bool,
    /// Header fields.
    pub headers: Vec<HeaderName>,
    /// Query fields, by decoded name.
    pub query: Vec<Arc<str>>,
    /// Header fields of signatures: `Connection` does not take them away (SECURITY RT-28).
    pub signed: Vec<HeaderName>,
}

impl CredentialFields {
    /// The fields that the checks of `policy` read.
    pub fn of(policy: &auth::AuthPolicy) -> Self {
        let mut fields = Self::default();
        for check in policy.checks() {
            match check {
                Check::Basic(_) => fields.authorization = true,
                Check::Token(token) => match &token.location {
                    TokenLocation::Bearer => fields.authorization = true,
                    TokenLocation::Header(name) => fields.headers.push(name.clone()),
                    TokenLocation::Query(name) => fields.query.push(Arc::clone(name)),
                    TokenLocation::Path(_) => {}
                },
                Check::Signature(check) => {
                    fields.headers.extend(check.scheme.secret_header_fields());
                    fields.query.extend(check.scheme.secret_query_fields());
                    fields.signed.extend(check.scheme.header_names());
                }
                Check::Any(_) | Check::ClientCert(_) => {}
            }
        }
        fields
    }

    /// The header fields with bare secrets.
    fn header_names(&self) -> impl Iterator<Item = HeaderName> {
        let authorization = self.authorization.then_some(header::AUTHORIZATION);
        authorization
            .into_iter()
            .chain(self.headers.iter().cloned())
    }
}

impl RouteState {
    /// A route without rate limits, whose upstream answers by itself.
    pub fn new(
        route: &Arc<Route>,
        metrics: Arc<RouteMetrics>,
        upstream: Arc<dyn Upstream>,
    ) -> Self {
        let credentials = CredentialFields::of(&route.auth);
        let forward = &route.forward;
        let set = forward.set_headers.iter().map(|(name, _)| name);
        let replaced = forward.remove_headers.iter().chain(set).cloned();
        let hidden = Some(&credentials).filter(|_| !forward.keep_credentials);
        let hidden = hidden.into_iter().flat_map(CredentialFields::header_names);
        Self {
            lease: lease(upstream.patience(forward.timeout)),
            withheld: replaced.clone().chain(hidden).collect(),
            replaced: replaced.collect(),
            credentials,
            at_once_bytes: if route.auth.is_dear() || route.body.well_formed {
                whole::AT_ONCE_BYTES_DEAR
            } else {
                whole::AT_ONCE_BYTES_MAX
            },
            delivery_mark: replay::mark(&route.name),
            said_broken: SharedSeldom::default(),
            name_value: HeaderValue::from_str(&route.name).ok(),
            route: Arc::clone(route),
            metrics,
            client_limits: Vec::new(),
            route_limits: Vec::new(),
            upstream,
            load: None,
        }
    }
}

/// Longest time that one delivery can take, with room for the answer to be settled.
fn lease(patience: Duration) -> Duration {
    patience + Duration::from_secs(5)
}

impl Snapshot {
    /// Joins what a reload built.
    pub fn new(
        routes: RouteTable,
        limits: Limits,
        replay: ReplayStore,
        listeners: HashMap<Arc<str>, ListenerPolicy>,
        states: Vec<RouteState>,
    ) -> Self {
        let mut loads = states.iter().filter_map(|state| state.load.as_ref());
        let first = loads.next();
        let has_others = first.is_some_and(|first| loads.any(|other| !Arc::ptr_eq(first, other)));
        let states = states
            .into_iter()
            .map(|state| (Arc::clone(&state.route.name), Arc::new(state)))
            .collect();
        Self {
            upstream_max: if has_others {
                limits.of_an_upstream()
            } else {
                UpstreamMax::ALL
            },
            routes,
            limits,
            replay,
            listeners: listeners
                .into_iter()
                .map(|(name, policy)| (name, Arc::new(policy)))
                .collect(),
            states,
        }
    }

    /// What lives beside a route of this snapshot.
    pub fn state(&self, route: &Route) -> Option<&Arc<RouteState>> {
        self.states.get(&route.name)
    }

    /// All routes with what lives beside them.
    pub fn states(&self) -> impl Iterator<Item = &Arc<RouteState>> {
        self.states.values()
    }

    /// The policy of a listener; `None` once a reload removed it. One with another name at the same `address`
    /// has taken its place.
    pub fn listener(
        &self,
        name: &str,
        address: Option<SocketAddr>,
    ) -> Option<&Arc<ListenerPolicy>> {
        let same_place = |own: &&Arc<ListenerPolicy>| address.is_some() && own.address == address;
        let named = self.listeners.get(name);
        named.or_else(|| self.listeners.values().find(same_place))
    }
}
