//! One look at the files of one sink: list, read the footers, add up.
//!
//! Files are read in parallel and forgotten at once. What stays is a few words
//! per commit set ([`Ledger`]), one range per partition and claim ([`Layers`]),
//! and the names of the files that look wrong.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::TryStreamExt;
use tidelock_connector::{Error, ErrorKind, OffsetSet, Result};
use tidelock_file::inspect::{self, Counted, Entry};
use tidelock_file::{FileFooter, SetCoverage};

use super::details::Details;
use super::findings::{FileFault, Findings};
use super::read::{Place, Reader, Reading, is_data};
use super::rows::RowSet;
use super::sets::{Ledger, SetKey};
use super::tiles::Layers;
use crate::checkpoint::record::Record;

/// What one look found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) totals: ScanTotals,
    pub(super) layers: ByPartition<Layers>,
    pub(super) ledger: Ledger,
    pub(super) findings: Findings,
    /// What a deep look counted.
    pub(super) rows: ByPartition<RowsOf>,
    pub(super) details: Details,
    /// Files that may be copies of ours and cannot tell.
    pub(super) suspects: Vec<Entry>,
    /// The sizes of our files that could not tell if they were copied.
    pub(super) sizes: HashSet<u64>,
}

/// Topic → partition → something.
pub(super) type ByPartition<T> = BTreeMap<String, BTreeMap<i32, T>>;

/// The rows of one partition.
#[derive(Debug, Default)]
pub(super) struct RowsOf {
    /// In our files.
    pub(super) ours: RowSet,
    /// In our files, more than once.
    pub(super) again: OffsetSet,
    /// In files without a footer of ours.
    pub(super) foreign: OffsetSet,
}

/// Sums over files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ScanTotals {
    pub(super) files: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) other: u64,
    pub(super) foreign: u64,
}

/// Looks at every file of a sink. `before` is the record as it was before;
/// `earlier` is what an earlier look found wrong.
pub(super) async fn scan(
    reader: &Arc<Reader>,
    parallel: usize,
    before: Option<&Record>,
    earlier: Option<&Findings>,
) -> Result<Scan> {
    let details = earlier.map(Details::about).unwrap_or_default();
    let mut scan = Scan { details, ..Scan::default() };
    let mut files = inspect::data_files(&reader.store)
        .map_ok(|entry| {
            let reader = Arc::clone(reader);
            // Tasks of their own, for decoding keeps more than one core busy.
            let task = tokio::spawn(async move {
                let (reading, counted) = reader.read(&entry).await?;
                Ok((entry, reading, counted))
            });
            async { task.await.map_err(panicked)? }
        })
        .try_buffer_unordered(parallel);
    while let Some((entry, reading, counted)) = files.try_next().await? {
        scan.absorb((&reader.sink, before), entry, reading, counted);
    }
    Ok(scan)
}

fn panicked(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Panic, "reading a file did not end").source(error)
}

impl Scan {
    fn absorb(
        &mut self,
        sink: (&str, Option<&Record>),
        entry: Entry,
        reading: Reading,
        counted: Option<Counted>,
    ) {
        let lines = is_data(&entry.path) && !entry.path.ends_with(".parquet");
        match reading {
            Reading::Gone => {}
            Reading::Other => self.totals.other += 1,
            Reading::Unreadable { set, why } => {
                self.findings.files.insert(entry.path, FileFault::Unreadable { set, why });
            }
            Reading::Foreign => {
                self.totals.foreign += 1;
                if let Some(counted) = &counted {
                    self.foreign_rows(&entry, counted);
                }
                if lines {
                    self.details.silent(&entry.path);
                    self.suspects.push(entry);
                }
            }
            Reading::Ours { footer, rows, place } => {
                if lines {
                    self.sizes.insert(entry.size);
                }
                self.ours(sink, &entry, &footer, place);
                if let Some(counted) = &counted {
                    self.own_rows(&entry, counted);
                }
                self.compare_rows(&entry, &footer, rows, counted.as_ref());
            }
        }
    }

