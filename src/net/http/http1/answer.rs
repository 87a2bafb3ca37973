//! Answers, as they are written.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::ext::ReasonPhrase;
use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::Wire;
use crate::clock;
use crate::gateway::respond::Answer;

/// Bytes of an answer that are put behind its head rather than written by themselves.
const COPIED_BYTES_MAX: usize = 8 * 1024;
/// Room for the head of most answers, in bytes.
const HEAD_BYTES: usize = 512;

/// What of a request its answer depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) version: Version,
    pub(super) is_head: bool,
    /// Whether both sides want another request after this.
    pub(super) is_kept: bool,
}

/// How the end of an answer's body is told (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// It has none.
    Nothing,
    /// This many bytes are left.
    Length(u64),
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Framing {
    fn of(response: &Response<Answer>, asked: Asked) -> Self {
        let is_bare = matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        match response.body().size_hint().exact() {
            _ if is_bare || asked.is_head => Self::Nothing,
            Some(length) => Self::Length(length),
            None if asked.version == Version::HTTP_10 => Self::Close,
            None => Self::Chunked,
        }
    }
}

/// Writes an answer; whether another request may follow.
pub(super) async fn write<I>(
    wire: &mut Wire<I>,
    response: &mut Response<Answer>,
    asked: Asked,
) -> io::Result<bool>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let framing = Framing::of(response, asked);
    if framing == Framing::Close {
        wire.watch.ends_with_its_connection();
    }
    let is_kept = asked.is_kept && framing != Framing::Close && !says_close(response.headers());
    put_head(
        &mut wire.output,
        response,
        framing,
        Asked { is_kept, ..asked },
    );
    wire.spare = std::mem::take(response.headers_mut());
    wire.spare.clear();
    let ended = put_body(wire, response.body_mut(), framing).await;
    // What it holds is free for others while the client takes the rest.
    *response.body_mut() = Answer::default();
    poll_fn(|cx| wire.poll_sent(cx)).await?;
    ended.map(|()| is_kept)
}

/// Writes a body to its end, or keeps the last of it to be written.
async fn put_body<I>(wire: &mut Wire<I>, body: &mut Answer, framing: Framing) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut framing = framing;
    while framing != Framing::Nothing && !body.is_end_stream() {
        let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            // What there is goes out while the app is waited for.
            Poll::Pending => match wire.poll_sent(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            },
        });
        let Some(frame) = frame.await? else { break };
        let frame = frame.map_err(io::Error::other)?;
        put_data(wire, frame.into_data().unwrap_or_default(), &mut framing).await?;
    }
    match framing {
        Framing::Length(1..) => Err(io::Error::other("the answer is shorter than its length")),
        Framing::Chunked => {
            wire.output.extend_from_slice(b"0\r\n\r\n");
            Ok(())
        }
        Framing::Nothing | Framing::Length(0) | Framing::Close => Ok(()),
    }
}

/// Writes a part of a body, or keeps it to be written with the next.
async fn put_data<I>(wire: &mut Wire<I>, mut data: Bytes, framing: &mut Framing) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    if data.is_empty() {
        return Ok(());
    }
    match framing {
        Framing::Length(left) => {
            let rest = left.checked_sub(data.len() as u64);
            *left = rest.ok_or_else(|| io::Error::other("the answer is longer than its length"))?;
        }
        Framing::Chunked => {
            let size = format!("{:x}\r\n", data.len());
            wire.output.extend_from_slice(size.as_bytes());
        }
        Framing::Nothing | Framing::Close => {}
    }
    if wire.output.len() + data.len() <= COPIED_BYTES_MAX {
        wire.output.extend_from_slice(&data);
    } else {
        poll_fn(|cx| wire.poll_send(cx, &mut data)).await?;
    }
    if *framing == Framing::Chunked {
        wire.output.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// Answers what is no request.
pub(super) async fn refuse<I>(wire: &mut Wire<I>, status: StatusCode) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut response = Response::new(());
    *response.status_mut() = status;
    let asked = Asked {
        version: Version::HTTP_11,
        is_head: false,
        is_kept: false,
    };
    put_head(&mut wire.output, &response, Framing::Length(0), asked);
    poll_fn(|cx| wire.poll_sent(cx)).await
}

