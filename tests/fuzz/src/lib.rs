//! The targets for the fuzzer. They are sources of the main package's tests too, hence this door.

#![expect(
    dead_code,
    reason = "the seeds are read by the tests of the main package"
)]

mod targets;

use targets::{TARGETS, Target};

/// Judges one input of a target; panics where an invariant does not hold.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|target| target.name == name);
    let Target { run, .. } = found.unwrap_or_else(|| panic!("there is no target `{name}`"));
    run(data);
}
