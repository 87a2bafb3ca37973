//! HTTP/2: the same verdicts as over HTTP/1.1, and frames that no good client sends.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::support::h2::{
    DATA, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::support::{
    App, Gateway, RawH2, Reply, StreamEnd, Wire, config, config_with, eventually, github,
    github_route, open_route, pause, two_routes,
};

#[test]
fn the_same_verdicts_as_over_http1() {
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let mut h2 = gateway.h2();
    let (_, value) = github(b"over h2");
    let signed = [
        ("x-hub-signature-256", value.as_str()),
        ("x-github-delivery", "d"),
        ("x-hookward-verified", "token"),
    ];
    let event = gateway.forwarded(
        &h2.exchange("POST", "/github?a=%zz", &signed, b"over h2"),
        200,
    );
    assert_eq!(
        (event["event_id"].as_str(), event["bytes_in"].as_u64()),
        (Some("d"), Some(7))
    );
    let seen = app.last();
    assert_eq!(
        (seen.line(), seen.body.as_slice()),
        ("POST /github?a=%zz HTTP/1.1", &b"over h2"[..])
    );
    for (name, value) in [
        ("host", "localhost"),
        ("content-length", "7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "localhost"),
        ("x-hookward-verified", "provider:github"),
    ] {
        assert_eq!(seen.headers(name), [value], "{name}");
    }
    seen.lacks(&["transfer-encoding", "connection"]);

    gateway.refused(
        &h2.exchange("POST", "/github", &[], b"x"),
        401,
        "signature_missing",
    );
    gateway.refused(
        &h2.exchange("POST", "/github", &signed, b"y"),
        401,
        "signature_mismatch",
    );
    gateway.refused(
        &h2.exchange("POST", "/nowhere", &[], b"x"),
        404,
        "route_not_found",
    );
    let answer = h2.exchange("PUT", "/open", &[], b"x");
    gateway.refused(&answer, 405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    for name in ["connection", "keep-alive", "transfer-encoding"] {
        assert_eq!(answer.header(name), None);
    }
    gateway.refused(
        &h2.exchange("POST", "/open/../open", &[], b"x"),
        400,
        "malformed_request",
    );
    gateway.refused(
        &h2.exchange("POST", "/open", &[("content_length", "1")], b"x"),
        400,
        "malformed_request",
    );
    for length in [9000, 40_000] {
        let long = format!("/open?{}", "q".repeat(length));
        gateway.refused(&h2.exchange("POST", &long, &[], b"x"), 414, "uri_too_long");
    }
    // The connection has lived through all of it.
    gateway.forwarded(&h2.exchange("POST", "/open", &[], b"x"), 200);
    assert_eq!(app.count(), 2);
}

#[test]
fn requests_at_the_same_time_each_get_their_answer() {
    // SECURITY U-21
    let app = App::start();
    app.mirror();
    let route = open_route(&app).replace("/open", "\"/e/{n}\"");
    let gateway = Gateway::start(&config(&route));
    let mut h2 = gateway.h2();
    let paths: Vec<String> = (0..60).map(|n| format!("/e/{n}")).collect();
    let requests: Vec<_> = paths
        .iter()
        .map(|path| ("POST", path.as_str(), &[][..], path.as_bytes()))
        .collect();
    for _ in 0..5 {
        for (answer, path) in h2.all(&requests).iter().zip(&paths) {
            assert_eq!(answer.text(), format!("{path} {path}"));
        }
    }
    assert_eq!(app.count(), 300);
}

/// The fields of a POST to `/open`, with these instead of or beside the usual ones.
fn ask(gateway: &Gateway, fields: &[(&str, &[u8])]) -> StreamEnd {
    let mut raw = RawH2::open(gateway.address("https"));
    raw.headers(1, 0, fields);
    raw.frame(DATA, END_STREAM, 1, b"abc");
    raw.end_of(1)
}

const METHOD: (&str, &[u8]) = (":method", b"POST");
const SCHEME: (&str, &[u8]) = (":scheme", b"https");
const AUTHORITY: (&str, &[u8]) = (":authority", b"localhost");
const PATH: (&str, &[u8]) = (":path", b"/open");

/// Whether this is any kind of refusal.
fn is_refusal(end: &StreamEnd) -> bool {
    matches!(
        end,
        StreamEnd::Status(400 | 405 | 431)
            | StreamEnd::Reset(_)
            | StreamEnd::GoAway(_)
            | StreamEnd::Closed
    )
}

#[test]
fn the_hand_written_client_is_understood() {
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    assert_eq!(
        ask(&gateway, &[METHOD, SCHEME, AUTHORITY, PATH]),
        StreamEnd::Status(200)
    );
    assert_eq!(
        ask(
            &gateway,
            &[METHOD, SCHEME, AUTHORITY, (":path", b"/nowhere")]
        ),
        StreamEnd::Status(404)
    );
    assert_eq!(
        ask(&gateway, &[(":method", b"PUT"), SCHEME, AUTHORITY, PATH]),
        StreamEnd::Status(405)
    );
    assert_eq!(app.last().body, b"abc");
    assert_eq!(app.count(), 1);
}

#[test]
fn lengths_and_connection_fields_that_http2_does_not_have() {
    // SECURITY H2-02, H2-03
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for field in [
        ("content-length", &b"0"[..]),
        ("content-length", b"9"),
        ("content-length", b"3, 3"),
        ("transfer-encoding", b"chunked"),
        ("connection", b"close"),
        ("upgrade", b"h2c"),
        ("keep-alive", b"timeout=5"),
        ("proxy-connection", b"close"),
        ("te", b"gzip"),
    ] {
        let end = ask(&gateway, &[METHOD, SCHEME, AUTHORITY, PATH, field]);
        assert!(is_refusal(&end), "{field:?}: {end:?}");
    }
    let length = ("content-length", &b"3"[..]);
    let twice = ask(&gateway, &[METHOD, SCHEME, AUTHORITY, PATH, length, length]);
    assert!(is_refusal(&twice), "{twice:?}");
    app.saw_nothing();
    assert_eq!(
        ask(
            &gateway,
            &[METHOD, SCHEME, AUTHORITY, PATH, ("content-length", b"3")]
        ),
        StreamEnd::Status(200)
    );
    assert_eq!(app.last().headers("content-length"), ["3"]);
}

#[test]
fn what_would_break_out_of_a_header_at_the_app() {
    // SECURITY H2-04, H2-05, RT-35
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for field in [
        ("x-a", &b"a\r\nx-b: c"[..]),
        ("x-a", b"a\nb"),
        ("x-a", b"a\0b"),
        ("x-a\r\nx-b", b"c"),
        ("X-Upper", b"a"),
        ("x a", b"b"),
        ("", b"a"),
        ("x-a", b" leading"),
        ("x-a", b"trailing\t"),
        (":unknown", b"a"),
        ("content_length", b"3"),
        ("x_hookward_verified", b"token"),
    ] {
        let end = ask(&gateway, &[METHOD, SCHEME, AUTHORITY, PATH, field]);
        assert!(is_refusal(&end), "{field:?}: {end:?}");
    }
    for path in [
        &b"open"[..],
        b"",
        b"/open x",
        b"*",
        b"/open\r\nX: y",
        b"/a/../open",
    ] {
        let end = ask(&gateway, &[METHOD, SCHEME, AUTHORITY, (":path", path)]);
        assert!(is_refusal(&end), "{path:?}: {end:?}");
    }
    for method in [&b"PO ST"[..], b"", b"POST\r\n", b"CONNECT"] {
        let end = ask(&gateway, &[(":method", method), SCHEME, AUTHORITY, PATH]);
        assert!(is_refusal(&end), "{method:?}: {end:?}");
    }
    for scheme in [&b"ftp"[..], b"", b"ht tp", b"http"] {
        let end = ask(&gateway, &[METHOD, (":scheme", scheme), AUTHORITY, PATH]);
        assert!(is_refusal(&end), "{scheme:?}: {end:?}");
    }
    app.saw_nothing();
}

#[test]
fn one_authority_from_one_source() {
    // SECURITY RT-09, RT-10
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for fields in [
        &[
            METHOD,
            SCHEME,
            AUTHORITY,
            PATH,
            ("host", b"other.example.org"),
        ][..],
        &[
            METHOD,
            SCHEME,
            AUTHORITY,
            PATH,
            ("host", b"localhost"),
            ("host", b"localhost"),
        ],
        &[METHOD, SCHEME, PATH],
        &[METHOD, SCHEME, (":authority", b"user@localhost"), PATH],
        &[METHOD, SCHEME, (":authority", b"localhost/path"), PATH],
        &[METHOD, SCHEME, (":authority", b""), PATH],
        &[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH],
    ] {
        let end = ask(&gateway, fields);
        assert!(is_refusal(&end), "{fields:?}: {end:?}");
    }
    app.saw_nothing();
    assert_eq!(
        ask(
            &gateway,
            &[METHOD, SCHEME, AUTHORITY, PATH, ("host", b"localhost")]
        ),
        StreamEnd::Status(200)
    );
    assert_eq!(
        ask(&gateway, &[METHOD, SCHEME, PATH, ("host", b"localhost")]),
        StreamEnd::Status(200)
    );
    for seen in app.seen() {
        assert_eq!(seen.headers("host"), ["localhost"]);
    }
    // As over HTTP/1.1, the certificate that SNI chose must cover it.
    assert_eq!(
        ask(
            &gateway,
            &[METHOD, SCHEME, (":authority", b"foreign.example"), PATH]
        ),
        StreamEnd::Status(421)
    );
}

#[test]
fn who_verified_what_is_said_by_the_gateway_alone() {
    // SECURITY RT-32, RT-33
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let (_, value) = github(b"abc");
    let spoofed: [(&str, &[u8]); 6] = [
        ("x-hookward-verified", b"token"),
        ("x-hookward-verified", b"provider:stripe"),
        ("x-hookward-key-id", b"chosen"),
        ("x-hookward-anything", b"1"),
        ("x-forwarded-for", b"192.0.2.9"),
        ("x-original-url", b"/admin"),
    ];
    for (path, verified) in [(&b"/open"[..], &[][..]), (b"/github", &["provider:github"])] {
        let own = [
            METHOD,
            SCHEME,
            AUTHORITY,
            (":path", path),
            ("x-hub-signature-256", value.as_bytes()),
        ];
        let end = ask(&gateway, &[&own[..], &spoofed].concat());
        assert_eq!(end, StreamEnd::Status(200));
        let seen = app.last();
        assert_eq!(seen.headers("x-hookward-verified"), verified);
        assert_ne!(seen.header("x-hookward-key-id"), Some("chosen"));
        assert_eq!(seen.headers("x-forwarded-for"), ["127.0.0.1"]);
        seen.lacks(&["x-hookward-anything", "x-original-url"]);
    }
}

#[test]
fn cookies_become_one_field() {
    // SECURITY RT-34
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let end = ask(
        &gateway,
        &[
            METHOD,
            SCHEME,
            AUTHORITY,
            PATH,
            ("cookie", b"a=1"),
            ("cookie", b"b=2"),
        ],
    );
    assert_eq!(end, StreamEnd::Status(200));
    assert_eq!(app.last().headers("cookie"), ["a=1; b=2"]);
}

#[test]
fn trailers_are_dropped() {
    // SECURITY SM-24, H2-23
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut raw = RawH2::open(gateway.address("https"));
    raw.headers(1, 0, &[METHOD, SCHEME, AUTHORITY, PATH]);
    raw.frame(DATA, 0, 1, b"abc");
    raw.headers(
        1,
        END_STREAM,
        &[("x-sig", b"1"), ("x-hookward-verified", b"token")],
    );
    assert_eq!(raw.end_of(1), StreamEnd::Status(200));
    app.last()
        .lacks(&["x-sig", "x-hookward-verified", "trailer"]);
    let mut raw = RawH2::open(gateway.address("https"));
    raw.headers(1, 0, &[METHOD, SCHEME, AUTHORITY, PATH]);
    raw.headers(1, END_STREAM, &[(":path", b"/other")]);
    let end = raw.end_of(1);
    assert!(is_refusal(&end) || end == StreamEnd::Status(200), "{end:?}");
    assert!(app.seen().iter().all(|seen| seen.target() == "/open"));
}

#[test]
fn two_copies_of_a_signature_are_none() {
    // SECURITY RT-26
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let (_, value) = github(b"abc");
    let signature = ("x-hub-signature-256", value.as_bytes());
    assert_eq!(
        ask(
            &gateway,
            &[
                METHOD,
                SCHEME,
                AUTHORITY,
                (":path", b"/github"),
                signature,
                signature
            ]
        ),
        StreamEnd::Status(401)
    );
    assert_eq!(gateway.event()["reason"], "signature_malformed");
    app.saw_nothing();
}

#[test]
fn floods_end_the_connection_and_only_it() {
    // SECURITY H2-06, H2-08, H2-09, H2-11
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let address = gateway.address("https");

    // A sender that changes its mind now and then is no flood.
    let mut few = RawH2::open(address);
    for n in 0..15 {
        few.headers(2 * n + 1, 0, &[METHOD, SCHEME, AUTHORITY, PATH]);
        few.frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes());
    }
    few.headers(31, END_STREAM, &[METHOD, SCHEME, AUTHORITY, PATH]);
    assert_eq!(few.end_of(31), StreamEnd::Status(200));

    let mut resets = RawH2::open(address);
    for n in 0..500 {
        resets.headers(2 * n + 1, 0, &[METHOD, SCHEME, AUTHORITY, PATH]);
        resets.frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes());
    }
    let end = resets.end_of(u32::MAX);
    assert!(
        matches!(end, StreamEnd::GoAway(11) | StreamEnd::Closed),
        "{end:?}"
    );

    let mut continuations = RawH2::open(address);
    continuations.frame(HEADERS, 0, 1, b"\x82");
    for _ in 0..2000 {
        continuations.frame(9, 0, 1, b"");
    }
    let end = continuations.end_of(u32::MAX);
    assert!(
        matches!(end, StreamEnd::GoAway(_) | StreamEnd::Closed),
        "{end:?}"
    );

    let mut empty = RawH2::open(address);
    empty.headers(1, 0, &[METHOD, SCHEME, AUTHORITY, PATH]);
    for _ in 0..20_000 {
        empty.frame(DATA, 0, 1, b"");
    }
    let end = empty.end_of(1);
    assert!(
        matches!(
            end,
            StreamEnd::GoAway(_) | StreamEnd::Closed | StreamEnd::Reset(_)
        ),
        "{end:?}"
    );

    let mut large = RawH2::open(address);
    let value = vec![b'v'; 12_000];
    large.headers(
        1,
        END_STREAM,
        &[METHOD, SCHEME, AUTHORITY, PATH, ("x-a", &value)],
    );
    assert!(matches!(large.end_of(1), StreamEnd::Status(200)));
    let mut larger = RawH2::open(address);
    let many: Vec<(&str, &[u8])> = [METHOD, SCHEME, AUTHORITY, PATH]
        .into_iter()
        .chain((0..1000).map(|_| ("x-a", &value[..20])))
        .collect();
    larger.headers(1, END_STREAM, &many);
    let end = larger.end_of(1);
    assert!(matches!(end, StreamEnd::GoAway(_)), "{end:?}");

    assert_eq!(
        gateway.h2().exchange("POST", "/open", &[], b"x").status,
        200
    );
    eventually("nothing is left", || {
        (gateway.metric("hookward_requests_in_flight", &[]) == Some(0)).then_some(())
    });
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    // SECURITY H2-15, H2-16
    let app = App::start();
    let limits = "limits: { header_timeout: 400ms, idle_timeout: 800ms }";
    let gateway = Gateway::start(&config_with(limits, &open_route(&app)));
    let address = gateway.address("https");
    let start = Instant::now();
    let mut silent: Wire = super::support::Tls {
        alpn: &[b"h2"],
        ..super::support::Tls::default()
    }
    .connect(address)
    .unwrap();
    silent.rest();
    let mut settings_only = RawH2::open(address);
    assert!(matches!(
        settings_only.end_of(1),
        StreamEnd::GoAway(_) | StreamEnd::Closed
    ));
    assert!(start.elapsed().as_secs() < 10);

    let mut idle = RawH2::open(address);
    idle.post(1, b"/open", &[], b"x");
    assert_eq!(idle.end_of(1), StreamEnd::Status(200));
    let start = Instant::now();
    // Pings do not keep it.
    while start.elapsed().as_millis() < 600 {
        idle.frame(PING, 0, 0, b"12345678");
        pause(Duration::from_millis(100));
    }
    assert!(matches!(
        idle.end_of(u32::MAX),
        StreamEnd::GoAway(_) | StreamEnd::Closed
    ));
    assert!(start.elapsed().as_secs() < 10);
    assert_eq!(app.count(), 1);
}

