//! An at-least-once sink that keeps what it got.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use async_trait::async_trait;

use super::log::coordinates;
use crate::{
    AtLeastOnce, AtLeastOnceWriter, Batch, Guarantee, Result, Sink, SinkContext, SinkWriter,
    TopicPartition,
};

/// Keeps every row that was flushed, in the order in which it came. Clones
/// share their rows.
#[derive(Debug, Clone, Default)]
pub struct CollectSink {
    flushed: Arc<Mutex<Vec<RecordBatch>>>,
}

impl CollectSink {
    /// A sink without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// The batches that were flushed.
    pub fn batches(&self) -> Vec<RecordBatch> {
        super::lock(&self.flushed).clone()
    }

    /// The coordinates of the rows that were flushed, sorted; what was written
    /// twice is there twice.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`](crate::ErrorKind::Schema) when the rows came
    /// without coordinates.
    pub fn rows(&self) -> Result<Vec<(TopicPartition, i64)>> {
        let mut rows = Vec::new();
        for batch in self.batches() {
            rows.extend(coordinates(&batch)?);
        }
        rows.sort();
        Ok(rows)
    }
}

#[async_trait]
impl Sink for CollectSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn open(&self, ctx: SinkContext) -> Result<Box<dyn SinkWriter>> {
        let flushed = Arc::clone(&self.flushed);
        let open = move |_: &SinkContext| {
            Ok(CollectWriter { flushed: Arc::clone(&flushed), written: Vec::new() })
        };
        AtLeastOnce::new(open).open(ctx).await
    }
}

struct CollectWriter {
    flushed: Arc<Mutex<Vec<RecordBatch>>>,
    written: Vec<RecordBatch>,
}

#[async_trait]
impl AtLeastOnceWriter for CollectWriter {
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        self.written.push(batch.records.clone());
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        super::lock(&self.flushed).append(&mut self.written);
        Ok(())
    }
}
