//! The verdict from the reader's side, when everything is quiet: list, read,
//! count.

use std::collections::BTreeMap;

use serde::Deserialize;
use tidelock::checkpoint::record::SetId;
use tidelock_file::FileFooter;

use crate::invariants::Invariant;
use crate::log::{self, tp};
use crate::watcher::{PIPELINE, SINKS, Violation};
use crate::world::State;

#[derive(Deserialize)]
struct Row {
    p: i32,
    o: i64,
}

impl State {
    /// Holds what a reader finds against the log.
    pub(crate) fn judge(&mut self) -> Result<(), Violation> {
        for sink in &SINKS[..self.plan.sinks] {
            self.every_row_once(sink)?;
            self.footers_tile(sink)?;
        }
        Ok(())
    }

    fn every_row_once(&mut self, sink: &str) -> Result<(), Violation> {
        let broken = |what: String| Violation::new(Invariant::R1, what);
        let mut found: BTreeMap<(i32, i64), u64> = BTreeMap::new();
        let reserved = format!("{sink}/_tidelock/");
        for (key, object) in self.objects.below(sink) {
            if key.starts_with(&reserved) {
                continue;
            }
            for line in object.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let row: Row = serde_json::from_slice(line)
                    .map_err(|error| broken(format!("{key} holds no rows: {error}")))?;
                *found.entry((row.p, row.o)).or_default() += 1;
            }
        }
        for partition in self.log.numbers() {
            let origin = self.watcher.record.partition(&tp(partition)).map(|state| state.origin);
            let Some(origin) = origin else {
                return Err(broken(format!("partition {partition} was never claimed")));
            };
            for offset in origin..self.log.end(partition) {
                let passes = !self.plan.filter || log::passes_filter(offset);
                let expected = u64::from(self.log.has_row(partition, offset) && passes);
                self.stats.expected += expected;
                let times = found.remove(&(partition, offset)).unwrap_or(0);
                if times != expected {
                    return Err(broken(format!(
                        "{partition}:{offset} is {times} times in {sink} and not {expected}"
                    )));
                }
            }
        }
        match found.first_key_value() {
            None => Ok(()),
            Some(((p, o), _)) => Err(broken(format!("{p}:{o} is in {sink}, and nobody wrote it"))),
        }
    }

    /// The footers alone prove the same, as `verify` does it.
    fn footers_tile(&self, sink: &str) -> Result<(), Violation> {
        let broken = |what: String| Violation::new(Invariant::I4, what);
        let mut ranges: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
        let folder = format!("{sink}/_tidelock/{PIPELINE}/footers");
        for (key, object) in self.objects.below(&folder) {
            let footer: FileFooter = serde_json::from_slice(&object.bytes)
                .map_err(|error| broken(format!("{key} is no footer: {error}")))?;
            if self.objects.get(&format!("{sink}/{}", footer.key)).is_none() {
                return Err(broken(format!("{key} stands beside nothing")));
            }
            let Some(set) = footer.set else { continue };
            for file in &set.files {
                if self.objects.get(&format!("{sink}/{}", file.key)).is_none() {
                    return Err(broken(format!("{} is missing from its set", file.key)));
                }
            }
            for (partition, covered) in set.coverage.iter() {
                let id = SetId {
                    sink: sink.to_owned(),
                    incarnation: footer.incarnation,
                    checkpoint: footer.checkpoint,
                };
                let number = partition.partition;
                let epoch = self.watcher.epochs.get(&(id, number)).copied();
                if epoch != Some(covered.epoch) {
                    let what =
                        format!("{key} tells epoch {}, and landed under {epoch:?}", covered.epoch);
                    return Err(Violation::new(Invariant::I5, what));
                }
                let covered = covered.offsets.ranges().iter().map(|range| (range.from, range.to));
                ranges.entry(number).or_default().extend(covered);
            }
        }
        for partition in self.log.numbers() {
            let Some(state) = self.watcher.record.partition(&tp(partition)) else { continue };
            let Some(cursor) = state.cursors.get(sink) else { continue };
            let mut at = state.origin;
            let mut ranges = ranges.remove(&partition).unwrap_or_default();
            ranges.sort_unstable();
            for (from, to) in ranges {
                if from != at {
                    let what = if from > at { "gap" } else { "overlap" };
                    return Err(broken(format!(
                        "{what} in partition {partition} at {at} and {from}"
                    )));
                }
                at = to;
            }
            if at != cursor.filed_to {
                return Err(broken(format!("partition {partition} ends at {at} in its files")));
            }
        }
        Ok(())
    }
}
