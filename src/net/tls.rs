//! TLS: which certificate a name gets, and what a handshake establishes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
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
use crate::settings::{CertificatePair, CertificateSource, TlsSettings, TlsVersion};
use crate::units::UnixTime;

/// A listener's TLS, built from its settings; replaced whole by a reload.
#[derive(Debug)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
    certificates: Arc<Current>,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its beginning.
    pub from: UnixTime,
    /// Its end.
    pub until: UnixTime,
}

impl Validity {
    /// That of a certificate that cannot be read: never valid.
    const NEVER: Self = Self {
        from: UnixTime::from_secs(0),
        until: UnixTime::from_secs(0),
    };

    /// The moment from which a third of its time is left.
    pub fn last_third(self) -> UnixTime {
        let third = (self.until.secs() - self.from.secs()) / 3;
        UnixTime::from_secs(self.until.secs() - third)
    }
}

/// When a certificate begins and ends, for the metrics of its name.
#[derive(Clone, Debug)]
pub struct Expiry {
    /// Name of the certificate in metrics.
    pub name: Arc<str>,
    /// Begin of its validity.
    pub not_before: UnixTime,
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
        // Shops that ask libcurl for HTTP/1.0 offer nothing else (WooCommerce). Refused here, their deliveries would
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
        let asked = connection.server_name();
        TlsFacts {
            certificate: asked.and_then(|name| certificates.names_for(name)),
            client: connection
                .peer_certificates()
                .and_then(<[CertificateDer<'_>]>::first)
                .map(|certificate| names_of(certificate)),
        }
    }

    /// When the listener's certificates end.
    pub fn expiries(&self) -> Vec<Expiry> {
        let certificates = self.certificates.0.load();
        let expiry = |certificate: &Certificate| Expiry {
            name: Arc::clone(&certificate.name),
            not_before: certificate.validity.from,
            not_after: certificate.validity.until,
        };
        certificates.list.iter().map(expiry).collect()
    }

    /// The listener's certificates, without self-signed stand-ins.
    pub fn certificates(&self) -> Vec<Certificate> {
        let certificates = self.certificates.0.load();
        certificates.not_made().cloned().collect()
    }

    /// The `domains` that no issued certificate covers; self-signed stand-ins do not count.
    pub fn uncovered(&self, domains: &[String]) -> Vec<String> {
        let certificates = self.certificates.0.load();
        let is_covered = |domain: &str| certificates.not_made().any(|one| one.covers(domain));
        let uncovered = domains.iter().filter(|domain| !is_covered(domain));
        uncovered.cloned().collect()
    }

    /// When to order the next certificate (ACME listeners only). 0 means now: senders may refuse the present one.
    pub fn order_due(&self) -> Option<UnixTime> {
        self.certificates.0.load().order_due
    }

    /// Serves this certificate from the next handshake on, and a self-signed one for the `domains` that it does not
    /// cover. The next one is ordered at `order_due`.
    pub fn install(
        &self,
        certificate: Certificate,
        domains: &[String],
        order_due: UnixTime,
    ) -> anyhow::Result<()> {
        let missing = domains.iter().filter(|domain| !certificate.covers(domain));
        let missing: Vec<String> = missing.cloned().collect();
        let mut list = vec![certificate];
        if !missing.is_empty() {
            list.push(self_signed(&missing)?);
        }
        let certificates = Certificates::of(list, Some(order_due));
        self.certificates.0.store(Arc::new(certificates));
        Ok(())
    }
}

/// A listener's certificates as they are now.
#[derive(Debug)]
struct Current(ArcSwap<Certificates>);

/// A listener's certificates, by the names they are good for.
#[derive(Debug)]
struct Certificates {
    list: Vec<Certificate>,
    by_name: HashMap<String, SmallVec<[usize; 1]>>,
    /// See [`TlsAcceptor::order_due`].
    order_due: Option<UnixTime>,
}

/// A certificate with its key, ready to be served.
#[derive(Clone, Debug)]
pub struct Certificate {
    name: Arc<str>,
    origin: Origin,
    key: Arc<CertifiedKey>,
    names: Arc<CertificateNames>,
    validity: Validity,
}

/// Where a certificate is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file that the configuration names.
    File,
    /// Self-signed by this process: nobody but the operator should trust it.
    Made,
    /// Issued by the ACME authority that has this directory.
    Authority(Arc<str>),
}

impl Certificates {
    fn new(source: &CertificateSource) -> anyhow::Result<Self> {
        let (list, order_due) = match source {
            CertificateSource::Files(pairs) => {
                let pair = |pair: &CertificatePair| {
                    let (chain, key) = (pair.chain.clone(), pair.key.clone_key());
                    Certificate::new(&pair.name, Origin::File, chain, key)
                };
                (pairs.iter().map(pair).collect::<anyhow::Result<_>>()?, None)
            }
            CertificateSource::SelfSigned(names) => (vec![self_signed(names)?], None),
            // Served until the first one is issued.
            CertificateSource::Acme(acme) => (
                vec![self_signed(&acme.domains)?],
                Some(UnixTime::from_secs(0)),
            ),
        };
        Ok(Self::of(list, order_due))
    }

