//! The answer, as plain data.

use std::collections::BTreeMap;

use serde::Serialize;
use tidelock_connector::{OffsetSet, TopicPartition};

/// Where a partition of the topic begins and ends, as the broker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Watermarks {
    /// The first offset that the topic still has.
    pub low: i64,
    /// The offset behind the last one.
    pub end: i64,
}

/// Watermarks per partition.
pub type AllWatermarks = BTreeMap<TopicPartition, Watermarks>;

/// What [`verify`](super::verify) found. Its `Display` is a table for people.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The pipeline.
    pub pipeline: String,
    /// Whether nothing is wrong: there are no problems.
    pub ok: bool,
    /// The record, if there is one. Without it only gaps between files and
    /// overlaps can be seen.
    pub record: Option<RecordSeen>,
    /// Whether the rows were read, too.
    pub deep: bool,
    /// Sums over all sinks.
    pub totals: Totals,
    /// Sink by sink.
    pub sinks: Vec<SinkVerdict>,
    /// What is wrong, the first of it.
    pub problems: Vec<Problem>,
    /// How many more problems there are than `problems` holds.
    pub problems_not_shown: u64,
}

impl Verdict {
    /// 0 when nothing is wrong, else 1.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.ok)
    }
}

/// The record that the files were held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecordSeen {
    /// How often it was written.
    pub sequence: u64,
}

/// Sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Data files.
    pub files: u64,
    /// Commit sets.
    pub sets: u64,
    /// Rows, as the footers say.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Partitions with files or a cursor.
    pub partitions: u64,
    /// Offsets that files account for.
    pub offsets: u64,
    /// Commit sets that are committed and not visible yet.
    pub pending_sets: u64,
    /// Commit sets whose files were lost, and whose offsets an operator had
    /// read again.
    pub given_up_sets: u64,
    /// Offsets that operators had written again.
    pub rewound: u64,
    /// Offsets that operators left out.
    pub skipped: u64,
    /// Offsets that the topics have and the pipeline has not committed yet,
    /// where watermarks were given.
    pub lag: Option<u64>,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.sets += other.sets;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.partitions += other.partitions;
        self.offsets += other.offsets;
        self.pending_sets += other.pending_sets;
        self.given_up_sets += other.given_up_sets;
        self.rewound += other.rewound;
        self.skipped += other.skipped;
        self.lag = match (self.lag, other.lag) {
            (Some(one), Some(two)) => Some(one + two),
            (one, two) => one.or(two),
        };
    }
}

/// One sink.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SinkVerdict {
    /// Its name.
    pub name: String,
    /// Where its files are.
    pub url: String,
    /// Sums.
    #[serde(flatten)]
    pub totals: Totals,
    /// Data files there of other pipelines and sinks.
    pub other_files: u64,
    /// Files there that are not Tidelock's.
    pub foreign_files: u64,
    /// Files of the pending sets.
    pub pending_files: u64,
    /// Rows of the pending files.
    pub pending_rows: u64,
    /// Partition by partition, in order.
    pub partitions: Vec<PartitionVerdict>,
}

/// One partition in one sink. Ranges are half open.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct PartitionVerdict {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where the sink began to read it, as the record says; without a record,
    /// where the files begin.
    pub origin: Option<i64>,
    /// Up to here offsets are in files, as the record says; without a record,
    /// where the files end.
    pub filed_to: Option<i64>,
    /// The next offset to read. From `filed_to` up to here nothing has rows.
    pub next: Option<i64>,
    /// How many offsets files account for.
    pub offsets: u64,
    /// How many offsets have a row; known after a deep look where the
    /// coordinates were kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offsets_with_rows: Option<u64>,
    /// Offsets in no file.
    #[serde(skip_serializing_if = "OffsetSet::is_empty")]
    pub missing: OffsetSet,
    /// Offsets in several sets.
    #[serde(skip_serializing_if = "OffsetSet::is_empty")]
    pub duplicate: OffsetSet,
    /// Committed, not visible yet.
    #[serde(skip_serializing_if = "OffsetSet::is_empty")]
    pub pending: OffsetSet,
    /// Not done, as the record says.
    #[serde(skip_serializing_if = "OffsetSet::is_empty")]
    pub undone: OffsetSet,
    /// Left out by an operator.
    #[serde(skip_serializing_if = "OffsetSet::is_empty")]
    pub skipped: OffsetSet,
    /// Written again after an operator's rewind.
    #[serde(skip_serializing_if = "OffsetSet::is_empty")]
    pub rewound: OffsetSet,
    /// How many offsets the topic has that are not committed yet.
    pub lag: Option<u64>,
    /// How many offsets the topic dropped before they were committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired_unread: Option<u64>,
    /// How many problems name the partition.
    pub problems: u64,
}

/// Something that is wrong.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// What kind of thing.
    pub kind: ProblemKind,
    /// In which sink.
    pub sink: String,
    /// The files that it is about, the first of them.
    pub files: Vec<String>,
    /// The offsets that it is about.
    pub offsets: Vec<ProblemOffsets>,
    /// A sentence for people.
    pub text: String,
}

/// Offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProblemOffsets {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The ranges, half open.
    pub ranges: OffsetSet,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// No file covers offsets that the record says are in files.
    MissingOffsets,
    /// The same, and the topic no longer has them.
    ExpiredOffsets,
    /// Several commit sets cover the same offsets.
    DuplicateOffsets,
    /// Files cover offsets that the record knows nothing of.
    UnrecordedOffsets,
    /// A file that its commit set lists is not there.
    MissingFile,
    /// The file that tells what a commit set covers is not there.
    MissingSet,
    /// A file that its commit set does not list.
    UnlistedFile,
    /// A copy of a file under another name.
    CopiedFile,
    /// A file under another name than its own.
    MisplacedFile,
    /// A file that cannot be read.
    UnreadableFile,
    /// A file that does not have the bytes that it was written with.
    WrongSize,
    /// A file that does not hold the rows that it says.
    WrongRowCount,
    /// Committed, not visible, and the staged bytes are gone.
    LostFile,
    /// Rows of the same offset.
    RepeatedRows,
    /// Rows of offsets that no commit set covers.
    StrayRows,
}

impl ProblemKind {
    /// The kind in words.
    pub fn label(self) -> &'static str {
        match self {
            Self::MissingOffsets => "missing offsets",
            Self::ExpiredOffsets => "missing offsets, expired",
            Self::DuplicateOffsets => "duplicate offsets",
            Self::UnrecordedOffsets => "unrecorded offsets",
            Self::MissingFile => "missing file",
            Self::MissingSet => "missing file of a set",
            Self::UnlistedFile => "unlisted file",
            Self::CopiedFile => "copied file",
            Self::MisplacedFile => "misplaced file",
            Self::UnreadableFile => "unreadable file",
            Self::WrongSize => "wrong file size",
            Self::WrongRowCount => "wrong row count",
            Self::LostFile => "lost prepared data",
            Self::RepeatedRows => "repeated rows",
            Self::StrayRows => "stray rows",
        }
    }
}