#[test]
fn a_stream_whose_body_does_not_come_ends_and_spares_the_others() {
    // SECURITY H2-14, H2-22
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { body_timeout: 500ms }",
        &open_route(&app),
    ));
    let mut raw = RawH2::open(gateway.address("https"));
    raw.headers(1, 0, &[METHOD, SCHEME, AUTHORITY, PATH]);
    raw.frame(DATA, 0, 1, b"ab");
    raw.post(3, b"/open", &[], b"abc");
    assert_eq!(raw.end_of(3), StreamEnd::Status(200));
    assert_eq!(raw.end_of(1), StreamEnd::Status(408));
    raw.post(5, b"/open", &[], b"abc");
    assert_eq!(raw.end_of(5), StreamEnd::Status(200));
    assert_eq!(app.count(), 2);
}

#[test]
fn streams_above_the_limit_are_refused_one_by_one() {
    // SECURITY H2-14
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { body_timeout: 1s }",
        &open_route(&app),
    ));
    let mut raw = RawH2::open(gateway.address("https"));
    let streams: Vec<u32> = (0..300).map(|number| 2 * number + 1).collect();
    for stream in &streams {
        raw.headers(*stream, 0, &[METHOD, SCHEME, AUTHORITY, PATH]);
        raw.frame(DATA, 0, *stream, b"ab");
    }
    // What follows on a stream that was refused is answered by another reset.
    let (mut reset, mut overdue) = (HashSet::new(), HashSet::new());
    while reset.len() < streams.len() {
        let frame = raw.next().expect("the connection goes on");
        match frame.kind {
            HEADERS => assert!(overdue.insert(frame.stream)),
            RST_STREAM => drop(reset.insert(frame.stream)),
            GOAWAY => panic!("{:?}", frame.payload),
            _ => {}
        }
    }
    assert_eq!(overdue.len(), 64, "each 408: its body did not come");
    raw.post(601, b"/open", &[], b"abc");
    assert_eq!(raw.end_of(601), StreamEnd::Status(200));
    assert_eq!(app.count(), 1);
}

