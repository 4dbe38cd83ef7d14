//! Gaps and overlaps against the record.

use std::sync::Arc;

use tidelock_connector::{ErrorKind, OffsetSet};

use super::super::ProblemKind::{
    DuplicateOffsets, ExpiredOffsets, MissingOffsets, UnrecordedOffsets,
};
use super::super::{VerifyOptions, Watermarks, verify};
use super::support::{Lake, files_of, kinds, offsets, partition};

/// A set that was never committed, and is visible all the same.
async fn unfenced(lake: &mut Lake, parts: &[(i32, i64, i64)]) -> Vec<String> {
    let set = lake.prepare(parts).await;
    let files = files_of(&set);
    lake.publish(&files).await;
    files.into_iter().map(|file| file.name).collect()
}

#[tokio::test]
async fn offsets_in_two_sets_are_duplicates() {
    let mut lake = Lake::parquet().await;
    let files = lake.three().await;
    // By the same life, and by one that claimed later.
    for claims in 0..2 {
        for _ in 0..claims {
            lake.claim().await;
        }
        let again = unfenced(&mut lake, &[(0, 150, 250)]).await;
        for verdict in [lake.verify().await, lake.verify_deep().await] {
            assert_eq!(kinds(&verdict), [DuplicateOffsets], "{verdict}");
            assert_eq!(offsets(&verdict, 0), ["0: 150..250"]);
            let mut names = verdict.problems[0].files.clone();
            let mut expected = [&files[1][..], &files[2][..], &again[..]].concat();
            names.sort();
            expected.sort();
            assert_eq!(names, expected);
            assert!(verdict.to_string().contains("100 offsets there twice"), "{verdict}");
        }
        lake.delete(&again[0]).await;
    }
}

#[tokio::test]
async fn what_the_record_has_not_committed_is_named() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    unfenced(&mut lake, &[(0, 300, 320)]).await;
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [UnrecordedOffsets], "{verdict}");
    assert_eq!(offsets(&verdict, 0), ["0: 300..320"]);
}

#[tokio::test]
async fn a_partition_that_the_record_never_saw_is_named() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    lake.record.topics.get_mut("orders").unwrap().partitions.remove(&1);
    lake.save().await;
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [UnrecordedOffsets], "{verdict}");
    assert_eq!(offsets(&verdict, 0), ["1: 0..300"]);
}

/// The sink no longer takes the topic: its files stay, and are still tiled.
#[tokio::test]
async fn files_of_a_topic_that_was_taken_away_must_have_no_gap_inside() {
    let mut lake = Lake::parquet().await;
    let files = lake.three().await;
    lake.state(1).cursors.clear();
    lake.save().await;
    assert!(lake.verify().await.ok);
    lake.delete(&files[1][0]).await;
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [MissingOffsets, MissingOffsets], "{verdict}");
}

#[tokio::test]
async fn a_sink_that_began_later_misses_nothing_before() {
    let mut lake = Lake::parquet().await;
    for number in [0, 1] {
        *lake.cursor(number) = crate::checkpoint::record::Cursor::start(100);
    }
    lake.save().await;
    lake.checkpoint(&[(0, 100, 200), (1, 100, 200)]).await;
    let verdict = lake.verify().await;
    assert!(verdict.ok, "{verdict}");
    assert_eq!(verdict.sinks[0].partitions[0].origin, Some(100));
}

#[tokio::test]
async fn a_rewind_is_no_duplicate() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    lake.rewind(0, 150).await;
    for verdict in [lake.verify().await, lake.verify_deep().await] {
        assert!(verdict.ok, "files ahead of the cursor are known: {verdict}");
    }
    lake.checkpoint(&[(0, 150, 220)]).await;
    assert!(lake.verify().await.ok, "half way");
    lake.checkpoint(&[(0, 220, 400)]).await;
    for verdict in [lake.verify().await, lake.verify_deep().await] {
        assert!(verdict.ok, "{verdict}");
        assert_eq!(verdict.totals.rewound, 150);
        assert_eq!(verdict.sinks[0].partitions[0].rewound, OffsetSet::from_range(150, 300));
        assert!(verdict.to_string().contains("150 of them are there again, as an operator asked"));
    }
    // Without the record nobody knows that it was decided.
    let verdict = lake.verify_without_record().await;
    assert_eq!(kinds(&verdict), [DuplicateOffsets], "{verdict}");
}

