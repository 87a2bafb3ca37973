//! The whole path of a request: over HTTP/1.1 and HTTP/2, however its body is cut, to the app.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hookward::clock::Clock;
use hookward::config::{Environment, load_text};
use hookward::gateway::Gateway;
use hookward::gateway::connection::Connection;
use hookward::gateway::forward::{Exchange, Upstream, UpstreamBody};
use hookward::gateway::headers::{is_forwarding, is_hop_by_hop, strip_query};
use hookward::gateway::outgoing::Outgoing;
use hookward::gateway::snapshot::{ListenerPolicy, RouteState, Snapshot};
use hookward::net::http::{Serving, Shutdown, serve_http1, serve_http2};
use hookward::net::key_fetch::HttpsFetch;
use hookward::net::trust::system_roots;
use hookward::settings::{Limits, Plaintext};
use hookward::store::ReplayStore;
use hookward::telemetry::Telemetry;
use hookward::telemetry::log::{AccessLog, LogFormat};
use hookward::telemetry::lossy::FlushGuard;
use hookward::telemetry::metrics::Metrics;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::{Body, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;

use super::support::{Input, NOW, SECRET, hmac_sha256};

const CONFIG: &str = "version: 1
listeners:
  http: { address: 127.0.0.1:8080, plaintext: allow }
routes:
  - name: signed
    match: { path: /signed, methods: [POST, PUT] }
    verify:
      - scheme:
          algorithm: hmac-sha256
          signature: { header: X-Sig, prefix: \"sha256=\" }
          signed: \"{body}\"
        secrets: [env:SECRET]
    upstream: echo
  - name: token
    match: { path: \"/token/{*rest}\", methods: [GET, POST, HEAD] }
    verify:
      - token: { query: auth, secrets: [env:SECRET] }
    upstream: echo
  - name: open
    match: { path: \"/open/{*rest}\", methods: [GET, POST, DELETE] }
    allow_ips: [192.0.2.0/24]
    body: { max_size: 2KiB }
    verify: none
    upstream: echo
";
const HOST: &str = "hooks.example.org";

/// What the app was sent.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// An app that remembers.
#[derive(Debug, Default)]
struct App(Mutex<Vec<Seen>>);

impl Upstream for App {
    fn send(&self, request: Outgoing, _: Option<Duration>) -> Exchange<'_> {
        Box::pin(async move {
            let mut headers = HeaderMap::new();
            let line = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
            let mut written = line.into_bytes();
            for (name, value) in request.head.fields() {
                written.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_bytes(value).unwrap());
            }
            // Nothing else is in the bytes.
            written.extend(b"\r\n");
            assert_eq!(written, request.head.bytes());
            self.0.lock().unwrap().push(Seen {
                method: request.method,
                target: request.target.to_string(),
                headers,
                body: request.body.joined().into_owned(),
            });
            Ok(Response::new(UpstreamBody::Whole(Bytes::new())))
        })
    }

    fn patience(&self, _: Option<Duration>) -> Duration {
        Duration::from_secs(1)
    }
}

/// A gateway, its app and a runtime.
struct Stage {
    runtime: tokio::runtime::Runtime,
    gateway: Arc<Gateway>,
    app: Arc<App>,
    _writes: FlushGuard,
}

impl Stage {
    fn new() -> Self {
        let env = Environment::from_pairs([("SECRET", SECRET)]);
        let loaded = load_text("hookward.yaml", CONFIG, Path::new("/nonexistent"), &env);
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report));
        // Written, but not kept: a fuzzer runs for millions of requests.
        let (log, writes) = AccessLog::to(LogFormat::Json, std::io::sink()).unwrap();
        let telemetry = Telemetry::new(Metrics::new("fuzz"), log);
        let app = Arc::new(App::default());
        let states = config.routes.routes().iter().map(|route| {
            let metrics = telemetry.metrics.route(&route.name, &route.auth.key_ids());
            RouteState::new(route, metrics, Arc::<App>::clone(&app))
        });
        let states = states.collect();
        let policy = ListenerPolicy {
            plaintext: Some(Plaintext::Allow),
            ..ListenerPolicy::default()
        };
        let listeners = HashMap::from([("http".into(), policy)]);
        let clock = Clock::manual(NOW);
        let replay = ReplayStore::memory(clock.clone());
        let limits = Limits::default();
        let snapshot = Snapshot::new(config.routes, limits, replay, listeners, states);
        let fetch = Arc::new(HttpsFetch::new(system_roots));
        let gateway = Gateway::new(snapshot, telemetry, clock, fetch).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        Self {
            runtime,
            gateway: Arc::new(gateway),
            app,
            _writes: writes,
        }
    }

    /// Status, and what the app saw: at most one request.
    fn outcome(&self, status: u16) -> (u16, Option<Seen>) {
        let mut seen = std::mem::take(&mut *self.app.0.lock().unwrap());
        assert!(seen.len() <= 1, "served twice");
        assert_ne!(status, 500, "an error inside");
        (status, seen.pop())
    }

    /// Past the wire: right into the gateway.
    fn direct(&self, sent: &Sent, chunks: Chunks) -> (u16, Option<Seen>) {
        let mut request = sent.request(chunks);
        request.headers_mut().insert("host", HOST.parse().unwrap());
        let connection = connection();
        let answer = self.gateway.handle(&connection, request);
        let response = self.runtime.block_on(answer);
        self.outcome(response.status().as_u16())
    }

    /// Over a connection, as hyper's client writes it.
    fn wire(&self, sent: &Sent, chunks: Chunks, version: Version) -> (u16, Option<Seen>) {
        let gateway = Arc::clone(&self.gateway);
        let status = self.runtime.block_on(async {
            let (client, server) = tokio::io::duplex(256 * 1024);
            let is_h2 = version == Version::HTTP_2;
            let server = tokio::spawn(async move {
                let limits = Limits::default();
                let serving = Serving {
                    connection: connection(),
                    gateway,
                    challenges: None,
                };
                if is_h2 {
                    serve_http2(server, serving, limits, Shutdown::default()).await;
                } else {
                    serve_http1(server, serving, &limits, Shutdown::default(), None).await;
                }
            });
            let request = sent.request(chunks);
            let exchange = async {
                if is_h2 {
                    over_http2(client, request, sent).await
                } else {
                    over_http1(client, request, sent).await
                }
            };
            let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await;
            server.abort();
            answer.expect("a request that nobody answered")
        });
        self.outcome(status)
    }
}

