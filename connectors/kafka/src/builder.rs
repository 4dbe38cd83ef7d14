//! A Kafka source in Rust.

use std::time::Duration;

use tidelock_connector::{Error, Result};

use crate::KafkaSource;
use crate::config::{
    Assignor, Coordinate, FormatConfig, Isolation, KafkaConfig, OnBadRecord, StartAt, Threshold,
};
use crate::rows::Format;
use crate::security::Security;
use crate::settings::Settings;

/// Makes a [`KafkaSource`]; the methods are the keys of [`KafkaConfig`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct KafkaSourceBuilder {
    config: KafkaConfig,
    group: String,
    format: Option<Format>,
}

impl KafkaSourceBuilder {
    pub(crate) fn new(brokers: &str, group_id: &str) -> Self {
        let mut config = KafkaConfig::new(brokers, Vec::new(), FormatConfig::Raw {});
        config.group_id = Some(group_id.to_owned());
        Self { config, group: group_id.to_owned(), format: None }
    }

    /// The topics. One that begins with `^` is a regular expression.
    pub fn topics(mut self, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// How a message becomes a row; there is no default.
    pub fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Where to begin when nothing is recorded or committed.
    pub fn start(mut self, start: StartAt) -> Self {
        self.config.start = start;
        self
    }

    /// What happens to a message that does not decode.
    pub fn on_bad_record(mut self, action: OnBadRecord) -> Self {
        self.config.on_bad_record = action;
        self
    }

    /// Which coordinates become columns.
    pub fn coordinates(mut self, coordinates: impl IntoIterator<Item = Coordinate>) -> Self {
        self.config.coordinates = Some(coordinates.into_iter().collect());
        self
    }

    /// TLS and SASL.
    pub fn security(mut self, security: Security) -> Self {
        self.config.security = Some(security);
        self
    }

    /// Static membership.
    pub fn group_instance_id(mut self, id: impl Into<String>) -> Self {
        self.config.group_instance_id = Some(id.into());
        self
    }

    /// How the group shares out the partitions.
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.config.assignor = assignor;
        self
    }

    /// How long the group waits for a silent member.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.config.session_timeout = timeout;
        self
    }

    /// How long the group waits for a member to give up partitions.
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.config.max_poll_interval = interval;
        self
    }

    /// Whether messages of open and aborted transactions are read.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.config.isolation = isolation;
        self
    }

    /// How long the reader waits when nothing is there.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.config.poll_interval = interval;
        self
    }

    /// Rows that are taken from one partition per turn.
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.config.max_poll_records = records;
        self
    }

    /// How much may wait of one partition.
    pub fn partition_pause_threshold(mut self, threshold: Threshold) -> Self {
        self.config.partition_pause_threshold = Some(threshold);
        self
    }

    /// The share of a topic against the others.
    pub fn weight(mut self, topic: impl Into<String>, weight: u32) -> Self {
        self.config.weights.insert(topic.into(), weight);
        self
    }

    /// A setting that is passed through to librdkafka.
    pub fn librdkafka(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.librdkafka.insert(key.into(), value.into());
        self
    }

    /// The source.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](tidelock_connector::ErrorKind::Config) names what
    /// is missing or makes no sense.
    pub fn build(mut self) -> Result<KafkaSource> {
        let Some(format) = self.format else {
            return Err(Error::config(
                "a Kafka source needs a format, for example Json::schema(…)",
            ));
        };
        if self.config.coordinates.is_none() && matches!(format, Format::Json(_)) {
            // The configuration holds no format of its own to tell it by.
            use Coordinate::{Offset, Partition, Timestamp};
            self.config.coordinates = Some(vec![Partition, Offset, Timestamp]);
        }
        Ok(KafkaSource::from_settings(Settings::new(self.config, &self.group, Some(format))?))
    }
}
