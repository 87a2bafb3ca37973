//! How many connections are open, in all and by client address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::shares::{Share, Shares};

/// Counts open connections. It holds at most one entry for each.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    by_address: Arc<Shares>,
}

/// One open connection; given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    share: Option<Share>,
}

impl Connections {
    /// A place for one more, unless `limit` are open.
    pub fn enter(self: &Arc<Self>, limit: usize) -> Option<Place> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        // Made before the limit is checked, because dropping it undoes the count.
        let place = Place {
            connections: Arc::clone(self),
            share: None,
        };
        (open < limit).then_some(place)
    }
}

impl Place {
    /// Counts the connection as one of `address`, unless that has `limit` already (SECURITY DS-08).
    pub fn belongs_to(&mut self, address: IpAddr, limit: usize) -> bool {
        self.share = self.connections.by_address.take(address, limit);
        self.share.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_of_the_total() {
        // SECURITY DS-08
        let connections = Arc::new(Connections::default());
        let enter = |address: &str| {
            let mut place = connections.enter(3)?;
            place
                .belongs_to(address.parse().unwrap(), 2)
                .then_some(place)
        };
        let held = [enter("192.0.2.1"), enter("192.0.2.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(enter("192.0.2.1").is_none(), "it has two");
        let other = enter("192.0.2.2");
        assert!(other.is_some());
        assert!(enter("192.0.2.3").is_none(), "three are open");
        drop(held);
        assert!(enter("192.0.2.1").is_some());
        drop(other);
        assert_eq!(connections.open.load(Ordering::Relaxed), 0);
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
