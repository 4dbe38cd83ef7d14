//! The names behind what an earlier look found wrong.
//!
//! A first look keeps no names. When something is wrong there is a second look,
//! which collects them for exactly that.

use std::collections::{BTreeMap, BTreeSet};

use tidelock_connector::{OffsetSet, TopicPartition};
use tidelock_file::inspect::Counted;
use tidelock_file::{CommitSet, FileFooter, SetCoverage, SetFile};

use super::findings::{FileFault, Findings, RangeKind};
use super::sets::{SetKey, set_of_name};

/// How many broken sets are explained file by file.
const EXPLAINED_SETS: usize = 1_000;
/// How many files are named for one finding.
pub(super) const NAMED_FILES: usize = 20;

/// What is collected, and what for.
#[derive(Debug, Default)]
pub(super) struct Details {
    wanted: BTreeSet<SetKey>,
    ranges: Vec<(TopicPartition, RangeKind, OffsetSet)>,
    pub(super) sets: BTreeMap<SetKey, SetDetail>,
    /// Files that cover, or have rows of, a range that is wrong.
    pub(super) covering: BTreeMap<(TopicPartition, RangeKind), BTreeSet<String>>,
    /// Offsets are missing: files with a name of ours that say nothing of
    /// themselves may be where they are.
    missing: bool,
    pub(super) silent: BTreeSet<String>,
}

/// One commit set, file by file.
#[derive(Debug, Default)]
pub(super) struct SetDetail {
    /// What it covers, when its last file was seen.
    pub(super) coverage: Option<SetCoverage>,
    pub(super) listed: Vec<SetFile>,
    pub(super) seen: Vec<SetFile>,
}

impl Details {
    /// Nothing collected yet, about these findings.
    pub(super) fn about(findings: &Findings) -> Self {
        let of_files = findings.files.values().map(FileFault::set);
        let wanted = findings.sets.iter().copied().chain(of_files).take(EXPLAINED_SETS).collect();
        // What nobody covers has no names.
        let covered = |kind| !matches!(kind, RangeKind::Missing | RangeKind::Expired);
        let ranges = findings
            .ranges
            .iter()
            .filter(|((_, kind), _)| covered(*kind))
            .map(|((partition, kind), found)| (partition.clone(), *kind, found.clone()))
            .collect();
        let missing = findings.ranges.keys().any(|(_, kind)| *kind == RangeKind::Missing);
        Self { wanted, ranges, missing, ..Self::default() }
    }

    /// A file's footer.
    pub(super) fn saw(&mut self, key: SetKey, footer: &FileFooter) {
        if self.wanted.contains(&key) {
            let seen = SetFile { key: footer.key.clone(), rows: footer.rows };
            self.sets.entry(key).or_default().seen.push(seen);
        }
    }

    /// A file without a footer.
    pub(super) fn silent(&mut self, path: &str) {
        if self.missing && self.silent.len() < NAMED_FILES && set_of_name(path).is_some() {
            self.silent.insert(path.to_owned());
        }
    }

    /// The footer of a set's last file.
    pub(super) fn listed(&mut self, key: SetKey, set: &CommitSet) {
        if self.wanted.contains(&key) {
            let detail = self.sets.entry(key).or_default();
            detail.coverage = Some(set.coverage.clone());
            detail.listed.clone_from(&set.files);
        }
        let by_sets = [RangeKind::Duplicate, RangeKind::Unrecorded];
        let covered = |partition: &TopicPartition| {
            Some(&set.coverage.0.get(&*partition.topic)?.get(&partition.partition)?.offsets)
        };
        self.name(by_sets, covered, set.files.iter().map(|file| file.key.as_str()));
    }

    /// The rows of a file.
    pub(super) fn counted(&mut self, path: &str, counted: &Counted) {
        let by_rows = [RangeKind::RepeatedRows, RangeKind::StrayRows];
        let Some(offsets) = &counted.offsets else { return };
        self.name(by_rows, |partition| offsets.get(partition), std::iter::once(path));
    }

    /// Notes `names` for every range of these kinds that `covered` touches.
    fn name<'a>(
        &mut self,
        kinds: [RangeKind; 2],
        covered: impl Fn(&TopicPartition) -> Option<&'a OffsetSet>,
        names: impl Iterator<Item = &'a str> + Clone,
    ) {
        for (partition, kind, range) in &self.ranges {
            let touches = || {
                covered(partition).is_some_and(|offsets| !offsets.intersection(range).is_empty())
            };
            if kinds.contains(kind) && touches() {
                let known = self.covering.entry((partition.clone(), *kind)).or_default();
                let room = NAMED_FILES.saturating_sub(known.len());
                known.extend(names.clone().take(room).map(str::to_owned));
            }
        }
    }
}
