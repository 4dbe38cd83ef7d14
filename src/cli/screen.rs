//! stderr, shared by the log and one live line below it.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The process has one.
pub(super) static SCREEN: Screen =
    Screen { line: Mutex::new(String::new()), kind: OnceLock::new() };

/// Whoever writes takes the live line away and puts it back, in one write, so
/// that nothing flickers and nothing is torn.
pub(super) struct Screen {
    line: Mutex<String>,
    kind: OnceLock<Kind>,
}

#[derive(Clone, Copy)]
struct Kind {
    terminal: bool,
    colour: bool,
}

impl Screen {
    fn kind(&self) -> Kind {
        *self.kind.get_or_init(|| {
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            let terminal = io::stderr().is_terminal() && !dumb;
            // https://no-color.org
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            Kind { terminal, colour: terminal && !plain }
        })
    }

    /// Whether somebody is looking.
    pub(super) fn is_terminal(&self) -> bool {
        self.kind().terminal
    }

    /// Whether colour is welcome.
    pub(super) fn has_colour(&self) -> bool {
        self.kind().colour
    }

    /// Switches an attribute on and off again, where colour is welcome.
    pub(super) fn colours(&self, code: &str) -> (String, &'static str) {
        if self.has_colour() { (format!("\x1b[{code}m"), "\x1b[0m") } else { (String::new(), "") }
    }

    /// Replaces the live line. Does nothing where nobody is looking.
    pub(super) fn live(&self, line: &str) {
        if !self.is_terminal() {
            return;
        }
        let mut shown = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = clipped(line, width());
        write(&format!("\r{shown}\x1b[0m\x1b[K"));
    }

    /// Takes the live line away.
    pub(super) fn clear(&self) {
        let mut shown = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if !shown.is_empty() {
            shown.clear();
            write("\r\x1b[K");
        }
    }

    /// Writes whole lines above the live line.
    pub(super) fn say(&self, text: &str) {
        let shown = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.is_empty() {
            write(text);
        } else {
            write(&format!("\r\x1b[K{text}{shown}\x1b[0m\x1b[K"));
        }
    }
}

/// What cannot be written to stderr can be told nowhere.
fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn width() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0))
}

/// A line that would wrap cannot be taken back. Escape sequences take no room.
fn clipped(line: &str, width: usize) -> String {
    let mut out = String::with_capacity(line.len());
    let mut room = width.saturating_sub(1);
    let mut escape = false;
    for c in line.chars() {
        if c == '\x1b' {
            escape = true;
        } else if escape {
            escape = !c.is_ascii_alphabetic();
        } else if room == 0 {
            break;
        } else {
            room -= 1;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clipped_without_counting_colours() {
        assert_eq!(clipped("abcdef", 4), "abc");
        assert_eq!(clipped("abc", 4), "abc");
        assert_eq!(clipped("\x1b[1;31mab\x1b[0mcd", 4), "\x1b[1;31mab\x1b[0mc");
        assert_eq!(clipped("äöü", 3), "äö");
    }
}
