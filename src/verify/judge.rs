//! Holds one look at one sink against the record: what is wrong, and what to
//! say of each partition. Plain data in, plain data out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidelock_connector::{OffsetRange, OffsetSet, TopicPartition};

use super::SinkToVerify;
use super::findings::{Findings, RangeKind};
use super::pending::{Pending, key_of, unseen};
use super::scan::{ByPartition, RowsOf, Scan};
use super::sets::SetKey;
use super::tiles::{self, Expected, Layers, Tiling};
use super::verdict::{AllWatermarks, PartitionVerdict, Problem, SinkVerdict, Totals, Watermarks};
use crate::checkpoint::record::{PartitionState, Record};

/// What is known besides the files.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) sink: &'a SinkToVerify,
    /// The record as it was before the files were listed.
    pub(super) before: Option<&'a Record>,
    /// The record as it was after that.
    pub(super) after: Option<&'a Record>,
    pub(super) watermarks: Option<&'a AllWatermarks>,
}

/// Judges a sink.
pub(super) fn judge(
    known: Known<'_>,
    scan: &mut Scan,
    pending: &Pending,
) -> (Findings, SinkVerdict) {
    let mut findings = std::mem::take(&mut scan.findings);
    findings.files.extend(pending.lost.iter().cloned());
    // Pending sets may be half there; so may sets that were pending a moment ago.
    let mut excused: BTreeSet<_> =
        unseen(known.before, &known.sink.name, scan).map(|set| key_of(&set.id)).collect();
    excused.extend(given_up(known));
    findings.sets.extend(scan.ledger.broken().filter(|set| !excused.contains(set)));

    let nothing = Layers::default();
    let mut partitions = Vec::new();
    for partition in all_partitions(known, scan) {
        let layers = look_up(&scan.layers, &partition).unwrap_or(&nothing);
        let (tiling, mut verdict) = judge_partition(known, scan, layers, &partition);
        if let Some(rows) = look_up_mut(&mut scan.rows, &partition) {
            verdict.offsets_with_rows = Some(rows.ours.len());
            judge_rows(known, rows, &tiling, &partition, &mut findings);
        }
        findings.add(&partition, RangeKind::Missing, tiling.missing);
        findings.add(&partition, RangeKind::Expired, tiling.expired);
        findings.add(&partition, RangeKind::Duplicate, tiling.duplicate);
        findings.add(&partition, RangeKind::Unrecorded, tiling.unrecorded);
        partitions.push(verdict);
    }
    let given_up = given_up(known).count() as u64;
    (findings, sink_verdict(known.sink, scan, pending, given_up, partitions))
}

/// Sets whose files were lost, and whose offsets an operator had read again.
fn given_up(known: Known<'_>) -> impl Iterator<Item = SetKey> {
    let lost = known.after.map(|record| record.lost.as_slice()).unwrap_or_default();
    lost.iter().filter(move |set| set.id.sink == known.sink.name).map(|set| key_of(&set.id))
}

fn look_up<'a, T>(map: &'a ByPartition<T>, partition: &TopicPartition) -> Option<&'a T> {
    map.get(&*partition.topic)?.get(&partition.partition)
}

fn look_up_mut<'a, T>(
    map: &'a mut ByPartition<T>,
    partition: &TopicPartition,
) -> Option<&'a mut T> {
    map.get_mut(&*partition.topic)?.get_mut(&partition.partition)
}

/// Every partition with files, a cursor, or a topic that the sink takes.
fn all_partitions(known: Known<'_>, scan: &Scan) -> BTreeSet<TopicPartition> {
    let mut all = BTreeSet::new();
    for (topic, partitions) in &scan.layers {
        let topic: Arc<str> = topic.as_str().into();
        all.extend(partitions.keys().map(|n| TopicPartition::new(Arc::clone(&topic), *n)));
    }
    if let Some(record) = known.after {
        let ours = |state: &PartitionState| state.cursors.contains_key(&known.sink.name);
        all.extend(record.partitions().filter(|(_, state)| ours(state)).map(|(p, _)| p));
    }
    if let Some(watermarks) = known.watermarks {
        all.extend(watermarks.keys().filter(|p| known.sink.takes(&p.topic)).cloned());
    }
    all
}

