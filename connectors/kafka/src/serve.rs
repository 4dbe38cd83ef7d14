//! Turns: messages from the partitions' queues into the open rows, and open
//! rows into the channel.

use std::time::Instant;

use rdkafka::error::RDKafkaErrorCode;
use tidelock_connector::{Batch, Coverage, Error, ErrorKind, Rejected, Run};

use crate::config::OnBadRecord;
use crate::errors;
use crate::fair::{Taken, Turn};
use crate::ffi::{Message, Queue, Room};
use crate::poller::Poller;
use crate::rows::Refused;
use crate::slot::Client;
use crate::stats::Seen;
use crate::track::Step;

/// Rows of a batch, at most.
const BATCH_ROWS: usize = 64 * 1024;

/// What a round has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// Some lane has more.
    More,
    /// Every lane is empty; whether any had something.
    Drained {
        /// Something was there.
        any: bool,
    },
    /// There is no room for more.
    Full,
}

impl Poller {
    /// One turn for every partition.
    pub(crate) fn round(&mut self) -> Served {
        // Nothing comes between a revocation and its end: rows that are open when
        // partitions go would be of others then. The group's member has paused
        // everything anyhow, the other client has not.
        if self.halted || self.group.is_leaving() {
            return Served::Drained { any: false };
        }
        let (mut any, mut more) = (false, false);
        self.pace.now = Instant::now();
        // While there is work, everybody is looked at in every round.
        let lull = self.rested.then(|| self.lull());
        for _ in 0..self.fair.len() {
            if self.outbox.held() >= self.budget.channel {
                return Served::Full;
            }
            let Some(mut turn) = self.fair.begin() else { break };
            if lull.is_some_and(|lull| self.slots[turn.lane].stats.is_quiet(&self.pace, lull)) {
                self.fair.took(&mut turn, Taken { drained: true, ..Taken::default() });
                continue;
            }
            let (took, left) = self.turn(&mut turn);
            any |= took;
            more |= left;
            if self.halted {
                break;
            }
        }
        if more { Served::More } else { Served::Drained { any } }
    }

    /// One turn; whether something was taken, and whether something is left.
    fn turn(&mut self, turn: &mut Turn) -> (bool, bool) {
        let lane = turn.lane;
        let mut room = std::mem::take(&mut self.room);
        self.pace.turns += 1;
        let began = self.pace;
        let mut any = false;
        loop {
            let want = self.fair.want(turn);
            if want == 0 {
                break;
            }
            let taken = self.take(lane, want, &mut room);
            any |= taken.records > 0;
            self.fair.took(turn, taken);
            if self.halted {
                break;
            }
        }
        self.room = room;
        let slot = &mut self.slots[lane];
        // A queue that was empty a moment ago need not be asked again.
        let waiting = match any {
            true => slot.queue.as_ref().map_or(0, Queue::len),
            false => 0,
        };
        let left = waiting > 0 && slot.is_served();
        if slot.is_served() {
            slot.stats.look(&began, any, self.settings.config.poll_interval);
            let limit = match slot.client {
                Client::Member => self.limits.queue_messages,
                Client::Express => self.express.queue_messages(),
            };
            slot.stats.see(Seen { any, waiting, left }, &self.pace, limit);
        }
        (any, left)
    }

    /// Takes messages of one partition into the rows of its topic.
    fn take(&mut self, lane: usize, want: usize, room: &mut Room) -> Taken {
        let nothing = Taken { drained: true, ..Taken::default() };
        let slot = &mut self.slots[lane];
        if !slot.is_served() {
            return nothing;
        }
        // The queue steps out of its slot, so that rows can be cut while
        // messages that borrow from it are still to come.
        let Some(queue) = slot.queue.take() else { return nothing };
        let mut taken = nothing;
        if queue.len() > 0 {
            let now = Instant::now();
            self.pace.now = now;
            let drained = queue.drain(room, want);
            taken.drained = drained.len() < want;
            for message in drained.iter() {
                if let Err(error) = self.accept(lane, message, &mut taken, now) {
                    // What came before it goes out before it.
                    self.cut_all();
                    self.outbox.bad_record(*error);
                    self.halted = true;
                    break;
                }
            }
        }
        self.slots[lane].queue = Some(queue);
        self.pace.records += taken.records as u64;
        taken
    }

    /// Makes a row of a message. This is what runs for every message: it looks
    /// nothing up and allocates nothing of its own.
    fn accept(
        &mut self,
        lane: usize,
        message: Message<'_>,
        taken: &mut Taken,
        now: Instant,
    ) -> Result<(), Box<Error>> {
        if let Some(code) = message.error() {
            return self.mark(lane, message, code, now);
        }
        let size = message.size();
        taken.records += 1;
        taken.bytes += size;
        taken.largest = taken.largest.max(size);

        let slot = &mut self.slots[lane];
        let index = slot.topic;
        match slot.track.arrive(message.offset()) {
            Step::Take => {}
            Step::Below => return Ok(()),
            Step::Beyond => {
                self.topics[index].since.get_or_insert(now);
                self.unsynced = true;
                return Ok(());
            }
        }
        let mut appended = self.topics[index].rows.append(lane, message);
        if let Err(Refused::Full) = appended {
            self.cut(index);
            appended = self.topics[index].rows.append(lane, message);
        }
        if let Err(refused) = appended {
            let reason = match refused {
                Refused::Bad(reason) => reason,
                Refused::Full => "the message is too large for a batch".to_owned(),
            };
            self.refuse(lane, message, reason)?;
        }
        let slot = &mut self.slots[lane];
        slot.track.reach(message.offset() + 1);
        slot.stats.serve(size as u64);
        self.unsynced |= slot.track.is_done();

        let topic = &mut self.topics[index];
        topic.since.get_or_insert(now);
        if topic.rows.len() >= BATCH_ROWS || topic.rows.bytes() >= self.budget.batch {
            self.cut(index);
        }
        Ok(())
    }

