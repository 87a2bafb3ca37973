//! Sockets: listeners, TLS, HTTP connections and the way to the upstreams.

use socket2::SockRef;
use tokio::net::TcpStream;

pub mod acme;
mod connect;
pub mod connections;
pub mod http;
pub mod key_fetch;
mod linger;
pub mod listener;
pub mod proxy_protocol;
mod ready;
mod resolve;
pub mod tls;
pub mod trust;
pub mod upstream;

/// Bytes that the system takes for a peer beyond what is on its way. With the usual megabytes, a peer that reads slowly
/// would seem to stand still until it has read a third of them.
const UNSENT_BYTES: u32 = 128 << 10;

/// Lets a slow peer be seen to take what is written. A system without this option is no error: the peer then seems to
/// take more than it does, and to stand still.
fn limit_unsent(stream: &TcpStream) {
    SockRef::from(stream)
        .set_tcp_notsent_lowat(UNSENT_BYTES)
        .ok();
}
