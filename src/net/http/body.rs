//! Bodies of requests on their way to the gateway.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::gateway::forward::BoxError;

/// The body of a request.
pub(super) enum RequestBody<'c> {
    /// What an HTTP/1.1 connection has behind the head.
    Http1(&'c mut dyn Source),
    Http2(Stream),
}

/// Bytes behind a head.
pub(super) trait Source: Send {
    /// The next part; `None` at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>>;

    /// Whether there is nothing more.
    fn has_ended(&self) -> bool;

    /// How many bytes are left, where that is known.
    fn length(&self) -> Option<u64>;
}

/// The body of an HTTP/2 stream, which is complete only if the client ended it. hyper takes a stream reset with
/// `NO_ERROR` for a normal end; only servers may do that (RFC 9113 8.1), so here it is a truncated body.
pub(super) struct Stream(Incoming);

impl RequestBody<'_> {
    pub(super) fn of_stream(body: Incoming) -> Self {
        Self::Http2(Stream(body))
    }
}

impl Body for RequestBody<'_> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Http1(source) => {
                let data = ready!(source.poll_data(cx));
                Poll::Ready(data.map(|data| data.map(Frame::data)))
            }
            Self::Http2(Stream(body)) => match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None if !body.is_end_stream() => {
                    Poll::Ready(Some(Err("the stream was reset".into())))
                }
                frame => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(source) => source.has_ended(),
            Self::Http2(Stream(body)) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(source) => source
                .length()
                .map(SizeHint::with_exact)
                .unwrap_or_default(),
            Self::Http2(Stream(body)) => body.size_hint(),
        }
    }
}
