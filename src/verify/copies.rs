//! Copies of files that carry no footer.
//!
//! A copied Parquet file still says whose copy it is. A copied file of JSON
//! lines does not, for its sidecar stays behind: it is known by its bytes. Only
//! files without a sidecar, in a format of ours, that have the size of one of
//! our files are compared, so this costs nothing where there is none.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use tidelock_connector::Result;
use tidelock_file::inspect::{self, Entry};

use super::findings::FileFault;
use super::read::{Reader, Reading};
use super::scan::{Scan, set_of};

/// Files are compared in pieces of this size.
const PIECE_BYTES: u64 = 4 << 20;

/// Adds the copies among `scan.suspects` to its findings.
pub(super) async fn find(reader: &Arc<Reader>, scan: &mut Scan) -> Result<()> {
    let mut suspects = std::mem::take(&mut scan.suspects);
    suspects.retain(|suspect| suspect.size > 0 && scan.sizes.contains(&suspect.size));
    if suspects.is_empty() {
        return Ok(());
    }
    let sizes: HashSet<u64> = suspects.iter().map(|suspect| suspect.size).collect();
    let names: HashSet<String> = suspects.iter().map(|suspect| suspect.path.clone()).collect();
    let mut files = inspect::data_files(&reader.store);
    while let Some(entry) = files.try_next().await? {
        if !sizes.contains(&entry.size) || names.contains(&entry.path) {
            continue;
        }
        let Reading::Ours { footer, .. } = reader.footer(&entry).await? else { continue };
        let mut rest = Vec::new();
        for suspect in suspects {
            if suspect.size == entry.size && same_bytes(reader, &suspect, &entry).await? {
                let (set, of) = (set_of(&footer), footer.key.clone());
                let fault = FileFault::Copied { set, of, rows: footer.rows };
                scan.findings.files.insert(suspect.path, fault);
                scan.totals.foreign -= 1;
            } else {
                rest.push(suspect);
            }
        }
        suspects = rest;
        if suspects.is_empty() {
            break;
        }
    }
    Ok(())
}

async fn same_bytes(reader: &Reader, one: &Entry, other: &Entry) -> Result<bool> {
    let mut from = 0;
    while from < one.size {
        let piece = from..one.size.min(from + PIECE_BYTES);
        let one = reader.store.get_range(&one.path, piece.clone()).await;
        let other = reader.store.get_range(&other.path, piece.clone()).await;
        match (one, other) {
            (Ok(one), Ok(other)) if one == other => from = piece.end,
            (Ok(_), Ok(_)) => return Ok(false),
            (Err(error), _) | (_, Err(error)) => {
                use tidelock_connector::ErrorKind::NotFound;
                return if error.kind() == NotFound { Ok(false) } else { Err(error) };
            }
        }
    }
    Ok(true)
}
