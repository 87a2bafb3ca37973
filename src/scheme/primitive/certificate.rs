//! Certificates: what a third side vouches for.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime as TlsTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::units::UnixTime;

/// A certificate's facts, read but not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scheme) struct Certificate {
    /// The whole.
    pub(in crate::scheme) der: Vec<u8>,
    /// The key it is about, as `SubjectPublicKeyInfo`.
    pub(in crate::scheme) spki: Vec<u8>,
    /// First moment.
    pub(in crate::scheme) not_before: UnixTime,
    /// Last moment.
    pub(in crate::scheme) not_after: UnixTime,
    /// DNS names.
    pub(in crate::scheme) names: Vec<String>,
    /// Object identifiers of its extensions.
    extensions: Vec<String>,
}

impl Certificate {
    /// From DER and nothing after it.
    pub(in crate::scheme) fn parse(der: &[u8]) -> Result<Self, &'static str> {
        let (rest, parsed) = X509Certificate::from_der(der).or(Err("not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err("bytes follow the certificate");
        }
        let names = match parsed.subject_alternative_name() {
            Ok(Some(extension)) => dns_names(&extension.value.general_names),
            Ok(None) => Vec::new(),
            Err(_) => return Err("a certificate whose names cannot be read"),
        };
        let validity = parsed.validity();
        Ok(Self {
            der: der.to_vec(),
            spki: parsed.public_key().raw.to_vec(),
            not_before: UnixTime::from_secs(validity.not_before.timestamp()),
            not_after: UnixTime::from_secs(validity.not_after.timestamp()),
            names,
            extensions: parsed
                .iter_extensions()
                .map(|extension| extension.oid.to_id_string())
                .collect(),
        })
    }

    /// Whether `now` lies between its ends, both included.
    pub(in crate::scheme) fn is_valid_at(&self, now: UnixTime) -> bool {
        self.not_before.secs() <= now.secs() && now.secs() <= self.not_after.secs()
    }

    /// Whether it has the extension with this object identifier (`1.2.840...`).
    pub(in crate::scheme) fn has_extension(&self, oid: &str) -> bool {
        self.extensions.iter().any(|own| own == oid)
    }
}

fn dns_names(names: &[GeneralName<'_>]) -> Vec<String> {
    names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some((*dns).to_owned()),
            _ => None,
        })
        .collect()
}

/// What the leaf must be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheme) enum Usage<'a> {
    /// Anything: the extensions that the caller asks for say what.
    Any,
    /// A server of this DNS name.
    Server(&'a str),
}

impl ExtendedKeyUsageValidator for Usage<'_> {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        match self {
            Self::Any => Ok(()),
            Self::Server(_) => KeyUsage::server_auth().validate(purposes),
        }
    }
}

/// Whether `leaf` leads over `between` to one of `anchors` at `now`: signatures, validity, CA and
/// path length constraints, name constraints, usage and name (RFC 5280 section 6). Gives the DER of
/// the certificates between the leaf and the anchor, as the path goes.
pub(in crate::scheme) fn verify_chain(
    leaf: &[u8],
    between: &[&[u8]],
    anchors: &[TrustAnchor<'_>],
    usage: Usage<'_>,
    now: UnixTime,
) -> Result<Vec<Vec<u8>>, &'static str> {
    let leaf = CertificateDer::from(leaf);
    let between: Vec<_> = between
        .iter()
        .map(|der| CertificateDer::from(*der))
        .collect();
    let leaf = EndEntityCert::try_from(&leaf).or(Err("the leaf is not a certificate"))?;
    let seconds = u64::try_from(now.secs()).or(Err("a time before 1970"))?;
    let path = leaf
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            anchors,
            &between,
            TlsTime::since_unix_epoch(Duration::from_secs(seconds)),
            usage,
            None,
            None,
        )
        .map_err(|error| reason(&error))?;
    if let Usage::Server(name) = usage {
        let name = ServerName::try_from(name).or(Err("not a DNS name"))?;
        leaf.verify_is_valid_for_subject_name(&name)
            .or(Err("the certificate is for another name"))?;
    }
    Ok(path
        .intermediate_certificates()
        .map(|certificate| certificate.der().as_ref().to_vec())
        .collect())
}

/// A certificate that is trusted because the operator says so, as the chain builder wants it.
pub(in crate::scheme) fn anchor(der: &[u8]) -> Option<TrustAnchor<'static>> {
    let der = CertificateDer::from(der);
    let anchor = webpki::anchor_from_trusted_cert(&der).ok()?;
    Some(anchor.to_owned())
}

/// What to say of a chain that does not hold.
fn reason(error: &webpki::Error) -> &'static str {
    match error {
        webpki::Error::CertExpired { .. } => "a certificate has ended",
        webpki::Error::CertNotValidYet { .. } => "a certificate is not valid yet",
        webpki::Error::UnknownIssuer => "the chain does not lead to a trusted root",
        webpki::Error::EndEntityUsedAsCa => "a certificate that is not an authority's vouches",
        webpki::Error::CaUsedAsEndEntity => "the leaf is an authority",
        webpki::Error::PathLenConstraintViolated => "the chain is longer than its root allows",
        webpki::Error::RequiredEkuNotFoundContext(_) => "the leaf is made for something else",
        _ => "the certificate chain does not hold",
    }
}
