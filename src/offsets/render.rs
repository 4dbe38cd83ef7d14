//! Overviews and plans as people read them.

use std::fmt::Write as _;

use super::{Applied, Effect, Overview, PartitionView, PendingView, Plan};

/// Rewinds that are shown per partition, the newest ones.
const REWINDS_SHOWN: usize = 5;

impl Overview {
    /// The table of partitions, then what is pending, lost and rewound.
    pub fn render(&self) -> String {
        let mut text = format!("pipeline  {}\n", self.pipeline);
        match &self.record {
            None => text.push_str("record    none yet: nothing was ever claimed\n"),
            Some(record) => {
                let of = |name: &str, value: &Option<String>| {
                    value.as_ref().map_or_else(String::new, |value| format!(", {name} {value}"))
                };
                let _ = writeln!(
                    text,
                    "record    sequence {}{}{}{}",
                    record.sequence,
                    of("group", &record.group),
                    of("cluster", &record.cluster),
                    of("bounded run", &record.run),
                );
            }
        }
        match (&self.broker_error, self.members) {
            (Some(error), _) => {
                let _ = writeln!(text, "broker    cannot be asked: {error}");
            }
            (None, Some(members)) => {
                let _ = writeln!(text, "group     {members} members now");
            }
            (None, None) => text.push_str("broker    not asked\n"),
        }
        text.push('\n');
        text.push_str(&self.table());
        section(&mut text, "pending", &self.pending);
        section(&mut text, "lost, and read again", &self.lost);
        text.push_str(&self.rewinds());
        text
    }

    fn table(&self) -> String {
        let mut rows = vec![
            ["partition", "epoch", "cursor", "in files", "committed", "by", "low", "end", "lag"]
                .map(str::to_owned),
        ];
        for partition in &self.partitions {
            rows.extend(rows_of(partition));
        }
        if rows.len() == 1 {
            return "no partition is known\n".to_owned();
        }
        aligned(&rows)
    }

    fn rewinds(&self) -> String {
        let mut text = String::new();
        for partition in &self.partitions {
            let Some(recorded) = &partition.recorded else { continue };
            let hidden = recorded.rewinds.len().saturating_sub(REWINDS_SHOWN);
            for rewind in &recorded.rewinds[hidden..] {
                let (low, high) = (rewind.from.min(rewind.to), rewind.from.max(rewind.to));
                let what = if rewind.from < rewind.to { "repeated" } else { "left out" };
                let _ = writeln!(
                    text,
                    "  {}/{} {low}..{high} {what}, in epoch {}",
                    partition.topic, partition.partition, rewind.epoch
                );
            }
            if hidden > 0 {
                let _ = writeln!(text, "  … and {hidden} before these");
            }
        }
        if text.is_empty() { text } else { format!("\nmoved by hand\n{text}") }
    }
}

fn section(text: &mut String, title: &str, sets: &[PendingView]) {
    if sets.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for set in sets {
        let files = set.files.map_or_else(String::new, |files| format!(", {files} files"));
        let _ = writeln!(
            text,
            "  sink {}, checkpoint {} of {}{files}: {}",
            set.id.sink,
            set.id.checkpoint,
            set.id.incarnation,
            set.offsets.join(", ")
        );
    }
}

/// One row, and one more per sink where the sinks differ.
fn rows_of(view: &PartitionView) -> Vec<[String; 9]> {
    let number = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let log = view.log.as_ref();
    let committed = log.and_then(|log| log.committed.as_ref());
    let by = match committed {
        None => "-".to_owned(),
        Some(committed) => match committed.sequence {
            Some(sequence) => format!("us, {sequence}"),
            None if committed.hint.is_empty() => "no hint".to_owned(),
            None => "others".to_owned(),
        },
    };
    let recorded = view.recorded.as_ref();
    let filed = recorded.and_then(|r| r.cursors.iter().map(|cursor| cursor.filed_to).min());
    let mut rows = vec![[
        format!("{}/{}", view.topic, view.partition),
        recorded.map_or_else(|| "-".to_owned(), |recorded| recorded.epoch.to_string()),
        number(recorded.and_then(|recorded| recorded.cursor)),
        number(filed),
        number(committed.map(|committed| committed.offset)),
        by,
        number(log.map(|log| log.low)),
        number(log.map(|log| log.end)),
        number(view.lag),
    ]];
    let cursors = recorded.map(|recorded| recorded.cursors.as_slice()).unwrap_or_default();
    let differ = cursors
        .windows(2)
        .any(|pair| (pair[0].next, pair[0].filed_to) != (pair[1].next, pair[1].filed_to));
    if differ {
        for cursor in cursors {
            let mut row: [String; 9] = Default::default();
            row[0] = format!("  {}", cursor.sink);
            row[2] = cursor.next.to_string();
            row[3] = cursor.filed_to.to_string();
            rows.push(row);
        }
    }
    rows
}

/// The first column to the left, the others to the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

impl Plan {
    /// What will happen, a line per partition.
    pub fn render(&self) -> String {
        if self.moves.is_empty() {
            return "every partition is there already: nothing to do\n".to_owned();
        }
        let mut text = String::new();
        let (mut twice, mut out) = (0, 0);
        for step in &self.moves {
            let from = step.from.map_or_else(|| "nowhere".to_owned(), |from| from.to_string());
            let _ = write!(text, "{}/{}  {from} → {}", step.topic, step.partition, step.to);
            for effect in &step.effects {
                match effect {
                    Effect::Repeats(range) => {
                        twice += range.len();
                        let _ = write!(text, "  {range} will be written a second time");
                    }
                    Effect::LeavesOut(range) => {
                        out += range.len();
                        let _ = write!(text, "  {range} will be left out");
                    }
                }
            }
            if step.effects.is_empty() {
                text.push_str("  nothing is repeated or left out");
            }
            text.push('\n');
        }
        let _ =
            writeln!(text, "in all: {twice} offsets written a second time, {out} offsets left out");
        for objection in &self.objections {
            let _ = writeln!(text, "objection: {objection}");
        }
        text
    }
}

impl Applied {
    /// What was done.
    pub fn render(&self) -> String {
        let mut text = match self.sequence {
            Some(sequence) => format!("done: the record has sequence {sequence}\n"),
            None => "done: the group's offsets are moved\n".to_owned(),
        };
        if let Some(why) = &self.not_mirrored {
            let _ = writeln!(
                text,
                "the group's committed offsets did not follow, and the next run repairs them: {why}"
            );
        }
        text
    }
}
