//! The checkpoints of one worker's life, as plain data: no I/O, no clock.
//!
//! ```text
//! covered ─▶ barrier k ─▶ prepared by every sink ─▶ swap sent ─▶ landed ─▶ published ─▶ done
//!                                                   (k−1 known)  (commit point)  │
//!                                                                offsets, clear ◀┘
//! ```
//! At most [`MAX_UNDER_WAY`] checkpoints are between barrier and done; swaps
//! and commits of offsets happen strictly in the order of the barriers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tidelock_connector::{
    Barrier, Committable, Coverage, Error, ErrorKind, Incarnation, OffsetRange, OffsetSet, Offsets,
    Result, TopicPartition,
};

use super::change::{Advance, Move};
use super::mutation::{Mutation, planted};
use super::record::{Cursor, PartitionState, SetId};

/// How many checkpoints may be under way; then reading waits.
pub const MAX_UNDER_WAY: usize = 2;

/// A sink as the coordinator sees it.
#[derive(Debug, Clone)]
pub struct SinkRoute {
    /// Its name.
    pub name: Arc<str>,
    /// The topics that it takes; `None` for all.
    pub topics: Option<BTreeSet<String>>,
    /// Whether its rows become visible by committables.
    pub exactly_once: bool,
}

impl SinkRoute {
    /// Whether the sink takes rows of `topic`.
    pub fn takes(&self, topic: &str) -> bool {
        self.topics.as_ref().is_none_or(|topics| topics.contains(topic))
    }
}

/// What one checkpoint has prepared, ready for the swap.
#[derive(Debug)]
pub struct Prepared {
    /// The checkpoint.
    pub checkpoint: u64,
    /// The cursors to move, and what to clear on the way. The pending sets are
    /// still to be added: they may have to be filed away first.
    pub advance: Advance,
    /// The commit set of each sink that has one.
    pub sets: Vec<PreparedSet>,
}

/// What one sink has prepared at one barrier.
#[derive(Debug, Clone)]
pub struct PreparedSet {
    /// Names it.
    pub id: SetId,
    /// What it accounts for.
    pub partitions: BTreeMap<TopicPartition, OffsetRange>,
    /// What is to be made visible.
    pub files: Vec<Committable>,
}

/// What is to be done when a checkpoint is done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Offsets to commit to the source.
    pub offsets: Offsets,
    /// How many checkpoints became done.
    pub checkpoints: u64,
}

#[derive(Debug)]
struct Owned {
    epoch: u64,
    /// Where the next coverage must begin.
    position: i64,
    /// Per sink: the cursor as it will stand when everything under way landed.
    cursors: BTreeMap<Arc<str>, Cursor>,
}

#[derive(Debug)]
struct UnderWay {
    checkpoint: u64,
    /// Sinks that have not prepared yet.
    waiting: BTreeSet<Arc<str>>,
    moves: Vec<Move>,
    sets: Vec<PreparedSet>,
    phase: Phase,
    /// Where each partition stands when this checkpoint is done.
    offsets: Offsets,
    clearing: Vec<SetId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Preparing,
    Swapping,
    Publishing,
    Published,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Coordinator {
    incarnation: Incarnation,
    sinks: Vec<SinkRoute>,
    owned: BTreeMap<TopicPartition, Owned>,
    /// Covered since the last barrier.
    open: Coverage,
    /// Rows given to each sink since the last barrier.
    rows: BTreeMap<Arc<str>, u64>,
    under_way: VecDeque<UnderWay>,
    /// Seen published, still in the record.
    clearable: BTreeSet<SetId>,
    next_checkpoint: u64,
}

impl Coordinator {
    /// A new life that owns nothing.
    pub fn new(incarnation: Incarnation, sinks: Vec<SinkRoute>) -> Self {
        Self {
            incarnation,
            sinks,
            owned: BTreeMap::new(),
            open: Coverage::new(),
            rows: BTreeMap::new(),
            under_way: VecDeque::new(),
            clearable: BTreeSet::new(),
            next_checkpoint: 1,
        }
    }

    /// This life.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Takes a partition over as the record has it after the claim. Returns the
    /// offset to start at, or `None` when no sink takes it.
    pub fn own(&mut self, partition: &TopicPartition, state: &PartitionState) -> Option<i64> {
        let position = state.next()?;
        let cursors = state
            .cursors
            .iter()
            .map(|(sink, cursor)| (Arc::from(sink.as_str()), cursor.clone()))
            .collect();
        self.owned.insert(partition.clone(), Owned { epoch: state.epoch, position, cursors });
        Some(position)
    }

