//! The document as a tree that knows where each of its parts stands.
//!
//! Variables are expanded here, inside of values and after parsing, so that
//! quoting and line numbers stay what they are.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::problem::Problems;

/// A value, with its key and its place.
#[derive(Debug)]
pub(super) struct Node {
    /// Told apart from every other node of the document.
    pub(super) id: usize,
    /// The key, unless it is an element of a list or the document itself.
    pub(super) key: Option<String>,
    pub(super) key_span: Range<usize>,
    pub(super) span: Range<usize>,
    /// The table that it stands in, as people write it: `in [source]`; or of
    /// which list it is an element.
    pub(super) within: String,
    /// How a table is called in messages about what stands in it.
    pub(super) place: String,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Vec<Node>),
}

impl Node {
    /// The value under a key of this table.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.children().iter().find(|child| child.key.as_deref() == Some(key))
    }

    /// What is directly below a table or a list.
    pub(super) fn children(&self) -> &[Self] {
        match &self.value {
            Value::Table(children) | Value::List(children) => children,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn find(&self, id: usize) -> Option<&Self> {
        if self.id == id {
            return Some(self);
        }
        self.children().iter().find_map(|child| child.find(id))
    }

    /// Where to point at for something wrong with the whole of it.
    pub(super) fn head(&self) -> Range<usize> {
        if self.key.is_some() { self.key_span.clone() } else { self.span.clone() }
    }
}

/// How variables are looked up.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Makes the tree of a document.
pub(super) fn tree(table: &Spanned<DeTable<'_>>, env: Env<'_>, problems: &mut Problems) -> Node {
    let mut builder = Builder { env, problems, next: 1 };
    let place = Place { path: String::new(), name: String::new(), listed: false };
    let children = builder.table(table.get_ref(), &place);
    Node {
        id: 0,
        key: None,
        key_span: 0..0,
        span: 0..0,
        within: place.to_string(),
        place: place.to_string(),
        value: Value::Table(children),
    }
}

/// A table, as people write it: `in [source]`, `in [[sink]] "lake"`.
#[derive(Clone)]
struct Place {
    path: String,
    name: String,
    listed: bool,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, name, listed } = self;
        match (path.as_str(), listed) {
            ("", _) => f.write_str("at the top level"),
            (_, true) if !path.contains('.') => write!(f, "in [[{path}]]{name}"),
            _ => write!(f, "in [{path}]{name}"),
        }
    }
}

impl Place {
    fn below(&self, key: &str) -> Self {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Self { path, name: self.name.clone(), listed: false }
    }

    fn element(&self, index: usize, table: &DeTable<'_>) -> Self {
        let name = match table.get("name").and_then(|name| name.get_ref().as_str()) {
            Some(name) => format!(" {name:?}"),
            None => format!(" number {}", index + 1),
        };
        Self { path: self.path.clone(), name, listed: true }
    }
}

struct Builder<'a, 'p> {
    env: Env<'a>,
    problems: &'p mut Problems,
    next: usize,
}

impl Builder<'_, '_> {
    fn table(&mut self, table: &DeTable<'_>, place: &Place) -> Vec<Node> {
        let within = place.to_string();
        let entries = table.iter();
        entries
            .map(|(key, value)| {
                let below = place.below(key.get_ref());
                let key = (key.get_ref().to_string(), key.span());
                self.node(Some(key), value, &within, &below)
            })
            .collect()
    }

    fn list(&mut self, list: &DeArray<'_>, within: &str, place: &Place) -> Vec<Node> {
        let elements = list.iter().enumerate();
        elements
            .map(|(index, element)| {
                let below = match element.get_ref().as_table() {
                    Some(table) => place.element(index, table),
                    None => place.clone(),
                };
                self.node(None, element, within, &below)
            })
            .collect()
    }

    fn node(
        &mut self,
        key: Option<(String, Range<usize>)>,
        value: &Spanned<DeValue<'_>>,
        within: &str,
        place: &Place,
    ) -> Node {
        let id = self.next;
        self.next += 1;
        let span = value.span();
        let (key, key_span) = match key {
            Some((key, span)) => (Some(key), span),
            None => (None, span.clone()),
        };
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(self.expand(text, &span, key.as_deref())),
            DeValue::Integer(number) => self.integer(number, &span),
            // The parser has let nothing else through.
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Table(table) => Value::Table(self.table(table, place)),
            DeValue::Array(list) => {
                let of = format!("of `{}` {within}", key.as_deref().unwrap_or("a list"));
                Value::List(self.list(list, &of, place))
            }
        };
        let (within, place) = (within.to_owned(), place.to_string());
        Node { id, key, key_span, span, within, place, value }
    }

    fn integer(&mut self, number: &DeInteger<'_>, span: &Range<usize>) -> Value {
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                self.problems.add(span.clone(), format!("the number {number} is too large"));
                Value::Integer(0)
            }
        }
    }

    fn expand(&mut self, text: &str, at: &Range<usize>, key: Option<&str>) -> String {
        if !text.contains('$') {
            return text.to_owned();
        }
        match expand(text, self.env) {
            Ok(expanded) => {
                self.problems.expanded(&expanded, text);
                expanded
            }
            Err(wrong) => {
                let key = key.map_or_else(String::new, |key| format!("`{key}`: "));
                self.problems.add(at.clone(), format!("{key}{wrong}"));
                String::new()
            }
        }
    }
}

/// Replaces `${NAME}` and `${NAME:-default}`; `$$` is a dollar sign where a
/// brace follows.
fn expand(text: &str, env: Env<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some((inside, after)) = after.split_once('}') else {
                return Err("`${` lacks its closing brace; write `$${` for a plain one".to_owned());
            };
            out.push_str(&look_up(inside, env)?);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn look_up(inside: &str, env: Env<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(valid) {
        return Err(format!("{name:?} is not the name of an environment variable"));
    }
    // As in a shell, an empty variable takes the default too.
    match (env(name), default) {
        (Some(value), _) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Some(value), None) => Ok(value),
        (None, None) => Err(format!(
            "the environment variable {name} is not set; set it, or give a default: ${{{name}:-…}}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_as_in_a_shell() {
        let env = |name: &str| match name {
            "A" => Some("x".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expanded) in [
            ("plain", "plain"),
            ("${A}", "x"),
            ("a${A}b${A}c", "axbxc"),
            ("${NO:-d}", "d"),
            ("${NO:-}", ""),
            ("${A:-d}", "x"),
            ("${EMPTY:-d}", "d"),
            ("[${EMPTY}]", "[]"),
            ("$${A}", "${A}"),
            ("$A $ 5$", "$A $ 5$"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expanded), "{text}");
        }
        for wrong in ["${NO}", "${A", "${}", "${a b}"] {
            assert!(expand(wrong, &env).is_err(), "{wrong}");
        }
    }
}
