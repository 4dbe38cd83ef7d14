//! Moving offsets against a log, a sink and a record in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidelock_connector::testing::{MemoryLog, MemorySink, MemorySource};
use tidelock_connector::{
    AssignedPartition, CommittedOffsets, Error, ErrorKind, Identity, Incarnation, Result,
    TopicPartition,
};
use tidelock_store::{Store, StoreConfig};

use super::*;
use crate::checkpoint::change::{self, Change, Claim, ClaimedPartition};
use crate::checkpoint::record::{Record, Rewind};
use crate::checkpoint::store::{MemoryRecord, RecordStore, RecordVersion, StoredRecord};
use crate::{Pipeline, PipelineBuilder, State};

/// A group in memory, asked from outside.
#[derive(Debug)]
struct LogGroup {
    log: MemoryLog,
    low: i64,
    is_down: bool,
    takes_commits: bool,
}

impl LogGroup {
    fn new(log: &MemoryLog) -> Self {
        Self { log: log.clone(), low: 0, is_down: false, takes_commits: true }
    }
}

#[async_trait]
impl Group for LogGroup {
    async fn identity(&self) -> Result<Identity> {
        Ok(Identity::default())
    }

    async fn members(&self) -> Result<usize> {
        Ok(self.log.members().len())
    }

    async fn partitions(&self, at: Position) -> Result<Vec<AssignedPartition>> {
        if self.is_down {
            return Err(Error::new(ErrorKind::Unavailable, "nobody answers"));
        }
        let mut committed = self.log.committed();
        let found = self.log.ends().into_iter().map(|(partition, end)| AssignedPartition {
            committed: committed.remove(&partition),
            partition,
            topic_id: None,
            start: match at {
                Position::Earliest => self.low,
                Position::Latest => end,
                Position::Time(time) => time.timestamp_millis(),
            },
            low: self.low,
            end,
        });
        Ok(found.collect())
    }

    async fn commit(&self, offsets: &CommittedOffsets) -> Result<()> {
        if !self.takes_commits {
            return Err(Error::new(ErrorKind::Fenced, "the group has members"));
        }
        for (partition, committed) in offsets {
            self.log.set_committed(partition, committed.offset, committed.hint.clone());
        }
        Ok(())
    }
}

/// A log, a sink and a record that outlive their runs.
struct World {
    source: MemorySource,
    sink: MemorySink,
    state: StoreConfig,
    record: Arc<dyn RecordStore>,
}

impl World {
    fn new(rows: usize) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let state = StoreConfig::new(format!("memory:///offsets-{number}"));
        let record = StoredRecord::new(Store::open(&state).unwrap(), "p");
        let source = MemorySource::new().topic("t", 1).bounded();
        source.log().fill("t", 0, rows);
        Self { source, sink: MemorySink::new(), state, record: Arc::new(record) }
    }

    fn builder(&self) -> PipelineBuilder {
        Pipeline::builder("p")
            .source(self.source.clone())
            .sink("out", self.sink.clone())
            .state(State::Store(self.state.clone()))
            .checkpoint_every(Duration::from_secs(1))
    }

    async fn run(&self) {
        self.builder().run(std::future::pending()).await.unwrap();
    }

    fn group(&self) -> LogGroup {
        LogGroup::new(&self.source.log())
    }

    async fn plan(&self, to: i64) -> Plan {
        let target = Target::Offsets([(place(), to)].into());
        plan(self.record.as_ref(), &self.group(), &target).await.unwrap()
    }

    async fn apply(&self, plan: &Plan) -> Result<Applied> {
        apply(&self.record, "p", &self.group(), plan).await
    }

    async fn read(&self) -> Record {
        Record::decode(&self.record.read().await.unwrap().unwrap().0).unwrap()
    }

    /// How often each offset is in the files.
    fn counts(&self) -> BTreeMap<i64, usize> {
        let mut counts = BTreeMap::new();
        for (_, offset) in self.sink.files().rows() {
            *counts.entry(offset).or_default() += 1;
        }
        counts
    }

    fn committed(&self) -> i64 {
        self.source.log().committed()[&place()].offset
    }
}

fn place() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn repeats(from: i64, to: i64) -> Effect {
    Effect::Repeats((from, to).into())
}

