//! HTTP/1.1 towards an app: one connection, driven by the request that uses it.
//!
//! hyper's client runs every connection in a task of its own and talks to it over channels. A gateway
//! waits for the answer anyway, so here the request's own task writes and reads; that is most of what
//! forwarding costs. httparse reads the syntax; the framing is RFC 9112 section 6, and an answer that
//! leaves it in doubt is refused or ends its connection (SECURITY U-07, U-11 to U-14).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, Response, StatusCode};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::Rest;
use super::head::{answer_head, framing};
use super::sending::Sending;
use super::stream::{Pending, Stream};
use crate::clock;
use crate::gateway::forward::UpstreamError;
use crate::gateway::outgoing::Outgoing;
use crate::net::ready::after_ready_tasks;

/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long an app that has answered may take nothing more of the request. After that it is taken not to want the
/// rest.
const STALL_MAX: Duration = Duration::from_secs(5);
/// Bytes that a read has room for.
const READ_BYTES: usize = 8 * 1024;

/// A connection to a server.
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// Bytes that were read and not yet used.
    pub(super) input: BytesMut,
    /// Whether a request has been sent over it before.
    is_used: bool,
    /// Whether a byte has come since the last request was sent.
    has_heard: bool,
    pub(super) born: Instant,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// The connection closed before a write succeeded: the request can be sent again. Over TLS, records of the failed
    /// write may have left, but never the last one: the server has no whole request.
    NotTaken,
    /// A connection that was used before closed without a byte of an answer: the app may have given it up just then.
    Lost(UpstreamError),
    /// The head of the answer did not come in time.
    Late,
    Gone(UpstreamError),
}

/// The head of an answer, and its connection, which holds the rest.
pub(super) struct Answered {
    pub(super) head: Response<()>,
    pub(super) rest: Rest,
    /// Whether all of the request was sent.
    pub(super) is_sent: bool,
}

pub(super) fn aborted(why: &impl ToString) -> UpstreamError {
    UpstreamError::Aborted(why.to_string())
}

