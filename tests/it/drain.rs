//! How it stops: requests under way finish, new ones are not taken, and it ends in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hookward::config::Environment;
use hookward::gateway::Gateway as DataPath;
use hookward::gateway::connection::Connection;
use hookward::net::http::{Serving, Shutdown, serve_http1};
use hookward::settings::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::support::redis::free_port;
use super::support::{
    App, Gateway, H2, RawH2, Reply, StreamEnd, Tls, Wire, World, config, config_with, data_path,
    eventually, loaded, open_route,
};

fn late() -> Reply {
    Reply::AfterGate(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_vec())
}

#[test]
fn sigterm_finishes_what_is_under_way_and_exits_0() {
    // SECURITY S-08
    for signal in ["TERM", "INT", "QUIT"] {
        let app = App::start();
        let mut gateway = Gateway::start(&config(&open_route(&app)));
        app.script([late(), late()]);
        let (mut http1, mut idle) = (gateway.tls(), gateway.tls());
        assert_eq!(idle.exchange("POST", "/nowhere", &[], b"").status, 404);
        http1.write("POST", "/open", &[], b"x");
        let mut http2 = RawH2::open(gateway.address("https"));
        http2.post(1, b"/open", &[], b"x");
        app.wait_for(2);
        // What other servers take for "open your logs anew" ends nothing.
        gateway.signal("USR1");
        gateway.signal("USR2");
        assert_eq!(gateway.admin("/readyz").status, 200);
        gateway.signal(signal);
        eventually("no new connection is taken", || {
            (!gateway.accepts("https") && !gateway.accepts("http")).then_some(())
        });
        let ready = gateway.admin("/readyz");
        assert_eq!((ready.status, gateway.admin("/livez").status), (503, 200));
        assert!(idle.is_closed(), "an idle connection holds up the stop");
        app.open_gate();
        let answer = http1.answer().unwrap();
        assert_eq!(
            (
                answer.status,
                answer.text().as_str(),
                answer.header("connection")
            ),
            (200, "late", Some("close"))
        );
        assert!(http1.is_closed());
        assert_eq!(http2.end_of_after_goaway(1), StreamEnd::Status(200));
        drop(http2);
        assert_eq!(gateway.wait(), 0, "{}", gateway.stderr());
        // Every event is written before the end.
        for status in [404, 200, 200] {
            assert_eq!(gateway.event()["status"], status);
        }
    }
}

/// Delivers until told to stop, on a connection that is kept as long as the gateway lets it, or on
/// fresh ones. Every delivery must be answered 200 at its first attempt.
fn send_until(done: &AtomicBool, address: SocketAddr, keeps: bool) -> usize {
    let mut sent = 0;
    let mut kept: Option<Wire> = None;
    while !done.load(Ordering::Relaxed) {
        let mut wire = kept
            .take()
            .unwrap_or_else(|| Tls::default().connect(address).unwrap());
        let answer = wire.exchange("POST", "/open", &[], b"x");
        assert_eq!(answer.status, 200);
        sent += 1;
        if keeps && answer.header("connection") != Some("close") {
            kept = Some(wire);
        }
    }
    sent
}

/// As [`send_until`], over HTTP/2: a GOAWAY says what was not served, and nothing else may be.
fn send_http2_until(done: &AtomicBool, address: SocketAddr) -> usize {
    let mut sent = 0;
    let mut client = H2::connect(address);
    while !done.load(Ordering::Relaxed) {
        if let Some(answer) = client.post_unless_gone("/open", b"x") {
            assert_eq!(answer.status, 200);
            sent += 1;
        } else {
            client = H2::connect(address);
        }
    }
    sent
}

#[test]
fn a_rolling_restart_of_two_processes_fails_no_request() {
    // SECURITY S-08
    let app = App::start();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let fixed = config(&open_route(&app)).replacen("127.0.0.1:0\n", &format!("{address}\n"), 1);
    let done = &AtomicBool::new(false);
    let mut old = Gateway::start(&fixed);
    thread::scope(|scope| {
        let http1 = [true, true, false, false];
        let http1 = http1.map(|keeps| scope.spawn(move || send_until(done, address, keeps)));
        let http2 = [(); 2].map(|()| scope.spawn(move || send_http2_until(done, address)));
        for _ in 0..3 {
            let new = Gateway::start(&fixed);
            assert_eq!(new.address("https"), address);
            let served = app.count();
            old.signal("TERM");
            assert_eq!(old.wait(), 0);
            old = new;
            eventually("the new one serves", || {
                (app.count() > served + 20).then_some(())
            });
        }
        done.store(true, Ordering::Relaxed);
        let senders = http1.into_iter().chain(http2);
        let sent: usize = senders.map(|sender| sender.join().unwrap()).sum();
        assert_eq!(app.count(), sent);
    });
}

