//! What to do with an assigned partition: the record, the source's committed
//! offset and the log are held against each other before the first message.
//!
//! The record is the truth where it has a cursor; the committed offset is a
//! mirror of it that carries a [`Hint`]. Where the two contradict each other,
//! somebody acted from outside and somebody has to decide.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use tidelock_connector::{AssignedPartition, CommittedOffset, Error, ErrorKind, Identity, Result};

use super::change::ClaimedPartition;
use super::mutation::{Mutation, planted};
use super::record::Record;

/// What to do when the committed offset was moved from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExternalReset {
    /// Stop and say so.
    #[default]
    Stop,
    /// Go where the committed offset is; recorded as a rewind.
    Follow,
    /// Go on from the record, which repairs the committed offset.
    Ignore,
}

/// The metadata that is committed with every offset, so that a later start can
/// tell our own commits from other people's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint<'a> {
    /// The pipeline that committed.
    pub pipeline: &'a str,
    /// The record's sequence as of the commit.
    pub sequence: u64,
    /// The offset that was committed with it. Tools that move an offset and
    /// keep its metadata give themselves away.
    pub offset: i64,
}

impl<'a> Hint<'a> {
    /// Reads a hint; `None` when it is not one of ours.
    pub fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("tidelock/1 ")?;
        let mut parts = rest.splitn(3, ' ');
        let sequence = parts.next()?.parse().ok()?;
        let offset = parts.next()?.parse().ok()?;
        Some(Self { pipeline: parts.next()?, sequence, offset })
    }
}

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tidelock/1 {} {} {}", self.sequence, self.offset, self.pipeline)
    }
}

/// Refuses a source that is not the one the record was made with.
pub fn check_identity(record: &Record, identity: &Identity) -> Result<()> {
    let same = |what: &str, was: &Option<String>, is: &Option<String>| match (was, is) {
        (Some(was), Some(is)) if was != is => Err(Error::new(
            ErrorKind::DataLoss,
            format!(
                "the record of this pipeline belongs to {what} {was:?}, and this is {is:?}: \
                 offsets mean nothing there; use another pipeline name or another state URL"
            ),
        )),
        _ => Ok(()),
    };
    same("cluster", &record.cluster, &identity.cluster)?;
    same("consumer group", &record.group, &identity.group)
}

/// Plans the claim of one partition.
///
/// # Errors
/// Every case in which going on would lose or repeat data without anybody
/// having decided so.
pub fn plan(
    record: &Record,
    assigned: &AssignedPartition,
    sinks: BTreeSet<String>,
    on_reset: OnExternalReset,
) -> Result<ClaimedPartition> {
    let partition = &assigned.partition;
    let state = record.partition(partition);
    check_topic(record, assigned)?;
    let mut claimed = ClaimedPartition {
        partition: partition.clone(),
        topic_id: assigned.topic_id.clone(),
        seen_epoch: state.map(|state| state.epoch),
        sinks,
        start: assigned.start,
        rewind_to: None,
        end: assigned.end,
    };
    let hint = assigned.committed.as_ref().and_then(|committed| Hint::parse(&committed.hint));
    if let Some(hint) = &hint
        && hint.pipeline != record.pipeline
    {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "pipeline {:?} commits offsets in the same consumer group: give each pipeline a \
                 group of its own",
                hint.pipeline
            ),
        )
        .at(partition));
    }
    match (state.and_then(super::record::PartitionState::next), &assigned.committed) {
        (Some(cursor), committed) => {
            check_log(assigned, cursor)?;
            if let Some(committed) = committed {
                claimed.rewind_to = match planted(Mutation::CommittedOffsetTrusted) {
                    true => Some(committed.offset),
                    false => mirror(record, assigned, cursor, committed, hint, on_reset)?,
                };
            }
        }
        (None, Some(committed)) => {
            if hint.is_some() && record.sequence == 0 {
                return Err(record_lost(assigned, committed));
            }
            claimed.start = committed.offset.max(assigned.low);
        }
        (None, None) if assigned.start < 0 => {
            return Err(Error::config(
                "neither the record nor the group has an offset for the partition, and the source \
                 is told to start where the group is: commit offsets first, or choose another \
                 `start`",
            )
            .at(partition));
        }
        (None, None) => {}
    }
    Ok(claimed)
}

fn check_topic(record: &Record, assigned: &AssignedPartition) -> Result<()> {
    let was = record.topics.get(&*assigned.partition.topic).and_then(|topic| topic.id.as_ref());
    match (was, &assigned.topic_id) {
        (Some(was), Some(is)) if was != is => Err(Error::new(
            ErrorKind::DataLoss,
            format!(
                "the topic was deleted and made again (its id was {was}, it is {is}): the recorded \
                 offsets mean nothing; use another pipeline name or another state URL"
            ),
        )
        .at(&assigned.partition)),
        _ => Ok(()),
    }
}

