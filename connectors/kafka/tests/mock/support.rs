//! A cluster within librdkafka, and a driver that answers as the runtime does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use tidelock_connector::{
    AssignedPartition, Assignment, Batch, Coverage, Event, OpenSource, Revocation, Source,
    SourceContext, Start, TopicPartition,
};
use tidelock_kafka::{Json, KafkaSource, KafkaSourceBuilder};

/// Longer than anything here takes; joining a group takes about 3 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a reader may hold in most tests.
pub(crate) const MEMORY: usize = 64 << 20;

pub(crate) struct Cluster {
    pub(crate) mock: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Cluster {
    pub(crate) fn new(topic: &str, partitions: i32) -> Self {
        log();
        let mock = MockCluster::new(1).expect("a mock cluster");
        mock.create_topic(topic, partitions, 1).expect("a topic");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .create()
            .expect("a producer");
        Self { mock, producer }
    }

    pub(crate) fn source(&self, group: &str) -> KafkaSourceBuilder {
        KafkaSource::builder(&self.mock.bootstrap_servers(), group)
            .topics(["orders"])
            .format(Json::schema(schema()))
            .session_timeout(Duration::from_secs(6))
            .max_poll_interval(Duration::from_secs(60))
    }

    pub(crate) fn send(&self, topic: &str, partition: i32, payload: &str) {
        let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(payload);
        self.producer.send(record).map_err(|(error, _)| error).expect("room in the producer");
    }

    /// Sends events with these numbers to a partition of `orders`.
    pub(crate) fn send_events(&self, partition: i32, numbers: std::ops::Range<i64>) {
        for number in numbers {
            self.send("orders", partition, &format!("{{\"id\":{number},\"text\":\"event\"}}"));
            self.producer.poll(Duration::ZERO);
        }
        self.flush();
    }

    pub(crate) fn producer(&self) -> &BaseProducer {
        &self.producer
    }

    pub(crate) fn flush(&self) {
        self.producer.flush(PATIENCE).expect("all messages sent");
    }
}

/// What `RUST_LOG` asks for; nothing unless it is set.
fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Whoever was first has done it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_thread_names(true)
        .with_writer(std::io::stderr)
        .try_init();
}

pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
    ]))
}

pub(crate) fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

pub(crate) fn start(partition: i32, offset: i64, end: Option<i64>) -> Start {
    Start { partition: tp(partition), offset, end }
}

/// A reader, and everything that it has delivered.
pub(crate) struct Member {
    pub(crate) open: OpenSource,
    pub(crate) coverage: Coverage,
    /// The `id` of each row by partition and offset.
    pub(crate) rows: BTreeMap<(i32, i64), i64>,
    pub(crate) batches: usize,
    pub(crate) idle: usize,
    /// The next offset per partition, which coverage must begin at.
    pub(crate) position: BTreeMap<i32, i64>,
    /// The same, of partitions that were given up too.
    reached: BTreeMap<i32, i64>,
}

impl Member {
    pub(crate) async fn open(source: KafkaSource) -> Self {
        Self::open_with(source, MEMORY).await
    }

    pub(crate) async fn open_with(source: KafkaSource, memory: usize) -> Self {
        let open = source.open(SourceContext::new("test", 0, memory)).await.expect("opens");
        Self {
            open,
            coverage: Coverage::new(),
            rows: BTreeMap::new(),
            batches: 0,
            idle: 0,
            position: BTreeMap::new(),
            reached: BTreeMap::new(),
        }
    }

    /// The next event; what concerns data is noted first.
    pub(crate) async fn next(&mut self) -> tidelock_connector::Result<Event> {
        let next = tokio::time::timeout(PATIENCE, self.open.reader.next());
        let event = next.await.expect("something happens in time")?;
        match &event {
            Event::Batch(batch) => self.note(batch),
            Event::Covered(coverage) => self.cover(coverage),
            Event::Idle => self.idle += 1,
            _ => {}
        }
        Ok(event)
    }

    fn cover(&mut self, coverage: &Coverage) {
        for (partition, set) in coverage.iter() {
            let [range] = set.ranges() else { panic!("coverage with a gap: {set}") };
            let position = self.position.insert(partition.partition, range.to);
            assert_eq!(position, Some(range.from), "coverage of {partition} is contiguous");
            self.reached.insert(partition.partition, range.to);
        }
        self.coverage.union(coverage);
    }