fn says_close(fields: &HeaderMap) -> bool {
    let mut values = fields.get_all(header::CONNECTION).iter();
    values.any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Writes the head of an answer, with the fields that are of this connection.
fn put_head<B>(output: &mut Vec<u8>, head: &Response<B>, framing: Framing, asked: Asked) {
    output.reserve(HEAD_BYTES);
    let mut put = |text: &[u8]| output.extend_from_slice(text);
    put(match asked.version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    });
    put(head.status().as_str().as_bytes());
    put(b" ");
    put(match head.extensions().get::<ReasonPhrase>() {
        Some(phrase) => phrase.as_bytes(),
        None => head
            .status()
            .canonical_reason()
            .unwrap_or("Status")
            .as_bytes(),
    });
    put(b"\r\n");
    let mut is_dated = false;
    for (name, value) in head.headers() {
        match *name {
            header::CONNECTION | header::TRANSFER_ENCODING => continue,
            // A HEAD and a 304 say what the body would have had; 204 has none (RFC 9110 8.6).
            header::CONTENT_LENGTH
                if framing != Framing::Nothing || head.status() == StatusCode::NO_CONTENT =>
            {
                continue;
            }
            header::DATE => is_dated = true,
            _ => {}
        }
        put(name.as_str().as_bytes());
        put(b": ");
        put(value.as_bytes());
        put(b"\r\n");
    }
    match framing {
        Framing::Length(length) => {
            put(b"content-length: ");
            put(itoa::Buffer::new().format(length).as_bytes());
            put(b"\r\n");
        }
        Framing::Chunked => put(b"transfer-encoding: chunked\r\n"),
        Framing::Nothing | Framing::Close => {}
    }
    match asked.version {
        _ if !asked.is_kept => put(b"connection: close\r\n"),
        Version::HTTP_10 => put(b"connection: keep-alive\r\n"),
        _ => {}
    }
    if !is_dated {
        put(b"date: ");
        put(&date());
        put(b"\r\n");
    }
    put(b"\r\n");
}

/// Bytes of a date (RFC 9110 5.6.7).
const DATE_BYTES: usize = 29;

thread_local! {
    static DATE: Cell<(i64, [u8; DATE_BYTES])> = const { Cell::new((i64::MIN, [0; DATE_BYTES])) };
}

