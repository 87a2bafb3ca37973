//! Which route takes a request: hosts, paths, methods; and what is no path at all.

use super::support::{App, Gateway, Wire, config, open_route};

/// A route without checks: name, host (or none), path, methods.
fn route(app: &App, name: &str, host: &str, path: &str, methods: &str) -> String {
    let host = if host.is_empty() {
        String::new()
    } else {
        format!("host: \"{host}\", ")
    };
    format!(
        "  - name: {name}
    match: {{ {host}path: \"{path}\", methods: [{methods}] }}
    verify: none
    upstream: \"{}\"
",
        app.url()
    )
}

/// Sends over plain HTTP, where no certificate limits the hosts.
fn ask(gateway: &Gateway, method: &str, host: &str, path: &str) -> super::support::Answer {
    gateway
        .plain()
        .exchange(method, path, &[("Host", host)], b"")
}

#[test]
fn the_most_specific_route_wins_in_any_order_of_the_file() {
    // SECURITY RT-22, Z-04
    let app = App::start();
    let mut routes = [
        route(&app, "rest", "", "/{*rest}", "POST"),
        route(&app, "hooks-rest", "", "/hooks/{*rest}", "POST"),
        route(&app, "hooks-name", "", "/hooks/{name}", "POST"),
        route(&app, "hooks-github", "", "/hooks/github", "POST"),
        route(&app, "name-tail", "", "/{name}/github/tail", "POST"),
        route(&app, "wild", "*.example.org", "/{*rest}", "POST"),
        route(&app, "exact", "hooks.example.org", "/hooks/{name}", "POST"),
    ];
    let cases = [
        ("any.example", "/", "rest"),
        ("any.example", "/x/y", "rest"),
        ("any.example", "/hooks/github", "hooks-github"),
        ("any.example", "/hooks/gitlab", "hooks-name"),
        ("any.example", "/hooks/a/b", "hooks-rest"),
        ("any.example", "/hooks/", "hooks-rest"),
        // Segment by segment from the left: `hooks` is a literal, `{name}` is not.
        ("any.example", "/hooks/github/tail", "hooks-rest"),
        ("any.example", "/other/github/tail", "name-tail"),
        ("hooks.example.org", "/hooks/github", "exact"),
        ("hooks.example.org", "/other", "wild"),
        ("HOOKS.Example.org.", "/hooks/github", "exact"),
        ("hooks.example.org:8443", "/hooks/github", "exact"),
        ("b.example.org", "/hooks/github", "wild"),
        ("a.b.example.org", "/hooks/github", "hooks-github"),
        ("example.org", "/hooks/github", "hooks-github"),
    ];
    for _ in 0..2 {
        let gateway = Gateway::start(&config(&routes.concat()));
        for (host, path, expected) in cases {
            let event = gateway.forwarded(&ask(&gateway, "POST", host, path), 200);
            assert_eq!(event["route"], expected, "{host}{path}");
            assert_eq!(app.last().header("x-hookward-route"), Some(expected));
            assert_eq!(app.last().target(), path);
        }
        routes.reverse();
    }
}

#[test]
fn what_no_route_matches_is_404_and_matching_is_byte_exact() {
    // SECURITY RT-21, DS-27
    let app = App::start();
    let routes = [
        route(&app, "github", "", "/hooks/github", "POST"),
        route(&app, "one", "hooks.example.org", "/one", "POST"),
        route(&app, "param", "", "/p/{name}", "POST"),
    ];
    let gateway = Gateway::start(&config(&routes.concat()));
    let mut asked = 0;
    for (host, path) in [
        ("a.example", "/"),
        ("a.example", "/hooks"),
        ("a.example", "/hooks/github/"),
        ("a.example", "/Hooks/github"),
        ("a.example", "/%68ooks/github"),
        ("a.example", "/hooks%2fgithub"),
        ("a.example", "/hooks//github"),
        ("a.example", "/hooks/github;x=1"),
        ("a.example", "/one"),
        ("x.hooks.example.org", "/one"),
        ("a.example", "/p/"),
        ("a.example", "/p"),
        ("a.example", "/p/a/b"),
    ] {
        let event = gateway.refused(&ask(&gateway, "POST", host, path), 404, "route_not_found");
        assert_eq!(event["route"], "_none");
        asked += 1;
    }
    assert_eq!(
        gateway.requests("_none", "rejected", "route_not_found"),
        asked
    );
    app.saw_nothing();
}

#[test]
fn other_methods_are_405_with_allow() {
    // SECURITY SM-40, A-53
    let app = App::start();
    let routes = [
        route(&app, "post", "", "/a", "POST"),
        route(&app, "several", "", "/b", "PUT, POST"),
        format!(
            "  - {{ name: default, match: {{ path: /c }}, verify: none, upstream: \"{}\" }}\n",
            app.url()
        ),
    ];
    let gateway = Gateway::start(&config(&routes.concat()));
    for (method, path, name, allow) in [
        ("GET", "/a", "post", "POST"),
        ("DELETE", "/a", "post", "POST"),
        ("TRACE", "/a", "post", "POST"),
        ("post", "/a", "post", "POST"),
        ("G!T", "/a", "post", "POST"),
        ("OPTIONS", "/a", "post", "POST"),
        ("PATCH", "/b", "several", "POST, PUT"),
        ("PUT", "/c", "default", "POST"),
    ] {
        let answer = ask(&gateway, method, "localhost", path);
        let event = gateway.refused(&answer, 405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        assert_eq!(event["route"], name, "{method} {path}");
    }
    assert_eq!(
        gateway.requests("post", "rejected", "method_not_allowed"),
        6
    );
    let overridden = [
        ("X-HTTP-Method-Override", "POST"),
        ("X-Method-Override", "POST"),
    ];
    let answer = gateway
        .plain()
        .exchange("PUT", "/a?_method=POST", &overridden, b"");
    gateway.refused(&answer, 405, "method_not_allowed");

    // The answer to HEAD has no body, whatever it says about one.
    let mut wire = gateway.plain();
    wire.write("HEAD", "/a", &[("Connection", "close")], b"");
    let answer = wire.answer_to("HEAD").unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(wire.rest(), b"");
    app.saw_nothing();
}

#[test]
fn the_same_path_with_other_methods_is_another_route() {
    let app = App::start();
    let routes = [
        route(&app, "reads", "", "/a", "GET, HEAD"),
        route(&app, "writes", "", "/a", "POST"),
    ];
    let gateway = Gateway::start(&config(&routes.concat()));
    for (method, expected) in [("GET", "reads"), ("POST", "writes")] {
        assert_eq!(
            gateway.forwarded(&ask(&gateway, method, "localhost", "/a"), 200)["route"],
            expected
        );
        assert!(app.last().line().starts_with(method));
    }
    let mut wire = gateway.plain();
    wire.write("HEAD", "/a", &[], b"");
    let answer = wire.answer_to("HEAD").unwrap();
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("2"))
    );
    assert_eq!(wire.exchange("POST", "/a", &[], b"x").status, 200);
    let answer = ask(&gateway, "PUT", "localhost", "/a");
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD, POST"))
    );
    // Which of the two it was meant for, nobody knows.
    for _ in 0..2 {
        gateway.event();
    }
    let event = gateway.refused(&answer, 405, "method_not_allowed");
    assert_eq!(event["route"], "_none");
}

