//! The verdict as a table for people, at most 100 columns wide.

use std::fmt;

use tidelock_connector::OffsetSet;

use super::verdict::{PartitionVerdict, Problem, SinkVerdict, Verdict};

const WIDTH: usize = 100;
/// So many partitions are shown one by one; of more, only those that stand out.
const SHOWN_PARTITIONS: usize = 20;
/// So many problems are shown.
const SHOWN_PROBLEMS: usize = 20;
/// So many files, partitions and ranges are shown of one problem.
const SHOWN_PARTS: usize = 8;

/// A number with separators.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things.
pub(super) fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

fn offset(offset: Option<i64>) -> String {
    match offset {
        Some(offset) if offset >= 0 => count(offset.unsigned_abs()),
        Some(offset) => offset.to_string(),
        None => "-".to_owned(),
    }
}

fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut rest = bytes as f64;
    while rest >= 1024.0 && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{rest:.1} {}", UNITS[unit]) }
}

/// The first ranges of a set.
fn ranges(set: &OffsetSet) -> String {
    let mut shown: Vec<_> =
        set.ranges().iter().take(SHOWN_PARTS).map(ToString::to_string).collect();
    let more = set.ranges().len().saturating_sub(SHOWN_PARTS);
    if more > 0 {
        shown.push(format!("and {}", counted(more as u64, "more range")));
    }
    shown.join(", ")
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.record {
            Some(record) => {
                let sequence = count(record.sequence);
                writeln!(f, "pipeline {}, record written {sequence} times", self.pipeline)?;
            }
            None => writeln!(f, "pipeline {}, no record", self.pipeline)?,
        }
        for sink in &self.sinks {
            writeln!(f)?;
            show_sink(f, sink)?;
        }
        if !self.problems.is_empty() {
            writeln!(f, "\nproblems")?;
        }
        for (index, problem) in self.problems.iter().take(SHOWN_PROBLEMS).enumerate() {
            writeln!(f)?;
            show_problem(f, index + 1, problem)?;
        }
        let more =
            self.problems.len().saturating_sub(SHOWN_PROBLEMS) as u64 + self.problems_not_shown;
        if more > 0 {
            writeln!(f, "\n  and {}", counted(more, "more problem"))?;
        }
        writeln!(f)?;
        for line in self.closing() {
            wrapped(f, &line, "")?;
        }
        Ok(())
    }
}

fn show_sink(f: &mut fmt::Formatter<'_>, sink: &SinkVerdict) -> fmt::Result {
    let totals = &sink.totals;
    writeln!(f, "sink {}  {}", sink.name, sink.url)?;
    let mut line = format!(
        "{} in {}, {}, {}",
        counted(totals.files, "file"),
        counted(totals.sets, "commit set"),
        counted(totals.rows, "row"),
        bytes(totals.bytes)
    );
    if totals.pending_sets > 0 {
        line += &format!(
            "; pending: {} with {}",
            counted(totals.pending_sets, "commit set"),
            counted(sink.pending_rows, "row")
        );
    }
    let with_rows: Option<u64> = sink.partitions.iter().map(|p| p.offsets_with_rows).sum();
    if let Some(with_rows) = with_rows.filter(|_| !sink.partitions.is_empty()) {
        let have = if with_rows == 1 { "has" } else { "have" };
        line += &format!("; {} {have} a row", counted(with_rows, "offset"));
    }
    wrapped(f, &line, "  ")?;
    if sink.other_files + sink.foreign_files > 0 {
        let line = format!(
            "left alone: {} of other pipelines or sinks, {} that no pipeline wrote",
            counted(sink.other_files, "file"),
            count(sink.foreign_files)
        );
        wrapped(f, &line, "  ")?;
    }
    show_partitions(f, &sink.partitions)
}

/// A line of the table: partition, from, to, offsets, state.
type Row = [String; 5];

