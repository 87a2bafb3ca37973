//! What RFC 9113 and RFC 7541 call an error, section by section, over TLS: an error it must be, of the
//! stream or of the connection, and nothing of it at the app. And floods of what is allowed.

use std::sync::Arc;

use hookward::config::Environment;
use hookward::gateway::connection::{Connection as Accepted, TlsFacts};
use hookward::net::http::{Serving, Shutdown, serve_http2};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::support::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, PING,
    PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
};
use super::support::{
    App, Gateway, RawH2, StreamEnd, World, config, config_with, data_path, eventually, loaded,
    open_route,
};

const METHOD: (&str, &[u8]) = (":method", b"POST");
const SCHEME: (&str, &[u8]) = (":scheme", b"https");
const AUTHORITY: (&str, &[u8]) = (":authority", b"localhost");
/// Nothing answers there: the app stays out of it.
const PATH: (&str, &[u8]) = (":path", b"/nowhere");
const REQUEST: [(&str, &[u8]); 4] = [METHOD, SCHEME, AUTHORITY, PATH];
/// One that is not answered before its body has come.
const AWAITED: [(&str, &[u8]); 4] = [METHOD, SCHEME, AUTHORITY, (":path", b"/open")];

/// `:method: POST`, `:scheme: https`, `:path: /nowhere`, `:authority: localhost`.
fn block() -> Vec<u8> {
    [
        &[0x83, 0x87, 0x44, 8][..],
        b"/nowhere",
        &[0x41, 9],
        b"localhost",
    ]
    .concat()
}

/// Whose error it is.
#[derive(Clone, Copy, Debug)]
enum Error {
    /// The connection's (RFC 9113 5.4.1).
    Connection,
    /// The stream's; the connection may be given up for it (5.4.2).
    Stream,
    /// The request's: the stream's, or a 400.
    Request,
}

const PROTOCOL: u32 = 1;
const REFUSED_STREAM: u32 = 7;

use Error::{Connection, Request, Stream};