fn judge_partition(
    known: Known<'_>,
    scan: &Scan,
    layers: &Layers,
    partition: &TopicPartition,
) -> (Tiling, PartitionVerdict) {
    let sink = &known.sink.name;
    let state = known.after.and_then(|record| record.partition(partition));
    let cursor = state.and_then(|state| state.cursors.get(sink));
    let cursor_before = known
        .before
        .and_then(|record| record.partition(partition))
        .and_then(|state| state.cursors.get(sink));
    let undone = cursor_before.map(|cursor| cursor.missing.clone()).unwrap_or_default();
    let mut pending = OffsetSet::new();
    for set in unseen(known.before, sink, scan) {
        if !scan.ledger.knows_coverage(key_of(&set.id))
            && let Some(range) = set.partitions.get(partition)
        {
            pending.insert(range.from, range.to);
        }
    }
    let watermarks = known.watermarks.and_then(|all| all.get(partition));
    let required = match (known.before, cursor_before, cursor) {
        (_, Some(cursor), _) => Some(OffsetRange { from: cursor.origin, to: cursor.filed_to }),
        // Claimed while we looked: nothing is required of it yet.
        (Some(_), None, Some(cursor)) => {
            Some(OffsetRange { from: cursor.origin, to: cursor.origin })
        }
        _ => None,
    };
    // A partition that the record has never seen has nothing to show; one that
    // was taken from the sink has its old files.
    let recorded_to = match (known.after, state, cursor) {
        (_, _, Some(cursor)) => Some(cursor.filed_to),
        (Some(_), None, None) => Some(i64::MIN),
        _ => None,
    };
    let tiling = tiles::judge(
        layers,
        &Expected {
            required,
            undone: &undone,
            recorded_to,
            rewinds: state.map(|state| state.rewinds.as_slice()).unwrap_or_default(),
            pending: &pending,
            low: watermarks.map(|watermarks| watermarks.low),
        },
    );
    let mut verdict = PartitionVerdict {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        origin: cursor.map(|cursor| cursor.origin).or(tiling.covered.first()),
        filed_to: cursor.map(|cursor| cursor.filed_to).or(tiling.covered.next()),
        next: cursor.map(|cursor| cursor.next).or(tiling.covered.next()),
        offsets: tiling.covered.len(),
        pending: tiling.pending.clone(),
        skipped: tiling.skipped.clone(),
        rewound: tiling.rewound.clone(),
        undone,
        ..PartitionVerdict::default()
    };
    if let Some(watermarks) = watermarks {
        beyond_the_cursor(&mut verdict, *watermarks);
    }
    (tiling, verdict)
}

/// What the topic has, or had, beyond the cursor.
fn beyond_the_cursor(verdict: &mut PartitionVerdict, Watermarks { low, end }: Watermarks) {
    let next = verdict.next.unwrap_or(low);
    let count = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
    verdict.lag = Some(count(next.max(low), end));
    verdict.expired_unread = Some(count(next, low)).filter(|expired| *expired > 0);
}

/// Rows that are there twice, and rows that nothing accounts for.
fn judge_rows(
    known: Known<'_>,
    rows: &mut RowsOf,
    tiling: &Tiling,
    partition: &TopicPartition,
    findings: &mut Findings,
) {
    // Where no set tells what it covers, the rows may be seen before it is.
    let mut accounted = tiling.covered.clone();
    for told_apart in [&tiling.pending, &tiling.missing, &tiling.expired] {
        accounted.union(told_apart);
    }
    findings.add(partition, RangeKind::StrayRows, rows.ours.outside(&accounted));
    for range in rows.foreign.ranges() {
        rows.ours.insert(*range, &mut rows.again);
    }
    // An operator had these written again.
    let state = known.after.and_then(|record| record.partition(partition));
    let mut allowed = tiling.duplicate.clone();
    for rewind in state.map(|state| state.rewinds.as_slice()).unwrap_or_default() {
        allowed.insert(rewind.from, rewind.to);
    }
    findings.add(partition, RangeKind::RepeatedRows, rows.again.difference(&allowed));
}

fn sink_verdict(
    sink: &SinkToVerify,
    scan: &Scan,
    pending: &Pending,
    given_up: u64,
    partitions: Vec<PartitionVerdict>,
) -> SinkVerdict {
    let sum = |of: fn(&PartitionVerdict) -> u64| partitions.iter().map(of).sum();
    let totals = Totals {
        files: scan.totals.files,
        sets: scan.ledger.len(),
        rows: scan.totals.rows,
        bytes: scan.totals.bytes,
        partitions: partitions.len() as u64,
        offsets: sum(|p| p.offsets),
        pending_sets: pending.sets,
        given_up_sets: given_up,
        rewound: sum(|p| p.rewound.len()),
        skipped: sum(|p| p.skipped.len()),
        lag: partitions.iter().filter_map(|p| p.lag).reduce(|one, two| one + two),
    };
    SinkVerdict {
        name: sink.name.clone(),
        url: sink.store.url().to_owned(),
        totals,
        other_files: scan.totals.other,
        foreign_files: scan.totals.foreign,
        pending_files: pending.files,
        pending_rows: pending.rows,
        partitions,
    }
}

/// Writes what is confirmed into the partitions' summaries.
pub(super) fn note(verdict: &mut SinkVerdict, findings: &Findings, problems: &[Problem]) {
    let mut by_partition: BTreeMap<_, _> = verdict
        .partitions
        .iter_mut()
        .map(|p| (TopicPartition::new(p.topic.as_str(), p.partition), p))
        .collect();
    for ((partition, kind), found) in &findings.ranges {
        let Some(verdict) = by_partition.get_mut(partition) else { continue };
        match kind {
            RangeKind::Missing | RangeKind::Expired => verdict.missing.union(found),
            RangeKind::Duplicate => verdict.duplicate.union(found),
            _ => {}
        }
    }
    for offsets in problems.iter().flat_map(|problem| &problem.offsets) {
        let partition = TopicPartition::new(offsets.topic.as_str(), offsets.partition);
        if let Some(verdict) = by_partition.get_mut(&partition) {
            verdict.problems += 1;
        }
    }
}
