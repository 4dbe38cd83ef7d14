//! Topics, partitions and rows of the log behind a
//! [`MemorySource`](super::MemorySource), and how rows become batches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};

use crate::{Batch, Coverage, Error, ErrorKind, Rejected, Result, Run, Stream, TopicPartition};

/// The column that names a row's topic.
pub const TOPIC: &str = "_topic";
/// The column that names a row's partition.
pub const PARTITION: &str = "_partition";
/// The column that holds a row's offset.
pub const OFFSET: &str = "_offset";

/// The payload columns of a topic that was given no schema: `id: int64`,
/// `text: utf8`.
pub fn default_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, false),
    ]))
}

/// The coordinates of every row, from the columns [`TOPIC`], [`PARTITION`] and
/// [`OFFSET`].
///
/// # Errors
/// [`ErrorKind::Schema`] when a column is missing, of another kind, or null.
pub fn coordinates(records: &RecordBatch) -> Result<Vec<(TopicPartition, i64)>> {
    let column = |name: &str, kind: &DataType| -> Result<ArrayRef> {
        let column = records.column_by_name(name).ok_or_else(|| {
            Error::new(ErrorKind::Schema, "a row has no coordinates").with("column", name)
        })?;
        let column = cast(column, kind)?;
        if column.null_count() > 0 {
            return Err(Error::new(ErrorKind::Schema, "a coordinate is null").with("column", name));
        }
        Ok(column)
    };
    let topics = column(TOPIC, &DataType::Utf8)?;
    let partitions = column(PARTITION, &DataType::Int32)?;
    let offsets = column(OFFSET, &DataType::Int64)?;
    let topics = topics.as_string::<i32>();
    let partitions = partitions.as_primitive::<Int32Type>();
    let offsets = offsets.as_primitive::<Int64Type>();
    Ok((0..records.num_rows())
        .map(|row| {
            (TopicPartition::new(topics.value(row), partitions.value(row)), offsets.value(row))
        })
        .collect())
}

/// The payload columns, followed by the coordinates.
pub(super) fn with_coordinates(payload: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = payload.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(TOPIC, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(PARTITION, DataType::Int32, false)));
    fields.push(Arc::new(Field::new(OFFSET, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// One row: a line of the batch that it was appended with.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) offset: i64,
    version: usize,
    chunk: Arc<RecordBatch>,
    row: usize,
}

/// One partition: rows in the order of their offsets, holes between them.
#[derive(Debug, Default)]
pub(super) struct Partition {
    entries: Vec<Entry>,
    pub(super) low: i64,
    pub(super) end: i64,
    pub(super) bad: BTreeSet<i64>,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: String,
    payloads: Vec<SchemaRef>,
    pub(super) streams: Vec<Arc<Stream>>,
    pub(super) partitions: Vec<Partition>,
}

/// All topics.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
}

/// What one look at a partition found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Rows of one schema version.
    pub(super) rows: Vec<Entry>,
    /// Offsets among them that cannot be decoded.
    pub(super) bad: Vec<i64>,
    /// Where the next look begins.
    pub(super) next: i64,
}

impl Log {
    pub(super) fn add(&mut self, name: &str, partitions: u32, payload: SchemaRef) {
        let name: Arc<str> = name.into();
        let stream = Stream::new(Arc::clone(&name), with_coordinates(&payload));
        let topic = Topic {
            id: format!("id-of-{name}"),
            payloads: vec![payload],
            streams: vec![stream],
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
        };
        self.topics.insert(name, topic);
    }

    /// All partitions, in order.
    pub(super) fn partitions(&self) -> impl Iterator<Item = TopicPartition> {
        self.topics.iter().flat_map(|(name, topic)| {
            (0..).zip(&topic.partitions).map(|(n, _)| TopicPartition::new(Arc::clone(name), n))
        })
    }

    pub(super) fn topic(&mut self, name: &str) -> &mut Topic {
        let Some(topic) = self.topics.get_mut(name) else { panic!("no topic {name:?} in the log") };
        topic
    }

    pub(super) fn get(&self, partition: &TopicPartition) -> &Partition {
        let found = self
            .topics
            .get(&partition.topic)
            .zip(usize::try_from(partition.partition).ok())
            .and_then(|(topic, number)| topic.partitions.get(number));
        let Some(found) = found else { panic!("no partition {partition} in the log") };
        found
    }
}

impl Topic {
    pub(super) fn partition(&mut self, number: i32) -> &mut Partition {
        let count = self.partitions.len();
        let found = usize::try_from(number).ok().and_then(|n| self.partitions.get_mut(n));
        let Some(found) = found else { panic!("no partition {number}, the topic has {count}") };
        found
    }

    /// Appends rows of the newest schema at the partition's end and returns the
    /// offset of the first.
    pub(super) fn append(&mut self, number: i32, rows: RecordBatch) -> i64 {
        let version = self.payloads.len() - 1;
        assert_eq!(rows.schema(), self.payloads[version], "rows of another schema");
        let partition = self.partition(number);
        let first = partition.end;
        let chunk = Arc::new(rows);
        for row in 0..chunk.num_rows() {
            let chunk = Arc::clone(&chunk);
            partition.entries.push(Entry { offset: partition.end, version, chunk, row });
            partition.end += 1;
        }
        first
    }

