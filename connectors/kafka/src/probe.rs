//! Asking the cluster before anything is read: is it there, may we, and do the
//! topics exist.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};
use regex::Regex;
use tidelock_connector::{Error, ErrorKind, Result};

use crate::client;
use crate::config::KafkaConfig;
use crate::context::{Consumer, Notes};
use crate::errors;

/// How long the cluster may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long one question waits before the errors are looked at.
const STEP: Duration = Duration::from_secs(2);

/// How long the group's coordinator may take.
const GROUP_TIMEOUT: Duration = Duration::from_secs(4);

/// A client that is no member of any group.
pub(crate) struct Probe<'a> {
    config: &'a KafkaConfig,
    consumer: Consumer,
}

/// A topic that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) partitions: usize,
}

impl<'a> Probe<'a> {
    pub(crate) fn new(config: &'a KafkaConfig, group: &str) -> Result<Self> {
        let mut settings = client::connection(config);
        settings.set("group.id", group);
        // What is asked for as the end must be what members take for it.
        settings.set("isolation.level", client::isolation(config));
        // Not every setting of a member is one of a client without a group.
        settings.remove("group.protocol").remove("group.remote.assignor");
        let consumer = settings
            .create_with_context(Notes::default())
            .map_err(|error| errors::failed("setting up the Kafka client", error))?;
        Ok(Self { config, consumer })
    }

    /// The client, for further questions.
    pub(crate) fn into_consumer(self) -> Consumer {
        self.consumer
    }

    /// The topics of the configuration, in its order; those behind a regular
    /// expression by name.
    pub(crate) fn topics(&self) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for topic in &self.config.topics {
            if topic.starts_with('^') {
                all.extend(self.matching(topic)?);
            } else {
                all.push(self.topic(topic)?);
            }
        }
        Ok(all)
    }

    /// The cluster's own id.
    pub(crate) fn cluster(&self) -> Option<String> {
        self.consumer.client().fetch_cluster_id(STEP)
    }

    /// For how many of the partitions the group has committed an offset. None
    /// where its coordinator does not answer.
    pub(crate) fn committed(&self, topics: &[Found]) -> Result<Option<usize>> {
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let last = i32::try_from(topic.partitions).unwrap_or(i32::MAX) - 1;
            list.add_partition_range(&topic.name, 0, last);
        }
        if list.count() == 0 {
            return Ok(Some(0));
        }
        let doing = "asking for the group's offsets";
        match self.consumer.committed_offsets(list, GROUP_TIMEOUT) {
            Ok(list) => {
                let is_offset = |offset| matches!(offset, Offset::Offset(_));
                Ok(Some(list.elements().iter().filter(|e| is_offset(e.offset())).count()))
            }
            Err(error) => {
                let error = errors::failed(doing, error);
                if error.kind() == ErrorKind::Denied { Err(error) } else { Ok(None) }
            }
        }
    }

    fn topic(&self, name: &str) -> Result<Found> {
        let metadata = self.metadata(Some(name))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let error = match topic {
            None => RDKafkaErrorCode::UnknownTopicOrPartition,
            Some(topic) => match topic.error() {
                None => {
                    return Ok(Found { name: name.into(), partitions: topic.partitions().len() });
                }
                Some(error) => error.into(),
            },
        };
        match error {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                Err(self.missing(name))
            }
            code => Err(errors::of_code(code, "looking up the topic").with("topic", name)),
        }
    }

    /// Says which topics there are instead.
    fn missing(&self, name: &str) -> Error {
        let names: Vec<String> = self.names().unwrap_or_default();
        let near = errors::nearest(name, names.iter().map(String::as_str));
        let hint = match (near.as_slice(), names.as_slice()) {
            ([], []) => "the cluster has no topics that we may see".to_owned(),
            ([], [..]) => format!("there are {}", listed(&names)),
            (near, _) => format!("did you mean {}?", near.join(" or ")),
        };
        let brokers = self.config.brokers.join(",");
        Error::new(ErrorKind::NotFound, format!("there is no topic {name:?}; {hint}"))
            .with("brokers", brokers)
    }

    fn matching(&self, pattern: &str) -> Result<Vec<Found>> {
        let regex = Regex::new(pattern).map_err(|error| {
            Error::config(format!("{pattern:?} is not a regular expression")).source(error)
        })?;
        let metadata = self.metadata(None)?;
        let topics = metadata.topics().iter().filter(|topic| regex.is_match(topic.name()));
        Ok(topics
            .map(|topic| Found { name: topic.name().into(), partitions: topic.partitions().len() })
            .collect())
    }

    fn names(&self) -> Result<Vec<String>> {
        let metadata = self.metadata(None)?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        Ok(names.filter(|name| !name.starts_with("__")).collect())
    }

    /// Asks until there is an answer, or a reason why there will be none.
    fn metadata(&self, topic: Option<&str>) -> Result<Metadata> {
        let deadline = Instant::now() + TIMEOUT;
        let mut last = None;
        loop {
            let error = match self.consumer.fetch_metadata(topic, STEP) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            while self.consumer.poll(Duration::ZERO).is_some() {}
            for (code, reason) in self.consumer.context().take_errors() {
                let reported = errors::of_code(code, &reason);
                if reported.kind() == ErrorKind::Denied {
                    return Err(reported.with("brokers", self.config.brokers.join(",")));
                }
                last = Some(reason);
            }
            if Instant::now() >= deadline {
                return Err(self.unreachable(last.as_deref(), error));
            }
        }
    }

    fn unreachable(&self, reason: Option<&str>, error: KafkaError) -> Error {
        let doing = reason.unwrap_or("no answer");
        errors::of_code(RDKafkaErrorCode::AllBrokersDown, doing)
            .with("brokers", self.config.brokers.join(","))
            .source(error)
    }
}

fn listed(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = names.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
