//! What the edges are told: limits, listeners, upstreams. Plain data, built by `config`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::secret::Secret;
use crate::units::ByteSize;

/// Sizes, counts and times that hold for the whole gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, all listeners together.
    pub connections: usize,
    /// Open connections of one client address.
    pub connections_per_address: PerAddress,
    /// Requests between their head and the end of their answer.
    pub requests_in_flight: usize,
    /// Buffered bodies, all together.
    pub body_memory: ByteSize,
    /// Request line and headers of one request.
    pub header_bytes: ByteSize,
    /// From accept to the end of the TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// From the first byte of a head to its last; also from accept to the first head.
    pub header_timeout: Duration,
    /// From the head to the last byte of the body.
    pub body_timeout: Duration,
    /// Bytes a second that a body must come at once it has had some time; 0 for any.
    pub body_min_rate: ByteSize,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// Until a client takes the next part of its answer.
    pub write_timeout: Duration,
    /// Longest that a stop waits for what is under way.
    pub drain_timeout: Duration,
    /// Between failing `/readyz` and closing the listeners.
    pub drain_delay: Duration,
    /// Deliveries that this process remembers. Not a key: it follows from the memory that there is.
    pub deliveries: usize,
    /// Clients whose rates this process counts. Not a key either.
    pub clients: usize,
    /// Bytes that an HTTP/2 connection may send before we have read them. Not a key either.
    pub http2_window: u32,
    /// Streams at once on an HTTP/2 connection. Not a key either.
    pub http2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: PerAddress::Share,
            requests_in_flight: 1024,
            body_memory: ByteSize(256 << 20),
            header_bytes: ByteSize(32 << 10),
            tls_handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            body_min_rate: ByteSize(512),
            // Longer than the keep-alive of common load balancers (60 s), so that they close first.
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            deliveries: 1_000_000,
            clients: 1_000_000,
            http2_window: 1 << 20,
            http2_streams: 64,
        }
    }
}

/// What the process takes before anybody connects, with room for logs and a password at work.
const RESTING: u64 = 24 << 20;
/// What is shared out at least, however little there is.
const SHARED_MIN: u64 = 8 << 20;
/// A connection with TLS and, over HTTP/2, with `STREAMS_MIN` streams that begin at once: the soak of memory holds it to that.
const CONNECTION: u64 = 160 << 10;
const STREAMS_MIN: u64 = 4;
/// The largest head of a stream, before anybody can refuse it.
const HEAD: u64 = 32 << 10;
/// What a connection may send ahead for each stream. Four of these are 64 KiB, the least window that a connection can have
/// (RFC 9113 6.9.2).
const WINDOW: u32 = 16 << 10;
/// A request with the largest head, beside its body.
const REQUEST: u64 = 40 << 10;
/// A delivery that is remembered, and a client.
const DELIVERY: u64 = 160;
const CLIENT: u64 = 64;

impl Limits {
    /// Defaults that hold when all of them are used up at once in a process with so much memory
    /// (SECURITY S-18). From 3.1 GiB on the keys are those of [`Limits::default`].
    pub fn within(memory: ByteSize) -> Self {
        let shared = memory.0.saturating_sub(RESTING).max(SHARED_MIN);
        let sixteenths = |count: u64| shared / 16 * count;
        let places = |share: u64, each: u64, most: usize| {
            usize::try_from(share / each).map_or(most, |places| places.min(most))
        };
        let most = Self::default();
        let connections = places(sixteenths(8), CONNECTION, most.connections);
        let streams =
            sixteenths(8) / (HEAD * u64::try_from(connections).unwrap_or(u64::MAX).max(1));
        let streams = u32::try_from(streams.clamp(STREAMS_MIN, most.http2_streams.into()))
            .unwrap_or(most.http2_streams);
        Self {
            connections,
            http2_streams: streams,
            http2_window: streams * WINDOW,
            requests_in_flight: places(sixteenths(2), REQUEST, most.requests_in_flight),
            body_memory: ByteSize(sixteenths(3).min(most.body_memory.0)),
            deliveries: places(sixteenths(2), DELIVERY, most.deliveries),
            clients: places(sixteenths(1), CLIENT, most.clients),
            ..most
        }
    }
}

/// Where replay claims and rates are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StateSettings {
    /// In this process.
    #[default]
    Memory,
    /// In Redis or Valkey, shared by replicas.
    Redis(RedisSettings),
}