#[test]
fn a_reset_before_the_body_is_complete_claims_nothing_and_one_after_it_undoes_nothing() {
    // SECURITY U-20
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let length = ("content-length", &b"3"[..]);
    // CANCEL, and NO_ERROR, which is no end either.
    for code in [8_u32, 0] {
        for fields in [
            &[METHOD, SCHEME, AUTHORITY, PATH][..],
            &[METHOD, SCHEME, AUTHORITY, PATH, length],
        ] {
            for sent in [&b""[..], b"ab"] {
                let mut raw = RawH2::open(gateway.address("https"));
                raw.headers(1, 0, fields);
                raw.frame(DATA, 0, 1, sent);
                raw.frame(RST_STREAM, 0, 1, &code.to_be_bytes());
                assert_eq!(
                    gateway.event()["reason"],
                    "body_incomplete",
                    "{code} {sent:?}"
                );
            }
        }
    }
    app.saw_nothing();
    let mut raw = RawH2::open(gateway.address("https"));
    app.script([Reply::AfterGate(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    )]);
    raw.post(3, b"/open", &[], b"abc");
    app.wait_for(1);
    raw.frame(RST_STREAM, 0, 3, &8_u32.to_be_bytes());
    app.open_gate();
    let event = gateway.event();
    assert_eq!(
        (event["outcome"].as_str(), event["upstream_status"].as_u64()),
        (Some("forwarded"), Some(200))
    );
}

