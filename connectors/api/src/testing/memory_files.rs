//! The store of a [`MemorySink`](super::MemorySink): what is staged, what is
//! published, and the handle by which a test looks at it and breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::sync::watch;

use super::log::coordinates;
use crate::{Coverage, Error, ErrorKind, Incarnation, Offsets, Result, TopicPartition};

/// A call that a test can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`Sink::open`](crate::Sink::open)
    Open,
    /// [`SinkWriter::write`](crate::SinkWriter::write)
    Write,
    /// The future of [`SinkWriter::prepare`](crate::SinkWriter::prepare)
    Prepare,
    /// [`Committer::commit`](crate::Committer::commit)
    Commit,
    /// [`Committer::discard`](crate::Committer::discard)
    Discard,
    /// [`Committer::staged`](crate::Committer::staged)
    Staged,
    /// [`Committer::collect`](crate::Committer::collect)
    Collect,
}

/// What happens to the next calls of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Breakage {
    failures: usize,
    retryable: bool,
    panics: usize,
    delay: Duration,
}

/// Rows on their way, with what a file's footer would say about them.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) pipeline: Arc<str>,
    pub(super) sink: Arc<str>,
    pub(super) incarnation: Incarnation,
    pub(super) checkpoint: u64,
    pub(super) number: u64,
    /// How many parts the set has.
    pub(super) siblings: usize,
    pub(super) coverage: Coverage,
    pub(super) epochs: BTreeMap<TopicPartition, u64>,
    pub(super) rows: Vec<RecordBatch>,
}

#[derive(Debug)]
pub(super) struct Published {
    /// The staged key, which is used once: it serves as the token.
    pub(super) from: String,
    pub(super) part: Part,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) staged: BTreeMap<String, Part>,
    pub(super) published: BTreeMap<String, Published>,
    broken: BTreeMap<Call, Breakage>,
}

/// The parts of one commit set that are published.
#[derive(Debug, Clone)]
pub struct PublishedSet {
    /// The pipeline.
    pub pipeline: Arc<str>,
    /// The sink's name within it.
    pub sink: Arc<str>,
    /// The incarnation that wrote the set.
    pub incarnation: Incarnation,
    /// The checkpoint that the set belongs to.
    pub checkpoint: u64,
    /// The offsets that the set accounts for.
    pub coverage: Coverage,
    /// The epochs under which they were read.
    pub epochs: BTreeMap<TopicPartition, u64>,
    /// Rows in the published parts.
    pub rows: usize,
    /// Published parts.
    pub parts: usize,
    /// Parts that the set has.
    pub of: usize,
}

/// What a [`MemorySink`](super::MemorySink) has written, and what fails.
#[derive(Debug, Clone)]
pub struct MemoryFiles {
    store: Arc<Mutex<Store>>,
    held: Arc<watch::Sender<BTreeSet<Call>>>,
}

impl Default for MemoryFiles {
    fn default() -> Self {
        Self { store: Arc::default(), held: Arc::new(watch::Sender::new(BTreeSet::new())) }
    }
}

