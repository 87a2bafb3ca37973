//! Which certificate is served until the authority has issued the one that is asked for: the best of those
//! that are there.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::cache::{self, Cache};
use crate::net::tls::{Certificate, Origin};
use crate::settings::AcmeSettings;
use crate::units::UnixTime;

/// A certificate, and when the next one is to be ordered.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) certificate: Certificate,
    pub(super) order_due: UnixTime,
}

impl Choice {
    /// Of those that are good for one of the names at least, the one for most of them. Of equal ones the last.
    /// One that has ended or not begun yet is served when there is no other: the clock may be wrong, and
    /// one that was made here is no better.
    pub(super) fn of(
        certificates: Vec<Certificate>,
        settings: &AcmeSettings,
        now: UnixTime,
    ) -> Option<Self> {
        let covered = |certificate: &Certificate| {
            let domains = settings.domains.iter();
            domains.filter(|domain| certificate.covers(domain)).count()
        };
        let mut usable = certificates;
        usable.retain(|certificate| covered(certificate) > 0);
        let best = usable.into_iter().max_by_key(|certificate| {
            let is_ours = is_from(certificate, settings);
            let until = certificate.validity().until;
            (
                is_valid(certificate, now),
                covered(certificate),
                is_ours,
                until,
            )
        })?;
        let serves_all = is_valid(&best, now) && covered(&best) == settings.domains.len();
        let order_due = match best.origin() {
            Origin::File if serves_all => now,
            Origin::Authority(_) if serves_all && is_from(&best, settings) => {
                best.validity().last_third()
            }
            // Senders may refuse it, also one of another authority: that of a trial is trusted by nobody.
            _ => UnixTime::from_secs(0),
        };
        Some(Self {
            certificate: best.named(&name(settings)),
            order_due,
        })
    }
}

/// Certificates in the cache. Files that are damaged are said and passed over.
pub(super) fn kept(cache: &Cache, settings: &AcmeSettings) -> Vec<Certificate> {
    let files = cache.certificates();
    let read = files.iter().filter_map(|file| {
        read(cache, settings, file)
            .inspect_err(|error| {
                let file = file.display();
                tracing::warn!(%file, "a kept ACME certificate cannot be used: {error:#}");
            })
            .ok()?
    });
    read.collect()
}

fn read(
    cache: &Cache,
    settings: &AcmeSettings,
    file: &Path,
) -> anyhow::Result<Option<Certificate>> {
    let Some(pem) = cache::read(file)? else {
        return Ok(None);
    };
    let certificate = parse(&pem, settings)?;
    let mut names = certificate.names().dns.iter();
    let is_ours = names.any(|name| cache.is_for(file, name));
    Ok(is_ours.then_some(certificate))
}

/// A chain and its key, as the authority of `settings` issued it.
pub(super) fn parse(pem: &str, settings: &AcmeSettings) -> anyhow::Result<Certificate> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.ok().context("it is cut off or damaged")?;
    anyhow::ensure!(!chain.is_empty(), "no certificate is in it");
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok();
    let key = key.context("no private key is in it")?;
    let origin = Origin::Authority(settings.directory.as_str().into());
    Certificate::new(&name(settings), origin, chain, key)
        .context("its certificate or key is damaged, or they do not belong together")
}

pub(super) fn is_valid(certificate: &Certificate, now: UnixTime) -> bool {
    let validity = certificate.validity();
    validity.from <= now && now < validity.until
}

/// Whether the authority of `settings` issued it.
pub(super) fn is_from(certificate: &Certificate, settings: &AcmeSettings) -> bool {
    matches!(certificate.origin(), Origin::Authority(directory) if **directory == *settings.directory)
}

