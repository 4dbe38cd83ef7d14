//! What is seen of each partition, handed on once a second: to the `metrics`
//! facade and to the source's [`Fairness`].
//!
//! # What it costs
//! Two additions per message, a handful of comparisons per turn, and no clock
//! beyond the one that is read for each drained queue.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge};
use tidelock_connector::TopicPartition;

use crate::context::Consumer;
use crate::fairness::{Fairness, Totals, jain};
use crate::ffi::{self, Queue};
use crate::outbox::Outbox;
use crate::slot::Slot;

const INTERVAL: Duration = Duration::from_secs(1);

/// How long after the last message more is expected any moment. Whoever sleeps
/// until a queue is full has it left out of the next fetch.
pub(crate) const LIVELY: Duration = Duration::from_millis(100);

/// A window of the fairness index has that many rounds at least: in fewer, the
/// size of one turn would say more than the order of turns.
const WINDOW_ROUNDS: u64 = 16;

/// What the reader does as a whole, by which waits are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Now, as of the last queue that was looked into.
    pub(crate) now: Instant,
    /// For how long nobody was served for want of room.
    pub(crate) blocked: Duration,
    /// Records served of all partitions.
    pub(crate) records: u64,
    /// Turns that were given.
    pub(crate) turns: u64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { now: Instant::now(), blocked: Duration::ZERO, records: 0, turns: 0 }
    }
}

/// What was seen of a partition since the last report, and what it takes to
/// see more.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stats {
    /// Since the last report.
    news: Totals,
    /// Records and bytes in all, for the mean size.
    records: u64,
    bytes: u64,
    /// Enough is waiting just now.
    full: bool,
    /// When its queue was last looked into.
    looked: Option<Pace>,
    /// When something was last found there.
    found: Option<Instant>,
    /// What has waited longest.
    oldest: Option<Oldest>,
    /// Thrown away already, though still in the queue.
    stale: usize,
    /// Something was left behind by every turn of this window, and by the last
    /// one before it.
    backlogged: bool,
    /// Bytes served in this window.
    window: u64,
    /// Bytes served between the last two reports.
    recent: u64,
}

/// The records up to number `upto` wait since then at the latest.
#[derive(Debug, Clone, Copy)]
struct Oldest {
    upto: u64,
    since: Instant,
}

/// What a turn has come to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Something was taken.
    pub(crate) any: bool,
    /// What is left in the queue.
    pub(crate) waiting: usize,
    /// It could have been served.
    pub(crate) left: bool,
}

impl Stats {
    /// A message was served.
    #[inline]
    pub(crate) fn serve(&mut self, bytes: u64) {
        self.news.records += 1;
        self.news.bytes += bytes;
    }

    /// A turn begins at `pace` that finds something, or not.
    pub(crate) fn look(&mut self, pace: &Pace, found: bool, poll_interval: Duration) {
        let last = self.looked.replace(*pace);
        if !found {
            return;
        }
        self.found = Some(pace.now);
        let Some(last) = last else { return };
        let blocked = pace.blocked.saturating_sub(last.blocked);
        let wait = pace.now.saturating_duration_since(last.now).saturating_sub(blocked);
        self.news.longest_wait = self.news.longest_wait.max(wait);
        self.news.overtaken = self.news.overtaken.max(pace.records - last.records);
        if wait > poll_interval * 2 {
            self.news.starved += wait - poll_interval;
        }
    }

    /// Whether nothing was there for a while, and it was looked at within
    /// `lull`.
    pub(crate) fn is_quiet(&self, pace: &Pace, lull: Duration) -> bool {
        let within = |at: Instant, time| pace.now.saturating_duration_since(at) < time;
        self.looked.is_some_and(|looked| within(looked.now, lull))
            && !self.found.is_some_and(|found| within(found, LIVELY))
    }

    /// A turn has ended; `limit` messages are what may wait.
    pub(crate) fn see(&mut self, seen: Seen, pace: &Pace, limit: usize) {
        if let Some(looked) = &mut self.looked {
            // Its own turn is nothing that it had to wait for.
            looked.now = pace.now;
            looked.records = pace.records;
        }
        self.stale *= usize::from(!seen.any);
        self.backlogged &= seen.left;
        self.news.waiting = seen.waiting as u64;
        let served = self.records + self.news.records;
        if !seen.left {
            self.oldest = None;
        } else if self.oldest.is_none_or(|oldest| oldest.upto <= served) {
            self.oldest = Some(Oldest { upto: served + self.news.waiting, since: pace.now });
        }
        // Fetching stops at the limit and goes on below it; half is what keeps
        // the count from flickering.
        if seen.waiting >= limit {
            self.news.pauses += u64::from(!self.full);
            self.full = true;
        } else if seen.waiting < limit / 2 {
            self.full = false;
        }
    }

