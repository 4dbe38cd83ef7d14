//! A reader that checks every event against the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout};

use super::super::log::{OFFSET, PARTITION, TOPIC, coordinates};
use super::{forgive, insist};
use crate::{
    AssignedPartition, Assignment, Batch, Coverage, Event, OffsetCommitter, Source, SourceContext,
    SourceReader, Start, TopicPartition,
};

/// The coordinates of a row.
pub(super) type Row = (TopicPartition, i64);

/// Where a partition stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// Where the next coverage has to begin.
    pub(super) next: i64,
    /// Where it has to end at the latest.
    pub(super) end: Option<i64>,
}

/// A reader under test, and what it has delivered.
pub(super) struct Reading {
    pub(super) reader: Box<dyn SourceReader>,
    pub(super) committer: Arc<dyn OffsetCommitter>,
    /// The partitions that may be delivered.
    pub(super) at: BTreeMap<TopicPartition, At>,
    pub(super) rows: Vec<Row>,
    /// There will be nothing more before a seek.
    pub(super) ended: bool,
    pub(super) patience: Duration,
    /// Drops the future of `next` at random.
    pub(super) cancel: Option<StdRng>,
}

impl Reading {
    pub(super) async fn open(source: &dyn Source, worker: usize, patience: Duration) -> Self {
        let open = async || source.open(SourceContext::new("conformance", worker, 8 << 20)).await;
        let (opened, _) = insist("open", open).await;
        Self {
            reader: opened.reader,
            committer: opened.committer,
            at: BTreeMap::new(),
            rows: Vec::new(),
            ended: false,
            patience,
            cancel: None,
        }
    }

    /// The next event, checked; batches and coverage are accounted for.
    pub(super) async fn event(&mut self) -> Event {
        let mut errors = 0;
        let until = Instant::now() + self.patience;
        loop {
            assert!(Instant::now() < until, "next reports nothing, not even that it is idle");
            let wait = until - Instant::now();
            let result = match &mut self.cancel {
                None => timeout(wait, self.reader.next()).await.ok(),
                Some(rng) => match rng.random_range(0..4) {
                    0 => self.reader.next().now_or_never(),
                    1 => timeout(Duration::ZERO, self.reader.next()).await.ok(),
                    2 => timeout(Duration::from_millis(2), self.reader.next()).await.ok(),
                    _ => timeout(wait, self.reader.next()).await.ok(),
                },
            };
            match result {
                None => tokio::task::yield_now().await,
                Some(Err(error)) => forgive(&mut errors, "next", error).await,
                Some(Ok(event)) => {
                    self.accept(&event);
                    return event;
                }
            }
        }
    }

    /// What comes within `wait`, if anything does.
    pub(super) async fn event_within(&mut self, wait: Duration) -> Option<Event> {
        timeout(wait, self.event()).await.ok()
    }

    /// Checks an event and takes it into account.
    fn accept(&mut self, event: &Event) {
        match event {
            Event::Batch(batch) => {
                let rows = rows_of(batch);
                for rejected in &batch.rejected {
                    let at = (rejected.partition.clone(), rejected.offset);
                    assert!(covers(&batch.coverage, &at), "rejected {at:?} is not covered");
                }
                self.rows.extend(rows);
                self.cover(&batch.coverage);
            }
            Event::Covered(coverage) => self.cover(coverage),
            Event::Assigned(assignment) => check_assignment(assignment),
            Event::End => self.ended = true,
            Event::Revoking(_) | Event::Idle => {}
        }
    }

    fn cover(&mut self, coverage: &Coverage) {
        for (partition, set) in coverage.iter() {
            let Some(at) = self.at.get_mut(partition) else {
                panic!("{partition} is delivered ({set}), but nobody asked for it");
            };
            let [range] = set.ranges() else { panic!("{partition}: coverage has gaps: {set}") };
            assert!(
                range.from == at.next,
                "{partition}: coverage is not contiguous: {range} after {}",
                at.next
            );
            if let Some(end) = at.end {
                assert!(range.to <= end, "{partition}: coverage {range} goes beyond {end}");
            }
            at.next = range.to;
        }
    }

