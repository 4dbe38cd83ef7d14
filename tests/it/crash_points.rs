//! Every named crash point of the protocol, in the real binary, on every kind
//! of store: the process dies there, the next one goes on, and every offset is
//! in the files exactly once.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidelock::checkpoint::crash::POINTS;
use tidelock_services::{Kafka, S3, S3Kind};

use crate::support::{
    Job, Running, Target, append, assert_exactly_once, open, pipeline, read_parquet, topic,
};

const PARTITIONS: i32 = 4;
/// How many points are tried at once: most of the time goes by in waiting.
const AT_ONCE: usize = 4;
const LIMIT: Duration = Duration::from_secs(60);

/// How a point is come to.
struct Way {
    point: &'static str,
    /// Which time.
    nth: u32,
    /// Points to die at before, in lives of their own.
    before: &'static [&'static str],
    /// So many files that their list does not fit into the record.
    many_files: bool,
    /// Another member takes partitions away.
    rebalance: bool,
}

fn way(point: &'static str) -> Way {
    let plain = Way { point, nth: 1, before: &[], many_files: false, rebalance: false };
    match point {
        // The first swap is the claim, of which nothing hangs.
        "swap-applied-reply-lost" => Way { nth: 2, ..plain },
        "filed-away-before-swap" | "between-deletions" => Way { many_files: true, ..plain },
        "claimed-before-recovery" | "recovered-before-first-message" => {
            Way { before: &["swapped-before-publish"], ..plain }
        }
        // Two dead lives: there is something left when the first is collected.
        "collecting-orphans" => {
            Way { before: &["staged-before-swap", "staged-before-swap"], ..plain }
        }
        "revoking-before-checkpoint" | "revoked-before-answer" => Way { rebalance: true, ..plain },
        _ => plain,
    }
}

/// Runs until the process has killed itself at `point`.
fn crash(job: &Job, way: &Way, point: &str, nth: u32, folder: &Path) {
    let log = folder.join(format!("{point}.log"));
    let errors = std::fs::File::create(&log).unwrap();
    let child = job
        .command("run", &[])
        .env("TIDELOCK_CRASH_AT", format!("{point}:{nth}"))
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut other = None;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(begun.elapsed() < LIMIT, "{point} was not come to:\n{}", said());
        if way.rebalance && other.is_none() && said().contains("\"claimed partitions\"") {
            other = Some(job.spawn("run", &[]));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(status.signal(), Some(9), "{point}: {status}\n{said}");
    assert!(said.contains(&format!("crash point {point}")), "{point}:\n{said}");
    // The other one goes on, alone now, and stops well.
    if let Some(other) = other {
        other.stop();
    }
}

fn try_point(kafka: &Kafka, target: &Target, s3: Option<&S3>, way: &Way) {
    let folder = tempfile::tempdir().unwrap();
    let topic = topic(kafka, way.point, PARTITIONS, 1_500);
    let columns = if way.many_files { r#"["country", "quantity"]"# } else { r#"["quantity"]"# };
    let toml = pipeline(kafka, &topic, target, &format!("partition_by = {columns}"))
        .replace("session_timeout = \"6s\"", "session_timeout = \"1500ms\"");
    let job = Job::new(&toml, s3);
    for point in way.before {
        crash(&job, way, point, 1, folder.path());
    }
    crash(&job, way, way.point, way.nth, folder.path());
    append(kafka, &topic, PARTITIONS, 2, 500);
    job.ok("run", &["--until-end"]);

    let ends = kafka.client().end_offsets(&topic).unwrap();
    assert_exactly_once(&read_parquet(target), &ends);
    assert_eq!(kafka.client().committed_offsets(&topic, &topic).unwrap(), ends, "the mirror");
    job.ok("verify", &[]);
    // What dead lives have left is collected at the start of the next one.
    if !staged(target, &topic).is_empty() {
        job.ok("run", &["--until-end"]);
        assert_eq!(staged(target, &topic), Vec::<String>::new(), "orphans");
    }
}

fn staged(target: &Target, pipeline: &str) -> Vec<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open(target);
    let folder = format!("_tidelock/{pipeline}/staging");
    runtime.block_on(store.list_folders(&folder)).unwrap()
}

/// Tries every point, several at once; tells of all that failed.
fn try_all(target: impl Fn() -> Target + Sync, s3: Option<&S3>) {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(String::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(point) = POINTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let attempt = || try_point(kafka, &target(), s3, &way(point));
                    let attempt = std::panic::AssertUnwindSafe(attempt);
                    if let Err(panic) = std::panic::catch_unwind(attempt) {
                        let said = panic
                            .downcast_ref::<String>()
                            .map_or("a panic without words", String::as_str);
                        let mut failed = failed.lock().unwrap();
                        writeln!(failed, "{point}: {said}").unwrap();
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed}");
}

fn try_all_on(kind: S3Kind) {
    let Some(s3) = tidelock_services::s3(kind) else { return };
    try_all(|| Target::bucket(s3), Some(s3));
}

#[test]
fn every_crash_point_on_minio() {
    try_all_on(S3Kind::Minio);
}

#[test]
fn every_crash_point_on_versitygw() {
    try_all_on(S3Kind::Versitygw);
}

#[test]
fn every_crash_point_in_a_folder() {
    let root = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    let folder = || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        Target::Folder(root.path().join(number.to_string()))
    };
    try_all(folder, None);
}
