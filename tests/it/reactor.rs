//! What takes long takes no thread that serves requests. Each test has a worker's single-threaded runtime
//! whose only thread for what blocks is taken: what would block waits for it, and others are served.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use hookward::config::Environment;
use hookward::gateway::Gateway as DataPath;
use hookward::gateway::connection::Connection;
use hookward::gateway::whole::{AT_ONCE_BYTES_DEAR, AT_ONCE_BYTES_MAX};
use hookward::server;
use hookward::telemetry::Telemetry;
use hookward::telemetry::log::AccessLog;
use hookward::telemetry::metrics::Metrics;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

use super::credentials::{ARGON2, BCRYPT};
use super::support::{
    App, Gateway, SECRET, basic, config, eventually, github_route, hmac_hex, loaded, now,
};

const OPEN: &str = "  - { name: open, match: { path: /open }, verify: none, upstream: echo }\n";

/// Holds a file until its input ends; says when it does, and when somebody else opens the file.
const HOLD: &str = "
import fcntl, os, signal, sys
file = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGIO, lambda *_: print('asked for', flush=True))
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
";

/// What one worker has.
struct Worker {
    runtime: Runtime,
    gateway: DataPath,
    telemetry: Telemetry,
    connection: Connection,
}

impl Worker {
    fn new(routes: &str) -> Self {
        let env = Environment::from_pairs([("SECRET", SECRET)]);
        let config = loaded(&config(&format!("{OPEN}{routes}")), &env);
        let telemetry = Telemetry::new(Metrics::new("test"), AccessLog::capture());
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let gateway = runtime.block_on(async { server::gateway(config, telemetry.clone()) });
        Self {
            runtime,
            gateway: gateway.unwrap(),
            telemetry,
            connection: Connection::new(([192, 0, 2, 1], 1).into(), "http".into(), None),
        }
    }

    async fn status(&self, path: &str, fields: &[(&str, &str)], body: &[u8]) -> u16 {
        let mut request = Request::post(path).header("host", "localhost");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        let request = request.body(body).unwrap();
        let answer = self.gateway.handle(&self.connection, request).await;
        answer.status().as_u16()
    }

    /// Status and reason of one request.
    fn judged(&self, path: &str, fields: &[(&str, &str)], body: &[u8]) -> (u16, Option<String>) {
        let status = self.runtime.block_on(self.status(path, fields, body));
        let log = self.telemetry.access.captured();
        let event: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        (status, event["reason"].as_str().map(str::to_owned))
    }

    /// The status of a request that waits for the thread for what blocks while others are served.
    fn waits(&self, path: &str, fields: &[(&str, &str)], body: &[u8]) -> u16 {
        self.runtime.block_on(async {
            let (release, released) = mpsc::channel::<()>();
            spawn_blocking(move || released.recv());
            let mut slow = pin!(self.status(path, fields, body));
            for _ in 0..10 {
                let early = slow.as_mut().now_or_never();
                assert_eq!(
                    early, None,
                    "it was done on the thread that serves requests"
                );
                assert_eq!(self.status("/open", &[], b"x").await, 200);
                // Whatever was spawned has its turn.
                tokio::task::yield_now().await;
            }
            drop(release);
            slow.await
        })
    }
}

fn signed(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", HEXLOWER.encode(&mac.finalize().into_bytes()))
}

/// A JSON document of exactly so many bytes.
fn json_of(bytes: usize) -> Vec<u8> {
    let mut document = format!("[\"{}", "x".repeat(bytes - 4)).into_bytes();
    document.extend_from_slice(b"\"]");
    assert_eq!(document.len(), bytes);
    document
}

const SIGNED: &str = "  - name: signed
    match: { path: /signed }
    body: { well_formed: true, max_size: 8MiB }
    verify: [{ provider: github, secrets: [env:SECRET] }]
    replay: { window: 5m, on_duplicate: reject }
    upstream: echo
  - name: plain
    match: { path: /plain }
    verify: [{ provider: github, secrets: [env:SECRET] }]
    upstream: echo
  - name: open-json
    match: { path: /json }
    body: { well_formed: true, max_size: 8MiB }
    verify: none
    upstream: echo
";

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn large_bodies_are_judged_aside() {
    // SECURITY DS-30
    let worker = Worker::new(SIGNED);
    let large = json_of(AT_ONCE_BYTES_MAX + 1);
    let signature = signed(&large);
    let fields = [JSON, ("x-hub-signature-256", &*signature)];
    assert_eq!(worker.waits("/signed", &fields, &large), 200);
    // Also where nothing but the syntax is judged.
    assert_eq!(worker.waits("/json", &[JSON], &large), 200);
    let bad = [JSON, ("x-hub-signature-256", "sha256=00")];
    assert_eq!(worker.waits("/json", &bad, &large[1..].repeat(2)), 400);
    // And whoever is refused is refused by then.
    let other = signed(b"another body");
    let fields = [JSON, ("x-hub-signature-256", &*other)];
    assert_eq!(worker.waits("/signed", &fields, &large), 401);
}

