//! Everything that is tested from outside: the library by its API, the binary by its sockets.

mod imports;
mod presets;
mod vectors;