fn show_partitions(f: &mut fmt::Formatter<'_>, partitions: &[PartitionVerdict]) -> fmt::Result {
    if partitions.is_empty() {
        return Ok(());
    }
    let mut rows: Vec<Row> = Vec::new();
    let all = partitions.len() <= SHOWN_PARTITIONS;
    if !all {
        for topic in partitions.chunk_by(|one, two| one.topic == two.topic) {
            rows.push(topic_row(topic));
        }
    }
    let shown = partitions.iter().filter(|partition| all || stands_out(partition));
    let hidden = shown.clone().count().saturating_sub(SHOWN_PARTITIONS);
    rows.extend(shown.take(SHOWN_PARTITIONS).map(partition_row));

    let head = ["partition", "from", "to", "offsets", "state"];
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths = [width(0).min(40), width(1), width(2), width(3)];
    let line = |cells: [&str; 5]| {
        let [name, from, to, offsets, state] = cells;
        let [a, b, c, d] = widths;
        let name = shortened(name, a);
        format!("  {name:<a$}  {from:>b$}  {to:>c$}  {offsets:>d$}  {state}")
    };
    writeln!(f, "\n{}", line(head))?;
    for row in &rows {
        let [name, from, to, offsets, state] = row;
        writeln!(f, "{}", line([name, from, to, offsets, state]).trim_end())?;
    }
    if hidden > 0 {
        writeln!(f, "  and {}", counted(hidden as u64, "more partition"))?;
    }
    Ok(())
}

/// The end of a name tells more than its beginning.
fn shortened(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.to_owned();
    }
    format!("…{}", name.chars().skip(length - width + 1).collect::<String>())
}

fn stands_out(partition: &PartitionVerdict) -> bool {
    partition.problems > 0 || !partition.pending.is_empty() || !partition.rewound.is_empty()
}

fn topic_row(partitions: &[PartitionVerdict]) -> Row {
    let topic = partitions.first().map(|partition| partition.topic.as_str()).unwrap_or_default();
    let number = counted(partitions.len() as u64, "partition");
    let offsets = partitions.iter().map(|partition| partition.offsets).sum();
    let lag = partitions.iter().filter_map(|partition| partition.lag).sum();
    let bad = partitions.iter().filter(|partition| partition.problems > 0).count() as u64;
    let mut state = match bad {
        0 => "ok".to_owned(),
        bad => format!("{} with problems", count(bad)),
    };
    if lag > 0 {
        state += &format!(", {} behind", count(lag));
    }
    [format!("{topic}: {number}"), String::new(), String::new(), count(offsets), state]
}

fn partition_row(partition: &PartitionVerdict) -> Row {
    let mut states = Vec::new();
    let mut state = |offsets: u64, what: &str| {
        if offsets > 0 {
            states.push(format!("{} {what}", count(offsets)));
        }
    };
    state(partition.missing.len(), "missing");
    state(partition.duplicate.len(), "twice");
    state(partition.pending.len(), "pending");
    state(partition.undone.len(), "not done");
    state(partition.skipped.len(), "skipped");
    state(partition.rewound.len(), "rewound");
    let without_rows = match (partition.filed_to, partition.next) {
        (Some(filed_to), Some(next)) => u64::try_from(next - filed_to).unwrap_or(0),
        _ => 0,
    };
    state(without_rows, "more without rows");
    state(partition.expired_unread.unwrap_or(0), "expired unread");
    state(partition.lag.unwrap_or(0), "behind");
    if partition.problems == 0 {
        states.insert(0, "ok".to_owned());
    } else if partition.missing.is_empty() && partition.duplicate.is_empty() {
        states.insert(0, counted(partition.problems, "problem"));
    }
    [
        format!("{}/{}", partition.topic, partition.partition),
        offset(partition.origin),
        offset(partition.filed_to),
        count(partition.offsets),
        states.join(", "),
    ]
}

