//! What may happen to a record: pure functions, without I/O or a clock.
//!
//! Every change belongs to one incarnation. Applying it to the newest record
//! either gives the next record or is *refused*: the record has moved on and
//! the incarnation's view of it is void. The invariants of the protocol (I2,
//! I3, I5, I6) are enforced here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use tidelock_connector::{Incarnation, OffsetSet, TopicPartition};

use super::crash;
use super::mutation::{Mutation, planted};
use super::record::{
    BoundedRun, Cursor, Life, LostSet, PartitionState, PendingSet, Record, Rewind, SetId,
};

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

/// Moves cursors to where somebody decided.
#[derive(Debug, Clone, Default)]
pub struct Rewinding {
    /// Where to.
    pub targets: Vec<RewindTarget>,
    /// A pending set that is given up: it was committed, and its files are
    /// lost. The rewind must be what reads its offsets again.
    pub lost: Option<SetId>,
}

/// Where the cursors of one partition go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewindTarget {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch of the record that the decision was made on. Applied twice,
    /// the second time is refused.
    pub seen_epoch: u64,
    /// The new cursor of every sink.
    pub to: i64,
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
        Change::Rewind(rewinding) => apply_rewind(record, rewinding)?,
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
        let run =
            record.run.get_or_insert_with(|| BoundedRun { id: id.clone(), ends: BTreeMap::new() });
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
        rewind(state, offset);
    }
}

fn apply_rewind(record: &mut Record, rewinding: &Rewinding) -> Result<(), Refusal> {
    for target in &rewinding.targets {
        let state = record.partition_mut(&target.partition);
        let found = state.as_ref().map(|state| state.epoch);
        match state {
            Some(state) if state.epoch == target.seen_epoch => {
                state.epoch += 1;
                rewind(state, target.to);
            }
            _ => {
                return Err(Refusal::Epoch {
                    partition: target.partition.clone(),
                    expected: Some(target.seen_epoch),
                    found,
                });
            }
        }
    }
    if let Some(lost) = &rewinding.lost {
        let index = record.pending.iter().position(|set| set.id == *lost);
        let index = index.ok_or_else(|| Refusal::NotPending(lost.clone()))?;
        let PendingSet { id, partitions, .. } = record.pending.remove(index);
        record.lost.push(LostSet { id, partitions });
    }
    Ok(())
}