/// Name of the certificate in metrics.
fn name(settings: &AcmeSettings) -> Arc<str> {
    settings
        .domains
        .first()
        .map_or("acme", String::as_str)
        .into()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_767_225_600); // 2026

    fn settings(domains: &[&str]) -> AcmeSettings {
        AcmeSettings {
            domains: domains.iter().map(|name| (*name).to_owned()).collect(),
            email: None,
            directory: "https://ca.example.org/directory".to_owned(),
            ca: None,
            cache: "/nowhere".into(),
        }
    }

    fn pem(names: &[&str], until: i32) -> (CertificateDer<'static>, KeyPair, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pem = format!("{}\n{}", certificate.pem(), key.serialize_pem());
        (certificate.der().clone(), key, pem)
    }

    fn issued(names: &[&str], until: i32) -> Certificate {
        parse(&pem(names, until).2, &settings(&["x.example.org"])).unwrap()
    }

    fn file(names: &[&str], until: i32) -> Certificate {
        let (chain, key, _) = pem(names, until);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Certificate::new(&"file".into(), Origin::File, vec![chain], key).unwrap()
    }

    /// The names of the best, and when an order is due.
    fn best(certificates: Vec<Certificate>, domains: &[&str]) -> Option<(Vec<String>, i64)> {
        let choice = Choice::of(certificates, &settings(domains), NOW)?;
        let names = choice.certificate.names().dns.clone();
        Some((names, choice.order_due.secs()))
    }

    #[test]
    fn the_valid_certificate_for_most_names_is_the_best() {
        let domains = ["a.example.org", "b.example.org"];
        let (a, both) = (&domains[..1], &domains[..]);
        assert_eq!(best(vec![], both), None);
        assert_eq!(best(vec![issued(&["c.example.org"], 2030)], both), None);
        let found = best(vec![issued(both, 2026), issued(a, 2030)], both).unwrap();
        assert_eq!(found, (vec!["a.example.org".to_owned()], 0));
        let found = best(vec![issued(a, 2030), issued(both, 2028)], both).unwrap();
        // Two thirds of three years.
        assert_eq!((found.0.len(), found.1), (2, 1_798_761_600));
        let found = best(vec![issued(both, 2028), issued(both, 2031)], both).unwrap();
        assert!(found.1 > 1_798_761_600, "{found:?}");
        // Names in another order, or fewer of them, are no reason to order.
        let reordered = ["b.example.org", "a.example.org"];
        assert!(best(vec![issued(both, 2028)], &reordered).unwrap().1 > NOW.secs());
        assert!(best(vec![issued(both, 2028)], a).unwrap().1 > NOW.secs());
    }

    #[test]
    fn a_certificate_that_is_from_elsewhere_serves_until_one_is_ordered() {
        let name = ["a.example.org"];
        let found = best(vec![file(&name, 2099)], &name).unwrap();
        assert_eq!(found.1, NOW.secs(), "an order is due at once");
        let found = best(vec![issued(&name, 2028), file(&name, 2099)], &name).unwrap();
        assert!(found.1 > NOW.secs(), "{found:?}");
        let trial = AcmeSettings {
            directory: "https://trial.example.org/directory".to_owned(),
            ..settings(&name)
        };
        let trial = parse(&pem(&name, 2099).2, &trial).unwrap();
        let found = best(vec![trial.clone()], &name).unwrap();
        assert_eq!(found.1, 0, "senders may refuse it");
        let found = best(vec![issued(&name, 2028), trial], &name).unwrap();
        assert!(found.1 > NOW.secs(), "{found:?}");
    }

    #[test]
    fn a_certificate_that_seems_not_to_count_serves_when_there_is_no_other() {
        // SECURITY T-11
        let names = ["a.example.org", "b.example.org"];
        for (certificate, now) in [
            (issued(&names, 2026), NOW),
            (file(&names, 2026), NOW),
            (issued(&names, 2026), UnixTime::from_secs(1_700_000_000)),
        ] {
            let choice = Choice::of(vec![certificate], &settings(&names), now).unwrap();
            assert_eq!(choice.order_due.secs(), 0);
        }
        let found = best(vec![issued(&names, 2026), file(&names[..1], 2099)], &names);
        assert_eq!(found.unwrap().0.len(), 1, "one that counts is better");
    }

    #[test]
    fn a_damaged_file_is_said_in_plain_words() {
        let (_, other, _) = pem(&["a.example.org"], 2030);
        let (_, _, whole) = pem(&["a.example.org"], 2030);
        let (chain, key) = whole.split_at(whole.find("-----BEGIN PRIVATE").unwrap());
        let cases = [
            (String::new(), "no certificate is in it"),
            (chain.split_at(100).0.to_owned(), "cut off"),
            (format!("{chain}{}", key.split_at(60).0), "cut off"),
            (chain.to_owned(), "no private key is in it"),
            (
                format!("{chain}{}", other.serialize_pem()),
                "do not belong together",
            ),
        ];
        for (pem, what) in cases {
            let error = parse(&pem, &settings(&["a.example.org"])).unwrap_err();
            assert!(format!("{error:#}").contains(what), "{what}: {error:#}");
        }
    }
}
