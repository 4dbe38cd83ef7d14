//! Figures of a running pipeline, for a live view and for the closing report.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tidelock_connector::TopicPartition;

/// For so long every worker must have nothing left to read until that is worth a
/// word: others may be about to finish, or the group about to share out.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// Counts what a pipeline does; shared by all its workers.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    records: AtomicU64,
    rejected: AtomicU64,
    offsets: AtomicU64,
    checkpoints: AtomicU64,
    restarts: AtomicU64,
    sinks: Mutex<BTreeMap<String, SinkProgress>>,
    last_checkpoint: Mutex<Option<Instant>>,
    /// Per worker: since when a bounded run has left it nothing to read, and
    /// what is left elsewhere. None while it has something.
    waiting: Mutex<BTreeMap<usize, Option<Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    held: Vec<TopicPartition>,
}

/// What one sink has made visible.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SinkProgress {
    /// Files, or whatever the sink's committables are.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A pipeline's figures at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Records read, counted again when they are read again.
    pub records: u64,
    /// Records that could not be decoded and were skipped.
    pub rejected: u64,
    /// Offsets covered, holes included.
    pub offsets: u64,
    /// Checkpoints done.
    pub checkpoints: u64,
    /// How often a worker started over from its last checkpoint.
    pub restarts: u64,
    /// What each sink has made visible.
    pub sinks: BTreeMap<String, SinkProgress>,
    /// How long the pipeline has been running.
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
    /// How long ago the last checkpoint was done.
    #[serde(serialize_with = "maybe_seconds")]
    pub since_checkpoint: Option<Duration>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(duration.as_secs_f64())
}

fn maybe_seconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    s: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(s)
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            records: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            offsets: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            sinks: Mutex::new(BTreeMap::new()),
            last_checkpoint: Mutex::new(None),
            waiting: Mutex::new(BTreeMap::new()),
        }
    }

    pub(crate) fn read(&self, records: u64, rejected: u64) {
        self.records.fetch_add(records, Relaxed);
        self.rejected.fetch_add(rejected, Relaxed);
    }

    pub(crate) fn covered(&self, offsets: u64) {
        self.offsets.fetch_add(offsets, Relaxed);
    }

    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    pub(crate) fn checkpointed(&self, checkpoints: u64) {
        self.checkpoints.fetch_add(checkpoints, Relaxed);
        *self.last_checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn published(&self, sink: &str, files: u64, rows: u64, bytes: u64) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let sink = sinks.entry(sink.to_owned()).or_default();
        sink.files += files;
        sink.rows += rows;
        sink.bytes += bytes;
    }

    /// A worker has something to read.
    pub(crate) fn busy(&self, worker: usize) {
        self.waiting().insert(worker, None);
    }

    /// A worker of a bounded run has read all that it owns; the rest is `held`, by
    /// others unless another worker of this process is busy.
    pub(crate) fn waits_for(&self, worker: usize, held: Vec<TopicPartition>) {
        let mut waiting = self.waiting();
        let before = waiting.entry(worker).or_default();
        let since = before.as_ref().map_or_else(Instant::now, |before| before.since);
        *before = Some(Waiting { since, held });
    }

    /// The partitions that keep a bounded run from ending and that no worker of
    /// this process owns: other members of the group have them, or dead ones that
    /// the group has not missed yet. Empty while a worker here has something to
    /// read, and in the first five seconds after that.
    pub fn held_by_others(&self) -> Vec<TopicPartition> {
        self.held_by_others_at(Instant::now())
    }

    fn held_by_others_at(&self, now: Instant) -> Vec<TopicPartition> {
        let waiting = self.waiting();
        let is_long = |one: &Waiting| now.duration_since(one.since) >= LONG_WAIT;
        if !waiting.values().all(|one| one.as_ref().is_some_and(is_long)) {
            return Vec::new();
        }
        // They have all looked into the record just now.
        waiting.values().flatten().next().map_or_else(Vec::new, |one| one.held.clone())
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<usize, Option<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures now.
    pub fn report(&self) -> Report {
        let last = *self.last_checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            records: self.records.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            offsets: self.offsets.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            restarts: self.restarts.load(Relaxed),
            sinks: self.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            elapsed: self.began.elapsed(),
            since_checkpoint: last.map(|at| at.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_waits_when_all_its_workers_do() {
        let progress = Progress::new();
        let tp = |number| TopicPartition::new("t", number);
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(progress.held_by_others_at(later(60)), []);
        progress.waits_for(0, vec![tp(2), tp(3)]);
        progress.busy(1);
        assert_eq!(progress.held_by_others_at(later(60)), [], "the other one reads");
        progress.waits_for(0, vec![tp(3)]);
        progress.waits_for(1, vec![tp(3)]);
        assert_eq!(progress.held_by_others_at(later(4)), [], "not at once");
        assert_eq!(progress.held_by_others_at(later(6)), [tp(3)]);
        progress.busy(1);
        assert_eq!(progress.held_by_others_at(later(60)), []);
    }
}
