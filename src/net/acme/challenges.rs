//! What proves to an authority that a name is ours, while it looks: TLS-ALPN-01 (RFC 8737) on TLS
//! listeners, HTTP-01 (RFC 8555 section 8.3) on plaintext ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::Method;
use http::request::Parts;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ClientHello;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::net::tls::provider;
use crate::route::matcher::normalize_host;

/// The protocol that only an authority speaks.
const ALPN: &[u8] = b"acme-tls/1";
/// Where an authority looks over plain HTTP.
const PATH: &str = "/.well-known/acme-challenge/";

/// Answers to the challenges of the orders under way: one of each authority.
#[derive(Debug, Default)]
pub struct Challenges(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    /// By name.
    tls: HashMap<String, Arc<ServerConfig>>,
    /// By token.
    http: HashMap<String, Bytes>,
}

/// The answers of one order; withdrawn when dropped.
#[derive(Debug)]
pub(super) struct Offer {
    challenges: Arc<Challenges>,
    names: Vec<String>,
    tokens: Vec<String>,
}

impl Challenges {
    /// The TLS of a handshake by which an authority looks; `None` for everybody else's.
    pub fn tls(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut protocols = hello.alpn()?;
        if protocols.next() != Some(ALPN) || protocols.next().is_some() {
            return None;
        }
        let name = normalize_host(hello.server_name()?);
        self.lock().tls.get(&name).map(Arc::clone)
    }

    /// What a token stands for; `None` when the request is not an authority's.
    pub fn http(&self, request: &Parts) -> Option<Bytes> {
        let token = request.uri.path().strip_prefix(PATH)?;
        if request.method != Method::GET {
            return None;
        }
        self.lock().http.get(token).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offer {
    pub(super) fn new(challenges: &Arc<Challenges>) -> Self {
        Self {
            challenges: Arc::clone(challenges),
            names: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Shows a certificate for `name` that carries `digest`. Fails while another order does so: who looks cannot
    /// be told apart.
    pub(super) fn tls(&mut self, name: &str, digest: &[u8]) -> anyhow::Result<()> {
        let config = Arc::new(proof(name, digest)?);
        let mut answers = self.challenges.lock();
        let is_free = self.names.iter().any(|own| own == name) || !answers.tls.contains_key(name);
        anyhow::ensure!(is_free, "`{name}` is being proven to another authority");
        answers.tls.insert(name.to_owned(), config);
        drop(answers);
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Answers with `authorization` where `token` is asked for.
    pub(super) fn http(&mut self, token: &str, authorization: &str) {
        let answer = Bytes::copy_from_slice(authorization.as_bytes());
        self.challenges.lock().http.insert(token.to_owned(), answer);
        self.tokens.push(token.to_owned());
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let mut answers = self.challenges.lock();
        for name in &self.names {
            answers.tls.remove(name);
        }
        for token in &self.tokens {
            answers.http.remove(token);
        }
    }
}

/// The TLS that proves a name: a certificate of our own with the digest in an extension.
fn proof(name: &str, digest: &[u8]) -> anyhow::Result<ServerConfig> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider().key_provider.load_private_key(key)?;
    // Not by `with_single_cert`: it reads the certificate, and does not know the critical extension.
    let identity = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_there_as_long_as_their_order() {
        let challenges = Arc::new(Challenges::default());
        let ask = |method: Method, path: &str| {
            let request = http::Request::builder().method(method).uri(path);
            challenges.http(&request.body(()).unwrap().into_parts().0)
        };
        let path = "/.well-known/acme-challenge/token-1";
        assert_eq!(ask(Method::GET, path), None);
        let mut offer = Offer::new(&challenges);
        offer.http("token-1", "token-1.thumb");
        offer.tls("hooks.example.org", &[7; 32]).unwrap();
        assert_eq!(ask(Method::GET, path).unwrap(), "token-1.thumb");
        assert_eq!(ask(Method::POST, path), None);
        assert_eq!(ask(Method::GET, "/.well-known/acme-challenge/"), None);
        assert_eq!(ask(Method::GET, "/x/token-1"), None);
        let mut other = Offer::new(&challenges);
        assert!(other.tls("hooks.example.org", &[8; 32]).is_err());
        drop(other);
        assert_eq!(challenges.lock().tls.len(), 1);
        drop(offer);
        assert_eq!(ask(Method::GET, path), None);
        assert!(challenges.lock().tls.is_empty());
    }
}
