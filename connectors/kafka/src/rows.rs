//! Messages become rows: the open batch of one topic.
//!
//! Decoding runs on the reader's thread, straight from librdkafka's memory into
//! the columns. `_partition` and `_offset` cost nothing per message: they are
//! written from the runs when the batch is cut.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringArray,
    StringBuilder, StructBuilder, TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use tidelock_connector::{Error, Result, Stream, TopicPartition};
use tidelock_json::{JsonDecoder, JsonOptions};

use crate::config::Coordinate;
use crate::ffi::Message;

/// How a message becomes a row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One JSON object per message, with these columns.
    Json(SchemaRef),
    /// The bytes as they are, in a column `value`.
    Raw,
}

/// Messages that are JSON objects.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Json {
    /// JSON objects with the columns of `schema`.
    pub fn schema(schema: impl Into<SchemaRef>) -> Format {
        Format::Json(schema.into())
    }
}

impl Coordinate {
    /// What the column is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "_topic",
            Self::Partition => "_partition",
            Self::Offset => "_offset",
            Self::Timestamp => "_timestamp",
            Self::Key => "_key",
            Self::Headers => "_headers",
        }
    }

    fn field(self) -> Field {
        let (data_type, nullable) = match self {
            Self::Topic => (DataType::Utf8, false),
            Self::Partition => (DataType::Int32, false),
            Self::Offset => (DataType::Int64, false),
            Self::Timestamp => {
                (DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true)
            }
            Self::Key => (DataType::Binary, true),
            Self::Headers => (DataType::List(header_field()), false),
        };
        Field::new(self.name(), data_type, nullable)
    }
}

fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ])
}

fn header_field() -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(header_fields()), false))
}

/// The columns of a format with its coordinates.
pub(crate) fn schema_of(format: &Format, coordinates: &[Coordinate]) -> Result<SchemaRef> {
    let mut fields: Vec<FieldRef> = match format {
        Format::Json(schema) => schema.fields().iter().cloned().collect(),
        Format::Raw => vec![Arc::new(Field::new("value", DataType::Binary, true))],
    };
    for coordinate in coordinates {
        let name = coordinate.name();
        if fields.iter().any(|field| field.name() == name) {
            return Err(Error::config(format!("there are two columns called {name:?}")));
        }
        fields.push(Arc::new(coordinate.field()));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Consecutive rows of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneRun {
    pub(crate) lane: usize,
    pub(crate) first: i64,
    pub(crate) count: u32,
}

/// The open batch of one topic.
pub(crate) struct Rows {
    stream: Arc<Stream>,
    payload: Payload,
    columns: Vec<Column>,
    runs: Vec<LaneRun>,
    rows: usize,
    bytes: usize,
}

enum Payload {
    Json(Box<JsonDecoder>),
    Raw(BinaryBuilder),
}

/// A coordinate, with what has to be kept of each message.
enum Column {
    Topic,
    Partition,
    Offset,
    Timestamp(TimestampMillisecondBuilder),
    Key(BinaryBuilder),
    Headers(ListBuilder<StructBuilder>),
}

/// Why a message did not become a row.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The batch has to be cut first.
    Full,
    /// It is not what the schema says.
    Bad(String),
}

impl Rows {
    pub(crate) fn new(
        stream: Arc<Stream>,
        format: &Format,
        coordinates: &[Coordinate],
    ) -> Result<Self> {
        let payload = match format {
            Format::Json(schema) => {
                let decoder = JsonDecoder::new(Arc::clone(schema), JsonOptions::default())?;
                Payload::Json(Box::new(decoder))
            }
            Format::Raw => Payload::Raw(BinaryBuilder::new()),
        };
        let columns = coordinates.iter().map(|coordinate| Column::new(*coordinate)).collect();
        Ok(Self { stream, payload, columns, runs: Vec::new(), rows: 0, bytes: 0 })
    }

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Bytes of the messages that the rows were made of.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends one row, all of it or nothing.
    pub(crate) fn append(&mut self, lane: usize, message: Message<'_>) -> Result<(), Refused> {
        match &mut self.payload {
            Payload::Json(decoder) => {
                let Some(value) = message.value() else {
                    return Err(Refused::Bad("the message has no value (a tombstone)".into()));
                };
                decoder.decode(value).map_err(|error| {
                    let full = error.is_full() && !decoder.is_empty();
                    if full { Refused::Full } else { Refused::Bad(error.to_string()) }
                })?;
            }
            Payload::Raw(values) => values.append_option(message.value()),
        }
        for column in &mut self.columns {
            column.append(message);
        }
        let offset = message.offset();
        match self.runs.last_mut() {
            Some(run) if run.lane == lane && run.first + i64::from(run.count) == offset => {
                run.count += 1;
            }
            _ => self.runs.push(LaneRun { lane, first: offset, count: 1 }),
        }
        self.rows += 1;
        self.bytes += message.size();
        Ok(())
    }

    /// Ends the batch and begins the next one.
    pub(crate) fn finish(
        &mut self,
        partition_of: impl Fn(usize) -> TopicPartition,
    ) -> Result<(RecordBatch, Vec<LaneRun>)> {
        let mut arrays: Vec<ArrayRef> = match &mut self.payload {
            Payload::Json(decoder) => decoder.finish()?.columns().to_vec(),
            Payload::Raw(values) => {
                let next = BinaryBuilder::with_capacity(self.rows, self.bytes);
                vec![Arc::new(std::mem::replace(values, next).finish())]
            }
        };
        let runs = std::mem::take(&mut self.runs);
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        for column in &mut self.columns {
            arrays.push(match column {
                Column::Topic => {
                    let names = std::iter::repeat_n(&*self.stream.name, rows);
                    Arc::new(StringArray::from_iter_values(names))
                }
                Column::Partition => partitions(&runs, rows, &partition_of),
                Column::Offset => offsets(&runs, rows),
                Column::Timestamp(builder) => Arc::new(builder.finish()),
                Column::Key(builder) => Arc::new(builder.finish()),
                Column::Headers(builder) => Arc::new(builder.finish()),
            });
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.stream.schema), arrays)?;
        Ok((batch, runs))
    }
}

