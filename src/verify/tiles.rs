//! The core of the proof: do the commit sets of one sink tile one partition?
//!
//! Plain data in, plain data out; no I/O and no clock. What a set covers goes
//! into [`Layers`], one layer per epoch in which it was read; [`judge`] holds
//! the layers against what the record says.
//!
//! # Why this takes little memory
//! Sets of one epoch come from one life, follow each other without a gap and
//! merge into one range. What is kept is one range per claim, whatever the
//! number of sets, as long as nothing is wrong.
//!
//! # The rules
//! * From the cursor's origin up to `filed_to` every offset is covered, or it
//!   is missing (I4). Between `filed_to` and `next` nothing has rows.
//! * An offset covered twice is a duplicate, unless an operator rewound the
//!   cursor between the two epochs.
//! * Nothing is covered beyond `filed_to`: no version of the record knew it
//!   (I1). Rewinds apart, which leave older files ahead of the cursor.

use std::collections::BTreeMap;

use tidelock_connector::{OffsetRange, OffsetSet};

use crate::checkpoint::record::Rewind;

/// What the commit sets of one sink cover of one partition, by epoch.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers(BTreeMap<u64, Layer>);

#[derive(Debug, Clone, Default)]
struct Layer {
    covered: OffsetSet,
    /// Covered by more than one set of this epoch.
    twice: OffsetSet,
}

/// What the record says of the partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// From the origin to `filed_to`, as of *before* the files were listed.
    /// `None`: the record does not know, and only interior gaps are provable.
    pub(super) required: Option<OffsetRange>,
    /// Offsets that the record itself calls not done.
    pub(super) undone: &'a OffsetSet,
    /// `filed_to` as of *after* the files were listed.
    pub(super) recorded_to: Option<i64>,
    /// The rewinds as of after the files were listed.
    pub(super) rewinds: &'a [Rewind],
    /// What pending sets account for that do not tell it themselves yet.
    pub(super) pending: &'a OffsetSet,
    /// Where the topic begins now, if the broker was asked.
    pub(super) low: Option<i64>,
}

/// The judgement of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tiling {
    /// Covered at least once.
    pub(super) covered: OffsetSet,
    /// Covered by nothing, and the topic may still have it.
    pub(super) missing: OffsetSet,
    /// Covered by nothing, and the topic no longer has it.
    pub(super) expired: OffsetSet,
    /// Not covered yet: committed, about to become visible.
    pub(super) pending: OffsetSet,
    /// Left out by an operator.
    pub(super) skipped: OffsetSet,
    /// Covered again after an operator's rewind.
    pub(super) rewound: OffsetSet,
    /// Covered more than once, and nobody decided so.
    pub(super) duplicate: OffsetSet,
    /// Covered, and the record knows nothing of it.
    pub(super) unrecorded: OffsetSet,
}

impl Layers {
    /// Adds what one set covers.
    pub(super) fn add(&mut self, epoch: u64, offsets: &OffsetSet) {
        let layer = self.0.entry(epoch).or_default();
        for range in offsets.ranges() {
            for again in within(&layer.covered, *range) {
                layer.twice.insert(again.from, again.to);
            }
            layer.covered.insert(range.from, range.to);
        }
    }

    /// Everything that is covered.
    pub(super) fn covered(&self) -> OffsetSet {
        let mut all = OffsetSet::new();
        for layer in self.0.values() {
            all.union(&layer.covered);
        }
        all
    }

    /// What is covered more than once: (by a rewind, by accident).
    fn overlaps(&self, rewinds: &[Rewind]) -> (OffsetSet, OffsetSet) {
        let (mut rewound, mut duplicate) = (OffsetSet::new(), OffsetSet::new());
        // Disjoint pieces, each with the newest epoch that covers it so far:
        // every epoch is compared with the one right below it.
        let mut top: BTreeMap<u64, OffsetSet> = BTreeMap::new();
        for (&epoch, layer) in &self.0 {
            duplicate.union(&layer.twice);
            for (&below, covered) in &mut top {
                let both = layer.covered.intersection(covered);
                if both.is_empty() {
                    continue;
                }
                let allowed = both.intersection(&between(rewinds, below, epoch));
                duplicate.union(&both.difference(&allowed));
                rewound.union(&allowed);
                *covered = covered.difference(&both);
            }
            top.retain(|_, covered| !covered.is_empty());
            top.insert(epoch, layer.covered.clone());
        }
        (rewound.difference(&duplicate), duplicate)
    }

