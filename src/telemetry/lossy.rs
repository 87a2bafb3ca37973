//! A writer that never waits: lines go into a bounded buffer that a thread empties.
//!
//! When the reader is slow, gone or full, lines are lost and counted; whoever writes them goes on
//! (SECURITY DS-25, DS-26). The bound is in bytes, so that long lines cost no more memory than short
//! ones. `tracing-appender` bounds lines instead, does not count what the system refused to take, and
//! prints to standard output (which may block for ever) when it is dropped while the reader is stuck.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::Instant;

use super::SharedSeldom;

/// Bytes that wait for the writing thread; as many again may be in its hands.
pub const BUFFER_BYTES_MAX: usize = 4 << 20;

/// How long lines gather before they are written together: a thread woken for each line costs more
/// than the line.
const GATHER_TIME: Duration = Duration::from_millis(5);

/// Enough to be written at once.
const GATHER_BYTES: usize = 64 << 10;

/// How long the end of the program waits for a slow reader.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The writing end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LossyWriter(Arc<Shared>);

/// Writes out what still waits when dropped, for at most a second. Keep it until the program ends.
#[derive(Debug)]
#[must_use = "lines that wait are lost when nobody keeps this until the end"]
pub struct FlushGuard(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Waiting>,
    filled: Condvar,
    emptied: Condvar,
    dropped: IntCounter,
    voice: Arc<Voice>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// The thread sleeps until there is a line.
    idle: bool,
    /// The thread is writing a batch that it took.
    busy: bool,
    closed: bool,
}

impl LossyWriter {
    /// Starts the thread that writes to `output`; lines lost are counted by `dropped`, and `tell` is called now and then
    /// while they are.
    pub fn start<W: Write + Send + 'static>(
        name: &str,
        output: W,
        dropped: IntCounter,
        tell: impl Fn(OutputState<'_>) + Send + Sync + 'static,
    ) -> io::Result<(Self, FlushGuard)> {
        let voice = Arc::new(Voice::new(tell));
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped,
            voice: Arc::clone(&voice),
        });
        let worker = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.drain(Output::new(output, voice)))?;
        Ok((Self(Arc::clone(&shared)), FlushGuard(shared)))
    }

    /// Hands over one whole line, or drops and counts it.
    pub fn line(&self, line: &[u8]) {
        let mut state = self.0.lock();
        let is_closed = state.closed;
        if is_closed || state.bytes.len().saturating_add(line.len()) > BUFFER_BYTES_MAX {
            drop(state);
            self.0.dropped.inc();
            if !is_closed {
                let too_slow = || io::Error::other("what reads it is too slow, or stuck");
                self.0.voice.lines_lost(1, too_slow);
            }
            return;
        }
        let before = state.bytes.len();
        state.bytes.extend_from_slice(line);
        let enough = before < GATHER_BYTES && state.bytes.len() >= GATHER_BYTES;
        let due = enough || std::mem::take(&mut state.idle);
        drop(state);
        if due {
            self.0.filled.notify_one();
        }
    }
}

/// One call is one line: what tracing's formatter does.
impl Write for LossyWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What its owner is told of an output.
#[derive(Debug)]
pub enum OutputState<'a> {
    /// It takes no lines.
    Broken(&'a io::Error),
    /// It takes lines again, after so many were lost.
    Mended {
        /// How many.
        lost: u64,
    },
}

/// Tells the owner of an output, for the thread that writes and for all that find the buffer full.
struct Voice {
    tell: Box<dyn Fn(OutputState<'_>) + Send + Sync>,
    said: SharedSeldom,
    /// Lines lost since the output last took all that it was given, and whether it was told that they are.
    lost: AtomicU64,
    is_told: AtomicBool,
}

impl Voice {
    fn new(tell: impl Fn(OutputState<'_>) + Send + Sync + 'static) -> Self {
        Self {
            tell: Box::new(tell),
            said: SharedSeldom::default(),
            lost: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
        }
    }

    fn lines_lost(&self, lines: u64, why: impl FnOnce() -> io::Error) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
        if self.said.is_due(Instant::now()) {
            (self.tell)(OutputState::Broken(&why()));
            self.is_told.store(true, Ordering::Relaxed);
        }
    }

