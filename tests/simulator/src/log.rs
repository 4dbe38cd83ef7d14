//! The log: one topic whose partitions have rows and holes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidelock_connector::{Result, Stream, TopicPartition};

/// The only topic.
pub(crate) const TOPIC: &str = "t";

/// The columns: partition, offset, and a class to split files by.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("p", DataType::Int32, false),
        Field::new("o", DataType::Int64, false),
        Field::new("c", DataType::Int32, false),
    ]))
}

/// Whether a pipeline that filters lets a row through.
pub(crate) fn passes_filter(offset: i64) -> bool {
    offset % 3 != 0
}

/// Partition `number` of the topic.
pub(crate) fn tp(number: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, number)
}

/// Which offsets hold a row, per partition.
#[derive(Debug)]
pub(crate) struct Log {
    partitions: Vec<Vec<bool>>,
    pub(crate) stream: Arc<Stream>,
}

impl Log {
    pub(crate) fn new(partitions: usize) -> Self {
        Self { partitions: vec![Vec::new(); partitions], stream: Stream::new(TOPIC, schema()) }
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = i32> + use<> {
        0..self.partitions.len() as i32
    }

    fn of(&self, partition: i32) -> &Vec<bool> {
        &self.partitions[partition as usize]
    }

    pub(crate) fn end(&self, partition: i32) -> i64 {
        self.of(partition).len() as i64
    }

    /// Appends rows, or offsets without rows.
    pub(crate) fn append(&mut self, partition: i32, count: u64, rows: bool) {
        let log = &mut self.partitions[partition as usize];
        log.extend((0..count).map(|_| rows));
    }

    pub(crate) fn has_row(&self, partition: i32, offset: i64) -> bool {
        self.of(partition).get(offset as usize).copied().unwrap_or(false)
    }

    /// The rows among up to `most` offsets from `from` on, and where to go on.
    pub(crate) fn read(&self, partition: i32, from: i64, end: i64, most: u64) -> (Vec<i64>, i64) {
        let to = end.min(self.end(partition)).min(from + most as i64).max(from);
        ((from..to).filter(|offset| self.has_row(partition, *offset)).collect(), to)
    }
}

/// A batch of these rows.
pub(crate) fn batch(rows: &[(i32, i64)]) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(p, _)| *p))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, o)| *o))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, o)| (*o % 2) as i32))),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}
