//! One HTTP/1.1 request, over TCP or TLS, and its answer.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cli::{input, url};
use crate::config;
use crate::net::tls::provider;
use crate::net::trust;
use crate::scheme::sign::Draft;
use crate::shares::unbracketed;
use crate::units::ByteSize;

/// How long a server may take to show that it speaks TLS.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Of a longer answer only so much is printed.
const ANSWER_BYTES_MAX: ByteSize = ByteSize(16 << 20);

/// Which certificates of a server are believed.
#[derive(Debug)]
pub(super) enum Trust {
    /// Any at all.
    Anyone,
    /// These, and those signed by them.
    These(Vec<CertificateDer<'static>>),
    /// Those signed by the system's authorities.
    System,
}

/// What the server said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// How much of the body was taken, where there is more of it.
    pub(super) cut: Option<ByteSize>,
}

/// Delivers a request to its own URL.
pub(super) async fn deliver(signed: Draft, trust: &Trust) -> anyhow::Result<Answer> {
    let authority = url::authority(&signed.url);
    let is_tls = signed
        .url
        .origin
        .get(..6)
        .is_some_and(|s| s.eq_ignore_ascii_case("https:"));
    let (host, port) = host_and_port(authority, if is_tls { 443 } else { 80 })?;
    let request = request(&signed)?;
    let stream = TcpStream::connect((host, port))
        .await
        .context("cannot connect")?;
    stream.set_nodelay(true)?;
    if !is_tls {
        let answer = exchange(stream, request).await;
        return match answer {
            Err(error) if is_no_http(&error) && speaks_tls(host, port).await => {
                Err(error.context("it speaks TLS: write `https://`"))
            }
            answer => answer,
        };
    }
    let name = ServerName::try_from(host.to_owned())
        .with_context(|| format!("`{host}` is not a name that a certificate can carry"))?;
    let connector = TlsConnector::from(Arc::new(client_config(trust)?));
    let stream = connector.connect(name, stream).await;
    let stream = stream
        .map_err(tls_trouble)
        .context("the TLS handshake failed")?;
    exchange(stream, request).await
}

/// Whether what came back was not HTTP.
fn is_no_http(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| cause.downcast_ref().is_some_and(hyper::Error::is_parse))
}

/// Whether a server answers a TLS handshake, where it did not understand plain HTTP.
async fn speaks_tls(host: &str, port: u16) -> bool {
    let probe = async {
        let name = ServerName::try_from(host.to_owned()).ok()?;
        let config = client_config(&Trust::Anyone).ok()?;
        let stream = TcpStream::connect((host, port)).await.ok()?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.ok()
    };
    let probed = tokio::time::timeout(PROBE_TIMEOUT, probe).await;
    matches!(probed, Ok(Some(_)))
}

/// What went wrong with TLS, with what is to be done where that is known.
fn tls_trouble(error: std::io::Error) -> anyhow::Error {
    let source = error.get_ref().and_then(|inner| inner.downcast_ref());
    match source {
        Some(error) if trust::shows_authority(error) => anyhow::anyhow!(
            "the server's certificate is that of an authority (CA:TRUE): \
             give this very certificate with `--cacert`"
        ),
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            let hint = "no authority is known that issued its certificate: name that with \
                        `--cacert FILE`, or write `--insecure`";
            anyhow::Error::from(error).context(hint)
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            anyhow::Error::from(error).context("it does not speak TLS: write `http://`")
        }
        None if matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
        ) =>
        {
            let hint = "it ended the connection: where it does not speak TLS, write `http://`";
            anyhow::Error::from(error).context(hint)
        }
        _ => error.into(),
    }
}

/// The host without brackets, and the port.
fn host_and_port(authority: &str, default: u16) -> anyhow::Result<(&str, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, "")) => (host, default),
        Some((host, port)) if !port.contains(']') => {
            let port = port
                .parse()
                .with_context(|| format!("`{port}` is not a port"))?;
            (host, port)
        }
        _ => (authority, default),
    };
    Ok((unbracketed(host), port))
}

fn request(signed: &Draft) -> anyhow::Result<Request<Full<Bytes>>> {
    let body = Full::new(Bytes::copy_from_slice(&signed.body));
    let mut request = Request::builder()
        .method(signed.method.clone())
        .uri(&*url::target(&signed.url))
        .body(body)
        .context("the request cannot be sent")?;
    let headers = request.headers_mut();
    for (name, value) in &signed.headers {
        headers.append(
            HeaderName::from_bytes(name.as_bytes())?,
            HeaderValue::from_str(value)?,
        );
    }
    if !headers.contains_key(header::HOST) {
        headers.insert(
            header::HOST,
            HeaderValue::from_str(url::authority(&signed.url))?,
        );
    }
    headers
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "hookward/",
            env!("CARGO_PKG_VERSION")
        )));
    Ok(request)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error comes back through the request.
    let connection = tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .context("there is no answer")?;
    let status = response.status();
    let (body, cut) = read(response.into_body()).await?;
    connection.abort();
    Ok(Answer { status, body, cut })
}

/// The body of an answer, and where it is cut if it is longer.
async fn read(mut incoming: Incoming) -> anyhow::Result<(Bytes, Option<ByteSize>)> {
    let most = ANSWER_BYTES_MAX.as_usize();
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.context("the answer ends early")?;
        body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if body.len() > most {
            body.truncate(most);
            return Ok((body.freeze(), Some(ANSWER_BYTES_MAX)));
        }
    }
    Ok((body.freeze(), None))
}

fn client_config(trust: &Trust) -> anyhow::Result<ClientConfig> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider())))
            .with_no_client_auth(),
        Trust::These(certificates) => builder
            .dangerous()
            .with_custom_certificate_verifier(trust::servers(certificates)?)
            .with_no_client_auth(),
        Trust::System => {
            let roots = trust::system_roots();
            if roots.is_empty() {
                bail!("the system has no certificate authorities; give `--cacert FILE`");
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates of a file.
pub(super) fn authorities(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let bytes = input::read(file)?;
    config::certificates(&bytes, &file.to_string_lossy()).map_err(anyhow::Error::msg)
}

/// Believes any certificate, as `--insecure` asks; signatures of the handshake are checked still.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
