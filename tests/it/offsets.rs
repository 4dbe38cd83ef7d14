//! `tidelock offsets`, on a real broker.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tidelock_services::{Kafka, Message};

use crate::support::{Job, Seen, Target, append, pipeline, read_parquet, topic, until};

/// Runs `tidelock offsets VERB PIPELINE …`.
fn offsets(job: &Job, verb: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidelock"))
        .args(["offsets", verb])
        .arg(&job.file)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// The document of a command that has to succeed.
fn document(job: &Job, verb: &str, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let output = offsets(job, verb, &arguments);
    assert!(output.status.success(), "{verb} {arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn refused(job: &Job, verb: &str, arguments: &[&str], why: &str) {
    let output = offsets(job, verb, arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(why), "{}", said(&output));
}

/// How many times each offset of a partition is there.
fn times(seen: &Seen, partition: i32) -> Vec<u32> {
    seen.get(&partition).map(|offsets| offsets.values().copied().collect()).unwrap_or_default()
}

fn committed(kafka: &Kafka, topic: &str) -> BTreeMap<i32, i64> {
    kafka.client().committed_offsets(topic, topic).unwrap()
}

struct World {
    kafka: &'static Kafka,
    topic: String,
    target: Target,
    job: Job,
    _folder: tempfile::TempDir,
}

impl World {
    /// A pipeline that has read 2,000 events of each of two partitions.
    fn new(extra: &str) -> Option<Self> {
        let kafka = tidelock_services::kafka()?;
        let topic = topic(kafka, "offsets", 2, 4_000);
        let folder = tempfile::tempdir().unwrap();
        let target = Target::Folder(folder.path().to_owned());
        let toml = pipeline(kafka, &topic, &target, "")
            .replace("session_timeout", &format!("{extra}\nsession_timeout"));
        let job = Job::new(&toml, None);
        job.ok("run", &["--until-end"]);
        Some(Self { kafka, topic, target, job, _folder: folder })
    }

    fn at(&self, partition: i32, offset: i64) -> String {
        format!("{}:{partition}={offset}", self.topic)
    }
}

#[test]
fn what_is_moved_back_is_read_again_and_called_rewound() {
    let Some(world) = World::new("") else { return };
    let World { kafka, topic, target, job, .. } = &world;
    let shown = document(job, "show", &[]);
    assert_eq!(shown["members"], 0);
    for partition in shown["partitions"].as_array().unwrap() {
        assert_eq!(partition["lag"], 0, "{shown:#}");
        assert_eq!(partition["recorded"]["cursor"], 2_000, "{shown:#}");
        assert_eq!(partition["log"]["committed"]["offset"], 2_000, "{shown:#}");
        assert!(partition["log"]["committed"]["sequence"].is_number(), "our own hint: {shown:#}");
    }

    let to = world.at(0, 500);
    refused(job, "set", &[&to], "500..2000 will be written a second time");
    refused(job, "set", &[&to], "--yes agrees");
    assert_eq!(committed(kafka, topic)[&0], 2_000, "nothing was moved");

    let moved = document(job, "set", &[&to, "--yes"]);
    assert_eq!(moved["applied"]["not_mirrored"], Value::Null, "{moved:#}");
    assert_eq!(committed(kafka, topic), [(0, 500), (1, 2_000)].into());
    let shown = document(job, "show", &[]);
    assert_eq!(shown["partitions"][0]["lag"], 1_500, "{shown:#}");
    assert!(shown["partitions"][0]["log"]["committed"]["sequence"].is_number(), "{shown:#}");

    job.ok("run", &["--until-end"]);
    let seen = read_parquet(target);
    assert_eq!(times(&seen, 0), [[1; 500].as_slice(), &[2; 1_500]].concat());
    assert_eq!(times(&seen, 1), [1; 2_000]);
    assert_eq!(committed(kafka, topic), [(0, 2_000), (1, 2_000)].into());
    job.ok("verify", &[]);
    let table = said(&offsets(job, "show", &[]));
    assert!(table.contains("500..2000 repeated"), "{table}");
}

#[test]
fn what_is_left_out_is_called_skipped() {
    let Some(world) = World::new("") else { return };
    let World { kafka, topic, target, job, .. } = &world;
    append(kafka, topic, 2, 7, 2_000);
    refused(job, "set", &[&world.at(1, 3_001), "--yes"], "beyond");
    let single = ["--topic", topic, "--partition", "1", "--offset", "2600", "--yes"];
    document(job, "set", &single);
    job.ok("run", &["--until-end"]);
    let seen = read_parquet(target);
    assert_eq!(times(&seen, 0), [1; 3_000]);
    let offsets: Vec<i64> = seen[&1].keys().copied().collect();
    assert_eq!(offsets, (0..2_000).chain(2_600..3_000).collect::<Vec<_>>());
    job.ok("verify", &[]);
}

#[test]
fn a_reset_to_a_time_finds_the_first_message_of_it() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = tidelock_services::unique("times");
    kafka.client().create_topic(&topic, 1, &[]).unwrap();
    const BEGAN: i64 = 1_700_000_000_000;
    let events = crate::support::events(3, 1_000).enumerate();
    let messages =
        events.map(|(n, e)| Message::new(e).partition(0).timestamp(BEGAN + n as i64 * 1_000));
    kafka.client().produce(&topic, messages).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Folder(folder.path().to_owned());
    let job = Job::new(&pipeline(kafka, &topic, &target, ""), None);
    job.ok("run", &["--until-end"]);
    // 2023-11-14T22:13:20Z is when it began.
    let planned = document(&job, "reset", &["--to-timestamp", "2023-11-14T22:23:20Z", "--yes"]);
    assert_eq!(planned["plan"]["moves"][0]["to"], 600, "{planned:#}");
    let planned = document(&job, "reset", &["--to-earliest", "--topic", &topic, "--yes"]);
    assert_eq!(planned["plan"]["moves"][0]["to"], 0);
    assert_eq!(committed(kafka, &topic)[&0], 0);
    document(&job, "reset", &["--to-latest", "--yes"]);
    job.ok("run", &["--until-end"]);
    assert_eq!(times(&read_parquet(&target), 0), [1; 1_000], "back and forth again is nothing");
}

/// By either protocol of groups.
fn a_living_group(extra: &str) {
    let Some(world) = World::new(extra) else { return };
    let World { kafka, topic, target, job, .. } = &world;
    let running = job.spawn("run", &[]);
    until("a member", Duration::from_secs(60), || document(job, "show", &[])["members"] == 1);
    let to = world.at(0, 1_900);
    refused(job, "set", &[&to, "--yes"], "the group has 1 member");
    let moved = document(job, "set", &[&to, "--yes", "--force"]);
    assert_ne!(moved["applied"]["not_mirrored"], Value::Null, "the broker refuses: {moved:#}");
    // The worker finds out with its next checkpoint, and goes on from there.
    append(kafka, topic, 2, 9, 20);
    until("the rows again", Duration::from_secs(60), || {
        let seen = read_parquet(target);
        times(&seen, 0).len() == 2_010 && times(&seen, 0)[1_900..2_000] == [2; 100]
    });
    running.stop();
    assert_eq!(committed(kafka, topic), [(0, 2_010), (1, 2_010)].into());
    job.ok("verify", &[]);
}

#[test]
fn a_living_group_is_not_disturbed_unless_by_force() {
    a_living_group("");
}

#[test]
fn members_by_the_new_protocol_count_too() {
    a_living_group("librdkafka = { \"group.protocol\" = \"consumer\" }");
}

#[test]
fn without_a_broker_the_record_is_still_shown() {
    let Some(world) = World::new("") else { return };
    let toml = std::fs::read_to_string(&world.job.file).unwrap();
    let brokers = world.kafka.client().bootstrap();
    std::fs::write(&world.job.file, toml.replace(brokers, "127.0.0.1:1")).unwrap();
    let shown = document(&world.job, "show", &[]);
    assert!(shown["broker_error"].as_str().unwrap().contains("no broker answers"), "{shown:#}");
    assert_eq!(shown["partitions"][0]["recorded"]["cursor"], 2_000);
    let output = offsets(&world.job, "set", &[&world.at(0, 1), "--yes", "--force"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
}