fn show_problem(f: &mut fmt::Formatter<'_>, number: usize, problem: &Problem) -> fmt::Result {
    writeln!(f, "  {number}. {} in sink {}", problem.kind.label(), problem.sink)?;
    wrapped(f, &problem.text, "     ")?;
    for offsets in problem.offsets.iter().take(SHOWN_PARTS) {
        let line =
            format!("offsets {}/{}: {}", offsets.topic, offsets.partition, ranges(&offsets.ranges));
        wrapped(f, &line, "     ")?;
    }
    let more = problem.offsets.len().saturating_sub(SHOWN_PARTS);
    if more > 0 {
        writeln!(f, "     and {}", counted(more as u64, "more partition"))?;
    }
    // The sentence has named the first one, unless there are several.
    let shown = problem.files.iter().filter(|file| !problem.text.contains(file.as_str()));
    for file in shown.clone().take(SHOWN_PARTS) {
        writeln!(f, "     file {file}")?;
    }
    let more = shown.count().saturating_sub(SHOWN_PARTS);
    if more > 0 {
        writeln!(f, "     and {}", counted(more as u64, "more file"))?;
    }
    Ok(())
}

/// Breaks a line between words. Words that are too long, keys of files above
/// all, stay whole, so that they can be copied.
fn wrapped(f: &mut fmt::Formatter<'_>, text: &str, indent: &str) -> fmt::Result {
    let mut line = indent.to_owned();
    for word in text.split(' ') {
        if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{line}")?;
            indent.clone_into(&mut line);
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(f, "{line}")
}

impl Verdict {
    /// The answer in one sentence per sink.
    pub(super) fn closing(&self) -> Vec<String> {
        if self.ok {
            return self.sinks.iter().map(|sink| self.proved(sink)).collect();
        }
        let problems = self.problems.len() as u64 + self.problems_not_shown;
        let sum = |of: fn(&PartitionVerdict) -> u64| -> u64 {
            self.sinks.iter().flat_map(|sink| &sink.partitions).map(of).sum()
        };
        let mut parts = vec![counted(problems, "problem")];
        for (offsets, what) in
            [(sum(|p| p.missing.len()), "missing"), (sum(|p| p.duplicate.len()), "there twice")]
        {
            if offsets > 0 {
                parts.push(format!("{} {what}", counted(offsets, "offset")));
            }
        }
        vec![format!("NOT exactly once: {}", parts.join(", "))]
    }

    fn proved(&self, sink: &SinkVerdict) -> String {
        let totals = &sink.totals;
        let of =
            if self.sinks.len() > 1 { format!(" in sink {}", sink.name) } else { String::new() };
        if totals.offsets == 0 {
            return format!("nothing to prove{of}: no file accounts for any offset yet");
        }
        let with_files =
            sink.partitions.iter().filter(|partition| partition.offsets > 0).count() as u64;
        let numbers = format!(
            "{} in {}, each in exactly one of {} ({}, {})",
            counted(totals.offsets, "offset"),
            counted(with_files, "partition"),
            counted(totals.sets, "commit set"),
            counted(totals.files, "file"),
            counted(totals.rows, "row")
        );
        if self.record.is_none() {
            return format!(
                "no gap inside and nothing twice{of}: {numbers}; without the record it cannot be \
                 told whether anything is missing before the first offsets or after the last ones"
            );
        }
        let mut sentence = format!("exactly once{of}: {numbers}");
        let mut but = |number: u64, one: &str, many: &str| {
            if number > 0 {
                sentence +=
                    &format!("; {} {}", count(number), if number == 1 { one } else { many });
            }
        };
        but(
            totals.pending_sets,
            "commit set is committed and about to become visible",
            "commit sets are committed and about to become visible",
        );
        but(
            totals.given_up_sets,
            "commit set was lost and read again",
            "commit sets were lost and read again",
        );
        but(
            totals.rewound,
            "of them is there again, as an operator asked",
            "of them are there again, as an operator asked",
        );
        but(
            totals.skipped,
            "offset was left out by an operator",
            "offsets were left out by an operator",
        );
        sentence
    }
}
