//! What people write under `[source]`.
//!
//! The struct is the factory: [`KafkaConfig`] is what the TOML file says, key
//! by key, and [`KafkaSource::new`](crate::KafkaSource::new) takes it. Nothing
//! here talks to a broker.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use tidelock_connector::{Error, Result};
use tidelock_json::ColumnSpec;

use crate::security::{Security, is_secret};
use crate::values;

/// The `[source]` table of a pipeline, apart from its `type`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// The brokers to begin with, `host:port`; a list, or one string with commas.
    #[serde(deserialize_with = "values::brokers")]
    pub brokers: Vec<String>,
    /// The consumer group; the pipeline's name unless it is given.
    #[serde(default)]
    pub group_id: Option<String>,
    /// The topics. One that begins with `^` is a regular expression.
    pub topics: Vec<String>,
    /// Where to begin when neither the pipeline's record nor the group has an offset.
    #[serde(default)]
    pub start: StartAt,
    /// How a message becomes a row.
    pub format: FormatConfig,
    /// What happens to a message that does not decode.
    #[serde(default)]
    pub on_bad_record: OnBadRecord,
    /// Which of a message's coordinates become columns; `_partition`,
    /// `_offset` and `_timestamp` unless said, all of them in raw format.
    #[serde(default)]
    pub coordinates: Option<Vec<Coordinate>>,
    /// TLS and SASL.
    #[serde(default)]
    pub security: Option<Security>,
    /// Static membership: a name that this member keeps over restarts. Workers
    /// behind the first one add their number to it.
    #[serde(default)]
    pub group_instance_id: Option<String>,
    /// How the group shares out the partitions.
    #[serde(default)]
    pub assignor: Assignor,
    /// How long the group waits for a silent member.
    #[serde(default = "defaults::session_timeout", deserialize_with = "values::duration")]
    pub session_timeout: Duration,
    /// How long the group waits for a member to give up partitions. A third of
    /// it, 30 s at most, is what the last checkpoint before a rebalance gets.
    #[serde(default = "defaults::max_poll_interval", deserialize_with = "values::duration")]
    pub max_poll_interval: Duration,
    /// Whether messages of open and aborted transactions are read.
    #[serde(default)]
    pub isolation: Isolation,
    /// How long the reader waits when nothing is there, and how old a batch
    /// gets that does not fill. While there is work it never waits.
    #[serde(default = "defaults::poll_interval", deserialize_with = "values::duration")]
    pub poll_interval: Duration,
    /// Rows that are taken from one partition per turn.
    #[serde(default = "defaults::max_poll_records")]
    pub max_poll_records: usize,
    /// How much may wait of one partition before it is no longer fetched; a
    /// number of messages, or bytes ("4MiB"). The memory budget sets a bound of
    /// its own.
    #[serde(default)]
    pub partition_pause_threshold: Option<Threshold>,
    /// The share of a topic against the others, 1 unless it is given.
    #[serde(default)]
    pub weights: BTreeMap<String, u32>,
    /// Settings that are passed through to librdkafka as they are.
    #[serde(default)]
    pub librdkafka: BTreeMap<String, String>,
}

/// What a new source is, until it is told otherwise.
mod defaults {
    use std::time::Duration;

    pub(super) fn session_timeout() -> Duration {
        Duration::from_secs(45)
    }

    pub(super) fn max_poll_interval() -> Duration {
        Duration::from_secs(300)
    }

    pub(super) fn poll_interval() -> Duration {
        Duration::from_millis(50)
    }

    pub(super) fn max_poll_records() -> usize {
        500
    }
}

impl KafkaConfig {
    /// What a TOML file with nothing but these keys says.
    pub fn new(brokers: &str, topics: Vec<String>, format: FormatConfig) -> Self {
        Self {
            brokers: values::split_brokers(brokers),
            group_id: None,
            topics,
            start: StartAt::default(),
            format,
            on_bad_record: OnBadRecord::default(),
            coordinates: None,
            security: None,
            group_instance_id: None,
            assignor: Assignor::default(),
            session_timeout: defaults::session_timeout(),
            max_poll_interval: defaults::max_poll_interval(),
            isolation: Isolation::default(),
            poll_interval: defaults::poll_interval(),
            max_poll_records: defaults::max_poll_records(),
            partition_pause_threshold: None,
            weights: BTreeMap::new(),
            librdkafka: BTreeMap::new(),
        }
    }

