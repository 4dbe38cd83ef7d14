//! A place in a message, and the steps that take it forward: white space,
//! literals, strings, and values that nobody wants.
//!
//! A cursor is copied, not shared: whatever is not inlined takes it by value, as
//! bytes and position where it is called often, and gives back where it ended.
//! So the position of the hot path stays in a register; as soon as one rarely
//! called function held a reference to it, each step would go through memory.

use crate::MAX_DEPTH;
use crate::chunk;
use crate::error::{DecodeError, Found, Reason};

/// The result of every step.
pub(crate) type Step<T> = Result<T, DecodeError>;

/// A place in a message.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The byte here; 0, which is never valid in JSON, behind the end.
    #[inline(always)]
    pub(crate) fn byte(self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Everything from here on.
    #[inline(always)]
    pub(crate) fn rest(self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next `N` bytes, where there are as many.
    #[inline(always)]
    pub(crate) fn chunk<const N: usize>(self) -> Option<&'a [u8; N]> {
        self.bytes.get(self.at..)?.first_chunk()
    }

    #[cold]
    pub(crate) fn error(self, reason: Reason) -> DecodeError {
        DecodeError::new(self.at, reason)
    }

    /// JSON wants something else here.
    #[cold]
    pub(crate) fn expected(self, what: &'static str) -> DecodeError {
        self.error(Reason::Syntax(what, Found::at(self.bytes, self.at)))
    }

    /// The column takes something else; junk that no value begins with is a
    /// type error as well, because the column is what the reader looks for.
    #[cold]
    pub(crate) fn mismatch(self) -> DecodeError {
        self.error(Reason::Type(Found::at(self.bytes, self.at)))
    }

    #[inline(always)]
    pub(crate) fn skip_space(&mut self) {
        if self.byte() <= b' ' {
            // One space is what a serialiser writes, if any.
            self.at += usize::from(self.byte() == b' ');
            if self.byte() <= b' ' {
                self.at = self.behind_spaces();
            }
        }
    }

    #[inline(never)]
    fn behind_spaces(mut self) -> usize {
        while matches!(self.byte(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.at
    }

    /// Steps over `word`, which the byte here has promised.
    #[inline(always)]
    pub(crate) fn literal(&mut self, word: &'static str) -> Step<()> {
        if self.rest().starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.expected(word))
    }

    /// Appends the text of the string here to `out`, without its quotes and
    /// with its escape sequences resolved, and steps behind it.
    #[inline(always)]
    pub(crate) fn copy_string(&mut self, out: &mut Vec<u8>) -> Step<()> {
        if self.byte() != b'"' {
            return Err(self.mismatch());
        }
        let (opening, start) = (self.at, out.len());
        self.at += 1;
        let mut wide = self.copy_plain(out);
        if self.byte() != b'"' {
            (self.at, wide) = self.copy_escaped(out, wide)?;
        }
        self.at += 1;
        if wide && !is_utf8(out, start) {
            return Err(DecodeError::new(opening, Reason::Utf8));
        }
        Ok(())
    }

    /// Appends everything up to the next special byte, and says whether any of
    /// it is not ASCII.
    ///
    /// A chunk is written as a whole and cut afterwards: stores of a fixed size
    /// are much cheaper than a call for every few bytes.
    #[inline(always)]
    fn copy_plain(&mut self, out: &mut Vec<u8>) -> bool {
        let mut wide = false;
        loop {
            let window = chunk::window(self.bytes, self.at);
            let stop = chunk::stop(window);
            wide |= stop.wide;
            self.at += stop.at;
            out.extend_from_slice(&window);
            if stop.at < window.len() {
                out.truncate(out.len() - window.len() + stop.at);
                return wide;
            }
        }
    }

    /// Goes on with a string that does not end here, up to its closing quote.
    #[inline(never)]
    fn copy_escaped(mut self, out: &mut Vec<u8>, mut wide: bool) -> Step<(usize, bool)> {
        while self.byte() != b'"' {
            if self.byte() != b'\\' {
                return Err(self.unterminated());
            }
            self.at += 1;
            self.escape(out)?;
            wide |= self.copy_plain(out);
        }
        Ok((self.at, wide))
    }

    /// A string stopped at something that cannot be in it.
    #[cold]
    fn unterminated(self) -> DecodeError {
        if self.at >= self.bytes.len() {
            self.expected("the end of a string")
        } else {
            self.error(Reason::Control)
        }
    }

    /// Appends what the escape sequence stands for; the backslash is behind us.
    fn escape(&mut self, out: &mut Vec<u8>) -> Step<()> {
        let plain = match self.byte() {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.at += 1;
                let mut buffer = [0; 4];
                out.extend_from_slice(self.unicode()?.encode_utf8(&mut buffer).as_bytes());
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

    /// Steps over the string here; gives what is between its quotes and whether
    /// there is an escape sequence in it. The encoding is not checked.
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

    /// Goes to the next quote, backslash or control character, or to the end.
    #[inline]
    fn skip_plain(&mut self) {
        loop {
            let stop = chunk::stop(chunk::window(self.bytes, self.at));
            self.at += stop.at;
            if stop.at < 16 {
                return;
            }
        }
    }

    /// Steps over the colon behind a key, and white space in front of it.
    pub(crate) fn colon(&mut self) -> Step<()> {
        self.skip_space();
        if self.byte() != b':' {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(())
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

    /// Where the value here ends, of whatever kind it is. Checks its grammar,
    /// but not the encoding of its strings. Needs no stack: a bit per level
    /// will do.
    #[inline(never)]
    pub(crate) fn behind_value(mut self) -> Step<usize> {
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
                return Ok(self.at);
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

/// Whether everything from `start` on is UTF-8.
#[inline(never)]
fn is_utf8(bytes: &[u8], start: usize) -> bool {
    bytes.get(start..).is_none_or(|text| std::str::from_utf8(text).is_ok())
}
