//! A gateway under test: the real binary, real sockets, real TLS, on free ports of the loopback.

pub mod app;
pub mod gateway;
pub mod wire;

pub use app::App;
pub use gateway::Gateway;
pub use wire::{Answer, Wire};

/// A fixed secret for GitHub-style signatures.
pub const SECRET: &str = "an example secret of 32 characters";

/// HMAC by openssl, an implementation that is not ours, as lower-case hex.
pub fn hmac_hex(algorithm: &str, secret: &str, content: &[u8]) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut openssl = Command::new("openssl")
        .args(["dgst", &format!("-{algorithm}"), "-mac", "HMAC", "-macopt"])
        .arg(format!("key:{secret}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(content).unwrap();
    let output = openssl.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().rsplit(' ').next().unwrap().to_owned()
}

/// The header by which GitHub signs `body` with [`SECRET`].
pub fn github(body: &[u8]) -> (String, String) {
    (
        "X-Hub-Signature-256".to_owned(),
        format!("sha256={}", hmac_hex("sha256", SECRET, body)),
    )
}

/// Waits for a condition that another process brings about; fails loudly after ten seconds.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed().as_secs() < 10, "not within 10 s: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}
