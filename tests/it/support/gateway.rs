//! The binary as a child process.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::{Answer, H2, Tls, Wire, eventually, github};

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    dir: tempfile::TempDir,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
    events_read: AtomicUsize,
}

impl Gateway {
    /// Starts the binary with `config` and waits until it is ready. `DIR` in it is its folder.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[], |_| {})
    }

    /// As [`Gateway::start`], with environment variables and files made in its folder first.
    pub fn start_with(config: &str, env: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        Self::start_as(config, &[], env, prepare)
    }

    /// As [`Gateway::start_with`], with further arguments.
    pub fn start_as(
        config: &str,
        arguments: &[&str],
        env: &[(&str, &str)],
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
        command.envs(env.iter().copied()).stdin(Stdio::null());
        Self::spawn(command, config, arguments, prepare)
    }

    /// Starts the binary by way of another command, which gets it and its arguments as its own.
    pub fn start_through(wrapper: &[&str], config: &str) -> Self {
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(env!("CARGO_BIN_EXE_hookward"))
            .stdin(Stdio::null());
        Self::spawn(command, config, &[], |_| {})
    }

    /// Starts the binary as a service manager does: with a listening socket as descriptor 3.
    pub fn start_activated(config: &str, socket: TcpListener, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null";
        command
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_hookward")])
            .envs(env.iter().copied())
            .stdin(OwnedFd::from(socket));
        Self::spawn(command, config, &[], |_| {})
    }

    fn spawn(
        mut command: Command,
        config: &str,
        arguments: &[&str],
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let file = dir.path().join("hookward.yaml");
        fs::write(&file, config.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let mut child = command
            .args(["run", "-c"])
            .arg(&file)
            .args(arguments)
            .env_remove("HOOKWARD_CONFIG")
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
            events_read: AtomicUsize::new(0),
        };
        eventually("the gateway is ready", || {
            if let Some(status) = gateway.child.try_wait().unwrap() {
                panic!("the gateway ended with {status}: {}", gateway.stderr());
            }
            let lines = gateway.stderr.lock().unwrap();
            let ready = |line: &String| line.contains("\"ready\"") || line.ends_with(" ready");
            lines.iter().any(ready).then_some(())
        });
        gateway
    }

    /// The address that a listener was bound to, as printed on stderr.
    pub fn address(&self, listener: &str) -> SocketAddr {
        eventually(&format!("the address of listener `{listener}`"), || {
            self.addresses().get(listener).copied()
        })
    }

    fn addresses(&self) -> HashMap<String, SocketAddr> {
        let lines = self.stderr.lock().unwrap();
        lines
            .iter()
            .filter_map(|line| listening_json(line).or_else(|| listening_text(line)))
            .collect()
    }

    /// A TLS connection to listener `https` that trusts anything: certificates are tested elsewhere.
    pub fn tls(&self) -> Wire {
        Tls::default().connect(self.address("https")).unwrap()
    }

    /// A plain connection to listener `http`.
    pub fn plain(&self) -> Wire {
        Wire::plain(self.address("http"))
    }

    /// An HTTP/2 connection to listener `https`.
    pub fn h2(&self) -> H2 {
        H2::connect(self.address("https"))
    }

    /// One POST over TLS on a connection of its own.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.tls().exchange("POST", path, headers, body)
    }

    /// A POST to `path`, signed as GitHub signs.
    pub fn post_github(&self, path: &str, body: &[u8]) -> Answer {
        let (name, value) = github(body);
        self.post(path, &[(&name, &value)], body)
    }

    /// A page of the admin listener.
    pub fn admin(&self, path: &str) -> Answer {
        Wire::plain(self.address("admin")).exchange("GET", path, &[("Connection", "close")], b"")
    }

    /// The value of one series as it is written, by its name and its labels in any order.
    fn series(&self, name: &str, labels: &[(&str, &str)]) -> Option<String> {
        let page = self.admin("/metrics").text();
        let wanted: HashMap<&str, &str> = labels.iter().copied().collect();
        page.lines().find_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (own, list) = series.split_once('{').unwrap_or((series, ""));
            let labels = list
                .trim_end_matches('}')
                .split("\",")
                .filter(|label| !label.is_empty());
            let labels: HashMap<&str, &str> = labels
                .filter_map(|label| label.split_once("=\""))
                .map(|(name, value)| (name, value.trim_end_matches('"')))
                .collect();
            (own == name && labels == wanted).then(|| value.to_owned())
        })
    }

    /// The value of one series that counts; `None` when it is not there.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        self.series(name, labels)
            .map(|value| value.parse().unwrap())
    }

    /// `hookward_requests_total` of these labels; zero when the series is not there.
    pub fn requests(&self, route: &str, outcome: &str, reason: &str) -> u64 {
        let labels = [("route", route), ("outcome", outcome), ("reason", reason)];
        self.metric("hookward_requests_total", &labels).unwrap_or(0)
    }

    /// Waits until `hookward_requests_total` of these labels is `count`.
    pub fn wait_for_requests(&self, route: &str, outcome: &str, reason: &str, count: u64) {
        let what = format!("{count} x {route} {outcome} {reason}");
        eventually(&what, || {
            (self.requests(route, outcome, reason) >= count).then_some(())
        });
    }

    /// Waits until the gauge or counter without labels is `value`.
    pub fn wait_for_metric(&self, name: &str, value: u64) {
        self.wait_for_series(name, &[], value);
    }

    /// Waits until the metric of these labels has this value.
    pub fn wait_for_series(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        eventually(name, || {
            (self.metric(name, labels) == Some(value)).then_some(())
        });
    }

    /// The next access event that has not been asked for yet.
    pub fn event(&self) -> Value {
        let index = self.events_read.fetch_add(1, Ordering::Relaxed);
        eventually("an access event", || {
            let line = self.stdout.lock().unwrap().get(index).cloned()?;
            Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
        })
    }

    /// How many access events there are.
    pub fn events(&self) -> usize {
        self.stdout.lock().unwrap().len()
    }

    /// Asserts everything that a refusal owes: the sender's answer says nothing but status, title and
    /// request id; the access event and nobody else says why. Returns the event.
    pub fn refused(&self, answer: &Answer, status: u16, reason: &str) -> Value {
        let event = self.event();
        let found = format!(
            "{} {}\nevent {event}\nstderr {}",
            answer.status,
            answer.text(),
            self.stderr()
        );
        assert_eq!(event["reason"], reason, "{found}");
        assert_eq!(answer.status, status, "{found}");
        assert_eq!(event["outcome"], "rejected", "{found}");
        assert_eq!(event["status"], status, "{found}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{found}"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{found}");
        assert!(
            problem["title"]
                .as_str()
                .is_some_and(|title| !title.is_empty()),
            "{found}"
        );
        assert_eq!(problem["request_id"], event["request_id"], "{found}");
        let mut known: Vec<&String> = problem.as_object().unwrap().keys().collect();
        known.retain(|key| !matches!(key.as_str(), "status" | "title" | "request_id" | "type"));
        assert!(
            known.is_empty(),
            "the sender is told more than it needs: {found}"
        );
        assert!(
            !answer.text().contains(reason),
            "the sender is told the reason: {found}"
        );
        event
    }

    /// Asserts that the next access event is of a request forwarded and answered with `status`.
    pub fn forwarded(&self, answer: &Answer, status: u16) -> Value {
        let event = self.event();
        let found = format!(
            "{} {}\nevent {event}\nstderr {}",
            answer.status,
            answer.text(),
            self.stderr()
        );
        assert_eq!(event["outcome"], "forwarded", "{found}");
        assert_eq!(event["reason"], Value::Null, "{found}");
        assert_eq!(answer.status, status, "{found}");
        assert_eq!(event["status"], status, "{found}");
        assert_eq!(event["upstream_status"], status, "{found}");
        event
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

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A size that the kernel tells of the process, in KiB: `VmRSS` is the memory that is taken now.
    pub fn size(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap()
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

    /// Replaces a file in its folder in one step, as editors and Kubernetes do.
    pub fn replace(&self, file: &str, content: &str) {
        let next = self.dir.path().join(format!("{file}.next"));
        fs::write(
            &next,
            content.replace("DIR", self.dir.path().to_str().unwrap()),
        )
        .unwrap();
        fs::rename(next, self.dir.path().join(file)).unwrap();
    }

    /// How many reloads had this result: `success`, `failure`.
    pub fn reloads(&self, result: &str) -> u64 {
        self.metric("hookward_config_reloads_total", &[("result", result)])
            .unwrap()
    }

    /// Does what makes the gateway reload, and waits for a reload of that result.
    pub fn reload_by(&self, result: &str, change: impl FnOnce()) {
        let before = self.reloads(result);
        change();
        eventually(&format!("a reload with {result}"), || {
            (self.reloads(result) > before).then_some(())
        });
    }

    /// Replaces the configuration and waits for the reload of that result.
    pub fn reload(&self, config: &str, result: &str) {
        self.reload_by(result, || self.replace("hookward.yaml", config));
    }

    /// Waits for the process to end and returns its exit code.
    pub fn wait(&mut self) -> i32 {
        eventually("the process ends", || self.child.try_wait().unwrap())
            .code()
            .unwrap_or(-1)
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
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

/// `listening` events of the JSON log.
fn listening_json(line: &str) -> Option<(String, SocketAddr)> {
    let event: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| event.get(name)?.as_str();
    (field("message")? == "listening").then_some(())?;
    Some((
        field("listener")?.to_owned(),
        field("address")?.parse().ok()?,
    ))
}

/// `listening` events of the text log.
fn listening_text(line: &str) -> Option<(String, SocketAddr)> {
    let field = |name: &str| line.split(name).nth(1)?.split(' ').next();
    line.contains("listening").then_some(())?;
    Some((
        field("listener=")?.trim_matches('"').to_owned(),
        field("address=")?.parse().ok()?,
    ))
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
