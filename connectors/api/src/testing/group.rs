//! The consumer group behind a [`MemorySource`](super::MemorySource): who is
//! in it, who owns what and who is to own it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{CommittedOffset, TopicPartition};

/// An open reader, counted from 0 in the order of opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub usize);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {}", self.0)
    }
}

/// How a partition leaves its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// The owner is asked, and the next one waits until it is done or the
    /// deadline is over.
    Cooperative,
    /// The next owner takes over at once; the old one is told that it lost.
    Lost,
    /// The next owner takes over at once; the old one is told nothing and reads
    /// on, as a process does that was stopped and has woken, until
    /// [`MemoryLog::wake`](super::MemoryLog::wake).
    Silent,
}

/// Membership, ownership and committed offsets.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The worker number of every open reader.
    pub(super) members: BTreeMap<MemberId, usize>,
    next_member: usize,
    /// Who is to own a partition.
    pub(super) target: BTreeMap<TopicPartition, MemberId>,
    /// Who owns it.
    pub(super) owner: BTreeMap<TopicPartition, MemberId>,
    /// Who reads it without owning it, and does not know.
    pub(super) zombies: BTreeSet<(MemberId, TopicPartition)>,
    /// Partitions whose owner has delivered everything.
    pub(super) finished: BTreeSet<TopicPartition>,
    /// Every partition was delivered to its end: whoever leaves now leaves
    /// nothing to others.
    pub(super) complete: bool,
    pub(super) committed: BTreeMap<TopicPartition, CommittedOffset>,
    /// Enough members have been there for the first assignment.
    started: bool,
}

impl Group {
    pub(super) fn join(&mut self, worker: usize) -> MemberId {
        let id = MemberId(self.next_member);
        self.next_member += 1;
        self.members.insert(id, worker);
        self.complete = false;
        let owner = &self.owner;
        self.finished.retain(|partition| owner.contains_key(partition));
        id
    }

    /// Forgets a member and returns whether others have to take over.
    pub(super) fn leave(&mut self, id: MemberId) -> bool {
        self.members.remove(&id);
        self.zombies.retain(|(member, _)| *member != id);
        let complete = self.complete;
        let finished = &mut self.finished;
        self.owner.retain(|partition, owner| {
            let stays = *owner != id;
            if !stays && !complete {
                finished.remove(partition);
            }
            stays
        });
        self.target.retain(|_, target| *target != id);
        !complete
    }

    /// There is something to read again.
    pub(super) fn unfinish<'a>(
        &mut self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) {
        self.complete = false;
        for partition in partitions {
            self.finished.remove(partition);
        }
    }

    pub(super) fn release(&mut self, partition: &TopicPartition, id: MemberId) {
        if self.owner.get(partition) == Some(&id) {
            self.owner.remove(partition);
            self.finished.remove(partition);
        }
        self.zombies.remove(&(id, partition.clone()));
    }

    /// Gives `partition` to `to`.
    pub(super) fn assign(&mut self, partition: &TopicPartition, to: MemberId, how: Handover) {
        assert!(self.members.contains_key(&to), "{to} has no open reader");
        self.zombies.remove(&(to, partition.clone()));
        self.target.insert(partition.clone(), to);
        let Some(&owner) = self.owner.get(partition) else { return };
        if owner == to || how == Handover::Cooperative {
            return;
        }
        self.release(partition, owner);
        if how == Handover::Silent {
            self.zombies.insert((owner, partition.clone()));
        }
    }

    /// Shares the partitions out evenly; who can keep one keeps it. Nothing
    /// happens before the first `enough` members are there.
    pub(super) fn balance(&mut self, all: &[TopicPartition], enough: usize) {
        self.started |= self.members.len() >= enough;
        if !self.started || self.members.is_empty() {
            return;
        }
        let floor = all.len() / self.members.len();
        let mut extra = all.len() % self.members.len();
        let mut load: BTreeMap<MemberId, usize> = self.members.keys().map(|&id| (id, 0)).collect();
        let mut homeless = Vec::new();
        for partition in all {
            match self.target.get(partition).and_then(|id| load.get_mut(id)) {
                Some(held) if *held < floor => *held += 1,
                Some(held) if *held == floor && extra > 0 => {
                    *held += 1;
                    extra -= 1;
                }
                _ => homeless.push(partition),
            }
        }
        for partition in homeless {
            let least = load.iter_mut().min_by_key(|(_, held)| **held);
            if let Some((&id, held)) = least {
                *held += 1;
                self.target.insert(partition.clone(), id);
            }
        }
    }
}
