//! A worker: one member of the consumer group, with its own reader and its own
//! ordered stream of batches and barriers.
//!
//! ```text
//! reader ──▶ transforms ──▶ fan-out ──▶ sink task (queue bounded in bytes) ──▶ prepare
//!   ▲                                                                            │
//!   │ seek, claim                     coordinator ◀── prepared, landed, published
//!   └────────── life over ◀── refused, failed, lost                │
//!                                          swap loop, publisher, mirror (tasks)
//! ```
//!
//! A worker lives several *lives*, each with a fresh [`Incarnation`]. A life
//! ends when a swap is refused, a sink fails, partitions are lost or none is
//! left. Then everything that was not committed is discarded, the partitions
//! that the group still assigns are claimed anew, and reading goes on at the
//! record's cursors, in the same process.
//!
//! [`Incarnation`]: tidelock_connector::Incarnation

mod checkpoints;
mod claim;
mod life;
mod mirror;
mod replay;
mod sinks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidelock_connector::{
    AssignedPartition, Assignment, Error, ErrorKind, Event, Identity, Incarnation, OffsetCommitter,
    Offsets, Result, Sink, Source, SourceContext, SourceReader, Start, TopicPartition, Transform,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::backoff::Backoff;
use crate::checkpoint::claim::OnExternalReset;
use crate::checkpoint::collect::collect;
use crate::checkpoint::coordinator::SinkRoute;
use crate::checkpoint::lost::OnLost;
use crate::checkpoint::mutation::{Mutation, planted};
use crate::checkpoint::publish::Publisher;
use crate::checkpoint::swap::Swaps;
use crate::progress::Progress;

use life::Life;
use mirror::Mirror;
pub(crate) use sinks::panicked;

/// Makes a fresh transform for a worker.
pub(crate) type TransformFactory = Arc<dyn Fn() -> Box<dyn Transform> + Send + Sync>;

/// What all workers of a process share.
pub(crate) struct Shared {
    pub(crate) pipeline: Arc<str>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) sinks: Vec<(SinkRoute, Arc<dyn Sink>)>,
    pub(crate) transforms: Vec<TransformFactory>,
    pub(crate) swaps: Swaps,
    pub(crate) publisher: Publisher,
    pub(crate) settings: Settings,
    pub(crate) progress: Arc<Progress>,
    /// Asks for a graceful stop: a last checkpoint, then the end.
    pub(crate) stop: CancellationToken,
    /// The id that a bounded run gets if this process begins it.
    pub(crate) run: Option<String>,
    /// And where it ends.
    pub(crate) ends: Offsets,
    /// Whether the record outlives the process.
    pub(crate) durable: bool,
    /// Where new incarnations come from.
    pub(crate) lives: Lives,
}

/// Where new incarnations come from.
#[derive(Debug)]
pub(crate) enum Lives {
    /// Random: no two are ever the same.
    Random,
    /// Counted up from a number, so that a simulation repeats.
    Counted(AtomicU64, u64),
}

impl Lives {
    /// A new life.
    pub(crate) fn next(&self) -> Incarnation {
        match self {
            Self::Random => Incarnation::new(),
            Self::Counted(count, seed) => {
                let step = u64::from(!planted(Mutation::KeyUsedTwice));
                let number = u128::from(count.fetch_add(step, Ordering::Relaxed));
                Incarnation::from_u128(u128::from(*seed) << 64 | number)
            }
        }
    }
}

/// How a pipeline runs; see the builder for what each means.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) interval: Duration,
    pub(crate) bytes: usize,
    pub(crate) workers: usize,
    pub(crate) memory: usize,
    pub(crate) on_external_reset: OnExternalReset,
    pub(crate) on_lost: OnLost,
    pub(crate) retry_limit: Option<u32>,
    pub(crate) seed: u64,
    pub(crate) inline_bytes: usize,
}

/// Why a life ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The worker is done.
    Finished,
    /// It owns no partition any more; the next life waits for some.
    Empty,
}

/// Why a life ended with an error.
#[derive(Debug)]
enum Failure {
    /// Another life may do better.
    Restart(Error),
    /// No other life would.
    Fatal(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_retryable() || error.kind() == ErrorKind::Fenced {
            Self::Restart(error)
        } else {
            Self::Fatal(error)
        }
    }
}

/// An assignment that is still to be answered.
struct Unanswered {
    partitions: Vec<TopicPartition>,
    reply: oneshot::Sender<Vec<Start>>,
}

/// One worker.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    index: usize,
    reader: Box<dyn SourceReader>,
    mirror: Mirror,
    /// What the group assigns to us, claimed or not.
    assigned: BTreeMap<TopicPartition, AssignedPartition>,
    unanswered: Vec<Unanswered>,
    identity: Identity,
    transforms: Vec<Box<dyn Transform>>,
    backoff: Backoff,
    /// Deletions of staged bytes that nobody needs any more.
    discards: JoinSet<()>,
}

