//! The invariants of the protocol, as functions of two successive versions of
//! the record, or of a record and something that happens beside it.
//!
//! Each returns what is wrong, in words, or nothing.

use std::collections::BTreeMap;
use std::fmt;

use tidelock::checkpoint::record::{Cursor, PartitionState, PendingSet, Record};
use tidelock_connector::TopicPartition;

/// What must always hold; the names are those of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// A file is visible only if some version of the record listed it.
    I1,
    /// A cursor never goes back except by a recorded rewind, and an origin
    /// never changes.
    I2,
    /// A set leaves the record only when all of its files are visible.
    I3,
    /// The commit sets of one sink tile each partition from its origin.
    I4,
    /// An epoch never decreases, and only the owner moves a cursor.
    I5,
    /// Nothing of a partition is processed before its claim returned.
    I6,
    /// A key belongs to one attempt, ever.
    I7,
    /// Nothing that a version of the record listed is discarded before it was
    /// published.
    I8,
    /// What is committed to the group is never ahead of the smallest cursor.
    I9,
    /// After faults stop every assigned partition advances to its end.
    L1,
    /// A reader finds every row exactly once.
    R1,
    /// A file that was once listed neither disappears nor changes.
    R2,
    /// A version of the record follows from the one before it.
    S1,
    /// A pipeline does not end by itself.
    E1,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

type Found = Option<String>;

/// Every partition of `after` with its state before, if it had one.
fn changes<'a>(
    before: &'a Record,
    after: &'a Record,
) -> impl Iterator<Item = (TopicPartition, Option<&'a PartitionState>, &'a PartitionState)> {
    after.partitions().map(|(partition, state)| {
        let was = before.partition(&partition);
        (partition, was, state)
    })
}

/// Whether a rewind was recorded between the two.
fn rewound(was: &PartitionState, is: &PartitionState) -> bool {
    is.rewinds.len() > was.rewinds.len() && is.epoch > was.epoch
}

/// I2.
pub(crate) fn cursors_never_go_back(before: &Record, after: &Record) -> Found {
    for (partition, was) in before.partitions() {
        let Some(is) = after.partition(&partition) else {
            return Some(format!("{partition} is forgotten"));
        };
        if rewound(was, is) {
            continue;
        }
        if is.origin != was.origin {
            return Some(format!(
                "the origin of {partition} moved: {} to {}",
                was.origin, is.origin
            ));
        }
        for (sink, cursor) in &was.cursors {
            let Some(now) = is.cursors.get(sink) else {
                return Some(format!("the cursor of {partition} for {sink} is gone"));
            };
            if now.next < cursor.next || now.filed_to < cursor.filed_to {
                return Some(format!(
                    "{partition} for {sink} went back from {} to {} (filed {} to {})",
                    cursor.next, now.next, cursor.filed_to, now.filed_to
                ));
            }
            if now.filed_to > now.next {
                return Some(format!("{partition} for {sink} is filed beyond its cursor"));
            }
        }
    }
    None
}

/// I3.
pub(crate) fn pending_leaves_published(
    before: &Record,
    after: &Record,
    is_published: impl Fn(&PendingSet) -> bool,
) -> Found {
    before
        .pending
        .iter()
        .filter(|set| !after.is_pending(&set.id))
        .filter(|set| !after.lost.iter().any(|lost| lost.id == set.id))
        .find(|set| !is_published(set))
        .map(|set| {
            format!("{}/{} left the record unpublished", set.id.incarnation, set.id.checkpoint)
        })
}

/// I4: what became pending covers, without a gap or an overlap, what the
/// cursors say was filed.
pub(crate) fn sets_tile(before: &Record, after: &Record) -> Found {
    let mut fresh: BTreeMap<(&str, TopicPartition), Vec<(i64, i64)>> = BTreeMap::new();
    for set in after.pending.iter().filter(|set| !before.is_pending(&set.id)) {
        for (partition, range) in &set.partitions {
            let ranges = fresh.entry((set.id.sink.as_str(), partition.clone())).or_default();
            ranges.push((range.from, range.to));
        }
    }
    for (partition, was, is) in changes(before, after) {
        if was.is_some_and(|was| rewound(was, is)) {
            continue;
        }
        for (sink, cursor) in &is.cursors {
            let filed =
                |state: &PartitionState| state.cursors.get(sink).map(|c: &Cursor| c.filed_to);
            let mut at = was.and_then(filed).unwrap_or(cursor.origin);
            let mut ranges = fresh.remove(&(sink.as_str(), partition.clone())).unwrap_or_default();
            ranges.sort_unstable();
            for (from, to) in ranges.into_iter().filter(|(from, to)| from != to) {
                if from != at {
                    return Some(format!(
                        "a set of {sink} begins {partition} at {from} and not at {at}"
                    ));
                }
                at = to;
            }
            if at != cursor.filed_to {
                return Some(format!(
                    "{partition} is filed for {sink} up to {} and its sets end at {at}",
                    cursor.filed_to
                ));
            }
        }
    }
    None
}

/// I5.
pub(crate) fn only_owners_move_cursors(before: &Record, after: &Record) -> Found {
    for (partition, was, is) in changes(before, after) {
        let Some(was) = was else { continue };
        if is.epoch < was.epoch {
            return Some(format!(
                "the epoch of {partition} fell from {} to {}",
                was.epoch, is.epoch
            ));
        }
        if is.owner != was.owner && is.epoch == was.epoch {
            return Some(format!("{partition} has another owner under epoch {}", is.epoch));
        }
        let moved = was.cursors.iter().any(|(sink, cursor)| is.cursors.get(sink) != Some(cursor));
        if !moved || rewound(was, is) {
            continue;
        }
        let number = |record: &Record| record.incarnations.get(&was.owner).map(|life| life.swap);
        let (swapped, forgotten) = (number(after) > number(before), number(after).is_none());
        if !(swapped || forgotten && is.epoch > was.epoch) {
            return Some(format!(
                "the cursor of {partition} moved under epoch {}, and not by its owner {}",
                was.epoch, was.owner
            ));
        }
    }
    None
}

/// S1.
pub(crate) fn is_successor(before: &Record, after: &Record) -> Found {
    (after.sequence != before.sequence + 1)
        .then(|| format!("version {} was replaced by version {}", before.sequence, after.sequence))
}

/// I9.
pub(crate) fn committed_is_behind(record: &Record, partition: &TopicPartition, to: i64) -> Found {
    let cursor = record.partition(partition).and_then(PartitionState::next);
    let ahead = cursor.is_none_or(|cursor| to > cursor);
    ahead.then(|| format!("{to} is committed for {partition}, whose cursor is {cursor:?}"))
}