    /// Finds what no type can: empty lists, contradictions, settings of
    /// librdkafka that would break the promise.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](tidelock_connector::ErrorKind::Config), naming the key.
    pub fn validate(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::config(text));
        if self.brokers.is_empty() {
            return wrong("`brokers` is empty; name at least one as host:port".into());
        }
        if self.topics.is_empty() || self.topics.iter().any(String::is_empty) {
            return wrong("`topics` names no topic, or one without a name".into());
        }
        if self.group_id.as_deref() == Some("") {
            return wrong("`group_id` is empty; leave it out to use the pipeline's name".into());
        }
        if self.max_poll_records == 0 {
            return wrong("`max_poll_records` must be at least 1".into());
        }
        if self.poll_interval.is_zero() {
            return wrong("`poll_interval` must be longer than nothing".into());
        }
        if self.max_poll_interval < self.session_timeout {
            return wrong("`max_poll_interval` must not be shorter than `session_timeout`".into());
        }
        if let Some((topic, _)) = self.weights.iter().find(|(_, weight)| **weight == 0) {
            return wrong(format!("the weight of topic {topic:?} is 0; it would never be read"));
        }
        if let Some(security) = &self.security {
            security.validate()?;
        }
        self.librdkafka.iter().try_for_each(|(key, _)| refuse(key))
    }

    /// The coordinates that become columns.
    pub fn coordinates(&self) -> Vec<Coordinate> {
        use Coordinate::{Headers, Key, Offset, Partition, Timestamp, Topic};
        match (&self.coordinates, &self.format) {
            (Some(given), _) => given.clone(),
            (None, FormatConfig::Json { .. }) => vec![Partition, Offset, Timestamp],
            (None, FormatConfig::Raw {}) => {
                vec![Key, Headers, Timestamp, Topic, Partition, Offset]
            }
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let librdkafka: BTreeMap<_, _> = self
            .librdkafka
            .iter()
            .map(|(key, value)| (key, if is_secret(key) { "…" } else { value }))
            .collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("group_id", &self.group_id)
            .field("topics", &self.topics)
            .field("start", &self.start)
            .field("format", &self.format)
            .field("security", &self.security)
            .field("librdkafka", &librdkafka)
            .finish_non_exhaustive()
    }
}

/// Settings of librdkafka that Tidelock lives by, and why they are not yours.
const OURS: &[(&str, &str)] = &[
    ("enable.auto.commit", "offsets are committed by checkpoints, never before"),
    ("auto.commit.enable", "offsets are committed by checkpoints, never before"),
    ("auto.commit.interval.ms", "offsets are committed by checkpoints, never before"),
    ("enable.auto.offset.store", "offsets are committed by checkpoints, never before"),
    ("auto.offset.reset", "it would skip over data in silence; use `start`"),
    ("enable.partition.eof", "coverage needs to see the end of each partition"),
    ("bootstrap.servers", "use `brokers`"),
    ("metadata.broker.list", "use `brokers`"),
    ("group.id", "use `group_id`"),
    ("group.instance.id", "use `group_instance_id`"),
    ("partition.assignment.strategy", "use `assignor`"),
    ("session.timeout.ms", "use `session_timeout`"),
    ("max.poll.interval.ms", "use `max_poll_interval`"),
    ("isolation.level", "use `isolation`"),
    ("log.queue", "Tidelock serves the log itself"),
];

fn refuse(key: &str) -> Result<()> {
    match OURS.iter().find(|(ours, _)| *ours == key) {
        Some((_, why)) => Err(Error::config(format!("`librdkafka` must not set {key:?}: {why}"))),
        None => Ok(()),
    }
}

/// Where reading begins when nothing is known of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// The first message that is still there.
    #[default]
    Earliest,
    /// The next message that arrives.
    Latest,
    /// Nowhere: it is an error when nothing is committed.
    Committed,
    /// The first message of this time or later.
    #[serde(deserialize_with = "values::timestamp")]
    Timestamp(chrono::DateTime<chrono::Utc>),
    /// These offsets, by topic and partition; the first message for any other.
    #[serde(deserialize_with = "values::offsets")]
    Offsets(BTreeMap<String, BTreeMap<i32, i64>>),
}

/// How a message becomes a row, as the TOML file says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum FormatConfig {
    /// One JSON object per message.
    Json {
        /// The columns.
        schema: Vec<ColumnSpec>,
    },
    /// The bytes as they are, in a column `value`.
    Raw {},
}

/// What happens to a message that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRecord {
    /// The run ends, and nothing before the message is lost.
    #[default]
    Stop,
    /// The message is counted, logged and left out.
    Skip,
}

/// Something of a message that can be a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Coordinate {
    /// `_topic`, text.
    #[serde(rename = "_topic")]
    Topic,
    /// `_partition`, a 32-bit number.
    #[serde(rename = "_partition")]
    Partition,
    /// `_offset`, a 64-bit number.
    #[serde(rename = "_offset")]
    Offset,
    /// `_timestamp`, milliseconds in UTC; null where the message has none.
    #[serde(rename = "_timestamp")]
    Timestamp,
    /// `_key`, bytes.
    #[serde(rename = "_key")]
    Key,
    /// `_headers`, a list of (key, value).
    #[serde(rename = "_headers")]
    Headers,
}

/// How the group shares out the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assignor {
    /// A rebalance takes away only what moves.
    #[default]
    CooperativeSticky,
    /// A rebalance stops every member.
    Range,
    /// A rebalance stops every member.
    Roundrobin,
}

/// Which messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Those of finished transactions, and those outside of any.
    #[default]
    ReadCommitted,
    /// All of them.
    ReadUncommitted,
}

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threshold {
    /// So many messages.
    Messages(usize),
    /// So many bytes.
    Bytes(usize),
}
