//! TLS towards the servers of an upstream.

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, InvalidMessage};

use crate::net::tls::provider;
use crate::net::trust;
use crate::settings::UpstreamTls;

/// Roots and client configuration, built once for the https servers of an upstream.
#[derive(Default)]
pub(super) struct LazyTls(OnceCell<Arc<ClientConfig>>);

impl LazyTls {
    pub(super) fn get(&self, settings: &UpstreamTls) -> anyhow::Result<Arc<ClientConfig>> {
        if let Some(config) = self.0.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(client_config(settings)?);
        Ok(Arc::clone(self.0.get_or_init(|| config)))
    }
}

/// TLS towards an upstream. It believes the authorities of its settings, or the system's.
fn client_config(settings: &UpstreamTls) -> anyhow::Result<ClientConfig> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &settings.ca {
        Some(certificates) => builder
            .dangerous()
            .with_custom_certificate_verifier(trust::servers(certificates)?),
        None => builder.with_root_certificates(trust::system_roots()),
    };
    Ok(match &settings.client {
        Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
        None => builder.with_no_client_auth(),
    })
}

/// An error of a TLS handshake with a server, with its usual cause.
pub(super) fn tls_trouble(error: io::Error) -> anyhow::Error {
    let source = error.get_ref().and_then(|inner| inner.downcast_ref());
    match source {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            anyhow::anyhow!("it does not speak TLS; write `http://`")
        }
        Some(error) if trust::shows_authority(error) => anyhow::anyhow!(
            "its certificate is that of an authority (CA:TRUE), and not one of those in `tls.ca`: \
             give this very certificate there, or make one with \
             `-addext basicConstraints=critical,CA:FALSE`"
        ),
        _ => error.into(),
    }
}
