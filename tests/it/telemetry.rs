//! Metrics, the access log, the operational log and the admin listener.

use serde_json::Value;

use super::support::{
    App, Gateway, Reply, SECRET, Wire, config, eventually, github, now, two_routes,
};

const FIELDS: [&str; 14] = [
    "request_id",
    "route",
    "provider",
    "outcome",
    "reason",
    "status",
    "client_ip",
    "method",
    "path",
    "bytes_in",
    "event_id",
    "key_id",
    "upstream_status",
    "duration_ms",
];

#[test]
fn what_is_refused_by_its_head_is_found_by_its_path() {
    let app = App::start();
    let token = "  - name: token
    match: { path: /in }
    verify: [{ token: { query: tk, secrets: [\"value:token-0123456789abc\"] } }]
    upstream: echo
";
    for (routes, shown) in [
        (two_routes(&app), "/open/a"),
        (two_routes(&app) + token, "/open/***"),
    ] {
        let gateway = Gateway::start(&config(&routes));
        for head in ["X_Request_Id: a", "Host: other.example"] {
            let request = format!("GET /open/a?tk=b HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n");
            let answer = gateway.tls().last_answer(request.as_bytes()).unwrap();
            let event = gateway.refused(&answer, 400, "malformed_request");
            assert_eq!(event["path"], shown, "{head}");
        }
        let long = format!(
            "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "a".repeat(9000)
        );
        let answer = gateway.tls().last_answer(long.as_bytes()).unwrap();
        let event = gateway.refused(&answer, 414, "uri_too_long");
        assert_eq!(event["path"], Value::Null);
    }
}

#[test]
fn known_series_start_at_zero() {
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    for route in ["open", "github", "_none"] {
        let at_zero = |outcome: &str, reason: &str| {
            let labels = [("route", route), ("outcome", outcome), ("reason", reason)];
            assert_eq!(
                gateway.metric("hookward_requests_total", &labels),
                Some(0),
                "{route} {outcome} {reason}"
            );
        };
        at_zero("forwarded", "none");
        for reason in [
            "signature_missing",
            "signature_malformed",
            "signature_mismatch",
            "timestamp_missing",
            "timestamp_malformed",
            "timestamp_stale",
            "timestamp_ahead",
            "credential_missing",
            "credential_invalid",
            "rate_limited",
        ] {
            at_zero("rejected", reason);
        }
    }
    for (name, labels) in [
        (
            "hookward_config_reloads_total",
            &[("result", "success")][..],
        ),
        ("hookward_config_reloads_total", &[("result", "failure")]),
        (
            "hookward_verification_key_used_total",
            &[("route", "github"), ("key_id", "now")],
        ),
        ("hookward_requests_in_flight", &[]),
        ("hookward_connections", &[]),
        (
            "hookward_request_duration_seconds_count",
            &[("route", "github"), ("outcome", "forwarded")],
        ),
        (
            "hookward_upstream_request_duration_seconds_count",
            &[("route", "github")],
        ),
        (
            "hookward_route_last_accepted_timestamp_seconds",
            &[("route", "github")],
        ),
    ] {
        assert_eq!(gateway.metric(name, labels), Some(0), "{name}");
    }
}

#[test]
fn every_metric_is_on_the_page_from_the_start() {
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let page = gateway.admin("/metrics");
    assert_eq!(page.status, 200);
    let media_type = page.header("content-type").unwrap();
    assert!(media_type.starts_with("text/plain"), "{media_type}");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(gateway.metric("hookward_build_info", &version), Some(1));
    for name in [
        "hookward_requests_total",
        "hookward_request_duration_seconds",
        "hookward_requests_in_flight",
        "hookward_connections",
        "hookward_verification_key_used_total",
        "hookward_route_last_accepted_timestamp_seconds",
        "hookward_upstream_requests_total",
        "hookward_upstream_request_duration_seconds",
        "hookward_config_reloads_total",
        "hookward_tls_certificate_not_after_timestamp_seconds",
        "hookward_build_info",
    ] {
        assert!(
            page.text().contains(&format!("# TYPE {name} ")),
            "{name} is not on the page"
        );
    }
    for bucket in ["3", "5", "10"] {
        let labels = [
            ("route", "github"),
            ("outcome", "forwarded"),
            ("le", bucket),
        ];
        assert!(
            gateway
                .metric("hookward_request_duration_seconds_bucket", &labels)
                .is_some(),
            "le={bucket}"
        );
    }
}

#[test]
fn requests_are_counted_once_each() {
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let before = now();
    gateway.forwarded(&gateway.post_github("/github", b"x"), 200);
    gateway.refused(
        &gateway.post("/github", &[], b"x"),
        401,
        "signature_missing",
    );
    app.script([Reply::status(503)]);
    gateway.forwarded(&gateway.post("/open", &[], b"x"), 503);
    gateway.refused(&gateway.post("/nowhere", &[], b"x"), 404, "route_not_found");
    for (route, outcome, reason) in [
        ("github", "forwarded", "none"),
        ("github", "rejected", "signature_missing"),
        ("open", "forwarded", "none"),
        ("_none", "rejected", "route_not_found"),
    ] {
        assert_eq!(
            gateway.requests(route, outcome, reason),
            1,
            "{route} {outcome} {reason}"
        );
        let labels = [("route", route), ("outcome", outcome)];
        assert_eq!(
            gateway.metric("hookward_request_duration_seconds_count", &labels),
            Some(1)
        );
    }
    let code = |route: &str, code: &str| {
        gateway.metric(
            "hookward_upstream_requests_total",
            &[("route", route), ("code", code)],
        )
    };
    assert_eq!(
        (code("github", "200"), code("open", "503")),
        (Some(1), Some(1))
    );
    assert_eq!(
        gateway.metric(
            "hookward_upstream_request_duration_seconds_count",
            &[("route", "open")]
        ),
        Some(1)
    );
    let accepted = gateway
        .metric(
            "hookward_route_last_accepted_timestamp_seconds",
            &[("route", "github")],
        )
        .unwrap();
    let accepted = i64::try_from(accepted).unwrap();
    assert!((before..=now()).contains(&accepted), "{accepted}");
}

#[test]
fn no_request_makes_a_series() {
    // SECURITY DS-27
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let series = || {
        gateway
            .admin("/metrics")
            .text()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    gateway.post("/nowhere", &[], b"x");
    gateway.plain().exchange("GET", "/open", &[], b"");
    let before = series();
    for n in 0..50 {
        let (path, host, method) = (
            format!("/nowhere-{n}"),
            format!("h{n}.example"),
            format!("M{n}"),
        );
        gateway
            .plain()
            .exchange("POST", &path, &[("Host", &host)], b"");
        gateway
            .plain()
            .exchange(&method, "/open", &[("User-Agent", &path)], b"");
    }
    assert_eq!(series(), before);
}

#[test]
fn every_event_has_every_field() {
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    let check = |event: &Value| {
        for field in FIELDS {
            assert!(event.get(field).is_some(), "`{field}` is missing: {event}");
        }
        assert!(event["duration_ms"].as_f64().unwrap() > 0.0 && event["bytes_in"].is_number());
        assert_eq!(event["client_ip"], "127.0.0.1");
    };
    let (name, value) = github(b"abc");
    let answer = gateway.post(
        "/github?a=1",
        &[(&name, &value), ("X-GitHub-Delivery", "d-1")],
        b"abc",
    );
    let event = gateway.forwarded(&answer, 200);
    check(&event);
    for (field, expected) in [
        ("route", "github"),
        ("provider", "github"),
        ("outcome", "forwarded"),
        ("method", "POST"),
        ("path", "/github"),
        ("key_id", "now"),
        ("event_id", "d-1"),
    ] {
        assert_eq!(event[field], expected, "{field}");
    }
    assert_eq!(
        (
            event["bytes_in"].as_u64(),
            event["status"].as_u64(),
            event["upstream_status"].as_u64()
        ),
        (Some(3), Some(200), Some(200))
    );

    let event = gateway.refused(
        &gateway.plain().exchange("GET", "/nowhere", &[], b""),
        404,
        "route_not_found",
    );
    check(&event);
    assert_eq!(
        (
            event["route"].as_str(),
            event["method"].as_str(),
            event["bytes_in"].as_u64()
        ),
        (Some("_none"), Some("GET"), Some(0))
    );
    for field in ["provider", "event_id", "key_id", "upstream_status"] {
        assert_eq!(event[field], Value::Null, "{field}");
    }
    let malformed = gateway
        .plain()
        .last_answer(b"POST /open HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let event = gateway.refused(&malformed, 400, "malformed_request");
    check(&event);
    assert_eq!(
        (event["route"].as_str(), event["path"].as_str()),
        (Some("_none"), Some("/open"))
    );
}

#[test]
fn events_cannot_be_forged_from_outside() {
    // SECURITY L-07
    let app = App::start();
    let routes = format!(
        "  - name: all
    match: {{ path: \"/{{*rest}}\", methods: [POST] }}
    verify: [{{ provider: github, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{}\"
",
        app.url()
    );
    let gateway = Gateway::start(&config(&routes));
    let (name, value) = github(b"x");
    let long = format!("/{}", "p".repeat(2000));
    let id = format!("1\",\"route\":\"forged{}", "i".repeat(2000));
    gateway.forwarded(
        &gateway.post(
            &long,
            &[
                (&name, &value),
                ("X-GitHub-Delivery", &id),
                ("User-Agent", "1\" 2"),
            ],
            b"x",
        ),
        200,
    );
    let stdout = gateway.stdout();
    assert_eq!(stdout.lines().count(), 1);
    assert!(stdout.len() < 2000, "fields are cut");
    let event: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(event["route"], "all");
    assert!(
        event["event_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("1\",\"route\":\"forged"))
            || event["event_id"].is_null()
    );
}

#[test]
fn text_for_people() {
    let app = App::start();
    let gateway = Gateway::start_as(
        &config(&two_routes(&app)),
        &["--log-format", "text"],
        &[],
        |_| {},
    );
    assert_eq!(gateway.post("/github", &[], b"x").status, 401);
    let line = eventually("a line", || {
        (gateway.events() == 1).then(|| gateway.stdout())
    });
    assert!(serde_json::from_str::<Value>(&line).is_err());
    for word in ["401", "POST", "/github", "signature_missing", "127.0.0.1"] {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

#[test]
fn the_admin_listener_has_its_pages_and_no_route() {
    // SECURITY L-12
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    for page in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.admin(page).status, 200, "{page}");
        let mut wire = Wire::plain(gateway.address("admin"));
        assert_eq!(wire.exchange("POST", page, &[], b"").status, 405, "{page}");
        for mut data in [gateway.plain(), gateway.tls()] {
            assert_eq!(
                data.exchange("GET", page, &[], b"").status,
                404,
                "{page} on a data listener"
            );
        }
    }
    for path in ["/open", "/", "/github"] {
        assert_eq!(gateway.admin(path).status, 404);
        assert_eq!(
            Wire::plain(gateway.address("admin"))
                .exchange("POST", path, &[], b"x")
                .status,
            404
        );
    }
    app.saw_nothing();
}

#[test]
fn a_reader_of_the_log_that_has_gone_stops_nothing() {
    // SECURITY DS-26, S-23
    let app = App::start();
    let script = "exec \"$0\" \"$@\" >/dev/full";
    let gateway = Gateway::start_through(&["sh", "-c", script], &config(&two_routes(&app)));
    for _ in 0..5 {
        assert_eq!(gateway.post("/open", &[], b"x").status, 200);
    }
    eventually("lost events are counted", || {
        (gateway.metric("hookward_access_log_dropped_total", &[]) >= Some(1)).then_some(())
    });
    assert_eq!(app.count(), 5);
}
