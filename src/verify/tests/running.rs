//! A pipeline runs while verify looks, and is never the problem.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use tidelock_connector::{OffsetSet, Result};
use tidelock_file::Format;
use tokio::sync::Mutex;

use super::super::ProblemKind::{LostFile, MissingOffsets};
use super::super::{Verdict, VerifyOptions, verify};
use super::support::{Lake, builder, files_of, kinds, offsets};
use crate::checkpoint::record::{Files, PendingSet};
use crate::checkpoint::store::{MemoryRecord, RecordStore, RecordVersion};

type Step = BoxFuture<'static, ()>;

/// A record that something happens around: every look reads it twice, and the
/// steps happen in turn right after the first and right before the second time.
struct Eventful {
    inner: Arc<MemoryRecord>,
    steps: Mutex<VecDeque<Step>>,
    reads: AtomicUsize,
}

impl Eventful {
    fn new(lake: &Lake, steps: impl IntoIterator<Item = Step>) -> Arc<Self> {
        let steps = Mutex::new(steps.into_iter().collect());
        Arc::new(Self { inner: Arc::clone(&lake.records), steps, reads: AtomicUsize::new(0) })
    }

    async fn step(&self) {
        let step = self.steps.lock().await.pop_front();
        if let Some(step) = step {
            step.await;
        }
    }
}

#[async_trait]
impl RecordStore for Eventful {
    async fn read(&self) -> Result<Option<(Bytes, RecordVersion)>> {
        let first = self.reads.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        if !first {
            self.step().await;
        }
        let record = self.inner.read().await;
        if first {
            self.step().await;
        }
        record
    }

    async fn write(&self, bytes: Bytes, expected: Option<&RecordVersion>) -> Result<RecordVersion> {
        self.inner.write(bytes, expected).await
    }

    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.inner.put_object(name, bytes).await
    }

    async fn get_object(&self, name: &str) -> Result<Option<Bytes>> {
        self.inner.get_object(name).await
    }

    async fn delete_objects(&self, names: &[String]) -> Result<()> {
        self.inner.delete_objects(names).await
    }
}

async fn verify_with(lake: &Lake, steps: impl IntoIterator<Item = Step>) -> (Verdict, usize) {
    let record = Eventful::new(lake, steps);
    let options = VerifyOptions::new("pipe", Arc::clone(&record) as _);
    let options = options.sink("lake", lake.store.clone(), None).deep(true);
    (verify(&options).await.unwrap(), record.reads.load(Ordering::SeqCst) / 2)
}

fn nothing() -> Step {
    Box::pin(async {})
}

#[tokio::test]
async fn pending_files_are_not_missing() {
    for format in [Format::Parquet, Format::Json] {
        let mut lake = Lake::by_country(format).await;
        lake.three().await;
        let parts = [(0, 300, 390)];
        let set = lake.prepare(&parts).await;
        lake.commit(&set, &parts).await;
        let files = files_of(&set);
        // Invisible, then partly visible: from either end, then whole.
        let order = [&files[..0], &files[..1], &files[1..2], &files[..]];
        for (visible, published) in order.into_iter().enumerate() {
            lake.publish(published).await;
            let verdict = lake.verify_deep().await;
            assert!(verdict.ok, "{verdict}");
            let pending = u64::from(visible < 3);
            assert_eq!(verdict.totals.pending_sets, pending, "{verdict}");
            assert_eq!(verdict.sinks[0].pending_files, [3, 2, 1, 0][visible]);
            if visible == 0 {
                let partition = &verdict.sinks[0].partitions[0];
                assert_eq!(partition.pending, OffsetSet::from_range(300, 390));
                assert!(verdict.to_string().contains("1 commit set is committed and about to"));
            }
        }
    }
}

#[tokio::test]
async fn a_gap_before_pending_offsets_is_still_a_gap() {
    let mut lake = Lake::parquet().await;
    let files = lake.three().await;
    let parts = [(0, 300, 400), (1, 300, 400)];
    let set = lake.prepare(&parts).await;
    lake.commit(&set, &parts).await;
    lake.delete(&files[1][0]).await;
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [MissingOffsets, MissingOffsets], "{verdict}");
    assert_eq!(offsets(&verdict, 0), ["0: 100..200"]);
}