    /// What is in the queue is thrown away and will be fetched again.
    pub(crate) fn throw_away(&mut self, waiting: usize) {
        let messages = waiting.saturating_sub(self.stale) as u64;
        self.stale = waiting;
        self.refetch(messages);
    }

    /// So many messages that were served are fetched again.
    pub(crate) fn refetch(&mut self, messages: u64) {
        let records = self.records + self.news.records;
        let bytes = self.bytes + self.news.bytes;
        let mean = bytes.checked_div(records).unwrap_or(0);
        self.news.refetched += mean.saturating_mul(messages);
    }

    /// It is not looked at for a while: the time until then is no wait.
    pub(crate) fn rest(&mut self) {
        self.looked = None;
        self.oldest = None;
        self.backlogged = false;
        self.news.waiting = 0;
    }

    /// So much is waiting now, which a turn may not have seen yet.
    fn recount(&mut self, waiting: usize, now: Instant) {
        self.news.waiting = waiting as u64;
        if waiting > 0 && self.oldest.is_none() {
            let served = self.records + self.news.records;
            self.oldest = Some(Oldest { upto: served + self.news.waiting, since: now });
        }
    }

    /// Another client fetches it from now on.
    pub(crate) fn change_client(&mut self) {
        self.news.moves += 1;
        self.stale = 0;
    }

    /// Bytes served between the last two reports, which is about a second.
    pub(crate) fn recent(&self) -> u64 {
        self.recent
    }

    /// What has come since the last call.
    fn take(&mut self, now: Instant) -> Totals {
        let since = self.oldest.map(|oldest| oldest.since);
        let oldest_waiting = since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let news = Totals { oldest_waiting, ..self.news };
        self.news = Totals { waiting: news.waiting, ..Totals::default() };
        self.records += news.records;
        self.bytes += news.bytes;
        self.window += news.bytes;
        self.recent = news.bytes;
        news
    }

    /// Begins a window, and returns what was served in the one before it if
    /// data was waiting all the time.
    fn turn_window(&mut self) -> Option<u64> {
        let bytes = std::mem::take(&mut self.window);
        let backlogged = std::mem::replace(&mut self.backlogged, self.oldest.is_some());
        backlogged.then_some(bytes)
    }
}

/// A partition's metrics, looked up once.
pub(crate) struct Meters {
    records: Counter,
    bytes: Counter,
    pauses: Counter,
    starved: Counter,
    refetched: Counter,
    moves: Counter,
    waiting: Gauge,
    oldest: Gauge,
    longest: Gauge,
    share: Gauge,
    lag: Gauge,
}

impl Meters {
    pub(crate) fn new(partition: &TopicPartition) -> Self {
        let TopicPartition { topic, partition } = partition;
        let labels = [("topic", topic.to_string()), ("partition", partition.to_string())];
        Self {
            records: metrics::counter!("tidelock_source_records_total", &labels),
            bytes: metrics::counter!("tidelock_source_bytes_total", &labels),
            pauses: metrics::counter!("tidelock_source_pauses_total", &labels),
            starved: metrics::counter!("tidelock_source_starved_milliseconds_total", &labels),
            refetched: metrics::counter!("tidelock_source_refetched_bytes_total", &labels),
            moves: metrics::counter!("tidelock_source_moves_total", &labels),
            waiting: metrics::gauge!("tidelock_source_waiting_messages", &labels),
            oldest: metrics::gauge!("tidelock_source_oldest_waiting_seconds", &labels),
            longest: metrics::gauge!("tidelock_source_longest_wait_seconds", &labels),
            share: metrics::gauge!("tidelock_source_share", &labels),
            lag: metrics::gauge!("tidelock_source_lag", &labels),
        }
    }

