//! Looking into the rows: how many there are, and whose.

use std::collections::BTreeMap;
use std::io::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use flate2::write::MultiGzDecoder;
use futures::TryStreamExt;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use serde::Deserialize;
use tidelock_connector::{Coverage, Error, ErrorKind, OffsetSet, Result, TopicPartition};
use tidelock_store::{Entry, Store};
use zstd::stream::raw::Decoder as ZstdDecoder;
use zstd::stream::zio::Writer as ZstdWriter;

use super::reader::StoreReader;
use super::{is_parquet, not_parquet};

/// The columns that tell where a row came from.
const COORDINATES: [&str; 3] = ["_topic", "_partition", "_offset"];
/// Files without ranges of their own are read in pieces of this size.
const PIECE_BYTES: u64 = 8 << 20;

/// What the rows of a file say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many rows.
    pub rows: u64,
    /// The offsets of the rows, where the columns `_topic`, `_partition` and
    /// `_offset` were kept.
    pub offsets: Option<Coverage>,
    /// How many rows have an offset that an earlier row of the file has too.
    pub repeated: u64,
}

/// Reads a data file through: its rows, and their offsets where they were kept.
/// Memory is bounded, whatever the size of the file.
///
/// # Errors
/// Those of the store; [`ErrorKind::Conflict`] for a file that cannot be read.
pub async fn count(store: &Store, entry: &Entry) -> Result<Counted> {
    let mut tally = Tally::default();
    if is_parquet(&entry.path) {
        parquet(store, entry, &mut tally).await?;
    } else {
        lines(store, entry, &mut tally).await?;
    }
    Ok(tally.finish())
}

async fn parquet(store: &Store, entry: &Entry, tally: &mut Tally) -> Result<()> {
    let broken = |e| not_parquet(&entry.path).source(e);
    let reader = StoreReader { store: store.clone(), entry: entry.clone() };
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(broken)?;
    if COORDINATES.iter().any(|name| builder.schema().index_of(name).is_err()) {
        let rows = builder.metadata().file_metadata().num_rows();
        tally.uncoordinated += u64::try_from(rows).unwrap_or(0);
        return Ok(());
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), COORDINATES);
    let mut batches = builder.with_projection(mask).build().map_err(broken)?;
    while let Some(records) = batches.try_next().await.map_err(broken)? {
        tally.add_batch(&records)?;
    }
    Ok(())
}

async fn lines(store: &Store, entry: &Entry, tally: &mut Tally) -> Result<()> {
    let broken = |e| {
        Error::new(ErrorKind::Conflict, "these are not json lines").object(&entry.path).source(e)
    };
    let mut sink = if entry.path.ends_with(".gz") {
        Decoder::Gzip(Box::new(MultiGzDecoder::new(Lines::new(tally))))
    } else if entry.path.ends_with(".zst") {
        let decoder = ZstdDecoder::new().map_err(broken)?;
        Decoder::Zstd(Box::new(ZstdWriter::new(Lines::new(tally), decoder)))
    } else {
        Decoder::Plain(Lines::new(tally))
    };
    let mut from = 0;
    while from < entry.size {
        let to = entry.size.min(from + PIECE_BYTES);
        let bytes = store.get_range(&entry.path, from..to).await?;
        sink.write_all(&bytes).map_err(broken)?;
        from = to;
    }
    sink.finish().map_err(broken)
}

enum Decoder<'a> {
    Plain(Lines<'a>),
    Gzip(Box<MultiGzDecoder<Lines<'a>>>),
    Zstd(Box<ZstdWriter<Lines<'a>, ZstdDecoder<'static>>>),
}

impl Decoder<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(lines) => lines.write_all(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes),
            Self::Zstd(decoder) => decoder.write_all(bytes),
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Plain(lines) => lines.finish(),
            Self::Gzip(decoder) => decoder.finish()?.finish(),
            Self::Zstd(mut decoder) => {
                // Unlike its simpler siblings it insists on the frame's end.
                decoder.finish()?;
                decoder.into_inner().0.finish()
            }
        }
    }
}

/// Takes bytes, sees lines.
struct Lines<'a> {
    tally: &'a mut Tally,
    partial: Vec<u8>,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(default, rename = "_topic", borrow)]
    topic: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, rename = "_partition")]
    partition: Option<i32>,
    #[serde(default, rename = "_offset")]
    offset: Option<i64>,
}

impl<'a> Lines<'a> {
    fn new(tally: &'a mut Tally) -> Self {
        Self { tally, partial: Vec::new() }
    }

    fn finish(self) -> std::io::Result<()> {
        // A last line without its end is half a row.
        match self.partial.is_empty() {
            true => Ok(()),
            false => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn line(&mut self, line: &[u8]) -> std::io::Result<()> {
        let row: Row<'_> = serde_json::from_slice(line)?;
        match (row.topic, row.partition, row.offset) {
            (Some(topic), Some(partition), Some(offset)) => {
                self.tally.add(&topic, partition, offset);
            }
            _ => self.tally.uncoordinated += 1,
        }
        Ok(())
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.line(&rest[..end])?;
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                let line = std::mem::take(&mut self.partial);
                self.line(&line)?;
            }
            rest = &rest[end + 1..];
        }
        self.partial.extend_from_slice(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Tally {
    offsets: BTreeMap<String, BTreeMap<i32, OffsetSet>>,
    coordinated: u64,
    uncoordinated: u64,
    repeated: u64,
}

impl Tally {
    fn add(&mut self, topic: &str, partition: i32, offset: i64) {
        if !self.offsets.contains_key(topic) {
            self.offsets.insert(topic.to_owned(), BTreeMap::new());
        }
        let Some(partitions) = self.offsets.get_mut(topic) else { return };
        let set = partitions.entry(partition).or_default();
        self.coordinated += 1;
        if set.contains(offset) {
            self.repeated += 1;
        } else {
            set.insert(offset, offset + 1);
        }
    }

    fn add_batch(&mut self, records: &RecordBatch) -> Result<()> {
        let column = |name: &str, data_type: &DataType| {
            let column = records.column_by_name(name).ok_or_else(|| {
                Error::new(ErrorKind::Schema, "a column is missing").with("column", name)
            })?;
            Ok::<_, Error>(cast(column, data_type)?)
        };
        let topics = column(COORDINATES[0], &DataType::Utf8)?;
        let partitions = column(COORDINATES[1], &DataType::Int64)?;
        let offsets = column(COORDINATES[2], &DataType::Int64)?;
        let topics = topics.as_string::<i32>();
        let partitions = partitions.as_primitive::<Int64Type>();
        let offsets = offsets.as_primitive::<Int64Type>();
        for row in 0..records.num_rows() {
            let partition = i32::try_from(partitions.value(row));
            let known = topics.is_valid(row) && partitions.is_valid(row) && offsets.is_valid(row);
            match partition {
                Ok(partition) if known => {
                    self.add(topics.value(row), partition, offsets.value(row));
                }
                _ => self.uncoordinated += 1,
            }
        }
        Ok(())
    }

    fn finish(self) -> Counted {
        let mut coverage = Coverage::new();
        for (topic, partitions) in &self.offsets {
            for (partition, set) in partitions {
                let partition = TopicPartition::new(topic.as_str(), *partition);
                for range in set.ranges() {
                    coverage.insert(&partition, range.from, range.to);
                }
            }
        }
        Counted {
            rows: self.coordinated + self.uncoordinated,
            offsets: (self.uncoordinated == 0 && self.coordinated > 0).then_some(coverage),
            repeated: self.repeated,
        }
    }
}
