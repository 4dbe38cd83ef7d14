//! Partitions, offsets and sets of offsets.
//!
//! An *offset* is always the next one to read. A *coverage* says which offsets
//! a batch, a commit set or a file accounts for: rows may be filtered out and
//! logs have holes (transaction markers, compaction), the offsets stay covered.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One partition of one topic.
///
/// Sources that are not Kafka use whatever they read independently: a table
/// and a shard, a folder and a file number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number within the topic.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The next offset to read, per partition.
pub type Offsets = BTreeMap<TopicPartition, i64>;

/// A half-open range of offsets, `from..to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(i64, i64)", into = "(i64, i64)")]
pub struct OffsetRange {
    /// The first offset in the range.
    pub from: i64,
    /// The first offset behind the range.
    pub to: i64,
}

impl OffsetRange {
    /// How many offsets the range holds.
    pub fn len(&self) -> u64 {
        u64::try_from(self.to - self.from).unwrap_or(0)
    }

    /// Whether the range holds no offset.
    pub fn is_empty(&self) -> bool {
        self.to <= self.from
    }
}

impl From<(i64, i64)> for OffsetRange {
    fn from((from, to): (i64, i64)) -> Self {
        Self { from, to }
    }
}

impl From<OffsetRange> for (i64, i64) {
    fn from(range: OffsetRange) -> Self {
        (range.from, range.to)
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

/// A set of offsets of one partition: sorted, disjoint, non-adjacent ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<OffsetRange>", into = "Vec<OffsetRange>")]
pub struct OffsetSet {
    ranges: Vec<OffsetRange>,
}

impl OffsetSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// The set that holds `from..to`.
    pub fn from_range(from: i64, to: i64) -> Self {
        let mut set = Self::new();
        set.insert(from, to);
        set
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[OffsetRange] {
        &self.ranges
    }

    /// Whether no offset is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many offsets are in the set.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(OffsetRange::len).sum()
    }

    /// The smallest offset in the set.
    pub fn first(&self) -> Option<i64> {
        self.ranges.first().map(|range| range.from)
    }

    /// The offset behind the largest one: the next to read.
    pub fn next(&self) -> Option<i64> {
        self.ranges.last().map(|range| range.to)
    }

    /// The end of the first contiguous range: what may be committed to a log
    /// that knows only one number per partition.
    pub fn contiguous_next(&self) -> Option<i64> {
        self.ranges.first().map(|range| range.to)
    }

    /// Whether `offset` is in the set.
    pub fn contains(&self, offset: i64) -> bool {
        let after = self.ranges.partition_point(|range| range.from <= offset);
        after > 0 && offset < self.ranges[after - 1].to
    }

    /// Adds `from..to`; ranges that touch become one.
    pub fn insert(&mut self, from: i64, to: i64) {
        if to <= from {
            return;
        }
        // The usual case: the set grows at its end.
        if let Some(last) = self.ranges.last_mut()
            && last.from <= from
            && from <= last.to
        {
            last.to = last.to.max(to);
            return;
        }
        let start = self.ranges.partition_point(|range| range.to < from);
        let end = self.ranges.partition_point(|range| range.from <= to);
        let merged = self.ranges[start..end].iter().fold(OffsetRange { from, to }, |all, range| {
            OffsetRange { from: all.from.min(range.from), to: all.to.max(range.to) }
        });
        self.ranges.splice(start..end, [merged]);
    }

    /// Adds every offset of `other`.
    pub fn union(&mut self, other: &Self) {
        for range in &other.ranges {
            self.insert(range.from, range.to);
        }
    }

    /// The offsets that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::new();
        let (mut a, mut b) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            both.insert(x.from.max(y.from), x.to.min(y.to));
            if x.to <= y.to {
                a.next();
            } else {
                b.next();
            }
        }
        both
    }

    /// The offsets of `self` that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Self::new();
        let mut holes = other.ranges.as_slice();
        for range in &self.ranges {
            let mut from = range.from;
            while let Some((hole, rest)) = holes.split_first() {
                if hole.from >= range.to {
                    break;
                }
                left.insert(from, hole.from.min(range.to));
                from = from.max(hole.to);
                if hole.to > range.to {
                    break;
                }
                holes = rest;
            }
            left.insert(from, range.to);
        }
        left
    }
}