    /// Answers an assignment with `start` of each partition, and expects just
    /// that from now on.
    pub(super) fn answer(
        &mut self,
        assignment: Assignment,
        start: impl Fn(&AssignedPartition) -> Option<Start>,
    ) {
        let starts: Vec<_> = assignment.partitions.iter().filter_map(start).collect();
        self.expect(&starts);
        let _ = assignment.reply.send(starts);
    }

    /// These partitions may be delivered from here on.
    pub(super) fn expect(&mut self, starts: &[Start]) {
        for start in starts {
            let at = At { next: start.offset, end: start.end };
            self.at.insert(start.partition.clone(), at);
        }
    }

    /// Forgets partitions that were taken away.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.at.remove(partition);
        }
    }

    /// Reads until `enough` and, once it is, until the reader idles; assignments
    /// are answered with `start`.
    pub(super) async fn read_until(
        &mut self,
        start: impl Fn(&AssignedPartition) -> Option<Start>,
        enough: impl Fn(&Self) -> bool,
    ) {
        let mut until = Instant::now() + self.patience;
        loop {
            match self.event().await {
                Event::Assigned(assignment) => self.answer(assignment, &start),
                Event::Revoking(revocation) => self.forget(&revocation.partitions),
                Event::Idle | Event::End if enough(self) => return,
                Event::End => panic!("end is reported too early, at {:?}", self.at),
                Event::Idle => {
                    assert!(Instant::now() < until, "no progress at {:?}", self.at);
                }
                Event::Batch(_) | Event::Covered(_) => until = Instant::now() + self.patience,
            }
        }
    }

    /// Goes to `to`; whatever comes next has to begin there.
    pub(super) async fn seek(&mut self, to: &[Start]) {
        let reader = &mut self.reader;
        insist("seek", async || reader.seek(to).await).await;
        self.at.clear();
        self.rows.clear();
        self.ended = false;
        self.expect(to);
    }

    /// The rows so far, sorted.
    pub(super) fn sorted(&self) -> Vec<Row> {
        let mut rows = self.rows.clone();
        rows.sort();
        rows
    }
}

fn check_assignment(assignment: &Assignment) {
    let mut seen = BTreeSet::new();
    assert!(!assignment.partitions.is_empty(), "an assignment without partitions");
    for assigned in &assignment.partitions {
        let AssignedPartition { partition, start, low, end, .. } = assigned;
        assert!(seen.insert(partition), "{partition} is twice in one assignment");
        assert!(low <= end, "{partition}: low {low} is above the end {end}");
        assert!(low <= start && start <= end, "{partition}: start {start} not in {low}..={end}");
    }
}

fn covers(coverage: &Coverage, (partition, offset): &Row) -> bool {
    coverage.get(partition).is_some_and(|set| set.contains(*offset))
}

/// The coordinates of the rows, from runs and columns, whichever there are.
fn rows_of(batch: &Batch) -> Vec<Row> {
    assert!(
        batch.records.schema() == batch.stream.schema,
        "a batch has another schema than its stream {}",
        batch.stream.name
    );
    let runs: Vec<Row> = batch
        .runs
        .iter()
        .flat_map(|run| {
            (run.first..).take(run.count as usize).map(|offset| (run.partition.clone(), offset))
        })
        .collect();
    let has = |name: &str| batch.records.column_by_name(name).is_some();
    let rows = if has(TOPIC) && has(PARTITION) && has(OFFSET) {
        let rows = match coordinates(&batch.records) {
            Ok(rows) => rows,
            Err(error) => panic!("coordinates of rows: {error}"),
        };
        assert!(batch.runs.is_empty() || runs == rows, "runs and columns differ");
        rows
    } else {
        assert!(runs.len() == batch.num_rows(), "a batch has neither runs nor coordinates");
        runs
    };
    let mut last = BTreeMap::new();
    for row in &rows {
        assert!(covers(&batch.coverage, row), "row {row:?} is not covered by its batch");
        let before = last.insert(&row.0, row.1);
        assert!(before < Some(row.1), "{}: offset {} after {before:?}", row.0, row.1);
    }
    rows
}
