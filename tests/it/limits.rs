//! Sources, rates, room and time.

use std::thread;
use std::time::{Duration, Instant};

use super::support::h2::DATA;
use super::support::{
    App, Gateway, RawH2, Reply, SECRET, StreamEnd, Wire, config, config_with, eventually, github,
    now, open_route, pause, stripe,
};

/// One route without checks at `/in`, with more of its keys.
fn route(app: &App, more: &str) -> String {
    format!(
        "  - name: limited
    match: {{ path: /in }}
    verify: none
    upstream: \"{}\"
{more}",
        app.url()
    )
}

/// As [`config`], with 127.0.0.1 as a trusted proxy on both listeners.
fn behind_proxy(routes: &str) -> String {
    let trusted = "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]";
    config(routes)
        .replace(
            "    address: 127.0.0.1:0\n    tls:",
            &format!("    address: 127.0.0.1:0\n    {trusted}\n    tls:"),
        )
        .replace(
            "plaintext: allow }",
            &format!("plaintext: allow, {trusted} }}"),
        )
}

#[test]
fn sources() {
    // SECURITY A-51, RT-31, A-52
    let app = App::start();
    let more = "    allow_ips: [192.0.2.0/24, \"2001:db8::/32\", 198.51.100.7]\n    deny_ips: [192.0.2.66]\n";
    let gateway = Gateway::start(&behind_proxy(&route(&app, more)));
    let ask = |from: &str| gateway.post("/in", &[("X-Forwarded-For", from)], b"x");
    for (from, client) in [
        ("203.0.113.9", "203.0.113.9"),
        ("192.0.2.66", "192.0.2.66"),
        ("192.0.2.1, 203.0.113.9", "203.0.113.9"),
        ("192.0.2.1, 203.0.113.9, 10.1.1.1", "203.0.113.9"),
        ("192.0.2.1, junk", "127.0.0.1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db9::1", "2001:db9::1"),
    ] {
        let event = gateway.refused(&ask(from), 403, "source_denied");
        assert_eq!(event["client_ip"], client, "{from}");
        assert_eq!(event["route"], "limited");
    }
    gateway.refused(&gateway.post("/in", &[], b"x"), 403, "source_denied");
    app.saw_nothing();
    for (from, client) in [
        ("192.0.2.1", "192.0.2.1"),
        ("203.0.113.9, 192.0.2.1", "192.0.2.1"),
        ("203.0.113.9,192.0.2.1,10.0.0.1 , 127.0.0.1", "192.0.2.1"),
        ("198.51.100.7:4711", "198.51.100.7"),
        ("[2001:db8::5]:443", "2001:db8::5"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
    ] {
        assert_eq!(
            gateway.forwarded(&ask(from), 200)["client_ip"],
            client,
            "{from}"
        );
    }
    assert_eq!(gateway.requests("limited", "rejected", "source_denied"), 8);
}

#[test]
fn an_untrusted_peer_cannot_choose_its_address() {
    // SECURITY RT-31
    let app = App::start();
    let gateway = Gateway::start(&config(&route(&app, "    allow_ips: [192.0.2.0/24]\n")));
    let headers = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Real-IP", "192.0.2.1"),
        ("Forwarded", "for=192.0.2.1"),
    ];
    let event = gateway.refused(&gateway.post("/in", &headers, b"x"), 403, "source_denied");
    assert_eq!(event["client_ip"], "127.0.0.1");
    app.saw_nothing();
}

fn retry_after(answer: &super::support::Answer) -> u64 {
    answer
        .header("retry-after")
        .expect("Retry-After")
        .parse()
        .expect("whole seconds")
}

