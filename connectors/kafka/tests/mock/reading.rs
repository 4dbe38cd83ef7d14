//! Positions, ends, seeks, and the bound on memory.

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use tidelock_connector::{Event, Source};
use tidelock_kafka::{Format, StartAt, Threshold};

use crate::support::{Cluster, MEMORY, Member, start, tp};

#[tokio::test(flavor = "multi_thread")]
async fn reads_everything_once_and_says_what_it_knows() {
    let cluster = Cluster::new("orders", 3);
    cluster.send_events(0, 0..1000);
    cluster.send_events(1, 0..10);
    let mut member = Member::open(cluster.source("all").build().expect("valid")).await;

    let assignment = member.assigned().await;
    assert_eq!(assignment.identity.group.as_deref(), Some("all"));
    assert!(assignment.identity.cluster.is_some());
    let mut known: Vec<_> = assignment
        .partitions
        .iter()
        .map(|p| (p.partition.partition, p.low, p.end, p.start, p.committed.is_some()))
        .collect();
    known.sort_unstable();
    assert_eq!(known, [(0, 0, 1000, 0, false), (1, 0, 10, 0, false), (2, 0, 0, 0, false)]);

    member.accept(assignment, false);
    member.read(1010).await;
    assert_eq!(member.rows.len(), 1010);
    assert!(member.rows.iter().all(|((_, offset), id)| offset == id));
    member.read_until_idle().await;

    // What comes later is read too.
    cluster.send_events(2, 0..5);
    member.read(1015).await;
    assert_eq!(member.rows.len(), 1015);
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_exactly_at_the_end() {
    let cluster = Cluster::new("orders", 2);
    cluster.send_events(0, 0..100);
    cluster.send_events(1, 0..100);
    let mut member = Member::open(cluster.source("bounded").build().expect("valid")).await;
    let assignment = member.assigned().await;
    member.answer(assignment, vec![start(0, 10, Some(20)), start(1, 100, Some(100))]);
    member.read(10).await;
    cluster.send_events(0, 100..110);
    cluster.send_events(1, 100..110);
    member.read_until_idle().await;
    member.read_until_idle().await;
    assert_eq!(member.coverage.get(&tp(0)).expect("read").to_string(), "10..20");
    assert_eq!(member.coverage.get(&tp(1)), None);
    assert_eq!(member.rows.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_an_answer_stays_unread() {
    let cluster = Cluster::new("orders", 2);
    cluster.send_events(0, 0..10);
    cluster.send_events(1, 0..10);
    let mut member = Member::open(cluster.source("partly").build().expect("valid")).await;
    let assignment = member.assigned().await;
    member.answer(assignment, vec![start(1, 0, None)]);
    member.read(10).await;
    member.read_until_idle().await;
    member.read_until_idle().await;
    assert_eq!(member.coverage.get(&tp(0)), None);

    // A seek names it later.
    let all = [start(0, 4, None), start(1, 10, None)];
    member.open.reader.seek(&all).await.expect("seeks");
    member.expect_at(&all);
    member.read(16).await;
    assert_eq!(member.coverage.get(&tp(0)).expect("read").to_string(), "4..10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_answer_leaves_all_unread() {
    let cluster = Cluster::new("orders", 1);
    cluster.send_events(0, 0..10);
    let mut member = Member::open(cluster.source("dropped").build().expect("valid")).await;
    drop(member.assigned().await);
    member.read_until_idle().await;
    member.read_until_idle().await;
    assert!(member.coverage.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_from_before_a_seek_comes_after_it() {
    let cluster = Cluster::new("orders", 2);
    cluster.send_events(0, 0..20_000);
    cluster.send_events(1, 0..20_000);
    let mut member = Member::open(cluster.source("seek").build().expect("valid")).await;
    let assignment = member.assigned().await;
    member.accept(assignment, false);
    for round in 0..10_i64 {
        member.read(1).await;
        // Somewhere in the middle, while batches are waiting in the channel.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let to = [start(0, 1000 * round, None)];
        member.open.reader.seek(&to).await.expect("seeks");
        let before = member.coverage.clone();
        (member.coverage, member.rows) = Default::default();
        member.position.clear();
        member.expect_at(&to);
        // The driver checks that coverage begins exactly here, and that
        // nothing of partition 1 comes.
        member.read(500).await;
        assert!(before.get(&tp(0)).is_some() || before.get(&tp(1)).is_some());
    }
    member.read(20_000 - 9000).await;
    assert_eq!(member.rows.len(), 11_000);
    assert!(member.coverage.get(&tp(1)).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_not_asked_stops_reading() {
    let cluster = Cluster::new("orders", 2);
    let text = "x".repeat(2000);
    for number in 0..2000 {
        for partition in 0..2 {
            cluster.send("orders", partition, &format!("{{\"id\":{number},\"text\":\"{text}\"}}"));
        }
    }
    cluster.flush();
    let source = cluster.source("slow").build().expect("valid");
    let mut member = Member::open_with(source, 4 << 20).await;
    let assignment = member.assigned().await;
    member.accept(assignment, false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    member.idle = 0;
    // Asked again it delivers everything; the channel had room for a quarter
    // of the memory, and so no more than half of the rows could be in it.
    let mut first = 0;
    while first < 4000 {
        member.next().await.expect("no error");
        first = member.rows.len();
        if member.batches == 1 {
            assert!(first < 2000, "{first} rows were waiting at once");
        }
    }
    assert_eq!(member.rows.len(), 4000);
    assert!(member.batches >= 8, "{} batches", member.batches);
}

/// Every partition's queue is full and nobody asks: nothing is dropped, and
/// everything goes on when somebody does.
#[tokio::test(flavor = "multi_thread")]
async fn all_partitions_full_at_once_lose_nothing_and_go_on() {
    let cluster = Cluster::new("orders", 4);
    let text = "x".repeat(500);
    for number in 0..4_000 {
        for partition in 0..4 {
            cluster.send("orders", partition, &format!("{{\"id\":{number},\"text\":\"{text}\"}}"));
        }
    }
    cluster.flush();
    let source = cluster.source("full").partition_pause_threshold(Threshold::Messages(50));
    let source = source.build().expect("valid");
    let fairness = source.fairness();
    let mut member = Member::open_with(source, 4 << 20).await;
    let assignment = member.assigned().await;
    member.accept(assignment, false);
    for _ in 0..3 {
        // Long enough for the channel and all queues to fill.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let before = fairness.report().partitions;
        assert!(before.iter().all(|one| one.waiting > 0), "{before:?}");
        assert!(before.iter().all(|one| one.pauses > 0), "{before:?}");
        let more = member.coverage.len() + 2_000;
        member.read(more).await;
    }
    member.read(16_000).await;
    assert_eq!(member.rows.len(), 16_000);
}

/// A sink that is slower than the broker: all partitions have data waiting, and
/// the figures say that they got the same.
#[tokio::test(flavor = "multi_thread")]
async fn equal_shares_of_waiting_partitions_show_in_the_figures() {
    let cluster = Cluster::new("orders", 3);
    let text = "x".repeat(300);
    for number in 0..10_000 {
        for partition in 0..3 {
            cluster.send("orders", partition, &format!("{{\"id\":{number},\"text\":\"{text}\"}}"));
        }
    }
    cluster.flush();
    let source = cluster.source("shares").max_poll_records(20).build().expect("valid");
    let fairness = source.fairness();
    let mut member = Member::open_with(source, 8 << 20).await;
    let assignment = member.assigned().await;
    member.accept(assignment, false);
    let begun = Instant::now();
    while fairness.report().index.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", fairness.report());
        member.next().await.expect("no error");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let report = fairness.report();
    assert!(report.index.is_some_and(|index| index > 0.95), "{report:?}");
    for one in &report.partitions {
        assert!((one.share - 1.0 / 3.0).abs() < 0.05, "{report:?}");
        assert!(one.overtaken <= 2 * 20, "one turn of each other partition: {report:?}");
        assert!(one.waiting > 0 && one.refetched_bytes == 0, "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn next_is_cancel_safe() {
    let cluster = Cluster::new("orders", 1);
    cluster.send_events(0, 0..5000);
    let mut member = Member::open(cluster.source("cancel").build().expect("valid")).await;
    let assignment = member.assigned().await;
    member.accept(assignment, false);
    let begun = Instant::now();
    while member.coverage.len() < 5000 && begun.elapsed() < Duration::from_secs(20) {
        let mut event = None;
        {
            let next = member.next();
            tokio::pin!(next);
            for _ in 0..3 {
                tokio::select! {
                    biased;
                    it = &mut next => { event = Some(it); break; }
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        drop(event);
    }
    assert_eq!(member.rows.len(), 5000);
}

#[tokio::test(flavor = "multi_thread")]
async fn start_says_where_to_begin() {
    let cluster = Cluster::new("orders", 1);
    cluster.send_events(0, 0..10);
    let offsets = [("orders".to_owned(), [(0, 7)].into())].into();
    let cases = [
        (StartAt::Latest, 10),
        (StartAt::Offsets(offsets), 7),
        (StartAt::Committed, tidelock_kafka::NO_START),
    ];
    for (index, (start, expected)) in cases.into_iter().enumerate() {
        let source = cluster.source(&format!("start-{index}")).start(start).build().expect("valid");
        let mut member = Member::open(source).await;
        assert_eq!(member.assigned().await.partitions[0].start, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_messages_keep_everything() {
    let cluster = Cluster::new("orders", 1);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some("abc") })
        .insert(Header::<&str> { key: "empty", value: None });
    let producer = cluster.producer();
    let record =
        BaseRecord::to("orders").partition(0).key("k").payload("v").timestamp(1_700_000_000_123);
    producer.send(record.headers(headers)).map_err(|(error, _)| error).expect("sent");
    let tombstone = BaseRecord::<str, str>::to("orders").partition(0).key("gone");
    producer.send(tombstone).map_err(|(error, _)| error).expect("sent");
    cluster.flush();

    let source = cluster.source("raw").format(Format::Raw).build().expect("valid");
    let names: Vec<String> =
        source.streams()[0].schema.fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(
        names,
        ["value", "_key", "_headers", "_timestamp", "_topic", "_partition", "_offset"]
    );
    let mut open =
        source.open(tidelock_connector::SourceContext::new("t", 0, MEMORY)).await.expect("opens");
    let mut batches = Vec::new();
    while batches.iter().map(tidelock_connector::Batch::num_rows).sum::<usize>() < 2 {
        match open.reader.next().await.expect("no error") {
            Event::Assigned(assignment) => {
                assignment.reply.send(vec![start(0, 0, None)]).expect("waiting");
            }
            Event::Batch(batch) => batches.push(batch),
            _ => {}
        }
    }
    let records: Vec<_> = batches.iter().map(|batch| batch.records.clone()).collect();
    let schema = records[0].schema();
    let all = arrow::compute::concat_batches(&schema, &records).expect("one schema");
    let values = all.column(0).as_binary::<i32>();
    assert_eq!((values.value(0), values.is_valid(1)), (&b"v"[..], false));
    assert_eq!(all.column(1).as_binary::<i32>().value(1), b"gone");
    let headers = all.column(2).as_list::<i32>();
    let first = headers.value(0);
    let first = first.as_struct();
    assert_eq!(first.column(0).as_string::<i32>().value(0), "trace");
    assert_eq!(first.column(1).as_binary::<i32>().value(0), b"abc");
    assert!(!first.column(1).is_valid(1));
    assert_eq!(headers.value_length(1), 0);
    let time = all.column(3).as_primitive::<arrow::datatypes::TimestampMillisecondType>();
    assert_eq!(time.value(0), 1_700_000_000_123);
    assert_eq!(all.column(4).as_string::<i32>().value(1), "orders");
}
