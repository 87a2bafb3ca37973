//! Everything that is tested from outside: the library by its API, the binary by its sockets.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
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
