//! `verify`: by a preset, and by the whole policy of a route.

use data_encoding::{BASE64, HEXLOWER};

use super::{Ended, Shell, config};
use crate::support::hmac_hex;

const SECRET: &str = "an example secret of 32 characters";
const BODY: &str = "{\"a\":1}";

fn request(path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let fields = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let fields = fields.collect::<Vec<_>>().concat();
    format!("POST {path} HTTP/1.1\r\nHost: hooks.example.org\r\n{fields}\r\n{body}")
}

fn signature(secret: &str, body: &str) -> String {
    format!("sha256={}", hmac_hex("sha256", secret, body.as_bytes()))
}

fn github(body: &str) -> String {
    let signature = signature(SECRET, body);
    request(
        "/gh",
        &[
            ("X-Hub-Signature-256", &signature),
            ("X-GitHub-Delivery", "d-1"),
        ],
        body,
    )
}

fn verify(request: &[u8], more: &[&str]) -> Ended {
    let mut args = vec!["verify", "--provider", "github", "--request", "-"];
    args.extend(more);
    Shell::new().env("S", SECRET).feed(&args, request)
}

#[test]
fn accepted_exits_0() {
    let ended = verify(github(BODY).as_bytes(), &["--secret", "env:S"]).code(0);
    assert!(
        ended.stdout.starts_with("accepted\n") && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let json = verify(
        github(BODY).as_bytes(),
        &["--secret", "env:S", "--format", "json"],
    )
    .code(0)
    .json();
    assert_eq!(json["verdict"], "accepted");
    assert_eq!(json["reason"], serde_json::Value::Null);
    assert_eq!(json["provider"], "github");
    assert_eq!(json["key_id"], "1");
    assert_eq!(json["event_id"], "d-1");
    assert_eq!(json["hints"], serde_json::json!([]));
    for step in json["steps"].as_array().unwrap() {
        assert!(
            step["step"].is_string() && step["detail"].is_string(),
            "{step}"
        );
        assert!(
            ["ok", "failed", "skipped"].contains(&step["result"].as_str().unwrap()),
            "{step}"
        );
    }
    let mut keys: Vec<_> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "event_id", "hints", "key_id", "provider", "reason", "steps", "verdict"
        ]
    );
}

#[test]
fn what_is_captured_steers_no_terminal() {
    // SECURITY S-25, L-07
    let body = "sale_id=x%1b[2J%0arejected: signature_mismatch";
    let head = "POST /?t=tokentokentoken16 HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded";
    let args = [
        "verify",
        "--provider",
        "gumroad/url-key",
        "--param",
        "query=t",
        "--secret",
        "value:tokentokentoken16",
        "--request",
        "-",
    ];
    let request = format!("{head}\r\n\r\n{body}");
    let ended = Shell::new().feed(&args, request.as_bytes()).code(0);
    let event = ended.stdout.lines().find(|line| line.contains("event:"));
    let shown = r"  event: x\u{1b}[2J\nrejected: signature_mismatch";
    assert_eq!(event, Some(shown));
    assert!(!ended.stdout.contains('\u{1b}'));
}

#[test]
fn the_second_secret_counts_too() {
    let secrets = [
        "--secret",
        "value:another one of them",
        "--secret",
        "env:S",
        "--format",
        "json",
    ];
    let json = verify(github(BODY).as_bytes(), &secrets).code(0).json();
    assert_eq!(json["key_id"], "2");
}