#[tokio::test]
async fn offsets_that_an_operator_skipped_are_no_gap() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    lake.rewind(0, 350).await;
    lake.checkpoint(&[(0, 350, 400)]).await;
    let verdict = lake.verify().await;
    assert!(verdict.ok, "{verdict}");
    assert_eq!(verdict.totals.skipped, 50);
    assert!(verdict.to_string().contains("50 offsets were left out by an operator"), "{verdict}");
}

#[tokio::test]
async fn without_the_record_only_interior_gaps_are_proved() {
    let mut lake = Lake::parquet().await;
    let files = lake.three().await;
    let verdict = lake.verify_without_record().await;
    assert!(verdict.ok && verdict.record.is_none(), "{verdict}");
    assert!(verdict.to_string().contains("without the record it cannot be told"), "{verdict}");
    lake.delete(&files[0][0]).await;
    assert!(lake.verify_without_record().await.ok, "nothing shows where it began");
    lake.checkpoint(&[(0, 300, 400), (1, 300, 400)]).await;
    lake.delete(&files[2][0]).await;
    let verdict = lake.verify_without_record().await;
    assert_eq!(offsets(&verdict, 0), ["0: 200..300"]);
    assert!(verdict.to_string().contains("no record"), "{verdict}");
}

#[tokio::test]
async fn a_gap_is_classed_by_what_the_topic_still_has() {
    let mut lake = Lake::parquet().await;
    let files = lake.three().await;
    lake.delete(&files[1][0]).await;
    let watermarks = [
        (partition(0), Watermarks { low: 130, end: 300 }),
        (partition(1), Watermarks { low: 0, end: 300 }),
    ];
    let verdict = verify(&lake.options().watermarks(watermarks.into())).await.unwrap();
    assert_eq!(kinds(&verdict), [MissingOffsets, MissingOffsets, ExpiredOffsets], "{verdict}");
    assert_eq!(offsets(&verdict, 0), ["0: 130..200"]);
    assert_eq!(offsets(&verdict, 1), ["1: 100..200"]);
    assert_eq!(offsets(&verdict, 2), ["0: 100..130"]);
}

#[tokio::test]
async fn another_pipelines_record_is_refused() {
    let mut lake = Lake::parquet().await;
    lake.three().await;
    let options = VerifyOptions::new("other", Arc::clone(&lake.records) as _);
    assert_eq!(verify(&options).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn two_sinks_are_proved_apart() {
    let mut one = Lake::parquet().await;
    one.three().await;
    let mut two =
        Lake::empty(super::support::builder(tidelock_file::Format::Json), "pipe", "copy").await;
    two.record = one.record.clone();
    for number in [0, 1] {
        let cursor = crate::checkpoint::record::Cursor::start(0);
        two.state(number).cursors.insert("copy".to_owned(), cursor);
    }
    two.records = Arc::clone(&one.records);
    let files = two.checkpoint(&[(0, 0, 70), (1, 0, 30)]).await;
    let options = one.options().sink("copy", two.store.clone(), None);
    let verdict = verify(&options).await.unwrap();
    assert!(verdict.ok, "{verdict}");
    assert!(verdict.to_string().contains("exactly once in sink copy: 100 offsets"), "{verdict}");
    two.delete(&files[0]).await;
    let verdict = verify(&options).await.unwrap();
    assert_eq!(kinds(&verdict), [MissingOffsets, MissingOffsets], "{verdict}");
    assert!(verdict.problems.iter().all(|problem| problem.sink == "copy"));
}
