//! Nothing is wrong, and verify says so.

use tidelock_connector::OffsetSet;
use tidelock_file::Format;

use super::super::{Watermarks, verify};
use super::support::{Lake, builder, partition};

#[tokio::test]
async fn a_clean_folder_is_proved_in_every_layout() {
    for format in [Format::Parquet, Format::Json] {
        for sink in [builder(format), builder(format).partition_by(["country"])] {
            let mut lake = Lake::new(sink).await;
            lake.three().await;
            lake.claim().await;
            lake.checkpoint(&[(0, 300, 450), (1, 300, 350)]).await;
            for verdict in [lake.verify().await, lake.verify_deep().await] {
                assert!(verdict.ok, "{verdict}");
                assert_eq!((verdict.totals.sets, verdict.totals.offsets), (4, 800));
                assert_eq!(verdict.totals.rows, 800);
                assert_eq!(verdict.totals.files, lake.data_files().await.len() as u64);
                assert_eq!(verdict.sinks[0].foreign_files, 0);
            }
        }
    }
}

#[tokio::test]
async fn an_empty_pipeline_has_nothing_to_prove() {
    let lake = Lake::parquet().await;
    let verdict = lake.verify().await;
    assert!(verdict.ok && verdict.to_string().contains("nothing to prove"), "{verdict}");
}

/// What the record calls covered without rows is in no file, and no gap; the
/// next set with rows accounts for it.
#[tokio::test]
async fn filtered_offsets_are_no_gap() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    lake.cursor(0).next = 380;
    lake.save().await;
    let verdict = lake.verify().await;
    assert!(verdict.ok, "{verdict}");
    assert!(verdict.to_string().contains("80 more without rows"), "{verdict}");

    // Rows of 390..400 alone, in a set that begins where the last one ended.
    lake.cursor(0).next = 400;
    let set = lake.prepare(&[(0, 300, 400)]).await;
    lake.commit(&set, &[(0, 300, 400)]).await;
    lake.publish(&super::support::files_of(&set)).await;
    lake.clear(&set).await;
    assert!(lake.verify().await.ok);
}

#[tokio::test]
async fn offsets_that_are_not_done_are_no_gap() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    let cursor = lake.cursor(0);
    cursor.missing = OffsetSet::from_range(300, 310);
    (cursor.filed_to, cursor.next) = (310, 310);
    lake.save().await;
    let verdict = lake.verify().await;
    assert!(verdict.ok, "{verdict}");
    assert_eq!(verdict.sinks[0].partitions[0].undone, OffsetSet::from_range(300, 310));
}

#[tokio::test]
async fn strangers_are_counted_and_left_alone() {
    for format in [Format::Parquet, Format::Json] {
        let mut lake = Lake::new(builder(format)).await;
        lake.three().await;
        lake.store.put("notes.txt", "hello".into()).await.unwrap();
        lake.store.put("broken.parquet", "not parquet".into()).await.unwrap();
        lake.store.put("events.jsonl", "{\"a\":1}\n".into()).await.unwrap();
        // Another pipeline, and another sink, in the same folder.
        for (pipeline, sink) in [("other", "lake"), ("pipe", "second")] {
            let there = tidelock_file::FileSink::builder(format, lake.store.url());
            let mut other = Lake::empty(there, pipeline, sink).await;
            other.add_partition(0, 0);
            other.save().await;
            other.checkpoint(&[(0, 0, 50)]).await;
        }
        for verdict in [lake.verify().await, lake.verify_deep().await] {
            assert!(verdict.ok, "{verdict}");
            let sink = &verdict.sinks[0];
            assert_eq!((sink.other_files, sink.foreign_files), (2, 3), "{verdict}");
            assert_eq!(verdict.totals.files, 3);
        }
    }
}

#[tokio::test]
async fn lag_and_what_expired_unread_are_shown() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    let watermarks = [
        (partition(0), Watermarks { low: 100, end: 1_300 }),
        (partition(1), Watermarks { low: 400, end: 1_000 }),
        (partition(2), Watermarks { low: 5, end: 25 }),
    ];
    let options = lake.options().watermarks(watermarks.into());
    let verdict = verify(&options).await.unwrap();
    assert!(verdict.ok, "{verdict}");
    let lags: Vec<_> = verdict.sinks[0].partitions.iter().map(|p| p.lag).collect();
    assert_eq!(lags, [Some(1_000), Some(600), Some(20)]);
    assert_eq!(verdict.totals.lag, Some(1_620));
    assert_eq!(verdict.sinks[0].partitions[1].expired_unread, Some(100));
}

#[tokio::test]
async fn a_sink_may_take_some_topics_only() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    let others =
        [(tidelock_connector::TopicPartition::new("clicks", 0), Watermarks { low: 0, end: 9 })];
    let topics = Some(["orders".to_owned()].into());
    let options =
        super::super::VerifyOptions::new("pipe", std::sync::Arc::clone(&lake.records) as _)
            .sink("lake", lake.store.clone(), topics)
            .watermarks(others.into());
    assert_eq!(verify(&options).await.unwrap().totals.partitions, 2);
}

#[tokio::test]
async fn many_partitions_are_summed_up() {
    let mut lake = Lake::parquet().await;
    let parts: Vec<_> = (0..60).map(|number| (number, 0, 2_000)).collect();
    for &(number, from, _) in &parts {
        lake.add_partition(number, from);
    }
    lake.save().await;
    lake.checkpoint(&parts).await;
    let text = lake.verify().await.to_string();
    assert!(text.contains("orders: 60 partitions") && !text.contains("orders/17"), "{text}");
    assert!(
        text.contains("exactly once: 120,000 offsets in 60 partitions, each in exactly one of 1"),
        "{text}"
    );
}

/// The table as it is: whoever changes it should see what it looks like.
#[tokio::test]
async fn the_table_is_readable() {
    let mut lake = Lake::new(tidelock_file::FileSink::builder(
        Format::Parquet,
        format!("memory:///{}", uuid::Uuid::from_u128(7).simple()),
    ))
    .await;
    lake.three().await;
    lake.cursor(1).next = 310;
    lake.save().await;
    let verdict = lake.verify().await;
    let bytes = verdict.totals.bytes as f64 / 1024.0;
    assert_eq!(
        verdict.to_string(),
        format!(
            "pipeline pipe, record written 8 times

sink lake  memory:///00000000000000000000000000000007
  3 files in 3 commit sets, 600 rows, {bytes:.1} KiB

  partition  from   to  offsets  state
  orders/0      0  300      300  ok
  orders/1      0  300      300  ok, 10 more without rows

exactly once: 600 offsets in 2 partitions, each in exactly one of 3 commit sets (3 files, 600 rows)
"
        )
    );
}
