//! Parquet, by the writer of the `parquet` crate.
//!
//! Which encoding a column gets is decided by the first rows of its stream, as
//! measured: dictionaries only where values repeat, `DELTA_BINARY_PACKED` for
//! whole numbers and times, `DELTA_LENGTH_BYTE_ARRAY` for text, and no
//! statistics of long text that never repeats. That costs a third less CPU
//! than the crate's defaults, and files are smaller.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, MutableArrayData, RecordBatch, make_array};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression as Codec, Encoding, GzipLevel, Type as Physical, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnDescriptor;
use tidelock_connector::{Error, Result};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use super::sample::{self, Sample};
use super::{Encoder, Pieces, failed};
use crate::config::{Compression, Dictionary, FileConfig, Statistics};
use crate::footer::{FileFooter, PARQUET_KEY};

/// Text of this length or more, on average, is long.
const LONG_TEXT_BYTES: usize = 20;
/// What another file came to is believed down to this share of its rows, so
/// that a file of rows that are less alike does not exceed its size by much.
const MIN_RATIO: f64 = 0.125;
/// Encoding so many bytes of rows takes so long that others must not wait for
/// this thread.
const LONG_WORK_BYTES: usize = 1 << 20;
/// What an open file holds for every column beside its rows.
const COLUMN_OVERHEAD: usize = 1 << 10;
/// What every array holds beside its values.
const ARRAY_OVERHEAD: usize = 96;

/// How all files of a stream and version are encoded.
pub(super) struct Encodings {
    properties: WriterPropertiesPtr,
    /// One for every column of the schema, which makes the writers of its leaves.
    columns: Vec<ArrowRowGroupWriterFactory>,
    /// What the rows of the last row group came to, of one byte: the bits of an
    /// `f64`.
    ratio: AtomicU64,
}

impl Encodings {
    fn new(schema: &Schema, properties: WriterProperties) -> Result<Self> {
        // A factory makes writers for the whole schema it knows, so that each
        // gets one column to know.
        let factory = |field: &FieldRef| {
            let schema = Arc::new(Schema::new(vec![Arc::clone(field)]));
            ArrowWriter::try_new(io::sink(), schema, Some(properties.clone()))
                .and_then(ArrowWriter::into_serialized_writer)
                .map(|(_, factory)| factory)
        };
        let columns = schema.fields().iter().map(factory).collect::<Result<_, _>>();
        Ok(Self {
            columns: columns.map_err(failed)?,
            properties: Arc::new(properties),
            ratio: AtomicU64::new(1_f64.to_bits()),
        })
    }

    fn ratio(&self) -> f64 {
        f64::from_bits(self.ratio.load(Ordering::Relaxed))
    }
}

/// Rows wait as they are until their row group is full, and are then encoded
/// column by column.
///
/// A column that is being encoded holds between one and two megabytes whatever
/// it is given: a compressor, and a megabyte that a delta encoder reserves. That
/// is paid for one column at a time, and not for every column of every open
/// file.
pub(super) struct ParquetEncoder {
    writer: SerializedFileWriter<Pieces>,
    encodings: Arc<Encodings>,
    schema: SchemaRef,
    limits: Limits,
    waiting: Waiting,
    /// How many bytes the rows had that are encoded.
    encoded: usize,
}

/// When a row group is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    rows: usize,
    /// Encoded, as far as that can be told.
    bytes: usize,
}

impl Limits {
    pub(super) fn new(config: &FileConfig) -> Self {
        // A file must be able to tell how large it is before it is full.
        let bytes = config.parquet.row_group_size.0.min(config.target_file_size.0);
        Self {
            rows: config.parquet.row_group_rows,
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }
}

/// The rows of the next row group.
#[derive(Default)]
struct Waiting {
    /// For every column of the schema its pieces.
    columns: Vec<Vec<ArrayRef>>,
    rows: usize,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, records: &RecordBatch) -> Result<()> {
        self.columns.resize_with(records.num_columns(), Vec::new);
        for (pieces, column) in self.columns.iter_mut().zip(records.columns()) {
            let column = own(column)?;
            self.bytes += column.get_array_memory_size() + ARRAY_OVERHEAD;
            pieces.push(column);
        }
        self.rows += records.num_rows();
        Ok(())
    }
}

