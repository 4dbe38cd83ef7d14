//! Commits offsets to the source, in order, one at a time and beside
//! everything else. They are a mirror of the record for lag tools: a failure
//! is logged, and the next commit repairs it.

use std::sync::Arc;

use tidelock_connector::{CommittedOffset, OffsetCommitter, Offsets};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::checkpoint::claim::Hint;
use crate::checkpoint::crash::{self, Phase};

struct Request {
    offsets: Offsets,
    sequence: u64,
    done: Option<oneshot::Sender<()>>,
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
        let task = tokio::spawn(run(pipeline, committer, incoming));
        Self { requests, _task: task }
    }

    /// Commits `offsets` some time soon; newer ones overtake older ones.
    pub(super) fn commit(&self, offsets: Offsets, sequence: u64) {
        let _ = self.requests.send(Request { offsets, sequence, done: None });
    }

    /// Returns when everything handed in so far was tried.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let empty = Request { offsets: Offsets::new(), sequence: 0, done: Some(done) };
        let _ = self.requests.send(empty);
        let _ = flushed.await;
    }
}

async fn run(
    pipeline: Arc<str>,
    committer: Arc<dyn OffsetCommitter>,
    mut incoming: mpsc::UnboundedReceiver<Request>,
) {
    while let Some(first) = incoming.recv().await {
        let mut offsets = first.offsets;
        let mut sequence = first.sequence;
        let mut waiting: Vec<_> = first.done.into_iter().collect();
        while let Ok(more) = incoming.try_recv() {
            offsets.extend(more.offsets);
            sequence = sequence.max(more.sequence);
            waiting.extend(more.done);
        }
        if !offsets.is_empty() {
            let offsets = offsets
                .into_iter()
                .map(|(partition, offset)| {
                    let hint = Hint { pipeline: &pipeline, sequence, offset }.to_string();
                    (partition, CommittedOffset { offset, hint })
                })
                .collect();
            let _phase = crash::begin(Phase::Clear);
            match committer.commit(&offsets).await {
                Ok(()) => {
                    crash::at("offsets-before-clear");
                    metrics::counter!("tidelock_offset_commits_total").increment(1);
                }
                Err(error) => {
                    metrics::counter!("tidelock_offset_commit_failures_total").increment(1);
                    tracing::warn!(%error, "offsets could not be committed to the source; the next checkpoint tries again");
                }
            }
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}
