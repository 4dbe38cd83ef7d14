//! A client of its own for the few partitions that carry most of the data.
//!
//! What a partition may hold and fetch at once is fixed when a client is made,
//! and has to do for all partitions being full at the same time. With a
//! thousand of them it is so little that a backlog on one is read slowly; and
//! every fetch for it names the thousand, which costs more than its messages.
//!
//! So, where there are more partitions than [`SEATS`], those that get a large
//! part of all bytes move to a second client, which only fetches: it has room
//! for them, and its fetches name nobody else. The group knows nothing of it,
//! and neither does the rest of the reader: a partition is a slot with a queue.
//! Moving one is giving it up here and assigning it there from where we are.
//! That is seen to by `sync`, and what the queue of the first client still held
//! is fetched again.
//!
//! A seat is kept until somebody else needs it, so that a partition that comes
//! and goes does not move each time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;

use crate::client::{self, Limits, SEATS};
use crate::context::{Consumer, Notes};
use crate::errors;
use crate::ffi::Queue;
use crate::poller::Poller;
use crate::settings::Settings;
use crate::slot::{self, Client, Slot};

/// Who gets less in a second needs no seat: the member fetches twice that.
const BUSY_BYTES: u64 = 512 << 10;

/// Who gets less in a second may lose the seat.
const IDLE_BYTES: u64 = BUSY_BYTES / 8;

/// The least time between two moves, each of which makes the member find its
/// place in all other partitions again.
const MOVE_PAUSE: Duration = Duration::from_secs(5);

/// The second client, which is made when it is first needed.
#[derive(Default)]
pub(crate) struct Express {
    /// None where every partition has room enough, or it cannot be made.
    limits: Option<Limits>,
    worker: usize,
    consumer: Option<Arc<Consumer>>,
    /// Its log lines and errors.
    pub(crate) main: Option<Queue<Notes>>,
    moved: Option<Instant>,
}

impl Express {
    pub(crate) fn new(limits: Option<Limits>, worker: usize) -> Self {
        Self { limits, worker, ..Self::default() }
    }

    /// The client, if it was ever needed.
    pub(crate) fn consumer(&self) -> Option<&Arc<Consumer>> {
        self.consumer.as_ref()
    }

    /// How many messages may wait of a partition there.
    pub(crate) fn queue_messages(&self) -> usize {
        self.limits.map_or(0, |limits| limits.queue_messages)
    }

    /// Makes the client; whether it is there.
    fn open(&mut self, settings: &Settings) -> bool {
        let Some(limits) = self.limits else { return false };
        if self.consumer.is_some() {
            return true;
        }
        let made = client::express(&settings.config, &settings.group, self.worker, limits)
            .create_with_context(Notes::default());
        match made {
            Ok(consumer) => {
                let consumer: Arc<Consumer> = Arc::new(consumer);
                self.main = Queue::main(&consumer);
                self.consumer = Some(consumer);
                true
            }
            Err(error) => {
                // The member fetches everything, if more slowly.
                tracing::warn!(%error, "no client for the busiest partitions");
                self.limits = None;
                false
            }
        }
    }
}

impl Poller {
    /// Who fetches what `client` stands for.
    pub(crate) fn fetcher(&self, client: Client) -> Option<&Arc<Consumer>> {
        match client {
            Client::Member => Some(&self.consumer),
            Client::Express => self.express.consumer(),
        }
    }

    /// Gives seats to who needs them, to be called once a second.
    pub(crate) fn give_seats(&mut self) {
        let recently = self.express.moved.is_some_and(|moved| moved.elapsed() < MOVE_PAUSE);
        // In the midst of a rebalance, giving up a partition would be taken for
        // the answer to it; the older protocol knows only whole assignments.
        if self.express.limits.is_none()
            || recently
            || self.unsynced
            || self.halted
            || self.group.is_waiting()
            || self.is_eager()
        {
            return;
        }
        let passengers: Vec<Passenger> = self.slots.iter().map(Passenger::of).collect();
        let Moves { up, down } = moves(&passengers);
        if up.is_empty() || !self.express.open(&self.settings) {
            return;
        }
        self.express.moved = Some(Instant::now());
        // A seat that was not given up cannot be given to anybody.
        if self.change(&down, Client::Express, Client::Member) {
            self.change(&up, Client::Member, Client::Express);
        }
    }

