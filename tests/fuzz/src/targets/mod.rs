//! What is fuzzed: one file for each way in, each with `run`, which must hold for any bytes, and `seeds`,
//! which gives it something to begin with.
//!
//! The fuzzer calls these, and so does the normal test run (`tests/it/fuzz_smoke.rs`), over the seeds
//! and a few thousand changed copies of them.

pub(crate) mod aws_sns;
pub(crate) mod config_yaml;
pub(crate) mod forms;
pub(crate) mod forwarded_for;
pub(crate) mod http_signature;
pub(crate) mod json_pointer;
pub(crate) mod jwt;
mod laws;
pub(crate) mod path_matcher;
pub(crate) mod proxy;
pub(crate) mod proxy_header;
pub(crate) mod query_rewrite;
pub(crate) mod request_parser;
pub(crate) mod scheme_yaml;
pub(crate) mod signature_header;
mod support;
pub(crate) mod timestamps;
pub(crate) mod url_forms;

/// A way in.
pub(crate) struct Target {
    /// Its name, which is that of the file.
    pub(crate) name: &'static str,
    /// Judges one input; panics where an invariant does not hold.
    pub(crate) run: fn(&[u8]),
    /// Inputs to begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident)+) => {
        &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds }),+]
    };
}

/// Every one.
pub(crate) const TARGETS: &[Target] = targets! {
    aws_sns config_yaml forms forwarded_for http_signature json_pointer jwt path_matcher proxy proxy_header
    query_rewrite request_parser scheme_yaml signature_header timestamps url_forms
};
