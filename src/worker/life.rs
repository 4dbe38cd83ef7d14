//! One life of a worker: the loop between the reader and the sinks.
//!
//! The loop never waits for a checkpoint: staging, swapping, publishing and
//! committing run in tasks that report back. It stops reading only when a
//! checkpoint is due while two are under way, when a sink's queue is full, and
//! at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidelock_connector::{
    AssignedPartition, Batch, Committable, Coverage, Error, ErrorKind, Event, Revocation,
    SinkContext, Stream, TopicPartition,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::checkpoints::{Report, task_ended};
use super::sinks::{SinkHandle, SinkReport};
use super::{Ended, Failure, Shared, Worker};
use crate::checkpoint::backoff::Backoff;
use crate::checkpoint::coordinator::Coordinator;
use crate::checkpoint::crash;
use crate::checkpoint::mutation::{Mutation, planted};
use crate::checkpoint::record::SetId;

/// How long an idle worker waits before it looks at the record for the end of
/// a bounded run.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Nothing has to come for so long, or for an interval if that is shorter, until
/// the record is written only to clear it: while rows flow the next checkpoint
/// does that on its way.
const QUIET: Duration = Duration::from_secs(10);

/// The longest pause of reading after an error.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// A set that was seen published: its committables and, if they were filed
/// away, the object that lists them.
pub(super) type Published = (Vec<Committable>, Option<String>);

pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    pub(super) coordinator: Coordinator,
    pub(super) sinks: Vec<SinkHandle>,
    pub(super) sink_reports: mpsc::UnboundedReceiver<SinkReport>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    pub(super) report: mpsc::UnboundedSender<Report>,
    /// Swaps and publishes under way; they end with this life, and whoever
    /// claims next finishes the job.
    pub(super) tasks: JoinSet<()>,
    /// Staged bytes to delete when the record has forgotten their set.
    pub(super) staged: BTreeMap<SetId, Published>,
    pub(super) clearing: bool,
    /// The sequence of the newest record that we have seen.
    pub(super) sequence: u64,
    /// Where a bounded run ends.
    pub(super) ends: BTreeMap<TopicPartition, i64>,
    /// When the last checkpoint began, or this life.
    begun: Instant,
    /// When the next checkpoint is due; set by the first row after a barrier.
    due: Option<Instant>,
    open_bytes: usize,
    /// How long reading pauses after an error, and until when it does.
    reading: Backoff,
    read_again: Option<Instant>,
    /// Streams before and after the transforms.
    streams: Vec<(Arc<Stream>, Arc<Stream>)>,
    /// What is read before it was claimed, if that bug is planted.
    pub(super) late: Vec<AssignedPartition>,
    saw_run: bool,
    /// When to look after idle things.
    look: Instant,
}

impl Life {
    /// Lives until there is a reason not to.
    pub(super) async fn live(worker: &mut Worker) -> Result<Ended, Failure> {
        let mut life = Self::begin(worker).await?;
        let result = life.start_and_loop(worker).await;
        life.end().await;
        result
    }

    async fn begin(worker: &mut Worker) -> Result<Self, Failure> {
        let shared = Arc::clone(&worker.shared);
        let incarnation = shared.lives.next();
        let routes = shared.sinks.iter().map(|(route, _)| route.clone()).collect();
        let coordinator = Coordinator::new(incarnation, routes);
        let (sink_report, sink_reports) = mpsc::unbounded_channel();
        let (report, reports) = mpsc::unbounded_channel();
        let share = shared.settings.memory / shared.settings.workers / shared.sinks.len() / 3;
        let mut sinks = Vec::with_capacity(shared.sinks.len());
        for (route, sink) in &shared.sinks {
            let ctx = SinkContext::new(
                Arc::clone(&shared.pipeline),
                Arc::clone(&route.name),
                incarnation,
                share,
            )
            .with_checkpoint(coordinator.next_checkpoint());
            let writer = sink.open(ctx).await?;
            let name = Arc::clone(&route.name);
            sinks.push(SinkHandle::start(name, writer, share, sink_report.clone()));
        }
        Ok(Self {
            shared,
            coordinator,
            sinks,
            sink_reports,
            reports,
            report,
            tasks: JoinSet::new(),
            staged: BTreeMap::new(),
            clearing: false,
            sequence: 0,
            ends: BTreeMap::new(),
            begun: Instant::now(),
            due: None,
            open_bytes: 0,
            reading: Backoff::new(worker.shared.settings.seed).cap(READ_PAUSE),
            read_again: None,
            streams: Vec::new(),
            late: Vec::new(),
            saw_run: false,
            look: Instant::now() + LOOK_AGAIN,
        })
    }

