//! A writer that never waits: lines go into a bounded buffer that a thread empties.
//!
//! When the reader is slow, gone or full, lines are lost and counted; whoever writes them goes on
//! (SECURITY DS-25, DS-26). The bound is in bytes, so that long lines cost no more memory than short
//! ones. `tracing-appender` bounds lines instead, does not count what the system refused to take, and
//! prints to standard output (which may block for ever) when it is dropped while the reader is stuck.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;

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
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    lines: u64,
    /// The thread sleeps until there is a line.
    idle: bool,
    /// The thread is writing a batch that it took.
    busy: bool,
    closed: bool,
}

impl LossyWriter {
    /// Starts the thread that writes to `output`; lines lost are counted by `dropped`.
    pub fn start<W: Write + Send + 'static>(
        name: &str,
        output: W,
        dropped: IntCounter,
    ) -> std::io::Result<(Self, FlushGuard)> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped,
        });
        let worker = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.drain(output))?;
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
        state.lines += 1;
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
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: takes everything that waits, writes it at once, again and again.
    fn drain<W: Write>(&self, mut output: W) {
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
            let gathering = |state: &mut State| !state.closed && state.bytes.len() < GATHER_BYTES;
            let gathered = self
                .filled
                .wait_timeout_while(state, GATHER_TIME, gathering);
            state = gathered.unwrap_or_else(PoisonError::into_inner).0;
            std::mem::swap(&mut batch, &mut state.bytes);
            let lines = std::mem::take(&mut state.lines);
            state.busy = true;
            drop(state);
            if output
                .write_all(&batch)
                .and_then(|()| output.flush())
                .is_err()
            {
                self.dropped.inc_by(lines);
            }
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
        let pending = |state: &mut State| state.busy || !state.bytes.is_empty();
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
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Blocks in its first write until the sender is dropped.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.recv().ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
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

    fn start<W: Write + Send + 'static>(output: W) -> (LossyWriter, FlushGuard, IntCounter) {
        let dropped = IntCounter::new("dropped", "Lines.").unwrap();
        let (writer, guard) = LossyWriter::start("test", output, dropped.clone()).unwrap();
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
