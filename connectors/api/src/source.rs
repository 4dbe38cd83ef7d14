//! Where records come from.
//!
//! # Contract
//! * The runtime opens one [`SourceReader`] per worker and calls
//!   [`next`](SourceReader::next) in a loop. `next` is **cancel safe**: when
//!   its future is dropped, no event is lost.
//! * Events are in band: everything that was read of a partition before it is
//!   revoked is delivered before [`Event::Revoking`], and nothing of a newly
//!   assigned partition before the [`Assignment`] was answered.
//! * Per partition the coverage of successive events is contiguous: each
//!   begins where the one before it ended, over holes in the log.
//! * A partition is assigned to two readers at once only when one of them was
//!   asked for it and is done, or has lost it.
//! * After a crash, or a [`seek`](SourceReader::seek), the same offsets are
//!   read again. Exactly once is the business of the sinks and of the
//!   checkpoint, not of the source; a source must only be able to read the
//!   same offsets again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::{Batch, Coverage, Offsets, Result, Stream, TopicPartition};

/// A place that records come from; the configuration of a connector.
#[async_trait]
pub trait Source: Send + Sync {
    /// Opens one reader, and the committer that belongs to it.
    async fn open(&self, ctx: SourceContext) -> Result<OpenSource>;

    /// Tries the connection and says in short lines what was found. Called
    /// before the pipeline starts, and by `tidelock check`.
    ///
    /// # Errors
    /// Everything that would keep the source from reading: unreachable,
    /// denied, no such topic.
    async fn check(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Where every partition ends now that readers will be given some time,
    /// exclusive. A bounded run is over when all of them have got that far,
    /// whoever reads them; without an answer it is over when the partitions
    /// that somebody was given have.
    ///
    /// # Errors
    /// A retryable one is asked again.
    async fn ends(&self) -> Result<Offsets> {
        Ok(Offsets::new())
    }

    /// The streams that are known before the first record is read. Sinks and
    /// transforms are checked against them at start.
    fn streams(&self) -> Vec<Arc<Stream>> {
        Vec::new()
    }
}

/// What a reader is told when it is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SourceContext {
    /// The name of the pipeline.
    pub pipeline: Arc<str>,
    /// The number of the worker in this process, from 0.
    pub worker: usize,
    /// Bytes that the reader may hold in its buffers.
    pub memory: usize,
}

impl SourceContext {
    /// A context.
    pub fn new(pipeline: impl Into<Arc<str>>, worker: usize, memory: usize) -> Self {
        Self { pipeline: pipeline.into(), worker, memory }
    }
}

/// An opened source.
pub struct OpenSource {
    /// Reads, on behalf of one worker.
    pub reader: Box<dyn SourceReader>,
    /// Commits offsets beside `next`, never in its way.
    pub committer: Arc<dyn OffsetCommitter>,
}

/// Reads the partitions that one worker owns.
#[async_trait]
pub trait SourceReader: Send {
    /// Waits for the next event. Cancel safe.
    ///
    /// # Errors
    /// A retryable error is logged and counted, and `next` is called again
    /// after a pause. Any other one ends the run, after a last checkpoint of
    /// everything that was delivered before it.
    async fn next(&mut self) -> Result<Event>;

    /// Goes to the given positions. Nothing that was read before, of any
    /// partition, is delivered any more; partitions that are not named stay
    /// unread. A retryable error may be answered by the same call again.
    async fn seek(&mut self, to: &[Start]) -> Result<()>;
}

/// Commits offsets to the system that the records came from, so that its lag
/// tools show the truth. The pipeline's own record is what recovery goes by.
#[async_trait]
pub trait OffsetCommitter: Send + Sync {
    /// Commits the offsets, and their hints as metadata where the system keeps
    /// such a thing. Returns when the system has acknowledged them.
    async fn commit(&self, offsets: &CommittedOffsets) -> Result<()>;
}

/// The committer of a source that keeps no offsets.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingToCommit;

#[async_trait]
impl OffsetCommitter for NothingToCommit {
    async fn commit(&self, _offsets: &CommittedOffsets) -> Result<()> {
        Ok(())
    }
}

/// What a reader reports.
#[derive(Debug)]
pub enum Event {
    /// Rows.
    Batch(Batch),
    /// Offsets that hold no rows: the hole at the end of a log, messages that
    /// were skipped.
    Covered(Coverage),
    /// Partitions were assigned to this worker.
    Assigned(Assignment),
    /// Partitions are being taken away from this worker.
    Revoking(Revocation),
    /// Nothing to read just now.
    Idle,
    /// There will never be anything more to read: the source itself has an end.
    /// Reaching the `end` of every [`Start`] is not that; the runtime counts
    /// those itself. `next` is not called again unless the reader is told to
    /// `seek`.
    End,
}

/// Partitions that this worker may read from now on, once it has claimed them.
#[derive(Debug)]
pub struct Assignment {
    /// The partitions, with what the source knows of each.
    pub partitions: Vec<AssignedPartition>,
    /// Which cluster and group the partitions belong to.
    pub identity: Identity,
    /// Takes the positions to start at. Dropped without an answer, the
    /// partitions stay unread.
    pub reply: oneshot::Sender<Vec<Start>>,
}

/// Which system is behind a source; a pipeline's record belongs to exactly one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's own id.
    pub cluster: Option<String>,
    /// The consumer group.
    pub group: Option<String>,
}

/// What the source knows of a partition at its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's own id, which differs when a topic was deleted and made again.
    pub topic_id: Option<String>,
    /// What is committed for it, if anything.
    pub committed: Option<CommittedOffset>,
    /// Where reading starts when nothing is recorded and nothing committed.
    pub start: i64,
    /// The first offset that is still there.
    pub low: i64,
    /// The offset behind the last one that can be read now.
    pub end: i64,
}

/// Offsets as the source's system has them, per partition.
pub type CommittedOffsets = BTreeMap<TopicPartition, CommittedOffset>;

/// An offset as the source's system has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// The metadata that was committed with it.
    pub hint: String,
}

/// Where to read a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset to deliver; anything smaller is dropped.
    pub offset: i64,
    /// Where to stop: offsets from here on are not delivered, and coverage
    /// ends exactly here.
    pub end: Option<i64>,
}

/// Partitions that another worker is waiting for.
#[derive(Debug)]
pub struct Revocation {
    /// The partitions.
    pub partitions: Vec<TopicPartition>,
    /// They are gone already: nothing may be committed for them.
    pub lost: bool,
    /// Until when the reader waits for `done`.
    pub deadline: Instant,
    /// Told when the last checkpoint of the partitions is committed, or will
    /// not be. Dropping it says the same.
    pub done: oneshot::Sender<()>,
}