fn check_log(assigned: &AssignedPartition, cursor: i64) -> Result<()> {
    if assigned.low > cursor {
        return Err(Error::new(
            ErrorKind::DataLoss,
            format!(
                "the topic's retention has deleted offsets {cursor}..{} before they were read; to go \
                 on without them run `tidelock offsets set`",
                assigned.low
            ),
        )
        .at(&assigned.partition)
        .offset(cursor));
    }
    // The cursor alone proves nothing: it is newer than the end, which was asked
    // for at the assignment, and others may have read since. The committed offset
    // was asked for together with the end, for a minute if they contradict.
    let committed = assigned.committed.as_ref().map(|committed| committed.offset);
    if assigned.end < cursor && committed.is_some_and(|committed| assigned.end < committed) {
        return Err(Error::new(
            ErrorKind::DataLoss,
            format!(
                "the log ends at {} and everything before {cursor} is in files already: the topic has \
                 lost messages (an unclean leader election?); to go on, and have what is written \
                 there now read again, run `tidelock offsets set`",
                assigned.end
            ),
        )
        .at(&assigned.partition)
        .offset(cursor));
    }
    Ok(())
}

/// Where the committed offset sends us, if anywhere.
fn mirror(
    record: &Record,
    assigned: &AssignedPartition,
    cursor: i64,
    committed: &CommittedOffset,
    hint: Option<Hint<'_>>,
    on_reset: OnExternalReset,
) -> Result<Option<i64>> {
    if let Some(hint) = hint.filter(|hint| hint.offset == committed.offset) {
        if hint.sequence > record.sequence {
            return Err(record_lost(assigned, committed));
        }
        // An older commit of ours: the next one repairs it. It lies above the
        // cursor when the cursor was rewound since.
        if committed.offset <= cursor || was_rewound(record, assigned, committed.offset) {
            return Ok(None);
        }
    }
    if committed.offset == cursor {
        return Ok(None);
    }
    match on_reset {
        OnExternalReset::Ignore => Ok(None),
        OnExternalReset::Follow => Ok(Some(committed.offset)),
        OnExternalReset::Stop => Err(Error::new(
            ErrorKind::DataLoss,
            format!(
                "the group's committed offset was moved from outside to {}, and the pipeline's own \
                 cursor is {cursor}: set `on_external_reset` to \"follow\" (rows are written again \
                 or left out) or \"ignore\" (the pipeline goes on where it was)",
                committed.offset
            ),
        )
        .at(&assigned.partition)
        .offset(committed.offset)),
    }
}

fn was_rewound(record: &Record, assigned: &AssignedPartition, from: i64) -> bool {
    let state = record.partition(&assigned.partition);
    state.is_some_and(|state| state.rewinds.iter().any(|r| r.from < from && from <= r.to))
}

