//! A real `redis-server` as a child process, on a free port of the loopback.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::eventually;

/// A running server that keeps nothing on disk; killed when dropped.
pub struct Redis {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
    arguments: Vec<String>,
    /// What tests ask it with.
    url: String,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Redis::start`], with more of its options.
    pub fn start_with(arguments: &[&str]) -> Self {
        // Whatever runs beside it may take the port in between.
        let started = (0..5).find_map(|_| {
            let port = free_port();
            Self::try_start_on(port, &format!("redis://127.0.0.1:{port}"), arguments).ok()
        });
        started.expect("redis-server starts, on one of five ports")
    }

    /// As [`Redis::start_with`] on this port; `url` is how tests reach it.
    pub fn start_on(port: u16, url: &str, arguments: &[&str]) -> Self {
        let started = Self::try_start_on(port, url, arguments);
        started.unwrap_or_else(|status| panic!("redis-server ended with {status}"))
    }

    fn try_start_on(port: u16, url: &str, arguments: &[&str]) -> Result<Self, ExitStatus> {
        let dir = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        let mut server = Self {
            child: spawn(dir.path(), port, &arguments),
            dir,
            port,
            arguments,
            url: url.to_owned(),
        };
        server.wait().map(|()| server)
    }

    /// Waits until it says that it answers, or ends instead. Where its port is taken, somebody else answers there.
    fn wait(&mut self) -> Result<(), ExitStatus> {
        eventually("redis-server answers", || {
            let said = fs::read_to_string(log(self.dir.path())).unwrap_or_default();
            if said.contains("Ready to accept connections") {
                return Some(Ok(()));
            }
            self.child.try_wait().unwrap().map(Err)
        })
    }

    /// How gateways reach it.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection of the test's own.
    pub fn connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())
            .unwrap()
            .get_connection_with_timeout(Duration::from_secs(5))
    }

    /// Asks it something on a new connection.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        ask(&mut self.connect().unwrap(), words)
    }

    /// Kills it; nothing is kept.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port, empty.
    pub fn restart(&mut self) {
        self.child = spawn(self.dir.path(), self.port, &self.arguments);
        let started = self.wait();
        started.unwrap_or_else(|status| panic!("redis-server ended with {status}"));
    }

    /// Sends a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks something on a connection.
pub fn ask<T: redis::FromRedisValue>(connection: &mut redis::Connection, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command
        .query(connection)
        .unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn log(dir: &Path) -> PathBuf {
    dir.join("log")
}

fn spawn(dir: &Path, port: u16, arguments: &[String]) -> Child {
    let port = port.to_string();
    drop(fs::remove_file(log(dir)));
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port])
        .args(["--save", "", "--appendonly", "no"])
        .arg("--logfile")
        .arg(log(dir))
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}
