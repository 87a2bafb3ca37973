//! Everything that is tested from outside: the library by its API, the binary by its sockets.

mod docs;
mod imports;
mod vectors;
