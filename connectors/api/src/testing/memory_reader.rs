//! One member of the group of a [`MemorySource`](super::MemorySource).
//!
//! State changes only where an event is about to be returned, and nothing is
//! awaited in between: that is what makes `next` cancel safe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::asked::Asked;
use super::group::MemberId;
use super::log::{Found, Gather};
use super::memory_log::{MemoryLog, State};
use crate::{
    AssignedPartition, Assignment, Coverage, Error, ErrorKind, Event, Identity, Result, Revocation,
    SourceReader, Start, TopicPartition,
};

pub(super) struct MemoryReader {
    log: MemoryLog,
    changed: watch::Receiver<()>,
    member: MemberId,
    owned: BTreeSet<TopicPartition>,
    positions: BTreeMap<TopicPartition, Position>,
    asked: Asked,
    leaving: Option<Leaving>,
    /// When the next batch may come, if batches are slow.
    ready: Option<Instant>,
    turn: usize,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    next: i64,
    end: Option<i64>,
}

/// A revocation under way.
struct Leaving {
    partitions: Vec<TopicPartition>,
    done: oneshot::Receiver<()>,
    deadline: Instant,
}

#[async_trait]
impl SourceReader for MemoryReader {
    async fn next(&mut self) -> Result<Event> {
        loop {
            self.changed.mark_unchanged();
            if let Some(leaving) = &mut self.leaving {
                // Done, dropped or too late: the partitions go in any case.
                let _ = timeout_at(leaving.deadline, &mut leaving.done).await;
                self.leave();
            }
            if let Some(ready) = self.ready {
                sleep_until(ready).await;
            }
            let idle_after = {
                let shared = Arc::clone(&self.log.shared);
                let mut state = super::lock(&shared.state);
                let starts = self.asked.take();
                self.start(&starts);
                state.faults.read()?;
                if let Some(event) = self.step(&mut state)? {
                    let delay = state.settings.delay;
                    self.ready = (!delay.is_zero()).then(|| Instant::now() + delay);
                    return Ok(event);
                }
                state.settings.idle_after
            };
            let Self { changed, asked, .. } = self;
            tokio::select! {
                // The sender lives as long as the log, which we hold.
                _ = changed.changed() => {}
                () = asked.answered() => {}
                () = sleep(idle_after) => return Ok(Event::Idle),
            }
        }
    }

    async fn seek(&mut self, to: &[Start]) -> Result<()> {
        self.positions.clear();
        self.start(to);
        self.log.change(|state| state.group.unfinish(&self.owned));
        Ok(())
    }
}

impl MemoryReader {
    pub(super) fn new(log: MemoryLog, member: MemberId) -> Self {
        Self {
            changed: log.shared.changed.subscribe(),
            log,
            member,
            owned: BTreeSet::new(),
            positions: BTreeMap::new(),
            asked: Asked::default(),
            leaving: None,
            ready: None,
            turn: 0,
        }
    }

    fn start(&mut self, at: &[Start]) {
        for start in at.iter().filter(|start| self.owned.contains(&start.partition)) {
            let position = Position { next: start.offset, end: start.end };
            self.positions.insert(start.partition.clone(), position);
        }
    }

