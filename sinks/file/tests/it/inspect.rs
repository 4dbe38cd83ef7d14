//! What `verify` reads.

use futures::TryStreamExt;
use tidelock_connector::{Coverage, ErrorKind, TopicPartition};
use tidelock_file::{Store, inspect};

use crate::support::{Worker, both, memory_url, rows};

async fn entries(store: &Store) -> Vec<tidelock_file::inspect::Entry> {
    inspect::data_files(store).try_collect().await.unwrap()
}

#[tokio::test]
async fn rows_tell_their_offsets_where_they_were_kept() {
    for builder in both(&memory_url()) {
        let sink = builder.build().unwrap();
        let mut worker = Worker::new(&sink).await;
        worker.write(&rows(5, 10)).await;
        worker.write(&rows(20, 3)).await;
        worker.write(&rows(21, 1)).await;
        let name = worker.checkpoint(5, 23).await[0].name.clone();
        let entry = entries(&worker.store).await.into_iter().find(|e| e.path == name).unwrap();
        let counted = inspect::count(&worker.store, &entry).await.unwrap();
        let partition = TopicPartition::new("orders", 0);
        let mut expected = Coverage::of(partition.clone(), 5, 15);
        expected.insert(&partition, 20, 23);
        assert_eq!((counted.rows, counted.repeated), (14, 1));
        assert_eq!(counted.offsets, Some(expected));
    }
}

#[tokio::test]
async fn without_coordinates_only_rows_are_counted() {
    for builder in both(&memory_url()) {
        let sink = builder.build().unwrap();
        let mut worker = Worker::new(&sink).await;
        worker.write(&rows(0, 10).project(&[3, 4]).unwrap()).await;
        let name = worker.checkpoint(0, 10).await[0].name.clone();
        let entry = entries(&worker.store).await.into_iter().find(|e| e.path == name).unwrap();
        let counted = inspect::count(&worker.store, &entry).await.unwrap();
        assert_eq!((counted.rows, counted.offsets), (10, None));
    }
}

/// Every cut of a file is noticed rather than read as less.
#[tokio::test]
async fn half_a_file_is_a_conflict() {
    for builder in both(&memory_url()) {
        let sink = builder.compression("zstd(1)".parse().unwrap()).build().unwrap();
        let mut worker = Worker::new(&sink).await;
        worker.write(&rows(0, 1_000)).await;
        let name = worker.checkpoint(0, 1_000).await[0].name.clone();
        let whole = worker.store.get(&name).await.unwrap().unwrap();
        for cut in [1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
            worker.store.put(&name, whole.slice(..whole.len() - cut)).await.unwrap();
            let entry = entries(&worker.store).await.into_iter().find(|e| e.path == name).unwrap();
            let error = inspect::count(&worker.store, &entry).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        }
        worker.store.delete(&[name]).await.unwrap();
    }
}

#[tokio::test]
async fn strangers_have_no_footer() {
    let sink = both(&memory_url())[0].clone().build().unwrap();
    let mut worker = Worker::new(&sink).await;
    worker.store.put("notes.txt", "hello".into()).await.unwrap();
    worker.write(&rows(0, 10)).await;
    let name = worker.checkpoint(0, 10).await[0].name.clone();
    let whole = worker.store.get(&name).await.unwrap().unwrap();
    worker.store.put("copy.parquet", whole).await.unwrap();
    for entry in entries(&worker.store).await {
        let footer = inspect::read_footer(&worker.store, "pipe", &entry).await.unwrap();
        match entry.path.as_str() {
            "notes.txt" => assert!(footer.is_none()),
            // A copy is known by the key that it carries.
            _ => assert_eq!(footer.unwrap().key, name),
        }
    }
}

/// A footer that does not fit into the first request.
#[tokio::test]
async fn large_footers_take_a_second_request() {
    let sink = both(&memory_url())[0].clone().build().unwrap();
    let mut worker = Worker::new(&sink).await;
    worker.write(&rows(0, 10)).await;
    let mut barrier = worker.barrier(0, 10);
    for partition in 0..3_000 {
        barrier.coverage.insert(&TopicPartition::new("a topic with a long name", partition), 0, 1);
    }
    let committables = worker.writer.prepare(&barrier).await.unwrap();
    worker.commit(&committables).await;
    let entry = entries(&worker.store).await.remove(0);
    let footer = inspect::read_footer(&worker.store, "pipe", &entry).await.unwrap().unwrap();
    assert_eq!(footer.set.unwrap().coverage.coverage().len(), 3_010);
}