/// Moves every cursor to `offset` and notes what that repeats or leaves out.
/// The epoch was raised before: batches that were read until now are void (I2).
fn rewind(state: &mut PartitionState, offset: i64) {
    let reached = state.cursors.values().map(|cursor| cursor.next).max();
    // Up to the cursor nothing behind `filed_to` had rows, but no file says so:
    // the next set begins at the new cursor, and the gap before it is ours.
    let skipped = state.cursors.values().filter(|cursor| cursor.next < offset);
    let skipped = skipped.map(|cursor| cursor.filed_to).min();
    let epoch = state.epoch;
    let repeated = reached.filter(|reached| offset < *reached);
    state.rewinds.extend(repeated.into_iter().chain(skipped).map(|to| Rewind {
        from: offset,
        to,
        epoch,
    }));
    for cursor in state.cursors.values_mut() {
        // Going back, the coverage still begins where it ends in files, which
        // may be below the new cursor: what lies between had no rows.
        let filed_to = if offset <= cursor.next { cursor.filed_to.min(offset) } else { offset };
        let below = OffsetSet::from_range(i64::MIN, offset);
        *cursor = Cursor {
            next: offset,
            missing: cursor.missing.intersection(&below),
            filed_to,
            origin: cursor.origin.min(offset),
        };
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
    use super::super::record::Files;
    use super::*;

    const US: Incarnation = Incarnation::from_u128(1);
    const OPERATOR: Incarnation = Incarnation::from_u128(2);

    fn orders() -> TopicPartition {
        TopicPartition::new("orders", 0)
    }

    fn cursor(next: i64, filed_to: i64) -> Cursor {
        Cursor { next, missing: OffsetSet::new(), filed_to, origin: 10 }
    }

    /// One partition in epoch 3, with these cursors.
    fn record(cursors: &[(&str, Cursor)]) -> Record {
        let mut record = Record::new("p");
        record.incarnations.insert(US, Life { swap: 7 });
        record.topics.entry("orders".into()).or_default().partitions.insert(
            0,
            PartitionState {
                epoch: 3,
                owner: US,
                origin: 10,
                cursors: cursors.iter().map(|(s, c)| ((*s).to_owned(), c.clone())).collect(),
                rewinds: Vec::new(),
            },
        );
        record
    }

    fn rewind_to(to: i64, seen_epoch: u64) -> Change {
        let target = RewindTarget { partition: orders(), seen_epoch, to };
        Change::Rewind(Rewinding { targets: vec![target], lost: None })
    }

    fn rewound(cursors: &[(&str, Cursor)], to: i64) -> PartitionState {
        let mut record = record(cursors);
        apply(&mut record, OPERATOR, 1, &rewind_to(to, 3)).unwrap();
        let state = record.partition(&orders()).unwrap().clone();
        assert_eq!((state.epoch, state.owner), (4, US));
        state
    }

    #[test]
    fn going_back_repeats_and_begins_the_coverage_where_files_end() {
        let state = rewound(&[("s", cursor(50, 40))], 20);
        assert_eq!(state.cursors["s"], cursor(20, 20));
        assert_eq!(state.rewinds, [Rewind { from: 20, to: 50, epoch: 4 }]);
        // Between 40 and 50 nothing had rows, and no file covers it yet.
        let state = rewound(&[("s", cursor(50, 40))], 45);
        assert_eq!(state.cursors["s"], cursor(45, 40));
        // Below the origin the tiles begin earlier from now on.
        let state = rewound(&[("s", cursor(50, 50))], 5);
        assert_eq!(state.cursors["s"], Cursor { origin: 5, ..cursor(5, 5) });
    }

    #[test]
    fn going_on_leaves_out_everything_that_no_file_covers() {
        let state = rewound(&[("s", cursor(50, 40))], 80);
        assert_eq!(state.cursors["s"], cursor(80, 80));
        assert_eq!(state.rewinds, [Rewind { from: 80, to: 40, epoch: 4 }]);
    }

    #[test]
    fn sinks_on_both_sides_are_noted_apart() {
        let state = rewound(&[("a", cursor(50, 50)), ("b", cursor(30, 25))], 40);
        assert_eq!(state.cursors["a"], cursor(40, 40));
        assert_eq!(state.cursors["b"], cursor(40, 40));
        let back = Rewind { from: 40, to: 50, epoch: 4 };
        assert_eq!(state.rewinds, [back, Rewind { from: 40, to: 25, epoch: 4 }]);
    }

    #[test]
    fn staying_keeps_what_is_covered() {
        let state = rewound(&[("s", cursor(50, 40))], 50);
        assert_eq!((state.cursors["s"].clone(), state.rewinds.len()), (cursor(50, 40), 0));
    }

    #[test]
    fn missing_offsets_above_the_new_cursor_are_read_again() {
        let missing: OffsetSet = vec![(12, 14).into(), (30, 32).into()].into();
        let state = rewound(&[("s", Cursor { missing, ..cursor(50, 50) })], 31);
        let left: OffsetSet = vec![(12, 14).into(), (30, 31).into()].into();
        assert_eq!(state.cursors["s"].missing, left);
    }

    #[test]
    fn a_rewind_is_applied_once_and_fences_the_owner() {
        let mut record = record(&[("s", cursor(50, 50))]);
        let again = rewind_to(20, 3);
        apply(&mut record, OPERATOR, 1, &again).unwrap();
        let refusal = apply(&mut record.clone(), OPERATOR, 2, &again).unwrap_err();
        assert!(matches!(refusal, Refusal::Epoch { found: Some(4), .. }), "{refusal}");
        let cursors = [("s".to_owned(), (cursor(50, 50), cursor(60, 60)))].into();
        let step = Move { partition: orders(), epoch: 3, cursors };
        let late = Change::Advance(Advance { moves: vec![step], ..Advance::default() });
        let refusal = apply(&mut record, US, 8, &late).unwrap_err();
        assert!(matches!(refusal, Refusal::Epoch { .. }), "{refusal}");
    }

    #[test]
    fn a_lost_set_leaves_by_a_rewind_and_is_remembered() {
        let mut record = record(&[("s", cursor(50, 50))]);
        let id = SetId { sink: "s".into(), incarnation: US, checkpoint: 4 };
        let partitions: BTreeMap<_, _> = [(orders(), (30, 50).into())].into();
        let files = Files::Inline(Vec::new());
        record.pending.push(PendingSet { id: id.clone(), partitions: partitions.clone(), files });
        let target = RewindTarget { partition: orders(), seen_epoch: 3, to: 30 };
        let give_up = |seen_epoch| {
            let targets = vec![RewindTarget { seen_epoch, ..target.clone() }];
            Change::Rewind(Rewinding { targets, lost: Some(id.clone()) })
        };
        apply(&mut record, OPERATOR, 1, &give_up(3)).unwrap();
        assert!(!record.is_pending(&id));
        assert_eq!(record.lost, [LostSet { id: id.clone(), partitions }]);
        let refusal = apply(&mut record, OPERATOR, 2, &give_up(4)).unwrap_err();
        assert_eq!(refusal, Refusal::NotPending(id.clone()));
    }
}
