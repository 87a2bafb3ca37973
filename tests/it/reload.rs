//! A new configuration, secret or certificate while requests are served; a bad one changes nothing.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::support::redis::free_port;
use super::support::{
    App, Authority, Gateway, RawH2, Reply, SECRET, StreamEnd, Tls, Wire, config, eventually,
    github, github_route, hmac_hex, open_route, two_routes,
};

#[test]
fn a_changed_file_is_loaded_by_itself() {
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    assert_eq!(
        (gateway.reloads("success"), gateway.reloads("failure")),
        (0, 0)
    );
    gateway.refused(
        &gateway.post_github("/github", b"x"),
        404,
        "route_not_found",
    );
    let address = gateway.address("https");
    gateway.reload(&config(&two_routes(&app)), "success");
    gateway.forwarded(&gateway.post_github("/github", b"x"), 200);
    assert_eq!(gateway.address("https"), address, "the socket is the same");
    // Open connections follow too.
    let mut open: Wire = gateway.tls();
    assert_eq!(open.exchange("POST", "/open", &[], b"x").status, 200);
    gateway.reload(&config(&github_route(&app)), "success");
    assert_eq!(open.exchange("POST", "/open", &[], b"x").status, 404);
    assert_eq!(gateway.reloads("failure"), 0);
    assert_eq!(app.count(), 2);
}

#[test]
fn a_listener_that_goes_tells_its_connections_and_one_in_its_place_takes_them_over() {
    let app = App::start();
    let listener = |name: &str, port: u16| {
        format!(
            "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners: {{ {name}: {{ address: \"127.0.0.1:{port}\", plaintext: allow }} }}
routes:
{}",
            open_route(&app)
        )
    };
    let (port, third, other) = (free_port(), free_port(), free_port());
    let gateway = Gateway::start(&listener("http", port));
    let mut kept = gateway.plain();
    let answer = kept.exchange("POST", "/open", &[], b"x");
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    // Another name at the same address: whoever is connected is served by it, and told to connect anew.
    gateway.reload(&listener("renamed", port), "success");
    let answer = kept.exchange("POST", "/open", &[], b"x");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    // The same name at another address: the old one is not to be kept open by whoever never leaves.
    let mut kept = Wire::plain(gateway.address("renamed"));
    assert_eq!(kept.exchange("POST", "/open", &[], b"x").status, 200);
    gateway.reload(&listener("renamed", third), "success");
    let answer = kept.exchange("POST", "/open", &[], b"x");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    // None at all: what was allowed is allowed no longer.
    let mut kept = Wire::plain(([127, 0, 0, 1], third).into());
    assert_eq!(kept.exchange("POST", "/open", &[], b"x").status, 200);
    gateway.reload(&listener("http", other), "success");
    let answer = kept.exchange("POST", "/open", &[], b"x");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (403, Some("close"))
    );
}

#[test]
fn sighup_loads_even_what_did_not_change() {
    // SECURITY S-22
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    gateway.reload_by("success", || gateway.signal("HUP"));
    gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
}

#[test]
fn a_bad_file_changes_nothing_and_its_problems_are_logged() {
    // SECURITY S-11, A-01, A-02
    let app = App::start();
    let good = config(&two_routes(&app));
    let gateway = Gateway::start(&good);
    for (bad, word) in [
        (good.replace("version: 1", "version: 1\nrouts: []"), "routs"),
        (good.replace("routes:", "routes: [}"), "hookward.yaml"),
        (
            good.replace(&format!("value:{SECRET}"), "env:NO_SUCH_VARIABLE"),
            "NO_SUCH_VARIABLE",
        ),
        (
            good.replace(&format!("value:{SECRET}"), "file:DIR/no-such-secret"),
            "no-such-secret",
        ),
        (
            good.replace(
                "self_signed: [localhost, 127.0.0.1, hooks.example.org, other.example.org]",
                "certificates: [{ cert: no.pem, key: no.key }]",
            ),
            "no.pem",
        ),
        (
            good.replace("provider: github", "provider: githab"),
            "githab",
        ),
        (String::new(), "hookward.yaml"),
    ] {
        assert_ne!(bad, good);
        gateway.reload(&bad, "failure");
        eventually("the problem is logged", || {
            gateway.stderr().contains(word).then_some(())
        });
        gateway.forwarded(&gateway.post("/open", &[], b"x"), 200);
        gateway.forwarded(&gateway.post_github("/github", b"x"), 200);
        assert_eq!(gateway.admin("/readyz").status, 200);
        assert!(
            !gateway.stderr().contains(SECRET),
            "the log repeats a secret"
        );
    }
    assert_eq!(gateway.reloads("success"), 0);
    gateway.reload(&good.replace("/open", "/opened"), "success");
    gateway.forwarded(&gateway.post("/opened", &[], b"x"), 200);
}

