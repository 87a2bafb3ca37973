//! The PROXY header, versions 1 and 2.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use hookward::net::proxy_protocol::{ProxyError, read};

/// Longest header of either version.
const HEADER_MAX: usize = 536;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let block = |version: u8, family: u8, block: &[u8]| {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [
            &b"\r\n\r\n\0\r\nQUIT\n"[..],
            &[version, family],
            &length,
            block,
        ]
        .concat()
    };
    let four = [192, 0, 2, 7, 203, 0, 113, 1, 220, 4, 1, 187];
    vec![
        b"PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\nGET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        block(0x21, 0x11, &four),
        block(0x21, 0x11, &[&four[..], &[4, 0, 2, 0, 0, 5, 0, 0]].concat()),
        block(0x21, 0x21, &[7; 36]),
        block(0x21, 0x31, &[7; 216]),
        block(0x20, 0, &[]),
    ]
}

/// What the bytes name, and how many of them were taken.
fn parse(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), ProxyError> {
    let mut stream = bytes;
    let named = {
        let mut read = pin!(read(&mut stream));
        match read.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(named) => named?,
            Poll::Pending => panic!("a reader of bytes that are all there waits"),
        }
    };
    Ok((named, bytes.len() - stream.len()))
}

/// SECURITY SM-42: exactly the header is taken, whatever follows it, and there is one way to write it.
pub(crate) fn run(data: &[u8]) {
    let Ok((named, taken)) = parse(data) else {
        return;
    };
    assert!(taken <= HEADER_MAX, "a header of {taken} bytes");
    let header = &data[..taken];
    let followed = [header, b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"].concat();
    assert_eq!(
        parse(&followed).unwrap(),
        (named, taken),
        "what follows matters"
    );
    for cut in 0..taken {
        assert!(parse(&header[..cut]).is_err(), "a cut header is a header");
    }
    let text = String::from_utf8_lossy(header);
    if let (Some(client), Some(line)) = (named, text.strip_prefix("PROXY ")) {
        let words: Vec<&str> = line.trim_end_matches("\r\n").split(' ').collect();
        let version = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        assert_eq!((words.len(), words[0]), (5, version));
        assert_eq!(words[1].parse(), Ok(client.ip()), "another client");
        assert_eq!(words[3], client.port().to_string(), "another port");
    }
}
