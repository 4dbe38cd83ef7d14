//! The contract of the connector API, by its own suite.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;

use futures::TryStreamExt;
use tidelock_connector::testing::conformance;
use tidelock_connector::{Sink, TopicPartition};
use tidelock_file::{FileSink, Format, inspect};

use crate::support::memory_url;

/// The coordinates of all visible rows, those that are there twice included.
async fn visible(sink: &FileSink) -> Vec<(TopicPartition, i64)> {
    let entries: Vec<_> = inspect::data_files(sink.store()).try_collect().await.unwrap();
    let mut rows = Vec::new();
    for entry in entries {
        let counted = inspect::count(sink.store(), &entry).await.unwrap();
        assert_eq!(counted.repeated, 0);
        for (partition, offsets) in counted.offsets.unwrap_or_default().iter() {
            for range in offsets.ranges() {
                rows.extend((range.from..range.to).map(|offset| (partition.clone(), offset)));
            }
        }
    }
    rows
}

async fn conforms(format: Format, root: String) {
    let made: Mutex<HashMap<String, FileSink>> = Mutex::default();
    let make = async |place: &str| {
        let url = format!("{root}/{place}");
        let sink = FileSink::builder(format, url).target_file_size(2_000).build().unwrap();
        made.lock().unwrap().insert(place.to_owned(), sink.clone());
        Arc::new(sink) as Arc<dyn Sink>
    };
    let look = async |place: &str| {
        let sink = made.lock().unwrap().get(place).cloned();
        match sink {
            Some(sink) => visible(&sink).await,
            None => Vec::new(),
        }
    };
    conformance::sink(make, look).await;
}

#[tokio::test]
async fn parquet_in_memory() {
    conforms(Format::Parquet, memory_url()).await;
}

#[tokio::test]
async fn json_lines_in_memory() {
    conforms(Format::Json, memory_url()).await;
}

#[tokio::test]
async fn parquet_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    conforms(Format::Parquet, folder.path().display().to_string()).await;
}

#[tokio::test]
async fn json_lines_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    conforms(Format::Json, folder.path().display().to_string()).await;
}
