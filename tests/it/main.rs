//! Black-box tests: the binary as its users meet it. One file for each thing it does; what they share
//! is in `support`.

mod imports;
mod support;

mod body;
mod credentials;
mod drain;
mod forward;
mod framing;
mod http2;
mod leaks;
mod limits;
mod observe;
mod reload;
mod replay;
mod routing;
mod signatures;
mod telemetry;
mod tls;
mod upstream_faults;
