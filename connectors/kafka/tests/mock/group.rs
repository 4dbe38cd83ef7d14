//! Rebalances and commits.

use std::time::{Duration, Instant};

use tidelock_connector::{CommittedOffset, CommittedOffsets, Event, OffsetCommitter, Start};

use crate::support::{Cluster, Member, start, tp};

fn committed(offset: i64, hint: &str) -> CommittedOffset {
    CommittedOffset { offset, hint: hint.to_owned() }
}

/// Where `member` stands.
fn positions(member: &Member, hint: &str) -> CommittedOffsets {
    let at = |(partition, offset): (&i32, &i64)| (tp(*partition), committed(*offset, hint));
    member.position.iter().map(at).collect()
}

/// When a member was slow to join, the mock group rebalances once more. It
/// takes no commit meanwhile (a broker does until the members fetch their
/// assignments), and others may get what a test had in mind for one.
struct Spoilt;

/// Commits as the runtime does: what may be tried again is.
async fn commit(committer: &dyn OffsetCommitter, offsets: &CommittedOffsets) -> Result<(), Spoilt> {
    let end = Instant::now() + Duration::from_secs(2);
    while let Err(error) = committer.commit(offsets).await {
        assert!(error.is_retryable(), "{error}");
        if Instant::now() > end {
            return Err(Spoilt);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Plays a scene again that the mock group has spoilt.
async fn play(scene: impl AsyncFn() -> Result<(), Spoilt>) {
    for _ in 0..5 {
        if scene().await.is_ok() {
            return;
        }
    }
    panic!("the mock group does not settle");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_committed_with_their_hint() {
    let cluster = Cluster::new("orders", 2);
    cluster.send_events(0, 0..10);
    let mut member = Member::open(cluster.source("commit").build().expect("valid")).await;
    let assignment = member.assigned().await;
    member.accept(assignment, false);
    member.read(10).await;
    let offsets = [(tp(0), committed(10, "pipeline:7")), (tp(1), committed(0, "pipeline:8"))];
    let offsets = CommittedOffsets::from(offsets);
    member.open.committer.commit(&offsets).await.expect("commits");
    let committer = std::sync::Arc::clone(&member.open.committer);
    drop(member);
    assert!(committer.commit(&offsets).await.is_err(), "the member has left");

    let mut next = Member::open(cluster.source("commit").build().expect("valid")).await;
    let mut partitions = next.assigned().await.partitions;
    partitions.sort_by_key(|one| one.partition.partition);
    let committed: Vec<_> = partitions
        .iter()
        .map(|one| one.committed.as_ref().map(|c| (c.offset, c.hint.as_str())))
        .collect();
    assert_eq!(committed, [Some((10, "pipeline:7")), Some((0, "pipeline:8"))]);
}

/// The second member takes half of the partitions; before that the first one
/// commits them, from another thread while its reader waits. What was kept
/// goes on, from exactly where it was, although every partition stood at its
/// end, where librdkafka's own position is one too far.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_moves_partitions_without_loss_or_repetition() {
    play(a_rebalance).await;
}

async fn a_rebalance() -> Result<(), Spoilt> {
    let cluster = Cluster::new("orders", 4);
    (0..4).for_each(|partition| cluster.send_events(partition, 0..100));
    let mut first = Member::open(cluster.source("pair").build().expect("valid")).await;
    let assignment = first.assigned().await;
    assert_eq!(assignment.partitions.len(), 4);
    first.accept(assignment, false);
    first.read(400).await;
    first.read_until_idle().await;

    let source = cluster.source("pair").build().expect("valid");
    let second = tokio::spawn(async move {
        let mut second = Member::open(source).await;
        let assignment = second.assigned().await;
        (second, assignment)
    });

    let revocation = first.revoking().await;
    assert!(!revocation.lost);
    assert_eq!(revocation.partitions.len(), 2);
    let gone: Vec<i32> = revocation.partitions.iter().map(|one| one.partition).collect();
    // New messages arrive while the revocation is under way.
    (0..4).for_each(|partition| cluster.send_events(partition, 100..150));
    let committer = std::sync::Arc::clone(&first.open.committer);
    let offsets = positions(&first, "last");
    tokio::spawn(async move { commit(&*committer, &offsets).await }).await.expect("no panic")?;
    revocation.done.send(()).expect("the reader waits");
    first.position.retain(|partition, _| !gone.contains(partition));

    first.read(500).await;
    let (mut second, assignment) = tokio::time::timeout(Duration::from_secs(30), second)
        .await
        .expect("the second member joins")
        .expect("no panic");
    let committed: Vec<_> = assignment
        .partitions
        .iter()
        .map(|one| one.committed.as_ref().map(|c| (c.offset, c.hint.clone())))
        .collect();
    assert_eq!(committed, vec![Some((100, "last".to_owned())); 2]);
    second.accept(assignment, false);
    second.read(100).await;

    // And later messages find their way to both.
    (0..4).for_each(|partition| cluster.send_events(partition, 150..200));
    first.read(600).await;
    second.read(200).await;
    first.rows.append(&mut second.rows);
    let expected: Vec<_> = (0..4).flat_map(|p| (0..200).map(move |o| ((p, o), o))).collect();
    assert_eq!(first.rows.into_iter().collect::<Vec<_>>(), expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_back_when_a_member_leaves() {
    play(a_member_leaves).await;
}

async fn a_member_leaves() -> Result<(), Spoilt> {
    let cluster = Cluster::new("orders", 4);
    (0..4).for_each(|partition| cluster.send_events(partition, 0..50));
    let mut first = Member::open(cluster.source("leave").build().expect("valid")).await;
    let assignment = first.assigned().await;
    first.accept(assignment, false);
    first.read(200).await;
    let source = cluster.source("leave").build().expect("valid");
    let second = tokio::spawn(async move {
        let mut second = Member::open(source).await;
        drop(second.assigned().await);
        // Leaves without having read.
    });
    let revocation = first.revoking().await;
    commit(&*first.open.committer, &positions(&first, "")).await?;
    drop(revocation);
    let assignment = first.assigned().await;
    second.await.expect("no panic");
    assert_eq!(assignment.partitions.len(), 2);
    assert!(assignment.partitions.iter().all(|one| one.committed.is_some()));
    first.accept(assignment, false);
    (0..4).for_each(|partition| cluster.send_events(partition, 50..60));
    first.read(240).await;
    assert_eq!(first.rows.len(), 240);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_during_a_revocation_does_not_wait_for_it() {
    let cluster = Cluster::new("orders", 2);
    (0..2).for_each(|partition| cluster.send_events(partition, 0..100));
    let mut first = Member::open(cluster.source("busy").build().expect("valid")).await;
    let assignment = first.assigned().await;
    first.accept(assignment, false);
    first.read(200).await;
    let source = cluster.source("busy").build().expect("valid");
    let second = tokio::spawn(async move { (Member::open(source).await).assigned().await });

    let revocation = first.revoking().await;
    let gone = revocation.partitions[0].partition;
    let kept = 1 - gone;
    let to = [start(kept, 40, None), start(gone, 40, None)];
    let seek = first.open.reader.seek(&to);
    tokio::time::timeout(Duration::from_secs(2), seek).await.expect("at once").expect("seeks");
    (first.coverage, first.rows) = Default::default();
    first.position.clear();
    first.expect_at(&to[..1]);
    drop(revocation);
    first.read(60).await;
    assert!(first.rows.keys().all(|(partition, _)| *partition == kept));
    assert_eq!(first.rows.len(), 60);
    second.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn eager_assignors_work_too() {
    play(an_eager_rebalance).await;
}

async fn an_eager_rebalance() -> Result<(), Spoilt> {
    let cluster = Cluster::new("orders", 4);
    (0..4).for_each(|partition| cluster.send_events(partition, 0..50));
    let eager = || cluster.source("eager").assignor(tidelock_kafka::Assignor::Range);
    let mut first = Member::open(eager().build().expect("valid")).await;
    let assignment = first.assigned().await;
    first.accept(assignment, false);
    first.read(200).await;
    let source = eager().build().expect("valid");
    let second = tokio::spawn(async move {
        let mut second = Member::open(source).await;
        let assignment = second.assigned().await;
        second.accept(assignment, false);
        second.read(100).await;
        second
    });
    let revocation = first.revoking().await;
    assert_eq!(revocation.partitions.len(), 4, "everything is taken away first");
    drop(revocation);
    first.position.clear();
    let assignment = first.assigned().await;
    let kept = assignment.partitions.iter().map(|one| one.partition.clone());
    let starts: Vec<_> = kept.map(|partition| Start { partition, offset: 50, end: None }).collect();
    if starts.len() != 2 {
        return Err(Spoilt);
    }
    first.answer(assignment, starts);
    let second = second.await.expect("no panic");
    (0..4).for_each(|partition| cluster.send_events(partition, 50..60));
    first.read(220).await;
    // Each of them has panicked if something came twice, or not at all.
    let as_meant = (first.rows.len(), second.rows.len()) == (220, 100);
    if as_meant { Ok(()) } else { Err(Spoilt) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_nobody_answers_ends_at_its_deadline() {
    let cluster = Cluster::new("orders", 2);
    let source = |interval| {
        cluster
            .source("deaf")
            .max_poll_interval(Duration::from_secs(interval))
            .build()
            .expect("valid")
    };
    let mut first = Member::open(source(9)).await;
    let assignment = first.assigned().await;
    first.accept(assignment, false);
    let source = source(9);
    let second = tokio::spawn(async move { (Member::open(source).await).assigned().await });
    let revocation = first.revoking().await;
    let left = revocation.deadline.saturating_duration_since(std::time::Instant::now());
    assert!(left <= Duration::from_secs(3));
    let assignment = tokio::time::timeout(Duration::from_secs(20), second)
        .await
        .expect("the second member gets its share")
        .expect("no panic");
    assert_eq!(assignment.partitions.len(), 1);
    assert!(revocation.done.is_closed());
    assert!(!matches!(first.next().await, Ok(Event::End)));
}
