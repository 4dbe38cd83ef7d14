//! Files that vanish between the commit of a checkpoint and their publishing.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidelock::checkpoint::lost::{Loss, OnLost};
use tidelock::checkpoint::record::{Files, Record, Rewind};
use tidelock::checkpoint::store::{RecordStore, StoredRecord};
use tidelock::{Pipeline, PipelineBuilder, Report, State};
use tidelock_connector::testing::{Call, MemorySink, MemorySource};
use tidelock_connector::{ErrorKind, Guarantee, Result, Sink, TopicPartition};
use tidelock_store::{Store, StoreConfig};
use tokio::task::JoinHandle;

use crate::support::{Job, Target, pipeline, read_parquet, topic};

struct World {
    source: MemorySource,
    sink: MemorySink,
    state: StoreConfig,
}

impl World {
    /// Two partitions, each with so many rows; two files per checkpoint.
    fn new(rows: usize) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let source = MemorySource::new().topic("t", 2);
        for partition in 0..2 {
            source.log().fill("t", partition, rows);
        }
        let state = StoreConfig::new(format!("memory:///lost-{number}"));
        Self { source, sink: MemorySink::new().parts(2), state }
    }

    fn builder(&self) -> PipelineBuilder {
        Pipeline::builder("p")
            .source(self.source.clone())
            .sink("out", self.sink.clone())
            .state(State::Store(self.state.clone()))
            .checkpoint_every(Duration::from_secs(1))
            .until_end(true)
    }

    fn store(&self) -> StoredRecord {
        StoredRecord::new(Store::open(&self.state).unwrap(), "p")
    }

    async fn record(&self) -> Record {
        let (bytes, _) = self.store().read().await.unwrap().expect("a record");
        Record::decode(&bytes).unwrap()
    }

    /// Runs until a checkpoint is committed and cannot be published.
    async fn run_into_a_pending_set(&self) -> JoinHandle<Result<Report>> {
        self.sink.files().hold(Call::Commit);
        let run =
            tokio::spawn(self.builder().on_lost(OnLost::replay()).run(std::future::pending()));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(self.record().await.pending.len(), 1);
        run
    }

    fn lose_everything_staged(&self) {
        for incarnation in self.sink.files().staged().into_keys() {
            self.sink.files().lose_staged(incarnation);
        }
    }

    /// Kills the run, and loses what it has staged, apart from the first files.
    async fn kill_and_lose(&self, kept: usize) {
        let run = self.run_into_a_pending_set().await;
        run.abort();
        let _ = run.await;
        self.sink.files().release(Call::Commit);
        let Guarantee::ExactlyOnce(committer) = self.sink.guarantee() else { unreachable!() };
        let record = self.record().await;
        let Files::Inline(files) = &record.pending[0].files else { unreachable!() };
        assert_eq!(files.len(), 2);
        for file in &files[..kept] {
            committer.commit(file).await.unwrap();
        }
        self.lose_everything_staged();
    }

    fn counts(&self) -> BTreeMap<(TopicPartition, i64), usize> {
        let mut counts = BTreeMap::new();
        for row in self.sink.files().rows() {
            *counts.entry(row).or_default() += 1;
        }
        counts
    }

    /// Every offset at least once; how many of them more often.
    fn repeated(&self) -> usize {
        let counts = self.counts();
        let expected: i64 = self.source.log().ends().values().sum();
        assert_eq!(counts.len() as i64, expected, "nothing is missing");
        counts.values().map(|count| count - 1).sum()
    }
}

