//! The wall clock of the machine is set while it serves.

use std::fs;
use std::path::Path;

use super::support::{
    App, Gateway, SECRET, Wire, config, eventually, faketime, now, pause, stripe,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Sets the gateway's clock to so many seconds from ours.
fn set(file: &Path, offset: i64) {
    let next = file.with_extension("next");
    fs::write(&next, format!("{offset:+}\n")).unwrap();
    fs::rename(next, file).unwrap();
    // It is looked up with each call: by now by all of them.
    pause(std::time::Duration::from_millis(20));
}

fn start(app: &App, file: &Path) -> Gateway {
    let routes = format!(
        "  - name: in
    match: {{ path: /in }}
    verify: [{{ provider: stripe, secrets: [\"value:{SECRET}\"] }}]
    upstream: \"{}\"
  - name: limited
    match: {{ path: /limited }}
    verify: none
    upstream: echo
    rate_limits: [{{ key: client_ip, rate: 1/h, burst: 1 }}]
",
        app.url()
    );
    let library = faketime();
    let env = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    Gateway::start_with(&config(&routes), &env, |_| {})
}

fn deliver(wire: &mut Wire, body: &[u8], signed_at: i64) -> u16 {
    let value = stripe(body, signed_at);
    wire.exchange("POST", "/in", &[("Stripe-Signature", &value)], body)
        .status
}

#[test]
fn verdicts_follow_the_clock_and_timers_do_not() {
    // SECURITY S-06, T-12
    let (app, dir) = (App::start(), tempfile::tempdir().unwrap());
    let file = dir.path().join("offset");
    set(&file, 0);
    let gateway = start(&app, &file);
    let mut wire = gateway.tls();
    let first_at = now();
    assert_eq!(deliver(&mut wire, b"first", first_at), 200);
    for status in [200, 429] {
        assert_eq!(wire.exchange("POST", "/limited", &[], b"").status, status);
    }
    let mut before = 0;
    for offset in [HOUR, -HOUR, 2 * DAY, -2 * DAY, 10 - now(), 0] {
        set(&file, offset);
        let body = format!("at {offset}");
        assert_eq!(
            deliver(&mut wire, body.as_bytes(), now() + offset),
            200,
            "{offset}"
        );
        assert_eq!(deliver(&mut wire, b"late", now() + before), 401, "{offset}");
        let limited = wire.exchange("POST", "/limited", &[], b"").status;
        assert_eq!(limited, 429, "{offset}: a limit that jumped with the clock");
        before = offset;
    }
    let delivered = app.count();
    assert_eq!(deliver(&mut wire, b"first", first_at), 200);
    assert_eq!(
        app.count(),
        delivered,
        "a window that jumped with the clock"
    );
    // It looks every ten seconds, and has been set back by more than fifty years.
    set(&file, -HOUR);
    eventually("a warning", || {
        gateway
            .stderr()
            .contains("the wall clock was set")
            .then_some(())
    });
    assert!(
        !gateway.stderr().contains("panicked"),
        "{}",
        gateway.stderr()
    );
}
