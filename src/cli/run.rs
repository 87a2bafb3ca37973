//! `hookward run`: serves.

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;

use super::ExitStatus;
use super::config_file::{ConfigArgs, note_report, note_warnings};
use super::output::Output;
use super::quickstart::Quickstart;
use crate::config::{self, Config, Environment, Loaded, Stamp};
use crate::descriptors;
use crate::dumps;
use crate::problem::printable;
use crate::reload::Reloader;
use crate::server::{self, Bound, Main};
use crate::systemd::ServiceManager;
use crate::telemetry::Telemetry;
use crate::telemetry::log::{self, AccessLog, LogError};
use crate::telemetry::metrics::Metrics;

/// Serve: verify requests and forward what is authentic
///
/// Without any configuration, serves a demo and says how to try it. The access log goes to standard
/// output, everything else to standard error. SIGHUP loads the configuration anew; SIGTERM drains
/// and ends. `RUST_LOG` filters the operational log (default: info). Exits 0 when it was told to stop,
/// 1 when serving failed, 78 when the configuration cannot be used.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigArgs,
    /// How both logs are written
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// One JSON object a line
    #[default]
    Json,
    /// For people
    Text,
}

impl From<LogFormat> for log::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Text => Self::Text,
        }
    }
}

/// Where the configuration comes from.
enum Source {
    BuiltIn(Quickstart),
    File(PathBuf),
}

pub(super) fn run(args: &Args, env: &Environment, output: &Output) -> ExitStatus {
    if let Err(error) = dumps::forbid() {
        output.note(format_args!(
            "warning: core dumps cannot be switched off: {error}"
        ));
    }
    if let Err(error) = descriptors::raise() {
        output.note(format_args!(
            "warning: the limit of open files cannot be raised: {error}"
        ));
    }
    let main = match Main::new() {
        Ok(main) => main,
        Err(error) => {
            output.note(format_args!("error: signals cannot be received: {error}"));
            return ExitStatus::No;
        }
    };
    let ended = Source::find(args, env).and_then(|source| {
        let Loaded {
            config,
            report,
            watched,
            ..
        } = source.load(env);
        let Some(config) = config else {
            note_report(&report, output);
            return Ok(ExitStatus::BadConfig);
        };
        note_warnings(&report, output);
        drop(report); // it may be long, and serving is longer
        serve(main, args, config, (source, watched), env, output)
    });
    // Other verbs have `Unable` for this, but to serve is all that this one is for.
    ended.unwrap_or_else(|error| {
        let error = format!("{error:#}");
        output.note(format_args!("error: {}", printable(&error)));
        ExitStatus::No
    })
}

impl Source {
    fn find(args: &Args, env: &Environment) -> anyhow::Result<Self> {
        match args.file.find(env) {
            Some(file) => Ok(Self::File(file)),
            None => Quickstart::new(env).map(Self::BuiltIn),
        }
    }

    fn load(&self, env: &Environment) -> Loaded {
        match self {
            Self::BuiltIn(quickstart) => quickstart.load(),
            Self::File(file) => config::load(file, env),
        }
    }
}

fn serve(
    main: Main,
    args: &Args,
    config: Config,
    (source, watched): (Source, Vec<(PathBuf, Stamp)>),
    env: &Environment,
    output: &Output,
) -> anyhow::Result<ExitStatus> {
    // Before any thread is started, because it changes the environment.
    let manager = ServiceManager::new(env.get("NOTIFY_SOCKET"), env.get("LISTEN_FDNAMES"))
        .context("what the service manager passed cannot be used")?;
    let format = args.log_format.into();
    let log = match log::init(format, &log_filter(env)) {
        Err(error @ LogError::Filter(_)) => {
            output.note(format_args!("error: {error}"));
            return Ok(ExitStatus::BadConfig);
        }
        started => started?,
    };
    let connections = config.limits.connections;
    if let Some(limit) = descriptors::limit().filter(|limit| *limit < connections as u64) {
        tracing::warn!(
            limit,
            connections,
            "fewer files may be open than `limits.connections` says: raise `ulimit -n`, or `LimitNOFILE` of the unit"
        );
    }
    let (access, access_guard) = AccessLog::stdout(format)?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    metrics.show(log.dropped());
    let telemetry = Telemetry::new(metrics, access);
    let (reloader, quickstart) = match source {
        Source::BuiltIn(quickstart) => (Reloader::never(env.clone()), Some(quickstart)),
        Source::File(file) => (Reloader::of_file(file, env.clone(), watched), None),
    };
    let result = server::run(main, config, reloader, telemetry, manager, |bound| {
        invite(quickstart.as_ref(), bound, output);
    });
    drop((log, access_guard));
    result.map(|()| ExitStatus::Success)
}

/// What `RUST_LOG` asks for, and always the addresses that it listens on: with port 0 nothing else tells them.
fn log_filter(env: &Environment) -> String {
    let asked = env
        .get("RUST_LOG")
        .filter(|filter| !filter.is_empty())
        .unwrap_or("info");
    format!("{asked},{}=info", server::START)
}

/// Tells a person how to try the demo.
fn invite(quickstart: Option<&Quickstart>, bound: &[Bound], output: &Output) {
    let Some(quickstart) = quickstart else { return };
    let Some(listener) = bound.iter().find(|bound| &*bound.listener == "https") else {
        return;
    };
    match quickstart.invitation(listener.address) {
        Ok(text) => output.note(format_args!("\n{text}\n")),
        Err(error) => output.note(format_args!("warning: {error:#}")),
    }
}
