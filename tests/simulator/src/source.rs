//! The source of one process: members of the simulated group.
//!
//! State changes only where an event is about to be returned, and nothing is
//! awaited in between: that is what makes `next` cancel safe.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidelock_connector::testing::Asked;
use tidelock_connector::{
    AssignedPartition, Assignment, Batch, CommittedOffsets, Coverage, Error, ErrorKind, Event,
    Identity, OffsetCommitter, OpenSource, Result, Revocation, Source, SourceContext, SourceReader,
    Start, Stream, TopicPartition,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::group::{MemberId, Standing};
use crate::log::{self, tp};
use crate::world::{Pid, State, World};

/// How long a reader waits before it reports that it is idle.
const IDLE_AFTER: Duration = Duration::from_millis(700);

/// The source as one process sees it.
#[derive(Debug, Clone)]
pub(crate) struct ProcessSource {
    pub(crate) world: Arc<World>,
    pub(crate) pid: Pid,
}

#[async_trait]
impl Source for ProcessSource {
    async fn open(&self, _ctx: SourceContext) -> Result<OpenSource> {
        self.world.gate(self.pid).await;
        let pid = self.pid;
        let member = self.world.change(|state| {
            let member = state.group.join(pid, &mut state.dice);
            state.stats.rebalances += 1;
            state.step(pid, format_args!("{member} joins"));
            member
        });
        let world = Arc::clone(&self.world);
        let reader = Reader {
            world: Arc::clone(&world),
            pid,
            member,
            owned: BTreeSet::new(),
            positions: BTreeMap::new(),
            asked: Asked::default(),
            leaving: None,
            ready: None,
        };
        let committer = Arc::new(Committer { world, pid, member });
        Ok(OpenSource { reader: Box::new(reader), committer })
    }

    fn streams(&self) -> Vec<Arc<Stream>> {
        vec![Arc::clone(&self.world.lock().log.stream)]
    }
}

struct Reader {
    world: Arc<World>,
    pid: Pid,
    member: MemberId,
    /// What this member believes to own.
    owned: BTreeSet<i32>,
    positions: BTreeMap<i32, Position>,
    asked: Asked,
    leaving: Option<Leaving>,
    /// When the next batch may come.
    ready: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    next: i64,
    end: i64,
}

/// A revocation under way.
struct Leaving {
    partitions: Vec<i32>,
    done: oneshot::Receiver<()>,
    deadline: Instant,
}

#[async_trait]
impl SourceReader for Reader {
    async fn next(&mut self) -> Result<Event> {
        loop {
            let mut change = pin!(self.world.next_change());
            change.as_mut().enable();
            self.world.gate(self.pid).await;
            if let Some(leaving) = &mut self.leaving {
                // Done, dropped or too late: the partitions go in any case.
                let _ = timeout_at(leaving.deadline, &mut leaving.done).await;
                let overdue = Instant::now() >= leaving.deadline;
                self.world.gate(self.pid).await;
                self.leave(overdue);
            }
            if let Some(ready) = self.ready {
                sleep_until(ready).await;
                self.world.gate(self.pid).await;
            }
            let world = Arc::clone(&self.world);
            let event = {
                let mut state = world.lock();
                let starts = self.asked.take();
                self.start(&mut state, &starts);
                self.step(&mut state)?
            };
            if let Some(event) = event {
                return Ok(event);
            }
            tokio::select! {
                biased;
                () = change => {}
                () = self.asked.answered() => {}
                () = sleep(IDLE_AFTER) => return Ok(Event::Idle),
            }
        }
    }

    async fn seek(&mut self, to: &[Start]) -> Result<()> {
        self.world.gate(self.pid).await;
        self.positions.clear();
        let world = Arc::clone(&self.world);
        world.change(|state| self.start(state, to));
        Ok(())
    }
}

impl Reader {
    fn start(&mut self, state: &mut State, at: &[Start]) {
        for start in at {
            let partition = start.partition.partition;
            if !self.owned.contains(&partition) {
                continue;
            }
            let epoch = state.watcher.epoch(partition);
            if let Some(violation) = state.watcher.claimed_before(self.member, partition, epoch) {
                state.violated(violation);
            }
            let mut next = start.offset;
            if state.dice.chance(state.weather.stale_reads) {
                // Rows that were fetched before, or a fetch that skips some.
                let wrong = next + *state.dice.pick(&[-2, -1, 1, 2]);
                // Beyond the end nothing would ever tell that it was wrong.
                if (0..state.log.end(partition)).contains(&wrong) {
                    next = wrong;
                }
                state.stats.stale += u64::from(next != start.offset);
            }
            state.step(
                self.pid,
                format_args!("{} starts {partition} at {} ({next})", self.member, start.offset),
            );
            let end = start.end.unwrap_or(i64::MAX);
            self.positions.insert(partition, Position { next, end });
        }
    }

    /// Forgets partitions on this side.
    fn forget(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.owned.remove(partition);
            self.positions.remove(partition);
            self.asked.forget(&tp(*partition));
        }
    }

    /// Gives up what was being revoked.
    fn leave(&mut self, overdue: bool) {
        let Some(leaving) = self.leaving.take() else { return };
        self.forget(&leaving.partitions);
        let member = self.member;
        self.world.change(|state| {
            state.stats.overdue += u64::from(overdue);
            state.step(
                self.pid,
                format_args!("{member} gave up {:?}, overdue {overdue}", leaving.partitions),
            );
            for partition in &leaving.partitions {
                state.group.release(*partition, member);
            }
        });
    }

    fn step(&mut self, state: &mut State) -> Result<Option<Event>> {
        if let Some(Standing::Out(finds_out)) =
            state.group.members.get(&self.member).map(|member| member.standing)
        {
            return self.outside(state, finds_out);
        }
        if let Some(event) = self.lost(state) {
            return Ok(Some(event));
        }
        if let Some(event) = self.revoke(state) {
            return Ok(Some(event));
        }
        if let Some(event) = self.take_over(state) {
            return Ok(Some(event));
        }
        self.read(state)
    }

    /// Thrown out of the group: reads on until it finds out, and comes back.
    fn outside(&mut self, state: &mut State, finds_out: Option<Instant>) -> Result<Option<Event>> {
        let at = finds_out.unwrap_or_else(|| Instant::now() + state.dice.millis(0..=1_500));
        if Instant::now() < at {
            if let Some(member) = state.group.members.get_mut(&self.member) {
                member.standing = Standing::Out(Some(at));
            }
            return self.read(state);
        }
        let partitions: Vec<_> = self.owned.iter().copied().collect();
        state.step(self.pid, format_args!("{} finds out and comes back", self.member));
        state.group.rejoin(self.member, &mut state.dice);
        state.stats.rebalances += 1;
        if partitions.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.gone(partitions)))
    }

    fn gone(&mut self, partitions: Vec<i32>) -> Event {
        self.forget(&partitions);
        let (done, _) = oneshot::channel();
        let partitions = partitions.into_iter().map(tp).collect();
        let deadline = Instant::now().into_std();
        Event::Revoking(Revocation { partitions, lost: true, deadline, done })
    }

    fn lost(&mut self, state: &mut State) -> Option<Event> {
        let now = Instant::now();
        let (group, member) = (&mut state.group, self.member);
        let lost: Vec<i32> = self
            .owned
            .iter()
            .copied()
            .filter(|partition| {
                group.owner.get(partition) != Some(&member)
                    && group.notices.get(&(member, *partition)).is_none_or(|at| *at <= now)
            })
            .collect();
        if lost.is_empty() {
            return None;
        }
        for partition in &lost {
            group.notices.remove(&(member, *partition));
        }
        state.step(self.pid, format_args!("{member} lost {lost:?}"));
        Some(self.gone(lost))
    }

    fn revoke(&mut self, state: &mut State) -> Option<Event> {
        let (group, member) = (&state.group, self.member);
        let partitions: Vec<i32> = self
            .owned
            .iter()
            .copied()
            .filter(|p| group.owner.get(p) == Some(&member))
            .filter(|p| group.target.get(p) != Some(&member))
            .collect();
        if partitions.is_empty() {
            return None;
        }
        let deadline = Instant::now() + state.plan.revoke_timeout;
        state.step(self.pid, format_args!("{member} is asked for {partitions:?}"));
        let (done, told) = oneshot::channel();
        let names = partitions.iter().copied().map(tp).collect();
        self.leaving = Some(Leaving { partitions, done: told, deadline });
        let deadline = deadline.into_std();
        Some(Event::Revoking(Revocation { partitions: names, lost: false, deadline, done }))
    }

    fn take_over(&mut self, state: &mut State) -> Option<Event> {
        let member = self.member;
        let free: Vec<i32> = state
            .group
            .target
            .iter()
            .filter(|(partition, to)| {
                **to == member
                    && !state.group.owner.contains_key(*partition)
                    && !self.owned.contains(*partition)
            })
            .map(|(partition, _)| *partition)
            .collect();
        if free.is_empty() {
            return None;
        }
        let mut partitions = Vec::with_capacity(free.len());
        for partition in &free {
            let end = state.log.end(*partition);
            state.group.owner.insert(*partition, member);
            self.owned.insert(*partition);
            let epoch = state.watcher.epoch(*partition);
            state.watcher.assigned(member, *partition, epoch);
            partitions.push(AssignedPartition {
                partition: tp(*partition),
                topic_id: Some("id-of-t".to_owned()),
                committed: state.group.committed.get(partition).cloned(),
                start: if state.plan.latest { end } else { 0 },
                low: 0,
                end,
            });
        }
        state.step(self.pid, format_args!("{member} is assigned {free:?}"));
        let reply = self.asked.add(free.into_iter().map(tp));
        let identity = Identity { cluster: Some("c".to_owned()), group: Some("g".to_owned()) };
        Some(Event::Assigned(Assignment { partitions, identity, reply }))
    }

    /// Some rows of some partitions, or the holes where there is no row.
    fn read(&mut self, state: &mut State) -> Result<Option<Event>> {
        let readable: Vec<(i32, Position)> = self
            .positions
            .iter()
            .filter(|(p, at)| at.next < at.end.min(state.log.end(**p)))
            .map(|(p, at)| (*p, *at))
            .collect();
        if readable.is_empty() {
            return Ok(None);
        }
        let first = state.dice.range(0..=readable.len() as u64 - 1) as usize;
        let count = state.dice.range(1..=readable.len() as u64) as usize;
        let mut rows = Vec::new();
        let mut coverage = Coverage::new();
        for index in 0..count {
            let (partition, at) = readable[(first + index) % readable.len()];
            let most = state.dice.range(1..=8);
            let (found, next) = state.log.read(partition, at.next, at.end, most);
            rows.extend(found.into_iter().map(|offset| (partition, offset)));
            coverage.insert(&tp(partition), at.next, next);
            self.positions.insert(partition, Position { next, ..at });
        }
        self.ready = Some(Instant::now() + state.dice.millis(0..=60));
        state.stats.rows += rows.len() as u64;
        state.step(self.pid, format_args!("{} reads {}", self.member, Shown(&coverage)));
        if rows.is_empty() {
            return Ok(Some(Event::Covered(coverage)));
        }
        let records = log::batch(&rows)?;
        Ok(Some(Event::Batch(Batch::new(Arc::clone(&state.log.stream), records, coverage))))
    }
}

