//! The app behind: records every request byte for byte and answers, or misbehaves, as told.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::authority::{Authority, Identity};
use super::eventually;

/// A recording upstream on a free port or a unix socket.
#[derive(Clone)]
pub struct App {
    address: Option<SocketAddr>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    script: Mutex<Vec<Reply>>,
    gate: (Mutex<bool>, Condvar),
    connections: AtomicUsize,
    raw: Mutex<Vec<u8>>,
    mirrors: AtomicBool,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line and header lines, without the empty line.
    pub head: String,
    /// Body bytes.
    pub body: Vec<u8>,
}

impl Seen {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    /// The request's target as the app got it.
    pub fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap()
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        let header = |line: &'_ str| -> Option<(usize, usize)> {
            let colon = line.find(':')?;
            line[..colon]
                .eq_ignore_ascii_case(name)
                .then_some((colon + 1, line.len()))
        };
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| header(line).map(|(from, to)| line[from..to].trim()))
            .collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).first().copied()
    }

    /// Asserts that none of these headers came.
    pub fn lacks(&self, names: &[&str]) {
        for name in names {
            assert!(
                self.headers(name).is_empty(),
                "`{name}` reached the app:\n{}",
                self.head
            );
        }
    }
}

/// What the app does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Writes these bytes and keeps the connection.
    Raw(Vec<u8>),
    /// Writes these bytes and closes.
    RawThenClose(Vec<u8>),
    /// Writes these bytes and resets the connection.
    RawThenReset(Vec<u8>),
    /// Writes these bytes and then nothing more, with the connection open.
    RawThenSilence(Vec<u8>),
    /// As `Raw`, once [`App::open_gate`] is called.
    AfterGate(Vec<u8>),
    /// Writes the first bytes, and the second once [`App::open_gate`] is called.
    AroundGate(Vec<u8>, Vec<u8>),
    /// Never answers.
    Silence,
}

impl Reply {
    /// A plain answer.
    pub fn status(status: u16) -> Self {
        Self::Raw(format!("HTTP/1.1 {status} Status\r\nContent-Length: 2\r\n\r\nok").into_bytes())
    }

    fn mirror(seen: &Seen) -> Self {
        let body = [seen.target().as_bytes(), b" ", &seen.body].concat();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        Self::Raw([head.as_bytes(), &body].concat())
    }

    /// These bytes.
    pub fn raw(text: &str) -> Self {
        Self::Raw(text.as_bytes().to_vec())
    }
}

/// A socket that the app serves.
trait Socket: Read + Write + Send {
    /// Makes the next close a reset.
    fn arm_reset(&self);
}

