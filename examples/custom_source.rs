//! A source of your own, in one file.
//!
//! It counts: one "partition" of numbers, read in batches of a hundred. What a
//! source owes the runtime is little: the same offsets give the same rows, the
//! coverage of batches is contiguous, and nothing is delivered before the
//! assignment was answered.
//!
//! ```sh
//! cargo run --example custom_source
//! ```

use std::sync::Arc;

use tidelock::{Pipeline, State};
use tidelock_connector::arrow::array::{Int64Array, RecordBatch};
use tidelock_connector::arrow::datatypes::{DataType, Field, Schema};
use tidelock_connector::testing::CollectSink;
use tidelock_connector::{
    AssignedPartition, Assignment, Batch, Coverage, Event, Identity, NothingToCommit, OpenSource,
    Result, Source, SourceContext, SourceReader, Start, Stream, TopicPartition, async_trait,
};
use tokio::sync::oneshot;

/// The numbers from 0 up to `end`.
struct Numbers {
    end: i64,
}

#[async_trait]
impl Source for Numbers {
    async fn open(&self, _ctx: SourceContext) -> Result<OpenSource> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let reader = Counter {
            stream: Stream::new("numbers", schema),
            partition: TopicPartition::new("numbers", 0),
            end: self.end,
            next: None,
            answer: None,
            assigned: false,
        };
        Ok(OpenSource { reader: Box::new(reader), committer: Arc::new(NothingToCommit) })
    }
}

struct Counter {
    stream: Arc<Stream>,
    partition: TopicPartition,
    end: i64,
    /// The next number; unknown until the runtime has said where to start.
    next: Option<i64>,
    answer: Option<oneshot::Receiver<Vec<Start>>>,
    assigned: bool,
}

#[async_trait]
impl SourceReader for Counter {
    async fn next(&mut self) -> Result<Event> {
        if !self.assigned {
            self.assigned = true;
            let (reply, answer) = oneshot::channel();
            self.answer = Some(answer);
            let partitions = vec![AssignedPartition {
                partition: self.partition.clone(),
                topic_id: None,
                committed: None,
                start: 0,
                low: 0,
                end: self.end,
            }];
            return Ok(Event::Assigned(Assignment {
                partitions,
                identity: Identity::default(),
                reply,
            }));
        }
        if let Some(answer) = &mut self.answer {
            // Awaiting a receiver by reference is cancel safe.
            let starts = answer.await.unwrap_or_default();
            self.answer = None;
            self.next = starts.first().map(|start| start.offset);
        }
        let Some(from) = self.next.filter(|next| *next < self.end) else {
            return Ok(Event::End);
        };
        let to = (from + 100).min(self.end);
        self.next = Some(to);
        let numbers = Arc::new(Int64Array::from_iter_values(from..to));
        let rows = RecordBatch::try_new(Arc::clone(&self.stream.schema), vec![numbers])?;
        let coverage = Coverage::of(self.partition.clone(), from, to);
        Ok(Event::Batch(Batch::new(Arc::clone(&self.stream), rows, coverage)))
    }

    async fn seek(&mut self, to: &[Start]) -> Result<()> {
        self.next = to.first().map(|start| start.offset);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let sink = CollectSink::new();
    let report = Pipeline::builder("custom-source")
        .source(Numbers { end: 1_000 })
        .sink("collected", sink.clone())
        .state(State::None)
        .run(tidelock::shutdown_on_ctrl_c())
        .await?;
    let rows: usize = sink.batches().iter().map(RecordBatch::num_rows).sum();
    println!("{} records read, {rows} rows collected", report.records);
    assert_eq!(rows, 1_000);
    Ok(())
}
