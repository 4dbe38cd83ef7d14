//! Taking partitions over: one path for start, recovery and new assignments.

use std::sync::Arc;
use std::time::Duration;

use tidelock_connector::{
    AssignedPartition, Assignment, Error, ErrorKind, Identity, Offsets, Result, Start,
};

use super::life::Life;
use super::{Failure, Shared, Worker};
use crate::checkpoint::backoff::Backoff;
use crate::checkpoint::change::{Change, Claim, Refusal};
use crate::checkpoint::claim::{check_identity, plan};
use crate::checkpoint::crash::{self, Phase};
use crate::checkpoint::mutation::{Mutation, planted};
use crate::checkpoint::record::{Files, PartitionState, Record};
use crate::checkpoint::swap::SwapOutcome;

impl Life {
    /// Claims partitions in the record, publishes what their last owners left
    /// pending, and says where to start. Nothing of them is read before that
    /// (I6).
    pub(super) async fn claim(
        &mut self,
        worker: &mut Worker,
        partitions: Vec<AssignedPartition>,
    ) -> Result<Vec<Start>, Failure> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.progress.busy(worker.index);
        let record = self.claim_in_record(&worker.identity, &partitions).await?;
        crash::at("claimed-before-recovery");
        self.recover(&record, &partitions).await?;
        crash::at("recovered-before-first-message");
        let mut starts = Vec::with_capacity(partitions.len());
        let mut repairs = Offsets::new();
        for assigned in partitions {
            let partition = assigned.partition;
            // What was committed before has been judged, once.
            if let Some(known) = worker.assigned.get_mut(&partition) {
                known.committed = None;
            }
            let Some(state) = record.partition(&partition) else { continue };
            let end = record.run.as_ref().and_then(|run| run.ends.get(&partition).copied());
            if let Some(offset) = self.coordinator.own(&partition, state) {
                tracing::debug!(%partition, offset, epoch = state.epoch, "claimed");
                if let Some(end) = end {
                    self.ends.insert(partition.clone(), end);
                }
                // Whoever had it before may have died before it could say so,
                // and on a quiet topic no checkpoint would.
                let mirrored = assigned.committed.is_some_and(|it| it.offset == offset);
                if state.epoch > 1 && !mirrored {
                    repairs.insert(partition.clone(), offset);
                }
                starts.push(Start { partition, offset, end });
            }
        }
        tracing::info!(worker = worker.index, partitions = starts.len(), "claimed partitions");
        if !repairs.is_empty() {
            worker.mirror.commit(repairs, self.sequence);
        }
        Ok(starts)
    }

    async fn claim_in_record(
        &mut self,
        identity: &Identity,
        partitions: &[AssignedPartition],
    ) -> Result<Arc<Record>, Failure> {
        let _phase = crash::begin(Phase::Swap);
        let shared = Arc::clone(&self.shared);
        let mut backoff = Backoff::new(shared.settings.seed).cap(Duration::from_secs(5));
        loop {
            let record = match shared.swaps.read().await {
                Ok(record) => record,
                Err(error) if error.is_retryable() => {
                    metrics::counter!("tidelock_retries_total", "operation" => "claim")
                        .increment(1);
                    tracing::warn!(%error, "the record cannot be read, trying again");
                    backoff.wait().await;
                    continue;
                }
                Err(error) => return Err(Failure::Fatal(error)),
            };
            let mut claim =
                plan_all(&shared, identity, &record, partitions).map_err(Failure::Fatal)?;
            claim.claimed_before = self.sequence > 0;
            crash::at("before-claim");
            let us = self.coordinator.incarnation();
            let outcome = shared.swaps.send(us, Change::Claim(claim.clone())).await;
            match outcome {
                Ok(SwapOutcome::Landed(record)) => {
                    self.sequence = record.sequence;
                    // The record is the newest one, and if the answer was lost
                    // others may have claimed since: their epochs are not ours.
                    if claim.holds(&record, us) || planted(Mutation::StolenClaim) {
                        return Ok(record);
                    }
                    tracing::info!("somebody else has claimed since, planning the claim again");
                    backoff.wait().await;
                }
                Ok(SwapOutcome::Refused(refusal @ Refusal::Forgotten)) => {
                    return Err(Failure::Restart(Error::new(
                        ErrorKind::Fenced,
                        format!("the claim was refused: {refusal}"),
                    )));
                }
                Ok(SwapOutcome::Refused(refusal)) => {
                    metrics::counter!("tidelock_claims_refused_total").increment(1);
                    tracing::info!(%refusal, "the claim was refused, planning it again");
                    backoff.wait().await;
                }
                Ok(SwapOutcome::Failed(error)) => return Err(error.into()),
                Err(_) => return Err(Failure::Fatal(swap_loop_gone())),
            }
        }
    }

    /// Answers an assignment with what the record says now, and claims it with
    /// the first rows: a planted bug.
    pub(super) async fn read_before_claim(
        &mut self,
        assignment: Assignment,
    ) -> Result<(), Failure> {
        let record = self.shared.swaps.read().await?;
        let starts = assignment.partitions.iter().map(|assigned| {
            let next = record.partition(&assigned.partition).and_then(PartitionState::next);
            let offset = next.unwrap_or(assigned.start);
            Start { partition: assigned.partition.clone(), offset, end: None }
        });
        let _ = assignment.reply.send(starts.collect());
        self.late.extend(assignment.partitions);
        Ok(())
    }

    /// Publishes every pending set that touches one of `partitions` or whose
    /// life owns nothing any more.
    async fn recover(
        &mut self,
        record: &Record,
        partitions: &[AssignedPartition],
    ) -> Result<(), Failure> {
        if planted(Mutation::NoRecovery) {
            return Ok(());
        }
        let _phase = crash::begin(Phase::Publish);
        let owners: std::collections::BTreeSet<_> =
            record.partitions().map(|(_, state)| state.owner).collect();
        for set in &record.pending {
            let ours = partitions.iter().any(|p| set.partitions.contains_key(&p.partition));
            let abandoned = !owners.contains(&set.id.incarnation);
            if !(ours || abandoned) || set.id.incarnation == self.coordinator.incarnation() {
                continue;
            }
            tracing::info!(sink = set.id.sink, checkpoint = set.id.checkpoint,
                incarnation = %set.id.incarnation, "publishing what another life left pending");
            let files = match self.shared.publisher.publish(set).await {
                Ok(files) => files,
                Err(error) => return Err(self.replay(set, error).await),
            };
            self.progress_published(&set.id.sink, &files);
            self.staged.insert(set.id.clone(), (files, spilled(&set.files)));
            self.coordinator.may_clear(set.id.clone());
        }
        Ok(())
    }
}

