//! What the file says beside source and sinks.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tidelock_store::StorageOptions;

use super::de::from_text;
use crate::checkpoint::claim::OnExternalReset;
use crate::pipeline::defaults;

/// The top level; `source` and `sink` are looked after elsewhere.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Root {
    pub(super) name: String,
    #[serde(default)]
    pub(super) guarantee: Promise,
    #[serde(default)]
    pub(super) checkpoint: CheckpointConfig,
    #[serde(default)]
    pub(super) runtime: RuntimeConfig,
}

/// What the pipeline promises, `guarantee`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// Every record is visible exactly once, by way of the pipeline's record.
    #[default]
    ExactlyOnce,
    /// No record is lost; after a crash some are written again. No record is
    /// kept, so that any store will do.
    AtLeastOnce,
}

/// `[checkpoint]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct CheckpointConfig {
    /// How long rows wait at most until they are visible.
    #[serde(deserialize_with = "interval")]
    pub interval: Duration,
    /// How many bytes of rows make a checkpoint due earlier.
    #[serde(deserialize_with = "size")]
    pub bytes: usize,
    /// Where the pipeline's record lives; with the only file sink's files
    /// unless it is given.
    pub state: Option<String>,
    /// How to reach that store.
    pub storage: Option<StorageOptions>,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            interval: defaults::CHECKPOINT_INTERVAL,
            bytes: defaults::CHECKPOINT_BYTES,
            state: None,
            storage: None,
        }
    }
}

/// `[runtime]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
    /// How many members of the consumer group this process is.
    pub workers: NonZeroUsize,
    /// Bytes for buffers, queues and open files of all workers together.
    #[serde(deserialize_with = "size")]
    pub memory: usize,
    /// How often a worker may start over without a checkpoint in between.
    pub retry_limit: Option<u32>,
    /// What to do when somebody else has moved the committed offsets.
    pub on_external_reset: OnExternalReset,
    /// Where Prometheus can fetch metrics.
    #[serde(deserialize_with = "address")]
    pub metrics: Option<SocketAddr>,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            workers: NonZeroUsize::MIN,
            memory: defaults::MEMORY,
            retry_limit: None,
            on_external_reset: OnExternalReset::default(),
            metrics: None,
        }
    }
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    from_text(deserializer, |text| match humantime::parse_duration(text) {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        _ => Err(format!("{text:?} is not a duration; write \"10s\", \"500ms\" or \"5m\"")),
    })
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    from_text(deserializer, |text| {
        let wrong = || format!("{text:?} is not a size; write \"128MiB\" or \"1GB\"");
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim() {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        let bytes = number.parse().ok().and_then(|number: usize| number.checked_mul(factor));
        bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong)
    })
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let parse = |text: &str| {
        text.parse()
            .map(Some)
            .map_err(|_| format!("{text:?} is not an address; write \"127.0.0.1:9464\""))
    };
    from_text(deserializer, parse)
}
