//! What reaches the app, and what comes back: paths, headers, unix sockets, TLS, several servers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::support::authority::Identity;
use super::support::{App, Authority, Gateway, RawH2, Reply, Wire, config, open_route};

/// One route at `match` with this upstream and more keys.
fn route(name: &str, path: &str, upstream: &str, more: &str) -> String {
    format!(
        "  - name: {name}
    match: {{ path: \"{path}\", methods: [POST, GET, PUT, DELETE] }}
    verify: none
    upstream: {upstream}
{more}"
    )
}

fn quoted(app: &App) -> String {
    format!("\"{}\"", app.url())
}

fn config_trusting_us(routes: &str) -> String {
    config(routes).replace(
        "plaintext: allow }",
        "plaintext: allow, trusted_proxies: [127.0.0.1] }",
    )
}

/// Of one connection, of a proxy that is none, of nobody but us, and what any sender may send.
const SPOOFED: &[(&str, &str)] = &[
    ("Host", "hooks.example.org:8443"),
    ("Connection", "keep-alive, X-Debug"),
    ("X-Debug", "1"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authorization", "Basic eDp5"),
    ("Proxy-Authenticate", "Basic"),
    ("TE", "trailers"),
    ("Trailer", "X-T"),
    ("Upgrade", "websocket"),
    ("X-Hookward-Verified", "provider:github"),
    ("X-Hookward-Route", "admin"),
    ("x-hookward-anything", "1"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "ftp"),
    ("X-Forwarded-Prefix", "/admin"),
    ("Forwarded", "for=192.0.2.1"),
    ("X-Real-IP", "192.0.2.1"),
    ("X-Original-URL", "/admin"),
    ("X-Rewrite-URL", "/admin"),
    ("X-HTTP-Method-Override", "DELETE"),
    ("X-Method-Override", "DELETE"),
    ("Client-Cert", ":MIIB:"),
    ("X-Client-IP", "192.0.2.1"),
    ("CF-Connecting-IP", "192.0.2.1"),
    ("Proxy", "http://evil.example"),
    ("X-Original-Forwarded-For", "192.0.2.1"),
    ("X-SSL-Client-Verify", "SUCCESS"),
    ("X-Authenticated-User", "admin"),
    ("Remote-User", "admin"),
    ("X-Request-Id", "chosen-by-the-sender"),
    ("User-Agent", "sender/1"),
    ("Accept-Encoding", "gzip"),
    ("Cookie", "a=b"),
    ("X-Twice", "1"),
    ("X-Twice", "2"),
    ("X-Empty", ""),
];

#[test]
fn hop_by_hop_and_spoofed_headers_do_not_reach_the_app() {
    // SECURITY RT-28, RT-30, RT-32, RT-33, SM-34, A-53
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let answer = gateway.plain().exchange("POST", "/open", SPOOFED, b"x");
    let event = gateway.forwarded(&answer, 200);
    let seen = app.last();
    seen.lacks(&[
        "connection",
        "x-debug",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "upgrade",
        "x-hookward-anything",
        "x-hookward-verified",
        "x-forwarded-prefix",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-method-override",
        "client-cert",
        "x-client-ip",
        "cf-connecting-ip",
        "proxy",
        "x-original-forwarded-for",
        "x-ssl-client-verify",
        "x-authenticated-user",
        "remote-user",
        "transfer-encoding",
    ]);
    for (name, value) in [
        ("host", "hooks.example.org:8443"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "hooks.example.org:8443"),
        ("x-forwarded-proto", "http"),
        ("x-hookward-route", "open"),
        ("user-agent", "sender/1"),
        ("accept-encoding", "gzip"),
        ("cookie", "a=b"),
        ("x-empty", ""),
        ("content-length", "1"),
    ] {
        assert_eq!(seen.headers(name), [value], "{name}");
    }
    assert_eq!(seen.headers("x-twice"), ["1", "2"]);
    let id = seen.header("x-request-id").unwrap();
    assert!(id != "chosen-by-the-sender" && id.len() >= 16);
    assert_eq!(event["request_id"], id);
    assert_eq!(event["client_ip"], "127.0.0.1");

    gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
    assert_eq!(app.last().headers("x-forwarded-proto"), ["https"]);
    assert_eq!(app.last().headers("x-forwarded-host"), ["localhost"]);
}

#[test]
fn a_trusted_proxys_word_is_passed_on() {
    // SECURITY RT-31, RT-32
    let app = App::start();
    let gateway = Gateway::start(&config_trusting_us(&open_route(&app)));
    let headers = [
        ("X-Forwarded-For", "198.51.100.7, 192.0.2.1"),
        ("X-Forwarded-Host", "public.example.org"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "for=192.0.2.1"),
        ("X-Real-IP", "192.0.2.1"),
        ("X-Request-Id", "from-the-proxy-1"),
        ("X-Hookward-Verified", "token"),
    ];
    let event = gateway.forwarded(
        &gateway.plain().exchange("POST", "/open", &headers, b"x"),
        200,
    );
    assert_eq!(
        (event["client_ip"].as_str(), event["request_id"].as_str()),
        (Some("192.0.2.1"), Some("from-the-proxy-1"))
    );
    let seen = app.last();
    assert_eq!(
        seen.headers("x-forwarded-for").join(", "),
        "198.51.100.7, 192.0.2.1, 127.0.0.1"
    );
    for (name, value) in &headers[1..6] {
        assert_eq!(seen.headers(name), [*value]);
    }
    seen.lacks(&["x-hookward-verified"]);
    // An id that is none is not kept.
    let long = "x".repeat(1000);
    for id in [&long, "a b", "ü"] {
        gateway.forwarded(
            &gateway
                .plain()
                .exchange("POST", "/open", &[("X-Request-Id", id)], b"x"),
            200,
        );
        assert_ne!(app.last().header("x-request-id"), Some(id));
    }
    // The https listener trusts nobody.
    gateway.forwarded(&gateway.post("/open", &headers[5..6], b"x"), 200);
    assert_ne!(app.last().header("x-request-id"), Some("from-the-proxy-1"));
}

#[test]
fn paths_are_rewritten_after_the_verdict() {
    // SECURITY A-44
    let app = App::start();
    let routes = [
        route("kept", "/kept/{*rest}", &quoted(&app), ""),
        route(
            "replaced",
            "/replaced/{name}",
            &quoted(&app),
            "    forward: { path: /legacy/github.php }\n",
        ),
        route(
            "stripped",
            "/hooks/{*rest}",
            &quoted(&app),
            "    forward: { strip_prefix: /hooks }\n",
        ),
        route(
            "bare",
            "/bare",
            &quoted(&app),
            "    forward: { strip_prefix: /bare }\n",
        ),
    ];
    let gateway = Gateway::start(&config(&routes.concat()));
    for (path, forwarded) in [
        ("/kept/a%2fb?c=%zz", "/kept/a%2fb?c=%zz"),
        ("/replaced/x?a=1&b=", "/legacy/github.php?a=1&b="),
        ("/replaced/x", "/legacy/github.php"),
        ("/hooks/a/b?c", "/a/b?c"),
        ("/hooks/", "/"),
        ("/hooks/hooks/a", "/hooks/a"),
        (
            "/replaced/x?a=//evil.example",
            "/legacy/github.php?a=//evil.example",
        ),
        ("/bare?x=1", "/?x=1"),
    ] {
        let answer = gateway.post(path, &[], b"x");
        let event = gateway.forwarded(&answer, 200);
        assert_eq!(app.last().target(), forwarded, "{path}");
        assert_eq!(event["path"], path.split('?').next().unwrap());
    }
    let count = app.count();
    for path in [
        "/hooks//evil.example/a",
        "/hooks///evil.example/a",
        "/hooks//",
    ] {
        let answer = gateway.post(path, &[], b"x");
        gateway.refused(&answer, 400, "malformed_request");
    }
    assert_eq!(app.count(), count);
}

#[test]
fn headers_are_set_and_removed() {
    let app = App::start();
    let more = "    forward: { set_headers: { X-Env: prod, X-Over: ours }, remove_headers: [X-Debug, x-request-id] }\n";
    let gateway = Gateway::start(&config(&route("rules", "/in", &quoted(&app), more)));
    let headers = [
        ("X-Debug", "1"),
        ("x-debug", "2"),
        ("X-Over", "theirs"),
        ("X-Over", "twice"),
    ];
    gateway.forwarded(&gateway.post("/in", &headers, b"x"), 200);
    let seen = app.last();
    seen.lacks(&["x-debug", "x-request-id"]);
    assert_eq!(seen.headers("x-env"), ["prod"]);
    assert_eq!(seen.headers("x-over"), ["ours"]);
}

#[test]
fn the_apps_answer_is_passed_back_unchanged() {
    // SECURITY U-15, U-16, L-11
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    for status in [
        200, 201, 202, 301, 302, 307, 400, 401, 403, 404, 409, 410, 418, 422, 429, 500, 502, 503,
        599,
    ] {
        let head = format!(
            "HTTP/1.1 {status} Some Reason\r\nLocation: http://127.0.0.1:1/\r\nWWW-Authenticate: Basic realm=\"app\"\r\n\
             Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nSet-Cookie: c=3\r\nX-Hookward-Verified: from the app\r\nServer: app/1.0\r\n\
             X-Request-Id: of-the-app\r\nRetry-After: 7\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\
             Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\n\r\nbody"
        );
        app.script([Reply::raw(&head)]);
        let answer = gateway.post("/open", &[], b"x");
        let event = gateway.forwarded(&answer, status);
        assert_eq!(event["upstream_status"], status);
        assert_eq!(answer.text(), "body");
        for (name, values) in [
            ("location", &["http://127.0.0.1:1/"][..]),
            ("www-authenticate", &["Basic realm=\"app\""]),
            ("set-cookie", &["a=1", "b=2", "c=3"]),
            ("x-hookward-verified", &["from the app"]),
            ("server", &["app/1.0"]),
            ("x-request-id", &["of-the-app"]),
            ("retry-after", &["7"]),
            ("content-type", &["text/plain"]),
            ("content-length", &["4"]),
            ("x-hop", &[]),
            ("keep-alive", &[]),
            ("proxy-authenticate", &[]),
            ("trailer", &[]),
        ] {
            assert_eq!(answer.all(name), values, "{name} of {status}");
        }
        let labels = [("route", "open"), ("code", &*status.to_string())];
        assert_eq!(
            gateway.metric("hookward_upstream_requests_total", &labels),
            Some(1)
        );
    }
    assert_eq!(app.count(), 19, "nothing is followed or tried again");
}

#[test]
fn the_phrase_of_a_status_is_passed_back_and_never_a_placeholder() {
    let app = App::start();
    let route = open_route(&app) + &route_with_status(&app, 499);
    let gateway = Gateway::start(&config(&route));
    let first_line = |path: &str| {
        let mut stream = TcpStream::connect(gateway.address("http")).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    };
    for (sent, passed) in [
        ("200 OK", "200 OK"),
        ("404 Nobody Here", "404 Nobody Here"),
        ("520 Origin Error", "520 Origin Error"),
        ("520", "520 Status"),
    ] {
        app.script([Reply::raw(&format!(
            "HTTP/1.1 {sent}\r\nContent-Length: 0\r\n\r\n"
        ))]);
        assert_eq!(first_line("/open"), format!("HTTP/1.1 {passed}"));
    }
    assert_eq!(first_line("/guarded"), "HTTP/1.1 499 Status");
}

/// A route at `/guarded` that refuses with this status.
fn route_with_status(app: &App, status: u16) -> String {
    format!(
        "  - name: guarded
    match: {{ path: /guarded }}
    verify: [{{ token: {{ bearer: true, secrets: [\"value:a token of 32 characters and more\"] }} }}]
    on_reject: {{ status: {status} }}
    upstream: \"{}\"
",
        app.url()
    )
}

#[test]
fn our_own_answers_tell_no_version() {
    // SECURITY L-11
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let answer = gateway.post("/nowhere", &[], b"x");
    for name in ["server", "via", "x-powered-by"] {
        assert_eq!(answer.header(name), None);
    }
    assert_eq!(
        answer.header("x-request-id"),
        answer.json()["request_id"].as_str()
    );
}

#[test]
fn an_app_behind_a_unix_socket() {
    let app = std::cell::OnceCell::new();
    let gateway = Gateway::start_with(
        &config(&route("unix", "/in", "\"unix:DIR/app.sock\"", "")),
        &[],
        |dir| {
            drop(app.set(App::on_unix(&dir.join("app.sock"))));
        },
    );
    for body in [&b"one"[..], b"two"] {
        gateway.forwarded(&gateway.post("/in?a=1", &[], body), 200);
        let seen = app.get().unwrap().last();
        assert_eq!(
            (seen.target(), seen.body.as_slice(), seen.header("host")),
            ("/in?a=1", body, Some("localhost"))
        );
    }
    std::fs::remove_file(gateway.dir().join("app.sock")).unwrap();
    // The open connection may still serve; a new one cannot be made.
    let gone = Gateway::start(&config(&route("unix", "/in", "\"unix:DIR/none.sock\"", "")));
    gone.refused(&gone.post("/in", &[], b"x"), 502, "upstream_unreachable");
}

#[test]
fn an_app_behind_tls() {
    // SECURITY U-19
    let authority = Authority::new();
    let named = App::on_tls(&authority.issue(&["app.internal"]), None);
    let by_address = App::on_tls(&authority.issue(&["127.0.0.1"]), None);
    let mutual = App::on_tls(&authority.issue(&["127.0.0.1"]), Some(&authority));
    let expired = App::on_tls(&authority.issue_expired(&["127.0.0.1"]), None);
    let foreign = App::on_tls(&Authority::new().issue(&["127.0.0.1"]), None);
    let upstream = |name: &str, app: &App, tls: &str| {
        format!(
            "  {name}: {{ servers: [\"https://{}\"], tls: {{ {tls} }} }}\n",
            app.address()
        )
    };
    let ours = "ca: ca.pem, client_cert: client.pem, client_key: client.key";
    let upstreams = [
        upstream("named", &named, "ca: ca.pem, server_name: app.internal"),
        upstream("unnamed", &named, "ca: ca.pem"),
        upstream("address", &by_address, "ca: ca.pem"),
        upstream("mutual", &mutual, ours),
        upstream("anonymous", &mutual, "ca: ca.pem"),
        upstream("expired", &expired, "ca: ca.pem"),
        upstream("foreign", &foreign, "ca: ca.pem"),
    ]
    .concat();
    let names = [
        "named",
        "unnamed",
        "address",
        "mutual",
        "anonymous",
        "expired",
        "foreign",
    ];
    let routes: String = names
        .iter()
        .map(|name| route(name, &format!("/{name}"), name, ""))
        .collect();
    let client = authority.issue(&["gateway.internal"]);
    let gateway = Gateway::start_with(
        &super::support::config_with(&format!("upstreams:\n{upstreams}"), &routes),
        &[],
        |dir| {
            std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
            client.write(dir, "client");
        },
    );
    for (name, app) in [
        ("named", &named),
        ("address", &by_address),
        ("mutual", &mutual),
    ] {
        gateway.forwarded(&gateway.post(&format!("/{name}"), &[], b"over TLS"), 200);
        assert_eq!(app.last().body, b"over TLS");
    }
    let before = [named.count(), mutual.count()];
    for name in ["unnamed", "anonymous", "expired", "foreign"] {
        let answer = gateway.post(&format!("/{name}"), &[], b"x");
        let event = gateway.event();
        assert_eq!(answer.status, 502, "{name}");
        let reason = event["reason"].as_str().unwrap();
        assert!(
            matches!(reason, "upstream_unreachable" | "upstream_aborted"),
            "{name}: {reason}"
        );
    }
    assert_eq!([named.count(), mutual.count()], before);
    expired.saw_nothing();
    foreign.saw_nothing();
}

#[test]
fn an_app_whose_own_certificate_is_given_needs_no_authority() {
    // SECURITY U-19
    let (own, other) = (
        Identity::self_signed(&["127.0.0.1"]),
        Identity::self_signed(&["app.internal"]),
    );
    let app = App::on_tls(&own, None);
    let named = App::on_tls(&other, None);
    let upstream = |name: &str, app: &App, ca: &str| {
        let address = app.address();
        format!("  {name}: {{ servers: [\"https://{address}\"], tls: {{ ca: {ca} }} }}\n")
    };
    let upstreams = [
        upstream("own", &app, "both.pem"),
        upstream("stranger", &app, "other.pem"),
        upstream("unnamed", &named, "both.pem"),
    ]
    .concat();
    let routes: String = ["own", "stranger", "unnamed"]
        .iter()
        .map(|name| route(name, &format!("/{name}"), name, ""))
        .collect();
    let gateway = Gateway::start_with(
        &super::support::config_with(&format!("upstreams:\n{upstreams}"), &routes),
        &[],
        |dir| {
            other.write(dir, "other");
            let both = [&*other.cert_pem, &own.cert_pem].concat();
            std::fs::write(dir.join("both.pem"), both).unwrap();
        },
    );
    gateway.forwarded(&gateway.post("/own", &[], b"over TLS"), 200);
    assert_eq!(app.last().body, b"over TLS");
    for (path, why) in [
        ("/stranger", "not one of those in `tls.ca`"),
        ("/unnamed", "not valid for name"),
    ] {
        gateway.refused(&gateway.post(path, &[], b"x"), 502, "upstream_unreachable");
        super::support::eventually("the log says why", || {
            gateway.stderr().contains(why).then_some(())
        });
    }
    assert_eq!((app.count(), named.count()), (1, 0));
}

#[test]
fn an_app_may_have_a_connection_for_each_request() {
    let app = App::start();
    let url = app.url();
    let upstreams = format!("upstreams:\n  app: {{ servers: [\"{url}\"], keepalive: false }}");
    let routes = route("app", "/in", "app", "");
    let gateway = Gateway::start(&super::support::config_with(&upstreams, &routes));
    let mut wire = gateway.tls();
    // Though the app keeps them.
    for _ in 0..3 {
        assert_eq!(wire.exchange("POST", "/in", &[], b"x").status, 200);
    }
    assert_eq!((app.count(), app.connections()), (3, 3));
    for seen in app.seen() {
        assert_eq!(seen.headers("connection"), ["close"]);
        assert_eq!(seen.body, b"x");
    }
}

#[test]
fn several_servers_share_the_work_and_a_dead_one_is_passed_over() {
    // SECURITY U-01, U-17
    let apps = [App::start(), App::start()];
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let upstreams = format!(
        "upstreams:
  pair: {{ servers: [\"{0}\", \"{1}\"] }}
  limping: {{ servers: [\"http://{dead}\", \"{0}\"] }}
  dead: {{ servers: [\"http://{dead}\"], connect_timeout: 500ms }}",
        apps[0].url(),
        apps[1].url()
    );
    let routes: String = ["pair", "limping", "dead"]
        .iter()
        .map(|name| route(name, &format!("/{name}"), name, ""))
        .collect();
    let gateway = Gateway::start(&super::support::config_with(&upstreams, &routes));
    for _ in 0..10 {
        gateway.forwarded(&gateway.post("/pair", &[], b"x"), 200);
    }
    assert_eq!((apps[0].count(), apps[1].count()), (5, 5));
    for _ in 0..6 {
        gateway.forwarded(&gateway.post("/limping", &[], b"x"), 200);
    }
    assert_eq!(apps[0].count(), 11);
    let up = |upstream: &str, server: &str| {
        let labels = [("upstream", upstream), ("server", server)];
        gateway.metric("hookward_upstream_server_up", &labels)
    };
    assert_eq!(up("pair", &apps[0].url()), Some(1));
    assert_eq!(up("limping", &apps[0].url()), Some(1));
    assert_eq!(up("limping", &format!("http://{dead}")), Some(0));
    let passed_over = "server cannot be reached: others are asked before it";
    super::support::eventually("a word in the log", || {
        gateway.stderr().contains(passed_over).then_some(())
    });
    let answer = gateway.post("/dead", &[], b"x");
    gateway.refused(&answer, 502, "upstream_unreachable");
    assert!(
        !answer.text().contains(&dead.port().to_string()),
        "the answer tells an address"
    );
    let labels = [("route", "dead"), ("code", "none")];
    assert_eq!(
        gateway.metric("hookward_upstream_requests_total", &labels),
        Some(1)
    );
    assert_eq!(gateway.stderr().matches(passed_over).count(), 1);
}

#[test]
fn a_server_that_breaks_off_or_hangs_is_asked_last() {
    // SECURITY U-17: one delivery learns it the hard way, for it may have been taken
    for (reply, status) in [
        (Reply::RawThenClose(Vec::new()), 502),
        (Reply::RawThenSilence(Vec::new()), 504),
        (Reply::RawThenClose(b"no HTTP\r\n\r\n".to_vec()), 502),
    ] {
        let apps = [App::start(), App::start()];
        apps[0].script([reply]);
        let (one, other) = (apps[0].url(), apps[1].url());
        let upstreams =
            format!("upstreams:\n  pair: {{ servers: [\"{one}\", \"{other}\"], timeout: 500ms }}");
        let routes = route("pair", "/in", "pair", "");
        let gateway = Gateway::start(&super::support::config_with(&upstreams, &routes));
        assert_eq!(gateway.post("/in", &[], b"x").status, status);
        for _ in 0..6 {
            assert_eq!(gateway.post("/in", &[], b"x").status, 200);
        }
        assert_eq!((apps[0].count(), apps[1].count()), (1, 6));
    }
}

#[test]
fn a_server_that_goes_on_hanging_costs_one_delivery_at_a_time() {
    // SECURITY U-17
    let apps = [App::start(), App::start()];
    apps[0].script([(); 9].map(|()| Reply::Silence));
    let (one, other) = (apps[0].url(), apps[1].url());
    let upstreams =
        format!("upstreams:\n  pair: {{ servers: [\"{one}\", \"{other}\"], timeout: 1s }}");
    let routes = route("pair", "/in", "pair", "");
    let gateway = Gateway::start(&super::support::config_with(&upstreams, &routes));
    assert_eq!(gateway.post("/in", &[], b"x").status, 504);
    super::support::pause(Duration::from_millis(10_100));
    let mut statuses: Vec<u16> = thread::scope(|scope| {
        let asked = [(); 8].map(|()| scope.spawn(|| gateway.post("/in", &[], b"x").status));
        asked.map(|asked| asked.join().unwrap()).to_vec()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 504]);
    assert_eq!(apps.each_ref().map(App::count), [2, 7]);
}

#[test]
fn of_servers_that_have_all_failed_the_one_that_hangs_is_asked_last() {
    // SECURITY U-17
    let apps = [App::start(), App::start(), App::start()];
    let breaks_off = || Reply::RawThenClose(Vec::new());
    for app in &apps {
        app.script([breaks_off()]);
    }
    let urls = apps.each_ref().map(|app| format!("\"{}\"", app.url()));
    let servers = urls.join(", ");
    let upstreams = format!("upstreams:\n  three: {{ servers: [{servers}], timeout: 500ms }}");
    let routes = route("three", "/in", "three", "");
    let gateway = Gateway::start(&super::support::config_with(&upstreams, &routes));
    for _ in &apps {
        assert_eq!(gateway.post("/in", &[], b"x").status, 502);
    }
    // From now on the last one hangs. The others failed before it; the first that answers is good again.
    apps[2].script([(); 9].map(|()| Reply::Silence));
    for _ in 0..9 {
        assert_eq!(gateway.post("/in", &[], b"x").status, 200);
    }
    assert_eq!(apps.each_ref().map(App::count), [10, 1, 1]);
}

#[test]
fn servers_that_were_all_away_share_the_work_once_they_are_back() {
    // SECURITY U-17
    let routes = route("pair", "/in", "pair", "");
    let upstreams = "upstreams:\n  pair: { servers: [\"unix:DIR/a.sock\", \"unix:DIR/b.sock\"] }";
    let gateway = Gateway::start(&super::support::config_with(upstreams, &routes));
    let answer = gateway.post("/in", &[], b"x");
    gateway.refused(&answer, 502, "upstream_unreachable");
    let apps = ["a.sock", "b.sock"].map(|name| App::on_unix(&gateway.dir().join(name)));
    for _ in 0..10 {
        gateway.forwarded(&gateway.post("/in", &[], b"x"), 200);
    }
    assert_eq!(apps.each_ref().map(App::count), [5, 5]);
}

#[test]
fn a_server_that_hangs_does_not_hold_up_what_is_known_of_the_others() {
    // SECURITY U-17
    let hang = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let app = App::start();
    let upstreams = format!(
        "upstreams:\n  three: {{ servers: [\"http://{}\", \"http://{}\", \"{}\"], \
         connect_timeout: 1h, health: {{ path: /healthz, interval: 100ms }} }}",
        hang[0].local_addr().unwrap(),
        hang[1].local_addr().unwrap(),
        app.url()
    );
    let routes = route("three", "/in", "three", "");
    let _gateway = Gateway::start(&super::support::config_with(&upstreams, &routes));
    super::support::eventually("three checks of the good one", || {
        (app.count() >= 3).then_some(())
    });
}

#[test]
fn a_server_that_fails_its_health_check_gets_no_deliveries() {
    // SECURITY U-17
    let apps = [App::start(), App::start()];
    apps[1].script(std::iter::repeat_n(Reply::status(503), 400));
    let upstreams = format!(
        "upstreams:\n  pair: {{ servers: [\"{}\", \"{}\"], health: {{ path: /healthz, interval: 100ms }} }}",
        apps[0].url(),
        apps[1].url()
    );
    let gateway = Gateway::start(&super::support::config_with(
        &upstreams,
        &route("pair", "/in", "pair", ""),
    ));
    super::support::eventually("the failed check is noticed", || {
        gateway.stderr().contains("health check").then_some(())
    });
    for _ in 0..8 {
        gateway.forwarded(&gateway.post("/in", &[], b"x"), 200);
    }
    let delivered = |app: &App| {
        app.seen()
            .iter()
            .filter(|seen| seen.target() == "/in")
            .count()
    };
    assert_eq!((delivered(&apps[0]), delivered(&apps[1])), (8, 0));
    assert!(
        apps[1]
            .seen()
            .iter()
            .all(|seen| seen.line() == "GET /healthz HTTP/1.1")
    );
}

#[test]
fn the_built_in_echo_answers_with_what_it_got() {
    let gateway = Gateway::start(&config(&route(
        "echo",
        "/in",
        "echo",
        "    forward: { set_headers: { X-Env: prod } }\n",
    )));
    let answer = gateway.post(
        "/in?a=1",
        &[("X-Hookward-Verified", "token")],
        b"caf\xc3\xa9",
    );
    gateway.forwarded(&answer, 200);
    let account = answer.json();
    assert_eq!(
        (
            account["method"].as_str(),
            account["path"].as_str(),
            account["query"].as_str()
        ),
        (Some("POST"), Some("/in"), Some("a=1"))
    );
    assert_eq!(account["body"], "café");
    let text = account["headers"].to_string();
    assert!(
        text.contains("x-env")
            && text.contains("x-hookward-route")
            && !text.contains("x-hookward-verified"),
        "{text}"
    );
}

#[test]
fn connections_to_the_app_are_used_again() {
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut wire: Wire = gateway.tls();
    for _ in 0..20 {
        assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    }
    assert_eq!((app.count(), app.connections()), (20, 1));
}

#[test]
fn what_came_before_its_sender_left_is_delivered() {
    // SECURITY U-20
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let mut wires: Vec<Wire> = (0..4)
        .flat_map(|_| [gateway.plain(), gateway.tls()])
        .collect();
    let mut streams = [(); 4].map(|()| RawH2::open(gateway.address("https")));
    let count = wires.len() + streams.len();
    gateway.wait_for_metric("hookward_connections", u64::try_from(count).unwrap());
    // Request and end are there together when they are looked at.
    gateway.signal("STOP");
    for wire in &mut wires {
        wire.write("POST", "/open", &[], b"x");
        wire.end();
    }
    for stream in &mut streams {
        stream.post(1, b"/open", &[], b"x").end();
    }
    gateway.signal("CONT");
    app.wait_for(count);
    // Who has only ended its own side reads its answer.
    for wire in &mut wires {
        assert_eq!(wire.answer().unwrap().status, 200);
    }
    for _ in 0..count {
        assert_eq!(gateway.event()["outcome"], "forwarded");
    }
}