    async fn start_and_loop(&mut self, worker: &mut Worker) -> Result<Ended, Failure> {
        let assigned: Vec<_> = worker.assigned.values().cloned().collect();
        let starts = self.claim(worker, assigned).await?;
        worker.go_to(starts).await?;
        worker.collect_orphans();
        self.main_loop(worker).await
    }

    async fn end(mut self) {
        self.tasks.abort_all();
        if planted(Mutation::DiscardAfterAmbiguous) {
            for set in self.coordinator.unknown() {
                self.shared.publisher.discard(&set.id, &set.files, None).await;
            }
        }
        for sink in self.sinks {
            sink.discard().await;
        }
    }

    async fn main_loop(&mut self, worker: &mut Worker) -> Result<Ended, Failure> {
        let shared = Arc::clone(&self.shared);
        loop {
            if self.look <= Instant::now() {
                self.look = Instant::now() + LOOK_AGAIN;
                if self.is_quiet() {
                    self.clear_when_idle();
                }
                if self.bounded_run_is_over(worker.index).await? {
                    self.finish(worker).await?;
                    return Ok(Ended::Finished);
                }
            }
            if self.is_due() && self.coordinator.has_room() {
                self.barrier(false);
                if planted(Mutation::CommitBeforeSwap) {
                    worker.mirror.commit(self.coordinator.positions(), self.sequence);
                }
            }
            // Due while two are under way: reading waits.
            let overdue = self.is_due();
            let waits = self.read_again.filter(|at| *at > Instant::now());
            let due = self.due.filter(|_| !overdue);
            let wake = due.into_iter().chain(waits).fold(self.look, Instant::min);
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => {
                    self.finish(worker).await?;
                    return Ok(Ended::Finished);
                }
                Some(report) = self.sink_reports.recv() => self.on_sink(report)?,
                Some(report) = self.reports.recv() => self.on_report(worker, report)?,
                event = worker.reader.next(), if !overdue && waits.is_none() => {
                    if let Some(ended) = self.on_event(worker, event).await? {
                        return Ok(ended);
                    }
                }
                Some(joined) = self.tasks.join_next() => task_ended(joined)?,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Whether no checkpoint will come soon that could clear the record.
    fn is_quiet(&self) -> bool {
        let enough = QUIET.min(self.shared.settings.interval);
        self.due.is_none() && (self.begun.elapsed() >= enough || self.has_read_it_all())
    }

    /// Whether the run is bounded, and here it is at its end.
    fn has_read_it_all(&self) -> bool {
        !self.ends.is_empty() && self.is_at_ends()
    }

    fn is_due(&self) -> bool {
        self.open_bytes >= self.shared.settings.bytes
            || self.due.is_some_and(|due| due <= Instant::now())
    }

    async fn on_event(
        &mut self,
        worker: &mut Worker,
        event: tidelock_connector::Result<Event>,
    ) -> Result<Option<Ended>, Failure> {
        self.read_again = None;
        if event.is_ok() {
            self.reading.reset();
        }
        match event {
            Ok(Event::Batch(batch)) => self.on_batch(worker, batch).await?,
            Ok(Event::Covered(coverage)) => self.on_covered(&coverage)?,
            Ok(Event::Assigned(assignment)) => {
                worker.identity = assignment.identity.clone();
                let ours =
                    |a: &AssignedPartition| self.coordinator.position(&a.partition).is_some();
                if assignment.partitions.iter().any(ours) {
                    worker.note(assignment);
                    return Err(Failure::Restart(Error::new(
                        ErrorKind::Fenced,
                        "a partition of ours was assigned to us anew",
                    )));
                }
                for assigned in &assignment.partitions {
                    worker.assigned.insert(assigned.partition.clone(), assigned.clone());
                }
                if planted(Mutation::ReadBeforeClaim) {
                    self.read_before_claim(assignment).await?;
                } else {
                    let starts = self.claim(worker, assignment.partitions).await?;
                    let _ = assignment.reply.send(starts);
                }
            }
            Ok(Event::Revoking(revocation)) => return self.on_revoking(worker, revocation).await,
            Ok(Event::Idle) => {}
            Ok(Event::End) => {
                self.finish(worker).await?;
                return Ok(Some(Ended::Finished));
            }
            Err(error) if error.is_retryable() => {
                metrics::counter!("tidelock_retries_total", "operation" => "read").increment(1);
                tracing::warn!(%error, "reading failed, trying again");
                // Everything else goes on meanwhile, and not for long: what
                // comes next may be the news that all is well again.
                self.read_again = Some(Instant::now() + self.reading.next_wait());
                return Ok(None);
            }
            Err(error) => {
                // Nothing before it is lost: one more checkpoint, then the end.
                if let Err(failure) = self.finish(worker).await {
                    tracing::error!(?failure, "the last checkpoint before the error failed");
                }
                return Err(Failure::Fatal(error));
            }
        }
        Ok(None)
    }

    fn on_covered(&mut self, coverage: &Coverage) -> Result<(), Failure> {
        self.coordinator.covered(coverage)?;
        self.shared.progress.covered(coverage.len());
        if self.coordinator.has_uncommitted() && self.due.is_none() {
            self.due = Some(Instant::now() + self.shared.settings.interval);
        }
        // A bounded run waits for nobody once its ends are read.
        if self.has_read_it_all() {
            self.due = Some(Instant::now());
        }
        Ok(())
    }

    async fn on_batch(&mut self, worker: &mut Worker, batch: Batch) -> Result<(), Failure> {
        let late = std::mem::take(&mut self.late);
        self.claim(worker, late).await?;
        let rows_in = batch.num_rows() as u64;
        self.shared.progress.read(rows_in, batch.rejected.len() as u64);
        let batch = self.transform(worker, batch)?;
        self.open_bytes += batch.memory_size();
        let topics: BTreeSet<Arc<str>> =
            batch.coverage.partitions().map(|partition| Arc::clone(&partition.topic)).collect();
        let coverage = batch.coverage.clone();
        let mut targets = Vec::with_capacity(self.sinks.len());
        for (index, (route, _)) in self.shared.sinks.iter().enumerate() {
            let taken = topics.iter().filter(|topic| route.takes(topic)).count();
            if taken != 0 && taken != topics.len() {
                return Err(Failure::Fatal(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "sink {:?} takes only some of the topics of one batch; a source of routed sinks must not mix topics",
                        route.name
                    ),
                )));
            }
            if taken != 0 {
                targets.push(index);
            }
        }
        self.on_covered(&coverage)?;
        let rows = batch.num_rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        for index in targets {
            let sink = &self.sinks[index];
            self.coordinator.wrote(sink.name(), rows);
            sink.write(batch.clone()).await;
        }
        Ok(())
    }

