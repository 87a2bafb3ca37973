//! `mode: observe`: everything is judged and counted; what would be refused for who sent it passes.

use serde_json::Value;

use super::support::{Answer, App, Gateway, SECRET, config, eventually, github, now, stripe};

fn route(app: &App, name: &str, verify: &str, more: &str) -> String {
    format!(
        "  - name: {name}
    match: {{ path: /{name} }}
    mode: observe
    verify: {verify}
    upstream: \"{}\"
{more}",
        app.url()
    )
}

/// Asserts that the request reached the app marked with this reason, and was counted so.
fn observed(gateway: &Gateway, app: &App, answer: &Answer, reason: &str) -> Value {
    let event = gateway.event();
    assert_eq!(answer.status, 200, "{event}");
    assert_eq!(
        (event["outcome"].as_str(), event["reason"].as_str()),
        (Some("observed"), Some(reason)),
        "{event}"
    );
    assert_eq!(
        (event["status"].as_u64(), event["upstream_status"].as_u64()),
        (Some(200), Some(200))
    );
    let seen = app.last();
    assert_eq!(
        seen.headers("x-hookward-verified"),
        [format!("no; reason={reason}")]
    );
    seen.lacks(&[
        "x-hookward-provider",
        "x-hookward-key-id",
        "x-hookward-event-id",
    ]);
    assert!(gateway.requests(event["route"].as_str().unwrap(), "observed", reason) >= 1);
    event
}

#[test]
fn signatures_and_timestamps() {
    // SECURITY A-45
    let app = App::start();
    let verify =
        format!("[{{ provider: stripe, secrets: [{{ id: k, from: \"value:{SECRET}\" }}] }}]");
    let gateway = Gateway::start(&config(&route(
        &app,
        "in",
        &verify,
        "    replay: { on_duplicate: off }\n",
    )));
    let ask = |headers: &[(&str, &str)]| {
        let spoofed = [
            ("X-Hookward-Verified", "provider:stripe"),
            ("X-Hookward-Key-Id", "k"),
        ];
        gateway.post("/in", &[headers, &spoofed].concat(), b"{}")
    };
    let zeros = "0".repeat(64);
    let mut asked = 0;
    for (header, reason) in [
        (None, "signature_missing"),
        (Some(format!("t={},v1=zz", now())), "signature_malformed"),
        (
            Some(format!("t={},v1={zeros}", now())),
            "signature_mismatch",
        ),
        (Some(format!("v1={zeros}")), "timestamp_missing"),
        (Some(format!("t=soon,v1={zeros}")), "timestamp_malformed"),
        (Some(stripe(b"{}", now() - 400)), "timestamp_stale"),
        (Some(stripe(b"{}", now() + 400)), "timestamp_ahead"),
    ] {
        let headers: Vec<(&str, &str)> = header
            .iter()
            .map(|value| ("Stripe-Signature", value.as_str()))
            .collect();
        observed(&gateway, &app, &ask(&headers), reason);
        assert_eq!(app.last().body, b"{}");
        asked += 1;
    }
    assert_eq!(app.count(), asked);
    assert_eq!(gateway.requests("in", "rejected", "signature_missing"), 0);

    let event = gateway.forwarded(&ask(&[("Stripe-Signature", &stripe(b"{}", now()))]), 200);
    assert_eq!(event["key_id"], "k");
    assert_eq!(
        app.last().headers("x-hookward-verified"),
        ["provider:stripe"]
    );
}

#[test]
fn credentials() {
    let app = App::start();
    let token = route(
        &app,
        "token",
        "[{ token: { query: auth, secrets: [\"value:token-0123456789abc\"] } }]",
        "",
    );
    let basic = route(
        &app,
        "basic",
        "[{ basic: { users: [{ name: ci, password: \"value:hunter22\" }] } }]",
        "",
    );
    let gateway = Gateway::start(&config(&[token, basic].concat()));
    observed(
        &gateway,
        &app,
        &gateway.post("/token", &[], b"x"),
        "credential_missing",
    );
    observed(
        &gateway,
        &app,
        &gateway.post("/token?auth=no&a=1", &[], b"x"),
        "credential_invalid",
    );
    assert_eq!(
        app.last().target(),
        "/token?a=1",
        "what stands in the place of a token is no less secret"
    );
    observed(
        &gateway,
        &app,
        &gateway.post("/basic", &[], b"x"),
        "credential_missing",
    );
    observed(
        &gateway,
        &app,
        &gateway.post("/basic", &[("Authorization", "Basic Y2k6bm8=")], b"x"),
        "credential_invalid",
    );
    app.last().lacks(&["authorization"]);
    gateway.forwarded(
        &gateway.post("/token?auth=token-0123456789abc", &[], b"x"),
        200,
    );
    assert_eq!(app.last().headers("x-hookward-verified"), ["token"]);
}

