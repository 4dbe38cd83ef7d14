//! What fairness costs, and what it gives.
//!
//! ```sh
//! cargo bench -p tidelock-kafka --bench reader              # all of it, some minutes
//! cargo bench -p tidelock-kafka --bench reader -- cpu       # or: waits, skew, many, full
//! ```
//! * `cpu`: the reader against a bare loop over librdkafka's batch call that
//!   decodes the same messages into the same columns.
//! * `waits`: how long a message of a quiet topic takes from its producer to
//!   `next`, beside a backlog, and the same in the order of arrival.
//! * `skew`: how fast a backlog on one partition, or a few, is read beside
//!   others that have nothing.
//! * `many`: a thousand partitions, most of them quiet, against four, at the
//!   same rate.
//! * `full`: the memory of a reader all of whose thousand partitions are full,
//!   and what it takes to read them.
//!
//! Each measurement is a process of its own.

#![allow(clippy::disallowed_methods, reason = "a benchmark waits on its own thread")]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/load.rs"]
mod load;

use std::process::Command;
use std::time::{Duration, Instant};

use tidelock_connector::{Event, OpenSource, Source, SourceContext, Start};
use tidelock_json::sample;
use tidelock_kafka::{Json, KafkaSource};

/// What a reader gets of a process' 160 MiB.
const MEMORY: usize = 53 << 20;
const MESSAGES: u64 = 2_000_000;
const RATE: u64 = 100_000;
const LIVE: Duration = Duration::from_secs(15);
/// Until everybody has found their places.
const WARM_UP: Duration = Duration::from_secs(6);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    if let [child, rest @ ..] = arguments.as_slice()
        && let Some(job) = child.strip_prefix("child=")
    {
        let [brokers, topics @ ..] = rest else { return };
        return run(job, brokers, topics);
    }
    let Some(kafka) = tidelock_services::kafka() else { return };
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|one| one == name);
    let brokers = kafka.client().bootstrap();
    let topic = |name: &str, partitions| {
        let topic = tidelock_services::unique(name);
        kafka.client().create_topic(&topic, partitions, &[]).expect("a topic");
        topic
    };
    if wanted("cpu") || wanted("waits") {
        let (busy, quiet) = (topic("busy", 4), topic("quiet", 1));
        load::fill(brokers, &busy, 4, MESSAGES);
        if wanted("cpu") {
            for job in ["bare", "bare-decode", "reader", "bare-decode", "reader"] {
                child(job, brokers, &[&busy]);
            }
        }
        if wanted("waits") {
            for job in ["waits-fair", "waits-arrival"] {
                child(job, brokers, &[&busy, &quiet]);
            }
        }
    }
    if wanted("many") {
        let (few, many) = (topic("few", 4), topic("many", 1_000));
        for (topic, partitions) in [(&few, 4), (&many, 1_000)] {
            eprintln!("{partitions} partitions, {RATE} messages a second on 4 of them:");
            let time = WARM_UP + LIVE + Duration::from_secs(20);
            let stop = load::paced(brokers, topic, partitions, RATE, time);
            child("live", brokers, &[topic]);
            stop.join().expect("the producer does not panic");
        }
    }
    if wanted("skew") {
        for (busy, of) in [(4, 4), (1, 4), (1, 100), (1, 1_000), (4, 1_000)] {
            let topic = topic("skew", of);
            load::fill(brokers, &topic, busy, MESSAGES);
            eprintln!("a backlog on {busy} of {of} partitions:");
            child("backlog", brokers, &[&topic]);
        }
    }
    if wanted("full") {
        let many = topic("full", 1_000);
        load::fill(brokers, &many, 1_000, 4_600_000);
        eprintln!("1,000 partitions with more than 1 MB each:");
        child("full", brokers, &[&many]);
        child("reader", brokers, &[&many]);
    }
}

/// Runs one measurement in a process of its own.
fn child(job: &str, brokers: &str, topics: &[&str]) {
    let me = std::env::current_exe().expect("this file");
    let status = Command::new(me).arg(format!("child={job}")).arg(brokers).args(topics).status();
    assert!(status.expect("it runs").success(), "{job} failed");
}

fn run(job: &str, brokers: &str, topics: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    match job {
        "bare" => tell(job, bare::drain(brokers, &topics[0], false)),
        "bare-decode" => tell(job, bare::drain(brokers, &topics[0], true)),
        "reader" => tell(job, runtime.block_on(drain(brokers, topics)).0),
        "backlog" => {
            let (spent, time) = runtime.block_on(drain(brokers, topics));
            println!("{job:>12}: {:.0} messages a second", spent.0 as f64 / time.as_secs_f64());
            tell(job, spent);
        }
        "live" => tell(job, runtime.block_on(live(brokers, topics))),
        "full" => runtime.block_on(full(brokers, topics)),
        "waits-fair" => runtime.block_on(waits(brokers, topics)),
        "waits-arrival" => bare::waits(brokers, &topics[0], &topics[1]),
        _ => eprintln!("there is no {job}"),
    }
}

