//! From our configuration to librdkafka's, within a memory budget.
//!
//! # Memory
//! Each partition has a queue of its own (`ffi`), and librdkafka's limits hold
//! for each queue. With *P* partitions and *M* bytes for the reader, half of
//! *M* goes to librdkafka:
//!
//! ```text
//! P × (queued.max.messages.kbytes + one fetch in flight) ≤ M / 2
//! ```
//!
//! The other half is for open builders and the channel (`outbox`). Limits are
//! fixed when the client is made, so *P* counts all partitions of the topics,
//! as if this worker owned them all. Where there are more partitions than
//! [`SEATS`], they share a quarter of *M*, and the busiest get the seats of
//! another client and the other quarter (`express`), unless the group knows only
//! whole assignments. There is a floor of 80 KiB per partition: where its part is
//! less than that, the floor is what holds.
//!
//! # Waiting
//! A partition whose queue is full is left out of the next fetch. If the others
//! have nothing, the broker answers that one only after `fetch.wait.max.ms`,
//! and until then nothing more is fetched of the busy one, however soon its
//! queue is empty again. With the usual 500 ms a backlog on one of a hundred
//! partitions was read at less than 6,000 messages a second.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{Assignor, Isolation, KafkaConfig, Threshold};
use crate::security::Security;

/// A fetch beyond 1 MB costs cache misses and brings nothing: raw reading took
/// 449 ns of CPU per message with 10 MB and 304 ns with 1 MB.
const FETCH_MAX_BYTES: usize = 1 << 20;

/// A fetch must hold a producer's batch: the broker sends half a batch, and
/// librdkafka throws it away and asks again. With 1,000 partitions 16 KiB took
/// 1,000 ns of CPU per message and six times as long as 64 KiB with 530 ns.
const FETCH_MIN_BYTES: usize = 64 << 10;

/// The least that may wait of a partition.
const QUEUE_MIN_BYTES: usize = 16 << 10;

/// The largest answer, whatever the budget.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// A queue that holds more than this is not emptied any faster.
const QUEUE_MAX_BYTES: usize = 8 << 20;

/// How many partitions can have enough of the budget each: the busiest of them,
/// where there are more.
pub(crate) const SEATS: usize = 16;

/// The longest that a fetch of many partitions waits for data, see above.
const MANY_FETCH_WAIT: Duration = Duration::from_millis(50);

/// The same of [`SEATS`] partitions at most, which costs little.
const FETCH_WAIT: Duration = Duration::from_millis(20);

/// The same where all that is fetched is busy.
const EXPRESS_FETCH_WAIT: Duration = Duration::from_millis(10);

/// What a small message that waits costs in all, librdkafka's own part included.
const SMALL_MESSAGE_BYTES: usize = 512;

/// How much librdkafka may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes that wait of one partition.
    pub(crate) queue_bytes: usize,
    /// Messages that wait of one partition.
    pub(crate) queue_messages: usize,
    /// Bytes of one partition in one answer.
    pub(crate) fetch_bytes: usize,
    /// Bytes in one answer of a broker.
    pub(crate) answer_bytes: usize,
    /// How long a broker waits until there are...
    pub(crate) wait: Duration,
    /// ... so many bytes.
    pub(crate) least_bytes: usize,
}

/// The limits of a reader's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Of the member of the group.
    pub(crate) member: Limits,
    /// Of the client that fetches the busiest, where one is needed.
    pub(crate) express: Option<Limits>,
}

impl Shares {
    /// Shares out `memory` bytes over so many partitions.
    pub(crate) fn new(memory: usize, partitions: usize, config: &KafkaConfig) -> Self {
        let threshold = config.partition_pause_threshold;
        if partitions <= SEATS {
            return Self { member: Limits::new(memory / 2, partitions, threshold), express: None };
        }
        // A fetch costs the same however little it brings, and the more the more
        // partitions it names: it should bring something. One partition can.
        let limits = |memory, partitions| Limits {
            least_bytes: FETCH_MIN_BYTES,
            wait: MANY_FETCH_WAIT,
            ..Limits::new(memory, partitions, threshold)
        };
        if is_eager(config) {
            return Self { member: limits(memory / 2, partitions), express: None };
        }
        let member = limits(memory / 4, partitions);
        let express = Limits { wait: EXPRESS_FETCH_WAIT, ..limits(memory / 4, SEATS) };
        Self { member, express: Some(express) }
    }
}

