//! A quiet topic beside a backlog of a million messages, on a real broker.
//!
//! What counts is how many messages of the busy topic are served between the
//! arrival of a quiet one and its service. To know what had arrived when, the
//! reading stops until everything is full, and goes on when the quiet message
//! is surely there.

use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tidelock::connector::arrow::datatypes::{DataType, Field, Schema};
use tidelock::connector::{Event, OpenSource, Source, SourceContext, Start};
use tidelock::kafka::{Fairness, Json, KafkaSource};
use tidelock_services::Kafka;

const BACKLOG: u64 = 1_000_000;
const PARTITIONS: i32 = 3;
const MAX_POLL_RECORDS: usize = 500;
/// What the busy topic gets in one round of the scheduler.
const ROUND: u64 = PARTITIONS as u64 * MAX_POLL_RECORDS as u64;
/// So much is read before each stop.
const STRETCH: u64 = 20_000;

#[test]
fn a_quiet_topic_is_served_within_one_round_of_a_backlog() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let (high, low) = topics(kafka);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fair: Vec<u64> = runtime.block_on(async {
        let mut reading = Reading::open(kafka, &high, &low).await;
        let mut passed = Vec::new();
        for _ in 0..5 {
            passed.push(reading.stop_and_go(kafka).await);
        }
        // What the reader itself has seen is exact, and all told at its end.
        let Reading { open, fairness, .. } = reading;
        drop(open);
        let report = fairness.report();
        let low = report.partitions.iter().find(|one| *one.topic == *low).unwrap();
        assert_eq!(low.records, 5);
        assert!(low.overtaken <= ROUND, "{} records in between", low.overtaken);
        passed
    });
    // Its batch is closed some rounds later, when it is `poll_interval` old.
    assert!(fair.iter().all(|passed| *passed <= 10 * ROUND), "{fair:?}");

    let arrival = in_order_of_arrival(kafka, &high, &low);
    eprintln!("busy messages before a quiet one: {fair:?} fairly, {arrival} in order of arrival");
    assert!(arrival > 50 * ROUND, "the contrast shows nothing: {arrival}");
}

/// The busy topic with its backlog, and the quiet one.
fn topics(kafka: &Kafka) -> (String, String) {
    let (high, low) = (tidelock_services::unique("high"), tidelock_services::unique("low"));
    kafka.client().create_topic(&high, PARTITIONS, &[]).unwrap();
    kafka.client().create_topic(&low, 1, &[]).unwrap();
    let mut config = kafka.client().config();
    config.set("compression.type", "lz4").set("linger.ms", "20");
    let producer: BaseProducer = config.create().unwrap();
    for number in 0..BACKLOG {
        let payload = format!("{{\"number\":{number}}}");
        let partition = (number % PARTITIONS as u64) as i32;
        let mut record = BaseRecord::<(), str>::to(&high).payload(&payload).partition(partition);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(5));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    (high, low)
}

fn send_low(kafka: &Kafka, low: &str) {
    kafka.client().produce(low, ["{\"number\":0}"]).unwrap();
    // Fetching it takes some milliseconds.
    std::thread::sleep(Duration::from_millis(700));
}

/// The fair reader, and what it has delivered.
struct Reading {
    open: OpenSource,
    fairness: Fairness,
    low_topic: String,
    high: u64,
    low: u64,
}

impl Reading {
    async fn open(kafka: &Kafka, high: &str, low: &str) -> Self {
        let schema = Schema::new(vec![Field::new("number", DataType::Int64, false)]);
        let group = tidelock_services::unique("fair");
        let source = KafkaSource::builder(kafka.client().bootstrap(), &group)
            .topics([high, low])
            .format(Json::schema(schema))
            .max_poll_records(MAX_POLL_RECORDS)
            .poll_interval(Duration::from_millis(1))
            .build()
            .unwrap();
        let fairness = source.fairness();
        // Little, so that it soon has to wait for us.
        let open = source.open(SourceContext::new("fair", 0, 4 << 20)).await.unwrap();
        Self { open, fairness, low_topic: low.to_owned(), high: 0, low: 0 }
    }

    async fn read(&mut self) {
        let next = tokio::time::timeout(Duration::from_secs(30), self.open.reader.next());
        match next.await.expect("something happens").expect("no error") {
            Event::Batch(batch) if *batch.stream.name == *self.low_topic => {
                self.low += batch.num_rows() as u64;
            }
            Event::Batch(batch) => self.high += batch.num_rows() as u64,
            Event::Assigned(assignment) => {
                let from_start = |partition| Start { partition, offset: 0, end: None };
                let starts = assignment.partitions.into_iter().map(|one| from_start(one.partition));
                assignment.reply.send(starts.collect()).unwrap();
            }
            Event::Revoking(_) | Event::Covered(_) | Event::Idle | Event::End => {}
        }
    }

    /// What was served of the busy topic, delivered or not.
    fn served(&self) -> u64 {
        let report = self.fairness.report();
        let high = report.partitions.iter().filter(|one| *one.topic != *self.low_topic);
        high.map(|one| one.records).sum()
    }

    /// How many busy messages were served between the arrival of a quiet one
    /// and its delivery.
    async fn stop_and_go(&mut self, kafka: &Kafka) -> u64 {
        let goal = self.high + STRETCH;
        while self.high < goal {
            self.read().await;
        }
        // Full when two reports in a row say the same.
        let end = Instant::now() + Duration::from_secs(20);
        let mut served = u64::MAX;
        while served != self.served() {
            assert!(Instant::now() < end, "the reader does not wait for us");
            served = self.served();
            tokio::time::sleep(Duration::from_millis(1_200)).await;
        }
        send_low(kafka, &self.low_topic);
        let before = self.low;
        while self.low == before {
            self.read().await;
        }
        self.high.saturating_sub(served)
    }
}

/// The same with a plain consumer, which hands out what was fetched first.
fn in_order_of_arrival(kafka: &Kafka, high: &str, low: &str) -> u64 {
    let mut config = kafka.client().config();
    config.set("group.id", "arrival").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(high, partition, Offset::Beginning).unwrap();
    }
    list.add_partition_offset(low, 0, Offset::End).unwrap();
    consumer.assign(&list).unwrap();
    let read = |until: &dyn Fn(&str, u64) -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        let mut count = 0;
        loop {
            assert!(Instant::now() < end, "{count} messages and nothing more");
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.unwrap();
            count += u64::from(message.topic() == high);
            if until(message.topic(), count) {
                return count;
            }
        }
    };
    read(&|_, count| count == STRETCH);
    std::thread::sleep(Duration::from_secs(3));
    send_low(kafka, low);
    read(&|topic, _| topic == low)
}
