//! A bug in one request spares the others: what panics is answered, recorded and counted.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hookward::clock::Clock;
use hookward::config::{Environment, load_text};
use hookward::gateway::Gateway as DataPath;
use hookward::gateway::connection::Connection;
use hookward::gateway::echo::Echo;
use hookward::gateway::forward::{Exchange, Frames, Upstream};
use hookward::gateway::snapshot::{CredentialFields, ListenerPolicy, RouteState, Snapshot};
use hookward::net::key_fetch::HttpsFetch;
use hookward::net::upstream::system_roots;
use hookward::settings::{Limits, Plaintext};
use hookward::store::ReplayStore;
use hookward::telemetry::Telemetry;
use hookward::telemetry::log::AccessLog;
use hookward::telemetry::metrics::Metrics;
use hookward::units::UnixTime;
use http::Request;
use http_body::{Body, Frame};

const CONFIG: &str = "version: 1
listeners:
  http: { address: 127.0.0.1:0, plaintext: allow }
routes:
  - { name: open, match: { path: /open }, verify: none, upstream: echo }
";

/// An app that is called by a bug first, and answers afterwards.
#[derive(Debug)]
struct Faulty(AtomicBool);

impl Upstream for Faulty {
    fn send(&self, request: Request<Frames>, timeout: Option<Duration>) -> Exchange<'_> {
        assert!(!self.0.swap(false, Ordering::SeqCst), "as if by a bug");
        Echo.send(request, timeout)
    }

    fn patience(&self, timeout: Option<Duration>) -> Duration {
        Echo.patience(timeout)
    }
}

/// A body that panics when it is read, when it is dropped, or not at all.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Read,
    Dropped,
}

struct FaultyBody(Fault);

impl Body for FaultyBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        assert!(self.0 != Fault::Read, "as if by a bug");
        Poll::Ready(None)
    }
}

impl Drop for FaultyBody {
    fn drop(&mut self) {
        assert!(self.0 != Fault::Dropped, "as if by a bug");
    }
}

fn gateway(upstream: Arc<dyn Upstream>, telemetry: &Telemetry) -> Arc<DataPath> {
    let env = Environment::from_pairs([("", "")]);
    let loaded = load_text("hookward.yaml", CONFIG, Path::new(""), &env);
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report));
    let states = config.routes.routes().iter().map(|route| RouteState {
        lease: Duration::from_secs(5),
        credentials: CredentialFields::of(&route.auth),
        route: Arc::clone(route),
        metrics: telemetry.metrics.route(&route.name, &route.auth.key_ids()),
        client_limits: Vec::new(),
        route_limits: Vec::new(),
        upstream: Arc::clone(&upstream),
    });
    let states = states.collect();
    let policy = ListenerPolicy {
        plaintext: Some(Plaintext::Allow),
        ..ListenerPolicy::default()
    };
    let listeners = HashMap::from([("http".into(), policy)]);
    let clock = Clock::manual(UnixTime::from_millis(1_767_225_600_000));
    let replay = ReplayStore::memory(clock.clone());
    let snapshot = Snapshot::new(config.routes, Limits::default(), replay, listeners, states);
    let fetch = Arc::new(HttpsFetch::new(system_roots));
    let gateway = DataPath::new(snapshot, telemetry.clone(), clock, fetch);
    Arc::new(gateway.unwrap())
}

/// The status of one request, as a connection's task has it; `None` when that task panicked.
async fn status(gateway: &Arc<DataPath>, fault: Fault) -> Option<u16> {
    let gateway = Arc::clone(gateway);
    let served = tokio::spawn(async move {
        let connection = Connection {
            peer: ([192, 0, 2, 1], 1).into(),
            listener: "http".into(),
            tls: None,
        };
        let request = Request::post("/open").header("host", "hooks.example.org");
        let request = request.body(FaultyBody(fault)).unwrap();
        let answer = gateway.handle(&connection, request).await;
        answer.status().as_u16()
    });
    served.await.ok()
}

#[tokio::test]
async fn a_panic_in_one_request_spares_the_others() {
    // SECURITY S-16
    let telemetry = Telemetry::new(Metrics::new("test"), AccessLog::capture());
    let upstream = Arc::new(Faulty(AtomicBool::new(true)));
    let gateway = gateway(upstream, &telemetry);
    let answers = [
        ("the app's side", Fault::None, Some(500)),
        ("the app's side, later", Fault::None, Some(200)),
        ("a stage", Fault::Read, Some(500)),
        ("a destructor", Fault::Dropped, None),
        ("afterwards", Fault::None, Some(200)),
    ];
    for (what, fault, expected) in answers {
        assert_eq!(status(&gateway, fault).await, expected, "{what}");
        assert_eq!(gateway.in_flight(), 0, "{what}: its place is given back");
    }
    // Each of them is recorded once: what a destructor does comes after its answer was made.
    let log = telemetry.access.captured();
    let events = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let events: Vec<serde_json::Value> = events.collect();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event["reason"].as_str(), event["status"].as_u64()))
        .collect();
    let (good, bad) = ((None, Some(200)), (Some("internal"), Some(500)));
    assert_eq!(told, [bad, good, bad, good, good]);
    // What was under way can still be waited for.
    gateway.drain().await;
}