#[test]
fn a_refused_upload_over_http2_leaves_the_connection_usable() {
    // SECURITY DS-11, SM-16
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let mut h2 = gateway.h2();
    let body = vec![b'x'; 2 << 20];
    gateway.refused(
        &h2.exchange("POST", "/open", &[], &body),
        413,
        "body_too_large",
    );
    gateway.refused(
        &h2.exchange("POST", "/nowhere", &[], &body),
        404,
        "route_not_found",
    );
    gateway.refused(
        &h2.exchange("POST", "/github", &[], &body[..900_000]),
        401,
        "signature_missing",
    );
    gateway.forwarded(&h2.exchange("POST", "/open", &[], b"x"), 200);
    assert_eq!(app.count(), 1);
}

#[test]
fn curl_reads_the_refusal_of_an_upload_that_it_still_sends() {
    // SECURITY SM-17: a reset right after the answer would hide it
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let file = gateway.dir().join("upload");
    std::fs::write(&file, vec![b'x'; 2 << 20]).unwrap();
    for (path, status) in [("open", "413 2"), ("github", "401 2"), ("nowhere", "404 2")] {
        let curl = std::process::Command::new("curl")
            .args([
                "-sk",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{http_version}",
            ])
            .args(["--data-binary", &format!("@{}", file.display())])
            .arg(format!("https://{}/{path}", gateway.address("https")))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&curl.stdout), status, "{path}");
    }
}

