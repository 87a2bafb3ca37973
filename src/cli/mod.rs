//! The command line: one file per verb.
//!
//! Data goes to standard output, everything else to standard error; exit codes are [`ExitStatus`].

use std::borrow::Cow;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Environment;
use crate::problem::printable;

mod completions;
mod config_file;
mod hash_password;
mod input;
mod man;
mod output;
mod providers;
mod quickstart;
mod routes;
mod run;
mod schema;
mod send;
mod sign;
mod url;
mod validate;
pub mod verify;

use output::Output;

/// Verifies webhooks in front of your app
///
/// A TLS-terminating reverse proxy that verifies each request by the rules of a YAML file and lets
/// nothing reach the app that was not verified.
#[derive(Debug, Parser)]
#[command(
    name = "hookward",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    #[command(visible_alias = "check")]
    Validate(validate::Args),
    Verify(verify::Args),
    Sign(sign::Args),
    Send(send::Args),
    Providers(providers::Args),
    Routes(routes::Args),
    HashPassword(hash_password::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExitStatus {
    /// `run` was given a configuration that cannot be used: `EX_CONFIG`, which service managers know
    /// not to restart on.
    BadConfig,
    /// The answer is no; for `run`, serving failed.
    No,
    /// Done; the answer is yes.
    Success,
    /// The question could not be answered: usage, a file that cannot be read, no such preset.
    Unable,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(match status {
            ExitStatus::Success => 0,
            ExitStatus::No => 1,
            ExitStatus::Unable => 2,
            ExitStatus::BadConfig => 78,
        })
    }
}

/// An error of several lines, each of which was made [`printable`] by itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Printable(String);

/// Runs the verb that `args` name, the program's own name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut output = Output::default();
    let args: Vec<OsString> = args.into_iter().collect();
    let status = match Cli::try_parse_from(&args) {
        Ok(cli) => {
            let ended = cli.verb.run(&Environment::from_process(), &mut output);
            ended.unwrap_or_else(|error| {
                let text = format!("{error:#}");
                let text = if error.is::<Printable>() {
                    Cow::Borrowed(&*text)
                } else {
                    printable(&text)
                };
                output.note(format_args!("error: {text}"));
                ExitStatus::Unable
            })
        }
        Err(error) if error.use_stderr() => {
            let error = with_tip(error, args.get(1));
            output.note(error.render().to_string().trim_end());
            ExitStatus::Unable
        }
        Err(help) => {
            output.bytes(help.render().to_string().as_bytes());
            ExitStatus::Success
        }
    };
    output.finish(status).into()
}

/// Says how a configuration is named, where it stands alone.
fn with_tip(mut error: clap::Error, verb: Option<&OsString>) -> clap::Error {
    let verb = verb.and_then(|verb| verb.to_str()).unwrap_or_default();
    if error.kind() == ErrorKind::UnknownArgument
        && ["check", "run", "validate"].contains(&verb)
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && !word.starts_with('-')
    {
        let tip = format!("to name the configuration, write `-c {word}`");
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

impl Verb {
    fn run(self, env: &Environment, output: &mut Output) -> anyhow::Result<ExitStatus> {
        match self {
            Self::Run(args) => Ok(run::run(&args, env, output)),
            Self::Validate(args) => validate::run(&args, env, output),
            Self::Verify(args) => verify::run(&args, env, output),
            Self::Sign(args) => sign::run(&args, env, output),
            Self::Send(args) => send::run(&args, env, output),
            Self::Providers(args) => providers::run(&args, output),
            Self::Routes(args) => routes::run(&args, env, output),
            Self::HashPassword(args) => hash_password::run(&args, output),
            Self::Schema(args) => Ok(schema::run(&args, output)),
            Self::Completions(args) => Ok(completions::run(&args, Cli::command(), output)),
            Self::Man(args) => man::run(&args, Cli::command(), output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }
}