#[test]
fn the_rate_of_a_client_comes_before_its_credentials() {
    // SECURITY DS-23
    let app = App::start();
    let routes = format!(
        "  - name: limited
    match: {{ path: /in }}
    rate_limits: [{{ key: client_ip, rate: 6/m, burst: 3 }}]
    verify: [{{ token: {{ header: X-Token, secrets: [\"value:token-0123456789abc\"] }} }}]
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start(&behind_proxy(&routes));
    let ask = |from: &str| gateway.post("/in", &[("X-Forwarded-For", from)], b"x");
    for _ in 0..3 {
        gateway.refused(&ask("192.0.2.1"), 401, "credential_missing");
    }
    let answer = ask("192.0.2.1");
    gateway.refused(&answer, 429, "rate_limited");
    // One every ten seconds: rounded up, never zero.
    assert!(
        (1..=10).contains(&retry_after(&answer)),
        "{}",
        retry_after(&answer)
    );
    // Another client has a bucket of its own; IPv6 counts by /64.
    gateway.refused(&ask("192.0.2.2"), 401, "credential_missing");
    for last in 1..=3 {
        gateway.refused(
            &ask(&format!("2001:db8::{last}")),
            401,
            "credential_missing",
        );
    }
    gateway.refused(&ask("2001:db8::ffff:4"), 429, "rate_limited");
    gateway.refused(&ask("2001:db8:0:1::1"), 401, "credential_missing");
    assert_eq!(gateway.requests("limited", "rejected", "rate_limited"), 2);
    app.saw_nothing();
}

#[test]
fn the_rate_of_a_route_counts_only_what_was_verified() {
    let app = App::start();
    let routes = format!(
        "  - name: limited
    match: {{ path: /in }}
    rate_limits: [{{ key: route, rate: 1/h, burst: 2 }}]
    verify: [{{ provider: github, secrets: [\"value:{}\"] }}]
    upstream: \"{}\"
",
        SECRET,
        app.url()
    );
    let gateway = Gateway::start(&config(&routes));
    let (name, value) = github(b"x");
    for _ in 0..3 {
        gateway.refused(
            &gateway.post("/in", &[(&name, &value)], b"y"),
            401,
            "signature_mismatch",
        );
    }
    for _ in 0..2 {
        gateway.forwarded(&gateway.post("/in", &[(&name, &value)], b"x"), 200);
    }
    let answer = gateway.post("/in", &[(&name, &value)], b"x");
    gateway.refused(&answer, 429, "rate_limited");
    assert!(
        (1700..=3600).contains(&retry_after(&answer)),
        "{}",
        retry_after(&answer)
    );
    assert_eq!(app.count(), 2);
    // A wrong signature is still told from a spent limit.
    gateway.refused(
        &gateway.post("/in", &[(&name, &value)], b"y"),
        401,
        "signature_mismatch",
    );
}

#[test]
fn copies_of_a_delivery_do_not_use_up_the_rate_of_a_route() {
    let app = App::start();
    let secret = SECRET;
    let gateway = Gateway::start(&config(&format!(
        "  - name: limited
    match: {{ path: /in }}
    rate_limits: [{{ key: route, rate: 1/h, burst: 2 }}]
    verify: [{{ provider: github, secrets: [\"value:{secret}\"] }}]
    replay: {{ window: 10m }}
    upstream: \"{}\"
",
        app.url()
    )));
    let send = |body: &[u8]| {
        let (name, value) = github(body);
        gateway.post("/in", &[(&name, &value)], body)
    };
    gateway.forwarded(&send(b"1"), 200);
    for _ in 0..5 {
        assert_eq!(send(b"1").status, 200);
        assert_eq!(gateway.event()["outcome"], "duplicate");
    }
    gateway.forwarded(&send(b"2"), 200);
    // What the limit refuses is not remembered: its retry is no copy.
    for _ in 0..2 {
        gateway.refused(&send(b"3"), 429, "rate_limited");
    }
    assert_eq!(app.count(), 2);
}

#[test]
fn questions_that_anybody_may_ask_do_not_use_up_the_rate_of_a_route() {
    let app = App::start();
    let secret = SECRET;
    let gateway = Gateway::start(&config(&format!(
        "  - name: limited
    match: {{ path: /in }}
    rate_limits: [{{ key: route, rate: 1/h, burst: 1 }}]
    verify: [{{ provider: x-twitter, secrets: [\"value:{secret}\"] }}]
    upstream: \"{}\"
",
        app.url()
    )));
    for _ in 0..3 {
        let answer = gateway
            .plain()
            .exchange("GET", "/in?crc_token=abc", &[], b"");
        assert_eq!(answer.status, 200);
        assert_eq!(gateway.event()["outcome"], "handshake");
    }
    let signature = super::support::hmac_base64("sha256", secret.as_bytes(), b"{}");
    let signature = format!("sha256={signature}");
    let signed = || {
        gateway.post(
            "/in",
            &[("X-Twitter-Webhooks-Signature", &signature)],
            b"{}",
        )
    };
    gateway.forwarded(&signed(), 200);
    gateway.refused(&signed(), 429, "rate_limited");
}

#[test]
fn without_a_burst_it_is_a_second_worth() {
    let app = App::start();
    let gateway = Gateway::start(&config(&route(
        &app,
        "    rate_limits: [{ key: client_ip, rate: 30/m }]\n",
    )));
    gateway.forwarded(&gateway.post("/in", &[], b"x"), 200);
    let answer = gateway.post("/in", &[], b"x");
    gateway.refused(&answer, 429, "rate_limited");
    assert!((1..=2).contains(&retry_after(&answer)));
    // Refilled at its rate: after what Retry-After said, the next one passes.
    pause(Duration::from_secs(retry_after(&answer)));
    gateway.forwarded(&gateway.post("/in", &[], b"x"), 200);
    assert_eq!(app.count(), 2);
}

#[test]
fn what_a_short_limit_refuses_does_not_use_up_a_long_one() {
    let app = App::start();
    let gateway = Gateway::start(&config(&route(
        &app,
        "    rate_limits:
      - { key: client_ip, rate: 3/h, burst: 3 }
      - { key: client_ip, rate: 1/s, burst: 1 }
",
    )));
    gateway.forwarded(&gateway.post("/in", &[], b"x"), 200);
    let mut wait = 0;
    for _ in 0..3 {
        let answer = gateway.post("/in", &[], b"x");
        gateway.refused(&answer, 429, "rate_limited");
        wait = retry_after(&answer);
    }
    assert!((1..=2).contains(&wait), "{wait}");
    pause(Duration::from_secs(wait));
    gateway.forwarded(&gateway.post("/in", &[], b"x"), 200);
}

#[test]
fn requests_in_flight() {
    // SECURITY DS-14
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { requests_in_flight: 2 }",
        &open_route(&app),
    ));
    app.script([
        Reply::AfterGate(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Reply::AfterGate(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ]);
    thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| gateway.post("/open", &[], b"1")),
            scope.spawn(|| gateway.post("/open", &[], b"2")),
        ];
        app.wait_for(2);
        gateway.wait_for_metric("hookward_requests_in_flight", 2);
        let answer = gateway.post("/open", &[], b"3");
        gateway.refused(&answer, 503, "overloaded");
        assert!(retry_after(&answer) >= 1);
        assert_eq!(
            (
                gateway.admin("/livez").status,
                gateway.admin("/readyz").status
            ),
            (200, 200)
        );
        app.open_gate();
        for answer in waiting {
            assert_eq!(answer.join().unwrap().status, 200);
        }
    });
    gateway.wait_for_metric("hookward_requests_in_flight", 0);
    assert_eq!(gateway.post("/open", &[], b"4").status, 200);
    assert_eq!(app.count(), 3);
}

/// Two routes to one app under two names, and one to another app, if there is one.
fn apps(limits: &str, hung: &App, other: Option<&App>) -> String {
    let url = hung.url();
    let again = open_route(hung).replace("open", "again");
    let mut routes = open_route(hung) + &again.replace(&url, &format!("{url}/"));
    if let Some(other) = other {
        routes += &open_route(other).replace("open", "other");
    }
    config_with(limits, &routes)
}

/// Makes the app keep so many requests waiting.
fn hang(app: &App, count: usize) {
    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    app.close_gate();
    app.script((0..count).map(|_| Reply::AfterGate(reply.to_vec())));
}

/// Sends an app that hangs as much as it may have, and asks for more while it hangs: that is refused, and another app
/// still answers.
fn crowd(
    gateway: &Gateway,
    (hung, other): (&App, Option<&App>),
    (count, bytes): (usize, usize),
    detail: &str,
) {
    let post = |path: &str| gateway.post(path, &[], &vec![b'x'; bytes]);
    hang(hung, count);
    let before = hung.count();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..count).map(|_| scope.spawn(|| post("/open"))).collect();
        hung.wait_for(before + count);
        gateway.refused(&post("/again"), 503, "overloaded");
        eventually(detail, || gateway.stderr().contains(detail).then_some(()));
        if other.is_some() {
            gateway.forwarded(&post("/other"), 200);
        }
        hung.open_gate();
        for answer in waiting {
            assert_eq!(answer.join().unwrap().status, 200);
            gateway.event();
        }
    });
    gateway.wait_for_metric("hookward_requests_in_flight", 0);
}

#[test]
fn an_app_that_hangs_leaves_room_for_others() {
    // SECURITY DS-14, DS-12
    let limits = "limits: { requests_in_flight: 64, body_memory: 4MiB }";
    let (hung, other) = (App::start(), App::start());
    let both = (&hung, Some(&other));
    let config = apps(limits, &hung, Some(&other));
    let gateway = Gateway::start(&config);
    let places = "what one upstream may have of `requests_in_flight` is used up";
    let memory = "what one upstream may have of `body_memory` is used up";
    crowd(&gateway, both, (48, 1), places);
    crowd(&gateway, both, (3, 1 << 20), memory);
    // All that it held was given back.
    crowd(&gateway, both, (48, 1), places);
    crowd(&gateway, both, (3, 1 << 20), memory);
}

#[test]
fn the_only_app_has_all_the_room() {
    // SECURITY DS-14, DS-12
    let limits = "limits: { requests_in_flight: 64, body_memory: 4MiB }";
    let (hung, other) = (App::start(), App::start());
    let gateway = Gateway::start(&apps(limits, &hung, None));
    let alone = (&hung, None);
    crowd(&gateway, alone, (64, 1), "`requests_in_flight` is used up");
    crowd(&gateway, alone, (4, 1 << 20), "`body_memory` is used up");
    // Until there is another one: what is in flight then counts.
    hang(&hung, 48);
    let before = hung.count();
    thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| gateway.post("/open", &[], b"x"));
        }
        hung.wait_for(before + 48);
        gateway.reload(&apps(limits, &hung, Some(&other)), "success");
        gateway.refused(&gateway.post("/open", &[], b"x"), 503, "overloaded");
        gateway.forwarded(&gateway.post("/other", &[], b"x"), 200);
        hung.open_gate();
    });
}

#[test]
fn the_memory_of_all_bodies() {
    // SECURITY DS-12, DS-13
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { body_memory: 1MiB }",
        &route(&app, "    body: { max_size: 1MiB }\n"),
    ));
    let post = |size: usize| {
        gateway
            .plain()
            .exchange("POST", "/in", &[], &vec![b'x'; size])
    };
    let mut promising = gateway.plain();
    let head = "POST /in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx";
    promising.send(head.as_bytes());
    gateway.wait_for_metric("hookward_requests_in_flight", 1);
    // What was promised takes no room.
    gateway.forwarded(&post(900_000), 200);
    // What has come does, until the app has answered.
    app.script([Reply::AfterGate(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    )]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| post(900_000));
        app.wait_for(2);
        let answer = post(500_000);
        gateway.refused(&answer, 503, "overloaded");
        assert!(retry_after(&answer) >= 1);
        gateway.forwarded(&post(10_000), 200);
        app.open_gate();
        assert_eq!(waiting.join().unwrap().status, 200);
    });
    gateway.event();
    gateway.forwarded(&post(900_000), 200);
}

#[test]
fn connections_above_the_limit_are_closed_at_once() {
    // SECURITY DS-07, L-12
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { connections: 3 }",
        &open_route(&app),
    ));
    let mut held: Vec<Wire> = (0..3).map(|_| gateway.plain()).collect();
    gateway.wait_for_metric("hookward_connections", 3);
    assert!(gateway.plain().is_closed());
    assert_eq!(
        gateway.admin("/readyz").status,
        200,
        "the admin listener has its own limits"
    );
    let of_all = [("limit", "connections")];
    gateway.wait_for_series("hookward_connections_refused_total", &of_all, 1);
    for wire in &mut held {
        assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    }
    held.pop();
    gateway.wait_for_metric("hookward_connections", 2);
    assert_eq!(
        gateway.plain().exchange("POST", "/open", &[], b"x").status,
        200
    );
    assert_eq!(app.count(), 4);
}

#[test]
fn slow_heads_are_closed_however_often_a_byte_comes() {
    // SECURITY DS-01
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { header_timeout: 400ms }",
        &open_route(&app),
    ));
    for first in [&b""[..], b"POST /open HTTP/1.1\r\nHost: local"] {
        let start = Instant::now();
        let mut wire = gateway.plain();
        wire.send(first);
        assert!(wire.rest().len() < 2000);
        let waited = start.elapsed().as_millis();
        assert!((300..6000).contains(&waited), "{waited} ms");
    }
    let start = Instant::now();
    let mut wire = gateway.tls();
    wire.send(b"POST /open HTTP/1.1\r\nX-A: ");
    while start.elapsed().as_millis() < 900 {
        wire.send(b"a");
        pause(Duration::from_millis(50));
    }
    assert!(wire.rest().len() < 2000);
    assert!(start.elapsed().as_millis() < 6000);
    app.saw_nothing();
    // A later head of the same connection has the same time.
    let mut wire = gateway.plain();
    assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    let start = Instant::now();
    wire.send(b"POST /op");
    assert!(wire.rest().len() < 2000);
    assert!(start.elapsed().as_millis() < 6000);
    // Who never said a word began none.
    gateway.wait_for_metric("hookward_header_timeouts_total", 3);
    assert_eq!(app.count(), 1);
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { idle_timeout: 400ms, header_timeout: 5s }",
        &open_route(&app),
    ));
    app.script([Reply::AfterGate(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    )]);
    let mut busy = gateway.plain();
    busy.write("POST", "/open", &[], b"x");
    app.wait_for(1);
    let mut idle = gateway.plain();
    assert_eq!(idle.exchange("POST", "/open", &[], b"x").status, 200);
    let start = Instant::now();
    assert!(idle.is_closed());
    let waited = start.elapsed().as_millis();
    assert!((300..6000).contains(&waited), "{waited} ms");
    app.open_gate();
    assert_eq!(busy.answer().unwrap().status, 200);
}

