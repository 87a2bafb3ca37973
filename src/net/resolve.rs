//! Looks up the addresses of names.
//!
//! The system's resolver blocks a thread for as long as its server does not answer, which may be half a minute. So
//! there is one look-up of a name at a time, however many deliveries wait for it, and few look-ups of all names, on
//! threads of their own: a resolver that hangs delays nothing else. While look-ups of a name fail or hang, the last
//! addresses of it are used for a while.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::catch_unwind;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::shares::unbracketed;
use crate::telemetry::Seldom;

/// Names that are looked up at the same time.
const LOOKUPS_MAX: usize = 16;
/// Names that may wait to be looked up.
const WAITING_MAX: usize = 1024;

/// Names whose last addresses are kept.
const KNOWN_MAX: usize = 1024;
/// How long the last addresses of a name may be used while it cannot be looked up.
const KNOWN_TIME: Duration = Duration::from_mins(5);
/// How long a look-up is waited for, where there are last addresses.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// What a look-up found; the error is a text, because it is given to all that wait.
type Found = Result<Arc<[SocketAddr]>, (io::ErrorKind, Arc<str>)>;

static RESOLVER: LazyLock<Resolver> = LazyLock::new(|| Resolver::new(system));

/// The addresses of a host, which is a name or an address. A look-up that takes longer than `patience` gives the last
/// ones, where there are such.
pub(super) async fn addresses(
    host: &str,
    port: u16,
    patience: Duration,
) -> io::Result<Vec<SocketAddr>> {
    let host = unbracketed(host);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = RESOLVER.look_up(host, patience).await?;
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
    asked: HashMap<Arc<str>, Asked>,
    waiting: VecDeque<Arc<str>>,
    threads: usize,
    known: HashMap<Arc<str>, Known>,
}

/// A look-up.
struct Asked {
    answer: watch::Sender<Option<Found>>,
    since: Instant,
}

/// What the last good look-up of a name found.
struct Known {
    addresses: Arc<[SocketAddr]>,
    since: Instant,
    /// What was said of its use.
    said: Seldom,
}

impl State {
    /// Keeps what was found, in the place of the oldest if need be.
    fn remember(&mut self, name: &Arc<str>, addresses: &Arc<[SocketAddr]>) {
        let since = clock::now();
        if let Some(known) = self.known.get_mut(name) {
            known.addresses = Arc::clone(addresses);
            known.since = since;
            return;
        }
        if self.known.len() >= KNOWN_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.since);
            if let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) {
                self.known.remove(&name);
            }
        }
        let known = Known {
            addresses: Arc::clone(addresses),
            since,
            said: Seldom::default(),
        };
        self.known.insert(Arc::clone(name), known);
    }

    fn known(&mut self, host: &str) -> Option<&mut Known> {
        let known = self.known.get_mut(host)?;
        let age = clock::now().saturating_duration_since(known.since);
        (age <= KNOWN_TIME).then_some(known)
    }
}

