//! The runtime against a log and a store in memory, on virtual time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidelock::{Pipeline, PipelineBuilder, Report, State};
use tidelock_connector::testing::{
    Call, CollectSink, Handover, MemberId, MemoryFiles, MemoryLog, MemorySink, MemorySource,
};
use tidelock_connector::{Error, ErrorKind, Offsets, Result, TopicPartition};
use tidelock_store::StoreConfig;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A store of its own for every pipeline that asks.
fn fresh_state() -> State {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    State::Store(StoreConfig::new(format!("memory:///runtime-{number}")))
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

struct Running {
    stop: Option<oneshot::Sender<()>>,
    run: JoinHandle<Result<Report>>,
}

impl Running {
    fn start(builder: PipelineBuilder) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let run = tokio::spawn(builder.run(async move {
            let _ = stopped.await;
        }));
        Self { stop: Some(stop), run }
    }

    async fn stop(mut self) -> Result<Report> {
        drop(self.stop.take());
        tokio::time::timeout(Duration::from_secs(600), self.run)
            .await
            .expect("stops")
            .expect("no panic")
    }

    /// Drops everything where it stands, as a crash would.
    async fn crash(mut self) {
        self.run.abort();
        let _ = (&mut self.run).await;
        std::mem::forget(self.stop.take());
    }
}

fn pipeline(source: &MemorySource, sink: &MemorySink, state: &State) -> PipelineBuilder {
    Pipeline::builder("p")
        .source(source.clone())
        .sink("out", sink.clone())
        .state(state.clone())
        .checkpoint_every(Duration::from_secs(1))
}

fn ends(log: &MemoryLog) -> BTreeMap<TopicPartition, i64> {
    log.ends()
}

/// Every offset once, the sets tile, and the group's offsets are the ends.
fn assert_exactly_once(log: &MemoryLog, files: &MemoryFiles) {
    let expected: Vec<_> = ends(log)
        .into_iter()
        .flat_map(|(partition, end)| (0..end).map(move |offset| (partition.clone(), offset)))
        .collect();
    assert_eq!(files.rows(), expected);
    let origins: Offsets = ends(log).keys().map(|p| (p.clone(), 0)).collect();
    assert_eq!(files.tile(&origins).expect("tiles"), log.ends());
    let committed: Offsets = log.committed().into_iter().map(|(p, c)| (p, c.offset)).collect();
    assert_eq!(committed, log.ends());
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came true: {what}");
}

#[tokio::test(start_paused = true)]
async fn a_bounded_source_ends_by_itself_with_every_row_once() {
    let source = MemorySource::new().topic("t", 3).bounded();
    let (log, sink) = (source.log(), MemorySink::new().parts(2));
    for partition in 0..3 {
        log.fill("t", partition, 1_000);
    }
    let report =
        pipeline(&source, &sink, &fresh_state()).run(std::future::pending()).await.unwrap();
    assert_exactly_once(&log, &sink.files());
    assert_eq!(report.records, 3_000);
    assert_eq!(report.sinks["out"].rows, 3_000);
    assert!(sink.files().staged().is_empty(), "staged bytes are deleted at the end");
}

#[tokio::test(start_paused = true)]
async fn stopping_is_a_checkpoint() {
    let source = MemorySource::new().topic("t", 2);
    let (log, sink, state) = (source.log(), MemorySink::new(), fresh_state());
    log.fill("t", 0, 500);
    log.fill("t", 1, 7);
    let builder = pipeline(&source, &sink, &state).checkpoint_every(Duration::from_secs(3_600));
    let running = Running::start(builder);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(sink.files().rows().is_empty(), "nothing is visible before the checkpoint");
    running.stop().await.unwrap();
    assert_exactly_once(&log, &sink.files());
}

