//! When to load the configuration anew: SIGHUP, or a change of any file it was made from.
//!
//! Directories are watched, not files, for editors and Kubernetes replace files whole; and files
//! are looked at from time to time as well, for there are file systems that report nothing.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::config::{self, Config, Environment, Loaded};

/// How often files are looked at without being told (SECURITY S-22).
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// A change is rarely alone: wait until it is quiet.
const QUIET_TIME: Duration = Duration::from_millis(200);

/// Waits for changes and loads the configuration.
#[derive(Debug)]
pub struct Reloader {
    file: Option<PathBuf>,
    env: Environment,
    /// Every file that the configuration was made from, as it was before it was last read.
    seen: Vec<(PathBuf, Stamp)>,
    news: News,
    loading: Option<JoinHandle<Loaded>>,
    sources: Sources,
}

/// Where news come from. Without a watcher, polling and SIGHUP still work.
#[derive(Debug, Default)]
struct Sources {
    hangup: Option<Signal>,
    poll: Option<Interval>,
    watcher: Option<RecommendedWatcher>,
    events: Option<mpsc::Receiver<()>>,
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

/// What tells one version of a file from another; `None` when there is none.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Reloader {
    /// Reloads `file` when it, or one of the files it was made from, changes.
    pub fn of_file(file: PathBuf, env: Environment, files: Vec<PathBuf>) -> Self {
        let mut reloader = Self::never(env);
        reloader.file = Some(file);
        reloader.seen = files
            .into_iter()
            .map(|file| {
                let seen = stamp(&file);
                (file, seen)
            })
            .collect();
        reloader
    }

    /// Never reloads: the configuration is built in.
    pub fn never(env: Environment) -> Self {
        Self {
            file: None,
            env,
            seen: Vec::new(),
            news: News::None,
            loading: None,
            sources: Sources::default(),
        }
    }

    /// Begins to listen, in a runtime. From here on SIGHUP does not end the process.
    pub fn listen(&mut self) {
        match signal(SignalKind::hangup()) {
            Ok(hangup) => self.sources.hangup = Some(hangup),
            Err(error) => tracing::error!(%error, "SIGHUP cannot be received"),
        }
        if self.file.is_none() {
            return;
        }
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.sources.poll = Some(poll);
        self.watch();
    }

    /// Waits for a change and loads. An error is all that is wrong with the new configuration.
    ///
    /// Cancel safe: what has been noticed is remembered, and a load that was begun goes on.
    pub async fn next(&mut self) -> anyhow::Result<Config> {
        let Some(file) = self.file.clone() else {
            return std::future::pending().await;
        };
        if self.loading.is_none() {
            self.until_changed().await;
        }
        let env = &self.env;
        let loading = self.loading.get_or_insert_with(|| {
            let env = env.clone();
            spawn_blocking(move || config::load(&file, &env))
        });
        let loaded = loading.await;
        self.loading = None;
        let Loaded {
            config,
            report,
            watched,
            ..
        } = loaded?;
        self.follow(watched);
        match config {
            Some(config) => {
                if !report.problems().is_empty() {
                    tracing::warn!(
                        "the configuration is doubtful:\n{}",
                        report.beginning().to_string().trim_end()
                    );
                }
                Ok(config)
            }
            None => Err(anyhow::anyhow!(
                "{}",
                report.to_string().trim_end().to_owned()
            )),
        }
    }

    /// Waits until there is something to load, and notes the files as they are before that.
    async fn until_changed(&mut self) {
        loop {
            if self.news == News::None {
                self.news = self.sources.next().await;
            }
            if self.news == News::Changed {
                sleep(QUIET_TIME).await;
            }
            let asked = std::mem::replace(&mut self.news, News::None) == News::Asked;
            let mut changed = false;
            for (file, seen) in &mut self.seen {
                let now = stamp(file);
                changed |= now != *seen;
                *seen = now;
            }
            if asked || changed {
                return;
            }
        }
    }

    /// Watches the files that the configuration was made from this time.
    fn follow(&mut self, watched: Vec<PathBuf>) {
        let before: HashMap<PathBuf, Stamp> = self.seen.drain(..).collect();
        let folders_before: BTreeSet<_> = folders(before.keys().map(PathBuf::as_path));
        self.seen = watched
            .into_iter()
            .map(|file| {
                // What was known keeps the stamp from before it was read: a change since counts.
                let seen = before.get(&file).copied().unwrap_or_else(|| stamp(&file));
                (file, seen)
            })
            .collect();
        if folders(self.seen.iter().map(|(file, _)| file.as_path())) != folders_before {
            self.watch();
        }
    }

    fn watch(&mut self) {
        let folders = folders(self.seen.iter().map(|(file, _)| file.as_path()));
        match watcher(&folders) {
            Ok((watcher, events)) => {
                self.sources.watcher = Some(watcher);
                self.sources.events = Some(events);
            }
            Err(error) => {
                tracing::warn!(%error, "files cannot be watched; they are polled every 30 s");
            }
        }
    }
}

impl Sources {
    /// Waits for news. Cancel safe.
    async fn next(&mut self) -> News {
        let Self {
            hangup,
            poll,
            events,
            watcher: _,
        } = self;
        tokio::select! {
            biased;
            () = or_never(hangup.as_mut().map(Signal::recv)) => News::Asked,
            () = or_never(events.as_mut().map(mpsc::Receiver::recv)) => News::Changed,
            () = or_never(poll.as_mut().map(Interval::tick)) => News::Changed,
        }
    }
}

/// Waits for a source, for ever when there is none.
async fn or_never<F: Future>(source: Option<F>) {
    match source {
        Some(source) => drop(source.await),
        None => std::future::pending().await,
    }
}

fn watcher(
    folders: &BTreeSet<PathBuf>,
) -> notify::Result<(RecommendedWatcher, mpsc::Receiver<()>)> {
    // One word waits, whatever the number of events: they all say "look again".
    let (sender, events) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| !event.kind.is_access()) {
            sender.try_send(()).ok();
        }
    })?;
    for folder in folders {
        // One that is not there yet is polled.
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, folder = %folder.display(), "a folder cannot be watched; it is polled");
        }
    }
    Ok((watcher, events))
}

/// The folders that the files lie in.
fn folders<'f>(files: impl Iterator<Item = &'f Path>) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for file in files {
        let parent = file.parent().unwrap_or(Path::new("/"));
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        folders.insert(parent.to_owned());
    }
    folders
}

fn stamp(file: &Path) -> Stamp {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}
