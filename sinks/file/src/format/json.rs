//! JSON, one object per line, by the writer of `arrow-json`.
//!
//! A value that is null is left out, as readers of JSON lines expect; where
//! there are maps it is written, or a key without a value would be lost. A time
//! with a named time zone is written in UTC, which is the same instant: the
//! names would need the database of time zones.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::json::writer::{LineDelimited, WriterBuilder};
use bytes::Bytes;
use flate2::write::GzEncoder;
use tidelock_connector::{Error, Result};
use zstd::stream::write::Encoder as ZstdEncoder;

use super::{Encoder, Pieces, failed};
use crate::config::Compression;
use crate::footer::FileFooter;

/// What a compressor may keep to itself, about; it does not tell.
const COMPRESSOR_BYTES: usize = 1 << 20;

pub(super) struct JsonEncoder {
    output: Output,
}

enum Output {
    Plain(Pieces),
    Gzip(GzEncoder<Pieces>),
    Zstd(ZstdEncoder<'static, Pieces>),
    Finished(Pieces),
}

impl JsonEncoder {
    pub(super) fn new(codec: Compression) -> Result<Self> {
        let pieces = Pieces::default();
        let output = match codec {
            Compression::Gzip(level) => {
                Output::Gzip(GzEncoder::new(pieces, flate2::Compression::new(level)))
            }
            Compression::Zstd(level) => {
                Output::Zstd(ZstdEncoder::new(pieces, level).map_err(failed)?)
            }
            _ => Output::Plain(pieces),
        };
        Ok(Self { output })
    }

    fn pieces(&self) -> &Pieces {
        match &self.output {
            Output::Plain(pieces) | Output::Finished(pieces) => pieces,
            Output::Gzip(encoder) => encoder.get_ref(),
            Output::Zstd(encoder) => encoder.get_ref(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(pieces) => pieces.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
            Self::Finished(_) => Err(io::Error::other("the file is closed")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Finished(_) => Ok(()),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

impl Encoder for JsonEncoder {
    fn write(&mut self, records: &RecordBatch) -> Result<()> {
        let records = in_utc(records)?;
        let maps = records.schema().fields().iter().any(|field| holds_map(field.data_type()));
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(maps)
            .build::<_, LineDelimited>(&mut self.output);
        writer.write(&records).map_err(failed)
    }

    fn ready(&mut self, at_least: usize) -> Vec<Bytes> {
        match &mut self.output {
            Output::Plain(pieces) | Output::Finished(pieces) => pieces.take(at_least),
            Output::Gzip(encoder) => encoder.get_mut().take(at_least),
            Output::Zstd(encoder) => encoder.get_mut().take(at_least),
        }
    }

    /// There is never anything unfinished.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// A compressor keeps what it needs, flushed or not.
    fn unfinished(&self) -> usize {
        0
    }

    fn memory(&self) -> usize {
        let compressor = match &self.output {
            Output::Plain(_) | Output::Finished(_) => 0,
            Output::Gzip(_) | Output::Zstd(_) => COMPRESSOR_BYTES,
        };
        self.pieces().held() + compressor
    }

    fn file_size(&self) -> u64 {
        self.pieces().total()
    }

    /// The footer stands beside the file.
    fn finish(&mut self, _footer: &FileFooter) -> Result<()> {
        let output = std::mem::replace(&mut self.output, Output::Finished(Pieces::default()));
        self.output = Output::Finished(match output {
            Output::Plain(pieces) | Output::Finished(pieces) => pieces,
            Output::Gzip(encoder) => encoder.finish().map_err(failed)?,
            Output::Zstd(encoder) => encoder.finish().map_err(failed)?,
        });
        Ok(())
    }
}

fn holds_map(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(..) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            holds_map(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| holds_map(field.data_type())),
        _ => false,
    }
}

/// The same rows, no time zone having a name.
fn in_utc(records: &RecordBatch) -> Result<RecordBatch> {
    let schema = records.schema();
    let fields: Vec<_> = schema.fields().iter().map(field_in_utc).collect();
    let pairs = || fields.iter().zip(schema.fields());
    if pairs().all(|(new, old)| Arc::ptr_eq(new, old)) {
        return Ok(records.clone());
    }
    let columns = fields.iter().zip(records.columns()).map(|(field, column)| {
        if field.data_type() == column.data_type() {
            return Ok(Arc::clone(column));
        }
        cast(column, field.data_type())
    });
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)
}

/// The very same field where nothing changes.
fn field_in_utc(field: &FieldRef) -> FieldRef {
    match type_in_utc(field.data_type()) {
        None => Arc::clone(field),
        Some(data_type) => Arc::new(Field::clone(field).with_data_type(data_type)),
    }
}

fn type_in_utc(data_type: &DataType) -> Option<DataType> {
    let inner = |field: &FieldRef| {
        let changed = field_in_utc(field);
        (!Arc::ptr_eq(&changed, field)).then_some(changed)
    };
    match data_type {
        DataType::Timestamp(unit, Some(zone)) if !zone.starts_with(['+', '-']) => {
            Some(DataType::Timestamp(*unit, Some("+00:00".into())))
        }
        DataType::List(item) => inner(item).map(DataType::List),
        DataType::LargeList(item) => inner(item).map(DataType::LargeList),
        DataType::FixedSizeList(item, size) => {
            inner(item).map(|item| DataType::FixedSizeList(item, *size))
        }
        DataType::Map(entries, sorted) => inner(entries).map(|e| DataType::Map(e, *sorted)),
        DataType::Struct(fields) => {
            let changed: Vec<_> = fields.iter().map(field_in_utc).collect();
            let same = changed.iter().zip(fields).all(|(new, old)| Arc::ptr_eq(new, old));
            (!same).then(|| DataType::Struct(changed.into()))
        }
        _ => None,
    }
}

/// The writer of `arrow-json` panics on nothing, but has no encoder for some
/// types; an empty batch does not tell.
pub(super) fn check(schema: &Schema) -> Result<()> {
    let unknown = schema.fields().iter().find(|field| !known(field.data_type()));
    match unknown {
        None => Ok(()),
        Some(field) => Err(Error::config(format!(
            "json lines cannot hold a column of type {}",
            field.data_type()
        ))
        .with("column", field.name())),
    }
}

fn known(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) | DataType::Interval(_) => false,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => known(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| known(field.data_type())),
        DataType::Dictionary(_, values) => known(values),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                fields.first().is_some_and(|key| key.data_type().is_string())
                    && fields.get(1).is_some_and(|value| known(value.data_type()))
            }
            _ => false,
        },
        _ => true,
    }
}
