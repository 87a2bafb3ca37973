//! Apps that fail: in every way they do.

use std::io::{BufRead, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::support::{
    App, Gateway, Redis, Reply, SECRET, config, config_with, eventually, numbered_fields,
    open_route, pause,
};

fn start(app: &App) -> Gateway {
    start_within(app, "500ms")
}

/// A route whose app has this long to answer.
fn start_within(app: &App, timeout: &str) -> Gateway {
    let routes = format!(
        "  - name: open
    match: {{ path: /open, methods: [POST, GET, HEAD] }}
    verify: none
    forward: {{ timeout: {timeout} }}
    upstream: \"{}\"
",
        app.url()
    );
    Gateway::start(&config(&routes))
}

#[test]
fn an_app_that_is_not_there_is_unreachable() {
    // SECURITY U-01, U-22, L-10
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let routes = format!(
        "  - name: refused
    match: {{ path: /refused }}
    verify: none
    upstream: \"http://{dead}\"
  - name: nameless
    match: {{ path: /nameless }}
    verify: none
    upstream: \"http://no-such-host.invalid:80\"
"
    );
    let gateway = Gateway::start(&config(&routes));
    for path in ["/refused", "/nameless"] {
        let answer = gateway.post(path, &[], b"x");
        let event = gateway.refused(&answer, 502, "upstream_unreachable");
        assert_eq!(event["upstream_status"], serde_json::Value::Null);
        let text = format!("{:?}{}", answer.headers, answer.text());
        assert!(!text.contains("no-such-host") && !text.contains(&dead.to_string()));
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!(
        gateway.requests("refused", "rejected", "upstream_unreachable"),
        1
    );
    // The operator learns which, and is not flooded (SECURITY L-10).
    for _ in 0..5 {
        gateway.post("/refused", &[], b"x");
    }
    eventually("a word in the log", || {
        gateway.stderr().contains(&dead.to_string()).then_some(())
    });
    let failed = "a delivery failed";
    assert_eq!(
        gateway.stderr().matches(failed).count(),
        2,
        "one of each route"
    );
}

#[test]
fn that_an_app_is_back_is_said_once() {
    // SECURITY L-10
    let routes =
        "  - { name: in, match: { path: /in }, verify: none, upstream: \"unix:DIR/app.sock\" }\n";
    let gateway = Gateway::start(&config(routes));
    assert_eq!(gateway.post("/in", &[], b"x").status, 502);
    let _app = App::on_unix(&gateway.dir().join("app.sock"));
    for _ in 0..3 {
        assert_eq!(gateway.post("/in", &[], b"x").status, 200);
    }
    let again = "server answers again";
    eventually("a word in the log", || {
        gateway.stderr().contains(again).then_some(())
    });
    assert_eq!(gateway.stderr().matches(again).count(), 1);
}

#[test]
fn an_app_that_never_accepts_is_given_up_at_connect_timeout() {
    // SECURITY U-02
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(
        &"127.0.0.1:0"
            .parse::<std::net::SocketAddr>()
            .unwrap()
            .into(),
    )
    .unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    // The backlog is full once connections stay pending.
    let fillers: Vec<_> = (0..4)
        .map(|_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            drop(socket.connect(&address.into()));
            socket
        })
        .collect();
    let more = format!(
        "upstreams: {{ full: {{ servers: [\"http://{address}\"], connect_timeout: 300ms, timeout: 5s }} }}"
    );
    let routes = "  - { name: full, match: { path: /full }, verify: none, upstream: full }\n";
    let gateway = Gateway::start(&config_with(&more, routes));
    let start = Instant::now();
    let answer = gateway.post("/full", &[], b"x");
    let reason = gateway.event()["reason"].as_str().unwrap().to_owned();
    assert!(
        matches!(
            (answer.status, reason.as_str()),
            (502, "upstream_unreachable") | (504, "upstream_timeout")
        ),
        "{reason}"
    );
    assert!(
        (250..4000).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
    drop(fillers);
}

#[test]
fn an_app_that_breaks_off_has_aborted_and_is_not_asked_again() {
    // SECURITY U-03, U-04, U-10
    let app = App::start();
    let gateway = start(&app);
    let replies = [
        Reply::RawThenClose(Vec::new()),
        Reply::RawThenReset(Vec::new()),
        Reply::RawThenClose(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        Reply::RawThenReset(b"HTTP/1.1 200 OK\r\nX-A: ".to_vec()),
    ];
    for (number, reply) in replies.into_iter().enumerate() {
        app.script([reply]);
        gateway.refused(&gateway.post("/open", &[], b"x"), 502, "upstream_aborted");
        assert_eq!(app.count(), number + 1, "sent once");
    }
    gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
}

#[test]
fn a_cut_answer_never_looks_whole() {
    // SECURITY U-04, U-06
    let app = App::start();
    let gateway = start(&app);
    let begun = [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
    ];
    let mut ids = Vec::new();
    for begun in begun {
        for end in [
            Reply::RawThenClose,
            Reply::RawThenReset,
            Reply::RawThenSilence,
        ] {
            app.script([end(begun.as_bytes().to_vec())]);
            let mut wire = gateway.tls();
            wire.write("POST", "/open", &[], b"x");
            // The sender sees what there was.
            let (status, _) = wire.head().unwrap();
            assert_eq!(status, 200, "{begun:?}");
            let rest = wire.rest();
            assert!(
                rest.len() < 100 && !rest.ends_with(b"0\r\n\r\n"),
                "{begun:?}"
            );
            let event = gateway.event();
            assert_eq!(event["upstream_status"], 200);
            ids.push(event["request_id"].as_str().unwrap().to_owned());
        }
    }
    gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
    // The access events stand for the heads; that the rest is missing is told beside them, once in 10 s.
    let broken = "hookward_upstream_answers_broken_total";
    assert_eq!(gateway.metric(broken, &[("route", "open")]), Some(6));
    let told: Vec<String> = gateway.stderr().lines().map(str::to_owned).collect();
    let told: Vec<_> = told
        .iter()
        .filter(|line| line.contains("broke off its answer"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(&ids[0]) && told[0].contains(&app.url()),
        "{told:?}"
    );
}

#[test]
fn a_cut_answer_that_only_the_end_of_the_connection_ends_is_reset() {
    // SECURITY U-04: HTTP/1.0 has no chunks
    let app = App::start();
    let gateway = start(&app);
    let read = |reply| {
        app.script([reply]);
        let mut stream = TcpStream::connect(gateway.address("http")).unwrap();
        let request = b"POST /open HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let end = stream
            .read_to_end(&mut answer)
            .map_err(|error| error.kind());
        (end.err(), String::from_utf8(answer).unwrap())
    };
    let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";
    let (end, answer) = read(Reply::raw(&format!("{begun}0\r\n\r\n")));
    assert!(answer.ends_with("\r\n\r\nbegun"), "{answer}");
    assert_eq!(end, None, "whole");
    for cut in [
        Reply::RawThenClose,
        Reply::RawThenReset,
        Reply::RawThenSilence,
    ] {
        let (end, _) = read(cut(begun.as_bytes().to_vec()));
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
    }
}

#[test]
fn an_app_that_is_too_slow_has_timed_out() {
    // SECURITY U-05, U-12
    let app = App::start();
    let gateway = start(&app);
    let mut interim = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    interim.extend(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(3));
    for reply in [
        Reply::Silence,
        Reply::RawThenSilence(b"HTTP/1.1 200 OK\r\nX-A:".to_vec()),
        Reply::RawThenSilence(interim),
    ] {
        app.script([reply]);
        let start = Instant::now();
        let answer = gateway.post("/open", &[], b"x");
        gateway.refused(&answer, 504, "upstream_timeout");
        assert!(
            (450..4000).contains(&start.elapsed().as_millis()),
            "{:?}",
            start.elapsed()
        );
    }
    let labels = [("route", "open"), ("code", "none")];
    assert_eq!(
        gateway.metric("hookward_upstream_requests_total", &labels),
        Some(3)
    );
    gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
}

#[test]
fn the_timeout_runs_for_each_wait_and_not_for_the_whole() {
    let app = App::start();
    let gateway = start_within(&app, "700ms");
    app.script([Reply::AroundGate(
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun".to_vec(),
        b"ended".to_vec(),
    )]);
    thread::scope(|scope| {
        let asked = scope.spawn(|| gateway.post("/open", &[], b"x"));
        app.wait_for(1);
        pause(Duration::from_millis(400));
        app.open_gate();
        assert_eq!(asked.join().unwrap().text(), "begunended");
    });
}

#[test]
fn interim_answers_are_passed_over() {
    // SECURITY U-12
    let app = App::start();
    let gateway = start(&app);
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let last = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok";
    app.script([Reply::raw(&format!("{interim}{last}"))]);
    let answer = gateway.post("/open", &[], b"x");
    gateway.forwarded(&answer, 201);
    assert_eq!(
        (answer.header("link"), answer.text().as_str()),
        (None, "ok")
    );
}

#[test]
fn what_is_no_http_is_invalid() {
    // SECURITY U-11, DS-32
    let app = App::start();
    let gateway = start(&app);
    let many = numbered_fields(std::iter::repeat_n("1".to_owned(), 200));
    for bad in [
        "garbage\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        &format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(200_000)),
    ] {
        app.script([Reply::RawThenClose(bad.as_bytes().to_vec())]);
        let before = app.count();
        let answer = gateway.post("/open", &[], b"x");
        let shown = &bad[..bad.len().min(60)];
        assert_eq!(answer.status, 502, "{shown:?}");
        gateway.refused(&answer, 502, "upstream_invalid");
        assert_eq!(app.count(), before + 1, "{shown:?} was asked again");
    }
    gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
}

#[test]
fn a_broken_connection_is_not_used_again() {
    // SECURITY U-08, U-11, U-13, U-14
    let app = App::start();
    let gateway = start(&app);
    let mut wire = gateway.tls();
    for (reply, body) in [
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            "ok",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            "ok",
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\npoison",
            "ok",
        ),
    ] {
        app.script([Reply::raw(reply)]);
        let answer = wire.exchange("POST", "/open", &[], b"x");
        assert_eq!(answer.text(), body, "{reply:?}");
        // The next request has its own answer.
        app.script([Reply::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh",
        )]);
        assert_eq!(
            wire.exchange("POST", "/open", &[], b"x").text(),
            "fresh",
            "after {reply:?}"
        );
    }
    app.script([Reply::RawThenClose(
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec(),
    )]);
    assert_eq!(
        wire.exchange("POST", "/open", &[], b"x").text(),
        "until the end"
    );
    app.script([Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")]);
    wire.write("HEAD", "/open", &[], b"");
    let answer = wire.answer_to("HEAD").unwrap();
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("5"))
    );
    assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
}

#[test]
fn a_kept_connection_that_the_app_closed_costs_no_delivery() {
    // SECURITY U-09, U-10
    let app = App::start();
    let gateway = start(&app);
    let mut wire = gateway.tls();
    for round in 1..=30 {
        // Keep-alive as far as anyone can tell, and yet it closes.
        app.script([Reply::RawThenClose(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        )]);
        let answer = wire.exchange("POST", "/open", &[], b"x");
        // A close that crosses the request on its way is the app's to answer for, and is not sent twice.
        assert!(matches!(answer.status, 200 | 502), "{}", answer.status);
        assert!(app.count() <= round);
    }
    assert!(app.count() >= 25, "{}", app.count());
}

#[test]
fn concurrent_answers_are_not_mixed_up() {
    // SECURITY U-21
    const LANES: usize = 8;
    const EACH: usize = 150;
    let app = App::start();
    app.mirror();
    let route = open_route(&app).replace("/open", "\"/e/{n}\"");
    let gateway = Gateway::start(&config(&route));
    thread::scope(|scope| {
        for lane in 0..LANES {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut wire = gateway.tls();
                for n in 0..EACH {
                    let path = format!("/e/{lane}-{n}");
                    // Small ones overtake large ones.
                    let body = format!("{lane}.{n}.").repeat(1 + (n * 7 + lane) % 40 * 50);
                    let answer = wire.exchange("POST", &path, &[], body.as_bytes());
                    assert!(answer.text() == format!("{path} {body}"), "{path}");
                }
            });
        }
    });
    assert_eq!(app.count(), LANES * EACH);
    // It was about connections to the app that several senders shared.
    assert!(app.connections() < app.count() / 4, "{}", app.connections());
}