    fn ours(
        &mut self,
        (sink, before): (&str, Option<&Record>),
        entry: &Entry,
        footer: &FileFooter,
        place: Place,
    ) {
        let key = set_of(footer);
        let of = footer.key.clone();
        match place {
            Place::Own => {}
            Place::Copy => {
                let fault = FileFault::Copied { set: key, of, rows: footer.rows };
                self.findings.files.insert(entry.path.clone(), fault);
                return;
            }
            // Its rows are there, once: it stands for itself.
            Place::Astray => {
                let fault = FileFault::Misplaced { set: key, key: of };
                self.findings.files.insert(entry.path.clone(), fault);
            }
        }
        self.totals.files += 1;
        self.totals.rows += footer.rows;
        self.totals.bytes += entry.size;
        self.ledger.saw(key, &footer.key, footer.rows);
        self.details.saw(key, footer);
        let Some(set) = &footer.set else { return };
        let files = set.files.iter().map(|file| (file.key.as_str(), file.rows));
        self.ledger.listed(key, files, is_newer(&set.coverage, sink, before));
        self.details.listed(key, set);
        for (topic, partitions) in &set.coverage.0 {
            // Looked up before it is copied: there are few topics.
            if !self.layers.contains_key(topic) {
                self.layers.insert(topic.clone(), BTreeMap::new());
            }
            let Some(layers) = self.layers.get_mut(topic) else { continue };
            for (partition, covered) in partitions {
                layers.entry(*partition).or_default().add(covered.epoch, &covered.offsets);
            }
        }
    }

    fn own_rows(&mut self, entry: &Entry, counted: &Counted) {
        self.details.counted(&entry.path, counted);
        let Some(offsets) = &counted.offsets else { return };
        for (partition, set) in offsets.iter() {
            let topic = self.rows.entry(partition.topic.to_string()).or_default();
            let RowsOf { ours, again, .. } = topic.entry(partition.partition).or_default();
            for range in set.ranges() {
                ours.insert(*range, again);
            }
        }
    }

    fn foreign_rows(&mut self, entry: &Entry, counted: &Counted) {
        self.details.counted(&entry.path, counted);
        let Some(offsets) = &counted.offsets else { return };
        for (partition, set) in offsets.iter() {
            let topic = self.rows.entry(partition.topic.to_string()).or_default();
            topic.entry(partition.partition).or_default().foreign.union(set);
        }
    }

    /// Holds what a footer says against what is in the file.
    fn compare_rows(
        &mut self,
        entry: &Entry,
        footer: &FileFooter,
        rows: Option<u64>,
        counted: Option<&Counted>,
    ) {
        let set = set_of(footer);
        let has = counted.map(|counted| counted.rows).or(rows);
        let cut = footer.bytes.filter(|bytes| *bytes != entry.size);
        let fault = match (has, counted) {
            (Some(has), _) if has != footer.rows => {
                FileFault::WrongRows { set, says: footer.rows, has }
            }
            _ if let Some(says) = cut => FileFault::WrongSize { set, says, has: entry.size },
            (_, Some(counted)) if counted.repeated > 0 => {
                FileFault::RepeatedRows { set, rows: counted.repeated }
            }
            _ => return,
        };
        self.findings.files.entry(entry.path.clone()).or_insert(fault);
    }
}

/// The commit set of a file.
pub(super) fn set_of(footer: &FileFooter) -> SetKey {
    SetKey { incarnation: footer.incarnation, checkpoint: footer.checkpoint }
}

/// Whether a set was committed after the record was read: some of its files
/// may be on their way.
fn is_newer(coverage: &SetCoverage, sink: &str, before: Option<&Record>) -> bool {
    let Some(record) = before else { return false };
    coverage.iter().any(|(partition, covered)| {
        let Some(state) = record.partition(&partition) else { return true };
        let beyond = || {
            let cursor = state.cursors.get(sink);
            cursor.is_some_and(|cursor| covered.offsets.next() > Some(cursor.filed_to))
        };
        covered.epoch > state.epoch || (covered.epoch == state.epoch && beyond())
    })
}