/// Whether the group will know only whole assignments, so that no partition can
/// be given up by itself.
fn is_eager(config: &KafkaConfig) -> bool {
    let given = |key: &str| config.librdkafka.get(key).map(String::as_str);
    match given("partition.assignment.strategy") {
        _ if given("group.protocol") == Some("consumer") => false,
        Some(strategy) => strategy != "cooperative-sticky",
        None => config.assignor != Assignor::CooperativeSticky,
    }
}

impl Limits {
    /// Shares out `memory` bytes over so many partitions.
    fn new(memory: usize, partitions: usize, threshold: Option<Threshold>) -> Self {
        let each = memory / partitions.max(1);
        // Compressed bytes are fetched and plain ones wait: leave them room.
        let fetch_bytes = (each / 8).clamp(FETCH_MIN_BYTES, FETCH_MAX_BYTES);
        let queue_bytes = each.saturating_sub(fetch_bytes).clamp(QUEUE_MIN_BYTES, QUEUE_MAX_BYTES);
        // All partitions of a broker come in one answer.
        let answer_bytes = (memory / 16).clamp(FETCH_MAX_BYTES, ANSWER_MAX_BYTES);
        let queue_messages = (queue_bytes / SMALL_MESSAGE_BYTES).max(100);
        let limits = Self {
            queue_bytes,
            queue_messages,
            fetch_bytes,
            answer_bytes,
            wait: FETCH_WAIT,
            least_bytes: 1,
        };
        match threshold {
            None => limits,
            Some(Threshold::Messages(messages)) => {
                Self { queue_messages: messages.min(queue_messages), ..limits }
            }
            Some(Threshold::Bytes(bytes)) => Self { queue_bytes: bytes.min(queue_bytes), ..limits },
        }
    }

    fn settings(self) -> [(&'static str, String); 7] {
        // librdkafka counts in KiB here, and takes no fewer messages than one.
        let kbytes = self.queue_bytes.div_ceil(1024);
        [
            ("queued.max.messages.kbytes", kbytes.to_string()),
            ("queued.min.messages", self.queue_messages.max(1).to_string()),
            ("fetch.message.max.bytes", self.fetch_bytes.to_string()),
            ("fetch.max.bytes", self.answer_bytes.to_string()),
            ("fetch.wait.max.ms", self.wait.as_millis().to_string()),
            ("fetch.min.bytes", self.least_bytes.to_string()),
            // A full queue stops fetching for 1 s by default; filling it again
            // takes a few milliseconds.
            ("fetch.queue.backoff.ms", "5".to_owned()),
        ]
    }
}

/// The settings that every client needs: reaching the brokers.
pub(crate) fn connection(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Info);
    client.set("bootstrap.servers", config.brokers.join(","));
    client.set("client.id", "tidelock");
    for (key, value) in config.security.iter().flat_map(Security::settings) {
        client.set(key, value);
    }
    if config.librdkafka.contains_key("sasl.mechanism") {
        client.remove("sasl.mechanisms");
    }
    for (key, value) in &config.librdkafka {
        client.set(key, value);
    }
    client
}

/// The settings of a member of the group.
pub(crate) fn member(
    config: &KafkaConfig,
    group: &str,
    worker: usize,
    limits: Limits,
) -> ClientConfig {
    // Built upon, not copied: the library hides passwords in what it shows.
    let mut client = connection(config);
    let given = |key: &str| config.librdkafka.contains_key(key);
    let ours = |client: &mut ClientConfig, key: &str, value: String| {
        if !given(key) {
            client.set(key, value);
        }
    };
    for (key, value) in limits.settings() {
        ours(&mut client, key, value);
    }
    // Larger fetches need larger answers; and librdkafka takes the names of
    // one setting for one another, in no order that could be relied on.
    if given("max.partition.fetch.bytes") || given("fetch.message.max.bytes") {
        for ours in ["fetch.message.max.bytes", "fetch.max.bytes"] {
            if !given(ours) {
                client.remove(ours);
            }
        }
    }
    // The newest protocol keeps these two on the broker.
    let classic = config.librdkafka.get("group.protocol").is_none_or(|name| name != "consumer");
    if classic {
        let assignor = match config.assignor {
            Assignor::CooperativeSticky => "cooperative-sticky",
            Assignor::Range => "range",
            Assignor::Roundrobin => "roundrobin",
        };
        ours(&mut client, "partition.assignment.strategy", assignor.to_owned());
        let session = config.session_timeout.as_millis().to_string();
        ours(&mut client, "session.timeout.ms", session);
        // Heartbeats must be well within the session, whose default is 45 s.
        let heartbeat = (config.session_timeout / 10).as_millis().clamp(100, 3000);
        ours(&mut client, "heartbeat.interval.ms", heartbeat.to_string());
    }
    if let Some(instance) = &config.group_instance_id {
        let instance = match worker {
            0 => instance.clone(),
            number => format!("{instance}-{number}"),
        };
        ours(&mut client, "group.instance.id", instance);
    }
    client.set("client.id", format!("tidelock-{worker}"));
    client.set("group.id", group);
    client.set("max.poll.interval.ms", config.max_poll_interval.as_millis().to_string());
    client.set("isolation.level", isolation(config));
    // The promises that everything else rests upon come last.
    client.set("enable.auto.commit", "false");
    client.set("enable.auto.offset.store", "false");
    client.set("auto.offset.reset", "error");
    client.set("enable.partition.eof", "true");
    client.set_log_level(RDKafkaLogLevel::Info);
    client
}

