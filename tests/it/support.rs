//! What the tests against real services share: the binary as a user runs it,
//! and an own reader of what it wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidelock::connector::arrow::array::AsArray;
use tidelock::connector::arrow::datatypes::{Int32Type, Int64Type};
use tidelock::store::{Store, StoreConfig};
use tidelock_json::sample::{COLUMNS, EventGenerator};
use tidelock_services::{Kafka, S3};

/// Where a test's files go.
#[derive(Clone)]
pub(crate) enum Target {
    S3(&'static S3, String),
    Folder(PathBuf),
}

impl Target {
    pub(crate) fn bucket(s3: &'static S3) -> Self {
        Self::S3(s3, s3.bucket("it").expect("a bucket"))
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::S3(_, bucket) => format!("s3://{bucket}/events"),
            Self::Folder(folder) => format!("file://{}", folder.display()),
        }
    }

    /// The `url` and `storage` lines of a sink.
    pub(crate) fn toml(&self) -> String {
        let url = self.url();
        match self {
            Self::S3(s3, _) => format!(
                "url = \"{url}\"\nstorage = {{ endpoint = \"{}\", allow_http = true }}",
                s3.endpoint()
            ),
            Self::Folder(_) => format!("url = \"{url}\""),
        }
    }
}

/// A pipeline file in a folder of its own.
pub(crate) struct Job {
    _folder: tempfile::TempDir,
    pub(crate) file: PathBuf,
    env: Vec<(String, String)>,
}

impl Job {
    /// Writes the file; S3 keys come through the environment.
    pub(crate) fn new(toml: &str, s3: Option<&S3>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pipeline.toml");
        std::fs::write(&file, toml).expect("written");
        let env = s3.map(|s3| s3.env().map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec());
        Self { _folder: folder, file, env: env.unwrap_or_default() }
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidelock"));
        command.arg(verb).arg(&self.file).args(arguments).stdin(Stdio::null());
        for key in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "RUST_LOG"] {
            command.env_remove(key);
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, verb: &str, arguments: &[&str]) -> Output {
        self.command(verb, arguments).output().expect("the binary runs")
    }

    /// Runs a command that has to succeed.
    pub(crate) fn ok(&self, verb: &str, arguments: &[&str]) -> String {
        let output = self.run(verb, arguments);
        assert!(
            output.status.success(),
            "{verb} {arguments:?} ended with {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a command and leaves it running.
    pub(crate) fn spawn(&self, verb: &str, arguments: &[&str]) -> Running {
        let child = self
            .command(verb, arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        Running(child)
    }
}

/// A process that ends with its owner.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("reaped");
    }

    /// Asks to stop, and expects a clean end.
    pub(crate) fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
        let status = self.0.wait().expect("reaped");
        assert!(status.success(), "the run ended with {status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `count` sample events.
pub(crate) fn events(seed: u64, count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut generator = EventGenerator::new(seed);
    (0..count).map(move |_| {
        let mut event = Vec::with_capacity(256);
        generator.write_event(&mut event);
        event
    })
}

/// A topic with `count` sample events, spread over its partitions.
pub(crate) fn topic(kafka: &Kafka, prefix: &str, partitions: i32, count: usize) -> String {
    let topic = tidelock_services::unique(prefix);
    kafka.client().create_topic(&topic, partitions, &[]).expect("a topic");
    append(kafka, &topic, partitions, 1, count);
    topic
}

pub(crate) fn append(kafka: &Kafka, topic: &str, partitions: i32, seed: u64, count: usize) {
    let messages = events(seed, count).enumerate().map(|(number, event)| {
        tidelock_services::Message::new(event).partition(number as i32 % partitions)
    });
    kafka.client().produce(topic, messages).expect("produced");
}

/// A pipeline from `topic` to one Parquet sink.
pub(crate) fn pipeline(kafka: &Kafka, topic: &str, target: &Target, extra: &str) -> String {
    let brokers = kafka.client().bootstrap();
    let sink = target.toml();
    format!(
        r#"name = "{topic}"
[source]
type = "kafka"
brokers = "{brokers}"
topics = ["{topic}"]
start = "earliest"
session_timeout = "6s"
format = {{ type = "json", schema = {COLUMNS} }}
[checkpoint]
interval = "1s"
[[sink]]
name = "lake"
type = "parquet"
compression = "zstd(1)"
{sink}
{extra}
"#
    )
}

/// How often each offset of each partition is in the files.
pub(crate) type Seen = BTreeMap<i32, BTreeMap<i64, u32>>;

/// Reads the coordinates of every row of every Parquet file below a URL, with
/// nothing of our own but the listing.
pub(crate) fn read_parquet(target: &Target) -> Seen {
    let mut seen = Seen::new();
    for (_, bytes) in files(target, ".parquet") {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a parquet file");
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["_partition", "_offset"]);
        for rows in builder.with_projection(mask).build().expect("readable") {
            let rows = rows.expect("readable");
            let partitions = rows["_partition"].as_primitive::<Int32Type>();
            let offsets = rows["_offset"].as_primitive::<Int64Type>();
            for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
                *seen.entry(*partition).or_default().entry(*offset).or_default() += 1;
            }
        }
    }
    seen
}

/// The data files below a URL.
pub(crate) fn files(target: &Target, extension: &str) -> Vec<(String, Bytes)> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(target);
        let entries: Vec<_> = store.list("").try_collect().await.expect("listed");
        let mut files = Vec::new();
        for entry in entries {
            if entry.path.ends_with(extension) {
                let bytes = store.get(&entry.path).await.expect("read").expect("there");
                files.push((entry.path, bytes));
            }
        }
        files
    })
}

/// The store behind a target, with keys.
pub(crate) fn open(target: &Target) -> Store {
    match target {
        Target::Folder(_) => Store::open(&StoreConfig::new(target.url())).expect("opens"),
        Target::S3(s3, bucket) => {
            let s3_store = object_store::aws::AmazonS3Builder::new()
                .with_endpoint(s3.endpoint())
                .with_allow_http(true)
                .with_bucket_name(bucket)
                .with_access_key_id(S3::ACCESS_KEY)
                .with_secret_access_key(S3::SECRET_KEY)
                .with_region(S3::REGION)
                .build()
                .expect("a client");
            Store::from_object_store(target.url(), std::sync::Arc::new(s3_store), "events")
                .expect("opens")
        }
    }
}

/// Every offset below `ends` exactly once.
pub(crate) fn assert_exactly_once(seen: &Seen, ends: &BTreeMap<i32, i64>) {
    for (partition, end) in ends {
        let offsets = seen.get(partition).cloned().unwrap_or_default();
        let mut missing = Vec::new();
        for offset in (0..*end).filter(|offset| !offsets.contains_key(offset)) {
            match missing.last_mut() {
                Some((_, to)) if *to == offset => *to += 1,
                _ => missing.push((offset, offset + 1)),
            }
        }
        let doubled: Vec<_> = offsets.iter().filter(|(_, n)| **n > 1).take(5).collect();
        assert!(missing.is_empty(), "partition {partition} of {end} lacks {missing:?}");
        assert!(doubled.is_empty(), "partition {partition} has twice {doubled:?} …");
        assert_eq!(offsets.len() as i64, *end, "partition {partition} has too much");
    }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The path of an example that cargo has built beside the binary.
pub(crate) fn example(name: &str) -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_tidelock"));
    binary.parent().expect("a folder").join("examples").join(name)
}
