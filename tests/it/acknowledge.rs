//! Offsets of a real group are never ahead of what is visible.

use std::time::Duration;

use tidelock::kafka::{Coordinate, Json, KafkaSource};
use tidelock::store::StoreConfig;
use tidelock::{Pipeline, State};
use tidelock_connector::testing::{Call, MemorySink};

use crate::support::{append, topic};

/// A sink that refuses to acknowledge: the group's offsets stand still, and
/// reading goes on after the next successful checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_stand_still_until_the_sink_acknowledges() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = topic(kafka, "ack", 2, 2_000);
    let group = topic.clone();
    let schema = tidelock_json::sample::schema();
    let source = KafkaSource::builder(kafka.client().bootstrap(), &group)
        .topics([topic.as_str()])
        .format(Json::schema(schema))
        .coordinates([Coordinate::Topic, Coordinate::Partition, Coordinate::Offset])
        .build()
        .unwrap();
    let sink = MemorySink::new();
    sink.files().hold(Call::Prepare);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = tokio::spawn(
        Pipeline::builder("ack")
            .source(source)
            .sink("held", sink.clone())
            .state(State::Store(StoreConfig::new(format!("memory:///{topic}"))))
            .checkpoint_every(Duration::from_millis(500))
            .run(async move {
                let _ = stopped.await;
            }),
    );
    let committed = || kafka.client().committed_offsets(&group, &topic).unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(committed().is_empty(), "nothing is committed before it is visible");
    assert!(sink.files().rows().is_empty());

    append(kafka, &topic, 2, 2, 1_000);
    sink.files().release(Call::Prepare);
    let ends = kafka.client().end_offsets(&topic).unwrap();
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while committed() != ends {
        assert!(tokio::time::Instant::now() < end, "the offsets never move on");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(sink.files().rows().len(), 3_000);
    drop(stop);
    run.await.unwrap().unwrap();
    let mut rows = sink.files().rows();
    rows.dedup();
    assert_eq!(rows.len(), 3_000, "each once");
}