/// The settings of the client that only fetches: it never joins the group.
pub(crate) fn express(
    config: &KafkaConfig,
    group: &str,
    worker: usize,
    limits: Limits,
) -> ClientConfig {
    let mut client = member(config, group, worker, limits);
    client.remove("group.instance.id");
    client.set("client.id", format!("tidelock-{worker}-express"));
    client
}

/// The isolation, as librdkafka calls it.
pub(crate) fn isolation(config: &KafkaConfig) -> &'static str {
    match config.isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_partitions_together_stay_within_half_of_the_budget() {
        let mut config = KafkaConfig::new("a:1", vec!["t".into()], crate::FormatConfig::Raw {});
        for (partitions, assignor) in [
            (1, Assignor::CooperativeSticky),
            (4, Assignor::CooperativeSticky),
            (64, Assignor::CooperativeSticky),
            (64, Assignor::Range),
            (700, Assignor::CooperativeSticky),
        ] {
            config.assignor = assignor;
            let memory = 256 << 20;
            let Shares { member: limits, express } = Shares::new(memory, partitions, &config);
            let of = |limits: Limits| limits.queue_bytes + limits.fetch_bytes;
            let express = express.map_or(0, |express| SEATS * of(express));
            assert!(partitions * of(limits) + express <= memory / 2);
            assert!(limits.fetch_bytes >= FETCH_MIN_BYTES);
            assert!(
                limits.queue_messages * SMALL_MESSAGE_BYTES
                    <= limits.queue_bytes.max(100 * SMALL_MESSAGE_BYTES)
            );
        }
        assert_eq!(Limits::new(128 << 20, 4, None).fetch_bytes, FETCH_MAX_BYTES);
    }

    #[test]
    fn there_is_no_second_client_where_no_partition_can_move() {
        let mut config = KafkaConfig::new("a:1", vec!["t".into()], crate::FormatConfig::Raw {});
        let shares = Shares::new(64 << 20, 64, &config);
        config.assignor = Assignor::Range;
        let eager = Shares::new(64 << 20, 64, &config);
        assert!(shares.express.is_some() && eager.express.is_none());
        assert!(eager.member.queue_bytes > shares.member.queue_bytes, "nothing is left over");
        config.librdkafka.insert("group.protocol".into(), "consumer".into());
        assert_eq!(Shares::new(64 << 20, 64, &config), shares);
    }

    #[test]
    fn what_is_passed_through_wins_under_either_name() {
        let mut config: KafkaConfig =
            KafkaConfig::new("a:1", vec!["t".into()], crate::FormatConfig::Raw {});
        let limits = Limits::new(128 << 20, 4, None);
        assert_eq!(member(&config, "g", 0, limits).get("fetch.message.max.bytes"), Some("1048576"));
        config.librdkafka.insert("max.partition.fetch.bytes".into(), "77".into());
        let client = member(&config, "g", 0, limits);
        assert_eq!(client.get("fetch.message.max.bytes"), None);
        assert_eq!(client.get("max.partition.fetch.bytes"), Some("77"));
        assert_eq!(client.get("enable.auto.commit"), Some("false"));
    }

    #[test]
    fn the_threshold_only_ever_lowers_a_limit() {
        let free = Limits::new(128 << 20, 4, None);
        let few = Limits::new(128 << 20, 4, Some(Threshold::Messages(500)));
        assert_eq!((few.queue_messages, few.queue_bytes), (500, free.queue_bytes));
        let many = Limits::new(128 << 20, 4, Some(Threshold::Bytes(1 << 30)));
        assert_eq!(many, free);
    }
}
