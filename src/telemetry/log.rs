//! The two logs: the access log, one event per request on standard output, and the operational log
//! on standard error.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use serde::{Serialize, Serializer};
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::lossy::{FlushGuard, LossyWriter, OutputState};
use super::{Outcome, Seldom, line, metrics};
use crate::reason::Reason;
use crate::units::UnixTime;

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// One request. Every field is always written, `null` (text: `-`) where unknown.
///
/// Text from outside is cut at 256 bytes. Whoever fills this in has already masked tokens in `path`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AccessEvent<'a> {
    /// When its answer began.
    #[serde(serialize_with = "moment")]
    pub timestamp: UnixTime,
    /// Ours, or a trusted proxy's.
    #[serde(serialize_with = "cut")]
    pub request_id: &'a str,
    /// Route name; `_none` without one.
    #[serde(serialize_with = "cut")]
    pub route: &'a str,
    /// Preset that proved the sender.
    #[serde(serialize_with = "cut_option")]
    pub provider: Option<&'a str>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was (or, observed, would have been) refused.
    #[serde(serialize_with = "reason_code")]
    pub reason: Option<Reason>,
    /// Status of the answer; unknown when the sender had left before one.
    pub status: Option<u16>,
    /// The sender, behind trusted proxies.
    pub client_ip: Option<IpAddr>,
    /// Request method.
    #[serde(serialize_with = "cut")]
    pub method: &'a str,
    /// Path without the query, tokens masked; unknown where the head could not be read.
    #[serde(serialize_with = "cut_option")]
    pub path: Option<&'a str>,
    /// Body bytes received.
    pub bytes_in: u64,
    /// The provider's id of the event.
    #[serde(serialize_with = "cut_option")]
    pub event_id: Option<&'a str>,
    /// Key that proved the sender.
    #[serde(serialize_with = "cut_option")]
    pub key_id: Option<&'a str>,
    /// What the upstream answered.
    pub upstream_status: Option<u16>,
    /// From the request's head to the answer's.
    #[serde(rename = "duration_ms", serialize_with = "millis")]
    pub duration: Duration,
}

fn reason_code<S: Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.map(Reason::code).serialize(serializer)
}

fn cut<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(line::cut(text))
}

fn cut_option<S: Serializer>(text: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    text.map(line::cut).serialize(serializer)
}

fn moment<S: Serializer>(time: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&line::moment(*time))
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(line::millis(*duration))
}

/// The access log. Cheap to clone; writing never waits.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: LogFormat,
    sink: Sink,
    dropped: IntCounter,
}

#[derive(Clone, Debug)]
enum Sink {
    Memory(Arc<Mutex<Vec<u8>>>),
    Writer(LossyWriter),
    /// Standard output is `/dev/null`: nobody reads what need not be written out.
    Nowhere,
}

impl AccessLog {
    /// To standard output. What still waits when the program ends is written when the guard drops.
    /// Where standard output is `/dev/null`, the log is off.
    pub fn stdout(format: LogFormat) -> std::io::Result<(Self, FlushGuard)> {
        // A descriptor of its own: the standard handle has a lock, and a buffer that outlives us.
        let output = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        let is_null = is_null_device(&output)?;
        let (log, guard) = Self::to(format, output)?;
        let sink = if is_null { Sink::Nowhere } else { log.sink };
        Ok((Self { sink, ..log }, guard))
    }

    /// To any output.
    pub fn to<W: Write + Send + 'static>(
        format: LogFormat,
        output: W,
    ) -> std::io::Result<(Self, FlushGuard)> {
        let dropped = metrics::access_log_dropped();
        let tell = |state: OutputState<'_>| match state {
            OutputState::Broken(error) => {
                tracing::warn!(%error, "the access log cannot be written");
            }
            OutputState::Mended { lost } => {
                tracing::info!(lost, "the access log can be written again");
            }
        };
        let (writer, guard) = LossyWriter::start("access-log", output, dropped.clone(), tell)?;
        let log = Self {
            format,
            sink: Sink::Writer(writer),
            dropped,
        };
        Ok((log, guard))
    }

    /// JSON lines kept in memory, for tests.
    pub fn capture() -> Self {
        Self {
            format: LogFormat::Json,
            sink: Sink::Memory(Arc::default()),
            dropped: metrics::access_log_dropped(),
        }
    }

    /// What was captured so far; empty for a log that is not a capture.
    pub fn captured(&self) -> String {
        match &self.sink {
            Sink::Memory(kept) => {
                let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                String::from_utf8_lossy(&kept).into_owned()
            }
            Sink::Writer(_) | Sink::Nowhere => String::new(),
        }
    }

    /// Whether anybody reads it.
    pub fn is_on(&self) -> bool {
        !matches!(self.sink, Sink::Nowhere)
    }

    /// Writes one event, or loses and counts it.
    pub fn write(&self, event: &AccessEvent<'_>) {
        let mut bytes = Vec::with_capacity(512);
        match self.format {
            LogFormat::Json => {
                if serde_json::to_writer(&mut bytes, event).is_err() {
                    return; // a Vec takes every byte and the keys are strings
                }
            }
            LogFormat::Text => bytes.extend_from_slice(line::text(event).as_bytes()),
        }
        bytes.push(b'\n');
        match &self.sink {
            Sink::Memory(kept) => kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .append(&mut bytes),
            Sink::Writer(writer) => writer.line(&bytes),
            Sink::Nowhere => {}
        }
    }

    /// Events lost so far.
    pub fn dropped(&self) -> &IntCounter {
        &self.dropped
    }
}

