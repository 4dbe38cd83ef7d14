//! Timestamps and dates.
//!
//! `2026-01-31T09:26:56.123Z` and its like are read here; everything else that
//! Arrow understands as a timestamp (other offsets, a space instead of the `T`,
//! a date alone) is left to Arrow. Digits beyond the column's unit are dropped.

use std::str::FromStr;

use arrow::array::timezone::Tz;
use arrow::array::types::Date32Type;
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::TimeUnit;
use arrow::error::ArrowError;

use crate::chunk;
use crate::cursor::{Cursor, Step};
use crate::error::Reason;
use crate::number;

/// How a timestamp column counts.
#[derive(Debug)]
pub(crate) struct Clock {
    unit: TimeUnit,
    /// What a text without an offset is meant in.
    zone: Tz,
    /// The column has a named zone. Without its rules nobody can tell what a
    /// text without an offset means, so it is refused.
    named: bool,
}

impl Clock {
    pub(crate) fn new(unit: TimeUnit, zone: Option<&str>) -> Result<Self, ArrowError> {
        let (offset, named) = match zone {
            None | Some("UTC" | "Etc/UTC" | "Z") => ("+00:00", false),
            Some(zone) if zone.starts_with(['+', '-']) => (zone, false),
            Some(_) => ("+00:00", true),
        };
        Ok(Self { unit, zone: Tz::from_str(offset)?, named })
    }

    /// Reads a timestamp: text, or a number in the column's unit.
    #[inline(always)]
    pub(crate) fn read(&self, cursor: &mut Cursor<'_>, scratch: &mut Vec<u8>) -> Step<i64> {
        if cursor.byte() != b'"' {
            return number::integer(cursor);
        }
        match self.common_form(*cursor) {
            Some((value, length)) => {
                cursor.at += length;
                Ok(value)
            }
            None => {
                let (value, end) = self.any_form(*cursor, scratch)?;
                cursor.at = end;
                Ok(value)
            }
        }
    }

    /// `"2026-01-31T09:26:56Z"` with up to nine more digits, and its length.
    #[inline(always)]
    fn common_form(&self, cursor: Cursor<'_>) -> Option<(i64, usize)> {
        let text: &[u8; 22] = cursor.chunk()?;
        let days = date(text.get(1..)?.first_chunk()?)?;
        let time = chunk::digit_pairs(text.get(12..)?.first_chunk()?, b"00:00:00")?;
        let [hour, minute, second] = [time[0], time[3], time[6]].map(i64::from);
        if text[11] != b'T' || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = i64::from(days) * 86_400 + hour * 3_600 + minute * 60 + second;
        let (nanos, behind) = if text[20] == b'.' { fraction(cursor.rest(), 21)? } else { (0, 20) };
        if cursor.rest().get(behind..)?.first_chunk() != Some(b"Z\"") {
            return None;
        }
        Some((self.count(seconds, nanos)?, behind + 2))
    }

    /// Whole seconds and nanoseconds as a number of units.
    #[inline]
    fn count(&self, seconds: i64, nanos: i64) -> Option<i64> {
        match self.unit {
            TimeUnit::Second => Some(seconds),
            TimeUnit::Millisecond => Some(seconds * 1_000 + nanos / 1_000_000),
            TimeUnit::Microsecond => Some(seconds * 1_000_000 + nanos / 1_000),
            // 64 bits of nanoseconds end in 1677 and in 2262.
            TimeUnit::Nanosecond => {
                i64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(nanos)).ok()
            }
        }
    }

    #[inline(never)]
    fn any_form(&self, opening: Cursor<'_>, scratch: &mut Vec<u8>) -> Step<(i64, usize)> {
        let (text, end) = text(opening, scratch)?;
        let value = if self.named && !has_offset(text) { None } else { self.parse(text) };
        value.map(|value| (value, end)).ok_or_else(|| opening.error(Reason::Text))
    }

    fn parse(&self, text: &str) -> Option<i64> {
        let time = string_to_datetime(&self.zone, text).ok()?;
        match self.unit {
            TimeUnit::Second => Some(time.timestamp()),
            TimeUnit::Millisecond => Some(time.timestamp_millis()),
            TimeUnit::Microsecond => Some(time.timestamp_micros()),
            TimeUnit::Nanosecond => time.timestamp_nanos_opt(),
        }
    }
}

/// Whether a timestamp says its offset from UTC; the first ten bytes are the
/// date, which has hyphens of its own.
fn has_offset(text: &str) -> bool {
    text.bytes().skip(10).any(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-'))
}

/// Reads a date as days since 1970-01-01: text, or the number itself.
#[inline(always)]
pub(crate) fn read_date(cursor: &mut Cursor<'_>, scratch: &mut Vec<u8>) -> Step<i32> {
    if cursor.byte() != b'"' {
        return number::integer(cursor);
    }
    if let Some(text) = cursor.chunk::<12>()
        && text[11] == b'"'
        && let Some(days) = text.get(1..).and_then(|text| date(text.first_chunk()?))
    {
        cursor.at += 12;
        return Ok(days);
    }
    let (days, end) = any_date(*cursor, scratch)?;
    cursor.at = end;
    Ok(days)
}

#[inline(never)]
fn any_date(opening: Cursor<'_>, scratch: &mut Vec<u8>) -> Step<(i32, usize)> {
    let (text, end) = text(opening, scratch)?;
    let days = Date32Type::parse(text);
    days.map(|days| (days, end)).ok_or_else(|| opening.error(Reason::Text))
}

/// The text of the string here, and where the string ends.
fn text<'a>(opening: Cursor<'_>, scratch: &'a mut Vec<u8>) -> Step<(&'a str, usize)> {
    let mut cursor = opening;
    scratch.clear();
    cursor.copy_string(scratch)?;
    match std::str::from_utf8(scratch) {
        Ok(text) => Ok((text, cursor.at)),
        Err(_) => Err(opening.error(Reason::Utf8)),
    }
}

/// One to nine digits from `at` on, in nanoseconds, and where they end.
#[inline(always)]
fn fraction(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    const NANOS: [i64; 10] =
        [0, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    let (value, end) = chunk::digits(bytes, at, 0);
    match end - at {
        0 => None,
        count => Some((value as i64 * NANOS.get(count)?, end)),
    }
}

/// `2026-01-31` as days since 1970-01-01.
///
/// The days of a date by Howard Hinnant's `days_from_civil`: counted from the
/// first of March, so that the leap day is the last one of a year.
#[inline(always)]
fn date(text: &[u8; 10]) -> Option<i32> {
    let front = chunk::digit_pairs(text.first_chunk()?, b"0000-00-")?;
    let back = chunk::digit_pairs(text.last_chunk()?, b"00-00-00")?;
    let year = i32::from(front[0]) * 100 + i32::from(front[2]);
    let (month, day) = (i32::from(front[5]), i32::from(back[6]));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i32::from(leap),
        _ => return None,
    };
    if day < 1 || day > last {
        return None;
    }
    let march_year = year - i32::from(month <= 2);
    let era = march_year.div_euclid(400);
    let year_of_era = march_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}
