//! Load for `benches/compare`: signed deliveries over TLS, each with its own body and signature, and an
//! upstream that takes them. Counts the processor time that the proxy spends meanwhile.
//!
//! `load sink ADDRESS` is the upstream, `load send --help` the sender.
#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may panic and prints what it measured"
)]

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections that are opened at the same time.
const OPENERS: usize = 16;
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(20);

type Error = Box<dyn std::error::Error>;

#[derive(Parser)]
enum Command {
    /// An upstream: answers 200 to whatever it gets, and to GET how often that was
    Sink { address: SocketAddr },
    /// Sends deliveries and prints one line of JSON
    Send(Options),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Good,
    Bad,
    Unsigned,
}

#[derive(clap::Args)]
struct Options {
    /// The proxy
    #[arg(long)]
    to: SocketAddr,
    /// What signed its certificate
    #[arg(long)]
    ca: PathBuf,
    #[arg(long, default_value = "bench-secret")]
    secret: String,
    #[arg(long, value_enum, default_value = "good")]
    kind: Kind,
    /// Status that every answer has to have
    #[arg(long, default_value_t = 200)]
    expect: u16,
    /// Bytes of each body
    #[arg(long, default_value_t = 2048)]
    size: usize,
    /// Connections that are open
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Requests at once, which take turns among the connections
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// Requests a second, each due at its moment and timed from it, however long the others take (open loop).
    /// Without it each follows an answer (closed loop)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Take turns among so many routes
    #[arg(long, default_value_t = 1)]
    routes: u64,
    /// The only route to use, or the first
    #[arg(long, default_value_t = 0)]
    route: u64,
    /// Come from so many clients, named by X-Forwarded-For
    #[arg(long, default_value_t = 0)]
    clients: u64,
    /// Connect from so many addresses of the loopback
    #[arg(long, default_value_t = 1)]
    addresses: usize,
    /// A connection of its own for every request
    #[arg(long)]
    fresh: bool,
    /// HTTP/2: so many streams on each connection
    #[arg(long)]
    streams: Option<usize>,
    /// One request on each connection, which then stay open until standard input ends
    #[arg(long)]
    hold: bool,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Processes whose time is counted
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
}

fn main() -> Result<(), Error> {
    // `cargo bench` adds an argument that is not for us.
    let arguments = std::env::args().filter(|argument| argument != "--bench");
    let command = Command::parse_from(arguments);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        match command {
            Command::Sink { address } => sink(address).await,
            Command::Send(options) if options.hold => hold(options).await,
            Command::Send(options) => send(options).await,
        }
    })
}

// --- the upstream

async fn sink(address: SocketAddr) -> Result<(), Error> {
    let listener = TcpListener::bind(address).await?;
    let taken = Rc::new(Cell::new(0_u64));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let taken = Rc::clone(&taken);
        tokio::task::spawn_local(async move {
            // A proxy may hang up whenever it likes.
            take(stream, &taken).await.ok();
        });
    }
}

