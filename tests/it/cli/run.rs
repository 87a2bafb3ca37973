//! `run`: starting, the demo without a configuration, and ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::super::support::eventually;
use super::{Shell, config};

const OPEN: &str = "  - { name: a, match: { path: /a }, verify: none, upstream: echo }\n";

/// A `run` under way; killed when dropped.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: String,
}

impl Running {
    fn start(shell: &Shell, args: &[&str]) -> Self {
        let mut child = shell
            .command(&[&["run"][..], args].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sender.send(line).ok();
            }
        });
        Self {
            child,
            lines,
            seen: String::new(),
        }
    }

    /// Everything on standard error, once a line of it holds `part`.
    fn until(&mut self, part: &str) -> String {
        while !self.seen.contains(part) {
            match self.lines.recv_timeout(Duration::from_secs(10)) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                }
                Err(error) => panic!("no `{part}` ({error}) in:\n{}", self.seen),
            }
        }
        self.seen.clone()
    }

    fn kill(&self, signal: &str) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args([signal, &id]).status();
        assert!(killed.unwrap().success());
    }

    fn end(mut self, signal: &str) -> Option<i32> {
        self.kill(signal);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn bound_addresses_and_ready_are_printed_whatever_the_filter() {
    for (format, filter) in [("json", ""), ("json", "off"), ("text", "error")] {
        let shell = Shell::new()
            .with("hookward.yaml", config(OPEN))
            .env("RUST_LOG", filter);
        let mut running = Running::start(&shell, &["--log-format", format]);
        let told = running.until("ready");
        let line = told
            .lines()
            .find(|line| line.contains("listening"))
            .unwrap();
        let (_, port) = line.split_once("127.0.0.1:").unwrap();
        let port: u16 = port
            .chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .unwrap();
        assert_ne!(port, 0, "{told}");
        assert!(
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(),
            "{told}"
        );
        assert_eq!(running.end("-TERM"), Some(0));
    }
}

#[test]
fn signals_that_come_while_the_configuration_is_read_kill_nobody() {
    // SECURITY S-10
    let route = |number: usize| {
        format!(
            "  - {{ name: r{number}, match: {{ path: /r{number} }}, verify: none, upstream: echo }}\n"
        )
    };
    let routes: String = (0..3000).map(route).collect();
    let shell = Shell::new().with("hookward.yaml", config(&routes));
    let running = Running::start(&shell, &[]);
    let id = running.child.id();
    eventually("it receives signals, SIGHUP the last", || {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught?.trim(), 16).unwrap();
        (caught & 1 != 0).then_some(())
    });
    for signal in ["-USR1", "-HUP"] {
        running.kill(signal);
    }
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn an_interrupt_ends_it_too() {
    let shell = Shell::new().with("hookward.yaml", config(OPEN));
    let mut running = Running::start(&shell, &[]);
    running.until("ready");
    assert_eq!(running.end("-INT"), Some(0));
}

#[test]
fn a_bad_configuration_exits_78() {
    let bad = Shell::new().with("hookward.yaml", "version: 1\nroutes: 5\n");
    let ended = bad.run(&["run"]).code(78);
    assert!(
        ended.stdout.is_empty() && ended.stderr.contains("hookward.yaml:2:"),
        "{ended:?}"
    );
    let ended = bad.run(&["run", "-c", "absent.yaml"]).code(78);
    assert!(ended.stderr.contains("absent.yaml"), "{ended:?}");
    let unset = Shell::new().with(
        "hookward.yaml",
        config(OPEN).replace("echo", "'${env:NOT_SET}'"),
    );
    assert!(unset.run(&["run"]).code(78).stderr.contains("NOT_SET"));
    // A mount that is missing is no first try, which the demo is for.
    let dangling = Shell::new();
    let link = dangling.command::<&str>(&[]);
    let link = link.get_current_dir().unwrap().join("hookward.yaml");
    std::os::unix::fs::symlink("nowhere/hookward.yaml", link).unwrap();
    let ended = dangling.run(&["run"]).code(78);
    assert!(ended.stderr.contains("there is no such file"), "{ended:?}");
}

#[test]
fn a_port_that_is_taken_exits_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let shell = Shell::new().with(
        "hookward.yaml",
        config(OPEN).replace("127.0.0.1:0", &address),
    );
    let ended = shell.run(&["run"]).code(1);
    assert!(ended.stderr.contains(&address), "{ended:?}");
    // SECURITY S-20: one of two is enough, and the other serves nobody.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = free.local_addr().unwrap();
    drop(free);
    let both = format!("listeners:\n  other: {{ address: {other}, plaintext: allow }}\n");
    let two = Shell::new().with(
        "hookward.yaml",
        config(OPEN)
            .replace("listeners:\n", &both)
            .replace("127.0.0.1:0", &address),
    );
    let ended = two.run(&["run"]).code(1);
    assert!(
        ended.stderr.contains(&address) && !ended.stderr.contains("\"ready\""),
        "{ended:?}"
    );
    assert!(std::net::TcpStream::connect(other).is_err());
    let ended = shell
        .env("RUST_LOG", "hookward=nonsense")
        .run(&["run"])
        .code(78);
    assert!(
        ended.stderr.contains("`RUST_LOG` is no log filter"),
        "{ended:?}"
    );
}

