//! Sockets: listeners, TLS, HTTP connections and the way to the upstreams.

pub mod http;
pub mod key_fetch;
pub mod listener;
pub mod tls;
pub mod upstream;
