//! From trials to guarantees: plain data in, plain data out.

use super::{Check, Guarantee, Outcome, Trial, Verdict};

/// What fencing rests upon.
const FENCING: &[Trial] =
    &[Trial::CreateTwice, Trial::Update, Trial::RacingCreates, Trial::RacingUpdates];
/// What publishing rests upon; the last two exist in local folders only.
const STAGING: &[Trial] =
    &[Trial::Copy, Trial::PublishTwice, Trial::PublishCut, Trial::PublishMissing];
/// What publishing by completing an upload would rest upon.
const UPLOADS: &[Trial] = &[
    Trial::Multipart,
    Trial::CompleteTwice,
    Trial::Abort,
    Trial::AbortAfterComplete,
    Trial::CompleteCut,
];
const ORPHANS: &[Trial] = &[Trial::Rights, Trial::ListAfterWrite];
/// Not every store has these; where they are tried they must not fail.
const FENCING_OF_FOLDERS: &[Trial] = &[Trial::Link];
const STAGING_OF_SOME: &[Trial] = &[Trial::Sync, Trial::Multipart];

/// The verdicts in the order in which they are shown, and notes.
pub(super) fn judge(checks: &[Check]) -> (Vec<Verdict>, Vec<String>) {
    let found = Found(checks);
    let fencing = found.verdict(
        Guarantee::Fencing,
        FENCING,
        FENCING_OF_FOLDERS,
        "conditional writes are checked, also in races",
    );
    let staging = found.verdict(
        Guarantee::StagingByCopy,
        STAGING,
        STAGING_OF_SOME,
        "publishing is idempotent, also when it is cut",
    );
    let uploads = found.verdict(
        Guarantee::StagingByUpload,
        UPLOADS,
        &[],
        "uncompleted uploads are invisible and survive cuts; copies are used all the same",
    );
    let orphans = found.verdict(
        Guarantee::OrphanCollection,
        ORPHANS,
        &[],
        "listings are exact, and we may delete",
    );
    let exactly_once = exactly_once(&found, &fencing, &staging);
    let notes = notes(&found, &exactly_once);
    let mut verdicts = vec![exactly_once, fencing, staging, uploads, orphans];
    // A folder has no uploads.
    let has_uploads = found.outcome(Trial::Multipart).is_some();
    verdicts.retain(|verdict| has_uploads || verdict.guarantee != Guarantee::StagingByUpload);
    (verdicts, notes)
}

fn exactly_once(found: &Found<'_>, fencing: &Verdict, staging: &Verdict) -> Verdict {
    let guarantee = Guarantee::ExactlyOnce;
    let rights = found.first_bad(&[Trial::Rights]);
    let no = |why: String| Verdict { guarantee, holds: false, why };
    match (fencing.holds, staging.holds, rights) {
        (_, _, Some(why)) => no(why),
        (true, true, None) => Verdict {
            guarantee,
            holds: true,
            why: "by compare-and-swap of the record and staged files".to_owned(),
        },
        (false, true, None) => no(format!("writers cannot be fenced: {}", fencing.why)),
        (true, false, None) => no(format!("files cannot be published: {}", staging.why)),
        (false, false, None) => no("writers cannot be fenced, nor files published".to_owned()),
    }
}

fn notes(found: &Found<'_>, exactly_once: &Verdict) -> Vec<String> {
    let mut notes = Vec::new();
    let bad = |trial| found.outcome(trial) == Some(Outcome::Bad);
    if !exactly_once.holds {
        notes.push(
            "pipelines may still run here with guarantee = \"at_least_once\", or keep their \
             record in another store ([checkpoint] state) where only fencing is missing"
                .to_owned(),
        );
    }
    if bad(Trial::CompleteCut) {
        notes.push(
            "a client that dies while it completes an upload leaves parts that nobody can \
             complete; pipelines publish by copies, so that this costs no data"
                .to_owned(),
        );
    }
    if bad(Trial::Clock) {
        notes.push("set the clocks: signed requests expire".to_owned());
    }
    if bad(Trial::ListAfterWrite) {
        notes.push(
            "listings lag: `tidelock verify` may call files missing that are there, and orphans \
             must not be collected"
                .to_owned(),
        );
    }
    notes
}

struct Found<'a>(&'a [Check]);

impl Found<'_> {
    fn outcome(&self, trial: Trial) -> Option<Outcome> {
        self.0.iter().find(|check| check.trial == trial).map(|check| check.outcome)
    }

    /// Why the first of these that is not good is not good.
    fn first_bad(&self, trials: &[Trial]) -> Option<String> {
        trials.iter().find_map(|trial| match self.0.iter().find(|c| c.trial == *trial) {
            Some(check) if check.outcome == Outcome::Good => None,
            Some(check) => Some(check.found.clone()),
            None => Some("it was not tried".to_owned()),
        })
    }

    fn verdict(
        &self,
        guarantee: Guarantee,
        all: &[Trial],
        where_tried: &[Trial],
        good: &str,
    ) -> Verdict {
        let tried: Vec<Trial> =
            where_tried.iter().copied().filter(|trial| self.outcome(*trial).is_some()).collect();
        let why = self.first_bad(all).or_else(|| self.first_bad(&tried));
        Verdict { guarantee, holds: why.is_none(), why: why.unwrap_or_else(|| good.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(bad: &[Trial]) -> Vec<Check> {
        let trials = FENCING.iter().chain(STAGING).chain(UPLOADS).chain(ORPHANS);
        let outcome = |trial| if bad.contains(trial) { Outcome::Bad } else { Outcome::Good };
        trials
            .map(|t| Check { trial: *t, outcome: outcome(t), found: format!("{t:?}"), ms: 0 })
            .collect()
    }

    fn holds(bad: &[Trial]) -> Vec<Guarantee> {
        let (verdicts, _) = judge(&checks(bad));
        verdicts.into_iter().filter(|v| v.holds).map(|v| v.guarantee).collect()
    }

    #[test]
    fn each_guarantee_falls_with_what_it_rests_upon() {
        use Guarantee::{ExactlyOnce, Fencing, OrphanCollection, StagingByCopy, StagingByUpload};
        let all = [ExactlyOnce, Fencing, StagingByCopy, StagingByUpload, OrphanCollection];
        assert_eq!(holds(&[]), all);
        assert_eq!(holds(&[Trial::RacingUpdates]), all[2..]);
        assert_eq!(holds(&[Trial::PublishCut]), [Fencing, StagingByUpload, OrphanCollection]);
        // What is never done does not count against exactly once.
        let without_uploads = [ExactlyOnce, Fencing, StagingByCopy, OrphanCollection];
        assert_eq!(holds(&[Trial::CompleteCut]), without_uploads);
        assert_eq!(holds(&[Trial::Rights]), [Fencing, StagingByCopy, StagingByUpload]);
    }

    #[test]
    fn what_was_not_tried_does_not_hold() {
        let (verdicts, notes) = judge(&[]);
        assert!(verdicts.len() == 4 && verdicts.iter().all(|verdict| !verdict.holds));
        assert!(notes[0].contains("at_least_once"), "{notes:?}");
    }
}
