//! When to load the configuration anew: SIGHUP, or a change of any file it was made from.
//!
//! Directories are watched, not files, for editors and Kubernetes replace files whole; and files
//! are looked at from time to time as well, for there are file systems that report nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

use crate::config::{self, Config, Environment, Loaded, Stamp};

/// How often files are looked at without being told (SECURITY S-22).
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// A change is rarely alone: wait until it is quiet.
const QUIET_TIME: Duration = Duration::from_millis(200);
/// One that is never quiet is read all the same.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// Folders that a line of the log names.
const FOLDERS_SHOWN: usize = 3;

/// Waits for changes and loads the configuration.
#[derive(Debug)]
pub struct Reloader {
    file: Option<PathBuf>,
    env: Environment,
    /// Every file that the configuration was made from, as it was before it was read.
    seen: Vec<(PathBuf, Stamp)>,
    news: News,
    /// Why it is not in force: until that is mended, it is read again at every poll, for the reason may be one that passes
    /// and leaves no trace in a file, such as too many open ones, or a port that another process still has.
    wrong: Option<String>,
    /// Whether it is read again for that alone.
    is_retry: bool,
    /// Whether it could be loaded the last time.
    has_loaded: bool,
    /// Until when a file that changes and changes is waited for.
    patience: Option<Instant>,
    loading: Option<JoinHandle<Loaded>>,
    sources: Sources,
}

/// Where news come from. Without a watcher, polling and SIGHUP still work.
#[derive(Debug, Default)]
struct Sources {
    hangup: Option<Signal>,
    poll: Option<Interval>,
    watcher: Option<RecommendedWatcher>,
    /// What it watches.
    folders: Folders,
    events: Option<mpsc::Receiver<()>>,
}

/// Folders by path, and which ones they were: another one of the same name is watched anew.
type Folders = BTreeMap<PathBuf, Option<(u64, u64)>>;

/// What has been noticed and not yet been acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// An operator asked, by SIGHUP.
    Asked,
    /// Files may have changed.
    Changed,
    /// It is time to look.
    Due,
    /// Nothing.
    None,
}

impl Reloader {
    /// Reloads `file` when it, or one of the files it was made from, is no longer as it was `seen`.
    pub fn of_file(file: PathBuf, env: Environment, seen: Vec<(PathBuf, Stamp)>) -> Self {
        Self {
            file: Some(file),
            seen,
            ..Self::never(env)
        }
    }

    /// Never reloads: the configuration is built in.
    pub fn never(env: Environment) -> Self {
        Self {
            file: None,
            env,
            seen: Vec::new(),
            news: News::None,
            wrong: None,
            is_retry: false,
            has_loaded: false,
            patience: None,
            loading: None,
            sources: Sources::default(),
        }
    }

    /// Begins to listen, in a runtime. `hangup` receives SIGHUP.
    pub fn listen(&mut self, hangup: Signal) {
        self.sources.hangup = Some(hangup);
        if self.file.is_none() {
            return;
        }
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.sources.poll = Some(poll);
        self.watch();
    }

    /// Waits for a change and loads. An error is all that is wrong with the new configuration. How it ended is to be
    /// [told](Self::ended).
    ///
    /// Cancel safe: what has been noticed is remembered, and a load that was begun goes on.
    pub async fn next(&mut self) -> anyhow::Result<Config> {
        let Some(file) = self.file.clone() else {
            return std::future::pending().await;
        };
        loop {
            if self.loading.is_none() {
                self.until_changed().await;
            }
            let loaded = self.load(&file).await;
            if !loaded.as_ref().is_err_and(|error| self.is_known(error)) {
                return loaded;
            }
        }
    }

    /// Takes note of whether the configuration is in force now; `false` when there is nothing to say of it: what stood in
    /// its way still does.
    pub fn ended(&mut self, result: &anyhow::Result<()>) -> bool {
        let error = result.as_ref().err();
        let is_known = error.is_some_and(|error| self.is_known(error));
        self.wrong = error.map(shown_error);
        !is_known
    }

    /// Whether it was read once more, and the same is wrong.
    fn is_known(&self, error: &anyhow::Error) -> bool {
        self.is_retry && self.wrong.as_ref() == Some(&shown_error(error))
    }

