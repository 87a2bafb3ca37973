//! The request that `hookward verify` reads.

use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use hookward::cli::verify::request::{self, Captured};
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::Empty;
use tokio::io::AsyncWriteExt;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        &b"POST /a?b=c HTTP/1.1\r\nHost: h.example\r\nX-A: 1\r\nX-A:\t2 \r\n\r\nbody\r\n\r\n"[..],
        b"GET https://h.example/ HTTP/1.0\nHost: h.example\n\n",
        b"POST /\xc3\xa4 HTTP/1.1\nhost:h\n\n\0",
        b"POST /a#b HTTP/1.1\nHost: h\nX: \xff\n\n",
        b"POST / HTTP/1.1\nHost: h\n folded\n\n",
        b"POST / HTTP/1.1\nHost : h\n\n",
        b"\r\nPOST / HTTP/1.1\nHost: h\n\n",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect();
    seeds.extend(
        super::signature_header::seeds()
            .iter()
            .filter_map(|seed| Some(seed.get(2..)?.to_vec())),
    );
    seeds
}

/// SECURITY Z-01.
pub(crate) fn run(data: &[u8]) {
    let Ok(captured) = request::parse(data) else {
        return;
    };
    let printed = print(&captured);
    assert_eq!(
        request::parse(&printed).as_ref(),
        Ok(&captured),
        "printed, it is another request"
    );
    assert!(
        data.ends_with(&captured.body),
        "the body is not the end of the input"
    );

    // Only the head: where a body ends is not what is read here.
    let head = &data[..data.len() - captured.body.len()];
    let framed = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::EXPECT,
    ];
    if framed
        .iter()
        .any(|name| captured.headers.contains_key(name))
    {
        return;
    }
    if let Some((method, target, headers)) = read_by_hyper(head) {
        // hyper's URIs have no fragment, and an absolute one without a path has `/`.
        let ours = captured.target.split('#').next().unwrap();
        assert_eq!(method, captured.method);
        assert_eq!(headers, captured.headers);
        assert!(
            target == ours || (!ours.starts_with('/') && same_url(&target, ours)),
            "{target} and {ours}"
        );
    }
}

/// Equal but for the case of what has none, and the path that an absolute form may leave out.
fn same_url(one: &str, other: &str) -> bool {
    let plain = |url: &str| {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at(end);
        let slash = if target.starts_with('/') { "" } else { "/" };
        format!("{}://{host}{slash}{target}", scheme.to_ascii_lowercase())
    };
    plain(one) == plain(other)
}

fn print(request: &Captured) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
    for (name, value) in &request.headers {
        bytes.extend_from_slice(
            &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat(),
        );
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&request.body);
    bytes
}

/// What hyper's server makes of the same head; `None` when it refuses it.
fn read_by_hyper(head: &[u8]) -> Option<(Method, String, HeaderMap)> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    let seen = Mutex::new(None);
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
        let (parts, _) = request.into_parts();
        *seen.lock().unwrap() = Some((parts.method, parts.uri.to_string(), parts.headers));
        std::future::ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
    });
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(head.len() + 64 * 1024);
            client.write_all(head).await.unwrap();
            client.shutdown().await.unwrap();
            let server = hyper_util::rt::TokioIo::new(server);
            let mut connection = hyper::server::conn::http1::Builder::new();
            let served = connection
                .keep_alive(false)
                .serve_connection(server, service);
            let _end = served.await;
        });
    });
    seen.into_inner().unwrap()
}
