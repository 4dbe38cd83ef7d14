//! What a run looks like while it goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelock_connector::TopicPartition;
use tokio::task::JoinHandle;

use super::fair::{Now, Watch};
use super::screen::SCREEN;
use super::{figures, words};
use crate::progress::{Progress, Report};

/// Often enough to look alive, seldom enough to be read.
const REDRAW: Duration = Duration::from_millis(250);
/// Between two lines of the log, where nobody is looking.
const LOG: Duration = Duration::from_secs(10);
/// Between two looks at what others hold, where nobody is looking.
const LOOK: Duration = Duration::from_secs(1);
/// From then on the line says that messages wait.
const LONG_WAIT: Duration = Duration::from_secs(1);
/// What "per second" refers to.
const WINDOW: Duration = Duration::from_secs(3);

/// Shows a run's progress for as long as it lives.
pub(super) struct Live(JoinHandle<()>);

impl Live {
    /// Begins to show.
    pub(super) fn start(name: &str, progress: Arc<Progress>, fair: Watch, bounded: bool) -> Self {
        let name = name.to_owned();
        Self(tokio::spawn(async move {
            if SCREEN.is_terminal() {
                redraw(&name, &progress, &fair, bounded).await;
            } else {
                tokio::join!(log(&progress, &fair), log_waiting(&progress));
            }
        }))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.abort();
        SCREEN.clear();
    }
}

async fn redraw(name: &str, progress: &Progress, fair: &Watch, bounded: bool) {
    let mut ticks = tokio::time::interval(REDRAW);
    let mut speed = Speed::default();
    loop {
        ticks.tick().await;
        let report = progress.report();
        let rate = speed.see(report.records);
        let seen = Seen {
            rate,
            lag: figures::lag(),
            open: figures::open_files(),
            fair: fair.now(),
            held: progress.held_by_others(),
            bounded,
        };
        SCREEN.live(&line(name, &report, &seen));
    }
}

async fn log(progress: &Progress, fair: &Watch) {
    let mut ticks = tokio::time::interval(LOG);
    ticks.tick().await;
    let mut before = 0;
    loop {
        ticks.tick().await;
        let report = progress.report();
        let rate = words::rate(report.records - before, LOG);
        before = report.records;
        let files: u64 = report.sinks.values().map(|sink| sink.files).sum();
        let Now { index, oldest } = fair.now();
        tracing::info!(
            records = report.records,
            records_per_second = rate,
            lag = figures::lag(),
            fairness = index,
            oldest_waiting_seconds = oldest.map(|(_, waiting)| waiting.as_secs_f64()),
            files,
            checkpoints = report.checkpoints,
            restarts = report.restarts,
            "progress"
        );
    }
}

/// At once, and again as often as the rest.
async fn log_waiting(progress: &Progress) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut told: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let held = progress.held_by_others();
        if held.is_empty() {
            told = None;
        } else if told.is_none_or(|at| at.elapsed() >= LOG) {
            told = Some(Instant::now());
            tracing::info!(partitions = held.len(), "{}", waiting(&held));
        }
    }
}

/// `waiting for 2 partitions that others hold: events/1, events/3`.
fn waiting(held: &[TopicPartition]) -> String {
    let many = words::counted(held.len() as u64, "partition");
    let mut names: Vec<String> = held.iter().take(3).map(ToString::to_string).collect();
    if held.len() > names.len() {
        names.push("…".to_owned());
    }
    format!("waiting for {many} that others hold: {}", names.join(", "))
}

/// The records of the last seconds.
#[derive(Default)]
struct Speed(std::collections::VecDeque<(Instant, u64)>);

impl Speed {
    fn see(&mut self, records: u64) -> u64 {
        let now = Instant::now();
        self.0.push_back((now, records));
        while self.0.len() > 2 && now.duration_since(self.0[1].0) >= WINDOW {
            self.0.pop_front();
        }
        let (then, before) = self.0[0];
        words::rate(records.saturating_sub(before), now.duration_since(then))
    }
}

