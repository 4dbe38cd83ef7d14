//! The record: the one mutable object of a pipeline, and the truth about it.
//!
//! It is written only by compare-and-swap (see [`swap`](super::swap)). This
//! module is its shape and its codec and nothing else; what may happen to it
//! is in [`change`](super::change).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidelock_connector::{
    Committable, Error, ErrorKind, Incarnation, OffsetRange, OffsetSet, Result, TopicPartition,
};

/// The format that this version writes. A record with a larger one is refused.
pub const FORMAT: u32 = 1;

/// Everything that the workers of a pipeline agree on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format.
    pub format: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// How often the record was written. Every landed write adds one.
    pub sequence: u64,
    /// The cluster that the offsets belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The consumer group that the offsets are mirrored to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The sinks of the newest claim.
    pub sinks: BTreeSet<String>,
    /// The lives that own a partition or have something pending.
    pub incarnations: BTreeMap<Incarnation, Life>,
    /// Per topic and partition: owner, epoch, cursors.
    pub topics: BTreeMap<String, TopicState>,
    /// What is committed and perhaps not yet visible.
    #[serde(default)]
    pub pending: Vec<PendingSet>,
    /// Committed sets that were given up because their files were lost; what
    /// they accounted for was read again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostSet>,
    /// A bounded run under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<BoundedRun>,
}

/// What the record knows of an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The number of its last landed swap.
    pub swap: u64,
}

/// One topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicState {
    /// The topic's own id in its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The partitions that were ever claimed.
    pub partitions: BTreeMap<i32, PartitionState>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// Raised by every claim; never decreases.
    pub epoch: u64,
    /// Who claimed it last.
    pub owner: Incarnation,
    /// Where the pipeline began to read it.
    pub origin: i64,
    /// How far each sink that takes the topic has committed.
    pub cursors: BTreeMap<String, Cursor>,
    /// Where the cursors were moved by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewinds: Vec<Rewind>,
}

/// How far one sink has committed one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The next offset to read.
    pub next: i64,
    /// Offsets below `next` that are not done.
    #[serde(default, skip_serializing_if = "OffsetSet::is_empty")]
    pub missing: OffsetSet,
    /// Up to here the coverage stands in a file; the next set with rows begins
    /// its coverage here. Never above `next`.
    pub filed_to: i64,
    /// From where this sink takes part.
    pub origin: i64,
}

impl Cursor {
    /// A cursor of a sink that begins at `offset`.
    pub fn start(offset: i64) -> Self {
        Self { next: offset, missing: OffsetSet::new(), filed_to: offset, origin: offset }
    }
}

/// Cursors moved by an operator: offsets from `from` up to `to` are written a
/// second time (`from < to`) or left out (`from > to`), from `epoch` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewind {
    /// The new cursor.
    pub from: i64,
    /// Backward: the largest cursor that it replaced. Forward: up to where the
    /// coverage stands in files.
    pub to: i64,
    /// The epoch that the move raised the partition to.
    pub epoch: u64,
}

/// The committables of one commit set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingSet {
    /// Whose set it is.
    #[serde(flatten)]
    pub id: SetId,
    /// What it accounts for of each partition.
    #[serde(with = "by_topic")]
    pub partitions: BTreeMap<TopicPartition, OffsetRange>,
    /// What is to be made visible.
    pub files: Files,
}

/// A committed set whose files were lost before all of them were visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostSet {
    /// Whose set it was.
    #[serde(flatten)]
    pub id: SetId,
    /// What it accounted for of each partition.
    #[serde(with = "by_topic")]
    pub partitions: BTreeMap<TopicPartition, OffsetRange>,
}

/// Names a commit set: all that one sink closed at one barrier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SetId {
    /// The sink.
    pub sink: String,
    /// The life that prepared it.
    pub incarnation: Incarnation,
    /// The checkpoint, counted within that life.
    pub checkpoint: u64,
}

/// Committables, in the record or beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    /// In the record.
    Inline(Vec<Committable>),
    /// In an immutable object of their own: there were too many.
    Spilled {
        /// The object, below the record's folder.
        object: String,
        /// SHA-256 of its content, in hexadecimal.
        sha256: String,
        /// How many committables it holds.
        count: u64,
    },
}

/// A run that ends at the offsets that were the ends when it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundedRun {
    /// The run's id.
    pub id: String,
    /// Where each partition ends, exclusive.
    #[serde(with = "by_topic")]
    pub ends: BTreeMap<TopicPartition, i64>,
}

impl Record {
    /// A record in which nothing was claimed yet.
    pub fn new(pipeline: &str) -> Self {
        Self {
            format: FORMAT,
            pipeline: pipeline.to_owned(),
            sequence: 0,
            cluster: None,
            group: None,
            sinks: BTreeSet::new(),
            incarnations: BTreeMap::new(),
            topics: BTreeMap::new(),
            pending: Vec::new(),
            lost: Vec::new(),
            run: None,
        }
    }

