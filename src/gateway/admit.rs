//! Stage: sources, quotas, room and methods. What is refused here cost no body and no cryptography.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;

use super::body::Budget;
use super::quota::{Limiter, Refused};
use super::rejection::Rejection;
use super::select;
use crate::reason::Reason;
use crate::route::Route;
use crate::route::policy::Sources;
use crate::settings::ServerAddress;
use crate::telemetry::metrics::Metrics;

/// `allow_ips` and `deny_ips`.
pub fn source(sources: &Sources, client: IpAddr) -> Result<(), Rejection> {
    if sources.admit(client) {
        return Ok(());
    }
    Err(Rejection::new(
        Reason::SourceDenied,
        "this address may not call the route",
    ))
}

/// Takes one from each of `limits`.
pub async fn quota(limits: &[Arc<Limiter>], client: IpAddr) -> Result<(), Rejection> {
    for limit in limits {
        limit.check(client).await.map_err(|refused| match refused {
            Refused::Spent(wait) => {
                let detail = "the rate limit is used up";
                Rejection::new(Reason::RateLimited, detail).retry_after(wait)
            }
            Refused::Unavailable => {
                let detail = "the rates are kept in a store that is not available";
                Rejection::new(Reason::StateUnavailable, detail)
            }
        })?;
    }
    Ok(())
}

/// A method that is listed for handshakes only is not allowed for deliveries.
pub fn method(route: &Route, method: &Method) -> Result<(), Rejection> {
    if route.matches.methods.contains(method) {
        Ok(())
    } else {
        Err(select::method_not_allowed([route]))
    }
}

/// Counts requests that have a route and may use it, until the end of the app's answer, or until they are refused.
#[derive(Debug)]
pub struct InFlight {
    count: AtomicUsize,
    metrics: Arc<Metrics>,
}

/// What the requests for one upstream hold of the room that all upstreams share: an app that hangs must not take away what
/// requests for others need (SECURITY DS-14).
#[derive(Debug, Default)]
pub struct Load {
    requests: AtomicUsize,
    /// Their bodies.
    pub bodies: Arc<Budget>,
}

impl Load {
    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }
}

/// The loads of all servers, under whatever name they are asked for.
#[derive(Debug, Default)]
pub struct Loads(HashMap<ServerAddress, Arc<Load>>);

impl Loads {
    /// Those of a configuration with these upstreams: two that have a server in common have one load, and so have
    /// those that a third one joins. What is in flight still counts, where loads become one that of the busiest;
    /// servers that are gone are forgotten with their last request.
    pub fn group<'a>(&mut self, upstreams: impl Iterator<Item = &'a [ServerAddress]>) {
        let mut before = std::mem::take(&mut self.0);
        let mut taken = HashSet::new();
        for servers in groups(upstreams) {
            let known = servers.iter().filter_map(|server| before.remove(server));
            // A group that was one with another before leaves the load to it.
            let is_free = |load: &Arc<Load>| !taken.contains(&Arc::as_ptr(load));
            let busiest = known
                .filter(is_free)
                .max_by_key(|load| load.requests.load(Ordering::Relaxed));
            let load = busiest.unwrap_or_default();
            taken.insert(Arc::as_ptr(&load));
            let servers = servers.into_iter().cloned();
            self.0
                .extend(servers.map(|server| (server, Arc::clone(&load))));
        }
        before.retain(|_, load| !load.is_idle() && !taken.contains(&Arc::as_ptr(load)));
        self.0.extend(before);
    }

    /// That of an upstream with these servers.
    pub fn of(&self, servers: &[ServerAddress]) -> Arc<Load> {
        let known = servers.iter().find_map(|server| self.0.get(server));
        known.cloned().unwrap_or_default()
    }
}

/// The servers of upstreams that have one in common, directly or by way of others.
fn groups<'a>(
    upstreams: impl Iterator<Item = &'a [ServerAddress]>,
) -> impl Iterator<Item = Vec<&'a ServerAddress>> {
    let mut groups: Vec<Vec<&ServerAddress>> = Vec::new();
    let mut group_of: HashMap<&ServerAddress, usize> = HashMap::new();
    for servers in upstreams {
        let own = groups.len();
        let mut group = Vec::new();
        for server in servers {
            match group_of.insert(server, own) {
                None => group.push(server),
                // Whoever it was with comes along.
                Some(other) if other != own => {
                    let others = groups.get_mut(other).map(std::mem::take);
                    for other in others.into_iter().flatten() {
                        group_of.insert(other, own);
                        group.push(other);
                    }
                }
                Some(_) => {}
            }
        }
        groups.push(group);
    }
    groups.into_iter().filter(|group| !group.is_empty())
}

