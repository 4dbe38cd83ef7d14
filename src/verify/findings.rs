//! What looked wrong, in a form that two looks can be compared by.
//!
//! A running pipeline publishes files while they are listed, so one look can be
//! wrong about what is newest. What is wrong in *two* looks in a row, of which
//! the second read the record again before it listed, is wrong.

use std::collections::{BTreeMap, BTreeSet};

use tidelock_connector::{OffsetRange, OffsetSet, TopicPartition};

use super::sets::SetKey;

/// What is wrong with a range of offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RangeKind {
    /// No file covers it.
    Missing,
    /// No file covers it, and the topic no longer has it.
    Expired,
    /// Several sets cover it.
    Duplicate,
    /// Covered, and no record knew it.
    Unrecorded,
    /// Rows of it were found more than once.
    RepeatedRows,
    /// Rows of it were found, and no set covers it.
    StrayRows,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileFault {
    /// A copy of another file, which is there as well.
    Copied { set: SetKey, of: String, rows: u64 },
    /// It lies under another key than its own, where nothing is.
    Misplaced { set: SetKey, key: String },
    /// It cannot be read, and has a name of ours.
    Unreadable { set: SetKey, why: String },
    /// It does not have the bytes that it was written with.
    WrongSize { set: SetKey, says: u64, has: u64 },
    /// It does not hold the rows that it says.
    WrongRows { set: SetKey, says: u64, has: u64 },
    /// Several of its rows have the same offset.
    RepeatedRows { set: SetKey, rows: u64 },
    /// Committed, not visible, and the staged bytes are gone.
    Lost { set: SetKey, rows: u64, ranges: BTreeMap<TopicPartition, OffsetRange> },
}

impl FileFault {
    /// The commit set that the file belongs to.
    pub(super) fn set(&self) -> SetKey {
        match self {
            Self::Copied { set, .. }
            | Self::Misplaced { set, .. }
            | Self::Unreadable { set, .. }
            | Self::WrongSize { set, .. }
            | Self::WrongRows { set, .. }
            | Self::RepeatedRows { set, .. }
            | Self::Lost { set, .. } => *set,
        }
    }
}

/// Everything that looked wrong in one sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) ranges: BTreeMap<(TopicPartition, RangeKind), OffsetSet>,
    /// Sets whose files are not the ones that they list.
    pub(super) sets: BTreeSet<SetKey>,
    /// By where the file lies, or should.
    pub(super) files: BTreeMap<String, FileFault>,
}

impl Findings {
    pub(super) fn add(&mut self, partition: &TopicPartition, kind: RangeKind, found: OffsetSet) {
        if !found.is_empty() {
            self.ranges.entry((partition.clone(), kind)).or_default().union(&found);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.sets.is_empty() && self.files.is_empty()
    }

    /// What `before` found as well.
    pub(super) fn confirmed_by(mut self, before: &Self) -> Self {
        self.ranges.retain(|key, found| match before.ranges.get(key) {
            Some(known) => {
                *found = found.intersection(known);
                !found.is_empty()
            }
            None => false,
        });
        self.sets.retain(|set| before.sets.contains(set));
        self.files.retain(|path, _| before.files.contains_key(path));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_looks_found_is_confirmed() {
        let partition = TopicPartition::new("t", 0);
        let mut first = Findings::default();
        first.add(&partition, RangeKind::Missing, OffsetSet::from_range(0, 10));
        let mut second = Findings::default();
        second.add(&partition, RangeKind::Missing, OffsetSet::from_range(5, 20));
        second.add(&partition, RangeKind::Duplicate, OffsetSet::from_range(0, 10));
        let confirmed = second.confirmed_by(&first);
        let ranges: Vec<_> = confirmed.ranges.into_iter().collect();
        assert_eq!(ranges, [((partition, RangeKind::Missing), OffsetSet::from_range(5, 10))]);
    }
}