#[test]
fn a_method_of_any_length_or_a_tunnel_is_refused() {
    // SECURITY SM-39, SM-40, RT-08
    let app = App::start();
    let gateway = Gateway::start(&config(&route(&app, "all", "", "/{*rest}", "POST, GET")));
    let long = format!("{} /a HTTP/1.1\r\nHost: localhost\r\n\r\n", "M".repeat(33));
    gateway.refused(
        &gateway.plain().last_answer(long.as_bytes()).unwrap(),
        400,
        "malformed_request",
    );
    for request in [
        "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut wire = gateway.plain();
        let answer = wire.send(request.as_bytes()).answer().unwrap();
        gateway.refused(&answer, 405, "method_not_allowed");
        assert!(answer.header("allow").is_some());
        if request.starts_with("CONNECT") {
            // Whatever follows was meant for a tunnel.
            assert_eq!(answer.header("connection"), Some("close"));
            assert!(wire.is_closed());
        }
    }
    for request in [
        "POST * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        gateway.refused(
            &gateway.plain().last_answer(request.as_bytes()).unwrap(),
            400,
            "malformed_request",
        );
    }
    app.saw_nothing();
}

#[test]
fn paths_that_decoders_read_differently_are_malformed() {
    // SECURITY RT-13, RT-14, RT-15, RT-16, RT-17, RT-18
    let app = App::start();
    let gateway = Gateway::start(&config(&route(&app, "all", "", "/{*rest}", "POST")));
    for path in [
        "/a/../b",
        "/..",
        "/a/./b",
        "/.",
        "/a/..",
        "/%2e%2e/b",
        "/a/%2E./b",
        "/a/.%2e/b",
        "/a/..;/b",
        "/a/..;x=1/b",
        "/%2e/b",
        "/%00",
        "/a%0ab",
        "/a%0Db",
        "/a%7f",
        "/a%1fb",
        "/%zz",
        "/%",
        "/a%a",
        "/a%g0b",
        "/..%2f",
        "/..%5c",
        "//evil.example/p",
        "//hooks/github",
        "/\\evil.example/p",
        "/a\\b",
    ] {
        let answer = gateway.plain().exchange("POST", path, &[], b"");
        gateway.refused(&answer, 400, "malformed_request");
    }
    app.saw_nothing();
    // None of these is folded: they match literally and arrive as they were sent.
    for path in [
        "/a//b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a/...",
        "/a;x=1/b",
        "/%252e%252e/b",
        "/%68ooks",
        "/a/b?c=%zz&d=%",
        "/a?b=../..",
        "/a?",
        "/~a/$b'(c)*+,;=:@",
    ] {
        gateway.forwarded(&gateway.plain().exchange("POST", path, &[], b""), 200);
        assert_eq!(app.last().target(), path);
    }
}

