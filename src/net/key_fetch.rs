//! Fetches keys that providers publish: https only, no redirect, no proxy, with small limits of size and time
//! (SECURITY A-32).
//!
//! A name is looked up once, and exactly the addresses found are called, so that nobody can move it into the
//! operator's network between the check and the call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ipnet::{Ipv4Net, Ipv6Net};
use rustls::pki_types::{ServerName, TrustAnchor};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::connect::first_of;
use super::resolve;
use super::tls::provider;
use crate::gateway::keys::{Fetch, FetchError, Fetched, Fetching, HttpsUrl, Reach};
use crate::shares::{embedded, unbracketed};

/// Largest document, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// Largest head of an answer, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Longest time from the look-up of the name to the last byte.
const TIME_MAX: Duration = Duration::from_secs(3);
/// Most addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

/// Fetches over https.
#[derive(Debug)]
pub struct HttpsFetch {
    /// Read when the first fetch needs it: most configurations fetch nothing.
    trust: Arc<Late>,
    time_max: Duration,
}

type Late = LazyLock<Outcome, Box<dyn FnOnce() -> Outcome + Send>>;
type Outcome = anyhow::Result<Trust>;

#[derive(Debug)]
struct Trust {
    tls: Arc<ClientConfig>,
    roots: Vec<TrustAnchor<'static>>,
}

impl HttpsFetch {
    /// A client that trusts these authorities and no others.
    pub fn new(roots: impl FnOnce() -> RootCertStore + Send + 'static) -> Self {
        Self {
            trust: Arc::new(LazyLock::new(Box::new(|| Trust::new(roots())))),
            time_max: TIME_MAX,
        }
    }

    async fn fetch(&self, url: &HttpsUrl, reach: Reach) -> Result<Fetched, FetchError> {
        let trust = Arc::clone(&self.trust);
        // The first time it reads files; later it costs a change of threads.
        let ready = spawn_blocking(move || {
            LazyLock::force(&trust);
        });
        ready.await.map_err(unreachable)?;
        let stream = self.connect(url, reach).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_header_size(HEAD_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(unreachable)?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        let answer = sender
            .send_request(request(url)?)
            .await
            .map_err(unreachable)?;
        check(&answer)?;
        let max_age = max_age(answer.headers());
        let body = read(answer.into_body()).await?;
        Ok(Fetched { body, max_age })
    }

    fn trust(&self) -> Result<&Trust, &anyhow::Error> {
        LazyLock::force(&self.trust).as_ref()
    }

    async fn connect(
        &self,
        url: &HttpsUrl,
        reach: Reach,
    ) -> Result<TlsStream<TcpStream>, FetchError> {
        let host = unbracketed(url.host());
        let found = resolve::addresses(host, url.port(), resolve::PATIENCE).await;
        let found = found.map_err(unreachable)?.into_iter();
        let may_call = |address: &SocketAddr| reach == Reach::Any || is_public(address.ip());
        let addresses: Vec<_> = found.filter(may_call).take(ADDRESSES_MAX).collect();
        let connected = first_of(&addresses, |address| self.connect_to(address, host)).await;
        connected.map_or(Err(FetchError::Reach), |stream| stream.map_err(unreachable))
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        host: &str,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let trust = self.trust();
        let trust = trust.map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(TlsConnector::from(Arc::clone(&trust.tls))
            .connect(name, stream)
            .await?)
    }
}

impl Trust {
    fn new(roots: RootCertStore) -> anyhow::Result<Self> {
        let anchors = roots.roots.clone();
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: Arc::new(tls),
            roots: anchors,
        })
    }
}

impl Fetch for HttpsFetch {
    fn get<'a>(&'a self, url: &'a HttpsUrl, reach: Reach) -> Fetching<'a> {
        Box::pin(async move {
            let fetched = timeout(self.time_max, self.fetch(url, reach)).await;
            fetched.unwrap_or(Err(FetchError::Timeout(self.time_max)))
        })
    }

    fn roots(&self) -> &[TrustAnchor<'static>] {
        self.trust().map_or(&[], |trust| &trust.roots)
    }
}

fn unreachable(error: impl std::fmt::Display) -> FetchError {
    FetchError::Unreachable(error.to_string())
}

fn unusable(why: impl std::fmt::Display) -> FetchError {
    FetchError::Answer(why.to_string())
}

fn request(url: &HttpsUrl) -> Result<Request<Empty<Bytes>>, FetchError> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url.target().parse::<Uri>().map_err(unreachable)?;
    let host = HeaderValue::from_str(&url.authority()).map_err(unreachable)?;
    let fields = request.headers_mut();
    fields.insert(header::HOST, host);
    fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    fields.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    fields.insert(header::USER_AGENT, HeaderValue::from_static("hookward"));
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

/// Only a plain 200 counts: a redirect would be one more URL that somebody else chose.
fn check(answer: &Response<Incoming>) -> Result<(), FetchError> {
    if answer.status() != StatusCode::OK {
        return Err(unusable(answer.status()));
    }
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !answer
        .headers()
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(is_plain)
    {
        return Err(unusable("it is compressed"));
    }
    Ok(())
}

