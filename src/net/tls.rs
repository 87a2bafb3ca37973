//! TLS: which certificate a name gets, and what a handshake establishes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, ServerConnection,
};
use rustls::sign::CertifiedKey;
use smallvec::SmallVec;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::trust;
use crate::gateway::connection::{CertificateNames, TlsFacts};
use crate::route::matcher::normalize_host;
use crate::settings::{CertificateSource, TlsSettings, TlsVersion};
use crate::units::UnixTime;

/// A listener's TLS, built from its settings; replaced whole by a reload.
#[derive(Debug)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
    certificates: Arc<Current>,
}

/// When a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From this moment on.
    pub from: UnixTime,
    /// Until this one.
    pub until: UnixTime,
}

impl Validity {
    /// How long it is until a third of its time is left.
    pub fn until_last_third(self, now: UnixTime) -> Duration {
        let due = self.until.secs() - (self.until.secs() - self.from.secs()) / 3;
        Duration::from_secs(u64::try_from(due - now.secs()).unwrap_or(0))
    }
}

/// When a certificate ends, for the metric of its name.
#[derive(Clone, Debug)]
pub struct Expiry {
    /// Name of the certificate in metrics.
    pub name: Arc<str>,
    /// End of its validity.
    pub not_after: UnixTime,
}

