//! A [`Source`] over a log in memory.
//!
//! Readers opened from one source, or from clones of it, are the members of
//! one consumer group. As with Kafka, a reader that was asked for partitions
//! reads nothing else until it is done with them, and an assignment waits until
//! the old owner is done. Dropping a reader leaves the group.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tokio::sync::watch;

use super::group::Group;
use super::log::{Log, default_schema};
use super::memory_log::{Faults, MemoryLog, Settings, Shared, State};
use super::memory_reader::MemoryReader;
use crate::{
    CommittedOffsets, Error, OffsetCommitter, OpenSource, Result, Source, SourceContext, Stream,
};

/// A source whose log is in memory.
///
/// Without further settings it is unbounded, starts at the earliest offset and
/// gives its readers the partitions as soon as they are opened.
#[derive(Debug, Clone)]
pub struct MemorySource {
    log: MemoryLog,
}

impl Default for MemorySource {
    fn default() -> Self {
        Self::new()
    }
}

impl MemorySource {
    /// A source without topics.
    pub fn new() -> Self {
        let settings = Settings {
            bounded: false,
            latest: false,
            manual: false,
            reject_bad: false,
            initial_members: 1,
            batch_rows: 100,
            one_partition: false,
            idle_after: Duration::from_millis(5),
            delay: Duration::ZERO,
            revoke_timeout: Duration::from_secs(30),
            cluster: "memory".to_owned(),
            group_id: "memory".to_owned(),
        };
        let state = State {
            log: Log::default(),
            group: Group::default(),
            settings,
            faults: Faults::default(),
        };
        let shared = Shared { state: Mutex::new(state), changed: watch::Sender::new(()) };
        Self { log: MemoryLog { shared: Arc::new(shared) } }
    }

    /// The handle by which a test appends, rebalances and breaks things.
    pub fn log(&self) -> MemoryLog {
        self.log.clone()
    }

    fn set(self, set: impl FnOnce(&mut Settings)) -> Self {
        self.log.change(|state| set(&mut state.settings));
        self
    }

    /// Adds a topic of the [default schema](super::default_schema).
    #[must_use]
    pub fn topic(self, name: &str, partitions: u32) -> Self {
        self.topic_with_schema(name, partitions, default_schema())
    }

    /// Adds a topic whose rows have these payload columns; the coordinates are
    /// added behind them.
    #[must_use]
    pub fn topic_with_schema(self, name: &str, partitions: u32, schema: SchemaRef) -> Self {
        self.log.change(|state| {
            state.log.add(name, partitions, schema);
            state.membership_changed();
        });
        self
    }

    /// Readers end once every partition was delivered to its end.
    #[must_use]
    pub fn bounded(self) -> Self {
        self.set(|settings| settings.bounded = true)
    }

    /// A partition without a committed offset starts at its end.
    #[must_use]
    pub fn start_at_end(self) -> Self {
        self.set(|settings| settings.latest = true)
    }

    /// Nobody owns anything before the test calls [`MemoryLog::assign`] or
    /// [`MemoryLog::rebalance`].
    #[must_use]
    pub fn manual(self) -> Self {
        self.set(|settings| settings.manual = true)
    }

    /// The first assignment waits for this many readers.
    #[must_use]
    pub fn initial_members(self, count: usize) -> Self {
        self.set(|settings| settings.initial_members = count)
    }

    /// A batch holds at most this many rows; 100 otherwise.
    #[must_use]
    pub fn batch_rows(self, rows: usize) -> Self {
        self.set(|settings| settings.batch_rows = rows.max(1))
    }

    /// No batch holds rows of several partitions.
    #[must_use]
    pub fn one_partition_per_batch(self) -> Self {
        self.set(|settings| settings.one_partition = true)
    }

    /// Bad records travel as [`Rejected`](crate::Rejected) instead of failing
    /// `next`.
    #[must_use]
    pub fn reject_bad_records(self) -> Self {
        self.set(|settings| settings.reject_bad = true)
    }

    /// How long a reader waits before it reports that it is idle; 5 ms
    /// otherwise.
    #[must_use]
    pub fn idle_after(self, wait: Duration) -> Self {
        self.set(|settings| settings.idle_after = wait)
    }

    /// How long a reader waits for a revocation to be done; 30 s otherwise.
    #[must_use]
    pub fn revoke_timeout(self, wait: Duration) -> Self {
        self.set(|settings| settings.revoke_timeout = wait)
    }

    /// The name of the group that readers report.
    #[must_use]
    pub fn group(self, group: impl Into<String>) -> Self {
        self.set(|settings| settings.group_id = group.into())
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn open(&self, ctx: SourceContext) -> Result<OpenSource> {
        let member = self.log.change(|state| {
            state.faults.open()?;
            let member = state.group.join(ctx.worker);
            state.membership_changed();
            Ok::<_, Error>(member)
        })?;
        let reader = MemoryReader::new(self.log.clone(), member);
        let committer = Arc::new(MemoryOffsets(self.log.clone()));
        Ok(OpenSource { reader: Box::new(reader), committer })
    }

    fn streams(&self) -> Vec<Arc<Stream>> {
        let state = super::lock(&self.log.shared.state);
        state.log.topics.values().map(|topic| Arc::clone(&topic.streams[0])).collect()
    }
}

/// Commits into the log.
#[derive(Debug)]
struct MemoryOffsets(MemoryLog);

#[async_trait]
impl OffsetCommitter for MemoryOffsets {
    async fn commit(&self, offsets: &CommittedOffsets) -> Result<()> {
        self.0.change(|state| {
            state.faults.commit()?;
            for (partition, committed) in offsets {
                state.group.committed.insert(partition.clone(), committed.clone());
            }
            Ok(())
        })
    }
}
