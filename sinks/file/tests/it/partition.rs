//! Rows by folders.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use tidelock_connector::{Sink, Stream, arrow};
use tidelock_file::ParquetSink;

use crate::support::{Worker, assert_one_set, batch, memory_url, paths, read_parquet, visible};

fn countries(n: i64) -> RecordBatch {
    let country = (0..n).map(|i| (i % 13 != 12).then(|| format!("C{}", i % 13)));
    let country: ArrayRef = Arc::new(StringArray::from_iter(country));
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
    RecordBatch::try_from_iter([("country", country), ("id", id)]).unwrap()
}

#[tokio::test]
async fn every_row_is_in_the_folder_of_its_value() {
    let sink = ParquetSink::builder(memory_url()).partition_by(["country"]).build().unwrap();
    let mut worker = Worker::new(&sink).await;
    let records = countries(1_300);
    worker.write(&records.slice(0, 600)).await;
    worker.write(&records.slice(600, 700)).await;
    worker.checkpoint(0, 1_300).await;

    let files = visible(&worker.store).await;
    assert_eq!(files.len(), 13, "one file per value");
    assert_one_set(&files, 0, 1_300);
    let mut seen = BTreeMap::new();
    for (path, _) in &files {
        let folder = path.split('/').next().unwrap().to_owned();
        for read in read_parquet(&worker.store, path).await {
            assert!(read.column_by_name("country").is_none());
            for id in read.column_by_name("id").unwrap().as_primitive::<Int64Type>().values() {
                seen.insert(*id, folder.clone());
            }
        }
    }
    assert_eq!(seen.len(), 1_300);
    for (id, folder) in seen {
        let expected = match id % 13 {
            12 => "country=__HIVE_DEFAULT_PARTITION__".to_owned(),
            n => format!("country=C{n}"),
        };
        assert_eq!(folder, expected);
    }
}

#[tokio::test]
async fn streams_and_versions_do_not_share_files() {
    let sink = ParquetSink::builder(memory_url()).build().unwrap();
    let mut worker = Worker::new(&sink).await;
    let old = countries(10);
    let new = old.project(&[1]).unwrap();
    for (stream, version, records) in
        [("orders", 0, &old), ("orders", 1, &new), ("clicks", 0, &new), ("orders", 0, &old)]
    {
        worker.writer.write(&batch(stream, version, records)).await.unwrap();
    }
    let changed = worker.writer.write(&batch("orders", 1, &old)).await.unwrap_err();
    assert!(changed.to_string().contains("schema changed"), "{changed}");
    worker.checkpoint(0, 40).await;
    let mut rows: Vec<_> = visible(&worker.store)
        .await
        .iter()
        .map(|(path, footer)| (path.split('-').next().unwrap().to_owned(), footer.rows))
        .collect();
    rows.sort();
    assert_eq!(rows, [("clicks".into(), 10), ("orders".into(), 10), ("orders".into(), 20)]);
}

#[tokio::test]
async fn a_missing_column_is_found_by_check() {
    let sink = ParquetSink::builder(memory_url()).partition_by(["land"]).build().unwrap();
    let error = sink.check(&[Stream::new("orders", countries(0).schema())]).await.unwrap_err();
    assert!(error.to_string().contains("no column \"land\""), "{error}");
    assert!(paths(sink.store()).await.is_empty());
}
