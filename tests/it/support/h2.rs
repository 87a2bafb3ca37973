//! HTTP/2: a well-behaved client on hyper, and one that writes frames by hand.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;

use super::{Answer, Tls, Wire};

/// A client that keeps the rules.
pub struct H2 {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl H2 {
    /// Connects with ALPN `h2` and SNI `localhost`.
    pub fn connect(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let connector =
                tokio_rustls::TlsConnector::from(super::wire::any_certificate(&[b"h2"]));
            let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (sender, connection) =
                hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                    .handshake(TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            sender
        });
        Self {
            runtime,
            sender,
            authority: "localhost".to_owned(),
        }
    }

    /// One request and its answer.
    pub fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.all(&[(method, path, headers, body)]).remove(0)
    }

    /// One POST, unless the connection has said that it ends: then nothing was sent, and a client opens
    /// another one.
    pub fn post_unless_gone(&mut self, path: &str, body: &[u8]) -> Option<Answer> {
        let request = hyper::Request::post(format!("https://{}{path}", self.authority));
        let body = Full::new(Bytes::copy_from_slice(body));
        let (request, sender) = (request.body(body).unwrap(), &mut self.sender);
        self.runtime.block_on(async {
            sender.ready().await.ok()?;
            match sender.send_request(request).await {
                Ok(response) => Some(answer(response).await),
                Err(error) if error.is_canceled() => None,
                Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
            }
        })
    }

    /// Requests at the same time, and their answers in the same order.
    pub fn all(&mut self, requests: &[Request<'_>]) -> Vec<Answer> {
        let Self {
            runtime,
            sender,
            authority,
        } = self;
        runtime.block_on(async {
            let exchanges = requests.iter().map(|(method, path, headers, body)| {
                let mut request = hyper::Request::builder()
                    .method(*method)
                    .uri(format!("https://{authority}{path}"));
                for (name, value) in *headers {
                    request = request.header(*name, *value);
                }
                let request = request
                    .body(Full::new(Bytes::copy_from_slice(body)))
                    .unwrap();
                let mut sender = sender.clone();
                async move {
                    sender.ready().await.unwrap();
                    answer(sender.send_request(request).await.unwrap()).await
                }
            });
            futures_util::future::join_all(exchanges).await
        })
    }
}

/// Method, path, headers and body.
pub type Request<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8]);

async fn answer(response: hyper::Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers.iter().map(header).collect(),
        body: body.collect().await.unwrap().to_bytes().to_vec(),
    }
}

/// A client that writes what it likes.
pub struct RawH2(Wire);

/// One frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamEnd {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const ACK: u8 = 1;

impl RawH2 {
    /// Connects, says the preface and empty settings.
    pub fn open(address: SocketAddr) -> Self {
        let mut raw = Self::silent(address);
        raw.0.send(PREFACE);
        raw.frame(SETTINGS, 0, 0, &[]);
        raw
    }

    /// Connects with ALPN `h2`, and says nothing.
    pub fn silent(address: SocketAddr) -> Self {
        let wire = Tls {
            alpn: &[b"h2"],
            ..Tls::default()
        };
        Self(wire.connect(address).unwrap())
    }