#[test]
fn a_port_that_is_taken_is_a_bad_file() {
    // SECURITY S-11, S-20
    let app = App::start();
    let good = config(&open_route(&app));
    let gateway = Gateway::start(&good);
    let taken = good.replace(
        "http: { address: 127.0.0.1:0",
        &format!("http: {{ address: \"{}\"", app.address()),
    );
    assert_ne!(taken, good);
    gateway.reload(&taken, "failure");
    gateway.forwarded(&gateway.plain().exchange("POST", "/open", &[], b"x"), 200);
    // Nothing is shared with it.
    assert!(!gateway.stderr().contains("part of the connections"));
}

#[test]
fn folders_that_are_not_there_are_one_line_of_the_log() {
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let secrets: Vec<_> = (1..=5)
        .map(|n| format!("\"file:DIR/absent-{n}/secret\""))
        .collect();
    let absent = format!(
        "  - name: absent
    match: {{ path: /absent }}
    verify: [{{ provider: github, secrets: [{}] }}]
    upstream: echo
",
        secrets.join(", ")
    );
    gateway.reload(&config(&(open_route(&app) + &absent)), "failure");
    let lines = eventually("the folders are logged", || {
        let log = gateway.stderr();
        let lines = log
            .lines()
            .filter(|line| line.contains("cannot be watched"));
        let lines: Vec<_> = lines.map(str::to_owned).collect();
        (!lines.is_empty()).then_some(lines)
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    let shown = |n: usize| lines[0].contains(&format!("/absent-{n}"));
    assert!(shown(1) && shown(3) && !shown(4), "{lines:?}");
}

fn signed_by_file(app: &App) -> String {
    config(&format!(
        "  - name: github
    match: {{ path: /github }}
    verify: [{{ provider: github, secrets: [{{ id: k, from: \"file:DIR/secret\" }}] }}]
    upstream: \"{}\"
",
        app.url()
    ))
}

#[test]
fn a_changed_secret_file_is_the_secret() {
    // SECURITY, S-14
    let app = App::start();
    let gateway = Gateway::start_with(&signed_by_file(&app), &[], |dir| {
        fs::write(dir.join("secret"), format!("{SECRET}\n")).unwrap();
    });
    let ask = |secret: &str| {
        gateway.post(
            "/github",
            &[(
                "X-Hub-Signature-256",
                &format!("sha256={}", hmac_hex("sha256", secret, b"x")),
            )],
            b"x",
        )
    };
    gateway.forwarded(&ask(SECRET), 200);
    let next = "the next secret, as long as any";
    gateway.reload_by("success", || gateway.replace("secret", next));
    gateway.refused(&ask(SECRET), 401, "signature_mismatch");
    gateway.forwarded(&ask(next), 200);
    // Emptied or gone, the last good one stays.
    for nothing in ["\n", "\u{feff}", "\"\""] {
        gateway.reload_by("failure", || gateway.replace("secret", nothing));
        gateway.forwarded(&ask(next), 200);
        gateway.refused(&ask(nothing), 401, "signature_mismatch");
    }
    // The key of no byte is the key of zeros (RFC 2104 2).
    gateway.refused(&ask(&"\0".repeat(64)), 401, "signature_mismatch");
    gateway.reload_by("failure", || {
        fs::remove_file(gateway.dir().join("secret")).unwrap();
    });
    gateway.forwarded(&ask(next), 200);
    gateway.reload_by("success", || gateway.replace("secret", SECRET));
    gateway.forwarded(&ask(SECRET), 200);
    assert_eq!(app.count(), 7);
}

#[test]
fn a_secret_behind_a_switched_link_is_noticed() {
    // SECURITY T-04, S-22: as Kubernetes swaps mounted secrets.
    let app = App::start();
    let config = signed_by_file(&app).replace("file:DIR/secret", "file:DIR/mount/secret");
    let gateway = Gateway::start_with(&config, &[], |dir| {
        for (version, secret) in [("v1", SECRET), ("v2", "the next secret, as long as any")] {
            let folder = dir.join("mount").join(version);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("secret"), secret).unwrap();
        }
        std::os::unix::fs::symlink("v1", dir.join("mount/..data")).unwrap();
        std::os::unix::fs::symlink("..data/secret", dir.join("mount/secret")).unwrap();
    });
    gateway.forwarded(&gateway.post_github("/github", b"x"), 200);
    gateway.reload_by("success", || {
        let mount = gateway.dir().join("mount");
        std::os::unix::fs::symlink("v2", mount.join("..next")).unwrap();
        fs::rename(mount.join("..next"), mount.join("..data")).unwrap();
    });
    gateway.refused(
        &gateway.post_github("/github", b"x"),
        401,
        "signature_mismatch",
    );
}

fn with_files(app: &App) -> String {
    format!(
        "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners:
  https: {{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: tls.pem, key: tls.key }}] }} }}
routes:
{}",
        open_route(app)
    )
}

#[test]
fn a_changed_certificate_is_served_and_no_connection_breaks() {
    // SECURITY T-02, T-04
    let app = App::start();
    let authority = Authority::new();
    let (first, second) = (
        authority.issue(&["localhost"]),
        authority.issue_until(&["localhost"], 2060),
    );
    let gateway = Gateway::start_with(&with_files(&app), &[], |dir| first.write(dir, "tls"));
    let address = gateway.address("https");
    let served = || {
        Tls::default()
            .connect(address)
            .unwrap()
            .session
            .unwrap()
            .certificate
    };
    assert_eq!(served(), first.chain[0]);
    let mut open = gateway.tls();
    assert_eq!(open.exchange("POST", "/open", &[], b"x").status, 200);

    // Half a swap is a bad configuration: the old pair is served.
    gateway.reload_by("failure", || gateway.replace("tls.key", &second.key_pem));
    assert_eq!(served(), first.chain[0]);
    gateway.reload_by("success", || gateway.replace("tls.pem", &second.cert_pem));
    assert_eq!(served(), second.chain[0]);
    let ends = gateway.metric(
        "hookward_tls_certificate_not_after_timestamp_seconds",
        &[("name", "tls.pem")],
    );
    assert_eq!(ends, Some(2_840_140_800));
    gateway.reload_by("failure", || gateway.replace("tls.pem", "no certificate"));
    assert_eq!(served(), second.chain[0]);
    assert_eq!(open.exchange("POST", "/open", &[], b"x").status, 200);
    assert_eq!(app.count(), 2);
}

#[test]
fn requests_under_way_finish_under_the_configuration_that_took_them() {
    // SECURITY S-13
    let app = App::start();
    let gateway = Gateway::start(&config(&two_routes(&app)));
    app.script([Reply::AfterGate(
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_vec(),
    )]);
    let (name, value) = github(b"xyz");
    let mut half = gateway.plain();
    let head = format!("POST /github HTTP/1.1\r\nHost: localhost\r\n{name}: {value}\r\n");
    half.send(format!("{head}Content-Length: 3\r\n\r\nx").as_bytes());
    gateway.wait_for_metric("hookward_requests_in_flight", 1);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| gateway.post("/open", &[], b"x"));
        app.wait_for(1);
        // The routes go, and one listener with them.
        let without =
            config("  - { name: echo, match: { path: /echo }, verify: none, upstream: echo }\n");
        let without: Vec<&str> = without
            .lines()
            .filter(|line| !line.starts_with("  http:"))
            .collect();
        let without = without.join("\n");
        gateway.reload(&without, "success");
        assert_eq!(gateway.post("/open", &[], b"x").status, 404);
        eventually("the listener is gone", || {
            (!gateway.accepts("http")).then_some(())
        });
        app.open_gate();
        assert_eq!(waiting.join().unwrap().text(), "late");
    });
    half.send(b"yz");
    assert_eq!(half.answer().unwrap().status, 200);
    assert_eq!(app.count(), 2);
}

