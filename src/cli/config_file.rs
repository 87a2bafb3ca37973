//! Which configuration a verb works on.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::output::Output;
use crate::config::{self, Config, Environment, Loaded};
use crate::problem::Report;

/// Where `-c` leads when it is not given.
const DEFAULT_FILE: &str = "hookward.yaml";
const FILE_VARIABLE: &str = "HOOKWARD_CONFIG";

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// Configuration file [default: `$HOOKWARD_CONFIG`, then `./hookward.yaml`]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl ConfigArgs {
    /// The file that was named, or the default one when it exists.
    pub(super) fn find(&self, env: &Environment) -> Option<PathBuf> {
        let named = || env.path(FILE_VARIABLE);
        // A link to nowhere is there, too: a mount that is missing must not look like a first try.
        let default =
            || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.is_symlink() || file.exists());
        self.config.clone().or_else(named).or_else(default)
    }

    /// As [`ConfigArgs::find`], for verbs that cannot do without.
    pub(super) fn require(&self, env: &Environment) -> anyhow::Result<PathBuf> {
        match self.find(env) {
            Some(file) => Ok(file),
            None => bail!(
                "no configuration: there is no ./{DEFAULT_FILE}; name a file with `-c FILE` or \
                 `{FILE_VARIABLE}`"
            ),
        }
    }

    /// The configuration itself. When it cannot be used, its problems go to standard error; its
    /// warnings are `validate`'s to tell.
    pub(super) fn load(&self, env: &Environment, output: &Output) -> anyhow::Result<Config> {
        let file = self.require(env)?;
        let Loaded { config, report, .. } = config::load(&file, env);
        if let Some(config) = config {
            return Ok(config);
        }
        note_report(&report, output);
        bail!("{} cannot be used", file.display())
    }
}

/// Prints every problem of a configuration, if there is any.
pub(super) fn note_report(report: &Report, output: &Output) {
    if !report.problems().is_empty() {
        output.note(report.to_string().trim_end());
    }
}

/// Prints the first warnings of a configuration that is used all the same.
pub(super) fn note_warnings(report: &Report, output: &Output) {
    if !report.problems().is_empty() {
        output.note(report.beginning().to_string().trim_end());
    }
}

/// References that are no part of a file start at the folder the command runs in.
pub(super) fn working_folder() -> &'static Path {
    Path::new(".")
}
