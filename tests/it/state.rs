//! State that replicas share: two gateways and a real `redis-server`, with every fault it can have.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::support::redis::{ask, free_port};
use super::support::{
    Answer, App, Authority, Gateway, Redis, Reply, SECRET, Wire, config_with, eventually, pause,
};

/// `state` with this URL, deadline and `on_failure`.
fn state(url: &str, timeout: &str, on_failure: &str) -> String {
    format!(
        "state: {{ store: redis, redis: {{ url: \"value:{url}\", timeout: {timeout}, on_failure: {on_failure} }} }}"
    )
}

/// A deadline that a slow machine keeps, for tests without faults.
fn patient(redis: &Redis) -> String {
    state(redis.url(), "5s", "reject")
}

/// A route at `/in` that claims each delivery, with more of its keys, and an open one at `/open`.
fn routes(app: &App, more: &str) -> String {
    format!(
        "  - name: in
    match: {{ path: /in }}
    verify: [{{ provider: github, secrets: [\"value:{SECRET}\"] }}]
    upstream: app
{more}  - {{ name: open, match: {{ path: /open }}, verify: none, upstream: \"{}\" }}
",
        app.url()
    )
}

const REPLAY: &str = "    replay: { window: 10m }\n";

fn replica(app: &App, state: &str, more: &str) -> Gateway {
    let upstreams = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"], connect_timeout: 100ms }} }}",
        app.url()
    );
    let above = format!("{state}\n{upstreams}");
    Gateway::start(&config_with(&above, &routes(app, more)))
}

/// Thousands of signatures are not made by calling openssl; that ours agree with it is tested elsewhere.
fn signature(body: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, body);
    format!("sha256={}", data_encoding::HEXLOWER.encode(tag.as_ref()))
}

fn send_on(wire: &mut Wire, body: &[u8]) -> Answer {
    let value = signature(body);
    wire.exchange("POST", "/in", &[("X-Hub-Signature-256", &value)], body)
}

fn post(gateway: &Gateway, body: &[u8]) -> Answer {
    send_on(&mut gateway.plain(), body)
}

fn available(gateway: &Gateway, value: u64) {
    gateway.wait_for_metric("hookward_state_available", value);
}

/// Posts until it is forwarded; each attempt is another delivery.
fn recovers(gateway: &Gateway, what: &str) {
    let mut attempt = 0;
    eventually(what, || {
        attempt += 1;
        let answer = post(gateway, format!("{what} {attempt}").as_bytes());
        (answer.status == 200).then_some(())
    });
    available(gateway, 1);
}

fn operations(gateway: &Gateway, operation: &str, result: &str) -> u64 {
    let labels = [("operation", operation), ("result", result)];
    gateway
        .metric("hookward_state_operations_total", &labels)
        .unwrap()
}

fn warnings(gateway: &Gateway) -> usize {
    gateway
        .stderr()
        .matches("the shared state is not available")
        .count()
}

#[test]
fn two_replicas_forward_a_delivery_once() {
    // SECURITY A-26: 1,000 pairs, both halves at the same moment.
    const PAIRS: usize = 1000;
    const LANES: usize = 8;
    let (redis, app) = (Redis::start(), App::start());
    let state = patient(&redis);
    let replicas = [replica(&app, &state, REPLAY), replica(&app, &state, REPLAY)];
    let barriers: Vec<Barrier> = (0..LANES).map(|_| Barrier::new(2)).collect();
    let half = |gateway: &Gateway, lane: usize| -> Vec<u16> {
        let mut wire = gateway.plain();
        let pairs = (lane..PAIRS).step_by(LANES);
        let post = |pair: usize| {
            barriers[lane].wait();
            send_on(&mut wire, format!("pair {pair}").as_bytes()).status
        };
        pairs.map(post).collect()
    };
    let statuses: Vec<[u16; 2]> = thread::scope(|scope| {
        let (half, replicas) = (&half, &replicas);
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| [0, 1].map(|at| scope.spawn(move || half(&replicas[at], lane))))
            .collect();
        let halves = lanes
            .into_iter()
            .map(|lane| lane.map(|half| half.join().unwrap()));
        halves
            .flat_map(|[one, other]| one.into_iter().zip(other).map(|(one, other)| [one, other]))
            .collect()
    });
    assert_eq!(statuses.len(), PAIRS);
    for pair in &statuses {
        assert!(
            pair.contains(&200) && pair.iter().all(|status| matches!(status, 200 | 409)),
            "{pair:?}"
        );
    }
    let mut arrived: HashMap<Vec<u8>, usize> = HashMap::new();
    for seen in app.seen() {
        *arrived.entry(seen.body).or_default() += 1;
    }
    assert_eq!(arrived.len(), PAIRS, "lost");
    let twice: Vec<_> = arrived.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "forwarded twice: {twice:?}");
    let claims: u64 = replicas
        .iter()
        .map(|gateway| operations(gateway, "claim", "success"))
        .sum();
    assert_eq!(claims, 2000);
}

#[test]
fn a_duplicate_is_known_to_every_replica_and_after_a_restart() {
    // SECURITY
    let (redis, app) = (Redis::start(), App::start());
    let rejecting = "    replay: { window: 10m, on_duplicate: reject }\n";
    let first = replica(&app, &patient(&redis), REPLAY);
    first.forwarded(&post(&first, b"x"), 200);
    let second = replica(&app, &patient(&redis), REPLAY);
    assert_eq!(post(&second, b"x").status, 200);
    assert_eq!(second.event()["outcome"], "duplicate");
    drop((first, second));
    let third = replica(&app, &patient(&redis), rejecting);
    third.refused(&post(&third, b"x"), 409, "replayed");
    assert_eq!(app.count(), 1);
    // Every key says whose it is, and none lives for ever but the one that says since when.
    let keys: Vec<String> = redis.ask(&["KEYS", "*"]);
    assert!(keys.iter().all(|key| key.starts_with("hookward:")));
    for key in keys.iter().filter(|key| *key != "hookward:since") {
        let left: i64 = redis.ask(&["PTTL", key]);
        assert!((1..=601_000).contains(&left), "{key}: {left}");
    }
    assert_eq!(keys.len(), 2, "{keys:?}");
}

#[test]
fn a_failed_attempt_at_one_replica_leaves_the_next_one_to_any() {
    // SECURITY A-24
    let (redis, app) = (Redis::start(), App::start());
    let first = replica(&app, &patient(&redis), REPLAY);
    let second = replica(&app, &patient(&redis), REPLAY);
    app.script([Reply::status(500), Reply::RawThenClose(Vec::new())]);
    first.forwarded(&post(&first, b"x"), 500);
    second.refused(&post(&second, b"x"), 502, "upstream_aborted");
    first.forwarded(&post(&first, b"x"), 200);
    assert_eq!(post(&second, b"x").status, 200);
    assert_eq!(second.event()["outcome"], "duplicate");
    assert_eq!(app.count(), 3);
    assert_eq!(operations(&first, "release", "success"), 1);
}

#[test]
fn replicas_share_their_limits() {
    // SECURITY DS-23
    let (redis, app) = (Redis::start(), App::start());
    for key in ["client_ip", "route"] {
        let limit = format!("    rate_limits: [{{ key: {key}, rate: 1/h, burst: 20 }}]\n");
        let before = app.count();
        let replicas = [
            replica(&app, &patient(&redis), &limit),
            replica(&app, &patient(&redis), &limit),
        ];
        let answers: Vec<Answer> = thread::scope(|scope| {
            let lanes: Vec<_> = (0..8)
                .map(|lane| {
                    let gateway = &replicas[lane % 2];
                    scope.spawn(move || {
                        let mut wire = gateway.plain();
                        (0..10)
                            .map(|_| send_on(&mut wire, b"x"))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            lanes
                .into_iter()
                .flat_map(|lane| lane.join().unwrap())
                .collect()
        });
        let passed = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(passed, 20, "{key}");
        assert_eq!(app.count() - before, 20);
        for refused in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!(refused.status, 429);
            let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((3000..=3600).contains(&wait), "{wait}");
        }
    }
}

#[test]
fn a_shared_limit_refills_by_the_clock_of_the_server() {
    let (redis, app) = (Redis::start(), App::start());
    let limit = "    rate_limits: [{ key: client_ip, rate: 30/m, burst: 2 }]\n";
    let gateway = replica(&app, &patient(&redis), limit);
    for _ in 0..2 {
        gateway.forwarded(&post(&gateway, b"x"), 200);
    }
    let answer = post(&gateway, b"x");
    gateway.refused(&answer, 429, "rate_limited");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    pause(Duration::from_secs(wait));
    gateway.forwarded(&post(&gateway, b"x"), 200);
    // A bucket is forgotten when it is full again.
    let keys: Vec<String> = redis.ask(&["KEYS", "hookward:rate:in:client_ip:*"]);
    let left: i64 = redis.ask(&["PTTL", &keys[0]]);
    assert!((1..=4000).contains(&left), "{left}");
}

#[test]
fn a_replica_that_is_killed_frees_its_delivery_when_the_lease_ends() {
    // SECURITY S-03
    let (redis, app) = (Redis::start(), App::start());
    let more = format!("{REPLAY}    forward: {{ timeout: 300ms }}\n");
    let state = state(redis.url(), "1s", "reject");
    let mut first = replica(&app, &state, &more);
    let second = replica(&app, &state, &more);
    app.script([Reply::Silence]);
    let mut wire = first.plain();
    let value = signature(b"x");
    wire.write("POST", "/in", &[("X-Hub-Signature-256", &value)], b"x");
    app.wait_for(1);
    first.signal("KILL");
    first.wait();
    let start = Instant::now();
    let answer = post(&second, b"x");
    second.refused(&answer, 409, "delivery_in_flight");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    // 300 ms for the answer, 100 ms to connect, 5 s to settle and four times the timeout of Redis.
    assert!((1..=10).contains(&wait), "{wait}");
    pause(Duration::from_secs(wait));
    second.forwarded(&post(&second, b"x"), 200);
    assert!(start.elapsed().as_secs() < 20);
    assert_eq!(app.count(), 2);
}

#[test]
fn what_redis_did_not_take_is_settled_once_it_does() {
    // SECURITY S-04
    let (redis, app) = (Redis::start(), App::start());
    let gateway = replica(&app, &state(redis.url(), "1s", "reject"), REPLAY);
    recovers(&gateway, "at first");
    let before = app.count();
    let answer = |status: u16| {
        let text = format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n");
        Reply::AfterGate(text.into_bytes())
    };
    app.script([answer(500), answer(200)]);
    let nowhere = free_port().to_string();
    thread::scope(|scope| {
        let fails = scope.spawn(|| post(&gateway, b"fails"));
        app.wait_for(before + 1);
        let works = scope.spawn(|| post(&gateway, b"works"));
        app.wait_for(before + 2);
        let () = redis.ask(&["REPLICAOF", "127.0.0.1", &nowhere]);
        app.open_gate();
        assert_eq!(fails.join().unwrap().status, 500);
        assert_eq!(works.join().unwrap().status, 200);
    });
    for operation in ["release", "commit"] {
        assert!(operations(&gateway, operation, "failure") >= 1);
    }
    let () = redis.ask(&["REPLICAOF", "NO", "ONE"]);
    // Long before the lease of 35 s ends.
    eventually("the failed delivery passes", || {
        (post(&gateway, b"fails").status == 200).then_some(())
    });
    eventually("the other one is known", || {
        (post(&gateway, b"works").status == 200).then_some(())
    });
    let arrived = |body: &[u8]| app.seen().iter().filter(|seen| seen.body == body).count();
    assert_eq!((arrived(b"fails"), arrived(b"works")), (2, 1));
}

#[test]
fn a_drain_waits_for_redis_to_learn_what_was_delivered() {
    // SECURITY S-04: when the process has ended, nobody else can tell it
    let (redis, app) = (Redis::start(), App::start());
    let mut gateway = replica(&app, &state(redis.url(), "1s", "reject"), REPLAY);
    recovers(&gateway, "at first");
    let before = app.count();
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    app.script([Reply::AfterGate(text.into())]);
    let nowhere = free_port().to_string();
    thread::scope(|scope| {
        let works = scope.spawn(|| post(&gateway, b"works"));
        app.wait_for(before + 1);
        let () = redis.ask(&["REPLICAOF", "127.0.0.1", &nowhere]);
        app.open_gate();
        assert_eq!(works.join().unwrap().status, 200);
    });
    gateway.signal("TERM");
    eventually("it drains", || {
        gateway.stderr().contains("draining").then_some(())
    });
    let () = redis.ask(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(gateway.wait(), 0);
    assert!(gateway.stderr().contains("drained"), "{}", gateway.stderr());
    let next = replica(&app, &patient(&redis), REPLAY);
    let delivered = app.count();
    assert_eq!(post(&next, b"works").status, 200);
    assert_eq!(next.event()["outcome"], "duplicate");
    assert_eq!(app.count(), delivered);
}

#[test]
fn what_was_delivered_before_the_password_changed_is_told_with_the_new_one() {
    // SECURITY S-03, S-04
    let (redis, app) = (Redis::start(), App::start());
    let mut admin = redis.connect().unwrap();
    let mut changes_to = |password: &str| {
        let () = ask(&mut admin, &["CONFIG", "SET", "requirepass", password]);
        let _: i64 = ask(&mut admin, &["CLIENT", "KILL", "TYPE", "normal"]);
        let url = format!("redis://:{password}@127.0.0.1:{}", redis.port());
        let upstreams = format!("upstreams: {{ app: {{ servers: [\"{}\"] }} }}", app.url());
        let above = format!("{}\n{upstreams}", state(&url, "1s", "reject"));
        config_with(&above, &routes(&app, REPLAY))
    };
    let mut gateway = Gateway::start(&changes_to("old"));
    recovers(&gateway, "at first");
    let before = app.count();
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    app.script([Reply::AfterGate(text.into())]);
    let after = thread::scope(|scope| {
        let works = scope.spawn(|| post(&gateway, b"works"));
        app.wait_for(before + 1);
        let after = changes_to("new");
        app.open_gate();
        assert_eq!(works.join().unwrap().status, 200);
        after
    });
    gateway.reload(&after, "success");
    let other = Gateway::start(&after);
    let delivered = app.count();
    // Long before the lease of 35 s ends.
    eventually("it is known", || {
        (post(&other, b"works").status == 200).then_some(())
    });
    assert_eq!(app.count(), delivered);
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn a_key_that_cannot_be_read_costs_nobody_else_anything() {
    // SECURITY S-01: it is the call that fails, and not the server
    let (redis, app) = (Redis::start(), App::start());
    let gateway = replica(&app, &patient(&redis), REPLAY);
    recovers(&gateway, "at first");
    assert_eq!(post(&gateway, b"spoilt").status, 200);
    let keys: Vec<String> = redis.ask(&["KEYS", "*:claim:*"]);
    for key in &keys {
        let _: i64 = redis.ask(&["DEL", key]);
        let _: i64 = redis.ask(&["LPUSH", key, "no claim"]);
    }
    for turn in 0..40 {
        assert_eq!(post(&gateway, b"spoilt").status, 503);
        let other = format!("other {turn}");
        assert_eq!(post(&gateway, other.as_bytes()).status, 200, "{turn}");
    }
    available(&gateway, 1);
}

#[test]
fn without_redis_what_needs_it_is_refused_and_nothing_else() {
    // SECURITY S-01, S-02
    let (mut redis, app) = (Redis::start(), App::start());
    let limited = "    rate_limits: [{ key: client_ip, rate: 1000/s, burst: 1000 }]\n";
    let claiming = replica(&app, &state(redis.url(), "300ms", "reject"), REPLAY);
    let counting = replica(&app, &state(redis.url(), "300ms", "reject"), limited);
    for gateway in [&claiming, &counting] {
        recovers(gateway, "at first");
    }
    claiming.forwarded(&post(&claiming, b"known"), 200);
    let since = claiming.metric("hookward_state_since_timestamp_seconds", &[]);
    redis.kill();
    let before = app.count();
    for gateway in [&claiming, &counting] {
        for _ in 0..50 {
            let start = Instant::now();
            let answer = post(gateway, b"while it is down");
            assert_eq!(answer.status, 503);
            assert!(answer.header("retry-after").is_some());
            assert!(start.elapsed().as_secs() < 3, "{:?}", start.elapsed());
        }
        available(gateway, 0);
        let rejected = gateway.requests("in", "rejected", "state_unavailable");
        assert!(rejected >= 50, "{rejected}");
        assert_eq!(gateway.post("/open", &[], b"x").status, 200);
        assert_eq!(gateway.admin("/readyz").status, 200);
        eventually("a warning", || (warnings(gateway) >= 1).then_some(()));
        assert!(warnings(gateway) <= 3, "{}", gateway.stderr());
        // Nor does each request say so.
        let errors = gateway.stderr().matches("\"ERROR\"").count();
        assert!(errors <= 3, "{}", gateway.stderr());
    }
    assert_eq!(app.count(), before + 2);
    assert!(operations(&counting, "rate_limit", "failure") >= 50);
    // It comes back empty: what was known is forgotten, and the metric says since when.
    pause(Duration::from_millis(1100));
    redis.restart();
    for gateway in [&claiming, &counting] {
        recovers(gateway, "again");
    }
    claiming.wait_for_requests("in", "forwarded", "none", 1);
    assert!(claiming.metric("hookward_state_since_timestamp_seconds", &[]) > since);
    assert_eq!(post(&claiming, b"known").status, 200);
    assert!(
        app.seen()
            .iter()
            .filter(|seen| seen.body == b"known")
            .count()
            == 2
    );
}

#[test]
fn a_server_that_hangs_costs_no_more_than_the_timeout() {
    // SECURITY S-01
    let (redis, app) = (Redis::start(), App::start());
    let gateway = replica(&app, &state(redis.url(), "200ms", "reject"), REPLAY);
    recovers(&gateway, "at first");
    redis.signal("STOP");
    let slowest = (0..20)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(post(&gateway, b"while it hangs").status, 503);
            start.elapsed()
        })
        .max()
        .unwrap();
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    available(&gateway, 0);
    assert!(operations(&gateway, "claim", "timeout") >= 1);
    redis.signal("CONT");
    recovers(&gateway, "after the hang");
    // What timed out may have been taken all the same: it is given back, long before its lease ends.
    eventually("the delivery that hung is free", || {
        (post(&gateway, b"while it hangs").status == 200).then_some(())
    });
}

#[test]
fn a_server_that_refuses_is_as_good_as_none() {
    // SECURITY S-01: READONLY, wrong password, too many clients
    let app = App::start();
    let redis = Redis::start();
    let gateway = replica(&app, &state(redis.url(), "1s", "reject"), REPLAY);
    recovers(&gateway, "at first");
    let mut own = redis.connect().unwrap();
    let nowhere = free_port().to_string();
    let () = ask(&mut own, &["REPLICAOF", "127.0.0.1", &nowhere]);
    gateway.event();
    assert_eq!(post(&gateway, b"read only").status, 503);
    available(&gateway, 0);
    let () = ask(&mut own, &["REPLICAOF", "NO", "ONE"]);
    recovers(&gateway, "writable again");

    let () = ask(
        &mut own,
        &["CONFIG", "SET", "requirepass", "right-password"],
    );
    let url = redis.url().replace("://", "://:canary-password@");
    let wrong = replica(&app, &state(&url, "1s", "reject"), REPLAY);
    assert_eq!(post(&wrong, b"wrong password").status, 503);
    available(&wrong, 0);
    let () = ask(
        &mut own,
        &["CONFIG", "SET", "requirepass", "canary-password"],
    );
    recovers(&wrong, "the password is right now");
    let said = format!("{}{}", wrong.stdout(), wrong.stderr());
    assert!(!said.contains("canary-password"), "{said}");

    // One that does not know how to greet repeats what it was told.
    let old = Redis::start_with(&["--rename-command", "HELLO", ""]);
    let url = old.url().replace("://", "://user:canary-password@");
    let greeting = replica(
        &app,
        &state(&format!("{url}?protocol=resp3"), "1s", "reject"),
        REPLAY,
    );
    assert_eq!(post(&greeting, b"greeted").status, 503);
    eventually("it is told why", || {
        greeting.stderr().contains("HELLO").then_some(())
    });
    assert!(
        !greeting.stderr().contains("canary"),
        "{}",
        greeting.stderr()
    );

    let redis = Redis::start_with(&["--maxclients", "1"]);
    let mut own = eventually("the only place", || redis.connect().ok());
    let () = ask(&mut own, &["PING"]);
    let crowded = replica(&app, &state(redis.url(), "1s", "reject"), REPLAY);
    assert_eq!(post(&crowded, b"too many clients").status, 503);
    available(&crowded, 0);
    let () = ask(&mut own, &["CONFIG", "SET", "maxclients", "100"]);
    recovers(&crowded, "there is room again");
}

#[test]
fn a_server_that_talks_garbage_is_as_good_as_none() {
    // SECURITY S-01
    let app = App::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n\x00\xff"));
            drop(stream.read(&mut [0; 1024]));
        }
    });
    let gateway = replica(&app, &state(&url, "300ms", "reject"), REPLAY);
    for _ in 0..10 {
        gateway.refused(&post(&gateway, b"x"), 503, "state_unavailable");
    }
    available(&gateway, 0);
    assert_eq!(gateway.post("/open", &[], b"x").status, 200);
    assert_eq!(app.count(), 1);
}

#[test]
fn redis_may_come_after_the_gateway() {
    // SECURITY S-01
    let app = App::start();
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let gateway = replica(&app, &state(&url, "300ms", "reject"), REPLAY);
    available(&gateway, 0);
    gateway.refused(&post(&gateway, b"x"), 503, "state_unavailable");
    assert_eq!(gateway.admin("/readyz").status, 200);
    let _redis = Redis::start_on(port, &url, &[]);
    recovers(&gateway, "it has come");
    assert_eq!(post(&gateway, b"x").status, 200);
}

#[test]
fn on_its_own_a_replica_claims_and_counts_in_memory() {
    let app = App::start();
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let more = format!("{REPLAY}    rate_limits: [{{ key: route, rate: 1/h, burst: 3 }}]\n");
    let first = replica(&app, &state(&url, "300ms", "local"), &more);
    available(&first, 0);
    first.forwarded(&post(&first, b"x"), 200);
    assert_eq!(post(&first, b"x").status, 200);
    assert_eq!(first.event()["outcome"], "duplicate");
    for body in [b"y", b"z"] {
        first.forwarded(&post(&first, body), 200);
    }
    first.refused(&post(&first, b"w"), 429, "rate_limited");
    eventually("a warning", || (warnings(&first) >= 1).then_some(()));
    assert!(warnings(&first) <= 3, "{}", first.stderr());
    assert!(first.stderr().contains("on its own"), "{}", first.stderr());

    // Once it is there, it is told what was delivered meanwhile, and the limit is that of all.
    let redis = Redis::start_on(port, &url, &[]);
    available(&first, 1);
    eventually("the deliveries are told", || {
        let keys: Vec<String> = redis.ask(&["KEYS", "hookward:claim:*"]);
        (keys.len() == 3).then_some(())
    });
    let second = replica(&app, &state(&url, "5s", "local"), &more);
    assert_eq!(post(&second, b"x").status, 200);
    assert_eq!(second.event()["outcome"], "duplicate");
    first.forwarded(&post(&first, b"v"), 200);
    assert_eq!(app.count(), 4);
}

#[test]
fn a_reload_that_is_refused_does_not_show() {
    // SECURITY S-11
    let app = App::start();
    let gateway = replica(&app, "", REPLAY);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let above = format!(
        "{}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}",
        state(&nowhere, "1s", "reject"),
        app.url()
    );
    let never = "  - { name: never, match: { path: /never }, verify: none, upstream: echo }\n";
    let bad = config_with(&above, &format!("{}{never}", routes(&app, REPLAY)));
    let address = taken.local_addr().unwrap().to_string();
    gateway.reload(
        &bad.replace("127.0.0.1:0, plain", &format!("{address}, plain")),
        "failure",
    );
    assert_eq!(gateway.metric("hookward_state_available", &[]), Some(1));
    assert!(!gateway.admin("/metrics").text().contains("never"));
    assert_eq!(post(&gateway, b"x").status, 200);
}

#[test]
fn a_connection_that_was_closed_costs_no_delivery() {
    // SECURITY S-01: proxies and servers close what is idle, and a failover closes all
    let (redis, app) = (Redis::start(), App::start());
    let gateway = replica(&app, &patient(&redis), REPLAY);
    recovers(&gateway, "at first");
    let _closed: i64 = redis.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    for delivery in 0..8 {
        assert_eq!(post(&gateway, format!("{delivery}").as_bytes()).status, 200);
    }
}

#[test]
fn a_claim_that_is_asked_for_twice_is_the_same_claim() {
    // A client asks once more when the answer is lost on its way
    let redis = Redis::start();
    let script = include_str!("../../src/store/redis/claim.lua");
    let claim =
        |owner: &str| -> Vec<i64> { redis.ask(&["EVAL", script, "1", "delivery", owner, "60000"]) };
    assert_eq!(claim("ours"), [0, 0]);
    assert_eq!(claim("ours"), [0, 0]);
    let theirs = claim("theirs");
    assert!(theirs[0] == 2 && theirs[1] > 0, "{theirs:?}");
}

#[test]
fn a_reload_changes_where_state_is_kept() {
    let (redis, app) = (Redis::start(), App::start());
    let all = |state: &str, claiming: &str| {
        let upstreams = format!("upstreams: {{ app: {{ servers: [\"{}\"] }} }}", app.url());
        config_with(&format!("{state}\n{upstreams}"), &routes(&app, claiming))
    };
    let gateway = Gateway::start(&all("", REPLAY));
    gateway.forwarded(&post(&gateway, b"x"), 200);
    let clients = || -> usize {
        let list: String = redis.ask(&["CLIENT", "LIST"]);
        list.lines().count() - 1
    };
    assert_eq!(clients(), 0);
    gateway.reload(&all(&patient(&redis), REPLAY), "success");
    // Every worker has its connection before a request needs it, and so has the main thread.
    let workers = thread::available_parallelism().unwrap().get();
    eventually("all are connected", || {
        (clients() == workers + 1).then_some(())
    });
    available(&gateway, 1);
    // Another store, which has not seen it.
    gateway.forwarded(&post(&gateway, b"x"), 200);
    let other = replica(&app, &patient(&redis), REPLAY);
    assert_eq!(post(&other, b"x").status, 200);
    assert_eq!(other.event()["outcome"], "duplicate");
    drop(other);
    let connected = eventually("its connections alone", || {
        let ids: Vec<String> = ids(&redis);
        (!ids.is_empty()).then_some(ids)
    });
    // Nothing about state changed: the connections stay.
    let changed = "    replay: { window: 11m }\n";
    gateway.reload(&all(&patient(&redis), changed), "success");
    let after = ids(&redis);
    assert!(
        connected.iter().any(|id| after.contains(id)),
        "{connected:?} {after:?}"
    );
    // Back in memory: what was known there is known again, and Redis is left alone.
    gateway.reload(&all("state: { store: memory }", REPLAY), "success");
    let before = app.count();
    assert_eq!(post(&gateway, b"x").status, 200);
    assert_eq!(app.count(), before);
    eventually("the connections are closed", || {
        (clients() == 0).then_some(())
    });
    available(&gateway, 1);
}

/// Ids of the clients but the one who asks.
fn ids(redis: &Redis) -> Vec<String> {
    let mut own = redis.connect().unwrap();
    let own_id: u64 = ask(&mut own, &["CLIENT", "ID"]);
    let list: String = ask(&mut own, &["CLIENT", "LIST"]);
    let ids = list.lines().filter_map(|line| line.split(' ').next());
    ids.map(str::to_owned)
        .filter(|id| *id != format!("id={own_id}"))
        .collect()
}

/// A node of a cluster; one that is silent for a second counts as dead.
fn node() -> Redis {
    let bus = free_port().to_string();
    Redis::start_with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-require-full-coverage",
        "no",
        "--cluster-node-timeout",
        "1000",
        "--cluster-replica-validity-factor",
        "0",
    ])
}

