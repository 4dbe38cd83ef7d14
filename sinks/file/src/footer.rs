//! What every file says about itself.
//!
//! Parquet files carry the document as key-value metadata under
//! [`PARQUET_KEY`]; files of other formats have it beside them, at
//! `_tidelock/<pipeline>/footers/<key>.json`, published before the file is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidelock_connector::{
    Barrier, Coverage, Error, ErrorKind, Incarnation, OffsetSet, Result, TopicPartition,
};

/// The key of the document in the metadata of a Parquet file.
pub(crate) const PARQUET_KEY: &str = "tidelock";
/// The newest version of the document that we write and read.
const VERSION: u32 = 1;

/// What a data file says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFooter {
    /// The version of this document, 1.
    pub version: u32,
    /// The pipeline that wrote the file.
    pub pipeline: String,
    /// The sink within the pipeline.
    pub sink: String,
    /// The life of the worker.
    pub incarnation: Incarnation,
    /// The checkpoint: with sink and incarnation it names the commit set.
    pub checkpoint: u64,
    /// The number of the file within the set, from 0.
    pub file: u32,
    /// The file's own key. A file under another name is a copy.
    pub key: String,
    /// How many rows it holds.
    pub rows: u64,
    /// How many bytes it has, where this document lies beside it: a footer inside
    /// cannot know, and is not found in a file that was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// In the set's last file alone: the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<CommitSet>,
}

/// A commit set: what it accounts for, and its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitSet {
    /// The offsets that the set accounts for.
    pub coverage: SetCoverage,
    /// All files of the set, the last one included.
    pub files: Vec<SetFile>,
}

/// One file of a commit set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFile {
    /// Its key.
    pub key: String,
    /// How many rows it holds.
    pub rows: u64,
}

/// Offsets per topic and partition, with the epoch under which they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetCoverage(pub BTreeMap<String, BTreeMap<i32, CoveredPartition>>);

/// What a commit set covers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoveredPartition {
    /// The epoch under which the offsets were read.
    pub epoch: u64,
    /// The offsets, as `[[from, to], …]`.
    pub offsets: OffsetSet,
}

impl SetCoverage {
    pub(crate) fn of(barrier: &Barrier) -> Self {
        let mut topics: BTreeMap<String, BTreeMap<i32, CoveredPartition>> = BTreeMap::new();
        for (partition, offsets) in barrier.coverage.iter() {
            let epoch = barrier.epochs.get(partition).copied().unwrap_or(0);
            let covered = CoveredPartition { epoch, offsets: offsets.clone() };
            topics
                .entry(partition.topic.to_string())
                .or_default()
                .insert(partition.partition, covered);
        }
        Self(topics)
    }

    /// Every partition with what is covered of it.
    pub fn iter(&self) -> impl Iterator<Item = (TopicPartition, &CoveredPartition)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|(n, covered)| (TopicPartition::new(topic.as_str(), *n), covered))
        })
    }

    /// The offsets alone.
    pub fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::new();
        for (partition, covered) in self.iter() {
            for range in covered.offsets.ranges() {
                coverage.insert(&partition, range.from, range.to);
            }
        }
        coverage
    }
}

impl FileFooter {
    pub(crate) const VERSION: u32 = VERSION;

    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::new(ErrorKind::Other, "cannot write a footer").source(e))
    }

    /// Reads the document of the file `key`.
    pub(crate) fn parse(json: &[u8], key: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let invalid =
            |e| Error::new(ErrorKind::Other, "invalid tidelock footer").object(key).source(e);
        let Versioned { version } = serde_json::from_slice(json).map_err(invalid)?;
        if version > VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the footer has version {version}, this binary reads up to {VERSION}"),
            )
            .object(key));
        }
        serde_json::from_slice(json).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_footers_are_refused_and_the_format_is_as_documented() {
        let mut coverage = SetCoverage::default();
        let covered = CoveredPartition { epoch: 4, offsets: OffsetSet::from_range(10, 20) };
        coverage.0.entry("orders".into()).or_default().insert(3, covered);
        let footer = FileFooter {
            version: 1,
            pipeline: "p".into(),
            sink: "lake".into(),
            incarnation: Incarnation::from_u128(7),
            checkpoint: 5,
            file: 0,
            key: "a.parquet".into(),
            rows: 9,
            bytes: None,
            set: Some(CommitSet {
                coverage,
                files: vec![SetFile { key: "a.parquet".into(), rows: 9 }],
            }),
        };
        let json = footer.to_json().unwrap();
        assert!(
            json.contains(r#""coverage":{"orders":{"3":{"epoch":4,"offsets":[[10,20]]}}}"#),
            "{json}"
        );
        assert_eq!(FileFooter::parse(json.as_bytes(), "a.parquet").unwrap(), footer);
        let newer = json.replace("\"version\":1", "\"version\":2,\"more\":1");
        let error = FileFooter::parse(newer.as_bytes(), "a.parquet").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(FileFooter::parse(b"{}", "a.parquet").is_err());
    }
}