#[tokio::test(start_paused = true)]
async fn going_back_writes_again_exactly_what_was_said() {
    let world = World::new(100);
    world.run().await;
    let planned = world.plan(40).await;
    assert_eq!(planned.objections, Vec::<String>::new());
    assert_eq!(planned.moves[0].effects, [repeats(40, 100)]);
    assert!(planned.render().contains("40..100 will be written a second time"));

    let before = world.read().await;
    let applied = world.apply(&planned).await.unwrap();
    assert_eq!(applied.not_mirrored, None);
    assert_eq!(world.committed(), 40, "the mirror follows");
    let state = world.read().await.partition(&place()).unwrap().clone();
    let epoch = before.partition(&place()).unwrap().epoch + 1;
    assert_eq!(state.rewinds, [Rewind { from: 40, to: 100, epoch }]);

    world.run().await;
    let counts = world.counts();
    assert!((0..40).all(|o| counts[&o] == 1) && (40..100).all(|o| counts[&o] == 2), "{counts:?}");
    assert_eq!(world.committed(), 100);
    // The set after the rewind begins at the new cursor.
    let sets = world.sink.files().sets();
    let begins =
        |first| sets.iter().any(|s| s.coverage.get(&place()).unwrap().first() == Some(first));
    assert!(begins(0) && begins(40), "{sets:?}");
    world.run().await;
    assert_eq!(world.counts(), counts, "once, not at every start");
}

