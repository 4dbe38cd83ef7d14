//! Parquet, by the writer of the `parquet` crate.
//!
//! Which encoding a column gets is decided by the first rows of its stream, as
//! measured: dictionaries only where values repeat, `DELTA_BINARY_PACKED` for
//! whole numbers and times, `DELTA_LENGTH_BYTE_ARRAY` for text, and no
//! statistics of long text that never repeats. That costs a third less CPU
//! than the crate's defaults, and files are smaller.

use std::collections::HashSet;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression as Codec, Encoding, GzipLevel, Type as Physical, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::schema::types::ColumnDescriptor;
use tidelock_connector::{Error, Result};

use super::sample::{self, Sample};
use super::{Encoder, Pieces, failed};
use crate::config::{Compression, Dictionary, FileConfig, Statistics};
use crate::footer::{FileFooter, PARQUET_KEY};

/// Rows from which on a sample is believed for the rest of the stream.
const CERTAIN_ROWS: usize = 1_000;
/// Text of this length or more, on average, is long.
const LONG_TEXT_BYTES: usize = 20;
/// Row groups do not become smaller than this for want of memory.
const MIN_ROW_GROUP_BYTES: usize = 1 << 20;

/// What a column holds beside its bytes: a compressor and small buffers.
const COLUMN_OVERHEAD: usize = 128 << 10;

pub(super) struct ParquetEncoder {
    writer: ArrowWriter<Pieces>,
    columns: usize,
}

impl ParquetEncoder {
    pub(super) fn new(schema: SchemaRef, properties: &WriterPropertiesPtr) -> Result<Self> {
        let properties = WriterProperties::clone(properties);
        let columns = ArrowSchemaConverter::new().convert(&schema).map_err(failed)?.num_columns();
        let writer =
            ArrowWriter::try_new(Pieces::default(), schema, Some(properties)).map_err(failed)?;
        Ok(Self { writer, columns })
    }
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, records: &RecordBatch) -> Result<()> {
        self.writer.write(records).map_err(failed)
    }

    fn ready(&mut self, at_least: usize) -> Vec<Bytes> {
        self.writer.inner_mut().take(at_least)
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(failed)
    }

    fn memory(&self) -> usize {
        // `memory_size` counts a megabyte that is reserved and never touched for
        // every delta-encoded column, so twenty small files would look full.
        let open = match self.writer.in_progress_rows() {
            0 => 0,
            _ => self.writer.in_progress_size() + self.columns * COLUMN_OVERHEAD,
        };
        open + self.writer.inner().held()
    }

    fn file_size(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    fn finish(&mut self, footer: &FileFooter) -> Result<()> {
        let entry = KeyValue::new(PARQUET_KEY.to_owned(), footer.to_json()?);
        self.writer.append_key_value_metadata(entry);
        self.writer.finish().map(drop).map_err(failed)
    }
}

/// Whether Parquet has a type for every column.
pub(super) fn check(schema: &Schema) -> Result<()> {
    ArrowSchemaConverter::new()
        .convert(schema)
        .map(drop)
        .map_err(|e| Error::config("parquet cannot hold these columns").source(e))
}

/// How to encode, judged by `first`, and whether that is a judgement to keep.
pub(super) fn properties(
    config: &FileConfig,
    first: &RecordBatch,
    memory: usize,
) -> Result<(WriterProperties, bool)> {
    let parquet = &config.parquet;
    let row_group_bytes = usize::try_from(parquet.row_group_size.0).unwrap_or(usize::MAX);
    // One row group being filled, one on its way, and some for other files.
    let row_group_bytes = row_group_bytes.min((memory / 4).max(MIN_ROW_GROUP_BYTES));
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("tidelock ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(codec(config.codec())?)
        .set_max_row_group_row_count(Some(parquet.row_group_rows))
        .set_max_row_group_bytes(Some(row_group_bytes))
        .set_statistics_enabled(match parquet.statistics {
            Statistics::Auto | Statistics::Page => EnabledStatistics::Page,
            Statistics::RowGroup => EnabledStatistics::Chunk,
            Statistics::None => EnabledStatistics::None,
        });
    let schema = first.schema();
    let converted = ArrowSchemaConverter::new().convert(&schema).map_err(failed)?;
    if let Dictionary::Columns(wanted) = &parquet.dictionary {
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
    Ok((builder.build(), first.num_rows() >= CERTAIN_ROWS))
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