async fn read(mut body: Incoming) -> Result<Bytes, FetchError> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(unusable)?.into_data() else {
            continue;
        };
        if read.len().saturating_add(data.len()) > BODY_MAX {
            return Err(unusable(format!("it is larger than {BODY_MAX} bytes")));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// `max-age` of `Cache-Control` (RFC 9111 section 5.2); zero for what must not be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all(header::CACHE_CONTROL).iter();
    let fields: Vec<&str> = fields.filter_map(|field| field.to_str().ok()).collect();
    let directives = || {
        fields
            .iter()
            .flat_map(|field| field.split(','))
            .map(str::trim)
    };
    if directives().any(|one| matches!(one, "no-store" | "no-cache")) {
        return Some(Duration::ZERO);
    }
    let seconds = directives().find_map(|one| one.strip_prefix("max-age="));
    seconds?.parse().ok().map(Duration::from_secs)
}

/// Whether an address is public: not of this machine, a private network or a special use (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => match embedded(address) {
            Some(embedded) => is_public(IpAddr::V4(embedded)),
            None => {
                GLOBAL_V6.contains(&address) && !SPECIAL_V6.iter().any(|net| net.contains(&address))
            }
        },
    }
}

const fn v4(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

const fn v6(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

const SPECIAL_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 8),       // this network
    v4(10, 0, 0, 8),      // private
    v4(100, 64, 0, 10),   // carrier-grade NAT
    v4(127, 0, 0, 8),     // loopback
    v4(169, 254, 0, 16),  // link-local, metadata services
    v4(172, 16, 0, 12),   // private
    v4(192, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 24),    // documentation
    v4(192, 31, 196, 24), // AS112
    v4(192, 88, 99, 24),  // 6to4 relays
    v4(192, 168, 0, 16),  // private
    v4(198, 18, 0, 15),   // benchmarks
    v4(198, 51, 100, 24), // documentation
    v4(203, 0, 113, 24),  // documentation
    v4(224, 0, 0, 4),     // multicast
    v4(240, 0, 0, 4),     // reserved, broadcast
];

