#![doc = include_str!("ARCHITECTURE.md")]

// The core: no I/O, no async, no clocks.
pub mod document;
pub mod password_hash;
pub mod private_file;
pub mod problem;
pub mod reason;
pub mod route;
pub mod scheme;
pub mod secret;
pub mod settings;
pub mod shares;
pub mod units;

// The data path.
pub mod clock;
pub mod gateway;
pub mod store;
pub mod telemetry;

// The edges.
pub mod admin;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod descriptors;
pub mod dumps;
pub mod net;
pub mod reload;
pub mod server;
pub mod systemd;
pub mod tasks;
