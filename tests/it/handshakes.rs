//! Handshakes: every case of the vectors against a gateway that listens, and what keeps an answer from
//! becoming a weapon.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use data_encoding::BASE64;
use hookward::config::{Environment, load_text};
use hookward::gateway::keys::{Fetch, Fetched, Fetching, HttpsUrl, Reach};
use hookward::net::connections::Connections;
use hookward::net::http::Shutdown;
use hookward::net::listener::{Endpoint, Worker, accept, bind, listen};
use hookward::net::tls::TlsAcceptor;
use hookward::scheme::catalog::Catalog;
use hookward::scheme::sign::Draft;
use hookward::scheme::{KeyKind, Params, SenderUrl};
use hookward::settings::Transport;
use hookward::telemetry::{SharedSeldom, Telemetry};
use hookward::units::UnixTime;
use rustls::pki_types::TrustAnchor;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::support::{
    Answer, App, Gateway, SECRET, Tls, World, config, data_path, eventually, hmac_hex, loaded,
};
use super::vectors::{Case, cases};

// === every vector ===

/// Where `now` does not matter.
const NOW: i64 = 1_767_225_600;

/// A gateway in this process, for its clock can be set.
struct Served {
    address: std::net::SocketAddr,
    telemetry: Telemetry,
}

impl Served {
    /// Serves a configuration with one TLS listener and echoing routes, at `now`.
    fn start(text: &str, env: &Environment, now: UnixTime, web: Arc<dyn Fetch>) -> Self {
        let config = loaded(text, env);
        let listener = config.listeners[0].clone();
        let Transport::Tls(tls) = &listener.transport else {
            panic!("the listener has no TLS")
        };
        let world = World {
            web,
            start: now,
            ..World::default()
        };
        let (gateway, _) = data_path(config, world);
        let telemetry = gateway.telemetry().clone();
        let socket = bind(listener.address).unwrap();
        listen(&socket).unwrap();
        let address = socket.local_addr().unwrap();
        let endpoint = Arc::new(Endpoint {
            name: Arc::clone(&listener.name),
            address,
            tls: ArcSwapOption::from_pointee(TlsAcceptor::new(tls).unwrap()),
            is_kept_by_manager: false,
            shutdown: Shutdown::default(),
            said_stuck: SharedSeldom::default(),
            said_full: Default::default(),
            closed: CancellationToken::new(),
        });
        let worker = Worker {
            gateway: Arc::new(gateway),
            connections: Arc::new(Connections::default()),
            challenges: Arc::default(),
            handshakes: Arc::new(Semaphore::new(1)),
            tasks: TaskTracker::new(),
            shutdown: Shutdown::default(),
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(socket).unwrap();
                accept(listener, endpoint, worker).await;
            });
        });
        Self { address, telemetry }
    }

    /// The access event of a route.
    fn event(&self, route: &str) -> Value {
        eventually("an access event", || {
            let lines = self.telemetry.access.captured();
            let events = lines
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            events.into_iter().find(|event| event["route"] == route)
        })
    }
}

