//! What may happen to a record: pure functions, without I/O or a clock.
//!
//! Every change belongs to one incarnation. Applying it to the newest record
//! either gives the next record or is *refused*: the record has moved on and
//! the incarnation's view of it is void. The invariants of the protocol (I2,
//! I3, I5, I6) are enforced here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use tidelock_connector::{Incarnation, TopicPartition};

use super::crash;
use super::mutation::{Mutation, planted};
use super::record::{BoundedRun, Cursor, Life, PartitionState, PendingSet, Record, SetId};
use super::rewind::{self, Rewinding};

/// One step of one incarnation.
#[derive(Debug, Clone)]
pub enum Change {
    /// Takes partitions over, before their first message is read.
    Claim(Claim),
    /// Moves cursors: the commit point of a checkpoint.
    Advance(Advance),
    /// Removes pending sets that were seen published, when no checkpoint is
    /// near that could do it on its way.
    Clear(Vec<SetId>),
    /// Forgets the bounded run, all of whose ends are reached.
    EndRun(String),
    /// Moves cursors to where somebody decided. It fences every owner, and
    /// whoever makes it owns nothing by it.
    Rewind(Rewinding),
}

/// Takes partitions over.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// The cluster that the partitions belong to.
    pub cluster: Option<String>,
    /// The consumer group.
    pub group: Option<String>,
    /// The partitions.
    pub partitions: Vec<ClaimedPartition>,
    /// All sinks of the pipeline.
    pub sinks: BTreeSet<String>,
    /// The bounded run to join, or to begin when none is under way.
    pub run: Option<String>,
    /// Where every partition of the source ends, if the run begins with this.
    /// Some may not be ours, or belong to a member that is dead.
    pub ends: BTreeMap<TopicPartition, i64>,
    /// A claim of this incarnation has landed before, so that it may have
    /// staged something. If it is dead by now it stays dead.
    pub claimed_before: bool,
}

impl Claim {
    /// Whether every partition is still in the epoch that the claim began.
    pub fn holds(&self, record: &Record, us: Incarnation) -> bool {
        self.partitions.iter().all(|claimed| {
            let epoch = claimed.seen_epoch.unwrap_or(0) + 1;
            let ours = |state: &PartitionState| state.owner == us && state.epoch == epoch;
            record.partition(&claimed.partition).is_some_and(ours)
        })
    }
}

/// One partition of a claim.
#[derive(Debug, Clone)]
pub struct ClaimedPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's own id.
    pub topic_id: Option<String>,
    /// The epoch in the record that the claim was planned on; `None` when the
    /// partition was not there.
    pub seen_epoch: Option<u64>,
    /// The sinks that take the topic.
    pub sinks: BTreeSet<String>,
    /// Where to begin when no sink has a cursor.
    pub start: i64,
    /// Moves every cursor here, as an operator's decision.
    pub rewind_to: Option<i64>,
    /// Where the partition ends now, for a bounded run.
    pub end: i64,
}

/// Moves cursors.
#[derive(Debug, Clone, Default)]
pub struct Advance {
    /// The cursors to move.
    pub moves: Vec<Move>,
    /// The commit sets that become pending.
    pub pending: Vec<PendingSet>,
    /// Pending sets, of any incarnation, whose every publish this process has
    /// seen succeed.
    pub clear: Vec<SetId>,
}

/// One cursor's move.
#[derive(Debug, Clone)]
pub struct Move {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch under which the batches were read.
    pub epoch: u64,
    /// Per sink: the cursor where the set begins, and where it ends.
    pub cursors: BTreeMap<String, (Cursor, Cursor)>,
}

