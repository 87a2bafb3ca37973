//! Checks that need no body: tokens in four places, Basic, several at once, one of several.

use super::support::{Answer, App, Gateway, basic, config};

fn route(app: &App, verify: &str, more: &str) -> String {
    format!(
        "  - name: guarded
    match: {{ path: /in }}
    verify: {verify}
    upstream: \"{}\"
{more}",
        app.url()
    )
}

fn start(app: &App, verify: &str, more: &str) -> Gateway {
    Gateway::start_with(
        &config(&route(app, verify, more)),
        &[("TOKEN", "tk-first-0123456789"), ("OTHER", "tk second/+ü")],
        |_| {},
    )
}

const TOKEN: &str = "tk-first-0123456789";
const KEYS: &str = "secrets: [{ id: first, from: env:TOKEN }, { id: second, from: env:OTHER }]";

/// Wrong and missing credentials: 401 with this challenge.
fn unauthorized(gateway: &Gateway, answer: &Answer, reason: &str, challenge: &str) {
    let event = gateway.refused(answer, 401, reason);
    assert_eq!(event["route"], "guarded");
    assert_eq!(answer.header("www-authenticate"), Some(challenge));
}

#[test]
fn a_header_token() {
    // SECURITY
    let app = App::start();
    let gateway = start(
        &app,
        &format!("[{{ token: {{ header: X-Token, {KEYS} }} }}]"),
        "",
    );
    let ask = |headers: &[(&str, &str)]| gateway.post("/in", headers, b"x");
    let challenge = "Bearer realm=\"guarded\"";
    unauthorized(&gateway, &ask(&[]), "credential_missing", challenge);
    unauthorized(
        &gateway,
        &ask(&[("X-Token", "")]),
        "credential_missing",
        challenge,
    );
    for wrong in [
        "tk",
        "tk-first-012345678",
        "tk-first-01234567890",
        "TK-FIRST-0123456789",
        "tk-first-0123456789 x",
    ] {
        unauthorized(
            &gateway,
            &ask(&[("X-Token", wrong)]),
            "credential_invalid",
            challenge,
        );
    }
    // The same twice is not once (RT-26).
    unauthorized(
        &gateway,
        &ask(&[("X-Token", TOKEN), ("X-Token", TOKEN)]),
        "credential_invalid",
        challenge,
    );
    assert_eq!(
        gateway.requests("guarded", "rejected", "credential_missing"),
        2
    );
    assert_eq!(
        gateway.requests("guarded", "rejected", "credential_invalid"),
        6
    );
    app.saw_nothing();

    for (token, key) in [(TOKEN, "first"), ("tk second/+ü", "second")] {
        let event = gateway.forwarded(&ask(&[("x-token", token), ("X-Other", "kept")]), 200);
        assert_eq!(event["key_id"], key);
        let seen = app.last();
        seen.lacks(&["x-token"]);
        assert_eq!(seen.header("x-other"), Some("kept"));
        assert_eq!(seen.header("x-hookward-verified"), Some("token"));
        assert_eq!(seen.header("x-hookward-key-id"), Some(key));
        assert_eq!(seen.header("x-hookward-route"), Some("guarded"));
        let labels = [("route", "guarded"), ("key_id", key)];
        assert_eq!(
            gateway.metric("hookward_verification_key_used_total", &labels),
            Some(1)
        );
    }
}

