//! Says when a secret or a certificate that is in use ends: from then on nothing else does but refusals.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::route::matcher::RouteTable;
use crate::telemetry::metrics::Metrics;
use crate::units::UnixTime;

/// What has yet to end.
#[derive(Debug, Default)]
pub(super) struct Ends {
    secrets: Vec<(Secret, UnixTime)>,
    certificates: Vec<(Arc<str>, UnixTime)>,
}

/// The route and the id of a secret.
type Secret = (Arc<str>, Arc<str>);

impl Ends {
    /// Takes note of the secrets of these routes, and shows when they end. Those that have ended were told when the
    /// configuration was read.
    pub(super) fn of_routes(&mut self, routes: &RouteTable, metrics: &Metrics, now: UnixTime) {
        self.look(now);
        self.secrets.clear();
        metrics.reset_secrets();
        for route in routes.routes() {
            for (id, end) in first_ends(route.auth.key_ends()) {
                metrics.secret(&route.name, &id, end);
                if end > now {
                    self.secrets.push(((Arc::clone(&route.name), id), end));
                }
            }
        }
    }

    /// Takes note of these certificates, by their names.
    pub(super) fn of_certificates(
        &mut self,
        all: impl IntoIterator<Item = (Arc<str>, UnixTime)>,
        now: UnixTime,
    ) {
        self.look(now);
        let coming = all.into_iter().filter(|(_, end)| *end > now);
        self.certificates = coming.collect();
    }

    /// Says what has ended since the last look.
    pub(super) fn look(&mut self, now: UnixTime) {
        for ((route, key_id), end) in self.secrets.extract_if(.., |(_, end)| *end <= now) {
            let (route, key_id) = (&*route, &*key_id);
            let message = "a secret has ended: whoever still uses it is refused";
            tracing::warn!(route, key_id, not_after = %end, message);
        }
        for (name, end) in self.certificates.extract_if(.., |(_, end)| *end <= now) {
            let message = "a certificate has ended: senders refuse it";
            tracing::error!(name = &*name, not_after = %end, message);
        }
    }
}

/// Of keys with one id, the first to end.
fn first_ends(all: Vec<(Arc<str>, UnixTime)>) -> BTreeMap<Arc<str>, UnixTime> {
    let mut first = BTreeMap::new();
    for (id, end) in all {
        let known = first.entry(id).or_insert(end);
        *known = end.min(*known);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_keys_with_one_id_the_first_to_end_counts() {
        let at = UnixTime::from_secs;
        let keys = [("a", 9), ("b", 8), ("a", 7), ("a", 8)];
        let keys = keys.map(|(id, end)| (id.into(), at(end))).to_vec();
        let first: Vec<_> = first_ends(keys).into_iter().collect();
        assert_eq!(first, [("a".into(), at(7)), ("b".into(), at(8))]);
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let at = UnixTime::from_secs;
        let mut ends = Ends::default();
        let certificates = [("old", 1), ("soon", 5), ("later", 9)];
        ends.of_certificates(
            certificates.map(|(name, end)| (name.into(), at(end))),
            at(2),
        );
        ends.look(at(4));
        assert_eq!(ends.certificates.len(), 2);
        ends.look(at(5));
        assert_eq!(ends.certificates, [("later".into(), at(9))]);
    }
}
