//! The app behind: records every request byte for byte and answers as told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::eventually;

/// A recording upstream on a free port.
#[derive(Clone)]
pub struct App {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    script: Mutex<Vec<Reply>>,
    gate: (Mutex<bool>, Condvar),
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
}

/// What the app does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Writes these bytes and keeps the connection.
    Raw(Vec<u8>),
    /// Writes these bytes and closes.
    RawThenClose(Vec<u8>),
    /// As `Raw`, once [`App::open_gate`] is called.
    AfterGate(Vec<u8>),
    /// Never answers.
    Silence,
}

impl Reply {
    /// A plain answer.
    pub fn status(status: u16) -> Self {
        Self::Raw(format!("HTTP/1.1 {status} Status\r\nContent-Length: 2\r\n\r\nok").into_bytes())
    }
}

impl App {
    /// Starts an app that answers 200.
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn on(listener: TcpListener) -> Self {
        let app = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        let state = Arc::clone(&app.state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(stream, &state));
            }
        });
        app
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next replies, in order; afterwards 200 again.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state.script.lock().unwrap().extend(replies);
    }

    pub fn open_gate(&self) {
        *self.state.gate.0.lock().unwrap() = true;
        self.state.gate.1.notify_all();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.state.seen.lock().unwrap().len()
    }

    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        eventually("requests at the app", || {
            (self.count() >= count).then(|| self.seen())
        })
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the app saw a request")
    }
}

fn serve(mut stream: TcpStream, state: &State) {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut buffer = Vec::new();
    while let Some(seen) = request(&mut stream, &mut buffer) {
        state.seen.lock().unwrap().push(seen);
        let reply = {
            let mut script = state.script.lock().unwrap();
            if script.is_empty() {
                Reply::status(200)
            } else {
                script.remove(0)
            }
        };
        match reply {
            Reply::Raw(bytes) => drop(stream.write_all(&bytes)),
            Reply::RawThenClose(bytes) => {
                drop(stream.write_all(&bytes));
                return;
            }
            Reply::AfterGate(bytes) => {
                let open = state.gate.0.lock().unwrap();
                drop(state.gate.1.wait_while(open, |open| !*open).unwrap());
                drop(stream.write_all(&bytes));
            }
            Reply::Silence => {
                drop(stream.read(&mut [0; 1]));
                return;
            }
        }
    }
}

fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let mut fill = |buffer: &mut Vec<u8>| {
        let mut bytes = [0; 16 * 1024];
        let n = stream.read(&mut bytes).ok().filter(|n| *n > 0)?;
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