#[test]
fn kept_connections_are_told_to_move_while_it_waits() {
    // SECURITY S-08
    let app = App::start();
    let mut gateway = Gateway::start(&config_with(
        "limits: { drain_delay: 10m }",
        &open_route(&app),
    ));
    let mut wires = [gateway.tls(), gateway.plain()];
    for wire in &mut wires {
        let answer = wire.exchange("POST", "/open", &[], b"x");
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    gateway.signal("TERM");
    eventually("readiness fails", || {
        (gateway.admin("/readyz").status == 503).then_some(())
    });
    for mut wire in wires {
        let answer = wire.exchange("POST", "/open", &[], b"x");
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("close"))
        );
        assert!(wire.is_closed());
    }
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
}

impl RawH2 {
    /// As [`RawH2::end_of`], past the GOAWAY that says that the connection is about to end.
    fn end_of_after_goaway(&mut self, stream: u32) -> StreamEnd {
        loop {
            match self.end_of(stream) {
                StreamEnd::GoAway(0) => {}
                end => return end,
            }
        }
    }
}

#[test]
fn readiness_fails_before_the_listeners_close() {
    // SECURITY S-08
    let app = App::start();
    let mut gateway = Gateway::start(&config_with(
        "limits: { drain_delay: 10m }",
        &open_route(&app),
    ));
    gateway.signal("TERM");
    eventually("readiness fails", || {
        (gateway.admin("/readyz").status == 503).then_some(())
    });
    gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
    gateway.forwarded(&gateway.plain().exchange("POST", "/open", &[], b"x"), 200);
    assert_eq!(app.count(), 2);
    // A second signal ends the delay as it ends what follows.
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn the_delay_ends_by_itself() {
    // SECURITY S-08
    let mut gateway = Gateway::start(&config_with("limits: { drain_delay: 1s }", "  []\n"));
    let start = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn the_deadline_ends_what_does_not_finish() {
    // SECURITY S-09, H2-20
    let app = App::start();
    let mut gateway = Gateway::start(&config_with(
        "limits: { drain_timeout: 700ms, body_timeout: 60s }",
        &open_route(&app),
    ));
    app.script([Reply::Silence]);
    let mut unanswered = gateway.tls();
    unanswered.write("POST", "/open", &[], b"x");
    app.wait_for(1);
    let mut half = gateway.plain();
    half.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nx");
    let mut head = gateway.plain();
    head.send(b"POST /open HTT");
    let silent_h2 = RawH2::open(gateway.address("https"));
    gateway.wait_for_metric("hookward_requests_in_flight", 2);
    let start = Instant::now();
    gateway.signal("TERM");
    // What is still waited for is refused when the time is up, not broken off without a word.
    let answer = half.answer().unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (503, Some("close"))
    );
    assert!(answer.header("retry-after").is_some());
    assert_eq!(unanswered.answer().unwrap().status, 504);
    let mut reasons = [(); 2].map(|()| gateway.event()["reason"].as_str().map(str::to_owned));
    reasons.sort();
    let expected = ["draining", "upstream_timeout"];
    assert_eq!(reasons, expected.map(|reason| Some(reason.to_owned())));
    assert_eq!(gateway.wait(), 0);
    let waited = start.elapsed().as_millis();
    assert!((600..5000).contains(&waited), "{waited} ms");
    drop((silent_h2, head));
    assert_eq!(app.count(), 1);
}

#[test]
fn a_second_signal_ends_now() {
    // SECURITY S-10
    let app = App::start();
    let mut gateway = Gateway::start(&config(&open_route(&app)));
    app.script([Reply::Silence]);
    let mut wire = gateway.tls();
    wire.write("POST", "/open", &[], b"x");
    app.wait_for(1);
    let start = Instant::now();
    gateway.signal("TERM");
    eventually("the drain begins", || {
        (!gateway.accepts("https")).then_some(())
    });
    assert!(gateway.is_running());
    gateway.signal("TERM");
    gateway.wait();
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn a_delivery_without_its_sender_is_waited_for() {
    // SECURITY U-20
    let app = App::start();
    let mut gateway = Gateway::start(&config(&open_route(&app)));
    app.script([late()]);
    let mut wire = gateway.plain();
    wire.write("POST", "/open", &[], b"x");
    app.wait_for(1);
    drop(wire);
    gateway.signal("TERM");
    eventually("the drain begins", || {
        (!gateway.accepts("https")).then_some(())
    });
    assert!(gateway.is_running());
    app.open_gate();
    assert_eq!(gateway.wait(), 0);
    assert_eq!(gateway.event()["upstream_status"], 200);
}

#[test]
fn other_signals_do_not_stop_it() {
    // SECURITY S-10
    let app = App::start();
    let mut gateway = Gateway::start(&config(&open_route(&app)));
    gateway.signal("PIPE");
    gateway.reload_by("success", || gateway.signal("HUP"));
    assert!(gateway.is_running());
    gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
}

#[test]
fn pipelined_and_new_requests_during_a_drain_are_answered_or_closed() {
    let app = App::start();
    let mut gateway = Gateway::start(&config(&open_route(&app)));
    app.script([late()]);
    let mut wire = gateway.plain();
    wire.write("POST", "/open", &[], b"1");
    app.wait_for(1);
    gateway.signal("TERM");
    eventually("the drain begins", || {
        (!gateway.accepts("https")).then_some(())
    });
    thread::scope(|scope| {
        scope.spawn(|| app.open_gate());
        wire.write("POST", "/open", &[], b"2");
        assert_eq!(wire.answer().unwrap().status, 200);
        assert!(
            wire.answer()
                .is_none_or(|answer| matches!(answer.status, 200 | 503))
        );
    });
    assert_eq!(gateway.wait(), 0);
}

const HEAD: &[u8] = b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n";

/// The status of the next answer; 0 where the connection ends instead.
async fn status(client: &mut DuplexStream) -> u16 {
    let mut answer = Vec::new();
    // The echo's answer ends with its JSON.
    while !answer.trim_ascii_end().ends_with(b"}") {
        if client.read_buf(&mut answer).await.unwrap() == 0 {
            return 0;
        }
    }
    let text = String::from_utf8(answer).unwrap();
    text[9..12].parse().unwrap()
}

/// A connection to a gateway in this process, how it is told to end, and when it has.
fn open(gateway: &Arc<DataPath>) -> (DuplexStream, Shutdown, JoinHandle<()>) {
    let (client, server) = duplex(64 * 1024);
    let shutdown = Shutdown::default();
    let serving = Serving {
        connection: Connection::new(([192, 0, 2, 1], 1).into(), "http".into(), None),
        gateway: Arc::clone(gateway),
        challenges: None,
    };
    let limits = Limits::default();
    let served = serve_http1(server, serving, &limits, shutdown.clone(), None);
    (client, shutdown, tokio::spawn(served))
}

#[tokio::test(start_paused = true)]
async fn what_has_come_when_a_connection_is_to_end_is_answered() {
    // SECURITY S-08: hyper ends a connection between two requests without a look at what has come
    let route = "  - { name: open, match: { path: /open }, verify: none, upstream: echo }\n";
    let config = loaded(&config(route), &Environment::empty());
    let gateway = Arc::new(data_path(config, World::default()).0);
    // How long the connection waits between its requests: it speaks, or it rests; and how much of the next one is there.
    for (pause, there) in [
        (1, HEAD.len()),
        (1, 20),
        (3000, HEAD.len()),
        (3000, 20),
        (3000, 0),
    ] {
        let (mut client, shutdown, served) = open(&gateway);
        // Connections that were just opened have time.
        tokio::time::sleep(Duration::from_secs(3)).await;
        client.write_all(HEAD).await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(status(&mut client).await, 200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let (now, later) = HEAD.split_at(there);
        client.write_all(now).await.unwrap();
        shutdown.announced.cancel();
        shutdown.begun.cancel();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let rest = [later, b"x"].concat();
        // Nobody waits for a request of which nothing has come.
        let expected = if there == 0 { 0 } else { 200 };
        client.write_all(&rest).await.unwrap();
        assert_eq!(
            status(&mut client).await,
            expected,
            "{pause} ms, {there} bytes"
        );
        assert_eq!(status(&mut client).await, 0, "it ends after that");
        served.await.unwrap();
    }
    assert_eq!(gateway.telemetry().access.captured().lines().count(), 9);
    // The first request of a connection is waited for like any other, once it has begun.
    let (mut client, shutdown, served) = open(&gateway);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (now, later) = HEAD.split_at(20);
    client.write_all(now).await.unwrap();
    shutdown.begun.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.write_all(&[later, b"x"].concat()).await.unwrap();
    assert_eq!(status(&mut client).await, 200);
    served.await.unwrap();
    // The end of a line is no beginning of a request (RFC 9112 2.2), and holds nothing up.
    for (pause, stray) in [(1, &b"x\r\n"[..]), (3000, b"x\r\n"), (3000, b"x")] {
        let (mut client, shutdown, served) = open(&gateway);
        tokio::time::sleep(Duration::from_secs(3)).await;
        client.write_all(HEAD).await.unwrap();
        client.write_all(stray).await.unwrap();
        assert_eq!(status(&mut client).await, 200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        client.write_all(b"\r\n").await.unwrap();
        let start = tokio::time::Instant::now();
        shutdown.begun.cancel();
        assert_eq!(status(&mut client).await, 0);
        assert!(start.elapsed() < Duration::from_secs(1), "{pause} ms");
        drop(client);
        served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_to_the_app_once_nobody_waits_for_it() {
    // SECURITY S-09
    let route = "  - { name: open, match: { path: /open }, verify: none, upstream: echo }\n";
    let config = loaded(&config(route), &Environment::empty());
    let gateway = Arc::new(data_path(config, World::default()).0);
    let (mut client, ..) = open(&gateway);
    gateway.cut_off();
    client.write_all(&[HEAD, b"x"].concat()).await.unwrap();
    assert_eq!(status(&mut client).await, 503);
    let log = gateway.telemetry().access.captured();
    assert!(log.contains("\"reason\":\"draining\""));
}
