//! Signatures of presets and of own schemes, made by openssl and judged by the gateway.

use std::io::Write as _;

use sha2::Digest as _;

use super::support::{
    App, Gateway, SECRET, config, eventually, github, github_route, hmac, hmac_base64, hmac_hex,
    now, stripe,
};

/// One route at `/in` with these checks.
fn start(app: &App, verify: &str) -> Gateway {
    start_with(app, verify, "")
}

fn start_with(app: &App, verify: &str, more: &str) -> Gateway {
    let routes = format!(
        "  - name: signed
    match: {{ path: /in }}
    verify:
      {verify}
    upstream: \"{}\"
{more}",
        app.url()
    );
    Gateway::start_with(
        &config(&routes),
        &[
            ("SECRET", SECRET),
            ("OTHER", "another secret of its own length"),
        ],
        |_| {},
    )
}

fn post(gateway: &Gateway, headers: &[(&str, &str)], body: &[u8]) -> super::support::Answer {
    gateway.post("/in", headers, body)
}

const GITHUB: &str = "- { provider: github, secrets: [{ id: now, from: env:SECRET }] }";
const ZEN: &[u8] = b"{\"zen\": \"Keep it logically awesome.\"}\n";

#[test]
fn github_signs_the_body() {
    // SECURITY A-14
    let app = App::start();
    let gateway = start(&app, GITHUB);
    let (name, right) = github(ZEN);
    let tag = right.strip_prefix("sha256=").unwrap();
    for signature in [right.clone(), format!("sha256={}", tag.to_uppercase())] {
        let headers = [
            (name.as_str(), signature.as_str()),
            ("X-GitHub-Delivery", "72d3162e"),
            ("X-GitHub-Event", "ping"),
        ];
        let event = gateway.forwarded(&post(&gateway, &headers, ZEN), 200);
        assert_eq!(event["provider"], "github");
        assert_eq!(event["key_id"], "now");
        assert_eq!(event["event_id"], "72d3162e");
        assert_eq!(event["bytes_in"], ZEN.len());
        let seen = app.last();
        assert_eq!(seen.body, ZEN);
        for (name, value) in [
            (name.as_str(), signature.as_str()),
            ("x-hookward-verified", "provider:github"),
            ("x-hookward-provider", "github"),
            ("x-hookward-key-id", "now"),
            ("x-hookward-event-id", "72d3162e"),
            ("x-github-event", "ping"),
        ] {
            assert_eq!(seen.headers(name), [value], "{name}");
        }
    }
}

#[test]
fn what_is_no_signature_of_this_body_is_refused() {
    // SECURITY A-07, A-15, A-52, RT-26
    let app = App::start();
    let gateway = start(&app, GITHUB);
    let (name, right) = github(ZEN);
    let tag = right.strip_prefix("sha256=").unwrap();
    let refuse = |headers: &[(&str, &str)], reason: &str| {
        let answer = post(&gateway, headers, ZEN);
        let event = gateway.refused(&answer, 401, reason);
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Signature realm=\"signed\"")
        );
        assert_eq!(event["route"], "signed");
        assert_eq!(event["key_id"], serde_json::Value::Null);
    };
    refuse(&[], "signature_missing");
    // SECURITY A-28: a weaker signature beside does not count.
    let sha1 = format!("sha1={}", hmac_hex("sha1", SECRET, ZEN));
    refuse(&[("X-Hub-Signature", &sha1)], "signature_missing");
    refuse(&[(&name, &right), (&name, &right)], "signature_malformed");
    let zeros = format!("sha256={}", "0".repeat(64));
    refuse(&[(&name, &zeros)], "signature_mismatch");
    let foreign = hmac_hex("sha256", "another secret of its own length", ZEN);
    refuse(
        &[(&name, &format!("sha256={foreign}"))],
        "signature_mismatch",
    );
    let first = if tag.starts_with('0') { '1' } else { '0' };
    refuse(
        &[(&name, &format!("sha256={first}{}", &tag[1..]))],
        "signature_mismatch",
    );
    assert_eq!(
        gateway.requests("signed", "rejected", "signature_missing"),
        2
    );
    assert_eq!(
        gateway.requests("signed", "rejected", "signature_mismatch"),
        3
    );

    for malformed in [
        "",
        "sha256=",
        tag,
        "sha256=zz",
        "sha256=abc",
        "sha256 = ab",
        &format!("{right}0"),
        &format!("{right}00"),
        &format!("{right},{right}"),
        &format!("sha256={right}"),
        &right.replace("sha256=", "sha512="),
        &right.replace("sha256=", "SHA1="),
        // The beginning of the right tag: one byte, four, half of them, all but one.
        &right[..9],
        &right[..15],
        &right[..39],
        &right[..right.len() - 2],
    ] {
        let answer = post(&gateway, &[(&name, malformed)], ZEN);
        let reason = gateway.event()["reason"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 401);
        assert!(reason.starts_with("signature_"), "{malformed:?}: {reason}");
    }
    app.saw_nothing();
}

