use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use tidelock_connector::arrow;
use tidelock_connector::{
    Barrier, Batch, Committable, Committer, Coverage, Guarantee, Incarnation, Outcome, Sink,
    SinkContext, SinkWriter, Stream, TopicPartition,
};
use tidelock_file::{FileFooter, FileSink, FileSinkBuilder, Format, Store, inspect};

pub(crate) const MEMORY: usize = 64 << 20;

/// A store in memory that no other test has.
pub(crate) fn memory_url() -> String {
    format!("memory:///{}/lake", uuid::Uuid::new_v4().simple())
}

/// One worker's sink, and what is needed to look at what it does.
pub(crate) struct Worker {
    pub(crate) store: Store,
    pub(crate) incarnation: Incarnation,
    pub(crate) writer: Box<dyn SinkWriter>,
    pub(crate) committer: Arc<dyn Committer>,
    checkpoint: u64,
}

impl Worker {
    pub(crate) async fn new(sink: &FileSink) -> Self {
        Self::with_memory(sink, MEMORY).await
    }

    pub(crate) async fn with_memory(sink: &FileSink, memory: usize) -> Self {
        let incarnation = Incarnation::new();
        let context = SinkContext::new("pipe", "lake", incarnation, memory);
        let Guarantee::ExactlyOnce(committer) = sink.guarantee() else {
            panic!("files are written exactly once");
        };
        let writer = sink.open(context).await.unwrap();
        Self { store: sink.store().clone(), incarnation, writer, committer, checkpoint: 0 }
    }

    pub(crate) async fn write(&mut self, records: &RecordBatch) {
        self.writer.write(&batch("orders", 0, records)).await.unwrap();
    }

    /// The next barrier, of `offsets` of partition 0.
    pub(crate) fn barrier(&mut self, from: i64, to: i64) -> Barrier {
        self.checkpoint += 1;
        let partition = TopicPartition::new("orders", 0);
        Barrier {
            checkpoint: self.checkpoint,
            coverage: Coverage::of(partition.clone(), from, to),
            epochs: BTreeMap::from([(partition, 7)]),
            last: false,
        }
    }

    pub(crate) async fn prepare(&mut self, from: i64, to: i64) -> Vec<Committable> {
        let barrier = self.barrier(from, to);
        self.writer.prepare(&barrier).await.unwrap()
    }

    pub(crate) async fn commit(&self, committables: &[Committable]) {
        for committable in committables {
            let outcome = self.committer.commit(committable).await.unwrap();
            assert_eq!(outcome, Outcome::Committed);
        }
        self.committer.discard(committables).await.unwrap();
    }

    pub(crate) async fn checkpoint(&mut self, from: i64, to: i64) -> Vec<Committable> {
        let committables = self.prepare(from, to).await;
        self.commit(&committables).await;
        committables
    }
}

pub(crate) fn batch(stream: &str, version: u32, records: &RecordBatch) -> Batch {
    let mut stream = Stream::new(stream, records.schema());
    Arc::make_mut(&mut stream).version = version;
    Batch::new(stream, records.clone(), Coverage::new())
}

pub(crate) fn both(url: &str) -> [FileSinkBuilder; 2] {
    [Format::Parquet, Format::Json].map(|format| FileSink::builder(format, url))
}

/// Rows with coordinates; `value` repeats, `text` does not.
pub(crate) fn rows(from: i64, count: i64) -> RecordBatch {
    let offsets: Vec<i64> = (from..from + count).collect();
    let text = offsets
        .iter()
        .map(|o| format!("{:032x}", o.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    RecordBatch::try_from_iter([
        ("_topic", Arc::new(StringArray::from_iter_values(offsets.iter().map(|_| "orders"))) as _),
        ("_partition", Arc::new(Int32Array::from_iter_values(offsets.iter().map(|_| 0))) as _),
        ("_offset", Arc::new(Int64Array::from(offsets.clone())) as ArrayRef),
        (
            "value",
            Arc::new(StringArray::from_iter_values(offsets.iter().map(|o| format!("v{}", o % 5))))
                as _,
        ),
        ("text", Arc::new(StringArray::from_iter_values(text)) as _),
    ])
    .unwrap()
}

pub(crate) async fn paths(store: &Store) -> Vec<String> {
    let mut paths: Vec<_> = store.list("").map_ok(|e| e.path).try_collect().await.unwrap();
    paths.sort();
    paths
}

/// Every visible data file with its footer.
pub(crate) async fn visible(store: &Store) -> Vec<(String, FileFooter)> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = inspect::data_files(store).try_collect().await.unwrap();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    for entry in entries {
        let footer = inspect::read_footer(store, "pipe", &entry).await.unwrap().unwrap();
        let counted = inspect::count(store, &entry).await.unwrap();
        assert_eq!(footer.key, entry.path);
        assert_eq!(footer.rows, counted.rows, "{}", entry.path);
        found.push((entry.path, footer));
    }
    found
}

/// Whether these footers are what one commit set must look like.
pub(crate) fn assert_one_set(footers: &[(String, FileFooter)], from: i64, to: i64) {
    let sets: Vec<_> = footers.iter().filter_map(|(_, footer)| footer.set.as_ref()).collect();
    assert_eq!(sets.len(), 1, "exactly one file tells about the set");
    let mut listed: Vec<_> = sets[0].files.iter().map(|f| (f.key.clone(), f.rows)).collect();
    listed.sort();
    let found: Vec<_> = footers.iter().map(|(key, footer)| (key.clone(), footer.rows)).collect();
    assert_eq!(listed, found, "the set lists its files");
    let covered = Coverage::of(TopicPartition::new("orders", 0), from, to);
    assert_eq!(sets[0].coverage.coverage(), covered);
    assert!(sets[0].coverage.iter().all(|(_, partition)| partition.epoch == 7));
    let mut numbers: Vec<_> = footers.iter().map(|(_, footer)| footer.file as usize).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..footers.len()).collect::<Vec<_>>(), "files are numbered without gaps");
}

pub(crate) async fn read_parquet(store: &Store, path: &str) -> Vec<RecordBatch> {
    let bytes = store.get(path).await.unwrap().unwrap();
    ParquetRecordBatchReader::try_new(bytes, 1 << 20).unwrap().map(Result::unwrap).collect()
}