/// The second set is visible before the first: only the first may be missing.
#[tokio::test]
async fn sets_may_become_visible_in_any_order() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    let (first, second) = ([(0, 300, 310)], [(0, 310, 320)]);
    let one = lake.prepare(&first).await;
    let two = lake.prepare(&second).await;
    lake.commit(&one, &first).await;
    lake.commit(&two, &second).await;
    lake.publish(&files_of(&two)).await;
    lake.clear(&two).await;
    let verdict = lake.verify().await;
    assert!(verdict.ok, "{verdict}");
    assert_eq!(verdict.sinks[0].partitions[0].pending, OffsetSet::from_range(300, 310));
}

#[tokio::test]
async fn lost_prepared_data_is_a_problem() {
    let mut lake = Lake::by_country(Format::Json).await;
    lake.three().await;
    let parts = [(0, 300, 390)];
    let set = lake.prepare(&parts).await;
    lake.commit(&set, &parts).await;
    let files = files_of(&set);
    lake.committer.discard(&files[1..2]).await.unwrap();
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [LostFile], "{verdict}");
    assert_eq!(verdict.problems[0].files, [files[1].name.clone()]);
}

#[tokio::test]
async fn a_list_of_pending_files_beside_the_record_is_read() {
    let mut lake = Lake::by_country(Format::Parquet).await;
    lake.three().await;
    let parts = [(0, 300, 390)];
    let set = lake.prepare(&parts).await;
    let files = files_of(&set);
    let bytes = serde_json::to_vec(&files).unwrap();
    let sha256 = sha256(&bytes);
    lake.records.put_object("pending/x.json", bytes.into()).await.unwrap();
    let object = "pending/x.json".to_owned();
    let spilled = Files::Spilled { object: object.clone(), sha256, count: 3 };
    let set = PendingSet { files: spilled, ..set };
    lake.commit(&set, &parts).await;
    let verdict = lake.verify().await;
    assert!(verdict.ok, "{verdict}");
    assert_eq!(verdict.sinks[0].pending_rows, 90);
    lake.records.delete_objects(&[object]).await.unwrap();
    assert_eq!(kinds(&lake.verify().await), [LostFile]);
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything happens between the record and the listing: all of it is newer.
#[tokio::test]
async fn what_is_committed_after_the_record_was_read_is_let_pass() {
    let mut lake = Lake::by_country(Format::Parquet).await;
    lake.three().await;
    let before = lake.records.read().await.unwrap().unwrap();
    let parts = [(0, 300, 390)];
    for visible in 0..=3 {
        let mut lake = Lake::by_country(Format::Parquet).await;
        lake.three().await;
        let old = Arc::new(MemoryRecord::default());
        old.write(lake.record.encode().unwrap().into(), None).await.unwrap();
        let set = lake.prepare(&parts).await;
        let last = files_of(&set).pop().unwrap();
        // The last file first: its set looks incomplete.
        let files = [vec![last], files_of(&set)].concat();
        lake.publish(&files[..visible]).await;
        lake.commit(&set, &parts).await;
        // The look begins with the old record and ends with the new one.
        let bytes = lake.record.encode().unwrap();
        let version = old.read().await.unwrap().map(|(_, version)| version);
        let swap = {
            let old = Arc::clone(&old);
            async move {
                old.write(bytes.into(), version.as_ref()).await.unwrap();
            }
        };
        lake.records = old;
        let (verdict, _) = verify_with(&lake, [Box::pin(swap) as Step]).await;
        assert!(verdict.ok, "{visible} visible: {verdict}");
    }
    drop(before);
}

/// A file without its set's last file looks orphaned, once.
#[tokio::test]
async fn what_looks_wrong_once_is_looked_at_again() {
    let mut lake = Lake::by_country(Format::Parquet).await;
    lake.three().await;
    let parts = [(0, 300, 390)];
    let set = lake.prepare(&parts).await;
    let files = files_of(&set);
    let old = lake.record.encode().unwrap();
    lake.publish(&files[..1]).await;
    lake.commit(&set, &parts).await;
    let new = lake.record.encode().unwrap();
    let record = Arc::new(MemoryRecord::default());
    let version = record.write(old.into(), None).await.unwrap();
    let swap = {
        let record = Arc::clone(&record);
        async move {
            record.write(new.into(), Some(&version)).await.unwrap();
        }
    };
    lake.records = record;
    let (verdict, looks) = verify_with(&lake, [nothing(), Box::pin(swap) as Step]).await;
    assert!(verdict.ok, "{verdict}");
    assert_eq!(looks, 2, "the first look had doubts");
    assert_eq!(verdict.totals.pending_sets, 1);
}

/// Damage that is there in both looks is found although the pipeline runs on.
#[tokio::test]
async fn a_problem_costs_two_looks() {
    let mut lake = Lake::parquet().await;
    let files = lake.three().await;
    assert_eq!(verify_with(&lake, []).await.1, 1);
    lake.delete(&files[1][0]).await;
    let (verdict, looks) = verify_with(&lake, []).await;
    assert_eq!((kinds(&verdict).len(), looks), (2, 2), "{verdict}");
}

/// Commits, claims, rewinds, two sets under way, files in any order: whatever a
/// look meets, it is no problem.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_pipeline_is_never_the_problem() {
    for format in [Format::Parquet, Format::Json] {
        let mut lake = Lake::new(builder(format).partition_by(["country"])).await;
        lake.three().await;
        let options = lake.options().parallelism(4);
        let running = async move {
            for round in 0..60 {
                run_a_while(&mut lake, round).await;
            }
            lake
        };
        tokio::pin!(running);
        let mut looks = 0;
        let lake = loop {
            let look = options.clone().deep(looks % 2 == 1);
            tokio::select! {
                lake = &mut running => break lake,
                verdict = verify(&look) => {
                    let verdict = verdict.unwrap();
                    assert!(verdict.ok, "after {looks} looks: {verdict}");
                    looks += 1;
                }
            }
        };
        let verdict = lake.verify_deep().await;
        assert!(verdict.ok && verdict.totals.rewound > 0, "{verdict}");
        assert!(looks > 3, "{looks} looks");
    }
}

