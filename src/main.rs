//! The `hookward` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookward::cli::main(std::env::args_os())
}
