//! Listeners: what a configuration changes of them, and putting that into force.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::workers::Order;
use super::{START, Server, cannot_listen};
use crate::gateway::snapshot::ListenerPolicy;
use crate::net::acme::Keeper;
use crate::net::listener::{Endpoint, bind, listen, nobody_listens};
use crate::net::tls::{Certificate, Expiry, Origin, TlsAcceptor};
use crate::settings::{CertificateSource, ListenerSettings, TlsSettings, Transport};
use crate::tasks::keep;
use crate::telemetry::SharedSeldom;

/// A listener at work.
pub(super) struct Running {
    settings: ListenerSettings,
    pub(super) endpoint: Arc<Endpoint>,
    /// The task that orders its certificates; ends when dropped.
    keeper: Option<AbortOnDropHandle<()>>,
}

/// A listener that is ready to go into force.
pub(super) struct Planned {
    settings: ListenerSettings,
    change: Change,
}

/// What becomes of a listener's sockets and TLS.
enum Change {
    /// Both stay.
    Keep,
    /// New sockets, one for each worker.
    Open(Option<TlsAcceptor>, Vec<std::net::TcpListener>),
    /// The sockets stay.
    Swap(Option<TlsAcceptor>),
}

impl Server {
    /// Builds what the listeners need and binds the new ones; changes nothing that runs.
    pub(super) fn plan(&self, listeners: Vec<ListenerSettings>) -> anyhow::Result<Vec<Planned>> {
        let addresses = self.endpoints.values().map(|own| own.endpoint.address);
        let mut own_ports: Vec<u16> = addresses.map(|address| address.port()).collect();
        let mut planned = Vec::with_capacity(listeners.len());
        for settings in listeners {
            let port = settings.address.port();
            planned.push(self.plan_one(settings, &own_ports)?);
            own_ports.push(port);
        }
        Ok(planned)
    }

    /// Begins to listen on the new sockets, once all are bound: to close one that has connections resets them.
    pub(super) fn listen(&self, plan: &[Planned]) -> anyhow::Result<()> {
        for Planned { settings, change } in plan {
            let Change::Open(_, sockets) = change else {
                continue;
            };
            if self.manager.holds(&settings.name, settings.address) {
                continue;
            }
            for socket in sockets {
                let context =
                    || cannot_listen(&format!("listener `{}`", settings.name), settings.address);
                listen(socket).with_context(context)?;
            }
        }
        Ok(())
    }

    fn plan_one(&self, settings: ListenerSettings, own_ports: &[u16]) -> anyhow::Result<Planned> {
        let running = self.endpoints.get(&settings.name);
        let running = running.filter(|running| running.settings.address == settings.address);
        let tls = || match &settings.transport {
            Transport::Plaintext(_) => Ok(None),
            Transport::Tls(tls) => {
                let built = self.tls(&settings.name, tls);
                let built = built.with_context(|| format!("TLS of listener `{}`", settings.name));
                built.map(Some)
            }
        };
        let change = match running {
            Some(running) if running.settings.transport == settings.transport => Change::Keep,
            Some(_) => Change::Swap(tls()?),
            None => Change::Open(tls()?, self.sockets(&settings, own_ports)?),
        };
        Ok(Planned { settings, change })
    }

    /// TLS of a listener; of an ACME listener with the best certificate that there is.
    fn tls(&self, listener: &str, settings: &TlsSettings) -> anyhow::Result<TlsAcceptor> {
        let acceptor = TlsAcceptor::new(settings)?;
        if let CertificateSource::Acme(acme) = &settings.certificates {
            let served = self.served(listener);
            self.keeping.restore(acme, &acceptor, served)?;
        }
        Ok(acceptor)
    }

