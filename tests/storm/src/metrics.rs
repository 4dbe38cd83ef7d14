//! What a worker tells Prometheus.

use std::collections::BTreeMap;

/// Metrics in Prometheus' text format.
#[derive(Debug, Default)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The labels and values of one metric.
    pub(crate) fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            if !labels.is_empty() && !labels.starts_with('{') {
                return None;
            }
            Some((labels, value.parse().ok()?))
        })
    }

    /// A histogram with buckets.
    pub(crate) fn histogram(&self, name: &str) -> Buckets {
        let mut buckets = Buckets::default();
        for (labels, count) in self.samples(&format!("{name}_bucket")) {
            let bound = label(labels, "le").and_then(|bound| bound.parse::<f64>().ok());
            if let Some(bound) = bound {
                let bound = if bound.is_finite() { (bound * 1e6) as u64 } else { u64::MAX };
                *buckets.0.entry(bound).or_default() += count as u64;
            }
        }
        buckets
    }
}

/// The value of one label.
pub(crate) fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0)
}

/// Counts by upper bound in millionths; each includes those before it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Buckets(BTreeMap<u64, u64>);

impl Buckets {
    pub(crate) fn add(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            *self.0.entry(*bound).or_default() += count;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.values().next_back().copied().unwrap_or(0)
    }

    /// The value below which a share of all is, taken for evenly spread within
    /// a bucket.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.count() as f64 * share;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            let (bound, count) = (*bound as f64 / 1e6, *count as f64);
            if count >= wanted && count > below {
                return lower + (bound - lower) * (wanted - below) / (count - below);
            }
            (lower, below) = (bound, count);
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_told_apart_by_name_and_label() {
        let metrics = Metrics(
            "# HELP served_total x\nserved_total{topic=\"a\",partition=\"1\"} 5\n\
             served_total{topic=\"a\",partition=\"2\"} 7\nserved_total_ever 9\nup 1\n"
                .to_owned(),
        );
        let served: Vec<_> = metrics
            .samples("served_total")
            .map(|(labels, value)| (label(labels, "partition").unwrap(), value))
            .collect();
        assert_eq!(served, [("1", 5.0), ("2", 7.0)]);
        assert_eq!(metrics.samples("up").collect::<Vec<_>>(), [("", 1.0)]);
    }

    #[test]
    fn quantiles_are_taken_over_all_processes() {
        let text = |a: u64, b: u64, all: u64| {
            Metrics(format!(
                "t_bucket{{le=\"0.1\"}} {a}\nt_bucket{{le=\"5\"}} {b}\nt_bucket{{le=\"+Inf\"}} {all}\n"
            ))
        };
        let mut sum = text(50, 100, 100).histogram("t");
        sum.add(&text(50, 99, 100).histogram("t"));
        assert_eq!(sum.count(), 200);
        assert!((sum.quantile(0.25) - 0.05).abs() < 1e-9);
        assert!((sum.quantile(0.5) - 0.1).abs() < 1e-9);
        assert!(sum.quantile(0.99) < 5.0 && sum.quantile(1.0) > 1e6, "one took longer");
        assert!(Buckets::default().quantile(0.5).abs() < 1e-9);
    }
}