    /// Runs the transforms; the output stream changes only with the schema.
    fn transform(&mut self, worker: &mut Worker, mut batch: Batch) -> Result<Batch, Failure> {
        if worker.transforms.is_empty() {
            return Ok(batch);
        }
        for transform in &mut worker.transforms {
            batch.records = transform.apply(batch.records).map_err(Failure::Fatal)?;
        }
        let schema = batch.records.schema();
        let known = self
            .streams
            .iter()
            .find(|(before, after)| Arc::ptr_eq(before, &batch.stream) && after.schema == schema);
        batch.stream = match known {
            Some((_, after)) => Arc::clone(after),
            None => {
                let version = self
                    .streams
                    .iter()
                    .filter(|(_, after)| after.name == batch.stream.name)
                    .count() as u32;
                let name = Arc::clone(&batch.stream.name);
                let after = Arc::new(Stream { name, version, schema });
                self.streams.push((Arc::clone(&batch.stream), Arc::clone(&after)));
                after
            }
        };
        Ok(batch)
    }

    /// Sends barrier *k* into every sink's queue.
    pub(super) fn barrier(&mut self, last: bool) {
        self.begun = Instant::now();
        self.due = None;
        self.open_bytes = 0;
        let barriers = self.coordinator.barrier(last);
        tracing::debug!(checkpoint = self.coordinator.next_checkpoint() - 1, last, "barrier");
        for (sink, (_, barrier)) in self.sinks.iter().zip(barriers) {
            sink.barrier(barrier);
        }
    }

