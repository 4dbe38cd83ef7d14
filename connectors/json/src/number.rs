//! Numbers: exact ones for integers and decimals, nearest ones for floats.
//!
//! Integer columns take every number that is one (`1.0`, `1e3`), decimals every
//! number that their scale can hold; nothing is ever rounded for them. Floats
//! take every number that does not overflow to infinity.

use crate::cursor::{Cursor, Step};
use crate::error::{DecodeError, Reason};

/// Ten to the power of what a float holds exactly.
const TENS_F64: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
const TENS_F32: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// Digits that always fit into 64 bits.
const SAFE_DIGITS: usize = 19;

/// A number as it was read, if `exact`: `mantissa × 10^exponent`.
struct Scan {
    negative: bool,
    mantissa: u64,
    exponent: i32,
    exact: bool,
}

/// Reads a number with `parse`, within quotes or without. Numbers in strings
/// are how protobuf's JSON and many JavaScript producers write 64-bit integers.
#[inline(always)]
pub(crate) fn maybe_quoted<'a, T>(
    cursor: &mut Cursor<'a>,
    parse: impl Fn(&mut Cursor<'a>) -> Step<T>,
) -> Step<T> {
    match cursor.byte() {
        b'-' | b'0'..=b'9' => parse(cursor),
        b'"' => quoted(cursor, parse),
        _ => Err(cursor.mismatch()),
    }
}

#[cold]
fn quoted<'a, T>(cursor: &mut Cursor<'a>, parse: impl Fn(&mut Cursor<'a>) -> Step<T>) -> Step<T> {
    let opening = cursor.at;
    let (body, _) = cursor.skip_string()?;
    let mut inner = Cursor::new(body);
    let value = match parse(&mut inner) {
        Ok(value) if inner.at == body.len() => value,
        Err(error) if error.is_about_value() => return Err(error.moved(opening + 1)),
        _ => return Err(DecodeError::new(opening, Reason::Text)),
    };
    Ok(value)
}

/// An integer of type `T`.
#[inline(always)]
pub(crate) fn integer<T: TryFrom<i128>>(cursor: &mut Cursor<'_>) -> Step<T> {
    maybe_quoted(cursor, |cursor| {
        let start = cursor.at;
        let negative = cursor.byte() == b'-';
        let first = start + usize::from(negative);
        let mut at = first;
        let mut value = 0_u64;
        while let Some(digit) = digit(cursor.bytes, at) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        let count = at - first;
        let more = matches!(cursor.bytes.get(at), Some(b'.' | b'e' | b'E'));
        let zero_first = cursor.bytes.get(first) == Some(&b'0');
        let exact = if more || count > SAFE_DIGITS || count == 0 || (zero_first && count > 1) {
            scaled(cursor, 0)?
        } else {
            cursor.at = at;
            if negative { -i128::from(value) } else { i128::from(value) }
        };
        T::try_from(exact).map_err(|_| DecodeError::new(start, Reason::Range))
    })
}

/// A decimal: the number times `10^scale`, below `limit`.
pub(crate) fn decimal(cursor: &mut Cursor<'_>, scale: i8, limit: i128) -> Step<i128> {
    maybe_quoted(cursor, |cursor| {
        let start = cursor.at;
        let scan = scan(cursor)?;
        let shift = scan.exponent.saturating_add(i32::from(scale));
        let value = match u32::try_from(shift) {
            Ok(shift) if scan.exact && shift < 19 => {
                let value = i128::from(scan.mantissa) * 10_i128.pow(shift);
                if scan.negative { -value } else { value }
            }
            _ => {
                cursor.at = start;
                scaled(cursor, i64::from(scale))?
            }
        };
        if value.abs() >= limit {
            return Err(DecodeError::new(start, Reason::Range));
        }
        Ok(value)
    })
}

/// The nearest 64-bit float.
#[inline(always)]
pub(crate) fn float64(cursor: &mut Cursor<'_>) -> Step<f64> {
    float(cursor, |scan| {
        // Both operands are exact, so the one operation rounds correctly.
        if scan.mantissa > 1 << 53 {
            return None;
        }
        let tens = TENS_F64.get(scan.exponent.unsigned_abs() as usize)?;
        let value = scan.mantissa as f64;
        Some(if scan.exponent < 0 { value / tens } else { value * tens })
    })
}

/// The nearest 32-bit float.
#[inline(always)]
pub(crate) fn float32(cursor: &mut Cursor<'_>) -> Step<f32> {
    float(cursor, |scan| {
        if scan.mantissa > 1 << 24 {
            return None;
        }
        let tens = TENS_F32.get(scan.exponent.unsigned_abs() as usize)?;
        let value = scan.mantissa as f32;
        Some(if scan.exponent < 0 { value / tens } else { value * tens })
    })
}

/// What the two widths of floats have in common.
pub(crate) trait Float: Copy + std::str::FromStr + std::ops::Neg<Output = Self> {
    const NAN: Self;
    const INFINITY: Self;
    fn is_infinite(self) -> bool;
}

macro_rules! float {
    ($($type:ty),*) => {$(
        impl Float for $type {
            const NAN: Self = <$type>::NAN;
            const INFINITY: Self = <$type>::INFINITY;
            fn is_infinite(self) -> bool {
                <$type>::is_infinite(self)
            }
        }
    )*};
}
float!(f32, f64);