/// What is known beside the report.
#[derive(Default)]
struct Seen {
    rate: u64,
    lag: Option<u64>,
    open: Option<u64>,
    fair: Now,
    held: Vec<TopicPartition>,
    bounded: bool,
}

fn line(name: &str, report: &Report, seen: &Seen) -> String {
    let Seen { rate, lag, open, ref fair, ref held, bounded } = *seen;
    let (bold, off) = SCREEN.colours("1");
    let (dim, _) = SCREEN.colours("2");
    let files: u64 = report.sinks.values().map(|sink| sink.files).sum();
    // What is cut off on the right is not what matters.
    let speed = match held.as_slice() {
        [] => format!("{}/s", words::count(rate)),
        held => waiting(held),
    };
    let mut parts = vec![format!("{bold}{speed}{off}"), words::counted(report.records, "record")];
    if let Some(lag) = lag {
        parts.push(format!("{} behind", words::count(lag)));
        if bounded && rate > 0 && lag > 0 {
            parts.push(format!("{} to go", words::age(Duration::from_secs(lag / rate + 1))));
        }
    }
    parts.push(match open {
        Some(open) if open > 0 => format!("{} + {open} open", words::counted(files, "file")),
        _ => words::counted(files, "file"),
    });
    parts.push(match report.since_checkpoint {
        Some(since) => format!("checkpoint {} ago", words::age(since)),
        None => "no checkpoint yet".to_owned(),
    });
    if let Some(index) = fair.index {
        parts.push(format!("fairness {index:.2}"));
    }
    if let Some((partition, waiting)) = &fair.oldest
        && *waiting >= LONG_WAIT
    {
        parts.push(format!("{partition} waits {}", words::age(*waiting)));
    }
    if report.restarts > 0 {
        let (yellow, _) = SCREEN.colours("33");
        parts.push(format!("{yellow}{}{off}", words::counted(report.restarts, "restart")));
    }
    format!("{dim}{name}{off}  {}", parts.join(&format!(" {dim}·{off} ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::SinkProgress;

    #[test]
    fn the_line_says_what_is_known() {
        let mut report = Progress::new().report();
        assert_eq!(
            line("p", &report, &Seen { bounded: true, ..Seen::default() }),
            "p  0/s · 0 records · 0 files · no checkpoint yet"
        );
        report.records = 1_200_000;
        report.restarts = 1;
        report.since_checkpoint = Some(Duration::from_secs(4));
        report.sinks.insert("s".to_owned(), SinkProgress { files: 42, rows: 1, bytes: 1 });
        let mut seen = Seen {
            rate: 150_000,
            lag: Some(900_000),
            open: Some(3),
            bounded: true,
            ..Seen::default()
        };
        assert_eq!(
            line("p", &report, &seen),
            "p  150,000/s · 1,200,000 records · 900,000 behind · 7 s to go · 42 files + 3 open \
             · checkpoint 4 s ago · 1 restart"
        );
        seen.bounded = false;
        assert!(!line("p", &report, &seen).contains("to go"));
        let waiting = Some(("orders/3".to_owned(), Duration::from_millis(2_300)));
        seen.fair = Now { index: Some(0.987), oldest: waiting };
        let shown = line("p", &report, &seen);
        assert!(shown.contains("fairness 0.99 · orders/3 waits 2 s"), "{shown}");
        seen.fair.oldest = Some(("orders/3".to_owned(), Duration::from_millis(300)));
        assert!(!line("p", &report, &seen).contains("waits"));
    }

    #[test]
    fn a_run_that_waits_for_others_says_so_first() {
        let held: Vec<_> = (1..6).map(|number| TopicPartition::new("events", number)).collect();
        assert_eq!(waiting(&held[..1]), "waiting for 1 partition that others hold: events/1");
        let report = Progress::new().report();
        let shown = line("p", &report, &Seen { held, bounded: true, ..Seen::default() });
        let begin =
            "p  waiting for 5 partitions that others hold: events/1, events/2, events/3, … · ";
        assert!(shown.starts_with(begin), "{shown}");
    }
}
