//! Bodies of answers on their way through hyper.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::gateway::forward::BoxError;
use crate::gateway::respond::Answer;
use crate::net::http::watch::ServedRequest;

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