/// Why a change was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The partition's epoch is not the expected one: somebody claimed it.
    Epoch {
        /// The partition.
        partition: TopicPartition,
        /// The epoch that the change was made for.
        expected: Option<u64>,
        /// The epoch in the record.
        found: Option<u64>,
    },
    /// The cursor is not where the set begins.
    Cursor {
        /// The partition.
        partition: TopicPartition,
        /// The sink.
        sink: String,
        /// Where the set begins.
        expected: i64,
        /// The cursor in the record, if there is one.
        found: Option<i64>,
    },
    /// The record does not know the incarnation any more.
    Forgotten,
    /// The set that is to be given up is no longer pending.
    NotPending(SetId),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Epoch { partition, expected, found } => write!(
                f,
                "the epoch of {partition} is {} and not {}",
                Shown(found.as_ref()),
                Shown(expected.as_ref())
            ),
            Self::Cursor { partition, sink, expected, found } => write!(
                f,
                "the cursor of {partition} for sink {sink:?} is {} and not {expected}",
                Shown(found.as_ref())
            ),
            Self::Forgotten => f.write_str("the record does not know this worker any more"),
            Self::NotPending(id) => write!(
                f,
                "checkpoint {} of {} for sink {:?} is no longer pending",
                id.checkpoint, id.incarnation, id.sink
            ),
        }
    }
}

struct Shown<T>(Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("absent"),
        }
    }
}

/// Applies `change` to the newest record, as swap `number` of `incarnation`.
///
/// # Errors
/// A [`Refusal`]; the record is unchanged in meaning but may be half written:
/// callers apply to a copy.
pub fn apply(
    record: &mut Record,
    incarnation: Incarnation,
    number: u64,
    change: &Change,
) -> Result<(), Refusal> {
    match change {
        Change::Claim(claim) => {
            // Whoever collects orphans may have counted it among the dead.
            let forgotten = claim.claimed_before && !record.is_alive(incarnation);
            if forgotten && !planted(Mutation::ForgottenClaims) {
                return Err(Refusal::Forgotten);
            }
            apply_claim(record, incarnation, claim)?;
        }
        Change::Advance(advance) => {
            known(record, incarnation)?;
            apply_advance(record, advance)?;
        }
        Change::Clear(sets) => {
            known(record, incarnation)?;
            clear(record, sets);
        }
        Change::EndRun(id) => {
            if record.run.as_ref().is_some_and(|run| run.id == *id) && record.run_is_done() {
                record.run = None;
            }
        }
        Change::Rewind(rewinding) => rewind::apply_rewind(record, rewinding)?,
    }
    record.incarnations.insert(incarnation, Life { swap: number });
    forget_the_dead(record, incarnation);
    Ok(())
}

fn known(record: &Record, incarnation: Incarnation) -> Result<(), Refusal> {
    if record.incarnations.contains_key(&incarnation) || crash::unfenced() {
        Ok(())
    } else {
        Err(Refusal::Forgotten)
    }
}

fn apply_claim(record: &mut Record, us: Incarnation, claim: &Claim) -> Result<(), Refusal> {
    record.cluster = claim.cluster.clone().or(record.cluster.take());
    record.group = claim.group.clone().or(record.group.take());
    record.sinks.clone_from(&claim.sinks);
    for claimed in &claim.partitions {
        let found = record.partition(&claimed.partition).map(|state| state.epoch);
        if found != claimed.seen_epoch {
            return Err(Refusal::Epoch {
                partition: claimed.partition.clone(),
                expected: claimed.seen_epoch,
                found,
            });
        }
        claim_partition(record, us, claimed);
    }
    if let Some(id) = &claim.run {
        // Whoever finished it died before it could strike it out.
        if record.run.is_some() && record.run_is_done() {
            record.run = None;
        }
        let run = record
            .run
            .get_or_insert_with(|| BoundedRun { id: id.clone(), ends: claim.ends.clone() });
        for claimed in &claim.partitions {
            run.ends.entry(claimed.partition.clone()).or_insert(claimed.end);
        }
    }
    Ok(())
}

