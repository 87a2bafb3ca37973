//! `listeners`: addresses, TLS and certificates.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{Compiler, value, values};
use crate::config::certificate;
use crate::config::spec::{
    AcmeSpec, CertificateSpec, ListenerSpec, Named, PlaintextSpec, TlsSpec, TlsVersionSpec,
};
use crate::config::value::{Address, CalledUrl, server_name};
use crate::document::{At, OneOrMany, Parsed, Place};
use crate::route::matcher::normalize_host;
use crate::route::policy::holds_everybody;
use crate::scheme::https_url::HttpsUrl;
use crate::settings::{
    AcmeSettings, CertificatePair, CertificateSource, ListenerSettings, Plaintext, TlsSettings,
    TlsVersion, Transport,
};

/// Where certificates are ordered when nothing else is written.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Whether clients of a listener are asked for a certificate.
pub(super) fn asks_for_certificates(listener: &ListenerSettings) -> bool {
    matches!(&listener.transport, Transport::Tls(tls) if tls.client_ca.is_some())
}

impl Compiler<'_, '_> {
    pub(super) fn listeners(
        &mut self,
        spec: &At<Named<ListenerSpec>>,
        admin: Option<SocketAddr>,
    ) -> Vec<ListenerSettings> {
        let Some((Named(entries), place)) = self.required(spec, "", "listeners") else {
            return Vec::new();
        };
        if entries.is_empty() {
            let hint = "such as `http: { address: 127.0.0.1:8080, plaintext: allow }`";
            self.error(&place, "there is no listener", hint);
        }
        self.addresses(entries, admin);
        self.redirects(entries);
        entries
            .iter()
            .filter_map(|(name, at)| self.listener(name, at))
            .collect()
    }

    /// Warns of redirects that lead nowhere.
    fn redirects(&mut self, entries: &[(String, At<ListenerSpec>)]) {
        let listeners = || entries.iter().filter_map(|(_, at)| at.get());
        // Plain HTTP is allowed, and proxies are trusted, behind what ends TLS: senders are sent to that.
        let is_behind_tls = |listener: &ListenerSpec| {
            let plaintext = value(listener.plaintext.as_ref());
            listener.trusted_proxies.is_some()
                || matches!(plaintext, Some((PlaintextSpec::Allow, _)))
        };
        if listeners().any(|listener| listener.tls.is_some() || is_behind_tls(listener)) {
            return;
        }
        for listener in listeners().filter(|listener| listener.public_url.is_none()) {
            if let Some((PlaintextSpec::Redirect, place)) = value(listener.plaintext.as_ref()) {
                let message = "there is no listener with `tls` that senders could be sent to";
                let hint =
                    "add one, or say where they shall go: `public_url: https://hooks.example.org`";
                self.warn(&place, message, hint);
            }
        }
    }

    /// Listeners on one address would share its connections at random, because their sockets have `SO_REUSEPORT`.
    fn addresses(&mut self, entries: &[(String, At<ListenerSpec>)], admin: Option<SocketAddr>) {
        let mut seen: Vec<(SocketAddr, &str)> = Vec::new();
        for (name, at) in entries {
            let address = at.get().and_then(|listener| value(Some(&listener.address)));
            let Some((Parsed(Address(address)), place)) = address else {
                continue;
            };
            if address.port() == 0 {
                continue;
            }
            if let Some((_, other)) = seen.iter().find(|(other, _)| other == address) {
                self.error(
                    &place,
                    format!("listener `{other}` has this address already"),
                    None,
                );
            } else if let Some((_, other)) =
                seen.iter().find(|(other, _)| overlap(*other, *address))
            {
                let message = format!(
                    "listener `{other}` has this port too, and one of them listens on every address: \
                     the address decides which of them takes a connection"
                );
                self.warn(&place, message, "give each a port of its own");
            }
            if admin.is_some_and(|admin| overlap(admin, *address)) {
                let hint = "give `admin.address` a port of its own";
                self.error(&place, "the admin listener has this address", hint);
            }
            seen.push((*address, name));
        }
    }

    fn listener(&mut self, name: &str, at: &At<ListenerSpec>) -> Option<ListenerSettings> {
        let (listener, place) = value(Some(at))?;
        if !super::is_plain_name(name) {
            let key = self.key(&place.path);
            self.error(
                &key,
                format!("`{name}` is not a name for a listener"),
                super::PLAIN_NAME,
            );
        }
        let trusted_proxies = self.networks(listener.trusted_proxies.as_ref());
        let trusted_proxies = trusted_proxies.unwrap_or_default();
        if let Some((_, place)) = value(listener.trusted_proxies.as_ref())
            && holds_everybody(&trusted_proxies)
        {
            let message = "every sender is trusted: each can claim any address as its own";
            self.warn(&place, message, "name the addresses of your proxies");
        }
        let proxy_protocol = self.proxy_protocol(listener, &trusted_proxies);
        let address = self.required(&listener.address, &place.path, "address");
        let transport = self.transport(listener, &place.path);
        Some(ListenerSettings {
            name: name.into(),
            address: address?.0.0.0,
            transport: transport?,
            public_url: value(listener.public_url.as_ref())
                .map(|(Parsed(CalledUrl(url)), _)| url.clone()),
            trusted_proxies,
            proxy_protocol,
        })
    }