#[test]
fn sources_rates_and_replays() {
    let app = App::start();
    let verify = format!("[{{ provider: github, secrets: [\"value:{SECRET}\"] }}]");
    let routes = [
        route(&app, "source", "none", "    deny_ips: [127.0.0.1]\n"),
        route(
            &app,
            "rate",
            "none",
            "    rate_limits: [{ key: client_ip, rate: 1/h, burst: 1 }]\n",
        ),
        route(
            &app,
            "quota",
            &verify,
            "    rate_limits: [{ key: route, rate: 1/h, burst: 1 }]\n",
        ),
        route(
            &app,
            "rejects",
            &verify,
            "    replay: { window: 10m, on_duplicate: reject }\n",
        ),
        route(
            &app,
            "acknowledges",
            &verify,
            "    replay: { window: 10m }\n",
        ),
    ];
    let gateway = Gateway::start(&config(&routes.concat()));
    observed(
        &gateway,
        &app,
        &gateway.post("/source", &[], b"x"),
        "source_denied",
    );
    gateway.forwarded(&gateway.post("/rate", &[], b"x"), 200);
    observed(
        &gateway,
        &app,
        &gateway.post("/rate", &[], b"x"),
        "rate_limited",
    );
    let (name, value) = github(b"x");
    // What would be refused before it comes to that does not use up the limit of the route.
    for _ in 0..2 {
        observed(
            &gateway,
            &app,
            &gateway.post("/quota", &[], b"x"),
            "signature_missing",
        );
    }
    for (path, reason) in [
        ("/quota", "rate_limited"),
        ("/rejects", "replayed"),
        ("/acknowledges", "replayed"),
    ] {
        gateway.forwarded(&gateway.post(path, &[(&name, &value)], b"x"), 200);
        observed(
            &gateway,
            &app,
            &gateway.post(path, &[(&name, &value)], b"x"),
            reason,
        );
    }
    assert_eq!(app.count(), 11);
}

#[test]
fn the_log_says_which_routes_observe() {
    let app = App::start();
    let gateway = Gateway::start(&config(&route(
        &app,
        "in",
        "none",
        "    deny_ips: [127.0.0.1]\n",
    )));
    let said = eventually("it is said", || {
        let stderr = gateway.stderr();
        stderr.contains("these routes observe").then_some(stderr)
    });
    assert!(said.contains("\"routes\":\"in\""), "{said}");
}

#[test]
fn the_first_doubt_is_the_one_that_counts() {
    let app = App::start();
    let verify = format!("[{{ provider: github, secrets: [\"value:{SECRET}\"] }}]");
    let gateway = Gateway::start(&config(&route(
        &app,
        "in",
        &verify,
        "    deny_ips: [127.0.0.1]\n",
    )));
    observed(
        &gateway,
        &app,
        &gateway.post("/in", &[], b"x"),
        "source_denied",
    );
    let (name, value) = github(b"x");
    observed(
        &gateway,
        &app,
        &gateway.post("/in", &[(&name, &value)], b"x"),
        "source_denied",
    );
}

#[test]
fn what_makes_a_request_unsafe_is_refused_all_the_same() {
    let app = App::start();
    let verify = format!("[{{ provider: github, secrets: [\"value:{SECRET}\"] }}]");
    let more = "    body: { max_size: 10, content_types: [application/json], well_formed: true }\n";
    let gateway = Gateway::start(&config(&route(&app, "in", &verify, more)));
    let json = [("Content-Type", "application/json")];
    gateway.refused(
        &gateway.post("/in", &json, b"[1,2,3,4,5,6]"),
        413,
        "body_too_large",
    );
    gateway.refused(
        &gateway.post("/in", &[], b"{}"),
        415,
        "content_type_unsupported",
    );
    gateway.refused(&gateway.post("/in", &json, b"{"), 400, "body_malformed");
    let encoded = [json[0], ("Content-Encoding", "gzip")];
    gateway.refused(
        &gateway.post("/in", &encoded, b"{}"),
        415,
        "content_encoding_unsupported",
    );
    gateway.refused(
        &gateway.tls().exchange("GET", "/in", &[], b""),
        405,
        "method_not_allowed",
    );
    gateway.refused(
        &gateway.post("/in/../in", &json, b"{}"),
        400,
        "malformed_request",
    );
    app.saw_nothing();
    observed(
        &gateway,
        &app,
        &gateway.post("/in", &json, b"{}"),
        "signature_missing",
    );
}
