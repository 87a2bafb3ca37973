//! How many connections are open, in all and by client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts open connections. Nothing in it outgrows the limit of them all.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// One open connection; given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    address: Option<IpAddr>,
}

impl Connections {
    /// A place for one more, unless `limit` are open.
    pub fn enter(self: &Arc<Self>, limit: usize) -> Option<Place> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        // Made first: it gives back what was just counted.
        let place = Place {
            connections: Arc::clone(self),
            address: None,
        };
        (open < limit).then_some(place)
    }
}

impl Place {
    /// Counts the connection as one of `address`, unless that has `limit` already (SECURITY DS-08).
    pub fn belongs_to(&mut self, address: IpAddr, limit: usize) -> bool {
        let network = network(address);
        let mut by_address = self.connections.lock();
        let open = by_address.entry(network).or_default();
        if *open >= limit {
            return false;
        }
        *open += 1;
        self.address = Some(network);
        true
    }
}

impl Connections {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.connections.lock();
        if let Some(open) = by_address.get_mut(&address) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 client has to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gives_it_back() {
        // SECURITY DS-08
        let connections = Arc::new(Connections::default());
        let enter = |address: &str| {
            let mut place = connections.enter(5).unwrap();
            place
                .belongs_to(address.parse().unwrap(), 2)
                .then_some(place)
        };
        let held = [enter("192.0.2.1"), enter("::ffff:192.0.2.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(enter("192.0.2.1").is_none());
        let v6 = [enter("2001:db8::1"), enter("2001:db8::2")];
        assert!(v6.iter().all(Option::is_some));
        assert!(enter("2001:db8::3").is_none(), "a /64 is one client");
        let other = enter("2001:db8:0:1::1");
        assert!(other.is_some());
        assert!(connections.enter(5).is_none(), "five are open");
        drop(held);
        assert!(enter("192.0.2.1").is_some());
        drop((v6, other));
        assert_eq!(connections.open.load(Ordering::Relaxed), 0);
        assert!(connections.lock().is_empty());
    }

    #[test]
    fn only_the_total_binds_who_belongs_to_nobody() {
        let connections = Arc::new(Connections::default());
        let held: Vec<_> = (0..3).map_while(|_| connections.enter(3)).collect();
        assert_eq!(held.len(), 3);
        assert!(connections.enter(3).is_none());
        assert_eq!(connections.open.load(Ordering::Relaxed), 3);
    }
}
