//! `send`: signs, delivers, prints status and body.

use super::{Ended, Shell};
use crate::support::app::Reply;
use crate::support::authority::Identity;
use crate::support::{App, Gateway, SECRET};

const CONFIG: &str = "\
version: 1
listeners:
  https: { address: 127.0.0.1:0, tls: { certificates: [{ cert: DIR/server.pem, key: DIR/server.key }] } }
  http: { address: 127.0.0.1:0, plaintext: allow }
routes:
  - { name: gh, match: { path: /gh }, verify: [{ provider: github, secrets: [env:S] }], upstream: echo }
";

fn send(shell: &Shell, to: &str, more: &[&str]) -> Ended {
    let secret = format!("value:{SECRET}");
    let args = [
        "send",
        "--provider",
        "github",
        "--secret",
        &secret,
        "--body",
        "body",
        "--to",
        to,
    ];
    shell.run(&[&args[..], more].concat())
}

/// A gateway with a certificate for localhost, and the certificate.
fn gateway() -> (Gateway, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let pem = certificate.pem();
    let gateway = Gateway::start_with(CONFIG, &[("S", SECRET)], |dir| {
        std::fs::write(dir.join("server.pem"), &pem).unwrap();
        std::fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
    });
    (gateway, pem)
}

#[test]
fn a_delivery_over_tls() {
    let (gateway, pem) = gateway();
    let to = format!("https://localhost:{}/gh", gateway.address("https").port());
    let shell = Shell::new().with("body", "{\"a\":1}").with("ca.pem", pem);
    let ended = send(&shell, &to, &["--cacert", "ca.pem"]).code(0);
    assert!(
        ended.stdout.starts_with("200 OK\n") && ended.stderr.is_empty(),
        "{ended:?}"
    );
    assert!(
        ended.stdout.contains("provider:github") && ended.stdout.ends_with('\n'),
        "{ended:?}"
    );
    send(&shell, &to, &["--insecure"]).code(0);
    // An authority that is not the system's.
    send(&shell, &to, &[]).code(2);
    // A name that the certificate does not carry.
    let other = to.replace("localhost", "127.0.0.1");
    send(&shell, &other, &["--cacert", "ca.pem"]).unable("TLS handshake");
}

#[test]
fn a_server_may_show_the_very_certificate_that_is_given() {
    let own = Identity::self_signed(&["localhost"]);
    let other = Identity::self_signed(&["localhost"]);
    let app = App::on_tls(&own, None);
    let shell = Shell::new()
        .with("body", "x")
        .with("own.pem", &own.cert_pem)
        .with("other.pem", &other.cert_pem);
    let to = format!("https://localhost:{}/", app.address().port());
    send(&shell, &to, &["--cacert", "own.pem"]).code(0);
    send(&shell, &to, &["--cacert", "other.pem"]).unable("with `--cacert`");
    let by_address = to.replace("localhost", "127.0.0.1");
    send(&shell, &by_address, &["--cacert", "own.pem"]).unable("not valid for name");
    assert_eq!(app.count(), 1);
}

#[test]
fn what_keeps_tls_from_working_is_said() {
    let (gateway, _) = gateway();
    let shell = Shell::new().with("body", "x");
    let port = gateway.address("https").port();
    let tls = format!("https://localhost:{port}/gh");
    let ended = send(&shell, &tls, &[]).unable("`--cacert FILE`");
    assert!(ended.stderr.contains("`--insecure`"), "{ended:?}");
    let plain = tls.replace("https:", "http:");
    send(&shell, &plain, &[]).unable("it speaks TLS: write `https://`");
    let to = format!("https://{}/gh", gateway.address("http"));
    send(&shell, &to, &["--insecure"]).unable("does not speak TLS");
}

#[test]
fn user_and_password_of_a_url_are_sent_and_not_shown() {
    let app = App::start();
    let shell = Shell::new().with("body", "x");
    let url = app.url().replace("http://", "http://ann:can%61ry@");
    send(&shell, &format!("{url}/p?t=canary"), &[]).code(0);
    let seen = app.last();
    assert_eq!(seen.header("authorization"), Some("Basic YW5uOmNhbmFyeQ=="));
    assert!(!seen.header("host").unwrap().contains('@'));
    send(&shell, &url, &["--header", "Authorization: Bearer b"]).code(0);
    assert_eq!(app.last().header("authorization"), Some("Bearer b"));
    for to in [
        "http://ann:canary@127.0.0.1:1/?t=canary",
        "http:/ann:canary@h/",
        "ftp://a:canary@h",
    ] {
        let ended = send(&shell, to, &[]).code(2);
        assert!(!ended.stderr.contains("canary"), "{ended:?}");
    }
}