/// Makes `node` known to the cluster of `other`.
fn meet(other: &Redis, node: &Redis) {
    let bus: Vec<String> = node.ask(&["CONFIG", "GET", "cluster-port"]);
    let port = node.port().to_string();
    let () = other.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus[1]]);
}

/// Three nodes with a third of the slots each.
fn cluster() -> [Redis; 3] {
    let nodes = [(); 3].map(|()| node());
    let slots = [["0", "5460"], ["5461", "10922"], ["10923", "16383"]];
    for (node, [from, to]) in nodes.iter().zip(slots) {
        let () = node.ask(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
        meet(&nodes[0], node);
    }
    eventually("the cluster is one", || {
        let known = |node: &Redis| {
            let info: String = node.ask(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_size:3")
        };
        nodes.iter().all(known).then_some(())
    });
    nodes
}

#[test]
fn a_cluster_shares_the_keys() {
    let (mut nodes, app) = (cluster(), App::start());
    let limit =
        format!("{REPLAY}    rate_limits: [{{ key: client_ip, rate: 1/h, burst: 1000 }}]\n");
    let start = |more: &str, timeout: &str| {
        let state = state(nodes[0].url(), timeout, "reject");
        let state = state.replace("timeout:", "cluster: true, timeout:");
        replica(&app, &state, more)
    };
    let replicas = [
        start(&limit, "5s"),
        start(&limit, "5s"),
        start(REPLAY, "500ms"),
    ];
    for number in 0..40 {
        let body = format!("delivery {number}");
        assert_eq!(post(&replicas[0], body.as_bytes()).status, 200);
        assert_eq!(post(&replicas[1], body.as_bytes()).status, 200);
    }
    assert_eq!(app.count(), 40);
    assert_eq!(replicas[1].requests("in", "duplicate", "none"), 40);
    for node in &nodes {
        let keys: Vec<String> = node.ask(&["KEYS", "hookward:claim:*"]);
        assert!(keys.len() > 3, "{keys:?}");
    }
    // One node that fails is not all of them.
    nodes[2].kill();
    let statuses: Vec<u16> = (0..30)
        .map(|number| post(&replicas[2], format!("later {number}").as_bytes()).status)
        .collect();
    let count = |status: u16| statuses.iter().filter(|own| **own == status).count();
    assert!(count(200) >= 5 && count(503) >= 1, "{statuses:?}");
    assert_eq!(count(200) + count(503), 30, "{statuses:?}");
}

#[test]
fn a_replica_that_takes_over_is_found_without_a_restart() {
    // SECURITY S-01
    let (mut nodes, app, replica_node) = (cluster(), App::start(), node());
    meet(&nodes[0], &replica_node);
    let id: String = nodes[2].ask(&["CLUSTER", "MYID"]);
    eventually("it follows", || {
        let mut own = replica_node.connect().unwrap();
        let asked = redis::cmd("CLUSTER")
            .arg(&["REPLICATE", &id])
            .query::<()>(&mut own);
        asked.ok()
    });
    eventually("it has caught up", || {
        let info: String = replica_node.ask(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    let start = |on_failure: &str| {
        let state = state(nodes[0].url(), "500ms", on_failure);
        let state = state.replace(
            "timeout:",
            &format!("cluster: true, prefix: {on_failure}, timeout:"),
        );
        replica(&app, &state, REPLAY)
    };
    let (rejecting, alone) = (start("reject"), start("local"));
    let statuses = |gateway: &Gateway, what: &str| -> Vec<u16> {
        let bodies = (0..20).map(|number| format!("{what} {number}"));
        bodies
            .map(|body| post(gateway, body.as_bytes()).status)
            .collect()
    };
    eventually("every key is claimed", || {
        let all_pass = |gateway| {
            statuses(gateway, "before")
                .iter()
                .all(|status| *status == 200)
        };
        (all_pass(&rejecting) && all_pass(&alone)).then_some(())
    });
    // Redis replicates behind the answer: what the replica has not been told it cannot know.
    let offset = |node: &Redis| -> Option<u64> {
        let info: String = node.ask(&["INFO", "replication"]);
        let mut lines = info.lines();
        lines.find_map(|line| {
            line.strip_prefix("master_repl_offset:")?
                .trim()
                .parse()
                .ok()
        })
    };
    eventually("the claims are replicated", || {
        (offset(&nodes[2])? == offset(&replica_node)?).then_some(())
    });
    let before = app.count();
    nodes[2].kill();
    let meanwhile = statuses(&rejecting, "meanwhile");
    assert!(meanwhile.contains(&503), "{meanwhile:?}");
    assert!(
        meanwhile.iter().all(|status| matches!(status, 200 | 503)),
        "{meanwhile:?}"
    );
    assert_eq!(statuses(&alone, "meanwhile"), [200; 20]);
    let mut attempt = 0;
    eventually("the replica is asked", || {
        attempt += 1;
        let found = statuses(&rejecting, &format!("after {attempt}"));
        found.iter().all(|status| *status == 200).then_some(())
    });
    available(&rejecting, 1);
    // What was delivered before is known to the node that took over.
    let delivered = app.count();
    assert!(delivered > before);
    assert_eq!(statuses(&rejecting, "before"), [200; 20]);
    assert_eq!(app.count(), delivered);
}

#[test]
fn a_node_that_goes_away_under_load_takes_its_own_keys_alone() {
    // SECURITY S-01: also where it is the one of the URL, and with more requests at once than the client has turns
    const AT_ONCE: usize = 200;
    let mut nodes = cluster();
    let gateways = ["reject", "local"].map(|on_failure| {
        let state = state(nodes[0].url(), "100ms", on_failure);
        let state = state.replace("timeout:", "cluster: true, timeout:");
        let route = format!(
            "  - name: in
    match: {{ path: /in }}
    verify: [{{ provider: github, secrets: [\"value:{SECRET}\"] }}]
    upstream: echo
{REPLAY}"
        );
        Gateway::start(&config_with(&state, &route))
    });
    for gateway in &gateways {
        available(gateway, 1);
    }
    let mut number = 0;
    let mut delivery = || {
        number += 1;
        format!("delivery {number}").into_bytes()
    };
    let mut wires: Vec<Wire> = (0..AT_ONCE)
        .flat_map(|_| gateways.each_ref().map(Gateway::plain))
        .collect();
    let mut storm = |during: Duration| {
        let end = Instant::now() + during;
        while Instant::now() < end {
            for wire in &mut wires {
                let body = delivery();
                let value = signature(&body);
                wire.write("POST", "/in", &[("X-Hub-Signature-256", &value)], &body);
            }
            for wire in &mut wires {
                wire.answer().expect("an answer");
            }
        }
    };
    storm(Duration::from_secs(1));
    nodes[0].kill();
    storm(Duration::from_secs(5));
    for gateway in &gateways {
        eventually("the keys of the others are claimed", || {
            let claimed = || operations(gateway, "claim", "success");
            let before = claimed();
            for _ in 0..20 {
                post(gateway, &delivery());
            }
            (claimed() - before >= 5).then_some(())
        });
    }
}

#[test]
fn tls_to_redis_is_verified() {
    let app = App::start();
    let (authority, other) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    authority.issue(&["localhost"]).write(dir.path(), "redis");
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(dir.path().join("other.pem"), other.pem()).unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (cert, key, ca, tls_port) = (
        file("redis.pem"),
        file("redis.key"),
        file("ca.pem"),
        free_port(),
    );
    let tls_port_text = tls_port.to_string();
    let _redis = Redis::start_with(&[
        "--tls-port",
        &tls_port_text,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ]);
    let state = |ca: &str| {
        state(&format!("rediss://localhost:{tls_port}"), "5s", "reject")
            .replace("timeout:", &format!("ca: \"{ca}\", timeout:"))
    };
    let good = replica(&app, &state(&ca), REPLAY);
    good.forwarded(&post(&good, b"x"), 200);
    let doubtful = replica(&app, &state(&file("other.pem")), REPLAY);
    doubtful.refused(&post(&doubtful, b"y"), 503, "state_unavailable");
}
