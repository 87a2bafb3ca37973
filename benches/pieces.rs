//! The hot pieces of the gateway, each ready to be run any number of times: `hot` measures how long they
//! take, `instructions` counts what they execute.

use std::cell::{Cell, RefCell};
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use hookward::clock::Clock;
use hookward::config::{self, Config, Environment};
use hookward::gateway::Gateway;
use hookward::gateway::connection::{Connection, TlsFacts};
use hookward::gateway::quota::Limiter;
use hookward::net::http::{Serving, Shutdown, serve_http1};
use hookward::route::policy::{Quota, QuotaKey};
use hookward::scheme::catalog::Catalog;
use hookward::scheme::keys::{Key, KeySet};
use hookward::scheme::{Content, Message, Params, Scheme, SenderUrl};
use hookward::server;
use hookward::settings::Limits;
use hookward::store::{ReplayStore, Verdict};
use hookward::telemetry::Telemetry;
use hookward::telemetry::log::AccessLog;
use hookward::telemetry::metrics::Metrics;
use hookward::units::{Rate, UnixTime};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

/// Presets that stand for all: each algorithm, each way to write a signature, each protocol of its own.
const SCHEMES: &[&str] = &[
    "adyen/standard",
    "aws-sns",
    "discord",
    "docusign-connect",
    "github",
    "gitlab/secret-token",
    "google-pubsub",
    "http-message-signatures",
    "plaid",
    "sendgrid",
    "slack",
    "standard-webhooks",
    "standard-webhooks/v1a",
    "stripe",
    "twilio",
    "wise",
];

const SECRET: &str = "bench-secret";
const BODY_BYTES: usize = 2048;
/// Bytes that may be on their way over a connection.
const CONNECTION_BYTES: usize = 16 * 1024;
const CLAIMS: usize = 32;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One piece.
pub(crate) struct Piece {
    pub(crate) name: String,
    prepare: Box<dyn Fn(usize) -> Run>,
}

/// A piece with its inputs made.
pub(crate) type Run = Box<dyn FnOnce()>;

impl Piece {
    /// `operation` on an input of its own each time; making the inputs does not count.
    fn new<I: 'static, O>(
        name: impl Into<String>,
        input: impl Fn() -> I + 'static,
        operation: impl Fn(I) -> O + 'static,
    ) -> Self {
        let operation = Rc::new(operation);
        let prepare = move |times: usize| -> Run {
            let inputs: Vec<I> = (0..times).map(|_| input()).collect();
            let operation = Rc::clone(&operation);
            Box::new(move || {
                for input in inputs {
                    black_box(operation(black_box(input)));
                }
            })
        };
        Self {
            name: name.into(),
            prepare: Box::new(prepare),
        }
    }

    /// Makes the inputs for so many runs.
    pub(crate) fn prepare(&self, times: usize) -> Run {
        (self.prepare)(times)
    }
}

/// Every piece; route tables in each of these sizes.
pub(crate) fn all(tables: &[usize]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = tables.iter().map(|size| route_match(*size)).collect();
    pieces.extend(schemes());
    pieces.push(replay_claim());
    pieces.extend([QuotaKey::ClientIp, QuotaKey::Route].map(limiter));
    pieces.extend([Delivery::Good, Delivery::Bad, Delivery::Unsigned].map(request));
    pieces.extend([Delivery::Good, Delivery::Unsigned].map(over_http1));
    pieces
}

/// A configuration with everything on, in which so many routes differ by their path.
fn configuration(routes: usize) -> Config {
    let mut text = String::from(
        "version: 1\nlisteners:\n  https: { address: '127.0.0.1:0', tls: { self_signed: [localhost] } }\nroutes:\n",
    );
    for index in 0..routes {
        let route = format!(
            "- name: route-{index}
  match: {{ host: localhost, path: /hooks/{index} }}
  rate_limits:
    - {{ key: client_ip, rate: 1000000/s, burst: 1000000 }}
    - {{ key: route, rate: 1000000/s, burst: 1000000 }}
  verify: [{{ provider: github, secrets: [env:SECRET] }}]
  replay: {{ window: 10m }}
  forward: {{ set_headers: {{ X-Env: bench }}, remove_headers: [X-Debug] }}
  upstream: echo
"
        );
        text.push_str(&route);
    }
    let env = Environment::from_pairs([("SECRET", SECRET)]);
    let loaded = config::load_text("bench.yaml", &text, Path::new(""), &env);
    loaded.config.expect("a valid configuration")
}

fn route_match(routes: usize) -> Piece {
    let table = configuration(routes).routes;
    let paths: Vec<String> = (0..routes).map(|index| format!("/hooks/{index}")).collect();
    let turn = Cell::new(0);
    let input = move || {
        // Far from the last one, so that a large table does not lie in the cache.
        turn.set((turn.get() + 7919) % paths.len());
        paths.get(turn.get()).cloned().unwrap_or_default()
    };
    Piece::new(format!("route/{routes}"), input, move |path: String| {
        black_box(table.find("localhost", &path, &Method::POST));
    })
}