#[test]
fn a_client_that_still_sends_learns_why_its_connection_ends() {
    // SECURITY SM-17
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut raw = RawH2::open(gateway.address("https"));
    // The head of a frame is enough to refuse it.
    raw.frame(HEADERS, 0, 1, &vec![0; 100_000]);
    pause(Duration::from_millis(100));
    raw.send(&vec![0; 100_000]);
    pause(Duration::from_millis(100));
    raw.send(&vec![0; 100_000]);
    assert_eq!(raw.end_of(1), StreamEnd::GoAway(6));
}

#[test]
fn an_answer_that_breaks_off_resets_its_stream() {
    // SECURITY U-04
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    app.script([Reply::RawThenClose(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n".to_vec(),
    )]);
    let mut raw = RawH2::open(gateway.address("https"));
    raw.post(1, b"/open", &[], b"abc");
    // The reset may overtake the head; what counts is that the answer never seems whole.
    let end = match raw.end_of(1) {
        StreamEnd::Status(200) => raw.end_of(1),
        end => end,
    };
    assert!(matches!(end, StreamEnd::Reset(_)), "{end:?}");
}

/// An answer that sockets do not hold.
fn long_answer() -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n");
    [head.as_bytes(), &vec![b'z'; LONG]].concat()
}

const LONG: usize = 6 << 20;

