//! The walk along `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use hookward::gateway::connection::Connection;
use hookward::gateway::snapshot::ListenerPolicy;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "10.0.0.1\n203.0.113.9, 198.51.100.7, 10.1.1.1",
        "10.0.0.1\n198.51.100.7, junk, 10.1.1.1\n::ffff:10.0.0.9",
        "::1\n[2001:db8::1]:443,10.0.0.1:80",
        "192.0.2.1\n10.0.0.1",
        "10.0.0.1\n,, ,\n",
        "::ffff:10.0.0.1\n[::ffff:10.0.0.2], [[::1]]",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// SECURITY Z-06: no trusted hop while there is an untrusted one that can be read, and nothing behind
/// what cannot be read is believed.
pub(crate) fn run(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let peer = lines
        .next()
        .and_then(|line| std::str::from_utf8(line).ok()?.parse().ok());
    let Some(peer): Option<IpAddr> = peer else {
        return;
    };
    let mut headers = HeaderMap::new();
    let mut hops = Vec::new();
    for line in lines.take(64) {
        let Ok(value) = HeaderValue::from_bytes(line) else {
            return;
        };
        headers.append("x-forwarded-for", value);
        hops.extend(line.split(|byte| *byte == b','));
    }
    let trusted: [IpNet; 2] = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let connection = Connection::new(SocketAddr::new(peer, 1), "https".into(), None);
    let listener = ListenerPolicy {
        trusted_proxies: trusted.to_vec(),
        ..ListenerPolicy::default()
    };
    let client = connection.client_ip(&listener, &headers);
    let peer = peer.to_canonical();
    if !is_trusted(&peer) {
        assert_eq!(client, peer, "a stranger named the client");
        return;
    }
    // Read from the right, plainly.
    let mut seen = vec![peer];
    for hop in hops.iter().rev() {
        match std::str::from_utf8(hop).ok().and_then(address) {
            Some(address) => seen.push(address),
            None => break,
        }
    }
    match seen.iter().find(|address| !is_trusted(address)) {
        Some(stranger) => assert_eq!(client, *stranger, "the first stranger is the client"),
        None => assert_eq!(Some(&client), seen.last(), "a hop that nobody named"),
    }
}

/// With or without port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let bare = inner.unwrap_or(text);
    let address = text
        .parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|own| own.ip()));
    address
        .or_else(|_| bare.parse())
        .ok()
        .map(|own: IpAddr| own.to_canonical())
}