#[test]
fn rejected_exits_1_with_the_reason() {
    let unsigned = request("/gh", &[], BODY);
    let wrong = github(BODY).replace("{\"a\":1}", "{\"a\":2}");
    let odd = request("/gh", &[("X-Hub-Signature-256", "sha256=zz")], BODY);
    for (request, reason) in [
        (unsigned, "signature_missing"),
        (wrong, "signature_mismatch"),
        (odd, "signature_malformed"),
    ] {
        let ended = verify(
            request.as_bytes(),
            &["--secret", "env:S", "--format", "json"],
        )
        .code(1);
        let json = ended.json();
        assert_eq!(
            (&json["verdict"], &json["reason"]),
            (&"rejected".into(), &reason.into())
        );
        assert!(
            json["steps"]
                .as_array()
                .unwrap()
                .iter()
                .any(|step| step["result"] == "failed"),
            "{json}"
        );
        let ended = verify(request.as_bytes(), &["--secret", "env:S"]).code(1);
        assert!(
            ended.stdout.starts_with(&format!("rejected: {reason}\n")),
            "{ended:?}"
        );
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let wrong = github(BODY).replace("{\"a\":1}", "{\"a\":2}");
    for format in ["text", "json"] {
        let ended = verify(wrong.as_bytes(), &["--secret", "env:S", "--format", format]).code(1);
        assert!(
            !ended.stdout.contains(SECRET) && !ended.stderr.contains(SECRET),
            "{ended:?}"
        );
    }
}

#[test]
fn line_ends_and_target_forms() {
    let lf = github(BODY).replace("\r\n", "\n");
    verify(lf.as_bytes(), &["--secret", "env:S"]).code(0);
    let absolute = github(BODY).replace("POST /gh", "POST https://hooks.example.org/gh");
    verify(absolute.as_bytes(), &["--secret", "env:S"]).code(0);
}

#[test]
fn a_capture_that_is_cut_is_noted() {
    let cut = github(BODY).replace("Host", "Content-Length: 99\r\nHost");
    let ended = verify(cut.as_bytes(), &["--secret", "env:S"]).code(0);
    assert!(
        ended.stderr.contains("Content-Length is 99, but 7 bytes"),
        "{ended:?}"
    );
}

#[test]
fn what_cannot_be_judged_exits_2() {
    let good = github(BODY);
    verify(good.as_bytes(), &[]).unable("--secret");
    verify(good.as_bytes(), &["--secret", "env:ABSENT"]).unable("ABSENT");
    verify(good.as_bytes(), &["--secret", "env:S", "--param", "a=b"]).unable("param `a`");
    verify(
        good.as_bytes(),
        &["--secret", "env:S", "--url", "hooks.example.org"],
    )
    .unable("not a URL");
    verify(b"", &["--secret", "env:S"]).unable("it is empty");
    verify(b"POST / HTTP/1.1\r\nHost: h\r\n", &["--secret", "env:S"]).unable("no empty line");
    verify(b"POST /\0 HTTP/1.1\r\n\r\n", &["--secret", "env:S"]).unable("control character");
    let args = [
        "verify",
        "--provider",
        "github",
        "--secret",
        "env:S",
        "--request",
    ];
    let shell = Shell::new().env("S", SECRET);
    shell
        .run(&[&args[..], &["absent"]].concat())
        .unable("cannot read absent");
    shell
        .run(&[&args[..], &["/dev/zero"]].concat())
        .unable("larger than 64 MiB");
    shell
        .run(&["verify", "--provider", "gihub", "--request", "/dev/null"])
        .code(2);
}

#[test]
fn a_param_that_is_missing_exits_2() {
    let catalog = hookward::scheme::catalog::Catalog::built_in();
    let needy = catalog.names().into_iter().find(|name| {
        let Ok(selected) = catalog.find(name) else {
            return false;
        };
        let bound = selected.bind(&std::collections::BTreeMap::new(), None);
        bound.is_err_and(|wrong| wrong.iter().any(|message| message.contains("is missing")))
    });
    let name = needy.expect("some preset needs a param");
    let args = [
        "verify",
        "--provider",
        &name,
        "--secret",
        "value:x",
        "--request",
        "-",
    ];
    Shell::new()
        .feed(&args, github(BODY).as_bytes())
        .unable("is missing");
}

#[test]
fn time_is_judged_at_now() {
    let signed = Shell::new().with("b", BODY);
    let secret = "value:whsec_an_example_of_stripe";
    let message = signed
        .run(&[
            "sign",
            "--provider",
            "stripe",
            "--secret",
            secret,
            "--body",
            "b",
            "--now",
            "1700000000",
        ])
        .code(0)
        .stdout;
    for (now, reason) in [
        ("1700000000", None),
        ("2023-11-14T22:13:20Z", None),
        ("1700000299", None),
        ("1700000400", Some("timestamp_stale")),
        ("1699999600", Some("timestamp_ahead")),
        ("-5", Some("timestamp_ahead")),
    ] {
        let args = [
            "verify",
            "--provider",
            "stripe",
            "--secret",
            secret,
            "--request",
            "-",
            "--now",
            now,
            "--format",
            "json",
        ];
        let ended = Shell::new()
            .feed(&args, message.as_bytes())
            .code(i32::from(reason.is_some()));
        assert_eq!(ended.json()["reason"].as_str(), reason, "{now}");
    }
}

const ROUTES: &str = "  - name: all
    match: { host: hooks.example.org, path: '/all/{tk}' }
    allow_ips: [192.0.2.0/24]
    rate_limits: [{ key: route, rate: 5/s }]
    body: { max_size: 32, content_types: [application/json], well_formed: true }
    verify:
      - token: { path: tk, secrets: [{ id: door, from: env:TOKEN }] }
      - client_cert: { san: [sender.example.org] }
      - provider: github
        secrets: [{ id: new, from: env:S }, { id: old, from: env:OLD, not_after: 2024-01-01T00:00:00Z }]
    upstream: echo
  - name: either
    match: { path: /either }
    mode: observe
    verify:
      - any:
          - token: { header: X-Token, secrets: [env:TOKEN] }
          - basic: { users: [{ name: ci, password: env:TOKEN }] }
          - { provider: github, secrets: [env:S] }
    upstream: echo
  - name: hashed
    match: { path: /hashed }
    verify:
      - basic: { users: [{ name: ops, password_hash: '${env:HASH}' }] }
    upstream: echo
  - name: first
    match: { path: /first }
    body: { max_size: 32, content_types: [application/json], well_formed: true }
    verify:
      - any:
          - token: { query: q, secrets: [env:TOKEN] }
          - { provider: github, secrets: [env:S] }
      - token: { bearer: true, secrets: [env:OLD] }
    upstream: echo
  - name: signed
    match: { path: /signed }
    body: { max_size: 32, content_types: [application/json], well_formed: true }
    verify: [{ provider: github, secrets: [env:S] }]
    upstream: echo
  - { name: open, match: { path: /open }, verify: none, upstream: echo }
";
const TOKEN: &str = "a-token-of-thirty-characters..";

fn by_route(route: &str, request: &str, more: &[&str]) -> Ended {
    let listener = "    tls: { self_signed: [localhost] }\n";
    let with_client_ca = "    tls: { self_signed: [localhost], client_ca: ca.pem }\n";
    let shell = Shell::new()
        .with(
            "hookward.yaml",
            config(ROUTES).replace(listener, with_client_ca),
        )
        .with("ca.pem", authority())
        .env("S", SECRET)
        .env("OLD", "the secret of last year, long enough")
        .env("TOKEN", TOKEN)
        .env(
            "HASH",
            &hookward::password_hash::hash_password(b"open sesame").unwrap(),
        );
    let mut args = vec![
        "verify",
        "--route",
        route,
        "--request",
        "-",
        "--format",
        "json",
    ];
    args.extend(more);
    shell.feed(&args, request.as_bytes())
}

#[test]
fn what_the_gateway_refuses_first_is_the_reason() {
    let json = ("Content-Type", "application/json");
    let text = ("Content-Type", "text/plain");
    let mismatch = signature(SECRET, "another body");
    for (route, path, headers, body, reason) in [
        ("signed", "/signed", &[json][..], "{", "signature_missing"),
        (
            "signed",
            "/signed",
            &[text],
            "{",
            "content_type_unsupported",
        ),
        (
            "signed",
            "/signed",
            &[json, ("X-Hub-Signature-256", "zz")],
            "{",
            "signature_malformed",
        ),
        (
            "signed",
            "/signed",
            &[json, ("X-Hub-Signature-256", &mismatch)],
            "{",
            "body_malformed",
        ),
        (
            "first",
            "/first?q=wrong",
            &[json],
            "{}",
            "credential_invalid",
        ),
        (
            "first",
            "/first",
            &[json, ("Authorization", "Bearer wrong")],
            "{}",
            "credential_missing",
        ),
    ] {
        let ended = by_route(route, &request(path, headers, body), &[]).code(1);
        let verdict = ended.json();
        assert_eq!(verdict["reason"], reason, "{path} {headers:?}");
        assert_eq!(verdict["key_id"], serde_json::Value::Null);
        let mut steps = verdict["steps"].as_array().unwrap().iter();
        assert!(steps.any(|step| step["result"] == "failed"), "{verdict}");
    }
}

fn authority() -> String {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap()
        .pem()
}

fn all(body: &str) -> String {
    let signature = signature(SECRET, body);
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Hub-Signature-256", &*signature),
    ];
    request(&format!("/all/{TOKEN}"), &headers, body)
}

