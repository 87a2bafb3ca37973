//! Bodies on their way through hyper: of requests, and of answers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::watch::Exchange;
use crate::gateway::forward::BoxError;
use crate::gateway::respond::Answer;

/// A request's body, which ends where its sender ended it. hyper takes a stream that was reset with `NO_ERROR` for
/// one that came to its end; RFC 9113 8.1 has only servers do that, and of a request it is the half.
pub(super) struct Whole {
    body: Incoming,
    is_http2: bool,
    /// Of a chunked body, hyper does not say by itself that it has.
    has_ended: bool,
}

impl Whole {
    pub(super) fn new(body: Incoming, is_http2: bool) -> Self {
        Self {
            body,
            is_http2,
            has_ended: false,
        }
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None if self.is_http2 && !self.body.is_end_stream() => {
                Poll::Ready(Some(Err("the stream was reset".into())))
            }
            frame => {
                self.has_ended |= frame.is_none();
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that tells the watch when it is asked for more, and when it is done with. hyper
/// asks when it has room, which it gets when the client reads.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Answer,
    exchange: Exchange,
    /// Why the app's answer ends here. hyper hears of it one turn later: it gives up all at once, and the head that it
    /// has not yet written with it.
    broken: Option<BoxError>,
}

impl Tracked {
    pub(super) fn new(body: Answer, exchange: Exchange) -> Self {
        exchange.hands_over();
        Self {
            body,
            exchange,
            broken: None,
        }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => self.exchange.hands_over(),
            Poll::Ready(None | Some(Err(_))) | Poll::Pending => self.exchange.is_taken(),
        }
        if let Poll::Ready(Some(Err(error))) = polled {
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
