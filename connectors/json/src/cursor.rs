//! A place in a message, and the steps that take it forward: white space,
//! literals, strings, and values that nobody wants.

use crate::MAX_DEPTH;
use crate::error::{DecodeError, Found, Reason};

/// The result of every step.
pub(crate) type Step<T> = Result<T, DecodeError>;

/// A place in a message.
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The byte here; 0, which is never valid in JSON, behind the end.
    #[inline(always)]
    pub(crate) fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Everything from here on.
    #[inline(always)]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next `N` bytes, where there are as many.
    #[inline(always)]
    pub(crate) fn chunk<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.rest().first_chunk()
    }

    #[cold]
    pub(crate) fn error(&self, reason: Reason) -> DecodeError {
        DecodeError::new(self.at, reason)
    }

    /// JSON wants something else here.
    #[cold]
    pub(crate) fn expected(&self, what: &'static str) -> DecodeError {
        self.error(Reason::Syntax(what, Found::at(self.bytes, self.at)))
    }

    /// The column takes something else; junk that no value begins with is a
    /// type error as well, because the column is what the reader looks for.
    #[cold]
    pub(crate) fn mismatch(&self) -> DecodeError {
        self.error(Reason::Type(Found::at(self.bytes, self.at)))
    }

    #[inline(always)]
    pub(crate) fn skip_space(&mut self) {
        if self.byte() <= b' ' {
            self.skip_spaces();
        }
    }

    fn skip_spaces(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Steps over `word`, which the byte here has promised.
    #[inline]
    pub(crate) fn literal(&mut self, word: &'static str) -> Step<()> {
        if self.rest().starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.expected(word))
    }

    /// Steps over the colon behind a key, and white space around it.
    #[inline]
    pub(crate) fn colon(&mut self) -> Step<()> {
        self.skip_space();
        if self.byte() != b':' {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(())
    }

    /// From the opening quote of a string to behind its closing one; gives
    /// what is between them and whether there is an escape sequence in it.
    pub(crate) fn skip_string(&mut self) -> Step<(&'a [u8], bool)> {
        if self.byte() != b'"' {
            return Err(self.expected("a string"));
        }
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.skip_plain();
            match self.byte() {
                b'"' => {
                    let body = self.bytes.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok((body, escaped));
                }
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                    match self.byte() {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                        b'u' => {
                            self.at += 1;
                            self.hex()?;
                        }
                        _ => return Err(self.error(Reason::Escape)),
                    }
                }
                _ => return Err(self.unterminated()),
            }
        }
    }

    /// A string stopped at something that cannot be in it.
    #[cold]
    fn unterminated(&self) -> DecodeError {
        if self.at >= self.bytes.len() {
            self.expected("the end of a string")
        } else {
            self.error(Reason::Control)
        }
    }

    /// Goes to the next quote, backslash or control character, or to the end.
    #[inline]
    fn skip_plain(&mut self) {
        let (chunks, tail) = self.rest().as_chunks::<8>();
        for chunk in chunks {
            let found = special(u64::from_le_bytes(*chunk));
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        self.at += tail.iter().position(|b| is_special(*b)).unwrap_or(tail.len());
    }

    /// Appends the text of the string here to `out`, without its quotes and
    /// with its escape sequences resolved, and steps behind it.
    #[inline]
    pub(crate) fn copy_string(&mut self, out: &mut Vec<u8>) -> Step<()> {
        if self.byte() != b'"' {
            return Err(self.mismatch());
        }
        let (opening, start) = (self.at, out.len());
        self.at += 1;
        let mut seen = self.copy_plain(out);
        while self.byte() != b'"' {
            if self.byte() != b'\\' {
                return Err(self.unterminated());
            }
            self.at += 1;
            self.escape(out)?;
            seen |= self.copy_plain(out);
        }
        self.at += 1;
        if seen & HIGH != 0 && std::str::from_utf8(out.get(start..).unwrap_or_default()).is_err() {
            return Err(DecodeError::new(opening, Reason::Utf8));
        }
        Ok(())
    }

    /// Appends everything up to the next special byte. Gives the bits that any
    /// of the bytes had: without the high one among them it is plain ASCII.
    ///
    /// A chunk is written as a whole and cut afterwards: stores of a fixed size
    /// are much cheaper than a call for every few bytes.
    #[inline]
    fn copy_plain(&mut self, out: &mut Vec<u8>) -> u64 {
        let (chunks, tail) = self.rest().as_chunks::<8>();
        let mut seen = 0;
        for chunk in chunks {
            let word = u64::from_le_bytes(*chunk);
            out.extend_from_slice(chunk);
            let found = special(word);
            if found != 0 {
                let count = found.trailing_zeros() as usize / 8;
                out.truncate(out.len() - 8 + count);
                self.at += count;
                return seen | (word & ((1 << (8 * count)) - 1));
            }
            seen |= word;
            self.at += 8;
        }
        for &byte in tail {
            if is_special(byte) {
                break;
            }
            out.push(byte);
            seen |= u64::from(byte);
            self.at += 1;
        }
        seen
    }

    /// Appends what the escape sequence stands for; the backslash is behind us.
    #[cold]
    pub(crate) fn escape(&mut self, out: &mut Vec<u8>) -> Step<()> {
        let plain = match self.byte() {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.at += 1;
                let character = self.unicode()?;
                let mut buffer = [0; 4];
                out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
                return Ok(());
            }
            _ => return Err(self.error(Reason::Escape)),
        };
        self.at += 1;
        out.push(plain);
        Ok(())
    }

    /// The character of `XXXX` or `XXXX\uXXXX`.
    fn unicode(&mut self) -> Step<char> {
        let start = self.at;
        let first = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&first) && self.rest().starts_with(b"\\u") {
            self.at += 2;
            let second = self.hex()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(DecodeError::new(start, Reason::Surrogate));
            }
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| DecodeError::new(start, Reason::Surrogate))
    }

    fn hex(&mut self) -> Step<u32> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(self.byte()).to_digit(16) else {
                return Err(self.error(Reason::Escape));
            };
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }

    /// Steps over a number.
    pub(crate) fn skip_number(&mut self) -> Step<()> {
        if self.byte() == b'-' {
            self.at += 1;
        }
        match self.byte() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.skip_digits(),
            _ => return Err(self.expected("a digit")),
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.one_digit()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.one_digit()?;
        }
        Ok(())
    }

    fn one_digit(&mut self) -> Step<()> {
        if !self.byte().is_ascii_digit() {
            return Err(self.expected("a digit"));
        }
        self.skip_digits();
        Ok(())
    }

    fn skip_digits(&mut self) {
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
    }

    /// Steps over one value of any kind, checking its grammar but not the
    /// encoding of its strings. Needs no stack: a bit per level will do.
    pub(crate) fn skip_value(&mut self) -> Step<()> {
        let mut depth = 0;
        // Bit n: level n is an object.
        let mut objects = 0_u64;
        loop {
            match self.byte() {
                b'"' => _ = self.skip_string()?,
                open @ (b'{' | b'[') => {
                    if depth == MAX_DEPTH {
                        return Err(self.error(Reason::Depth));
                    }
                    self.at += 1;
                    self.skip_space();
                    let object = open == b'{';
                    if self.byte() == if object { b'}' } else { b']' } {
                        self.at += 1;
                    } else {
                        objects = (objects & !(1 << depth)) | (u64::from(object) << depth);
                        depth += 1;
                        if object {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                b'-' | b'0'..=b'9' => self.skip_number()?,
                _ => return Err(self.expected("a value")),
            }
            if self.close_levels(&mut depth, objects)? {
                return Ok(());
            }
        }
    }

    /// Behind a value: leaves the levels that end here. True when none is left,
    /// else the cursor stands before the next value.
    fn close_levels(&mut self, depth: &mut usize, objects: u64) -> Step<bool> {
        while *depth > 0 {
            self.skip_space();
            let object = objects >> (*depth - 1) & 1 == 1;
            match self.byte() {
                b',' => {
                    self.at += 1;
                    self.skip_space();
                    if object {
                        self.skip_key()?;
                    }
                    return Ok(false);
                }
                b'}' if object => self.at += 1,
                b']' if !object => self.at += 1,
                _ if object => return Err(self.expected("`,` or `}`")),
                _ => return Err(self.expected("`,` or `]`")),
            }
            *depth -= 1;
        }
        Ok(true)
    }

    /// Steps over a key and its colon, up to the value.
    fn skip_key(&mut self) -> Step<()> {
        self.skip_string()?;
        self.colon()?;
        self.skip_space();
        Ok(())
    }
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of the first byte that is a quote, a backslash or a control
/// character; bits above that one may be set for no reason.
#[inline(always)]
fn special(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(LOW) & !word;
    let quote = zero(word ^ (LOW * b'"' as u64));
    let backslash = zero(word ^ (LOW * b'\\' as u64));
    let control = word.wrapping_sub(LOW * 0x20) & !word;
    (quote | backslash | control) & HIGH
}

#[inline(always)]
fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..0x20)
}
