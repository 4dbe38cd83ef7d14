//! Metrics: to Prometheus where it asks for them, and to the live line.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    describe_counter, describe_gauge, describe_histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use tidelock_connector::{Error, ErrorKind, Result};

const LAG: &str = "tidelock_source_lag";
const OPEN_FILES: &str = "tidelock_sink_open_files";

static WATCHED: OnceLock<Arc<Watched>> = OnceLock::new();

/// Gauges that people see, too.
#[derive(Debug, Default)]
struct Watched(Mutex<HashMap<Key, Arc<AtomicU64>>>);

impl Watched {
    fn sum(&self, name: &str) -> Option<u64> {
        let gauges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values: Vec<f64> = gauges
            .iter()
            .filter(|(key, _)| key.name() == name)
            .map(|(_, value)| f64::from_bits(value.load(Relaxed)))
            .collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>().max(0.0) as u64)
    }
}

/// Messages that are not read yet, as far as the source knows.
pub(super) fn lag() -> Option<u64> {
    WATCHED.get()?.sum(LAG)
}

/// Files that are being written.
pub(super) fn open_files() -> Option<u64> {
    WATCHED.get()?.sum(OPEN_FILES)
}

/// Begins to record; at `address` Prometheus can fetch all of it.
///
/// # Errors
/// When the address is taken.
pub(super) fn install(address: Option<SocketAddr>) -> Result<()> {
    let prometheus = match address {
        None => None,
        Some(address) => {
            let (recorder, exporter) = PrometheusBuilder::new()
                .with_http_listener(address)
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
                .and_then(PrometheusBuilder::build)
                .map_err(|error| {
                    let message = "metrics cannot be served; choose another address";
                    Error::new(ErrorKind::Other, message).with("address", address).source(error)
                })?;
            tokio::spawn(exporter);
            tracing::info!(%address, "serving metrics");
            Some(recorder)
        }
    };
    let watched = Arc::new(Watched::default());
    let tap = Tap { watched: Arc::clone(&watched), prometheus };
    if metrics::set_global_recorder(tap).is_ok() {
        let _ = WATCHED.set(watched);
        describe();
    }
    Ok(())
}

/// Passes everything on and keeps an eye on some gauges.
struct Tap {
    watched: Arc<Watched>,
    prometheus: Option<PrometheusRecorder>,
}

impl Recorder for Tap {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        if let Some(prometheus) = &self.prometheus {
            prometheus.describe_counter(key, unit, description);
        }
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        if let Some(prometheus) = &self.prometheus {
            prometheus.describe_gauge(key, unit, description);
        }
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        if let Some(prometheus) = &self.prometheus {
            prometheus.describe_histogram(key, unit, description);
        }
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let prometheus = self.prometheus.as_ref();
        prometheus.map_or_else(Counter::noop, |inner| inner.register_counter(key, metadata))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let prometheus = self.prometheus.as_ref();
        let inner = prometheus.map_or_else(Gauge::noop, |it| it.register_gauge(key, metadata));
        if ![LAG, OPEN_FILES].contains(&key.name()) {
            return inner;
        }
        let mut gauges = self.watched.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = Arc::clone(gauges.entry(key.clone()).or_default());
        Gauge::from_arc(Arc::new(Both { own, inner }))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let prometheus = self.prometheus.as_ref();
        prometheus.map_or_else(Histogram::noop, |inner| inner.register_histogram(key, metadata))
    }
}

struct Both {
    own: Arc<AtomicU64>,
    inner: Gauge,
}

impl GaugeFn for Both {
    fn increment(&self, value: f64) {
        self.own.increment(value);
        self.inner.increment(value);
    }

    fn decrement(&self, value: f64) {
        self.own.decrement(value);
        self.inner.decrement(value);
    }

    fn set(&self, value: f64) {
        GaugeFn::set(&*self.own, value);
        self.inner.set(value);
    }
}

