//! Reading files back, as far as a proof of completeness needs it.
//!
//! [`read_footer`] reads a Parquet file's footer alone, with one request, or
//! two when it is larger than 64 KiB. [`count`] looks into the rows.

mod deep;
mod reader;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::{BoxStream, StreamExt};
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_store::Store;

use crate::footer::{FileFooter, PARQUET_KEY};
use crate::names;

pub use deep::{Counted, count};
pub use tidelock_store::Entry;

/// How much of a file's end is read at first.
const TAIL_BYTES: u64 = 64 << 10;

/// Every data file of a sink's store: whatever is not below `_tidelock/`.
pub fn data_files(store: &Store) -> BoxStream<'static, Result<Entry>> {
    store.list("").try_filter(|entry| std::future::ready(names::is_data(&entry.path))).boxed()
}

/// What a data file says about itself, and what its format says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What we wrote into it, or beside it.
    pub footer: FileFooter,
    /// How many rows it has, where the format itself tells.
    pub rows: Option<u64>,
}

/// What a data file says about itself; nothing when no pipeline of Tidelock has
/// written it, or, for files without a footer inside, not `pipeline`.
///
/// # Errors
/// Those of the store; [`ErrorKind::Conflict`] when the file is no whole
/// Parquet file.
pub async fn read_footer(
    store: &Store,
    pipeline: &str,
    entry: &Entry,
) -> Result<Option<FileFooter>> {
    Ok(describe(store, pipeline, entry).await?.map(|described| described.footer))
}

/// The same as [`read_footer`], and the rows that the format counts; for the
/// same requests.
///
/// # Errors
/// As [`read_footer`].
pub async fn describe(store: &Store, pipeline: &str, entry: &Entry) -> Result<Option<Described>> {
    if !is_parquet(&entry.path) {
        let sidecar = store.get(&names::sidecar(pipeline, &entry.path)).await?;
        let footer = sidecar.map(|json| FileFooter::parse(&json, &entry.path)).transpose()?;
        return Ok(footer.map(|footer| Described { footer, rows: None }));
    }
    let metadata = read_metadata(store, entry).await?;
    let metadata = metadata.file_metadata();
    let document = metadata
        .key_value_metadata()
        .and_then(|entries| entries.iter().find(|entry| entry.key == PARQUET_KEY))
        .and_then(|entry| entry.value.as_ref());
    let footer =
        document.map(|json| FileFooter::parse(json.as_bytes(), &entry.path)).transpose()?;
    let rows = u64::try_from(metadata.num_rows()).ok();
    Ok(footer.map(|footer| Described { footer, rows }))
}

fn is_parquet(path: &str) -> bool {
    path.ends_with(".parquet")
}

fn not_parquet(path: &str) -> Error {
    Error::new(ErrorKind::Conflict, "this is not a whole parquet file").object(path)
}

async fn read_metadata(store: &Store, entry: &Entry) -> Result<ParquetMetaData> {
    let broken = |e| not_parquet(&entry.path).source(e);
    // Stores refuse to read nothing of an empty object.
    if entry.size < FOOTER_SIZE as u64 {
        return Err(not_parquet(&entry.path));
    }
    let start = entry.size.saturating_sub(TAIL_BYTES);
    let tail = store.get_range(&entry.path, start..entry.size).await?;
    let Some(end) = tail.last_chunk::<FOOTER_SIZE>() else {
        return Err(not_parquet(&entry.path));
    };
    let length = FooterTail::try_new(end).map_err(broken)?.metadata_length();
    let metadata = match tail.len().checked_sub(length + FOOTER_SIZE) {
        Some(from) => tail.slice(from..from + length),
        None => rest(store, entry, length, tail).await?,
    };
    ParquetMetaDataReader::decode_metadata(&metadata).map_err(broken)
}

/// The metadata, when it begins before the tail.
async fn rest(store: &Store, entry: &Entry, length: usize, tail: Bytes) -> Result<Bytes> {
    let from = entry.size.checked_sub((length + FOOTER_SIZE) as u64);
    let from = from.ok_or_else(|| not_parquet(&entry.path))?;
    let tail_start = entry.size - tail.len() as u64;
    let mut metadata = store.get_range(&entry.path, from..tail_start).await?.to_vec();
    metadata.extend_from_slice(&tail[..tail.len() - FOOTER_SIZE]);
    Ok(metadata.into())
}
