//! HTTP/1 framing: what is refused, what is framed anew, and that nothing is ever served twice.

use std::iter::repeat_n;
use std::time::Duration;

use super::support::{
    App, Gateway, Reply, Wire, config, config_with, eventually, numbered_fields, open_route,
    two_routes,
};

const HOST: &str = "Host: localhost\r\n";

/// Sends each request over plaintext and TLS: 400, closed, nothing of it at the app, and counted.
fn all_malformed(requests: &[Vec<u8>]) {
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for request in requests {
        let shown = String::from_utf8_lossy(request);
        for mut wire in [gateway.plain(), gateway.tls()] {
            let answer = wire
                .last_answer(request)
                .unwrap_or_else(|| panic!("no answer to {shown:?}"));
            assert_eq!(answer.status, 400, "{shown:?}");
        }
        assert_eq!(app.raw(), b"", "{shown:?}");
    }
    let expected = 2 * u64::try_from(requests.len()).unwrap();
    gateway.wait_for_requests("_none", "rejected", "malformed_request", expected);
    assert_eq!(gateway.post("/open", &[], b"x").status, 200);
}

/// Requests to `/open` with these header lines, each with a smuggled second request as its body.
fn with_lines(lines: &[&str]) -> Vec<Vec<u8>> {
    let request = |line: &&str| {
        format!(
            "POST /open HTTP/1.1\r\n{HOST}{line}\r\n\r\n0\r\n\r\nGET /open HTTP/1.1\r\n{HOST}\r\n"
        )
    };
    lines.iter().map(request).map(String::into_bytes).collect()
}

#[test]
fn transfer_encoding_is_one_chunked_or_malformed() {
    // SECURITY SM-03, SM-04, SM-05, SM-06, SM-07
    all_malformed(&with_lines(&[
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X-A: b\r\n Transfer-Encoding: chunked",
    ]));
}

#[test]
fn reserved_names_spelt_with_underscores_are_malformed() {
    // SECURITY SM-08, RT-33
    let names = [
        "Transfer_Encoding",
        "Content_Length",
        "Keep_Alive",
        "Proxy_Connection",
        "Proxy_Authorization",
        "X_Forwarded_For",
        "X_Forwarded_Host",
        "X-Forwarded_Proto",
        "X_Real_IP",
        "X_Request_Id",
        "X_Original_URL",
        "X_Hookward_Verified",
        "x-hookward_verified",
        "X_Hookward_Route",
    ];
    let lines: Vec<String> = names.iter().map(|name| format!("{name}: 3")).collect();
    all_malformed(&with_lines(
        &lines.iter().map(String::as_str).collect::<Vec<_>>(),
    ));
}

#[test]
fn content_length_is_one_number_or_malformed() {
    // SECURITY SM-12
    all_malformed(&with_lines(&[
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: -1",
        "Content-Length: 0x3",
        "Content-Length: 3 abc",
        "Content-Length:",
        "Content-Length: 3\0",
        "Content-Length: 18446744073709551617",
        "Content-Length: 99999999999999999999999",
    ]));
}

#[test]
fn connection_may_not_name_what_frames_routes_or_identifies() {
    // SECURITY RT-28, RT-29
    all_malformed(&with_lines(&[
        "Connection: transfer-encoding",
        "Connection: close, Content-Length",
        "Connection: host",
        "Connection: Authorization",
        "Connection: X-Forwarded-For",
        "Connection: x-hookward-verified",
    ]));
}

#[test]
fn broken_heads_are_malformed() {
    // SECURITY SM-09, SM-27, SM-28, SM-29, SM-31
    let mut requests = with_lines(&[
        "X-A: a\rb",
        "X-A: a\r\n b",
        "Expect:\r\n 100-continue",
        "X-A: a\0b",
        "X-A: a\x01b",
        "X-A: a\x7fb",
        "X\0A: a",
        "no colon",
        ": empty",
    ]);
    for line in [
        "POST  /open HTTP/1.1",
        "POST\t/open HTTP/1.1",
        " POST /open HTTP/1.1",
        "POST /open HTTP/0.9",
        "POST /open HTTP/1.2",
        "POST /open HTTP/2.0",
        "POST /open HTTP/11.1",
        "POST /open http/1.1",
        "POST /open",
    ] {
        requests.push(format!("{line}\r\n{HOST}Content-Length: 0\r\n\r\n").into_bytes());
    }
    requests.push(b"POST /open HTTP/1.1\r\nHost: localhost\r\nX\xe9: a\r\n\r\n".to_vec());
    requests.push(
        b"POST /open HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_vec(),
    );
    all_malformed(&requests);
}

