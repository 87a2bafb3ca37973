//! Tasks that run as long as the process: one that panics is begun anew, and it is said and counted
//! (SECURITY S-16).

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus::IntCounter;
use tokio::time::sleep;

/// Before a task is begun anew: what panics at once must not take all the time there is.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs what `begin` makes until it ends by itself.
pub async fn keep<F: Future<Output = ()>>(
    name: &'static str,
    restarts: &IntCounter,
    mut begin: impl FnMut() -> F,
) {
    while AssertUnwindSafe(begin()).catch_unwind().await.is_err() {
        restarts.inc();
        tracing::error!(task = name, "a background task panicked and is begun anew");
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_begun_anew() {
        // SECURITY S-16
        let restarts = IntCounter::new("restarts", "in this test").unwrap();
        let mut begun = 0;
        keep("faulty", &restarts, || {
            begun += 1;
            let panics = begun <= 3;
            async move { assert!(!panics, "as if by a bug") }
        })
        .await;
        assert_eq!((begun, restarts.get()), (4, 3));
    }
}
