//! The main job at size: a real topic into zstd Parquet on a real S3 server.
//!
//! ```sh
//! cargo bench --bench kafka_to_parquet                                  # 1 and 3 million messages, 4 partitions
//! cargo bench --bench kafka_to_parquet -- --messages 1000000,3000000,10000000 --partitions 4 --workers 1
//! cargo bench --bench kafka_to_parquet -- --messages 20000000 --intervals 10s,none --runs 3   # what checkpoints cost
//! ```
//! The messages are the deterministic events of `tidelock_json::sample`. Each
//! size runs the `tidelock` binary as a process of its own with `--until-end`,
//! and is set beside the sum of its parts measured alone in the same run: raw
//! consume, JSON decode, Parquet encode. CPU is user and system time of the
//! whole process, from start to exit.

#![allow(clippy::disallowed_methods, reason = "a benchmark waits on its own thread")]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Cpu, Options, Row, Usage};
use tidelock_connector::{ErrorKind, Result};
use tidelock_services::{Kafka, S3};

fn main() {
    let options = Options::parse();
    let (Some(kafka), Some(s3)) = (tidelock_services::kafka(), tidelock_services::minio()) else {
        return;
    };
    if let Err(error) = bench(&options, kafka, s3) {
        eprintln!("{error}");
        std::process::exit(3);
    }
}

fn bench(options: &Options, kafka: &Kafka, s3: &S3) -> Result<()> {
    let decode = support::decode(500_000)?;
    let encode = support::encode(500_000)?;
    let mut rows = Vec::new();
    for &messages in &options.messages {
        let topic = tidelock_services::unique("bench");
        let began = Instant::now();
        support::fill(kafka, &topic, options.partitions, messages)?;
        eprintln!("{messages} messages produced in {:.1} s", began.elapsed().as_secs_f64());
        let consume = support::consume(kafka, &topic, options.partitions, messages)?;
        for run in 0..options.runs {
            for interval in &options.intervals {
                let name = format!("{topic}-{run}-{interval}");
                let usage = tidelock(options.workers, interval, &name, kafka, s3, &topic)?;
                let interval = interval.clone();
                rows.push(Row { messages, interval, usage, consume, decode, encode });
            }
        }
        kafka.client().delete_topic(&topic)?;
    }
    support::print(options, &rows);
    Ok(())
}

/// Runs the binary to the end of the topic.
fn tidelock(
    workers: usize,
    interval: &str,
    name: &str,
    kafka: &Kafka,
    s3: &S3,
    topic: &str,
) -> Result<Usage> {
    let bucket = s3.bucket("bench")?;
    let folder = tempfile::tempdir().map_err(support::failed)?;
    let file = folder.path().join("pipeline.toml");
    let toml =
        support::pipeline(workers, interval, name, kafka.client().bootstrap(), topic, s3, &bucket);
    std::fs::write(&file, toml).map_err(support::failed)?;

    let before = Cpu::of_children();
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidelock"))
        .arg("run")
        .arg(&file)
        .args(["--until-end", "--json"])
        .envs(s3.env())
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(support::failed)?;
    let mut peak_kib = 0;
    let status = loop {
        peak_kib = peak_kib.max(support::peak_rss_kib(child.id()));
        if let Some(status) = child.try_wait().map_err(support::failed)? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let wall = began.elapsed();
    let cpu = Cpu::of_children().since(&before);
    let output = child.wait_with_output().map_err(support::failed)?;
    if !status.success() {
        return Err(tidelock_connector::Error::new(
            ErrorKind::Other,
            format!("tidelock ended with {status}"),
        ));
    }
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(support::failed)?;
    support::usage(&report, wall, cpu, peak_kib)
}