    /// A message that did not decode.
    #[cold]
    fn refuse(
        &mut self,
        lane: usize,
        message: Message<'_>,
        reason: String,
    ) -> Result<(), Box<Error>> {
        let slot = &self.slots[lane];
        let (partition, offset) = (slot.partition.clone(), message.offset());
        metrics::counter!("tidelock_source_bad_records_total", "topic" => partition.topic.to_string())
            .increment(1);
        if self.settings.config.on_bad_record == OnBadRecord::Stop {
            let text = format!("the record does not decode: {reason}");
            return Err(Box::new(
                Error::new(ErrorKind::BadRecord, text).at(&partition).offset(offset),
            ));
        }
        if let Some(more) = self.bad_records.pass(Instant::now()) {
            tracing::warn!(%partition, offset, reason, also_skipped = more, "bad record skipped");
        }
        let rejected = Rejected {
            partition,
            offset,
            reason,
            key: message.key().map(<[u8]>::to_vec),
            value: message.value().map(<[u8]>::to_vec),
        };
        self.topics[slot.topic].rejected.push(rejected);
        Ok(())
    }

    /// The end of the partition, or an error in place of a message.
    #[cold]
    fn mark(
        &mut self,
        lane: usize,
        message: Message<'_>,
        code: RDKafkaErrorCode,
        now: Instant,
    ) -> Result<(), Box<Error>> {
        let slot = &mut self.slots[lane];
        if code == RDKafkaErrorCode::PartitionEOF {
            slot.track.reach(message.offset());
            self.unsynced |= slot.track.is_done();
            if slot.track.has_news() {
                self.topics[slot.topic].since.get_or_insert(now);
            }
            return Ok(());
        }
        let error = errors::of_code(code, &message.error_text())
            .at(&slot.partition)
            .offset(slot.track.position());
        if !error.is_retryable() {
            return Err(Box::new(error));
        }
        if self.errors.pass(now).is_some() {
            self.outbox.error(error);
        }
        Ok(())
    }

    /// Cuts what has waited long enough, and everything when it is too much.
    pub(crate) fn cut_due(&mut self, now: Instant) {
        let open: usize = self.topics.iter().map(|topic| topic.rows.bytes()).sum();
        let longest = self.settings.config.poll_interval;
        for index in 0..self.topics.len() {
            let since = self.topics[index].since;
            let due = since.is_some_and(|since| now.duration_since(since) >= longest);
            if due || (since.is_some() && open >= self.budget.open) {
                self.cut(index);
            }
        }
    }

    /// Cuts everything.
    pub(crate) fn cut_all(&mut self) {
        (0..self.topics.len()).for_each(|index| self.cut(index));
    }

    /// Sends off what is open of a topic.
    fn cut(&mut self, index: usize) {
        let mut coverage = Coverage::new();
        for slot in self.slots.iter_mut().filter(|slot| slot.topic == index) {
            if let Some((from, to)) = slot.track.report() {
                coverage.insert(&slot.partition, from, to);
            }
        }
        let topic = &mut self.topics[index];
        topic.since = None;
        let rejected = std::mem::take(&mut topic.rejected);
        if topic.rows.len() == 0 && rejected.is_empty() {
            if !coverage.is_empty() {
                self.outbox.covered(coverage);
            }
            return;
        }
        let slots = &self.slots;
        let partition_of = |lane: usize| slots[lane].partition.clone();
        match topic.rows.finish(partition_of) {
            Ok((records, runs)) => {
                let run = |run: crate::rows::LaneRun| Run {
                    partition: partition_of(run.lane),
                    first: run.first,
                    count: run.count,
                };
                let stream = std::sync::Arc::clone(topic.rows.stream());
                self.outbox.batch(
                    Batch::new(stream, records, coverage)
                        .with_runs(runs.into_iter().map(run).collect())
                        .with_rejected(rejected),
                );
            }
            Err(error) => {
                self.outbox.bad_record(error);
                self.halted = true;
            }
        }
    }

    /// Throws away what is open, and that it was ever reached: whatever is cut
    /// next would cover it without its rows.
    pub(crate) fn discard(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.track.go_back());
        let slots = &self.slots;
        for topic in &mut self.topics {
            topic.since = None;
            topic.rejected.clear();
            if topic.rows.len() > 0
                && let Err(error) = topic.rows.finish(|lane| slots[lane].partition.clone())
            {
                // The rows were to be thrown away anyhow.
                tracing::debug!(%error, "discarded rows were not whole");
            }
        }
    }
}