fn tell(job: &str, (messages, cpu): (u64, Duration)) {
    let each = cpu.as_nanos() as f64 / messages.max(1) as f64;
    println!("{job:>12}: {messages:>8} messages, {each:>6.0} ns of CPU each");
}

/// The reader, and how much it has delivered.
struct Reading(OpenSource);

impl Reading {
    async fn open(brokers: &str, topics: &[String]) -> Self {
        let group = format!("bench-{}", std::process::id());
        let source = KafkaSource::builder(brokers, &group)
            .topics(topics)
            .format(Json::schema(sample::schema()))
            .coordinates([])
            .build()
            .expect("a valid source");
        let context = SourceContext::new("bench", 0, MEMORY);
        Self(source.open(context).await.expect("the broker answers"))
    }

    /// The rows of the next event, and their topic.
    async fn rows(&mut self, live: bool) -> Option<(u64, String)> {
        let event = match self.0.reader.next().await {
            // Of a topic that is new: its partitions have no leaders yet.
            Err(error) if error.is_retryable() => return None,
            event => event.expect("no lasting error"),
        };
        match event {
            Event::Batch(batch) => {
                return Some((batch.num_rows() as u64, batch.stream.name.to_string()));
            }
            Event::Assigned(assignment) => {
                let starts = assignment.partitions.into_iter().map(|one| Start {
                    offset: if live { one.end } else { 0 },
                    partition: one.partition,
                    end: None,
                });
                let _gone = assignment.reply.send(starts.collect());
            }
            Event::Idle => return Some((0, String::new())),
            _ => {}
        }
        None
    }

    /// Waits until it is reading.
    async fn begin(&mut self, live: bool) -> u64 {
        loop {
            if let Some((rows @ 1.., _)) = self.rows(live).await {
                return rows;
            }
        }
    }
}

/// From the first rows to the last: messages, CPU and time.
async fn drain(brokers: &str, topics: &[String]) -> ((u64, Duration), Duration) {
    let mut reading = Reading::open(brokers, topics).await;
    reading.begin(false).await;
    let (began, before, mut messages, mut idle) = (Instant::now(), load::cpu(), 0, 0);
    let mut time = Duration::ZERO;
    while idle < 3 {
        match reading.rows(false).await {
            Some((0, _)) => idle += 1,
            Some((rows, _)) => {
                (messages, idle, time) = (messages + rows, 0, began.elapsed());
            }
            None => {}
        }
    }
    ((messages, load::cpu() - before), time)
}

async fn live(brokers: &str, topics: &[String]) -> (u64, Duration) {
    let mut reading = Reading::open(brokers, topics).await;
    reading.begin(true).await;
    let began = Instant::now();
    while began.elapsed() < WARM_UP {
        reading.rows(true).await;
    }
    load::threads();
    let (began, before, mut messages) = (Instant::now(), load::cpu(), 0);
    while began.elapsed() < LIVE {
        messages += reading.rows(true).await.map_or(0, |(rows, _)| rows);
    }
    load::threads();
    (messages, load::cpu() - before)
}

/// Nobody takes what the reader has, until nothing moves any more.
async fn full(brokers: &str, topics: &[String]) {
    let mut reading = Reading::open(brokers, topics).await;
    reading.begin(false).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    println!("{:>12}: {} MiB resident", "full", load::resident_mib());
}

/// A message of the quiet topic every 50 ms, into a sink that takes
/// [`load::SINK_RATE`] rows a second.
async fn waits(brokers: &str, topics: &[String]) {
    let mut reading = Reading::open(brokers, topics).await;
    reading.begin(false).await;
    let quiet = load::Quiet::start(brokers, &topics[1]);
    let (mut waits, mut rest, sink) = (Vec::new(), 0, load::Sink::new());
    while waits.len() < load::QUIET_MESSAGES && rest + 200_000 < MESSAGES {
        match reading.rows(false).await {
            Some((0, _)) => break,
            Some((rows, topic)) if topic == topics[1] => quiet.received(rows, &mut waits),
            Some((rows, _)) => {
                rest += rows;
                tokio::time::sleep(sink.ahead(rest)).await;
            }
            None => {}
        }
    }
    load::table("fair", waits, rest);
}
