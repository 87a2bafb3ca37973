//! `hookward schema`: the configuration as JSON Schema, for editors.

use super::ExitStatus;
use super::output::Output;
use crate::config;

/// Print the JSON Schema of the configuration
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, output: &mut Output) -> ExitStatus {
    output.bytes(config::SCHEMA.as_bytes());
    ExitStatus::Success
}
