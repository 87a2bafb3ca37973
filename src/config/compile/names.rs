//! Names that senders call, and whether a certificate is for them.

use std::collections::HashSet;

use http::uri::Authority;

use super::{Compiler, value};
use crate::config::certificate;
use crate::config::spec::{ConfigSpec, ListenerSpec, Named};
use crate::document::{At, Place};
use crate::route::matcher::HostPattern;
use crate::settings::{CertificateSource, ListenerSettings, Plaintext, Transport};

/// Names of certificates that a hint lists.
const LISTED_MAX: usize = 8;

impl Compiler<'_, '_> {
    /// Warns of hosts that no certificate is for. Behind a proxy senders see its certificate, and one made at start is
    /// believed by nobody anyway.
    pub(super) fn names_of_certificates(
        &mut self,
        spec: &ConfigSpec,
        listeners: &[ListenerSettings],
    ) {
        let Some((Named(written), _)) = value(Some(&spec.listeners)) else {
            return;
        };
        for (name, at) in written {
            let own = listeners.iter().find(|own| *own.name == **name);
            if let Some(own) = own {
                self.public_name(at, own);
            }
        }
        // What is wrong has been said, and could have the name.
        if written.len() == listeners.len()
            && let Some(names) = names_of_all(listeners)
        {
            self.hosts(spec, &names);
        }
    }

    fn public_name(&mut self, at: &At<ListenerSpec>, listener: &ListenerSettings) {
        let place = value(Some(at)).and_then(|(spec, _)| spec.public_url.as_ref()?.place());
        let (Some(place), Some(url)) = (place, &listener.public_url) else {
            return;
        };
        let authority = url.authority.parse::<Authority>();
        if let (Some(names), Ok(authority)) = (names_of(listener), authority)
            && url.scheme == "https"
        {
            self.uncovered(&authority.host().to_ascii_lowercase(), &names, place);
        }
    }

    fn hosts(&mut self, spec: &ConfigSpec, names: &[String]) {
        let Some((routes, _)) = value(Some(&spec.routes)) else {
            return;
        };
        let mut told = HashSet::new();
        for route in routes.iter().filter_map(At::get) {
            let host = route.matches.get().and_then(|own| own.host.as_ref());
            if let Some((host, place)) = value(host)
                && let Ok(HostPattern::Exact(host)) = HostPattern::parse(host)
                && told.insert(host.clone())
            {
                self.uncovered(&host, names, &place);
            }
        }
    }

    fn uncovered(&mut self, host: &str, names: &[String], place: &Place) {
        if names.iter().any(|name| certificate::covers(name, host)) {
            return;
        }
        let mut listed: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let more = if listed.len() > LISTED_MAX {
            " and others"
        } else {
            ""
        };
        listed.truncate(LISTED_MAX);
        let message = format!("no certificate is for `{host}`: senders will refuse to connect");
        let hint = format!("there are certificates for {}{more}", listed.join(", "));
        self.warn(place, message, hint.as_str());
    }
}

/// What the certificates of all listeners are for; `None` where a request may come in another way.
fn names_of_all(listeners: &[ListenerSettings]) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for listener in listeners {
        match &listener.transport {
            Transport::Plaintext(Plaintext::Allow) => return None,
            Transport::Plaintext(Plaintext::Redirect | Plaintext::Reject) => {}
            Transport::Tls(_) => all.extend(names_of(listener)?),
        }
    }
    (!all.is_empty()).then_some(all)
}

/// What the certificates of a TLS listener are for, where senders see them.
fn names_of(listener: &ListenerSettings) -> Option<Vec<String>> {
    let Transport::Tls(tls) = &listener.transport else {
        return None;
    };
    let names: Vec<String> = match &tls.certificates {
        CertificateSource::Acme(acme) => acme.domains.clone(),
        CertificateSource::Files(pairs) => {
            let chains = pairs.iter().map(|pair| &pair.chain);
            chains.flat_map(|chain| certificate::names(chain)).collect()
        }
        CertificateSource::SelfSigned(_) => return None,
    };
    (listener.trusted_proxies.is_empty() && !names.is_empty()).then_some(names)
}
