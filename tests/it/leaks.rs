//! Secrets, tokens, signatures, cookies and bodies are never in a log, a metric or an answer.

use super::support::{App, Gateway, Reply, Wire, basic, config, hmac_hex, now};

/// Every secret thing of the run has this in it.
const CANARY: &str = "canary";
const KEY: &str = "canary-signing-key-0123456789";
const TOKEN: &str = "canary-token-0123456789";
const BODY: &[u8] = b"{\"canary\": \"in the body\"}";

/// Routes of every kind: name, path, checks and more keys.
fn routes(app: &App) -> String {
    let token = |place: &str| format!("[{{ token: {{ {place}, secrets: [env:TOKEN] }} }}]");
    let either = "[{ any: [{ token: { path: tk, secrets: [env:TOKEN] } },
      { token: { header: X-Token, secrets: [env:TOKEN] } }] }]";
    let users = "[{ basic: { users: [{ name: ci, password: env:TOKEN }] } }]";
    let of = |name: &str, keys: &str| format!("[{{ provider: {name}, secrets: [{keys}] }}]");
    let in_file = "[{ token: { query: auth, secrets: [\"file:DIR/token\"] } }]";
    let routes = [
        (
            "github",
            "/github",
            of("github", "env:KEY"),
            "body: { max_size: 1KiB }",
        ),
        (
            "stripe",
            "/stripe",
            of("stripe", &format!("\"value:{KEY}\"")),
            "",
        ),
        (
            "gitlab",
            "/gitlab",
            of("gitlab/secret-token", "env:TOKEN"),
            "",
        ),
        ("query", "/query", in_file.to_owned(), ""),
        ("header", "/header", token("header: X-Token"), ""),
        ("bearer", "/bearer", token("bearer: true"), "mode: observe"),
        ("path", "/path/{tk}/in", either.to_owned(), ""),
        ("basic", "/basic", users.to_owned(), ""),
        (
            "json",
            "/json",
            "none".to_owned(),
            "body: { well_formed: true }",
        ),
    ];
    let route = |(name, path, verify, more): &(&str, &str, String, &str)| {
        let upstream = app.url();
        format!(
            "  - name: {name}
    match: {{ path: \"{path}\" }}
    verify: {verify}
    upstream: \"{upstream}\"
    {more}
"
        )
    };
    let dead = "  - { name: dead, match: { path: /dead }, verify: none, upstream: \"http://127.0.0.1:1\" }\n";
    routes.iter().map(route).chain([dead.to_owned()]).collect()
}

/// One request of the run.
struct Try {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn post(path: &str, headers: &[(&'static str, &str)]) -> Try {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Try {
        method: "POST",
        path: path.to_owned(),
        headers: headers.collect(),
        body: BODY.to_vec(),
    }
}

/// Signed requests: accepted, wrong in each way, again.
fn signed() -> Vec<Try> {
    let github = format!("sha256={}", hmac_hex("sha256", KEY, BODY));
    let time = now();
    let content = [format!("{time}.").as_bytes(), BODY].concat();
    let stripe = format!("t={time},v1={}", hmac_hex("sha256", KEY, &content));
    let with = |value: &str| post("/github", &[("X-Hub-Signature-256", value)]);
    vec![
        with(&github),
        Try {
            body: b"canary, another body".to_vec(),
            ..with(&github)
        },
        with("sha256=canary-not-hex"),
        Try {
            body: CANARY.repeat(1000).into_bytes(),
            ..with(&github)
        },
        Try {
            method: "GET",
            body: Vec::new(),
            ..post(&format!("/github?token={TOKEN}"), &[])
        },
        post("/stripe", &[("Stripe-Signature", &stripe)]),
        post("/stripe", &[("Stripe-Signature", &stripe)]),
        post("/stripe", &[("Stripe-Signature", "t=canary,v1=canary")]),
        post("/gitlab", &[("X-Gitlab-Token", TOKEN)]),
        post("/gitlab", &[("X-Gitlab-Token", "canary-wrong")]),
    ]
}

/// Credentials in every place, right and wrong, on routes and beside them.
fn credentials() -> Vec<Try> {
    let authorization = |path: &str, value: &str| post(path, &[("Authorization", value)]);
    let paths = [
        format!("/query?auth={TOKEN}&a=canary-query"),
        format!("/query?auth=x{TOKEN}"),
        format!("/query?auth={TOKEN}&auth={TOKEN}"),
        format!("/nowhere/{TOKEN}?auth={TOKEN}"),
        format!("/{TOKEN}"),
        format!("/path/{TOKEN}/out"),
        format!("/path/{TOKEN}/in"),
        format!("/path/wrong-{TOKEN}/in"),
        format!("/path/../{TOKEN}"),
    ];
    let mut tries: Vec<Try> = paths.iter().map(|path| post(path, &[])).collect();
    tries.extend([
        Try {
            method: "PUT",
            ..post(&format!("/path/{TOKEN}/in"), &[])
        },
        post(&format!("/path/{TOKEN}/in"), &[("X-Token", TOKEN)]),
        post("/header", &[("X-Token", TOKEN)]),
        post("/header", &[("X-Token", "canary-wrong")]),
        post("/header", &[("X-Token", TOKEN), ("X-Token", TOKEN)]),
        authorization("/bearer", &format!("Bearer {TOKEN}")),
        authorization("/bearer", &format!("Bearer wrong-{TOKEN}")),
        authorization("/basic", &basic("ci", TOKEN)),
        authorization("/basic", &basic("canary-user", TOKEN)),
        authorization("/basic", "Basic canary!!"),
    ]);
    tries
}

/// What is wrong with a request apart from who sent it.
fn unsound() -> Vec<Try> {
    let json = ("Content-Type", "application/json");
    vec![
        Try {
            body: b"{canary".to_vec(),
            ..post("/json", &[json])
        },
        post("/json", &[json, ("Content-Encoding", "canary")]),
        post("/dead", &[]),
        post("/json", &[("Content_Length", "canary")]),
        Try {
            method: "PATCH",
            ..post("/json?canary", &[])
        },
    ]
}

/// Sends a request over HTTP/1.1 and over HTTP/2, and notes status and text of the answers.
fn send(gateway: &Gateway, request: &Try, answers: &mut Vec<(u16, String)>) {
    let Try {
        method,
        path,
        headers,
        body,
    } = request;
    let more = [
        ("cookie", "session=canary-cookie"),
        ("x-api-key", "canary-api-key"),
    ];
    let lower: Vec<String> = headers
        .iter()
        .map(|(name, _)| name.to_lowercase())
        .collect();
    let named = lower
        .iter()
        .zip(headers)
        .map(|(name, (_, value))| (name.as_str(), value.as_str()));
    let headers: Vec<(&str, &str)> = named.chain(more).collect();
    for answer in [
        gateway.tls().exchange(method, path, &headers, body),
        gateway.h2().exchange(method, path, &headers, body),
    ] {
        answers.push((
            answer.status,
            format!("{:?}{}", answer.headers, answer.text()),
        ));
    }
}

/// Requests that end without an answer, or with one of the app's own making.
fn broken(app: &App, gateway: &Gateway, answers: &mut Vec<(u16, String)>) {
    for bytes in [
        "POST /canary HTTP/9.9\r\nX: canary\r\n\r\n",
        "canary\r\n\r\n",
        "POST /json HTTP/1.1\r\nHost: canary\r\nX-A: \0canary\r\n\r\n",
        "POST /json HTTP/1.1\r\nHost: canary@host\r\nContent-Length: 0\r\n\r\n",
    ] {
        gateway.plain().send(bytes.as_bytes()).rest();
    }
    app.script([
        Reply::RawThenClose(b"canary garbage of the app\r\n\r\n".to_vec()),
        Reply::RawThenClose(Vec::new()),
    ]);
    for _ in 0..2 {
        let answer = gateway.post("/json", &[], BODY);
        answers.push((answer.status, answer.text()));
    }
    let mut gone: Wire = gateway.tls();
    let head = format!("POST /query?auth={TOKEN} HTTP/1.1\r\nHost: localhost\r\n");
    gone.send(format!("{head}Content-Length: 100\r\n\r\ncanary").as_bytes());
    drop(gone);
    gateway.wait_for_requests("query", "rejected", "body_incomplete", 1);
}

fn start(app: &App, arguments: &[&str], more: &[(&str, &str)]) -> Gateway {
    let env = [&[("KEY", KEY), ("TOKEN", TOKEN)], more].concat();
    Gateway::start_as(&config(&routes(app)), arguments, &env, |dir| {
        std::fs::write(dir.join("token"), TOKEN).unwrap();
    })
}

/// Everything that a gateway wrote after all requests, at a log level that hides nothing.
fn run(arguments: &[&str]) {
    let app = App::start();
    let gateway = start(&app, arguments, &[("RUST_LOG", "trace")]);
    let mut answers = Vec::new();
    for request in signed().into_iter().chain(credentials()).chain(unsound()) {
        send(&gateway, &request, &mut answers);
    }
    broken(&app, &gateway, &mut answers);
    gateway.reload_by("success", || gateway.signal("HUP"));
    gateway.reload_by("failure", || gateway.replace("token", "\n"));
    let accepted = answers.iter().filter(|(status, _)| *status == 200).count();
    assert!(accepted >= 15, "{accepted} accepted requests prove little");
    for (status, answer) in &answers {
        assert!(
            !answer.contains(CANARY),
            "an answer with {status} tells: {answer}"
        );
    }
    let encoded = data_encoding::BASE64.encode(TOKEN.as_bytes());
    let signature = hmac_hex("sha256", KEY, BODY);
    let metrics = gateway.admin("/metrics").text();
    let written = [
        ("stdout", gateway.stdout()),
        ("stderr", gateway.stderr()),
        ("metrics", metrics),
    ];
    for (name, text) in written {
        for secret in [CANARY, &encoded[..12], &signature] {
            let found = text.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{name} tells");
        }
    }
    assert!(gateway.events() > 40);
}

#[test]
fn no_canary_in_json_logs() {
    // SECURITY L-01, L-02, L-03, L-07, L-08, L-09, L-10
    run(&[]);
}

#[test]
fn no_canary_in_text_logs() {
    // SECURITY L-01, L-02, L-07
    run(&["--log-format", "text"]);
}

#[test]
fn tls_keys_are_not_written_to_a_file() {
    // SECURITY L-06
    let app = App::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let gateway = start(&app, &[], &[("SSLKEYLOGFILE", file.to_str().unwrap())]);
    assert_eq!(
        gateway.post("/header", &[("X-Token", TOKEN)], b"x").status,
        200
    );
    assert!(!file.exists());
}

#[test]
fn the_answers_to_every_failed_check_are_alike() {
    // SECURITY A-52
    let app = App::start();
    let gateway = start(&app, &[], &[]);
    let time = now() - 400;
    let tag = hmac_hex("sha256", KEY, format!("{time}.x").as_bytes());
    let stale = format!("t={time},v1={tag}");
    let wrong = format!("t={time},v1={}", "0".repeat(64));
    let mut answers = Vec::new();
    for header in ["", "garbage", "t=1,v1=00", &wrong, &stale] {
        let answer = gateway.post("/stripe", &[("Stripe-Signature", header)], b"x");
        let mut problem = answer.json();
        problem["request_id"] = "".into();
        let mut headers = answer.headers;
        headers.retain(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date"));
        answers.push((answer.status, headers, problem));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    app.saw_nothing();
}
