//! Commits offsets to the source, in order, one at a time and beside
//! everything else. They are a mirror of the record for lag tools: a failure
//! is logged and tried again, for on a quiet topic no other commit may follow,
//! and never for a partition that was given up meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelock_connector::{CommittedOffset, OffsetCommitter, Offsets, TopicPartition};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::checkpoint::backoff::Backoff;
use crate::checkpoint::claim::Hint;
use crate::checkpoint::crash::{self, Phase};

enum Request {
    Commit { offsets: Offsets, sequence: u64 },
    Forget(Vec<TopicPartition>),
    Flush(oneshot::Sender<()>),
}

/// Commits offsets in a task of its own.
pub(super) struct Mirror {
    requests: mpsc::UnboundedSender<Request>,
    _task: JoinHandle<()>,
}

impl Mirror {
    /// Starts the task.
    pub(super) fn start(pipeline: Arc<str>, committer: Arc<dyn OffsetCommitter>) -> Self {
        let (requests, incoming) = mpsc::unbounded_channel();
        let task = Task {
            pipeline,
            committer,
            open: BTreeMap::new(),
            sequence: 0,
            backoff: Backoff::new(0),
            again: Instant::now(),
        };
        let task = tokio::spawn(task.run(incoming));
        Self { requests, _task: task }
    }

    /// Commits `offsets` some time soon; newer ones overtake older ones.
    pub(super) fn commit(&self, offsets: Offsets, sequence: u64) {
        let _ = self.requests.send(Request::Commit { offsets, sequence });
    }

    /// Tries no longer to commit anything of these partitions.
    pub(super) fn forget(&self, partitions: &[TopicPartition]) {
        let _ = self.requests.send(Request::Forget(partitions.to_vec()));
    }

    /// Returns when everything handed in so far was tried.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let _ = self.requests.send(Request::Flush(done));
        let _ = flushed.await;
    }
}

struct Task {
    pipeline: Arc<str>,
    committer: Arc<dyn OffsetCommitter>,
    /// Not acknowledged yet.
    open: Offsets,
    sequence: u64,
    backoff: Backoff,
    /// When what has failed is tried again.
    again: Instant,
}

impl Task {
    async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<Request>) {
        loop {
            let mut next = tokio::select! {
                biased;
                request = incoming.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
                () = tokio::time::sleep_until(self.again), if !self.open.is_empty() => None,
            };
            let mut waiting = Vec::new();
            while let Some(request) = next {
                match request {
                    Request::Commit { offsets, sequence } => {
                        self.open.extend(offsets);
                        self.sequence = self.sequence.max(sequence);
                    }
                    Request::Forget(partitions) => {
                        self.open.retain(|partition, _| !partitions.contains(partition));
                    }
                    Request::Flush(done) => waiting.push(done),
                }
                next = incoming.try_recv().ok();
            }
            if !self.open.is_empty() {
                self.commit().await;
            }
            for done in waiting {
                let _ = done.send(());
            }
        }
    }

    async fn commit(&mut self) {
        let sequence = self.sequence;
        let offsets = self
            .open
            .iter()
            .map(|(partition, offset)| {
                let hint = Hint { pipeline: &self.pipeline, sequence, offset: *offset }.to_string();
                (partition.clone(), CommittedOffset { offset: *offset, hint })
            })
            .collect();
        let _phase = crash::begin(Phase::Clear);
        match self.committer.commit(&offsets).await {
            Ok(()) => {
                crash::at("offsets-before-clear");
                metrics::counter!("tidelock_offset_commits_total").increment(1);
                self.open.clear();
                self.backoff.reset();
            }
            Err(error) => {
                metrics::counter!("tidelock_offset_commit_failures_total").increment(1);
                let wait = self.backoff.next_wait().max(Duration::from_millis(500));
                self.again = Instant::now() + wait;
                tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "offsets could not be committed to the source, trying again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tidelock_connector::{CommittedOffsets, Error, ErrorKind, Result, async_trait};

    use super::*;

    /// Fails so many times, and remembers everything it was asked for.
    struct Unwilling {
        failures: Mutex<u32>,
        asked: Mutex<Vec<Offsets>>,
    }

    #[async_trait]
    impl OffsetCommitter for Unwilling {
        async fn commit(&self, offsets: &CommittedOffsets) -> Result<()> {
            let asked = offsets.iter().map(|(p, c)| (p.clone(), c.offset)).collect();
            self.asked.lock().unwrap().push(asked);
            let mut failures = self.failures.lock().unwrap();
            if *failures == 0 {
                return Ok(());
            }
            *failures -= 1;
            Err(Error::new(ErrorKind::Unavailable, "the group is rebalancing").retryable(true))
        }
    }

    fn mirror(failures: u32) -> (Mirror, Arc<Unwilling>) {
        let failures = Mutex::new(failures);
        let committer = Arc::new(Unwilling { failures, asked: Mutex::default() });
        (Mirror::start("p".into(), Arc::clone(&committer) as _), committer)
    }

    fn at(partition: i32, offset: i64) -> Offsets {
        [(TopicPartition::new("t", partition), offset)].into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_commit_is_tried_again_although_no_other_follows() {
        let (mirror, committer) = mirror(2);
        mirror.commit(at(0, 7), 1);
        mirror.flush().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(*committer.asked.lock().unwrap(), [at(0, 7), at(0, 7), at(0, 7)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_was_given_up_is_not_committed_any_more() {
        let (mirror, committer) = mirror(1);
        mirror.commit(at(0, 7).into_iter().chain(at(1, 8)).collect(), 1);
        mirror.flush().await;
        mirror.forget(&[TopicPartition::new("t", 0)]);
        mirror.flush().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let asked = committer.asked.lock().unwrap();
        assert_eq!(asked[1..], [at(1, 8)]);
    }
}