/// How Redis is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where it is.
    pub url: StoreUrl,
    /// Whether that is a node of a cluster.
    pub cluster: bool,
    /// PEM of the authorities of its certificate, instead of the system's.
    pub ca: Option<Arc<[u8]>>,
    /// What every key begins with.
    pub prefix: Arc<str>,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// What happens without it.
    pub on_failure: OnFailure,
}

/// What happens without the shared store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Each replica claims and counts on its own.
    Local,
    /// What needs it is refused.
    Reject,
}

/// The URL of a store, which may hold a password. Compared by its digest.
#[derive(Clone, Debug)]
pub struct StoreUrl {
    url: Secret,
    digest: [u8; 32],
}

impl StoreUrl {
    /// A URL and its digest.
    pub fn new(url: Secret, digest: [u8; 32]) -> Self {
        Self { url, digest }
    }

    /// The bytes, for the one who connects.
    pub fn expose(&self) -> &[u8] {
        self.url.expose()
    }
}

impl PartialEq for StoreUrl {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for StoreUrl {}

/// How many connections one client address may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerAddress {
    /// A tenth of all, though never fewer than 64; the loopback, where tunnels and proxies speak for
    /// everybody, may have all.
    Share,
    /// So many, whatever the address.
    Exactly(usize),
}

/// Least share of an address.
const SHARE_MIN: usize = 64;
/// From so many places on, some of them are kept free of the requests for one upstream.
const RESERVED_FROM: usize = 64;

impl Limits {
    /// Open connections that `address` may have.
    pub fn connections_of(&self, address: IpAddr) -> usize {
        match self.connections_per_address {
            PerAddress::Exactly(count) => count,
            PerAddress::Share if address.is_loopback() => usize::MAX,
            PerAddress::Share => (self.connections / 10).max(SHARE_MIN),
        }
    }

    /// Requests of `address` whose bodies may be waited for at once: half of all, so that nobody alone keeps everybody
    /// out with heads that cost nothing (SECURITY DS-08).
    pub fn awaited_bodies_of(&self, address: IpAddr) -> usize {
        if address.is_loopback() {
            usize::MAX
        } else {
            self.requests_in_flight.div_ceil(2)
        }
    }

    /// What the requests for one of several upstreams may hold: three quarters of all.
    pub fn of_an_upstream(&self) -> UpstreamMax {
        let (requests, body_bytes) = (self.requests_in_flight, self.body_memory.0);
        UpstreamMax {
            requests: if requests < RESERVED_FROM {
                requests
            } else {
                requests - requests / 4
            },
            body_bytes: body_bytes - body_bytes / 4,
        }
    }
}

/// Most that the requests for one upstream hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamMax {
    /// Places of `requests_in_flight`.
    pub requests: usize,
    /// Bytes of `body_memory`, unless it is one body alone.
    pub body_bytes: u64,
}

impl UpstreamMax {
    /// What the limits of all are enough for.
    pub const ALL: Self = Self {
        requests: usize::MAX,
        body_bytes: u64::MAX,
    };
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// TLS or plaintext.
    pub transport: Transport,
    /// What senders call, for schemes that sign the URL and for redirects.
    pub public_url: Option<PublicUrl>,
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each connection must come from one of them and begin with a PROXY header.
    pub proxy_protocol: bool,
}

impl ListenerSettings {
    /// Whether requests reach routes through it over TLS.
    pub fn takes_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Whether requests reach routes through it over plain HTTP.
    pub fn takes_plain_http(&self) -> bool {
        matches!(self.transport, Transport::Plaintext(Plaintext::Allow))
    }

    /// What is ordered for it, where its certificates come from an ACME authority.
    pub fn acme(&self) -> Option<&AcmeSettings> {
        match &self.transport {
            Transport::Tls(TlsSettings {
                certificates: CertificateSource::Acme(acme),
                ..
            }) => Some(acme),
            Transport::Tls(_) | Transport::Plaintext(_) => None,
        }
    }
}

/// TLS or plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Without TLS.
    Plaintext(Plaintext),
    /// With TLS.
    Tls(TlsSettings),
}