#[test]
fn a_backslash_is_never_folded() {
    // SECURITY RT-16
    let app = App::start();
    let gateway = Gateway::start(&config(&route(&app, "all", "", "/{*rest}", "POST")));
    let before = app.count();
    let answer = gateway.plain().exchange("POST", "/a\\..\\b", &[], b"");
    assert_eq!((answer.status, app.count()), (400, before));
    let answer = gateway.plain().exchange("POST", "/a\\b", &[], b"");
    match answer.status {
        200 => assert_eq!(app.last().target(), "/a\\b"),
        status => assert_eq!((status, app.count()), (400, before)),
    }
}

#[test]
fn raw_utf8_in_a_target_is_malformed() {
    // SECURITY RT-19
    let app = App::start();
    let gateway = Gateway::start(&config(&route(&app, "all", "", "/{*rest}", "POST")));
    for path in [
        "/ü/ß".as_bytes(),
        "/a?ü".as_bytes(),
        b"/\xff\xfe",
        b"/a\x80",
    ] {
        let request = [
            b"POST ",
            path,
            b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        ]
        .concat();
        assert_eq!(gateway.plain().last_answer(&request).unwrap().status, 400);
    }
    app.saw_nothing();
}

#[test]
fn absolute_targets_are_routed_by_their_host_and_forwarded_as_paths() {
    // SECURITY RT-04, RT-05, RT-06, RT-07
    let app = App::start();
    let gateway = Gateway::start(&config(&route(&app, "all", "", "/{*rest}", "POST, GET")));
    let ask = |target: &str, host: &str| {
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        gateway.plain().send(request.as_bytes()).answer().unwrap()
    };
    for (target, host, path) in [
        ("http://localhost/a?b=1", "localhost", "/a?b=1"),
        ("https://localhost/a", "localhost", "/a"),
        ("http://LOCALHOST:80/a", "localhost:80", "/a"),
    ] {
        gateway.forwarded(&ask(target, host), 200);
        assert_eq!(app.last().target(), path);
        assert_eq!(app.last().header("host"), Some(host));
    }
    let before = app.count();
    for (target, host) in [
        ("http://other.example/a", "localhost"),
        ("http://localhost:81/a", "localhost:80"),
        ("http://user@localhost/a", "localhost"),
        ("ftp://localhost/a", "localhost"),
        ("localhost:443", "localhost:443"),
        ("a", "localhost"),
    ] {
        let answer = ask(target, host);
        assert_eq!(answer.status, 400, "{target}");
    }
    // SECURITY RT-20: no form of target has a fragment.
    assert_eq!(ask("/a#fragment", "localhost").status, 400);
    assert_eq!(app.count(), before);
}

