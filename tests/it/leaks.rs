//! Secrets, tokens, signatures, cookies and bodies: never in a log, a metric, an answer or a process
//! listing.

use super::support::{App, Gateway, Reply, Wire, basic, config, hmac_hex};

/// Every secret thing of the run has this in it.
const CANARY: &str = "canary";
const KEY: &str = "canary-signing-key-0123456789";
const TOKEN: &str = "canary-token-0123456789";

fn routes(app: &App) -> String {
    let url = app.url();
    format!(
        "  - {{ name: github, match: {{ path: /github }}, verify: [{{ provider: github, secrets: [env:KEY] }}], body: {{ max_size: 1KiB }}, upstream: \"{url}\" }}
  - {{ name: stripe, match: {{ path: /stripe }}, verify: [{{ provider: stripe, secrets: [\"value:{KEY}\"] }}], upstream: \"{url}\" }}
  - {{ name: query, match: {{ path: /query }}, verify: [{{ token: {{ query: auth, secrets: [\"file:DIR/token\"] }} }}], upstream: \"{url}\" }}
  - {{ name: header, match: {{ path: /header }}, verify: [{{ token: {{ header: X-Token, secrets: [env:TOKEN] }} }}], upstream: \"{url}\" }}
  - {{ name: bearer, match: {{ path: /bearer }}, mode: observe, verify: [{{ token: {{ bearer: true, secrets: [env:TOKEN] }} }}], upstream: \"{url}\" }}
  - {{ name: path, match: {{ path: \"/path/{{tk}}/in\" }}, verify: [{{ any: [{{ token: {{ path: tk, secrets: [env:TOKEN] }} }}, {{ token: {{ header: X-Token, secrets: [env:TOKEN] }} }}] }}], upstream: \"{url}\" }}
  - {{ name: basic, match: {{ path: /basic }}, verify: [{{ basic: {{ users: [{{ name: ci, password: env:TOKEN }}] }} }}], upstream: \"{url}\" }}
  - {{ name: gitlab, match: {{ path: /gitlab }}, verify: [{{ provider: gitlab/secret-token, secrets: [env:TOKEN] }}], upstream: \"{url}\" }}
  - {{ name: json, match: {{ path: /json }}, body: {{ well_formed: true }}, verify: none, upstream: \"{url}\" }}
  - {{ name: dead, match: {{ path: /dead }}, verify: none, upstream: \"http://127.0.0.1:1\" }}
"
    )
}

/// Requests of every kind: accepted, refused at each stage, failed behind.
fn requests(app: &App, gateway: &Gateway) -> Vec<(u16, String)> {
    let body = b"{\"canary\": \"in the body\"}";
    let github = format!("sha256={}", hmac_hex("sha256", KEY, body));
    let time = super::support::now();
    let tag = hmac_hex(
        "sha256",
        KEY,
        &[format!("{time}.").as_bytes(), body].concat(),
    );
    let stripe = format!("t={time},v1={tag}");
    let credentials = basic("ci", TOKEN);
    let bearer = format!("Bearer {TOKEN}");
    let bad_bearer = format!("Bearer wrong-{TOKEN}");
    let wrong = basic("canary-user", TOKEN);
    let json = ("Content-Type", "application/json");
    let token = ("X-Token", TOKEN);
    let more = [
        ("Cookie", "session=canary-cookie"),
        ("X-Api-Key", "canary-api-key"),
        ("User-Agent", "sender"),
    ];
    let large = CANARY.repeat(1000);
    let large = large.as_bytes();
    let plan: Vec<(&str, String, Vec<(&str, &str)>, &[u8])> = vec![
        (
            "POST",
            "/github".into(),
            vec![("X-Hub-Signature-256", &github)],
            body,
        ),
        (
            "POST",
            "/github".into(),
            vec![("X-Hub-Signature-256", &github)],
            b"canary other body",
        ),
        (
            "POST",
            "/github".into(),
            vec![("X-Hub-Signature-256", "sha256=canary-not-hex")],
            body,
        ),
        (
            "POST",
            "/github".into(),
            vec![("X-Hub-Signature-256", &github)],
            large,
        ),
        ("GET", format!("/github?token={TOKEN}"), vec![], b""),
        (
            "POST",
            "/stripe".into(),
            vec![("Stripe-Signature", &stripe)],
            body,
        ),
        (
            "POST",
            "/stripe".into(),
            vec![("Stripe-Signature", &stripe)],
            body,
        ),
        (
            "POST",
            "/stripe".into(),
            vec![("Stripe-Signature", "t=canary,v1=canary")],
            body,
        ),
        (
            "POST",
            format!("/query?auth={TOKEN}&a=canary-query"),
            vec![],
            body,
        ),
        ("POST", format!("/query?auth=x{TOKEN}"), vec![], body),
        (
            "POST",
            format!("/query?auth={TOKEN}&auth={TOKEN}"),
            vec![],
            body,
        ),
        (
            "POST",
            format!("/nowhere/{TOKEN}?auth={TOKEN}"),
            vec![],
            body,
        ),
        ("POST", format!("/{TOKEN}"), vec![], body),
        ("POST", format!("/path/{TOKEN}/out"), vec![], body),
        ("POST", format!("/path/{TOKEN}/in"), vec![], body),
        ("POST", format!("/path/wrong-{TOKEN}/in"), vec![], body),
        ("PUT", format!("/path/{TOKEN}/in"), vec![], body),
        ("POST", format!("/path/{TOKEN}/in"), vec![token], body),
        ("POST", format!("/path/../{TOKEN}"), vec![], body),
        ("POST", "/header".into(), vec![token], body),
        (
            "POST",
            "/header".into(),
            vec![("X-Token", "canary-wrong")],
            body,
        ),
        ("POST", "/header".into(), vec![token, token], body),
        (
            "POST",
            "/bearer".into(),
            vec![("Authorization", &bearer)],
            body,
        ),
        (
            "POST",
            "/bearer".into(),
            vec![("Authorization", &bad_bearer)],
            body,
        ),
        (
            "POST",
            "/basic".into(),
            vec![("Authorization", &credentials)],
            body,
        ),
        (
            "POST",
            "/basic".into(),
            vec![("Authorization", &wrong)],
            body,
        ),
        (
            "POST",
            "/basic".into(),
            vec![("Authorization", "Basic canary!!")],
            body,
        ),
        (
            "POST",
            "/gitlab".into(),
            vec![("X-Gitlab-Token", TOKEN)],
            body,
        ),
        (
            "POST",
            "/gitlab".into(),
            vec![("X-Gitlab-Token", "canary-wrong")],
            body,
        ),
        ("POST", "/json".into(), vec![json], b"{canary"),
        (
            "POST",
            "/json".into(),
            vec![json, ("Content-Encoding", "canary")],
            body,
        ),
        ("POST", "/dead".into(), vec![], body),
        (
            "POST",
            "/json".into(),
            vec![("Content_Length", "canary")],
            body,
        ),
        ("POST", "/json".into(), vec![("Host", "canary@host")], body),
        ("PATCH", "/json?canary".into(), vec![], body),
    ];
    let mut answers: Vec<(u16, String)> = Vec::new();
    for (method, path, mut headers, body) in plan {
        headers.extend(more);
        for h2 in [false, true] {
            if h2 && headers.iter().any(|(name, _)| *name == "Host") {
                continue;
            }
            let lower: Vec<(String, &str)> = headers
                .iter()
                .map(|(name, value)| (name.to_lowercase(), *value))
                .collect();
            let lower: Vec<(&str, &str)> = lower
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect();
            let answer = if h2 {
                gateway.h2().exchange(method, &path, &lower, body)
            } else {
                gateway.tls().exchange(method, &path, &headers, body)
            };
            answers.push((
                answer.status,
                format!("{:?}{}", answer.headers, answer.text()),
            ));
        }
    }
    for broken in [
        "POST /canary HTTP/9.9\r\nX: canary\r\n\r\n",
        "canary\r\n\r\n",
        "POST /json HTTP/1.1\r\nHost: canary\r\nX-A: \0canary\r\n\r\n",
    ] {
        gateway.plain().send(broken.as_bytes()).rest();
    }
    app.script([
        Reply::RawThenClose(b"canary garbage of the app\r\n\r\n".to_vec()),
        Reply::RawThenClose(Vec::new()),
    ]);
    for _ in 0..2 {
        let answer = gateway.post("/json", &[], body);
        answers.push((answer.status, answer.text()));
    }
    // A sender that leaves, and a body that breaks off.
    let mut gone: Wire = gateway.tls();
    gone.send(format!("POST /query?auth={TOKEN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ncanary").as_bytes());
    drop(gone);
    answers
}

/// Everything a gateway wrote after all requests, at a log level that hides nothing.
fn run(arguments: &[&str]) {
    let app = App::start();
    let gateway = Gateway::start_as(
        &config(&routes(&app)),
        arguments,
        &[("KEY", KEY), ("TOKEN", TOKEN), ("RUST_LOG", "trace")],
        |dir| std::fs::write(dir.join("token"), TOKEN).unwrap(),
    );
    let answers = requests(&app, &gateway);
    gateway.wait_for_requests("query", "rejected", "body_incomplete", 1.0);
    gateway.reload_by("success", || gateway.signal("HUP"));
    gateway.reload_by("failure", || gateway.replace("token", "\n"));
    assert!(
        answers.iter().filter(|(status, _)| *status == 200).count() >= 15,
        "too few were accepted to prove anything"
    );
    for (status, answer) in &answers {
        assert!(
            !answer.contains(CANARY),
            "an answer with {status} tells: {answer}"
        );
    }
    let metrics = gateway.admin("/metrics").text();
    for (name, text) in [
        ("stdout", gateway.stdout()),
        ("stderr", gateway.stderr()),
        ("metrics", metrics),
    ] {
        let found = text.lines().find(|line| {
            let line = line.to_lowercase();
            line.contains(CANARY)
                || line
                    .contains(&data_encoding::BASE64.encode(TOKEN.as_bytes())[..12].to_lowercase())
        });
        assert_eq!(found, None, "{name} tells");
    }
    assert!(gateway.stdout().lines().count() > 50);
    let signature = hmac_hex("sha256", KEY, b"{\"canary\": \"in the body\"}");
    assert!(!gateway.stdout().contains(&signature) && !gateway.stderr().contains(&signature));
}

#[test]
fn no_canary_in_json_logs() {
    // SECURITY L-01 to L-03, L-07 to L-10
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
    let gateway = Gateway::start_with(
        &config(&routes(&app)),
        &[
            ("KEY", KEY),
            ("TOKEN", TOKEN),
            ("SSLKEYLOGFILE", file.to_str().unwrap()),
        ],
        |dir| {
            std::fs::write(dir.join("token"), TOKEN).unwrap();
        },
    );
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
    let gateway = Gateway::start_with(
        &config(&routes(&app)),
        &[("KEY", KEY), ("TOKEN", TOKEN)],
        |dir| {
            std::fs::write(dir.join("token"), TOKEN).unwrap();
        },
    );
    let time = super::support::now() - 400;
    let stale = format!(
        "t={time},v1={}",
        hmac_hex("sha256", KEY, format!("{time}.x").as_bytes())
    );
    let mut answers: Vec<(u16, Vec<(String, String)>, serde_json::Value)> = Vec::new();
    for header in [
        "",
        "garbage",
        "t=1,v1=00",
        &format!("t={time},v1={}", "0".repeat(64)),
        &stale,
    ] {
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
