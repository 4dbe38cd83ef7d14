//! Files that are closed before the barrier, and the one that must not be; row
//! groups.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tidelock_connector::Committable;
use tidelock_file::{ParquetConfig, Size, Store};

use crate::support::{Worker, assert_one_set, both, memory_url, paths, rows, visible};

/// How many rows each row group of a committed Parquet file has.
async fn row_groups(store: &Store, file: &Committable) -> Vec<i64> {
    let bytes = store.get(&file.name).await.unwrap().unwrap();
    let reader = SerializedFileReader::new(bytes).unwrap();
    reader.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect()
}

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

/// The share is smaller than what waits for its part: ending a row group with
/// every batch would not help.
#[tokio::test]
async fn little_memory_does_not_make_a_row_group_of_every_batch() {
    let [parquet, _] = both(&memory_url());
    let sink = parquet.build().unwrap();
    let mut worker = Worker::with_memory(&sink, 256 << 10).await;
    for step in 0..40 {
        worker.write(&rows(step * 1_000, 1_000)).await;
    }
    let committed = worker.checkpoint(0, 40_000).await;
    let groups = row_groups(&worker.store, &committed[0]).await;
    assert!(groups[..groups.len() - 1].iter().all(|rows| *rows >= 8_000), "{groups:?}");
}

#[tokio::test]
async fn a_file_alone_has_the_whole_memory_for_its_row_group() {
    let memory = 4 << 20;
    let [parquet, _] = both(&memory_url());
    let sink = parquet.build().unwrap();
    let mut worker = Worker::with_memory(&sink, memory).await;
    let mut bytes = 0;
    for step in 0..80 {
        let rows = rows(step * 1_000, 1_000);
        bytes = rows.get_array_memory_size();
        worker.write(&rows).await;
    }
    let committed = worker.checkpoint(0, 80_000).await;
    let groups = row_groups(&worker.store, &committed[0]).await;
    let held = groups[0] as usize / 1_000 * bytes;
    assert!((memory * 3 / 4..memory + 2 * bytes).contains(&held), "{held} bytes");
}

/// What rows come to once they are encoded is known from the file before.
#[tokio::test]
async fn the_first_row_group_of_a_file_is_as_large_as_the_next() {
    let [parquet, _] = both(&memory_url());
    let small = ParquetConfig { row_group_size: Size(128 << 10), ..ParquetConfig::default() };
    let sink = parquet.parquet(small).build().unwrap();
    let mut worker = Worker::new(&sink).await;
    let mut firsts = Vec::new();
    for checkpoint in 0..2 {
        let from = checkpoint * 40_000;
        for step in 0..80 {
            worker.write(&rows(from + step * 500, 500)).await;
        }
        let committed = worker.checkpoint(from, from + 40_000).await;
        let groups = row_groups(&worker.store, &committed[0]).await;
        firsts.push((groups[0], groups[1]));
    }
    let (first, second) = firsts[0];
    assert!(first * 3 / 2 < second, "rows shrink when they are encoded: {firsts:?}");
    let (first, second) = firsts[1];
    assert!(first * 5 / 4 > second, "{firsts:?}");
}

/// A large row group takes long to encode.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_runtime_goes_on_while_rows_are_encoded() {
    let [parquet, _] = both(&memory_url());
    let one = ParquetConfig { row_group_rows: 50_000, ..ParquetConfig::default() };
    let sink = parquet.parquet(one).build().unwrap();
    let mut worker = Worker::new(&sink).await;
    let turns = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let rows = rows(0, 50_000);
    let writing = tokio::spawn(async move {
        let before = turns.load(Ordering::Relaxed);
        worker.write(&rows).await;
        turns.load(Ordering::Relaxed) - before
    });
    assert!(writing.await.unwrap() > 0, "nothing else had a turn");
    other.abort();
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