#[test]
fn one_changed_byte_is_another_message() {
    // SECURITY A-39, A-40
    let app = App::start();
    let gateway = start(&app, "- { provider: github, secrets: [env:SECRET] }");
    let body = b"{\"a\": 1}";
    let (name, right) = github(body);
    for changed in [
        &b"{\"a\":1}"[..],
        b"{\"a\": 1}\n",
        b"{\"a\": 1}\r\n",
        b"\xef\xbb\xbf{\"a\": 1}",
        b"{\"a\": 2}",
        b"",
    ] {
        gateway.refused(
            &post(&gateway, &[(&name, &right)], changed),
            401,
            "signature_mismatch",
        );
    }
    app.saw_nothing();
    // Empty, absent and chunked-empty bodies are one content.
    let (_, empty) = github(b"");
    for framing in [
        "Content-Length: 0\r\n\r\n",
        "\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let request =
            format!("POST /in HTTP/1.1\r\nHost: localhost\r\n{name}: {empty}\r\n{framing}");
        gateway.forwarded(
            &gateway.tls().send(request.as_bytes()).answer().unwrap(),
            200,
        );
    }
}

#[test]
fn bodies_arrive_byte_for_byte_however_they_were_split() {
    // SECURITY A-43, Z-09
    let app = App::start();
    let gateway = start(&app, "- { provider: github, secrets: [env:SECRET] }");
    let mut state = 7_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    for size in [1, 2, 1023, 1024, 1025, 16_384, 70_001, 700_000] {
        let body: Vec<u8> = (0..size).map(|_| random()).collect();
        let (name, value) = github(&body);
        gateway.forwarded(&post(&gateway, &[(&name, &value)], &body), 200);
        assert!(app.last().body == body, "{size} bytes by length");
        let mut request =
            format!("POST /in HTTP/1.1\r\nHost: localhost\r\n{name}: {value}\r\n").into_bytes();
        request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let take = (usize::from(random()) * 37 + 1).min(rest.len());
            request.extend(format!("{take:x}\r\n").bytes());
            request.extend(&rest[..take]);
            request.extend(b"\r\n");
            rest = &rest[take..];
        }
        request.extend(b"0\r\n\r\n");
        gateway.forwarded(&gateway.tls().send(&request).answer().unwrap(), 200);
        assert!(app.last().body == body, "{size} bytes in chunks");
        let answer = gateway
            .h2()
            .exchange("POST", "/in", &[(&name.to_lowercase(), &value)], &body);
        gateway.forwarded(&answer, 200);
        assert!(app.last().body == body, "{size} bytes over HTTP/2");
    }
}