fn step<'j>(json: &'j serde_json::Value, name: &str) -> Option<&'j str> {
    let mut steps = json["steps"].as_array().unwrap().iter();
    steps
        .find(|step| step["step"] == name)
        .map(|step| step["result"].as_str().unwrap())
}

#[test]
fn the_whole_policy_of_a_route() {
    let json = by_route("all", &all(BODY), &["--client-ip", "192.0.2.7"])
        .code(0)
        .json();
    assert_eq!(
        (&json["verdict"], &json["provider"]),
        (&"accepted".into(), &"github".into())
    );
    assert_eq!(json["key_id"], "new");
    for (name, result) in [
        ("head", "ok"),
        ("route", "ok"),
        ("source", "ok"),
        ("token", "ok"),
        ("client_cert", "skipped"),
        ("body_size", "ok"),
        ("body_syntax", "ok"),
        ("rate_limits", "skipped"),
    ] {
        assert_eq!(step(&json, name), Some(result), "{name}: {json}");
    }
    assert!(!json.to_string().contains(TOKEN), "{json}");
    let json = by_route("all", &all(BODY), &[]).code(0).json();
    assert_eq!(step(&json, "source"), Some("skipped"));
}

#[test]
fn each_stage_of_a_route_refuses() {
    let good = all(BODY);
    let big = all("{\"a\":\"0123456789 0123456789 0123456789\"}");
    let old = {
        let signature = signature("the secret of last year, long enough", BODY);
        good.replace(&self::signature(SECRET, BODY), &signature)
    };
    for (request, reason) in [
        (
            good.replace("Host: hooks.example.org\r\n", ""),
            "malformed_request",
        ),
        (good.replace("/all/", "/all/../all/"), "malformed_request"),
        (good.replace("/all/", "/nowhere/"), "route_not_found"),
        (
            good.replace("hooks.example.org", "example.net"),
            "route_not_found",
        ),
        (good.replace("POST", "PUT"), "method_not_allowed"),
        (good.replace(TOKEN, "wrong"), "credential_invalid"),
        (
            good.replace("Content-Type", "X-Other"),
            "content_type_unsupported",
        ),
        (
            good.replace("Host", "Content-Encoding: gzip\r\nHost"),
            "content_encoding_unsupported",
        ),
        (big, "body_too_large"),
        (all("{\"a\":1"), "body_malformed"),
        (good.replace("{\"a\":1}", "{\"a\":2}"), "signature_mismatch"),
        (good.replace("X-Hub", "X-Hob"), "signature_missing"),
        (old, "signature_mismatch"),
    ] {
        let ended = by_route("all", &request, &["--client-ip", "192.0.2.7"]).code(1);
        assert_eq!(ended.json()["reason"], reason, "{request}\n{ended:?}");
    }
    let ended = by_route("all", &good, &["--client-ip", "198.51.100.1"]).code(1);
    assert_eq!(ended.json()["reason"], "source_denied");
    by_route("al", &good, &[]).unable("did you mean `all`");
}

