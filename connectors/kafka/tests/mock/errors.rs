//! Bad records, missing topics, absent brokers.

use std::time::{Duration, Instant};

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tidelock_connector::{ErrorKind, Event, Source, SourceContext};
use tidelock_kafka::{Json, KafkaSource, OnBadRecord};

use crate::support::{Cluster, MEMORY, Member, schema, start, tp};

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_ends_the_run_behind_everything_before_it() {
    let cluster = Cluster::new("orders", 1);
    cluster.send_events(0, 0..5);
    cluster.send("orders", 0, "{\"id\":\"five\"}");
    cluster.send_events(0, 6..10);
    let mut member = Member::open(cluster.source("stop").build().expect("valid")).await;
    let assignment = member.assigned().await;
    member.accept(assignment, false);
    let error = loop {
        match member.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::BadRecord);
    let context: Vec<_> = error.context().collect();
    assert_eq!(context, [("topic", "orders"), ("partition", "0"), ("offset", "5")]);
    assert!(error.message().contains("\"id\""), "{error}");
    assert_eq!(member.rows.len(), 5);
    assert_eq!(member.coverage.get(&tp(0)).expect("read").to_string(), "0..5");
    // Nothing behind it is delivered.
    let more = tokio::time::timeout(Duration::from_secs(2), member.next()).await;
    assert!(more.is_err(), "{more:?}");
    // After a seek over it reading goes on.
    let to = [start(0, 6, None)];
    member.open.reader.seek(&to).await.expect("seeks");
    member.expect_at(&to);
    member.read(9).await;
    assert_eq!(member.rows.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_can_be_skipped() {
    let cluster = Cluster::new("orders", 1);
    cluster.send_events(0, 0..2);
    cluster.send("orders", 0, "not JSON");
    cluster.send_events(0, 3..5);
    let source = cluster.source("skip").on_bad_record(OnBadRecord::Skip).build().expect("valid");
    let mut member = Member::open(source).await;
    let assignment = member.assigned().await;
    member.accept(assignment, false);
    let mut rejected = Vec::new();
    while member.coverage.len() < 5 {
        if let Event::Batch(batch) = member.next().await.expect("no error") {
            rejected.extend(batch.rejected);
        }
    }
    assert_eq!(member.rows.len(), 4);
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].offset, &rejected[0].partition), (2, &tp(0)));
    assert_eq!(rejected[0].value.as_deref(), Some(&b"not JSON"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_is_there_and_what_is_missing() {
    let cluster = Cluster::new("orders", 4);
    let source = cluster.source("check").build().expect("valid");
    let lines = source.check().await.expect("all is well");
    assert_eq!(lines[0], "orders: 4 partitions");
    assert!(lines[1].contains("0 of 4"), "{lines:?}");

    let source = cluster.source("check").topics(["^ord.*"]).build().expect("valid");
    assert_eq!(source.check().await.expect("all is well")[0], "orders: 4 partitions");
}

/// What the metadata names is there, whatever a broker says that has just
/// restarted: a run that pins its ends must not end with that.
#[tokio::test(flavor = "multi_thread")]
async fn ends_are_asked_for_again_where_a_partition_is_not_heard_of_yet() {
    let cluster = Cluster::new("orders", 2);
    cluster.send_events(0, 0..7);
    let source = cluster.source("ends").build().expect("valid");
    let unheard = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART];
    cluster.mock.request_errors(RDKafkaApiKey::ListOffsets, &unheard);
    let error = source.ends().await.expect_err("the broker has not heard of them");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.is_retryable(), "{error}");
    let ends = source.ends().await.expect("by now it has");
    assert_eq!(ends, [(tp(0), 7), (tp(1), 0)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_home_is_said_in_time() {
    let source = KafkaSource::builder("127.0.0.1:1", "nobody")
        .topics(["orders"])
        .format(Json::schema(schema()))
        .build()
        .expect("valid");
    let begun = Instant::now();
    let error = source.check().await.expect_err("there is no broker");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(source.open(SourceContext::new("t", 0, MEMORY)).await.is_err());
}