type Case = (&'static str, Error, fn(&mut RawH2));

/// Does each on a connection of its own, and sees how it ends. Which error it is called is h2's choice,
/// as long as it is one.
fn all(cases: &[Case]) {
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for (name, error, act) in cases {
        let mut raw = RawH2::open(gateway.address("https"));
        act(&mut raw);
        let end = match error {
            Connection | Stream => raw.error(),
            Request => raw.end_of(1),
        };
        let is_due = match (error, &end) {
            (_, StreamEnd::GoAway(code)) | (Stream | Request, StreamEnd::Reset(code)) => *code != 0,
            (Request, StreamEnd::Status(400)) | (_, StreamEnd::Closed) => true,
            (_, StreamEnd::Status(_)) | (Connection, StreamEnd::Reset(_)) => false,
        };
        assert!(is_due, "{name}: {end:?}");
        if matches!(end, StreamEnd::Reset(_) | StreamEnd::Status(_)) {
            // Its neighbours are none the worse for it.
            raw.headers(101, END_STREAM, &REQUEST);
            assert_eq!(raw.end_of(101), StreamEnd::Status(404), "{name}");
        }
    }
    app.saw_nothing();
    assert_eq!(
        gateway.h2().exchange("POST", "/open", &[], b"x").status,
        200
    );
}

#[test]
fn only_a_preface_begins_a_connection() {
    // SECURITY H2-01: after ALPN chose h2 there is no way back to HTTP/1.1
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for bytes in [
        &b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"[..],
        b"GET /open HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"INVALID CONNECTION PREFACE\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\t",
        b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n",
    ] {
        let mut raw = RawH2::silent(gateway.address("https"));
        raw.send(bytes);
        let answer = raw.rest();
        assert!(
            !answer.starts_with(b"HTTP/1"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    app.saw_nothing();
}

#[test]
fn what_is_not_known_is_passed_over() {
    // RFC 9113 4.1, 5.5, 6.5.2
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut raw = RawH2::open(gateway.address("https"));
    raw.frame(0xbe, 0xff, 0, b"an extension");
    raw.frame(SETTINGS, 0, 0, &[0xff, 0xfe, 0, 0, 0, 1]);
    raw.frame(PING, 0xfe, 0, b"12345678");
    raw.frame(PRIORITY, 0, 9, &[0, 0, 0, 1, 255]);
    raw.headers(1, 0xf2 & !PADDED & !0x20, &REQUEST[..3]);
    assert_eq!(raw.error(), StreamEnd::Reset(PROTOCOL), "it has no path");
    raw.headers(
        3,
        END_STREAM | 0x40,
        &[METHOD, SCHEME, AUTHORITY, (":path", b"/open")],
    );
    assert_eq!(raw.end_of(3), StreamEnd::Status(200));
}

#[test]
fn frame_sizes() {
    // RFC 9113 4.2
    all(&[
        ("a DATA of 16385", Connection, |raw| {
            raw.headers(1, 0, &REQUEST);
            raw.frame(DATA, END_STREAM, 1, &vec![0; 16_385]);
        }),
        ("a HEADERS of 16385", Connection, |raw| {
            raw.frame(HEADERS, END_HEADERS, 1, &vec![0; 16_385]);
        }),
        ("a short PRIORITY", Stream, |raw| {
            raw.headers(1, 0, &REQUEST);
            raw.frame(PRIORITY, 0, 1, &[0; 4]);
        }),
        ("a short RST_STREAM", Connection, |raw| {
            raw.headers(1, 0, &REQUEST);
            raw.frame(RST_STREAM, 0, 1, &[0; 3]);
        }),
        ("a SETTINGS of 3", Connection, |raw| {
            raw.frame(SETTINGS, 0, 0, &[0, 3, 0]);
        }),
        ("an acknowledgement that says more", Connection, |raw| {
            raw.frame(SETTINGS, ACK, 0, &[0; 6]);
        }),
        ("a PING of 6", Connection, |raw| {
            raw.frame(PING, 0, 0, &[0; 6]);
        }),
        ("a WINDOW_UPDATE of 3", Connection, |raw| {
            raw.frame(WINDOW_UPDATE, 0, 0, &[0; 3]);
        }),
    ]);
}

#[test]
fn stream_states() {
    // RFC 9113 5.1, 5.1.1
    all(&[
        ("DATA of an idle stream", Connection, |raw| {
            raw.frame(DATA, END_STREAM, 1, b"x");
        }),
        ("a reset of an idle stream", Connection, |raw| {
            raw.frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
        }),
        ("a window of an idle stream", Connection, |raw| {
            raw.frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
        }),
        ("CONTINUATION of an idle stream", Connection, |raw| {
            raw.frame(CONTINUATION, END_HEADERS, 1, &block());
        }),
        ("DATA after the end", Stream, |raw| {
            raw.headers(1, END_STREAM, &REQUEST);
            raw.frame(DATA, END_STREAM, 1, b"x");
        }),
        ("HEADERS after the end", Stream, |raw| {
            raw.headers(1, END_STREAM, &REQUEST);
            raw.headers(1, END_STREAM, &REQUEST);
        }),
        ("CONTINUATION after the end", Connection, |raw| {
            raw.headers(1, END_STREAM, &REQUEST);
            raw.frame(CONTINUATION, END_HEADERS, 1, &block());
        }),
        ("HEADERS after a reset", Stream, |raw| {
            raw.headers(1, 0, &REQUEST);
            raw.frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
            raw.headers(1, END_STREAM, &REQUEST);
        }),
        ("an even stream", Connection, |raw| {
            raw.headers(2, END_STREAM, &REQUEST);
        }),
        ("a stream that goes back", Connection, |raw| {
            raw.headers(5, END_STREAM, &REQUEST);
            raw.headers(3, END_STREAM, &REQUEST);
        }),
        ("an extension inside a header block", Connection, |raw| {
            raw.frame(HEADERS, 0, 1, &block()[..2]);
            raw.frame(0xbe, 0, 0, b"");
        }),
        ("DATA inside a header block", Connection, |raw| {
            raw.frame(HEADERS, 0, 1, &block()[..2]);
            raw.frame(DATA, 0, 1, b"x");
        }),
        ("CONTINUATION of another stream", Connection, |raw| {
            raw.frame(HEADERS, 0, 1, &block()[..2]);
            raw.frame(CONTINUATION, END_HEADERS, 3, &block()[2..]);
        }),
        ("a second HEADERS that ends nothing", Stream, |raw| {
            raw.headers(1, 0, &REQUEST);
            raw.headers(1, 0, &[("x-trailer", b"a")]);
        }),
    ]);
}

#[test]
fn frames_where_they_do_not_belong() {
    // RFC 9113 6
    all(&[
        ("DATA of no stream", Connection, |raw| {
            raw.frame(DATA, 0, 0, b"x");
        }),
        ("DATA with too much padding", Connection, |raw| {
            raw.headers(1, 0, &REQUEST);
            raw.frame(DATA, PADDED, 1, &[6, 0, 0, 0]);
        }),
        ("HEADERS of no stream", Connection, |raw| {
            raw.frame(HEADERS, END_HEADERS | END_STREAM, 0, &block());
        }),
        ("HEADERS with too much padding", Connection, |raw| {
            let padded = [&[200][..], &block()].concat();
            raw.frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &padded);
        }),
        ("PRIORITY of no stream", Connection, |raw| {
            raw.frame(PRIORITY, 0, 0, &[0; 5]);
        }),
        ("RST_STREAM of no stream", Connection, |raw| {
            raw.frame(RST_STREAM, 0, 0, &[0; 4]);
        }),
        ("SETTINGS of a stream", Connection, |raw| {
            raw.frame(SETTINGS, 0, 1, &[]);
        }),
        ("ENABLE_PUSH of 2", Connection, |raw| {
            raw.frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]);
        }),
        ("a window of 2^31", Connection, |raw| {
            raw.frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]);
        }),
        ("MAX_FRAME_SIZE of 16383", Connection, |raw| {
            raw.frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]);
        }),
        ("MAX_FRAME_SIZE of 2^24", Connection, |raw| {
            raw.frame(SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0]);
        }),
        ("PUSH_PROMISE of a client", Connection, |raw| {
            raw.headers(1, 0, &REQUEST);
            let promise = [&[0, 0, 0, 2][..], &block()].concat();
            raw.frame(PUSH_PROMISE, END_HEADERS, 1, &promise);
        }),
        ("PING of a stream", Connection, |raw| {
            raw.frame(PING, 0, 1, &[0; 8]);
        }),
        ("GOAWAY of a stream", Connection, |raw| {
            raw.frame(GOAWAY, 0, 1, &[0; 8]);
        }),
        ("a window opened by 0", Connection, |raw| {
            raw.frame(WINDOW_UPDATE, 0, 0, &[0; 4]);
        }),
        ("a stream's window opened by 0", Stream, |raw| {
            raw.headers(1, 0, &AWAITED);
            raw.frame(WINDOW_UPDATE, 0, 1, &[0; 4]);
        }),
        ("a window above 2^31", Connection, |raw| {
            raw.frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]);
        }),
        ("a stream's window above 2^31", Stream, |raw| {
            raw.headers(1, 0, &AWAITED);
            raw.frame(WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255]);
        }),
    ]);
}

