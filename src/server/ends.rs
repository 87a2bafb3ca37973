//! Says when a secret or a certificate that is in use ends: from then on nothing else does but refusals.

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
        self.secrets.clear();
        metrics.reset_secrets();
        for route in routes.routes() {
            for (id, end) in route.auth.key_ends() {
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
