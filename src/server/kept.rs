//! What a reload keeps where its settings did not change, and the snapshot that is made of it.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::gateway::admit::Loads;
use crate::gateway::echo::Echo;
use crate::gateway::forward::Upstream;
use crate::gateway::quota::Limiters;
use crate::gateway::snapshot::{ListenerPolicy, RouteState, Snapshot};
use crate::net::upstream::Cluster;
use crate::route::matcher::RouteTable;
use crate::route::policy::QuotaKey;
use crate::route::{Route, UpstreamRef};
use crate::settings::{Limits, StateSettings, UpstreamSettings};
use crate::store::ReplayStore;
use crate::store::memory::MemoryStore;
use crate::store::redis::{RedisStore, Unsettled};
use crate::tasks::keep;
use crate::telemetry::Telemetry;

/// What a reload keeps where its settings did not change.
pub(super) struct Kept {
    pub(super) clusters: Clusters,
    loads: Loads,
    pub(super) limiters: Limiters,
    /// Claims of this process; those of `store: memory` outlive a reload.
    memory: MemoryStore,
    /// The store in use, and its settings.
    state: Option<(StateSettings, ReplayStore)>,
    /// Commits that shared stores do not know of yet.
    pub(super) unsettled: Unsettled,
    pub(super) telemetry: Telemetry,
}

/// Upstreams by name, each with the token that ends its health checks.
pub(super) type Clusters = HashMap<Arc<str>, (Arc<Cluster>, CancellationToken)>;

impl Kept {
    pub(super) fn new(telemetry: &Telemetry, clock: &Clock, limits: &Limits) -> Self {
        Self {
            clusters: Clusters::new(),
            loads: Loads::default(),
            limiters: Limiters::new(clock.clone(), limits.clients),
            memory: MemoryStore::new(clock.clone(), limits.deliveries),
            state: None,
            unsettled: Unsettled::default(),
            telemetry: telemetry.clone(),
        }
    }

    /// Builds the upstreams, keeping those whose settings did not change; changes nothing that runs.
    pub(super) fn next_clusters(
        &self,
        upstreams: Vec<UpstreamSettings>,
    ) -> anyhow::Result<Clusters> {
        let mut next = Clusters::new();
        for settings in upstreams {
            let name = Arc::clone(&settings.name);
            let entry = match self.clusters.get(&name) {
                Some((cluster, closed)) if *cluster.settings() == settings => {
                    (Arc::clone(cluster), closed.clone())
                }
                before => {
                    let before = before.map(|(cluster, _)| &**cluster);
                    let cluster = Cluster::new(settings, before);
                    let cluster = cluster.with_context(|| format!("upstream `{name}`"))?;
                    (Arc::new(cluster), CancellationToken::new())
                }
            };
            next.insert(name, entry);
        }
        Ok(next)
    }

    /// Begins the health checks of new upstreams and ends those of upstreams that are gone.
    pub(super) fn keep_clusters(&mut self, next: Clusters) {
        let before = std::mem::replace(&mut self.clusters, next);
        let is_in = |clusters: &Clusters, name: &Arc<str>, cluster: &Arc<Cluster>| {
            clusters
                .get(name)
                .is_some_and(|(other, _)| Arc::ptr_eq(other, cluster))
        };
        for (name, (cluster, closed)) in &before {
            if !is_in(&self.clusters, name, cluster) {
                closed.cancel();
                // Before the next one is shown, for the two may share what they know.
                cluster.hide();
                self.forget_servers(name, cluster);
            }
        }
        for (name, (cluster, closed)) in &self.clusters {
            if !is_in(&before, name, cluster) {
                let (cluster, closed) = (Arc::clone(cluster), closed.clone());
                let metrics = Arc::clone(&self.telemetry.metrics);
                cluster.show_on(&metrics);
                tokio::spawn(async move {
                    let begin = || Arc::clone(&cluster).watch(closed.clone());
                    keep("health", &metrics.task_restarts, begin).await;
                });
            }
        }
    }

    /// Takes the servers of a cluster off the metrics page, but for those that the present one of that name has too.
    fn forget_servers(&self, name: &Arc<str>, cluster: &Cluster) {
        let present = self.clusters.get(name);
        let present = present.map(|(cluster, _)| &*cluster.settings().servers);
        for server in &cluster.settings().servers {
            if !present.unwrap_or_default().contains(server) {
                let metrics = &self.telemetry.metrics;
                metrics.forget_upstream_server(name, &server.to_string());
            }
        }
    }

    /// The store that `settings` ask for: the one in use where they did not change.
    pub(super) fn next_store(&self, settings: &StateSettings) -> anyhow::Result<ReplayStore> {
        if let Some((before, store)) = &self.state
            && before == settings
        {
            return Ok(store.clone());
        }
        match settings {
            StateSettings::Memory => Ok(ReplayStore::Memory(self.memory.clone())),
            StateSettings::Redis(settings) => {
                let metrics = Arc::clone(&self.telemetry.metrics);
                let opened = RedisStore::open(settings, &self.memory, metrics, &self.unsettled);
                opened.map(ReplayStore::Redis).context("state.redis")
            }
        }
    }

