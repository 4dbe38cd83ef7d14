//! Where rows go.
//!
//! # Contract
//! Writing is in two phases, as in Flink's two-phase-commit sinks. A
//! [`SinkWriter`] puts bytes where no reader looks; at a [`Barrier`] it
//! *prepares*: it lets go of everything written since the last one and returns
//! the [`Committable`]s. When every sink has prepared, the runtime writes them
//! into the pipeline's record, and that write is the commit point. Only then
//! does a [`Committer`], in this process or in another one, make them visible.
//!
//! A sink that cannot do that is at-least-once: implement
//! [`AtLeastOnceWriter`], two short methods, and wrap it in [`AtLeastOnce`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{Batch, Coverage, Result, Stream, TopicPartition};

/// One life of one worker: a fresh uuid, printed as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(#[serde(with = "uuid_simple")] uuid::Uuid);

impl Incarnation {
    /// A new life.
    #[expect(clippy::new_without_default, reason = "every call gives another value")]
    pub fn new() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// The incarnation of a given number; simulations need lives that repeat.
    pub const fn from_u128(number: u128) -> Self {
        Self(uuid::Uuid::from_u128(number))
    }

    /// Parses 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| uuid::Uuid::try_parse(text).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

mod uuid_simple {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &uuid::Uuid, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(id.as_simple())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<uuid::Uuid, D::Error> {
        let text = String::deserialize(d)?;
        uuid::Uuid::try_parse(&text).map_err(D::Error::custom)
    }
}

/// A place that rows go to; the configuration of a sink.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What the sink promises; exactly once comes with the committer that
    /// keeps the promise.
    fn guarantee(&self) -> Guarantee;

    /// Opens a writer. It is called again whenever a worker starts over.
    async fn open(&self, ctx: SinkContext) -> Result<Box<dyn SinkWriter>>;

    /// Tries the connection and says in short lines what was found, and
    /// whether the sink can take `streams`.
    ///
    /// # Errors
    /// Everything that would keep the sink from writing: unreachable, denied,
    /// no such bucket, a column that is not there.
    async fn check(&self, streams: &[Arc<Stream>]) -> Result<Vec<String>> {
        let _ = streams;
        Ok(Vec::new())
    }

    /// Where the sink's output lives, if that is a store that can also hold the
    /// pipeline's record. The record of a pipeline with one sink goes there
    /// unless it is told otherwise.
    fn home(&self) -> Option<Home> {
        None
    }
}

/// A store, as plain data.
#[derive(Debug, Clone, PartialEq)]
pub struct Home {
    /// Its URL.
    pub url: String,
    /// Options beside the URL, as the store's configuration takes them.
    pub storage: serde_json::Value,
}

/// What a sink promises about each record, whatever is killed and whenever.
#[derive(Clone)]
pub enum Guarantee {
    /// Visible at least once: after a crash some rows are written again.
    AtLeastOnce,
    /// Visible exactly once, by way of this committer.
    ExactlyOnce(Arc<dyn Committer>),
}

impl fmt::Debug for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLeastOnce => "AtLeastOnce",
            Self::ExactlyOnce(_) => "ExactlyOnce",
        })
    }
}

/// What a writer is told when it is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SinkContext {
    /// The name of the pipeline.
    pub pipeline: Arc<str>,
    /// The name of the sink within the pipeline.
    pub sink: Arc<str>,
    /// The life of the worker that the writer belongs to. Names made of it and
    /// of a number that the sink never uses twice are used by nobody else.
    pub incarnation: Incarnation,
    /// The number of the first barrier that the writer will see; each one after
    /// it counts one up. No number is used twice in one incarnation.
    pub checkpoint: u64,
    /// Bytes that the writer may hold in memory.
    pub memory: usize,
}

impl SinkContext {
    /// A context whose first barrier has number 1.
    pub fn new(
        pipeline: impl Into<Arc<str>>,
        sink: impl Into<Arc<str>>,
        incarnation: Incarnation,
        memory: usize,
    ) -> Self {
        Self { pipeline: pipeline.into(), sink: sink.into(), incarnation, checkpoint: 1, memory }
    }

    /// Sets the number of the first barrier.
    #[must_use]
    pub fn with_checkpoint(mut self, checkpoint: u64) -> Self {
        self.checkpoint = checkpoint;
        self
    }
}

/// Writes the rows of one worker.
#[async_trait]
pub trait SinkWriter: Send {
    /// Writes a batch. Returning does not mean that anything is durable.
    ///
    /// # Errors
    /// After a retryable error the worker discards this writer and reads again
    /// from the last checkpoint; any other error ends the run.
    async fn write(&mut self, batch: &Batch) -> Result<()>;