async fn over_http2(client: DuplexStream, mut request: Request<Chunks>, sent: &Sent) -> u16 {
    *request.uri_mut() = format!("http://{HOST}{}", sent.target).parse().unwrap();
    let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client));
    let (mut sender, connection) = client.await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap();
    answer.status().as_u16()
}

async fn over_http1(client: DuplexStream, mut request: Request<Chunks>, sent: &Sent) -> u16 {
    // hyper's client leaves the body of a GET out unless it is told so.
    if !sent.body.is_empty() {
        let chunked = "chunked".parse().unwrap();
        request.headers_mut().insert("transfer-encoding", chunked);
    }
    request.headers_mut().insert("host", HOST.parse().unwrap());
    let client = hyper::client::conn::http1::handshake(TokioIo::new(client));
    let (mut sender, connection) = client.await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap();
    answer.status().as_u16()
}

fn connection() -> Connection {
    Connection::new(([192, 0, 2, 1], 1).into(), "http".into(), None)
}

/// A request as its sender means it.
struct Sent {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Sent {
    fn request(&self, body: Chunks) -> Request<Chunks> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// In pieces whose sizes `seed` says; in no more than h2 takes for a flood of tiny frames.
    fn chunks(&self, seed: u8) -> Chunks {
        let mut sizes = u32::from(seed) | 1;
        let least = 1 + self.body.len() / 256;
        let mut rest = &self.body[..];
        let mut chunks = VecDeque::new();
        while !rest.is_empty() {
            sizes = sizes.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let size = (sizes >> 16) as usize % (1 + usize::from(seed) * 8);
            let (chunk, tail) = rest.split_at(size.max(least).min(rest.len()));
            chunks.push_back(Bytes::copy_from_slice(chunk));
            rest = tail;
        }
        Chunks(chunks)
    }