#[test]
fn large_answers_are_streamed() {
    // SECURITY DS-32
    let app = App::start();
    let gateway = start_within(&app, "10s");
    let body = vec![b'z'; 8 << 20];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    app.script([Reply::Raw([head.as_bytes(), &body].concat())]);
    let answer = gateway.post("/open", &[], b"x");
    assert!(answer.status == 200 && answer.body == body);
    app.script([Reply::Raw([head.as_bytes(), &body].concat())]);
    let answer = gateway.h2().exchange("POST", "/open", &[], b"x");
    assert!(answer.status == 200 && answer.body == body);
}

/// An app that does this with each connection, its URL, and what it counts.
fn app_that(
    serves: impl Fn(TcpStream, &mpsc::Sender<u64>) + Clone + Send + 'static,
) -> (String, mpsc::Receiver<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // What it has not read is still with the gateway, and not with the kernel.
    let socket = socket2::SockRef::from(&listener);
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, counts) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (serves, sender) = (serves.clone(), sender.clone());
            thread::spawn(move || serves(stream, &sender));
        }
    });
    (format!("http://{address}"), counts)
}

/// An app that answers before it reads: what it says at once, and after the whole body. It counts the bytes of bodies
/// that it was sent, where it `reads` them at all.
fn early(first: &'static [u8], then: &'static [u8], reads: bool) -> (String, mpsc::Receiver<u64>) {
    app_that(move |mut stream, counts| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let length = body_length(&mut input);
        stream.write_all(first).unwrap();
        if !reads {
            counts.send(0).unwrap();
            thread::park();
        }
        let read = std::io::copy(&mut input.take(length), &mut std::io::sink());
        counts.send(read.unwrap()).unwrap();
        stream.write_all(then).unwrap();
    })
}