    /// Sends any bytes.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.send(bytes);
        self
    }

    /// Ends our side of the TCP connection.
    pub fn end(&mut self) {
        self.0.end();
    }

    /// Everything until the connection ends, as bytes.
    pub fn rest(&mut self) -> Vec<u8> {
        self.0.rest()
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        self.0.send(&frame(kind, flags, stream, payload));
        self
    }

    /// A header block of literals, complete in one frame.
    pub fn headers(&mut self, stream: u32, flags: u8, fields: &[(&str, &[u8])]) -> &mut Self {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            push_text(&mut block, name.as_bytes());
            push_text(&mut block, value);
        }
        self.frame(HEADERS, END_HEADERS | flags, stream, &block)
    }

    /// A POST of this path with more fields, and this body.
    pub fn post(
        &mut self,
        stream: u32,
        path: &[u8],
        more: &[(&str, &[u8])],
        body: &[u8],
    ) -> &mut Self {
        let mut fields: Vec<(&str, &[u8])> = vec![
            (":method", b"POST"),
            (":scheme", b"https"),
            (":authority", b"localhost"),
            (":path", path),
        ];
        fields.extend_from_slice(more);
        self.headers(stream, 0, &fields);
        self.frame(DATA, END_STREAM, stream, body)
    }

    /// The next frame; `None` when the connection ended. Settings and pings are answered.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            let head = self.0.take(9)?;
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            let frame = Frame {
                kind: head[3],
                flags: head[4],
                stream,
                payload: self.0.take(length)?,
            };
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => drop(self.frame(SETTINGS, ACK, 0, &[])),
                (PING, 0) => {
                    let payload = frame.payload.clone();
                    self.frame(PING, ACK, 0, &payload);
                }
                _ => return Some(frame),
            }
        }
    }

    /// The next error, of whatever stream; answers are passed over.
    pub fn error(&mut self) -> StreamEnd {
        loop {
            let Some(frame) = self.next() else {
                return StreamEnd::Closed;
            };
            let number =
                |from: usize| u32::from_be_bytes(frame.payload[from..from + 4].try_into().unwrap());
            match frame.kind {
                RST_STREAM => return StreamEnd::Reset(number(0)),
                GOAWAY => return StreamEnd::GoAway(number(4)),
                _ => {}
            }
        }
    }

    /// Whether this stream is answered, with whatever status.
    pub fn is_answered(&mut self, stream: u32) -> bool {
        while let Some(frame) = self.next() {
            if frame.stream == stream {
                return frame.kind == HEADERS;
            }
        }
        false
    }

    /// How this stream ends: the status of its answer, a reset, or the end of the connection.
    pub fn end_of(&mut self, stream: u32) -> StreamEnd {
        loop {
            let Some(frame) = self.next() else {
                return StreamEnd::Closed;
            };
            let number =
                |from: usize| u32::from_be_bytes(frame.payload[from..from + 4].try_into().unwrap());
            match frame.kind {
                HEADERS if frame.stream == stream => {
                    return StreamEnd::Status(status(&frame.payload));
                }
                RST_STREAM if frame.stream == stream => return StreamEnd::Reset(number(0)),
                GOAWAY => return StreamEnd::GoAway(number(4)),
                _ => {}
            }
        }
    }
}

/// A frame as bytes (RFC 9113 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// RFC 7541 5.2, without Huffman.
fn push_text(block: &mut Vec<u8>, text: &[u8]) {
    let length = u32::try_from(text.len()).unwrap();
    if length < 127 {
        block.push(length.to_le_bytes()[0]);
    } else {
        block.push(127);
        let mut rest = length - 127;
        while rest >= 128 {
            block.push((rest % 128 + 128).to_le_bytes()[0]);
            rest /= 128;
        }
        block.push(rest.to_le_bytes()[0]);
    }
    block.extend_from_slice(text);
}

/// `:status` of a header block that begins with it: indexed (RFC 7541 appendix A), or a literal of
/// three digits under its index.
fn status(block: &[u8]) -> u16 {
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        0x08 | 0x18 | 0x48 => {
            let length = usize::from(block[1] & 0x7f);
            let text = &block[2..2 + length];
            if block[1] & 0x80 == 0 {
                std::str::from_utf8(text).unwrap().parse().unwrap()
            } else {
                digits(text)
            }
        }
        other => panic!("no status begins with {other:#x}"),
    }
}

/// Huffman-coded digits (RFC 7541 appendix B): `0` to `2` have five bits, the others six.
fn digits(coded: &[u8]) -> u16 {
    let bits = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut bits = bits.collect::<Vec<_>>().into_iter();
    let mut number = 0;
    for _ in 0..3 {
        let mut digit = bits.by_ref().take(5).fold(0, |code, bit| code << 1 | bit);
        if digit > 2 {
            digit = (digit << 1 | bits.next().unwrap()) - 0b01_1001 + 3;
        }
        number = number * 10 + digit;
    }
    number
}
