//! Whatever is written, however it is cut: every row is in exactly one file,
//! and every set is told by exactly one of its files.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidelock_file::{FileFooter, ParquetConfig, Size, inspect};

use crate::support::{Worker, both, memory_url, rows, visible};

#[derive(Debug, Clone)]
struct Plan {
    json: bool,
    partition_by: bool,
    target: u64,
    max_open: usize,
    row_group_rows: usize,
    memory: usize,
    /// Rows of each batch; a barrier follows after a batch where it says so.
    steps: Vec<(i64, bool)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        any::<bool>(),
        any::<bool>(),
        1_u64..60_000,
        1_usize..8,
        1_usize..400,
        (10_usize..22).prop_map(|bits| 1 << bits),
        prop::collection::vec((0_i64..300, prop::bool::weighted(0.2)), 1..25),
    )
        .prop_map(|(json, partition_by, target, max_open, row_group_rows, memory, steps)| {
            Plan { json, partition_by, target, max_open, row_group_rows, memory, steps }
        })
}

async fn carry_out(plan: Plan) {
    let [parquet, json] = both(&memory_url());
    let mut builder = if plan.json { json } else { parquet }
        .target_file_size(plan.target)
        .max_open_files(plan.max_open)
        .parquet(ParquetConfig {
            row_group_rows: plan.row_group_rows,
            row_group_size: Size(64 << 10),
            ..ParquetConfig::default()
        });
    if plan.partition_by {
        builder = builder.partition_by(["value"]);
    }
    let sink = builder.build().unwrap();
    let mut worker = Worker::with_memory(&sink, plan.memory).await;
    let (mut from, mut to) = (0, 0);
    let mut steps = plan.steps.clone();
    steps.push((0, true));
    for (count, barrier) in steps {
        worker.write(&rows(to, count)).await;
        to += count;
        if barrier && !worker.checkpoint(from, to).await.is_empty() {
            from = to;
        }
    }
    assert_eq!(from, to, "every row belongs to a set");

    let mut sets: BTreeMap<u64, Vec<(String, FileFooter)>> = BTreeMap::new();
    for (path, footer) in visible(&worker.store).await {
        sets.entry(footer.checkpoint).or_default().push((path, footer));
    }
    let mut next = 0;
    for files in sets.values() {
        let set = files.iter().find_map(|(_, footer)| footer.set.clone()).unwrap();
        let covered = set.coverage.coverage();
        let (_, offsets) = covered.iter().next().unwrap();
        assert_eq!(offsets.first(), Some(next), "sets tile");
        crate::support::assert_one_set(files, next, offsets.next().unwrap());
        next = offsets.next().unwrap();
        let mut total = tidelock_connector::Coverage::new();
        for (path, footer) in files {
            let size = worker.store.size(path).await.unwrap().unwrap();
            let entry = inspect::Entry { path: path.clone(), size };
            let counted = inspect::count(&worker.store, &entry).await.unwrap();
            assert_eq!(counted.repeated, 0);
            assert_eq!(counted.rows, footer.rows);
            total.union(&counted.offsets.unwrap_or_default());
        }
        if !plan.partition_by {
            assert_eq!(total, covered);
        }
        assert_eq!(total.len(), files.iter().map(|(_, footer)| footer.rows).sum::<u64>());
    }
    assert_eq!(next, to);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_row_once(plan in plan()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(carry_out(plan));
    }
}
