//! A provider has sent the secret that it will sign with: handed over to the operator, and to nobody
//! else.

use std::io::ErrorKind;

use tokio::task::spawn_blocking;

use super::rejection::Rejection;
use crate::reason::Reason;
use crate::scheme::handshake::Enrolled;

/// Hands a secret over. Refuses a second one, and one that cannot be kept: the provider must not
/// believe that we know it.
pub async fn hand_over(enrolled: Enrolled, route: &str) -> Result<(), Rejection> {
    let Enrolled { secret, keeper } = enrolled;
    let Some(keeper) = keeper else {
        let secret = String::from_utf8_lossy(secret.expose());
        tracing::warn!(
            route,
            // As it is: the log quotes a stranger's text where it writes lines for people.
            secret = &*secret,
            "the provider has sent its secret: put it into `secrets` and close the enrolment window"
        );
        return Ok(());
    };
    let file = keeper.to_string();
    let kept = spawn_blocking(move || keeper.keep(&secret)).await;
    let refuse = |reason, detail| Err(Rejection::new(reason, detail).empty(None));
    match kept.map_err(std::io::Error::other).flatten() {
        Ok(()) => {
            tracing::warn!(
                route,
                file,
                "the provider has sent its secret: name the file in `secrets` and close the enrolment window"
            );
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            tracing::warn!(
                route,
                file,
                "a second secret is not taken: there is one already"
            );
            refuse(Reason::HandshakeInvalid, "a secret has been taken already")
        }
        Err(error) => {
            tracing::error!(route, file, %error, "the provider's secret cannot be kept");
            refuse(Reason::StateUnavailable, "the secret cannot be kept")
        }
    }
}
