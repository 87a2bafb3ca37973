//! Keys that are fetched while serving: `jwks_url`, over real TLS, from a server that can be away.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use hookward::gateway::whole::AT_ONCE_BYTES_MAX;
use hookward::scheme::public_key::{PrivateKey, SignatureAlgorithm};
use rcgen::{KeyPair, PublicKeyData};

use super::support::{App, Authority, Gateway, Reply, config, eventually};

/// A sender's key, and what it publishes of it.
struct Sender {
    key: PrivateKey,
    jwks: String,
}

impl Sender {
    fn new(kid: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let x = BASE64URL_NOPAD.encode(pair.der_bytes());
        let jwk = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x });
        Self {
            key: PrivateKey::parse(&pair.serialize_der()).unwrap(),
            jwks: serde_json::json!({ "keys": [jwk] }).to_string(),
        }
    }

    fn sign(&self, body: &[u8]) -> String {
        BASE64.encode(&self.key.sign(SignatureAlgorithm::Ed25519, &[body]).unwrap())
    }

    fn published(&self) -> Reply {
        let length = self.jwks.len();
        Reply::raw(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}",
            self.jwks
        ))
    }
}

/// A gateway whose only route verifies with the keys at `keys`, trusting `authority`.
fn start(app: &App, keys: &App, authority: &Authority) -> Gateway {
    let routes = format!(
        "  - name: signed
    match: {{ path: /in }}
    verify:
      - scheme: {{ algorithm: ed25519, signature: {{ header: X-Sig, encoding: base64 }}, signed: \"{{body}}\" }}
        jwks_url: https://localhost:{}/keys
    upstream: \"{}\"
",
        keys.address().port(),
        app.url()
    );
    // The gateway fetches when it starts: where its roots are must be known before its folder is.
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), authority.pem()).unwrap();
    let gateway = Gateway::start_with(
        &config(&routes),
        &[("SSL_CERT_FILE", roots.path().to_str().unwrap())],
        |_| {},
    );
    eventually("the first fetch", || {
        let count = |result| {
            let series = "hookward_key_fetches_total";
            gateway.metric(series, &[("result", result)]).unwrap()
        };
        (count("success") + count("failure") > 0).then_some(())
    });
    gateway
}

#[test]
fn keys_are_fetched_once_and_verify() {
    // SECURITY DS-31, A-32
    let (app, authority, sender) = (App::start(), Authority::new(), Sender::new("a"));
    let keys = App::on_tls(&authority.issue(&["localhost"]), None);
    keys.script([sender.published()]);
    let gateway = start(&app, &keys, &authority);
    let body = b"{\"n\":1}";
    for _ in 0..5 {
        let answer = gateway.post("/in", &[("X-Sig", &sender.sign(body))], body);
        assert_eq!(answer.status, 200);
    }
    assert_eq!(
        app.wait_for(5).last().unwrap().header("x-hookward-key-id"),
        Some("a")
    );
    let other = Sender::new("a").sign(body);
    let answer = gateway.post("/in", &[("X-Sig", &other)], body);
    assert_eq!(answer.status, 401);
    assert_eq!(keys.count(), 1);
    // A body that is judged on another thread finds the same keys there.
    let large = vec![b'x'; AT_ONCE_BYTES_MAX + 1];
    for (signature, status) in [(sender.sign(&large), 200), (sender.sign(body), 401)] {
        let answer = gateway.post("/in", &[("X-Sig", &signature)], &large);
        assert_eq!(answer.status, status);
    }
    let fetched = gateway.metric("hookward_key_fetches_total", &[("result", "success")]);
    assert_eq!(fetched, Some(1));
}

#[test]
fn without_keys_nothing_passes() {
    // SECURITY A-32: an authority that the gateway does not know, a redirect, a document without keys.
    let (app, authority, sender) = (App::start(), Authority::new(), Sender::new("a"));
    let foreign = App::on_tls(&Authority::new().issue(&["localhost"]), None);
    foreign.script([sender.published()]);
    let moved = App::on_tls(&authority.issue(&["localhost"]), None);
    moved.script([
        Reply::raw("HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"),
        sender.published(),
    ]);
    let empty = App::on_tls(&authority.issue(&["localhost"]), None);
    let body = b"{\"n\":1}";
    let signature = sender.sign(body);
    for (keys, requests) in [(foreign, 0), (moved, 1), (empty, 1)] {
        let gateway = start(&app, &keys, &authority);
        for _ in 0..3 {
            let answer = gateway.post("/in", &[("X-Sig", &signature)], body);
            assert_eq!(answer.status, 503);
            assert_eq!(gateway.event()["reason"], "key_unavailable");
        }
        assert_eq!(keys.count(), requests);
        let failed = gateway.metric("hookward_key_fetches_total", &[("result", "failure")]);
        assert_eq!(failed, Some(1));
        eventually("a word in the log", || {
            let said = gateway.stderr();
            let has = |line: &str| {
                line.contains("keys not fetched") && line.contains("https://localhost:")
            };
            said.lines().any(has).then_some(())
        });
    }
    app.saw_nothing();
}
