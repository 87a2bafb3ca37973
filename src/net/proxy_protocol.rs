//! The PROXY protocol, versions 1 and 2: what a proxy in front says of a connection before its
//! first byte.
//!
//! A peer that may send it chooses the client's address, so it is read from trusted proxies only, and strictly: what
//! two readers could understand differently is refused (SECURITY SM-42). Exactly the header is taken from the stream,
//! never a byte of what follows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line of version 1, with its line end.
const LINE_MAX: usize = 107;
/// Longest header of version 2, with its type-length-values.
const BLOCK_MAX: usize = 536;
/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// Fixed part of version 2.
const FIXED: usize = 16;

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The stream ended or broke before its first byte: a probe of the port.
    #[error("closed before its first byte")]
    Silent,
    /// The stream ended or broke.
    #[error("the PROXY header is cut short: {0}")]
    Cut(#[from] std::io::Error),
    /// Something else came.
    #[error("no PROXY header")]
    Missing,
    /// It is a header, but not a correct one.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// It is longer than any header that proxies send.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Reads the header. `None` when it names no client: a health check of the proxy itself.
pub async fn read<I>(io: &mut I) -> Result<Option<SocketAddr>, ProxyError>
where
    I: AsyncRead + Unpin,
{
    // The shortest header of either version is longer than this.
    let mut start = [0; SIGNATURE.len()];
    let (first, more) = start.split_at_mut(1);
    if !matches!(io.read(first).await, Ok(1..)) {
        return Err(ProxyError::Silent);
    }
    io.read_exact(more).await?;
    if start == SIGNATURE {
        let mut fixed = [0; FIXED - SIGNATURE.len()];
        io.read_exact(&mut fixed).await?;
        let [version, family, high, low] = fixed;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if FIXED + length > BLOCK_MAX {
            return Err(ProxyError::TooLong);
        }
        let mut block = vec![0; length];
        io.read_exact(&mut block).await?;
        return block_names(version, family, &block);
    }
    if !start.starts_with(WORD) {
        return Err(ProxyError::Missing);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_MAX {
            return Err(ProxyError::TooLong);
        }
        line.push(io.read_u8().await?);
    }
    line_names(&line)
}

/// Version 1: one line of words with one space between them.
fn line_names(line: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let line = std::str::from_utf8(line).map_err(|_utf8| ProxyError::Malformed)?;
    let line = line.strip_suffix("\r\n").ok_or(ProxyError::Malformed)?;
    if line.contains(['\r', '\n', '\0']) {
        return Err(ProxyError::Malformed);
    }
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        // What follows UNKNOWN must be ignored.
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            addresses::<Ipv4Addr>(from, to, from_port, to_port)
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            addresses::<Ipv6Addr>(from, to, from_port, to_port)
        }
        _ => Err(ProxyError::Malformed),
    }
}

/// The source; the destination must be correct as well.
fn addresses<A: FromStr + Into<IpAddr>>(
    from: &str,
    to: &str,
    from_port: &str,
    to_port: &str,
) -> Result<Option<SocketAddr>, ProxyError> {
    let address = |text: &str| text.parse::<A>().map_err(|_other| ProxyError::Malformed);
    let source = address(from)?.into();
    address(to)?;
    let source_port = port(from_port)?;
    port(to_port)?;
    Ok(Some(SocketAddr::new(source, source_port)))
}

/// Decimal, without sign and leading zeros.
fn port(text: &str) -> Result<u16, ProxyError> {
    let port: u16 = text.parse().map_err(|_number| ProxyError::Malformed)?;
    if port.to_string() == text {
        Ok(port)
    } else {
        Err(ProxyError::Malformed)
    }
}

/// Version 2: what follows the fixed part. Type-length-values are skipped, but must fit.
fn block_names(version: u8, family: u8, block: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    match version {
        // LOCAL: the proxy speaks for itself.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(ProxyError::Malformed),
    }
    let mut rest = block;
    let source = match family {
        // Unspecified, or a unix socket on the proxy's machine: there is no address.
        0x00 => return Ok(None),
        0x31 => {
            take::<216>(&mut rest)?;
            None
        }
        0x11 => {
            let source = Ipv4Addr::from(take::<4>(&mut rest)?);
            take::<4>(&mut rest)?;
            Some(SocketAddr::new(source.into(), ports(&mut rest)?))
        }
        0x21 => {
            let source = Ipv6Addr::from(take::<16>(&mut rest)?);
            take::<16>(&mut rest)?;
            Some(SocketAddr::new(source.into(), ports(&mut rest)?))
        }
        // Datagrams, and values that were never assigned.
        _ => return Err(ProxyError::Malformed),
    };
    while !rest.is_empty() {
        let [_kind, high, low] = take::<3>(&mut rest)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        rest = rest.get(length..).ok_or(ProxyError::Malformed)?;
    }
    Ok(source)
}