    /// The last checkpoint of this life.
    async fn finish(&mut self, worker: &mut Worker) -> Result<(), Failure> {
        self.drain(worker, true).await?;
        Ok(())
    }

    async fn on_revoking(
        &mut self,
        worker: &mut Worker,
        revocation: Revocation,
    ) -> Result<Option<Ended>, Failure> {
        let Revocation { partitions, lost, deadline, done } = revocation;
        metrics::counter!("tidelock_revocations_total", "lost" => lost.to_string()).increment(1);
        tracing::info!(partitions = partitions.len(), lost, "partitions are revoked");
        let forget = |worker: &mut Worker| worker.give_up(&partitions);
        let touched = partitions.iter().any(|p| self.coordinator.position(p).is_some());
        if lost {
            forget(worker);
            let _ = done.send(());
            if !touched {
                return Ok(None);
            }
            return Err(Failure::Restart(Error::new(
                ErrorKind::Fenced,
                "the group has given our partitions to somebody else",
            )));
        }
        if touched {
            crash::at("revoking-before-checkpoint");
        }
        let result = if touched {
            tokio::time::timeout_at(Instant::from_std(deadline), self.drain(worker, false)).await
        } else {
            Ok(Ok(()))
        };
        if touched {
            crash::at("revoked-before-answer");
        }
        forget(worker);
        self.coordinator.disown(&partitions);
        self.ends.retain(|partition, _| !partitions.contains(partition));
        let _ = done.send(());
        match result {
            Ok(Ok(())) => {
                // The record forgets it now, and may never hear of it again.
                let empty = touched && self.coordinator.owned().next().is_none();
                let ends = empty && !planted(Mutation::ForgottenClaims);
                Ok(ends.then_some(Ended::Empty))
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Restart(Error::new(
                ErrorKind::Unavailable,
                "the last checkpoint before a revocation took too long",
            ))),
        }
    }

    fn is_at_ends(&self) -> bool {
        self.coordinator.owned().all(|partition| {
            let end = self.ends.get(partition).copied().unwrap_or(i64::MAX);
            self.coordinator.position(partition).is_some_and(|position| position >= end)
        })
    }

    /// Whether the bounded run, if this is one, is over for everybody.
    async fn bounded_run_is_over(&mut self, worker: usize) -> Result<bool, Failure> {
        if self.shared.run.is_none()
            || !self.coordinator.is_idle()
            || self.coordinator.has_uncommitted()
            || !self.is_at_ends()
        {
            self.shared.progress.busy(worker);
            return Ok(false);
        }
        let record = match self.shared.swaps.read().await {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(%error, "the record cannot be read");
                return Ok(false);
            }
        };
        self.saw_run |= record.run.is_some();
        if !self.saw_run || !record.run_is_done() {
            // Ours are read, and the record knows it.
            let held = record.unread(&self.shared.ends).cloned().collect();
            self.shared.progress.waits_for(worker, held);
            return Ok(false);
        }
        if let Some(run) = record.run {
            self.end_run(run.id).await?;
        }
        // Every worker of this process is done.
        self.shared.stop.cancel();
        Ok(true)
    }
}
