//! Numbers, times and tables for people.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use arrow::datatypes::{DataType, TimeUnit};
use tidelock_connector::{Error, ErrorKind};

/// `3,000,000`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `3 files`.
pub(super) fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `12.3 MiB`.
pub(super) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{number} B") } else { format!("{value:.1} {unit}") }
}

/// `850 ms`, `12.3 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Whole seconds, for a line that changes all the time.
pub(super) fn age(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// Events per second.
pub(super) fn rate(number: u64, duration: Duration) -> u64 {
    let seconds = duration.as_secs_f64();
    if seconds > 0.0 { (number as f64 / seconds) as u64 } else { 0 }
}

/// Two columns, the first one aligned.
pub(super) fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "  {name:<width$}  {value}");
    }
    out
}

/// The type of a column as a pipeline file would say it.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|field| format!("{}: {}", field.name(), type_name(field.data_type())))
                .collect();
            format!("struct({})", fields.join(", "))
        }
        DataType::List(item) => format!("list({})", type_name(item.data_type())),
        DataType::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Second => "s",
                TimeUnit::Millisecond => "ms",
                TimeUnit::Microsecond => "us",
                TimeUnit::Nanosecond => "ns",
            };
            let zone = zone.as_ref().map_or_else(String::new, |zone| format!(", {zone}"));
            format!("timestamp({unit}{zone})")
        }
        DataType::LargeUtf8 => "large_utf8".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

/// What to do about an error whose message does not say so already.
pub(super) fn advice(error: &Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::BadRecord => Some(
            "everything before it is safe; correct the schema, or set on_bad_record = \"skip\" \
             in [source] to count such records and leave them out",
        ),
        ErrorKind::Panic => Some(
            "this is a bug; everything up to the last checkpoint is safe, and a restart goes on \
             from there",
        ),
        _ => None,
    }
}

/// Prints a document to stdout; a reader that has gone away is nobody's error.
pub(super) fn print_json(document: &impl serde::Serialize) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => tracing::error!(%error, "cannot print the document"),
    }
}

/// Prints to stdout.
pub(super) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(3_000_000), "3,000,000");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(1_000, "file"), "1,000 files");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1 << 20), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!(duration(Duration::from_millis(850)), "850 ms");
        assert_eq!(duration(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_secs(7_500)), "2 h 5 min");
        assert_eq!(rate(10, Duration::ZERO), 0);
        assert_eq!(rate(10, Duration::from_secs(2)), 5);
    }

    #[test]
    fn types_are_called_as_in_the_file() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let fields = vec![Field::new("tags", list, true), Field::new("at", at, true)];
        let name = type_name(&DataType::Struct(fields.into()));
        assert_eq!(name, "struct(tags: list(utf8), at: timestamp(us, UTC))");
        assert_eq!(type_name(&DataType::Decimal128(38, 9)), "decimal128(38, 9)");
        assert_eq!(type_name(&DataType::Int64), "int64");
    }
}
