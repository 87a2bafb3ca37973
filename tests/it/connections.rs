//! Connections that must not be held: shares of an address, handshakes, slow readers, descriptors.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::support::h2::END_STREAM;
use super::support::{
    App, Gateway, RawH2, Reply, StreamEnd, Wire, config, config_with, eventually, open_route, pause,
};

/// A connection from this address of the loopback.
fn from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    stream
}

/// The first bytes of the answer to a request; empty when the connection is closed instead.
fn ask(stream: &mut TcpStream) -> String {
    let request = b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    drop(stream.write_all(request));
    let mut bytes = [0; 512];
    let length = stream.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length.min(12)]).into_owned()
}

#[test]
fn an_address_has_no_more_than_its_share() {
    // SECURITY DS-08
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { connections: 10, connections_per_address: 3 }",
        &open_route(&app),
    ));
    let address = gateway.address("http");
    let mut held: Vec<_> = (0..3).map(|_| from([127, 0, 0, 2], address)).collect();
    for stream in &mut held {
        assert_eq!(ask(stream), "HTTP/1.1 200");
    }
    assert_eq!(ask(&mut from([127, 0, 0, 2], address)), "");
    let of_address = [("limit", "connections_per_address")];
    gateway.wait_for_series("hookward_connections_refused_total", &of_address, 1);
    eventually("a word in the log", || {
        let said = gateway.stderr();
        said.lines()
            .any(|line| line.contains("connections_per_address") && line.contains("127.0.0.2"))
            .then_some(())
    });
    assert_eq!(ask(&mut from([127, 0, 0, 3], address)), "HTTP/1.1 200");
    held.pop();
    eventually("the place is free again", || {
        (ask(&mut from([127, 0, 0, 2], address)) == "HTTP/1.1 200").then_some(())
    });
    assert_eq!(gateway.admin("/readyz").status, 200);
}

#[test]
fn a_trusted_proxy_may_have_all_connections_and_those_behind_it_their_share() {
    // SECURITY DS-08
    let app = App::start();
    let limits = "limits: { connections_per_address: 2 }";
    let trusted = "plaintext: allow, trusted_proxies: [127.0.0.0/8]";
    let config = config_with(limits, &open_route(&app));
    let gateway = Gateway::start(&config.replace("plaintext: allow", trusted));
    let mut held: Vec<_> = (0..5).map(|_| gateway.plain()).collect();
    for wire in &mut held {
        assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    }
    let trusted = format!("{trusted}, proxy_protocol: true");
    let gateway = Gateway::start(&config.replace("plaintext: allow", &trusted));
    let enter = |client: &str| {
        let mut wire = gateway.plain();
        wire.send(format!("PROXY TCP4 {client} 127.0.0.1 5 443\r\n").as_bytes());
        wire
    };
    let mut held = [enter("192.0.2.7"), enter("192.0.2.7")];
    for wire in &mut held {
        assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    }
    assert!(enter("192.0.2.7").is_closed());
    let mut other = enter("192.0.2.8");
    assert_eq!(other.exchange("POST", "/open", &[], b"x").status, 200);
}

#[test]
fn no_address_keeps_others_out_with_heads_whose_bodies_do_not_come() {
    // SECURITY DS-08, DS-02
    let app = App::start();
    let config = config_with("limits: { requests_in_flight: 4 }", &open_route(&app));
    let proxied = "plaintext: allow, trusted_proxies: [127.0.0.0/8], proxy_protocol: true";
    let gateway = Gateway::start(&config.replace("plaintext: allow", proxied));
    let begin = |client: &str| {
        let mut wire = gateway.plain();
        wire.send(format!("PROXY TCP4 {client} 127.0.0.1 5 443\r\n").as_bytes());
        wire.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n");
        wire
    };
    let mut held = [begin("192.0.2.7"), begin("192.0.2.7")];
    gateway.wait_for_metric("hookward_requests_in_flight", 2);
    let refused = begin("192.0.2.7").answer().unwrap();
    gateway.refused(&refused, 503, "overloaded");
    assert!(refused.header("retry-after").is_some());
    // Others have the other half, and who has all of the body needs no share.
    let mut other = begin("192.0.2.8");
    other.send(b"x");
    assert_eq!(other.answer().unwrap().status, 200);
    let [first, _] = &mut held;
    first.send(b"x");
    assert_eq!(first.answer().unwrap().status, 200);
    let mut again = begin("192.0.2.7");
    again.send(b"x");
    assert_eq!(again.answer().unwrap().status, 200);
}