impl Socket for TcpStream {
    fn arm_reset(&self) {
        socket2::SockRef::from(self)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

impl Socket for UnixStream {
    fn arm_reset(&self) {}
}

impl Socket for StreamOwned<ServerConnection, TcpStream> {
    fn arm_reset(&self) {
        self.sock.arm_reset();
    }
}

impl App {
    /// Starts an app that answers 200.
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn on(listener: TcpListener) -> Self {
        let app = Self {
            address: Some(listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        let state = Arc::clone(&app.state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                serve_in_thread(Ok(stream), &state);
            }
        });
        app
    }

    /// An app behind a unix socket.
    pub fn on_unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let app = Self {
            address: None,
            state: Arc::default(),
        };
        let state = Arc::clone(&app.state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                serve_in_thread(Ok(stream), &state);
            }
        });
        app
    }

    /// An app behind TLS that asks for a client certificate of `clients`, when given.
    pub fn on_tls(identity: &Identity, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let pem = authority.pem();
                let der = rustls_der(&pem);
                roots.add(der).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let (chain, key) = identity.for_client();
        let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self {
            address: Some(listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        let state = Arc::clone(&app.state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                serve_in_thread(Ok(StreamOwned::new(connection, stream)), &state);
            }
        });
        app
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    /// The next replies, in order; afterwards 200 again.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state.script.lock().unwrap().extend(replies);
    }

    /// From now on answers with target and body of the request, where nothing is scripted.
    pub fn mirror(&self) {
        self.state.mirrors.store(true, Ordering::SeqCst);
    }

    /// Lets every reply go that waits, and those to come.
    pub fn open_gate(&self) {
        *self.state.gate.0.lock().unwrap() = true;
        self.state.gate.1.notify_all();
    }

    pub fn close_gate(&self) {
        *self.state.gate.0.lock().unwrap() = false;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.state.seen.lock().unwrap().len()
    }

    /// Connections that were ever opened.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Every byte that ever came.
    pub fn raw(&self) -> Vec<u8> {
        self.state.raw.lock().unwrap().clone()
    }

    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        eventually("requests at the app", || {
            (self.count() >= count).then(|| self.seen())
        })
    }

    /// The last request; the gateway has answered, so it is here.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the app saw a request")
    }

    /// Asserts that nothing at all reached the app.
    pub fn saw_nothing(&self) {
        assert!(
            self.seen().is_empty() && self.raw().is_empty(),
            "{:?}",
            self.seen()
        );
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

fn rustls_der(pem: &str) -> rustls::pki_types::CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn serve_in_thread<S: Socket + 'static>(stream: io::Result<S>, state: &Arc<State>) {
    let Ok(stream) = stream else { return };
    state.connections.fetch_add(1, Ordering::SeqCst);
    let state = Arc::clone(state);
    thread::spawn(move || serve(stream, &state));
}

fn serve(mut stream: impl Socket, state: &State) {
    let mut buffer = Vec::new();
    while let Some(seen) = request(&mut stream, &mut buffer, state) {
        // Recorded and scripted as one, so that concurrent requests take replies in their order.
        let reply = {
            let mut seen_so_far = state.seen.lock().unwrap();
            let unscripted = if state.mirrors.load(Ordering::SeqCst) {
                Reply::mirror(&seen)
            } else {
                Reply::status(200)
            };
            seen_so_far.push(seen);
            let mut script = state.script.lock().unwrap();
            if script.is_empty() {
                unscripted
            } else {
                script.remove(0)
            }
        };
        match reply {
            Reply::Raw(bytes) => drop(write(&mut stream, &bytes)),
            Reply::RawThenClose(bytes) => return drop(write(&mut stream, &bytes)),
            Reply::RawThenReset(bytes) => {
                drop(write(&mut stream, &bytes));
                return stream.arm_reset();
            }
            Reply::RawThenSilence(bytes) => {
                drop(write(&mut stream, &bytes));
                return drop(stream.read(&mut [0; 1]));
            }
            Reply::AfterGate(bytes) => {
                state.wait_for_gate();
                drop(write(&mut stream, &bytes));
            }
            Reply::AroundGate(first, second) => {
                drop(write(&mut stream, &first));
                state.wait_for_gate();
                drop(write(&mut stream, &second));
            }
            Reply::Silence => return drop(stream.read(&mut [0; 1])),
        }
    }
}

fn write(stream: &mut impl Socket, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

impl State {
    fn wait_for_gate(&self) {
        let open = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(open, |open| !*open).unwrap());
    }
}

fn request(stream: &mut impl Socket, buffer: &mut Vec<u8>, state: &State) -> Option<Seen> {
    let mut fill = |buffer: &mut Vec<u8>| {
        let mut bytes = [0; 16 * 1024];
        let n = stream.read(&mut bytes).ok().filter(|n| *n > 0)?;
        state.raw.lock().unwrap().extend_from_slice(&bytes[..n]);
        buffer.extend_from_slice(&bytes[..n]);
        Some(())
    };
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|run| run == b"\r\n\r\n") {
            break end;
        }
        fill(buffer)?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap());
    while buffer.len() < length {
        fill(buffer)?;
    }
    Some(Seen {
        head,
        body: buffer.drain(..length).collect(),
    })
}