impl From<Vec<OffsetRange>> for OffsetSet {
    fn from(ranges: Vec<OffsetRange>) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range.from, range.to);
        }
        set
    }
}

impl From<OffsetSet> for Vec<OffsetRange> {
    fn from(set: OffsetSet) -> Self {
        set.ranges
    }
}

impl fmt::Display for OffsetSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

/// Which offsets are accounted for, per partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<TopicPartition, OffsetSet>);

impl Coverage {
    /// Coverage of nothing.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Coverage of `from..to` of one partition.
    pub fn of(partition: TopicPartition, from: i64, to: i64) -> Self {
        let mut coverage = Self::new();
        coverage.insert(&partition, from, to);
        coverage
    }

    /// Adds `from..to` of `partition`. An empty range adds nothing.
    pub fn insert(&mut self, partition: &TopicPartition, from: i64, to: i64) {
        if to <= from {
            return;
        }
        match self.0.get_mut(partition) {
            Some(set) => set.insert(from, to),
            None => {
                self.0.insert(partition.clone(), OffsetSet::from_range(from, to));
            }
        }
    }

    /// Adds everything that `other` covers.
    pub fn union(&mut self, other: &Self) {
        for (partition, set) in &other.0 {
            for range in set.ranges() {
                self.insert(partition, range.from, range.to);
            }
        }
    }

    /// What is covered of `partition`.
    pub fn get(&self, partition: &TopicPartition) -> Option<&OffsetSet> {
        self.0.get(partition)
    }

    /// Forgets `partition` and returns what was covered of it.
    pub fn remove(&mut self, partition: &TopicPartition) -> Option<OffsetSet> {
        self.0.remove(partition)
    }

    /// The partitions and what is covered of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &OffsetSet)> {
        self.0.iter()
    }

    /// The partitions that are covered, in order.
    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.0.keys()
    }

    /// Keeps only the partitions for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&TopicPartition) -> bool) {
        self.0.retain(|partition, _| keep(partition));
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many offsets are covered in all.
    pub fn len(&self) -> u64 {
        self.0.values().map(OffsetSet::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[(i64, i64)]) -> OffsetSet {
        ranges.iter().map(|&r| OffsetRange::from(r)).collect::<Vec<_>>().into()
    }

    fn members(set: &OffsetSet) -> BTreeSet<i64> {
        set.ranges().iter().flat_map(|range| range.from..range.to).collect()
    }

    #[test]
    fn next_and_contiguous_next_differ_over_a_gap() {
        let set = set(&[(100, 101), (102, 103)]);
        assert_eq!(set.next(), Some(103));
        assert_eq!(set.contiguous_next(), Some(101));
        assert_eq!(serde_json::to_string(&set).unwrap_or_default(), "[[100,101],[102,103]]");
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(
            a in prop::collection::vec((0_i64..60, 0_i64..12), 0..12),
            b in prop::collection::vec((0_i64..60, 0_i64..12), 0..12),
        ) {
            let build = |parts: &[(i64, i64)]| {
                let mut set = OffsetSet::new();
                for &(from, len) in parts { set.insert(from, from + len); }
                set
            };
            let (x, y) = (build(&a), build(&b));
            let (mx, my) = (members(&x), members(&y));
            let expect: BTreeSet<i64> = a.iter().flat_map(|&(f, l)| f..f + l).collect();
            prop_assert_eq!(&mx, &expect);
            prop_assert!(x.ranges().windows(2).all(|w| w[0].to < w[1].from));
            prop_assert_eq!(members(&x.intersection(&y)), mx.intersection(&my).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(members(&x.difference(&y)), mx.difference(&my).copied().collect::<BTreeSet<_>>());
            let mut both = x.clone();
            both.union(&y);
            prop_assert_eq!(members(&both), mx.union(&my).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(x.len(), mx.len() as u64);
            for n in 0..75 { prop_assert_eq!(x.contains(n), mx.contains(&n)); }
        }
    }
}
