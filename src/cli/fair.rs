//! How fairly a source is served, for the live view and the closing report.

#[cfg(feature = "kafka")]
pub(super) use kafka::Watch;

/// What there is to say where no source tells.
#[cfg(not(feature = "kafka"))]
#[derive(Clone)]
pub(super) struct Watch;

#[cfg(not(feature = "kafka"))]
impl Watch {
    pub(super) fn of(_: &crate::config::SourceConfig) -> Self {
        Self
    }

    pub(super) fn now(&self) -> Now {
        Now::default()
    }

    pub(super) fn json(&self) -> Option<serde_json::Value> {
        None
    }

    pub(super) fn rows(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// What fits on a line.
#[derive(Debug, Clone, Default)]
pub(super) struct Now {
    /// The fairness index of the last seconds.
    pub(super) index: Option<f64>,
    /// The partition whose fetched messages wait longest, and how long.
    pub(super) oldest: Option<(String, std::time::Duration)>,
}

#[cfg(feature = "kafka")]
mod kafka {
    use std::time::Duration;

    use tidelock_kafka::{Fairness, FairnessReport, PartitionFairness};

    use super::super::words;
    use super::Now;
    use crate::config::SourceConfig;

    /// So many partitions get a line of their own.
    const LINES: usize = 16;

    /// A source's figures.
    #[derive(Clone)]
    pub(in super::super) struct Watch(Fairness);

    impl Watch {
        pub(in super::super) fn of(source: &SourceConfig) -> Self {
            Self(source.fairness.clone())
        }

        pub(in super::super) fn now(&self) -> Now {
            let report = self.0.report();
            let oldest = report.partitions.iter().max_by_key(|one| one.oldest_waiting);
            Now {
                index: report.latest_index,
                oldest: oldest
                    .filter(|one| !one.oldest_waiting.is_zero())
                    .map(|one| (name(one), one.oldest_waiting)),
            }
        }

        /// For the closing report.
        pub(in super::super) fn json(&self) -> Option<serde_json::Value> {
            let report = self.0.report();
            if report.partitions.is_empty() {
                return None;
            }
            serde_json::to_value(report).ok()
        }

        /// Lines of the closing report.
        pub(in super::super) fn rows(&self) -> Vec<(String, String)> {
            rows(self.0.report())
        }
    }

    fn name(one: &PartitionFairness) -> String {
        format!("{}/{}", one.topic, one.partition)
    }

    fn rows(mut report: FairnessReport) -> Vec<(String, String)> {
        if report.partitions.is_empty() {
            return Vec::new();
        }
        let index = match report.index.zip(report.lowest_index) {
            Some((index, lowest)) => format!("{index:.3}, {lowest:.3} at its lowest"),
            None => "no two partitions had data waiting for a whole second".to_owned(),
        };
        let mut rows = vec![("fairness".to_owned(), index)];
        let all = report.partitions.len();
        if all > LINES {
            // Those that somebody may be looking for.
            report.partitions.sort_by_key(|one| std::cmp::Reverse(one.longest_wait));
            report.partitions.truncate(LINES);
        }
        rows.extend(report.partitions.iter().map(|one| (name(one), line(one))));
        if all > LINES {
            let others = format!("{} that waited less", words::count((all - LINES) as u64));
            rows.push(("and others".to_owned(), others));
        }
        rows
    }

    fn line(one: &PartitionFairness) -> String {
        let mut parts = vec![
            format!("{} records", words::count(one.records)),
            format!("{} ({:.1} %)", words::bytes(one.bytes), one.share * 100.0),
            format!("waited {} at most", words::duration(one.longest_wait)),
        ];
        if one.starved > Duration::ZERO {
            parts.push(format!("starved {}", words::duration(one.starved)));
        }
        if one.pauses > 0 {
            parts.push(words::counted(one.pauses, "pause"));
        }
        if one.refetched_bytes > 0 {
            parts.push(format!("{} fetched twice", words::bytes(one.refetched_bytes)));
        }
        parts.join(", ")
    }
}
