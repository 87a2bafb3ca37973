//! How long the hot pieces of the gateway take. `cargo bench --bench hot [-- FILTER]`.
#![expect(clippy::expect_used, reason = "a bench may panic")]

use std::time::{Duration, Instant};

use criterion::Criterion;

mod pieces;

use pieces::Piece;

/// Most inputs that are made at once.
const INPUTS_MAX: u64 = 1000;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for piece in pieces::all(&[1, 1000, 10_000]) {
        criterion.bench_function(&piece.name, |bencher| {
            bencher.iter_custom(|times| run(&piece, times));
        });
    }
    criterion.final_summary();
}

fn run(piece: &Piece, times: u64) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = times;
    while left > 0 {
        let now = left.min(INPUTS_MAX);
        let run = piece.prepare(usize::try_from(now).unwrap_or_default());
        let started = Instant::now();
        run();
        took += started.elapsed();
        left -= now;
    }
    took
}