#[tokio::test(start_paused = true)]
async fn crashes_at_many_moments_lose_and_double_nothing() {
    let source = MemorySource::new().topic("t", 4).batch_rows(7);
    let (log, sink, state) = (source.log(), MemorySink::new().parts(3), fresh_state());
    log.slow_reads(Duration::from_millis(3));
    for call in [Call::Prepare, Call::Commit, Call::Discard] {
        sink.files().slow(call, Duration::from_millis(40));
    }
    for round in 0..60_u64 {
        for partition in 0..4 {
            log.fill("t", partition, 25);
        }
        let builder = pipeline(&source, &sink, &state).checkpoint_every(Duration::from_millis(100));
        let running = Running::start(builder);
        tokio::time::sleep(Duration::from_millis(50 + round * 13 % 400)).await;
        running.crash().await;
    }
    let running = Running::start(pipeline(&source, &sink, &state));
    tokio::time::sleep(Duration::from_secs(60)).await;
    running.stop().await.unwrap();
    assert_exactly_once(&log, &sink.files());
    let left: usize = sink.files().staged().values().map(Vec::len).sum();
    assert_eq!(left, 0, "orphans are collected");
}

#[tokio::test(start_paused = true)]
async fn offsets_stand_still_while_a_sink_does_not_acknowledge() {
    let source = MemorySource::new().topic("t", 1);
    let (log, sink) = (source.log(), MemorySink::new());
    log.fill("t", 0, 100);
    sink.files().hold(Call::Prepare);
    let running = Running::start(pipeline(&source, &sink, &fresh_state()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(log.committed().is_empty());
    assert!(sink.files().rows().is_empty());
    log.fill("t", 0, 50);
    sink.files().release(Call::Prepare);
    until("committed", || log.committed().get(&tp(0)).is_some_and(|c| c.offset == 150)).await;
    running.stop().await.unwrap();
    assert_exactly_once(&log, &sink.files());
}

#[tokio::test(start_paused = true)]
async fn offsets_wait_for_the_slower_of_two_sinks() {
    let source = MemorySource::new().topic("t", 2);
    let (log, fast, slow) = (source.log(), MemorySink::new(), MemorySink::new());
    log.fill("t", 0, 100);
    slow.files().hold(Call::Prepare);
    let builder = pipeline(&source, &fast, &fresh_state()).sink("slow", slow.clone());
    let running = Running::start(builder);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(log.committed().is_empty());
    assert!(fast.files().rows().is_empty(), "nobody is ahead of the commit point");
    slow.files().release(Call::Prepare);
    until("committed", || log.committed().get(&tp(0)).is_some_and(|c| c.offset == 100)).await;
    running.stop().await.unwrap();
    assert_eq!(fast.files().rows(), slow.files().rows());
    assert_eq!(fast.files().rows().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_read_again_without_a_restart_of_the_process() {
    for call in [Call::Write, Call::Prepare, Call::Commit, Call::Open] {
        let source = MemorySource::new().topic("t", 2);
        let (log, sink) = (source.log(), MemorySink::new());
        let running = Running::start(pipeline(&source, &sink, &fresh_state()));
        log.fill("t", 0, 300);
        tokio::time::sleep(Duration::from_millis(500)).await;
        sink.files().fail(call, 3, true);
        log.fill("t", 1, 300);
        until("committed", || log.committed().values().map(|c| c.offset).sum::<i64>() == 600).await;
        running.stop().await.unwrap_or_else(|error| panic!("{call:?}: {error}"));
        assert_exactly_once(&log, &sink.files());
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_anywhere_ends_the_run_like_an_error() {
    for call in [Call::Open, Call::Write, Call::Prepare, Call::Commit] {
        let source = MemorySource::new().topic("t", 1);
        let (log, sink) = (source.log(), MemorySink::new());
        log.fill("t", 0, 100);
        sink.files().panic(call);
        let run = pipeline(&source, &sink, &fresh_state()).run(std::future::pending());
        let error = tokio::time::timeout(Duration::from_secs(300), run)
            .await
            .unwrap_or_else(|_| panic!("{call:?} hangs"))
            .unwrap_err();
        assert!(error.to_string().contains("planted panic"), "{call:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_record_ends_the_run_and_nothing_before_it_is_lost() {
    let source = MemorySource::new().topic("t", 1).batch_rows(10);
    let (log, sink) = (source.log(), MemorySink::new());
    log.fill("t", 0, 100);
    log.bad_record("t", 0, 57);
    let error =
        pipeline(&source, &sink, &fresh_state()).run(std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRecord);
    for part in ["topic=t", "partition=0", "offset=57"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(sink.files().rows().len(), 57);
    assert_eq!(log.committed()[&tp(0)].offset, 57);
}

#[tokio::test(start_paused = true)]
async fn a_transform_changes_rows_and_not_offsets() {
    use arrow_select::filter_even;
    let source = MemorySource::new().topic("t", 2).bounded();
    let (log, sink) = (source.log(), MemorySink::new());
    log.fill("t", 0, 101);
    log.fill("t", 1, 101);
    let report = pipeline(&source, &sink, &fresh_state())
        .map(filter_even)
        .run(std::future::pending())
        .await
        .unwrap();
    assert_eq!(report.records, 202);
    assert_eq!(sink.files().rows().len(), 102);
    let origins: Offsets = [(tp(0), 0), (tp(1), 0)].into();
    let tiled = sink.files().tile(&origins).unwrap();
    assert!(tiled.values().all(|end| *end == 101), "filtered offsets are covered: {tiled:?}");
    assert!(log.committed().values().all(|committed| committed.offset == 101));
}

mod arrow_select {
    use tidelock_connector::arrow::array::{AsArray, BooleanArray, RecordBatch};
    use tidelock_connector::arrow::compute::filter_record_batch;
    use tidelock_connector::arrow::datatypes::Int64Type;

    pub(super) fn filter_even(rows: RecordBatch) -> tidelock_connector::Result<RecordBatch> {
        let ids = rows.column(0).as_primitive::<Int64Type>();
        let even: BooleanArray = ids.iter().map(|id| id.map(|id| id % 2 == 0)).collect();
        Ok(filter_record_batch(&rows, &even)?)
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_move_between_workers_while_checkpoints_are_under_way() {
    let source = MemorySource::new().topic("t", 6).batch_rows(5).initial_members(3);
    let (log, sink, state) = (source.log(), MemorySink::new(), fresh_state());
    log.slow_reads(Duration::from_millis(2));
    sink.files().slow(Call::Prepare, Duration::from_millis(70));
    sink.files().slow(Call::Commit, Duration::from_millis(30));
    let builder =
        pipeline(&source, &sink, &state).workers(3).checkpoint_every(Duration::from_millis(100));
    let running = Running::start(builder);
    until("three members", || log.members().len() == 3).await;
    for round in 0..40_i32 {
        for partition in 0..6 {
            log.fill("t", partition, 20);
        }
        let handover = match round % 3 {
            0 => Handover::Cooperative,
            1 => Handover::Lost,
            _ => Handover::Silent,
        };
        let member = MemberId(usize::try_from(round % 3).unwrap());
        let partition = tp(round % 6);
        let before = log.owners().get(&partition).copied();
        log.assign([(partition.clone(), member)], handover);
        tokio::time::sleep(Duration::from_millis(90)).await;
        if let (Handover::Silent, Some(zombie)) = (handover, before) {
            log.wake(zombie);
        }
    }
    log.rebalance();
    until("all committed", || {
        log.committed().values().map(|c| c.offset).sum::<i64>() == 6 * 20 * 40
    })
    .await;
    running.stop().await.unwrap();
    assert_exactly_once(&log, &sink.files());
}

#[tokio::test(start_paused = true)]
async fn topics_are_routed_and_wait_only_for_their_own_sinks() {
    let source = MemorySource::new().topic("t", 1).topic("quiet", 1).one_partition_per_batch();
    let (log, sink, other) = (source.log(), MemorySink::new(), MemorySink::new());
    log.fill("t", 0, 100);
    log.fill("quiet", 0, 10);
    let builder = Pipeline::builder("p")
        .source(source.clone())
        .sink_for("out", ["t"], sink.clone())
        .sink_for("other", ["quiet"], other.clone())
        .state(fresh_state())
        .checkpoint_every(Duration::from_secs(1));
    let running = Running::start(builder);
    until("committed", || log.committed().values().map(|c| c.offset).sum::<i64>() == 110).await;
    running.stop().await.unwrap();
    assert!(sink.files().rows().iter().all(|(p, _)| &*p.topic == "t"));
    assert_eq!(sink.files().rows().len(), 100);
    assert_eq!(other.files().rows().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_bounded_run_stops_at_the_pinned_ends() {
    let source = MemorySource::new().topic("t", 3);
    let (log, sink) = (source.log(), MemorySink::new());
    for partition in 0..3 {
        log.fill("t", partition, 200);
    }
    log.slow_reads(Duration::from_millis(20));
    let builder = pipeline(&source, &sink, &fresh_state()).until_end(true).workers(2);
    let running = Running::start(builder);
    tokio::time::sleep(Duration::from_millis(50)).await;
    log.fill("t", 1, 1_000);
    let report = tokio::time::timeout(Duration::from_secs(300), running.run)
        .await
        .expect("ends by itself")
        .expect("no panic")
        .unwrap();
    assert_eq!(report.sinks["out"].rows, 600);
    assert_eq!(sink.files().rows().len(), 600);
}

#[tokio::test(start_paused = true)]
async fn at_least_once_needs_no_store() {
    let source = MemorySource::new().topic("t", 1);
    let (log, sink) = (source.log(), CollectSink::new());
    log.fill("t", 0, 100);
    let make = |sink: CollectSink| {
        Pipeline::builder("p")
            .source(source.clone())
            .sink("out", sink)
            .state(State::None)
            .checkpoint_every(Duration::from_secs(1))
    };
    let running = Running::start(make(sink.clone()));
    until("committed", || log.committed().get(&tp(0)).is_some_and(|c| c.offset == 100)).await;
    running.stop().await.unwrap();
    log.fill("t", 0, 10);
    let running = Running::start(make(sink.clone()));
    until("committed", || log.committed().get(&tp(0)).is_some_and(|c| c.offset == 110)).await;
    running.stop().await.unwrap();
    assert_eq!(sink.rows().unwrap().len(), 110, "goes on where the group's offsets are");
}

#[tokio::test(start_paused = true)]
async fn contradictions_stop_the_run_with_a_decision_to_make() {
    let source = MemorySource::new().topic("t", 1);
    let (log, sink, state) = (source.log(), MemorySink::new(), fresh_state());
    log.fill("t", 0, 100);
    let run = async || {
        let running = Running::start(pipeline(&source, &sink, &state));
        tokio::time::sleep(Duration::from_secs(20)).await;
        running.stop().await
    };
    run().await.unwrap();

    log.set_committed(&tp(0), 40, "");
    let error = run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    assert!(error.to_string().contains("on_external_reset"), "{error}");
    log.clear_committed(&tp(0));

    log.set_cluster("another");
    let error = run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    log.set_cluster("memory");

    log.fill("t", 0, 50);
    log.expire("t", 0, 120);
    let error: Error = run().await.unwrap_err();
    assert!(error.to_string().contains("100..120"), "{error}");
    assert_eq!(sink.files().rows().len(), 100);
}

#[test]
fn two_sinks_do_not_write_to_one_url() {
    let folder = tempfile::tempdir().unwrap();
    let sink = || {
        let url = folder.path().display().to_string();
        tidelock::file::ParquetSink::builder(url).build().unwrap()
    };
    let built = Pipeline::builder("p")
        .source(MemorySource::new().topic("t", 1))
        .sink("one", sink())
        .sink("two", sink())
        .state(fresh_state())
        .build();
    let error = built.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("two"), "{error}");
}
