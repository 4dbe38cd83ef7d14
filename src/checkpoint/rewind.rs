//! Sending cursors elsewhere: back, which repeats rows, or forward, which leaves
//! offsets out. Both are remembered, so that `verify` knows them for what they
//! are.

use tidelock_connector::{OffsetSet, TopicPartition};

use super::change::Refusal;
use super::record::{Cursor, LostSet, PartitionState, PendingSet, Record, Rewind, SetId};

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

pub(super) fn apply_rewind(record: &mut Record, rewinding: &Rewinding) -> Result<(), Refusal> {
    for target in &rewinding.targets {
        let state = record.partition_mut(&target.partition);
        let found = state.as_ref().map(|state| state.epoch);
        match state {
            Some(state) if state.epoch == target.seen_epoch => {
                state.epoch += 1;
                move_cursors(state, target.to);
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
pub(super) fn move_cursors(state: &mut PartitionState, offset: i64) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidelock_connector::Incarnation;

    use super::super::change::{Advance, Change, Move, apply};
    use super::super::record::{Files, Life};
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
