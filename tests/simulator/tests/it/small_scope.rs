//! Two workers, one partition, three checkpoints: a crash and a zombie at every
//! step, and every other fate of every call.

use tidelock_simulator::{Fate, Plan, run};

use crate::support::{failures, run_all};

const SINGLE: [Fate; 8] = [
    Fate::Lost,
    Fate::Ambiguous,
    Fate::Late,
    Fate::CrashBefore,
    Fate::CrashAfter,
    Fate::CrashLate,
    Fate::StopBefore,
    Fate::StopAfter,
];
const CRASHES: [Fate; 2] = [Fate::CrashAfter, Fate::CrashLate];
const ZOMBIES: [Fate; 2] = [Fate::StopBefore, Fate::StopAfter];

/// How many calls to the store the scope takes when nothing goes wrong.
fn calls() -> u64 {
    let outcome = run(Plan::small_scope(Vec::new()), None, false);
    assert_eq!(outcome.violation, None);
    assert!(outcome.stats.sets >= 3, "three checkpoints: {:?}", outcome.stats);
    outcome.stats.calls
}

#[test]
fn every_fate_of_every_call() {
    let plans: Vec<Plan> = (1..=calls())
        .flat_map(|call| SINGLE.map(|fate| Plan::small_scope(vec![(call, fate)])))
        .collect();
    let (failed, stats) = run_all(&plans, None, |outcome| outcome.violation.is_some());
    assert!(failed.is_empty(), "{}", failures(&failed));
    let calls = plans.len() as u64 / SINGLE.len() as u64;
    assert_eq!((stats.kills, stats.zombies), (3 * calls, 2 * calls));
}

#[test]
fn a_crash_and_a_zombie_at_every_two_steps() {
    let calls = calls();
    let mut plans = Vec::new();
    for first in 1..=calls {
        for second in (first + 1..=calls + 10).step_by(2) {
            for (crash, zombie) in CRASHES.into_iter().zip(ZOMBIES) {
                plans.push(Plan::small_scope(vec![(first, crash), (second, zombie)]));
                plans.push(Plan::small_scope(vec![(first, zombie), (second, crash)]));
            }
        }
    }
    let (failed, _) = run_all(&plans, None, |outcome| outcome.violation.is_some());
    assert!(failed.is_empty(), "{}", failures(&failed));
}