    fn proxy_protocol(&mut self, listener: &ListenerSpec, trusted_proxies: &[IpNet]) -> bool {
        let Some((true, place)) = value(listener.proxy_protocol.as_ref()) else {
            return false;
        };
        if trusted_proxies.is_empty() {
            let message = "no proxy may send PROXY headers: every connection would be closed";
            let hint = "name the addresses of your proxies in `trusted_proxies`";
            self.error(&place, message, hint);
        }
        true
    }

    fn transport(&mut self, listener: &ListenerSpec, path: &str) -> Option<Transport> {
        match (&listener.tls, &listener.plaintext) {
            (None, None) => {
                let place = self.key(path);
                let message = "a listener without `tls` must say what plain HTTP gets: `plaintext` is missing";
                let hint = "add `tls`, or `plaintext: reject`, `redirect` or `allow`";
                self.error(&place, message, hint);
                None
            }
            (Some(tls), plaintext) => {
                if let Some(plaintext) = plaintext {
                    let place = plaintext.place().cloned().unwrap_or_else(|| self.key(path));
                    let message = "a listener speaks either TLS or plaintext";
                    self.error(&place, message, "remove one, or make two listeners of it");
                }
                let (tls, place) = value(Some(tls))?;
                self.tls(tls, &place).map(Transport::Tls)
            }
            (None, Some(plaintext)) => value(Some(plaintext)).map(|(plaintext, _)| {
                Transport::Plaintext(match plaintext {
                    PlaintextSpec::Allow => Plaintext::Allow,
                    PlaintextSpec::Redirect => Plaintext::Redirect,
                    PlaintextSpec::Reject => Plaintext::Reject,
                })
            }),
        }
    }

    fn tls(&mut self, tls: &TlsSpec, place: &Place) -> Option<TlsSettings> {
        let client_ca = match value(tls.client_ca.as_ref()) {
            None => Some(None),
            Some((file, place)) => {
                let read = certificate::authorities(self.resolver, file);
                self.trusted(read, file, &place).map(Some)
            }
        };
        let min_version = match value(tls.min_version.as_ref()) {
            None | Some((TlsVersionSpec::Tls12, _)) => TlsVersion::Tls12,
            Some((TlsVersionSpec::Tls13, _)) => TlsVersion::Tls13,
        };
        let certificates = self.certificates(tls, place);
        Some(TlsSettings {
            certificates: certificates?,
            min_version,
            client_ca: client_ca?,
        })
    }

    fn certificates(&mut self, tls: &TlsSpec, place: &Place) -> Option<CertificateSource> {
        let sources = [
            tls.certificates.as_ref().and_then(At::place),
            tls.self_signed.as_ref().and_then(At::place),
            tls.acme.as_ref().and_then(At::place),
        ];
        if let Some(second) = sources.into_iter().flatten().nth(1).cloned() {
            let message = "`certificates`, `self_signed` and `acme` exclude each other";
            self.error(&second, message, "keep one of them");
            return None;
        }
        match (&tls.certificates, &tls.self_signed, &tls.acme) {
            (Some(files), _, _) => self.files(files).map(CertificateSource::Files),
            (_, Some(names), _) => self.self_signed(names).map(CertificateSource::SelfSigned),
            (_, _, Some(acme)) => self.acme(acme).map(CertificateSource::Acme),
            (None, None, None) => {
                let hint = "write `certificates: [{ cert: FILE, key: FILE }]`, `acme`, or \
                            `self_signed: [localhost]` for a laptop";
                let key = self.key(&place.path);
                let message = "there is no certificate: the key `certificates` is missing";
                self.error(&key, message, hint);
                None
            }
        }
    }

    fn acme(&mut self, at: &At<AcmeSpec>) -> Option<AcmeSettings> {
        let (acme, place) = value(Some(at))?;
        let domains = self.domains(acme, &place);
        let email = value(acme.email.as_ref());
        if let Some((text, place)) = &email
            && !text.contains('@')
        {
            let message = format!("`{text}` is not an address that mail could be sent to");
            self.warn(place, message, "such as `webmaster@example.org`");
        }
        let directory = match value(acme.directory.as_ref()) {
            None => Some(LETS_ENCRYPT.to_owned()),
            Some((url, place)) => match HttpsUrl::parse(url) {
                Ok(_) => Some(url.clone()),
                Err(message) => {
                    self.error(&place, message, None);
                    None
                }
            },
        };
        let ca = match value(acme.ca.as_ref()) {
            None => Some(None),
            Some((file, place)) => {
                let read = certificate::authorities(self.resolver, file);
                self.trusted(read, file, &place).map(Some)
            }
        };
        let (cache, cache_place) = self.required(&acme.cache, &place.path, "cache")?;
        if self.resolver.place(cache).is_file() {
            let message = format!("`{cache}` is a file, and the cache is a folder");
            self.error(&cache_place, message, None);
        }
        if cache.is_empty() {
            self.error(&cache_place, "the path is empty", None);
            return None;
        }
        Some(AcmeSettings {
            domains: domains?,
            email: email.map(|(email, _)| email.clone()),
            directory: directory?,
            ca: ca?,
            cache: self.resolver.place(cache),
        })
    }

