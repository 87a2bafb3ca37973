//! A gateway under test: the real binary, real sockets, real TLS, on free ports of the loopback.
#![expect(
    unreachable_pub,
    reason = "`pub` is what test files may use of a helper"
)]

pub mod app;
pub mod authority;
pub mod data_path;
pub mod gateway;
pub mod h2;
pub mod redis;
pub mod wire;

pub use self::redis::Redis;
pub use app::{App, Reply};
pub use authority::Authority;
pub use data_path::{World, data_path, loaded};
pub use gateway::Gateway;
pub use h2::{H2, RawH2, StreamEnd};
pub use wire::{Answer, Tls, Wire, any_certificate};

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::{BASE64, HEXLOWER};

/// A fixed secret for GitHub-style signatures.
pub const SECRET: &str = "an example secret of 32 characters";

/// A configuration with a TLS listener, a plain one that serves, an admin listener and these routes,
/// which stand two columns in.
pub fn config(routes: &str) -> String {
    format!("{}routes:\n{routes}", listeners())
}

/// What makes another program's clock ours to set (Debian: faketime). The command of that name leaves the
/// program behind when it is killed.
pub fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap();
    let mut files =
        folders.map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let found = files.find(|file| file.exists());
    found.expect("libfaketime is installed")
}

/// As [`config`], with more top-level keys before the routes.
pub fn config_with(more: &str, routes: &str) -> String {
    format!("{}{more}\nroutes:\n{routes}", listeners())
}

fn listeners() -> &'static str {
    "version: 1
admin: { address: 127.0.0.1:0 }
listeners:
  https:
    address: 127.0.0.1:0
    tls: { self_signed: [localhost, 127.0.0.1, hooks.example.org, other.example.org] }
  http: { address: 127.0.0.1:0, plaintext: allow }
"
}

/// An open route at `/open` and one signed as GitHub signs at `/github`, both to `app`.
pub fn two_routes(app: &App) -> String {
    format!("{}{}", open_route(app), github_route(app))
}

/// A route without checks at `/open`.
pub fn open_route(app: &App) -> String {
    format!(
        "  - {{ name: open, match: {{ path: /open }}, verify: none, upstream: \"{}\" }}\n",
        app.url()
    )
}

/// A route at `/github`, signed as GitHub signs.
pub fn github_route(app: &App) -> String {
    format!(
        "  - name: github
    match: {{ path: /github }}
    verify: [{{ provider: github, secrets: [{{ id: now, from: \"value:{SECRET}\" }}] }}]
    upstream: \"{}\"
",
        app.url()
    )
}

/// HMAC by openssl, an implementation that is not ours.
pub fn hmac(algorithm: &str, secret: &[u8], content: &[u8]) -> Vec<u8> {
    let key = HEXLOWER.encode(secret);
    let mut openssl = Command::new("openssl")
        .args([
            "dgst",
            &format!("-{algorithm}"),
            "-binary",
            "-mac",
            "HMAC",
            "-macopt",
        ])
        .arg(format!("hexkey:{key}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(content).unwrap();
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// [`hmac`] as lower-case hex.
pub fn hmac_hex(algorithm: &str, secret: &str, content: &[u8]) -> String {
    HEXLOWER.encode(&hmac(algorithm, secret.as_bytes(), content))
}

/// [`hmac`] as base64.
pub fn hmac_base64(algorithm: &str, secret: &[u8], content: &[u8]) -> String {
    BASE64.encode(&hmac(algorithm, secret, content))
}

/// Name and value of the header by which GitHub signs `body` with [`SECRET`].
pub fn github(body: &[u8]) -> (String, String) {
    (
        "X-Hub-Signature-256".to_owned(),
        format!("sha256={}", hmac_hex("sha256", SECRET, body)),
    )
}

/// Stripe's header for `body` at `time`, signed with [`SECRET`].
pub fn stripe(body: &[u8], time: i64) -> String {
    let signed = [time.to_string().as_bytes(), b".", body].concat();
    format!("t={time},v1={}", hmac_hex("sha256", SECRET, &signed))
}

/// `Basic` credentials.
pub fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64.encode(format!("{user}:{password}").as_bytes())
    )
}

/// Header lines with these values.
pub fn numbered_fields(values: impl IntoIterator<Item = String>) -> String {
    let mut fields = String::new();
    for (n, value) in values.into_iter().enumerate() {
        write!(fields, "X-{n}: {value}\r\n").unwrap();
    }
    fields
}

/// Unix seconds.
#[expect(
    clippy::disallowed_methods,
    reason = "tests sign for the clock of the gateway's process"
)]
pub fn now() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// Waits for a condition that another process brings about; fails loudly after 15 seconds.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed().as_secs() < 15, "not within 15 s: {what}");
        pause(Duration::from_millis(5));
    }
}

/// Lets time pass where nothing can be waited for: between two bytes of a slow sender.
pub fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}
