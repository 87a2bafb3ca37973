//! Basic passwords: compared in constant time, and hashed without letting guesses take the machine.
//!
//! A hash costs tens of milliseconds by design. So few are computed at once, on threads that serve
//! no requests; a bounded number waits; and what succeeded is remembered, so that an honest sender
//! pays once (SECURITY DS-28). A user that does not exist costs the same as one that does.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::route::auth::{BasicCheck, BasicUser, Password};

/// Requests that may wait for a hash.
const QUEUE_MAX: usize = 64;

/// Longest wait for a thread.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Successes remembered.
const REMEMBERED_MAX: usize = 1_024;

type Tag = [u8; 32];

/// Why a password was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too many hashes are wanted at once; nothing was judged.
    #[error("too many passwords are being checked")]
    Busy,
    /// No such user, or not its password.
    #[error("wrong user or password")]
    Wrong,
}

/// The checker of all routes. Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    /// Drawn at start: tags of passwords mean nothing outside this process.
    mac: Hmac<Sha256>,
    /// Requests that hash or wait.
    admitted: Semaphore,
    /// Requests that hash.
    workers: Arc<Semaphore>,
    scratch: Arc<Scratch>,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    tags: HashSet<Tag>,
    order: VecDeque<Tag>,
}

impl Passwords {
    /// Fails when the system has no randomness.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 64]);
        getrandom::fill(&mut *key)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = (cores / 2).max(1);
        Ok(Self(Arc::new(Inner {
            mac: Hmac::new((&*key).into()),
            admitted: Semaphore::new(workers + QUEUE_MAX),
            workers: Arc::new(Semaphore::new(workers)),
            scratch: Arc::default(),
            remembered: Mutex::default(),
        })))
    }

    /// Judges a password; the user's name is the key id.
    pub async fn check(
        &self,
        check: &BasicCheck,
        user: &str,
        password: &[u8],
    ) -> Result<Arc<str>, PasswordError> {
        let known = check.users.iter().find(|known| *known.name == *user);
        // Without such a user, another one's hash is computed for nothing.
        let compared = known.or_else(|| self.decoy(check, user));
        let right = match compared.map(|user| &user.password) {
            None => false,
            Some(Password::Plain(stored)) => self.is_equal(stored.expose(), password),
            Some(stored @ (Password::Argon2(hash) | Password::Bcrypt(hash))) => {
                let tag = self.tag(&[user.as_bytes(), password, hash.as_bytes()]);
                if self.remembered().tags.contains(&tag) {
                    true
                } else {
                    let right = self.hash_and_compare(stored, password).await?;
                    if right && known.is_some() {
                        self.remembered().insert(tag);
                    }
                    right
                }
            }
        };
        known
            .filter(|_| right)
            .map(|user| Arc::clone(&user.name))
            .ok_or(PasswordError::Wrong)
    }

    /// The user whose cost a name without a user takes on: always the same for the same name, as if
    /// it were one with that kind of hash.
    fn decoy<'a>(&self, check: &'a BasicCheck, user: &str) -> Option<&'a BasicUser> {
        let [byte, ..] = self.tag(&[user.as_bytes()]);
        check.users.iter().cycle().nth(usize::from(byte))
    }

    /// Compares tags of both under a key that nobody knows: neither content nor length shows in the
    /// time it takes.
    fn is_equal(&self, stored: &[u8], given: &[u8]) -> bool {
        let mut stored_mac = self.0.mac.clone();
        stored_mac.update(stored);
        let mut given_mac = self.0.mac.clone();
        given_mac.update(given);
        stored_mac
            .verify(&given_mac.finalize().into_bytes())
            .is_ok()
    }

    /// A keyed digest of several fields; lengths keep their borders apart.
    fn tag(&self, fields: &[&[u8]]) -> Tag {
        let mut mac = self.0.mac.clone();
        for field in fields {
            mac.update(&field.len().to_be_bytes());
            mac.update(field);
        }
        mac.finalize().into_bytes().into()
    }

    async fn hash_and_compare(
        &self,
        stored: &Password,
        password: &[u8],
    ) -> Result<bool, PasswordError> {
        let busy = PasswordError::Busy;
        let _admitted = self.0.admitted.try_acquire().map_err(|_full| busy)?;
        let waiting = Arc::clone(&self.0.workers).acquire_owned();
        let worker = tokio::time::timeout(WAIT_MAX, waiting)
            .await
            .map_err(|_elapsed| busy)?
            .map_err(|_closed| busy)?;
        let password = Zeroizing::new(password.to_vec());
        let job = Job::new(stored);
        let scratch = Arc::clone(&self.0.scratch);
        let task = tokio::task::spawn_blocking(move || {
            let right = job.is_right(&password, &scratch);
            // Not before: a sender that hangs up must not free the thread that still hashes.
            drop(worker);
            right
        });
        task.await.map_err(|_panicked| busy)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        let remembered = &self.0.remembered;
        remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

impl Remembered {
    fn insert(&mut self, tag: Tag) {
        if !self.tags.insert(tag) {
            return;
        }
        self.order.push_back(tag);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.tags.remove(&oldest);
        }
    }
}

/// Memory in which Argon2 works: that of one hash serves the next. glibc does not find again what is
/// given back of this size and alignment, so that each guess would cost another 19 MiB for good (SECURITY DS-28).
#[derive(Default)]
struct Scratch(Mutex<Vec<Vec<Block>>>);

/// What one hash may leave for the next, in blocks of 1 KiB: above it glibc gives memory back to the system by itself.
const SCRATCH_BLOCKS_MAX: usize = 32 << 10;

impl Scratch {
    /// As many pieces are kept as hashes were computed at once.
    fn with<T>(&self, blocks: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
        let mut memory = self.lock().pop().unwrap_or_default();
        if memory.capacity() < blocks {
            memory = Vec::with_capacity(blocks);
        }
        memory.resize(blocks, Block::new());
        let done = work(&mut memory);
        if memory.capacity() <= SCRATCH_BLOCKS_MAX {
            self.lock().push(memory);
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Block>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `password` has this hash; `None` where that is none. What the hash says of cost and version counts.
fn argon2_fits(hash: &str, password: &[u8], scratch: &Scratch) -> Option<bool> {
    let hash = PasswordHash::new(hash).ok()?;
    let expected = hash.hash.as_ref()?.as_bytes();
    let salt = hash.salt.as_ref()?;
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = match hash.version {
        Some(version) => Version::try_from(version).ok()?,
        None => Version::default(),
    };
    let params = Params::try_from(&hash).ok()?;
    let blocks = params.block_count();
    let argon2 = Argon2::new(algorithm, version, params);
    let mut computed = Zeroizing::new(vec![0; expected.len()]);
    scratch
        .with(blocks, |memory| {
            argon2.hash_password_into_with_memory(password, salt, &mut computed, memory)
        })
        .ok()?;
    Some(computed.ct_eq(expected).into())
}

/// A hash to compute on another thread.
enum Job {
    Argon2(String),
    Bcrypt(String),
    Nothing,
}

impl Job {
    fn new(stored: &Password) -> Self {
        match stored {
            Password::Argon2(hash) => Self::Argon2(hash.clone()),
            Password::Bcrypt(hash) => Self::Bcrypt(hash.clone()),
            Password::Plain(_) => Self::Nothing,
        }
    }

    fn is_right(&self, password: &[u8], scratch: &Scratch) -> bool {
        match self {
            Self::Argon2(hash) => argon2_fits(hash, password, scratch).unwrap_or(false),
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Nothing => false,
        }
    }
}