#[test]
fn header_lists_that_make_no_request() {
    // RFC 9113 8.2, 8.3, 8.1.1
    all(&[
        ("no method", Request, |raw| {
            raw.headers(1, END_STREAM, &[SCHEME, AUTHORITY, PATH]);
        }),
        ("no scheme", Request, |raw| {
            raw.headers(1, END_STREAM, &[METHOD, AUTHORITY, PATH]);
        }),
        ("no path", Request, |raw| {
            raw.headers(1, END_STREAM, &[METHOD, SCHEME, AUTHORITY]);
        }),
        ("an empty path", Request, |raw| {
            raw.headers(1, END_STREAM, &[METHOD, SCHEME, AUTHORITY, (":path", b"")]);
        }),
        ("two methods", Request, |raw| {
            raw.headers(1, END_STREAM, &[METHOD, METHOD, SCHEME, AUTHORITY, PATH]);
        }),
        ("two schemes", Request, |raw| {
            raw.headers(1, END_STREAM, &[METHOD, SCHEME, SCHEME, AUTHORITY, PATH]);
        }),
        ("two paths", Request, |raw| {
            raw.headers(1, END_STREAM, &[METHOD, SCHEME, AUTHORITY, PATH, PATH]);
        }),
        ("a pseudo field after a field", Request, |raw| {
            raw.headers(
                1,
                END_STREAM,
                &[METHOD, SCHEME, AUTHORITY, ("x-a", b"b"), PATH],
            );
        }),
        ("a status", Request, |raw| {
            let fields = [METHOD, SCHEME, AUTHORITY, PATH, (":status", b"200")];
            raw.headers(1, END_STREAM, &fields);
        }),
        ("a longer content-length", Request, |raw| {
            raw.post(1, b"/open", &[("content-length", b"4")], b"abc");
        }),
        ("a shorter content-length", Request, |raw| {
            raw.post(1, b"/open", &[("content-length", b"2")], b"abc");
        }),
        ("a content-length and no body", Request, |raw| {
            let fields = [METHOD, SCHEME, AUTHORITY, PATH, ("content-length", b"3")];
            raw.headers(1, END_STREAM, &fields);
        }),
    ]);
}

