//! Doing what was planned.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidelock_connector::{
    CommittedOffset, CommittedOffsets, Error, ErrorKind, Incarnation, Result,
};

use super::{Group, Plan};
use crate::checkpoint::change::{Change, Refusal};
use crate::checkpoint::claim::Hint;
use crate::checkpoint::record::Record;
use crate::checkpoint::rewind::{RewindTarget, Rewinding};
use crate::checkpoint::store::RecordStore;
use crate::checkpoint::swap::{SwapOutcome, Swaps};

/// How long the record may take to be written.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The record's sequence as of the move; `None` when no cursor was moved.
    pub sequence: Option<u64>,
    /// Why the group's committed offsets did not follow. The next run repairs
    /// those of partitions with a cursor.
    pub not_mirrored: Option<String>,
}

/// Moves cursors as planned, then the group's committed offsets.
///
/// # Errors
/// [`ErrorKind::Conflict`], and nothing was moved, when the record has changed
/// since it was planned. [`ErrorKind::Unavailable`] when it is not known
/// whether the record was written: look, before anything is planned again.
pub async fn apply(
    store: &Arc<dyn RecordStore>,
    pipeline: &str,
    group: &dyn Group,
    plan: &Plan,
) -> Result<Applied> {
    let targets: Vec<RewindTarget> = plan
        .moves
        .iter()
        .filter_map(|step| {
            let seen_epoch = step.seen_epoch.filter(|_| !step.effects.is_empty())?;
            Some(RewindTarget { partition: step.place(), seen_epoch, to: step.to })
        })
        .collect();
    let record =
        if targets.is_empty() { None } else { Some(rewind(store, pipeline, targets).await?) };
    let sequence = match (&record, plan.recorded) {
        (Some(record), _) => Some(record.sequence),
        (None, true) => Some(Swaps::new(Arc::clone(store), pipeline, 0).0.read().await?.sequence),
        (None, false) => None,
    };
    let offsets: CommittedOffsets = plan
        .moves
        .iter()
        .map(|step| {
            // A hint without a record would say that the record was lost.
            let hint = sequence.map(|sequence| Hint { pipeline, sequence, offset: step.to });
            let hint = hint.map(|hint| hint.to_string()).unwrap_or_default();
            (step.place(), CommittedOffset { offset: step.to, hint })
        })
        .collect();
    let not_mirrored = match group.commit(&offsets).await {
        Ok(()) => None,
        // Nothing else was to be done.
        Err(error) if record.is_none() => return Err(error),
        Err(error) => Some(error.to_string()),
    };
    Ok(Applied { sequence: record.map(|record| record.sequence), not_mirrored })
}

/// Moves the cursors by one swap of a life that owns nothing.
async fn rewind(
    store: &Arc<dyn RecordStore>,
    pipeline: &str,
    targets: Vec<RewindTarget>,
) -> Result<Record> {
    let (swaps, swap_loop) = Swaps::new(Arc::clone(store), pipeline, rand::random());
    let change = Change::Rewind(Rewinding { targets: targets.clone(), lost: None });
    let outcome = swaps.send(Incarnation::new(), change);
    let running = tokio::spawn(swap_loop.run());
    let outcome = tokio::time::timeout(PATIENCE, outcome).await;
    running.abort();
    let unknown = || {
        Error::new(
            ErrorKind::Unavailable,
            "it is not known whether the record was written: look with `tidelock offsets show`",
        )
    };
    match outcome.map_err(|_| unknown())?.map_err(|_| unknown())? {
        SwapOutcome::Landed(record) => Ok((*record).clone()),
        SwapOutcome::Failed(error) => Err(error),
        SwapOutcome::Refused(refusal) => {
            // An answer may have been lost, and a worker have claimed since:
            // then it is our own move that refuses the second try.
            let record = swaps.read().await?;
            if targets.iter().all(|target| is_done(&record, target)) {
                return Ok(record);
            }
            Err(changed(&refusal))
        }
    }
}

fn is_done(record: &Record, target: &RewindTarget) -> bool {
    let epoch = target.seen_epoch + 1;
    record.partition(&target.partition).is_some_and(|state| {
        state.rewinds.iter().any(|rewind| rewind.epoch == epoch && rewind.from == target.to)
    })
}

fn changed(refusal: &Refusal) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "nothing was moved: the record has changed meanwhile, so a worker is running ({refusal})"
        ),
    )
}