/// Reads a head, and how long it says the body is.
fn body_length(input: &mut impl BufRead) -> u64 {
    let lines = input.lines().map(Result::unwrap);
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let length = head
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.unwrap().parse().unwrap()
}

/// A gateway before an [`early`] app, and a delivery of 6 MB, more than sockets hold.
fn before_early(app: &str) -> (Gateway, Vec<u8>) {
    let gateway = Gateway::start(&config(&early_route(app)));
    (gateway, vec![b'x'; 6_000_000])
}

/// A route to an [`early`] app.
fn early_route(app: &str) -> String {
    format!(
        "  - name: github
    match: {{ path: /github }}
    verify: [{{ provider: github, secrets: [\"value:{SECRET}\"] }}]
    replay: {{ window: 10m }}
    upstream: \"{app}\"
"
    )
}

#[test]
fn an_app_that_answers_first_still_gets_all_of_a_delivery() {
    // SECURITY U-07: nor does one wait for the other
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (first, then) in [(&head[..], &b"2\r\nok\r\n0\r\n\r\n"[..]), (whole, b"")] {
        let (app, counts) = early(first, then, true);
        let (gateway, body) = before_early(&app);
        let answer = gateway.post_github("/github", &body);
        assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
        assert_eq!(counts.recv().unwrap(), body.len() as u64);
        assert_eq!(gateway.event()["outcome"], "forwarded");
        gateway.post_github("/github", &body);
        assert_eq!(gateway.event()["outcome"], "duplicate");
    }
}

#[test]
fn an_app_that_answers_while_it_reads_gets_all_of_a_delivery() {
    // SECURITY U-07: neither waits for the other, and the delivery is one
    let (echoes, _counts) = app_that(|mut stream, _| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let length = body_length(&mut input);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        std::io::copy(&mut input.take(length), &mut stream).unwrap();
    });
    let (gateway, body) = before_early(&echoes);
    let answer = gateway.post_github("/github", &body);
    assert!(answer.status == 200 && answer.body == body);
    assert_eq!(gateway.event()["outcome"], "forwarded");
    gateway.post_github("/github", &body);
    assert_eq!(gateway.event()["outcome"], "duplicate");
}

#[test]
fn an_app_that_has_said_all_it_has_to_say_may_read_on() {
    // SECURITY U-07
    let (app, counts) = app_that(|mut stream, counts| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let length = body_length(&mut input);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let read = std::io::copy(&mut input.take(length), &mut std::io::sink());
        counts.send(read.unwrap()).unwrap();
    });
    let (gateway, body) = before_early(&app);
    let answer = gateway.post_github("/github", &body);
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    assert_eq!(counts.recv().unwrap(), body.len() as u64);
}

/// An app that says yes at once and then reads, a part after each wait; it tells how much it has got.
fn slow_reader(part_bytes: u64, wait: Duration) -> (String, mpsc::Receiver<u64>) {
    app_that(move |mut stream, counts| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let mut left = body_length(&mut input);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
        let mut read = 0;
        while left > 0 {
            pause(wait);
            let mut part = input.by_ref().take(left.min(part_bytes));
            let more = std::io::copy(&mut part, &mut std::io::sink()).unwrap();
            if more == 0 {
                break;
            }
            left -= more;
            read += more;
        }
        counts.send(read).unwrap();
    })
}

/// SECURITY U-07: the lease is 6.1 s, 7.1 s in Redis, and the app reads for 9 s.
fn is_not_forwarded_again_while_it_is_read(state: &str) {
    let (app, counts) = slow_reader(130_000, Duration::from_millis(200));
    let routes = format!(
        "{}    forward: {{ timeout: 1s }}\nupstreams:\n  app: {{ servers: [{app}], connect_timeout: 100ms }}\n",
        early_route("app")
    );
    let gateway = Gateway::start(&config_with(state, &routes));
    let body = vec![b'x'; 6_000_000];
    thread::scope(|scope| {
        let first = scope.spawn(|| gateway.post_github("/github", &body));
        pause(Duration::from_millis(7_500));
        let again = gateway.post_github("/github", &body);
        assert_eq!(again.status, 409, "{}", again.text());
        assert_eq!(first.join().unwrap().status, 200);
    });
    assert_eq!(counts.recv().unwrap(), body.len() as u64);
    assert_eq!(gateway.post_github("/github", &body).status, 200);
    assert!(counts.try_recv().is_err(), "a duplicate");
}

#[test]
fn a_delivery_that_is_read_for_longer_than_its_lease_is_not_forwarded_again() {
    is_not_forwarded_again_while_it_is_read("");
}

#[test]
fn nor_is_it_where_redis_has_the_lease() {
    let redis = Redis::start();
    let url = redis.url();
    is_not_forwarded_again_while_it_is_read(&format!(
        "state: {{ store: redis, redis: {{ url: \"value:{url}\", timeout: 250ms }} }}"
    ));
}

#[test]
fn an_app_that_has_said_yes_may_read_for_longer_than_an_answer_may_take() {
    // SECURITY U-07: some three seconds in all
    let (app, counts) = slow_reader(100_000, Duration::from_millis(50));
    let routes = format!("{}    forward: {{ timeout: 1s }}\n", early_route(&app));
    let (gateway, body) = (Gateway::start(&config(&routes)), vec![b'x'; 6_000_000]);
    let answer = gateway.post_github("/github", &body);
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    assert_eq!(counts.recv().unwrap(), body.len() as u64);
    gateway.post_github("/github", &body);
    assert_eq!(gateway.event()["outcome"], "forwarded");
    assert_eq!(gateway.event()["outcome"], "duplicate");
}

#[test]
fn a_yes_to_half_of_a_delivery_swallows_no_other_attempt() {
    // SECURITY U-07
    let (app, counts) = early(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"",
        false,
    );
    let (gateway, body) = before_early(&app);
    for _ in 0..2 {
        assert_eq!(gateway.post_github("/github", &body).status, 200);
        assert_eq!(gateway.event()["outcome"], "forwarded");
        counts.recv().unwrap();
    }
    // Once in 10 s.
    let told = gateway.stderr();
    let told: Vec<_> = told.matches("had read all of a delivery").collect();
    assert_eq!(told.len(), 1);
}

#[test]
fn an_app_that_refuses_first_is_not_kept_waiting() {
    // SECURITY U-07
    let (app, _) = early(
        b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno",
        b"",
        false,
    );
    let (gateway, body) = before_early(&app);
    let answer = gateway.post_github("/github", &body);
    assert_eq!((answer.status, answer.text()), (413, "no".to_owned()));
}

#[test]
fn a_health_check_takes_its_answer_to_the_end() {
    // SECURITY U-17
    let (app, heads) = app_that(|mut stream, heads| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while input.read_line(&mut head).unwrap() > 2 {}
        let agent = format!("user-agent: hookward/{} (", env!("CARGO_PKG_VERSION"));
        let is_told = head.contains("connection: close\r\n") && head.contains(&agent);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n").unwrap();
        for _ in 0..2 {
            pause(Duration::from_millis(50));
            stream.write_all(&vec![b'x'; 20_000]).unwrap();
        }
        let is_whole = matches!(input.read(&mut [0]), Ok(0));
        heads.send(u64::from(is_told && is_whole)).unwrap();
    });
    let upstreams = format!(
        "upstreams: {{ app: {{ servers: [\"{app}\"], health: {{ path: /healthz, interval: 1s }} }} }}"
    );
    let routes = "  - { name: app, match: { path: /app }, verify: none, upstream: app }\n";
    let _gateway = Gateway::start(&config_with(&upstreams, routes));
    assert_eq!(heads.recv_timeout(Duration::from_secs(10)), Ok(1));
}