#[test]
fn one_of_several_checks_is_enough() {
    let basic = |password: &str| {
        let credentials = BASE64.encode(format!("ci:{password}").as_bytes());
        request(
            "/either",
            &[("Authorization", &format!("Basic {credentials}"))],
            "x",
        )
    };
    let token = request("/either", &[("X-Token", TOKEN)], "x");
    let signed = request(
        "/either",
        &[("X-Hub-Signature-256", &signature(SECRET, "x"))],
        "x",
    );
    for request in [basic(TOKEN), token, signed] {
        let json = by_route("either", &request, &[]).code(0).json();
        assert_eq!(step(&json, "mode"), Some("skipped"), "{json}");
        assert_eq!(json["hints"], serde_json::json!([]));
    }
    let nothing = request("/either", &[], "x");
    let json = by_route("either", &nothing, &[]).code(1).json();
    assert_eq!(json["reason"], "credential_missing", "{json}");
    let json = by_route("either", &basic("wrong"), &[]).code(1).json();
    assert_eq!(json["reason"], "credential_invalid", "{json}");
}

#[test]
fn hashed_passwords_and_open_routes() {
    let basic = |password: &str| {
        let credentials = BASE64.encode(format!("ops:{password}").as_bytes());
        request(
            "/hashed",
            &[("Authorization", &format!("Basic {credentials}"))],
            "x",
        )
    };
    by_route("hashed", &basic("open sesame"), &[]).code(0);
    let json = by_route("hashed", &basic("wrong"), &[]).code(1).json();
    assert_eq!(json["reason"], "credential_invalid");
    let json = by_route("open", &request("/open", &[], "x"), &[])
        .code(0)
        .json();
    assert_eq!(step(&json, "verify"), Some("skipped"));
}