impl MemoryFiles {
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        super::lock(&self.store)
    }

    /// Passes every trap that a test has set for `call`.
    pub(super) async fn enter(&self, call: Call) -> Result<()> {
        // Our own clone keeps the sender alive, so this cannot fail.
        let _ = self.held.subscribe().wait_for(|held| !held.contains(&call)).await;
        let now = {
            let mut store = self.store();
            let broken = store.broken.entry(call).or_default();
            let now = *broken;
            broken.panics = broken.panics.saturating_sub(1);
            broken.failures = broken.failures.saturating_sub(1);
            now
        };
        assert!(now.panics == 0, "planted panic in {call:?}");
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        if now.failures > 0 {
            return Err(Error::new(ErrorKind::Unavailable, "fault of the memory sink")
                .with("call", format!("{call:?}"))
                .retryable(now.retryable));
        }
        Ok(())
    }

    fn break_call(&self, call: Call, how: impl FnOnce(&mut Breakage)) {
        how(self.store().broken.entry(call).or_default());
    }

    /// The next `count` calls fail without doing anything.
    pub fn fail(&self, call: Call, count: usize, retryable: bool) {
        self.break_call(call, |broken| (broken.failures, broken.retryable) = (count, retryable));
    }

    /// The next call panics.
    pub fn panic(&self, call: Call) {
        self.break_call(call, |broken| broken.panics = 1);
    }

    /// Every call takes this much longer.
    pub fn slow(&self, call: Call, delay: Duration) {
        self.break_call(call, |broken| broken.delay = delay);
    }

    /// Calls hang until [`release`](Self::release).
    pub fn hold(&self, call: Call) {
        self.held.send_modify(|held| {
            held.insert(call);
        });
    }

    /// Lets the calls go on that [`hold`](Self::hold) stopped.
    pub fn release(&self, call: Call) {
        self.held.send_modify(|held| {
            held.remove(&call);
        });
    }

    /// The batches that are published, in the order of their names.
    pub fn batches(&self) -> Vec<RecordBatch> {
        let store = self.store();
        store.published.values().flat_map(|published| published.part.rows.clone()).collect()
    }

    /// The coordinates of the published rows, sorted; a duplicate is there
    /// twice.
    pub fn rows(&self) -> Vec<(TopicPartition, i64)> {
        sorted(&self.batches())
    }

    /// The coordinates of the staged rows of every incarnation, sorted.
    pub fn staged(&self) -> BTreeMap<Incarnation, Vec<(TopicPartition, i64)>> {
        let mut batches: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for part in self.store().staged.values() {
            batches.entry(part.incarnation).or_default().extend_from_slice(&part.rows);
        }
        batches.into_iter().map(|(id, rows)| (id, sorted(&rows))).collect()
    }

    /// Deletes everything that an incarnation has staged, behind its back.
    pub fn lose_staged(&self, incarnation: Incarnation) {
        self.store().staged.retain(|_, part| part.incarnation != incarnation);
    }

    /// The names of the published parts, in order.
    pub fn names(&self) -> Vec<String> {
        self.store().published.keys().cloned().collect()
    }

    /// The sets of which something is published, by incarnation and
    /// checkpoint.
    pub fn sets(&self) -> Vec<PublishedSet> {
        let mut sets: BTreeMap<_, PublishedSet> = BTreeMap::new();
        for Published { part, .. } in self.store().published.values() {
            let key = (
                Arc::clone(&part.pipeline),
                Arc::clone(&part.sink),
                part.incarnation,
                part.checkpoint,
            );
            let set = sets.entry(key).or_insert_with(|| PublishedSet {
                pipeline: Arc::clone(&part.pipeline),
                sink: Arc::clone(&part.sink),
                incarnation: part.incarnation,
                checkpoint: part.checkpoint,
                coverage: part.coverage.clone(),
                epochs: part.epochs.clone(),
                rows: 0,
                parts: 0,
                of: part.siblings,
            });
            set.rows += part.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
            set.parts += 1;
        }
        sets.into_values().collect()
    }

    /// Checks that the sets tile every partition from its origin, without a gap
    /// or an overlap, and returns where they end.
    ///
    /// # Errors
    /// [`ErrorKind::DataLoss`] names the partition and the first offset of the
    /// gap or the overlap, or a set of which only some parts are published.
    pub fn tile(&self, origins: &Offsets) -> Result<Offsets> {
        let mut ranges: BTreeMap<TopicPartition, Vec<(i64, i64)>> =
            origins.keys().map(|partition| (partition.clone(), Vec::new())).collect();
        for set in self.sets() {
            if set.parts != set.of {
                return Err(Error::new(ErrorKind::DataLoss, "a set is published in part")
                    .with("incarnation", set.incarnation)
                    .with("checkpoint", set.checkpoint));
            }
            for (partition, offsets) in set.coverage.iter() {
                let found = ranges.entry(partition.clone()).or_default();
                found.extend(offsets.ranges().iter().map(|range| (range.from, range.to)));
            }
        }
        let mut ends = Offsets::new();
        for (partition, mut found) in ranges {
            found.sort_unstable();
            let origin = origins.get(&partition).copied().or(found.first().map(|range| range.0));
            let mut next = origin.unwrap_or(0);
            for (from, to) in found {
                if from != next {
                    let what = if from > next { "gap" } else { "overlap" };
                    return Err(Error::new(ErrorKind::DataLoss, what)
                        .at(&partition)
                        .offset(from.min(next)));
                }
                next = to;
            }
            ends.insert(partition, next);
        }
        Ok(ends)
    }
}

fn sorted(batches: &[RecordBatch]) -> Vec<(TopicPartition, i64)> {
    // The writer refuses batches without coordinates, so none is left out.
    let mut rows: Vec<_> = batches.iter().filter_map(|b| coordinates(b).ok()).flatten().collect();
    rows.sort();
    rows
}
