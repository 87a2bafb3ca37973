//! Whether another request may follow on the connection of one that was answered.

use bytes::Bytes;
use http::{Version, header};
use http_body::Body;

use super::{body, head};
use crate::reason::Reason;

/// What a request's head says of how it is sent: whether its connection can have another one.
pub(super) struct Framing {
    version: Version,
    /// It waits for our word before it sends its body.
    expects: bool,
    /// A sender of old that says no length means that its body ends with the connection: what follows the head is no
    /// request (SECURITY SM-10).
    is_unframed: bool,
    /// It asks for what is no delivery to anybody.
    is_foreign: bool,
}

impl Framing {
    pub(super) fn of(head: &http::request::Parts) -> Self {
        let has_length = || head.headers.contains_key(header::CONTENT_LENGTH);
        Self {
            version: head.version,
            expects: head.headers.contains_key(header::EXPECT),
            is_unframed: head.version == Version::HTTP_10 && !has_length(),
            is_foreign: !head::may_deliver(&head.method, &head.uri),
        }
    }

    /// Reads what is left of a body that is not too long, and says whether another request may follow it.
    pub(super) async fn leaves_usable<B>(self, body: &mut B, refused: Option<Reason>) -> bool
    where
        B: Body<Data = Bytes> + Send + Unpin,
    {
        // Over HTTP/2 each has a stream of its own.
        if self.version == Version::HTTP_2 {
            return true;
        }
        let is_read = body.is_end_stream();
        let is_hopeless =
            refused.is_some_and(|reason| self.is_foreign || reason.leaves_framing_in_doubt());
        if is_hopeless || self.is_unframed {
            return false;
        }
        is_read || (!self.expects && body::is_discardable(body) && body::discard(body).await)
    }
}
