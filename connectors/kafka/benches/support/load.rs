//! Filling topics, and measuring.

use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidelock_json::sample::EventGenerator;

/// How many waits make a table.
pub(crate) const QUIET_MESSAGES: usize = 200;

/// With batches that a fetch of one partition out of a thousand can hold.
fn producer(brokers: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("batch.size", "65536")
        .set("queue.buffering.max.messages", "500000")
        .create()
        .expect("a producer")
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, event: &[u8]) {
    let mut record = BaseRecord::<(), [u8]>::to(topic).payload(event).partition(partition);
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(5));
        record = back;
    }
}

/// Fills a topic with the sample events, a run for each partition in turn.
pub(crate) fn fill(brokers: &str, topic: &str, partitions: i32, messages: u64) {
    let producer = producer(brokers);
    let (mut events, mut event) = (EventGenerator::new(1), Vec::new());
    for number in 0..messages {
        event.clear();
        events.write_event(&mut event);
        // So that batches are large with any number of partitions.
        let partition = (number / 1_000 % partitions as u64) as i32;
        send(&producer, topic, partition, &event);
    }
    producer.flush(Duration::from_secs(120)).expect("all acknowledged");
}

/// Sends `rate` messages a second to the first four partitions, and one in a
/// thousand to any other.
pub(crate) fn paced(
    brokers: &str,
    topic: &str,
    partitions: i32,
    rate: u64,
    time: Duration,
) -> JoinHandle<()> {
    let (producer, topic) = (producer(brokers), topic.to_owned());
    std::thread::spawn(move || {
        let (mut events, mut event) = (EventGenerator::new(1), Vec::new());
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < time {
            while sent < began.elapsed().as_millis() as u64 * rate / 1_000 {
                event.clear();
                events.write_event(&mut event);
                let partition = match sent % 1_000 {
                    0 => (sent / 1_000 % partitions as u64) as i32,
                    _ => (sent % 4) as i32,
                };
                send(&producer, &topic, partition, &event);
                sent += 1;
            }
            producer.poll(Duration::ZERO);
            sleep(Duration::from_millis(2));
        }
        producer.flush(Duration::from_secs(60)).expect("all acknowledged");
    })
}

/// What the sink behind the reader takes in a second.
pub(crate) const SINK_RATE: u64 = 150_000;

/// A sink that is slower than the broker, as they are.
pub(crate) struct Sink(Instant);

impl Sink {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// How long it still works on what it has got so far.
    pub(crate) fn ahead(&self, rows: u64) -> Duration {
        Duration::from_micros(rows * 1_000_000 / SINK_RATE).saturating_sub(self.0.elapsed())
    }
}

/// One message of a quiet topic every 50 ms.
pub(crate) struct Quiet(Receiver<Instant>);

impl Quiet {
    pub(crate) fn start(brokers: &str, topic: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("linger.ms", "0");
        let producer: BaseProducer = config.create().expect("a producer");
        let (topic, (sender, receiver)) = (topic.to_owned(), channel());
        std::thread::spawn(move || {
            let (mut events, mut event) = (EventGenerator::new(2), Vec::new());
            for _ in 0..QUIET_MESSAGES {
                event.clear();
                events.write_event(&mut event);
                if sender.send(Instant::now()).is_err() {
                    return;
                }
                send(&producer, &topic, 0, &event);
                producer.poll(Duration::ZERO);
                sleep(Duration::from_millis(50));
            }
            producer.flush(Duration::from_secs(5)).expect("all acknowledged");
        });
        Self(receiver)
    }

    /// The next `messages` have arrived.
    pub(crate) fn received(&self, messages: u64, waits: &mut Vec<Duration>) {
        waits.extend(self.0.try_iter().take(messages as usize).map(|sent| sent.elapsed()));
    }
}

pub(crate) fn table(what: &str, mut waits: Vec<Duration>, busy: u64) {
    waits.sort_unstable();
    let at = |part: f64| {
        let index = (waits.len().saturating_sub(1) as f64 * part) as usize;
        waits.get(index).map_or(0.0, |wait| wait.as_secs_f64() * 1_000.0)
    };
    println!(
        "{what:>12}: {} quiet messages beside {busy} busy ones, ms to arrive: median {:.0}, p99 {:.0}, worst {:.0}",
        waits.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// User and system time of this process.
pub(crate) fn cpu() -> Duration {
    of_stat(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

fn of_stat(stat: &str) -> Duration {
    // Behind the name, which is in brackets: state is field 3, utime 14, stime 15.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Says which threads have worked so far, and how much.
pub(crate) fn threads() {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return };
    for task in tasks.flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let spent = of_stat(&stat);
        if let (Some((_, name)), true) = (stat.split_once('('), spent.as_millis() >= 50) {
            let name = name.split(')').next().unwrap_or_default();
            println!("{name:>18}: {} ms of CPU", spent.as_millis());
        }
    }
}

pub(crate) fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