/// What a client says first; nothing follows.
fn client_hello() -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let config = super::support::wire::any_certificate(&[b"http/1.1"]);
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn handshakes_that_stand_still_hold_up_nobody() {
    // SECURITY DS-04, DS-05
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { tls_handshake_timeout: 3s }",
        &open_route(&app),
    ));
    let address = gateway.address("https");
    let hello = client_hello();
    let start = Instant::now();
    let mut held = Vec::new();
    for index in 0..150 {
        let mut wire = Wire::plain(address);
        // Nothing, half a ClientHello, and a whole one whose answer is never taken up.
        wire.send(&hello[..hello.len() * (index % 3) / 2]);
        held.push(wire);
    }
    for _ in 0..20 {
        assert_eq!(gateway.post("/open", &[], b"x").status, 200);
    }
    let served = start.elapsed();
    assert!(served.as_secs() < 10, "{served:?}");
    gateway.wait_for_metric("hookward_tls_handshake_failures_total", 150);
    for wire in &mut held {
        wire.rest();
    }
    gateway.wait_for_metric("hookward_connections", 0);
}

#[test]
fn who_does_not_read_its_answer_is_cut_off() {
    // SECURITY DS-03
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { write_timeout: 1s }",
        &open_route(&app),
    ));
    let large = [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n"[..],
        &vec![b'x'; 32 << 20],
    ]
    .concat();
    app.script([Reply::Raw(large)]);
    let mut idle = gateway.plain();
    idle.write("POST", "/open", &[], b"x");
    let start = Instant::now();
    let event = gateway.event();
    assert_eq!(event["status"], 200);
    gateway.wait_for_metric("hookward_connections", 0);
    let waited = start.elapsed().as_millis();
    assert!(waited < 12_000, "{waited} ms");
    assert!(idle.rest().len() < 32 << 20);
    gateway.wait_for_metric("hookward_write_timeouts_total", 1);
}

#[test]
fn who_reads_its_answer_slowly_gets_all_of_it() {
    // SECURITY DS-03: a system that takes megabytes for a client lets it seem to read nothing for long
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { write_timeout: 1s }",
        &open_route(&app),
    ));
    let length = 16 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let large = [head.as_bytes(), &vec![b'x'; length]].concat();
    app.script([Reply::Raw(large)]);
    let mut slow = gateway.plain();
    slow.write("POST", "/open", &[], b"x");
    slow.head().unwrap();
    let piece = 64 << 10;
    for _ in 0..20 {
        assert!(slow.take(piece).is_some());
        pause(Duration::from_millis(200));
    }
    assert!(slow.take(length - 20 * piece).is_some());
    assert_eq!(
        gateway.metric("hookward_write_timeouts_total", &[]),
        Some(0)
    );
}

