//! How much of something each client address holds, so that none holds all of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What every address holds. As many entries as there are [`Share`]s at most, of which the owner has a limit.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<IpAddr, usize>>);

/// One held by an address; given back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    network: IpAddr,
}

impl Shares {
    /// One more for `address`, unless it has `limit` already.
    pub fn take(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Share> {
        let network = network(address);
        let mut held = self.lock();
        let count = held.entry(network).or_default();
        if *count >= limit {
            if *count == 0 {
                held.remove(&network);
            }
            return None;
        }
        *count += 1;
        drop(held);
        Some(Share {
            shares: Arc::clone(self),
            network,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        if let Some(count) = held.get_mut(&self.network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.network);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 client has to itself.
pub fn network(address: IpAddr) -> IpAddr {
    let IpAddr::V6(address) = address else {
        return address;
    };
    embedded(address).map_or_else(
        || Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        IpAddr::V4,
    )
}

/// The IPv4 address that an IPv6 one stands for: mapped, or translated by NAT64 (RFC 6052).
pub fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    let is_translated = matches!(address.segments(), [0x64, 0xff9b, 0, 0, 0, 0, ..]);
    address
        .to_ipv4_mapped()
        .or_else(|| is_translated.then(|| Ipv4Addr::new(a, b, c, d)))
}

/// A host without the brackets that IPv6 addresses have in URLs; any other text as it is.
pub fn unbracketed(host: &str) -> &str {
    let inner = host.strip_prefix('[');
    inner
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_both_brackets_or_none() {
        // SECURITY RT-31
        for (host, inner) in [
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("192.0.2.1", "192.0.2.1"),
            ("[::1", "[::1"),
            ("::1]", "::1]"),
            ("[[::1]]", "[::1]"),
            ("[", "["),
        ] {
            assert_eq!(unbracketed(host), inner);
        }
    }

    #[test]
    fn an_address_has_its_share_and_gives_it_back() {
        // SECURITY DS-08
        let shares = Arc::new(Shares::default());
        let take = |address: &str| shares.take(address.parse().unwrap(), 2);
        let held = [take("192.0.2.1"), take("::ffff:192.0.2.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(take("192.0.2.1").is_none());
        let v6 = [take("2001:db8::1"), take("2001:db8::2")];
        assert!(v6.iter().all(Option::is_some));
        assert!(take("2001:db8::3").is_none(), "a /64 is one client");
        // Behind NAT64 all of IPv4 has one /64.
        assert!(take("64:ff9b::c000:201").is_none(), "192.0.2.1 by NAT64");
        let other = take("64:ff9b::c000:202");
        assert!(other.is_some(), "192.0.2.2 by NAT64");
        drop(other);
        let other = take("2001:db8:0:1::1");
        assert!(other.is_some());
        drop(held);
        assert!(take("192.0.2.1").is_some());
        drop((v6, other));
        assert!(shares.take("192.0.2.1".parse().unwrap(), 0).is_none());
        assert!(shares.lock().is_empty());
    }
}
