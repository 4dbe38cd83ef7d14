//! Numbers: exact ones for integers and decimals, nearest ones for floats.
//!
//! Integer columns take every number that is one (`1.0`, `1e3`), decimals every
//! number that their scale can hold; nothing is ever rounded for them. Floats
//! take every number that does not overflow to infinity.

use crate::chunk;
use crate::cursor::{Cursor, Step};
use crate::error::Reason;

/// Ten to the power of what a float holds exactly.
const TENS_F64: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
const TENS_F32: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// Digits that always fit into 64 bits, and into 63.
const DIGITS_U64: usize = 19;
const DIGITS_I64: usize = 18;

/// A number without an exponent and without many digits:
/// `mantissa / 10^fraction`.
struct Plain {
    negative: bool,
    mantissa: u64,
    fraction: usize,
    end: usize,
}

/// Reads a number of the plain form; none when it is another, or no number.
#[inline(always)]
fn plain(cursor: Cursor<'_>) -> Option<Plain> {
    let negative = cursor.byte() == b'-';
    let first = cursor.at + usize::from(negative);
    let (mut mantissa, mut end) = chunk::digits(cursor.bytes, first, 0);
    let mut count = end - first;
    if count == 0 || (count > 1 && byte(cursor, first) == b'0') {
        return None;
    }
    let mut fraction = 0;
    if byte(cursor, end) == b'.' {
        let point = end + 1;
        (mantissa, end) = chunk::digits(cursor.bytes, point, mantissa);
        fraction = end - point;
        count += fraction;
        if fraction == 0 {
            return None;
        }
    }
    if count > DIGITS_U64 || byte(cursor, end) | 0x20 == b'e' {
        return None;
    }
    Some(Plain { negative, mantissa, fraction, end })
}

/// Reads an integer of the plain form; none when it is another, or no number.
#[inline(always)]
fn plain_integer(cursor: Cursor<'_>) -> Option<(i64, usize)> {
    let negative = cursor.byte() == b'-';
    let first = cursor.at + usize::from(negative);
    let (value, end) = chunk::digits(cursor.bytes, first, 0);
    let count = end - first;
    if count == 0 || count > DIGITS_I64 || (count > 1 && byte(cursor, first) == b'0') {
        return None;
    }
    if matches!(byte(cursor, end), b'.' | b'e' | b'E') {
        return None;
    }
    Some((if negative { -(value as i64) } else { value as i64 }, end))
}

#[inline(always)]
fn byte(cursor: Cursor<'_>, at: usize) -> u8 {
    Cursor::new(cursor.bytes, at).byte()
}

