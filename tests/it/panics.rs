//! A bug in one request spares the others: what panics is answered, recorded and counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hookward::config::Environment;
use hookward::gateway::Gateway as DataPath;
use hookward::gateway::connection::Connection;
use hookward::gateway::echo::Echo;
use hookward::gateway::forward::{Exchange, Upstream};
use hookward::gateway::outgoing::Outgoing;
use http::Request;
use http_body::{Body, Frame};

use super::support::{World, data_path, loaded};

const CONFIG: &str = "version: 1
listeners:
  http: { address: 127.0.0.1:0, plaintext: allow }
routes:
  - { name: open, match: { path: /open }, verify: none, upstream: echo }
";

/// An app that is called by a bug at first: one that panics, then one whose destructor does.
#[derive(Debug, Default)]
struct Faulty(AtomicUsize);

impl Upstream for Faulty {
    fn send(&self, request: Outgoing, timeout: Option<Duration>) -> Exchange<'_> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("as if by a bug"),
            1 => drop(PanicsWhenDropped),
            _ => {}
        }
        Echo.send(request, timeout)
    }

    fn patience(&self, timeout: Option<Duration>) -> Duration {
        Echo.patience(timeout)
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("as if by a bug");
    }
}

/// A body that panics the first time that it is read, or not at all.
struct FaultyBody {
    panics: bool,
}

impl Body for FaultyBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        assert!(
            !std::mem::take(&mut self.panics),
            "as if by a bug in a stage"
        );
        Poll::Ready(None)
    }
}

/// The status of one request.
async fn status(gateway: &DataPath, panics: bool) -> u16 {
    let connection = Connection::new(([192, 0, 2, 1], 1).into(), "http".into(), None);
    let request = Request::post("/open").header("host", "hooks.example.org");
    let request = request.body(FaultyBody { panics }).unwrap();
    let answer = gateway.handle(&connection, request).await;
    answer.status().as_u16()
}

#[tokio::test]
async fn a_panic_in_one_request_spares_the_others() {
    // SECURITY S-16
    let world = World {
        upstream: Arc::new(Faulty::default()),
        ..World::default()
    };
    let (gateway, _) = data_path(loaded(CONFIG, &Environment::empty()), world);
    let telemetry = gateway.telemetry();
    let requests = [
        ("the delivery", false, 500),
        ("a destructor", false, 500),
        ("a stage", true, 500),
        ("none", false, 200),
    ];
    for (what, panics, expected) in requests {
        assert_eq!(status(&gateway, panics).await, expected, "{what} panics");
        assert_eq!(gateway.in_flight(), 0, "{what}: its place is given back");
    }
    let log = telemetry.access.captured();
    let told = log.lines().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        (
            event["reason"].as_str() == Some("internal"),
            event["status"].as_u64(),
        )
    });
    let (good, bad) = ((false, Some(200)), (true, Some(500)));
    assert_eq!(told.collect::<Vec<_>>(), [bad, bad, bad, good]);
    let page = telemetry.metrics.render();
    let counted = |outcome: &str| {
        let rows = page.lines().filter(|row| {
            row.starts_with("hookward_requests_total{")
                && row.contains(outcome)
                && !row.ends_with(" 0")
        });
        rows.filter_map(|row| row.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum::<u64>()
    };
    assert_eq!(counted("reason=\"internal\""), 3, "{page}");
    assert_eq!(counted("outcome=\"forwarded\""), 1, "{page}");
    // What was under way can still be waited for.
    gateway.drain().await;
}
