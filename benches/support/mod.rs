//! What benchmarks share: filling topics, measuring parts, printing tables.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use tidelock_connector::arrow::array::RecordBatch;
use tidelock_connector::{
    Barrier, Batch, Coverage, Error, ErrorKind, Incarnation, Result, Sink, SinkContext, Stream,
    TopicPartition,
};
use tidelock_file::{Compression, ParquetSink};
use tidelock_json::sample::{self, EventGenerator};
use tidelock_json::{JsonDecoder, JsonOptions};
use tidelock_services::{Kafka, S3};

/// What to measure.
pub(crate) struct Options {
    pub(crate) messages: Vec<u64>,
    pub(crate) partitions: i32,
    pub(crate) workers: usize,
    pub(crate) runs: usize,
    /// Between two checkpoints; `none` for a single one at the end.
    pub(crate) intervals: Vec<String>,
}

impl Options {
    pub(crate) fn parse() -> Self {
        let mut options = Self {
            messages: vec![1_000_000, 3_000_000],
            partitions: 4,
            workers: 1,
            runs: 1,
            intervals: vec!["10s".to_owned()],
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
            match argument.as_str() {
                "--partitions" => options.partitions = number() as i32,
                "--workers" => options.workers = number(),
                "--runs" => options.runs = number(),
                "--intervals" => {
                    let list = arguments.next().unwrap_or_default();
                    options.intervals = list.split(',').map(str::to_owned).collect();
                }
                "--messages" => {
                    let list = arguments.next().unwrap_or_default();
                    options.messages = list.split(',').filter_map(|n| n.parse().ok()).collect();
                }
                _ => {}
            }
        }
        options
    }
}

pub(crate) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Other, "benchmark").source(error)
}

/// User and system time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu(Duration);

impl Cpu {
    pub(crate) fn of_children() -> Self {
        Self::of(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)
    }

    fn of_self() -> Self {
        Self::of(nix::sys::resource::UsageWho::RUSAGE_SELF)
    }

    fn of(who: nix::sys::resource::UsageWho) -> Self {
        nix::sys::resource::getrusage(who).map_or(Self::default(), |usage| {
            let micros = |time: nix::sys::time::TimeVal| {
                time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64
            };
            Self(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
        })
    }

    pub(crate) fn since(self, before: &Self) -> Duration {
        self.0.saturating_sub(before.0)
    }
}

/// The most memory that a process has held so far.
pub(crate) fn peak_rss_kib(pid: u32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(0)
}

/// What a whole run took.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    wall: Duration,
    cpu: Duration,
    peak_kib: u64,
    rows: u64,
    files: u64,
    checkpoints: u64,
}

pub(crate) fn usage(
    report: &serde_json::Value,
    wall: Duration,
    cpu: Duration,
    peak_kib: u64,
) -> Result<Usage> {
    let number = |path: &str| report.pointer(path).and_then(serde_json::Value::as_u64);
    let missing = || Error::new(ErrorKind::Other, "the report lacks a figure");
    Ok(Usage {
        wall,
        cpu,
        peak_kib,
        rows: number("/sinks/lake/rows").ok_or_else(missing)?,
        files: number("/sinks/lake/files").ok_or_else(missing)?,
        checkpoints: number("/checkpoints").ok_or_else(missing)?,
    })
}

/// One line of the table: a run beside its parts, in CPU ns per message.
pub(crate) struct Row {
    pub(crate) messages: u64,
    pub(crate) interval: String,
    pub(crate) usage: Usage,
    pub(crate) consume: f64,
    pub(crate) decode: f64,
    pub(crate) encode: f64,
}

pub(crate) fn print(options: &Options, rows: &[Row]) {
    println!(
        "{} partitions, {} worker(s), zstd 1, CPU in ns per message",
        options.partitions, options.workers
    );
    println!(
        "{:>10} {:>8} {:>8} {:>8} {:>10} {:>6} {:>6} | {:>8} | {:>8} {:>7} {:>7} {:>7} {:>6}",
        "messages",
        "interval",
        "wall s",
        "cpu s",
        "peak MiB",
        "files",
        "ckpts",
        "ns/msg",
        "consume",
        "decode",
        "encode",
        "sum",
        "ratio"
    );
    for row in rows {
        let Usage { wall, cpu, peak_kib, rows: written, files, checkpoints } = row.usage;
        let per_message = cpu.as_nanos() as f64 / row.messages as f64;
        let sum = row.consume + row.decode + row.encode;
        println!(
            "{:>10} {:>8} {:>8.2} {:>8.2} {:>10.0} {:>6} {:>6} | {:>8.0} | {:>8.0} {:>7.0} {:>7.0} {:>7.0} {:>6.2}",
            row.messages,
            row.interval,
            wall.as_secs_f64(),
            cpu.as_secs_f64(),
            peak_kib as f64 / 1024.0,
            files,
            checkpoints,
            per_message,
            row.consume,
            row.decode,
            row.encode,
            sum,
            per_message / sum
        );
        assert_eq!(written, row.messages, "every message is one row");
    }
}

