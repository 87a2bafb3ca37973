//! `hookward validate`: every problem of a configuration, secrets resolved.

use anyhow::bail;
use clap::ValueEnum;

use super::ExitStatus;
use super::config_file::{ConfigArgs, note_report};
use super::output::Output;
use crate::config::{self, Environment, Loaded};

/// Report every problem of a configuration
///
/// Reads the file as `run` would, secrets and certificates included. Exits 0 when it can be used,
/// 1 when it cannot, 2 when there is no file to judge. Warnings do not change the exit status.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigArgs,
    /// How to print the problems: text on standard error, or JSON on standard output
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For machines
    Json,
}

pub(super) fn run(
    args: &Args,
    env: &Environment,
    output: &mut Output,
) -> anyhow::Result<ExitStatus> {
    let file = match args.file.require(env) {
        Ok(file) => file,
        Err(error) if args.format == Format::Json => {
            let report = config::unusable(&format!("{error:#}"));
            output.json(&report.to_json())?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let Loaded {
        config,
        report,
        unreadable,
        ..
    } = config::load(&file, env);
    if unreadable {
        match args.format {
            Format::Json => output.json(&report.to_json())?,
            Format::Text => note_report(&report, output),
        }
        bail!("cannot read {}", file.display());
    }
    let is_valid = config.is_some();
    match args.format {
        Format::Json => output.json(&report.to_json())?,
        Format::Text => {
            note_report(&report, output);
            let (errors, warnings) = report.counts();
            let verdict = if is_valid { "valid" } else { "invalid" };
            output.note(format_args!(
                "{}: {verdict} ({}, {})",
                file.display(),
                count(errors, "error"),
                count(warnings, "warning")
            ));
        }
    }
    Ok(if is_valid {
        ExitStatus::Success
    } else {
        ExitStatus::No
    })
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