/// The routes of these cases, one each, told apart by host.
fn routes(chosen: &[(usize, &Case)], all: &[Case], env: &mut Vec<(String, String)>) -> String {
    let mut text = "version: 1
listeners: { https: { address: 127.0.0.1:0, tls: { self_signed: [\"*.handshakes.test\"] } } }
routes:
"
    .to_owned();
    for (index, case) in chosen {
        let selected = Catalog::built_in().find(&case.preset).unwrap();
        let scheme = selected.bind(&case.params, None).unwrap();
        let mut secrets = case.secrets.clone();
        let mut public_keys = case.public_keys.clone();
        match scheme.key_kind() {
            // A case that needs no key says none; a route has one all the same.
            KeyKind::Secret if secrets.is_empty() => secrets.push(SECRET.to_owned()),
            KeyKind::Public if public_keys.is_empty() => {
                let other = all
                    .iter()
                    .find(|other| other.preset == case.preset && !other.public_keys.is_empty());
                public_keys.clone_from(&other.unwrap().public_keys);
                secrets.clear();
            }
            KeyKind::None | KeyKind::Public | KeyKind::Secret => {}
        }
        let mut keys = String::new();
        for (key, values) in [("secrets", secrets), ("public_keys", public_keys)] {
            let mut references = Vec::new();
            for value in values {
                let name = format!("KEY_{}", env.len());
                references.push(format!("env:{name}"));
                env.push((name, value));
            }
            if !references.is_empty() {
                writeln!(keys, "        {key}: {}", json!(references)).unwrap();
            }
        }
        let path = target(case).split('?').next().unwrap();
        write!(
            text,
            "  - name: case-{index}
    match: {{ host: case-{index}.handshakes.test, path: \"{path}\" }}
    verify:
      - provider: {}
        params: {}
{keys}    upstream: echo
",
            case.preset,
            json!(case.params),
        )
        .unwrap();
    }
    text
}

fn target(case: &Case) -> &str {
    let (_, rest) = case.url.split_once("://").unwrap();
    &rest[rest.find('/').unwrap()..]
}

/// What is wrong with the answer, and with what is said about it.
fn judge(case: &Case, expected: &Value, answer: &Answer, event: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut hold = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    hold(
        expected["status"] == answer.status,
        format!("status {}", answer.status),
    );
    let body = expected["body"].as_str().unwrap();
    let same = match expected["body_compare"].as_str().unwrap() {
        "exact" => body.as_bytes() == answer.body,
        "json" => {
            serde_json::from_str::<Value>(body).ok() == serde_json::from_slice(&answer.body).ok()
        }
        other => panic!("`{other}` compares nothing"),
    };
    hold(same, format!("body {:?}", answer.text()));
    let mut known = vec!["x-request-id", "content-length", "date"];
    for field in expected["headers"].as_array().unwrap() {
        let (name, value) = (field[0].as_str().unwrap(), field[1].as_str().unwrap());
        hold(
            answer.header(name) == Some(value),
            format!("{name} {:?}", answer.header(name)),
        );
    }
    let is_answered = case.expect == "handshake";
    if is_answered {
        known.extend(["content-type", "x-content-type-options"]);
        hold(
            answer.header("x-content-type-options") == Some("nosniff"),
            "no nosniff".to_owned(),
        );
    } else {
        known.extend(["www-authenticate", "allow"]);
    }
    let names = expected["headers"].as_array().unwrap().iter();
    let names: Vec<String> = names
        .map(|field| field[0].as_str().unwrap().to_lowercase())
        .collect();
    for (name, _) in &answer.headers {
        let is_known = known.contains(&name.as_str()) || names.contains(name);
        hold(is_known, format!("a field too many: {name}"));
    }
    hold(
        answer.header("x-request-id").is_some(),
        "no request id".to_owned(),
    );
    let outcome = if is_answered { "handshake" } else { "rejected" };
    hold(event["outcome"] == outcome, format!("event {event}"));
    hold(
        event["upstream_status"].is_null(),
        "the upstream was asked".to_owned(),
    );
    wrong
}

#[test]
fn every_vector_gets_its_answer() {
    let all = cases();
    let mut by_time: HashMap<i64, Vec<(usize, &Case)>> = HashMap::new();
    for (index, case) in all
        .iter()
        .enumerate()
        .filter(|(_, case)| case.kind == "handshake")
    {
        by_time
            .entry(case.now.unwrap_or(NOW))
            .or_default()
            .push((index, case));
    }
    let count: usize = by_time.values().map(Vec::len).sum();
    assert!(count >= 50, "{count}");
    let mut wrong = Vec::new();
    for (now, chosen) in by_time {
        let now = UnixTime::from_secs(now);
        let mut env = Vec::new();
        let text = routes(&chosen, &all, &mut env);
        let env = Environment::from_pairs(env).at(now);
        let served = Served::start(&text, &env, now, Arc::new(Web::default()));
        for (index, case) in chosen {
            let host = format!("case-{index}.handshakes.test");
            let mut wire = Tls {
                name: &host,
                ..Tls::default()
            }
            .connect(served.address)
            .unwrap();
            let mut headers = vec![("Host", host.as_str())];
            headers.extend(
                case.headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            );
            let body = BASE64.decode(case.body_base64.as_bytes()).unwrap();
            let answer = wire.exchange(&case.method, target(case), &headers, &body);
            let event = served.event(&format!("case-{index}"));
            let expected = case.expect_response.as_ref().unwrap();
            for what in judge(case, expected, &answer, &event) {
                wrong.push(format!("{}: {}: {what}", case.preset, case.case));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong of {count} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

// === what keeps an answer from becoming a weapon ===

/// A gateway with one route `hooks` at `/in`, and the app behind it.
fn guarded(checks: &str, more: &str) -> (Gateway, App) {
    let app = App::start();
    let route = format!(
        "  - name: hooks
    match: {{ path: /in }}
    verify: [{checks}]
    upstream: \"{}\"
{more}",
        app.url()
    );
    let env = [
        ("SECRET", SECRET),
        ("VERIFY", "a verify token of some length"),
    ];
    (Gateway::start_with(&config(&route), &env, |_| {}), app)
}

fn provider(name: &str) -> String {
    format!("{{ provider: {name}, secrets: [env:SECRET] }}")
}

fn ask(
    gateway: &Gateway,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    gateway
        .tls()
        .exchange(method, target, headers, body.as_bytes())
}

/// Asserts a refusal without a body, and why it was.
fn refused(gateway: &Gateway, answer: &Answer, status: u16, reason: &str) {
    let event = gateway.event();
    assert_eq!(
        (answer.status, event["reason"].as_str()),
        (status, Some(reason)),
        "{event}"
    );
    assert_eq!(event["outcome"], "rejected");
    assert_eq!(answer.text(), "");
}

fn answered(gateway: &Gateway, answer: &Answer, status: u16) {
    let event = gateway.event();
    assert_eq!(
        (answer.status, event["outcome"].as_str()),
        (status, Some("handshake")),
        "{event}"
    );
    assert_eq!(event["upstream_status"], Value::Null);
}

#[test]
fn what_an_answer_signs_is_no_delivery() {
    // SECURITY A-46: Wrike wants an HMAC of an unsigned field in the answer to each delivery.
    let (gateway, app) = guarded(&provider("wrike"), "");
    let body = "[{\"taskId\":1}]";
    let signature = hmac_hex("sha256", SECRET, body.as_bytes());
    let fields = [
        ("X-Hook-Signature", &*signature),
        ("X-Hook-Secret", "31337"),
    ];
    let answer = ask(&gateway, "POST", "/in", &fields, body);
    gateway.forwarded(&answer, 200);
    let made = answer.header("x-hook-secret").unwrap();
    assert_eq!(made, hmac_hex("sha256", SECRET, b"31337"));
    let answer = ask(
        &gateway,
        "POST",
        "/in",
        &[("X-Hook-Signature", made)],
        "31337",
    );
    gateway.refused(&answer, 401, "signature_mismatch");
    assert_eq!(app.count(), 1);
}

#[test]
fn no_answer_signs_what_could_be_an_event() {
    // SECURITY A-46: the answer to these would be the signature of a body, or of `v0:TIME:BODY`.
    let (gateway, app) = guarded(&provider("x-twitter"), "");
    for token in [
        "%7B%22a%22%3A1%7D",
        "v0%3A1%3Ax",
        "a.b",
        "a%20b",
        "a%0Ab",
        "",
        &"a".repeat(129),
    ] {
        let answer = ask(&gateway, "GET", &format!("/in?crc_token={token}"), &[], "");
        refused(&gateway, &answer, 403, "handshake_invalid");
    }
    // Nor is the same name twice a question that has an answer.
    let answer = ask(&gateway, "GET", "/in?crc_token=a&crc%5Ftoken=b", &[], "");
    refused(&gateway, &answer, 403, "handshake_invalid");
    let answer = ask(&gateway, "GET", "/in?crc_token=abc", &[], "");
    answered(&gateway, &answer, 200);
    let key = data_encoding::HEXLOWER
        .decode(hmac_hex("sha256", SECRET, b"abc").as_bytes())
        .unwrap();
    assert_eq!(
        answer.json()["response_token"],
        format!("sha256={}", BASE64.encode(&key))
    );
    app.saw_nothing();
}

#[test]
fn zoom_signs_no_content_of_a_request() {
    // SECURITY A-46, windmill's case: the token has the form of what Zoom signs.
    let (gateway, app) = guarded(&provider("zoom"), "");
    let now = super::support::now().to_string();
    let question = |token: &str, secret: &str| {
        let body =
            json!({ "event": "endpoint.url_validation", "payload": { "plainToken": token } })
                .to_string();
        let signature = hmac_hex("sha256", secret, format!("v0:{now}:{body}").as_bytes());
        let signature = format!("v0={signature}");
        let headers = [
            ("x-zm-request-timestamp", now.as_str()),
            ("x-zm-signature", signature.as_str()),
        ];
        ask(&gateway, "POST", "/in", &headers, &body)
    };
    refused(
        &gateway,
        &question("qgg8vlvZRS6UYooatFL8Aw", "some other secret of theirs"),
        401,
        "signature_mismatch",
    );
    for token in ["v0:1:{\"event\":\"x\"}", "{}", "a b", ""] {
        refused(&gateway, &question(token, SECRET), 403, "handshake_invalid");
    }
    let answer = question("qgg8vlvZRS6UYooatFL8Aw", SECRET);
    answered(&gateway, &answer, 200);
    assert_eq!(
        answer.json()["encryptedToken"],
        hmac_hex("sha256", SECRET, b"qgg8vlvZRS6UYooatFL8Aw")
    );
    app.saw_nothing();
}

#[test]
fn markup_comes_back_as_plain_text_and_only_a_little_of_it() {
    // SECURITY A-47
    let (gateway, app) = guarded(&provider("dropbox"), "");
    let answer = ask(
        &gateway,
        "GET",
        "/in?challenge=%3Cscript%3Ealert(1)%3C/script%3E",
        &[],
        "",
    );
    answered(&gateway, &answer, 200);
    assert_eq!(answer.text(), "<script>alert(1)</script>");
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    for challenge in ["a".repeat(513), "%C3%A9".to_owned(), "a%0D%0Ab".to_owned()] {
        let answer = ask(
            &gateway,
            "GET",
            &format!("/in?challenge={challenge}"),
            &[],
            "",
        );
        refused(&gateway, &answer, 403, "handshake_invalid");
    }
    app.saw_nothing();
}

#[test]
fn only_methods_of_the_preset_are_admitted() {
    let (gateway, app) = guarded(&provider("meta"), "");
    let challenge = "/in?hub.mode=subscribe&hub.challenge=1&hub.verify_token=";
    let right = format!("{challenge}{}", SECRET.replace(' ', "+"));
    answered(&gateway, &ask(&gateway, "GET", &right, &[], ""), 200);
    for (method, target) in [
        ("GET", "/in"),
        ("GET", "/in?hub.challenge=1"),
        ("PUT", &right),
        ("OPTIONS", "/in"),
    ] {
        let answer = ask(&gateway, method, target, &[], "");
        gateway.refused(&answer, 405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("GET, POST"));
    }
    for method in ["HEAD", "DELETE"] {
        assert_eq!(ask(&gateway, method, &right, &[], "").status, 405);
        gateway.event();
    }
    // A delivery is judged as always.
    gateway.refused(
        &ask(&gateway, "POST", &right, &[], "{}"),
        401,
        "signature_missing",
    );
    app.saw_nothing();

    let (gateway, app) = guarded(&provider("intercom"), "");
    let answer = ask(&gateway, "HEAD", "/in", &[], "");
    answered(&gateway, &answer, 200);
    assert_eq!(answer.header("content-length").unwrap_or("0"), "0");
    assert_eq!(
        ask(&gateway, "GET", "/in", &[], "").header("allow"),
        Some("HEAD, POST")
    );
    app.saw_nothing();

    let (gateway, _app) = guarded(&provider("github"), "");
    assert_eq!(
        ask(&gateway, "GET", "/in", &[], "").header("allow"),
        Some("POST")
    );
}

#[test]
fn a_verify_token_of_its_own_replaces_the_secrets() {
    // SECURITY A-48
    let check =
        "{ provider: whatsapp, secrets: [env:SECRET], params: { verify_token: env:VERIFY } }";
    let (gateway, app) = guarded(check, "");
    let question = |token: &str| {
        let target = format!("/in?hub.mode=subscribe&hub.challenge=42&hub.verify_token={token}");
        ask(&gateway, "GET", &target, &[], "")
    };
    let answer = question("a%20verify%20token%20of%20some%20length");
    answered(&gateway, &answer, 200);
    assert_eq!(answer.text(), "42");
    for wrong in [
        SECRET.replace(' ', "+").as_str(),
        "env:VERIFY",
        "",
        "a+verify+token",
        "unused",
    ] {
        refused(&gateway, &question(wrong), 403, "handshake_invalid");
    }
    app.saw_nothing();
}

#[test]
fn of_several_ways_in_the_refusal_that_says_most_is_told() {
    let monday = "{ provider: monday, secrets: [env:SECRET], params: { audience: \"https://localhost/in\" } }";
    let token = "{ token: { header: X-Token, secrets: [env:VERIFY] } }";
    for ways in [format!("{token}, {monday}"), format!("{monday}, {token}")] {
        let (gateway, app) = guarded(&format!("{{ any: [{ways}] }}"), "");
        let fields = [("Content-Type", "application/json"), ("X-Token", "wrong")];
        let answer = ask(&gateway, "POST", "/in", &fields, r#"{"event":1}"#);
        assert_eq!(answer.status, 401);
        assert_eq!(gateway.event()["reason"], "credential_invalid");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, Some("Bearer realm=\"hooks\""), "of both");
        let answer = ask(&gateway, "POST", "/in", &fields, r#"{"challenge":"abc"}"#);
        answered(&gateway, &answer, 200);
        app.saw_nothing();
    }
}

#[test]
fn other_checks_of_the_route_hold() {
    let (gateway, app) = guarded(
        &format!(
            "{{ token: {{ query: tk, secrets: [env:VERIFY] }} }}, {}",
            "{ provider: monday, secrets: [env:SECRET], params: { audience: \"https://localhost/in\" } }"
        ),
        "",
    );
    let body = r#"{"challenge":"abc"}"#;
    let answer = ask(
        &gateway,
        "POST",
        "/in",
        &[("Content-Type", "application/json")],
        body,
    );
    assert_eq!(answer.status, 401);
    assert_eq!(gateway.event()["reason"], "credential_missing");
    let with_token = "/in?tk=a+verify+token+of+some+length";
    let answer = ask(
        &gateway,
        "POST",
        with_token,
        &[("Content-Type", "application/json")],
        body,
    );
    answered(&gateway, &answer, 200);
    assert_eq!(answer.json(), json!({ "challenge": "abc" }));
    // What is no question needs its signature, also with the token.
    let answer = ask(
        &gateway,
        "POST",
        with_token,
        &[("Content-Type", "application/json")],
        r#"{"event":1}"#,
    );
    assert_eq!(answer.status, 401);
    assert_eq!(gateway.event()["reason"], "signature_missing");
    app.saw_nothing();
}

#[test]
fn handshakes_are_counted_and_limited() {
    // SECURITY A-46, A-48: failures use the limit up as well.
    let (gateway, app) = guarded(
        &provider("strava"),
        "    rate_limits: [{ key: client_ip, rate: 1/h, burst: 4 }]\n",
    );
    let question = |token: &str| {
        let target = format!("/in?hub.mode=subscribe&hub.challenge=42&hub.verify_token={token}");
        ask(&gateway, "GET", &target, &[], "")
    };
    let right = SECRET.replace(' ', "+");
    answered(&gateway, &question(&right), 200);
    for _ in 0..3 {
        refused(&gateway, &question("guess"), 403, "handshake_invalid");
    }
    let answer = question(&right);
    assert_eq!(answer.status, 429);
    assert_eq!(gateway.event()["reason"], "rate_limited");
    let count = |outcome, reason| gateway.requests("hooks", outcome, reason);
    let counted = [
        count("handshake", "none"),
        count("rejected", "handshake_invalid"),
        count("rejected", "rate_limited"),
    ];
    assert_eq!(counted.map(|count| count.to_string()), ["1", "3", "1"]);
    app.saw_nothing();
}

#[test]
fn observing_weakens_no_proof() {
    let (gateway, app) = guarded(&provider("wrike"), "    mode: observe\n");
    let body = r#"{"requestType":"WebHook secret verification"}"#;
    let headers = |signature: &'static str| {
        [
            ("X-Hook-Secret", "a1B2c3D4e5F6"),
            ("X-Hook-Signature", signature),
        ]
    };
    let wrong = "0000000000000000000000000000000000000000000000000000000000000000";
    let answer = ask(&gateway, "POST", "/in", &headers(wrong), body);
    assert_eq!(gateway.event()["outcome"], "observed");
    // The app answers, and what it says holds no HMAC of ours.
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.header("x-hook-secret"), None);
    let seen = app.last();
    assert_eq!(
        seen.header("x-hookward-verified"),
        Some("no; reason=signature_mismatch")
    );

    let (gateway, app) = guarded(&provider("meta"), "    mode: observe\n");
    let answer = ask(
        &gateway,
        "GET",
        "/in?hub.mode=subscribe&hub.challenge=1&hub.verify_token=guess",
        &[],
        "",
    );
    refused(&gateway, &answer, 403, "handshake_invalid");
    app.saw_nothing();
}

/// Whether the log holds exactly this secret.
fn told(gateway: &Gateway, secret: &str) -> Option<()> {
    let stderr = gateway.stderr();
    let mut lines = stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .any(|line: Value| line["secret"] == secret)
        .then_some(())
}

#[test]
fn a_new_secret_is_taken_while_the_window_is_open() {
    let check = |open: bool| {
        format!(
            "{{ provider: asana, secrets: [env:SECRET], params: {{ enrolment_window_open: {open} }} }}"
        )
    };
    let (gateway, app) = guarded(&check(false), "");
    let headers = [("X-Hook-Secret", "b537207f20cbfa02357cf448134da559")];
    refused(
        &gateway,
        &ask(&gateway, "POST", "/in", &headers, "{}"),
        403,
        "handshake_invalid",
    );
    assert!(!gateway.stderr().contains("b537207f"));
    app.saw_nothing();
    let (gateway, app) = guarded(&check(true), "");
    let answer = ask(&gateway, "POST", "/in", &headers, "{}");
    answered(&gateway, &answer, 200);
    assert_eq!(
        answer.header("x-hook-secret"),
        Some("b537207f20cbfa02357cf448134da559")
    );
    eventually("the secret is told", || {
        told(&gateway, "b537207f20cbfa02357cf448134da559")
    });
    app.saw_nothing();
    // The operator may have no secret yet.
    let (gateway, _app) = guarded(
        "{ provider: notion, params: { enrolment_window_open: true } }",
        "",
    );
    let body = r#"{"verification_token":"secret_abc123"}"#;
    let sign = |secret: &str| format!("sha256={}", hmac_hex("sha256", secret, body.as_bytes()));
    let answer = ask(
        &gateway,
        "POST",
        "/in",
        &[("X-Notion-Signature", &sign("secret_abc123"))],
        body,
    );
    answered(&gateway, &answer, 200);
    let answer = ask(
        &gateway,
        "POST",
        "/in",
        &[("X-Notion-Signature", &sign("another"))],
        body,
    );
    refused(&gateway, &answer, 401, "signature_mismatch");
}

#[test]
fn a_secret_that_is_always_answered_is_told_while_the_window_is_open_only() {
    let body = r#"{"verification_token":"VTBhUmR4eWx0NXZhTEpk","webhook_subscription_uuid":"1"}"#;
    let (gateway, app) = guarded(&provider("gusto"), "");
    let answer = ask(&gateway, "POST", "/in", &[], body);
    answered(&gateway, &answer, 200);
    app.saw_nothing();
    let (opened, app) = guarded(
        "{ provider: gusto, params: { enrolment_window_open: true } }",
        "",
    );
    let answer = ask(&opened, "POST", "/in", &[], body);
    answered(&opened, &answer, 200);
    eventually("the token is told", || {
        told(&opened, "VTBhUmR4eWx0NXZhTEpk")
    });
    app.saw_nothing();
    let empty = ask(&opened, "POST", "/in", &[], r#"{"verification_token":""}"#);
    refused(&opened, &empty, 403, "handshake_invalid");
    assert!(!gateway.stderr().contains("VTBhUmR4"));
    let odd = r#"{"verification_token":"one \"two\"\nthree\\"}"#;
    assert_eq!(ask(&opened, "POST", "/in", &[], odd).status, 200);
    eventually("the odd one is told", || {
        told(&opened, "one \"two\"\nthree\\")
    });
    // It is a stranger's text, and the operator's terminal takes it for no line of its own.
    let forged = r#"{"verification_token":"one\n2026-01-01T00:00:00Z  WARN forged \u001b[31m"}"#;
    let route = "  - name: hooks
    match: { path: /in }
    verify: [{ provider: gusto, params: { enrolment_window_open: true } }]
    upstream: echo
";
    let arguments = ["--log-format", "text"];
    let opened = Gateway::start_as(&config(route), &arguments, &[], |_| {});
    assert_eq!(ask(&opened, "POST", "/in", &[], forged).status, 200);
    eventually("it is told", || {
        opened.stderr().contains("forged").then_some(())
    });
    let stderr = opened.stderr();
    assert!(!stderr.lines().any(|line| line.starts_with("2026-01-01")));
    assert!(!stderr.contains('\u{1b}'), "{stderr}");
}

#[test]
fn the_first_secret_goes_into_a_file_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let check = |file: &str| {
        let file = folder.path().join(file);
        let params = format!(
            "enrolment_window_open: true, enrolment_file: {}",
            file.display()
        );
        format!("{{ provider: asana, params: {{ {params} }} }}")
    };
    let (gateway, app) = guarded(&check("asana"), "");
    let ask = |gateway: &Gateway, secret: &str| {
        ask(gateway, "POST", "/in", &[("X-Hook-Secret", secret)], "{}")
    };
    answered(
        &gateway,
        &ask(&gateway, "b537207f20cbfa02357cf448134da559"),
        200,
    );
    let file = folder.path().join("asana");
    let kept = || std::fs::read_to_string(&file).unwrap();
    assert_eq!(kept(), "b537207f20cbfa02357cf448134da559");
    eventually("the file is named", || {
        let path = file.to_str().unwrap();
        gateway.stderr().contains(path).then_some(())
    });
    // Whoever comes second is refused, and told nothing that would be of use.
    let answer = ask(&gateway, "attacker-chosen");
    assert_eq!(answer.header("x-hook-secret"), None);
    refused(&gateway, &answer, 403, "handshake_invalid");
    assert_eq!(kept(), "b537207f20cbfa02357cf448134da559");
    let said = gateway.stderr();
    assert!(
        !said.contains("b537207f") && !said.contains("attacker"),
        "{said}"
    );
    app.saw_nothing();

    // A secret that cannot be kept is not acknowledged.
    let (gateway, app) = guarded(&check("absent/asana"), "");
    let answer = ask(&gateway, "b537207f20cbfa02357cf448134da559");
    refused(&gateway, &answer, 503, "state_unavailable");
    assert!(!gateway.stderr().contains("b537207f"));
    app.saw_nothing();
}

// === answers that providers want to read ===

#[test]
fn a_proven_delivery_is_answered_as_its_provider_wants() {
    let (gateway, app) = guarded(&provider("wrike"), "");
    let body = r#"[{"eventType":"TaskCreated"}]"#;
    let signature = hmac_hex("sha256", SECRET, body.as_bytes());
    let send = |secret: &str, signature: &str| {
        ask(
            &gateway,
            "POST",
            "/in",
            &[("X-Hook-Secret", secret), ("X-Hook-Signature", signature)],
            body,
        )
    };
    let answer = send("abc123", &signature);
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(
        answer.header("x-hook-secret"),
        Some(hmac_hex("sha256", SECRET, b"abc123").as_str())
    );
    // SECURITY A-46: not of what could be signed content, and not for whom nothing is proven.
    assert_eq!(send("[{}]", &signature).header("x-hook-secret"), None);
    assert_eq!(
        send("abc123", &"0".repeat(64)).header("x-hook-secret"),
        None
    );
    assert_eq!(app.count(), 2);

    // A duplicate does not reach the app, and is answered alike.
    let (gateway, app) = guarded(&provider("wrike"), "    replay: { window: 10m }\n");
    for count in [1, 1] {
        let headers = [
            ("X-Hook-Secret", "abc123"),
            ("X-Hook-Signature", signature.as_str()),
        ];
        let answer = ask(&gateway, "POST", "/in", &headers, body);
        assert_eq!((answer.status, app.count()), (200, count));
        assert!(answer.header("x-hook-secret").is_some());
    }
    assert_eq!(gateway.event()["outcome"], "forwarded");
    assert_eq!(gateway.event()["outcome"], "duplicate");
}

#[test]
fn a_verify_token_is_a_reference() {
    let problems = |provider: &str, token: &str| {
        let text = config(&format!(
            "  - {{ name: r, match: {{ path: /x }}, upstream: echo, verify: [{{ provider: {provider}, secrets: [env:SECRET], params: {{ verify_token: {token} }} }}] }}\n"
        ));
        let env = Environment::from_pairs([("SECRET", SECRET)]);
        let loaded = load_text("x.yaml", &text, Path::new(""), &env);
        (loaded.config.is_some(), loaded.report.to_string())
    };
    for token in ["a-bare-token-of-some-length", "env:NOT_SET", "7"] {
        let (valid, report) = problems("meta", token);
        assert!(!valid && report.contains("params.verify_token"), "{report}");
    }
    assert!(problems("meta", "env:SECRET").0);
    let (valid, report) = problems("slack", "env:SECRET");
    assert!(
        valid && report.contains("no handshake of this preset has a verify token"),
        "{report}"
    );
}

#[test]
fn refusals_are_as_the_provider_wants_and_the_operator_wins() {
    let (gateway, _app) = guarded(&provider("xero"), "");
    let answer = ask(
        &gateway,
        "POST",
        "/in",
        &[("x-xero-signature", "AAAA")],
        "{}",
    );
    assert_eq!((answer.status, answer.text().as_str()), (401, ""));
    let (gateway, _app) = guarded(&provider("gocardless"), "");
    assert_eq!(ask(&gateway, "POST", "/in", &[], "{}").status, 498);
    let (gateway, _app) = guarded(&provider("gocardless"), "    on_reject: { status: 418 }\n");
    assert_eq!(ask(&gateway, "POST", "/in", &[], "{}").status, 418);
}

// === a URL that is called ===

/// A web that notes what is called.
#[derive(Debug, Default)]
struct Web(Mutex<Vec<String>>);

impl Fetch for Web {
    fn get<'a>(&'a self, url: &'a HttpsUrl, reach: Reach) -> Fetching<'a> {
        assert_eq!(reach, Reach::Public);
        self.0.lock().unwrap().push(url.to_string());
        let fetched = Fetched {
            body: "<ok/>".into(),
            max_age: None,
        };
        Box::pin(std::future::ready(Ok(fetched)))
    }

    fn roots(&self) -> &[TrustAnchor<'static>] {
        &[]
    }
}

/// A private key, and its public half, in PEM.
fn rsa_key() -> (String, String) {
    let openssl = |args: &[&str], input: &str| {
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let private = openssl(
        &[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ],
        "",
    );
    let public = openssl(&["pkey", "-pubout"], &private);
    (private, public)
}

/// A message of SNS, not yet signed, that asks to call `url`.
fn subscription(url: &str) -> Draft {
    let body = json!({
        "Type": "SubscriptionConfirmation",
        "Token": "2336412f37",
        "Message": "You have chosen to subscribe.",
        "SubscribeURL": url,
    });
    Draft {
        method: http::Method::POST,
        url: SenderUrl {
            origin: "https://localhost".into(),
            target: "/sns".into(),
        },
        headers: vec![(
            "Content-Type".to_owned(),
            "text/plain; charset=UTF-8".to_owned(),
        )],
        body: body.to_string().into_bytes(),
    }
}

#[test]
fn a_subscription_is_confirmed_once_it_is_proven() {
    // SECURITY A-34
    let topic = "arn:aws:sns:eu-central-1:466136624261:ses";
    let (private, public) = rsa_key();
    let params = Params::from([("topic_arns".to_owned(), json!([topic]))]);
    let scheme = Catalog::built_in()
        .find("aws-sns")
        .unwrap()
        .bind(&params, None)
        .unwrap();
    let key = scheme
        .private_key("own".into(), private.as_bytes())
        .unwrap();
    let now = UnixTime::from_secs(NOW);
    let text = format!(
        "version: 1
listeners: {{ https: {{ address: 127.0.0.1:0, tls: {{ self_signed: [localhost] }} }} }}
routes:
  - name: sns
    match: {{ path: /sns }}
    verify: [{{ provider: aws-sns, public_keys: [env:KEY], params: {{ topic_arns: [\"{topic}\"] }} }}]
    upstream: echo
"
    );
    let web = Arc::new(Web::default());
    let env = Environment::from_pairs([("KEY", public)]).at(now);
    let served = Served::start(&text, &env, now, Arc::<Web>::clone(&web));
    let confirm = |url: &str, forge: bool| {
        let mut signed = scheme.sign(subscription(url), &key, now).unwrap();
        if forge {
            let text = String::from_utf8(signed.body).unwrap();
            signed.body = text
                .replace("You have chosen", "You have not chosen")
                .into_bytes();
        }
        let headers: Vec<_> = signed
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut wire = Tls::default().connect(served.address).unwrap();
        wire.exchange("POST", "/sns", &headers, &signed.body)
    };
    let url = |host: &str| {
        format!("https://{host}/?Action=ConfirmSubscription&TopicArn={topic}&Token=2336412f37")
    };
    let own = url("sns.eu-central-1.amazonaws.com");
    for (url, forge) in [
        (own.clone(), true),
        (
            url("sns.eu-central-1.amazonaws.com.attacker.example"),
            false,
        ),
        (url("attacker.s3.amazonaws.com"), false),
        (url("169.254.169.254"), false),
        (own.replace("https", "http"), false),
    ] {
        let answer = confirm(&url, forge);
        assert!(
            matches!(answer.status, 401 | 403),
            "{url}: {}",
            answer.status
        );
    }
    assert!(web.0.lock().unwrap().is_empty());
    let answer = confirm(&own, false);
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    eventually("the URL is called", || {
        (!web.0.lock().unwrap().is_empty()).then_some(())
    });
    assert_eq!(*web.0.lock().unwrap(), [own]);
}
