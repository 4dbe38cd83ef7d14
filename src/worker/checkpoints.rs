//! The part of a life that carries checkpoints from *prepared* to *done*.

use tidelock_connector::{Committable, Error, Result};
use tokio::task::JoinError;

use super::claim::{spilled, swap_loop_gone};
use super::life::{Life, Published};
use super::sinks::{SinkReport, panicked};
use super::{Failure, Settings, Worker};
use crate::checkpoint::backoff::Backoff;
use crate::checkpoint::change::Change;
use crate::checkpoint::coordinator::{Prepared, PreparedSet};
use crate::checkpoint::crash::{self, Phase};
use crate::checkpoint::mutation::{Mutation, planted};
use crate::checkpoint::publish::file_away;
use crate::checkpoint::record::{Files, PendingSet, SetId};
use crate::checkpoint::swap::SwapOutcome;

/// What the tasks of a life report.
#[derive(Debug)]
pub(super) enum Report {
    /// The outcome of a checkpoint's swap.
    Swapped { checkpoint: u64, pending: Vec<PendingSet>, outcome: Result<SwapOutcome> },
    /// The outcome of a swap that only clears.
    Cleared { sets: Vec<SetId>, outcome: Result<SwapOutcome> },
    /// Everything of a checkpoint was published, or cannot be.
    Published { checkpoint: u64, sets: Result<Vec<(SetId, Published)>> },
}

impl Life {
    pub(super) fn on_sink(&mut self, report: SinkReport) -> std::result::Result<(), Failure> {
        match report {
            SinkReport::Prepared { checkpoint, sink, files } => {
                tracing::debug!(checkpoint, %sink, files = files.len(), "prepared");
                self.coordinator.prepared(checkpoint, &sink, files);
                self.send_next_swap();
                Ok(())
            }
            SinkReport::Failed { sink, error } => {
                metrics::counter!("tidelock_sink_failures_total", "sink" => sink.to_string())
                    .increment(1);
                let (kind, retryable) = (error.kind(), error.is_retryable());
                let error = Error::new(kind, "a sink failed")
                    .retryable(retryable)
                    .with("sink", &sink)
                    .source(error);
                Err(error.into())
            }
        }
    }

    pub(super) fn on_report(
        &mut self,
        worker: &mut Worker,
        report: Report,
    ) -> std::result::Result<(), Failure> {
        match report {
            Report::Swapped { checkpoint, pending, outcome } => {
                self.sequence = landed(outcome?)?;
                let cleared = self.coordinator.landed(checkpoint);
                if planted(Mutation::ClearBeforePublished) {
                    pending.iter().for_each(|set| self.coordinator.may_clear(set.id.clone()));
                }
                self.forget_staged(worker, &cleared);
                self.publish(checkpoint, pending);
                self.send_next_swap();
            }
            Report::Cleared { sets, outcome } => {
                self.clearing = false;
                self.sequence = landed(outcome?)?;
                self.coordinator.cleared(&sets);
                self.forget_staged(worker, &sets);
            }
            Report::Published { checkpoint, sets } => {
                for (id, published) in sets.map_err(|error| self.not_published(error))? {
                    self.progress_published(&id.sink, &published.0);
                    self.staged.insert(id.clone(), published);
                    self.coordinator.may_clear(id);
                }
                crash::at("published-before-offsets");
                let done = self.coordinator.published(checkpoint);
                if done.checkpoints > 0 {
                    worker.backoff.reset();
                    self.shared.progress.checkpointed(done.checkpoints);
                    metrics::counter!("tidelock_checkpoints_total").increment(done.checkpoints);
                    worker.mirror.commit(done.offsets, self.sequence);
                }
            }
        }
        Ok(())
    }

    /// Sends the swap of the oldest fully prepared checkpoint, if the outcome
    /// of the one before it is known.
    fn send_next_swap(&mut self) {
        let Some(Prepared { checkpoint, mut advance, sets }) = self.coordinator.next_swap() else {
            return;
        };
        let swaps = self.shared.swaps.clone();
        let publisher = self.shared.publisher.clone();
        let report = self.report.clone();
        let incarnation = self.coordinator.incarnation();
        let settings = self.shared.settings.clone();
        self.tasks.spawn(async move {
            let _phase = crash::begin(Phase::Swap);
            if !sets.is_empty() {
                crash::at("staged-before-swap");
            }
            let outcome = async {
                for PreparedSet { id, partitions, files } in sets {
                    let files = file_away_patiently(&swaps, &id, files, &settings).await?;
                    advance.pending.push(PendingSet { id, partitions, files });
                }
                let pending = advance.pending.clone();
                if planted(Mutation::PublishBeforeSwap) {
                    for set in &pending {
                        publisher.publish(set).await?;
                    }
                }
                let outcome = swaps.send(incarnation, Change::Advance(advance)).await;
                Ok::<_, Error>((pending, outcome.map_err(|_| swap_loop_gone())?))
            }
            .await;
            let (pending, outcome) = match outcome {
                Ok((pending, outcome)) => (pending, Ok(outcome)),
                Err(error) => (Vec::new(), Err(error)),
            };
            let _ = report.send(Report::Swapped { checkpoint, pending, outcome });
        });
    }

