//! Names of upstreams: several addresses, dead ones, and addresses that change.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use super::support::{App, Gateway, config, config_with, eventually, pause};

/// A gateway that looks names up in `DIR/hosts` of its own, by the system's resolver.
fn start(config: &str, dir: &Path, hosts: &str) -> Gateway {
    let file = dir.join("hosts");
    fs::write(&file, hosts).unwrap();
    let script = format!(
        "mount --bind '{}' /etc/hosts && exec \"$@\"",
        file.display()
    );
    let wrapper = [
        "unshare",
        "--mount",
        "--map-root-user",
        "sh",
        "-c",
        &script,
        "sh",
    ];
    Gateway::start_through(&wrapper, config)
}

fn route(port: u16) -> String {
    format!(
        "  - {{ name: open, match: {{ path: /open }}, verify: none, \
           upstream: \"http://app.internal:{port}\" }}\n"
    )
}

#[test]
fn every_address_of_a_name_is_tried() {
    // SECURITY U-18
    // The resolver puts ::1 and 127.0.0.1 first, where nobody listens.
    let app = App::on(TcpListener::bind("127.0.0.9:0").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let hosts = "::1 app.internal\n127.0.0.1 app.internal\n127.0.0.9 app.internal\n";
    let gateway = start(&config(&route(app.address().port())), dir.path(), hosts);
    for _ in 0..3 {
        assert_eq!(gateway.post("/open", &[], b"x").status, 200);
    }
    assert_eq!(app.count(), 3);
}

#[test]
fn a_dead_address_costs_little() {
    // SECURITY U-18
    // A full backlog swallows connections, as an address behind a broken route does. It is at the
    // address that the resolver puts first.
    let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let address: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    dead.bind(&address.into()).unwrap();
    dead.listen(0).unwrap();
    let port = dead.local_addr().unwrap().as_socket().unwrap().port();
    let app = App::on(TcpListener::bind(("127.0.0.8", port)).unwrap());
    let full: Vec<_> = (0..4)
        .map(|_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            drop(socket.connect(&dead.local_addr().unwrap()));
            socket
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let hosts = "127.0.0.1 app.internal\n127.0.0.8 app.internal\n";
    let upstreams = format!(
        "upstreams: {{ app: {{ servers: [\"http://app.internal:{port}\"], connect_timeout: 10s }} }}"
    );
    let route = "  - { name: open, match: { path: /open }, verify: none, upstream: app }\n";
    let gateway = start(&config_with(&upstreams, route), dir.path(), hosts);
    let begun = Instant::now();
    assert_eq!(gateway.post("/open", &[], b"x").status, 200);
    let waited = begun.elapsed().as_millis();
    assert!(
        (240..9900).contains(&waited),
        "{waited} ms: a head start, and not connect_timeout"
    );
    assert_eq!(app.count(), 1);
    drop(full);
}

#[test]
fn a_changed_address_is_used_within_thirty_seconds_however_busy_the_old_one_is() {
    // SECURITY U-18
    let old = App::start();
    let port = old.address().port();
    let new = App::on(TcpListener::bind(("127.0.0.7", port)).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let config = config_with("limits: { idle_timeout: 60s }", &route(port));
    let gateway = start(&config, dir.path(), "127.0.0.1 app.internal\n");
    let mut wire = gateway.plain();
    assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    assert_eq!(old.connections(), 1);
    fs::write(dir.path().join("hosts"), "127.0.0.7 app.internal\n").unwrap();
    let begun = Instant::now();
    // Twice a second: the connection is never idle for long enough to be dropped for that.
    while new.count() == 0 {
        assert!(begun.elapsed().as_secs() < 30, "still at the old address");
        pause(Duration::from_millis(500));
        assert_eq!(wire.exchange("POST", "/open", &[], b"x").status, 200);
    }
    assert_eq!(old.connections(), 1, "until then one connection is kept");
    assert!(old.count() > 10);
}

#[test]
fn a_name_without_addresses_is_unreachable_and_comes_back() {
    // SECURITY U-18
    let app = App::start();
    let dir = tempfile::tempdir().unwrap();
    let gateway = start(&config(&route(app.address().port())), dir.path(), "\n");
    gateway.refused(
        &gateway.post("/open", &[], b"x"),
        502,
        "upstream_unreachable",
    );
    fs::write(dir.path().join("hosts"), "127.0.0.1 app.internal\n").unwrap();
    eventually("the name has an address", || {
        (gateway.post("/open", &[], b"x").status == 200).then_some(())
    });
}