/// A copy of what is a small part of something larger, which must not be kept
/// for its sake.
fn own(column: &ArrayRef) -> Result<ArrayRef> {
    let data = column.to_data();
    let bytes = data.get_slice_memory_size().map_err(failed)?;
    if data.get_buffer_memory_size() / 2 <= bytes {
        return Ok(Arc::clone(column));
    }
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len()).map_err(failed)?;
    Ok(make_array(copy.freeze()))
}

impl ParquetEncoder {
    pub(super) fn new(
        schema: SchemaRef,
        encodings: &Arc<Encodings>,
        limits: Limits,
    ) -> Result<Self> {
        let properties = WriterProperties::clone(&encodings.properties);
        let (writer, _) =
            ArrowWriter::try_new(Pieces::default(), Arc::clone(&schema), Some(properties))
                .and_then(ArrowWriter::into_serialized_writer)
                .map_err(failed)?;
        let encodings = Arc::clone(encodings);
        Ok(Self { writer, encodings, schema, limits, waiting: Waiting::default(), encoded: 0 })
    }

    /// What waiting rows will come to, judged by those before them, or else by
    /// another file.
    fn estimate(&self) -> usize {
        let ratio = match self.encoded {
            0 => self.encodings.ratio().clamp(MIN_RATIO, 1.0),
            encoded => self.writer.bytes_written() as f64 / encoded as f64,
        };
        (self.waiting.bytes as f64 * ratio) as usize
    }

    fn is_full(&self) -> bool {
        let Limits { rows, bytes } = self.limits;
        self.waiting.rows >= rows || self.estimate() >= bytes
    }

