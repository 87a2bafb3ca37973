//! When to load the configuration anew: SIGHUP, or a change of any file it was made from.
//!
//! Directories are watched, not files, for editors and Kubernetes replace files whole; and files
//! are looked at from time to time as well, for there are file systems that report nothing.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::config::{self, Config, Environment, Loaded};

/// How often files are looked at without being told.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// A change is rarely alone: wait until it is quiet.
const QUIET_TIME: Duration = Duration::from_millis(200);

/// Waits for changes and loads the configuration.
#[derive(Debug)]
pub struct Reloader {
    file: Option<PathBuf>,
    env: Environment,
    files: Vec<PathBuf>,
    seen: Vec<Stamp>,
    news: News,
    hangup: Option<Signal>,
    watcher: Option<RecommendedWatcher>,
    events: Option<mpsc::UnboundedReceiver<()>>,
}

/// What has been noticed and not yet been acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// An operator asked, by SIGHUP.
    Asked,
    /// Files may have changed.
    Changed,
    /// Nothing.
    None,
}

/// What tells one version of a file from another.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Reloader {
    /// Reloads `file` when it, or one of the files it was made from, changes.
    pub fn of_file(file: PathBuf, env: Environment, files: Vec<PathBuf>) -> Self {
        let seen = stamps(&files);
        Self { file: Some(file), env, files, seen, news: News::None, hangup: None, watcher: None, events: None }
    }

    /// Never reloads: the configuration is built in.
    pub fn never(env: Environment) -> Self {
        let (files, seen) = (Vec::new(), Vec::new());
        Self { file: None, env, files, seen, news: News::None, hangup: None, watcher: None, events: None }
    }

    /// Waits for a change and loads. An error is all that is wrong with the new configuration.
    ///
    /// Cancel safe: what has been noticed is remembered.
    pub async fn next(&mut self) -> anyhow::Result<Config> {
        let Some(file) = self.file.clone() else { return std::future::pending().await };
        self.watch();
        loop {
            if self.news == News::None {
                self.news = self.wait().await;
            }
            if self.news == News::Changed {
                sleep(QUIET_TIME).await;
            }
            let asked = std::mem::replace(&mut self.news, News::None) == News::Asked;
            let stamps = stamps(&self.files);
            if asked || stamps != self.seen {
                self.seen = stamps;
                break;
            }
        }
        let Loaded { config, report, watched, .. } = config::load(&file, &self.env);
        if watched != self.files && !watched.is_empty() {
            self.seen = stamps(&watched);
            self.files = watched;
            self.watcher = None;
        }
        config.ok_or_else(|| anyhow::anyhow!("{}", report.to_string().trim_end().to_owned()))
    }

    async fn wait(&mut self) -> News {
        let Self { hangup, events, .. } = self;
        let asked = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            match events {
                Some(events) => events.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = asked => News::Asked,
            _ = changed => News::Changed,
            () = sleep(POLL_INTERVAL) => News::Changed,
        }
    }

    /// Starts what is not running yet. Without a watcher, polling and SIGHUP still work.
    fn watch(&mut self) {
        if self.hangup.is_none() {
            match signal(SignalKind::hangup()) {
                Ok(hangup) => self.hangup = Some(hangup),
                Err(error) => tracing::error!(%error, "SIGHUP cannot be received"),
            }
        }
        if self.watcher.is_none() {
            match watcher(&self.files) {
                Ok((watcher, events)) => {
                    self.watcher = Some(watcher);
                    self.events = Some(events);
                }
                Err(error) => {
                    tracing::warn!(%error, "files cannot be watched; they are polled every 30 s");
                }
            }
        }
    }
}

fn watcher(
    files: &[PathBuf],
) -> notify::Result<(RecommendedWatcher, mpsc::UnboundedReceiver<()>)> {
    let (sender, events) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // The receiver is gone when the program ends.
            sender.send(()).ok();
        }
    })?;
    let mut folders: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok((watcher, events))
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let meta = std::fs::metadata(file).ok()?;
        Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    files.iter().map(stamp).collect()
}
