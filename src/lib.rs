#![doc = "x"]
pub mod admin;
pub mod clock;
pub mod document;
pub mod gateway;
pub mod password_hash;
pub mod problem;
pub mod reason;
pub mod route;
pub mod scheme;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod units;

// The data path.
pub mod clock;
pub mod gateway;
pub mod store;
pub mod telemetry;

// The edges.
pub mod net;