#[test]
fn small_bodies_wait_for_nobody() {
    // SECURITY DS-30
    let worker = Worker::new(SIGNED);
    let body = json_of(AT_ONCE_BYTES_MAX);
    let signature = signed(&body);
    let fields = [JSON, ("x-hub-signature-256", &*signature)];
    worker.runtime.block_on(async {
        let (release, released) = mpsc::channel::<()>();
        spawn_blocking(move || released.recv());
        assert_eq!(worker.status("/plain", &fields, &body).await, 200);
        drop(release);
    });
}

#[test]
fn bodies_that_are_dear_to_judge_are_judged_aside_sooner() {
    // SECURITY DS-30
    let worker = Worker::new(
        "  - name: sorted
    match: { path: /sorted }
    verify: [{ provider: nowpayments, secrets: [env:SECRET] }]
    upstream: echo
  - name: decoded
    match: { path: /decoded }
    verify: [{ provider: stream, secrets: [env:SECRET] }]
    upstream: echo
  - name: parsed
    match: { path: /parsed }
    body: { well_formed: true }
    verify: [{ provider: github, secrets: [env:SECRET] }]
    upstream: echo
",
    );
    let body = json_of(AT_ONCE_BYTES_DEAR + 1);
    let fields = [JSON, ("x-nowpayments-sig", &*"0".repeat(128))];
    assert_eq!(worker.waits("/sorted", &fields, &body), 401);
    let fields = [JSON, ("x-signature", &*"0".repeat(64))];
    assert_eq!(worker.waits("/decoded", &fields, &body), 401);
    let other = signed(b"another body");
    let fields = [JSON, ("x-hub-signature-256", &*other)];
    assert_eq!(worker.waits("/parsed", &fields, &body), 401);
}

#[test]
fn the_verdict_does_not_depend_on_where_it_is_made() {
    // SECURITY DS-30
    for bytes in [AT_ONCE_BYTES_MAX, AT_ONCE_BYTES_MAX + 1, 2 << 20] {
        let worker = Worker::new(SIGNED);
        let body = json_of(bytes);
        let signature = signed(&body);
        let judged = |fields: &[(&str, &str)], body: &[u8]| {
            let (status, reason) = worker.judged("/signed", fields, body);
            (status, reason.unwrap_or_default())
        };
        let refused = |status: u16, reason: &str| (status, reason.to_owned());
        let with = |signature| [JSON, ("x-hub-signature-256", signature)];
        let mut changed = body.clone();
        *changed.last_mut().unwrap() = b' ';
        assert_eq!(
            judged(&with(&signature), &changed),
            refused(400, "body_malformed")
        );
        changed.copy_from_slice(&body);
        changed[bytes / 2] = b'y';
        assert_eq!(
            judged(&with(&signature), &changed),
            refused(401, "signature_mismatch")
        );
        assert_eq!(
            judged(&with("sha256=abc"), &body),
            refused(401, "signature_malformed")
        );
        assert_eq!(judged(&[JSON], &body), refused(401, "signature_missing"));
        assert_eq!(judged(&with(&signature), &body), refused(200, ""));
        assert_eq!(judged(&with(&signature), &body), refused(409, "replayed"));
    }
}

#[test]
fn who_hangs_up_meanwhile_leaves_nothing_behind() {
    // SECURITY DS-30, DS-12
    let worker = Worker::new(SIGNED);
    let large = json_of(AT_ONCE_BYTES_MAX + 1);
    worker.runtime.block_on(async {
        let (release, released) = mpsc::channel::<()>();
        spawn_blocking(move || released.recv());
        for _ in 0..100 {
            let mut slow = pin!(worker.status("/json", &[JSON], &large));
            assert_eq!(slow.as_mut().now_or_never(), None);
        }
        assert_eq!(worker.gateway.in_flight(), 0);
        drop(release);
        assert_eq!(worker.status("/json", &[JSON], &large).await, 200);
    });
    let log = worker.telemetry.access.captured();
    assert_eq!(log.lines().count(), 101, "every request has its record");
}

#[test]
fn a_large_handshake_that_is_none_is_a_delivery() {
    // SECURITY DS-30
    let worker = Worker::new(
        "  - name: slack
    match: { path: /slack }
    body: { max_size: 8MiB }
    verify: [{ provider: slack, secrets: [env:SECRET] }]
    upstream: echo
",
    );
    let large = json_of(AT_ONCE_BYTES_MAX + 1);
    let time = now().to_string();
    let content = [format!("v0:{time}:").as_bytes(), &large].concat();
    let signature = format!("v0={}", hmac_hex("sha256", SECRET, &content));
    let fields = [
        JSON,
        ("x-slack-request-timestamp", &*time),
        ("x-slack-signature", &*signature),
    ];
    assert_eq!(worker.waits("/slack", &fields, &large), 200);
    assert_eq!(worker.waits("/slack", &fields, &large.repeat(2)), 401);
}

