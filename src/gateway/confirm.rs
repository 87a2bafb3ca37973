//! Subscriptions that take effect once a URL of the provider is called (Amazon SNS).
//!
//! The URL comes out of a verified, signed message and has passed the host pattern of its provider
//! (SECURITY A-34); what it answers is of no interest. It is called after the sender has its
//! answer, so that a slow call is no failed delivery.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::keys::{Fetch, HttpsUrl, Reach};
use crate::clock::Clock;

/// Waits before each try.
const TRIES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_secs(25),
];
/// The same message again within this time calls nothing: who captured it cannot make the gateway
/// call over and over.
const REPEAT_AFTER: Duration = Duration::from_mins(1);
/// Calls that are remembered, and so the most in a minute.
const RECENT_MAX: usize = 64;

/// As many subscriptions as may be confirmed in a minute were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Makes the calls. Cheap to clone; clones share what was called.
#[derive(Clone, Debug)]
pub struct Confirmations {
    fetch: Arc<dyn Fetch>,
    clock: Clock,
    recent: Arc<Mutex<HashMap<HttpsUrl, Duration>>>,
}

impl Confirmations {
    /// Nothing called yet.
    pub fn new(fetch: Arc<dyn Fetch>, clock: Clock) -> Self {
        Self {
            fetch,
            clock,
            recent: Arc::default(),
        }
    }

    /// The call of `url`, to be run in a task of its own. `Ok(None)` when it was made just now.
    ///
    /// Fails when too many others were: the provider must ask again, for nobody will call.
    pub fn confirm(
        &self,
        url: HttpsUrl,
    ) -> Result<Option<impl Future<Output = ()> + Send + use<>>, TooMany> {
        let now = self.clock.monotonic();
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.retain(|_, called| now.saturating_sub(*called) < REPEAT_AFTER);
            if recent.contains_key(&url) {
                return Ok(None);
            }
            if recent.len() >= RECENT_MAX {
                return Err(TooMany);
            }
            recent.insert(url.clone(), now);
        }
        let fetch = Arc::clone(&self.fetch);
        Ok(Some(async move {
            let host = url.host();
            for wait in TRIES {
                sleep(wait).await;
                match fetch.get(&url, Reach::Public).await {
                    Ok(_) => return tracing::info!(host, "subscription confirmed"),
                    Err(error) => tracing::warn!(host, %error, "subscription not confirmed"),
                }
            }
            tracing::error!(
                host,
                "giving up: ask the provider to confirm the subscription again"
            );
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls::pki_types::TrustAnchor;

    use super::*;
    use crate::gateway::keys::{FetchError, Fetched, Fetching};
    use crate::units::UnixTime;

    /// Answers from the n-th call on.
    #[derive(Debug)]
    struct Web {
        fails: usize,
        calls: AtomicUsize,
    }

    impl Fetch for Web {
        fn get<'a>(&'a self, _: &'a HttpsUrl, reach: Reach) -> Fetching<'a> {
            assert_eq!(reach, Reach::Public);
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            let answer = if call < self.fails {
                Err(FetchError::Reach)
            } else {
                let body = "<ConfirmSubscriptionResponse/>".into();
                Ok(Fetched {
                    body,
                    max_age: None,
                })
            };
            Box::pin(std::future::ready(answer))
        }

        fn roots(&self) -> &[TrustAnchor<'static>] {
            &[]
        }
    }

    fn bench(fails: usize) -> (Confirmations, Arc<Web>, Clock) {
        let calls = AtomicUsize::new(0);
        let (web, clock) = (
            Arc::new(Web { fails, calls }),
            Clock::manual(UnixTime::from_secs(0)),
        );
        let fetch: Arc<dyn Fetch> = Arc::<Web>::clone(&web);
        (Confirmations::new(fetch, clock.clone()), web, clock)
    }

    fn url(path: &str) -> HttpsUrl {
        HttpsUrl::parse(&format!("https://sns.eu-central-1.amazonaws.com/{path}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_called_until_it_answers() {
        for (fails, expected) in [(0, 1), (2, 3), (9, 3)] {
            let (confirmations, web, _) = bench(fails);
            confirmations.confirm(url("a")).unwrap().unwrap().await;
            assert_eq!(web.calls.load(Ordering::Relaxed), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_captured_message_calls_once() {
        let (confirmations, _, clock) = bench(0);
        let is_called = |path: &str| Ok::<_, TooMany>(confirmations.confirm(url(path))?.is_some());
        assert_eq!(is_called("a"), Ok(true));
        assert_eq!(is_called("a"), Ok(false));
        for n in 1..RECENT_MAX {
            assert_eq!(is_called(&n.to_string()), Ok(true));
        }
        assert_eq!(
            is_called("b"),
            Err(TooMany),
            "it must not be taken for one that was called"
        );
        assert_eq!(is_called("a"), Ok(false));
        clock.advance(REPEAT_AFTER);
        assert_eq!(is_called("b"), Ok(true));
    }
}
