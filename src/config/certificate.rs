//! Certificates and keys from PEM files, and what an operator should know about them.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::pem_form;
use super::resolve::{Finding, Resolver};
use crate::secret::Secret;
use crate::shares;
use crate::units::UnixTime;

/// Two weeks: from then on, the end of a certificate is told.
const ENDS_SOON_MS: i64 = 14 * 24 * 60 * 60 * 1_000;

/// The key of a chain, with what is doubtful about it.
pub(super) struct Identity {
    pub(super) key: Arc<PrivateKeyDer<'static>>,
    pub(super) doubts: Vec<Finding>,
}

/// Reads the certificates of a PEM file; at least one.
pub(super) fn chain(
    resolver: &mut Resolver<'_>,
    path: &str,
) -> Result<Vec<CertificateDer<'static>>, Finding> {
    parse_chain(&resolver.file(path)?, path)
}

/// The certificates of the PEM text of a file; at least one.
pub(super) fn parse_chain(pem: &[u8], path: &str) -> Result<Vec<CertificateDer<'static>>, Finding> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = read.map_err(|error| not_pem(path, &error))?;
    overlooked(pem, path)?;
    if chain.is_empty() {
        return Err(missing(
            "certificate",
            path,
            pem_form::instead_of_certificate(pem, path),
        ));
    }
    for certificate in &chain {
        parse(certificate, path)?;
    }
    Ok(chain)
}

/// Refuses a certificate that does not begin its line, because the parser would skip it as a remark. `cat` makes
/// such files where the last line of one lacks its line break.
fn overlooked(pem: &[u8], path: &str) -> Result<(), Finding> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    for (index, line) in pem.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        let Some((before, _)) = line.split_once(BEGIN) else {
            continue;
        };
        if !before.is_empty() && (before.trim().is_empty() || before.contains("-----END")) {
            let line = index.saturating_add(1);
            let message =
                format!("the certificate in line {line} of `{path}` does not begin its line");
            return Err(Finding::new(message).hint(format!("put `{BEGIN}` on a line of its own")));
        }
    }
    Ok(())
}

/// Reads the authorities of a PEM file, each of which must be one (SECURITY A-50).
pub(super) fn authorities(
    resolver: &mut Resolver<'_>,
    path: &str,
) -> Result<Vec<CertificateDer<'static>>, Finding> {
    let chain = chain(resolver, path)?;
    for certificate in &chain {
        let parsed = parse(certificate, path)?;
        if !parsed.is_ca() {
            let message = format!(
                "`{}` in `{path}` is not a certificate authority",
                parsed.subject()
            );
            return Err(Finding::new(message).hint("name the certificate that issued the clients'"));
        }
    }
    Ok(chain)
}

/// Reads a chain and its key and checks that they belong together.
pub(super) fn identity(
    resolver: &mut Resolver<'_>,
    chain: &[CertificateDer<'static>],
    path: &str,
) -> Result<Identity, Finding> {
    let (pem, is_public) = resolver.private_file(path)?;
    let key = private_key(&pem, path)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain.to_vec(), key.clone_key(), &provider).map_err(
        |error| match error {
            rustls::Error::InconsistentKeys(_) => Finding::new(format!(
                "the key in `{path}` is not that of the certificate"
            ))
            .hint(
                "compare `openssl x509 -pubkey -noout -in CERT` and `openssl pkey -pubout -in KEY`",
            ),
            rustls::Error::InvalidCertificate(error) => {
                let hint = "rustls wants version 3 and a subjectAltName; `openssl x509 -req` needs `-extfile` for them";
                Finding::new(format!("the certificate cannot be used: {error}")).hint(hint)
            }
            error => Finding::new(format!("the key in `{path}` cannot be used: {error}"))
                .hint("it must be RSA of 2048 bits or more, ECDSA on P-256, P-384 or P-521, or Ed25519"),
        },
    )?;
    let mut doubts = Vec::new();
    if is_public {
        let doubt = Finding::new(format!(
            "every user of this machine can read the key `{path}`"
        ));
        doubts.push(doubt.hint(format!("chmod o-r {path}")));
    }
    Ok(Identity {
        key: Arc::new(key),
        doubts,
    })
}

fn private_key(pem: &Secret, path: &str) -> Result<PrivateKeyDer<'static>, Finding> {
    let bytes = pem.expose();
    let holds = |label: &[u8]| bytes.windows(label.len()).any(|window| window == label);
    if holds(b"ENCRYPTED") {
        let finding = Finding::new(format!("the key in `{path}` is encrypted"));
        return Err(finding.hint("decrypt it: `openssl pkey -in KEY -out KEY.plain`"));
    }
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_why| {
        let found = pem_form::instead_of_key(bytes, path);
        missing("private key", path, found)
    })
}

/// What was looked for, and what is there.
fn missing(what: &str, path: &str, found: Option<pem_form::Found>) -> Finding {
    let finding = format!("there is no {what} in `{path}`");
    if let Some((found, hint)) = found {
        return Finding::new(format!("{finding}: it {found}")).hint(hint);
    }
    let label = what.to_ascii_uppercase();
    Finding::new(finding).hint(format!("it must be PEM: `-----BEGIN {label}-----`"))
}