#[test]
fn what_cannot_become_a_request_is_refused_before_its_head_has_ended() {
    // SECURITY SM-01, SM-11, RT-20
    let app = App::start();
    let limits = "limits: { header_timeout: 1m, idle_timeout: 1m }";
    let gateway = Gateway::start(&config_with(limits, &open_route(&app)));
    let begun: [&[u8]; 7] = [
        // A TLS client, which says what groups it has.
        &[0x16, 3, 1, 0, 9, 1, 0, 0, 5, 3, 3, 0, 0x0a, 0],
        b"\r\r",
        b"GET /\r\n",
        b"POST /open#a HTTP/1.1\r\nHo",
        b"POST /open HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
        b"POST /open HTTP/1.1\r\nTransfer-Encoding: gzip\r\nX",
        b"POST /open HTTP/1.1\r\nX : y\r\n",
    ];
    for bytes in begun {
        let mut wire = gateway.plain();
        for byte in bytes {
            wire.send(&[*byte]);
        }
        let answer = wire.answer().unwrap();
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(bytes));
    }
    gateway.wait_for_requests("_none", "rejected", "malformed_request", 7);
}

#[test]
fn two_lengths_are_one_too_many() {
    // SECURITY SM-01, SM-02, SM-11
    all_malformed(&with_lines(&[
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: chunked\r\nX-A: b\r\nContent-Length: x",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 003",
    ]));
}