#[test]
fn streams_whose_window_stays_shut_end_with_their_connection() {
    // SECURITY H2-13
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { write_timeout: 1s }",
        &open_route(&app),
    ));
    let address = gateway.address("https");
    let mut wire = super::support::Tls {
        alpn: &[b"h2"],
        ..super::support::Tls::default()
    }
    .connect(address)
    .unwrap();
    // SETTINGS with INITIAL_WINDOW_SIZE 0, then a GET-shaped POST without a body.
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    wire.send(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    let mut block = vec![0x83, 0x87, 0x44, 5];
    block.extend(b"/open");
    block.extend([0x41, 9]);
    block.extend(b"localhost");
    let length = u8::try_from(block.len()).unwrap();
    wire.send(&[&[0, 0, length, 1, 5, 0, 0, 0, 1], &block[..]].concat());
    app.wait_for(1);
    let start = Instant::now();
    let bytes = wire.rest();
    let waited = start.elapsed().as_millis();
    assert!((500..8000).contains(&waited), "{waited} ms");
    // GOAWAY says that it is over.
    assert!(
        bytes.windows(5).any(|run| run == [8, 7, 0, 0, 0]),
        "{bytes:?}"
    );
    gateway.wait_for_metric("hookward_write_timeouts_total", 1);
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_it_waits_and_comes_back() {
    // SECURITY DS-09
    let app = App::start();
    let gateway = Gateway::start_through(&["prlimit", "--nofile=64"], &config(&open_route(&app)));
    let address = gateway.address("http");
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    app.script([(); 8].map(|()| Reply::AfterGate(ok.to_vec())));
    let mut early = [(); 8].map(|()| gateway.plain());
    gateway.wait_for_metric("hookward_connections", 8);
    let start = Instant::now();
    let held: Vec<TcpStream> = (0..120).map(|_| from([127, 0, 0, 1], address)).collect();
    let complaints = || {
        let said = gateway.stderr();
        said.matches("cannot accept connections").count()
    };
    eventually("the log says so", || (complaints() > 0).then_some(()));
    let failed = gateway.metric("hookward_accept_failures_total", &[]);
    assert!(failed > Some(0), "{failed:?}");
    // That no connection to the app can be had is nothing that the app did.
    for wire in &mut early {
        wire.write("POST", "/open", &[], b"x");
    }
    let event = gateway.event();
    assert_eq!(
        (&event["status"], &event["reason"]),
        (&503.into(), &"overloaded".into())
    );
    app.open_gate();
    for wire in &mut early {
        let answer = wire.answer().unwrap();
        let is_told_when = answer.header("retry-after").is_some();
        assert!(matches!(
            (answer.status, is_told_when),
            (200, false) | (503, true)
        ));
    }
    let asked = [("route", "open"), ("code", "none")];
    let asked = gateway.metric("hookward_upstream_requests_total", &asked);
    assert_eq!(asked, Some(0));
    let before = cpu_ticks(gateway.pid());
    pause(Duration::from_secs(2));
    let spent = cpu_ticks(gateway.pid()) - before;
    assert!(spent < 50, "{spent} ticks of CPU in two seconds");
    for _ in 0..20 {
        let ready = gateway.admin("/readyz").status;
        assert_eq!(ready, 200, "probes have descriptors of their own");
    }
    drop(held);
    eventually("it serves again", || {
        (ask(&mut from([127, 0, 0, 1], address)) == "HTTP/1.1 200").then_some(())
    });
    assert_eq!(gateway.post("/open", &[], b"x").status, 200);
    assert_eq!(gateway.admin("/readyz").status, 200);
    // Each of the two listeners says it once in 10 s.
    let most = 2 * (1 + usize::try_from(start.elapsed().as_secs() / 10).unwrap());
    let said = complaints();
    assert!(said <= most, "said {said} times");
}

#[test]
fn there_are_no_core_dumps() {
    // SECURITY L-05
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    // What is not dumpable belongs to root alone.
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(format!("/proc/{}/environ", gateway.pid())).unwrap(),
    );
    assert_eq!(owner, 0);
}

#[test]
fn what_is_refused_before_it_is_a_request_is_in_the_debug_log() {
    // SECURITY L-12
    let app = App::start();
    let more = "limits: { header_timeout: 300ms }";
    let gateway = Gateway::start_through(
        &["env", "RUST_LOG=hookward=debug"],
        &config_with(more, &open_route(&app)),
    );
    let address = gateway.address("http");
    let told = |source: u8, bytes: &[u8], words: &str| {
        let mut stream = from([127, 0, 0, source], address);
        stream.write_all(bytes).unwrap();
        let peer = format!("127.0.0.{source}:");
        eventually(words, || {
            let said = gateway.stderr();
            said.lines()
                .any(|line| line.contains(&peer) && line.contains(words))
                .then_some(())
        });
    };
    told(
        2,
        b"POST /o pen HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "malformed_request",
    );
    told(
        3,
        &[&b"POST /open HTTP/1.1\r\nx: "[..], &vec![b'y'; 40_000]].concat(),
        "header_too_large",
    );
    told(4, b"POST /open HTTP/1.1\r\nHo", "did not come in time");
    let mut raw = RawH2::open(gateway.address("https"));
    let no_path: [(&str, &[u8]); 3] = [
        (":method", b"POST"),
        (":scheme", b"https"),
        (":authority", b"localhost"),
    ];
    raw.headers(1, END_STREAM, &no_path);
    assert_eq!(raw.end_of(1), StreamEnd::Reset(1));
    eventually("a word in the log", || {
        gateway.stderr().contains("HTTP/2: refused").then_some(())
    });
    app.saw_nothing();
}
