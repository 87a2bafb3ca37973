//! TLS and plaintext listeners: versions, certificates by SNI, 421, client certificates, redirect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};

use super::support::{App, Authority, Gateway, Tls, Wire, config, open_route};

#[test]
fn both_versions_are_served_and_nothing_below_the_minimum() {
    // SECURITY T-01
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let address = gateway.address("https");
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let mut wire = Tls {
            versions: &[version],
            ..Tls::default()
        }
        .connect(address)
        .unwrap();
        assert_eq!(wire.session.as_ref().unwrap().version, expected);
        assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    }
    let strict = format!(
        "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners:
  https: {{ address: 127.0.0.1:0, tls: {{ self_signed: [localhost], min_version: \"1.3\" }} }}
routes:
{}",
        open_route(&app)
    );
    let gateway = Gateway::start(&strict);
    let address = gateway.address("https");
    assert!(
        Tls {
            versions: &[&TLS12],
            ..Tls::default()
        }
        .connect(address)
        .is_err()
    );
    let mut wire = Tls {
        versions: &[&TLS13],
        ..Tls::default()
    }
    .connect(address)
    .unwrap();
    assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    gateway.wait_for_metric("hookward_tls_handshake_failures_total", 1);
    assert_eq!(app.count(), 3);
}

#[test]
fn alpn_chooses_the_protocol() {
    // SECURITY T-06, H2-18
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let address = gateway.address("https");
    let (h2, http1, http10) = (&b"h2"[..], &b"http/1.1"[..], &b"http/1.0"[..]);
    for (offered, chosen) in [
        (&[h2, http1][..], Some(h2)),
        (&[http1, h2], Some(h2)),
        (&[http1], Some(http1)),
        (&[http10, http1], Some(http1)),
        (&[http10], Some(http10)),
        (&[], None),
    ] {
        let wire = Tls {
            alpn: offered,
            ..Tls::default()
        }
        .connect(address)
        .unwrap();
        assert_eq!(wire.session.unwrap().alpn.as_deref(), chosen, "{offered:?}");
    }
    assert!(
        Tls {
            alpn: &[b"spdy/3"],
            ..Tls::default()
        }
        .connect(address)
        .is_err()
    );
    // Without ALPN it is HTTP/1.1, and an HTTP/2 preface is not believed.
    let mut wire = Tls {
        alpn: &[],
        ..Tls::default()
    }
    .connect(address)
    .unwrap();
    assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    for alpn in [&[][..], &[&b"http/1.1"[..]][..]] {
        let mut wire = Tls {
            alpn,
            ..Tls::default()
        }
        .connect(address)
        .unwrap();
        let answer = wire.last_answer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        assert!(answer.is_none_or(|answer| answer.status == 400));
    }
    assert_eq!(app.count(), 1);
    // Who can do no more than HTTP/1.0 says so, as WordPress does.
    let mut wire = Tls {
        alpn: &[http10],
        ..Tls::default()
    }
    .connect(address)
    .unwrap();
    let request = b"POST /open HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(wire.last_answer(request).unwrap().status, 200);
    assert_eq!(app.count(), 2);
}

#[test]
fn a_plain_listener_speaks_no_http2() {
    // SECURITY H2-19, SM-34
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let answer = gateway
        .plain()
        .last_answer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert!(answer.is_none_or(|answer| answer.status == 400));
    app.saw_nothing();
    let mut wire = gateway.plain();
    let headers = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABk"),
    ];
    assert_eq!(wire.exchange("POST", "/open", &headers, b"x").status, 200);
    app.last()
        .lacks(&["upgrade", "connection", "http2-settings"]);
}

/// Three certificates: for `a.example.org`, for `*.example.net`, for `c.example.org` and `b.example.org`.
fn three_certificates(app: &App) -> (Gateway, [Vec<u8>; 3]) {
    let authority = Authority::new();
    let identities = [
        authority.issue(&["a.example.org"]),
        authority.issue(&["*.example.net"]),
        authority.issue_until(&["c.example.org", "b.example.org"], 2051),
    ];
    let ders = identities
        .each_ref()
        .map(|identity| identity.chain[0].to_vec());
    let config = format!(
        "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners:
  https:
    address: 127.0.0.1:0
    tls:
      certificates:
        - {{ cert: one.pem, key: one.key }}
        - {{ cert: two.pem, key: two.key }}
        - {{ cert: three.pem, key: three.key }}
routes:
{}",
        open_route(app)
    );
    let gateway = Gateway::start_with(&config, &[], |dir| {
        for (identity, name) in identities.iter().zip(["one", "two", "three"]) {
            identity.write(dir, name);
        }
    });
    (gateway, ders)
}

#[test]
fn sni_chooses_the_certificate_and_the_first_is_the_default() {
    // SECURITY T-05
    let app = App::start();
    let (gateway, [one, two, three]) = three_certificates(&app);
    let address = gateway.address("https");
    for (name, expected) in [
        ("a.example.org", &one),
        ("x.example.net", &two),
        ("X.EXAMPLE.net", &two),
        ("c.example.org", &three),
        ("b.example.org", &three),
        ("unknown.example.com", &one),
        ("x.y.example.net", &one),
        ("example.net", &one),
    ] {
        let wire = Tls {
            name,
            ..Tls::default()
        }
        .connect(address)
        .unwrap();
        assert!(
            wire.session.unwrap().certificate.as_ref() == expected,
            "{name}"
        );
    }
    let wire = Tls {
        sni: false,
        ..Tls::default()
    }
    .connect(address)
    .unwrap();
    assert!(wire.session.unwrap().certificate.as_ref() == &one[..]);
    let label = [("name", "three.pem")];
    let ends = gateway.metric(
        "hookward_tls_certificate_not_after_timestamp_seconds",
        &label,
    );
    assert_eq!(
        ends,
        Some(2_556_144_000),
        "{}",
        gateway.admin("/metrics").text()
    );
}

#[test]
fn of_several_certificates_the_client_gets_one_that_it_can_check() {
    let app = App::start();
    let authority = Authority::new();
    let params = CertificateParams::new(vec!["a.example.org".to_owned()]).unwrap();
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut unnamed = CertificateParams::new(Vec::<String>::new()).unwrap();
    let common_name = "Old.example.org";
    unnamed
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let identities = [
        authority.issue_from(&params),
        authority.issue_for(&ed25519, &params),
        authority.issue_from(&unnamed),
    ];
    let files = ["one", "two", "three"];
    let certificates = files.map(|name| format!("{{ cert: {name}.pem, key: {name}.key }}"));
    let config = format!(
        "version: 1
listeners:
  https:
    address: 127.0.0.1:0
    tls: {{ certificates: [{}] }}
routes:
{}",
        certificates.join(", "),
        open_route(&app)
    );
    let gateway = Gateway::start_with(&config, &[], |dir| {
        for (identity, name) in identities.iter().zip(files) {
            identity.write(dir, name);
        }
    });
    let address = gateway.address("https").to_string();
    for (name, schemes, kind) in [
        ("a.example.org", "ECDSA+SHA256:ed25519", "type:ecdsa"),
        ("a.example.org", "ed25519", "type:ed25519"),
        ("b.example.org", "ed25519", "type:ed25519"),
        ("b.example.org", "ed25519:ECDSA+SHA256", "type:ecdsa"),
        ("old.example.org", "ECDSA+SHA256", "cn=old.example.org"),
    ] {
        let shown = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-servername", name])
            .args(["-sigalgs", schemes])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).to_lowercase();
        let shown = shown.replace(' ', "");
        assert!(shown.contains(kind), "{name} {schemes}: {shown}");
    }
}

#[test]
fn a_host_outside_the_certificate_that_sni_chose_is_misdirected() {
    // SECURITY RT-11, RT-12
    let app = App::start();
    let (gateway, _) = three_certificates(&app);
    let address = gateway.address("https");
    let ask = |name: &str, sni: bool, host: &str| {
        let mut wire = Tls {
            name,
            sni,
            ..Tls::default()
        }
        .connect(address)
        .unwrap();
        wire.exchange("POST", "/open", &[("Host", host)], b"x")
    };
    for (name, host) in [
        ("a.example.org", "b.example.org"),
        ("c.example.org", "a.example.org"),
        ("x.example.net", "a.b.example.net"),
        ("x.example.net", "example.net"),
        ("a.example.org", "127.0.0.1"),
    ] {
        let event = gateway.refused(&ask(name, true, host), 421, "host_mismatch");
        assert_eq!(event["route"], "_none");
    }
    assert!(gateway.requests("_none", "rejected", "host_mismatch") >= 5);
    app.saw_nothing();
    for (name, sni, host) in [
        ("c.example.org", true, "b.example.org"),
        ("x.example.net", true, "y.example.net"),
        ("a.example.org", true, "A.Example.ORG."),
        ("a.example.org", true, "a.example.org:8443"),
        ("unknown.example.com", true, "anything.example"),
        ("a.example.org", false, "b.example.org"),
    ] {
        gateway.forwarded(&ask(name, sni, host), 200);
        assert_eq!(app.last().header("host"), Some(host));
    }
}

fn with_client_ca(app: &App, verify: &str, authority: &Authority) -> Gateway {
    let config = format!(
        "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners:
  https: {{ address: 127.0.0.1:0, tls: {{ self_signed: [localhost], client_ca: clients.pem }} }}
routes:
  - {{ name: partner, match: {{ path: /partner }}, verify: {verify}, upstream: \"{}\" }}
{}",
        app.url(),
        open_route(app)
    );
    let pem = authority.pem();
    Gateway::start_with(&config, &[], |dir| {
        std::fs::write(dir.join("clients.pem"), pem).unwrap();
    })
}

#[test]
fn client_certificates_are_checked_against_their_names() {
    // SECURITY A-49
    let app = App::start();
    let authority = Authority::new();
    let verify = "[{ client_cert: { san: [sender.example.org, 192.0.2.7] } }]";
    let gateway = with_client_ca(&app, verify, &authority);
    let address = gateway.address("https");
    let ask = |client| {
        let mut wire = Tls {
            client,
            ..Tls::default()
        }
        .connect(address)
        .unwrap();
        wire.exchange("POST", "/partner", &[], b"x")
    };

    let answer = ask(None);
    gateway.refused(&answer, 401, "credential_missing");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("ClientCertificate realm=\"partner\"")
    );
    let answer = ask(Some(authority.issue(&["other.example.org"]).for_client()));
    gateway.refused(&answer, 401, "credential_invalid");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("ClientCertificate realm=\"partner\"")
    );
    app.saw_nothing();

    for names in [
        &["sender.example.org"][..],
        &["x.example.org", "SENDER.example.org"],
        &["192.0.2.7"],
    ] {
        let answer = ask(Some(authority.issue(names).for_client()));
        gateway.forwarded(&answer, 200);
        assert_eq!(
            app.last().header("x-hookward-verified"),
            Some("client_cert")
        );
    }
    // Other routes of the listener ask for none.
    assert_eq!(gateway.post("/open", &[], b"x").status, 200);
}

#[test]
fn certificates_that_the_authority_did_not_issue_or_that_ended_end_the_handshake() {
    // SECURITY A-49
    let app = App::start();
    let authority = Authority::new();
    let gateway = with_client_ca(
        &app,
        "[{ client_cert: { san: [sender.example.org] } }]",
        &authority,
    );
    let foreign = Authority::new().issue(&["sender.example.org"]);
    let expired = authority.issue_expired(&["sender.example.org"]);
    for identity in [foreign, expired] {
        let client = Some(identity.for_client());
        // TLS 1.3 clients learn of it when they first read.
        let answer = Tls {
            client,
            ..Tls::default()
        }
        .connect(gateway.address("https"))
        .ok()
        .and_then(|mut wire| {
            wire.write("POST", "/partner", &[], b"x");
            wire.answer()
        });
        assert!(answer.is_none(), "{answer:?}");
    }
    gateway.wait_for_metric("hookward_tls_handshake_failures_total", 2);
    app.saw_nothing();
}

#[test]
fn noise_on_either_port_is_closed() {
    // SECURITY SM-41, DS-06
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut wire = Wire::plain(gateway.address("https"));
    let answer = wire
        .send(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .rest();
    assert!(
        !answer.starts_with(b"HTTP/"),
        "plain HTTP was answered on a TLS port"
    );
    gateway.wait_for_metric("hookward_tls_handshake_failures_total", 1);
    // A probe of the port is no handshake: it is over by the time that the next request is answered.
    Wire::plain(gateway.address("https")).end();
    let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3];
    let answer = gateway.plain().last_answer(&hello);
    assert!(answer.is_none_or(|answer| answer.status == 400));
    assert_eq!(gateway.post("/open", &[], b"x").status, 200);
    gateway.wait_for_metric("hookward_connections", 0);
    let failures = gateway.metric("hookward_tls_handshake_failures_total", &[]);
    assert_eq!((failures, app.count()), (Some(1), 1));
}

#[test]
fn a_handshake_that_does_not_come_is_not_waited_for() {
    // SECURITY DS-04
    let app = App::start();
    let gateway = Gateway::start(&super::support::config_with(
        "limits: { tls_handshake_timeout: 300ms }",
        &open_route(&app),
    ));
    let start = Instant::now();
    let mut silent = Wire::plain(gateway.address("https"));
    let mut half = Wire::plain(gateway.address("https"));
    half.send(&[0x16, 3, 1, 2, 0, 1]);
    assert!(silent.is_closed());
    half.rest();
    let waited = start.elapsed().as_millis();
    assert!((250..5000).contains(&waited), "{waited} ms");
    gateway.wait_for_metric("hookward_tls_handshake_failures_total", 2);
    assert_eq!(gateway.post("/open", &[], b"x").status, 200);
}

/// A plaintext listener that does this, with more of its keys.
fn plaintext(app: &App, what: &str) -> Gateway {
    Gateway::start(&format!(
        "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners:
  http: {{ address: 127.0.0.1:0, plaintext: {what} }}
routes:
{}",
        open_route(app)
    ))
}

#[test]
fn a_rejecting_plain_listener_answers_403_whatever_is_asked() {
    // SECURITY RT-37
    let app = App::start();
    let gateway = plaintext(&app, "reject");
    // What a credential is worth in the open is not looked at, and it is in no log.
    let canary = ("Authorization", "Basic Y2FuYXJ5OmNhbmFyeQ==");
    for (path, fields) in [
        ("/open", &[][..]),
        ("/nowhere", &[]),
        ("/open?auth=canary", &[canary]),
    ] {
        let answer = gateway.plain().exchange("POST", path, fields, b"x");
        let event = gateway.refused(&answer, 403, "https_required");
        assert_eq!(event["route"], "_none");
        assert!(!event.to_string().contains("canary"), "{event}");
        assert_eq!(answer.header("location"), None);
    }
    assert!(!gateway.stderr().contains("canary"));
    assert!(gateway.requests("_none", "rejected", "https_required") >= 2);
    app.saw_nothing();
}

#[test]
fn a_redirecting_plain_listener_keeps_the_method_and_sends_to_the_public_url() {
    // SECURITY RT-36, RT-38
    let app = App::start();
    let gateway = plaintext(&app, "redirect");
    let ask = |gateway: &Gateway, host: &str, path: &str| {
        gateway
            .plain()
            .exchange("POST", path, &[("Host", host)], b"x")
    };
    let answer = ask(&gateway, "hooks.example.org", "/open?a=1&b=%zz");
    assert_eq!(answer.status, 308);
    assert_eq!(
        answer.header("location"),
        Some("https://hooks.example.org/open?a=1&b=%zz")
    );
    assert_eq!(gateway.event()["status"], 308);
    // A bad Host is malformed, not a target.
    gateway.refused(
        &ask(&gateway, "evil.example/x?", "/open"),
        400,
        "malformed_request",
    );

    let gateway = plaintext(
        &app,
        "redirect, public_url: \"https://hooks.example.org:8443\"",
    );
    let answer = ask(&gateway, "evil.example", "/open?a=1");
    assert_eq!(answer.status, 308);
    let location = "https://hooks.example.org:8443/open?a=1";
    assert_eq!(answer.header("location"), Some(location));
    assert_eq!(gateway.event()["status"], 308);
    gateway.refused(
        &ask(&gateway, "evil.example", "//evil.example/p"),
        400,
        "malformed_request",
    );
    app.saw_nothing();
}

#[test]
fn an_allowing_plain_listener_serves_and_says_so_to_the_app() {
    let app = App::start();
    let gateway = plaintext(&app, "allow");
    gateway.forwarded(&gateway.plain().exchange("POST", "/open", &[], b"x"), 200);
    assert_eq!(app.last().header("x-forwarded-proto"), Some("http"));
}

/// One request of a client that remembers its sessions, and what its handshake was.
fn revisit(client: &Arc<ClientConfig>, address: SocketAddr) -> HandshakeKind {
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream
        .write_all(b"POST /open HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    stream.conn.handshake_kind().unwrap()
}

#[test]
fn sessions_are_resumed_under_the_settings_they_were_made_under_and_no_others() {
    // SECURITY T-10
    let app = App::start();
    let text = config(&open_route(&app));
    let other = text.replace("[localhost,", "[localhost, more.example.org,");
    assert_ne!(other, text);
    let gateway = Gateway::start(&text);
    let address = gateway.address("https");
    let older = Tls {
        versions: &[&TLS12],
        ..Tls::default()
    };
    let client = Arc::new(older.config());
    let full = HandshakeKind::Full;
    assert_eq!(revisit(&client, address), full);
    assert_eq!(revisit(&client, address), HandshakeKind::Resumed);
    // A reload that leaves the listener's TLS alone leaves its sessions alone.
    gateway.reload(&format!("{text}\n"), "success");
    assert_eq!(revisit(&client, address), HandshakeKind::Resumed);
    gateway.reload(&other, "success");
    assert_eq!(revisit(&client, address), full);
    assert_eq!(revisit(&client, address), HandshakeKind::Resumed);
    // Nor does one survive its process: the client's ticket is politely passed over.
    let restarted = Gateway::start(&other);
    assert_eq!(revisit(&client, restarted.address("https")), full);
    assert_eq!(app.count(), 6);
}

#[test]
fn sessions_of_tls_1_3_are_not_resumed() {
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let client = Arc::new(Tls::default().config());
    for _ in 0..2 {
        let kind = revisit(&client, gateway.address("https"));
        assert_eq!(kind, HandshakeKind::Full);
    }
    assert_eq!(app.count(), 2);
}
