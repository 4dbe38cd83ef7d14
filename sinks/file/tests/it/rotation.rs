//! Files that are closed before the barrier, and the one that must not be.

use tidelock_file::ParquetConfig;

use crate::support::{Worker, assert_one_set, both, memory_url, paths, rows, visible};

#[tokio::test]
async fn full_files_are_replaced_and_the_last_one_tells() {
    for builder in both(&memory_url()) {
        let small = ParquetConfig { row_group_rows: 500, ..ParquetConfig::default() };
        let sink = builder.target_file_size(20_000).parquet(small).build().unwrap();
        let mut worker = Worker::new(&sink).await;
        let before = visible(&worker.store).await.len();
        for step in 0..20 {
            worker.write(&rows(step * 500, 500)).await;
        }
        let committed = worker.checkpoint(0, 10_000).await;
        assert!(committed.len() > 3, "{} files", committed.len());
        assert_eq!(committed.iter().map(|c| c.rows).sum::<u64>(), 10_000);
        let files: Vec<_> = visible(&worker.store)
            .await
            .into_iter()
            .filter(|(_, footer)| footer.incarnation == worker.incarnation)
            .collect();
        assert_eq!(files.len(), committed.len());
        assert_one_set(&files, 0, 10_000);
        assert!(before == 0 || files.iter().all(|(path, _)| path.ends_with(".jsonl")));
    }
}

/// The file becomes full with the very last rows before the barrier.
#[tokio::test]
async fn the_only_file_stays_open_however_full_it_is() {
    for builder in both(&memory_url()) {
        let sink = builder.target_file_size(1).build().unwrap();
        let mut worker = Worker::new(&sink).await;
        worker.write(&rows(0, 100)).await;
        let committed = worker.prepare(0, 100).await;
        assert_eq!(committed.len(), 1);
        worker.commit(&committed).await;
        worker.write(&rows(100, 10)).await;
        worker.write(&rows(110, 10)).await;
        let committed = worker.prepare(100, 120).await;
        assert_eq!(committed.len(), 2);
    }
}

#[tokio::test]
async fn few_open_files_make_many_files_but_one_set() {
    for builder in both(&memory_url()) {
        let sink = builder.partition_by(["value"]).max_open_files(1).build().unwrap();
        let mut worker = Worker::new(&sink).await;
        for step in 0..3 {
            worker.write(&rows(step * 100, 100)).await;
        }
        let committed = worker.checkpoint(0, 300).await;
        assert_eq!(committed.len(), 15);
        let files: Vec<_> = visible(&worker.store)
            .await
            .into_iter()
            .filter(|(_, footer)| footer.incarnation == worker.incarnation)
            .collect();
        assert_one_set(&files, 0, 300);
    }
}

/// A budget that a single row group fills: rows go on, in one file.
#[tokio::test]
async fn little_memory_does_not_stop_the_flow() {
    for builder in both(&memory_url()) {
        let sink = builder.partition_by(["value"]).build().unwrap();
        let mut worker = Worker::with_memory(&sink, 256 << 10).await;
        for step in 0..40 {
            worker.write(&rows(step * 1_000, 1_000)).await;
        }
        worker.checkpoint(0, 40_000).await;
        let files: Vec<_> = visible(&worker.store)
            .await
            .into_iter()
            .filter(|(_, footer)| footer.incarnation == worker.incarnation)
            .collect();
        assert_one_set(&files, 0, 40_000);
        assert_eq!(files.iter().map(|(_, footer)| footer.rows).sum::<u64>(), 40_000);
    }
}

#[tokio::test]
async fn two_checkpoints_may_be_under_way() {
    for builder in both(&memory_url()) {
        let sink = builder.build().unwrap();
        let mut worker = Worker::new(&sink).await;
        worker.write(&rows(0, 10)).await;
        let barrier = worker.barrier(0, 10);
        let first = worker.writer.prepare(&barrier);
        worker.write(&rows(10, 20)).await;
        let barrier = worker.barrier(10, 30);
        let second = worker.writer.prepare(&barrier);
        worker.write(&rows(30, 1)).await;
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!((first[0].rows, second[0].rows), (10, 20));
        assert_ne!(first[0].name, second[0].name);
    }
}

#[tokio::test]
async fn no_rows_no_file() {
    for builder in both(&memory_url()) {
        let sink = builder.build().unwrap();
        let mut worker = Worker::new(&sink).await;
        worker.write(&rows(0, 0)).await;
        assert!(worker.prepare(0, 10).await.is_empty());
        assert!(worker.prepare(10, 20).await.is_empty());
        let own = worker.incarnation.to_string();
        assert!(!paths(&worker.store).await.iter().any(|path| path.contains(&own)));
        worker.write(&rows(20, 5)).await;
        assert_eq!(worker.prepare(0, 25).await.len(), 1);
    }
}

#[tokio::test]
async fn a_barrier_out_of_order_is_refused() {
    let sink = both(&memory_url())[0].clone().build().unwrap();
    let mut worker = Worker::new(&sink).await;
    worker.write(&rows(0, 5)).await;
    worker.barrier(0, 5);
    let skipped = worker.barrier(0, 5);
    let error = worker.writer.prepare(&skipped).await.unwrap_err();
    assert!(error.to_string().contains("barrier 2 came, not 1"), "{error}");
}