fn partitions(
    runs: &[LaneRun],
    rows: usize,
    partition_of: &impl Fn(usize) -> TopicPartition,
) -> ArrayRef {
    let mut column = Int32Builder::with_capacity(rows);
    for run in runs {
        column.append_value_n(partition_of(run.lane).partition, run.count as usize);
    }
    Arc::new(column.finish())
}

fn offsets(runs: &[LaneRun], rows: usize) -> ArrayRef {
    let mut column = Int64Builder::with_capacity(rows);
    for run in runs {
        (run.first..run.first + i64::from(run.count))
            .for_each(|offset| column.append_value(offset));
    }
    Arc::new(column.finish())
}

impl Column {
    fn new(coordinate: Coordinate) -> Self {
        match coordinate {
            Coordinate::Topic => Self::Topic,
            Coordinate::Partition => Self::Partition,
            Coordinate::Offset => Self::Offset,
            Coordinate::Timestamp => {
                Self::Timestamp(TimestampMillisecondBuilder::new().with_timezone("UTC"))
            }
            Coordinate::Key => Self::Key(BinaryBuilder::new()),
            Coordinate::Headers => {
                let header = StructBuilder::from_fields(header_fields(), 0);
                Self::Headers(ListBuilder::new(header).with_field(header_field()))
            }
        }
    }

    fn append(&mut self, message: Message<'_>) {
        match self {
            Self::Topic | Self::Partition | Self::Offset => {}
            Self::Timestamp(builder) => builder.append_option(message.timestamp()),
            Self::Key(builder) => builder.append_option(message.key()),
            Self::Headers(builder) => {
                for (key, value) in message.headers() {
                    let header = builder.values();
                    if let Some(keys) = header.field_builder::<StringBuilder>(0) {
                        keys.append_value(String::from_utf8_lossy(key));
                    }
                    if let Some(values) = header.field_builder::<BinaryBuilder>(1) {
                        values.append_option(value);
                    }
                    header.append(true);
                }
                builder.append(true);
            }
        }
    }
}