/// What clients will hold against a chain at `now`. It is served all the same: that is for the
/// operator to settle (SECURITY T-03).
pub(super) fn doubts(chain: &[CertificateDer<'static>], path: &str, now: UnixTime) -> Vec<Finding> {
    let parsed: Vec<_> = chain
        .iter()
        .filter_map(|certificate| parse(certificate, path).ok())
        .collect();
    let Some(leaf) = parsed.first() else {
        return Vec::new();
    };
    // A certificate that says where to fetch its issuer's has an intermediate issuer: roots are not fetched,
    // because clients know them or do not.
    let missing =
        parsed.len() == 1 && leaf.issuer() != leaf.subject() && names_its_issuers_place(leaf);
    let alone = missing.then(|| {
        let issuer = leaf.issuer();
        let message = format!("`{path}` lacks the certificate of the issuer, `{issuer}`");
        Finding::new(message).hint("append it (`fullchain.pem`): many clients know roots only")
    });
    let in_order = parsed
        .windows(2)
        .all(|pair| matches!(pair, [one, next] if one.issuer() == next.subject()));
    let order = (!in_order).then(|| {
        let message = format!("the certificates in `{path}` are not each followed by their issuer");
        Finding::new(message).hint("the server's own comes first, then its issuer's, and so on")
    });
    let nameless = !matches!(leaf.subject_alternative_name(), Ok(Some(_)));
    let names = nameless.then(|| {
        let message = format!("the certificate in `{path}` has no subjectAltName");
        Finding::new(message)
            .hint("nearly all clients look for the host's name there and nowhere else")
    });
    let usage = leaf.extended_key_usage().ok().flatten();
    let for_clients = usage.is_some_and(|own| !own.value.any && !own.value.server_auth);
    let usage = for_clients.then(|| {
        let message = format!("the certificate in `{path}` is not for servers (extendedKeyUsage)");
        Finding::new(message)
            .hint("nearly all clients refuse it; have one made with `extendedKeyUsage=serverAuth`")
    });
    [
        validity(leaf, &format!("the certificate in `{path}`"), now),
        alone,
        order,
        names,
        usage,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is wrong with the dates of certificates that need no chain: of authorities, and of those that are shown
/// to an upstream.
pub(super) fn validities(
    certificates: &[CertificateDer<'static>],
    path: &str,
    now: UnixTime,
) -> Vec<Finding> {
    let parsed = certificates.iter().filter_map(|one| parse(one, path).ok());
    parsed
        .filter_map(|one| validity(&one, &format!("`{}` in `{path}`", one.subject()), now))
        .collect()
}

/// The names that a chain's own certificate is for, as they are compared with a host.
pub(super) fn names(chain: &[CertificateDer<'static>]) -> Vec<String> {
    let leaf = chain.first().and_then(|leaf| parse(leaf, "").ok());
    let names = leaf.as_ref().and_then(|leaf| {
        let names = leaf.subject_alternative_name().ok()??;
        Some(names.value.general_names.iter().filter_map(name).collect())
    });
    names.unwrap_or_default()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// Whether a name of a certificate is that of a host, or holds it by a wildcard for one label.
pub(super) fn covers(name: &str, host: &str) -> bool {
    let host = shares::unbracketed(host).trim_end_matches('.');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return name.parse() == Ok(ip);
    }
    match name.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, own)| own == rest),
        None => name == host,
    }
}

fn names_its_issuers_place(leaf: &X509Certificate<'_>) -> bool {
    leaf.extensions().iter().any(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::AuthorityInfoAccess(_)
        )
    })
}

fn validity(certificate: &X509Certificate<'_>, name: &str, now: UnixTime) -> Option<Finding> {
    let moment = |time: x509_parser::time::ASN1Time| UnixTime::from_secs(time.timestamp());
    let (from, until) = (
        moment(certificate.validity().not_before),
        moment(certificate.validity().not_after),
    );
    if until <= now {
        Some(Finding::new(format!("{name} expired at {until}")))
    } else if now < from {
        Some(Finding::new(format!("{name} is only valid from {from}")))
    } else {
        let left = until.millis_since(now);
        // One that is made for a day or a week is not soon over all the time.
        let soon = ENDS_SOON_MS.min(until.millis_since(from) / 3);
        (left <= soon).then(|| {
            let message = format!("{name} ends soon, at {until}");
            Finding::new(message).hint("renew it before")
        })
    }
}

fn not_pem(path: &str, error: &pem::Error) -> Finding {
    let what = match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let marker = String::from_utf8_lossy(end_marker);
            format!("it is cut off: `-----END {marker}-----` is missing")
        }
        error => error.to_string(),
    };
    Finding::new(format!("`{path}` is not valid PEM: {what}"))
}

fn parse<'c>(
    certificate: &'c CertificateDer<'_>,
    path: &str,
) -> Result<X509Certificate<'c>, Finding> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err(Finding::new(format!(
            "a certificate in `{path}` is damaged"
        ))),
    }
}