    /// What lies beyond the record, which knew of nothing from `to` on.
    fn beyond(&self, to: i64, rewinds: &[Rewind]) -> OffsetSet {
        let mut beyond = OffsetSet::new();
        for (&epoch, layer) in &self.0 {
            let known = rewinds
                .iter()
                .filter(|rewind| rewind.epoch > epoch)
                .map(|rewind| rewind.to)
                .fold(to, i64::max);
            beyond.union(&layer.covered.difference(&OffsetSet::from_range(i64::MIN, known)));
        }
        beyond
    }
}

/// The parts of `set` that lie within `range`; finds them by bisection.
fn within(set: &OffsetSet, range: OffsetRange) -> impl Iterator<Item = OffsetRange> {
    let ranges = set.ranges();
    let start = ranges.partition_point(|known| known.to <= range.from);
    ranges[start..].iter().take_while(move |known| known.from < range.to).map(move |known| {
        OffsetRange { from: known.from.max(range.from), to: known.to.min(range.to) }
    })
}

/// What was rewound after epoch `below` and not after epoch `above`.
fn between(rewinds: &[Rewind], below: u64, above: u64) -> OffsetSet {
    let mut rewound = OffsetSet::new();
    for rewind in rewinds.iter().filter(|rewind| below < rewind.epoch && rewind.epoch <= above) {
        rewound.insert(rewind.from, rewind.to);
    }
    rewound
}

/// What operators left out and nobody brought back.
fn skipped(rewinds: &[Rewind]) -> OffsetSet {
    let mut skipped = OffsetSet::new();
    for rewind in rewinds {
        if rewind.from < rewind.to {
            skipped = skipped.difference(&OffsetSet::from_range(rewind.from, rewind.to));
        } else {
            skipped.insert(rewind.to, rewind.from);
        }
    }
    skipped
}

