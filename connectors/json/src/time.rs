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

use crate::cursor::{Cursor, Step};
use crate::error::{DecodeError, Reason};
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
    #[inline]
    pub(crate) fn read(&self, cursor: &mut Cursor<'_>, scratch: &mut Vec<u8>) -> Step<i64> {
        if cursor.byte() != b'"' {
            return number::integer(cursor);
        }
        match self.common_form(cursor) {
            Some((value, length)) => {
                cursor.at += length;
                Ok(value)
            }
            None => self.any_form(cursor, scratch),
        }
    }

    /// `"2026-01-31T09:26:56Z"` with up to 9 more digits, and its length.
    #[inline]
    fn common_form(&self, cursor: &Cursor<'_>) -> Option<(i64, usize)> {
        let text: &[u8; 22] = cursor.chunk()?;
        let days = date(text.get(1..)?.first_chunk()?)?;
        let pair = |at: usize| -> Option<i64> {
            let (high, low) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
            (high < 10 && low < 10).then_some(i64::from(high) * 10 + i64::from(low))
        };
        let (hour, minute, second) = (pair(12)?, pair(15)?, pair(18)?);
        let marks = text[11] == b'T' && text[14] == b':' && text[17] == b':';
        if !marks || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = i64::from(days) * 86_400 + hour * 3_600 + minute * 60 + second;
        let (nanos, behind) = if text[20] == b'.' { fraction(cursor.rest(), 21)? } else { (0, 20) };
        if cursor.rest().get(behind..behind + 2) != Some(b"Z\"") {
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
    fn any_form(&self, cursor: &mut Cursor<'_>, scratch: &mut Vec<u8>) -> Step<i64> {
        let opening = cursor.at;
        let text = text(cursor, scratch)?;
        let value = if self.named && !has_offset(text) { None } else { self.parse(text) };
        value.ok_or_else(|| DecodeError::new(opening, Reason::Text))
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
    let opening = cursor.at;
    let text = text(cursor, scratch)?;
    Date32Type::parse(text).ok_or_else(|| DecodeError::new(opening, Reason::Text))
}

/// The text of the string here.
fn text<'a>(cursor: &mut Cursor<'_>, scratch: &'a mut Vec<u8>) -> Step<&'a str> {
    let opening = cursor.at;
    scratch.clear();
    cursor.copy_string(scratch)?;
    std::str::from_utf8(scratch).map_err(|_| DecodeError::new(opening, Reason::Utf8))
}

/// Up to nine digits from `at` on, in nanoseconds, and where they end.
#[inline]
fn fraction(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    const UNITS: [i64; 10] =
        [0, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    let mut value = 0;
    let mut end = at;
    while let Some(digit) = bytes.get(end).map(|byte| byte.wrapping_sub(b'0')).filter(|d| *d < 10) {
        value = value * 10 + i64::from(digit);
        end += 1;
        if end - at > 9 {
            return None;
        }
    }
    match end - at {
        0 => None,
        count => Some((value * UNITS.get(count)?, end)),
    }
}

/// `2026-01-31` as days since 1970-01-01.
///
/// The days of a date by Howard Hinnant's `days_from_civil`: counted from the
/// first of March, so that the leap day is the last one of a year.
#[inline]
fn date(text: &[u8; 10]) -> Option<i32> {
    let mut digits = [0_i32; 8];
    for (digit, at) in digits.iter_mut().zip([0, 1, 2, 3, 5, 6, 8, 9]) {
        *digit = i32::from(text[at].wrapping_sub(b'0'));
        if *digit > 9 {
            return None;
        }
    }
    let [y3, y2, y1, y0, m1, m0, d1, d0] = digits;
    let year = y3 * 1000 + y2 * 100 + y1 * 10 + y0;
    let (month, day) = (m1 * 10 + m0, d1 * 10 + d0);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i32::from(leap),
        _ => return None,
    };
    if text[4] != b'-' || text[7] != b'-' || day < 1 || day > last {
        return None;
    }
    let march_year = year - i32::from(month <= 2);
    let era = march_year.div_euclid(400);
    let year_of_era = march_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}