#[test]
fn connections_of_a_listener_that_is_gone_are_judged_as_they_were_and_end() {
    // SECURITY RT-31: without its `trusted_proxies`, `deny_ips` would not see whom a proxy speaks for
    let app = App::start();
    let listener = |name: &str, port: u16| {
        format!(
            "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners:
  {name}:
    address: \"127.0.0.1:{port}\"
    trusted_proxies: [127.0.0.0/8]
    tls: {{ self_signed: [localhost] }}
routes:
  - name: open
    match: {{ path: /open }}
    deny_ips: [203.0.113.9]
    verify: none
    upstream: \"{}\"
",
            app.url()
        )
    };
    let gateway = Gateway::start(&listener("https", free_port()));
    let mut raw = RawH2::open(gateway.address("https"));
    let client = [("x-forwarded-for", &b"203.0.113.9"[..])];
    let mut refused = |stream: u32| {
        raw.post(stream, b"/open", &client, b"x");
        let event = gateway.event();
        assert_eq!(
            (event["reason"].as_str(), event["client_ip"].as_str()),
            (Some("source_denied"), Some("203.0.113.9"))
        );
    };
    refused(1);
    gateway.reload(&listener("edge", free_port()), "success");
    refused(3);
    assert_eq!(raw.end_of(u32::MAX), StreamEnd::GoAway(0));
    app.saw_nothing();
}

