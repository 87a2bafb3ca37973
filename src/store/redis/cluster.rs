//! The nodes of a cluster: any of them tells where all the others are.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo};
use redis::{ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates, Value, cmd};
use tokio::time::timeout;

use super::link::CONNECT_TIME;

/// Longest time until a client is there: nodes may hang while it asks who is in the cluster, and again while it connects
/// to those.
pub(super) const CONNECT_TIME_MAX: Duration = CONNECT_TIME.saturating_mul(3);
/// How often a call is sent again: elsewhere when its connection was lost, and to the node that it is sent on to.
const RETRIES: u32 = 2;
/// Between two of them where no node was found, in milliseconds: one that is not there soon is not waited for.
const RETRY_PAUSES: (u64, u64) = (10, 50);
/// Nodes that are remembered: one that answers is enough.
const KNOWN_MAX: usize = 64;

/// Where a cluster is, as far as it is known.
pub(super) struct Cluster {
    /// The node of the URL, and how every node is spoken to.
    first: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    timeout: Duration,
    /// The nodes when one was last asked: the first may be the one that is away.
    known: Mutex<Vec<ConnectionInfo>>,
}

impl Cluster {
    pub(super) fn new(
        first: ConnectionInfo,
        certificates: Option<TlsCertificates>,
        timeout: Duration,
    ) -> RedisResult<Self> {
        let cluster = Self {
            first,
            certificates,
            timeout,
            known: Mutex::default(),
        };
        cluster.client()?;
        Ok(cluster)
    }

    pub(super) async fn connect(&self) -> RedisResult<ClusterConnection> {
        self.client()?.get_async_connection().await
    }

    fn client(&self) -> RedisResult<ClusterClient> {
        let mut nodes = vec![self.first.clone()];
        nodes.extend_from_slice(&self.known.lock().unwrap_or_else(PoisonError::into_inner));
        let mut builder = ClusterClientBuilder::new(nodes)
            .connection_timeout(CONNECT_TIME)
            .response_timeout(self.timeout)
            .retries(RETRIES)
            .min_retry_wait(RETRY_PAUSES.0)
            .max_retry_wait(RETRY_PAUSES.1);
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        builder.build()
    }

    /// Asks a node who the others are.
    pub(super) async fn learn(&self, connection: &mut ClusterConnection) -> RedisResult<()> {
        let mut asked = cmd("CLUSTER");
        let slots: Vec<Vec<Value>> = asked.arg("SLOTS").query_async(connection).await?;
        let nodes = nodes(&slots).into_iter().take(KNOWN_MAX);
        let nodes = nodes.map(|(host, port)| self.node(host, port)).collect();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
        Ok(())
    }

    /// Another node, spoken to as the first one is.
    fn node(&self, host: &str, port: u16) -> ConnectionInfo {
        let host = host.to_owned();
        let address = match self.first.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.first.clone().set_addr(address)
    }
}

/// Whether any node answers through this client.
pub(super) async fn answers(connection: &mut ClusterConnection, deadline: Duration) -> bool {
    let any = Some(ResponsePolicy::OneSucceeded);
    let to_all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllNodes, any));
    let asked = timeout(deadline, connection.route_command(cmd("PING"), to_all)).await;
    asked.is_ok_and(|answer| answer.is_ok())
}

/// Hosts and ports in an answer to `CLUSTER SLOTS`: ranges, each with its first and last slot and its nodes. Those that do not
/// know their own host are left out.
fn nodes(slots: &[Vec<Value>]) -> HashSet<(&str, u16)> {
    let nodes = slots.iter().flat_map(|range| range.iter().skip(2));
    nodes.filter_map(node).collect()
}

fn node(value: &Value) -> Option<(&str, u16)> {
    let Value::Array(fields) = value else {
        return None;
    };
    let [Value::BulkString(host), Value::Int(port), ..] = fields.as_slice() else {
        return None;
    };
    let host = std::str::from_utf8(host).ok()?;
    let is_known = !matches!(host, "" | "?");
    Some((host, u16::try_from(*port).ok()?)).filter(|_| is_known)
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo;

    use super::*;

    #[test]
    fn every_node_is_known_once_and_spoken_to_as_the_first_one_is() {
        let node = |host: &str, port: i64| {
            let host = Value::BulkString(host.into());
            Value::Array(vec![host, Value::Int(port), Value::BulkString("id".into())])
        };
        let range =
            |from, to, nodes: &[Value]| [&[Value::Int(from), Value::Int(to)], nodes].concat();
        let slots = [
            range(0, 99, &[node("10.0.0.1", 7000), node("10.0.0.2", 7000)]),
            range(100, 199, &[node("10.0.0.1", 7000), node("", 7001)]),
            range(
                200,
                299,
                &[node("?", 7002), node("10.0.0.3", 1 << 20), Value::Nil],
            ),
        ];
        let mut found: Vec<_> = nodes(&slots).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found, [("10.0.0.1", 7000), ("10.0.0.2", 7000)]);
        for (url, address) in [
            ("redis://user:word@first:6379", "10.0.0.1:7000"),
            ("rediss://user:word@first:6379", "10.0.0.1:7000"),
        ] {
            let first = url.into_connection_info().unwrap();
            let cluster = Cluster::new(first, None, Duration::from_secs(1)).unwrap();
            let other = cluster.node("10.0.0.1", 7000);
            assert_eq!(other.addr().to_string(), address);
            assert_eq!(other.redis_settings().username(), Some("user"));
            assert_eq!(other.redis_settings().password(), Some("word"));
            *cluster.known.lock().unwrap() = vec![other];
            // One that is spoken to in another way would not be taken.
            cluster.client().unwrap();
        }
    }
}
