//! What the files of one writer hold in memory, all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A count of bytes with somebody who waits for it to fall.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    used: AtomicUsize,
    released: Notify,
}

impl Budget {
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Nothing is held yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { bytes: 0, budget: Arc::clone(self) }
    }

    /// Waits until at most `limit` bytes are held. The caller makes sure that
    /// others give theirs back without its help.
    pub(crate) async fn wait(&self, limit: usize) {
        loop {
            let released = self.released.notified();
            if self.used() <= limit {
                return;
            }
            released.await;
        }
    }
}

/// What one file holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bytes: usize,
    budget: Arc<Budget>,
}

impl Share {
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::AcqRel);
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
            self.budget.released.notify_one();
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
