//! A worker that writes commit sets into a sink under test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use futures::future::{BoxFuture, join_all};
use tokio::time::timeout;

use super::super::log::with_coordinates;
use super::super::{TOPIC, default_schema};
use super::reading::Row;
use super::{forgive, insist};
use crate::{
    Barrier, Batch, Committable, Committer, Coverage, Guarantee, Incarnation, Outcome, Result,
    Sink, SinkContext, SinkWriter, Stream, TopicPartition,
};

/// The pipeline that all writers here belong to.
pub(super) const PIPELINE: &str = "conformance";

/// How the futures of several prepares are awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Each before anything else is written.
    OneByOne,
    /// All at the end, the last one first.
    LastFirst,
    /// All at the end, together.
    Together,
}

/// Several places of one sink, and what is visible there.
pub(super) struct World<M, V> {
    pub(super) make: M,
    pub(super) visible: V,
    /// How long a call that has nothing to wait for may take.
    pub(super) patience: Duration,
}

impl<M, V> World<M, V>
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    pub(super) async fn sink(&self, place: &str) -> Arc<dyn Sink> {
        (self.make)(place).await
    }

    /// A committer that shares nothing with any other but the place.
    pub(super) async fn committer(&self, place: &str) -> Arc<dyn Committer> {
        match self.sink(place).await.guarantee() {
            Guarantee::ExactlyOnce(committer) => committer,
            Guarantee::AtLeastOnce => panic!("an at-least-once sink has no committer"),
        }
    }

    /// Compares what is visible, duplicates included.
    pub(super) async fn expect(&self, place: &str, sets: &[&[Batch]], when: &str) {
        let mut rows = (self.visible)(place).await;
        rows.sort();
        let expected = rows_of(sets);
        assert!(
            rows == expected,
            "{when}: {} rows are visible instead of {}; missing {:?}, not expected {:?}",
            rows.len(),
            expected.len(),
            expected.iter().find(|row| !rows.contains(row)),
            surplus(&rows, &expected),
        );
    }

    /// Writes and prepares sets, each up to a barrier, from barrier `first` on;
    /// an error starts over with another incarnation.
    pub(super) async fn prepare(
        &self,
        sink: &dyn Sink,
        sets: &[&[Batch]],
        first: u64,
        order: Order,
    ) -> Prepared {
        let mut errors = 0;
        loop {
            let incarnation = Incarnation::new();
            let ctx =
                SinkContext::new(PIPELINE, "sink", incarnation, 8 << 20).with_checkpoint(first);
            let open = async || sink.open(ctx.clone()).await;
            let (mut writer, _) = insist("open", open).await;
            match self.attempt(&mut *writer, sets, first, order).await {
                Ok(sets) => return Prepared { incarnation, sets, writer },
                Err(error) => {
                    writer.discard().await;
                    forgive(&mut errors, "write or prepare", error).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        writer: &mut dyn SinkWriter,
        sets: &[&[Batch]],
        first: u64,
        order: Order,
    ) -> Result<Vec<Vec<Committable>>> {
        let mut done = Vec::new();
        let mut pending: Vec<BoxFuture<'static, Result<Vec<Committable>>>> = Vec::new();
        for (number, set) in (first..).zip(sets) {
            for batch in *set {
                self.write(writer, batch).await?;
            }
            let started = Instant::now();
            let preparing = writer.prepare(&barrier(number, set));
            assert!(started.elapsed() < self.patience, "prepare does not return at once");
            if order == Order::OneByOne {
                done.push(preparing.await?);
            } else {
                pending.push(preparing);
            }
        }
        match order {
            Order::OneByOne => {}
            Order::Together => {
                for prepared in join_all(pending).await {
                    done.push(prepared?);
                }
            }
            Order::LastFirst => {
                while let Some(preparing) = pending.pop() {
                    done.push(preparing.await?);
                }
                done.reverse();
            }
        }
        Ok(done)
    }

    /// A write has to go on while earlier prepares are not even polled.
    pub(super) async fn write(&self, writer: &mut dyn SinkWriter, batch: &Batch) -> Result<()> {
        match timeout(self.patience, writer.write(batch)).await {
            Ok(written) => written,
            Err(_) => panic!("write waits for a prepare that is under way"),
        }
    }
}

/// A row that is there more often than it should be.
fn surplus<'a>(rows: &'a [Row], expected: &[Row]) -> Option<&'a Row> {
    let count = |all: &[Row], row: &Row| all.iter().filter(|other| *other == row).count();
    rows.iter().find(|row| count(rows, row) > count(expected, row))
}