#[inline(always)]
fn float<T: Float>(cursor: &mut Cursor<'_>, fast: impl Fn(&Scan) -> Option<T>) -> Step<T> {
    if cursor.byte() == b'"'
        && let Some(value) = named_float(cursor)
    {
        return Ok(value);
    }
    maybe_quoted(cursor, |cursor| {
        let start = cursor.at;
        let scan = scan(cursor)?;
        if scan.exact
            && let Some(value) = fast(&scan)
        {
            return Ok(if scan.negative { -value } else { value });
        }
        slow_float(cursor, start)
    })
}

#[inline(never)]
fn slow_float<T: Float>(cursor: &Cursor<'_>, start: usize) -> Step<T> {
    let token = cursor.bytes.get(start..cursor.at).unwrap_or_default();
    // Every number of JSON is one of Rust; only the range can be wrong.
    match std::str::from_utf8(token).ok().and_then(|token| token.parse::<T>().ok()) {
        Some(value) if !value.is_infinite() => Ok(value),
        _ => Err(DecodeError::new(start, Reason::Range)),
    }
}

/// The three values that JSON has no numbers for, spelt as protobuf does.
#[cold]
fn named_float<T: Float>(cursor: &mut Cursor<'_>) -> Option<T> {
    let names = [
        (&b"\"NaN\""[..], T::NAN),
        (b"\"Infinity\"", T::INFINITY),
        (b"\"-Infinity\"", -T::INFINITY),
    ];
    let (name, value) = names.into_iter().find(|(name, _)| cursor.rest().starts_with(name))?;
    cursor.at += name.len();
    Some(value)
}

#[inline(always)]
fn digit(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = bytes.get(at)?.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

/// Reads a number, and its value as far as 64 bits can hold it.
#[inline(always)]
fn scan(cursor: &mut Cursor<'_>) -> Step<Scan> {
    let bytes = cursor.bytes;
    let negative = cursor.byte() == b'-';
    let first = cursor.at + usize::from(negative);
    let mut at = first;
    let mut mantissa = 0_u64;
    while let Some(digit) = digit(bytes, at) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    let mut digits = at - first;
    if digits == 0 || (digits > 1 && bytes.get(first) == Some(&b'0')) {
        cursor.at = first + digits.min(1);
        return Err(cursor.expected(if digits == 0 { "a digit" } else { "no leading zero" }));
    }
    let mut exponent = 0_i32;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let point = at;
        while let Some(digit) = digit(bytes, at) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        let fraction = at - point;
        if fraction == 0 {
            cursor.at = at;
            return Err(cursor.expected("a digit"));
        }
        digits += fraction;
        exponent = -(fraction.min(1 << 20) as i32);
    }
    cursor.at = at;
    if matches!(cursor.byte(), b'e' | b'E') {
        exponent = exponent.saturating_add(read_exponent(cursor)?);
    }
    Ok(Scan { negative, mantissa, exponent, exact: digits <= SAFE_DIGITS })
}

/// The exponent, from its `e` on; beyond a billion it does not matter.
#[inline(never)]
fn read_exponent(cursor: &mut Cursor<'_>) -> Step<i32> {
    cursor.at += 1;
    let negative = cursor.byte() == b'-';
    if matches!(cursor.byte(), b'+' | b'-') {
        cursor.at += 1;
    }
    if !cursor.byte().is_ascii_digit() {
        return Err(cursor.expected("a digit"));
    }
    let mut exponent = 0_i32;
    while let Some(digit) = digit(cursor.bytes, cursor.at) {
        exponent = exponent.saturating_mul(10).saturating_add(i32::from(digit)).min(1_000_000_000);
        cursor.at += 1;
    }
    Ok(if negative { -exponent } else { exponent })
}

/// A number of any length times `10^scale`, exactly.
#[inline(never)]
fn scaled(cursor: &mut Cursor<'_>, scale: i64) -> Step<i128> {
    let start = cursor.at;
    scan(cursor)?;
    let token = cursor.bytes.get(start..cursor.at).unwrap_or_default();
    let fail = |reason| Err(DecodeError::new(start, reason));
    let (mut mantissa, mut zeros, mut exponent) = (0_u128, 0_u32, 0_i64);
    let mut point = false;
    for (index, &byte) in token.iter().enumerate() {
        match byte {
            b'-' => {}
            b'.' => point = true,
            b'0'..=b'9' => {
                exponent -= i64::from(point);
                // Zeros count only once another digit follows them.
                zeros += u32::from(mantissa != 0);
                if byte != b'0' {
                    let shifted = if mantissa == 0 {
                        Some(0)
                    } else {
                        10_u128.checked_pow(zeros).and_then(|tens| mantissa.checked_mul(tens))
                    };
                    let digit = u128::from(byte - b'0');
                    let Some(next) = shifted.and_then(|shifted| shifted.checked_add(digit)) else {
                        return fail(if point { Reason::Inexact } else { Reason::Range });
                    };
                    mantissa = next;
                    zeros = 0;
                }
            }
            _ => {
                let mut tail = Cursor { bytes: token, at: index };
                exponent += i64::from(read_exponent(&mut tail)?);
                break;
            }
        }
    }
    if mantissa == 0 {
        return Ok(0);
    }
    // The mantissa ends with a digit that is not 0: it cannot be divided by ten.
    let Ok(shift) = u32::try_from(exponent + i64::from(zeros) + scale) else {
        return fail(if exponent + i64::from(zeros) + scale < 0 {
            Reason::Inexact
        } else {
            Reason::Range
        });
    };
    let magnitude = 10_u128.checked_pow(shift).and_then(|tens| mantissa.checked_mul(tens));
    match magnitude.map(i128::try_from) {
        Some(Ok(value)) => Ok(if token.first() == Some(&b'-') { -value } else { value }),
        _ => fail(Reason::Range),
    }
}