    /// Forgets partitions on this side.
    fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.owned.remove(partition);
            self.positions.remove(partition);
            self.asked.forget(partition);
        }
    }

    /// Gives up what was being revoked.
    fn leave(&mut self) {
        let Some(leaving) = self.leaving.take() else { return };
        self.forget(&leaving.partitions);
        self.log.change(|state| {
            for partition in &leaving.partitions {
                state.group.release(partition, self.member);
            }
        });
    }

    fn step(&mut self, state: &mut State) -> Result<Option<Event>> {
        if let Some(event) = self.lost(state) {
            return Ok(Some(event));
        }
        if let Some(event) = self.revoke(state) {
            return Ok(Some(event));
        }
        if let Some(event) = self.take_over(state) {
            return Ok(Some(event));
        }
        if let Some(event) = self.read(state)? {
            return Ok(Some(event));
        }
        Ok(self.finish(state).then_some(Event::End))
    }

    fn lost(&mut self, state: &State) -> Option<Event> {
        let group = &state.group;
        let lost: Vec<_> = self
            .owned
            .iter()
            .filter(|p| group.owner.get(*p) != Some(&self.member))
            .filter(|p| !group.zombies.contains(&(self.member, (*p).clone())))
            .cloned()
            .collect();
        if lost.is_empty() {
            return None;
        }
        self.forget(&lost);
        let (done, _) = oneshot::channel();
        let deadline = Instant::now().into_std();
        Some(Event::Revoking(Revocation { partitions: lost, lost: true, deadline, done }))
    }

    fn revoke(&mut self, state: &State) -> Option<Event> {
        let group = &state.group;
        let partitions: Vec<_> = self
            .owned
            .iter()
            .filter(|p| group.owner.get(*p) == Some(&self.member))
            .filter(|p| group.target.get(*p) != Some(&self.member))
            .cloned()
            .collect();
        if partitions.is_empty() {
            return None;
        }
        let (done, told) = oneshot::channel();
        let deadline = Instant::now() + state.settings.revoke_timeout;
        self.leaving = Some(Leaving { partitions: partitions.clone(), done: told, deadline });
        let deadline = deadline.into_std();
        Some(Event::Revoking(Revocation { partitions, lost: false, deadline, done }))
    }

    fn take_over(&mut self, state: &mut State) -> Option<Event> {
        let State { log, group, settings, .. } = state;
        let mut partitions = Vec::new();
        for (partition, _) in group.target.iter().filter(|(_, to)| **to == self.member) {
            if group.owner.contains_key(partition) {
                continue;
            }
            let found = log.get(partition);
            partitions.push(AssignedPartition {
                partition: partition.clone(),
                topic_id: log.topics.get(&partition.topic).map(|topic| topic.id.clone()),
                committed: group.committed.get(partition).cloned(),
                start: if settings.latest { found.end } else { found.low },
                low: found.low,
                end: found.end,
            });
        }
        if partitions.is_empty() {
            return None;
        }
        for assigned in &partitions {
            group.owner.insert(assigned.partition.clone(), self.member);
            self.owned.insert(assigned.partition.clone());
        }
        let names = partitions.iter().map(|assigned| assigned.partition.clone());
        let reply = self.asked.add(names);
        let identity = Identity {
            cluster: Some(settings.cluster.clone()),
            group: Some(settings.group_id.clone()),
        };
        Some(Event::Assigned(Assignment { partitions, identity, reply }))
    }

    /// A batch that begins with another partition each time, or the holes that
    /// are left when there is no row.
    fn read(&mut self, state: &State) -> Result<Option<Event>> {
        let State { log, settings, .. } = state;
        let order: Vec<_> = self.positions.iter().map(|(p, at)| (p.clone(), *at)).collect();
        if order.is_empty() {
            return Ok(None);
        }
        self.turn += 1;
        let share = settings.batch_rows.div_ceil(order.len());
        let mut batch = Gather::default();
        let mut moved = Vec::new();
        let mut holes = Coverage::new();
        for index in 0..order.len() {
            let (partition, at) = &order[(self.turn + index) % order.len()];
            let room = settings.batch_rows - batch.num_rows();
            let most = if settings.one_partition { room } else { room.min(share) };
            let found = self.look(state, partition, *at, most)?;
            if let Some(&bad) = found.bad.first()
                && !settings.reject_bad
            {
                if batch.num_rows() > 0 {
                    continue;
                }
                return Err(Error::new(ErrorKind::BadRecord, "record cannot be decoded")
                    .at(partition)
                    .offset(bad));
            }
            if found.rows.is_empty() && found.bad.is_empty() {
                holes.insert(partition, at.next, found.next);
            } else if batch.takes(partition, &found) {
                moved.push((partition.clone(), found.next));
                batch.add(partition, at.next, found);
                if settings.one_partition || batch.num_rows() >= settings.batch_rows {
                    break;
                }
            }
        }
        if let Some(batch) = batch.finish(log)? {
            self.advance(moved);
            return Ok(Some(Event::Batch(batch)));
        }
        if holes.is_empty() {
            return Ok(None);
        }
        self.advance(holes.iter().filter_map(|(p, set)| Some((p.clone(), set.next()?))));
        Ok(Some(Event::Covered(holes)))
    }

    fn look(
        &self,
        state: &State,
        name: &TopicPartition,
        at: Position,
        most: usize,
    ) -> Result<Found> {
        let partition = state.log.get(name);
        if at.next < partition.low && at.end.is_none_or(|end| at.next < end) {
            return Err(Error::new(ErrorKind::DataLoss, "the log no longer holds the offset")
                .at(name)
                .offset(at.next)
                .with("low", partition.low));
        }
        Ok(partition.look(at.next, at.end, most, state.settings.reject_bad))
    }

    fn advance(&mut self, to: impl IntoIterator<Item = (TopicPartition, i64)>) {
        for (partition, next) in to {
            if let Some(position) = self.positions.get_mut(&partition) {
                position.next = next;
            }
        }
    }

    /// Notes which partitions are done, and says whether all of them are.
    fn finish(&self, state: &mut State) -> bool {
        let State { log, group, settings, .. } = state;
        for partition in &self.owned {
            if group.owner.get(partition) != Some(&self.member) {
                continue;
            }
            // What is unread, and will not be read unless somebody seeks, is
            // nothing to wait for.
            let done = self.positions.get(partition).map_or_else(
                || !self.asked.awaits(partition),
                |at| at.next >= at.end.unwrap_or(i64::MAX).min(log.get(partition).end),
            );
            if done {
                group.finished.insert(partition.clone());
            } else {
                group.finished.remove(partition);
            }
        }
        group.complete |= settings.bounded && log.partitions().all(|p| group.finished.contains(&p));
        group.complete
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        self.log.change(|state| {
            if state.group.leave(self.member) {
                state.membership_changed();
            }
        });
    }
}