/// The coordinates of all rows, sorted.
pub(super) fn rows_of(sets: &[&[Batch]]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (partition, set) in sets.iter().flat_map(|set| *set).flat_map(|batch| batch.coverage.iter())
    {
        let offsets = set.ranges().iter().flat_map(|range| range.from..range.to);
        rows.extend(offsets.map(|offset| (partition.clone(), offset)));
    }
    rows.sort();
    rows
}

/// Offsets `from..to` of two partitions of a topic, as one batch.
pub(super) fn batch(topic: &str, from: i64, to: i64) -> Batch {
    let stream = Stream::new(topic, with_coordinates(&default_schema()));
    let (coverage, records) = records(topic, &stream, from, to);
    Batch::new(stream, records, coverage)
}

/// The same with a further version of the stream's schema: no `text`, and
/// `number` instead.
pub(super) fn evolved(topic: &str, from: i64, to: i64) -> Batch {
    use arrow::datatypes::{DataType, Field, Schema};
    let payload = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("number", DataType::Int64, true),
    ]);
    let schema = with_coordinates(&payload);
    let stream = Arc::new(Stream { name: topic.into(), version: 1, schema });
    let (coverage, records) = records(topic, &stream, from, to);
    Batch::new(stream, records, coverage)
}

fn records(topic: &str, stream: &Stream, from: i64, to: i64) -> (Coverage, RecordBatch) {
    let offsets: Vec<i64> = (from..to).chain(from..to).collect();
    let half = offsets.len() / 2;
    let columns = stream.schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            TOPIC => Arc::new(StringArray::from(vec![topic; offsets.len()])),
            "text" => Arc::new(StringArray::from(vec!["text"; offsets.len()])),
            super::super::PARTITION => Arc::new(Int32Array::from_iter_values(
                (0..offsets.len()).map(|row| i32::from(row >= half)),
            )),
            _ => Arc::new(Int64Array::from(offsets.clone())),
        }
    });
    let records = match RecordBatch::try_new(Arc::clone(&stream.schema), columns.collect()) {
        Ok(records) => records,
        Err(error) => panic!("rows of the suite: {error}"),
    };
    let mut coverage = Coverage::new();
    for number in 0..2 {
        coverage.insert(&TopicPartition::new(topic, number), from, to);
    }
    (coverage, records)
}

/// What a worker has prepared.
pub(super) struct Prepared {
    pub(super) incarnation: Incarnation,
    /// The committables of every set.
    pub(super) sets: Vec<Vec<Committable>>,
    /// The writer, which lives on.
    pub(super) writer: Box<dyn SinkWriter>,
}

fn barrier(checkpoint: u64, set: &[Batch]) -> Barrier {
    let mut coverage = Coverage::new();
    for batch in set {
        coverage.union(&batch.coverage);
    }
    let epochs: BTreeMap<_, _> = coverage.partitions().map(|p| (p.clone(), 1)).collect();
    Barrier { checkpoint, coverage, epochs, last: false }
}

/// Commits until it succeeds; says whether there was an error before.
pub(super) async fn commit(committer: &dyn Committer, set: &[Committable]) -> (Vec<Outcome>, bool) {
    let (mut outcomes, mut failed) = (Vec::new(), false);
    for committable in set {
        let call = async || committer.commit(committable).await;
        let (outcome, errors) = insist("commit", call).await;
        outcomes.push(outcome);
        failed |= errors;
    }
    (outcomes, failed)
}

/// Commits something for the first time.
pub(super) async fn commit_first(committer: &dyn Committer, set: &[Committable]) {
    let (outcomes, failed) = commit(committer, set).await;
    for outcome in outcomes {
        // After an error the call may have happened before.
        let fine =
            outcome == Outcome::Committed || (failed && outcome == Outcome::AlreadyCommitted);
        assert!(fine, "the first commit finds {outcome:?}");
    }
}

/// Commits something that has an outcome already.
pub(super) async fn commit_again(committer: &dyn Committer, set: &[Committable], expect: Outcome) {
    let (outcomes, _) = commit(committer, set).await;
    for outcome in outcomes {
        assert!(outcome == expect, "a commit finds {outcome:?} instead of {expect:?}");
    }
}
