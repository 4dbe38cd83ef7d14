//! What happened, step by step: a hash of it always, the text when asked for.

use std::fmt::{self, Write};

/// The steps of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    steps: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, steps: 0, lines: keep.then(Vec::new) }
    }

    pub(crate) fn step(&mut self, at_ms: u64, who: impl fmt::Display, what: fmt::Arguments<'_>) {
        self.steps += 1;
        // Writing into the hash cannot fail.
        let _ = write!(Hashing(&mut self.hash), "{at_ms} {who} {what}");
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3} {who:<4} {what}", at_ms as f64 / 1000.0));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    pub(crate) fn lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}

/// FNV-1a over whatever is written.
struct Hashing<'a>(&'a mut u64);

impl Write for Hashing<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