    fn of(list: Vec<Certificate>, order_due: Option<UnixTime>) -> Self {
        let mut by_name: HashMap<_, SmallVec<_>> = HashMap::new();
        for (index, certificate) in list.iter().enumerate() {
            for name in &certificate.names.dns {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        Self {
            list,
            by_name,
            order_due,
        }
    }

    fn not_made(&self) -> impl Iterator<Item = &Certificate> {
        let certificates = self.list.iter();
        certificates.filter(|certificate| certificate.origin != Origin::Made)
    }

    /// The certificates that cover a name: first those that have it, then wildcards.
    fn by_name(&self, name: &str) -> SmallVec<[&Certificate; 2]> {
        let name = normalize_host(name);
        let wildcard = name
            .find('.')
            .and_then(|dot| name.get(dot..))
            .map(|tail| format!("*{tail}"));
        let exact = self.by_name.get(&name);
        let wild = wildcard.and_then(|wildcard| self.by_name.get(&wildcard));
        let places = exact.into_iter().chain(wild).flatten();
        places.filter_map(|place| self.list.get(*place)).collect()
    }

    /// The hosts that all certificates for a name cover, because rustls does not say which one it showed.
    fn names_for(&self, name: &str) -> Option<Arc<CertificateNames>> {
        let mut certificates = self.by_name(name).into_iter();
        let mut names = Arc::clone(&certificates.next()?.names);
        for other in certificates {
            if other.names != names {
                names = Arc::new(names.common(&other.names));
            }
        }
        Some(names)
    }

    /// The certificates to choose from. Without a name, or for one that none covers: the first, and all with its
    /// first name.
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
        // Of an ECDSA and an RSA certificate for one name, old clients can check only the RSA one.
        let schemes = hello.signature_schemes();
        let fits =
            |certificate: &&&Certificate| certificate.key.key.choose_scheme(schemes).is_some();
        let chosen = candidates.iter().find(fits).or_else(|| candidates.first());
        chosen.map(|certificate| Arc::clone(&certificate.key))
    }
}

impl Certificate {
    /// Fails when the key does not fit. `name` is its name in metrics.
    pub fn new(
        name: &Arc<str>,
        origin: Origin,
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
        let validity = validity(leaf).unwrap_or(Validity::NEVER);
        let key = CertifiedKey::from_der(chain, key, &provider())?;
        Ok(Self {
            name: Arc::clone(name),
            origin,
            key: Arc::new(key),
            names: Arc::new(names),
            validity,
        })
    }

    /// The same certificate with another name in metrics.
    #[must_use]
    pub fn named(self, name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            ..self
        }
    }

    /// Where it is from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether it covers a domain.
    pub fn covers(&self, domain: &str) -> bool {
        self.names.covers(&normalize_host(domain))
    }

    /// The names in it.
    pub fn names(&self) -> &CertificateNames {
        &self.names
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

/// A certificate made at start, for a laptop: nobody but the operator should trust it.
fn self_signed(names: &[String]) -> anyhow::Result<Certificate> {
    let made = rcgen::generate_simple_self_signed(names.to_vec())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let chain = vec![made.cert.der().clone()];
    Certificate::new(&"self_signed".into(), Origin::Made, chain, key)
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

/// The common name, which old certificates have instead of alternative names (RFC 6125, section 6.4.4). A few clients
/// still look there.
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
        let validity = |from, until| Validity {
            from: at(from),
            until: at(until),
        };
        assert_eq!(validity(1000, 1090).last_third(), at(1060));
        assert_eq!(validity(1000, 1001).last_third(), at(1001));
    }

    #[test]
    fn names_without_a_certificate_get_one_made_here() {
        let domains = ["a.example.org", "b.example.org"].map(str::to_owned);
        let acceptor = TlsAcceptor::new(&TlsSettings {
            certificates: CertificateSource::SelfSigned(domains.to_vec()),
            min_version: TlsVersion::Tls12,
            client_ca: None,
        })
        .unwrap();
        assert!(acceptor.certificates().is_empty());
        assert_eq!(acceptor.uncovered(&domains), domains);
        let made = self_signed(&domains[..1]).unwrap();
        let issued = Certificate {
            name: "a.example.org".into(),
            origin: Origin::Authority("https://ca.example.org".into()),
            ..made
        };
        let due = UnixTime::from_secs(7);
        acceptor.install(issued, &domains, due).unwrap();
        assert_eq!(acceptor.order_due(), Some(due));
        assert_eq!(acceptor.uncovered(&domains), domains[1..]);
        assert_eq!(acceptor.certificates().len(), 1);
        let current = acceptor.certificates.0.load();
        let served = domains.map(|name| current.by_name(&name)[0].name.to_string());
        assert_eq!(served, ["a.example.org", "self_signed"]);
    }
}