fn claim_partition(record: &mut Record, us: Incarnation, claimed: &ClaimedPartition) {
    let topic = record.topics.entry(claimed.partition.topic.to_string()).or_default();
    if claimed.topic_id.is_some() {
        topic.id.clone_from(&claimed.topic_id);
    }
    let state =
        topic.partitions.entry(claimed.partition.partition).or_insert_with(|| PartitionState {
            epoch: 0,
            owner: us,
            origin: claimed.start,
            cursors: BTreeMap::new(),
            rewinds: Vec::new(),
        });
    state.epoch += 1;
    state.owner = us;
    // A removed sink's cursor goes; a new sink begins at the others' smallest.
    state.cursors.retain(|sink, _| claimed.sinks.contains(sink));
    let start = state.next().unwrap_or(claimed.start);
    for sink in &claimed.sinks {
        state.cursors.entry(sink.clone()).or_insert_with(|| Cursor::start(start));
    }
    if let Some(offset) = claimed.rewind_to {
        if planted(Mutation::CommittedOffsetTrusted) {
            state.cursors.values_mut().for_each(|cursor| *cursor = Cursor::start(offset));
            return;
        }
        rewind::move_cursors(state, offset);
    }
}

fn apply_advance(record: &mut Record, advance: &Advance) -> Result<(), Refusal> {
    for step in &advance.moves {
        let found = record.partition(&step.partition).map(|state| state.epoch);
        let unfenced = crash::unfenced() || planted(Mutation::NoEpochCheck);
        if found != Some(step.epoch) && !unfenced {
            return Err(Refusal::Epoch {
                partition: step.partition.clone(),
                expected: Some(step.epoch),
                found,
            });
        }
        let Some(state) = record.partition_mut(&step.partition) else { continue };
        let unfenced = crash::unfenced() || planted(Mutation::NoCursorCheck);
        for (sink, (begin, end)) in &step.cursors {
            let cursor = state.cursors.get_mut(sink);
            match cursor {
                Some(cursor) if *cursor == *begin || unfenced => {
                    debug_assert!(end.next >= begin.next, "I2: a cursor never goes back");
                    *cursor = end.clone();
                }
                other => {
                    return Err(Refusal::Cursor {
                        partition: step.partition.clone(),
                        sink: sink.clone(),
                        expected: begin.next,
                        found: other.map(|cursor| cursor.next),
                    });
                }
            }
        }
    }
    clear(record, &advance.clear);
    record.pending.extend(advance.pending.iter().cloned());
    Ok(())
}

fn clear(record: &mut Record, sets: &[SetId]) {
    record.pending.retain(|set| !sets.contains(&set.id));
}

/// Lives that own nothing and have nothing pending leave the record, so that
/// it does not grow with every restart.
fn forget_the_dead(record: &mut Record, but: Incarnation) {
    let mut alive: BTreeSet<Incarnation> =
        record.partitions().map(|(_, state)| state.owner).collect();
    alive.extend(record.pending.iter().map(|set| set.id.incarnation));
    alive.insert(but);
    record.incarnations.retain(|incarnation, _| alive.contains(incarnation));
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Incarnation = Incarnation::from_u128(1);

    fn claim(run: &str, seen_epoch: Option<u64>, end: i64) -> Change {
        let partition = TopicPartition::new("orders", 0);
        let sinks: BTreeSet<_> = ["lake".to_owned()].into();
        let claimed = ClaimedPartition {
            partition: partition.clone(),
            topic_id: None,
            seen_epoch,
            sinks: sinks.clone(),
            start: 0,
            rewind_to: None,
            end,
        };
        Change::Claim(Claim {
            partitions: vec![claimed],
            sinks,
            run: Some(run.to_owned()),
            ends: [(partition, end)].into(),
            ..Claim::default()
        })
    }

    #[test]
    fn a_bounded_run_is_joined_until_it_is_done() {
        let mut record = Record::new("p");
        let run = |record: &Record| record.run.as_ref().map(|run| run.id.clone());
        apply(&mut record, US, 1, &claim("first", None, 5)).expect("applies");
        apply(&mut record, US, 2, &claim("second", Some(1), 9)).expect("applies");
        assert_eq!(run(&record).as_deref(), Some("first"), "it is under way");
        let state = record.partition_mut(&TopicPartition::new("orders", 0)).expect("claimed");
        state.cursors.values_mut().for_each(|cursor| cursor.next = 5);
        apply(&mut record, US, 3, &claim("third", Some(2), 9)).expect("applies");
        assert_eq!(run(&record).as_deref(), Some("third"), "the first was done and left behind");
        assert_eq!(record.run.expect("a run").ends.into_values().collect::<Vec<_>>(), [9]);
    }
}
