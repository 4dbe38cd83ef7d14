//! A diagnosis as people read it.

use std::fmt::Write as _;

use super::{Diagnosis, Guarantee, Outcome, Trial};

/// How wide a table gets.
const WIDTH: usize = 100;

impl Trial {
    /// The trial, as it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rights => "rights",
            Self::ListAfterWrite => "list after write",
            Self::Clock => "clock",
            Self::Token => "metadata",
            Self::CreateTwice => "create twice",
            Self::Update => "right and stale version",
            Self::RacingCreates => "racing creates",
            Self::RacingUpdates => "racing updates",
            Self::Copy => "publish",
            Self::PublishTwice => "publish twice",
            Self::PublishCut => "publish, cut",
            Self::PublishMissing => "publish nothing",
            Self::Multipart => "upload in parts",
            Self::CompleteTwice => "complete twice",
            Self::Abort => "abort",
            Self::AbortAfterComplete => "abort after complete",
            Self::CompleteCut => "complete, cut",
            Self::Link => "link",
            Self::Sync => "fsync",
            Self::CleanUp => "clean up",
        }
    }
}

impl Guarantee {
    /// The guarantee, as it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly once",
            Self::Fencing => "fencing",
            Self::StagingByCopy => "staging by copy",
            Self::StagingByUpload => "staging by upload",
            Self::OrphanCollection => "orphan collection",
        }
    }
}

impl Diagnosis {
    /// The table of trials, then the verdict on each guarantee.
    pub fn render(&self) -> String {
        let mut text = format!("{}\n\n", self.url);
        let _ = writeln!(text, "     {:<24} {:<62} {:>6}", "check", "found", "ms");
        for check in &self.checks {
            let mark = match check.outcome {
                Outcome::Good => "ok",
                Outcome::Bad => "NO",
                Outcome::Unknown => "--",
            };
            let mut lines = wrapped(&check.found, 62).into_iter();
            let first = lines.next().unwrap_or_default();
            let name = check.trial.name();
            let _ = writeln!(text, "  {mark} {name:<24} {first:<62} {:>6}", check.ms);
            for line in lines {
                let _ = writeln!(text, "     {:<24} {line}", "");
            }
        }
        text.push('\n');
        for verdict in &self.verdicts {
            let answer = if verdict.holds { "yes" } else { "no" };
            let name = verdict.guarantee.name();
            for (index, line) in wrapped(&verdict.why, WIDTH - 27).into_iter().enumerate() {
                let head = if index == 0 { (name, answer) } else { ("", "") };
                let _ = writeln!(text, "  {:<19} {:<4} {line}", head.0, head.1);
            }
        }
        for note in &self.notes {
            text.push('\n');
            for (index, line) in wrapped(note, WIDTH - 8).into_iter().enumerate() {
                let head = if index == 0 { "note:" } else { "" };
                let _ = writeln!(text, "  {head:<5} {line}");
            }
        }
        text
    }
}

/// Lines of at most `width` characters, broken at spaces where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let fits = lines[last].chars().count() + 1 + word.chars().count() <= width;
        if lines[last].is_empty() {
            lines[last].push_str(word);
        } else if fits {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::{Check, verdict};
    use super::*;

    #[test]
    fn long_findings_go_on_below() {
        let found = "a".repeat(40) + " " + &"b".repeat(40);
        let checks =
            vec![Check { trial: Trial::CreateTwice, outcome: Outcome::Bad, found, ms: 12 }];
        let (verdicts, notes) = verdict::judge(&checks);
        let diagnosis =
            Diagnosis { url: "s3://lake".into(), folder: "f".into(), checks, verdicts, notes };
        let text = diagnosis.render();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let at = text.lines().position(|line| line.contains("NO create twice")).unwrap();
        assert!(text.lines().nth(at).unwrap().ends_with(" 12"));
        assert!(text.lines().nth(at + 1).unwrap().trim().starts_with('b'));
        assert!(text.contains("exactly once        no "), "{text}");
    }
}