#[test]
fn large_bodies_arrive_as_they_were_sent() {
    // SECURITY DS-30, A-43
    let app = App::start();
    let gateway = Gateway::start(&config(&format!(
        "  - name: signed
    match: {{ path: /in }}
    body: {{ well_formed: true, max_size: 8MiB }}
    verify: [{{ provider: github, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{}\"
",
        app.url()
    )));
    for bytes in [AT_ONCE_BYTES_MAX, AT_ONCE_BYTES_MAX + 1, 1 << 20] {
        let body = json_of(bytes);
        let signature = signed(&body);
        let fields = [JSON, ("x-hub-signature-256", &*signature)];
        let answers = [
            gateway.post("/in", &fields, &body),
            gateway.h2().exchange("POST", "/in", &fields, &body),
        ];
        for answer in answers {
            gateway.forwarded(&answer, 200);
            assert_eq!(Sha256::digest(&app.last().body), Sha256::digest(&body));
        }
        let answer = gateway.post("/in", &fields, &body[..bytes - 1]);
        gateway.refused(&answer, 400, "body_malformed");
    }
    assert_eq!(app.count(), 6);
}

#[test]
fn passwords_are_hashed_aside() {
    // SECURITY S-19, DS-28
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users");
    fs::write(&file, format!("kim:{BCRYPT}\n")).unwrap();
    for users in [
        format!("users: [{{ name: kim, password_hash: \"{ARGON2}\" }}]"),
        format!("htpasswd: {}", file.display()),
    ] {
        let worker = Worker::new(&format!(
            "  - name: basic
    match: {{ path: /basic }}
    verify: [{{ basic: {{ {users} }} }}]
    upstream: echo
"
        ));
        for (user, password, status) in [
            ("kim", "guess", 401),
            ("nobody", "secret", 401),
            ("kim", "secret", 200),
        ] {
            let field = basic(user, password);
            let fields = [("authorization", &*field)];
            assert_eq!(worker.waits("/basic", &fields, b"x"), status, "{users}");
        }
        // What was right once is not hashed again.
        worker.runtime.block_on(async {
            let (release, released) = mpsc::channel::<()>();
            spawn_blocking(move || released.recv());
            let field = basic("kim", "secret");
            let fields = [("authorization", &*field)];
            assert_eq!(worker.status("/basic", &fields, b"x").await, 200);
            drop(release);
        });
    }
}

/// That a look-up holds up nobody is in `net/resolve.rs`; here, that nobody holds it up.
#[test]
fn names_are_looked_up_whatever_else_blocks() {
    // SECURITY S-19
    let app = App::start();
    let worker = Worker::new(&format!(
        "  - {{ name: named, match: {{ path: /named }}, verify: none, upstream: \"http://localhost:{}\" }}\n",
        app.address().port()
    ));
    worker.runtime.block_on(async {
        let (release, released) = mpsc::channel::<()>();
        spawn_blocking(move || released.recv());
        assert_eq!(worker.status("/named", &[], b"x").await, 200);
        drop(release);
    });
    assert_eq!(app.count(), 1);
}

#[test]
fn enrolled_secrets_are_written_aside() {
    // SECURITY S-19
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("asana");
    let worker = Worker::new(&format!(
        "  - name: asana
    match: {{ path: /asana }}
    verify: [{{ provider: asana, params: {{ enrolment_window_open: true, enrolment_file: {} }} }}]
    upstream: echo
",
        file.display()
    ));
    let fields = [JSON, ("x-hook-secret", "b537207f20cbfa02357cf448134da559")];
    assert_eq!(worker.waits("/asana", &fields, b"{}"), 200);
    assert_eq!(
        fs::read_to_string(file).unwrap(),
        "b537207f20cbfa02357cf448134da559"
    );
}

#[test]
fn a_file_that_does_not_come_holds_up_a_reload_and_nothing_else() {
    // SECURITY S-19
    let app = App::start();
    let route = github_route(&app).replace(&format!("value:{SECRET}"), "file:DIR/secret");
    let gateway = Gateway::start_with(&config(&route), &[], |dir| {
        fs::write(dir.join("secret"), "a first secret of 32 characters.").unwrap();
    });
    assert_eq!(gateway.post_github("/github", b"{}").status, 401);
    // A lease that somebody else holds stands for a slow disk: the file cannot be opened before it is given back.
    let mut holder = Command::new("python3")
        .args(["-c", HOLD])
        .arg(gateway.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert_eq!(says.next().unwrap().unwrap(), "held");
    gateway.reload_by("success", || {
        gateway.signal("HUP");
        assert_eq!(says.next().unwrap().unwrap(), "asked for");
        for _ in 0..4 {
            assert_eq!(gateway.post_github("/github", b"{}").status, 401);
            assert_eq!(gateway.admin("/livez").status, 200);
        }
        gateway.replace("secret", SECRET);
        drop(holder.stdin.take());
    });
    assert!(holder.wait().unwrap().success());
    eventually("the new secret", || {
        (gateway.post_github("/github", b"{}").status == 200).then_some(())
    });
}