#[test]
fn two_lengths_are_found_in_any_message_however_it_is_cut() {
    // SECURITY SM-01, SM-02, SM-33
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let good = format!(
        "POST /open HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n14\r\nContent-Length: 1\r\n\r\r\n0\r\n\r\n"
    );
    let bad = format!(
        "POST /open?bad HTTP/1.1\r\n{HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    let mut wire = gateway.tls();
    for byte in good.as_bytes() {
        wire.send(&[*byte]);
    }
    assert_eq!(wire.answer().unwrap().status, 200);
    assert_eq!(app.last().body, b"Content-Length: 1\r\n\r");
    wire.send(format!("{good}{bad}").as_bytes());
    assert_eq!(wire.answer().unwrap().status, 200);
    assert_eq!(wire.answer().unwrap().status, 400);
    assert!(wire.is_closed());
    assert_eq!(app.count(), 2);
}

#[test]
fn a_length_is_forwarded_as_one_number() {
    // SECURITY SM-13
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let request = format!("POST /open HTTP/1.1\r\n{HOST}Content-Length: 003\r\n\r\nabc");
    let answer = gateway.plain().send(request.as_bytes()).answer().unwrap();
    gateway.forwarded(&answer, 200);
    assert_eq!(app.last().headers("content-length"), ["3"]);
    assert_eq!(app.last().body, b"abc");
}

#[test]
fn chunked_bodies_arrive_as_one_length() {
    // SECURITY SM-20, SM-23, A-43
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for (chunks, body) in [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", "hello"),
        (
            "00000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        ("5;name=value\r\nhello\r\n0;last\r\n\r\n", "hello"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("0\r\n\r\n", ""),
    ] {
        let request =
            format!("POST /open HTTP/1.1\r\n{HOST}Transfer-Encoding: Chunked\r\n\r\n{chunks}");
        let answer = gateway.tls().send(request.as_bytes()).answer().unwrap();
        gateway.forwarded(&answer, 200);
        let seen = app.last();
        assert_eq!(String::from_utf8_lossy(&seen.body), body);
        assert_eq!(seen.headers("content-length"), [body.len().to_string()]);
        seen.lacks(&["transfer-encoding"]);
    }
}

#[test]
fn broken_chunks_are_400_and_close() {
    // SECURITY SM-18, SM-21, SM-22, SM-25
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let many = format!("3\r\nabc\r\n0\r\n{}\r\n", "X-T: 1\r\n".repeat(200));
    let large = format!("3\r\nabc\r\n0\r\nX-T: {}\r\n\r\n", "t".repeat(70_000));
    for chunks in [
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "11111111111111111\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabcX\r\n0\r\n\r\n",
        "2;\n45\r\nab\r\n0\r\n\r\n",
        "2;a\rb\r\nab\r\n0\r\n\r\n",
        "g\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        &many,
        &large,
    ] {
        let before = app.count();
        let request =
            format!("POST /open HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{chunks}");
        let answer = gateway.plain().last_answer(request.as_bytes()).unwrap();
        assert_eq!((answer.status, app.count()), (400, before), "{chunks:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{chunks:?}");
    }
}

#[test]
fn trailers_are_dropped() {
    // SECURITY SM-24
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let request = format!(
        "POST /open HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTrailer: X-Sig\r\nTE: trailers\r\n\r\n3\r\nabc\r\n0\r\n\
         X-Sig: 1\r\nContent-Length: 9\r\nAuthorization: Bearer x\r\nX-Hookward-Verified: token\r\n\r\n"
    );
    gateway.forwarded(
        &gateway.plain().send(request.as_bytes()).answer().unwrap(),
        200,
    );
    app.last().lacks(&[
        "x-sig",
        "authorization",
        "x-hookward-verified",
        "trailer",
        "te",
    ]);
    assert_eq!(app.last().headers("content-length"), ["3"]);
    assert_eq!(app.last().body, b"abc");
}

#[test]
fn trailers_prove_nothing_and_disprove_nothing() {
    // SECURITY SM-24
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let (name, right) = super::support::github(b"abc");
    let (_, wrong) = super::support::github(b"other content");
    let ask = |field: &str, trailer: &str| {
        let request = format!(
            "POST /github HTTP/1.1\r\n{HOST}{field}Transfer-Encoding: chunked\r\nTrailer: {name}\r\n\r\n\
             3\r\nabc\r\n0\r\n{name}: {trailer}\r\n\r\n"
        );
        gateway.plain().send(request.as_bytes()).answer().unwrap()
    };
    gateway.refused(&ask("", &right), 401, "signature_missing");
    let field = format!("{name}: {wrong}\r\n");
    gateway.refused(&ask(&field, &right), 401, "signature_mismatch");
    app.saw_nothing();
    let field = format!("{name}: {right}\r\n");
    gateway.forwarded(&ask(&field, &wrong), 200);
    assert_eq!(app.last().headers(&name), [right]);
}

#[test]
fn a_body_that_ends_early_is_incomplete() {
    // SECURITY SM-15, U-20, T-08
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for request in [
        "POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc",
        "POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        "POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let answer = gateway.plain().send(request.as_bytes()).end().answer();
        let event = gateway.event();
        assert_eq!(
            (&event["reason"], &event["route"]),
            (&"body_incomplete".into(), &"open".into())
        );
        assert_eq!(event["outcome"], "rejected");
        assert_eq!(event["bytes_in"], 3, "what had come of it");
        if let Some(answer) = answer {
            assert_eq!(answer.status, 400);
        }
        // Gone altogether.
        gateway.tls().send(request.as_bytes());
        assert_eq!(gateway.event()["reason"], "body_incomplete");
    }
    assert_eq!(gateway.requests("open", "rejected", "body_incomplete"), 6);
    app.saw_nothing();
}

#[test]
fn pipelined_requests_are_judged_one_by_one_in_order() {
    // SECURITY SM-33
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let (name, value) = super::support::github(b"one");
    let signed =
        format!("POST /github HTTP/1.1\r\n{HOST}{name}: {value}\r\nContent-Length: 3\r\n\r\none");
    let unsigned = format!("POST /github HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\none");
    let open = format!("POST /open HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\ntwo");
    let mut wire = gateway.plain();
    wire.send(format!("{signed}{unsigned}{open}").as_bytes());
    assert_eq!(wire.answer().unwrap().status, 200);
    let refused = wire.answer().unwrap();
    assert_eq!(refused.status, 401);
    if refused.header("connection") == Some("close") {
        assert!(wire.is_closed());
        assert_eq!(app.count(), 1);
    } else {
        assert_eq!(wire.answer().unwrap().status, 200);
        assert_eq!(app.count(), 2);
    }
    assert_eq!(app.seen()[0].body, b"one");
}

#[test]
fn the_beginning_of_a_head_waits_for_its_end_whole() {
    // SECURITY SM-33: buffers are given back between requests, and nothing that came in with them.
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let request = |filler: &str, body: &str| {
        let length = body.len();
        format!(
            "POST /open HTTP/1.1\r\n{HOST}X-Filler: {filler}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let filler = "f".repeat(400);
    for cut in [1, 63, 64, 65, 300] {
        let (first, second) = (request("1", "one"), request(&filler, "two"));
        let (begun, rest) = second.split_at(cut);
        let mut wire = gateway.plain();
        wire.send(format!("{first}{begun}").as_bytes());
        assert_eq!(wire.answer().unwrap().status, 200);
        super::support::pause(Duration::from_millis(300));
        wire.send(rest.as_bytes());
        assert_eq!(wire.answer().unwrap().status, 200, "cut at {cut}");
        // A connection that waited alone goes on as well.
        super::support::pause(Duration::from_millis(300));
        wire.send(second.as_bytes());
        assert_eq!(wire.answer().unwrap().status, 200);
        let seen = app.seen();
        let last = &seen[seen.len() - 2];
        assert_eq!(last.header("x-filler"), Some(&*filler), "cut at {cut}");
    }
    assert_eq!(app.count(), 15);
}

#[test]
fn the_body_of_a_refused_request_is_never_a_request() {
    // SECURITY SM-16, SM-17
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let smuggled = format!("POST /open?smuggled HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n");
    let (name, value) = super::support::github(b"other content");
    let wrong = [(name.as_str(), value.as_str())];
    for size in [50, 900_000, 30_000_000] {
        let filler = size / smuggled.len() + 1;
        let body = smuggled.repeat(filler);
        for (path, headers, statuses) in [
            ("/nowhere", &[][..], &[404][..]),
            ("/github", &[], &[401, 413]),
            ("/github", &wrong, &[401, 413]),
        ] {
            for mut wire in [gateway.plain(), gateway.tls()] {
                wire.write("POST", path, headers, body.as_bytes());
                let answer = wire.answer().expect("the sender can read the answer");
                assert!(
                    statuses.contains(&answer.status),
                    "{} at {path}",
                    answer.status
                );
                let closes = answer.header("connection") == Some("close");
                assert!(closes || body.len() <= 1_000_000, "{size} bytes and kept");
                if closes {
                    assert_eq!(wire.rest(), b"");
                } else {
                    assert_eq!(wire.exchange("POST", "/nowhere", &[], b"").status, 404);
                }
            }
        }
    }
    app.saw_nothing();
}

#[test]
fn expect_100_gets_its_100_only_when_the_body_is_wanted() {
    // SECURITY SM-35, SM-36, SM-37
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let mut wire = gateway.plain();
    wire.send(
        format!("POST /open HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            .as_bytes(),
    );
    assert_eq!(wire.head().unwrap().0, 100);
    assert_eq!(wire.send(b"abc").answer().unwrap().status, 200);
    app.last().lacks(&["expect"]);

    // Chunked, it has ended too, and the connection is good for another one.
    let mut wire = gateway.plain();
    for _ in 0..2 {
        let head = format!("POST /open HTTP/1.1\r\n{HOST}Expect: 100-continue\r\n");
        wire.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
        assert_eq!(wire.head().unwrap().0, 100);
        let answer = wire.send(b"3\r\nabc\r\n0\r\n\r\n").answer().unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }

    // Refused by the head alone: no 100, and the connection is not kept for a body that may come.
    let mut wire = gateway.plain();
    wire.send(
        format!("POST /github HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            .as_bytes(),
    );
    let (status, headers) = wire.head().unwrap();
    assert_eq!(status, 401);
    assert!(headers.contains(&("connection".to_owned(), "close".to_owned())));

    for expectation in ["200-ok", "y 100-continue"] {
        let request = format!(
            "POST /open HTTP/1.1\r\n{HOST}Expect: {expectation}\r\nContent-Length: 3\r\n\r\nabc"
        );
        let answer = gateway.plain().send(request.as_bytes()).answer().unwrap();
        assert!(matches!(answer.status, 200 | 417));
        app.last().lacks(&["expect"]);
    }
}

#[test]
fn get_bodies_are_consumed() {
    // SECURITY SM-38
    let app = App::start();
    let route = format!(
        "  - name: open
    match: {{ path: /open, methods: [GET, HEAD, OPTIONS, POST] }}
    verify: none
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start(&config(&route));
    for method in ["GET", "HEAD", "OPTIONS"] {
        let before = app.count();
        let inner = format!("POST /open?smuggled HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n");
        let mut wire = gateway.plain();
        wire.write(
            method,
            "/open",
            &[("Content-Length", &inner.len().to_string())],
            inner.as_bytes(),
        );
        assert_eq!(wire.answer_to(method).unwrap().status, 200);
        assert_eq!(wire.exchange("POST", "/open?second", &[], b"x").status, 200);
        let seen = app.seen();
        assert_eq!(seen.len(), before + 2);
        assert_eq!(seen[before].body, inner.as_bytes());
        assert_eq!(seen[before + 1].target(), "/open?second");
    }
}

#[test]
fn http_1_0_is_served_without_keep_alive() {
    // SECURITY SM-10
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let answer = gateway
        .plain()
        .last_answer(b"POST /open HTTP/1.0\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(answer.unwrap().status, 200);
    // Without a length the body is empty, and what follows is nothing.
    let answer = gateway
        .plain()
        .last_answer(b"POST /open HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\nPOST /open HTTP/1.0\r\n\r\n");
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(app.count(), 2);
    assert_eq!(app.last().body, b"");
    // And an empty body it is that must be signed.
    let (name, value) = super::support::github(b"abc");
    let request = format!("POST /github HTTP/1.0\r\n{HOST}{name}: {value}\r\n\r\nabc");
    let answer = gateway.plain().last_answer(request.as_bytes()).unwrap();
    for _ in 0..2 {
        gateway.event();
    }
    gateway.refused(&answer, 401, "signature_mismatch");
    assert_eq!(app.count(), 2);
}

#[test]
fn http_1_0_is_told_to_close_where_it_closes() {
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let kept = "HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let connection = |answer: &super::support::Answer| -> Vec<String> {
        let fields = answer.headers.iter();
        let own = fields.filter(|(name, _)| name == "connection");
        own.map(|(_, value)| value.clone()).collect()
    };
    // A request without a length, and an answer without one.
    for (reply, request) in [
        (Reply::status(200), format!("POST /open {kept}\r\n")),
        (
            Reply::Raw(chunked.to_vec()),
            format!("POST /open {kept}Content-Length: 2\r\n\r\nhi"),
        ),
        (Reply::status(200), format!("GET /nowhere {kept}\r\n")),
    ] {
        app.script([reply]);
        let answer = gateway.plain().last_answer(request.as_bytes()).unwrap();
        assert_eq!(connection(&answer), ["close"], "{request}");
        assert_eq!(answer.header("transfer-encoding"), None);
    }
    // With both it is kept, as it asks.
    let mut wire = gateway.plain();
    for _ in 0..2 {
        app.script([Reply::status(200)]);
        let request = format!("POST /open {kept}Content-Length: 2\r\n\r\nhi");
        let answer = wire.send(request.as_bytes()).answer().unwrap();
        assert_eq!(connection(&answer), ["keep-alive"]);
        assert_eq!(answer.text(), "ok");
    }
}

#[test]
fn line_feeds_alone_end_lines_but_do_not_reach_the_app() {
    // SECURITY SM-26, SM-32
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let request = b"\r\n\r\nPOST /open HTTP/1.1\nHost: localhost\nContent-Length: 3\n\nabc";
    let answer = gateway.plain().send(request).answer().unwrap();
    assert_eq!(answer.status, 200);
    let raw = app.raw();
    let lone = raw
        .windows(2)
        .any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
    assert!(!lone, "{}", String::from_utf8_lossy(&raw));
}

#[test]
fn empty_lines_before_a_request_are_bounded() {
    // SECURITY SM-32
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let request = b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
    for line in ["\r\n", "\n"] {
        let mut wire = gateway.plain();
        for _ in 0..2 {
            let some = [line.repeat(900).as_bytes(), request].concat();
            assert_eq!(wire.send(&some).answer().unwrap().status, 200);
        }
        let mut wire = gateway.plain();
        let many = [line.repeat(1001).as_bytes(), request].concat();
        assert_eq!(wire.send(&many).answer().unwrap().status, 400);
        assert!(wire.is_closed());
    }
    assert_eq!(app.count(), 4);
}

#[test]
fn bytes_above_ascii_in_a_value_are_forwarded_as_bytes() {
    // SECURITY SM-30
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let request = b"POST /open HTTP/1.1\r\nHost: localhost\r\nX-Name: caf\xe9 \xff\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(gateway.plain().send(request).answer().unwrap().status, 200);
    assert!(app.raw().windows(6).any(|run| run == b"caf\xe9 \xff"));
    let request = b"POST /github HTTP/1.1\r\nHost: localhost\r\nX-Hub-Signature-256: sha256=\xe9\xff\r\nContent-Length: 0\r\n\r\n";
    let answer = gateway.plain().send(request).answer().unwrap();
    gateway.event();
    gateway.refused(&answer, 401, "signature_malformed");
    assert_eq!(app.count(), 1);
}

#[test]
fn who_still_sends_can_read_that_its_head_is_refused() {
    // SECURITY SM-17
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let body = vec![b'x'; 3_000_000];
    let length = format!("Content-Length: {}\r\n", body.len());
    for (fields, status) in [
        (numbered_fields(repeat_n("v".to_owned(), 200)), 431),
        (length.clone(), 400),
        ("X-Folded: a\r\n b\r\n".to_owned(), 400),
    ] {
        let head = format!("POST /open HTTP/1.1\r\n{HOST}{fields}{length}\r\n");
        let request = [head.as_bytes(), &body].concat();
        for mut wire in [gateway.plain(), gateway.tls()] {
            let answer = wire
                .last_answer(&request)
                .expect("the sender can read the answer");
            assert_eq!(answer.status, status, "{head}");
        }
    }
    app.saw_nothing();
}

#[test]
fn heads_above_the_limit_are_431() {
    // SECURITY DS-10
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { header_bytes: 8KiB }",
        &open_route(&app),
    ));
    let fields = |count: usize, size: usize| numbered_fields(repeat_n("v".repeat(size), count));
    for fields in [
        fields(1, 9_000),
        fields(12, 1_000),
        fields(1, 500_000),
        fields(200, 1),
    ] {
        let request = format!("POST /open HTTP/1.1\r\n{HOST}{fields}Content-Length: 0\r\n\r\n");
        let answer = gateway.plain().last_answer(request.as_bytes()).unwrap();
        assert_eq!(answer.status, 431, "{} bytes", fields.len());
    }
    gateway.wait_for_requests("_none", "rejected", "header_too_large", 4);
    app.saw_nothing();
    let request = format!(
        "POST /open HTTP/1.1\r\n{HOST}{}Content-Length: 0\r\n\r\n",
        fields(1, 7_000)
    );
    assert_eq!(
        gateway
            .plain()
            .send(request.as_bytes())
            .answer()
            .unwrap()
            .status,
        200
    );
}

#[test]
fn a_proxy_line_is_not_understood_where_it_is_off() {
    // SECURITY SM-42
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for line in [
        &b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x01\0\x02",
    ] {
        let request = [
            line,
            b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        ]
        .concat();
        let answer = gateway.plain().last_answer(&request);
        assert!(answer.is_none_or(|answer| answer.status == 400));
    }
    app.saw_nothing();
}

#[test]
fn a_chunk_larger_than_any_body_is_not_waited_for() {
    // SECURITY SM-14, SM-19
    let app = App::start();
    let gateway = Gateway::start(&config_with(
        "limits: { body_timeout: 500ms }",
        &open_route(&app),
    ));
    let declare = |length: u128| {
        let head =
            format!("POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        gateway.plain().last_answer(head.as_bytes()).unwrap()
    };
    let end = 1 << 64;
    gateway.refused(&declare(end - 1), 413, "body_too_large");
    assert_eq!(declare(end).status, 400);
    gateway.wait_for_requests("_none", "rejected", "malformed_request", 1);
    let chunk = "POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc";
    let mut wire: Wire = gateway.plain();
    let answer = wire.send(chunk.as_bytes()).answer().unwrap();
    assert!(
        matches!(answer.status, 400 | 408 | 413),
        "{}",
        answer.status
    );
    assert!(wire.is_closed());
    app.saw_nothing();
    eventually("no request is left", || {
        (gateway.metric("hookward_requests_in_flight", &[]) == Some(0)).then_some(())
    });
}