#[test]
fn slow_bodies_end_at_a_total_deadline() {
    // SECURITY DS-02, DS-15
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { body_timeout: 500ms }",
        &open_route(&app),
    ));
    let mut silent = gateway.plain();
    silent.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab");
    let answer = silent.answer().unwrap();
    let event = gateway.refused(&answer, 408, "body_timeout");
    assert_eq!(
        (event["route"].as_str(), answer.header("connection")),
        (Some("open"), Some("close"))
    );
    assert!(silent.is_closed());

    let start = Instant::now();
    let mut dripping = gateway.tls();
    dripping.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    while start.elapsed().as_millis() < 800 {
        dripping.send(b"1\r\na\r\n");
        pause(Duration::from_millis(50));
    }
    let answer = dripping.answer().unwrap();
    gateway.refused(&answer, 408, "body_timeout");
    // A flood of framing without a body byte is held to the same deadline.
    let mut zeros = gateway.plain();
    zeros.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let start = Instant::now();
    while start.elapsed().as_millis() < 800 {
        zeros.send(&[b'0'; 1000]);
        pause(Duration::from_millis(50));
    }
    let answer = zeros.answer();
    assert!(answer.is_none_or(|answer| matches!(answer.status, 400 | 408)));
    app.saw_nothing();
}

