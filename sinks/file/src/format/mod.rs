//! The formats of files. One file here per format; a format is an [`Encoder`].

mod json;
mod parquet;
mod sample;

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use tidelock_connector::{Error, ErrorKind, Result};

use crate::config::{Compression, FileConfig, Format};
use crate::footer::FileFooter;

/// Turns the batches of one file into bytes, in memory alone.
pub(crate) trait Encoder: Send {
    /// Encodes rows.
    fn write(&mut self, records: &RecordBatch) -> Result<()>;

    /// The bytes that are final by now, in order, if there are at least so
    /// many; they are not held any longer.
    fn ready(&mut self, at_least: usize) -> Vec<Bytes>;

    /// Makes everything written so far final, so that it need not be held. The
    /// file suffers a little for it.
    fn flush(&mut self) -> Result<()>;

    /// How many bytes of rows are held that [`flush`](Self::flush) would make
    /// final, and smaller.
    fn unfinished(&self) -> usize;

    /// How many bytes are held, in all.
    fn memory(&self) -> usize;

    /// How many bytes the file would have if it were closed now, about.
    fn file_size(&self) -> u64;

    /// Closes the file; what remains of it is then [`ready`](Self::ready).
    fn finish(&mut self, footer: &FileFooter) -> Result<()>;
}

/// Rows from which on a sample is believed for the rest of the stream; until
/// then one of twice the rows is judged anew.
const CERTAIN_ROWS: usize = 1_000;

/// How the files of one stream and version are encoded.
pub(crate) struct Layout {
    format: Format,
    codec: Compression,
    schema: SchemaRef,
    /// With the number of rows that it was judged by.
    parquet: Option<(Arc<parquet::Encodings>, usize)>,
}

impl Layout {
    pub(crate) fn new(config: &FileConfig, schema: SchemaRef) -> Self {
        Self { format: config.format, codec: config.codec(), schema, parquet: None }
    }

    /// Starts a file; `first` are the first rows that it will get.
    pub(crate) fn encoder(
        &mut self,
        config: &FileConfig,
        first: &RecordBatch,
    ) -> Result<Box<dyn Encoder>> {
        if self.format == Format::Json {
            return Ok(Box::new(json::JsonEncoder::new(self.codec)?));
        }
        let rows = first.num_rows();
        let encodings = match &self.parquet {
            Some((encodings, seen)) if *seen >= CERTAIN_ROWS || rows < seen * 2 => {
                Arc::clone(encodings)
            }
            _ => {
                let encodings = Arc::new(parquet::encodings(config, first)?);
                self.parquet = Some((Arc::clone(&encodings), rows));
                encodings
            }
        };
        let limits = parquet::Limits::new(config);
        let schema = Arc::clone(&self.schema);
        Ok(Box::new(parquet::ParquetEncoder::new(schema, &encodings, limits)?))
    }
}

/// Whether the format can take the columns at all.
pub(crate) fn check(config: &FileConfig, schema: &Schema) -> Result<()> {
    match config.format {
        Format::Parquet => parquet::check(schema),
        Format::Json => json::check(schema),
    }
}

/// Whether the footer stands in the file itself.
pub(crate) fn carries_footer(format: Format) -> bool {
    format == Format::Parquet
}

/// What a data file's name ends with.
pub(crate) fn extension(format: Format, codec: Compression) -> &'static str {
    match (format, codec) {
        (Format::Parquet, _) => "parquet",
        (Format::Json, Compression::Gzip(_)) => "jsonl.gz",
        (Format::Json, Compression::Zstd(_)) => "jsonl.zst",
        (Format::Json, _) => "jsonl",
    }
}

pub(crate) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Schema, "cannot encode the rows").source(error)
}

/// Where encoders write to: pieces that can be handed on without a copy.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    done: Vec<Bytes>,
    open: Vec<u8>,
    held: usize,
    total: u64,
}

/// The size of a piece.
const PIECE_BYTES: usize = 1 << 20;

impl Pieces {
    fn take(&mut self, at_least: usize) -> Vec<Bytes> {
        if self.held < at_least {
            return Vec::new();
        }
        if !self.open.is_empty() {
            // It may wait long for the rest of its part.
            self.open.shrink_to_fit();
            self.done.push(std::mem::take(&mut self.open).into());
        }
        self.held = 0;
        std::mem::take(&mut self.done)
    }

    /// How much memory they take; the last one may have room.
    fn held(&self) -> usize {
        self.held - self.open.len() + self.open.capacity()
    }

    fn total(&self) -> u64 {
        self.total
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held += bytes.len();
        self.total += bytes.len() as u64;
        if self.open.is_empty() && self.total > PIECE_BYTES as u64 {
            // The file is not a small one: no growing step by step.
            self.open.reserve_exact(PIECE_BYTES + bytes.len());
        }
        self.open.extend_from_slice(bytes);
        if self.open.len() >= PIECE_BYTES {
            self.done.push(std::mem::take(&mut self.open).into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