const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),      // protocol assignments, Teredo
    v6(0x2001, 0x0db8, 32), // documentation
    v6(0x2002, 0, 16),      // 6to4
    v6(0x3fff, 0, 20),      // documentation
];

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::combinators::BoxBody;
    use http_body_util::{Full, StreamBody};
    use hyper::server::conn::http1 as server;
    use hyper::service::service_fn;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::clock::Clock;
    use crate::gateway::keys::{KeyCache, KeyUrl};
    use crate::telemetry::metrics::Metrics;
    use crate::units::UnixTime;

    type Reply = Response<BoxBody<Bytes, Infallible>>;

    /// A TLS server on the loopback, by an authority of its own.
    struct Server {
        authority: CertifiedIssuer<'static, KeyPair>,
        port: u16,
        requests: Arc<AtomicUsize>,
    }

    fn full(body: impl Into<Bytes>) -> Reply {
        Response::new(Full::new(body.into()).boxed())
    }

    fn chunked(chunk: &'static [u8], count: usize) -> Reply {
        let frame = move || Ok(http_body::Frame::data(Bytes::from_static(chunk)));
        let frames = (0..count).map(move |_| frame());
        Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(
            frames,
        ))))
    }

    fn with(mut reply: Reply, name: &'static str, value: &str) -> Reply {
        reply
            .headers_mut()
            .insert(name, HeaderValue::from_str(value).unwrap());
        reply
    }

    fn reply(path: &str) -> Reply {
        match path {
            "/jwks" => with(full(JWKS), "cache-control", "public, max-age=600"),
            "/moved" => {
                let mut reply = with(full(JWKS), "location", "/jwks");
                *reply.status_mut() = StatusCode::FOUND;
                reply
            }
            "/partial" => {
                let mut reply = full(JWKS);
                *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
                reply
            }
            "/gzip" => with(full(JWKS), "content-encoding", "gzip"),
            "/most" => full(vec![b' '; BODY_MAX]),
            "/large" => full(vec![b' '; BODY_MAX + 1]),
            "/endless" => chunked(&[b' '; 1024], usize::MAX),
            "/head" => with(full(JWKS), "x-long", &"x".repeat(HEAD_MAX)),
            _ => with(full(Bytes::new()), "cache-control", "no-store"),
        }
    }

    const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    async fn serve(names: &[&str]) -> Server {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(acceptor.clone(), stream, Arc::clone(&counter)));
            }
        });
        Server {
            authority,
            port,
            requests,
        }
    }

    async fn answer(acceptor: TlsAcceptor, stream: TcpStream, counter: Arc<AtomicUsize>) {
        let Ok(stream) = acceptor.accept(stream).await else {
            return;
        };
        let service = service_fn(|request: Request<Incoming>| {
            counter.fetch_add(1, Ordering::Relaxed);
            async move {
                if request.uri().path() == "/slow" {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(reply(request.uri().path()))
            }
        });
        // A client that has enough hangs up.
        drop(
            server::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await,
        );
    }

    impl Server {
        fn client(&self) -> HttpsFetch {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).unwrap();
            let mut client = HttpsFetch::new(|| roots);
            client.time_max = Duration::from_millis(500);
            client
        }

        fn url(&self, host: &str, path: &str) -> HttpsUrl {
            HttpsUrl::parse(&format!("https://{host}:{}{path}", self.port)).unwrap()
        }

        async fn get(&self, path: &str) -> Result<Fetched, FetchError> {
            self.client()
                .get(&self.url("localhost", path), Reach::Any)
                .await
        }

        fn requests(&self) -> usize {
            self.requests.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_document_is_fetched() {
        let server = serve(&["localhost", "127.0.0.1"]).await;
        let fetched = server.get("/jwks").await.unwrap();
        assert_eq!(fetched.body, JWKS);
        assert_eq!(fetched.max_age, Some(Duration::from_mins(10)));
        assert_eq!(server.get("/").await.unwrap().max_age, Some(Duration::ZERO));
        assert_eq!(server.get("/most").await.unwrap().body.len(), BODY_MAX);
        let by_address = server.url("127.0.0.1", "/jwks");
        assert!(server.client().get(&by_address, Reach::Any).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_but_a_small_plain_answer_in_time_counts() {
        // SECURITY A-32
        let server = serve(&["localhost"]).await;
        for path in ["/moved", "/partial", "/gzip", "/large", "/endless"] {
            let error = server.get(path).await.unwrap_err();
            assert!(matches!(error, FetchError::Answer(_)), "{path}: {error}");
        }
        assert_eq!(server.requests(), 5, "a redirect is not followed");
        assert!(matches!(
            server.get("/head").await,
            Err(FetchError::Unreachable(_))
        ));
        assert!(matches!(
            server.get("/slow").await,
            Err(FetchError::Timeout(_))
        ));
    }

    #[tokio::test]
    async fn only_the_right_server_is_believed() {
        let (server, other) = (serve(&["localhost"]).await, serve(&["localhost"]).await);
        let wrong_authority = other
            .client()
            .get(&server.url("localhost", "/jwks"), Reach::Any)
            .await;
        assert!(matches!(wrong_authority, Err(FetchError::Unreachable(_))));
        let wrong_name = server
            .client()
            .get(&server.url("127.0.0.1", "/jwks"), Reach::Any)
            .await;
        assert!(matches!(wrong_name, Err(FetchError::Unreachable(_))));
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = nobody.local_addr().unwrap().port();
        drop(nobody);
        let url = HttpsUrl::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
        let refused = server.client().get(&url, Reach::Any).await;
        assert!(matches!(refused, Err(FetchError::Unreachable(_))));
        assert_eq!(server.requests(), 0);
    }

    #[tokio::test]
    async fn the_operators_network_is_out_of_reach() {
        // SECURITY A-32, A-34: neither by address nor by a name that leads there.
        let server = serve(&["localhost", "127.0.0.1"]).await;
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            let url = server.url(host, "/jwks");
            let error = server.client().get(&url, Reach::Public).await.unwrap_err();
            assert_eq!(error, FetchError::Reach, "{host}");
        }
        assert_eq!(server.requests(), 0);
    }

    #[test]
    fn which_addresses_are_public() {
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "172.32.0.1",
            "2606:4700::1111",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }

    #[tokio::test]
    async fn keys_come_over_the_wire_once() {
        let server = serve(&["localhost"]).await;
        let metrics = Arc::new(Metrics::new("0.0.0"));
        let clock = Clock::manual(UnixTime::from_secs(1_700_000_000));
        let cache = KeyCache::new(Arc::new(server.client()), clock, Arc::clone(&metrics));
        let client = IpAddr::from([192, 0, 2, 1]);
        let wanted = KeyUrl::of_operator(server.url("localhost", "/jwks"));
        let (one, other) = tokio::join!(
            cache.keys(&wanted, None, client),
            cache.keys(&wanted, Some("a"), client)
        );
        for keys in [one, other, cache.keys(&wanted, None, client).await] {
            assert_eq!(keys.unwrap().ids().next().as_deref(), Some("a"));
        }
        assert_eq!(server.requests(), 1);
        for path in ["/", "/moved", "/large"] {
            let wanted = KeyUrl::of_operator(server.url("localhost", path));
            assert!(cache.keys(&wanted, None, client).await.is_err(), "{path}");
        }
        let page = metrics.render();
        assert!(
            page.contains("hookward_key_fetches_total{result=\"success\"} 1"),
            "{page}"
        );
        assert!(
            page.contains("hookward_key_fetches_total{result=\"failure\"} 3"),
            "{page}"
        );
    }
}