/// A capture of a request that is signed with its URL.
fn twilio(url: &str) -> String {
    let hex = hmac_hex("sha1", SECRET, format!("{url}ab").as_bytes());
    let signature = BASE64.encode(&HEXLOWER.decode(hex.as_bytes()).unwrap());
    let headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("X-Twilio-Signature", &*signature),
    ];
    request("/t", &headers, "a=b")
}

#[test]
fn the_url_begins_as_it_does_at_the_gateway() {
    // SECURITY A-42
    let (https, http) = ("https://hooks.example.org/t", "http://hooks.example.org/t");
    let called = "public_url: https://hooks.example.org";
    let tls = "s: { address: 127.0.0.1:0, tls: { self_signed: [localhost] } }";
    let allow = "p: { address: 127.0.0.1:0, plaintext: allow }";
    let told = format!("p: {{ address: 127.0.0.1:0, plaintext: allow, {called} }}");
    let redirect = "r: { address: 127.0.0.1:0, plaintext: redirect }";
    let args = ["verify", "--route", "t", "--request", "-"];
    for (listeners, right, wrong) in [
        (vec![tls], https, http),
        (vec![tls, allow], https, http),
        (vec![tls, redirect], https, http),
        (vec![allow], http, https),
        (vec![allow, redirect], http, https),
        (vec![&*told], https, http),
    ] {
        let config = format!(
            "version: 1\nlisteners:\n  {}\nroutes:\n  - {{ name: t, match: {{ path: /t }}, upstream: echo, \
             verify: [{{ provider: twilio, secrets: [env:S] }}] }}\n",
            listeners.join("\n  ")
        );
        let shell = Shell::new().with("hookward.yaml", config).env("S", SECRET);
        shell.feed(&args, twilio(right).as_bytes()).code(0);
        let refused = shell.feed(&args, twilio(wrong).as_bytes()).code(1);
        assert!(refused.stdout.contains(wrong), "{refused:?}");
    }
}

const ASKED: &str = "  - name: slack
    match: { path: /slack }
    replay: { window: 10m }
    verify: [{ provider: slack, secrets: [env:S] }]
    upstream: echo
  - name: x
    match: { path: /x }
    body: { content_types: [application/json] }
    verify:
      - token: { query: tk, secrets: [env:TOKEN] }
      - { provider: x-twitter, secrets: [env:S] }
    upstream: echo
  - name: meta
    match: { path: /meta }
    verify: [{ provider: meta, secrets: [env:S], params: { verify_token: env:TOKEN } }]
    upstream: echo
  - name: wrike
    match: { path: /wrike }
    verify: [{ provider: wrike, secrets: [env:S] }]
    upstream: echo
";

fn asked(route: &str, request: &str, more: &[&str]) -> Ended {
    let shell = Shell::new()
        .with("hookward.yaml", config(ASKED))
        .env("S", SECRET)
        .env("TOKEN", TOKEN);
    let moment = ["--now", "1700000000"];
    let args = ["verify", "--route", route, "--request", "-"];
    let args = [&args[..], &moment, more].concat();
    shell.feed(&args, request.as_bytes())
}

fn asked_json(route: &str, request: &str, code: i32) -> serde_json::Value {
    let ended = asked(route, request, &["--format", "json"]);
    ended.code(code).json()
}

/// A provider's question whether the URL is ours is judged as one, and its answer shown.
#[test]
fn a_handshake_is_answered_as_the_gateway_would() {
    let json = asked_json;
    let crc = |token: &str, query: &str| {
        format!("GET /x?tk={token}&{query} HTTP/1.1\r\nHost: hooks.example.org\r\n\r\n")
    };
    let verdict = json("x", &crc(TOKEN, "crc_token=abc"), 0);
    let mac = hmac_hex("sha256", SECRET, b"abc");
    let mac = BASE64.encode(&HEXLOWER.decode(mac.as_bytes()).unwrap());
    assert_eq!(
        verdict["handshake"]["body"],
        format!("{{\"response_token\":\"sha256={mac}\"}}")
    );
    for (request, reason) in [
        // The other checks of the route hold.
        (crc("wrong", "crc_token=abc"), "credential_invalid"),
        (crc(TOKEN, "crc_token=a.b"), "handshake_invalid"),
        (crc(TOKEN, "other=abc"), "method_not_allowed"),
    ] {
        assert_eq!(json("x", &request, 1)["reason"], reason, "{request}");
    }

    let meta = |token: &str| {
        let query = format!("hub.mode=subscribe&hub.challenge=42&hub.verify_token={token}");
        format!("GET /meta?{query} HTTP/1.1\r\nHost: hooks.example.org\r\n\r\n")
    };
    assert_eq!(json("meta", &meta(TOKEN), 0)["handshake"]["body"], "42");
    let verdict = json("meta", &meta("guess"), 1);
    assert_eq!(verdict["reason"], "handshake_invalid");
    assert_eq!(step(&verdict, "handshake"), Some("failed"));
}