struct Shown<'a>(&'a Coverage);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (TopicPartition { partition, .. }, set) in self.0.iter() {
            for range in set.ranges() {
                write!(f, "{partition}:{range} ")?;
            }
        }
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (pid, member) = (self.pid, self.member);
        self.world.change(|state| {
            // Who is killed says nothing to anybody.
            if !state.is_dead(pid) {
                state.group.leave(member, &mut state.dice);
                state.step(pid, format_args!("{member} leaves"));
            }
        });
    }
}

/// Commits offsets to the group.
struct Committer {
    world: Arc<World>,
    pid: Pid,
    member: MemberId,
}

#[async_trait]
impl OffsetCommitter for Committer {
    async fn commit(&self, offsets: &CommittedOffsets) -> Result<()> {
        let failed = || Error::new(ErrorKind::Unavailable, "the commit failed");
        self.world.gate(self.pid).await;
        let (wait, fails, applied) = {
            let mut state = self.world.lock();
            let rate = state.weather.commit_fails;
            let wait = state.dice.millis(1..=40);
            (wait, state.dice.chance(rate), state.dice.chance(500))
        };
        sleep(wait).await;
        self.world.gate(self.pid).await;
        self.world.change(|state| {
            state.stats.commits += 1;
            let refused = !state.group.is_in(self.member);
            if refused || (fails && !applied) {
                state.stats.commit_failures += 1;
                return Err(failed());
            }
            for (partition, committed) in offsets {
                let number = partition.partition;
                state.step(self.pid, format_args!("commits {partition} at {}", committed.offset));
                if let Some(violation) = state.watcher.committed(number, committed.offset) {
                    state.violated(violation);
                }
                state.group.committed.insert(number, committed.clone());
            }
            if fails { Err(failed()) } else { Ok(()) }
        })?;
        self.world.gate(self.pid).await;
        Ok(())
    }
}
