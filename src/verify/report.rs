//! Puts what is confirmed into sentences, with the names of files, partitions
//! and offsets.

use std::collections::{BTreeMap, BTreeSet};

use tidelock_connector::{OffsetRange, OffsetSet, Result, TopicPartition};
use tidelock_file::{SetCoverage, Store};

use super::details::{Details, NAMED_FILES, SetDetail};
use super::findings::{FileFault, Findings, RangeKind};
use super::human::{count, counted};
use super::sets::SetKey;
use super::verdict::{Problem, ProblemKind, ProblemOffsets};

/// How many missing files are asked for once more.
const ASKED_AGAIN: usize = 1_000;

/// What the sentences need to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) sink: &'a str,
    pub(super) store: &'a Store,
    pub(super) has_record: bool,
    /// Whether watermarks were given.
    pub(super) asked_broker: bool,
}

/// The problems of one sink, and how many sets could not be explained for
/// their number.
pub(super) async fn report(
    context: Context<'_>,
    findings: &Findings,
    details: &Details,
) -> Result<(Vec<Problem>, u64)> {
    let mut problems: Vec<Problem> = findings
        .ranges
        .iter()
        .map(|((partition, kind), found)| range(context, partition, *kind, found, details))
        .collect();
    let unreadable: BTreeSet<&str> = findings.files.keys().map(String::as_str).collect();
    let mut unexplained = 0;
    let mut asked = 0;
    for key in &findings.sets {
        match details.sets.get(key) {
            Some(detail) if detail.coverage.is_none() => {
                problems.push(without_last(context, *key, detail));
            }
            Some(detail) => {
                let mut found = differences(context, *key, detail, &unreadable);
                for problem in found.iter_mut().filter(|p| p.kind == ProblemKind::MissingFile) {
                    asked += problem.files.len();
                    if asked <= ASKED_AGAIN {
                        ask_again(context, problem).await?;
                    }
                }
                problems.append(&mut found);
            }
            None => unexplained += 1,
        }
    }
    for (path, fault) in &findings.files {
        let coverage = details.sets.get(&fault.set()).and_then(|detail| detail.coverage.as_ref());
        problems.push(file(context, path, fault, coverage));
    }
    let named: BTreeSet<String> =
        problems.iter().flat_map(|problem| problem.files.iter().cloned()).collect();
    problems.extend(details.silent.difference(&named).map(|path| silent(context, path)));
    problems.sort_by_key(|problem| problem.kind);
    Ok((problems, unexplained))
}

fn offsets_of(coverage: Option<&SetCoverage>) -> Vec<ProblemOffsets> {
    let Some(coverage) = coverage else { return Vec::new() };
    coverage
        .iter()
        .map(|(partition, covered)| ProblemOffsets {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            ranges: covered.offsets.clone(),
        })
        .collect()
}

fn of_record(partition: &TopicPartition, range: OffsetRange) -> ProblemOffsets {
    ProblemOffsets {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        ranges: OffsetSet::from_range(range.from, range.to),
    }
}

fn range(
    context: Context<'_>,
    partition: &TopicPartition,
    kind: RangeKind,
    found: &OffsetSet,
    details: &Details,
) -> Problem {
    let number = counted(found.len(), "offset");
    let of = match found.len() {
        1 => "this offset",
        _ => "these offsets",
    };
    let (kind_of_problem, text) = match kind {
        RangeKind::Missing if context.has_record => {
            let still = if context.asked_broker { "; the topic still has them" } else { "" };
            let text =
                format!("the record says that {of} are in files, and no file covers them{still}");
            (ProblemKind::MissingOffsets, text)
        }
        RangeKind::Missing => {
            let text = "files cover what is before and what is behind, and no file covers this";
            (ProblemKind::MissingOffsets, text.to_owned())
        }
        RangeKind::Expired => {
            let text = format!("no file covers {of}, and the topic no longer has them");
            (ProblemKind::ExpiredOffsets, text)
        }
        RangeKind::Duplicate => {
            let unless = match context.has_record {
                true => "and no operator had them written again",
                false => "and without the record a rewind cannot be told from an accident",
            };
            let text = format!("several commit sets cover {of}, {unless}");
            (ProblemKind::DuplicateOffsets, text)
        }
        RangeKind::Unrecorded => {
            let text = format!(
                "files cover {of}, and the record has not committed them: it is not the record \
                 that these files were written with, or an older state of it; the next run would \
                 write them again"
            );
            (ProblemKind::UnrecordedOffsets, text)
        }
        RangeKind::RepeatedRows => {
            let text = format!(
                "rows of {of} were found more than once, unless a transform makes several rows of \
                 one record"
            );
            (ProblemKind::RepeatedRows, text)
        }
        RangeKind::StrayRows => {
            let text = format!("rows of {of} were found, and no commit set covers them");
            (ProblemKind::StrayRows, text)
        }
    };
    let files = details.covering.get(&(partition.clone(), kind));
    Problem {
        kind: kind_of_problem,
        sink: context.sink.to_owned(),
        files: files.into_iter().flatten().cloned().collect(),
        offsets: vec![ProblemOffsets {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            ranges: found.clone(),
        }],
        text: format!("{number} of {partition}: {text}"),
    }
}

