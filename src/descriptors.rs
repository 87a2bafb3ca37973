//! How many files and connections the process may have open (SECURITY DS-09).

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many the process may have open; `None` for any number.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Takes what the system allows: shells and service managers start programs with a low limit that
/// these may raise, for the sake of those that cannot count above 1024.
pub fn raise() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, most)?)
}