#[test]
fn bodies_that_only_hold_a_place_end_before_their_deadline() {
    // SECURITY DS-02, DS-15
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { body_timeout: 10m }",
        &open_route(&app),
    ));
    let mut dripping = gateway.tls();
    dripping.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n");
    let mut zeros = gateway.plain();
    zeros.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut h2 = RawH2::open(gateway.address("https"));
    let fields: [(&str, &[u8]); 4] = [
        (":method", b"POST"),
        (":scheme", b"https"),
        (":authority", b"localhost"),
        (":path", b"/open"),
    ];
    h2.headers(1, 0, &fields);
    // A slow line is no attack: it is served for as long as it brings something.
    let mut slow = gateway.tls();
    slow.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000\r\n\r\n");
    for _ in 0..4 {
        pause(Duration::from_millis(500));
        dripping.send(b"x");
        zeros.send(b"0");
        h2.frame(DATA, 0, 1, b"x");
        slow.send(&[b'x'; 1500]);
    }
    for mut wire in [dripping, zeros] {
        let answer = wire.answer().unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (408, Some("close"))
        );
    }
    assert_eq!(h2.end_of(1), StreamEnd::Status(408));
    slow.send(&[b'x'; 2000]);
    assert_eq!(slow.answer().unwrap().status, 200);
    let mut received = Vec::new();
    for _ in 0..4 {
        let event = gateway.event();
        received.push((event["status"].as_u64(), event["bytes_in"].as_u64()));
    }
    received.sort_unstable();
    // What had come is told, too.
    let told = |status, bytes| (Some(status), Some(bytes));
    assert_eq!(
        received,
        [told(200, 8000), told(408, 0), told(408, 4), told(408, 4)]
    );
    assert_eq!(gateway.requests("open", "rejected", "body_timeout"), 3);
    assert_eq!(app.count(), 1);
}

