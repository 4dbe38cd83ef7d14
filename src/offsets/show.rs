//! The record and the group's offsets, side by side.

use std::collections::BTreeMap;

use serde::Serialize;
use tidelock_connector::{AssignedPartition, CommittedOffset, OffsetSet, Result, TopicPartition};

use super::{Group, Position};
use crate::checkpoint::claim::Hint;
use crate::checkpoint::record::{Files, PartitionState, PendingSet, Record, Rewind, SetId};
use crate::checkpoint::store::RecordStore;

/// Everything that is known about a pipeline's offsets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// The pipeline.
    pub pipeline: String,
    /// The record as a whole; `None` when there is none yet.
    pub record: Option<RecordView>,
    /// How many members the group has; `None` when nobody could be asked.
    pub members: Option<usize>,
    /// Why the broker could not be asked.
    pub broker_error: Option<String>,
    /// Every partition that the record or the broker knows.
    pub partitions: Vec<PartitionView>,
    /// Committed, and perhaps not visible yet.
    pub pending: Vec<PendingView>,
    /// Committed, lost before it was visible, and read again.
    pub lost: Vec<PendingView>,
}

/// The record as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordView {
    /// How often it was written.
    pub sequence: u64,
    /// The cluster that it belongs to.
    pub cluster: Option<String>,
    /// The consumer group that it belongs to.
    pub group: Option<String>,
    /// The sinks of the newest claim.
    pub sinks: Vec<String>,
    /// The bounded run under way.
    pub run: Option<String>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionView {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// What the record says of it.
    pub recorded: Option<RecordedView>,
    /// What the broker says of it.
    pub log: Option<LogView>,
    /// How many offsets are still to be read.
    pub lag: Option<i64>,
}

/// What the record says of a partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedView {
    /// Raised by every claim and every move.
    pub epoch: u64,
    /// The life of the worker that claimed it last.
    pub owner: String,
    /// Where the pipeline began to read it.
    pub origin: i64,
    /// The smallest cursor, where reading goes on; `None` when no sink takes
    /// the topic.
    pub cursor: Option<i64>,
    /// Each sink's cursor.
    pub cursors: Vec<CursorView>,
    /// Where cursors were moved by hand.
    pub rewinds: Vec<Rewind>,
}

/// How far one sink is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CursorView {
    /// The sink.
    pub sink: String,
    /// The next offset to read.
    pub next: i64,
    /// Up to here files account for the offsets; from here to `next` there
    /// were no rows.
    pub filed_to: i64,
    /// From where the sink takes part.
    pub origin: i64,
    /// Offsets below `next` that are not done.
    #[serde(skip_serializing_if = "OffsetSet::is_empty")]
    pub missing: OffsetSet,
}

/// What the broker says of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogView {
    /// The first offset that is still there.
    pub low: i64,
    /// Behind the last offset that can be read.
    pub end: i64,
    /// What the group has committed.
    pub committed: Option<CommittedView>,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommittedView {
    /// The offset.
    pub offset: i64,
    /// The metadata that were committed with it.
    pub hint: String,
    /// The record's sequence as of this commit, if this pipeline made it.
    pub sequence: Option<u64>,
}

/// A set that is not visible, or was not completely visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingView {
    /// Names the set.
    #[serde(flatten)]
    pub id: SetId,
    /// How many files; `None` when that is not known any more.
    pub files: Option<u64>,
    /// Its offsets, as `topic/partition from..to`.
    pub offsets: Vec<String>,
}