    /// The output has taken all that it was given.
    fn all_written(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if self.is_told.swap(false, Ordering::Relaxed) {
            (self.tell)(OutputState::Mended { lost });
        }
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Voice");
        fields.field("lost", &self.lost).finish_non_exhaustive()
    }
}

/// An output, and in what state it was left.
struct Output<W> {
    to: W,
    /// Whether it ends in the middle of a line.
    is_cut: bool,
    voice: Arc<Voice>,
}

impl<W: Write> Output<W> {
    fn new(to: W, voice: Arc<Voice>) -> Self {
        Self {
            to,
            is_cut: false,
            voice,
        }
    }

    /// Writes whole lines, and says how many of them were lost.
    fn put(&mut self, lines: &mut Vec<u8>) -> u64 {
        let is_mended = self.is_cut;
        if is_mended {
            // What comes now is no part of the line that was cut.
            lines.insert(0, b'\n');
        }
        let mut rest = lines.as_slice();
        let failure = loop {
            match self.to.write(rest) {
                Ok(0) if !rest.is_empty() => break ErrorKind::WriteZero.into(),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            if rest.is_empty() {
                self.is_cut = false;
                match self.to.flush() {
                    Ok(()) => {
                        self.voice.all_written();
                        return 0;
                    }
                    Err(error) => break error,
                }
            }
        };
        let written = lines.len() - rest.len();
        self.is_cut = match written.checked_sub(1).and_then(|last| lines.get(last)) {
            Some(last) => *last != b'\n',
            None => self.is_cut,
        };
        let mending = u64::from(is_mended && written == 0);
        let lost = (memchr::memchr_iter(b'\n', rest).count() as u64).saturating_sub(mending);
        self.voice.lines_lost(lost, || failure);
        lost
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: takes everything that waits, writes it at once, again and again.
    fn drain<W: Write>(&self, mut output: Output<W>) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.lock();
            state.busy = false;
            while state.bytes.is_empty() {
                self.emptied.notify_all();
                if state.closed {
                    return;
                }
                state.idle = true;
                state = self
                    .filled
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let gathering = |state: &mut Waiting| !state.closed && state.bytes.len() < GATHER_BYTES;
            let gathered = self
                .filled
                .wait_timeout_while(state, GATHER_TIME, gathering);
            state = gathered.unwrap_or_else(PoisonError::into_inner).0;
            std::mem::swap(&mut batch, &mut state.bytes);
            state.busy = true;
            drop(state);
            self.dropped.inc_by(output.put(&mut batch));
            batch.clear();
        }
    }
}

impl FlushGuard {
    /// Counts the lines lost.
    pub fn dropped(&self) -> &IntCounter {
        &self.0.dropped
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        self.0.filled.notify_one();
        let pending = |state: &mut Waiting| state.busy || !state.bytes.is_empty();
        drop(
            self.0
                .emptied
                .wait_timeout_while(state, FLUSH_TIMEOUT, pending),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Refusing;

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Blocks in its first write until the sender is dropped.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start<W: Write + Send + 'static>(output: W) -> (LossyWriter, FlushGuard, IntCounter) {
        let dropped = IntCounter::new("dropped", "Lines.").unwrap();
        let (writer, guard) = LossyWriter::start("test", output, dropped.clone(), |_| {}).unwrap();
        (writer, guard, dropped)
    }

    #[test]
    fn the_guard_writes_out_what_waits() {
        let kept = Kept::default();
        let (writer, guard, dropped) = start(kept.clone());
        for number in 0..1_000 {
            writer.line(format!("{number}\n").as_bytes());
        }
        drop(guard);
        let lines = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert!(
            lines
                .lines()
                .map(|l| l.parse::<u32>().unwrap())
                .eq(0..1_000)
        );
        assert_eq!(dropped.get(), 0);
        writer.line(b"too late\n");
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn refused_lines_are_counted() {
        // SECURITY DS-26
        let (writer, guard, dropped) = start(Refusing);
        for _ in 0..10 {
            writer.line(b"line\n");
        }
        drop(guard);
        assert_eq!(dropped.get(), 10);
    }

    /// A disk that has room for so many bytes, until it is given more.
    struct Full(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, kept) = &mut *self.0.lock().unwrap();
            if *room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(*room);
            kept.extend_from_slice(&bytes[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_is_cut_spoils_no_other() {
        // SECURITY DS-26
        for (room, kept, lost) in [
            (0, "c\nd\n", [2, 0]),
            (2, "a\nc\nd\n", [1, 0]),
            (3, "a\nb\nc\nd\n", [1, 0]),
            (4, "a\nb\nc\nd\n", [0, 0]),
        ] {
            let disk = Arc::new(Mutex::new((room, Vec::new())));
            let mut output = Output::new(Full(Arc::clone(&disk)), Arc::new(Voice::new(|_| {})));
            let first = output.put(&mut b"a\nb\n".to_vec());
            let still_full = output.put(&mut Vec::new());
            disk.lock().unwrap().0 = 100;
            let second = output.put(&mut b"c\nd\n".to_vec());
            let text = String::from_utf8(disk.lock().unwrap().1.clone()).unwrap();
            assert_eq!(
                (text.as_str(), [first, second], still_full),
                (kept, lost, 0),
                "{room}"
            );
        }
    }

    type Words = Arc<Mutex<Vec<String>>>;

    /// Keeps what is told.
    fn words() -> (impl Fn(OutputState<'_>) + Send + Sync, Words) {
        let told = Words::default();
        let words = Arc::clone(&told);
        let tell = move |state: OutputState<'_>| {
            words.lock().unwrap().push(match state {
                OutputState::Broken(error) => error.to_string(),
                OutputState::Mended { lost } => format!("{lost} lost"),
            });
        };
        (tell, told)
    }

    #[test]
    fn what_is_wrong_is_told_and_that_it_is_over() {
        // SECURITY DS-26
        let disk = Arc::new(Mutex::new((2, Vec::new())));
        let (tell, told) = words();
        let mut output = Output::new(Full(Arc::clone(&disk)), Arc::new(Voice::new(tell)));
        let mut put = |room: usize, lines: &str| {
            disk.lock().unwrap().0 = room;
            output.put(&mut lines.as_bytes().to_vec());
        };
        put(2, "a\n");
        put(0, "b\nc\n");
        put(0, "d\n");
        put(100, "e\n");
        // So soon after, nothing is said of what begins again, nor of its end.
        put(0, "f\n");
        put(100, "g\n");
        let full = io::Error::from(ErrorKind::StorageFull).to_string();
        assert_eq!(*told.lock().unwrap(), [full, "3 lost".to_owned()]);
    }

    #[test]
    fn a_stuck_reader_costs_lines_never_time_or_memory() {
        // SECURITY DS-25
        let (release, stuck) = mpsc::channel();
        let (tell, told) = words();
        let dropped = IntCounter::new("dropped", "Lines.").unwrap();
        let started = LossyWriter::start("test", Stuck(stuck), dropped.clone(), tell);
        let (writer, guard) = started.unwrap();
        let line = vec![b'x'; 1 << 16];
        for _ in 0..1_000 {
            writer.line(&line);
        }
        assert!(writer.0.lock().bytes.len() <= BUFFER_BYTES_MAX);
        let most = 1_000 - (BUFFER_BYTES_MAX >> 16) as u64;
        assert!((most - 64..=most).contains(&dropped.get()));
        let stuck = "what reads it is too slow, or stuck";
        assert_eq!(*told.lock().unwrap(), [stuck]);
        drop(release);
        drop(guard);
        let lost = format!("{} lost", dropped.get());
        assert_eq!(*told.lock().unwrap(), [stuck, &lost]);
    }
}