/// An integer of type `T`.
#[inline(always)]
pub(crate) fn integer<T>(cursor: &mut Cursor<'_>) -> Step<T>
where
    T: TryFrom<i64> + TryFrom<i128>,
{
    if let Some((value, end)) = plain_integer(*cursor)
        && let Ok(value) = T::try_from(value)
    {
        cursor.at = end;
        return Ok(value);
    }
    let (value, end) = any_integer(*cursor)?;
    cursor.at = end;
    Ok(value)
}

/// A decimal: the number times `10^scale`, below `limit`.
#[inline(always)]
pub(crate) fn decimal(cursor: &mut Cursor<'_>, scale: i8, limit: i128) -> Step<i128> {
    if let Some(plain) = plain(*cursor)
        && let Ok(shift) = u32::try_from(isize::from(scale) - plain.fraction as isize)
        && shift <= 19
    {
        let value = i128::from(plain.mantissa) * 10_i128.pow(shift);
        if value < limit {
            cursor.at = plain.end;
            return Ok(if plain.negative { -value } else { value });
        }
    }
    let (value, end) = any_decimal(*cursor, scale, limit)?;
    cursor.at = end;
    Ok(value)
}

/// The nearest 64-bit float.
#[inline(always)]
pub(crate) fn float64(cursor: &mut Cursor<'_>) -> Step<f64> {
    // Both operands are exact, so that the one division rounds correctly.
    if let Some(plain) = plain(*cursor)
        && plain.mantissa <= 1 << 53
        && let Some(tens) = TENS_F64.get(plain.fraction)
    {
        cursor.at = plain.end;
        let value = plain.mantissa as f64 / tens;
        // Signs are random: a branch on one is mispredicted half of the time.
        return Ok(f64::from_bits(value.to_bits() ^ u64::from(plain.negative) << 63));
    }
    let (value, end) = any_float(*cursor)?;
    cursor.at = end;
    Ok(value)
}

/// The nearest 32-bit float.
#[inline(always)]
pub(crate) fn float32(cursor: &mut Cursor<'_>) -> Step<f32> {
    if let Some(plain) = plain(*cursor)
        && plain.mantissa <= 1 << 24
        && let Some(tens) = TENS_F32.get(plain.fraction)
    {
        cursor.at = plain.end;
        let value = plain.mantissa as f32 / tens;
        return Ok(f32::from_bits(value.to_bits() ^ u32::from(plain.negative) << 31));
    }
    let (value, end) = any_float(*cursor)?;
    cursor.at = end;
    Ok(value)
}

/// What the two widths of floats have in common.
trait Float: Copy + std::str::FromStr + std::ops::Neg<Output = Self> {
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

/// An integer in any spelling, and where it ends.
#[inline(never)]
fn any_integer<T: TryFrom<i128>>(cursor: Cursor<'_>) -> Step<(T, usize)> {
    any(cursor, |token| T::try_from(scaled(token, 0)?).map_err(|_| Reason::Range))
}

/// A decimal in any spelling, and where it ends.
#[inline(never)]
fn any_decimal(cursor: Cursor<'_>, scale: i8, limit: i128) -> Step<(i128, usize)> {
    any(cursor, |token| {
        let value = scaled(token, i64::from(scale))?;
        if value.abs() < limit { Ok(value) } else { Err(Reason::Range) }
    })
}

/// A float in any spelling, and where it ends.
#[inline(never)]
fn any_float<T: Float>(cursor: Cursor<'_>) -> Step<(T, usize)> {
    // The values that JSON has no numbers for, spelt as protobuf does.
    let names = [
        (&b"\"NaN\""[..], T::NAN),
        (b"\"Infinity\"", T::INFINITY),
        (b"\"-Infinity\"", -T::INFINITY),
    ];
    if let Some((name, value)) = names.into_iter().find(|(name, _)| cursor.rest().starts_with(name))
    {
        return Ok((value, cursor.at + name.len()));
    }
    any(cursor, |token| {
        // Every number of JSON is one of Rust; only the range can be wrong.
        let text = std::str::from_utf8(token).map_err(|_| Reason::Text)?;
        let value = text.parse::<T>().map_err(|_| Reason::Text)?;
        if value.is_infinite() { Err(Reason::Range) } else { Ok(value) }
    })
}

/// Converts the number here, in quotes or without, and says where it ends.
/// Numbers in strings are how protobuf's JSON and many JavaScript producers
/// write 64-bit integers.
fn any<T>(start: Cursor<'_>, convert: impl Fn(&[u8]) -> Result<T, Reason>) -> Step<(T, usize)> {
    let mut cursor = start;
    let token = match start.byte() {
        b'-' | b'0'..=b'9' => {
            cursor.skip_number()?;
            start.bytes.get(start.at..cursor.at).unwrap_or_default()
        }
        b'"' => {
            let (body, _) = cursor.skip_string()?;
            let mut inner = Cursor::new(body, 0);
            if inner.skip_number().is_err() || inner.at < body.len() {
                return Err(start.error(Reason::Text));
            }
            body
        }
        _ => return Err(start.mismatch()),
    };
    match convert(token) {
        Ok(value) => Ok((value, cursor.at)),
        Err(reason) => Err(start.error(reason)),
    }
}

/// A number of any length times `10^scale`, exactly.
fn scaled(token: &[u8], scale: i64) -> Result<i128, Reason> {
    let (mut mantissa, mut zeros, mut exponent) = (0_u128, 0_u32, 0_i64);
    let (number, power) = match token.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => token.split_at(at),
        None => (token, &[][..]),
    };
    let mut point = false;
    for byte in number {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            point |= *byte == b'.';
            continue;
        }
        exponent -= i64::from(point);
        if digit == 0 {
            // Zeros count only once another digit follows them.
            zeros += u32::from(mantissa != 0);
            continue;
        }
        let shift = if mantissa == 0 { 0 } else { zeros + 1 };
        mantissa = times_ten(mantissa, shift)
            .and_then(|mantissa| mantissa.checked_add(u128::from(digit)))
            .ok_or(if point { Reason::Inexact } else { Reason::Range })?;
        zeros = 0;
    }
    if mantissa == 0 {
        return Ok(0);
    }
    exponent += i64::from(zeros) + power_of_ten(power) + scale;
    // The mantissa ends with a digit that is not 0: it cannot be divided by ten.
    if exponent < 0 {
        return Err(Reason::Inexact);
    }
    let magnitude = u32::try_from(exponent).ok().and_then(|shift| times_ten(mantissa, shift));
    let value = magnitude.and_then(|value| i128::try_from(value).ok()).ok_or(Reason::Range)?;
    Ok(if token.first() == Some(&b'-') { -value } else { value })
}

fn times_ten(value: u128, shift: u32) -> Option<u128> {
    value.checked_mul(10_u128.checked_pow(shift)?)
}

/// The exponent, from its `e` on; beyond a billion it does not matter.
fn power_of_ten(text: &[u8]) -> i64 {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    let power = digits
        .fold(0_i64, |power, digit| (power * 10 + i64::from(digit - b'0')).min(1_000_000_000));
    if text.get(1) == Some(&b'-') { -power } else { power }
}