#[test]
fn several_secrets_each_with_its_id() {
    // SECURITY A-13, A-25
    let app = App::start();
    let verify = "- provider: github
        secrets:
          - { id: \"2026-09\", from: env:SECRET }
          - { id: older, from: env:OTHER, not_after: 2099-01-01T00:00:00Z }
          - { id: ended, from: \"value:a secret that has ended long ago\", not_after: 2020-01-01T00:00:00Z }";
    let gateway = start(&app, verify);
    let ask = |secret: &str| {
        let value = format!("sha256={}", hmac_hex("sha256", secret, b"x"));
        post(&gateway, &[("X-Hub-Signature-256", &value)], b"x")
    };
    let used = |id: &str| {
        gateway.metric(
            "hookward_verification_key_used_total",
            &[("route", "signed"), ("key_id", id)],
        )
    };
    for id in ["2026-09", "older", "ended"] {
        assert_eq!(used(id), Some(0), "every configured key counts from zero");
    }
    assert_eq!(gateway.forwarded(&ask(SECRET), 200)["key_id"], "2026-09");
    assert_eq!(
        gateway.forwarded(&ask("another secret of its own length"), 200)["key_id"],
        "older"
    );
    gateway.refused(
        &ask("a secret that has ended long ago"),
        401,
        "signature_mismatch",
    );
    assert_eq!(
        (used("2026-09"), used("older"), used("ended")),
        (Some(1), Some(1), Some(0))
    );
    assert_eq!(app.count(), 2);
}

#[test]
fn that_a_secret_has_ended_is_said_once() {
    // SECURITY A-13
    let app = App::start();
    let end = now() + 6;
    let verify = format!(
        "- provider: github
        secrets:
          - {{ id: current, from: env:SECRET }}
          - {{ id: previous, from: env:OTHER, not_after: {end} }}
          - {{ id: ended, from: \"value:a secret that has ended long ago\", not_after: 2020-01-01T00:00:00Z }}"
    );
    let gateway = start(&app, &verify);
    let ends = |id: &str| {
        gateway.metric(
            "hookward_secret_not_after_timestamp_seconds",
            &[("route", "signed"), ("key_id", id)],
        )
    };
    let known = ["current", "previous", "ended"].map(ends);
    let end = u64::try_from(end).unwrap();
    assert_eq!(known, [None, Some(end), Some(1_577_836_800)]);
    let said = |text: &str| {
        let lines = gateway.stderr();
        let mut lines = lines
            .lines()
            .filter(|line| line.contains("a secret has ended"));
        lines.any(|line| line.contains(text))
    };
    eventually("a word in the log", || {
        said("\"key_id\":\"previous\"").then_some(())
    });
    assert!(!said("\"key_id\":\"ended\""));
}

#[test]
fn without_a_usable_secret_nothing_can_be_verified() {
    // SECURITY A-02
    let app = App::start();
    let gateway = start(
        &app,
        "- { provider: github, secrets: [{ id: a, from: env:SECRET, not_after: 2020-01-01T00:00:00Z }] }",
    );
    let (name, value) = github(b"x");
    let answer = post(&gateway, &[(&name, &value)], b"x");
    gateway.refused(&answer, 503, "key_unavailable");
    assert!(answer.header("retry-after").is_some());
    app.saw_nothing();
}

/// Stripe's tag for `body` at this time, as it is written.
fn stripe_tag(time: &str, body: &[u8]) -> String {
    hmac_hex("sha256", SECRET, &[time.as_bytes(), b".", body].concat())
}

#[test]
fn stripe_signs_a_timestamp_too() {
    // SECURITY A-17, A-20
    let app = App::start();
    let gateway = start(&app, "- { provider: stripe, secrets: [env:SECRET] }");
    let body = b"{\"amount\": 1}";
    let refuse = |header: &str, reason: &str| {
        let answer = post(&gateway, &[("Stripe-Signature", header)], body);
        gateway.refused(&answer, 401, reason);
    };
    gateway.refused(&post(&gateway, &[], body), 401, "signature_missing");
    refuse(
        &format!("v1={}", stripe_tag("1", body)),
        "timestamp_missing",
    );
    refuse(&stripe(body, now() - 310), "timestamp_stale");
    refuse(&stripe(body, now() + 310), "timestamp_ahead");
    refuse(&stripe(body, now() * 1000), "timestamp_ahead");
    // A wrong signature is never reported as a stale one.
    let wrong = format!("t={},v1={}", now() - 310, "0".repeat(64));
    refuse(&wrong, "signature_mismatch");
    refuse(&stripe(b"other", now()), "signature_mismatch");
    app.saw_nothing();
    for time in [now(), now() - 290, now() + 290] {
        let header = format!("{},v1={},v0=abc", stripe(body, time), "0".repeat(64));
        let event = gateway.forwarded(&post(&gateway, &[("Stripe-Signature", &header)], body), 200);
        assert_eq!(event["provider"], "stripe");
    }
}

#[test]
fn timestamps_and_versions_that_are_none() {
    // SECURITY A-15, A-16
    let app = App::start();
    let gateway = start(&app, "- { provider: stripe, secrets: [env:SECRET] }");
    let refuse = |header: &str, reasons: &[&str]| {
        let answer = post(&gateway, &[("Stripe-Signature", header)], b"x");
        let reason = gateway.event()["reason"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 401, "{header:?}");
        assert!(reasons.contains(&reason.as_str()), "{header:?}: {reason}");
    };
    let long = "9".repeat(20);
    for time in ["abc", "1.5", "1e9", "+1700000000", "", " ", &long] {
        let header = format!("t={time},v1={}", stripe_tag(time, b"x"));
        let reasons = [
            "timestamp_malformed",
            "timestamp_missing",
            "timestamp_ahead",
        ];
        refuse(&header, &reasons);
    }
    // Versions that are not configured do not count.
    let other = stripe(b"x", now()).replace("v1=", "v0=");
    refuse(&other, &["signature_missing", "signature_malformed"]);
    app.saw_nothing();
}

#[test]
fn a_tolerance_of_the_route_counts() {
    // SECURITY A-17, A-19
    let app = App::start();
    let gateway = start(
        &app,
        "- { provider: stripe, secrets: [env:SECRET], tolerance: 60s }",
    );
    let ask = |time: i64| post(&gateway, &[("Stripe-Signature", &stripe(b"x", time))], b"x");
    gateway.refused(&ask(now() - 70), 401, "timestamp_stale");
    gateway.refused(&ask(now() + 70), 401, "timestamp_ahead");
    app.saw_nothing();
    gateway.forwarded(&ask(now() - 50), 200);
}

#[test]
fn slack_signs_version_time_and_body() {
    let app = App::start();
    let gateway = start(&app, "- { provider: slack, secrets: [env:SECRET] }");
    let body = b"token=x&team_id=T1&text=a+b";
    let sign = |time: i64| {
        let content = [format!("v0:{time}:").as_bytes(), body].concat();
        format!("v0={}", hmac_hex("sha256", SECRET, &content))
    };
    let ask = |time: i64, signature: &str| {
        post(
            &gateway,
            &[
                ("X-Slack-Request-Timestamp", &time.to_string()),
                ("X-Slack-Signature", signature),
            ],
            body,
        )
    };
    gateway.refused(
        &post(&gateway, &[("X-Slack-Signature", &sign(now()))], body),
        401,
        "timestamp_missing",
    );
    gateway.refused(
        &ask(now() - 310, &sign(now() - 310)),
        401,
        "timestamp_stale",
    );
    gateway.refused(&ask(now() - 310, &sign(now())), 401, "signature_mismatch");
    gateway.refused(
        &ask(now(), &sign(now()).replace("v0=", "v1=")),
        401,
        "signature_malformed",
    );
    app.saw_nothing();
    gateway.forwarded(&ask(now(), &sign(now())), 200);
    assert_eq!(
        app.last().header("x-hookward-verified"),
        Some("provider:slack")
    );
}

#[test]
fn standard_webhooks_signs_id_time_and_body() {
    // SECURITY A-14, A-24
    let app = App::start();
    let key = b"an example key of 32 bytes, full";
    let secret = format!("whsec_{}", data_encoding::BASE64.encode(key));
    let gateway = start(
        &app,
        &format!("- {{ provider: standard-webhooks, secrets: [\"value:{secret}\"] }}"),
    );
    let sign = |id: &str, time: i64, body: &[u8]| {
        let content = [format!("{id}.{time}.").as_bytes(), body].concat();
        format!("v1,{}", hmac_base64("sha256", key, &content))
    };
    let ask = |id: &str, time: i64, signature: &str| {
        let time = time.to_string();
        post(
            &gateway,
            &[
                ("webhook-id", id),
                ("webhook-timestamp", &time),
                ("webhook-signature", signature),
            ],
            b"{}",
        )
    };
    let right = sign("msg_1", now(), b"{}");
    gateway.refused(&ask("msg_2", now(), &right), 401, "signature_mismatch");
    gateway.refused(
        &ask("msg_1", now() - 310, &sign("msg_1", now() - 310, b"{}")),
        401,
        "timestamp_stale",
    );
    let unpadded = right.trim_end_matches('=').to_owned();
    let answer = ask("msg_1", now(), &unpadded);
    assert_eq!(answer.status, 401);
    gateway.event();
    app.saw_nothing();
    let time = now();
    let several = format!(
        "v1a,AAAA v1,{} {}",
        "A".repeat(43) + "=",
        sign("msg_1", time, b"{}")
    );
    let event = gateway.forwarded(&ask("msg_1", time, &several), 200);
    assert_eq!(event["event_id"], "msg_1");
    assert_eq!(app.last().header("x-hookward-event-id"), Some("msg_1"));
}

#[test]
fn twilio_signs_the_public_url_and_the_form() {
    // SECURITY A-41, A-42
    let app = App::start();
    let config = format!(
        "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners:
  https:
    address: 127.0.0.1:0
    tls: {{ self_signed: [localhost] }}
    public_url: https://hooks.example.org
routes:
  - name: twilio
    match: {{ path: /sms }}
    verify: [{{ provider: twilio, secrets: [env:SECRET] }}]
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start_with(&config, &[("SECRET", SECRET)], |_| {});
    let form = b"To=%2B1555&From=%2B1444&Body=a+b&Empty=";
    let sign = |url: &str| {
        hmac_base64(
            "sha1",
            SECRET.as_bytes(),
            format!("{url}Bodya bEmptyFrom+1444To+1555").as_bytes(),
        )
    };
    let ask = |signature: &str| {
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("X-Twilio-Signature", signature),
        ];
        gateway.post("/sms?a=1", &headers, form)
    };
    // The Host that the sender of the request chose does not choose the URL.
    for url in [
        "https://localhost/sms?a=1",
        "http://hooks.example.org/sms?a=1",
        "https://hooks.example.org/sms",
        "https://hooks.example.org/sms?a=1/",
    ] {
        gateway.refused(&ask(&sign(url)), 401, "signature_mismatch");
    }
    app.saw_nothing();
    gateway.forwarded(&ask(&sign("https://hooks.example.org/sms?a=1")), 200);
    assert_eq!(app.last().body, form);
}

#[test]
fn what_is_signed_in_a_form_is_what_the_app_finds_in_it() {
    // Whoever has one genuine delivery may write it anew as multipart, as long as the pairs are the same.
    let app = App::start();
    let gateway = start(
        &app,
        "- scheme:
          algorithm: hmac-sha256
          signature: { header: X-Sig }
          fields: { form: { from: form, sort: name, write: \"{name}{value}\" } }
          signed: \"{fields:form}\"
        secrets: [env:SECRET]",
    );
    let signature = hmac_hex("sha256", SECRET, b"Bodyhello");
    let ask = |media_type: &str, body: &str| {
        let fields = [("Content-Type", media_type), ("X-Sig", &*signature)];
        post(&gateway, &fields, body.as_bytes())
    };
    let multipart = "multipart/form-data; boundary=x";
    let part = |more: &str| {
        let head = format!("Content-Disposition: form-data; name=\"Body\"{more}");
        format!("--x\r\n{head}\r\n\r\nhello\r\n--x--\r\n")
    };
    gateway.forwarded(&ask(multipart, &part("")), 200);
    let other_boundary = "multipart/form-data; boundary=x; boundary*=utf-8''y";
    for (media_type, body) in [
        // PHP, Go and Werkzeug end the head of a part at the first empty line, whatever ends that.
        (multipart, part("\r\nX: y\n\nEVIL\n--x\nX: z")),
        (multipart, part("; name*=utf-8''From")),
        (multipart, part("; filename=\"f\"")),
        (multipart, part("\r\nContent-Transfer-Encoding: base64")),
        (other_boundary, part("")),
    ] {
        gateway.refused(&ask(media_type, &body), 401, "signature_malformed");
    }
    assert_eq!(app.count(), 1);
}

#[test]
fn nothing_is_appended_to_a_plain_hash() {
    // The hash of a secret and a body can be gone on with, behind the padding, without the secret.
    let app = App::start();
    let verify = |signed: &str| {
        format!(
            "- scheme:
          algorithm: sha256
          signature: {{ header: X-Sig }}
          signed: \"{signed}\"
        secrets: [env:SECRET]"
        )
    };
    let gateway = start(&app, &verify("{secret}{body}"));
    let sign = |body: &[u8]| {
        let content = [SECRET.as_bytes(), body].concat();
        data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(&content))
    };
    gateway.forwarded(&post(&gateway, &[("X-Sig", &sign(b"{}"))], b"{}"), 200);
    let extended = b"{}\x80\0\0\0\0&admin=1";
    let answer = post(&gateway, &[("X-Sig", &sign(extended))], extended);
    gateway.refused(&answer, 401, "signature_malformed");
    // Nor where it is decoded first; behind what comes before the secret nothing can be appended.
    let gateway = start(&app, &verify("{secret}{form:data}"));
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let body = b"data={}%80%00%26admin=1";
    let answer = post(
        &gateway,
        &[("X-Sig", &sign(b"{}\x80\0&admin=1")), form],
        body,
    );
    gateway.refused(&answer, 401, "signature_malformed");
    let gateway = start(&app, &verify("{body}{secret}"));
    let latin = b"<a>\xe4</a>";
    let content = [latin, SECRET.as_bytes()].concat();
    let signature = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(&content));
    gateway.forwarded(&post(&gateway, &[("X-Sig", &signature)], latin), 200);
}

#[test]
fn one_coding_says_how_a_body_reads() {
    // SECURITY A-39: where the body is signed as it reads decoded
    let app = App::start();
    let gateway = start(&app, "- { provider: stream, secrets: [env:SECRET] }");
    let tag = hmac_hex("sha256", SECRET, ZEN);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(ZEN).unwrap();
    let zipped = encoder.finish().unwrap();
    let coded = |codings: &[&'static str], body: &[u8]| {
        let codings = codings.iter().map(|coding| ("Content-Encoding", *coding));
        let headers: Vec<_> = codings.chain([("X-Signature", tag.as_str())]).collect();
        post(&gateway, &headers, body)
    };
    for (codings, body) in [(&["gzip"][..], &*zipped), (&["identity"], ZEN), (&[], ZEN)] {
        gateway.forwarded(&coded(codings, body), 200);
        assert_eq!(app.last().body, body);
    }
    for codings in [
        &["gzip", "gzip"][..],
        &["gzip", "identity"],
        &["identity", "gzip"],
    ] {
        gateway.refused(&coded(codings, &zipped), 401, "signature_malformed");
    }
}

#[test]
fn a_list_of_signed_headers_names_each_once() {
    // SECURITY DS-33: each value is copied, and one that is named a thousand times is a thousand times as large
    let app = App::start();
    let gateway = start(&app, "- { provider: contentful, secrets: [env:SECRET] }");
    let time = (now() * 1000).to_string();
    let own = "x-contentful-signed-headers,x-contentful-timestamp";
    let ask = |listed: &str, signature: &str| {
        let fields = [
            ("X-Contentful-Signature", signature),
            ("X-Contentful-Timestamp", &time),
            ("X-Contentful-Signed-Headers", listed),
            ("X-A", "1"),
        ];
        post(&gateway, &fields, b"{}")
    };
    let listed = format!("x-a,{own}");
    let pairs = format!("x-a:1;x-contentful-signed-headers:{listed};x-contentful-timestamp:{time}");
    let signature = hmac_hex(
        "sha256",
        SECRET,
        format!("POST\n/in\n{pairs}\n{{}}").as_bytes(),
    );
    gateway.forwarded(&ask(&listed, &signature), 200);
    let many: Vec<_> = (0..200).map(|n| format!("x-{n}")).collect();
    for listed in [
        format!("X-A,x-a,{own}"),
        format!("{},{own}", many.join(",")),
    ] {
        gateway.refused(&ask(&listed, &signature), 401, "signature_malformed");
    }
}

#[test]
fn a_preset_by_token_loses_the_token_on_the_way() {
    let app = App::start();
    let gateway = start(
        &app,
        "- { provider: gitlab/secret-token, secrets: [{ id: k, from: env:SECRET }] }",
    );
    let answer = post(&gateway, &[("X-Gitlab-Token", "no")], b"{}");
    gateway.refused(&answer, 401, "credential_invalid");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Bearer realm=\"signed\"")
    );
    gateway.refused(&post(&gateway, &[], b"{}"), 401, "credential_missing");
    app.saw_nothing();
    let headers = [
        ("X-Gitlab-Token", SECRET),
        ("X-Gitlab-Event", "Push Hook"),
        ("X-Gitlab-Event-UUID", "u-1"),
        ("X-Gitlab-Webhook-UUID", "w-1"),
        ("Idempotency-Key", "i-1"),
    ];
    let event = gateway.forwarded(&post(&gateway, &headers, b"{}"), 200);
    assert_eq!(
        (event["provider"].as_str(), event["key_id"].as_str()),
        (Some("gitlab"), Some("k"))
    );
    app.last().lacks(&["x-gitlab-token"]);
    for (name, value) in &headers[1..] {
        assert_eq!(app.last().headers(name), [*value], "only the token goes");
    }
    assert_eq!(
        app.last().header("x-hookward-verified"),
        Some("provider:gitlab")
    );
}

#[test]
fn a_scheme_of_the_operators_own() {
    let app = App::start();
    let verify = "- scheme:
          algorithm: hmac-sha512
          signature: { header: X-Sig, prefix: \"s512=\", encoding: base64 }
          timestamp: { header: X-Time, unit: ms }
          signed: \"{timestamp}.{method}.{path}.{body}\"
          secret: { encoding: hex }
          event_id: { header: X-Event-Id }
        secrets: [\"value:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"]";
    let gateway = start(&app, verify);
    let key: Vec<u8> = (0..32)
        .map(|n| {
            [
                0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                0xee, 0xff,
            ][n % 16]
        })
        .collect();
    let ask = |time: i64, path: &str| {
        let content = format!("{time}.POST.{path}.body");
        let signature = format!("s512={}", hmac_base64("sha512", &key, content.as_bytes()));
        post(
            &gateway,
            &[
                ("X-Sig", &signature),
                ("X-Time", &time.to_string()),
                ("X-Event-Id", "e1"),
            ],
            b"body",
        )
    };
    gateway.refused(&ask(now() * 1000, "/other"), 401, "signature_mismatch");
    gateway.refused(&ask((now() - 310) * 1000, "/in"), 401, "timestamp_stale");
    app.saw_nothing();
    let event = gateway.forwarded(&ask(now() * 1000, "/in"), 200);
    assert_eq!(event["event_id"], "e1");
    let seen = app.last();
    assert_eq!(seen.header("x-hookward-verified"), Some("scheme"));
    seen.lacks(&["x-hookward-provider"]);
}

#[test]
fn a_signature_and_a_token_together_and_either() {
    let app = App::start();
    let both = "- { provider: github, secrets: [{ id: sig, from: env:SECRET }] }
      - { token: { query: auth, secrets: [{ id: tok, from: env:OTHER }] } }";
    let gateway = start(&app, both);
    let (name, value) = github(b"x");
    let with = "/in?auth=another+secret+of+its+own+length";
    gateway.refused(&gateway.post(with, &[], b"x"), 401, "signature_missing");
    gateway.refused(
        &gateway.post("/in", &[(&name, &value)], b"x"),
        401,
        "credential_missing",
    );
    gateway.refused(
        &gateway.post(with, &[(&name, &value)], b"y"),
        401,
        "signature_mismatch",
    );
    app.saw_nothing();
    let event = gateway.forwarded(&gateway.post(with, &[(&name, &value)], b"x"), 200);
    assert_eq!(event["key_id"], "sig", "the key that signed says more");
    assert_eq!(
        app.last().header("x-hookward-verified"),
        Some("provider:github, token")
    );
    assert_eq!(app.last().target(), "/in");

    let either = "- any:
          - { provider: github, secrets: [env:SECRET] }
          - { provider: stripe, secrets: [env:OTHER] }
          - { token: { header: X-Token, secrets: [env:OTHER] } }";
    let gateway = start(&app, either);
    gateway.refused(&gateway.post("/in", &[], b"x"), 401, "signature_missing");
    gateway.refused(
        &gateway.post("/in", &[(&name, &value)], b"y"),
        401,
        "signature_mismatch",
    );
    let before = app.count();
    gateway.forwarded(&gateway.post("/in", &[(&name, &value)], b"x"), 200);
    assert_eq!(
        app.last().header("x-hookward-verified"),
        Some("provider:github")
    );
    gateway.forwarded(
        &gateway.post(
            "/in",
            &[("X-Token", "another secret of its own length")],
            b"x",
        ),
        200,
    );
    assert_eq!(app.last().header("x-hookward-verified"), Some("token"));
    assert_eq!(app.count(), before + 2);
}

#[test]
fn every_key_of_a_proof_is_counted_and_the_one_that_signed_is_named() {
    let app = App::start();
    let verify = "- token: { bearer: true, secrets: [{ id: door, from: env:OTHER }] }
      - { provider: github, secrets: [{ id: new, from: \"value:the next secret, which is long enough\" }, { id: old, from: env:SECRET }] }";
    for more in ["", "    replay: { window: 10m }\n"] {
        let gateway = start_with(&app, verify, more);
        let (name, value) = github(ZEN);
        let bearer = ("Authorization", "Bearer another secret of its own length");
        let event = gateway.forwarded(&post(&gateway, &[bearer, (&name, &value)], ZEN), 200);
        assert_eq!(event["key_id"], "old");
        assert_eq!(app.last().header("x-hookward-key-id"), Some("old"));
        for (key, count) in [("door", 1), ("old", 1), ("new", 0)] {
            let labels = [("route", "signed"), ("key_id", key)];
            let found = gateway.metric("hookward_verification_key_used_total", &labels);
            assert_eq!(found, Some(count), "{key}");
        }
    }
}

#[test]
fn what_proves_nothing_is_not_called_verified() {
    let app = App::start();
    let beside = "    allow_ips: [127.0.0.1]\n";
    let gateway = start_with(&app, "- { provider: gumroad }", beside);
    gateway.forwarded(&post(&gateway, &[], b"a=1"), 200);
    assert_eq!(app.last().header("x-hookward-verified"), None);
}

#[test]
fn connection_options_cannot_take_the_signature_away() {
    // SECURITY RT-28
    let app = App::start();
    let gateway = Gateway::start(&config(&github_route(&app)));
    let (name, value) = github(b"x");
    let listed = format!("close, {name}");
    let answer = gateway.post("/github", &[(&name, &value), ("Connection", &listed)], b"x");
    match answer.status {
        400 => app.saw_nothing(),
        status => {
            assert_eq!(status, 200);
            assert_eq!(app.last().header(&name), Some(&*value));
        }
    }
}

#[test]
fn the_status_of_a_refused_signature_can_be_set() {
    let app = App::start();
    let gateway = start_with(
        &app,
        "- { provider: stripe, secrets: [env:SECRET] }",
        "    on_reject: { status: 400 }\n",
    );
    gateway.refused(&post(&gateway, &[], b"x"), 400, "signature_missing");
    gateway.refused(
        &post(
            &gateway,
            &[("Stripe-Signature", &stripe(b"y", now()))],
            b"x",
        ),
        400,
        "signature_mismatch",
    );
    gateway.refused(
        &post(
            &gateway,
            &[("Stripe-Signature", &stripe(b"x", now() - 400))],
            b"x",
        ),
        400,
        "timestamp_stale",
    );
    app.saw_nothing();
}

/// A token of these claims, as HS256 signs it.
fn token(header: &str, claims: &str) -> String {
    let encode = |text: &[u8]| data_encoding::BASE64URL_NOPAD.encode(text);
    let content = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    );
    let tag = hmac("sha256", SECRET.as_bytes(), content.as_bytes());
    format!("{content}.{}", encode(&tag))
}

const HS256: &str = r#"{"alg":"HS256"}"#;

/// A route that takes tokens of `sender` for `us`, which end, and whose other times hold.
fn start_with_tokens(app: &App) -> Gateway {
    start(
        app,
        "- scheme:
          algorithm: jwt
          signature: { header: Authorization, prefix: \"Bearer \" }
          jwt:
            algorithms: [HS256]
            claims:
              iss: { equals: sender }
              aud: { equals: us }
              exp: { time: not_after }
              nbf: { time: not_before, optional: true }
              iat: { time: not_before, optional: true }
        secrets: [env:SECRET]",
    )
}

fn post_token(gateway: &Gateway, token: &str) -> super::support::Answer {
    let value = format!("Bearer {token}");
    post(gateway, &[("Authorization", &value)], b"x")
}

#[test]
fn times_of_a_token_count_though_nothing_asks_for_them() {
    // SECURITY A-30: RFC 7519 4.1.4 and 4.1.5
    let app = App::start();
    let gateway = start(
        &app,
        "- scheme:
          algorithm: jwt
          signature: { header: Authorization, prefix: \"Bearer \" }
          jwt: { algorithms: [HS256], claims: { iss: { equals: sender } } }
        secrets: [env:SECRET]",
    );
    let (soon, past) = (now() + 600, now() - 600);
    for (times, reason) in [
        (format!("\"exp\":{past}"), "timestamp_stale"),
        ("\"exp\":\"never\"".to_owned(), "timestamp_malformed"),
        (format!("\"nbf\":{soon}"), "timestamp_ahead"),
        (format!("\"nbf\":[{past}]"), "timestamp_malformed"),
    ] {
        let claims = format!("{{\"iss\":\"sender\",{times}}}");
        let answer = post_token(&gateway, &token(HS256, &claims));
        gateway.refused(&answer, 401, reason);
    }
    app.saw_nothing();
    // Nor does it help that one is asked for, without a word of time.
    let present = start(
        &app,
        "- scheme:
          algorithm: jwt
          signature: { header: Authorization, prefix: \"Bearer \" }
          jwt: { algorithms: [HS256], claims: { exp: {} } }
        secrets: [env:SECRET]",
    );
    let answer = post_token(&present, &token(HS256, &format!("{{\"exp\":{past}}}")));
    present.refused(&answer, 401, "timestamp_stale");
    for claims in [
        "{\"iss\":\"sender\",\"exp\":null}".to_owned(),
        format!("{{\"iss\":\"sender\",\"exp\":{soon},\"nbf\":{past}}}"),
        // Clocks differ.
        format!(
            "{{\"iss\":\"sender\",\"exp\":{},\"nbf\":{}}}",
            now() - 60,
            now() + 60
        ),
    ] {
        gateway.forwarded(&post_token(&gateway, &token(HS256, &claims)), 200);
    }
}

#[test]
fn a_token_must_say_what_is_asked_of_it() {
    // SECURITY A-30
    let app = App::start();
    let gateway = start_with_tokens(&app);
    let (soon, past) = (now() + 600, now() - 600);
    let of = |iss: &str, aud: &str, more: &str| format!("{{\"iss\":{iss},\"aud\":{aud}{more}}}");
    let claims = |more: &str| of("\"sender\"", "\"us\"", more);
    let exp = format!(",\"exp\":{soon}");
    for (claims, reason) in [
        (claims(""), "signature_mismatch"),
        (claims(",\"exp\":null"), "signature_mismatch"),
        (
            claims(&format!(",\"exp\":\"{soon}\"")),
            "timestamp_malformed",
        ),
        (claims(",\"exp\":true"), "timestamp_malformed"),
        (claims(",\"exp\":[9999999999]"), "timestamp_malformed"),
        (claims(",\"exp\":1e300"), "timestamp_malformed"),
        (claims(",\"exp\":-1"), "timestamp_stale"),
        (claims(&format!(",\"exp\":{past}")), "timestamp_stale"),
        (
            claims(&format!("{exp},\"nbf\":\"{past}\"")),
            "timestamp_malformed",
        ),
        (claims(&format!("{exp},\"nbf\":{soon}")), "timestamp_ahead"),
        (claims(&format!("{exp},\"iat\":{soon}")), "timestamp_ahead"),
        (of("\"sender\"", "null", &exp), "signature_mismatch"),
        (of("\"sender\"", "[\"them\",7]", &exp), "signature_mismatch"),
        (of("\"sender\"", "[]", &exp), "signature_mismatch"),
        (of("\"sender\"", "{\"us\":1}", &exp), "signature_mismatch"),
        (of("\"other\"", "\"us\"", &exp), "signature_mismatch"),
        (
            claims(&format!("{exp},\"iss\":\"sender\"")),
            "signature_malformed",
        ),
        (format!("[{soon}]"), "signature_malformed"),
    ] {
        let answer = post_token(&gateway, &token(HS256, &claims));
        let event = gateway.event();
        let found = (answer.status, event["reason"].as_str());
        assert_eq!(found, (401, Some(reason)), "{claims}");
    }
    app.saw_nothing();
    for claims in [
        claims(&exp),
        of("\"sender\"", "[\"them\",\"us\"]", &exp),
        claims(&format!("{exp},\"nbf\":{past},\"iat\":{past}")),
        claims(&format!(",\"exp\":{soon}.5")),
    ] {
        gateway.forwarded(&post_token(&gateway, &token(HS256, &claims)), 200);
    }
}

#[test]
fn what_stands_beside_a_token_makes_no_other_delivery() {
    // SECURITY A-21, A-23
    let app = App::start();
    let gateway = start(
        &app,
        "- scheme:
          algorithm: jwt
          signature: { json: /token }
          event_id: { json: /id }
          jwt: { algorithms: [HS256] }
        secrets: [env:SECRET]
    replay: { window: 10m }",
    );
    let token = token(HS256, "{\"event\":1}");
    for (id, outcome) in [("a", "forwarded"), ("b", "duplicate")] {
        let body = format!("{{\"id\":\"{id}\",\"token\":\"{token}\"}}");
        assert_eq!(post(&gateway, &[], body.as_bytes()).status, 200);
        assert_eq!(gateway.event()["outcome"], outcome);
    }
    assert_eq!(app.count(), 1);
}

#[test]
fn a_token_does_not_choose_how_it_is_verified() {
    // SECURITY A-28, A-29, A-30
    let app = App::start();
    let gateway = start_with_tokens(&app);
    let claims = format!(
        "{{\"iss\":\"sender\",\"aud\":\"us\",\"exp\":{}}}",
        now() + 600
    );
    let right = token(HS256, &claims);
    let (unsigned, _) = right.rsplit_once('.').unwrap();
    for token in [
        token(r#"{"alg":"none"}"#, &claims),
        token(r#"{"alg":"HS512"}"#, &claims),
        token("{}", &claims),
        unsigned.to_owned(),
        format!("{unsigned}."),
        format!("{right}.a.b"),
    ] {
        gateway.refused(&post_token(&gateway, &token), 401, "signature_malformed");
    }
    app.saw_nothing();
    gateway.forwarded(&post_token(&gateway, &right), 200);
}