/// Whether an output is `/dev/null` (Linux: character device 1:3).
fn is_null_device(output: &std::fs::File) -> std::io::Result<bool> {
    let null = std::fs::metadata("/dev/null").map(|null| null.rdev());
    let own = output.metadata()?;
    Ok(own.file_type().is_char_device() && null.is_ok_and(|null| null == own.rdev()))
}

/// Starts the operational log on standard error. `filter` is what `RUST_LOG` holds (`info`,
/// `hookward=debug,warn`); an empty one is `info`. Call once, at the
/// start of a process; give the guard's count to [`Metrics::show`](metrics::Metrics::show).
pub fn init(format: LogFormat, filter: &str) -> Result<FlushGuard, LogError> {
    let output = std::io::stderr().as_fd().try_clone_to_owned()?;
    let output = std::fs::File::from(output);
    // There is nobody else to tell.
    let (writer, guard) = LossyWriter::start("log", output, metrics::log_dropped(), |_| {})?;
    let ansi = std::io::stderr().is_terminal();
    let subscriber =
        tracing_subscriber::registry().with(layer(format, filter, ansi, move || writer.clone())?);
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_already| LogError::AlreadyStarted)?;
    Ok(guard)
}

/// Why the operational log did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Someone called [`init`] before.
    #[error("the log is already running")]
    AlreadyStarted,
    /// The filter does not parse.
    #[error("`RUST_LOG` is no log filter ({0}); write `info` or `hookward=debug,warn`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// No thread, or standard error is closed.
    #[error("cannot write the log: {0}")]
    Output(#[from] std::io::Error),
}

fn layer<S, W, M>(
    format: LogFormat,
    filter: &str,
    ansi: bool,
    make_writer: M,
) -> Result<Box<dyn Layer<S> + Send + Sync>, LogError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
    M: Fn() -> W + Send + Sync + 'static,
{
    let filter = match filter.trim() {
        "" => Targets::new().with_default(LevelFilter::INFO),
        written => written.parse::<Targets>()?,
    };
    let filter = filter.and(Libraries::default());
    // Its complaint about a failed write would go to standard error with a macro that panics.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(make_writer)
        .log_internal_errors(false);
    Ok(match format {
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
        LogFormat::Text => layer.with_ansi(ansi).with_filter(filter).boxed(),
    })
}

/// Caps what the libraries of the network say, whatever filter is asked for: their verbose output prints buffers, with
/// tokens and bodies in them (SECURITY L-02), and of what any sender can make them warn of, one line at a time is enough.
#[derive(Debug, Default)]
struct Libraries {
    /// When each of their lines was last written.
    said: Mutex<HashMap<Identifier, Seldom>>,
}

impl Libraries {
    const TARGETS: [&str; 5] = ["h2", "hyper", "hyper_util", "rustls", "tokio_rustls"];

    fn have(metadata: &Metadata<'_>) -> bool {
        let library = metadata.target().split("::").next();
        library.is_some_and(|library| Self::TARGETS.contains(&library))
    }

    fn is_news(&self, metadata: &Metadata<'_>, now: Instant) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.entry(metadata.callsite()).or_default().is_due(now)
    }
}

impl<S> Filter<S> for Libraries {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        *metadata.level() <= Level::WARN || !Self::have(metadata)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        !Self::have(event.metadata()) || self.is_news(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>() -> AccessEvent<'a> {
        AccessEvent {
            timestamp: UnixTime::from_millis(1_790_000_000_120),
            request_id: "0198c0de-0000-7000-8000-000000000000",
            route: "github",
            provider: Some("github"),
            outcome: Outcome::Rejected,
            reason: Some(Reason::SignatureMismatch),
            status: Some(401),
            client_ip: Some([192, 0, 2, 7].into()),
            method: "POST",
            path: Some("/hooks/github"),
            bytes_in: 1_234,
            event_id: None,
            key_id: None,
            upstream_status: None,
            duration: Duration::from_micros(12_345),
        }
    }