#[test]
fn header_blocks_that_do_not_decode() {
    // SECURITY H2-21, RFC 7541 2.3.3, 4.2, 5.2, 6.1, 6.3
    fn with(raw: &mut RawH2, more: &[u8]) {
        let block = [&block()[..], more].concat();
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    }
    all(&[
        ("index 0", Connection, |raw| with(raw, &[0x80])),
        ("an index beyond the table", Connection, |raw| {
            with(raw, &[0xc6]);
        }),
        ("a name beyond the table", Connection, |raw| {
            with(raw, &[0x7f, 0x80, 0x01, 1, b'a']);
        }),
        ("an endless number", Connection, |raw| {
            with(raw, &[0xff; 12]);
        }),
        ("a table above the limit", Connection, |raw| {
            let update = [0x3f, 0xe2, 0x1f]; // 4097
            let block = [&update[..], &block()].concat();
            raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
        }),
        ("a table of 4 GiB", Connection, |raw| {
            let update = [0x3f, 0xe0, 0xff, 0xff, 0xff, 0x0f];
            let block = [&update[..], &block()].concat();
            raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
        }),
        ("a table size at the end", Connection, |raw| {
            with(raw, &[0x20]);
        }),
        ("the end of Huffman's string", Connection, |raw| {
            with(raw, &[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'a']);
        }),
        ("a block that is cut off", Connection, |raw| {
            with(raw, &[0x00, 5, b'x']);
        }),
    ]);
}

#[test]
fn more_streams_than_offered_are_refused() {
    // RFC 9113 5.1.2
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut raw = RawH2::open(gateway.address("https"));
    let open = [METHOD, SCHEME, AUTHORITY, (":path", &b"/open"[..])];
    for n in 0..70 {
        raw.headers(2 * n + 1, 0, &open);
    }
    for _ in 64..70 {
        assert_eq!(raw.error(), StreamEnd::Reset(REFUSED_STREAM));
    }
    for n in 0..64 {
        raw.frame(DATA, END_STREAM, 2 * n + 1, b"x");
    }
    for _ in 0..64 {
        assert_eq!(gateway.event()["status"], 200);
    }
    assert_eq!(app.count(), 64);
}

/// Memory in KiB that is taken now.
fn memory(gateway: &Gateway) -> u64 {
    gateway.size("VmRSS")
}

/// Memory in KiB that was taken when it was most.
fn memory_at_most(gateway: &Gateway) -> u64 {
    gateway.size("VmHWM")
}

#[test]
fn a_header_block_that_unpacks_to_megabytes_is_not_unpacked() {
    // SECURITY H2-09: one field of 3.9 KB in the table, and 3,000 bytes that each mean it.
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let value = vec![b'v'; 3900];
    let entry = [&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d][..], &value].concat();
    let with = |references: usize| [&block()[..], &entry, &vec![0xbe; references]].concat();
    let end = |references: usize| {
        let mut raw = RawH2::open(gateway.address("https"));
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &with(references));
        raw.end_of(1)
    };
    for _ in 0..20 {
        assert_eq!(end(2), StreamEnd::Status(404), "two of them are none");
    }
    let before = memory_at_most(&gateway);
    for _ in 0..20 {
        let end = end(3000);
        assert!(matches!(end, StreamEnd::GoAway(_)), "{end:?}");
    }
    let grown = memory_at_most(&gateway).saturating_sub(before);
    assert!(
        grown < 6 * 1024,
        "{grown} KiB more of the 11,700 that it means"
    );
    // What h2 answers itself is counted as what it is.
    assert_eq!(end(30), StreamEnd::Status(431));
    gateway.wait_for_requests("_none", "rejected", "header_too_large", 1);
    app.saw_nothing();
}

