use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use crate::testing::{Call, CollectSink, MemorySink, MemorySource};
use crate::{
    Barrier, Batch, Committer, Coverage, ErrorKind, Event, Guarantee, Incarnation, Outcome, Sink,
    SinkContext, SinkWriter, Source, SourceContext, Start, TopicPartition,
};

fn part() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// `count` rows from offset 0, two to a batch.
async fn batches(count: usize) -> Vec<Batch> {
    let source = MemorySource::new().topic("t", 1).bounded().batch_rows(2);
    source.log().fill("t", 0, count);
    let mut reader = source.open(SourceContext::new("p", 0, 0)).await.unwrap().reader;
    let Event::Assigned(assignment) = reader.next().await.unwrap() else { panic!("not assigned") };
    assignment.reply.send(vec![Start { partition: part(), offset: 0, end: None }]).unwrap();
    let mut batches = Vec::new();
    while let Event::Batch(batch) = reader.next().await.unwrap() {
        batches.push(batch);
    }
    batches
}

fn barrier(checkpoint: u64, from: i64, to: i64) -> Barrier {
    let coverage = Coverage::of(part(), from, to);
    Barrier { checkpoint, coverage, epochs: BTreeMap::new(), last: false }
}

fn context(life: u128) -> SinkContext {
    SinkContext::new("p", "s", Incarnation::from_u128(life), 1 << 20)
}

async fn open(sink: &dyn Sink, life: u128) -> Box<dyn SinkWriter> {
    sink.open(context(life)).await.unwrap()
}

fn committer(sink: &dyn Sink) -> Arc<dyn Committer> {
    match sink.guarantee() {
        Guarantee::ExactlyOnce(committer) => committer,
        Guarantee::AtLeastOnce => panic!("no committer"),
    }
}

#[tokio::test]
async fn sets_are_published_and_tile() {
    let sink = MemorySink::new().parts(2);
    let (files, committer) = (sink.files(), committer(&sink));
    let mut writer = open(&sink, 1).await;
    let batches = batches(8).await;
    for batch in &batches[..2] {
        writer.write(batch).await.unwrap();
    }
    let first = writer.prepare(&barrier(1, 0, 4)).await.unwrap();
    for batch in &batches[2..] {
        writer.write(batch).await.unwrap();
    }
    let second = writer.prepare(&barrier(2, 4, 8)).await.unwrap();
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(files.rows().is_empty());
    assert_eq!(files.staged()[&Incarnation::from_u128(1)].len(), 8);

    for committable in &second {
        assert_eq!(committer.commit(committable).await.unwrap(), Outcome::Committed);
    }
    let gap = files.tile(&[(part(), 0)].into()).unwrap_err();
    assert!(gap.to_string().contains("gap"), "{gap}");
    committer.commit(&first[0]).await.unwrap();
    let partial = files.tile(&[(part(), 0)].into()).unwrap_err();
    assert!(partial.to_string().contains("in part"), "{partial}");
    committer.commit(&first[1]).await.unwrap();
    assert_eq!(files.tile(&[(part(), 0)].into()).unwrap(), [(part(), 8)].into());
    assert_eq!(files.rows(), (0..8).map(|offset| (part(), offset)).collect::<Vec<_>>());
    assert_eq!(files.sets().iter().map(|set| set.checkpoint).collect::<Vec<_>>(), [1, 2]);

    let mut again = open(&sink, 2).await;
    again.write(&batches[3]).await.unwrap();
    let third = again.prepare(&barrier(1, 6, 8)).await.unwrap();
    committer.commit(&third[0]).await.unwrap();
    let overlap = files.tile(&[(part(), 0)].into()).unwrap_err();
    assert!(overlap.to_string().contains("overlap"), "{overlap}");
}

#[tokio::test]
async fn lost_bytes_are_missing_and_strangers_are_a_conflict() {
    let sink = MemorySink::new();
    let (files, committer) = (sink.files(), committer(&sink));
    let mut writer = open(&sink, 1).await;
    let batches = batches(4).await;
    writer.write(&batches[0]).await.unwrap();
    let lost = writer.prepare(&barrier(1, 0, 2)).await.unwrap();
    files.lose_staged(Incarnation::from_u128(1));
    assert_eq!(committer.commit(&lost[0]).await.unwrap(), Outcome::Missing);

    writer.write(&batches[1]).await.unwrap();
    let kept = writer.prepare(&barrier(2, 2, 4)).await.unwrap();
    committer.commit(&kept[0]).await.unwrap();
    let mut stranger = lost[0].clone();
    stranger.name.clone_from(&kept[0].name);
    let error = committer.commit(&stranger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn faults_hit_the_call_that_they_are_meant_for() {
    let sink = MemorySink::new();
    let (files, committer) = (sink.files(), committer(&sink));
    let batches = batches(2).await;
    files.fail(Call::Open, 1, true);
    assert!(sink.open(context(1)).await.is_err());
    let mut writer = open(&sink, 1).await;
    files.fail(Call::Write, 1, false);
    assert!(!writer.write(&batches[0]).await.unwrap_err().is_retryable());
    files.panic(Call::Write);
    let panic = std::panic::AssertUnwindSafe(writer.write(&batches[0])).catch_unwind().await;
    assert!(panic.is_err());
    writer.write(&batches[0]).await.unwrap();

    files.hold(Call::Prepare);
    let mut preparing = writer.prepare(&barrier(1, 0, 2));
    let held = tokio::time::timeout(Duration::from_millis(10), &mut preparing).await;
    assert!(held.is_err(), "prepare did not hang");
    files.release(Call::Prepare);
    let prepared = preparing.await.unwrap();

    files.fail(Call::Commit, 2, true);
    for _ in 0..2 {
        assert!(committer.commit(&prepared[0]).await.is_err());
        assert!(files.rows().is_empty());
    }
    assert_eq!(committer.commit(&prepared[0]).await.unwrap(), Outcome::Committed);
}

#[tokio::test]
async fn collected_rows_are_those_that_were_flushed() {
    let sink = CollectSink::new();
    let mut writer = open(&sink, 1).await;
    let batches = batches(4).await;
    writer.write(&batches[0]).await.unwrap();
    assert!(sink.rows().unwrap().is_empty());
    assert!(writer.prepare(&barrier(1, 0, 2)).await.unwrap().is_empty());
    writer.write(&batches[1]).await.unwrap();
    writer.discard().await;
    assert_eq!(sink.rows().unwrap(), [(part(), 0), (part(), 1)]);
}
