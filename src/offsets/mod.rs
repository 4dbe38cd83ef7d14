//! What operators see and move: the record beside the group's offsets.
//!
//! # Contract
//! * Nothing is moved that was not said before: [`plan()`] tells which offsets
//!   will be written twice and which left out, [`apply`] does exactly that, or
//!   nothing when the record has moved on meanwhile.
//! * A move is a change of the record like any other: compare-and-swap, a
//!   raised epoch (whoever reads the partition now is fenced and goes on at
//!   the new cursor), and an entry that says what was repeated or left out, so
//!   that `verify` calls it *rewound* or *skipped* and not wrong.
//! * The group's committed offsets follow as a mirror. When they cannot, the
//!   next run repairs them.
//! * A partition without a cursor has only its committed offset, and that is
//!   what is moved then.

mod apply;
#[cfg(feature = "kafka")]
mod kafka;
mod plan;
mod render;
mod show;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use tidelock_connector::{
    AssignedPartition, CommittedOffsets, Error, Identity, Result, TopicPartition,
};

pub use apply::{Applied, apply};
pub use plan::{Effect, Plan, PlannedMove, Target, plan};
pub use show::{
    CommittedView, CursorView, LogView, Overview, PartitionView, PendingView, RecordView,
    RecordedView, show,
};

/// A consumer group and the topics of a pipeline, asked from outside.
#[async_trait]
pub trait Group: std::fmt::Debug + Send + Sync {
    /// Which cluster and group this is.
    async fn identity(&self) -> Result<Identity>;

    /// How many members the group has now.
    async fn members(&self) -> Result<usize>;

    /// Every partition of the topics; `start` is what `at` means there.
    async fn partitions(&self, at: Position) -> Result<Vec<AssignedPartition>>;

    /// Commits offsets with their hints. Refused while the group has members.
    async fn commit(&self, offsets: &CommittedOffsets) -> Result<()>;
}

/// A place in every partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first message that is still there.
    Earliest,
    /// Behind the last message.
    Latest,
    /// The first message of this time or later.
    Time(chrono::DateTime<chrono::Utc>),
}

/// Reads `topic:partition=offset`.
///
/// # Errors
/// [`ErrorKind::Config`](tidelock_connector::ErrorKind::Config) when it is not
/// that.
pub fn parse_target(text: &str) -> Result<(TopicPartition, i64)> {
    let parsed = text.rsplit_once('=').and_then(|(place, offset)| {
        let (topic, partition) = place.rsplit_once(':')?;
        let offset: i64 = offset.trim().parse().ok()?;
        let partition: i32 = partition.trim().parse().ok()?;
        let sound = !topic.trim().is_empty() && partition >= 0 && offset >= 0;
        sound.then(|| (TopicPartition::new(topic.trim(), partition), offset))
    });
    parsed.ok_or_else(|| {
        Error::config(format!(
            "{text:?} must look like topic:partition=offset, as in orders:0=1500"
        ))
    })
}
