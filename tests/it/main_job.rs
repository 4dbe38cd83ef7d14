//! Kafka topics land as Parquet: the main job, on real services.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::support::{
    Job, Running, Target, append, assert_exactly_once, files, open, pipeline, read_parquet, topic,
    until,
};

/// The shortest full round on every store: run to the end, verify, and verify
/// that verify can fail.
fn whole_round(target: &Target, s3: Option<&'static tidelock_services::S3>) {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = topic(kafka, "round", 4, 60_000);
    let job = Job::new(&pipeline(kafka, &topic, target, ""), s3);
    let report = job.ok("run", &["--until-end", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("one JSON document");
    assert_eq!(report["sinks"]["lake"]["rows"], 60_000);

    let ends = kafka.client().end_offsets(&topic).unwrap();
    assert_eq!(ends.values().sum::<i64>(), 60_000);
    assert_exactly_once(&read_parquet(target), &ends);
    assert_eq!(kafka.client().committed_offsets(&topic, &topic).unwrap(), ends, "the lag is 0");
    let verdict = job.ok("verify", &[]);
    assert!(verdict.contains("60,000") || verdict.contains("60000"), "{verdict}");

    // A second run finds nothing to do and changes nothing.
    let before = files(target, ".parquet").len();
    job.ok("run", &["--until-end"]);
    assert_eq!(files(target, ".parquet").len(), before);

    // Verify must be able to say no.
    let (path, bytes) = files(target, ".parquet").swap_remove(0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open(target);
    runtime.block_on(store.put("copy.parquet", bytes.clone())).unwrap();
    refuses(&job, &topic, "copy");
    runtime.block_on(store.delete(&["copy.parquet".to_owned()])).unwrap();
    job.ok("verify", &[]);
    runtime.block_on(store.delete(std::slice::from_ref(&path))).unwrap();
    refuses(&job, &topic, "missing");
}

fn refuses(job: &Job, topic: &str, what: &str) {
    let output = job.run("verify", &[]);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {said}");
    assert!(said.contains(topic), "{what} names the topic: {said}");
    assert!(said.contains(".."), "{what} names the offsets: {said}");
}

#[test]
fn a_topic_lands_on_minio() {
    let Some(s3) = tidelock_services::minio() else { return };
    whole_round(&Target::bucket(s3), Some(s3));
}

#[test]
fn a_topic_lands_on_versitygw() {
    let Some(s3) = tidelock_services::versitygw() else { return };
    whole_round(&Target::bucket(s3), Some(s3));
}

#[test]
fn a_topic_lands_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    whole_round(&Target::Folder(folder.path().to_owned()), None);
}

/// Twenty `kill -9` at random moments while data flows, with partitioned
/// output and one-second checkpoints.
#[test]
fn kills_at_random_moments_lose_and_double_nothing() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let Some(s3) = tidelock_services::minio() else { return };
    const KILLS: usize = 20;
    const PER_KILL: usize = 16_000;
    let target = Target::bucket(s3);
    let topic = topic(kafka, "kills", 4, PER_KILL);
    let toml = pipeline(kafka, &topic, &target, "partition_by = [\"country\"]");
    let job = Job::new(&toml, Some(s3));
    let seed = rand::random();
    eprintln!("kills: seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for round in 0..KILLS {
        let running = job.spawn("run", &[]);
        let wait = Duration::from_millis(random.random_range(800..3_500));
        let began = std::time::Instant::now();
        let mut piece = 0;
        // Data flows until the moment of the kill.
        while began.elapsed() < wait {
            append(kafka, &topic, 4, (round * 1_000 + piece) as u64, PER_KILL / 16);
            piece += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
        running.kill();
    }
    let so_far: i64 = kafka.client().end_offsets(&topic).unwrap().values().sum();
    append(kafka, &topic, 4, 99, usize::try_from(300_000 - so_far).unwrap_or(1_000));
    job.ok("run", &["--until-end"]);
    let ends = kafka.client().end_offsets(&topic).unwrap();
    assert!(ends.values().sum::<i64>() >= 300_000);
    job.ok("verify", &[]);
    assert_exactly_once(&read_parquet(&target), &ends);
    assert_eq!(kafka.client().committed_offsets(&topic, &topic).unwrap(), ends);
}

/// A bounded run is about all partitions, not only about those that it was
/// given while another member, which may be dead, holds the rest.
#[test]
fn a_bounded_run_waits_for_what_another_member_holds() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Folder(folder.path().to_owned());
    let topic = topic(kafka, "held", 4, 4_000);
    let job = Job::new(&pipeline(kafka, &topic, &target, ""), None);
    let mut config = kafka.client().config();
    config.set("group.id", &topic).set("partition.assignment.strategy", "cooperative-sticky");
    let holder: BaseConsumer = config.create().unwrap();
    holder.subscribe(&[&topic]).unwrap();
    let holds = |count: usize| {
        until("an assignment", Duration::from_secs(60), || {
            let _ = holder.poll(Duration::from_millis(10));
            holder.assignment().is_ok_and(|list| list.count() == count)
        });
    };
    holds(4);
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut bounded = job.command("run", &["--until-end"]);
    bounded.stdout(Stdio::null()).stderr(log.reopen().unwrap());
    let mut bounded = Running(bounded.spawn().unwrap());
    holds(2);
    until("half of the rows", Duration::from_secs(60), || {
        let _ = holder.poll(Duration::from_millis(10));
        read_parquet(&target).values().map(BTreeMap::len).sum::<usize>() == 2_000
    });
    let held = holder.assignment().unwrap().to_topic_map().into_keys();
    let mut held: Vec<_> = held.map(|(topic, number)| format!("{topic}/{number}")).collect();
    held.sort_unstable();
    let waits = format!("waiting for 2 partitions that others hold: {}", held.join(", "));
    until(&waits, Duration::from_secs(30), || {
        let _ = holder.poll(Duration::from_millis(100));
        assert!(bounded.0.try_wait().unwrap().is_none(), "it ended with half of the partitions");
        std::fs::read_to_string(log.path()).unwrap().contains(&waits)
    });
    drop(holder);
    assert!(bounded.0.wait().unwrap().success());
    assert_exactly_once(&read_parquet(&target), &kafka.client().end_offsets(&topic).unwrap());
    job.ok("verify", &[]);
}

#[test]
fn stopping_by_signal_is_a_checkpoint() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Folder(folder.path().to_owned());
    let topic = topic(kafka, "stop", 2, 5_000);
    let toml = pipeline(kafka, &topic, &target, "").replace("\"1s\"", "\"1h\"");
    let job = Job::new(&toml, None);
    let running = job.spawn("run", &[]);
    // Nothing says that rows have arrived before the checkpoint does, except
    // staged bytes or a membership that has settled.
    until("a member", Duration::from_secs(30), || {
        kafka.client().group_members(&topic).is_ok_and(|members| members == 1)
    });
    std::thread::sleep(Duration::from_secs(3));
    running.stop();
    let ends = kafka.client().end_offsets(&topic).unwrap();
    assert_exactly_once(&read_parquet(&target), &ends);
    job.ok("verify", &[]);
}

#[test]
fn two_sinks_wait_for_each_other() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let Some(s3) = tidelock_services::minio() else { return };
    let target = Target::bucket(s3);
    let folder = tempfile::tempdir().unwrap();
    let lines = Target::Folder(folder.path().to_owned());
    let topic = topic(kafka, "two", 3, 20_000);
    let extra = format!(
        "[[sink]]\nname = \"lines\"\ntype = \"file\"\nformat = \"json\"\n{}\n",
        lines.toml()
    );
    let toml = pipeline(kafka, &topic, &target, &extra)
        .replace("interval = \"1s\"", &format!("interval = \"1s\"\nstate = \"{}\"", lines.url()));
    let job = Job::new(&toml, Some(s3));
    job.ok("run", &["--until-end"]);
    let ends = kafka.client().end_offsets(&topic).unwrap();
    assert_exactly_once(&read_parquet(&target), &ends);
    let written: usize = files(&lines, ".jsonl")
        .iter()
        .map(|(_, b)| b.iter().filter(|b| **b == b'\n').count())
        .sum();
    assert_eq!(written, 20_000);
    assert_eq!(kafka.client().committed_offsets(&topic, &topic).unwrap(), ends);
    job.ok("verify", &[]);
}
