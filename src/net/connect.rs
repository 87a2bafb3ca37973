//! Ways to a host: every address of its name, and unix sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use super::resolve;

/// Pause between two attempts to connect to a unix socket whose queue is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Head start of an address before the next one is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to a unix socket. While its queue is full it waits, as TCP does by itself.
pub(super) async fn connect_unix(path: &Path) -> std::io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                sleep(QUEUE_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// Connects to a host by its name.
pub(super) async fn connect_tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    connect_any(&resolve::addresses(host, port, resolve::PATIENCE).await?).await
}

/// Connects to the first address of a name that answers. They are tried one after the other, each with a head start,
/// so that dead ones cost little time (SECURITY U-18).
pub(super) async fn connect_any(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let addresses = addresses.get(..ADDRESSES_MAX).unwrap_or(addresses);
    let connected = first_of(addresses, TcpStream::connect).await;
    connected.unwrap_or_else(|| Err(std::io::Error::other("the name has no address")))
}

/// The first attempt that succeeds, else the last error; `None` without addresses.
pub(super) async fn first_of<T, E, F: Future<Output = Result<T, E>>>(
    addresses: &[SocketAddr],
    attempt: impl Fn(SocketAddr) -> F,
) -> Option<Result<T, E>> {
    let mut addresses = alternating(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        match addresses.next() {
            Some(address) => attempts.push(attempt(address)),
            None if attempts.is_empty() => return failure.map(Err),
            None => {}
        }
        let more = addresses.len() > 0;
        tokio::select! {
            Some(connected) = attempts.next() => match connected {
                Ok(stream) => return Some(Ok(stream)),
                Err(error) => failure = Some(error),
            },
            () = sleep(HEAD_START), if more => {}
        }
    }
}

/// IPv6 and IPv4 in turn, beginning with the family of the first address, because one family may not work at all.
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .iter()
        .partition(|address| address.is_ipv6() == preferred);
    let longest = first.len().max(second.len());
    (0..longest)
        .flat_map(|index| [first.get(index), second.get(index)])
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        // SECURITY U-18
        let found = addresses(&["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1"]);
        let tried = addresses(&["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1"]);
        assert_eq!(alternating(&found), tried);
        let one = addresses(&["192.0.2.1:1", "192.0.2.2:1"]);
        assert_eq!(alternating(&one), one);
        assert!(alternating(&[]).is_empty());
    }

    #[tokio::test]
    async fn a_name_without_a_living_address_says_why() {
        let refused = connect_tcp("127.0.0.1", 1).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_unix_socket_with_a_full_queue_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queue = Vec::new();
        while let Ok(waiting) = UnixStream::connect(&path).await {
            queue.push(waiting);
        }
        let mut late = std::pin::pin!(connect_unix(&path));
        let early = timeout(QUEUE_PAUSE * 3, &mut late).await;
        assert!(early.is_err(), "there was room after {}", queue.len());
        listener.accept().await.unwrap();
        late.await.unwrap();
    }
}