#[test]
fn listeners_come_and_change() {
    let app = App::start();
    let gateway = Gateway::start(&config(&open_route(&app)));
    let more = config(&open_route(&app)).replace(
        "plaintext: allow }",
        "plaintext: reject }\n  extra: { address: 127.0.0.1:0, plaintext: allow }",
    );
    let mut open = gateway.plain();
    assert_eq!(open.exchange("POST", "/open", &[], b"x").status, 200);
    gateway.reload(&more, "success");
    assert_eq!(
        open.exchange("POST", "/open", &[], b"x").status,
        403,
        "an open connection follows its listener"
    );
    let extra = eventually("the new listener is told", || {
        gateway
            .stderr()
            .contains("extra")
            .then(|| gateway.address("extra"))
    });
    assert_eq!(
        Wire::plain(extra)
            .exchange("POST", "/open", &[], b"x")
            .status,
        200
    );
    assert_eq!(app.count(), 2);
}

/// Delivers to `/github`, ten requests on each connection, and counts them.
fn send_until(done: &AtomicBool, gateway: &Gateway) -> usize {
    let (name, value) = github(b"x");
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        let mut wire = gateway.tls();
        for _ in 0..10 {
            let answer = wire.exchange("POST", "/github", &[(&name, &value)], b"x");
            assert_eq!(answer.status, 200);
            sent += 1;
        }
    }
    sent
}

#[test]
fn no_request_fails_while_reloads_come_and_go() {
    // SECURITY S-12
    let app = App::start();
    let one = config(&two_routes(&app));
    let other = one.replace("id: now", "id: later");
    let gateway = Gateway::start(&one);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let senders: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| send_until(&done, &gateway)))
            .collect();
        for round in 0..6 {
            gateway.reload(if round % 2 == 0 { &other } else { &one }, "success");
            gateway.reload_by("success", || gateway.signal("HUP"));
        }
        done.store(true, Ordering::Relaxed);
        let sent: usize = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .sum();
        assert_eq!(app.count(), sent);
    });
    // Series of both ids are there, and none of a third.
    for id in ["now", "later"] {
        let labels = [("route", "github"), ("key_id", id)];
        assert!(
            gateway
                .metric("hookward_verification_key_used_total", &labels)
                .is_some()
        );
    }
}

#[test]
fn limits_of_a_client_outlive_a_reload() {
    let app = App::start();
    let limited = |path: &str| {
        config(&format!(
            "  - name: limited
    match: {{ path: {path} }}
    rate_limits: [{{ key: client_ip, rate: 1/h, burst: 1 }}]
    verify: none
    upstream: \"{}\"
",
            app.url()
        ))
    };
    let gateway = Gateway::start(&limited("/a"));
    gateway.forwarded(&gateway.post("/a", &[], b"x"), 200);
    gateway.reload(&limited("/b"), "success");
    gateway.refused(&gateway.post("/b", &[], b"x"), 429, "rate_limited");
    assert_eq!(app.count(), 1);
}
