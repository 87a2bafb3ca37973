//! Whose turn it is to order: one at a time from each authority, so that one that hangs holds up nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// By the authority's directory; there are no more than keepers.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, Weak<Semaphore>>>>);

impl Turns {
    /// What the keepers of this directory take their turns from.
    pub(super) fn of(&self, directory: &str) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(directory).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Semaphore::new(1));
        turns.insert(directory.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_hangs_holds_up_no_other() {
        let turns = Turns::default();
        let (one, other) = (turns.of("one"), turns.of("other"));
        let order = one.try_acquire_owned().unwrap();
        assert!(turns.of("one").try_acquire().is_err());
        assert!(other.try_acquire().is_ok());
        drop((order, other));
        assert!(turns.of("third").try_acquire().is_ok());
        assert_eq!(turns.0.lock().unwrap().len(), 1, "of those that are used");
    }
}
