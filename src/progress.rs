//! Figures of a running pipeline, for a live view and for the closing report.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;

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
        *self.last_checkpoint.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some(Instant::now());
    }

    pub(crate) fn published(&self, sink: &str, files: u64, rows: u64, bytes: u64) {
        let mut sinks = self.sinks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sink = sinks.entry(sink.to_owned()).or_default();
        sink.files += files;
        sink.rows += rows;
        sink.bytes += bytes;
    }

    /// The figures now.
    pub fn report(&self) -> Report {
        let last = *self.last_checkpoint.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Report {
            records: self.records.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            offsets: self.offsets.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            restarts: self.restarts.load(Relaxed),
            sinks: self.sinks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
            elapsed: self.began.elapsed(),
            since_checkpoint: last.map(|at| at.elapsed()),
        }
    }
}