/// The crypto provider of the whole program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl TlsAcceptor {
    /// Builds the server side. Fails when a key does not fit its certificate.
    pub fn new(settings: &TlsSettings) -> anyhow::Result<Self> {
        let certificates = Certificates::new(&settings.certificates)?;
        let certificates = Arc::new(Current(ArcSwap::from_pointee(certificates)));
        let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS12, &rustls::version::TLS13],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => builder.with_client_cert_verifier(trust::clients(authorities)?),
        };
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(&certificates);
        let mut config = builder.with_cert_resolver(resolver);
        // Shops that ask libcurl for HTTP/1.0 offer nothing else (WooCommerce): refused here, their deliveries would
        // leave no trace.
        config.alpn_protocols = [b"h2".as_slice(), b"http/1.1", b"http/1.0"]
            .map(<[u8]>::to_vec)
            .into();
        config.ignore_client_order = true;
        if settings.client_ca.is_some() {
            // A resumed session would carry a client certificate past its expiry or a new CA
            // (SECURITY A-49): every connection proves itself anew.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else if settings.min_version == TlsVersion::Tls12 {
            config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        }
        // A ticket of TLS 1.2 saves a round trip; one of 1.3 saves none, few senders come back with it, and
        // every full handshake pays for it (docs/performance.md).
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            certificates,
        })
    }

    /// For `tokio_rustls::TlsAcceptor`.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// What the finished handshake established.
    pub fn facts(&self, connection: &ServerConnection) -> TlsFacts {
        let certificates = self.certificates.0.load();
        let chosen = connection
            .server_name()
            .and_then(|name| certificates.by_name(name).first().copied());
        TlsFacts {
            certificate: chosen.map(|certificate| Arc::clone(&certificate.names)),
            client: connection
                .peer_certificates()
                .and_then(<[CertificateDer<'_>]>::first)
                .map(|certificate| names_of(certificate)),
        }
    }

    /// When the listener's certificates end.
    pub fn expiries(&self) -> Vec<Expiry> {
        let certificates = self.certificates.0.load();
        let expiry = |certificate: &Certificate| certificate.expiry.clone();
        certificates.list.iter().map(expiry).collect()
    }

    /// Serves this certificate and no other from the next handshake on. It must be good for all of
    /// `domains`.
    pub fn install(
        &self,
        name: &str,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        domains: &[String],
    ) -> anyhow::Result<Validity> {
        let validity = chain.first().and_then(|leaf| validity(leaf));
        let validity = validity.context("the certificate cannot be read")?;
        let certificate = Certificate::new(&name.into(), chain, key)?;
        for domain in domains {
            anyhow::ensure!(
                certificate.names.covers(&normalize_host(domain)),
                "the certificate is not for `{domain}`"
            );
        }
        let certificates = Certificates::of(vec![certificate]);
        self.certificates.0.store(Arc::new(certificates));
        Ok(validity)
    }
}

/// A trust store of exactly these authorities.
pub fn roots_of(authorities: &[CertificateDer<'static>]) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

/// A listener's certificates as they are now.
#[derive(Debug)]
struct Current(ArcSwap<Certificates>);

/// A listener's certificates, by the names they are good for.
#[derive(Debug)]
struct Certificates {
    list: Vec<Certificate>,
    by_name: HashMap<String, SmallVec<[usize; 1]>>,
}

#[derive(Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    names: Arc<CertificateNames>,
    expiry: Expiry,
}

impl Certificates {
    fn new(source: &CertificateSource) -> anyhow::Result<Self> {
        let list = match source {
            CertificateSource::Files(pairs) => pairs
                .iter()
                .map(|pair| Certificate::new(&pair.name, pair.chain.clone(), pair.key.clone_key()))
                .collect::<anyhow::Result<Vec<_>>>()?,
            CertificateSource::SelfSigned(names) => vec![self_signed(names)?],
            // Until there is a better one.
            CertificateSource::Acme(acme) => vec![self_signed(&acme.domains)?],
        };
        Ok(Self::of(list))
    }

    fn of(list: Vec<Certificate>) -> Self {
        let mut by_name: HashMap<_, SmallVec<_>> = HashMap::new();
        for (index, certificate) in list.iter().enumerate() {
            for name in &certificate.names.dns {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        Self { list, by_name }
    }

    /// The certificates that are good for a name that the client asked for, in their order.
    fn by_name(&self, name: &str) -> SmallVec<[&Certificate; 2]> {
        let name = normalize_host(name);
        let wildcard = name
            .find('.')
            .and_then(|dot| name.get(dot..))
            .map(|tail| format!("*{tail}"));
        let places = self
            .by_name
            .get(&name)
            .or_else(|| wildcard.and_then(|wildcard| self.by_name.get(&wildcard)));
        let places = places.into_iter().flatten();
        places.filter_map(|place| self.list.get(*place)).collect()
    }

    /// Those to choose from: without a name, or for one that none is good for, the first and those of its name.
    fn candidates(&self, name: Option<&str>) -> SmallVec<[&Certificate; 2]> {
        let named = name.map(|name| self.by_name(name)).unwrap_or_default();
        if !named.is_empty() {
            return named;
        }
        let first = self.list.first();
        let name = first.and_then(|first| first.names.dns.first());
        let alike = name.map(|name| self.by_name(name)).unwrap_or_default();
        first.into_iter().chain(alike).collect()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        let candidates = certificates.candidates(hello.server_name());
        // Of an ECDSA and an RSA certificate for one name, old clients can check the RSA one alone.
        let schemes = hello.signature_schemes();
        let fits =
            |certificate: &&&Certificate| certificate.key.key.choose_scheme(schemes).is_some();
        let chosen = candidates.iter().find(fits).or_else(|| candidates.first());
        chosen.map(|certificate| Arc::clone(&certificate.key))
    }
}

impl Certificate {
    fn new(
        name: &Arc<str>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> anyhow::Result<Self> {
        let leaf = chain
            .first()
            .ok_or_else(|| anyhow::anyhow!("no certificate in `{name}`"))?;
        let mut names = names_of(leaf);
        if names == CertificateNames::default() {
            names.dns.extend(common_name(leaf));
        }
        let not_after = validity(leaf).map_or(UnixTime::from_secs(0), |validity| validity.until);
        let key = CertifiedKey::from_der(chain, key, &provider())?;
        let expiry = Expiry {
            name: Arc::clone(name),
            not_after,
        };
        Ok(Self {
            key: Arc::new(key),
            names: Arc::new(names),
            expiry,
        })
    }
}

/// A certificate made at start, for a laptop: nobody but the operator should trust it.
fn self_signed(names: &[String]) -> anyhow::Result<Certificate> {
    let made = rcgen::generate_simple_self_signed(names.to_vec())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    Certificate::new(&"self_signed".into(), vec![made.cert.der().clone()], key)
}

/// The names in a certificate.
pub fn names_of(certificate: &CertificateDer<'_>) -> CertificateNames {
    let mut names = CertificateNames::default();
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return names;
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return names;
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => names.dns.push(normalize_host(name)),
            GeneralName::IPAddress(octets) => names.ips.extend(address(octets)),
            GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                names.others.push((*name).to_owned());
            }
            _ => {}
        }
    }
    names
}

/// What certificates had before there were other names in them (RFC 6125, section 6.4.4). A few clients still look there.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?;
    name.as_str().ok().map(normalize_host)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some(Validity {
        from: UnixTime::from_secs(validity.not_before.timestamp()),
        until: UnixTime::from_secs(validity.not_after.timestamp()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_when_a_third_of_its_time_is_left() {
        let at = UnixTime::from_secs;
        let validity = Validity {
            from: at(1000),
            until: at(1090),
        };
        let wait = |now| validity.until_last_third(at(now)).as_secs();
        assert_eq!(
            [wait(1000), wait(1059), wait(1060), wait(2000)],
            [60, 1, 0, 0]
        );
        assert_eq!(wait(900), 160, "its time has not begun");
    }
}
