//! A raw HTTP/1.1 client: exactly these bytes out, exactly what comes back.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};

/// One connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    buffer: Vec<u8>,
    /// What the TLS handshake settled.
    pub session: Option<Session>,
}

/// What a TLS handshake settled.
pub struct Session {
    pub certificate: CertificateDer<'static>,
    pub alpn: Option<Vec<u8>>,
    pub version: ProtocolVersion,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header; `None` when absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

const PATIENCE: Duration = Duration::from_secs(15);

/// A TLS client that takes any certificate. By default: SNI `localhost`, ALPN `http/1.1`.
pub struct Tls<'a> {
    pub name: &'a str,
    pub sni: bool,
    pub alpn: &'a [&'a [u8]],
    pub versions: &'a [&'static SupportedProtocolVersion],
    pub client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Default for Tls<'_> {
    fn default() -> Self {
        Self {
            name: "localhost",
            sni: true,
            alpn: &[b"http/1.1"],
            versions: rustls::ALL_VERSIONS,
            client: None,
        }
    }
}

/// A configuration that takes any certificate.
pub fn any_certificate(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    Arc::new(
        Tls {
            alpn,
            ..Tls::default()
        }
        .config(),
    )
}

impl Tls<'_> {
    pub fn config(self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
        let mut config = match self.client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        config.enable_sni = self.sni;
        config
    }

    /// Connects; the handshake may fail.
    pub fn connect(self, address: SocketAddr) -> io::Result<Wire> {
        let name = ServerName::try_from(self.name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(self.config()), name).unwrap();
        let mut stream = StreamOwned::new(connection, connect(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let session = Session {
            certificate: stream.conn.peer_certificates().unwrap()[0]
                .clone()
                .into_owned(),
            alpn: stream.conn.alpn_protocol().map(<[u8]>::to_vec),
            version: stream.conn.protocol_version().unwrap(),
        };
        let socket = stream.sock.try_clone().unwrap();
        Ok(Wire {
            stream: Box::new(stream),
            socket,
            buffer: Vec::new(),
            session: Some(session),
        })
    }
}

impl Wire {
    pub fn plain(address: SocketAddr) -> Self {
        let stream = connect(address);
        let socket = stream.try_clone().unwrap();
        Self {
            stream: Box::new(stream),
            socket,
            buffer: Vec::new(),
            session: None,
        }
    }

    /// Ends our side of the TCP connection; the other may still be read.
    pub fn end(&mut self) -> &mut Self {
        self.socket.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Writes these bytes. A peer that has closed already is no failure of the test.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        drop(
            self.stream
                .write_all(bytes)
                .and_then(|()| self.stream.flush()),
        );
        self
    }

    /// Writes a request with Host and Content-Length.
    pub fn write(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        let framed = headers.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length")
                || name.eq_ignore_ascii_case("transfer-encoding")
        });
        if !framed && (!body.is_empty() || method == "POST") {
            write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes);
    }

    /// One request and its answer.
    pub fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.write(method, path, headers, body);
        self.answer_to(method).expect("an answer")
    }

    /// The next answer; `None` when the connection ended instead.
    pub fn answer(&mut self) -> Option<Answer> {
        self.answer_to("POST")
    }

    /// The answer to a request of this method; interim ones are skipped.
    pub fn answer_to(&mut self, method: &str) -> Option<Answer> {
        loop {
            let (status, headers) = self.head()?;
            if (100..200).contains(&status) {
                continue;
            }
            let find = |name: &str| {
                headers
                    .iter()
                    .find(|(own, _)| own.eq_ignore_ascii_case(name))
                    .map(|(_, v)| v.clone())
            };
            let body = if method == "HEAD" || matches!(status, 204 | 304) {
                Vec::new()
            } else if let Some(length) = find("content-length") {
                self.take(length.parse().unwrap())?
            } else if find("transfer-encoding").is_some() {
                self.chunked()?
            } else {
                self.rest()
            };
            return Some(Answer {
                status,
                headers,
                body,
            });
        }
    }

    /// The head of the next answer, an interim one too.
    pub fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|run| run == b"\r\n\r\n") {
                break end;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Some((status, lines.filter_map(header).collect()))
    }

    /// The next bytes; `None` when the connection ends before them.
    pub fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// A chunked body; `None` when it is cut before its last chunk.
    fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = self.buffer.windows(2).position(|run| run == b"\r\n") {
                    break end;
                }
                self.fill()?;
            };
            let size = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.drain(..end + 2);
            let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
            body.extend(self.take(size)?);
            self.take(2)?;
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill().is_some() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the peer closes, with nothing more to read.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.fill().is_none()
    }

    /// The answer to these bytes, after which the gateway must close.
    pub fn last_answer(&mut self, bytes: &[u8]) -> Option<Answer> {
        let answer = self.send(bytes).answer();
        let rest = self.rest();
        assert!(
            rest.is_empty(),
            "bytes after the last answer: {}",
            String::from_utf8_lossy(&rest)
        );
        answer
    }

    fn fill(&mut self) -> Option<()> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => None,
            Ok(n) => {
                self.buffer.extend_from_slice(&bytes[..n]);
                Some(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("the gateway neither answers nor closes")
            }
            Err(_) => None,
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
