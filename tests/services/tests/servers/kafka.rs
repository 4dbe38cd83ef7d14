//! Topics, messages, offsets, TLS, and a broker that goes and comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidelock_services::{Kafka, Message, or_skip, unique};

const LIMIT: Duration = Duration::from_secs(30);

/// Reads `count` values of partition 0 from the start.
fn read(config: &ClientConfig, topic: &str, count: usize) -> Vec<String> {
    let mut config = config.clone();
    config.set("group.id", unique("reader")).set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&start).unwrap();
    let message = || consumer.poll(LIMIT).expect("a message in time").expect("no error");
    (0..count).map(|_| String::from_utf8(message().payload().unwrap().to_vec()).unwrap()).collect()
}

#[test]
fn messages_and_offsets_come_back_as_they_were_given() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = unique("round-trip");
    kafka.create_topic(&topic, 2, &[("cleanup.policy", "compact")]).unwrap();
    let messages = (0..100).map(|n| Message::new(format!("{n}")).key("k").partition(n % 2));
    assert_eq!(kafka.produce(&topic, messages).unwrap(), 100);
    assert_eq!(kafka.end_offsets(&topic).unwrap(), BTreeMap::from([(0, 50), (1, 50)]));
    assert_eq!(read(&kafka.config(), &topic, 3), ["0", "2", "4"]);

    let group = unique("group");
    assert!(kafka.committed_offsets(&group, &topic).unwrap().is_empty());
    let consumer: BaseConsumer = kafka.config().set("group.id", &group).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 1, Offset::Offset(7)).unwrap();
    offsets.find_partition(&topic, 1).unwrap().set_metadata("a hint");
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    let committed = kafka.committed(&group, &topic).unwrap();
    assert_eq!(committed, BTreeMap::from([(1, (7, "a hint".to_owned()))]));
    assert_eq!(kafka.group_members(&group).unwrap(), 0);
}

#[test]
fn key_headers_and_timestamp_are_kept() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = unique("envelope");
    kafka.create_topic(&topic, 1, &[]).unwrap();
    let message = Message::tombstone().key("k").header("h", "v").timestamp(1_700_000_000_000);
    kafka.produce(&topic, [message]).unwrap();
    let consumer: BaseConsumer = kafka.config().set("group.id", "g").create().unwrap();
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&start).unwrap();
    let read = consumer.poll(LIMIT).unwrap().unwrap();
    assert_eq!((read.key(), read.payload()), (Some(b"k".as_slice()), None));
    assert_eq!(read.timestamp().to_millis(), Some(1_700_000_000_000));
    let header = read.headers().unwrap().get(0);
    assert_eq!((header.key, header.value), ("h", Some(b"v".as_slice())));
}

#[test]
fn aborted_messages_are_in_the_log_and_not_read() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = unique("transactions");
    kafka.create_topic(&topic, 1, &[]).unwrap();
    let producer = kafka.transactional(&unique("tx")).unwrap();
    for (value, commit) in [("dropped", false), ("kept", true)] {
        producer.begin().unwrap();
        producer.send(&topic, value).unwrap();
        if commit { producer.commit().unwrap() } else { producer.abort().unwrap() }
    }
    assert_eq!(read(&kafka.config(), &topic, 1), ["kept"]);
    // Two messages and two markers.
    assert_eq!(kafka.end_offsets(&topic).unwrap(), BTreeMap::from([(0, 4)]));
}

#[test]
fn tls_and_scram_let_the_right_password_in_and_no_other() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = unique("secret");
    kafka.create_topic(&topic, 1, &[]).unwrap();
    kafka.produce(&topic, ["behind a lock"]).unwrap();
    let sasl = kafka.sasl();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &sasl.bootstrap)
        .set("security.protocol", "SASL_SSL")
        .set("ssl.ca.location", sasl.ca.to_string_lossy())
        .set("sasl.mechanism", sasl.mechanism)
        .set("sasl.username", sasl.username)
        .set("sasl.password", sasl.password);
    assert_eq!(read(&config, &topic, 1), ["behind a lock"]);

    config.set("sasl.password", "wrong").set("group.id", "g");
    let consumer: BaseConsumer = config.create().unwrap();
    assert!(consumer.fetch_metadata(Some(&topic), Duration::from_secs(3)).is_err());
}

#[test]
fn a_topic_that_was_not_made_is_an_error() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = unique("misspelt");
    assert!(kafka.delete_topic(&topic).is_err());
    assert!(kafka.end_offsets(&topic).unwrap().is_empty());
    kafka.create_topic(&topic, 1, &[]).unwrap();
    assert!(kafka.create_topic(&topic, 1, &[]).is_err());
    kafka.delete_topic(&topic).unwrap();
}

#[test]
fn a_killed_broker_comes_back_with_its_data() {
    let Some(mut kafka) = or_skip(Kafka::start_private()) else { return };
    let topic = unique("survivor");
    kafka.create_topic(&topic, 1, &[]).unwrap();
    kafka.produce(&topic, ["before"]).unwrap();
    let (bootstrap, pid) = (kafka.bootstrap().to_owned(), kafka.pid());
    kafka.kill().unwrap();
    assert!(std::net::TcpStream::connect(&bootstrap).is_err());
    kafka.restart().unwrap();
    assert_ne!(kafka.pid(), pid);
    assert_eq!(kafka.bootstrap(), bootstrap);
    kafka.produce(&topic, ["after"]).unwrap();
    assert_eq!(read(&kafka.config(), &topic, 2), ["before", "after"]);
}
