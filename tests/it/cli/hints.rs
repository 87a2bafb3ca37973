//! Hints: each cause is made by hand, by an HMAC that is not ours, and must be found.

use super::{Shell, config};
use crate::support::hmac_hex;

const SECRET: &str = "an example secret of 32 characters";
const NOW: i64 = 1_700_000_000;

/// The hints of a GitHub request whose signature is over `signed` with `key`.
fn github(body: &[u8], signed: &[u8], key: &str, configured: &str) -> Vec<(String, String)> {
    let signature = format!("sha256={}", hmac_hex("sha256", key, signed));
    judge(
        "github",
        configured,
        &[("X-Hub-Signature-256", &signature)],
        body,
    )
}

fn judge(
    provider: &str,
    secret: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<(String, String)> {
    let now = NOW.to_string();
    let secret = format!("value:{secret}");
    let args = [
        "verify",
        "--provider",
        provider,
        "--secret",
        &secret,
        "--request",
        "-",
        "--now",
        &now,
        "--format",
        "json",
    ];
    let ended = Shell::new().feed(&args, &message(headers, body)).code(1);
    hints(&ended.json())
}

fn message(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let fields = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let fields = fields.collect::<Vec<_>>().concat();
    let mut bytes =
        format!("POST /hooks HTTP/1.1\r\nHost: hooks.example.org\r\n{fields}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn hints(json: &serde_json::Value) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let hints = json["hints"].as_array().unwrap().iter();
    hints
        .map(|hint| (text(&hint["code"]), text(&hint["message"])))
        .collect()
}

#[track_caller]
fn assert_hint(hints: &[(String, String)], code: &str, part: &str) {
    let found = hints.iter().find(|(own, _)| own == code);
    let (_, message) = found.unwrap_or_else(|| panic!("no `{code}` in {hints:?}"));
    assert!(message.contains(part), "{message}");
}

/// Body as received, body as signed, and what explains it.
const CHANGED: &[(&str, &str, &str, &str)] = &[
    (
        "3;a=b\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
        "{\"a\":1}",
        "body_chunked",
        "sizes of its chunks",
    ),
    (
        "{\"a\":1}\n",
        "{\"a\":1}",
        "body_trailing_newline",
        "removed",
    ),
    (
        "{\"a\":1}\r\n",
        "{\"a\":1}",
        "body_trailing_newline",
        "removed",
    ),
    ("{\"a\":1}", "{\"a\":1}\n", "body_trailing_newline", "added"),
    (
        SPACED,
        CANONICAL,
        "body_reserialized",
        "without white space",
    ),
    (
        CANONICAL,
        SPACED,
        "body_reserialized",
        "blanks after commas and colons",
    ),
    (
        CANONICAL,
        "{\"a\":\"é/x\",\"b\":[1,2.50,true]}",
        "body_reserialized",
        "keys sorted",
    ),
    (
        CANONICAL,
        "{\"b\":[1,2.50,true],\"a\":\"\\u00e9/x\"}",
        "body_reserialized",
        "escaped",
    ),
    (
        CANONICAL,
        "{\"b\":[1,2.50,true],\"a\":\"\\u00e9\\/x\"}",
        "body_reserialized",
        "slashes",
    ),
    (
        SPACED,
        "{\n  \"b\": [\n    1,\n    2.50,\n    true\n  ],\n  \"a\": \"é/x\"\n}",
        "body_reserialized",
        "indentation",
    ),
    ("a\r\nb\r\n", "a\nb\n", "body_line_endings", "CRLF"),
    ("a\nb\n", "a\r\nb\r\n", "body_line_endings", "LF"),
    ("\u{feff}{}", "{}", "body_bom", "removed"),
    ("{}", "\u{feff}{}", "body_bom", "added"),
    (
        "payload=%7B%22a%22%3A1%7D",
        "{\"a\":1}",
        "body_form_decoded",
        "`payload`",
    ),
    ("a=b+c%21", "a=b c!", "body_form_decoded", "decoded"),
    (
        "\"{\\\"a\\\":1}\"",
        "{\"a\":1}",
        "body_json_string",
        "inside",
    ),
    (
        "{\"a\":1}",
        "\"{\\\"a\\\":1}\"",
        "body_json_string",
        "twice",
    ),
    ("{\"a\":\"é\"}", "{\"a\":\"Ã©\"}", "body_charset", "Latin-1"),
    ("{\"a\":1}", "", "body_empty", "empty body"),
];
const CANONICAL: &str = "{\"b\":[1,2.50,true],\"a\":\"é/x\"}";
const SPACED: &str = "{\"b\": [1, 2.50, true], \"a\": \"é/x\"}";

#[test]
fn bodies_that_changed_on_their_way() {
    for (body, signed, code, part) in CHANGED {
        let hints = github(body.as_bytes(), signed.as_bytes(), SECRET, SECRET);
        assert_hint(&hints, code, part);
        assert_eq!(hints.len(), 1, "{hints:?}");
    }
}

#[test]
fn secrets_that_were_copied_wrongly() {
    for (key, configured, code) in [
        (
            SECRET,
            " an example secret of 32 characters",
            "secret_whitespace",
        ),
        (
            SECRET,
            "an example secret of 32 characters\t",
            "secret_whitespace",
        ),
        (
            "an example secret of 32 characters\n",
            SECRET,
            "secret_whitespace",
        ),
        (
            SECRET,
            "\"an example secret of 32 characters\"",
            "secret_quoted",
        ),
        (
            SECRET,
            "whsec_an example secret of 32 characters",
            "secret_prefix",
        ),
        (
            "whsec_an example secret of 32 characters",
            SECRET,
            "secret_prefix",
        ),
        (
            "0123456789abcdef",
            "MDEyMzQ1Njc4OWFiY2RlZg==",
            "secret_encoding",
        ),
        (
            "0123456789abcdef",
            "30313233343536373839616263646566",
            "secret_encoding",
        ),
        (
            "MDEyMzQ1Njc4OWFiY2RlZg==",
            "0123456789abcdef",
            "secret_encoding",
        ),
        ("ABCDEFABCDEFABCDEF", "abcdefabcdefabcdef", "secret_case"),
    ] {
        let hints = github(b"{}", b"{}", key, configured);
        assert_hint(&hints, code, "the signature matches");
        for (_, message) in &hints {
            assert!(
                !message.contains(key) && !message.contains(configured.trim()),
                "{message}"
            );
        }
    }
}

#[test]
fn secrets_with_what_a_file_left_around_them() {
    let utf16: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let signature = format!("sha256={}", hmac_hex("sha256", SECRET, b"{}"));
    let request = message(&[("X-Hub-Signature-256", &signature)], b"{}");
    for (written, code) in [
        (format!("\u{feff}{SECRET}\r\n").into(), "secret_bom"),
        ([&b"\xff\xfe"[..], &utf16].concat(), "secret_utf16"),
        (
            format!("GITHUB_SECRET={SECRET}\n").into(),
            "secret_assignment",
        ),
        (
            format!("export GITHUB_SECRET=\"{SECRET}\"\n").into(),
            "secret_assignment",
        ),
        (format!("{SECRET}\nanother line\n").into(), "secret_lines"),
        (
            format!("{{\"secret\": \"{SECRET}\"}}").into(),
            "secret_json",
        ),
    ] {
        let written: Vec<u8> = written;
        let shell = Shell::new().with("secret", &written).with(
            "hookward.yaml",
            config(
                "  - { name: r, match: { path: /hooks }, upstream: echo, \
                 verify: [{ provider: github, secrets: [file:secret] }] }\n",
            ),
        );
        for judge in [
            &["--provider", "github", "--secret", "file:secret"][..],
            &["--route", "r"],
        ] {
            let args = ["verify", "--request", "-", "--format", "json"];
            let ended = shell.feed(&[&args[..], judge].concat(), &request).code(1);
            let hints = hints(&ended.json());
            assert_hint(&hints, code, "the signature matches");
            assert_eq!(hints.len(), 1, "{hints:?}");
            assert!(!format!("{ended:?}").contains("an example"), "{ended:?}");
        }
    }
}

#[test]
fn a_secret_that_is_not_of_the_schemes_form_is_a_wrong_one() {
    let key = b"0123456789abcdef01234567";
    let written = format!("whsec_{}", data_encoding::BASE64.encode(key));
    let signed = hmac_hex(
        "sha256",
        std::str::from_utf8(key).unwrap(),
        b"msg_1.1700000000.{}",
    );
    let signed = data_encoding::HEXLOWER.decode(signed.as_bytes()).unwrap();
    let signature = format!("v1,{}", data_encoding::BASE64.encode(&signed));
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", &*signature),
    ];
    for (secret, code) in [
        (format!(" {written}"), "secret_whitespace"),
        (format!("\"{written}\""), "secret_quoted"),
        (written.replace("whsec_", "key_"), "secret_prefix"),
        (
            "0123456789abcdef01234567!".replace('!', ""),
            "secret_encoding",
        ),
    ] {
        let hints = judge("standard-webhooks", &secret, &headers, b"{}");
        assert_hint(&hints, code, "the signature matches");
    }
    assert_eq!(
        judge("standard-webhooks", "not base64 at all", &headers, b"{}"),
        []
    );
    assert_eq!(judge("standard-webhooks", "", &headers, b"{}"), []);
}

#[test]
fn what_nothing_explains_is_said_to_be_another_secret_or_another_capture() {
    let other = format!(
        "sha256={}",
        hmac_hex("sha256", "another secret altogether", b"{}")
    );
    let args = [
        "verify",
        "--provider",
        "github",
        "--secret",
        "env:KEY",
        "--request",
        "-",
    ];
    let request = message(&[("X-Hub-Signature-256", &other)], b"{}");
    let ended = Shell::new()
        .env("KEY", SECRET)
        .feed(&args, &request)
        .code(1);
    assert!(
        ended
            .stdout
            .ends_with("(copied from a page, printed anew)\n"),
        "{ended:?}"
    );
}

#[test]
fn what_nothing_explains_has_no_hint() {
    assert_eq!(github(b"{\"a\":1}", b"{\"a\":2}", SECRET, SECRET), []);
    assert_eq!(
        github(
            b"{\"a\":1}",
            b"{\"a\":1}",
            "another secret altogether",
            SECRET
        ),
        []
    );
}

#[test]
fn signatures_in_the_wrong_place_or_form() {
    let hex = hmac_hex("sha256", SECRET, b"{}");
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    let base64 = data_encoding::BASE64.encode(&bytes);
    let header = "X-Hub-Signature-256";
    let hints = judge("github", SECRET, &[(header, &hex)], b"{}");
    assert_hint(&hints, "signature_prefix", "begins with `sha256=`");
    let hints = judge("github", SECRET, &[(header, &format!("v1={hex}"))], b"{}");
    assert_hint(&hints, "signature_prefix", "`sha256=`");
    let hints = judge(
        "github",
        SECRET,
        &[(header, &format!("sha256={base64}"))],
        b"{}",
    );
    assert_hint(&hints, "signature_encoding", "hex");
    let hints = judge(
        "github",
        SECRET,
        &[("X-Signature", &format!("sha256={hex}"))],
        b"{}",
    );
    assert_hint(
        &hints,
        "header_name",
        "`x-signature` is sent as `x-hub-signature-256`",
    );
    let hints = judge(
        "github",
        SECRET,
        &[(header, &format!("\"sha256={hex}\""))],
        b"{}",
    );
    assert_hint(&hints, "signature_quoted", "quotes");
}

fn stripe(time: &str, signed_time: &str) -> Vec<(String, String)> {
    let secret = "whsec_an_example_secret_of_stripe";
    let signature = hmac_hex("sha256", secret, format!("{signed_time}.{{}}").as_bytes());
    judge(
        "stripe",
        secret,
        &[("Stripe-Signature", &format!("t={time},v1={signature}"))],
        b"{}",
    )
}

#[test]
fn times_in_another_unit_or_another_zone() {
    let hints = stripe("1700000000123", "1700000000123");
    assert_hint(
        &hints,
        "timestamp_unit",
        "milliseconds, where the scheme has seconds",
    );
    let hints = stripe("1700000000123", "1700000000");
    assert_hint(
        &hints,
        "timestamp_unit",
        "sent in milliseconds, but signed in seconds",
    );
    assert_hint(
        &stripe("1699992800", "1699992800"),
        "timestamp_zone",
        "local time",
    );
    assert_hint(
        &stripe("1699999000", "1699999000"),
        "timestamp_off",
        "16m40s before".replace("16m40s", "1000s").as_str(),
    );
    assert_hint(
        &stripe("1700001000", "1700001000"),
        "timestamp_off",
        "1000s after",
    );
}

#[test]
fn a_moment_to_judge_at_in_milliseconds() {
    let secret = "whsec_an_example_secret_of_stripe";
    let signature = hmac_hex("sha256", secret, b"1700000000.{}");
    let request = message(
        &[("Stripe-Signature", &format!("t=1700000000,v1={signature}"))],
        b"{}",
    );
    let secret = format!("value:{secret}");
    let judge = |now: &str| {
        let args = ["verify", "--provider", "stripe", "--secret", &secret];
        let more = ["--request", "-", "--format", "json", "--now", now];
        let ended = Shell::new().feed(&[&args[..], &more].concat(), &request);
        hints(&ended.code(1).json())
    };
    let found = judge("1700000000000");
    assert_hint(&found, "now_unit", "in milliseconds, where it has seconds");
    assert_eq!(found.len(), 1, "{found:?}");
    // In milliseconds, and long after.
    let found = judge("1800000000000");
    assert_hint(&found, "now_unit", "`--now 1800000000000`");
    assert_hint(&found, "timestamp_off", "before 2027-01-15T08:00:00Z");
    let found = judge("1800000000");
    assert!(
        found.iter().all(|(code, _)| code != "now_unit"),
        "{found:?}"
    );
}

#[test]
fn the_secret_of_another_time_or_route() {
    let routes = "  - name: here
    match: { path: /hooks }
    verify:
      - provider: github
        secrets: [{ id: new, from: env:NEW }, { id: old, from: env:OLD, not_after: 2023-01-01T00:00:00Z }]
    upstream: echo
  - { name: there, match: { path: /there }, verify: [{ provider: github, secrets: [{ id: theirs, from: env:THERE }] }], upstream: echo }
";
    let judge = |key: &str| {
        let signature = format!("sha256={}", hmac_hex("sha256", key, b"{}"));
        let now = NOW.to_string();
        let args = [
            "verify",
            "--route",
            "here",
            "--request",
            "-",
            "--now",
            &now,
            "--format",
            "json",
        ];
        let shell = Shell::new()
            .with("hookward.yaml", config(routes))
            .env("NEW", "the secret of this year, and long")
            .env("OLD", "the secret of last year, and long")
            .env("THERE", "the secret of the other route....");
        let request = message(&[("X-Hub-Signature-256", &signature)], b"{}");
        hints(&shell.feed(&args, &request).code(1).json())
    };
    assert_hint(
        &judge("the secret of last year, and long"),
        "secret_expired",
        "previous secret `old`",
    );
    assert_hint(
        &judge("the secret of the other route...."),
        "other_secret",
        "`theirs` of route `there`",
    );
}

#[test]
fn urls_in_another_form() {
    let secret = "an-example-auth-token-of-twilio-1";
    let judge = |target: &str, signed: &str, url: &str| {
        let hex = hmac_hex("sha1", secret, format!("{signed}ab").as_bytes());
        let signature =
            data_encoding::BASE64.encode(&data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap());
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("X-Twilio-Signature", &*signature),
        ];
        let secret = format!("value:{secret}");
        let args = [
            "verify",
            "--provider",
            "twilio",
            "--secret",
            &secret,
            "--request",
            "-",
            "--url",
            url,
            "--format",
            "json",
        ];
        let request = String::from_utf8(message(&headers, b"a=b")).unwrap();
        let request = request.replacen("/hooks ", &format!("{target} "), 1);
        hints(&Shell::new().feed(&args, request.as_bytes()).code(1).json())
    };
    for (signed, url) in [
        ("https://h.example/hooks", "http://h.example/hooks"),
        ("https://h.example/hooks", "https://h.example/hooks/"),
        ("https://h.example/hooks/", "https://h.example/hooks"),
        ("https://h.example/hooks", "https://h.example/hooks?x=1"),
        ("https://h.example/hooks", "https://h.example/Hooks"),
        ("https://h.example/a b", "https://h.example/a%20b"),
        (
            "https://hooks.example.org/hooks",
            "https://public.example/hooks",
        ),
        (
            "http://hooks.example.org/hooks",
            "https://public.example/hooks",
        ),
    ] {
        let hints = judge("/hooks", signed, url);
        assert_hint(&hints, "url_form", &format!("`{signed}`"));
    }
    // A console shows the URL without the query that is called.
    let url = "https://h.example/hooks";
    let hints = judge("/hooks?k=1", "https://h.example/hooks?k=1", url);
    assert_hint(&hints, "url_form", "the query of the captured request");
}

#[test]
fn the_other_scheme_of_a_preset() {
    let preset = "\
provider: acme
title: Acme
category: test
confidence: high
sources: [made up]
secret: Any text.
schemes:
  v2: { algorithm: hmac-sha512, signature: { header: X-Acme }, signed: '{body}' }
  v1: { algorithm: hmac-sha256, signature: { header: X-Acme }, signed: '{body}' }
";
    let shell = Shell::new().with("acme.yaml", preset);
    let request = message(&[("X-Acme", &hmac_hex("sha256", SECRET, b"{}"))], b"{}");
    let secret = format!("value:{SECRET}");
    let args = [
        "verify",
        "--provider",
        "acme",
        "--providers-dir",
        ".",
        "--secret",
        &secret,
        "--request",
        "-",
        "--format",
        "json",
    ];
    let hints = hints(&shell.feed(&args, &request).code(1).json());
    assert_hint(&hints, "other_scheme", "`provider: acme/v1`");
}
