//! Bodies on their way through hyper: of requests, and of answers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::watch::ServedRequest;
use crate::gateway::forward::BoxError;
use crate::gateway::respond::Answer;

/// A request body that is complete only if the client ended it. hyper takes a stream reset with `NO_ERROR` for a
/// normal end; only servers may do that (RFC 9113 8.1), so here it is a truncated body.
pub(super) struct RequestBody {
    body: Incoming,
    is_http2: bool,
    /// Kept here because hyper does not say it of a chunked body.
    has_ended: bool,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, is_http2: bool) -> Self {
        Self {
            body,
            is_http2,
            has_ended: false,
        }
    }
}

impl Body for RequestBody {
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

/// The body of an answer. It tells the watch when hyper asks for more, which means that the client has read, and when
/// it ends.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Answer,
    served: ServedRequest,
    /// The error of the app's body, held back for one turn: hyper would drop the head that it has not written yet.
    broken: Option<BoxError>,
}

impl AnswerBody {
    pub(super) fn new(body: Answer, served: ServedRequest) -> Self {
        served.hands_over();
        Self {
            body,
            served,
            broken: None,
        }
    }
}

impl Body for AnswerBody {
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
            Poll::Ready(Some(Ok(_))) => self.served.hands_over(),
            Poll::Ready(None | Some(Err(_))) | Poll::Pending => self.served.is_taken(),
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