#[test]
fn an_answer_reaches_a_client_that_reads_it_after_the_end() {
    // SECURITY SM-17: a client says how much more it can take, and would be answered by a reset
    let app = App::start();
    let mut gateway = Gateway::start(&config(&open_route(&app)));
    for ends in ["GOAWAY", "SIGTERM"] {
        let mut raw = RawH2::open(gateway.address("https"));
        let window = [&[0, 4][..], &(8_u32 << 20).to_be_bytes()].concat();
        raw.frame(SETTINGS, 0, 0, &window);
        raw.frame(WINDOW_UPDATE, 0, 0, &(8_u32 << 20).to_be_bytes());
        app.script([Reply::AfterGate(long_answer())]);
        raw.post(1, b"/open", &[], b"abc");
        app.wait_for(1);
        if ends == "GOAWAY" {
            raw.frame(GOAWAY, 0, 0, &[0; 8]);
        } else {
            gateway.signal("TERM");
        }
        app.open_gate();
        assert_eq!(raw.end_of(1), StreamEnd::Status(200), "{ends}");
        // The gateway has said all that it has to say.
        pause(Duration::from_millis(500));
        let mut read = 0;
        let end = loop {
            let frame = raw.next().unwrap_or_else(|| panic!("{ends}: after {read}"));
            if frame.kind == DATA {
                read += frame.payload.len();
                let more = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                raw.frame(WINDOW_UPDATE, 0, 0, &more);
                if frame.flags & END_STREAM > 0 {
                    break frame.stream;
                }
            }
        };
        assert_eq!((end, read), (1, LONG), "{ends}");
        app.close_gate();
    }
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn a_client_that_answers_no_ping_holds_up_no_stop() {
    // SECURITY H2-20
    let app = App::start();
    let mut gateway = Gateway::start(&config_with(
        "limits: { drain_timeout: 10m }",
        &open_route(&app),
    ));
    let mut raw = RawH2::open(gateway.address("https"));
    raw.post(1, b"/open", &[], b"abc");
    assert_eq!(raw.end_of(1), StreamEnd::Status(200));
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn a_refusal_without_content_has_none() {
    // RFC 9110 15.3.5: a client takes it for an error of the protocol
    let app = App::start();
    for status in [204, 205] {
        let route = format!(
            "{}    on_reject: {{ status: {status} }}\n",
            github_route(&app)
        );
        let gateway = Gateway::start(&config(&route));
        let answer = gateway.h2().exchange("POST", "/github", &[], b"x");
        assert_eq!((answer.status, answer.body.len()), (status, 0));
        let answer = gateway.post("/github", &[], b"x");
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
}
