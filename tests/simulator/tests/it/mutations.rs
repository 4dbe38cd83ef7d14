//! The gate: every bug that is planted in the protocol's own code is found
//! within a thousand seeds, by the invariant that it breaks.

use std::time::Duration;

use tidelock_simulator::{Invariant, Mutation, Plan, Violation, Weather};

use crate::support::run_all;

/// What finds each bug. More than one where chance decides what breaks first;
/// seeds in which something else breaks first do not count.
fn expected(bug: Mutation) -> &'static [Invariant] {
    use Invariant::*;
    match bug {
        Mutation::NoSwapNumber | Mutation::PublishBeforeSwap => &[I1],
        Mutation::NextBeforeKnown => &[I1, I6],
        Mutation::NoEpochCheck | Mutation::StolenClaim => &[I5],
        Mutation::NoCursorCheck => &[I2, I4, R1],
        Mutation::DiscardAfterAmbiguous
        | Mutation::CollectReadsFirst
        | Mutation::ForgottenClaims => &[I8],
        Mutation::ReadBeforeClaim => &[I6],
        Mutation::ClearBeforePublished => &[I3],
        Mutation::KeyUsedTwice => &[I7],
        Mutation::CommittedOffsetTrusted => &[I2, I5],
        Mutation::BlindOverwrite => &[I2, I3, I5],
        Mutation::CommitBeforeSwap => &[I9],
        Mutation::NoRecovery => &[L1],
    }
}

/// What happens while a bug is looked for: anything; but some want a story
/// that is rare.
fn plan(bug: Mutation, seed: u64) -> Plan {
    let mut plan = Plan::of(seed);
    if matches!(bug, Mutation::ForgottenClaims | Mutation::StolenClaim) {
        // Few partitions for many members, and rebalances all the time.
        plan.processes = 5;
        plan.workers = 1;
        plan.partitions = 2;
        plan.faults_for = Duration::from_secs(9);
        plan.blow_every = (100, 500);
    }
    match bug {
        // Workers that gave everything up in peace, so that they are forgotten
        // with their staged bytes still to be deleted, and were then called
        // again while a collector was held up.
        Mutation::ForgottenClaims => {
            plan.sinks = 2;
            plan.interval = Duration::from_millis(150);
            plan.revoke_timeout = Duration::from_secs(3);
            plan.session_timeout = Duration::from_secs(1);
            plan.weather = Weather { lost: 60, slow: 150, ..Weather::default() };
        }
        // Claims whose answer is lost, while others claim.
        Mutation::StolenClaim => {
            plan.weather = Weather { ambiguous: 200, slow: 150, ..Weather::default() };
        }
        _ => {}
    }
    plan
}

#[test]
fn every_planted_bug_is_found() {
    let mut report = String::new();
    let mut missed = 0;
    for bug in Mutation::ALL {
        let by_name = |violation: &Violation| expected(bug).contains(&violation.invariant);
        let found = (0..1_000).step_by(20).find_map(|from| {
            let plans: Vec<_> = (from..from + 20).map(|seed| plan(bug, seed)).collect();
            let (failed, _) = run_all(&plans, Some(bug), |outcome| {
                outcome.violation.as_ref().is_some_and(by_name)
            });
            let first = failed.into_iter().min_by_key(|outcome| outcome.seed)?;
            Some((first.seed, first.violation?))
        });
        let verdict = match &found {
            None => "never found by name".to_owned(),
            Some((seed, violation)) => format!("seed {seed}: {violation}"),
        };
        let named = found.is_some();
        missed += u32::from(!named);
        let mark = if named { "ok  " } else { "MISS" };
        report += &format!("{mark} {:<24} {verdict}\n", format!("{bug:?}"));
    }
    println!("{report}");
    assert_eq!(missed, 0, "\n{report}");
}
