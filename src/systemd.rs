//! The service manager's side of the process: sockets that it opened, and what it is told.
//!
//! Both are systemd's protocols, spoken by other managers too (podman, dinit), and both
//! are absent when the variables are.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

use listenfd::ListenFd;

use crate::clock;

/// Whoever started the process.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, UnixAddr)>,
    passed: Vec<Passed>,
}

/// What the manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything is bound and requests are served.
    Ready,
    /// A configuration is being put into force; `Ready` follows.
    Reloading,
    /// The drain has begun.
    Stopping,
}

/// A listening socket that the manager opened. It stays open as long as the process, as it does in
/// the manager: while nobody accepts, connections wait in it.
#[derive(Debug)]
struct Passed {
    name: Option<String>,
    address: SocketAddr,
    listener: TcpListener,
}

impl ServiceManager {
    /// By `NOTIFY_SOCKET`, and by `LISTEN_FDS` with their `LISTEN_FDNAMES`. Called while there is one
    /// thread: `LISTEN_FDS` is taken out of the environment.
    pub fn new(notify_socket: Option<&str>, names: Option<&str>) -> io::Result<Self> {
        let socket = match notify_socket.filter(|path| !path.is_empty()) {
            None => None,
            Some(path) => Some((UnixDatagram::unbound()?, address(path)?)),
        };
        let mut descriptors = ListenFd::from_env();
        let mut names = names.unwrap_or_default().split(':');
        let mut passed = Vec::new();
        for index in 0..descriptors.len() {
            let name = names.next().filter(|name| !name.is_empty());
            let Some(listener) = descriptors.take_tcp_listener(index)? else {
                continue;
            };
            listener.set_nonblocking(true)?;
            passed.push(Passed {
                name: name.map(str::to_owned),
                address: listener.local_addr()?,
                listener,
            });
        }
        Ok(Self { socket, passed })
    }

    /// The socket for a listener: the one that bears its name, else the one on its address.
    pub fn listener(&self, name: &str, address: SocketAddr) -> Option<io::Result<TcpListener>> {
        let passed = self.find(name, address)?;
        Some(passed.listener.try_clone())
    }

    /// Whether it has a socket for a listener.
    pub fn holds(&self, name: &str, address: SocketAddr) -> bool {
        self.find(name, address).is_some()
    }

    fn find(&self, name: &str, address: SocketAddr) -> Option<&Passed> {
        let named = |passed: &&Passed| passed.name.as_deref() == Some(name);
        let there = |passed: &&Passed| passed.address == address;
        let passed = self.passed.iter().find(named);
        passed.or_else(|| self.passed.iter().find(there))
    }

    /// Addresses of sockets that no listener of this configuration takes.
    pub fn unclaimed<'a>(
        &'a self,
        taken: &'a [SocketAddr],
    ) -> impl Iterator<Item = SocketAddr> + 'a {
        let addresses = self.passed.iter().map(|passed| passed.address);
        addresses.filter(|address| !taken.contains(address))
    }

    /// Tells the manager. It may have gone: serving does not depend on it.
    pub fn tell(&self, state: State) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        let message = match state {
            State::Ready => "READY=1".to_owned(),
            // The time tells a manager which of its requests this answers.
            State::Reloading => {
                let now = clock::since_boot().as_micros();
                format!("RELOADING=1\nMONOTONIC_USEC={now}")
            }
            State::Stopping => "STOPPING=1".to_owned(),
        };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, "the service manager cannot be told: {state:?}");
        }
    }
}

/// A path, or with `@` a name that has no file.
fn address(path: &str) -> io::Result<UnixAddr> {
    match path.strip_prefix('@') {
        Some(name) => UnixAddr::from_abstract_name(name),
        None => UnixAddr::from_pathname(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(name: Option<&str>) -> Passed {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Passed {
            name: name.map(str::to_owned),
            address: listener.local_addr().unwrap(),
            listener,
        }
    }

    #[test]
    fn a_socket_is_found_by_its_name_and_else_by_its_address() {
        let manager = ServiceManager {
            socket: None,
            passed: vec![passed(Some("hookward.socket")), passed(Some("https"))],
        };
        let addresses: Vec<_> = manager.passed.iter().map(|one| one.address).collect();
        let find = |name: &str, address| {
            let found = manager.listener(name, address)?;
            Some(found.unwrap().local_addr().unwrap())
        };
        assert_eq!(find("https", addresses[0]), Some(addresses[1]));
        assert_eq!(find("http", addresses[0]), Some(addresses[0]));
        assert_eq!(find("http", "127.0.0.1:1".parse().unwrap()), None);
        let unclaimed: Vec<_> = manager.unclaimed(&addresses[1..]).collect();
        assert_eq!(unclaimed, addresses[..1]);
    }

    #[test]
    fn the_manager_is_told_by_path_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("hookward-test-{}", std::process::id());
        for (receiver, address) in [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.to_str().unwrap().to_owned(),
            ),
            (
                UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}"),
            ),
        ] {
            let socket = (
                UnixDatagram::unbound().unwrap(),
                super::address(&address).unwrap(),
            );
            let manager = ServiceManager {
                socket: Some(socket),
                passed: Vec::new(),
            };
            let told = |state| {
                manager.tell(state);
                let mut bytes = [0; 128];
                let length = receiver.recv(&mut bytes).unwrap();
                String::from_utf8(bytes[..length].to_vec()).unwrap()
            };
            assert_eq!(told(State::Ready), "READY=1");
            assert_eq!(told(State::Stopping), "STOPPING=1");
            let reloading = told(State::Reloading);
            let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
            assert!(time.unwrap().parse::<u64>().unwrap() > 0, "{reloading}");
        }
        ServiceManager::default().tell(State::Ready);
    }
}