/// The source's port, the destination's after it.
fn ports(rest: &mut &[u8]) -> Result<u16, ProxyError> {
    let source = u16::from_be_bytes(take::<2>(rest)?);
    take::<2>(rest)?;
    Ok(source)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ProxyError> {
    let (taken, left) = rest.split_first_chunk().ok_or(ProxyError::Malformed)?;
    *rest = left;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a header names, and how many bytes were left in the stream behind it.
    fn parse(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), ProxyError> {
        let (named, left) = read_some(bytes);
        Ok((named?, left))
    }

    /// What is read, and how many bytes are left.
    fn read_some(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyError>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut stream = bytes;
        let named = runtime.block_on(read(&mut stream));
        (named, stream.len())
    }

    fn named(bytes: &[u8]) -> Option<String> {
        let (address, left) = parse(bytes).unwrap();
        assert_eq!(left, 0);
        address.map(|address| address.to_string())
    }

    fn v2(version: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version, family]);
        bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        bytes.extend(block);
        bytes
    }

    fn block(source: SocketAddr) -> (u8, Vec<u8>) {
        let mut bytes = Vec::new();
        let family = match source.ip() {
            IpAddr::V4(ip) => {
                bytes.extend(ip.octets());
                bytes.extend([203, 0, 113, 1]);
                0x11
            }
            IpAddr::V6(ip) => {
                bytes.extend(ip.octets());
                bytes.extend([0; 16]);
                0x21
            }
        };
        bytes.extend(source.port().to_be_bytes());
        bytes.extend(443_u16.to_be_bytes());
        (family, bytes)
    }

    #[test]
    fn version_1_names_the_client() {
        // SECURITY SM-42
        let line = b"PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\n";
        assert_eq!(named(line).unwrap(), "192.0.2.7:56324");
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n";
        assert_eq!(named(line).unwrap(), "[2001:db8::7]:1");
        assert_eq!(named(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(named(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None);
    }

    #[test]
    fn what_is_not_quite_version_1_is_refused() {
        // SECURITY SM-42
        for line in [
            "PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\n padding to be long enough",
            "PROXY TCP4 192.0.2.7 203.0.113.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 56324 443 \r\n",
            "PROXY TCP4  192.0.2.7 203.0.113.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.07 203.0.113.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 056324 443\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 +5 443\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 65536 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 203.0.113.1 1 2\r\n",
            "PROXY TCP4 hooks.example.org 203.0.113.1 1 2\r\n",
            "PROXY tcp4 192.0.2.7 203.0.113.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 203.0.113.1 1 2\r\n",
            "PROXY UNKNOWN a\rb c d\r\n",
            "proxy TCP4 192.0.2.7 203.0.113.1 1 2\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "",
            "PROXY TCP4 1",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX - 16));
        assert_eq!(long.len(), LINE_MAX);
        assert!(parse(long.as_bytes()).is_ok());
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX - 15));
        assert!(matches!(parse(longer.as_bytes()), Err(ProxyError::TooLong)));
    }

    #[test]
    fn version_2_names_the_client_and_its_values_are_passed_over() {
        // SECURITY SM-42
        let (family, bytes) = block("192.0.2.7:56324".parse().unwrap());
        let values = [&bytes[..], &[0x04, 0, 2, 9, 9, 0x20, 0, 0]].concat();
        assert_eq!(named(&v2(0x21, family, &bytes)).unwrap(), "192.0.2.7:56324");
        assert_eq!(
            named(&v2(0x21, family, &values)).unwrap(),
            "192.0.2.7:56324"
        );
        assert_eq!(named(&v2(0x20, 0x00, &[])), None, "LOCAL");
        assert_eq!(named(&v2(0x20, 0x11, &bytes)), None, "LOCAL with addresses");
        assert_eq!(named(&v2(0x21, 0x00, &[1, 2, 3])), None, "unspecified");
        assert_eq!(named(&v2(0x21, 0x31, &[0; 216])), None, "unix");
    }

    #[test]
    fn what_is_not_quite_version_2_is_refused() {
        // SECURITY SM-42
        let (_, v4) = block("192.0.2.7:56324".parse().unwrap());
        for (what, bytes) in [
            ("version", v2(0x11, 0x11, &v4)),
            ("command", v2(0x22, 0x11, &v4)),
            ("datagrams", v2(0x21, 0x12, &v4)),
            ("a family that does not fit", v2(0x21, 0x21, &v4)),
            ("cut address", v2(0x21, 0x11, &v4[..11])),
            ("cut value", v2(0x21, 0x11, &[&v4[..], &[4, 0]].concat())),
            (
                "long value",
                v2(0x21, 0x11, &[&v4[..], &[4, 0, 1]].concat()),
            ),
            ("too long", v2(0x20, 0x00, &[0; BLOCK_MAX - FIXED + 1])),
            ("cut", v2(0x21, 0x11, &v4)[..20].to_vec()),
        ] {
            assert!(parse(&bytes).is_err(), "{what}");
        }
        assert!(parse(&v2(0x20, 0x00, &[0; BLOCK_MAX - FIXED])).is_ok());
    }

    proptest! {
        #[test]
        fn both_versions_name_any_address(
            ip: IpAddr,
            port: u16,
            behind in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let source = SocketAddr::new(ip, port);
            let (family, bytes) = block(source);
            let kind = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {kind} {ip} {ip} {port} 443\r\n");
            for header in [v2(0x21, family, &bytes), line.into_bytes()] {
                let stream = [header, behind.clone()].concat();
                prop_assert_eq!(parse(&stream).unwrap(), (Some(source), behind.len()));
            }
        }

        #[test]
        fn any_bytes_are_an_answer_and_never_more_than_the_bound_is_read(
            version: bool,
            rest in proptest::collection::vec(any::<u8>(), 0..800),
        ) {
            let start: &[u8] = if version { &SIGNATURE } else { WORD };
            let stream = [start, &rest[..]].concat();
            let (_, left) = read_some(&stream);
            prop_assert!(stream.len() - left <= BLOCK_MAX);
        }
    }
}
