//! Which files each commit set has, and whether all of them were seen.
//!
//! The footer of a set's last file lists the set's files, and may be read
//! before or after them. Both lists are reduced to a count and a sum of hashes,
//! so that a set takes the same few bytes whatever its number of files; the
//! names are looked up again only for sets that do not add up.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use tidelock_connector::Incarnation;

/// Names a commit set of one sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetKey {
    pub(super) incarnation: Incarnation,
    pub(super) checkpoint: u64,
}

impl fmt::Display for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.incarnation, self.checkpoint)
    }
}

/// A list of files with their rows, in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    files: u32,
    sum: u64,
}

impl Tally {
    fn add(&mut self, key: &str, rows: u64) {
        let mut hasher = DefaultHasher::new();
        (key, rows).hash(&mut hasher);
        self.files += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    seen: Tally,
    /// What the set's last file lists, once that was read.
    listed: Option<Tally>,
    /// Committed after the record was read.
    newer: bool,
}

/// What a set takes; tables of hashes leave some room besides.
#[cfg(test)]
pub(super) const BYTES_PER_SET: usize = size_of::<(SetKey, Seen)>();

/// The commit sets of one sink.
#[derive(Debug, Default)]
pub(super) struct Ledger(HashMap<SetKey, Seen>);

impl Ledger {
    /// A file of a set.
    pub(super) fn saw(&mut self, set: SetKey, key: &str, rows: u64) {
        self.0.entry(set).or_default().seen.add(key, rows);
    }

    /// What the set's last file lists. With `newer` the set may be committed
    /// after the record was read: it need not be whole yet.
    pub(super) fn listed<'a>(
        &mut self,
        set: SetKey,
        files: impl Iterator<Item = (&'a str, u64)>,
        newer: bool,
    ) {
        let mut tally = Tally::default();
        for (key, rows) in files {
            tally.add(key, rows);
        }
        let seen = self.0.entry(set).or_default();
        seen.listed = Some(tally);
        seen.newer |= newer;
    }

    /// How many sets have at least one file.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether the set's last file was seen: its coverage is known.
    pub(super) fn knows_coverage(&self, set: SetKey) -> bool {
        self.0.get(&set).is_some_and(|seen| seen.listed.is_some())
    }

    /// Whether exactly the files of the set were seen.
    pub(super) fn is_whole(&self, set: SetKey) -> bool {
        self.0.get(&set).is_some_and(|seen| seen.listed == Some(seen.seen))
    }

    /// The sets that do not add up and cannot be too new for it.
    pub(super) fn broken(&self) -> impl Iterator<Item = SetKey> {
        self.0
            .iter()
            .filter(|(_, seen)| !seen.newer && seen.listed != Some(seen.seen))
            .map(|(set, _)| *set)
    }
}

/// The set that a file name of ours names: for files that cannot tell any more.
pub(super) fn set_of_name(path: &str) -> Option<SetKey> {
    // Streams may have dashes and dots in their names, extensions two dots.
    let mut parts = path.rsplit('/').next()?.rsplitn(4, '-');
    let file = parts.next()?.split('.').next()?;
    let checkpoint = parts.next()?;
    let incarnation = Incarnation::parse(parts.next()?)?;
    parts.next()?;
    let digits =
        |text: &str, least| text.len() >= least && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(file, 4) || !digits(checkpoint, 8) {
        return None;
    }
    Some(SetKey { incarnation, checkpoint: checkpoint.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u128) -> SetKey {
        SetKey { incarnation: Incarnation::from_u128(n), checkpoint: 1 }
    }

    #[test]
    fn sets_add_up_in_any_order() {
        let mut ledger = Ledger::default();
        let files = [("a", 1), ("b", 2), ("c", 3)];
        ledger.saw(key(1), "b", 2);
        ledger.listed(key(1), files.into_iter(), false);
        assert!(!ledger.is_whole(key(1)) && ledger.knows_coverage(key(1)));
        ledger.saw(key(1), "c", 3);
        ledger.saw(key(1), "a", 1);
        assert!(ledger.is_whole(key(1)));
        assert_eq!(ledger.broken().count(), 0);
    }

    #[test]
    fn every_difference_is_noticed() {
        let cases: [&[(&str, u64)]; 5] =
            [&[("a", 1)], &[("a", 1), ("b", 3)], &[("a", 1), ("x", 2)], &[("a", 1), ("a", 1)], &[]];
        for seen in cases {
            let mut ledger = Ledger::default();
            for (name, rows) in seen {
                ledger.saw(key(1), name, *rows);
            }
            ledger.listed(key(1), [("a", 1), ("b", 2)].into_iter(), false);
            assert_eq!(ledger.broken().collect::<Vec<_>>(), [key(1)], "{seen:?}");
        }
        let mut orphan = Ledger::default();
        orphan.saw(key(2), "a", 1);
        assert_eq!(orphan.broken().count(), 1, "the last file of its set was not seen");
    }

    #[test]
    fn newer_sets_may_be_on_their_way() {
        let mut ledger = Ledger::default();
        ledger.listed(key(1), [("a", 1)].into_iter(), true);
        assert!(!ledger.is_whole(key(1)));
        assert_eq!(ledger.broken().count(), 0);
    }

    #[test]
    fn names_of_ours_are_known() {
        let life = "0000000000000000000000000000002a";
        let set = SetKey { incarnation: Incarnation::from_u128(42), checkpoint: 7 };
        for stream in ["orders", "a-b", "v1.2", "x-1.y"] {
            for extension in ["parquet", "jsonl.zst"] {
                let path = format!("day=2026-11-21/{stream}-{life}-00000007-0003.{extension}");
                assert_eq!(set_of_name(&path), Some(set), "{path}");
            }
        }
        for other in
            ["part-0001.parquet", "notes.txt", "orders-xyz-00000007-0003.parquet", "a-b-c-d"]
        {
            assert_eq!(set_of_name(other), None, "{other}");
        }
    }
}
