//! What a move of offsets would do, before anything is done.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tidelock_connector::{
    AssignedPartition, Error, ErrorKind, OffsetRange, Offsets, Result, TopicPartition,
};

use super::{Group, Position};
use crate::checkpoint::claim::check_identity;
use crate::checkpoint::record::{PartitionState, Record};
use crate::checkpoint::store::RecordStore;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// These offsets.
    Offsets(Offsets),
    /// A place in every partition, of these topics if any are named.
    Position(Position, BTreeSet<String>),
}

/// What is going to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The moves, partition by partition.
    pub moves: Vec<PlannedMove>,
    /// How many members the group has.
    pub members: usize,
    /// Why it should not be done; empty when nothing speaks against it.
    pub objections: Vec<String>,
    /// Whether there is a record.
    pub recorded: bool,
}

/// One partition's move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedMove {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The record's epoch that the plan was made on; `None` when only the
    /// committed offset is moved.
    pub seen_epoch: Option<u64>,
    /// Where the pipeline would have gone on.
    pub from: Option<i64>,
    /// Where it will go on.
    pub to: i64,
    /// What that means.
    pub effects: Vec<Effect>,
}

/// What a move means for the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// These offsets will be written a second time.
    Repeats(OffsetRange),
    /// These offsets will be left out.
    LeavesOut(OffsetRange),
}

impl PlannedMove {
    /// The partition.
    pub fn place(&self) -> TopicPartition {
        TopicPartition::new(self.topic.as_str(), self.partition)
    }
}

impl Plan {
    /// Whether anything would change.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }
}

/// Plans a move; nothing is changed.
///
/// # Errors
/// When the record or the group cannot be read, when the record belongs to
/// another cluster or group ([`ErrorKind::DataLoss`]), when there is no such
/// partition ([`ErrorKind::NotFound`]).
pub async fn plan(store: &dyn RecordStore, group: &dyn Group, target: &Target) -> Result<Plan> {
    let record = match store.read().await? {
        Some((bytes, _)) => Some(Record::decode(&bytes)?),
        None => None,
    };
    if let Some(record) = &record {
        check_identity(record, &group.identity().await?)?;
    }
    let at = match target {
        Target::Position(position, _) => *position,
        Target::Offsets(_) => Position::Latest,
    };
    let log = group.partitions(at).await?;
    let members = group.members().await?;
    let mut objections = Vec::new();
    if members > 0 {
        objections.push(format!(
            "the group has {members} {}: stop the pipeline first",
            if members == 1 { "member" } else { "members" }
        ));
    }
    let mut moves = Vec::new();
    for (found, to) in wanted(&log, target)? {
        let partition = &found.partition;
        object_to(found, to, &mut objections);
        let state = record.as_ref().and_then(|record| record.partition(partition));
        moves.extend(planned(found, state.filter(|state| state.next().is_some()), to));
    }
    Ok(Plan { moves, members, objections, recorded: record.is_some() })
}

/// The partitions to be moved, and where to.
fn wanted<'a>(
    log: &'a [AssignedPartition],
    target: &Target,
) -> Result<Vec<(&'a AssignedPartition, i64)>> {
    match target {
        Target::Position(_, topics) => {
            let known: BTreeSet<&str> = log.iter().map(|found| &*found.partition.topic).collect();
            if let Some(topic) = topics.iter().find(|topic| !known.contains(topic.as_str())) {
                return Err(not_found(topic, known));
            }
            let named = |topic: &str| topics.is_empty() || topics.contains(topic);
            let log = log.iter().filter(|found| named(&found.partition.topic));
            Ok(log.map(|found| (found, found.start)).collect())
        }
        Target::Offsets(offsets) => {
            let by_place: BTreeMap<_, _> = log.iter().map(|f| (&f.partition, f)).collect();
            let known = || log.iter().map(|found| &*found.partition.topic).collect();
            offsets
                .iter()
                .map(|(place, to)| match by_place.get(place) {
                    Some(found) => Ok((*found, *to)),
                    None => Err(not_found(&place.to_string(), known())),
                })
                .collect()
        }
    }
}

fn not_found(what: &str, known: BTreeSet<&str>) -> Error {
    let known: Vec<&str> = known.into_iter().collect();
    Error::new(
        ErrorKind::NotFound,
        format!("the pipeline does not read {what:?}; its topics are {}", known.join(", ")),
    )
}

fn object_to(found: &AssignedPartition, to: i64, objections: &mut Vec<String>) {
    let AssignedPartition { partition, low, end, .. } = found;
    if to > *end {
        objections.push(format!("{partition} ends at {end}, and {to} is beyond that"));
    } else if to < *low {
        objections.push(format!("{partition} begins at {low}: {to}..{low} are deleted"));
    }
}

/// The move, if it is one.
fn planned(
    found: &AssignedPartition,
    state: Option<&PartitionState>,
    to: i64,
) -> Option<PlannedMove> {
    let committed = found.committed.as_ref().map(|committed| committed.offset);
    let (smallest, largest) = match state {
        Some(state) => (state.next(), state.cursors.values().map(|cursor| cursor.next).max()),
        // Without a cursor the committed offset is where a run begins.
        None => (committed, committed),
    };
    if smallest == Some(to) && largest == Some(to) && committed == Some(to) {
        return None;
    }
    let repeats = largest.filter(|largest| to < *largest).map(|largest| (to, largest));
    let left_out = smallest.filter(|smallest| *smallest < to).map(|smallest| (smallest, to));
    let effects = repeats.map(|range| Effect::Repeats(range.into())).into_iter();
    let effects = effects.chain(left_out.map(|range| Effect::LeavesOut(range.into())));
    Some(PlannedMove {
        topic: found.partition.topic.to_string(),
        partition: found.partition.partition,
        seen_epoch: state.map(|state| state.epoch),
        from: smallest,
        to,
        effects: effects.collect(),
    })
}
