//! Which offsets have a row: sets that take a bit per offset at most.

use std::collections::BTreeMap;

use tidelock_connector::{OffsetRange, OffsetSet};

/// Offsets per chunk.
const CHUNK: i64 = 1 << 16;
const WORDS: usize = 1 << 10;

/// A set of offsets. Filters leave holes everywhere, so ranges would take 16
/// bytes per row; where no hole is, it is one range all the same.
#[derive(Debug, Clone, Default)]
pub(super) struct RowSet {
    /// Chunks without holes.
    whole: OffsetSet,
    chunks: BTreeMap<i64, Chunk>,
}

#[derive(Debug, Clone)]
struct Chunk {
    bits: Box<[u64; WORDS]>,
    rows: u32,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { bits: Box::new([0; WORDS]), rows: 0 }
    }
}

impl RowSet {
    /// Adds a range; what was there before goes into `again`.
    pub(super) fn insert(&mut self, range: OffsetRange, again: &mut OffsetSet) {
        let mut from = range.from;
        while from < range.to {
            let number = from.div_euclid(CHUNK);
            let start = number * CHUNK;
            let to = range.to.min(start + CHUNK);
            if self.whole.contains(from) {
                again.insert(from, to);
            } else {
                let chunk = self.chunks.entry(number).or_default();
                chunk.insert(start, from..to, again);
                if i64::from(chunk.rows) == CHUNK {
                    self.chunks.remove(&number);
                    self.whole.insert(start, start + CHUNK);
                }
            }
            from = to;
        }
    }

    /// How many offsets.
    pub(super) fn len(&self) -> u64 {
        self.whole.len() + self.chunks.values().map(|chunk| u64::from(chunk.rows)).sum::<u64>()
    }

    /// The offsets that are not in `set`.
    pub(super) fn outside(&self, set: &OffsetSet) -> OffsetSet {
        let mut outside = self.whole.difference(set);
        for (number, chunk) in &self.chunks {
            let start = number * CHUNK;
            let mut rows = OffsetSet::new();
            for (index, word) in (0_i64..).zip(chunk.bits.iter()) {
                let mut word = *word;
                while word != 0 {
                    let offset = start + index * 64 + i64::from(word.trailing_zeros());
                    rows.insert(offset, offset + 1);
                    word &= word - 1;
                }
            }
            outside.union(&rows.difference(set));
        }
        outside
    }
}

impl Chunk {
    fn insert(&mut self, start: i64, offsets: std::ops::Range<i64>, again: &mut OffsetSet) {
        for offset in offsets {
            let at = (offset - start) as usize;
            let (word, bit) = (&mut self.bits[at / 64], 1_u64 << (at % 64));
            if *word & bit != 0 {
                again.insert(offset, offset + 1);
            } else {
                *word |= bit;
                self.rows += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_ranges(
            parts in prop::collection::vec((-200_000_i64..200_000, 0_i64..150_000), 0..8),
            outside in (-200_000_i64..200_000, 0_i64..200_000),
        ) {
            let (mut rows, mut again) = (RowSet::default(), OffsetSet::new());
            let (mut model, mut model_again) = (OffsetSet::new(), OffsetSet::new());
            for (from, length) in parts {
                let part = OffsetSet::from_range(from, from + length);
                model_again.union(&model.intersection(&part));
                model.union(&part);
                rows.insert(OffsetRange { from, to: from + length }, &mut again);
            }
            let other = OffsetSet::from_range(outside.0, outside.0 + outside.1);
            prop_assert_eq!(rows.len(), model.len());
            prop_assert_eq!(again, model_again);
            prop_assert_eq!(rows.outside(&other), model.difference(&other));
            prop_assert_eq!(rows.outside(&OffsetSet::new()), model);
        }
    }

    #[test]
    fn holes_take_a_bit_and_whole_chunks_nothing() {
        let (mut rows, mut again) = (RowSet::default(), OffsetSet::new());
        rows.insert(OffsetRange { from: 0, to: 10 * CHUNK }, &mut again);
        assert!(rows.chunks.is_empty());
        for offset in (10 * CHUNK..11 * CHUNK).step_by(2) {
            rows.insert(OffsetRange { from: offset, to: offset + 1 }, &mut again);
        }
        assert_eq!((rows.chunks.len(), rows.len()), (1, (10 * CHUNK + CHUNK / 2).unsigned_abs()));
    }
}
