use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use tidelock_connector::{
    Barrier, Batch, Committable, Committer, Coverage, Guarantee, Incarnation, OffsetRange,
    OffsetSet, Sink, SinkContext, SinkWriter, Stream, TopicPartition,
};
use tidelock_file::{FileSink, FileSinkBuilder, Format, Store, inspect};
use uuid::Uuid;

use super::super::{ProblemKind, Verdict, VerifyOptions, verify};
use crate::checkpoint::change::{Change, apply};
use crate::checkpoint::record::{
    Cursor, Files, PartitionState, PendingSet, Record, SetId, TopicState,
};
use crate::checkpoint::rewind::{RewindTarget, Rewinding};
use crate::checkpoint::store::{MemoryRecord, RecordStore};

pub(super) const PIPELINE: &str = "pipe";
pub(super) const TOPIC: &str = "orders";
const MEMORY: usize = 16 << 20;

pub(super) fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, number)
}

/// A sink in memory that no other test has.
pub(super) fn builder(format: Format) -> FileSinkBuilder {
    FileSink::builder(format, format!("memory:///{}/lake", Uuid::new_v4().simple()))
}

/// One file sink, the worker that writes it, and the record of both.
pub(super) struct Lake {
    pub(super) store: Store,
    pub(super) record: Record,
    pub(super) records: Arc<MemoryRecord>,
    pub(super) sink: FileSink,
    pub(super) name: String,
    pub(super) committer: Arc<dyn Committer>,
    pub(super) incarnation: Incarnation,
    writer: Box<dyn SinkWriter>,
    checkpoint: u64,
}

impl Lake {
    /// Partitions 0 and 1 from offset 0.
    pub(super) async fn new(builder: FileSinkBuilder) -> Self {
        let mut lake = Self::empty(builder, PIPELINE, "lake").await;
        lake.add_partition(0, 0);
        lake.add_partition(1, 0);
        lake.save().await;
        lake
    }

    pub(super) async fn parquet() -> Self {
        Self::new(builder(Format::Parquet)).await
    }

    /// Files of three countries per checkpoint.
    pub(super) async fn by_country(format: Format) -> Self {
        Self::new(builder(format).partition_by(["country"])).await
    }

    pub(super) async fn empty(builder: FileSinkBuilder, pipeline: &str, name: &str) -> Self {
        let sink = builder.build().unwrap();
        let Guarantee::ExactlyOnce(committer) = sink.guarantee() else {
            panic!("files are written exactly once");
        };
        let incarnation = Incarnation::new();
        let writer =
            sink.open(SinkContext::new(pipeline, name, incarnation, MEMORY)).await.unwrap();
        Self {
            store: sink.store().clone(),
            record: Record::new(pipeline),
            records: Arc::default(),
            sink,
            name: name.to_owned(),
            committer,
            incarnation,
            writer,
            checkpoint: 0,
        }
    }

    pub(super) fn add_partition(&mut self, number: i32, origin: i64) {
        let state = PartitionState {
            epoch: 1,
            owner: self.incarnation,
            origin,
            cursors: [(self.name.clone(), Cursor::start(origin))].into(),
            rewinds: Vec::new(),
        };
        let topic: &mut TopicState = self.record.topics.entry(TOPIC.to_owned()).or_default();
        topic.partitions.insert(number, state);
    }

    pub(super) fn state(&mut self, number: i32) -> &mut PartitionState {
        self.record.partition_mut(&partition(number)).unwrap()
    }

    pub(super) fn cursor(&mut self, number: i32) -> &mut Cursor {
        let name = self.name.clone();
        self.state(number).cursors.get_mut(&name).unwrap()
    }

    /// Another worker takes all partitions over.
    pub(super) async fn claim(&mut self) {
        self.incarnation = Incarnation::new();
        let pipeline = self.record.pipeline.clone();
        let context = SinkContext::new(pipeline, self.name.clone(), self.incarnation, MEMORY);
        self.writer = self.sink.open(context).await.unwrap();
        self.checkpoint = 0;
        for topic in self.record.topics.values_mut() {
            for state in topic.partitions.values_mut() {
                state.epoch += 1;
                state.owner = self.incarnation;
            }
        }
        self.save().await;
    }