/// A set whose last file is gone.
fn without_last(context: Context<'_>, key: SetKey, detail: &SetDetail) -> Problem {
    let rows: u64 = detail.seen.iter().map(|file| file.rows).sum();
    Problem {
        kind: ProblemKind::MissingSet,
        sink: context.sink.to_owned(),
        files: detail.seen.iter().take(NAMED_FILES).map(|file| file.key.clone()).collect(),
        offsets: Vec::new(),
        text: format!(
            "{} with {} of commit set {key} are here, and the last file of the set, which tells \
             its offsets, is not; they are among the missing offsets",
            counted(detail.seen.len() as u64, "file"),
            counted(rows, "row"),
        ),
    }
}

/// A file whose sidecar is gone, while offsets are missing.
fn silent(context: Context<'_>, path: &str) -> Problem {
    let text = format!(
        "{path} is there, and what it says about itself is gone; its offsets may be among the \
         missing ones"
    );
    Problem {
        kind: ProblemKind::UnreadableFile,
        sink: context.sink.to_owned(),
        files: vec![path.to_owned()],
        offsets: Vec::new(),
        text,
    }
}

/// What a set lists and what is there, held against each other.
fn differences(
    context: Context<'_>,
    key: SetKey,
    detail: &SetDetail,
    known: &BTreeSet<&str>,
) -> Vec<Problem> {
    let listed: BTreeMap<&str, u64> =
        detail.listed.iter().map(|file| (file.key.as_str(), file.rows)).collect();
    let seen: BTreeMap<&str, u64> =
        detail.seen.iter().map(|file| (file.key.as_str(), file.rows)).collect();
    let offsets = offsets_of(detail.coverage.as_ref());
    let problem = |kind, file: &str, text: String| Problem {
        kind,
        sink: context.sink.to_owned(),
        files: vec![file.to_owned()],
        offsets: offsets.clone(),
        text,
    };
    let mut problems = Vec::new();
    for (file, rows) in &listed {
        match seen.get(file) {
            // That it cannot be read is told apart.
            None if known.contains(file) => {}
            None => {
                let text = format!(
                    "{file} is not there; commit set {key} lists it with {} of the offsets below",
                    counted(*rows, "row")
                );
                problems.push(problem(ProblemKind::MissingFile, file, text));
            }
            Some(has) if has != rows => {
                let text = format!(
                    "{file} says that it has {}, and its commit set {key} lists it with {}",
                    counted(*has, "row"),
                    count(*rows)
                );
                problems.push(problem(ProblemKind::WrongRowCount, file, text));
            }
            Some(_) => {}
        }
    }
    for file in seen.keys().filter(|file| !listed.contains_key(*file)) {
        let text =
            format!("{file} says that it belongs to commit set {key}, which does not list it");
        problems.push(problem(ProblemKind::UnlistedFile, file, text));
    }
    for file in repeated(detail) {
        let text = format!("{file} is there more than once, under names that are not its own");
        problems.push(problem(ProblemKind::CopiedFile, &file, text));
    }
    problems
}

/// Keys that were seen more than once.
fn repeated(detail: &SetDetail) -> BTreeSet<String> {
    let mut once = BTreeSet::new();
    let again = detail.seen.iter().filter(|file| !once.insert(file.key.as_str()));
    again.map(|file| file.key.clone()).collect()
}

/// A file without its sidecar looks like a stranger's: it is there all the same.
async fn ask_again(context: Context<'_>, problem: &mut Problem) -> Result<()> {
    for file in &problem.files {
        if context.store.size(file).await?.is_some() {
            problem.kind = ProblemKind::UnreadableFile;
            problem.text = format!("{file} is there, and what it says about itself is gone");
        }
    }
    Ok(())
}

fn file(
    context: Context<'_>,
    path: &str,
    fault: &FileFault,
    coverage: Option<&SetCoverage>,
) -> Problem {
    let mut files = vec![path.to_owned()];
    let (kind, text) = match fault {
        FileFault::Copied { of, rows, .. } => {
            files.push(of.clone());
            let text =
                format!("{path} is a copy of {of}: {} are there twice", counted(*rows, "row"));
            (ProblemKind::CopiedFile, text)
        }
        FileFault::Misplaced { key, .. } => {
            let text = format!("{path} was written as {key}, where no file is");
            (ProblemKind::MisplacedFile, text)
        }
        FileFault::Unreadable { why, .. } => {
            (ProblemKind::UnreadableFile, format!("{path} cannot be read: {why}"))
        }
        FileFault::WrongSize { says, has, .. } => {
            let text = format!(
                "{path} was written with {}, and has {}",
                counted(*says, "byte"),
                count(*has)
            );
            (ProblemKind::WrongSize, text)
        }
        FileFault::WrongRows { says, has, .. } => {
            let text = format!(
                "{path} says that it has {}, and has {}",
                counted(*says, "row"),
                count(*has)
            );
            (ProblemKind::WrongRowCount, text)
        }
        FileFault::RepeatedRows { rows, .. } => {
            let text = format!(
                "{} of {path} have the offset of another row of it, unless a transform makes \
                 several rows of one record",
                counted(*rows, "row")
            );
            (ProblemKind::RepeatedRows, text)
        }
        FileFault::Lost { rows, set, .. } => {
            let text = format!(
                "commit set {set} is committed, and {path} with {} is neither visible nor staged",
                counted(*rows, "row")
            );
            (ProblemKind::LostFile, text)
        }
    };
    let offsets = match fault {
        FileFault::Lost { ranges, .. } => ranges.iter().map(|(p, r)| of_record(p, *r)).collect(),
        _ => offsets_of(coverage),
    };
    Problem { kind, sink: context.sink.to_owned(), files, offsets, text }
}
