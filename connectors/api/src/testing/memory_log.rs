//! The handle by which a test steers a [`MemorySource`](super::MemorySource).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use tokio::sync::watch;

use super::group::{Group, Handover, MemberId};
use super::log::{Log, default_schema};
use crate::{CommittedOffset, Error, ErrorKind, Offsets, Result, TopicPartition};

/// A log in memory: what its readers deliver, who owns what, and what fails.
///
/// Every change wakes the readers. A topic or partition that does not exist is
/// a mistake of the test: the call panics.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) changed: watch::Sender<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    pub(super) group: Group,
    pub(super) settings: Settings,
    pub(super) faults: Faults,
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) bounded: bool,
    pub(super) latest: bool,
    pub(super) manual: bool,
    pub(super) reject_bad: bool,
    pub(super) initial_members: usize,
    pub(super) batch_rows: usize,
    pub(super) one_partition: bool,
    pub(super) idle_after: Duration,
    pub(super) delay: Duration,
    pub(super) revoke_timeout: Duration,
    pub(super) cluster: String,
    pub(super) group_id: String,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    opens: Failing,
    reads: Failing,
    commits: Failing,
}

/// The next `left` calls fail.
#[derive(Debug, Default)]
struct Failing {
    left: usize,
    retryable: bool,
}

impl Failing {
    fn check(&mut self, call: &'static str) -> Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        Err(Error::new(ErrorKind::Unavailable, "fault of the memory log")
            .with("call", call)
            .retryable(self.retryable))
    }
}

impl Faults {
    pub(super) fn open(&mut self) -> Result<()> {
        self.opens.check("open")
    }

    pub(super) fn read(&mut self) -> Result<()> {
        self.reads.check("next")
    }

    pub(super) fn commit(&mut self) -> Result<()> {
        self.commits.check("commit")
    }
}

impl State {
    /// Shares the partitions out again, unless the test does that itself.
    pub(super) fn membership_changed(&mut self) {
        if !self.settings.manual {
            self.balance();
        }
    }

    fn balance(&mut self) {
        let all: Vec<_> = self.log.partitions().collect();
        self.group.balance(&all, self.settings.initial_members);
    }
}

