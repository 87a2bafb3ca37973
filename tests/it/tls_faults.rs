//! TLS where something is off: doubtful certificates, early data, floods within a session, a wrong clock.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::support::authority::Identity;
use super::support::{
    App, Authority, Gateway, SECRET, Tls, any_certificate, config, faketime, github, now,
    open_route, stripe, two_routes,
};

/// What public authorities put into certificates: where that of their intermediate is (RFC 5280 4.2.2.1).
fn place_of_the_issuer() -> CustomExtension {
    let url = b"http://ca.example.org/issuer.cer";
    let ca_issuers = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02";
    let tagged = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        [&[tag, u8::try_from(content.len()).unwrap()], &content[..]].concat()
    };
    let description = tagged(0x30, &[ca_issuers, &tagged(0x86, &[url])]);
    let content = tagged(0x30, &[&description]);
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A certificate of `authority` for these names, from one year to another.
fn issued(authority: &Authority, (from, until): (i32, i32), names: &[&str]) -> Identity {
    let mut params = named("hooks");
    for name in names {
        let name = (*name).try_into().unwrap();
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params.custom_extensions.push(place_of_the_issuer());
    authority.issue_from(&params)
}

/// A gateway with this certificate, followed in its file by `rest`.
fn serving(app: &App, identity: &Identity, rest: &str) -> Gateway {
    let text = format!(
        "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners:
  https: {{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: tls.pem, key: tls.key }}] }} }}
routes:
{}",
        open_route(app)
    );
    Gateway::start_with(&text, &[], |dir| {
        identity.write(dir, "tls");
        fs::write(dir.join("tls.pem"), format!("{}{rest}", identity.cert_pem)).unwrap();
    })
}

#[test]
fn a_doubtful_certificate_is_served_with_a_warning() {
    // SECURITY T-03
    let app = App::start();
    let authority = Authority::new();
    let stranger = named("a stranger").self_signed(&KeyPair::generate().unwrap());
    let (own, strange) = (authority.pem(), stranger.unwrap().pem());
    let (good, names) = ((2000, 2099), &["localhost"][..]);
    for (years, names, rest, expected) in [
        (good, names, &*own, None),
        ((2000, 2001), names, &own, Some("expired at 2001-01-01T00")),
        (
            (2090, 2099),
            names,
            &own,
            Some("only valid from 2090-01-01"),
        ),
        (good, names, "", Some("lacks the certificate of the issuer")),
        (good, names, &strange, Some("not each followed by their")),
        (good, &[], &own, Some("has no subjectAltName")),
    ] {
        let identity = issued(&authority, years, names);
        let gateway = serving(&app, &identity, rest);
        let stderr = gateway.stderr();
        let about_it = |line: &&str| line.contains("warning") && line.contains("[0].cert:");
        let warnings: Vec<_> = stderr.lines().filter(about_it).collect();
        match expected {
            None => assert!(warnings.is_empty(), "{stderr}"),
            Some(expected) => assert!(
                warnings.len() == 1 && warnings[0].contains(expected),
                "{expected}: {stderr}"
            ),
        }
        let mut wire = Tls::default().connect(gateway.address("https")).unwrap();
        let served = &wire.session.as_ref().unwrap().certificate;
        assert_eq!(served, &identity.chain[0]);
        assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
        let ends = "hookward_tls_certificate_not_after_timestamp_seconds";
        assert!(gateway.metric(ends, &[("name", "tls.pem")]).unwrap() > 0);
    }
}

/// A session whose TLS state the test drives itself.
type Driven = StreamOwned<ClientConnection, TcpStream>;

fn connect(gateway: &Gateway, config: &Arc<ClientConfig>) -> Driven {
    let socket = TcpStream::connect(gateway.address("https")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = StreamOwned::new(
        ClientConnection::new(Arc::clone(config), name).unwrap(),
        socket,
    );
    while session.conn.is_handshaking() {
        session.conn.complete_io(&mut session.sock).unwrap();
    }
    session
}

/// The status of the answer to a POST of `body`, after which the gateway closes.
fn post(session: &mut Driven, body: &[u8]) -> String {
    let head = format!(
        "POST /open HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    session.write_all(head.as_bytes()).unwrap();
    session.write_all(body).unwrap();
    let mut answer = Vec::new();
    drop(session.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer[..12]).into_owned()
}

#[test]
fn no_session_may_send_early_data() {
    // SECURITY T-07: there is no ticket to send it under
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut client = (*any_certificate(&[b"http/1.1"])).clone();
    client.enable_early_data = true;
    let client = Arc::new(client);
    assert_eq!(post(&mut connect(&gateway, &client), b"x"), "HTTP/1.1 200");
    let mut again = connect(&gateway, &client);
    assert!(!again.conn.is_early_data_accepted());
    assert_eq!(post(&mut again, b"x"), "HTTP/1.1 200");
    let name = ServerName::try_from("localhost").unwrap();
    let mut offered = ClientConnection::new(client, name).unwrap();
    assert!(offered.early_data().is_none(), "there was a ticket for it");
    assert_eq!(app.count(), 2);
}

#[test]
fn key_updates_and_tiny_records_starve_nobody() {
    // SECURITY T-09
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let client = any_certificate(&[b"http/1.1"]);
    let mut flood = connect(&gateway, &client);
    for _ in 0..5_000 {
        flood.conn.refresh_traffic_keys().unwrap();
        // The gateway may end such a session; it must not fall over it.
        if flood.conn.complete_io(&mut flood.sock).is_err() {
            break;
        }
    }
    assert_eq!(gateway.post("/open", &[], b"x").status, 200);
    drop(flood);

    let mut tiny = (*client).clone();
    tiny.max_fragment_size = Some(32);
    let body = vec![b'x'; 200_000];
    let mut session = connect(&gateway, &Arc::new(tiny));
    assert_eq!(post(&mut session, &body), "HTTP/1.1 200");
    assert!(app.last().body == body, "the records come together again");
}

#[test]
fn a_wrong_clock_refuses_what_it_dates_and_serves_the_rest() {
    // SECURITY T-12
    let app = App::start();
    let routes = format!(
        "{}  - name: stripe
    match: {{ path: /stripe }}
    verify: [{{ provider: stripe, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{}\"\n",
        two_routes(&app),
        app.url()
    );
    let library = faketime();
    for (offset, reason) in [("+2d", "timestamp_stale"), ("-2d", "timestamp_ahead")] {
        let clock = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let gateway = Gateway::start_with(&config(&routes), &clock, |_| {});
        for path in ["/open", "/github"] {
            let (name, value) = github(b"x");
            let answer = gateway.post(path, &[(&name, &value)], b"x");
            gateway.forwarded(&answer, 200);
        }
        let signature = stripe(b"x", now());
        let answer = gateway.post("/stripe", &[("Stripe-Signature", &signature)], b"x");
        gateway.refused(&answer, 401, reason);
        let days = i64::from(offset == "+2d") * 4 - 2;
        let signature = stripe(b"x", now() + days * 86_400);
        let answer = gateway.post("/stripe", &[("Stripe-Signature", &signature)], b"x");
        gateway.forwarded(&answer, 200);
    }
}