    fn whole(&self) -> Chunks {
        let body = Some(Bytes::copy_from_slice(&self.body)).filter(|body| !body.is_empty());
        Chunks(body.into_iter().collect())
    }
}

/// A body of pieces that says nothing of its length.
struct Chunks(VecDeque<Bytes>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let sign = |body: &[u8]| HEXLOWER.encode(&hmac_sha256(SECRET.as_bytes(), body));
    let long = vec![b'a'; 3000];
    let mut seeds = Vec::new();
    for (index, body) in [&b"{\"id\":1}"[..], b"", &long].into_iter().enumerate() {
        let head = format!(
            "POST /signed?x=%20 HTTP/1.1\nX-Sig: sha256={}\nX-A: 1\nX-A: 2\n\n",
            sign(body)
        );
        for flags in [0, 1] {
            let split = u8::try_from(index).unwrap() * 3;
            seeds.push([&[flags, split], head.as_bytes(), body].concat());
        }
    }
    for text in [
        format!(
            "GET /token/a?b=1&auth={SECRET}&c HTTP/1.1\nCookie: a=b\nX-Forwarded-For: 1.2.3.4\n\n"
        ),
        format!(
            "POST /token/?%61uth={SECRET} HTTP/1.1\nX-Hookward-Verified: yes\nForwarded: for=x\n\nbody"
        ),
        format!("GET /token/a?auth*={SECRET}&auth={SECRET} HTTP/1.1\n\n"),
        "POST /open/a/../b HTTP/1.1\n\n".to_owned(),
        "POST /open/%2e%2e/b HTTP/1.1\nContent_Length: 3\n\nabc".to_owned(),
        "DELETE /open/ HTTP/1.1\nContent-Type: application/json\n\n{".to_owned(),
        "POST /open//evil?a HTTP/1.1\nX-Request-Id: mine\nx_forwarded_for: 1\n\nabc".to_owned(),
        "POST /none HTTP/1.1\n\nabc".to_owned(),
        "P#ST /open/a HTTP/1.1\n\nabc".to_owned(),
    ] {
        for flags in [0, 1] {
            seeds.push([&[flags, 2], text.as_bytes()].concat());
        }
    }
    seeds
}

/// SECURITY Z-09: the app sees exactly what was sent, once, or nothing; and neither the cuts nor the
/// version change that.
pub(crate) fn run(data: &[u8]) {
    thread_local! {
        static STAGE: Stage = Stage::new();
    }
    let Some(([flags, split], text)) = data.split_first_chunk::<2>() else {
        return;
    };
    let Some(sent) = sent(text) else { return };
    let version = if flags & 1 == 0 {
        Version::HTTP_11
    } else {
        Version::HTTP_2
    };
    STAGE.with(|stage| {
        let (status, seen) = stage.direct(&sent, sent.whole());
        if let Some(seen) = &seen {
            is_as_sent(seen, &sent);
        }
        let of = |(status, seen): (u16, Option<Seen>)| (status, seen.map(without_id));
        let one = (status, seen.map(without_id));
        assert_eq!(
            of(stage.direct(&sent, sent.chunks(*split))),
            one,
            "the cuts of the body matter"
        );
        assert_eq!(
            of(stage.wire(&sent, sent.chunks(*split), version)),
            one,
            "{version:?} matters"
        );
    });
}

/// What every request has of its own.
fn without_id(mut seen: Seen) -> Seen {
    seen.headers.remove("x-request-id").expect("a request id");
    seen
}

/// A request that hyper's clients can send: framing and connections are theirs.
fn sent(text: &[u8]) -> Option<Sent> {
    let input = Input::parse(text)?;
    let target: PathAndQuery = input.url.target.parse().ok()?;
    let mut headers = input.headers;
    let theirs: Vec<_> = headers
        .keys()
        .filter(|name| {
            is_hop_by_hop(name.as_str()) || matches!(name.as_str(), "host" | "content-length")
        })
        .cloned()
        .collect();
    for name in theirs {
        headers.remove(name);
    }
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    // hyper's HTTP/2 client takes no body for CONNECT, and neither takes an asterisk for a path.
    let is_plain = input.method != Method::CONNECT && target.as_str().starts_with('/');
    (is_plain && size < 8 * 1024 && headers.len() < 60 && input.body.len() < 64 * 1024).then_some(
        Sent {
            method: input.method,
            target,
            headers,
            body: input.body,
        },
    )
}

fn is_as_sent(seen: &Seen, sent: &Sent) {
    assert_eq!(seen.method, sent.method);
    assert_eq!(seen.body, sent.body, "other bytes");
    let is_token = sent.target.path().starts_with("/token/");
    let target = sent.target.as_str();
    let wanted = if is_token {
        strip_query(target, &["auth"])
    } else {
        target.to_owned()
    };
    assert_eq!(seen.target, wanted, "another target");
    // What the sender put into fields of other names is no token, though it read the same.
    let is_there = |field: &str| {
        let name = field.split('=').next().unwrap_or_default();
        percent_encoding::percent_decode_str(name).eq(*b"auth")
    };
    let query = seen.target.split_once('?').map_or("", |(_, query)| query);
    assert!(
        !is_token || !query.split('&').any(is_there),
        "the token reached the app"
    );
    let ours = |name: &str| is_forwarding(name) || name.starts_with("x-hookward-");
    let mut left = sent.headers.clone();
    for name in sent.headers.keys().filter(|name| ours(name.as_str())) {
        left.remove(name);
    }
    for name in left.keys().filter(|name| name.as_str() != "cookie") {
        let values =
            |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(values(&seen.headers), values(&left), "another {name}");
    }
    for name in seen.headers.keys() {
        let name = name.as_str();
        let known =
            left.contains_key(name) || ours(name) || matches!(name, "host" | "content-length");
        assert!(known, "{name} was added");
    }
    assert_eq!(
        seen.headers["x-forwarded-for"], "192.0.2.1",
        "a stranger named the client"
    );
    let routes: Vec<_> = seen.headers.get_all("x-hookward-route").iter().collect();
    assert_eq!(routes.len(), 1);
    if let Some(length) = seen.headers.get("content-length") {
        assert_eq!(length.to_str().unwrap(), seen.body.len().to_string());
    }
}