    /// Lets go of partitions whose last checkpoint is done, or lost.
    pub fn disown(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.owned.remove(partition);
            self.open.remove(partition);
        }
    }

    /// The partitions that this life owns.
    pub fn owned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.owned.keys()
    }

    /// The next offset to read of a partition that this life owns.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.owned.get(partition).map(|owned| owned.position)
    }

    /// The next offset to read of every partition that this life owns.
    pub fn positions(&self) -> Offsets {
        self.owned.iter().map(|(partition, owned)| (partition.clone(), owned.position)).collect()
    }

    /// Takes in what a batch covers.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] for a partition that this life does not own (I6),
    /// and when the coverage does not begin where the last one ended (I4).
    pub fn covered(&mut self, coverage: &Coverage) -> Result<()> {
        for (partition, set) in coverage.iter() {
            let owned = self.owned.get_mut(partition).ok_or_else(|| {
                Error::new(ErrorKind::Fenced, "rows of a partition that is not ours").at(partition)
            })?;
            let (Some(first), Some(next)) = (set.first(), set.next()) else { continue };
            if first != owned.position && !planted(Mutation::NoCursorCheck) {
                return Err(Error::new(
                    ErrorKind::Fenced,
                    format!("coverage begins at {first} and not at {}", owned.position),
                )
                .at(partition)
                .offset(owned.position));
            }
            owned.position = next;
        }
        self.open.union(coverage);
        Ok(())
    }

    /// Counts rows that were given to a sink.
    pub fn wrote(&mut self, sink: &Arc<str>, rows: u64) {
        if rows > 0 {
            *self.rows.entry(Arc::clone(sink)).or_default() += rows;
        }
    }

    /// Whether anything was covered since the last barrier.
    pub fn has_uncommitted(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether another checkpoint may begin.
    pub fn has_room(&self) -> bool {
        self.under_way.len() < MAX_UNDER_WAY
    }

    /// Whether no checkpoint is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The sets that may be cleared, when there is no checkpoint to do it.
    pub fn clearable(&self) -> Vec<SetId> {
        self.clearable.iter().cloned().collect()
    }

    /// The number that the next barrier will have.
    pub fn next_checkpoint(&self) -> u64 {
        self.next_checkpoint
    }

    /// Closes a checkpoint: gives one barrier per sink.
    pub fn barrier(&mut self, last: bool) -> Vec<(Arc<str>, Barrier)> {
        debug_assert!(self.has_room(), "at most {MAX_UNDER_WAY} checkpoints under way");
        let checkpoint = self.next_checkpoint;
        self.next_checkpoint += 1;
        let open = std::mem::take(&mut self.open);
        let rows = std::mem::take(&mut self.rows);
        let mut moves: BTreeMap<TopicPartition, Move> = BTreeMap::new();
        let mut barriers = Vec::with_capacity(self.sinks.len());
        for sink in &self.sinks {
            let files = rows.get(&sink.name).copied().unwrap_or(0) > 0;
            let mut coverage = Coverage::new();
            let mut epochs = BTreeMap::new();
            for (partition, owned) in &mut self.owned {
                let Some(cursor) = owned.cursors.get_mut(&sink.name) else { continue };
                let begin = cursor.clone();
                if let Some(set) = open.get(partition) {
                    *cursor = advanced(cursor, set);
                }
                if files {
                    coverage.insert(partition, cursor.filed_to, cursor.next);
                    epochs.insert(partition.clone(), owned.epoch);
                    cursor.filed_to = cursor.next;
                }
                if begin != *cursor {
                    moves
                        .entry(partition.clone())
                        .or_insert_with(|| Move {
                            partition: partition.clone(),
                            epoch: owned.epoch,
                            cursors: BTreeMap::new(),
                        })
                        .cursors
                        .insert(sink.name.to_string(), (begin, cursor.clone()));
                }
            }
            epochs.retain(|partition, _| coverage.get(partition).is_some());
            barriers.push((Arc::clone(&sink.name), Barrier { checkpoint, coverage, epochs, last }));
        }
        self.under_way.push_back(UnderWay {
            checkpoint,
            waiting: self.sinks.iter().map(|sink| Arc::clone(&sink.name)).collect(),
            moves: moves.into_values().collect(),
            sets: Vec::new(),
            phase: Phase::Preparing,
            offsets: self.positions(),
            clearing: Vec::new(),
        });
        barriers
    }

    /// A sink has prepared a checkpoint.
    pub fn prepared(&mut self, checkpoint: u64, sink: &Arc<str>, files: Vec<Committable>) {
        let incarnation = self.incarnation;
        let Some(entry) = self.entry(checkpoint) else { return };
        if entry.waiting.remove(sink) && !files.is_empty() {
            let id = SetId { sink: sink.to_string(), incarnation, checkpoint };
            let partitions = entry
                .moves
                .iter()
                .filter_map(|step| {
                    let (begin, end) = step.cursors.get(&**sink)?;
                    let range = OffsetRange { from: begin.filed_to, to: end.filed_to };
                    Some((step.partition.clone(), range))
                })
                .collect();
            entry.sets.push(PreparedSet { id, partitions, files });
        }
    }

    /// The checkpoint whose swap may be sent now: the oldest one that is fully
    /// prepared, when the outcome of the one before it is known.
    pub fn next_swap(&mut self) -> Option<Prepared> {
        let clear = self.clearable();
        let unknown = |phase| match planted(Mutation::NextBeforeKnown) {
            true => phase < Phase::Swapping,
            false => phase <= Phase::Swapping,
        };
        let entry = self.under_way.iter_mut().find(|entry| unknown(entry.phase))?;
        if entry.phase == Phase::Swapping || !entry.waiting.is_empty() {
            return None;
        }
        entry.phase = Phase::Swapping;
        entry.clearing.clone_from(&clear);
        Some(Prepared {
            checkpoint: entry.checkpoint,
            advance: Advance { moves: entry.moves.clone(), pending: Vec::new(), clear },
            sets: match planted(Mutation::DiscardAfterAmbiguous) {
                true => entry.sets.clone(),
                false => std::mem::take(&mut entry.sets),
            },
        })
    }

    /// The sets of swaps whose outcome is unknown; kept for a planted bug only.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &PreparedSet> {
        let unknown = self.under_way.iter().filter(|entry| entry.phase == Phase::Swapping);
        unknown.flat_map(|entry| &entry.sets)
    }

    /// The swap of a checkpoint landed: the checkpoint is committed. Returns
    /// the sets that the record no longer lists.
    pub fn landed(&mut self, checkpoint: u64) -> Vec<SetId> {
        let Some(entry) = self.entry(checkpoint) else { return Vec::new() };
        entry.phase = Phase::Publishing;
        let cleared = std::mem::take(&mut entry.clearing);
        self.cleared(&cleared);
        cleared
    }

    /// These sets are no longer in the record.
    pub fn cleared(&mut self, sets: &[SetId]) {
        for set in sets {
            self.clearable.remove(set);
        }
    }

    /// A set was seen published; the record may forget it.
    pub fn may_clear(&mut self, set: SetId) {
        self.clearable.insert(set);
    }

    /// Everything of a checkpoint is visible.
    pub fn published(&mut self, checkpoint: u64) -> Done {
        if let Some(entry) = self.entry(checkpoint) {
            entry.phase = Phase::Published;
        }
        let mut done = Done::default();
        while self.under_way.front().is_some_and(|entry| entry.phase == Phase::Published) {
            if let Some(entry) = self.under_way.pop_front() {
                done.checkpoints += 1;
                done.offsets = entry.offsets;
            }
        }
        done.offsets.retain(|partition, _| self.owned.contains_key(partition));
        done
    }

    /// Where every owned partition stands for the source's eyes: the smallest
    /// cursor that is committed and visible is what may be mirrored.
    pub fn unsent_swap(&self) -> bool {
        self.under_way.iter().any(|entry| entry.phase < Phase::Swapping)
    }

    fn entry(&mut self, checkpoint: u64) -> Option<&mut UnderWay> {
        self.under_way.iter_mut().find(|entry| entry.checkpoint == checkpoint)
    }
}

/// The cursor after `set` was done too.
fn advanced(cursor: &Cursor, set: &OffsetSet) -> Cursor {
    let next = set.next().map_or(cursor.next, |next| next.max(cursor.next));
    let mut missing = cursor.missing.clone();
    if next > cursor.next {
        missing.union(&OffsetSet::from_range(cursor.next, next));
    }
    Cursor { next, missing: missing.difference(set), ..cursor.clone() }
}