#[test]
fn what_is_safe_is_asked_again_when_a_kept_connection_closes() {
    // SECURITY U-09, U-10
    let app = App::start();
    let gateway = start(&app);
    let mut wire = gateway.tls();
    for (method, end, status, sent) in [
        ("GET", Reply::RawThenClose(Vec::new()), 200, 3),
        ("HEAD", Reply::RawThenReset(Vec::new()), 200, 3),
        ("GET", Reply::RawThenClose(b"HTTP/1.1 2".to_vec()), 502, 2),
        ("POST", Reply::RawThenClose(Vec::new()), 502, 2),
    ] {
        let before = app.count();
        let connections = app.connections();
        let kept = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        app.script([Reply::Raw(kept), end]);
        for expected in [200, status] {
            wire.write(method, "/open", &[], b"");
            let answer = wire.answer_to(method).unwrap();
            assert_eq!(answer.status, expected, "{method}");
        }
        assert_eq!(app.count(), before + sent, "{method}");
        assert!(app.connections() <= connections + 2, "{method}");
    }
    // Once: a server that closes whatever it is asked is not asked for ever.
    app.script([(); 4].map(|()| Reply::RawThenClose(Vec::new())));
    let before = app.count();
    wire.write("GET", "/open", &[], b"");
    assert_eq!(wire.answer_to("GET").unwrap().status, 502);
    assert!(app.count() <= before + 2);
}
