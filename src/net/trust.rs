//! Which certificates are believed over TLS: those of given authorities, and those that are given themselves.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::tls::provider;

/// `openssl req -x509` makes a CA certificate, which webpki refuses as an end-entity certificate even if it is the
/// very one configured. That one case is accepted here, and nothing else that webpki refuses.
#[derive(Debug)]
struct Given<V: ?Sized> {
    certificates: Vec<CertificateDer<'static>>,
    webpki: Arc<V>,
}

/// Believes servers by these certificates alone.
pub fn servers(
    certificates: &[CertificateDer<'static>],
) -> anyhow::Result<Arc<dyn ServerCertVerifier>> {
    let roots = Arc::new(roots_of(certificates)?);
    let webpki = WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?;
    let certificates = certificates.to_vec();
    Ok(Arc::new(Given {
        certificates,
        webpki,
    }))
}

/// Believes clients by these certificates alone, and serves those that show none.
pub fn clients(
    certificates: &[CertificateDer<'static>],
) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let roots = Arc::new(roots_of(certificates)?);
    let webpki = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()?;
    let certificates = certificates.to_vec();
    Ok(Arc::new(Given {
        certificates,
        webpki,
    }))
}

/// The authorities that the system trusts.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system root certificate cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// A trust store of exactly these authorities.
pub fn roots_of(authorities: &[CertificateDer<'static>]) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

/// Whether a peer was refused because it showed a CA certificate as its own.
pub fn shows_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    let cause = other.0.downcast_ref::<webpki::Error>();
    matches!(cause, Some(webpki::Error::CaUsedAsEndEntity))
}

/// Whether the certificate is a client's or a server's.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

/// Checks what webpki checks of a certificate beside its name and its issuer.
fn is_fit(
    certificate: &CertificateDer<'_>,
    side: Side,
    now: UnixTime,
) -> Result<(), CertificateError> {
    let (_, read) = X509Certificate::from_der(certificate)
        .map_err(|_ill_formed| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).ok();
    let now = now.and_then(|secs| ASN1Time::from_timestamp(secs).ok());
    let validity = read.validity();
    match now {
        Some(now) if now < validity.not_before => return Err(CertificateError::NotValidYet),
        Some(now) if now <= validity.not_after => {}
        _ => return Err(CertificateError::Expired),
    }
    let uses = read
        .extended_key_usage()
        .map_err(|_ill_formed| CertificateError::BadEncoding)?;
    let is_meant = uses.is_none_or(|uses| match side {
        Side::Client => uses.value.client_auth,
        Side::Server => uses.value.server_auth,
    });
    if is_meant {
        Ok(())
    } else {
        Err(CertificateError::InvalidPurpose)
    }
}

impl<V: ?Sized> Given<V> {
    /// Whether it is one of the given certificates, and was refused only because it is a CA certificate.
    fn takes(&self, certificate: &CertificateDer<'_>, error: &Error) -> bool {
        shows_authority(error) && self.certificates.contains(certificate)
    }
}

impl ClientCertVerifier for Given<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.webpki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self
            .webpki
            .verify_client_cert(end_entity, intermediates, now)
        {
            Err(error) if self.takes(end_entity, &error) => {
                is_fit(end_entity, Side::Client, now)?;
                Ok(ClientCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Given<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(error) if self.takes(end_entity, &error) => {
                is_fit(end_entity, Side::Server, now)?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        date_time_ymd,
    };

    use super::*;

    /// As `openssl req -x509 -addext subjectAltName=DNS:app.internal` makes them, from 2000 to 2099.
    fn own(uses: &[ExtendedKeyUsagePurpose]) -> Certificate {
        let mut params = CertificateParams::new(["app.internal".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = uses.to_vec();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    fn judge(
        given: &[&Certificate],
        shown: &Certificate,
        name: &str,
        year: u64,
    ) -> Result<(), Error> {
        let given: Vec<_> = given.iter().map(|own| own.der().clone()).collect();
        let name = ServerName::try_from(name).unwrap();
        let seconds = Duration::from_secs((year - 1970) * 31_557_600 + 86_400);
        let now = UnixTime::since_unix_epoch(seconds);
        let verifier = servers(&given).unwrap();
        let judged = verifier.verify_server_cert(shown.der(), &[], &name, &[], now);
        judged.map(|_| ())
    }

    #[test]
    fn a_server_may_show_the_very_certificate_that_is_given() {
        // SECURITY U-19
        use ExtendedKeyUsagePurpose as Use;
        let (first, second) = (own(&[]), own(&[Use::ServerAuth, Use::ClientAuth]));
        for shown in [&first, &second] {
            judge(&[&first, &second], shown, "app.internal", 2026).unwrap();
        }
        let stranger = judge(&[&first], &second, "app.internal", 2026).unwrap_err();
        assert!(shows_authority(&stranger), "{stranger}");
        let of = |error: Error| match error {
            Error::InvalidCertificate(why) => why,
            other => panic!("{other}"),
        };
        for (name, year, expected) in [
            ("app.internal", 1999, "NotValidYet"),
            ("app.internal", 2100, "Expired"),
            ("other.internal", 2026, "NotValidForName"),
            ("127.0.0.1", 2026, "NotValidForName"),
        ] {
            let error = of(judge(&[&first], &first, name, year).unwrap_err());
            assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        }
        let client = own(&[Use::ClientAuth]);
        let error = of(judge(&[&client], &client, "app.internal", 2026).unwrap_err());
        assert_eq!(error, CertificateError::InvalidPurpose);
    }

    #[test]
    fn a_client_may_show_the_very_certificate_that_is_given() {
        use ExtendedKeyUsagePurpose as Use;
        let (plain, client, server) = (own(&[]), own(&[Use::ClientAuth]), own(&[Use::ServerAuth]));
        let judge = |given: &Certificate, shown: &Certificate, seconds| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let verifier = clients(&[given.der().clone()]).unwrap();
            let judged = verifier.verify_client_cert(shown.der(), &[], now);
            judged.map(|_| ())
        };
        let (now, past) = (1_800_000_000, 900_000_000);
        for shown in [&plain, &client] {
            assert_eq!(judge(shown, shown, now), Ok(()));
        }
        for (shown, seconds, expected) in [
            (&plain, past, "NotValidYet"),
            (&server, now, "InvalidPurpose"),
        ] {
            let error = format!("{:?}", judge(shown, shown, seconds).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        let stranger = judge(&plain, &client, now).unwrap_err();
        assert!(shows_authority(&stranger), "{stranger}");
    }

    #[test]
    fn the_time_is_checked_whatever_webpki_has_looked_at_before() {
        let certificate = own(&[]);
        let at = |seconds| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            is_fit(certificate.der(), Side::Server, now)
        };
        let (from, until) = (946_684_800, 4_070_908_800); // 2000-01-01, 2099-01-01
        assert_eq!(at(from - 1), Err(CertificateError::NotValidYet));
        assert_eq!((at(from), at(until)), (Ok(()), Ok(())));
        assert_eq!(at(until + 1), Err(CertificateError::Expired));
        assert_eq!(at(u64::MAX), Err(CertificateError::Expired));
    }
}