/// Fills a topic with the sample events, round robin over its partitions.
pub(crate) fn fill(kafka: &Kafka, topic: &str, partitions: i32, messages: u64) -> Result<()> {
    kafka.client().create_topic(topic, partitions, &[])?;
    let mut config: ClientConfig = kafka.client().config();
    config
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("batch.size", "500000")
        .set("queue.buffering.max.messages", "500000");
    let producer: BaseProducer = config.create().map_err(failed)?;
    let mut events = EventGenerator::new(1);
    let mut event = Vec::new();
    for number in 0..messages {
        event.clear();
        events.write_event(&mut event);
        let partition = (number % partitions as u64) as i32;
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(&event).partition(partition);
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(failed(error));
            }
            producer.poll(Duration::from_millis(5));
            record = back;
        }
        if number % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60)).map_err(failed)
}

/// Reads a topic with librdkafka alone, message by message.
pub(crate) fn consume(kafka: &Kafka, topic: &str, partitions: i32, messages: u64) -> Result<f64> {
    let mut config = kafka.client().config();
    config
        .set("group.id", format!("{topic}-raw"))
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5")
        .set("max.partition.fetch.bytes", "1000000");
    let before = Cpu::of_self();
    let consumer: BaseConsumer = config.create().map_err(failed)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).map_err(failed)?;
    }
    consumer.assign(&list).map_err(failed)?;
    let (mut seen, mut quiet) = (0, Instant::now());
    while seen < messages && quiet.elapsed() < Duration::from_secs(30) {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            message.map_err(failed)?;
            seen += 1;
            quiet = Instant::now();
        }
    }
    Ok(Cpu::of_self().since(&before).as_nanos() as f64 / seen.max(1) as f64)
}

/// Decodes events that are in memory already.
pub(crate) fn decode(messages: usize) -> Result<f64> {
    let (events, ends) = events(messages);
    let before = Cpu::of_self();
    batches(&events, &ends)?;
    Ok(Cpu::of_self().since(&before).as_nanos() as f64 / messages as f64)
}

fn events(messages: usize) -> (Vec<u8>, Vec<usize>) {
    let mut generator = EventGenerator::new(1);
    let (mut events, mut ends) = (Vec::new(), Vec::with_capacity(messages));
    for _ in 0..messages {
        generator.write_event(&mut events);
        ends.push(events.len());
    }
    (events, ends)
}

fn batches(events: &[u8], ends: &[usize]) -> Result<Vec<RecordBatch>> {
    let mut decoder = JsonDecoder::new(sample::schema(), JsonOptions::default())?;
    let mut batches = Vec::new();
    let mut begin = 0;
    for (number, end) in ends.iter().enumerate() {
        decoder
            .decode(&events[begin..*end])
            .map_err(|e| Error::new(ErrorKind::BadRecord, e.to_string()))?;
        begin = *end;
        if (number + 1) % 16_384 == 0 {
            batches.push(decoder.finish()?);
        }
    }
    batches.push(decoder.finish()?);
    Ok(batches)
}

/// Encodes decoded events as Parquet, into a store in memory.
pub(crate) fn encode(messages: usize) -> Result<f64> {
    let (events, ends) = events(messages);
    let batches = batches(&events, &ends)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let sink =
            ParquetSink::builder("memory:///bench").compression(Compression::Zstd(1)).build()?;
        let stream = Stream::new("events", sample::schema());
        let partition = TopicPartition::new("events", 0);
        let ctx = SinkContext::new("bench", "lake", Incarnation::new(), 64 << 20);
        let mut writer = sink.open(ctx).await?;
        let before = Cpu::of_self();
        let mut next = 0;
        for records in batches {
            let rows = records.num_rows() as i64;
            let coverage = Coverage::of(partition.clone(), next, next + rows);
            next += rows;
            writer.write(&Batch::new(stream.clone(), records, coverage)).await?;
        }
        let coverage = Coverage::of(partition.clone(), 0, next);
        let barrier =
            Barrier { checkpoint: 1, coverage, epochs: [(partition, 1)].into(), last: true };
        writer.prepare(&barrier).await?;
        Ok(Cpu::of_self().since(&before).as_nanos() as f64 / messages as f64)
    })
}

/// The pipeline of the main job.
pub(crate) fn pipeline(
    workers: usize,
    interval: &str,
    name: &str,
    brokers: &str,
    topic: &str,
    s3: &S3,
    bucket: &str,
) -> String {
    let checkpoint = match interval {
        "none" => "interval = \"24h\"\nbytes = \"1000GB\"".to_owned(),
        interval => format!("interval = \"{interval}\""),
    };
    let endpoint = s3.endpoint();
    let schema = schema_toml();
    format!(
        r#"name = "{name}"
[source]
type = "kafka"
brokers = "{brokers}"
topics = ["{topic}"]
start = "earliest"
format = {{ type = "json", schema = {schema} }}
[[sink]]
name = "lake"
type = "parquet"
url = "s3://{bucket}/events"
storage = {{ endpoint = "{endpoint}", allow_http = true }}
compression = "zstd(1)"
[checkpoint]
{checkpoint}
[runtime]
workers = {workers}
"#
    )
}

/// The columns of the sample events, as a pipeline file declares them.
fn schema_toml() -> &'static str {
    r#"[
    { name = "id", type = "utf8" },
    { name = "ts", type = "timestamp(ms)" },
    { name = "user", type = "utf8" },
    { name = "country", type = "utf8" },
    { name = "amount", type = "float64" },
    { name = "quantity", type = "int32" },
    { name = "geo", type = "struct", fields = [{ name = "lat", type = "float64" }, { name = "lon", type = "float64" }] },
    { name = "tags", type = "list", item = { type = "utf8" } },
]"#
}
