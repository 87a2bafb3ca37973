//! `hookward man`: manual pages.

use anyhow::bail;
use clap::Command;

use super::ExitStatus;
use super::output::Output;

/// What stands at the foot of every page.
const SOURCE: &str = concat!("hookward ", env!("CARGO_PKG_VERSION"));

/// Print the manual page, of the program or of a verb
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Verb, such as `verify`; without one, the program
    #[arg(value_name = "VERB")]
    verb: Option<String>,
}

pub(super) fn run(
    args: &Args,
    mut command: Command,
    output: &mut Output,
) -> anyhow::Result<ExitStatus> {
    // Fills in the names that the pages of verbs carry: `hookward-verify`.
    command.build();
    let page = match &args.verb {
        None => command,
        Some(verb) => match command.find_subcommand(verb) {
            Some(found) => found.clone(),
            None => bail!("there is no verb `{verb}`"),
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .source(SOURCE)
        .render(&mut text)?;
    output.bytes(&text);
    Ok(ExitStatus::Success)
}
