//! The limits and choices of a route: plain data.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::units::{ByteSize, Rate};

/// Whether refusals are carried out, or only reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Refused requests are refused.
    Enforce,
    /// Requests that would be refused for who sent them are counted, marked and forwarded.
    Observe,
}

/// Addresses that may call.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// When given, only these.
    pub allow: Option<Vec<IpNet>>,
    /// Never these.
    pub deny: Vec<IpNet>,
}

impl Sources {
    /// Whether `address` may call. IPv4-mapped IPv6 addresses count as IPv4 (SECURITY A-51).
    pub fn admit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let holds = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        !holds(&self.deny) && self.allow.as_deref().is_none_or(holds)
    }

    /// Whether `allow` keeps anybody away at all.
    pub fn is_selective(&self) -> bool {
        self.allow
            .as_deref()
            .is_some_and(|nets| !holds_everybody(nets))
    }

    /// Whether `deny` holds every address that could call.
    pub fn admits_nobody(&self) -> bool {
        let everybody = [Ipv4Net::default().into(), Ipv6Net::default().into()];
        let callers = self.allow.as_deref().unwrap_or(&everybody);
        let denied = IpNet::aggregate(&self.deny);
        let is_denied = |caller: &IpNet| denied.iter().any(|net| net.contains(caller));
        callers.iter().all(is_denied)
    }
}

/// Whether the networks, taken together, hold every IPv4 or every IPv6 address.
pub fn holds_everybody(nets: &[IpNet]) -> bool {
    let merged = IpNet::aggregate(&nets.to_vec());
    merged.iter().any(|net| net.prefix_len() == 0)
}

/// A rate limit of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// What is counted.
    pub key: QuotaKey,
    /// How fast it refills.
    pub rate: Rate,
    /// How many requests at once.
    pub burst: NonZeroU32,
}

/// Longest time in which an empty bucket fills up: the limiters multiply nanoseconds in 64 bits without an overflow
/// check, and nobody waits for a year.
const REFILL_MAX: Duration = Duration::from_hours(8760);

impl Quota {
    /// From one request to the next.
    pub fn period(&self) -> Duration {
        let longest = REFILL_MAX / self.burst.get();
        (self.rate.per / self.rate.count.get()).clamp(Duration::from_nanos(1), longest)
    }

    /// Whether they count the same in the same way, however they are written.
    pub fn is_alike(&self, other: &Self) -> bool {
        let counts = |quota: &Self| (quota.key, quota.period(), quota.burst);
        counts(self) == counts(other)
    }
}

/// What a rate limit counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaKey {
    /// Each client address (IPv6: each /64); before credentials and body.
    ClientIp,
    /// The whole route; after verification.
    Route,
}

/// What a body may be.
#[derive(Clone, Debug)]
pub struct BodyPolicy {
    /// Largest body.
    pub size_max: ByteSize,
    /// Accepted media types, lower case without parameters; `None` accepts any and none.
    pub content_types: Option<Vec<Arc<str>>>,
    /// Whether JSON and XML must be well formed.
    pub well_formed: bool,
}

/// How a delivery that comes again is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayPolicy {
    /// How long a delivery is remembered.
    pub window: Duration,
    /// What a duplicate gets.
    pub on_duplicate: OnDuplicate,
    /// Of which checks deliveries are remembered.
    pub of: ReplaysOf,
}

/// The checks whose deliveries are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplaysOf {
    /// All that sign: the operator asked for it.
    Signed,
    /// Those that sign a timestamp, as where nothing was written: of others two events may have the same signature.
    SignedWithTime,
}

/// What a duplicate of a delivered event gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDuplicate {
    /// 200: the sender may stop trying.
    Acknowledge,
    /// 409.
    Reject,
}

/// How the forwarded request differs from the one received.
#[derive(Clone, Debug, Default)]
pub struct ForwardPolicy {
    /// Path rewriting.
    pub path: PathRewrite,
    /// Wait for the answer's head, and again for each part of its body; `None`: the upstream's own.
    pub timeout: Option<Duration>,
    /// Headers set on the forwarded request.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers removed from it.
    pub remove_headers: Vec<HeaderName>,
    /// Whether tokens and `Authorization` stay in it.
    pub keep_credentials: bool,
}

/// How the path changes on the way to the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathRewrite {
    /// As received.
    #[default]
    Keep,
    /// This path instead; begins with `/`.
    Replace(Arc<str>),
    /// Without this prefix; begins with `/`, does not end with it.
    StripPrefix(Arc<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_match_ipv4_ranges() {
        // SECURITY A-51
        let sources = Sources {
            allow: Some(vec!["192.0.2.0/24".parse().unwrap()]),
            deny: Vec::new(),
        };
        assert!(sources.admit("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!sources.admit("2001:db8::1".parse().unwrap()));
        let sources = Sources {
            allow: None,
            deny: vec!["192.0.2.7/32".parse().unwrap()],
        };
        assert!(!sources.admit("192.0.2.7".parse().unwrap()));
        assert!(sources.admit("192.0.2.8".parse().unwrap()));
    }
}
