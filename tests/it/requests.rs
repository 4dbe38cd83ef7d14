//! What a checkpoint costs in requests to the store, counted between a pipeline
//! and a real server: for stores that bill by request, and are far away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidelock::store::Store;
use tidelock_services::{Kafka, S3};
use tidelock_storm::{Asked, FaultProxy, Rates};

use crate::storm::alone;
use crate::support::{Job, Target, append, files, open, pipeline, topic};

/// What is uploaded in parts is uploaded in parts of this size.
const PART_BYTES: u64 = 8 << 20;

/// What the requests of one run were for.
#[derive(Debug, Default)]
struct Bill {
    /// Objects written to staging with one request.
    staged: usize,
    /// Beginnings and ends of uploads in parts.
    framed: usize,
    /// Parts of them.
    parts: usize,
    /// Copies that make visible.
    published: usize,
    /// Deletions of staged bytes, of any number at once.
    deleted: usize,
    /// Writes of the record.
    swapped: usize,
    /// Whatever the start asks for: it comes before the first staged byte.
    start: usize,
    /// Nobody said what for.
    other: Vec<Asked>,
}

impl Bill {
    fn of(log: Vec<Asked>) -> Self {
        let mut bill = Self::default();
        for asked in log {
            let staging = asked.target.contains("/staging/");
            let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
            match (asked.method.as_str(), query) {
                ("PUT", _) if asked.copied_from.is_some() => bill.published += 1,
                ("PUT", query) if query.contains("partNumber=") => bill.parts += 1,
                ("POST", query) if staging && query.contains("upload") => bill.framed += 1,
                ("PUT", _) if staging => bill.staged += 1,
                ("PUT", _) if path.ends_with("/head.json") => bill.swapped += 1,
                _ if bill.staged + bill.framed == 0 => bill.start += 1,
                ("POST", "delete") | ("DELETE", _) => bill.deleted += 1,
                _ => bill.other.push(asked),
            }
        }
        bill
    }

    fn print(&self, what: &str, files: usize, checkpoints: usize) {
        eprintln!("{what}: {files} files in {checkpoints} checkpoints");
        let rows = [
            ("stage", self.staged),
            ("upload, begin and end", self.framed),
            ("upload, parts", self.parts),
            ("publish", self.published),
            ("delete", self.deleted),
            ("write the record", self.swapped),
        ];
        for (name, requests) in rows.into_iter().filter(|(_, requests)| *requests > 0) {
            let (per_file, per_checkpoint) =
                (requests as f64 / files as f64, requests as f64 / checkpoints as f64);
            eprintln!(
                "  {name:22} {requests:5}  {per_file:5.2} a file  {per_checkpoint:6.2} a checkpoint"
            );
        }
        eprintln!("  {:22} {:5}", "at the start", self.start);
    }
}

/// A pipeline whose requests are counted on their way to MinIO.
struct Counted {
    topic: String,
    target: Target,
    proxy: FaultProxy,
    job: Job,
}

impl Counted {
    fn new(
        kafka: &Kafka,
        s3: &'static S3,
        count: usize,
        change: impl Fn(String) -> String,
    ) -> Self {
        let topic = topic(kafka, "requests", 2, count);
        let target = Target::bucket(s3);
        let proxy = FaultProxy::start(s3.address(), 1, Rates::none()).unwrap();
        let toml = pipeline(kafka, &topic, &target, "partition_by = [\"country\"]");
        let toml = change(toml.replace(s3.endpoint(), &proxy.endpoint()));
        let job = Job::new(&toml, Some(s3));
        Self { topic, target, proxy, job }
    }

    fn store(&self) -> Store {
        open(&self.target)
    }
}

