//! What is found where keys are published: which of it may verify, and until when.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use super::https_url::KeyUrl;
use super::keys::{Key, KeySet};
use super::public_key::PublicKey;
use super::x5c::certificate_valid_for;
use crate::units::UnixTime;

/// The keys in `document`, found at `wanted`. A certificate that must carry a name has to lead to
/// one of `roots` (SECURITY A-35); every certificate counts only within its validity.
pub fn read(
    wanted: &KeyUrl,
    document: &[u8],
    roots: &[TrustAnchor<'_>],
    now: UnixTime,
) -> Result<KeySet, String> {
    let inner;
    let document = match &wanted.inside {
        None => document,
        Some(pointer) => {
            let json: serde_json::Value =
                serde_json::from_slice(document).map_err(|error| format!("not JSON: {error}"))?;
            let text = json.pointer(pointer).and_then(serde_json::Value::as_str);
            inner = text
                .ok_or_else(|| format!("there is nothing at `{pointer}`"))?
                .to_owned();
            inner.as_bytes()
        }
    };
    let found = if wanted.certificate_names.is_empty() {
        PublicKey::parse_all(document)?
    } else {
        vec![certificate(wanted, document, roots, now)?]
    };
    let is_valid = |key: &PublicKey| {
        key.validity()
            .is_none_or(|(first, last)| first <= now && now < last)
    };
    let keys = found.into_iter().filter(is_valid).map(|key| {
        let not_after = key.validity().map(|(_, last)| last);
        Key::public(key.default_id().into(), key, not_after)
    });
    KeySet::new(keys.collect()).ok_or_else(|| "there is no key that counts now".to_owned())
}

fn certificate(
    wanted: &KeyUrl,
    pem: &[u8],
    roots: &[TrustAnchor<'_>],
    now: UnixTime,
) -> Result<PublicKey, String> {
    let chain: Result<Vec<Vec<u8>>, _> = CertificateDer::pem_slice_iter(pem)
        .map(|der| der.map(|der| der.as_ref().to_vec()))
        .collect();
    let chain = chain.map_err(|error| format!("not certificates in PEM: {error}"))?;
    let mut why = "no certificate".to_owned();
    for name in &wanted.certificate_names {
        match certificate_valid_for(&chain, name, roots, now) {
            Ok(key) => return Ok(key),
            Err(error) => why = error,
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
    use rustls::RootCertStore;

    use super::*;
    use crate::scheme::https_url::HttpsUrl;

    const NAME: &str = "keys.example.org";

    fn wanted(names: &[&str]) -> KeyUrl {
        let url = HttpsUrl::parse("https://keys.example.org/").unwrap();
        KeyUrl::of_preset(url, names.iter().map(|name| Arc::from(*name)).collect())
    }

    fn now() -> UnixTime {
        UnixTime::from_rfc3339("2026-06-01T00:00:00Z").unwrap()
    }

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn roots(authority: &CertifiedIssuer<'_, KeyPair>) -> Vec<TrustAnchor<'static>> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        roots.roots
    }

    fn leaf(authority: &CertifiedIssuer<'_, KeyPair>, name: &str, last_year: i32) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, authority).unwrap().pem()
    }

    #[test]
    fn a_named_certificate_leads_to_a_root() {
        // SECURITY A-35
        let (public, private) = (authority(), authority());
        let roots = roots(&public);
        let read =
            |pem: String, names: &[&str]| read(&wanted(names), pem.as_bytes(), &roots, now());
        let good = leaf(&public, NAME, 2027);
        let keys = read(good.clone(), &["other.example.org", NAME]).unwrap();
        let end = UnixTime::from_rfc3339("2027-01-01T00:00:00Z").unwrap();
        assert_eq!(keys.all()[0].not_after, Some(end));
        assert_eq!(keys.usable(end).count(), 0);
        assert!(read(good, &["other.example.org"]).is_err());
        assert!(read(leaf(&private, NAME, 2027), &[NAME]).is_err());
        assert!(
            read(
                leaf(&public, "keys.example.org.evil.example", 2027),
                &[NAME]
            )
            .is_err()
        );
        for unusable in [
            "",
            "no PEM",
            "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----",
        ] {
            assert!(read(unusable.to_owned(), &[NAME]).is_err(), "{unusable}");
        }
        let later = UnixTime::from_rfc3339("2028-01-01T00:00:00Z").unwrap();
        let ended = leaf(&public, NAME, 2027);
        assert!(super::read(&wanted(&[NAME]), ended.as_bytes(), &roots, later).is_err());
        assert!(super::read(&wanted(&[]), ended.as_bytes(), &roots, later).is_err());
        assert!(super::read(&wanted(&[]), ended.as_bytes(), &roots, now()).is_ok());
    }

    #[test]
    fn a_key_inside_a_document() {
        let pem = KeyPair::generate().unwrap().public_key_pem();
        let document = serde_json::json!({ "data": { "public_key": pem } }).to_string();
        assert!(read(&wanted(&[]), document.as_bytes(), &[], now()).is_ok());
    }

    #[test]
    fn weak_and_symmetric_keys_are_no_keys() {
        // SECURITY A-32
        let oct = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"}]}"#;
        let weak = r#"{"keys":[{"kty":"RSA","e":"AQAB","n":"AQAB","kid":"a"}]}"#;
        for document in [oct, weak, r#"{"keys":[]}"#, "{}", "<html>", ""] {
            assert!(
                read(&wanted(&[]), document.as_bytes(), &[], now()).is_err(),
                "{document}"
            );
        }
    }
}
