//! Sockets and notifications of a service manager.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::support::{App, Gateway, Wire, config, open_route};

fn receiver(dir: &tempfile::TempDir) -> (UnixDatagram, String) {
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    (socket, path.to_str().unwrap().to_owned())
}

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes).expect("a notification");
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn the_manager_is_told_when_it_serves_reloads_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, path) = receiver(&dir);
    let app = App::start();
    let good = config(&open_route(&app));
    let mut gateway = Gateway::start_with(&good, &[("NOTIFY_SOCKET", &path)], |_| {});
    assert_eq!(next(&socket), "READY=1");
    assert_eq!(gateway.post("/open", &[], b"x").status, 200);
    // A file that cannot be used ends a reload as well, or its manager would wait for ever.
    for (file, result) in [(good.as_str(), "success"), ("version: 2\n", "failure")] {
        gateway.reload_by(result, || {
            gateway.replace("hookward.yaml", file);
            gateway.signal("HUP");
        });
        let reloading = next(&socket);
        assert!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reloading}"
        );
        assert_eq!(next(&socket), "READY=1");
    }
    gateway.signal("TERM");
    let mut last = next(&socket);
    // SIGHUP and the watched folder may each have caused a load.
    while last != "STOPPING=1" {
        last = next(&socket);
    }
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn a_passed_socket_is_served_by_its_name() {
    let app = App::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // Connections that came before there was anybody to accept them are served.
    let mut early = Wire::plain(address);
    let gateway = Gateway::start_activated(
        &config(&open_route(&app)),
        socket,
        &[("LISTEN_FDNAMES", "http")],
    );
    assert_eq!(gateway.address("http"), address);
    assert_eq!(early.exchange("POST", "/open", &[], b"x").status, 200);
    for _ in 0..10 {
        assert_eq!(
            gateway.plain().exchange("POST", "/open", &[], b"x").status,
            200
        );
    }
    assert_eq!(
        gateway.post("/open", &[], b"x").status,
        200,
        "others are bound"
    );
    assert_eq!(app.count(), 12);
    // It outlives a reload that takes its listener away and one that brings it back.
    let with = config(&open_route(&app));
    let without = with.replace("  http: { address: 127.0.0.1:0, plaintext: allow }\n", "");
    gateway.reload(&without, "success");
    let mut waiting = Wire::plain(address);
    gateway.reload(&with, "success");
    assert_eq!(waiting.exchange("POST", "/open", &[], b"x").status, 200);
}

#[test]
fn a_passed_socket_is_served_by_its_address_and_otherwise_named() {
    let app = App::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = config(&open_route(&app));
    let fixed = config.replace(
        "http: { address: 127.0.0.1:0",
        &format!("http: {{ address: \"{address}\""),
    );
    let gateway = Gateway::start_activated(&fixed, socket.try_clone().unwrap(), &[]);
    assert_eq!(
        gateway.plain().exchange("POST", "/open", &[], b"x").status,
        200
    );
    drop(gateway);
    let gateway = Gateway::start_activated(&config, socket, &[]);
    assert!(
        gateway.stderr().contains("no listener takes this socket"),
        "{}",
        gateway.stderr()
    );
    assert!(TcpStream::connect(address).is_ok(), "it waits");
}