#[test]
fn a_handshake_that_must_be_signed_is_judged_by_its_signature() {
    let json = asked_json;
    let body = r#"{"requestType":"WebHook secret verification"}"#;
    let wrike = |secret: &str| {
        let headers = [
            ("X-Hook-Secret", "a1B2c3D4e5F6"),
            (
                "X-Hook-Signature",
                &*hmac_hex("sha256", secret, body.as_bytes()),
            ),
        ];
        request("/wrike", &headers, body)
    };
    let verdict = json("wrike", &wrike(SECRET), 0);
    let headers = &verdict["handshake"]["headers"];
    assert_eq!(
        headers[0][1],
        hmac_hex("sha256", SECRET, b"a1B2c3D4e5F6"),
        "{verdict}"
    );
    let verdict = json("wrike", &wrike("another"), 1);
    assert_eq!(verdict["reason"], "signature_mismatch");

    let body = r#"{"type":"url_verification","challenge":"abc123"}"#;
    let mac = hmac_hex("sha256", SECRET, format!("v0:1700000000:{body}").as_bytes());
    let slack = |mac: &str| {
        let headers = [
            ("X-Slack-Request-Timestamp", "1700000000"),
            ("X-Slack-Signature", &*format!("v0={mac}")),
        ];
        request("/slack", &headers, body)
    };
    let forged = json("slack", &slack(&"0".repeat(64)), 1);
    assert_eq!(forged["reason"], "signature_mismatch");
    assert_eq!(forged.get("handshake"), None);
    let slack = slack(&mac);
    let verdict = json("slack", &slack, 0);
    assert_eq!(
        (&verdict["verdict"], &verdict["provider"]),
        (&"accepted".into(), &"slack".into()),
    );
    assert_eq!(step(&verdict, "handshake"), Some("ok"));
    assert_eq!(step(&verdict, "replay"), None, "{verdict}");
    assert_eq!(verdict["handshake"]["status"], 200);
    assert!(
        verdict["handshake"]["body"]
            .as_str()
            .unwrap()
            .contains("abc123")
    );
    let text = asked("slack", &slack, &[]).code(0).stdout;
    assert!(text.starts_with("accepted\n  provider: slack\n"), "{text}");
    assert!(
        text.contains("\nanswer: 200\n") && text.contains("abc123"),
        "{text}"
    );
    // A delivery that is no handshake is none.
    let delivery = request("/slack", &[], r#"{"type":"event_callback"}"#);
    let verdict = json("slack", &delivery, 1);
    assert_eq!(verdict["reason"], "signature_missing");
    assert_eq!(verdict.get("handshake"), None);
}

#[test]
fn what_is_no_capture_is_named() {
    let shell = Shell::new();
    let args = [
        "verify",
        "--provider",
        "github",
        "--secret",
        "value:an example of a secret",
        "--request",
        "-",
    ];
    for (bytes, part) in [
        (&b" \n"[..], "it is empty"),
        (b"{\"a\":1}", "it is a body alone"),
        (b"<a/>\n\n", "it is a body alone"),
        (
            b"* Connected\n> POST / HTTP/1.1\n> Host: h\n",
            "lines of `curl -v`",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n", "it is an answer"),
        (b"curl -X POST https://h/", "it is a command"),
        (b"\xef\xbb\xbfPOST / HTTP/1.1\n\n", "byte order mark"),
        (b"\xff\xfeP\0", "UTF-16"),
        (
            b"POST / HTTP/2\n\n",
            "line 1: write `METHOD target HTTP/1.1`",
        ),
    ] {
        let ended = shell.feed(&args, bytes).unable(part);
        let next = "docs/operations.md#capturing-a-request";
        assert!(ended.stderr.contains(next), "{ended:?}");
    }
    let client = [&args[..], &["--client-ip", "192.0.2.1"]].concat();
    shell.feed(&client, b"").unable("cannot be used with");
    let missing = [&args[..6], &["no.http"]].concat();
    shell
        .run(&missing)
        .unable("cannot read no.http: there is no such file");
    let folder = [&args[..6], &["."]].concat();
    shell
        .run(&folder)
        .unable("cannot read .: it is a directory");
}
