//! `verify` on real stores: every kind of damage by its name, and ten thousand
//! files.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tidelock::checkpoint::record::{Cursor, PartitionState, Record};
use tidelock::connector::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use tidelock::store::Store;
use tidelock_connector::{
    Barrier, Batch, Coverage, Guarantee, Incarnation, Sink, SinkContext, Stream, TopicPartition,
};
use tidelock_file::{FileSink, Format};

use crate::storm::alone;
use crate::support::{Job, Target, files, open, pipeline, topic};

/// What `verify` said.
struct Said {
    code: Option<i32>,
    kinds: BTreeSet<String>,
    /// The files of the problems.
    files: BTreeSet<String>,
    text: String,
}

fn verify(job: &Job, arguments: &[&str]) -> Said {
    let output = job.run("verify", &[&["--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict: serde_json::Value = serde_json::from_str(&text).expect("one JSON document");
    let problems = verdict["problems"].as_array().unwrap();
    let text_of = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let files = problems.iter().flat_map(|it| it["files"].as_array().unwrap()).map(text_of);
    Said {
        code: output.status.code(),
        kinds: problems.iter().map(|it| text_of(&it["kind"])).collect(),
        files: files.collect(),
        text,
    }
}

/// Damages the files of one pipeline, asks, and makes it good again.
struct Patient {
    job: Job,
    store: Store,
    runtime: tokio::runtime::Runtime,
}

impl Patient {
    fn get(&self, path: &str) -> bytes::Bytes {
        self.runtime.block_on(self.store.get(path)).unwrap().expect("it is there")
    }

    fn put(&self, path: &str, bytes: bytes::Bytes) {
        self.runtime.block_on(self.store.put(path, bytes)).unwrap();
    }

    fn delete(&self, path: &str) {
        self.runtime.block_on(self.store.delete(&[path.to_owned()])).unwrap();
    }

    /// With `path` changed or gone `verify` says so, in a deep look and without,
    /// and names the file.
    fn suffers(&self, path: &str, changed: Option<bytes::Bytes>, named: &str, kinds: &[&str]) {
        let whole = self.get(path);
        match changed {
            Some(bytes) => self.put(path, bytes),
            None => self.delete(path),
        }
        for arguments in [&[][..], &["--deep"]] {
            let said = verify(&self.job, arguments);
            assert_eq!(said.code, Some(1), "{path}: {}", said.text);
            assert!(said.kinds.iter().any(|kind| kinds.contains(&kind.as_str())), "{}", said.text);
            assert!(said.files.contains(named), "{named}: {}", said.text);
        }
        self.put(path, whole);
    }
}

fn damage(target: &Target, json: bool) {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = topic(kafka, "damage", 2, 3_000);
    let toml = pipeline(kafka, &topic, target, "partition_by = [\"country\"]");
    let (toml, extension) = match json {
        false => (toml, ".parquet"),
        true => (
            toml.replace(
                "type = \"parquet\"\ncompression = \"zstd(1)\"",
                "type = \"file\"\nformat = \"json\"",
            ),
            ".jsonl",
        ),
    };
    let s3 = match target {
        Target::S3(s3, _) => Some(*s3),
        Target::Folder(_) => None,
    };
    let job = Job::new(&toml, s3);
    job.ok("run", &["--until-end"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let patient = Patient { job, store: open(target), runtime };
    let paths: Vec<String> = files(target, extension).into_iter().map(|(path, _)| path).collect();
    let sidecar = |path: &str| format!("_tidelock/{topic}/footers/{path}.json");
    assert!(paths.len() > 2, "{paths:?}");
    for arguments in [&[][..], &["--deep"]] {
        let said = verify(&patient.job, arguments);
        assert_eq!((said.code, said.kinds.len()), (Some(0), 0), "{}", said.text);
    }
    for path in [&paths[0], &paths[1]] {
        let whole = patient.get(path);
        let half = whole.slice(..whole.len() / 2);
        // Half of the lines may be whole ones.
        let kinds = ["unreadable_file", "wrong_size", "wrong_row_count"];
        patient.suffers(path, Some(half), path, &kinds);
        if json {
            patient.suffers(&sidecar(path), None, path, &["unreadable_file"]);
        }
    }
    let gone = paths.iter().find(|path| !is_last(&patient, path, &sidecar(path), json)).unwrap();
    patient.suffers(gone, None, gone, &["missing_file"]);

    // A stranger's file is nobody's problem, and is told of.
    let whole = patient.get(&paths[0]);
    let (said, other) = match json {
        // Its sidecar says whose it is.
        true => {
            let theirs = "_tidelock/another/footers/theirs.jsonl.json";
            patient.put(theirs, patient.get(&sidecar(&paths[0])));
            patient.put("theirs.jsonl", "{}\n".into());
            (verify(&patient.job, &[]), "theirs.jsonl")
        }
        false => {
            let name = topic.as_bytes();
            let theirs = replaced(&whole, name, &vec![b'x'; name.len()]);
            patient.put("theirs.parquet", theirs.into());
            (verify(&patient.job, &[]), "theirs.parquet")
        }
    };
    assert_eq!(said.code, Some(0), "{other}: {}", said.text);
    let verdict: serde_json::Value = serde_json::from_str(&said.text).unwrap();
    assert_eq!(verdict["sinks"][0]["other_files"], 1, "{}", said.text);
}

/// Whether a file is the one that tells about its set.
fn is_last(patient: &Patient, path: &str, sidecar: &str, json: bool) -> bool {
    let bytes = patient.get(if json { sidecar } else { path });
    bytes.windows(11).any(|window| window == b"\"coverage\":")
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        bytes[at + found..at + found + from.len()].copy_from_slice(to);
        at += found + from.len();
    }
    bytes
}

#[test]
fn damage_is_named_on_s3() {
    let Some(s3) = tidelock_services::minio() else { return };
    for json in [false, true] {
        damage(&Target::bucket(s3), json);
    }
}

#[test]
fn damage_is_named_in_a_folder() {
    for json in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        damage(&Target::Folder(folder.path().to_owned()), json);
    }
}

/// How many files a commit set has.
const FILES_PER_SET: i64 = 10;
/// How many uploads are under way at once.
const UPLOADS: usize = 32;

/// A pipeline's worth of files, without the pipeline: the sink writes them to
/// memory, from where they go to the bucket under their final names.
async fn fill(store: &Store, pipeline: &str, sets: i64) {
    let folder = format!("memory:///{pipeline}");
    let sink = FileSink::builder(Format::Parquet, folder).partition_by(["place"]).build().unwrap();
    let Guarantee::ExactlyOnce(committer) = sink.guarantee() else { unreachable!() };
    let incarnation = Incarnation::new();
    let context = SinkContext::new(pipeline, "lake", incarnation, 16 << 20);
    let mut writer = sink.open(context).await.unwrap();
    let partition = TopicPartition::new("orders", 0);
    for set in 0..sets {
        let (from, to) = (set * FILES_PER_SET, (set + 1) * FILES_PER_SET);
        writer.write(&batch(from, to)).await.unwrap();
        let barrier = Barrier {
            checkpoint: 1 + set.unsigned_abs(),
            coverage: Coverage::of(partition.clone(), from, to),
            epochs: BTreeMap::from([(partition.clone(), 1)]),
            last: false,
        };
        let files = writer.prepare(&barrier).await.unwrap();
        let uploads = files.iter().map(|file| async {
            committer.commit(file).await.unwrap();
            let bytes = sink.store().get(&file.name).await.unwrap().unwrap();
            store.put(&file.name, bytes).await
        });
        // Boxed, or the compiler cannot tell how long they borrow.
        let uploads = stream::iter(uploads.map(FutureExt::boxed_local).collect::<Vec<_>>());
        uploads.buffer_unordered(UPLOADS).try_collect::<()>().await.unwrap();
        committer.discard(&files).await.unwrap();
        let names: Vec<String> = files.into_iter().map(|file| file.name).collect();
        sink.store().delete(&names).await.unwrap();
    }
    let mut record = Record::new(pipeline);
    let next = sets * FILES_PER_SET;
    let cursor = Cursor { next, filed_to: next, ..Cursor::start(0) };
    let state = PartitionState {
        epoch: 1,
        owner: incarnation,
        origin: 0,
        cursors: BTreeMap::from([("lake".to_owned(), cursor)]),
        rewinds: Vec::new(),
    };
    record.topics.entry("orders".to_owned()).or_default().partitions.insert(0, state);
    let head = format!("_tidelock/{pipeline}/head.json");
    store.put(&head, record.encode().unwrap().into()).await.unwrap();
}

fn batch(from: i64, to: i64) -> Batch {
    let offsets: Vec<i64> = (from..to).collect();
    let places = offsets.iter().map(|offset| (offset % FILES_PER_SET).to_string());
    let records = RecordBatch::try_from_iter([
        ("place", Arc::new(StringArray::from_iter_values(places)) as ArrayRef),
        ("_offset", Arc::new(Int64Array::from(offsets)) as _),
    ])
    .unwrap();
    Batch::new(Stream::new("orders", records.schema()), records, Coverage::new())
}

/// How long `verify` takes, and its largest resident memory in MiB.
fn measure(job: &Job, files: i64) -> (Duration, u64) {
    let begun = Instant::now();
    let mut child = job.command("verify", &["--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|it| it.trim().trim_end_matches(" kB").parse().ok());
        peak_kib = peak.unwrap_or(0).max(peak_kib);
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = begun.elapsed();
    let output = child.wait_with_output().unwrap();
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{verdict}");
    assert_eq!(verdict["totals"]["files"], files, "{verdict}");
    eprintln!("verify: {files} files in {:.1} s, {} MiB", took.as_secs_f64(), peak_kib >> 10);
    (took, peak_kib >> 10)
}

#[test]
fn ten_thousand_files_on_s3_are_verified_in_a_minute_and_no_more_memory() {
    let _alone = alone();
    let Some(kafka) = tidelock_services::kafka() else { return };
    let Some(s3) = tidelock_services::minio() else { return };
    let measured = [100, 1_000].map(|sets| {
        let target = Target::bucket(s3);
        let name = tidelock_services::unique("size");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let begun = Instant::now();
        runtime.block_on(fill(&open(&target), &name, sets));
        eprintln!("{} files made in {:?}", sets * FILES_PER_SET, begun.elapsed());
        let job = Job::new(&pipeline(kafka, &name, &target, ""), Some(s3));
        measure(&job, sets * FILES_PER_SET)
    });
    let [(_, few), (took, many)] = measured;
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(many < few + 32, "ten times the files took {many} MiB instead of {few}");
}