    /// An operator moves the cursor of a partition, and the worker comes back.
    pub(super) async fn rewind(&mut self, number: i32, to: i64) {
        self.give_up(number, to, None).await;
    }

    /// The same, because the files of a set are lost.
    pub(super) async fn give_up(&mut self, number: i32, to: i64, lost: Option<&SetId>) {
        let seen_epoch = self.state(number).epoch;
        let targets = vec![RewindTarget { partition: partition(number), seen_epoch, to }];
        let change = Change::Rewind(Rewinding { targets, lost: lost.cloned() });
        apply(&mut self.record, Incarnation::new(), 1, &change).unwrap();
        self.claim().await;
    }

    /// Writes rows of these offsets, (partition, from, to), and stages them.
    pub(super) async fn prepare(&mut self, parts: &[(i32, i64, i64)]) -> PendingSet {
        self.checkpoint += 1;
        let mut coverage = Coverage::new();
        let mut epochs = BTreeMap::new();
        for &(number, from, to) in parts {
            self.writer.write(&batch(&rows(number, from, to))).await.unwrap();
            coverage.insert(&partition(number), from, to);
            epochs.insert(partition(number), self.state(number).epoch);
        }
        let range = |set: &OffsetSet| Some(OffsetRange::from((set.first()?, set.next()?)));
        let partitions =
            coverage.iter().filter_map(|(p, set)| Some((p.clone(), range(set)?))).collect();
        let checkpoint = self.checkpoint;
        let barrier = Barrier { checkpoint, coverage, epochs, last: false };
        let files = self.writer.prepare(&barrier).await.unwrap();
        let id = SetId { sink: self.name.clone(), incarnation: self.incarnation, checkpoint };
        PendingSet { id, partitions, files: Files::Inline(files) }
    }

    /// Commits a set: the record lists it, nothing is visible.
    pub(super) async fn commit(&mut self, set: &PendingSet, parts: &[(i32, i64, i64)]) {
        for &(number, _, to) in parts {
            let cursor = self.cursor(number);
            cursor.next = cursor.next.max(to);
            cursor.filed_to = cursor.next;
        }
        self.record.pending.push(set.clone());
        self.save().await;
    }

    /// Makes files visible.
    pub(super) async fn publish(&self, files: &[Committable]) {
        for file in files {
            self.committer.commit(file).await.unwrap();
        }
    }

    /// The record forgets a set that is visible.
    pub(super) async fn clear(&mut self, set: &PendingSet) {
        self.record.pending.retain(|pending| pending.id != set.id);
        self.committer.discard(&files_of(set)).await.unwrap();
        self.save().await;
    }

    /// A whole checkpoint; returns its files.
    pub(super) async fn checkpoint(&mut self, parts: &[(i32, i64, i64)]) -> Vec<String> {
        let set = self.prepare(parts).await;
        self.commit(&set, parts).await;
        let files = files_of(&set);
        self.publish(&files).await;
        self.clear(&set).await;
        files.into_iter().map(|file| file.name).collect()
    }

    /// Three checkpoints of both partitions: offsets 0 to 300.
    pub(super) async fn three(&mut self) -> Vec<Vec<String>> {
        let mut files = Vec::new();
        for from in [0, 100, 200] {
            files.push(self.checkpoint(&[(0, from, from + 100), (1, from, from + 100)]).await);
        }
        files
    }

    pub(super) async fn save(&mut self) {
        self.record.sequence += 1;
        let expected = self.records.read().await.unwrap().map(|(_, version)| version);
        let bytes = self.record.encode().unwrap();
        self.records.write(bytes.into(), expected.as_ref()).await.unwrap();
    }

