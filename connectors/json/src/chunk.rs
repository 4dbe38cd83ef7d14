//! Several bytes at a time: where a string stops, and what digits amount to.
//!

use wide::u8x16;

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Ten to the power of up to eight.
const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// Where in a chunk of a string something stands that is more than a character.
pub(crate) struct Stop {
    /// The index of the first quote, backslash or control character; 16 when
    /// there is none.
    pub(crate) at: usize,
    /// Whether anything before it is not ASCII.
    pub(crate) wide: bool,
}

/// Finds the first special byte.
#[inline(always)]
pub(crate) fn stop(chunk: [u8; 16]) -> Stop {
    let bytes = u8x16::new(chunk);
    let quote = bytes.simd_eq(u8x16::splat(b'"'));
    let backslash = bytes.simd_eq(u8x16::splat(b'\\'));
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    // The bit behind the sixteen stands for the end.
    let special = (quote | backslash | control).to_bitmask() | 1 << 16;
    let before = (special - 1) & !special;
    Stop { at: special.trailing_zeros() as usize, wide: bytes.to_bitmask() & before != 0 }
}

/// The sixteen bytes from `at` on, filled up with zeros behind the end: no text
/// goes on with a zero, and no number.
#[inline(always)]
pub(crate) fn window(bytes: &[u8], at: usize) -> [u8; 16] {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(chunk) => *chunk,
        None => last_window(bytes, at).to_le_bytes(),
    }
}

/// The eight bytes from `at` on, filled up like [`window`].
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => last_window(bytes, at) as u64,
    }
}

#[inline(never)]
fn last_window(bytes: &[u8], at: usize) -> u128 {
    let rest = bytes.get(at..).unwrap_or_default();
    match bytes.last_chunk() {
        // The bytes before `at` are shifted out, zeros come in behind the end.
        Some(chunk) => {
            let missing = 16 - rest.len().min(16);
            u128::from_le_bytes(*chunk).checked_shr(8 * missing as u32).unwrap_or(0)
        }
        None => rest.iter().rev().fold(0, |window, byte| window << 8 | u128::from(*byte)),
    }
}

/// Appends the digits from `at` on to `value` and gives the index behind them.
/// More than nineteen in all wrap around; whoever asks counts them.
#[inline(always)]
pub(crate) fn digits(bytes: &[u8], mut at: usize, mut value: u64) -> (u64, usize) {
    loop {
        let (number, count) = leading_digits(word(bytes, at));
        value = value.wrapping_mul(TENS[count]).wrapping_add(number);
        at += count;
        if count < 8 {
            return (value, at);
        }
    }
}

/// The number that a word begins with, and how many digits it has.
///
/// Numbers have few digits and seldom the same count twice, so a loop over
/// them is one mispredicted branch per number; this has none.
#[inline(always)]
fn leading_digits(word: u64) -> (u64, usize) {
    let values = word ^ (LOW * b'0' as u64);
    let bits = not_digits(values).trailing_zeros() & !7;
    // What follows the digits goes out at the top, zeros come in in front.
    let digits = if bits == 0 { 0 } else { values << (64 - bits) };
    (eight_digits(digits), bits as usize / 8)
}

/// The high bit of the first byte above nine; bits above that one may be set
/// for no reason.
#[inline(always)]
fn not_digits(values: u64) -> u64 {
    (values.wrapping_add(LOW * (0x80 - 10)) | values) & HIGH
}

/// Eight values below ten as one number: neighbours are put together to pairs,
/// then pairs and quadruples, each step in all places at once.
#[inline(always)]
fn eight_digits(values: u64) -> u64 {
    const EVEN: u64 = 0x0000_00ff_0000_00ff;
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let outer = (pairs & EVEN).wrapping_mul(100 + (1_000_000 << 32));
    let inner = (pairs >> 16 & EVEN).wrapping_mul(1 + (10_000 << 32));
    outer.wrapping_add(inner) >> 32
}

/// The pairs of digits in a text of the form of `mark`, where a `0` stands for
/// a digit and anything else for itself: byte n of the result is the number
/// that the bytes n and n + 1 of the text make. None when the form is another.
#[inline(always)]
pub(crate) fn digit_pairs(text: &[u8; 8], form: &[u8; 8]) -> Option<[u8; 8]> {
    // Digits become their values, the right marks become zeros.
    let values = u64::from_le_bytes(*text) ^ u64::from_le_bytes(*form);
    let mut limit = [0; 8];
    for (limit, form) in limit.iter_mut().zip(form) {
        *limit = if *form == b'0' { 0x80 - 10 } else { 0x7f };
    }
    let beyond = values.wrapping_add(u64::from_le_bytes(limit)) | values;
    if beyond & HIGH != 0 {
        return None;
    }
    Some(values.wrapping_mul(10).wrapping_add(values >> 8).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_the_first_special_byte() {
        let mut state = 1_u64;
        for round in 0..200_000 {
            let mut chunk = [0; 16];
            for byte in &mut chunk {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let random = (state >> 56) as u8;
                *byte = match round % 4 {
                    0 => random,
                    1 => b'a' + random % 26,
                    2 if random < 250 => b'a' | random & 0x80,
                    2 => random % 0x23,
                    _ => [b'"', b'"' + 1, b'\\', 0x1f, 0x20, 0x7f, 0x80, 0xa2][random as usize % 8],
                };
            }
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let at = chunk.iter().position(special).unwrap_or(16);
            let wide = !chunk[..at].is_ascii();
            let found = stop(chunk);
            assert_eq!((found.at, found.wide), (at, wide), "{chunk:?}");
        }
    }

    #[test]
    fn windows_end_with_zeros() {
        let message: Vec<u8> = (1..=40).collect();
        for length in 0..=message.len() {
            let message = &message[..length];
            for at in 0..=length + 1 {
                let mut expected = [0; 16];
                for (index, byte) in message.iter().skip(at).take(16).enumerate() {
                    expected[index] = *byte;
                }
                assert_eq!(window(message, at), expected);
                assert_eq!(word(message, at).to_le_bytes(), expected[..8]);
            }
        }
    }

    #[test]
    fn digits_of_every_count_before_every_byte() {
        for count in 0..=8 {
            for follower in 0..=255_u8 {
                let mut chunk = [follower; 8];
                chunk[..count].copy_from_slice(&b"90817263"[..count]);
                let all = std::str::from_utf8(&chunk).unwrap_or("");
                let found = leading_digits(u64::from_le_bytes(chunk));
                if follower.is_ascii_digit() {
                    assert_eq!(found, (all.parse().unwrap(), 8));
                } else {
                    let number = "90817263"[..count].parse().unwrap_or(0);
                    assert_eq!(found, (number, count), "{chunk:?}");
                }
            }
        }
        for length in 0..=19 {
            let text = format!("{}x", &"1234567890123456789"[..length]);
            let number = text[..length].parse().unwrap_or(0);
            assert_eq!(digits(text.as_bytes(), 0, 0), (number, length));
        }
        assert_eq!(digits(b"12.3456", 3, 12), (123_456, 7));
    }

    #[test]
    fn pairs_are_taken_only_from_the_right_form() {
        let form = b"0000-00-";
        assert_eq!(digit_pairs(b"2026-01-", form).map(|p| (p[0], p[2], p[5])), Some((20, 26, 1)));
        for at in 0..8 {
            for byte in 0..=255_u8 {
                let mut text = *b"2026-01-";
                text[at] = byte;
                let right = if form[at] == b'0' { byte.is_ascii_digit() } else { byte == form[at] };
                assert_eq!(digit_pairs(&text, form).is_some(), right, "{text:?}");
            }
        }
    }
}
