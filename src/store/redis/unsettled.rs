//! Deliveries that the app took and of which the server does not know yet. This process knows them itself meanwhile: once
//! their lease has ended, nobody else keeps another attempt away (SECURITY S-03).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::task::TaskTracker;

use crate::store::DeliveryKey;

/// Those of every store of the process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Unsettled {
    tasks: TaskTracker,
    /// How many commits of each are under way.
    known: Arc<Mutex<HashMap<DeliveryKey, u32>>>,
}

/// One of them, for as long as it is held.
#[derive(Debug)]
pub(super) struct Held {
    of: Unsettled,
    key: DeliveryKey,
}

impl Unsettled {
    /// The commits under way: when the process ends, nobody else can tell the server of them.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(super) fn is_known(&self, key: &DeliveryKey) -> bool {
        self.lock().contains_key(key)
    }

    pub(super) fn hold(&self, key: DeliveryKey) -> Held {
        *self.lock().entry(key).or_default() += 1;
        Held {
            of: self.clone(),
            key,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeliveryKey, u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut known = self.of.lock();
        if let Some(count) = known.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                known.remove(&self.key);
            }
        }
    }
}