#[tokio::test(start_paused = true)]
async fn going_on_leaves_out_exactly_what_was_said() {
    let world = World::new(100);
    world.run().await;
    world.source.log().fill("t", 0, 100);
    let planned = world.plan(150).await;
    assert_eq!(planned.moves[0].effects, [Effect::LeavesOut((100, 150).into())]);
    world.apply(&planned).await.unwrap();
    world.run().await;
    let offsets: Vec<i64> = world.counts().into_keys().collect();
    assert_eq!(offsets, (0..100).chain(150..200).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn positions_mean_every_partition_of_the_named_topics() {
    let world = World::new(100);
    world.run().await;
    let group = world.group();
    let to = |position, topics: &[&str]| {
        Target::Position(position, topics.iter().map(|t| (*t).to_owned()).collect())
    };
    let target = to(Position::Earliest, &["t"]);
    let planned = plan(world.record.as_ref(), &group, &target).await.unwrap();
    assert_eq!((planned.moves.len(), planned.moves[0].to), (1, 0));
    let planned = plan(world.record.as_ref(), &group, &to(Position::Latest, &[])).await.unwrap();
    assert!(planned.is_empty(), "it is there already");
    let time = Position::Time(chrono::DateTime::from_timestamp_millis(30).unwrap());
    let planned = plan(world.record.as_ref(), &group, &to(time, &[])).await.unwrap();
    assert_eq!(planned.moves[0].effects, [repeats(30, 100)]);
    let unknown = plan(world.record.as_ref(), &group, &to(Position::Latest, &["x"])).await;
    let error = unknown.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("its topics are t"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn places_outside_of_the_log_and_living_groups_are_objected_to() {
    let world = World::new(100);
    world.run().await;
    let group = LogGroup { low: 10, ..world.group() };
    for (to, objection) in [(101, "beyond"), (9, "deleted")] {
        let target = Target::Offsets([(place(), to)].into());
        let planned = plan(world.record.as_ref(), &group, &target).await.unwrap();
        assert!(planned.objections[0].contains(objection), "{planned:?}");
    }
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let source = MemorySource::new().topic("t", 1);
    let running = World { source, ..World::new(0) };
    running.source.log().fill("t", 0, 100);
    let run = tokio::spawn(running.builder().run(async move {
        let _ = stopped.await;
    }));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let planned = running.plan(20).await;
    assert!(planned.objections[0].contains("1 member"), "{planned:?}");

    // By force: the worker is fenced and goes on at the new cursor.
    running.apply(&planned).await.unwrap();
    running.source.log().fill("t", 0, 10);
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(stop);
    let report = run.await.unwrap().unwrap();
    assert!(report.restarts > 0, "{report:?}");
    let counts = running.counts();
    let expected = |o: i64| if (20..100).contains(&o) { 2 } else { 1 };
    assert_eq!(counts, (0..110).map(|o| (o, expected(o))).collect());
    assert_eq!(running.committed(), 110);
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_void_when_the_record_has_changed() {
    let world = World::new(100);
    world.run().await;
    let planned = world.plan(40).await;
    world.run().await;
    let error = world.apply(&planned).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(world.read().await.partition(&place()).unwrap().next(), Some(100));
    assert_eq!(world.committed(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_cannot_follow_is_repaired_by_the_next_run() {
    let world = World::new(100);
    world.run().await;
    let group = LogGroup { takes_commits: false, ..world.group() };
    let applied = apply(&world.record, "p", &group, &world.plan(40).await).await.unwrap();
    assert!(applied.render().contains("the group has members"));
    assert_eq!(world.committed(), 100);
    world.run().await;
    assert_eq!(world.counts()[&50], 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_record_the_committed_offset_is_what_moves() {
    let world = World::new(100);
    let planned = world.plan(40).await;
    assert_eq!((planned.recorded, planned.moves[0].seen_epoch), (false, None));
    assert_eq!(world.apply(&planned).await.unwrap().sequence, None);
    world.run().await;
    assert_eq!(world.counts().into_keys().collect::<Vec<_>>(), (40..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_overview_knows_both_sides_or_says_which_it_lacks() {
    let world = World::new(100);
    let empty = show(world.record.as_ref(), "p", None).await.unwrap();
    assert_eq!((empty.record.clone(), empty.partitions.len()), (None, 0));
    assert!(empty.render().contains("none yet"), "{}", empty.render());

    world.run().await;
    world.source.log().fill("t", 0, 20);
    let both = show(world.record.as_ref(), "p", Some(&world.group())).await.unwrap();
    let view = &both.partitions[0];
    assert_eq!(view.lag, Some(20));
    assert_eq!(view.recorded.as_ref().unwrap().cursor, Some(100));
    let committed = view.log.as_ref().unwrap().committed.as_ref().unwrap();
    assert!(committed.offset == 100 && committed.sequence.is_some());
    serde_json::to_string(&both).unwrap();

    let group = LogGroup { is_down: true, ..world.group() };
    let down = show(world.record.as_ref(), "p", Some(&group)).await.unwrap();
    assert!(down.render().contains("nobody answers"), "{}", down.render());
    assert_eq!(down.partitions[0].recorded, view.recorded);

    world.source.log().set_committed(&place(), 7, "somebody");
    world.apply(&world.plan(40).await).await.unwrap();
    world.source.log().set_committed(&place(), 7, "somebody");
    let both = show(world.record.as_ref(), "p", Some(&world.group())).await.unwrap();
    let text = both.render();
    assert!(text.contains("others") && text.contains("40..100 repeated"), "{text}");
}

/// Applies the first write, lets a worker claim right behind it, and answers
/// with an error: the operator's own entry is gone from the record then.
struct LostAnswer {
    truth: MemoryRecord,
    lost: AtomicUsize,
}

#[async_trait]
impl RecordStore for LostAnswer {
    async fn read(&self) -> Result<Option<(Bytes, RecordVersion)>> {
        self.truth.read().await
    }

    async fn write(&self, bytes: Bytes, expected: Option<&RecordVersion>) -> Result<RecordVersion> {
        let version = self.truth.write(bytes.clone(), expected).await?;
        if self.lost.fetch_add(1, Ordering::Relaxed) > 0 {
            return Ok(version);
        }
        let mut record = Record::decode(&bytes)?;
        let seen_epoch = record.partition(&place()).map(|state| state.epoch);
        change::apply(&mut record, Incarnation::from_u128(9), 1, &claim(seen_epoch)).unwrap();
        self.truth.write(record.encode()?.into(), Some(&version)).await?;
        Err(Error::new(ErrorKind::Unavailable, "the answer is lost"))
    }

    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.truth.put_object(name, bytes).await
    }

    async fn get_object(&self, name: &str) -> Result<Option<Bytes>> {
        self.truth.get_object(name).await
    }

    async fn delete_objects(&self, names: &[String]) -> Result<()> {
        self.truth.delete_objects(names).await
    }
}

fn claim(seen_epoch: Option<u64>) -> Change {
    Change::Claim(Claim {
        partitions: vec![ClaimedPartition {
            partition: place(),
            topic_id: None,
            seen_epoch,
            sinks: ["out".to_owned()].into(),
            start: 100,
            rewind_to: None,
            end: 100,
        }],
        sinks: ["out".to_owned()].into(),
        ..Claim::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_move_whose_answer_is_lost_is_made_once() {
    let world = World::new(100);
    let truth = MemoryRecord::default();
    let mut record = Record::new("p");
    change::apply(&mut record, Incarnation::from_u128(8), 1, &claim(None)).unwrap();
    truth.write(record.encode().unwrap().into(), None).await.unwrap();
    let store: Arc<dyn RecordStore> =
        Arc::new(LostAnswer { truth: truth.clone(), lost: AtomicUsize::new(0) });
    let target = Target::Offsets([(place(), 40)].into());
    let planned = plan(store.as_ref(), &world.group(), &target).await.unwrap();
    apply(&store, "p", &world.group(), &planned).await.unwrap();
    let record = Record::decode(&truth.read().await.unwrap().unwrap().0).unwrap();
    let state = record.partition(&place()).unwrap();
    assert_eq!(state.rewinds, [Rewind { from: 40, to: 100, epoch: 2 }]);
    assert_eq!((state.epoch, state.next()), (3, Some(40)));
}

#[test]
fn targets_are_read_as_people_write_them() {
    assert_eq!(parse_target("orders:3=1500").unwrap(), (TopicPartition::new("orders", 3), 1500));
    for wrong in ["orders", "orders:3", "orders=5", "orders:x=5", "orders:3=-1", ":0=1"] {
        assert_eq!(parse_target(wrong).unwrap_err().kind(), ErrorKind::Config, "{wrong}");
    }
}