#[test]
fn a_target_above_8_kib_is_too_long() {
    // SECURITY DS-10
    let app = App::start();
    let gateway = Gateway::start(&config(&format!(
        "{}{}",
        route(&app, "all", "", "/{*rest}", "POST"),
        open_route(&App::start())
    )));
    let of = |length: usize| format!("/{}", "a".repeat(length - 1));
    gateway.forwarded(
        &gateway.plain().exchange("POST", &of(8 * 1024), &[], b""),
        200,
    );
    let event = gateway.refused(
        &gateway
            .plain()
            .exchange("POST", &of(8 * 1024 + 1), &[], b""),
        414,
        "uri_too_long",
    );
    assert_eq!(event["route"], "_none");
    let query = format!("/a?{}", "q".repeat(8 * 1024));
    gateway.refused(
        &gateway.plain().exchange("POST", &query, &[], b""),
        414,
        "uri_too_long",
    );
    // Longer than a head may be, also when its end never comes.
    for (length, end) in [
        (17_000, true),
        (70_000, true),
        (300_000, true),
        (20_000, false),
    ] {
        let mut wire = if end { gateway.plain() } else { gateway.tls() };
        let line = format!("POST {}", of(length));
        let rest = if end {
            " HTTP/1.1\r\nHost: localhost\r\n\r\n"
        } else {
            ""
        };
        wire.send((line + rest).as_bytes());
        let answer = wire.answer().unwrap();
        gateway.refused(&answer, 414, "uri_too_long");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(wire.is_closed());
    }
    let absolute = format!(
        "POST http://localhost{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        of(20_000)
    );
    let mut wire = gateway.plain();
    wire.send(absolute.as_bytes());
    gateway.refused(&wire.answer().unwrap(), 414, "uri_too_long");
    // What follows a fragment is no part of a target, and does not make it too long.
    for at in [10, 16_000, 17_000] {
        let line = format!(
            "POST {}#{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            of(at),
            "c".repeat(20_000)
        );
        let mut wire = gateway.plain();
        wire.send(line.as_bytes());
        assert!(matches!(wire.answer().unwrap().status, 400 | 414));
        assert!(wire.is_closed());
    }
    assert_eq!(app.count(), 1);
}

#[test]
fn hosts_must_be_there_once_and_well_formed() {
    // SECURITY RT-01, RT-02, RT-03
    let app = App::start();
    let gateway = Gateway::start(&config(&route(&app, "all", "", "/{*rest}", "POST")));
    let long = format!("Host: {}\r\n", "a".repeat(300));
    for hosts in [
        "",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nHost: other\r\n",
        "Host:\r\n",
        "Host: a, b\r\n",
        "Host: a/b?c@d\r\n",
        "Host: u@h\r\n",
        "Host: h:99999\r\n",
        "Host: h:1x\r\n",
        "Host: h:+1\r\n",
        "Host: [::1\r\n",
        "Host: a b\r\n",
        "Host: .\r\n",
        &long,
    ] {
        for wire in [gateway.plain(), gateway.tls()] {
            let mut wire: Wire = wire;
            let request = format!("POST /a HTTP/1.1\r\n{hosts}Content-Length: 0\r\n\r\n");
            let answer = wire.last_answer(request.as_bytes()).unwrap();
            gateway.refused(&answer, 400, "malformed_request");
            assert_eq!(answer.header("connection"), Some("close"), "{hosts:?}");
        }
    }
    app.saw_nothing();
}
