//! Doubles and suites for the tests of connectors and of the runtime.
//!
//! | what | for |
//! |---|---|
//! | [`MemorySource`], steered by a [`MemoryLog`] | a log with topics, partitions, holes, a consumer group and rebalances |
//! | [`MemorySink`], steered by [`MemoryFiles`] | an exactly-once sink in two phases, with faults |
//! | [`CollectSink`] | an at-least-once sink that keeps what it got |
//! | [`faulty`] | seeded wrappers that make calls fail, before or after they happened |
//! | [`Asked`] | what a reader of your own waits for between an assignment and its answer |
//! | [`conformance`] | the contracts of the API as tests, for every connector |
//!
//! None of them does I/O: two runs differ only by what tokio's scheduler and a
//! seed make of them.

mod asked;
mod collect;
pub mod conformance;
pub mod faulty;
mod group;
mod log;
mod memory_files;
mod memory_log;
mod memory_reader;
mod memory_sink;
mod memory_source;

pub use asked::Asked;
pub use collect::CollectSink;
pub use group::{Handover, MemberId};
pub use log::{OFFSET, PARTITION, TOPIC, coordinates, default_schema};
pub use memory_files::{Call, MemoryFiles, PublishedSet};
pub use memory_log::MemoryLog;
pub use memory_sink::{MemoryCommitter, MemorySink};
pub use memory_source::MemorySource;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a test's own panic: the state is plain data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