/// This second, as `Date` has it.
fn date() -> [u8; DATE_BYTES] {
    let now = clock::wall().secs();
    let (second, mut text) = DATE.get();
    if second != now {
        let since = Duration::from_secs(now.try_into().unwrap_or_default());
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since);
        if let Ok(new) = date.as_bytes().try_into() {
            text = new;
        }
        DATE.set((now, text));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::gateway::forward::{BoxError, UpstreamBody};
    use crate::gateway::respond::{close_connection, passed_back};
    use crate::net::http::watch::Watch;
    use crate::settings::Limits;

    const HTTP_11: Asked = Asked {
        version: Version::HTTP_11,
        is_head: false,
        is_kept: true,
    };
    const HTTP_10: Asked = Asked {
        version: Version::HTTP_10,
        ..HTTP_11
    };
    const HEAD: Asked = Asked {
        is_head: true,
        ..HTTP_11
    };

    /// A body in these parts, of which `None` is an error.
    fn streamed(parts: &[Option<&'static str>]) -> UpstreamBody {
        let frames: Vec<Result<_, BoxError>> = parts
            .iter()
            .map(|part| part.ok_or("broken").map_err(Into::into))
            .map(|part| part.map(|part| Frame::data(Bytes::from_static(part.as_bytes()))))
            .collect();
        UpstreamBody::Streamed(StreamBody::new(stream::iter(frames)).boxed_unsync())
    }

    fn app(
        status: u16,
        fields: &[(&'static str, &'static str)],
        body: UpstreamBody,
    ) -> Response<Answer> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        passed_back(response.body(body).unwrap())
    }

    /// What the client gets but for the date, and what comes of its connection.
    async fn written(
        mut response: Response<Answer>,
        asked: Asked,
    ) -> (String, Result<bool, String>) {
        let (mut client, io) = duplex(100);
        let watch = Arc::new(Watch::new(&Limits::default(), 0));
        let mut wire = Wire::new(io, watch, 1000);
        let writing = tokio::spawn(async move {
            let written = write(&mut wire, &mut response, asked).await;
            assert!(wire.spare.is_empty() && wire.output.is_empty());
            written.map_err(|error| error.to_string())
        });
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let (dates, lines): (Vec<_>, Vec<_>) = head
            .split("\r\n")
            .partition(|line| line.starts_with("date: "));
        assert_eq!(dates.len(), 1, "{text}");
        (
            format!("{}\n\n{body}", lines.join("\n")),
            writing.await.unwrap(),
        )
    }

    const LENGTH: [(&str, &str); 2] = [("content-length", "3"), ("x-a", "b")];

    fn whole(text: &'static str) -> UpstreamBody {
        UpstreamBody::Whole(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn answers_end_as_their_clients_can_tell() {
        // SECURITY U-11, U-13, SM-26
        let parts = || streamed(&[Some("ab"), Some(""), Some("c")]);
        for (response, asked, expected, is_kept) in [
            (
                app(200, &LENGTH, whole("abc")),
                HTTP_11,
                "HTTP/1.1 200 OK\nx-a: b\ncontent-length: 3\n\nabc",
                true,
            ),
            (
                app(299, &[], whole("")),
                HTTP_11,
                "HTTP/1.1 299 Status\ncontent-length: 0\n\n",
                true,
            ),
            (
                app(200, &[], parts()),
                HTTP_11,
                "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                true,
            ),
            (
                app(200, &[], parts()),
                HTTP_10,
                "HTTP/1.0 200 OK\nconnection: close\n\nabc",
                false,
            ),
            (
                app(200, &LENGTH, whole("abc")),
                HTTP_10,
                "HTTP/1.0 200 OK\nx-a: b\ncontent-length: 3\nconnection: keep-alive\n\nabc",
                true,
            ),
        ] {
            let (text, kept) = written(response, asked).await;
            assert_eq!((&*text, kept), (expected, Ok(is_kept)));
        }
        let mut closing = app(200, &[], whole(""));
        close_connection(closing.headers_mut());
        let (text, kept) = written(closing, HTTP_11).await;
        let expected = "HTTP/1.1 200 OK\ncontent-length: 0\nconnection: close\n\n";
        assert_eq!((&*text, kept), (expected, Ok(false)));
    }

    #[tokio::test]
    async fn answers_without_a_body_have_none() {
        // SECURITY U-11, U-13
        for (response, asked, expected) in [
            (
                app(200, &LENGTH, whole("")),
                HEAD,
                "HTTP/1.1 200 OK\ncontent-length: 3\nx-a: b\n\n",
            ),
            (
                app(200, &[], streamed(&[Some("ab")])),
                HEAD,
                "HTTP/1.1 200 OK\n\n",
            ),
            (
                app(304, &LENGTH, whole("")),
                HTTP_11,
                "HTTP/1.1 304 Not Modified\ncontent-length: 3\nx-a: b\n\n",
            ),
            (
                app(204, &LENGTH, whole("")),
                HTTP_11,
                "HTTP/1.1 204 No Content\nx-a: b\n\n",
            ),
            (
                app(204, &[], whole("abc")),
                HTTP_11,
                "HTTP/1.1 204 No Content\n\n",
            ),
        ] {
            let (text, kept) = written(response, asked).await;
            assert_eq!((&*text, kept), (expected, Ok(true)));
        }
    }

    #[tokio::test]
    async fn what_an_app_breaks_off_does_not_look_whole() {
        // SECURITY U-04
        let broken = app(200, &[], streamed(&[Some("ab"), None]));
        let (text, kept) = written(broken, HTTP_11).await;
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2\r\nab\r\n"
        );
        assert_eq!(kept, Err("broken".to_owned()));
        let (text, kept) = written(app(200, &[], streamed(&[None])), HTTP_11).await;
        assert_eq!(text, "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n");
        assert_eq!(kept, Err("broken".to_owned()));
    }

    #[tokio::test]
    async fn long_parts_are_written_whole() {
        let long: &'static str = "x".repeat(COPIED_BYTES_MAX + 1).leak();
        let (text, kept) = written(
            app(200, &[], streamed(&[Some("a"), Some(long), Some("b")])),
            HTTP_11,
        )
        .await;
        let (_, body) = text.split_once("\n\n").unwrap();
        assert_eq!(
            body,
            format!("1\r\na\r\n2001\r\n{long}\r\n1\r\nb\r\n0\r\n\r\n")
        );
        assert_eq!(kept, Ok(true));
    }
}