    pub(super) fn keep_store(&mut self, settings: StateSettings, store: ReplayStore) {
        let before = self.state.as_ref().and_then(|(_, before)| before.shared());
        if let Some(before) = before
            && store.shared().map(RedisStore::id) != Some(before.id())
        {
            before.retire(store.shared());
        }
        if settings == StateSettings::Memory {
            let state = &self.telemetry.metrics.state;
            state.available.set(1);
            state.since.set(0);
        }
        self.state = Some((settings, store));
    }

    pub(super) fn snapshot(
        &mut self,
        routes: RouteTable,
        limits: Limits,
        listeners: HashMap<Arc<str>, ListenerPolicy>,
        clusters: &Clusters,
        store: &ReplayStore,
    ) -> anyhow::Result<Snapshot> {
        let upstreams = clusters.values();
        let servers = upstreams.map(|(cluster, _)| &*cluster.settings().servers);
        self.loads.group(servers);
        let states = routes
            .routes()
            .iter()
            .map(|route| self.state(route, clusters, store))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Snapshot::new(
            routes,
            limits,
            store.clone(),
            listeners,
            states,
        ))
    }

    fn state(
        &mut self,
        route: &Arc<Route>,
        clusters: &Clusters,
        store: &ReplayStore,
    ) -> anyhow::Result<RouteState> {
        let metrics = self
            .telemetry
            .metrics
            .route(&route.name, &route.auth.key_ids());
        let mut client_limits = Vec::new();
        let mut route_limits = Vec::new();
        // What one limit refuses is charged to those before it: to none that takes longer to forget it.
        let mut quotas: Vec<_> = route.quotas.iter().collect();
        quotas.sort_by_key(|quota| quota.period());
        for quota in quotas {
            let limiter = self.limiters.get(&route.name, quota, store.shared());
            match quota.key {
                QuotaKey::ClientIp => client_limits.push(limiter),
                QuotaKey::Route => route_limits.push(limiter),
            }
        }
        let mut load = None;
        let upstream: Arc<dyn Upstream> = match &route.upstream {
            UpstreamRef::Echo => Arc::new(Echo),
            UpstreamRef::Named(name) => {
                let (cluster, _) = clusters.get(name).with_context(|| {
                    format!("route `{}` names no upstream `{name}`", route.name)
                })?;
                load = Some(self.loads.of(&cluster.settings().servers));
                Arc::<Cluster>::clone(cluster)
            }
        };
        Ok(RouteState {
            client_limits,
            route_limits,
            load,
            ..RouteState::new(route, metrics, upstream)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use http::HeaderValue;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::gateway::outgoing::Outgoing;
    use crate::settings::{ServerAddress, UpstreamTls};
    use crate::telemetry::log::AccessLog;
    use crate::telemetry::metrics::Metrics;

    /// A server that answers each connection once, and how many it had.
    async fn serve(answer: &'static [u8]) -> (ServerAddress, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ServerAddress::Http {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                // Unread bytes would reset the connection when it is dropped.
                stream
                    .read_buf(&mut Vec::with_capacity(1024))
                    .await
                    .unwrap();
                stream.write_all(answer).await.unwrap();
            }
        });
        (address, count)
    }

    #[tokio::test]
    async fn a_server_that_failed_is_asked_last_after_a_reload_too() {
        let (bad, asked) = serve(b"no HTTP\r\n\r\n").await;
        let (good, _) = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let mut settings = UpstreamSettings {
            name: "app".into(),
            servers: vec![bad, good],
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            keepalive: true,
            health: None,
            tls: UpstreamTls::default(),
        };
        let telemetry = Telemetry::new(Metrics::new("0.0.0"), AccessLog::capture());
        let mut kept = Kept::new(&telemetry, &Clock::system(), &Limits::default());
        let host = HeaderValue::from_static("app");
        for _ in 0..2 {
            let next = kept.next_clusters(vec![settings.clone()]).unwrap();
            kept.keep_clusters(next);
            let (cluster, _) = &kept.clusters["app"];
            for _ in 0..4 {
                let request = Outgoing::probe(&host, "/".parse().unwrap());
                drop(cluster.send(request, None).await);
            }
            assert_eq!(asked.load(Ordering::Relaxed), 1);
            settings.timeout *= 2;
        }
        let shown = || {
            let page = telemetry.metrics.render();
            let lines = page.lines().filter(|line| line.contains("server_up{"));
            lines
                .map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
                .collect::<Vec<_>>()
                .concat()
        };
        assert!(matches!(&*shown(), "01" | "10"));
        settings.servers.remove(0);
        let next = kept.next_clusters(vec![settings]).unwrap();
        kept.keep_clusters(next);
        assert_eq!(shown(), "1");
        let next = kept.next_clusters(Vec::new()).unwrap();
        kept.keep_clusters(next);
        assert_eq!(shown(), "");
    }
}