/// Holds what is covered against what the record says.
pub(super) fn judge(layers: &Layers, expected: &Expected<'_>) -> Tiling {
    let covered = layers.covered();
    let (rewound, duplicate) = layers.overlaps(expected.rewinds);
    let required = match expected.required {
        Some(range) => OffsetSet::from_range(range.from, range.to),
        None => match (covered.first(), covered.next()) {
            (Some(from), Some(to)) => OffsetSet::from_range(from, to),
            _ => OffsetSet::new(),
        },
    };
    let skipped = skipped(expected.rewinds);
    let gaps = required.difference(&covered).difference(expected.undone).difference(&skipped);
    let pending = gaps.intersection(expected.pending);
    let gaps = gaps.difference(&pending);
    let low = OffsetSet::from_range(i64::MIN, expected.low.unwrap_or(i64::MIN));
    let unrecorded =
        expected.recorded_to.map(|to| layers.beyond(to, expected.rewinds)).unwrap_or_default();
    Tiling {
        missing: gaps.difference(&low),
        expired: gaps.intersection(&low),
        pending,
        skipped: skipped.difference(&covered),
        rewound,
        duplicate,
        unrecorded,
        covered,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[(i64, i64)]) -> OffsetSet {
        ranges.iter().map(|&range| OffsetRange::from(range)).collect::<Vec<_>>().into()
    }

    fn layers(sets: &[(u64, i64, i64)]) -> Layers {
        let mut layers = Layers::default();
        for &(epoch, from, to) in sets {
            layers.add(epoch, &OffsetSet::from_range(from, to));
        }
        layers
    }

    static EMPTY: OffsetSet = OffsetSet::new();
    const NOTHING: OffsetSet = OffsetSet::new();

    fn up_to(filed_to: i64) -> Expected<'static> {
        Expected {
            required: Some(OffsetRange { from: 0, to: filed_to }),
            undone: &EMPTY,
            recorded_to: Some(filed_to),
            rewinds: &[],
            pending: &EMPTY,
            low: None,
        }
    }

    #[test]
    fn many_sets_of_one_epoch_become_one_range() {
        let mut layers = Layers::default();
        for n in (0..10_000).rev() {
            layers.add(3, &OffsetSet::from_range(n * 10, n * 10 + 10));
        }
        assert_eq!(layers.0[&3].covered.ranges().len(), 1);
        let tiling = judge(&layers, &up_to(100_000));
        assert_eq!(tiling, Tiling { covered: set(&[(0, 100_000)]), ..Tiling::default() });
    }

    #[test]
    fn a_gap_below_what_the_topic_still_has_is_expired() {
        let layers = layers(&[(1, 0, 10), (1, 40, 50)]);
        let tiling = judge(&layers, &Expected { low: Some(25), ..up_to(60) });
        assert_eq!(tiling.expired, set(&[(10, 25)]));
        assert_eq!(tiling.missing, set(&[(25, 40), (50, 60)]));
    }

    #[test]
    fn only_what_the_record_calls_pending_is_pending() {
        let layers = layers(&[(1, 0, 10), (1, 20, 30), (1, 40, 50)]);
        let pending = set(&[(30, 40), (50, 55)]);
        let tiling = judge(&layers, &Expected { pending: &pending, ..up_to(60) });
        assert_eq!((tiling.missing, tiling.pending), (set(&[(10, 20), (55, 60)]), pending));
    }

    #[test]
    fn without_the_record_only_interior_gaps_show() {
        let layers = layers(&[(1, 10, 20), (1, 30, 40)]);
        let expected = Expected { required: None, recorded_to: None, ..up_to(0) };
        let tiling = judge(&layers, &expected);
        assert_eq!((tiling.missing, tiling.unrecorded), (set(&[(20, 30)]), NOTHING));
    }

    #[test]
    fn a_rewind_allows_its_overlap_once() {
        let rewinds = [Rewind { from: 5, to: 10, epoch: 2 }];
        let expected = Expected { rewinds: &rewinds, ..up_to(20) };
        let again = judge(&layers(&[(1, 0, 10), (2, 5, 20)]), &expected);
        assert_eq!((again.rewound, again.duplicate), (set(&[(5, 10)]), NOTHING));
        // Further back than the operator said.
        let further = judge(&layers(&[(1, 0, 10), (2, 3, 20)]), &expected);
        assert_eq!((further.rewound, further.duplicate), (set(&[(5, 10)]), set(&[(3, 5)])));
        // A third time, which no rewind explains.
        let thrice = judge(&layers(&[(1, 0, 10), (2, 5, 20), (3, 6, 8)]), &expected);
        assert_eq!((thrice.rewound, thrice.duplicate), (set(&[(5, 6), (8, 10)]), set(&[(6, 8)])));
        // Both sets from before it.
        let before = judge(&layers(&[(0, 0, 10), (1, 5, 20)]), &expected);
        assert_eq!((before.rewound, before.duplicate), (NOTHING, set(&[(5, 10)])));
    }

    #[test]
    fn files_ahead_of_a_rewound_cursor_are_known_to_the_record() {
        let rewinds = [Rewind { from: 5, to: 30, epoch: 2 }];
        let expected = Expected { rewinds: &rewinds, ..up_to(8) };
        let tiling = judge(&layers(&[(1, 0, 30), (2, 5, 8)]), &expected);
        assert_eq!((tiling.unrecorded, tiling.rewound), (NOTHING, set(&[(5, 8)])));
        let tiling = judge(&layers(&[(1, 0, 31), (2, 5, 9)]), &expected);
        assert_eq!(tiling.unrecorded, set(&[(8, 9), (30, 31)]));
    }

    #[test]
    fn what_an_operator_skipped_is_no_gap_until_it_is_brought_back() {
        let mut rewinds = vec![Rewind { from: 20, to: 10, epoch: 2 }];
        let sets = layers(&[(1, 0, 10), (2, 20, 30)]);
        let tiling = judge(&sets, &Expected { rewinds: &rewinds, ..up_to(30) });
        assert_eq!((tiling.skipped, tiling.missing), (set(&[(10, 20)]), NOTHING));
        rewinds.push(Rewind { from: 15, to: 30, epoch: 3 });
        let tiling = judge(&sets, &Expected { rewinds: &rewinds, ..up_to(30) });
        assert_eq!((tiling.skipped, tiling.missing), (set(&[(10, 15)]), set(&[(15, 20)])));
    }

    /// Cuts of 0..200 into sets, some of them dropped, some given twice, in any
    /// order, epochs rising with the offsets.
    fn sets() -> impl Strategy<Value = Vec<(u64, i64, i64, u8)>> {
        let cuts = prop::collection::btree_set(1_i64..200, 0..30);
        let fates = prop::collection::vec(0_u8..12, 31);
        (cuts, fates, 1_i64..80).prop_map(|(cuts, fates, per_epoch)| {
            let mut from = 0;
            let ends = cuts.into_iter().chain([200]);
            let cut = |(to, fate): (i64, u8)| {
                let begin = std::mem::replace(&mut from, to);
                ((begin / per_epoch).unsigned_abs(), begin, to, fate)
            };
            ends.zip(fates).map(cut).collect()
        })
    }

    proptest! {
        #[test]
        fn finds_exactly_the_planted_gaps_and_overlaps(
            sets in sets(),
            order in any::<prop::sample::Index>(),
            later in 0_u64..3,
        ) {
            let (mut lost, mut twice) = (OffsetSet::new(), OffsetSet::new());
            let mut given = Vec::new();
            for &(epoch, from, to, fate) in &sets {
                match fate {
                    0 => lost.insert(from, to),
                    1 => {
                        // The copy says the same, or pretends to be newer.
                        twice.insert(from, to);
                        given.extend([(epoch, from, to), (epoch + later, from, to)]);
                    }
                    _ => given.push((epoch, from, to)),
                }
            }
            let len = given.len();
            given.rotate_left(order.index(len + 1).min(len));
            let tiling = judge(&layers(&given), &up_to(200));
            prop_assert_eq!(&tiling.missing, &lost);
            prop_assert_eq!(&tiling.duplicate, &twice);
            prop_assert_eq!(&tiling.covered, &OffsetSet::from_range(0, 200).difference(&lost));
            prop_assert!(tiling.rewound.is_empty() && tiling.unrecorded.is_empty());
        }

        /// Against the definition, offset by offset.
        #[test]
        fn agrees_with_counting(
            sets in prop::collection::vec((0_u64..6, 0_i64..40, 1_i64..15), 0..12),
            rewinds in prop::collection::vec((0_i64..40, 0_i64..40), 0..4),
            filed_to in 0_i64..60,
            low in 0_i64..60,
        ) {
            let rewinds: Vec<_> = rewinds
                .into_iter()
                .zip(1..)
                .map(|((from, to), epoch)| Rewind { from, to, epoch })
                .collect();
            let sets: Vec<_> = sets.into_iter().map(|(e, from, len)| (e, from, from + len)).collect();
            let expected = Expected { rewinds: &rewinds, low: Some(low), ..up_to(filed_to) };
            let tiling = judge(&layers(&sets), &expected);
            for offset in 0..60 {
                let mut epochs: Vec<_> = sets
                    .iter()
                    .filter(|(_, from, to)| (*from..*to).contains(&offset))
                    .map(|(epoch, _, _)| *epoch)
                    .collect();
                epochs.sort_unstable();
                let explained = |pair: &[u64]| rewinds.iter().any(|r| {
                    pair[0] < r.epoch && r.epoch <= pair[1] && (r.from..r.to).contains(&offset)
                });
                let skipped = rewinds.iter().fold(false, |skipped, r| {
                    !(r.from..r.to).contains(&offset) && (skipped || (r.to..r.from).contains(&offset))
                });
                let gap = offset < filed_to && epochs.is_empty() && !skipped;
                let duplicate = epochs.windows(2).any(|pair| !explained(pair));
                prop_assert_eq!(tiling.duplicate.contains(offset), duplicate, "{}", offset);
                let rewound = epochs.len() > 1 && !duplicate;
                prop_assert_eq!(tiling.rewound.contains(offset), rewound, "{}", offset);
                prop_assert_eq!(tiling.missing.contains(offset), gap && offset >= low);
                prop_assert_eq!(tiling.expired.contains(offset), gap && offset < low);
                prop_assert_eq!(tiling.skipped.contains(offset), skipped && epochs.is_empty());
                let beyond = epochs.iter().any(|epoch| {
                    let known = rewinds.iter().filter(|r| r.epoch > *epoch).map(|r| r.to).max();
                    offset >= known.unwrap_or(0).max(filed_to)
                });
                prop_assert_eq!(tiling.unrecorded.contains(offset), beyond, "{}", offset);
            }
        }
    }
}
