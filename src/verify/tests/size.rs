//! Many files.

use std::sync::Arc;
use std::time::Instant;

use super::super::read::Reader;
use super::super::scan::scan;
use super::support::{Lake, files_of};

const SETS: i64 = 2_000;

/// What stays of 2,000 files is a few words per set and a range per partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_files_leave_nothing_behind() {
    let mut lake = Lake::parquet().await;
    let mut files = Vec::new();
    for n in 0..SETS {
        let set = lake.prepare(&[(0, n, n + 1), (1, n, n + 1)]).await;
        files.extend(files_of(&set));
    }
    lake.publish(&files).await;
    for number in [0, 1] {
        let cursor = lake.cursor(number);
        (cursor.next, cursor.filed_to) = (SETS, SETS);
    }
    lake.save().await;

    let begun = Instant::now();
    let verdict = lake.verify().await;
    assert!(verdict.ok, "{verdict}");
    assert_eq!(verdict.totals.sets, SETS.unsigned_abs());
    // 10,000 files in a minute are asked for; this is a debug build.
    assert!(begun.elapsed().as_secs() < 12, "{:?}", begun.elapsed());

    let reader = Arc::new(Reader::open(&lake.store, "pipe", "lake", false).await.unwrap());
    let scan = scan(&reader, 32, Some(&lake.record), None).await.unwrap();
    assert_eq!(scan.ledger.len(), SETS.unsigned_abs());
    for layers in scan.layers["orders"].values() {
        assert_eq!(layers.covered().ranges().len(), 1);
    }
    assert!(scan.findings.is_empty() && scan.suspects.is_empty() && scan.sizes.is_empty());
    assert!(scan.details.sets.is_empty() && scan.details.covering.is_empty());
    const { assert!(super::super::sets::BYTES_PER_SET <= 100) };

    // With a gap every other set: the same, and a range for each gap.
    for file in files.iter().skip(1).step_by(2) {
        lake.delete(&file.name).await;
    }
    let verdict = lake.verify().await;
    assert_eq!(verdict.problems.len(), 2);
    assert_eq!(verdict.sinks[0].partitions[0].missing.len(), SETS.unsigned_abs() / 2);
    assert!(verdict.to_string().lines().count() < 40, "{verdict}");
}
