//! The contract of [`Source`](crate::Source) and
//! [`SourceReader`](crate::SourceReader).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::reading::{Reading, Row};
use super::{PATIENCE, handover, insist};
use crate::{
    AssignedPartition, CommittedOffset, CommittedOffsets, Event, Source, Start, TopicPartition,
};

/// How long the suite looks on to see that nothing comes.
const QUIET: Duration = Duration::from_millis(100);

/// Checks a source, waiting up to 30 s for each event.
///
/// `make` gives a source over a log that stays as it is: every call the same
/// log or one of the same content, of at least 20 rows. Several partitions,
/// holes, and small batches make the suite stricter.
///
/// # Panics
/// When a part of the contract does not hold.
pub async fn source(make: impl AsyncFn() -> Arc<dyn Source>) {
    source_within(PATIENCE, make).await;
}

/// [`source`], waiting up to `patience` for each event.
///
/// # Panics
/// When a part of the contract does not hold.
pub async fn source_within(patience: Duration, make: impl AsyncFn() -> Arc<dyn Source>) {
    let log = nothing_before_the_answer(&*make().await, patience).await;
    nothing_without_an_answer(&*make().await, patience).await;
    starts_cut_at_both_sides(&*make().await, patience, &log).await;
    for seed in 0..4 {
        next_is_cancel_safe(&*make().await, patience, &log, seed).await;
    }
    seek_drops_what_was_read(&*make().await, patience, &log).await;
    commits_are_reported(&*make().await, patience, &log).await;
    handover::moves_lose_nothing(&*make().await, patience, &log).await;
}

/// What the log holds, as read once from its beginning.
pub(super) struct Log {
    /// Low and end of each partition.
    pub(super) bounds: BTreeMap<TopicPartition, (i64, i64)>,
    /// All rows, sorted.
    pub(super) rows: Vec<Row>,
}

impl Log {
    fn of<'a>(&'a self, partition: &'a TopicPartition) -> impl Iterator<Item = i64> + 'a {
        self.rows.iter().filter(move |row| row.0 == *partition).map(|row| row.1)
    }

    /// The offset before which a part of the rows of `partition` lies.
    fn quantile(&self, partition: &TopicPartition, part: usize, of: usize) -> i64 {
        let rows = self.of(partition).count();
        self.of(partition).nth(rows * part / of).unwrap_or(self.bounds[partition].0)
    }

    /// A start for every partition.
    fn starts(&self, offset: impl Fn(&TopicPartition) -> (i64, Option<i64>)) -> Vec<Start> {
        let start = |partition: &TopicPartition| {
            let (offset, end) = offset(partition);
            Start { partition: partition.clone(), offset, end }
        };
        self.bounds.keys().map(start).collect()
    }

    /// The rows that these starts ask for.
    fn asked(&self, starts: &[Start]) -> Vec<Row> {
        let asks = |row: &&Row| {
            starts.iter().any(|start| {
                start.partition == row.0
                    && start.offset <= row.1
                    && start.end.is_none_or(|end| row.1 < end)
            })
        };
        self.rows.iter().filter(asks).cloned().collect()
    }

    /// Whether a reader has covered everything that these starts ask for.
    fn covered(&self, reading: &Reading, starts: &[Start]) -> bool {
        starts.iter().all(|start| {
            let end = start.end.unwrap_or(self.bounds[&start.partition].1);
            reading.at.get(&start.partition).is_some_and(|at| at.next >= end)
        })
    }
}

/// From the beginning of the log.
pub(super) fn low(assigned: &AssignedPartition) -> Option<Start> {
    Some(Start { partition: assigned.partition.clone(), offset: assigned.low, end: None })
}

/// Waits for the first assignment.
async fn assignment(reading: &mut Reading) -> crate::Assignment {
    let until = Instant::now() + reading.patience;
    loop {
        match reading.event().await {
            Event::Assigned(assignment) => return assignment,
            Event::Idle => assert!(Instant::now() < until, "no assignment comes"),
            other => panic!("before any assignment there is {other:?}"),
        }
    }
}

/// Looks on for a while; nothing but assignments, which stay unanswered, may
/// come. [`Reading`] panics on rows that nobody asked for.
async fn quiet(reading: &mut Reading) -> Vec<crate::Assignment> {
    let until = Instant::now() + QUIET;
    let mut unanswered = Vec::new();
    while !reading.ended && Instant::now() < until {
        let event = reading.event_within(until - Instant::now()).await;
        if let Some(Event::Assigned(assignment)) = event {
            unanswered.push(assignment);
        }
    }
    unanswered
}

