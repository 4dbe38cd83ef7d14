//! What only the rows tell.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tidelock_connector::{Sink, SinkContext};
use tidelock_file::Format;

use super::super::ProblemKind::{RepeatedRows, StrayRows};
use super::support::{Lake, batch, builder, kinds, offsets, partition, rows};

/// A set of partition 0 that says `covered` and holds `records`.
async fn set_of(lake: &mut Lake, records: &RecordBatch, covered: (i64, i64)) -> Vec<String> {
    let incarnation = tidelock_connector::Incarnation::new();
    let context = SinkContext::new("pipe", "lake", incarnation, 16 << 20);
    let mut writer = lake.sink.open(context).await.unwrap();
    writer.write(&batch(records)).await.unwrap();
    let barrier = tidelock_connector::Barrier {
        checkpoint: 1,
        coverage: tidelock_connector::Coverage::of(partition(0), covered.0, covered.1),
        epochs: [(partition(0), lake.state(0).epoch)].into(),
        last: false,
    };
    let files = writer.prepare(&barrier).await.unwrap();
    lake.publish(&files).await;
    let cursor = lake.cursor(0);
    (cursor.next, cursor.filed_to) = (covered.1, covered.1);
    lake.save().await;
    files.into_iter().map(|file| file.name).collect()
}

fn both(one: &RecordBatch, two: &RecordBatch) -> RecordBatch {
    concat_batches(&one.schema(), [one, two]).unwrap()
}

#[tokio::test]
async fn a_row_written_twice_shows_in_a_deep_look_only() {
    for format in [Format::Parquet, Format::Json] {
        let mut lake = Lake::new(builder(format)).await;
        lake.three().await;
        // Once more in the same file, and rows that an earlier set has.
        let again = both(&rows(0, 300, 400), &rows(0, 310, 320));
        let file = set_of(&mut lake, &again, (300, 400)).await;
        let late = both(&rows(0, 290, 300), &rows(0, 400, 410));
        let files = [set_of(&mut lake, &late, (400, 410)).await];
        assert!(lake.verify().await.ok, "footers do not tell");
        let verdict = lake.verify_deep().await;
        assert_eq!(kinds(&verdict), [RepeatedRows, RepeatedRows], "{verdict}");
        assert_eq!(offsets(&verdict, 0), ["0: 290..300"]);
        assert!(verdict.problems[0].files.contains(&files[0][0]), "{verdict}");
        assert_eq!(verdict.problems[0].files.len(), 2);
        assert_eq!(verdict.problems[1].files, file);
        assert!(verdict.problems[1].text.starts_with("10 rows of"), "{verdict}");
    }
}

#[tokio::test]
async fn a_row_that_no_set_accounts_for_is_named() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    let files = set_of(&mut lake, &rows(0, 300, 420), (300, 400)).await;
    let verdict = lake.verify_deep().await;
    assert_eq!(kinds(&verdict), [StrayRows], "{verdict}");
    assert_eq!(offsets(&verdict, 0), ["0: 400..420"]);
    assert_eq!(verdict.problems[0].files, files);
}

#[tokio::test]
async fn rows_in_a_strangers_file_are_there_twice_too() {
    let mut lake = Lake::new(builder(Format::Json)).await;
    lake.three().await;
    let lines: String = (50..60)
        .map(|n| format!("{{\"_topic\":\"orders\",\"_partition\":1,\"_offset\":{n}}}\n"))
        .collect();
    lake.store.put("mine.jsonl", lines.into()).await.unwrap();
    assert!(lake.verify().await.ok);
    let verdict = lake.verify_deep().await;
    assert_eq!(kinds(&verdict), [RepeatedRows], "{verdict}");
    assert_eq!(offsets(&verdict, 0), ["1: 50..60"]);
    assert!(verdict.problems[0].files.contains(&"mine.jsonl".to_owned()), "{verdict}");
}

#[tokio::test]
async fn filtered_rows_are_counted_and_no_problem() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    set_of(&mut lake, &both(&rows(0, 310, 320), &rows(0, 380, 390)), (300, 400)).await;
    let verdict = lake.verify_deep().await;
    assert!(verdict.ok, "{verdict}");
    let partition = &verdict.sinks[0].partitions[0];
    assert_eq!((partition.offsets, partition.offsets_with_rows), (400, Some(320)));
    assert!(verdict.to_string().contains("620 offsets have a row"), "{verdict}");
}

#[tokio::test]
async fn without_coordinates_the_rows_are_counted() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    set_of(&mut lake, &rows(0, 300, 400).project(&[2]).unwrap(), (300, 400)).await;
    let verdict = lake.verify_deep().await;
    assert!(verdict.ok, "{verdict}");
    assert_eq!(verdict.totals.rows, 700);
}
