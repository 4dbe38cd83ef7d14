//! Orphans: bytes that were staged by a life that died before its checkpoint.
//!
//! The order is what makes it safe: list the staging area *first*, read the
//! record *then*, and delete only what belongs to lives that, by that record,
//! own nothing and have nothing pending. A life stages nothing before its
//! claim is in the record, and never claims again once it owned nothing. Never
//! by age: a stopped process may wake after days.

use tidelock_connector::Result;

use super::crash;
use super::mutation::{Mutation, planted};
use super::publish::Publisher;
use super::swap::Swaps;

/// Deletes the staged bytes of dead lives; returns how many lives those were.
pub async fn collect(pipeline: &str, publisher: &Publisher, swaps: &Swaps) -> Result<usize> {
    let mut collected = 0;
    for committer in publisher.committers().values() {
        let early = match planted(Mutation::CollectReadsFirst) {
            true => Some(swaps.read().await?),
            false => None,
        };
        let staged = committer.staged(pipeline).await?;
        if staged.is_empty() {
            continue;
        }
        let record = match early {
            Some(record) => record,
            None => swaps.read().await?,
        };
        for incarnation in staged {
            if record.is_alive(incarnation) {
                continue;
            }
            committer.collect(pipeline, incarnation).await?;
            tracing::info!(%incarnation, "collected the staged bytes of a worker that is gone");
            collected += 1;
            crash::at("collecting-orphans");
        }
    }
    Ok(collected)
}
