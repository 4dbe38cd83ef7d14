//! What is wrong with a file, and how it is told.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::node::{Node, Value};

/// Everything that was found wrong with a pipeline file.
///
/// `Display` prints one line per mistake, `file:line:column: what`;
/// [`render`](Self::render) adds the lines themselves.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    path: PathBuf,
    mistakes: Vec<Mistake>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1; nothing when the whole file is meant.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
    /// The line's text, with secrets blanked out, and how much of it is meant.
    excerpt: Option<(String, usize)>,
}

impl ConfigErrors {
    /// The file could not be read.
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let message = format!("cannot read the file: {error}");
        Self {
            path: path.to_owned(),
            mistakes: vec![Mistake { line: None, column: 1, message, excerpt: None }],
        }
    }

    /// The mistakes, in the order of the file.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// Prints every mistake with its line and a mark below it.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        let (red, blue, bold, off) = if colour {
            ("\x1b[1;31m", "\x1b[34m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "", "")
        };
        for mistake in &self.mistakes {
            let place = self.place(mistake);
            let message = &mistake.message;
            // Writing into a string cannot fail.
            let _ = writeln!(out, "{red}error{off}: {bold}{place}: {message}{off}");
            let Some((line, (text, width))) = mistake.line.zip(mistake.excerpt.as_ref()) else {
                continue;
            };
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let indent: String = text
                .chars()
                .take(mistake.column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let mark = "^".repeat((*width).max(1));
            let _ = writeln!(out, "{blue}{margin} |{off}");
            let _ = writeln!(out, "{blue}{number} |{off} {text}");
            let _ = writeln!(out, "{blue}{margin} |{off} {indent}{red}{mark}{off}");
        }
        out
    }

    fn place(&self, mistake: &Mistake) -> String {
        let path = self.path.display();
        match mistake.line {
            Some(line) => format!("{path}:{line}:{}", mistake.column),
            None => path.to_string(),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}: {}", self.place(mistake), mistake.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigErrors> for tidelock_connector::Error {
    fn from(errors: ConfigErrors) -> Self {
        Self::config(errors.to_string())
    }
}

/// Mistakes as they are found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<(Range<usize>, String)>,
    /// Texts that came out of variables, and what the file says instead.
    expanded: Vec<(String, String)>,
    /// Where values stand that must not be shown.
    secrets: Vec<Range<usize>>,
}

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds a mistake, once.
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        let message = self.redact(message.into());
        if !self.found.iter().any(|(at, text)| *at == span && *text == message) {
            self.found.push((span, message));
        }
    }

    pub(super) fn expanded(&mut self, expanded: &str, raw: &str) {
        if !expanded.is_empty() && expanded != raw {
            self.expanded.push((expanded.to_owned(), raw.to_owned()));
        }
    }

    /// Says what the file says, not what a variable holds.
    fn redact(&self, mut message: String) -> String {
        for (expanded, raw) in &self.expanded {
            message = message.replace(&format!("{expanded:?}"), &format!("{raw:?}"));
            // What is so short would be found in other words as well.
            if expanded.len() > 3 {
                message = message.replace(expanded.as_str(), raw);
            }
        }
        message
    }

    /// Looks for values that an excerpt must not show.
    pub(super) fn note_secrets(&mut self, node: &Node) {
        let hidden = ["protocol", "mechanism", "username", "ca", "certificate", "key"];
        for child in node.children() {
            let key = child.key.as_deref().unwrap_or_default();
            let protected = node.key.as_deref() == Some("security") && !hidden.contains(&key);
            if matches!(child.value, Value::Text(_)) && (protected || is_secretive(key)) {
                self.secrets.push(child.span.clone());
            }
            self.note_secrets(child);
        }
    }

    /// Turns offsets into lines and columns.
    pub(super) fn into_errors(mut self, path: &Path, text: &str) -> ConfigErrors {
        self.found.sort_by_key(|(span, _)| span.start);
        let found = std::mem::take(&mut self.found);
        let mistakes = found.into_iter().map(|(span, message)| self.mistake(text, &span, message));
        ConfigErrors { path: path.to_owned(), mistakes: mistakes.collect() }
    }

    fn mistake(&self, text: &str, span: &Range<usize>, message: String) -> Mistake {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[..line_start].matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let shown: String = text[line_start..line_end]
            .char_indices()
            .map(|(at, c)| {
                let at = line_start + at;
                if self.secrets.iter().any(|secret| secret.contains(&at)) { '*' } else { c }
            })
            .collect();
        // A line that does not even parse may hold anything.
        let safe = !self.secrets.is_empty() || !is_secretive(&shown);
        let end = span.end.min(line_end);
        let width = text.get(start..end).map_or(1, |marked| marked.chars().count());
        let excerpt = safe.then(|| (shown.trim_end().to_owned(), width));
        Mistake { line: Some(line), column, message, excerpt }
    }
}

fn is_secretive(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "pwd", "secret", "token", "oauth", "pem"].iter().any(|word| key.contains(word))
}

/// The candidate that somebody may have meant who wrote `word`.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase().replace('-', "_");
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, candidate);
    let best = candidates.iter().min_by_key(|candidate| distance(candidate))?;
    let allowed = (word.len() / 3).clamp(1, 3);
    let begins = lower.len() > 2 && (best.starts_with(&lower) || lower.starts_with(best));
    (distance(best) <= allowed || begins).then_some(*best)
}

/// `did you mean …`, or what there is.
pub(super) fn hint(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known: {}", candidates.join(", ")),
    }
}
