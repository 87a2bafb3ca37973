//! What a file holds in the place of the PEM that was expected, and the command that makes that of it.

use x509_parser::prelude::{FromDer, X509Certificate};

/// What a file is, as a message says it, and what to do.
pub(super) type Found = (&'static str, String);

/// Signs of DER, behind the tag and length of a sequence: version 3 of PKCS#12, and those of private keys.
const VERSION_OF_PKCS12: &[u8] = &[0x02, 0x01, 0x03];
const VERSIONS_OF_KEYS: &[&[u8]] = &[&[0x02, 0x01, 0x00], &[0x02, 0x01, 0x01]];

/// What stands where a certificate was expected.
pub(super) fn instead_of_certificate(bytes: &[u8], path: &str) -> Option<Found> {
    if holds(bytes, "PRIVATE KEY-----") {
        let hint = "a certificate is needed here; are `cert` and `key` swapped?";
        return Some(("holds a private key", hint.to_owned()));
    }
    if holds(bytes, "CERTIFICATE REQUEST-----") {
        let hint = "what the authority makes of it is the certificate";
        return Some(("holds a request for a certificate", hint.to_owned()));
    }
    if holds(bytes, "BEGIN PKCS7-----") {
        let hint = format!("`openssl pkcs7 -print_certs -in {path} -out cert.pem`");
        return Some(("is PKCS#7", hint));
    }
    if X509Certificate::from_der(bytes).is_ok() {
        let hint = format!("`openssl x509 -inform der -in {path} -out cert.pem`");
        return Some(("is DER and not PEM", hint));
    }
    if version(bytes).is_some_and(|rest| rest.starts_with(VERSION_OF_PKCS12)) {
        let hint = format!("`openssl pkcs12 -in {path} -nokeys -out cert.pem`");
        return Some(("is PKCS#12 and not PEM", hint));
    }
    instead_of_pem(bytes)
}

/// What stands where a private key was expected.
pub(super) fn instead_of_key(bytes: &[u8], path: &str) -> Option<Found> {
    if holds(bytes, "BEGIN OPENSSH PRIVATE KEY-----") {
        let hint = format!("`ssh-keygen -p -N '' -m PKCS8 -f {path}` writes it anew in its place");
        return Some(("holds a key in the form of OpenSSH", hint));
    }
    if holds(bytes, "BEGIN CERTIFICATE-----") {
        let hint = "a private key is needed here; are `cert` and `key` swapped?";
        return Some(("holds a certificate", hint.to_owned()));
    }
    if holds(bytes, "CERTIFICATE REQUEST-----") {
        let hint = "name the key that it was made with";
        return Some(("holds a request for a certificate", hint.to_owned()));
    }
    if holds(bytes, "PUBLIC KEY-----") {
        return Some((
            "holds a public key",
            "name the private key that belongs to it".to_owned(),
        ));
    }
    let version = version(bytes).unwrap_or_default();
    if version.starts_with(VERSION_OF_PKCS12) {
        let hint = format!("`openssl pkcs12 -in {path} -nocerts -noenc -out key.pem`");
        return Some(("is PKCS#12 and not PEM", hint));
    }
    if VERSIONS_OF_KEYS.iter().any(|own| version.starts_with(own)) {
        let hint = format!("`openssl pkey -inform der -in {path} -out key.pem`");
        return Some(("is DER and not PEM", hint));
    }
    instead_of_pem(bytes)
}

fn instead_of_pem(bytes: &[u8]) -> Option<Found> {
    if bytes.trim_ascii().is_empty() {
        return Some(("is empty", "write PEM into it".to_owned()));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Some(("is UTF-16", "save it as UTF-8".to_owned()));
    }
    let marked = bytes.strip_prefix(b"\xef\xbb\xbf")?;
    let is_pem = marked.starts_with(b"-----BEGIN");
    is_pem.then(|| {
        let hint = "save it as UTF-8 without one";
        ("begins with a byte order mark", hint.to_owned())
    })
}

fn holds(bytes: &[u8], label: &str) -> bool {
    let mut windows = bytes.windows(label.len());
    windows.any(|window| window == label.as_bytes())
}

/// What follows the tag and the length of a DER sequence.
fn version(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(&[0x30])?;
    let (length, rest) = rest.split_first()?;
    let more = usize::from(length.checked_sub(0x80).unwrap_or_default());
    rest.get(more..)
}