#[test]
fn resets_that_a_client_provokes_end_the_connection() {
    // SECURITY H2-07: requests that are given up by us, for an error of the client's, cost no less.
    type Provocation<'a> = (&'a str, &'a [(&'a str, &'a [u8])], fn(&mut RawH2, u32));
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let open = [METHOD, SCHEME, AUTHORITY, (":path", &b"/open"[..])];
    let sized = [&open[..], &[("content-length", b"1")]].concat();
    let provocations: [Provocation<'_>; 4] = [
        ("a window of nothing", &open, |raw, stream| {
            raw.frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
        }),
        ("a window above all", &open, |raw, stream| {
            raw.frame(WINDOW_UPDATE, 0, stream, &[0x7f, 255, 255, 255]);
        }),
        ("a priority of itself", &open, |raw, stream| {
            let itself = [&stream.to_be_bytes()[..], &[1]].concat();
            raw.frame(PRIORITY, 0, stream, &itself);
        }),
        ("more than the length", &sized, |raw, stream| {
            raw.frame(DATA, 0, stream, b"abc");
        }),
    ];
    for (name, fields, provoke) in provocations {
        let mut raw = RawH2::open(gateway.address("https"));
        for n in 0..1000 {
            raw.headers(2 * n + 1, 0, fields);
            provoke(&mut raw, 2 * n + 1);
        }
        let end = raw.end_of(u32::MAX);
        assert!(
            matches!(end, StreamEnd::GoAway(_) | StreamEnd::Closed),
            "{name}: {end:?}"
        );
        eventually("nothing is left", || {
            (gateway.metric("hookward_requests_in_flight", &[]) == Some(0)).then_some(())
        });
    }
    let begun = gateway.requests("open", "rejected", "body_incomplete");
    assert!(begun < 4 * 600, "{begun} requests of 4,000 were begun");
    app.saw_nothing();
    assert_eq!(
        gateway.h2().exchange("POST", "/open", &[], b"x").status,
        200
    );
}

#[test]
fn frames_that_ask_for_no_work_end_the_connection() {
    // SECURITY H2-12
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut neighbour = gateway.h2();
    assert_eq!(neighbour.exchange("POST", "/open", &[], b"x").status, 200);
    let before = memory(&gateway);
    let floods: [(&str, u8, u32, &[u8]); 7] = [
        ("PING", PING, 0, &[0; 8]),
        ("SETTINGS", SETTINGS, 0, &[]),
        ("SETTINGS with values", SETTINGS, 0, &[0, 3, 0, 0, 0, 100]),
        ("PRIORITY", PRIORITY, 1, &[0, 0, 0, 0, 1]),
        ("WINDOW_UPDATE", WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        ("an unknown frame", 0xbe, 0, &[]),
        ("empty DATA", DATA, 1, &[]),
    ];
    for (name, kind, stream, payload) in floods {
        let mut raw = RawH2::open(gateway.address("https"));
        raw.headers(1, 0, &[METHOD, SCHEME, AUTHORITY, (":path", b"/open")]);
        let many = frame(kind, 0, stream, payload).repeat(100);
        for _ in 0..100 {
            raw.send(&many);
        }
        let end = raw.error();
        assert!(
            matches!(end, StreamEnd::GoAway(11) | StreamEnd::Closed),
            "{name}: {end:?}"
        );
        assert_eq!(
            neighbour.exchange("POST", "/open", &[], b"x").status,
            200,
            "{name}"
        );
    }
    gateway.wait_for_requests("_none", "rejected", "malformed_request", 7);
    eventually("its connections are closed", || {
        (gateway.metric("hookward_connections", &[]) == Some(1)).then_some(())
    });
    let grown = memory(&gateway).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

#[test]
fn frames_that_go_with_work_are_welcome() {
    // SECURITY H2-12: nobody who opens windows for a large answer is taken for a flood
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let length = 16 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let large = [head.as_bytes(), &vec![b'x'; length]].concat();
    app.script([super::support::Reply::Raw(large)]);
    let mut raw = RawH2::open(gateway.address("https"));
    raw.post(1, b"/open", &[], b"x");
    let (mut received, mut opened) = (0, 0);
    while received < length {
        let frame = raw.next().expect("the answer goes on");
        assert_ne!(frame.kind, RST_STREAM);
        if frame.kind != DATA || frame.payload.is_empty() {
            continue;
        }
        received += frame.payload.len();
        // Both windows, in two parts each, as careless clients do it.
        let size = u32::try_from(frame.payload.len()).unwrap();
        let parts = [(0, 1), (1, 1), (0, size), (1, size)];
        for (stream, part) in parts.into_iter().filter(|_| received < length) {
            raw.frame(WINDOW_UPDATE, 0, stream, &part.to_be_bytes());
            opened += 1;
        }
    }
    assert!(opened > 2000, "{opened}");
    // Many requests on one connection, each with its priority, its window and its reset.
    for n in 1..1000 {
        let stream = 2 * n + 1;
        raw.post(stream, b"/nowhere", &[], b"x");
        raw.frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]);
        raw.frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]);
        let ends = |frame: &Frame| frame.stream == stream && frame.flags & END_STREAM != 0;
        let mut frames = std::iter::from_fn(|| raw.next());
        assert_eq!(frames.find(ends).expect("an answer").kind, DATA);
    }
    assert_eq!(
        gateway.requests("_none", "rejected", "malformed_request"),
        0
    );
}

