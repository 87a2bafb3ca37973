//! A refused request on its way to its answer.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use smallvec::{SmallVec, smallvec};

use crate::reason::Reason;
use crate::route::auth::Challenge;
use crate::scheme::SignatureError;

/// Why a request is refused, with what the answer must carry.
#[derive(Debug)]
pub struct Rejection {
    /// Row of the reason table.
    pub reason: Reason,
    /// What exactly was found: for the operator's log, never for the sender.
    pub detail: &'static str,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// How the answer looks.
    pub form: Form,
    /// `Allow` (405), or a `WWW-Authenticate` for each way in (401): RFC 9110 15.5.6 and 11.6.1.
    pub fields: SmallVec<[Arc<(HeaderName, HeaderValue)>; 1]>,
}

/// How a refusal looks to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Without a body, as providers want it after a handshake; with this status, if there is one.
    Empty(Option<StatusCode>),
    /// Problem details (RFC 9457).
    Problem,
}

/// What `Retry-After` says where nothing better is known.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

impl Rejection {
    /// A refusal with nothing to add.
    pub fn new(reason: Reason, detail: &'static str) -> Self {
        Self {
            reason,
            detail,
            retry_after: reason.is_passing().then_some(RETRY_AFTER_DEFAULT),
            form: Form::Problem,
            fields: SmallVec::new(),
        }
    }

    /// Whether it is about a signature that the head alone shows to be wanting.
    pub fn is_of_signature(&self) -> bool {
        use Reason as R;
        matches!(
            self.reason,
            R::SignatureMissing
                | R::SignatureMalformed
                | R::SignatureMismatch
                | R::TimestampMissing
                | R::TimestampMalformed
        )
    }

    /// Without a body, and with this status if there is one.
    #[must_use]
    pub fn empty(mut self, status: Option<StatusCode>) -> Self {
        self.form = Form::Empty(status);
        self
    }

    /// Whether it is one of those for an absent or wrong proof.
    pub fn is_unauthorized(&self) -> bool {
        self.reason.row().status == 401
    }

    /// With what would let the request in, where it is a 401.
    #[must_use]
    pub fn challenged(mut self, challenge: &Challenge) -> Self {
        if self.is_unauthorized() {
            self.fields = smallvec![Arc::clone(challenge)];
        }
        self
    }

    /// Ends the connection too; one of HTTP/2 stays, for hyper drops the field there.
    #[must_use]
    pub fn closing(mut self) -> Self {
        let close = (header::CONNECTION, HeaderValue::from_static("close"));
        self.fields.push(Arc::new(close));
        self
    }

    /// With `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl From<SignatureError> for Rejection {
    fn from(error: SignatureError) -> Self {
        Self::new(error.reason, error.detail)
    }
}
