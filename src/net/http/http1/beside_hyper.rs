//! Whatever is read as a request is the same request to hyper (SECURITY Z-11).

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime;

use super::wire::Wire;
use crate::net::http::body::Source;
use crate::net::http::watch::Watch;
use crate::settings::Limits;

type Read = (Method, Uri, HeaderMap, Vec<u8>);

/// A connection on which `bytes` have come, and the end.
async fn come(bytes: &[u8]) -> (DuplexStream, DuplexStream) {
    let (mut sender, io) = duplex(64 * 1024);
    sender.write_all(bytes).await.unwrap();
    sender.shutdown().await.unwrap();
    (sender, io)
}

/// The requests that we find whole in `bytes`.
async fn ours(bytes: &[u8]) -> Vec<Read> {
    let (_sender, io) = come(bytes).await;
    let mut wire = Wire::new(io, Arc::new(Watch::new(&Limits::default(), 0)), 32 * 1024);
    let mut requests = Vec::new();
    while let Ok(head) = poll_fn(|cx| wire.poll_head(cx)).await {
        let mut body = Vec::new();
        while let Some(data) = poll_fn(|cx| wire.poll_data(cx)).await {
            let Ok(data) = data else { return requests };
            body.extend_from_slice(&data);
        }
        let parts = head.parts;
        requests.push((parts.method, parts.uri, parts.headers, body));
        if !head.is_kept {
            break;
        }
    }
    requests
}

/// The requests that hyper finds whole in `bytes`.
async fn of_hyper(bytes: &[u8]) -> Vec<Read> {
    let (_sender, io) = come(bytes).await;
    let requests = Mutex::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let (parts, body) = request.into_parts();
        if let Ok(body) = body.collect().await {
            let body = body.to_bytes().to_vec();
            let read = (parts.method, parts.uri, parts.headers, body);
            requests.lock().unwrap().push(read);
        }
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut server = http1::Builder::new();
    let served = server
        .half_close(true)
        .serve_connection(TokioIo::new(io), service);
    drop(served.await);
    requests.into_inner().unwrap()
}

fn message() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "GET /a?b=%20c HTTP/1.1\r\nHost: h.example\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-A: b;c=\"d\"\r\n\r\nab\r\nc",
        "POST https://h.example/p HTTP/1.1\nhost:h.example\nX-A: \t1 2\t\n\n",
        "\r\nPUT /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\r\nc\r\n2 ;x=y\r\nde\r\n0\r\n\r\n",
        "P /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx",
        "POST / HTTP/1.1\r\nConnection: a, Close\r\nContent-Length: 0\r\n\r\n",
    ])
    .prop_map(str::to_owned)
}

/// What may be put between, or in the place of, bytes of a message.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let told = prop::sample::select(vec![
        "\r",
        "\n",
        "\r\n",
        " ",
        "\t",
        ":",
        ";",
        ",",
        "#",
        "0",
        "1",
        "f",
        "\0",
        "\x0b",
        "\x7f",
        "\"",
        "<",
        "|",
        "Content-Length: 1\r\n",
        "Content-Length",
        "Transfer-Encoding: chunked\r\n",
        "chunked",
        "HTTP/1.1",
    ]);
    prop_oneof![
        told.prop_map(|text| text.as_bytes().to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
        Just(Vec::new()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    // SECURITY Z-11
    #[test]
    fn what_is_read_is_what_hyper_reads(
        messages in prop::collection::vec(message(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, piece()), 0..4),
    ) {
        let mut bytes = messages.concat().into_bytes();
        for (at, taken, piece) in changes {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + taken);
            bytes.splice(at..end, piece);
        }
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        let (ours, theirs) = runtime.block_on(async { (ours(&bytes).await, of_hyper(&bytes).await) });
        let same = theirs.get(..ours.len());
        prop_assert_eq!(same, Some(&*ours), "{:?}", String::from_utf8_lossy(&bytes));
    }
}