impl Resolver {
    fn new(ask: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { ask, state }))
    }

    async fn look_up(&self, host: &str, patience: Duration) -> io::Result<Arc<[SocketAddr]>> {
        let found = self.look_up_anew(host, patience).await;
        found.or_else(|error| self.known(host, error))
    }

    async fn look_up_anew(&self, host: &str, patience: Duration) -> io::Result<Arc<[SocketAddr]>> {
        let (mut answer, since) = self.ask(host)?;
        let answered = answer.wait_for(Option::is_some);
        let is_known = self.0.lock().known(host).is_some();
        let found = if is_known {
            let late = |_elapsed| io::Error::other("the resolver does not answer in time");
            let found = timeout_at(since + patience, answered).await;
            found.map_err(late)?
        } else {
            answered.await
        };
        let found = found.ok().and_then(|found| (*found).clone());
        let lost = || io::Error::other("the look-up of its name was given up");
        let found = found.ok_or_else(lost)?;
        found.map_err(|(kind, why)| io::Error::new(kind, &*why))
    }

    /// The last addresses of a name that cannot be looked up.
    fn known(&self, host: &str, error: io::Error) -> io::Result<Arc<[SocketAddr]>> {
        let mut state = self.0.lock();
        let Some(known) = state.known(host) else {
            return Err(error);
        };
        let addresses = Arc::clone(&known.addresses);
        let is_due = known.said.is_due(clock::now());
        drop(state);
        if is_due {
            let error = error.to_string();
            tracing::warn!(
                host,
                error,
                "a name cannot be looked up; its last addresses are used"
            );
        }
        Ok(addresses)
    }

    /// Joins the look-up of this name that is under way, else begins one.
    fn ask(&self, host: &str) -> io::Result<(watch::Receiver<Option<Found>>, Instant)> {
        let mut state = self.0.lock();
        if let Some(asked) = state.asked.get(host) {
            return Ok((asked.answer.subscribe(), asked.since));
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
        let (answer, receiver) = watch::channel(None);
        let since = clock::now();
        state
            .asked
            .insert(Arc::clone(&name), Asked { answer, since });
        state.waiting.push_back(name);
        Ok((receiver, since))
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
            let found: Found = found
                .map(Into::into)
                .map_err(|error| (error.kind(), error.to_string().into()));
            let mut state = self.lock();
            if let Ok(addresses) = &found
                && !addresses.is_empty()
            {
                state.remember(&name, addresses);
            }
            let asked = state.asked.remove(&name);
            drop(state);
            if let Some(asked) = asked {
                asked.answer.send_replace(Some(found));
            }
        }
    }

    fn next(&self) -> Option<Arc<str>> {
        let mut state = self.lock();
        while let Some(name) = state.waiting.pop_front() {
            let is_wanted = state
                .asked
                .get(&name)
                .is_some_and(|asked| asked.answer.receiver_count() > 0);
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
        let mut asked: Vec<_> = (0..200)
            .map(|_| resolver.look_up("one", PATIENCE))
            .collect();
        asked.extend(names.iter().map(|name| resolver.look_up(name, PATIENCE)));
        let waiting = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.look_up("bad", PATIENCE).await }
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
        resolver.look_up("one", PATIENCE).await.unwrap();
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
            let found = timeout(Duration::from_secs(5), resolver.look_up("one", PATIENCE)).await;
            assert_eq!(found.expect("it ends").is_err(), panics);
        }
        assert!(resolver.0.lock().asked.is_empty());
    }

    #[tokio::test]
    async fn while_a_name_cannot_be_looked_up_its_last_addresses_are_used() {
        // SECURITY U-18
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static HELD: (Mutex<bool>, Condvar) = (Mutex::new(true), Condvar::new());
        let resolver = Resolver::new(|_| match ASKED.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))]),
            1 => Err(io::Error::other("no server answers")),
            // The name is moved, which is found late.
            _ => {
                drop(HELD.1.wait_while(HELD.0.lock().unwrap(), |held| *held));
                Ok(vec![SocketAddr::from(([192, 0, 2, 2], 0))])
            }
        });
        let look_up = || async {
            let found = timeout(
                Duration::from_secs(5),
                resolver.look_up("one", Duration::from_millis(50)),
            );
            found.await.expect("it ends")
        };
        for case in ["good", "failing", "hanging", "hanging on"] {
            let found = look_up().await.expect(case);
            assert_eq!(*found, [SocketAddr::from(([192, 0, 2, 1], 0))], "{case}");
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 3);
        // Too long ago: it is waited for again.
        let too_long = KNOWN_TIME + Duration::from_secs(1);
        resolver.0.lock().known.get_mut("one").unwrap().since -= too_long;
        let free = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            *HELD.0.lock().unwrap() = false;
            HELD.1.notify_all();
        };
        let (found, ()) = tokio::join!(look_up(), free);
        assert_eq!(*found.unwrap(), [SocketAddr::from(([192, 0, 2, 2], 0))]);
    }

    #[test]
    fn few_last_addresses_are_kept() {
        let mut state = State::default();
        let addresses: Arc<[SocketAddr]> = [SocketAddr::from(([192, 0, 2, 1], 0))].into();
        for number in 0..=KNOWN_MAX {
            state.remember(&format!("name-{number}").into(), &addresses);
        }
        assert_eq!(state.known.len(), KNOWN_MAX);
        assert!(state.known("name-0").is_none() && state.known("name-1").is_some());
    }

    #[tokio::test]
    async fn addresses_are_no_names() {
        let v4 = addresses("127.0.0.1", 80, PATIENCE).await.unwrap();
        assert_eq!(v4, ["127.0.0.1:80".parse().unwrap()]);
        let v6 = addresses("[::1]", 81, PATIENCE).await.unwrap();
        assert_eq!(v6, ["[::1]:81".parse().unwrap()]);
        let own = addresses("localhost", 82, PATIENCE).await.unwrap();
        assert!(
            own.iter()
                .all(|address| address.ip().is_loopback() && address.port() == 82)
        );
        assert!(!own.is_empty());
    }
}