#[test]
fn another_status_exits_1() {
    let (gateway, _) = gateway();
    let to = format!("http://{}/gh", gateway.address("http"));
    let shell = Shell::new().with("body", "x");
    let wrong = [
        "send",
        "--provider",
        "github",
        "--secret",
        "value:not the secret",
        "--body",
        "body",
        "--to",
        &to,
    ];
    let ended = shell.run(&wrong).code(1);
    assert!(ended.stdout.starts_with("401 Unauthorized\n"), "{ended:?}");
    let ended = send(&shell, &to.replace("/gh", "/nowhere"), &[]).code(1);
    assert!(ended.stdout.starts_with("404 Not Found\n"), "{ended:?}");
}

#[test]
fn a_body_that_is_too_long_is_cut() {
    let app = App::start();
    let shell = Shell::new().with("body", "x");
    let most = 16 << 20;
    let long = [
        ("200 OK", 0, most),
        ("200 OK", 0, most + 1),
        ("500 Internal Server Error", 1, most + 1),
    ];
    for (status, code, length) in long {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
        let answer = [head.into_bytes(), vec![b'a'; length]].concat();
        app.script([Reply::RawThenClose(answer)]);
        let ended = send(&shell, &app.url(), &[]).code(code);
        let (first, body) = ended.stdout.split_once('\n').unwrap();
        assert_eq!((first, body.trim_end().len()), (status, most));
        let is_told = ended.stderr.contains("longer than 16MiB and is cut");
        assert_eq!(is_told, length > most, "{}", ended.stderr);
    }
}

#[test]
fn the_request_is_the_one_that_sign_makes() {
    let app = App::start();
    let shell = Shell::new().with("body", "{\"a\":1}");
    let url = format!("{}/p?x=1", app.url());
    send(&shell, &url, &["--header", "X-A: b", "--method", "PUT"]).code(0);
    let seen = app.last();
    assert_eq!(seen.line(), "PUT /p?x=1 HTTP/1.1");
    assert_eq!(seen.body, b"{\"a\":1}");
    assert_eq!(seen.header("x-a"), Some("b"));
    assert_eq!(
        seen.header("host"),
        url.strip_prefix("http://").unwrap().split('/').next()
    );
    let (_, signature) = crate::support::github(b"{\"a\":1}");
    assert_eq!(seen.header("x-hub-signature-256"), Some(&*signature));
}

#[test]
fn the_url_that_is_signed_may_be_another() {
    let app = App::start();
    let shell = Shell::new().with("body", "");
    let url = ["--url", "https://hooks.example.org/public?x=1"];
    send(&shell, &format!("{}/inner", app.url()), &url).code(0);
    let seen = app.last();
    assert_eq!(seen.line(), "POST /inner?x=1 HTTP/1.1");
    assert_eq!(seen.headers("host"), ["hooks.example.org"]);
}

#[test]
fn what_cannot_be_delivered_exits_2() {
    let shell = Shell::new().with("body", "x").with("ca.pem", "nothing");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    send(&shell, &format!("http://{free}/"), &[]).unable("cannot connect");
    send(&shell, "http://127.0.0.1:99999/", &[]).unable("not a port");
    send(&shell, "127.0.0.1", &[]).unable("not a URL");
    send(&shell, "http://[::1/", &[]).unable("`http://[::1/` is not a URL");
    // Before anything is connected to, and without waiting for the end of what has none.
    let to = format!("https://{free}/");
    send(&shell, &to, &["--cacert", "ca.pem"]).unable("no certificate in `ca.pem`");
    send(&shell, &to, &["--cacert", "mistyped.pem"]).unable("cannot read mistyped.pem");
    send(&shell, &to, &["--cacert", "/dev/zero"]).unable("larger than 64 MiB");
    let app = App::start();
    app.script([Reply::Silence]);
    send(&shell, &app.url(), &["--timeout", "200ms"]).unable("no answer within 200ms");
    app.script([Reply::RawThenClose(b"junk\r\n\r\n".to_vec())]);
    send(&shell, &app.url(), &[]).code(2);
}