/// How many checkpoints these data files are of.
fn checkpoints(paths: &[String]) -> usize {
    let set = |path: &String| {
        let mut parts = path.rsplit('-').skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    paths.iter().map(set).collect::<BTreeSet<_>>().len()
}

fn reads_the_record(asked: &Asked) -> bool {
    asked.method == "GET" && asked.target.ends_with("/head.json")
}

/// How often the record was written.
fn sequence(counted: &Counted) -> usize {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let path = format!("_tidelock/{}/head.json", counted.topic);
    let bytes = runtime.block_on(counted.store().get(&path)).unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    record["sequence"].as_u64().unwrap() as usize
}

/// While data flows: stage and publish each object, delete those of a
/// checkpoint together, and write the record once.
fn steady(extension: &str, objects_per_file: usize, change: impl Fn(String) -> String) {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let Some(s3) = tidelock_services::minio() else { return };
    let counted = Counted::new(kafka, s3, 100, change);
    // A storm beside it could hold the producer up for longer than that.
    let _alone = alone();
    let run = counted.job.spawn("run", &[]);
    let begun = Instant::now();
    let mut round = 0;
    // Never quiet for an interval, or the record would be written for that.
    while begun.elapsed() < Duration::from_secs(16) {
        round += 1;
        append(kafka, &counted.topic, 2, round, 60);
        std::thread::sleep(Duration::from_millis(100));
    }
    run.stop();
    let bill = Bill::of(counted.proxy.take_log());
    let paths: Vec<String> =
        files(&counted.target, extension).into_iter().map(|(path, _)| path).collect();
    let (files, checkpoints) = (paths.len(), checkpoints(&paths));
    bill.print(extension, files, checkpoints);
    assert!(checkpoints >= 4 && files > 4 * checkpoints, "{files} in {checkpoints}");
    assert_eq!(bill.staged, objects_per_file * files, "{bill:?}");
    assert_eq!(bill.published, objects_per_file * files, "{bill:?}");
    assert!(bill.deleted <= checkpoints, "{bill:?}");
    // The claim before the first, and what clears the last.
    assert_eq!(bill.swapped, checkpoints + 2, "{bill:?}");
    assert_eq!(bill.swapped, sequence(&counted), "every write has landed");
    assert_eq!(bill.other, [], "nothing else was asked for");
    assert_eq!(bill.framed + bill.parts, 0, "{bill:?}");
}

#[test]
fn a_checkpoint_of_parquet_files_costs_what_is_promised() {
    steady(".parquet", 1, |toml| toml.replace("interval = \"1s\"", "interval = \"3s\""));
}

/// JSON lines have no footer: what it would say is an object of its own.
#[test]
fn a_checkpoint_of_json_lines_costs_the_same_for_file_and_sidecar() {
    steady(".jsonl", 2, |toml| {
        toml.replace("interval = \"1s\"", "interval = \"3s\"").replace(
            "type = \"parquet\"\ncompression = \"zstd(1)\"",
            "type = \"file\"\nformat = \"json\"",
        )
    });
}

#[test]
fn a_file_of_several_parts_costs_four_requests_more() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let Some(s3) = tidelock_services::minio() else { return };
    let counted = Counted::new(kafka, s3, 150_000, |toml| {
        toml.replace("interval = \"1s\"", "interval = \"5m\"\nbytes = \"4GB\"")
            .replace("partition_by = [\"country\"]", "")
            .replace("zstd(1)", "none")
    });
    counted.job.ok("run", &["--until-end"]);
    let files = files(&counted.target, ".parquet");
    let bill = Bill::of(counted.proxy.take_log());
    let paths: Vec<String> = files.iter().map(|(path, _)| path.clone()).collect();
    bill.print("one large file", files.len(), checkpoints(&paths));
    let [(_, bytes)] = files.as_slice() else { panic!("{paths:?}") };
    let parts = (bytes.len() as u64).div_ceil(PART_BYTES) as usize;
    assert!(parts > 1, "{} bytes", bytes.len());
    assert_eq!(bill.parts, parts, "{bill:?}");
    assert_eq!(bill.framed + bill.published + bill.deleted, 4, "{bill:?}");
    assert_eq!(bill.staged, 0, "{bill:?}");
    // A bounded run asks the record whether the others are done, too.
    let other = bill.other.iter().all(reads_the_record);
    assert!(other, "{bill:?}");
}