    /// The record as bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Error::new(ErrorKind::Other, "cannot encode the record").source(e))
    }

    /// A record from its bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when a newer version of Tidelock wrote it,
    /// [`ErrorKind::Conflict`] when it is no record.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let broken =
            |e| Error::new(ErrorKind::Conflict, "the pipeline's record is not readable").source(e);
        let Version { format } = serde_json::from_slice(bytes).map_err(broken)?;
        if format > FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the pipeline's record has format {format}, and this version of tidelock knows \
                     format {FORMAT}: use the newer version that wrote it"
                ),
            ));
        }
        serde_json::from_slice(bytes).map_err(broken)
    }

    /// What is known of a partition.
    pub fn partition(&self, partition: &TopicPartition) -> Option<&PartitionState> {
        self.topics.get(&*partition.topic)?.partitions.get(&partition.partition)
    }

    /// What is known of a partition, to be changed.
    pub fn partition_mut(&mut self, partition: &TopicPartition) -> Option<&mut PartitionState> {
        self.topics.get_mut(&*partition.topic)?.partitions.get_mut(&partition.partition)
    }

    /// Every partition with its state, in order.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &PartitionState)> {
        self.topics.iter().flat_map(|(topic, state)| {
            state.partitions.iter().map(|(number, partition)| {
                (TopicPartition::new(topic.as_str(), *number), partition)
            })
        })
    }

    /// Whether a life owns a partition or has something pending.
    pub fn is_alive(&self, incarnation: Incarnation) -> bool {
        self.pending.iter().any(|set| set.id.incarnation == incarnation)
            || self.partitions().any(|(_, state)| state.owner == incarnation)
    }

    /// Whether a set is still pending.
    pub fn is_pending(&self, id: &SetId) -> bool {
        self.pending.iter().any(|set| set.id == *id)
    }

    /// Whether every end of the bounded run is reached by every sink, and
    /// nothing of it waits to be made visible: whoever committed it may be dead.
    pub fn run_is_done(&self) -> bool {
        self.run.as_ref().is_none_or(|run| {
            let is_of_run =
                |set: &PendingSet| set.partitions.keys().any(|p| run.ends.contains_key(p));
            self.unread(&run.ends).next().is_none() && !self.pending.iter().any(is_of_run)
        })
    }

    /// The partitions that some sink has not got to the end of: of the bounded
    /// run, or where none is under way yet of the one that would begin.
    pub fn unread<'a>(
        &'a self,
        ends: &'a BTreeMap<TopicPartition, i64>,
    ) -> impl Iterator<Item = &'a TopicPartition> {
        let ends = self.run.as_ref().map_or(ends, |run| &run.ends);
        let is_unread = |(partition, end): &(&TopicPartition, &i64)| {
            self.partition(partition)
                .is_none_or(|state| state.next().is_some_and(|next| next < **end))
        };
        ends.iter().filter(is_unread).map(|(partition, _)| partition)
    }
}

impl PartitionState {
    /// The smallest cursor: where reading goes on. None when no sink takes the
    /// topic.
    pub fn next(&self) -> Option<i64> {
        self.cursors.values().map(|cursor| cursor.next).min()
    }
}

/// Partition maps as `{topic: {partition: value}}`, which JSON can hold.
pub(crate) mod by_topic {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tidelock_connector::TopicPartition;

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        map: &BTreeMap<TopicPartition, T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut nested: BTreeMap<&str, BTreeMap<i32, &T>> = BTreeMap::new();
        for (partition, value) in map {
            nested.entry(&partition.topic).or_default().insert(partition.partition, value);
        }
        nested.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<TopicPartition, T>, D::Error> {
        let nested = BTreeMap::<String, BTreeMap<i32, T>>::deserialize(deserializer)?;
        Ok(nested
            .into_iter()
            .flat_map(|(topic, partitions)| {
                let topic: std::sync::Arc<str> = topic.into();
                partitions
                    .into_iter()
                    .map(move |(number, value)| (TopicPartition::new(topic.clone(), number), value))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let error = Record::decode(br#"{"format": 99, "whatever": true}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 99"), "{error}");
    }

    #[test]
    fn survives_its_codec() {
        let mut record = Record::new("p");
        let life = Incarnation::from_u128(7);
        record.incarnations.insert(life, Life { swap: 3 });
        record.topics.entry("orders".into()).or_default().partitions.insert(
            2,
            PartitionState {
                epoch: 4,
                owner: life,
                origin: 10,
                cursors: [("lake".to_owned(), Cursor::start(10))].into(),
                rewinds: vec![Rewind { from: 5, to: 10, epoch: 4 }],
            },
        );
        record.pending.push(PendingSet {
            id: SetId { sink: "lake".into(), incarnation: life, checkpoint: 9 },
            partitions: [(TopicPartition::new("orders", 2), OffsetRange { from: 10, to: 12 })]
                .into(),
            files: Files::Spilled { object: "x".into(), sha256: "00".into(), count: 2 },
        });
        record.lost.push(LostSet {
            id: SetId { sink: "lake".into(), incarnation: life, checkpoint: 8 },
            partitions: [(TopicPartition::new("orders", 2), OffsetRange { from: 5, to: 10 })]
                .into(),
        });
        record.run = Some(BoundedRun {
            id: "r".into(),
            ends: [(TopicPartition::new("orders", 2), 12)].into(),
        });
        let bytes = record.encode().unwrap();
        assert_eq!(Record::decode(&bytes).unwrap(), record);
        assert!(!record.run_is_done());
        assert!(record.is_alive(life));
    }

    #[test]
    fn a_bounded_run_waits_for_what_is_pending() {
        let mut record = Record::new("p");
        let (life, place) = (Incarnation::from_u128(7), TopicPartition::new("orders", 0));
        let state = PartitionState {
            epoch: 1,
            owner: life,
            origin: 0,
            cursors: [("lake".to_owned(), Cursor::start(12))].into(),
            rewinds: Vec::new(),
        };
        record.topics.entry("orders".into()).or_default().partitions.insert(0, state);
        record.run = Some(BoundedRun { id: "r".into(), ends: [(place.clone(), 12)].into() });
        assert!(record.run_is_done());
        record.pending.push(PendingSet {
            id: SetId { sink: "lake".into(), incarnation: life, checkpoint: 1 },
            partitions: [(place, OffsetRange { from: 0, to: 12 })].into(),
            files: Files::Inline(Vec::new()),
        });
        assert!(!record.run_is_done(), "a worker died between swap and publish");
    }
}
