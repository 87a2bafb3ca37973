//! A writer that never waits: lines go into a bounded buffer that a thread empties.
//!
//! When the reader is slow, gone or full, lines are lost and counted; whoever writes them goes on
//! (SECURITY DS-25, DS-26). The bound is in bytes, so that long lines cost no more memory than short
//! ones. `tracing-appender` bounds lines instead, does not count what the system refused to take, and
//! prints to standard output (which may block for ever) when it is dropped while the reader is stuck.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::Instant;

use super::Seldom;

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
        tell: impl Fn(OutputState<'_>) + Send + 'static,
    ) -> io::Result<(Self, FlushGuard)> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped,
        });
        let worker = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.drain(Output::new(output, tell)))?;
        Ok((Self(Arc::clone(&shared)), FlushGuard(shared)))
    }

    /// Hands over one whole line, or drops and counts it.
    pub fn line(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.closed || state.bytes.len().saturating_add(line.len()) > BUFFER_BYTES_MAX {
            drop(state);
            self.0.dropped.inc();
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

type Tell = Box<dyn Fn(OutputState<'_>) + Send>;

/// An output, and in what state it was left.
struct Output<W> {
    to: W,
    /// Whether it ends in the middle of a line.
    is_cut: bool,
    tell: Tell,
    said: Seldom,
    /// Lines lost since it last took some, and whether it was told that they are.
    lost: u64,
    is_told: bool,
}

impl<W: Write> Output<W> {
    fn new(to: W, tell: impl Fn(OutputState<'_>) + Send + 'static) -> Self {
        Self {
            to,
            is_cut: false,
            tell: Box::new(tell),
            said: Seldom::default(),
            lost: 0,
            is_told: false,
        }
    }

    /// All was written: no line is lost.
    fn all_written(&mut self) -> u64 {
        let lost = std::mem::take(&mut self.lost);
        if std::mem::take(&mut self.is_told) {
            (self.tell)(OutputState::Mended { lost });
        }
        0
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
                    Ok(()) => return self.all_written(),
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
        if self.said.is_due(Instant::now()) {
            (self.tell)(OutputState::Broken(&failure));
            self.is_told = true;
        }
        self.lost += lost;
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
            let mut output = Output::new(Full(Arc::clone(&disk)), |_| {});
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

    #[test]
    fn what_is_wrong_is_told_and_that_it_is_over() {
        // SECURITY DS-26
        let disk = Arc::new(Mutex::new((2, Vec::new())));
        let told = Arc::new(Mutex::new(Vec::new()));
        let words = Arc::clone(&told);
        let mut output = Output::new(Full(Arc::clone(&disk)), move |state| {
            words.lock().unwrap().push(match state {
                OutputState::Broken(error) => error.to_string(),
                OutputState::Mended { lost } => format!("{lost} lost"),
            });
        });
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
        let (writer, guard, dropped) = start(Stuck(stuck));
        let line = vec![b'x'; 1 << 16];
        for _ in 0..1_000 {
            writer.line(&line);
        }
        assert!(writer.0.lock().bytes.len() <= BUFFER_BYTES_MAX);
        let most = 1_000 - (BUFFER_BYTES_MAX >> 16) as u64;
        assert!((most - 64..=most).contains(&dropped.get()));
        drop(release);
        drop(guard);
    }
}
