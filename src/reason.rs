//! Every reason a request is refused: one row each.
//!
//! A row fixes the code (log field and metric label `reason`), the status the sender gets and who
//! must act. A new refusal is a new row here, and where it is one of those, a name in
//! [`Reason::is_observable`], [`Reason::leaves_framing_in_doubt`] or [`Reason::is_passing`].

/// Who has to act on a refusal. Decides the log level and what an alert should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The gateway itself: a key it cannot load, a store it cannot reach, a bug.
    Gateway,
    /// Too much at once: limits and overload.
    Load,
    /// The sender: the request is wrong or not authentic.
    Sender,
    /// The app behind.
    Upstream,
}

/// What the program knows about one reason.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Stable name: log field and metric label.
    pub code: &'static str,
    /// HTTP status of the answer.
    pub status: u16,
    /// Who must act.
    pub fault: Fault,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal $status:literal $fault:ident)+) => {
        /// Why a request was refused. Fieldless: everything fixed follows from [`Reason::row`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $name),+ }

        impl Reason {
            /// Every reason, in the order of the stages that raise them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The one row that says everything fixed about this reason.
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row { code: $code, status: $status, fault: Fault::$fault }),+
                }
            }
        }
    };
}

reasons! {
    /// The request line, Host, framing or a reserved header name is wrong.
    MalformedRequest = "malformed_request" 400 Sender
    /// The header block is larger than `limits.header_bytes`.
    HeaderTooLarge = "header_too_large" 431 Sender
    /// The target is longer than 8 KiB.
    UriTooLong = "uri_too_long" 414 Sender
    /// Host is not covered by the certificate chosen by SNI.
    HostMismatch = "host_mismatch" 421 Sender
    /// Plain HTTP on a listener that rejects or redirects it.
    HttpsRequired = "https_required" 403 Sender
    /// No route matches host and path.
    RouteNotFound = "route_not_found" 404 Sender
    /// A route matches, but not with this method.
    MethodNotAllowed = "method_not_allowed" 405 Sender
    /// `deny_ips` or `allow_ips` keeps this address out.
    SourceDenied = "source_denied" 403 Sender
    /// A rate limit of the route is used up.
    RateLimited = "rate_limited" 429 Load
    /// `requests_in_flight` or `body_memory` is used up, or what one client or one upstream may have of it; or too many
    /// passwords are being checked.
    Overloaded = "overloaded" 503 Load
    /// The gateway is stopping and this request did not finish in time.
    Draining = "draining" 503 Load
    /// A token, Basic credential or client certificate is absent.
    CredentialMissing = "credential_missing" 401 Sender
    /// A token, Basic credential or client certificate is wrong.
    CredentialInvalid = "credential_invalid" 401 Sender
    /// The body is larger than `body.max_size`.
    BodyTooLarge = "body_too_large" 413 Sender
    /// The body did not arrive within `limits.body_timeout`, or came below `limits.body_min_rate`.
    BodyTimeout = "body_timeout" 408 Sender
    /// The connection ended inside the body, or the sender left before its checks had ended.
    BodyIncomplete = "body_incomplete" 400 Sender
    /// The content type is not one of `body.content_types`.
    ContentTypeUnsupported = "content_type_unsupported" 415 Sender
    /// A `Content-Encoding` on a route that checks well-formedness.
    ContentEncodingUnsupported = "content_encoding_unsupported" 415 Sender
    /// The body is not well-formed JSON or XML, or is XML with a DTD.
    BodyMalformed = "body_malformed" 400 Sender
    /// The signature is absent.
    SignatureMissing = "signature_missing" 401 Sender
    /// The signature cannot be read.
    SignatureMalformed = "signature_malformed" 401 Sender
    /// The signature is not of this content under any of the secrets.
    SignatureMismatch = "signature_mismatch" 401 Sender
    /// The scheme's timestamp is absent.
    TimestampMissing = "timestamp_missing" 401 Sender
    /// The scheme's timestamp cannot be read.
    TimestampMalformed = "timestamp_malformed" 401 Sender
    /// The signature is right, but older than the tolerance.
    TimestampStale = "timestamp_stale" 401 Sender
    /// The signature is right, but further in the future than the tolerance.
    TimestampAhead = "timestamp_ahead" 401 Sender
    /// No key is at hand to verify with: all have passed `not_after`, or the provider's cannot be fetched.
    KeyUnavailable = "key_unavailable" 503 Gateway
    /// A provider's URL validation whose proof fails.
    HandshakeInvalid = "handshake_invalid" 403 Sender
    /// The same delivery again, on a route with `on_duplicate: reject`.
    Replayed = "replayed" 409 Sender
    /// The same delivery is being forwarded right now.
    DeliveryInFlight = "delivery_in_flight" 409 Sender
    /// The store cannot take a claim or count a rate, or a secret cannot be kept.
    StateUnavailable = "state_unavailable" 503 Gateway
    /// No server of the upstream accepts a connection.
    UpstreamUnreachable = "upstream_unreachable" 502 Upstream
    /// The upstream broke the connection before it answered.
    UpstreamAborted = "upstream_aborted" 502 Upstream
    /// The upstream answered something that is not HTTP.
    UpstreamInvalid = "upstream_invalid" 502 Upstream
    /// The upstream did not answer in time.
    UpstreamTimeout = "upstream_timeout" 504 Upstream
    /// A bug, caught.
    Internal = "internal" 500 Gateway
}

impl Reason {
    /// Stable name: log field and metric label.
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// Position in [`Reason::ALL`], for tables of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether a route in `mode: observe` lets the request pass all the same: what depends on who
    /// sent it, never what makes it unsafe or impossible to forward.
    pub const fn is_observable(self) -> bool {
        matches!(
            self,
            Self::SourceDenied
                | Self::RateLimited
                | Self::CredentialMissing
                | Self::CredentialInvalid
                | Self::SignatureMissing
                | Self::SignatureMalformed
                | Self::SignatureMismatch
                | Self::TimestampMissing
                | Self::TimestampMalformed
                | Self::TimestampStale
                | Self::TimestampAhead
                | Self::KeyUnavailable
                | Self::Replayed
                | Self::DeliveryInFlight
                | Self::StateUnavailable
        )
    }

    /// Whether what comes next on an HTTP/1.1 connection may not be what its sender takes for its next request, or would
    /// come too late: the connection then ends with the answer.
    pub const fn leaves_framing_in_doubt(self) -> bool {
        matches!(
            self,
            Self::MalformedRequest
                | Self::UriTooLong
                | Self::BodyTimeout
                | Self::BodyIncomplete
                | Self::Draining
        )
    }

    /// Whether the same request may pass in a moment: the answer says `Retry-After`.
    pub const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::Draining
                | Self::DeliveryInFlight
                | Self::RateLimited
                | Self::StateUnavailable
                | Self::KeyUnavailable
        )
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_and_status_agree() {
        for reason in Reason::ALL {
            let row = reason.row();
            let agrees = match row.fault {
                Fault::Gateway => matches!(row.status, 500 | 503),
                Fault::Load => matches!(row.status, 429 | 503),
                Fault::Sender => (400..500).contains(&row.status),
                Fault::Upstream => matches!(row.status, 502 | 504),
            };
            assert!(agrees, "{row:?}");
        }
    }

    #[test]
    fn index_is_the_position() {
        for (position, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
        }
    }
}