    /// Gives up partitions of one client, for `resync` to assign them to the
    /// other; whether that was done.
    fn change(&mut self, lanes: &[usize], from: Client, to: Client) -> bool {
        let Some(fetcher) = self.fetcher(from) else { return false };
        if lanes.is_empty() {
            return true;
        }
        let moving = lanes.iter().map(|lane| &self.slots[*lane]);
        let list = slot::names(moving.filter(|slot| slot.assigned));
        if let Err(error) = fetcher.incremental_unassign(&list) {
            let error = errors::failed("moving partitions between clients", error);
            self.outbox.error(error.retryable(true));
            return false;
        }
        for lane in lanes {
            let slot = &mut self.slots[*lane];
            tracing::debug!(partition = %slot.partition, ?to, "fetched by another client");
            slot.throw_away();
            slot.empty(&mut self.room);
            slot.stats.change_client();
            (slot.client, slot.queue, slot.assigned) = (to, None, false);
        }
        if from == Client::Member {
            self.rebalance_may_have_begun();
        }
        self.unsynced = true;
        self.sync_at = None;
        true
    }
}

/// What decides on a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Passenger {
    seated: bool,
    /// It is read.
    served: bool,
    /// Bytes served in the last second.
    bytes: u64,
}

impl Passenger {
    fn of(slot: &Slot) -> Self {
        Self {
            seated: slot.client == Client::Express,
            served: slot.is_served(),
            bytes: slot.stats.recent(),
        }
    }
}

/// Who is to move, by their number.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moves {
    up: Vec<usize>,
    down: Vec<usize>,
}

/// Up go those that got more than their part of a seat, most of them first;
/// down only those in whose place somebody sits then, be it that they have got
/// to their end.
fn moves(passengers: &[Passenger]) -> Moves {
    let all: u64 = passengers.iter().map(|one| one.bytes).sum();
    let busy = |one: &Passenger| one.bytes >= BUSY_BYTES && one.bytes * SEATS as u64 >= all;
    let numbered = || passengers.iter().enumerate();
    let mut up: Vec<(usize, &Passenger)> =
        numbered().filter(|(_, one)| !one.seated && one.served && busy(one)).collect();
    up.sort_by_key(|(_, one)| std::cmp::Reverse(one.bytes));
    let mut idle: Vec<(usize, &Passenger)> =
        numbered().filter(|(_, one)| one.seated && one.bytes < IDLE_BYTES).collect();
    idle.sort_by_key(|(_, one)| one.bytes);

    let free = SEATS.saturating_sub(passengers.iter().filter(|one| one.seated).count());
    up.truncate(free + idle.len());
    idle.truncate(up.len().saturating_sub(free));
    let lanes = |list: Vec<(usize, &Passenger)>| list.into_iter().map(|(lane, _)| lane).collect();
    Moves { up: lanes(up), down: lanes(idle) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passengers(waiting: &[u64], seated: &[u64]) -> Vec<Passenger> {
        let one = |seated, bytes: &u64| Passenger { seated, served: true, bytes: *bytes };
        let waiting = waiting.iter().map(|bytes| one(false, bytes));
        waiting.chain(seated.iter().map(|bytes| one(true, bytes))).collect()
    }

    #[test]
    fn seats_go_to_those_that_carry_most_of_the_data() {
        let mut waiting = vec![10; 1_000];
        (waiting[7], waiting[500]) = (BUSY_BYTES, 2 * BUSY_BYTES);
        let found = moves(&passengers(&waiting, &[]));
        assert_eq!(found, Moves { up: vec![500, 7], down: vec![] });
        // All equally busy: nobody stands out, and nobody would gain.
        assert_eq!(moves(&passengers(&[BUSY_BYTES; 100], &[])), Moves::default());
        // Little data needs no seat, whatever its share.
        assert_eq!(moves(&passengers(&[BUSY_BYTES - 1], &[])), Moves::default());
    }

    #[test]
    fn a_seat_is_lost_only_to_somebody_who_needs_it() {
        let idle = [[BUSY_BYTES; SEATS - 2].as_slice(), &[3, 2]].concat();
        assert_eq!(moves(&passengers(&[5, 5], &idle)), Moves::default());
        let found = moves(&passengers(&[8 * BUSY_BYTES, 5], &idle));
        assert_eq!(found, Moves { up: vec![0], down: vec![2 + SEATS - 1] });
        // All seats are well used: whoever comes waits.
        let found = moves(&passengers(&[8 * BUSY_BYTES], &[BUSY_BYTES; SEATS]));
        assert_eq!(found, Moves::default());
    }

    #[test]
    fn what_is_not_read_just_now_needs_no_seat() {
        let mut all = passengers(&[8 * BUSY_BYTES], &[0; SEATS]);
        all[0].served = false;
        assert_eq!(moves(&all), Moves::default());
        // Those that have got to the end of a bounded run do not keep theirs.
        all.iter_mut().for_each(|one| one.served = !one.seated);
        assert_eq!(moves(&all), Moves { up: vec![0], down: vec![1] });
    }
}