    /// The certificates that an ACME listener may begin with: its own, and those that were issued for others.
    fn served(&self, listener: &str) -> Vec<Certificate> {
        let mut served = Vec::new();
        for (name, running) in &self.endpoints {
            let tls = running.endpoint.tls.load();
            let certificates = tls.as_deref().map(TlsAcceptor::certificates);
            let certificates = certificates.into_iter().flatten();
            served.extend(certificates.filter(|certificate| {
                **name == *listener || matches!(certificate.origin(), Origin::Authority(_))
            }));
        }
        served
    }

    /// A socket for each worker, all on one address; or one for all that the manager opened.
    fn sockets(
        &self,
        settings: &ListenerSettings,
        own_ports: &[u16],
    ) -> anyhow::Result<Vec<std::net::TcpListener>> {
        let mut address = settings.address;
        let mut sockets = Vec::with_capacity(self.workers.len());
        // Sockets of this process, or of its service manager, are no reason for a warning.
        let is_ours =
            own_ports.contains(&address.port()) || self.manager.holds(&settings.name, address);
        let is_taken = |error: &std::io::Error| error.kind() == ErrorKind::AddrInUse;
        // Asked before binding, because afterwards this process listens.
        let is_shared = !is_ours && nobody_listens(address).is_err_and(|error| is_taken(&error));
        for _ in &self.workers {
            let context = || cannot_listen(&format!("listener `{}`", settings.name), address);
            let passed = self.manager.listener(&settings.name, address);
            let socket = passed
                .unwrap_or_else(|| bind(address))
                .with_context(context)?;
            // For port 0 the system chooses with the first socket.
            address = socket.local_addr()?;
            sockets.push(socket);
        }
        if is_shared {
            tracing::warn!(
                listener = &*settings.name,
                %address,
                "another process of the same user listens on this address already: both get a part of the connections"
            );
        }
        Ok(sockets)
    }

    pub(super) fn apply(&mut self, plan: Vec<Planned>) {
        let mut before = std::mem::take(&mut self.endpoints);
        for Planned { settings, change } in plan {
            let name = Arc::clone(&settings.name);
            let (endpoint, keeper) = match (change, before.remove(&name)) {
                (Change::Open(tls, sockets), old) => {
                    let endpoint = self.open(&settings, tls, sockets);
                    if let Some(old) = old {
                        old.endpoint.close();
                    }
                    let keeper = self.keeper(&settings, &endpoint);
                    (endpoint, keeper)
                }
                (Change::Keep, Some(running)) => (running.endpoint, running.keeper),
                (Change::Swap(tls), Some(running)) => {
                    running.endpoint.tls.store(tls.map(Arc::new));
                    let keeper = self.keeper(&settings, &running.endpoint);
                    (running.endpoint, keeper)
                }
                // Cannot be: only a running listener is kept or swapped.
                (Change::Keep | Change::Swap(_), None) => continue,
            };
            let running = Running {
                settings,
                endpoint,
                keeper,
            };
            self.endpoints.insert(name, running);
        }
        for running in before.into_values() {
            let listener = &*running.settings.name;
            tracing::info!(target: START, listener, "no longer listening");
            running.endpoint.close();
        }
        self.show_expiries();
    }

    /// Starts the task that orders a listener's certificates, if it is an ACME listener.
    fn keeper(
        &self,
        settings: &ListenerSettings,
        endpoint: &Arc<Endpoint>,
    ) -> Option<AbortOnDropHandle<()>> {
        let acme = settings.acme()?.clone();
        let (endpoint, keeping) = (Arc::clone(endpoint), self.keeping.clone());
        let metrics = Arc::clone(&self.kept.telemetry.metrics);
        let kept = async move {
            let begin = || {
                let (acme, endpoint) = (acme.clone(), Arc::clone(&endpoint));
                Keeper::new(acme, endpoint, keeping.clone()).keep()
            };
            keep("acme", &metrics.task_restarts, begin).await;
        };
        Some(AbortOnDropHandle::new(tokio::spawn(kept)))
    }