    /// Lets go of everything written since the last barrier and returns at
    /// once; the future makes it durable, invisibly, while further batches are
    /// written. The committables are enough for *another process* to finish
    /// the job. A set without rows has none, and an at-least-once sink never
    /// has any.
    fn prepare(&mut self, barrier: &Barrier) -> BoxFuture<'static, Result<Vec<Committable>>>;

    /// Throws away what was written since the last barrier and gives back
    /// memory and connections. Nothing that `prepare` was asked for is touched.
    async fn discard(self: Box<Self>);
}

/// A line across a stream of batches: everything before it belongs to one
/// checkpoint, nothing behind it does.
#[derive(Debug, Clone)]
pub struct Barrier {
    /// The checkpoint's number, counted by the worker, never used twice in one
    /// incarnation.
    pub checkpoint: u64,
    /// The offsets that this sink's *commit set* accounts for: everything since
    /// the last set of this sink that had rows.
    pub coverage: Coverage,
    /// The epoch under which each of these partitions was read.
    pub epochs: BTreeMap<TopicPartition, u64>,
    /// No checkpoint follows: the worker stops.
    pub last: bool,
}

/// Something prepared, in a form that any process can commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committable {
    /// What will be visible, as people know it: a file's final key.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What the committer needs; only the sink understands it.
    pub detail: serde_json::Value,
}

/// What a commit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is visible now.
    Committed,
    /// It was visible already; somebody was faster.
    AlreadyCommitted,
    /// Neither the prepared bytes nor the final ones are there. Unless somebody
    /// else has finished the job and cleaned up, data are lost.
    Missing,
}

/// The second phase: makes prepared things visible, from any process.
///
/// Every method may be called again after any outcome, by several processes at
/// once, and must give the same result.
#[async_trait]
pub trait Committer: Send + Sync {
    /// Makes a committable visible.
    ///
    /// # Errors
    /// Retryable where trying again can help. [`ErrorKind::Conflict`] when
    /// something else is visible under its name.
    ///
    /// [`ErrorKind::Conflict`]: crate::ErrorKind::Conflict
    async fn commit(&self, committable: &Committable) -> Result<Outcome>;

    /// Deletes prepared bytes that nobody needs any more: they were committed,
    /// or no version of the record ever named them.
    async fn discard(&self, committables: &[Committable]) -> Result<()>;

    /// The incarnations of which prepared bytes are lying about. One whose sets
    /// were all committed and discarded is not among them.
    async fn staged(&self, pipeline: &str) -> Result<Vec<Incarnation>>;

    /// Deletes all prepared bytes of an incarnation that owns nothing and has
    /// nothing pending.
    async fn collect(&self, pipeline: &str, incarnation: Incarnation) -> Result<()>;
}

/// A writer that promises at-least-once: what [`flush`](Self::flush) has
/// acknowledged is never lost, and may be repeated after a crash.
#[async_trait]
pub trait AtLeastOnceWriter: Send {
    /// Writes a batch.
    async fn write(&mut self, batch: &Batch) -> Result<()>;

    /// Returns when everything written so far is safe.
    async fn flush(&mut self) -> Result<()>;
}

/// Makes a [`Sink`] of an [`AtLeastOnceWriter`].
pub struct AtLeastOnce<F>(F);

impl<F, W> AtLeastOnce<F>
where
    F: Fn(&SinkContext) -> Result<W> + Send + Sync,
    W: AtLeastOnceWriter + 'static,
{
    /// A sink whose writers `open` makes.
    pub fn new(open: F) -> Self {
        Self(open)
    }
}

#[async_trait]
impl<F, W> Sink for AtLeastOnce<F>
where
    F: Fn(&SinkContext) -> Result<W> + Send + Sync,
    W: AtLeastOnceWriter + 'static,
{
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn open(&self, ctx: SinkContext) -> Result<Box<dyn SinkWriter>> {
        let writer = (self.0)(&ctx)?;
        Ok(Box::new(Flushed(Arc::new(Mutex::new(writer)))))
    }
}

/// Preparing is flushing; the lock keeps rows of the next checkpoint out.
struct Flushed<W>(Arc<Mutex<W>>);

#[async_trait]
impl<W: AtLeastOnceWriter + 'static> SinkWriter for Flushed<W> {
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        self.0.lock().await.write(batch).await
    }

    fn prepare(&mut self, _barrier: &Barrier) -> BoxFuture<'static, Result<Vec<Committable>>> {
        let writer = Arc::clone(&self.0);
        async move {
            writer.lock().await.flush().await?;
            Ok(Vec::new())
        }
        .boxed()
    }

    async fn discard(self: Box<Self>) {}
}
