//! Figures per partition, handed to the `metrics` facade once a second.

use std::time::{Duration, Instant};

use tidelock_connector::TopicPartition;

use crate::context::Consumer;
use crate::ffi;
use crate::outbox::Outbox;
use crate::slot::{Slot, Stats};

const INTERVAL: Duration = Duration::from_secs(1);

/// When the figures were last handed on.
#[derive(Debug, Default)]
pub(crate) struct Report {
    last: Option<Instant>,
}

const WAITING: &str = "tidelock_source_waiting_messages";
const BEHIND: &str = "tidelock_source_oldest_waiting_seconds";
const LAG: &str = "tidelock_source_lag";

impl Stats {
    fn count(&mut self, labels: &[(&'static str, String); 2]) {
        metrics::counter!("tidelock_source_records_total", labels)
            .increment(std::mem::take(&mut self.records));
        metrics::counter!("tidelock_source_bytes_total", labels)
            .increment(std::mem::take(&mut self.bytes));
        metrics::counter!("tidelock_source_pauses_total", labels)
            .increment(std::mem::take(&mut self.pauses));
    }

    /// A turn has ended with so much waiting, and `left` of it could have been
    /// served.
    pub(crate) fn see(&mut self, waiting: usize, left: bool, limit: usize) {
        self.waiting = waiting;
        if !left {
            self.behind_since = None;
        } else if self.behind_since.is_none() {
            self.behind_since = Some(Instant::now());
        }
        // Fetching stops at the limit and goes on below it; half is what keeps
        // the count from flickering.
        if waiting >= limit {
            self.pauses += u64::from(!self.full);
            self.full = true;
        } else if waiting < limit / 2 {
            self.full = false;
        }
    }
}

impl Report {
    /// Publishes, if it is time.
    pub(crate) fn publish(&mut self, consumer: &Consumer, slots: &mut [Slot], outbox: &Outbox) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return;
        }
        self.last = Some(now);
        metrics::gauge!("tidelock_source_assigned_partitions").set(slots.len() as f64);
        metrics::gauge!("tidelock_source_channel_bytes").set(outbox.held() as f64);
        for slot in slots {
            publish(consumer, slot, now);
        }
    }
}

impl Slot {
    /// Hands on the last figures of a partition that is no longer ours.
    pub(crate) fn retire(&mut self) {
        let labels = self.labels();
        self.stats.count(&labels);
        for gauge in [WAITING, BEHIND, LAG] {
            metrics::gauge!(gauge, &labels).set(0.0);
        }
    }

    fn labels(&self) -> [(&'static str, String); 2] {
        let TopicPartition { topic, partition } = &self.partition;
        [("topic", topic.to_string()), ("partition", partition.to_string())]
    }
}

fn publish(consumer: &Consumer, slot: &mut Slot, now: Instant) {
    let labels = slot.labels();
    let stats = &mut slot.stats;
    stats.count(&labels);
    metrics::gauge!(WAITING, &labels).set(stats.waiting as f64);
    let behind = stats.behind_since.map_or(Duration::ZERO, |since| now.duration_since(since));
    metrics::gauge!(BEHIND, &labels).set(behind.as_secs_f64());
    if let Some((_, high)) = ffi::cached_watermarks(consumer, &slot.name, slot.partition.partition)
    {
        let lag = high.saturating_sub(slot.track.position()).max(0);
        metrics::gauge!(LAG, &labels).set(lag as f64);
    }
}
