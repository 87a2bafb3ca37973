//! HTTP/1.1 towards senders: one connection, one request after the other.
//!
//! hyper's server repairs what the strictest servers refuse, tells its user only the result, and cannot be asked what a
//! connection waits for. So the framing of requests, their deadlines and the end of a connection are decided here
//! (SECURITY SM-01, DS-03, U-04); what may stand in a name, a value or a target is decided by the `http` crate, and
//! `tests/smuggling` compares the whole with other servers.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;

use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::body::RequestBody;
use super::watch::{Call, End, Watch};
use super::{Serving, Shutdown, count_timeout};
use crate::gateway::respond;
use crate::net::linger::{LingerTime, close};
use crate::net::ready::after_ready_tasks;
use crate::reason::Reason;
use crate::settings::Limits;

mod answer;
#[cfg(test)]
mod beside_hyper;
mod body;
mod head;
mod wire;

use answer::Asked;
use head::{BadHead, Head};
use wire::{Stop, Wire};

/// How a connection came to its end, when it was not ended for waiting too long.
enum Served {
    /// Between two requests, or after an answer that said so.
    Whole,
    /// After what was no request.
    Refused,
    /// Anywhere else.
    Broken,
}

/// Serves HTTP/1.1 on `io` until one side ends it. An answer that only the end of the connection ends, as HTTP/1.0 has
/// them, must not look whole when it is cut: then `cut` is called before `io` is dropped, unless the program ends.
/// There is none where the end of `io` tells by itself.
pub fn serve_http1<I>(
    io: I,
    serving: Serving,
    limits: &Limits,
    shutdown: Shutdown,
    cut: Option<fn(&I)>,
) -> impl Future<Output = ()> + Send + use<I>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::new(limits, serving.connection.peer.port()));
    let mut wire = Wire::new(io, Arc::clone(&watch), limits.header_bytes.as_usize());
    let Shutdown { announced, begun } = shutdown;
    // Made before the future, which would keep room for the parts too: each open connection would cost that much
    // more.
    async move {
        let end = {
            let mut served = pin!(serve(&mut wire, &serving, &announced));
            let poll = |cx: &mut Context<'_>, call| {
                if call == Call::Drain {
                    watch.leave();
                }
                served.as_mut().poll(cx)
            };
            watch.guard(&begun, poll).await
        };
        count_timeout(&serving, &end, &watch);
        let is_refused = matches!(end, End::Finished(Served::Refused));
        let is_whole = matches!(end, End::Finished(Served::Whole));
        if watch.is_open_ended() && !is_whole {
            // SECURITY U-04
            if let Some(cut) = cut {
                cut(&wire.io);
            }
        } else if is_refused || is_whole {
            let time = watch
                .linger_time()
                .or(is_refused.then_some(LingerTime::SHORT));
            Box::pin(close(wire.into_io(), time)).await;
        }
    }
}

/// Answers one request after the other. Once `announced` is cancelled, answers say that the connection closes.
async fn serve<I>(wire: &mut Wire<I>, serving: &Serving, announced: &CancellationToken) -> Served
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
{
    loop {
        // Most connections of a gateway wait, and are to be small then.
        wire.rest();
        let ended = match poll_fn(|cx| wire.poll_wake(cx)).await {
            Ok(()) => Box::pin(converse(wire, serving, announced)).await,
            Err(end) => end,
        };
        match ended {
            Stop::Rest => {}
            Stop::End => return Served::Whole,
            Stop::Broken => return Served::Broken,
            Stop::Bad(bad) => {
                // How that ends changes nothing.
                drop(answer::refuse(wire, note_refusal(serving, bad)).await);
                return Served::Refused;
            }
        }
    }
}

/// Answers requests until no further one comes, and says why.
async fn converse<I>(wire: &mut Wire<I>, serving: &Serving, announced: &CancellationToken) -> Stop
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Serving {
        connection,
        gateway,
        challenges,
    } = serving;
    loop {
        let Head { parts, is_kept, .. } = match poll_fn(|cx| wire.poll_head(cx)).await {
            Ok(head) => head,
            Err(end) => return end,
        };
        wire.watch.begin_request();
        let mut asked = Asked {
            version: parts.version,
            is_head: parts.method == Method::HEAD,
            is_kept,
        };
        let challenges = challenges.as_ref();
        // An ACME authority that checks a name is not a sender and gets no record.
        let challenge = challenges.and_then(|challenges| challenges.http(&parts));
        let mut response = if let Some(answer) = challenge {
            respond::challenge(answer)
        } else {
            let record = gateway.open(connection, &parts);
            let mut body = RequestBody::Http1(wire);
            gateway.answer(connection, parts, &mut body, record).await
        };
        let is_own = response.body().is_own();
        // Answers of apps come in a row already.
        if is_own {
            after_ready_tasks().await;
        }
        wire.watch.passes_back(!is_own);
        let is_leaving = wire.watch.is_leaving() || announced.is_cancelled();
        asked.is_kept &= wire.body.has_ended() && !is_leaving;
        let written = answer::write(wire, &mut response, asked).await;
        drop(response);
        wire.watch.end_request();
        match written {
            Ok(true) => {}
            Ok(false) => return Stop::End,
            Err(error) => {
                let peer = connection.peer;
                tracing::debug!(%peer, %error, "HTTP/1.1: an answer was not written to its end");
                return Stop::Broken;
            }
        }
    }
}

/// Counts what is no request, and says how it is answered.
fn note_refusal(serving: &Serving, bad: BadHead) -> StatusCode {
    let (reason, why) = match bad {
        BadHead::Malformed(why) => (Reason::MalformedRequest, why),
        BadHead::TooLarge(why) => (Reason::HeaderTooLarge, why),
    };
    let peer = serving.connection.peer;
    tracing::debug!(%peer, reason = reason.code(), why, "HTTP/1.1: refused before it was a request");
    serving.gateway.refused_by_http(reason);
    StatusCode::from_u16(reason.row().status).unwrap_or(StatusCode::BAD_REQUEST)
}
