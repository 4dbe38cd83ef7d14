//! A broker inside the process, and a producer that fills it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_json::sample::EventGenerator;

/// What a partition of the broker inside holds before it drops old events in
/// silence is 5 MiB; so many events of 235 bytes stay well below, compressed.
const PER_PARTITION: u64 = 25_000;

/// How long the producer waits for the broker.
const PATIENCE: Duration = Duration::from_secs(20);

/// librdkafka's mock cluster: real sockets, real consumer groups, no files.
pub(super) struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    pub(super) partitions: i32,
}

impl Broker {
    /// Starts one that can hold so many events in `topic`.
    pub(super) fn start(topic: &str, events: u64) -> Result<Self> {
        let partitions = i32::try_from(events.div_ceil(PER_PARTITION).max(4)).unwrap_or(i32::MAX);
        let cluster = MockCluster::new(1).map_err(failed("start a broker"))?;
        cluster.create_topic(topic, partitions, 1).map_err(failed("create a topic"))?;
        Ok(Self { cluster, partitions })
    }

    pub(super) fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Begins to produce so many events; see [`Producing`].
    pub(super) fn produce(&self, topic: &str, events: u64, paced: Paced) -> Result<Producing> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.address())
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .create()
            .map_err(failed("make a producer"))?;
        let shared = Arc::new(Shared::default());
        let job = Job {
            producer,
            shared: Arc::clone(&shared),
            topic: topic.to_owned(),
            partitions: self.partitions,
            events,
            paced,
        };
        let thread = std::thread::Builder::new().name("demo-producer".to_owned());
        let thread = thread
            .spawn(move || job.run())
            .map_err(|e| Error::new(ErrorKind::Other, "cannot start a thread").source(e))?;
        Ok(Producing { shared, thread: Some(thread) })
    }
}

/// How events arrive until the producer is told to hurry: some at once, then a
/// steady flow, and no more than a limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paced {
    pub(super) at_once: u64,
    pub(super) per_second: u64,
    pub(super) limit: u64,
}

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    hurry: AtomicBool,
    stop: AtomicBool,
}

/// A producer at work on its own thread. Dropped, it stops.
pub(super) struct Producing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Producing {
    /// Events sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.shared.sent.load(Relaxed)
    }

    /// Sends the rest as fast as it can.
    pub(super) fn hurry(&self) {
        self.shared.hurry.store(true, Relaxed);
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The outcome, once it is finished.
    pub(super) fn finish(mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let panicked = |_| Err(Error::new(ErrorKind::Panic, "the producer panicked"));
        thread.join().unwrap_or_else(panicked)
    }
}

struct Job {
    producer: BaseProducer,
    shared: Arc<Shared>,
    topic: String,
    partitions: i32,
    events: u64,
    paced: Paced,
}

impl Job {
    fn run(self) -> Result<()> {
        let mut generator = EventGenerator::new(1);
        let mut event = Vec::with_capacity(256);
        let began = Instant::now();
        for number in 0..self.events {
            while number >= self.allowed(began) {
                self.producer.poll(Duration::from_millis(2));
                if self.shared.stop.load(Relaxed) {
                    return Ok(());
                }
            }
            event.clear();
            generator.write_event(&mut event);
            let partition = (number % self.partitions.unsigned_abs() as u64) as i32;
            self.send(partition, &event)?;
            self.shared.sent.store(number + 1, Relaxed);
        }
        self.producer.flush(PATIENCE).map_err(failed("produce"))
    }

    fn allowed(&self, began: Instant) -> u64 {
        if self.shared.hurry.load(Relaxed) {
            return u64::MAX;
        }
        let flowed = began.elapsed().as_secs_f64() * self.paced.per_second as f64;
        (self.paced.at_once + flowed as u64).min(self.paced.limit)
    }

    fn send(&self, partition: i32, event: &[u8]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut record =
            BaseRecord::<(), [u8]>::to(&self.topic).partition(partition).payload(event);
        loop {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            record = match self.producer.send(record) {
                Ok(()) => {
                    self.producer.poll(Duration::ZERO);
                    return Ok(());
                }
                Err((error, record)) if error == full && Instant::now() < deadline => record,
                Err((error, _)) => return Err(failed("produce")(error)),
            };
            self.producer.poll(Duration::from_millis(10));
        }
    }
}

impl Drop for Producing {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

fn failed(what: &'static str) -> impl Fn(KafkaError) -> Error {
    move |error| Error::new(ErrorKind::Other, format!("the demo cannot {what}")).source(error)
}
