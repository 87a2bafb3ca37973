//! Everything that is tested from outside: the library by its API, the binary by its sockets. One file
//! for each thing that the binary does; what they share is in `support`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod cli;
mod config;
mod docs;
mod imports;
mod presets;
mod schema;
mod support;
mod vectors;

mod acme;
mod body;
mod challenges;
mod clock;
mod connections;
mod credentials;
mod dependencies;
mod dns;
mod drain;
mod forward;
mod framing;
mod fuzz_smoke;
mod handshakes;
mod http2;
mod http2_conformance;
mod leaks;
mod limits;
mod observe;
mod panics;
mod proxy_protocol;
mod published_keys;
mod reactor;
mod release;
mod reload;
mod replay;
mod routing;
mod service_manager;
mod signatures;
mod state;
mod telemetry;
mod tls;
mod tls_faults;
mod upstream_faults;