/// One request's place; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    of_all: Arc<InFlight>,
    of_upstream: Option<Arc<Load>>,
}

impl InFlight {
    /// None yet; counted in `hookward_requests_in_flight` too.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            count: AtomicUsize::new(0),
            metrics,
        }
    }

    /// Takes a place, unless `max` are taken, or as many as those for one upstream may have.
    pub fn admit(
        self: &Arc<Self>,
        max: usize,
        of_upstream: Option<&Arc<Load>>,
        max_of_upstream: usize,
    ) -> Result<Permit, Rejection> {
        let taken = self.count.fetch_add(1, Ordering::Relaxed);
        self.metrics.requests_in_flight.inc();
        let of_upstream = of_upstream.cloned();
        let taken_here = of_upstream
            .as_ref()
            .map_or(0, |load| load.requests.fetch_add(1, Ordering::Relaxed));
        let permit = Permit {
            of_all: Arc::clone(self),
            of_upstream,
        };
        let detail = if taken >= max {
            "`requests_in_flight` is used up"
        } else if taken_here >= max_of_upstream {
            "what one upstream may have of `requests_in_flight` is used up"
        } else {
            return Ok(permit);
        };
        Err(Rejection::new(Reason::Overloaded, detail))
    }

    /// How many places are taken.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of_all.count.fetch_sub(1, Ordering::Relaxed);
        self.of_all.metrics.requests_in_flight.dec();
        if let Some(load) = &self.of_upstream {
            load.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let in_flight = Arc::new(InFlight::new(Arc::new(Metrics::new("test"))));
        let load = Arc::new(Load::default());
        for (max, max_of_upstream) in [(1, 9), (9, 1)] {
            let admit = || in_flight.admit(max, Some(&load), max_of_upstream);
            let first = admit().unwrap();
            assert_eq!(admit().unwrap_err().reason, Reason::Overloaded);
            drop(first);
            assert!(admit().is_ok());
            assert!(in_flight.count() == 0 && load.is_idle());
        }
    }

    #[test]
    fn upstreams_with_a_server_in_common_have_one_load() {
        // SECURITY DS-14
        let server = |port| ServerAddress::Http {
            host: "app".to_owned(),
            port,
        };
        let (a, b, c) = ([server(1)], [server(2)], [server(3)]);
        let (ab, of_d) = ([server(1), server(2)], [server(4)]);
        let mut loads = Loads::default();
        // In whatever order they are written.
        for joined in [[&a[..], &b, &ab], [&ab, &a, &b], [&b, &ab, &a]] {
            loads = Loads::default();
            loads.group(joined.into_iter().chain([&c[..], &of_d]));
            assert!(Arc::ptr_eq(&loads.of(&a), &loads.of(&b)));
            assert!(Arc::ptr_eq(&loads.of(&a), &loads.of(&ab)));
            assert!(!Arc::ptr_eq(&loads.of(&a), &loads.of(&c)));
        }
        let in_flight = Arc::new(InFlight::new(Arc::new(Metrics::new("test"))));
        let busy = loads.of(&ab);
        let permit = in_flight.admit(9, Some(&busy), 9).unwrap();
        // Once nothing joins them, one of them keeps what is in flight.
        loads.group([&a[..], &b].into_iter());
        let both = [loads.of(&a), loads.of(&b)];
        let keeps = both.iter().filter(|load| Arc::ptr_eq(load, &busy));
        assert_eq!(keeps.count(), 1);
        // A server that is gone is forgotten when its last request is.
        loads.group([&of_d[..]].into_iter());
        let is_known = |loads: &Loads| {
            [&a, &b]
                .iter()
                .any(|one| Arc::ptr_eq(&loads.of(*one), &busy))
        };
        assert!(is_known(&loads));
        drop(permit);
        loads.group([&of_d[..]].into_iter());
        assert!(!is_known(&loads));
    }
}