#[test]
fn a_query_token_leaves_the_query_and_nothing_else_does() {
    // SECURITY RT-24, RT-25, L-09
    let app = App::start();
    let gateway = start(
        &app,
        &format!("[{{ token: {{ query: auth, {KEYS} }} }}]"),
        "",
    );
    let ask = |query: &str| gateway.post(&format!("/in{query}"), &[], b"x");
    let challenge = "Bearer realm=\"guarded\"";
    for missing in [
        "",
        "?",
        "?auth",
        "?auth=",
        "?AUTH=tk-first-0123456789",
        "?auth[]=tk-first-0123456789",
        "?a;auth=tk-first-0123456789",
    ] {
        unauthorized(&gateway, &ask(missing), "credential_missing", challenge);
    }
    for wrong in [
        "?auth=no",
        "?auth=tk-first-0123456789&auth=tk-first-0123456789",
        "?auth=tk-first-0123456789&%61uth=no",
        "?auth=tk-first-0123456789;b=1",
        // Decoded once, never twice.
        "?auth=tk%252Dfirst-0123456789",
        "?%2561uth=no&auth=no",
        "?auth=tk-first-0123456789%00",
    ] {
        unauthorized(&gateway, &ask(wrong), "credential_invalid", challenge);
    }
    app.saw_nothing();
    for (query, forwarded) in [
        ("?auth=tk-first-0123456789", "/in"),
        (
            "?a=1&auth=tk-first-0123456789&b=%zz&a=1",
            "/in?a=1&b=%zz&a=1",
        ),
        ("?%61uth=tk%2Dfirst-0123456789&c=+", "/in?c=+"),
        ("?x&auth=tk+second%2F%2B%C3%BC", "/in?x"),
        ("?AUTH=other&auth=tk-first-0123456789", "/in?AUTH=other"),
    ] {
        let event = gateway.forwarded(&ask(query), 200);
        assert_eq!(app.last().target(), forwarded, "{query}");
        assert_eq!(event["path"], "/in");
    }
}

#[test]
fn a_bearer_token() {
    // SECURITY RT-27
    let app = App::start();
    let gateway = start(
        &app,
        &format!("[{{ token: {{ bearer: true, {KEYS} }} }}]"),
        "",
    );
    let ask = |value: &str| gateway.post("/in", &[("Authorization", value)], b"x");
    let challenge = "Bearer realm=\"guarded\"";
    unauthorized(
        &gateway,
        &gateway.post("/in", &[], b"x"),
        "credential_missing",
        challenge,
    );
    for missing in ["Bearer", "Bearer ", "Basic dTpw", TOKEN] {
        unauthorized(&gateway, &ask(missing), "credential_missing", challenge);
    }
    unauthorized(&gateway, &ask("Bearer no"), "credential_invalid", challenge);
    let token = format!("Bearer {TOKEN}");
    let twice = [
        ("Authorization", token.as_str()),
        ("Authorization", "Basic dTpw"),
    ];
    unauthorized(
        &gateway,
        &gateway.post("/in", &twice, b"x"),
        "credential_invalid",
        challenge,
    );
    app.saw_nothing();
    for right in [
        token.as_str(),
        "bearer tk-first-0123456789",
        "BEARER  tk-first-0123456789",
    ] {
        gateway.forwarded(&ask(right), 200);
        app.last().lacks(&["authorization"]);
        assert_eq!(app.last().header("x-hookward-verified"), Some("token"));
    }
}

