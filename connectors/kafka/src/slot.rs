//! The partitions that this worker owns, and what is known of each.

use std::ffi::CString;

use rdkafka::{Offset, TopicPartitionList};
use tidelock_connector::{Start, TopicPartition};

use crate::context::Notes;
use crate::ffi::{Queue, Room};
use crate::stats::{Meters, Stats};
use crate::track::Track;

/// One partition that the group gave to this worker. Slots and the lanes of
/// the scheduler have the same numbers.
pub(crate) struct Slot {
    pub(crate) partition: TopicPartition,
    /// The number of its topic.
    pub(crate) topic: usize,
    pub(crate) name: CString,
    pub(crate) state: State,
    pub(crate) track: Track,
    /// Who fetches it.
    pub(crate) client: Client,
    /// Its queue, from the first assignment in librdkafka on.
    pub(crate) queue: Option<Queue<Notes>>,
    /// That client has it in its assignment.
    pub(crate) assigned: bool,
    /// librdkafka was told to pause it.
    pub(crate) paused: bool,
    /// librdkafka is not where `track` is.
    pub(crate) astray: bool,
    /// Its share against the others.
    pub(crate) weight: u32,
    pub(crate) stats: Stats,
    pub(crate) meters: Meters,
}

/// One of the two clients of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// The member of the group, who fetches what nobody else does.
    Member,
    /// The one for the busiest partitions (`express`).
    Express,
}

/// What may be done with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The answer to this assignment says where to start.
    Claiming(u64),
    /// Nobody has said where to start.
    Unread,
    /// It is read.
    Reading,
    /// It is being given up.
    Leaving,
}

impl Slot {
    pub(crate) fn new(partition: TopicPartition, topic: usize, weight: u32, claim: u64) -> Self {
        // A topic's name has no zero bytes: the broker would not have it.
        let name = CString::new(&*partition.topic).unwrap_or_default();
        Self {
            meters: Meters::new(&partition),
            partition,
            topic,
            weight,
            name,
            state: State::Claiming(claim),
            track: Track::new(0, None),
            client: Client::Member,
            queue: None,
            assigned: false,
            paused: false,
            astray: false,
            stats: Stats::default(),
        }
    }

    /// Reads from `start` on.
    pub(crate) fn begin(&mut self, start: &Start) {
        let again = self.track.position().saturating_sub(start.offset);
        self.stats.refetch(u64::try_from(again).unwrap_or(0));
        self.stats.rest();
        self.track = Track::new(start.offset, start.end);
        self.state = State::Reading;
        self.astray = true;
    }

    /// What is in its queue will be fetched again, unless it is behind the end.
    pub(crate) fn throw_away(&mut self) {
        if !self.track.is_done() {
            let waiting = self.queue.as_ref().map_or(0, Queue::len);
            self.stats.throw_away(waiting);
        }
        self.stats.rest();
    }

    /// Gives back the memory of what was fetched, after it was unassigned.
    pub(crate) fn empty(&mut self, room: &mut Room) {
        if let Some(queue) = &self.queue {
            queue.discard(room);
        }
    }

    /// Whether it is to be fetched.
    pub(crate) fn is_wanted(&self) -> bool {
        self.state == State::Reading && !self.track.is_done()
    }

    /// Whether what is in its queue may be delivered.
    pub(crate) fn is_served(&self) -> bool {
        self.is_wanted() && self.assigned && !self.paused && !self.astray
    }
}

/// The partitions of `slots`, at their positions.
pub(crate) fn positions<'a>(slots: impl Iterator<Item = &'a Slot>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for slot in slots {
        let TopicPartition { topic, partition } = &slot.partition;
        let offset = Offset::Offset(slot.track.position());
        if let Err(error) = list.add_partition_offset(topic, *partition, offset) {
            // Only a negative offset can be refused, and those are never taken.
            tracing::error!(partition = %slot.partition, %error, "no position");
        }
    }
    list
}

/// The partitions of `slots`, without positions.
pub(crate) fn names<'a>(slots: impl Iterator<Item = &'a Slot>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for slot in slots {
        list.add_partition(&slot.partition.topic, slot.partition.partition);
    }
    list
}