/// The object beside the record, if the files are in one.
pub(super) fn spilled(files: &Files) -> Option<String> {
    match files {
        Files::Inline(_) => None,
        Files::Spilled { object, .. } => Some(object.clone()),
    }
}

fn plan_all(
    shared: &Shared,
    identity: &Identity,
    record: &Record,
    partitions: &[AssignedPartition],
) -> Result<Claim> {
    check_identity(record, identity)?;
    let mut claim = Claim {
        cluster: identity.cluster.clone(),
        group: identity.group.clone(),
        partitions: Vec::with_capacity(partitions.len()),
        sinks: shared.sinks.iter().map(|(route, _)| route.name.to_string()).collect(),
        run: shared.run.clone(),
        ends: shared.ends.clone(),
        claimed_before: false,
    };
    for assigned in partitions {
        let sinks = shared
            .sinks
            .iter()
            .filter(|(route, _)| route.takes(&assigned.partition.topic))
            .map(|(route, _)| route.name.to_string())
            .collect();
        let mut assigned = assigned.clone();
        if !shared.durable
            && let Some(committed) = &mut assigned.committed
        {
            // Without a record that lasts the committed offset is the truth.
            committed.hint.clear();
        }
        claim.partitions.push(plan(record, &assigned, sinks, shared.settings.on_external_reset)?);
    }
    Ok(claim)
}

pub(super) fn swap_loop_gone() -> Error {
    Error::new(ErrorKind::Other, "the swap loop has ended")
}