fn record_lost(assigned: &AssignedPartition, committed: &CommittedOffset) -> Error {
    Error::new(
        ErrorKind::DataLoss,
        "this pipeline has committed offsets before, and its record is gone or older than they \
         are: starting anew could write rows a second time; bring the record back, or reset the \
         group's offsets if that is what you want",
    )
    .at(&assigned.partition)
    .offset(committed.offset)
    .with("hint", &committed.hint)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidelock_connector::{Incarnation, TopicPartition};

    use super::super::record::{Cursor, PartitionState};
    use super::*;

    fn record(next: i64) -> Record {
        let mut record = Record::new("p");
        record.sequence = 10;
        record.topics.entry("t".into()).or_default().partitions.insert(
            0,
            PartitionState {
                epoch: 3,
                owner: Incarnation::from_u128(1),
                origin: 0,
                cursors: [("s".to_owned(), Cursor::start(next))].into(),
                rewinds: Vec::new(),
            },
        );
        record
    }

    fn assigned(low: i64, committed: Option<(i64, &str)>) -> AssignedPartition {
        AssignedPartition {
            partition: TopicPartition::new(Arc::from("t"), 0),
            topic_id: None,
            committed: committed
                .map(|(offset, hint)| CommittedOffset { offset, hint: hint.to_owned() }),
            start: 0,
            low,
            end: 100,
        }
    }

    fn sinks() -> BTreeSet<String> {
        ["s".to_owned()].into()
    }

    #[test]
    fn a_log_that_lost_what_was_read_is_refused() {
        let ours = Hint { pipeline: "p", sequence: 10, offset: 50 }.to_string();
        let mut assigned = assigned(0, Some((50, &ours)));
        let claim = |assigned: &AssignedPartition| {
            plan(&record(50), assigned, sinks(), OnExternalReset::Stop).map_err(|e| e.kind())
        };
        assigned.end = 50;
        assert!(claim(&assigned).is_ok());
        assigned.end = 49;
        assert_eq!(claim(&assigned).unwrap_err(), ErrorKind::DataLoss);
        // Or somebody else has read on since we asked for the end.
        let hint = Hint { pipeline: "p", sequence: 9, offset: 49 }.to_string();
        assigned.committed = Some(CommittedOffset { offset: 49, hint });
        assert!(claim(&assigned).is_ok());
    }

    #[test]
    fn where_nothing_says_where_to_start_nothing_is_claimed() {
        let mut assigned = assigned(0, None);
        assigned.start = -1;
        let claim = |record: &Record| {
            plan(record, &assigned, sinks(), OnExternalReset::Stop).map_err(|e| e.kind())
        };
        assert!(claim(&record(50)).is_ok());
        assert_eq!(claim(&Record::new("p")).unwrap_err(), ErrorKind::Config);
    }

    #[test]
    fn the_mirror_is_held_against_the_record() {
        use OnExternalReset::{Follow, Ignore, Stop};
        let ours = |sequence, offset| Hint { pipeline: "p", sequence, offset }.to_string();
        // (committed offset, hint, policy) → rewind or error
        let case = |offset, hint: &str, on| {
            plan(&record(50), &assigned(0, Some((offset, hint))), sinks(), on)
                .map(|claimed| claimed.rewind_to)
                .map_err(|error| error.kind())
        };
        assert_eq!(case(50, &ours(10, 50), Stop), Ok(None));
        assert_eq!(case(40, &ours(9, 40), Stop), Ok(None), "an old commit of ours is repaired");
        assert_eq!(case(40, &ours(9, 50), Stop), Err(ErrorKind::DataLoss), "moved by a tool");
        assert_eq!(case(50, "", Stop), Ok(None));
        assert_eq!(case(40, "", Stop), Err(ErrorKind::DataLoss));
        assert_eq!(case(40, "", Follow), Ok(Some(40)));
        assert_eq!(case(40, "", Ignore), Ok(None));
        assert_eq!(case(50, &ours(11, 50), Stop), Err(ErrorKind::DataLoss), "record is older");
        let other = Hint { pipeline: "q", sequence: 1, offset: 50 }.to_string();
        assert_eq!(case(50, &other, Ignore), Err(ErrorKind::Conflict));
    }

    #[test]
    fn a_commit_from_before_a_rewind_is_repaired() {
        let mut record = record(20);
        let state = record.partition_mut(&TopicPartition::new("t", 0)).unwrap();
        state.rewinds.push(super::super::record::Rewind { from: 20, to: 50, epoch: 3 });
        let case = |sequence, offset| {
            let hint = Hint { pipeline: "p", sequence, offset }.to_string();
            let assigned = assigned(0, Some((offset, &hint)));
            plan(&record, &assigned, sinks(), OnExternalReset::Stop).map(|claim| claim.rewind_to)
        };
        assert_eq!(case(9, 50).unwrap(), None);
        assert_eq!(case(9, 51).unwrap_err().kind(), ErrorKind::DataLoss, "never ours");
        assert_eq!(case(11, 50).unwrap_err().kind(), ErrorKind::DataLoss, "record is older");
    }

    #[test]
    fn expired_data_and_a_lost_record_stop_the_run() {
        let expired = plan(&record(50), &assigned(60, None), sinks(), OnExternalReset::Stop);
        let error = expired.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss);
        assert!(error.to_string().contains("50..60"), "{error}");

        let hint = Hint { pipeline: "p", sequence: 4, offset: 9 }.to_string();
        let lost =
            plan(&Record::new("p"), &assigned(0, Some((9, &hint))), sinks(), OnExternalReset::Stop);
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::DataLoss);
        // A commit of somebody else is where a new pipeline starts.
        let fresh = plan(
            &Record::new("p"),
            &assigned(0, Some((9, "connect"))),
            sinks(),
            OnExternalReset::Stop,
        );
        assert_eq!(fresh.unwrap().start, 9);
    }

    #[test]
    fn another_cluster_is_refused() {
        let mut record = record(1);
        record.cluster = Some("a".into());
        let identity = Identity { cluster: Some("b".into()), group: None };
        assert_eq!(check_identity(&record, &identity).unwrap_err().kind(), ErrorKind::DataLoss);
        assert!(check_identity(&record, &Identity::default()).is_ok());
    }
}