/// Puts everything that is known side by side. A broker that does not answer
/// is part of the answer.
///
/// # Errors
/// When the record cannot be read.
pub async fn show(
    store: &dyn RecordStore,
    pipeline: &str,
    group: Option<&dyn Group>,
) -> Result<Overview> {
    let record = match store.read().await? {
        Some((bytes, _)) => Some(Record::decode(&bytes)?),
        None => None,
    };
    let asked = match group {
        None => Ok(None),
        Some(group) => ask(group).await.map(Some),
    };
    let (asked, broker_error) = match asked {
        Ok(asked) => (asked, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (members, log) = match asked {
        Some((members, log)) => (Some(members), log),
        None => (None, Vec::new()),
    };
    Ok(Overview {
        pipeline: pipeline.to_owned(),
        record: record.as_ref().map(RecordView::of),
        members,
        broker_error,
        partitions: partitions(pipeline, record.as_ref(), log),
        pending: record.iter().flat_map(|r| &r.pending).map(PendingView::of).collect(),
        lost: record
            .iter()
            .flat_map(|r| &r.lost)
            .map(|set| PendingView {
                id: set.id.clone(),
                files: None,
                offsets: set.partitions.iter().map(|(p, range)| format!("{p} {range}")).collect(),
            })
            .collect(),
    })
}

async fn ask(group: &dyn Group) -> Result<(usize, Vec<AssignedPartition>)> {
    let log = group.partitions(Position::Latest).await?;
    Ok((group.members().await?, log))
}

fn partitions(
    pipeline: &str,
    record: Option<&Record>,
    log: Vec<AssignedPartition>,
) -> Vec<PartitionView> {
    let mut all: BTreeMap<TopicPartition, PartitionView> = BTreeMap::new();
    let view = |partition: &TopicPartition| PartitionView {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        recorded: None,
        log: None,
        lag: None,
    };
    for (partition, state) in record.iter().flat_map(|record| record.partitions()) {
        let entry = all.entry(partition.clone()).or_insert_with(|| view(&partition));
        entry.recorded = Some(RecordedView::of(state));
    }
    for found in log {
        let entry = all.entry(found.partition.clone()).or_insert_with(|| view(&found.partition));
        let next = entry.recorded.as_ref().and_then(|recorded| recorded.cursor);
        let next = next.or(found.committed.as_ref().map(|committed| committed.offset));
        entry.lag = next.map(|next| (found.end - next.max(found.low)).max(0));
        entry.log = Some(LogView {
            low: found.low,
            end: found.end,
            committed: found.committed.map(|committed| CommittedView::of(pipeline, committed)),
        });
    }
    all.into_values().collect()
}

impl RecordView {
    fn of(record: &Record) -> Self {
        Self {
            sequence: record.sequence,
            cluster: record.cluster.clone(),
            group: record.group.clone(),
            sinks: record.sinks.iter().cloned().collect(),
            run: record.run.as_ref().map(|run| run.id.clone()),
        }
    }
}

impl RecordedView {
    fn of(state: &PartitionState) -> Self {
        Self {
            epoch: state.epoch,
            owner: state.owner.to_string(),
            origin: state.origin,
            cursor: state.next(),
            cursors: state
                .cursors
                .iter()
                .map(|(sink, cursor)| CursorView {
                    sink: sink.clone(),
                    next: cursor.next,
                    filed_to: cursor.filed_to,
                    origin: cursor.origin,
                    missing: cursor.missing.clone(),
                })
                .collect(),
            rewinds: state.rewinds.clone(),
        }
    }
}

impl CommittedView {
    fn of(pipeline: &str, committed: CommittedOffset) -> Self {
        let ours = Hint::parse(&committed.hint)
            .filter(|hint| hint.pipeline == pipeline && hint.offset == committed.offset)
            .map(|hint| hint.sequence);
        Self { offset: committed.offset, hint: committed.hint, sequence: ours }
    }
}

impl PendingView {
    fn of(set: &PendingSet) -> Self {
        let files = match &set.files {
            Files::Inline(files) => files.len() as u64,
            Files::Spilled { count, .. } => *count,
        };
        Self {
            id: set.id.clone(),
            files: Some(files),
            offsets: set.partitions.iter().map(|(p, range)| format!("{p} {range}")).collect(),
        }
    }
}
