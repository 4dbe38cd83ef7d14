//! A seed is enough to see a run again.

use tidelock_simulator::{Plan, run};

#[test]
fn the_same_seed_gives_the_same_steps() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..25 {
        let first = run(Plan::of(seed), None, false);
        let second = run(Plan::of(seed), None, true);
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.stats, second.stats, "seed {seed}");
        assert_eq!(second.trace.len() as u64, second.stats.steps, "seed {seed}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 25, "different seeds are different runs");
}