async fn run_a_while(lake: &mut Lake, round: i64) {
    if round % 7 == 3 {
        lake.claim().await;
    }
    if round % 20 == 11 {
        let back = lake.cursor(0).next - 50;
        lake.rewind(0, back).await;
    }
    let mut sets = Vec::new();
    for _ in 0..2 {
        let (zero, one) = (lake.cursor(0).filed_to, lake.cursor(1).filed_to);
        let parts = [(0, zero, zero + 30), (1, one, one + 20)];
        let set = lake.prepare(&parts).await;
        lake.commit(&set, &parts).await;
        tokio::task::yield_now().await;
        sets.push(set);
    }
    // The later one first, its files backwards.
    sets.reverse();
    for set in sets {
        for file in files_of(&set).into_iter().rev() {
            lake.publish(&[file]).await;
            tokio::task::yield_now().await;
        }
        lake.clear(&set).await;
    }
}

/// `--on-lost=replay`: what was visible of the set stays, its offsets are read
/// again.
#[tokio::test]
async fn a_set_that_was_given_up_is_no_problem() {
    for visible in [0, 1, 2] {
        let mut lake = Lake::by_country(Format::Parquet).await;
        lake.three().await;
        let parts = [(0, 300, 390)];
        let set = lake.prepare(&parts).await;
        lake.commit(&set, &parts).await;
        // From the end: the last file tells what the set covers.
        let files: Vec<_> = files_of(&set).into_iter().rev().collect();
        lake.publish(&files[..visible]).await;
        lake.committer.discard(&files).await.unwrap();
        assert!(kinds(&lake.verify().await).contains(&LostFile));
        lake.give_up(0, 300, Some(&set.id)).await;
        assert!(lake.verify_deep().await.ok, "{}", lake.verify_deep().await);
        lake.checkpoint(&[(0, 300, 400)]).await;
        let verdict = lake.verify_deep().await;
        assert!(verdict.ok, "{verdict}");
        assert_eq!(verdict.totals.given_up_sets, 1);
        assert!(verdict.to_string().contains("1 commit set was lost and read again"), "{verdict}");
    }
}