#[test]
fn a_suspended_process_goes_on_where_it_was() {
    // SECURITY S-07
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { idle_timeout: 300ms, body_timeout: 10s }",
        &open_route(&app),
    ));
    let mut half = gateway.plain();
    half.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na");
    gateway.wait_for_metric("hookward_requests_in_flight", 1);
    gateway.signal("STOP");
    pause(Duration::from_millis(600));
    gateway.signal("CONT");
    half.send(b"b");
    assert_eq!(half.answer().unwrap().status, 200);
    gateway.event();
    gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
}

#[test]
fn a_few_signatures_are_all_tried_and_many_are_not_looked_at() {
    // SECURITY DS-29
    let app = App::start();
    let routes = format!(
        "  - name: limited
    match: {{ path: /in }}
    verify: [{{ provider: stripe, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start(&config_with("limits: { header_bytes: 128KiB }", &routes));
    // Wrong signatures before the right one, and after it.
    let ask = |before: usize, after: usize, body: &[u8]| {
        let time = now();
        let right = stripe(body, time);
        let (_, right) = right.split_once(',').unwrap();
        let wrong = format!("v1={}", "0".repeat(64));
        let mut items = vec![wrong.as_str(); before + 1 + after];
        items[before] = right;
        let header = format!("t={time},{}", items.join(","));
        gateway.post("/in", &[("Stripe-Signature", &header)], body)
    };
    for before in 0..16 {
        let body = before.to_string();
        gateway.forwarded(&ask(before, 15 - before, body.as_bytes()), 200);
    }
    assert_eq!(app.count(), 16);
    // One more and they are refused by the head: not a byte of the body is taken.
    let body = vec![b'x'; 500_000];
    for (before, after) in [(0, 16), (16, 0), (999, 0)] {
        let answer = ask(before, after, &body);
        let event = gateway.refused(&answer, 401, "signature_malformed");
        assert_eq!(event["bytes_in"], 0);
    }
    assert_eq!(app.count(), 16);
}

#[test]
fn what_frames_a_body_is_not_kept_with_it() {
    // SECURITY DS-12, DS-15: data is kept in the memory that it was read into
    let app = App::start();
    let route = format!(
        "  - {{ name: open, match: {{ path: /open }}, body: {{ max_size: 16MiB }}, verify: none, upstream: \"{}\" }}\n",
        app.url()
    );
    let gateway = Gateway::start(&config(&route));
    let begin = || {
        let mut wire = gateway.plain();
        wire.send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire
    };
    // A size that is written with more zeros than any signature needs room, and many that are within.
    let mut long = begin();
    long.send(format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(300)).as_bytes());
    assert_eq!(long.answer().unwrap().status, 400);
    let mut junk = begin();
    let line = format!("{}1\r\nx\r\n", "0".repeat(200));
    junk.send(line.repeat(1000).as_bytes());
    assert_eq!(junk.answer().unwrap().status, 400);
    // Nor are senders refused that write a byte at a time, or sign each chunk.
    for chunk in [
        "1\r\nx\r\n".repeat(50_000),
        format!(
            "400;chunk-signature={}\r\n{}\r\n",
            "f".repeat(64),
            "x".repeat(1024)
        )
        .repeat(50),
    ] {
        let mut small = begin();
        small.send(format!("{chunk}0\r\n\r\n").as_bytes());
        assert_eq!(small.answer().unwrap().status, 200);
    }
    // Chunks take their size, also where much stands between them.
    let mut body = begin();
    let before = gateway.size("VmRSS");
    let padded = format!("{}1\r\nx\r\n", "0".repeat(200)).repeat(60);
    let chunk = format!("3000\r\n{}\r\n{padded}", "x".repeat(12 * 1024));
    for _ in 0..680 {
        body.send(chunk.as_bytes());
    }
    body.send(b"0\r\n\r\n");
    assert_eq!(body.answer().unwrap().status, 200);
    let grown = gateway.size("VmHWM").saturating_sub(before);
    assert!(grown < 16 * 1024, "8 MiB of body took {grown} KiB");
    assert_eq!(app.last().body.len(), 680 * (12 * 1024 + 60));
}
