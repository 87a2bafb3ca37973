//! PROXY protocol headers: required from trusted proxies, worthless from everybody else.

use std::time::Instant;

use super::support::{App, Gateway, Wire, config, open_route};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// As [`config`], with a plain listener for connections of `proxies`.
fn behind(proxies: &str, app: &App) -> String {
    config(&open_route(app)).replace(
        "plaintext: allow }",
        &format!("plaintext: allow, trusted_proxies: [{proxies}], proxy_protocol: true }}"),
    )
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, block].concat()
}

const REQUEST: &[u8] = b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";

#[test]
fn the_header_of_a_trusted_proxy_names_the_client() {
    // SECURITY SM-42
    let app = App::start();
    let gateway = Gateway::start(&behind("127.0.0.0/8", &app));
    let v4 = [192, 0, 2, 7, 127, 0, 0, 1, 0xdc, 4, 1, 0xbb];
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    v6[15] = 9;
    let with_values = [&v4[..], &[0x03, 0, 4, 1, 2, 3, 4, 0x04, 0, 0]].concat();
    for (header, client) in [
        (
            b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 443\r\n".to_vec(),
            "192.0.2.7",
        ),
        (
            b"PROXY TCP6 2001:db8::9 ::1 56324 443\r\n".to_vec(),
            "2001:db8::9",
        ),
        (v2(0x21, 0x11, &v4), "192.0.2.7"),
        (v2(0x21, 0x11, &with_values), "192.0.2.7"),
        (v2(0x21, 0x21, &v6), "2001:db8::9"),
        // The proxy's own health checks come from the proxy.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x20, 0x00, &[]), "127.0.0.1"),
    ] {
        let mut wire = gateway.plain();
        // The request comes in the same segment: not a byte of it may be lost.
        let answer = wire.send(&[&header[..], REQUEST].concat()).answer();
        let event = gateway.forwarded(&answer.unwrap(), 200);
        assert_eq!(event["client_ip"], client);
        let forwarded = app.last();
        assert_eq!(forwarded.header("x-forwarded-for"), Some(client));
    }
}

#[test]
fn whom_the_header_names_is_not_a_proxy() {
    let app = App::start();
    let gateway = Gateway::start(&behind("127.0.0.0/8", &app));
    // Nor is there anybody to believe where it names nobody: such a proxy writes no fields.
    for (header, client) in [
        ("PROXY TCP4 192.0.2.7 127.0.0.1 5 443\r\n", "192.0.2.7"),
        ("PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let bytes = format!(
            "{header}POST /open HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n\
             Content-Length: 1\r\n\r\nx"
        );
        let answer = gateway.plain().send(bytes.as_bytes()).answer();
        let event = gateway.forwarded(&answer.unwrap(), 200);
        assert_eq!(event["client_ip"], client);
        assert_eq!(app.last().header("x-forwarded-for"), Some(client));
    }
}

#[test]
fn everything_else_is_closed_without_an_answer() {
    // SECURITY SM-42
    let app = App::start();
    let gateway = Gateway::start(&behind("127.0.0.0/8", &app));
    let line = b"PROXY TCP4 192.0.2.7 127.0.0.1 5 443\r\n";
    let block = [192, 0, 2, 7, 127, 0, 0, 1, 0, 5, 1, 0xbb];
    let mut closed = 0;
    for header in [
        b"".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 5\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 5 443\n".to_vec(),
        b"proxy TCP4 192.0.2.7 127.0.0.1 5 443\r\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 4096][..], b"\r\n"].concat(),
        v2(0x21, 0x11, &block[..8]),
        v2(0x21, 0x12, &block),
        v2(0x31, 0x11, &block),
        v2(0x21, 0x11, &[0; 4096]),
        [&V2[..8], line].concat(),
    ] {
        let mut wire = gateway.plain();
        assert!(
            wire.send(&[&header[..], REQUEST].concat()).is_closed(),
            "{}",
            String::from_utf8_lossy(&header)
        );
        closed += 1;
    }
    gateway.wait_for_metric("hookward_proxy_protocol_failures_total", closed);
    app.saw_nothing();
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for_long() {
    // SECURITY SM-42
    let app = App::start();
    let gateway = Gateway::start(&behind("127.0.0.0/8", &app));
    let start = Instant::now();
    let mut silent = gateway.plain();
    let mut slow = gateway.plain();
    slow.send(b"PROXY TCP4 192.0.2.7");
    assert!(silent.is_closed() && slow.is_closed());
    let waited = start.elapsed().as_millis();
    assert!((4500..9000).contains(&waited), "{waited} ms");
}

#[test]
fn who_is_not_a_trusted_proxy_is_closed() {
    // SECURITY SM-42
    let app = App::start();
    let gateway = Gateway::start(&behind("10.0.0.0/8", &app));
    for header in [&b"PROXY TCP4 10.0.0.1 127.0.0.1 5 443\r\n"[..], b""] {
        let mut wire = gateway.plain();
        assert!(wire.send(&[header, REQUEST].concat()).is_closed());
    }
    gateway.wait_for_metric("hookward_proxy_protocol_failures_total", 2);
    app.saw_nothing();
}

#[test]
fn trust_that_is_withdrawn_reaches_open_connections() {
    // SECURITY S-14, RT-31
    let app = App::start();
    let trusting = behind("127.0.0.0/8", &app);
    let named = &b"PROXY TCP4 192.0.2.7 127.0.0.1 5 443\r\n"[..];
    let unnamed = &b"PROXY UNKNOWN\r\n"[..];
    let without = trusting.replace(", proxy_protocol: true", "");
    for (header, later) in [
        (named, behind("10.0.0.0/8", &app)),
        (named, without),
        (unnamed, behind("10.0.0.0/8", &app)),
    ] {
        let gateway = Gateway::start(&trusting);
        let mut wire = gateway.plain();
        let answer = wire.send(&[header, REQUEST].concat()).answer();
        gateway.forwarded(&answer.unwrap(), 200);
        gateway.reload(&later, "success");
        let answer = wire.send(REQUEST).answer().unwrap();
        gateway.refused(&answer, 403, "source_denied");
        assert!(wire.is_closed());
    }
}

#[test]
fn without_the_key_a_header_is_no_header() {
    // SECURITY SM-42
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)).replace(
        "plaintext: allow }",
        "plaintext: allow, trusted_proxies: [127.0.0.0/8] }",
    ));
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 5 443\r\n";
    let answer = gateway
        .plain()
        .last_answer(&[&header[..], REQUEST].concat());
    assert_eq!(answer.unwrap().status, 400);
    app.saw_nothing();
}

#[test]
fn the_header_stands_before_tls() {
    // SECURITY SM-42
    let app = App::start();
    let config = config(&open_route(&app)).replace(
        "    tls:",
        "    trusted_proxies: [127.0.0.0/8]\n    proxy_protocol: true\n    tls:",
    );
    let gateway = Gateway::start(&config);
    let curl = std::process::Command::new("curl")
        .args(["-sk", "--haproxy-protocol", "-o", "/dev/null", "-w"])
        .args(["%{http_code} %{http_version}", "-d", "x"])
        .arg(format!("https://{}/open", gateway.address("https")))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "200 2");
    assert_eq!(gateway.event()["client_ip"], "127.0.0.1");
    assert!(
        Wire::plain(gateway.address("https"))
            .send(REQUEST)
            .is_closed()
    );
}
