//! Many runs on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tidelock_simulator::{Mutation, Outcome, Plan, Stats, run};

/// Runs every plan, on as many threads as there are cores, and returns the
/// outcomes that `keep` wants, and what happened in all of them.
pub(crate) fn run_all(
    plans: &[Plan],
    bug: Option<Mutation>,
    keep: impl Fn(&Outcome) -> bool + Sync,
) -> (Vec<Outcome>, Stats) {
    let next = AtomicUsize::new(0);
    let kept = Mutex::new((Vec::new(), Stats::default()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(plan.clone(), bug, false);
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.1 += &outcome.stats;
                    if keep(&outcome) {
                        kept.0.push(outcome);
                    }
                }
            });
        }
    });
    kept.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Says how to see it again, with its last steps.
pub(crate) fn explain(plan: &Plan) -> String {
    let outcome = run(plan.clone(), None, true);
    let last = outcome.trace.len().saturating_sub(60);
    let violation = outcome.violation.map(|violation| violation.to_string());
    format!(
        "seed {}: {}\n{}\nreplay: cargo run -p tidelock-simulator -- --seed {}",
        outcome.seed,
        violation.unwrap_or_else(|| "passes when run alone".to_owned()),
        outcome.trace[last..].join("\n"),
        outcome.seed
    )
}

/// The first few of many failures.
pub(crate) fn failures(failed: &[Outcome]) -> String {
    let shown = failed.iter().take(5).map(|outcome| {
        let violation = outcome.violation.as_ref().map(ToString::to_string);
        format!("{:?}: {}", outcome.plan.strikes, violation.unwrap_or_default())
    });
    format!("{} of many failed, such as\n{}", failed.len(), shown.collect::<Vec<_>>().join("\n"))
}
