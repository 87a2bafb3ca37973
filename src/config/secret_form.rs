//! What is wrong with a secret, by the form of its text: it is no secret at all.
//!
//! Not for whether it decodes as its scheme wants it, which the scheme says. No message holds any of it.

use super::resolve::Trouble;

/// A secret below this can be guessed.
pub(super) const BYTES_MIN: usize = 16;
/// What to do about one that others know.
pub(super) const MAKE_ONE: &str = "make one with `openssl rand -hex 32`";
/// Secrets that stand in examples everywhere (SECURITY A-05).
const SAMPLES: &[&str] = &[
    "<secret>",
    "change-me",
    "change_me",
    "changeit",
    "changeme",
    "development_secret",
    "insert-secret-here",
    "replace-me",
    "replace_me",
    "replaceme",
    "your-secret",
    "your-secret-here",
    "your_secret",
    "your_secret_here",
    "yoursecret",
];

/// Why a text is none that only two sides know; `origin` is where it was read.
pub(super) fn refuse(bytes: &[u8], origin: &str) -> Option<Trouble> {
    let text = String::from_utf8_lossy(bytes);
    let is_sample = |sample: &&str| text.trim().eq_ignore_ascii_case(sample);
    if SAMPLES.iter().any(is_sample) || is_elided(text.trim()) {
        let trouble = Trouble::new("the secret is a well-known sample: everybody can sign with it");
        return Some(trouble.hint(MAKE_ONE));
    }
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let (what, why) = public_text(text)?;
    let message = format!("{origin} holds {what}, and not a secret that both sides share: {why}");
    let hint = "write the shared secret; a key of the sender's belongs into `public_keys`, where the scheme takes such";
    Some(Trouble::new(message).hint(hint))
}

/// Whether it is the beginning of a secret and dots, as examples show where one belongs.
fn is_elided(text: &str) -> bool {
    text == "..." || (text.len() < BYTES_MIN && text.ends_with("_..."))
}

/// What everybody can know: HMAC takes any text as its key, so that anybody could sign with it.
const EVERYBODY: &str = "everybody can know it, and sign with it";
const OF_ONE_SIDE: &str = "only one side has such a key";

/// The sections of PEM, the most telling first.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("PRIVATE KEY", "a private key", OF_ONE_SIDE),
    ("PUBLIC KEY", "a public key", EVERYBODY),
    (
        "CERTIFICATE REQUEST",
        "a request for a certificate",
        EVERYBODY,
    ),
    ("CERTIFICATE", "a certificate", EVERYBODY),
];

/// How public keys begin that are not PEM: those of OpenSSH, and the DER of RSA, P-256, P-384 and Ed25519 in base64.
const PUBLIC_KEYS: &[&str] = &[
    "ssh-rsa ",
    "ssh-ed25519 ",
    "ecdsa-sha2-",
    "MIIBIjANBgkqhkiG9w0BAQEFA",
    "MIICIjANBgkqhkiG9w0BAQEFA",
    "MFkwEwYHKoZIzj0CAQY",
    "MHYwEAYHKoZIzj0CAQY",
    "MCowBQYDK2VwAyEA",
];

fn public_text(text: &str) -> Option<(&'static str, &'static str)> {
    if PUBLIC_KEYS.iter().any(|start| text.starts_with(start)) {
        return Some(("a public key", EVERYBODY));
    }
    let (_, label) = text.split_once("-----BEGIN")?;
    let label = label.split("-----").next().unwrap_or_default();
    let known = SECTIONS.iter().find(|(name, ..)| label.contains(name));
    Some(known.map_or(("PEM", OF_ONE_SIDE), |(_, what, why)| (*what, *why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_certificates_are_no_shared_secrets() {
        for (text, what) in [
            ("-----BEGIN PUBLIC KEY-----\nMIIB", "a public key"),
            ("\u{feff}\n-----BEGIN RSA PUBLIC KEY-----", "a public key"),
            ("-----BEGIN EC PRIVATE KEY-----", "a private key"),
            ("# ours\n-----BEGIN CERTIFICATE-----", "a certificate"),
            ("-----BEGIN NEW CERTIFICATE REQUEST-----", "a request for a"),
            ("-----BEGIN PGP MESSAGE-----", "PEM"),
            ("ssh-ed25519 AAAAC3Nza", "a public key"),
            ("MCowBQYDK2VwAyEAcanary", "a public key"),
        ] {
            let message = refuse(text.as_bytes(), "`a`").unwrap().message;
            assert!(
                message.starts_with(&format!("`a` holds {what}")),
                "{message}"
            );
        }
        for text in ["", "whsec_MCowBQYDK2VwAyEA", "MIIBIjAN", "a --BEGIN b"] {
            assert_eq!(refuse(text.as_bytes(), "`a`"), None, "{text}");
        }
    }
}