impl Worker {
    /// Opens the worker's reader.
    pub(crate) async fn open(shared: Arc<Shared>, index: usize) -> Result<Self> {
        let memory = shared.settings.memory / shared.settings.workers / 3;
        let ctx = SourceContext::new(Arc::clone(&shared.pipeline), index, memory);
        let opened = shared.source.open(ctx).await?;
        let committer: Arc<dyn OffsetCommitter> = opened.committer;
        Ok(Self {
            mirror: Mirror::start(Arc::clone(&shared.pipeline), committer),
            reader: opened.reader,
            assigned: BTreeMap::new(),
            unanswered: Vec::new(),
            identity: Identity::default(),
            transforms: shared.transforms.iter().map(|make| make()).collect(),
            backoff: Backoff::new(shared.settings.seed.wrapping_add(index as u64)),
            discards: JoinSet::new(),
            index,
            shared,
        })
    }

    /// Runs until the pipeline is stopped, done or cannot go on.
    pub(crate) async fn run(mut self) -> Result<()> {
        loop {
            match Life::live(&mut self).await {
                Ok(Ended::Finished) => {
                    self.finish_discards().await;
                    return Ok(());
                }
                Ok(Ended::Empty) => {}
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Restart(error)) => self.before_next_life(error).await?,
            }
        }
    }

    /// What is not deleted now is an orphan, which the next start collects.
    async fn finish_discards(&mut self) {
        let all = async { while self.discards.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(10), all).await.is_err() {
            tracing::warn!("some staged bytes are not deleted yet; the next start does it");
        }
    }

    /// Decides whether there is another life, and waits for it.
    async fn before_next_life(&mut self, error: Error) -> Result<()> {
        self.shared.progress.restarted();
        metrics::counter!("tidelock_restarts_total").increment(1);
        let attempt = self.backoff.attempts() + 1;
        if self.shared.settings.retry_limit.is_some_and(|limit| attempt > limit) {
            return Err(
                Error::new(error.kind(), format!("gave up after {attempt} attempts")).source(error)
            );
        }
        if self.shared.stop.is_cancelled() && attempt > 3 {
            return Err(
                Error::new(error.kind(), "the last checkpoint could not be made").source(error)
            );
        }
        let wait = self.backoff.next_wait();
        tracing::warn!(%error, worker = self.index, attempt, wait_ms = wait.as_millis() as u64,
            "starting over from the last checkpoint");
        self.wait_and_listen(wait).await
    }

    /// Waits, and goes on listening to the group: what it takes away must not
    /// be claimed again. Rows are dropped; the next life seeks.
    async fn wait_and_listen(&mut self, wait: Duration) -> Result<()> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let event = tokio::select! {
                biased;
                // First: a reader that always has something would make us wait
                // for ever.
                () = tokio::time::sleep_until(until) => return Ok(()),
                event = self.reader.next() => event,
            };
            match event {
                Ok(Event::Assigned(assignment)) => self.note(assignment),
                Ok(Event::Revoking(revocation)) => {
                    self.give_up(&revocation.partitions);
                    let _ = revocation.done.send(());
                }
                Ok(Event::End | Event::Idle) => tokio::time::sleep(Duration::from_millis(10)).await,
                Ok(Event::Batch(_) | Event::Covered(_)) => {}
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, "reading failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                // The next life meets it again, if it is still there.
                Err(error) => tracing::debug!(%error, "dropped with the rows before it"),
            }
        }
    }

    /// The group has taken these partitions away.
    fn give_up(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.assigned.remove(partition);
        }
        // Or the answer to an older assignment would take the start from the
        // newer one, which then would never be read.
        for unanswered in &mut self.unanswered {
            unanswered.partitions.retain(|partition| !partitions.contains(partition));
        }
        self.unanswered.retain(|unanswered| !unanswered.partitions.is_empty());
        self.mirror.forget(partitions);
    }

    /// Remembers an assignment; the next life claims its partitions and
    /// answers it.
    fn note(&mut self, assignment: Assignment) {
        self.identity = assignment.identity;
        let mut partitions = Vec::with_capacity(assignment.partitions.len());
        for assigned in assignment.partitions {
            partitions.push(assigned.partition.clone());
            self.assigned.insert(assigned.partition.clone(), assigned);
        }
        self.unanswered.push(Unanswered { partitions, reply: assignment.reply });
    }

    /// Brings the reader to where a new life starts: partitions that it reads
    /// already are sought, newly assigned ones are answered.
    async fn go_to(&mut self, starts: Vec<Start>) -> Result<()> {
        let mut starts: BTreeMap<TopicPartition, Start> =
            starts.into_iter().map(|start| (start.partition.clone(), start)).collect();
        let answers: Vec<_> = std::mem::take(&mut self.unanswered)
            .into_iter()
            .map(|Unanswered { partitions, reply }| {
                (reply, partitions.iter().filter_map(|p| starts.remove(p)).collect::<Vec<_>>())
            })
            .collect();
        let sought: Vec<Start> = starts.into_values().collect();
        self.reader.seek(&sought).await?;
        for (reply, answer) in answers {
            let _ = reply.send(answer);
        }
        Ok(())
    }

    /// Starts collecting orphans, beside everything else.
    fn collect_orphans(&mut self) {
        let shared = Arc::clone(&self.shared);
        // A short run gives it a moment at its end, or orphans would outlive
        // any number of short runs.
        self.discards.spawn(async move {
            if let Err(error) = collect(&shared.pipeline, &shared.publisher, &shared.swaps).await {
                tracing::warn!(%error, "orphaned staged bytes could not be collected");
            }
        });
    }
}
