//! A seed is enough to see a run again.

use tidelock_simulator::{Plan, run};

use crate::support::run_all;

#[test]
fn the_same_seed_gives_the_same_steps() {
    let plans: Vec<_> = (0..60).map(Plan::of).collect();
    // Beside each other the first time, alone the second.
    let (mut outcomes, _) = run_all(&plans, None, |_| true);
    outcomes.sort_by_key(|outcome| outcome.seed);
    let mut hashes = std::collections::BTreeSet::new();
    for first in outcomes {
        let seed = first.seed;
        let second = run(Plan::of(seed), None, true);
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.stats, second.stats, "seed {seed}");
        assert_eq!(second.trace.len() as u64, second.stats.steps, "seed {seed}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), plans.len(), "different seeds are different runs");
}