pub(super) fn invalid(why: &impl ToString) -> UpstreamError {
    UpstreamError::Invalid(why.to_string())
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            is_used: false,
            has_heard: false,
            born: clock::now(),
        }
    }

    /// Whether the server has closed an idle connection, or sent something that nobody asked for, as far as tokio knows,
    /// or also the kernel, which takes a system call to ask.
    async fn is_stale(&mut self, asks_kernel: bool) -> bool {
        if self.has_input().await {
            return true;
        }
        if !asks_kernel {
            return false;
        }
        match self.stream.pending() {
            Pending::Nothing => false,
            Pending::End => true,
            Pending::Bytes if !matches!(self.stream, Stream::Tls(_)) => true,
            // TLS may hold bytes back, and what came may be for itself, like a session ticket.
            Pending::Bytes => {
                // A read has them once tokio has asked the kernel.
                yield_now().await;
                self.has_input().await || self.stream.pending() != Pending::Nothing
            }
        }
    }

    /// Whether a read would find something, or the end.
    async fn has_input(&mut self) -> bool {
        poll_fn(|cx| {
            let mut byte = [0];
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
            Poll::Ready(read.is_ready())
        })
        .await
    }

    /// Sends a request and reads the head of its answer, for which it waits `wait`. After a 2xx that came before the
    /// app had taken the whole request, it sends the rest for as long as the app takes more. `asks_kernel` is for apps
    /// that close kept connections without a word.
    pub(super) async fn exchange(
        mut self,
        request: &mut Outgoing,
        wait: Duration,
        asks_kernel: bool,
    ) -> Result<Answered, Failure> {
        let deadline = clock::now() + wait;
        after_ready_tasks().await;
        let is_kept = std::mem::replace(&mut self.is_used, true);
        if is_kept && self.is_stale(asks_kernel).await {
            return Err(Failure::NotTaken);
        }
        self.has_heard = false;
        let Outgoing {
            method,
            head,
            body,
            spare,
            ..
        } = request;
        let mut sending = Sending::new(head.bytes(), body.frames());
        let mut broken = None;
        let answer = poll_fn(|cx| {
            if broken.is_none() {
                match sending.poll(cx, &mut self.stream) {
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                    Poll::Ready(Err(_)) if !sending.has_begun() => {
                        return Poll::Ready(Err(Failure::NotTaken));
                    }
                    // An app that refuses a request may answer before it has read all of it, and close.
                    Poll::Ready(Err(error)) => broken = Some(error),
                }
            }
            let answered = self.poll_head(cx, broken.as_ref(), spare);
            Poll::Ready(ready!(answered).map_err(|error| match error {
                UpstreamError::Aborted(_) if is_kept && !self.has_heard => Failure::Lost(error),
                error => Failure::Gone(error),
            }))
        });
        let answer = timeout_at(deadline, answer).await;
        let mut answer = answer.unwrap_or(Err(Failure::Late))?;
        let framed = framing(&mut answer, method).map_err(Failure::Gone)?;
        let (framing, is_persistent) = framed;
        let mut is_sent = broken.is_none() && sending.is_done();
        // After a refusal the rest need not be sent. After a 2xx it must be: the app has the delivery only with its
        // whole body.
        if !is_sent && broken.is_none() && answer.status().is_success() {
            // Shorter than the wait for an answer, because the app has given one.
            let stall_max = STALL_MAX.min(wait / 2);
            is_sent = self.send_on(&mut sending, body.len(), stall_max).await;
        }
        let is_left = broken.is_none() && !is_sent;
        Ok(Answered {
            head: answer,
            rest: Rest {
                connection: self,
                framing,
                is_reusable: is_sent && is_persistent,
                unsent: is_left.then(|| sending.left()),
            },
            is_sent,
        })
    }

    /// Sends the rest of the body after the app has answered; `true` if all of it was taken. Input is buffered
    /// meanwhile, up to the body's size, because the app may wait for us to read.
    async fn send_on(
        &mut self,
        sending: &mut Sending<'_>,
        body_bytes: usize,
        stall_max: Duration,
    ) -> bool {
        let input_max = body_bytes.max(HEAD_BYTES_MAX);
        let mut has_ended = false;
        let mut patience = pin!(sleep(stall_max));
        poll_fn(|cx| {
            let before = sending.taken;
            match sending.poll(cx, &mut self.stream) {
                Poll::Ready(sent) => return Poll::Ready(sent.is_ok()),
                Poll::Pending if sending.taken > before => {
                    patience.as_mut().reset(clock::now() + stall_max);
                }
                Poll::Pending => {}
            }
            while !has_ended && self.input.len() < input_max {
                match self.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    // The app has closed its side only: it may still read.
                    Poll::Ready(Ok(0)) => has_ended = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => break,
                }
            }
            patience.as_mut().poll(cx).map(|()| false)
        })
        .await
    }

    /// Reads the head of the final answer; interim ones are skipped (RFC 9110 15.2).
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        broken: Option<&io::Error>,
        spare: &mut HeaderMap,
    ) -> Poll<Result<Response<()>, UpstreamError>> {
        loop {
            if let Some(head) = answer_head(&mut self.input, spare)? {
                match head.status() {
                    StatusCode::SWITCHING_PROTOCOLS => {
                        return Poll::Ready(Err(invalid(&"101 to a request that asked for none")));
                    }
                    status if status.is_informational() => continue,
                    _ => return Poll::Ready(Ok(head)),
                }
            }
            if self.input.len() >= HEAD_BYTES_MAX {
                return Poll::Ready(Err(invalid(&"its head is longer than 64 KiB")));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => {
                    let why = broken.map_or_else(
                        || "it closed before its answer was complete".to_owned(),
                        ToString::to_string,
                    );
                    return Poll::Ready(Err(aborted(&why)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(aborted(broken.unwrap_or(&error)))),
            }
        }
    }

    /// Reads what has come; 0 at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(READ_BYTES);
        let stream = Pin::new(&mut self.stream);
        let read = tokio_util::io::poll_read_buf(stream, cx, &mut self.input);
        self.has_heard |= matches!(read, Poll::Ready(Ok(1..)));
        read
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};
    use tokio_rustls::server::TlsStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::net::tls::provider;
    use crate::net::upstream::tls::LazyTls;
    use crate::settings::UpstreamTls;

    #[tokio::test]
    async fn what_the_kernel_alone_knows_makes_a_connection_stale() {
        // SECURITY U-09, U-14
        for sent in ["", "x"] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut connection = Connection::new(Stream::Unix(ours));
            assert!(!connection.is_stale(true).await);
            // From here on tokio does not ask the kernel for events.
            let mut theirs = theirs.into_std().unwrap();
            io::Write::write_all(&mut theirs, sent.as_bytes()).unwrap();
            if sent.is_empty() {
                drop(theirs);
            }
            assert!(connection.is_stale(true).await, "{sent:?}");
        }
    }

    /// A connection over TLS, and its other end.
    async fn over_tls() -> (Connection, TlsStream<TcpStream>) {
        let made = rcgen::generate_simple_self_signed(["app".to_owned()]).unwrap();
        let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key)
            .unwrap();
        let settings = UpstreamTls {
            ca: Some(chain),
            ..UpstreamTls::default()
        };
        let client = LazyTls::default().get(&settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap());
        let (stream, accepted) = tokio::join!(stream, listener.accept());
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::from(client);
        let name = ServerName::try_from("app").unwrap();
        let (ours, theirs) = tokio::join!(
            connector.connect(name, stream.unwrap()),
            acceptor.accept(accepted.unwrap().0)
        );
        let connection = Connection::new(Stream::Tls(Box::new(ours.unwrap())));
        (connection, theirs.unwrap())
    }

    #[tokio::test]
    async fn what_tls_says_for_itself_leaves_a_connection_good() {
        // SECURITY U-09
        let (mut connection, mut theirs) = over_tls().await;
        // Its session tickets.
        assert!(!connection.is_stale(true).await);
        let (_, keys) = theirs.get_mut();
        keys.refresh_traffic_keys().unwrap();
        theirs.flush().await.unwrap();
        assert!(!connection.is_stale(true).await);
        // It still works, both ways.
        connection.stream.write_all(b"ask").await.unwrap();
        let mut asked = [0; 3];
        theirs.read_exact(&mut asked).await.unwrap();
        theirs.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        connection.stream.read_exact(&mut answer).await.unwrap();
        assert_eq!((&asked, &answer), (b"ask", b"answer"));
        assert!(!connection.is_stale(true).await);
    }

    #[tokio::test]
    async fn what_the_server_says_or_its_end_makes_a_connection_over_tls_stale() {
        // SECURITY U-09, U-14
        let (mut connection, mut theirs) = over_tls().await;
        theirs.write_all(b"x").await.unwrap();
        becomes_stale(&mut connection).await;
        let (mut connection, mut theirs) = over_tls().await;
        assert!(!connection.is_stale(true).await);
        theirs.shutdown().await.unwrap();
        becomes_stale(&mut connection).await;
        let (mut connection, theirs) = over_tls().await;
        assert!(!connection.is_stale(true).await);
        drop(theirs);
        becomes_stale(&mut connection).await;
    }

    /// What was sent may be on its way for a moment.
    async fn becomes_stale(connection: &mut Connection) {
        let end = Instant::now() + Duration::from_secs(5);
        while !connection.is_stale(true).await {
            assert!(Instant::now() < end, "it looks good for ever");
            sleep(Duration::from_millis(1)).await;
        }
    }
}
