//! A provider's URL validation: answered by the gateway once proven, and never by the app.

use serde_json::Value;

use super::support::{Answer, App, Gateway, SECRET, config, hmac_hex, now};

/// A route for each of these presets at `/NAME`, all with [`SECRET`].
fn start(app: &App, presets: &[&str], more: &str) -> Gateway {
    let route = |name: &&str| {
        format!(
            "  - name: {name}
    match: {{ path: /{name} }}
    verify: [{{ provider: {name}, secrets: [{{ id: k, from: \"value:{SECRET}\" }}] }}]
    upstream: \"{}\"
    {more}
",
            app.url()
        )
    };
    Gateway::start(&config(&presets.iter().map(route).collect::<String>()))
}

/// Asserts that the next event is of a handshake answered with 200.
fn answered(gateway: &Gateway, answer: &Answer) -> Value {
    let event = gateway.event();
    assert_eq!(event["outcome"], "handshake", "{event}");
    assert_eq!(
        (answer.status, &event["reason"]),
        (200, &Value::Null),
        "{event}"
    );
    assert_eq!(event["upstream_status"], Value::Null);
    event
}

fn get(gateway: &Gateway, target: &str) -> Answer {
    gateway.tls().exchange("GET", target, &[], b"")
}

fn slack(gateway: &Gateway, secret: &str, body: &str) -> Answer {
    let time = now().to_string();
    let tag = hmac_hex("sha256", secret, format!("v0:{time}:{body}").as_bytes());
    let signature = format!("v0={tag}");
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Slack-Request-Timestamp", time.as_str()),
        ("X-Slack-Signature", signature.as_str()),
    ];
    gateway.post("/slack", &headers, body.as_bytes())
}

#[test]
fn a_challenge_comes_back_to_who_knows_the_verify_token() {
    // SECURITY
    let app = App::start();
    let gateway = start(&app, &["meta"], "");
    let token = SECRET.replace(' ', "+");
    let target = |token: &str, challenge: &str| {
        format!("/meta?hub.mode=subscribe&hub.challenge={challenge}&hub.verify_token={token}")
    };
    let answer = get(&gateway, &target(&token, "1158201444"));
    let event = answered(&gateway, &answer);
    assert_eq!(
        (event["route"].as_str(), event["method"].as_str()),
        (Some("meta"), Some("GET"))
    );
    assert_eq!(answer.text(), "1158201444");
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(gateway.requests("meta", "handshake", "none"), 1);

    for target in [
        target("guess", "1158201444"),
        target("", "1158201444"),
        target(&token, "%3Cscript%3E"),
        target(&token, ""),
        target(&token, &"1".repeat(2000)),
        target(&token, "1").replace("subscribe", "unsubscribe"),
    ] {
        let answer = get(&gateway, &target);
        let event = gateway.event();
        assert_eq!(answer.status, 403, "{target}: {event}");
        assert_eq!(event["reason"], "handshake_invalid");
        assert!(!answer.text().contains("script") && !answer.text().contains("111"));
    }
    assert_eq!(gateway.requests("meta", "rejected", "handshake_invalid"), 6);
    app.saw_nothing();
}

#[test]
fn the_methods_of_a_handshake_are_for_handshakes_only() {
    let app = App::start();
    let gateway = start(&app, &["meta", "slack"], "");
    let answer = get(&gateway, "/meta?other=1");
    gateway.refused(&answer, 405, "method_not_allowed");
    assert!(answer.header("allow").unwrap().contains("POST"));
    let answer = get(&gateway, "/slack?hub.mode=subscribe");
    gateway.refused(&answer, 405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    app.saw_nothing();
}

#[test]
fn a_signed_question_is_answered_only_when_the_signature_holds() {
    // SECURITY A-46
    let app = App::start();
    let gateway = start(&app, &["slack"], "");
    let question = "{\"type\": \"url_verification\", \"challenge\": \"3eZbrw1aBm2rZgRNFdxV\"}";
    let answer = slack(&gateway, SECRET, question);
    answered(&gateway, &answer);
    assert_eq!(answer.json()["challenge"], "3eZbrw1aBm2rZgRNFdxV");
    for (secret, question) in [
        (
            "a wrong secret, as long as the right one",
            question.to_owned(),
        ),
        (SECRET, question.replace("3eZbrw1aBm2rZgRNFdxV", "<b>")),
    ] {
        let answer = slack(&gateway, secret, &question);
        let event = gateway.event();
        assert!(matches!(answer.status, 401 | 403), "{event}");
        assert_eq!(event["outcome"], "rejected");
        assert!(!answer.text().contains("<b>"));
    }
    app.saw_nothing();
    // Any other signed body is a delivery.
    gateway.forwarded(
        &slack(&gateway, SECRET, "{\"type\": \"event_callback\"}"),
        200,
    );
    assert_eq!(app.last().body, b"{\"type\": \"event_callback\"}");
}

#[test]
fn what_only_looks_like_a_question_is_a_delivery_of_who_has_the_token() {
    // SECURITY A-46
    let app = App::start();
    let routes = format!(
        "  - name: slack
    match: {{ path: /slack }}
    verify:
      - any:
          - {{ token: {{ header: X-Token, secrets: [\"value:{SECRET}\"] }} }}
          - {{ provider: slack, secrets: [\"value:{SECRET}\"] }}
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start(&config(&routes));
    let question = "{\"type\": \"url_verification\", \"challenge\": \"3eZbrw1aBm2rZgRNFdxV\"}";
    let headers = [("Content-Type", "application/json"), ("X-Token", SECRET)];
    let answer = gateway.post("/slack", &headers, question.as_bytes());
    gateway.forwarded(&answer, 200);
    assert_eq!(app.last().body, question.as_bytes());
    // Signed, it is a question still, with the token or without.
    let time = now().to_string();
    let tag = hmac_hex("sha256", SECRET, format!("v0:{time}:{question}").as_bytes());
    let signature = format!("v0={tag}");
    let signed = [
        ("X-Slack-Request-Timestamp", time.as_str()),
        ("X-Slack-Signature", signature.as_str()),
    ];
    for token in [&headers[..], &headers[..1]] {
        let answer = gateway.post("/slack", &[token, &signed].concat(), question.as_bytes());
        answered(&gateway, &answer);
    }
    assert_eq!(app.count(), 1);
}

#[test]
fn no_handshake_signs_what_a_delivery_would_be_signed_with() {
    // SECURITY A-46: the question of X is not signed, and its answer is an HMAC with the secret.
    let app = App::start();
    let gateway = start(&app, &["x-twitter"], "");
    let answer = get(
        &gateway,
        "/x-twitter?crc_token=challenge_string&nonce=nonce_value",
    );
    answered(&gateway, &answer);
    let hmac = super::support::hmac_base64("sha256", SECRET.as_bytes(), b"challenge_string");
    assert_eq!(answer.json()["response_token"], format!("sha256={hmac}"));
    for crafted in ["%7B%22a%22:1%7D", "a%20b", "a:b", &"a".repeat(500), ""] {
        let answer = get(&gateway, &format!("/x-twitter?crc_token={crafted}&nonce=n"));
        let event = gateway.event();
        assert_eq!(answer.status, 403, "{crafted}: {event}");
        assert!(!answer.text().contains("sha256="));
    }
    app.saw_nothing();
}

#[test]
fn an_observing_route_answers_too_and_lets_doubtful_ones_pass() {
    let app = App::start();
    let gateway = start(&app, &["slack"], "mode: observe");
    let question = "{\"type\": \"url_verification\", \"challenge\": \"abc\"}";
    let answer = slack(&gateway, SECRET, question);
    answered(&gateway, &answer);
    app.saw_nothing();
    let answer = slack(
        &gateway,
        "a wrong secret, as long as the right one",
        question,
    );
    let event = gateway.event();
    assert!(matches!(answer.status, 200 | 401 | 403), "{event}");
    if answer.status == 200 {
        assert_eq!(event["outcome"], "observed");
        assert!(
            app.last()
                .header("x-hookward-verified")
                .unwrap()
                .starts_with("no; reason=")
        );
        assert_ne!(answer.text(), "abc");
    }
}