async fn take(mut stream: TcpStream, taken: &Cell<u64>) -> Result<(), Error> {
    let mut input = Input::default();
    loop {
        let Some(head) = input.head(&mut stream).await? else {
            return Ok(());
        };
        input.skip_body(&mut stream, &head).await?;
        let body = if head.text.starts_with("GET ") {
            taken.get().to_string()
        } else {
            taken.set(taken.get() + 1);
            "ok".to_owned()
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Bytes read from a connection and not used yet.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
}

/// The head of a message.
struct Head {
    text: String,
    length: Option<usize>,
    is_chunked: bool,
    closes: bool,
}

impl Input {
    /// The next head; `None` at the end of the connection.
    async fn head<S: AsyncReadExt + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> Result<Option<Head>, Error> {
        loop {
            if let Some(end) = find(&self.bytes, b"\r\n\r\n") {
                let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
                return Ok(Some(Head::new(String::from_utf8(head)?)));
            }
            if stream.read_buf(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn skip_body<S: AsyncReadExt + Unpin>(
        &mut self,
        stream: &mut S,
        head: &Head,
    ) -> Result<(), Error> {
        if head.is_chunked {
            return self.skip_chunks(stream).await;
        }
        let mut left = head.length.unwrap_or(0);
        loop {
            let here = left.min(self.bytes.len());
            self.bytes.drain(..here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.more(stream).await?;
        }
    }

    /// Our peers send neither trailers nor extensions.
    async fn skip_chunks<S: AsyncReadExt + Unpin>(&mut self, stream: &mut S) -> Result<(), Error> {
        loop {
            let Some(end) = find(&self.bytes, b"\r\n") else {
                self.more(stream).await?;
                continue;
            };
            let line = String::from_utf8(self.bytes.drain(..end + 2).collect())?;
            let size = usize::from_str_radix(line.trim(), 16)?;
            while self.bytes.len() < size + 2 {
                self.more(stream).await?;
            }
            self.bytes.drain(..size + 2);
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn more<S: AsyncReadExt + Unpin>(&mut self, stream: &mut S) -> Result<(), Error> {
        self.bytes.reserve(64 * 1024);
        match stream.read_buf(&mut self.bytes).await? {
            0 => Err("the connection ended within a message".into()),
            _ => Ok(()),
        }
    }
}

impl Head {
    fn new(text: String) -> Self {
        let mut head = Self {
            length: None,
            is_chunked: false,
            closes: false,
            text,
        };
        for line in head.text.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.parse().ok();
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.is_chunked = true;
            } else if name.eq_ignore_ascii_case("connection") {
                head.closes = value.eq_ignore_ascii_case("close");
            }
        }
        head
    }

    /// Of an answer.
    fn status(&self) -> Option<u16> {
        self.text.get(9..12)?.parse().ok()
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

// --- deliveries

/// Makes deliveries that differ from each other.
struct Deliveries {
    options: Options,
    next: Cell<u64>,
    /// Begins the body and its signature; a number and `"}` follow.
    prefix: Vec<u8>,
    mac: Hmac<Sha256>,
}

/// One delivery, as HTTP/1.1 and HTTP/2 both need it.
struct Delivery {
    path: String,
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Deliveries {
    fn new(options: Options) -> Self {
        let mut prefix = br#"{"text":""#.to_vec();
        let end = br#"","n":""#;
        prefix.resize(options.size.saturating_sub(18 + end.len()), b'x');
        prefix.extend_from_slice(end);
        let mut mac = Hmac::new_from_slice(options.secret.as_bytes()).expect("any key will do");
        mac.update(&prefix);
        if options.kind == Kind::Bad {
            mac.update(b"another");
        }
        // Apart from those of other runs, for the proxy may remember them.
        let started = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        let started = u64::from_str_radix(started.get(..8).unwrap_or("0"), 16).unwrap_or(0);
        Self {
            options,
            next: Cell::new(started << 32),
            prefix,
            mac,
        }
    }

    fn next(&self) -> Delivery {
        let number = self.next.get();
        self.next.set(number + 1);
        let rest = format!("{number:016x}\"}}");
        let mut body = Vec::with_capacity(self.options.size);
        body.extend_from_slice(&self.prefix);
        body.extend_from_slice(rest.as_bytes());
        let mut fields = vec![
            ("user-agent", "GitHub-Hookshot/bench".to_owned()),
            ("accept", "*/*".to_owned()),
            ("content-type", "application/json".to_owned()),
            ("x-github-event", "push".to_owned()),
            (
                "x-github-delivery",
                format!(
                    "00000000-0000-4000-{:04x}-{:012x}",
                    number >> 48,
                    number & 0xffff_ffff_ffff
                ),
            ),
        ];
        if self.options.kind != Kind::Unsigned {
            let mut mac = self.mac.clone();
            mac.update(rest.as_bytes());
            let signature = HEXLOWER.encode(&mac.finalize().into_bytes());
            fields.push(("x-hub-signature-256", format!("sha256={signature}")));
        }
        if self.options.clients > 0 {
            let [_, a, b, c] = u32::try_from(number % self.options.clients)
                .unwrap_or(0)
                .to_be_bytes();
            fields.push(("x-forwarded-for", Ipv4Addr::new(10, a, b, c).to_string()));
        }
        Delivery {
            path: format!(
                "/hooks/{}",
                self.options.route + number % self.options.routes
            ),
            fields,
            body,
        }
    }
}

impl Delivery {
    fn as_text(&self, out: &mut Vec<u8>) {
        out.clear();
        let length = self.body.len();
        write!(
            out,
            "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n",
            self.path
        )
        .expect("memory takes it");
        for (name, value) in &self.fields {
            write!(out, "{name}: {value}\r\n").expect("memory takes it");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
    }

    fn as_request(&self) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::post(format!("https://localhost{}", self.path));
        let headers: Result<HeaderMap, Error> = self
            .fields
            .iter()
            .map(|(name, value)| Ok((HeaderName::from_static(name), HeaderValue::from_str(value)?)))
            .collect();
        *request.headers_mut().ok_or("a bad path")? = headers?;
        Ok(request.body(Full::from(self.body.clone()))?)
    }
}

// --- connections

/// Opens connections: TLS 1.3, X25519, AES-128-GCM, never resumed.
struct Dialler {
    to: SocketAddr,
    tls: TlsConnector,
    addresses: usize,
    next: Cell<usize>,
}

impl Dialler {
    fn new(options: &Options) -> Result<Self, Error> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&options.ca)?)?;
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        if options.streams.is_some() {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(Self {
            to: options.to,
            tls: TlsConnector::from(Arc::new(config)),
            addresses: options.addresses.max(1),
            next: Cell::new(0),
        })
    }

    async fn dial(&self) -> Result<TlsStream<TcpStream>, Error> {
        let socket = TcpSocket::new_v4()?;
        if self.addresses > 1 {
            let number = u32::try_from(self.next.get() % self.addresses)?;
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number);
            socket.bind(SocketAddr::new(IpAddr::V4(address), 0))?;
        }
        self.next.set(self.next.get() + 1);
        let stream = socket.connect(self.to).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        Ok(self.tls.connect(name, stream).await?)
    }
}

/// A connection with HTTP/1.1.
struct Link {
    stream: TlsStream<TcpStream>,
    input: Input,
}

impl Link {
    async fn open(dialler: &Dialler) -> Result<Self, Error> {
        let stream = dialler.dial().await?;
        let input = Input::default();
        Ok(Self { stream, input })
    }

    /// Status of the answer, and whether the connection can be used again.
    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, bool), Error> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let head = self.input.head(&mut self.stream).await?;
        let head = head.ok_or("the connection ended without an answer")?;
        self.input.skip_body(&mut self.stream, &head).await?;
        Ok((head.status().ok_or("no status")?, !head.closes))
    }
}

// --- when requests are sent

/// Gives each request its turn.
struct Pace {
    /// From one request to the next; none in a closed loop.
    interval: Option<Duration>,
    /// When the first request was due.
    began: Cell<Instant>,
    /// Requests that are due, and how many were taken.
    due: Arc<Semaphore>,
    taken: Cell<u32>,
    /// How late this program itself was, with a sender that waited for the moment.
    late: RefCell<Vec<Duration>>,
    until: Cell<Option<Instant>>,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self {
            interval: rate.map(|rate| Duration::from_secs(1) / rate),
            began: Cell::new(Instant::now()),
            due: Arc::new(Semaphore::new(0)),
            taken: Cell::new(0),
            late: RefCell::default(),
            until: Cell::new(None),
        }
    }

    /// The moment that the next request is timed from; none after the end. When no sender was free at
    /// the moment that a request was due, it is in the past: whoever waits for a proxy that stalls is
    /// counted, not left out.
    async fn turn(&self) -> Option<Instant> {
        let moment = match self.interval {
            None => Instant::now(),
            Some(interval) => {
                let asked = Instant::now();
                self.due.acquire().await.ok()?.forget();
                let number = self.taken.replace(self.taken.get() + 1);
                let moment = self.began.get() + interval * number;
                if asked < moment {
                    self.late.borrow_mut().push(moment.elapsed());
                }
                moment
            }
        };
        let is_over = self.until.get().is_some_and(|until| moment >= until);
        (!is_over).then_some(moment)
    }

    /// Lets requests become due, by a timer of the kernel: tokio's goes by milliseconds.
    fn start(&self) -> Result<(), Error> {
        let Some(interval) = self.interval else {
            return Ok(());
        };
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let every: Timespec = interval.try_into()?;
        let times = Itimerspec {
            it_interval: every,
            it_value: every,
        };
        self.began.set(Instant::now() + interval);
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        let due = Arc::clone(&self.due);
        thread::spawn(move || {
            loop {
                let mut count = [0; 8];
                rustix::io::read(&timer, &mut count).expect("a timer can be read");
                let count = usize::try_from(u64::from_ne_bytes(count));
                due.add_permits(count.expect("requests fit"));
            }
        });
        Ok(())
    }

    /// What is due by now is still sent; wakes senders that wait for what is not.
    fn end(&self, senders: usize) -> Instant {
        let now = Instant::now();
        self.until.set(Some(now));
        self.due.add_permits(senders);
        now
    }
}

// --- what is counted

/// What the senders saw.
#[derive(Default)]
struct Seen {
    /// When the measured time began: requests of an earlier moment do not count.
    from: Cell<Option<Instant>>,
    latencies: RefCell<Vec<Duration>>,
    reconnects: Cell<u64>,
    /// An answer that was not expected, or a failure.
    wrong: RefCell<Option<String>>,
}

impl Seen {
    fn note(&self, status: u16, expected: u16, since: Instant) {
        if status != expected {
            self.fail(format!("status {status} instead of {expected}"));
        }
        if self.from.get().is_some_and(|from| since >= from) {
            self.latencies.borrow_mut().push(since.elapsed());
        }
    }

    fn fail(&self, what: String) {
        self.wrong.borrow_mut().get_or_insert(what);
    }
}

/// Time that the threads of these processes have run.
fn processor_time(pids: &[u32]) -> Result<u64, Error> {
    let mut sum = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between the two.
            let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            sum += text
                .split(' ')
                .next()
                .unwrap_or("0")
                .parse()
                .unwrap_or(0_u64);
        }
    }
    Ok(sum)
}

async fn send(options: Options) -> Result<(), Error> {
    let dialler = Rc::new(Dialler::new(&options)?);
    let seconds = Duration::from_secs_f64(options.seconds);
    let warm_up = Duration::from_secs_f64(options.warm_up);
    let pids = options.pids.clone();
    let runner = Runner {
        dialler,
        pace: Rc::new(Pace::new(options.rate)),
        deliveries: Rc::new(Deliveries::new(options)),
        seen: Rc::default(),
    };
    let senders = runner.start().await?;
    runner.pace.start()?;
    tokio::time::sleep(warm_up).await;
    let (before, started) = (processor_time(&pids)?, Instant::now());
    runner.seen.from.set(Some(started));
    tokio::time::sleep(seconds).await;
    let (took, after) = (
        runner.pace.end(senders.len()) - started,
        processor_time(&pids)?,
    );
    if tokio::time::timeout(PATIENCE, all(senders)).await.is_err() {
        runner.seen.fail(format!("no answer within {PATIENCE:?}"));
    }
    report(&runner.seen, &runner.pace, took, after - before)
}

async fn all(senders: Vec<JoinHandle<()>>) {
    for sender in senders {
        sender.await.expect("a sender does not panic");
    }
}

fn report(seen: &Seen, pace: &Pace, took: Duration, processor: u64) -> Result<(), Error> {
    let mut latencies = seen.latencies.take();
    latencies.sort_unstable();
    let mut late = pace.late.take();
    late.sort_unstable();
    let requests = latencies.len();
    let result = json!({
        "requests": requests,
        "seconds": took.as_secs_f64(),
        "processor_us": processor as f64 / 1000.0,
        "p50_us": percentile(&latencies, 50),
        "p99_us": percentile(&latencies, 99),
        "late_p99_us": percentile(&late, 99),
        "reconnects": seen.reconnects.get(),
        "wrong": *seen.wrong.borrow(),
    });
    println!("{result}");
    if requests == 0 {
        Err("no request was answered".into())
    } else {
        Ok(())
    }
}

fn percentile(sorted: &[Duration], part: usize) -> f64 {
    let found = sorted.get(sorted.len() * part / 100).or(sorted.last());
    found.map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// Opens so many connections, some at a time, and sends one delivery on each: none must wait for its first
/// longer than a proxy allows.
async fn open(
    dialler: &Rc<Dialler>,
    deliveries: &Rc<Deliveries>,
    count: usize,
) -> Result<Vec<Link>, Error> {
    let links = Rc::new(RefCell::new(Vec::with_capacity(count)));
    let openers = (0..count.min(OPENERS)).map(|opener| {
        let own = (opener..count).step_by(OPENERS).count();
        let (dialler, deliveries) = (Rc::clone(dialler), Rc::clone(deliveries));
        let links = Rc::clone(&links);
        tokio::task::spawn_local(async move {
            let mut request = Vec::new();
            for _ in 0..own {
                let mut link = Link::open(&dialler).await.map_err(|e| e.to_string())?;
                deliveries.next().as_text(&mut request);
                let answered = link.exchange(&request).await;
                let (status, usable) = answered.map_err(|e| e.to_string())?;
                if status != deliveries.options.expect {
                    return Err(format!("status {status}"));
                }
                if !usable {
                    link = Link::open(&dialler).await.map_err(|e| e.to_string())?;
                }
                links.borrow_mut().push(link);
            }
            Ok(())
        })
    });
    for opener in openers.collect::<Vec<_>>() {
        opener.await??;
    }
    Ok(links.take())
}

/// What all senders share.
#[derive(Clone)]
struct Runner {
    dialler: Rc<Dialler>,
    deliveries: Rc<Deliveries>,
    pace: Rc<Pace>,
    seen: Rc<Seen>,
}

impl Runner {
    /// Opens the connections and starts who sends on them.
    async fn start(&self) -> Result<Vec<JoinHandle<()>>, Error> {
        let options = &self.deliveries.options;
        let mut senders = Vec::new();
        if let Some(streams) = options.streams {
            for _ in 0..options.connections.max(1) {
                self.start_streams(streams, &mut senders).await?;
            }
            return Ok(senders);
        }
        let connections = if options.fresh {
            0
        } else {
            options.connections.max(1)
        };
        let mut links = open(&self.dialler, &self.deliveries, connections).await?;
        let share = links.len().div_ceil(options.at_once);
        for _ in 0..options.at_once {
            let own: Vec<Link> = links.split_off(links.len().saturating_sub(share));
            if options.fresh || !own.is_empty() {
                senders.push(tokio::task::spawn_local(self.clone().run(own)));
            }
        }
        Ok(senders)
    }

    /// One HTTP/2 connection with so many requests at once.
    async fn start_streams(
        &self,
        streams: usize,
        senders: &mut Vec<JoinHandle<()>>,
    ) -> Result<(), Error> {
        let io = TokioIo::new(self.dialler.dial().await?);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::task::spawn_local(connection);
        for _ in 0..streams {
            let (runner, sender) = (self.clone(), sender.clone());
            senders.push(tokio::task::spawn_local(async move {
                if let Err(error) = runner.stream(sender).await {
                    runner.seen.fail(error.to_string());
                }
            }));
        }
        Ok(())
    }

    async fn stream(&self, mut sender: SendRequest<Full<Bytes>>) -> Result<(), Error> {
        loop {
            let request = self.deliveries.next().as_request()?;
            let Some(since) = self.pace.turn().await else {
                return Ok(());
            };
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            response.into_body().collect().await?;
            self.seen
                .note(status, self.deliveries.options.expect, since);
        }
    }

    /// Takes turns among these connections; opens one for each request where there are none.
    async fn run(self, mut links: Vec<Link>) {
        let mut request = Vec::new();
        let mut turn = 0;
        loop {
            self.deliveries.next().as_text(&mut request);
            let Some(since) = self.pace.turn().await else {
                return;
            };
            let place = links.len().checked_sub(1).map(|last| turn % (last + 1));
            turn += 1;
            let exchanged = match place.and_then(|place| links.get_mut(place)) {
                Some(link) => link.exchange(&request).await,
                None => self.exchange_once(&request).await,
            };
            match exchanged {
                Ok((status, usable)) => {
                    self.seen
                        .note(status, self.deliveries.options.expect, since);
                    if let Some(link) = place.and_then(|place| links.get_mut(place))
                        && !usable
                        && !self.reopen(link).await
                    {
                        return;
                    }
                }
                Err(error) => return self.seen.fail(error.to_string()),
            }
        }
    }

    async fn exchange_once(&self, request: &[u8]) -> Result<(u16, bool), Error> {
        let mut link = Link::open(&self.dialler).await?;
        let answer = link.exchange(request).await?;
        link.stream.shutdown().await?;
        Ok(answer)
    }

    async fn reopen(&self, link: &mut Link) -> bool {
        self.seen.reconnects.set(self.seen.reconnects.get() + 1);
        match Link::open(&self.dialler).await {
            Ok(fresh) => {
                *link = fresh;
                true
            }
            Err(error) => {
                self.seen.fail(error.to_string());
                false
            }
        }
    }
}

/// Keeps connections open for who wants to weigh them.
async fn hold(options: Options) -> Result<(), Error> {
    let dialler = Rc::new(Dialler::new(&options)?);
    let count = options.connections;
    let links = open(&dialler, &Rc::new(Deliveries::new(options)), count).await?;
    println!("{}", links.len());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(())
}