    fn encode(&mut self, waiting: Waiting) -> parquet::errors::Result<()> {
        let index = self.writer.flushed_row_groups().len();
        let mut group = self.writer.next_row_group()?;
        let columns = self.schema.fields().iter().zip(&self.encodings.columns);
        for ((field, factory), pieces) in columns.zip(waiting.columns) {
            let mut leaves = factory.create_column_writers(index)?;
            for piece in pieces {
                for (writer, leaf) in leaves.iter_mut().zip(compute_leaves(field, &piece)?) {
                    writer.write(&leaf)?;
                }
            }
            for writer in leaves {
                writer.close()?.append_to_row_group(&mut group)?;
            }
        }
        group.close()?;
        self.encoded += waiting.bytes;
        let ratio = self.writer.bytes_written() as f64 / self.encoded as f64;
        self.encodings.ratio.store(ratio.to_bits(), Ordering::Relaxed);
        Ok(())
    }
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, records: &RecordBatch) -> Result<()> {
        let mut from = 0;
        while from < records.num_rows() {
            let room = self.limits.rows.saturating_sub(self.waiting.rows);
            let rows = room.clamp(1, records.num_rows() - from);
            self.waiting.push(&records.slice(from, rows))?;
            from += rows;
            if self.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn ready(&mut self, at_least: usize) -> Vec<Bytes> {
        self.writer.inner_mut().take(at_least)
    }

    fn flush(&mut self) -> Result<()> {
        match std::mem::take(&mut self.waiting) {
            Waiting { rows: 0, .. } => Ok(()),
            waiting if waiting.bytes < LONG_WORK_BYTES => self.encode(waiting).map_err(failed),
            waiting => aside(|| self.encode(waiting)).map_err(failed),
        }
    }

    fn unfinished(&self) -> usize {
        self.waiting.bytes
    }

    fn memory(&self) -> usize {
        let columns = self.writer.schema_descr().num_columns();
        self.waiting.bytes + columns * COLUMN_OVERHEAD + self.writer.inner().held()
    }

    fn file_size(&self) -> u64 {
        (self.writer.bytes_written() + self.estimate()) as u64
    }

    fn finish(&mut self, footer: &FileFooter) -> Result<()> {
        self.flush()?;
        let entry = KeyValue::new(PARQUET_KEY.to_owned(), footer.to_json()?);
        self.writer.append_key_value_metadata(entry);
        self.writer.finish().map(drop).map_err(failed)
    }
}

/// Does what takes long, while the runtime goes on in other threads if it has
/// any.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

/// Whether Parquet has a type for every column.
pub(super) fn check(schema: &Schema) -> Result<()> {
    ArrowSchemaConverter::new()
        .convert(schema)
        .map(drop)
        .map_err(|e| Error::config("parquet cannot hold these columns").source(e))
}

/// How to encode, judged by `first`.
pub(super) fn encodings(config: &FileConfig, first: &RecordBatch) -> Result<Encodings> {
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("tidelock ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(codec(config.codec())?)
        .set_statistics_enabled(match config.parquet.statistics {
            Statistics::Auto | Statistics::Page => EnabledStatistics::Page,
            Statistics::RowGroup => EnabledStatistics::Chunk,
            Statistics::None => EnabledStatistics::None,
        });
    let schema = first.schema();
    let converted = ArrowSchemaConverter::new().convert(&schema).map_err(failed)?;
    if let Dictionary::Columns(wanted) = &config.parquet.dictionary {
        known_columns(wanted, converted.columns().iter().map(|column| column.path().string()))?;
    }
    let leaves = sample::leaves(first);
    for (column, leaf) in converted.columns().iter().zip(&leaves) {
        let choice = choose(column, &Sample::of(leaf), config);
        let path = column.path();
        builder = builder.set_column_dictionary_enabled(path.clone(), choice.dictionary);
        if let Some(encoding) = choice.encoding {
            builder = builder.set_column_encoding(path.clone(), encoding);
        }
        if let Some(statistics) = choice.statistics {
            builder = builder.set_column_statistics_enabled(path.clone(), statistics);
        }
    }
    Encodings::new(&schema, builder.build())
}

struct Choice {
    dictionary: bool,
    /// Without a dictionary, and when one has grown too large.
    encoding: Option<Encoding>,
    statistics: Option<EnabledStatistics>,
}

fn choose(column: &ColumnDescriptor, sample: &Sample, config: &FileConfig) -> Choice {
    let physical = column.physical_type();
    let text = physical == Physical::BYTE_ARRAY;
    let whole = matches!(physical, Physical::INT32 | Physical::INT64);
    let repeats = if whole { sample.repeats_wide_numbers() } else { sample.repeats() };
    let dictionary = match &config.parquet.dictionary {
        Dictionary::Auto => repeats,
        Dictionary::All => true,
        Dictionary::Never => false,
        Dictionary::Columns(wanted) => {
            let path = column.path().string();
            wanted.iter().any(|name| covers(name, &path))
        }
    };
    let statistics = match config.parquet.statistics {
        Statistics::Auto if text && !repeats && sample.average_bytes >= LONG_TEXT_BYTES => {
            Some(EnabledStatistics::None)
        }
        Statistics::Auto if text => Some(EnabledStatistics::Chunk),
        _ => None,
    };
    let encoding = match physical {
        Physical::INT32 | Physical::INT64 => Some(Encoding::DELTA_BINARY_PACKED),
        Physical::BYTE_ARRAY => Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        _ => None,
    };
    Choice { dictionary, encoding, statistics }
}

/// Whether `name` is the leaf `path`, or something above it.
fn covers(name: &str, path: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn known_columns(wanted: &[String], leaves: impl Iterator<Item = String>) -> Result<()> {
    let leaves: HashSet<String> = leaves.collect();
    match wanted.iter().find(|name| !leaves.iter().any(|path| covers(name, path))) {
        None => Ok(()),
        Some(name) => {
            Err(Error::config(format!("dictionary names no column of the file: {name:?}")))
        }
    }
}

fn codec(compression: Compression) -> Result<Codec> {
    let wrong = |e| Error::config("compression level").source(e);
    Ok(match compression {
        Compression::None => Codec::UNCOMPRESSED,
        Compression::Snappy => Codec::SNAPPY,
        // The other LZ4 of Parquet has a frame that nobody agrees upon.
        Compression::Lz4 => Codec::LZ4_RAW,
        Compression::Gzip(level) => Codec::GZIP(GzipLevel::try_new(level).map_err(wrong)?),
        Compression::Zstd(level) => Codec::ZSTD(ZstdLevel::try_new(level).map_err(wrong)?),
    })
}