#[test]
fn header_lists_above_the_limit_are_431_and_counted() {
    // SECURITY H2-10
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut raw = RawH2::open(gateway.address("https"));
    let mut ask = |stream: u32, count: usize, size: usize| {
        let value = vec![b'v'; size];
        let mut fields = vec![METHOD, SCHEME, AUTHORITY, (":path", &b"/open"[..])];
        fields.extend((0..count).map(|_| ("x-a", &value[..])));
        raw.headers(stream, END_STREAM, &fields);
        raw.end_of(stream)
    };
    assert_eq!(ask(1, 1, 15_000), StreamEnd::Status(200));
    assert_eq!(ask(3, 1000, 10), StreamEnd::Status(431));
    // The connection is kept: the next one is served.
    assert_eq!(ask(5, 600, 1), StreamEnd::Status(200));
    assert_eq!(app.count(), 2);
    assert_eq!(gateway.requests("_none", "rejected", "header_too_large"), 1);
    for (status, reason) in [(200, None), (431, Some("header_too_large")), (200, None)] {
        let event = gateway.event();
        assert_eq!(
            (event["status"].as_u64(), event["reason"].as_str()),
            (Some(status), reason)
        );
    }
    // Requests that h2 itself takes for none are counted as well, and each once.
    raw.headers(9, END_STREAM, &[METHOD, SCHEME, AUTHORITY]);
    assert_eq!(raw.end_of(9), StreamEnd::Reset(PROTOCOL));
    raw.post(11, b"/open", &[("content-length", b"9")], b"x");
    assert_eq!(raw.end_of(11), StreamEnd::Reset(PROTOCOL));
    raw.frame(PING, 0, 1, &[0; 8]);
    assert_eq!(raw.error(), StreamEnd::GoAway(PROTOCOL));
    gateway.wait_for_requests("_none", "rejected", "malformed_request", 2);
    gateway.wait_for_requests("open", "rejected", "body_incomplete", 1);
    assert_eq!(
        gateway.requests("_none", "rejected", "malformed_request"),
        2
    );
}

#[test]
fn a_client_with_a_huge_table_costs_no_memory() {
    // SECURITY H2-21
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut raw = RawH2::open(gateway.address("https"));
    raw.frame(SETTINGS, 0, 0, &[0, 1, 255, 255, 255, 255]);
    let before = memory(&gateway);
    for n in 0..200 {
        raw.post(2 * n + 1, b"/open", &[], b"x");
        assert!(raw.is_answered(2 * n + 1));
    }
    let grown = memory(&gateway).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    assert_eq!(app.count(), 200);
}

/// Serves HTTP/2 on one end of a pipe, without a route, with these limits.
fn serve(limits: &str) -> DuplexStream {
    let config = loaded(&config_with(limits, "  []\n"), &Environment::empty());
    let limits = config.limits.clone();
    let (gateway, _) = data_path(config, World::default());
    let tls = TlsFacts {
        certificate: None,
        client: None,
    };
    let peer = "192.0.2.1:5000".parse().unwrap();
    let connection = Accepted::new(peer, "https".into(), Some(tls));
    let serving = Serving {
        connection,
        gateway: Arc::new(gateway),
        challenges: None,
    };
    let (client, server) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        serve_http2(server, serving, limits, Shutdown::default()).await;
    });
    client
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_pings_is_dead() {
    // SECURITY H2-17
    let mut client = serve("limits: { idle_timeout: 1h }");
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block());
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &request].concat();
    client.write_all(&hello).await.unwrap();
    let start = Instant::now();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    let waited = start.elapsed().as_secs();
    assert!((30..60).contains(&waited), "{waited} s");
    let ping = &frame(PING, 0, 0, &[0; 8])[..9];
    assert!(bytes.windows(9).any(|run| run == ping), "it was asked");
}
