//! The gate: every bug that is planted in the protocol's own code is found
//! within a thousand seeds, by the invariant that it breaks.

use tidelock_simulator::{Invariant, Mutation, Plan};

use crate::support::run_all;

/// What finds each bug. More than one where chance decides what breaks first.
fn expected(bug: Mutation) -> &'static [Invariant] {
    use Invariant::*;
    match bug {
        Mutation::NoSwapNumber => &[I1],
        Mutation::NoEpochCheck => &[I5],
        Mutation::NoCursorCheck => &[I2, I4, R1],
        Mutation::NextBeforeKnown => &[I1],
        Mutation::DiscardAfterAmbiguous => &[I8],
        Mutation::ReadBeforeClaim => &[I6],
        Mutation::ClearBeforePublished => &[I3],
        Mutation::KeyUsedTwice => &[I7],
        Mutation::CommittedOffsetTrusted => &[I2],
        Mutation::BlindOverwrite => &[I2, I3, I5],
        Mutation::CollectReadsFirst => &[I8],
        Mutation::ForgottenClaims => &[I8],
        Mutation::PublishBeforeSwap => &[I1],
        Mutation::CommitBeforeSwap => &[I9],
        Mutation::NoRecovery => &[L1],
    }
}

#[test]
fn every_planted_bug_is_found() {
    let mut report = String::new();
    let mut missed = 0;
    for bug in Mutation::ALL {
        let found = (0..1_000).step_by(20).find_map(|from| {
            let plans: Vec<_> = (from..from + 20).map(Plan::of).collect();
            let (failed, _) = run_all(&plans, Some(bug), |outcome| outcome.violation.is_some());
            let first = failed.into_iter().min_by_key(|outcome| outcome.seed)?;
            Some((first.seed, first.violation?))
        });
        let verdict = match &found {
            None => "never found".to_owned(),
            Some((seed, violation)) => format!("seed {seed}: {violation}"),
        };
        let named =
            found.is_some_and(|(_, violation)| expected(bug).contains(&violation.invariant));
        missed += u32::from(!named);
        let mark = if named { "ok  " } else { "MISS" };
        report += &format!("{mark} {:<24} {verdict}\n", format!("{bug:?}"));
    }
    println!("{report}");
    assert_eq!(missed, 0, "\n{report}");
}