#[tokio::test(start_paused = true)]
async fn lost_files_stop_the_run_unless_it_is_told_to_replay() {
    let world = World::new(100);
    world.kill_and_lose(0).await;
    let before = world.record().await;
    let error = world.builder().run(std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(error.to_string().contains("t/0 0..100"), "{error}");
    assert_eq!(world.record().await.pending, before.pending, "nothing is forgotten");

    world.builder().on_lost(OnLost::replay()).run(std::future::pending()).await.unwrap();
    assert_eq!(world.repeated(), 0, "nothing of the lost set was visible");
    let record = world.record().await;
    assert_eq!(record.lost.len(), 1);
    assert_eq!(record.lost[0].id, before.pending[0].id);
    for (partition, state) in record.partitions() {
        let [Rewind { from: 0, to: 100, epoch }] = state.rewinds[..] else {
            panic!("{partition}: {state:?}")
        };
        assert!(epoch > before.partition(&partition).unwrap().epoch);
    }
    let committed = world.source.log().committed();
    assert!(committed.values().all(|committed| committed.offset == 100), "{committed:?}");
    // The set is forgotten for good.
    world.builder().run(std::future::pending()).await.unwrap();
    assert_eq!(world.repeated(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_replay_repeats_is_told_before_and_is_all_that_it_repeats() {
    let world = World::new(100);
    world.kill_and_lose(1).await;
    let told: Arc<Mutex<Vec<Loss>>> = Arc::default();
    let asked = |agree: bool| {
        let told = Arc::clone(&told);
        OnLost::replay_if(move |loss| {
            told.lock().unwrap().push(loss.clone());
            agree
        })
    };
    let before = world.record().await;
    let refused = world.builder().on_lost(asked(false)).run(std::future::pending()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::DataLoss);
    assert_eq!(world.record().await.pending, before.pending, "nothing without consent");

    world.builder().on_lost(asked(true)).run(std::future::pending()).await.unwrap();
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2, "asked once per run");
    assert_eq!((told[1].lost.len(), told[1].repeated.len()), (1, 1));
    assert_eq!(world.repeated() as u64, told[1].repeated[0].rows);
    assert!(told[1].render().contains(&told[1].repeated[0].name));
}

#[tokio::test(start_paused = true)]
async fn files_that_vanish_while_running_are_replayed_in_the_same_process() {
    let world = World::new(100);
    let run = world.run_into_a_pending_set().await;
    world.lose_everything_staged();
    world.sink.files().release(Call::Commit);
    run.await.unwrap().unwrap();
    assert_eq!(world.repeated(), 0);
    assert_eq!(world.record().await.lost.len(), 1);
    assert!(world.sink.files().staged().is_empty());
}

/// The same with the real binary, files and broker: a process dies between two
/// files of a checkpoint, and somebody empties the staging folder.
#[test]
fn the_binary_asks_before_it_replays_and_verify_knows() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Folder(folder.path().to_owned());
    let topic = topic(kafka, "lost", 2, 4_000);
    let toml = pipeline(kafka, &topic, &target, "partition_by = [\"country\", \"quantity\"]");
    let job = Job::new(&toml, None);
    let died = job
        .command("run", &["--until-end"])
        .env("TIDELOCK_CRASH_AT", "between-publishes")
        .output()
        .unwrap();
    assert_eq!(died.status.signal(), Some(9), "{died:?}");
    let visible: u32 = read_parquet(&target).values().flat_map(|offsets| offsets.values()).sum();
    assert!(visible > 0, "one file at least");
    std::fs::remove_dir_all(folder.path().join(format!("_tidelock/{topic}/staging"))).unwrap();

    let refused = |arguments: &[&str]| {
        let output = job.run("run", arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {output:?}");
        said
    };
    let said = refused(&["--until-end"]);
    assert!(said.contains("lost prepared data") && said.contains(&topic), "{said}");
    // Nobody is at a terminal, so nobody agrees.
    let said = refused(&["--until-end", "--on-lost", "replay"]);
    assert!(said.contains("written a second time:\n  the "), "{said}");

    job.ok("run", &["--until-end", "--on-lost", "replay", "--yes"]);
    let seen = read_parquet(&target);
    let ends = kafka.client().end_offsets(&topic).unwrap();
    for (partition, end) in &ends {
        assert_eq!(seen[partition].len() as i64, *end, "nothing is missing");
    }
    let repeated: u32 = seen.values().flat_map(|offsets| offsets.values()).map(|n| n - 1).sum();
    assert_eq!(repeated, visible, "what was visible is there twice, and nothing else");
    assert_eq!(kafka.client().committed_offsets(&topic, &topic).unwrap(), ends);
    job.ok("verify", &[]);
}
