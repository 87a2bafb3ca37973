//! The binary as a child process.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::{Answer, Wire, eventually};

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    dir: tempfile::TempDir,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Starts the binary with `config` and waits until it is ready. `DIR` in it is its folder.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[], |_| {})
    }

    /// As [`Gateway::start`], with environment variables and files made in its folder first.
    pub fn start_with(config: &str, env: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let file = dir.path().join("hookward.yaml");
        fs::write(&file, config.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookward"))
            .args(["run", "-c"])
            .arg(&file)
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let mut gateway = Self {
            child,
            dir,
            stdout,
            stderr,
        };
        eventually("the gateway is ready", || {
            if let Some(status) = gateway.child.try_wait().unwrap() {
                panic!("the gateway ended with {status}: {}", gateway.stderr());
            }
            gateway.stderr().contains("ready").then_some(())
        });
        gateway
    }

    /// The address that a listener was bound to, as printed on stderr.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.addresses()
            .get(listener)
            .copied()
            .unwrap_or_else(|| panic!("no address of listener `{listener}` in:\n{}", self.stderr()))
    }

    fn addresses(&self) -> HashMap<String, SocketAddr> {
        let lines = self.stderr.lock().unwrap();
        let events = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let field = |event: &Value, name: &str| {
            let value = event.get(name).or_else(|| event.get("fields")?.get(name))?;
            Some(value.as_str()?.to_owned())
        };
        events
            .filter(|event| field(event, "message").as_deref() == Some("listening"))
            .filter_map(|event| {
                Some((
                    field(&event, "listener")?,
                    field(&event, "address")?.parse().ok()?,
                ))
            })
            .collect()
    }

    /// A TLS connection to listener `https` that trusts anything: certificates are tested elsewhere.
    pub fn tls(&self) -> Wire {
        Wire::tls(self.address("https"), "localhost", &[b"http/1.1"])
    }

    /// A plain connection to listener `http`.
    pub fn plain(&self) -> Wire {
        Wire::plain(self.address("http"))
    }

    /// One POST over TLS on a connection of its own.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.tls().exchange("POST", path, headers, body)
    }

    /// A page of the admin listener.
    pub fn admin(&self, path: &str) -> Answer {
        Wire::plain(self.address("admin")).exchange("GET", path, &[("Connection", "close")], b"")
    }

    /// The value of the metric whose name and labels are `series`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let page = self.admin("/metrics").text();
        let line = page.lines().find(|line| {
            line.strip_prefix(series)
                .is_some_and(|r| r.starts_with(' '))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Access events, once there are `count` of them.
    pub fn events(&self, count: usize) -> Vec<Value> {
        eventually("access events", || {
            let lines = self.stdout.lock().unwrap();
            (lines.len() >= count).then(|| {
                lines
                    .iter()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect()
            })
        })
    }

    /// The last of `count` access events.
    pub fn last_event(&self, count: usize) -> Value {
        self.events(count).pop().unwrap()
    }

    /// Everything on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }

    /// Everything on stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().join("\n")
    }

    /// Its folder: configuration, secrets, certificates.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("hookward.yaml")
    }

    /// Sends a signal: `TERM`, `HUP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Replaces the configuration and waits for the reload of that result.
    pub fn reload(&self, config: &str, result: &str) {
        let series = format!("hookward_config_reloads_total{{result=\"{result}\"}}");
        let before = self.metric(&series).unwrap();
        let next = self.dir.path().join("next.yaml");
        fs::write(
            &next,
            config.replace("DIR", self.dir.path().to_str().unwrap()),
        )
        .unwrap();
        fs::rename(next, self.config()).unwrap();
        eventually("a reload", || {
            (self.metric(&series).unwrap() > before).then_some(())
        });
    }

    /// Waits for the process to end and returns its exit code.
    pub fn wait(&mut self) -> i32 {
        eventually("the process ends", || self.child.try_wait().unwrap())
            .code()
            .unwrap_or(-1)
    }

    /// Whether the port of a listener still accepts connections.
    pub fn accepts(&self, listener: &str) -> bool {
        TcpStream::connect(self.address(listener)).is_ok()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn collect(pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    lines
}
