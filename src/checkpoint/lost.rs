//! Lost prepared data: a checkpoint is committed, and some of its files are
//! neither staged nor visible.
//!
//! The rows are not lost while the source still has them. *Replay* moves the
//! cursors back to where the lost set begins and forgets the set; whatever of
//! it is visible, and whatever came after it, is written a second time. That
//! is for somebody to decide, so the list is shown before anything is done.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::Serialize;
use tidelock_connector::{OffsetRange, TopicPartition};

use super::change::Change;
use super::publish::Survey;
use super::record::{PendingSet, Record, SetId, by_topic};
use super::rewind::{RewindTarget, Rewinding};

/// What to do about lost prepared data.
#[derive(Clone, Default)]
pub enum OnLost {
    /// Stop and name the files.
    #[default]
    Stop,
    /// Read the lost offsets again, if the function agrees to what that
    /// repeats. It may block, to ask somebody.
    Replay(Arc<dyn Fn(&Loss) -> bool + Send + Sync>),
}

impl OnLost {
    /// Replays whatever that repeats.
    pub fn replay() -> Self {
        Self::replay_if(|_| true)
    }

    /// Replays if `agree` says so.
    pub fn replay_if(agree: impl Fn(&Loss) -> bool + Send + Sync + 'static) -> Self {
        Self::Replay(Arc::new(agree))
    }
}

impl fmt::Debug for OnLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "Stop",
            Self::Replay(_) => "Replay",
        })
    }
}

/// A set that was lost, and what reading its offsets again would repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The set.
    #[serde(flatten)]
    pub id: SetId,
    /// The files that are lost; none are named where their list is lost, too.
    pub lost: Vec<LostFile>,
    /// The files of the set that are visible: their rows will be written a
    /// second time.
    pub repeated: Vec<LostFile>,
    /// The offsets that will be read again, by every sink that takes them:
    /// those of the set, and everything that was committed after it.
    #[serde(with = "by_topic")]
    pub read_again: BTreeMap<TopicPartition, OffsetRange>,
    /// The offsets behind the set's own: committed later, and written a second
    /// time.
    #[serde(with = "by_topic")]
    pub committed_later: BTreeMap<TopicPartition, OffsetRange>,
}

/// A file of a lost set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostFile {
    /// Its final key.
    pub name: String,
    /// How many rows.
    pub rows: u64,
}

impl Loss {
    /// Looks at what a replay would mean, by the newest record; also the change
    /// that does it.
    pub(crate) fn plan(record: &Record, set: &PendingSet, survey: Survey) -> (Self, Change) {
        let mut loss = Self {
            id: set.id.clone(),
            lost: survey.missing.into_iter().map(LostFile::from).collect(),
            repeated: survey.visible.into_iter().map(LostFile::from).collect(),
            read_again: BTreeMap::new(),
            committed_later: BTreeMap::new(),
        };
        let mut targets = Vec::new();
        for (partition, range) in &set.partitions {
            let Some(state) = record.partition(partition) else { continue };
            let largest = state.cursors.values().map(|cursor| cursor.next).max();
            let Some((next, largest)) = state.next().zip(largest) else { continue };
            // A sink that is behind the set already stays where it is.
            let to = range.from.min(next);
            if largest <= to {
                continue;
            }
            loss.read_again.insert(partition.clone(), OffsetRange { from: to, to: largest });
            let later = OffsetRange { from: range.to.max(to), to: largest };
            if !later.is_empty() {
                loss.committed_later.insert(partition.clone(), later);
            }
            targets.push(RewindTarget {
                partition: partition.clone(),
                seen_epoch: state.epoch,
                to,
            });
        }
        let change = Change::Rewind(Rewinding { targets, lost: Some(set.id.clone()) });
        (loss, change)
    }

    /// What is lost and what a replay repeats, for whoever has to decide.
    pub fn render(&self) -> String {
        let SetId { sink, incarnation, checkpoint } = &self.id;
        let mut text =
            format!("lost: checkpoint {checkpoint} of {incarnation} for sink {sink:?}\n");
        if self.lost.is_empty() {
            text.push_str("  the list of its files is gone\n");
        }
        for file in &self.lost {
            let _ = writeln!(text, "  {} ({} rows)", file.name, file.rows);
        }
        text.push_str("read again:\n");
        for (partition, range) in &self.read_again {
            let _ = writeln!(text, "  {partition} {range}");
        }
        if self.repeated.is_empty() && self.committed_later.is_empty() {
            text.push_str("nothing of that is visible: no row will be written a second time\n");
            return text;
        }
        text.push_str("written a second time:\n");
        for file in &self.repeated {
            let _ = writeln!(text, "  the {} rows of {}", file.rows, file.name);
        }
        for (partition, range) in &self.committed_later {
            let _ = writeln!(text, "  {partition} {range}, which was committed later");
        }
        text
    }
}

impl From<tidelock_connector::Committable> for LostFile {
    fn from(file: tidelock_connector::Committable) -> Self {
        Self { name: file.name, rows: file.rows }
    }
}

#[cfg(test)]
mod tests {
    use tidelock_connector::{Committable, Incarnation};

    use super::super::record::{Cursor, Files, PartitionState};
    use super::*;

    fn record(cursors: &[(&str, i64)]) -> Record {
        let mut record = Record::new("p");
        let state = PartitionState {
            epoch: 3,
            owner: Incarnation::from_u128(1),
            origin: 0,
            cursors: cursors
                .iter()
                .map(|(s, next)| ((*s).to_owned(), Cursor::start(*next)))
                .collect(),
            rewinds: Vec::new(),
        };
        record.topics.entry("t".into()).or_default().partitions.insert(0, state);
        record
    }

    fn file(name: &str) -> Committable {
        Committable { name: name.into(), rows: 5, bytes: 1, detail: serde_json::Value::Null }
    }

    fn plan(cursors: &[(&str, i64)], visible: &[&str]) -> (Loss, Vec<RewindTarget>) {
        let set = PendingSet {
            id: SetId { sink: "a".into(), incarnation: Incarnation::from_u128(1), checkpoint: 2 },
            partitions: [(TopicPartition::new("t", 0), (10, 20).into())].into(),
            files: Files::Inline(Vec::new()),
        };
        let survey = Survey {
            visible: visible.iter().map(|name| file(name)).collect(),
            missing: vec![file("lost.parquet")],
        };
        match Loss::plan(&record(cursors), &set, survey) {
            (loss, Change::Rewind(Rewinding { targets, .. })) => (loss, targets),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn cursors_go_to_where_the_set_begins_and_never_forward() {
        let to = |cursors: &[(&str, i64)]| plan(cursors, &[]).1.first().map(|target| target.to);
        assert_eq!(to(&[("a", 30)]), Some(10));
        assert_eq!(to(&[("a", 30), ("b", 5)]), Some(5), "another sink loses nothing");
        assert_eq!(to(&[("a", 10)]), None, "rewound already");
    }

    #[test]
    fn what_is_repeated_is_told() {
        let (loss, _) = plan(&[("a", 30)], &["there.parquet"]);
        let text = loss.render();
        for part in ["lost.parquet", "t/0 10..30", "rows of there.parquet", "t/0 20..30, which"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let (loss, _) = plan(&[("a", 20)], &[]);
        assert!(loss.render().contains("no row will be written a second time"));
    }
}
