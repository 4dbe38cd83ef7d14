//! The consumer group: who is in it, who is to own what, who owns it, and who
//! believes to.
//!
//! As with Kafka, nothing here is safe: a member that was silent for too long
//! is thrown out and finds out later, partitions are given away under its
//! hands, and what it commits may still be accepted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tidelock_connector::CommittedOffset;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::world::Pid;

/// One open reader. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub(crate) u32);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "M{}", self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) pid: Pid,
    pub(crate) standing: Standing,
}

/// How a member stands with the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    In,
    /// Thrown out; it finds out at that time, which is set when it first asks.
    Out(Option<Instant>),
}

#[derive(Debug)]
pub(crate) struct Group {
    partitions: i32,
    pub(crate) members: BTreeMap<MemberId, Member>,
    next: u32,
    /// Who is to own a partition.
    pub(crate) target: BTreeMap<i32, MemberId>,
    /// Who owns it.
    pub(crate) owner: BTreeMap<i32, MemberId>,
    /// Who lost a partition and will find out when.
    pub(crate) notices: BTreeMap<(MemberId, i32), Instant>,
    pub(crate) committed: BTreeMap<i32, CommittedOffset>,
}

impl Group {
    pub(crate) fn new(partitions: usize) -> Self {
        Self {
            partitions: partitions as i32,
            members: BTreeMap::new(),
            next: 0,
            target: BTreeMap::new(),
            owner: BTreeMap::new(),
            notices: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    fn insiders(&self) -> Vec<MemberId> {
        let inside = self.members.iter().filter(|(_, member)| member.standing == Standing::In);
        inside.map(|(id, _)| *id).collect()
    }

    pub(crate) fn is_in(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.standing == Standing::In)
    }

    pub(crate) fn join(&mut self, pid: Pid, dice: &mut Dice) -> MemberId {
        let id = MemberId(self.next);
        self.next += 1;
        self.members.insert(id, Member { pid, standing: Standing::In });
        self.rebalance(dice);
        id
    }

    /// A member that was thrown out has found out, and comes back.
    pub(crate) fn rejoin(&mut self, id: MemberId, dice: &mut Dice) {
        if let Some(member) = self.members.get_mut(&id) {
            member.standing = Standing::In;
        }
        self.notices.retain(|(lost, _), _| *lost != id);
        self.rebalance(dice);
    }

    pub(crate) fn leave(&mut self, id: MemberId, dice: &mut Dice) {
        self.members.remove(&id);
        self.owner.retain(|_, owner| *owner != id);
        self.notices.retain(|(lost, _), _| *lost != id);
        self.rebalance(dice);
    }

    /// The group has heard nothing of a process for too long.
    pub(crate) fn expire(&mut self, pid: Pid, dead: bool, dice: &mut Dice) {
        let gone: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.pid == pid && member.standing == Standing::In)
            .map(|(id, _)| *id)
            .collect();
        for id in &gone {
            self.owner.retain(|_, owner| owner != id);
            if dead {
                self.members.remove(id);
                self.notices.retain(|(lost, _), _| lost != id);
            } else if let Some(member) = self.members.get_mut(id) {
                member.standing = Standing::Out(None);
            }
        }
        if !gone.is_empty() {
            self.rebalance(dice);
        }
    }

    /// Says who is to own what; about half of the partitions stay where they
    /// are if they can.
    pub(crate) fn rebalance(&mut self, dice: &mut Dice) {
        let inside = self.insiders();
        self.target.retain(|_, target| inside.contains(target));
        if inside.is_empty() {
            return;
        }
        let first = dice.range(0..=inside.len() as u64 - 1) as usize;
        for partition in 0..self.partitions {
            if self.target.contains_key(&partition) && dice.chance(500) {
                continue;
            }
            let to = inside[(first + partition as usize) % inside.len()];
            self.target.insert(partition, to);
        }
    }

    /// Gives a partition away without asking its owner, who finds out after
    /// `wait`.
    pub(crate) fn steal(&mut self, partition: i32, to: MemberId, wait: Duration) -> bool {
        self.target.insert(partition, to);
        match self.owner.get(&partition).copied() {
            Some(owner) if owner != to => {
                self.owner.remove(&partition);
                self.notices.insert((owner, partition), Instant::now() + wait);
                true
            }
            _ => false,
        }
    }

    /// Gives up a partition if it is still owned.
    pub(crate) fn release(&mut self, partition: i32, id: MemberId) {
        if self.owner.get(&partition) == Some(&id) {
            self.owner.remove(&partition);
        }
        self.notices.remove(&(id, partition));
    }
}
