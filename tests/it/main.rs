//! Everything that is tested from outside: the library by its API, the binary by its sockets.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod config;
mod handshakes;
mod imports;
mod presets;
mod support;
mod vectors;