    fn publish(&mut self, checkpoint: u64, pending: Vec<PendingSet>) {
        if !pending.is_empty() {
            crash::at("swapped-before-publish");
        }
        let publisher = self.shared.publisher.clone();
        let report = self.report.clone();
        self.tasks.spawn(async move {
            let _phase = crash::begin(Phase::Publish);
            let sets = async {
                let mut published = Vec::with_capacity(pending.len());
                for set in pending {
                    let files = publisher.publish(&set).await?;
                    published.push((set.id, (files, spilled(&set.files))));
                }
                Ok(published)
            }
            .await;
            let _ = report.send(Report::Published { checkpoint, sets });
        });
    }

    /// With no checkpoint under way that could do it: a swap that clears.
    pub(super) fn clear_when_idle(&mut self) {
        let sets = self.coordinator.clearable();
        if sets.is_empty() || self.clearing || !self.coordinator.is_idle() {
            return;
        }
        self.clearing = true;
        let report = self.report.clone();
        let change = Change::Clear(sets.clone());
        let outcome = self.shared.swaps.send(self.coordinator.incarnation(), change);
        self.tasks.spawn(async move {
            let _phase = crash::begin(Phase::Clear);
            let outcome = outcome.await.map_err(|_| swap_loop_gone());
            let _ = report.send(Report::Cleared { sets, outcome });
        });
    }

    /// Brings everything to its end: a checkpoint of what is open, publishing,
    /// the commit of offsets, and clearing.
    pub(super) async fn drain(
        &mut self,
        worker: &mut Worker,
        last: bool,
    ) -> std::result::Result<(), Failure> {
        let mut barrier = self.coordinator.has_uncommitted();
        loop {
            if barrier && self.coordinator.has_room() {
                self.barrier(last);
                barrier = false;
            }
            if !barrier && self.coordinator.is_idle() {
                if self.coordinator.clearable().is_empty() && !self.clearing {
                    break;
                }
                self.clear_when_idle();
            }
            tokio::select! {
                biased;
                Some(report) = self.sink_reports.recv() => self.on_sink(report)?,
                Some(report) = self.reports.recv() => self.on_report(worker, report)?,
                Some(joined) = self.tasks.join_next() => task_ended(joined)?,
            }
        }
        worker.mirror.flush().await;
        Ok(())
    }

    /// Ends the bounded run whose ends are all reached.
    pub(super) async fn end_run(&mut self, id: String) -> std::result::Result<(), Failure> {
        let change = Change::EndRun(id);
        let outcome = self.shared.swaps.send(self.coordinator.incarnation(), change).await;
        self.sequence = landed(outcome.map_err(|_| swap_loop_gone())?)?;
        Ok(())
    }

    /// Deletes the staged bytes of sets that the record no longer lists.
    fn forget_staged(&mut self, worker: &mut Worker, sets: &[SetId]) {
        let gone: Vec<_> =
            sets.iter().filter_map(|id| Some((id.clone(), self.staged.remove(id)?))).collect();
        if gone.is_empty() {
            return;
        }
        crash::at("cleared-before-deletion");
        let publisher = self.shared.publisher.clone();
        // The worker's and not this life's: they may outlive it.
        while worker.discards.try_join_next().is_some() {}
        worker.discards.spawn(async move {
            let _phase = crash::begin(Phase::Clear);
            for (id, (files, spilled)) in gone {
                publisher.discard(&id, &files, spilled).await;
            }
        });
    }

    pub(super) fn progress_published(&self, sink: &str, files: &[Committable]) {
        let rows = files.iter().map(|file| file.rows).sum();
        let bytes = files.iter().map(|file| file.bytes).sum();
        self.shared.progress.published(sink, files.len() as u64, rows, bytes);
    }
}

/// A task that panicked took its report along: the run ends like with an error.
pub(super) fn task_ended(
    joined: std::result::Result<(), JoinError>,
) -> std::result::Result<(), Failure> {
    match joined {
        Err(error) if error.is_panic() => {
            Err(Failure::Fatal(panicked(error.into_panic().as_ref())))
        }
        _ => Ok(()),
    }
}

/// The record's sequence, when the swap landed.
fn landed(outcome: SwapOutcome) -> std::result::Result<u64, Failure> {
    match outcome {
        SwapOutcome::Landed(record) => Ok(record.sequence),
        SwapOutcome::Refused(refusal) => Err(Failure::Restart(Error::new(
            tidelock_connector::ErrorKind::Fenced,
            format!("the checkpoint was refused: {refusal}"),
        ))),
        SwapOutcome::Failed(error) => Err(error.into()),
    }
}

async fn file_away_patiently(
    swaps: &crate::checkpoint::swap::Swaps,
    id: &SetId,
    files: Vec<Committable>,
    settings: &Settings,
) -> Result<Files> {
    let mut backoff = Backoff::new(settings.seed);
    loop {
        match file_away(swaps.store().as_ref(), id, files.clone(), settings.inline_bytes).await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "the list of files could not be written, trying again");
                backoff.wait().await;
            }
            outcome => return outcome,
        }
    }
}