    /// From now on rows of this schema are appended, as a further version.
    pub(super) fn evolve(&mut self, payload: SchemaRef) {
        let newest = &self.streams[self.streams.len() - 1];
        let stream = Stream {
            name: Arc::clone(&newest.name),
            version: newest.version + 1,
            schema: with_coordinates(&payload),
        };
        self.streams.push(Arc::new(stream));
        self.payloads.push(payload);
    }

    /// The version of the rows that `found` holds, if it holds any.
    fn version(found: &Found) -> Option<usize> {
        found.rows.first().map(|entry| entry.version)
    }
}

impl Partition {
    pub(super) fn expire(&mut self, low: i64) {
        self.low = low;
        self.end = self.end.max(low);
        self.entries.retain(|entry| entry.offset >= low);
    }

    /// Looks at no more than `max` rows from `from`, and at nothing from `end`
    /// on. Holes before a row are passed with it, the one at the end of the
    /// log by a look of its own. A bad record is passed when they are
    /// `rejected`; otherwise the look ends before it, and names it when it is
    /// the first.
    pub(super) fn look(&self, from: i64, end: Option<i64>, max: usize, rejected: bool) -> Found {
        let end = end.map_or(self.end, |end| end.min(self.end));
        let mut found = Found { next: from, ..Found::default() };
        let start = self.entries.partition_point(|entry| entry.offset < from);
        for entry in self.entries[start..].iter().take_while(|entry| entry.offset < end).take(max) {
            let bad = self.bad.contains(&entry.offset);
            if bad && !rejected {
                if found.rows.is_empty() {
                    found.bad.push(entry.offset);
                }
                return found;
            }
            if bad {
                found.bad.push(entry.offset);
            } else if Topic::version(&found).is_none_or(|version| version == entry.version) {
                found.rows.push(entry.clone());
            } else {
                break;
            }
            found.next = entry.offset + 1;
        }
        if found.rows.is_empty() && found.bad.is_empty() {
            found.next = found.next.max(end);
        }
        found
    }
}

/// Collects rows of several partitions of one topic and one schema version.
#[derive(Debug, Default)]
pub(super) struct Gather {
    topic: Option<(Arc<str>, usize)>,
    picked: Vec<(TopicPartition, Entry)>,
    coverage: Coverage,
    rejected: Vec<Rejected>,
}

impl Gather {
    pub(super) fn num_rows(&self) -> usize {
        self.picked.len()
    }

    /// Whether `found` can go into the same batch as what is there already.
    pub(super) fn takes(&self, partition: &TopicPartition, found: &Found) -> bool {
        let Some((topic, version)) = &self.topic else { return true };
        *topic == partition.topic && Topic::version(found).is_none_or(|other| other == *version)
    }

    pub(super) fn add(&mut self, partition: &TopicPartition, from: i64, found: Found) {
        let version = Topic::version(&found).unwrap_or(0);
        self.topic.get_or_insert_with(|| (Arc::clone(&partition.topic), version));
        self.coverage.insert(partition, from, found.next);
        self.picked.extend(found.rows.into_iter().map(|entry| (partition.clone(), entry)));
        self.rejected.extend(found.bad.into_iter().map(|offset| Rejected {
            partition: partition.clone(),
            offset,
            reason: "marked as bad".to_owned(),
            key: None,
            value: None,
        }));
    }

    /// The batch, unless nothing was added.
    pub(super) fn finish(self, log: &Log) -> Result<Option<Batch>> {
        let Some((name, version)) = &self.topic else { return Ok(None) };
        let stream = Arc::clone(&log.topics[name].streams[*version]);
        let mut chunks: Vec<&RecordBatch> = Vec::new();
        let mut indices = Vec::with_capacity(self.picked.len());
        for (_, entry) in &self.picked {
            let chunk = entry.chunk.as_ref();
            let known = chunks.iter().rposition(|other| std::ptr::eq(*other, chunk));
            let known = known.unwrap_or_else(|| {
                chunks.push(chunk);
                chunks.len() - 1
            });
            indices.push((known, entry.row));
        }
        let mut columns: Vec<ArrayRef> = match chunks.first() {
            Some(_) => interleave_record_batch(&chunks, &indices)?.columns().to_vec(),
            None => {
                let payload = stream.schema.fields().len() - 3;
                let empty = RecordBatch::new_empty(Arc::clone(&stream.schema));
                empty.columns()[..payload].to_vec()
            }
        };
        let picked = &self.picked;
        columns.push(Arc::new(StringArray::from_iter_values(
            picked.iter().map(|(partition, _)| &partition.topic),
        )));
        columns.push(Arc::new(Int32Array::from_iter_values(
            picked.iter().map(|(partition, _)| partition.partition),
        )));
        columns.push(Arc::new(Int64Array::from_iter_values(
            picked.iter().map(|(_, entry)| entry.offset),
        )));
        let records = RecordBatch::try_new(Arc::clone(&stream.schema), columns)?;
        let runs = runs(picked);
        Ok(Some(
            Batch::new(stream, records, self.coverage).with_runs(runs).with_rejected(self.rejected),
        ))
    }
}

fn runs(picked: &[(TopicPartition, Entry)]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (partition, entry) in picked {
        match runs.last_mut() {
            Some(run)
                if run.partition == *partition
                    && run.first + i64::from(run.count) == entry.offset =>
            {
                run.count += 1;
            }
            _ => {
                runs.push(Run { partition: partition.clone(), first: entry.offset, count: 1 });
            }
        }
    }
    runs
}