/// What plain HTTP gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// The same as over TLS: something in front ends TLS.
    Allow,
    /// 308 to https.
    Redirect,
    /// 403.
    Reject,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates, the first is the default.
    pub certificates: CertificateSource,
    /// Lowest version.
    pub min_version: TlsVersion,
    /// Authorities of client certificates; when given, clients are asked for one.
    pub client_ca: Option<Vec<CertificateDer<'static>>>,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Files, already read.
    Files(Vec<CertificatePair>),
    /// Made at start for these names.
    SelfSigned(Vec<String>),
    /// Ordered from an authority.
    Acme(AcmeSettings),
}

/// What is ordered from which ACME authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// Names of the certificate, lower case.
    pub domains: Vec<String>,
    /// Where the authority writes to.
    pub email: Option<String>,
    /// URL of its directory.
    pub directory: String,
    /// Authorities that the directory itself is trusted by, instead of the system's.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    /// Folder of the account and the certificates.
    pub cache: PathBuf,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePair {
    /// Its file, as written in the configuration: label of the expiry metric.
    pub name: Arc<str>,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: Arc<PrivateKeyDer<'static>>,
}

/// The URL that senders call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// `http` or `https`.
    pub scheme: String,
    /// Host, with the port when one was written.
    pub authority: String,
    /// Path prefix without a trailing slash; mostly empty.
    pub path: String,
}

impl PublicUrl {
    /// What stands before the path of a request: `https://hooks.example.org`.
    pub fn origin(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Its name, or the URL that a route gave.
    pub name: Arc<str>,
    /// Its servers.
    pub servers: Vec<ServerAddress>,
    /// To connect, TLS included.
    pub connect_timeout: Duration,
    /// To the head of the answer, and for each wait within it.
    pub timeout: Duration,
    /// Whether connections are kept for further requests.
    pub keepalive: bool,
    /// Active health checks.
    pub health: Option<HealthCheck>,
    /// TLS towards it.
    pub tls: UpstreamTls,
}

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// Over TCP.
    Http {
        /// Name or address, IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// Over TLS.
    Https {
        /// Name or address, IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// Over a unix socket.
    Unix(PathBuf),
}

impl ServerAddress {
    /// Host and port, as in `Host` (RFC 9110 section 7.2); of a unix socket `localhost`.
    pub fn authority(&self) -> String {
        match self {
            Self::Http { host, port } | Self::Https { host, port } if host.contains(':') => {
                format!("[{host}]:{port}")
            }
            Self::Http { host, port } | Self::Https { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { .. } => write!(f, "http://{}", self.authority()),
            Self::Https { .. } => write!(f, "https://{}", self.authority()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// TLS towards an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Authorities instead of the system's.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    /// Name in its certificate, where it is not its host.
    pub server_name: Option<String>,
    /// Client certificate and key.
    pub client: Option<(Vec<CertificateDer<'static>>, Arc<PrivateKeyDer<'static>>)>,
}

/// An active health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path to GET.
    pub path: String,
    /// Time between checks.
    pub interval: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_memory_that_there_is() {
        // SECURITY S-18
        let small = Limits::within(ByteSize(64 << 20));
        assert_eq!((small.connections, small.requests_in_flight), (128, 128));
        assert_eq!(small.body_memory, ByteSize(7680 << 10));
        assert_eq!((small.deliveries, small.clients), (32_768, 40_960));
        let streams_of = |limits: &Limits| (limits.http2_streams, limits.http2_window);
        assert_eq!(streams_of(&small), (5, 80 << 10));
        let least = Limits::within(ByteSize(1));
        assert!(least.connections >= 25 && least.requests_in_flight >= 16);
        assert!(
            least.body_memory >= ByteSize(1 << 20),
            "a body of the default size fits"
        );
        let most = Limits::within(ByteSize(3200 << 20));
        assert_eq!(
            (most.connections, most.body_memory),
            (10_000, ByteSize(256 << 20))
        );
        assert_eq!(Limits::within(ByteSize(64 << 30)), Limits::default());
    }

    #[test]
    fn an_address_is_written_as_in_a_url() {
        let host = "::1".to_owned();
        let server = ServerAddress::Http { host, port: 8080 };
        assert_eq!(server.authority(), "[::1]:8080");
        assert_eq!(server.to_string(), "http://[::1]:8080");
        let host = "app".to_owned();
        let server = ServerAddress::Https { host, port: 443 };
        assert_eq!(server.to_string(), "https://app:443");
    }
}