    pub(super) fn show_expiries(&mut self) {
        let metrics = &self.kept.telemetry.metrics;
        metrics.reset_certificates();
        let mut expiries = Vec::new();
        for running in self.endpoints.values() {
            expiries.extend(self.note_expiries(running));
        }
        let first = earliest(expiries);
        for first in &first {
            metrics.certificate(&first.name, first.not_before, first.not_after);
        }
        let ends = first.into_iter().map(|first| (first.name, first.not_after));
        self.ends.of_certificates(ends, self.clock.now());
    }

    fn open(
        &self,
        settings: &ListenerSettings,
        tls: Option<TlsAcceptor>,
        sockets: Vec<std::net::TcpListener>,
    ) -> Arc<Endpoint> {
        let address = sockets.first().and_then(|socket| socket.local_addr().ok());
        let address = address.unwrap_or(settings.address);
        let endpoint = Arc::new(Endpoint {
            name: Arc::clone(&settings.name),
            address,
            tls: ArcSwapOption::from_pointee(tls),
            is_kept_by_manager: self.manager.holds(&settings.name, settings.address),
            closed: CancellationToken::new(),
            shutdown: self.shutdown.child(),
            said_stuck: SharedSeldom::default(),
            said_full: Default::default(),
        });
        for (worker, socket) in self.workers.iter().zip(sockets) {
            let order = Order::Listen(socket, Arc::clone(&endpoint));
            // This fails only when the program ends.
            drop(worker.tell.send(order));
        }
        tracing::info!(target: START, listener = &*settings.name, %address, "listening");
        endpoint
    }

    /// Shows when an order is due, and returns when the certificates end, because listeners may share their names.
    fn note_expiries(&self, running: &Running) -> Vec<Expiry> {
        let metrics = &self.kept.telemetry.metrics;
        let tls = running.endpoint.tls.load();
        let Some(tls) = tls.as_deref() else {
            return Vec::new();
        };
        if let Some(acme) = running.settings.acme()
            && let Some(due) = tls.order_due()
        {
            let name = acme.domains.first().map_or("acme", String::as_str);
            metrics.acme_order_due(&running.settings.name, name, due);
        }
        tls.expiries()
    }
}

/// Of certificates with one name, the first to end.
fn earliest(mut expiries: Vec<Expiry>) -> Vec<Expiry> {
    expiries.sort_by(|a, b| (&a.name, a.not_after).cmp(&(&b.name, b.not_after)));
    expiries.dedup_by(|later, first| later.name == first.name);
    expiries
}

/// How requests are judged, by the listener that they come over.
pub(super) fn policies(listeners: &[ListenerSettings]) -> HashMap<Arc<str>, ListenerPolicy> {
    let policy = |listener: &ListenerSettings| {
        let plaintext = match &listener.transport {
            Transport::Plaintext(plaintext) => Some(*plaintext),
            Transport::Tls(_) => None,
        };
        let policy = ListenerPolicy {
            address: Some(listener.address),
            plaintext,
            public_origin: listener.public_url.as_ref().map(|url| url.origin().into()),
            trusted_proxies: listener.trusted_proxies.clone(),
            proxy_protocol: listener.proxy_protocol,
        };
        (Arc::clone(&listener.name), policy)
    };
    listeners.iter().map(policy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::UnixTime;

    #[test]
    fn of_certificates_with_one_name_the_first_to_end_is_shown() {
        let at = UnixTime::from_secs;
        let expiry = |name: &str, end| Expiry {
            name: name.into(),
            not_before: at(end - 5),
            not_after: at(end),
        };
        for ends in [[7, 9], [9, 7]] {
            let expiries = vec![expiry("a", ends[0]), expiry("b", 8), expiry("a", ends[1])];
            let shown: Vec<_> = earliest(expiries)
                .into_iter()
                .map(|first| (first.name, first.not_before, first.not_after))
                .collect();
            assert_eq!(
                shown,
                [("a".into(), at(2), at(7)), ("b".into(), at(3), at(8))]
            );
        }
    }
}
