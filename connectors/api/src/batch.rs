//! What flows from a source to the sinks: Arrow rows and what they account for.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::{Coverage, TopicPartition};

/// A sequence of batches of one schema.
///
/// Several topics, and schemas that evolve, change the stream in mid-run: a
/// sink fixes no schema for life but keeps one file set per (name, version).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// What the stream is called: the topic, where topics have schemas of
    /// their own.
    pub name: Arc<str>,
    /// The version of the schema within the stream, counted from 0.
    pub version: u32,
    /// The schema of every batch of this stream and version.
    pub schema: SchemaRef,
}

impl Stream {
    /// Version 0 of a stream.
    pub fn new(name: impl Into<Arc<str>>, schema: SchemaRef) -> Arc<Self> {
        Arc::new(Self { name: name.into(), version: 0, schema })
    }
}

/// A run of consecutive rows of one partition, as they stood before any
/// transform: `count` rows whose first has offset `first`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The partition of these rows.
    pub partition: TopicPartition,
    /// The offset of the first row.
    pub first: i64,
    /// How many rows.
    pub count: u32,
}

/// A record that its decoder refused, kept whole for whoever has to look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The partition that it came from.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// Why it was refused.
    pub reason: String,
    /// The raw key.
    pub key: Option<Vec<u8>>,
    /// The raw value.
    pub value: Option<Vec<u8>>,
}

/// Rows, and the offsets that they account for.
///
/// `coverage` does not depend on the number of rows: a filter drops rows and
/// leaves the offsets covered. A batch may hold rows of several partitions, so
/// that a thousand quiet partitions do not make a thousand tiny batches; the
/// rows of one partition stand in the order of their offsets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Batch {
    /// The stream that the rows belong to.
    pub stream: Arc<Stream>,
    /// The rows.
    pub records: RecordBatch,
    /// The offsets that this batch accounts for.
    pub coverage: Coverage,
    /// Where the rows came from, before any transform.
    pub runs: Vec<Run>,
    /// Records of this coverage that could not be decoded.
    pub rejected: Vec<Rejected>,
}

impl Batch {
    /// A batch without runs and rejected records.
    pub fn new(stream: Arc<Stream>, records: RecordBatch, coverage: Coverage) -> Self {
        Self { stream, records, coverage, runs: Vec::new(), rejected: Vec::new() }
    }

    /// Adds the run-length coordinates of the rows.
    #[must_use]
    pub fn with_runs(mut self, runs: Vec<Run>) -> Self {
        self.runs = runs;
        self
    }

    /// Adds the records that could not be decoded.
    #[must_use]
    pub fn with_rejected(mut self, rejected: Vec<Rejected>) -> Self {
        self.rejected = rejected;
        self
    }

    /// How many rows.
    pub fn num_rows(&self) -> usize {
        self.records.num_rows()
    }

    /// Bytes that the columns hold in memory; shared buffers count each time.
    pub fn memory_size(&self) -> usize {
        self.records.get_array_memory_size()
    }
}