/// For each scheme what the head alone tells, and the whole verdict, on a published test vector.
fn schemes() -> impl Iterator<Item = Piece> {
    let catalog = Catalog::built_in();
    SCHEMES.iter().flat_map(move |name| {
        let case = Rc::new(Case::accepted(&catalog, name));
        let again = Rc::clone(&case);
        [
            Piece::new(format!("head/{name}"), || (), move |()| case.precheck()),
            Piece::new(format!("verify/{name}"), || (), move |()| again.verify()),
        ]
    })
}

fn replay_claim() -> Piece {
    let clock = Clock::manual(UnixTime::from_secs(0));
    let store = ReplayStore::memory(clock.clone());
    let number = Cell::new(0_u64);
    let input = move || {
        [(); CLAIMS].map(|()| {
            number.set(number.get() + 1);
            let mut key = [0; 32];
            for (byte, own) in key.iter_mut().zip(number.get().to_be_bytes()) {
                *byte = own;
            }
            key
        })
    };
    // Where a claim lies in the store is random: many are counted together, so that it does not show.
    Piece::new(format!("replay/{CLAIMS}-claims"), input, move |keys| {
        for key in keys {
            claim(&store, &clock, key);
        }
    })
}

/// One delivery: a claim and its commit.
fn claim(store: &ReplayStore, clock: &Clock, key: [u8; 32]) {
    // Each claim finds one that has ended: the store does not grow however long this runs.
    clock.advance(Duration::from_millis(1));
    let window = Duration::from_secs(1);
    let claimed = store.claim(key, window, window).now_or_never();
    match claimed.expect("memory never waits").expect("room") {
        Verdict::New(claim) => {
            let committed = claim.commit().now_or_never();
            committed.expect("memory never waits").expect("a commit");
        }
        Verdict::Duplicate | Verdict::InFlight { .. } => {}
    }
}

fn limiter(key: QuotaKey) -> Piece {
    let rate = Rate {
        count: NonZeroU32::MAX,
        per: Duration::from_secs(1),
    };
    let quota = Quota {
        key,
        rate,
        burst: NonZeroU32::MAX,
    };
    let limiter = Limiter::new(&quota);
    let name = match key {
        QuotaKey::ClientIp => "limiter/client",
        QuotaKey::Route => "limiter/route",
    };
    Piece::new(
        name,
        || CLIENT,
        move |client| limiter.check(client).now_or_never(),
    )
}

/// What a sender sends.
#[derive(Clone, Copy)]
enum Delivery {
    Good,
    Bad,
    Unsigned,
}

impl Delivery {
    fn request(self, number: u64) -> Request<Full<Bytes>> {
        let mut body = vec![b' '; BODY_BYTES];
        let digits = format!("{{\"n\":{number:016x}}}");
        for (byte, digit) in body.iter_mut().zip(digits.bytes()) {
            *byte = digit;
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key will do");
        match self {
            Self::Good | Self::Unsigned => mac.update(&body),
            Self::Bad => mac.update(b"another body"),
        }
        let mut request = Request::post("/hooks/0")
            .header(header::HOST, "localhost")
            .header(header::USER_AGENT, "GitHub-Hookshot/bench")
            .header(header::ACCEPT, "*/*")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, BODY_BYTES)
            .header("x-github-event", "push")
            .header(
                "x-github-delivery",
                format!("00000000-0000-4000-8000-{number:012x}"),
            );
        if !matches!(self, Self::Unsigned) {
            let signature = HEXLOWER.encode(&mac.finalize().into_bytes());
            request = request.header("x-hub-signature-256", format!("sha256={signature}"));
        }
        request.body(Full::from(body)).expect("a request")
    }

    /// The same as it comes over HTTP/1.1.
    fn bytes(self, number: u64) -> Vec<u8> {
        let (head, body) = self.request(number).into_parts();
        let mut bytes = format!("{} {} HTTP/1.1\r\n", head.method, head.uri).into_bytes();
        for (name, value) in &head.headers {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        let body = body.collect().now_or_never().expect("a whole body");
        bytes.extend(body.expect("no error").to_bytes());
        bytes
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Good => "accepted",
            Self::Bad => "bad-signature",
            Self::Unsigned => "no-signature",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::Good => 200,
            Self::Bad | Self::Unsigned => 401,
        }
    }
}

/// A whole request as it is between HTTP on one side and the other: no sockets, no TLS.
fn request(delivery: Delivery) -> Piece {
    let name = format!("request/{}", delivery.name());
    let runtime = runtime();
    let gateway = runtime.block_on(async { gateway() });
    let connection = connection();
    let handle = move |request| handle(&runtime, &gateway, &connection, request);
    let status = handle(delivery.request(0));
    assert_eq!(status, delivery.status(), "{name}");
    let number = Cell::new(0);
    let input = move || {
        number.set(number.get() + 1);
        delivery.request(number.get())
    };
    Piece::new(name, input, handle)
}

