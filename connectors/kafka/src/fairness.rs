//! How fairly the partitions of a source are served, as figures.
//!
//! Every reader of a source adds its own once a second and when it ends; what
//! is here outlives the readers, so that a closing report can be made of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tidelock_connector::TopicPartition;

/// The figures of a source, to be looked at while it is read and afterwards;
/// see [`KafkaSource::fairness`](crate::KafkaSource::fairness).
#[derive(Debug, Clone, Default)]
pub struct Fairness(Arc<Mutex<Ledger>>);

#[derive(Debug, Default)]
struct Ledger {
    partitions: BTreeMap<TopicPartition, Totals>,
    windows: u32,
    index_sum: f64,
    last: Option<f64>,
    lowest: Option<f64>,
}

/// What one partition has come to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) waiting: u64,
    pub(crate) oldest_waiting: Duration,
    pub(crate) longest_wait: Duration,
    pub(crate) overtaken: u64,
    pub(crate) starved: Duration,
    pub(crate) pauses: u64,
    pub(crate) refetched: u64,
    pub(crate) moves: u64,
}

/// How fairly a source was served so far.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct FairnessReport {
    /// Jain's index of the bytes per weight that partitions with waiting data
    /// were served: 1 when all got the same, 1/n when one of n got everything.
    /// The mean over windows of a second or more; none while no two partitions
    /// had data waiting through one window.
    pub index: Option<f64>,
    /// The index of the latest window.
    pub latest_index: Option<f64>,
    /// The lowest index of any window.
    pub lowest_index: Option<f64>,
    /// Every partition that was ever read, in order.
    pub partitions: Vec<PartitionFairness>,
}

/// How one partition was served so far.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PartitionFairness {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// Records served.
    pub records: u64,
    /// Bytes of keys and values served.
    pub bytes: u64,
    /// Its share of all bytes served, from 0 to 1.
    pub share: f64,
    /// Messages that were fetched and wait for their turn.
    pub waiting: u64,
    /// For how long the oldest of them has waited, at least.
    #[serde(rename = "oldest_waiting_seconds", serialize_with = "seconds")]
    pub oldest_waiting: Duration,
    /// The longest that it had to wait from one turn to the next with data
    /// there. Time in which nobody was served, because the sinks were slower,
    /// does not count. Looking for data in vain every `poll_interval` does.
    #[serde(rename = "longest_wait_seconds", serialize_with = "seconds")]
    pub longest_wait: Duration,
    /// The most records that others were served meanwhile; one round of the
    /// scheduler is the most that this can be.
    pub overtaken: u64,
    /// The sum of all such waits as far as they went beyond `poll_interval`;
    /// those of less than twice of it do not count.
    #[serde(rename = "starved_seconds", serialize_with = "seconds")]
    pub starved: Duration,
    /// How often fetching stopped because enough was waiting.
    pub pauses: u64,
    /// Bytes that were fetched, thrown away and fetched again, because of a
    /// seek or a rebalance; estimated from the mean size of its messages.
    pub refetched_bytes: u64,
    /// How often it moved from one of the reader's clients to the other: where
    /// there are many partitions, the busiest are fetched apart.
    pub moves: u64,
}

fn seconds<S: Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(duration.as_secs_f64())
}

impl Fairness {
    /// The figures as of a second ago; of a reader that has ended, all.
    pub fn report(&self) -> FairnessReport {
        let ledger = self.ledger();
        let all: u64 = ledger.partitions.values().map(|one| one.bytes).sum();
        let partitions = ledger.partitions.iter().map(|(partition, totals)| PartitionFairness {
            topic: Arc::clone(&partition.topic),
            partition: partition.partition,
            records: totals.records,
            bytes: totals.bytes,
            share: if all == 0 { 0.0 } else { totals.bytes as f64 / all as f64 },
            waiting: totals.waiting,
            oldest_waiting: totals.oldest_waiting,
            longest_wait: totals.longest_wait,
            overtaken: totals.overtaken,
            starved: totals.starved,
            pauses: totals.pauses,
            refetched_bytes: totals.refetched,
            moves: totals.moves,
        });
        FairnessReport {
            index: (ledger.windows > 0).then(|| ledger.index_sum / f64::from(ledger.windows)),
            latest_index: ledger.last,
            lowest_index: ledger.lowest,
            partitions: partitions.collect(),
        }
    }

    /// Adds what has come since the last call; `waiting` and `oldest_waiting`
    /// are what they are now.
    pub(crate) fn add(&self, partition: &TopicPartition, news: &Totals) {
        let mut ledger = self.ledger();
        let totals = match ledger.partitions.get_mut(partition) {
            Some(totals) => totals,
            None => ledger.partitions.entry(partition.clone()).or_default(),
        };
        totals.records += news.records;
        totals.bytes += news.bytes;
        totals.waiting = news.waiting;
        totals.oldest_waiting = news.oldest_waiting;
        totals.longest_wait = totals.longest_wait.max(news.longest_wait);
        totals.overtaken = totals.overtaken.max(news.overtaken);
        totals.starved += news.starved;
        totals.pauses += news.pauses;
        totals.refetched += news.refetched;
        totals.moves += news.moves;
    }

    /// Takes note of a window in which several partitions had data waiting.
    pub(crate) fn window(&self, index: f64) {
        let mut ledger = self.ledger();
        ledger.windows = ledger.windows.saturating_add(1);
        ledger.index_sum += index;
        ledger.last = Some(index);
        ledger.lowest = Some(ledger.lowest.map_or(index, |lowest| lowest.min(index)));
    }

    /// A panic elsewhere leaves figures that are still whole.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Jain's index: (Σx)² / (n × Σx²). None of fewer than two, for whom there is
/// nothing to share; 1 where nobody got anything.
pub(crate) fn jain(shares: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut count, mut sum, mut squares) = (0_u32, 0.0, 0.0);
    for share in shares {
        count += 1;
        sum += share;
        squares += share * share;
    }
    match count {
        0 | 1 => None,
        _ if squares == 0.0 => Some(1.0),
        _ => Some(sum * sum / (f64::from(count) * squares)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jain_tells_equal_shares_from_one_that_takes_all() {
        assert_eq!(jain([3.0, 3.0, 3.0].into_iter()), Some(1.0));
        assert_eq!(jain([9.0, 0.0, 0.0].into_iter()), Some(1.0 / 3.0));
        assert_eq!(jain([0.0, 0.0].into_iter()), Some(1.0));
        assert_eq!(jain([5.0].into_iter()), None);
    }

    #[test]
    fn readers_add_up_and_the_worst_is_kept() {
        let fairness = Fairness::default();
        let (busy, quiet) = (TopicPartition::new("busy", 0), TopicPartition::new("quiet", 3));
        let wait = Duration::from_millis;
        let news = Totals { records: 9, bytes: 90, longest_wait: wait(7), ..Totals::default() };
        fairness.add(&busy, &news);
        fairness.add(&busy, &Totals { longest_wait: wait(3), overtaken: 4, ..news });
        fairness.add(&quiet, &Totals { records: 1, bytes: 20, waiting: 5, ..Totals::default() });
        assert_eq!(fairness.report().index, None);
        fairness.window(1.0);
        fairness.window(0.5);
        let report = fairness.report();
        assert_eq!((report.index, report.lowest_index), (Some(0.75), Some(0.5)));
        let [busy, quiet] = &report.partitions[..] else { panic!("{report:?}") };
        assert_eq!((busy.records, busy.longest_wait, busy.overtaken), (18, wait(7), 4));
        assert_eq!((busy.share, quiet.share, quiet.waiting), (0.9, 0.1, 5));
    }
}