const COUNTERS: &[(&str, Unit, &str)] = &[
    ("tidelock_retries_total", Unit::Count, "calls that were made again, by operation"),
    ("tidelock_revocations_total", Unit::Count, "times that partitions were taken away"),
    ("tidelock_restarts_total", Unit::Count, "times that a worker went back to its checkpoint"),
    ("tidelock_sink_failures_total", Unit::Count, "writes and prepares that failed"),
    ("tidelock_checkpoints_total", Unit::Count, "checkpoints that are visible"),
    ("tidelock_claims_refused_total", Unit::Count, "claims that another worker was faster with"),
    (
        "tidelock_lost_sets_replayed_total",
        Unit::Count,
        "lost checkpoints whose offsets were read again",
    ),
    ("tidelock_offset_commits_total", Unit::Count, "commits of offsets to the source"),
    ("tidelock_offset_commit_failures_total", Unit::Count, "commits of offsets that failed"),
    ("tidelock_swap_conflicts_total", Unit::Count, "writes of the record that came too late"),
    ("tidelock_source_records_total", Unit::Count, "records read, by topic and partition"),
    ("tidelock_source_bytes_total", Unit::Bytes, "bytes of keys and values read"),
    ("tidelock_source_pauses_total", Unit::Count, "times that a partition's queue was full"),
    (
        "tidelock_source_starved_milliseconds_total",
        Unit::Milliseconds,
        "time that data waited for its turn beyond poll_interval",
    ),
    (
        "tidelock_source_refetched_bytes_total",
        Unit::Bytes,
        "bytes thrown away and fetched again, estimated",
    ),
    (
        "tidelock_source_moves_total",
        Unit::Count,
        "times that a partition moved between the reader's clients",
    ),
    ("tidelock_source_rebalances_total", Unit::Count, "times that the group shared out anew"),
    ("tidelock_source_errors_total", Unit::Count, "errors of the broker's client, by code"),
    ("tidelock_source_bad_records_total", Unit::Count, "records that did not decode"),
    ("tidelock_sink_rows_total", Unit::Count, "rows written, visible or not"),
    ("tidelock_sink_files_total", Unit::Count, "files closed, visible or not"),
    ("tidelock_sink_bytes_total", Unit::Bytes, "bytes of the files closed"),
    ("tidelock_sink_parts_uploaded_total", Unit::Count, "parts of files sent to the store"),
];

const GAUGES: &[(&str, Unit, &str)] = &[
    ("tidelock_source_assigned_partitions", Unit::Count, "partitions that a worker owns"),
    ("tidelock_source_channel_bytes", Unit::Bytes, "rows that are decoded and wait"),
    ("tidelock_source_waiting_messages", Unit::Count, "messages fetched and not served"),
    (
        "tidelock_source_oldest_waiting_seconds",
        Unit::Seconds,
        "how long the oldest fetched message of a partition has waited, at least",
    ),
    (
        "tidelock_source_longest_wait_seconds",
        Unit::Seconds,
        "the longest time between two turns of a partition with data, in the last second",
    ),
    ("tidelock_source_share", Unit::Count, "a partition's part of the bytes of the last second"),
    (
        "tidelock_source_fairness_index",
        Unit::Count,
        "Jain's index of the bytes per weight of partitions with waiting data, by worker",
    ),
    (LAG, Unit::Count, "messages between the position and the end of the partition"),
    (OPEN_FILES, Unit::Count, "files that are being written"),
];

const HISTOGRAMS: &[(&str, Unit, &str)] = &[
    ("tidelock_swap_merged", Unit::Count, "transitions that one write of the record carried"),
    (
        "tidelock_swap_seconds",
        Unit::Seconds,
        "how long a transition waited until it was in the record, retries included",
    ),
];

/// Buckets, for they add up over processes and quantiles do not.
const SECONDS: &[f64] = &[
    0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0,
    20.0, 30.0, 60.0,
];

fn describe() {
    for (name, unit, text) in COUNTERS {
        describe_counter!(*name, *unit, *text);
    }
    for (name, unit, text) in GAUGES {
        describe_gauge!(*name, *unit, *text);
    }
    for (name, unit, text) in HISTOGRAMS {
        describe_histogram!(*name, *unit, *text);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn rust_files(folder: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                rust_files(&path, out);
            } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with(file!()) {
                out.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_metric_is_described_and_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        let folders = ["src", "connectors/kafka/src", "sinks/file/src", "sinks/store/src"];
        for folder in folders {
            rust_files(&root.join(folder), &mut files);
        }
        let literals = files.iter().flat_map(|file| file.split("\"tidelock_").skip(1));
        let used: BTreeSet<String> = literals
            .filter_map(|rest| Some(format!("tidelock_{}", rest.split_once('"')?.0)))
            .collect();
        let described: BTreeSet<String> = [COUNTERS, GAUGES, HISTOGRAMS]
            .into_iter()
            .flatten()
            .map(|(name, ..)| (*name).to_owned())
            .collect();
        assert_eq!(used, described);
        assert!(COUNTERS.iter().all(|(name, ..)| name.ends_with("_total")));
    }

    #[test]
    fn watched_gauges_are_summed_over_their_labels() {
        let watched = Arc::new(Watched::default());
        let tap = Tap { watched: Arc::clone(&watched), prometheus: None };
        metrics::with_local_recorder(&tap, || {
            metrics::gauge!("tidelock_source_lag", "partition" => "0").set(5.0);
            metrics::gauge!("tidelock_source_lag", "partition" => "1").set(7.0);
            metrics::gauge!("tidelock_source_lag", "partition" => "0").set(1.0);
            metrics::gauge!("tidelock_source_channel_bytes").set(1.0);
        });
        assert_eq!(watched.sum(LAG), Some(8));
        assert_eq!(watched.sum(OPEN_FILES), None);
    }
}