    fn note(&mut self, batch: &Batch) {
        self.batches += 1;
        self.cover(&batch.coverage);
        let ids = batch.records.column_by_name("id").expect("id").as_primitive::<Int64Type>();
        let partitions = batch.records.column_by_name("_partition").expect("a coordinate");
        let offsets = batch.records.column_by_name("_offset").expect("a coordinate");
        let mut runs = batch.runs.iter().flat_map(|run| {
            (0..i64::from(run.count)).map(move |n| (run.partition.partition, run.first + n))
        });
        for row in 0..batch.num_rows() {
            let at = (
                partitions.as_primitive::<Int32Type>().value(row),
                offsets.as_primitive::<Int64Type>().value(row),
            );
            assert_eq!(runs.next(), Some(at), "runs say where rows came from");
            let set = batch.coverage.get(&tp(at.0)).expect("rows are covered");
            assert!(set.contains(at.1));
            let before = self.rows.insert(at, ids.value(row));
            assert_eq!(before, None, "row {at:?} came twice");
        }
        assert_eq!(runs.next(), None);
    }

    /// Waits for an assignment that is not empty.
    pub(crate) async fn assigned(&mut self) -> Assignment {
        loop {
            if let Event::Assigned(assignment) = self.next().await.expect("no error") {
                return assignment;
            }
        }
    }

    pub(crate) async fn revoking(&mut self) -> Revocation {
        loop {
            if let Event::Revoking(revocation) = self.next().await.expect("no error") {
                return revocation;
            }
        }
    }

    /// Answers an assignment: begin where it is committed, else where it says.
    pub(crate) fn accept(&mut self, assignment: Assignment, end: bool) {
        let starts: Vec<Start> = assignment
            .partitions
            .iter()
            .map(|p| Start {
                partition: p.partition.clone(),
                offset: p.committed.as_ref().map_or(p.start, |committed| committed.offset),
                end: end.then_some(p.end),
            })
            .collect();
        self.answer(assignment, starts);
    }

    /// Answers an assignment: begin where we were, else as `accept` does.
    fn go_on(&mut self, assignment: Assignment) {
        let offset = |p: &AssignedPartition| {
            let committed = p.committed.as_ref().map(|committed| committed.offset);
            let reached = self.reached.get(&p.partition.partition).copied();
            reached.or(committed).unwrap_or(p.start)
        };
        let start = |p: &AssignedPartition| Start {
            partition: p.partition.clone(),
            offset: offset(p),
            end: None,
        };
        let starts = assignment.partitions.iter().map(start).collect();
        self.answer(assignment, starts);
    }

    pub(crate) fn answer(&mut self, assignment: Assignment, starts: Vec<Start>) {
        self.expect_at(&starts);
        assignment.reply.send(starts).expect("the reader waits for the answer");
    }

    pub(crate) fn expect_at(&mut self, starts: &[Start]) {
        for start in starts {
            self.position.insert(start.partition.partition, start.offset);
        }
    }

    /// Reads until so many offsets of `orders` are covered. The mock group
    /// rebalances once more when a member was slow to join; whatever it takes
    /// and gives again meanwhile goes on from where it was.
    pub(crate) async fn read(&mut self, offsets: u64) {
        let begun = Instant::now();
        while self.coverage.len() < offsets {
            match self.next().await.expect("no error") {
                Event::Batch(_) | Event::Covered(_) | Event::Idle => {}
                Event::Revoking(Revocation { partitions, .. }) => {
                    for partition in partitions {
                        self.position.remove(&partition.partition);
                    }
                }
                Event::Assigned(assignment) => self.go_on(assignment),
                Event::End => panic!("a log has no end"),
            }
            let so_far = self.coverage.len();
            assert!(begun.elapsed() < PATIENCE, "{so_far} of {offsets} offsets");
        }
    }

    /// Reads until nothing has come for a while, which must be `Idle`.
    pub(crate) async fn read_until_idle(&mut self) {
        loop {
            if let Event::Idle = self.next().await.expect("no error") {
                return;
            }
        }
    }
}