#[test]
fn a_second_process_takes_no_part_of_the_first_ones_probes() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let text = config(OPEN).replace(
        "version: 1\n",
        &format!("version: 1\nadmin: {{ address: {address} }}\n"),
    );
    let shell = Shell::new().with("hookward.yaml", text);
    let mut first = Running::start(&shell, &[]);
    first.until("ready");
    let second = shell.run(&["run"]).code(1);
    let told = format!("the admin listener cannot listen on {address}");
    assert!(second.stderr.contains(&told), "{second:?}");
    assert_eq!(first.end("-TERM"), Some(0));
}

#[test]
fn without_a_configuration_it_shows_how_to_try_it() {
    let shell = Shell::new()
        .env("HOOKWARD_ADDRESS", "127.0.0.1:0")
        .env("HOOKWARD_ADMIN_ADDRESS", "127.0.0.1:0")
        .env(
            "PATH",
            &std::env::var_os("PATH").unwrap().into_string().unwrap(),
        );
    let mut running = Running::start(&shell, &[]);
    running.until("ready");
    let told = running.until("hookward run -c FILE");
    let line = |start: &str| {
        told.lines()
            .map(str::trim)
            .find(|line| line.contains(start))
            .unwrap_or_else(|| panic!("{told}"))
            .to_owned()
    };
    let paste = |command: &str| {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let curl = line("curl -sS -k");
    let (code, answer) = paste(&curl);
    assert_eq!(code, Some(0), "{answer}");
    assert!(
        answer.contains("x-hookward-verified") && answer.contains("provider:github"),
        "{answer}"
    );
    let (_, answer) = paste(&curl.replace("logically", "illogically"));
    assert!(answer.contains("\"status\":401"), "{answer}");
    let send = line("hookward send").replace(
        "hookward send",
        &format!("{} send", env!("CARGO_BIN_EXE_hookward")),
    );
    let (code, answer) = paste(&send);
    assert_eq!(code, Some(0), "{answer}");
    assert!(
        answer.starts_with("200 OK\n") && answer.contains("provider:github"),
        "{answer}"
    );
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn the_demo_is_an_example_that_can_be_copied() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/quickstart.yaml");
    let shell = Shell::new();
    let ended = shell.run(&["validate", "-c", file]).code(1);
    assert!(ended.stderr.contains("HOOKWARD_DEMO_SECRET"), "{ended:?}");
    let shell = shell.env("HOOKWARD_DEMO_SECRET", "a secret of my own webhook");
    let ended = shell.run(&["validate", "-c", file]).code(0);
    assert!(ended.stderr.contains("(0 errors, 0 warnings)"), "{ended:?}");
}
