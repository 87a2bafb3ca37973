//! What a body may be: size, type, encoding, well-formedness.

use std::fs;

use super::support::{Answer, App, Gateway, SECRET, config, config_with, github};

fn start(app: &App, body: &str) -> Gateway {
    let routes = format!(
        "  - name: bodies
    match: {{ path: /in, methods: [POST, PUT, GET] }}
    body: {body}
    verify: none
    upstream: \"{}\"
",
        app.url()
    );
    Gateway::start(&config(&routes))
}

fn post(gateway: &Gateway, media_type: &str, body: &[u8]) -> Answer {
    gateway
        .plain()
        .exchange("POST", "/in", &[("Content-Type", media_type)], body)
}

#[test]
fn the_largest_body_is_the_largest_however_it_comes() {
    // SECURITY DS-11, SM-14
    let app = App::start();
    let gateway = start(&app, "{ max_size: 64KiB }");
    let largest = vec![b'x'; 64 * 1024];
    let larger = vec![b'x'; 64 * 1024 + 1];
    gateway.forwarded(&gateway.post("/in", &[], &largest), 200);
    assert_eq!(app.last().body.len(), largest.len());
    gateway.refused(&gateway.post("/in", &[], &larger), 413, "body_too_large");
    let chunked = |body: &[u8]| {
        let head = "POST /in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let size = format!("{:x}\r\n", body.len());
        let request = [head.as_bytes(), size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
        gateway.tls().send(&request).answer().unwrap()
    };
    gateway.forwarded(&chunked(&largest), 200);
    gateway.refused(&chunked(&larger), 413, "body_too_large");
    gateway.forwarded(&gateway.h2().exchange("POST", "/in", &[], &largest), 200);
    gateway.refused(
        &gateway.h2().exchange("POST", "/in", &[], &larger),
        413,
        "body_too_large",
    );
    assert_eq!(app.count(), 3);

    // Declared is enough: the answer comes without the body.
    let mut wire = gateway.plain();
    wire.send(b"POST /in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n");
    let answer = wire.answer().unwrap();
    gateway.refused(&answer, 413, "body_too_large");
    assert_eq!(app.count(), 3);
}

/// A preset of the operator's own that documents a maximum.
const PRESET: &str = "provider: made-up
title: Made Up
category: tests
confidence: high
sources: [this file]
secret: a text
max_size: 2MiB
schemes:
  sha256:
    algorithm: hmac-sha256
    signature: { header: X-Hub-Signature-256, prefix: \"sha256=\" }
    signed: \"{body}\"
";

#[test]
fn the_default_is_one_mebibyte_or_what_the_preset_says() {
    let app = App::start();
    let routes = format!(
        "  - {{ name: plain, match: {{ path: /plain }}, verify: none, upstream: \"{url}\" }}
  - name: made-up
    match: {{ path: /made-up }}
    verify: [{{ provider: made-up, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{url}\"
",
        url = app.url()
    );
    let gateway = Gateway::start_with(
        &config_with("providers_dir: ./providers", &routes),
        &[],
        |dir| {
            fs::create_dir(dir.join("providers")).unwrap();
            fs::write(dir.join("providers/made-up.yaml"), PRESET).unwrap();
        },
    );
    let post = |path: &str, body: &[u8]| {
        let (name, value) = github(body);
        gateway
            .plain()
            .exchange("POST", path, &[(&name, &value)], body)
    };
    let body = vec![b'x'; (2 << 20) + 1];
    gateway.refused(&post("/plain", &body[..=1 << 20]), 413, "body_too_large");
    gateway.forwarded(&post("/plain", &body[..1 << 20]), 200);
    gateway.refused(&post("/made-up", &body), 413, "body_too_large");
    assert_eq!(
        gateway.forwarded(&post("/made-up", &body[1..]), 200)["provider"],
        "made-up"
    );
    assert!(app.last().body == body[1..]);
    assert_eq!(app.count(), 2);
}

#[test]
fn content_types() {
    let app = App::start();
    let gateway = start(&app, "{ content_types: [application/json, text/xml] }");
    let unsupported = "content_type_unsupported";
    gateway.refused(&gateway.post("/in", &[], b"{}"), 415, unsupported);
    for other in [
        "text/json",
        "application/jsonx",
        "json",
        "",
        "application/json, text/xml",
        "text/plain; a=application/json",
    ] {
        gateway.refused(&post(&gateway, other, b"{}"), 415, unsupported);
    }
    let twice = [
        ("Content-Type", "application/json"),
        ("Content-Type", "application/json"),
    ];
    gateway.refused(&gateway.post("/in", &twice, b"{}"), 415, unsupported);
    app.saw_nothing();
    for right in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "text/xml;charset=latin1",
        "application/json ;x",
    ] {
        gateway.forwarded(&post(&gateway, right, b"not judged"), 200);
        assert_eq!(app.last().header("content-type"), Some(right));
    }
    assert_eq!(gateway.requests("bodies", "rejected", unsupported), 8);
}

#[test]
fn well_formed_json() {
    // SECURITY DS-17, DS-18, S-17
    let app = App::start();
    let gateway = start(&app, "{ well_formed: true }");
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    let deep = nested(100_000);
    let over = nested(129);
    for body in [
        &b""[..],
        b" ",
        b"{",
        b"{\"a\":1,}",
        b"[1 2]",
        b"{'a':1}",
        b"nul",
        b"{} {}",
        b"{}x",
        b"01",
        b"\"\xff\"",
        b"\"a\nb\"",
        b"\xef\xbb\xbf{}",
        b"[\"\\x\"]",
        b"NaN",
        &deep,
        &over,
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(30)]).into_owned();
        let answer = post(&gateway, "application/json", body);
        assert_eq!(answer.status, 400, "{shown:?}");
        gateway.refused(&answer, 400, "body_malformed");
    }
    gateway.refused(
        &post(&gateway, "application/vnd.api+json; x=y", b"{"),
        400,
        "body_malformed",
    );
    app.saw_nothing();
    for body in [
        &b"{}"[..],
        b"  [1, 2.5e-3, \"\\u00e9\", null]\r\n",
        b"\"text\"",
        b"12345678901234567890123456789012345678901234567890",
        &nested(128),
    ] {
        gateway.forwarded(&post(&gateway, "application/json", body), 200);
        assert_eq!(app.last().body, body, "forwarded as it came");
    }
    // Other types, and none, are not judged.
    gateway.forwarded(&post(&gateway, "text/plain", b"{"), 200);
    gateway.forwarded(&gateway.post("/in", &[], b"{"), 200);
}

#[test]
fn well_formed_xml() {
    // SECURITY DS-19
    let app = App::start();
    let gateway = start(&app, "{ well_formed: true }");
    let deep = ["<a>".repeat(129), "</a>".repeat(129)].concat();
    let bomb =
        "<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;\">]><lolz>&lol2;</lolz>";
    for body in [
        "",
        "x",
        "<a>",
        "<a></b>",
        "<a/><b/>",
        "<a b=1/>",
        "<a b='1' b='2'/>",
        "<!DOCTYPE a><a/>",
        "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>",
        bomb,
        "<a>&undefined;</a>",
        &deep,
    ] {
        for media_type in [
            "application/xml",
            "text/xml; charset=utf-8",
            "application/soap+xml",
        ] {
            gateway.refused(
                &post(&gateway, media_type, body.as_bytes()),
                400,
                "body_malformed",
            );
        }
    }
    app.saw_nothing();
    for body in [
        "<a/>",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a b=\"1\"><!-- c --><![CDATA[<x>]]>&amp;&#233;</a>\n",
    ] {
        gateway.forwarded(&post(&gateway, "application/xml", body.as_bytes()), 200);
        assert_eq!(app.last().body, body.as_bytes());
    }
}

#[test]
fn encodings() {
    // SECURITY DS-16
    let app = App::start();
    let gateway = start(&app, "{ well_formed: true }");
    let encoded = |media_type: &str, coding: &str, body: &[u8]| {
        gateway.plain().exchange(
            "POST",
            "/in",
            &[("Content-Type", media_type), ("Content-Encoding", coding)],
            body,
        )
    };
    for coding in ["gzip", "br", "gzip, gzip", "unknown", "identity"] {
        gateway.refused(
            &encoded("application/json", coding, b"{}"),
            415,
            "content_encoding_unsupported",
        );
    }
    app.saw_nothing();
    let gzip = b"\x1f\x8b\x08\x00not really";
    gateway.forwarded(&encoded("text/plain", "gzip", gzip), 200);
    assert_eq!(app.last().body, gzip);

    // Without the judgement encoded bodies are verified and forwarded as they are.
    let routes = format!(
        "  - name: github
    match: {{ path: /github }}
    verify: [{{ provider: github, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start(&config(&routes));
    let (name, value) = github(gzip);
    let headers = [
        (name.as_str(), value.as_str()),
        ("Content-Type", "application/json"),
        ("Content-Encoding", "gzip"),
    ];
    gateway.forwarded(&gateway.post("/github", &headers, gzip), 200);
    assert_eq!(
        (
            app.last().body.as_slice(),
            app.last().header("content-encoding")
        ),
        (&gzip[..], Some("gzip"))
    );
}

#[test]
fn the_body_is_judged_before_its_signature() {
    let app = App::start();
    let routes = format!(
        "  - name: github
    match: {{ path: /github }}
    body: {{ max_size: 100, content_types: [application/json], well_formed: true }}
    verify: [{{ provider: github, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start(&config(&routes));
    let wrong = format!("sha256={}", "0".repeat(64));
    let ask = |media_type: &str, body: &[u8]| {
        gateway.post(
            "/github",
            &[
                ("X-Hub-Signature-256", &wrong),
                ("Content-Type", media_type),
            ],
            body,
        )
    };
    gateway.refused(
        &ask("application/json", &[b'x'; 101]),
        413,
        "body_too_large",
    );
    gateway.refused(&ask("text/plain", b"{}"), 415, "content_type_unsupported");
    gateway.refused(&ask("application/json", b"{"), 400, "body_malformed");
    gateway.refused(&ask("application/json", b"{}"), 401, "signature_mismatch");
    app.saw_nothing();
}

#[test]
fn requests_without_a_body_need_no_length() {
    let app = App::start();
    let gateway = start(&app, "{ max_size: 1KiB }");
    gateway.forwarded(&gateway.plain().exchange("GET", "/in", &[], b""), 200);
    app.last().lacks(&["content-length", "transfer-encoding"]);
    let request = b"PUT /in HTTP/1.1\r\nHost: localhost\r\n\r\n";
    gateway.forwarded(&gateway.plain().send(request).answer().unwrap(), 200);
    assert_eq!(app.last().headers("content-length"), ["0"]);
}