    fn text(event: &AccessEvent<'_>) -> String {
        let log = AccessLog {
            format: LogFormat::Text,
            ..AccessLog::capture()
        };
        log.write(event);
        log.captured()
    }

    #[test]
    fn every_field_is_always_there() {
        let log = AccessLog::capture();
        log.write(&event());
        insta::assert_snapshot!(log.captured(), @r#"{"timestamp":"2026-09-21T14:13:20.120Z","request_id":"0198c0de-0000-7000-8000-000000000000","route":"github","provider":"github","outcome":"rejected","reason":"signature_mismatch","status":401,"client_ip":"192.0.2.7","method":"POST","path":"/hooks/github","bytes_in":1234,"event_id":null,"key_id":null,"upstream_status":null,"duration_ms":12.345}"#);
        insta::assert_snapshot!(text(&event()), @"2026-09-21T14:13:20.120Z 401 POST /hooks/github rejected reason=signature_mismatch route=github provider=github key_id=- event_id=- upstream_status=- client_ip=192.0.2.7 bytes_in=1234 duration_ms=12.345 request_id=0198c0de-0000-7000-8000-000000000000");
    }

    #[test]
    fn outside_text_is_cut_and_cannot_forge_lines() {
        // SECURITY L-07
        let long = "é".repeat(10_000);
        let forged = "1\n200 POST / forwarded\u{1b}[2J\u{9b}m\u{2028} key_id=\"x\"";
        let event = AccessEvent {
            path: Some(&long),
            event_id: Some(forged),
            ..event()
        };
        let log = AccessLog::capture();
        log.write(&event);
        let read: serde_json::Value = serde_json::from_str(&log.captured()).unwrap();
        assert_eq!(read["path"], "é".repeat(128));
        assert_eq!(read["event_id"], forged);
        for written in [log.captured(), text(&event)] {
            assert_eq!(written.matches('\n').count(), 1, "{written:?}");
            assert!(!written.contains('\u{1b}'));
        }
        let written = text(&event);
        assert!(!written.contains(['\u{9b}', '\u{2028}']));
        assert!(
            written.contains(
                r#"event_id="1\n200 POST / forwarded\u{1b}[2J\u{9b}m\u{2028} key_id=\"x\"" "#
            ),
            "{written}"
        );
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn libraries_are_capped_whatever_is_asked() {
        // SECURITY L-02
        for filter in ["trace", "hyper=trace,hyper::proto::h1=trace,trace"] {
            let kept = Kept::default();
            let output = kept.clone();
            let layer = layer(LogFormat::Json, filter, false, move || output.clone()).unwrap();
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                tracing::trace!(target: "hyper::proto::h1", "canary");
                tracing::info!(target: "rustls", "canary");
                tracing::trace!(target: "hookward::gateway", "ours");
                tracing::warn!(target: "hyper::proto::h1", "theirs");
            });
            let written = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert!(!written.contains("canary"), "{written}");
            assert!(
                written.contains("ours") && written.contains("theirs"),
                "{written}"
            );
        }
    }

    #[test]
    fn what_a_sender_can_repeat_is_said_once() {
        // SECURITY H2-12
        let kept = Kept::default();
        let output = kept.clone();
        let layer = layer(LogFormat::Text, "", false, move || output.clone()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for _ in 0..100 {
                tracing::warn!(target: "h2::proto::ping_pong", "an answer to nothing");
                tracing::warn!(target: "hookward::gateway", "ours");
            }
            tracing::warn!(target: "h2::proto::streams", "something else");
        });
        let written = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines = |part| written.matches(part).count();
        let counted = ["an answer to nothing", "something else", "ours"].map(lines);
        assert_eq!(counted, [1, 1, 100], "{written}");
    }

    #[test]
    fn the_null_device_is_known() {
        let open = |path: &std::path::Path| std::fs::File::options().write(true).open(path);
        assert!(is_null_device(&open("/dev/null".as_ref()).unwrap()).unwrap());
        assert!(!is_null_device(&open("/dev/zero".as_ref()).unwrap()).unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_null_device(&open(file.path()).unwrap()).unwrap());
    }

    #[test]
    fn a_bad_filter_is_an_error() {
        let made = layer::<tracing_subscriber::Registry, _, _>(
            LogFormat::Text,
            "hookward=loud",
            false,
            std::io::sink,
        );
        assert!(matches!(made, Err(LogError::Filter(_))));
    }
}
