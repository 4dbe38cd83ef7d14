//! A quiet topic beside a busy one, and who waits for whom.
//!
//! ```sh
//! cargo run --example fair_polling                        # a broker inside the process, two minutes
//! cargo run --example fair_polling -- localhost:9092 --seconds 30 --folder ./out
//! ```
//! A busy topic of three partitions gets 20 messages every 500 ms, a quiet one
//! of one partition a message every 3 s. One pipeline reads both and writes
//! JSON lines into `high_vol/` and `low_vol/`. At the end it says how many
//! there are of each, what share the quiet one had, and how long its messages
//! waited for their turn.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use tidelock::connector::arrow::datatypes::{DataType, Field, Schema};
use tidelock::connector::{Error, ErrorKind, Result};
use tidelock::file::JsonLinesSink;
use tidelock::kafka::{FairnessReport, Json, KafkaSource, Threshold};
use tidelock::store::StoreConfig;
use tidelock::{Pipeline, State};
use tokio_util::sync::CancellationToken;

const BUSY_PARTITIONS: i32 = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    // Topics of their own, so that nothing is there from the run before.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (high, low) = (format!("high-volume-{now}"), format!("low-volume-{now}"));
    let broker = Broker::start(arguments.brokers.as_deref(), &high, &low).await?;

    let schema = Schema::new(vec![
        Field::new("number", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
    ]);
    let source = KafkaSource::builder(&broker.address, &format!("fair-polling-{now}"))
        .topics([&high, &low])
        .format(Json::schema(schema))
        .poll_interval(Duration::from_millis(50))
        .max_poll_records(100)
        .partition_pause_threshold(Threshold::Messages(500))
        .build()?;
    let fairness = source.fairness();
    let folder = |name: &str| arguments.folder.join(name).display().to_string();

    let stop = CancellationToken::new();
    let producer = broker.produce(&high, &low, stop.clone())?;
    let run_for = Duration::from_secs(arguments.seconds);
    let report = Pipeline::builder(format!("fair-polling-{now}"))
        .source(source)
        .sink_for("high", [&high], JsonLinesSink::builder(folder("high_vol")).build()?)
        .sink_for("low", [&low], JsonLinesSink::builder(folder("low_vol")).build()?)
        .state(State::Store(StoreConfig::new(folder("_state"))))
        .checkpoint_every(Duration::from_secs(5))
        .run(async move {
            tokio::time::sleep(run_for).await;
            stop.cancel();
            // For what is on its way.
            tokio::time::sleep(Duration::from_secs(2)).await;
        })
        .await?;
    let produced = producer.await.map_err(failed)??;
    let rows = |sink: &str| report.sinks.get(sink).map_or(0, |sink| sink.rows);
    tell(&fairness.report(), &low, produced, (rows("high"), rows("low")));
    println!("files: {}", arguments.folder.display());
    Ok(())
}

fn tell(report: &FairnessReport, low: &str, sent: (u64, u64), rows: (u64, u64)) {
    println!("high volume: {} messages sent, {} rows", sent.0, rows.0);
    println!("low volume:  {} messages sent, {} rows", sent.1, rows.1);
    let all = (rows.0 + rows.1).max(1) as f64;
    for one in report.partitions.iter().filter(|one| &*one.topic == low) {
        println!(
            "the low volume's share: {:.2} % of the records, {:.2} % of the bytes",
            rows.1 as f64 / all * 100.0,
            one.share * 100.0
        );
        println!(
            "the low volume's worst wait for its turn: {:.1} ms, with {} records of others between",
            one.longest_wait.as_secs_f64() * 1_000.0,
            one.overtaken
        );
    }
}

struct Arguments {
    brokers: Option<String>,
    seconds: u64,
    folder: PathBuf,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("fair_polling-{}", std::process::id()));
        let mut parsed = Self { brokers: None, seconds: 120, folder };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seconds" => {
                    let number = arguments.next().and_then(|text| text.parse().ok());
                    parsed.seconds = number.ok_or_else(usage)?;
                }
                "--folder" => {
                    let folder = std::path::absolute(arguments.next().ok_or_else(usage)?);
                    parsed.folder = folder.map_err(failed)?;
                }
                flag if flag.starts_with('-') => return Err(usage()),
                brokers => parsed.brokers = Some(brokers.to_owned()),
            }
        }
        Ok(parsed)
    }
}

fn usage() -> Error {
    Error::config("usage: fair_polling [BROKERS] [--seconds 120] [--folder FOLDER]")
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Other, error.to_string())
}

/// Where the messages are: somewhere, or in librdkafka's mock cluster.
struct Broker {
    address: String,
    _inside: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Broker {
    /// Finds or starts it, and makes the topics.
    async fn start(brokers: Option<&str>, high: &str, low: &str) -> Result<Self> {
        let topics = [(high, BUSY_PARTITIONS), (low, 1)];
        let Some(brokers) = brokers else {
            let inside = MockCluster::new(1).map_err(failed)?;
            for (name, partitions) in topics {
                inside.create_topic(name, partitions, 1).map_err(failed)?;
            }
            return Ok(Self { address: inside.bootstrap_servers(), _inside: Some(inside) });
        };
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", brokers).create().map_err(failed)?;
        let topics = topics
            .map(|(name, partitions)| NewTopic::new(name, partitions, TopicReplication::Fixed(1)));
        for made in admin.create_topics(&topics, &AdminOptions::new()).await.map_err(failed)? {
            made.map_err(|(topic, code)| failed(format!("creating {topic}: {code}")))?;
        }
        Ok(Self { address: brokers.to_owned(), _inside: None })
    }

    /// Sends 20 messages every 500 ms and one every 3 s until `stop`, and says
    /// how many of each it were.
    fn produce(&self, high: &str, low: &str, stop: CancellationToken) -> Result<Producing> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        let producer: BaseProducer = config.create().map_err(failed)?;
        let (high, low) = (high.to_owned(), low.to_owned());
        Ok(tokio::spawn(async move {
            let (mut sent, mut alerts) = (0, 0);
            let mut ticks = tokio::time::interval(Duration::from_millis(500));
            for tick in 0_u32.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stop.cancelled() => break,
                }
                for _ in 0..20 {
                    let partition = (sent % u64::from(BUSY_PARTITIONS.unsigned_abs())) as i32;
                    send(&producer, &high, partition, sent, "page viewed")?;
                    sent += 1;
                }
                if tick % 6 == 0 {
                    send(&producer, &low, 0, alerts, "a disk is full: somebody has to look at it")?;
                    alerts += 1;
                }
                producer.poll(Duration::ZERO);
            }
            let flush = move || producer.flush(Duration::from_secs(10));
            tokio::task::spawn_blocking(flush).await.map_err(failed)?.map_err(failed)?;
            Ok((sent, alerts))
        }))
    }
}

/// Tells how many messages of each topic it has sent.
type Producing = tokio::task::JoinHandle<Result<(u64, u64)>>;

fn send(
    producer: &BaseProducer,
    topic: &str,
    partition: i32,
    number: u64,
    text: &str,
) -> Result<()> {
    let payload = format!("{{\"number\":{number},\"text\":\"{text}\"}}");
    let record = BaseRecord::<(), str>::to(topic).partition(partition).payload(&payload);
    producer.send(record).map_err(|(error, _)| failed(error))
}
