//! Sockets: listeners, TLS, HTTP connections and the way to the upstreams.

pub mod acme;
mod connect;
pub mod connections;
mod frames;
pub mod http;
pub mod key_fetch;
mod linger;
pub mod listener;
pub mod proxy_protocol;
mod ready;
mod resolve;
pub mod strict;
pub mod tls;
pub mod trust;
pub mod upstream;
