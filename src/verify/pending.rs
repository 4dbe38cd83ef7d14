//! What is committed and not visible yet.
//!
//! A pending set is no gap: the record has committed it, and whoever runs next
//! publishes it. That is only true while its bytes are somewhere, so this looks
//! for them: staged, or under the final key by now.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use tidelock_connector::{Committable, ErrorKind, Result};
use tidelock_file::Store;

use super::findings::FileFault;
use super::scan::Scan;
use super::sets::SetKey;
use crate::checkpoint::publish;
use crate::checkpoint::record::{Files, PendingSet, Record, SetId};
use crate::checkpoint::store::RecordStore;

/// What is on its way.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) sets: u64,
    pub(super) files: u64,
    pub(super) rows: u64,
    /// What is on its way and cannot arrive.
    pub(super) lost: Vec<(String, FileFault)>,
}

/// What a file sink's committable says, as far as it matters here.
#[derive(Deserialize)]
struct Detail {
    moves: Vec<Move>,
}

#[derive(Deserialize)]
struct Move {
    from: String,
    to: String,
}

/// The set's name, without the sink.
pub(super) fn key_of(id: &SetId) -> SetKey {
    SetKey { incarnation: id.incarnation, checkpoint: id.checkpoint }
}

/// The pending sets of `sink` that `scan` has not seen whole.
pub(super) fn unseen<'a>(
    record: Option<&'a Record>,
    sink: &'a str,
    scan: &'a Scan,
) -> impl Iterator<Item = &'a PendingSet> {
    let sets = record.map(|record| record.pending.as_slice()).unwrap_or_default();
    sets.iter().filter(move |set| set.id.sink == sink && !scan.ledger.is_whole(key_of(&set.id)))
}

/// Looks for the files of `sets`. Those that `after` no longer lists have been
/// published meanwhile.
pub(super) async fn look(
    store: &Store,
    records: &Arc<dyn RecordStore>,
    after: Option<&Record>,
    parallel: usize,
    sets: Vec<PendingSet>,
) -> Result<Pending> {
    let mut pending = Pending::default();
    for set in sets {
        if !after.is_some_and(|record| record.is_pending(&set.id)) {
            continue;
        }
        let key = key_of(&set.id);
        let Some(files) = load(records, &set, &mut pending).await? else { continue };
        let states: Vec<_> = futures::stream::iter(files)
            .map(|file| async move {
                let state = state(store, &file).await?;
                Ok::<_, tidelock_connector::Error>((file, state))
            })
            .buffer_unordered(parallel)
            .try_collect()
            .await?;
        pending.sets += 1;
        for (file, state) in states {
            if state == State::Visible {
                continue;
            }
            pending.files += 1;
            pending.rows += file.rows;
            if state == State::Lost {
                let fault =
                    FileFault::Lost { set: key, rows: file.rows, ranges: set.partitions.clone() };
                pending.lost.push((file.name, fault));
            }
        }
    }
    Ok(pending)
}

/// The files of a set; none when they cannot be told.
async fn load(
    records: &Arc<dyn RecordStore>,
    set: &PendingSet,
    pending: &mut Pending,
) -> Result<Option<Vec<Committable>>> {
    match publish::load(records.as_ref(), set).await {
        Ok(files) => Ok(Some(files)),
        // Perhaps it was published and forgotten a moment ago: if not, the next
        // look finds the same.
        Err(error) if matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::Conflict) => {
            if let Files::Spilled { object, .. } = &set.files {
                let ranges = set.partitions.clone();
                let fault = FileFault::Lost { set: key_of(&set.id), rows: 0, ranges };
                pending.lost.push((object.clone(), fault));
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Visible,
    Staged,
    Lost,
}

async fn state(store: &Store, file: &Committable) -> Result<State> {
    let Ok(Detail { moves }) = Detail::deserialize(&file.detail) else {
        // Made by something else than a file sink of this version.
        let visible = store.size(&file.name).await?.is_some();
        return Ok(if visible { State::Visible } else { State::Staged });
    };
    let mut visible = true;
    for Move { from, to } in moves {
        if store.size(&to).await?.is_some() {
            continue;
        }
        visible = false;
        // A local file is renamed: it may have arrived between two questions.
        if store.size(&from).await?.is_none() && store.size(&to).await?.is_none() {
            return Ok(State::Lost);
        }
    }
    Ok(if visible { State::Visible } else { State::Staged })
}
