//! `hookward completions`: what a shell completes.

use clap::Command;
use clap_complete::Shell;

use super::ExitStatus;
use super::output::Output;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(args: &Args, mut command: Command, output: &mut Output) -> ExitStatus {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "hookward", &mut script);
    output.bytes(&script);
    ExitStatus::Success
}
