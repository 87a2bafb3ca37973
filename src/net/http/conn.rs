//! An HTTP/1.1 connection, in hyper's hands or out of them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::AnswerBody;
use super::io::{Watched, is_blank};
use super::watch::Call;

/// An HTTP/1.1 connection. While it waits for its next request it is taken from hyper, which holds two buffers of 8
/// KiB or more, because most connections of a gateway wait.
pub(super) enum Conn<I, S>
where
    S: Service<Request<Incoming>, Response = Response<AnswerBody>, Error = Infallible>,
{
    /// hyper has it. Boxed, so that waiting connections are small.
    Speaking(Box<http1::Connection<TokioIo<Watched<I>>, S>>),
    /// It waits for its next request.
    Resting(Watched<I>, S),
    Over,
}

impl<I, S> Conn<I, S>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<AnswerBody>, Error = Infallible>,
    S::Future: Send + Unpin + 'static,
    S: Unpin,
{
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut call: Call,
        builder: &http1::Builder,
    ) -> Poll<hyper::Result<()>> {
        loop {
            match self {
                Self::Speaking(conn) => {
                    let polled = conn.poll_without_shutdown(cx);
                    if polled.is_ready() || call != Call::Rest {
                        return polled;
                    }
                    self.rest();
                    call = Call::Go;
                }
                Self::Resting(io, _) => {
                    if !ready!(io.poll_early(cx)) {
                        return Poll::Ready(Ok(()));
                    }
                    if let Self::Resting(io, service) = std::mem::replace(self, Self::Over) {
                        let conn = builder.serve_connection(TokioIo::new(io), service);
                        *self = Self::Speaking(Box::new(conn));
                    }
                }
                Self::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Ends the connection after the request that is under way, if there is one.
    pub(super) fn leave(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match self {
            Self::Speaking(conn) => {
                Pin::new(&mut **conn).graceful_shutdown();
                conn.poll_without_shutdown(cx)
            }
            Self::Resting(..) | Self::Over => Poll::Ready(Ok(())),
        }
    }

    /// Takes the connection from hyper, which has nothing left to write.
    fn rest(&mut self) {
        match std::mem::replace(self, Self::Over) {
            Self::Speaking(conn) => {
                let parts = conn.into_parts();
                let mut io = parts.io.into_inner();
                // The beginning of a head that came with the last request: hyper gets it back at once. An empty one
                // is not kept, because it would hold the whole buffer.
                if !is_blank(&parts.read_buf) {
                    io.early = parts.read_buf;
                    io.watch.woken();
                }
                *self = Self::Resting(io, parts.service);
            }
            other => *self = other,
        }
    }

    pub(super) fn into_io(self) -> Option<I> {
        match self {
            Self::Speaking(conn) => Some(conn.into_parts().io.into_inner().io),
            Self::Resting(io, _) => Some(io.io),
            Self::Over => None,
        }
    }
}