    async fn load(&mut self, file: &Path) -> anyhow::Result<Config> {
        let env = &self.env;
        let loading = self.loading.get_or_insert_with(|| {
            let (file, env) = (file.to_owned(), env.clone());
            spawn_blocking(move || config::reload(&file, &env))
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
        let is_told = std::mem::replace(&mut self.has_loaded, config.is_some()) && self.is_retry;
        let problems = report.beginning().to_string();
        let problems = problems.trim_end();
        let config = config.ok_or_else(|| anyhow::anyhow!("{problems}"))?;
        if !problems.is_empty() && !is_told {
            tracing::warn!("the new configuration has warnings:\n{problems}");
        }
        Ok(config)
    }

    /// Waits until there is something to load.
    async fn until_changed(&mut self) {
        loop {
            if self.news == News::None {
                self.news = self.sources.next().await;
            }
            if matches!(self.news, News::Changed | News::Due) {
                self.until_quiet().await;
            }
            let news = std::mem::replace(&mut self.news, News::None);
            let mut seen = self.seen.iter();
            let has_changed = seen.any(|(file, seen)| Stamp::of(file) != *seen);
            self.is_retry = news == News::Due && !has_changed && self.wrong.is_some();
            if news == News::Asked || has_changed || self.is_retry {
                return;
            }
        }
    }

    /// Waits until no file has changed for a while, for one that is written in pieces is not yet what it is to be. An
    /// operator who asks is not kept waiting.
    async fn until_quiet(&mut self) {
        let now = |seen: &[(PathBuf, Stamp)]| -> Vec<_> {
            seen.iter().map(|(file, _)| Stamp::of(file)).collect()
        };
        // Kept, for whoever waits for this waits for other things, too, and begins anew.
        let patience = *self
            .patience
            .get_or_insert_with(|| Instant::now() + QUIET_MAX);
        loop {
            let before = now(&self.seen);
            let hangup = self.sources.hangup.as_mut().map(Signal::recv);
            tokio::select! {
                () = or_never(hangup) => {
                    self.news = News::Asked;
                    break;
                }
                () = sleep(QUIET_TIME) => {}
            }
            if now(&self.seen) == before || Instant::now() >= patience {
                break;
            }
        }
        self.patience = None;
    }

    /// Watches the files that the configuration was made from this time.
    fn follow(&mut self, watched: Vec<(PathBuf, Stamp)>) {
        self.seen = watched;
        if self.folders() != self.sources.folders {
            self.watch();
        }
    }

    fn folders(&self) -> Folders {
        folders(self.seen.iter().map(|(file, _)| file.as_path()))
    }

    fn watch(&mut self) {
        let folders = self.folders();
        let watcher = watcher(folders.keys());
        self.sources.folders = folders;
        match watcher {
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
            folders: _,
        } = self;
        tokio::select! {
            biased;
            () = or_never(hangup.as_mut().map(Signal::recv)) => News::Asked,
            () = or_never(poll.as_mut().map(Interval::tick)) => News::Due,
            () = or_never(events.as_mut().map(mpsc::Receiver::recv)) => News::Changed,
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

fn watcher<'f>(
    folders: impl Iterator<Item = &'f PathBuf>,
) -> notify::Result<(RecommendedWatcher, mpsc::Receiver<()>)> {
    // One word waits, whatever the number of events: they all say "look again".
    let (sender, events) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| !event.kind.is_access()) {
            sender.try_send(()).ok();
        }
    })?;
    // One that is not there yet is polled.
    let mut polled = Vec::new();
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            polled.push((folder, error));
        }
    }
    if let Some((_, error)) = polled.first() {
        let (count, folders) = (polled.len(), shown(&polled));
        tracing::warn!(%error, count, folders, "folders cannot be watched; they are polled every 30 s");
    }
    Ok((watcher, events))
}

fn shown_error(error: &anyhow::Error) -> String {
    format!("{error:#}")
}

/// The first few of them, for a log.
fn shown(polled: &[(&PathBuf, notify::Error)]) -> String {
    let first = polled.iter().take(FOLDERS_SHOWN);
    let first: Vec<_> = first
        .map(|(folder, _)| folder.display().to_string())
        .collect();
    first.join(", ")
}