impl MemoryLog {
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut super::lock(&self.shared.state));
        self.shared.changed.send_replace(());
        changed
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&super::lock(&self.shared.state))
    }

    /// Appends rows of the [default schema](super::default_schema) and returns
    /// the offset of the first.
    pub fn append<'a>(
        &self,
        topic: &str,
        partition: i32,
        rows: impl IntoIterator<Item = (i64, &'a str)>,
    ) -> i64 {
        let (ids, texts): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let columns = vec![
            Arc::new(Int64Array::from(ids)) as _,
            Arc::new(StringArray::from_iter_values(texts)) as _,
        ];
        match RecordBatch::try_new(default_schema(), columns) {
            Ok(rows) => self.append_batch(topic, partition, rows),
            Err(error) => panic!("rows do not make a batch: {error}"),
        }
    }

    /// Appends `count` rows of the default schema whose `id` is their offset.
    pub fn fill(&self, topic: &str, partition: i32, count: usize) -> i64 {
        let first = self.end(&TopicPartition::new(topic, partition));
        let texts: Vec<_> =
            (first..).take(count).map(|o| format!("{topic}-{partition}-{o}")).collect();
        self.append(topic, partition, (first..).zip(texts.iter().map(String::as_str)))
    }

    /// Appends rows of the topic's newest schema and returns the offset of the
    /// first.
    pub fn append_batch(&self, topic: &str, partition: i32, rows: RecordBatch) -> i64 {
        self.change(|state| {
            state.group.unfinish([&TopicPartition::new(topic, partition)]);
            state.log.topic(topic).append(partition, rows)
        })
    }

    /// Leaves `count` offsets at the end without a row, as transaction markers
    /// and compaction do.
    pub fn hole(&self, topic: &str, partition: i32, count: u32) {
        self.change(|state| {
            state.group.unfinish([&TopicPartition::new(topic, partition)]);
            state.log.topic(topic).partition(partition).end += i64::from(count);
        });
    }

    /// Rows appended from now on have this schema, as a further version of the
    /// topic's stream.
    pub fn evolve(&self, topic: &str, schema: SchemaRef) {
        self.change(|state| state.log.topic(topic).evolve(schema));
    }

    /// Marks the record at `offset` as one that cannot be decoded.
    pub fn bad_record(&self, topic: &str, partition: i32, offset: i64) {
        self.change(|state| state.log.topic(topic).partition(partition).bad.insert(offset));
    }

    /// Moves the low watermark: everything below `low` is gone.
    pub fn expire(&self, topic: &str, partition: i32, low: i64) {
        self.change(|state| state.log.topic(topic).partition(partition).expire(low));
    }

    /// Gives the topic another id, as deleting it and making it again does.
    pub fn set_topic_id(&self, topic: &str, id: impl Into<String>) {
        self.change(|state| state.log.topic(topic).id = id.into());
    }

    /// Renames the cluster that readers report.
    pub fn set_cluster(&self, cluster: impl Into<String>) {
        self.change(|state| state.settings.cluster = cluster.into());
    }

    /// The offset behind the last one.
    pub fn end(&self, partition: &TopicPartition) -> i64 {
        self.look(|state| state.log.get(partition).end)
    }

    /// The ends of all partitions.
    pub fn ends(&self) -> Offsets {
        self.look(|state| {
            let log = &state.log;
            log.partitions().map(|p| (p.clone(), log.get(&p).end)).collect()
        })
    }

    /// What is committed.
    pub fn committed(&self) -> BTreeMap<TopicPartition, CommittedOffset> {
        self.look(|state| state.group.committed.clone())
    }

    /// Commits from outside, as a tool for consumer groups does.
    pub fn set_committed(&self, partition: &TopicPartition, offset: i64, hint: impl Into<String>) {
        let committed = CommittedOffset { offset, hint: hint.into() };
        self.change(|state| state.group.committed.insert(partition.clone(), committed));
    }

    /// Forgets what is committed for a partition.
    pub fn clear_committed(&self, partition: &TopicPartition) {
        self.change(|state| state.group.committed.remove(partition));
    }

    /// The open readers and their worker numbers.
    pub fn members(&self) -> Vec<(MemberId, usize)> {
        self.look(|state| state.group.members.iter().map(|(&id, &worker)| (id, worker)).collect())
    }

    /// Who owns what.
    pub fn owners(&self) -> BTreeMap<TopicPartition, MemberId> {
        self.look(|state| state.group.owner.clone())
    }

    /// Moves partitions to the given readers; what is not named stays.
    pub fn assign(
        &self,
        assignment: impl IntoIterator<Item = (TopicPartition, MemberId)>,
        how: Handover,
    ) {
        self.change(|state| {
            for (partition, to) in assignment {
                state.group.assign(&partition, to, how);
            }
        });
    }

    /// Shares the partitions out evenly, as the group does by itself when a
    /// reader comes or goes.
    pub fn rebalance(&self) {
        self.change(State::balance);
    }

    /// Tells a reader what it lost by [`Handover::Silent`].
    pub fn wake(&self, member: MemberId) {
        self.change(|state| state.group.zombies.retain(|(zombie, _)| *zombie != member));
    }

    /// The next `count` calls of `open` fail.
    pub fn fail_opens(&self, count: usize, retryable: bool) {
        self.change(|state| state.faults.opens = Failing { left: count, retryable });
    }

    /// The next `count` calls of `next`, of whichever reader, fail.
    pub fn fail_reads(&self, count: usize, retryable: bool) {
        self.change(|state| state.faults.reads = Failing { left: count, retryable });
    }

    /// The next `count` commits of offsets fail.
    pub fn fail_commits(&self, count: usize, retryable: bool) {
        self.change(|state| state.faults.commits = Failing { left: count, retryable });
    }

    /// Every batch takes this long to come.
    pub fn slow_reads(&self, delay: Duration) {
        self.change(|state| state.settings.delay = delay);
    }
}
