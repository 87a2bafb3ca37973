//! The way to an ACME authority: https by hyper, as everything else goes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::net::connect::connect_tcp;
use crate::net::tls::provider;
use crate::net::trust::{roots_of, system_roots};
use crate::shares::unbracketed;

/// From the look-up of the name to the last byte.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Largest answer: a long chain has a few KiB.
const BODY_MAX: usize = 1 << 20;

/// One request, one connection: an order makes a dozen of them every two months.
pub(super) struct Client {
    tls: Arc<ClientConfig>,
}

impl Client {
    /// Trusts `authorities`, or those of the system.
    pub(super) fn new(authorities: Option<&[CertificateDer<'static>]>) -> anyhow::Result<Self> {
        let roots = match authorities {
            Some(authorities) => roots_of(authorities)?,
            None => system_roots(),
        };
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls) })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let tls = Arc::clone(&self.tls);
        Box::pin(async move {
            match timeout(TIME_MAX, exchange(tls, request)).await {
                Ok(Ok(response)) => Ok(BytesResponse::from(response)),
                Ok(Err(error)) => Err(Error::Other(error.into())),
                Err(elapsed) => Err(Error::Other(elapsed.into())),
            }
        })
    }
}

async fn exchange(
    tls: Arc<ClientConfig>,
    mut request: Request<BodyWrapper<Bytes>>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let uri = request.uri().clone();
    anyhow::ensure!(uri.scheme_str() == Some("https"), "`{uri}` is not https");
    let authority = uri
        .authority()
        .ok_or_else(|| anyhow::anyhow!("`{uri}` has no host"))?;
    let host = unbracketed(authority.host());
    let stream = connect_tcp(host, authority.port_u16().unwrap_or(443)).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    *request.uri_mut() = target.parse::<Uri>()?;
    let fields = request.headers_mut();
    fields.insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, BODY_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    Ok(Response::from_parts(head, Full::new(body)))
}