    fn publish(&self, news: &Totals, share: f64) {
        self.records.increment(news.records);
        self.bytes.increment(news.bytes);
        self.pauses.increment(news.pauses);
        self.starved.increment(news.starved.as_millis() as u64);
        self.refetched.increment(news.refetched);
        self.moves.increment(news.moves);
        self.waiting.set(news.waiting as f64);
        self.oldest.set(news.oldest_waiting.as_secs_f64());
        self.longest.set(news.longest_wait.as_secs_f64());
        self.share.set(share);
    }
}

/// When the figures were last handed on.
pub(crate) struct Report {
    fairness: Fairness,
    worker: String,
    last: Option<Instant>,
    /// When the window of the index began, and with which turn.
    window: Option<(Instant, u64)>,
}

impl Report {
    /// Hands on to `fairness`, on behalf of this worker.
    pub(crate) fn new(fairness: Fairness, worker: usize) -> Self {
        Self { fairness, worker: worker.to_string(), last: None, window: None }
    }

    /// Publishes, if it is time; whether it was.
    pub(crate) fn publish<'a>(
        &mut self,
        client: impl Fn(&Slot) -> Option<&'a Consumer>,
        slots: &mut [Slot],
        outbox: &Outbox,
        pace: &Pace,
    ) -> bool {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return false;
        }
        self.last = Some(now);
        metrics::gauge!("tidelock_source_assigned_partitions").set(slots.len() as f64);
        metrics::gauge!("tidelock_source_channel_bytes").set(outbox.held() as f64);
        let news: Vec<Totals> = slots.iter_mut().map(|slot| news(slot, now)).collect();
        let all: u64 = news.iter().map(|news| news.bytes).sum();
        for (slot, news) in slots.iter().zip(&news) {
            slot.meters.publish(news, news.bytes as f64 / all.max(1) as f64);
            self.fairness.add(&slot.partition, news);
            if let Some(lag) = client(slot).and_then(|client| lag(client, &slot.name, slot)) {
                slot.meters.lag.set(lag as f64);
            }
        }
        self.turn_window(slots, now, pace.turns);
        true
    }

    /// Measures the fairness of a window that is over.
    fn turn_window(&mut self, slots: &mut [Slot], now: Instant, turns: u64) {
        let enough = WINDOW_ROUNDS * slots.len() as u64;
        let over = |(began, turn): (Instant, u64)| {
            now.duration_since(began) >= INTERVAL && turns - turn >= enough
        };
        if self.window.is_some_and(|window| !over(window)) {
            return;
        }
        let first = self.window.replace((now, turns)).is_none();
        let per_weight = slots.iter_mut().filter_map(|slot| {
            let weight = f64::from(slot.weight);
            slot.stats.turn_window().map(|bytes| bytes as f64 / weight)
        });
        let index = jain(per_weight);
        if first {
            return;
        }
        if let Some(index) = index {
            self.fairness.window(index);
        }
        metrics::gauge!("tidelock_source_fairness_index", "worker" => self.worker.clone())
            .set(index.unwrap_or(1.0));
    }

    /// Hands on the last figures of a partition that is no longer ours.
    pub(crate) fn retire(&self, slot: &mut Slot) {
        slot.stats.rest();
        let news = slot.stats.take(Instant::now());
        self.fairness.add(&slot.partition, &news);
        slot.meters.publish(&Totals { longest_wait: Duration::ZERO, ..news }, 0.0);
        slot.meters.lag.set(0.0);
    }
}

fn news(slot: &mut Slot, now: Instant) -> Totals {
    if slot.is_served() {
        let waiting = slot.queue.as_ref().map_or(0, Queue::len);
        slot.stats.recount(waiting, now);
    }
    slot.stats.take(now)
}

