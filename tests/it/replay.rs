//! Deliveries that come again: claimed once, acknowledged or rejected, retried after a failure.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hookward::clock::Clock;
use hookward::config::Environment;
use hookward::gateway::Gateway as DataPath;
use hookward::gateway::connection::Connection;
use http::Request;
use http_body_util::Full;
use serde_json::Value;

use super::support::{
    Answer, App, Gateway, RawH2, Reply, SECRET, World, config, data_path, github, hmac_hex, loaded,
    now, stripe,
};

/// A Stripe route at `/stripe`, a second one with the same secret at `/other`, and a GitHub route.
fn start(app: &App, replay: &str) -> Gateway {
    start_with(app, replay, "")
}

fn start_with(app: &App, replay: &str, more: &str) -> Gateway {
    let replay = if replay.is_empty() {
        String::new()
    } else {
        format!("    replay: {replay}\n")
    };
    let route = |name: &str, provider: &str| {
        format!(
            "  - name: {name}
    match: {{ path: /{name} }}
    verify: [{{ provider: {provider}, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{}\"
{replay}{more}",
            app.url()
        )
    };
    Gateway::start(&config(
        &[route("stripe", "stripe"), route("other", "stripe")].concat(),
    ))
}

fn post(gateway: &Gateway, header: &str, body: &[u8]) -> Answer {
    gateway.post("/stripe", &[("Stripe-Signature", header)], body)
}

#[test]
fn a_delivered_event_is_acknowledged_and_not_forwarded_again() {
    // SECURITY A-20, A-21, A-25
    let app = App::start();
    let gateway = start(&app, "");
    let (body, time) = (b"{\"id\":\"evt_1\"}", now());
    let header = stripe(body, time);
    gateway.forwarded(&post(&gateway, &header, body), 200);

    let tag = header.split("v1=").nth(1).unwrap().to_owned();
    for again in [
        header.clone(),
        header
            .to_uppercase()
            .replace("T=", "t=")
            .replace("V1=", "v1="),
        format!("v0=abc,t={time},v1={},v1={tag}", "0".repeat(64)),
        format!("t={time},v1={tag},v1={tag}"),
    ] {
        let answer = post(&gateway, &again, body);
        let event = gateway.event();
        assert_eq!(event["outcome"], "duplicate", "{again}: {event}");
        assert_eq!((answer.status, &event["reason"]), (200, &Value::Null));
        assert_eq!(event["status"], 200);
        assert_eq!(event["upstream_status"], Value::Null);
    }
    // Its id is signed: tried again at another time, and with another body, it is the same event.
    let later = b"{\"id\":\"evt_1\",\"attempt\":2}";
    assert_eq!(post(&gateway, &stripe(later, time + 1), later).status, 200);
    assert_eq!(gateway.event()["outcome"], "duplicate");
    assert_eq!(app.count(), 1);
    assert_eq!(gateway.requests("stripe", "duplicate", "none"), 5);
    // Another id and another route are other deliveries; without an id, so is another body or time.
    let other = b"{\"id\":\"evt_2\"}";
    gateway.forwarded(&post(&gateway, &stripe(other, time), other), 200);
    gateway.forwarded(
        &gateway.post("/other", &[("Stripe-Signature", &header)], body),
        200,
    );
    for (body, time) in [
        (&b"no id"[..], time),
        (b"no id", time - 1),
        (b"other", time),
        (b"{\"id\":7}", time),
    ] {
        gateway.forwarded(&post(&gateway, &stripe(body, time), body), 200);
    }
    assert_eq!(app.count(), 7);
}

#[test]
fn a_delivered_event_is_rejected_where_the_route_says_so() {
    let app = App::start();
    let gateway = start(&app, "{ window: 10m, on_duplicate: reject }");
    let header = stripe(b"x", now());
    gateway.forwarded(&post(&gateway, &header, b"x"), 200);
    for _ in 0..2 {
        let answer = post(&gateway, &header, b"x");
        let event = gateway.refused(&answer, 409, "replayed");
        assert_eq!(event["provider"], "stripe");
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!(gateway.requests("stripe", "rejected", "replayed"), 2);
    assert_eq!(app.count(), 1);
}

#[test]
fn replays_are_not_looked_for_where_they_are_off() {
    let app = App::start();
    let gateway = start(&app, "{ on_duplicate: off }");
    let header = stripe(b"x", now());
    for _ in 0..2 {
        gateway.forwarded(&post(&gateway, &header, b"x"), 200);
    }
    assert_eq!(app.count(), 2);
}

#[test]
fn after_a_failed_attempt_the_next_one_passes() {
    // SECURITY A-24, U-05
    let app = App::start();
    let gateway = start_with(
        &app,
        "{ window: 10m, on_duplicate: reject }",
        "    forward: { timeout: 300ms }\n",
    );
    let header = stripe(b"x", now());
    app.script([
        Reply::status(500),
        Reply::status(404),
        Reply::status(302),
        Reply::RawThenClose(Vec::new()),
        Reply::Silence,
        Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"),
    ]);
    for status in [500, 404, 302] {
        gateway.forwarded(&post(&gateway, &header, b"x"), status);
    }
    gateway.refused(&post(&gateway, &header, b"x"), 502, "upstream_aborted");
    gateway.refused(&post(&gateway, &header, b"x"), 504, "upstream_timeout");
    gateway.forwarded(&post(&gateway, &header, b"x"), 204);
    gateway.refused(&post(&gateway, &header, b"x"), 409, "replayed");
    assert_eq!(app.count(), 6);
}

#[test]
fn a_delivery_under_way_is_not_forwarded_a_second_time() {
    // SECURITY A-26
    let app = App::start();
    let gateway = start(&app, "");
    let header = stripe(b"x", now());
    app.script([Reply::AfterGate(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst".to_vec(),
    )]);
    thread::scope(|scope| {
        let first = scope.spawn(|| post(&gateway, &header, b"x"));
        app.wait_for(1);
        for _ in 0..3 {
            let answer = post(&gateway, &header, b"x");
            gateway.refused(&answer, 409, "delivery_in_flight");
            let wait: u64 = answer
                .header("retry-after")
                .expect("Retry-After")
                .parse()
                .unwrap();
            assert!((1..=60).contains(&wait), "{wait}");
        }
        app.open_gate();
        let answer = first.join().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "first"));
    });
    gateway.event();
    let answer = post(&gateway, &header, b"x");
    assert_eq!(
        (answer.status, gateway.event()["outcome"].as_str()),
        (200, Some("duplicate"))
    );
    assert_eq!(app.count(), 1);
}

#[test]
fn of_many_copies_at_once_exactly_one_arrives() {
    // SECURITY A-26
    let app = App::start();
    let gateway = start(&app, "");
    for round in 0..10 {
        let body = format!("{round}");
        let header = stripe(body.as_bytes(), now());
        let statuses: Vec<u16> = thread::scope(|scope| {
            let copies: Vec<_> = (0..6)
                .map(|_| scope.spawn(|| post(&gateway, &header, body.as_bytes()).status))
                .collect();
            copies
                .into_iter()
                .map(|copy| copy.join().unwrap())
                .collect()
        });
        assert!(
            statuses.iter().all(|status| matches!(status, 200 | 409)),
            "{statuses:?}"
        );
        assert_eq!(
            app.seen()
                .iter()
                .filter(|seen| seen.body == body.as_bytes())
                .count(),
            1
        );
    }
}

#[test]
fn a_claimed_delivery_is_finished_even_if_the_sender_hangs_up() {
    // SECURITY U-20, T-08
    let app = App::start();
    let gateway = start(&app, "");
    app.script([Reply::AfterGate(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    )]);
    let header = stripe(b"x", now());
    // Over HTTP/1.1 it shows when the answer is written that nobody is there to read it.
    let mut streams = RawH2::open(gateway.address("https"));
    let field = ("stripe-signature", header.as_bytes());
    streams.post(1, b"/stripe", &[field], b"x");
    app.wait_for(1);
    drop(streams);
    gateway.wait_for_metric("hookward_connections", 0);
    app.open_gate();
    let event = gateway.event();
    assert_eq!(
        (event["outcome"].as_str(), event["upstream_status"].as_u64()),
        (Some("forwarded"), Some(200))
    );
    // It counts as delivered: its retry is a duplicate.
    assert_eq!(post(&gateway, &header, b"x").status, 200);
    assert_eq!(gateway.event()["outcome"], "duplicate");
    assert_eq!(app.count(), 1);
}

#[test]
fn a_sender_that_leaves_before_its_body_is_complete_claims_nothing() {
    // SECURITY U-20
    let app = App::start();
    let gateway = start(&app, "");
    let header = stripe(b"xyz", now());
    let head = format!(
        "POST /stripe HTTP/1.1\r\nHost: localhost\r\nStripe-Signature: {header}\r\nContent-Length: 3\r\n\r\nxy"
    );
    gateway.tls().send(head.as_bytes());
    assert_eq!(gateway.event()["reason"], "body_incomplete");
    app.saw_nothing();
    gateway.forwarded(&post(&gateway, &header, b"xyz"), 200);
}

#[test]
fn only_a_signature_that_held_claims_anything() {
    // SECURITY DS-24, A-23
    let app = App::start();
    let gateway = start(&app, "{ window: 10m, on_duplicate: reject }");
    let time = now();
    for _ in 0..2 {
        gateway.refused(
            &post(&gateway, &format!("t={time},v1={}", "0".repeat(64)), b"x"),
            401,
            "signature_mismatch",
        );
    }
    gateway.forwarded(&post(&gateway, &stripe(b"x", time), b"x"), 200);
    assert_eq!(app.count(), 1);
}

/// GitHub signs neither a timestamp nor its delivery id.
#[test]
fn without_a_signed_timestamp_it_is_off_until_asked_for() {
    // SECURITY A-18, A-23
    let app = App::start();
    let route = |name: &str, replay: &str| {
        format!(
            "  - name: {name}
    match: {{ path: /{name} }}
    verify: [{{ provider: github, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{}\"
{replay}",
            app.url()
        )
    };
    let routes = [
        route("off", ""),
        route("on", "    replay: { window: 10m }\n"),
    ]
    .concat();
    let gateway = Gateway::start(&config(&routes));
    let (name, value) = github(b"x");
    let ask = |path: &str, id: &str| {
        gateway.post(path, &[(&name, &value), ("X-GitHub-Delivery", id)], b"x")
    };
    gateway.forwarded(&ask("/off", "1"), 200);
    gateway.forwarded(&ask("/off", "1"), 200);
    gateway.forwarded(&ask("/on", "1"), 200);
    // The id is not signed: changing it makes no new delivery.
    for id in ["1", "2"] {
        assert_eq!(ask("/on", id).status, 200);
        assert_eq!(gateway.event()["outcome"], "duplicate");
    }
    assert_eq!(app.count(), 3);
}

#[test]
fn a_delivery_stays_the_same_while_its_secret_is_changed() {
    // SECURITY A-13, A-20, A-26
    const NEXT: &str = "the secret that is to come, as long as the old one";
    let app = App::start();
    let with = |secrets: &[&str]| {
        let secrets: Vec<_> = secrets
            .iter()
            .map(|own| format!("\"value:{own}\""))
            .collect();
        config(&format!(
            "  - name: on
    match: {{ path: /on }}
    verify: [{{ provider: github, secrets: [{}] }}]
    upstream: \"{}\"
    replay: {{ window: 10m }}
",
            secrets.join(", "),
            app.url()
        ))
    };
    let gateway = Gateway::start(&with(&[SECRET]));
    let send = |secret: &str, body: &str| {
        let value = format!("sha256={}", hmac_hex("sha256", secret, body.as_bytes()));
        let field = ("X-Hub-Signature-256", value.as_str());
        gateway.post("/on", &[field], body.as_bytes()).status
    };
    let arrived = |body: &str| {
        let seen = app.seen();
        seen.iter()
            .filter(|own| own.body == body.as_bytes())
            .count()
    };
    assert_eq!(send(SECRET, "before"), 200);

    // While both count, what was signed with one is known under the other.
    gateway.reload(&with(&[NEXT, SECRET]), "success");
    for secret in [SECRET, NEXT, SECRET] {
        assert_eq!(send(secret, "before"), 200);
        assert_eq!(send(secret, "between"), 200);
    }
    for round in 0..10 {
        let body = format!("at once {round}");
        thread::scope(|scope| {
            for secret in [NEXT, SECRET, NEXT, SECRET] {
                let (send, body) = (&send, &body);
                scope.spawn(move || assert!(matches!(send(secret, body), 200 | 409)));
            }
        });
        assert_eq!(arrived(&body), 1);
    }

    gateway.reload(&with(&[NEXT]), "success");
    assert_eq!(send(NEXT, "between"), 200);
    assert_eq!((arrived("before"), arrived("between")), (1, 1));
    assert_eq!(send(SECRET, "before"), 401);
}

#[test]
fn the_signed_event_id_is_the_delivery_where_there_is_one() {
    // SECURITY A-24
    let app = App::start();
    let secret = format!("whsec_{}", data_encoding::BASE64.encode(SECRET.as_bytes()));
    let routes = format!(
        "  - name: standard
    match: {{ path: /standard }}
    verify: [{{ provider: standard-webhooks, secrets: [\"value:{secret}\"] }}]
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start(&config(&routes));
    let ask = |id: &str, time: i64| {
        let content = format!("{id}.{time}.{{}}");
        let signature = format!(
            "v1,{}",
            super::support::hmac_base64("sha256", SECRET.as_bytes(), content.as_bytes())
        );
        gateway.post(
            "/standard",
            &[
                ("webhook-id", id),
                ("webhook-timestamp", &time.to_string()),
                ("webhook-signature", &signature),
            ],
            b"{}",
        )
    };
    app.script([Reply::status(503)]);
    gateway.forwarded(&ask("msg_1", now() - 5), 503);
    // A retry has the id of the first attempt, and a time and signature of its own.
    gateway.forwarded(&ask("msg_1", now() - 3), 200);
    assert_eq!(ask("msg_1", now() - 1).status, 200);
    assert_eq!(gateway.event()["outcome"], "duplicate");
    gateway.forwarded(&ask("msg_2", now() - 1), 200);
    assert_eq!(app.count(), 3);
}

#[test]
fn a_content_type_that_nobody_signed_makes_no_other_delivery() {
    // SECURITY A-21, A-23: the id stands in the signed body, whatever the head calls that
    let app = App::start();
    let gateway = start(&app, "");
    let time = now();
    let send = |body: &str, time: i64, media_type: &str| {
        let signature = stripe(body.as_bytes(), time);
        let fields = [
            ("Stripe-Signature", signature.as_str()),
            ("Content-Type", media_type),
        ];
        gateway.post("/stripe", &fields, body.as_bytes()).status
    };
    let body = "{\"id\":\"evt_1\"}";
    assert_eq!(send(body, time, "application/json"), 200);
    for media_type in [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/xml",
    ] {
        for time in [time, time - 1] {
            assert_eq!(send(body, time, media_type), 200, "{media_type}");
        }
    }
    assert_eq!(app.count(), 1);
}

/// A route at `/NAME` with a scheme of the operator's own.
fn own_scheme(app: &App, name: &str, pairs: &str, signed: &str, event_id: &str) -> String {
    format!(
        "  - name: {name}
    match: {{ path: /{name} }}
    verify:
      - scheme:
          algorithm: hmac-sha256
          signature: {{ header: X-Sig, encoding: hex }}
          fields: {{ form: {{ from: form, {pairs} }} }}
          signed: \"{signed}\"
          event_id: {event_id}
        secrets: [\"value:{SECRET}\"]
    upstream: \"{}\"
    replay: {{ window: 10m }}
",
        app.url()
    )
}

/// What becomes of a body for which `signed` was signed.
fn outcome(gateway: &Gateway, path: &str, media_type: &str, body: &str, signed: &str) -> String {
    let signature = hmac_hex("sha256", SECRET, signed.as_bytes());
    let fields = [("X-Sig", signature.as_str()), ("Content-Type", media_type)];
    let status = gateway.post(path, &fields, body.as_bytes()).status;
    assert_eq!(status, 200, "{body}");
    gateway.event()["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn what_an_event_id_is_nobody_but_its_sender_decides() {
    // SECURITY A-21, A-23
    let app = App::start();
    let places = "{ form: id, json: /id }";
    let route = own_scheme(&app, "bytes", "sort: name", "{body}", places);
    let gateway = Gateway::start(&config(&route));
    // Text in a JSON body is no form, and an empty id is none.
    for (body, expected) in [
        (r#"{"id":"9","text":"&id=10&"}"#, "forwarded"),
        (r#"{"id":"10"}"#, "forwarded"),
        (r#"{"id":"9"}"#, "duplicate"),
        (r#"{"id":"","n":1}"#, "forwarded"),
        (r#"{"id":"","n":2}"#, "forwarded"),
    ] {
        let found = outcome(&gateway, "/bytes", "application/json", body, body);
        assert_eq!(found, expected, "{body}");
    }
    // Nor is what is neither: here the content decides.
    let parts = "--x\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\n&id=11&\r\n--x--\r\n";
    for (media_type, body, expected) in [
        ("multipart/form-data; boundary=x", parts, "forwarded"),
        ("application/json", r#"{"id":"11"}"#, "forwarded"),
        ("text/plain", parts, "duplicate"),
    ] {
        let found = outcome(&gateway, "/bytes", media_type, body, body);
        assert_eq!(found, expected, "{body}");
    }
}

#[test]
fn where_pairs_are_signed_they_are_the_delivery() {
    // SECURITY A-21, A-23
    let app = App::start();
    let id = "{ form: id }";
    let routes = [
        own_scheme(&app, "row", "write: \"{name}{value}\"", "{fields:form}", id),
        own_scheme(&app, "skipped", "skip: [id]", "{fields:form}", id),
    ];
    let gateway = Gateway::start(&config(&routes.concat()));
    // Written otherwise, or cut in other places, they are a copy.
    let form = "application/x-www-form-urlencoded";
    let send =
        |path, media_type, body: &str, signed| outcome(&gateway, path, media_type, body, signed);
    assert_eq!(send("/row", form, "id=5&a=1", "id5a1"), "forwarded");
    for copy in ["id=5a1", "id=5a&1=", "i=d5&a=1", "id=5&a1="] {
        assert_eq!(send("/row", form, copy, "id5a1"), "duplicate", "{copy}");
    }
    let part = |name: &str, more: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n{more}\r\n{value}\r\n")
    };
    for more in ["", "X: &id=7&\r\n"] {
        let body = [
            part("id", more, "5"),
            part("a", "", "1"),
            "--x--\r\n".to_owned(),
        ];
        let found = send(
            "/row",
            "multipart/form-data; boundary=x",
            &body.concat(),
            "id5a1",
        );
        assert_eq!(found, "duplicate");
    }
    // An id that is left out of them is anybody's.
    assert_eq!(send("/skipped", form, "id=5&a=2", "a=2"), "forwarded");
    assert_eq!(send("/skipped", form, "id=6&a=2", "a=2"), "duplicate");
}

#[test]
fn bytes_that_move_between_the_url_and_the_body_make_no_other_delivery() {
    // SECURITY A-21, A-23: nothing that is signed says where the one ends
    let app = App::start();
    let event_id = "{ json: /id }";
    let routes = [
        own_scheme(&app, "moved", "sort: name", "{target}{body}", event_id),
        own_scheme(
            &app,
            "apart",
            "sort: name",
            "{path}\\n{header:X-Try}\\n{body}",
            event_id,
        ),
    ];
    let gateway = Gateway::start(&config(&routes.concat()));
    let send = |query: &str, body: &str| {
        let signature = hmac_hex("sha256", SECRET, b"/moved?portal=62515{\"id\":1}");
        let path = format!("/moved?portal={query}");
        let answer = gateway.post(&path, &[("X-Sig", &signature)], body.as_bytes());
        assert_eq!(answer.status, 200, "{query} {body}");
        gateway.event()["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(send("62515", "{\"id\":1}"), "forwarded");
    for (query, body) in [
        ("62515", "{\"id\":1}"),
        ("6251", "5{\"id\":1}"),
        ("", "62515{\"id\":1}"),
    ] {
        assert_eq!(send(query, body), "duplicate", "{query} {body}");
    }
    // Where a line ends between them, the id in the body stays that of the event, whatever else is new.
    for (attempt, outcome) in [("1", "forwarded"), ("2", "duplicate")] {
        let content = format!("/apart\n{attempt}\n{{\"id\":1}}");
        let signature = hmac_hex("sha256", SECRET, content.as_bytes());
        let fields = [("X-Sig", &*signature), ("X-Try", attempt)];
        assert_eq!(gateway.post("/apart", &fields, b"{\"id\":1}").status, 200);
        assert_eq!(gateway.event()["outcome"], outcome);
    }
}

#[test]
fn items_that_are_signed_one_by_one_are_known_one_by_one() {
    // SECURITY A-21, A-23: nobody signed which of them come together
    let app = App::start();
    let key = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
    let gateway = Gateway::start(&config(&format!(
        "  - name: adyen
    match: {{ path: /adyen }}
    verify: [{{ provider: adyen/standard, secrets: [\"value:{key}\"] }}]
    upstream: \"{}\"
    replay: {{ window: 10m }}
",
        app.url()
    )));
    let key = data_encoding::HEXUPPER.decode(key.as_bytes()).unwrap();
    let item = |reference: &str| {
        let content = format!("{reference}::M:r:100:EUR:AUTHORISATION:true");
        let tag = super::support::hmac_base64("sha256", &key, content.as_bytes());
        format!(
            r#"{{"NotificationRequestItem":{{"pspReference":"{reference}","merchantAccountCode":"M","merchantReference":"r","amount":{{"value":100,"currency":"EUR"}},"eventCode":"AUTHORISATION","success":"true","additionalData":{{"hmacSignature":"{tag}"}}}}}}"#
        )
    };
    let send = |references: &[&str]| {
        let items: Vec<_> = references.iter().map(|own| item(own)).collect();
        let body = format!(r#"{{"notificationItems":[{}]}}"#, items.join(","));
        let fields = [("Content-Type", "application/json")];
        let answer = gateway.post("/adyen", &fields, body.as_bytes());
        assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
        gateway.event()["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(send(&["a", "b"]), "forwarded");
    for copy in [
        &["a"][..],
        &["b"],
        &["a", "a"],
        &["b", "a"],
        &["b", "a", "b"],
    ] {
        assert_eq!(send(copy), "duplicate", "{copy:?}");
    }
    // One that is new is not lost for company that is known.
    assert_eq!(send(&["a", "c"]), "forwarded");
    assert_eq!(send(&["c", "b", "a"]), "duplicate");
    app.script([Reply::status(503)]);
    assert_eq!(send(&["d", "e"]), "forwarded");
    assert_eq!(send(&["e"]), "forwarded");
    assert_eq!(send(&["d", "e"]), "forwarded");
    assert_eq!(app.count(), 5);
}

#[test]
fn of_two_checks_that_may_hold_either_knows_the_delivery() {
    // SECURITY A-20: a sender that signs with both secrets, and a stranger that leaves one signature out
    const OTHER: &str = "another secret, which is as long as the first one";
    let app = App::start();
    let gateway = Gateway::start(&config(&format!(
        "  - name: either
    match: {{ path: /either }}
    verify:
      - any:
          - {{ provider: github, secrets: [\"value:{SECRET}\"] }}
          - {{ provider: bitbucket-cloud, secrets: [\"value:{OTHER}\"] }}
    upstream: \"{}\"
    replay: {{ window: 10m }}
",
        app.url()
    )));
    let one = github(b"x");
    let other = format!("sha256={}", hmac_hex("sha256", OTHER, b"x"));
    let one = (one.0.as_str(), one.1.as_str());
    let other = ("X-Hub-Signature", other.as_str());
    for signatures in [&[one, other][..], &[one], &[other]] {
        assert_eq!(gateway.post("/either", signatures, b"x").status, 200);
    }
    assert_eq!(app.count(), 1);
}

#[test]
fn where_nothing_is_written_each_check_of_any_is_judged_by_itself() {
    let app = App::start();
    let gateway = Gateway::start(&config(&format!(
        "  - name: either
    match: {{ path: /either }}
    verify:
      - any:
          - {{ provider: github, secrets: [\"value:{SECRET}\"] }}
          - {{ provider: stripe, secrets: [\"value:{SECRET}\"] }}
    upstream: \"{}\"
",
        app.url()
    )));
    // Two events of GitHub may have the same body, and with it the same signature.
    for id in ["one", "two"] {
        let (name, value) = github(b"x");
        let fields = [(&*name, &*value), ("X-GitHub-Delivery", id)];
        gateway.forwarded(&gateway.post("/either", &fields, b"x"), 200);
    }
    let header = stripe(b"x", now());
    for outcome in ["forwarded", "duplicate"] {
        gateway.post("/either", &[("Stripe-Signature", &header)], b"x");
        assert_eq!(gateway.event()["outcome"], outcome);
    }
    assert_eq!(app.count(), 3);
}

#[test]
fn an_interrupted_answer_is_still_an_answer() {
    // The app said 200 before its body broke off: it has the delivery.
    let app = App::start();
    let gateway = start(&app, "");
    app.script([Reply::RawThenClose(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun".to_vec(),
    )]);
    let header = stripe(b"x", now());
    let mut wire = gateway.tls();
    wire.write("POST", "/stripe", &[("Stripe-Signature", &header)], b"x");
    assert!(wire.answer().is_none(), "a cut answer must not look whole");
    gateway.event();
    assert_eq!(post(&gateway, &header, b"x").status, 200);
    assert_eq!(gateway.event()["outcome"], "duplicate");
    assert_eq!(app.count(), 1);
}

#[test]
fn a_schemes_own_replay_protection() {
    // SECURITY A-18
    let app = App::start();
    let routes = format!(
        "  - name: own
    match: {{ path: /own }}
    verify:
      - scheme:
          algorithm: hmac-sha256
          signature: {{ header: X-Sig }}
          timestamp: {{ header: X-Time }}
          signed: \"{{timestamp}}.{{body}}\"
        secrets: [\"value:{SECRET}\"]
    replay: {{ window: 15m, on_duplicate: reject }}
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start(&config(&routes));
    let time = now().to_string();
    let tag = hmac_hex("sha256", SECRET, format!("{time}.x").as_bytes());
    let ask = |tag: &str| gateway.post("/own", &[("X-Sig", tag), ("X-Time", &time)], b"x");
    gateway.forwarded(&ask(&tag), 200);
    gateway.refused(&ask(&tag), 409, "replayed");
    gateway.refused(&ask(&tag.to_uppercase()), 409, "replayed");
    assert_eq!(app.count(), 1);
}

/// A gateway in this process that remembers three deliveries, and the clock it goes by.
fn remembering_three(provider: &str, window: &str) -> (DataPath, Clock) {
    let env = Environment::from_pairs([("SECRET", SECRET)]);
    let text = config(&format!(
        "  - name: signed
    match: {{ path: /in }}
    verify: [{{ provider: {provider}, secrets: [env:SECRET] }}]
    replay: {{ window: {window} }}
    upstream: echo
"
    ));
    let world = World {
        entries_max: 3,
        ..World::default()
    };
    data_path(loaded(&text, &env), world)
}

/// What becomes of a delivery with this signature: its status, and the reason or else the outcome.
async fn deliver(
    gateway: &DataPath,
    (name, value): (&str, &str),
    body: &'static str,
) -> (u16, String) {
    let connection = Connection::new(([192, 0, 2, 1], 1).into(), "http".into(), None);
    let request = Request::post("/in").header("host", "localhost");
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    let request = request.header(name, value).body(body).unwrap();
    let status = gateway.handle(&connection, request).await.status();
    let log = gateway.telemetry().access.captured();
    let event: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let what = event["reason"].as_str().or(event["outcome"].as_str());
    (status.as_u16(), what.unwrap().to_owned())
}

#[tokio::test]
async fn a_delivery_is_known_for_as_long_as_it_is_fresh() {
    // SECURITY A-17: timestamps are judged in whole seconds, so that one is fresh for almost a second more
    let (gateway, clock) = remembering_three("stripe", "10m");
    let header = stripe(b"x", 1_800_000_300);
    let again = async || deliver(&gateway, ("Stripe-Signature", &header), "x").await;
    assert_eq!(again().await, (200, "forwarded".to_owned()));
    clock.advance(Duration::from_millis(600_999));
    assert_eq!(again().await, (200, "duplicate".to_owned()));
    clock.advance(Duration::from_millis(1));
    assert_eq!(again().await, (401, "timestamp_stale".to_owned()));
}

#[tokio::test]
async fn a_full_memory_refuses_and_forgets_nothing() {
    // SECURITY DS-24
    let said = tempfile::NamedTempFile::new().unwrap();
    let operator = tracing_subscriber::fmt().with_writer(Arc::new(said.reopen().unwrap()));
    let _operator = tracing::subscriber::set_default(operator.finish());
    let (gateway, clock) = remembering_three("github", "10m");
    let deliver = async |body: &'static str| {
        let (name, value) = github(body.as_bytes());
        deliver(&gateway, (&name, &value), body).await
    };
    let forwarded = (200, "forwarded".to_owned());
    let duplicate = (200, "duplicate".to_owned());
    let full = (503, "state_unavailable".to_owned());
    for body in ["1", "2", "3"] {
        assert_eq!(deliver(body).await, forwarded);
    }
    for _ in 0..3 {
        for body in ["4", "5"] {
            assert_eq!(deliver(body).await, full);
        }
        // Whoever floods it makes it forget nobody.
        for body in ["1", "2", "3"] {
            assert_eq!(deliver(body).await, duplicate);
        }
        clock.advance(Duration::from_secs(199));
    }
    // Its window over, each makes room.
    clock.advance(Duration::from_secs(10));
    for body in ["4", "5", "1"] {
        assert_eq!(deliver(body).await, forwarded);
    }
    assert_eq!(deliver("2").await, full);
    // One line for all, and it says what is wrong.
    let said = std::fs::read_to_string(said.path()).unwrap();
    assert_eq!(said.matches("ERROR").count(), 1, "{said}");
    assert!(said.contains("the replay store is full"), "{said}");
}
