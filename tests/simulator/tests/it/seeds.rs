//! The ordinary run: thousands of seeds, each another story.

use tidelock_simulator::Plan;

use crate::support::{explain, run_all};

/// How many seeds; `SEEDS` changes it, and `SEED` runs a single one.
fn plans() -> Vec<Plan> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => vec![Plan::of(seed)],
        None => (0..number("SEEDS").unwrap_or(5_000)).map(Plan::of).collect(),
    }
}

#[test]
fn every_invariant_holds_for_every_seed() {
    let plans = plans();
    let (failed, stats) = run_all(&plans, None, |outcome| outcome.violation.is_some());
    for (name, count) in stats.table() {
        println!("{name:>32}  {count}");
    }
    if let Some(first) = failed.iter().min_by_key(|outcome| outcome.seed) {
        let seeds: Vec<_> = failed.iter().map(|outcome| outcome.seed).collect();
        panic!("{} seeds failed: {seeds:?}\n{}", failed.len(), explain(&Plan::of(first.seed)));
    }
    if plans.len() < 1_000 {
        return;
    }
    // Where nothing happens nothing is proven.
    for (name, count) in stats.table() {
        let least = plans.len() as u64 / 20;
        assert!(count >= least, "{name} happened only {count} times in {} runs", plans.len());
    }
}