/// A request from its first byte to the last of its answer, on a connection that has had others.
fn over_http1(delivery: Delivery) -> Piece {
    let name = format!("http1/{}", delivery.name());
    let runtime = runtime();
    let (mut client, io) = tokio::io::duplex(CONNECTION_BYTES);
    let serving = Serving {
        connection: connection(),
        gateway: Arc::new(runtime.block_on(async { gateway() })),
        challenges: None,
    };
    let shutdown = Shutdown::default();
    // The pieces before it take their time.
    let limits = Limits {
        idle_timeout: Duration::from_hours(1),
        ..Limits::default()
    };
    runtime.spawn(serve_http1(io, serving, &limits, shutdown, None));
    let mut answer = vec![0; CONNECTION_BYTES];
    let mut exchange = move |request: Vec<u8>| {
        runtime.block_on(async {
            client.write_all(&request).await.expect("it is taken");
            let size = client.read(&mut answer).await.expect("an answer");
            let status = answer.get(9..12).filter(|_| size > 12);
            status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok())
        })
    };
    let status: Option<u16> = exchange(delivery.bytes(0));
    assert_eq!(status, Some(delivery.status()), "{name}");
    let number = Cell::new(0);
    let input = move || {
        number.set(number.get() + 1);
        delivery.bytes(number.get())
    };
    let exchange = RefCell::new(exchange);
    Piece::new(name, input, move |request| (exchange.borrow_mut())(request))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn connection() -> Connection {
    let tls = TlsFacts {
        certificate: None,
        client: None,
    };
    let peer = SocketAddr::new(CLIENT, 40_000);
    Connection::new(peer, "https".into(), Some(tls))
}

fn handle(
    runtime: &Runtime,
    gateway: &Gateway,
    connection: &Connection,
    request: Request<Full<Bytes>>,
) -> u16 {
    let answered = gateway.handle(connection, request);
    runtime.block_on(answered).status().as_u16()
}

fn gateway() -> Gateway {
    let telemetry = Telemetry::new(Metrics::new("bench"), AccessLog::capture());
    server::gateway(configuration(100), telemetry).expect("a gateway")
}

/// A test vector, as `tests/vectors/README.md` explains it.
#[derive(Deserialize)]
struct Vector {
    preset: String,
    kind: String,
    expect: String,
    now: Option<i64>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    public_keys: Vec<String>,
    #[serde(default)]
    params: Params,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body_base64: String,
}

/// A request that a scheme accepts.
struct Case {
    scheme: Scheme,
    keys: KeySet,
    method: Method,
    url: SenderUrl,
    headers: HeaderMap,
    body: Content,
    now: UnixTime,
}

impl Case {
    /// The first vector of a preset that has to be accepted.
    fn accepted(catalog: &Catalog, name: &str) -> Self {
        let provider = name.split('/').next().unwrap_or(name);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
        let text = fs::read_to_string(folder.join(format!("{provider}.jsonl"))).expect(name);
        let vectors = text
            .lines()
            .map(|line| serde_json::from_str(line).expect(name));
        let vector = vectors
            .into_iter()
            .find(|v: &Vector| v.preset == name && v.kind == "request" && v.expect == "accept");
        let case = Self::new(catalog, &vector.expect(name));
        case.precheck();
        case.verify();
        case
    }

    fn new(catalog: &Catalog, vector: &Vector) -> Self {
        let selected = catalog.find(&vector.preset).expect("a preset");
        let scheme = selected.bind(&vector.params, None).expect("its params");
        let secrets = vector.secrets.iter();
        let mut keys: Vec<Key> = secrets
            .map(|secret| scheme.secret_key("secret".into(), secret.as_bytes(), None))
            .collect::<Result<_, _>>()
            .expect("its secrets");
        let id: Arc<str> = "key".into();
        for key in &vector.public_keys {
            keys.extend(
                scheme
                    .public_keys(&id, key.as_bytes(), None)
                    .expect("its keys"),
            );
        }
        let headers = vector.headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        let (origin, target) = split_url(&vector.url);
        Self {
            scheme,
            keys: KeySet::new(keys).expect("a key"),
            method: vector.method.parse().expect("a method"),
            url: SenderUrl {
                origin: origin.into(),
                target: target.into(),
            },
            headers: headers.collect(),
            body: BASE64
                .decode(vector.body_base64.as_bytes())
                .expect("base64")
                .into(),
            now: UnixTime::from_secs(vector.now.unwrap_or(1_767_225_600)),
        }
    }

    fn precheck(&self) {
        let judged = self.scheme.precheck(&self.method, &self.url, &self.headers);
        judged.expect("a readable signature");
    }

    fn verify(&self) {
        let message = Message {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
        };
        let judged = self.scheme.verify(&message, &self.keys, self.now);
        judged.expect("an authentic request");
    }
}

/// Origin and target of a URL that has a path.
fn split_url(url: &str) -> (&str, &str) {
    let authority = url.find("://").map_or(0, |colon| colon + 3);
    let length = url.get(authority..).and_then(|rest| rest.find('/'));
    url.split_at(authority + length.expect("a path"))
}