    pub(super) fn options(&self) -> VerifyOptions {
        VerifyOptions::new(PIPELINE, Arc::clone(&self.records) as _).sink(
            self.name.clone(),
            self.store.clone(),
            None,
        )
    }

    pub(super) async fn verify(&self) -> Verdict {
        shown(verify(&self.options()).await.unwrap())
    }

    pub(super) async fn verify_deep(&self) -> Verdict {
        shown(verify(&self.options().deep(true)).await.unwrap())
    }

    pub(super) async fn verify_without_record(&self) -> Verdict {
        let records = Arc::new(MemoryRecord::default());
        let options = VerifyOptions::new(PIPELINE, records);
        shown(verify(&options.sink(&*self.name, self.store.clone(), None)).await.unwrap())
    }

    pub(super) async fn copy(&self, from: &str, to: &str) {
        let bytes = self.store.get(from).await.unwrap().unwrap();
        self.store.put(to, bytes).await.unwrap();
    }

    pub(super) async fn delete(&self, path: &str) {
        assert!(self.store.size(path).await.unwrap().is_some(), "{path} is there");
        self.store.delete(&[path.to_owned()]).await.unwrap();
    }

    /// The file of a set that tells about the set.
    pub(super) async fn last_of(&self, files: &[String]) -> String {
        for path in files {
            let size = self.store.size(path).await.unwrap().unwrap();
            let entry = inspect::Entry { path: path.clone(), size };
            let footer = inspect::read_footer(&self.store, PIPELINE, &entry).await.unwrap();
            if footer.unwrap().set.is_some() {
                return path.clone();
            }
        }
        panic!("a set has a last file");
    }

    pub(super) async fn data_files(&self) -> Vec<String> {
        let files = inspect::data_files(&self.store).map_ok(|entry| entry.path);
        files.try_collect().await.unwrap()
    }
}

pub(super) fn files_of(set: &PendingSet) -> Vec<Committable> {
    match &set.files {
        Files::Inline(files) => files.clone(),
        Files::Spilled { .. } => panic!("these sets are small"),
    }
}

/// Every verdict of every test is rendered: lines stay within the terminal.
fn shown(verdict: Verdict) -> Verdict {
    let text = verdict.to_string();
    for line in text.lines().filter(|line| !line.contains(".parquet") && !line.contains(".jsonl")) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert_eq!(verdict.ok, verdict.problems.is_empty(), "{text}");
    assert_eq!(verdict.exit_code(), u8::from(!verdict.ok));
    serde_json::to_string(&verdict).unwrap();
    verdict
}

pub(super) fn kinds(verdict: &Verdict) -> Vec<ProblemKind> {
    verdict.problems.iter().map(|problem| problem.kind).collect()
}

/// The ranges of a problem as `partition: from..to`.
pub(super) fn offsets(verdict: &Verdict, problem: usize) -> Vec<String> {
    let offsets = verdict.problems[problem].offsets.iter();
    offsets.map(|o| format!("{}: {}", o.partition, o.ranges)).collect()
}

pub(super) fn batch(records: &RecordBatch) -> Batch {
    Batch::new(Stream::new(TOPIC, records.schema()), records.clone(), Coverage::new())
}

/// Rows with coordinates, of three countries.
pub(super) fn rows(partition: i32, from: i64, to: i64) -> RecordBatch {
    let offsets: Vec<i64> = (from..to).collect();
    let count = offsets.len();
    let country = offsets.iter().map(|o| ["DE", "FR", "JP"][(o % 3).unsigned_abs() as usize]);
    RecordBatch::try_from_iter([
        ("_topic", Arc::new(StringArray::from_iter_values(vec![TOPIC; count])) as ArrayRef),
        ("_partition", Arc::new(Int32Array::from(vec![partition; count])) as _),
        ("country", Arc::new(StringArray::from_iter_values(country)) as _),
        ("_offset", Arc::new(Int64Array::from(offsets.clone())) as _),
    ])
    .unwrap()
}