/// Reads everything, and so finds out what the log holds.
async fn nothing_before_the_answer(source: &dyn Source, patience: Duration) -> Log {
    let mut reading = Reading::open(source, 0, patience).await;
    let first = assignment(&mut reading).await;
    let mut unanswered = quiet(&mut reading).await;
    unanswered.push(first);
    let bounds: BTreeMap<_, _> = unanswered
        .iter()
        .flat_map(|assignment| &assignment.partitions)
        .map(|assigned| (assigned.partition.clone(), (assigned.low, assigned.end)))
        .collect();
    for assignment in unanswered {
        reading.answer(assignment, low);
    }
    let mut log = Log { bounds, rows: Vec::new() };
    let all = log.starts(|partition| (log.bounds[partition].0, None));
    reading.read_until(low, |reading| log.covered(reading, &all)).await;
    log.rows = reading.sorted();
    assert!(log.rows.len() >= 20, "the log holds {} rows, the suite wants 20", log.rows.len());
    log
}

async fn nothing_without_an_answer(source: &dyn Source, patience: Duration) {
    let mut reading = Reading::open(source, 0, patience).await;
    drop(assignment(&mut reading).await);
    drop(quiet(&mut reading).await);
}

/// Answers every assignment out of `starts`.
fn from(starts: &[Start]) -> impl Fn(&AssignedPartition) -> Option<Start> {
    move |assigned| starts.iter().find(|start| start.partition == assigned.partition).cloned()
}

async fn starts_cut_at_both_sides(source: &dyn Source, patience: Duration, log: &Log) {
    let starts = log.starts(|p| (log.quantile(p, 1, 3), Some(log.quantile(p, 2, 3))));
    let mut reading = Reading::open(source, 0, patience).await;
    reading.read_until(from(&starts), |reading| log.covered(reading, &starts)).await;
    assert_eq!(reading.sorted(), log.asked(&starts), "rows between start and end");
}

async fn next_is_cancel_safe(source: &dyn Source, patience: Duration, log: &Log, seed: u64) {
    let mut reading = Reading::open(source, 0, patience).await;
    reading.cancel = Some(StdRng::seed_from_u64(seed));
    let all = log.starts(|partition| (log.bounds[partition].0, None));
    reading.read_until(from(&all), |reading| log.covered(reading, &all)).await;
    assert_eq!(reading.sorted(), log.rows, "rows although next was cancelled, seed {seed}");
}

async fn seek_drops_what_was_read(source: &dyn Source, patience: Duration, log: &Log) {
    let mut reading = Reading::open(source, 0, patience).await;
    let all = log.starts(|partition| (log.bounds[partition].0, None));
    reading.read_until(from(&all), |reading| log.covered(reading, &all)).await;

    // Again from the beginning, and away in the middle of it.
    for named in log.bounds.keys() {
        reading.seek(&all).await;
        let deadline = Instant::now() + patience;
        while reading.rows.len() < log.rows.len() / 3 {
            let event = reading.event().await;
            assert!(!matches!(event, Event::End), "end after a seek, before anything was read");
            assert!(Instant::now() < deadline, "nothing is read after a seek");
        }
        // A call that was given up may have read something already.
        let _ = reading.reader.next().now_or_never();
        let only: Vec<_> = all.iter().filter(|start| start.partition == *named).cloned().collect();
        reading.seek(&only).await;
        reading.read_until(from(&only), |reading| log.covered(reading, &only)).await;
        quiet(&mut reading).await;
        assert_eq!(reading.sorted(), log.asked(&only), "rows after a seek to {named} alone");
    }

    let some = log.starts(|p| (log.quantile(p, 1, 2), Some(log.quantile(p, 3, 4))));
    reading.seek(&some).await;
    reading.read_until(from(&some), |reading| log.covered(reading, &some)).await;
    assert_eq!(reading.sorted(), log.asked(&some), "rows after a seek with ends");
}

/// Sources that keep no offsets report none.
async fn commits_are_reported(source: &dyn Source, patience: Duration, log: &Log) {
    let mut reading = Reading::open(source, 0, patience).await;
    let all = log.starts(|partition| (log.bounds[partition].0, None));
    reading.read_until(from(&all), |reading| log.covered(reading, &all)).await;
    let hint = "a hint".to_owned();
    let committed = |p| CommittedOffset { offset: log.quantile(p, 1, 2), hint: hint.clone() };
    let offsets: CommittedOffsets = log.bounds.keys().map(|p| (p.clone(), committed(p))).collect();
    let committer = Arc::clone(&reading.committer);
    insist("commit", async || committer.commit(&offsets).await).await;
    drop(reading);

    let mut again = Reading::open(source, 0, patience).await;
    for assigned in assignment(&mut again).await.partitions {
        if let Some(committed) = assigned.committed {
            let partition = &assigned.partition;
            assert_eq!(
                committed.offset, offsets[partition].offset,
                "what is committed for {partition}"
            );
            assert!(
                committed.hint.is_empty() || committed.hint == "a hint",
                "{partition}: the hint comes back as {:?}",
                committed.hint
            );
        }
    }
}