/// The folders that the files lie in.
fn folders<'f>(files: impl Iterator<Item = &'f Path>) -> Folders {
    let mut folders = Folders::new();
    for file in files {
        let parent = file.parent().unwrap_or(Path::new("/"));
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        let identity = std::fs::metadata(parent).map(|data| (data.dev(), data.ino()));
        folders.insert(parent.to_owned(), identity.ok());
    }
    folders
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use tokio::signal::unix::{SignalKind, signal};
    use tokio::time::timeout;

    use super::*;

    /// A configuration whose secret stands in a file, and that file.
    fn files(dir: &Path) -> (PathBuf, PathBuf) {
        let (file, secret) = (dir.join("hookward.yaml"), dir.join("secret"));
        let text = "version: 1
listeners: { http: { address: 127.0.0.1:0, plaintext: allow } }
routes:
  - name: a
    match: { path: /a }
    verify: [{ provider: github, secrets: [file:secret] }]
    upstream: echo
";
        fs::write(&file, text).unwrap();
        fs::write(&secret, "a secret of the first version").unwrap();
        (file, secret)
    }

    #[tokio::test]
    async fn what_changes_after_it_was_read_is_read_again() {
        // SECURITY S-14: whoever looks a little later must not take the new version for the one that was read
        let dir = tempfile::tempdir().unwrap();
        let (file, secret) = files(dir.path());
        let env = Environment::empty();
        let loaded = config::load(&file, &env);
        fs::write(&secret, "a secret of the second version, which is longer").unwrap();
        let mut reloader = Reloader::of_file(file, env, loaded.watched);
        reloader.listen(signal(SignalKind::hangup()).unwrap());
        assert!(reloader.next().await.is_ok());
    }

    #[tokio::test]
    async fn a_folder_that_was_replaced_is_watched_like_the_first() {
        // SECURITY S-22, T-04
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = files(dir.path());
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("file:secret", "file:kept/secret")).unwrap();
        let make = |name: &str, secret: &str| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("secret"), secret).unwrap();
            folder
        };
        let kept = make("kept", "a secret of the first version");
        let env = Environment::empty();
        let loaded = config::load(&file, &env);
        let mut reloader = Reloader::of_file(file, env, loaded.watched);
        reloader.listen(signal(SignalKind::hangup()).unwrap());
        let next = make("next", "a secret of the second version, which is longer");
        fs::rename(&kept, dir.path().join("old")).unwrap();
        fs::rename(&next, &kept).unwrap();
        assert!(reloader.next().await.is_ok());
        fs::write(kept.join("secret"), "a secret of the third version").unwrap();
        // Long before anybody would look without being told.
        let told = timeout(POLL_INTERVAL / 3, reloader.next()).await;
        assert!(told.expect("it is watched").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_read_is_read_again_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = files(dir.path());
        let env = Environment::empty();
        let loaded = config::load(&file, &env);
        let mut reloader = Reloader::of_file(file.clone(), env, loaded.watched);
        // No watcher: there, nothing happens at all.
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reloader.sources.poll = Some(poll);
        let away = dir.path().join("away");
        fs::rename(&file, &away).unwrap();
        let wrong = reloader.next().await.map(drop);
        assert!(wrong.is_err() && reloader.ended(&wrong));
        // The same is wrong for an hour, and nobody hears of it again.
        let hour = Duration::from_secs(3610);
        let again = timeout(hour, reloader.next()).await;
        assert!(again.is_err() && reloader.loading.is_none());
        // What stood in the way leaves no trace: as far as the stamps tell, nothing has changed.
        fs::rename(&away, &file).unwrap();
        reloader.seen = vec![(file.clone(), Stamp::of(&file))];
        // Nor do those who cannot put it into force, which is tried again for as long.
        for (error, is_news) in [("a port is taken", true), ("a port is taken", false)] {
            assert!(reloader.next().await.is_ok());
            let result = Err(anyhow::anyhow!(error));
            assert_eq!(reloader.ended(&result), is_news);
        }
        assert!(reloader.next().await.is_ok());
        assert!(reloader.ended(&Ok(())));
        let again = timeout(hour, reloader.next()).await;
        assert!(again.is_err());
    }

    #[tokio::test]
    async fn a_pipe_in_the_place_of_the_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = files(dir.path());
        let env = Environment::empty();
        let loaded = config::load(&file, &env);
        let text = fs::read_to_string(&file).unwrap();
        let mut reloader = Reloader::of_file(file.clone(), env, loaded.watched);
        reloader.listen(signal(SignalKind::hangup()).unwrap());
        fs::remove_file(&file).unwrap();
        let made = Command::new("mkfifo").arg(&file).status().unwrap();
        assert!(made.success());
        let refused = timeout(POLL_INTERVAL, reloader.next()).await;
        let wrong = refused.expect("nobody waits for it").unwrap_err();
        assert!(wrong.to_string().contains("not a regular file"), "{wrong}");
        fs::remove_file(&file).unwrap();
        fs::write(&file, text).unwrap();
        assert!(reloader.next().await.is_ok());
    }

    #[tokio::test]
    async fn of_many_problems_the_first_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = files(dir.path());
        let env = Environment::empty();
        let loaded = config::load(&file, &env);
        let mut reloader = Reloader::of_file(file.clone(), env, loaded.watched);
        reloader.listen(signal(SignalKind::hangup()).unwrap());
        fs::write(&file, format!("routes: [{}]", "{ a: 1 }, ".repeat(1000))).unwrap();
        let wrong = reloader.next().await.unwrap_err().to_string();
        assert!(wrong.len() < 10_000, "{wrong}");
        assert!(wrong.ends_with("more: `hookward validate` lists all"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_written_in_pieces_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = files(dir.path());
        let seen = vec![(file.clone(), Stamp::of(&file))];
        let env = Environment::empty();
        let mut reloader = Reloader::of_file(file.clone(), env, seen);
        let write = async |pieces: usize| {
            for length in 1..=pieces {
                sleep(QUIET_TIME / 2).await;
                fs::write(&file, "#".repeat(length)).unwrap();
            }
        };
        let lengths = async || fs::read_to_string(&file).unwrap().len();
        let (len, ()) = tokio::join!(
            async {
                reloader.until_quiet().await;
                lengths().await
            },
            write(20)
        );
        assert_eq!(len, 20);
        // One that never rests is read at last, however often whoever waits is called away.
        reloader.news = News::Changed;
        let (len, ()) = tokio::join!(
            async {
                while timeout(QUIET_MAX / 3, reloader.until_changed())
                    .await
                    .is_err()
                {}
                lengths().await
            },
            write(200)
        );
        assert!(len < 200, "{len}");
    }
}