    /// Names that an authority can look at: neither wildcards nor addresses.
    fn domains(&mut self, acme: &AcmeSpec, place: &Place) -> Option<Vec<String>> {
        self.required(&acme.domains, &place.path, "domains")?;
        let names = values(Some(&acme.domains))?;
        if names.is_empty() {
            let place = acme.domains.place()?;
            self.error(
                place,
                "there is no name for the certificate",
                "such as `[hooks.example.org]`",
            );
            return None;
        }
        let mut good = Vec::new();
        for (name, place) in &names {
            if let Ok(ServerName::DnsName(_)) = ServerName::try_from(name.as_str()) {
                let name = normalize_host(name);
                self.again(&good, &name, place);
                good.push(name);
            } else {
                let message = format!("`{name}` is not a DNS name");
                let hint = "wildcards and addresses cannot be proven by TLS-ALPN-01 or HTTP-01";
                self.error(place, message, hint);
            }
        }
        (good.len() == names.len()).then_some(good)
    }

    fn self_signed(&mut self, at: &At<OneOrMany<String>>) -> Option<Vec<String>> {
        let names = values(Some(at))?;
        if names.is_empty() {
            let place = at.place()?;
            self.error(
                place,
                "there is no name for the certificate",
                "such as `[localhost, 127.0.0.1]`",
            );
            return None;
        }
        let mut good = Vec::new();
        for (name, place) in &names {
            let bare = name.strip_prefix("*.").unwrap_or(name);
            match server_name(bare) {
                Ok(()) => {
                    let name = (*name).clone();
                    self.again(&good, &name, place);
                    good.push(name);
                }
                Err(message) => self.error(place, message, None),
            }
        }
        (good.len() == names.len()).then_some(good)
    }

    /// Warns of a name that a certificate has already.
    fn again(&mut self, names: &[String], name: &str, place: &Place) {
        if names.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            self.warn(place, format!("`{name}` stands here twice"), "remove one");
        }
    }

    fn files(&mut self, at: &At<OneOrMany<CertificateSpec>>) -> Option<Vec<CertificatePair>> {
        let (OneOrMany(items), place) = value(Some(at))?;
        if items.is_empty() {
            self.error(
                &place,
                "there is no certificate",
                "write `{ cert: FILE, key: FILE }`",
            );
            return None;
        }
        let pairs: Vec<_> = items.iter().filter_map(|item| self.pair(item)).collect();
        for (index, pair) in pairs.iter().enumerate() {
            let twice = pairs
                .iter()
                .take(index)
                .any(|other| other.name == pair.name);
            if twice && let Some(place) = items.get(index).and_then(At::place) {
                self.error(
                    place,
                    format!("the certificate `{}` stands here twice", pair.name),
                    None,
                );
            }
        }
        (pairs.len() == items.len()).then_some(pairs)
    }

    fn pair(&mut self, at: &At<CertificateSpec>) -> Option<CertificatePair> {
        let (spec, place) = value(Some(at))?;
        let cert = self.required(&spec.cert, &place.path, "cert");
        let key = self.required(&spec.key, &place.path, "key");
        let chain = cert.as_ref().and_then(|(cert, place)| {
            let read = certificate::chain(self.resolver, cert);
            let chain = self.reported(read, place)?;
            for doubt in certificate::doubts(&chain, cert, self.resolver.env.now()) {
                self.doubt(place, doubt);
            }
            Some(chain)
        });
        let (key, key_place) = key?;
        let key = self.key_of(chain.as_deref(), key, &key_place);
        Some(CertificatePair {
            name: cert?.0.as_str().into(),
            chain: chain?,
            key: key?,
        })
    }

    /// The key of a chain. Where the chain is wrong, only whether the key can be read is checked.
    pub(super) fn key_of(
        &mut self,
        chain: Option<&[CertificateDer<'static>]>,
        file: &str,
        place: &Place,
    ) -> Option<Arc<PrivateKeyDer<'static>>> {
        let Some(chain) = chain else {
            let read = self.resolver.private_file(file);
            self.reported(read, place);
            return None;
        };
        let read = certificate::identity(self.resolver, chain, file);
        let identity = self.reported(read, place)?;
        for doubt in identity.doubts {
            self.doubt(place, doubt);
        }
        Some(identity.key)
    }
}

/// Whether connections to one could reach the other. `[::]` takes IPv4 too, `0.0.0.0` no IPv6.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (ip, other) = (a.ip().to_canonical(), b.ip().to_canonical());
    let takes = |any: IpAddr, ip: IpAddr| any.is_unspecified() && (any.is_ipv6() || ip.is_ipv4());
    a.port() == b.port() && (ip == other || takes(ip, other) || takes(other, ip))
}