/// Messages between the position and the end, as far as fetching has seen it.
fn lag(consumer: &Consumer, topic: &CStr, slot: &Slot) -> Option<i64> {
    let (_, high) = ffi::cached_watermarks(consumer, topic, slot.partition.partition)?;
    Some(high.saturating_sub(slot.track.position()).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_millis(50);

    fn later(pace: &Pace, millis: u64, records: u64) -> Pace {
        Pace { now: pace.now + Duration::from_millis(millis), records, ..*pace }
    }

    /// A turn that takes `taken` records and leaves `waiting`.
    fn turn(stats: &mut Stats, pace: &mut Pace, taken: u64, waiting: usize) {
        stats.look(pace, taken > 0, POLL);
        (0..taken).for_each(|_| stats.serve(10));
        pace.records += taken;
        let seen = Seen { any: taken > 0, waiting, left: waiting > 0 };
        stats.see(seen, pace, 100);
    }

    #[test]
    fn a_wait_is_the_time_between_turns_and_what_others_got_in_it() {
        let (mut stats, begin) = (Stats::default(), Pace::new());
        turn(&mut stats, &mut begin.clone(), 0, 0);
        turn(&mut stats, &mut later(&begin, 40, 700), 2, 0);
        assert_eq!(stats.news.longest_wait, Duration::from_millis(40));
        assert_eq!((stats.news.overtaken, stats.news.starved), (700, Duration::ZERO));
        // The next one begins behind its own turn, and is too long.
        turn(&mut stats, &mut later(&begin, 190, 1_000), 2, 0);
        assert_eq!(stats.news.longest_wait, Duration::from_millis(150));
        assert_eq!((stats.news.overtaken, stats.news.starved.as_millis()), (700, 100));
        // Nobody was served meanwhile: that is no starvation.
        let mut blocked = later(&begin, 1_190, 1_002);
        blocked.blocked = Duration::from_secs(1);
        turn(&mut stats, &mut blocked, 2, 0);
        assert_eq!(stats.news.starved.as_millis(), 100);
        // Nor is waiting for data to come.
        turn(&mut stats, &mut later(&blocked, 9_000, 1_004), 0, 0);
        assert_eq!(stats.news.longest_wait, Duration::from_millis(150));
    }

    #[test]
    fn a_quiet_partition_is_left_alone_for_a_lull_and_no_longer() {
        let (mut stats, begin) = (Stats::default(), Pace::new());
        let lull = Duration::from_millis(25);
        assert!(!stats.is_quiet(&begin, lull), "nobody has looked yet");
        turn(&mut stats, &mut begin.clone(), 1, 0);
        assert!(!stats.is_quiet(&later(&begin, 10, 1), lull), "more may come");
        turn(&mut stats, &mut later(&begin, 120, 1), 0, 0);
        assert!(stats.is_quiet(&later(&begin, 130, 1), lull));
        assert!(!stats.is_quiet(&later(&begin, 145, 1), lull));
    }

    #[test]
    fn the_oldest_waits_until_all_that_waited_with_it_was_served() {
        let (mut stats, begin) = (Stats::default(), Pace::new());
        turn(&mut stats, &mut begin.clone(), 5, 10);
        let at = |millis: u64| begin.now + Duration::from_millis(millis);
        assert_eq!(stats.take(at(30)).oldest_waiting, Duration::from_millis(30));
        turn(&mut stats, &mut later(&begin, 40, 50), 9, 8);
        assert_eq!(stats.take(at(50)).oldest_waiting, Duration::from_millis(50));
        turn(&mut stats, &mut later(&begin, 60, 60), 1, 8);
        assert_eq!(stats.take(at(70)).oldest_waiting, Duration::from_millis(10));
        turn(&mut stats, &mut later(&begin, 80, 70), 8, 0);
        assert_eq!(stats.take(at(90)).oldest_waiting, Duration::ZERO);
    }

    #[test]
    fn only_what_waited_all_the_time_is_compared() {
        let (mut stats, mut pace) = (Stats::default(), Pace::new());
        turn(&mut stats, &mut pace, 5, 10);
        stats.take(pace.now);
        assert_eq!(stats.turn_window(), None, "nothing was known of the time before");
        turn(&mut stats, &mut pace, 5, 5);
        stats.take(pace.now);
        assert_eq!(stats.turn_window(), Some(50));
        turn(&mut stats, &mut pace, 5, 0);
        turn(&mut stats, &mut pace, 5, 5);
        stats.take(pace.now);
        assert_eq!(stats.turn_window(), None);
    }

    #[test]
    fn pauses_and_what_is_fetched_twice_are_counted_once() {
        let (mut stats, mut pace) = (Stats::default(), Pace::new());
        for waiting in [100, 120, 80, 100, 40, 100] {
            turn(&mut stats, &mut pace, 1, waiting);
        }
        assert_eq!(stats.news.pauses, 2);
        stats.throw_away(100);
        stats.throw_away(100);
        assert_eq!(stats.news.refetched, 1_000);
        turn(&mut stats, &mut pace, 1, 0);
        stats.throw_away(7);
        assert_eq!(stats.news.refetched, 1_070);
    }
}
