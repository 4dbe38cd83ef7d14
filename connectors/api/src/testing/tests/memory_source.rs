use std::time::Duration;

use crate::testing::{Handover, MemberId, MemoryLog, MemorySource, coordinates};
use crate::{
    Assignment, CommittedOffset, Coverage, ErrorKind, Event, OpenSource, Revocation, Source,
    SourceContext, SourceReader, Start, TopicPartition,
};

fn part(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

async fn open(source: &MemorySource, worker: usize) -> OpenSource {
    source.open(SourceContext::new("p", worker, 1 << 20)).await.unwrap()
}

fn at(number: i32, offset: i64) -> Start {
    Start { partition: part(number), offset, end: None }
}

/// Answers with the low watermarks.
fn answer(assignment: Assignment) -> Vec<TopicPartition> {
    let from = |p: &crate::AssignedPartition| Start {
        partition: p.partition.clone(),
        offset: p.low,
        end: None,
    };
    let starts: Vec<_> = assignment.partitions.iter().map(from).collect();
    let names = starts.iter().map(|start| start.partition.clone()).collect();
    assignment.reply.send(starts).unwrap();
    names
}

async fn assigned(reader: &mut dyn SourceReader) -> Assignment {
    match reader.next().await.unwrap() {
        Event::Assigned(assignment) => assignment,
        other => panic!("{other:?}"),
    }
}

async fn revoking(reader: &mut dyn SourceReader) -> Revocation {
    match reader.next().await.unwrap() {
        Event::Revoking(revocation) => revocation,
        other => panic!("{other:?}"),
    }
}

/// Reads to the end, or until the reader idles.
async fn drain(reader: &mut dyn SourceReader) -> (Vec<(TopicPartition, i64)>, Coverage, bool) {
    let (mut rows, mut coverage) = (Vec::new(), Coverage::new());
    loop {
        match reader.next().await.unwrap() {
            Event::Batch(batch) => {
                assert_eq!(batch.records.schema(), batch.stream.schema);
                rows.extend(coordinates(&batch.records).unwrap());
                coverage.union(&batch.coverage);
            }
            Event::Covered(more) => coverage.union(&more),
            Event::Idle => return (rows, coverage, false),
            Event::End => return (rows, coverage, true),
            other => panic!("{other:?}"),
        }
    }
}

fn filled(source: MemorySource, partitions: u32, rows: usize) -> (MemorySource, MemoryLog) {
    let source = source.topic("t", partitions).batch_rows(7);
    let log = source.log();
    for number in 0..i32::try_from(partitions).unwrap() {
        log.fill("t", number, rows);
    }
    (source, log)
}

#[tokio::test]
async fn bounded_reads_everything_over_holes_and_ends() {
    let (source, log) = filled(MemorySource::new().bounded(), 3, 20);
    log.hole("t", 1, 5);
    log.fill("t", 1, 1);
    log.hole("t", 2, 2);
    let mut opened = open(&source, 0).await;
    let assignment = assigned(&mut *opened.reader).await;
    assert!(matches!(opened.reader.next().await.unwrap(), Event::Idle), "read before the answer");
    answer(assignment);
    let (mut rows, coverage, ended) = drain(&mut *opened.reader).await;
    assert!(ended);
    rows.sort();
    rows.dedup();
    assert_eq!(rows.len(), 61);
    assert!(rows.contains(&(part(1), 25)));
    for (partition, end) in log.ends() {
        assert_eq!(coverage.get(&partition).unwrap().to_string(), format!("0..{end}"));
    }
}

#[tokio::test]
async fn a_start_cuts_at_both_sides_and_inside_holes() {
    let (source, log) = filled(MemorySource::new().bounded(), 1, 10);
    log.hole("t", 0, 10);
    log.fill("t", 0, 10);
    let mut opened = open(&source, 0).await;
    let start = Start { partition: part(0), offset: 4, end: Some(15) };
    assigned(&mut *opened.reader).await.reply.send(vec![start]).unwrap();
    let (rows, coverage, ended) = drain(&mut *opened.reader).await;
    assert!(ended);
    assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
    assert_eq!(coverage.get(&part(0)).unwrap().to_string(), "4..15");
}

#[tokio::test]
async fn seek_reads_only_what_is_named() {
    let (source, _) = filled(MemorySource::new().bounded(), 2, 30);
    let mut opened = open(&source, 0).await;
    answer(assigned(&mut *opened.reader).await);
    drain(&mut *opened.reader).await;
    opened.reader.seek(&[at(1, 25)]).await.unwrap();
    let (rows, _, ended) = drain(&mut *opened.reader).await;
    assert!(ended);
    assert_eq!(rows, (25..30).map(|offset| (part(1), offset)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_member_gets_its_share_after_done() {
    let (source, log) = filled(MemorySource::new(), 4, 5);
    let mut first = open(&source, 0).await;
    answer(assigned(&mut *first.reader).await);
    drain(&mut *first.reader).await;
    let mut second = open(&source, 1).await;
    let revocation = revoking(&mut *first.reader).await;
    assert!(!revocation.lost);
    assert_eq!(revocation.partitions.len(), 2);
    assert!(matches!(second.reader.next().await.unwrap(), Event::Idle), "assigned before done");
    log.fill("t", 0, 1);
    let held = tokio::time::timeout(Duration::from_millis(20), first.reader.next()).await;
    assert!(held.is_err(), "next went on before done: {held:?}");
    revocation.done.send(()).unwrap();
    drain(&mut *first.reader).await;
    let names = answer(assigned(&mut *second.reader).await);
    assert_eq!(names, revocation.partitions);
    assert_eq!(drain(&mut *second.reader).await.0.len(), 10);

    // Leaving gives everything back.
    drop(second);
    assert_eq!(answer(assigned(&mut *first.reader).await), revocation.partitions);
}

#[tokio::test]
async fn an_unanswered_revocation_is_over_at_its_deadline() {
    let source = MemorySource::new().revoke_timeout(Duration::from_millis(10));
    let (source, log) = filled(source, 1, 5);
    let mut first = open(&source, 0).await;
    answer(assigned(&mut *first.reader).await);
    let mut second = open(&source, 1).await;
    log.assign([(part(0), MemberId(1))], Handover::Cooperative);
    let _held = revoking(&mut *first.reader).await;
    assert!(matches!(first.reader.next().await.unwrap(), Event::Idle));
    assert_eq!(answer(assigned(&mut *second.reader).await), [part(0)]);
}

#[tokio::test]
async fn lost_and_silent_handovers_do_not_wait() {
    let (source, log) = filled(MemorySource::new().manual(), 2, 5);
    let mut first = open(&source, 0).await;
    let mut second = open(&source, 1).await;
    assert_eq!(log.members(), [(MemberId(0), 0), (MemberId(1), 1)]);
    let all = || [(part(0), MemberId(0)), (part(1), MemberId(0))];
    log.assign(all(), Handover::Cooperative);
    answer(assigned(&mut *first.reader).await);
    log.assign([(part(0), MemberId(1))], Handover::Lost);
    log.assign([(part(1), MemberId(1))], Handover::Silent);
    answer(assigned(&mut *second.reader).await);
    assert_eq!(drain(&mut *second.reader).await.0.len(), 10);
    let revocation = revoking(&mut *first.reader).await;
    assert!(revocation.lost);
    assert_eq!(revocation.partitions, [part(0)]);
    // It still reads what was taken from it silently.
    assert_eq!(drain(&mut *first.reader).await.0.len(), 5);
    log.wake(MemberId(0));
    assert_eq!(revoking(&mut *first.reader).await.partitions, [part(1)]);
    assert_eq!(log.owners().values().collect::<Vec<_>>(), [&MemberId(1), &MemberId(1)]);
}

#[tokio::test]
async fn a_bounded_group_ends_together_and_survivors_take_over() {
    let (source, _) = filled(MemorySource::new().bounded().initial_members(2), 2, 10);
    let mut first = open(&source, 0).await;
    assert!(matches!(first.reader.next().await.unwrap(), Event::Idle));
    let mut second = open(&source, 1).await;
    answer(assigned(&mut *first.reader).await);
    answer(assigned(&mut *second.reader).await);
    assert!(!drain(&mut *first.reader).await.2, "ended before the other one");
    drop(second);
    assert_eq!(answer(assigned(&mut *first.reader).await).len(), 1);
    let (rows, _, ended) = drain(&mut *first.reader).await;
    assert!(ended);
    assert_eq!(rows.len(), 10);
    drop(first);

    let mut again = open(&source, 0).await;
    let assignment = assigned(&mut *again.reader).await;
    assert!(matches!(again.reader.next().await.unwrap(), Event::Idle), "ended before it was read");
    answer(assignment);
    assert!(drain(&mut *again.reader).await.2);
}

#[tokio::test]
async fn faults_are_reported_and_lose_nothing() {
    let (source, log) = filled(MemorySource::new().bounded(), 1, 10);
    log.fail_opens(1, true);
    assert!(source.open(SourceContext::new("p", 0, 0)).await.err().unwrap().is_retryable());
    let mut opened = open(&source, 0).await;
    answer(assigned(&mut *opened.reader).await);
    log.fail_reads(2, false);
    for _ in 0..2 {
        assert!(!opened.reader.next().await.unwrap_err().is_retryable());
    }
    log.bad_record("t", 0, 3);
    let Event::Batch(batch) = opened.reader.next().await.unwrap() else { panic!("no batch") };
    assert_eq!(batch.coverage, Coverage::of(part(0), 0, 3));
    let error = opened.reader.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRecord);
    assert!(error.to_string().contains("offset=3"), "{error}");
    log.expire("t", 0, 5);
    assert_eq!(opened.reader.next().await.unwrap_err().kind(), ErrorKind::DataLoss);
}

#[tokio::test]
async fn rejected_records_are_covered() {
    let (source, log) = filled(MemorySource::new().bounded().reject_bad_records(), 1, 4);
    log.bad_record("t", 0, 0);
    log.bad_record("t", 0, 2);
    let mut opened = open(&source, 0).await;
    answer(assigned(&mut *opened.reader).await);
    let Event::Batch(batch) = opened.reader.next().await.unwrap() else { panic!("no batch") };
    assert_eq!(batch.coverage, Coverage::of(part(0), 0, 4));
    assert_eq!(batch.rejected.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 2]);
    let runs: Vec<_> = batch.runs.iter().map(|run| (run.first, run.count)).collect();
    assert_eq!(runs, [(1, 1), (3, 1)]);
}

#[tokio::test]
async fn a_new_schema_is_a_new_version() {
    let (source, log) = filled(MemorySource::new().bounded(), 1, 3);
    log.evolve("t", crate::testing::default_schema());
    log.fill("t", 0, 2);
    let mut opened = open(&source, 0).await;
    answer(assigned(&mut *opened.reader).await);
    let mut versions = Vec::new();
    while let Event::Batch(batch) = opened.reader.next().await.unwrap() {
        versions.push((batch.stream.version, batch.num_rows()));
    }
    assert_eq!(versions, [(0, 3), (1, 2)]);
}

#[tokio::test]
async fn offsets_are_committed_with_their_hint() {
    let (source, log) = filled(MemorySource::new(), 1, 3);
    let opened = open(&source, 0).await;
    log.fail_commits(1, true);
    let offsets = [(part(0), CommittedOffset { offset: 2, hint: "h".into() })].into();
    assert!(opened.committer.commit(&offsets).await.is_err());
    assert!(log.committed().is_empty());
    opened.committer.commit(&offsets).await.unwrap();
    assert_eq!(log.committed()[&part(0)].hint, "h");
    let mut reader = opened.reader;
    let committed = assigned(&mut *reader).await.partitions[0].committed.clone().unwrap();
    assert_eq!(committed.offset, 2);
}
