//! The channel from the consumer thread to [`next`](crate::reader).
//!
//! Bounded in bytes, and nobody ever waits in `send`: the thread looks at
//! [`Shared::held`] before it *reads* more. So a rebalance or an error always
//! gets through, however full the channel is, and the bound is exceeded by one
//! turn's rows at most.
//!
//! What was read carries the generation that it was read in. A seek begins a
//! new one, and what is older is dropped on its way out; assignments and
//! revocations have none and always arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tidelock_connector::{Batch, Coverage, Error, Event, Result};
use tokio::sync::mpsc::UnboundedSender;

/// What both ends of the channel know.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    held: AtomicUsize,
    generation: AtomicU64,
}

impl Shared {
    /// Bytes of the batches in the channel.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Whether something of this generation must not be delivered any more.
    pub(crate) fn is_stale(&self, item: &Item) -> bool {
        item.generation.is_some_and(|read| read != self.generation.load(Ordering::Acquire))
    }

    /// An item has left the channel.
    pub(crate) fn release(&self, item: &Item) {
        self.held.fetch_sub(item.bytes, Ordering::AcqRel);
    }
}

/// Something on its way.
#[derive(Debug)]
pub(crate) struct Item {
    /// When it was read; none for what concerns the partitions themselves.
    generation: Option<u64>,
    bytes: usize,
    pub(crate) event: Result<Event>,
}

impl Item {
    /// The topic whose items must stay in order with it; none stays in order
    /// with everything.
    pub(crate) fn topic(&self) -> Option<&Arc<str>> {
        match &self.event {
            Ok(Event::Batch(batch)) => Some(&batch.stream.name),
            // Of one topic, as each is cut by itself.
            Ok(Event::Covered(coverage)) => coverage.partitions().next().map(|one| &one.topic),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(event: Result<Event>) -> Self {
        Self { generation: None, bytes: 0, event }
    }
}

/// The thread's end of the channel.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    sender: UnboundedSender<Item>,
    shared: Arc<Shared>,
}

impl Outbox {
    pub(crate) fn new(sender: UnboundedSender<Item>, shared: Arc<Shared>) -> Self {
        Self { sender, shared }
    }

    pub(crate) fn held(&self) -> usize {
        self.shared.held()
    }

    pub(crate) fn batch(&self, batch: Batch) {
        let bytes = batch.memory_size();
        self.shared.held.fetch_add(bytes, Ordering::AcqRel);
        self.send(Some(self.generation()), bytes, Ok(Event::Batch(batch)));
    }

    pub(crate) fn covered(&self, coverage: Coverage) {
        self.send(Some(self.generation()), 0, Ok(Event::Covered(coverage)));
    }

    pub(crate) fn idle(&self) {
        self.send(Some(self.generation()), 0, Ok(Event::Idle));
    }

    /// An error about something that was read.
    pub(crate) fn bad_record(&self, error: Error) {
        self.send(Some(self.generation()), 0, Err(error));
    }

    /// An error about the connection or the group.
    pub(crate) fn error(&self, error: Error) {
        self.send(None, 0, Err(error));
    }

    /// An assignment or a revocation.
    pub(crate) fn partitions(&self, event: Event) {
        self.send(None, 0, Ok(event));
    }

    /// From now on nothing that was sent before is delivered.
    pub(crate) fn next_generation(&self) {
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    fn send(&self, generation: Option<u64>, bytes: usize, event: Result<Event>) {
        // The reader is gone when this fails, and the thread is about to be
        // told so.
        let _gone = self.sender.send(Item { generation, bytes, event });
    }
}

#[cfg(test)]
mod tests {
    use tidelock_connector::ErrorKind;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn a_new_generation_makes_stale_what_was_read_and_nothing_else() {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let outbox = Outbox::new(sender, Arc::clone(&shared));
        outbox.idle();
        outbox.error(Error::new(ErrorKind::Unavailable, "no broker"));
        outbox.next_generation();
        outbox.idle();
        let stale: Vec<bool> =
            std::iter::from_fn(|| receiver.try_recv().ok()).map(|i| shared.is_stale(&i)).collect();
        assert_eq!(stale, [true, false, false]);
    }
}
