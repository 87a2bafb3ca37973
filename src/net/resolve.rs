//! Looks up the addresses of names.
//!
//! The system's resolver blocks a thread for as long as its server does not answer, which may be half a minute. So
//! there is one look-up of a name at a time, however many deliveries wait for it, and few look-ups of all names, on
//! threads of their own: a resolver that hangs delays nothing else.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::catch_unwind;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::watch;

use crate::shares::unbracketed;

/// Names that are looked up at the same time.
const LOOKUPS_MAX: usize = 16;
/// Names that may wait to be looked up.
const WAITING_MAX: usize = 1024;

/// What a look-up found; the error is a text, because it is given to all that wait.
type Found = Result<Arc<[SocketAddr]>, (io::ErrorKind, Arc<str>)>;

static RESOLVER: LazyLock<Resolver> = LazyLock::new(|| Resolver::new(system));

/// The addresses of a host, which is a name or an address.
pub(super) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = unbracketed(host);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = RESOLVER.look_up(host).await?;
    let with_port = |address: &SocketAddr| {
        let mut address = *address;
        address.set_port(port);
        address
    };
    Ok(found.iter().map(with_port).collect())
}

fn system(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

/// Looks names up, on threads that end when no name waits.
#[derive(Clone)]
struct Resolver(Arc<Shared>);

struct Shared {
    ask: fn(&str) -> io::Result<Vec<SocketAddr>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The names that are being looked up or wait for it, each with those that wait for its addresses.
    asked: HashMap<Arc<str>, watch::Sender<Option<Found>>>,
    waiting: VecDeque<Arc<str>>,
    threads: usize,
}

impl Resolver {
    fn new(ask: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { ask, state }))
    }

    async fn look_up(&self, host: &str) -> io::Result<Arc<[SocketAddr]>> {
        let mut answer = self.ask(host)?;
        let found = answer.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|found| (*found).clone());
        let lost = || io::Error::other("the look-up of its name was given up");
        let found = found.ok_or_else(lost)?;
        found.map_err(|(kind, why)| io::Error::new(kind, &*why))
    }

    /// Joins the look-up of this name that is under way, else begins one.
    fn ask(&self, host: &str) -> io::Result<watch::Receiver<Option<Found>>> {
        let mut state = self.0.lock();
        if let Some(asked) = state.asked.get(host) {
            return Ok(asked.subscribe());
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(io::Error::other("too many names wait to be looked up"));
        }
        if state.threads < LOOKUPS_MAX {
            let shared = Arc::clone(&self.0);
            let thread = thread::Builder::new().name("resolver".to_owned());
            match thread.spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                // A thread that runs already will take it.
                Err(_) if state.threads > 0 => {}
                Err(error) => return Err(error),
            }
        }
        let name: Arc<str> = host.into();
        let (sender, receiver) = watch::channel(None);
        state.asked.insert(Arc::clone(&name), sender);
        state.waiting.push_back(name);
        Ok(receiver)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up names until none waits. A look-up that panics fails like others, and the thread goes on.
    fn work(&self) {
        while let Some(name) = self.next() {
            let (ask, host) = (self.ask, Arc::clone(&name));
            let found = catch_unwind(move || ask(&host));
            let found =
                found.unwrap_or_else(|_panic| Err(io::Error::other("its look-up panicked")));
            let found = found
                .map(Into::into)
                .map_err(|error| (error.kind(), error.to_string().into()));
            let asked = self.lock().asked.remove(&name);
            if let Some(asked) = asked {
                asked.send_replace(Some(found));
            }
        }
    }

    fn next(&self) -> Option<Arc<str>> {
        let mut state = self.lock();
        while let Some(name) = state.waiting.pop_front() {
            let is_wanted = state
                .asked
                .get(&name)
                .is_some_and(|asked| asked.receiver_count() > 0);
            if is_wanted {
                return Some(name);
            }
            // All that asked have stopped waiting.
            state.asked.remove(&name);
        }
        state.threads -= 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;

    static HELD: (Mutex<bool>, Condvar) = (Mutex::new(true), Condvar::new());
    static ASKED: AtomicUsize = AtomicUsize::new(0);

    /// Answers nothing before it is let go.
    fn silent(host: &str) -> io::Result<Vec<SocketAddr>> {
        ASKED.fetch_add(1, Ordering::SeqCst);
        let held = HELD.1.wait_while(HELD.0.lock().unwrap(), |held| *held);
        drop(held.unwrap());
        match host {
            "bad" => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
            _ => Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))]),
        }
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_asked_once_for_a_name_and_for_few_names() {
        // SECURITY U-18
        let resolver = Resolver::new(silent);
        let names: Vec<String> = (0..100).map(|name| format!("name-{name}")).collect();
        let mut asked: Vec<_> = (0..200).map(|_| resolver.look_up("one")).collect();
        asked.extend(names.iter().map(|name| resolver.look_up(name)));
        let waiting = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.look_up("bad").await }
        });
        let all = async {
            while ASKED.load(Ordering::SeqCst) < LOOKUPS_MAX {
                tokio::task::yield_now().await;
            }
            assert_eq!(resolver.0.lock().threads, LOOKUPS_MAX);
            // A name that nobody waits for any more is not looked up.
            drop(resolver.ask("given up").unwrap());
            *HELD.0.lock().unwrap() = false;
            HELD.1.notify_all();
        };
        let (found, ()) = tokio::join!(join_all(asked), all);
        for found in found {
            assert_eq!(*found.unwrap(), [SocketAddr::from(([192, 0, 2, 1], 0))]);
        }
        let refused = waiting.await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        assert_eq!(refused.to_string(), "no such name");
        assert_eq!(ASKED.load(Ordering::SeqCst), 102);
        // Once all is answered, nothing is kept: the next one is another look-up.
        assert!(resolver.0.lock().asked.is_empty());
        resolver.look_up("one").await.unwrap();
        assert_eq!(ASKED.load(Ordering::SeqCst), 103);
    }

    #[tokio::test]
    async fn a_look_up_that_panics_fails_and_the_next_one_works() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver::new(|_| {
            let asked = ASKED.fetch_add(1, Ordering::SeqCst);
            assert!(asked >= 2, "as if by a bug");
            Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))])
        });
        for panics in [true, true, false] {
            let found = timeout(Duration::from_secs(5), resolver.look_up("one")).await;
            assert_eq!(found.expect("it ends").is_err(), panics);
        }
        assert!(resolver.0.lock().asked.is_empty());
    }

    #[tokio::test]
    async fn addresses_are_no_names() {
        let v4 = addresses("127.0.0.1", 80).await.unwrap();
        assert_eq!(v4, ["127.0.0.1:80".parse().unwrap()]);
        let v6 = addresses("[::1]", 81).await.unwrap();
        assert_eq!(v6, ["[::1]:81".parse().unwrap()]);
        let own = addresses("localhost", 82).await.unwrap();
        assert!(
            own.iter()
                .all(|address| address.ip().is_loopback() && address.port() == 82)
        );
        assert!(!own.is_empty());
    }
}