#[test]
fn a_path_token_is_forwarded_and_masked_in_the_log() {
    // SECURITY RT-23, L-08
    let app = App::start();
    let routes = format!(
        "  - name: guarded
    match: {{ path: \"/in/{{tk}}/x\" }}
    verify: [{{ token: {{ path: tk, {KEYS} }} }}]
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start_with(
        &config(&routes),
        &[("TOKEN", TOKEN), ("OTHER", "tk second/+ü")],
        |_| {},
    );
    for wrong in [
        "/in/wrong-token-value/x",
        "/in/tk-first-01234567890/x",
        "/in/tk%252Dfirst-0123456789/x",
        "/in/tk-first-0123456789%20/x",
        "/in/tk-first-0123456789;a=b/x",
    ] {
        let answer = gateway.post(wrong, &[], b"x");
        let event = gateway.refused(&answer, 401, "credential_invalid");
        assert_eq!(event["path"], "/in/***/x");
    }
    let answer = gateway.post("/in//x", &[], b"x");
    assert!(
        matches!(answer.status, 401 | 404),
        "an empty segment is no token"
    );
    gateway.event();
    let long = format!("/in/{}/x", "t".repeat(7_000));
    gateway.refused(&gateway.post(&long, &[], b"x"), 401, "credential_invalid");
    app.saw_nothing();
    for (path, key) in [
        ("/in/tk-first-0123456789/x", "first"),
        ("/in/tk%20second%2F+%C3%BC/x", "second"),
    ] {
        let event = gateway.forwarded(&gateway.post(path, &[], b"x"), 200);
        assert_eq!(
            (event["path"].as_str(), event["key_id"].as_str()),
            (Some("/in/***/x"), Some(key))
        );
        assert_eq!(app.last().target(), path);
    }
    assert!(
        !gateway.stdout().contains("tk-first") && !gateway.stdout().contains("wrong-token-value")
    );
}

#[test]
fn a_path_token_in_a_mistyped_url_is_masked_whoever_takes_it() {
    // SECURITY L-08
    let gateway = Gateway::start_with(
        &config(&format!(
            "  - name: guarded
    match: {{ path: \"/in/{{tk}}/x\" }}
    verify: [{{ token: {{ path: tk, {KEYS} }} }}]
    upstream: echo
  - name: both
    match: {{ path: \"/own/{{tk}}/{{*rest}}\" }}
    verify: [{{ token: {{ path: tk, {KEYS} }} }}]
    upstream: echo
  - name: rest
    match: {{ path: \"/{{*rest}}\" }}
    verify: [{{ token: {{ header: X-Key, {KEYS} }} }}]
    upstream: echo
"
        )),
        &[("TOKEN", TOKEN), ("OTHER", "tk second/+ü")],
        |_| {},
    );
    for (path, logged) in [
        (format!("/in/{TOKEN}/x/"), "/in/***/x/"),
        (format!("/in//{TOKEN}/x"), "/in//***/x"),
        (format!("/{TOKEN}"), "/***"),
    ] {
        let answer = gateway.post(&path, &[("X-Key", TOKEN)], b"x");
        let event = gateway.forwarded(&answer, 200);
        assert_eq!(event["route"], "rest");
        assert_eq!(event["path"], logged);
    }
    // Behind its own token, another's.
    let answer = gateway.post(&format!("/own/{TOKEN}/in/{TOKEN}"), &[], b"x");
    let event = gateway.forwarded(&answer, 200);
    assert_eq!(event["path"], "/own/***/in/***");
    assert!(!gateway.stdout().contains(TOKEN));
}

#[test]
fn a_query_token_in_the_path_of_a_mistyped_url_is_masked() {
    // SECURITY L-08
    let gateway = Gateway::start_with(
        &config(&format!(
            "  - name: guarded
    match: {{ path: /in }}
    verify: [{{ token: {{ query: auth, {KEYS} }} }}]
    upstream: echo
"
        )),
        &[("TOKEN", TOKEN), ("OTHER", "tk second/+ü")],
        |_| {},
    );
    for (path, logged) in [
        (format!("/in%3Fauth={TOKEN}"), "/***"),
        (format!("/in&auth={TOKEN}"), "/***"),
        (format!("/in/{TOKEN}"), "/in/***"),
    ] {
        let answer = gateway.post(&path, &[], b"x");
        let event = gateway.refused(&answer, 404, "route_not_found");
        assert_eq!(event["path"], logged);
    }
    assert!(!gateway.stdout().contains(TOKEN));
}

/// `secret` as Argon2id (19 MiB, 2 passes) and as bcrypt, made by argon2-cffi and by Python's bcrypt.
pub(crate) const ARGON2: &str = "$argon2id$v=19$m=19456,t=2,p=1$otbRDARhjKwa7DZnG449qg$ROc4PGUqERdBJvgNit0DJcQfLKNnVyQEmipPOzUI+Vo";
pub(crate) const BCRYPT: &str = "$2y$06$uiwX.EBqUZ21d4IJSczUEuBdxtPaT6L7s75ec8Vx0V4VFQgU048ra";

fn basic_users() -> String {
    format!(
        "[{{ basic: {{ users: [
      {{ name: plain, password: env:PW }},
      {{ name: argon, password_hash: \"{ARGON2}\" }}] }} }}]"
    )
}

#[test]
fn basic_credentials() {
    // SECURITY
    let app = App::start();
    let gateway = Gateway::start_with(
        &config(&route(&app, &basic_users(), "")),
        &[("PW", "pass:word ü")],
        |_| {},
    );
    let ask = |value: &str| gateway.post("/in", &[("Authorization", value)], b"x");
    let challenge = "Basic realm=\"guarded\"";
    unauthorized(
        &gateway,
        &gateway.post("/in", &[], b"x"),
        "credential_missing",
        challenge,
    );
    unauthorized(
        &gateway,
        &ask("Bearer abc"),
        "credential_missing",
        challenge,
    );
    let long = format!("Basic {}", "A".repeat(8_000));
    let mut bodies = Vec::new();
    for wrong in [
        &basic("plain", "wrong"),
        &basic("plain", ""),
        &basic("Plain", "pass:word ü"),
        &basic("nobody", "pass:word ü"),
        &basic("argon", "wrong"),
        "Basic !!!",
        "Basic cGxhaW4=",
        "Basic //79",
        "Basic",
        &long,
    ] {
        let answer = ask(wrong);
        unauthorized(&gateway, &answer, "credential_invalid", challenge);
        let mut body = answer.json();
        body["request_id"] = "".into();
        bodies.push(body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "the answers tell the failures apart");
    app.saw_nothing();
    for (user, password) in [("plain", "pass:word ü"), ("argon", "secret")] {
        let right = basic(user, password);
        for value in [
            right.clone(),
            right.replace("Basic", "bAsIc"),
            right.replace("Basic ", "Basic  "),
        ] {
            let event = gateway.forwarded(&ask(&value), 200);
            assert_eq!(event["key_id"], user);
            app.last().lacks(&["authorization"]);
            assert_eq!(app.last().header("x-hookward-verified"), Some("basic"));
            assert_eq!(app.last().header("x-hookward-key-id"), Some(user));
        }
    }
}

#[test]
fn basic_users_from_htpasswd_under_a_realm_of_their_own() {
    let app = App::start();
    let verify = "[{ basic: { realm: hooks, htpasswd: DIR/users } }]";
    let gateway = Gateway::start_with(&config(&route(&app, verify, "")), &[], |dir| {
        let users = format!("# people\nci:{BCRYPT}\nj\u{fc}rgen:{BCRYPT}\n");
        std::fs::write(dir.join("users"), users).unwrap();
    });
    let ask = |user: &str, password: &str| {
        gateway.post("/in", &[("Authorization", &basic(user, password))], b"x")
    };
    let answer = ask("ci", "wrong");
    gateway.refused(&answer, 401, "credential_invalid");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Basic realm=\"hooks\"")
    );
    app.saw_nothing();
    for user in ["ci", "j\u{fc}rgen"] {
        let event = gateway.forwarded(&ask(user, "secret"), 200);
        assert_eq!(event["key_id"], user);
        assert_eq!(app.last().header("x-hookward-key-id"), Some(user));
    }
}

#[test]
fn all_checks_must_hold() {
    let app = App::start();
    let verify = format!(
        "[{{ token: {{ query: auth, {KEYS} }} }},
      {{ basic: {{ users: [{{ name: ci, password: \"value:hunter22\" }}] }} }}]"
    );
    let gateway = start(&app, &verify, "");
    let token = format!("/in?auth={TOKEN}");
    let password = basic("ci", "hunter22");
    let with = [("Authorization", password.as_str())];
    let answer = gateway.post("/in", &with, b"x");
    unauthorized(
        &gateway,
        &answer,
        "credential_missing",
        "Bearer realm=\"guarded\"",
    );
    let answer = gateway.post(&token, &[], b"x");
    unauthorized(
        &gateway,
        &answer,
        "credential_missing",
        "Basic realm=\"guarded\"",
    );
    app.saw_nothing();
    gateway.forwarded(&gateway.post(&token, &with, b"x"), 200);
    assert_eq!(
        app.last().header("x-hookward-verified"),
        Some("token, basic")
    );
    app.last().lacks(&["authorization"]);
    assert_eq!(app.last().target(), "/in");
}

#[test]
fn one_of_several_is_enough() {
    let app = App::start();
    let verify = format!(
        "[{{ any: [
      {{ token: {{ header: X-Token, {KEYS} }} }},
      {{ basic: {{ users: [{{ name: ci, password: \"value:hunter22\" }}] }} }}] }}]"
    );
    let gateway = start(&app, &verify, "");
    let answer = gateway.post("/in", &[], b"x");
    gateway.refused(&answer, 401, "credential_missing");
    // Every way in is offered, in the order of the file.
    let ways = ["Bearer realm=\"guarded\"", "Basic realm=\"guarded\""];
    assert_eq!(answer.all("www-authenticate"), ways);
    // What was there and wrong says more than what was not there.
    gateway.refused(
        &gateway.post("/in", &[("X-Token", "no")], b"x"),
        401,
        "credential_invalid",
    );
    gateway.refused(
        &gateway.post("/in", &[("Authorization", &basic("ci", "no"))], b"x"),
        401,
        "credential_invalid",
    );
    app.saw_nothing();
    gateway.forwarded(&gateway.post("/in", &[("X-Token", TOKEN)], b"x"), 200);
    assert_eq!(app.last().header("x-hookward-verified"), Some("token"));
    gateway.forwarded(
        &gateway.post("/in", &[("Authorization", &basic("ci", "hunter22"))], b"x"),
        200,
    );
    assert_eq!(app.last().header("x-hookward-verified"), Some("basic"));
    // Both carriers are credentials of this route: neither reaches the app, whichever held.
    let both = [("X-Token", TOKEN), ("Authorization", "Bearer something")];
    gateway.forwarded(&gateway.post("/in", &both, b"x"), 200);
    app.last().lacks(&["x-token", "authorization"]);
}

#[test]
fn a_wrong_signature_beside_other_ways_in_offers_them_all() {
    let app = App::start();
    let verify = format!(
        "[{{ any: [
      {{ provider: github, secrets: [\"value:{}\"] }},
      {{ token: {{ query: auth, {KEYS} }} }},
      {{ token: {{ header: X-Token, {KEYS} }} }},
      {{ basic: {{ realm: hooks, users: [{{ name: ci, password: \"value:hunter22\" }}] }} }}] }}]",
        super::support::SECRET
    );
    let gateway = start(&app, &verify, "");
    let ways = [
        "Signature realm=\"guarded\"",
        "Bearer realm=\"guarded\"",
        "Basic realm=\"hooks\"",
    ];
    let (name, value) = super::support::github(b"another body");
    for (headers, reason) in [
        (&[][..], "credential_missing"),
        (&[(&*name, &*value)], "signature_mismatch"),
        (&[("X-Token", "no")], "credential_invalid"),
    ] {
        let answer = gateway.post("/in", headers, b"x");
        assert_eq!(answer.status, 401);
        let event = gateway.event();
        assert!(
            event["reason"] == reason || event["reason"] == "signature_missing",
            "{event}"
        );
        assert_eq!(answer.all("www-authenticate"), ways, "{reason}");
    }
    app.saw_nothing();
}

#[test]
fn credentials_can_be_kept_and_unchecked_ones_pass() {
    let app = App::start();
    let verify = format!("[{{ token: {{ query: auth, {KEYS} }} }}]");
    let gateway = start(&app, &verify, "    forward: { keep_credentials: true }\n");
    let target = format!("/in?auth={TOKEN}&a=1");
    gateway.forwarded(
        &gateway.post(&target, &[("Authorization", "Bearer app")], b"x"),
        200,
    );
    assert_eq!(app.last().target(), target);
    assert_eq!(app.last().header("authorization"), Some("Bearer app"));

    let gateway = start(&app, &verify, "");
    gateway.forwarded(
        &gateway.post(&target, &[("Authorization", "Bearer app")], b"x"),
        200,
    );
    assert_eq!(app.last().target(), "/in?a=1");
    assert_eq!(
        app.last().header("authorization"),
        Some("Bearer app"),
        "this route checks no Authorization"
    );
}

#[test]
fn a_secret_past_its_end_no_longer_counts() {
    // SECURITY A-13
    let app = App::start();
    let verify = "[{ token: { header: X-Token, secrets: [
      { id: old, from: \"value:old-token-0123456789\", not_after: 2020-01-01T00:00:00Z },
      { id: new, from: \"value:new-token-0123456789\", not_after: 2099-01-01T00:00:00Z }] } }]";
    let gateway = start(&app, verify, "");
    gateway.refused(
        &gateway.post("/in", &[("X-Token", "old-token-0123456789")], b"x"),
        401,
        "credential_invalid",
    );
    app.saw_nothing();
    let event = gateway.forwarded(
        &gateway.post("/in", &[("X-Token", "new-token-0123456789")], b"x"),
        200,
    );
    assert_eq!(event["key_id"], "new");
}

#[test]
fn the_status_of_a_401_can_be_set() {
    let app = App::start();
    let verify = format!("[{{ token: {{ header: X-Token, {KEYS} }} }}]");
    let gateway = start(
        &app,
        &verify,
        "    on_reject: { status: 403 }\n    body: { max_size: 10 }\n",
    );
    let answer = gateway.post("/in", &[], b"x");
    gateway.refused(&answer, 403, "credential_missing");
    // What another status hides, no challenge names.
    assert_eq!(answer.header("www-authenticate"), None);
    gateway.refused(
        &gateway.post("/in", &[("X-Token", "no")], b"x"),
        403,
        "credential_invalid",
    );
    let as_method = start(&app, &verify, "    on_reject: { status: 405 }\n");
    let answer = as_method.post("/in", &[], b"x");
    as_method.refused(&answer, 405, "credential_missing");
    assert_eq!(answer.header("allow"), Some("POST"));
    // Only the 401 reasons are covered.
    gateway.refused(
        &gateway.post("/in", &[("X-Token", TOKEN)], b"0123456789x"),
        413,
        "body_too_large",
    );
    app.saw_nothing();
}

#[test]
fn a_missing_credential_is_told_before_a_missing_signature_in_either_order() {
    let app = App::start();
    let token = format!("{{ token: {{ header: X-Token, {KEYS} }} }}");
    let github = "{ provider: github, secrets: [env:TOKEN] }";
    for verify in [
        format!("[{github}, {token}]"),
        format!("[{token}, {github}]"),
    ] {
        let gateway = start(&app, &verify, "");
        gateway.refused(&gateway.post("/in", &[], b"{}"), 401, "credential_missing");
        let answer = gateway.post("/in", &[("X-Token", TOKEN)], b"{}");
        gateway.refused(&answer, 401, "signature_missing");
    }
    app.saw_nothing();
}

#[test]
fn credentials_come_before_the_body_and_after_source_and_limits() {
    // SECURITY SM-35
    let app = App::start();
    let verify = format!("[{{ token: {{ header: X-Token, {KEYS} }} }}]");
    let more = "    deny_ips: [192.0.2.0/24]
    rate_limits: [{ key: client_ip, rate: 1/h, burst: 3 }]
    body: { max_size: 10, content_types: [application/json], well_formed: true }
";
    let gateway = start(&app, &verify, more);
    let large = [b'x'; 100];
    let json = ("Content-Type", "application/json");
    // Wrong in everything that comes later: the credential is judged first.
    gateway.refused(
        &gateway.post("/in", &[("Content-Type", "text/plain")], &large),
        401,
        "credential_missing",
    );
    gateway.refused(
        &gateway.post("/in", &[("X-Token", TOKEN), json], &large),
        413,
        "body_too_large",
    );
    gateway.refused(
        &gateway.post(
            "/in",
            &[("X-Token", TOKEN), ("Content-Type", "text/plain")],
            b"{",
        ),
        415,
        "content_type_unsupported",
    );
    // The limit of the client counts them all, and comes before the credential.
    gateway.refused(&gateway.post("/in", &[], &large), 429, "rate_limited");
    app.saw_nothing();
}

#[test]
fn a_guess_costs_its_memory_once() {
    // SECURITY DS-28: glibc does not find memory of this size and alignment again once it was given back
    let app = App::start();
    let hash = hookward::password_hash::hash_password(b"right").unwrap();
    let verify = format!("[{{ basic: {{ users: [{{ name: ci, password_hash: \"{hash}\" }}] }} }}]");
    let gateway = Gateway::start(&config(&route(&app, &verify, "")));
    let guess = || {
        let answer = gateway.post("/in", &[("Authorization", &basic("ci", "wrong"))], b"x");
        gateway.refused(&answer, 401, "credential_invalid");
    };
    guess();
    let first = gateway.size("VmRSS");
    for _ in 0..8 {
        guess();
    }
    // Two may be at work at once on a machine with four cores, though these come one after the other.
    let grown = gateway.size("VmRSS").saturating_sub(first);
    assert!(grown < 2 * 20 * 1024, "8 guesses keep {grown} KiB");
}
